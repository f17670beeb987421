package render

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
)

// Options say how a record is shown.
type Options struct {
	Lang diagnosis.Lang
	// Receipt is the customer's, as it was verified against the record; nil:
	// none was given.
	Receipt *record.ReceiptVerification
	// Attachments are the files that were found for the receipt, by name; nil:
	// nobody looked.
	Attachments map[string]File
}

// Page is everything that is shown of a record, in one language and in the
// order in which it is read. Text and HTML lay it out.
type Page struct {
	x Labels

	Title       string
	Standing    Standing
	Verdict     Badge
	Headline    string   // the verdict in words
	Notes       []string // what restricts it
	Lead        *Cause   // the first cause, if the verdict is not pass
	Elements    []Element
	Facts       []Group
	Causes      []Cause
	Follows     []string // consequences
	Optical     *OpticalPlot
	Rates       []RatePlot
	Rungs       []Rung
	Tables      []Group // baseline, AAA extract, limits in force
	Receipt     *ReceiptView
	Proof       []Row
	RecordName  string
	Interrupted bool
}

// Standing says what the record is worth. It comes before everything else.
type Standing struct {
	Class   string // valid, unproven, altered, newer
	Text    string
	Problem string   // in the program's words
	Altered []string // what is
	Loud    string   // altered: what is printed large, and on every sheet
}

// Badge is a verdict as it is shown.
type Badge struct {
	Class string // pass, fail, open, skip
	Mark  string
	Text  string
}

// Row is a name and what it stands for.
type Row struct{ Name, Value string }

// Group is rows under a title.
type Group struct {
	Title string
	Rows  []Row
}

// Element is one of the four elements (四要素) of acceptance.
type Element struct {
	Name    string
	Badge   Badge
	Lines   []string // the figures, or what is wrong
	Altered bool
}

// Cause is a ranked cause with its texts.
type Cause struct {
	Rank                              int
	Title, Code, Kind, Severity, Side string
	Confidence                        string
	Means, Action                     string
	For, Against                      []string
}

// Rung is a result with all that was measured.
type Rung struct {
	Name, Required, Duration string
	Badge                    Badge
	Causes                   []string // with their codes
	Why                      string   // skipped for another
	Reason                   string   // the agent's own words, English
	Measurements             []Measured
	Limits                   []Row
	Conditions               []Row
	Log                      []string
	Altered                  bool
}

// Measured is one measurement.
type Measured struct {
	Name, Value, Source, Raw, Note string
	Missing                        bool
	Altered                        bool
}

// NewPage puts together what is shown of d.
func NewPage(d *Document, o Options) *Page {
	x := In(o.Lang)
	p := &Page{x: x, Title: x.T("show.title")}
	p.Standing = x.standing(d)
	p.RecordName = x.T("show.page_end", d.Record.N, Clean(d.Record.Device))
	p.verdict(d)
	p.Elements = x.elements(d)
	p.Facts = []Group{x.who(d), x.line(d)}
	for i, c := range d.Diagnosis.Causes {
		p.Causes = append(p.Causes, x.cause(i+1, c))
	}
	if len(p.Causes) > 0 && d.Record.Verdict != string(acceptance.Pass) {
		p.Lead = &p.Causes[0]
	}
	for _, c := range d.Diagnosis.Consequences {
		p.Follows = append(p.Follows, x.consequence(c))
	}
	p.Optical, p.Rates = x.opticalPlot(d), x.ratePlots(d)
	for i, r := range d.Report.Results {
		p.Rungs = append(p.Rungs, x.result(i, r, d.Verification.Altered))
	}
	p.Tables = slices.DeleteFunc([]Group{x.work(d), x.baseline(d), x.extract(d), x.limitsInForce(d)}, func(g Group) bool { return len(g.Rows) == 0 })
	p.Receipt = x.receipt(o)
	p.Proof = x.proof(d)
	return p
}

