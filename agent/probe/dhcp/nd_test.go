package dhcp_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/probe/dhcp"
)

// advert is an advertisement with prefix, MTU, RDNSS and the router's MAC.
func advert() []byte {
	b := []byte{134, 0, 0, 0, 64, 0xc8, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}
	b = append(b, 1, 1, 2, 0, 0, 0, 0, 1)
	b = append(b, 5, 1, 0, 0, 0, 0, 0x05, 0xd4)
	b = append(b, 3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x07, 0x08, 0, 0, 0, 0)
	b = append(b, netip.MustParseAddr("2001:db8::").AsSlice()...)
	b = append(b, 25, 5, 0, 0, 0, 0, 0, 60)
	b = append(b, netip.MustParseAddr("2001:db8::53").AsSlice()...)
	b = append(b, netip.MustParseAddr("2001:db8::54").AsSlice()...)
	return append(b, 200, 1, 1, 2, 3, 4, 5, 6) // unknown
}

func TestParseRA(t *testing.T) {
	got, err := dhcp.ParseRA(icmp(0, advert()))
	if err != nil {
		t.Fatal(err)
	}
	want := dhcp.RA{
		From: server6, Managed: true, Other: true, Preference: "high", HopLimit: 64, LifetimeS: 1800, MTU: 1492,
		Prefixes: []dhcp.RAPrefix{{dhcp.Prefix6{netip.MustParsePrefix("2001:db8::/64"), 1800, 3600}, true, true}},
		RDNSS:    []netip.Addr{netip.MustParseAddr("2001:db8::53"), netip.MustParseAddr("2001:db8::54")},
	}
	same := cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	text, err := json.Marshal(got.Prefixes)
	if err != nil || string(text) != `[{"prefix":"2001:db8::/64","preferred_s":1800,"valid_s":3600,"on_link":true,"autonomous":true}]` {
		t.Errorf("%s, %v", text, err)
	}
}

func TestParseRARefused(t *testing.T) {
	whole := advert()
	routed := dhcp.Packet(serverMAC, clientMAC, 0, server6, client6, 254, 0, 0, whole)
	global := dhcp.Packet(serverMAC, clientMAC, 0, netip.MustParseAddr("2001:db8::1"), client6, 255, 0, 0, whole)
	endless := append(bytes.Clone(whole), 1, 0, 0, 0, 0, 0, 0, 0)
	for name, p := range map[string]*dhcp.Datagram{"routed": routed, "not of this link": global, "option without length": icmp(0, endless)} {
		if ra, err := dhcp.ParseRA(p); !errors.Is(err, dhcp.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, ra, err)
		}
	}
	ends := map[int]bool{16: true, 24: true, 32: true, 64: true, 104: true}
	for n := range whole {
		if ra, err := dhcp.ParseRA(icmp(0, whole[:n:n])); (err == nil) != ends[n] {
			t.Errorf("%d bytes: %+v, %v", n, ra, err)
		}
	}
}

func ask(target netip.Addr) []byte {
	return append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
}

func TestNeighbourTell(t *testing.T) {
	told := dhcp.NeighbourTell(icmp(0, ask(client6)), client6, clientMAC)
	want := append([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, client6.AsSlice()...)
	want = append(want, 2, 1)
	want = append(want, clientMAC[:]...)
	if !bytes.Equal(told, want) {
		t.Errorf("got %x, want %x", told, want)
	}
	for name, p := range map[string]*dhcp.Datagram{
		"for another":             icmp(0, ask(server6)),
		"is the address free":     dhcp.Packet(serverMAC, clientMAC, 0, netip.IPv6Unspecified(), client6, 255, 0, 0, ask(client6)),
		"from beyond this link":   dhcp.Packet(serverMAC, clientMAC, 0, server6, client6, 64, 0, 0, ask(client6)),
		"cut":                     icmp(0, ask(client6)[:20]),
		"an answer, not question": icmp(0, want),
	} {
		if told := dhcp.NeighbourTell(p, client6, clientMAC); told != nil {
			t.Errorf("%s: %x", name, told)
		}
	}
}

func FuzzRA(f *testing.F) {
	f.Add(advert(), uint8(255))
	f.Add(ask(client6), uint8(255))
	f.Fuzz(func(t *testing.T, b []byte, hops uint8) {
		p := dhcp.Packet(serverMAC, clientMAC, 0, server6, client6, hops, 0, 0, b)
		if told := dhcp.NeighbourTell(p, client6, clientMAC); told != nil && len(told) != 32 {
			t.Fatalf("%x", told)
		}
		ra, err := dhcp.ParseRA(p)
		if err != nil {
			return
		}
		if hops != 255 || len(ra.Prefixes) > 8 || len(ra.RDNSS) > 8 {
			t.Fatalf("%+v", ra)
		}
		if _, err := json.Marshal(ra); err != nil {
			t.Fatal(err)
		}
	})
}
