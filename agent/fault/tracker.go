package fault

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"ontagent/agent/diagnosis"
	"ontagent/collectors"
)

// What a Tracker does where its maker did not say.
const (
	DefaultDebounce   = 30 * time.Second // a cause must last as long to be a fault
	DefaultClearAfter = 5 * time.Minute  // and must be gone as long to be cleared
)

// Bounds, so that a line gone mad is told, not broadcast.
const (
	// A cause that comes flapTimes within flapWindow is a fault, however short
	// each time.
	flapWindow = 10 * time.Minute
	flapTimes  = 3
	// Each fault of the same code within a day doubles how long the next must be
	// gone, up to longestClear.
	longestClear = time.Hour
	maxOpen      = 16
	maxPerHour   = 12 // faults opened
	maxPast      = 64
	maxStanding  = 16
	maxWatched   = 64
	retrySave    = time.Minute

	recurrence = 30 * 24 * time.Hour
)

// Store keeps the faults that are open.
type Store interface {
	// Load returns what was saved last, nil if nothing was.
	Load() ([]byte, error)
	// Save replaces it, for good.
	Save(data []byte) error
	// SetAside puts away, and tells of, what Load returned and nobody can read.
	SetAside(why error)
}

// Options configure a Tracker. Store, Publish, Moment and Log are needed.
type Options struct {
	Store Store
	// Publish takes events of type "fault". It returns when they can't be lost.
	Publish func(collectors.Event)
	// Opened is told of every fault once, after its event. It must neither block
	// nor call back. Nil: nobody cares.
	Opened func(diagnosis.Code)
	Moment func() Moment
	Limits Limits
	// Standing returns what telemetry sees not as it was; it is kept beside the
	// faults, for a start to go on with. May be nil.
	Standing func(limit int) []diagnosis.Happening
	// Epoch is of this start of the daemon: with a number it makes an id.
	Epoch uint64
	// Debounce and ClearAfter: zero means the default.
	Debounce, ClearAfter time.Duration
	Log                  *slog.Logger
}

// Tracker opens and clears faults. It is safe for concurrent use.
type Tracker struct {
	o Options

	mu      sync.Mutex // guards what follows
	s       state
	watched map[diagnosis.Code]*watch
	n       int // faults opened since the start
	opens   []time.Duration
	unsaved bool // flash did not take the last state
	tried   time.Duration
	full    bool // it was logged that the bounds hold a fault back
}

// state is what is kept.
type state struct {
	Version  int                   `json:"v"`
	Open     []Fault               `json:"open"`
	Past     []past                `json:"past"` // faults opened, oldest first
	Standing []diagnosis.Happening `json:"standing,omitempty"`
}

// past is a fault that was opened once.
type past struct {
	Code diagnosis.Code `json:"code"`
	At   Stamp          `json:"at"`
}

const stateVersion = 1

// MaxState bounds what a Store is given, in bytes.
const MaxState = 32 << 10

// watch is a cause that telemetry shows, or showed not long ago.
type watch struct {
	shown bool
	since time.Duration   // it is shown, or not
	came  []time.Duration // the last times it came, up to flapTimes
}

// Open returns a Tracker that goes on with what is kept. What a power cut kept
// from being told is told now.
func Open(o Options) *Tracker {
	o.Debounce = cmp.Or(o.Debounce, DefaultDebounce)
	o.ClearAfter = cmp.Or(o.ClearAfter, DefaultClearAfter)
	t := &Tracker{o: o, watched: map[diagnosis.Code]*watch{}}
	t.s = t.load()
	told := true
	for i := range t.s.Open {
		told = told && t.s.Open[i].Phase == open
		switch f := &t.s.Open[i]; f.Phase {
		case opening:
			t.publish(f, "state")
			f.Phase = open
		case clearing:
			t.publish(f, "state")
		case open:
		}
	}
	if !told {
		t.s.Open = slices.DeleteFunc(t.s.Open, func(f Fault) bool { return f.Phase == clearing })
		t.save()
	}
	now := o.Moment().Uptime
	for _, f := range t.s.Open {
		if f.Source == Telemetry {
			// It is shown until telemetry says otherwise.
			t.watched[f.Code] = &watch{shown: true, since: now}
		}
	}
	return t
}

func (t *Tracker) load() state {
	fresh := state{Version: stateVersion}
	data, err := t.o.Store.Load()
	if err != nil {
		t.o.Log.Error("cannot read open faults", "error", err)
		return fresh
	}
	if len(data) == 0 {
		return fresh
	}
	s, err := parse(data)
	if err != nil {
		t.o.Store.SetAside(err)
		return fresh
	}
	return s
}

