package acceptance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ontagent/agent/acceptance"
)

func outcome(v acceptance.Verdict, causes ...string) func(context.Context, func(string)) acceptance.Outcome {
	return func(context.Context, func(string)) acceptance.Outcome {
		return acceptance.Outcome{Verdict: v, Causes: causes}
	}
}

func after(d time.Duration, v acceptance.Verdict) func(context.Context, func(string)) acceptance.Outcome {
	return func(ctx context.Context, _ func(string)) acceptance.Outcome {
		select {
		case <-time.After(d):
			return acceptance.Outcome{Verdict: v}
		case <-ctx.Done():
			return acceptance.Outcome{Verdict: acceptance.Fail, Reason: "was told to stop", Causes: []string{"dns.no_answer"}}
		}
	}
}

func plan(t *testing.T, required []acceptance.Rung, steps ...acceptance.Step) acceptance.Plan {
	t.Helper()
	p, err := acceptance.NewPlan(required, steps)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func run(t *testing.T, ctx context.Context, p acceptance.Plan) acceptance.Report {
	t.Helper()
	return acceptance.Runner{Now: time.Now}.Run(ctx, p)
}

// line is one result in brief.
type line struct {
	Rung       acceptance.Rung
	Verdict    acceptance.Verdict
	SkippedFor acceptance.Rung
	Causes     []string
}

func lines(r acceptance.Report) []line {
	var out []line
	for _, res := range r.Results {
		out = append(out, line{res.Rung, res.Verdict, res.SkippedFor, res.Causes})
	}
	return out
}

func TestRunFollowsNeeds(t *testing.T) {
	const (
		optical, registration, dial = acceptance.Optical, acceptance.Registration, acceptance.Dial
		addressing, dns, host       = acceptance.Addressing, acceptance.DNS, acceptance.Host
	)
	tall := func(opticalRun, registrationRun func(context.Context, func(string)) acceptance.Outcome) []acceptance.Step {
		return []acceptance.Step{
			step{rung: optical, run: opticalRun},
			step{rung: registration, needs: []acceptance.Rung{optical}, run: registrationRun},
			step{rung: addressing, needs: []acceptance.Rung{registration, dial}},
			step{rung: dns, needs: []acceptance.Rung{addressing}},
			step{rung: host},
		}
	}
	passable := func(context.Context, func(string)) acceptance.Outcome {
		return acceptance.Outcome{Verdict: acceptance.Fail, Causes: []string{"optical.rx_too_weak"}, Passable: true}
	}
	for _, tt := range []struct {
		name     string
		required []acceptance.Rung
		steps    []acceptance.Step
		verdict  acceptance.Verdict
		want     []line
	}{
		{
			name: "all pass", required: []acceptance.Rung{optical, dns}, steps: tall(nil, nil), verdict: acceptance.Pass,
			want: []line{{optical, "pass", "", nil}, {registration, "pass", "", nil}, {addressing, "pass", "", nil}, {dns, "pass", "", nil}, {host, "pass", "", nil}},
		},
		{
			name: "a fail skips all above, down to the root", required: []acceptance.Rung{optical}, verdict: acceptance.Fail,
			steps: tall(outcome("fail", "optical.no_light"), nil),
			want: []line{
				{optical, "fail", "", []string{"optical.no_light"}},
				{registration, "skipped", optical, nil},
				{addressing, "skipped", optical, nil},
				{dns, "skipped", optical, nil},
				{host, "pass", "", nil},
			},
		},
		{
			name: "a passable fail skips nothing", required: []acceptance.Rung{optical}, verdict: acceptance.Fail, steps: tall(passable, nil),
			want: []line{
				{optical, "fail", "", []string{"optical.rx_too_weak"}},
				{registration, "pass", "", nil},
				{addressing, "pass", "", nil},
				{dns, "pass", "", nil},
				{host, "pass", "", nil},
			},
		},
		{
			name: "what is not required does not decide, but blocks", required: []acceptance.Rung{dns}, verdict: acceptance.Inconclusive,
			steps: tall(nil, outcome("fail", "pon.los")),
			want: []line{
				{optical, "pass", "", nil},
				{registration, "fail", "", []string{"pon.los"}},
				{addressing, "skipped", registration, nil},
				{dns, "skipped", registration, nil},
				{host, "pass", "", nil},
			},
		},
		{
			name: "an inconclusive need does not block", required: []acceptance.Rung{dns}, verdict: acceptance.Pass,
			steps: tall(outcome("inconclusive", "optical.unreadable"), nil),
			want: []line{
				{optical, "inconclusive", "", []string{"optical.unreadable"}},
				{registration, "pass", "", nil},
				{addressing, "pass", "", nil},
				{dns, "pass", "", nil},
				{host, "pass", "", nil},
			},
		},
		{
			name: "a required rung that is not built is inconclusive, blocks nothing, and so is the whole", required: []acceptance.Rung{optical, dial},
			steps: tall(nil, nil), verdict: acceptance.Inconclusive,
			want: []line{
				{optical, "pass", "", nil},
				{registration, "pass", "", nil},
				{dial, "inconclusive", "", []string{"agent.not_supported"}},
				{addressing, "pass", "", nil},
				{dns, "pass", "", nil},
				{host, "pass", "", nil},
			},
		},
		{
			name: "nothing required proves nothing", steps: []acceptance.Step{step{rung: host}}, verdict: acceptance.Inconclusive,
			want: []line{{host, "pass", "", nil}},
		},
		{name: "an empty plan", verdict: acceptance.Inconclusive},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, t.Context(), plan(t, tt.required, tt.steps...))
			if r.Verdict != tt.verdict || r.Interrupted {
				t.Errorf("verdict %s, interrupted %t, want %s", r.Verdict, r.Interrupted, tt.verdict)
			}
			if diff := cmp.Diff(tt.want, lines(r), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("results (-want +got):\n%s", diff)
			}
			for _, res := range r.Results {
				if res.Verdict != acceptance.Pass && res.Reason == "" && len(res.Causes) == 0 {
					t.Errorf("%s is %s for no reason", res.Rung, res.Verdict)
				}
			}
		})
	}
}

