package inspect_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/inspect"
	"ontagent/collectors"
	"ontagent/transport/durable"
	"ontagent/transport/durable/faultfs"
)

const (
	file = "/inspect.json"
	day  = 24 * time.Hour
)

// gateway is a machine with a disk, clocks, and somebody who listens.
type gateway struct {
	fs     *faultfs.FS
	device string
	uptime time.Duration
	utc    time.Time // zero: nobody knows
	clock  bool
	epoch  uint64
	busy   bool
	follow bool
	off    bool // not scheduled
	// run is what an inspection does; nil: it passes in a minute.
	run   func(ctx context.Context) (inspect.Entry, error)
	told  []inspect.Entry
	begun int
	aside int
	saves int
}

func (g *gateway) Load(v any, check func() error) bool {
	data, err := g.bytes()
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err == nil {
		err = check()
	}
	if err != nil {
		g.aside++
	}
	return err == nil
}

func (g *gateway) bytes() ([]byte, error) {
	return durable.ReadFile(g.fs, "inspect.read", file, inspect.MaxState)
}

func (g *gateway) Save(v any) error {
	g.saves++
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(g.fs, "inspect.write", file, data, 0o600)
}

func (g *gateway) moment() inspect.Moment {
	m := inspect.Moment{Uptime: g.uptime, Clock: "none"}
	if g.clock {
		m.UTC, m.Clock = g.utc, "ntp"
	}
	return m
}

func (g *gateway) inspect(ctx context.Context) (inspect.Entry, error) {
	g.begun++
	if g.run != nil {
		return g.run(ctx)
	}
	g.pass(time.Minute)
	return inspect.Entry{Verdict: "pass", DurationS: 60, Rungs: []inspect.Rung{{Rung: "optical", Verdict: "pass"}}}, nil
}

func (g *gateway) start() *inspect.Scheduler {
	g.epoch++
	return inspect.Open(g.options())
}

func (g *gateway) options() inspect.Options {
	return inspect.Options{
		Store: g, Inspect: g.inspect, Busy: func() bool { return g.busy }, FollowUp: func() bool { return g.follow },
		Publish: func(e inspect.Entry) {
			if !g.fs.IsCut() { // the queue is on the same flash
				g.told = append(g.told, e)
			}
		},
		Moment: g.moment, Device: g.device, Days: 60, Hour: 19, Scheduled: !g.off, Timeout: 5 * time.Minute, Epoch: g.epoch,
		Log: slog.New(slog.DiscardHandler),
	}
}

func (g *gateway) pass(d time.Duration) {
	g.uptime += d
	g.utc = g.utc.Add(d)
}

// reboot starts the machine again after it was off for a while.
func (g *gateway) reboot(off time.Duration) *inspect.Scheduler {
	g.utc, g.uptime = g.utc.Add(off), 0
	return g.start()
}

// live lets time pass in the steps in which the scheduler looks.
func (g *gateway) live(s *inspect.Scheduler, long time.Duration) {
	const step = 10 * time.Minute
	for end := g.uptime + long; g.uptime < end; {
		g.pass(step)
		s.Look(context.Background())
	}
}

