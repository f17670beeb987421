package dhcp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"ontagent/agent/probe/dhcp"
)

// The codec here is held against the library's.

func duidLL(m dhcp.MAC) dhcpv6.DUID {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr(m[:])}
}

type iaStatus struct {
	code iana.StatusCode
	text string
}

func (s iaStatus) option() dhcpv6.Option {
	return &dhcpv6.OptStatusCode{StatusCode: s.code, StatusMessage: s.text}
}

// advertise answers a SOLICIT with an address and a prefix, or with statuses
// instead of them.
func advertise(tb testing.TB, solicit []byte, server dhcp.MAC, noAddress, noPrefix *iaStatus) []byte {
	tb.Helper()
	m, err := dhcpv6.MessageFromBytes(solicit)
	if err != nil {
		tb.Fatal(err)
	}
	a, err := dhcpv6.NewAdvertiseFromSolicit(m, dhcpv6.WithServerID(duidLL(server)), dhcpv6.WithDNS(net.ParseIP("2001:db8::53")))
	if err != nil {
		tb.Fatal(err)
	}
	a.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionPreference, OptionData: []byte{7}})
	if ask := m.Options.OneIANA(); ask != nil {
		ia := &dhcpv6.OptIANA{IaId: ask.IaId, T1: 1000 * time.Second, T2: 2000 * time.Second}
		if noAddress != nil {
			ia.Options.Add(noAddress.option())
		} else {
			ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("2001:db8::100"), PreferredLifetime: 3000 * time.Second, ValidLifetime: 4000 * time.Second})
		}
		a.AddOption(ia)
	}
	if ask := m.Options.OneIAPD(); ask != nil {
		ia := &dhcpv6.OptIAPD{IaId: ask.IaId}
		if noPrefix != nil {
			ia.Options.Add(noPrefix.option())
		} else {
			ia.Options.Add(&dhcpv6.OptIAPrefix{
				Prefix:            &net.IPNet{IP: net.ParseIP("2001:db8:1000::"), Mask: net.CIDRMask(56, 128)},
				PreferredLifetime: 5000 * time.Second, ValidLifetime: 6000 * time.Second,
			})
		}
		a.AddOption(ia)
	}
	return a.ToBytes()
}

func solicit(tb testing.TB) []byte {
	tb.Helper()
	m, err := dhcpv6.NewSolicit(net.HardwareAddr(clientMAC[:]), dhcpv6.WithClientID(duidLL(clientMAC)), dhcpv6.WithIAPD([4]byte{1, 2, 3, 4}))
	if err != nil {
		tb.Fatal(err)
	}
	return m.ToBytes()
}

