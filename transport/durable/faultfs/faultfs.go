// Package faultfs is a file system in memory for tests: it loses on a power cut
// what was not synced, sector by sector, fails any call it is told to fail, has
// an end, and counts what is written to it. It implements durable.FS and
// durable.Space, and is not part of any program.
//
// # What a power cut leaves
//
// Everything that was synced: the sectors and the length of a file by its Sync
// or Datasync, the entries of a directory by SyncDir (under Like UBIFS, at
// once). Of the rest:
//
//   - each sector written since then holds what it held when it was last on the
//     disk (zeros, if never), or the new content, independently of all others;
//   - the length of a file is the old one, the new one, or in between, but never
//     shorter than the shortest the file ever had since its last sync;
//   - each creation, rename and removal happened or not, independently of all
//     others. A rename is one change. The file behind a new name has what was
//     synced of it: nothing, if nothing was.
//
// Sectors may also reach the disk early, by themselves, as a kernel writes back
// when it likes. A sync that fails leaves behind sectors that a later sync takes
// for written, as Linux does: only writing them again brings them to the disk.
//
// All of it follows from the seed and the sequence of calls.
package faultfs

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"ontagent/transport/durable"
)

// Errors of a simulated machine.
var (
	// ErrCut is what every call returns from the power cut on, until PowerOn.
	ErrCut = errors.New("power cut")
	// ErrStale is what the files of an earlier life return.
	ErrStale = errors.New("file opened in an earlier life")
)

// Like is the kind of file system that is played.
type Like int

// The kinds.
const (
	// Ext4 loses sectors of 512 bytes and directory entries that were not synced.
	Ext4 Like = iota
	// UBIFS writes data in nodes of 4096 bytes; directories are always synced.
	UBIFS
)

func (l Like) String() string {
	if l == UBIFS {
		return "ubifs"
	}
	return "ext4"
}

func (l Like) sector() int {
	if l == UBIFS {
		return 4096
	}
	return 512
}

// The names of calls, in Fault.Call and in the trace.
const (
	CallOpen     = "open"
	CallRead     = "read"
	CallReadAt   = "readat"
	CallWrite    = "write"
	CallSize     = "size"
	CallTruncate = "truncate"
	CallSync     = "sync"
	CallDatasync = "datasync"
	CallClose    = "close"
	CallRename   = "rename"
	CallRemove   = "remove"
	CallMkdir    = "mkdir"
	CallReadDir  = "readdir"
	CallSyncDir  = "syncdir"
)

// Fault says which calls fail, and how. Several may be injected; of those that
// match a call, the first injected decides.
type Fault struct {
	Op   string // name of the operation; "" means any
	Call string // name of the call, CallWrite for one; "" means any
	Path string // end of the path; "" means any
	// N is the first call to fail, counted from 0 and from the injection among
	// those that match; Forever fails all later ones as well.
	N       int
	Forever bool
	// Err is what the call returns, in a PathError; nil makes a write short
	// without an error, and concerns no other call.
	Err error
	// Bytes is how much a failing write writes all the same; negative means a
	// random part.
	Bytes int
}

type fault struct {
	Fault
	seen int
}

// Counters count calls that succeeded, or wrote in part.
type Counters struct {
	Calls    int   // all, failed ones included
	Opens    int   // of files, creations included
	Creates  int   // of files
	Writes   int   // calls of Write
	Bytes    int64 // passed to Write
	Syncs    int   // Sync and Datasync
	DirSyncs int
	Renames  int
	Removes  int
	Mkdirs   int
}

func (c *Counters) add(d Counters) {
	c.Calls += d.Calls
	c.Opens += d.Opens
	c.Creates += d.Creates
	c.Writes += d.Writes
	c.Bytes += d.Bytes
	c.Syncs += d.Syncs
	c.DirSyncs += d.DirSyncs
	c.Renames += d.Renames
	c.Removes += d.Removes
	c.Mkdirs += d.Mkdirs
}

// FS is the file system. It begins with the directory "/" alone, and is safe for
// concurrent use.
type FS struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	like    Like
	now     map[string]*inode // entries as programs see them
	disk    map[string]*inode // entries that are durable
	pending []change          // what tells them apart, in order
	life    int               // raised when the power is cut or everything killed
	cut     bool
	cutIn   int // calls left until the power is cut; negative means never
	calls   int
	faults  []*fault
	failed  int
	room    int64 // 0 means no end
	used    int64
	counts  map[string]*Counters
	tracing bool
	trace   []string
}

