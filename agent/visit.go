package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/record"
)

// RecordLog keeps and closes records; *record.Log is one.
type RecordLog interface {
	Close(r record.Record) (order.Envelope, []byte, error)
	// Find returns the record of a job; fs.ErrNotExist: there is none.
	Find(job string) ([]byte, error)
	// Line returns the line's health record; nil: there is none yet.
	Line() *record.Line
}

// Visit is what a ladder is built for.
type Visit struct {
	Order   order.Order
	Secrets order.Secrets         // what was sealed into the order
	Limits  acceptance.Thresholds // the order's have the last word
	Extract *order.Extract        // the AAA's word on the account; nil: none came
	// Line is the line's health record (宽带健康档案); nil: none yet, or what is
	// installed or moved begins a new one.
	Line *record.Line

	journal *journal // keeps what was found so far; nil: nothing does
}

// Visits carries the commands accept and diagnose out.
type Visits struct {
	// Steps builds the rungs this agent can measure.
	Steps func(Visit) []acceptance.Step
	// Limits are the norms with this gateway's own overrides.
	Limits  acceptance.Thresholds
	Records RecordLog
	// Open keeps the visit that is under way, so that one cut short leaves a
	// record too; nil: nothing does.
	Open *OpenVisit
	// Statement returns the operator's word on this gateway's keys.
	Statement func() (order.Envelope, error)
	// Frame is what every record of this agent says: device, tenant, agent.
	Frame record.Record
	// Moment tells when a record is closed.
	Moment func() record.Moment
	// Filed is told of every closed record.
	Filed func(orderID string, env order.Envelope)
	// Recent returns what telemetry has seen change since a moment; nil: nobody
	// watches.
	Recent func(since time.Time) []diagnosis.Happening
	Now    func() time.Time // monotonic
	Log    *slog.Logger
}

// Accept is the job.Handler of accept: the ladder, a diagnosis, a signed record.
func (v *Visits) Accept(ctx context.Context, g order.Grant, tell func(job.Progress)) job.Outcome {
	return v.Recorded(ctx, g, tell, v.Climb)
}

// Work is what a command does that ends in a record. It returns soon after ctx
// ends, with what was found until then.
type Work func(ctx context.Context, visit Visit, tell func(job.Progress)) (Result, error)

// Recorded carries a granted command out and closes the record of it, also of
// one that was cut short. Without the operator's word on this gateway's keys
// nothing is done: nobody could believe the record.
func (v *Visits) Recorded(ctx context.Context, g order.Grant, tell func(job.Progress), work Work) job.Outcome {
	statement, err := v.Statement()
	if err != nil {
		return job.Outcome{Err: fmt.Errorf("cannot vouch for a record: %w", err)}
	}
	r := v.frame(g, statement)
	visit := visitOf(g)
	if !beginsLine(g.Order) {
		visit.Line = v.Records.Line()
	}
	r.Line = visit.Line
	visit.journal = v.journal(r)
	defer visit.journal.end()
	result, err := work(ctx, visit, tell)
	if err != nil {
		return job.Outcome{Err: err}
	}
	env, err := v.close(r, g.Order, g.Command.Type, result)
	if err != nil {
		return job.Outcome{Err: err}
	}
	v.Filed(g.Order.Order, env)
	out := result.outcome()
	out.RecordSHA = order.Digest(env)
	return out
}

// Diagnose is the job.Handler of diagnose: the same ladder, no record.
func (v *Visits) Diagnose(ctx context.Context, g order.Grant, tell func(job.Progress)) job.Outcome {
	result, err := v.Climb(ctx, visitOf(g), tell)
	if err != nil {
		return job.Outcome{Err: err}
	}
	return result.outcome()
}

func visitOf(g order.Grant) Visit {
	return Visit{Order: g.Order, Secrets: g.Secrets, Extract: g.Extract}
}

// Result is a climbed ladder and what it means.
type Result struct {
	Report    acceptance.Report   `json:"report"`
	Diagnosis diagnosis.Diagnosis `json:"diagnosis"`
	// Work is what was done beside measuring, for the record; nil: nothing.
	Work json.RawMessage `json:"work,omitempty"`

	limits []acceptance.Limit    // that were in force
	recent []diagnosis.Happening // what telemetry saw meanwhile
}

// Look climbs the read-only rungs for local root, without an order and without
// a record.
func (v *Visits) Look(ctx context.Context, tell func(job.Progress)) (Result, error) {
	return v.Climb(ctx, Visit{Order: order.Order{Type: order.Inspect}}, tell)
}

// Climb is the Work of an acceptance: the ladder that the order asks for, and
// what it means.
func (v *Visits) Climb(ctx context.Context, visit Visit, tell func(job.Progress)) (Result, error) {
	var err error
	if visit.Limits, err = v.Limits.With(acceptance.OriginOrder, visit.Order.Thresholds); err != nil {
		return Result{}, fmt.Errorf("cannot use the order's thresholds: %w", err)
	}
	plan, err := acceptance.NewPlan(required(visit.Order), v.Steps(visit))
	if err != nil {
		return Result{}, fmt.Errorf("cannot plan the ladder: %w", err)
	}
	visit.journal.begin(plan, visit.Limits)
	runner := acceptance.Runner{Now: v.Now, OnEvent: func(e acceptance.Event) {
		if e.Result != nil {
			visit.journal.add(*e.Result)
		}
		p := job.Progress{Step: string(e.Rung), Fraction: e.Progress, EtaS: e.EtaS}
		if e.Result != nil {
			p.StepVerdict, p.StepReason = string(e.Result.Verdict), e.Result.Reason
			if len(e.Result.Causes) > 0 {
				p.StepCause = e.Result.Causes[0]
			}
		}
		tell(p)
	}}
	began := v.Now()
	report := runner.Run(ctx, plan)
	evidence := report.Evidence()
	if v.Recent != nil {
		// What broke behind the back of a rung that had passed.
		evidence.Recent = v.Recent(began)
	}
	return Result{Report: report, Diagnosis: diagnosis.Diagnose(evidence), limits: visit.Limits.All(), recent: evidence.Recent}, nil
}

// required returns the rungs that decide: the order's, or the usual ones of its
// type.
func required(o order.Order) []acceptance.Rung {
	if len(o.Require) == 0 {
		var kinds []string
		for _, s := range o.Services {
			kinds = append(kinds, s.Kind)
		}
		typ := o.Type
		if typ == "" {
			typ = order.Inspect // a NOC's diagnosis without an order
		}
		return acceptance.DefaultRequire(string(typ), kinds)
	}
	rungs := make([]acceptance.Rung, 0, len(o.Require))
	for _, r := range o.Require {
		rungs = append(rungs, acceptance.Rung(r))
	}
	return rungs
}

func (r Result) outcome() job.Outcome {
	out := job.Outcome{Verdict: string(r.Report.Verdict)}
	if first, ok := r.Diagnosis.First(); ok && first.Kind != diagnosis.KindWarning {
		out.FirstCause = string(first.Code)
	}
	for _, res := range r.Report.Results {
		rv := job.RungVerdict{Rung: string(res.Rung), Verdict: string(res.Verdict), Required: res.Required}
		if len(res.Causes) > 0 {
			rv.Cause = res.Causes[0]
		}
		out.Summary = append(out.Summary, rv)
	}
	return out
}
