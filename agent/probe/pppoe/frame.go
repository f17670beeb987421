package pppoe

import (
	"encoding/binary"
	"net"
	"time"
)

type mac [6]byte

func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

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
	at        time.Time
	dst, src  mac
	vlan      uint16 // 0: untagged, or tagged for the priority only
	discovery bool
	code      byte
	session   uint16
	payload   []byte
}

// parseFrame takes a frame apart. Padding is cut off. The payload is part
// of b.
func parseFrame(b []byte, tag uint16, tagged bool) (frame, bool) {
	var f frame
	if len(b) < 14 {
		return f, false
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
		return f, false
	}
	f.discovery = kind == typeDiscovery
	f.code = b[1]
	f.session = binary.BigEndian.Uint16(b[2:])
	length := int(binary.BigEndian.Uint16(b[4:]))
	if b = b[6:]; length > len(b) {
		return f, false
	}
	f.payload = b[:length]
	return f, true
}

// appendTo puts the frame together, with a VLAN tag if vlan is not 0.
func (f frame) appendTo(b []byte, priority uint8) []byte {
	b = append(b, f.dst[:]...)
	b = append(b, f.src[:]...)
	if f.vlan != 0 {
		b = binary.BigEndian.AppendUint16(b, typeVLAN)
		b = binary.BigEndian.AppendUint16(b, uint16(priority)<<13|f.vlan)
	}
	if f.discovery {
		b = binary.BigEndian.AppendUint16(b, typeDiscovery)
	} else {
		b = binary.BigEndian.AppendUint16(b, typeSession)
	}
	b = append(b, 0x11, f.code)
	b = binary.BigEndian.AppendUint16(b, f.session)
	b = binary.BigEndian.AppendUint16(b, uint16(len(f.payload)))
	return append(b, f.payload...)
}
