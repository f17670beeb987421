package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/collectors"
	"ontagent/collectors/rtnl"
)

const (
	present = "present"
	absent  = "absent"
)

// maxBacklog bounds how many receptions are taken from a socket that lost
// announcements before it is given up: the rest is found by comparing.
const maxBacklog = 4096

// Watch implements collectors.Watcher. It emits an event for every change of
// presence, name, admin state, carrier, oper state, MAC and MTU of a wanted
// interface the moment the kernel announces it: nothing is polled, and a link
// that goes down and up again makes two events. What is there at the start
// makes none.
//
// When announcements are lost – the receive buffer overflowed, the socket died
// – it reads the list again and emits the differences, with a field
// after_resync; a carrier that is as it was but changed in between makes an
// event with the field missed_changes. What Watch knew outlives it: called
// again after an error it tells the differences in the same way. It fails if it
// is running already.
func (c *Collector) Watch(ctx context.Context, emit func(collectors.Event)) error {
	c.mu.Lock()
	busy := c.watching
	c.watching = true
	c.mu.Unlock()
	if busy {
		return errors.New("cannot watch interfaces: already watching")
	}
	defer func() {
		c.mu.Lock()
		c.watching = false
		c.mu.Unlock()
	}()
	level := slog.LevelWarn
	for {
		err := c.watchSocket(ctx, emit)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("cannot watch interfaces: %w", err)
		}
		c.log.Log(ctx, level, "link events were lost, comparing", "error", err)
		level = slog.LevelDebug
	}
}

// watchSocket watches through one socket until it fails.
func (c *Collector) watchSocket(ctx context.Context, emit func(collectors.Event)) error {
	s, err := c.dial(unix.RTNLGRP_LINK)
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
	pid, err := s.GetPid()
	if err != nil {
		return fmt.Errorf("cannot get address of netlink socket: %w", err)
	}

	w := &watch{c: c, emit: emit}
	if err := w.sync(s, pid); err != nil {
		return err
	}
	if c.synced != nil {
		c.synced()
	}
	if err := s.SetReceiveTimeout(&unix.Timeval{}); err != nil {
		return fmt.Errorf("cannot set netlink timeout: %w", err)
	}
	for {
		messages, err := rtnl.Receive(s)
		if err != nil {
			if errors.Is(err, unix.ENOBUFS) {
				w.drain(s)
			}
			return err
		}
		for _, m := range messages {
			w.apply(m, false)
		}
	}
}

// watch turns messages into events.
type watch struct {
	c    *Collector
	emit func(collectors.Event)
	// known are the interfaces as they were told; nil until there was a list.
	known map[int]Link
	// seen are those that the list being read or an announcement has named.
	seen map[int]bool
	// resync: what the list shows was missed. quiet: what it shows is the start.
	resync, quiet bool
}

// sync reads the list on the socket that announcements come in by. As the
// kernel queues both in the order in which they happen, neither can be older
// than what was applied before.
func (w *watch) sync(s rtnl.Socket, pid uint32) error {
	w.c.mu.Lock()
	w.known = w.c.known
	w.c.mu.Unlock()
	w.resync = w.known != nil
	w.quiet = !w.resync
	if w.quiet {
		w.known = map[int]Link{}
	}
	for i := 1; ; i++ {
		w.seen = map[int]bool{}
		interrupted, err := rtnl.Dump(s, pid, request(false), w.apply)
		if err != nil {
			return err
		}
		if !interrupted {
			break
		}
		if i == rtnl.MaxDumps {
			// Some interface may not have been listed: rather miss that it went
			// than tell of it falsely.
			w.c.log.Warn("list of interfaces kept changing while it was read")
			for index := range w.known {
				w.seen[index] = true
			}
			break
		}
	}
	for index, l := range w.known {
		if !w.seen[index] {
			w.remove(l, true)
		}
	}
	w.seen, w.quiet, w.resync = nil, false, false
	w.c.mu.Lock()
	w.c.known = w.known
	w.c.mu.Unlock()
	return nil
}

