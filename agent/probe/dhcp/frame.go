package dhcp

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// The numbers of the layers below DHCP.
const (
	etherIPv4 = 0x0800
	etherVLAN = 0x8100 // IEEE 802.1Q
	etherIPv6 = 0x86dd

	protoUDP    = 17
	protoICMPv6 = 58

	etherHeader = 14
	vlanTag     = 4
	ipv4Header  = 20
	ipv6Header  = 40
	udpHeader   = 8
)

type mac [6]byte

// tag is an IEEE 802.1Q tag control field: priority, drop eligibility, VLAN.
// Zero means that the frame has none.
type tag uint16

func newTag(vlan uint16, priority uint8) tag { return tag(priority&7)<<13 | tag(vlan&0xfff) }

func (t tag) vlan() uint16 { return uint16(t) & 0xfff }

// datagram is an IP packet that carries UDP, or ICMPv6 (then without ports), and
// the Ethernet frame around it.
type datagram struct {
	srcMAC, dstMAC   mac
	tag              tag
	src, dst         netip.Addr
	hops             uint8 // TTL or hop limit
	icmp             bool
	srcPort, dstPort uint16
	payload          []byte
}

// What is wrong with a received frame. A frame that is not for us at all is
// errOther; one that claims to be and is damaged is errFrame.
var (
	errOther = errors.New("no DHCP or neighbour discovery")
	errFrame = errors.New("malformed frame")
)

// marshal writes the frame. The addresses are both IPv4 or both IPv6.
func (p *datagram) marshal() []byte {
	proto, length := byte(protoICMPv6), len(p.payload)
	if !p.icmp {
		proto, length = protoUDP, length+udpHeader
	}
	b := make([]byte, 0, etherHeader+vlanTag+ipv6Header+length)
	b = append(b, p.dstMAC[:]...)
	b = append(b, p.srcMAC[:]...)
	if p.tag != 0 {
		b = append(b, etherVLAN>>8, etherVLAN&0xff, byte(p.tag>>8), byte(p.tag))
	}
	if p.src.Is4() {
		total := ipv4Header + length
		b = append(b, etherIPv4>>8, etherIPv4&0xff,
			0x45, 0xc0, byte(total>>8), byte(total), // 0xc0: network control, as routers mark DHCP
			0, 0, 0, 0, p.hops, proto, 0, 0)
	} else {
		b = append(b, etherIPv6>>8, etherIPv6&0xff,
			0x60, 0, 0, 0, byte(length>>8), byte(length), proto, p.hops)
	}
	b = append(b, p.src.AsSlice()...)
	b = append(b, p.dst.AsSlice()...)
	if p.src.Is4() {
		header := b[len(b)-ipv4Header:]
		binary.BigEndian.PutUint16(header[10:], ^sum(0, header))
	}
	at, check := len(b), 2 // of the checksum in an ICMPv6 message
	if !p.icmp {
		b = append(b, byte(p.srcPort>>8), byte(p.srcPort), byte(p.dstPort>>8), byte(p.dstPort), byte(length>>8), byte(length), 0, 0)
		check = 6
	}
	b = append(b, p.payload...)
	field := b[at+check : at+check+2]
	field[0], field[1] = 0, 0
	c := ^sum(pseudo(p.src, p.dst, proto, length), b[at:])
	if c == 0 && !p.icmp {
		c = 0xffff // in UDP, 0 means none
	}
	field[0], field[1] = byte(c>>8), byte(c)
	return b
}

// parse reads a frame. stripped is the tag that the kernel took out of it, 0 if
// none; unsummed says that a sender on this host left the checksum of UDP or
// ICMPv6 to hardware. The payload aliases frame.
func parse(frame []byte, stripped tag, unsummed bool) (datagram, error) {
	var p datagram
	if len(frame) < etherHeader {
		return p, errOther
	}
	copy(p.dstMAC[:], frame)
	copy(p.srcMAC[:], frame[6:])
	p.tag = stripped
	kind, b := be16(frame[12:]), frame[etherHeader:]
	if kind == etherVLAN && len(b) >= vlanTag {
		if stripped != 0 {
			return p, errOther // a tag in a tag: another network
		}
		p.tag = tag(be16(b))
		kind, b = be16(b[2:]), b[vlanTag:]
	}
	switch kind {
	case etherIPv4:
		return p, p.parseIPv4(b, unsummed)
	case etherIPv6:
		return p, p.parseIPv6(b, unsummed)
	}
	return p, errOther
}

func (p *datagram) parseIPv4(b []byte, unsummed bool) error {
	if len(b) < ipv4Header || b[0]>>4 != 4 {
		return errFrame
	}
	header, total := int(b[0]&15)*4, int(be16(b[2:]))
	if b[9] != protoUDP {
		return errOther
	}
	if header < ipv4Header || total < header || total > len(b) || sum(0, b[:header]) != 0xffff {
		return errFrame
	}
	if be16(b[6:])&0x3fff != 0 {
		return errOther // a fragment; we say that we take 1472 bytes at most
	}
	p.src, p.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	p.hops = b[8]
	return p.parseUDP(b[header:total], unsummed)
}

func (p *datagram) parseIPv6(b []byte, unsummed bool) error {
	if len(b) < ipv6Header || b[0]>>4 != 6 {
		return errFrame
	}
	length := int(be16(b[4:]))
	if length > len(b)-ipv6Header {
		return errFrame
	}
	p.src, p.dst = address6(b[8:24]), address6(b[24:40])
	p.hops = b[7]
	body := b[ipv6Header : ipv6Header+length]
	switch b[6] {
	case protoUDP:
		return p.parseUDP(body, unsummed)
	case protoICMPv6:
		if len(body) < 4 || !unsummed && sum(pseudo(p.src, p.dst, protoICMPv6, length), body) != 0xffff {
			return errFrame
		}
		p.icmp, p.payload = true, body
		return nil
	}
	return errOther // extension headers: neither is sent with any
}

func (p *datagram) parseUDP(b []byte, unsummed bool) error {
	if len(b) < udpHeader {
		return errFrame
	}
	p.srcPort, p.dstPort = be16(b), be16(b[2:])
	length := int(be16(b[4:]))
	if length < udpHeader || length > len(b) {
		return errFrame
	}
	b = b[:length]
	none := be16(b[6:]) == 0
	switch {
	case none && !p.src.Is4():
		return errFrame
	case !none && !unsummed && sum(pseudo(p.src, p.dst, protoUDP, length), b) != 0xffff:
		return errFrame
	}
	p.payload = b[udpHeader:]
	return nil
}

// be16 reads two bytes.
func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }

// sum adds the ones' complement sum of b (RFC 1071) to that so far. b begins at
// an even place of what is summed.
func sum(so uint16, b []byte) uint16 {
	s := uint32(so)
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(be16(b))
		s = s&0xffff + s>>16
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return uint16(s&0xffff + s>>16)
}

// pseudo is the sum of the pseudo-header (RFC 768, RFC 8200 §8.1). The two
// differ in layout, not in sum, for packets below 64 KiB.
func pseudo(src, dst netip.Addr, proto byte, length int) uint16 {
	s := sum(uint16(proto), src.AsSlice())
	s = sum(s, dst.AsSlice())
	return sum(s, []byte{byte(length >> 8), byte(length)})
}
