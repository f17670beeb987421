package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/order"
	"ontagent/cmd/cli"
	"ontagent/transport"
	"ontagent/transport/consumer"
	"ontagent/transport/durable"
)

// entry is one line of a collector's journal: a message, an acknowledgement
// before it is published, or what dates the messages of an epoch.
type entry struct {
	ReceivedAt time.Time `json:"received_at"`

	Topic string `json:"topic,omitempty"`
	// When the message was made, as far as that was known when it came; absent
	// with the quality none. See Dates.
	Time       *time.Time       `json:"time,omitempty"`
	Quality    consumer.Quality `json:"time_quality,omitempty"`
	ErrorS     float64          `json:"time_error_s,omitempty"`
	Verdict    string           `json:"verdict,omitempty"` // late, implausible, conflict; absent: new
	Retained   bool             `json:"retained,omitempty"`
	Ack        *order.Ack       `json:"ack,omitempty"`
	EpochDated *epochDated      `json:"epoch_dated,omitempty"`
	// Payload is last, and exactly as it was received. Where that has line
	// breaks, or space around it, it is in PayloadText.
	PayloadText string          `json:"payload_text,omitempty"`
	Payload     json.RawMessage `json:"payload,omitempty"`
}

// epochDated says that what happened at an uptime of an epoch happened at
// StartUnixMS plus that uptime. A later one of the same epoch replaces it.
type epochDated struct {
	Device      string  `json:"device"`
	Epoch       uint64  `json:"epoch"`
	StartUnixMS int64   `json:"start_unix_ms"`
	UptimeS     float64 `json:"uptime_s"` // where it was measured
}

// line encodes e. The payload must not pass through the encoder, which would
// rewrite it.
func (e entry) line() ([]byte, error) {
	payload := e.Payload
	e.Payload = nil
	// A decoder drops what is around a value.
	if bytes.ContainsAny(payload, "\r\n") || len(bytes.TrimSpace(payload)) != len(payload) {
		e.PayloadText, payload = string(payload), nil
	}
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("cannot encode journal line: %w", err)
	}
	if payload != nil {
		b = append(b[:len(b)-1], `,"payload":`...)
		b = append(b, payload...)
		b = append(b, '}')
	}
	return append(b, '\n'), nil
}

// message returns the payload as it was received.
func (e entry) message() []byte {
	if e.PayloadText != "" {
		return []byte(e.PayloadText)
	}
	return e.Payload
}

const (
	journalPrefix = "messages-"
	journalSuffix = ".jsonl"
	stateFile     = "state.json"
	maxLine       = 2*transport.MaxPayload + 64<<10 // an escaped payload and an Ack
	maxState      = 1 << 30
)

// archive is the directory of a collector: journal files that only grow, a
// snapshot of what they amount to up to some place, and records.
type archive struct {
	fs     durable.FS
	dir    string
	rotate int64 // bytes after which a journal file is full
	lock   *os.File
	log    *durable.Log
	number uint64 // of the journal file
}

// collectState is the snapshot. The journal from File and Offset on is what it
// does not know.
type collectState struct {
	V       int           `json:"v"`
	Tenant  string        `json:"tenant"`
	File    uint64        `json:"file"`
	Offset  int64         `json:"offset"`
	Devices []deviceState `json:"devices"`
}

type deviceState struct {
	AckVersion uint64            `json:"ack_version"`
	Points     []transport.Point `json:"points,omitempty"`
	AckAgain   bool              `json:"ack_again,omitempty"` // it may not have arrived
	Audit      auditTrail        `json:"audit"`
	Tracker    json.RawMessage   `json:"tracker"`
}

// openArchive takes possession of dir.
func openArchive(dir string, rotate int64) (*archive, error) {
	a := &archive{fs: durable.OS{}, dir: dir, rotate: rotate}
	if err := durable.MkdirAll(a.fs, "collect.dir", dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock %s: another collector is at work there", dir)
		}
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	a.lock = lock
	if err := durable.Clean(a.fs, "collect.clean", dir); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return a, nil
}

func (a *archive) close() error {
	var err error
	if a.log != nil {
		err = a.log.Close()
	}
	return errors.Join(err, a.lock.Close())
}

func (a *archive) journal(n uint64) string {
	return filepath.Join(a.dir, fmt.Sprintf("%s%08d%s", journalPrefix, n, journalSuffix))
}

