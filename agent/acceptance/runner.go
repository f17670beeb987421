package acceptance

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"ontagent/agent/diagnosis"
)

// Bounds of what one step may leave in the report. A record has to fit into 96
// KiB with all of them.
const (
	MaxLogLines     = 64
	MaxLogBytes     = 4096
	maxLogLine      = 240
	maxText         = 512 // of a reason, a raw value, a note, a condition
	maxMeasurements = 128
)

// grace is how long a step may take to return after its context has ended.
const grace = 2 * time.Second

// The states of an Event.
const (
	EventStarted = "started"
	EventDone    = "done"
)

// Event tells of progress while a ladder is climbed.
type Event struct {
	Rung  Rung
	State string // EventStarted or EventDone
	// Result is set when State is EventDone. It is the receiver's own copy of
	// the struct; the slices and maps in it must not be changed.
	Result *Result
	// Progress of the whole ladder, from 0 to 1, by the estimated durations of
	// the steps. It never falls.
	Progress float64
	// EtaS estimates the seconds until the ladder is done.
	EtaS float64
}

// Runner climbs plans. The zero Runner is not usable: Now is needed.
type Runner struct {
	// Now is a monotonic clock, read only to tell durations.
	Now func() time.Time
	// OnEvent, if not nil, is called in order and never concurrently, and must
	// not block: the ladder waits for it.
	OnEvent func(Event)
}

// Run climbs the plan and reports. It returns when the last step is done, or
// soon after ctx ends; then the step that was running and all that were not
// begun are inconclusive and the report says that it was interrupted.
//
// A step that panics or overruns its deadline is inconclusive. One that does
// not even return when its context ends is abandoned after two seconds: its
// goroutine is left behind, its further notes are dropped, and its result says
// so.
func (r Runner) Run(ctx context.Context, plan Plan) Report {
	begin := r.Now()
	climb := climb{results: make([]Result, 0, len(plan.entries)), blocked: map[Rung]Rung{}}
	progress := newProgress(plan)

	for i, e := range plan.entries {
		res := Result{Rung: e.rung, Required: e.required, StartS: seconds(r.Now().Sub(begin))}
		r.emit(Event{Rung: e.rung, State: EventStarted, Progress: progress.at(i), EtaS: progress.eta(i)})

		passable := false
		root, blocked := climb.blocker(e)
		switch {
		case ctx.Err() != nil:
			climb.interrupted = true
			res.interrupt("not begun: the ladder was cut short")
		case e.step == nil:
			res.Verdict, res.Reason = Inconclusive, "not supported by this agent"
			res.Causes = []string{string(diagnosis.AgentNotSupported)}
		case blocked:
			res.Verdict, res.SkippedFor = Skipped, root
			res.Reason = fmt.Sprintf("not measured: %s failed", root)
		default:
			out, log, how := runStep(ctx, e.step)
			res.take(out, log)
			passable = out.Passable
			switch {
			case ctx.Err() != nil && how != returned:
				climb.interrupted = true
				res.interrupt("cut short while it ran")
			case how != returned:
				res.timeout(e.step.Deadline(), how)
			}
		}
		res.DurationS = seconds(r.Now().Sub(begin)) - res.StartS
		climb.add(res, passable)
		r.emit(Event{Rung: e.rung, State: EventDone, Result: &res, Progress: progress.at(i + 1), EtaS: progress.eta(i + 1)})
	}

	return Report{
		Verdict:     Overall(climb.results),
		Results:     climb.results,
		DurationS:   seconds(r.Now().Sub(begin)),
		Interrupted: climb.interrupted,
	}
}

func (r Runner) emit(e Event) {
	if r.OnEvent != nil {
		r.OnEvent(e)
	}
}

// climb is the state of one run.
type climb struct {
	results     []Result
	blocked     map[Rung]Rung // rungs that block what needs them → the rung at the root
	interrupted bool
}

func (c *climb) add(res Result, passable bool) {
	c.results = append(c.results, res)
	switch {
	case res.Verdict == Skipped:
		c.blocked[res.Rung] = res.SkippedFor
	case res.Verdict == Fail && !passable:
		c.blocked[res.Rung] = res.Rung
	}
}

// blocker returns the root rung that stands in the way of e, if one does. If
// several do, it is that of the first need.
func (c *climb) blocker(e entry) (Rung, bool) {
	if e.step == nil {
		return "", false
	}
	for _, need := range e.step.Needs() {
		if root, ok := c.blocked[need]; ok {
			return root, true
		}
	}
	return "", false
}

// ending says how a step came to its end.
type ending int

const (
	returned  ending = iota // before its context ended
	late                    // after its context ended
	abandoned               // not at all
)

// runStep runs one step under its own deadline.
func runStep(ctx context.Context, step Step) (Outcome, []string, ending) {
	stepCtx, cancel := context.WithTimeout(ctx, step.Deadline())
	defer cancel()

	log := &stepLog{}
	done := make(chan Outcome, 1)
	go func() {
		out := Outcome{
			Verdict: Inconclusive,
			Reason:  "the step ended without an outcome",
			Causes:  []string{string(diagnosis.AgentInternal)},
		}
		defer func() {
			if p := recover(); p != nil {
				out = Outcome{
					Verdict: Inconclusive,
					Reason:  fmt.Sprintf("the step panicked: %v", p),
					Causes:  []string{string(diagnosis.AgentInternal)},
				}
			}
			done <- out
		}()
		out = step.Run(stepCtx, log.note)
	}()

	select {
	case out := <-done:
		if stepCtx.Err() != nil { // both were ready: what ended first cannot be told
			return out, log.close(), late
		}
		return out, log.close(), returned
	case <-stepCtx.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case out := <-done:
		return out, log.close(), late
	case <-timer.C:
		return Outcome{Verdict: Inconclusive}, log.close(), abandoned
	}
}

