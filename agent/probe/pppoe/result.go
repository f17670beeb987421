package pppoe

import (
	"encoding/hex"
	"net/netip"
	"unicode/utf8"
)

// Outcome is how a dial ended.
type Outcome string

// The outcomes.
const (
	// OK is a session that came up, with an address, and was closed again.
	OK Outcome = "ok"
	// Offered is an offer in answer to a dial with DiscoveryOnly.
	Offered Outcome = "offered"
	// NoPADO is no answer to three PADIs.
	NoPADO Outcome = "no_pado"
	// PADOError is that all answers to the PADI carried an error tag.
	PADOError Outcome = "pado_error"
	// NoMatch is that there were offers, but none of the access concentrator
	// or for the service that was asked for.
	NoMatch Outcome = "no_match"
	// NoPADS is no answer to three PADRs.
	NoPADS Outcome = "no_pads"
	// PADSError is an answer to the PADR that opens no session.
	PADSError Outcome = "pads_error"
	// LCPNoAnswer is a peer that never spoke LCP, or never answered ours.
	LCPNoAnswer Outcome = "lcp_no_answer"
	// LCPRejected is a peer that refused our Configure-Request, or LCP, by a
	// Code-Reject or Protocol-Reject.
	LCPRejected Outcome = "lcp_rejected"
	// LCPNoAgreement is that the options were not agreed on.
	LCPNoAgreement Outcome = "lcp_no_agreement"
	// AuthUnsupported is a peer that insists on an authentication other than
	// PAP and CHAP-MD5.
	AuthUnsupported Outcome = "auth_unsupported"
	// AuthRejected is a refusal of the user's name or password, or of the
	// account for another reason: see Auth.ServerMessage.
	AuthRejected Outcome = "auth_rejected"
	// AuthNoAnswer is no word on an authentication.
	AuthNoAnswer Outcome = "auth_no_answer"
	// IPCPNoAnswer is a peer that never answered IPCP.
	IPCPNoAnswer Outcome = "ipcp_no_answer"
	// IPCPFailed is a peer that refused IPCP, or agreed on nothing.
	IPCPFailed Outcome = "ipcp_failed"
	// NoAddress is a peer that speaks IPCP but assigns no address.
	NoAddress Outcome = "no_address"
	// Terminated is a session that the peer ended, by a Terminate-Request
	// (Result.TerminateReason) or a PADT (Result.PADTReceived).
	Terminated Outcome = "terminated"
	// EchoLost is a session that came up, and then left the last echoes
	// unanswered: three, or all where there were fewer.
	EchoLost Outcome = "echo_lost"
	// Loop is that our own frames came back, and nobody else's; or our own
	// LCP packets did.
	Loop Outcome = "loop"
)

// Stage is how far a dial got: the stage in which it ended.
type Stage string

// The stages, in their order.
const (
	StageDiscovery    Stage = "discovery"
	StageSessionSetup Stage = "session_setup"
	StageLCP          Stage = "lcp"
	StageAuth         Stage = "auth"
	StageIPCP         Stage = "ipcp"
	StageIPv6CP       Stage = "ipv6cp"
	StageUp           Stage = "up"
)

// Result is what a dial found. Times are in milliseconds on the monotonic
// clock. Texts of servers are as they came; those that are not UTF-8 are in
// hexadecimal beside.
type Result struct {
	Interface string  `json:"interface"`
	VLAN      uint16  `json:"vlan,omitempty"`
	Outcome   Outcome `json:"outcome"`
	Stage     Stage   `json:"stage"`

	// Offers are the PADOs, those with errors included, at most 16.
	Offers []Offer `json:"offers,omitempty"`
	// ACMAC and ACName are the access concentrator's whose offer was taken.
	ACMAC     string `json:"ac_mac,omitempty"`
	ACName    string `json:"ac_name,omitempty"`
	SessionID uint16 `json:"session_id,omitempty"`
	// MaxPayloadAsked and MaxPayload are the PPP-Max-Payload of the PADI and
	// of the PADS; 0 is none.
	MaxPayloadAsked uint16 `json:"max_payload_asked,omitempty"`
	MaxPayload      uint16 `json:"max_payload,omitempty"`
	// VLANAnswered is the VLAN of the answers; nil if there was none.
	VLANAnswered *uint16 `json:"vlan_answered,omitempty"`
	// Errors are the error tags of all PADO, PADS and PADT, at most 16.
	Errors []ErrorTag `json:"errors,omitempty"`

	LCP  LCP  `json:"lcp"`
	Auth Auth `json:"auth"`
	// MTU is what a datagram may have: the least of the peer's MRU and what
	// the session carries. 0 until LCP is up.
	MTU uint16 `json:"mtu,omitempty"`

	Address netip.Addr `json:"address,omitzero"`
	Peer    netip.Addr `json:"peer,omitzero"`
	DNS1    netip.Addr `json:"dns1,omitzero"`
	DNS2    netip.Addr `json:"dns2,omitzero"`
	IPv6    IPv6       `json:"ipv6,omitzero"`
	Echo    Echo       `json:"echo"`

	// PADTReceived says that the access concentrator ended the session.
	PADTReceived bool `json:"padt_received,omitempty"`
	// PADTSent says that we did, at the very end.
	PADTSent bool `json:"padt_sent,omitempty"`
	// TerminateReason is the text of the peer's Terminate-Request.
	TerminateReason    string `json:"terminate_reason,omitempty"`
	TerminateReasonHex string `json:"terminate_reason_hex,omitempty"`
	// TerminateAcked says that the peer confirmed the end of PPP.
	TerminateAcked bool `json:"terminate_acked,omitempty"`

	// Looped counts our own frames that came back, Malformed those that are
	// none of the protocol's, and were ignored.
	Looped    int `json:"looped,omitempty"`
	Malformed int `json:"malformed,omitempty"`

	// What the stages took; 0 for those not reached.
	DiscoveryMs    float64 `json:"discovery_ms"`
	SessionSetupMs float64 `json:"session_setup_ms"`
	LCPMs          float64 `json:"lcp_ms"`
	AuthMs         float64 `json:"auth_ms"`
	IPCPMs         float64 `json:"ipcp_ms"`
	IPv6CPMs       float64 `json:"ipv6cp_ms"` // beyond IPCP
	UpMs           float64 `json:"up_ms"`
	TerminateMs    float64 `json:"terminate_ms"`
	TotalMs        float64 `json:"total_ms"`
}

