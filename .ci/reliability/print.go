package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// row is a line of the table.
type row struct {
	property, trials string
	trouble          []string // tests that show nothing
	lines            []line   // what was shown, variant by variant
	ok               bool
}

// row adds up what is known of a property.
func (r *report) row(property string) row {
	var lines []line
	var trouble []string
	for _, t := range r.trials {
		about := propertyOf(t.key.test) == property
		for _, l := range t.lines {
			if l.property != property {
				continue
			}
			about = true
			if l.verdict != verdictPeer {
				lines = append(lines, l)
			}
		}
		if skipped := strings.HasPrefix(t.trouble, "was skipped"); about && t.trouble != "" && (!skipped || !t.peer()) {
			trouble = append(trouble, t.key.test+" "+t.trouble)
		}
	}
	out := row{property: property, trials: "0", lines: lines, ok: len(lines) > 0 && len(trouble) == 0}
	var trials []string
	for _, l := range lines {
		out.ok = out.ok && l.verdict == verdictOK
		trials = append(trials, l.trials)
	}
	if len(lines) == 0 && len(trouble) == 0 {
		trouble = []string{"no test tells of it"}
	}
	if len(trials) > 0 {
		out.trials = sum(trials)
	}
	out.trouble = trouble
	return out
}

// result is what there is to say in one line: troubles first, the only variant
// in full, of several how many hold.
func (w row) result() string {
	all := slices.Clone(w.trouble)
	hold := 0
	for _, l := range w.lines {
		if l.verdict == verdictFail {
			all = append(all, "FAIL: "+l.variant+": "+l.result)
		} else {
			hold++
		}
	}
	switch {
	case len(w.lines) == 1 && hold == 1:
		all = append(all, w.lines[0].result)
	case hold > 0:
		all = append(all, fmt.Sprintf("%d of %d variants hold", hold, len(w.lines)))
	}
	return strings.Join(all, "; ")
}

// sum joins numbers of trials: "10000 + 200 + 3 × 50".
func sum(trials []string) string {
	var parts []string
	for len(trials) > 0 {
		n := 1
		for n < len(trials) && trials[n] == trials[0] {
			n++
		}
		part := trials[0]
		if n > 2 {
			part = fmt.Sprintf("%d × %s", n, part)
			trials = trials[n-1:]
		}
		parts, trials = append(parts, part), trials[1:]
	}
	return strings.Join(parts, " + ")
}

func (w row) verdict() string {
	if w.ok {
		return verdictOK
	}
	return verdictFail
}

// peerLines returns what other libraries did, and which of them did not run.
func (r *report) peerLines() (lines []line) {
	for _, property := range properties {
		for _, t := range r.trials {
			for _, l := range t.lines {
				if l.property == property && l.verdict == verdictPeer {
					lines = append(lines, l)
				}
			}
			if t.peer() && len(t.lines) == 0 && propertyOf(t.key.test) == property {
				lines = append(lines, line{property: property, variant: t.key.test, trials: "0", result: "not run: " + t.trouble, verdict: verdictPeer})
			}
		}
	}
	return lines
}

// stray returns the troubles that no row tells.
func (r *report) stray() []string {
	all := slices.Clone(r.problems)
	for _, t := range r.trials {
		if t.trouble != "" && propertyOf(t.key.test) == "" && len(t.lines) == 0 {
			all = append(all, t.key.test+" "+t.trouble)
		}
	}
	return all
}

// print prints the table and reports whether anything failed.
func (r *report) print(out io.Writer) (failed bool) {
	rows := make([]row, len(properties))
	passed := 0
	for i, p := range properties {
		rows[i] = r.row(p)
		if rows[i].ok {
			passed++
		}
	}
	for _, w := range rows {
		fmt.Fprintf(out, "%-12s  %s  %s  %s\n", w.property, w.trials, w.result(), w.verdict())
	}
	fmt.Fprintf(out, "\nVariant by variant:\n")
	for _, w := range rows {
		for _, l := range w.lines {
			fmt.Fprintf(out, "      %-12s  %s  %s: %s  %s\n", l.property, l.trials, l.variant, l.result, l.verdict)
		}
	}
	if peers := r.peerLines(); len(peers) > 0 {
		fmt.Fprintf(out, "\nThe same done to others:\n")
		for _, l := range peers {
			fmt.Fprintf(out, "peer  %-12s  %s  %s: %s\n", l.property, l.trials, l.variant, l.result)
		}
	}
	stray := r.stray()
	if len(stray) > 0 {
		fmt.Fprintln(out)
		for _, s := range stray {
			fmt.Fprintln(out, "FAIL:", s)
		}
	}
	fails := len(properties) - passed + len(stray)
	fmt.Fprintf(out, "\n%d passed, %d failed, 0 skipped\n", passed, fails)
	return fails > 0
}

// markdown returns the tables as the documentation has them.
func (r *report) markdown(form string) string {
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	var b strings.Builder
	command := "make reliability"
	if form == "long" {
		command += " LONG=1"
	}
	fmt.Fprintf(&b, "\n`%s` (the %s forms), %s. Machine: %s.\n\n", command, form, time.Now().UTC().Format(time.DateOnly), machine())
	b.WriteString("| property | result | |\n|---|---|---|\n")
	for _, p := range properties {
		w := r.row(p)
		fmt.Fprintf(&b, "| %s | %s | %s |\n", w.property, cell(w.result()), w.verdict())
	}
	b.WriteString("\nVariant by variant:\n\n| property | variant | trials | result |\n|---|---|---|---|\n")
	for _, p := range properties {
		for _, l := range r.row(p).lines {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", l.property, cell(l.variant), l.trials, cell(l.result))
		}
	}
	if peers := r.peerLines(); len(peers) > 0 {
		b.WriteString("\nThe same done to others, in the same run:\n\n| property | who | trials | result |\n|---|---|---|---|\n")
		for _, l := range peers {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", l.property, cell(l.variant), l.trials, cell(l.result))
		}
	}
	b.WriteString("\n")
	return b.String()
}

// machine says what the figures were measured on.
func machine() string {
	cpu := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range bytes.Lines(info) {
			if _, name, ok := bytes.Cut(l, []byte("model name\t: ")); ok {
				cpu = string(bytes.TrimSpace(name))
				break
			}
		}
	}
	kernel := "unknown kernel"
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = "Linux " + strings.Join(strings.SplitN(strings.TrimSpace(string(release)), ".", 3)[:2], ".")
	}
	return fmt.Sprintf("%s, %d cores, %s, %s", cpu, runtime.NumCPU(), kernel, runtime.Version())
}
