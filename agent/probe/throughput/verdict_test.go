package throughput

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// asked is a run that was asked for.
type asked struct {
	from   string
	window time.Duration
}

// settled settles a first measurement of Down with what further runs give.
func settled(t *testing.T, o Options, first Measurement, further ...Measurement) (Rate, []asked) {
	t.Helper()
	o.URL = "http://first.example/"
	o = o.normalised()
	var runs []asked
	r := &runner{o: &o}
	r.once = func(_ context.Context, from string, _ Direction, window time.Duration) (Measurement, error) {
		runs = append(runs, asked{from, window})
		if len(runs) > len(further) {
			t.Fatalf("asked for %v", runs)
		}
		m := further[len(runs)-1]
		if m.TCPMbps != nil {
			m.DurationS = window.Seconds()
		}
		return m, nil
	}
	rate := &Rate{Measurement: first, ContractMbps: o.ContractDownMbps}
	if err := r.settle(t.Context(), rate, o.URL, Down); err != nil {
		t.Fatal(err)
	}
	return *rate, runs
}

// at is a run like slowLine, of a rate.
func ofRate(mbps float64) Measurement {
	m := slowLine(Down)
	m.TCPMbps = &mbps
	m.Mbps = nil
	for range 10 {
		m.Mbps = append(m.Mbps, mbps)
	}
	m.Spread = spread(m.Mbps)
	each(&m, func(c *Connection) { c.Mbps = mbps / 4 })
	return m
}

func TestSettle(t *testing.T) {
	const same, second = "http://first.example/", "http://second.example/"
	other := func(m Measurement) Measurement {
		m.Server = netip.MustParseAddrPort("198.51.100.1:80")
		return m
	}
	broken := Measurement{Error: "it is broken", cut: LimitShort}
	contract := Options{ContractDownMbps: 100}
	withSecond := Options{ContractDownMbps: 100, SecondURL: second}
	whole, short := 10*time.Second, 5*time.Second
	for name, tt := range map[string]struct {
		o       Options
		first   Measurement
		further []Measurement
		asked   []asked
		verdict Verdict
		limit   Limit
		mbps    float64
	}{
		"no contract":    {first: ofRate(80), verdict: Measured, limit: LimitLine, mbps: 80},
		"clearly passed": {o: contract, first: ofRate(95), verdict: Pass, limit: LimitLine, mbps: 95},
		"failed to measure": {
			o: contract, first: broken, verdict: Inconclusive, limit: LimitShort,
		},
		"below twice": {
			o: contract, first: ofRate(80), further: []Measurement{ofRate(80)}, asked: []asked{{same, short}},
			verdict: Fail, limit: LimitLine, mbps: 80,
		},
		"below at both servers": {
			o: withSecond, first: ofRate(80), further: []Measurement{other(ofRate(81))}, asked: []asked{{second, short}},
			verdict: Fail, limit: LimitLine, mbps: 80,
		},
		"the second server is faster": {
			o: withSecond, first: ofRate(80), further: []Measurement{other(ofRate(95))}, asked: []asked{{second, short}},
			verdict: Inconclusive, limit: LimitServer, mbps: 80,
		},
		"the second run fails": {
			o: contract, first: ofRate(80), further: []Measurement{broken}, asked: []asked{{same, short}},
			verdict: Inconclusive, limit: LimitLine, mbps: 80,
		},
		"borderline, and passes by the median": {
			o: contract, first: ofRate(89.5), further: []Measurement{ofRate(91), ofRate(90.5)}, asked: []asked{{same, whole}, {same, whole}},
			verdict: Pass, limit: LimitLine, mbps: 90.5,
		},
		"borderline, and fails by the median": {
			o: contract, first: ofRate(90.1), further: []Measurement{ofRate(89), ofRate(88)}, asked: []asked{{same, whole}, {same, whole}},
			verdict: Fail, limit: LimitLine, mbps: 89,
		},
		"borderline, below, and the other server is faster": {
			o: withSecond, first: ofRate(90.1), further: []Measurement{ofRate(89), ofRate(88), other(ofRate(99))},
			asked:   []asked{{same, whole}, {same, whole}, {second, short}},
			verdict: Inconclusive, limit: LimitServer, mbps: 89,
		},
		"borderline, and cannot be repeated": {
			o: contract, first: ofRate(89.5), further: []Measurement{broken, ofRate(89.5)}, asked: []asked{{same, whole}, {same, short}},
			verdict: Fail, limit: LimitLine, mbps: 89.5,
		},
		"below because of the device": {
			o: contract, first: func() Measurement { m := ofRate(80); m.Conditions.PeakCore = new(1.0); return m }(),
			verdict: Inconclusive, limit: LimitDeviceCPU, mbps: 80,
		},
	} {
		rate, runs := settled(t, tt.o, tt.first, tt.further...)
		if diff := cmp.Diff(tt.asked, runs, cmp.AllowUnexported(asked{})); diff != "" {
			t.Errorf("%s: runs (-want +got)\n%s", name, diff)
		}
		got := 0.0
		if rate.TCPMbps != nil {
			got = *rate.TCPMbps
		}
		if rate.Verdict != tt.verdict || rate.LimitedBy != tt.limit || got != tt.mbps {
			t.Errorf("%s: %s by %q with %v: %s", name, rate.Verdict, rate.LimitedBy, got, rate.Reason)
		}
		if n := len(rate.Runs); n != len(runs)+1 && (n != 0 || len(runs) > 0) {
			t.Errorf("%s: %d runs are told", name, n)
		}
		if (rate.Reason == "") != (rate.Verdict == Pass) && rate.Verdict != Measured {
			t.Errorf("%s: reason %q", name, rate.Reason)
		}
	}
}

func TestSettleEndsWithItsContext(t *testing.T) {
	o := Options{URL: "http://a/", ContractDownMbps: 100}.normalised()
	r := &runner{o: &o}
	r.once = func(context.Context, string, Direction, time.Duration) (Measurement, error) {
		return Measurement{}, context.Canceled
	}
	for _, mbps := range []float64{80, 89.5} {
		rate := &Rate{Measurement: ofRate(mbps), ContractMbps: 100}
		if err := r.settle(t.Context(), rate, o.URL, Down); !errors.Is(err, context.Canceled) {
			t.Errorf("%v: %v", mbps, err)
		}
	}
}

func TestConcludeTakesTheWorse(t *testing.T) {
	pass, fail := &Rate{Verdict: Pass}, &Rate{Verdict: Fail, Reason: "slow"}
	open, measured := &Rate{Verdict: Inconclusive, Reason: "busy"}, &Rate{Verdict: Measured}
	for i, tt := range []struct {
		down, up *Rate
		want     Verdict
		reason   string
	}{
		{pass, pass, Pass, ""},
		{pass, nil, Pass, ""},
		{nil, measured, Measured, ""},
		{measured, pass, Pass, ""},
		{pass, open, Inconclusive, "busy"},
		{fail, open, Fail, "slow"},
		{open, fail, Fail, "slow"},
	} {
		r := &runner{res: Result{Down: tt.down, Up: tt.up}}
		r.conclude()
		if r.res.Verdict != tt.want || r.res.Reason != tt.reason {
			t.Errorf("%d: %s, %q", i, r.res.Verdict, r.res.Reason)
		}
	}
}
