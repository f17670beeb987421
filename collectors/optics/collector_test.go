package optics_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// fakeReader returns what its function does.
type fakeReader struct {
	name string
	read func(fresh bool) (optics.Reading, error)
}

func (f fakeReader) Name() string { return f.name }

func (f fakeReader) ReadOptics(context.Context) (optics.Reading, error) { return f.read(false) }

func (f fakeReader) ReadOpticsFresh(context.Context) (optics.Reading, error) { return f.read(true) }

// reading is a Reading with a received power; NaN means dark, and a status
// may say otherwise.
func reading(source string, rx float64, status ...collectors.Status) optics.Reading {
	r := optics.Unread(source, collectors.StatusUnsupported)
	r.RxPower = collectors.Reading{Value: rx, Unit: "dBm", Status: collectors.StatusOK, Source: source, Raw: "raw"}
	if math.IsNaN(rx) {
		r.RxPower.Value, r.RxPower.Status = 0, collectors.StatusNoLight
	}
	if len(status) > 0 {
		r.RxPower.Value, r.RxPower.Status = 0, status[0]
	}
	return r
}

func always(r optics.Reading, err error) fakeReader {
	return fakeReader{name: r.Source, read: func(bool) (optics.Reading, error) { return r, err }}
}

var errI2C = errors.New("I2C error")

func TestCollectorChoosesSource(t *testing.T) {
	none := fakeReader{name: "none", read: func(bool) (optics.Reading, error) {
		return optics.Reading{}, fmt.Errorf("no module: %w", collectors.ErrNoData)
	}}
	tests := []struct {
		name    string
		readers []optics.Reader
		source  string
		status  collectors.Status
		check   string
		err     bool
	}{
		{"one", []optics.Reader{always(reading("a", -20), nil)}, "a", collectors.StatusOK, "", false},
		{"best first", []optics.Reader{always(reading("a", -20), nil), always(reading("b", -20.5), nil)}, "a", collectors.StatusOK, "agree", false},
		{"disagree", []optics.Reader{always(reading("a", -20), nil), always(reading("b", -24), nil)}, "a", collectors.StatusOK, "disagree", false},
		{"light against dark", []optics.Reader{always(reading("a", math.NaN()), nil), always(reading("b", -20), nil)}, "a", collectors.StatusNoLight, "disagree", false},
		{"dark below resolution", []optics.Reader{always(reading("a", -36), nil), always(reading("b", math.NaN()), nil)}, "a", collectors.StatusOK, "agree", false},
		{"both dark", []optics.Reader{always(reading("a", math.NaN()), nil), always(reading("b", math.NaN()), nil)}, "a", collectors.StatusNoLight, "agree", false},
		{"best is broken", []optics.Reader{always(reading("a", 0, collectors.StatusUntrusted), nil), always(reading("b", -20), nil)}, "b", collectors.StatusOK, "", false},
		{"best cannot", []optics.Reader{always(reading("a", 0, collectors.StatusUnsupported), nil), always(reading("b", 0, collectors.StatusError), errI2C)}, "b", collectors.StatusError, "", true},
		{"absent", []optics.Reader{none, always(reading("b", -20), nil)}, "b", collectors.StatusOK, "", false},
		{"fails without a reading", []optics.Reader{fakeReader{name: "a", read: func(bool) (optics.Reading, error) {
			return optics.Reading{}, errI2C
		}}}, "a", collectors.StatusError, "", true},
		{"the third disagrees", []optics.Reader{always(reading("a", -20), nil), always(reading("b", -20), nil), always(reading("c", -30), nil)}, "a", collectors.StatusOK, "disagree", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := optics.New(optics.Options{Readers: tt.readers})
			samples, err := c.Collect(t.Context())
			if (err != nil) != tt.err || tt.err && !errors.Is(err, errI2C) {
				t.Errorf("error %v", err)
			}
			f := flat(t, samples)
			if f["rx_power_source"] != tt.source || f["rx_power_status"] != string(tt.status) {
				t.Errorf("fields %v", f)
			}
			if _, ok := f["rx_power_dbm"]; ok != (tt.status == collectors.StatusOK) {
				t.Errorf("rx_power_dbm %v with status %q", f["rx_power_dbm"], tt.status)
			}
			got, _ := f["cross_check"].(string)
			if got != tt.check {
				t.Errorf("cross_check %q, want %q", got, tt.check)
			}
		})
	}
}