func (x Labels) standing(d *Document) Standing {
	v := d.Verification
	s := Standing{Text: x.w(diagnosis.KeyRecord + string(v.Status)), Problem: Clean(v.Problem)}
	for _, name := range v.Altered {
		s.Altered = append(s.Altered, x.section(name))
	}
	s.Altered = slices.Compact(s.Altered)
	switch {
	case v.Status == record.Valid:
		s.Class = "valid"
	case v.Status == record.Altered:
		s.Class, s.Loud = "altered", x.T("show.altered_banner")
	case d.Newer():
		s.Class, s.Text = "newer", x.T("show.future")
	case v.Status == record.SignerUnknown && v.Problem == "no root key was given":
		s.Class, s.Text, s.Problem = "unproven", x.T("show.unproven_root"), ""
	default:
		s.Class = "unproven"
	}
	return s
}

func (x Labels) badge(v acceptance.Verdict) Badge {
	b := Badge{Text: x.Verdict(v)}
	switch v {
	case acceptance.Pass:
		b.Class, b.Mark = "pass", "✓"
	case acceptance.Fail:
		b.Class, b.Mark = "fail", "✗"
	case acceptance.Skipped:
		b.Class, b.Mark = "skip", "–"
	case acceptance.Inconclusive:
		b.Class, b.Mark = "open", "?"
	default:
		b.Class, b.Mark = "open", "?"
	}
	return b
}

func (p *Page) verdict(d *Document) {
	x, v := p.x, acceptance.Verdict(d.Record.Verdict)
	p.Verdict = x.badge(v)
	key := "show.verdict." + string(v)
	if !diagnosis.OfficeKnows(key) {
		key = "show.verdict.unknown"
	}
	p.Headline = x.T(key)
	if d.Altered() || d.Newer() {
		// What stands there is nobody's word.
		p.Headline = x.T("show.claimed") + x.colon() + p.Verdict.Text
		p.Verdict.Class, p.Verdict.Mark = "void", "!"
	}
	if d.Report.Interrupted {
		p.Interrupted = true
		p.Notes = append(p.Notes, x.T("show.interrupted"))
	}
	if len(d.Gaps) > 0 {
		p.Notes = append(p.Notes, x.T("show.gaps")+x.colon()+x.list(d.Gaps, x.section))
	}
	if len(d.Unknown) > 0 {
		p.Notes = append(p.Notes, x.T("show.unknown_parts")+x.colon()+x.list(d.Unknown, Clean))
	}
}

func (x Labels) list(names []string, show func(string) string) string {
	shown := make([]string, 0, len(names))
	for _, n := range names {
		shown = append(shown, show(n))
	}
	return strings.Join(shown, x.comma())
}

// Sides names who has to act, and who else it may be, if anybody.
func (x Labels) Sides(side, or diagnosis.Side) string {
	text := x.w(diagnosis.KeySide + string(side))
	if or != "" && or != side {
		text += " " + x.T("show.or") + " " + x.w(diagnosis.KeySide+string(or))
	}
	return text
}

func (x Labels) cause(rank int, c diagnosis.Ranked) Cause {
	out := Cause{
		Rank: rank, Title: Clean(diagnosis.Title(x.lang, c.Code)), Code: Clean(string(c.Code)),
		Kind: x.w(diagnosis.KeyKind + string(c.Kind)), Severity: x.w(diagnosis.KeySeverity + string(c.Severity)), Side: x.Sides(c.Side, c.OrSide),
		Confidence: fmt.Sprintf("%.0f %%", 100*c.Confidence),
		Means:      Clean(diagnosis.Means(x.lang, c.Code)), Action: Clean(diagnosis.Action(x.lang, c.Code)),
	}
	for _, r := range c.For {
		out.For = append(out.For, x.ref(r))
	}
	for _, r := range c.Against {
		out.Against = append(out.Against, x.ref(r))
	}
	return out
}

