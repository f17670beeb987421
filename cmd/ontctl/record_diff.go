package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/cmd/ontctl/render"
)

func (a *app) recordDiff(_ context.Context, args []string) error {
	f := a.flags("record diff")
	lang := f.String("lang", defaultLang(), "zh-CN or en")
	asJSON := f.Bool("json", false, "print the comparison as JSON, with what moved within noise")
	root := f.String("root", "", "operator's root key (.pub `FILE`): say whether the records are genuine")
	anyway := f.Bool("anyway", false, "compare records of different devices")
	if err := a.parse(f, args, 2, 2); err != nil {
		return err
	}
	if err := checkLang(f, *lang); err != nil {
		return err
	}
	o, err := rootOption(*root)
	if err != nil {
		return fmt.Errorf("record diff: --root: %w", err)
	}
	code := cli.OK
	var docs [2]*render.Document
	for i, path := range f.Args() {
		data, err := a.readFile(path)
		if err != nil {
			return fmt.Errorf("record diff: %w", err)
		}
		v := verifyRecord(data, o)
		if docs[i], err = render.Open(data, v); err != nil {
			return cli.Exit(max(recordExit(v), cli.Fail), "record diff: %s: %s", path, clean(err.Error()))
		}
		if v.Status == record.Altered || v.Status == record.Unreadable || (*root != "" && v.Status != record.Valid) {
			code = worse(code, recordExit(v))
		}
	}
	older, newer := docs[0], docs[1]
	if older.Digest == newer.Digest {
		return cli.Exit(cli.Usage, "record diff: %s and %s are the same record", f.Arg(0), f.Arg(1))
	}
	if older.Record.Device != newer.Record.Device && !*anyway {
		return cli.Exit(cli.Usage, "record diff: %s is of device %s, %s of %s; --anyway compares them all the same",
			f.Arg(0), clean(older.Record.Device), f.Arg(1), clean(newer.Record.Device))
	}
	c := compare(older, newer)
	c.Old, c.New = headOf(f.Arg(0), older), headOf(f.Arg(1), newer)
	if *asJSON {
		line, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("cannot encode: %w", err)
		}
		if err := a.writeOut("-", append(line, '\n')); err != nil {
			return err
		}
		return ended(code)
	}
	l, _ := diagnosis.ParseLang(*lang)
	(&diffPrinter{a.out, render.In(l), l, *root != ""}).show(c)
	return ended(code)
}

// diffPrinter shows a comparison to people.
type diffPrinter struct {
	out     io.Writer
	x       render.Labels
	lang    diagnosis.Lang
	checked bool // against a root key
}

func (p *diffPrinter) line(format string, args ...any) {
	fmt.Fprintln(p.out, render.Clean(fmt.Sprintf(format, args...)))
}

func (p *diffPrinter) section(key string, n int) bool {
	if n > 0 {
		fmt.Fprintln(p.out)
		p.line("== %s", p.x.T("diff."+key))
	}
	return n > 0
}

func (p *diffPrinter) show(c comparison) {
	p.line("%s", p.x.T("diff.title"))
	p.head("diff.old", c.Old)
	p.head("diff.new", c.New)
	if !c.SameDevice {
		p.line("! %s", p.x.T("diff.other_device"))
	}
	if c.Reversed {
		p.line("! %s", p.x.T("diff.order_reversed"))
	}
	if d, ok := c.between(); ok {
		p.line("%s: %s", p.x.T("diff.apart"), p.x.Seconds(d.Seconds()))
	}
	said := p.verdicts(c) || c.New.Type == order.Move
	if c.New.Type == order.Move {
		p.line("! %s", p.x.T("diff.move"))
	}
	said = p.moved("measurements", c.Measurements) || said
	said = p.causes(c) || said
	said = p.limits(c.Limits) || said
	said = p.changes("resources", c.Resources, p.resource) || said
	said = p.changes("contract", c.Contract, func(n string) string { return p.x.T(diagnosis.KeyValue + n) }) || said
	if c.Software != nil {
		said = p.changes("software", []change{*c.Software}, func(string) string { return p.x.T("show.agent") })
	}
	said = p.moved("baseline", c.Baseline) || said
	if !said {
		fmt.Fprintln(p.out)
		p.line("%s", p.x.T("diff.same"))
	}
	within := 0
	for _, m := range c.Measurements {
		if !m.Beyond {
			within++
		}
	}
	if within > 0 {
		fmt.Fprintln(p.out)
		p.line("%s", p.x.T("diff.within", within))
	}
}

