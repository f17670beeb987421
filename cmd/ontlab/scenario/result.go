package scenario

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
)

// Observed is what a played scenario came to.
type Observed struct {
	Verdict  acceptance.Verdict
	Rungs    Rungs              // in climbing order
	Causes   []diagnosis.Ranked // of the diagnosis, in its order
	Events   []string           // as EventName, in order of arrival
	Duration time.Duration      // of the visit
	Where    string             // where it was played: WhereHost or WhereGuest
	Err      error              // why it could not be played; the rest is not compared then
}

// Where a scenario was played.
const (
	WhereHost  = "host"  // on the running kernel
	WhereGuest = "guest" // in a QEMU guest
)

// RungVerdict is what a rung came to.
type RungVerdict struct {
	Rung    acceptance.Rung
	Verdict acceptance.Verdict
}

// Rungs are verdicts in climbing order; in JSON an object in the same order.
type Rungs []RungVerdict

// Verdict returns that of a rung, "" if it was not climbed.
func (rs Rungs) Verdict(rung acceptance.Rung) acceptance.Verdict {
	for _, r := range rs {
		if r.Rung == rung {
			return r.Verdict
		}
	}
	return ""
}

// MarshalJSON implements json.Marshaler.
func (rs Rungs) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, r := range rs {
		if i > 0 {
			b.WriteByte(',')
		}
		for j, word := range []string{string(r.Rung), string(r.Verdict)} {
			quoted, err := json.Marshal(word)
			if err != nil {
				return nil, err
			}
			if j > 0 {
				b.WriteByte(':')
			}
			b.Write(quoted)
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON implements json.Unmarshaler: what comes back from a guest is
// put together with the rest.
func (rs *Rungs) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("cannot read rungs: %.40q is not an object", data)
	}
	out := Rungs{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return fmt.Errorf("cannot read rungs: %w", err)
		}
		var verdict acceptance.Verdict
		if err := dec.Decode(&verdict); err != nil {
			return fmt.Errorf("cannot read rungs: %w", err)
		}
		rung, _ := name.(string)
		out = append(out, RungVerdict{acceptance.Rung(rung), verdict})
	}
	*rs = out
	return nil
}

// Result is a scenario's row in the table, and its line of JSON.
type Result struct {
	Scenario        string   `json:"scenario"`
	OK              bool     `json:"ok"` // it was played, and every expectation held
	ExpectedVerdict string   `json:"expected_verdict"`
	Verdict         string   `json:"verdict"`        // "": it was not played
	ExpectedCause   string   `json:"expected_cause"` // "": not compared
	FirstCause      string   `json:"first_cause"`    // NoCause: there is none; "": it was not played
	ExpectedRungs   Rungs    `json:"expected_rungs"` // those that were compared
	Rungs           Rungs    `json:"rungs"`
	DurationS       float64  `json:"duration_s"` // of the visit
	Where           string   `json:"where,omitempty"`
	Plays           int      `json:"plays,omitempty"` // how often it was played; 0: once
	Causes          []string `json:"causes"`
	Events          []string `json:"events"` // each name once
	Mismatches      []string `json:"mismatches"`
	Error           string   `json:"error,omitempty"`
}

// Unplayed is the result of a file that could not be played: err says why.
func Unplayed(file string, err error) Result {
	return Compare(Scenario{Name: base(file)}, Observed{Err: err})
}

// Compare holds what was observed against what was expected.
func Compare(s Scenario, o Observed) Result {
	r := Result{
		Scenario: s.Name, ExpectedVerdict: string(s.Expect.Verdict), ExpectedCause: string(s.Expect.FirstCause),
		ExpectedRungs: Rungs{}, Rungs: Rungs{}, Where: o.Where, Causes: []string{}, Events: []string{}, Mismatches: []string{},
	}
	for _, rung := range acceptance.Ladder() {
		if v, ok := s.Expect.Rungs[rung]; ok {
			r.ExpectedRungs = append(r.ExpectedRungs, RungVerdict{rung, v})
		}
	}
	r.DurationS = math.Round(o.Duration.Seconds()*1000) / 1000
	if o.Err != nil {
		r.Error = o.Err.Error()
		return r
	}
	r.Verdict = string(o.Verdict)
	r.Rungs = append(r.Rungs, o.Rungs...)
	for _, c := range o.Causes {
		r.Causes = append(r.Causes, string(c.Code))
	}
	r.FirstCause = string(firstCause(s, o.Causes))
	for _, event := range o.Events {
		if !slices.Contains(r.Events, event) {
			r.Events = append(r.Events, event)
		}
	}
	r.Mismatches = append(r.Mismatches, mismatches(s.Expect, o, r)...)
	r.OK = len(r.Mismatches) == 0
	return r
}

