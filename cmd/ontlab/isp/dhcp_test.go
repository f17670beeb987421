package isp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// ethernet is two hosts and a cable.
func ethernet(t *testing.T) (server, client *netbox.Host) {
	t.Helper()
	b := newBox(t)
	server, client = newHost(t, b, "bras"), newHost(t, b, "home")
	must(t, b.Cable(server, "w0", client, "wan0", netbox.CableOptions{}))
	return server, client
}

// soon waits until something is so.
func soon(ctx context.Context, t *testing.T, what string, ok func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s: %v", what, err)
		}
	}
}

// udhcpc asks for an address, with n requests at intervals of a second, and
// returns what it was told, by the names of udhcpc's scripts.
func udhcpc(ctx context.Context, t *testing.T, h *netbox.Host, n int) (map[string]string, error) {
	t.Helper()
	must(t, h.WriteFile("udhcpc.sh", []byte("#!/bin/sh\n[ \"$1\" != bound ] || env >\"${0%/*}/udhcpc.env\"\n"), 0o700))
	must(t, h.WriteFile("udhcpc.env", nil, 0o600))
	out, err := h.Run(ctx, "/bin/busybox", "udhcpc", "-f", "-q", "-n", "-t", fmt.Sprint(n), "-T", "1", "-i", "wan0", "-x", "hostname:ont", "-s", h.Dir()+"/udhcpc.sh",
		"-O", "mtu", "-O", "dns", "-O", "router", "-O", "domain", "-O", "lease")
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	text, err := h.Run(ctx, "/bin/cat", h.Dir()+"/udhcpc.env")
	must(t, err)
	told := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		told[name] = value
	}
	return told, nil
}

func TestDHCPGivesAddresses(t *testing.T) {
	needPrograms(t, "/usr/sbin/dnsmasq", "/bin/busybox")
	ctx := bounded(t)
	server, client := ethernet(t)
	must(t, server.Address("w0", "10.41.0.1/24"))
	d, err := StartDHCP(ctx, server, DHCPOptions{
		Interface: "w0", First: netip.MustParseAddr("10.41.0.10"), Last: netip.MustParseAddr("10.41.0.11"), Router: netip.MustParseAddr("10.41.0.2"),
		DNS: []netip.Addr{netip.MustParseAddr("10.64.0.53"), netip.MustParseAddr("10.64.0.54")}, Lease: 10 * time.Minute, MTU: 1480, Domain: "isp.example",
	})
	must(t, err)
	if l, err := d.Leases(); err != nil || len(l) != 0 {
		t.Errorf("leases at first: %v %v", l, err)
	}
	told, err := udhcpc(ctx, t, client, 3)
	must(t, err)
	for name, want := range map[string]string{
		"router": "10.41.0.2", "dns": "10.64.0.53 10.64.0.54", "lease": "600", "mtu": "1480", "domain": "isp.example", "serverid": "10.41.0.1", "mask": "24",
	} {
		if told[name] != want {
			t.Errorf("told %s %q, want %q", name, told[name], want)
		}
	}
	leases, err := d.Leases()
	must(t, err)
	if len(leases) != 1 || leases[0].IP.String() != told["ip"] || leases[0].Name != "ont" || time.Until(leases[0].Expires) < 9*time.Minute {
		t.Errorf("leases: %+v; told %s", leases, told["ip"])
	}

	must(t, d.Silence(ctx, true))
	if told, err := udhcpc(ctx, t, client, 1); err == nil {
		t.Errorf("a silent server says %v", told)
	}
	must(t, d.Silence(ctx, false))
	again, err := udhcpc(ctx, t, client, 3)
	must(t, err)
	if again["ip"] != told["ip"] {
		t.Errorf("after a break the client has %s, before %s", again["ip"], told["ip"])
	}

	must(t, d.NoAddress(ctx, true))
	must(t, client.MAC("wan0", "02:00:00:00:00:99")) // who has a lease would keep it
	if told, err := udhcpc(ctx, t, client, 1); err == nil {
		t.Errorf("a server without addresses says %v", told)
	}
	must(t, d.NoAddress(ctx, false))
	_, err = udhcpc(ctx, t, client, 3)
	must(t, err)

	must(t, d.Stop(), d.Stop())
	if told, err := udhcpc(ctx, t, client, 1); err == nil {
		t.Errorf("a stopped server says %v", told)
	}
}

