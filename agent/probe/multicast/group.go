package multicast

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// kind is what a message of IGMP or MLD says.
type kind byte

const (
	query kind = iota + 1
	report
	leave
)

// Messages are numbered by IGMP's versions throughout: MLDv1 is 2, MLDv2 is 3
// (RFC 2710 and 3810 are IGMPv2 and IGMPv3 for IPv6).
const (
	v1 = 1
	v2 = 2
	v3 = 3
)

func protocol(v4 bool, version int) string {
	if v4 {
		return [...]string{"", "igmpv1", "igmpv2", "igmpv3"}[version]
	}
	return [...]string{"", "mldv1", "mldv1", "mldv2"}[version]
}

// control is a message of IGMP or MLD.
type control struct {
	kind    kind
	version int
	// Of a query: the zero Addr asks for all groups; members answer within
	// maxDelay.
	group    netip.Addr
	maxDelay time.Duration
	// Of a report: the groups of which the sender is a member.
	members []netip.Addr
}

// Types of IGMP, and of ICMPv6 for MLD.
const (
	igmpQuery    = 0x11
	igmpV1Report = 0x12
	igmpV2Report = 0x16
	igmpLeave    = 0x17
	igmpV3Report = 0x22

	mldQuery    = 130
	mldReport   = 131
	mldDone     = 132
	mldV2Report = 143
)

// Types of the records of a version 3 report.
const (
	isInclude = 1
	isExclude = 2
	toInclude = 3
	toExclude = 4
	allow     = 5
	block     = 6
)

// read reads the message that d carries; false if it carries none, or one to be
// ignored by the standards.
func (c *control) read(d *datagram) bool {
	v4, b := d.src.Is4(), d.payload
	proto, s := byte(protoIGMP), uint32(0)
	if !v4 {
		// RFC 2710, section 3; a report may come from :: (RFC 3590).
		if d.hops != 1 || !d.src.IsLinkLocalUnicast() && !d.src.IsUnspecified() {
			return false
		}
		proto, s = protoICMPv6, pseudo(d.src.AsSlice(), d.dst.AsSlice(), len(b))
	}
	if d.proto != proto || len(b) < 8 || sum(s, b) != 0xffff || !c.parse(b, v4) {
		return false
	}
	return v4 || c.kind != query || d.src.IsLinkLocalUnicast()
}

// parse reads a message of IGMP or MLD of at least 8 bytes.
func (c *control) parse(b []byte, v4 bool) bool {
	typ, at, size := b[0], 8, 16 // where the group is, and how long
	if v4 {
		at, size = 4, 4
	}
	if v4 && typ == igmpV3Report || !v4 && typ == mldV2Report {
		c.kind, c.version = report, v3
		return c.records(b, size)
	}
	more := len(b) - at - size
	if more < 0 {
		return false
	}
	c.version = v2
	group, _ := netip.AddrFromSlice(b[at : at+size])
	switch {
	case v4 && typ == igmpV1Report:
		c.kind, c.version = report, v1
		c.members = []netip.Addr{group}
	case v4 && typ == igmpV2Report, !v4 && typ == mldReport:
		c.kind, c.members = report, []netip.Addr{group}
	case v4 && typ == igmpLeave, !v4 && typ == mldDone:
		c.kind, c.group = leave, group
	case v4 && typ == igmpQuery, !v4 && typ == mldQuery:
		c.kind = query
		if !group.IsUnspecified() {
			c.group = group
		}
		if more >= 4 {
			c.version = v3
		} else if more > 0 { // RFC 3376, section 7.1; RFC 3810, section 8.1
			return false
		}
		c.delay(b, v4)
	default:
		return false
	}
	return true
}

// delay reads the time in which a query wants to be answered.
func (c *control) delay(b []byte, v4 bool) {
	n, unit := int(binary.BigEndian.Uint16(b[4:])), time.Millisecond
	if v4 {
		n, unit = int(b[1]), 100*time.Millisecond
	}
	switch {
	case v4 && c.version == v2 && n == 0: // it knows no other time
		c.version, n = v1, 100
	case c.version == v3 && v4 && n >= 128: // RFC 3376, section 4.1.1
		n = (n&15 | 16) << (n>>4&7 + 3)
	case c.version == v3 && n >= 32768: // RFC 3810, section 5.1.3
		n = (n&0xfff | 0x1000) << (n>>12&7 + 3)
	}
	c.maxDelay = time.Duration(n) * unit
}

