package consumer

import (
	"strings"
	"testing"
	"time"

	"ontagent/transport"
)

func replace(t *testing.T, s, old, with string) string {
	t.Helper()
	out := strings.Replace(s, old, with, 1)
	if out == s {
		t.Fatalf("no %s in %s", old, s)
	}
	return out
}

// tell observes an event at an uptime with a clock that says wall.
func (s *script) tell(epoch, seq uint64, up time.Duration, wall time.Time, quality string) Outcome {
	h := header(transport.ClassEvent, epoch, seq)
	h.UptimeS, h.TimeMS, h.Clock = up.Seconds(), wall.UnixMilli(), quality
	return s.Observe(s.at, h, transport.KindEvent, "sync", []byte(`{}`))
}

func TestEpochIsDatedOnceItsClockIsSet(t *testing.T) {
	s := newScript(t, Options{})
	boot := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if o := s.tell(4, 1, time.Minute, time.Unix(60, 0), transport.ClockNone); o.Dated {
		t.Errorf("%+v", o)
	}
	if d := s.Date(4, 60); d.Quality != QualityNone || !d.Time.IsZero() {
		t.Errorf("%+v", d)
	}
	if o := s.tell(4, 2, time.Hour, boot.Add(time.Hour), transport.ClockNTP); !o.Dated {
		t.Errorf("%+v", o)
	}
	d := s.Date(4, 60)
	if d.Quality != QualityDerived || !d.Time.Equal(boot.Add(time.Minute)) || d.Error < 350*time.Millisecond || d.Error > time.Second {
		t.Errorf("%+v", d)
	}
	if d := s.Date(5, 60); d.Quality != QualityNone {
		t.Errorf("another epoch: %+v", d)
	}
	if d := s.Date(4, 3600.5); d.Error > 2*resolution || !d.Time.Equal(boot.Add(time.Hour+500*time.Millisecond)) {
		t.Errorf("%+v", d)
	}
	// The clock is slewed a little, hour by hour: the nearest reading counts.
	for i := range 100 {
		up := time.Duration(i+2) * time.Hour
		if o := s.tell(4, uint64(3+i), up, boot.Add(up+time.Duration(i)*10*time.Millisecond), transport.ClockNTP); o.Dated {
			t.Fatalf("%d: %+v", i, o)
		}
	}
	if n := len(s.find(4).clock.readings); n > maxReadings {
		t.Errorf("%d readings", n)
	}
	if d := s.Date(4, 60); !d.Time.Equal(boot.Add(time.Minute)) {
		t.Errorf("%+v", d)
	}
	if d := s.Date(4, (101 * time.Hour).Seconds()); !d.Time.Equal(boot.Add(101*time.Hour + 990*time.Millisecond)) {
		t.Errorf("%+v", d)
	}
}

func TestClockThatIsSetAnewDatesAnew(t *testing.T) {
	s := newScript(t, Options{})
	boot := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	wrong := boot.AddDate(56, 0, 0)
	s.tell(4, 1, time.Minute, wrong.Add(time.Minute), transport.ClockNTP)
	if d := s.Date(4, 30); !d.Time.Equal(wrong.Add(30 * time.Second)) {
		t.Errorf("%+v", d)
	}
	if o := s.tell(4, 3, 3*time.Minute, boot.Add(3*time.Minute), transport.ClockNTP); !o.Dated {
		t.Errorf("%+v", o)
	}
	if o := s.tell(4, 2, 2*time.Minute, wrong.Add(2*time.Minute), transport.ClockNTP); o.Dated { // comes late
		t.Errorf("%+v", o)
	}
	if d := s.Date(4, 30); !d.Time.Equal(boot.Add(30*time.Second)) || d.Quality != QualityDerived {
		t.Errorf("%+v", d)
	}
	s.tell(4, 4, 4*time.Minute, boot.Add(4*time.Minute-time.Hour), transport.ClockNTP)
	if d := s.Date(4, 30); !d.Time.Equal(boot.Add(30*time.Second - time.Hour)) {
		t.Errorf("%+v", d)
	}
	// A message with a set clock is dated by that.
	h := transport.Header{V: 1, Device: device, Epoch: 4, UptimeS: 60, TimeMS: wrong.UnixMilli(), Clock: transport.ClockNTP}
	if d := s.DateOf(h); d.Quality != QualityNTP || !d.Time.Equal(wrong) {
		t.Errorf("%+v", d)
	}
	h.Clock = transport.ClockFloor
	if d := s.DateOf(h); d.Quality != QualityDerived {
		t.Errorf("%+v", d)
	}
}

func TestAbsurdClocksAreNotBelieved(t *testing.T) {
	s := newScript(t, Options{})
	for i, h := range []transport.Header{
		{UptimeS: 1, TimeMS: 0}, {UptimeS: 1, TimeMS: -1 << 63}, {UptimeS: 1, TimeMS: 1<<63 - 1}, {UptimeS: 1e300, TimeMS: start.UnixMilli()},
	} {
		h.V, h.Device, h.Epoch, h.Class, h.Seq, h.Clock = 1, device, 4, transport.ClassEvent, uint64(i)+1, transport.ClockNTP
		if o := s.Observe(s.at, h, transport.KindEvent, "sync", nil); o.Dated {
			t.Errorf("%+v", h)
		}
	}
	if d := s.Date(4, 1e300); d.Quality != QualityNone {
		t.Errorf("%+v", d)
	}
}
