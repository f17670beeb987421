package pppoe

import (
	"bytes"
	"slices"
	"time"
)

// negotiation is one control protocol's exchange of Configure packets, both
// ways: the automaton of RFC 1661, 4, as far as one dial needs it.
type negotiation struct {
	proto uint16
	want  []option // of our request

	started  bool
	id       byte // of our last request
	acked    bool // the peer accepted our request
	agreed   bool // we accepted the peer's
	heard    bool // the peer answered a request of ours
	spoken   bool // the peer sent a request
	given    []byte
	requests int
	refusals int
	sent     time.Duration
	next     time.Duration // our request is repeated then; 0: never
	// rejected are the types that the peer rejected, refused those of the
	// peer's that we rejected.
	rejected, refused []int
}

func (n *negotiation) up() bool { return n.acked && n.agreed }

// request sends our Configure-Request, a new one or the last again.
func (n *negotiation) request(s *session, again bool) error {
	n.started = true
	if !again || n.requests == 0 {
		n.id++
	}
	n.requests++
	n.acked = false
	n.sent = s.now()
	n.next = n.sent + n.patience()
	return s.send(n.proto, control{configureRequest, n.id, encodeOptions(n.want)})
}

// patience returns how long an answer is waited for. The first requests are
// lost where the server starts a program for each session: as long as it hasn't
// said a word, they are repeated soon.
func (n *negotiation) patience() time.Duration {
	switch {
	case n.spoken && n.requests <= 2, n.requests == 3, n.requests == 4:
		return time.Second
	case n.spoken || n.requests > 6:
		return 3 * time.Second
	case n.requests == 1:
		return 300 * time.Millisecond
	case n.requests == 2:
		return 700 * time.Millisecond
	}
	return 2 * time.Second
}

// exhausted says that the peer had its share of requests.
func (n *negotiation) exhausted() bool {
	return n.requests >= maxConfigure || n.refusals >= maxRefusals
}

// answer handles the peer's answer to our request. adopt takes over what a Nak
// suggests, one option at a time, and says whether it can.
func (n *negotiation) answer(s *session, c control, adopt func(option) bool) error {
	if c.id != n.id || !n.started || n.acked {
		return nil
	}
	options, ok := parseOptions(c.data)
	if !ok {
		s.result.Malformed++
		return nil
	}
	n.heard = true
	switch c.code {
	case configureAck:
		if !bytes.Equal(c.data, encodeOptions(n.want)) {
			s.result.Malformed++
			return nil
		}
		n.acked, n.next = true, 0
		return nil
	case configureNak:
		for _, suggested := range options {
			if mine := find(n.want, suggested.kind); mine != nil && adopt(suggested) {
				mine.data = bytes.Clone(suggested.data)
			}
		}
	case configureReject:
		for _, rejected := range options {
			if find(n.want, rejected.kind) != nil {
				n.want = without(n.want, rejected.kind)
				n.rejected = note(n.rejected, rejected.kind)
			}
		}
	}
	if n.exhausted() {
		return nil
	}
	return n.request(s, false)
}

// judgement is what we think of an option of the peer's.
type judgement int

const (
	accept judgement = iota
	reject
	// suggest is a Nak with the option that the judge returns.
	suggest
)

// consider answers the peer's request. judge decides on one option; for
// suggest it returns what we would accept. It returns whether the request was
// accepted.
func (n *negotiation) consider(s *session, c control, judge func(option) (judgement, option)) (bool, error) {
	options, ok := parseOptions(c.data)
	if !ok {
		s.result.Malformed++
		return false, nil
	}
	n.spoken = true
	if n.started && !n.acked {
		n.next = n.sent + n.patience()
	}
	repeated := n.agreed && bytes.Equal(c.data, n.given)
	if n.acked && n.agreed && !repeated {
		// The peer begins anew; so must we.
		if n.exhausted() {
			return false, nil
		}
		if err := n.request(s, false); err != nil {
			return false, err
		}
	}
	var bad, better []byte
	for _, o := range options {
		switch j, instead := judge(o); j {
		case reject:
			bad = appendOption(bad, o)
			n.refused = note(n.refused, o.kind)
		case suggest:
			better = appendOption(better, instead)
		case accept:
		}
	}
	reply := control{configureAck, c.id, c.data}
	switch {
	case len(bad) > 0:
		reply.code, reply.data = configureReject, bad
	case len(better) > 0:
		reply.code, reply.data = configureNak, better
	}
	n.agreed = reply.code == configureAck
	if !n.agreed {
		n.refusals++
		n.given = nil
		if n.refusals > maxRefusals {
			return false, nil
		}
		return false, s.reply(n.proto, reply)
	}
	n.given = bytes.Clone(c.data)
	// The peer was not there yet when our request came; it is now. This goes
	// before our Ack: with that the peer might be up, and a request makes it
	// begin anew.
	if n.started && !n.acked && n.requests < maxConfigure && s.now()-n.sent >= 100*time.Millisecond {
		if err := n.request(s, true); err != nil {
			return false, err
		}
	}
	return true, s.reply(n.proto, reply)
}

// note adds a type to a list, once.
func note(all []int, kind byte) []int {
	if slices.Contains(all, int(kind)) {
		return all
	}
	return append(all, int(kind))
}
