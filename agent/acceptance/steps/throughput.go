package steps

import (
	"context"
	"fmt"
	"math"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/throughput"
)

// ThroughputOptions configure the throughput rung.
type ThroughputOptions struct {
	// Test says what is measured and against which contract. Here a MaxBytes
	// of 0 means that no test traffic is allowed. Direction, MinRatio and Note
	// are the rung's to set.
	Test throughput.Options
	// Access is how the internet was ordered: behind a gateway that bridges
	// somebody else has it.
	Access string
	// Wireless names the radio that the gateway itself gets its internet by;
	// "": it has a wire. nil means that it always has.
	Wireless func(ctx context.Context) string
	// Thresholds have the part of the contract that must be reached.
	Thresholds acceptance.Thresholds
	// Run measures; throughput.Run if nil.
	Run func(ctx context.Context, o throughput.Options) (throughput.Result, error)
}

// Throughput judges whether the line carries what was contracted, in both
// directions. It loads the line for some seconds.
type Throughput struct{ o ThroughputOptions }

var (
	_ acceptance.Step      = (*Throughput)(nil)
	_ acceptance.Disturber = (*Throughput)(nil)
)

// NewThroughput returns the throughput rung.
func NewThroughput(o ThroughputOptions) *Throughput {
	o.Thresholds = orNorms(o.Thresholds)
	o.Test.Window = orDefault(o.Test.Window, 10*time.Second)
	o.Test.WarmUp = orDefault(o.Test.WarmUp, 3500*time.Millisecond)
	o.Test.Patience = orDefault(o.Test.Patience, 5*time.Second)
	if o.Test.Layer == "" {
		o.Test.Layer = throughput.LayerTCP
	}
	if o.Run == nil {
		o.Run = throughput.Run
	}
	return &Throughput{o: o}
}

// Rung implements acceptance.Step.
func (*Throughput) Rung() acceptance.Rung { return acceptance.Throughput }

// Needs implements acceptance.Step.
func (*Throughput) Needs() []acceptance.Rung {
	return []acceptance.Rung{acceptance.Dial, acceptance.Addressing}
}

// Disturbs implements acceptance.Disturber: a test nobody asked for would cost
// traffic and slow the customer down.
func (*Throughput) Disturbs() bool { return true }

// Deadline implements acceptance.Step. A direction may take four runs: three
// for a median, and one to another server.
func (s *Throughput) Deadline() time.Duration {
	const around = 4 * time.Second // to connect, the idle latency, to close
	return 2*4*(s.o.Test.WarmUp+s.o.Test.Window+around) + s.o.Test.Patience + time.Second
}

// Estimate implements acceptance.Estimator.
func (s *Throughput) Estimate() time.Duration {
	if reason, _ := s.impossible(); reason != "" {
		return 0
	}
	one := s.o.Test.Window + 3*time.Second
	if s.o.Test.ContractDownMbps > 0 && s.o.Test.ContractUpMbps > 0 {
		return 2 * one
	}
	return one
}

// impossible says why nothing that was ordered can be measured, or "".
func (s *Throughput) impossible() (string, diagnosis.Code) {
	t := &s.o.Test
	switch {
	case s.o.Access == AccessBridge:
		return "the gateway only bridges: whoever dials behind it has to test", diagnosis.AgentCannotMeasure
	case t.ContractDownMbps <= 0 && t.ContractUpMbps <= 0:
		return "the order states no contracted rate", diagnosis.AgentCannotMeasure
	case t.URL == "":
		return "no speed-test server is configured", diagnosis.AgentCannotMeasure
	case t.MaxBytes == 0:
		return "the order allows no test traffic: its max_bytes is 0", diagnosis.ThroughputShort
	}
	return "", ""
}

// Run measures the directions that have a contract, and judges: fail if one is
// below it and nothing but the line explains that; else inconclusive if one
// could not be told, or has no contract; else pass.
func (s *Throughput) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	limit := s.o.Thresholds.Limit(acceptance.ThroughputMinRatio)
	out := acceptance.Outcome{Limits: []acceptance.Limit{limit}}
	reason, code := s.impossible()
	if reason == "" && s.o.Wireless != nil {
		if radio := s.o.Wireless(ctx); radio != "" {
			reason, code = "the line goes over the air by "+radio+": only a wired line is measured", diagnosis.AgentCannotMeasure
		}
	}
	if reason != "" {
		decide(&out, acceptance.Inconclusive, reason, code)
		return out
	}
	t := s.o.Test
	t.Note = note
	t.MinRatio = max(limit.Value, 1e-6) // 0, which binds nothing, would mean the norm
	t.Direction = throughput.Both
	switch {
	case t.ContractUpMbps <= 0:
		t.Direction = throughput.Down
	case t.ContractDownMbps <= 0:
		t.Direction = throughput.Up
	}
	r, err := s.o.Run(ctx, t)
	switch {
	case ctx.Err() != nil:
		stopped(ctx, &out)
		return out
	case err != nil:
		note(err.Error())
		decide(&out, acceptance.Inconclusive, fmt.Sprintf("cannot test the speed: %v", err), diagnosis.AgentCannotMeasure)
		return out
	}
	s.conditions(&out, &r)
	down := s.way("down", &r, r.Down, t.ContractDownMbps, limit)
	up := s.way("up", &r, r.Up, t.ContractUpMbps, limit)
	s.measurements(&out, down, t.URL)
	s.measurements(&out, up, or(t.UploadURL, t.URL))
	judgeThroughput(&out, down, up)
	return out
}