func TestRunReasonOfMissingStep(t *testing.T) {
	r := run(t, t.Context(), plan(t, []acceptance.Rung{acceptance.Voice}))
	if got := r.Results[0].Reason; got != "not supported by this agent" {
		t.Errorf("reason %q", got)
	}
}

func TestRunDistrustsSteps(t *testing.T) {
	for _, tt := range []struct {
		name  string
		run   func(context.Context, func(string)) acceptance.Outcome
		want  acceptance.Verdict
		cause string
	}{
		{"panic", func(context.Context, func(string)) acceptance.Outcome { panic("broken") }, "inconclusive", "agent.internal"},
		{"panic with an error", func(context.Context, func(string)) acceptance.Outcome { panic(fmt.Errorf("broken")) }, "inconclusive", "agent.internal"},
		{"index out of range", func(context.Context, func(string)) acceptance.Outcome {
			return []acceptance.Outcome{}[len(t.Name())]
		}, "inconclusive", "agent.internal"},
		{"no verdict", outcome(""), "inconclusive", "agent.internal"},
		{"a verdict of its own", outcome("maybe"), "inconclusive", "agent.internal"},
		{"only the runner skips", outcome("skipped"), "inconclusive", "agent.internal"},
		{"fail without a cause", outcome("fail"), "fail", "unknown"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := run(t, t.Context(), plan(t, []acceptance.Rung{acceptance.DNS}, step{rung: acceptance.DNS, run: tt.run}))
			if got := lines(r)[0]; got.Verdict != tt.want || !slices.Equal(got.Causes, []string{tt.cause}) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestRunTurnsCausesOfAPassIntoWarnings(t *testing.T) {
	r := run(t, t.Context(), plan(t, nil, step{rung: acceptance.DNS, run: func(context.Context, func(string)) acceptance.Outcome {
		return acceptance.Outcome{Verdict: acceptance.Pass, Causes: []string{"dns.slow"}, Warnings: []string{"dns.resolver_dead"}}
	}}))
	res := r.Results[0]
	if len(res.Causes) != 0 || !slices.Equal(res.Warnings, []string{"dns.slow", "dns.resolver_dead"}) {
		t.Errorf("causes %v, warnings %v", res.Causes, res.Warnings)
	}
}

func TestRunEndsAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		r := run(t, t.Context(), plan(t, []acceptance.Rung{acceptance.DNS},
			step{rung: acceptance.DNS, deadline: 5 * time.Second, run: after(time.Hour, acceptance.Pass)},
			step{rung: acceptance.Host}))
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		if got := lines(r)[0]; got.Verdict != acceptance.Inconclusive || !slices.Equal(got.Causes, []string{"agent.timeout"}) {
			t.Errorf("got %+v", got)
		}
		if res := r.Results[0]; !strings.Contains(res.Reason, "5s") || !strings.Contains(res.Reason, "was told to stop") || res.DurationS != 5 {
			t.Errorf("got %+v", res)
		}
		if res := r.Results[1]; res.Verdict != acceptance.Pass || res.StartS != 5 || r.Interrupted || r.DurationS != 5 {
			t.Errorf("got %+v in %+v", res, r)
		}
	})
}

