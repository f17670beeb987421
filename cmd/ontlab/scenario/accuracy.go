package scenario

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
)

// The bars that the agent is held to, as ratios.
const (
	BarFirstCause = 0.95
	BarVerdict    = 1.0
)

// Accuracy is how often the agent was right about faults that were really
// there. A scenario that could not be played counts as wrong.
type Accuracy struct {
	Scenarios int // all of them
	Verdicts  int // right
	// Causes is how many expect a first cause, or that there is none, and
	// RightCauses of how many of them it came.
	Causes, RightCauses int
	// Healthy is how many expect a pass, and FalseAlarms of how many of them
	// another verdict came, or the cause of a fault where none was expected.
	Healthy, FalseAlarms int
	Expectations         int // scenarios of which every expectation held
	Replays              int // scenarios were played again so often, because the machine was busy
}

// MeasureAccuracy counts.
func MeasureAccuracy(results []Result) Accuracy {
	a := Accuracy{Scenarios: len(results)}
	for _, r := range results {
		rightVerdict := r.Verdict != "" && r.Verdict == r.ExpectedVerdict
		rightCause := r.FirstCause != "" && r.FirstCause == r.ExpectedCause
		if rightVerdict {
			a.Verdicts++
		}
		if r.ExpectedCause != "" {
			a.Causes++
			if rightCause {
				a.RightCauses++
			}
		}
		if r.ExpectedVerdict == string(acceptance.Pass) {
			a.Healthy++
			if !rightVerdict || r.ExpectedCause == string(NoCause) && !rightCause {
				a.FalseAlarms++
			}
		}
		if r.OK {
			a.Expectations++
		}
		a.Replays += max(r.Plays-1, 0)
	}
	return a
}

// OK reports whether the bars are met.
func (a Accuracy) OK() bool {
	return a.Scenarios > 0 && ratioOf(a.RightCauses, a.Causes) >= BarFirstCause && ratioOf(a.Verdicts, a.Scenarios) >= BarVerdict
}

// ratioOf is 1 of nothing: nothing was wrong.
func ratioOf(part, whole int) float64 {
	if whole == 0 {
		return 1
	}
	return float64(part) / float64(whole)
}

// percent rounds down: 94.96 % is not 95 %.
func percent(part, whole int) string {
	return fmt.Sprintf("%g %%", math.Floor(1000*ratioOf(part, whole))/10)
}

// WriteAccuracy writes docs/accuracy.md: what scenarios were to come to and
// what they came to, in the order of their names. machine says on what.
func WriteAccuracy(w io.Writer, scenarios []Scenario, results []Result, machine string) error {
	results = slices.Clone(results)
	slices.SortFunc(results, func(a, b Result) int { return cmp.Compare(a.Scenario, b.Scenario) })
	p := &accuracyPage{}
	p.head(MeasureAccuracy(results), machine)
	p.verdicts(results)
	p.confusion(results)
	p.scenarios(results)
	p.coverage(scenarios)
	if _, err := w.Write(p.Bytes()); err != nil {
		return fmt.Errorf("cannot write accuracy: %w", err)
	}
	return nil
}

type accuracyPage struct{ bytes.Buffer }

func (p *accuracyPage) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *accuracyPage) head(a Accuracy, machine string) {
	p.line(`# Accuracy

Written by ` + "`make scenarios`" + `, which plays every file in cmd/ontlab/scenarios ([scenarios](scenarios.md)) and holds what the agent
said against what was really wrong; don't edit.
`)
	p.line("| | | bar |\n|---|---|---|")
	p.line("| scenarios | %d | |", a.Scenarios)
	p.line("| verdict right | %d of %d, **%s** | %g %% |", a.Verdicts, a.Scenarios, percent(a.Verdicts, a.Scenarios), 100*BarVerdict)
	p.line("| first cause right | %d of %d, **%s** | %g %% |", a.RightCauses, a.Causes, percent(a.RightCauses, a.Causes), 100*BarFirstCause)
	p.line("| false alarms | %d of %d lines that pass | 0 |", a.FalseAlarms, a.Healthy)
	p.line("| every expectation held | %d of %d | |", a.Expectations, a.Scenarios)
	p.line("| played again, the machine being busy | %d | |", a.Replays)
	p.line(`
A first cause counts where the file says one, or that there is none. A false alarm is a verdict other than pass, or the cause
of a fault, on a line that has none. What could not be played counts as wrong. A scenario is played again, three times at
most, only where its speed test said that the gateway's processor was the limit; the last time counts.

Played on: %s.
`, machine)
}

