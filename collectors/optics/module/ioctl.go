package module

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kinds of module in ETHTOOL_GMODULEINFO, and how long their images can be.
const (
	kindSFF8079 = 1 // A0h: 256
	kindSFF8472 = 2 // A0h, A2h: 512
	kindSFF8636 = 3 // lower half, upper halves of the pages from 00h on: 256 to 640
	kindSFF8436 = 4 // the same

	mostSFP  = 512
	mostQSFP = 640
)

// Layout of the structures of ETHTOOL_GMODULEINFO – command, type, length and
// eight reserved words – and of ETHTOOL_GMODULEEEPROM: command, magic, offset,
// length, data. All words are in the byte order of the host.
const (
	infoLength   = 4 * (3 + 8)
	eepromHeader = 4 * 4
)

// ioctlTransport reads through ETHTOOL_GMODULEEEPROM: A0h and, 256 bytes on,
// A2h of SFPs that need no address change; the lower half and behind it the
// upper halves of the pages of others.
//
// A library for this exists (safchain/ethtool). These forty lines need no
// further dependency, make the two requests of some two hundred that are
// wanted, read the bytes that are asked for rather than whole images, and let
// tests stand in for the kernel; the gateway's flash pays for every module.
type ioctlTransport struct {
	ioctl  func(iface string, request []byte) error
	iface  string
	length int // of the image
}

func (r *Reader) openIoctl(ctx context.Context) (transport, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	info := make([]byte, infoLength)
	binary.NativeEndian.PutUint32(info[0:], unix.ETHTOOL_GMODULEINFO)
	if err := r.opts.Ioctl(r.opts.Interface, info); err != nil {
		return nil, fmt.Errorf("cannot ask for module kind: %w", err)
	}
	kind, length := binary.NativeEndian.Uint32(info[4:]), binary.NativeEndian.Uint32(info[8:])
	var most uint32
	switch kind {
	case kindSFF8079, kindSFF8472:
		most = mostSFP
	case kindSFF8636, kindSFF8436:
		most = mostQSFP
	default:
		return nil, fmt.Errorf("%w: kind %d", ErrUnknownKind, kind)
	}
	return &ioctlTransport{ioctl: r.opts.Ioctl, iface: r.opts.Interface, length: int(min(length, most))}, nil
}

func (*ioctlTransport) close() {}

func (t *ioctlTransport) read(at place) ([]byte, error) {
	offset, length := at.offset+int(at.page)*halfPage, at.length
	if at.address == addressA2 {
		offset += 2 * halfPage
	}
	if offset+length > t.length {
		return nil, fmt.Errorf("cannot read %d bytes at %d of a module image of %d: %w", length, offset, t.length, unix.ENXIO)
	}
	b := make([]byte, eepromHeader+length)
	binary.NativeEndian.PutUint32(b[0:], unix.ETHTOOL_GMODULEEEPROM)
	binary.NativeEndian.PutUint32(b[8:], uint32(offset))
	binary.NativeEndian.PutUint32(b[12:], uint32(length))
	if err := t.ioctl(t.iface, b); err != nil {
		return nil, fmt.Errorf("cannot read %d bytes at %d of the module image: %w", length, offset, err)
	}
	if got := int(binary.NativeEndian.Uint32(b[12:])); got != length {
		return nil, fmt.Errorf("cannot read %d bytes at %d of the module image: %w: %d bytes", length, offset, errShort, got)
	}
	return b[eepromHeader:], nil
}

// ifreq is struct ifreq with a pointer in its union.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// ethtoolIoctl performs SIOCETHTOOL on request, which the kernel changes.
func ethtoolIoctl(iface string, request []byte) error {
	if len(iface) == 0 || len(iface) >= unix.IFNAMSIZ {
		return unix.ENODEV
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	req := ifreq{data: unsafe.Pointer(&request[0])} //nolint:gosec // G103: the kernel's own interface
	copy(req.name[:], iface)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))) //nolint:gosec // G103: as above
	runtime.KeepAlive(request)
	if errno != 0 {
		return errno
	}
	return nil
}
