package collectors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What a Registry does where its caller did not say.
const (
	DefaultInterval    = time.Minute      // between the starts of two collections
	DefaultTimeout     = 10 * time.Second // for one collection
	DefaultStopTimeout = 5 * time.Second  // for what is stuck when Serve ends
)

const (
	// answerGrace is what a collector gets beyond its timeout, to notice that
	// its context ended and to come back with what it has.
	answerGrace = 250 * time.Millisecond
	// staggerStep spreads the first collections, so that a start does not ask
	// every source at once on a single slow core; staggerMax bounds the sum.
	staggerStep = 50 * time.Millisecond
	staggerMax  = time.Second
	// A source of events that fails is asked again after a random time below a
	// bound that doubles from backoffFirst to backoffMax.
	backoffFirst = 500 * time.Millisecond
	backoffMax   = 30 * time.Second
)

// ErrTimeout is in the error of a collection that had not come back when its
// time was up.
var ErrTimeout = errors.New("did not come back in time")

// A PanicError is what the registry makes of a collector's panic.
type PanicError struct {
	Value any // what was passed to panic
}

// Error implements error.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Sink takes what the collectors of a Registry read. It is called from many
// goroutines at a time and must not block for long: what waits on it is the
// next collection of the same collector, or the next event of the same source.
type Sink interface {
	// Samples takes what one run of a collector read, never an empty list. at
	// is when the run ended.
	Samples(collector string, at time.Time, samples []Sample)
	// Event takes one change.
	Event(e Event)
}

// RegistryOptions configure a Registry. The zero value works.
type RegistryOptions struct {
	// Log takes failures and recoveries; nil discards them.
	Log *slog.Logger
	// Now is the clock, with a monotonic reading; nil means time.Now.
	Now func() time.Time
	// Jitter returns a duration in [0, d); nil means a random one.
	Jitter func(d time.Duration) time.Duration
	// StopTimeout is how long Serve waits for what is stuck; zero means
	// DefaultStopTimeout.
	StopTimeout time.Duration
}

// Registry runs collectors side by side, each at its own pace, so that one that
// hangs, panics or fails never delays another. It is safe for concurrent use.
type Registry struct {
	log         *slog.Logger
	now         func() time.Time
	jitter      func(time.Duration) time.Duration
	stopTimeout time.Duration

	mu      sync.Mutex // guards what follows
	entries []*entry
	serving bool
}

// Health is the state of one collector.
type Health struct {
	Name     string
	Interval time.Duration
	// LastStart is when the latest run began; zero before the first.
	LastStart time.Time
	// LastSuccess is when the latest complete answer came; zero before the
	// first. "No data here" is a complete answer, an answer with an error not.
	LastSuccess time.Time
	// Age is the time since LastSuccess or, before the first, since the first
	// run began.
	Age time.Duration
	// Duration of the latest run that came back.
	Duration time.Duration
	// LastError is empty if the latest run succeeded.
	LastError string
	// NoData reports that the latest answer was ErrNoData.
	NoData bool
	// Stuck reports that a run is past its timeout and has not come back. No
	// other is started until it does.
	Stuck bool

	// Counts since the registry was made. Failures include panics and runs
	// that did not come back in time. Watch counts in none of them but Panics.
	Panics, Runs, Failures uint64

	// Watching reports that a Watcher's Watch is running, WatchError why it
	// last ended on its own, empty once it has held out for 30 s; WatchFailures counts.
	Watching      bool
	WatchError    string
	WatchFailures uint64
}

// Result is what one collector answered to CollectOnce.
type Result struct {
	Collector string
	Samples   []Sample
	// Err is nil, or compatible with errors.Is(err, ErrNoData), ErrTimeout or
	// whatever the collector returned. Samples may come beside it.
	Err      error
	Duration time.Duration
}

// entry is one collector in the registry.
type entry struct {
	collector Collector
	name      string
	interval  time.Duration
	timeout   time.Duration
	// busy holds one token while Collect runs: it is never run twice at once.
	busy chan struct{}

	mu         sync.Mutex // guards what follows
	health     Health
	firstStart time.Time
	watchStart time.Time // meaningful if health.Watching
	inWatch    bool      // the goroutine around Watch has not ended
	inSchedule bool      // the scheduling goroutine has not ended
}

// run is one call of Collect.
type run struct {
	done chan Result // gets the result once, never blocks
	back bool        // guarded by entry.mu: Collect came back and was booked
}

