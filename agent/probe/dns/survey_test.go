package dns_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	wire "github.com/miekg/dns"

	"ontagent/agent/probe/dns"
)

var twoNames = []string{"www.example", "mail.example"}

// zone answers a question with the records of its name, "*" for any other.
func zone(t *testing.T, q []byte, records map[string][]string) []byte {
	t.Helper()
	var m wire.Msg
	if err := m.Unpack(q); err != nil {
		t.Error(err)
		return nil
	}
	rr, ok := records[strings.TrimSuffix(m.Question[0].Name, ".")]
	if !ok {
		rr, ok = records["*"]
	}
	return reply(t, q, func(m *wire.Msg) {
		if !ok {
			m.Rcode = wire.RcodeNameError
		}
	}, rr...)
}

// resolver is a stub that answers over UDP and TCP from a zone.
func resolver(t *testing.T, records map[string][]string) *stub {
	t.Helper()
	return serve(t, func(q []byte) [][]byte { return [][]byte{zone(t, q, records)} },
		func(c net.Conn, q []byte) { c.Write(framed(zone(t, q, records))) })
}

func TestSurveyOutcomes(t *testing.T) {
	fails := func(rcode int) *stub {
		f := func(q []byte) []byte { return reply(t, q, func(m *wire.Msg) { m.Rcode = rcode }) }
		return serve(t, func(q []byte) [][]byte { return [][]byte{f(q)} }, func(c net.Conn, q []byte) { c.Write(framed(f(q))) })
	}
	truth := map[string][]string{
		"www.example":  {"@ 60 IN A 8.8.4.1", "@ 60 IN AAAA 2a00::1"},
		"mail.example": {"@ 60 IN A 8.8.4.2"},
	}
	good := resolver(t, truth)
	cdn := resolver(t, map[string][]string{"www.example": {"@ 60 IN A 9.9.9.1"}, "mail.example": {"@ 60 IN A 9.9.9.2"}})
	garden := resolver(t, map[string][]string{"*": {"@ 60 IN A 10.0.0.1"}})
	rewrites := resolver(t, map[string][]string{
		"www.example": truth["www.example"], "mail.example": truth["mail.example"], "*": {"@ 60 IN A 8.8.4.9"},
	})
	private := resolver(t, map[string][]string{"www.example": {"@ 60 IN A 10.0.0.7"}, "mail.example": truth["mail.example"]})
	onePage := resolver(t, map[string][]string{"www.example": {"@ 60 IN A 8.8.4.9"}, "mail.example": {"@ 60 IN A 8.8.4.9"}})
	lab := resolver(t, map[string][]string{"www.example": {"@ 60 IN A 10.64.0.1"}, "mail.example": {"@ 60 IN A 10.64.0.2"}})
	labAgain := resolver(t, map[string][]string{"www.example": {"@ 60 IN A 10.64.0.3"}, "mail.example": {"@ 60 IN A 10.64.0.4"}})
	labPage := resolver(t, map[string][]string{"www.example": {"@ 60 IN A 10.64.0.9"}, "mail.example": {"@ 60 IN A 10.64.0.9"}})
	nothing := resolver(t, nil)
	half := resolver(t, map[string][]string{"www.example": truth["www.example"]})
	noTCP := serve(t, func(q []byte) [][]byte { return [][]byte{zone(t, q, truth)} }, nil)
	deaf := serve(t, func(q []byte) [][]byte {
		if bytes.Contains(q, []byte("mail")) {
			return nil
		}
		return [][]byte{zone(t, q, truth)}
	}, nil)
	dead := serve(t, nil, nil)
	garbage := serve(t, func([]byte) [][]byte { return [][]byte{[]byte(strings.Repeat("garbage", 20))} }, nil)
	servfail, refused, odd := fails(wire.RcodeServerFailure), fails(wire.RcodeRefused), fails(wire.RcodeNotImplemented)

	for _, tt := range []struct {
		name     string
		ask      []*stub
		want     dns.Outcome
		each     []dns.Outcome
		hijacked []string // by the last
	}{
		{"one that works", []*stub{good}, dns.OK, []dns.Outcome{dns.OK}, nil},
		{"two that work, with other addresses", []*stub{good, cdn}, dns.OK, []dns.Outcome{dns.OK, dns.OK}, nil},
		{"one of two is dead", []*stub{good, dead}, dns.Degraded, []dns.Outcome{dns.OK, dns.Dead}, nil},
		{"no TCP", []*stub{noTCP}, dns.OK, []dns.Outcome{dns.OK}, nil},
		{"a walled garden alone", []*stub{garden}, dns.Hijacks, []dns.Outcome{dns.Hijacks}, twoNames},
		{"a walled garden beside the truth", []*stub{good, garden}, dns.Degraded, []dns.Outcome{dns.OK, dns.Hijacks}, twoNames},
		{"a page for what does not exist", []*stub{rewrites}, dns.Rewrites, []dns.Outcome{dns.Rewrites}, nil},
		{"one name led to a private address", []*stub{good, private}, dns.Degraded, []dns.Outcome{dns.OK, dns.Hijacks}, []string{"www.example"}},
		{"a private address, and nobody to contradict", []*stub{dead, private}, dns.Degraded, []dns.Outcome{dns.Dead, dns.OK}, nil},
		{"the names there are led to one page", []*stub{good, onePage}, dns.Degraded, []dns.Outcome{dns.OK, dns.Hijacks}, twoNames},
		{"two names on one server", []*stub{onePage}, dns.OK, []dns.Outcome{dns.OK}, nil},
		{"two names on one server, says another too", []*stub{onePage, onePage}, dns.OK, []dns.Outcome{dns.OK, dns.OK}, nil},
		{"a network of private addresses", []*stub{lab, labAgain}, dns.OK, []dns.Outcome{dns.OK, dns.OK}, nil},
		{"a page in a network of private addresses", []*stub{lab, labPage}, dns.Degraded, []dns.Outcome{dns.OK, dns.Hijacks}, twoNames},
		{"no such name", []*stub{nothing}, dns.Wrong, []dns.Outcome{dns.Wrong}, nil},
		{"no such name, the one or the other", []*stub{half}, dns.Wrong, []dns.Outcome{dns.Wrong}, nil},
		{"some questions unanswered", []*stub{deaf}, dns.Partial, []dns.Outcome{dns.Partial}, nil},
		{"garbage", []*stub{garbage}, dns.Malformed, []dns.Outcome{dns.Malformed}, nil},
		{"failures", []*stub{servfail, refused, odd}, dns.Servfail, []dns.Outcome{dns.Servfail, dns.Refused, dns.Servfail}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := dns.SurveyOptions{Names: twoNames, Prober: dns.Prober{Timeout: 200 * time.Millisecond}}
			for _, s := range tt.ask {
				o.Resolvers = append(o.Resolvers, s.addr)
			}
			res, err := dns.Survey(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			var each []dns.Outcome
			for i, s := range res.Resolvers {
				each = append(each, s.Outcome)
				if s.Resolver != o.Resolvers[i] || len(s.Questions) != 8 {
					t.Errorf("%+v", s)
				}
			}
			if res.Outcome != tt.want || !slices.Equal(each, tt.each) {
				t.Errorf("%s of %s, want %s of %s", res.Outcome, each, tt.want, tt.each)
			}
			last := res.Resolvers[len(each)-1]
			if !slices.Equal(last.Hijacked, tt.hijacked) {
				t.Errorf("hijacked: %v, want %v", last.Hijacked, tt.hijacked)
			}
			answers := slices.Contains([]dns.Outcome{dns.OK, dns.Hijacks, dns.Rewrites}, last.Outcome)
			if answers && (last.LatencyMs <= 0 || last.MaxLatencyMs < last.LatencyMs || !last.A) {
				t.Errorf("%+v", last)
			}
			if took := time.Duration(res.DurationS * float64(time.Second)); took > o.Duration()+200*time.Millisecond {
				t.Errorf("took %v, at most %v", took, o.Duration())
			}
		})
	}
	t.Run("details", func(t *testing.T) {
		res, err := dns.Survey(t.Context(), dns.SurveyOptions{
			Resolvers: []netip.AddrPort{rewrites.addr, noTCP.addr}, Names: twoNames, Prober: dns.Prober{Timeout: 200 * time.Millisecond},
		})
		if err != nil {
			t.Fatal(err)
		}
		r, n := res.Resolvers[0], res.Resolvers[1]
		if len(r.Invented) != 3 || !strings.HasSuffix(r.Invented[0], ".com") || !strings.HasSuffix(r.Invented[2], ".invalid") || r.TCP != dns.OK {
			t.Errorf("%+v", r)
		}
		if n.TCP == dns.OK || !r.AAAA || !res.AAAA || res.V6Transport || !r.Questions[7].TCP {
			t.Errorf("%+v", n)
		}
	})
}

