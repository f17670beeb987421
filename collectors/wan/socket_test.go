package wan_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ontagent/collectors"
	"ontagent/collectors/wan"
)

const ourPid = 4711

// kernel plays one: it answers requests for its tables, and announces.
type kernel struct {
	mu                   sync.Mutex
	links, addrs, routes [][]byte
	interrupt            int   // so many lists to come change while they are read
	refuse               error // answer to any request

	announce chan step // to the socket with groups
	dials    int
}

// step is one reception.
type step struct {
	kind uint16
	body []byte
	err  error
}

func newKernel() *kernel { return &kernel{announce: make(chan step)} }

// set replaces the tables.
func (k *kernel) set(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

func (k *kernel) dial(groups ...uint) (wan.Socket, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dials++
	return &fakeSocket{k: k, listens: len(groups) > 0, closed: make(chan struct{})}, nil
}

type fakeSocket struct {
	k       *kernel
	listens bool
	answers [][]syscall.NetlinkMessage
	timeout time.Duration
	closed  chan struct{}
	once    sync.Once
}

func (s *fakeSocket) Send(r *nl.NetlinkRequest) error {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if s.k.refuse != nil {
		return s.k.refuse
	}
	kind, list := uint16(unix.RTM_NEWLINK), s.k.links
	switch r.Type {
	case unix.RTM_GETADDR:
		kind, list = unix.RTM_NEWADDR, s.k.addrs
	case unix.RTM_GETROUTE:
		kind, list = unix.RTM_NEWROUTE, s.k.routes
	}
	message := func(kind, flags uint16, body []byte) syscall.NetlinkMessage {
		return syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind, Flags: flags, Seq: r.Seq, Pid: ourPid}, Data: body}
	}
	var flags uint16
	if s.k.interrupt > 0 {
		s.k.interrupt--
		flags = unix.NLM_F_DUMP_INTR
	}
	for _, b := range list {
		s.answers = append(s.answers, []syscall.NetlinkMessage{message(kind, flags, b)})
	}
	s.answers = append(s.answers, []syscall.NetlinkMessage{message(unix.NLMSG_DONE, flags, []byte{0, 0, 0, 0})})
	return nil
}

func (s *fakeSocket) Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error) {
	from := &unix.SockaddrNetlink{}
	if len(s.answers) > 0 {
		m := s.answers[0]
		s.answers = s.answers[1:]
		return m, from, nil
	}
	var expired <-chan time.Time
	if s.timeout > 0 {
		expired = time.After(s.timeout)
	}
	var announced chan step
	if s.listens {
		announced = s.k.announce
	}
	select {
	case a := <-announced:
		return []syscall.NetlinkMessage{{Header: syscall.NlMsghdr{Type: a.kind}, Data: a.body}}, from, a.err
	case <-expired:
		return nil, nil, unix.EAGAIN
	case <-s.closed:
		return nil, nil, os.ErrClosed
	}
}

func (s *fakeSocket) SetReceiveTimeout(tv *unix.Timeval) error {
	s.timeout = time.Duration(tv.Nano())
	return nil
}

func (*fakeSocket) SetReceiveBufferSize(_ int, force bool) error {
	if force {
		return unix.EPERM
	}
	return nil
}

func (*fakeSocket) GetPid() (uint32, error) { return ourPid, nil }
func (s *fakeSocket) Close()                { s.once.Do(func() { close(s.closed) }) }

func o() order { return binary.NativeEndian }

func link(index int32, name string) []byte { return linkBody(o(), index, name, unix.IFF_UP) }

func addr4(index int32, prefix string) []byte {
	p := netip.MustParsePrefix(prefix)
	return addrBody(o(), unix.AF_INET, byte(p.Bits()), 0, 0, index,
		attribute(o(), unix.IFA_ADDRESS, p.Addr().AsSlice()), attribute(o(), unix.IFA_LOCAL, p.Addr().AsSlice()))
}

func addr6(index int32, prefix string, scope byte, flags uint32) []byte {
	p := netip.MustParsePrefix(prefix)
	return addrBody(o(), unix.AF_INET6, byte(p.Bits()), 0, scope, index,
		attribute(o(), unix.IFA_ADDRESS, p.Addr().AsSlice()), attribute32(o(), unix.IFA_FLAGS, flags))
}

func default4(index uint32, gateway string, metric uint32) []byte {
	attrs := [][]byte{attribute32(o(), unix.RTA_OIF, index), attribute32(o(), unix.RTA_PRIORITY, metric)}
	if gateway != "" {
		attrs = append(attrs, attributeAddr(o(), unix.RTA_GATEWAY, gateway))
	}
	return routeBody(o(), unix.AF_INET, 0, 0, unix.RTN_UNICAST, attrs...)
}

