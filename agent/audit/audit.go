// Package audit is the trail of what this gateway was granted leave to do and
// how it ended: a chain of entries on flash, each naming the SHA-256 of the one
// before, one line of JSON each.
//
// An entry is on flash before Append returns, so before what it tells of
// happens. The trail is bounded – two files, the older one goes – but the chain
// is not: its numbers and hashes go on over files, restarts and damage. Its
// head, which travels apart from the entries, shows whether the end was cut
// off. What was damaged on flash is not passed over: the chain goes on with an
// entry that says so.
//
// The package knows no jobs and sends nothing; the daemon wires both. Verify
// works on the lines wherever they were gathered.
package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// What an entry tells, in Entry.Event.
const (
	Granted     = "granted"     // a command is about to be carried out
	Ended       = "ended"       // it ended, in State
	Interrupted = "interrupted" // it was cut short by a stop or a power cut
	Damaged     = "damaged"     // what the trail held on flash does not hold; see Detail
)

// Entry is one line of the trail.
type Entry struct {
	// N counts the entries of this gateway from 1. Log.Append gives it.
	N uint64 `json:"n"`
	// Prev is the SHA-256 of the exact bytes of entry N-1, without the line's
	// end, in hex. It is empty for the first, and for an entry Damaged where
	// nobody knows what came before. Log.Append gives it.
	Prev string `json:"prev"`

	Epoch   uint64  `json:"epoch"`
	UptimeS float64 `json:"uptime_s"`
	UTC     string  `json:"utc"`   // RFC 3339, as good as Clock says
	Clock   string  `json:"clock"` // ntp, floor, none

	Event         string `json:"event"`
	KeyID         string `json:"key_id,omitempty"`
	Technician    string `json:"technician,omitempty"`
	Order         string `json:"order,omitempty"`
	Rev           uint64 `json:"rev,omitempty"`
	Command       string `json:"command,omitempty"` // id
	CommandType   string `json:"command_type,omitempty"`
	CommandSHA256 string `json:"command_sha256,omitempty"` // of the signed payload
	State         string `json:"state,omitempty"`          // of an end
	Verdict       string `json:"verdict,omitempty"`
	RecordSHA256  string `json:"record_sha256,omitempty"`
	Detail        string `json:"detail,omitempty"` // English, for experts
}

// MaxLine bounds an entry, in bytes.
const MaxLine = 4 << 10

// Head is the end of a chain: the number of its last entry and the SHA-256 of
// its exact bytes, in hex. Zero means that there is none yet.
type Head struct {
	N      uint64 `json:"n"`
	SHA256 string `json:"sha256"`
}

// After is what the head is once line was added to a chain.
func (h Head) after(line []byte) Head {
	sum := sha256.Sum256(line)
	return Head{N: h.N + 1, SHA256: hex.EncodeToString(sum[:])}
}

// encode makes the line of e as the one after h.
func (e Entry) encode(h Head) ([]byte, error) {
	e.N, e.Prev = h.N+1, h.SHA256
	line, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("cannot encode audit entry %d: %w", e.N, err)
	}
	if len(line) > MaxLine {
		return nil, fmt.Errorf("cannot encode audit entry %d: %d bytes of %d", e.N, len(line), MaxLine)
	}
	return line, nil
}

// Parse reads a line. It does not ask what came before.
func Parse(line []byte) (Entry, error) {
	var e Entry
	if len(line) > MaxLine {
		return Entry{}, fmt.Errorf("cannot read audit entry: %d bytes of %d", len(line), MaxLine)
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return Entry{}, fmt.Errorf("cannot read audit entry: %w", err)
	}
	if e.N == 0 || e.Event == "" {
		return Entry{}, errors.New("cannot read audit entry: it has no number or no event")
	}
	return e, nil
}