var (
	_ durable.FS    = (*FS)(nil)
	_ durable.Space = (*FS)(nil)
)

// change is one change of directory entries that is not durable yet.
type change struct {
	from, to string // from is empty unless it is a rename
	node     *inode // behind to afterwards; nil means removed
}

// New returns an empty file system. Its accidents follow from seed.
func New(like Like, seed uint64) *FS {
	root := &inode{dir: true}
	return &FS{
		rnd: rand.New(rand.NewPCG(seed, 0x6661756c74)), like: like, cutIn: -1, //nolint:gosec // accidents that can be repeated
		now: map[string]*inode{"/": root}, disk: map[string]*inode{"/": root}, counts: map[string]*Counters{},
	}
}

// SetCapacity sets the bytes that all files together may take, in whole sectors;
// 0 means no end. Above it writes and creations return ENOSPC, after the part
// that fits.
func (f *FS) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room = bytes
}

// Inject makes calls fail.
func (f *FS) Inject(x Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault{Fault: x})
}

// Heal ends all injected faults and returns how many calls they failed since
// the last Heal.
func (f *FS) Heal() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.failed
	f.faults, f.failed = nil, 0
	return n
}

// CutIn cuts the power in the call after the next n: it happens in part, fails,
// and all that follow fail. A negative n takes that back.
func (f *FS) CutIn(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutIn = n
}

// Cut cuts the power now, between two calls.
func (f *FS) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = true
}

// IsCut says whether the power is off.
func (f *FS) IsCut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cut
}

// PowerOn decides what survived the power cut – one that happens now, if none
// did – and ends it and all faults. Files that were open are not any more.
func (f *FS) PowerOn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.pending {
		if f.rnd.IntN(2) == 0 {
			c.apply(f.disk)
		}
	}
	names := make([]string, 0, len(f.disk))
	for name := range f.disk {
		names = append(names, name)
	}
	slices.Sort(names) // parents first, and the same for every run
	f.now, f.used = make(map[string]*inode, len(names)), 0
	settled := make(map[*inode]bool, len(names))
	for _, name := range names {
		parent := f.now[filepath.Dir(name)]
		if name != "/" && (parent == nil || !parent.dir) {
			delete(f.disk, name)
			continue
		}
		node := f.disk[name]
		if settled[node] {
			// Two of its renames, of which only the second happened.
			node = node.clone()
			f.disk[name] = node
		} else if !node.dir {
			node.settle(f.rnd, f.like.sector())
		}
		settled[node] = true
		node.linked, node.open = true, 0
		f.now[name] = node
		f.used += f.taken(len(node.data))
	}
	f.pending, f.faults, f.failed = nil, nil, 0
	f.cut, f.cutIn = false, -1
	f.life++
}

// Kill ends the life of everything that has files open, without a power cut:
// what was written stays as it is.
func (f *FS) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life++
	f.used = 0
	for _, node := range f.now {
		node.open = 0
		f.used += f.taken(len(node.data))
	}
}

// Clone returns a copy, whose accidents follow from seed. Files open in the
// original are not in the copy; faults and counts stay behind.
func (f *FS) Clone(seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := New(f.like, seed)
	c.room, c.cut = f.room, f.cut
	copies := map[*inode]*inode{}
	twin := func(n *inode) *inode {
		if n == nil {
			return nil
		}
		if copies[n] == nil {
			copies[n] = n.clone()
		}
		return copies[n]
	}
	for name, n := range f.now {
		c.now[name] = twin(n)
		c.used += f.taken(len(n.data))
	}
	for name, n := range f.disk {
		c.disk[name] = twin(n)
	}
	for _, p := range f.pending {
		c.pending = append(c.pending, change{p.from, p.to, twin(p.node)})
	}
	return c
}

// Put places a file, durable at once, with the directories above it: no call, and
// neither counted nor failing. Nil data removes it.
func (f *FS) Put(path string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.now[path]; n != nil {
		f.used -= f.taken(len(n.data))
		n.linked = false
	}
	f.pending = slices.DeleteFunc(f.pending, func(c change) bool { return c.from == path || c.to == path })
	delete(f.now, path)
	delete(f.disk, path)
	if data == nil {
		return
	}
	n := &inode{linked: true, data: slices.Clone(data), size: len(data), minSize: len(data)}
	n.disk = slices.Clone(data)
	f.now[path], f.disk[path] = n, n
	f.used += f.taken(len(data))
	for dir := filepath.Dir(path); f.now[dir] == nil || f.disk[dir] == nil; dir = filepath.Dir(dir) {
		d := f.now[dir]
		if d == nil {
			d = &inode{dir: true, linked: true}
		}
		f.now[dir], f.disk[dir] = d, d
	}
}

