package throughput

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tcpInfo is a struct tcp_info as far as the kernel filled it: older ones have
// fewer fields, and what is missing is not zero. The layout is the same on all
// processors: every field lies at a multiple of its size.
type tcpInfo struct {
	b   [infoSize]byte
	len int
}

// Where fields lie (include/uapi/linux/tcp.h), and since when.
const (
	infoOptions   = 5
	infoSndMSS    = 16
	infoRcvMSS    = 20
	infoRTT       = 68 // µs
	infoRcvRTT    = 92 // µs
	infoRcvSpace  = 96
	infoRetrans   = 100
	infoAcked     = 120 // u64, 4.1
	infoReceived  = 128 // u64, 4.1
	infoMinRTT    = 148 // µs, 4.6
	infoSegsIn    = 152 // with data, 4.6
	infoSegsOut   = 156 // with data, 4.6
	infoBusy      = 168 // u64 µs, 4.10
	infoRWndLim   = 176 // u64 µs, 4.10
	infoSndBufLim = 184 // u64 µs, 4.10
	infoSent      = 200 // u64, 4.19
	infoOOO       = 224 // 5.4
	infoSndWnd    = 228 // 5.4
	infoRcvWnd    = 232 // 6.2
	infoSize      = 240

	infoOptTimestamps = 1
)

// readInfo asks the kernel. An info without any field means that it can't say.
func readInfo(fd uintptr, t *tcpInfo) {
	n := uint32(len(t.b))
	_, _, errno := syscall.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&t.b[0])), uintptr(unsafe.Pointer(&n)), 0) //nolint:gosec // x/sys tells no length
	t.len = int(n)
	if errno != 0 {
		t.len = 0
	}
}

func (t *tcpInfo) u32(at int) (uint32, bool) {
	if t.len < at+4 {
		return 0, false
	}
	return binary.NativeEndian.Uint32(t.b[at:]), true
}

func (t *tcpInfo) u64(at int) (uint64, bool) {
	if t.len < at+8 {
		return 0, false
	}
	return binary.NativeEndian.Uint64(t.b[at:]), true
}

// or returns a field, or else.
func (t *tcpInfo) or(at int, otherwise uint32) uint32 {
	if v, ok := t.u32(at); ok && v != 0 {
		return v
	}
	return otherwise
}

// timestamps reports whether every segment has that option.
func (t *tcpInfo) timestamps() bool {
	return t.len > infoOptions && t.b[infoOptions]&infoOptTimestamps != 0
}

// queued returns what waits to be read (TIOCINQ), or to be acknowledged
// (TIOCOUTQ).
func queued(fd uintptr, request uint) (uint64, bool) {
	n, err := unix.IoctlGetInt(int(fd), request)
	return uint64(max(n, 0)), err == nil
}