func newGateway(clock bool) *gateway {
	return &gateway{
		fs: faultfs.New(faultfs.Ext4, 3), device: "HWTC12345678", clock: clock,
		utc: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

// dates are the days on which inspections were told, and why.
func (g *gateway) dates() []string {
	out := []string{}
	for _, e := range g.told {
		out = append(out, e.Started.UTC+" "+e.Why+" "+e.Verdict)
	}
	return out
}

func TestAYearOfInspections(t *testing.T) {
	g := newGateway(true)
	s := g.start()
	g.live(s, 365*day)
	want, got := []string{}, []string{}
	first, err := time.Parse(time.RFC3339, g.told[0].Started.UTC)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		want = append(want, first.AddDate(0, 0, 60*i).Format("2006-01-02T15"))
	}
	for _, date := range g.dates() {
		got = append(got, date[:len("2006-01-02T15")])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if h := first.Hour(); h < 19 && h > 0 || first.Sub(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) > 61*day {
		t.Errorf("the first one was at %v", first)
	}
	// The steady state writes nothing; an inspection four times.
	if g.saves > 6*4+1 {
		t.Errorf("written %d times", g.saves)
	}
	if next, _ := s.Next(); next.Before(g.utc) || next.Sub(g.utc) > 60*day {
		t.Errorf("the next one is at %v, it is %v", next, g.utc)
	}
}

func TestAFleetIsSpreadOut(t *testing.T) {
	days, minutes := map[int]int{}, map[int]int{}
	const fleet = 6000
	for i := range fleet {
		g := newGateway(true)
		g.device = fmt.Sprintf("HWTC%08X", i)
		next, _ := g.start().Next()
		days[int(next.Sub(g.utc)/day)]++
		minutes[next.Hour()*60+next.Minute()]++
	}
	for d, n := range days {
		if n > 3*fleet/60 {
			t.Errorf("%d inspect on day %d", n, d)
		}
	}
	if len(days) < 60 || len(minutes) != 240 {
		t.Errorf("spread over %d days and %d minutes", len(days), len(minutes))
	}
}

func TestAYearWithoutAClock(t *testing.T) {
	for name, night := range map[string]bool{"always on": false, "off every night": true} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(false)
			s := g.start()
			for range 365 {
				if night {
					g.live(s, 22*time.Hour)
					s = g.reboot(2 * time.Hour)
				} else {
					g.live(s, day)
				}
			}
			if n := len(g.told); n < 5 || n > 7 {
				t.Errorf("%d inspections: %q", n, g.dates())
			}
			for _, e := range g.told {
				if e.Started.UTC != "" || e.Started.Clock != "none" {
					t.Errorf("dated %+v", e.Started)
				}
			}
			if g.saves > 365+6*4+10 {
				t.Errorf("written %d times", g.saves)
			}
		})
	}
}

func TestAYearOfNightsWithoutPower(t *testing.T) {
	g := newGateway(true)
	for range 365 {
		s := g.start()
		// On from 07:00 to 17:00 UTC: never at its hour.
		g.utc = g.utc.Truncate(day).Add(7 * time.Hour)
		g.live(s, 10*time.Hour)
		s = g.reboot(14 * time.Hour)
		_ = s
	}
	if n := len(g.told); n < 5 || n > 7 {
		t.Errorf("%d inspections: %q", n, g.dates())
	}
}

func TestWrongClocks(t *testing.T) {
	g := newGateway(true)
	s := g.start()
	g.live(s, 61*day)
	if len(g.told) != 1 {
		t.Fatalf("%q", g.dates())
	}
	right := g.utc
	g.utc = time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC) // trusted, and wrong
	g.live(s, day)
	g.utc = time.Date(2091, 5, 1, 0, 0, 0, 0, time.UTC)
	g.live(s, 10*time.Hour)
	for range 20 { // it goes to and fro
		g.utc = right
		g.live(s, time.Hour)
		g.utc = right.AddDate(0, 5, 0)
		g.live(s, time.Hour)
	}
	if n := len(g.told); n > 5 {
		t.Errorf("clocks that jump made %d inspections: %q", n, g.dates())
	}
	n := len(g.told)
	g.utc = right
	g.live(s, 130*day)
	if got := len(g.told) - n; got < 1 || got > 3 {
		t.Errorf("after it was set right there were %d: %q", got, g.dates())
	}
}

func TestTheClockIsKnownNowAndThen(t *testing.T) {
	g := newGateway(false)
	s := g.start()
	g.live(s, 30*day)
	g.clock = true
	g.live(s, 20*day)
	g.clock = false
	s = g.reboot(time.Hour)
	g.live(s, 100*day)
	g.clock = true
	g.live(s, 200*day)
	if n := len(g.told); n < 4 || n > 7 {
		t.Errorf("%d inspections in 350 days: %q", n, g.dates())
	}
}

// due brings a gateway to where an inspection is due at the next look.
func due(g *gateway) *inspect.Scheduler {
	s := g.start()
	next, _ := s.Next()
	s.Look(context.Background()) // begins to count
	g.pass(next.Sub(g.utc) + time.Minute)
	return s
}

