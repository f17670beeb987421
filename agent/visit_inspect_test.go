package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/inspect"
	"ontagent/agent/order"
	"ontagent/agent/record"
)

// lit is light as it was read, and judged.
func lit(rx, tx, bias float64) fakeStep {
	v := acceptance.Pass
	if !(rx > -25) {
		v = acceptance.Fail
	}
	m := func(name string, v float64) acceptance.Measurement {
		return acceptance.Measurement{Name: name, Value: v, Status: "ok", Source: "console:rtl960x"}
	}
	return fakeStep{rung: acceptance.Optical, out: acceptance.Outcome{
		Verdict: v, Measurements: []acceptance.Measurement{m("rx_power_dbm", rx), m("tx_power_dbm", tx), m("bias_ma", bias)},
	}}
}

// loaded is the host as it was read; it passes whatever it is.
func loaded(cpu, memory float64) fakeStep {
	return fakeStep{rung: acceptance.Host, out: acceptance.Outcome{Verdict: acceptance.Pass, Measurements: []acceptance.Measurement{
		{Name: "cpu_busy_ratio", Value: cpu, Status: "ok"},
		{Name: "memory_used_ratio", Value: memory, Status: "ok"},
		{Name: "temperature_celsius", Value: nil, Status: "unsupported"},
	}}}
}

// inspector is one with a line's health record of -20 dBm and a contract.
func (s *site) inspector(use inspect.Use) *Inspector {
	return &Inspector{
		Visits: s.visits, Use: func() inspect.Use { return use },
		Contract: func() (float64, float64) { return 100, 20 },
	}
}

// compared are comparisons to compare.
func compared(all []inspect.Compared) []string {
	show := func(v *float64) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprint(*v)
	}
	out := []string{}
	for _, x := range all {
		ok := "?"
		if x.OK != nil {
			ok = fmt.Sprint(*x.OK)
		}
		out = append(out, fmt.Sprintf("%s %s → %s, %s %s: %s", x.Name, show(x.Baseline), show(x.Now), x.Op, show(x.Limit), ok))
	}
	return out
}

func peak(v float64) inspect.Peak { return inspect.Peak{Value: v, Known: true} }

