// Package multicast joins a multicast group as a set-top box would, measures the
// stream that comes, and leaves the group again: IGMPv2 and v3 (RFC 2236, 3376),
// MLDv1 and v2 (RFC 2710, 3810), continuity by RTP sequence numbers (RFC 3550)
// and MPEG-TS continuity counters (ISO/IEC 13818-1).
//
// It joins by the kernel where the interface has an address, and otherwise says
// the protocol itself in its own frames, VLAN tag included, so that a service
// VLAN can be tried before it has an interface. It sees what arrives at the
// port, whatever packet filter and routes would make of it. It never queries.
//
// It takes nothing from who is already a member. If the stream flows before the
// join, somebody behind this port has it, and the probe only listens. If this
// host is a member, or another host reports the group meanwhile, the probe sends
// no leave of its own: a network with fast leave would cut that member off. The
// probe's own report then expires (260 s by default). A leave that the kernel
// sends when its last member goes can't be held back.
package multicast

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Errors that callers may want to tell apart with errors.Is.
var (
	ErrNoInterface  = errors.New("no such interface")
	ErrNotPermitted = errors.New("not permitted")
	// ErrInterfaceDown: it is down, or went down or away during the run.
	ErrInterfaceDown = errors.New("interface is down")
)

// Outcome is what became of the stream.
type Outcome string

// The outcomes.
const (
	// Streaming: it came, and did not stall.
	Streaming Outcome = "streaming"
	// Intermittent: it came, and stopped for Options.Stall or longer.
	Intermittent Outcome = "intermittent"
	// NoStream: it did not come, although there is a querier.
	NoStream Outcome = "no_stream"
	// NoQuerier: it did not come, and nobody asked for members. Queries are
	// minutes apart, so this is evidence, not proof, of a missing querier.
	NoQuerier Outcome = "no_querier"
)

// Mode is the way a group is joined.
type Mode string

// The modes.
const (
	ModeAuto   Mode = ""       // in Options only
	ModeKernel Mode = "kernel" // by the kernel, which also answers queries
	ModeFrame  Mode = "frame"  // by the probe's own frames
	// ModeListen, in Result only: the stream flowed already, and the probe
	// joined nothing.
	ModeListen Mode = "listen"
)

// Member is who else has the group.
type Member string

// The members; "" if nobody is known.
const (
	MemberHost  Member = "host"  // this host's kernel, on any interface
	MemberOther Member = "other" // another host, seen by its report or by its stream
)

// Leaving is what became of the leave.
type Leaving string

// The ways of leaving.
const (
	LeaveStopped Leaving = "stopped"  // the stream ended
	LeaveFlowing Leaving = "flowing"  // it went on until the end of Options.LeaveWait
	LeaveNothing Leaving = "nothing"  // there was no stream to end
	LeaveNotSent Leaving = "not_sent" // there is another member, or nothing was joined
	LeaveUnknown Leaving = "unknown"  // sent, but not watched: the run was cut short
)

// Options say what to join. Interface and Group are required.
type Options struct {
	Interface string
	VLAN      uint16     // 802.1Q tag in the frame, 1 to 4094; 0 for none
	Group     netip.Addr // multicast, of more than link-local scope
	Source    netip.Addr // for source-specific multicast; the zero Addr for any
	Port      uint16     // UDP; 0 for that of the first packet
	// Version of the protocol, as IGMP counts: 2 or 3; MLDv1 is 2, MLDv2 is 3.
	// 0 for 3, falling back to what the querier speaks. A version that is asked
	// for is spoken in the probe's own frames.
	Version int
	Mode    Mode
	// Local is the sender of the probe's own reports: the interface's address
	// if it is the zero Addr, and where there is none 0.0.0.0 (RFC 3376, section
	// 4.2.13) or the link-local address of the hardware address.
	Local netip.Addr

	Before    time.Duration // listening before the join; 500 ms if zero
	Wait      time.Duration // for the first packet after the join; 3 s if zero
	Listen    time.Duration // to the stream, from its first packet on; 3 s if zero
	LeaveWait time.Duration // for the end of the stream after the leave; 4 s if zero
	Stall     time.Duration // a gap of that length interrupts the stream; 1 s if zero
}

