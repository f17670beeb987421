package clock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ontagent/transport"
)

func TestSyncDetector(t *testing.T) {
	boot := today.Add(-time.Hour)
	at := func(up time.Duration, off time.Duration) time.Time { return boot.Add(up + off) }
	var d SyncDetector
	for i, tc := range []struct {
		wall    time.Time
		quality Quality
		uptime  time.Duration
		want    Sync
	}{
		{epoch1970, None, time.Minute, Sync{}},
		{at(2*time.Minute, 0), Floor, 2 * time.Minute, Sync{}},
		{at(3*time.Minute, 0), NTP, 3 * time.Minute, Sync{Why: ClockSet}},
		{at(4*time.Minute, 900*time.Millisecond), NTP, 4 * time.Minute, Sync{}},
		{at(5*time.Minute, -time.Second), NTP, 5 * time.Minute, Sync{}}, // a leap second is within what dates are good to
		{at(6*time.Minute, 1001*time.Millisecond), NTP, 6 * time.Minute, Sync{ClockStepped, 1001 * time.Millisecond}},
		{at(7*time.Minute, 1900*time.Millisecond), NTP, 7 * time.Minute, Sync{}},
		{at(8*time.Minute, 2100*time.Millisecond), NTP, 8 * time.Minute, Sync{ClockStepped, 1099 * time.Millisecond}}, // by and by
		{at(9*time.Minute, 0), None, 9 * time.Minute, Sync{}},
		{at(10*time.Minute, 2100*time.Millisecond), NTP, 10 * time.Minute, Sync{}}, // lost and found again
		{at(11*time.Minute, 2100*time.Millisecond-time.Hour), NTP, 11 * time.Minute, Sync{ClockStepped, -time.Hour}},
		{at(12*time.Minute, 2100*time.Millisecond), NTP, 12 * time.Minute, Sync{ClockStepped, time.Hour}},
	} {
		got, is := d.Observe(tc.wall, tc.quality, tc.uptime)
		if got != tc.want || is != (tc.want.Why != "") {
			t.Errorf("reading %d: %+v, want %+v", i, got, tc.want)
		}
	}
}

// bubble is a system that runs on the time of a synctest bubble.
type bubble struct {
	start time.Time

	mu     sync.Mutex
	boot   time.Time // what the wall clock said at the start
	synced bool
	slow   bool // the processor is taken away between two readings
	asked  int
}

func (b *bubble) Uptime() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	if b.slow && b.asked%2 == 0 {
		return time.Since(b.start) + time.Minute
	}
	return time.Since(b.start)
}

func (b *bubble) Wall() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.boot.Add(time.Since(b.start))
}

func (b *bubble) Synchronised() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.synced
}

func TestWatchTellsWhenTheClockIsSetAndSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sys := &bubble{start: time.Now(), boot: epoch1970}
		c, err := New(Options{System: sys, Store: &fakeStore{}})
		if err != nil {
			t.Fatal(err)
		}
		var told []Sync // guarded by sys.mu
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- c.Watch(ctx, 10*time.Second, func(s Sync) {
				sys.mu.Lock()
				defer sys.mu.Unlock()
				told = append(told, s)
			})
		}()
		phase := func(change func(), want ...Sync) {
			t.Helper()
			sys.mu.Lock()
			told = nil
			change()
			sys.mu.Unlock()
			time.Sleep(30 * time.Second)
			synctest.Wait()
			sys.mu.Lock()
			defer sys.mu.Unlock()
			if !slices.Equal(told, want) {
				t.Errorf("told %+v, want %+v", told, want)
			}
		}
		phase(func() {})
		phase(func() { sys.boot, sys.synced = today, true }, Sync{Why: ClockSet})
		phase(func() { sys.slow = true })
		phase(func() { sys.slow = false })
		phase(func() { sys.boot = sys.boot.Add(-time.Hour) }, Sync{ClockStepped, -time.Hour})
		phase(func() { sys.synced = false })
		phase(func() { sys.synced = true })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

// setting is a System whose clock is set by NTP just when the agent looks at it.
type setting struct{ fakeSystem }

func (s *setting) Wall() time.Time {
	was := s.wall
	s.wall, s.synced = today, true
	return was
}

