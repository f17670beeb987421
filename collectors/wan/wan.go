// Package wan reads how the gateway reaches the world: the interface that holds
// the default route, its addresses, the routes and the resolvers, and tells of
// changes as the kernel announces them.
//
// It reads what is set, over rtnetlink and from resolver files; it probes
// nothing. Whether the gateway answers and the resolvers resolve is for the
// probes to find out; carrier, speed and counters are package link's.
package wan

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"ontagent/collectors"
	"ontagent/collectors/rtnl"
)

// Name is the collector's name, and the type of its events.
const Name = "wan"

// What the events say has changed.
const (
	// WhatAddress: the WAN has (After) or no longer has (Before) an address.
	WhatAddress = "address"
	// WhatDefaultRoute: another way out, or none (empty), for one family.
	WhatDefaultRoute = "default_route"
	// WhatDefaultInterface: that way leaves by another interface.
	WhatDefaultInterface = "default_interface"
)

// The families of addresses and routes.
const (
	IPv4 = "ipv4"
	IPv6 = "ipv6"
)

// Forever is a lifetime without end.
const Forever time.Duration = math.MaxInt64

// Facts are what Read finds.
type Facts struct {
	// Interface is the one that was asked for or, if none was, the one with the
	// best default route, IPv4 before IPv6; empty if there is no default route.
	Interface string
	// Present, Up and MTU (in bytes) are of Interface; Up means switched on.
	Present, Up bool
	MTU         int
	// Addresses of Interface, in the kernel's order.
	Addresses []Address
	// DefaultV4 and DefaultV6 are the best default routes of the main table,
	// by whichever interface; nil if there is none.
	DefaultV4, DefaultV6 *Route
	// Resolvers in the order in which they are asked, those that are local to a
	// link with their zone, and the file that names them.
	Resolvers    []netip.Addr
	ResolverFile string
	// DelegatedPrefixes are those that were routed to this gateway, guessed
	// from the unreachable routes that OpenWrt sets for them.
	DelegatedPrefixes []netip.Prefix
	// Incomplete reports that the kernel's lists changed while they were read,
	// each time that was tried.
	Incomplete bool
}

// Address is an address of an interface.
type Address struct {
	// Prefix is the address itself with the length of its network.
	Prefix netip.Prefix
	// Peer is the other end of a point-to-point link; invalid if there is none.
	Peer   netip.Addr
	Family string // IPv4 or IPv6
	// Scope is "global", "site", "link", "host" or the kernel's number.
	Scope string
	// ValidLft and PreferredLft are what is left of its lifetimes, to the
	// second; Forever if they don't end.
	ValidLft, PreferredLft time.Duration
	// Tentative addresses are still being checked for duplicates and not used,
	// unless Optimistic; DADFailed ones turned out to be someone else's.
	Tentative, Optimistic, DADFailed bool
	Deprecated, Temporary, Permanent bool
}

// Usable reports whether the address can be the source of a connection.
func (a Address) Usable() bool {
	return !a.DADFailed && (!a.Tentative || a.Optimistic)
}

// Route is a default route.
type Route struct {
	// Gateway is the next hop, with its zone if it is local to a link; invalid
	// on a point-to-point link, which needs none.
	Gateway   netip.Addr
	Interface string
	// Metric as the kernel has it, lower is better; IPv6 never has 0.
	Metric uint32
	// Source restricts the route to packets from this prefix, as OpenWrt does
	// for IPv6; invalid if it doesn't.
	Source netip.Prefix
	// PreferredSource is the address to send from; invalid if the kernel picks.
	PreferredSource netip.Addr
	// Protocol is who set it: "kernel", "boot", "static", "ra", "dhcp" or the
	// kernel's number.
	Protocol string
}

// String describes r like the ip command does.
func (r Route) String() string {
	s := "dev " + r.Interface
	if r.Gateway.IsValid() {
		s = "via " + r.Gateway.WithZone("").String() + " " + s
	}
	if r.Source.IsValid() {
		s = "from " + r.Source.String() + " " + s
	}
	return s + " metric " + strconv.FormatUint(uint64(r.Metric), 10)
}

// Options configure a Collector. The zero value works.
type Options struct {
	// Interface is the WAN interface; empty means the one with the best default
	// route.
	Interface string
	// ResolvConf are the files that may name the resolvers; the first that
	// names one counts. Nil means OpenWrt's, of now and of before 2021, and
	// /etc/resolv.conf, in this order: the last names just the local forwarder
	// there.
	ResolvConf []string
	// Log takes what is worth knowing beside errors; nil discards it.
	Log *slog.Logger
	// ReceiveBuffer is the size in bytes of the buffer for announced changes;
	// zero means 256 KiB.
	ReceiveBuffer int
}

// Collector reads the network namespace it is used in.
type Collector struct {
	iface         string
	resolvConf    []string
	log           *slog.Logger
	receiveBuffer int

	dial   func(groups ...uint) (rtnl.Socket, error) // tests lead it elsewhere
	synced func()                                    // if not nil, told when Watch begins to see

	mu       sync.Mutex // guards what follows
	watching bool
	last     *seen // what Watch told last; nil before it began
}

