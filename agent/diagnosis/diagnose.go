package diagnosis

import (
	"cmp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Evidence is what a ladder, or a part of one, has shown. The rungs may come in
// any order; one that appears twice counts the first time.
type Evidence struct {
	Rungs []Rung
	// Clock is how far the gateway's clock could be believed: "ntp", "floor",
	// "none", or "" if nobody said.
	Clock string
	// Recent is what telemetry saw change while the rungs were climbed: what was
	// well when its rung looked may have failed since.
	Recent []Happening
	// Hour is the hour of the day at the line, from 1 to 24, in which it was
	// measured; 0 if it is not known. It means nothing without a Clock of "ntp".
	Hour int
}

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
	// Statuses say of measurements without a value why there is none:
	// "no_light", "unsupported", "untrusted", "error".
	Statuses map[string]string
	// Limits are the thresholds that it held measurements against, by name.
	Limits map[string]float64
	// Conditions are the circumstances it was measured under.
	Conditions map[string]string
	// SkippedFor is the rung because of which it was skipped, if somebody said.
	SkippedFor string
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

	entry       *Cause
	rung, index int  // place in the evidence
	optional    bool // no rung that it comes from is required
	late        bool // telemetry saw it, after its rung had looked
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
	unsure       = 0.8  // a reading that is not to be trusted, or too old
	unseen       = 0.9  // what lies below could not be told
	explainsFrom = 0.3  // below this a cause explains nothing away
	derived      = 0.7  // a cause that only a contradiction shows
)

// What is looked at, of any evidence.
const (
	maxRungs = 64
	maxCodes = 32 // of a rung
)

// Diagnose ranks the causes that explain the evidence.
//
// Each cause that a rung came to starts with the certainty of the catalogue;
// what only several rungs, or their measurements, show together is added.
// Other causes that go with one raise it; rungs that passed although they could
// not have, readings that are old or not to be trusted and what could not be
// told below lower it. What a fault explains is no cause of its own but a
// consequence. What remains is ranked: faults before what could not be told
// before warnings; what is contradicted last of its kind; then by severity,
// what was required, confidence and place on the ladder. Two independent faults
// stay two.
//
// A failed rung that names no cause, or none that this catalogue knows, is
// Unknown, and so is evidence in which nothing was measured at all. The same
// evidence always gets the same answer, whatever the order of its rungs.
func Diagnose(e Evidence) Diagnosis {
	l := look{rungs: ordered(e.Rungs), clock: e.Clock, hour: e.Hour}
	l.gather()
	l.infer(e.Recent)
	l.weigh()

	d := Diagnosis{Causes: []Ranked{}}
	by := l.explain()
	for i, r := range l.found {
		if by[i] < 0 {
			d.Causes = append(d.Causes, r)
			continue
		}
		d.Consequences = append(d.Consequences, Consequence{Code: r.Code, Rung: l.rungs[r.rung].Name, By: l.found[by[i]].Code})
	}
	rank(d.Causes)
	if first, ok := d.First(); ok && first.Kind == KindFault {
		for i, r := range l.rungs {
			if r.Verdict == skipped {
				d.Consequences = append(d.Consequences, Consequence{Rung: r.Name, By: l.blocker(d, by, i)})
			}
		}
	}
	if len(d.Causes) == 0 && !l.measured() {
		d.Causes = append(d.Causes, find(Unknown).ranked(KindUnknown))
	}
	return d
}

// look is evidence, and what was found in it.
type look struct {
	rungs []*Rung
	clock string
	hour  int
	found []Ranked
}

// ladder is the order of the rungs.
var ladder = [...]string{
	"identity", "optical", "registration", "lan_cabling", "dial", "addressing", "dns", "reachability",
	"account", "throughput", "iptv", "voice", "management", "routed_internet", "host",
}

// place is where a rung is on the ladder; what is not on it comes behind.
func place(name string) int {
	for i := range ladder {
		if ladder[i] == name {
			return i
		}
	}
	return len(ladder)
}

