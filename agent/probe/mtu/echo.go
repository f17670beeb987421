package mtu

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	smallest  = echoHeader + 40 // of a request: what any path carries
	attempts  = 3               // of each size
	maxPacket = 65535
	spacing   = 2 * time.Millisecond  // between requests: routers take a burst for an attack
	tick      = 50 * time.Millisecond // how late the end of a context may be noticed
)

// echoes are the requests of one search.
type echoes struct {
	socket *socket
	search *search
	wait   time.Duration
	id     uint16
	tok    token
	rtt    time.Duration // the longest; 0: nothing was answered
	sent   []sent        // by sequence number
	round  int           // the first probe of this round
	res    *Result
}

// sent is one request; probe is its index in the result.
type sent struct {
	probe int
	at    time.Time
}

func (e *echoes) header() int {
	if e.socket.v6 {
		return headerV6
	}
	return headerV4
}

// interfaceMTU has the kernel refuse the largest packet there is: it tells the
// MTU of the interface that the packet would have left by, whatever it remembers
// of the path.
func (e *echoes) interfaceMTU() (int, error) {
	err := e.socket.send(request(maxPacket-e.header(), e.socket.v6, e.id, 0, token{}))
	mtu := maxPacket
	var b [64]byte
	for {
		x, _, ok := e.socket.failure(b[:])
		switch {
		case ok && x.origin == unix.SO_EE_ORIGIN_LOCAL && x.errno == uint32(unix.EMSGSIZE):
			mtu = min(mtu, int(x.info))
		case ok: // somebody else's packet
		case err != nil && !errors.Is(err, unix.EMSGSIZE):
			return 0, err
		case err != nil && mtu == maxPacket:
			return 0, errors.New("the kernel does not tell the interface's MTU")
		default:
			return mtu, nil
		}
	}
}

// try tries sizes, all at once, until each is settled or the last attempt's time
// is up.
func (e *echoes) try(ctx context.Context, sizes []int) error {
	e.round = len(e.res.Probes)
	for _, n := range sizes {
		e.res.Probes = append(e.res.Probes, Probe{Size: n})
	}
	for attempt := range attempts {
		for i := range sizes {
			if !e.settled(e.round + i) {
				if err := e.send(ctx, e.round+i); err != nil {
					return err
				}
			}
		}
		pause := e.wait
		if attempt < attempts-1 {
			pause /= 3
		}
		if e.rtt > 0 {
			pause = min(pause, max(3*e.rtt, 100*time.Millisecond))
		}
		if err := e.collect(ctx, pause, e.allSettled); err != nil {
			return err
		}
	}
	for _, p := range e.res.Probes[e.round:] {
		if !p.Answered {
			e.search.silent(p.Size)
		}
	}
	return nil
}

// settled reports whether no more is to be learnt of a size.
func (e *echoes) settled(probe int) bool {
	p := e.res.Probes[probe]
	return p.Answered || p.Refused || p.Size <= e.search.good
}

func (e *echoes) allSettled() bool {
	for i := e.round; i < len(e.res.Probes); i++ {
		if !e.settled(i) {
			return false
		}
	}
	return true
}

func (e *echoes) send(ctx context.Context, probe int) error {
	p := &e.res.Probes[probe]
	b := request(p.Size-e.header(), e.socket.v6, e.id, uint16(len(e.sent)), e.tok)
	e.sent = append(e.sent, sent{probe, time.Now()})
	switch err := e.socket.send(b); {
	case errors.Is(err, unix.EMSGSIZE): // the interface's MTU is another one now
		e.search.silent(p.Size)
		return nil
	case err != nil:
		return err
	}
	p.Sent++
	return e.collect(ctx, spacing, func() bool { return false })
}

// collect takes in what comes, for d at most, until it is enough.
func (e *echoes) collect(ctx context.Context, d time.Duration, enough func() bool) error {
	until := time.Now().Add(d)
	var b [128]byte
	for {
		for in := e.socket.reply(b[:]); in != nil; in = e.socket.reply(b[:]) {
			e.answer(in)
		}
		for x, about, ok := e.socket.failure(b[:]); ok; x, about, ok = e.socket.failure(b[:]) {
			e.refusal(x, about)
		}
		left := time.Until(until)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case left <= 0, enough():
			return nil
		}
		e.socket.wait(min(left, tick))
	}
}

// mine returns the request that a message is about; the kernel gives a datagram
// socket only what is its own, and an identifier of its own choice.
func (e *echoes) mine(id, seq uint16) (*Probe, time.Time, bool) {
	if e.socket.raw && id != e.id || int(seq) >= len(e.sent) {
		return nil, time.Time{}, false
	}
	s := e.sent[seq]
	return &e.res.Probes[s.probe], s.at, true
}

func (e *echoes) answer(in []byte) {
	kind := byte(echoReply4)
	if e.socket.v6 {
		kind = echoReply6
	}
	id, seq, data, ok := parseEcho(in, kind, e.socket.raw && !e.socket.v6)
	if !ok || len(data) < len(e.tok) || token(data) != e.tok {
		return
	}
	p, at, ok := e.mine(id, seq)
	if !ok || p.Answered {
		return
	}
	e.rtt = max(e.rtt, time.Since(at))
	p.Answered = true
	e.search.answered(p.Size)
}

// refusal notes what a router said about a request.
func (e *echoes) refusal(x icmpError, about []byte) {
	kind := byte(echoRequest4)
	if e.socket.v6 {
		kind = echoRequest6
	}
	id, seq, _, ok := parseEcho(about, kind, false)
	if !ok || x.origin != unix.SO_EE_ORIGIN_ICMP && x.origin != unix.SO_EE_ORIGIN_ICMP6 {
		return
	}
	p, _, ok := e.mine(id, seq)
	if !ok {
		return
	}
	switch {
	case !e.socket.v6 && x.kind == unreachable4 && x.code == needsFragments, e.socket.v6 && x.kind == packetTooBig6:
		if p.Refused || p.Answered {
			return
		}
		p.Refused, p.ToldMTU = true, int(min(x.info, maxPacket))
		e.search.tooBig(p.Size, p.ToldMTU, x.from)
	case !e.socket.v6 && x.kind == unreachable4, e.socket.v6 && x.kind == unreachable6:
		e.res.Error = unreachableText(x.from, x.code)
	}
}

func unreachableText(from netip.Addr, code byte) string {
	return fmt.Sprintf("destination unreachable, code %d, says %s", code, from)
}
