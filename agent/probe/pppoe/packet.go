package pppoe

import "encoding/binary"

// Protocols of PPP.
const (
	protoIPCP   = 0x8021
	protoIPv6CP = 0x8057
	protoLCP    = 0xc021
	protoPAP    = 0xc023
	protoCHAP   = 0xc223
	protoEAP    = 0xc227
	// protoControl is the least of the control protocols; below are
	// datagrams.
	protoControl = 0x8000
)

// Codes of LCP and the network control protocols (RFC 1661, 5).
const (
	configureRequest = 1
	configureAck     = 2
	configureNak     = 3
	configureReject  = 4
	terminateRequest = 5
	terminateAck     = 6
	codeReject       = 7
	protocolReject   = 8
	echoRequest      = 9
	echoReply        = 10
	discardRequest   = 11
	identification   = 12 // RFC 1570, as the next
	timeRemaining    = 13
)

// Codes of PAP (RFC 1334) and CHAP (RFC 1994).
const (
	papRequest    = 1
	papAck        = 2
	papNak        = 3
	chapChallenge = 1
	chapResponse  = 2
	chapSuccess   = 3
	chapFailure   = 4
)

// control is a packet of LCP, of a network control protocol, or of an
// authentication protocol: all look alike.
type control struct {
	code, id byte
	data     []byte
}

// parseControl takes a packet apart; what is beyond its length is padding.
//
//go:noinline
func parseControl(b []byte) (control, bool) {
	if len(b) < 4 {
		return control{}, false
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length < 4 || length > len(b) {
		return control{}, false
	}
	return control{code: b[0], id: b[1], data: b[4:length]}, true
}

func (c control) appendTo(b []byte) []byte {
	b = append16(b, uint16(c.code)<<8|uint16(c.id))
	b = append16(b, uint16(4+len(c.data)))
	return append(b, c.data...)
}

// option is an option of a Configure packet.
type option struct {
	kind byte
	data []byte
}

// parseOptions takes the data of a Configure packet apart.
func parseOptions(b []byte) ([]option, bool) {
	var all []option
	for len(b) > 0 {
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			return nil, false
		}
		all = append(all, option{b[0], b[2:b[1]]})
		b = b[b[1]:]
	}
	return all, true
}

func encodeOptions(all []option) []byte {
	var b []byte
	for _, o := range all {
		b = appendOption(b, o)
	}
	return b
}

//go:noinline
func appendOption(b []byte, o option) []byte {
	return append(append16(b, uint16(o.kind)<<8|uint16(2+len(o.data))), o.data...)
}

//go:noinline
func find(all []option, kind byte) *option {
	for i := range all {
		if all[i].kind == kind {
			return &all[i]
		}
	}
	return nil
}

func without(all []option, kind byte) []option {
	var rest []option
	for _, o := range all {
		if o.kind != kind {
			rest = append(rest, o)
		}
	}
	return rest
}

// papMessage returns the text of a PAP Ack or Nak. Some servers leave out its
// length, or send less than that: what is there counts.
func papMessage(data []byte) []byte {
	switch {
	case len(data) == 0:
		return nil
	case int(data[0]) <= len(data)-1:
		return data[1 : 1+int(data[0])]
	case data[0] >= ' ':
		return data
	}
	return data[1:]
}

// parseChallenge takes the data of a CHAP challenge or response apart.
func parseChallenge(data []byte) (value, name []byte, ok bool) {
	if len(data) == 0 || data[0] == 0 || int(data[0]) > len(data)-1 {
		return nil, nil, false
	}
	length := 1 + int(data[0])
	return data[1:length], data[length:], true
}
