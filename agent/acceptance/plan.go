package acceptance

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrUnknownRung is found by errors.Is in the error of NewPlan for a rung that
// is not on the ladder at all. A rung that is on the ladder but not built into
// this agent is no error: its result is inconclusive.
var ErrUnknownRung = errors.New("no such rung")

// Disturber may be implemented by a Step that interrupts or loads the line.
// Such a step runs only where its rung is required; the others always run.
type Disturber interface{ Disturbs() bool }

// Estimator may be implemented by a Step that knows how long it usually takes
// on a healthy line; otherwise a third of its deadline is assumed.
type Estimator interface{ Estimate() time.Duration }

// Plan is what a Runner climbs: rungs in ladder order. The zero Plan is empty.
type Plan struct{ entries []entry }

type entry struct {
	rung     Rung
	required bool
	step     Step // nil: required, but not built into this agent
}

// NewPlan puts required rungs and built steps into ladder order. Every required
// rung is in the plan, built or not; of the other built steps those that
// disturb nothing are in it as well, as evidence for the diagnosis. A rung that
// is required twice counts once.
//
// It refuses unknown rungs (ErrUnknownRung), two steps for one rung, and a step
// that needs a rung above its own.
func NewPlan(required []Rung, steps []Step) (Plan, error) {
	ladder := Ladder()
	for _, rung := range required {
		if !slices.Contains(ladder, rung) {
			return Plan{}, fmt.Errorf("cannot plan rung %q: %w", rung, ErrUnknownRung)
		}
	}
	built := map[Rung]Step{}
	for _, step := range steps {
		rung := step.Rung()
		if !slices.Contains(ladder, rung) {
			return Plan{}, fmt.Errorf("cannot plan step %q: %w", rung, ErrUnknownRung)
		}
		if built[rung] != nil {
			return Plan{}, fmt.Errorf("cannot plan rung %s: there are two steps for it", rung)
		}
		for _, need := range step.Needs() {
			if !slices.Contains(ladder[:slices.Index(ladder, rung)], need) {
				return Plan{}, fmt.Errorf("cannot plan rung %s: it needs %q, which does not come before it", rung, need)
			}
		}
		built[rung] = step
	}

	var plan Plan
	for _, rung := range ladder {
		step, must := built[rung], slices.Contains(required, rung)
		if must || step != nil && !disturbs(step) {
			plan.entries = append(plan.entries, entry{rung: rung, required: must, step: step})
		}
	}
	return plan, nil
}

// Rungs returns the rungs of the plan in climbing order.
func (p Plan) Rungs() []Rung {
	rungs := make([]Rung, 0, len(p.entries))
	for _, e := range p.entries {
		rungs = append(rungs, e.rung)
	}
	return rungs
}

// Required returns the rungs that decide, in climbing order.
func (p Plan) Required() []Rung {
	var rungs []Rung
	for _, e := range p.entries {
		if e.required {
			rungs = append(rungs, e.rung)
		}
	}
	return rungs
}

func disturbs(s Step) bool {
	d, ok := s.(Disturber)
	return ok && d.Disturbs()
}

// estimate is how long the entry is likely to take.
func (e entry) estimate() time.Duration {
	if e.step == nil {
		return 0
	}
	if s, ok := e.step.(Estimator); ok {
		return s.Estimate()
	}
	return e.step.Deadline() / 3
}

// DefaultRequire returns the rungs that decide if the order does not name any.
// orderType is install, move, repair, inspect or other; serviceKinds are the
// kinds of the ordered services (internet, iptv, voice, management), none of
// them meaning internet.
//
//   - install and move: the four elements of the line test (identity, account,
//     optical, throughput), registration, cabling, everything up to
//     reachability, the host, and each ordered service.
//   - repair: the line and the way to the internet, without what only a first
//     installation must prove (dial test, account, throughput); voice and IPTV
//     as ordered, because a technician tests both before leaving.
//   - inspect and anything else: what can be read without disturbing the
//     customer and without the customer at home.
func DefaultRequire(orderType string, serviceKinds []string) []Rung {
	has := func(kind string) bool { return slices.Contains(serviceKinds, kind) }
	internet := len(serviceKinds) == 0 || has("internet")
	install := orderType == "install" || orderType == "move"
	repair := orderType == "repair"

	var require []Rung
	for _, rung := range Ladder() {
		var must bool
		switch rung {
		case Optical, Registration, Host:
			must = true
		case Identity, LANCabling:
			must = install || repair
		case Addressing, DNS, Reachability:
			must = internet
		case Dial, Account, Throughput:
			must = internet && install
		case IPTV:
			must = has("iptv") && (install || repair)
		case Voice:
			must = has("voice") && (install || repair)
		case Management:
			must = has("management") && install
		case RoutedInternet:
			// Business lines name it in their orders.
		}
		if must {
			require = append(require, rung)
		}
	}
	return require
}
