package isp

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

func TestMulticastPace(t *testing.T) {
	began := time.Unix(0, 0)
	p := multicastPace{rate: 8_000_000, began: began}
	n, most := 0, 0
	for at := time.Duration(0); at < time.Minute; at += 10*time.Millisecond + 123*time.Microsecond {
		due := p.due(began.Add(at))
		n, most = n+due, max(most, due)
	}
	if want := 8_000_000 * 60 / 8 / multicastPayload; n < want-8 || n > want+8 {
		t.Errorf("%d datagrams in a minute, want %d", n, want)
	}
	if most > 9 {
		t.Errorf("bursts of %d", most)
	}
	// Held up for a while it catches up, bit by bit; for long it does not.
	var caught []int
	for at := 400 * time.Millisecond; at < time.Second; at += 10 * time.Millisecond {
		caught = append(caught, p.due(began.Add(time.Minute+at)))
	}
	if caught[0] != 16 || caught[30] != 16 || caught[50] > 8 {
		t.Errorf("after 400 ms, each 10 ms these are due: %v", caught)
	}
	if due := p.due(began.Add(time.Hour)); due > 1 {
		t.Errorf("%d are due after an hour", due)
	}
	if due := p.due(began.Add(time.Hour + 5*time.Millisecond)); due < 2 || due > 5 {
		t.Errorf("%d are due 5 ms later", due)
	}
	if due := p.due(began); due != 0 {
		t.Errorf("%d are due when the clock is set back", due)
	}
}

// channel is a group that a host has joined.
type channel struct {
	t    *testing.T
	conn *net.UDPConn
}

func joinChannel(t *testing.T, h *netbox.Host, ifname string, group netip.Addr) *channel {
	t.Helper()
	c := &channel{t: t}
	must(t, h.Do(func() error {
		in, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		c.conn, err = net.ListenMulticastUDP("udp", in, net.UDPAddrFromAddrPort(netip.AddrPortFrom(group, 5000)))
		return err
	}))
	t.Cleanup(func() { c.conn.Close() })
	return c
}

// received is what came in a while.
type received struct {
	datagrams int
	gaps      int // of RTP
	rate      float64
	ts        *tsReader
}

