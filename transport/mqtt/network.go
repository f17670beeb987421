package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// errNetworkChanged ends a connection whose way to the broker is gone.
var errNetworkChanged = errors.New("network changed")

// NetworkChanged tells that routes or addresses have changed. If the kernel
// would now reach the broker from another address than the living connection
// has, or not at all, that connection is ended – it might hang for minutes –
// and a new one is made: at once while an order is open, else after the first
// wait of the Backoff. While not connected it does what Hurry does. It sends
// nothing, resolves no name, never blocks and may be called at any time.
func (d *Device) NetworkChanged() {
	d.mu.Lock()
	conn := d.conn
	d.mu.Unlock()
	if conn == nil || conn.isLost() {
		d.Hurry()
		return
	}
	if err := conn.moved(); err != nil {
		conn.lose(fmt.Errorf("%w: %w", errNetworkChanged, err))
	}
}

// moved says why the connection's local address is not the one that a new
// connection would get, nil if it is or nobody knows.
func (c *Conn) moved() error {
	have, haveErr := netip.ParseAddrPort(c.guard.LocalAddr().String())
	dialer, err := c.dial.dialer("udp")
	if err != nil || haveErr != nil {
		return nil // nobody knows
	}
	// Connecting a UDP socket is the kernel's routing decision and no packet.
	probe, err := dialer.DialContext(context.Background(), "udp", c.guard.RemoteAddr().String())
	if err != nil {
		for _, gone := range []error{
			syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL, syscall.ENODEV, syscall.ENETDOWN,
		} {
			if errors.Is(err, gone) {
				return err
			}
		}
		return nil // no descriptor left, say
	}
	defer func() { _ = probe.Close() }()
	now, ok := probe.LocalAddr().(*net.UDPAddr)
	if !ok {
		return nil
	}
	if a := now.AddrPort().Addr().Unmap(); a != have.Addr().Unmap() {
		return fmt.Errorf("address is %s, was %s", a, have.Addr().Unmap())
	}
	return nil
}