func TestClockThatIsSetWhileItIsReadIsNotTrustedAsItWas(t *testing.T) {
	for name, read := range map[string]func(*Clock) (time.Time, bool){
		"now": func(c *Clock) (time.Time, bool) { return c.Now() },
		"reading": func(c *Clock) (time.Time, bool) {
			r, q := c.Reading()
			return r, q == NTP
		},
	} {
		c, err := New(Options{System: &setting{fakeSystem{wall: epoch1970}}, Store: &fakeStore{}})
		if err != nil {
			t.Fatal(err)
		}
		if got, trusted := read(c); trusted {
			t.Errorf("%s: %v is trusted", name, got)
		}
		if got, trusted := read(c); !trusted || !got.Equal(today) {
			t.Errorf("%s: then %v, %v", name, got, trusted)
		}
	}
}

// sent is one message of the simulated gateway.
type sent struct {
	h     transport.Header
	truth time.Time
}

// gateway is a simulated start of the daemon: a true time, and what the wall
// clock makes of it.
type gateway struct {
	sys      *fakeSystem
	clock    *Clock
	stamper  *transport.Stamper
	detector SyncDetector
	truth    time.Time // when the uptime was 0
	rnd      *rand.Rand
	sent     []sent
	syncs    []int // of those, which told of a Sync
}

func newGateway(t *testing.T, o Options, seed uint64) *gateway {
	t.Helper()
	sys := &fakeSystem{wall: time.Unix(0, 0).UTC()}
	o.System, o.Store = sys, &fakeStore{}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := transport.NewStamper("HWTC12345678", 9, c)
	if err != nil {
		t.Fatal(err)
	}
	return &gateway{sys: sys, clock: c, stamper: s, truth: today, rnd: rand.New(rand.NewPCG(seed, 6))}
}

// pass lets time pass and messages be sent; the wall clock ticks along.
func (g *gateway) pass(messages int) {
	classes := []transport.Class{transport.ClassRecord, transport.ClassEvent, transport.ClassTelemetry}
	for range messages {
		d := time.Duration(g.rnd.Int64N(int64(20 * time.Second)))
		g.sys.uptime += d
		g.sys.wall = g.sys.wall.Add(d)
		wall, quality := g.clock.Reading()
		if _, is := g.detector.Observe(wall, quality, g.clock.Uptime()); is {
			g.syncs = append(g.syncs, len(g.sent))
			g.send(transport.ClassEvent)
		}
		g.send(classes[g.rnd.IntN(len(classes))])
	}
}

func (g *gateway) send(c transport.Class) {
	g.sent = append(g.sent, sent{g.stamper.Stamp(c), g.truth.Add(g.sys.uptime)})
}

// ntp sets the wall clock right but for off, as a time server does.
func (g *gateway) ntp(off time.Duration) {
	g.sys.wall, g.sys.synced = g.truth.Add(g.sys.uptime+off), true
}

// check holds what must hold whatever the wall clock did: numbers without a gap
// in the order of sending, uptime that never falls. It returns how far dates by
// the last Sync are off at most.
func (g *gateway) check(t *testing.T, what string) (worst time.Duration) {
	t.Helper()
	seq, last := map[transport.Class]uint64{}, 0.0
	for i, m := range g.sent {
		seq[m.h.Class]++
		if m.h.Epoch != 9 || m.h.Seq != seq[m.h.Class] || m.h.UptimeS < last {
			t.Fatalf("%s: message %d is %+v", what, i, m.h)
		}
		last = m.h.UptimeS
	}
	if len(g.syncs) == 0 {
		return 0
	}
	s := g.sent[g.syncs[len(g.syncs)-1]].h
	if s.Clock != transport.ClockNTP {
		t.Fatalf("%s: the sync is %+v", what, s)
	}
	for _, m := range g.sent {
		dated := time.UnixMilli(s.TimeMS).Add(time.Duration((m.h.UptimeS - s.UptimeS) * 1e9))
		worst = max(worst, dated.Sub(m.truth).Abs())
	}
	return worst
}

// qualities returns the clock flags in the order in which they came.
func (g *gateway) qualities() (all []string) {
	for _, m := range g.sent {
		if len(all) == 0 || all[len(all)-1] != m.h.Clock {
			all = append(all, m.h.Clock)
		}
	}
	return all
}

