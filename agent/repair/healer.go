package repair

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
)

// Report is told of each automatic repair, also of one that was not done.
type Report func(Result, order.Order, error)

// HealerOptions configure a Healer.
type HealerOptions struct {
	Repairer *Repairer
	Standing *Standing
	Journal  *Journal
	// Judge says whether what is kept still holds; *order.Authority.Standing is
	// one.
	Judge func(order.Request) (order.Verified, error)
	// Grant puts on the audit trail what is about to be done: where that cannot
	// be written, nothing is.
	Grant func(order.Verified, order.RepairAction) error
	// Look climbs the read-only ladder under an order.
	Look func(ctx context.Context, o order.Order) (View, error)
	// Turn waits for the line to be nobody else's – of a visit, say – and takes
	// it until release.
	Turn func(ctx context.Context) (release func(), err error)
	// Grace is how long a fault must last before anything is done.
	Grace  time.Duration
	Report Report
	Log    *slog.Logger
}

// How long the healer waits after an attempt that did not help: the first pause,
// doubled each time.
const (
	retryFirst   = 5 * time.Minute
	retryLongest = 4 * time.Hour
)

// Healer repairs the line under a standing order, when it is told of a fault. It
// has no right of its own: each time the authority judges the order anew, and
// the Repairer has the same limits as for a command. Use NewHealer.
type Healer struct {
	o      HealerOptions
	causes chan diagnosis.Code
	told   string // why nothing was done, as it was told last; Serve's
}

// NewHealer returns a Healer; Serve runs it.
func NewHealer(o HealerOptions) *Healer {
	return &Healer{o: o, causes: make(chan diagnosis.Code, 1)}
}

// Opened tells of a fault. It neither blocks nor does anything: that is Serve's.
// Faults that come while one waits to be repaired need not be told apart: the
// look before every action sees what is wrong by then, or that nothing is.
func (h *Healer) Opened(cause diagnosis.Code) {
	select {
	case h.causes <- cause:
	default:
	}
}

// finishEvery is how often what could not be undone is tried again.
const finishEvery = 30 * time.Second

// Serve heals until ctx ends, and goes on trying to undo what an action left.
func (h *Healer) Serve(ctx context.Context) error {
	finish := time.NewTicker(finishEvery)
	defer finish.Stop()
	timer := time.NewTimer(h.o.Grace)
	timer.Stop()
	defer timer.Stop()
	waiting, tries := false, 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-finish.C:
			h.o.Repairer.Finish()
		case cause := <-h.causes:
			if waiting {
				continue
			}
			waiting, tries, h.told = true, 0, ""
			wait := max(h.o.Grace, h.rest())
			h.o.Log.Info("a fault opened", "cause", cause, "wait_s", wait.Seconds())
			timer.Reset(wait)
		case <-timer.C:
			if waiting = !h.heal(ctx); waiting {
				tries++
				timer.Reset(max(pause(tries), h.rest()))
			}
		}
	}
}

// pause is how long the healer waits after so many attempts.
func pause(tries int) time.Duration {
	d := retryFirst
	for i := 1; i < tries && d < retryLongest; i++ {
		d *= 2
	}
	return min(d, retryLongest)
}

// rest is how much longer the healer waits after attempts that did not help,
// those of earlier starts included.
func (h *Healer) rest() time.Duration {
	n, last := h.o.Journal.Failures()
	if n == 0 {
		return 0
	}
	return max(0, pause(n)-last)
}

// heal does one automatic repair, if it may, and reports whether there is
// nothing more to do until the next fault.
func (h *Healer) heal(ctx context.Context) (over bool) {
	req, ok := h.o.Standing.Request()
	if !ok {
		return true
	}
	release, err := h.o.Turn(ctx)
	if err != nil {
		return false
	}
	defer release()
	v, err := h.o.Judge(req)
	if err != nil {
		return h.refused(req, err)
	}
	var lapsed error
	res, err := h.o.Repairer.Repair(ctx, Task{
		Action: v.Command.Args.Action, Consents: v.Order.Consents, Auto: true,
		May: func(a order.RepairAction) error {
			// A look takes long enough for an order to be closed, or revoked.
			var now order.Verified
			if now, lapsed = h.o.Judge(req); lapsed != nil {
				return lapsed
			}
			return h.o.Grant(now, a)
		},
		Look: func(ctx context.Context) (View, error) { return h.o.Look(ctx, v.Order) },
	})
	if lapsed != nil {
		return h.refused(req, lapsed)
	}
	if ctx.Err() != nil && res.Outcome == "" {
		return false // stopped before anything was done
	}
	if err != nil {
		// Once: it is tried again until the line is fine, and what stands in the
		// way stays mostly the same.
		why := "failed"
		if refused, ok := errors.AsType[*RefusedError](err); ok {
			why = refused.Why
		}
		if why != h.told {
			h.o.Report(res, v.Order, err)
		}
		h.told = why
		return false
	}
	h.told = ""
	h.o.Report(res, v.Order, nil)
	return res.Outcome == NotNeeded || res.Outcome == NoAction || res.Verdict() == pass
}

// refused is told why the standing order does not hold, and forgets one that
// never will again.
func (h *Healer) refused(req order.Request, err error) (over bool) {
	reason := order.ReasonInternal
	if r, ok := errors.AsType[*order.RefusalError](err); ok {
		reason = r.Reason
	}
	h.o.Log.Warn("no repair under the standing order", "reason", reason, "error", err)
	if reason == order.ReasonClockUntrusted || reason == order.ReasonNotYetValid || reason == order.ReasonInternal {
		return false // that may pass
	}
	if err := h.o.Standing.Drop(req); err != nil {
		h.o.Log.Warn("cannot forget the standing order", "error", err)
	}
	return true
}