// way is one direction and what was found of it.
type way struct {
	name    string           // down, up
	rate    *throughput.Rate // nil: not measured
	mbps    *float64         // at the contract's layer
	verdict acceptance.Verdict
	reason  string         // why it is no pass
	code    diagnosis.Code // what makes it inconclusive
}

func (s *Throughput) way(name string, r *throughput.Result, rate *throughput.Rate, contract float64, limit acceptance.Limit) *way {
	w := &way{name: name, rate: rate, verdict: acceptance.Inconclusive, code: diagnosis.AgentCannotMeasure}
	switch {
	case contract <= 0:
		w.rate, w.reason = nil, "the order states no rate"
		return w
	case rate == nil:
		w.reason = or(r.Reason, "it was not measured")
		return w
	}
	switch s.o.Test.Layer {
	case throughput.LayerIP:
		w.mbps = rate.IPMbps
	case throughput.LayerEthernet:
		w.mbps = rate.EthernetMbps
	case throughput.LayerTCP:
		w.mbps = rate.TCPMbps
	}
	judged := rate.Verdict == throughput.Pass || rate.Verdict == throughput.Fail
	switch {
	case judged && (w.mbps == nil || rate.ContractRatio == nil || contradicts(*rate.ContractRatio, rate.Verdict, limit)):
		w.reason, w.code = "the test contradicts itself", diagnosis.AgentInternal
	case rate.Verdict == throughput.Pass:
		w.verdict, w.code = acceptance.Pass, ""
	case rate.Verdict == throughput.Fail:
		w.verdict, w.code = acceptance.Fail, ""
		w.reason = or(rate.Reason, fmt.Sprintf("%g of %g Mbit/s (%s)", *w.mbps, contract, s.o.Test.Layer))
	default:
		w.reason = or(rate.Reason, or(rate.Error, or(r.Reason, "the test told nothing")))
		if code := ThroughputCause(rate.LimitedBy); code != "" {
			w.code = code
		}
	}
	return w
}

// contradicts reports whether a verdict is not that of the ratio. What is
// exactly at the limit may be rounded either way.
func contradicts(ratio float64, v throughput.Verdict, limit acceptance.Limit) bool {
	if math.Abs(ratio-limit.Value) < 1e-9 {
		return false
	}
	return limit.Holds(ratio) != (v == throughput.Pass)
}

// ThroughputCause is the cause that a limit is; "" for the line, which is none by
// itself, and where nothing was measured.
func ThroughputCause(l throughput.Limit) diagnosis.Code {
	switch l {
	case throughput.LimitDeviceCPU:
		return diagnosis.ThroughputDeviceCPU
	case throughput.LimitDeviceCeiling:
		return diagnosis.ThroughputDeviceCeiling
	case throughput.LimitServer:
		return diagnosis.ThroughputServer
	case throughput.LimitWindow:
		return diagnosis.ThroughputWindow
	case throughput.LimitCrossTraffic:
		return diagnosis.ThroughputCrossTraffic
	case throughput.LimitLoss:
		return diagnosis.ReachLoss
	case throughput.LimitUnstable:
		return diagnosis.ThroughputUnstable
	case throughput.LimitShort:
		return diagnosis.ThroughputShort
	case throughput.LimitLinkChanged:
		return diagnosis.ThroughputLinkChanged
	case throughput.LimitNone, throughput.LimitLine:
	}
	return ""
}

func judgeThroughput(out *acceptance.Outcome, down, up *way) {
	// Reasons to fail come first, then those that leave something open.
	failed, open := "", ""
	var causes []diagnosis.Code
	for _, w := range [...]*way{down, up} {
		switch w.verdict {
		case acceptance.Fail:
			failed += "; " + w.name + ": " + w.reason
		case acceptance.Inconclusive:
			open += "; " + w.name + ": " + w.reason
			causes = append(causes, w.code)
		case acceptance.Pass, acceptance.Skipped:
		}
		if w.bloated() {
			warn(out, diagnosis.ThroughputBufferbloat)
		}
	}
	switch {
	case failed != "":
		code := diagnosis.ThroughputBelow
		if down.verdict == acceptance.Pass {
			code = diagnosis.ThroughputUploadOnly
		}
		decide(out, acceptance.Fail, (failed + open)[2:], code)
		warn(out, causes...)
	case len(causes) == 2 && down.reason == up.reason:
		decide(out, acceptance.Inconclusive, down.reason, causes...)
	case open != "":
		decide(out, acceptance.Inconclusive, open[2:], causes...)
	default:
		decide(out, acceptance.Pass, "")
	}
}

// bloatMs is how much longer a round trip may take under load: from here on
// telephony suffers from a download.
const bloatMs = 200

func (w *way) bloated() bool {
	if w.rate == nil {
		return false
	}
	l := &w.rate.Latency
	return l.IdleP50Ms != nil && l.LoadedP50Ms != nil && *l.LoadedP50Ms-*l.IdleP50Ms > bloatMs
}
