// Package steps holds the rungs of the acceptance ladder that this agent can
// measure. Each judges what a narrow source tells it against the limits it was
// given, and keeps the raw readings beside the verdict.
//
// Its small helpers are not inlined: on MIPS each of their many copies would be
// ten times as long as a call.
//
// One rule holds for all: what could not be measured is inconclusive, never a
// fail and never a pass. docs/norms.md says what each step is inconclusive
// about by design.
//
// The steps read, or try what costs the customer nothing: none interrupts a
// service that is up. What servers say is kept, but for the secrets in it.
package steps

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/collectors"
)

// orNorms returns t, or the norms if t was never set: an empty set has no
// limits that anything could satisfy.
func orNorms(t acceptance.Thresholds) acceptance.Thresholds {
	if t.IsZero() {
		return acceptance.Norms()
	}
	return t
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// reading turns a Reading into a Measurement; without a status it was not asked
// for, which is the same as unsupported.
//
//go:noinline
func reading(name string, r collectors.Reading, note string) acceptance.Measurement {
	m := acceptance.Measurement{Name: name, Status: string(r.Status), Source: r.Source, Raw: r.Raw, Note: note}
	switch r.Status {
	case collectors.StatusOK:
		m.Value = r.Value
	case "":
		m.Status = string(collectors.StatusUnsupported)
	case collectors.StatusNoLight, collectors.StatusUnsupported, collectors.StatusUntrusted, collectors.StatusError:
	}
	return m
}

// value is a Measurement that holds a value.
//
//go:noinline
func value(name string, v any, source, note string) acceptance.Measurement {
	return acceptance.Measurement{Name: name, Value: v, Status: string(collectors.StatusOK), Source: source, Note: note}
}

// missing is a Measurement that holds none.
//
//go:noinline
func missing(name string, status collectors.Status, source, note string) acceptance.Measurement {
	return acceptance.Measurement{Name: name, Status: string(status), Source: source, Note: note}
}

// put adds a measurement to out. It is not inlined: growing a slice is long.
//
//go:noinline
func put(out *acceptance.Outcome, m acceptance.Measurement) {
	out.Measurements = append(out.Measurements, m)
}

// measured adds a value to out.
//
//go:noinline
func measured(out *acceptance.Outcome, name string, v any, source, note string) {
	put(out, value(name, v, source, note))
}

func codes(cs ...diagnosis.Code) []string {
	out := make([]string, 0, len(cs))
	for _, c := range cs {
		if s := string(c); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// decide gives out a verdict, its reason and its causes.
//
//go:noinline
func decide(out *acceptance.Outcome, v acceptance.Verdict, reason string, causes ...diagnosis.Code) {
	out.Verdict, out.Reason, out.Causes = v, reason, codes(causes...)
}

//go:noinline
func warn(out *acceptance.Outcome, cs ...diagnosis.Code) {
	for _, c := range cs {
		if !slices.Contains(out.Warnings, string(c)) {
			out.Warnings = append(out.Warnings, string(c))
		}
	}
}

// stopped makes out inconclusive because ctx ended before enough was measured.
// The runner knows better why it ended and says so.
//
//go:noinline
func stopped(ctx context.Context, out *acceptance.Outcome) {
	decide(out, acceptance.Inconclusive, fmt.Sprintf("ended early: %v", ctx.Err()), diagnosis.AgentTimeout)
}

// median returns the middle of vs, the lower of two; vs is not empty.
func median(vs []float64) float64 {
	s := slices.Sorted(slices.Values(vs))
	return s[(len(s)-1)/2]
}