// normalise fills in what is not given. Like all that takes Options in here it
// does so by pointer: a copy is a good deal of code.
func (o *Options) normalise() {
	def(&o.Before, 500*time.Millisecond)
	def(&o.Wait, 3*time.Second)
	def(&o.Listen, 3*time.Second)
	def(&o.LeaveWait, 4*time.Second)
	def(&o.Stall, time.Second)
	for _, a := range []*netip.Addr{&o.Group, &o.Source, &o.Local} {
		*a = a.Unmap().WithZone("")
	}
}

func def(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
	*d = min(*d, time.Hour)
}

func (o *Options) check() error {
	v4 := o.Group.Is4()
	var s string
	switch {
	case o.Interface == "":
		s = "no interface is given"
	case o.VLAN > 4094:
		s = "the VLAN is beyond 4094"
	case !o.Group.IsMulticast() || o.Group.IsLinkLocalMulticast() || o.Group.IsInterfaceLocalMulticast():
		s = "not a multicast group that routers forward"
	case o.Source.IsValid() && (o.Source.Is4() != v4 || o.Source.IsMulticast() || o.Source.IsUnspecified()):
		s = "the source is no sender to this group"
	case o.Local.IsValid() && (o.Local.Is4() != v4 || o.Local.IsMulticast()):
		s = "the local address is no sender of reports"
	case o.Version != 0 && o.Version != 2 && o.Version != 3:
		s = "the version is neither 2 nor 3"
	case o.Version == 2 && o.Source.IsValid():
		s = "a source needs version 3"
	case o.Mode != ModeAuto && o.Mode != ModeKernel && o.Mode != ModeFrame:
		s = "no such mode"
	case o.Mode == ModeKernel && (o.VLAN != 0 || o.Version != 0):
		s = "the kernel neither tags frames nor lets choose the version"
	default:
		return nil
	}
	return errors.New(s)
}

// Duration returns the longest time that a run with these options takes.
func (o Options) Duration() time.Duration {
	o.normalise()
	return o.Before + o.Wait + o.Listen + o.LeaveWait + 100*time.Millisecond
}

// Result is what a run saw.
type Result struct {
	Outcome   Outcome    `json:"outcome"`
	Interface string     `json:"interface"`
	VLAN      uint16     `json:"vlan,omitempty"`
	Group     netip.Addr `json:"group"`
	Source    netip.Addr `json:"source,omitzero"` // who sends
	Port      uint16     `json:"port,omitempty"`
	Mode      Mode       `json:"mode"`
	// Protocol is what was spoken last: igmpv1 to igmpv3, mldv1, mldv2.
	Protocol string `json:"protocol,omitempty"`
	Member   Member `json:"member,omitempty"`
	// AlreadyFlowing: the stream came before anything was joined.
	AlreadyFlowing bool `json:"already_flowing,omitempty"`

	// JoinMs is the time from the join to the first packet; nil without one, or
	// if nothing was joined.
	JoinMs *float64 `json:"join_ms,omitempty"`
	Leave  Leaving  `json:"leave"`
	// LeaveMs is the time from the leave to the last packet; with LeaveStopped.
	LeaveMs *float64 `json:"leave_ms,omitempty"`

	// Of the time in which the stream was listened to: from its first packet
	// until the leave. Bytes are of UDP payload.
	ListenedS    float64 `json:"listened_s"`
	Packets      uint64  `json:"packets"`
	Bytes        uint64  `json:"bytes"`
	RateMbps     float64 `json:"rate_mbps"`
	LongestGapMs float64 `json:"longest_gap_ms"` // the end of listening counts as a packet
	Stalls       int     `json:"stalls"`         // gaps of Options.Stall or longer
	RTP          *RTP    `json:"rtp,omitempty"`
	TS           *TS     `json:"ts,omitempty"`
	// LossRatio is of RTP packets if it is RTP, else of TS packets; nil if the
	// stream is neither, or Dropped forbids to say. From 0 to 1.
	LossRatio *float64 `json:"loss_ratio,omitempty"`
	// Dropped counts what this host was too slow to take: gaps in the numbers
	// may then be its own.
	Dropped uint32 `json:"dropped,omitempty"`
	// OtherPackets came to the group from other senders or to other ports;
	// Malformed could not be read.
	OtherPackets uint64 `json:"other_packets,omitempty"`
	Malformed    uint64 `json:"malformed,omitempty"`

	Queriers []Querier `json:"queriers,omitempty"` // at most 4
	// Foreign groups nobody here asked for: the network floods, snooping is
	// missing. At most 16, local services such as SSDP left out;
	// ForeignPackets counts those of all.
	Foreign        []Foreign `json:"foreign,omitempty"`
	ForeignPackets uint64    `json:"foreign_packets,omitempty"`
}