// Get returns the content of a file as programs see it: no call.
func (f *FS) Get(path string) (data []byte, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.now[path]
	if n == nil || n.dir {
		return nil, false
	}
	return slices.Clone(n.data), true
}

// Durable returns what of a file is durable for sure – its synced content behind
// an entry that is durable itself – or ok false: no call.
func (f *FS) Durable(path string) (data []byte, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.disk[path]
	if n == nil || n.dir || f.now[path] != n {
		return nil, false
	}
	for _, c := range f.pending {
		if c.from == path || c.to == path {
			return nil, false
		}
	}
	return slices.Clone(n.disk[:min(n.size, len(n.disk), n.minSize)]), true
}

// Files returns the paths of all files, sorted: no call.
func (f *FS) Files() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name, n := range f.now {
		if !n.dir {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Used returns the bytes that files take, in whole sectors.
func (f *FS) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used
}

// OpenFiles returns how many files are open.
func (f *FS) OpenFiles() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	open := 0
	for _, n := range f.now {
		open += n.open
	}
	return open
}

// Calls returns how many calls were made so far.
func (f *FS) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Count returns the counters of one operation, or of all with op "".
func (f *FS) Count(op string) Counters {
	f.mu.Lock()
	defer f.mu.Unlock()
	var sum Counters
	for name, c := range f.counts {
		if op == "" || name == op {
			sum.add(*c)
		}
	}
	return sum
}

// Ops returns the names of the operations that made calls, sorted.
func (f *FS) Ops() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := make([]string, 0, len(f.counts))
	for name := range f.counts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ResetCounts sets all counters to zero.
func (f *FS) ResetCounts() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts, f.calls = map[string]*Counters{}, 0
}

// SetTrace begins a trace of all calls, or ends it.
func (f *FS) SetTrace(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tracing, f.trace = on, nil
}

// Trace returns the calls since SetTrace, each "op call name".
func (f *FS) Trace() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.trace)
}

// verdict is what becomes of one call.
type verdict struct {
	err   error // the call returns it
	cut   bool  // the power was cut in it: it may have happened in part
	short bool  // it is a write, and short without an error
	bytes int   // of a write that happen all the same; negative means random
}

// enter counts, traces and judges a call. The lock is held.
func (f *FS) enter(op, call, path string) (*Counters, verdict) {
	c := f.counts[op]
	if c == nil {
		c = &Counters{}
		f.counts[op] = c
	}
	c.Calls++
	f.calls++
	if f.tracing {
		f.trace = append(f.trace, op+" "+call+" "+filepath.Base(path))
	}
	fail := func(err error) error { return &fs.PathError{Op: call, Path: path, Err: err} }
	if f.cut {
		return c, verdict{err: fail(ErrCut)}
	}
	if f.cutIn == 0 {
		f.cut = true
		return c, verdict{err: fail(ErrCut), cut: true, bytes: -1}
	}
	if f.cutIn > 0 {
		f.cutIn--
	}
	var v verdict
	hit := false
	for _, x := range f.faults {
		if x.Op != "" && x.Op != op || x.Call != "" && x.Call != call || !strings.HasSuffix(path, x.Path) ||
			x.Err == nil && call != CallWrite {
			continue
		}
		x.seen++
		if hit || x.seen <= x.N || x.seen > x.N+1 && !x.Forever {
			continue
		}
		hit = true
		f.failed++
		v = verdict{short: x.Err == nil, bytes: x.Bytes}
		if x.Err != nil {
			v.err = fail(x.Err)
		}
	}
	return c, v
}

// taken is the room that n bytes take.
func (f *FS) taken(n int) int64 {
	s := f.like.sector()
	return int64((n + s - 1) / s * s)
}

func (f *FS) release(n *inode) {
	if n != nil && !n.linked && n.open == 0 && !n.dir {
		f.used -= f.taken(len(n.data))
	}
}

