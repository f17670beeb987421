package main

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/platform/linux"
	"ontagent/agent/probe/throughput"
	"ontagent/collectors/link"
	"ontagent/config"
)

// What an interface counts of a packet must be what the reader says, whatever
// the interface is made of: else a test's own bytes look like somebody else's.
func TestLineCountersHoldWhatIsSaid(t *testing.T) {
	inNetwork(t)
	gateway, operator := line(t)
	gateway.ip("addr", "add", "10.41.0.2/24", "dev", "wan0")
	gateway.ip("addr", "add", "2001:db8::2/64", "dev", "wan0", "nodad")
	at := netip.MustParseAddr("10.41.0.2")
	check := func(what string, header int) {
		t.Helper()
		var r *lineReader
		read := func() (l throughput.Line) {
			gateway.do(func() {
				var err error
				if l, err = r.read(t.Context(), at); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			})
			return l
		}
		r = newLineReader(config.Default())
		exchange(t, gateway, operator, 1) // neighbours are found
		before := read()
		const packets, size = 50, 1000
		exchange(t, gateway, operator, packets)
		after := read()
		// Whoever else speaks (IPv6, ARP) sends little.
		const slack = 1000
		for _, way := range []struct {
			name           string
			bytes, packets uint64
		}{
			{"rx", after.RxBytes - before.RxBytes, after.RxPackets - before.RxPackets},
			{"tx", after.TxBytes - before.TxBytes, after.TxPackets - before.TxPackets},
		} {
			want := uint64(packets * (size + 8 + 20 + after.HeaderBytes))
			if way.bytes < want || way.bytes > want+slack || way.packets < packets || way.packets > packets+10 {
				t.Errorf("%s: %s %d bytes, want %d; %d packets, want %d", what, way.name, way.bytes, want, way.packets, packets)
			}
		}
		if after.HeaderBytes != header || !after.Carrier || after.SpeedMbps != 0 || after.Blind {
			t.Errorf("%s: %+v", what, after)
		}
	}
	check("veth", 14)

	gateway.ip("link", "add", "br0", "type", "bridge")
	gateway.ip("addr", "flush", "dev", "wan0")
	gateway.ip("link", "set", "wan0", "master", "br0")
	gateway.ip("link", "set", "br0", "up")
	gateway.ip("addr", "add", "10.41.0.2/24", "dev", "br0")
	check("bridge", 14)
}

// exchange sends so many datagrams of 1000 bytes there and back.
func exchange(t *testing.T, a, z *netHost, n int) {
	t.Helper()
	listen := func(h *netHost, addr string) (c *net.UDPConn) {
		h.do(func() {
			var err error
			if c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr))); err != nil {
				t.Fatal(err)
			}
		})
		return c
	}
	ca, cz := listen(a, "10.41.0.2:4001"), listen(z, "10.41.0.1:4001")
	defer ca.Close()
	defer cz.Close()
	buf := make([]byte, 1000)
	for range n {
		for _, way := range []struct{ from, to *net.UDPConn }{{ca, cz}, {cz, ca}} {
			to := way.to.LocalAddr()
			if _, err := way.from.WriteTo(buf, to); err != nil {
				t.Fatal(err)
			}
			_ = way.to.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, _, err := way.to.ReadFrom(buf); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A link that goes is a link without a carrier, not an error: whoever watches
// it wants to know which it is.
func TestLineThatGoes(t *testing.T) {
	inNetwork(t)
	gateway, operator := line(t)
	gateway.ip("addr", "add", "10.41.0.2/24", "dev", "wan0")
	at := netip.MustParseAddr("10.41.0.2")
	r := newLineReader(config.Default())
	read := func() (l throughput.Line, err error) {
		gateway.do(func() { l, err = r.read(t.Context(), at) })
		return l, err
	}
	up, err := read()
	if err != nil || !up.Carrier || up.Interface != "wan0" {
		t.Fatalf("%+v, %v", up, err)
	}
	operator.ip("link", "set", "srv0", "down")
	down, err := read()
	if err != nil || down.Carrier || down.CarrierChanges == up.CarrierChanges {
		t.Errorf("down: %+v, %v; before %+v", down, err, up)
	}
	operator.ip("link", "del", "srv0")
	gone, err := read()
	if err != nil || gone.Carrier || gone.Interface != "wan0" {
		t.Errorf("gone: %+v, %v", gone, err)
	}
	if again, err := read(); err == nil {
		t.Errorf("gone for good: %+v", again)
	}
}

// readsNetlink skips a test that reads interfaces where that is garbled.
func readsNetlink(t *testing.T) {
	t.Helper()
	if runtime.GOARCH == "mips" {
		t.Skip("user-mode emulation garbles netlink of big-endian machines")
	}
}

func TestLineOfLoopback(t *testing.T) {
	readsNetlink(t)
	r := newLineReader(config.Default())
	own := []string{"127.0.0.1", "127.0.0.53", "::ffff:127.0.0.1"}
	if c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback}); err == nil {
		own = append(own, "::1")
		_ = c.Close()
	}
	for _, a := range own {
		l, err := r.read(t.Context(), netip.MustParseAddr(a))
		if err != nil {
			t.Fatal(err)
		}
		if l.Interface != "lo" || !l.Carrier || l.HeaderBytes != 0 || l.SpeedMbps != 0 || l.RxBytes == 0 {
			t.Errorf("%s: %+v", a, l)
		}
	}
	if l, err := r.read(t.Context(), netip.MustParseAddr("192.0.2.77")); err == nil {
		t.Errorf("an address of nobody: %+v", l)
	}
}

