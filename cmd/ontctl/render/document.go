package render

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
)

// Document is a record taken apart, as far as it is legible.
type Document struct {
	Verification record.Verification
	Record       record.Record
	Report       acceptance.Report
	Diagnosis    diagnosis.Diagnosis
	Limits       []acceptance.Limit // all that were in force; nil: not told
	Digest       string             // of the content, hex

	// What was signed before the record and is kept in it; nil if not legible.
	// That it is shown says nothing about who signed it.
	Order   *order.Order
	Command *order.Command
	Trust   *order.TrustList
	Extract *order.Extract // also nil if none came

	// Gaps names the sections that are not legible, Unknown those that this
	// program has never heard of.
	Gaps, Unknown []string
}

// Open takes apart the record in data, of which v was found. It shows altered
// and newer records as far as they are legible, and fails only if nothing is.
func Open(data []byte, v record.Verification) (*Document, error) {
	env, err := order.ParseEnvelope(data)
	if err != nil {
		return nil, notLegible(v, err)
	}
	if env.PayloadType != order.TypeRecord {
		return nil, fmt.Errorf("payload type is %.80q, not a record's", env.PayloadType)
	}
	payload, err := base64.StdEncoding.DecodeString(env.Payload)
	if err != nil {
		return nil, notLegible(v, err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(payload, &members); err != nil {
		return nil, notLegible(v, err)
	}
	d := &Document{Verification: v, Digest: order.Digest(env)}
	// One section at a time, so that one of another form costs no other.
	for name, raw := range members {
		if !slices.Contains(sections(), name) {
			d.Unknown = append(d.Unknown, name)
			continue
		}
		one, err := json.Marshal(map[string]json.RawMessage{name: raw})
		if err != nil {
			return nil, notLegible(v, err)
		}
		if err := json.Unmarshal(one, &d.Record); err != nil {
			d.Gaps = append(d.Gaps, name)
		}
	}
	d.part("ladder", d.Record.Ladder, &d.Report)
	d.part("diagnosis", d.Record.Diagnosis, &d.Diagnosis)
	if d.Record.Limits != nil {
		d.part("limits", d.Record.Limits, &d.Limits)
	}
	d.Order = opened[order.Order](d, "order", order.TypeOrder, d.Record.Order)
	d.Command = opened[order.Command](d, "command", order.TypeCommand, d.Record.Command)
	d.Trust = opened[order.TrustList](d, "trust", order.TypeTrustList, d.Record.Trust)
	if d.Record.Extract != nil {
		d.Extract = opened[order.Extract](d, "extract", order.TypeExtract, *d.Record.Extract)
	}
	slices.Sort(d.Gaps)
	d.Gaps = slices.Compact(d.Gaps)
	slices.Sort(d.Unknown)
	return d, nil
}

// notLegible prefers what verification already said.
func notLegible(v record.Verification, err error) error {
	if v.Problem != "" {
		return errors.New(v.Problem)
	}
	return fmt.Errorf("not a record: %w", err)
}

// sections are the outermost members that this program knows.
func sections() []string {
	return []string{
		"v", "n", "prev_sha256", "device", "tenant", "job", "agent", "closed", "technician", "trust", "statement", "order",
		"command", "signed_time", "extract", "verdict", "ladder", "diagnosis", "limits", "baseline", "line", "renews_line", "work", "parts", "digests",
	}
}

// part decodes a section of the record. What of it has another form than is
// known is left out, and told.
func (d *Document) part(name string, raw json.RawMessage, v any) {
	if len(raw) == 0 || json.Unmarshal(raw, v) != nil {
		d.Gaps = append(d.Gaps, name)
	}
}

// opened decodes what an envelope carries, without asking who signed it.
func opened[T any](d *Document, name, payloadType string, env order.Envelope) *T {
	payload, err := base64.StdEncoding.DecodeString(env.Payload)
	v := new(T)
	if err == nil && env.PayloadType == payloadType {
		err = json.Unmarshal(payload, v)
	} else if err == nil {
		err = errors.New("of another type")
	}
	if err != nil {
		d.Gaps = append(d.Gaps, name)
		return nil
	}
	return v
}

// signer returns the id of the key that an envelope says it is signed by.
func signer(env order.Envelope) string {
	if len(env.Signatures) != 1 {
		return ""
	}
	return env.Signatures[0].KeyID
}

// Altered reports whether the record is not what the gateway signed.
func (d *Document) Altered() bool { return d.Verification.Status == record.Altered }

// Newer reports whether the record is of a version that this program does not
// know.
func (d *Document) Newer() bool { return d.Record.V > 1 }
