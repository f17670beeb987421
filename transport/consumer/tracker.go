package consumer

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"ontagent/transport"
)

// Options bound a Tracker. Zero values stand for the defaults.
type Options struct {
	// Epochs that are remembered; default 256, at least 4.
	Epochs int
	// Ranges that are remembered, over all epochs and classes; default 4096.
	// One takes 24 bytes.
	Ranges int
	// Jump is how far a number may be above the highest known of its epoch and
	// class; default 2^24. EpochJump is the same for epochs; default 2^16.
	Jump, EpochJump uint64
	// Grace is how long a gateway must be heard without sending anything from
	// before our time until that is taken for nobody's; default 25 h: a gateway
	// sends unacknowledged messages again at least once in 24 h. Negative means
	// never.
	Grace time.Duration
	// Digests of the messages of class record stored last that are remembered,
	// to know what comes again; default 256. Waiting is how many may wait to be
	// acknowledged; default 1024. One of either takes 48 bytes.
	Digests, Waiting int
}

const (
	minEpochs = 4
	// heardWithin is how long a gateway counts as heard after a message.
	heardWithin = 15 * time.Minute
	// warmUp is how long a gateway must be heard until every epoch that began
	// before our time was seen: live messages go before what waited.
	warmUp = 15 * time.Minute
)

func (o Options) withDefaults() Options {
	if o.Epochs == 0 {
		o.Epochs = 256
	}
	o.Epochs = max(o.Epochs, minEpochs)
	if o.Ranges == 0 {
		o.Ranges = 4096
	}
	if o.Jump == 0 {
		o.Jump = 1 << 24
	}
	if o.EpochJump == 0 {
		o.EpochJump = 1 << 16
	}
	if o.Grace == 0 {
		o.Grace = 25 * time.Hour
	}
	if o.Digests == 0 {
		o.Digests = 256
	}
	if o.Waiting == 0 {
		o.Waiting = 1024
	}
	return o
}

// Verdict says what a message is to who has stored those before it.
type Verdict int

// The verdicts. All but Duplicate are worth storing.
const (
	New         Verdict = iota + 1
	Duplicate           // stored already
	Late                // it may have come before: which numbers or contents did is forgotten
	Untracked           // of class session: its numbers mean nothing
	Implausible         // number or epoch leap too far: not accounted
	Conflict            // of class record: another content with this number is stored
)

func (v Verdict) String() string {
	switch v {
	case New:
		return "new"
	case Duplicate:
		return "duplicate"
	case Late:
		return "late"
	case Untracked:
		return "untracked"
	case Implausible:
		return "implausible"
	case Conflict:
		return "conflict"
	}
	return "unknown"
}

// Hole is a range of numbers, both ends included.
type Hole struct {
	Class transport.Class `json:"class"`
	Epoch uint64          `json:"epoch"`
	From  uint64          `json:"from_seq"`
	To    uint64          `json:"to_seq"` // the largest number there is: to the end of the epoch
}

// Outcome is what one message changed.
type Outcome struct {
	Verdict Verdict
	// Opened is the hole that the message left behind it: numbers between the
	// highest known before and its own. Nil: none.
	Opened *Hole
	// Filled says that the number was missing until now.
	Filled bool
	// Gap is what the gateway told, if the message is a gap event that makes
	// sense. Ignored says why one does not.
	Gap     *transport.Gap
	Ignored string
	// GaveUp are holes that are waited for no more, to stay within the bounds.
	GaveUp []Hole
	// Dated says that messages of the epoch can be dated now that could not be,
	// or that its clock was set anew: see Date.
	Dated bool
}

