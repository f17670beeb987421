package optics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"ontagent/collectors"
)

// Defaults of Options.
const (
	DefaultDisagreementDB = 3.0   // the accuracy of digital diagnostics
	DefaultStepDB         = 3.0   // design: a fall of 3 dB is an event
	DefaultRxMinDBm       = -25.0 // norms: optical.rx_min_dbm
	DefaultRxMaxDBm       = -8.0  // norms: optical.rx_max_dbm
)

// hysteresisDB is how far the level must come back inside a limit before it
// counts as normal again: a reading that flickers by a few tenths is not news.
const hysteresisDB = 0.5

// darkDBm is the level below which one source may see light where another
// sees none: hwmon counts whole microwatts and reads 0 there.
const darkDBm = -30.0

// eventQueue is how many events wait for Watch before new ones are dropped.
const eventQueue = 64

// Options configure a Collector.
type Options struct {
	// Readers, best first. The others are read as a cross-check.
	Readers []Reader
	// Log may be nil.
	Log *slog.Logger
	// DisagreementDB is the difference in dB from which two sources disagree.
	// 0 means DefaultDisagreementDB.
	DisagreementDB float64
	// StepDB is the change in dB between settled levels that is an event. 0
	// means DefaultStepDB.
	StepDB float64
	// RxMinDBm and RxMaxDBm bound the normal receive level; at or below the
	// first and above the second an event is sent. Both 0 means the defaults.
	RxMinDBm, RxMaxDBm float64
	// Class is the optical class of the line; nil means unknown.
	Class *Class
	// Now is the clock that days are counted by; nil means time.Now. It must
	// carry a monotonic reading.
	Now func() time.Time
}

// Collector is the telemetry group "optics". Collect is called by one
// goroutine at a time; Read and Watch may run beside it.
type Collector struct {
	opts   Options
	log    *slog.Logger
	events chan collectors.Event

	mu    sync.Mutex
	track tracker // guarded by mu
	store Store   // guarded by mu; nil: the baseline is forgotten at the end
}

var _ collectors.Watcher = (*Collector)(nil)

