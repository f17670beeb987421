package pon

import (
	"slices"
	"sort"
	"strconv"
	"time"

	"ontagent/collectors"
)

// Words in events.
const (
	flagClear  = "clear"
	flagActive = "active"
)

// settled debounces one property: a value holds once two of the last three
// samples agree on it.
type settled[T comparable] struct {
	last  [3]T
	n     int // samples in last, up to 3
	now   T
	known bool
}

// add takes a sample and reports whether the settled value changed, and what
// it was before.
func (s *settled[T]) add(v T) (before T, wasKnown, changed bool) {
	s.last[2], s.last[1], s.last[0] = s.last[1], s.last[0], v
	s.n = min(s.n+1, len(s.last))
	twice := slices.Contains(s.last[1:s.n], v)
	if !twice || (s.known && s.now == v) {
		return s.now, s.known, false
	}
	before, wasKnown = s.now, s.known
	s.now, s.known = v, true
	return before, wasKnown, true
}

// counter is the last known total of one counter.
type counter struct {
	total uint64
	at    time.Time
	rate  float64 // last computed, per second
	rated bool
}

// tracker turns statuses into events and rates. The zero tracker has seen
// nothing.
type tracker struct {
	state  string // last known Raw
	norm   State  // of it
	serial string
	omci   settled[string]
	loid   settled[string]
	alarms map[string]*settled[bool]
	counts map[string]counter
}

// update takes one status and returns what changed and the rates per second
// of the counters.
func (t *tracker) update(st Status) ([]collectors.Event, map[string]float64) {
	var events []collectors.Event
	event := func(what, before, after string, fields ...collectors.Field) {
		fields = append(fields, collectors.F("source", st.Source), collectors.F("state", st.State))
		if st.Raw != "" {
			fields = append(fields, collectors.F("state_raw", st.Raw))
		}
		events = append(events, collectors.Event{
			Type: "pon", What: what, Before: before, After: after, Fields: fields,
		})
	}
	// A state is not debounced: the ONU's own machine is, and a popup that is
	// seen at all matters. A poll that could not tell is no change of state.
	if st.Raw != "" {
		first := t.state == ""
		alarming := st.State == StatePopup || st.State == StateStopped
		switch {
		case first && alarming:
			event("state", StateUnknown, st.State)
		case first, t.state == st.Raw:
		case t.norm != st.State:
			event("state", t.norm, st.State, collectors.F("before_raw", t.state))
		default: // O5.1 and O5.2 are both operational
			event("state_raw", t.state, st.Raw)
		}
		t.state, t.norm = st.Raw, st.State
	}
	if st.Serial != "" {
		if t.serial != "" && t.serial != st.Serial {
			event("serial", t.serial, st.Serial)
		}
		t.serial = st.Serial
	}
	if st.OMCIProvisioned == Yes || st.OMCIProvisioned == No {
		switch before, wasKnown, changed := t.omci.add(st.OMCIProvisioned); {
		case changed && wasKnown:
			event("omci_provisioned", before, st.OMCIProvisioned)
		case changed && st.InService() == No && st.State == StateOperational:
			event("omci_provisioned", Unknown, No) // operational in name only
		}
	}
	if st.LOIDStatus != "" {
		if before, wasKnown, changed := t.loid.add(st.LOIDStatus); changed && wasKnown {
			event("loid_status", before, st.LOIDStatus)
		}
	}
	if t.alarms == nil {
		t.alarms = map[string]*settled[bool]{}
		t.counts = map[string]counter{}
	}
	for _, name := range st.AlarmsKnown {
		s := t.alarms[name]
		if s == nil {
			s = &settled[bool]{}
			t.alarms[name] = s
		}
		on := slices.Contains(st.Alarms, name)
		_, wasKnown, changed := s.add(on)
		switch {
		case !changed:
		case on:
			event("alarm_"+name, flagClear, flagActive)
		case wasKnown:
			event("alarm_"+name, flagActive, flagClear)
		}
	}
	// What these count is over before a poll can see it, and each one matters.
	for _, name := range []string{LODSEvents, SDTooLong, SDMismatch} {
		now, told := st.Counters[name]
		last, known := t.counts[name]
		if delta, went := advance(last.total, now); told && known && went && delta > 0 {
			event(name, strconv.FormatUint(last.total, 10), strconv.FormatUint(now, 10), collectors.F("count", delta))
		}
	}
	return events, t.rates(st)
}

// rates compares the counters with the last ones. A counter that went back
// was reset – or is 32 bits wide and wrapped, if it stood near the top: then
// the distance is taken modulo 2^32. After a reset there is no rate until the
// next reading. A status seen before keeps its rates.
func (t *tracker) rates(st Status) map[string]float64 {
	rates := make(map[string]float64, len(st.Counters))
	names := make([]string, 0, len(st.Counters))
	for name := range st.Counters {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		now := counter{total: st.Counters[name], at: st.At}
		last, ok := t.counts[name]
		if ok {
			elapsed := now.at.Sub(last.at).Seconds()
			delta, went := advance(last.total, now.total)
			switch {
			case elapsed <= 0:
				now = last // the same reading again
			case went:
				now.rate, now.rated = float64(delta)/elapsed, true
			}
		}
		t.counts[name] = now
		if now.rated {
			rates[name] = now.rate
		}
	}
	return rates
}

// wrapMargin is how near to 2^32 a counter must have stood, and how near to
// zero it must stand now, to count as wrapped rather than reset.
const wrapMargin = 1 << 28

// advance returns how far a counter went from a to b, and false if it was
// reset.
func advance(a, b uint64) (uint64, bool) {
	const width = 1 << 32
	switch {
	case b >= a:
		return b - a, true
	case a < width && a >= width-wrapMargin && b < wrapMargin:
		return b + width - a, true
	}
	return 0, false
}
