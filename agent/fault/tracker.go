package fault

import (
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"ontagent/agent/diagnosis"
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
	// Load decodes what was saved last into v and has check look at it. It
	// returns false if nothing was saved, or nothing that can be used: that it
	// puts aside, and tells of.
	Load(v any, check func() error) bool
	// Save replaces it, for good.
	Save(v any) error
}

// Options configure a Tracker. Store, Publish, Moment and Log are needed.
type Options struct {
	Store Store
	// Publish takes the bodies of event/fault. It returns when they can't be
	// lost.
	Publish func(Event)
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
	watched []*watch
	n       int // faults opened since the start
	opens   []time.Duration
	unsaved bool // flash did not take the last state
	tried   time.Duration
	full    bool // it was logged that the bounds hold a fault back
}

// state is what is kept.
type state struct {
	Version  int                   `json:"v"`
	Open     []*Fault              `json:"open"`
	Past     []*past               `json:"past"` // faults opened, oldest first
	Standing []diagnosis.Happening `json:"standing,omitempty"`
}

// past is a fault that was opened once.
type past struct {
	Code diagnosis.Code `json:"code"`
	At   Stamp          `json:"at"`
}

const stateVersion = 1

// MaxState bounds what a Store is given, in bytes.
const MaxState = 64 << 10

// watch is a cause that telemetry shows, or showed not long ago.
type watch struct {
	code  diagnosis.Code
	now   bool            // it is shown by the diagnosis that is looked at
	shown bool            // it was shown last
	since time.Duration   // it is shown, or not
	came  []time.Duration // the last times it came, up to flapTimes
}

// Open returns a Tracker that goes on with what is kept. What a power cut kept
// from being told is told now.
func Open(o Options) *Tracker {
	if o.Debounce == 0 {
		o.Debounce = DefaultDebounce
	}
	if o.ClearAfter == 0 {
		o.ClearAfter = DefaultClearAfter
	}
	t := &Tracker{o: o}
	if !o.Store.Load(&t.s, t.s.check) {
		t.s = state{Version: stateVersion}
	}
	now := o.Moment().Uptime
	kept := t.s.Open
	t.s.Open = nil
	told := true
	for _, f := range kept {
		if f.Phase != open {
			t.publish(f, "state")
			told = false
		}
		if f.Phase == clearing {
			continue
		}
		f.Phase = open
		t.s.Open = append(t.s.Open, f)
		if f.Source == Telemetry {
			// It is shown until telemetry says otherwise.
			t.watched = append(t.watched, &watch{code: f.Code, shown: true, since: now})
		}
	}
	if !told {
		t.save()
	}
	return t
}

var errState = errors.New("these are no faults that were saved")

// check refuses whatever could not have been saved.
func (s *state) check() error {
	if s.Version != stateVersion || len(s.Open) > maxOpen || len(s.Past) > maxPast || len(s.Standing) > maxStanding {
		return errState
	}
	for i, f := range s.Open {
		if f == nil || f.ID == "" || f.Code == "" || f.Phase == clearing && f.Cleared == nil ||
			f.Phase != opening && f.Phase != open && f.Phase != clearing {
			return errState
		}
		for _, other := range s.Open[:i] {
			if other.Code == f.Code {
				return errState
			}
		}
	}
	for _, p := range s.Past {
		if p == nil {
			return errState
		}
	}
	return nil
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
	return t.s.Standing
}

// Faults returns those that are open, oldest first.
func (t *Tracker) Faults() []Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Fault, 0, len(t.s.Open))
	for _, f := range t.s.Open {
		all = append(all, *f)
	}
	return all
}

// counts reports whether a cause is a fault: something that failed, known well
// enough, and that keeps the line from meeting the norm.
func counts(r *diagnosis.Ranked) bool {
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
	for _, w := range t.watched {
		w.now = false
	}
	for i := range d.Causes {
		if r := &d.Causes[i]; counts(r) {
			t.appears(&m, r.Code)
		}
	}
	for i := range d.Consequences {
		// What is open stays open while it is there, whatever else is found to
		// be behind it.
		if code := d.Consequences[i].Code; t.find(code) != nil {
			t.appears(&m, code)
		}
	}
	kept := t.watched[:0]
	for _, w := range t.watched {
		if w.shown && !w.now {
			w.shown, w.since = false, m.Uptime
		}
		if w.shown || m.Uptime-w.since <= flapWindow || t.find(w.code) != nil {
			kept = append(kept, w)
		}
	}
	t.watched = kept
	for i := range d.Causes { // in the order of the diagnosis
		r := &d.Causes[i]
		if w := t.watch(r.Code); w != nil && w.now && counts(r) && t.find(r.Code) == nil && (m.Uptime-w.since >= t.o.Debounce || w.flaps(m.Uptime)) {
			t.open(&m, r, Telemetry)
		}
	}
	for n := len(t.s.Open); n > 0; n-- {
		i := n - 1
		f := t.s.Open[i]
		w := t.watch(f.Code)
		if f.Source == Telemetry && (w == nil || !w.shown && m.Uptime-w.since >= t.patience(&m, f.Code)) {
			t.clear(&m, i, "")
		}
	}
	t.again(&m)
}

