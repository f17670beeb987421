package sip

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// dial connects to the server: of UDP, so that the kernel drops what comes from
// others, and tells what ICMP says.
func dial(ctx context.Context, o *Options) (net.Conn, error) {
	d := net.Dialer{Timeout: o.Wait, Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		opErr := rc.Control(func(fd uintptr) { err = prepare(int(fd), o) })
		return errors.Join(opErr, err)
	}}
	if o.Source.IsValid() {
		if o.Transport == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(o.Source, 0))
		} else {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Source, 0))
		}
	}
	return d.DialContext(ctx, o.Transport, o.Server.String())
}

func prepare(fd int, o *Options) error {
	if o.Transport == "udp" {
		// Without it, only a closed port is told.
		level, option := unix.SOL_IPV6, unix.IPV6_RECVERR
		if o.Server.Addr().Is4() {
			level, option = unix.SOL_IP, unix.IP_RECVERR
		}
		_ = unix.SetsockoptInt(fd, level, option, 1) // better, not needed
	}
	if o.Interface == "" {
		return nil
	}
	return unix.BindToDevice(fd, o.Interface)
}

// usable looks whether an interface is there and up.
func usable(name string) error {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return ErrNoInterface
	}
	if ifi.Flags&net.FlagUp == 0 {
		return ErrInterfaceDown
	}
	return nil
}

func localAddr(conn net.Conn) netip.AddrPort {
	a, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// isTimeout reports whether a deadline passed: ours, or the kernel's for a
// connection.
func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, context.DeadlineExceeded)
}

// refused reports whether the network said that the server can't be reached.
func refused(err error) bool {
	for _, errno := range [...]error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENOPROTOOPT, syscall.EHOSTDOWN} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// networkText is what the network said.
func networkText(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return err.Error()
}

// translate names the errors that are promised.
func translate(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return fmt.Errorf("%w: %w", ErrNoInterface, err)
	case errors.Is(err, syscall.ENETDOWN):
		return fmt.Errorf("%w: %w", ErrInterfaceDown, err)
	}
	return err
}
