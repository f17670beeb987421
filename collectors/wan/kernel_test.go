package wan_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ontagent/collectors"
	"ontagent/collectors/wan"
)

const (
	// An event is meant to be there within this time of the change …
	soon = 100 * time.Millisecond
	// … and fails a test only beyond this, for machines that are busy.
	tooLate = 500 * time.Millisecond
)

// eventLog waits for events of the kernel, which may come with others.
type eventLog struct {
	t      *testing.T
	events chan collectors.Event
	seen   []string
}

// watch runs Watch until the test ends.
func (n *namespace) watch(t *testing.T, c *wan.Collector) *eventLog {
	t.Helper()
	l := &eventLog{t: t, events: make(chan collectors.Event, 10000)}
	synced := make(chan struct{}, 10)
	c.SetSynced(func() { synced <- struct{}{} })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Watch(ctx, func(e collectors.Event) { l.events <- e }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Watch ended with %v", err)
			}
		case <-time.After(patience):
			t.Error("Watch does not end")
		}
	})
	select {
	case <-synced:
	case <-time.After(patience):
		t.Fatal("Watch does not start")
	}
	return l
}

// await waits for an event and returns how long after start it came.
func (l *eventLog) await(start time.Time, want string) time.Duration {
	l.t.Helper()
	for deadline := time.After(patience); ; {
		select {
		case e := <-l.events:
			l.seen = append(l.seen, line(e))
			if line(e) == want {
				return time.Since(start)
			}
		case <-deadline:
			l.t.Fatalf("no event %q among\n%s", want, strings.Join(l.seen, "\n"))
		}
	}
}

// uplink makes an interface that is up and has a carrier.
func (n *namespace) uplink(t *testing.T, name string) netlink.Link {
	t.Helper()
	a, b := n.veth(t, name, name+"-isp")
	n.must(t, n.h.LinkSetUp(b))
	n.must(t, n.h.LinkSetUp(a))
	return a
}

func (n *namespace) addr(t *testing.T, prefix string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	n.must(t, err)
	a.Flags = unix.IFA_F_NODAD
	return a
}

func defaultVia(l netlink.Link, gateway string, metric int) *netlink.Route {
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Priority: metric, Protocol: unix.RTPROT_STATIC}
	if gateway == "" {
		r.Scope = unix.RT_SCOPE_LINK
		_, r.Dst, _ = net.ParseCIDR("0.0.0.0/0")
		return r
	}
	r.Gw = net.ParseIP(gateway)
	return r
}

func TestReadOfTheKernel(t *testing.T) {
	n := newNamespace(t)
	l := n.uplink(t, "wan")
	n.must(t, n.h.LinkSetMTU(l, 1492))
	n.must(t, n.h.AddrAdd(l, n.addr(t, "192.0.2.2/24")))
	n.must(t, n.h.AddrAdd(l, n.addr(t, "2001:db8::2/64")))
	n.must(t, n.h.RouteAdd(defaultVia(l, "192.0.2.1", 7)))
	n.must(t, n.h.RouteAdd(defaultVia(l, "fe80::1", 512)))
	_, dst, err := net.ParseCIDR("2001:db8:100::/56")
	n.must(t, err)
	n.must(t, n.h.LinkSetUp(n.byName(t, "lo")))
	n.must(t, n.h.RouteAdd(&netlink.Route{Type: unix.RTN_UNREACHABLE, Dst: dst, LinkIndex: 1, Priority: 1<<31 - 1}))

	f, err := n.collector(wan.Options{ResolvConf: []string{}}).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.Interface != "wan" || !f.Present || !f.Up || f.MTU != 1492 || f.Incomplete {
		t.Errorf("%+v", f)
	}
	want := map[netip.Prefix]bool{netip.MustParsePrefix("192.0.2.2/24"): true, netip.MustParsePrefix("2001:db8::2/64"): true}
	for _, a := range f.Addresses {
		if !a.Usable() && a.Scope == "global" || !a.Permanent {
			t.Errorf("%+v", a)
		}
		delete(want, a.Prefix)
	}
	if len(want) != 0 {
		t.Errorf("missing %v in %+v", want, f.Addresses)
	}
	if f.DefaultV4 == nil || f.DefaultV4.String() != "via 192.0.2.1 dev wan metric 7" || f.DefaultV4.Protocol != "static" {
		t.Errorf("%v", f.DefaultV4)
	}
	if f.DefaultV6 == nil || f.DefaultV6.Gateway.String() != "fe80::1%wan" {
		t.Errorf("%v", f.DefaultV6)
	}
	if len(f.DelegatedPrefixes) != 1 || f.DelegatedPrefixes[0].String() != "2001:db8:100::/56" {
		t.Errorf("%v", f.DelegatedPrefixes)
	}
}

