// Package record makes and checks the evidence record (验收记录) of a visit.
//
// A record is one self-contained document: the trust list, the device
// statement, the order and the command that led to it, each in its signed
// envelope, beside what was measured and judged. The gateway signs it and
// chains it to its previous record. Verify needs nothing but the operator's
// root key, works offline, and says what was altered.
//
// The package keeps ladder and diagnosis as the exact bytes that were signed;
// it does not know what they mean.
package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"ontagent/agent/order"
)

// MaxSize bounds a signed record, in bytes.
const MaxSize = 96 << 10

// Record is the content a gateway signs.
type Record struct {
	V      int    `json:"v"`
	N      uint64 `json:"n"`           // place in the gateway's chain, from 1
	Prev   string `json:"prev_sha256"` // digest of record N-1; empty for the first
	Device string `json:"device"`
	Tenant string `json:"tenant"`
	Job    string `json:"job"` // command id
	Agent  Agent  `json:"agent"`
	Time   Moment `json:"closed"` // when the record was closed

	Technician string          `json:"technician"` // who signed the command
	Trust      order.Envelope  `json:"trust"`
	Statement  order.Envelope  `json:"statement"`
	Order      order.Envelope  `json:"order"`
	Command    order.Envelope  `json:"command"`
	SignedTime *order.Envelope `json:"signed_time,omitempty"` // what the validity check relied on, if not the clock

	// Extract is the AAA's word on the account, if one came with the command.
	Extract *order.Envelope `json:"extract,omitempty"`

	Verdict   string          `json:"verdict"`
	Ladder    json.RawMessage `json:"ladder"`           // acceptance.Report
	Diagnosis json.RawMessage `json:"diagnosis"`        // diagnosis.Diagnosis
	Limits    json.RawMessage `json:"limits,omitempty"` // []acceptance.Limit: all that were in force
	// Baseline is what later readings of the line are compared with, if this
	// record becomes the line's health record (宽带健康档案).
	Baseline map[string]float64 `json:"baseline,omitempty"`
	// Line is the health record that the line had before; nil: none.
	Line *Line `json:"line,omitempty"`
	// Renews says that this record is the line's health record from now on.
	Renews bool `json:"renews_line,omitempty"`
	// Work is what was done beside measuring: a repair, an inspection.
	Work json.RawMessage `json:"work,omitempty"`

	// Parts are short digests of what each result of the ladder consists of, by
	// the result's section: they name a reading that was altered. Old records,
	// and those that would be too large, have none.
	Parts map[string]map[string]string `json:"parts,omitempty"`
	// Digests are the SHA-256, in hex, of each section as it was signed, so
	// that an altered record tells where.
	Digests map[string]string `json:"digests"`
}

// Line is a line's health record (宽带健康档案), as a later record refers to it.
type Line struct {
	N        uint64             `json:"n"` // of the record
	SHA256   string             `json:"sha256"`
	Closed   string             `json:"closed"` // RFC 3339, as good as the gateway's clock was
	Clock    string             `json:"clock"`
	Readings map[string]float64 `json:"readings"` // its Baseline
}

// lineAfter is the line's health record once r is closed.
func (r Record) lineAfter(digest string) *Line {
	if !r.Renews {
		return r.Line
	}
	return &Line{N: r.N, SHA256: digest, Closed: r.Time.UTC, Clock: r.Time.Clock, Readings: r.Baseline}
}

// Agent says which software made the record.
type Agent struct {
	Version string `json:"version"`
	Epoch   uint64 `json:"epoch"` // of the daemon, raised at every start
}

// Moment is a point in time as well as the gateway knew it.
type Moment struct {
	UptimeS float64 `json:"uptime_s"`
	UTC     string  `json:"utc"`   // RFC 3339
	Clock   string  `json:"clock"` // ntp, floor, none
}

// encode fills in the digests, with those of parts if they are wanted, and
// returns the payload.
func (r Record) encode(parts bool) ([]byte, error) {
	r.Parts, r.Digests = nil, map[string]string{}
	if parts {
		ladder, err := json.Marshal(r.Ladder) // as it will be signed
		if err != nil {
			return nil, err
		}
		r.Parts = ladderParts(ladder)
	}
	plain, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if r.Digests, err = sectionDigests(plain); err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// sectionDigests hashes every top-level member of a payload but the digests
// themselves, and every result of the ladder on its own.
func sectionDigests(payload []byte) (map[string]string, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(payload, &members); err != nil {
		return nil, err
	}
	digests := map[string]string{}
	for name, raw := range members {
		switch name {
		case "digests":
		case "ladder":
			if err := ladderDigests(digests, raw); err != nil {
				return nil, err
			}
		default:
			digests[name] = digest(raw)
		}
	}
	return digests, nil
}

// maxResults bounds the results that are digested each on its own: no ladder has
// as many rungs.
const maxResults = 64

func ladderDigests(digests map[string]string, raw json.RawMessage) error {
	var ladder map[string]json.RawMessage
	if err := json.Unmarshal(raw, &ladder); err != nil {
		return fmt.Errorf("ladder: %w", err)
	}
	for name, member := range ladder {
		var results []json.RawMessage
		if name != "results" || json.Unmarshal(member, &results) != nil || len(results) > maxResults {
			digests["ladder."+name] = digest(member)
			continue
		}
		for i, result := range results {
			var head struct {
				Rung string `json:"rung"`
			}
			// A result without a readable rung still has its place.
			_ = json.Unmarshal(result, &head)
			digests[resultSection(i, head.Rung)] = digest(result)
		}
		digests["ladder.results"] = digest(fmt.Append(nil, len(results)))
	}
	return nil
}

// resultSection names a result of the ladder.
func resultSection(i int, rung string) string { return fmt.Sprintf("ladder.results[%d] %s", i, rung) }

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Marshal encodes a signed record or receipt the one way in which it is written: compact
// JSON and a line end. Any other byte is an alteration.
func Marshal(env order.Envelope) ([]byte, error) {
	data, err := json.Marshal(env)
	if err != nil {
		return nil, fmt.Errorf("cannot encode record: %w", err)
	}
	return append(data, '\n'), nil
}

// errNotCanonical means that a file differs from what Marshal writes, although
// it may mean the same.
var errNotCanonical = errors.New("the file is not in the form in which it was written")

func parse(data []byte, payloadType string) (order.Envelope, error) {
	env, err := order.ParseEnvelope(data)
	if err != nil {
		return order.Envelope{}, err
	}
	if env.PayloadType != payloadType {
		return order.Envelope{}, fmt.Errorf("payload type is %q instead of %q", env.PayloadType, payloadType)
	}
	canonical, err := Marshal(env)
	if err != nil {
		return order.Envelope{}, err
	}
	if !bytes.Equal(bytes.TrimSuffix(data, []byte("\n")), bytes.TrimSuffix(canonical, []byte("\n"))) {
		return order.Envelope{}, errNotCanonical
	}
	return env, nil
}