func TestParseAdvertise(t *testing.T) {
	b := advertise(t, solicit(t), serverMAC, nil, nil)
	got, err := dhcp.ParseAdvertise(b, duidLL(clientMAC).ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	want := dhcp.Advertise{
		Type: "advertise", ServerDUID: hex.EncodeToString(duidLL(serverMAC).ToBytes()), Preference: 7,
		Addresses: []dhcp.Lease6{{netip.MustParseAddr("2001:db8::100"), 3000, 4000}},
		Prefixes:  []dhcp.Prefix6{{netip.MustParsePrefix("2001:db8:1000::/56"), 5000, 6000}},
		DNS:       []netip.Addr{netip.MustParseAddr("2001:db8::53")},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, err := dhcp.ParseAdvertise(b, duidLL(serverMAC).ToBytes()); !errors.Is(err, dhcp.ErrForeign) {
		t.Errorf("for another client: %v", err)
	}

	b = advertise(t, solicit(t), serverMAC, &iaStatus{iana.StatusNoAddrsAvail, "no \x07addresses"}, &iaStatus{iana.StatusNoPrefixAvail, ""})
	got, err = dhcp.ParseAdvertise(b, duidLL(clientMAC).ToBytes())
	if err != nil || got.Addresses != nil || got.Prefixes != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	if diff := cmp.Diff([]dhcp.Status6{{"ia_na", 2, "no \x07addresses"}, {"ia_pd", 6, ""}}, got.Statuses); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParseAdvertiseCut(t *testing.T) {
	b := advertise(t, solicit(t), serverMAC, nil, nil)
	duid := duidLL(clientMAC).ToBytes()
	for n := range b {
		a, err := dhcp.ParseAdvertise(b[:n:n], duid)
		// Cut between two options it is a shorter message; cut elsewhere it
		// isn't one.
		if _, theirs := dhcpv6.MessageFromBytes(b[:n:n]); err == nil && theirs != nil {
			t.Errorf("%d bytes: %+v", n, a)
		}
	}
	zero := bytes.Clone(b)
	at := bytes.Index(zero, netip.MustParseAddr("2001:db8::100").AsSlice()) + 16
	copy(zero[at:], make([]byte, 8)) // lifetimes of 0: taken back
	if a, err := dhcp.ParseAdvertise(zero, duid); err != nil || len(a.Addresses) != 0 || len(a.Prefixes) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

func FuzzAdvertise(f *testing.F) {
	f.Add(advertise(f, solicit(f), serverMAC, nil, nil))
	f.Add(advertise(f, solicit(f), serverMAC, &iaStatus{iana.StatusNoAddrsAvail, "none"}, &iaStatus{iana.StatusNoPrefixAvail, "none"}))
	duid := duidLL(clientMAC).ToBytes()
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := dhcp.Answer6(b, []uint32{1}); err == nil && len(b) < 4 {
			t.Fatal("an answer without an xid")
		}
		a, err := dhcp.ParseAdvertise(b, duid)
		if err != nil {
			return
		}
		if len(a.Addresses) > 8 || len(a.Prefixes) > 8 || len(a.Statuses) > 8 || len(a.DNS) > 8 || len(a.ServerDUID) > 260 {
			t.Fatalf("unbounded: %+v", a)
		}
		// What both can read they read alike.
		m, err := dhcpv6.MessageFromBytes(b)
		if err != nil {
			return
		}
		var addresses, prefixes int
		for _, ia := range m.Options.IANA() {
			for _, o := range ia.Options.Addresses() {
				if o.ValidLifetime > 0 && o.PreferredLifetime <= o.ValidLifetime {
					addresses++
				}
			}
		}
		for _, ia := range m.Options.IAPD() {
			for _, o := range ia.Options.Prefixes() {
				if o.ValidLifetime > 0 && o.PreferredLifetime <= o.ValidLifetime {
					prefixes++
				}
			}
		}
		if min(addresses, 8) != len(a.Addresses) || min(prefixes, 8) != len(a.Prefixes) {
			t.Fatalf("%x: %d addresses, %d prefixes; got %+v", b, addresses, prefixes, a)
		}
	})
}

// checkSolicit reads what is sent with the library.
func checkSolicit(t *testing.T, b []byte) {
	t.Helper()
	m, err := dhcpv6.MessageFromBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	na, pd := m.Options.OneIANA(), m.Options.OneIAPD()
	if m.MessageType != dhcpv6.MessageTypeSolicit || na == nil || pd == nil || m.GetOneOption(dhcpv6.OptionRapidCommit) != nil ||
		na.IaId != [4]byte{0, 0, 0, 0x41} || len(na.Options.Options) != 0 || m.Options.ElapsedTime() != 0 {
		t.Errorf("%s", m.Summary())
	}
	if id := m.Options.ClientID(); id == nil || !bytes.Equal(id.ToBytes(), []byte{255, 255, 1, 2, 3}) {
		t.Errorf("client id %v", id)
	}
	if !m.IsOptionRequested(dhcpv6.OptionDNSRecursiveNameServer) {
		t.Error("asks for no DNS servers")
	}
	if v := m.Options.VendorClass(0); len(v) != 1 || string(v[0]) != "udhcp" {
		t.Errorf("vendor class %q", v)
	}
}
