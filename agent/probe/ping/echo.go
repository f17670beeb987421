package ping

import "encoding/binary"

// The types of ICMP messages that matter (RFC 792, RFC 4443).
const (
	echoReply4   = 0
	echoRequest4 = 8
	echoRequest6 = 128
	echoReply6   = 129
)

const (
	echoHeader = 8  // type, code, checksum, identifier, sequence number
	dataLength = 24 // what follows it: the token, and nothing
)

// token marks the requests of one run: identifiers of other programs may be the
// same.
type token [8]byte

// appendRequest appends an echo request. Its checksum is right for IPv4; the
// kernel sets that of IPv6, and everything but the sequence number of a
// datagram socket's.
func appendRequest(b []byte, v6 bool, id, seq uint16, tok token) []byte {
	begin := len(b)
	kind := byte(echoRequest4)
	if v6 {
		kind = echoRequest6
	}
	b = append(b, kind, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, id)
	b = binary.BigEndian.AppendUint16(b, seq)
	b = append(b, tok[:]...)
	for len(b)-begin < echoHeader+dataLength {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[begin+2:], checksum(b[begin:]))
	return b
}

// parseReply reads the echo reply that a socket yields: with the IP header, if
// the socket is raw and IPv4. Not ok is everything else, and what was cut.
func parseReply(b []byte, v6, header bool) (id, seq uint16, tok token, ok bool) {
	if header {
		const least = 20
		if len(b) < least || b[0]>>4 != 4 {
			return 0, 0, tok, false
		}
		length := int(b[0]&0x0f) * 4
		if length < least || length > len(b) {
			return 0, 0, tok, false
		}
		b = b[length:]
	}
	kind := byte(echoReply4)
	if v6 {
		kind = echoReply6
	}
	if len(b) < echoHeader+dataLength || b[0] != kind || b[1] != 0 {
		return 0, 0, tok, false
	}
	copy(tok[:], b[echoHeader:])
	return binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), tok, true
}

// checksum is the one's complement of the one's complement sum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