// ref names a piece of evidence.
func (x Labels) ref(r diagnosis.Ref) string {
	rung := x.Rung(acceptance.Rung(r.Rung))
	switch r.What {
	case "cause", "warning":
		return rung + x.colon() + Clean(diagnosis.Title(x.lang, diagnosis.Code(r.Value)))
	case "verdict":
		return rung + x.colon() + x.Verdict(acceptance.Verdict(r.Value))
	}
	value := x.quantity(Clean(x.T(diagnosis.KeyValue+r.Value)), "")
	if v, err := finite(r.Value); err == nil {
		value = x.Number(r.What, v)
	}
	return rung + x.colon() + x.Measurement(r.What) + " " + value
}

func (x Labels) consequence(c diagnosis.Consequence) string {
	what := x.Rung(acceptance.Rung(c.Rung))
	if c.Code != "" {
		what += x.colon() + Clean(diagnosis.Title(x.lang, c.Code))
	}
	return what + " ← " + Clean(diagnosis.Title(x.lang, c.By))
}

func (x Labels) result(i int, r acceptance.Result, altered []string) Rung {
	out := Rung{
		Name: x.Rung(r.Rung), Badge: x.badge(r.Verdict), Required: x.required(r), Duration: x.Seconds(r.DurationS), Reason: Clean(r.Reason),
	}
	if r.SkippedFor != "" {
		out.Why = x.w(diagnosis.KeyLabel+"skipped_for") + x.colon() + x.Rung(r.SkippedFor)
	}
	for _, c := range slices.Concat(r.Causes, r.Warnings) {
		out.Causes = append(out.Causes, fmt.Sprintf("%s [%s]", Clean(diagnosis.Title(x.lang, diagnosis.Code(c))), Clean(c)))
	}
	section := sectionOf(i, r)
	out.Altered = touched(altered, section)
	seen := map[string]int{}
	for _, m := range r.Measurements {
		seen[m.Name]++
		part := m.Name
		if n := seen[m.Name]; n > 1 {
			part = fmt.Sprintf("%s#%d", m.Name, n)
		}
		out.Measurements = append(out.Measurements, Measured{
			Name: x.Measurement(m.Name), Value: x.Value(m), Source: Clean(m.Source), Raw: Clean(m.Raw), Note: Clean(m.Note),
			Missing: m.Value == nil, Altered: slices.Contains(altered, section+": "+part),
		})
	}
	for _, l := range r.Limits {
		out.Limits = append(out.Limits, x.limitRow(l))
	}
	for _, k := range slices.Sorted(maps.Keys(r.Conditions)) {
		out.Conditions = append(out.Conditions, Row{Clean(x.T(diagnosis.KeyCondition + k)), Clean(r.Conditions[k])})
	}
	for _, line := range r.Log {
		out.Log = append(out.Log, Clean(line))
	}
	return out
}

// sectionOf is how a verification names a result.
func sectionOf(i int, r acceptance.Result) string {
	return fmt.Sprintf("ladder.results[%d] %s", i, r.Rung)
}

// touched reports whether a section, or a part of it, is among what was altered.
func touched(altered []string, section string) bool {
	return slices.ContainsFunc(altered, func(a string) bool { return a == section || strings.HasPrefix(a, section+": ") })
}

func (x Labels) required(r acceptance.Result) string {
	if r.Required {
		return x.w(diagnosis.KeyLabel + "required")
	}
	return x.w(diagnosis.KeyLabel + "optional")
}

func (x Labels) limitRow(l acceptance.Limit) Row {
	return Row{x.Threshold(l.Name), x.Limit(l) + " (" + Clean(x.T(diagnosis.KeyOrigin+l.Origin)) + ")"}
}

