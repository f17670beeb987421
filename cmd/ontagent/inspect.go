package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"ontagent/agent"
	"ontagent/agent/acceptance"
	"ontagent/agent/control"
	"ontagent/agent/diagnosis"
	"ontagent/agent/inspect"
)

// inspectTimeout bounds one inspection: a ladder, and what waits for it.
const inspectTimeout = 4 * time.Minute

// openInspections makes what inspects the line, by the schedule or a command.
func (d *daemon) openInspections() {
	w := d.watching
	w.inspector = &agent.Inspector{Visits: d.visits, Use: w.meter.Use, Contract: d.contract, Ended: func(e inspect.Entry, r agent.Result) {
		w.inspections.Add(e)
		d.inspected(r)
	}}
	w.inspections = inspect.Open(inspect.Options{
		Store: d.kept("inspections", inspect.MaxState), Inspect: d.inspect, Publish: func(e inspect.Entry) { d.reporter.Document("inspection", e) },
		Busy: d.busy, FollowUp: w.faults.Waiting,
		Moment: func() inspect.Moment {
			m := d.faultMoment()
			return inspect.Moment{Uptime: m.Uptime, UTC: m.UTC, Clock: m.Clock}
		},
		Device: d.c.Main.Device, Days: d.c.Inspect.IntervalDays, Hour: d.c.Inspect.Hour, Scheduled: d.c.Inspect.Enabled,
		Timeout: inspectTimeout, Epoch: d.epoch, Log: d.log.With("part", "inspect"),
	})
}

// busy reports whether a job runs.
func (d *daemon) busy() bool {
	if d.jobs == nil {
		return false
	}
	_, running := d.jobs.Running()
	return running
}

// inspect makes one inspection of the schedule, if the line is nobody else's.
func (d *daemon) inspect(ctx context.Context) (inspect.Entry, error) {
	select {
	case d.line <- struct{}{}:
		defer func() { <-d.line }()
	default:
		return inspect.Entry{}, inspect.ErrBusy
	}
	e, r, err := d.watching.inspector.Look(ctx)
	if err == nil && ctx.Err() != nil {
		err = ctx.Err() // a ladder that was cut short says nothing
	}
	if err == nil {
		d.inspected(r)
	}
	return e, err
}

// inspected shows an inspection to who keeps track of faults, and has use
// measured anew.
func (d *daemon) inspected(r agent.Result) {
	if r.Report.Interrupted {
		return
	}
	d.watching.meter.Reset()
	var passed []string
	for _, res := range r.Report.Results {
		if res.Verdict == acceptance.Pass {
			passed = append(passed, string(res.Rung))
		}
	}
	d.watching.faults.Inspected(r.Diagnosis, passed)
}

// contract returns the rates that the line was ordered with, in Mbit/s; 0: not
// known.
func (d *daemon) contract() (down, up float64) {
	line := d.watching.inventory.Line()
	return line.DownMbps, line.UpMbps
}

// inspections is the log, as it is shown.
type inspections struct {
	Log []inspect.Entry `json:"log"`
	// Next is when the next one of the schedule is due, RFC 3339; empty where no
	// clock can be relied on: then it is NextDays days of running away.
	Next      string `json:"next,omitempty"`
	NextDays  int    `json:"next_days,omitempty"`
	Scheduled bool   `json:"scheduled"`
}

func (d *daemon) opInspections(_ context.Context, _ json.RawMessage, send control.Send) error {
	at, days := d.watching.inspections.Next()
	out := inspections{Log: d.watching.inspections.Log(), NextDays: days, Scheduled: d.c.Inspect.Enabled}
	if !at.IsZero() {
		out.Next = at.UTC().Format(time.RFC3339)
	}
	return send(control.KindResult, out)
}

// inspections shows the log of the inspections.
func (a *app) inspections(ctx context.Context, args []string) error {
	if _, err := a.parse("inspections", args, 0); err != nil {
		return err
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	lang, _ := diagnosis.ParseLang(a.lang)
	return ask(ctx, c, control.OpInspections, nil, func(_ string, data json.RawMessage) error {
		if a.json {
			_, err := fmt.Fprintf(a.out, "%s\n", data)
			return err
		}
		var all inspections
		if err := json.Unmarshal(data, &all); err != nil {
			return fmt.Errorf("cannot read answer: %w", err)
		}
		a.printInspections(all, lang)
		return nil
	})
}

func (a *app) printInspections(all inspections, lang diagnosis.Lang) {
	label := func(key string) string { return diagnosis.Text(lang, diagnosis.KeyLabel+key) }
	for i, e := range all.Log {
		when := e.Started.UTC
		if when == "" {
			when = label("undated")
		}
		fmt.Fprintf(a.out, "%-20s %-10s %s", when, e.Why, diagnosis.Text(lang, diagnosis.KeyVerdict+e.Verdict))
		if e.FirstCause != "" {
			fmt.Fprintf(a.out, ": %s [%s]", diagnosis.Title(lang, diagnosis.Code(e.FirstCause)), e.FirstCause)
		}
		if e.Problem != "" {
			fmt.Fprintf(a.out, " (%s)", e.Problem)
		}
		fmt.Fprintln(a.out)
		if i < len(all.Log)-1 {
			continue // of earlier ones --json has it
		}
		for _, x := range e.Compared {
			mark := "?"
			if x.OK != nil && *x.OK {
				mark = "+"
			} else if x.OK != nil {
				mark = "!"
			}
			fmt.Fprintf(a.out, "  %s %-28s %10s  %s %-10s %s %s %s\n", mark, x.Name, figure(x.Now), label("baseline"), figure(x.Baseline), x.Op, figure(x.Limit), x.Source)
		}
	}
	switch {
	case all.Next != "":
		fmt.Fprintf(a.out, "%s: %s\n", label("next_inspection"), all.Next)
	case all.Scheduled:
		fmt.Fprintf(a.out, "%s: %d d\n", label("next_inspection"), all.NextDays)
	}
}

func figure(v *float64) string {
	if v == nil {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', 2, 64)
}