func TestAPowerCutAtEveryFileOperation(t *testing.T) {
	for n := 1; n < 60; n++ {
		g := newGateway(true)
		s := due(g)
		g.fs.CutIn(n)
		s.Look(context.Background())
		g.fs.PowerOn()
		s = g.reboot(time.Minute)
		g.live(s, 50*day)
		ids := map[string]int{}
		for _, e := range g.told {
			ids[e.ID]++
		}
		if len(ids) < 1 || len(ids) > 2 || len(g.told) > 2 {
			t.Fatalf("cut at %d: told %q", n, g.dates())
		}
		if g.aside != 0 || g.begun > 2 {
			t.Fatalf("cut at %d: begun %d times, put aside %d times", n, g.begun, g.aside)
		}
	}
}

func TestAnInspectionThatKillsTheGatewayIsGivenUp(t *testing.T) {
	g := newGateway(true)
	s := due(g)
	g.run = func(context.Context) (inspect.Entry, error) {
		g.fs.Cut()
		return inspect.Entry{}, nil
	}
	for range 20 {
		g.live(s, day)
		if g.fs.IsCut() {
			g.fs.PowerOn()
			s = g.reboot(time.Minute)
		}
	}
	if g.begun != 3 || len(g.told) != 1 || g.told[0].Verdict != "inconclusive" || g.told[0].Problem != "cut short 3 times" {
		t.Errorf("begun %d times, told %+v", g.begun, g.told)
	}
}

func TestAJobGoesFirst(t *testing.T) {
	g := newGateway(true)
	s := due(g)
	g.busy = true
	s.Look(t.Context())
	if g.begun != 0 {
		t.Error("begun beside a job")
	}
	g.busy = false
	g.run = func(ctx context.Context) (inspect.Entry, error) {
		s.Interrupt() // a job comes
		<-ctx.Done()
		return inspect.Entry{}, ctx.Err()
	}
	for range 5 { // each time it begins
		s.Look(t.Context())
		g.pass(31 * time.Minute)
	}
	if g.begun != 2 || len(g.told) != 0 {
		t.Errorf("begun %d times in its hour, told %q", g.begun, g.dates())
	}
	g.run = nil
	g.live(s, 2*day)
	if len(g.told) != 1 || g.told[0].Verdict != "pass" {
		t.Errorf("told %q", g.dates())
	}
	s.Interrupt() // of nothing
}

func TestWhatCannotBeKeptIsNotBegun(t *testing.T) {
	g := newGateway(true)
	s := due(g)
	g.fs.Inject(faultfs.Fault{Op: "inspect.write", Forever: true, Err: syscall.EROFS})
	g.live(s, 10*day)
	if g.begun != 0 {
		t.Error("begun, and after a power cut nobody would know")
	}
	g.fs.Heal()
	g.live(s, 2*day)
	if len(g.told) != 1 {
		t.Errorf("told %q", g.dates())
	}
}

func TestAnInspectionThatCannotBeMadeIsToldSo(t *testing.T) {
	g := newGateway(true)
	s := due(g)
	g.run = func(context.Context) (inspect.Entry, error) { return inspect.Entry{}, errors.New("no ladder") }
	g.live(s, 3*day)
	if len(g.told) != 1 || g.told[0].Problem != "no ladder" || g.told[0].Verdict != "inconclusive" || g.told[0].Rungs == nil {
		t.Errorf("%+v", g.told)
	}
}

func TestWhatWasFoundIsLookedAtAgain(t *testing.T) {
	g := newGateway(true)
	s := due(g)
	g.live(s, 30*time.Minute)
	g.follow = true
	g.live(s, 5*day)
	g.follow = false
	g.live(s, 20*day)
	why := []string{}
	for _, e := range g.told {
		why = append(why, e.Why)
	}
	if want := []string{"schedule", "follow_up", "follow_up", "follow_up", "follow_up", "follow_up", "follow_up"}; !slices.Equal(why, want) {
		t.Errorf("%q", g.dates())
	}
}