func TestInspectionComparesWithBaselineAndNorm(t *testing.T) {
	base := -20.0
	busy := inspect.Use{Down: peak(30e6), Up: peak(1e6), CPU: peak(0.2), Memory: peak(0.3), Over: 60 * 24 * time.Hour, RxBaselineDBm: &base}
	change := func(f func(*inspect.Use)) inspect.Use {
		u := busy
		f(&u)
		return u
	}
	tests := map[string]struct {
		optical fakeStep
		use     inspect.Use
		verdict acceptance.Verdict
		first   diagnosis.Code
		want    []string
	}{
		"as it was": {lit(-20.4, 2, 12), busy, acceptance.Pass, "", []string{
			"rx_power_dbm -20 → -20.4, > -25: true", "tx_power_dbm - → 2,  -: ?", "bias_ma - → 12,  -: ?",
			"cpu_busy_ratio - → 0.1, < 0.5: true", "memory_used_ratio - → 0.4, < 0.6: true",
			"cpu_busy_hour_ratio - → 0.2, < 0.5: true", "memory_used_hour_ratio - → 0.3, < 0.6: true",
			"utilisation_down_ratio - → 0.3, < 0.7: true", "utilisation_up_ratio - → 0.05, < 0.7: true",
		}},
		"light fell, and still passes": {lit(-23, 2, 12), busy, acceptance.Pass, diagnosis.OpticalBaselineDrop, []string{
			"rx_power_dbm -20 → -23, > -25: false", "tx_power_dbm - → 2,  -: ?", "bias_ma - → 12,  -: ?",
			"cpu_busy_ratio - → 0.1, < 0.5: true", "memory_used_ratio - → 0.4, < 0.6: true",
			"cpu_busy_hour_ratio - → 0.2, < 0.5: true", "memory_used_hour_ratio - → 0.3, < 0.6: true",
			"utilisation_down_ratio - → 0.3, < 0.7: true", "utilisation_up_ratio - → 0.05, < 0.7: true",
		}},
		"just at 70 %": {lit(-20, 2, 12), change(func(u *inspect.Use) { u.Down = peak(70e6) }), acceptance.Fail, diagnosis.HostTraffic, []string{
			"rx_power_dbm -20 → -20, > -25: true", "tx_power_dbm - → 2,  -: ?", "bias_ma - → 12,  -: ?",
			"cpu_busy_ratio - → 0.1, < 0.5: true", "memory_used_ratio - → 0.4, < 0.6: true",
			"cpu_busy_hour_ratio - → 0.2, < 0.5: true", "memory_used_hour_ratio - → 0.3, < 0.6: true",
			"utilisation_down_ratio - → 0.7, < 0.7: false", "utilisation_up_ratio - → 0.05, < 0.7: true",
		}},
		"just below 70 %": {lit(-20, 2, 12), change(func(u *inspect.Use) { u.Down, u.Memory = peak(69.99997e6), peak(0.5999997) }), acceptance.Pass, "", []string{
			"rx_power_dbm -20 → -20, > -25: true", "tx_power_dbm - → 2,  -: ?", "bias_ma - → 12,  -: ?",
			"cpu_busy_ratio - → 0.1, < 0.5: true", "memory_used_ratio - → 0.4, < 0.6: true",
			"cpu_busy_hour_ratio - → 0.2, < 0.5: true", "memory_used_hour_ratio - → 0.6, < 0.6: true",
			"utilisation_down_ratio - → 0.7, < 0.7: true", "utilisation_up_ratio - → 0.05, < 0.7: true",
		}},
		"blind counters prove nothing": {lit(-20, 2, 12), change(func(u *inspect.Use) { u.Blind, u.CPU, u.Memory = true, inspect.Peak{}, inspect.Peak{} }), acceptance.Pass, "", []string{
			"rx_power_dbm -20 → -20, > -25: true", "tx_power_dbm - → 2,  -: ?", "bias_ma - → 12,  -: ?",
			"cpu_busy_ratio - → 0.1, < 0.5: true", "memory_used_ratio - → 0.4, < 0.6: true",
			"utilisation_down_ratio - → 0.3, < 0.7: ?", "utilisation_up_ratio - → 0.05, < 0.7: ?",
		}},
		"not watched": {lit(-26, 2, 12), inspect.Use{}, acceptance.Fail, diagnosis.Unknown, []string{
			"rx_power_dbm - → -26, > -25: false", "tx_power_dbm - → 2,  -: ?", "bias_ma - → 12,  -: ?",
			"cpu_busy_ratio - → 0.1, < 0.5: true", "memory_used_ratio - → 0.4, < 0.6: true",
			"utilisation_down_ratio - → -, < 0.7: ?", "utilisation_up_ratio - → -, < 0.7: ?",
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, tt.optical, passing(acceptance.Registration), passing(acceptance.Addressing), passing(acceptance.DNS),
				passing(acceptance.Reachability), loaded(0.1, 0.4))
			e, r, err := s.inspector(tt.use).Look(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, compared(e.Compared)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			first, _ := r.Diagnosis.First()
			if r.Report.Verdict != tt.verdict || e.Verdict != string(tt.verdict) || first.Code != tt.first && tt.first != diagnosis.Unknown {
				t.Errorf("verdict %s, first cause %q", e.Verdict, first.Code)
			}
			if v := acceptance.Overall(r.Report.Results); v != r.Report.Verdict {
				t.Errorf("the rungs add up to %s", v)
			}
			if len(e.Rungs) != 6 || len(s.filed) != 0 {
				t.Errorf("%d rungs, %d records", len(e.Rungs), len(s.filed))
			}
		})
	}
}

// TestInspectionKnowsWhatBrokeMeanwhile: what the comparison adds does not make
// what telemetry saw forgotten.
func TestInspectionKnowsWhatBrokeMeanwhile(t *testing.T) {
	s := newSite(t, lit(-20, 2, 12), passing(acceptance.Registration), passing(acceptance.Addressing), passing(acceptance.DNS),
		fakeStep{rung: acceptance.Reachability, out: acceptance.Outcome{Verdict: acceptance.Fail, Causes: []string{string(diagnosis.ReachNoReply)}}})
	s.visits.Recent = func(time.Time) []diagnosis.Happening {
		return []diagnosis.Happening{
			{At: time.Minute, Group: "optics", Name: "rx_power_status", Before: "ok", After: "no_light"},
			{At: time.Minute, Group: "pon", Name: "state", Before: "operational", After: "los"},
		}
	}
	e, _, err := s.inspector(inspect.Use{}).Look(t.Context())
	if err != nil || e.FirstCause != string(diagnosis.OpticalNoLight) {
		t.Errorf("the first cause is %s, %v", e.FirstCause, err)
	}
}

