package spool

import (
	"fmt"
	"time"

	"ontagent/transport"
)

// Acknowledge forgets what the collector has signed for: of each point's class
// and epoch everything up to its number. version rises from one
// acknowledgement to the next; the same one again is fine, an older one is
// refused with ErrStale. An error compatible with
// errors.Is(err, transport.ErrMalformed) says that a point is not about
// messages of this device; then none is heeded.
func (q *Queue) Acknowledge(version uint64, points []transport.Point) error {
	released, err := q.release(version, points)
	if err != nil {
		return fmt.Errorf("cannot take acknowledgement %d: %w", version, err)
	}
	if released {
		q.settleAcks()
	}
	return nil
}

// settleAcks brings the flash up to what was acknowledged.
func (q *Queue) settleAcks() {
	if q.fs == nil {
		return
	}
	q.io.Lock()
	defer q.io.Unlock()
	if q.closed {
		return
	}
	// First, so that what is missing from the front of a class was not lost.
	_ = q.writeCursor(false) // if it is lost, messages go twice
	for i := range durableRanks {
		q.sweep(&q.classes[i])
	}
}

// acknowledged takes the version of an acknowledgement and returns the classes
// of its points, unless it is stale or about what was never sent. mu is held.
func (q *Queue) acknowledged(version uint64, points []transport.Point) ([]*class, error) {
	if version < q.ack {
		return nil, fmt.Errorf("%w: version %d was taken before", ErrStale, q.ack)
	}
	classes := make([]*class, len(points))
	for i, p := range points {
		for k := range q.classes {
			if q.classes[k].name == p.Class {
				classes[i] = &q.classes[k]
			}
		}
		if c := classes[i]; c == nil || p.Epoch > q.epoch || p.Epoch == q.epoch && p.Seq > c.last {
			return nil, fmt.Errorf("%w: no message %d of class %.40q and epoch %d was sent",
				transport.ErrMalformed, p.Seq, string(p.Class), p.Epoch)
		}
	}
	q.ack = version
	return classes, nil
}

// progressed puts off sending again what the collector has not signed for.
// mu is held.
func (q *Queue) progressed(c *class) {
	c.resend = resendFirst
	if !c.resendAt.IsZero() {
		c.resendAt = minTime(c.resendAt, q.now().Add(c.resend))
	}
}

// release makes gone what points cover.
func (q *Queue) release(version uint64, points []transport.Point) (released bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	classes, err := q.acknowledged(version, points)
	if err != nil {
		return false, err
	}
	for i, p := range points {
		c, progress, known := classes[i], false, p.Epoch == q.epoch
		for _, s := range c.segs {
			if s.epoch != p.Epoch {
				continue
			}
			known = true
			for k := 0; k < len(s.entries) && s.seq(k) <= p.Seq; k++ {
				if s.entries[k].state() != gone {
					q.forget(s, k)
					progress = true
				}
			}
		}
		for k := 0; p.Epoch == q.epoch && k < len(c.ram) && c.ram[k].entry.Header.Seq <= p.Seq; {
			c.removeRAM(k)
			progress = true
		}
		if known {
			c.setGone(p.Epoch, p.Seq)
		}
		if progress {
			released = true
			q.progressed(c)
		}
	}
	return released, nil
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