func (t *Tracker) watch(code diagnosis.Code) *watch {
	for _, w := range t.watched {
		if w.code == code {
			return w
		}
	}
	return nil
}

// appears notes that telemetry shows a cause.
func (t *Tracker) appears(m *Moment, code diagnosis.Code) {
	w := t.watch(code)
	if w == nil {
		if len(t.watched) >= maxWatched {
			return
		}
		w = &watch{code: code}
		t.watched = append(t.watched, w)
	} else if f := t.find(code); f != nil && !w.shown {
		f.Flaps++
	}
	w.now = true
	if w.shown {
		return
	}
	w.shown, w.since = true, m.Uptime
	if w.came = append(w.came, m.Uptime); len(w.came) > flapTimes {
		w.came = w.came[1:]
	}
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
	for i := range d.Causes {
		if r := &d.Causes[i]; counts(r) && t.find(r.Code) == nil {
			t.open(&m, r, Inspection)
		}
	}
	for n := len(t.s.Open); n > 0; n-- {
		i := n - 1
		f := t.s.Open[i]
		gone := false
		for _, rung := range passed {
			gone = gone || rung == f.Rung
		}
		for k := range d.Causes {
			gone = gone && (d.Causes[k].Code != f.Code || !counts(&d.Causes[k]))
		}
		for k := range d.Consequences {
			gone = gone && d.Consequences[k].Code != f.Code
		}
		if gone && f.Source == Inspection {
			t.clear(&m, i, "")
		}
	}
	t.again(&m)
}

// Waiting reports whether a fault is open that only another inspection clears.
func (t *Tracker) Waiting() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.s.Open {
		if f.Source == Inspection {
			return true
		}
	}
	return false
}

