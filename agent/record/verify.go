package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"ontagent/agent/order"
)

// Status sums a verification up.
type Status string

// The statuses.
const (
	Valid         Status = "valid"          // intact, and vouched for up to the root key
	SignerUnknown Status = "signer_unknown" // intact, but the chain does not reach the root key
	Altered       Status = "altered"        // not what the gateway signed
	Unreadable    Status = "unreadable"     // not a record, or only a part of one
)

// Verification is what Verify found.
type Verification struct {
	Status Status `json:"status"`
	// Altered names what is not as it was signed, as far as can be told.
	Altered []string `json:"altered,omitempty"`
	// Problem says in English what stands against the record.
	Problem string `json:"problem,omitempty"`
	Digest  string `json:"sha256,omitempty"` // of the payload
	Signer  string `json:"signer,omitempty"` // key id

	// Record is decoded wherever the payload is legible, trustworthy or not.
	Record  *Record        `json:"-"`
	Order   *order.Order   `json:"-"` // only if Status is Valid
	Command *order.Command `json:"-"` // likewise
	// Newer says that the record is Unreadable because this program is older.
	Newer bool `json:"newer,omitempty"`

	trust order.TrustList // only if Status is Valid; with what was revoked since
}

// VerifyOptions say what a record is held against.
type VerifyOptions struct {
	Root ed25519.PublicKey // nil: nobody can be vouched for
	// Trust is a newer trust list, whose revocations count too; nil for none.
	Trust *order.TrustList
}

