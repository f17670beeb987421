package order

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Payload types. Each kind of document has its own, so that a signature over
// one can never pass for another.
const (
	TypeTrustList = "application/vnd.ontagent.trust+json"
	TypeStatement = "application/vnd.ontagent.statement+json"
	TypeOrder     = "application/vnd.ontagent.order+json"
	TypeCommand   = "application/vnd.ontagent.command+json"
	TypeTime      = "application/vnd.ontagent.time+json"
	TypeRecord    = "application/vnd.ontagent.record+json"
	TypeAck       = "application/vnd.ontagent.ack+json"
	TypeConfig    = "application/vnd.ontagent.cfg+json"
	TypeExtract   = "application/vnd.ontagent.extract+json"
)

// Envelope is a DSSE envelope with exactly one Ed25519 signature.
type Envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"` // padded base64
	Signatures  []Signature `json:"signatures"`
}

// Signature is the signature of an Envelope.
type Signature struct {
	KeyID string `json:"keyid"` // KeyID of the signer
	Sig   string `json:"sig"`   // padded base64
}

// PAE is what is signed: DSSE's pre-authentication encoding,
//
//	"DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload
//
// with lengths in decimal bytes (DSSE v1, protocol.md, Signature Definition).
func PAE(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len("DSSEv1    ")+len(payloadType)+len(payload)+2*len("18446744073709551615"))
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}

// Errors of envelopes.
var (
	ErrUnsigned     = errors.New("envelope carries no signature")
	ErrBadSignature = errors.New("signature does not match")
	ErrUnknownKey   = errors.New("signed by an unknown key")
	ErrMalformed    = errors.New("malformed envelope")
)

// KeyID names a public key: the first 16 bytes of its SHA-256, in hex.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:16])
}

// Sign puts payload into an envelope of the given type.
func Sign(payloadType string, payload []byte, key ed25519.PrivateKey) (Envelope, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PrivateKeySize {
		return Envelope{}, errors.New("cannot sign: not an Ed25519 private key")
	}
	sig := ed25519.Sign(key, PAE(payloadType, payload))
	return Envelope{
		PayloadType: payloadType,
		Payload:     base64.StdEncoding.EncodeToString(payload),
		Signatures:  []Signature{{KeyID: KeyID(pub), Sig: base64.StdEncoding.EncodeToString(sig)}},
	}, nil
}

// ParseEnvelope decodes an envelope strictly: unknown or repeated fields, more
// than one signature and non-canonical base64 are refused. Errors are
// compatible with errors.Is(err, ErrMalformed) or ErrUnsigned.
func ParseEnvelope(data []byte) (Envelope, error) {
	var env Envelope
	if err := decodeStrict(data, &env); err != nil {
		return Envelope{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := env.check(); err != nil {
		return Envelope{}, err
	}
	return env, nil
}

// check reports what makes env unfit to be opened, whatever the keys.
func (env Envelope) check() error {
	switch {
	case len(env.Signatures) == 0:
		return ErrUnsigned
	case len(env.Signatures) > 1:
		return fmt.Errorf("%w: %d signatures instead of one", ErrMalformed, len(env.Signatures))
	}
	if _, err := decodeBase64(env.Payload); err != nil {
		return fmt.Errorf("%w: payload: %w", ErrMalformed, err)
	}
	if sig, err := decodeBase64(env.Signatures[0].Sig); err != nil || len(sig) != ed25519.SignatureSize {
		return fmt.Errorf("%w: signature is not %d bytes of base64", ErrMalformed, ed25519.SignatureSize)
	}
	return nil
}

// Open verifies env against the key it names among keys and returns the exact
// payload bytes and that key's id. The envelope must have come through
// ParseEnvelope or Sign.
func Open(env Envelope, payloadType string, keys ...ed25519.PublicKey) (payload []byte, keyID string, err error) {
	if len(env.Signatures) != 1 {
		return nil, "", ErrUnsigned
	}
	if env.PayloadType != payloadType {
		return nil, "", fmt.Errorf("%w: payload type %q instead of %q", ErrMalformed, env.PayloadType, payloadType)
	}
	payload, err = decodeBase64(env.Payload)
	if err != nil {
		return nil, "", fmt.Errorf("%w: payload: %w", ErrMalformed, err)
	}
	sig, err := decodeBase64(env.Signatures[0].Sig)
	if err != nil {
		return nil, "", fmt.Errorf("%w: signature: %w", ErrMalformed, err)
	}
	for _, key := range keys {
		if KeyID(key) != env.Signatures[0].KeyID {
			continue
		}
		if !ed25519.Verify(key, PAE(payloadType, payload), sig) {
			return nil, "", ErrBadSignature
		}
		return payload, env.Signatures[0].KeyID, nil
	}
	return nil, "", fmt.Errorf("%w %q", ErrUnknownKey, env.Signatures[0].KeyID)
}

// decodeBase64 accepts standard, padded, canonical base64 only: a flipped bit
// in unused trailing bits or an added line end is an error.
func decodeBase64(s string) ([]byte, error) {
	data, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, err
	}
	if base64.StdEncoding.EncodedLen(len(data)) != len(s) {
		return nil, errors.New("stray characters in base64")
	}
	return data, nil
}

// decodeStrict decodes exactly one JSON object into v, refusing unknown,
// repeated and wrongly cased fields and trailing data. The text of the error is
// bounded, however much of the data it quotes.
func decodeStrict(data []byte, v any) error {
	err := checkKeys(json.NewDecoder(bytes.NewReader(data)), 0)
	if err == nil {
		err = decodeKnown(data, v)
	}
	if err != nil && len(err.Error()) > maxErrorText {
		// A name of 60 KiB in an unsigned message, quoted, would fill log and
		// answers.
		return errors.New(strings.ToValidUTF8(err.Error()[:maxErrorText], "") + "…")
	}
	return err
}

// maxErrorText bounds an error about data of unknown origin, in bytes.
const maxErrorText = 200

// decodeKnown decodes exactly one JSON object into v, refusing unknown fields.
func decodeKnown(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.More() || len(bytes.TrimSpace(data[dec.InputOffset():])) > 0 {
		return errors.New("data after the JSON object")
	}
	return nil
}

const maxDepth = 16

// checkKeys walks one JSON value and refuses a key that stands twice in one
// object or is not written as we write it: encoding/json would take the last of
// the two, and does not look at case, where another reader does.
func checkKeys(dec *json.Decoder, depth int) error {
	if depth > maxDepth {
		return errors.New("nested too deeply")
	}
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			keyTok, err := dec.Token()
			if err != nil {
				return err
			}
			key, ok := keyTok.(string)
			if !ok {
				return errors.New("object key is not a string")
			}
			if seen[key] {
				return fmt.Errorf("field %q stands twice", key)
			}
			if !rightlyCased(key) {
				return fmt.Errorf("unknown field %q", key)
			}
			seen[key] = true
		}
		if err := checkKeys(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// rightlyCased: every key of ours is lower-case ASCII, except DSSE's
// payloadType. Other letters could fold to ours.
func rightlyCased(key string) bool {
	if key == "payloadType" {
		return true
	}
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' {
			return false
		}
	}
	return key != "payloadtype"
}
