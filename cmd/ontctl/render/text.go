package render

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"ontagent/agent/diagnosis"
)

// Text writes the page for a terminal.
func (p *Page) Text(w io.Writer) error {
	out := bufio.NewWriter(w)
	t := &printer{out, p.x}
	t.head(p)
	for _, g := range p.Facts {
		t.group(g)
	}
	t.causes(p)
	t.section(p.x.T("show.rungs"))
	for _, r := range p.Rungs {
		t.rung(r)
	}
	for _, g := range p.Tables {
		t.group(g)
	}
	t.receipt(p.Receipt)
	t.group(Group{p.x.T("show.proof"), p.Proof})
	return out.Flush()
}

type printer struct {
	out *bufio.Writer
	x   Labels
}

// line prints one line; whatever is in it, it stays one.
func (t *printer) line(indent int, format string, args ...any) {
	fmt.Fprintf(t.out, "%s%s\n", strings.Repeat("  ", indent), strings.Map(visible, fmt.Sprintf(format, args...)))
}

func (t *printer) row(indent int, name, value string) {
	if value != "" {
		t.line(indent, "%s: %s", name, value)
	}
}

func (t *printer) section(title string) {
	t.line(0, "")
	t.line(0, "== %s", title)
}

func (t *printer) head(p *Page) {
	t.standing(p.Standing, 0)
	t.line(0, "%s", p.RecordName)
	t.row(0, t.x.w(diagnosis.KeyLabel+"verdict"), p.Verdict.Text)
	t.line(0, "%s %s", p.Verdict.Mark, p.Headline)
	for _, n := range p.Notes {
		t.line(0, "! %s", n)
	}
	if c := p.Lead; c != nil {
		t.row(1, t.x.w(diagnosis.KeyLabel+"cause"), c.Title+" ["+c.Code+"]")
		t.row(1, t.x.w(diagnosis.KeyLabel+"side"), c.Side)
		t.row(1, t.x.w(diagnosis.KeyLabel+"action"), c.Action)
	}
	t.section(t.x.T("show.four"))
	for _, e := range p.Elements {
		t.element(e)
	}
}

func (t *printer) element(e Element) {
	t.line(1, "%s %s: %s", e.Badge.Mark, e.Name, strings.Join(append([]string{e.Badge.Text}, e.Lines...), " · "))
	if e.Altered {
		t.line(2, "!!! %s", t.x.T("show.altered_here"))
	}
}

// standing says loudly what must not be overlooked.
func (t *printer) standing(s Standing, indent int) {
	if s.Loud != "" {
		rule := strings.Repeat("!", 64)
		t.line(indent, "%s", rule)
		t.line(indent, "!!!  %s", s.Loud)
		for _, a := range s.Altered {
			t.line(indent, "!!!  %s: %s", t.x.T("show.altered_what"), a)
		}
		t.line(indent, "%s", rule)
	}
	t.line(indent, "%s: %s", t.x.T("show.verified"), s.Text)
	if s.Problem != "" {
		t.line(indent+1, "%s", s.Problem)
	}
	if s.Loud == "" {
		for _, a := range s.Altered {
			t.row(indent+1, t.x.T("show.altered_what"), a)
		}
	}
}

func (t *printer) group(g Group) {
	if len(g.Rows) == 0 {
		return
	}
	t.section(g.Title)
	for _, r := range g.Rows {
		t.row(1, r.Name, r.Value)
	}
}

func (t *printer) causes(p *Page) {
	t.section(t.x.T("show.causes"))
	if len(p.Causes) == 0 {
		t.line(1, "%s", t.x.T("show.no_causes"))
	}
	for _, c := range p.Causes {
		t.line(1, "%d. %s [%s] %s · %s, %s %s", c.Rank, c.Title, c.Code, c.Kind, c.Severity, t.x.w(diagnosis.KeyLabel+"confidence"), c.Confidence)
		t.row(2, t.x.T("show.means"), c.Means)
		t.row(2, t.x.w(diagnosis.KeyLabel+"side"), c.Side)
		t.row(2, t.x.w(diagnosis.KeyLabel+"action"), c.Action)
		for _, ref := range c.For {
			t.row(2, t.x.w(diagnosis.KeyLabel+"for"), ref)
		}
		for _, ref := range c.Against {
			t.row(2, t.x.w(diagnosis.KeyLabel+"against"), ref)
		}
	}
	for _, f := range p.Follows {
		t.row(1, t.x.w(diagnosis.KeyLabel+"consequences"), f)
	}
}

func (t *printer) rung(r Rung) {
	line := fmt.Sprintf("%s %s: %s (%s, %s)", r.Badge.Mark, r.Name, r.Badge.Text, r.Required, r.Duration)
	if r.Why != "" {
		line += " — " + r.Why
	} else if r.Reason != "" {
		line += " — " + r.Reason
	}
	t.line(1, "%s", line)
	if r.Altered {
		t.line(2, "!!! %s", t.x.T("show.altered_here"))
	}
	for _, c := range r.Causes {
		t.line(2, "%s", c)
	}
	for _, m := range r.Measurements {
		t.measured(m)
	}
	for _, l := range r.Limits {
		t.row(2, t.x.w(diagnosis.KeyLabel+"limit")+" "+l.Name, l.Value)
	}
	for _, c := range r.Conditions {
		t.row(2, t.x.w(diagnosis.KeyLabel+"conditions")+" "+c.Name, c.Value)
	}
	for _, l := range r.Log {
		t.row(2, t.x.T("show.log"), l)
	}
}

func (t *printer) measured(m Measured) {
	line := m.Name + ": " + m.Value
	if m.Source != "" {
		line += "  [" + m.Source + "]"
	}
	if m.Raw != "" {
		line += " " + t.x.T("show.raw") + " " + m.Raw
	}
	if m.Note != "" {
		line += " — " + m.Note
	}
	if m.Altered {
		line = "!!! " + t.x.T("show.altered_here") + ": " + line
	}
	t.line(2, "%s", line)
}

func (t *printer) receipt(r *ReceiptView) {
	if r == nil {
		return
	}
	t.section(t.x.T("show.receipt"))
	t.standing(r.Standing, 1)
	for _, row := range r.Rows {
		t.row(1, row.Name, row.Value)
	}
	if r.Splitter != nil {
		t.element(*r.Splitter)
	}
	if r.Signature != "" {
		signed := r.Signature
		if r.OnBehalf != "" {
			signed += " 【" + r.OnBehalf + "】 " + r.Behalf
		}
		t.row(1, t.x.T("show.signature"), signed)
	}
	for _, rated := range r.Ratings {
		t.row(1, t.x.T("show.ratings")+" "+rated.What, rated.Rating)
	}
	for _, a := range r.Attachments {
		t.line(1, "%s: %s (%s, %s) — %s", a.Kind, a.Name, a.Type, a.Size, a.State)
		t.line(2, "sha256 %s", a.SHA256)
	}
	for _, name := range r.Added {
		t.line(1, "!!! %s — %s", name, t.x.T("show.attachment_added"))
	}
	t.row(1, t.x.T("show.remarks"), r.Remarks)
	t.row(1, t.x.T("show.receipt_digest"), r.Digest)
}
