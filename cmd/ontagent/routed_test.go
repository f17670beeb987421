package main

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ontagent/agent"
	"ontagent/agent/acceptance"
	"ontagent/agent/order"
	"ontagent/config"
)

// The form is that of Linux 6.1 with nf_conntrack_acct; addresses are invented.
const flows = `ipv4     2 tcp      6 431999 ESTABLISHED src=192.168.1.20 dst=192.0.2.80 sport=50000 dport=443 packets=10 bytes=900 src=192.0.2.80 dst=203.0.113.7 sport=443 dport=50000 packets=8 bytes=4000 [ASSURED] mark=0 zone=0 use=2
ipv4     2 udp      17 20 src=192.168.1.21 dst=192.0.2.53 sport=4000 dport=53 src=192.0.2.53 dst=203.0.113.7 sport=53 dport=4000 mark=0 use=1
ipv4     2 tcp      6 100 SYN_SENT src=192.168.1.22 dst=192.0.2.81 sport=50001 dport=443 [UNREPLIED] src=192.0.2.81 dst=203.0.113.7 sport=443 dport=50001 mark=0 use=1
ipv4     2 tcp      6 100 ESTABLISHED src=192.168.1.20 dst=192.168.1.1 sport=50002 dport=7443 src=192.168.1.1 dst=192.168.1.20 sport=7443 dport=50002 [ASSURED] mark=0 use=1
ipv4     2 tcp      6 100 ESTABLISHED src=192.168.1.1 dst=192.0.2.80 sport=50003 dport=80 src=192.0.2.80 dst=203.0.113.7 sport=80 dport=50003 [ASSURED] mark=0 use=1
ipv4     2 tcp      6 100 ESTABLISHED src=203.0.113.7 dst=192.0.2.80 sport=50003 dport=80 src=192.0.2.80 dst=203.0.113.7 sport=80 dport=50003 [ASSURED] mark=0 use=1
ipv6     10 udp     17 20 src=2001:0db8:0f00:0000:0000:0000:0000:0020 dst=2001:0db8:0000:0000:0000:0000:0000:0080 sport=1 dport=2 src=2001:0db8:0000:0000:0000:0000:0000:0080 dst=2001:0db8:0f00:0000:0000:0000:0000:0020 sport=2 dport=1 mark=0 use=1
ipv4     2 udp      17 20 src=192.168.1.21 dst=239.1.1.1 sport=4000 dport=5000 src=239.1.1.1 dst=192.168.1.21 sport=5000 dport=4000 mark=0 use=1
`

func lanNetworks() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("192.168.1.1/24"), netip.MustParsePrefix("2001:db8:f00::1/64")}
}

func TestCountFlows(t *testing.T) {
	if n, err := countFlows(strings.NewReader(flows), lanNetworks()); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := countFlows(strings.NewReader(flows), nil); err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
	// Cut at any byte it is read as far as it goes.
	for i := range flows {
		if n, err := countFlows(strings.NewReader(flows[:i]), lanNetworks()); err != nil || n > 4 {
			t.Fatalf("cut at %d: %d, %v", i, n, err)
		}
	}
}

func FuzzParseFlow(f *testing.F) {
	for line := range strings.Lines(flows) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		source, target, answered := parseFlow(line)
		if answered && (!source.IsValid() || !target.IsValid()) {
			t.Errorf("%q: %s %s", line, source, target)
		}
	})
}

func TestForwarding(t *testing.T) {
	root := t.TempDir()
	set := func(family, name, value string) {
		dir := filepath.Join(root, "proc/sys/net", family, "conf", name)
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "forwarding"), []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set("ipv4", "br-lan", "1")
	set("ipv4", "wan", "0")
	set("ipv6", "all", "2")
	if on := forwarding(root, "ipv4", "br-lan", "wan"); on == nil || *on {
		t.Errorf("one of two is off: %v", on)
	}
	if on := forwarding(root, "ipv4", "br-lan", "gone"); on == nil || !*on {
		t.Errorf("one is on, the other is not there: %v", on)
	}
	if on := forwarding(root, "ipv6", "all"); on == nil || !*on {
		t.Errorf("IPv6: %v", on)
	}
	if on := forwarding(root, "ipv6", "gone"); on != nil {
		t.Errorf("nothing is there: %v", *on)
	}
}

