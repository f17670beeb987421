package spool

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"ontagent/transport"
	"ontagent/transport/durable"
)

const (
	readPause = 5 * time.Second // after an error in reading
	readTries = 12              // before an entry is given up
)

var errCorrupt = errors.New("record does not hold")

// Next leases the entry that should go first, waiting until there is one. It
// returns ctx.Err() when ctx ends, but what is there is leased even then.
//
// Live entries go first – those numbered since the session began: records,
// events, telemetry, debug. Then what waited: records, events, telemetry at
// the pace of SetBackfill, debug, each oldest first. After 8 live ones in a
// row one of those goes. Entries that come from flash have no Queued.
func (q *Queue) Next(ctx context.Context) (transport.Entry, error) {
	for {
		q.mu.Lock()
		now := q.now()
		q.asked = now
		p, wait := q.pick(now)
		if p.item != nil {
			entry := p.item.entry
			q.mu.Unlock()
			return entry, nil
		}
		changed := q.changed
		q.mu.Unlock()

		if p.seg != nil {
			entry, err := q.read(p)
			if err == nil {
				return entry, nil
			}
			q.failed(p, err)
			continue
		}
		if err := pause(ctx, changed, wait); err != nil {
			return transport.Entry{}, err
		}
	}
}

// pause waits for changed, for the end of ctx, and for d if d is above 0.
func pause(ctx context.Context, changed <-chan struct{}, d time.Duration) error {
	var after <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-changed:
	case <-after:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// place is where an entry is: in memory, or in a segment.
type place struct {
	class *class
	item  *item
	seg   *segment
	index int
}

// pick leases the entry that should go first. Where there is none, wait is the
// time after which backfill may go on, 0 if none waits. mu is held.
func (q *Queue) pick(now time.Time) (p place, wait time.Duration) {
	if q.run < liveRun {
		if p = q.pickLive(now); p.class != nil {
			q.run++
			return p, 0
		}
	}
	p, wait = q.pickStored(now)
	if p.class != nil {
		q.run = 0
		return p, 0
	}
	if q.run >= liveRun {
		p = q.pickLive(now)
	}
	return p, wait
}

func (q *Queue) pickLive(now time.Time) place {
	for i := range q.classes {
		if p := q.first(&q.classes[i], true, now); p.class != nil {
			return p
		}
	}
	return place{}
}

func (q *Queue) pickStored(now time.Time) (p place, wait time.Duration) {
	for i := range q.classes {
		c := &q.classes[i]
		if c.rank == rankTelemetry {
			q.backfill.fill(now)
			if wait = q.backfill.wait(); wait > 0 {
				if !q.has(c, now) {
					wait = 0
				}
				continue
			}
		}
		if p = q.first(c, false, now); p.class != nil {
			if c.rank == rankTelemetry {
				q.backfill.tokens -= p.bytes()
			}
			return p, 0
		}
	}
	return place{}, wait
}

func (p place) bytes() float64 {
	if p.item != nil {
		return float64(len(p.item.entry.Message.Body))
	}
	return float64(p.seg.length(p.index))
}

// has reports whether a stored entry of c waits.
func (q *Queue) has(c *class, now time.Time) bool { return q.look(c, false, now).class != nil }

// first leases the first waiting entry of c, among the live ones or the
// others.
func (q *Queue) first(c *class, live bool, now time.Time) place {
	p := q.look(c, live, now)
	switch {
	case p.item != nil:
		p.item.state = leased
	case p.seg != nil:
		p.seg.set(p.index, leased, 0)
	}
	return p
}

func (q *Queue) look(c *class, live bool, now time.Time) (p place) {
	after, upTo := uint64(0), c.mark
	if live {
		after, upTo = c.mark, math.MaxUint64
	}
	for _, s := range c.segs {
		to := upTo
		if s.epoch != q.epoch {
			if live {
				continue
			}
			to = math.MaxUint64
		}
		if s.waiting == 0 || s.frozen || now.Before(s.paused) {
			continue
		}
		if p.seg != nil && (p.seg.epoch != s.epoch || p.seg.seq(p.index) < s.first) {
			break
		}
		// A rollup and what came back of its originals may overlap.
		if i := s.next(after, to); i >= 0 && (p.seg == nil || s.seq(i) < p.seg.seq(p.index)) {
			p = place{class: c, seg: s, index: i}
		}
	}
	if p.seg != nil {
		return p
	}
	written := c.exact && c.trouble == nil // or will be, in a moment
	for _, it := range c.ram {
		if seq := it.entry.Header.Seq; it.state == waiting && after < seq && seq <= upTo && (it.late || !written) {
			return place{class: c, item: it}
		}
	}
	return place{}
}

// failed settles an entry that could not be read.
func (q *Queue) failed(p place, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s, c := p.seg, p.class
	if s.entries[p.index].state() != leased {
		return // acknowledged meanwhile, and its file removed
	}
	seq := s.seq(p.index)
	s.fails++
	lost := errors.Is(err, errCorrupt) || errors.Is(err, fs.ErrNotExist)
	if !lost && s.fails < readTries {
		s.set(p.index, waiting, 0)
		s.paused = q.now().Add(readPause)
		return
	}
	q.log.Error("lost a message on flash", "class", string(c.name), "epoch", s.epoch, "seq", seq, "error", err)
	s.fails, s.owed = 0, true
	q.forget(s, p.index)
	c.dropped++
	q.addGap(transport.Gap{Class: c.name, Epoch: s.epoch, FromSeq: seq, ToSeq: seq, Count: 1, Reason: transport.GapCorrupt})
	q.hurry()
}

// forget makes entry i of s gone. mu is held.
func (q *Queue) forget(s *segment, i int) {
	q.drained += s.length(i)
	s.set(i, gone, 0)
	q.touch()
	if s.live == 0 {
		q.hurry()
	}
}

// touch notes that the cursor file is behind. mu is held.
func (q *Queue) touch() {
	if !q.dirty {
		q.dirty, q.dirtyAt = true, q.now()
	}
}

// readFile is a segment kept open for reading.
type readFile struct {
	id   segID
	file durable.File // nil: none
}

// read reads a leased entry from flash.
func (q *Queue) read(p place) (transport.Entry, error) {
	q.mu.Lock()
	id, off, seq := p.seg.segID, int64(p.seg.entries[p.index].off), p.seg.seq(p.index)
	size := p.seg.length(p.index)
	q.mu.Unlock()
	size = min(size, recExtra+transport.MaxName+transport.MaxPayload)

	b := make([]byte, size)
	q.rd.Lock()
	n, err := q.readAt(p.class, id, b, off)
	q.rd.Unlock()
	if err != nil {
		return transport.Entry{}, err
	}
	r, n := parseRecord(b[:n], id.seed(p.class.rank), id.first)
	if n == 0 || r.seq != seq {
		return transport.Entry{}, errCorrupt
	}
	q.mu.Lock()
	p.seg.fails = 0
	q.mu.Unlock()
	return r.entry(q.stamper.Device(), id.epoch, p.class.name), nil
}

// readAt reads from a segment; less than asked for only at its end. rd is held.
func (q *Queue) readAt(c *class, id segID, b []byte, off int64) (int, error) {
	cached := &q.files[c.rank]
	if cached.file == nil || cached.id != id {
		q.closeRead(c, cached.id)
		f, err := q.fs.OpenFile("spool.read", q.path(c, id), os.O_RDONLY, 0)
		if err != nil {
			return 0, err
		}
		*cached = readFile{id, f}
	}
	n, err := cached.file.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err != nil {
		q.closeRead(c, id)
	}
	return n, err
}

// closeRead closes the file of id, if it is open for reading. rd is held.
func (q *Queue) closeRead(c *class, id segID) {
	if cached := &q.files[c.rank]; cached.file != nil && cached.id == id {
		_ = cached.file.Close() // was only read
		cached.file = nil
	}
}

func (q *Queue) path(c *class, id segID) string {
	return filepath.Join(q.dir, string(c.name), id.name())
}

// Done says that the broker has e. Telemetry and debug are forgotten; records
// and events with ByBroker too, else they wait for Acknowledge, and go again
// after a while. An entry that is not leased is left alone.
func (q *Queue) Done(e transport.Entry) { q.settle(e, true) }

// Return ends the lease of an entry that may not have arrived: it goes again,
// before what is younger, with the same header.
func (q *Queue) Return(e transport.Entry) { q.settle(e, false) }

func (q *Queue) settle(e transport.Entry, done bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var c *class
	for i := range q.classes {
		if q.classes[i].name == e.Header.Class {
			c = &q.classes[i]
		}
	}
	if c == nil {
		return
	}
	st := waiting
	if done {
		if st = gone; c.exact && q.confirm == BySignature {
			st = published
		}
	}
	now := q.now()
	if e.Header.Epoch == q.epoch {
		if i := c.findRAM(e.Header.Seq); i >= 0 {
			if it := c.ram[i]; it.state == leased {
				it.state, it.at = st, q.seconds(now)
				if st == gone {
					c.removeRAM(i)
				}
				q.settled(c, st, now)
			}
			return
		}
	}
	s, i := c.find(e.Header.Epoch, e.Header.Seq)
	if s == nil || s.entries[i].state() != leased {
		return
	}
	if st == gone {
		q.forget(s, i)
	} else {
		s.set(i, st, q.seconds(now))
	}
	q.settled(c, st, now)
}

// settled does what follows from the end of a lease. mu is held.
func (q *Queue) settled(c *class, st state, now time.Time) {
	switch {
	case st == waiting:
		q.evict(c)
		q.wake()
	case st == published && c.resendAt.IsZero():
		c.resendAt = now.Add(c.resend)
	}
}
