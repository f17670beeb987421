package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"ontagent/agent/control"
	"ontagent/agent/diagnosis"
	"ontagent/agent/fault"
	"ontagent/agent/job"
	"ontagent/agent/order"
)

// recent is what the last minutes of telemetry look like.
type recent struct {
	WindowS    float64             `json:"window_s"` // what is older stands since
	Happenings []happening         `json:"happenings"`
	Diagnosis  diagnosis.Diagnosis `json:"diagnosis"`
	Faults     []fault.Fault       `json:"faults"` // that are open
}

type happening struct {
	_       [0]func() // never compared: that would cost code on MIPS
	AgoS    float64   `json:"ago_s"`
	Group   string    `json:"group"`
	Name    string    `json:"name"`
	Subject string    `json:"subject,omitempty"`
	Before  string    `json:"before"`
	After   string    `json:"after"`
}

func (d *daemon) recent() recent {
	h := d.watching.history.Recent()
	r := recent{
		WindowS: historyWindow.Seconds(), Happenings: []happening{}, Diagnosis: diagnosis.FromHappenings(h), Faults: d.watching.faults.Faults(),
	}
	if r.Faults == nil {
		r.Faults = []fault.Fault{}
	}
	now := time.Since(d.started)
	for _, x := range h {
		r.Happenings = append(r.Happenings, happening{
			AgoS: (now - x.At).Round(time.Second).Seconds(), Group: x.Group, Name: x.Name, Subject: x.Subject, Before: x.Before, After: x.After,
		})
	}
	return r
}

// since returns what has changed since a moment.
func (d *daemon) since(moment time.Time) []diagnosis.Happening {
	h := d.watching.history.Recent()
	from := moment.Sub(d.started)
	return slices.DeleteFunc(h, func(x diagnosis.Happening) bool { return x.At < from })
}

// diagnoseJob is the job.Handler of diagnose: the ladder decides, and what
// telemetry saw in the last minutes stands beside it.
func (d *daemon) diagnoseJob(ctx context.Context, g order.Grant, tell func(job.Progress)) job.Outcome {
	out := d.visits.Diagnose(ctx, g, tell)
	for _, c := range diagnosis.FromHappenings(d.watching.history.Recent()).Causes {
		if len(out.Recent) == maxRecent {
			break
		}
		out.Recent = append(out.Recent, job.RecentCause{Code: string(c.Code), Kind: string(c.Kind), Side: string(c.Side), Confidence: c.Confidence})
	}
	return out
}

// maxRecent bounds the causes of a job's status.
const maxRecent = 8

func (d *daemon) opRecent(_ context.Context, _ json.RawMessage, send control.Send) error {
	return send(control.KindResult, d.recent())
}

// diagnoseRecent shows what telemetry saw, without climbing anything.
func (a *app) diagnoseRecent(ctx context.Context) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	lang, _ := diagnosis.ParseLang(a.lang)
	return ask(ctx, c, control.OpRecent, nil, func(_ string, data json.RawMessage) error {
		if a.json {
			_, err := fmt.Fprintf(a.out, "%s\n", data)
			return err
		}
		var r recent
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("cannot read answer: %w", err)
		}
		a.printRecent(r, lang)
		return nil
	})
}

func (a *app) printRecent(r recent, lang diagnosis.Lang) {
	label := func(key string) string { return diagnosis.Text(lang, diagnosis.KeyLabel+key) }
	if len(r.Happenings) == 0 && len(r.Faults) == 0 {
		fmt.Fprintln(a.out, label("recent_none"))
		return
	}
	fmt.Fprintf(a.out, "%s:\n", label("recent"))
	for _, h := range r.Happenings {
		fmt.Fprintf(a.out, "  -%-8s %s %s %s: %s → %s\n", time.Duration(h.AgoS*float64(time.Second)), h.Group, h.Subject, h.Name, dash(h.Before), dash(h.After))
	}
	a.printCauses(r.Diagnosis, lang)
	for _, f := range r.Faults {
		fmt.Fprintf(a.out, "%s %s: %s [%s] %s\n", label("fault"), f.ID, diagnosis.Title(lang, f.Code), f.Code, diagnosis.Text(lang, diagnosis.KeyFault+string(f.Class)))
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
