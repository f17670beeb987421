package record

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"ontagent/agent/order"
	"ontagent/transport/durable"
)

// Log is a gateway's own chain of records on flash. It is safe for concurrent
// use.
type Log struct {
	fs   durable.FS
	dir  string
	key  ed25519.PrivateKey
	keep int

	mu   sync.Mutex
	head head
}

// head is the last record closed. It is kept beside the records so that the
// chain goes on when the last one is damaged.
type head struct {
	N      uint64 `json:"n"`
	Digest string `json:"sha256"`
	Line   *Line  `json:"line,omitempty"` // the line's health record
}

const (
	headFile     = "head.json"
	recordSuffix = ".record"
)

// LogOptions configure a Log.
type LogOptions struct {
	FS   durable.FS
	Dir  string
	Key  ed25519.PrivateKey // the device's
	Keep int                // records kept, oldest go first; 0 means 64
}

// OpenLog finds the end of the chain in a directory, which it makes if needed.
func OpenLog(o LogOptions) (*Log, error) {
	if o.Keep == 0 {
		o.Keep = 64
	}
	l := &Log{fs: o.FS, dir: o.Dir, key: o.Key, keep: o.Keep}
	if err := durable.MkdirAll(o.FS, "record.dir", o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open record log: %w", err)
	}
	if err := durable.Clean(o.FS, "record.clean", o.Dir); err != nil {
		return nil, fmt.Errorf("cannot open record log: %w", err)
	}
	data, err := durable.ReadFile(o.FS, "record.head", filepath.Join(o.Dir, headFile), 4096)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &l.head); err != nil {
			l.head = head{} // the records themselves may still tell
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("cannot open record log: %w", err)
	}
	names, err := l.names()
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return l, nil
	}
	last := names[len(names)-1]
	number, _, _ := strings.Cut(last, "-")
	n, err := strconv.ParseUint(number, 16, 64)
	if err != nil {
		return nil, fmt.Errorf("cannot open record log: %s is not a record's name", last)
	}
	if n <= l.head.N {
		// The head knows best: also where a record that failed to be closed
		// was left behind, or where this one rots.
		return l, nil
	}
	v, err := l.read(last)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot open record log: %w", err)
	case v.Status != SignerUnknown || v.Record.N != n:
		return nil, fmt.Errorf("cannot open record log: %s is damaged and the head of the chain is lost: %s", last, v.Problem)
	}
	l.head = head{N: n, Digest: v.Digest, Line: v.Record.lineAfter(v.Digest)}
	return l, nil
}

// read verifies a record file on its own. A file that is no record is no error.
func (l *Log) read(name string) (Verification, error) {
	data, err := durable.ReadFile(l.fs, "record.read", filepath.Join(l.dir, name), MaxSize)
	if errors.Is(err, durable.ErrTooLarge) {
		return Verification{Status: Unreadable, Problem: err.Error()}, nil
	}
	if err != nil {
		return Verification{}, err
	}
	return Verify(data, VerifyOptions{}), nil
}

// names lists the record files, oldest first.
func (l *Log) names() ([]string, error) {
	entries, err := l.fs.ReadDir("record.list", l.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list records: %w", err)
	}
	var names []string
	for _, name := range entries { // sorted; the number is zero-padded hex: name order is chain order
		if strings.HasSuffix(name, recordSuffix) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Close completes, signs and chains r, and returns once it is durable; on a full
// disk the oldest records go for it. It fails with an error compatible with
// errors.Is(err, order.ErrTooLarge) if the record exceeds MaxSize; the caller may
// then leave evidence out.
func (l *Log) Close(r Record) (env order.Envelope, data []byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.V, r.N, r.Prev = 1, l.head.N+1, l.head.Digest
	// What only tells where a record was altered goes before any evidence does.
	for _, parts := range []bool{true, false} {
		if env, data, err = l.sign(r, parts); err != nil {
			return order.Envelope{}, nil, err
		}
		if len(data) <= MaxSize {
			break
		}
	}
	if len(data) > MaxSize {
		return order.Envelope{}, nil, fmt.Errorf("cannot close record %d: %w: %d bytes", r.N, order.ErrTooLarge, len(data))
	}
	path := filepath.Join(l.dir, fmt.Sprintf("%016x-%s%s", r.N, r.Job, recordSuffix))
	if err := l.write(path, data); err != nil {
		// It may be there all the same. It is not closed: its number is given
		// again.
		_ = durable.Remove(l.fs, "record.undo", path)
		return order.Envelope{}, nil, fmt.Errorf("cannot keep record %d: %w", r.N, err)
	}
	digest := order.Digest(env)
	l.head = head{N: r.N, Digest: digest, Line: r.lineAfter(digest)}
	headData, err := json.Marshal(l.head)
	if err == nil {
		err = durable.WriteFile(l.fs, "record.head", filepath.Join(l.dir, headFile), headData, 0o600)
	}
	if err != nil {
		// The record itself is safe, and carries what the head says.
		return env, data, nil
	}
	l.prune()
	return env, data, nil
}

func (l *Log) sign(r Record, parts bool) (order.Envelope, []byte, error) {
	payload, err := r.encode(parts)
	if err != nil {
		return order.Envelope{}, nil, fmt.Errorf("cannot encode record %d: %w", r.N, err)
	}
	env, err := order.Sign(order.TypeRecord, payload, l.key)
	if err != nil {
		return order.Envelope{}, nil, fmt.Errorf("cannot sign record %d: %w", r.N, err)
	}
	data, err := Marshal(env)
	return env, data, err
}

// write makes a record durable. On a full disk the oldest records make room: they
// were sent long ago, this one exists nowhere else.
func (l *Log) write(path string, data []byte) error {
	for {
		err := durable.WriteFile(l.fs, "record.write", path, data, 0o600)
		if !errors.Is(err, syscall.ENOSPC) || !l.makeRoom(filepath.Base(path)) {
			return err
		}
	}
}

// keepOnFullDisk is how many records stay even if there is no room for the next.
const keepOnFullDisk = 8

// makeRoom deletes the oldest quarter of the records, all but a few, and reports
// whether that was any.
func (l *Log) makeRoom(except string) bool {
	names, err := l.names()
	if err != nil {
		return false
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == except })
	n := min((len(names)+3)/4, len(names)-keepOnFullDisk)
	return n > 0 && l.remove(names[:n])
}

// prune deletes the oldest records over the bound.
func (l *Log) prune() {
	names, err := l.names()
	if err == nil && len(names) > l.keep {
		l.remove(names[:len(names)-l.keep])
	}
	// Tidying up must not fail a visit.
}

// remove deletes records and reports whether all are gone.
func (l *Log) remove(names []string) bool {
	for _, name := range names {
		if err := durable.Remove(l.fs, "record.prune", filepath.Join(l.dir, name)); err != nil {
			return false // next time
		}
	}
	return true
}

// Head returns the number and digest of the last record; 0 if there is none.
func (l *Log) Head() (n uint64, digest string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head.N, l.head.Digest
}

// Line returns the line's health record (宽带健康档案): the last one that said of
// itself that it is, unless a later one began anew. nil: there is none.
func (l *Log) Line() *Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head.Line
}

// Find returns the record of a job as it is kept, if it still is.
func (l *Log) Find(job string) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	names, err := l.names()
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Backward(names) {
		if _, rest, _ := strings.Cut(name, "-"); rest == job+recordSuffix {
			return durable.ReadFile(l.fs, "record.read", filepath.Join(l.dir, name), MaxSize)
		}
	}
	return nil, fmt.Errorf("cannot find the record of job %s: %w", job, fs.ErrNotExist)
}
