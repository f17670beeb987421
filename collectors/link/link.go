// Package link reads network interfaces: their state, speed and counters, and
// every change of state the moment the kernel announces it.
//
// It speaks rtnetlink through sockets of its own and decodes the messages
// itself: the decoder of the netlink library panics on short input, in a
// goroutine that cannot be guarded, and leaves out the count of carrier
// changes. Speed and duplex come from ethtool ioctls, so everything works in
// any network namespace and without /sys. It knows nothing of addresses and
// routes (package wan) and nothing of what the interfaces are used for.
package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"ontagent/collectors"
	"ontagent/collectors/rtnl"
)

// Name is the collector's name, and the type of its events.
const Name = "link"

// What the events say has changed.
const (
	WhatPresence   = "presence"    // "present", "absent"
	WhatName       = "name"        //
	WhatAdminState = "admin_state" // "up", "down"
	WhatCarrier    = "carrier"     // "up", "down"
	WhatOperState  = "oper_state"  // an OperState
	WhatMAC        = "mac"         //
	WhatMTU        = "mtu"         // bytes, in decimal
)

// OperState is the operational state of an interface in the words of RFC 2863.
type OperState string

// The operational states.
const (
	OperUnknown        OperState = "unknown" // many virtual interfaces never say
	OperNotPresent     OperState = "notpresent"
	OperDown           OperState = "down"
	OperLowerLayerDown OperState = "lowerlayerdown"
	OperTesting        OperState = "testing"
	OperDormant        OperState = "dormant"
	OperUp             OperState = "up"
)

// The duplex modes; the empty string means unknown.
const (
	DuplexFull = "full"
	DuplexHalf = "half"
)

// Link is one network interface as it is now.
type Link struct {
	Index int
	Name  string
	// MAC is in lower case with colons; empty if there is none.
	MAC string
	// Kind is what the kernel calls a virtual interface: "veth", "bridge",
	// "vlan", "ppp". Empty for hardware.
	Kind string
	// Type is the kind of link layer: "ether", "loopback", "ppp", or the
	// ARPHRD number in decimal.
	Type string
	// AdminUp reports that the interface is switched on, Carrier that besides
	// the driver sees the other end.
	AdminUp, Carrier bool
	OperState        OperState
	MTU              int // bytes
	// ParentIndex is the interface this one is stacked on (a VLAN's), Master
	// the bridge or bond it belongs to; zero if there is none.
	ParentIndex, MasterIndex int

	// SpeedMegabits is the negotiated speed in Mbit/s; 0 if unknown.
	SpeedMegabits int
	// Duplex is DuplexFull, DuplexHalf or empty for unknown.
	Duplex string
	// MaxMegabits is the best speed the port offers to the other end,
	// PeerMaxMegabits the best that the other end has offered, in Mbit/s; 0 if
	// unknown.
	MaxMegabits, PeerMaxMegabits int
	Wireless                     bool

	Counters Counters
	// CarrierChanges counts how often the carrier came or went since the
	// interface was made.
	CarrierChanges uint32

	// Offload is what may forward past the counters, Blind that they are a lower
	// bound therefore.
	Offload string
	Blind   bool
	// Incomplete reports that the kernel changed its list while it was read,
	// also when asked again: something may be missing or outdated.
	Incomplete bool
}

// Counters are running totals since the interface was made or its driver last
// reset them.
type Counters struct {
	RxBytes, TxBytes     uint64
	RxPackets, TxPackets uint64
	RxErrors, TxErrors   uint64
	RxDropped, TxDropped uint64
	Multicast            uint64 // received
	Collisions           uint64
	RxCRCErrors          uint64
	// Bits is the width of the kernel's answer, 64 or 32; 0 if it gave none.
	Bits int
}

// Options configure a Collector. The zero value works.
type Options struct {
	// Include and Exclude hold shell globs for interface names. An interface is
	// read if it matches one of Include (or that is empty) and none of Exclude.
	// Exclude nil means the loopback interface. A pattern that is no valid glob
	// stands for the name that is written like it.
	Include, Exclude []string
	// Log takes what is worth knowing beside errors; nil discards it.
	Log *slog.Logger
	// Now is the clock, with a monotonic reading; nil means time.Now.
	Now func() time.Time
	// SysRoot is where sysfs is mounted; empty means /sys. It is asked whether an
	// interface is wireless, and which accelerators are loaded.
	SysRoot string
	// ReceiveBuffer is the size in bytes of the buffer for announced changes;
	// zero means 1 MiB. It takes memory only while there is a backlog.
	ReceiveBuffer int
}