// Querier is who asked for members.
type Querier struct {
	Address  netip.Addr `json:"address"`
	Protocol string     `json:"protocol"` // of its last query
	Queries  uint64     `json:"queries"`
}

// Foreign is a group that arrived unasked.
type Foreign struct {
	Group   netip.Addr `json:"group"`
	Packets uint64     `json:"packets"`
}

// Run joins, listens and leaves. It takes at most o.Duration, and leaves
// whatever it joined however it ends; see the package comment for when it must
// not say so.
//
// The error says that nothing could be measured, or not to the end; the result
// then holds what was seen until then. It is compatible with ErrNoInterface,
// ErrNotPermitted, ErrInterfaceDown, or ctx.Err().
func Run(ctx context.Context, o Options) (Result, error) {
	o.normalise()
	p := &probe{o: &o, res: Result{Interface: o.Interface, VLAN: o.VLAN, Group: o.Group, Leave: LeaveNotSent}}
	err := p.open(ctx)
	if err == nil {
		p.res, err = p.run(ctx)
		p.wire.close()
	}
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("cannot probe group %s on %q: %w", o.Group, o.Interface, err)
	}
	return p.res, err
}

// open looks at the interface, and decides how to join.
func (p *probe) open(ctx context.Context) error {
	o := p.o
	if err := o.check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ifi, err := net.InterfaceByName(o.Interface)
	if err != nil {
		return ErrNoInterface
	}
	if ifi.Flags&net.FlagUp == 0 {
		return ErrInterfaceDown
	}
	local := address(ifi, o.Group.Is4())
	mode := o.Mode
	if mode == ModeAuto {
		mode = ModeFrame
		if o.VLAN == 0 && o.Version == 0 && local.IsValid() {
			mode = ModeKernel
		}
	}
	if mode == ModeFrame && len(ifi.HardwareAddr) != 6 {
		return errors.New("not an Ethernet interface, and the kernel can't join for want of an address")
	}
	p.hostHas, p.res.Mode = hostGroups(o.Group.Is4()), mode
	if slices.Contains(p.hostHas, o.Group) {
		p.res.Member = MemberHost
	}
	w, err := openWire(ifi, o, mode)
	if err != nil {
		return err
	}
	p.wire, p.buf = w, make([]byte, bufferSize)
	if mode == ModeKernel {
		p.member = &kernelMember{index: ifi.Index, o: o, fd: -1}
	} else {
		p.member = newFrameMember(w, ifi.HardwareAddr, local, o)
	}
	return nil
}

// address returns the address that the interface sends reports from, the zero
// Addr if it has none.
func address(ifi *net.Interface, v4 bool) netip.Addr {
	addrs, _ := ifi.Addrs() // none if they can't be read
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		addr, _ := netip.AddrFromSlice(n.IP)
		addr = addr.Unmap()
		if addr.Is4() == v4 && (v4 || addr.IsLinkLocalUnicast()) {
			return addr
		}
	}
	return netip.Addr{}
}
