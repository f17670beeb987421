package clock

import (
	"errors"
	"testing"
	"time"
)

type fakeSystem struct {
	wall   time.Time
	uptime time.Duration
	synced bool
}

func (f *fakeSystem) Wall() time.Time       { return f.wall }
func (f *fakeSystem) Uptime() time.Duration { return f.uptime }
func (f *fakeSystem) Synchronised() bool    { return f.synced }

type fakeStore struct {
	kept time.Time
	err  error
}

func (f *fakeStore) Load() (time.Time, error) { return f.kept, nil }

func (f *fakeStore) Save(t time.Time) error {
	if f.err != nil {
		return f.err
	}
	f.kept = t
	return nil
}

var (
	epoch1970 = time.Unix(120, 0).UTC()
	today     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func TestClockQuality(t *testing.T) {
	for name, tc := range map[string]struct {
		system  fakeSystem
		kept    time.Time
		build   time.Time
		never   bool
		quality Quality
		trusted bool
		reading time.Time
	}{
		"1970, nothing known": {system: fakeSystem{wall: epoch1970}, quality: None, reading: epoch1970},
		"1970 and a floor":    {system: fakeSystem{wall: epoch1970}, kept: today, quality: Floor, reading: today},
		"above the floor":     {system: fakeSystem{wall: today.Add(time.Hour)}, kept: today, quality: Floor, reading: today.Add(time.Hour)},
		"synchronised":        {system: fakeSystem{wall: today, synced: true}, quality: NTP, trusted: true, reading: today},
		"synchronised to 1970": {
			system: fakeSystem{wall: epoch1970, synced: true}, build: today, quality: Floor, reading: today,
		},
		"configured not to trust": {system: fakeSystem{wall: today, synced: true}, never: true, quality: None, reading: today},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New(Options{System: &tc.system, Store: &fakeStore{kept: tc.kept}, Build: tc.build, NeverTrustSystem: tc.never})
			if err != nil {
				t.Fatal(err)
			}
			if _, trusted := c.Now(); trusted != tc.trusted {
				t.Errorf("trusted = %v, want %v", trusted, tc.trusted)
			}
			if got, q := c.Reading(); q != tc.quality || !got.Equal(tc.reading) {
				t.Errorf("reading = %v (%s), want %v (%s)", got, q, tc.reading, tc.quality)
			}
		})
	}
}

func TestSignedTimeRunsOnUptimeAndSurvivesAsFloor(t *testing.T) {
	sys := &fakeSystem{wall: epoch1970, uptime: time.Minute}
	store := &fakeStore{}
	c, err := New(Options{System: sys, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Raise(today); err != nil {
		t.Fatal(err)
	}
	sys.uptime += 10 * time.Second
	sys.wall = today.AddDate(56, 0, 0) // a step of the wall clock changes nothing
	if got, trusted := c.Now(); !trusted || !got.Equal(today.Add(10*time.Second)) {
		t.Errorf("now = %v, %v; want the signed time plus what has passed", got, trusted)
	}
	restarted, err := New(Options{System: &fakeSystem{wall: epoch1970}, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	if got := restarted.Floor(); !got.Equal(today) {
		t.Errorf("floor after restart = %v, want %v", got, today)
	}
	if _, trusted := restarted.Now(); trusted {
		t.Error("a floor from an earlier start is trusted as the time")
	}
}

// TestNTPCannotTakeTheSignedTimeBack: a time server comes up in the middle.
func TestNTPCannotTakeTheSignedTimeBack(t *testing.T) {
	sys := &fakeSystem{wall: epoch1970, uptime: time.Minute}
	c, err := New(Options{System: sys, Store: &fakeStore{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Raise(today); err != nil {
		t.Fatal(err)
	}
	sys.uptime += 30 * 24 * time.Hour
	now := today.Add(30 * 24 * time.Hour)
	sys.synced = true
	for _, step := range []struct {
		wall time.Time
		want time.Time
	}{
		{today.Add(time.Second), now},                  // above the floor, but a month behind
		{now.Add(-time.Hour), now},                     // an hour behind: more than a crystal drifts
		{now.Add(-time.Minute), now.Add(-time.Minute)}, // drift
		{now.Add(3 * time.Minute), now.Add(3 * time.Minute)},
	} {
		sys.wall = step.wall
		if got, trusted := c.Now(); !trusted || !got.Equal(step.want) {
			t.Errorf("system says %v: now = %v, %v, want %v", step.wall, got, trusted, step.want)
		}
	}
}

func TestRaiseFailsIfTheFloorCannotBeKept(t *testing.T) {
	c, err := New(Options{System: &fakeSystem{}, Store: &fakeStore{err: errors.New("disk full")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Raise(today); err == nil {
		t.Fatal("raised without keeping")
	}
	if _, trusted := c.Now(); trusted {
		t.Error("a time that could not be kept is trusted")
	}
}

func TestKernelUptimeRises(t *testing.T) {
	a := Kernel{}.Uptime()
	b := Kernel{}.Uptime()
	if a <= 0 || b < a {
		t.Errorf("uptime %v then %v", a, b)
	}
}
