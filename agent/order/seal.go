package order

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/crypto/nacl/box"
)

// X25519Key is a Curve25519 public key that travels as padded base64.
type X25519Key [32]byte

// MarshalText implements encoding.TextMarshaler.
func (k X25519Key) MarshalText() ([]byte, error) {
	return []byte(PublicKey(k[:]).String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *X25519Key) UnmarshalText(text []byte) error {
	raw, err := decodeBase64(string(text))
	if err != nil || len(raw) != len(k) {
		return errors.New("x25519 key is not 32 bytes of base64")
	}
	copy(k[:], raw)
	return nil
}

// Secrets are what an order tells the gateway and nobody else. They print as
// nothing: only their fields hold them.
type Secrets struct {
	Account       string `json:"account,omitempty"`        // PPPoE user name in full
	Password      string `json:"password,omitempty"`       //
	LOID          string `json:"loid,omitempty"`           // ≤ 24 bytes
	LOIDPassword  string `json:"loid_password,omitempty"`  // ≤ 12 bytes
	PLOAMPassword string `json:"ploam_password,omitempty"` // G.984: 10 bytes
	VoiceUser     string `json:"voice_user,omitempty"`     // SIP user, often the telephone number
	VoicePassword string `json:"voice_password,omitempty"` //
}

const redacted = "***"

// String keeps secrets out of texts.
func (Secrets) String() string { return redacted }

// GoString keeps secrets out of texts.
func (Secrets) GoString() string { return redacted }

// Format implements fmt.Formatter, so that no verb prints a field.
func (Secrets) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// Empty reports whether there is no secret at all.
func (s Secrets) Empty() bool { return s == Secrets{} }

func (s Secrets) validate() error {
	for _, f := range []struct {
		name, value string
		max         int
	}{
		{"account", s.Account, 128},
		{"password", s.Password, 128},
		{"loid", s.LOID, 24},
		{"loid_password", s.LOIDPassword, 12},
		{"ploam_password", s.PLOAMPassword, 36},
		{"voice_user", s.VoiceUser, 64},
		{"voice_password", s.VoicePassword, 128},
	} {
		if len(f.value) > f.max {
			return fmt.Errorf("%s is longer than %d bytes", f.name, f.max)
		}
	}
	return nil
}

// Seal boxes secrets to a gateway's key (NaCl anonymous box: X25519,
// XSalsa20-Poly1305). The result goes into Order.Sealed.
func (s Secrets) Seal(to X25519Key) (Sealed, error) {
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("cannot seal secrets: %w", err)
	}
	type plain Secrets                  // without the methods that redact
	data, err := json.Marshal(plain(s)) //nolint:gosec // this is where secrets are encoded, to be sealed
	if err != nil {
		return nil, fmt.Errorf("cannot seal secrets: %w", err)
	}
	pub := [32]byte(to)
	sealed, err := box.SealAnonymous(nil, data, &pub, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot seal secrets: %w", err)
	}
	return sealed, nil
}

// Sealed is what Secrets.Seal makes; in JSON it is padded base64.
type Sealed []byte

// Unseal opens sealed secrets with the gateway's private key.
func (s Sealed) Unseal(pub X25519Key, private [32]byte) (Secrets, error) {
	p := [32]byte(pub)
	data, ok := box.OpenAnonymous(nil, s, &p, &private)
	if !ok {
		return Secrets{}, errors.New("cannot open sealed secrets: not sealed to this device's key, or altered")
	}
	type plain Secrets
	var secrets plain
	if err := decodeStrict(data, &secrets); err != nil {
		return Secrets{}, errors.New("cannot open sealed secrets: not of the known form")
	}
	if err := Secrets(secrets).validate(); err != nil {
		return Secrets{}, fmt.Errorf("cannot open sealed secrets: %w", err)
	}
	return Secrets(secrets), nil
}

// MaskAccount hides all but the first two characters of an account's name and
// its realm: "ad*****@163.gd".
func MaskAccount(account string) string {
	if account == "" {
		return ""
	}
	name, realm := account, ""
	for i := len(account) - 1; i >= 0; i-- {
		if account[i] == '@' {
			name, realm = account[:i], account[i:]
			break
		}
	}
	keep := min(2, len(name)/2)
	return name[:keep] + "*****" + realm
}
