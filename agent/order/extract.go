package order

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Extract is what the operator's AAA knows of an order's account: the half of
// 3A 同步 that no gateway can see. An operator key signs it. What is empty or
// zero was not extracted, and nothing is concluded from it. docs/aaa-extract.md
// describes the format for those who write extracts.
type Extract struct {
	V      int       `json:"v"`
	Order  string    `json:"order"`
	Device string    `json:"device"`
	Taken  time.Time `json:"taken"` // when the AAA was asked

	// Account is masked (MaskAccount), as in the order.
	Account string `json:"account,omitempty"`
	// State is one of the States of accounts.
	State AccountState `json:"state,omitempty"`
	// The rates that the AAA gives the account, 10⁶ bit/s.
	DownMbps float64 `json:"down_mbps,omitempty"`
	UpMbps   float64 `json:"up_mbps,omitempty"`
	// Template is the AAA's or the BRAS' own name for those rates.
	Template string `json:"template,omitempty"`

	// What the AAA tells the BRAS to hand out.
	Pools []netip.Prefix `json:"pools,omitempty"` // a v4 address, or a v6 prefix, is from one of them
	DNS   []netip.Addr   `json:"dns,omitempty"`
	MTU   uint32         `json:"mtu,omitempty"` // of the session, bytes
	VLAN  uint16         `json:"vlan,omitempty"`
	// MaxSessions is how many may be online at once.
	MaxSessions uint32 `json:"max_sessions,omitempty"`

	// Session is what accounting says of the session that is online; nil:
	// not extracted. No session at all is an empty one that is not online.
	Session *ExtractSession `json:"session,omitempty"`
}

// AccountState is an account's state in the AAA.
type AccountState string

// The states.
const (
	AccountActive    AccountState = "active"
	AccountSuspended AccountState = "suspended" // 欠费停机, or locked
	AccountClosed    AccountState = "closed"
	AccountMissing   AccountState = "missing" // the AAA does not know the account
)

// ExtractSession is a session as accounting shows it.
type ExtractSession struct {
	Online  bool         `json:"online"`
	Since   time.Time    `json:"since,omitzero"`
	V4      netip.Addr   `json:"framed_ipv4,omitzero"`
	V6      netip.Prefix `json:"framed_ipv6_prefix,omitzero"`
	PD      netip.Prefix `json:"delegated_ipv6_prefix,omitzero"`
	MAC     string       `json:"mac,omitempty"`      // Calling-Station-Id, any usual notation
	NAS     string       `json:"nas,omitempty"`      // its name or address
	NASPort string       `json:"nas_port,omitempty"` // NAS-Port-Id, as the BRAS writes it
	VLAN    uint16       `json:"vlan,omitempty"`
}

// Validate checks everything that needs no key.
func (e Extract) Validate() error {
	switch {
	case e.V != 1:
		return fmt.Errorf("extract version %d is not known", e.V)
	case !ValidID(e.Order):
		return fmt.Errorf("order %q is not 1 to 64 letters, digits, - and _", e.Order)
	case !ValidDevice(e.Device):
		return fmt.Errorf("device %q is not 8 to 23 letters and digits", e.Device)
	case e.Taken.IsZero():
		return errors.New("taken is missing: nobody could tell how old it is")
	case !(e.DownMbps >= 0 && e.DownMbps <= 100_000 && e.UpMbps >= 0 && e.UpMbps <= 100_000):
		return errors.New("down_mbps or up_mbps is out of range")
	case len(e.Pools) > maxList || len(e.DNS) > maxList:
		return fmt.Errorf("a list has more than %d entries", maxList)
	case e.VLAN > 4094 || e.Session != nil && e.Session.VLAN > 4094:
		return errors.New("vlan is out of range")
	case e.MTU != 0 && (e.MTU < 576 || e.MTU > 9216):
		return fmt.Errorf("mtu %d is not 576 to 9216", e.MTU)
	}
	switch e.State {
	case "", AccountActive, AccountSuspended, AccountClosed, AccountMissing:
	default:
		return fmt.Errorf("state %q is not known", e.State)
	}
	texts := []string{e.Account, e.Template}
	if e.Session != nil {
		texts = append(texts, e.Session.MAC, e.Session.NAS, e.Session.NASPort)
	}
	for _, s := range texts {
		if len(s) > 128 {
			return errors.New("a text is longer than 128 bytes")
		}
	}
	return validMasked(e.Account)
}

// Sign seals an extract with an operator key.
func (e Extract) Sign(operator ed25519.PrivateKey) (Envelope, error) {
	return signDocument(TypeExtract, e, e.Validate(), operator)
}

// OpenExtract verifies env against the operator keys of a trust list.
func OpenExtract(env Envelope, trust TrustList) (Extract, error) {
	var e Extract
	if _, err := openDocument(env, TypeExtract, &e, trust.KeysFor(RoleOperator)...); err != nil {
		return Extract{}, fmt.Errorf("cannot accept AAA extract: %w", err)
	}
	if err := e.Validate(); err != nil {
		return Extract{}, fmt.Errorf("cannot accept AAA extract: %w: %w", ErrMalformed, err)
	}
	return e, nil
}
