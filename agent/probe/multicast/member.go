package multicast

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// member is a membership in the making.
type member interface {
	join(ctx context.Context, now time.Time) error
	// leave tells it to the network unless silent.
	leave(silent bool) error
	// heard is told of each query while joined.
	heard(now time.Time, c control)
	// flowing is told when the stream has come.
	flowing()
	// due is when tick wants to be called, the zero Time for never.
	due() time.Time
	tick(now time.Time) error
	// protocol is what is spoken; "" if the member doesn't know.
	protocol() string
}

// kernelMember leaves everything to the kernel, which counts members: if the
// host had the group before, it neither reports nor leaves on our account.
type kernelMember struct {
	ifi           *net.Interface
	group, source netip.Addr
	conn          net.PacketConn
}

func (k *kernelMember) join(ctx context.Context, _ time.Time) error {
	// No traffic comes by this socket; it holds the membership.
	network := "udp6"
	if k.group.Is4() {
		network = "udp4"
	}
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(ctx, network, ":0")
	if err != nil {
		return fmt.Errorf("cannot open socket: %w", err)
	}
	to := &net.UDPAddr{IP: k.group.AsSlice()}
	from := &net.UDPAddr{IP: k.source.AsSlice()}
	switch {
	case k.group.Is4() && k.source.IsValid():
		err = ipv4.NewPacketConn(conn).JoinSourceSpecificGroup(k.ifi, to, from)
	case k.group.Is4():
		err = ipv4.NewPacketConn(conn).JoinGroup(k.ifi, to)
	case k.source.IsValid():
		err = ipv6.NewPacketConn(conn).JoinSourceSpecificGroup(k.ifi, to, from)
	default:
		err = ipv6.NewPacketConn(conn).JoinGroup(k.ifi, to)
	}
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("cannot join: %w", translate(err))
	}
	k.conn = conn
	return nil
}

func (k *kernelMember) leave(bool) error {
	if k.conn == nil {
		return nil
	}
	err := k.conn.Close()
	k.conn = nil
	return err
}

func (*kernelMember) heard(time.Time, control) {}
func (*kernelMember) flowing()                 {}
func (*kernelMember) due() time.Time           { return time.Time{} }
func (*kernelMember) tick(time.Time) error     { return nil }
func (*kernelMember) protocol() string         { return "" }

// frameMember says everything itself.
type frameMember struct {
	send          func(frame []byte) error
	mac           [6]byte
	vlan          uint16
	local         netip.Addr
	group, source netip.Addr
	// random returns a duration from 0 to below n.
	random func(n time.Duration) time.Duration

	version int
	fixed   bool // no other version than this
	// fallBack is how long nothing may come before the older version is spoken
	// as well; both is true from then on.
	fallBack time.Duration
	both     bool
	known    bool // a querier has shown its version

	joined bool
	// When to say what; the zero Time for not.
	again  time.Time // the join, against loss
	answer time.Time // the state, to a query
	older  time.Time // the join, in the older version
}

func newFrameMember(w wire, mac net.HardwareAddr, local netip.Addr, o Options) *frameMember {
	f := &frameMember{
		send: w.send, mac: [6]byte(mac), vlan: o.VLAN, group: o.Group, source: o.Source, local: o.Local, random: rand.N[time.Duration],
		version: o.Version, fixed: o.Version != 0 || o.Source.IsValid(), fallBack: o.Wait / 2,
	}
	if f.version == 0 {
		f.version = v3
	}
	if !f.local.IsValid() && o.VLAN == 0 {
		f.local = local // that of another VLAN would be wrong
	}
	switch {
	case f.local.IsValid():
	case o.Group.Is4():
		f.local = netip.IPv4Unspecified()
	default: // RFC 4291, appendix A
		f.local = netip.AddrFrom16([16]byte{
			0xfe, 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
		})
	}
	return f
}

// say sends what, in the version spoken and, after falling back, in both.
func (f *frameMember) say(what says) error {
	err := f.sayIn(f.version, what)
	if f.both && f.version == v3 {
		err = errors.Join(err, f.sayIn(v2, what))
	}
	return err
}

func (f *frameMember) sayIn(version int, what says) error {
	to, b := message(what, version, f.local, f.group, f.source)
	if b == nil {
		return nil
	}
	b = frame(f.mac, f.vlan, to, b)
	err := f.send(b)
	if errors.Is(err, syscall.ENOBUFS) { // the queue was full for a moment
		err = f.send(b)
	}
	return err
}

func (f *frameMember) join(_ context.Context, now time.Time) error {
	if err := f.say(saysJoin); err != nil {
		return fmt.Errorf("cannot send report: %w", err)
	}
	f.joined = true
	// Within the second that RFC 3376, section 8.11, gives.
	f.again = now.Add(100*time.Millisecond + f.random(900*time.Millisecond))
	if !f.fixed {
		f.older = now.Add(f.fallBack)
	}
	return nil
}

// leave sends it twice: one may get lost, and nobody would tell.
func (f *frameMember) leave(silent bool) error {
	if !f.joined {
		return nil
	}
	f.joined = false
	if silent {
		return nil
	}
	if err := errors.Join(f.say(saysLeave), f.say(saysLeave)); err != nil {
		return fmt.Errorf("cannot send leave: %w", err)
	}
	return nil
}

func (f *frameMember) heard(now time.Time, c control) {
	f.known = true
	if c.version < f.version && !f.fixed {
		f.version, f.both = c.version, false
		if f.joined { // it may not have understood
			f.again = now
		}
	}
	if !f.joined || c.group.IsValid() && c.group != f.group {
		return
	}
	at := now
	if c.maxDelay > 0 {
		at = now.Add(f.random(c.maxDelay))
	}
	if f.answer.IsZero() || at.Before(f.answer) {
		f.answer = at
	}
}

func (f *frameMember) due() time.Time {
	var first time.Time
	if !f.joined {
		return first
	}
	for _, t := range [...]time.Time{f.again, f.answer, f.older} {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

func (f *frameMember) tick(now time.Time) error {
	past := func(t *time.Time) bool {
		if t.IsZero() || t.After(now) {
			return false
		}
		*t = time.Time{}
		return true
	}
	var err error
	if past(&f.again) {
		err = f.say(saysJoin)
	}
	if past(&f.answer) {
		err = errors.Join(err, f.say(saysState))
	}
	if past(&f.older) && !f.known {
		f.both = true
		err = errors.Join(err, f.sayIn(v2, saysJoin))
	}
	return err
}

func (f *frameMember) flowing() { f.older = time.Time{} }

func (f *frameMember) protocol() string {
	if f.both {
		return protocol(f.group.Is4(), v2)
	}
	return protocol(f.group.Is4(), f.version)
}
