package collectors_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/collectors"
)

// fake is a collector made of functions.
type fake struct {
	name    string
	collect func(ctx context.Context) ([]collectors.Sample, error)
}

func (f *fake) Name() string { return f.name }

func (f *fake) Collect(ctx context.Context) ([]collectors.Sample, error) {
	if f.collect == nil {
		return sample("v", int64(1)), nil
	}
	return f.collect(ctx)
}

// fakeWatcher watches besides.
type fakeWatcher struct {
	fake
	watch func(ctx context.Context, emit func(collectors.Event)) error
}

func (f *fakeWatcher) Watch(ctx context.Context, emit func(collectors.Event)) error {
	return f.watch(ctx, emit)
}

func sample(key string, value any) []collectors.Sample {
	return []collectors.Sample{{Fields: []collectors.Field{collectors.F(key, value)}}}
}

// sink keeps what it gets.
type sink struct {
	mu      sync.Mutex
	start   time.Time
	samples map[string][]time.Duration // when, since start
	last    map[string][]collectors.Sample
	events  []collectors.Event
}

func newSink() *sink {
	return &sink{start: time.Now(), samples: map[string][]time.Duration{}, last: map[string][]collectors.Sample{}}
}

func (s *sink) Samples(name string, at time.Time, samples []collectors.Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples[name] = append(s.samples[name], at.Sub(s.start))
	s.last[name] = samples
}

func (s *sink) Event(e collectors.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *sink) times(name string) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Duration(nil), s.samples[name]...)
}

// serve starts Serve and returns a function that ends it and returns its error.
func serve(t *testing.T, r *collectors.Registry, s collectors.Sink) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, s) }()
	return func() error {
		cancel()
		return <-done
	}
}

func health(t *testing.T, r *collectors.Registry, name string) collectors.Health {
	t.Helper()
	for _, h := range r.Health() {
		if h.Name == name {
			return h
		}
	}
	t.Fatalf("no health of %q", name)
	return collectors.Health{}
}

func logTo(w *bytes.Buffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestServeCollectsAtStartThenAtEachInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s := collectors.NewRegistry(collectors.RegistryOptions{}), newSink()
		r.Add(&fake{name: "a"}, 10*time.Second, time.Second)
		// The second takes 3 s of each interval: starts keep their pace.
		r.Add(&fake{name: "b", collect: func(context.Context) ([]collectors.Sample, error) {
			time.Sleep(3 * time.Second)
			return sample("v", int64(1)), nil
		}}, 10*time.Second, 5*time.Second)
		stop := serve(t, r, s)
		time.Sleep(25 * time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		want := map[string][]time.Duration{
			"a": {0, 10 * time.Second, 20 * time.Second},
			"b": {3050 * time.Millisecond, 13050 * time.Millisecond, 23050 * time.Millisecond},
		}
		if d := cmp.Diff(want, s.samples); d != "" {
			t.Errorf("times of samples (-want +got):\n%s", d)
		}
	})
}

func TestServeLeavesOutTimesThatPassedDuringARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s := collectors.NewRegistry(collectors.RegistryOptions{}), newSink()
		first := true
		r.Add(&fake{name: "slow", collect: func(context.Context) ([]collectors.Sample, error) {
			if first {
				first = false
				time.Sleep(25 * time.Second) // deaf to its context
			}
			return sample("v", int64(1)), nil
		}}, 10*time.Second, 2*time.Second)
		stop := serve(t, r, s)
		time.Sleep(45 * time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		// The late answer is delivered; then the grid of the start goes on.
		want := []time.Duration{25 * time.Second, 30 * time.Second, 40 * time.Second}
		if d := cmp.Diff(want, s.times("slow")); d != "" {
			t.Errorf("times of samples (-want +got):\n%s", d)
		}
	})
}

func TestHungCollectorIsMarkedAndDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r, s := collectors.NewRegistry(collectors.RegistryOptions{Log: logTo(&log)}), newSink()
		release := make(chan struct{})
		var running atomic.Int32
		r.Add(&fake{name: "hung", collect: func(context.Context) ([]collectors.Sample, error) {
			if n := running.Add(1); n > 1 {
				t.Errorf("%d runs at once", n)
			}
			defer running.Add(-1)
			<-release
			return sample("v", int64(1)), nil
		}}, 10*time.Second, 2*time.Second)
		r.Add(&fake{name: "well"}, time.Second, time.Second)
		stop := serve(t, r, s)

		time.Sleep(60*time.Second + time.Millisecond)
		h := health(t, r, "hung")
		if !h.Stuck || h.Runs != 1 || !strings.Contains(h.LastError, "did not come back") {
			t.Errorf("while it hangs: %+v", h)
		}
		if got, want := h.Age, 60*time.Second+time.Millisecond; got != want {
			t.Errorf("age %s, want %s", got, want)
		}
		if got := len(s.times("well")); got != 60 {
			t.Errorf("%d samples of the other in 60 s, want 60", got)
		}

		close(release)
		synctest.Wait()
		h = health(t, r, "hung")
		if h.Stuck || h.Failures != 1 || h.LastError == "" {
			t.Errorf("just back: %+v", h)
		}
		time.Sleep(10 * time.Second)
		h = health(t, r, "hung")
		if h.Stuck || h.LastError != "" || h.Runs != 2 {
			t.Errorf("recovered: %+v", h)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestPanicBecomesAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r, s := collectors.NewRegistry(collectors.RegistryOptions{Log: logTo(&log)}), newSink()
		r.Add(&fake{name: "bad", collect: func(context.Context) ([]collectors.Sample, error) {
			var none []collectors.Sample
			return none[:1], nil
		}}, 10*time.Second, time.Second)
		r.Add(&fake{name: "well"}, 10*time.Second, time.Second)
		stop := serve(t, r, s)
		time.Sleep(25 * time.Second)
		h := health(t, r, "bad")
		if h.Panics != 3 || h.Failures != 3 || h.Runs != 3 || !strings.Contains(h.LastError, "cannot collect bad: panic: ") {
			t.Errorf("health: %+v", h)
		}
		if len(s.times("well")) != 3 {
			t.Errorf("the other gave %d samples, want 3", len(s.times("well")))
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "registry_test.go") {
			t.Errorf("no stack at level error in the log:\n%s", log.String())
		}
		res := r.CollectOnce(t.Context())
		if _, ok := errors.AsType[*collectors.PanicError](res[0].Err); !ok {
			t.Errorf("error of CollectOnce is %v, want a PanicError in it", res[0].Err)
		}
	})
}

func TestOutcomesAndTheirLog(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name    string
		samples []collectors.Sample
		errs    []error // of the runs, in turn
		want    collectors.Health
		levels  []string
	}{
		{
			name: "NoData", errs: []error{collectors.ErrNoData, fmt.Errorf("no cage: %w", collectors.ErrNoData)},
			want: collectors.Health{Runs: 2, NoData: true}, levels: []string{"DEBUG", "DEBUG"},
		},
		{
			name: "Failure", errs: []error{boom, boom},
			want:   collectors.Health{Runs: 2, Failures: 2, LastError: "cannot collect c: boom"},
			levels: []string{"WARN", "DEBUG"},
		},
		{
			name: "Recovery", errs: []error{boom, nil},
			want: collectors.Health{Runs: 2, Failures: 1}, levels: []string{"WARN", "INFO"},
		},
		{
			name: "Partial", samples: sample("v", int64(1)), errs: []error{boom, boom},
			want:   collectors.Health{Runs: 2, Failures: 2, LastError: "cannot collect c: boom"},
			levels: []string{"WARN", "DEBUG"},
		},
		{name: "Good", samples: sample("v", int64(1)), errs: []error{nil, nil}, want: collectors.Health{Runs: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				r, s := collectors.NewRegistry(collectors.RegistryOptions{Log: logTo(&log)}), newSink()
				var n int
				r.Add(&fake{name: "c", collect: func(context.Context) ([]collectors.Sample, error) {
					n++
					return tt.samples, tt.errs[n-1]
				}}, 10*time.Second, time.Second)
				stop := serve(t, r, s)
				time.Sleep(15 * time.Second)
				got := health(t, r, "c")
				if err := stop(); err != nil {
					t.Error(err)
				}
				if tt.errs[1] == nil || tt.want.NoData {
					if got.Age != 5*time.Second {
						t.Errorf("age %s after a good answer 5 s ago", got.Age)
					}
				} else if got.Age != 15*time.Second {
					t.Errorf("age %s, want the time since the first run", got.Age)
				}
				got.Name, got.Interval, got.LastStart, got.LastSuccess, got.Age = "", 0, time.Time{}, time.Time{}, 0
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Errorf("health (-want +got):\n%s", d)
				}
				if want := 2 * len(tt.samples); len(s.times("c")) != want {
					t.Errorf("%d lists of samples, want %d", len(s.times("c")), want)
				}
				var levels []string
				for line := range strings.Lines(log.String()) {
					_, rest, _ := strings.Cut(line, "level=")
					level, _, _ := strings.Cut(rest, " ")
					levels = append(levels, level)
				}
				if d := cmp.Diff(tt.levels, levels); d != "" {
					t.Errorf("log levels (-want +got):\n%s\n%s", d, log.String())
				}
			})
		})
	}
}

func TestWatchIsRestartedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := collectors.NewRegistry(collectors.RegistryOptions{
			Log:    logTo(&log),
			Jitter: func(d time.Duration) time.Duration { return d }, // the bound itself
		})
		s := newSink()
		var starts []time.Duration
		start := time.Now()
		r.Add(&fakeWatcher{fake: fake{name: "w"}, watch: func(ctx context.Context, emit func(collectors.Event)) error {
			starts = append(starts, time.Since(start))
			emit(collectors.Event{Type: "w", What: "started"})
			switch len(starts) {
			case 2:
				panic("torn")
			case 3:
				return nil
			case 10: // holds out: the backoff starts again
				time.Sleep(time.Minute)
			case 12:
				<-ctx.Done()
				return ctx.Err()
			}
			return errors.New("socket died")
		}}, time.Hour, time.Second)
		stop := serve(t, r, s)
		time.Sleep(5 * time.Minute)
		h := health(t, r, "w")
		if err := stop(); err != nil {
			t.Error(err)
		}
		var gaps []time.Duration
		for i := 1; i < len(starts); i++ {
			gaps = append(gaps, starts[i]-starts[i-1])
		}
		ms := time.Millisecond
		want := []time.Duration{
			500 * ms, 1000 * ms, 2000 * ms, 4000 * ms, 8000 * ms, 16000 * ms,
			30000 * ms, 30000 * ms, 30000 * ms, 60500 * ms, 1000 * ms,
		}
		if d := cmp.Diff(want, gaps); d != "" {
			t.Errorf("gaps between starts (-want +got):\n%s", d)
		}
		if h.Panics != 1 || h.WatchFailures != 11 || !h.Watching || h.WatchError != "" || h.Failures != 0 {
			t.Errorf("health: %+v", h)
		}
		if len(s.events) != 12 {
			t.Errorf("%d events, want 12", len(s.events))
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 2 { // the first, and the first after holding out
			t.Errorf("%d warnings, want 2:\n%s", n, log.String())
		}
	})
}

func TestWatchWithoutDataIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := collectors.NewRegistry(collectors.RegistryOptions{
			Log: logTo(&log), Jitter: func(d time.Duration) time.Duration { return d },
		})
		var tries int
		r.Add(&fakeWatcher{fake: fake{name: "w"}, watch: func(context.Context, func(collectors.Event)) error {
			tries++
			return collectors.ErrNoData
		}}, time.Hour, time.Second)
		stop := serve(t, r, newSink())
		time.Sleep(95 * time.Second)
		h := health(t, r, "w")
		if err := stop(); err != nil {
			t.Error(err)
		}
		if tries != 4 || h.WatchError != "" || h.WatchFailures != 0 || strings.Contains(log.String(), "WARN") {
			t.Errorf("%d tries, want 4; health %+v; log:\n%s", tries, h, log.String())
		}
	})
}

func TestServeEndsBoundedAndNamesWhatIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s := collectors.NewRegistry(collectors.RegistryOptions{}), newSink()
		release := make(chan struct{})
		r.Add(&fake{name: "deaf", collect: func(context.Context) ([]collectors.Sample, error) {
			<-release
			return sample("v", int64(1)), nil
		}}, time.Minute, time.Minute)
		r.Add(&fakeWatcher{fake: fake{name: "blind"}, watch: func(_ context.Context, emit func(collectors.Event)) error {
			<-release
			emit(collectors.Event{Type: "blind"})
			return nil
		}}, time.Minute, time.Minute)
		r.Add(&fake{name: "well"}, time.Minute, time.Second)
		stop := serve(t, r, s)
		time.Sleep(time.Second)
		start := time.Now()
		err := stop()
		if err == nil || err.Error() != "cannot stop collectors within 5s: deaf (collect), blind (watch)" {
			t.Errorf("error of Serve: %v", err)
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("Serve took %s to end, want 5s", d)
		}
		close(release)
		synctest.Wait()
		if len(s.times("deaf")) != 0 || len(s.events) != 0 {
			t.Error("what was left behind reached the sink after Serve had ended")
		}
	})
}

func TestServeEndsAtOnceWhenNothingIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := collectors.NewRegistry(collectors.RegistryOptions{})
		r.Add(&fake{name: "a", collect: func(ctx context.Context) ([]collectors.Sample, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}, time.Minute, time.Minute)
		stop := serve(t, r, newSink())
		time.Sleep(time.Second)
		start := time.Now()
		if err := stop(); err != nil || time.Since(start) != 0 {
			t.Errorf("Serve: %v after %s", err, time.Since(start))
		}
	})
}

func TestServeRefuses(t *testing.T) {
	r := collectors.NewRegistry(collectors.RegistryOptions{})
	r.Add(&fake{name: "a"}, 0, 0)
	r.Add(&fake{name: "a"}, 0, 0)
	if err := r.Serve(t.Context(), newSink()); err == nil || !strings.Contains(err.Error(), `two are named "a"`) {
		t.Errorf("two of one name: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := collectors.NewRegistry(collectors.RegistryOptions{})
		stop := serve(t, r, newSink())
		synctest.Wait()
		if err := r.Serve(t.Context(), newSink()); err == nil {
			t.Error("served twice")
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if err := serve(t, r, newSink())(); err != nil {
			t.Errorf("a second time after the first ended: %v", err)
		}
	})
}

func TestCollectOnceIsolatesAndKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := collectors.NewRegistry(collectors.RegistryOptions{})
		release := make(chan struct{})
		defer close(release)
		boom := errors.New("boom")
		r.Add(&fake{name: "hangs", collect: func(context.Context) ([]collectors.Sample, error) {
			<-release
			return nil, nil
		}}, time.Minute, 2*time.Second)
		r.Add(&fake{name: "good"}, time.Minute, 2*time.Second)
		r.Add(&fake{name: "fails", collect: func(context.Context) ([]collectors.Sample, error) {
			return sample("half", true), boom
		}}, time.Minute, 2*time.Second)
		r.Add(&fake{name: "none", collect: func(context.Context) ([]collectors.Sample, error) {
			return nil, collectors.ErrNoData
		}}, time.Minute, 2*time.Second)

		start := time.Now()
		res := r.CollectOnce(t.Context())
		if d := time.Since(start); d < 2*time.Second || d > 3*time.Second {
			t.Errorf("took %s, want a little more than the hung one's timeout", d)
		}
		var names []string
		for _, x := range res {
			names = append(names, x.Collector)
		}
		if d := cmp.Diff([]string{"hangs", "good", "fails", "none"}, names); d != "" {
			t.Fatal(d)
		}
		if !errors.Is(res[0].Err, collectors.ErrTimeout) {
			t.Errorf("hangs: %v", res[0].Err)
		}
		if res[1].Err != nil || len(res[1].Samples) != 1 {
			t.Errorf("good: %+v", res[1])
		}
		if !errors.Is(res[2].Err, boom) || len(res[2].Samples) != 1 {
			t.Errorf("fails: %+v", res[2])
		}
		if !errors.Is(res[3].Err, collectors.ErrNoData) {
			t.Errorf("none: %+v", res[3])
		}

		// Still hanging: not started again, and said so.
		res = r.CollectOnce(t.Context())
		if h := health(t, r, "hangs"); !errors.Is(res[0].Err, collectors.ErrTimeout) || h.Runs != 1 || !h.Stuck {
			t.Errorf("second time: %v, %+v", res[0].Err, h)
		}
		// An ended context is not waited out.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start = time.Now()
		res = r.CollectOnce(ctx)
		if d := time.Since(start); d > 500*time.Millisecond || !errors.Is(res[0].Err, context.Canceled) {
			t.Errorf("ended context: %s, %v", d, res[0].Err)
		}
	})
}