func TestWatchOfTheKernel(t *testing.T) {
	n := newNamespace(t)
	l := n.uplink(t, "wan")
	backup := n.uplink(t, "wwan")
	n.must(t, n.h.AddrAdd(backup, n.addr(t, "198.51.100.2/24")))
	log := n.watch(t, n.collector(wan.Options{ResolvConf: []string{}}))

	var worst time.Duration
	step := func(change func() error, want string) {
		t.Helper()
		start := time.Now()
		n.must(t, change())
		worst = max(worst, log.await(start, want))
	}
	route := defaultVia(l, "192.0.2.1", 7)
	n.must(t, n.h.AddrAdd(l, n.addr(t, "192.0.2.2/24")))
	step(func() error { return n.h.RouteAdd(route) }, "wan address [] -> [192.0.2.2/24]")
	step(func() error { return n.h.AddrAdd(l, n.addr(t, "192.0.2.9/24")) }, "wan address [] -> [192.0.2.9/24]")
	step(func() error { return n.h.AddrDel(l, n.addr(t, "192.0.2.9/24")) }, "wan address [192.0.2.9/24] -> []")
	step(func() error { return n.h.AddrAdd(l, n.addr(t, "2001:db8::2/64")) }, "wan address [] -> [2001:db8::2/64]")
	step(func() error { return n.h.RouteAdd(defaultVia(l, "fe80::1", 512)) }, "wan default_route [] -> [via fe80::1 dev wan metric 512]")
	step(func() error { return n.h.RouteReplace(defaultVia(l, "192.0.2.254", 7)) },
		"wan default_route [via 192.0.2.1 dev wan metric 7] -> [via 192.0.2.254 dev wan metric 7]")
	step(func() error { return n.h.RouteAdd(defaultVia(backup, "", 3)) }, "wwan default_interface [wan] -> [wwan]")
	// The kernel drops the routes of an interface that goes down; those of IPv4
	// without a word.
	step(func() error { return n.h.LinkSetDown(backup) }, "wan default_interface [wwan] -> [wan]")
	step(func() error { return n.h.LinkSetDown(l) }, "wan default_route [via 192.0.2.254 dev wan metric 7] -> []")
	step(func() error { return n.h.LinkDel(l) }, "wan address [192.0.2.2/24] -> []")

	t.Logf("slowest of the events: %s", worst)
	if worst > soon {
		t.Logf("slower than %s", soon)
	}
	if worst > tooLate {
		t.Errorf("slower than %s", tooLate)
	}
}

// A storm that overflows the buffer, with the last word at its end.
func TestWatchOfTheKernelOverflow(t *testing.T) {
	n := newNamespace(t)
	l := n.uplink(t, "wan")
	n.must(t, n.h.AddrAdd(l, n.addr(t, "192.0.2.2/24")))
	n.must(t, n.h.RouteAdd(defaultVia(l, "192.0.2.1", 7)))
	log := n.watch(t, n.collector(wan.Options{ResolvConf: []string{}, ReceiveBuffer: 4096}))
	for range 200 {
		n.must(t, n.h.AddrAdd(l, n.addr(t, "192.0.2.9/24")))
		n.must(t, n.h.AddrDel(l, n.addr(t, "192.0.2.9/24")))
	}
	n.must(t, n.h.RouteDel(defaultVia(l, "192.0.2.1", 7)))
	for deadline := time.After(patience); ; {
		select {
		case e := <-log.events:
			if e.What == wan.WhatDefaultRoute {
				if e.Before != "via 192.0.2.1 dev wan metric 7" || e.After != "" {
					t.Error(line(e))
				}
				return
			}
		case <-deadline:
			t.Fatal("the last change is not told")
		}
	}
}

// BenchmarkRead reads the network namespace it is started in.
func BenchmarkRead(b *testing.B) {
	c := wan.New(wan.Options{})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Read(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