// ordered puts rungs in the order of the ladder, others behind by name, and
// keeps the first of each.
func ordered(in []Rung) []*Rung {
	all := make([]*Rung, 0, len(in))
	for i := range in {
		all = append(all, &in[i])
	}
	sort.SliceStable(all, func(i, j int) bool {
		a, b := place(all[i].Name), place(all[j].Name)
		return a < b || a == b && all[i].Name < all[j].Name
	})
	out := all[:0]
	for _, r := range all {
		if n := len(out); n < maxRungs && (n == 0 || out[n-1].Name != r.Name) {
			out = append(out, r)
		}
	}
	return out
}

// measured reports whether any rung came to a verdict of its own.
func (l *look) measured() bool {
	for _, r := range l.rungs {
		if r.Verdict == pass || r.Verdict == fail {
			return true
		}
	}
	return false
}

// gather collects what the rungs themselves came to.
func (l *look) gather() {
	for i, r := range l.rungs {
		if r.Verdict == skipped {
			continue
		}
		kind := kindOf(r.Verdict)
		for _, code := range r.Codes[:min(len(r.Codes), maxCodes)] {
			l.add(i, kind, "cause", code)
		}
		if len(r.Codes) == 0 && kind != KindWarning {
			l.add(i, kind, "verdict", string(Unknown))
		}
		for _, code := range r.Warnings[:min(len(r.Warnings), maxCodes)] {
			l.add(i, KindWarning, "warning", code)
		}
	}
}

// kindOf is what a cause is of that a rung with this verdict came to.
func kindOf(verdict string) Kind {
	switch verdict {
	case fail:
		return KindFault
	case inconclusive:
		return KindUnknown
	}
	return KindWarning
}

// add adds what a rung came to.
func (l *look) add(i int, kind Kind, what, code string) {
	c, at := find(Code(code)), l.rungs[i]
	if r := l.put(c.Code, i, kind); r.rung != i || len(r.For) == 0 {
		r.cite(at.Name, what, code)
		for _, name := range c.Shows {
			at.show(r, name)
		}
	}
}

// put adds a cause. A code that several rungs came to is one cause, as grave as
// its gravest use.
func (l *look) put(code Code, i int, kind Kind) *Ranked {
	if k := l.index(code); k >= 0 {
		r := &l.found[k]
		if kind.rank() < r.Kind.rank() {
			r.Kind = kind
		}
		r.optional = r.optional && !l.rungs[i].Required
		return r
	}
	r := find(code).ranked(kind)
	r.rung, r.index, r.optional = i, len(l.found), !l.rungs[i].Required
	l.found = append(l.found, r)
	return &l.found[r.index]
}

// index returns the place of a cause in what was found, or -1.
func (l *look) index(code Code) int {
	for i := range l.found {
		if l.found[i].Code == code {
			return i
		}
	}
	return -1
}

// weigh moves the confidences by what else was found.
func (l *look) weigh() {
	for i := range l.found {
		r := &l.found[i]
		for j := range l.found {
			if other := &l.found[j]; j != i && slices.Contains(r.entry.With, other.Code) {
				r.likelier()
				r.cite(l.rungs[other.rung].Name, "cause", string(other.Code))
			}
		}
		if r.Against = l.contradiction(r); r.Against != nil {
			r.Confidence *= contradicted
		}
		l.doubt(r)
		r.Confidence = round(r.Confidence)
	}
}

// contradiction returns the rungs that could not have passed if a fault were
// the cause. What the AAA itself says is not contradicted by a line that still
// works.
func (l *look) contradiction(r *Ranked) []Ref {
	if r.Kind != KindFault || r.late || len(r.entry.NotIf) == 0 || l.rungs[r.rung].Name == "account" {
		return nil
	}
	if r.Code == ReachNoReply && l.rungs[r.rung].Texts["page_outcome"] == "name_failed" {
		return nil // by then no name was answered either
	}
	var refs []Ref
	for _, o := range l.rungs {
		if o.Verdict == pass && slices.Contains(r.entry.NotIf, o.Name) {
			refs = append(refs, Ref{Rung: o.Name, What: "verdict", Value: pass})
		}
	}
	return refs
}