// who ordered the visit and who ran it, on what and when.
func (x Labels) who(d *Document) Group {
	r := d.Record
	g := Group{Title: x.T("show.who")}
	add := func(key, value string) {
		if value != "" {
			g.Rows = append(g.Rows, Row{x.T("show." + key), value})
		}
	}
	add("ordered_by", x.orderedBy(d))
	if o := d.Order; o != nil {
		add("order", Clean(o.Order)+" "+x.T("show.rev", o.Rev))
		add("order_type", x.w(diagnosis.KeyOrder+string(o.Type)))
		add("valid", x.time(o.NotBefore)+" – "+x.time(o.NotAfter))
		add("consents", x.list(o.Consents, func(c string) string { return Clean(x.T(diagnosis.KeyValue + c)) }))
	}
	add("run_by", Clean(r.Technician))
	if c := d.Command; c != nil {
		add("command", x.w(diagnosis.KeyAction+string(c.Type))+" "+Clean(c.ID))
	}
	add("device", Clean(r.Device))
	add("closed", x.When(r.Time.UTC))
	add("clock", Clean(x.T(diagnosis.KeyClock+r.Time.Clock)))
	add("uptime", x.Seconds(r.Time.UptimeS))
	add("duration", x.Seconds(d.Report.DurationS))
	add("agent", Clean(r.Agent.Version)+" ("+x.T("show.epoch", r.Agent.Epoch)+")")
	return g
}

// orderedBy names the operator and, by the trust list in the record, its key.
func (x Labels) orderedBy(d *Document) string {
	by := Clean(d.Record.Tenant)
	if d.Trust == nil {
		return by
	}
	i := slices.IndexFunc(d.Trust.Keys, func(k order.TrustKey) bool { return k.Key.ID() == signer(d.Record.Order) })
	if i < 0 {
		return by
	}
	return by + " (" + Clean(d.Trust.Keys[i].ID) + ")"
}

// line is what is installed, by the operator's books.
func (x Labels) line(d *Document) Group {
	g := Group{Title: x.T("show.line")}
	if d.Order == nil {
		return g
	}
	for _, s := range d.Order.Services {
		parts := []string{Clean(x.T(diagnosis.KeyValue + s.Kind))}
		if s.Access != "" {
			parts = append(parts, Clean(x.T(diagnosis.KeyValue+s.Access)))
		}
		if s.VLAN != 0 {
			parts = append(parts, x.T("show.vlan", s.VLAN))
		}
		if s.DownMbps != 0 || s.UpMbps != 0 {
			parts = append(parts, x.T("show.contract", fmt.Sprintf("↓ %s ↑ %s", x.mbps(s.DownMbps), x.mbps(s.UpMbps))))
		}
		if s.RateLayer != "" {
			parts = append(parts, x.T(diagnosis.KeyCondition+"layer")+" "+Clean(s.RateLayer))
		}
		if s.Account != "" {
			parts = append(parts, x.T("show.account_masked")+" "+Clean(Masked(s.Account)))
		}
		g.Rows = append(g.Rows, Row{x.T("show.service"), strings.Join(parts, " · ")})
	}
	res := d.Order.Resources
	for _, r := range []Row{
		{"sn", res.SN},
		{"mac", res.MAC},
		{"pon_port", res.PONPort},
		{"splitter_port", res.SplitterPort},
		{"lan_port", res.LANPort},
	} {
		if r.Value != "" {
			g.Rows = append(g.Rows, Row{x.T("show." + r.Name), Clean(r.Value)})
		}
	}
	return g
}

// Masked returns an account that is masked already as it is, and any other
// masked: whoever wrote a record, no account is shown in full.
func Masked(account string) string {
	if strings.Contains(account, "*") {
		return account
	}
	return order.MaskAccount(account)
}