// NewRegistry returns an empty Registry.
func NewRegistry(o RegistryOptions) *Registry {
	r := &Registry{log: o.Log, now: o.Now, jitter: o.Jitter, stopTimeout: o.StopTimeout}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.jitter == nil {
		r.jitter = func(d time.Duration) time.Duration {
			return rand.N(max(d, 1)) //nolint:gosec // spreads retries, guards nothing
		}
	}
	if r.stopTimeout <= 0 {
		r.stopTimeout = DefaultStopTimeout
	}
	return r
}

// Add registers c, to be collected every interval with at most timeout for one
// run. An interval or a timeout that is not positive means DefaultInterval or
// DefaultTimeout; a timeout is never longer than the interval. What is added
// while Serve runs is collected by CollectOnce only.
func (r *Registry) Add(c Collector, interval, timeout time.Duration) {
	if interval <= 0 {
		interval = DefaultInterval
	}
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	e := &entry{
		collector: c,
		name:      c.Name(),
		interval:  interval,
		timeout:   min(timeout, interval),
		busy:      make(chan struct{}, 1),
	}
	e.health = Health{Name: e.name, Interval: interval}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, e)
}

// Serve collects and watches until ctx ends, and returns when every goroutine
// it started has ended: nil then. Collections that are stuck get StopTimeout;
// past it Serve returns an error that names them and leaves them behind, unable
// to reach sink any more. It fails at once if two collectors bear one name or
// if the registry is being served already.
func (r *Registry) Serve(ctx context.Context, sink Sink) error {
	entries, err := r.begin()
	if err != nil {
		return err
	}
	defer func() {
		r.mu.Lock()
		r.serving = false
		r.mu.Unlock()
	}()

	g := &gate{sink: sink}
	defer g.closed.Store(true)
	var wg sync.WaitGroup
	for i, e := range entries {
		e.set(func() { e.inSchedule = true })
		delay := min(time.Duration(i)*staggerStep, staggerMax)
		wg.Go(func() {
			r.schedule(ctx, e, delay, g)
			e.set(func() { e.inSchedule = false })
		})
		if w, ok := e.collector.(Watcher); ok {
			e.set(func() { e.inWatch = true })
			wg.Go(func() {
				r.superviseWatch(ctx, e, w, g)
				e.set(func() { e.inWatch = false })
			})
		}
	}

	<-ctx.Done()
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	timer := time.NewTimer(r.stopTimeout)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-timer.C:
	}
	var left []string
	for _, e := range entries {
		e.set(func() {
			if e.inSchedule {
				left = append(left, e.name+" (collect)")
			}
			if e.inWatch {
				left = append(left, e.name+" (watch)")
			}
		})
	}
	if len(left) == 0 { // they ended while we looked
		return nil
	}
	return fmt.Errorf("cannot stop collectors within %s: %s", r.stopTimeout, strings.Join(left, ", "))
}

// begin marks the registry as served and returns what is registered.
func (r *Registry) begin() ([]*entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.serving {
		return nil, errors.New("cannot serve collectors: already serving")
	}
	names := make(map[string]bool, len(r.entries))
	for _, e := range r.entries {
		if names[e.name] {
			return nil, fmt.Errorf("cannot serve collectors: two are named %q", e.name)
		}
		names[e.name] = true
	}
	r.serving = true
	return append([]*entry(nil), r.entries...), nil
}

// snapshot returns what is registered.
func (r *Registry) snapshot() []*entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*entry(nil), r.entries...)
}

// schedule collects e after delay and then every interval, measured from start
// to start. Times that passed during a run are left out, not made up for.
func (r *Registry) schedule(ctx context.Context, e *entry, delay time.Duration, sink Sink) {
	next := r.now().Add(delay)
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if ctx.Err() != nil {
			return
		}
		res, late := r.collect(ctx, e)
		r.deliver(e, res, sink)
		if late != nil {
			// Stuck: nothing more for this one until it comes back. When ctx has
			// ended Serve bounds the wait.
			r.deliver(e, <-late, sink)
		}
		now := r.now()
		next = next.Add(e.interval)
		if behind := now.Sub(next); behind >= 0 {
			next = now.Add(e.interval - behind%e.interval)
		}
		timer.Reset(next.Sub(now))
	}
}

func (r *Registry) deliver(e *entry, res Result, sink Sink) {
	if len(res.Samples) > 0 {
		sink.Samples(e.name, r.now(), res.Samples)
	}
}

// CollectOnce runs every collector once, side by side, and returns their
// answers in the order in which they were added. It returns when the slowest
// has answered or run out of time; one that hangs is left behind and marked
// stuck. A collector that is already running is waited for, then asked again.
func (r *Registry) CollectOnce(ctx context.Context) []Result {
	entries := r.snapshot()
	results := make([]Result, len(entries))
	var wg sync.WaitGroup
	for i, e := range entries {
		wg.Go(func() { results[i], _ = r.collect(ctx, e) })
	}
	wg.Wait()
	return results
}

