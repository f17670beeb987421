package record

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"

	"ontagent/agent/order"
)

// ReceiptVerification is what VerifyReceipt found.
type ReceiptVerification struct {
	Status Status `json:"status"`
	// Altered names what is not as it was signed, as far as can be told.
	Altered []string `json:"altered,omitempty"`
	// Problem says in English what stands against the receipt.
	Problem string `json:"problem,omitempty"`
	Digest  string `json:"sha256,omitempty"` // of the payload
	Signer  string `json:"signer,omitempty"` // key id

	// Receipt is decoded wherever the payload is legible, trustworthy or not.
	Receipt *Receipt `json:"-"`
	// Newer says that the receipt is Unreadable because this program is older.
	Newer bool `json:"newer,omitempty"`
}

// VerifyReceipt checks a receipt offline against the record that it is for, as
// Verify found it. The attachments are CheckAttachments' business.
func VerifyReceipt(data []byte, rec Verification) ReceiptVerification {
	if len(data) > MaxReceipt {
		return ReceiptVerification{Status: Unreadable, Problem: fmt.Sprintf("%d bytes are more than any receipt has", len(data))}
	}
	env, err := parse(data, TypeReceipt)
	if err != nil {
		u := unreadable(data, "receipt", err)
		return ReceiptVerification{Status: u.Status, Altered: u.Altered, Problem: u.Problem}
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(env.Payload)
	if err != nil {
		return ReceiptVerification{Status: Unreadable, Problem: err.Error()}
	}
	v := ReceiptVerification{Digest: order.Digest(env), Signer: env.Signatures[0].KeyID}
	v.Receipt, err = decodeReceipt(payload)
	if version := (*VersionError)(nil); errors.As(err, &version) {
		v.Status, v.Problem, v.Newer = Unreadable, version.Error(), version.V > 1
		return v
	}
	if v.Receipt == nil {
		v.Status, v.Altered, v.Problem = Altered, []string{"content"}, fmt.Sprintf("the content is damaged: %v", err)
		return v
	}
	malformed := err
	v.hold(env, payload, rec)
	if v.Status != Altered && malformed != nil {
		// Signed, or not yet known by whom, but not made by a program of ours.
		v.Status, v.Altered, v.Problem = Altered, []string{"content"}, malformed.Error()
	}
	return v
}

// hold holds a legible receipt against its record and the keys.
func (v *ReceiptVerification) hold(env order.Envelope, payload []byte, rec Verification) {
	altered := v.alteredMembers(payload)
	unknown := func(format string, args ...any) {
		v.Status, v.Problem = SignerUnknown, fmt.Sprintf(format, args...)
		if len(altered) > 0 {
			v.Status, v.Altered, v.Problem = Altered, altered, "the digests do not fit the content"
		}
	}
	if rec.Record == nil || rec.Digest == "" {
		unknown("there is no legible record to hold the receipt against")
		return
	}
	r := v.Receipt
	if rec.Status != Valid || rec.Order == nil {
		if r.RecordSHA256 != rec.Digest {
			v.inconsistent(altered, "record_sha256", "the receipt is for record %s, not %s", r.RecordSHA256, rec.Digest)
			return
		}
		unknown("the record is %s: it does not tell who may sign", rec.Status)
		return
	}
	i := slices.IndexFunc(rec.Order.Technicians, func(t order.Technician) bool { return t.Key.ID() == v.Signer })
	if i < 0 {
		v.inconsistent(altered, "signature", "signed by key %s, which is no technician's of order %s", v.Signer, rec.Order.Order)
		return
	}
	technician := rec.Order.Technicians[i]
	if _, _, err := order.Open(env, TypeReceipt, ed25519.PublicKey(technician.Key)); err != nil {
		v.Status, v.Altered, v.Problem = Altered, altered, fmt.Sprintf("signature: %v", err)
		if len(altered) == 0 {
			v.Altered = []string{"signature"}
		}
		return
	}
	if len(altered) > 0 {
		v.Status, v.Altered, v.Problem = Altered, altered, "the digests do not fit the content"
		return
	}
	for _, c := range []struct{ member, is, want string }{
		{"record_sha256", r.RecordSHA256, rec.Digest},
		{"order", r.Order, rec.Order.Order},
		{"job", r.Job, rec.Record.Job},
		{"device", r.Device, rec.Record.Device},
		{"technician", r.Technician, technician.ID},
	} {
		if c.is != c.want {
			v.inconsistent(nil, c.member, "the receipt is for %s %s, the record says %s", c.member, c.is, c.want)
			return
		}
	}
	if rec.trust.KeyRevoked(technician.Key.ID()) {
		unknown("the key of technician %s is revoked", technician.ID)
		return
	}
	v.Status = Valid
}

func (v *ReceiptVerification) inconsistent(altered []string, member, format string, args ...any) {
	if !slices.Contains(altered, member) {
		altered = append(altered, member)
	}
	v.Status, v.Altered, v.Problem = Altered, altered, fmt.Sprintf(format, args...)
}

// alteredMembers compares the content with the digests it carries.
func (v *ReceiptVerification) alteredMembers(payload []byte) []string {
	actual, err := sectionDigests(payload)
	if err != nil {
		return []string{"content"}
	}
	changed := map[string]bool{}
	for name, d := range actual {
		if v.Receipt.Digests[name] != d {
			changed[name] = true
		}
	}
	for name := range v.Receipt.Digests {
		if _, ok := actual[name]; !ok {
			changed[name] = true
		}
	}
	return slices.Sorted(maps.Keys(changed))
}