// TestRunOverrulesALateVerdict returns a pass and a fail after the deadline.
func TestRunOverrulesALateVerdict(t *testing.T) {
	for _, v := range []acceptance.Verdict{acceptance.Pass, acceptance.Fail} {
		synctest.Test(t, func(t *testing.T) {
			r := run(t, t.Context(), plan(t, nil, step{rung: acceptance.DNS, deadline: time.Second, run: func(context.Context, func(string)) acceptance.Outcome {
				time.Sleep(2 * time.Second)
				return acceptance.Outcome{Verdict: v, Causes: []string{"dns.servfail"}, Measurements: []acceptance.Measurement{{Name: "m", Value: 1.0, Status: "ok"}}}
			}}))
			res := r.Results[0]
			if res.Verdict != acceptance.Inconclusive || !slices.Equal(res.Causes, []string{"agent.timeout"}) || len(res.Measurements) != 1 {
				t.Errorf("got %+v", res)
			}
		})
	}
}

func TestRunAbandonsAStepThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var late func(string)
		r := run(t, t.Context(), plan(t, nil,
			step{rung: acceptance.DNS, deadline: time.Second, run: func(_ context.Context, note func(string)) acceptance.Outcome {
				note("before")
				late = note
				<-release
				note("after")
				return acceptance.Outcome{Verdict: acceptance.Pass}
			}},
			step{rung: acceptance.Host}))
		if res := r.Results[0]; res.Verdict != acceptance.Inconclusive || !strings.Contains(res.Reason, "did not stop") || res.DurationS != 3 {
			t.Errorf("got %+v", res)
		}
		if r.Results[1].Verdict != acceptance.Pass {
			t.Errorf("the next step: %+v", r.Results[1])
		}
		close(release)
		synctest.Wait()
		late("much later")
		if diff := cmp.Diff([]string{"before"}, r.Results[0].Log); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
}

func TestRunIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, cancel)
		ran := false
		r := run(t, ctx, plan(t, []acceptance.Rung{acceptance.Optical, acceptance.Voice},
			step{rung: acceptance.Optical, run: after(time.Second, acceptance.Pass)},
			step{rung: acceptance.Registration, run: after(time.Hour, acceptance.Pass)},
			step{rung: acceptance.DNS, needs: []acceptance.Rung{acceptance.Registration}},
			step{rung: acceptance.Host, run: func(context.Context, func(string)) acceptance.Outcome { ran = true; return acceptance.Outcome{} }},
		))
		interrupted := []string{"agent.interrupted"}
		want := []line{
			{acceptance.Optical, "pass", "", nil},
			{acceptance.Registration, "inconclusive", "", interrupted},
			{acceptance.DNS, "inconclusive", "", interrupted},
			{acceptance.Voice, "inconclusive", "", interrupted},
			{acceptance.Host, "inconclusive", "", interrupted},
		}
		if diff := cmp.Diff(want, lines(r), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
		if !r.Interrupted || r.Verdict != acceptance.Inconclusive || ran || r.DurationS != 3 {
			t.Errorf("interrupted %t, verdict %s, ran %t, duration %v", r.Interrupted, r.Verdict, ran, r.DurationS)
		}
	})
}

