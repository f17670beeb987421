package netbox

import (
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"runtime"
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

// keepOrder has each flow that comes by a cable, whose end is in the namespaces
// of this thread, handled by one processor. Else it would be the one that
// sent, a timer's or a process's, and packets would overtake one another.
func keepOrder(ifname string) error {
	mask := new(big.Int).Lsh(big.NewInt(1), uint(runtime.NumCPU()))
	groups := fmt.Sprintf("%x", mask.Sub(mask, big.NewInt(1)))
	for i := len(groups) - 8; i > 0; i -= 8 { // the kernel's form: groups of 32 bits
		groups = groups[:i] + "," + groups[i:]
	}
	err := writeKernel("/sys/class/net/"+ifname+"/queues/rx-0/rps_cpus", groups)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return nil // root of a user namespace may not, and a kernel may lack it
	}
	if err != nil {
		return fmt.Errorf("cannot set processors of %s: %w", ifname, err)
	}
	return nil
}
