package order

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// CommandType is what a command asks for. There is no shell among them, and no
// free-form string reaches a program.
type CommandType string

// The command types.
const (
	Accept     CommandType = "accept"    // run the ladder, close a record
	Diagnose   CommandType = "diagnose"  // run the read-only rungs, no record
	Provision  CommandType = "provision" //
	RepairCmd  CommandType = "repair"    // safe self-healing
	Inspection CommandType = "inspect"   //
	Close      CommandType = "close"     // nothing more under this order
	Cancel     CommandType = "cancel"    // stop a running job of this order
)

// Known reports whether t is a command type at all.
func (t CommandType) Known() bool {
	switch t {
	case Accept, Diagnose, Provision, RepairCmd, Inspection, Close, Cancel:
		return true
	}
	return false
}

// Command is one thing to do now, signed by a technician the order names.
type Command struct {
	V       int         `json:"v"`
	ID      string      `json:"id"`    // unique for ever; the same id gets the stored answer
	Order   string      `json:"order"` // empty only for a NOC's read-only diagnosis
	Rev     uint64      `json:"rev"`
	Device  string      `json:"device"`
	Type    CommandType `json:"type"`
	Args    Args        `json:"args"`
	Counter uint64      `json:"counter"` // rises with every command of a key
	// Nonce answers a CHALLENGE; empty otherwise.
	Nonce string `json:"nonce,omitempty"`
}

// Args are the typed arguments of all command types; Validate refuses those
// that the type does not take.
type Args struct {
	Target string `json:"target,omitempty"` // cancel: the id of the job to stop
	// Action is what a repair does; empty: what the diagnosis advises.
	Action RepairAction `json:"action,omitempty"`
	// Standing has the gateway keep the order of a repair, and heal itself
	// under it while it is valid, without a further command.
	Standing bool `json:"standing,omitempty"`
}

// RepairAction is something that may bring a line back and costs at most its
// sessions. What it is done to comes from the gateway's configuration.
type RepairAction string

// The actions of a repair.
const (
	ActionRedial  RepairAction = "redial"            // end the PPPoE session and dial again
	ActionRenew   RepairAction = "renew"             // ask DHCP for the lease anew
	ActionRestart RepairAction = "restart_interface" // take one interface down and up
	ActionReread  RepairAction = "reread_module"     // read the optical module from the beginning
)

// known reports whether a is an action, or none.
func (a RepairAction) known() bool {
	switch a {
	case "", ActionRedial, ActionRenew, ActionRestart, ActionReread:
		return true
	}
	return false
}

// Validate checks everything that needs neither key, order nor device. An
// unknown type is not its business: the gateway refuses that with a reason of
// its own.
func (c Command) Validate() error {
	switch {
	case c.V != 1:
		return fmt.Errorf("command version %d is not known", c.V)
	case !ValidID(c.ID):
		return fmt.Errorf("id %q is not 1 to 64 letters, digits, - and _", c.ID)
	case c.Order != "" && !ValidID(c.Order):
		return fmt.Errorf("order %q is not 1 to 64 letters, digits, - and _", c.Order)
	case !ValidDevice(c.Device):
		return fmt.Errorf("device %q is not 8 to 23 letters and digits", c.Device)
	case c.Counter == 0:
		return errors.New("counter is missing")
	case len(c.Nonce) > maxString:
		return fmt.Errorf("nonce is longer than %d bytes", maxString)
	case c.Type == Cancel && !ValidID(c.Args.Target):
		return errors.New("cancel names no target")
	case c.Type != Cancel && c.Args.Target != "":
		return fmt.Errorf("args.target is not an argument of %s", c.Type)
	case c.Type != RepairCmd && (c.Args.Action != "" || c.Args.Standing):
		return fmt.Errorf("args.action and args.standing are not arguments of %s", c.Type)
	case !c.Args.Action.known():
		return fmt.Errorf("args.action %q is not known", c.Args.Action)
	}
	return nil
}

// Sign seals a command with a technician's (or NOC) key.
func (c Command) Sign(key ed25519.PrivateKey) (Envelope, error) {
	return signDocument(TypeCommand, c, c.Validate(), key)
}

