package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"ontagent/transport/durable"
)

// scanned is what is on flash.
type scanned struct {
	names []string
	lines [][]byte // whole entries that follow one another, from the first file on
	first Head     // before those
	end   Head     // of those
	// In the last file: where its entries end.
	good int64
	data []byte // of the last file, up to there
	// The first line says that what came before it was damaged.
	restarted bool
	rest      int    // lines, whole or not, from the first that does not follow on
	kept      Head   // as head.json says
	damage    string // what does not hold, empty if all does
}

// scan reads the trail and says what of it holds. The errors are of reading.
func (l *Log) scan() (scanned, error) {
	var s scanned
	headState, err := l.readHead(&s)
	if err != nil {
		return s, err
	}
	if s.names, err = l.names(); err != nil {
		return s, err
	}
	for i, name := range s.names {
		data, err := durable.ReadFile(l.o.FS, "audit.read", filepath.Join(l.o.Dir, name), l.o.MaxFile+MaxLine+1)
		switch {
		case errors.Is(err, durable.ErrTooLarge):
			s.damage, s.rest = name+" is too large", s.rest+1
		case err != nil:
			return s, err
		}
		s.take(data, i == len(s.names)-1, name)
	}
	switch {
	case s.damage != "":
	case len(s.names) == 1 && s.first.N > 0 && !s.restarted:
		s.damage = "the older file is gone"
	case headState == headCorrupt:
		s.damage = "the kept head is not legible"
	case headState == headMissing && s.end.N > 1:
		s.damage = "the kept head is missing"
	case len(s.lines) > 0 && s.first.N >= s.kept.N && s.first != s.kept:
		s.damage = fmt.Sprintf("entry %d does not follow the kept head, entry %d", s.first.N+1, s.kept.N)
	case s.end.N < s.kept.N:
		s.damage = fmt.Sprintf("entries %d to %d are gone", s.end.N+1, s.kept.N)
	}
	return s, nil
}

type headState int

const (
	headGood headState = iota
	headMissing
	headCorrupt
)

func (l *Log) readHead(s *scanned) (headState, error) {
	data, err := durable.ReadFile(l.o.FS, "audit.head", filepath.Join(l.o.Dir, headFile), 4096)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return headMissing, nil
	case errors.Is(err, durable.ErrTooLarge):
		return headCorrupt, nil
	case err != nil:
		return headMissing, err
	}
	var kept Head
	if err := json.Unmarshal(data, &kept); err == nil && kept.N > 0 && len(kept.SHA256) == 64 {
		s.kept = kept
		return headGood, nil
	}
	return headCorrupt, nil
}

// take reads one file: entries as far as they follow one another. A line behind
// them is what a power cut left of an entry that nobody was told of, if it is the
// very last and the head knows of no more; else it is damage.
func (s *scanned) take(data []byte, last bool, name string) {
	s.good, s.data = 0, data
	if len(data) == 0 && !last && s.damage == "" {
		s.damage = name + " is empty"
	}
	for len(data) > 0 && s.damage == "" {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole || !s.follows(line) {
			break
		}
		next := s.end.after(line)
		if next.N == s.kept.N && next != s.kept {
			s.damage = fmt.Sprintf("entry %d is not the one that was kept as head", next.N)
			break
		}
		s.end, s.lines = next, append(s.lines, line)
		s.good += int64(len(line)) + 1
		data = rest
	}
	s.data = s.data[:s.good]
	if len(data) == 0 {
		return
	}
	s.rest += 1 + bytes.Count(data[:len(data)-1], []byte("\n"))
	if s.damage == "" && (!last || s.rest > 1 || s.end.N < s.kept.N) {
		s.damage = fmt.Sprintf("entry %d in %s is altered or cut off", s.end.N+1, name)
	}
}

// follows reports whether line is the entry after those read so far. The first
// that is kept may be any: those before it were removed with their file.
func (s *scanned) follows(line []byte) bool {
	e, err := Parse(line)
	if err != nil {
		return false
	}
	if len(s.lines) == 0 {
		s.restarted = e.Event == Damaged
		s.first = Head{N: e.N - 1, SHA256: e.Prev}
		s.end = s.first
		return true
	}
	return e.N == s.end.N+1 && e.Prev == s.end.SHA256
}

