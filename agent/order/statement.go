package order

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
)

// Statement is the operator's word on which keys a gateway holds. It travels
// in every record.
type Statement struct {
	V       int       `json:"v"`
	Device  string    `json:"device"`
	Ed25519 PublicKey `json:"ed25519"`  // signs records
	X25519  X25519Key `json:"x25519"`   // opens sealed secrets
	TLSSPKI string    `json:"tls_spki"` // SHA-256 of the TLS key's SubjectPublicKeyInfo, hex
}

// Validate checks everything that needs no key.
func (s Statement) Validate() error {
	if s.V != 1 {
		return fmt.Errorf("statement version %d is not known", s.V)
	}
	if !ValidDevice(s.Device) {
		return fmt.Errorf("device %q is not 8 to 23 letters and digits", s.Device)
	}
	if len(s.Ed25519) != ed25519.PublicKeySize {
		return fmt.Errorf("statement of %s has no ed25519 key", s.Device)
	}
	if s.X25519 == (X25519Key{}) {
		return fmt.Errorf("statement of %s has no x25519 key", s.Device)
	}
	if raw, err := hex.DecodeString(s.TLSSPKI); err != nil || len(raw) != 32 {
		return fmt.Errorf("statement of %s: tls_spki is not a SHA-256 in hex", s.Device)
	}
	return nil
}

// Sign seals a statement with an operator key.
func (s Statement) Sign(operator ed25519.PrivateKey) (Envelope, error) {
	return signDocument(TypeStatement, s, s.Validate(), operator)
}

// OpenStatement verifies env against the operator keys of a trust list.
func OpenStatement(env Envelope, trust TrustList) (Statement, error) {
	var s Statement
	if _, err := openDocument(env, TypeStatement, &s, trust.KeysFor(RoleOperator)...); err != nil {
		return Statement{}, fmt.Errorf("cannot accept device statement: %w", err)
	}
	if err := s.Validate(); err != nil {
		return Statement{}, fmt.Errorf("cannot accept device statement: %w: %w", ErrMalformed, err)
	}
	return s, nil
}
