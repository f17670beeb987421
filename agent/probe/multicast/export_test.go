package multicast

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Sum is sum.
func Sum(s uint32, b []byte) uint16 { return sum(s, b) }

// Pseudo is pseudo.
func Pseudo(src, dst netip.Addr, length int) uint32 {
	return pseudo(src.AsSlice(), dst.AsSlice(), length)
}

// Told describes the report or leave in an IP packet by its type, the type of
// the first record, and the group; "" if it is none, or of a link's own group.
func Told(b []byte) string {
	var d datagram
	var c control
	if !d.parse(b) || !c.read(&d) || c.kind == query {
		return ""
	}
	size, v6 := 4, d.src.Is6()
	if v6 {
		size = 16
	}
	typ, record, at := d.payload[0], "", 4
	if v6 {
		at = 8
	}
	if c.version == v3 {
		record, at = fmt.Sprintf("/%d", d.payload[8]), 12
	}
	group, _ := netip.AddrFromSlice(d.payload[at : at+size])
	if group.IsLinkLocalMulticast() {
		return ""
	}
	return fmt.Sprintf("%02x%s %s", typ, record, group)
}

// Join is the frame by which a host at src, with hardware address mac, joins a
// group.
func Join(version int, mac [6]byte, src, group netip.Addr, vlan uint16) []byte {
	return message(saysJoin, version, mac, src.AsSlice(), &Options{Group: group, VLAN: vlan})
}

// Control reads the message of IGMP or MLD in an IP packet; kind is "" if it
// carries none.
func Control(b []byte) (kind string, version int, group netip.Addr, delay time.Duration, members []netip.Addr) {
	var d datagram
	var c control
	if !d.parse(b) || !c.read(&d) {
		return "", 0, group, 0, nil
	}
	return [...]string{query: "query", report: "report", leave: "leave"}[c.kind], c.version, c.group, c.maxDelay, c.members
}

// Wire is a wire of functions.
type Wire struct {
	Receive     func(b []byte) (n int, own bool, err error)
	Send        func(b []byte) error
	SetDeadline func(t time.Time) error
	Dropped     func() uint32
}

func (w *Wire) receive(b []byte) (int, bool, error) { return w.Receive(b) }
func (w *Wire) send(b []byte) error                 { return w.Send(b) }
func (w *Wire) setDeadline(t time.Time) error       { return w.SetDeadline(t) }
func (w *Wire) drops() uint32                       { return w.Dropped() }
func (*Wire) close()                                {}

// RunOn is Run in frame mode on a wire, where the host has some groups.
func RunOn(ctx context.Context, w *Wire, o Options, host ...netip.Addr) (Result, error) {
	o.normalise()
	p := &probe{
		o: &o, wire: w, hostHas: host, buf: make([]byte, bufferSize),
		res: Result{Interface: o.Interface, Group: o.Group, Mode: ModeFrame, Leave: LeaveNotSent},
	}
	p.member = newFrameMember(w, []byte{2, 0, 0, 0, 0, 9}, netip.Addr{}, &o)
	return p.run(ctx)
}

// Check is Options.check.
func (o Options) Check() error {
	o.normalise()
	return o.check()
}

// Take counts an RTP packet.
func (r *RTP) Take(seq uint16, ssrc uint32) bool { return r.take(seq, ssrc) }

// Take counts TS packets.
func (t *TS) Take(b []byte) bool {
	if !isTS(b) {
		return false
	}
	t.take(b)
	return true
}

// ParseRTP is parseRTP.
func ParseRTP(b []byte) (seq uint16, ssrc uint32, payload []byte, ok bool) { return parseRTP(b) }

// Groups is parseGroups.
func Groups(v4 bool, b []byte) []netip.Addr { return parseGroups(string(b), v4) }
