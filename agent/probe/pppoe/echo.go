package pppoe

import (
	"encoding/binary"
	"time"
)

// echo is the echoes of a session that is up.
type echo struct {
	next    time.Duration // 0: no more
	sentAt  []time.Duration
	answers []bool
	sum     time.Duration
	refused bool // the peer doesn't know echoes
	more    int  // sent since the peer seems dead
}

// lostEchoes is how many echoes in a row must be lost for the peer to be dead.
const lostEchoes = 3

// begin enters the last stage.
func (s *session) begin() {
	n := max(s.o.Echoes, 0)
	s.enter(StageUp, s.o.MaxDuration)
	if n == 0 {
		s.outcome = OK
		return
	}
	s.echo.next = s.now()
}

func (s *session) sendEcho(now time.Duration) error {
	e := &s.echo
	e.sentAt, e.answers = append(e.sentAt, now), append(e.answers, false)
	e.next = now + s.o.EchoInterval
	if len(e.sentAt) >= s.o.Echoes {
		e.next, s.deadline = 0, s.limit(echoTime)
	}
	s.result.Echo.Sent++
	return s.send(protoLCP, control{echoRequest, byte(len(e.sentAt)), binary.BigEndian.AppendUint32(nil, s.magic)})
}

// echoed takes an Echo-Reply.
func (s *session) echoed(c control, at time.Duration) {
	e, r := &s.echo, &s.result.Echo
	i := int(c.id) - 1
	if s.stage != StageUp || i < 0 || i >= len(e.sentAt) || e.answers[i] {
		return
	}
	if len(c.data) < 4 {
		s.result.Malformed++
		return
	}
	rtt := at - e.sentAt[i]
	e.answers[i] = true
	e.sum += rtt
	ms := millis(rtt)
	if r.Received == 0 || ms < r.MinMs {
		r.MinMs = ms
	}
	r.MaxMs = max(r.MaxMs, ms)
	r.Received++
	r.AvgMs = millis(e.sum / time.Duration(r.Received))
	if r.Received == s.o.Echoes || e.more > 0 {
		s.finishEcho()
		if s.outcome == EchoLost {
			s.outcome = OK // slow, or away for a moment, but not dead
		}
	}
}

// endEcho ends the wait for the last echo, or asks once more.
func (s *session) endEcho() error {
	s.finishEcho()
	if s.outcome != EchoLost || s.echo.more == deadEchoes || s.now() >= s.o.MaxDuration {
		return nil
	}
	s.echo.more++
	s.outcome = ""
	return s.sendEcho(s.now())
}

// finishEcho judges the echoes, and with that the dial.
func (s *session) finishEcho() {
	if s.stage != StageUp {
		return
	}
	e, r := &s.echo, &s.result.Echo
	e.next = 0
	if r.Sent > 0 {
		r.LossRatio = float64(r.Sent-r.Received) / float64(r.Sent)
	}
	s.outcome = OK
	if e.refused {
		return
	}
	lost := 0
	for i := len(e.answers) - 1; i >= 0 && !e.answers[i]; i-- {
		lost++
	}
	if lost > 0 && lost >= min(lostEchoes, len(e.answers)) {
		s.outcome = EchoLost
	}
}

// answerEcho answers the peer's echo; only once LCP is up (RFC 1661, 5.8).
func (s *session) answerEcho(c control) error {
	if len(c.data) < 4 {
		s.result.Malformed++
		return nil
	}
	if magic := binary.BigEndian.Uint32(c.data); magic != 0 && magic == s.magic {
		s.outcome = Loop
		return nil
	}
	if !s.lcp.up() {
		return nil
	}
	data := binary.BigEndian.AppendUint32(nil, s.magic)
	return s.reply(protoLCP, control{echoReply, c.id, append(data, c.data[4:]...)})
}
