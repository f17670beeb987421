package order

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// PublicKey is an Ed25519 public key that travels as padded base64.
type PublicKey ed25519.PublicKey

// ParsePublicKey reads a key as it is written by PublicKey.String.
func ParsePublicKey(s string) (PublicKey, error) {
	raw, err := decodeBase64(strings.TrimSpace(s))
	if err != nil {
		return nil, fmt.Errorf("public key is not base64: %w", err)
	}
	if len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key is %d bytes long instead of %d", len(raw), ed25519.PublicKeySize)
	}
	return PublicKey(raw), nil
}

func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k) }

// ID is KeyID of k.
func (k PublicKey) ID() string { return KeyID(ed25519.PublicKey(k)) }

// MarshalText implements encoding.TextMarshaler.
func (k PublicKey) MarshalText() ([]byte, error) {
	if len(k) != ed25519.PublicKeySize {
		return nil, errors.New("public key has the wrong length")
	}
	return []byte(k.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *PublicKey) UnmarshalText(text []byte) error {
	key, err := ParsePublicKey(string(text))
	if err != nil {
		return err
	}
	*k = key
	return nil
}
