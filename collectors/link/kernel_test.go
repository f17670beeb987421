package link_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ontagent/collectors"
	"ontagent/collectors/link"
)

const (
	// An event is meant to be there within this time of the change …
	soon = 100 * time.Millisecond
	// … and fails a test only beyond this, for machines that are busy.
	tooLate = 500 * time.Millisecond
	// What must come comes within this.
	patience = 10 * time.Second
)

// eventLog keeps the events of a Watch.
type eventLog struct {
	mu     sync.Mutex
	events []collectors.Event
	at     []time.Time
	more   chan struct{}
}

// watch runs Watch until the test ends and returns its log once the first list
// has been read.
func watch(t *testing.T, c *link.Collector) *eventLog {
	t.Helper()
	l := &eventLog{more: make(chan struct{}, 1)}
	watchInto(t, c, l.add)
	return l
}

func watchInto(t *testing.T, c *link.Collector, emit func(collectors.Event)) {
	t.Helper()
	synced := make(chan struct{}, 100)
	c.SetSynced(func() { synced <- struct{}{} })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Watch(ctx, emit) }()
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
	case err := <-ended:
		ended <- err
		t.Fatalf("Watch: %v", err)
	case <-time.After(patience):
		t.Fatal("Watch does not start")
	}
}

func (l *eventLog) add(e collectors.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
	l.at = append(l.at, time.Now())
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// await waits for an event written like want and returns when it came.
func (l *eventLog) await(t *testing.T, want string) time.Time {
	t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		for i, e := range l.events {
			if line(e) == want {
				at := l.at[i]
				l.mu.Unlock()
				return at
			}
		}
		l.mu.Unlock()
		select {
		case <-l.more:
		case <-deadline:
			t.Fatalf("no event %q among\n%s", want, strings.Join(l.lines(), "\n"))
		}
	}
}

func (l *eventLog) all() []collectors.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

func (l *eventLog) lines() []string {
	var s []string
	for _, e := range l.all() {
		s = append(s, line(e))
	}
	return s
}

// clear forgets the events so far.
func (l *eventLog) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events, l.at = nil, nil
}

func TestLinksOfTheKernel(t *testing.T) {
	n := newNamespace(t)
	a, b := n.veth(t, "lan0", "peer0")
	n.must(t, n.h.LinkSetHardwareAddr(a, net.HardwareAddr{2, 0, 0, 0, 0, 1}))
	n.must(t, n.h.LinkSetMTU(a, 1400))
	n.must(t, n.h.LinkSetUp(a))
	c := n.collector(link.Options{})

	links, err := c.Links(t.Context())
	if err != nil || len(links) != 2 {
		t.Fatalf("%+v, %v", links, err)
	}
	i := slices.IndexFunc(links, func(l link.Link) bool { return l.Name == "lan0" })
	got := links[i]
	if got.Index != a.Attrs().Index || got.MAC != "02:00:00:00:00:01" || got.Kind != "veth" || got.Type != "ether" ||
		got.MTU != 1400 || !got.AdminUp || got.Carrier || got.OperState != link.OperLowerLayerDown || got.Wireless ||
		got.Counters.Bits != 64 || got.Offload != link.OffloadUnknown || got.Incomplete || got.ParentIndex != b.Attrs().Index {
		t.Errorf("peer off: %+v", got)
	}

	n.must(t, n.h.LinkSetUp(b))
	links, err = c.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got = links[i]
	if !got.Carrier {
		t.Errorf("peer on: %+v", got)
	}
	if !emulated() && (got.SpeedMegabits != 10000 || got.Duplex != link.DuplexFull) { // what the veth driver says
		t.Errorf("peer on: %+v", got)
	}
	if all, err := n.collector(link.Options{Exclude: []string{}}).Links(t.Context()); err != nil || all[0].Name != "lo" || all[0].Type != "loopback" {
		t.Errorf("with lo: %+v, %v", all, err)
	}
}

func TestEthtoolOfTheKernel(t *testing.T) {
	if emulated() {
		t.Skip("user-mode emulation has no ethtool ioctls")
	}
	n := newNamespace(t)
	a, b := n.veth(t, "lan0", "peer0")
	n.must(t, n.h.LinkSetUp(a))
	n.must(t, n.h.LinkSetUp(b))
	e, err := n.ethtool()
	n.must(t, err)
	if known, on := e.Feature("lan0", "tx-checksum-ip-generic"); !known || !on {
		t.Errorf("a feature that veth always has: known %v, on %v", known, on)
	}
	if known, on := e.Feature("lan0", "hw-tc-offload"); !known || on {
		t.Errorf("a feature that veth never has: known %v, on %v", known, on)
	}
	if known, _ := e.Feature("lan0", "no-such-feature"); known {
		t.Error("a feature that no kernel has is known")
	}
	if speed, duplex := e.Settings("no-such-link"); speed != 0 || duplex != "" {
		t.Errorf("of no interface: %d %q", speed, duplex)
	}
	e.WrapIoctl(func(_ string, buf []byte) error {
		if binary.NativeEndian.Uint32(buf) == unix.ETHTOOL_GLINKSETTINGS {
			return unix.EOPNOTSUPP
		}
		return nil
	})
	if speed, duplex := e.Settings("lan0"); speed != 10000 || duplex != link.DuplexFull {
		t.Errorf("the old way: %d %q", speed, duplex)
	}
}