func TestDHCPSecondServer(t *testing.T) {
	needPrograms(t, "/usr/sbin/dnsmasq", "/bin/busybox")
	ctx := bounded(t)
	b := newBox(t)
	olt, bras, rogue, home := newHost(t, b, "olt"), newHost(t, b, "bras"), newHost(t, b, "rogue"), newHost(t, b, "home")
	for i, h := range []*netbox.Host{bras, rogue, home} {
		must(t, b.Cable(olt, fmt.Sprint("p", i), h, "wan0", netbox.CableOptions{}))
	}
	must(t, olt.Bridge("br0", netbox.BridgeOptions{}, "p0", "p1", "p2"), olt.Up("br0"))
	servers := make(map[string]*DHCP)
	for h, net := range map[*netbox.Host]string{bras: "10.41.0.", rogue: "192.168.1."} {
		must(t, h.Address("wan0", net+"1/24"))
		d, err := StartDHCP(ctx, h, DHCPOptions{Interface: "wan0", First: netip.MustParseAddr(net + "10"), Last: netip.MustParseAddr(net + "19")})
		must(t, err)
		servers[net+"1"] = d
	}
	for id, other := range map[string]string{"10.41.0.1": "192.168.1.1", "192.168.1.1": "10.41.0.1"} {
		must(t, servers[other].Silence(ctx, true))
		told, err := udhcpc(ctx, t, home, 3)
		must(t, err)
		if told["serverid"] != id {
			t.Errorf("served by %s, not %s", told["serverid"], id)
		}
		must(t, servers[other].Silence(ctx, false))
	}
}