// command is the grant of a command under an order of a type.
func (s *site) command(id string, typ order.CommandType, ofOrder order.Type) order.Grant {
	s.t.Helper()
	g := s.grant(func(o *order.Order) {
		o.Type, o.Require = ofOrder, []string{"optical", "host"}
		o.Allow = []order.CommandType{typ}
		o.Services = []order.Service{{Kind: "internet", Access: "pppoe", DownMbps: 50, UpMbps: 50, RateLayer: "tcp"}}
	})
	g.Command.ID, g.Command.Type = id, typ
	env, err := g.Command.Sign(s.technician)
	if err != nil {
		s.t.Fatal(err)
	}
	g.Request.Command = &env
	return g
}

func TestInspectClosesARecordWithTheComparison(t *testing.T) {
	s := newSite(t, lit(-20, 2.5, 10), passing(acceptance.Registration), passing(acceptance.Addressing), passing(acceptance.DNS),
		passing(acceptance.Reachability), loaded(0.1, 0.4))
	if out := s.visits.Accept(t.Context(), s.command("job-1", order.Accept, order.Repair), ignore); out.Err != nil {
		t.Fatal(out.Err)
	}
	s.filed, s.steps[0] = nil, lit(-20.5, 2.5, 15)
	i := s.inspector(inspect.Use{Down: peak(36e6), Up: peak(1e6), Over: time.Hour})
	var ended []inspect.Entry
	i.Ended = func(e inspect.Entry, _ Result) { ended = append(ended, e) }
	out := i.Inspect(t.Context(), s.command("job-2", order.Inspection, order.Inspect), ignore)
	// 36 of 50 Mbit/s: the order's own rates count.
	if out.Err != nil || out.Verdict != "fail" || out.FirstCause != string(diagnosis.HostTraffic) || out.RecordSHA == "" {
		t.Errorf("outcome %+v", out)
	}
	v, report := s.verify()
	if v.Status != record.Valid || v.Record.Line == nil || v.Record.Line.N != 1 {
		t.Errorf("record %s: %s; line %+v", v.Status, v.Problem, v.Record.Line)
	}
	optical, _ := report.Result(acceptance.Optical)
	host, _ := report.Result(acceptance.Host)
	want := map[string]float64{
		"rx_baseline_dbm": -20, "tx_baseline_dbm": 2.5, "bias_baseline_ma": 10, "utilisation_down_ratio": 0.72, "utilisation_up_ratio": 0.02,
	}
	for _, m := range append(optical.Measurements, host.Measurements...) {
		if w, is := want[m.Name]; is && m.Value == w {
			delete(want, m.Name)
		}
	}
	if len(want) > 0 {
		t.Errorf("the record lacks %v", want)
	}
	if len(ended) != 1 || ended[0].Job != "job-2" || ended[0].Verdict != "fail" {
		t.Errorf("ended %+v", ended)
	}
	found := false
	for _, x := range ended[0].Compared {
		if x.Name == "bias_ma" { // half as much again: the end of a laser's life
			found = x.OK != nil && !*x.OK && x.Source == "record:1"
		}
	}
	if !found {
		t.Errorf("%q", compared(ended[0].Compared))
	}
	if _, err := json.Marshal(ended[0]); err != nil {
		t.Error(err)
	}
}

func TestAnInspectionThatIsCancelledIsNotLogged(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newSite(t, fakeStep{rung: acceptance.Optical, run: func(context.Context, func(string)) { cancel() }, out: acceptance.Outcome{Verdict: acceptance.Inconclusive}})
	i := s.inspector(inspect.Use{})
	i.Ended = func(e inspect.Entry, _ Result) { t.Errorf("logged %+v", e) }
	i.Inspect(ctx, s.command("job-2", order.Inspection, order.Inspect), ignore)
	if len(s.filed) != 1 {
		t.Error("it leaves a record all the same")
	}
}

func TestInspectionIsQueuedAsItIs(t *testing.T) {
	r, q := newReporter(t)
	r.Document("inspection", inspect.Entry{ID: "1-1", Why: inspect.WhySchedule, Verdict: "pass", Rungs: []inspect.Rung{}, Compared: []inspect.Compared{}})
	if e, fields := next(t, q); e.Message.Name != "inspection" || e.Message.Class != "event" || fields["verdict"] != "pass" || fields["id"] != "1-1" {
		t.Errorf("%+v %v", e.Message, fields)
	}
}
