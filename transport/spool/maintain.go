package spool

import (
	"context"
	"errors"
	"syscall"
	"time"

	"ontagent/transport"
)

// Serve keeps the queue in order, once a second and when it is asked to, until
// ctx ends. It returns ctx.Err(). Without it telemetry is never spilled, gaps
// are not told, and what degraded does not recover.
func (q *Queue) Serve(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-q.kick:
		case <-ctx.Done():
			return ctx.Err()
		}
		q.Maintain()
	}
}

// Maintain makes one round: it tells gaps that are due, writes what waits to
// be written, spills telemetry, removes what is done with, sends again what
// nobody signed for, and tries what failed.
func (q *Queue) Maintain() {
	q.mu.Lock()
	now := q.now()
	q.sendAgain(now)
	q.makeGaps(false)
	if q.lowSpace {
		q.roomy(now)
	}
	q.wake() // a pause in reading may be over
	q.mu.Unlock()
	if q.fs == nil {
		return
	}
	q.io.Lock()
	defer q.io.Unlock()
	if q.closed {
		return
	}
	q.retry(now, false)
	for i := range durableRanks {
		c := &q.classes[i]
		q.mu.Lock()
		write := c.trouble == nil && len(c.ram) > 0 && (c.exact || q.spills(now))
		q.mu.Unlock()
		if write {
			_ = q.commit(c) // it says itself what becomes of it
		}
		q.sweep(c)
	}
	q.tellRestarts()
	q.mu.Lock()
	write := q.dirty && (now.Sub(q.dirtyAt) >= cursorAge || q.drained >= cursorBytes && now.Sub(q.dirtyAt) >= time.Second)
	q.mu.Unlock()
	if write {
		_ = q.writeCursor(false) // tried again in a minute
	}
}

// retry tries again what failed, where it is time or all is set. io is held.
func (q *Queue) retry(now time.Time, all bool) {
	var troubled []*class
	again := false
	for _, i := range [...]int{rankEvent, rankRecord, rankTelemetry} { // the others have gaps to tell
		c := &q.classes[i]
		q.mu.Lock()
		trouble, unread := c.trouble != nil, c.unread > 0
		due := all || !now.Before(c.retryAt) || errors.Is(c.trouble, syscall.ENOSPC) && q.hasRoom(c, now)
		q.mu.Unlock()
		if due && trouble {
			troubled = append(troubled, c)
		}
		if due && (unread || trouble && !c.loaded) {
			q.loadClass(c)
			again = again || c.loaded
		}
	}
	if again {
		q.loaded() // before room is made at the cost of what was found
	}
	for _, c := range troubled {
		if c.loaded {
			_ = q.commit(c) // it says itself what becomes of it
		}
	}
}

// hasRoom reports whether there is room again on a flash that was full. Asking
// writes nothing, so it need not wait for retryInterval. mu is held.
func (q *Queue) hasRoom(c *class, now time.Time) bool {
	if q.free == nil || now.Sub(c.retryAt.Add(-retryInterval)) < spaceInterval {
		return false
	}
	free, _, err := q.free()
	return err == nil && free >= int64(c.ramBytes)+2*segmentSize
}

// spills reports whether it is time to write telemetry to flash. mu is held.
func (q *Queue) spills(now time.Time) bool {
	c := &q.classes[rankTelemetry]
	size := 0
	for _, it := range c.ram {
		size += recordSize(it.entry.Message)
	}
	offline := !q.online && now.Sub(q.since) > offlineGrace
	due := c.ramBytes > c.limits.RAMBytes*3/4 || len(c.ram) > c.limits.RAMEntries*3/4 ||
		offline && (size >= spillBytes || now.Sub(c.ram[0].entry.Queued) >= spillAge)
	return due && q.roomy(now)
}

// roomy reports whether the flash has room for telemetry: 10 % are left to
// what is worthier. mu is held.
func (q *Queue) roomy(now time.Time) bool {
	low := false
	if q.free != nil {
		free, total, err := q.free()
		low = err == nil && free < total/10
	}
	if low && !q.lowSpace {
		q.lowSince = now
		q.log.Warn("telemetry is kept in memory", "reason", errSpace.Error())
	}
	q.lowSpace = low
	return !low
}

