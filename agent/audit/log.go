package audit

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"ontagent/transport/durable"
)

// Options configure a Log.
type Options struct {
	FS  durable.FS
	Dir string
	// MaxFile bounds each of the two files, in bytes; 0 means 64 KiB.
	MaxFile int
	// Stamp fills in what an entry of the log's own says of time: epoch, uptime,
	// wall time, clock. Append's callers do that themselves.
	Stamp func(*Entry)
	// Announce is told every entry once it is on flash, in order; those of Append
	// too. After a start it is told the last entry again: a power cut may have
	// come between the two. It is called with the log locked, and must not block.
	Announce func(n uint64, line []byte)
	Log      *slog.Logger
}

// Log is a gateway's own trail on flash. It is safe for concurrent use.
type Log struct {
	o Options

	mu sync.Mutex
	// settled means that what was found on flash at the start is in order.
	settled bool
	file    *durable.Log // nil after an error: what is on flash must be looked at
	path    string       // of file
	good    int64        // bytes of file that hold entries up to head
	head    Head         // the last entry that Append, or what was found, vouches for
	// unended are the commands granted and not ended, as far back as the files go.
	unended map[string]bool
}

const (
	headFile      = "head.json"
	suffix        = ".audit"
	damagedSuffix = ".damaged"
	keepFiles     = 2
)

// Open finds the end of the trail in a directory, which it makes if needed. It
// goes on after what a power cut left of the last entry; where an entry that was
// announced does not hold, it says so by an entry of its own. Damage is no
// error; a directory that cannot be read or written is.
func Open(o Options) (*Log, error) {
	if o.MaxFile == 0 {
		o.MaxFile = 64 << 10
	}
	l := &Log{o: o}
	if err := durable.MkdirAll(o.FS, "audit.dir", o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open audit trail: %w", err)
	}
	// Also where it was there: an earlier start may have made it, and no more.
	if err := o.FS.SyncDir("audit.dir", filepath.Dir(filepath.Clean(o.Dir))); err != nil {
		return nil, fmt.Errorf("cannot open audit trail: %w", err)
	}
	if err := durable.Clean(o.FS, "audit.clean", o.Dir); err != nil {
		return nil, fmt.Errorf("cannot open audit trail: %w", err)
	}
	s, err := l.scan()
	if err != nil {
		return nil, fmt.Errorf("cannot open audit trail: %w", err)
	}
	if err := l.settle(s); err != nil {
		// A full disk, for one. Append tries again, and fails until it is done.
		o.Log.Warn("cannot write audit trail yet", "error", err)
	}
	return l, nil
}

// Append chains e and returns its line once that is on flash; N and Prev of e
// are given here. After an error e is not part of the chain, as far as flash can
// be made to say so: a power cut right then may leave it there, and it is
// announced at the next start.
func (l *Log) Append(e Entry) (line []byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.mend(); err != nil {
		return nil, fmt.Errorf("cannot add to audit trail: %w", err)
	}
	line, err = l.append(e)
	if err != nil {
		return nil, fmt.Errorf("cannot add to audit trail: %w", err)
	}
	return line, nil
}

func (l *Log) append(e Entry) ([]byte, error) {
	line, err := e.encode(l.head)
	if err != nil {
		return nil, err
	}
	framed := append(slices.Clip(line), '\n')
	if l.good > 0 && l.good+int64(len(framed)) > int64(l.o.MaxFile) {
		if err := l.rotate(); err != nil {
			return nil, err
		}
	}
	if err := l.file.Append(framed); err != nil {
		l.drop()
		return nil, err
	}
	l.good += int64(len(framed))
	l.accept(line)
	l.keepHead()
	l.prune()
	return line, nil
}

// accept takes a line that is on flash into the chain and tells of it.
func (l *Log) accept(line []byte) {
	l.head = l.head.after(line)
	l.note(line)
	l.announce(l.head.N, line)
}

func (l *Log) announce(n uint64, line []byte) {
	if l.o.Announce != nil {
		l.o.Announce(n, line)
	}
}

// note keeps track of what was granted and has not ended.
func (l *Log) note(line []byte) {
	e, err := Parse(line)
	if err != nil || e.Command == "" {
		return
	}
	if e.Event == Granted {
		l.unended[e.Command] = true
	} else {
		delete(l.unended, e.Command)
	}
}

// Unended reports whether the trail tells, as far back as it is kept, that a
// command was granted, and not how it ended.
func (l *Log) Unended(command string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unended[command]
}

// Head returns the end of the chain.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Lines returns the entries that are kept, oldest first.
func (l *Log) Lines() ([][]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, err := l.scan()
	if err != nil {
		return nil, fmt.Errorf("cannot read audit trail: %w", err)
	}
	return s.lines, nil
}

// Close closes the file. What was appended is on flash already.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	return f.Close()
}

// rotate opens the next file. The older ones go once it holds an entry.
func (l *Log) rotate() error {
	path := l.name(l.head.N + 1)
	f, err := durable.OpenLog(l.o.FS, "audit.append", path, 0o600)
	if err != nil {
		return err
	}
	l.drop()
	l.file, l.path, l.good = f, path, 0
	return l.cut()
}

// cut takes off what stands behind the entries that are vouched for.
func (l *Log) cut() error {
	if l.file.Size() <= l.good {
		return nil
	}
	if err := l.file.Truncate(l.good); err != nil {
		l.drop()
		return err
	}
	return nil
}

// drop lets go of the file, whose state is not known or which is full.
func (l *Log) drop() {
	if l.file == nil {
		return
	}
	if err := l.file.Close(); err != nil {
		l.o.Log.Debug("cannot close audit file", "error", err) // it was synced, or is looked at again
	}
	l.file = nil
}

// mend makes the log fit for appending after an error.
func (l *Log) mend() error {
	switch {
	case !l.settled:
		return l.load()
	case l.file != nil:
		return nil
	}
	f, err := durable.OpenLog(l.o.FS, "audit.append", l.path, 0o600)
	if err != nil {
		return err
	}
	l.file = f
	if f.Size() < l.good {
		return l.load() // somebody took entries away under us
	}
	return l.cut()
}

// load makes the log what is on flash.
func (l *Log) load() error {
	l.drop()
	s, err := l.scan()
	if err != nil {
		return err
	}
	return l.settle(s)
}

// keepHead keeps the head beside the entries, so that the loss of the last one
// is noticed. The entry is safe without it: a failure costs that only.
func (l *Log) keepHead() {
	data, err := json.Marshal(l.head)
	if err == nil {
		err = durable.WriteFile(l.o.FS, "audit.head", filepath.Join(l.o.Dir, headFile), data, 0o600)
	}
	if err != nil {
		l.o.Log.Warn("cannot keep head of audit trail", "n", l.head.N, "error", err)
	}
}

// prune removes the oldest files above the bound.
func (l *Log) prune() {
	names, err := l.names()
	if err != nil {
		return // tidying up must not fail an entry
	}
	for len(names) > keepFiles {
		if err := durable.Remove(l.o.FS, "audit.prune", filepath.Join(l.o.Dir, names[0])); err != nil {
			return // next time
		}
		names = names[1:]
	}
}

func (l *Log) name(n uint64) string { return filepath.Join(l.o.Dir, fmt.Sprintf("%016x%s", n, suffix)) }