func TestUntracked(t *testing.T) {
	root := t.TempDir()
	if untracked(root) {
		t.Error("what cannot be read is not nothing")
	}
	dir := filepath.Join(root, "proc/sys/net/netfilter")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"0\n": true, "1\n": false, "10\n": false, "": false} {
		if err := os.WriteFile(filepath.Join(dir, "nf_conntrack_count"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := untracked(root); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}

func TestBehind(t *testing.T) {
	up := net.FlagUp
	for _, tt := range []struct {
		name, wan, port string
		flags           net.Flags
		want            bool
	}{
		{"br-lan", "pppoe-wan", "eth0", up, true},
		{"br-lan", "eth0.41", "", up, true},
		{"br-lan", "eth0.41", "", 0, false},
		{"eth0.46", "eth0.41", "", up, false},
		{"eth0", "pppoe-wan", "eth0", up, false},
		{"pppoe-wan", "pppoe-wan", "eth0", up, false},
		{"tun0", "eth0.41", "", up | net.FlagPointToPoint, false},
		{"lo", "eth0", "", up | net.FlagLoopback, false},
	} {
		if got := behind(net.Interface{Name: tt.name, Flags: tt.flags}, tt.wan, tt.port); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
	}
}

func TestServersOfTheRoutedInternet(t *testing.T) {
	c := config.Default()
	c.WAN.CheckURL, c.Throughput.URL, c.Throughput.SecondURL = "http://check.example.net/x", "https://speed.example.net/1g", "http://check.example.net/y"
	got := (&sources{}).servers(c)
	if len(got) != 2 || got[0].Host != "check.example.net" || got[0].Port != 80 || got[1].Port != 443 || got[1].Resolve == nil {
		t.Errorf("%+v", got)
	}
}

// TestLadderJudgesTheAccountWhereItCan: without an extract, and where nobody
// asks, the rung could only be inconclusive.
func TestLadderJudgesTheAccountWhereItCan(t *testing.T) {
	c := config.Default()
	s, err := openSources(c, newLogger(t.Output(), "error"))
	if err != nil {
		t.Fatal(err)
	}
	internet := []order.Service{{Kind: "internet"}}
	for _, tt := range []struct {
		name            string
		visit           agent.Visit
		account, routed bool
	}{
		{"an installation", agent.Visit{Order: order.Order{Type: order.Install, Services: internet}}, true, false},
		{"a repair", agent.Visit{Order: order.Order{Type: order.Repair, Services: internet}}, false, false},
		{"a repair with an extract", agent.Visit{Order: order.Order{Type: order.Repair, Services: internet}, Extract: &order.Extract{}}, true, false},
		{"by name", agent.Visit{Order: order.Order{Type: order.Repair, Require: []string{"account", "routed_internet"}}}, true, true},
		{"television alone", agent.Visit{Order: order.Order{Type: order.Install, Services: []order.Service{{Kind: "iptv"}}}}, false, false},
		{"a look", agent.Visit{Order: order.Order{Type: order.Inspect}}, false, false},
	} {
		tt.visit.Limits = acceptance.Norms()
		built := map[acceptance.Rung]bool{}
		for _, step := range s.ladder(c, untold)(tt.visit) {
			built[step.Rung()] = true
		}
		if built[acceptance.Account] != tt.account || built[acceptance.RoutedInternet] != tt.routed {
			t.Errorf("%s: built %v", tt.name, built)
		}
	}
}

func TestRefusalsAreAnOrdersOwn(t *testing.T) {
	b := &refusalBook{}
	first := b.of("WO-1/1")
	if b.of("WO-1/1") != first || b.of("WO-1/2") == first {
		t.Error("mixed up")
	}
	for i := range 10 * maxRefusalOrders {
		b.of(strings.Repeat("x", i+1))
	}
	if len(b.books) > maxRefusalOrders || b.of("WO-1/1") == first {
		t.Errorf("%d orders are remembered", len(b.books))
	}
}
