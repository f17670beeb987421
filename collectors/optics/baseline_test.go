package optics_test

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// memoryStore counts what is written to flash.
type memoryStore struct {
	data  []byte
	saves []time.Time
	now   *time.Time
	err   error
}

func (s *memoryStore) Load() ([]byte, error) { return s.data, s.err }

func (s *memoryStore) Save(data []byte) error {
	if s.err != nil {
		return s.err
	}
	s.data = slices.Clone(data)
	s.saves = append(s.saves, *s.now)
	return nil
}

// line is a simulated line, read every ten minutes.
type line struct {
	t     *testing.T
	now   time.Time
	store *memoryStore
	c     *optics.Collector
	r     optics.Reading

	events []string
	last   map[string]any
}

func newLine(t *testing.T) *line {
	t.Helper()
	l := &line{t: t, now: time.Unix(100, 0)}
	l.store = &memoryStore{now: &l.now}
	l.restart()
	return l
}

// restart is a new daemon on the same flash.
func (l *line) restart() {
	l.c = optics.New(optics.Options{
		Readers: []optics.Reader{fakeReader{name: "a", read: func(bool) (optics.Reading, error) { return l.r, nil }}},
		Now:     func() time.Time { return l.now },
	})
	l.c.Keep(l.store)
}

// state is a reading: level, laser current and transceiver.
func state(rx, bias float64, serial string) optics.Reading {
	r := reading("module:eth1", rx)
	q := func(v float64) collectors.Reading {
		return collectors.Reading{Value: v, Status: collectors.StatusOK, Source: "module:eth1"}
	}
	r.Bias, r.TxPower, r.Temperature = q(bias), q(2.0), q(45)
	r.Module = &optics.Identity{Vendor: "HUAWEI", PartNumber: "MA5671A", SerialNo: serial}
	return r
}

func (l *line) run(d time.Duration, r optics.Reading) {
	l.t.Helper()
	l.r = r
	for end := l.now.Add(d); l.now.Before(end); l.now = l.now.Add(10 * time.Minute) {
		samples, err := l.c.Collect(l.t.Context())
		if err != nil {
			l.t.Fatal(err)
		}
		l.last = flat(l.t, samples)
	}
	for _, ev := range drain(l.t, l.c) {
		l.events = append(l.events, ev.What+": "+ev.Before+" -> "+ev.After)
	}
}

func (l *line) days(n int, r optics.Reading) {
	l.t.Helper()
	l.run(time.Duration(n)*24*time.Hour, r)
}

func (l *line) expect(what string, events ...string) {
	l.t.Helper()
	if d := cmp.Diff(events, l.events); d != "" {
		l.t.Errorf("%s: events (-want +got):\n%s", what, d)
	}
	l.events = nil
}

func TestBaselineIsLearnedAndKept(t *testing.T) {
	l := newLine(t)
	good := state(-20, 12, "S1")
	l.days(2, good)
	if _, ok := l.last["rx_baseline_dbm"]; ok {
		t.Error("a baseline after two days")
	}
	l.days(1, good)
	if l.last["rx_baseline_dbm"] != -20.0 {
		t.Errorf("after three days %v", l.last)
	}
	l.days(4, good)
	l.expect("seven good days", "baseline: unknown -> -20.00 dBm")
	l.restart()
	l.run(20*time.Minute, state(-20.4, 12, "S1"))
	differ, ok := l.last["rx_baseline_difference_db"].(float64)
	if !ok || l.last["rx_baseline_dbm"] != -20.0 || math.Abs(differ+0.4) > 1e-9 || l.last["rx_trend"] != "steady" || l.last["laser"] != "steady" {
		t.Errorf("after a restart %v", l.last)
	}
	// A fall that the norm would not notice: compared with what was before the
	// restart.
	l.run(30*time.Minute, state(-23.5, 12, "S1"))
	l.expect("fallen", "rx_power: -20.40 dBm -> -23.50 dBm", "rx_baseline: near -> fallen")
	l.run(30*time.Minute, state(-22.8, 12, "S1"))
	l.expect("within the hysteresis")
	l.run(30*time.Minute, state(-20, 12, "S1"))
	l.expect("back", "rx_power: -23.50 dBm -> -20.00 dBm", "rx_baseline: fallen -> near")
}

func TestBaselineSparesFlash(t *testing.T) {
	l := newLine(t)
	l.days(60, state(-20, 12, "S1"))
	if n := len(l.store.saves); n < 58 || n > 60 {
		t.Errorf("saved %d times in 60 days", n)
	}
	if len(l.store.data) > 4096 {
		t.Errorf("%d bytes are kept", len(l.store.data))
	}
	// Restarted every hour nothing is written, restarted every night once a day.
	l.store.saves = nil
	for range 48 {
		l.restart()
		l.run(time.Hour, state(-20, 12, "S1"))
	}
	if len(l.store.saves) != 0 {
		t.Errorf("saved %d times between restarts", len(l.store.saves))
	}
	for range 5 {
		l.restart()
		l.days(1, state(-20, 12, "S1"))
	}
	if len(l.store.saves) != 5 {
		t.Errorf("saved %d times in 5 days with a restart every night", len(l.store.saves))
	}
}

func TestBaselineIsOfGoodDays(t *testing.T) {
	l := newLine(t)
	dark := state(math.NaN(), 12, "S1")
	broken := optics.Unread("module:eth1", collectors.StatusUntrusted)
	l.days(3, dark)
	l.days(2, broken)
	l.days(2, state(-26, 12, "S1"))
	l.run(12*time.Hour, state(-20, 12, "S1"))
	l.run(12*time.Hour, dark)
	if l.store.data != nil {
		t.Errorf("learned from bad days: %s", l.store.data)
	}
	l.run(10*time.Hour, state(-20, 12, "S1"))
	l.run(4*time.Hour, state(-24, 12, "S1"))
	l.run(10*time.Hour, state(-20, 12, "S1"))
	l.days(3, state(-20, 12, "S1"))
	if l.last["rx_baseline_dbm"] != -20.0 {
		t.Errorf("the median of a day is off: %v", l.last["rx_baseline_dbm"])
	}
}