// Collector reads the interfaces of the network namespace it is used in.
type Collector struct {
	include, exclude []string
	log              *slog.Logger
	now              func() time.Time
	sysRoot          string
	receiveBuffer    int

	// The way to the kernel; tests lead it elsewhere.
	dial      func(groups ...uint) (rtnl.Socket, error)
	netfilter func() (rtnl.Socket, error)
	ethtool   func() (*ethtool, error)
	// synced, if not nil, is told when Watch has its first or a new list.
	synced func()

	mu       sync.Mutex      // guards what follows
	previous map[int]reading // by interface index: what rates are based on
	known    map[int]Link    // by interface index: what Watch told last; nil before the first list
	watching bool
	tcBit    int // index of the feature hw-tc-offload; tcUnknown, tcAbsent
}

// reading is what was counted at a moment.
type reading struct {
	counters Counters
	at       time.Time
}

var _ collectors.Watcher = (*Collector)(nil)

// New returns a Collector. It opens nothing yet.
func New(o Options) *Collector {
	c := &Collector{
		include: o.Include, exclude: o.Exclude,
		log: o.Log, now: o.Now, sysRoot: o.SysRoot, receiveBuffer: o.ReceiveBuffer,
		dial: rtnl.Dial, netfilter: rtnl.DialNetfilter, ethtool: dialEthtool,
		previous: map[int]reading{},
		tcBit:    tcUnknown,
	}
	if c.exclude == nil {
		c.exclude = []string{"lo"}
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.sysRoot == "" {
		c.sysRoot = "/sys"
	}
	if c.receiveBuffer <= 0 {
		c.receiveBuffer = 1 << 20
	}
	return c
}

// Name implements collectors.Collector.
func (c *Collector) Name() string { return Name }

// wanted reports whether the options ask for an interface of this name.
func (c *Collector) wanted(name string) bool {
	return (len(c.include) == 0 || matches(c.include, name)) && !matches(c.exclude, name)
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok || err != nil && p == name
	})
}

// Links reads every wanted interface, in the order of their indices.
func (c *Collector) Links(ctx context.Context) ([]Link, error) {
	links, _, err := c.read(ctx)
	return links, err
}

// read is Links, with the moment at which the counters were read.
func (c *Collector) read(ctx context.Context) ([]Link, time.Time, error) {
	all, interrupted, err := c.list(ctx)
	at := c.now()
	if err != nil {
		return nil, at, fmt.Errorf("cannot list interfaces: %w", err)
	}
	links := make([]Link, 0, len(all))
	for _, l := range all {
		if c.wanted(l.Name) {
			l.Incomplete = interrupted
			links = append(links, l)
		}
	}
	sort.Slice(links, func(i, j int) bool { return links[i].Index < links[j].Index })

	o := c.offloads()
	e, err := c.ethtool()
	if err != nil {
		// Only details are lost, and they have a way to be unknown.
		c.log.Debug("cannot ask for speed and duplex", "error", err)
		for i := range links {
			o.set(&links[i], false)
		}
		return links, at, nil
	}
	defer e.close()
	for i := range links {
		if ctx.Err() != nil { // a driver may be slow to answer
			return nil, at, fmt.Errorf("cannot read speed of %s: %w", links[i].Name, ctx.Err())
		}
		c.detail(e, o, &links[i])
	}
	return links, at, nil
}

// Collect implements collectors.Collector: one sample per interface. The first
// sample of an interface has no rates, nor has the one after a reset of its
// counters, which says so.
func (c *Collector) Collect(ctx context.Context) ([]collectors.Sample, error) {
	links, at, err := c.read(ctx)
	if err != nil {
		return nil, err
	}
	samples := make([]collectors.Sample, 0, len(links))
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := make(map[int]reading, len(links))
	for _, l := range links {
		now := reading{counters: l.Counters, at: at}
		var r rates
		if before, ok := c.previous[l.Index]; ok {
			r = rate(before, now)
		}
		samples = append(samples, collectors.Sample{Subject: l.Name, Fields: fields(l, r)})
		seen[l.Index] = now
	}
	c.previous = seen // what is gone is forgotten
	return samples, nil
}

