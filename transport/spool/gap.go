package spool

import (
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"time"

	"ontagent/transport"
)

const (
	// eventSpool is the type of the events about the spool itself.
	eventSpool = "spool"

	maxGaps      = 8  // that wait of telemetry or debug; beyond it the two newest become one
	maxExactGaps = 64 // that wait of records or events, where nothing between may be covered

	gapInterval = 5 * time.Second  // between the gaps of one class
	gapAlone    = 60 * time.Second // where a gap would be all that is written, online
	gapOffline  = time.Hour        // while nobody could be told anyway
)

// addGap notes what was dropped, joined to what waits if it touches it. mu is
// held.
func (q *Queue) addGap(g transport.Gap) {
	var c *class
	for i := range q.classes {
		if q.classes[i].name == g.Class {
			c = &q.classes[i]
		}
	}
	if c == nil {
		return // told by an earlier version of something unknown
	}
	if len(c.gaps) == 0 {
		c.gapSeen = q.now()
	}
	for i := range c.gaps {
		if joined, ok := c.join(c.gaps[i], g); ok {
			c.gaps[i] = joined
			return
		}
	}
	c.gaps = append(c.gaps, g)
	if c.exact {
		if len(c.gaps) > maxExactGaps {
			q.cover(c)
		}
		return
	}
	if n := len(c.gaps); n > maxGaps && c.gaps[n-1].Epoch == c.gaps[n-2].Epoch {
		c.gaps[n-2] = widen(c.gaps[n-2], c.gaps[n-1])
		c.gaps = c.gaps[:n-1]
	} else if n > maxGaps {
		q.cover(c)
	}
}

// isOpen reports whether nobody knows how far g goes.
func isOpen(g transport.Gap) bool { return g.ToSeq == 0 }

// begin returns the first epoch that g covers.
func begin(g transport.Gap) uint64 {
	if g.FromEpoch != 0 {
		return min(g.FromEpoch, g.Epoch)
	}
	return g.Epoch
}

// join makes one gap of two, if it is true of both.
func (c *class) join(a, b transport.Gap) (transport.Gap, bool) {
	if a.Reason != b.Reason {
		return a, false
	}
	if isOpen(a) != isOpen(b) {
		return a, false
	}
	if isOpen(a) {
		if begin(b) < begin(a) {
			a, b = b, a
		}
		if begin(b) != a.Epoch+1 || a.FromSeq > 1 && (c.exact && c.holds(a.Epoch, 1, a.FromSeq-1)) {
			return a, false
		}
		b.FromEpoch = begin(a)
		return b, true
	}
	if a.Epoch != b.Epoch || a.FromEpoch != 0 || b.FromEpoch != 0 || b.FromSeq > a.ToSeq+1 || a.FromSeq > b.ToSeq+1 {
		return a, false
	}
	return widen(a, b), true
}

// widen makes a gap of two that end in one epoch, and of what lies between.
func widen(a, b transport.Gap) transport.Gap {
	from := min(begin(a), begin(b))
	if isOpen(a) || isOpen(b) || from < a.Epoch {
		a.ToSeq, a.Count, a.Reason = 0, 0, transport.GapRestart
	} else {
		a.ToSeq = max(a.ToSeq, b.ToSeq)
		a.Count += b.Count
	}
	a.FromSeq = min(a.FromSeq, b.FromSeq)
	if from < a.Epoch {
		a.FromEpoch = from
	}
	return a
}

// cover bounds the gaps that wait: two that nothing alive lies between become
// one, open and vague.
func (q *Queue) cover(c *class) {
	for i := 1; i < len(c.gaps); i++ {
		a, b := c.gaps[i-1], c.gaps[i]
		from, to := min(begin(a), begin(b)), max(a.Epoch, b.Epoch)
		if from == to || to >= q.epoch {
			continue
		}
		alive := false
		for _, s := range c.segs {
			alive = alive || s.live > 0 && from <= s.epoch && s.epoch <= to
		}
		if alive && c.exact {
			continue
		}
		c.gaps[i-1] = transport.Gap{Class: a.Class, FromEpoch: from, Epoch: to, FromSeq: 1, Reason: transport.GapRestart}
		c.gaps = append(c.gaps[:i], c.gaps[i+1:]...)
		return
	}
}

// owing reports whether a gap is not durable yet. mu is held.
func (q *Queue) owing() bool {
	for i := range q.classes {
		if len(q.classes[i].gaps) > 0 {
			return true
		}
	}
	return slices.ContainsFunc(q.classes[rankEvent].ram, func(it *item) bool { return it.gap != nil })
}

// makeGaps turns the gaps that are due, or all of them, into events in memory.
// mu is held.
func (q *Queue) makeGaps(all bool) {
	now := q.now()
	events := &q.classes[rankEvent]
	alone := len(events.ram) == 0
	for i := range q.classes {
		c := &q.classes[i]
		if len(c.gaps) == 0 || !all && !q.due(c, now, alone) {
			continue
		}
		gaps := c.gaps
		c.gaps, c.lastGap = nil, now
		for _, g := range gaps {
			body, err := json.Marshal(g)
			if err != nil {
				continue // cannot be: a Gap is numbers and words
			}
			c.told++
			m := transport.Message{Class: events.name, Kind: transport.KindEvent, Name: transport.EventGap, Body: body}
			q.insert(events, m).gap = &g
		}
	}
	q.evict(events)
	q.wake()
}

// due reports whether the gaps of c have gathered long enough.
func (q *Queue) due(c *class, now time.Time, alone bool) bool {
	interval := gapInterval
	switch {
	case !q.online && now.Sub(q.asked) > gapAlone:
		interval = gapOffline
	case q.classes[rankEvent].trouble != nil:
		interval = gapAlone // in memory each may push another out, which is a gap again
	case alone && !c.exact && !slices.ContainsFunc(c.gaps, func(g transport.Gap) bool { return isOpen(g) || g.Epoch != q.epoch }):
		interval = gapAlone // what goes on and on, where a ring is too small
	}
	last := c.lastGap
	if last.IsZero() && interval == gapOffline {
		last = c.gapSeen
	}
	return last.IsZero() || now.Sub(last) >= interval
}

// tell makes events of the gaps that are due, or all of them, and writes them
// to flash. After nil every gap that waited is durable, if all is set. io is
// held.
func (q *Queue) tell(all bool) error {
	events := &q.classes[rankEvent]
	q.mu.Lock()
	q.makeGaps(all)
	err, due := events.trouble, !q.now().Before(events.retryAt)
	q.mu.Unlock()
	if err != nil && !due && !q.trying { // else this may be the room that trying again needs
		return err
	}
	return q.commitIn(events, false)
}

// gapsIn returns what the gap events in s tell, those that are not gone. io is
// held.
func (q *Queue) gapsIn(c *class, s *segment) ([]transport.Gap, error) {
	if c.rank != rankEvent {
		return nil, nil
	}
	b, err := q.load(c, s.segID, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	var gaps []transport.Gap
	scan(b, s.segID, c.rank, func(_ int, r record) {
		i := s.search(r.seq)
		if i == len(s.entries) || s.seq(i) != r.seq || s.entries[i].state() == gone {
			return
		}
		if g, ok := parseGap(r); ok {
			gaps = append(gaps, g)
		}
	})
	return gaps, nil
}

// parseGap returns what a record tells, if it is a gap event.
func parseGap(r record) (g transport.Gap, ok bool) {
	if kinds[r.flags>>3] != transport.KindEvent || string(r.name) != transport.EventGap {
		return g, false
	}
	return g, json.Unmarshal(r.body, &g) == nil && g.FromSeq > 0
}