// Tracker accounts for the messages of one gateway. It is not safe for
// concurrent use.
type Tracker struct {
	device string
	o      Options

	epochs []*epoch // in order
	latest *epoch   // of the last message
	newest uint64   // highest epoch that was plausible
	// cold: epochs up to it may have begun before our time. started: that is
	// set.
	cold    uint64
	started bool
	// told are epochs that the gateway told as lost whole, by class.
	told [tracked]spans
	// heard adds up how long the gateway was there, last is when.
	heard time.Duration
	last  time.Time
	count uint64 // messages, to order epochs by use
	// ledger is of class record.
	ledger ledger
}

// The classes whose numbers are tracked.
const tracked = 4

func classes() [tracked]transport.Class {
	return [...]transport.Class{transport.ClassRecord, transport.ClassEvent, transport.ClassTelemetry, transport.ClassDebug}
}

func index(c transport.Class) int {
	all := classes()
	return slices.Index(all[:], c)
}

// epoch is what is known of one start of the daemon.
type epoch struct {
	number uint64
	used   uint64 // count at the last message
	// quiet is what heard was when the last number from before our time came.
	quiet time.Duration
	sets  [tracked]set
	clock clock
}

// set is the numbers of one class of an epoch.
type set struct {
	spans spans
	high  uint64 // highest received
	top   uint64 // highest known to have been given
	// Of what spans forget.
	received   uint64 // in all
	dropped    uint64 // told, within settled and lost spans
	before     uint64 // from before our time, within settled spans
	gaveUp     uint64
	duplicates uint64
}

// NewTracker returns the Tracker of a device that nothing is known of.
func NewTracker(device string, o Options) *Tracker {
	return &Tracker{device: device, o: o.withDefaults()}
}

// Device returns whose messages are tracked.
func (t *Tracker) Device() string { return t.device }

// Observe takes note of a message of this device that arrived at a time of
// ours, and says what it is. The payload is the whole message, byte for byte as
// it was published. Messages of other devices are Implausible.
//
// Class record goes by content: a message is a Duplicate only if this very
// payload is stored. What else has its number is to be stored as well, since
// which of them the gateway sent, only the gateway can tell.
func (t *Tracker) Observe(at time.Time, h transport.Header, k transport.Kind, name string, payload []byte) Outcome {
	if h.Device != t.device {
		return Outcome{Verdict: Implausible}
	}
	out := t.account(at, h, k, name, payload)
	if h.Class == transport.ClassRecord {
		out.Verdict = t.judge(h, payload, out.Verdict)
	}
	if e := t.find(h.Epoch); e != nil && out.Verdict == Duplicate {
		e.sets[index(h.Class)].duplicates++
	}
	return out
}

// account takes note of a message's number, clock and gap.
func (t *Tracker) account(at time.Time, h transport.Header, k transport.Kind, name string, payload []byte) Outcome {
	if t.started && h.Epoch > t.newest && h.Epoch-t.newest > t.o.EpochJump {
		return Outcome{Verdict: Implausible}
	}
	t.hear(at)
	var out Outcome
	e := t.enter(h.Epoch, &out)
	i := index(h.Class)
	if i < 0 {
		out.Verdict = Untracked
		out.Dated = e.clock.learn(h)
		return out
	}
	t.number(e, i, h.Seq, &out)
	if out.Verdict == Implausible {
		return out
	}
	out.Dated = e.clock.learn(h)
	if h.Class == transport.ClassEvent && k == transport.KindEvent && name == transport.EventGap && out.Verdict != Duplicate {
		var g transport.Gap
		if err := json.Unmarshal(payload, &g); err != nil {
			out.Ignored = "not a gap"
		} else if out.Ignored = t.gap(h, g, &out); out.Ignored == "" {
			out.Gap = &g
		}
	}
	t.bound(&out)
	return out
}

// hear counts the time in which the gateway is there.
func (t *Tracker) hear(at time.Time) {
	if gone := at.Sub(t.last); !t.last.IsZero() && gone > 0 && gone <= heardWithin {
		t.heard += gone
	}
	if at.After(t.last) {
		t.last = at
	}
}

