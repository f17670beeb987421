package steps

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/collectors"
)

// HostLoad is how busy the gateway was while it was asked.
type HostLoad struct {
	// CPUBusy and MemoryUsed are ratios from 0 to 1; memory that the kernel can
	// give back counts as free.
	CPUBusy, MemoryUsed collectors.Reading
	// Temperature of the hottest zone, degrees Celsius.
	Temperature collectors.Reading
}

// HostReader measures the load over a window of its own choosing.
type HostReader interface {
	ReadHost(ctx context.Context) (HostLoad, error)
}

// HostOptions configure the host rung.
type HostOptions struct {
	Reader     HostReader // nil: nothing to read
	Thresholds acceptance.Thresholds
	Reads      int           // 5 if zero
	Pause      time.Duration // between reads; 1 s if zero
	Deadline   time.Duration // 20 s if zero
}

// Host judges CPU, memory and temperature of the gateway.
type Host struct{ o HostOptions }

var _ acceptance.Step = (*Host)(nil)

// NewHost returns the host rung.
func NewHost(o HostOptions) *Host {
	o.Thresholds = orNorms(o.Thresholds)
	o.Reads = orDefault(o.Reads, 5)
	o.Pause = orDefault(o.Pause, time.Second)
	o.Deadline = orDefault(o.Deadline, 20*time.Second)
	return &Host{o: o}
}

// Rung implements acceptance.Step.
func (*Host) Rung() acceptance.Rung { return acceptance.Host }

// Needs implements acceptance.Step.
func (*Host) Needs() []acceptance.Rung { return nil }

// Deadline implements acceptance.Step.
func (s *Host) Deadline() time.Duration { return s.o.Deadline }

// Estimate implements acceptance.Estimator.
func (s *Host) Estimate() time.Duration { return time.Duration(s.o.Reads) * s.o.Pause }

// Run reads the load several times and judges the medians, so that a short peak
// decides nothing. CPU and memory must both be known to pass; a temperature that
// the gateway does not have is left out.
func (s *Host) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{Conditions: map[string]string{}}
	if s.o.Reader == nil {
		decide(&out, acceptance.Inconclusive, "no source of the load", diagnosis.HostUnreadable)
		return out
	}
	var loads []HostLoad
	for i := range s.o.Reads {
		if i > 0 && pause(ctx, s.o.Pause) != nil {
			break
		}
		load, err := s.o.Reader.ReadHost(ctx)
		if err != nil {
			note(err.Error())
		}
		loads = append(loads, load)
	}
	if ctx.Err() != nil {
		stopped(ctx, &out)
		return out
	}

	var causes []diagnosis.Code
	var high, unknown []string
	for _, q := range []struct {
		name, limit string
		cause       diagnosis.Code
		pick        func(HostLoad) collectors.Reading
		optional    bool
	}{
		{"cpu_busy_ratio", acceptance.CPUMax, diagnosis.HostCPU, func(l HostLoad) collectors.Reading { return l.CPUBusy }, false},
		{"memory_used_ratio", acceptance.MemoryMax, diagnosis.HostMemory, func(l HostLoad) collectors.Reading { return l.MemoryUsed }, false},
		{"temperature_celsius", acceptance.TemperatureMax, diagnosis.HostTemperature, func(l HostLoad) collectors.Reading { return l.Temperature }, true},
	} {
		limit := s.o.Thresholds.Limit(q.limit)
		v, last, ok := middle(loads, q.pick)
		m := reading(q.name, last, "")
		out.Limits = append(out.Limits, limit)
		switch {
		case ok:
			m.Value, m.Status = v, string(collectors.StatusOK)
			m.Note, m.Raw = fmt.Sprintf("median of %d reads", len(loads)), list(loads, q.pick)
			if !limit.Holds(v) {
				causes = append(causes, q.cause)
				high = append(high, fmt.Sprintf("%s %.2f is not %s %g", q.name, v, limit.Op, limit.Value))
			}
		case q.optional && (last.Status == collectors.StatusUnsupported || last.Status == ""):
		default:
			unknown = append(unknown, q.name)
		}
		if !ok && last.OK() {
			m.Value, m.Status = nil, string(collectors.StatusError) // a single read among failures
		}
		put(&out, m)
	}
	switch {
	case len(causes) > 0:
		decide(&out, acceptance.Fail, strings.Join(high, ", "), causes...)
	case len(unknown) > 0:
		decide(&out, acceptance.Inconclusive, "could not be read: "+strings.Join(unknown, ", "), diagnosis.HostUnreadable)
	default:
		decide(&out, acceptance.Pass, "")
	}
	return out
}

// middle returns the median of a quantity, if most reads have a value, and the
// last read.
func middle(loads []HostLoad, pick func(HostLoad) collectors.Reading) (float64, collectors.Reading, bool) {
	var values []float64
	var last collectors.Reading
	for _, l := range loads {
		if last = pick(l); last.OK() {
			values = append(values, last.Value)
		}
	}
	if 2*len(values) <= len(loads) {
		return 0, last, false
	}
	return median(values), last, true
}

func list(loads []HostLoad, pick func(HostLoad) collectors.Reading) string {
	words := make([]string, 0, len(loads))
	for _, l := range loads {
		if r := pick(l); r.OK() {
			words = append(words, fmt.Sprintf("%.3f", r.Value))
		} else {
			words = append(words, "-")
		}
	}
	return strings.Join(words, " ")
}
