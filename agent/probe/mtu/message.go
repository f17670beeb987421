package mtu

import (
	"encoding/binary"
	"net/netip"
)

// The types of ICMP messages that matter (RFC 792, RFC 4443).
const (
	echoReply4     = 0
	unreachable4   = 3
	needsFragments = 4 // its code
	echoRequest4   = 8
	unreachable6   = 1
	packetTooBig6  = 2
	echoRequest6   = 128
	echoReply6     = 129
)

const (
	headerV4   = 20
	headerV6   = 40
	echoHeader = 8 // type, code, checksum, identifier, sequence number
)

// token marks the requests of one run: identifiers of other programs may be the
// same.
type token [8]byte

// request encodes an echo request of n bytes, its ICMP header included; n is at
// least 16. Its checksum is right for IPv4; the kernel sets that of IPv6.
func request(n int, v6 bool, id, seq uint16, tok token) []byte {
	b := make([]byte, n)
	b[0] = echoRequest4
	if v6 {
		b[0] = echoRequest6
	}
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	copy(b[echoHeader:], tok[:])
	// The sum of RFC 1071; all that follows the token is zero.
	var sum uint32
	for i := 0; i < echoHeader+len(tok); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum+sum>>16))
	return b
}

// parseEcho reads the echo reply that a socket yields, or the request inside an
// error: its beginning is enough. header says that the IPv4 header comes first.
func parseEcho(b []byte, kind byte, header bool) (id, seq uint16, rest []byte, ok bool) {
	if header {
		if len(b) < headerV4 || b[0]>>4 != 4 {
			return 0, 0, nil, false
		}
		length := int(b[0]&0x0f) * 4
		if length < headerV4 || length > len(b) {
			return 0, 0, nil, false
		}
		b = b[length:]
	}
	if len(b) < echoHeader || b[0] != kind || b[1] != 0 {
		return 0, 0, nil, false
	}
	return binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), b[echoHeader:], true
}

// An icmpError is what the kernel queues when a packet of ours fails.
type icmpError struct {
	errno      uint32
	origin     byte // unix.SO_EE_ORIGIN_*
	kind, code byte // of the ICMP message
	info       uint32
	from       netip.Addr // the router; invalid if the kernel itself
}

// parseExtended reads struct sock_extended_err, and the address behind it, in
// the machine's byte order.
func parseExtended(b []byte) (icmpError, bool) {
	const size = 16
	if len(b) < size {
		return icmpError{}, false
	}
	order := binary.NativeEndian
	e := icmpError{errno: order.Uint32(b), origin: b[4], kind: b[5], code: b[6], info: order.Uint32(b[8:])}
	const inet, inet6 = 2, 10 // AF_INET, AF_INET6
	switch b = b[size:]; {
	case len(b) >= 8 && order.Uint16(b) == inet:
		e.from = netip.AddrFrom4([4]byte(b[4:]))
	case len(b) >= 24 && order.Uint16(b) == inet6:
		e.from = netip.AddrFrom16([16]byte(b[8:]))
	}
	return e, true
}