// enter finds the state of an epoch, or makes it.
func (t *Tracker) enter(number uint64, out *Outcome) *epoch {
	t.count++
	t.started = true
	if t.newest = max(t.newest, number); t.heard < warmUp {
		t.cold = max(t.cold, number)
	}
	e := t.find(number)
	if e == nil {
		e = &epoch{number: number, quiet: t.heard}
		for i := range e.sets {
			if t.told[i].at(number) == covered {
				e.sets[i].spans = spans{{1, math.MaxUint64, covered}}
			}
		}
		at, _ := slices.BinarySearchFunc(t.epochs, number, byNumber)
		t.epochs = slices.Insert(t.epochs, at, e)
	}
	e.used, t.latest = t.count, e
	for len(t.epochs) > t.o.Epochs {
		t.forget(out)
	}
	return e
}

func byNumber(e *epoch, n uint64) int { return cmp.Compare(e.number, n) }

func (t *Tracker) find(number uint64) *epoch {
	if t.latest != nil && t.latest.number == number {
		return t.latest
	}
	if i, ok := slices.BinarySearchFunc(t.epochs, number, byNumber); ok {
		return t.epochs[i]
	}
	return nil
}

// forget gives up the epoch that was quiet for longest, one with nothing
// missing if there is one.
func (t *Tracker) forget(out *Outcome) {
	whole := func(e *epoch) int {
		for i := range e.sets {
			if s := &e.sets[i]; s.spans.prefix() < s.top {
				return 1
			}
		}
		return 0
	}
	victim := t.epochs[0]
	rank := 2
	for _, e := range t.epochs {
		if e == t.latest {
			continue
		}
		if r := whole(e); r < rank || r == rank && e.used < victim.used {
			victim, rank = e, r
		}
	}
	for i, class := range classes() {
		s := &victim.sets[i]
		s.spans.holes(s.top, func(from, to uint64) bool {
			out.GaveUp = append(out.GaveUp, Hole{class, victim.number, from, to})
			return len(out.GaveUp) < maxReported
		})
	}
	// If it comes again, nobody knows what of it came before.
	t.cold = max(t.cold, victim.number)
	at, _ := slices.BinarySearchFunc(t.epochs, victim.number, byNumber)
	t.epochs = slices.Delete(t.epochs, at, at+1)
}

// maxReported bounds the holes in an Outcome.
const maxReported = 64

// number takes note of one number.
func (t *Tracker) number(e *epoch, i int, seq uint64, out *Outcome) {
	s := &e.sets[i]
	first := s.top == 0 && s.high == 0
	if first && e.number <= t.cold && seq > 1 {
		s.spans = s.spans.paint(1, seq-1, func(part span) kind {
			if part.kind == hole {
				return unknown
			}
			return part.kind
		})
		s.top = seq - 1
	}
	if seq > s.top && seq-s.top > t.o.Jump || seq == math.MaxUint64 {
		out.Verdict = Implausible
		return
	}
	switch was := s.spans.at(seq); was {
	case seen:
		out.Verdict = Duplicate
		return
	case settled, lost:
		out.Verdict = Late
		return
	case unknown:
		e.quiet = t.heard
	case hole:
		out.Filled = seq <= s.top
	case covered, kinds:
	}
	out.Verdict = New
	if seq > s.top+1 {
		s.spans.holes(seq-1, func(from, to uint64) bool {
			if to > s.top {
				out.Opened = &Hole{classes()[i], e.number, max(from, s.top+1), to}
			}
			return true
		})
	}
	s.spans = s.spans.paint(seq, seq, func(span) kind { return seen })
	s.high, s.top = max(s.high, seq), max(s.top, seq)
	s.received++
}

