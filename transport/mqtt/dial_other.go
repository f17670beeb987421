//go:build !linux

package mqtt

import (
	"errors"
	"syscall"
)

// control prepares a socket before it connects.
func control(device string) func(network, address string, raw syscall.RawConn) error {
	return func(_, _ string, _ syscall.RawConn) error {
		if device != "" {
			return errors.New("cannot bind to an interface on this system")
		}
		return nil
	}
}
