package agent

import (
	"testing"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/job"
	"ontagent/agent/order"
)

// TestVisitKnowsWhatBrokeMeanwhile: the light goes behind the back of a rung
// that had passed. What telemetry saw of it before the visit is not asked for.
func TestVisitKnowsWhatBrokeMeanwhile(t *testing.T) {
	s := newSite(t,
		fakeStep{rung: acceptance.Optical, out: acceptance.Outcome{Verdict: acceptance.Pass}},
		fakeStep{rung: acceptance.Registration, out: acceptance.Outcome{Verdict: acceptance.Pass}},
		fakeStep{rung: acceptance.Reachability, out: acceptance.Outcome{Verdict: acceptance.Fail, Causes: []string{string(diagnosis.ReachNoReply)}}},
	)
	look := func() diagnosis.Code {
		t.Helper()
		r, err := s.visits.Climb(t.Context(), Visit{Order: order.Order{Type: order.Repair}}, func(job.Progress) {})
		if err != nil {
			t.Fatal(err)
		}
		first, _ := r.Diagnosis.First()
		return first.Code
	}
	if got := look(); got != diagnosis.ReachNoReply {
		t.Errorf("without telemetry the first cause is %s", got)
	}
	before := s.visits.Now()
	s.visits.Recent = func(since time.Time) []diagnosis.Happening {
		if since.Before(before) {
			t.Errorf("asked since %v, the visit began after %v", since, before)
		}
		return []diagnosis.Happening{
			{At: time.Minute, Group: "optics", Name: "rx_power_status", Before: "ok", After: "no_light"},
			{At: time.Minute, Group: "pon", Name: "state", Before: "operational", After: "los"},
		}
	}
	if got := look(); got != diagnosis.OpticalNoLight {
		t.Errorf("the first cause is %s", got)
	}
}