// parse refuses whatever could not have been saved.
func parse(data []byte) (state, error) {
	var s state
	if len(data) > MaxState {
		return state{}, fmt.Errorf("cannot read open faults: %d bytes", len(data))
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return state{}, fmt.Errorf("cannot read open faults: %w", err)
	}
	if s.Version != stateVersion || len(s.Open) > maxOpen || len(s.Past) > maxPast || len(s.Standing) > maxStanding {
		return state{}, fmt.Errorf("cannot read open faults: version %d, %d open, %d past", s.Version, len(s.Open), len(s.Past))
	}
	seen := map[diagnosis.Code]bool{}
	for _, f := range s.Open {
		switch {
		case f.ID == "", f.Code == "", seen[f.Code]:
			return state{}, fmt.Errorf("cannot read open faults: fault %q of %q", f.ID, f.Code)
		case f.Phase != opening && f.Phase != open && f.Phase != clearing, f.Phase == clearing && f.Cleared == nil:
			return state{}, fmt.Errorf("cannot read open faults: fault %s is %q", f.ID, f.Phase)
		}
		seen[f.Code] = true
	}
	return s, nil
}

// Standing returns what telemetry saw not as it was when a fault was opened or
// cleared last, before this start: for history.Remember. It is empty where
// nothing is open.
func (t *Tracker) Standing() []diagnosis.Happening {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.s.Open) == 0 {
		return nil
	}
	return slices.Clone(t.s.Standing)
}

// Faults returns those that are open, oldest first.
func (t *Tracker) Faults() []Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.s.Open)
}

// counts reports whether a cause is a fault: something that failed, known well
// enough, and that keeps the line from meeting the norm.
func counts(r diagnosis.Ranked) bool {
	grave := r.Severity == diagnosis.Critical || r.Severity == diagnosis.Major
	doubtful := len(r.Against) > 0 && r.Confidence < 0.3
	return r.Kind == diagnosis.KindFault && grave && !doubtful
}

// Observe takes what the last minutes of telemetry look like. It is to be called
// every few seconds, whether or not anything changed: time passes.
func (t *Tracker) Observe(d diagnosis.Diagnosis) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.o.Moment()
	shown := map[diagnosis.Code]bool{}
	for _, r := range d.Causes {
		if counts(r) {
			shown[r.Code] = true
			t.appears(m, r.Code)
		}
	}
	for _, c := range d.Consequences {
		// What is open stays open while it is there, whatever else is found to
		// be behind it.
		if t.index(c.Code) >= 0 {
			shown[c.Code] = true
			t.appears(m, c.Code)
		}
	}
	for code, w := range t.watched {
		if w.shown && !shown[code] {
			w.shown, w.since = false, m.Uptime
		}
		if !w.shown && t.index(code) < 0 && m.Uptime-w.since > flapWindow {
			delete(t.watched, code)
		}
	}
	for _, r := range d.Causes { // in the order of the diagnosis
		if w := t.watched[r.Code]; counts(r) && w != nil && t.index(r.Code) < 0 && (m.Uptime-w.since >= t.o.Debounce || w.flaps(m.Uptime)) {
			t.open(m, r, Telemetry, "")
		}
	}
	for _, f := range slices.Clone(t.s.Open) {
		w := t.watched[f.Code]
		if f.Source == Telemetry && (w == nil || !w.shown && m.Uptime-w.since >= t.patience(m, f)) {
			t.clear(m, f.ID, "")
		}
	}
	t.again(m)
}

// appears notes that telemetry shows a cause.
func (t *Tracker) appears(m Moment, code diagnosis.Code) {
	w := t.watched[code]
	switch {
	case w == nil && len(t.watched) >= maxWatched:
		return
	case w == nil:
		w = &watch{}
		t.watched[code] = w
	case w.shown:
		return
	default:
		if i := t.index(code); i >= 0 {
			t.s.Open[i].Flaps++
		}
	}
	w.shown, w.since = true, m.Uptime
	w.came = append(w.came, m.Uptime)
	w.came = slices.Delete(w.came, 0, max(0, len(w.came)-flapTimes))
}

// flaps reports whether a cause came again and again.
func (w *watch) flaps(now time.Duration) bool {
	return len(w.came) == flapTimes && now-w.came[0] <= flapWindow
}