// ClockSet dates what was opened while no clock could be relied on, or by a
// clock that was wrong, and tells that.
func (t *Tracker) ClockSet() {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.o.Moment()
	changed := false
	for _, f := range t.s.Open {
		if f.Opened.date(&m) {
			t.publish(f, "dated")
			changed = true
		}
	}
	for _, p := range t.s.Past {
		p.At.date(&m) // kept with the next change
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
	for n := len(t.s.Open); n > 0; n-- {
		t.clear(&m, n-1, "new_line")
	}
	t.watched = nil
	if len(t.s.Past) > 0 {
		t.s.Past = nil
		t.save()
	}
}

// find returns the open fault of a code; nil: there is none.
func (t *Tracker) find(code diagnosis.Code) *Fault {
	for _, f := range t.s.Open {
		if f.Code == code {
			return f
		}
	}
	return nil
}

// open opens a fault, unless there are too many.
func (t *Tracker) open(m *Moment, r *diagnosis.Ranked, source Source) {
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
	rung := ""
	if source == Inspection && len(r.For) > 0 {
		rung = r.For[0].Rung
	}
	id := strconv.FormatUint(t.o.Epoch, 10) + "-" + strconv.Itoa(t.n)
	class, at, again := ClassOf(r.Side), m.stamp(), t.recurred(m, r.Code, recurrence)
	f := &Fault{Opened: at, Phase: opening, Rung: rung, Told: Told{
		ID: id, Code: r.Code, Class: class, Side: r.Side, OrSide: r.OrSide, Severity: r.Severity, Source: source, Recurrence: again,
	}}
	if t.s.Past = append(t.s.Past, &past{Code: r.Code, At: at}); len(t.s.Past) > maxPast {
		t.s.Past = t.s.Past[1:]
	}
	t.s.Open = append(t.s.Open, f)
	// On flash first: a power cut in between tells it again, with the same id,
	// and never loses it.
	t.save()
	t.publish(f, "state")
	f.Phase = open
	t.save()
	t.o.Log.Info("fault opened", "id", f.ID, "code", f.Code)
	if t.o.Opened != nil {
		t.o.Opened(f.Code)
	}
}

// clear clears the fault at a place.
func (t *Tracker) clear(m *Moment, i int, why string) {
	f := t.s.Open[i]
	at := m.stamp()
	f.Phase, f.Cleared, f.Why = clearing, &at, why
	t.save()
	t.publish(f, "state")
	t.o.Log.Info("fault cleared", "id", f.ID, "code", f.Code)
	t.s.Open = append(t.s.Open[:i], t.s.Open[i+1:]...)
	t.save()
}

// patience is how long a fault must be gone: longer each time that it came
// again within a day.
func (t *Tracker) patience(m *Moment, code diagnosis.Code) time.Duration {
	d := t.o.ClearAfter
	for n := t.recurred(m, code, 24*time.Hour); n > 1 && d < longestClear; n-- { // one is this one
		d *= 2
	}
	return min(d, max(longestClear, t.o.ClearAfter))
}

// recurred counts the faults of a code that were opened within a time. Of one
// that no clock dates, in an earlier boot, nobody knows how long ago it was: it
// counts, from when a clock is known as if it had just been.
func (t *Tracker) recurred(m *Moment, code diagnosis.Code, within time.Duration) int {
	now := m.stamp()
	n := 0
	kept := t.s.Past[:0]
	for _, p := range t.s.Past {
		age, exact := p.At.since(&now)
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
	err := t.o.Store.Save(&t.s)
	if err != nil && !t.unsaved {
		t.o.Log.Warn("cannot keep open faults", "error", err)
	}
	t.unsaved, t.tried = err != nil, t.o.Moment().Uptime
}

// again saves what could not be saved.
func (t *Tracker) again(m *Moment) {
	if t.unsaved && m.Uptime-t.tried >= retrySave {
		t.save()
	}
}

// Event is the body of event/fault: a fault as it is.
type Event struct {
	Subject string `json:"subject"` // the code
	What    string `json:"what"`    // "state", or "dated": it is known now when it opened
	Before  string `json:"before"`
	After   string `json:"after"`
	State   string `json:"state"` // opened, cleared
	Told

	OpenedClock      string  `json:"opened_clock"`
	OpenedBoot       string  `json:"opened_boot"`
	OpenedUptimeS    float64 `json:"opened_uptime_s"`
	RespondByUptimeS float64 `json:"respond_by_uptime_s"`
	DueUptimeS       float64 `json:"due_uptime_s"`
	OpenedUTC        string  `json:"opened_utc,omitempty"`
	RespondByUTC     string  `json:"respond_by_utc,omitempty"`
	DueUTC           string  `json:"due_utc,omitempty"`

	ClearedClock string   `json:"cleared_clock,omitempty"`
	ClearedUTC   string   `json:"cleared_utc,omitempty"`
	LastedS      *float64 `json:"lasted_s,omitempty"`
	LastedMinS   *float64 `json:"lasted_min_s,omitempty"`
	Reason       string   `json:"reason,omitempty"`
}

// publish tells a fault as it is. Where no clock dates it there is no date: its
// deadlines are told by the uptime of the boot in which it was opened.
func (t *Tracker) publish(f *Fault, what string) {
	due := t.o.Limits.Line
	if f.Class == Network {
		due = t.o.Limits.Network
	}
	respond, at := t.o.Limits.Respond, &f.Opened
	e := Event{
		Subject: string(f.Code), What: what, After: "opened", State: "opened", Told: f.Told,
		OpenedClock: at.Clock, OpenedBoot: at.Boot, OpenedUptimeS: at.UptimeS,
		RespondByUptimeS: at.UptimeS + respond.Seconds(), DueUptimeS: at.UptimeS + due.Seconds(),
		OpenedUTC: at.text(0), RespondByUTC: at.text(respond), DueUTC: at.text(due),
	}
	if what == "dated" {
		e.Before = e.After
	}
	if c := f.Cleared; c != nil {
		e.Before, e.After, e.State = e.After, "cleared", "cleared"
		e.ClearedClock, e.ClearedUTC, e.Reason = c.Clock, c.text(0), f.Why
		// What another boot's clock says is no duration.
		lasted, exact := at.since(c)
		s := seconds(lasted)
		if exact {
			e.LastedS = &s
		} else {
			e.LastedMinS = &s
		}
	}
	t.o.Publish(e)
}
