package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/audit"
	"ontagent/agent/diagnosis"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/platform/linux"
	"ontagent/agent/repair"
	"ontagent/collectors"
	"ontagent/collectors/wan"
	"ontagent/config"
	"ontagent/transport/durable"
)

// healing is what repairs: on command, and under a standing order.
type healing struct {
	journal  *repair.Journal
	standing *repair.Standing
	repairer *repair.Repairer
	healer   *repair.Healer
	hands    *hands
}

// openRepair makes it. First of all it undoes what an earlier start was killed
// in the middle of: an interface that is down would keep everybody away.
func (d *daemon) openRepair() error {
	c := d.c.Repair
	dir := filepath.Join(d.c.Main.StateDir, "repair")
	if err := durable.MkdirAll(d.fs, "repair.dir", dir, 0o700); err != nil {
		return err
	}
	journal, err := repair.OpenJournal(repair.JournalOptions{
		FS: d.fs, Dir: dir, Start: d.epoch, Now: time.Now, Wall: d.clock.Now,
	})
	if err != nil {
		d.log.Error("no repairs for a day", "error", err)
	}
	h := &healing{journal: journal}
	h.hands = &hands{c: d.c, read: d.sources.wan.Read, reread: d.sources.rereadModule, journal: journal, log: d.log.With("part", "repair")}
	if h.standing, err = repair.OpenStanding(d.fs, dir); err != nil {
		d.log.Error("no healing without an order", "error", err)
	}
	h.repairer = repair.New(repair.Options{
		Act: h.hands.act, Access: h.hands.access, Busy: h.hands.busy, Journal: journal,
		PerHour: c.PerHour, PerDay: c.PerDay, Wait: c.Wait, Now: time.Now, Log: d.log.With("part", "repair"), Finish: h.hands.finish,
	})
	h.repairer.Finish()
	d.healing = h
	return nil
}

// openHealer makes what repairs without a command. It needs the authority.
func (d *daemon) openHealer() {
	d.healing.healer = repair.NewHealer(repair.HealerOptions{
		Repairer: d.healing.repairer, Standing: d.healing.standing, Journal: d.healing.journal,
		Judge: d.authority.Standing, Grant: d.grantHealing, Look: d.visits.LookUnder, Turn: d.turn, Grace: d.c.Repair.Grace,
		Report: d.healed, Log: d.log.With("part", "repair"),
	})
	// Of those that an earlier start opened nobody else tells again.
	for _, f := range d.watching.faults.Faults() {
		d.faultOpened(f.Code)
	}
}

// repair is the job.Handler of repair.
func (d *daemon) repair(ctx context.Context, g order.Grant, tell func(job.Progress)) job.Outcome {
	if g.Command.Args.Standing {
		if err := d.healing.standing.Keep(g.Request); err != nil {
			return job.Outcome{Err: err}
		}
	}
	return d.visits.Recorded(ctx, g, tell, d.visits.Repair(d.healing.repairer, g))
}