// Inspected takes the diagnosis of a ladder, and the rungs that passed. What it
// shows was looked at thoroughly: that opens at once. What it opened is cleared
// by a ladder on which the same rung passes.
func (t *Tracker) Inspected(d diagnosis.Diagnosis, passed []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.o.Moment()
	for _, r := range d.Causes {
		if counts(r) && t.index(r.Code) < 0 {
			rung := ""
			if len(r.For) > 0 {
				rung = r.For[0].Rung
			}
			t.open(m, r, Inspection, rung)
		}
	}
	for _, f := range slices.Clone(t.s.Open) {
		there := slices.ContainsFunc(d.Causes, func(r diagnosis.Ranked) bool { return r.Code == f.Code && counts(r) }) ||
			slices.ContainsFunc(d.Consequences, func(c diagnosis.Consequence) bool { return c.Code == f.Code })
		if f.Source == Inspection && !there && slices.Contains(passed, f.Rung) {
			t.clear(m, f.ID, "")
		}
	}
	t.again(m)
}

// Waiting reports whether a fault is open that only another inspection clears.
func (t *Tracker) Waiting() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.s.Open, func(f Fault) bool { return f.Source == Inspection })
}

// ClockSet dates what was opened while no clock could be relied on, or by a
// clock that was wrong, and tells that.
func (t *Tracker) ClockSet() {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.o.Moment()
	changed := false
	for i := range t.s.Open {
		if f := &t.s.Open[i]; f.Opened.date(m) {
			t.publish(f, "dated")
			changed = true
		}
	}
	for i := range t.s.Past {
		t.s.Past[i].At.date(m) // kept with the next change
	}
	if changed {
		t.save()
	}
}

// NewLine clears what is open and forgets what was: the gateway is on another
// line.
func (t *Tracker) NewLine() {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.o.Moment()
	for _, f := range slices.Clone(t.s.Open) {
		t.clear(m, f.ID, "new_line")
	}
	clear(t.watched)
	if len(t.s.Past) > 0 {
		t.s.Past = nil
		t.save()
	}
}

func (t *Tracker) index(code diagnosis.Code) int {
	return slices.IndexFunc(t.s.Open, func(f Fault) bool { return f.Code == code })
}

// open opens a fault, unless there are too many.
func (t *Tracker) open(m Moment, r diagnosis.Ranked, source Source, rung string) {
	for len(t.opens) > 0 && m.Uptime-t.opens[0] > time.Hour {
		t.opens = t.opens[1:]
	}
	if len(t.s.Open) >= maxOpen || len(t.opens) >= maxPerHour {
		if !t.full {
			t.o.Log.Warn("too many faults, not telling more for now", "code", r.Code, "open", len(t.s.Open))
		}
		t.full = true
		return
	}
	t.full = false
	t.n++
	t.opens = append(t.opens, m.Uptime)
	f := Fault{
		ID:   strconv.FormatUint(t.o.Epoch, 10) + "-" + strconv.Itoa(t.n),
		Code: r.Code, Class: ClassOf(r.Side), Side: r.Side, OrSide: r.OrSide, Severity: r.Severity,
		Source: source, Rung: rung, Opened: m.stamp(), Recurrence: t.recurred(m, r.Code, recurrence), Phase: opening,
	}
	t.s.Past = append(t.s.Past, past{r.Code, f.Opened})
	t.s.Past = slices.Delete(t.s.Past, 0, max(0, len(t.s.Past)-maxPast))
	t.s.Open = append(t.s.Open, f)
	// On flash first: a power cut in between tells it again, with the same id,
	// and never loses it.
	t.save()
	last := &t.s.Open[len(t.s.Open)-1]
	t.publish(last, "state")
	last.Phase = open
	t.save()
	t.o.Log.Info("fault opened", "id", f.ID, "code", f.Code, "class", f.Class)
	if t.o.Opened != nil {
		t.o.Opened(f.Code)
	}
}

// clear clears the fault of an id.
func (t *Tracker) clear(m Moment, id, why string) {
	i := slices.IndexFunc(t.s.Open, func(f Fault) bool { return f.ID == id })
	f := &t.s.Open[i]
	at := m.stamp()
	f.Phase, f.Cleared, f.Why = clearing, &at, why
	t.save()
	t.publish(f, "state")
	t.o.Log.Info("fault cleared", "id", f.ID, "code", f.Code)
	t.s.Open = slices.Delete(t.s.Open, i, i+1)
	t.save()
}

