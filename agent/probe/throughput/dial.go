package throughput

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dialTimeout bounds a TCP handshake: two SYNs that are sent again.
const dialTimeout = 5 * time.Second

// dialer connects through an interface, "" for any.
type dialer struct{ iface string }

// dial connects to an address. The stream has its conn and the times of TCP.
func (d dialer) dial(ctx context.Context, to netip.AddrPort) (*stream, error) {
	s := &stream{dialed: time.Now()}
	conn, err := d.net().DialContext(ctx, "tcp", to.String())
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("cannot connect to %v: %w", to, inner(err))
	}
	s.connected = time.Now()
	var ok bool
	if s.conn, ok = conn.(*net.TCPConn); ok {
		s.raw, err = s.conn.SyscallConn()
	}
	if err != nil || !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("cannot connect to %v: no TCP socket: %w", to, err)
	}
	return s, nil
}

// dialFirst connects to the first of the addresses that answers.
func (d dialer) dialFirst(ctx context.Context, to []netip.AddrPort) (*stream, error) {
	var failed []error
	for _, a := range to {
		s, err := d.dial(ctx, a)
		if err == nil || ctx.Err() != nil {
			return s, err
		}
		failed = append(failed, err)
	}
	return nil, joined(failed)
}

// local returns the address that packets to one of the addresses leave from. It
// sends nothing.
func (d dialer) local(ctx context.Context, to []netip.AddrPort) netip.Addr {
	for _, a := range to {
		conn, err := d.net().DialContext(ctx, "udp", a.String())
		if err != nil {
			continue
		}
		l := conn.LocalAddr()
		_ = conn.Close()
		if u, ok := l.(*net.UDPAddr); ok {
			return u.AddrPort().Addr().Unmap()
		}
	}
	return netip.Addr{}
}

func (d dialer) net() *net.Dialer {
	nd := &net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	if d.iface != "" {
		nd.Control = func(_, _ string, c syscall.RawConn) error {
			var bound error
			if err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), d.iface) }); err != nil {
				return err
			}
			if bound != nil {
				return fmt.Errorf("cannot bind to %s: %w", d.iface, bound)
			}
			return nil
		}
	}
	return nd
}

// inner strips what net.OpError says a second time: the address.
func inner(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// joined is what errors are in one line.
func joined(errs []error) error {
	if len(errs) == 0 {
		return errors.New("no address")
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}

// abort closes a connection at once: nothing that waits to be sent is sent, and
// the other side is told by a reset, so that it stops.
func (s *stream) abort() {
	_ = s.conn.SetLinger(0)
	_ = s.conn.Close()
}

// abortAll aborts those that there are.
func abortAll(streams []*stream) {
	for _, s := range streams {
		if s != nil {
			s.abort()
		}
	}
}
