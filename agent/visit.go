package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/record"
)

// RecordLog closes records; *record.Log is one.
type RecordLog interface {
	Close(r record.Record) (order.Envelope, []byte, error)
}

// Visit is what a ladder is built for.
type Visit struct {
	Order   order.Order
	Secrets order.Secrets         // what was sealed into the order
	Limits  acceptance.Thresholds // the order's have the last word
	Extract *order.Extract        // the AAA's word on the account; nil: none came
}

// Visits carries the commands accept and diagnose out.
type Visits struct {
	// Steps builds the rungs this agent can measure.
	Steps func(Visit) []acceptance.Step
	// Limits are the norms with this gateway's own overrides.
	Limits  acceptance.Thresholds
	Records RecordLog
	// Statement returns the operator's word on this gateway's keys.
	Statement func() (order.Envelope, error)
	// Frame is what every record of this agent says: device, tenant, agent.
	Frame record.Record
	// Moment tells when a record is closed.
	Moment func() record.Moment
	// Filed is told of every closed record.
	Filed func(orderID string, env order.Envelope)
	Now   func() time.Time // monotonic
	Log   *slog.Logger
}

// Accept is the job.Handler of accept: the ladder, a diagnosis, a signed record.
func (v *Visits) Accept(ctx context.Context, g order.Grant, tell func(job.Progress)) job.Outcome {
	statement, err := v.Statement()
	if err != nil {
		// Without it nobody could believe the record; better to say so first.
		return job.Outcome{Err: fmt.Errorf("cannot vouch for a record: %w", err)}
	}
	result, err := v.climb(ctx, Visit{Order: g.Order, Secrets: g.Secrets, Extract: g.Extract}, tell)
	if err != nil {
		return job.Outcome{Err: err}
	}
	env, err := v.close(g, statement, result)
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
	result, err := v.climb(ctx, Visit{Order: g.Order, Secrets: g.Secrets, Extract: g.Extract}, tell)
	if err != nil {
		return job.Outcome{Err: err}
	}
	return result.outcome()
}

// Result is a climbed ladder and what it means.
type Result struct {
	Report    acceptance.Report   `json:"report"`
	Diagnosis diagnosis.Diagnosis `json:"diagnosis"`
}

// Look climbs the read-only rungs for local root, without an order and without
// a record.
func (v *Visits) Look(ctx context.Context, tell func(job.Progress)) (Result, error) {
	return v.climb(ctx, Visit{Order: order.Order{Type: order.Inspect}}, tell)
}

func (v *Visits) climb(ctx context.Context, visit Visit, tell func(job.Progress)) (Result, error) {
	var err error
	if visit.Limits, err = v.Limits.With(acceptance.OriginOrder, visit.Order.Thresholds); err != nil {
		return Result{}, fmt.Errorf("cannot use the order's thresholds: %w", err)
	}
	plan, err := acceptance.NewPlan(required(visit.Order), v.Steps(visit))
	if err != nil {
		return Result{}, fmt.Errorf("cannot plan the ladder: %w", err)
	}
	runner := acceptance.Runner{Now: v.Now, OnEvent: func(e acceptance.Event) {
		p := job.Progress{Step: string(e.Rung), Fraction: e.Progress}
		if e.Result != nil {
			p.StepVerdict, p.StepReason = string(e.Result.Verdict), e.Result.Reason
			if len(e.Result.Causes) > 0 {
				p.StepCause = e.Result.Causes[0]
			}
		}
		tell(p)
	}}
	report := runner.Run(ctx, plan)
	return Result{Report: report, Diagnosis: diagnosis.Diagnose(report.Evidence())}, nil
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

// close makes the record. One that is too large leaves out evidence, the least
// telling first, and says so.
func (v *Visits) close(g order.Grant, statement order.Envelope, result Result) (order.Envelope, error) {
	r := v.Frame
	r.Job, r.Technician, r.Time = g.Command.ID, g.Technician.ID, v.Moment()
	r.Trust, r.Statement, r.Order, r.Command = g.Trust, statement, *g.Request.Order, *g.Request.Command
	if g.ClockProof == "signed_time" {
		r.SignedTime = g.Request.Time
	}
	r.Extract = g.Request.Extract
	r.Verdict = string(result.Report.Verdict)
	r.Baseline = baseline(result.Report)
	var err error
	if r.Diagnosis, err = json.Marshal(result.Diagnosis); err != nil {
		return order.Envelope{}, fmt.Errorf("cannot encode diagnosis: %w", err)
	}
	for _, reduce := range []func(*acceptance.Result){nil, dropLog, dropRaw} {
		if reduce != nil {
			for i := range result.Report.Results {
				reduce(&result.Report.Results[i])
			}
		}
		if r.Ladder, err = json.Marshal(result.Report); err != nil {
			return order.Envelope{}, fmt.Errorf("cannot encode ladder: %w", err)
		}
		env, _, err := v.Records.Close(r)
		if !errors.Is(err, order.ErrTooLarge) {
			return env, err
		}
		v.Log.Warn("record is too large, leaving evidence out", "job", r.Job)
	}
	return order.Envelope{}, fmt.Errorf("cannot close record of job %s: %w", r.Job, order.ErrTooLarge)
}

func dropLog(r *acceptance.Result) {
	if len(r.Log) > 0 {
		r.Log = []string{"log left out: the record would have been too large"}
	}
}

func dropRaw(r *acceptance.Result) {
	for i := range r.Measurements {
		r.Measurements[i].Raw = ""
	}
}

// baseline takes from a report what later readings of the line are compared
// with: measured numbers of the optical rung.
func baseline(report acceptance.Report) map[string]float64 {
	res, ok := report.Result(acceptance.Optical)
	if !ok {
		return nil
	}
	base := map[string]float64{}
	for _, m := range res.Measurements {
		if v, ok := m.Value.(float64); ok && m.Status == "ok" {
			switch m.Name {
			case "rx_power_dbm", "tx_power_dbm", "bias_ma", "module_temperature_celsius", "supply_voltage_v":
				base[m.Name] = v
			}
		}
	}
	return base
}
