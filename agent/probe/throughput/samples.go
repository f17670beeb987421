package throughput

import (
	"math"
	"slices"
	"time"
)

// sample is how much all connections together had moved at a moment.
type sample struct {
	at    time.Time
	bytes uint64
}

const (
	sampleInterval = 250 * time.Millisecond
	stableTime     = time.Second
	stableWithin   = 0.03
)

// stable reports whether the rate of the last second is that of the second
// before.
func stable(s []sample) bool {
	if len(s) == 0 {
		return false
	}
	last := s[len(s)-1]
	mid, ok := at(s, last.at.Add(-stableTime))
	if !ok {
		return false
	}
	first, ok := at(s, mid.at.Add(-stableTime))
	if !ok {
		return false
	}
	before, now := between(first, mid), between(mid, last)
	return before > 0 && math.Abs(now-before) <= stableWithin*before
}

// at returns the sample of a moment, give or take half an interval.
func at(s []sample, t time.Time) (sample, bool) {
	for _, v := range slices.Backward(s) {
		if d := v.at.Sub(t).Abs(); d <= sampleInterval/2 {
			return v, true
		}
	}
	return sample{}, false
}

// between is the rate between two samples in Mbit/s.
func between(a, b sample) float64 { return rateMbps(b.bytes-a.bytes, b.at.Sub(a.at)) }

// perSecond cuts a window's samples into seconds. A rest of less than half a
// second is left out.
func perSecond(s []sample) (cuts []sample) {
	if len(s) == 0 {
		return nil
	}
	cuts = append(cuts, s[0])
	for _, v := range s[1:] {
		if v.at.Sub(cuts[len(cuts)-1].at) >= time.Second-sampleInterval/2 {
			cuts = append(cuts, v)
		}
	}
	if last := s[len(s)-1]; last.at.Sub(cuts[len(cuts)-1].at) >= time.Second/2 {
		cuts = append(cuts, last)
	}
	return cuts
}

// spread is how rates are distributed.
func spread(mbps []float64) Spread {
	if len(mbps) == 0 {
		return Spread{}
	}
	v := slices.Sorted(slices.Values(mbps))
	n := len(v)
	sum, squares := 0.0, 0.0
	for _, x := range v {
		sum += x
	}
	mean := sum / float64(n)
	for _, x := range v {
		squares += (x - mean) * (x - mean)
	}
	s := Spread{MinMbps: v[0], MedianMbps: (v[(n-1)/2] + v[n/2]) / 2, MaxMbps: v[n-1]}
	if mean > 0 {
		s.CV = math.Sqrt(squares/float64(n)) / mean
	}
	return s
}
