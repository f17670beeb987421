package pppoe

import "encoding/binary"

// Codes of discovery (RFC 2516, appendix A).
const (
	codePADI = 0x09
	codePADO = 0x07
	codePADR = 0x19
	codePADS = 0x65
	codePADT = 0xa7
)

// Tags of discovery (RFC 2516, appendix A; RFC 4638).
const (
	tagEnd              = 0x0000
	tagServiceName      = 0x0101
	tagACName           = 0x0102
	tagHostUniq         = 0x0103
	tagCookie           = 0x0104
	tagRelay            = 0x0110
	tagMaxPayload       = 0x0120
	tagServiceNameError = 0x0201
	tagACSystemError    = 0x0202
	tagGenericError     = 0x0203
)

const maxServices = 32

// tags are the tags of a PADO, PADS or PADT that matter here.
type tags struct {
	services            []string
	acName              string
	hostUniq            []byte
	hasUniq             bool
	cookie, relay       []byte
	hasCookie, hasRelay bool
	maxPayload          uint16
	errors              []ErrorTag
}

// parseTags reads tags up to End-Of-List or the end. Tags that it doesn't know
// are left out; one that reaches beyond the end is a fault.
func parseTags(b []byte, packet string) (*tags, bool) {
	t := new(tags)
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, false
		}
		kind, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if kind == tagEnd {
			break
		}
		if length > len(b)-4 {
			return nil, false
		}
		value := b[4 : 4+length]
		b = b[4+length:]
		switch kind {
		case tagServiceName:
			if len(t.services) < maxServices {
				t.services = append(t.services, string(value[:min(length, maxText)]))
			}
		case tagACName:
			t.acName = string(value[:min(length, maxText)])
		case tagHostUniq:
			t.hostUniq, t.hasUniq = value, true
		case tagCookie:
			t.cookie, t.hasCookie = value, true
		case tagRelay:
			t.relay, t.hasRelay = value, true
		case tagMaxPayload:
			if length != 2 {
				return nil, false
			}
			t.maxPayload = binary.BigEndian.Uint16(value)
		case tagServiceNameError:
			t.addError(packet, kind, "Service-Name-Error", value)
		case tagACSystemError:
			t.addError(packet, kind, "AC-System-Error", value)
		case tagGenericError:
			t.addError(packet, kind, "Generic-Error", value)
		}
	}
	return t, true
}

func (t *tags) addError(packet string, kind uint16, name string, value []byte) {
	if len(t.errors) == maxErrors {
		return
	}
	e := ErrorTag{Packet: packet, Tag: kind, Name: name}
	e.Text, e.TextHex = text(value)
	t.errors = append(t.errors, e)
}

//go:noinline
func appendTag(b []byte, kind uint16, value []byte) []byte {
	return append(append16(append16(b, kind), uint16(len(value))), value...)
}
