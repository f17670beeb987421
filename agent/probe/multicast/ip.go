package multicast

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers.
const (
	protoHopByHop = 0
	protoIGMP     = 2
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoICMPv6   = 58
	protoOptions  = 60
)

// datagram is an IP packet taken apart.
type datagram struct {
	src, dst netip.Addr
	hops     byte // time to live, hop limit
	proto    byte // of payload
	payload  []byte
}

// parseIP takes an IP packet apart; what follows its end is padding. It refuses
// what is damaged or cut, and fragments, of which nothing can be told.
func parseIP(b []byte) (datagram, bool) {
	if len(b) == 0 {
		return datagram{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b)
	case 6:
		return parseIPv6(b)
	}
	return datagram{}, false
}

func parseIPv4(b []byte) (datagram, bool) {
	header := int(b[0]&15) * 4
	if header < 20 || len(b) < header {
		return datagram{}, false
	}
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total < header || total > len(b) || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 || sum(0, b[:header]) != 0xffff {
		return datagram{}, false
	}
	return datagram{
		src: netip.AddrFrom4([4]byte(b[12:16])), dst: netip.AddrFrom4([4]byte(b[16:20])),
		hops: b[8], proto: b[9], payload: b[header:total],
	}, true
}

func parseIPv6(b []byte) (datagram, bool) {
	if len(b) < 40 {
		return datagram{}, false
	}
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return datagram{}, false
	}
	d := datagram{
		src: netip.AddrFrom16([16]byte(b[8:24])), dst: netip.AddrFrom16([16]byte(b[24:40])),
		hops: b[7], proto: b[6], payload: b[40:total],
	}
	for range 8 {
		switch d.proto {
		case protoHopByHop, protoRouting, protoOptions:
			if len(d.payload) < 8 {
				return datagram{}, false
			}
			length := 8 + 8*int(d.payload[1])
			if length > len(d.payload) {
				return datagram{}, false
			}
			d.proto, d.payload = d.payload[0], d.payload[length:]
		case protoFragment:
			return datagram{}, false
		default:
			return d, true
		}
	}
	return datagram{}, false
}

// parseUDP returns the destination's port and the payload.
func parseUDP(b []byte) (port uint16, payload []byte, ok bool) {
	if len(b) < 8 {
		return 0, nil, false
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length < 8 || length > len(b) {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(b[2:]), b[8:length], true
}

// sum adds b to the one's complement sum s (RFC 1071), not yet complemented. Of
// something that includes its right checksum it is 0xffff.
func sum(s uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
		s = s&0xffff + s>>16
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	s = s&0xffff + s>>16
	return uint16(s&0xffff + s>>16)
}

// pseudo is the sum over the pseudo-header of ICMPv6 (RFC 8200, section 8.1).
func pseudo(src, dst netip.Addr, length int) uint32 {
	s, d := src.As16(), dst.As16()
	return uint32(sum(uint32(sum(uint32(length)+protoICMPv6, s[:])), d[:]))
}

// appendIPv4 appends a header of IPv4 with the Router Alert option (RFC 2113),
// time to live 1 and the precedence of network control, as IGMP wants it.
func appendIPv4(b []byte, src, dst netip.Addr, payload []byte) []byte {
	at := len(b)
	b = append(b, 0x46, 0xc0)
	b = binary.BigEndian.AppendUint16(b, uint16(24+len(payload)))
	b = append(b, 0, 0, 0x40, 0, 1, protoIGMP, 0, 0)
	b = append(b, src.AsSlice()...)
	b = append(b, dst.AsSlice()...)
	b = append(b, 0x94, 4, 0, 0)
	binary.BigEndian.PutUint16(b[at+10:], ^sum(0, b[at:]))
	return append(b, payload...)
}

// appendIPv6 appends a header of IPv6 with a hop-by-hop Router Alert option (RFC
// 2711) and hop limit 1, as MLD wants it.
func appendIPv6(b []byte, src, dst netip.Addr, payload []byte) []byte {
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(b, protoHopByHop, 1)
	b = append(b, src.AsSlice()...)
	b = append(b, dst.AsSlice()...)
	b = append(b, protoICMPv6, 0, 5, 2, 0, 0, 1, 0) // router alert, then two bytes of padding
	return append(b, payload...)
}

// hardware is the Ethernet address of a group (RFC 1112, 2464).
func hardware(group netip.Addr) [6]byte {
	if group.Is4() {
		a := group.As4()
		return [6]byte{0x01, 0x00, 0x5e, a[1] & 0x7f, a[2], a[3]}
	}
	a := group.As16()
	return [6]byte{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// frame puts an IP packet to a group into an Ethernet frame, tagged if vlan is
// not 0, and no shorter than Ethernet wants it.
func frame(mac [6]byte, vlan uint16, dst netip.Addr, packet []byte) []byte {
	to := hardware(dst)
	b := append(make([]byte, 0, 18+len(packet)), to[:]...)
	b = append(b, mac[:]...)
	if vlan != 0 {
		b = binary.BigEndian.AppendUint16(b, 0x8100)
		b = binary.BigEndian.AppendUint16(b, vlan)
	}
	if dst.Is4() {
		b = append(b, 0x08, 0x00)
	} else {
		b = append(b, 0x86, 0xdd)
	}
	b = append(b, packet...)
	for len(b) < 60 {
		b = append(b, 0)
	}
	return b
}
