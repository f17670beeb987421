package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
)

// View is what a look at the line has shown.
type View struct {
	Verdict   string              `json:"verdict"` // pass, fail, inconclusive
	Rungs     []Rung              `json:"rungs,omitempty"`
	Diagnosis diagnosis.Diagnosis `json:"diagnosis"`
}

// Rung is how one rung came out, in climbing order.
type Rung struct {
	Rung    string `json:"rung"`
	Verdict string `json:"verdict"` // pass, fail, inconclusive, skipped
}

// The verdicts of a View.
const (
	pass         = "pass"
	fail         = "fail"
	inconclusive = "inconclusive"
)

// Cause returns the code of the first cause, or "" if nothing is wrong.
func (v View) Cause() diagnosis.Code {
	if first, ok := v.Diagnosis.First(); ok && first.Kind != diagnosis.KindWarning {
		return first.Code
	}
	return ""
}

// Done is what an action has done.
type Done struct {
	Subject string // what it was done to: an interface, a program with its pid
	// Undo puts back what the action changed, if it was useless or made things
	// worse, and says what. Nil: there is nothing that could be put back – a
	// session that was ended is gone, a lease that was asked for is the server's
	// to give.
	Undo func(ctx context.Context) (what string, err error)
	// Settled is the end of the wait for what the action began: it reports
	// whether the line is back as far as can be seen without a look. Nil: there
	// is nothing to wait for.
	Settled func(ctx context.Context) bool
}

// ErrUnsupported is found by errors.Is in the error of an action for which this
// system offers nothing.
var ErrUnsupported = errors.New("not supported on this system")

// Options configure a Repairer.
type Options struct {
	// Act does one action. An error means that nothing was changed, or that what
	// was changed has been put back.
	Act func(ctx context.Context, a order.RepairAction) (Done, error)
	// Access says how the line gets its addresses; see Advise.
	Access func(ctx context.Context) string
	// Busy reports whether what an action would interrupt carries the customer's
	// traffic, and by what that was seen. Where it cannot tell, err says why, and the line is taken
	// for busy.
	Busy func(ctx context.Context, a order.RepairAction) (busy bool, seen string, err error)
	// Finish undoes what an action left that was cut short: see Journal.Keep. It
	// takes the intent back by itself.
	Finish func(intent []byte) error
	// Journal remembers what was tried, for the limits.
	Journal *Journal
	// PerHour and PerDay bound the actions, commanded or not.
	PerHour, PerDay int
	// Wait bounds how long an action may take to show.
	Wait time.Duration
	Now  func() time.Time // monotonic
	Log  *slog.Logger
}

// Repairer does one repair at a time. It is safe for concurrent use.
type Repairer struct {
	o  Options
	mu sync.Mutex // held while one runs
}

// New returns a Repairer.
func New(o Options) *Repairer { return &Repairer{o: o} }

// Finish undoes what an action left undone, unless one is under way: at the
// start what one left that was killed, later what could not be undone at once.
func (r *Repairer) Finish() {
	if !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	intent := r.o.Journal.Intent()
	if intent == nil {
		return
	}
	if err := r.o.Finish(intent); err != nil {
		r.o.Log.Error("cannot undo what a repair left", "error", err)
		return
	}
	r.o.Log.Warn("undid what a repair left that was cut short")
}

// Task is one repair to do.
type Task struct {
	Action   order.RepairAction // empty: what the diagnosis advises
	Consents []string           // of the order
	Auto     bool               // under a standing order, not by a command
	// Look climbs the read-only ladder.
	Look func(ctx context.Context) (View, error)
	// May is asked last of all, just before the action: with an error nothing is
	// done. Nil: it may.
	May func(order.RepairAction) error
	// Tell is told how far it has come: "look", an action, "look_again". May be
	// nil.
	Tell func(step string)
}

