package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"ontagent/agent/platform/linux"
	"ontagent/agent/probe/throughput"
	"ontagent/collectors/link"
	"ontagent/config"
)

// lineReader reads the interface that a speed test goes through: what
// throughput.Options.Line asks for. It is for one run of the test after
// another, and safe for concurrent use.
type lineReader struct {
	conf     config.WAN
	all      *link.Collector
	sessions func(root string) ([]linux.PPPoESession, error)

	mu sync.Mutex // guards what follows
	// What is known of the interface with the address local.
	local  netip.Addr
	stack  []link.Link     // it and those below, the port last; only names and indices last
	some   *link.Collector // reads only these
	totals [4]total        // of its counters
}

func newLineReader(c config.Config) *lineReader {
	return &lineReader{
		conf: c.WAN, all: link.New(link.Options{Exclude: []string{}, Log: slog.New(slog.DiscardHandler)}),
		sessions: linux.PPPoESessions,
	}
}

// read returns the state of the interface that has the address. One that went
// away meanwhile has no carrier; it is looked for anew at the next call.
func (r *lineReader) read(ctx context.Context, local netip.Addr) (throughput.Line, error) {
	local = local.Unmap().WithZone("")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.local != local {
		if err := r.find(ctx, local); err != nil {
			return throughput.Line{}, err
		}
	}
	links, err := r.some.Links(ctx)
	if err != nil {
		return throughput.Line{}, err
	}
	top := r.stack[0]
	l := throughput.Line{Interface: top.Name, Carrier: true}
	for _, known := range r.stack {
		i := slices.IndexFunc(links, func(l link.Link) bool { return l.Index == known.Index && l.Name == known.Name })
		if i < 0 {
			r.local, l.Carrier = netip.Addr{}, false
			continue
		}
		now := links[i]
		l.Carrier = l.Carrier && now.AdminUp && now.Carrier
		l.CarrierChanges += now.CarrierChanges
		l.Blind = l.Blind || now.Blind
		l.SpeedMbps = portSpeed(now)
		if known.Index == top.Index {
			r.count(&l, now)
		}
	}
	return l, nil
}

// count takes over the counters, of which some have to be made alike: all of an
// Ethernet interface are to count its header, which those of VLANs and bridges
// leave out of what they receive.
func (r *lineReader) count(l *throughput.Line, now link.Link) {
	if now.Type == "ether" {
		l.HeaderBytes = 14
	}
	n := now.Counters
	packets := [2]uint64{r.totals[0].packets(n.RxPackets), r.totals[1].packets(n.TxPackets)}
	l.RxPackets, l.TxPackets = r.totals[0].sum, r.totals[1].sum
	r.totals[2].bytes(n.RxBytes, packets[0])
	r.totals[3].bytes(n.TxBytes, packets[1])
	l.RxBytes, l.TxBytes = r.totals[2].sum, r.totals[3].sum
	if now.Kind == "vlan" || now.Kind == "bridge" {
		l.RxBytes += 14 * l.RxPackets
	}
}

// total is a counter made 64 bits wide: on 32-bit machines many drivers count in
// 32, which wrap within 34 s at 1 Gbit/s.
type total struct{ last, sum uint64 }

// packets takes the next reading and returns by how much it went on: nothing,
// if it was set back.
func (t *total) packets(now uint64) (more uint64) {
	switch {
	case now >= t.last:
		more = now - t.last
	case t.last <= math.MaxUint32 && t.last-now > math.MaxUint32/2:
		more = now + 1<<32 - t.last
	}
	t.last = now
	t.sum += more
	return more
}

// bytes is the same for bytes in so many packets. What they cannot hold is no
// wrap.
func (t *total) bytes(now, packets uint64) {
	const most = 1 << 16 // in a packet, segmentation offload included
	switch round := now + 1<<32 - t.last; {
	case now >= t.last:
		t.sum += now - t.last
	case t.last <= math.MaxUint32 && round/most < packets:
		t.sum += round
	}
	t.last = now
}