// sendAgain lets go again what the broker has had for long without anybody
// signing for it: after 10 minutes at first, then after twice as long each
// time, up to a day. mu is held.
func (q *Queue) sendAgain(now time.Time) {
	for i := range q.classes {
		c := &q.classes[i]
		if c.resendAt.IsZero() || now.Before(c.resendAt) {
			continue
		}
		upTo := int64(now.Sub(q.start)/time.Second) - int64(c.resend/time.Second)
		some, oldest := false, int64(-1)
		old := func(at uint32) bool {
			if int64(at) <= upTo {
				some = true
				return true
			}
			if oldest < 0 || int64(at) < oldest {
				oldest = int64(at)
			}
			return false
		}
		for _, s := range c.segs {
			if s.count(published) == 0 {
				continue
			}
			for k := range s.entries {
				if s.entries[k].state() == published && old(s.entries[k].stamp()) {
					s.set(k, waiting, 0)
				}
			}
		}
		for _, it := range c.ram {
			if it.state == published && old(it.at) {
				it.state = waiting
			}
		}
		if some {
			c.resend = min(2*c.resend, resendMost)
		}
		c.resendAt = time.Time{}
		if oldest >= 0 {
			c.resendAt = q.start.Add(time.Duration(oldest)*time.Second + c.resend)
		}
	}
}

// Flush writes everything but debug to flash now, gaps that wait included. The
// error says what is still in memory only.
func (q *Queue) Flush() error {
	if q.fs == nil {
		q.mu.Lock()
		q.makeGaps(true)
		q.mu.Unlock()
		return errMemory
	}
	q.io.Lock()
	defer q.io.Unlock()
	return q.flush()
}

// flush is Flush. io is held.
func (q *Queue) flush() error {
	if q.closed {
		return nil
	}
	q.mu.Lock()
	now := q.now()
	q.makeGaps(true)
	q.mu.Unlock()
	q.retry(now, true)
	var errs error
	for i := range durableRanks {
		c := &q.classes[i]
		q.mu.Lock()
		full := c.rank == rankTelemetry && len(c.ram) > 0 && !q.roomy(now)
		q.mu.Unlock()
		if full {
			errs = errors.Join(errs, errSpace)
			continue
		}
		errs = errors.Join(errs, q.commit(c))
	}
	errs = errors.Join(errs, q.tell(true)) // of what made room
	q.tellRestarts()
	q.mu.Lock()
	dirty := q.dirty
	q.mu.Unlock()
	if dirty {
		errs = errors.Join(errs, q.writeCursor(false))
	}
	return errs
}

// Close writes everything to flash and, where all of it is there, marks a
// clean end: the next start has nothing to report as lost. Debug messages that
// wait are dropped, and told as a gap. The queue takes messages as before
// afterwards, but in memory only.
func (q *Queue) Close() error {
	q.io.Lock()
	defer q.io.Unlock()
	if q.closed {
		return nil
	}
	if q.fs == nil {
		q.closed = true
		return nil
	}
	q.mu.Lock()
	debug := &q.classes[rankDebug]
	for len(debug.ram) > 0 {
		h := debug.ram[0].entry.Header
		debug.removeRAM(0)
		debug.dropped++
		q.addGap(transport.Gap{
			Class: debug.name, Epoch: h.Epoch, FromSeq: h.Seq, ToSeq: h.Seq, Count: 1, Reason: transport.GapRestart,
		})
	}
	q.mu.Unlock()
	err := q.flush()
	for i := range durableRanks {
		q.retire(&q.classes[i])
		q.sweep(&q.classes[i])
	}
	q.mu.Lock()
	clean := err == nil && !q.owing() && q.restart == 0 && q.restarted
	for i := range durableRanks {
		clean = clean && len(q.classes[i].ram) == 0 && q.classes[i].loaded && q.classes[i].unread == 0
	}
	q.mu.Unlock()
	if clean {
		err = q.writeCursor(true)
	}
	q.mu.Lock()
	q.closed = true
	for i := range durableRanks {
		c := &q.classes[i]
		c.trouble, c.since = errClosed, q.now()
	}
	q.mu.Unlock()
	q.rd.Lock()
	defer q.rd.Unlock()
	for i := range q.files {
		q.closeRead(&q.classes[i], q.files[i].id)
	}
	return err
}