func TestWatchKernelWithinMilliseconds(t *testing.T) {
	n := newNamespace(t)
	a, b := n.veth(t, "lan0", "peer0")
	n.must(t, n.h.LinkSetUp(a))
	l := watch(t, n.collector(link.Options{Include: []string{"lan0"}}))

	var worst time.Duration
	step := func(change func() error, want string) {
		t.Helper()
		l.clear()
		start := time.Now()
		n.must(t, change())
		worst = max(worst, l.await(t, want).Sub(start))
	}
	for range 10 {
		step(func() error { return n.h.LinkSetUp(b) }, "lan0 oper_state lowerlayerdown -> up")
		step(func() error { return n.h.LinkSetDown(b) }, "lan0 carrier up -> down")
	}
	t.Logf("slowest of 20 events: %s", worst)
	if worst > soon {
		t.Logf("slower than %s", soon)
	}
	if worst > tooLate {
		t.Errorf("slower than %s", tooLate)
	}
}

func TestWatchKernelRenameDeleteRecreate(t *testing.T) {
	n := newNamespace(t)
	a, b := n.veth(t, "lan0", "peer0")
	index := a.Attrs().Index
	l := watch(t, n.collector(link.Options{Include: []string{"lan*"}}))

	n.must(t, n.h.LinkSetName(a, "lan1"))
	l.await(t, "lan1 name lan0 -> lan1")
	n.must(t, n.h.LinkSetMTU(a, 1280))
	l.await(t, "lan1 mtu 1500 -> 1280")
	n.must(t, n.h.LinkSetHardwareAddr(a, net.HardwareAddr{2, 0, 0, 0, 0, 9}))
	l.await(t, fmt.Sprintf("lan1 mac %s -> 02:00:00:00:00:09", a.Attrs().HardwareAddr))
	n.must(t, n.h.LinkSetUp(a))
	l.await(t, "lan1 admin_state down -> up")

	bridge := netlink.NewLinkAttrs()
	bridge.Name = "br0"
	n.must(t, n.h.LinkAdd(&netlink.Bridge{LinkAttrs: bridge}))
	br := n.byName(t, "br0")
	n.must(t, n.h.LinkSetMaster(a, br))
	n.must(t, n.h.LinkSetNoMaster(a)) // a bridge's RTM_DELLINK about lan1
	n.must(t, n.h.LinkSetUp(b))
	l.await(t, "lan1 carrier down -> up")
	if slices.Contains(l.lines(), "lan1 presence present -> absent") {
		t.Error("leaving a bridge was taken for going away")
	}

	n.must(t, n.h.LinkDel(a))
	l.await(t, "lan1 presence present -> absent")
	l.clear()
	again := netlink.NewLinkAttrs()
	again.Name, again.Index = "lan1", index
	n.must(t, n.h.LinkAdd(&netlink.Veth{LinkAttrs: again, PeerName: "peer1"}))
	l.await(t, "lan1 presence absent -> present")
}

func TestWatchKernelEveryFlap(t *testing.T) {
	n := newNamespace(t)
	a, b := n.veth(t, "lan0", "peer0")
	n.must(t, n.h.LinkSetUp(b))
	l := watch(t, n.collector(link.Options{Include: []string{"lan0"}}))
	const flaps = 200
	for range flaps {
		n.must(t, n.h.LinkSetUp(a))
		n.must(t, n.h.LinkSetDown(a))
	}
	n.must(t, n.h.LinkSetMTU(a, 1234)) // the last event
	l.await(t, "lan0 mtu 1500 -> 1234")
	var got []string
	for _, s := range l.lines() {
		if strings.Contains(s, "admin_state") {
			got = append(got, s)
		}
		if strings.Contains(s, "resync") {
			t.Error(s)
		}
	}
	if len(got) != 2*flaps {
		t.Errorf("%d events of %d changes", len(got), 2*flaps)
	}
	for i, s := range got {
		want := "lan0 admin_state down -> up"
		if i%2 == 1 {
			want = "lan0 admin_state up -> down"
		}
		if s != want {
			t.Fatalf("event %d is %q, want %q", i, s, want)
		}
	}
}

