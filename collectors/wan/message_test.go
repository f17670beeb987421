package wan_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"ontagent/collectors/wan"
)

// exact compares addresses and prefixes by value.
func exact() cmp.Option { return cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}) }

func capture(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "linux-6.18-amd64-"+name+".bin"))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// order is a byte order that can be written in as well.
type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// orders are the byte orders there are, by their name.
func orders() map[string]order {
	return map[string]order{"LittleEndian": binary.LittleEndian, "BigEndian": binary.BigEndian}
}

// attribute encodes one.
func attribute(o order, kind uint16, value []byte) []byte {
	b := o.AppendUint16(nil, uint16(4+len(value)))
	b = append(o.AppendUint16(b, kind), value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

func attribute32(o order, kind uint16, n uint32) []byte {
	return attribute(o, kind, o.AppendUint32(nil, n))
}

func attributeAddr(o order, kind uint16, a string) []byte {
	return attribute(o, kind, netip.MustParseAddr(a).AsSlice())
}

// linkBody encodes an interface.
func linkBody(o order, index int32, name string, flags uint32) []byte {
	b := []byte{unix.AF_UNSPEC, 0}
	b = o.AppendUint16(b, unix.ARPHRD_ETHER)
	b = o.AppendUint32(b, uint32(index))
	b = o.AppendUint32(b, flags)
	b = o.AppendUint32(b, 0)
	b = append(b, attribute(o, unix.IFLA_IFNAME, []byte(name+"\x00"))...)
	return append(b, attribute32(o, unix.IFLA_MTU, 1492)...)
}

// addrBody encodes an address without attributes but those given.
func addrBody(o order, family, bits, flags, scope byte, index int32, attrs ...[]byte) []byte {
	b := o.AppendUint32([]byte{family, bits, flags, scope}, uint32(index))
	return append(b, bytes.Join(attrs, nil)...)
}

// routeBody encodes a route of the main table.
func routeBody(o order, family, dstBits, srcBits, kind byte, attrs ...[]byte) []byte {
	b := o.AppendUint32([]byte{family, dstBits, srcBits, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, 0, kind}, 0)
	return append(b, bytes.Join(attrs, nil)...)
}

func TestDecodeCapturedAddresses(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	tests := map[string]wan.Address{
		"addr-v4":      {Prefix: prefix("192.0.2.2/24"), Family: wan.IPv4, Scope: "global", ValidLft: wan.Forever, PreferredLft: wan.Forever, Permanent: true},
		"addr-v4-peer": {Prefix: prefix("10.64.1.2/32"), Peer: addr("10.64.0.1"), Family: wan.IPv4, Scope: "global", ValidLft: wan.Forever, PreferredLft: wan.Forever, Permanent: true},
		"addr-v6-lifetimes": {
			Prefix: prefix("2001:db8:1::2/64"), Family: wan.IPv6, Scope: "global", ValidLft: 3598 * time.Second, PreferredLft: 1798 * time.Second,
		},
		"addr-v6-link-local": {
			Prefix: prefix("fe80::ff:fe00:1/64"), Family: wan.IPv6, Scope: "link", ValidLft: wan.Forever, PreferredLft: wan.Forever, Permanent: true,
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := wan.DecodeAddress(binary.LittleEndian, capture(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got.Address, exact()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if !got.Usable() {
				t.Error("not usable")
			}
		})
	}
}

func TestDecodeCapturedRoutes(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	all4, all6 := prefix("0.0.0.0/0"), prefix("::/0")
	tests := map[string]wan.RouteFacts{
		"route-v4": {
			Route:  wan.Route{Gateway: addr("192.0.2.1"), Metric: 10, PreferredSource: addr("192.0.2.2"), Protocol: "static"},
			Family: wan.IPv4, Index: 3, Dst: all4, Default: true,
		},
		"route-v4-dev":       {Route: wan.Route{Metric: 20, Protocol: "boot"}, Family: wan.IPv4, Index: 3, Dst: all4, Default: true},
		"route-v4-via-v6":    {Route: wan.Route{Gateway: addr("fe80::1"), Metric: 30, Protocol: "boot"}, Family: wan.IPv4, Index: 3, Dst: all4, Default: true},
		"route-v4-multipath": {Route: wan.Route{Gateway: addr("192.0.2.5"), Metric: 40, Protocol: "boot"}, Family: wan.IPv4, Index: 3, Dst: all4, Default: true},
		"route-v6-source": {
			Route:  wan.Route{Gateway: addr("fe80::1"), Metric: 512, Source: prefix("2001:db8:1::/64"), Protocol: "static"},
			Family: wan.IPv6, Index: 3, Dst: all6, Default: true,
		},
		"route-v6-ra": {
			Route:  wan.Route{Gateway: addr("fe80::2"), Metric: 512, Protocol: "ra"},
			Family: wan.IPv6, Index: 3, Dst: all6, Preference: 1, Default: true,
		},
		"route-v6-delegated": {
			Route:  wan.Route{Metric: 1<<31 - 1, Protocol: "static"},
			Family: wan.IPv6, Index: 1, Dst: prefix("2001:db8:100::/56"), Delegated: true,
		},
		"route-v6-unreachable-default": {
			Route: wan.Route{Metric: 1<<32 - 1, Protocol: "boot"}, Family: wan.IPv6, Index: 1, Dst: all6,
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := wan.DecodeRoute(binary.LittleEndian, capture(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got, exact()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	if got, err := wan.DecodeRoute(binary.LittleEndian, capture(t, "route-v4-local")); err != nil || got.Default || got.Delegated {
		t.Errorf("of the local table: %+v, %v", got, err)
	}
}

func TestDecodeInBothByteOrders(t *testing.T) {
	for name, o := range orders() {
		t.Run(name, func(t *testing.T) {
			index, _, err := wan.DecodeLink(o, linkBody(o, 300, "pppoe-wan", unix.IFF_UP))
			if err != nil || index != 300 {
				t.Errorf("link %d, %v", index, err)
			}
			a, err := wan.DecodeAddress(o, addrBody(o, unix.AF_INET6, 64, unix.IFA_F_TENTATIVE, unix.RT_SCOPE_SITE, 300,
				attributeAddr(o, unix.IFA_LOCAL, "2001:db8::1"), attributeAddr(o, unix.IFA_ADDRESS, "2001:db8::2"),
				attribute(o, unix.IFA_CACHEINFO, o.AppendUint32(o.AppendUint32(nil, 0), 60)),
				attribute32(o, unix.IFA_FLAGS, unix.IFA_F_DEPRECATED|unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC|unix.IFA_F_TEMPORARY)))
			want := wan.Address{
				Prefix: netip.MustParsePrefix("2001:db8::1/128"), Peer: netip.MustParseAddr("2001:db8::2"), Family: wan.IPv6,
				Scope: "site", ValidLft: time.Minute, Tentative: true, Optimistic: true, Deprecated: true, Temporary: true,
			}
			if d := cmp.Diff(want, a.Address, exact()); d != "" || err != nil || !a.Usable() {
				t.Errorf("%v, (-want +got):\n%s", err, d)
			}
			// The first of two next hops is dead.
			hop := func(flags byte, gateway string, index uint32) []byte {
				g := attributeAddr(o, unix.RTA_GATEWAY, gateway)
				b := append(o.AppendUint16(nil, uint16(8+len(g))), flags, 0)
				return append(o.AppendUint32(b, index), g...)
			}
			r, err := wan.DecodeRoute(o, routeBody(o, unix.AF_INET, 0, 0, unix.RTN_UNICAST,
				attribute(o, unix.RTA_MULTIPATH, append(hop(unix.RTNH_F_DEAD, "192.0.2.8", 8), hop(0, "192.0.2.9", 9)...)),
				attribute32(o, unix.RTA_PRIORITY, 1<<31)))
			if err != nil || !r.Default || r.Index != 9 || r.Gateway != netip.MustParseAddr("192.0.2.9") || r.Metric != 1<<31 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	o := binary.LittleEndian
	ip4 := attributeAddr(o, unix.IFA_LOCAL, "192.0.2.1")
	tests := []struct {
		name string
		link []byte
		addr []byte
		rt   []byte
	}{
		{name: "Short", link: make([]byte, 15), addr: make([]byte, 7), rt: make([]byte, 11)},
		{name: "Empty", link: []byte{}, addr: []byte{}, rt: []byte{}},
		{name: "OtherFamily", link: append([]byte{unix.AF_BRIDGE}, make([]byte, 15)...), addr: addrBody(o, unix.AF_UNSPEC, 0, 0, 0, 1), rt: routeBody(o, 128, 0, 0, 1)},
		{name: "NoName", link: make([]byte, 16)},
		{name: "NoAddress", addr: addrBody(o, unix.AF_INET, 24, 0, 0, 1)},
		{name: "NoIndex", addr: addrBody(o, unix.AF_INET, 24, 0, 0, 0, ip4)},
		{name: "LongPrefix", addr: addrBody(o, unix.AF_INET, 33, 0, 0, 1, ip4), rt: routeBody(o, unix.AF_INET, 33, 0, 1)},
		{name: "LongSource", rt: routeBody(o, unix.AF_INET6, 0, 129, 1)},
		{
			name: "WrongFamilyInside", addr: addrBody(o, unix.AF_INET, 24, 0, 0, 1, attributeAddr(o, unix.IFA_LOCAL, "2001:db8::1")),
			rt: routeBody(o, unix.AF_INET6, 0, 0, 1, attributeAddr(o, unix.RTA_GATEWAY, "192.0.2.1")),
		},
		{name: "ShortLifetimes", addr: addrBody(o, unix.AF_INET, 24, 0, 0, 1, ip4, attribute(o, unix.IFA_CACHEINFO, make([]byte, 7)))},
		{name: "ShortFlags", addr: addrBody(o, unix.AF_INET, 24, 0, 0, 1, ip4, attribute(o, unix.IFA_FLAGS, nil))},
		{name: "ShortMetric", rt: routeBody(o, unix.AF_INET, 0, 0, 1, attribute(o, unix.RTA_PRIORITY, nil))},
		{name: "ShortVia", rt: routeBody(o, unix.AF_INET, 0, 0, 1, attribute(o, unix.RTA_VIA, []byte{1}))},
		{name: "OddVia", rt: routeBody(o, unix.AF_INET, 0, 0, 1, attribute(o, unix.RTA_VIA, make([]byte, 9)))},
		{name: "ShortHop", rt: routeBody(o, unix.AF_INET, 0, 0, 1, attribute(o, unix.RTA_MULTIPATH, make([]byte, 7)))},
		{name: "LongHop", rt: routeBody(o, unix.AF_INET, 0, 0, 1, attribute(o, unix.RTA_MULTIPATH, append([]byte{99}, make([]byte, 7)...)))},
		{name: "AttributeBeyondEnd", addr: addrBody(o, unix.AF_INET, 24, 0, 0, 1, ip4, []byte{200, 0, 1, 0}), rt: routeBody(o, unix.AF_INET, 0, 0, 1, []byte{200, 0, 1, 0})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.link != nil {
				if i, _, err := wan.DecodeLink(o, tt.link); err == nil {
					t.Errorf("link accepted: %d", i)
				}
			}
			if tt.addr != nil {
				if a, err := wan.DecodeAddress(o, tt.addr); err == nil {
					t.Errorf("address accepted: %+v", a)
				}
			}
			if tt.rt != nil {
				if r, err := wan.DecodeRoute(o, tt.rt); err == nil {
					t.Errorf("route accepted: %+v", r)
				}
			}
		})
	}
	if _, err := wan.DecodeRoute(o, routeBody(o, 128, 0, 0, 1)); !errors.Is(err, wan.ErrOther) {
		t.Errorf("a route of another family is no error to speak of: %v", err)
	}
}

func TestDelegatedIsAGuessWithLimits(t *testing.T) {
	o := binary.LittleEndian
	for dst, want := range map[string]bool{
		"2001:db8:100::/56": true, "2001:db8::/32": true, "2001:db8::/64": true,
		"fd00:1234::/48": false, "fe80::/64": false, "::/0": false, "2001:db8::1/128": false,
	} {
		p := netip.MustParsePrefix(dst)
		r, err := wan.DecodeRoute(o, routeBody(o, unix.AF_INET6, byte(p.Bits()), 0, unix.RTN_UNREACHABLE, attributeAddr(o, unix.RTA_DST, p.Addr().String())))
		if err != nil || r.Delegated != want {
			t.Errorf("%s: %v, %v", dst, r.Delegated, err)
		}
	}
}

func TestDecodeTruncatedAnywhere(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bin")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		whole, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for n := range whole {
			_, r, _, err := decodeAll(binary.LittleEndian, bytes.Clone(whole[:n]))
			if err == nil && !r.Dst.IsValid() {
				t.Errorf("%s cut at %d: %+v", f, n, r)
			}
		}
	}
}

func decodeAll(o order, b []byte) (a wan.Address, r wan.RouteFacts, errA, errR error) {
	_, _, _ = wan.DecodeLink(o, b)
	full, errA := wan.DecodeAddress(o, b)
	r, errR = wan.DecodeRoute(o, b)
	return full.Address, r, errA, errR
}

func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.bin")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, o := range orders() {
			a, r, errA, errR := decodeAll(o, b)
			if errA == nil && (!a.Prefix.IsValid() || a.ValidLft < 0 || a.Family == wan.IPv4 != a.Prefix.Addr().Is4()) {
				t.Errorf("address %+v", a)
			}
			if errR == nil && (!r.Dst.IsValid() || r.Default && r.Dst.Bits() != 0) {
				t.Errorf("route %+v", r)
			}
		}
	})
}

func TestParseResolvConf(t *testing.T) {
	tests := map[string]string{ // text: addresses
		"": "",
		"# Interface wan\nnameserver 192.0.2.53\nnameserver 192.0.2.54\n# Interface wan6\nnameserver 2001:db8::53\nsearch lan\n": "192.0.2.53 192.0.2.54 2001:db8::53",
		"nameserver fe80::1%pppoe-wan\n":                                                                               "fe80::1%pppoe-wan",
		"nameserver\t192.0.2.53   # the first\n":                                                                       "192.0.2.53",
		"nameserver 192.0.2.53\r\nnameserver ::1":                                                                      "192.0.2.53 ::1",
		"nameserver 192.0.2.53\nnameserver 192.0.2.53\n":                                                               "192.0.2.53",
		"#nameserver 192.0.2.53\n;nameserver 192.0.2.54\nnameservers 192.0.2.55\nnameserver\n":                         "",
		"nameserver 192.0.2.999\nnameserver dns.example\nnameserver 0.0.0.0\nnameserver ff02::1\nnameserver 192.0.2.1": "192.0.2.1",
		"\x00\xff\nnameserver \x00\n":                                                                                  "",
	}
	for text, want := range tests {
		var got []string
		for _, a := range wan.ParseResolvConf(text) {
			got = append(got, a.String())
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q gives %q, want %q", text, s, want)
		}
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("# Interface wan\nnameserver 192.0.2.53\nnameserver fe80::1%wan\nsearch lan\n")
	f.Fuzz(func(t *testing.T, text string) {
		seen := map[netip.Addr]bool{}
		for _, a := range wan.ParseResolvConf(text) {
			if !a.IsValid() || seen[a] {
				t.Errorf("%s of %q", a, text)
			}
			seen[a] = true
		}
	})
}