// record makes a change of entries, durable at once where directories are.
func (f *FS) record(c change) {
	c.apply(f.now)
	if f.like == UBIFS {
		c.apply(f.disk)
		return
	}
	f.pending = append(f.pending, c)
}

func (c change) apply(entries map[string]*inode) {
	if c.from != "" && entries[c.from] == c.node {
		delete(entries, c.from)
	}
	if c.node == nil {
		delete(entries, c.to)
		return
	}
	entries[c.to] = c.node
}

// Free implements durable.Space.
func (f *FS) Free(string) (free, total int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut {
		return 0, 0, &fs.PathError{Op: "statfs", Path: "/", Err: ErrCut}
	}
	if f.room == 0 {
		return 1 << 40, 1 << 40, nil
	}
	return max(f.room-f.used, 0), f.room, nil
}

// Rename implements durable.FS, for files.
func (f *FS) Rename(op, from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, v := f.enter(op, CallRename, to)
	if v.err != nil && (!v.cut || f.rnd.IntN(2) == 0) {
		return v.err
	}
	n, old := f.now[from], f.now[to]
	switch {
	case n == nil, !f.isDir(filepath.Dir(to)):
		return &fs.PathError{Op: CallRename, Path: from, Err: fs.ErrNotExist}
	case n.dir, old != nil && old.dir:
		return &fs.PathError{Op: CallRename, Path: from, Err: syscall.EISDIR}
	case n == old:
		return v.err
	}
	if old != nil {
		old.linked = false
		f.release(old)
	}
	f.record(change{from, to, n})
	c.Renames++
	return v.err
}

// Remove implements durable.FS.
func (f *FS) Remove(op, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, v := f.enter(op, CallRemove, path)
	if v.err != nil && (!v.cut || f.rnd.IntN(2) == 0) {
		return v.err
	}
	n := f.now[path]
	if n == nil {
		return &fs.PathError{Op: CallRemove, Path: path, Err: fs.ErrNotExist}
	}
	if n.dir && len(f.names(path)) > 0 {
		return &fs.PathError{Op: CallRemove, Path: path, Err: syscall.ENOTEMPTY}
	}
	n.linked = false
	f.release(n)
	f.record(change{to: path})
	c.Removes++
	return v.err
}

// Mkdir implements durable.FS.
func (f *FS) Mkdir(op, path string, _ fs.FileMode) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, v := f.enter(op, CallMkdir, path)
	if v.err != nil && (!v.cut || f.rnd.IntN(2) == 0) {
		return v.err
	}
	switch {
	case f.now[path] != nil:
		return &fs.PathError{Op: CallMkdir, Path: path, Err: fs.ErrExist}
	case f.now[filepath.Dir(path)] == nil:
		return &fs.PathError{Op: CallMkdir, Path: path, Err: fs.ErrNotExist}
	case !f.isDir(filepath.Dir(path)):
		return &fs.PathError{Op: CallMkdir, Path: path, Err: syscall.ENOTDIR}
	}
	f.record(change{to: path, node: &inode{dir: true, linked: true}})
	c.Mkdirs++
	return v.err
}

// ReadDir implements durable.FS.
func (f *FS) ReadDir(op, path string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, v := f.enter(op, CallReadDir, path); v.err != nil {
		return nil, v.err
	}
	switch n := f.now[path]; {
	case n == nil:
		return nil, &fs.PathError{Op: CallReadDir, Path: path, Err: fs.ErrNotExist}
	case !n.dir:
		return nil, &fs.PathError{Op: CallReadDir, Path: path, Err: syscall.ENOTDIR}
	}
	return f.names(path), nil
}

// SyncDir implements durable.FS.
func (f *FS) SyncDir(op, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, v := f.enter(op, CallSyncDir, path)
	if v.err != nil {
		return v.err
	}
	if !f.isDir(path) {
		return &fs.PathError{Op: CallOpen, Path: path, Err: fs.ErrNotExist}
	}
	f.pending = slices.DeleteFunc(f.pending, func(p change) bool {
		if filepath.Dir(p.to) != path && (p.from == "" || filepath.Dir(p.from) != path) {
			return false
		}
		p.apply(f.disk)
		return true
	})
	c.DirSyncs++
	return nil
}

func (f *FS) isDir(path string) bool {
	n := f.now[path]
	return n != nil && n.dir
}

func (f *FS) names(dir string) []string {
	var names []string
	for name := range f.now {
		if name != "/" && filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return names
}