// patience is how long a fault must be gone: longer each time that it came
// again within a day.
func (t *Tracker) patience(m Moment, f Fault) time.Duration {
	d := t.o.ClearAfter
	for range t.recurred(m, f.Code, 24*time.Hour) - 1 { // one is this one
		if d *= 2; d >= longestClear {
			return max(longestClear, t.o.ClearAfter)
		}
	}
	return d
}

// recurred counts the faults of a code that were opened within a time. Of one
// that no clock dates, in an earlier boot, nobody knows how long ago it was: it
// counts, from when a clock is known as if it had just been.
func (t *Tracker) recurred(m Moment, code diagnosis.Code, within time.Duration) int {
	now := m.stamp()
	n := 0
	kept := t.s.Past[:0]
	for _, p := range t.s.Past {
		age, exact := p.At.since(now)
		if !exact && now.Unix != 0 {
			if p.At.Unix == 0 {
				p.At.Unix, p.At.Clock = now.Unix, ClockNone
			} // else the clock went back: as good as just now
			age = 0
		}
		if exact && age > recurrence {
			continue
		}
		kept = append(kept, p)
		if p.Code == code && age <= within {
			n++
		}
	}
	clear(t.s.Past[len(kept):])
	t.s.Past = kept
	return n
}

// save keeps the state. Where flash does not take it the faults are told all the
// same, and it is tried again.
func (t *Tracker) save() {
	t.s.Standing = nil
	if t.o.Standing != nil && len(t.s.Open) > 0 {
		t.s.Standing = t.o.Standing(maxStanding)
	}
	data, err := json.Marshal(t.s)
	if err == nil && len(data) > MaxState {
		t.s.Standing = nil
		data, err = json.Marshal(t.s)
	}
	if err == nil {
		err = t.o.Store.Save(data)
	}
	if err != nil && !t.unsaved {
		t.o.Log.Warn("cannot keep open faults", "error", err)
	}
	t.unsaved, t.tried = err != nil, t.o.Moment().Uptime
}

// again saves what could not be saved.
func (t *Tracker) again(m Moment) {
	if t.unsaved && m.Uptime-t.tried >= retrySave {
		t.save()
	}
}

// publish tells a fault as it is. Where no clock dates it there is no date: its
// deadlines are told by the uptime of the boot in which it was opened.
func (t *Tracker) publish(f *Fault, what string) {
	due := t.o.Limits.Line
	if f.Class == Network {
		due = t.o.Limits.Network
	}
	e := collectors.Event{Type: "fault", Subject: string(f.Code), What: what, Before: "", After: "opened"}
	state := "opened"
	if what == "dated" {
		e.Before = "opened"
	}
	if f.Cleared != nil {
		e.Before, e.After, state = "opened", "cleared", "cleared"
	}
	add := func(key string, value any) { e.Fields = append(e.Fields, collectors.F(key, value)) }
	add("id", f.ID)
	add("state", state)
	add("code", string(f.Code))
	add("fault_class", string(f.Class))
	add("side", string(f.Side))
	if f.OrSide != "" {
		add("or_side", string(f.OrSide))
	}
	add("severity", string(f.Severity))
	add("source", string(f.Source))
	add("opened_clock", f.Opened.Clock)
	add("opened_boot", f.Opened.Boot)
	add("opened_uptime_s", f.Opened.UptimeS)
	add("respond_by_uptime_s", f.Opened.UptimeS+t.o.Limits.Respond.Seconds())
	add("due_uptime_s", f.Opened.UptimeS+due.Seconds())
	if u := f.Opened.Unix; u != 0 {
		add("opened_utc", date(u))
		add("respond_by_utc", date(u+int64(t.o.Limits.Respond/time.Second)))
		add("due_utc", date(u+int64(due/time.Second)))
	}
	add("recurrence", int64(f.Recurrence))
	add("flaps", int64(f.Flaps))
	if c := f.Cleared; c != nil {
		add("cleared_clock", c.Clock)
		if c.Unix != 0 {
			add("cleared_utc", date(c.Unix))
		}
		// What another boot's clock says is no duration.
		if lasted, exact := f.Opened.since(*c); exact {
			add("lasted_s", seconds(lasted))
		} else {
			add("lasted_min_s", seconds(lasted))
		}
		if f.Why != "" {
			add("reason", f.Why)
		}
	}
	t.o.Publish(e)
}

func date(unix int64) string {
	return time.Unix(unix, 0).UTC().Format(time.RFC3339)
}
