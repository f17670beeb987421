package consumer

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"ontagent/transport"
)

// snapshot is a Tracker as it is kept.
type snapshot struct {
	V       int             `json:"v"`
	Device  string          `json:"device"`
	Cold    uint64          `json:"cold"`
	Newest  uint64          `json:"newest"`
	HeardMS int64           `json:"heard_ms"`
	LastMS  int64           `json:"last_unix_ms,omitempty"`
	Told    []toldSnapshot  `json:"told,omitempty"`
	Epochs  []epochSnapshot `json:"epochs"`
	// The end of the ledger, and what of it waits: packed.
	Kept    []byte `json:"kept,omitempty"`
	Waiting []byte `json:"waiting,omitempty"`
}

type toldSnapshot struct {
	Class  transport.Class `json:"class"`
	Epochs [][2]uint64     `json:"epochs"`
}

type epochSnapshot struct {
	Epoch   uint64        `json:"epoch"`
	QuietMS int64         `json:"quiet_ms"`
	Clock   []reading     `json:"clock,omitempty"`
	Classes []setSnapshot `json:"classes,omitempty"`
	Used    uint64        `json:"used"`
}

type setSnapshot struct {
	Class      transport.Class `json:"class"`
	Spans      [][3]uint64     `json:"spans,omitempty"` // from, to, kind
	High       uint64          `json:"high"`
	Top        uint64          `json:"top"`
	Received   uint64          `json:"received"`
	Dropped    uint64          `json:"dropped,omitempty"`
	Before     uint64          `json:"before,omitempty"`
	GaveUp     uint64          `json:"gave_up,omitempty"`
	Duplicates uint64          `json:"duplicates,omitempty"`
}

// MarshalJSON implements json.Marshaler: everything but the Options, and of the
// digests the last 64. An older message of class record that comes again after a
// restart is Late, and stored once more.
func (t *Tracker) MarshalJSON() ([]byte, error) {
	s := snapshot{
		V: 1, Device: t.device, Cold: t.cold, Newest: t.newest, HeardMS: t.heard.Milliseconds(),
		Epochs: make([]epochSnapshot, 0, len(t.epochs)),
	}
	s.Kept, s.Waiting = t.ledger.snapshot()
	if !t.last.IsZero() {
		s.LastMS = t.last.UnixMilli()
	}
	for i, class := range classes() {
		told := toldSnapshot{Class: class}
		for _, x := range t.told[i] {
			told.Epochs = append(told.Epochs, [2]uint64{x.from, x.to})
		}
		if len(told.Epochs) > 0 {
			s.Told = append(s.Told, told)
		}
	}
	for _, e := range t.epochs {
		es := epochSnapshot{Epoch: e.number, Used: e.used, QuietMS: e.quiet.Milliseconds(), Clock: e.clock.readings}
		for i, class := range classes() {
			st := &e.sets[i]
			if st.top == 0 && len(st.spans) == 0 {
				continue
			}
			ss := setSnapshot{
				Class: class, High: st.high, Top: st.top, Received: st.received, Dropped: st.dropped, Before: st.before,
				GaveUp: st.gaveUp, Duplicates: st.duplicates,
			}
			for _, x := range st.spans {
				ss.Spans = append(ss.Spans, [3]uint64{x.from, x.to, uint64(x.kind)})
			}
			es.Classes = append(es.Classes, ss)
		}
		s.Epochs = append(s.Epochs, es)
	}
	return json.Marshal(s)
}

// Restore returns the Tracker that MarshalJSON wrote. What is over the bounds
// of o is given up with the next message.
func Restore(data []byte, o Options) (*Tracker, error) {
	var s snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("cannot restore tracker: %w", err)
	}
	t, err := s.restore(o)
	if err != nil {
		return nil, fmt.Errorf("cannot restore tracker of %.40q: %w", s.Device, err)
	}
	return t, nil
}

func (s snapshot) restore(o Options) (*Tracker, error) {
	switch {
	case s.V != 1:
		return nil, fmt.Errorf("version %d is not known", s.V)
	case !transport.ValidDevice(s.Device):
		return nil, errors.New("no device")
	case s.HeardMS < 0:
		return nil, errors.New("negative time")
	}
	t := NewTracker(s.Device, o)
	t.cold, t.newest, t.started = s.Cold, s.Newest, len(s.Epochs) > 0
	t.heard = time.Duration(s.HeardMS) * time.Millisecond
	if err := t.ledger.restore(s.Kept, s.Waiting, t.o); err != nil {
		return nil, err
	}
	if s.LastMS != 0 {
		t.last = time.UnixMilli(s.LastMS)
	}
	for _, told := range s.Told {
		i := index(told.Class)
		if i < 0 {
			return nil, fmt.Errorf("class %.20q", string(told.Class))
		}
		for _, x := range told.Epochs {
			t.told[i] = append(t.told[i], span{x[0], x[1], covered})
		}
		if err := t.told[i].check(); err != nil {
			return nil, err
		}
	}
	for _, es := range s.Epochs {
		if n := len(t.epochs); n > 0 && t.epochs[n-1].number >= es.Epoch {
			return nil, errors.New("epochs are not in order")
		}
		e, err := es.restore()
		if err != nil {
			return nil, fmt.Errorf("epoch %d: %w", es.Epoch, err)
		}
		t.epochs = append(t.epochs, e)
		t.count = max(t.count, e.used)
	}
	return t, nil
}

func (s epochSnapshot) restore() (*epoch, error) {
	e := &epoch{
		number: s.Epoch, used: s.Used, quiet: time.Duration(s.QuietMS) * time.Millisecond,
		clock: clock{readings: s.Clock},
	}
	byUptime := func(a, b reading) int { return int(min(1, max(-1, a.UptimeMS-b.UptimeMS))) }
	if len(s.Clock) > maxReadings || !slices.IsSortedFunc(s.Clock, byUptime) {
		return nil, errors.New("readings of the clock are not in order")
	}
	for _, ss := range s.Classes {
		i := index(ss.Class)
		if i < 0 {
			return nil, fmt.Errorf("class %.20q", string(ss.Class))
		}
		st := set{
			high: ss.High, top: ss.Top, received: ss.Received, dropped: ss.Dropped, before: ss.Before,
			gaveUp: ss.GaveUp, duplicates: ss.Duplicates,
		}
		for _, x := range ss.Spans {
			if x[2] == 0 || x[2] >= uint64(kinds) {
				return nil, fmt.Errorf("range of kind %d", x[2])
			}
			st.spans = append(st.spans, span{x[0], x[1], kind(x[2])})
		}
		if err := st.spans.check(); err != nil {
			return nil, err
		}
		if st.high > st.top || st.top == math.MaxUint64 {
			return nil, errors.New("numbers above the highest")
		}
		e.sets[i] = st
	}
	return e, nil
}

// check reports whether the ranges are in order and disjoint.
func (s spans) check() error {
	for i, x := range s {
		if x.from > x.to || i > 0 && s[i-1].to >= x.from {
			return errors.New("ranges are not in order")
		}
	}
	return nil
}
