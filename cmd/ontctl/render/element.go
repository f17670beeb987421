package render

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
)

// elements are the four that an acceptance has to show: 资源准确, 3A 信息同步, 光衰,
// 速率达标.
func (x Labels) elements(d *Document) []Element {
	out := make([]Element, 0, 4)
	for _, e := range []struct {
		rung  acceptance.Rung
		key   string
		lines func(d *Document, r acceptance.Result) []string
	}{
		{acceptance.Identity, "show.identity", x.identityLines},
		{acceptance.Account, "show.account", x.accountLines},
		{acceptance.Optical, "show.optical", x.opticalLines},
		{acceptance.Throughput, "show.throughput", x.rateLines},
	} {
		el := Element{Name: x.T(e.key)}
		i := slices.IndexFunc(d.Report.Results, func(r acceptance.Result) bool { return r.Rung == e.rung })
		if i < 0 {
			el.Badge = x.badge(acceptance.Skipped)
			el.Badge.Text = x.T("show.not_tested")
			out = append(out, el)
			continue
		}
		r := d.Report.Results[i]
		el.Badge, el.Altered = x.badge(r.Verdict), touched(d.Verification.Altered, sectionOf(i, r))
		el.Lines = e.lines(d, r)
		switch {
		case len(r.Causes) > 0:
			el.Lines = append(el.Lines, Clean(diagnosis.Title(x.lang, diagnosis.Code(r.Causes[0]))))
		case r.SkippedFor != "":
			el.Lines = append(el.Lines, x.w(diagnosis.KeyLabel+"skipped_for")+x.colon()+x.Rung(r.SkippedFor))
		}
		out = append(out, el)
	}
	return out
}

func (x Labels) identityLines(_ *Document, r acceptance.Result) []string {
	var lines []string
	for _, name := range []string{"sn", "mac"} {
		if m, ok := find(r, name); ok {
			lines = append(lines, x.Measurement(name)+" "+x.Value(m))
		}
	}
	return lines
}

func (x Labels) accountLines(d *Document, _ acceptance.Result) []string {
	if d.Order == nil {
		return nil
	}
	for _, s := range d.Order.Services {
		if s.Account != "" {
			return []string{Clean(Masked(s.Account))}
		}
	}
	return nil
}

func (x Labels) opticalLines(_ *Document, r acceptance.Result) []string {
	m, ok := find(r, "rx_power_dbm")
	if !ok {
		return nil
	}
	low, high := limit(r, acceptance.OpticalRxMinDBm), limit(r, acceptance.OpticalRxMaxDBm)
	v, isNumber := m.Value.(float64)
	if !isNumber {
		return []string{x.Value(m)}
	}
	lines := []string{x.short(m.Name, v, values(low, high)...)}
	switch {
	case high != nil && !high.Holds(v):
		lines = append(lines, x.T("show.limit_max")+" "+x.Limit(*high))
	case low != nil:
		lines = append(lines, x.T("show.limit_min")+" "+x.Limit(*low))
	}
	return lines
}

func (x Labels) rateLines(d *Document, r acceptance.Result) []string {
	var lines []string
	down, up := contract(d)
	ratio := limit(r, acceptance.ThroughputMinRatio)
	for _, w := range []struct {
		name, arrow string
		contract    float64
	}{{"down", "↓", down}, {"up", "↑", up}} {
		m, ok := find(r, "throughput_"+w.name+"_mbps")
		if !ok {
			continue
		}
		v, isNumber := m.Value.(float64)
		if !isNumber {
			lines = append(lines, w.arrow+" "+x.Value(m))
			continue
		}
		line := w.arrow + " " + x.short(m.Name, v)
		if w.contract > 0 {
			line = fmt.Sprintf("%s %s / %s", w.arrow, strings.TrimSuffix(x.short(m.Name, v), " Mbit/s"), x.mbps(w.contract))
		}
		if m, ok := find(r, "throughput_"+w.name+"_ratio"); ok {
			if v, ok := m.Value.(float64); ok {
				line += " (" + strings.Replace(x.short(m.Name, v, values(ratio)...), " %", "%", 1) + ")" // not on two lines
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// contract returns what was ordered, 10⁶ bit/s; 0 for what was not.
func contract(d *Document) (down, up float64) {
	if d.Order == nil {
		return 0, 0
	}
	for _, s := range d.Order.Services {
		if s.Kind == "internet" {
			return s.DownMbps, s.UpMbps
		}
	}
	return 0, 0
}

// find returns the first measurement of that name.
func find(r acceptance.Result, name string) (acceptance.Measurement, bool) {
	for _, m := range r.Measurements {
		if m.Name == name {
			return m, true
		}
	}
	return acceptance.Measurement{}, false
}

// limit returns the first limit of that name, or nil.
func limit(r acceptance.Result, name string) *acceptance.Limit {
	for i := range r.Limits {
		if r.Limits[i].Name == name {
			return &r.Limits[i]
		}
	}
	return nil
}

func values(limits ...*acceptance.Limit) []float64 {
	var vs []float64
	for _, l := range limits {
		if l != nil {
			vs = append(vs, l.Value)
		}
	}
	return vs
}

// finite reads a number that can be drawn.
func finite(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, err
	}
	if v-v != 0 { // infinite, or none
		return 0, strconv.ErrRange
	}
	return v, nil
}