func TestCollectOnceDuringServeNeverRunsACollectorTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := collectors.NewRegistry(collectors.RegistryOptions{})
		var running, runs int // unguarded: the race detector watches
		r.Add(&fake{name: "a", collect: func(context.Context) ([]collectors.Sample, error) {
			running++
			if running != 1 {
				t.Errorf("%d runs at once", running)
			}
			runs++
			time.Sleep(700 * time.Millisecond)
			running--
			return sample("v", int64(1)), nil
		}}, time.Second, time.Second)
		stop := serve(t, r, newSink())
		time.Sleep(300 * time.Millisecond)
		for range 5 {
			if res := r.CollectOnce(t.Context()); res[0].Err != nil {
				t.Error(res[0].Err)
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if runs < 8 {
			t.Errorf("%d runs", runs)
		}
	})
}

func TestWhatJSONCannotSayIsLeftOut(t *testing.T) {
	r := collectors.NewRegistry(collectors.RegistryOptions{})
	r.Add(&fake{name: "a", collect: func(context.Context) ([]collectors.Sample, error) {
		return []collectors.Sample{{Fields: []collectors.Field{
			collectors.F("a", 1.5), collectors.F("b", math.NaN()), collectors.F("c", "x"), collectors.F("d", math.Inf(-1)),
		}}}, nil
	}}, 0, 0)
	got := r.CollectOnce(t.Context())[0].Samples
	want := []collectors.Sample{{Fields: []collectors.Field{collectors.F("a", 1.5), collectors.F("c", "x")}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestHealthSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := collectors.NewRegistry(collectors.RegistryOptions{})
		r.Add(&fake{name: "good", collect: func(context.Context) ([]collectors.Sample, error) {
			time.Sleep(20 * time.Millisecond)
			return nil, nil
		}}, 0, 0)
		r.Add(&fake{name: "bad", collect: func(context.Context) ([]collectors.Sample, error) {
			return nil, errors.New("boom")
		}}, 0, 0)
		r.CollectOnce(t.Context())
		time.Sleep(1500 * time.Millisecond)
		f := collectors.F
		want := []collectors.Sample{
			{Subject: "good", Fields: []collectors.Field{
				f("age_s", 1.5), f("duration_ms", int64(20)), f("runs", uint64(1)), f("failures", uint64(0)),
				f("panics", uint64(0)), f("stuck", false), f("no_data", false),
			}},
			{Subject: "bad", Fields: []collectors.Field{
				f("age_s", 1.52), f("duration_ms", int64(0)), f("runs", uint64(1)), f("failures", uint64(1)),
				f("panics", uint64(0)), f("stuck", false), f("no_data", false), f("error", "cannot collect bad: boom"),
			}},
		}
		if d := cmp.Diff(want, r.HealthSamples()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// BenchmarkCollectOnce measures what the registry itself costs a run.
func BenchmarkCollectOnce(b *testing.B) {
	r := collectors.NewRegistry(collectors.RegistryOptions{})
	r.Add(&fake{name: "a"}, 0, 0)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		r.CollectOnce(ctx)
	}
}
