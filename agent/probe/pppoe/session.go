package pppoe

import (
	"context"
	"encoding/binary"
	"time"
)

// session is an open PPPoE session, from the PADS on.
type session struct {
	*dialer
	offer *Offer
	id    uint16

	stage    Stage
	entered  time.Duration
	deadline time.Duration // of the stage
	outcome  Outcome       // not empty: how the dial ended

	lcp, ipcp, ipv6cp negotiation
	magic             uint32
	maxMRU            uint16
	looped            int // Configure-Requests with our own magic number
	restarts          int // of LCP, by the peer
	auth              auth
	echo              echo
	rejects, replies  int // to what the peer sends, bounded
	rejectID          byte
	early             []*frame // came before the PADS
	over              bool     // by the peer's PADT: nothing is sent any more
	scratch           []byte
}

func newSession(d *dialer, offer *Offer, pads *frame, maxPayload uint16, early []*frame) *session {
	s := &session{dialer: d, offer: offer, id: pads.session, maxMRU: d.o.MRU, early: early}
	if m := min(maxPayload, d.o.MaxPayload); m > defaultMRU {
		s.maxMRU = m
	}
	return s
}

// run goes from LCP to the end of the echoes.
func (s *session) run(ctx context.Context) (Outcome, error) {
	defer func() {
		s.leave()
		s.summarise()
	}()
	if err := s.startLCP(); err != nil {
		return "", err
	}
	for {
		var err error
		if s.past(s.deadline) {
			err = s.expire()
		} else {
			err = s.tick(s.now())
		}
		if err != nil {
			return "", err
		}
		if s.outcome != "" {
			return s.outcome, nil
		}
		f, err := s.nextFrame(ctx)
		if err != nil {
			return "", err
		}
		if f == nil {
			continue
		}
		if err := s.handle(f); err != nil {
			return "", err
		}
		if s.outcome == "" {
			if err := s.advance(); err != nil {
				return "", err
			}
		}
		if s.outcome != "" {
			return s.outcome, nil
		}
	}
}

// nextFrame returns the next frame, or nil if something else is due before.
func (s *session) nextFrame(ctx context.Context) (*frame, error) {
	if len(s.early) > 0 {
		f := s.early[0]
		s.early = s.early[1:]
		return f, ctx.Err()
	}
	return s.wait(ctx, s.alarm())
}

// enter begins a stage that may take that long.
func (s *session) enter(stage Stage, limit time.Duration) {
	s.leave()
	s.stage, s.entered = stage, s.now()
	s.deadline = s.limit(limit)
	s.result.Stage = stage
}

// leave notes what the stage took.
func (s *session) leave() {
	r := &s.result
	var took *float64
	switch s.stage {
	case StageLCP:
		took = &r.LCPMs
	case StageAuth:
		took = &r.AuthMs
	case StageIPCP:
		took = &r.IPCPMs
	case StageIPv6CP:
		took = &r.IPv6CPMs
	case StageUp:
		took = &r.UpMs
	default:
		return
	}
	*took += millis(s.now() - s.entered)
	s.stage = ""
}

// alarm returns when something is due.
func (s *session) alarm() time.Duration {
	at := s.deadline
	for _, t := range [...]time.Duration{s.lcp.next, s.ipcp.next, s.ipv6cp.next, s.auth.next, s.echo.next} {
		if t != 0 {
			at = min(at, t)
		}
	}
	return at
}

// tick does what is due: repetitions, echoes.
func (s *session) tick(now time.Duration) error {
	for _, n := range [...]*negotiation{&s.lcp, &s.ipcp, &s.ipv6cp} {
		if n.next == 0 || now < n.next {
			continue
		}
		if n.requests >= maxConfigure {
			n.next = 0
			continue
		}
		if err := n.request(s, true); err != nil {
			return err
		}
	}
	if s.auth.next != 0 && now >= s.auth.next {
		if err := s.repeatAuth(); err != nil {
			return err
		}
	}
	if s.echo.next != 0 && now >= s.echo.next {
		return s.sendEcho(now)
	}
	return nil
}

// expire ends a stage whose time is up.
func (s *session) expire() error {
	switch s.stage {
	case StageLCP:
		s.outcome = LCPNoAnswer
		if s.lcp.heard {
			s.outcome = LCPNoAgreement
		}
	case StageAuth:
		s.outcome, s.result.Auth.Result = AuthNoAnswer, "no_answer"
	case StageIPCP:
		s.outcome = IPCPNoAnswer
		if s.ipcp.heard {
			s.outcome = IPCPFailed
		}
	case StageIPv6CP:
		if s.result.IPv6.Result == "" {
			s.result.IPv6.Result = "no_answer"
		}
		s.begin()
	case StageUp:
		return s.endEcho()
	case StageDiscovery, StageSessionSetup: // not of a session
	}
	return nil
}

// advance goes on to the next stage where this one is done.
func (s *session) advance() error {
	if s.stage == StageLCP && s.lcp.up() {
		s.finishLCP()
		if s.auth.proto != 0 {
			s.enter(StageAuth, authTime)
			return s.startAuth()
		}
		s.result.Auth.Protocol = "none"
		s.auth.done = true
	}
	if (s.stage == StageLCP || s.stage == StageAuth) && s.auth.done {
		s.enter(StageIPCP, networkTime)
		return s.startNetwork()
	}
	if s.stage == StageIPCP && s.ipcp.up() {
		if !s.finishIPCP() {
			s.outcome = NoAddress
			return nil
		}
		if s.o.IPv6 && s.result.IPv6.Result == "" && !s.ipv6cp.up() {
			s.enter(StageIPv6CP, ipv6Time)
		}
	}
	if s.o.IPv6 && s.result.IPv6.Result == "" && s.ipv6cp.up() {
		s.finishIPv6CP()
	}
	if s.stage == StageIPCP && s.ipcp.up() || s.stage == StageIPv6CP && s.result.IPv6.Result != "" {
		s.begin()
	}
	return nil
}

