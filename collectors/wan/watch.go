package wan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/collectors"
	"ontagent/collectors/rtnl"
)

const (
	// settle is how long after an announcement more are waited for that belong
	// to the same change.
	settle = time.Millisecond
	// pace is the least time between two looks at the tables, so that a storm
	// of announcements doesn't occupy the processor.
	pace = 50 * time.Millisecond
)

// Watch implements collectors.Watcher. It emits an event when the WAN gets or
// loses a usable address that isn't local to the link, and when the best
// default route of a family, or the interface it leaves by, changes. What is
// there at the start makes none.
//
// An announcement by the kernel makes it look at the tables, and what differs
// is told. (Announcements alone won't do: when an interface goes down, the
// kernel drops its IPv4 routes without a word.) So a change that is undone
// within 50 ms of another may be missed; nothing that lasts is. When
// announcements are lost it looks as well, and the events have a field
// after_resync. While there is no default route, the WAN is the interface that
// had it last. What Watch knew outlives it: called again after an error it
// tells the differences. It fails if it is running already.
func (c *Collector) Watch(ctx context.Context, emit func(collectors.Event)) error {
	c.mu.Lock()
	busy := c.watching
	c.watching = true
	c.mu.Unlock()
	if busy {
		return errors.New("cannot watch addresses and routes: already watching")
	}
	defer func() {
		c.mu.Lock()
		c.watching = false
		c.mu.Unlock()
	}()
	err := c.watch(ctx, emit)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("cannot watch addresses and routes: %w", err)
}

func (c *Collector) watch(ctx context.Context, emit func(collectors.Event)) error {
	s, err := c.dial(
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return err
	}
	defer s.Close()
	defer rtnl.CloseOnDone(ctx, s)()
	// Beyond the system's limit only a privileged process may go.
	if s.SetReceiveBufferSize(c.receiveBuffer, true) != nil {
		if err := s.SetReceiveBufferSize(c.receiveBuffer, false); err != nil {
			return fmt.Errorf("cannot set receive buffer: %w", err)
		}
	}
	// From here on nothing goes unannounced: the first look misses nothing.
	settled, err := c.look(ctx, emit, true)
	if err != nil {
		return err
	}
	if c.synced != nil {
		c.synced()
	}
	for {
		looked := time.Now()
		var lost, more bool
		if settled {
			if lost, err = await(s); err != nil {
				return err
			}
		}
		until := time.Now().Add(settle)
		if next := looked.Add(pace); next.After(until) {
			until = next
		}
		if more, err = drain(s, until); err != nil {
			return err
		}
		if settled, err = c.look(ctx, emit, lost || more); err != nil {
			return err
		}
	}
}

// await waits for an announcement that matters. lost reports that there may
// have been some.
func await(s rtnl.Socket) (lost bool, err error) {
	if err := rtnl.SetTimeout(s, 0); err != nil {
		return false, err
	}
	for {
		messages, err := rtnl.Receive(s)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return true, nil
		case err != nil:
			return false, err
		case slices.ContainsFunc(messages, concerns):
			return false, nil
		}
	}
}

// drain takes announcements until a moment: the look that follows sees what
// they are about. lost reports that some were not delivered.
func drain(s rtnl.Socket, until time.Time) (lost bool, err error) {
	for {
		d := time.Until(until)
		if d <= 0 {
			return lost, nil
		}
		// Shorter than a microsecond would mean not at all.
		if err := rtnl.SetTimeout(s, max(d, time.Millisecond)); err != nil {
			return lost, err
		}
		_, err := rtnl.Receive(s)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return lost, nil
		case errors.Is(err, unix.ENOBUFS):
			lost = true
		case err != nil:
			return lost, err
		}
	}
}

// concerns reports whether a message may announce a change of what is watched.
func concerns(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return len(m.Data) > 1 && m.Data[1] == 0 // the length of the prefix
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return len(m.Data) > 0 && m.Data[0] == unix.AF_UNSPEC
	}
	return false
}

// seen is what Watch told: the state that events lead to.
type seen struct {
	iface     string
	addresses []Address // usable ones, not those local to the link
	defaults  [2]*Route // of IPv4 and IPv6
}

// look reads the tables and tells what differs from the look before. It returns
// false, and tells nothing, if they changed while they were read, each time
// that was tried: what is missing in them may be there.
func (c *Collector) look(ctx context.Context, emit func(collectors.Event), missed bool) (settled bool, err error) {
	t, err := c.tables(ctx)
	if err != nil {
		return false, err
	}
	if t.interrupted {
		c.log.Debug("addresses and routes keep changing, looking again")
		return false, nil
	}
	c.mu.Lock()
	before := c.last
	c.mu.Unlock()
	f := c.facts(t, c.iface)
	if f.Interface == "" && before != nil {
		f = c.facts(t, before.iface)
	}
	now := &seen{iface: f.Interface, defaults: [2]*Route{f.DefaultV4, f.DefaultV6}}
	for _, a := range f.Addresses {
		if a.Usable() && a.Scope != scopeLink && a.Scope != scopeHost {
			now.addresses = append(now.addresses, a)
		}
	}
	c.mu.Lock()
	c.last = now
	c.mu.Unlock()
	if before != nil {
		compare(before, now, missed, emit)
	}
	return true, nil
}

// compare tells how now differs from before: what went, then what came.
func compare(before, now *seen, missed bool, emit func(collectors.Event)) {
	event := func(subject, what, a, b string, fields ...collectors.Field) {
		if missed {
			fields = append(fields, collectors.F("after_resync", true))
		}
		emit(collectors.Event{Type: Name, Subject: subject, What: what, Before: a, After: b, Fields: fields})
	}
	for _, a := range before.addresses {
		if before.iface != now.iface || !a.in(now.addresses) {
			event(before.iface, WhatAddress, a.Prefix.String(), "", collectors.F("family", a.Family))
		}
	}
	for i, family := range []string{IPv4, IPv6} {
		oldInterface, oldRoute := describe(before.defaults[i])
		newInterface, newRoute := describe(now.defaults[i])
		subject := newInterface
		if subject == "" {
			subject = oldInterface
		}
		if oldInterface != newInterface {
			event(subject, WhatDefaultInterface, oldInterface, newInterface, collectors.F("family", family))
		}
		if oldRoute != newRoute {
			event(subject, WhatDefaultRoute, oldRoute, newRoute, collectors.F("family", family))
		}
	}
	for _, a := range now.addresses {
		if before.iface != now.iface || !a.in(before.addresses) {
			event(now.iface, WhatAddress, "", a.Prefix.String(), collectors.F("family", a.Family))
		}
	}
}

// describe returns the interface and the text of a route, nothing for none.
func describe(r *Route) (iface, text string) {
	if r == nil {
		return "", ""
	}
	return r.Interface, r.String()
}

// in reports whether list has the same address, whatever its lifetimes.
func (a Address) in(list []Address) bool {
	return slices.ContainsFunc(list, func(b Address) bool { return a.Prefix == b.Prefix && a.Peer == b.Peer })
}