// OpenCommand verifies env against keys.
func OpenCommand(env Envelope, keys ...ed25519.PublicKey) (Command, string, error) {
	var c Command
	keyID, err := openDocument(env, TypeCommand, &c, keys...)
	if err != nil {
		return Command{}, "", fmt.Errorf("cannot accept command: %w", err)
	}
	if err := c.Validate(); err != nil {
		return Command{}, "", fmt.Errorf("cannot accept command: %w: %w", ErrMalformed, err)
	}
	return c, keyID, nil
}

// TimeStatement is a time key's word on what time it is, for one challenge.
type TimeStatement struct {
	Device string    `json:"device"`
	Nonce  string    `json:"nonce"`
	UTC    time.Time `json:"utc"`
}

// Sign seals a time statement with a time key.
func (t TimeStatement) Sign(key ed25519.PrivateKey) (Envelope, error) {
	return signDocument(TypeTime, t, nil, key)
}

// OpenTime verifies env against the time keys of a trust list.
func OpenTime(env Envelope, trust TrustList) (TimeStatement, error) {
	var t TimeStatement
	if _, err := openDocument(env, TypeTime, &t, trust.KeysFor(RoleTime)...); err != nil {
		return TimeStatement{}, fmt.Errorf("cannot accept time statement: %w", err)
	}
	return t, nil
}

// Request is what travels to a gateway: a command with everything it takes to
// judge it.
type Request struct {
	V       int       `json:"v"`
	Order   *Envelope `json:"order,omitempty"`
	Command *Envelope `json:"command"`
	Trust   *Envelope `json:"trust,omitempty"` // a newer trust list than the gateway may have
	Time    *Envelope `json:"time,omitempty"`  // answer to a challenge
	// Extract is the AAA's word on the order's account.
	Extract *Envelope `json:"extract,omitempty"`
}

// MaxRequest bounds an encoded request, in bytes.
const MaxRequest = 64 << 10

// ParseRequest decodes a request strictly. Errors are compatible with
// errors.Is(err, ErrMalformed) or ErrUnsigned.
func ParseRequest(data []byte) (Request, error) {
	if len(data) > MaxRequest {
		return Request{}, fmt.Errorf("%w: %d bytes are more than %d", ErrTooLarge, len(data), MaxRequest)
	}
	var raw struct {
		V       int             `json:"v"`
		Order   json.RawMessage `json:"order"`
		Command json.RawMessage `json:"command"`
		Trust   json.RawMessage `json:"trust"`
		Time    json.RawMessage `json:"time"`
		Extract json.RawMessage `json:"extract"`
	}
	if err := decodeStrict(data, &raw); err != nil {
		return Request{}, fmt.Errorf("%w: request: %w", ErrMalformed, err)
	}
	if raw.V != 1 {
		return Request{}, fmt.Errorf("%w: request version %d is not known", ErrMalformed, raw.V)
	}
	if raw.Command == nil {
		return Request{}, fmt.Errorf("%w: request carries no command", ErrMalformed)
	}
	req := Request{V: raw.V}
	for _, part := range []struct {
		name string
		raw  json.RawMessage
		to   **Envelope
	}{
		{"order", raw.Order, &req.Order},
		{"command", raw.Command, &req.Command},
		{"trust", raw.Trust, &req.Trust},
		{"time", raw.Time, &req.Time},
		{"extract", raw.Extract, &req.Extract},
	} {
		if part.raw == nil {
			continue
		}
		env, err := ParseEnvelope(part.raw)
		if err != nil {
			return Request{}, fmt.Errorf("%s: %w", part.name, err)
		}
		*part.to = &env
	}
	return req, nil
}

// ErrTooLarge means that a document is over its bound.
var ErrTooLarge = errors.New("too large")

// Digest identifies a document: the SHA-256 of its exact payload bytes, in hex.
func Digest(env Envelope) string {
	payload, err := decodeBase64(env.Payload)
	if err != nil {
		return "" // not from ParseEnvelope or Sign
	}
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:])
}

// CommandID reads the id of the command in an encoded request, without asking
// who signed it: good for an address, for nothing else.
func CommandID(request []byte) (string, bool) {
	req, err := ParseRequest(request)
	if err != nil {
		return "", false
	}
	payload, err := decodeBase64(req.Command.Payload)
	if err != nil {
		return "", false
	}
	var head struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(payload, &head); err != nil || !ValidID(head.ID) {
		return "", false
	}
	return head.ID, true
}
