package optics

import (
	"math"
	"sort"
	"strconv"

	"ontagent/collectors"
)

// Words in events and samples.
const (
	agree      = "agree"
	disagree   = "disagree"
	flagClear  = "clear"
	flagActive = "active"
	normal     = "normal"
	low        = "low"
	high       = "high"
	unknown    = "unknown"
	none       = "none"
)

// sameLevelDB is how close two readings must be to count as the same level.
const sameLevelDB = 1.0

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
	twice := false
	for _, o := range s.last[1:s.n] {
		twice = twice || o == v
	}
	if !twice || (s.known && s.now == v) {
		return s.now, s.known, false
	}
	before, wasKnown = s.now, s.known
	s.now, s.known = v, true
	return before, wasKnown, true
}

// tracker turns readings into events. The zero tracker has seen nothing.
type tracker struct {
	status   settled[string]
	level    settled[string]
	check    settled[string]
	baseline settled[string]
	beyond   map[string]*settled[bool] // limits but those of the norm
	alarms   map[string]*settled[bool]
	warnings map[string]*settled[bool]

	powers    [3]float64 // the last ok readings, newest first
	powerN    int
	reference float64 // settled level that later ones are compared with
	hasRef    bool

	// modules are the transceivers by the name of their source; the zero
	// Identity is an empty cage. What is not in it has not been told.
	modules map[string]Identity

	memory memory
}

// plugged reports transceivers that came, went or were changed. It is not
// debounced: a source says "nothing here" only of an empty cage, and errors on
// the bus are no change.
func (t *tracker) plugged(got round) []collectors.Event {
	var events []collectors.Event
	if t.modules == nil {
		t.modules = map[string]Identity{}
	}
	now := func(source string, id Identity) {
		before, known := t.modules[source]
		t.modules[source] = id
		if !known || before == id {
			return
		}
		word := func(id Identity) string {
			if id == (Identity{}) {
				return none
			}
			return id.String()
		}
		ev := collectors.Event{Type: "optics", What: "module", Before: word(before), After: word(id), Fields: []collectors.Field{
			collectors.F("source", source),
		}}
		for _, side := range []struct {
			prefix string
			id     Identity
		}{{"before_", before}, {"", id}} {
			for _, f := range []struct{ key, value string }{
				{"vendor", side.id.Vendor}, {"part_number", side.id.PartNumber}, {"serial", side.id.SerialNo},
			} {
				if f.value != "" {
					ev.Fields = append(ev.Fields, collectors.F(side.prefix+f.key, f.value))
				}
			}
		}
		events = append(events, ev)
	}
	for _, r := range append([]Reading{got.best}, got.others...) {
		if r.Module != nil && *r.Module != (Identity{}) {
			now(r.Source, *r.Module)
		}
	}
	for _, source := range got.absent {
		now(source, Identity{})
	}
	return events
}

// update takes one reading, with what it is worth, and returns what has
// changed.
func (t *tracker) update(opts Options, r Reading, j Judgement, check crossCheck) []collectors.Event {
	var events []collectors.Event
	event := func(what, before, after string, fields ...collectors.Field) {
		fields = append(fields, collectors.F("source", r.Source))
		if r.RxPower.OK() {
			fields = append(fields, collectors.F("rx_power_dbm", r.RxPower.Value))
		}
		events = append(events, collectors.Event{
			Type: "optics", What: what, Before: before, After: after, Fields: fields,
		})
	}
	// change reports a property whose quiet value is not worth an event the
	// first time it is seen.
	change := func(s *settled[string], what, quiet, v string, fields ...collectors.Field) {
		before, wasKnown, changed := s.add(v)
		switch {
		case !changed:
		case wasKnown:
			event(what, before, v, fields...)
		case v != quiet:
			event(what, unknown, v, fields...)
		}
	}

	status := r.RxPower.Status
	change(&t.status, "rx_power_status", string(collectors.StatusOK), string(status))
	if status == collectors.StatusOK {
		change(&t.level, "rx_level", normal, j.Level,
			collectors.F("rx_min_dbm", opts.RxMinDBm), collectors.F("rx_max_dbm", opts.RxMaxDBm),
			collectors.F("margin_db", j.MarginDB), collectors.F("accuracy_db", AccuracyDB))
		t.step(opts, r.RxPower.Value, event)
	}
	if base, differ, ok := t.memory.against(r); ok {
		change(&t.baseline, "rx_baseline", near, t.baselineWord(opts, differ),
			collectors.F("rx_baseline_dbm", base), collectors.F("change_db", differ))
	}
	if check.known {
		word := agree
		if check.disagree {
			word = disagree
		}
		fields := []collectors.Field{
			collectors.F("cross_check_source", check.source),
			collectors.F("cross_check_status", string(check.status)),
		}
		if check.status == collectors.StatusOK {
			fields = append(fields, collectors.F("cross_check_rx_power_dbm", check.powerDBm))
		}
		change(&t.check, "cross_check", agree, word, fields...)
	}
	flags := func(set *map[string]*settled[bool], prefix string, now []string, known bool) {
		if !known {
			return
		}
		if *set == nil {
			*set = map[string]*settled[bool]{}
		}
		on := make(map[string]bool, len(now))
		for _, name := range now {
			on[name] = true
			if (*set)[name] == nil {
				(*set)[name] = &settled[bool]{}
			}
		}
		names := make([]string, 0, len(*set))
		for name := range *set {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			_, wasKnown, changed := (*set)[name].add(on[name])
			switch {
			case !changed:
			case on[name]:
				event(prefix+name, flagClear, flagActive)
			case wasKnown:
				event(prefix+name, flagActive, flagClear)
			}
		}
	}
	flags(&t.beyond, "limit_", j.Beyond, status == collectors.StatusOK)
	flags(&t.alarms, "alarm_", r.Alarms, r.AlarmsKnown)
	flags(&t.warnings, "warning_", r.Warnings, r.WarningsKnown)
	return events
}

// was says whether a limit counts as exceeded so far.
func (t *tracker) was(limit string) bool {
	if limit == low || limit == high {
		return t.level.known && t.level.now == limit
	}
	s := t.beyond[limit]
	return s != nil && s.known && s.now
}

// baselineWord places a level against the line's baseline, with hysteresis.
func (t *tracker) baselineWord(opts Options, differDB float64) string {
	limit := opts.StepDB
	if t.baseline.known && t.baseline.now != near {
		limit -= hysteresisDB
	}
	switch {
	case differDB <= -limit:
		return fallen
	case differDB >= limit:
		return risen
	}
	return near
}

// step settles the level – a value that another of the last three readings
// confirms – and reports one that is StepDB away from the reference.
func (t *tracker) step(opts Options, dBm float64, event func(what, before, after string, fields ...collectors.Field)) {
	t.powers[2], t.powers[1], t.powers[0] = t.powers[1], t.powers[0], dBm
	t.powerN = min(t.powerN+1, len(t.powers))
	confirmed := false
	for _, o := range t.powers[1:t.powerN] {
		confirmed = confirmed || math.Abs(o-dBm) <= sameLevelDB
	}
	if !confirmed {
		return
	}
	if !t.hasRef {
		t.reference, t.hasRef = dBm, true
		return
	}
	change := dBm - t.reference
	if math.Abs(change) < opts.StepDB {
		return
	}
	event("rx_power", formatDBm(t.reference), formatDBm(dBm), collectors.F("change_db", change))
	t.reference = dBm
}

// formatDBm prints a level for people: two decimals, more than the accuracy
// of any source.
func formatDBm(dBm float64) string { return strconv.FormatFloat(dBm, 'f', 2, 64) + " dBm" }
