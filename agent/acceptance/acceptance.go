// Package acceptance runs the ladder of an acceptance visit: an ordered list
// of steps, each of which measures one rung and judges it against a limit.
//
// It knows what a verdict is and how verdicts add up, not how anything is
// measured: the concrete rungs live in acceptance/steps. It never reads the
// wall clock; durations come from an injected monotonic clock.
package acceptance

import (
	"context"
	"time"
)

// Rung names one step of the ladder. The values travel in orders and records
// and are never renamed.
type Rung string

// The ladder, in the order in which it is climbed.
const (
	Identity       Rung = "identity"        // 资源准确
	Optical        Rung = "optical"         // 光衰
	Registration   Rung = "registration"    // O5, OMCI provisioned, LOID accepted
	LANCabling     Rung = "lan_cabling"     // 568B on eight wires
	Dial           Rung = "dial"            // PPPoE or DHCP
	Addressing     Rung = "addressing"      // v4, v6, prefix
	DNS            Rung = "dns"             //
	Reachability   Rung = "reachability"    // loss, latency, jitter
	Account        Rung = "account"         // 3A 同步
	Throughput     Rung = "throughput"      // 速率达标
	IPTV           Rung = "iptv"            //
	Voice          Rung = "voice"           //
	Management     Rung = "management"      // ITMS/RMS
	RoutedInternet Rung = "routed_internet" // business lines
	Host           Rung = "host"            // CPU, memory, temperature
)

// Ladder returns every rung there is, in climbing order.
func Ladder() []Rung {
	return []Rung{
		Identity, Optical, Registration, LANCabling, Dial, Addressing, DNS, Reachability,
		Account, Throughput, IPTV, Voice, Management, RoutedInternet, Host,
	}
}

// Verdict is the outcome of a rung or of the whole.
type Verdict string

// The verdicts. "Could not measure" is Inconclusive: never Fail, never Pass.
const (
	Pass         Verdict = "pass"
	Fail         Verdict = "fail"
	Inconclusive Verdict = "inconclusive"
	Skipped      Verdict = "skipped"
)

// Measurement is one thing that was measured or read, as it was.
type Measurement struct {
	Name   string `json:"name"`           // snake_case with the unit: rx_power_dbm
	Value  any    `json:"value"`          // number, string or bool; nil if there is none
	Status string `json:"status"`         // a collectors.Status; "ok" if there is a value
	Source string `json:"source"`         // where it came from: console:rtl960x
	Raw    string `json:"raw,omitempty"`  // as the source gave it
	Note   string `json:"note,omitempty"` // what a reader must know to judge it
}

// Limit is a threshold a measurement was held against, and who set it.
type Limit struct {
	Name   string  `json:"name"`   // as in norms: optical.rx_min_dbm
	Value  float64 `json:"value"`  //
	Op     string  `json:"op"`     // what passes: ">", ">=", "<", "<="
	Origin string  `json:"origin"` // "norm", "agent", "config", "order", "module"
}

// Holds reports whether v satisfies the limit, unrounded.
func (l Limit) Holds(v float64) bool {
	switch l.Op {
	case ">":
		return v > l.Value
	case ">=":
		return v >= l.Value
	case "<":
		return v < l.Value
	case "<=":
		return v <= l.Value
	}
	return false
}

// Outcome is what a Step returns.
type Outcome struct {
	Verdict Verdict
	// Reason is one English sentence for people who read logs; texts for
	// technicians come from the catalogue by Causes.
	Reason string
	// Causes are catalogue codes, most telling first; empty on Pass.
	Causes []string
	// Warnings are catalogue codes of what does not decide the verdict but
	// should be looked at: light near its limit, a dead second resolver.
	Warnings     []string
	Measurements []Measurement
	Limits       []Limit
	// Conditions are circumstances that bear on the result: cpu_busy_ratio,
	// clock quality, cross-traffic.
	Conditions map[string]string
	// Passable says that rungs above can still be climbed although this one
	// failed: the light is too weak, but there is light.
	Passable bool
}

// Step measures and judges one rung.
type Step interface {
	Rung() Rung
	// Needs lists the rungs without which this one cannot be measured.
	Needs() []Rung
	// Deadline bounds one run.
	Deadline() time.Duration
	// Run measures and judges. It returns when ctx ends. note appends a line
	// to the step's own log, kept in the record.
	Run(ctx context.Context, note func(string)) Outcome
}

// Result is an Outcome in its place in the report.
type Result struct {
	Rung         Rung              `json:"rung"`
	Required     bool              `json:"required"`
	Verdict      Verdict           `json:"verdict"`
	Reason       string            `json:"reason,omitempty"`
	Causes       []string          `json:"causes,omitempty"`
	Warnings     []string          `json:"warnings,omitempty"`
	SkippedFor   Rung              `json:"skipped_for,omitempty"` // the rung that stood in the way
	Measurements []Measurement     `json:"measurements,omitempty"`
	Limits       []Limit           `json:"limits,omitempty"`
	Conditions   map[string]string `json:"conditions,omitempty"`
	Log          []string          `json:"log,omitempty"`
	StartS       float64           `json:"start_s"` // since the ladder began
	DurationS    float64           `json:"duration_s"`
}

// Report is the climbed ladder.
type Report struct {
	Verdict   Verdict  `json:"verdict"`
	Results   []Result `json:"results"`
	DurationS float64  `json:"duration_s"`
	// Interrupted says that the ladder was cut short; what was not climbed is
	// inconclusive.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Result returns the result for a rung.
func (r Report) Result(rung Rung) (Result, bool) {
	for _, res := range r.Results {
		if res.Rung == rung {
			return res, true
		}
	}
	return Result{}, false
}

// Overall adds verdicts up: fail if a required rung fails, else inconclusive
// if a required one is inconclusive or skipped, else pass. A ladder that
// requires nothing proves nothing: inconclusive.
func Overall(results []Result) Verdict {
	required, open := 0, false
	failed := false
	for _, r := range results {
		if !r.Required {
			continue
		}
		required++
		switch r.Verdict {
		case Fail:
			failed = true
		case Pass:
		case Inconclusive, Skipped:
			open = true
		default:
			open = true
		}
	}
	switch {
	case failed:
		return Fail
	case open || required == 0:
		return Inconclusive
	}
	return Pass
}
