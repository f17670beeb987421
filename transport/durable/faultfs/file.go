package faultfs

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"ontagent/transport/durable"
)

// inode is a file or a directory, whatever its names.
type inode struct {
	dir    bool
	linked bool
	open   int

	data    []byte // as programs see it
	disk    []byte // what is in the sectors on the disk, beyond size too
	size    int    // length on the disk
	minSize int    // the shortest that data was since size was synced
	dirty   []bool // by sector: data is newer than disk
	lo, hi  int    // no sector outside [lo, hi) is dirty
}

func (n *inode) clone() *inode {
	c := *n
	c.open = 0
	c.data, c.disk, c.dirty = slices.Clone(n.data), slices.Clone(n.disk), slices.Clone(n.dirty)
	return &c
}

// touch marks the sectors of bytes [from, to) as newer than the disk.
func (n *inode) touch(from, to, sector int) {
	if from >= to {
		return
	}
	first, last := from/sector, (to-1)/sector
	for len(n.dirty) <= last {
		n.dirty = append(n.dirty, false)
	}
	for i := first; i <= last; i++ {
		n.dirty[i] = true
	}
	if n.lo == n.hi {
		n.lo, n.hi = first, last+1
		return
	}
	n.lo, n.hi = min(n.lo, first), max(n.hi, last+1)
}

// flush writes one sector back to the disk.
func (n *inode) flush(i, sector int) {
	n.dirty[i] = false
	from, to := i*sector, min((i+1)*sector, len(n.data))
	if from >= to {
		return
	}
	if len(n.disk) < to {
		n.disk = append(n.disk, make([]byte, to-len(n.disk))...)
	}
	copy(n.disk[from:], n.data[from:to])
	clear(n.disk[to:min((i+1)*sector, len(n.disk))])
}

// sync makes everything durable.
func (n *inode) sync(sector int) {
	for i := n.lo; i < n.hi; i++ {
		if n.dirty[i] {
			n.flush(i, sector)
		}
	}
	n.lo, n.hi = 0, 0
	n.size, n.minSize = len(n.data), len(n.data)
	if len(n.disk) > n.size {
		n.disk = n.disk[:n.size]
	}
}

// settle decides what of the file survives a power cut.
func (n *inode) settle(rnd *rand.Rand, sector int) {
	mood := rnd.IntN(4) // all lost, all written, or each on its own
	for i := n.lo; i < n.hi; i++ {
		if n.dirty[i] && (mood == 1 || mood > 1 && rnd.IntN(2) == 0) {
			n.flush(i, sector)
		}
	}
	size := n.size
	if top := max(n.size, len(n.data)); n.minSize < top {
		switch rnd.IntN(4) {
		case 0:
			size = len(n.data)
		case 1, 2:
			size = n.minSize + rnd.IntN(top-n.minSize+1)
		}
	}
	data := make([]byte, size)
	copy(data, n.disk)
	n.data, n.disk = data, slices.Clone(data)
	n.size, n.minSize = size, size
	n.dirty, n.lo, n.hi = nil, 0, 0
}

// handle is an open file.
type handle struct {
	f        *FS
	n        *inode
	op, path string
	flag     int
	at       int
	life     int
	closed   bool
}

// OpenFile implements durable.FS.
func (f *FS) OpenFile(op, path string, flag int, _ fs.FileMode) (durable.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, v := f.enter(op, CallOpen, path)
	if v.err != nil && (!v.cut || f.rnd.IntN(2) == 0) {
		return nil, v.err
	}
	fail := func(err error) (durable.File, error) { return nil, &fs.PathError{Op: CallOpen, Path: path, Err: err} }
	n := f.now[path]
	writes := flag&(os.O_WRONLY|os.O_RDWR) != 0
	switch {
	case n != nil && flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return fail(fs.ErrExist)
	case n != nil && n.dir:
		return fail(syscall.EISDIR)
	case n == nil && (flag&os.O_CREATE == 0 || f.now[filepath.Dir(path)] == nil):
		return fail(fs.ErrNotExist)
	case n == nil && !f.isDir(filepath.Dir(path)):
		return fail(syscall.ENOTDIR)
	case n == nil && f.room > 0 && f.used >= f.room:
		return fail(syscall.ENOSPC)
	case n == nil:
		n = &inode{linked: true}
		f.record(change{to: path, node: n})
		c.Creates++
	case flag&os.O_TRUNC != 0 && writes:
		f.resize(n, 0)
	}
	if v.err != nil {
		return nil, v.err
	}
	c.Opens++
	n.open++
	return &handle{f: f, n: n, op: op, path: path, flag: flag, life: f.life}, nil
}

// resize sets the length that programs see.
func (f *FS) resize(n *inode, size int) {
	sector := f.like.sector()
	old := len(n.data)
	if size < old {
		n.data = n.data[:size]
		n.minSize = min(n.minSize, size)
		for i := max(n.lo, (size+sector-1)/sector); i < n.hi; i++ {
			n.dirty[i] = false
		}
	} else {
		n.data = append(n.data, make([]byte, size-old)...)
		n.touch(old, size, sector)
	}
	f.used += f.taken(size) - f.taken(old)
}

