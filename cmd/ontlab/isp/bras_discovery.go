package isp

import (
	"encoding/binary"
	"errors"
	"net"
)

// PPPoE of RFC 2516: what its discovery frames consist of.
const (
	etherTypeDiscovery = 0x8863

	codePADI = 0x09
	codePADO = 0x07
	codePADR = 0x19
	codePADS = 0x65
	codePADT = 0xa7

	tagEndOfList   = 0x0000
	tagServiceName = 0x0101
	tagACName      = 0x0102
	tagHostUniq    = 0x0103
)

// DiscoveryErrorTag is what an access concentrator says no with.
type DiscoveryErrorTag uint16

// The tags of errors.
const (
	ServiceNameError DiscoveryErrorTag = 0x0201
	ACSystemError    DiscoveryErrorTag = 0x0202
	GenericError     DiscoveryErrorTag = 0x0203
)

// DiscoveryError is what a PADO or PADS can have in it.
type DiscoveryError struct {
	Tag  DiscoveryErrorTag
	Text string // up to 1000 bytes, verbatim
}

// discoveryHeader is the length of an Ethernet header and PPPoE's own.
const discoveryHeader = 14 + 6

// discovery is a discovery frame. Its slices share the memory of what it was
// parsed from.
type discovery struct {
	dst, src net.HardwareAddr
	code     byte
	session  uint16
	tags     []byte
}

var errNotDiscovery = errors.New("not a PPPoE discovery frame")

// parseDiscovery takes an untagged Ethernet frame apart. Tags are not looked
// at: what is wrong with them concerns whom the frame is for.
func parseDiscovery(frame []byte) (discovery, error) {
	if len(frame) < discoveryHeader || binary.BigEndian.Uint16(frame[12:]) != etherTypeDiscovery || frame[14] != 0x11 {
		return discovery{}, errNotDiscovery
	}
	length := int(binary.BigEndian.Uint16(frame[18:]))
	if length > len(frame)-discoveryHeader {
		return discovery{}, errNotDiscovery
	}
	return discovery{
		dst: frame[0:6], src: frame[6:12],
		code: frame[15], session: binary.BigEndian.Uint16(frame[16:]),
		tags: frame[discoveryHeader : discoveryHeader+length],
	}, nil
}

// bytes is the frame.
func (d discovery) bytes() []byte {
	b := make([]byte, 0, discoveryHeader+len(d.tags))
	b = append(b, d.dst...)
	b = append(b, d.src...)
	b = binary.BigEndian.AppendUint16(b, etherTypeDiscovery)
	b = append(b, 0x11, d.code)
	b = binary.BigEndian.AppendUint16(b, d.session)
	b = binary.BigEndian.AppendUint16(b, uint16(len(d.tags)))
	return append(b, d.tags...)
}

// tag returns the value of the first tag of a kind; ok is false if there is
// none.
func (d discovery) tag(kind uint16) (value []byte, ok bool) {
	for rest := d.tags; len(rest) >= 4; {
		k, length := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		if k == tagEndOfList || length > len(rest)-4 {
			break
		}
		if k == kind {
			return rest[4 : 4+length], true
		}
		rest = rest[4+length:]
	}
	return nil, false
}

// appendTag adds a tag to tags.
func appendTag(tags []byte, kind uint16, value []byte) []byte {
	tags = binary.BigEndian.AppendUint16(tags, kind)
	tags = binary.BigEndian.AppendUint16(tags, uint16(len(value)))
	return append(tags, value...)
}

// refusal is the answer to d, a PADI or PADR, with an error in it instead of an
// offer or a session: the tags that a client knows it by, then the error.
func (d discovery) refusal(ac net.HardwareAddr, acName string, e DiscoveryError) discovery {
	answer := discovery{dst: d.src, src: ac, code: codePADS}
	if d.code == codePADI {
		answer.code = codePADO
		answer.tags = appendTag(answer.tags, tagACName, []byte(acName))
	}
	for _, kind := range []uint16{tagServiceName, tagHostUniq} {
		if value, ok := d.tag(kind); ok {
			answer.tags = appendTag(answer.tags, kind, value)
		}
	}
	answer.tags = appendTag(answer.tags, uint16(e.Tag), []byte(e.Text))
	return answer
}