func TestLineStack(t *testing.T) {
	port := link.Link{Index: 2, Name: "eth0", Type: "ether", SpeedMegabits: 1000, AdminUp: true, Carrier: true}
	vlan := link.Link{Index: 5, Name: "eth0.100", Type: "ether", Kind: "vlan", ParentIndex: 2}
	inner := link.Link{Index: 6, Name: "eth0.100.7", Type: "ether", Kind: "vlan", ParentIndex: 5}
	ppp := link.Link{Index: 9, Name: "pppoe-wan", Type: "ppp", Kind: "ppp"}
	veth := link.Link{Index: 3, Name: "veth0", Type: "ether", Kind: "veth", ParentIndex: 2, SpeedMegabits: 10000}
	tunnel := link.Link{Index: 11, Name: "ds-wan", Type: "769", Kind: "ip6tnl", ParentIndex: 5}
	loop := link.Link{Index: 12, Name: "loop", Type: "ether", Kind: "vlan", ParentIndex: 12}
	all := []link.Link{port, vlan, inner, ppp, veth, tunnel, loop}
	over := func(devices ...string) func(string) ([]linux.PPPoESession, error) {
		return func(string) (s []linux.PPPoESession, err error) {
			for _, d := range devices {
				s = append(s, linux.PPPoESession{Device: d})
			}
			return s, nil
		}
	}
	for _, tc := range []struct {
		name     string
		conf     config.WAN
		sessions func(string) ([]linux.PPPoESession, error)
		want     []string
		speed    int
		adds     throughput.Encapsulation
	}{
		{name: "eth0", want: []string{"eth0"}, speed: 1000},
		{name: "eth0", conf: config.WAN{VLAN: 7}, want: []string{"eth0"}, speed: 1000, adds: throughput.Encapsulation{VLANTags: 1}},
		{name: "eth0.100", conf: config.WAN{VLAN: 100}, want: []string{"eth0.100", "eth0"}, speed: 1000, adds: throughput.Encapsulation{VLANTags: 1}},
		{name: "eth0.100.7", want: []string{"eth0.100.7", "eth0.100", "eth0"}, speed: 1000, adds: throughput.Encapsulation{VLANTags: 2}},
		{name: "pppoe-wan", sessions: over("eth0.100"), want: []string{"pppoe-wan", "eth0.100", "eth0"}, speed: 1000, adds: throughput.Encapsulation{PPPoE: true, VLANTags: 1}},
		{name: "pppoe-wan", sessions: over("eth1", "eth0.100"), want: []string{"pppoe-wan"}, adds: throughput.Encapsulation{PPPoE: true}},
		{name: "pppoe-wan", conf: config.WAN{Device: "eth0"}, sessions: over("eth1", "eth0.100"), want: []string{"pppoe-wan", "eth0.100", "eth0"}, speed: 1000, adds: throughput.Encapsulation{PPPoE: true, VLANTags: 1}},
		{name: "pppoe-wan", conf: config.WAN{Device: "eth0"}, sessions: over(), want: []string{"pppoe-wan", "eth0"}, speed: 1000, adds: throughput.Encapsulation{PPPoE: true}},
		{name: "pppoe-wan", sessions: func(string) ([]linux.PPPoESession, error) { return nil, errors.New("no") }, want: []string{"pppoe-wan"}, adds: throughput.Encapsulation{PPPoE: true}},
		{name: "pppoe-wan", sessions: over("pppoe-wan"), want: []string{"pppoe-wan"}, adds: throughput.Encapsulation{PPPoE: true}},
		{name: "veth0", want: []string{"veth0"}},
		{name: "ds-wan", want: []string{"ds-wan", "eth0.100", "eth0"}, speed: 1000, adds: throughput.Encapsulation{VLANTags: 1, TunnelBytes: 40}},
		{name: "loop", want: []string{"loop"}, adds: throughput.Encapsulation{VLANTags: 1}},
		{name: "absent"},
		{name: ""},
	} {
		r := newLineReader(config.Config{WAN: tc.conf})
		if r.sessions = tc.sessions; r.sessions == nil {
			r.sessions = over()
		}
		stack := r.below(all, tc.name)
		var names []string
		speed := 0
		for _, l := range stack {
			names, speed = append(names, l.Name), portSpeed(l)
		}
		if !slices.Equal(names, tc.want) || speed != tc.speed {
			t.Errorf("%s: %v at %d Mbit/s, want %v at %d", tc.name, names, speed, tc.want, tc.speed)
		}
		if diff := cmp.Diff(tc.adds, r.adds(stack)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

// Counters of 32 bits wrap, and those of a driver that is set back begin anew:
// one is traffic, the other is not.
func TestTotals(t *testing.T) {
	for _, tc := range []struct {
		name                 string
		bytes, packets       [2]uint64
		moreBytes, morePacks uint64
	}{
		{"goes on", [2]uint64{100, 1100}, [2]uint64{1, 2}, 1000, 1},
		{"64 bits", [2]uint64{math.MaxUint32, math.MaxUint32 + 1000}, [2]uint64{1, 2}, 1000, 1},
		{"bytes wrap", [2]uint64{math.MaxUint32 - 499, 500}, [2]uint64{7, 8}, 1000, 1},
		{"both wrap", [2]uint64{math.MaxUint32 - 499, 500}, [2]uint64{math.MaxUint32, 0}, 1000, 1},
		{"set back", [2]uint64{5000, 100}, [2]uint64{9, 1}, 0, 0},
		{"bytes set back, few packets", [2]uint64{5000, 100}, [2]uint64{9, 10}, 0, 1},
		{"64 bits set back", [2]uint64{1 << 40, 100}, [2]uint64{9, 10}, 0, 1},
	} {
		var b, p total
		b.bytes(tc.bytes[0], p.packets(tc.packets[0]))
		if b.sum != tc.bytes[0] || p.sum != tc.packets[0] {
			t.Errorf("%s: begins at %d bytes, %d packets", tc.name, b.sum, p.sum)
		}
		b.bytes(tc.bytes[1], p.packets(tc.packets[1]))
		if b.sum-tc.bytes[0] != tc.moreBytes || p.sum-tc.packets[0] != tc.morePacks {
			t.Errorf("%s: %d bytes and %d packets more, want %d and %d", tc.name, b.sum-tc.bytes[0], p.sum-tc.packets[0], tc.moreBytes, tc.morePacks)
		}
	}
}