func TestDHCPRefusesBadRanges(t *testing.T) {
	for _, o := range []DHCPOptions{
		{},
		{First: netip.MustParseAddr("10.0.0.2"), Last: netip.MustParseAddr("10.0.0.1")},
		{First: netip.MustParseAddr("10.0.0.2")},
		{First: netip.MustParseAddr("2001:db8::1"), Last: netip.MustParseAddr("2001:db8::2")},
	} {
		if _, err := StartDHCP(t.Context(), nil, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestDHCPLeaseFile(t *testing.T) {
	got := parseLeases("1795330526 02:00:00:00:00:01 10.41.0.10 ont 01:02:00:00:00:00:01\n" +
		"1795330527 02:00:00:00:00:02 10.41.0.11 * *\nduid 00:01\n1795330527 1 2001:db8::1 * 00\nx 02:00:00:00:00:02 10.41.0.11 *\n\n1 2\n")
	if len(got) != 2 || got[0].Name != "ont" || got[1].Name != "" || got[1].IP.String() != "10.41.0.11" || got[0].Expires.Unix() != 1795330526 {
		t.Errorf("%+v", got)
	}
}

func FuzzDHCPLeaseFile(f *testing.F) {
	f.Add("1795330526 02:00:00:00:00:01 10.41.0.10 ont 01:02:00:00:00:00:01\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, l := range parseLeases(text) {
			if !l.IP.Is4() || len(l.MAC) == 0 {
				t.Errorf("%+v", l)
			}
		}
	})
}

func FuzzDHCP6Delegations(f *testing.F) {
	f.Add("2001:db8::/60 fe80::1 ppp0\n2001:db8::/60 fe80::2 ppp1\n")
	f.Fuzz(func(t *testing.T, text string) {
		seen := make(map[netip.Prefix]bool)
		for _, d := range parseDelegations(text) {
			if seen[d.Prefix] {
				t.Errorf("%v twice", d.Prefix)
			}
			seen[d.Prefix] = true
		}
	})
}

// dhcpcdConf makes dhcpcd ask for a prefix, and for an address. It writes what
// it got to the working directory's dhcpcd.env.
const dhcpcdConf = `duid
ipv6only
noipv6rs
persistent
option dhcp6_name_servers
script %s/dhcpcd.sh
interface %s
iaid 1
ia_na 1
ia_pd 2
`

// dhcpcd asks for a prefix for as long as ctx allows, and returns what it was
// told by the names of dhcpcd's scripts.
func dhcpcd(ctx context.Context, t *testing.T, h *netbox.Host, ifname string) (map[string]string, error) {
	t.Helper()
	must(t, h.WriteFile("dhcpcd.sh", []byte("#!/bin/sh\ncase $reason in BOUND6|REBIND6|RENEW6|REBOOT6) env >'"+h.Dir()+"/dhcpcd.env' ;; esac\n"), 0o700))
	must(t, h.WriteFile("dhcpcd.conf", fmt.Appendf(nil, dhcpcdConf, h.Dir(), ifname), 0o600))
	must(t, h.WriteFile("dhcpcd.env", nil, 0o600))
	p, err := h.Start(ctx, netbox.Service{Name: "dhcpcd", Path: "/usr/sbin/dhcpcd", Args: []string{"-6", "-B", "-d", "-f", h.Dir() + "/dhcpcd.conf", ifname}})
	must(t, err)
	defer func() { must(t, p.Stop()) }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := h.Run(ctx, "/bin/cat", h.Dir()+"/dhcpcd.env")
		if err == nil && strings.Contains(string(text), "new_dhcp6_ia_pd1_prefix1=") {
			told := make(map[string]string)
			for line := range strings.Lines(string(text)) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				told[name] = value
			}
			return told, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w\n%s", ctx.Err(), p.Log())
		case <-p.Done():
			return nil, fmt.Errorf("dhcpcd ended: %w\n%s", p.Err(), p.Log())
		}
	}
}