// fields lays out what is published of l.
func fields(l Link, r rates) []collectors.Field {
	f := collectors.F
	out := []collectors.Field{
		f("ifindex", int64(l.Index)),
		f("oper_state", string(l.OperState)),
		f("admin_up", l.AdminUp),
		f("carrier", l.Carrier),
		f("carrier_changes", uint64(l.CarrierChanges)),
		f("mtu", int64(l.MTU)),
	}
	if l.SpeedMegabits > 0 {
		out = append(out, f("speed_mbps", int64(l.SpeedMegabits)))
	}
	if l.Duplex != "" {
		out = append(out, f("duplex", l.Duplex))
	}
	if l.Wireless {
		out = append(out, f("wireless", true))
	}
	if n := l.Counters; n.Bits != 0 {
		out = append(out,
			f("rx_bytes", n.RxBytes), f("tx_bytes", n.TxBytes),
			f("rx_packets", n.RxPackets), f("tx_packets", n.TxPackets),
			f("rx_errors", n.RxErrors), f("tx_errors", n.TxErrors),
			f("rx_dropped", n.RxDropped), f("tx_dropped", n.TxDropped),
			f("rx_crc_errors", n.RxCRCErrors), f("multicast", n.Multicast), f("collisions", n.Collisions))
	}
	switch {
	case r.reset:
		out = append(out, f("counter_reset", true))
	case r.valid:
		out = append(out,
			f("rx_bps", r.rxBits), f("tx_bps", r.txBits),
			f("rx_pps", r.rxPackets), f("tx_pps", r.txPackets))
	}
	out = append(out, f("offload", l.Offload))
	if l.Blind {
		out = append(out, f("counters_blind", true))
	}
	if l.Incomplete {
		out = append(out, f("incomplete", true))
	}
	return out
}

// rates are per second: bits, to the bit, and packets, to a tenth.
type rates struct {
	valid, reset         bool
	rxBits, txBits       uint64
	rxPackets, txPackets float64
}

// rate derives rates from two readings of one interface.
func rate(before, now reading) rates {
	a, b := before.counters, now.counters
	seconds := now.at.Sub(before.at).Seconds()
	if a.Bits == 0 || b.Bits == 0 || seconds <= 0 {
		return rates{}
	}
	if a.Bits != b.Bits {
		return rates{reset: true}
	}
	rxPackets, ok1 := packetDelta(a.RxPackets, b.RxPackets, b.Bits)
	txPackets, ok2 := packetDelta(a.TxPackets, b.TxPackets, b.Bits)
	rxBytes, ok3 := byteDelta(a.RxBytes, b.RxBytes, rxPackets)
	txBytes, ok4 := byteDelta(a.TxBytes, b.TxBytes, txPackets)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return rates{reset: true}
	}
	perSecond := func(n uint64) float64 { return float64(n) / seconds }
	return rates{
		valid:     true,
		rxBits:    uint64(math.Round(perSecond(rxBytes) * 8)),
		txBits:    uint64(math.Round(perSecond(txBytes) * 8)),
		rxPackets: math.Round(perSecond(rxPackets)*10) / 10,
		txPackets: math.Round(perSecond(txPackets)*10) / 10,
	}
}

// packetDelta returns how far a packet counter of the given width went from a
// to b, and false if it was reset in between. A decrease is a reset; where the
// kernel's answer has only 32 bits it is a wrap if the way round is less than
// half of them.
func packetDelta(a, b uint64, bits int) (uint64, bool) {
	if b >= a {
		return b - a, true
	}
	round := b + 1<<32 - a
	return round, bits == 32 && round < 1<<31
}

// maxPacket is the most bytes that one counted packet can stand for, receive
// offload included.
const maxPacket = 1 << 16

// byteDelta returns how far a byte counter went from a to b while packets were
// counted, and false if it was reset in between.
//
// On 32-bit machines many drivers count in 32 bits even where the kernel's
// answer has 64, and at 1 Gbit/s such a counter wraps every 34 s. A reset takes
// the packets back as well; so a byte counter that fell while the packets went
// on, by a way round 2^32 that so many packets can make up, has wrapped.
func byteDelta(a, b, packets uint64) (uint64, bool) {
	if b >= a {
		return b - a, true
	}
	if a > math.MaxUint32 {
		return 0, false
	}
	round := b + 1<<32 - a
	return round, round/maxPacket < packets
}

// forget drops what rates of an interface are based on.
func (c *Collector) forget(index int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.previous, index)
}

// onOff is the word for a state that has two.
func onOff(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// errNotLink is returned for a message that describes no interface.
var errNotLink = errors.New("message describes no interface")

// cString returns b up to its first NUL.
func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}