// Offer is a PADO.
type Offer struct {
	MAC          string     `json:"mac"`
	ACName       string     `json:"ac_name"`
	ServiceNames []string   `json:"service_names,omitempty"` // at most 32
	MaxPayload   uint16     `json:"max_payload,omitempty"`
	Errors       []ErrorTag `json:"errors,omitempty"`
	OfferMs      float64    `json:"offer_ms"` // since the first PADI

	from mac
	tags *tags
}

// ErrorTag is a tag by which a server says what is wrong.
type ErrorTag struct {
	Packet  string `json:"packet"` // PADO, PADS or PADT
	Tag     uint16 `json:"tag"`    // 0x0201, 0x0202 or 0x0203
	Name    string `json:"name"`   // the tag's: Service-Name-Error, AC-System-Error or Generic-Error
	Text    string `json:"text"`
	TextHex string `json:"text_hex,omitempty"`
}

// LCP is what was agreed on for the link.
type LCP struct {
	MRUAsked uint16 `json:"mru_asked,omitempty"` // ours, at first
	MRU      uint16 `json:"mru,omitempty"`       // ours, as the peer accepted it
	PeerMRU  uint16 `json:"peer_mru,omitempty"`  // 0 if it named none: 1500
	Magic    uint32 `json:"magic,omitempty"`
	// PeerMagic is 0 if the peer has none.
	PeerMagic uint32 `json:"peer_magic,omitempty"`
	// AuthAsked are the protocols that the peer asked for, in its order.
	AuthAsked []string `json:"auth_asked,omitempty"`
	// Rejected are the types of our options that the peer rejected,
	// PeerRejected those of its own that we did.
	Rejected     []int `json:"rejected,omitempty"`
	PeerRejected []int `json:"peer_rejected,omitempty"`
	// Requests is how often we sent a Configure-Request.
	Requests int `json:"requests,omitempty"`
}

// Auth is what came of the authentication.
type Auth struct {
	Protocol string `json:"protocol,omitempty"` // pap, chap_md5; none if the peer wants none
	Result   string `json:"result,omitempty"`   // accepted, rejected, no_answer
	// ServerMessage is the text of the acceptance or refusal; with RADIUS the
	// Reply-Message.
	ServerMessage    string `json:"server_message,omitempty"`
	ServerMessageHex string `json:"server_message_hex,omitempty"`
	ServerName       string `json:"server_name,omitempty"` // of a CHAP challenge
	// Attempts counts authentications; Sends counts messages, so that
	// repetitions of the same are Sends - Attempts.
	Attempts int `json:"attempts"`
	Sends    int `json:"sends"`
}

// IPv6 is what IPv6CP gave.
type IPv6 struct {
	Result string `json:"result,omitempty"` // up, rejected, no_answer
	// The interface identifiers, as link-local addresses.
	Local netip.Addr `json:"local,omitzero"`
	Peer  netip.Addr `json:"peer,omitzero"`
}

// Echo is what the LCP echoes measured.
type Echo struct {
	Sent      int     `json:"sent"`
	Received  int     `json:"received"`
	LossRatio float64 `json:"loss_ratio"` // 0 to 1
	MinMs     float64 `json:"min_ms"`
	AvgMs     float64 `json:"avg_ms"`
	MaxMs     float64 `json:"max_ms"`
}

// again forgets what the next attempt finds out anew.
func (r *Result) again() {
	*r = Result{
		Interface: r.Interface, VLAN: r.VLAN, VLANAnswered: r.VLANAnswered,
		Errors: r.Errors, Looped: r.Looped, Malformed: r.Malformed,
		Auth: Auth{Attempts: r.Auth.Attempts, Sends: r.Auth.Sends},
	}
}

// text returns a server's text, bounded, and in hexadecimal if it is no UTF-8.
func text(b []byte) (verbatim, hexadecimal string) {
	b = b[:min(len(b), maxText)]
	if !utf8.Valid(b) {
		hexadecimal = hex.EncodeToString(b)
	}
	return string(b), hexadecimal
}
