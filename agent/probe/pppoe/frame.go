package pppoe

import (
	"encoding/binary"
	"net"
	"time"
)

type mac [6]byte

//go:noinline
func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

// alias is another address made of this one: locally administered, and another
// one even where this one is that too.
func (m mac) alias() mac {
	m[0] |= 2
	m[3] ^= 0xa5
	return m
}

func broadcast() mac { return mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// Ethertypes.
const (
	typeVLAN      = 0x8100
	typeDiscovery = 0x8863
	typeSession   = 0x8864
)

// headerLen is what a session takes of an Ethernet payload: the PPPoE header
// and PPP's protocol number.
const headerLen = 8

// frame is an Ethernet frame with a PPPoE packet in it.
type frame struct {
	at        time.Duration // since the dial began
	dst, src  mac
	vlan      uint16 // 0: untagged, or tagged for the priority only
	discovery bool
	code      byte
	session   uint16
	payload   []byte
}

// parseFrame takes a frame apart. Padding is cut off. The payload is part
// of b.
func parseFrame(b []byte, tag uint16, tagged bool) (*frame, bool) {
	f := new(frame)
	if len(b) < 14 {
		return nil, false
	}
	copy(f.dst[:], b)
	copy(f.src[:], b[6:])
	kind, b := binary.BigEndian.Uint16(b[12:]), b[14:]
	if tagged {
		f.vlan = tag & 0xfff
	}
	if kind == typeVLAN && !tagged && len(b) >= 4 {
		f.vlan = binary.BigEndian.Uint16(b) & 0xfff
		kind, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	if kind != typeDiscovery && kind != typeSession || len(b) < 6 || b[0] != 0x11 {
		return nil, false
	}
	f.discovery = kind == typeDiscovery
	f.code = b[1]
	f.session = binary.BigEndian.Uint16(b[2:])
	length := int(binary.BigEndian.Uint16(b[4:]))
	if b = b[6:]; length > len(b) {
		return nil, false
	}
	f.payload = b[:length]
	return f, true
}

// appendTo puts the frame together, with a VLAN tag if vlan is not 0.
func (f *frame) appendTo(b []byte, priority uint8) []byte {
	b = append(b, f.dst[:]...)
	b = append(b, f.src[:]...)
	if f.vlan != 0 {
		b = append16(append16(b, typeVLAN), uint16(priority)<<13|f.vlan)
	}
	kind := uint16(typeSession)
	if f.discovery {
		kind = typeDiscovery
	}
	b = append16(append16(b, kind), 0x1100|uint16(f.code))
	b = append16(append16(b, f.session), uint16(len(f.payload)))
	return append(b, f.payload...)
}

// append16 is kept out of line: on small processors an append takes much room.
//
//go:noinline
func append16(b []byte, v uint16) []byte { return append(b, byte(v>>8), byte(v)) }
