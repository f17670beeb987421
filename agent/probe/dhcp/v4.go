package dhcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// The ports and message types of DHCPv4.
const (
	serverPort4 = 67
	clientPort4 = 68

	msgDiscover = 1
	msgOffer    = 2
	msgAck      = 5
	msgNak      = 6
	msgInform   = 8
)

// The options used (RFC 2132; 125: RFC 3925).
const (
	optMask        = 1
	optRouter      = 3
	optDNS         = 6
	optDomain      = 15
	optMTU         = 26
	optNTP         = 42
	optVendorInfo  = 43
	optLease       = 51
	optOverload    = 52
	optType        = 53
	optServerID    = 54
	optParameters  = 55
	optMessage     = 56
	optMaxSize     = 57
	optRenew       = 58
	optRebind      = 59
	optVendorClass = 60
	optClientID    = 61
	optVIVendor    = 125
)

// Where things are in a message; bootpHeader is up to and with the magic cookie.
const (
	bootpYours    = 16 // then the next server and the relay
	bootpHardware = 28
	bootpSname    = 44
	bootpFile     = 108
	bootpCookie   = 236
	bootpHeader   = 240
)

// The bounds of what is kept of an answer.
const (
	maxText  = 255
	maxAddrs = 8
)

var (
	errForeign   = errors.New("answer to someone else")
	errMalformed = errors.New("malformed answer")
)

// Offer is what one DHCPv4 server answered.
type Offer struct {
	// Type is "offer"; "ack" for what was asked with Inform; "nak".
	Type string `json:"type"`
	// ServerID is option 54; From and FromMAC are where the frame came from,
	// which behind a relay is the relay. Relay is giaddr.
	ServerID netip.Addr `json:"server_id,omitzero"`
	From     netip.Addr `json:"from"`
	FromMAC  string     `json:"from_mac"`
	Relay    netip.Addr `json:"relay,omitzero"`
	// NextServer is siaddr.
	NextServer netip.Addr `json:"next_server,omitzero"`
	Address    netip.Addr `json:"address,omitzero"`
	// PrefixLength is the mask's, 0 if there is none or it is no mask.
	PrefixLength int          `json:"prefix_length,omitempty"`
	Routers      []netip.Addr `json:"routers,omitempty"`
	DNS          []netip.Addr `json:"dns,omitempty"`
	NTP          []netip.Addr `json:"ntp,omitempty"`
	Domain       string       `json:"domain,omitempty"`
	MTU          uint16       `json:"mtu,omitempty"`
	LeaseS       uint32       `json:"lease_s,omitempty"`
	RenewS       uint32       `json:"renew_s,omitempty"`
	RebindS      uint32       `json:"rebind_s,omitempty"`
	// VendorClass (option 60) and Message (56) are the server's own text,
	// unchanged: control characters and all, up to 255 bytes.
	VendorClass string `json:"vendor_class,omitempty"`
	Message     string `json:"message,omitempty"`
	// Whether there are vendor options 43 and 125. What is in them may be
	// secret and is not kept.
	HasVendorInfo bool `json:"has_option_43"`
	HasVIVendor   bool `json:"has_option_125"`
	// Try is the request that this answers, from 0; LatencyMs is from sending
	// it.
	Try       int     `json:"try"`
	LatencyMs float64 `json:"latency_ms"`
}

// request4 writes a DISCOVER, or an INFORM if o says so.
func request4(o *Options, hw mac, xid uint32, seconds uint16) []byte {
	wanted := []byte{
		optMask, optRouter, optDNS, optDomain, optMTU, optNTP, optVendorInfo, optServerID, optVendorClass, optVIVendor,
		optLease, optRenew, optRebind,
	}
	m := dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, ClientHWAddr: hw[:],
		NumSeconds: seconds, Flags: 0x8000, // answer by broadcast: nobody has the address
		Options: dhcpv4.Options{
			optType:       {msgDiscover},
			optParameters: wanted,
			optMaxSize:    {1500 >> 8, 1500 & 0xff},
		},
	}
	binary.BigEndian.PutUint32(m.TransactionID[:], xid)
	if o.Inform {
		m.Options[optType] = []byte{msgInform}
		m.Options[optParameters] = wanted[:len(wanted)-3] // it has no lease to ask about
		m.ClientIPAddr = o.Address.AsSlice()
		m.Flags = 0
	}
	if o.VendorClass != "" {
		m.Options[optVendorClass] = []byte(o.VendorClass)
	}
	if len(o.ClientID) > 0 {
		m.Options[optClientID] = o.ClientID
	}
	return m.ToBytes()
}