// collect runs e once. If the run is not back when its time is up, the result
// says so and late delivers the real one whenever it comes.
func (r *Registry) collect(ctx context.Context, e *entry) (res Result, late <-chan Result) {
	patience := time.NewTimer(e.timeout + answerGrace)
	defer patience.Stop()
	select {
	case e.busy <- struct{}{}:
	case <-ctx.Done():
		return Result{Collector: e.name, Err: fmt.Errorf("cannot collect %s: %w", e.name, ctx.Err())}, nil
	case <-patience.C:
		return Result{Collector: e.name, Err: fmt.Errorf("cannot collect %s: the run before %w", e.name, ErrTimeout)}, nil
	}

	start := r.now()
	e.set(func() {
		e.health.LastStart = start
		e.health.Runs++
		if e.firstStart.IsZero() {
			e.firstStart = start
		}
	})
	one := &run{done: make(chan Result, 1)}
	go func() {
		runCtx, cancel := context.WithTimeout(ctx, e.timeout)
		samples, err := r.guard(runCtx, e)
		cancel()
		res := Result{Collector: e.name, Samples: clean(samples), Err: err, Duration: r.now().Sub(start)}
		r.account(ctx, e, one, &res)
		<-e.busy
		one.done <- res
	}()

	patience.Reset(e.timeout + answerGrace)
	why := ErrTimeout
	select {
	case res = <-one.done:
		return res, nil
	case <-ctx.Done():
		// The collector knows as well: it gets its grace, not its whole timeout.
		why = ctx.Err()
		patience.Reset(answerGrace)
		select {
		case res = <-one.done:
			return res, nil
		case <-patience.C:
		}
	case <-patience.C:
	}
	err := fmt.Errorf("cannot collect %s: %w (after %s)", e.name, why, r.now().Sub(start).Round(time.Millisecond))
	level := slog.LevelWarn
	var back bool
	e.set(func() {
		if back = one.back; back {
			return
		}
		if e.health.LastError != "" {
			level = slog.LevelDebug
		}
		e.health.Stuck = true
		e.health.LastError = err.Error()
	})
	if back { // between the timer and here
		return <-one.done, nil
	}
	r.log.Log(ctx, level, "collector is stuck", "collector", e.name, "timeout", e.timeout)
	return Result{Collector: e.name, Err: err, Duration: r.now().Sub(start)}, one.done
}

// guard calls Collect and turns a panic into an error.
func (r *Registry) guard(ctx context.Context, e *entry) (samples []Sample, err error) {
	defer func() {
		if v := recover(); v != nil {
			r.panicked(e, v, debug.Stack())
			samples, err = nil, &PanicError{Value: v}
		}
	}()
	return e.collector.Collect(ctx)
}

func (r *Registry) panicked(e *entry, v any, stack []byte) {
	e.set(func() { e.health.Panics++ })
	r.log.Error("collector panicked", "collector", e.name, "panic", v, "stack", string(stack))
}

// account books a run that came back and logs what changed. The error gets the
// collector's name.
func (r *Registry) account(ctx context.Context, e *entry, one *run, res *Result) {
	noData := errors.Is(res.Err, ErrNoData)
	if res.Err != nil && !noData {
		res.Err = fmt.Errorf("cannot collect %s: %w", e.name, res.Err)
	}
	now := r.now()
	var failing, stuck bool
	e.set(func() {
		one.back = true
		h := &e.health
		failing, stuck = h.LastError != "", h.Stuck
		h.Duration = res.Duration
		h.Stuck = false
		h.NoData = noData
		switch {
		case res.Err != nil && !noData:
			h.Failures++
			h.LastError = res.Err.Error()
		case stuck: // a good answer, but too late
			h.Failures++
			h.LastSuccess = now
			h.LastError = fmt.Sprintf("cannot collect %s: took %s of %s", e.name, res.Duration.Round(time.Millisecond), e.timeout)
		default:
			h.LastSuccess = now
			h.LastError = ""
		}
	})
	switch {
	case stuck:
		r.log.Warn("stuck collector came back", "collector", e.name, "duration", res.Duration, "error", res.Err)
	case noData:
		r.log.Debug("collector has no data here", "collector", e.name)
	case res.Err == nil && failing:
		r.log.Info("collector recovered", "collector", e.name)
	case res.Err == nil:
	case ctx.Err() != nil || failing:
		r.log.Debug("collector still fails", "collector", e.name, "error", res.Err)
	default:
		r.log.Warn("collector failed", "collector", e.name, "error", res.Err)
	}
}

