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

// parse takes an IP packet apart; what follows its end is padding. It refuses
// what is damaged or cut, and fragments, of which nothing can be told.
func (d *datagram) parse(b []byte) bool {
	if len(b) < 20 {
		return false
	}
	if b[0]>>4 == 6 {
		return d.parseIPv6(b)
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || header < 20 || total < header || total > len(b) ||
		binary.BigEndian.Uint16(b[6:])&0x3fff != 0 || sum(0, b[:header]) != 0xffff {
		return false
	}
	d.hops, d.proto, d.payload = b[8], b[9], b[header:total]
	d.src, _ = netip.AddrFromSlice(b[12:16])
	d.dst, _ = netip.AddrFromSlice(b[16:20])
	return true
}

func (d *datagram) parseIPv6(b []byte) bool {
	if len(b) < 40 {
		return false
	}
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return false
	}
	d.proto, d.hops = b[6], b[7]
	d.src, _ = netip.AddrFromSlice(b[8:24])
	d.dst, _ = netip.AddrFromSlice(b[24:40])
	b = b[40:total]
	for range 8 {
		switch d.proto {
		case protoHopByHop, protoRouting, protoOptions:
			if len(b) < 8 || len(b) < 8+8*int(b[1]) {
				return false
			}
			d.proto, b = b[0], b[8+8*int(b[1]):]
		case protoFragment:
			return false
		default:
			d.payload = b
			return true
		}
	}
	return false
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
func pseudo(src, dst []byte, length int) uint32 {
	return uint32(sum(uint32(sum(uint32(length)+protoICMPv6, src)), dst))
}