func TestTheLogIsBounded(t *testing.T) {
	g := newGateway(true)
	s := g.start()
	g.follow = true
	g.live(s, 400*day)
	log := s.Log()
	if len(log) > 32 {
		t.Errorf("%d entries", len(log))
	}
	oldest, err := time.Parse(time.RFC3339, log[0].Started.UTC)
	if err != nil || g.utc.Sub(oldest) > 185*day {
		t.Errorf("the oldest is of %v, it is %v", oldest, g.utc)
	}
	scheduled := 0
	for _, e := range log {
		if e.Why == inspect.WhySchedule {
			scheduled++
		}
	}
	if scheduled < 3 { // those of 183 days, though follow-ups came every day
		t.Errorf("%d of the schedule are left", scheduled)
	}
	// Large ones lose their comparison before they break the bound.
	g.run = func(context.Context) (inspect.Entry, error) {
		e := inspect.Entry{Verdict: "pass"}
		for range 200 {
			e.Compared = append(e.Compared, inspect.Compared{Name: strings.Repeat("x", 100)})
		}
		return e, nil
	}
	g.live(s, 60*day)
	if data, _ := g.bytes(); len(data) > inspect.MaxState {
		t.Errorf("%d bytes", len(data))
	}
	s = g.start()
	if g.aside != 0 || len(s.Log()) == 0 {
		t.Error("it could not be read again")
	}
}

func TestCommandedOnesAreLogged(t *testing.T) {
	g := newGateway(true)
	g.off = true
	s := g.start()
	g.live(s, 100*day)
	s.Add(inspect.Entry{Job: "c-1", Verdict: "fail", FirstCause: "optical.rx_too_weak"})
	g.follow = true
	g.live(s, 30*day)
	if len(g.told) != 1 || g.told[0].Why != "command" || g.told[0].Job != "c-1" || g.told[0].Started.UTC != "2026-04-11T00:00:00Z" {
		t.Errorf("%+v", g.told)
	}
	if next, days := s.Next(); !next.IsZero() || days != 0 {
		t.Error("none is scheduled")
	}
}

func TestADamagedFileIsPutAside(t *testing.T) {
	for _, bad := range []string{"{", `{"v":2}`, `{"v":1,"untold":3}`, `{"v":1,"days":-1}`, "\x00", strings.Repeat(" ", inspect.MaxState+1)} {
		g := newGateway(true)
		g.fs.Put(file, []byte(bad))
		s := g.start()
		g.live(s, 61*day)
		if g.aside != 1 || len(g.told) != 1 {
			t.Errorf("%.20q: put aside %d times, told %q", bad, g.aside, g.dates())
		}
	}
}

func TestServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway(true)
		began := time.Now()
		g.run = func(context.Context) (inspect.Entry, error) { return inspect.Entry{Verdict: "pass"}, nil }
		from := g.utc
		s := inspect.Open(inspect.Options{
			Store: g, Inspect: g.inspect, Busy: func() bool { return false }, Publish: func(e inspect.Entry) { g.told = append(g.told, e) },
			Moment: func() inspect.Moment {
				d := time.Since(began)
				return inspect.Moment{Uptime: d, UTC: from.Add(d), Clock: "ntp"}
			},
			Device: g.device, Days: 7, Hour: 19, Scheduled: true, Timeout: time.Minute, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Serve(ctx) }()
		time.Sleep(15 * day)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if len(g.told) != 2 {
			t.Errorf("%q", g.dates())
		}
	})
}