// answer4 says to which of xids b is an answer: errForeign if to none, or if it
// is no answer (our own question, come back).
func answer4(b []byte, hw mac, xids []uint32) (try int, err error) {
	if len(b) < 8 || b[0] != byte(dhcpv4.OpcodeBootReply) {
		return 0, errForeign
	}
	xid := binary.BigEndian.Uint32(b[4:])
	for i, x := range xids {
		if x == xid && len(b) >= bootpHardware+len(hw) && mac(b[bootpHardware:]) == hw {
			return i, nil
		}
	}
	return 0, errForeign
}

// parse reads an OFFER, ACK or NAK. It returns errMalformed if b is none of them,
// or breaks the rules of its type.
func (o *Offer) parse(b []byte) error {
	m, err := dhcpv4.FromBytes(b)
	if err != nil {
		return errMalformed
	}
	// Options may go on in the fields of BOOTP (RFC 2132 §9.3); the library
	// does not follow. A broken continuation takes only itself away.
	opts := m.Options
	if over := opts[optOverload]; len(over) == 1 {
		if over[0]&1 != 0 {
			_ = opts.FromBytes(b[bootpFile:bootpCookie])
		}
		if over[0]&2 != 0 {
			_ = opts.FromBytes(b[bootpSname:bootpFile])
		}
	}
	o.ServerID = address4(opts[optServerID])
	o.Address, o.NextServer, o.Relay = address4(m.YourIPAddr), address4(m.ServerIPAddr), address4(m.GatewayIPAddr)
	o.PrefixLength = maskLength(opts[optMask])
	o.Routers, o.DNS, o.NTP = addresses(opts[optRouter], 4), addresses(opts[optDNS], 4), addresses(opts[optNTP], 4)
	o.Domain = text(bytes.TrimRight(opts[optDomain], "\x00"))
	o.MTU = uint16(number(opts[optMTU], 2))
	o.LeaseS, o.RenewS, o.RebindS = number(opts[optLease], 4), number(opts[optRenew], 4), number(opts[optRebind], 4)
	o.VendorClass, o.Message = text(opts[optVendorClass]), text(opts[optMessage])
	_, o.HasVendorInfo = opts[optVendorInfo]
	_, o.HasVIVendor = opts[optVIVendor]
	switch number(opts[optType], 1) {
	case msgOffer:
		o.Type = "offer"
		if !usable(o.Address) || !o.ServerID.IsValid() {
			return errMalformed
		}
	case msgAck:
		o.Type = "ack"
	case msgNak:
		o.Type = "nak"
	default:
		return errMalformed
	}
	return nil
}

// usable says whether a can be a host's address.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// address4 returns the address, or none if b isn't one or is 0.0.0.0.
func address4(b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok || !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// address6 reads an IPv6 address.
func address6(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b)) }

// addresses returns the first few addresses of size bytes each.
func addresses(b []byte, size int) []netip.Addr {
	var all []netip.Addr
	for ; len(b) >= size && len(all) < maxAddrs; b = b[size:] {
		a, _ := netip.AddrFromSlice(b[:size])
		all = append(all, a)
	}
	return all
}

// number reads a big-endian number, which is 0 if it hasn't the right size.
func number(b []byte, size int) uint32 {
	if len(b) != size {
		return 0
	}
	var n uint32
	for _, c := range b {
		n = n<<8 | uint32(c)
	}
	return n
}

// maskLength returns the length of a contiguous mask, else 0.
func maskLength(b []byte) int {
	mask := number(b, 4)
	n := 0
	for ; mask&0x80000000 != 0; mask <<= 1 {
		n++
	}
	if mask != 0 {
		return 0
	}
	return n
}

// text keeps a server's words as they are, bounded.
func text(b []byte) string { return string(b[:min(len(b), maxText)]) }