// firstCause returns the first cause that counts, or NoCause. Where NoCause is
// expected only what is the cause of a fault counts: what could not be told and
// what passed with a warning are wrong with no line.
func firstCause(s Scenario, causes []diagnosis.Ranked) diagnosis.Code {
	for _, c := range causes {
		if !s.counts(c) || s.Expect.FirstCause == NoCause && c.Kind != diagnosis.KindFault {
			continue
		}
		return c.Code
	}
	return NoCause
}

// counts reports whether a cause comes from a rung that a lab can judge, or
// that the order requires all the same.
func (s Scenario) counts(c diagnosis.Ranked) bool {
	if len(c.For) == 0 {
		return true
	}
	for _, ref := range c.For {
		rung := acceptance.Rung(ref.Rung)
		if !slices.Contains(unreliable(), rung) || slices.Contains(s.Order.Require, rung) {
			return true
		}
	}
	return false
}

// mismatches says which expectations did not hold.
func mismatches(want Expect, o Observed, r Result) []string {
	var out []string
	miss := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if o.Verdict == "" {
		miss("the visit has no verdict")
	} else if want.Verdict != "" && o.Verdict != want.Verdict {
		miss("the verdict is %s, expected was %s", o.Verdict, want.Verdict)
	}
	for _, e := range r.ExpectedRungs {
		switch got := o.Rungs.Verdict(e.Rung); got {
		case e.Verdict:
		case "":
			miss("rung %s was not climbed, expected was %s", e.Rung, e.Verdict)
		default:
			miss("rung %s is %s, expected was %s", e.Rung, got, e.Verdict)
		}
	}
	if want.FirstCause != "" && r.FirstCause != string(want.FirstCause) {
		miss("the first cause is %s, expected was %s", r.FirstCause, want.FirstCause)
	}
	for _, code := range want.Causes {
		if !slices.Contains(r.Causes, string(code)) {
			miss("%s is not among the causes", code)
		}
	}
	for _, code := range want.NotCauses {
		if slices.Contains(r.Causes, string(code)) {
			miss("%s is among the causes", code)
		}
	}
	for _, event := range want.Events {
		if !slices.ContainsFunc(o.Events, func(came string) bool { return fits(event, came) }) {
			miss("event %s did not come", event)
		}
	}
	if want.WithinS > 0 && o.Duration.Seconds() > want.WithinS {
		miss("the visit took %.1f s, expected was at most %g s", o.Duration.Seconds(), want.WithinS)
	}
	return out
}

// WriteJSON writes a result as one line.
func WriteJSON(w io.Writer, r Result) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("cannot write result of %s: %w", r.Scenario, err)
	}
	return nil
}

// WriteTable writes results for people: a row for each, why it is not ok below
// it, and a count at the end.
func WriteTable(w io.Writer, results []Result) error {
	head := []string{"SCENARIO", "", "VERDICT", "FIRST CAUSE", "TIME"}
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows(results)...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	write := func(row []string) {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(printable(cell) + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	write(head)
	good := 0
	for _, r := range results {
		if r.OK {
			good++
		}
		write(r.row())
		why := r.Mismatches
		if r.Error != "" {
			why = append([]string{"could not be played:"}, strings.Split(r.Error, "\n")...)
		}
		for _, reason := range why {
			b.WriteString("    " + printable(reason) + "\n")
		}
	}
	fmt.Fprintf(&b, "%d scenarios, %d ok, %d NOT OK\n", len(results), good, len(results)-good)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("cannot write results: %w", err)
	}
	return nil
}

func rows(results []Result) [][]string {
	out := make([][]string, 0, len(results))
	for _, r := range results {
		out = append(out, r.row())
	}
	return out
}

// row is the result's line in the table.
func (r Result) row() []string {
	word := "ok"
	if !r.OK {
		word = "NOT OK"
	}
	if r.Verdict == "" {
		return []string{r.Scenario, word, "-", "-", "-"}
	}
	return []string{r.Scenario, word, r.Verdict, r.FirstCause, fmt.Sprintf("%.1f s", r.DurationS)}
}

// printable keeps what a server said from steering a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '�'
		}
		return r
	}, s)
}
