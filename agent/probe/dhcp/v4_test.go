package dhcp_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"ontagent/agent/probe/dhcp"
)

// reply makes what a server answers to a request, by the library.
func reply(tb testing.TB, request []byte, mods ...dhcpv4.Modifier) []byte {
	tb.Helper()
	m, err := dhcpv4.FromBytes(request)
	if err != nil {
		tb.Fatal(err)
	}
	answer, err := dhcpv4.NewReplyFromRequest(m, mods...)
	if err != nil {
		tb.Fatal(err)
	}
	return answer.ToBytes()
}

func discover(tb testing.TB) []byte {
	tb.Helper()
	m, err := dhcpv4.NewDiscovery(net.HardwareAddr(clientMAC[:]), dhcpv4.WithTransactionID(dhcpv4.TransactionID{1, 2, 3, 4}))
	if err != nil {
		tb.Fatal(err)
	}
	return m.ToBytes()
}

func fullOffer(tb testing.TB, request []byte, server byte) []byte {
	tb.Helper()
	return reply(tb, request,
		dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer),
		dhcpv4.WithYourIP(net.IP{10, 41, 0, 100 + server}),
		dhcpv4.WithServerIP(net.IP{10, 41, 0, 2}),
		dhcpv4.WithGatewayIP(net.IP{10, 41, 0, 3}),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{10, 41, 0, server})),
		dhcpv4.WithNetmask(net.IPv4Mask(255, 255, 255, 0)),
		dhcpv4.WithRouter(net.IP{10, 41, 0, 1}),
		dhcpv4.WithDNS(net.IP{10, 64, 0, 53}, net.IP{10, 64, 0, 54}),
		dhcpv4.WithLeaseTime(3600),
		dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(1800*time.Second)),
		dhcpv4.WithOption(dhcpv4.OptDomainName("isp.example")),
		dhcpv4.WithOption(dhcpv4.OptNTPServers(net.IP{10, 64, 0, 123})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x05, 0xd4})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{1, 3, 'a', 'c', 's'})),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("BRAS \x1b[1m9")),
		dhcpv4.WithOption(dhcpv4.OptMessage("welcome")),
	)
}

func TestParseOffer(t *testing.T) {
	got, err := dhcp.ParseOffer(fullOffer(t, discover(t), 1))
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr
	want := dhcp.Offer{
		Type: "offer", ServerID: addr("10.41.0.1"), Relay: addr("10.41.0.3"), NextServer: addr("10.41.0.2"), Address: addr("10.41.0.101"),
		PrefixLength: 24, Routers: []netip.Addr{addr("10.41.0.1")}, DNS: []netip.Addr{addr("10.64.0.53"), addr("10.64.0.54")},
		NTP: []netip.Addr{addr("10.64.0.123")}, Domain: "isp.example", MTU: 1492, LeaseS: 3600, RenewS: 1800,
		VendorClass: "BRAS \x1b[1m9", Message: "welcome", HasVendorInfo: true,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	text, err := json.Marshal(got)
	if err != nil || strings.Contains(string(text), "acs") || !strings.Contains(string(text), `"has_option_43":true`) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestParseOfferOverload(t *testing.T) {
	b := reply(t, discover(t), dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithYourIP(net.IP{10, 41, 0, 9}),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionOptionOverload, []byte{3})))
	copy(b[108:], []byte{54, 4, 10, 41, 0, 1, 255})          // in file
	copy(b[44:], []byte{6, 4, 10, 64, 0, 53, 56, 200, 1, 2}) // in sname, broken off
	got, err := dhcp.ParseOffer(b)
	if err != nil || got.ServerID != server4 || len(got.DNS) != 1 || got.Message != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseOfferMalformed(t *testing.T) {
	good := fullOffer(t, discover(t), 1)
	with := func(mods ...dhcpv4.Modifier) []byte { return reply(t, discover(t), mods...) }
	id := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{10, 41, 0, 1}))
	yours := dhcpv4.WithYourIP(net.IP{10, 41, 0, 9})
	offer := dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer)
	for name, b := range map[string][]byte{
		"empty":           nil,
		"no cookie":       append(bytes.Clone(good[:236]), make([]byte, 64)...),
		"no type":         with(id, yours),
		"two types":       with(id, yours, dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionDHCPMessageType, []byte{2, 2}))),
		"another type":    with(id, yours, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)),
		"no address":      with(id, offer),
		"no server":       with(yours, offer),
		"broadcast":       with(id, offer, dhcpv4.WithYourIP(net.IPv4bcast)),
		"multicast":       with(id, offer, dhcpv4.WithYourIP(net.IP{224, 0, 0, 1})),
		"option too long": append(bytes.Clone(good[:240]), 53, 1, 2, 51, 200, 1),
	} {
		if o, err := dhcp.ParseOffer(b); !errors.Is(err, dhcp.ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
	whole := bytes.IndexByte(good[240:], 255) + 240
	for n := range whole {
		if _, err := dhcp.ParseOffer(good[:n:n]); err == nil && n < 240 {
			t.Errorf("%d bytes are taken", n)
		}
	}
	// Odd values are left out, not made up.
	o, err := dhcp.ParseOffer(with(id, yours, offer,
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionSubnetMask, []byte{255, 0, 255, 0})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionDomainNameServer, []byte{1, 2, 3})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{5})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionIPAddressLeaseTime, []byte{1, 2, 3, 4, 5})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionMessage, bytes.Repeat([]byte("x"), 700)))))
	if err != nil || o.PrefixLength != 0 || o.DNS != nil || o.MTU != 0 || o.LeaseS != 0 || len(o.Message) != 255 {
		t.Errorf("%+v, %v", o, err)
	}
}

func FuzzOffer(f *testing.F) {
	f.Add(fullOffer(f, discover(f), 1))
	f.Add(reply(f, discover(f), dhcpv4.WithMessageType(dhcpv4.MessageTypeNak), dhcpv4.WithOption(dhcpv4.OptMessage("no"))))
	f.Add(discover(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := dhcp.Answer4(b, clientMAC, []uint32{0x01020304}); err == nil && len(b) < 8 {
			t.Fatal("an answer without an xid")
		}
		o, err := dhcp.ParseOffer(b)
		if err != nil {
			return
		}
		if len(o.Message) > 255 || len(o.VendorClass) > 255 || len(o.Domain) > 255 || len(o.DNS) > 8 || len(o.Routers) > 8 || len(o.NTP) > 8 {
			t.Fatalf("unbounded: %+v", o)
		}
		if o.Type == "offer" && (!o.Address.Is4() || !o.ServerID.Is4()) {
			t.Fatalf("%+v", o)
		}
		if _, err := json.Marshal(o); err != nil {
			t.Fatal(err)
		}
	})
}