// enter is FS.enter for a file that is open. The lock is held.
func (h *handle) enter(call string) (*Counters, verdict) {
	c, v := h.f.enter(h.op, call, h.path)
	if v.err == nil && h.life != h.f.life {
		v.err = &fs.PathError{Op: call, Path: h.path, Err: ErrStale}
	}
	if v.err == nil && h.closed {
		v.err = &fs.PathError{Op: call, Path: h.path, Err: fs.ErrClosed}
	}
	return c, v
}

func (h *handle) bad(call string) error {
	return &fs.PathError{Op: call, Path: h.path, Err: syscall.EBADF}
}

func (h *handle) readAt(p []byte, off int64) (int, error) {
	if h.flag&os.O_WRONLY != 0 {
		return 0, h.bad(CallRead)
	}
	if off < 0 {
		return 0, &fs.PathError{Op: CallReadAt, Path: h.path, Err: syscall.EINVAL}
	}
	if off >= int64(len(h.n.data)) {
		return 0, io.EOF
	}
	return copy(p, h.n.data[off:]), nil
}

func (h *handle) Read(p []byte) (int, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if _, v := h.enter(CallRead); v.err != nil {
		return 0, v.err
	}
	n, err := h.readAt(p, int64(h.at))
	h.at += n
	if len(p) == 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if _, v := h.enter(CallReadAt); v.err != nil {
		return 0, v.err
	}
	n, err := h.readAt(p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Write writes at the end with O_APPEND, else behind the last read or write.
func (h *handle) Write(p []byte) (int, error) {
	f, n := h.f, h.n
	f.mu.Lock()
	defer f.mu.Unlock()
	c, v := h.enter(CallWrite)
	partly := v.cut || v.short || v.err != nil && !f.cut && h.life == f.life && !h.closed
	if v.err != nil && !partly {
		return 0, v.err
	}
	if h.flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		return 0, h.bad(CallWrite)
	}
	err := v.err
	if partly {
		part := v.bytes
		if part < 0 {
			part = f.rnd.IntN(len(p) + 1)
		}
		p = p[:min(part, len(p))]
	}
	at := h.at
	if h.flag&os.O_APPEND != 0 {
		at = len(n.data)
	}
	if f.room > 0 {
		// What fits: the rest of the file's last sector, and whole free ones.
		sector := f.like.sector()
		free := int(min(max(f.room-f.used, 0), 1<<30)) / sector * sector
		fits := int(f.taken(len(n.data))) + free - at
		if fits < len(p) {
			p, err = p[:max(fits, 0)], &fs.PathError{Op: CallWrite, Path: h.path, Err: syscall.ENOSPC}
		}
	}
	if end := at + len(p); end > len(n.data) && len(p) > 0 {
		f.resize(n, end)
	}
	copy(n.data[min(at, len(n.data)):], p)
	n.touch(at, at+len(p), f.like.sector())
	h.at = at + len(p)
	c.Writes++
	c.Bytes += int64(len(p))
	f.writeback(n)
	return len(p), err
}

// writeback is the kernel writing a few sectors when it likes.
func (f *FS) writeback(n *inode) {
	if f.rnd.IntN(8) != 0 {
		return
	}
	for i := n.lo; i < n.hi; i++ {
		if n.dirty[i] && f.rnd.IntN(2) == 0 {
			n.flush(i, f.like.sector())
		}
	}
}

func (h *handle) Size() (int64, error) {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	if _, v := h.enter(CallSize); v.err != nil {
		return 0, v.err
	}
	return int64(len(h.n.data)), nil
}

func (h *handle) Truncate(size int64) error {
	f := h.f
	f.mu.Lock()
	defer f.mu.Unlock()
	_, v := h.enter(CallTruncate)
	if v.err != nil && (!v.cut || f.rnd.IntN(2) == 0) {
		return v.err
	}
	switch {
	case h.flag&(os.O_WRONLY|os.O_RDWR) == 0:
		return h.bad(CallTruncate)
	case size < 0 || size > 1<<30:
		return &fs.PathError{Op: CallTruncate, Path: h.path, Err: syscall.EINVAL}
	case f.room > 0 && f.used+f.taken(int(size))-f.taken(len(h.n.data)) > f.room && int(size) > len(h.n.data):
		return &fs.PathError{Op: CallTruncate, Path: h.path, Err: syscall.ENOSPC}
	}
	f.resize(h.n, int(size))
	return v.err
}

func (h *handle) Sync() error     { return h.sync(CallSync) }
func (h *handle) Datasync() error { return h.sync(CallDatasync) }

func (h *handle) sync(call string) error {
	f, n := h.f, h.n
	f.mu.Lock()
	defer f.mu.Unlock()
	c, v := h.enter(call)
	switch {
	case v.cut:
		return v.err // settle decides, as without
	case v.err != nil && (f.cut || h.life != f.life || h.closed):
		return v.err
	case v.err != nil:
		for i := n.lo; i < n.hi; i++ {
			if n.dirty[i] && f.rnd.IntN(2) == 0 {
				n.dirty[i] = false
			}
		}
		return v.err
	}
	n.sync(f.like.sector())
	c.Syncs++
	return nil
}

func (h *handle) Close() error {
	f := h.f
	f.mu.Lock()
	defer f.mu.Unlock()
	_, v := h.enter(CallClose)
	if h.life == f.life && !h.closed {
		// Also where it fails, as close(2).
		h.closed = true
		h.n.open--
		f.release(h.n)
	}
	return v.err
}
