package mqtt

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout is how long sent data may stay unacknowledged by the peer's TCP
// before the kernel gives the connection up.
const userTimeout = 30 * time.Second

// control prepares a socket before it connects.
func control(device string) func(network, address string, raw syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var setErr error
		err := raw.Control(func(fd uintptr) {
			// Old kernels and emulators may not know it; write deadlines and
			// pings find a dead peer too, only later.
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
			if device != "" {
				setErr = unix.BindToDevice(int(fd), device)
			}
		})
		if err == nil && setErr != nil {
			err = fmt.Errorf("cannot bind to interface %s: %w", device, setErr)
		}
		return err
	}
}
