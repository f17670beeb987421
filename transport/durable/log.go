package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Log is a file that only grows, by whole appends. Framing – where one append
// ends, whether it is whole – is the caller's: a power cut during an append may
// leave a part of it, or zeros, at the end. It is not safe for concurrent use.
type Log struct {
	file File
	path string
	size int64 // bytes known to be good
	err  error // why it is broken; nil while it is not
}

// OpenLog opens the log at path for appending, making it if it is missing.
func OpenLog(fsys FS, op, path string, perm fs.FileMode) (*Log, error) {
	f, err := fsys.OpenFile(op, path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, perm)
	if err != nil {
		return nil, fmt.Errorf("cannot open log %s: %w", path, err)
	}
	size, err := f.Size()
	if err == nil {
		// Always: whoever made the file may not have come this far.
		err = fsys.SyncDir(op, filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open log %s: %w", path, errors.Join(err, f.Close()))
	}
	return &Log{file: f, path: path, size: size}, nil
}

// Append adds data in one write and makes it durable. After an error data may
// be found at the next opening all the same, whole or in part, and the log
// takes no more: its later errors are compatible with errors.Is(err, ErrBroken).
func (l *Log) Append(data []byte) error {
	if l.err != nil {
		return fmt.Errorf("cannot append to %s: %w: %w", l.path, ErrBroken, l.err)
	}
	n, err := l.file.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = l.file.Datasync()
	}
	if err != nil {
		// After a failed sync nobody knows what is on the disk. Take back what
		// can be taken back, and write no more behind it.
		l.err = errors.Join(err, l.file.Truncate(l.size))
		return fmt.Errorf("cannot append to %s: %w", l.path, err)
	}
	l.size += int64(len(data))
	return nil
}

// Truncate cuts the log to size bytes for good: what recovery found to be no
// whole append.
func (l *Log) Truncate(size int64) error {
	if l.err != nil {
		return fmt.Errorf("cannot truncate %s: %w: %w", l.path, ErrBroken, l.err)
	}
	if size > l.size {
		return fmt.Errorf("cannot truncate %s: it has %d bytes, not %d", l.path, l.size, size)
	}
	err := l.file.Truncate(size)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		l.err = err
		return fmt.Errorf("cannot truncate %s: %w", l.path, err)
	}
	l.size = size
	return nil
}

// Size returns the length in bytes.
func (l *Log) Size() int64 { return l.size }

// Close closes the file. What was appended is durable already.
func (l *Log) Close() error {
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("cannot close %s: %w", l.path, err)
	}
	return nil
}
