package netbox

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of include/uapi/linux/ethtool.h.
const (
	ethtoolSetTxChecksum = 0x17
	ethtoolSetTSO        = 0x1f
	ethtoolSetGSO        = 0x24
	ethtoolSetGRO        = 0x2c
)

// plainWire makes an end of a cable, in the namespace of this thread, send what
// a wire carries: packets no longer than its MTU, with their checksums. Else
// whoever reads packets by AF_PACKET sees wrong sums, and queues count 64 KiB
// as one packet.
func plainWire(ifname string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open socket: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	for _, cmd := range [...]uint32{ethtoolSetTSO, ethtoolSetGSO, ethtoolSetGRO, ethtoolSetTxChecksum} {
		value := struct{ cmd, data uint32 }{cmd, 0}
		request := struct { // struct ifreq
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)} //nolint:gosec // the kernel's interface
		copy(request.name[:unix.IFNAMSIZ-1], ifname)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))) //nolint:gosec // the kernel's interface
		if errno != 0 && !errors.Is(errno, syscall.EOPNOTSUPP) {
			return fmt.Errorf("cannot set offloads of %s: %w", ifname, errno)
		}
	}
	return nil
}
