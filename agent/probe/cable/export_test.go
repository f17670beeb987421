package cable

import (
	"context"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
)

// Socket is a socket of functions.
type Socket struct {
	Family   func() (genetlink.Family, error)
	Join     func(group uint32) error
	Asked    func(m genetlink.Message, family uint16, flags netlink.HeaderFlags) error
	Next     func() ([]genetlink.Message, []netlink.Message, error)
	Deadline func(t time.Time) error
	Closed   func()
}

// GetFamily implements socket, as do the others.
func (s *Socket) GetFamily(string) (genetlink.Family, error) { return s.Family() }

// JoinGroup is Join.
func (s *Socket) JoinGroup(group uint32) error { return s.Join(group) }

// Send is Asked.
func (s *Socket) Send(m genetlink.Message, family uint16, flags netlink.HeaderFlags) (netlink.Message, error) {
	return netlink.Message{}, s.Asked(m, family, flags)
}

// Receive is Next.
func (s *Socket) Receive() ([]genetlink.Message, []netlink.Message, error) { return s.Next() }

// SetDeadline is Deadline.
func (s *Socket) SetDeadline(t time.Time) error { return s.Deadline(t) }

// Close is Closed.
func (s *Socket) Close() error {
	s.Closed()
	return nil
}

// RunOn is Run on a machine with sysfs at sys, whose driver answers with the
// bytes of settings and whose kernel is spoken to by s; nil of these for none.
func RunOn(ctx context.Context, sys string, driver func(name string) ([]byte, error), s *Socket, o Options) (Result, error) {
	h := host{
		sys: sys,
		settings: func(name string) (settings, error) {
			b, err := driver(name)
			return parseSettings(b), err
		},
		dial: func() (socket, error) { return s, nil },
	}
	return h.run(ctx, o)
}

// ParseNotification is parseNotification.
func ParseNotification(b []byte) (name string, completed bool, found []Pair, err error) {
	n, err := parseNotification(b)
	return n.name, n.completed, n.pairs, err
}

// Settings is parseSettings.
func Settings(b []byte) (megabits int, duplex string, autoneg bool, localMax, peerMax int) {
	s := parseSettings(b)
	return s.megabits, s.duplex, s.autoneg, s.localMax, s.peerMax
}
