package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"sort"
	"strings"
	"syscall"
)

// errCut is what everything returns after the power was cut.
var errCut = errors.New("power cut")

// sim is a file system in memory that forgets on a power cut what was not
// synced: data of files (a part of it may have made it, the rest may be gone or
// zeros) and directory entries (renames, creations and removals that were not
// synced may have happened or not). Directories themselves are durable once
// made and their parent synced.
type sim struct {
	rnd   *rand.Rand
	now   map[string]*simFile // entries as running programs see them
	disk  map[string]*simFile // entries that survive
	dirs  map[string]bool
	calls int
	// fail, if set, is asked at every call for an error to return.
	fail  func(op, call string, n int) error
	trace []string
}

type simFile struct {
	data   []byte
	synced []byte
}

func newSim(seed uint64) *sim {
	return &sim{
		rnd: rand.New(rand.NewPCG(seed, 2)), now: map[string]*simFile{}, disk: map[string]*simFile{},
		dirs: map[string]bool{"/": true, "/d": true},
	}
}

// call counts, traces and maybe fails one call.
func (s *sim) call(op, call, name string) error {
	n := s.calls
	s.calls++
	s.trace = append(s.trace, strings.TrimSpace(op+" "+call+" "+path.Base(name)))
	if s.fail != nil {
		if err := s.fail(op, call, n); err != nil {
			return &fs.PathError{Op: call, Path: name, Err: err}
		}
	}
	return nil
}

// cut cuts the power: what survives is decided, then everything works again.
func (s *sim) cut() {
	s.fail = nil
	names := map[string]bool{}
	for name := range s.now {
		names[name] = true
	}
	for name := range s.disk {
		names[name] = true
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	after := map[string]*simFile{}
	for _, name := range sorted {
		f := s.disk[name]
		if s.rnd.IntN(2) == 0 { // the unsynced entry made it
			f = s.now[name]
		}
		if f == nil {
			continue
		}
		data := f.synced
		if extra := len(f.data) - len(data); extra > 0 && strings.HasPrefix(string(f.data), string(data)) {
			n := s.rnd.IntN(extra + 1)
			data = append(append([]byte(nil), data...), f.data[len(data):len(data)+n]...)
			if s.rnd.IntN(2) == 0 {
				data = append(data, make([]byte, extra-n)...)
			}
		} else if s.rnd.IntN(2) == 0 {
			data = f.data
		}
		after[name] = &simFile{data: data, synced: append([]byte(nil), data...)}
	}
	s.now, s.disk = after, map[string]*simFile{}
	maps.Copy(s.disk, after)
}

func (s *sim) OpenFile(op, name string, flag int, _ fs.FileMode) (File, error) {
	if err := s.call(op, "open", name); err != nil {
		return nil, err
	}
	f := s.now[name]
	if f == nil {
		if flag&os.O_CREATE == 0 || !s.dirs[path.Dir(name)] {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		f = &simFile{}
		s.now[name] = f
	}
	if flag&os.O_TRUNC != 0 {
		f.data = nil
	}
	return &simHandle{s: s, op: op, name: name, f: f}, nil
}

func (s *sim) Rename(op, from, to string) error {
	if err := s.call(op, "rename", to); err != nil {
		return err
	}
	s.now[to] = s.now[from]
	delete(s.now, from)
	return nil
}

func (s *sim) Remove(op, name string) error {
	if err := s.call(op, "remove", name); err != nil {
		return err
	}
	if s.now[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	delete(s.now, name)
	return nil
}

func (s *sim) Mkdir(op, name string, _ fs.FileMode) error {
	if err := s.call(op, "mkdir", name); err != nil {
		return err
	}
	switch {
	case s.dirs[name] || s.now[name] != nil:
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
	case !s.dirs[path.Dir(name)]:
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrNotExist}
	}
	s.dirs[name] = true
	return nil
}

func (s *sim) ReadDir(op, name string) ([]string, error) {
	if err := s.call(op, "readdir", name); err != nil {
		return nil, err
	}
	if !s.dirs[name] {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var names []string
	for n := range s.now {
		if path.Dir(n) == name {
			names = append(names, path.Base(n))
		}
	}
	sort.Strings(names)
	return names, nil
}

func (s *sim) SyncDir(op, name string) error {
	if err := s.call(op, "syncdir", name); err != nil {
		return err
	}
	if !s.dirs[name] {
		return &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	for n := range s.disk {
		if path.Dir(n) == name && s.now[n] == nil {
			delete(s.disk, n)
		}
	}
	for n, f := range s.now {
		if path.Dir(n) == name {
			s.disk[n] = f
		}
	}
	return nil
}

type simHandle struct {
	s        *sim
	op, name string
	f        *simFile
	at       int
}

func (h *simHandle) Read(p []byte) (int, error) {
	if err := h.s.call(h.op, "read", h.name); err != nil {
		return 0, err
	}
	if h.at >= len(h.f.data) {
		return 0, io.EOF
	}
	n := copy(p, h.f.data[h.at:])
	h.at += n
	return n, nil
}

func (h *simHandle) ReadAt(p []byte, off int64) (int, error) {
	if err := h.s.call(h.op, "readat", h.name); err != nil {
		return 0, err
	}
	if off >= int64(len(h.f.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Write appends; a failing write writes a part.
func (h *simHandle) Write(p []byte) (int, error) {
	if err := h.s.call(h.op, "write", h.name); err != nil {
		n := h.s.rnd.IntN(len(p) + 1)
		h.f.data = append(h.f.data, p[:n]...)
		return n, err
	}
	h.f.data = append(h.f.data, p...)
	return len(p), nil
}

func (h *simHandle) Size() (int64, error) {
	if err := h.s.call(h.op, "size", h.name); err != nil {
		return 0, err
	}
	return int64(len(h.f.data)), nil
}

func (h *simHandle) Truncate(size int64) error {
	if err := h.s.call(h.op, "truncate", h.name); err != nil {
		return err
	}
	h.f.data = append([]byte(nil), h.f.data[:size]...)
	return nil
}

func (h *simHandle) Sync() error {
	if err := h.s.call(h.op, "sync", h.name); err != nil {
		return err
	}
	h.f.synced = append([]byte(nil), h.f.data...)
	return nil
}

func (h *simHandle) Datasync() error {
	if err := h.s.call(h.op, "datasync", h.name); err != nil {
		return err
	}
	h.f.synced = append([]byte(nil), h.f.data...)
	return nil
}

func (h *simHandle) Close() error { return h.s.call(h.op, "close", h.name) }

// failAt fails call number k only, failFrom every call from k on.
func failAt(k int, err error) func(string, string, int) error {
	return func(_, _ string, n int) error {
		if n == k {
			return err
		}
		return nil
	}
}

func failFrom(k int) func(string, string, int) error {
	return func(_, _ string, n int) error {
		if n >= k {
			return errCut
		}
		return nil
	}
}

// faults are what a file system answers when it is in trouble.
func faults() []error {
	return []error{syscall.ENOSPC, syscall.EROFS, syscall.EIO, syscall.EMFILE}
}

// content returns what is at name, "-" if nothing.
func (s *sim) content(name string) string {
	f := s.now[name]
	if f == nil {
		return "-"
	}
	return fmt.Sprintf("%q", f.data)
}
