package inspect

import (
	"sync"
	"time"

	"ontagent/collectors"
)

// Use is how much of the line and the gateway was used in the busiest hour
// since a Meter was reset.
type Use struct {
	_ [0]func() // never compared: that would cost code on MIPS
	// Down and Up are in bit/s, CPU and Memory shares of the whole.
	Down, Up, CPU, Memory Peak
	// Over is how long was watched.
	Over time.Duration
	// Blind says that the interface's counters don't see all traffic, since
	// hardware forwards some.
	Blind bool
	// LinkMbps is the speed of the WAN's interface; 0: not known.
	LinkMbps float64
	// RxBaselineDBm is the received power that the line began with, as
	// telemetry has learned it; nil: not known.
	RxBaselineDBm *float64
}

// Peak is the mean of the busiest hour.
type Peak struct {
	Value float64
	Known bool // an hour was watched
}

// leastReadings is how many readings make an hour.
const leastReadings = 10

// Meter measures use from telemetry. It is safe for concurrent use.
type Meter struct {
	now func() time.Duration

	mu    sync.Mutex // guards what follows
	use   Use
	wan   string // the WAN's interface
	since time.Duration
	hours [4]hour
}

// hour gathers one hour of one quantity.
type hour struct {
	began time.Duration
	sum   float64
	n     int
}

// NewMeter returns a Meter on a monotonic clock.
func NewMeter(now func() time.Duration) *Meter { return &Meter{now: now, since: now()} }

// Samples takes what a collector read.
func (m *Meter) Samples(collector string, samples []collectors.Sample) {
	m.mu.Lock()
	now := m.now()
	for i := range samples {
		s := &samples[i]
		if collector == "link" && (m.wan == "" || s.Subject != m.wan) {
			continue
		}
		for k := range s.Fields {
			m.field(now, &s.Fields[k])
		}
	}
	m.mu.Unlock()
}

// field takes one value of a sample. No two collectors have the same names for
// what is looked at here.
func (m *Meter) field(now time.Duration, f *collectors.Field) {
	v, isNumber := number(f.Value)
	switch f.Key {
	case "interface":
		m.wan, _ = f.Value.(string)
	case "counters_blind":
		m.use.Blind = true
	case "speed_mbps":
		m.use.LinkMbps = v
	case "rx_baseline_dbm":
		if isNumber {
			m.use.RxBaselineDBm = &v
		}
	case "rx_bps":
		m.add(now, &m.hours[0], &m.use.Down, v)
	case "tx_bps":
		m.add(now, &m.hours[1], &m.use.Up, v)
	case "cpu_busy_ratio":
		m.add(now, &m.hours[2], &m.use.CPU, v)
	case "mem_used_ratio":
		m.add(now, &m.hours[3], &m.use.Memory, v)
	}
}

// add adds a reading to its hour, and ends the hour.
func (m *Meter) add(now time.Duration, h *hour, peak *Peak, v float64) {
	if h.n == 0 {
		h.began = now
	}
	h.sum += v
	h.n++
	if now-h.began < time.Hour {
		return
	}
	if mean := h.sum / float64(h.n); h.n >= leastReadings && (!peak.Known || mean > peak.Value) {
		*peak = Peak{mean, true}
	}
	*h = hour{}
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case uint64:
		return float64(v), true
	case int64:
		return float64(v), true
	}
	return 0, false
}

// Use returns what was measured since the last Reset.
func (m *Meter) Use() Use {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.use
	u.Over = m.now() - m.since
	return u
}

// Reset begins anew.
func (m *Meter) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.use = Use{LinkMbps: m.use.LinkMbps, RxBaselineDBm: m.use.RxBaselineDBm}
	m.hours, m.since = [4]hour{}, m.now()
}
