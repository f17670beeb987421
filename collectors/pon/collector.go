package pon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"time"

	"ontagent/collectors"
)

// eventQueue is how many events wait for Watch before new ones are dropped.
const eventQueue = 64

// Options configure a Collector.
type Options struct {
	// Readers, best first: the first that knows the state is published.
	Readers []Reader
	// Log may be nil.
	Log *slog.Logger
	// Now is the clock for rates; nil means time.Now. It must carry a
	// monotonic reading.
	Now func() time.Time
}

// Collector is the telemetry group "pon". Collect is called by one goroutine
// at a time; Read and Watch may run beside it.
type Collector struct {
	opts   Options
	log    *slog.Logger
	events chan collectors.Event

	mu    sync.Mutex
	track tracker // guarded by mu
}

var _ collectors.Watcher = (*Collector)(nil)

// New returns a Collector over the given readers.
func New(opts Options) *Collector {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Collector{opts: opts, log: log, events: make(chan collectors.Event, eventQueue)}
}

// Name returns "pon".
func (*Collector) Name() string { return "pon" }

// Collect reads the registration once and returns one sample. The error says
// what could not be read; it is compatible with collectors.ErrNoData if no
// source exists here.
func (c *Collector) Collect(ctx context.Context) ([]collectors.Sample, error) {
	st, err := c.read(ctx, false)
	if errors.Is(err, collectors.ErrNoData) {
		return nil, err
	}
	if ctx.Err() != nil && st.Raw == "" {
		return nil, fmt.Errorf("cannot read PON status: %w", ctx.Err())
	}
	c.mu.Lock()
	events, rates := c.track.update(st)
	c.mu.Unlock()
	for _, ev := range events {
		select {
		case c.events <- ev:
		default:
			c.log.Warn("pon event dropped", "what", ev.What, "before", ev.Before, "after", ev.After)
		}
	}
	return []collectors.Sample{{Fields: fields(st, rates)}}, err
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

// Read reads the registration anew, nothing remembered. The error is as of
// Collect; beside it the Status holds what could be read.
func (c *Collector) Read(ctx context.Context) (Status, error) { return c.read(ctx, true) }

// read asks the readers in turn until one knows the state.
func (c *Collector) read(ctx context.Context, fresh bool) (Status, error) {
	var (
		best  Status
		found bool
		errs  []error
	)
	for _, r := range c.opts.Readers {
		ask := r.ReadPON
		if f, ok := r.(FreshReader); ok && fresh {
			ask = f.ReadPONFresh
		}
		st, err := ask(ctx)
		switch {
		case errors.Is(err, collectors.ErrNoData):
			continue
		case err != nil:
			errs = append(errs, fmt.Errorf("cannot read PON status of %s: %w", r.Name(), err))
		}
		st = c.complete(st, r.Name())
		if !found || (best.Raw == "" && st.Raw != "") {
			best, found = st, true
		}
		if best.Raw != "" || ctx.Err() != nil {
			break
		}
	}
	if !found {
		return c.complete(Status{}, ""), fmt.Errorf("no source of the PON status: %w", collectors.ErrNoData)
	}
	return best, errors.Join(errs...)
}

// complete fills in what a Reader may leave out.
func (c *Collector) complete(st Status, source string) Status {
	if st.State == "" {
		st.State = StateUnknown
		if st.Raw != "" {
			st.State = Normalise(st.Raw)
		}
	}
	if st.OMCIProvisioned == "" {
		st.OMCIProvisioned = Unknown
	}
	if st.Source == "" {
		st.Source = source
	}
	if st.At.IsZero() {
		st.At = c.opts.Now()
	}
	return st
}

// fields flattens a status.
func fields(st Status, rates map[string]float64) []collectors.Field {
	f := make([]collectors.Field, 0, 24)
	text := func(key, v string) {
		if v != "" {
			f = append(f, collectors.F(key, v))
		}
	}
	text("state", st.State)
	text("state_raw", st.Raw)
	text("serial", st.Serial)
	text("omci_provisioned", st.OMCIProvisioned)
	text("omci_evidence", st.OMCIEvidence)
	text("in_service", st.InService())
	if st.FlowsKnown {
		f = append(f, collectors.F("gem_ports", int64(st.GEMPorts)), collectors.F("tconts", int64(st.TConts)))
	}
	text("loid_status", st.LOIDStatus)
	if len(st.AlarmsKnown) > 0 {
		f = append(
			f,
			collectors.F("alarms", strings.Join(st.Alarms, ",")),
			collectors.F("alarms_known", strings.Join(st.AlarmsKnown, ",")),
		)
	}
	names := make([]string, 0, len(st.Counters))
	for name := range st.Counters {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		f = append(f, collectors.F(name, st.Counters[name]))
		if rate, ok := rates[name]; ok {
			f = append(f, collectors.F(name+"_per_s", rate))
		}
	}
	text("source", st.Source)
	return f
}