// flat makes a map of the only sample and checks that keys are unique and
// values can travel.
func flat(t *testing.T, samples []collectors.Sample) map[string]any {
	t.Helper()
	if len(samples) != 1 {
		t.Fatalf("%d samples", len(samples))
	}
	out := map[string]any{}
	for _, f := range samples[0].Fields {
		if _, twice := out[f.Key]; twice {
			t.Errorf("field %s twice", f.Key)
		}
		switch v := f.Value.(type) {
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("field %s is %v", f.Key, v)
			}
		case string, bool, int64, uint64:
		default:
			t.Errorf("field %s is a %T", f.Key, v)
		}
		out[f.Key] = f.Value
	}
	return out
}

func TestCollectorFields(t *testing.T) {
	r := reading("module:eth1", -19.25)
	r.RxPower.Raw = "0x0077"
	r.TxPower = collectors.Reading{Unit: "dBm", Status: collectors.StatusNoLight, Source: "module:eth1", Raw: "0x0000"}
	r.Bias = collectors.Reading{Value: 0, Unit: "mA", Status: collectors.StatusOK}
	r.Temperature = collectors.Reading{Value: -5.25, Unit: "Cel", Status: collectors.StatusOK}
	r.Voltage = collectors.Reading{Unit: "V", Status: collectors.StatusError}
	r.Alarms, r.AlarmsKnown = []string{"bias_low", "rx_low"}, true
	r.WarningsKnown = true
	r.Thresholds = &optics.Thresholds{RxPower: optics.Limits{AlarmLow: optics.Limit{Value: -28.9, Known: true}}}
	samples, err := optics.New(optics.Options{Readers: []optics.Reader{always(r, nil)}}).Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []collectors.Sample{{Fields: []collectors.Field{
		{Key: "rx_power_dbm", Value: -19.25},
		{Key: "rx_power_status", Value: "ok"},
		{Key: "rx_power_source", Value: "module:eth1"},
		{Key: "rx_power_raw", Value: "0x0077"},
		{Key: "tx_power_status", Value: "no_light"},
		{Key: "tx_power_source", Value: "module:eth1"},
		{Key: "tx_power_raw", Value: "0x0000"},
		{Key: "bias_ma", Value: 0.0},
		{Key: "bias_status", Value: "ok"},
		{Key: "temperature_celsius", Value: -5.25},
		{Key: "temperature_status", Value: "ok"},
		{Key: "voltage_status", Value: "error"},
		{Key: "alarms", Value: "bias_low,rx_low"},
		{Key: "warnings", Value: ""},
		{Key: "rx_alarm_low_dbm", Value: -28.9},
		{Key: "rx_level", Value: "normal"},
		{Key: "rx_margin_db", Value: 5.75},
		{Key: "rx_accuracy_db", Value: 3.0},
		{Key: "rx_receiver_margin_db", Value: 9.65},
		{Key: "rx_beyond", Value: ""},
	}}}
	if d := cmp.Diff(want, samples, cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestCollectorNoSource(t *testing.T) {
	for name, readers := range map[string][]optics.Reader{
		"none":   nil,
		"absent": {always(optics.Reading{Source: "a"}, collectors.ErrNoData)},
	} {
		c := optics.New(optics.Options{Readers: readers})
		if samples, err := c.Collect(t.Context()); !errors.Is(err, collectors.ErrNoData) || samples != nil {
			t.Errorf("%s: %v, %v", name, samples, err)
		}
		if _, _, err := c.Read(t.Context()); !errors.Is(err, collectors.ErrNoData) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadIsFresh(t *testing.T) {
	c := optics.New(optics.Options{Readers: []optics.Reader{fakeReader{name: "a", read: func(fresh bool) (optics.Reading, error) {
		if fresh {
			return reading("a", -21), nil
		}
		return reading("a", -20), nil
	}}, always(reading("b", -22), nil)}})
	best, others, err := c.Read(t.Context())
	if err != nil || best.RxPower.Value != -21 || len(others) != 1 || others[0].Source != "b" {
		t.Errorf("got %+v, %+v, %v", best.RxPower, others, err)
	}
}

// changes feeds readings and returns "what: before -> after" of the events.
func changes(t *testing.T, readings ...optics.Reading) []string {
	t.Helper()
	var now optics.Reading
	c := optics.New(optics.Options{Readers: []optics.Reader{fakeReader{name: "a", read: func(bool) (optics.Reading, error) {
		return now, nil
	}}}})
	for _, r := range readings {
		now = r
		if _, err := c.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var out []string
	for _, ev := range drain(t, c) {
		out = append(out, ev.What+": "+ev.Before+" -> "+ev.After)
		if ev.Type != "optics" {
			t.Errorf("event %+v", ev)
		}
	}
	return out
}

// drain takes the events that wait.
func drain(t *testing.T, c *optics.Collector) []collectors.Event {
	t.Helper()
	var out []collectors.Event
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.Watch(ctx, func(ev collectors.Event) { out = append(out, ev) })
	}()
	for c.Waiting() > 0 {
		select {
		case err := <-done:
			t.Fatalf("watch ended: %v", err)
		default:
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v", err)
	}
	return out
}

func TestCollectorEvents(t *testing.T) {
	levels := func(dBm ...float64) (out []optics.Reading) {
		for _, v := range dBm {
			out = append(out, reading("a", v))
		}
		return out
	}
	dark := math.NaN()
	alarm := func(names ...string) optics.Reading {
		r := reading("a", -20)
		r.Alarms, r.AlarmsKnown = names, true
		return r
	}
	unknown := reading("a", -20)
	tests := []struct {
		name     string
		readings []optics.Reading
		want     []string
	}{
		{"steady", levels(-20, -20.3, -19.8, -20), nil},
		{"one dark sample", levels(-20, -20, dark, -20, -20), nil},
		{"dark", levels(-20, -20, dark, dark, dark), []string{"rx_power_status: ok -> no_light"}},
		{"dark and back", levels(-20, -20, dark, dark, -20, -20), []string{"rx_power_status: ok -> no_light", "rx_power_status: no_light -> ok"}},
		{"dark two of three", levels(-20, -20, dark, -20, dark), []string{"rx_power_status: ok -> no_light"}},
		{"dark from the start", levels(dark, dark), []string{"rx_power_status: unknown -> no_light"}},
		{"step down", levels(-20, -20, -23.5, -23.5, -23.5), []string{"rx_power: -20.00 dBm -> -23.50 dBm"}},
		{"one low sample", levels(-20, -20, -24, -20, -20), nil},
		{"step up", levels(-24, -24, -20, -20), []string{"rx_power: -24.00 dBm -> -20.00 dBm"}},
		{"slow fall", levels(-20, -20, -20.5, -21, -21.5, -22, -22.5, -23, -23.5), []string{"rx_power: -20.00 dBm -> -23.00 dBm"}},
		{"too weak", levels(-24, -24, -25, -25), []string{"rx_level: normal -> low"}},
		{"around the limit", levels(-24.9, -24.9, -25.1, -25.1, -24.9, -24.8, -25, -24.9), []string{"rx_level: normal -> low"}},
		{"weak and back", levels(-24.9, -25.1, -25.1, -24.4, -24.4), []string{"rx_level: unknown -> low", "rx_level: low -> normal"}},
		{"too strong", levels(-8, -8, -7.9, -7.9), []string{"rx_level: normal -> high"}},
		{
			"alarm",
			[]optics.Reading{alarm(), alarm(), alarm("rx_low"), alarm("rx_low"), alarm(), alarm()},
			[]string{"alarm_rx_low: clear -> active", "alarm_rx_low: active -> clear"},
		},
		{"alarm flashes", []optics.Reading{alarm(), alarm("rx_low"), alarm(), alarm(), alarm("rx_low"), alarm()}, nil},
		{
			"alarms not known for a while",
			[]optics.Reading{alarm("rx_low"), alarm("rx_low"), unknown, unknown, unknown},
			[]string{"alarm_rx_low: clear -> active"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, changes(t, tt.readings...)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestCollectorCrossCheckEvent(t *testing.T) {
	other := -20.0
	c := optics.New(optics.Options{Readers: []optics.Reader{
		always(reading("a", -20), nil),
		fakeReader{name: "b", read: func(bool) (optics.Reading, error) { return reading("b", other), nil }},
	}})
	for _, other = range []float64{-20, -21, -26, -21, -26, -26} {
		if _, err := c.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	events := drain(t, c)
	if len(events) != 1 || events[0].What != "cross_check" || events[0].Before != "agree" || events[0].After != "disagree" {
		t.Errorf("events %+v", events)
	}
}

// A daemon that nobody watches does not grow.
func TestCollectorEventsBounded(t *testing.T) {
	n := 0
	c := optics.New(optics.Options{Readers: []optics.Reader{fakeReader{name: "a", read: func(bool) (optics.Reading, error) {
		n++
		if n/2%2 == 0 {
			return reading("a", -20), nil
		}
		return reading("a", math.NaN()), nil
	}}}})
	for range 1000 {
		if _, err := c.Collect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Waiting(); got != 64 {
		t.Errorf("%d events wait", got)
	}
}

func TestCollectorCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := optics.New(optics.Options{Readers: []optics.Reader{
		fakeReader{name: "a", read: func(bool) (optics.Reading, error) {
			cancel()
			return optics.Unread("a", collectors.StatusError), ctx.Err()
		}},
		fakeReader{name: "b", read: func(bool) (optics.Reading, error) { panic("asked after the end") }},
	}})
	if samples, err := c.Collect(ctx); !errors.Is(err, context.Canceled) || samples != nil {
		t.Errorf("got %v, %v", samples, err)
	}
}

// What the best source cannot tell comes from the next that can, under its own
// name; what it can tell is left alone.
func TestCollectorFillsInFromOthers(t *testing.T) {
	q := func(v float64, unit, source string) collectors.Reading {
		return collectors.Reading{Value: v, Unit: unit, Status: collectors.StatusOK, Source: source}
	}
	best, second, third := reading("a", -20), reading("b", -20.2), reading("c", -20.1)
	best.TxPower = q(2, "dBm", "a")
	second.TxPower, second.Bias = q(9, "dBm", "b"), q(12, "mA", "b")
	third.Bias, third.Voltage = q(99, "mA", "c"), q(3.3, "V", "c")
	third.Temperature.Status = collectors.StatusUntrusted
	c := optics.New(optics.Options{Readers: []optics.Reader{always(best, nil), always(second, nil), always(third, nil)}})
	samples, err := c.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := flat(t, samples)
	for key, want := range map[string]any{
		"rx_power_dbm": -20.0, "rx_power_source": "a", "tx_power_dbm": 2.0, "tx_power_source": "a",
		"bias_ma": 12.0, "bias_source": "b", "voltage_v": 3.3, "voltage_source": "c",
		"temperature_status": "unsupported", "temperature_source": nil, "temperature_celsius": nil,
	} {
		if f[key] != want {
			t.Errorf("%s is %v, want %v", key, f[key], want)
		}
	}
	// Who asks for each source gets what each said.
	got, _, err := c.Read(t.Context())
	if err != nil || got.Bias.OK() {
		t.Errorf("read %+v, %v", got, err)
	}
}

// Coarse numbers that may mean the same do not disagree.
func TestCollectorComparesWithinResolution(t *testing.T) {
	for _, tt := range []struct {
		module, hwmon float64
		want          string
	}{
		{-20, -20.2, "agree"},
		{-33, -30, "agree"},      // 0.5 uW rounded to 1
		{-33.1, -29.9, "agree"},  // as before, 3.2 dB apart
		{-20, -23.5, "disagree"}, // 4.5 uW and 10
		{-36, -27, "disagree"},   // 0.25 uW and 2
		{-10, -13.2, "disagree"}, // 48 uW are known well
	} {
		fine, coarse := reading("module", tt.module), reading("hwmon", tt.hwmon)
		fine.ResolutionMicrowatts, coarse.ResolutionMicrowatts = 0.1, 1
		samples, err := optics.New(optics.Options{Readers: []optics.Reader{always(fine, nil), always(coarse, nil)}}).Collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if f := flat(t, samples); f["cross_check"] != tt.want || f["rx_power_resolution_uw"] != 0.1 {
			t.Errorf("%v and %v dBm: %v, want %s", tt.module, tt.hwmon, f["cross_check"], tt.want)
		}
	}
}

func TestCollectorLanes(t *testing.T) {
	r := optics.Unread("module:eth1", collectors.StatusUnsupported)
	lane := func(rx float64) optics.Lane {
		l := optics.Lane{RxPower: reading("m", rx).RxPower}
		l.TxPower = collectors.Reading{Value: 1, Unit: "dBm", Status: collectors.StatusOK}
		return l
	}
	for name, tt := range map[string]struct {
		lanes []optics.Lane
		want  any
	}{
		"all lit":    {[]optics.Lane{lane(-3), lane(-4)}, "ok"},
		"in between": {[]optics.Lane{lane(-3), lane(math.NaN())}, nil},
		"all dark":   {[]optics.Lane{lane(math.NaN()), lane(math.NaN())}, "no_light"},
	} {
		r.Lanes = tt.lanes
		samples, err := optics.New(optics.Options{Readers: []optics.Reader{always(r, nil)}}).Collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f := flat(t, samples)
		if f["lanes_status"] != tt.want || f["rx_power_status"] != "unsupported" || f["rx_power_dbm"] != nil || f["lanes"] != int64(2) || f["lane2_tx_power_dbm"] != 1.0 {
			t.Errorf("%s: %v", name, f)
		}
	}
}

func TestCollectorModuleEvents(t *testing.T) {
	module := func(vendor, part, serial string) optics.Reading {
		r := reading("module:eth1", -20)
		r.Module = &optics.Identity{Vendor: vendor, PartNumber: part, SerialNo: serial}
		return r
	}
	a, b := module("HUAWEI", "MA5671A", "HWTC1"), module("OEM", "GPON STICK", "X2")
	unknown := reading("module:eth1", 0, collectors.StatusUntrusted)
	type step struct {
		r   optics.Reading
		err error
	}
	gone := step{optics.Reading{}, collectors.ErrNoData}
	tests := []struct {
		name  string
		steps []step
		want  []string
	}{
		{"the same", []step{{a, nil}, {a, nil}}, nil},
		{"from the start", []step{{a, nil}}, nil},
		{"never any", []step{gone, gone}, nil},
		{"plugged in", []step{gone, {a, nil}}, []string{"module: none -> HUAWEI MA5671A HWTC1"}},
		{"pulled out", []step{{a, nil}, gone, gone}, []string{"module: HUAWEI MA5671A HWTC1 -> none"}},
		{"changed", []step{{a, nil}, {b, nil}}, []string{"module: HUAWEI MA5671A HWTC1 -> OEM GPON STICK X2"}},
		{"bus error", []step{{a, nil}, {optics.Unread("module:eth1", collectors.StatusError), errI2C}, {a, nil}}, nil},
		{"broken read", []step{{a, nil}, {unknown, nil}, {a, nil}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var now step
			c := optics.New(optics.Options{Readers: []optics.Reader{fakeReader{name: "module:eth1", read: func(bool) (optics.Reading, error) {
				return now.r, now.err
			}}}})
			for _, now = range tt.steps {
				if _, err := c.Collect(t.Context()); !errors.Is(err, now.err) {
					t.Fatal(err)
				}
			}
			var got []string
			for _, ev := range drain(t, c) {
				if ev.What == "module" {
					got = append(got, ev.What+": "+ev.Before+" -> "+ev.After)
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
