// Package scratch makes temporary directories that somebody removes even if
// their owner is killed: each is locked for as long as a process has it, and
// whoever makes or sweeps the next one removes those that nobody has.
package scratch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	prefix   = "ontlab-"
	lockName = ".lock"
	// newLock is what the lock is called until it is locked: who sweeps never
	// sees one that is about to be.
	newLock = ".lock.new"
)

// Dir is a temporary directory that this process has.
type Dir struct {
	Path string
	lock *os.File
}

// New makes a directory named after what it is for, and sweeps. It can be
// passed through by others, so that servers which give up root reach what is
// theirs in it, and listed by nobody else.
func New(purpose string) (*Dir, error) {
	Sweep()
	path, err := os.MkdirTemp("", prefix+purpose+"-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a directory: %w", err)
	}
	d, err := hold(path, newLock)
	if err == nil {
		err = errors.Join(
			os.Chmod(path, 0o711), //nolint:gosec // see above
			os.Rename(filepath.Join(path, newLock), filepath.Join(path, lockName)))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make a directory: %w", err), os.RemoveAll(path))
	}
	return d, nil
}

// Hold keeps a directory that another process made: it stays until both have
// let it go.
func Hold(path string) (*Dir, error) { return hold(path, lockName) }

func hold(path, name string) (*Dir, error) {
	lock, err := os.OpenFile(filepath.Join(path, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot hold %s: %w", path, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot hold %s: %w", path, err), lock.Close())
	}
	return &Dir{Path: path, lock: lock}, nil
}

// Release lets the directory go, and leaves it to whoever else has it.
func (d *Dir) Release() error { return d.lock.Close() }

// Remove removes the directory.
func (d *Dir) Remove() error { return errors.Join(os.RemoveAll(d.Path), d.lock.Close()) }

// Sweep removes the directories of ours whose owners are gone.
func Sweep() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		if abandoned(dir) {
			_ = os.RemoveAll(dir) // the next sweep tries again
		}
	}
}

func abandoned(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Getuid() {
		return false
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false // not one of these
	}
	defer func() { _ = lock.Close() }() // and with it the lock
	return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}