// What a repair was worth, in Result.Outcome.
const (
	Helped    = "helped"     // a rung that failed passes now, and none fails that did not
	Useless   = "useless"    // what failed fails still
	Worse     = "worse"      // a rung fails that did not
	Unclear   = "unclear"    // the second look could not tell
	NotNeeded = "not_needed" // nothing to repair
	NoAction  = "no_action"  // something is wrong, but nothing that an action ends
	NotDone   = "not_done"   // the action could not be done here; nothing was changed
)

// Result is what became of a repair. Its JSON stands in the record.
type Result struct {
	Action  order.RepairAction `json:"action,omitempty"`
	Subject string             `json:"subject,omitempty"`
	Auto    bool               `json:"auto,omitempty"`
	Cause   diagnosis.Code     `json:"cause,omitempty"` // the first cause before
	Outcome string             `json:"outcome"`
	Reason  string             `json:"reason,omitempty"` // English, for experts
	Undone  string             `json:"undone,omitempty"` // what was put back; English
	Before  View               `json:"before"`
	After   *View              `json:"after,omitempty"` // nil: nothing was done
	TookS   float64            `json:"took_s"`
}

// Verdict says how the line is after the repair: pass, fail or inconclusive.
func (r Result) Verdict() string {
	v := r.Before
	switch {
	case r.After != nil:
		v = *r.After
	case r.Outcome == Unclear:
		return inconclusive
	}
	if v.Verdict == pass || v.Verdict == fail {
		return v.Verdict
	}
	return inconclusive
}

// Why a repair is refused, in RefusedError.Why.
const (
	NoConsent = "no_consent" // the line carries traffic, and the order has no consent to disturb
	Limited   = "limited"    // so many were done lately
	Busy      = "busy"       // another repair runs
)

// RefusedError is the error of a repair that is not done, although it could be.
type RefusedError struct {
	Why    string
	Detail string
}

func (e *RefusedError) Error() string { return "repair refused (" + e.Why + "): " + e.Detail }

// Repair looks, acts, waits, looks again and judges. It returns a RefusedError
// where it must not act, and any other error where it could not look or keep
// its journal: nothing was changed then. It ends soon after ctx does, but puts
// back what must not stay.
func (r *Repairer) Repair(ctx context.Context, t Task) (Result, error) {
	if !r.mu.TryLock() {
		return Result{}, &RefusedError{Busy, "another repair is running"}
	}
	defer r.mu.Unlock()
	start := r.o.Now()
	res := Result{Auto: t.Auto}
	err := r.repair(ctx, &t, &res)
	res.TookS = r.o.Now().Sub(start).Seconds()
	return res, err
}

func (r *Repairer) repair(ctx context.Context, t *Task, res *Result) (err error) {
	// First what costs nothing: a look takes seconds, and loads the line.
	if err := r.limited(); err != nil {
		return err
	}
	t.tell("look")
	if res.Before, err = t.Look(ctx); err != nil {
		return fmt.Errorf("cannot look at the line: %w", err)
	}
	res.Cause = res.Before.Cause()
	if res.Before.Verdict == pass {
		res.Outcome, res.Reason = NotNeeded, "nothing to repair: the line is fine"
		return nil
	}
	if res.Action = t.Action; res.Action == "" {
		if res.Action, res.Reason = Advise(res.Cause, r.o.Access(ctx)); res.Action == "" {
			res.Outcome = NoAction
			return nil
		}
	}
	if err = r.mayDisturb(ctx, res.Action, t.Consents); err == nil {
		err = ctx.Err()
	}
	if err == nil && t.May != nil {
		err = t.May(res.Action)
	}
	if err != nil {
		return err
	}
	return r.act(ctx, t, res)
}

// limited refuses what would be one too many.
func (r *Repairer) limited() error {
	for _, l := range []struct {
		most   int
		window time.Duration
		name   string
	}{{r.o.PerHour, time.Hour, "hour"}, {r.o.PerDay, 24 * time.Hour, "day"}} {
		if n := r.o.Journal.Since(l.window); n >= l.most {
			return &RefusedError{Limited, fmt.Sprintf("%d repairs within the last %s, of %d", n, l.name, l.most)}
		}
	}
	return nil
}