func TestSurveyWhatCannotBeAsked(t *testing.T) {
	s := resolver(t, nil)
	one := []netip.AddrPort{s.addr}
	many := make([]netip.AddrPort, 17)
	for _, o := range []dns.SurveyOptions{
		{},
		{Resolvers: one},
		{Names: twoNames},
		{Resolvers: many, Names: twoNames},
		{Resolvers: one, Names: make([]string, 33)},
		{Resolvers: one, Names: twoNames, Prober: dns.Prober{Random: strings.NewReader("")}},
	} {
		if _, err := dns.Survey(t.Context(), o); err == nil {
			t.Errorf("%+v is asked", o)
		}
	}
	res, err := dns.Survey(t.Context(), dns.SurveyOptions{Resolvers: one, Names: twoNames, Prober: dns.Prober{Interface: "no-such"}})
	if !errors.Is(err, dns.ErrNoInterface) || res.Outcome != dns.NotAsked {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := dns.Survey(t.Context(), dns.SurveyOptions{Resolvers: one, Names: []string{"a..b"}}); err == nil {
		t.Error("what is no name is asked for")
	}
	if udp, tcp := s.counts(); tcp != 0 || udp > 3 {
		t.Errorf("%d and %d questions were sent", udp, tcp)
	}
}

func TestSurveyEndsWithItsContext(t *testing.T) {
	dead := serve(t, nil, func(c net.Conn, _ []byte) { _, _ = c.Read(make([]byte, 1)) })
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	prompt(t, 50*time.Millisecond, func(ctx context.Context) error {
		_, err := dns.Survey(ctx, dns.SurveyOptions{Resolvers: []netip.AddrPort{dead.addr, dead.addr}, Names: twoNames})
		return err
	})
	for range 100 { // the server notices a moment later
		if runtime.NumGoroutine() <= goroutines && openFiles(t) <= files {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines and %d files, before %d and %d", runtime.NumGoroutine(), openFiles(t), goroutines, files)
}

// prompt checks that f, which is handed a context, ends with it within 100 ms:
// in the best of some tries, because the machine may be busy.
func prompt(t *testing.T, after time.Duration, f func(ctx context.Context) error) {
	t.Helper()
	var late time.Duration
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan time.Time, 1)
		timer := time.AfterFunc(after, func() { ended <- time.Now(); cancel() })
		err := f(ctx)
		now := time.Now()
		if timer.Stop() {
			cancel()
			t.Errorf("ended by itself: %v", err)
			return
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if late = now.Sub(<-ended); late <= 100*time.Millisecond {
			return
		}
	}
	t.Errorf("ended %v after its context", late)
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestSurveyAsJSON(t *testing.T) {
	got, err := json.Marshal(dns.SurveyResult{
		Outcome: dns.Hijacks, V6Transport: true, DurationS: 1.5,
		Resolvers: []dns.Surveyed{{
			Resolver: netip.MustParseAddrPort("[2001:db8::53]:53"), Outcome: dns.Hijacks, V6: true, A: true, TCP: dns.Dead, LatencyMs: 1, MaxLatencyMs: 2,
			Hijacked: []string{"a.example"}, Invented: []string{"x.com"}, Error: "no answer in time",
			Questions: []dns.Asked{
				{Name: "a.example", Type: "A", Rcode: "NOERROR", Addresses: addrs("10.0.0.1"), LatencyMs: 1, Attempts: 1},
				{Name: "a.example", Type: "A", TCP: true, Attempts: 1, Error: "no answer in time"},
			},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"outcome":"hijacks","resolvers":[{"resolver":"[2001:db8::53]:53","outcome":"hijacks","v6_transport":true,"a":true,"aaaa":false,` +
		`"tcp":"dead","latency_ms":1,"max_latency_ms":2,"hijacked":["a.example"],"invented":["x.com"],"questions":[` +
		`{"name":"a.example","type":"A","rcode":"NOERROR","addresses":["10.0.0.1"],"latency_ms":1,"attempts":1},` +
		`{"name":"a.example","type":"A","tcp":true,"attempts":1,"error":"no answer in time"}],"error":"no answer in time"}],` +
		`"v6_transport":true,"aaaa":false,"duration_s":1.5}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBogon(t *testing.T) {
	for _, a := range addrs("0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "169.254.1.1", "172.16.0.1", "172.31.0.1", "192.0.0.1",
		"192.0.2.1", "192.168.1.1", "198.18.0.1", "198.19.255.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "fe80::1", "fd00::1", "ff02::1", "2001:db8::1", "4000::1", "::ffff:10.0.0.1") {
		if !dns.Bogon(a) {
			t.Errorf("%s could be a host", a)
		}
	}
	for _, a := range addrs("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "114.114.114.114", "172.32.0.1", "192.0.1.1", "192.0.3.1", "198.17.0.1",
		"198.20.0.1", "203.0.112.1", "223.5.5.5", "2400:3200::1", "2001:4860:4860::8888", "64:ff9b::808:808", "::ffff:8.8.8.8") {
		if dns.Bogon(a) {
			t.Errorf("%s could be no host", a)
		}
	}
}

// TestSurveyOfDnsmasq: a real resolver, over both transports, and one that leads
// everything to a page.
func TestSurveyOfDnsmasq(t *testing.T) {
	if testing.Short() {
		t.Skip("starts dnsmasq")
	}
	path, err := exec.LookPath("dnsmasq")
	if err != nil {
		if path = "/usr/sbin/dnsmasq"; !exists(path) {
			if os.Getenv("CI") == "true" {
				t.Fatal("needs dnsmasq")
			}
			t.Skip("needs dnsmasq")
		}
	}
	start := func(args ...string) uint16 {
		t.Helper()
		pc, ln := listen(t, true)
		port := netip.MustParseAddrPort(pc.LocalAddr().String()).Port()
		pc.Close()
		ln.Close()
		var out bytes.Buffer
		cmd := exec.Command(path, append([]string{
			"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-daemon", "--user=", "--pid-file=",
			"--bind-interfaces", "--listen-address=127.0.0.1", "--listen-address=::1", fmt.Sprintf("--port=%d", port),
		}, args...)...)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if t.Failed() {
				t.Logf("dnsmasq: %s", out.Bytes())
			}
		})
		for range 200 {
			if conn, err := net.DialTimeout("tcp", fmt.Sprintf("[::1]:%d", port), time.Second); err == nil {
				conn.Close()
				return port
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("dnsmasq does not come up: %s", out.Bytes())
		return 0
	}
	good := start("--local=/com/cn/invalid/", "--host-record=www.example,8.8.4.1,2a00::1", "--host-record=mail.example,8.8.4.2")
	garden := start("--address=/#/10.0.0.1")
	refuses := start() // what it knows nothing of
	local := func(addr string, port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
	}
	res, err := dns.Survey(t.Context(), dns.SurveyOptions{
		Resolvers: []netip.AddrPort{local("127.0.0.1", good), local("::1", good), local("127.0.0.1", garden), local("::1", refuses)},
		Names:     twoNames, Prober: dns.Prober{Interface: "lo"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []dns.Outcome{dns.OK, dns.OK, dns.Hijacks, dns.Refused} {
		r := res.Resolvers[i]
		if r.Outcome != want || r.TCP != dns.OK || r.V6 != (i%2 == 1) || r.AAAA != (i < 2) {
			t.Errorf("%d: %+v", i, r)
		}
	}
	if res.Outcome != dns.Degraded || !res.V6Transport || !res.AAAA || res.DurationS > 1 {
		t.Errorf("%+v", res)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