// watch looks at the channel for a while from its first datagram on, or until
// nothing has come for that long.
func (c *channel) watch(d time.Duration, rtp bool) received {
	c.t.Helper()
	r := received{ts: newTSReader(c.t)}
	buf := make([]byte, 2000)
	began := time.Now()
	var first, last time.Time
	var next uint16
	for {
		until := began.Add(d)
		if !first.IsZero() {
			until = first.Add(d)
		}
		must(c.t, c.conn.SetReadDeadline(until))
		n, _, err := c.conn.ReadFromUDP(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		must(c.t, err)
		last = time.Now()
		if first.IsZero() {
			first = last
		}
		p := buf[:n]
		if rtp {
			sequence := binary.BigEndian.Uint16(p[2:])
			if p[0] != 0x80 || p[1] != 33 || r.datagrams > 0 && sequence != next {
				r.gaps++
			}
			next, p = sequence+1, p[12:]
		}
		r.datagrams++
		if len(p) != 7*188 {
			c.t.Fatalf("datagram of %d bytes", n)
		}
		for ; len(p) > 0; p = p[188:] {
			r.ts.read(p[:188])
		}
	}
	if r.datagrams > 1 {
		r.rate = float64(r.datagrams-1) * 7 * 188 * 8 / last.Sub(first).Seconds() / 1e6
	}
	return r
}

// steady watches until the channel comes at its rate and with nothing lost, as
// it does unless the machine is too busy for a while.
func (c *channel) steady(what string, mbps float64, rtp bool) received {
	c.t.Helper()
	for began := time.Now(); ; {
		c.drain()
		r := c.watch(500*time.Millisecond, rtp)
		if r.rate > mbps*0.96 && r.rate < mbps*1.04 && r.ts.lost == 0 && r.gaps == 0 {
			return r
		}
		if time.Since(began) > patience {
			c.t.Fatalf("%s: %.3f Mbit/s, %d gaps, %d lost of packets %v", what, r.rate, r.gaps, r.ts.lost, r.ts.packets)
		}
	}
}

// drain forgets what came before.
func (c *channel) drain() {
	buf := make([]byte, 2000)
	must(c.t, c.conn.SetReadDeadline(time.Now().Add(30*time.Millisecond)))
	for {
		if _, _, err := c.conn.ReadFromUDP(buf); err != nil {
			return
		}
	}
}

// iptvAndHomes is a lab of a source and two homes behind a bridge that snoops.
func iptvAndHomes(t *testing.T) (iptv, olt, home, other *netbox.Host) {
	t.Helper()
	b := newBox(t)
	iptv, olt, home, other = newHost(t, b, "iptv"), newHost(t, b, "olt"), newHost(t, b, "home"), newHost(t, b, "other")
	must(t,
		b.Cable(iptv, "eth0", olt, "iptv0", netbox.CableOptions{}),
		b.Cable(home, "eth0", olt, "home0", netbox.CableOptions{}),
		b.Cable(other, "eth0", olt, "other0", netbox.CableOptions{}),
		iptv.Address("eth0", "10.45.0.1/24"), iptv.Address("eth0", "fd00:45::1/64"),
		home.Address("eth0", "10.45.0.2/24"), home.Address("eth0", "fd00:45::2/64"),
		other.Address("eth0", "10.45.0.3/24"),
		olt.Bridge("br45", netbox.BridgeOptions{Snooping: true, Querier: true}, "iptv0", "home0", "other0"),
		SetQuerier(olt, "br45", QuerierOptions{}),
	)
	return iptv, olt, home, other
}

func TestMulticast(t *testing.T) {
	iptv, _, home, other := iptvAndHomes(t)
	for _, try := range []struct {
		group string
		rtp   bool
	}{{"239.45.0.1", false}, {"239.45.0.2", true}, {"ff3e::45:1", true}} {
		t.Run(try.group, func(t *testing.T) {
			group := netip.MustParseAddr(try.group)
			m, err := StartMulticast(bounded(t), iptv, MulticastOptions{Interface: "eth0", Group: group, RateMbps: 4, RTP: try.rtp, Seed: 1})
			must(t, err)
			defer func() { must(t, m.Stop(), m.Stop()) }()
			joined := time.Now()
			c := joinChannel(t, home, "eth0", group)
			must(t, c.conn.SetReadDeadline(time.Now().Add(patience)))
			_, _, err = c.conn.ReadFromUDP(make([]byte, 2000))
			must(t, err)
			t.Logf("first datagram %v after the join", time.Since(joined))
			r := c.steady("healthy", 4, try.rtp)
			t.Logf("%.3f Mbit/s", r.rate)
			if r.ts.packets[0x100] == 0 || len(r.ts.pcr) < 8 {
				t.Errorf("healthy: %d clock references, packets %v", len(r.ts.pcr), r.ts.packets)
			}
			m.Missing()
			c.drain()
			if r := c.watch(300*time.Millisecond, try.rtp); r.datagrams != 0 {
				t.Errorf("missing: %d datagrams", r.datagrams)
			}
			must(t, m.Lossy(0.1))
			if r := c.watch(500*time.Millisecond, try.rtp); r.ts.lost == 0 || try.rtp && r.gaps == 0 {
				t.Errorf("lossy: %.2f Mbit/s, %d gaps, %d lost", r.rate, r.gaps, r.ts.lost)
			}
			m.Freeze()
			if r := c.steady("frozen", 4, try.rtp); r.ts.packets[0x100] != 0 || r.ts.packets[0] == 0 {
				t.Errorf("frozen: packets %v", r.ts.packets)
			}
			m.Healthy()
			if r := c.steady("healthy again", 4, try.rtp); r.ts.packets[0x100] == 0 {
				t.Errorf("healthy again: packets %v", r.ts.packets)
			}
			if n := m.Count(); n.Sent == 0 || n.Dropped == 0 || n.Failed != 0 {
				t.Errorf("counted %+v", n)
			}
			if m.Lossy(1.1) == nil || m.Lossy(-1) == nil {
				t.Error("faults that are none are played")
			}
			// The bridge lets it go where it was asked for, and nowhere else.
			if n := frames(t, other, group); n != 0 {
				t.Errorf("%d frames came where nobody had joined", n)
			}
			left := time.Now()
			c.conn.Close()
			for frames(t, home, group) != 0 {
				if time.Since(left) > patience {
					t.Fatal("it comes for ever after a leave")
				}
			}
			t.Logf("gone %v after the leave", time.Since(left))
		})
	}
}

// frames counts the group's datagrams that reach a host within a tenth of a
// second, joined or not.
func frames(t *testing.T, h *netbox.Host, group netip.Addr) int {
	t.Helper()
	// Sockets get what was joined; whatever comes is in the interface's count.
	count := func() int {
		text, err := h.Run(t.Context(), "cat", "/sys/class/net/eth0/statistics/rx_packets")
		must(t, err)
		n := 0
		for _, c := range text {
			if c >= '0' && c <= '9' {
				n = n*10 + int(c-'0')
			}
		}
		return n
	}
	before := count()
	time.Sleep(100 * time.Millisecond)
	if n := count() - before; n > 10 { // 38 a tenth of a second; queries come as well
		return n
	}
	return 0
}

func TestMulticastOptionsAreChecked(t *testing.T) {
	iptv, olt, _, _ := iptvAndHomes(t)
	good := MulticastOptions{Interface: "eth0", Group: netip.MustParseAddr("239.45.0.1"), RateMbps: 1}
	for name, change := range map[string]func(*MulticastOptions){
		"unicast":      func(o *MulticastOptions) { o.Group = netip.MustParseAddr("10.0.0.1") },
		"no interface": func(o *MulticastOptions) { o.Interface = "eth9" },
		"no rate":      func(o *MulticastOptions) { o.RateMbps = 0 },
		"rate":         func(o *MulticastOptions) { o.RateMbps = 1000 },
		"ttl":          func(o *MulticastOptions) { o.TTL = 300 },
	} {
		o := good
		change(&o)
		if m, err := StartMulticast(t.Context(), iptv, o); err == nil {
			t.Errorf("%s: taken", name)
			must(t, m.Stop())
		}
	}
	if err := SetQuerier(olt, "br0", QuerierOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("querier of no bridge: %v", err)
	}
	// An interface that is down is counted, and no more.
	m, err := StartMulticast(t.Context(), iptv, good)
	must(t, err)
	defer func() { must(t, m.Stop()) }()
	must(t, iptv.Down("eth0"))
	for until := time.Now().Add(patience); m.Count().Failed == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("nothing fails: %+v", m.Count())
		}
	}
	must(t, iptv.Up("eth0"))
	before := m.Count().Sent
	for until := time.Now().Add(patience); m.Count().Sent == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("nothing is sent: %+v", m.Count())
		}
	}
}