// handle takes a frame of any kind.
func (s *session) handle(f *frame) error {
	switch {
	case f.src == s.own:
		if !f.discovery && f.session == s.id {
			s.outcome = Loop
		}
		return nil
	case f.src != s.offer.from:
		return nil
	case f.discovery:
		s.handleDiscovery(f)
		return nil
	case f.session != s.id || f.code != 0:
		return nil
	case len(f.payload) < 2:
		s.result.Malformed++
		return nil
	}
	proto, body := binary.BigEndian.Uint16(f.payload), f.payload[2:]
	if proto < protoControl {
		return nil // a datagram
	}
	known := proto == protoLCP || proto == protoPAP || proto == protoCHAP || proto == protoIPCP || proto == protoIPv6CP && s.o.IPv6
	if !known {
		return s.rejectProtocol(proto, body)
	}
	c, ok := parseControl(body)
	if !ok {
		s.result.Malformed++
		return nil
	}
	switch proto {
	case protoLCP:
		return s.handleLCP(c, f.at)
	case protoPAP:
		s.handlePAP(c)
		return nil
	case protoCHAP:
		return s.handleCHAP(c)
	}
	if !s.auth.done {
		return nil // as RFC 1661, 3.5, has it
	}
	if proto == protoIPCP {
		return s.handleIPCP(c)
	}
	return s.handleIPv6CP(c)
}

func (s *session) handleDiscovery(f *frame) {
	switch {
	case f.code == codePADS && f.session != s.id:
		s.refuse(f, s.offer)
	case f.code == codePADT && f.session == s.id:
		// What is wrong with the tags doesn't matter to the end.
		if t, ok := s.parse(f, "PADT"); ok {
			s.answered(f, t)
		}
		s.result.PADTReceived = true
		s.over = true
		s.outcome = Terminated
	}
}

// send sends a control packet.
func (s *session) send(proto uint16, c control) error {
	s.scratch = append16(s.scratch[:0], proto)
	s.scratch = c.appendTo(s.scratch)
	return s.dialer.send(&frame{dst: s.offer.from, session: s.id, payload: s.scratch})
}

// reply sends an answer to what the peer sent, up to a number of them: a flood
// is not answered by another one.
func (s *session) reply(proto uint16, c control) error {
	if s.replies++; s.replies > maxReplies {
		return nil
	}
	return s.send(proto, c)
}

// rejectProtocol refuses what isn't spoken here, which includes everything
// else that a full client might be offered: CCP, MPLSCP, EAP.
func (s *session) rejectProtocol(proto uint16, body []byte) error {
	if !s.lcp.up() || s.rejects >= maxRejects {
		return nil
	}
	s.rejects++
	s.rejectID++
	data := append16(nil, proto)
	data = append(data, body[:min(len(body), int(s.maxMRU)-6, 1400)]...)
	return s.send(protoLCP, control{protocolReject, s.rejectID, data})
}

// rejectCode refuses a packet of a kind that isn't known.
func (s *session) rejectCode(proto uint16, c control) error {
	if s.rejects >= maxRejects {
		return nil
	}
	s.rejects++
	s.rejectID++
	data := c.appendTo(nil)
	return s.send(proto, control{codeReject, s.rejectID, data[:min(len(data), 1400)]})
}

// terminate ends the session: an orderly end of PPP, and of PPPoE in any case.
func (s *session) terminate(ctx context.Context, failed error) {
	began := s.now()
	defer func() { s.result.TerminateMs = millis(s.now() - began) }()
	if s.over {
		return
	}
	defer s.padt(s.offer, s.id)
	if failed != nil && ctx.Err() == nil {
		return // the interface is gone
	}
	const id = 0xf0
	for range 2 {
		if s.send(protoLCP, control{code: terminateRequest, id: id}) != nil {
			return
		}
		over := s.awaitEnd(ctx, id, s.now()+terminateTime)
		if ctx.Err() != nil && !over {
			// A cancellation makes the wait short, not void.
			s.awaitEnd(context.WithoutCancel(ctx), id, s.now()+cancelledTime)
			return
		}
		if over {
			return
		}
	}
}

// awaitEnd waits for the answer to a Terminate-Request, and says whether the
// session has ended.
func (s *session) awaitEnd(ctx context.Context, id byte, until time.Duration) bool {
	for {
		f, err := s.wait(ctx, until)
		if f == nil || err != nil {
			return err != nil && ctx.Err() == nil
		}
		if over, err := s.ending(f, id); over || err != nil {
			return true
		}
	}
}

// ending handles a frame while the session is being ended, and says whether it
// has ended.
func (s *session) ending(f *frame, id byte) (bool, error) {
	if f.src != s.offer.from {
		return false, nil
	}
	if f.discovery {
		// This PADT is an answer, not why the dial ended.
		if f.code == codePADT && f.session == s.id {
			s.result.PADTReceived = true
			return true, nil
		}
		s.refuse(f, s.offer)
		return false, nil
	}
	if f.session != s.id || len(f.payload) < 2 || binary.BigEndian.Uint16(f.payload) != protoLCP {
		return false, nil
	}
	c, ok := parseControl(f.payload[2:])
	switch {
	case !ok:
	case c.code == terminateAck && c.id == id:
		s.result.TerminateAcked = true
		return true, nil
	case c.code == terminateRequest:
		return false, s.send(protoLCP, control{code: terminateAck, id: c.id})
	}
	return false, nil
}
