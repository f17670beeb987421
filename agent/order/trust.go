package order

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
)

// Role says what a key of the trust list may sign.
type Role string

// The roles.
const (
	RoleOperator  Role = "operator"  // orders and device statements
	RoleNOC       Role = "noc"       // read-only diagnosis without an order, where the gateway allows it
	RoleCollector Role = "collector" // acknowledgements
	RoleTime      Role = "time"      // the time, in answer to a challenge
)

// TrustList names the keys that act for the operator. It is signed by the root
// key; a gateway keeps the highest version it has seen and refuses older ones.
type TrustList struct {
	V       int        `json:"v"`
	Version uint64     `json:"version"` // rises with every issue, from 1
	Tenant  string     `json:"tenant"`
	Keys    []TrustKey `json:"keys"`
	// RevokedKeys are key ids, of this list or of technicians.
	RevokedKeys   []string `json:"revoked_keys,omitempty"`
	RevokedOrders []string `json:"revoked_orders,omitempty"`
}

// TrustKey is one key of a trust list.
type TrustKey struct {
	ID   string    `json:"id"` // the operator's own name for the key
	Role Role      `json:"role"`
	Key  PublicKey `json:"key"`
}

// KeysFor returns the keys with a role that are not revoked.
func (t TrustList) KeysFor(role Role) []ed25519.PublicKey {
	var keys []ed25519.PublicKey
	for _, k := range t.Keys {
		if k.Role == role && !t.KeyRevoked(k.Key.ID()) {
			keys = append(keys, ed25519.PublicKey(k.Key))
		}
	}
	return keys
}

// KeyRevoked reports whether the list revokes the key with this id.
func (t TrustList) KeyRevoked(keyID string) bool { return slices.Contains(t.RevokedKeys, keyID) }

// OrderRevoked reports whether the list revokes an order.
func (t TrustList) OrderRevoked(order string) bool { return slices.Contains(t.RevokedOrders, order) }

// Validate checks everything that needs no key.
func (t TrustList) Validate() error {
	if t.V != 1 {
		return fmt.Errorf("trust list version %d is not known", t.V)
	}
	if t.Version == 0 {
		return fmt.Errorf("trust list has no version")
	}
	if !validTenant(t.Tenant) {
		return fmt.Errorf("tenant %q is not a name", t.Tenant)
	}
	for i, k := range t.Keys {
		switch k.Role {
		case RoleOperator, RoleNOC, RoleCollector, RoleTime:
		default:
			return fmt.Errorf("keys[%d]: role %q is not known", i, k.Role)
		}
		if len(k.Key) != ed25519.PublicKeySize {
			return fmt.Errorf("keys[%d]: no key", i)
		}
	}
	return nil
}

// Sign seals a trust list with the root key.
func (t TrustList) Sign(root ed25519.PrivateKey) (Envelope, error) {
	return signDocument(TypeTrustList, t, t.Validate(), root)
}

// OpenTrustList verifies env against the root key.
func OpenTrustList(env Envelope, root ed25519.PublicKey) (TrustList, error) {
	var t TrustList
	if _, err := openDocument(env, TypeTrustList, &t, root); err != nil {
		return TrustList{}, fmt.Errorf("cannot accept trust list: %w", err)
	}
	if err := t.Validate(); err != nil {
		return TrustList{}, fmt.Errorf("cannot accept trust list: %w: %w", ErrMalformed, err)
	}
	return t, nil
}

// signDocument refuses an invalid document, else encodes and signs it.
func signDocument(payloadType string, doc any, invalid error, key ed25519.PrivateKey) (Envelope, error) {
	if invalid != nil {
		return Envelope{}, fmt.Errorf("cannot sign: %w", invalid)
	}
	payload, err := json.Marshal(doc)
	if err != nil {
		return Envelope{}, fmt.Errorf("cannot encode for signing: %w", err)
	}
	return Sign(payloadType, payload, key)
}

// openDocument verifies env and decodes its payload strictly into doc.
func openDocument(env Envelope, payloadType string, doc any, keys ...ed25519.PublicKey) (keyID string, err error) {
	payload, keyID, err := Open(env, payloadType, keys...)
	if err != nil {
		return "", err
	}
	if err := decodeStrict(payload, doc); err != nil {
		return "", fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return keyID, nil
}