// baseline is the line's health record: what this visit leaves, beside what
// there was.
func (x Labels) baseline(d *Document) Group {
	g := Group{Title: x.T("show.baseline")}
	before := map[string]float64{}
	if l := d.Record.Line; l != nil {
		before = l.Readings
		g.Rows = append(g.Rows, Row{x.T("show.line_before"), fmt.Sprintf("#%d · %s · %s", l.N, x.When(l.Closed), Clean(l.SHA256[:min(16, len(l.SHA256))])+"…")})
	}
	if d.Record.Line == nil && d.Record.Renews {
		g.Rows = append(g.Rows, Row{x.T("show.line_before"), x.T("show.line_none")})
	}
	names := map[string]bool{}
	for n := range d.Record.Baseline {
		names[n] = true
	}
	for n := range before {
		names[n] = true
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		var parts []string
		if v, ok := d.Record.Baseline[n]; ok {
			parts = append(parts, x.Number(n, v))
		}
		if v, ok := before[n]; ok {
			parts = append(parts, x.T("show.before")+" "+x.Number(n, v))
		}
		g.Rows = append(g.Rows, Row{x.Measurement(n), strings.Join(parts, " · ")})
	}
	if len(g.Rows) > 0 {
		renews := "no" // so nobody takes a failed visit's readings for the line's
		if d.Record.Renews {
			renews = "yes"
		}
		g.Rows = append([]Row{{x.T("section.renews_line"), x.T(diagnosis.KeyValue + renews)}}, g.Rows...)
	}
	return g
}

// extract is the AAA's word.
func (x Labels) extract(d *Document) Group {
	g := Group{Title: x.T("show.extract")}
	e := d.Extract
	if e == nil {
		return g
	}
	add := func(key, value string) {
		if value != "" {
			g.Rows = append(g.Rows, Row{x.T("show." + key), Clean(value)})
		}
	}
	add("taken", x.time(e.Taken))
	add("account_masked", Masked(e.Account))
	if e.State != "" {
		add("state", x.T(diagnosis.KeyValue+string(e.State)))
	}
	if e.DownMbps != 0 || e.UpMbps != 0 {
		add("rates", fmt.Sprintf("↓ %s ↑ %s", x.mbps(e.DownMbps), x.mbps(e.UpMbps)))
	}
	add("template", e.Template)
	if len(e.Pools) > 0 {
		add("pools", strings.Trim(fmt.Sprint(e.Pools), "[]"))
	}
	if s := e.Session; s != nil {
		parts := []string{x.T("show.offline")}
		if s.Online {
			parts = []string{x.T("show.online")}
		}
		if s.V4.IsValid() {
			parts = append(parts, s.V4.String())
		}
		if s.V6.IsValid() {
			parts = append(parts, s.V6.String())
		}
		if s.PD.IsValid() {
			parts = append(parts, s.PD.String())
		}
		parts = append(parts, s.MAC, s.NAS, s.NASPort)
		add("session", strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), " · "))
	}
	return g
}

func (x Labels) limitsInForce(d *Document) Group {
	g := Group{Title: x.T("show.limits_all")}
	for _, l := range d.Limits {
		g.Rows = append(g.Rows, x.limitRow(l))
	}
	return g
}

// proof is what a page can tell for somebody to check the record itself.
func (x Labels) proof(d *Document) []Row {
	r := d.Record
	rows := []Row{{x.T("show.digest"), d.Digest}}
	for _, key := range []Row{
		{"show.signer", d.Verification.Signer}, {"show.operator_key", signer(r.Order)}, {"show.technician_key", signer(r.Command)},
	} {
		if key.Value != "" {
			rows = append(rows, Row{x.T(key.Name), Clean(key.Value)})
		}
	}
	chain := x.T("show.chain_first")
	if r.N != 1 || r.Prev != "" {
		chain = x.T("show.chain_n", r.N, Clean(cmp.Or(r.Prev, "?")))
	}
	rows = append(rows, Row{x.T("show.chain"), chain})
	docs := []struct {
		section string
		env     order.Envelope
	}{{"trust", r.Trust}, {"statement", r.Statement}, {"order", r.Order}, {"command", r.Command}}
	if r.SignedTime != nil {
		docs = append(docs, struct {
			section string
			env     order.Envelope
		}{"signed_time", *r.SignedTime})
	}
	if r.Extract != nil {
		docs = append(docs, struct {
			section string
			env     order.Envelope
		}{"extract", *r.Extract})
	}
	for _, doc := range docs {
		if doc.env.Payload != "" {
			rows = append(rows, Row{x.section(doc.section), "SHA-256 " + order.Digest(doc.env)})
		}
	}
	return rows
}
