package order

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"ontagent/transport"
)

// Ack is a collector's word on what of a gateway's records and events it has
// stored.
//
// Events are acknowledged cumulatively, per epoch: everything up to a point's Seq
// of its Epoch is stored, or told by the gateway to be a gap. Gap events are not
// signed, so whoever can publish in the gateway's name can forge one. What must
// not be lost that way, class record, is acknowledged message by message, by
// content.
type Ack struct {
	V       int                `json:"v"`
	Tenant  string             `json:"tenant"`
	Device  string             `json:"device"`
	Version uint64             `json:"version"`          // rises with every Ack to a device, from 1
	Points  []transport.Point  `json:"points,omitempty"` // of class event; at most MaxPoints, each epoch once
	Stored  []transport.Stored `json:"stored,omitempty"` // of class record; at most MaxStored, each epoch and seq once
}

// MaxPoints and MaxStored bound one Ack, which has at least one of either.
const (
	MaxPoints = 64
	MaxStored = 64
)

// maxAck bounds an Ack's payload, in bytes of base64: one with MaxPoints and
// MaxStored of the largest numbers takes four fifths of it.
const maxAck = 24 << 10

// Validate checks everything that needs no key.
func (a Ack) Validate() error {
	switch {
	case a.V != 1:
		return fmt.Errorf("acknowledgement version %d is not known", a.V)
	case !validTenant(a.Tenant):
		return fmt.Errorf("tenant %.40q is not a name", a.Tenant)
	case !ValidDevice(a.Device):
		return fmt.Errorf("device %.40q is not 8 to 23 letters and digits", a.Device)
	case a.Version == 0:
		return errors.New("version is missing")
	case len(a.Points) == 0 && len(a.Stored) == 0:
		return errors.New("there is nothing in it")
	case len(a.Points) > MaxPoints:
		return fmt.Errorf("%d points are more than %d", len(a.Points), MaxPoints)
	case len(a.Stored) > MaxStored:
		return fmt.Errorf("%d stored are more than %d", len(a.Stored), MaxStored)
	}
	for i, p := range a.Points {
		switch {
		case p.Class != transport.ClassEvent:
			return fmt.Errorf("points[%d]: class %.40q is not acknowledged so", i, string(p.Class))
		case p.Epoch == 0 || p.Seq == 0:
			return fmt.Errorf("points[%d]: epoch or seq is missing", i)
		}
		for _, other := range a.Points[:i] {
			if other.Epoch == p.Epoch {
				return fmt.Errorf("points[%d]: epoch stands twice", i)
			}
		}
	}
	for i, s := range a.Stored {
		switch {
		case s.Class != transport.ClassRecord:
			return fmt.Errorf("stored[%d]: class %.40q is not acknowledged so", i, string(s.Class))
		case s.Epoch == 0 || s.Seq == 0:
			return fmt.Errorf("stored[%d]: epoch or seq is missing", i)
		case !validDigest(s.SHA256):
			return fmt.Errorf("stored[%d]: sha256 is not 64 hex digits", i)
		}
		for _, other := range a.Stored[:i] {
			if other.Epoch == s.Epoch && other.Seq == s.Seq {
				return fmt.Errorf("stored[%d]: epoch and seq stand twice", i)
			}
		}
	}
	return nil
}

// validDigest reports whether s is a SHA-256 in hex, written the only way.
func validDigest(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == 64
}

// Sign seals an acknowledgement with a collector key.
func (a Ack) Sign(collector ed25519.PrivateKey) (Envelope, error) {
	return signDocument(TypeAck, a, a.Validate(), collector)
}

// OpenAck verifies env against the collector keys of a trust list. Errors are
// compatible with errors.Is for the errors of envelopes and ErrTooLarge.
func OpenAck(env Envelope, trust TrustList) (Ack, error) {
	if len(env.Payload) > maxAck {
		return Ack{}, fmt.Errorf("cannot accept acknowledgement: %w", ErrTooLarge)
	}
	var a Ack
	if _, err := openDocument(env, TypeAck, &a, trust.KeysFor(RoleCollector)...); err != nil {
		return Ack{}, fmt.Errorf("cannot accept acknowledgement: %w", err)
	}
	if err := a.Validate(); err != nil {
		return Ack{}, fmt.Errorf("cannot accept acknowledgement: %w: %w", ErrMalformed, err)
	}
	return a, nil
}

// OpenAck verifies an acknowledgement for this gateway by the trust list in
// force. Whether it is newer than the last one is for the queue to judge, which
// keeps its version. Errors are *RefusalError.
func (a *Authority) OpenAck(env Envelope) (Ack, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.trusted {
		return Ack{}, refuse(ReasonUnknownKey, "this device has no trust list yet")
	}
	ack, err := OpenAck(env, a.trust)
	switch {
	case err != nil:
		return Ack{}, a.refuseSigned(env, err)
	case ack.Tenant != a.o.Tenant:
		return Ack{}, refuse(ReasonWrongTenant, "acknowledgement is for tenant %q", ack.Tenant)
	case ack.Device != a.o.Device:
		return Ack{}, refuse(ReasonWrongDevice, "acknowledgement is for device %s", ack.Device)
	}
	return ack, nil
}