// find looks for the interface that has the address, and for what is below.
func (r *lineReader) find(ctx context.Context, local netip.Addr) error {
	r.local = netip.Addr{}
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("cannot find the interface of %s: %w", local, err)
	}
	for _, ifi := range interfaces {
		addresses, err := ifi.Addrs()
		if err != nil || !slices.ContainsFunc(addresses, func(a net.Addr) bool {
			p, err := netip.ParsePrefix(a.String())
			return err == nil && p.Addr() == local || within(local, p, ifi)
		}) {
			continue
		}
		links, err := r.all.Links(ctx)
		if err != nil {
			return err
		}
		stack := r.below(links, ifi.Name)
		if len(stack) == 0 {
			continue // gone again
		}
		var names []string
		for _, l := range stack {
			names = append(names, l.Name)
		}
		r.stack, r.totals = stack, [4]total{}
		r.some = link.New(link.Options{Include: names, Exclude: []string{}, Log: slog.New(slog.DiscardHandler)})
		r.local = local
		return nil
	}
	return fmt.Errorf("cannot find the interface of %s: no interface has this address", local)
}

// within reports whether an address is of the network of the loopback
// interface, all of which is its own.
func within(a netip.Addr, p netip.Prefix, ifi net.Interface) bool {
	return ifi.Flags&net.FlagLoopback != 0 && p.Contains(a)
}

// below returns an interface and those that it stands on, the port last.
func (r *lineReader) below(links []link.Link, name string) (stack []link.Link) {
	for name != "" && len(stack) < 8 {
		i := slices.IndexFunc(links, func(l link.Link) bool { return l.Name == name })
		if i < 0 || slices.ContainsFunc(stack, func(l link.Link) bool { return l.Name == name }) {
			break
		}
		l := links[i]
		stack = append(stack, l)
		name = ""
		switch {
		case l.Type == "ppp":
			name = r.carrier()
		case l.Kind == "vlan" || l.Kind == "macvlan" || l.Kind == "ip6tnl":
			// The parent of others is the other end (veth), or no line.
			if i := slices.IndexFunc(links, func(p link.Link) bool { return p.Index == l.ParentIndex }); i >= 0 {
				name = links[i].Name
			}
		}
	}
	return stack
}

// carrier returns the interface that PPP runs over: that of the only session,
// or of the one on the configured port. Empty: not known.
func (r *lineReader) carrier() string {
	sessions, err := r.sessions("/")
	if err == nil && len(sessions) == 1 {
		return sessions[0].Device
	}
	if r.conf.Device == "" {
		return ""
	}
	for _, s := range sessions {
		if s.Device == r.conf.Device || strings.HasPrefix(s.Device, r.conf.Device+".") {
			return s.Device
		}
	}
	return r.conf.Device
}

// portSpeed is what the port negotiated, in Mbit/s; 0 if l is none, as virtual
// interfaces name some speed as well.
func portSpeed(l link.Link) int {
	if l.Kind != "" && l.Kind != "dsa" {
		return 0
	}
	return l.SpeedMegabits
}

// encapsulation is what an interface, and those it stands on, add to packets
// before they are on the line.
func (r *lineReader) encapsulation(ctx context.Context, name string) (throughput.Encapsulation, error) {
	links, err := r.all.Links(ctx)
	if err != nil {
		return throughput.Encapsulation{}, err
	}
	return r.adds(r.below(links, name)), nil
}

func (r *lineReader) adds(stack []link.Link) (e throughput.Encapsulation) {
	for _, l := range stack {
		switch {
		case l.Type == "ppp":
			e.PPPoE = true
		case l.Kind == "vlan":
			e.VLANTags++
		case l.Kind == "ip6tnl":
			e.TunnelBytes += 40 // the header of IPv6
		}
	}
	if len(stack) > 0 && e.VLANTags == 0 && r.conf.VLAN != 0 {
		e.VLANTags = 1 // something below Linux puts it in
	}
	e.VLANTags = min(e.VLANTags, 2)
	return e
}
