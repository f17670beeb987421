package diagnosis

import (
	"cmp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Evidence is what a ladder, or a part of one, has shown. The order of the
// rungs is that of the ladder; a rung that appears twice counts the first time.
type Evidence struct{ Rungs []Rung }

// Rung is what one rung has shown.
type Rung struct {
	Name     string // as in acceptance: "optical"
	Verdict  string // "pass", "fail", "inconclusive", "skipped"
	Required bool
	// Codes are the causes that the rung itself came to, Warnings what it saw
	// beside them.
	Codes, Warnings []string
	// Numbers and Texts are its measurements by name, those that have a value.
	Numbers map[string]float64
	Texts   map[string]string
}

// The verdicts of a Rung.
const (
	pass         = "pass"
	fail         = "fail"
	inconclusive = "inconclusive"
	skipped      = "skipped"
)

// Ref points at a piece of evidence.
type Ref struct {
	Rung string `json:"rung"`
	// What is "verdict", "cause", "warning" or the name of a measurement.
	What  string `json:"what"`
	Value string `json:"value"`
}

// Ranked is a cause with how sure it is and why.
type Ranked struct {
	Code     Code     `json:"code"`
	Side     Side     `json:"side"`
	OrSide   Side     `json:"or_side,omitempty"`
	Severity Severity `json:"severity"`
	// Kind says what the cause is of.
	Kind Kind `json:"kind"`
	// Confidence is from 0 to 1. Those of several causes don't add up to one:
	// there may be two at once.
	Confidence float64 `json:"confidence"`
	For        []Ref   `json:"for,omitempty"`
	Against    []Ref   `json:"against,omitempty"`

	rung, index int // place in the evidence
}

// Kind says what a cause is the cause of.
type Kind string

// The kinds, in the order in which causes are ranked.
const (
	KindFault   Kind = "fault"   // something failed
	KindUnknown Kind = "unclear" // something could not be told
	KindWarning Kind = "warning" // something passed, but look at it
)

// Consequence is something wrong that needs no cause of its own, because
// another explains it: a cause, or a rung that was skipped.
type Consequence struct {
	Code Code   `json:"code,omitempty"` // empty for a skipped rung
	Rung string `json:"rung"`
	By   Code   `json:"by"` // the cause at the root
}

// Diagnosis is the answer to evidence.
type Diagnosis struct {
	// Causes, the most probable and most grave first. Empty if the evidence
	// shows a line with nothing wrong.
	Causes       []Ranked      `json:"causes"`
	Consequences []Consequence `json:"consequences,omitempty"`
}

// First returns the first cause, and whether there is one.
func (d Diagnosis) First() (Ranked, bool) {
	if len(d.Causes) == 0 {
		return Ranked{}, false
	}
	return d.Causes[0], true
}

// How evidence moves a confidence.
const (
	supported    = 0.5  // a supporting cause halves the doubt
	contradicted = 0.25 // a rung that could not have passed leaves a quarter
	explainsFrom = 0.3  // below this a cause explains nothing away
	derived      = 0.7  // a cause that only a contradiction shows
)

// Diagnose ranks the causes that explain the evidence.
//
// Each cause that a rung came to starts with the certainty of the catalogue;
// other causes that go with it raise it, rungs that passed although they could
// not have lower it. What a fault explains is no cause of its own but a
// consequence. What remains is ranked: faults before what could not be told
// before warnings; what is contradicted last of its kind; then by severity,
// confidence and place on the ladder. Two independent faults stay two.
//
// A failed rung that names no cause, or none that this catalogue knows, is
// Unknown, and so is evidence in which nothing was measured at all. The same
// evidence always gets the same answer.
func Diagnose(e Evidence) Diagnosis {
	rungs := distinct(e.Rungs)
	found := gather(rungs)
	found = contradictions(found, rungs)
	weigh(found, rungs)

	d := Diagnosis{Causes: []Ranked{}}
	root := explain(found)
	for i, r := range found {
		if root[i] == "" {
			d.Causes = append(d.Causes, r)
			continue
		}
		d.Consequences = append(d.Consequences, Consequence{Code: r.Code, Rung: rungs[r.rung].Name, By: root[i]})
	}
	rank(d.Causes)
	if first, ok := d.First(); ok && first.Kind == KindFault {
		for _, r := range rungs {
			if r.Verdict == skipped {
				d.Consequences = append(d.Consequences, Consequence{Rung: r.Name, By: blocker(d.Causes, rungs, r.Name)})
			}
		}
	}
	if len(d.Causes) == 0 && !measured(rungs) {
		c, _ := Lookup(Unknown)
		d.Causes = append(d.Causes, Ranked{Code: Unknown, Side: c.Side, Severity: c.Severity, Kind: KindUnknown})
	}
	return d
}

// rank sorts causes, the most probable and most grave first.
func rank(causes []Ranked) {
	sort.SliceStable(causes, func(i, j int) bool {
		a, b := &causes[i], &causes[j]
		return cmp.Or(
			cmp.Compare(a.Kind.rank(), b.Kind.rank()),
			cmp.Compare(a.doubtful(), b.doubtful()),
			cmp.Compare(a.Severity.rank(), b.Severity.rank()),
			cmp.Compare(b.Confidence, a.Confidence),
			cmp.Compare(a.rung, b.rung),
			cmp.Compare(a.index, b.index),
			cmp.Compare(a.Code, b.Code),
		) < 0
	})
}

// ranked returns the entry as a cause for which nothing speaks yet.
func (c *Cause) ranked(kind Kind) Ranked {
	return Ranked{Code: c.Code, Side: c.Side, OrSide: c.OrSide, Severity: c.Severity, Kind: kind, Confidence: c.Certainty}
}

// likelier halves the doubt in a cause: something else speaks for it. Nothing
// speaks for what is unknown.
func (r *Ranked) likelier() {
	if r.Code != Unknown {
		r.Confidence = 1 - (1-r.Confidence)*supported
	}
}

// round leaves two decimals: more than the figures are worth.
func round(v float64) float64 { return float64(int(v*100+0.5)) / 100 }

// doubtful is 1 for a cause that the evidence contradicts, so that it comes
// after the others however grave it would be.
func (r Ranked) doubtful() int {
	if len(r.Against) > 0 && r.Confidence < explainsFrom {
		return 1
	}
	return 0
}

// distinct keeps the first of each rung.
func distinct(in []Rung) []Rung {
	var out []Rung
	for _, r := range in {
		if !slices.ContainsFunc(out, func(o Rung) bool { return o.Name == r.Name }) {
			out = append(out, r)
		}
	}
	return out
}

// measured reports whether any rung came to a verdict of its own.
func measured(rungs []Rung) bool {
	return slices.ContainsFunc(rungs, func(r Rung) bool { return r.Verdict == pass || r.Verdict == fail })
}

// gather collects what the rungs themselves came to.
func gather(rungs []Rung) []Ranked {
	var found []Ranked
	add := func(i int, kind Kind, what, code string) {
		c, ok := Lookup(Code(code))
		if !ok {
			c, _ = Lookup(Unknown)
		}
		refs := append([]Ref{{Rung: rungs[i].Name, What: what, Value: code}}, shown(rungs[i], c.Shows)...)
		// A code that several rungs came to is one cause, as grave as its
		// gravest use.
		for k := range found {
			if r := &found[k]; r.Code == c.Code {
				if r.rung != i {
					r.For = append(r.For, refs...)
				}
				if kind.rank() < r.Kind.rank() {
					r.Kind = kind
				}
				return
			}
		}
		found = append(found, Ranked{
			Code: c.Code, Side: c.Side, OrSide: c.OrSide, Severity: c.Severity, Kind: kind, Confidence: c.Certainty, For: refs,
			rung: i, index: len(found),
		})
	}
	for i, r := range rungs {
		kind := KindWarning
		switch r.Verdict {
		case fail:
			kind = KindFault
		case inconclusive:
			kind = KindUnknown
		case skipped:
			continue
		}
		for _, code := range r.Codes {
			add(i, kind, "cause", code)
		}
		if len(r.Codes) == 0 && kind != KindWarning {
			add(i, kind, "verdict", string(Unknown))
		}
		for _, code := range r.Warnings {
			add(i, KindWarning, "warning", code)
		}
	}
	return found
}

// contradictions adds the causes that only show when rungs contradict one
// another, each in place of a reading that cannot be right.
func contradictions(found []Ranked, rungs []Rung) []Ranked {
	for _, c := range []struct{ seen, then Code }{
		{OpticalNoLight, OpticalReadBroken}, // registered without light
		{PONFakeO5, PONOMCIUnknown},         // traffic without provisioning
	} {
		i := slices.IndexFunc(found, func(r Ranked) bool { return r.Code == c.seen && r.Kind == KindFault })
		if i < 0 || slices.ContainsFunc(found, func(r Ranked) bool { return r.Code == c.then }) {
			continue
		}
		seen, _ := Lookup(c.seen)
		against := passed(rungs, seen.NotIf)
		if len(against) == 0 {
			continue
		}
		then, _ := Lookup(c.then)
		found = append(found, Ranked{
			Code: c.then, Side: then.Side, OrSide: then.OrSide, Severity: then.Severity, Kind: KindFault, Confidence: derived,
			For: against, rung: found[i].rung, index: len(found),
		})
	}
	return found
}

// weigh moves the confidences by what else was found.
func weigh(found []Ranked, rungs []Rung) {
	base := slices.Clone(found)
	for i := range found {
		r := &found[i]
		c, _ := Lookup(r.Code)
		for _, other := range base {
			if other.Code != r.Code && slices.Contains(c.With, other.Code) {
				r.likelier()
				r.For = append(r.For, Ref{Rung: rungs[other.rung].Name, What: "cause", Value: string(other.Code)})
			}
		}
		if against := passed(rungs, c.NotIf); len(against) > 0 && r.Kind == KindFault {
			r.Confidence *= contradicted
			r.Against = append(r.Against, against...)
		}
		r.Confidence = round(r.Confidence)
	}
}

// passed returns references to the named rungs that passed.
func passed(rungs []Rung, names []string) []Ref {
	var refs []Ref
	for _, r := range rungs {
		if r.Verdict == pass && slices.Contains(names, r.Name) {
			refs = append(refs, Ref{Rung: r.Name, What: "verdict", Value: pass})
		}
	}
	return refs
}

// explain returns for each cause the one at the root of it, or "" if it stands
// by itself. Only faults that are sure enough explain others.
func explain(found []Ranked) []Code {
	by := make([]int, len(found))
	for i, r := range found {
		by[i] = -1
		for j, other := range found {
			if i == j || other.Kind != KindFault || other.Confidence < explainsFrom {
				continue
			}
			c, _ := Lookup(other.Code)
			if explains(c, r) && (by[i] < 0 || other.Confidence > found[by[i]].Confidence) {
				by[i] = j
			}
		}
	}
	root := make([]Code, len(found))
	for i := range found {
		// The catalogue has no circles (a test sees to it); the bound is for
		// those who read this.
		at := by[i]
		for range found {
			if at < 0 || by[at] < 0 {
				break
			}
			at = by[at]
		}
		if at >= 0 {
			root[i] = found[at].Code
		}
	}
	return root
}

// explains reports whether c explains r.
func explains(c Cause, r Ranked) bool {
	for _, e := range c.Explains {
		if e == r.Code {
			return true
		}
		// A whole family: all that says that something is wrong, not what
		// could not be told.
		if strings.HasSuffix(string(e), ".") && strings.HasPrefix(string(r.Code), string(e)) && r.Severity != Info {
			return true
		}
	}
	return false
}

// blocker returns the first cause of the nearest failed rung below the named
// one that explains families above it, else the first cause.
func blocker(causes []Ranked, rungs []Rung, name string) Code {
	at := slices.IndexFunc(rungs, func(r Rung) bool { return r.Name == name })
	for _, c := range causes {
		entry, _ := Lookup(c.Code)
		family := slices.ContainsFunc(entry.Explains, func(e Code) bool { return strings.HasSuffix(string(e), ".") })
		if c.Kind == KindFault && c.rung < at && family {
			return c.Code
		}
	}
	return causes[0].Code
}

// shown returns references to the named measurements of a rung.
func shown(r Rung, names []string) []Ref {
	var refs []Ref
	for _, name := range names {
		if v, ok := r.Numbers[name]; ok {
			refs = append(refs, Ref{Rung: r.Name, What: name, Value: strconv.FormatFloat(v, 'g', 6, 64)})
		} else if v, ok := r.Texts[name]; ok {
			refs = append(refs, Ref{Rung: r.Name, What: name, Value: v})
		}
	}
	return refs
}

func (k Kind) rank() int { return slices.Index([]Kind{KindFault, KindUnknown, KindWarning}, k) }

func (s Severity) rank() int { return slices.Index([]Severity{Critical, Major, Minor, Info}, s) }
