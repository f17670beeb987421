package console

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"
)

// Port is what the console needs of a serial port. A Read that ran into the
// timeout returns an error compatible with os.ErrDeadlineExceeded; after the
// device vanished it returns another error or io.EOF.
type Port interface {
	io.ReadWriteCloser
	// SetReadTimeout bounds the Reads that follow.
	SetReadTimeout(d time.Duration) error
}

// lockDir is where terminal programs leave their lock files.
const lockDir = "/var/lock"

// openSerial locks and opens the port at path: 8 data bits, no parity, one
// stop bit, no flow control.
func openSerial(path string, baud int) (Port, error) {
	lock, err := lockPort(path, lockDir)
	if err != nil {
		return nil, err
	}
	p, err := serial.Open(path, &serial.Mode{BaudRate: baud, DataBits: 8, Parity: serial.NoParity, StopBits: serial.OneStopBit})
	if err != nil {
		_ = lock.Close()
		return nil, mapOpenError(err)
	}
	// What an earlier user could not deliver is not ours to send.
	_ = p.ResetOutputBuffer()
	return &serialPort{Port: p, lock: lock}, nil
}

// serialPort adapts serial.Port.
type serialPort struct {
	serial.Port
	lock *os.File
}

// Read makes a timeout, which the library reports as (0, nil), an error.
func (p *serialPort) Read(b []byte) (int, error) {
	n, err := p.Port.Read(b)
	if n == 0 && err == nil && len(b) > 0 {
		return 0, os.ErrDeadlineExceeded
	}
	if err != nil {
		return n, mapIOError(err)
	}
	return n, nil
}

// Write maps the errors of a port that vanished.
func (p *serialPort) Write(b []byte) (int, error) {
	n, err := p.Port.Write(b)
	if err != nil {
		return n, mapIOError(err)
	}
	return n, nil
}

// Close releases the port and its lock.
func (p *serialPort) Close() error {
	return errors.Join(p.Port.Close(), p.lock.Close())
}

// mapOpenError names why a port could not be opened.
func mapOpenError(err error) error {
	if pe, ok := errors.AsType[*serial.PortError](err); ok {
		switch pe.Code() {
		case serial.PortBusy:
			return fmt.Errorf("%w: %w", ErrBusy, err)
		case serial.PortNotFound:
			return fmt.Errorf("%w: %w (%w)", ErrNoPort, fs.ErrNotExist, err)
		case serial.PermissionDenied:
			return fmt.Errorf("%w: %w (%w)", ErrDenied, fs.ErrPermission, err)
		case serial.InvalidSerialPort, serial.InvalidSpeed:
			return fmt.Errorf("%w: %w", ErrNotSerial, err)
		default:
			return err
		}
	}
	return mapErrno(err)
}

// mapErrno names what an errno of open, read or write means.
func mapErrno(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: %w (%w)", ErrNoPort, fs.ErrNotExist, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, unix.ENOTTY):
		return fmt.Errorf("%w: %w", ErrNotSerial, err)
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// mapIOError names what became of an open port.
func mapIOError(err error) error {
	pe, ok := errors.AsType[*serial.PortError](err)
	switch {
	case ok && pe.Code() == serial.PortClosed,
		errors.Is(err, unix.EIO), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EBADF):
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}

// lockPort takes the port for this process, or returns ErrBusy: by flock on
// the device, by the exclusive mode another process has set (which does not
// stop root), and by a lock file in dir that names a living process.
func lockPort(path, dir string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, mapErrno(err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := checkFree(fd, path, dir); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func checkFree(fd int, path, dir string) error {
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
		return mapErrno(err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return mapErrno(err)
	}
	if pid, ok := lockFileOwner(path, dir); ok {
		return fmt.Errorf("%w: lock file of process %d", ErrBusy, pid)
	}
	// The flag of a pseudo-terminal outlives a process that was killed, as
	// long as the other side is open; there it says nothing.
	if exclusive, err := unix.IoctlGetInt(fd, unix.TIOCGEXCL); err == nil && exclusive != 0 && !strings.HasPrefix(path, "/dev/pts/") {
		return fmt.Errorf("%w: exclusive mode is set", ErrBusy)
	}
	return nil
}

// lockFileOwner returns the living process that a UUCP lock file names, other
// than this one.
func lockFileOwner(path, dir string) (int, bool) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	b, err := os.ReadFile(filepath.Join(dir, "LCK.."+filepath.Base(path)))
	if err != nil {
		return 0, false
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	pid, err := strconv.Atoi(text)
	if err != nil || pid <= 0 || pid == os.Getpid() {
		return 0, false
	}
	if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) {
		return 0, false
	}
	return pid, true
}