func TestDHCP6DelegatesPrefixes(t *testing.T) {
	needPrograms(t, "/usr/sbin/kea-dhcp6", "/usr/sbin/dnsmasq", "/usr/sbin/dhcpcd")
	ctx := bounded(t)
	server, client := ethernet(t)
	must(t, server.Forward(true), server.Address("w0", "2001:db8:41::1/64"), server.Address("w0", "10.41.0.1/24"))
	a, err := StartDHCP(ctx, server, DHCPOptions{
		Interface: "w0", First: netip.MustParseAddr("10.41.0.10"), Last: netip.MustParseAddr("10.41.0.19"), Advertise: true,
		DNS: []netip.Addr{netip.MustParseAddr("2001:db8:53::53")},
	})
	must(t, err)
	d, err := StartDHCP6(ctx, server, DHCP6Options{
		Interface: "w0", Link: netip.MustParsePrefix("2001:db8:41::/64"), Addresses: true, Delegated: netip.MustParsePrefix("2001:db8:1000::/48"),
		DelegatedBits: 56, DNS: []netip.Addr{netip.MustParseAddr("2001:db8:53::53")}, Lifetime: 2 * time.Hour,
	})
	must(t, err)
	told, err := dhcpcd(ctx, t, client, "wan0")
	must(t, err)
	for name, want := range map[string]string{
		"new_dhcp6_ia_pd1_prefix1_length": "56", "new_dhcp6_ia_pd1_prefix1_vltime": "7200", "new_dhcp6_name_servers": "2001:db8:53::53",
	} {
		if told[name] != want {
			t.Errorf("told %s %q, want %q", name, told[name], want)
		}
	}
	given, err := netip.ParsePrefix(told["new_dhcp6_ia_pd1_prefix1"] + "/56")
	must(t, err)
	if !netip.MustParsePrefix("2001:db8:1000::/48").Contains(given.Addr()) {
		t.Errorf("%v was delegated", given)
	}

	// The prefix is routed, so whoever is behind the client is reached.
	soon(ctx, t, "delegation is known", func() error {
		all, err := d.Delegations()
		if err == nil && (len(all) != 1 || all[0].Prefix != given || all[0].Interface != "w0") {
			err = fmt.Errorf("%+v", all)
		}
		return err
	})
	must(t, client.Address("lo", given.Addr().Next().String()+"/128"), client.Sysctl("net.ipv6.conf.all.forwarding", "1"), client.Address("wan0", "2001:db8:41::99/64"))
	soon(ctx, t, "delegated prefix is reached", func() error {
		_, err := server.Run(ctx, "/bin/ping", "-6", "-c", "1", "-W", "1", given.Addr().Next().String())
		return err
	})

	// The router is advertised, too.
	soon(ctx, t, "router advertisement", func() error {
		log, err := server.Run(ctx, "/bin/cat", server.Dir()+"/dhcp.log")
		if err == nil && !strings.Contains(string(log), "RTR-ADVERT(w0) 2001:db8:41::") {
			err = errors.New(string(log))
		}
		return err
	})

	short := func() context.Context {
		c, cancel := context.WithTimeout(ctx, 3*time.Second)
		t.Cleanup(cancel)
		return c
	}
	forget := func() {
		_, err := client.Run(ctx, "/bin/sh", "-c", "rm -rf /var/lib/dhcpcd/*")
		must(t, err)
	}
	forget()
	must(t, d.Silence(ctx, true))
	if told, err := dhcpcd(short(), t, client, "wan0"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server: %v %v", told, err)
	}
	must(t, d.Silence(ctx, false), d.NoPrefix(ctx, true))
	forget()
	if told, err := dhcpcd(short(), t, client, "wan0"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no prefixes could be allocated") {
		t.Errorf("a server without prefixes: %v %v", told, err)
	}
	must(t, d.NoPrefix(ctx, false))
	forget()
	_, err = dhcpcd(ctx, t, client, "wan0")
	must(t, err)
	must(t, d.Stop(), a.Stop())
}

func TestDHCP6RefusesBadPrefixes(t *testing.T) {
	link := netip.MustParsePrefix("2001:db8::/64")
	for _, o := range []DHCP6Options{
		{Link: link, Delegated: netip.MustParsePrefix("2001:db8::/48")},
		{Interface: "w0", Delegated: netip.MustParsePrefix("2001:db8::/48")},
		{Interface: "w0", Link: netip.MustParsePrefix("10.0.0.0/8"), Delegated: netip.MustParsePrefix("2001:db8::/48")},
		{Interface: "w0", Link: link},
		{Interface: "w0", Link: link, Delegated: netip.MustParsePrefix("2001:db8::/61")},
		{Interface: "w0", Link: link, Delegated: netip.MustParsePrefix("2001:db8::/48"), DelegatedBits: 65},
	} {
		if _, err := StartDHCP6(t.Context(), nil, o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestDHCP6PrefixesOfSessions(t *testing.T) {
	for _, test := range []struct {
		in      string
		bits, n int
		want    string
	}{
		{"2001:db8:41::/48", 64, 0, "2001:db8:41::/64"},
		{"2001:db8:41::/48", 64, 1, "2001:db8:41:1::/64"},
		{"2001:db8:41::/48", 64, 0x1234, "2001:db8:41:1234::/64"},
		{"2001:db8:41::/48", 64, 0x11234, "2001:db8:41:1234::/64"},
		{"2001:db8:1000::/40", 56, 3, "2001:db8:1000:300::/56"},
		{"2001:db8:1000::/56", 56, 3, "2001:db8:1000::/56"},
		{"::/0", 64, 5, "0:0:0:5::/64"},
	} {
		if got := subPrefix(netip.MustParsePrefix(test.in), test.bits, test.n); got.String() != test.want {
			t.Errorf("prefix %d of %s: %v, want %s", test.n, test.in, got, test.want)
		}
	}
}
