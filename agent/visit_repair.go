package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"ontagent/agent/acceptance"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/repair"
)

// Repair is the Work of a repair: a look, one action, another look. Its result
// is the last look, with the repair.Result beside it. It fails where the repair
// is refused: the line carries traffic without the customer's consent, or so
// many were done lately.
func (v *Visits) Repair(r *repair.Repairer, g order.Grant) Work {
	return func(ctx context.Context, visit Visit, tell func(job.Progress)) (Result, error) {
		var last Result
		share := stretch{tell: tell}
		done, err := r.Repair(ctx, repair.Task{
			Action: g.Command.Args.Action, Consents: g.Order.Consents,
			Look: func(ctx context.Context) (repair.View, error) {
				seen, err := v.look(ctx, visit, share.progress)
				if err == nil {
					last = seen
				}
				return viewOf(seen), err
			},
			Tell: share.step,
		})
		if err != nil {
			return Result{}, err
		}
		last.Report.Verdict = acceptance.Verdict(done.Verdict())
		if last.Work, err = json.Marshal(done); err != nil {
			return Result{}, fmt.Errorf("cannot encode the repair: %w", err)
		}
		return last, nil
	}
}

// LookUnder climbs the rungs that tell whether a line needs a repair: those that
// the order requires, or that an inspection does, and the dial, without what
// would load or interrupt the line or what only the AAA knows.
func (v *Visits) LookUnder(ctx context.Context, o order.Order) (repair.View, error) {
	result, err := v.look(ctx, Visit{Order: o}, func(job.Progress) {})
	return viewOf(result), err
}

func (v *Visits) look(ctx context.Context, visit Visit, tell func(job.Progress)) (Result, error) {
	o := &visit.Order
	o.Type = order.Inspect // it says what is required where the order does not
	var require []string
	for _, rung := range required(*o) {
		if rung != acceptance.Throughput && rung != acceptance.Account {
			require = append(require, string(rung))
		}
	}
	// Without a dial there is nothing above it to repair; a bridge has none.
	bridged := slices.ContainsFunc(o.Services, func(s order.Service) bool { return s.Kind == "internet" && s.Access == "bridge" })
	if slices.Contains(require, string(acceptance.Addressing)) && !slices.Contains(require, string(acceptance.Dial)) && !bridged {
		require = append(require, string(acceptance.Dial))
	}
	o.Require, o.Consents, o.MaxBytes = require, nil, 0
	return v.Climb(ctx, visit, tell)
}

func viewOf(r Result) repair.View {
	view := repair.View{Verdict: string(r.Report.Verdict), Diagnosis: r.Diagnosis}
	for _, res := range r.Report.Results {
		view.Rungs = append(view.Rungs, repair.Rung{Rung: string(res.Rung), Verdict: string(res.Verdict)})
	}
	return view
}

// stretch makes the progress of two ladders and what lies between them that of
// one job.
type stretch struct {
	tell       func(job.Progress)
	from, part float64
}

func (s *stretch) step(name string) {
	s.from, s.part = 0, 0.4
	switch name {
	case "look":
		return // its rungs are told
	case "look_again":
		s.from, s.part = 0.6, 0.4
		return
	}
	s.tell(job.Progress{Step: name, Fraction: 0.4})
}

func (s *stretch) progress(p job.Progress) {
	p.Fraction = s.from + s.part*p.Fraction
	s.tell(p)
}