func (p *diffPrinter) head(key string, h visitHead) {
	mark := ""
	switch {
	case h.Status == record.Altered:
		mark = "  !!! " + p.x.T("diff.altered")
	case h.Status != record.Valid:
		mark = "  ! " + p.x.T("diff.unverified")
	case p.checked:
		mark = "  " + p.x.T("diff.verified")
	}
	p.line("%s: #%d · %s · %s · %s · %s%s", p.x.T(key), h.N, h.Device, h.Order, p.x.When(h.Closed), p.x.Verdict(acceptance.Verdict(h.Verdict)), mark)
}

func (p *diffPrinter) or(s string) string {
	if s == "" {
		return p.x.T("diff.absent")
	}
	return s
}

func (p *diffPrinter) verdicts(c comparison) bool {
	if !p.section("verdicts", len(c.Verdicts)) {
		return false
	}
	for _, v := range c.Verdicts {
		name := p.x.T("diff.overall")
		if v.Name != "" {
			name = p.x.Rung(acceptance.Rung(v.Name))
		}
		p.line("  %s: %s → %s", name, p.x.Verdict(acceptance.Verdict(v.Old)), p.x.Verdict(acceptance.Verdict(v.New)))
	}
	return true
}

func (p *diffPrinter) moved(key string, all []moved) bool {
	var beyond []moved
	absolute := false
	for _, m := range all {
		if m.Beyond {
			beyond = append(beyond, m)
		}
		absolute = absolute || m.Absolute
	}
	if !p.section(key, len(beyond)) {
		return false
	}
	for _, m := range beyond {
		line := fmt.Sprintf("  %s: %s → %s", p.x.Measurement(m.Name), p.told(m.Name, m.Old), p.told(m.Name, m.New))
		if m.Rung != "" {
			line = fmt.Sprintf("  %s · %s", p.x.Rung(acceptance.Rung(m.Rung)), line[2:])
		}
		if m.Delta != nil {
			line += fmt.Sprintf("  (%s, %s)", p.delta(m.Name, *m.Delta), p.x.T("diff.noise", p.delta(m.Name, m.Noise)))
		}
		p.line("%s", strings.ReplaceAll(line, "±+", "±"))
	}
	if absolute {
		p.line("  %s", p.x.T("diff.optics_absolute"))
	}
	return true
}

// told shows a value, or what stood instead of one.
func (p *diffPrinter) told(name string, v any) string {
	if s, ok := v.(string); ok && s != "" {
		if text := diagnosis.Text(p.lang, diagnosis.KeyStatus+s); text != s {
			return text
		}
	}
	return p.x.Value(acceptance.Measurement{Name: name, Value: v})
}

// delta shows a difference with its sign. That of powers is in decibels.
func (p *diffPrinter) delta(name string, d float64) string {
	if strings.HasSuffix(name, "_dbm") {
		name = strings.TrimSuffix(name, "m")
	}
	d, _ = strconv.ParseFloat(strconv.FormatFloat(d, 'g', 4, 64), 64)
	s := p.x.Number(name, d)
	if d >= 0 && !math.Signbit(d) {
		s = "+" + s
	}
	return s
}

func (p *diffPrinter) causes(c comparison) bool {
	if !p.section("causes", len(c.CausesNew)+len(c.CausesGone)) {
		return false
	}
	for _, list := range []struct {
		key   string
		codes []string
	}{{"cause_new", c.CausesNew}, {"cause_gone", c.CausesGone}, {"cause_still", c.CausesStill}} {
		for _, code := range list.codes {
			p.line("  %s: %s [%s]", p.x.T("diff."+list.key), diagnosis.Title(p.lang, diagnosis.Code(code)), code)
		}
	}
	return true
}

func (p *diffPrinter) limits(all []limitChange) bool {
	show := func(l *acceptance.Limit) string {
		if l == nil {
			return p.x.T("diff.absent")
		}
		return p.x.Limit(*l) + " (" + p.x.T(diagnosis.KeyOrigin+l.Origin) + ")"
	}
	if !p.section("thresholds", len(all)) {
		return false
	}
	for _, l := range all {
		p.line("  %s: %s → %s", p.x.Threshold(l.Name), show(l.Old), show(l.New))
	}
	return true
}

func (p *diffPrinter) changes(key string, all []change, name func(string) string) bool {
	if !p.section(key, len(all)) {
		return false
	}
	for _, c := range all {
		p.line("  %s: %s → %s", name(c.Name), p.or(c.Old), p.or(c.New))
	}
	return true
}

// resource names a resource, and says whether it is what was found.
func (p *diffPrinter) resource(name string) string {
	if found, ok := strings.CutPrefix(name, measuredPrefix); ok {
		return p.x.T("diff.found", p.x.Measurement(found))
	}
	return p.x.T("diff.booked", p.x.Measurement(name))
}