// records reads those of a version 3 report with addresses of size bytes: type,
// length of auxiliary data in words, number of sources, group.
func (c *control) records(b []byte, size int) bool {
	n := int(binary.BigEndian.Uint16(b[6:]))
	for b = b[8:]; n > 0; n-- {
		if len(b) < 4+size {
			return false
		}
		sources := int(binary.BigEndian.Uint16(b[2:]))
		length := 4 + size + sources*size + int(b[1])*4
		if length > len(b) {
			return false
		}
		typ := b[0]
		if typ == isExclude || typ == toExclude || sources > 0 && typ != block && typ <= block {
			group, _ := netip.AddrFromSlice(b[4 : 4+size])
			c.members = append(c.members, group)
		}
		b = b[length:]
	}
	return true
}

// says is what the probe has to say of its own membership.
type says byte

const (
	saysJoin  says = iota + 1 // I have joined
	saysState                 // I am a member, in answer to a query
	saysLeave                 // I have left
)

// message returns the frame in which the host with that hardware address, at
// src, says what in the given version of the protocol; nil if that version has
// no words for it. A source needs version 3.
func message(what says, version int, mac [6]byte, src []byte, o *Options) []byte {
	group, source := o.Group.AsSlice(), o.Source.AsSlice()
	v4 := len(group) == 4
	typ, to := byte(mldReport), group
	switch {
	case version == v3 && v4:
		typ, to = igmpV3Report, []byte("\xe0\x00\x00\x16")
	case version == v3:
		typ, to = mldV2Report, []byte("\xff\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x16")
	case what == saysLeave && version == v1:
		return nil
	case what == saysLeave && v4:
		typ, to = igmpLeave, []byte("\xe0\x00\x00\x02")
	case what == saysLeave:
		typ, to = mldDone, []byte("\xff\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02")
	case version == v1:
		typ = igmpV1Report
	case v4:
		typ = igmpV2Report
	}
	fixed := 8
	if version == v3 {
		fixed = 12
	} else if v4 {
		fixed = 4
	}
	body := make([]byte, fixed, 64)
	if version == v3 {
		body[7], body[8] = 1, recordType(what, source != nil)
		if source != nil {
			body[11] = 1
		}
		group = append(group, source...)
	}
	body = append(body, group...)
	body[0] = typ
	var s uint32
	if !v4 {
		s = pseudo(src, to, len(body))
	}
	binary.BigEndian.PutUint16(body[2:], ^sum(s, body))
	return frame(mac, o.VLAN, src, to, body)
}

func recordType(what says, specific bool) byte {
	switch {
	case what == saysJoin && specific:
		return allow
	case what == saysJoin:
		return toExclude
	case what == saysState && specific:
		return isInclude
	case what == saysState:
		return isExclude
	case specific:
		return block
	}
	return toInclude
}

// frame puts a message of IGMP or MLD into an Ethernet frame to a group, tagged
// if vlan is not 0, and no shorter than Ethernet wants it. Its packet has the
// Router Alert option (RFC 2113, 2711) and lives for one hop.
func frame(mac [6]byte, vlan uint16, src, to, body []byte) []byte {
	b := make([]byte, 6, 128)
	b[0], b[1] = 0x33, 0x33 // RFC 2464
	copy(b[2:], to[len(to)-4:])
	v4 := len(to) == 4
	if v4 { // RFC 1112
		b[0], b[1], b[2] = 0x01, 0x00, 0x5e
		b[3] &= 0x7f
	}
	b = append(b, mac[:]...)
	if vlan != 0 {
		b = binary.BigEndian.AppendUint16(add(b, "\x81\x00"), vlan)
	}
	length := len(body)
	if v4 {
		b = add(b, "\x08\x00")
		at := len(b)
		// Precedence of network control; not to be fragmented.
		b = add(b, "\x46\xc0\x00\x00\x00\x00\x40\x00\x01\x02\x00\x00")
		b = add(append(append(b, src...), to...), "\x94\x04\x00\x00")
		binary.BigEndian.PutUint16(b[at+2:], uint16(24+length))
		binary.BigEndian.PutUint16(b[at+10:], ^sum(0, b[at:]))
	} else {
		b = add(b, "\x86\xdd\x60\x00\x00\x00\x00\x00\x00\x01")
		binary.BigEndian.PutUint16(b[len(b)-4:], uint16(8+length))
		// ICMPv6 follows; router alert, then two bytes of padding.
		b = add(append(append(b, src...), to...), "\x3a\x00\x05\x02\x00\x00\x01\x00")
	}
	b = append(b, body...)
	for len(b) < 60 {
		b = append(b, 0)
	}
	return b
}

// add appends s, in one place.
func add(b []byte, s string) []byte { return append(b, s...) }