// New returns a Collector over the given readers.
func New(opts Options) *Collector {
	if opts.DisagreementDB == 0 {
		opts.DisagreementDB = DefaultDisagreementDB
	}
	if opts.StepDB == 0 {
		opts.StepDB = DefaultStepDB
	}
	if opts.RxMinDBm == 0 && opts.RxMaxDBm == 0 {
		opts.RxMinDBm, opts.RxMaxDBm = DefaultRxMinDBm, DefaultRxMaxDBm
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Collector{
		opts:   opts,
		log:    log,
		events: make(chan collectors.Event, eventQueue),
	}
}

// Keep makes the collector go on with the baseline in store, and save it there
// about once a day. Who only looks must not call it. What cannot be read is
// logged, and begun anew.
func (c *Collector) Keep(store Store) {
	data, err := store.Load()
	var h history
	if err == nil && len(data) > 0 {
		h, err = parseHistory(data)
	}
	if err != nil {
		c.log.Warn("optical baseline is lost", "error", err)
		h = history{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store = store
	c.track.memory.history = h
}

// Name returns "optics".
func (*Collector) Name() string { return "optics" }

// Collect reads all sources and returns one sample. The error says which
// sources could not be read, also when another one could; it is compatible
// with collectors.ErrNoData if none of them exists here.
func (c *Collector) Collect(ctx context.Context) ([]collectors.Sample, error) {
	got, err := c.read(ctx, false)
	c.mu.Lock()
	c.send(c.track.plugged(got))
	c.mu.Unlock()
	if errors.Is(err, collectors.ErrNoData) {
		return nil, err
	}
	best, others := got.best, got.others
	if ctx.Err() != nil && best.RxPower.Status != collectors.StatusOK && best.RxPower.Status != collectors.StatusNoLight {
		return nil, fmt.Errorf("cannot read optics: %w", ctx.Err())
	}
	check := c.compare(best, others)
	best = complete(best, others)
	return []collectors.Sample{{Fields: c.judge(best, check)}}, err
}

// judge says what a reading is worth and what it changes.
func (c *Collector) judge(r Reading, check crossCheck) []collectors.Field {
	c.mu.Lock()
	defer c.mu.Unlock()
	events, save := c.track.memory.take(c.opts, c.opts.Now(), r)
	c.send(events)
	var j Judgement
	f := fields(r, check)
	if r.RxPower.OK() {
		b := Budget{MinDBm: c.opts.RxMinDBm, MaxDBm: c.opts.RxMaxDBm, Class: c.opts.Class, Module: r.Thresholds}
		settled := b.judge(r, c.track.was)
		j = b.Judge(r)
		f = append(f, collectors.F("rx_level", j.Level), collectors.F("rx_margin_db", j.MarginDB), collectors.F("rx_accuracy_db", AccuracyDB))
		if j.ReceiverKnown {
			f = append(f, collectors.F("rx_receiver_margin_db", j.ReceiverMarginDB), collectors.F("rx_beyond", strings.Join(j.Beyond, ",")))
		}
		j = settled
		if base, differ, ok := c.track.memory.against(r); ok {
			f = append(f, collectors.F("rx_baseline_dbm", base), collectors.F("rx_baseline_difference_db", differ))
		}
	}
	if h := &c.track.memory.history; len(h.First) == firstDays {
		f = append(f, collectors.F("rx_trend", h.Trend), collectors.F("laser", h.Laser))
	}
	c.send(c.track.update(c.opts, r, j, check))
	if save {
		c.save()
	}
	return f
}

// save stores the history. One that could not be saved is saved a day later,
// whole.
func (c *Collector) save() {
	if c.store == nil {
		return
	}
	data, err := json.Marshal(c.track.memory.history)
	if err == nil {
		err = c.store.Save(data)
	}
	if err != nil {
		c.log.Warn("optical baseline was not saved", "error", err)
	}
}

// send queues events for Watch; what does not fit is dropped, and said to be.
func (c *Collector) send(events []collectors.Event) {
	for _, ev := range events {
		select {
		case c.events <- ev:
		default:
			c.log.Warn("optics event dropped", "what", ev.What, "before", ev.Before, "after", ev.After)
		}
	}
}

// Watch hands events found by Collect to emit until ctx ends. Events found
// before it was called are kept, up to a bound. There is one Watch at a time.
func (c *Collector) Watch(ctx context.Context, emit func(collectors.Event)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev := <-c.events:
			emit(ev)
		}
	}
}

// Read reads all sources anew, nothing remembered, and returns the best
// reading and the others for comparison. The error is as of Collect; the best
// reading is the zero Reading only if no source exists.
func (c *Collector) Read(ctx context.Context) (Reading, []Reading, error) {
	got, err := c.read(ctx, true)
	return got.best, got.others, err
}

// round is what all readers said once.
type round struct {
	best   Reading
	others []Reading
	absent []string // names of readers that have nothing to read
}

// read asks every reader in turn, in the caller's goroutine: a panic in one is
// the caller's to isolate.
func (c *Collector) read(ctx context.Context, fresh bool) (round, error) {
	var (
		out  round
		got  []Reading
		errs []error
	)
	for _, r := range c.opts.Readers {
		if ctx.Err() != nil && len(got) > 0 {
			errs = append(errs, fmt.Errorf("cannot read optics of %s: %w", r.Name(), ctx.Err()))
			break
		}
		ask := r.ReadOptics
		if f, ok := r.(FreshReader); ok && fresh {
			ask = f.ReadOpticsFresh
		}
		reading, err := ask(ctx)
		switch {
		case errors.Is(err, collectors.ErrNoData):
			out.absent = append(out.absent, r.Name())
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("cannot read optics of %s: %w", r.Name(), err))
			if reading.RxPower.Status == "" {
				reading = Unread(r.Name(), collectors.StatusError)
			}
		}
		got = append(got, reading)
	}
	if len(got) == 0 {
		return out, fmt.Errorf("no optical source: %w", collectors.ErrNoData)
	}
	best := choose(got)
	out.best = got[best]
	for i, r := range got {
		if i != best {
			out.others = append(out.others, r)
		}
	}
	return out, errors.Join(errs...)
}

// complete fills in the quantities, other than the received power, that the
// best reading cannot tell, from the next one that can. Each keeps the name of
// its own source.
func complete(best Reading, others []Reading) Reading {
	for _, o := range others {
		for _, q := range []struct{ to, from *collectors.Reading }{
			{&best.TxPower, &o.TxPower},
			{&best.Bias, &o.Bias},
			{&best.Temperature, &o.Temperature},
			{&best.Voltage, &o.Voltage},
		} {
			told := q.to.OK() || q.to.Status == collectors.StatusNoLight
			if !told && len(best.Lanes) == 0 && (q.from.OK() || q.from.Status == collectors.StatusNoLight) {
				*q.to = *q.from
			}
		}
	}
	return best
}

// choose returns the index of the reading to publish: the first that knows
// the received power, else the first that should have.
func choose(readings []Reading) int {
	rank := func(s collectors.Status) int {
		switch s {
		case collectors.StatusOK, collectors.StatusNoLight:
			return 0
		case collectors.StatusUntrusted:
			return 1
		case collectors.StatusError:
			return 2
		case collectors.StatusUnsupported:
			return 3
		}
		return 4
	}
	best := 0
	for i, r := range readings {
		if rank(r.RxPower.Status) < rank(readings[best].RxPower.Status) {
			best = i
		}
	}
	return best
}

// crossCheck is the comparison of the best reading with one other.
type crossCheck struct {
	known      bool // there was something to compare
	disagree   bool
	source     string
	status     collectors.Status
	powerDBm   float64 // of the other source, if status is ok
	differDB   float64 // if both are ok
	comparable bool    // differDB is meaningful
}