func TestRunCancelledBeforeItBegins(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := run(t, ctx, plan(t, []acceptance.Rung{acceptance.Host}, step{rung: acceptance.Host}))
	if !r.Interrupted || r.Results[0].Verdict != acceptance.Inconclusive {
		t.Errorf("got %+v", r)
	}
}

// TestRunInterruptedKeepsAFail: what failed before the end did fail.
func TestRunInterruptedKeepsAFail(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := run(t, ctx, plan(t, []acceptance.Rung{acceptance.Optical, acceptance.Host},
		step{rung: acceptance.Optical, run: outcome("fail", "optical.rx_too_weak")},
		step{rung: acceptance.LANCabling, run: func(context.Context, func(string)) acceptance.Outcome {
			cancel()
			return acceptance.Outcome{Verdict: acceptance.Pass}
		}},
		step{rung: acceptance.Host}))
	if !r.Interrupted || r.Verdict != acceptance.Fail {
		t.Errorf("interrupted %t, verdict %s", r.Interrupted, r.Verdict)
	}
}

func TestRunTellsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []acceptance.Event
		runner := acceptance.Runner{Now: time.Now, OnEvent: func(e acceptance.Event) { events = append(events, e) }}
		runner.Run(t.Context(), plan(t, []acceptance.Rung{acceptance.Voice},
			step{rung: acceptance.Optical, deadline: 30 * time.Second, run: after(time.Second, acceptance.Pass)},
			step{rung: acceptance.DNS, deadline: 60 * time.Second, run: after(time.Second, acceptance.Pass)}))
		var got []string
		last, eta := -1.0, math.Inf(1)
		for _, e := range events {
			got = append(got, fmt.Sprintf("%s %s %.2f %.0f", e.Rung, e.State, e.Progress, e.EtaS))
			if e.Progress < last || e.EtaS > eta {
				t.Errorf("progress falls: %v", got)
			}
			if (e.Result != nil) != (e.State == acceptance.EventDone) {
				t.Errorf("%s has result %v", e.State, e.Result)
			}
			last, eta = e.Progress, e.EtaS
		}
		want := []string{
			"optical started 0.00 30", "optical done 0.33 20", "dns started 0.33 20", "dns done 1.00 0", "voice started 1.00 0", "voice done 1.00 0",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if last != 1 {
			t.Errorf("ends at %v", last)
		}
	})
}