func TestReliabilityClock(t *testing.T) {
	trials := 2000
	switch {
	case os.Getenv("LONG") != "":
		trials = 50_000
	case testing.Short():
		trials = 20
	}
	before := Options{Build: today.AddDate(0, -3, 0)} // the floor of a program built lately
	since := Options{Build: today.Add(-time.Minute)}  // a floor that an hour back falls below
	never := Options{NeverTrustSystem: true}          // no clock is believed
	for _, tc := range []struct {
		name  string
		o     Options
		run   func(*gateway)
		flags []string // in order
		syncs int      // -1: any number
	}{
		{"boot at 1970, then NTP: +56 years", Options{}, func(g *gateway) {
			g.pass(20)
			g.ntp(0)
			g.pass(20)
		}, []string{"none", "ntp"}, 1},
		{"boot at 1970 above a kept floor, then NTP", before, func(g *gateway) {
			g.pass(20)
			g.ntp(0)
			g.pass(20)
		}, []string{"floor", "ntp"}, 1},
		{"NTP an hour ahead, then -1 h, above the floor", before, func(g *gateway) {
			g.ntp(time.Hour)
			g.pass(20)
			g.ntp(0)
			g.pass(20)
		}, []string{"ntp"}, 2},
		{"NTP right, then -1 h below the floor, then right", since, func(g *gateway) {
			g.ntp(0)
			g.pass(20)
			g.ntp(-time.Hour)
			g.pass(20)
			g.ntp(0)
			g.pass(20)
		}, []string{"ntp", "floor", "ntp"}, 1},
		{"NTP 56 years ahead, then right", before, func(g *gateway) {
			g.ntp(56 * 365 * 24 * time.Hour)
			g.pass(20)
			g.ntp(0)
			g.pass(20)
		}, []string{"ntp"}, 2},
		{"leap second", before, func(g *gateway) {
			g.ntp(0)
			g.pass(20)
			g.ntp(-time.Second)
			g.pass(20)
		}, []string{"ntp"}, -1},
		{"NTP lost and found, ten times", before, func(g *gateway) {
			for range 10 {
				g.ntp(0)
				g.pass(5)
				g.sys.synced = false
				g.pass(5)
			}
		}, nil, 1},
		{"steps of any size at any time, at last right", before, func(g *gateway) {
			for range 10 {
				g.ntp(time.Duration(g.rnd.Int64N(int64(4e17))) - 2e17)
				g.sys.synced = g.rnd.IntN(3) > 0
				g.pass(5)
			}
			g.ntp(0)
			g.pass(5)
		}, nil, -1},
		{"never NTP", Options{}, func(g *gateway) { g.pass(40) }, []string{"none"}, 0},
		{"NTP not trusted by configuration", never, func(g *gateway) {
			g.ntp(0)
			g.pass(40)
		}, []string{"none"}, 0},
	} {
		var worst time.Duration
		messages, syncs := 0, 0
		for i := range trials {
			g := newGateway(t, tc.o, uint64(i))
			tc.run(g)
			worst = max(worst, g.check(t, tc.name))
			messages += len(g.sent)
			syncs += len(g.syncs)
			if got := g.qualities(); tc.flags != nil && !slices.Equal(got, tc.flags) {
				t.Errorf("%s: flags %v, want %v", tc.name, got, tc.flags)
			}
			if tc.syncs >= 0 && len(g.syncs) != tc.syncs {
				t.Errorf("%s: %d syncs, want %d", tc.name, len(g.syncs), tc.syncs)
			}
			if t.Failed() {
				break
			}
		}
		if worst > time.Second+2*time.Millisecond {
			t.Errorf("%s: dates are off by %v", tc.name, worst)
		}
		dates := fmt.Sprintf("dated to %d ms by %.1f syncs a start", worst.Milliseconds(), float64(syncs)/float64(trials))
		if syncs == 0 {
			dates = "not dated, and no sync claims it"
		}
		verdict := "ok"
		if t.Failed() {
			verdict = "FAIL"
		}
		t.Logf("reliability: clock | %s | %d | %d messages in order of (epoch, class, seq), uptime never back; %s | %s", tc.name, trials, messages, dates, verdict)
	}
}
