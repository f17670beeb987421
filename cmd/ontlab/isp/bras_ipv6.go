package isp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"ontagent/cmd/ontlab/netbox"
)

// startAdvertising starts a dnsmasq that advertises a router in all sessions: it
// takes any PPP interface that gets a prefix.
func (b *BRAS) startAdvertising(ctx context.Context) (*netbox.Process, error) {
	return startDnsmasq(ctx, b.host, b.options.Name+"-ra", dnsmasqConfig{iface: "ppp*", advertise: true, dns: b.options.DNS})
}

// startDelegating starts a Kea, which is told of each session.
func (b *BRAS) startDelegating(ctx context.Context) (*DHCP6, error) {
	return startDHCP6(ctx, b.host, dhcp6Config{name: b.options.Name + "-dhcp6", dns: b.options.DNS})
}

// sessionIPv6 gives a session its prefixes.
//
// pppd gives the interface a link-local address with a peer, and Kea, which
// looks at the wrong one of the two, can't listen on that; so it is given
// again, without.
func (b *BRAS) sessionIPv6(ctx context.Context, s BRASSession, linkLocal string) error {
	if b.rejectsIP() {
		return nil
	}
	unit, err := strconv.Atoi(strings.TrimPrefix(s.Interface, "ppp"))
	if err != nil {
		return fmt.Errorf("cannot number session on %s: %w", s.Interface, err)
	}
	link := subPrefix(b.options.IPv6.Links, 64, unit)
	router := netip.PrefixFrom(link.Addr().Next(), 64)
	if _, err := b.sh(ctx, `
ip -6 address del "$2" peer "$3" dev "$1"
ip -6 address add "$2/64" dev "$1" nodad
ip -6 address add "$4" dev "$1" nodad`, s.Interface, linkLocal, s.PeerLinkLocal.String(), router.String()); err != nil {
		if !isPPPD(s.PID) {
			return nil // its end came in between
		}
		return fmt.Errorf("cannot set addresses of session on %s: %w", s.Interface, err)
	}
	links := []dhcp6Link{}
	for _, other := range b.Sessions() {
		n, err := strconv.Atoi(strings.TrimPrefix(other.Interface, "ppp"))
		if err != nil || !other.PeerLinkLocal.IsValid() {
			continue
		}
		v6 := b.options.IPv6
		links = append(links, dhcp6Link{
			id: n + 1, iface: other.Interface, link: subPrefix(v6.Links, 64, n),
			delegated:     subPrefix(v6.Delegated, max(v6.Delegated.Bits(), v6.DelegatedBits-4), n),
			delegatedBits: v6.DelegatedBits,
		})
	}
	slices.SortFunc(links, func(x, y dhcp6Link) int { return x.id - y.id })
	if err := b.dhcp6.setLinks(ctx, links); err != nil && isPPPD(s.PID) {
		return fmt.Errorf("cannot offer prefixes on %s: %w", s.Interface, err)
	}
	return nil
}

// subPrefix is the nth prefix of a length in a larger one; behind the last the
// first comes again.
func subPrefix(in netip.Prefix, bits, n int) netip.Prefix {
	a := in.Masked().Addr().As16()
	if room := bits - in.Bits(); room < 31 {
		n %= 1 << room
	}
	for bit := bits - 1; n > 0 && bit >= in.Bits(); bit-- {
		if n&1 != 0 {
			a[bit/8] |= 0x80 >> (bit % 8)
		}
		n >>= 1
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), bits)
}