func TestWatchKernelOverflow(t *testing.T) {
	n := newNamespace(t)
	a, _ := n.veth(t, "lan0", "peer0")
	gone, _ := n.veth(t, "lan1", "peer1")
	c := n.collector(link.Options{Include: []string{"lan*"}, ReceiveBuffer: 8192})

	// The first event is not taken until much more has happened than the
	// buffer holds.
	l := &eventLog{more: make(chan struct{}, 1)}
	release := make(chan struct{})
	watchInto(t, c, func(e collectors.Event) {
		<-release
		l.add(e)
	})
	for range 50 {
		n.must(t, n.h.LinkSetUp(a))
		n.must(t, n.h.LinkSetDown(a))
	}
	n.must(t, n.h.LinkDel(gone))
	n.veth(t, "lan2", "peer2")
	n.must(t, n.h.LinkSetUp(a))
	n.must(t, n.h.LinkSetMTU(a, 1234))
	close(release)

	l.await(t, "lan0 mtu 1500 -> 1234 resync")
	l.await(t, "lan1 presence present -> absent resync")
	l.await(t, "lan2 presence absent -> present resync")
	// Told and missed make one story, and its end is how it is.
	state := "down"
	for _, e := range l.all() {
		if e.Subject != "lan0" || e.What != link.WhatAdminState {
			continue
		}
		if e.Before != state {
			t.Errorf("%s after %q", line(e), state)
		}
		state = e.After
	}
	if state != "up" {
		t.Errorf("lan0 is up, the events end with %q", state)
	}
	// It goes on as before.
	l.clear()
	n.must(t, n.h.LinkSetDown(a))
	l.await(t, "lan0 admin_state up -> down")
	if len(l.lines()) > 3 {
		t.Errorf("told again:\n%s", strings.Join(l.lines(), "\n"))
	}
}

func TestCollectWhileAnInterfaceVanishes(t *testing.T) {
	n := newNamespace(t)
	n.veth(t, "lan0", "peer0")
	gone, _ := n.veth(t, "lan1", "peer1")
	c := link.New(link.Options{Include: []string{"lan*"}})
	var deleted bool
	c.SetKernel(n.dial, func() (*link.Ethtool, error) {
		e, err := n.ethtool()
		if err != nil {
			return nil, err
		}
		e.WrapIoctl(func(string, []byte) error { // the list is read, the drivers are asked
			if !deleted {
				deleted = true
				n.must(t, n.h.LinkDel(gone))
			}
			return nil
		})
		return e, nil
	})
	s, err := c.Collect(t.Context())
	if err != nil || len(s) != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, f := range s[1].Fields {
		if f.Key == "speed_mbps" || f.Key == "duplex" {
			t.Errorf("%s of a gone interface: %v", f.Key, f.Value)
		}
	}
	if s, err = c.Collect(t.Context()); err != nil || len(s) != 1 {
		t.Fatalf("afterwards: %+v, %v", s, err)
	}
}

func TestCollectRatesOfTraffic(t *testing.T) {
	n := newNamespace(t)
	a, b := n.veth(t, "lan0", "peer0")
	now := time.Unix(1000, 0)
	c := n.collector(link.Options{Include: []string{"lan0"}, Now: func() time.Time { return now }})
	n.must(t, n.h.LinkSetUp(a))
	l := watch(t, c)
	n.must(t, n.h.LinkSetUp(b))
	l.await(t, "lan0 oper_state lowerlayerdown -> up") // before, frames are dropped
	if _, err := c.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	var fd int
	var err error
	n.do(func() { fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) })
	n.must(t, err)
	defer unix.Close(fd)
	frame := make([]byte, 1000)
	for range 100 {
		n.must(t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: a.Attrs().Index}))
	}
	now = now.Add(time.Second)
	s, err := c.Collect(t.Context())
	if err != nil || len(s) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, f := range s[0].Fields {
		// The kernel says a little on its own: neighbour discovery.
		if f.Key == "tx_bps" {
			if v, ok := f.Value.(uint64); !ok || v < 800_000 || v > 850_000 {
				t.Errorf("100 frames of 1000 bytes in a second: %v bit/s", f.Value)
			}
			return
		}
	}
	t.Errorf("no rate: %+v", s[0])
}

// What was counted on an interface that is gone is no base for rates of one that
// got its name and index.
func TestCollectForgetsWhatWatchSawGo(t *testing.T) {
	n := newNamespace(t)
	a, _ := n.veth(t, "lan0", "peer0")
	c := n.collector(link.Options{Include: []string{"lan0"}})
	l := watch(t, c)
	if _, err := c.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.must(t, n.h.LinkDel(a))
	l.await(t, "lan0 presence present -> absent")
	again := netlink.NewLinkAttrs()
	again.Name, again.Index = "lan0", a.Attrs().Index
	n.must(t, n.h.LinkAdd(&netlink.Veth{LinkAttrs: again, PeerName: "peer0"}))
	s, err := c.Collect(t.Context())
	if err != nil || len(s) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, f := range s[0].Fields {
		if f.Key == "rx_bps" || f.Key == "counter_reset" {
			t.Errorf("%s of a new interface: %v", f.Key, f.Value)
		}
	}
	if s, err = c.Collect(t.Context()); err != nil || !slices.ContainsFunc(s[0].Fields, func(f collectors.Field) bool { return f.Key == "rx_bps" }) {
		t.Errorf("no rate after that: %+v, %v", s, err)
	}
}

// BenchmarkCollect reads the interfaces of the namespace it is started in.
func BenchmarkCollect(b *testing.B) {
	c := link.New(link.Options{Exclude: []string{}})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Collect(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
