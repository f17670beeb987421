package scenario

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"ontagent/agent/diagnosis"
)

// allShipped are the scenarios that come with this program.
func allShipped(t *testing.T) []Scenario {
	t.Helper()
	files, err := filepath.Glob("../scenarios/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	all := make([]Scenario, 0, len(files))
	for _, file := range files {
		s, err := Load(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

func TestEveryCauseIsExpectedOrHasAReason(t *testing.T) {
	expected, reasons := Expected(allShipped(t)), uncovered()
	for _, c := range diagnosis.Catalogue() {
		why := reasons[c.Code]
		delete(reasons, c.Code)
		switch n := expected[c.Code]; {
		case n == 0 && strings.TrimSpace(why) == "":
			t.Errorf("no scenario expects %s, and no reason is given", c.Code)
		case n > 0 && why != "":
			t.Errorf("%d scenarios expect %s, so a reason is too much", n, c.Code)
		}
	}
	for code := range reasons {
		t.Errorf("%s is no cause", code)
	}
}

func TestShippedScenariosAreEnough(t *testing.T) {
	all := allShipped(t)
	healthy := 0
	for _, s := range all {
		if s.Expect.FirstCause == NoCause && s.Expect.Verdict == "pass" {
			healthy++
		}
		if s.Expect.FirstCause == "" {
			t.Logf("%s expects no first cause", s.Name)
		}
	}
	if len(all) < 70 || healthy < 15 {
		t.Errorf("%d scenarios, %d of healthy lines", len(all), healthy)
	}
}

func TestAccuracy(t *testing.T) {
	results := []Result{
		{Scenario: "b", OK: true, ExpectedVerdict: "fail", Verdict: "fail", ExpectedCause: "dial.no_pado", FirstCause: "dial.no_pado", Where: WhereHost, DurationS: 12.34},
		{Scenario: "a", OK: true, ExpectedVerdict: "pass", Verdict: "pass", ExpectedCause: "none", FirstCause: "none", Where: WhereGuest, Plays: 2},
		{Scenario: "c", ExpectedVerdict: "pass", Verdict: "pass", ExpectedCause: "none", FirstCause: "dns.no_answer", Mismatches: []string{"the first cause is dns.no_answer, expected was none"}},
		{Scenario: "d", ExpectedVerdict: "fail", ExpectedCause: "dns.no_answer", Error: "/a/path: no"},
		{Scenario: "e", OK: true, ExpectedVerdict: "inconclusive", Verdict: "inconclusive", FirstCause: "dns.no_answer"},
	}
	want := Accuracy{Scenarios: 5, Verdicts: 4, Causes: 4, RightCauses: 2, Healthy: 2, FalseAlarms: 1, Expectations: 3, Replays: 1}
	if got := MeasureAccuracy(results); got != want || got.OK() {
		t.Errorf("%+v, met %t, want %+v", got, got.OK(), want)
	}
	var page bytes.Buffer
	if err := WriteAccuracy(&page, []Scenario{{Expect: Expect{FirstCause: "dial.no_pado", Causes: []diagnosis.Code{"dns.no_answer"}}}}, results, "a machine"); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"4 of 5, **80 %**", "2 of 4, **50 %**", "1 of 2 lines that pass", "| played again, the machine being busy | 1 |",
		"| fail | 0 | 1 | 0 | 1 |", "| `none` | 2 | 1 | `dns.no_answer` × 1 |", "| `dns.no_answer` | 1 | 0 | `not played` × 1 |",
		"| a | ok, played 2 times | pass | none | 0.0 s | guest |", "**dns.no_answer**, expected none", "| e | ok | inconclusive | dns.no_answer (not compared) |",
		"c: the first cause is dns.no_answer, expected was none.", "Played on: a machine.",
	} {
		if !strings.Contains(page.String(), part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	if strings.Contains(page.String(), "/a/path") {
		t.Error("the page tells a path")
	}
	if t.Failed() {
		t.Log(page.String())
	}
}

func TestBarsOfAccuracy(t *testing.T) {
	results := make([]Result, 100)
	for i := range results {
		results[i] = Result{ExpectedVerdict: "fail", Verdict: "fail", ExpectedCause: "dns.no_answer", FirstCause: "dns.no_answer"}
	}
	for i := range 5 {
		results[i].FirstCause = "none"
	}
	if !MeasureAccuracy(results).OK() {
		t.Error("95 of 100 are not enough")
	}
	results[5].FirstCause = "none"
	if MeasureAccuracy(results).OK() {
		t.Error("94 of 100 are enough")
	}
	results[5].FirstCause, results[99].Verdict = "dns.no_answer", "pass"
	if MeasureAccuracy(results).OK() {
		t.Error("a wrong verdict is let pass")
	}
	if MeasureAccuracy(nil).OK() {
		t.Error("nothing played is enough")
	}
}