// take copies an outcome into the result, bounded and fit to be encoded.
func (res *Result) take(out Outcome, log []string) {
	res.Verdict, res.Reason = out.Verdict, clip(out.Reason, maxText)
	res.Causes, res.Warnings = slices.Clone(out.Causes), slices.Clone(out.Warnings)
	res.Limits, res.Log = slices.Clone(out.Limits), log
	res.Measurements = slices.Clone(out.Measurements)
	if n := len(res.Measurements); n > maxMeasurements {
		res.Measurements = res.Measurements[:maxMeasurements]
		res.Log = append(res.Log, fmt.Sprintf("%d measurements dropped", n-maxMeasurements))
	}
	for i := range res.Measurements {
		res.Measurements[i].bound()
	}
	if len(out.Conditions) > 0 {
		res.Conditions = map[string]string{}
		for _, k := range slices.Sorted(maps.Keys(out.Conditions)) {
			res.Conditions[clip(k, maxText)] = clip(out.Conditions[k], maxText)
		}
	}
	switch out.Verdict {
	case Pass:
		// What decides nothing is a warning.
		res.Warnings = append(res.Causes, res.Warnings...)
		res.Causes = nil
	case Fail:
		if len(res.Causes) == 0 {
			res.Causes = []string{string(diagnosis.Unknown)}
		}
	case Inconclusive:
	case Skipped:
		fallthrough // only the runner skips
	default:
		res.Verdict = Inconclusive
		res.Reason = fmt.Sprintf("the step returned the verdict %q", clip(string(out.Verdict), maxLogLine))
		res.Causes = []string{string(diagnosis.AgentInternal)}
	}
}

func (res *Result) interrupt(reason string) {
	res.Verdict, res.Reason = Inconclusive, reason
	res.Causes = []string{string(diagnosis.AgentInterrupted)}
}

// timeout overrules whatever a step said after its deadline.
func (res *Result) timeout(deadline time.Duration, how ending) {
	said := res.Reason
	res.Verdict = Inconclusive
	res.Reason = fmt.Sprintf("not done within %v", deadline)
	if how == abandoned {
		res.Reason += ", and did not stop when told to"
	} else if said != "" {
		res.Reason += ": " + said
	}
	res.Reason = clip(res.Reason, maxText)
	res.Causes = []string{string(diagnosis.AgentTimeout)}
}

// bound makes m fit to be kept and encoded: no endless text, no number that
// JSON does not know.
func (m *Measurement) bound() {
	m.Raw, m.Note = clip(m.Raw, maxText), clip(m.Note, maxText)
	switch v := m.Value.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			m.Value, m.Status = nil, "untrusted"
			m.Note = clip(strings.TrimSpace(fmt.Sprintf("%s the source gave %v", m.Note, v)), maxText)
		}
	case string:
		m.Value = clip(v, maxText)
	}
}

// stepLog is the bounded log of one step. The first lines are kept and the rest
// counted: what went wrong first is what matters.
type stepLog struct {
	mu      sync.Mutex // guards all below; a step may note from its goroutines
	lines   []string
	bytes   int
	dropped int
	closed  bool
}

func (l *stepLog) note(line string) {
	line = clip(strings.TrimRight(line, "\r\n"), maxLogLine)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
	case len(l.lines) >= MaxLogLines-1, l.bytes+len(line) > MaxLogBytes-maxLogLine:
		l.dropped++
	default:
		l.lines = append(l.lines, line)
		l.bytes += len(line)
	}
}

// close ends the log; what is noted later, by an abandoned step, is dropped.
func (l *stepLog) close() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.dropped > 0 {
		l.lines = append(l.lines, fmt.Sprintf("%d more lines dropped", l.dropped))
	}
	return l.lines
}

// clip returns s as valid UTF-8 of at most limit bytes.
func clip(s string, limit int) string {
	if len(s) > limit {
		const mark = "…"
		cut := limit - len(mark)
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + mark
	}
	return strings.ToValidUTF8(s, "?")
}

// progress knows how far a plan is after so many entries.
type progress struct{ before []time.Duration } // before[i] is the estimate of all entries up to i

func newProgress(plan Plan) progress {
	before := make([]time.Duration, 1, len(plan.entries)+1)
	for _, e := range plan.entries {
		// One millisecond each, so that rungs which take no time count as well.
		before = append(before, before[len(before)-1]+e.estimate()+time.Millisecond)
	}
	return progress{before: before}
}

func (p progress) at(i int) float64 {
	total := p.before[len(p.before)-1]
	return float64(p.before[i]) / float64(total)
}

func (p progress) eta(i int) float64 {
	return seconds(p.before[len(p.before)-1] - p.before[i])
}

// seconds rounds to milliseconds: what is below is noise in a report.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
