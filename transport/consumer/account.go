package consumer

import (
	"cmp"
	"math"
	"slices"

	"ontagent/transport"
)

// MaxPoints bounds a checkpoint: what one signed acknowledgement can carry.
const MaxPoints = 64

// Checkpoint returns up to where all events are accounted for, by epoch:
// received, told as dropped by a gap event that was itself received, or from
// before our time and asked for long enough. It may be acknowledged once
// everything observed so far is stored. Where there are more than MaxPoints,
// those of the epochs heard last are returned. They are in order of epoch. For
// class record, see Stored.
func (t *Tracker) Checkpoint() []transport.Point {
	t.settle()
	var points []transport.Point
	recent := slices.Clone(t.epochs)
	slices.SortFunc(recent, func(a, b *epoch) int { return cmp.Compare(b.used, a.used) })
	for _, e := range recent {
		seq := e.sets[index(transport.ClassEvent)].accounted()
		if seq > 0 && e.number > 0 && len(points) < MaxPoints {
			points = append(points, transport.Point{Class: transport.ClassEvent, Epoch: e.number, Seq: seq})
		}
	}
	slices.SortFunc(points, func(a, b transport.Point) int { return cmp.Compare(a.Epoch, b.Epoch) })
	return points
}

// accounted returns up to where all numbers from 1 on are accounted for. It is
// never above what was received: a gap may be forged, and there is nothing to be
// released above.
func (s *set) accounted() uint64 { return min(s.spans.prefix(), s.high) }

// settle stops waiting for what is from before our time where the gateway was
// heard for long enough without sending any of it.
func (t *Tracker) settle() {
	if t.o.Grace < 0 {
		return
	}
	for _, e := range t.epochs {
		if e.number > t.cold || t.heard-e.quiet < t.o.Grace {
			continue
		}
		for i := range e.sets {
			s := &e.sets[i]
			if !slices.ContainsFunc(s.spans, func(x span) bool { return x.kind == unknown }) {
				continue
			}
			s.spans = s.spans.paint(1, math.MaxUint64, func(part span) kind {
				if part.kind == unknown {
					s.before += part.count()
					return settled
				}
				return part.kind
			})
		}
	}
}

// Account is the state of one class of an epoch.
type Account struct {
	Class    transport.Class `json:"class"`
	Epoch    uint64          `json:"epoch"`
	Highest  uint64          `json:"highest_seq"` // received
	Received uint64          `json:"received"`
	// Duplicates came again, and were told so.
	Duplicates uint64 `json:"duplicates"`
	// Missing numbers were given by the gateway and neither came nor were told.
	Missing uint64 `json:"missing"`
	// Dropped numbers were told as dropped, and did not come. Open says that
	// there may be more, up to the end of the epoch.
	Dropped uint64 `json:"dropped"`
	Open    bool   `json:"open,omitempty"`
	// Before are numbers from before our time that did not come.
	Before uint64 `json:"before,omitempty"`
	// GaveUp numbers were missing for too long.
	GaveUp uint64 `json:"gave_up,omitempty"`
}

// Accounts returns the state of every class of every epoch that there was
// something of, in order of epoch, then worth.
func (t *Tracker) Accounts() []Account {
	var all []Account
	for _, e := range t.epochs {
		for i, class := range classes() {
			s := &e.sets[i]
			if s.top == 0 && len(s.spans) == 0 {
				continue
			}
			a := Account{
				Class: class, Epoch: e.number, Highest: s.high, Received: s.received, Duplicates: s.duplicates,
				Dropped: s.dropped, Before: s.before, GaveUp: s.gaveUp,
			}
			s.spans.holes(s.top, func(from, to uint64) bool {
				a.Missing += to - from + 1
				return true
			})
			for _, x := range s.spans {
				switch {
				case x.kind == covered && x.open():
					a.Open = true
					if x.from <= s.top {
						a.Dropped += s.top - x.from + 1
					}
				case x.kind == covered:
					a.Dropped += x.count()
				case x.kind == unknown:
					a.Before += x.count()
				}
			}
			all = append(all, a)
		}
	}
	return all
}

// Totals is the sum of all Accounts but those of class debug, whose loss is no
// news. It forgets epochs when the Tracker does.
type Totals struct {
	Received, Duplicates, Missing, Dropped, Before, GaveUp uint64
}

// Totals adds up.
func (t *Tracker) Totals() Totals {
	var sum Totals
	for _, a := range t.Accounts() {
		if a.Class == transport.ClassDebug {
			continue
		}
		sum.Received += a.Received
		sum.Duplicates += a.Duplicates
		sum.Missing += a.Missing
		sum.Dropped += a.Dropped
		sum.Before += a.Before
		sum.GaveUp += a.GaveUp
	}
	return sum
}

// Missing returns the holes that are open, at most limit, in order of epoch,
// then worth, then number.
func (t *Tracker) Missing(limit int) []Hole {
	var all []Hole
	for _, e := range t.epochs {
		for i, class := range classes() {
			e.sets[i].spans.holes(e.sets[i].top, func(from, to uint64) bool {
				if len(all) < limit {
					all = append(all, Hole{class, e.number, from, to})
				}
				return len(all) < limit
			})
		}
	}
	return all
}