func TestMeterFindsTheBusiestHour(t *testing.T) {
	var now time.Duration
	m := inspect.NewMeter(func() time.Duration { return now })
	sample := func(subject string, kv ...any) []collectors.Sample {
		s := collectors.Sample{Subject: subject}
		for i := 0; i+1 < len(kv); i += 2 {
			name, _ := kv[i].(string)
			s.Fields = append(s.Fields, collectors.F(name, kv[i+1]))
		}
		return []collectors.Sample{s}
	}
	step := func(down, cpu float64) {
		now += time.Minute
		m.Samples("wan", sample("", "interface", "pppoe-wan"))
		m.Samples("link", append(sample("pppoe-wan", "rx_bps", uint64(down), "tx_bps", uint64(1e6)), sample("lan0", "rx_bps", uint64(9e9))...))
		m.Samples("host", sample("", "cpu_busy_ratio", cpu, "mem_used_ratio", 0.5))
	}
	for range 59 {
		step(1e9, 1)
	}
	if u := m.Use(); u.Down.Known || u.CPU.Known {
		t.Errorf("an hour that is not over: %+v", u)
	}
	for i := range 300 { // peaks of five minutes in each hour
		down := 10e6
		if i%60 < 5 {
			down = 130e6
		}
		step(down, 0.1)
	}
	u := m.Use()
	if u.Down.Value < 900e6 || !u.Up.Known || u.Up.Value != 1e6 || u.Over != 359*time.Minute {
		t.Errorf("%+v", u)
	}
	m.Reset()
	for i := range 300 {
		down := 10e6
		if i%60 < 5 {
			down = 130e6
		}
		step(down, 0.1)
	}
	if u := m.Use(); u.Down.Value < 15e6 || u.Down.Value > 25e6 || u.CPU.Value > 0.11 || u.Memory.Value != 0.5 || u.Blind {
		t.Errorf("%+v", u)
	}
	// A gateway that is asleep most of the hour has no busiest one.
	m.Reset()
	for range 5 {
		step(5e6, 0.1)
		now += 20 * time.Minute
	}
	if u := m.Use(); u.Down.Known {
		t.Errorf("%+v", u)
	}
	m.Samples("link", sample("pppoe-wan", "counters_blind", true, "speed_mbps", int64(1000)))
	m.Samples("optics", sample("", "rx_baseline_dbm", -20.5))
	if u := m.Use(); !u.Blind || u.LinkMbps != 1000 || u.RxBaselineDBm == nil || *u.RxBaselineDBm != -20.5 {
		t.Errorf("%+v", u)
	}
}

func FuzzOpen(f *testing.F) {
	g := newGateway(true)
	g.live(g.start(), 130*day)
	data, _ := g.bytes()
	f.Add(data)
	f.Add(bytes.Replace(data, []byte(`"untold":0`), []byte(`"untold":1`), 1))
	f.Add([]byte(`{"v":1,"last":-9223372036854775808,"dated":true,"attempts":1000000}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		g := newGateway(true)
		g.fs.Put(file, data)
		s := g.start()
		for range 20 {
			g.pass(7 * time.Hour)
			s.Look(context.Background())
		}
		if n := len(s.Log()); n > 32 {
			t.Errorf("%d entries", n)
		}
	})
}

// TestAJobBeginsWhileTheScheduleLooks: who takes jobs on holds its lock when it
// interrupts, and Busy takes the same.
func TestAJobBeginsWhileTheScheduleLooks(t *testing.T) {
	for name, when := range map[string]int{"before the inspection is due": 1, "once it is about to begin": 2} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(true)
			var jobs sync.Mutex
			asked, running := 0, false
			var cause error
			g.run = func(ctx context.Context) (inspect.Entry, error) {
				cause = context.Cause(ctx)
				return inspect.Entry{Verdict: "pass"}, nil
			}
			var s *inspect.Scheduler
			o := g.options()
			o.Busy = func() bool {
				if asked++; asked == when {
					begun := make(chan struct{})
					go func() {
						jobs.Lock()
						defer jobs.Unlock()
						s.Interrupt()
						running = true
						close(begun)
					}()
					select {
					case <-begun:
					case <-time.After(2 * time.Second):
						t.Error("the job waits for the schedule, which waits for it")
						return true
					}
				}
				jobs.Lock()
				defer jobs.Unlock()
				return running
			}
			s = inspect.Open(o)
			for asked < when && g.uptime < 61*day {
				asked = 0
				g.pass(10 * time.Minute)
				s.Look(t.Context())
				if t.Failed() {
					return
				}
			}
			if asked < when || len(g.told) > 0 || g.begun > 0 && !errors.Is(cause, inspect.ErrBusy) {
				t.Errorf("asked %d times; told %v; cut by %v", asked, g.dates(), cause)
			}
		})
	}
}

func TestACommandedInspectionIsDatedByItsBegin(t *testing.T) {
	for _, clock := range []bool{true, false} {
		g := newGateway(clock)
		s := g.start()
		g.pass(time.Hour)
		began := g.moment()
		g.pass(90 * time.Second)
		s.Add(inspect.Entry{Job: "c-1", Verdict: "pass", DurationS: 90})
		want := ""
		if clock {
			want = began.UTC.Format(time.RFC3339)
		}
		if at := g.told[0].Started; at.UTC != want || at.UptimeS != began.Uptime.Seconds() {
			t.Errorf("started %+v, it began %+v", at, began)
		}
	}
}