// compare returns the first disagreement, else the first agreement.
func (c *Collector) compare(best Reading, others []Reading) crossCheck {
	var out crossCheck
	for _, o := range others {
		x := crossCheck{known: true, source: o.Source, status: o.RxPower.Status}
		switch a, b := best.RxPower, o.RxPower; {
		case a.OK() && b.OK():
			x.powerDBm, x.comparable = b.Value, true
			x.differDB = math.Abs(a.Value - b.Value)
			x.disagree = apart(&best, &o) > c.opts.DisagreementDB
		case a.OK() && b.Status == collectors.StatusNoLight:
			x.disagree = a.Value > darkDBm
		case a.Status == collectors.StatusNoLight && b.OK():
			x.powerDBm = b.Value
			x.disagree = b.Value > darkDBm
		case a.Status == collectors.StatusNoLight && b.Status == collectors.StatusNoLight:
		default:
			continue // one of them does not know: nothing to compare
		}
		if x.disagree {
			return x
		}
		if !out.known {
			out = x
		}
	}
	return out
}

// apart is by how many dB two received powers differ at least, given the
// resolution of both: 1 uW may be anything between 0.5 and 1.5.
func apart(a, b *Reading) float64 {
	bounds := func(r *Reading) (least, most float64) {
		microwatts := 1000 * math.Pow(10, r.RxPower.Value/10)
		dBm := func(uW float64) float64 { return 10 * math.Log10(max(uW, 1e-4)/1000) }
		return dBm(microwatts - r.ResolutionMicrowatts/2), dBm(microwatts + r.ResolutionMicrowatts/2)
	}
	leastA, mostA := bounds(a)
	leastB, mostB := bounds(b)
	return max(0, leastA-mostB, leastB-mostA)
}

// fields flattens a reading.
func fields(r Reading, check crossCheck) []collectors.Field {
	f := make([]collectors.Field, 0, 24)
	quantity := func(key, unit string, q collectors.Reading) {
		if q.Status == "" {
			return
		}
		if q.OK() {
			f = append(f, collectors.F(key+unit, q.Value))
		}
		f = append(f, collectors.F(key+"_status", string(q.Status)))
		if unit != "_dbm" && q.Source != "" && q.Source != r.Source {
			f = append(f, collectors.F(key+"_source", q.Source))
		}
	}
	power := func(key string, q collectors.Reading) {
		quantity(key, "_dbm", q)
		if q.Source != "" {
			f = append(f, collectors.F(key+"_source", q.Source))
		}
		if q.Raw != "" {
			f = append(f, collectors.F(key+"_raw", q.Raw))
		}
	}
	power("rx_power", r.RxPower)
	if r.ResolutionMicrowatts > 0 {
		f = append(f, collectors.F("rx_power_resolution_uw", r.ResolutionMicrowatts))
	}
	if r.RxLOSKnown {
		f = append(f, collectors.F("rx_los", r.RxLOS))
	}
	power("tx_power", r.TxPower)
	quantity("bias", "_ma", r.Bias)
	quantity("temperature", "_celsius", r.Temperature)
	quantity("voltage", "_v", r.Voltage)
	if len(r.Lanes) > 0 {
		f = append(f, lanes(r)...)
	}
	if r.AlarmsKnown {
		f = append(f, collectors.F("alarms", strings.Join(r.Alarms, ",")))
	}
	if r.WarningsKnown {
		f = append(f, collectors.F("warnings", strings.Join(r.Warnings, ",")))
	}
	if t := r.Thresholds; t != nil {
		limit := func(key string, l Limit) {
			if l.Known {
				f = append(f, collectors.F(key, l.Value))
			}
		}
		limit("rx_alarm_low_dbm", t.RxPower.AlarmLow)
		limit("rx_warn_low_dbm", t.RxPower.WarnLow)
		limit("rx_warn_high_dbm", t.RxPower.WarnHigh)
		limit("rx_alarm_high_dbm", t.RxPower.AlarmHigh)
	}
	if check.known {
		word := agree
		if check.disagree {
			word = disagree
		}
		f = append(
			f,
			collectors.F("cross_check", word),
			collectors.F("cross_check_source", check.source),
			collectors.F("cross_check_status", string(check.status)),
		)
		if check.status == collectors.StatusOK {
			f = append(f, collectors.F("cross_check_rx_power_dbm", check.powerDBm))
		}
		if check.comparable {
			f = append(f, collectors.F("cross_check_difference_db", check.differDB))
		}
	}
	return f
}

// lanes flattens the lanes of a transceiver that has several.
func lanes(r Reading) []collectors.Field {
	f := []collectors.Field{collectors.F("lanes", int64(len(r.Lanes)))}
	if status := r.LanesStatus(); status != "" {
		f = append(f, collectors.F("lanes_status", string(status)))
	}
	for i, l := range r.Lanes {
		prefix := "lane" + strconv.Itoa(i+1) + "_"
		for _, q := range []struct {
			key string
			r   collectors.Reading
		}{{"rx_power_dbm", l.RxPower}, {"tx_power_dbm", l.TxPower}, {"bias_ma", l.Bias}} {
			if q.r.OK() {
				f = append(f, collectors.F(prefix+q.key, q.r.Value))
			}
		}
		f = append(f, collectors.F(prefix+"rx_power_status", string(l.RxPower.Status)))
	}
	return f
}
