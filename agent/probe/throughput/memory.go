package throughput

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// supplySize is how much there is to send; it is sent again and again.
	// No compression on the way has a window that long.
	supplySize = 512 << 10
	// writeSize is what is kept instead where nothing can be sent from a file
	// in memory.
	writeSize = 64 << 10
)

// supply is what uploads send: random bytes, in a file in memory, so that the
// kernel sends its pages without copying them.
type supply struct {
	file *os.File
	buf  []byte // instead of file
}

// newSupply makes one. It must be closed.
func newSupply() (*supply, error) {
	buf := make([]byte, writeSize)
	fd, err := unix.MemfdCreate("throughput", unix.MFD_CLOEXEC)
	if err != nil {
		_, _ = rand.Read(buf)
		return &supply{buf: buf}, nil //nolint:nilerr // Linux before 3.17, or without it: it is copied
	}
	s := &supply{file: os.NewFile(uintptr(fd), "throughput")}
	for range supplySize / writeSize {
		_, _ = rand.Read(buf)
		if _, err := s.file.Write(buf); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot prepare what is to be sent: %w", err), s.file.Close())
		}
	}
	return s, nil
}

func (s *supply) close() {
	if s.file != nil {
		_ = s.file.Close()
	}
}

// source is one sender's place in a supply.
type source struct {
	file int // -1: buf
	buf  []byte
	at   int64
}

// source begins anywhere.
func (s *supply) source() (source, error) {
	if s.file == nil {
		return source{file: -1, buf: s.buf}, nil
	}
	var fd int
	raw, err := s.file.SyscallConn()
	if err == nil {
		err = raw.Control(func(h uintptr) { fd = int(h) })
	}
	return source{file: fd}, err
}

// send sends at most n bytes as far as the socket takes them now.
func (s *source) send(fd uintptr, n uint64) (int, error) {
	if s.file >= 0 {
		off := s.at % supplySize
		sent, err := unix.Sendfile(int(fd), s.file, &off, int(min(n, uint64(supplySize-off))))
		s.at += int64(max(sent, 0))
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
			return sent, err
		}
		// A kernel, or an emulation of one, that can't.
		s.buf = make([]byte, writeSize)
		if _, err := unix.Pread(s.file, s.buf, 0); err != nil {
			return 0, err
		}
		s.file = -1
	}
	off := s.at % int64(len(s.buf))
	sent, err := unix.Write(int(fd), s.buf[off:off+int64(min(n, uint64(int64(len(s.buf))-off)))])
	s.at += int64(max(sent, 0))
	return sent, err
}
