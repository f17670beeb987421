package throughput

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// course of samples: a rate in Mbit/s for each quarter of a second.
func samplesOf(mbps ...float64) []sample {
	s := []sample{{at: time.Unix(1000, 0)}}
	for _, r := range mbps {
		last := s[len(s)-1]
		s = append(s, sample{at: last.at.Add(sampleInterval), bytes: last.bytes + uint64(r*1e6/8/4)})
	}
	return s
}

func TestStable(t *testing.T) {
	for name, tt := range map[string]struct {
		mbps []float64
		want bool
	}{
		"none":             {nil, false},
		"too few":          {[]float64{100, 100, 100, 100, 100, 100, 100}, false},
		"level":            {[]float64{100, 100, 100, 100, 100, 100, 100, 100}, true},
		"level after rise": {[]float64{1, 50, 100, 100, 100, 100, 100, 100, 100, 100}, true},
		"rising":           {[]float64{90, 92, 94, 96, 98, 100, 102, 104}, false},
		"falling":          {[]float64{100, 100, 100, 100, 90, 90, 90, 90}, false},
		"uneven but level": {[]float64{80, 120, 80, 120, 80, 120, 80, 120}, true},
		"nothing":          {[]float64{0, 0, 0, 0, 0, 0, 0, 0}, false},
	} {
		if got := stable(samplesOf(tt.mbps...)); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	gap := samplesOf(100, 100, 100, 100, 100, 100, 100, 100)
	gap = append(gap[:4], gap[5:]...)
	if stable(gap) {
		t.Error("stable over a sample that is missing where a second begins")
	}
}

func TestPerSecond(t *testing.T) {
	rates := func(s []sample) []float64 {
		var v []float64
		cuts := perSecond(s)
		for i := 1; i < len(cuts); i++ {
			v = append(v, math.Round(between(cuts[i-1], cuts[i])))
		}
		return v
	}
	for name, tt := range map[string]struct{ in, want []float64 }{
		"none":       {nil, nil},
		"two":        {[]float64{10, 10, 20, 20, 30, 30, 30, 30}, []float64{15, 30}},
		"a rest":     {[]float64{10, 10, 10, 10, 99}, []float64{10}},
		"half a one": {[]float64{10, 10, 10, 10, 99, 99}, []float64{10, 99}},
	} {
		if diff := cmp.Diff(tt.want, rates(samplesOf(tt.in...))); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestSpread(t *testing.T) {
	near := cmpopts.EquateApprox(0, 1e-9)
	for _, tt := range []struct {
		in   []float64
		want Spread
	}{
		{nil, Spread{}},
		{[]float64{5}, Spread{MinMbps: 5, MedianMbps: 5, MaxMbps: 5}},
		{[]float64{3, 1, 2, 2}, Spread{MinMbps: 1, MedianMbps: 2, MaxMbps: 3, CV: math.Sqrt(0.5) / 2}},
	} {
		if diff := cmp.Diff(tt.want, spread(tt.in), near); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

func TestTrafficLeavesHeadersOut(t *testing.T) {
	a := moment{Line: Line{RxBytes: math.MaxUint64 - 99, RxPackets: 10, TxBytes: 1000, TxPackets: 1, HeaderBytes: 14}}
	b := moment{Line: Line{RxBytes: 1900, RxPackets: 12, TxBytes: 1005, TxPackets: 2, HeaderBytes: 14}}
	if got := traffic(&a, &b, true); got != 2000-28 {
		t.Errorf("down: %d", got)
	}
	if got := traffic(&a, &b, false); got != 0 {
		t.Errorf("up: %d", got)
	}
}

func TestResponsiveness(t *testing.T) {
	level := func(n int, ms float64) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = ms
		}
		return v
	}
	for name, tt := range map[string]struct {
		p          probes
		rpm        float64 // 0: none
		confidence string
	}{
		"too few":          {p: probes{tcp: level(9, 10), http: level(4, 10)}},
		"few":              {p: probes{tcp: level(5, 10), http: level(5, 30)}, rpm: 3000, confidence: "low"},
		"some":             {p: probes{tcp: level(20, 20), http: level(20, 20)}, rpm: 3000, confidence: "medium"},
		"many":             {p: probes{tcp: level(60, 20), http: level(60, 20)}, rpm: 3000, confidence: "high"},
		"many, that drift": {p: probes{tcp: append(level(30, 10), level(30, 30)...), http: append(level(30, 10), level(30, 30)...)}, rpm: 60000 / (110 / 5.7), confidence: "low"},
		"one was slow":     {p: probes{tcp: append(level(19, 20), 5000), http: level(20, 20)}, rpm: 3000, confidence: "medium"},
	} {
		rpm, confidence := responsiveness(tt.p)
		if (rpm == nil) != (tt.rpm == 0) || rpm != nil && math.Abs(*rpm-tt.rpm) > tt.rpm/50 || name != "one was slow" && confidence != tt.confidence {
			t.Errorf("%s: %v, %s", name, rpm, confidence)
		}
	}
}

func TestPercentile(t *testing.T) {
	v := []float64{5, 1, 4, 2, 3}
	for part, want := range map[float64]float64{0: 1, 0.5: 3, 0.95: 5, 1: 5} {
		if got := percentile(v, part); got == nil || *got != want {
			t.Errorf("%v: %v", part, got)
		}
	}
	if percentile(nil, 0.5) != nil {
		t.Error("a percentile of nothing")
	}
}