// verdicts is the table of expected and found verdicts.
func (p *accuracyPage) verdicts(results []Result) {
	kinds := []string{string(acceptance.Pass), string(acceptance.Fail), string(acceptance.Inconclusive)}
	p.line("## Verdicts\n\n| expected | pass | fail | inconclusive | not played |\n|---|---|---|---|---|")
	for _, want := range kinds {
		row := []string{want}
		for _, got := range append(kinds, "") {
			n := 0
			for _, r := range results {
				if r.ExpectedVerdict == want && r.Verdict == got {
					n++
				}
			}
			row = append(row, strconv.Itoa(n))
		}
		p.line("| %s |", strings.Join(row, " | "))
	}
}

// confusion is the table of first causes. Most of a matrix of a hundred codes
// would be empty: a row has what is not.
func (p *accuracyPage) confusion(results []Result) {
	p.line("\n## First causes\n\n| expected | times | right | found instead |\n|---|---|---|---|")
	found := map[string]map[string]int{}
	for _, r := range results {
		if r.ExpectedCause == "" {
			continue
		}
		if found[r.ExpectedCause] == nil {
			found[r.ExpectedCause] = map[string]int{}
		}
		found[r.ExpectedCause][cmp.Or(r.FirstCause, "not played")]++
	}
	for _, want := range slices.Sorted(maps.Keys(found)) {
		times, instead := 0, []string{}
		for _, got := range slices.Sorted(maps.Keys(found[want])) {
			n := found[want][got]
			times += n
			if got != want {
				instead = append(instead, fmt.Sprintf("`%s` × %d", got, n))
			}
		}
		p.line("| `%s` | %d | %d | %s |", want, times, found[want][want], strings.Join(instead, ", "))
	}
}

func (p *accuracyPage) scenarios(results []Result) {
	p.line("\n## Scenarios\n\n| scenario | | verdict | first cause | visit | where |\n|---|---|---|---|---|---|")
	both := func(want, got string) string {
		switch {
		case got == "":
			return "*not played*"
		case want == "":
			return got + " (not compared)"
		case want == got:
			return got
		}
		return fmt.Sprintf("**%s**, expected %s", got, want)
	}
	for _, r := range results {
		word := "ok"
		if !r.OK {
			word = "**not ok**"
		}
		if r.Plays > 1 {
			word += fmt.Sprintf(", played %d times", r.Plays)
		}
		p.line("| %s | %s | %s | %s | %.1f s | %s |", r.Scenario, word, both(r.ExpectedVerdict, r.Verdict), both(r.ExpectedCause, r.FirstCause), r.DurationS, r.Where)
	}
	for _, r := range results {
		if r.Verdict != "" && len(r.Mismatches) > 0 {
			p.line("\n%s: %s.", r.Scenario, cell(strings.Join(r.Mismatches, "; ")))
		}
	}
}

// cell is a text that stands in a table.
func cell(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "|", `\|`), "\n", " ") }

// coverage tells which codes no scenario expects.
func (p *accuracyPage) coverage(scenarios []Scenario) {
	expected := Expected(scenarios)
	all := diagnosis.Catalogue()
	n := 0
	for _, c := range all {
		if expected[c.Code] > 0 {
			n++
		}
	}
	p.line("\n## Coverage\n\nOf %d cause codes %d are expected by a scenario. The others, and why:\n\n| code | why |\n|---|---|", len(all), n)
	why := uncovered()
	for _, c := range all {
		if expected[c.Code] == 0 {
			p.line("| `%s` | %s |", c.Code, cmp.Or(why[c.Code], "**no reason is given**"))
		}
	}
}

// Expected counts how many scenarios expect each code, as first cause or among
// the causes.
func Expected(scenarios []Scenario) map[diagnosis.Code]int {
	n := map[diagnosis.Code]int{}
	for _, s := range scenarios {
		codes := slices.Clone(s.Expect.Causes)
		if first := s.Expect.FirstCause; first != "" && first != NoCause && !slices.Contains(codes, first) {
			codes = append(codes, first)
		}
		for _, c := range codes {
			n[c]++
		}
	}
	return n
}