func TestSlowDrift(t *testing.T) {
	l := newLine(t)
	l.days(7, state(-20, 12, "S1"))
	l.expect("learned", "baseline: unknown -> -20.00 dBm")
	for day := range 20 {
		l.days(1, state(-20-0.1*float64(day+1), 12, "S1"))
	}
	l.expect("0.1 dB a day", "rx_trend: steady -> falling")
	l.restart()
	l.days(3, state(-22, 12, "S1"))
	l.expect("not told again after a restart")
	l.days(9, state(-20.2, 12, "S1"))
	l.expect("mended", "rx_trend: falling -> steady")
}

func TestLaserAgeing(t *testing.T) {
	learned := func() *line {
		l := newLine(t)
		l.days(7, state(-20, 12, "S1"))
		l.events = nil
		return l
	}
	l := learned()
	l.days(3, state(-20, 14, "S1"))
	l.expect("a little more")
	l.days(3, state(-20, 15.5, "S1"))
	l.expect("ageing", "laser: steady -> ageing")
	if l.last["laser"] != "ageing" {
		t.Errorf("fields %v", l.last)
	}

	// More power explains more current, and so does heat.
	l = learned()
	r := state(-20, 18, "S1")
	r.TxPower.Value = 3
	l.days(5, r)
	l.expect("more power")
	l = learned()
	r = state(-20, 18, "S1")
	r.Temperature.Value = 60
	l.days(5, r)
	l.expect("hot")
	l = learned()
	r = state(-20, 18, "S1")
	r.TxPower.Value = 0.5
	l.days(3, r)
	l.expect("less power for more current", "laser: steady -> ageing")
}

func TestBaselineOfAnotherModule(t *testing.T) {
	l := newLine(t)
	l.days(7, state(-20, 12, "S1"))
	l.events = nil
	l.run(time.Hour, state(-16, 12, "S2"))
	if _, ok := l.last["rx_baseline_dbm"]; ok {
		t.Error("another module is compared with the baseline of the first")
	}
	l.days(1, state(-20, 12, "S1"))
	if l.last["rx_baseline_dbm"] != -20.0 {
		t.Errorf("the baseline was given up for an hour: %v", l.last)
	}
	l.events = nil
	l.days(10, state(-16, 12, "S2"))
	l.expect(
		"another module", "module: HUAWEI MA5671A S1 -> HUAWEI MA5671A S2", "rx_power: -20.00 dBm -> -16.00 dBm",
		"baseline: module:eth1 HUAWEI MA5671A S1 -> module:eth1 HUAWEI MA5671A S2", "baseline: unknown -> -16.00 dBm",
	)
	if l.last["rx_baseline_dbm"] != -16.0 {
		t.Errorf("fields %v", l.last)
	}
}

func TestBaselineDamagedStore(t *testing.T) {
	l := newLine(t)
	l.days(7, state(-20, 12, "S1"))
	whole := l.store.data
	for name, data := range map[string]string{
		"cut":         string(whole[:len(whole)-5]),
		"not JSON":    "\x00\x00\x00",
		"other":       `{"v":2}`,
		"impossible":  strings.Replace(string(whole), `"rx":-20`, `"rx":-200`, 1),
		"trend":       strings.Replace(string(whole), `"trend":"steady"`, `"trend":"sideways"`, 1),
		"huge":        string(whole) + strings.Repeat(" ", 1<<20),
		"only recent": `{"v":1,"first":[],"last":[{"rx":-20}],"trend":"steady","laser":"steady"}`,
	} {
		l.store.data = []byte(data)
		l.restart()
		l.run(time.Hour, state(-20, 12, "S1"))
		if _, ok := l.last["rx_baseline_dbm"]; ok {
			t.Errorf("%s: believed", name)
		}
	}
	l.store.data, l.store.err = nil, errors.New("flash is worn")
	l.restart()
	l.days(8, state(-20, 12, "S1"))
	if l.last["rx_baseline_dbm"] != -20.0 {
		t.Errorf("nothing learned without a store: %v", l.last)
	}
}

func TestLimitEvents(t *testing.T) {
	class, _ := optics.ClassByName("B+")
	var now float64
	c := optics.New(optics.Options{
		Readers: []optics.Reader{fakeReader{name: "a", read: func(bool) (optics.Reading, error) { return reading("a", now), nil }}},
		Class:   &class,
	})
	for _, now = range []float64{-26, -26, -27.1, -26.9, -27.1, -26.8, -27.1, -26.8, -26.4, -26.4} {
		if _, err := c.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, ev := range drain(t, c) {
		if strings.HasPrefix(ev.What, "limit_") {
			got = append(got, ev.What+": "+ev.Before+" -> "+ev.After)
		}
	}
	if d := cmp.Diff([]string{"limit_class_low: clear -> active", "limit_class_low: active -> clear"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func FuzzHistory(f *testing.F) {
	seed, err := json.Marshal(map[string]any{
		"v": 1, "key": "module:eth1", "first": []any{map[string]any{"rx": -20, "tx": 2, "bias": 12, "temp": 45}},
		"last": []any{}, "trend": "steady", "laser": "steady",
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if optics.ParseHistory(data) != nil {
			return
		}
		// Whatever is believed can be gone on with.
		l := newLine(t)
		l.store.data = data
		l.restart()
		l.days(2, state(-20, 12, "S1"))
	})
}