// explain returns for each cause the place of the one at the root of it, or -1
// if it stands by itself. Only faults that are sure enough explain others.
func (l *look) explain() []int {
	by := make([]int, len(l.found))
	for i := range l.found {
		by[i] = -1
		for j := range l.found {
			other := &l.found[j]
			if i == j || other.Kind != KindFault || other.Confidence < explainsFrom {
				continue
			}
			if other.entry.explains(&l.found[i]) && (by[i] < 0 || other.Confidence > l.found[by[i]].Confidence) {
				by[i] = j
			}
		}
	}
	for i := range by {
		// The catalogue has no circles (a test sees to it); the bound is for
		// those who read this.
		for range by {
			if by[i] < 0 || by[by[i]] < 0 {
				break
			}
			by[i] = by[by[i]]
		}
	}
	return by
}

// explains reports whether c explains r.
func (c *Cause) explains(r *Ranked) bool {
	for _, e := range c.Explains {
		if e == r.Code {
			return true
		}
		// A whole family: all that says that something is wrong, not what
		// could not be told.
		if n := len(e); n > 0 && e[n-1] == '.' && strings.HasPrefix(string(r.Code), string(e)) && r.Severity != Info && r.Code != c.Code {
			return true
		}
	}
	return false
}

// blocker returns the cause for which a rung was skipped: that of the rung that
// stood in the way, if somebody said which, else the first cause of a rung below
// that explains whole families, else the first.
func (l *look) blocker(d Diagnosis, by []int, at int) Code {
	if name := l.rungs[at].SkippedFor; name != "" {
		for i := range d.Causes {
			if c := &d.Causes[i]; c.Kind == KindFault && l.rungs[c.rung].Name == name {
				return c.Code
			}
		}
		for i := range l.found {
			if by[i] >= 0 && l.rungs[l.found[i].rung].Name == name {
				return l.found[by[i]].Code
			}
		}
	}
	for i := range d.Causes {
		if c := &d.Causes[i]; c.Kind == KindFault && c.rung < at && c.entry.families() {
			return c.Code
		}
	}
	return d.Causes[0].Code
}

// families reports whether c explains whole families.
func (c *Cause) families() bool {
	for _, e := range c.Explains {
		if e[len(e)-1] == '.' {
			return true
		}
	}
	return false
}

// rank sorts causes, the most probable and most grave first.
func rank(causes []Ranked) {
	sort.SliceStable(causes, func(i, j int) bool {
		a, b := &causes[i], &causes[j]
		return cmp.Or(
			cmp.Compare(a.Kind.rank(), b.Kind.rank()),
			cmp.Compare(a.doubtful(), b.doubtful()),
			cmp.Compare(a.Severity.rank(), b.Severity.rank()),
			cmp.Compare(count(a.optional), count(b.optional)),
			cmp.Compare(b.Confidence, a.Confidence),
			cmp.Compare(a.rung, b.rung),
			cmp.Compare(a.index, b.index),
			cmp.Compare(a.Code, b.Code),
		) < 0
	})
}

// ranked returns the entry as a cause for which nothing speaks yet.
func (c *Cause) ranked(kind Kind) Ranked {
	return Ranked{entry: c, Code: c.Code, Side: c.Side, OrSide: c.OrSide, Severity: c.Severity, Kind: kind, Confidence: c.Certainty}
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
func (r *Ranked) doubtful() int { return count(len(r.Against) > 0 && r.Confidence < explainsFrom) }

// show adds a measurement, if there is such a one, to what speaks for a cause.
func (r *Rung) show(to *Ranked, name string) {
	if v, ok := r.Numbers[name]; ok {
		to.cite(r.Name, name, strconv.FormatFloat(v, 'g', 6, 64))
	} else if v, ok := r.Texts[name]; ok {
		to.cite(r.Name, name, v)
	}
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

func (k Kind) rank() int {
	switch k {
	case KindFault:
		return 0
	case KindUnknown:
		return 1
	case KindWarning:
	}
	return 2
}

func (s Severity) rank() int {
	switch s {
	case Critical:
		return 0
	case Major:
		return 1
	case Minor:
		return 2
	case Info:
	}
	return 3
}