// drain applies what was queued before announcements were lost.
func (w *watch) drain(s rtnl.Socket) {
	timeout := unix.NsecToTimeval(time.Millisecond.Nanoseconds())
	if s.SetReceiveTimeout(&timeout) != nil {
		return
	}
	for range maxBacklog {
		messages, err := rtnl.Receive(s)
		if errors.Is(err, unix.ENOBUFS) {
			continue // once more: it is told when it happens, the queue comes after
		}
		if err != nil {
			return
		}
		for _, m := range messages {
			w.apply(m, false)
		}
	}
}

// apply takes one message, listed or announced.
func (w *watch) apply(m syscall.NetlinkMessage, listed bool) {
	if m.Header.Type != unix.RTM_NEWLINK && m.Header.Type != unix.RTM_DELLINK {
		return
	}
	index, ok := indexOf(m.Data)
	if !ok {
		return
	}
	before, had := w.known[index]
	after, err := decode(binary.NativeEndian, before, m.Data)
	if errors.Is(err, errNotLink) {
		return
	}
	if err != nil {
		w.c.log.Debug("cannot use netlink message", "error", err)
		return
	}
	if w.seen != nil {
		w.seen[index] = true
	}
	if m.Header.Type == unix.RTM_DELLINK {
		if had {
			w.remove(before, false)
		}
		return
	}
	w.known[index] = after
	// Announcements that come in while the first list is read belong to the
	// start; those during a later one are news as any other.
	if w.quiet {
		return
	}
	missed := w.resync && listed
	if !had {
		w.event(after, "", WhatPresence, absent, present, missed,
			collectors.F("oper_state", string(after.OperState)), collectors.F("carrier", after.Carrier))
		return
	}
	w.compare(before, after, missed)
}

// remove tells that an interface is gone.
func (w *watch) remove(l Link, missed bool) {
	delete(w.known, l.Index)
	w.c.forget(l.Index)
	if !w.quiet {
		w.event(l, "", WhatPresence, present, absent, missed)
	}
}

// compare tells how after differs from before, cause before effect.
func (w *watch) compare(before, after Link, missed bool) {
	tell := func(what, a, b string, more ...collectors.Field) {
		if a != b || len(more) != 0 {
			w.event(after, before.Name, what, a, b, missed, more...)
		}
	}
	tell(WhatName, before.Name, after.Name)
	tell(WhatMAC, before.MAC, after.MAC)
	tell(WhatMTU, strconv.Itoa(before.MTU), strconv.Itoa(after.MTU))
	tell(WhatAdminState, onOff(before.AdminUp), onOff(after.AdminUp))
	tell(WhatCarrier, onOff(before.Carrier), onOff(after.Carrier), missedChanges(before, after, missed)...)
	tell(WhatOperState, string(before.OperState), string(after.OperState))
}

// missedChanges says how often the carrier changed unseen, beyond the change
// that shows.
func missedChanges(before, after Link, missed bool) []collectors.Field {
	if !missed || after.CarrierChanges <= before.CarrierChanges {
		return nil
	}
	n := after.CarrierChanges - before.CarrierChanges
	if before.Carrier != after.Carrier {
		n--
	}
	if n == 0 {
		return nil
	}
	return []collectors.Field{collectors.F("missed_changes", uint64(n))}
}

// event emits one event if its interface is, or was by its old name, a wanted
// one.
func (w *watch) event(l Link, oldName, what, before, after string, missed bool, more ...collectors.Field) {
	if !w.c.wanted(l.Name) && (oldName == "" || !w.c.wanted(oldName)) {
		return
	}
	fields := append([]collectors.Field{collectors.F("ifindex", int64(l.Index))}, more...)
	if missed {
		fields = append(fields, collectors.F("after_resync", true))
	}
	w.emit(collectors.Event{
		Type: Name, Subject: l.Name, What: what, Before: before, After: after, Fields: fields,
	})
}

// indexOf returns the index of the interface a message is about.
func indexOf(body []byte) (int, bool) {
	if len(body) < unix.SizeofIfInfomsg || body[0] != unix.AF_UNSPEC {
		return 0, false
	}
	return int(int32(binary.NativeEndian.Uint32(body[4:]))), true
}
