package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/repair"
	"ontagent/transport/durable"
)

// mendable is a line whose addressing fails until it is repaired.
type mendable struct {
	mended, traffic, useless bool
	acted                    []order.RepairAction
	seen                     []order.Order // that the ladders were built for
}

func (m *mendable) site(t *testing.T) *site {
	t.Helper()
	s := newSite(t)
	s.visits.Steps = func(v Visit) []acceptance.Step {
		m.seen = append(m.seen, v.Order)
		s.limits = v.Limits
		addressing := passing(acceptance.Addressing)
		if !m.mended {
			addressing.out = acceptance.Outcome{Verdict: acceptance.Fail, Reason: "no address", Causes: []string{string(diagnosis.AddrNone)}}
		}
		steps := []acceptance.Step{passing(acceptance.Optical), passing(acceptance.Dial), addressing}
		if slices.Contains(v.Order.Require, string(acceptance.Throughput)) {
			t.Error("a repair would load the line")
		}
		return steps
	}
	return s
}

func (m *mendable) repairer(t *testing.T) *repair.Repairer {
	t.Helper()
	j, err := repair.OpenJournal(repair.JournalOptions{
		FS: durable.OS{}, Dir: t.TempDir(), Start: 1, Now: time.Now, Wall: func() (time.Time, bool) { return time.Time{}, false },
	})
	if err != nil {
		t.Fatal(err)
	}
	return repair.New(repair.Options{
		Act: func(_ context.Context, a order.RepairAction) (repair.Done, error) {
			m.acted = append(m.acted, a)
			m.mended = !m.useless
			return repair.Done{Subject: "wan0"}, nil
		},
		Access:  func(context.Context) string { return repair.AccessDHCP },
		Busy:    func(context.Context, order.RepairAction) (bool, string, error) { return m.traffic, "wan0: a film", nil },
		Journal: j, PerHour: 5, PerDay: 5, Wait: time.Second, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
}

// order asks for a repair of a line of which the order requires two rungs.
func (m *mendable) order(s *site) order.Grant {
	g := s.grant(func(o *order.Order) {
		o.Require = []string{string(acceptance.Optical), string(acceptance.Addressing), string(acceptance.Throughput)}
		o.Allow = append(o.Allow, order.RepairCmd)
		o.MaxBytes = 1 << 30
	})
	g.Command.Type = order.RepairCmd
	c, err := g.Command.Sign(s.technician)
	if err != nil {
		s.t.Fatal(err)
	}
	g.Request.Command = &c
	return g
}

func TestRepairLeavesARecordOfBothLooks(t *testing.T) {
	for name, tc := range map[string]struct {
		line    mendable
		verdict string
		outcome string
		acted   []order.RepairAction
	}{
		"helped":  {mendable{}, "pass", repair.Helped, []order.RepairAction{order.ActionRenew}},
		"useless": {mendable{useless: true}, "fail", repair.Useless, []order.RepairAction{order.ActionRenew}},
		"fine":    {mendable{mended: true}, "pass", repair.NotNeeded, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := tc.line
			s := m.site(t)
			g := m.order(s)
			var steps []string
			last := 0.0
			out := s.visits.Recorded(t.Context(), g, func(p job.Progress) {
				if p.Fraction < last {
					t.Errorf("progress fell from %v to %v", last, p.Fraction)
				}
				last = p.Fraction
				if p.StepVerdict == "" {
					steps = append(steps, p.Step)
				}
			}, s.visits.Repair(m.repairer(t), g))
			if out.Err != nil || out.Verdict != tc.verdict || out.RecordSHA == "" {
				t.Fatalf("%+v", out)
			}
			if diff := cmp.Diff(tc.acted, m.acted); diff != "" {
				t.Errorf("actions (-want +got):\n%s", diff)
			}
			v, report := s.verify()
			if string(report.Verdict) != tc.verdict || v.Record.Verdict != tc.verdict {
				t.Errorf("the record says %s, its ladder %s", v.Record.Verdict, report.Verdict)
			}
			var done repair.Result
			if err := json.Unmarshal(v.Record.Work, &done); err != nil {
				t.Fatal(err)
			}
			if done.Outcome != tc.outcome || (done.After == nil) != (tc.acted == nil) || len(done.Before.Rungs) == 0 {
				t.Errorf("work = %+v", done)
			}
			for _, o := range m.seen {
				if o.Consents != nil || o.MaxBytes != 0 {
					t.Errorf("a look may disturb: %+v", o)
				}
			}
			if len(tc.acted) > 0 && !cmp.Equal(steps, []string{"optical", "dial", "addressing", "renew", "optical", "dial", "addressing"}) {
				t.Errorf("told %v", steps)
			}
		})
	}
}

func TestRepairRefusedLeavesNoRecord(t *testing.T) {
	m := mendable{traffic: true}
	s := m.site(t)
	g := m.order(s)
	out := s.visits.Recorded(t.Context(), g, ignore, s.visits.Repair(m.repairer(t), g))
	refused := (*repair.RefusedError)(nil)
	if !errors.As(out.Err, &refused) || refused.Why != repair.NoConsent {
		t.Errorf("%+v", out)
	}
	if len(s.filed) != 0 || m.acted != nil {
		t.Errorf("%d records, did %v", len(s.filed), m.acted)
	}
}

func TestLookUnderTakesNothingFromTheOrder(t *testing.T) {
	m := mendable{}
	s := m.site(t)
	view, err := s.visits.LookUnder(t.Context(), m.order(s).Order)
	if err != nil || view.Verdict != "fail" || view.Cause() != diagnosis.AddrNone {
		t.Errorf("%+v, %v", view, err)
	}
	if len(s.filed) != 0 {
		t.Error("a look left a record")
	}
}