// settle brings what was found on flash in order: a torn end goes, and damage is
// said.
func (l *Log) settle(s scanned) error {
	l.settled = false
	l.unended = map[string]bool{}
	for _, line := range s.lines {
		l.note(line)
	}
	l.head = s.end
	if s.kept.N > s.end.N {
		l.head = s.kept
	}
	if s.damage != "" {
		return l.restart(s)
	}
	if len(s.lines) > 0 {
		l.announce(s.end.N, s.lines[len(s.lines)-1])
	}
	l.good, l.path = s.good, l.name(s.end.N+1)
	if len(s.names) > 0 {
		l.path = filepath.Join(l.o.Dir, s.names[len(s.names)-1])
	}
	if s.end.N > s.kept.N && s.good > 0 {
		// Nobody vouches for the last entry yet: after a failed sync it can be
		// read and never have reached the flash. Written again, it is there.
		if err := durable.WriteFile(l.o.FS, "audit.settle", l.path, s.data, 0o600); err != nil {
			return err
		}
	}
	var err error
	if l.file, err = durable.OpenLog(l.o.FS, "audit.append", l.path, 0o600); err != nil {
		return err
	}
	if err := l.cut(); err != nil {
		return err
	}
	if s.end.N > s.kept.N {
		l.keepHead()
	}
	l.prune()
	l.settled = true
	return nil
}

// restart goes on in a new file, with an entry that says what is wrong with the
// old ones. Those are kept aside for whoever looks into it, until the next time.
// The numbers go on, so that no two entries of a gateway have the same.
func (l *Log) restart(s scanned) error {
	seen := s.end.N + uint64(s.rest)
	switch {
	case s.kept.N > 0 && s.kept.N >= seen:
		l.head = s.kept
	case s.rest > 0:
		l.head = Head{N: seen}
	default:
		l.head = s.end
	}
	e := Entry{Event: Damaged, Detail: s.damage}
	if l.o.Stamp != nil {
		l.o.Stamp(&e)
	}
	line, err := e.encode(l.head)
	if err != nil {
		return err
	}
	l.o.Log.Error("audit trail is damaged", "n", l.head.N+1, "detail", s.damage)
	path := l.name(l.head.N + 1)
	// Whole or not at all: a name that is there already is one of the damaged.
	if err := durable.WriteFile(l.o.FS, "audit.restart", path, append(slices.Clip(line), '\n'), 0o600); err != nil {
		return err
	}
	l.path, l.good = path, int64(len(line))+1
	if l.file, err = durable.OpenLog(l.o.FS, "audit.append", path, 0o600); err != nil {
		return err
	}
	l.accept(line)
	l.keepHead()
	if err := l.setAside(s.names, filepath.Base(path)); err != nil {
		return err
	}
	l.settled = true
	return nil
}

// setAside renames damaged files, all but one name, in place of those of an
// earlier damage.
func (l *Log) setAside(names []string, but string) error {
	entries, err := l.o.FS.ReadDir("audit.aside", l.o.Dir)
	if err != nil {
		return err
	}
	for _, name := range entries {
		if strings.HasSuffix(name, damagedSuffix) {
			if err := l.o.FS.Remove("audit.aside", filepath.Join(l.o.Dir, name)); err != nil {
				return err
			}
		}
	}
	for _, name := range names {
		if name == but {
			continue
		}
		path := filepath.Join(l.o.Dir, name)
		if err := l.o.FS.Rename("audit.aside", path, path+damagedSuffix); err != nil {
			return err
		}
	}
	return l.o.FS.SyncDir("audit.aside", l.o.Dir)
}

// names lists the trail's files, oldest first.
func (l *Log) names() ([]string, error) {
	entries, err := l.o.FS.ReadDir("audit.list", l.o.Dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range entries { // sorted; zero-padded hex: in the order of the chain
		if strings.HasSuffix(name, suffix) {
			names = append(names, name)
		}
	}
	return names, nil
}
