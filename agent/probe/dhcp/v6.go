package dhcp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
)

// The ports and message types of DHCPv6 (RFC 8415 §7).
const (
	serverPort6 = 547
	clientPort6 = 546

	msgSolicit    = 1
	msgAdvertise  = 2
	msgReply      = 7
	msgInfRequest = 11
)

// The options used (RFC 8415 §21; 23, 24: RFC 3646).
const (
	opt6ClientID   = 1
	opt6ServerID   = 2
	opt6IANA       = 3
	opt6IAAddr     = 5
	opt6ORO        = 6
	opt6Preference = 7
	opt6Elapsed    = 8
	opt6Status     = 13
	opt6VendorCls  = 16
	opt6DNS        = 23
	opt6Domains    = 24
	opt6IAPD       = 25
	opt6IAPrefix   = 26
)

const (
	header6   = 4
	ianaFixed = 12 // IAID, T1, T2
)

// Advertise is what one DHCPv6 server answered.
type Advertise struct {
	// Type is "advertise"; "reply" for what was asked with Inform.
	Type string `json:"type"`
	// ServerDUID is in hexadecimal.
	ServerDUID string     `json:"server_duid"`
	From       netip.Addr `json:"from"`
	FromMAC    string     `json:"from_mac"`
	// Preference is from 0, also if the server names none, to 255.
	Preference uint8        `json:"preference"`
	Addresses  []Lease6     `json:"addresses,omitempty"`
	Prefixes   []Prefix6    `json:"prefixes,omitempty"`
	Statuses   []Status6    `json:"statuses,omitempty"`
	DNS        []netip.Addr `json:"dns,omitempty"`
	// Try is the request that this answers, from 0; LatencyMs is from sending
	// it.
	Try       int     `json:"try"`
	LatencyMs float64 `json:"latency_ms"`
}

// Lease6 is an offered address. A lifetime of 4294967295 is for ever.
type Lease6 struct {
	Address    netip.Addr `json:"address"`
	PreferredS uint32     `json:"preferred_s"`
	ValidS     uint32     `json:"valid_s"`
}

// Prefix6 is an offered or advertised prefix. A lifetime of 4294967295 is for
// ever.
type Prefix6 struct {
	Prefix     netip.Prefix `json:"prefix"`
	PreferredS uint32       `json:"preferred_s"`
	ValidS     uint32       `json:"valid_s"`
}

// Status6 is a status code with the server's own words, unchanged, up to 255
// bytes.
type Status6 struct {
	// Of is what it is about: "message", "ia_na", "ia_pd", "address", "prefix".
	Of string `json:"of"`
	// Code is as in RFC 8415 §21.13: 0 success, 2 NoAddrsAvail, 6
	// NoPrefixAvail.
	Code uint16 `json:"code"`
	Text string `json:"text,omitempty"`
}

// request6 writes a SOLICIT without rapid commit, or an INFORMATION-REQUEST if o
// says so. xid has 24 bits; hundredths is the time since the first try.
func request6(o *Options, duid []byte, hw mac, xid uint32, hundredths uint16) []byte {
	kind := byte(msgSolicit)
	if o.Inform {
		kind = msgInfRequest
	}
	b := []byte{kind, byte(xid >> 16), byte(xid >> 8), byte(xid)}
	b = append6(b, opt6ClientID, duid...)
	b = append6(b, opt6Elapsed, byte(hundredths>>8), byte(hundredths))
	b = append6(b, opt6ORO, 0, opt6DNS, 0, opt6Domains)
	if o.VendorClass != "" {
		// Enterprise 0, for nobody said whose; one class.
		class := append([]byte{0, 0, 0, 0, 0, byte(len(o.VendorClass))}, o.VendorClass...)
		b = append6(b, opt6VendorCls, class...)
	}
	if !o.Inform {
		// The IAID is of the MAC; T1 and T2 are left to the server.
		ia := []byte{hw[2], hw[3], hw[4], hw[5], 0, 0, 0, 0, 0, 0, 0, 0}
		b = append6(b, opt6IANA, ia...)
		if o.PrefixDelegation {
			b = append6(b, opt6IAPD, ia...)
		}
	}
	return b
}

