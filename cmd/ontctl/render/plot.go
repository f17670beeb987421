package render

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"ontagent/agent/acceptance"
)

// The plots are laid out in units of their own, which the browser scales: 480
// by 230 of them, about the size of a pixel on a telephone.
const (
	plotWidth   = 480.0
	plotHeight  = 230.0
	plotLeft    = 44.0  // for the numbers of the axis
	plotTop     = 22.0  // the unit is above
	plotBottom  = 196.0 // of the drawing; the axis' text is below
	lineHeight  = 14.0
	opticalEdge = 318.0 // right of it stand the names of the limits
	rateEdge    = 372.0
	maxSamples  = 300 // of one series; a visit has some dozens
)

// Frame is what all plots have.
type Frame struct {
	Title, Caption      string
	W, H                float64
	Left, Right         float64
	Top, Bottom         float64
	Ticks               []Tick // of the vertical axis
	Marks               []Mark // of the horizontal one
	Unit                string
	Empty               string // why there is nothing to draw
	AxisX, AxisY, UnitY float64
}

// Tick is a number on the vertical axis.
type Tick struct {
	Y, TextY float64
	Label    string
}

// Mark is a number on the horizontal axis.
type Mark struct {
	X     float64
	Label string
}

// Line is a level that something is held against, with its name at the side.
type Line struct {
	Class  string // norm, module, contract, baseline
	Y      float64
	LabelY float64 // moved so that names don't cover one another
	TextY  float64
	Label  string
}

// Dot is one reading.
type Dot struct{ X, Y float64 }

// Series is the readings of one source, in order.
type Series struct {
	Class  string // s0, s1 …
	Name   string
	Dots   []Dot
	Points string // of the line through them
}

// Zone is where a reading fails.
type Zone struct{ Y, H float64 }

// OpticalPlot shows the received power of each read against its limits.
type OpticalPlot struct {
	Frame
	Zones  []Zone
	Lines  []Line
	Series []Series
	// The value that was judged.
	Value       string
	ValX, ValY  float64
	NameX, EndX float64
}

// RatePlot shows one direction's rate, second by second.
type RatePlot struct {
	Frame
	Bars []Bar
	Line []Line
	// Where the names of the lines stand.
	NameX float64
}

// Bar is one second.
type Bar struct {
	X, Y, W, H float64
	Low        bool // below what has to be reached
}

// PlotWidth returns the width of the drawing within the frame.
func (f Frame) PlotWidth() float64 { return f.Right - f.Left }

func newFrame(title string, right float64) Frame {
	return Frame{
		Title: title, W: plotWidth, H: plotHeight, Left: plotLeft, Right: right, Top: plotTop, Bottom: plotBottom,
		AxisX: (plotLeft + right) / 2, AxisY: plotHeight - 4, UnitY: plotTop - 10,
	}
}

// axis is a range of values on the vertical axis.
type axis struct{ lo, hi float64 }

func (a axis) y(v float64) float64 {
	v = min(max(v, a.lo), a.hi)
	return round(plotBottom - (v-a.lo)/(a.hi-a.lo)*(plotBottom-plotTop))
}

func round(v float64) float64 { return math.Round(v*10) / 10 }

// ticks puts about five numbers on the axis.
func (f *Frame) ticks(a axis) {
	step := math.Pow(10, math.Floor(math.Log10((a.hi-a.lo)/5)))
	for _, m := range []float64{1, 2, 5, 10} {
		if (a.hi-a.lo)/(step*m) <= 6 {
			step *= m
			break
		}
	}
	for n := math.Ceil(a.lo / step); n*step <= a.hi+step/1e6 && len(f.Ticks) < 20; n++ {
		y := a.y(n * step)
		f.Ticks = append(f.Ticks, Tick{y, y + 4, strconv.FormatFloat(n*step, 'g', 6, 64)})
	}
}