// turn waits until the line is nobody else's.
func (d *daemon) turn(ctx context.Context) (release func(), err error) {
	select {
	case d.line <- struct{}{}:
		return func() { <-d.line }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inTurn makes a handler wait for a repair that the gateway began by itself: what
// is measured meanwhile would be of no line that anybody has.
func (d *daemon) inTurn(h job.Handler) job.Handler {
	return func(ctx context.Context, g order.Grant, tell func(job.Progress)) job.Outcome {
		release, err := d.turn(ctx)
		if err != nil {
			return job.Outcome{Err: err}
		}
		defer release()
		return h(ctx, g, tell)
	}
}

// faultOpened tells the healer of a fault, as what keeps track of them saw it.
func (d *daemon) faultOpened(cause diagnosis.Code) {
	if d.c.Repair.Enabled && d.healing.healer != nil {
		d.healing.healer.Opened(cause)
	}
}

// healed tells of a repair that nobody asked for at that moment: the NOC, and
// the audit trail.
func (d *daemon) healed(r repair.Result, o order.Order, err error) {
	e := collectors.Event{
		Type: "repair", Subject: r.Subject, What: r.Outcome, Before: r.Before.Verdict, After: r.Verdict(),
		Fields: []collectors.Field{
			collectors.F("order", o.Order), collectors.F("action", string(r.Action)), collectors.F("cause", string(r.Cause)),
			collectors.F("reason", r.Reason), collectors.F("undone", r.Undone), collectors.F("took_s", r.TookS),
		},
	}
	if err != nil {
		e.What, e.After = "failed", e.Before
		if refused, ok := errors.AsType[*repair.RefusedError](err); ok {
			e.What = refused.Why
		}
		e.Fields[3].Value = err.Error()
	}
	if r.After != nil {
		e.Fields = append(e.Fields, collectors.F("cause_after", string(r.After.Cause())))
	}
	d.reporter.Event(e)
	if r.Action == "" || err != nil {
		return // nothing was done
	}
	err = d.auditHealing(audit.Entry{Event: audit.Ended, Order: o.Order, Rev: o.Rev, State: r.Outcome, Verdict: r.Verdict()}, string(r.Action)+" "+r.Subject)
	if err != nil {
		d.log.Error("cannot audit a repair", "error", err)
	}
}

// grantHealing puts on the trail what is about to be done under a standing
// order.
func (d *daemon) grantHealing(v order.Verified, a order.RepairAction) error {
	return d.auditHealing(audit.Entry{
		Event: audit.Granted, Order: v.Order.Order, Rev: v.Order.Rev, KeyID: v.KeyID(), Technician: v.Technician.ID,
	}, string(a)+" by command "+v.Command.ID) // not as its own grant: that has an end
}

func (d *daemon) auditHealing(e audit.Entry, what string) error {
	e.CommandType, e.Detail = string(order.RepairCmd), "under the standing order: "+what
	d.stampAudit(&e)
	_, err := d.trail.Append(e)
	return err
}

// rereadModule reads the optics from the beginning: what a module says of
// itself, too, which is otherwise read once.
func (s *sources) rereadModule(ctx context.Context) (source string, err error) {
	if len(s.opticsReaders) == 0 {
		return "", fmt.Errorf("no optical source is configured: %w", repair.ErrUnsupported)
	}
	r, _, err := s.optics.Read(ctx)
	return r.Source, err
}

// hands are what repairs this machine.
type hands struct {
	c       config.Config
	read    func(context.Context) (wan.Facts, error)
	reread  func(context.Context) (string, error)
	journal *repair.Journal
	log     *slog.Logger
}

const (
	system = "/"
	// downFor is how long a restarted interface stays down: long enough for the
	// other end to see it.
	downFor = 3 * time.Second
	// watchFor is how long a line is watched for the customer's traffic.
	watchFor = 3 * time.Second
)

// session is the interface whose session or lease it is; empty: nobody says.
func (h *hands) session(ctx context.Context) string {
	if name := h.c.Repair.Session; name != "" {
		return name
	}
	if name := h.c.WAN.Interface; name != "" {
		return name
	}
	f, _ := h.read(ctx) // where there is no default route, there is none
	return f.Interface
}

func (h *hands) access(ctx context.Context) string {
	name := h.session(ctx)
	if _, err := linux.FindPPPD(system, name); err == nil {
		return repair.AccessPPPoE
	}
	if _, err := linux.FindUDHCPC(system, name); err == nil {
		return repair.AccessDHCP
	}
	return ""
}

// busy looks at the interface that an action would interrupt, at the session's,
// and at the one that may be restarted: other services may go over that.
func (h *hands) busy(ctx context.Context, a order.RepairAction) (used bool, seen string, err error) {
	session, restarted := h.session(ctx), h.c.Repair.Interface
	names := [...]string{session, session, restarted}
	var c linux.Client // where there is none, nothing will be signalled
	switch a {
	case order.ActionRedial:
		c, _ = linux.FindPPPD(system, session)
	case order.ActionRenew:
		c, _ = linux.FindUDHCPC(system, session)
	case order.ActionRestart:
		c.Interface = restarted
	case order.ActionReread:
	}
	if c.Interface != "" {
		names[0] = c.Interface
	}
	if names[0] == "" {
		return true, "", errors.New("no interface is known whose traffic could be counted: name it in section repair")
	}
	for i, name := range names {
		if name == "" || slices.Contains(names[:i], name) {
			continue
		}
		t, err := linux.WatchTraffic(ctx, system, name, watchFor)
		if err != nil || t.Used() {
			return true, t.String(), err
		}
	}
	return false, "", nil
}

func (h *hands) act(ctx context.Context, a order.RepairAction) (repair.Done, error) {
	switch a {
	case order.ActionRedial:
		return h.redial(ctx)
	case order.ActionRenew:
		return h.renew(ctx)
	case order.ActionRestart:
		return h.restart(ctx)
	case order.ActionReread:
		source, err := h.reread(ctx)
		return repair.Done{Subject: source}, err
	}
	return repair.Done{}, fmt.Errorf("%q: %w", a, repair.ErrUnsupported)
}

// redial hangs a PPPoE session up; its pppd, or whoever keeps that, dials again.
// There is no undoing it: the session is gone.
func (h *hands) redial(ctx context.Context) (repair.Done, error) {
	c, err := linux.FindPPPD(system, h.session(ctx))
	if err != nil {
		return repair.Done{}, fmt.Errorf("cannot redial: %w", err)
	}
	if !c.Comes(system) {
		return repair.Done{}, fmt.Errorf("cannot redial: %s has neither persist nor a keeper, and would be gone: %w", c, repair.ErrUnsupported)
	}
	if err := c.Signal(system, unix.SIGHUP); err != nil {
		return repair.Done{}, err
	}
	return repair.Done{Subject: c.String(), Settled: h.online}, nil
}

// renew asks for the lease anew. A client that has none begins from the beginning
// by the same signal; it is never made to give one back, as it would stay without
// if this daemon were killed then.
func (h *hands) renew(ctx context.Context) (repair.Done, error) {
	c, err := linux.FindUDHCPC(system, h.session(ctx))
	if err != nil {
		return repair.Done{}, fmt.Errorf("cannot renew: %w", err)
	}
	if err := c.Signal(system, unix.SIGUSR1); err != nil {
		return repair.Done{}, err
	}
	return repair.Done{Subject: c.String(), Settled: h.online}, nil
}

// restart takes the configured interface down and up. Whatever happens it comes
// up again: by itself, and if the daemon is killed, at its next start.
func (h *hands) restart(ctx context.Context) (repair.Done, error) {
	name := h.c.Repair.Interface
	switch {
	case name == "":
		return repair.Done{}, fmt.Errorf("cannot restart an interface: none is named in section repair: %w", repair.ErrUnsupported)
	case linux.Runs(system, "netifd"):
		return repair.Done{}, fmt.Errorf("cannot restart %s: netifd owns the interfaces here, and would not know; it must be asked over ubus, which this agent does not do yet: %w",
			name, repair.ErrUnsupported)
	}
	r, err := linux.PrepareRestart(system, name)
	if err != nil {
		return repair.Done{}, err
	}
	intent, err := json.Marshal(r)
	if err != nil {
		return repair.Done{}, err
	}
	if err := h.journal.Keep(intent); err != nil {
		return repair.Done{}, err
	}
	done := repair.Done{Subject: name, Settled: h.online, Undo: func(ctx context.Context) (string, error) {
		if r.WasUp {
			return name + " is up, with what it had", r.Restore(ctx)
		}
		return name + " is down again, as it was", r.Restore(ctx)
	}}
	if err := r.Run(ctx, downFor); err != nil {
		return done, errors.Join(err, h.finish(intent))
	}
	// It was restarted, whatever fails from here on.
	if err := h.journal.Keep(nil); err != nil {
		if !r.WasUp {
			// What is kept would take it down again in the middle of anything.
			return done, errors.Join(err, h.finish(intent))
		}
		h.log.Warn("cannot forget what a restart would have to put back", "error", err)
	}
	if c, err := linux.FindUDHCPC(system, name); err == nil {
		// It has not seen the interface go, and would keep a lease that the
		// network may have forgotten.
		if err := c.Signal(system, unix.SIGUSR1); err != nil {
			h.log.Warn("cannot ask for the lease after a restart", "error", err)
		}
	}
	return done, nil
}

// finish undoes a restart that was cut short.
func (h *hands) finish(intent []byte) error {
	r, err := linux.ParseRestart(system, intent)
	if err == nil {
		err = r.Restore(context.Background())
		if err != nil && !errors.Is(err, linux.ErrGone) {
			return err // and again later
		}
	}
	return errors.Join(err, h.journal.Keep(nil))
}

// online reports whether the line looks alive: a default route, and a global
// address on its interface.
func (h *hands) online(ctx context.Context) bool {
	f, err := h.read(ctx)
	return err == nil && f.Interface != "" && len(f.Addresses) > 0 && (f.DefaultV4 != nil || f.DefaultV6 != nil)
}