// load reads the snapshot; without one it is empty.
func (a *archive) load(tenant string) (collectState, error) {
	s := collectState{V: 1, Tenant: tenant}
	data, err := durable.ReadFile(a.fs, "collect.state", filepath.Join(a.dir, stateFile), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	var kept collectState
	if err := json.Unmarshal(data, &kept); err != nil {
		return s, fmt.Errorf("%s is damaged: %w: remove it, and all is read from the journal again", filepath.Join(a.dir, stateFile), err)
	}
	if kept.V != 1 {
		return s, fmt.Errorf("%s is of version %d, which is not known", filepath.Join(a.dir, stateFile), kept.V)
	}
	if kept.Tenant != tenant {
		return s, cli.Exit(cli.Usage, "%s is the collection of tenant %s, not %s", a.dir, kept.Tenant, tenant)
	}
	return kept, nil
}

// replay calls fn for every line behind a place, then opens the last file for
// appending, cut to its last whole line. It returns how many lines elsewhere
// could not be read.
func (a *archive) replay(file uint64, offset int64, fn func(entry)) (damaged int, err error) {
	names, err := a.fs.ReadDir("collect.list", a.dir)
	if err != nil {
		return 0, fmt.Errorf("cannot list %s: %w", a.dir, err)
	}
	var numbers []uint64
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, journalPrefix)
		digits, ok2 := strings.CutSuffix(digits, journalSuffix)
		if n, err := strconv.ParseUint(digits, 10, 64); ok && ok2 && err == nil && n >= file {
			numbers = append(numbers, n)
		}
	}
	end := int64(0)
	a.number = max(file, 1)
	for i, n := range numbers {
		from := int64(0)
		if n == file {
			from = offset
		}
		bad, whole, err := a.read(n, from, fn)
		if err != nil {
			return 0, err
		}
		if i == len(numbers)-1 {
			a.number, end = n, whole
			bad = max(0, bad-1) // an append that was cut short
		}
		damaged += bad
	}
	a.log, err = durable.OpenLog(a.fs, "collect.journal", a.journal(a.number), 0o600)
	if err != nil {
		return damaged, err
	}
	if a.log.Size() > end {
		err = a.log.Truncate(end)
	}
	return damaged, err
}

// read calls fn for every line of a file behind a place. It returns how many
// did not hold, and where the last that did ends.
func (a *archive) read(n uint64, from int64, fn func(entry)) (bad int, end int64, err error) {
	f, err := a.fs.OpenFile("collect.journal", a.journal(n), os.O_RDONLY, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("cannot read journal: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	size, err := f.Size()
	if err != nil {
		return 0, 0, fmt.Errorf("cannot read journal: %w", err)
	}
	if from > size {
		return 0, 0, fmt.Errorf("%s has %d bytes, and had %d: remove %s, and all is read from the journal again",
			a.journal(n), size, from, filepath.Join(a.dir, stateFile))
	}
	at, end := from, from
	lines := bufio.NewReaderSize(io.NewSectionReader(f, from, size-from), 64<<10)
	for {
		line, err := readLine(lines, maxLine)
		at += int64(line.length)
		var e entry
		switch {
		case errors.Is(err, io.EOF) && line.length == 0:
			return bad, end, nil
		case err != nil && !errors.Is(err, io.EOF):
			return bad, end, fmt.Errorf("cannot read %s: %w", a.journal(n), err)
		case err != nil || line.text == nil || json.Unmarshal(line.text, &e) != nil:
			bad++
		default:
			end = at
			fn(e)
		}
	}
}

type textLine struct {
	text   []byte // nil: longer than the limit
	length int    // with its end
}

// readLine reads up to a line's end; io.EOF comes with what has none.
func readLine(r *bufio.Reader, limit int) (textLine, error) {
	var l textLine
	long := false
	for {
		part, err := r.ReadSlice('\n')
		l.length += len(part)
		if long = long || l.length > limit; !long {
			l.text = append(l.text, part...)
		} else {
			l.text = nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return l, err
		}
	}
}

// append makes lines durable, in a new file if the present one is full.
func (a *archive) append(lines []byte) error {
	if a.log.Size() >= a.rotate {
		next, err := durable.OpenLog(a.fs, "collect.journal", a.journal(a.number+1), 0o600)
		if err != nil {
			return err
		}
		if err := a.log.Close(); err != nil {
			return errors.Join(err, next.Close())
		}
		a.log = next
		a.number++
	}
	return a.log.Append(lines)
}

// save replaces the snapshot.
func (a *archive) save(s collectState) error {
	s.V, s.File, s.Offset = 1, a.number, a.log.Size()
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("cannot encode state: %w", err)
	}
	return durable.WriteFile(a.fs, "collect.state", filepath.Join(a.dir, stateFile), data, 0o600)
}

// file keeps a record as `ontctl record verify` reads it. What is there already
// stays: another record that claims the same order and job is filed beside it,
// by its digest, and one with another signature over the same by that of the
// whole. It returns the path, empty if it was filed before.
func (a *archive) file(device, orderID, job, digest string, data []byte) (string, error) {
	dir := filepath.Join(a.dir, "records", device)
	if err := durable.MkdirAll(a.fs, "collect.record", dir, 0o700); err != nil {
		return "", err
	}
	name := filepath.Join(dir, orderID+"-"+job)
	for _, path := range []string{name + ".record", name + "-" + digest[:16] + ".record"} {
		have, err := durable.ReadFile(a.fs, "collect.record", path, maxFile)
		switch {
		case err == nil && bytes.Equal(have, data):
			return "", nil
		case err == nil:
			continue
		case errors.Is(err, fs.ErrNotExist):
			return path, durable.WriteFile(a.fs, "collect.record", path, data, 0o600)
		}
		return "", err
	}
	// No order or job has a point in its name: this one is nobody else's.
	whole := sha256.Sum256(data)
	path := name + "." + hex.EncodeToString(whole[:]) + ".record"
	if have, err := durable.ReadFile(a.fs, "collect.record", path, maxFile); err == nil && bytes.Equal(have, data) {
		return "", nil
	}
	return path, durable.WriteFile(a.fs, "collect.record", path, data, 0o600)
}
