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

// parseControl reads the message that d carries; false if it carries none, or
// one to be ignored by the standards.
func parseControl(d datagram) (control, bool) {
	switch {
	case d.proto == protoIGMP && d.src.Is4():
		return parseIGMP(d.payload)
	case d.proto == protoICMPv6 && d.src.Is6():
		// RFC 2710, section 3; a report may come from :: (RFC 3590).
		if d.hops != 1 || !d.src.IsLinkLocalUnicast() && !d.src.IsUnspecified() {
			return control{}, false
		}
		if sum(pseudo(d.src, d.dst, len(d.payload)), d.payload) != 0xffff {
			return control{}, false
		}
		c, ok := parseMLD(d.payload)
		return c, ok && (c.kind != query || d.src.IsLinkLocalUnicast())
	}
	return control{}, false
}

func parseIGMP(b []byte) (control, bool) {
	if len(b) < 8 || sum(0, b) != 0xffff {
		return control{}, false
	}
	group := netip.AddrFrom4([4]byte(b[4:8]))
	switch b[0] {
	case igmpQuery:
		c := control{kind: query, version: v2, maxDelay: time.Duration(b[1]) * 100 * time.Millisecond}
		switch {
		case len(b) >= 12:
			c.version, c.maxDelay = v3, time.Duration(float8(b[1]))*100*time.Millisecond
		case len(b) != 8: // RFC 3376, section 7.1
			return control{}, false
		case b[1] == 0:
			c.version, c.maxDelay = v1, 10*time.Second
		}
		if !group.IsUnspecified() {
			c.group = group
		}
		return c, true
	case igmpV1Report:
		return control{kind: report, version: v1, members: []netip.Addr{group}}, true
	case igmpV2Report:
		return control{kind: report, version: v2, members: []netip.Addr{group}}, true
	case igmpLeave:
		return control{kind: leave, version: v2, group: group}, true
	case igmpV3Report:
		members, ok := parseRecords(b, 4)
		return control{kind: report, version: v3, members: members}, ok
	}
	return control{}, false
}

func parseMLD(b []byte) (control, bool) {
	if len(b) < 8 {
		return control{}, false
	}
	if b[0] == mldV2Report {
		members, ok := parseRecords(b, 16)
		return control{kind: report, version: v3, members: members}, ok
	}
	if len(b) < 24 {
		return control{}, false
	}
	group := netip.AddrFrom16([16]byte(b[8:24]))
	delay := binary.BigEndian.Uint16(b[4:])
	switch b[0] {
	case mldQuery:
		c := control{kind: query, version: v2, maxDelay: time.Duration(delay) * time.Millisecond}
		switch {
		case len(b) >= 28:
			c.version, c.maxDelay = v3, time.Duration(float16(delay))*time.Millisecond
		case len(b) != 24: // RFC 3810, section 8.1
			return control{}, false
		}
		if !group.IsUnspecified() {
			c.group = group
		}
		return c, true
	case mldReport:
		return control{kind: report, version: v2, members: []netip.Addr{group}}, true
	case mldDone:
		return control{kind: leave, version: v2, group: group}, true
	}
	return control{}, false
}

// float8 is the number that a code of IGMPv3 stands for (RFC 3376, section
// 4.1.1).
func float8(code byte) int {
	if code < 128 {
		return int(code)
	}
	return int(code&15|16) << (code>>4&7 + 3)
}

// float16 is the same of MLDv2 (RFC 3810, section 5.1.3).
func float16(code uint16) int {
	if code < 32768 {
		return int(code)
	}
	return int(code&0xfff|0x1000) << (code>>12&7 + 3)
}

// parseRecords reads the records of a version 3 report with addresses of size
// bytes: type, length of auxiliary data in words, number of sources, group.
func parseRecords(b []byte, size int) (members []netip.Addr, ok bool) {
	records := int(binary.BigEndian.Uint16(b[6:]))
	for b = b[8:]; records > 0; records-- {
		if len(b) < 4+size {
			return nil, false
		}
		sources := int(binary.BigEndian.Uint16(b[2:]))
		length := 4 + size + sources*size + int(b[1])*4
		if length > len(b) {
			return nil, false
		}
		group, _ := netip.AddrFromSlice(b[4 : 4+size])
		switch b[0] {
		case isExclude, toExclude:
			members = append(members, group)
		case isInclude, toInclude, allow:
			if sources > 0 {
				members = append(members, group)
			}
		}
		b = b[length:]
	}
	return members, true
}

// says is what the probe has to say of its own membership.
type says byte

const (
	saysJoin  says = iota + 1 // I have joined
	saysState                 // I am a member, in answer to a query
	saysLeave                 // I have left
)

// message returns the IP packet in which a host at src says what, in the given
// version of the protocol, and the group that it goes to; nil if that version
// has no words for it. A source needs version 3.
func message(what says, version int, src, group, source netip.Addr) (dst netip.Addr, packet []byte) {
	v4 := group.Is4()
	var typ byte
	switch {
	case version == v3:
		typ, dst = mldV2Report, netip.AddrFrom16([16]byte{0xff, 2, 15: 0x16})
		if v4 {
			typ, dst = igmpV3Report, netip.AddrFrom4([4]byte{224, 0, 0, 22})
		}
	case what == saysLeave && version == v2:
		typ, dst = mldDone, netip.AddrFrom16([16]byte{0xff, 2, 15: 2})
		if v4 {
			typ, dst = igmpLeave, netip.AddrFrom4([4]byte{224, 0, 0, 2})
		}
	case what == saysLeave:
		return netip.Addr{}, nil
	case !v4:
		typ, dst = mldReport, group
	case version == v1:
		typ, dst = igmpV1Report, group
	default:
		typ, dst = igmpV2Report, group
	}
	body := []byte{typ, 0, 0, 0}
	switch {
	case version == v3:
		body = append(body, 0, 0, 0, 1, recordType(what, source.IsValid()), 0, 0, 0)
		body = append(body, group.AsSlice()...)
		if source.IsValid() {
			body[11] = 1
			body = append(body, source.AsSlice()...)
		}
	case v4:
		body = append(body, group.AsSlice()...)
	default:
		body = append(body, 0, 0, 0, 0)
		body = append(body, group.AsSlice()...)
	}
	if v4 {
		binary.BigEndian.PutUint16(body[2:], ^sum(0, body))
		return dst, appendIPv4(nil, src, dst, body)
	}
	binary.BigEndian.PutUint16(body[2:], ^sum(pseudo(src, dst, len(body)), body))
	return dst, appendIPv6(nil, src, dst, body)
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
