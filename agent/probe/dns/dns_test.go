package dns_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	wire "github.com/miekg/dns"

	"ontagent/agent/probe/dns"
)

// stub is a resolver on the loopback that answers as it is told.
type stub struct {
	addr netip.AddrPort

	mu  sync.Mutex
	udp int // questions that came
	tcp int
}

// serve starts a stub. onUDP returns the datagrams to send for a question, onTCP
// writes to a connection; either may be nil: silence, connection refused.
func serve(t *testing.T, onUDP func(q []byte) [][]byte, onTCP func(conn net.Conn, q []byte)) *stub {
	t.Helper()
	pc, ln := listen(t, onTCP != nil)
	s := &stub{addr: netip.MustParseAddrPort(pc.LocalAddr().String())}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.udp++
			s.mu.Unlock()
			if onUDP != nil {
				for _, d := range onUDP(slices.Clone(buf[:n])) {
					pc.WriteTo(d, from)
				}
			}
		}
	})
	if ln != nil {
		wg.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					defer conn.Close()
					var n [2]byte
					if _, err := readFull(conn, n[:]); err != nil {
						return
					}
					q := make([]byte, binary.BigEndian.Uint16(n[:]))
					if _, err := readFull(conn, q); err != nil {
						return
					}
					s.mu.Lock()
					s.tcp++
					s.mu.Unlock()
					onTCP(conn, q)
				})
			}
		})
	}
	t.Cleanup(func() {
		pc.Close()
		if ln != nil {
			ln.Close()
		}
		wg.Wait()
	})
	return s
}

// listen opens a port of the loopback for UDP and, if asked, TCP.
func listen(t *testing.T, both bool) (net.PacketConn, net.Listener) {
	t.Helper()
	var lc net.ListenConfig
	for range 20 {
		pc, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if !both {
			return pc, nil
		}
		ln, err := lc.Listen(t.Context(), "tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, ln
		}
		pc.Close() // somebody else has that TCP port
	}
	t.Fatal("no port is free for UDP and TCP")
	return nil, nil
}

