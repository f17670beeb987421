package powercut

import (
	"errors"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"
	"syscall"

	"ontagent/transport/durable"
)

// files is the file system of the machine, watched: it holds whoever makes more
// calls than allowed, notices when the flash is dead, and closes what a killed
// process would.
type files struct {
	durable.OS
	// forgetful makes every sync do nothing but those of the epoch: the control
	// that shows what the tests here find.
	forgetful bool

	inside atomic.Int32 // calls under way
	calls  atomic.Int64
	dead   atomic.Bool // a call failed as on a flash without power

	mu      sync.Mutex
	more    sync.Cond         // allowed was raised; of mu
	allowed int               // calls that may begin; guarded by mu
	open    map[*watched]bool // guarded by mu
}

func newFiles(forgetful bool) *files {
	f := &files{forgetful: forgetful, open: map[*watched]bool{}, allowed: math.MaxInt}
	f.more.L = &f.mu
	return f
}

// allow sets how many calls may begin from now on; the next one waits.
func (f *files) allow(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allowed = n
	f.more.Broadcast()
}

// enter waits until one more call is allowed.
func (f *files) enter() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.allowed <= 0 {
		f.more.Wait()
	}
	f.allowed--
}

// call does one file operation.
func (f *files) call(do func() error) error {
	f.enter()
	f.inside.Add(1)
	defer f.inside.Add(-1)
	f.calls.Add(1)
	err := do()
	if errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EIO) {
		f.dead.Store(true)
	}
	return err
}

func (f *files) sync(op string, do func() error) error {
	if f.forgetful && op != "epoch" {
		return nil
	}
	return f.call(do)
}

// abandon closes all files, as the kernel does when a process is killed.
func (f *files) abandon() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.open {
		_ = w.File.Close()
	}
	clear(f.open)
}

func (f *files) OpenFile(op, path string, flag int, perm fs.FileMode) (file durable.File, err error) {
	err = f.call(func() error {
		file, err = f.OS.OpenFile(op, path, flag, perm)
		return err
	})
	if err != nil {
		return nil, err
	}
	w := &watched{File: file, of: f, op: op}
	f.mu.Lock()
	f.open[w] = true
	f.mu.Unlock()
	return w, nil
}

func (f *files) Rename(op, from, to string) error {
	return f.call(func() error { return f.OS.Rename(op, from, to) })
}

func (f *files) Remove(op, path string) error {
	return f.call(func() error { return f.OS.Remove(op, path) })
}

func (f *files) Mkdir(op, path string, perm fs.FileMode) error {
	return f.call(func() error { return f.OS.Mkdir(op, path, perm) })
}

func (f *files) SyncDir(op, path string) error {
	return f.sync(op, func() error { return f.OS.SyncDir(op, path) })
}

// watched is an open file of files.
type watched struct {
	durable.File
	of *files
	op string
}

func (w *watched) Write(p []byte) (n int, err error) {
	err = w.of.call(func() error {
		n, err = w.File.Write(p)
		return err
	})
	return n, err
}

func (w *watched) Truncate(size int64) error {
	return w.of.call(func() error { return w.File.Truncate(size) })
}
func (w *watched) Sync() error     { return w.of.sync(w.op, w.File.Sync) }
func (w *watched) Datasync() error { return w.of.sync(w.op, w.File.Datasync) }

func (w *watched) Close() error {
	w.of.mu.Lock()
	delete(w.of.open, w)
	w.of.mu.Unlock()
	return w.File.Close()
}