func TestRunBoundsWhatAStepLeaves(t *testing.T) {
	long := strings.Repeat("光", 10_000)
	r := run(t, t.Context(), plan(t, nil, step{rung: acceptance.DNS, run: func(_ context.Context, note func(string)) acceptance.Outcome {
		for i := range 10_000 {
			note(fmt.Sprintf("%d %s", i, long))
		}
		note("bad \xff utf-8\r\n")
		out := acceptance.Outcome{Verdict: acceptance.Inconclusive, Reason: long + "\xff", Conditions: map[string]string{"c": long}}
		for range 1000 {
			out.Measurements = append(out.Measurements, acceptance.Measurement{Name: "m", Value: long, Raw: long, Note: long, Status: "ok"})
		}
		return out
	}}))
	res := r.Results[0]
	total := 0
	for _, l := range res.Log {
		total += len(l)
		if !utf8.ValidString(l) {
			t.Errorf("not UTF-8: %q", l)
		}
	}
	if len(res.Log) > acceptance.MaxLogLines+1 || total > acceptance.MaxLogBytes+200 {
		t.Errorf("the log has %d lines, %d bytes", len(res.Log), total)
	}
	if !slices.ContainsFunc(res.Log, func(l string) bool { return strings.Contains(l, "more lines dropped") }) {
		t.Errorf("nothing says that lines were dropped: %q", res.Log)
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 300_000 {
		t.Errorf("the report is %d bytes", len(data))
	}
}

func TestRunLogBoundsManyShortLines(t *testing.T) {
	r := run(t, t.Context(), plan(t, nil, step{rung: acceptance.DNS, run: func(_ context.Context, note func(string)) acceptance.Outcome {
		for i := range 1000 {
			note(fmt.Sprint(i))
		}
		return acceptance.Outcome{Verdict: acceptance.Pass}
	}}))
	log := r.Results[0].Log
	if len(log) != acceptance.MaxLogLines || log[0] != "0" || log[len(log)-1] != "937 more lines dropped" {
		t.Errorf("%d lines: %q … %q", len(log), log[0], log[len(log)-1])
	}
}

func TestRunKeepsNoNumberThatJSONLacks(t *testing.T) {
	r := run(t, t.Context(), plan(t, nil, step{rung: acceptance.DNS, run: func(context.Context, func(string)) acceptance.Outcome {
		return acceptance.Outcome{Verdict: acceptance.Pass, Measurements: []acceptance.Measurement{
			{Name: "a", Value: math.NaN(), Status: "ok"}, {Name: "b", Value: math.Inf(-1), Status: "ok"}, {Name: "c", Value: 1.5, Status: "ok"},
		}}
	}}))
	if _, err := json.Marshal(r); err != nil {
		t.Fatal(err)
	}
	m := r.Results[0].Measurements
	if m[0].Value != nil || m[0].Status != "untrusted" || m[1].Status != "untrusted" || m[2].Value != 1.5 || m[2].Status != "ok" {
		t.Errorf("got %+v", m)
	}
}

func TestReportEvidence(t *testing.T) {
	report := acceptance.Report{Results: []acceptance.Result{
		{Rung: acceptance.Optical, Verdict: acceptance.Fail, Required: true, Causes: []string{"optical.no_light"}, Warnings: []string{"w"}, Measurements: []acceptance.Measurement{
			{Name: "rx", Value: nil},
			{Name: "rx", Value: -27.4},
			{Name: "rx", Value: -1.0},
			{Name: "state", Value: "los"},
			{Name: "yes", Value: true},
			{Name: "no", Value: false},
			{Name: "n", Value: 3},
			{Name: "u", Value: uint64(4)},
			{Name: "odd", Value: []int{1}},
		}},
		{Rung: acceptance.DNS, Verdict: acceptance.Skipped},
	}}
	e := report.Evidence()
	if len(e.Rungs) != 2 || e.Rungs[0].Name != "optical" || !e.Rungs[0].Required || e.Rungs[1].Verdict != "skipped" {
		t.Fatalf("got %+v", e)
	}
	wantNumbers := map[string]float64{"rx": -27.4, "yes": 1, "no": 0, "n": 3, "u": 4}
	if diff := cmp.Diff(wantNumbers, e.Rungs[0].Numbers); diff != "" {
		t.Errorf("numbers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"state": "los"}, e.Rungs[0].Texts); diff != "" {
		t.Errorf("texts (-want +got):\n%s", diff)
	}
	// A report that was stored and read again gives the same evidence.
	data, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var again acceptance.Report
	if err := json.Unmarshal(data, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantNumbers["rx"], again.Evidence().Rungs[0].Numbers["rx"]); diff != "" {
		t.Error(diff)
	}
}

func TestOverall(t *testing.T) {
	must := func(v acceptance.Verdict) acceptance.Result { return acceptance.Result{Verdict: v, Required: true} }
	may := func(v acceptance.Verdict) acceptance.Result { return acceptance.Result{Verdict: v} }
	for _, tt := range []struct {
		results []acceptance.Result
		want    acceptance.Verdict
	}{
		{nil, "inconclusive"},
		{[]acceptance.Result{may("pass")}, "inconclusive"},
		{[]acceptance.Result{must("pass"), may("fail")}, "pass"},
		{[]acceptance.Result{must("pass"), must("skipped")}, "inconclusive"},
		{[]acceptance.Result{must("inconclusive"), must("fail")}, "fail"},
		{[]acceptance.Result{must("pass"), must("")}, "inconclusive"},
	} {
		if got := acceptance.Overall(tt.results); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.results, got, tt.want)
		}
	}
}
