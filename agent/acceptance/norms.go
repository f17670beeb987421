package acceptance

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Where a limit comes from.
const (
	OriginNorm   = "norm"   // the field norms
	OriginAgent  = "agent"  // a default of ours, where the norms are silent
	OriginConfig = "config" // this gateway's configuration
	OriginOrder  = "order"  // the work order; it has the last word
	OriginModule = "module" // the optical module's own thresholds; they only warn
)

// The names of the limits. They travel in orders and records and are never
// renamed. Norms states their values.
const (
	OpticalRxMinDBm     = "optical.rx_min_dbm"
	OpticalRxMaxDBm     = "optical.rx_max_dbm"
	SplitterRxMinDBm    = "splitter.rx_min_dbm"
	ThroughputMinRatio  = "throughput.min_ratio"
	UtilisationMax      = "utilisation.max"
	CPUMax              = "cpu.max"
	MemoryMax           = "memory.max"
	FaultLineDue        = "fault.line_due"
	FaultNetworkDue     = "fault.network_due"
	FaultRespond        = "fault.respond"
	RecordRetention     = "record.retention"
	OpticalMarginWarnDB = "optical.margin_warn_db"
	OpticalSpreadMaxDB  = "optical.source_spread_max_db"
	LANSpeedMinMbps     = "lan.speed_min_mbps"
	DNSLatencyWarnMs    = "dns.latency_warn_ms"
	ReachLossMaxRatio   = "reachability.loss_max_ratio"
	ReachRTTMaxMs       = "reachability.rtt_max_ms"
	TemperatureMax      = "temperature.max_celsius"
	IPTVLossMaxRatio    = "iptv.loss_max_ratio"

	AccountExtractMaxAge = "account.extract_max_age"
)

// ErrUnknownThreshold is found by errors.Is in the error of With for a name
// that no limit has.
var ErrUnknownThreshold = errors.New("no such threshold")

// norm is a limit as we ship it, with the range in which an override makes
// sense: a work order that asks for -250 dBm is a typing error.
type norm struct {
	limit    Limit
	unit     string
	min, max float64
}

const (
	hour = 3600.0
	day  = 24 * hour
)

func norms() []norm {
	return []norm{
		// The norms, each once. "Better than -25 dBm" excludes -25.00; the rate is met at 90.0 %.
		{Limit{OpticalRxMinDBm, -25, ">", OriginNorm}, "dBm", -40, 10},
		{Limit{OpticalRxMaxDBm, -8, "<=", OriginNorm}, "dBm", -40, 10},
		{Limit{SplitterRxMinDBm, -20, ">", OriginNorm}, "dBm", -40, 10},
		{Limit{ThroughputMinRatio, 0.90, ">=", OriginNorm}, "ratio", 0, 1},
		{Limit{UtilisationMax, 0.70, "<", OriginNorm}, "ratio", 0, 1},
		// Above 1 these two bind nothing: where the gateway's load is no criterion.
		{Limit{CPUMax, 0.50, "<", OriginNorm}, "ratio", 0, 2},
		{Limit{MemoryMax, 0.60, "<", OriginNorm}, "ratio", 0, 2},
		{Limit{FaultLineDue, 24 * hour, "<=", OriginNorm}, "s", 0, 365 * day},
		{Limit{FaultNetworkDue, 36 * hour, "<=", OriginNorm}, "s", 0, 365 * day},
		{Limit{FaultRespond, 900, "<=", OriginNorm}, "s", 0, 365 * day},
		{Limit{RecordRetention, 183 * day, ">=", OriginNorm}, "s", 0, 3650 * day},
		// Ours, where the norms give no figure.
		{Limit{OpticalMarginWarnDB, 2, ">=", OriginAgent}, "dB", 0, 20},
		{Limit{OpticalSpreadMaxDB, 3, "<=", OriginAgent}, "dB", 0, 20},
		{Limit{LANSpeedMinMbps, 1000, ">=", OriginAgent}, "Mbit/s", 10, 100_000},
		{Limit{DNSLatencyWarnMs, 500, "<=", OriginAgent}, "ms", 0, 60_000},
		{Limit{ReachLossMaxRatio, 0.02, "<=", OriginAgent}, "ratio", 0, 1},
		{Limit{ReachRTTMaxMs, 100, "<=", OriginAgent}, "ms", 0, 60_000},
		{Limit{TemperatureMax, 95, "<", OriginAgent}, "Cel", -40, 150},
		{Limit{IPTVLossMaxRatio, 0.001, "<=", OriginAgent}, "ratio", 0, 1},
		{Limit{AccountExtractMaxAge, day, "<=", OriginAgent}, "s", 0, 365 * day},
	}
}

// Thresholds is an immutable set of limits by name. The zero value is empty;
// Norms is where to start.
type Thresholds struct{ limits map[string]Limit }

// Norms returns the defaults: the field norms, and our own figures where the
// norms are silent. Durations (fault.line_due, fault.network_due,
// fault.respond, record.retention) are in seconds.
func Norms() Thresholds {
	limits := map[string]Limit{}
	for _, n := range norms() {
		limits[n.limit.Name] = n.limit
	}
	return Thresholds{limits: limits}
}

// Unit returns the unit of the named limit: "dBm", "dB", "ratio", "s", "ms",
// "Mbit/s", "Cel", or "" if there is no such limit.
func Unit(name string) string {
	for _, n := range norms() {
		if n.limit.Name == name {
			return n.unit
		}
	}
	return ""
}

// With returns t with the values of override, which then come from origin.
// Only the value changes, never what passes at it. Unknown names are refused
// with ErrUnknownThreshold, values that cannot be meant with a plain error, and
// an override that no light could satisfy as well; then nothing is changed.
func (t Thresholds) With(origin string, override map[string]float64) (Thresholds, error) {
	known := map[string]norm{}
	for _, n := range norms() {
		known[n.limit.Name] = n
	}
	limits := maps.Clone(t.limits)
	for _, name := range slices.Sorted(maps.Keys(override)) {
		v := override[name]
		n, ok := known[name]
		if !ok {
			return Thresholds{}, fmt.Errorf("cannot override %q: %w", name, ErrUnknownThreshold)
		}
		if math.IsNaN(v) || v < n.min || v > n.max {
			return Thresholds{}, fmt.Errorf("cannot override %s: %g is not between %g and %g %s", name, v, n.min, n.max, n.unit)
		}
		limit, ok := limits[name]
		if !ok {
			return Thresholds{}, fmt.Errorf("cannot override %q: %w", name, ErrUnknownThreshold)
		}
		limit.Value, limit.Origin = v, origin
		limits[name] = limit
	}
	lo, hi := limits[OpticalRxMinDBm], limits[OpticalRxMaxDBm]
	if lo.Value >= hi.Value {
		return Thresholds{}, fmt.Errorf("cannot override %s and %s: no light is above %g and at most %g dBm", lo.Name, hi.Name, lo.Value, hi.Value)
	}
	return Thresholds{limits: limits}, nil
}

// IsZero reports whether the set is empty.
func (t Thresholds) IsZero() bool { return len(t.limits) == 0 }

// Limit returns the named limit. A name that is not in the set yields a limit
// that nothing satisfies: its Op is empty.
func (t Thresholds) Limit(name string) Limit {
	if l, ok := t.limits[name]; ok {
		return l
	}
	return Limit{Name: name}
}

// All returns the limits sorted by name.
func (t Thresholds) All() []Limit {
	out := make([]Limit, 0, len(t.limits))
	for _, name := range slices.Sorted(maps.Keys(t.limits)) {
		out = append(out, t.limits[name])
	}
	return out
}