var _ collectors.Watcher = (*Collector)(nil)

// New returns a Collector. It opens nothing yet.
func New(o Options) *Collector {
	c := &Collector{
		iface: o.Interface, resolvConf: o.ResolvConf, log: o.Log, receiveBuffer: o.ReceiveBuffer,
		dial: rtnl.Dial,
	}
	if c.resolvConf == nil {
		c.resolvConf = []string{
			"/tmp/resolv.conf.d/resolv.conf.auto", "/tmp/resolv.conf.auto", "/etc/resolv.conf",
		}
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.receiveBuffer <= 0 {
		c.receiveBuffer = 256 << 10
	}
	return c
}

// Name implements collectors.Collector.
func (c *Collector) Name() string { return Name }

// Read reads all of it once. No default route is no error: the Facts say so.
func (c *Collector) Read(ctx context.Context) (Facts, error) {
	t, err := c.tables(ctx)
	if err != nil {
		return Facts{}, err
	}
	f := c.facts(t, c.iface)
	f.Resolvers, f.ResolverFile = c.resolvers()
	return f, nil
}

// facts picks what matters from the kernel's tables. Without a name the WAN is
// the interface with the best default route.
func (*Collector) facts(t tables, name string) Facts {
	f := Facts{Interface: name, Incomplete: t.interrupted}
	f.DefaultV4 = t.best(IPv4)
	f.DefaultV6 = t.best(IPv6)
	if f.Interface == "" {
		switch {
		case f.DefaultV4 != nil:
			f.Interface = f.DefaultV4.Interface
		case f.DefaultV6 != nil:
			f.Interface = f.DefaultV6.Interface
		}
	}
	for index, l := range t.links {
		if l.name != f.Interface {
			continue
		}
		f.Present, f.Up, f.MTU = true, l.up, l.mtu
		for _, a := range t.addresses {
			if a.index == index {
				f.Addresses = append(f.Addresses, a.Address)
			}
		}
	}
	for _, r := range t.routes {
		if r.delegated() && !slices.Contains(f.DelegatedPrefixes, r.dst) {
			f.DelegatedPrefixes = append(f.DelegatedPrefixes, r.dst)
		}
	}
	return f
}

// best returns the default route of a family that the kernel takes first.
func (t tables) best(family string) *Route {
	var found []route
	for _, r := range t.routes {
		if r.family == family && r.isDefault() && t.links[r.index].name != "" {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		return nil
	}
	r := slices.MinFunc(found, func(a, b route) int {
		return cmp.Or(cmp.Compare(a.Metric, b.Metric), cmp.Compare(b.preference, a.preference))
	})
	out := r.Route
	out.Interface = t.links[r.index].name
	if out.Gateway.Is6() && out.Gateway.IsLinkLocalUnicast() {
		out.Gateway = out.Gateway.WithZone(out.Interface)
	}
	return &out
}

// Collect implements collectors.Collector: one sample of the gateway.
func (c *Collector) Collect(ctx context.Context) ([]collectors.Sample, error) {
	f, err := c.Read(ctx)
	if err != nil {
		return nil, err
	}
	return []collectors.Sample{{Fields: f.fields()}}, nil
}

// maxResolvers is how many resolvers are published.
const maxResolvers = 4

// fields lays out what is published of f.
func (f Facts) fields() []collectors.Field {
	var out []collectors.Field
	add := func(key string, value any) { out = append(out, collectors.F(key, value)) }
	if f.Interface != "" {
		add("interface", f.Interface)
		add("present", f.Present)
		add("up", f.Up)
	}
	if f.MTU > 0 {
		add("mtu", int64(f.MTU))
	}
	for _, family := range []string{IPv4, IPv6} {
		if i := slices.IndexFunc(f.Addresses, func(a Address) bool {
			return a.Family == family && a.Scope == scopeGlobal && a.Usable() && !a.Deprecated
		}); i >= 0 {
			add(family+"_address", f.Addresses[i].Prefix.String())
		}
	}
	if slices.ContainsFunc(f.Addresses, func(a Address) bool { return a.DADFailed }) {
		add("duplicate_address", true)
	}
	for _, d := range []struct {
		family string
		route  *Route
	}{{IPv4, f.DefaultV4}, {IPv6, f.DefaultV6}} {
		add(d.family+"_default", d.route != nil)
		if d.route == nil {
			continue
		}
		add(d.family+"_default_interface", d.route.Interface)
		add(d.family+"_default_metric", uint64(d.route.Metric))
		if d.route.Gateway.IsValid() {
			add(d.family+"_gateway", d.route.Gateway.String())
		}
	}
	for i, p := range f.DelegatedPrefixes {
		if i == 0 {
			add("delegated_prefix", p.String())
		}
	}
	add("resolvers", int64(len(f.Resolvers)))
	for i, r := range f.Resolvers {
		if i < maxResolvers {
			add(fmt.Sprintf("resolver%d", i+1), r.String())
		}
	}
	if f.Incomplete {
		add("incomplete", true)
	}
	return out
}
