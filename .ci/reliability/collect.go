package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// properties are what is promised, in the order of the table.
var properties = [...]string{
	"power-cut", "corruption", "file-faults", "link-kill", "black-hole", "duplicates", "clock", "flash-writes", "memory", "storm",
}

// The verdicts of a line.
const (
	verdictOK   = "ok"
	verdictFail = "FAIL"
	verdictPeer = "peer"
)

// line is what a test said of one variant of a property.
type line struct {
	property, variant string
	trials            string // digits
	result, verdict   string
}

const lineMark = "reliability: "

// parseLine takes apart a line of a test's output. ok is false for lines that
// are no business of ours; the error says what is wrong with one that is.
func parseLine(text string) (l line, ok bool, err error) {
	// The testing package puts "    file_test.go:12: " before it.
	before, said, found := strings.Cut(strings.TrimRight(text, "\r\n"), lineMark)
	if !found || strings.TrimSpace(before) != "" && !strings.HasSuffix(before, ": ") {
		return line{}, false, nil
	}
	parts := strings.Split(said, " | ")
	if len(parts) < 5 {
		return line{}, true, fmt.Errorf("%d fields rather than 5: %q", len(parts), said)
	}
	last := len(parts) - 1
	l = line{
		property: strings.TrimSpace(parts[0]), variant: strings.TrimSpace(parts[1]),
		trials: digits(parts[2]), result: strings.TrimSpace(strings.Join(parts[3:last], " | ")), verdict: strings.TrimSpace(parts[last]),
	}
	switch {
	case !slices.Contains(properties[:], l.property):
		err = fmt.Errorf("no property is called %q: %q", l.property, said)
	case l.trials == "":
		err = fmt.Errorf("%q is no number of trials: %q", parts[2], said)
	case l.verdict != verdictOK && l.verdict != verdictFail && l.verdict != verdictPeer:
		err = fmt.Errorf("%q is no verdict: %q", l.verdict, said)
	case l.result == "":
		err = fmt.Errorf("no result: %q", said)
	}
	return l, true, err
}

// digits returns the digits of a number that may be grouped, or "".
func digits(number string) string {
	var b strings.Builder
	for _, r := range strings.TrimSpace(number) {
		switch {
		case r >= '0' && r <= '9':
			b.WriteRune(r)
		case r == ' ' || r == ',' || r == '_' || r == '\u00a0' || r == '\u202f':
		default:
			return ""
		}
	}
	return b.String()
}

// propertyOf tells which property a test is about by its name:
// TestReliabilityPowerCutUBIFS is about power-cut. "" means that it doesn't
// say.
func propertyOf(test string) string {
	name := strings.ToLower(strings.TrimPrefix(test, "TestReliability"))
	for _, p := range properties {
		if strings.HasPrefix(name, strings.ReplaceAll(p, "-", "")) {
			return p
		}
	}
	return ""
}

// event is a line of `go test -json`, as `go doc test2json` describes it.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// testKey names a test with its package; subtests count to their test.
type testKey struct{ pkg, test string }

// trial is a test that was run.
type trial struct {
	key     testKey
	lines   []line
	output  []string
	trouble string // why it shows nothing; empty: it passed
	ended   bool
}

// peer reports whether the test is about another library: where that cannot be
// run, nothing of ours is in doubt.
func (t *trial) peer() bool { return strings.Contains(t.key.test, "Peer") }

// report is what all tests said.
type report struct {
	trials   []*trial // in order of their start
	problems []string // that belong to no property
}

func (r *report) problem(text string) { r.problems = append(r.problems, text) }

// clean reports whether nothing is known to be wrong.
func (r *report) clean() bool {
	return len(r.problems) == 0 && !slices.ContainsFunc(r.trials, func(t *trial) bool { return t.trouble != "" })
}

func (r *report) trial(key testKey) *trial {
	key.test, _, _ = strings.Cut(key.test, "/")
	for _, t := range r.trials {
		if t.key == key {
			return t
		}
	}
	t := &trial{key: key}
	r.trials = append(r.trials, t)
	return t
}

// collect reads the events of go test. It prints to progress what go test says
// of each package, and the whole output of what failed.
func collect(in io.Reader, progress io.Writer) (*report, error) {
	r := &report{}
	packages := map[string][]string{} // what go test itself says of a package
	lines := bufio.NewReader(in)
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil && len(text) == 0 {
			if errors.Is(err, io.EOF) {
				return r, nil
			}
			return r, fmt.Errorf("cannot read test events: %w", err)
		}
		var e event
		if err := json.Unmarshal(text, &e); err != nil {
			_, _ = progress.Write(text) // go test prints some troubles plainly
			continue
		}
		switch {
		case e.Action == "build-output":
			fmt.Fprint(progress, e.Output)
		case e.Test != "":
			r.ofTest(e, progress)
		case e.Action == "output":
			packages[e.Package] = append(packages[e.Package], e.Output)
		case e.Action == "pass", e.Action == "fail", e.Action == "skip":
			r.ofPackage(e, packages[e.Package], progress)
		}
	}
}

// ofTest notes an event of a test.
func (r *report) ofTest(e event, progress io.Writer) {
	t := r.trial(testKey{e.Package, e.Test})
	whole := e.Test == t.key.test
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output)
		l, ok, err := parseLine(e.Output)
		switch {
		case err != nil:
			t.trouble = "says what can't be read: " + err.Error()
		case ok:
			t.lines = append(t.lines, l)
		}
	case "pass":
		t.ended = t.ended || whole
	case "skip":
		if t.trouble == "" {
			t.trouble = "was skipped: " + reason(t.output)
		}
		t.ended = t.ended || whole
	case "fail":
		t.trouble = "failed"
		if t.ended = t.ended || whole; whole {
			fmt.Fprint(progress, strings.Join(t.output, ""))
		}
	}
}

// ofPackage notes the end of a package.
func (r *report) ofPackage(e event, said []string, progress io.Writer) {
	failed := false
	for _, t := range r.trials {
		if t.key.pkg != e.Package {
			continue
		}
		if !t.ended {
			t.ended, t.trouble = true, "did not end"
			fmt.Fprint(progress, strings.Join(t.output, ""))
		}
		failed = failed || t.trouble != ""
	}
	if e.Action == "fail" && !failed {
		r.problem(e.Package + " failed outside its tests")
	}
	if e.Action == "fail" {
		fmt.Fprint(progress, strings.Join(said, ""))
	} else if len(said) > 0 {
		fmt.Fprint(progress, said[len(said)-1])
	}
}

// reason is what a skipped test said: the line "    file.go:12: why".
func reason(output []string) string {
	for _, l := range slices.Backward(output) {
		if _, why, ok := strings.Cut(strings.TrimSpace(l), ".go:"); ok {
			if _, text, ok := strings.Cut(why, ": "); ok {
				return text
			}
		}
	}
	return "no reason given"
}
