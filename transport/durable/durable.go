// Package durable does the few file operations that have to survive a power
// cut – replace a file, append to one, remove one, count starts – and says of
// each what a cut in the middle leaves behind.
//
// Every call names the operation it belongs to ("epoch", "record"), and all
// reach the disk through the narrow interface FS, so that a test can fail
// exactly one step of one operation. Spool, job, record and provision use it.
//
// Rename does not flush data, and a directory entry is not durable before its
// directory is: hence write, fsync, rename, fsync of the directory, always.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// TempSuffix ends the names of files that WriteFile has not finished. They
// mean nothing and may be removed at any time nobody writes: see Clean.
const TempSuffix = ".tmp~"

// Errors that errors.Is finds in what this package returns.
var (
	ErrTooLarge = errors.New("file too large")
	ErrCorrupt  = errors.New("file corrupt")
	ErrBroken   = errors.New("log broken by an earlier error")
)

// FS is what this package needs of a file system. Each method is given the
// name of the operation it is part of. OS is the real one.
type FS interface {
	// OpenFile is os.OpenFile.
	OpenFile(op, path string, flag int, perm fs.FileMode) (File, error)
	// Rename replaces newPath atomically, as rename(2).
	Rename(op, oldPath, newPath string) error
	// Remove removes a file or an empty directory.
	Remove(op, path string) error
	// Mkdir makes one directory.
	Mkdir(op, path string, perm fs.FileMode) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(op, path string) ([]string, error)
	// SyncDir makes the entries of a directory durable.
	SyncDir(op, path string) error
}

// File is an open file of an FS.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	// Size returns the length in bytes.
	Size() (int64, error)
	// Truncate sets the length.
	Truncate(size int64) error
	// Sync makes data and metadata durable.
	Sync() error
	// Datasync makes data durable, and of metadata only what reading it back
	// needs: the length, not the times.
	Datasync() error
	Close() error
}

// Space is what a file system can tell of its room. OS can.
type Space interface {
	// Free returns the bytes that the caller may still write below path, and
	// the size of the whole.
	Free(path string) (free, total int64, err error)
}

// WriteFile replaces the file at path by data. After a power cut at any moment
// and after any error the file is whole, old or new; after nil it is the new
// one for good. One caller at a time may write to a path.
func WriteFile(fsys FS, op, path string, data []byte, perm fs.FileMode) error {
	temp := path + TempSuffix
	err := writeTemp(fsys, op, temp, data, perm)
	if err == nil {
		err = fsys.Rename(op, temp, path)
	}
	if err != nil {
		// Best effort: what stays is overwritten next time, or cleaned.
		_ = fsys.Remove(op, temp)
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := fsys.SyncDir(op, filepath.Dir(path)); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

func writeTemp(fsys FS, op, temp string, data []byte, perm fs.FileMode) error {
	f, err := fsys.OpenFile(op, temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	n, err := f.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// ReadFile reads the file at path, up to limit bytes. The error is compatible
// with errors.Is for fs.ErrNotExist and ErrTooLarge.
func ReadFile(fsys FS, op, path string, limit int) ([]byte, error) {
	f, err := fsys.OpenFile(op, path, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	err = errors.Join(err, f.Close())
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	case len(data) > limit:
		return nil, fmt.Errorf("cannot read %s: %w: over %d bytes", path, ErrTooLarge, limit)
	}
	return data, nil
}

// Remove removes the file at path for good. A file that is not there is no
// error. After a power cut or an error the file is there whole, or gone.
func Remove(fsys FS, op, path string) error {
	err := fsys.Remove(op, path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove %s: %w", path, err)
	}
	// Also where it was gone: an earlier try may have failed right here.
	if err := fsys.SyncDir(op, filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove %s: %w", path, err)
	}
	return nil
}

// MkdirAll makes the directory at path and those above it that are missing,
// for good.
func MkdirAll(fsys FS, op, path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	err := fsys.Mkdir(op, path, perm)
	parent := filepath.Dir(path)
	if errors.Is(err, fs.ErrNotExist) && parent != path {
		if err := MkdirAll(fsys, op, parent, perm); err != nil {
			return err
		}
		err = fsys.Mkdir(op, path, perm)
	}
	if errors.Is(err, fs.ErrExist) {
		if _, dirErr := fsys.ReadDir(op, path); dirErr != nil {
			return fmt.Errorf("cannot make directory %s: %w", path, dirErr)
		}
		// Best effort, as below.
		_ = fsys.SyncDir(op, parent)
		return nil
	}
	if err == nil {
		err = fsys.SyncDir(op, parent)
		for dir := parent; err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			// Best effort: whoever made it may not have come this far.
			_ = fsys.SyncDir(op, filepath.Dir(dir))
		}
	}
	if err != nil {
		return fmt.Errorf("cannot make directory %s: %w", path, err)
	}
	return nil
}

// Clean removes what interrupted WriteFiles left in dir. Its owner calls it
// before anything writes there. A directory that is not there is clean.
func Clean(fsys FS, op, dir string) error {
	names, err := fsys.ReadDir(op, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot clean %s: %w", dir, err)
	}
	var errs error
	for _, name := range names {
		if strings.HasSuffix(name, TempSuffix) {
			errs = errors.Join(errs, fsys.Remove(op, filepath.Join(dir, name)))
		}
	}
	if errs != nil {
		return fmt.Errorf("cannot clean %s: %w", dir, errs)
	}
	return nil
}