// append6 adds an option.
func append6(b []byte, code uint16, value ...byte) []byte {
	b = append(b, byte(code>>8), byte(code), byte(len(value)>>8), byte(len(value)))
	return append(b, value...)
}

// answer6 says to which of xids b is an answer: errForeign if to none, or if it
// is no answer to a client.
func answer6(b []byte, xids []uint32) (try int, err error) {
	if len(b) < header6 || b[0] != msgAdvertise && b[0] != msgReply {
		return 0, errForeign
	}
	xid := binary.BigEndian.Uint32(b) & 0xffffff
	for i, x := range xids {
		if x&0xffffff == xid {
			return i, nil
		}
	}
	return 0, errForeign
}

// each calls f for every option of b, until f says no; it says whether b was
// whole and f said yes to all.
func each(b []byte, f func(code uint16, value []byte) bool) bool {
	for len(b) >= 4 {
		code, n := be16(b), int(be16(b[2:]))
		if b = b[4:]; n > len(b) || !f(code, b[:n]) {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}

// parse reads an ADVERTISE or REPLY to the client duid. It returns errMalformed
// if b is not whole or lacks the server's identifier, and errForeign if it is for
// another client (RFC 8415 §16.3).
func (a *Advertise) parse(b, duid []byte) error {
	if len(b) < header6 {
		return errMalformed
	}
	switch b[0] {
	case msgAdvertise:
		a.Type = "advertise"
	case msgReply:
		a.Type = "reply"
	default:
		return errMalformed
	}
	var client []byte
	whole := each(b[header6:], func(code uint16, v []byte) bool {
		switch code {
		case opt6ClientID:
			client = v
		case opt6ServerID:
			a.ServerDUID = hex.EncodeToString(v[:min(len(v), 130)])
		case opt6Preference:
			a.Preference = uint8(number(v, 1))
		case opt6Status:
			return a.status("message", v)
		case opt6DNS:
			a.DNS = addresses(v, 16)
		case opt6IANA, opt6IAPD:
			return a.association(code, v)
		}
		return true
	})
	switch {
	case !whole || a.ServerDUID == "":
		return errMalformed
	case !bytes.Equal(client, duid):
		return errForeign
	}
	return nil
}

// association reads an identity association: what is in it, and its status.
func (a *Advertise) association(kind uint16, b []byte) bool {
	of, within := "ia_na", "address"
	if kind == opt6IAPD {
		of, within = "ia_pd", "prefix"
	}
	if len(b) < ianaFixed {
		return false
	}
	return each(b[ianaFixed:], func(code uint16, v []byte) bool {
		switch {
		case code == opt6Status:
			return a.status(of, v)
		case code == opt6IAAddr && kind == opt6IANA:
			if len(v) < 24 {
				return false
			}
			// A valid lifetime of 0 takes the address back (§18.2.10.1).
			l := Lease6{address6(v), number(v[16:20], 4), number(v[20:24], 4)}
			if l.ValidS > 0 && l.PreferredS <= l.ValidS && len(a.Addresses) < maxAddrs {
				a.Addresses = append(a.Addresses, l)
			}
			return a.inner(within, v[24:])
		case code == opt6IAPrefix && kind == opt6IAPD:
			if len(v) < 25 || v[8] > 128 {
				return false
			}
			p := Prefix6{netip.PrefixFrom(address6(v[9:]), int(v[8])).Masked(), number(v[:4], 4), number(v[4:8], 4)}
			if p.ValidS > 0 && p.PreferredS <= p.ValidS && len(a.Prefixes) < maxAddrs {
				a.Prefixes = append(a.Prefixes, p)
			}
			return a.inner(within, v[25:])
		}
		return true
	})
}

func (a *Advertise) inner(of string, b []byte) bool {
	return each(b, func(code uint16, v []byte) bool {
		return code != opt6Status || a.status(of, v)
	})
}

// status keeps a status code.
func (a *Advertise) status(of string, b []byte) bool {
	if len(b) < 2 {
		return false
	}
	if len(a.Statuses) < maxAddrs {
		a.Statuses = append(a.Statuses, Status6{of, be16(b), text(b[2:])})
	}
	return true
}
