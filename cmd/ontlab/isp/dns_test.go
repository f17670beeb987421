package isp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"ontagent/cmd/ontlab/netbox"
)

func TestDNSNamesAreNoMoreThanNames(t *testing.T) {
	for _, name := range []string{"", "a b", "a\naddress=/#/1.2.3.4", "a,b", "a/b", `a\.b`, "ü.example", "a..b"} {
		o := DNSOptions{Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Names: map[string][]netip.Addr{name: {}}}
		if err := o.check(); err == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
}

// coreAndHome is a lab of a server and, behind a cable, its client.
func coreAndHome(t *testing.T) (core, home *netbox.Host) {
	t.Helper()
	b := newBox(t)
	core, home = newHost(t, b, "core"), newHost(t, b, "home")
	must(t,
		b.Cable(core, "access0", home, "eth0", netbox.CableOptions{}),
		core.Address("access0", "10.64.0.1/24"), core.Address("access0", "fd00:64::1/64"),
		core.Address("lo", "10.64.0.53/32"), core.Address("lo", "10.64.0.54/32"), core.Address("access0", "fd00:64::53/64"),
		home.Address("eth0", "10.64.0.2/24"), home.Address("eth0", "fd00:64::2/64"),
	)
	return core, home
}

// query asks a resolver and returns its answer in words.
func query(t *testing.T, from *netbox.Host, network, at, name string, kind uint16, wait time.Duration) (string, error) {
	t.Helper()
	conn, err := from.Dial(t.Context(), network, net.JoinHostPort(at, "53"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	client := dns.Client{Net: network, Timeout: wait}
	m, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind), &dns.Conn{Conn: conn})
	if err != nil {
		return "", err
	}
	text := dns.RcodeToString[m.Rcode]
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			text += " " + rr.A.String()
		case *dns.AAAA:
			text += " " + rr.AAAA.String()
		}
	}
	if !m.RecursionAvailable {
		text += " (no recursion)"
	}
	return text, nil
}

func TestDNS(t *testing.T) {
	core, home := coreAndHome(t)
	one, other, six := netip.MustParseAddr("10.64.0.53"), netip.MustParseAddr("10.64.0.54"), netip.MustParseAddr("fd00:64::53")
	portal := netip.MustParseAddr("10.64.0.99")
	ctx := t.Context()
	began := time.Now()
	d, err := StartDNS(ctx, core, DNSOptions{
		Listen: []netip.Addr{one, other, six},
		Names: map[string][]netip.Addr{
			"www.example":  {netip.MustParseAddr("10.64.0.80"), netip.MustParseAddr("10.64.0.81"), netip.MustParseAddr("fd00:64::80")},
			"old.example.": {netip.MustParseAddr("10.64.0.80")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("three resolvers started in %v", time.Since(began))
	defer func() { must(t, d.Stop(), d.Stop()) }()

	type answers struct{ A, AAAA, Old, OldAAAA, None string }
	ask := func(at netip.Addr) answers {
		t.Helper()
		get := func(network, name string, kind uint16) string {
			text, err := query(t, home, network, at.String(), name, kind, 2*time.Second)
			if err != nil {
				return err.Error()
			}
			if text == "NOERROR 10.64.0.81 10.64.0.80" { // they take turns
				return "NOERROR 10.64.0.80 10.64.0.81"
			}
			return text
		}
		a := answers{
			get("udp", "www.example", dns.TypeA), get("udp", "WWW.example", dns.TypeAAAA),
			get("udp", "old.example", dns.TypeA), get("tcp", "old.example", dns.TypeAAAA), get("udp", "none.example", dns.TypeA),
		}
		if byTCP := get("tcp", "www.example", dns.TypeA); byTCP != a.A {
			t.Errorf("by TCP the answer is %q, by UDP %q", byTCP, a.A)
		}
		return a
	}
	expect := func(what string, at netip.Addr, want answers) {
		t.Helper()
		if diff := cmp.Diff(want, ask(at)); diff != "" {
			t.Errorf("%s at %s (-want +got):\n%s", what, at, diff)
		}
	}
	all := func(text string) answers { return answers{text, text, text, text, text} }
	healthy := answers{"NOERROR 10.64.0.80 10.64.0.81", "NOERROR fd00:64::80", "NOERROR 10.64.0.80", "NOERROR", "NXDOMAIN"}
	for _, at := range []netip.Addr{one, other, six} {
		expect("healthy", at, healthy)
	}

	must(t, d.Servfail(ctx, one))
	expect("servfail", one, all("SERVFAIL"))
	expect("servfail of the other", other, healthy)

	must(t, d.Hijack(ctx, one, portal))
	expect("hijack", one, answers{"NOERROR 10.64.0.99", "NOERROR", "NOERROR 10.64.0.99", "NOERROR", "NOERROR 10.64.0.99"})

	must(t, d.Wildcard(ctx, one, portal))
	expect("wildcard", one, answers{healthy.A, healthy.AAAA, healthy.Old, healthy.OldAAAA, "NOERROR 10.64.0.99"})

	const slow = 300 * time.Millisecond
	must(t, d.Slow(ctx, one, slow))
	asked := time.Now()
	if text, err := query(t, home, "udp", one.String(), "old.example", dns.TypeA, patience); err != nil || text != healthy.Old || time.Since(asked) < slow {
		t.Errorf("slow: %q, %v after %v", text, err, time.Since(asked))
	}
	must(t, d.Slow(ctx, one, time.Millisecond))
	expect("hardly slow", one, healthy)
	must(t, d.Slow(ctx, one, time.Hour)) // who waits then does not keep it from ending
	if _, err := query(t, home, "udp", one.String(), "old.example", dns.TypeA, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("slow by an hour: %v", err)
	}

	must(t, d.Dead(ctx, one))
	for _, network := range []string{"udp", "tcp"} {
		if _, err := query(t, home, network, one.String(), "old.example", dns.TypeA, 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("dead, by %s: %v", network, err)
		}
	}
	expect("dead, the other", other, healthy)

	must(t, d.Down(one))
	if _, err := query(t, home, "udp", one.String(), "old.example", dns.TypeA, patience); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("down: %v", err)
	}

	must(t, d.Dead(ctx, netip.Addr{}))
	for _, at := range []netip.Addr{one, other, six} {
		if _, err := query(t, home, "udp", at.String(), "old.example", dns.TypeA, 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("all dead, at %s: %v", at, err)
		}
	}
	must(t, d.Healthy(ctx, netip.Addr{}))
	for _, at := range []netip.Addr{one, other, six} {
		expect("healthy again", at, healthy)
	}
	if err := d.Dead(ctx, portal); err == nil {
		t.Error("a resolver that is not there died")
	}
	must(t, d.Dead(ctx, six)) // it is stopped all the same
}