// mayDisturb refuses what would interrupt a customer who has not agreed.
func (r *Repairer) mayDisturb(ctx context.Context, a order.RepairAction, consents []string) error {
	if !disturbs(a) {
		return nil
	}
	if slices.Contains(consents, order.ConsentDisturb) {
		return nil
	}
	busy, seen, err := r.o.Busy(ctx, a)
	switch {
	case err != nil:
		return &RefusedError{NoConsent, fmt.Sprintf("cannot tell whether the line carries traffic (%v), and the order has no consent to disturb", err)}
	case busy:
		return &RefusedError{NoConsent, "the line carries traffic (" + seen + "), and the order has no consent to disturb"}
	}
	return nil
}

// act does the action that was chosen, between two looks.
func (r *Repairer) act(ctx context.Context, t *Task, res *Result) error {
	// On flash before it is done: a restart in between must not give it for
	// nothing.
	n, err := r.o.Journal.Begin(Attempt{Action: res.Action, Cause: res.Cause, Auto: t.Auto})
	if err != nil {
		return err
	}
	t.tell(string(res.Action))
	done, err := r.o.Act(ctx, res.Action)
	res.Subject = done.Subject
	if err != nil {
		res.Outcome, res.Reason = NotDone, err.Error()
		r.end(n, res)
		return nil
	}
	r.settle(ctx, done)
	t.tell("look_again")
	after, err := t.Look(ctx)
	if err != nil {
		res.Outcome, res.Reason = Unclear, "cannot look at the line again: "+err.Error()
	} else {
		res.After = &after
		res.Outcome, res.Reason = Judge(res.Before, after)
	}
	if res.Outcome != Helped && done.Undo != nil {
		// Also when the job was stopped: what is not undone now stays.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		if res.Undone, err = done.Undo(undo); err != nil {
			res.Undone = "could not be undone: " + err.Error()
		}
	}
	r.end(n, res)
	return nil
}

const (
	undoTime = 30 * time.Second
	// settleFirst is how long an action takes at the least to show: what still
	// stands must first fall.
	settleFirst = 3 * time.Second
	settleEvery = time.Second
)

// settle waits until what the action began has come about, at most Wait.
func (r *Repairer) settle(ctx context.Context, done Done) {
	if done.Settled == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.Wait)
	defer cancel()
	pause := min(settleFirst, r.o.Wait)
	for {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if done.Settled(ctx) {
			return
		}
		pause = settleEvery
	}
}

func (r *Repairer) end(n uint64, res *Result) {
	r.o.Log.Info("repair ended", "action", string(res.Action), "subject", res.Subject, "cause", string(res.Cause), "outcome", res.Outcome,
		"reason", res.Reason, "undone", res.Undone)
	if err := r.o.Journal.End(n, res.Outcome); err != nil {
		// It counts all the same; only the back-off won't know.
		r.o.Log.Warn("cannot keep how a repair ended", "error", err)
	}
}

func (t *Task) tell(step string) {
	if t.Tell != nil {
		t.Tell(step)
	}
}

// Judge compares two looks, rung by rung, and says what lay between was worth.
func Judge(before, after View) (outcome, reason string) {
	better, worse, still := "", "", ""
	for _, b := range before.Rungs {
		a := verdictOf(after, b.Rung)
		switch {
		case b.Verdict == fail && a == pass:
			better = b.Rung
		case b.Verdict == fail && a == fail:
			still = b.Rung
		case b.Verdict == pass && a == fail:
			worse = b.Rung
		}
	}
	switch {
	case after.Verdict == pass:
		return Helped, "the line is fine now"
	case worse != "":
		return Worse, worse + " passed before and fails now"
	case better != "":
		return Helped, better + " failed before and passes now"
	case still != "":
		return Useless, still + " fails still"
	case after.Verdict != fail:
		return Unclear, "the second look could not tell"
	case before.Verdict == fail:
		return Useless, "the line fails still"
	}
	return Worse, "the line could not be judged before and fails now"
}

func verdictOf(v View, rung string) string {
	for _, r := range v.Rungs {
		if r.Rung == rung {
			return r.Verdict
		}
	}
	return ""
}