// superviseWatch keeps w's Watch running until ctx ends.
func (r *Registry) superviseWatch(ctx context.Context, e *entry, w Watcher, sink Sink) {
	bound := backoffFirst
	failing := false
	for {
		start := r.now()
		e.set(func() { e.health.Watching, e.watchStart = true, start })
		err := r.guardWatch(ctx, e, w, sink)
		e.set(func() { e.health.Watching = false })
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		if r.now().Sub(start) >= backoffMax { // it had held out
			bound, failing = backoffFirst, false
		}
		if errors.Is(err, ErrNoData) {
			// Nothing to watch now; there may be later. Not a failure.
			bound = backoffMax
			r.log.Debug("collector has nothing to watch", "collector", e.name)
		} else {
			e.set(func() {
				e.health.WatchFailures++
				e.health.WatchError = err.Error()
			})
			level := slog.LevelWarn
			if failing {
				level = slog.LevelDebug
			}
			failing = true
			r.log.Log(ctx, level, "cannot watch, will try again", "collector", e.name, "error", err)
		}
		timer := time.NewTimer(r.jitter(bound))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		bound = min(2*bound, backoffMax)
	}
}

// guardWatch calls Watch and turns a panic into an error. What Watch emits
// after it returned goes nowhere.
func (r *Registry) guardWatch(ctx context.Context, e *entry, w Watcher, sink Sink) (err error) {
	g := &gate{sink: sink}
	defer g.closed.Store(true)
	defer func() {
		if v := recover(); v != nil {
			r.panicked(e, v, debug.Stack())
			err = &PanicError{Value: v}
		}
	}()
	return w.Watch(ctx, func(ev Event) {
		ev.Fields = finite(ev.Fields)
		g.Event(ev)
	})
}

// Health returns the state of every collector in the order in which they were
// added.
func (r *Registry) Health() []Health {
	now := r.now()
	entries := r.snapshot()
	all := make([]Health, len(entries))
	for i, e := range entries {
		e.set(func() {
			h := e.health
			switch {
			case !h.LastSuccess.IsZero():
				h.Age = now.Sub(h.LastSuccess)
			case !e.firstStart.IsZero():
				h.Age = now.Sub(e.firstStart)
			}
			if h.Watching && now.Sub(e.watchStart) >= backoffMax {
				h.WatchError = ""
			}
			all[i] = h
		})
	}
	return all
}

// HealthSamples returns Health as one Sample per collector, its name as the
// subject: age_s, duration_ms, runs, failures, panics, stuck, no_data, and
// where there is one the last error and the last error of its watch.
func (r *Registry) HealthSamples() []Sample {
	all := r.Health()
	samples := make([]Sample, 0, len(all))
	for _, h := range all {
		s := Sample{Subject: h.Name, Fields: []Field{
			F("age_s", math.Round(h.Age.Seconds()*1000)/1000),
			F("duration_ms", h.Duration.Milliseconds()),
			F("runs", h.Runs),
			F("failures", h.Failures),
			F("panics", h.Panics),
			F("stuck", h.Stuck),
			F("no_data", h.NoData),
		}}
		if h.LastError != "" {
			s.Fields = append(s.Fields, F("error", h.LastError))
		}
		if h.WatchError != "" {
			s.Fields = append(s.Fields, F("watch_error", h.WatchError), F("watch_failures", h.WatchFailures))
		}
		samples = append(samples, s)
	}
	return samples
}

// set runs f with e locked.
func (e *entry) set(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

// clean holds samples to the contract where breaking it would cost all of a
// message: no NaN, no infinity.
func clean(samples []Sample) []Sample {
	for i := range samples {
		samples[i].Fields = finite(samples[i].Fields)
	}
	return samples
}

// finite returns fields without those that JSON cannot say. It copies only if
// there are any.
func finite(fields []Field) []Field {
	bad := func(f Field) bool {
		v, ok := f.Value.(float64)
		return ok && (math.IsNaN(v) || math.IsInf(v, 0))
	}
	for i, f := range fields {
		if !bad(f) {
			continue
		}
		kept := append([]Field(nil), fields[:i]...)
		for _, f := range fields[i+1:] {
			if !bad(f) {
				kept = append(kept, f)
			}
		}
		return kept
	}
	return fields
}

// gate passes calls on to a sink until it is closed.
type gate struct {
	sink   Sink
	closed atomic.Bool
}

func (g *gate) Samples(collector string, at time.Time, samples []Sample) {
	if !g.closed.Load() {
		g.sink.Samples(collector, at, samples)
	}
}

func (g *gate) Event(e Event) {
	if !g.closed.Load() {
		g.sink.Event(e)
	}
}