// gap takes note of what the gateway told as dropped, or says why it does not.
func (t *Tracker) gap(h transport.Header, g transport.Gap, out *Outcome) (ignored string) {
	i := index(g.Class)
	to := g.ToSeq
	if to == 0 {
		to = math.MaxUint64
	}
	switch {
	case i < 0:
		return fmt.Sprintf("no class %.20q", string(g.Class))
	case g.Epoch == 0 || g.Epoch > h.Epoch:
		return "its epoch is none that the gateway has had"
	case g.FromSeq == 0 || to < g.FromSeq || g.ToSeq == math.MaxUint64:
		return "its range is none"
	case g.ToSeq == 0 && (g.Reason != transport.GapRestart || g.Epoch == h.Epoch):
		return "an open range, and the epoch is not over"
	case g.FromEpoch > g.Epoch:
		return "its epochs are none"
	}
	if g.FromEpoch > 0 && g.FromEpoch < g.Epoch {
		t.cover(i, g.FromEpoch, g.Epoch-1)
	}
	e := t.find(g.Epoch)
	if e == nil && g.ToSeq == 0 && g.FromSeq == 1 {
		t.cover(i, g.Epoch, g.Epoch)
		return ""
	}
	if e == nil {
		latest := t.latest
		e = t.enter(g.Epoch, out)
		t.latest = latest
	}
	s := &e.sets[i]
	end := to
	if g.ToSeq == 0 {
		end = g.FromSeq - 1
	}
	if e.number <= t.cold && s.top == 0 && s.high == 0 && g.FromSeq > 1 {
		s.spans = s.spans.paint(1, g.FromSeq-1, func(span) kind { return unknown })
		s.top = g.FromSeq - 1
	}
	if end > s.top && end-s.top > t.o.Jump {
		return "its numbers leap too far"
	}
	s.cover(g.FromSeq, to)
	s.top = max(s.top, end)
	return ""
}

// cover takes note of epochs that are told as lost whole.
func (t *Tracker) cover(i int, from, to uint64) {
	t.told[i] = t.told[i].paint(from, to, func(span) kind { return covered })
	if len(t.told[i]) > maxTold {
		t.told[i] = t.told[i][1:]
	}
	for _, e := range t.epochs {
		if from <= e.number && e.number <= to {
			e.sets[i].cover(1, math.MaxUint64)
		}
	}
}

// maxTold bounds the ranges of epochs told as lost whole, per class.
const maxTold = 64

// cover paints a range as told; what came, came.
func (s *set) cover(from, to uint64) {
	s.spans = s.spans.paint(from, to, func(part span) kind {
		switch {
		case part.kind == hole, part.kind == unknown:
			return covered
		case part.kind == lost && s.whole(part):
			return settled
		}
		return part.kind
	})
}

// whole reports whether part is all of a range, not a piece of one.
func (s *set) whole(part span) bool {
	return slices.Contains(s.spans, part)
}

// bound gives up the oldest holes of the class that has most ranges.
func (t *Tracker) bound(out *Outcome) {
	for t.ranges() > t.o.Ranges {
		var at *epoch
		class := 0
		for _, e := range t.epochs {
			for i := range e.sets {
				if at == nil || len(e.sets[i].spans) > len(at.sets[class].spans) {
					at, class = e, i
				}
			}
		}
		s := &at.sets[class]
		before := s.spans
		shorter, gaveUp, ok := before.shorten()
		if !ok {
			return // every list is as short as it gets
		}
		for _, x := range before {
			if x.kind == covered && shorter.at(x.from) != covered {
				s.dropped += x.count()
			}
		}
		s.spans = shorter
		if gaveUp.to > 0 {
			s.gaveUp += gaveUp.count()
			if len(out.GaveUp) < maxReported {
				out.GaveUp = append(out.GaveUp, Hole{classes()[class], at.number, gaveUp.from, gaveUp.to})
			}
		}
	}
}

func (t *Tracker) ranges() int {
	n := 0
	for _, e := range t.epochs {
		for i := range e.sets {
			n += len(e.sets[i].spans)
		}
	}
	return n
}