// opticalPlot is nil if the visit did not look at the light.
func (x Labels) opticalPlot(d *Document) *OpticalPlot {
	r, ok := d.Report.Result(acceptance.Optical)
	if !ok {
		return nil
	}
	p := &OpticalPlot{Frame: newFrame(x.T("show.plot_optical"), opticalEdge), NameX: opticalEdge + 10, EndX: opticalEdge + 6}
	p.Unit, p.Caption = "dBm", x.T("show.plot_reads")
	names, reads, dark := opticalReads(r)
	if len(names) == 0 {
		p.Empty = x.T("show.plot_none")
		if dark {
			p.Empty = x.T("show.plot_dark")
		}
	}
	lines := x.opticalLevels(d, r)
	a := axis{math.Inf(1), math.Inf(-1)}
	include := func(v float64) { a.lo, a.hi = min(a.lo, v), max(a.hi, v) }
	for _, rs := range reads {
		for _, v := range rs {
			include(min(max(v, -45), 15))
		}
	}
	for _, l := range lines {
		include(min(max(l.value, -45), 15))
	}
	if a.lo > a.hi {
		a = axis{-30, -5}
	}
	a = axis{math.Floor(a.lo) - 2, math.Ceil(a.hi) + 2}
	p.ticks(a)
	for _, l := range lines {
		p.Lines = append(p.Lines, Line{Class: l.class, Y: a.y(l.value), Label: l.label})
	}
	spread(p.Lines)
	if l := limit(r, acceptance.OpticalRxMinDBm); l != nil {
		p.Zones = append(p.Zones, Zone{a.y(l.Value), plotBottom - a.y(l.Value)})
	}
	if l := limit(r, acceptance.OpticalRxMaxDBm); l != nil {
		p.Zones = append(p.Zones, Zone{plotTop, a.y(l.Value) - plotTop})
	}
	longest := 0
	for _, rs := range reads {
		longest = max(longest, len(rs))
	}
	for i, name := range names {
		s := Series{Class: fmt.Sprintf("s%d", min(i, 3)), Name: Clean(name)}
		var points []string
		for k, v := range reads[i] {
			dot := Dot{slot(k, longest, opticalEdge), a.y(v)}
			s.Dots = append(s.Dots, dot)
			points = append(points, fmt.Sprintf("%g,%g", dot.X, dot.Y))
		}
		s.Points = strings.Join(points, " ")
		p.Series = append(p.Series, s)
	}
	slices.Reverse(p.Series) // the source that decides is drawn over the others
	p.marks(longest, opticalEdge)
	if m, ok := find(r, "rx_power_dbm"); ok && len(names) > 0 {
		if v, ok := m.Value.(float64); ok {
			p.Value = x.short(m.Name, v, values(limit(r, acceptance.OpticalRxMinDBm), limit(r, acceptance.OpticalRxMaxDBm))...)
			p.ValX, p.ValY = (plotLeft+opticalEdge)/2, valueY(a.y(v), p.Lines)
		}
	}
	return p
}

// valueY returns where the text of a value at y stands: above it, or below where
// that would cover a line.
func valueY(y float64, lines []Line) float64 {
	above, below := y-9, y+19
	for _, l := range lines {
		if l.Y > above-13 && l.Y < above+3 {
			return min(below, plotBottom-4)
		}
	}
	if above < plotTop+10 {
		return below
	}
	return above
}

// slot returns where the k-th of n things stands between the axis and right.
func slot(k, n int, right float64) float64 {
	return round(plotLeft + (right-plotLeft)*(float64(k)+0.5)/float64(max(n, 1)))
}

// marks numbers n things, not all if there are many.
func (f *Frame) marks(n int, right float64) {
	every := max(1, (n+11)/12)
	for k := 0; k < n; k += every {
		f.Marks = append(f.Marks, Mark{slot(k, n, right), strconv.Itoa(k + 1)})
	}
}

// opticalReads returns the single reads by source, in the order of the record,
// and whether one of them saw no light.
func opticalReads(r acceptance.Result) (names []string, reads [][]float64, dark bool) {
	for _, m := range r.Measurements {
		if m.Name != "rx_power_sample_dbm" {
			continue
		}
		dark = dark || m.Status == "no_light"
		v, ok := m.Value.(float64)
		if !ok || v-v != 0 {
			continue
		}
		i := slices.Index(names, m.Source)
		if i < 0 {
			if len(names) == 4 {
				continue // no gateway has as many sources
			}
			names, reads = append(names, m.Source), append(reads, nil)
			i = len(names) - 1
		}
		if len(reads[i]) < maxSamples {
			reads[i] = append(reads[i], v)
		}
	}
	if m, ok := find(r, "rx_power_dbm"); ok {
		dark = dark || m.Status == "no_light"
		if v, ok := m.Value.(float64); ok && len(names) == 0 && v-v == 0 {
			names, reads = []string{m.Source}, [][]float64{{v}} // an older record's
		}
	}
	return names, reads, dark
}

type level struct {
	class, label string
	value        float64
}

