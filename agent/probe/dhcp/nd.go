package dhcp

import (
	"net/netip"
)

// The messages of neighbour discovery (RFC 4861 §4) and its options.
const (
	ndRouterSolicit = 133
	ndRouterAdvert  = 134
	ndNeighbourAsk  = 135
	ndNeighbourTell = 136

	ndOptSource = 1
	ndOptTarget = 2
	ndOptPrefix = 3
	ndOptMTU    = 5
	ndOptRDNSS  = 25 // RFC 8106

	// hopsND shows that a packet came from this very link: no router passed
	// it on.
	hopsND = 255
)

// RA is what one router advertised.
type RA struct {
	From    netip.Addr `json:"from"`
	FromMAC string     `json:"from_mac"`
	// Managed: addresses by DHCPv6. Other: the rest by DHCPv6.
	Managed bool `json:"managed"`
	Other   bool `json:"other"`
	// Preference is "high", "medium" or "low" (RFC 4191).
	Preference string `json:"preference"`
	HopLimit   uint8  `json:"hop_limit"`
	// LifetimeS is for how long this is a default router; 0: it is none.
	LifetimeS uint16       `json:"lifetime_s"`
	MTU       uint32       `json:"mtu,omitempty"`
	Prefixes  []RAPrefix   `json:"prefixes,omitempty"`
	RDNSS     []netip.Addr `json:"rdnss,omitempty"`
	// LatencyMs is from our last solicitation. A router also advertises on its
	// own, so this is at most how long it took.
	LatencyMs float64 `json:"latency_ms"`
}

// RAPrefix is a prefix on the link.
type RAPrefix struct {
	Prefix6
	OnLink     bool `json:"on_link"`
	Autonomous bool `json:"autonomous"`
}

// routerSolicit writes a solicitation that also tells routers our MAC, so that
// they need not ask for it.
func routerSolicit(hw mac) []byte {
	b := []byte{ndRouterSolicit, 0, 0, 0, 0, 0, 0, 0, ndOptSource, 1}
	return append(b, hw[:]...)
}

// neighbourTell answers the question for the MAC of self, or returns nil if p
// isn't that question. A host that makes sure that an address is free (it asks
// from "::") is let be.
func neighbourTell(p *datagram, self netip.Addr, hw mac) []byte {
	b := p.payload
	if p.hops != hopsND || len(b) < 24 || b[0] != ndNeighbourAsk || b[1] != 0 ||
		p.src.IsUnspecified() || address6(b[8:24]) != self {
		return nil
	}
	const solicited, override = 0x40, 0x20
	tell := []byte{ndNeighbourTell, 0, 0, 0, solicited | override, 0, 0, 0}
	tell = append(tell, self.AsSlice()...)
	tell = append(tell, ndOptTarget, 1)
	return append(tell, hw[:]...)
}

// parse reads a router's advertisement. It returns errForeign if p is none, and
// errMalformed if RFC 4861 §6.1.2 wants it dropped.
func (ra *RA) parse(p *datagram) error {
	b := p.payload
	if len(b) < 1 || b[0] != ndRouterAdvert {
		return errForeign
	}
	if len(b) < 16 || b[1] != 0 || p.hops != hopsND || !p.src.IsLinkLocalUnicast() {
		return errMalformed
	}
	ra.From, ra.HopLimit = p.src, b[4]
	ra.Managed, ra.Other = b[5]&0x80 != 0, b[5]&0x40 != 0
	switch b[5] >> 3 & 3 {
	case 1:
		ra.Preference = "high"
	case 3:
		ra.Preference = "low"
	default: // 2 is to be read as medium
		ra.Preference = "medium"
	}
	ra.LifetimeS = be16(b[6:])
	for b = b[16:]; len(b) > 0; {
		if len(b) < 8 || b[1] == 0 || int(b[1])*8 > len(b) {
			return errMalformed
		}
		o := b[:int(b[1])*8]
		b = b[len(o):]
		switch {
		case o[0] == ndOptMTU && len(o) == 8:
			ra.MTU = number(o[4:8], 4)
		case o[0] == ndOptPrefix && len(o) == 32 && o[2] <= 128 && len(ra.Prefixes) < maxAddrs:
			prefix := netip.PrefixFrom(address6(o[16:32]), int(o[2])).Masked()
			ra.Prefixes = append(ra.Prefixes, RAPrefix{
				Prefix6: Prefix6{prefix, number(o[8:12], 4), number(o[4:8], 4)},
				OnLink:  o[3]&0x80 != 0, Autonomous: o[3]&0x40 != 0,
			})
		case o[0] == ndOptRDNSS && len(o) >= 24 && len(ra.RDNSS) < maxAddrs:
			ra.RDNSS = append(ra.RDNSS, addresses(o[8:], 16)...)
			ra.RDNSS = ra.RDNSS[:min(len(ra.RDNSS), maxAddrs)]
		}
	}
	return nil
}