// Verify checks one record offline.
func Verify(data []byte, o VerifyOptions) Verification {
	if len(data) > MaxSize {
		return Verification{Status: Unreadable, Problem: fmt.Sprintf("%d bytes are more than any record has", len(data))}
	}
	env, err := parse(data, order.TypeRecord)
	if err != nil {
		return unreadable(data, "record", err)
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(env.Payload)
	if err != nil {
		return Verification{Status: Unreadable, Problem: err.Error()}
	}
	v := Verification{Digest: order.Digest(env), Signer: env.Signatures[0].KeyID}
	var rec Record
	err = json.Unmarshal(payload, &rec) // decodes what it can, whatever else is wrong
	if rec.V > 1 {
		v.Status, v.Problem, v.Newer, v.Record = Unreadable, (&VersionError{"record", rec.V}).Error(), true, &rec
		return v
	}
	if err != nil {
		v.Status, v.Problem = Altered, fmt.Sprintf("the content is damaged: %v", err)
		v.Altered = []string{"content"}
		return v
	}
	v.Record = &rec
	if rec.V != 1 {
		v.Status, v.Problem = Unreadable, (&VersionError{"record", rec.V}).Error()
		return v
	}

	// Is it what the key named in its statement signed?
	claimed, err := claimedStatement(rec)
	if err != nil {
		v.Status, v.Problem, v.Altered = Altered, fmt.Sprintf("device statement: %v", err), v.alteredSections(asWritten(payload), asWritten(rec.Ladder), "statement")
		return v
	}
	if _, _, err := order.Open(env, order.TypeRecord, ed25519.PublicKey(claimed.Ed25519)); err != nil {
		v.Status, v.Altered = Altered, v.alteredSections(asWritten(payload), asWritten(rec.Ladder), "")
		v.Problem = fmt.Sprintf("signature: %v", err)
		if errors.Is(err, order.ErrUnknownKey) {
			v.Problem = fmt.Sprintf("signed by key %s, which is not the device's (%s)", v.Signer, claimed.Ed25519.ID())
			v.Altered = append([]string{"signature"}, v.Altered...)
		}
		return v
	}
	if err := checkNames(payload); err != nil {
		v.Status, v.Problem, v.Altered = Altered, fmt.Sprintf("the content is ambiguous: %v", err), []string{"content"}
		return v
	}
	if changed := v.alteredSections(payload, rec.Ladder, ""); len(changed) > 0 {
		// Signed, but with digests that do not fit: not made by an agent.
		v.Status, v.Problem, v.Altered = Altered, "the section digests do not fit the content", changed
		return v
	}
	v.checkAuthority(rec, claimed, o)
	return v
}

// checkAuthority follows the chain from the root key down to the record.
func (v *Verification) checkAuthority(rec Record, claimed order.Statement, o VerifyOptions) {
	unknown := func(format string, args ...any) {
		v.Status, v.Problem = SignerUnknown, fmt.Sprintf(format, args...)
	}
	inconsistent := func(section, format string, args ...any) {
		v.Status, v.Altered, v.Problem = Altered, []string{section}, fmt.Sprintf(format, args...)
	}
	if len(o.Root) == 0 {
		unknown("no root key was given")
		return
	}
	trust, err := order.OpenTrustList(rec.Trust, o.Root)
	if err != nil {
		unknown("%v", err)
		return
	}
	if o.Trust != nil {
		// What was revoked since then counts, what was added does not matter.
		trust.RevokedKeys = append(trust.RevokedKeys, o.Trust.RevokedKeys...)
		trust.RevokedOrders = append(trust.RevokedOrders, o.Trust.RevokedOrders...)
	}
	if _, err := order.OpenStatement(rec.Statement, trust); err != nil {
		unknown("%v", err)
		return
	}
	if trust.KeyRevoked(claimed.Ed25519.ID()) {
		unknown("the key of device %s is revoked", claimed.Device)
		return
	}
	ord, err := order.OpenOrder(rec.Order, trust)
	switch {
	case errors.Is(err, order.ErrUnknownKey):
		unknown("%v", err)
		return
	case err != nil:
		inconsistent("order", "%v", err)
		return
	}
	technician, ok := ord.Technician(signerOf(rec.Command))
	if !ok {
		inconsistent("command", "the command is not signed by a technician of the order")
		return
	}
	cmd, _, err := order.OpenCommand(rec.Command, ed25519.PublicKey(technician.Key))
	switch {
	case err != nil:
		inconsistent("command", "%v", err)
	case trust.KeyRevoked(technician.Key.ID()):
		unknown("the key of technician %s is revoked", technician.ID)
	case trust.OrderRevoked(ord.Order):
		unknown("order %s is revoked", ord.Order)
	case claimed.Device != rec.Device || ord.Device != rec.Device || cmd.Device != rec.Device:
		inconsistent("device", "statement, order, command and record do not name the same device")
	case ord.Tenant != rec.Tenant || trust.Tenant != rec.Tenant:
		inconsistent("tenant", "trust list, order and record do not name the same tenant")
	case cmd.Order != ord.Order || cmd.Rev != ord.Rev:
		inconsistent("command", "the command is for order %s rev %d, not %s rev %d", cmd.Order, cmd.Rev, ord.Order, ord.Rev)
	case cmd.ID != rec.Job:
		inconsistent("job", "the record is of job %s, the command of %s", rec.Job, cmd.ID)
	case technician.ID != rec.Technician:
		inconsistent("technician", "the command was signed by technician %s, the record says %s", technician.ID, rec.Technician)
	case !makesRecord(cmd.Type) || !slices.Contains(ord.Allow, cmd.Type):
		inconsistent("command", "a command to %s under order %s is no leave to make a record", cmd.Type, ord.Order)
	default:
		v.Status, v.Order, v.Command, v.trust = Valid, &ord, &cmd, trust
		v.checkSignedTime(rec, cmd, trust)
		v.checkExtract(rec, trust)
		if v.Status != Valid {
			v.Order, v.Command = nil, nil
		}
	}
}

// makesRecord reports whether a command of this type is leave to make a record.
func makesRecord(t order.CommandType) bool {
	return t == order.Accept || t == order.Inspection || t == order.RepairCmd
}

// checkExtract checks the AAA's word on the account: an operator's, on this
// order and device.
func (v *Verification) checkExtract(rec Record, trust order.TrustList) {
	if rec.Extract == nil || v.Status != Valid {
		return
	}
	e, err := order.OpenExtract(*rec.Extract, trust)
	switch {
	case errors.Is(err, order.ErrUnknownKey) && trust.KeyRevoked(signerOf(*rec.Extract)):
		v.Status, v.Problem = SignerUnknown, fmt.Sprintf("%v: it is revoked", err)
	case err != nil:
		v.Status, v.Altered, v.Problem = Altered, []string{"extract"}, fmt.Sprintf("%v", err)
	case e.Order != v.Order.Order || e.Device != rec.Device:
		v.Status, v.Altered = Altered, []string{"extract"}
		v.Problem = fmt.Sprintf("the AAA extract is for order %s of device %s", e.Order, e.Device)
	}
}

// checkSignedTime checks what the gateway says that it took the time from.
func (v *Verification) checkSignedTime(rec Record, cmd order.Command, trust order.TrustList) {
	if rec.SignedTime == nil {
		return
	}
	ts, err := order.OpenTime(*rec.SignedTime, trust)
	revoked := errors.Is(err, order.ErrUnknownKey) && trust.KeyRevoked(signerOf(*rec.SignedTime))
	switch {
	case revoked:
		v.Status, v.Problem = SignerUnknown, fmt.Sprintf("%v", err)
	case err != nil:
		v.Status, v.Altered, v.Problem = Altered, []string{"signed_time"}, fmt.Sprintf("%v", err)
	case ts.Device != rec.Device || ts.Nonce != cmd.Nonce:
		v.Status, v.Altered = Altered, []string{"signed_time"}
		v.Problem = "the signed time is for another device or command"
	}
}

// asWritten returns JSON with the spaces and escapes that an agent writes. Other
// programs write all of what they edit a little of anew in another form: that
// must not hide what they edited. It only helps to name that; signatures and
// the digests of what is well signed are of the bytes as they came.
func asWritten(data []byte) []byte {
	var compact, escaped bytes.Buffer
	if json.Compact(&compact, data) != nil {
		return data
	}
	json.HTMLEscape(&escaped, compact.Bytes())
	return escaped.Bytes()
}

// alteredSections compares the content with the digests it carries. sure is
// named in any case, if not empty.
func (v *Verification) alteredSections(payload, ladder []byte, sure string) []string {
	changed := map[string]bool{}
	if sure != "" {
		changed[sure] = true
	}
	actual, err := sectionDigests(payload)
	if err != nil {
		changed["ladder"] = true
	}
	for name, d := range actual {
		if v.Record.Digests[name] != d {
			changed[name] = true
		}
	}
	for name := range v.Record.Digests {
		if _, ok := actual[name]; !ok && err == nil {
			changed[name] = true
		}
	}
	if err == nil && v.Record.Parts != nil && !changed["parts"] {
		v.nameParts(changed, ladder)
	}
	return slices.Sorted(maps.Keys(changed))
}

// nameParts replaces the altered results of the ladder by what of them was
// altered, as far as their parts tell. Parts that contradict results which were
// not altered are no agent's.
func (v *Verification) nameParts(changed map[string]bool, ladder []byte) {
	actual := ladderParts(ladder)
	for section, parts := range actual {
		names := alteredParts(section, v.Record.Parts[section], parts)
		switch {
		case len(names) == 0:
		case !changed[section]:
			changed["parts"] = true
		case v.Record.Parts[section] != nil:
			delete(changed, section)
			for _, name := range names {
				changed[name] = true
			}
		}
	}
	for section := range v.Record.Parts {
		if actual[section] == nil && !changed[section] {
			changed["parts"] = true
		}
	}
}

// claimedStatement reads the statement without asking who signed it.
func claimedStatement(rec Record) (order.Statement, error) {
	payload, err := base64.StdEncoding.Strict().DecodeString(rec.Statement.Payload)
	if err != nil {
		return order.Statement{}, err
	}
	var s order.Statement
	if err := json.Unmarshal(payload, &s); err != nil {
		return order.Statement{}, err
	}
	return s, s.Validate()
}

func signerOf(env order.Envelope) string {
	if len(env.Signatures) != 1 {
		return ""
	}
	return env.Signatures[0].KeyID
}

// unreadable tells a damaged record from something that never was one.
func unreadable(data []byte, what string, err error) Verification {
	v := Verification{Status: Unreadable, Problem: err.Error()}
	var syntax *json.SyntaxError
	switch {
	case len(data) == 0:
		v.Problem = "the file is empty"
	case errors.Is(err, errNotCanonical):
		v.Status, v.Altered = Altered, []string{"form"}
	case errors.As(err, &syntax):
		v.Problem = fmt.Sprintf("not a %s: damaged or cut off near byte %d of %d: %v", what, syntax.Offset, len(data), err)
	}
	return v
}

// VerifyChain checks that records, oldest first, follow one another in one
// gateway's chain. Each must be legible.
func VerifyChain(vs []Verification) error {
	for i := 1; i < len(vs); i++ {
		prev, cur := vs[i-1], vs[i]
		if prev.Record == nil || cur.Record == nil {
			return errors.New("cannot check the chain: a record is not legible")
		}
		switch {
		case prev.Record.Device != cur.Record.Device:
			return fmt.Errorf("record %d is of device %s, record %d of %s", i, prev.Record.Device, i+1, cur.Record.Device)
		case cur.Record.N != prev.Record.N+1:
			return fmt.Errorf("record %d was given after record %d: something is missing or out of order", cur.Record.N, prev.Record.N)
		case cur.Record.Prev != prev.Digest:
			return fmt.Errorf("record %d does not follow the given record %d: that one was replaced", cur.Record.N, prev.Record.N)
		}
	}
	return nil
}