// opticalLevels are what the light is held against: the limits of the order or
// the norm, the module's own, and the line's baseline.
func (x Labels) opticalLevels(d *Document, r acceptance.Result) []level {
	var out []level
	for _, l := range r.Limits {
		if l.Value-l.Value != 0 || Unit(l.Name) != "dBm" || len(out) >= 8 {
			continue
		}
		class, key := "module", "show.module_warn"
		switch {
		case l.Name == acceptance.OpticalRxMinDBm:
			class, key = "norm", "show.limit_min"
		case l.Name == acceptance.OpticalRxMaxDBm:
			class, key = "norm", "show.limit_max"
		case strings.Contains(l.Name, "alarm"):
			key = "show.module_alarm"
		case l.Origin != acceptance.OriginModule:
			continue
		}
		label := fmt.Sprintf("%s %s %s", x.T(key), operator(l.Op), strconv.FormatFloat(l.Value, 'g', 5, 64))
		out = append(out, level{class, label, l.Value})
	}
	if d.Record.Line == nil {
		return out // the visit's own reading is no baseline of it
	}
	if base, ok := d.Record.Line.Readings["rx_power_dbm"]; ok && base-base == 0 {
		out = append(out, level{"baseline", fmt.Sprintf("%s %s", x.T("show.baseline_short"), strconv.FormatFloat(base, 'f', 1, 64)), base})
	}
	return out
}

// spread moves the names of lines apart that are too close to one another.
func spread(lines []Line) {
	order := make([]int, len(lines))
	for i := range lines {
		order[i], lines[i].LabelY = i, lines[i].Y
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(lines[a].Y, lines[b].Y) })
	floor := plotTop
	for _, i := range order {
		lines[i].LabelY = max(lines[i].LabelY, floor)
		floor = lines[i].LabelY + lineHeight
	}
	ceiling := plotBottom + lineHeight
	for _, i := range slices.Backward(order) {
		lines[i].LabelY = round(min(lines[i].LabelY, ceiling))
		ceiling = lines[i].LabelY - lineHeight
	}
	for i := range lines {
		lines[i].TextY = lines[i].LabelY + 4
	}
}

// ratePlots are empty if the visit measured no speed.
func (x Labels) ratePlots(d *Document) []RatePlot {
	r, ok := d.Report.Result(acceptance.Throughput)
	if !ok {
		return nil
	}
	down, up := contract(d)
	var out []RatePlot
	for _, w := range []struct {
		name, title string
		contract    float64
	}{{"down", "show.plot_down", down}, {"up", "show.plot_up", up}} {
		m, ok := find(r, "throughput_"+w.name+"_mbps")
		if !ok {
			continue
		}
		out = append(out, x.ratePlot(x.T(w.title), m, w.contract, limit(r, acceptance.ThroughputMinRatio)))
	}
	return out
}

func (x Labels) ratePlot(title string, m acceptance.Measurement, contract float64, ratio *acceptance.Limit) RatePlot {
	p := RatePlot{Frame: newFrame(title, rateEdge), NameX: rateEdge + 8}
	p.Unit, p.Caption = "Mbit/s", x.T("show.plot_seconds")
	var rates []float64
	for f := range strings.FieldsSeq(m.Raw) {
		v, err := finite(f)
		if err != nil || v < 0 || v > 1e6 || len(rates) == maxSamples {
			rates = nil // not rates
			break
		}
		rates = append(rates, v)
	}
	if len(rates) == 0 {
		p.Empty = x.T("show.plot_none")
		if m.Value == nil && m.Status != "" {
			p.Empty += x.colon() + x.Value(m)
		}
	}
	top := contract
	for _, v := range rates {
		top = max(top, v)
	}
	a := axis{0, max(top, 1) * 1.08}
	p.ticks(a)
	floor := 0.0
	if contract > 0 {
		p.Line = append(p.Line, Line{Class: "contract", Y: a.y(contract), Label: x.T("show.plot_contract", number(contract))})
		if ratio != nil && ratio.Value > 0 && ratio.Value <= 2 {
			floor = contract * ratio.Value
			p.Line = append(p.Line, Line{Class: "norm", Y: a.y(floor), Label: x.T("show.plot_floor", number(floor))})
		}
	}
	spread(p.Line)
	width := (rateEdge - plotLeft) / float64(max(len(rates), 1))
	for k, v := range rates {
		y := a.y(v)
		p.Bars = append(p.Bars, Bar{
			X: round(plotLeft + width*(float64(k)+0.14)), Y: y, W: round(max(width*0.72, 0.5)), H: round(plotBottom - y), Low: v < floor,
		})
	}
	p.marks(len(rates), rateEdge)
	return p
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 5, 64) }