func readFull(c net.Conn, b []byte) (int, error) {
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	n := 0
	for n < len(b) {
		m, err := c.Read(b[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *stub) counts() (udp, tcp int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.udp, s.tcp
}

// reply answers q with records in zone-file form.
func reply(t *testing.T, q []byte, change func(*wire.Msg), records ...string) []byte {
	t.Helper()
	var m, r wire.Msg
	if err := m.Unpack(q); err != nil {
		t.Error(err)
		return nil
	}
	r.SetReply(&m)
	for _, rec := range records {
		rr, err := wire.NewRR(strings.ReplaceAll(rec, "@", m.Question[0].Name))
		if err != nil {
			t.Error(err)
			return nil
		}
		if rr.Header().Rrtype == m.Question[0].Qtype || rr.Header().Rrtype == wire.TypeCNAME {
			r.Answer = append(r.Answer, rr)
		}
	}
	if change != nil {
		change(&r)
	}
	out, err := r.Pack()
	if err != nil {
		t.Error(err)
	}
	return out
}

func framed(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

var quick = dns.Prober{Timeout: 150 * time.Millisecond}

var equateAddr = cmpopts.EquateComparable(netip.Addr{})

func TestLookupAnswers(t *testing.T) {
	rcode := func(c int) func(*wire.Msg) { return func(m *wire.Msg) { m.Rcode = c } }
	truncate := func(m *wire.Msg) { m.Truncated = true }
	many := make([]string, 40)
	for i := range many {
		many[i] = "@ 60 IN A 192.0.2." + string(rune('1'+i%9)) + string(rune('0'+i/9))
	}
	for _, tt := range []struct {
		name string
		typ  dns.Type
		udp  func(q []byte) [][]byte
		tcp  func(q []byte) []byte
		want dns.Answer
	}{
		{
			name: "address", typ: dns.A,
			udp: func(q []byte) [][]byte {
				return [][]byte{reply(t, q, nil, "@ 60 IN A 192.0.2.1", "@ 60 IN A 192.0.2.2")}
			},
			want: dns.Answer{Rcode: "NOERROR", Addresses: addrs("192.0.2.1", "192.0.2.2"), Attempts: 1},
		},
		{
			name: "IPv6 address", typ: dns.AAAA,
			udp:  func(q []byte) [][]byte { return [][]byte{reply(t, q, nil, "@ 60 IN AAAA 2001:db8::1")} },
			want: dns.Answer{Rcode: "NOERROR", Addresses: addrs("2001:db8::1"), Attempts: 1},
		},
		{
			name: "through an alias, twice the same", typ: dns.A,
			udp: func(q []byte) [][]byte {
				return [][]byte{reply(t, q, nil, "@ 60 IN CNAME w.example.", "w.example. 60 IN A 192.0.2.1", "w.example. 60 IN A 192.0.2.1")}
			},
			want: dns.Answer{Rcode: "NOERROR", Addresses: addrs("192.0.2.1"), Attempts: 1},
		},
		{
			name: "nothing of this type", typ: dns.AAAA,
			udp:  func(q []byte) [][]byte { return [][]byte{reply(t, q, nil, "@ 60 IN A 192.0.2.1")} },
			want: dns.Answer{Rcode: "NOERROR", Attempts: 1},
		},
		{
			name: "no such name", typ: dns.A,
			udp:  func(q []byte) [][]byte { return [][]byte{reply(t, q, rcode(wire.RcodeNameError))} },
			want: dns.Answer{Rcode: "NXDOMAIN", Attempts: 1},
		},
		{
			name: "failure without the question", typ: dns.A,
			udp: func(q []byte) [][]byte {
				return [][]byte{reply(t, q, func(m *wire.Msg) { m.Rcode, m.Question = wire.RcodeServerFailure, nil })}
			},
			want: dns.Answer{Rcode: "SERVFAIL", Attempts: 1},
		},
		{
			name: "a code nobody knows", typ: dns.A,
			udp:  func(q []byte) [][]byte { return [][]byte{reply(t, q, rcode(12))} },
			want: dns.Answer{Rcode: "RCODE12", Attempts: 1},
		},
		{
			name: "truncated, then over TCP", typ: dns.A,
			udp:  func(q []byte) [][]byte { return [][]byte{reply(t, q, truncate)} },
			tcp:  func(q []byte) []byte { return framed(reply(t, q, nil, many...)) },
			want: dns.Answer{Rcode: "NOERROR", TCP: true, Attempts: 1},
		},
		{
			name: "truncated in mid-record, then over TCP", typ: dns.A,
			udp: func(q []byte) [][]byte {
				whole := reply(t, q, truncate, "@ 60 IN A 192.0.2.1")
				return [][]byte{whole[:len(whole)-3]}
			},
			tcp:  func(q []byte) []byte { return framed(reply(t, q, nil, "@ 60 IN A 192.0.2.1")) },
			want: dns.Answer{Rcode: "NOERROR", Addresses: addrs("192.0.2.1"), TCP: true, Attempts: 1},
		},
		{
			name: "the right answer after wrong ones", typ: dns.A,
			udp: func(q []byte) [][]byte {
				other := slices.Clone(q)
				other[0] ^= 0xff
				wrongID := reply(t, other, nil, "@ 60 IN A 198.51.100.1")
				wrongName := reply(t, q, func(m *wire.Msg) { m.Question[0].Name = "bank.example." }, "@ 60 IN A 198.51.100.2")
				return [][]byte{nil, {1, 2, 3}, q, wrongID, wrongName, reply(t, q, nil, "@ 60 IN A 192.0.2.1")}
			},
			want: dns.Answer{Rcode: "NOERROR", Addresses: addrs("192.0.2.1"), Attempts: 1},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var onTCP func(net.Conn, []byte)
			if tt.tcp != nil {
				onTCP = func(c net.Conn, q []byte) { c.Write(tt.tcp(q)) }
			}
			s := serve(t, tt.udp, onTCP)
			got, err := dns.Prober{Timeout: 2 * time.Second}.Lookup(t.Context(), s.addr, "www.example", tt.typ)
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Name, tt.want.Type = "www.example", tt.typ
			if tt.name == "truncated, then over TCP" {
				if len(got.Addresses) != 16 {
					t.Errorf("%d addresses are kept", len(got.Addresses))
				}
				got.Addresses = nil
			}
			if diff := cmp.Diff(tt.want, got, equateAddr, cmpopts.IgnoreFields(dns.Answer{}, "Latency"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			if got.Latency <= 0 || got.Latency > 2*time.Second {
				t.Errorf("latency %v", got.Latency)
			}
			if got.Found() != (got.Rcode == "NOERROR" && len(got.Addresses) > 0) {
				t.Error("found")
			}
		})
	}
}

func TestLookupFails(t *testing.T) {
	truncated := func(q []byte) [][]byte { return [][]byte{reply(t, q, func(m *wire.Msg) { m.Truncated = true })} }
	for _, tt := range []struct {
		name     string
		udp      func(q []byte) [][]byte
		tcp      func(c net.Conn, q []byte)
		want     error
		attempts int
	}{
		{"silence", nil, nil, dns.ErrTimeout, 2},
		{"garbage", func([]byte) [][]byte { return [][]byte{[]byte(strings.Repeat("garbage", 20))} }, nil, dns.ErrMalformed, 1},
		{"empty datagrams", func([]byte) [][]byte { return [][]byte{{}, {}} }, nil, dns.ErrMalformed, 1},
		{"only the header", func(q []byte) [][]byte { r := reply(t, q, nil); return [][]byte{r[:12]} }, nil, dns.ErrMalformed, 1},
		{"our own question back", func(q []byte) [][]byte { return [][]byte{q} }, nil, dns.ErrMalformed, 1},
		{"right id, broken body", func(q []byte) [][]byte {
			r := reply(t, q, nil, "@ 60 IN A 192.0.2.1")
			return [][]byte{r[:len(r)-2]}
		}, nil, dns.ErrMalformed, 1},
		{"pointers in a circle", func(q []byte) [][]byte {
			return [][]byte{append(append(slices.Clone(q[:2]), 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0), 0xc0, 12, 0, 1, 0, 1)}
		}, nil, dns.ErrMalformed, 1},
		{"wrong id for ever", func(q []byte) [][]byte {
			q[0] ^= 0xff
			return slices.Repeat([][]byte{reply(t, q, nil, "@ 60 IN A 192.0.2.1")}, 50)
		}, nil, dns.ErrMalformed, 1},
		{"truncated, and no TCP", truncated, nil, dns.ErrUnreachable, 1},
		{"truncated, and TCP closes at once", truncated, func(net.Conn, []byte) {}, dns.ErrMalformed, 1},
		{"truncated, and TCP closes in mid-message", truncated, func(c net.Conn, q []byte) { c.Write([]byte{0, 200, 1, 2, 3}) }, dns.ErrMalformed, 1},
		{"truncated, and TCP answers another question", truncated, func(c net.Conn, q []byte) {
			q[0] ^= 0xff
			c.Write(framed(reply(t, q, nil)))
		}, dns.ErrMalformed, 1},
		{"truncated, and TCP drips for ever", truncated, func(c net.Conn, q []byte) {
			c.Write([]byte{0xff, 0xff})
			for range 200 {
				if _, err := c.Write([]byte{0}); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}, dns.ErrTimeout, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if errors.Is(tt.want, dns.ErrUnreachable) && !tcpErrorsAreTrue(t) {
				t.Skip("this emulator does not translate the error of a TCP connect")
			}
			s := serve(t, tt.udp, tt.tcp)
			begin := time.Now()
			a, err := quick.Lookup(t.Context(), s.addr, "www.example", dns.A)
			if !errors.Is(err, tt.want) || a.Attempts != tt.attempts {
				t.Errorf("got %v after %d attempts, want %v after %d", err, a.Attempts, tt.want, tt.attempts)
			}
			if err != nil && (!strings.Contains(err.Error(), s.addr.String()) || !strings.Contains(err.Error(), "www.example")) {
				t.Errorf("the error names neither resolver nor name: %v", err)
			}
			if took := time.Since(begin); took > quick.Duration()+time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// tcpErrorsAreTrue reports whether a refused TCP connect says so. qemu-user
// passes the host's error number on, which is another one on MIPS.
func tcpErrorsAreTrue(t *testing.T) bool {
	t.Helper()
	pc, ln := listen(t, true)
	pc.Close()
	ln.Close()
	var d net.Dialer
	_, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
	return errors.Is(err, syscall.ECONNREFUSED)
}

func TestLookupRepeatsALostQuestion(t *testing.T) {
	first := true
	s := serve(t, func(q []byte) [][]byte {
		if first {
			first = false
			return nil
		}
		return [][]byte{reply(t, q, nil, "@ 60 IN A 192.0.2.1")}
	}, nil)
	a, err := dns.Prober{Timeout: 300 * time.Millisecond}.Lookup(t.Context(), s.addr, "www.example", dns.A)
	if err != nil || a.Attempts != 2 || !a.Found() {
		t.Errorf("got %+v, %v", a, err)
	}
	if a.Latency >= 300*time.Millisecond {
		t.Errorf("the latency %v counts the lost attempt", a.Latency)
	}
}

func TestLookupAtAClosedPort(t *testing.T) {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(pc.LocalAddr().String())
	pc.Close()
	if _, err := quick.Lookup(t.Context(), addr, "www.example", dns.A); !errors.Is(err, dns.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}

func TestLookupRefusesWhatIsNoName(t *testing.T) {
	s := serve(t, nil, nil)
	for _, name := range []string{strings.Repeat("a", 64) + ".example", strings.Repeat("abc.", 80), "a..b"} {
		a, err := quick.Lookup(t.Context(), s.addr, name, dns.A)
		if err == nil || errors.Is(err, dns.ErrTimeout) || a.Attempts != 0 {
			t.Errorf("%q: %v after %d attempts", name, err, a.Attempts)
		}
	}
	if udp, _ := s.counts(); udp != 0 {
		t.Errorf("%d questions were sent", udp)
	}
}

func TestLookupEndsWithItsContext(t *testing.T) {
	s := serve(t, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	begin := time.Now()
	_, err := dns.Prober{Timeout: 10 * time.Second}.Lookup(ctx, s.addr, "www.example", dns.A)
	if !errors.Is(err, context.Canceled) || time.Since(begin) > 5*time.Second {
		t.Errorf("got %v after %v", err, time.Since(begin))
	}
	if _, err := quick.Lookup(ctx, s.addr, "www.example", dns.A); !errors.Is(err, context.Canceled) {
		t.Errorf("begun after the end: %v", err)
	}
}

func TestLookupWithoutRandomness(t *testing.T) {
	s := serve(t, nil, nil)
	p := dns.Prober{Random: strings.NewReader("")}
	if _, err := p.Lookup(t.Context(), s.addr, "www.example", dns.A); err == nil || errors.Is(err, dns.ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

func TestProbe(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]bool{}
	known := func(q []byte) [][]byte {
		var m wire.Msg
		if err := m.Unpack(q); err != nil {
			t.Error(err)
			return nil
		}
		name := m.Question[0].Name
		mu.Lock()
		asked[name] = true
		mu.Unlock()
		if name == "www.example." || name == "mail.example." {
			return [][]byte{reply(t, q, nil, "@ 60 IN A 192.0.2.1")}
		}
		return [][]byte{reply(t, q, func(m *wire.Msg) { m.Rcode = wire.RcodeNameError })}
	}
	good := serve(t, known, nil)
	wildcard := serve(t, func(q []byte) [][]byte { return [][]byte{reply(t, q, nil, "@ 60 IN A 10.0.0.1")} }, nil)
	dead := serve(t, nil, nil)

	names := []string{"www.example", "mail.example"}
	results := quick.Probe(t.Context(), []netip.AddrPort{good.addr, wildcard.addr, dead.addr}, names)
	if len(results) != 3 {
		t.Fatalf("%d results", len(results))
	}
	for i, s := range []*stub{good, wildcard, dead} {
		r := results[i]
		if r.Resolver != s.addr || len(r.Replies) != 4 {
			t.Fatalf("result %d: %+v", i, r)
		}
		for j, reply := range r.Replies {
			if reply.Name != names[j/2] || reply.Type != []dns.Type{dns.A, dns.AAAA}[j%2] {
				t.Errorf("result %d, reply %d is %s %s", i, j, reply.Name, reply.Type)
			}
		}
	}
	if r := results[0]; r.Invents() || r.Bogus.Rcode != "NXDOMAIN" || !r.Replies[0].Found() || r.Replies[1].Found() || !r.Replies[2].Found() {
		t.Errorf("good: %+v", r)
	}
	if r := results[1]; !r.Invents() {
		t.Errorf("wildcard: %+v", r)
	}
	if r := results[2]; r.Invents() || !errors.Is(r.Replies[0].Err, dns.ErrTimeout) || !errors.Is(r.Bogus.Err, dns.ErrTimeout) {
		t.Errorf("dead: %+v", r)
	}
	bogus := results[0].Bogus.Name
	mu.Lock()
	defer mu.Unlock()
	if !asked[bogus+"."] || len(asked) != 3 || len(bogus) < 20 {
		t.Errorf("asked for %v, the name that cannot exist is %q", asked, bogus)
	}
	again := quick.Probe(t.Context(), []netip.AddrPort{good.addr}, nil)
	if again[0].Bogus.Name == bogus {
		t.Error("the name that cannot exist is always the same")
	}
}

func TestProbeOfNothing(t *testing.T) {
	if got := quick.Probe(t.Context(), nil, []string{"www.example"}); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
	s := serve(t, nil, nil)
	got := dns.Prober{Random: strings.NewReader("")}.Probe(t.Context(), []netip.AddrPort{s.addr}, nil)
	if len(got) != 1 || got[0].Bogus.Err == nil || got[0].Invents() {
		t.Errorf("without randomness: %+v", got)
	}
}

func TestProbeManyAtOnceInBoundedTime(t *testing.T) {
	s := serve(t, nil, nil)
	var names []string
	for i := range 12 {
		names = append(names, string(rune('a'+i))+".example")
	}
	begin := time.Now()
	dns.Prober{Timeout: 100 * time.Millisecond, Attempts: 1}.Probe(t.Context(), []netip.AddrPort{s.addr}, names)
	// 25 questions, 8 at a time.
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}

func FuzzParse(f *testing.F) {
	q := &wire.Msg{MsgHdr: wire.MsgHdr{Id: 0x1234, RecursionDesired: true}, Question: []wire.Question{{Name: "www.example.", Qtype: 1, Qclass: 1}}}
	seed, err := q.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	var r wire.Msg
	r.SetReply(q)
	rr, err := wire.NewRR("www.example. 60 IN A 192.0.2.1")
	if err != nil {
		f.Fatal(err)
	}
	r.Answer = append(r.Answer, rr)
	if seed, err = r.Pack(); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, typ := range []dns.Type{dns.A, dns.AAAA} {
			got, err := dns.Decode(data, typ)
			if err != nil && !errors.Is(err, dns.ErrMalformed) {
				t.Errorf("%v is not marked as malformed", err)
			}
			if len(got) > 16 {
				t.Errorf("%d addresses", len(got))
			}
			for _, a := range got {
				if a.Is4() != (typ == dns.A) {
					t.Errorf("%s of type %s", a, typ)
				}
			}
		}
	})
}