func default6(index uint32, gateway string, metric uint32, pref byte) []byte {
	return routeBody(o(), unix.AF_INET6, 0, 0, unix.RTN_UNICAST, attribute32(o(), unix.RTA_OIF, index),
		attribute32(o(), unix.RTA_PRIORITY, metric), attributeAddr(o(), unix.RTA_GATEWAY, gateway), attribute(o(), unix.RTA_PREF, []byte{pref}))
}

func collector(k *kernel, opts wan.Options) *wan.Collector {
	if opts.ResolvConf == nil {
		opts.ResolvConf = []string{}
	}
	c := wan.New(opts)
	c.SetKernel(k.dial)
	return c
}

// home is a gateway with two uplinks.
func home() *kernel {
	k := newKernel()
	k.links = [][]byte{link(1, "lo"), link(2, "br-lan"), link(3, "wan"), link(4, "wwan")}
	k.addrs = [][]byte{
		addr4(1, "127.0.0.1/8"), addr4(2, "192.168.1.1/24"), addr4(3, "192.0.2.2/24"), addr4(4, "198.51.100.2/24"),
		addr6(3, "fe80::1/64", unix.RT_SCOPE_LINK, 0), addr6(3, "2001:db8::2/64", 0, 0),
	}
	k.routes = [][]byte{
		default4(4, "198.51.100.1", 20), default4(3, "192.0.2.1", 10),
		default6(3, "fe80::99", 512, 3), default6(3, "fe80::98", 512, 1), default6(3, "fe80::97", 512, 0),
		routeBody(o(), unix.AF_INET6, 0, 0, unix.RTN_UNREACHABLE, attribute32(o(), unix.RTA_OIF, 1)),
		routeBody(o(), unix.AF_INET6, 56, 0, unix.RTN_UNREACHABLE, attributeAddr(o(), unix.RTA_DST, "2001:db8:100::")),
	}
	return k
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	resolv := filepath.Join(dir, "resolv.conf.auto")
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.53\nnameserver fe80::1%wan\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte("# nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := collector(home(), wan.Options{ResolvConf: []string{filepath.Join(dir, "none"), dir, empty, resolv}})
	got, err := c.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	want := wan.Facts{
		Interface: "wan", Present: true, Up: true, MTU: 1492,
		Addresses: []wan.Address{
			{Prefix: prefix("192.0.2.2/24"), Family: wan.IPv4, Scope: "global", ValidLft: wan.Forever, PreferredLft: wan.Forever},
			{Prefix: prefix("fe80::1/64"), Family: wan.IPv6, Scope: "link", ValidLft: wan.Forever, PreferredLft: wan.Forever},
			{Prefix: prefix("2001:db8::2/64"), Family: wan.IPv6, Scope: "global", ValidLft: wan.Forever, PreferredLft: wan.Forever},
		},
		DefaultV4: &wan.Route{Gateway: addr("192.0.2.1"), Interface: "wan", Metric: 10, Protocol: "static"},
		DefaultV6: &wan.Route{Gateway: addr("fe80::98%wan"), Interface: "wan", Metric: 512, Protocol: "static"},
		Resolvers: []netip.Addr{addr("192.0.2.53"), addr("fe80::1%wan")}, ResolverFile: resolv,
		DelegatedPrefixes: []netip.Prefix{prefix("2001:db8:100::/56")},
	}
	if d := cmp.Diff(want, got, exact()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if s := want.DefaultV6.String(); s != "via fe80::98 dev wan metric 512" {
		t.Errorf("route as text: %q", s)
	}
}

func TestReadOfANamedInterface(t *testing.T) {
	for name, want := range map[string]string{"wwan": "198.51.100.2/24", "pppoe-wan": ""} {
		f, err := collector(home(), wan.Options{Interface: name}).Read(t.Context())
		if err != nil || f.Interface != name || f.Present != (want != "") || f.DefaultV4.Interface != "wan" {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		if want != "" && (len(f.Addresses) != 1 || f.Addresses[0].Prefix.String() != want) {
			t.Errorf("%s: %+v", name, f.Addresses)
		}
	}
}

func TestReadInterruptedAndFailing(t *testing.T) {
	k := home()
	k.interrupt = 3 // the first reading, all three lists
	f, err := collector(k, wan.Options{}).Read(t.Context())
	if err != nil || f.Incomplete {
		t.Errorf("interrupted once: %+v, %v", f, err)
	}
	k.interrupt = 100
	f, err = collector(k, wan.Options{}).Read(t.Context())
	if err != nil || !f.Incomplete || f.Interface != "wan" {
		t.Errorf("interrupted always: %+v, %v", f, err)
	}
	k.refuse = unix.ENOMEM
	if _, err = collector(k, wan.Options{}).Read(t.Context()); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("refused: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = collector(home(), wan.Options{}).Collect(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

func TestCollect(t *testing.T) {
	get := func(k *kernel, opts wan.Options) map[string]any {
		t.Helper()
		s, err := collector(k, opts).Collect(t.Context())
		if err != nil || len(s) != 1 || s[0].Subject != "" {
			t.Fatalf("%+v, %v", s, err)
		}
		all := map[string]any{}
		for _, f := range s[0].Fields {
			if _, twice := all[f.Key]; twice {
				t.Errorf("field %s twice", f.Key)
			}
			all[f.Key] = f.Value
		}
		return all
	}
	want := map[string]any{
		"interface": "wan", "present": true, "up": true, "mtu": int64(1492),
		"ipv4_address": "192.0.2.2/24", "ipv6_address": "2001:db8::2/64",
		"ipv4_default": true, "ipv4_default_interface": "wan", "ipv4_default_metric": uint64(10), "ipv4_gateway": "192.0.2.1",
		"ipv6_default": true, "ipv6_default_interface": "wan", "ipv6_default_metric": uint64(512), "ipv6_gateway": "fe80::98%wan",
		"delegated_prefix": "2001:db8:100::/56", "resolvers": int64(0),
	}
	if d := cmp.Diff(want, get(home(), wan.Options{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// No way out is a fact, not an error.
	k := home()
	k.routes = nil
	want = map[string]any{"ipv4_default": false, "ipv6_default": false, "resolvers": int64(0)}
	if d := cmp.Diff(want, get(k, wan.Options{})); d != "" {
		t.Errorf("without a route (-want +got):\n%s", d)
	}
	// An address that is someone else's is not ours.
	k = home()
	k.addrs = [][]byte{addr6(3, "2001:db8::2/64", 0, unix.IFA_F_DADFAILED|unix.IFA_F_TENTATIVE)}
	got := get(k, wan.Options{})
	if got["ipv6_address"] != nil || got["duplicate_address"] != true {
		t.Errorf("duplicate address: %v", got)
	}
}

// watcher runs Watch against a kernel that is played.
type watcher struct {
	t      *testing.T
	k      *kernel
	events chan collectors.Event
	ended  chan error
	cancel context.CancelFunc
}

func startWatch(t *testing.T, k *kernel, c *wan.Collector) *watcher {
	t.Helper()
	w := &watcher{t: t, k: k, events: make(chan collectors.Event, 1000), ended: make(chan error, 1)}
	synced := make(chan struct{}, 10)
	c.SetSynced(func() { synced <- struct{}{} })
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	t.Cleanup(w.cancel)
	go func() { w.ended <- c.Watch(ctx, func(e collectors.Event) { w.events <- e }) }()
	select {
	case <-synced:
	case <-time.After(patience):
		t.Fatal("Watch does not start")
	}
	return w
}

// expect waits for as many events as are wanted, in their order.
func (w *watcher) expect(want ...string) {
	w.t.Helper()
	var got []string
	for range want {
		select {
		case e := <-w.events:
			got = append(got, line(e))
		case <-time.After(patience):
			w.t.Fatalf("got %q, want %q", got, want)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		w.t.Errorf("events (-want +got):\n%s", d)
	}
}

// stop ends Watch and returns its error and what else it told.
func (w *watcher) stop() ([]string, error) {
	w.cancel()
	err := <-w.ended
	close(w.events)
	var rest []string
	for e := range w.events {
		rest = append(rest, line(e))
	}
	return rest, err
}

func line(e collectors.Event) string {
	s := fmt.Sprintf("%s %s [%s] -> [%s]", e.Subject, e.What, e.Before, e.After)
	for _, f := range e.Fields {
		if f.Key == "after_resync" {
			s += " resync"
		}
	}
	if !slices.ContainsFunc(e.Fields, func(f collectors.Field) bool { return f.Key == "family" }) || e.Type != wan.Name {
		s += " BROKEN"
	}
	return s
}

const patience = 10 * time.Second

func TestWatchTellsWhatDiffers(t *testing.T) {
	k := home()
	w := startWatch(t, k, collector(k, wan.Options{}))
	address := step{kind: unix.RTM_NEWADDR}
	route := step{kind: unix.RTM_DELROUTE, body: default4(3, "192.0.2.1", 10)}

	// What changes nothing says nothing; what is not ours is not looked at.
	before := k.dials
	k.announce <- step{kind: unix.RTM_NEWROUTE, body: routeBody(o(), unix.AF_INET, 24, 0, 1)}
	k.announce <- step{kind: unix.RTM_NEWLINK, body: append([]byte{unix.AF_BRIDGE}, make([]byte, 20)...)}
	k.announce <- step{kind: unix.RTM_NEWNEIGH}
	k.announce <- step{kind: unix.RTM_NEWROUTE}
	k.announce <- address // a lease renewed
	k.set(func() {
		if k.dials-before > 1 {
			t.Errorf("looked %d times", k.dials-before)
		}
		k.addrs = append(k.addrs, addr4(3, "192.0.2.3/24"), addr4(2, "192.168.2.1/24"), addr6(3, "2001:db8::3/64", 0, unix.IFA_F_TENTATIVE))
	})
	k.announce <- address
	w.expect("wan address [] -> [192.0.2.3/24]")

	// The duplicate check is over.
	k.set(func() {
		k.addrs = append(k.addrs, addr6(3, "2001:db8::4/64", 0, 0), addr6(3, "fe80::4/64", unix.RT_SCOPE_LINK, 0))
	})
	k.announce <- address
	w.expect("wan address [] -> [2001:db8::4/64]")

	// The next best route takes over: another interface, other addresses.
	k.set(func() { k.routes = [][]byte{default4(4, "198.51.100.1", 20)}; k.addrs = home().addrs })
	k.announce <- route
	w.expect(
		"wan address [192.0.2.2/24] -> []", "wan address [2001:db8::2/64] -> []",
		"wan address [192.0.2.3/24] -> []", "wan address [2001:db8::4/64] -> []",
		"wwan default_interface [wan] -> [wwan]",
		"wwan default_route [via 192.0.2.1 dev wan metric 10] -> [via 198.51.100.1 dev wwan metric 20]",
		"wan default_interface [wan] -> []", "wan default_route [via fe80::98 dev wan metric 512] -> []",
		"wwan address [] -> [198.51.100.2/24]",
	)

	// No way out any more, told by nothing but the interface. Its address is
	// still the WAN's.
	k.set(func() { k.routes = nil })
	k.announce <- step{kind: unix.RTM_NEWLINK, body: link(4, "wwan")}
	w.expect("wwan default_interface [wwan] -> []", "wwan default_route [via 198.51.100.1 dev wwan metric 20] -> []")
	k.set(func() { k.addrs = nil })
	k.announce <- step{kind: unix.RTM_DELADDR}
	w.expect("wwan address [198.51.100.2/24] -> []")

	// Announcements were lost.
	k.set(func() { k.routes = [][]byte{default4(4, "", 0)} })
	k.announce <- step{err: unix.ENOBUFS}
	w.expect("wwan default_interface [] -> [wwan] resync", "wwan default_route [] -> [dev wwan metric 0] resync")

	// Tables that keep changing are read until they don't.
	k.set(func() { k.interrupt = 9; k.addrs = [][]byte{addr4(4, "198.51.100.9/24")} })
	k.announce <- address
	w.expect("wwan address [] -> [198.51.100.9/24]")

	if rest, err := w.stop(); !errors.Is(err, context.Canceled) || len(rest) != 0 {
		t.Errorf("%v, %q", err, rest)
	}
}

func TestWatchAgainAfterAnError(t *testing.T) {
	k := home()
	c := collector(k, wan.Options{})
	w := startWatch(t, k, c)
	k.announce <- step{err: unix.EBADF}
	if err := <-w.ended; !errors.Is(err, unix.EBADF) || !strings.HasPrefix(err.Error(), "cannot watch addresses and routes: ") {
		t.Errorf("error %v", err)
	}
	k.set(func() { k.addrs = append(k.addrs, addr4(3, "192.0.2.3/24")) })
	w = startWatch(t, k, c)
	w.expect("wan address [] -> [192.0.2.3/24] resync")

	if err := c.Watch(t.Context(), func(collectors.Event) {}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a second Watch at once: %v", err)
	}
	if rest, err := w.stop(); !errors.Is(err, context.Canceled) || len(rest) != 0 {
		t.Errorf("%v, %q", err, rest)
	}
}

func TestWatchKeepsItsPaceInAStorm(t *testing.T) {
	k := home()
	w := startWatch(t, k, collector(k, wan.Options{}))
	start, announced := time.Now(), 0
	for time.Since(start) < 300*time.Millisecond {
		k.announce <- step{kind: unix.RTM_NEWADDR}
		announced++
	}
	if rest, err := w.stop(); !errors.Is(err, context.Canceled) || len(rest) != 0 {
		t.Errorf("%v, %q", err, rest)
	}
	// Two sockets at the start, then at most one look in 50 ms.
	if looks := k.dials - 2; looks > int(time.Since(start)/(50*time.Millisecond))+2 || looks < 1 {
		t.Errorf("%d looks for %d announcements in %s", looks, announced, time.Since(start))
	}
}
