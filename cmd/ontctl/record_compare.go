package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/ontctl/render"
)

// comparison is what differs between two visits of one line.
type comparison struct {
	Old visitHead `json:"old"`
	New visitHead `json:"new"`
	// SameDevice is false only where the user insisted.
	SameDevice bool `json:"same_device"`
	// Reversed says that the first record is the later one.
	Reversed bool `json:"reversed,omitempty"`

	Verdicts     []change      `json:"verdicts,omitempty"` // of the whole ("") and of rungs
	Measurements []moved       `json:"measurements,omitempty"`
	CausesNew    []string      `json:"causes_new,omitempty"`
	CausesGone   []string      `json:"causes_gone,omitempty"`
	CausesStill  []string      `json:"causes_still,omitempty"`
	Limits       []limitChange `json:"limits,omitempty"`
	Resources    []change      `json:"resources,omitempty"` // as ordered and as measured
	Contract     []change      `json:"contract,omitempty"`
	Software     *change       `json:"software,omitempty"`
	Baseline     []moved       `json:"baseline,omitempty"`
}

// visitHead names a record.
type visitHead struct {
	File    string        `json:"file"`
	Status  record.Status `json:"status"`
	Device  string        `json:"device"`
	N       uint64        `json:"n"`
	Order   string        `json:"order,omitempty"`
	Type    order.Type    `json:"order_type,omitempty"`
	Closed  string        `json:"closed_utc"`
	Clock   string        `json:"clock"`
	Verdict string        `json:"verdict"`
	SHA256  string        `json:"sha256"`
}

// change is something that reads differently. Empty: it was not there.
type change struct {
	Name string `json:"name,omitempty"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// limitChange is another limit, or the same from elsewhere.
type limitChange struct {
	Name string            `json:"name"`
	Old  *acceptance.Limit `json:"old"`
	New  *acceptance.Limit `json:"new"`
}

// moved is a measurement that is not what it was.
type moved struct {
	Rung  string   `json:"rung,omitempty"`
	Name  string   `json:"name"`
	Unit  string   `json:"unit,omitempty"`
	Old   any      `json:"old"`
	New   any      `json:"new"`
	Delta *float64 `json:"delta,omitempty"` // of two numbers
	// Noise is what two measurements of one thing may differ by.
	Noise  float64 `json:"noise"`
	Beyond bool    `json:"beyond_noise"`
	// Absolute says that only the accuracy of another module counts.
	Absolute bool `json:"absolute,omitempty"`
}

func headOf(path string, d *render.Document) visitHead {
	h := visitHead{
		File: path, Status: d.Verification.Status, Device: d.Record.Device, N: d.Record.N, Closed: d.Record.Time.UTC,
		Clock: d.Record.Time.Clock, Verdict: d.Record.Verdict, SHA256: d.Digest,
	}
	if d.Order != nil {
		h.Order, h.Type = d.Order.Order, d.Order.Type
	}
	return h
}

// compare holds the later visit against the earlier one.
func compare(older, newer *render.Document) comparison {
	c := comparison{SameDevice: older.Record.Device == newer.Record.Device}
	c.Reversed = c.SameDevice && newer.Record.N < older.Record.N
	c.verdicts(older, newer)
	absolute := otherModule(older, newer)
	c.Measurements = measurementsMoved(older, newer, absolute)
	c.causes(older, newer)
	c.Limits = limitsChanged(limitsOf(older), limitsOf(newer))
	c.Resources = changed(resourcesOf(older), resourcesOf(newer))
	c.Contract = changed(contractOf(older), contractOf(newer))
	if o, n := older.Record.Agent.Version, newer.Record.Agent.Version; o != n {
		c.Software = &change{Old: o, New: n}
	}
	c.Baseline = baselineMoved(baselineAfter(&older.Record), baselineAfter(&newer.Record), absolute)
	return c
}

func (c *comparison) verdicts(older, newer *render.Document) {
	if older.Record.Verdict != newer.Record.Verdict {
		c.Verdicts = append(c.Verdicts, change{"", older.Record.Verdict, newer.Record.Verdict})
	}
	for _, rung := range rungsOf(older, newer) {
		o, _ := older.Report.Result(rung)
		n, _ := newer.Report.Result(rung)
		if o.Verdict != n.Verdict {
			c.Verdicts = append(c.Verdicts, change{string(rung), string(o.Verdict), string(n.Verdict)})
		}
	}
}

// rungsOf returns the rungs of both visits, in the order of the ladder; what
// this program does not know comes last.
func rungsOf(older, newer *render.Document) []acceptance.Rung {
	rungs := acceptance.Ladder()
	there := map[acceptance.Rung]bool{}
	for _, r := range slices.Concat(older.Report.Results, newer.Report.Results) {
		there[r.Rung] = true
		if !slices.Contains(rungs, r.Rung) {
			rungs = append(rungs, r.Rung)
		}
	}
	return slices.DeleteFunc(rungs, func(r acceptance.Rung) bool { return !there[r] })
}

// What tells nothing about a line from one visit to the next.
func passing(rung acceptance.Rung, name string) bool {
	switch name {
	case "rx_power_sample_dbm", "pppoe_session", "dial_address", "wan_addresses", "offered_address", "offered_address_v6",
		"offered_prefix", "answers_on_other_vlans", "dns_nonexistent_latency_ms":
		return true
	}
	if rung != acceptance.Throughput {
		return false
	}
	for _, kept := range []string{"_mbps", "_ratio", "_limited_by", "_idle_ms", "_loaded_ms", "_rpm"} {
		if rest, ok := strings.CutSuffix(name, kept); ok && (rest == "throughput_down" || rest == "throughput_up") {
			return false
		}
	}
	return true
}

func measurementsMoved(older, newer *render.Document, absolute bool) []moved {
	var out []moved
	for _, rung := range rungsOf(older, newer) {
		o, _ := older.Report.Result(rung)
		n, _ := newer.Report.Result(rung)
		was := byName(o.Measurements)
		is := byName(n.Measurements)
		for _, name := range names(o.Measurements, n.Measurements) {
			if passing(rung, name) {
				continue
			}
			// Several of a name are held against one another only if there are
			// as many again: which is which is in their order.
			count := 1
			if len(was[name]) == len(is[name]) {
				count = len(was[name])
			}
			for i := range count {
				if m, ok := move(name, at(was[name], i), at(is[name], i), absolute); ok {
					m.Rung = string(rung)
					out = append(out, m)
				}
			}
		}
	}
	return out
}

func byName(ms []acceptance.Measurement) map[string][]acceptance.Measurement {
	by := map[string][]acceptance.Measurement{}
	for _, m := range ms {
		by[m.Name] = append(by[m.Name], m)
	}
	return by
}

func names(lists ...[]acceptance.Measurement) []string {
	var out []string
	for _, ms := range lists {
		for _, m := range ms {
			if !slices.Contains(out, m.Name) {
				out = append(out, m.Name)
			}
		}
	}
	return out
}

func at(ms []acceptance.Measurement, i int) acceptance.Measurement {
	if i < len(ms) {
		return ms[i]
	}
	return acceptance.Measurement{}
}

// told is a measurement's value, or the status it has instead, or nil.
func told(m acceptance.Measurement) any {
	if m.Value == nil && m.Status != "" {
		return m.Status
	}
	return m.Value
}

// move compares two values. It reports whether they differ at all.
func move(name string, o, n acceptance.Measurement, absolute bool) (moved, bool) {
	m := moved{Name: name, Unit: machineUnit(name), Old: told(o), New: told(n)}
	ov, oNum := o.Value.(float64)
	nv, nNum := n.Value.(float64)
	if !oNum || !nNum {
		m.Beyond = fmt.Sprint(m.Old) != fmt.Sprint(m.New)
		// What was not looked at in one of the visits has not moved.
		return m, m.Beyond && m.Old != nil && m.New != nil
	}
	delta := nv - ov
	if delta == 0 {
		return moved{}, false
	}
	m.Delta = &delta
	m.Absolute = absolute && optical(name)
	m.Noise = noise(name, ov, nv, m.Absolute)
	m.Beyond = math.Abs(delta) > m.Noise
	return m, true
}

func optical(name string) bool { return strings.HasSuffix(name, "_dbm") || name == "margin_db" }

// The noise of measurements. Two reads of one optical module repeat within half
// a decibel; what it says in absolute terms is good for 3 dB (SFF-8472, table
// of accuracies), and so is what two modules say of one light. Bias and supply
// voltage of a module are good for 10 % and 3 % (there too); the rest is what
// healthy lines show from day to day.
func noise(name string, o, n float64, absolute bool) float64 {
	larger := max(math.Abs(o), math.Abs(n))
	switch {
	case optical(name) && absolute:
		return 3
	case optical(name):
		return 0.5
	case name == "bias_ma":
		return max(1, 0.1*larger)
	case name == "supply_voltage_v":
		return 0.03 * larger
	case strings.HasSuffix(name, "_celsius"):
		return 5
	case strings.HasPrefix(name, "lan_"):
		return 0 // negotiated, or counted
	case strings.HasSuffix(name, "_mbps"):
		return 0.05 * larger
	case strings.HasPrefix(name, "throughput_") && strings.HasSuffix(name, "_ratio"):
		return 0.05
	case strings.HasSuffix(name, "loss_ratio"):
		return 0.01
	case strings.HasSuffix(name, "_ratio"):
		return 0.1
	case strings.HasSuffix(name, "_ms"):
		return max(5, 0.25*larger)
	case strings.HasSuffix(name, "_rpm"):
		return 0.25 * larger
	}
	return 0
}

// otherModule reports whether the optical readings are not of one module by one
// way: then only their absolute accuracy counts.
func otherModule(older, newer *render.Document) bool {
	o, _ := older.Report.Result(acceptance.Optical)
	n, _ := newer.Report.Result(acceptance.Optical)
	om, nm := at(byName(o.Measurements)["rx_power_dbm"], 0), at(byName(n.Measurements)["rx_power_dbm"], 0)
	if om.Source != nm.Source || older.Record.Device != newer.Record.Device {
		return true
	}
	was, is := resourcesOf(older), resourcesOf(newer)
	for name, v := range was {
		if w, ok := is[name]; ok && v != w && (name == measuredPrefix+"sn" || strings.HasPrefix(name, measuredPrefix+"module_")) {
			return true
		}
	}
	return false
}

func (c *comparison) causes(older, newer *render.Document) {
	was, is := codesOf(older), codesOf(newer)
	for _, code := range is {
		if slices.Contains(was, code) {
			c.CausesStill = append(c.CausesStill, code)
		} else {
			c.CausesNew = append(c.CausesNew, code)
		}
	}
	for _, code := range was {
		if !slices.Contains(is, code) {
			c.CausesGone = append(c.CausesGone, code)
		}
	}
}

func codesOf(d *render.Document) []string {
	var codes []string
	for _, r := range d.Diagnosis.Causes {
		if code := string(r.Code); !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	return codes
}

// limitsOf returns the limits that were in force; an older record tells only
// those that it used.
func limitsOf(d *render.Document) map[string]acceptance.Limit {
	all := map[string]acceptance.Limit{}
	for _, l := range d.Limits {
		all[l.Name] = l
	}
	for _, r := range d.Report.Results {
		for _, l := range r.Limits {
			all[l.Name] = l
		}
	}
	return all
}

func limitsChanged(was, is map[string]acceptance.Limit) []limitChange {
	var out []limitChange
	for _, name := range slices.Sorted(maps.Keys(was)) {
		o := was[name]
		if n, ok := is[name]; ok && n != o {
			out = append(out, limitChange{name, &o, &n})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(is)) {
		// A limit that one of the two did not need is no change.
		if n := is[name]; n.Origin == acceptance.OriginOrder || n.Origin == acceptance.OriginConfig {
			if _, ok := was[name]; !ok {
				out = append(out, limitChange{name, nil, &n})
			}
		}
	}
	return out
}

// measuredPrefix tells what the gateway found from what the order said.
const measuredPrefix = "measured_"

// resourcesOf returns what is installed: by the order, and as found.
func resourcesOf(d *render.Document) map[string]string {
	all := map[string]string{}
	put := func(name, value string) {
		if value != "" {
			all[name] = value
		}
	}
	if d.Order != nil {
		r := d.Order.Resources
		put("sn", r.SN)
		put("mac", r.MAC)
		put("pon_port", r.PONPort)
		put("splitter_port", r.SplitterPort)
		put("lan_port", r.LANPort)
	}
	for _, rung := range []acceptance.Rung{acceptance.Identity, acceptance.Optical} {
		res, _ := d.Report.Result(rung)
		for _, m := range res.Measurements {
			v, ok := m.Value.(string)
			if ok && (slices.Contains([]string{"sn", "mac", "lan_port", "pon_port"}, m.Name) || strings.HasPrefix(m.Name, "module_")) {
				put(measuredPrefix+m.Name, v)
			}
		}
	}
	return all
}

// contractOf returns what is ordered, by kind of service.
func contractOf(d *render.Document) map[string]string {
	all := map[string]string{}
	if d.Order == nil {
		return all
	}
	for _, s := range d.Order.Services {
		parts := []string{s.Access}
		if s.VLAN != 0 {
			parts = append(parts, fmt.Sprintf("VLAN %d", s.VLAN))
		}
		if s.DownMbps != 0 || s.UpMbps != 0 {
			parts = append(parts, fmt.Sprintf("%g/%g Mbit/s", s.DownMbps, s.UpMbps))
		}
		parts = append(parts, render.Masked(s.Account))
		all[s.Kind] = strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), " ")
	}
	return all
}

func changed(was, is map[string]string) []change {
	names := map[string]bool{}
	for n := range was {
		names[n] = true
	}
	for n := range is {
		names[n] = true
	}
	var out []change
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if was[n] != is[n] {
			out = append(out, change{n, was[n], is[n]})
		}
	}
	return out
}

// baselineAfter is what later visits of the line are compared with: the readings
// of a record that renews its health record, else those that stood before.
func baselineAfter(r *record.Record) map[string]float64 {
	switch {
	case r.Renews:
		return r.Baseline
	case r.Line != nil:
		return r.Line.Readings
	}
	return nil
}

func baselineMoved(was, is map[string]float64, absolute bool) []moved {
	var out []moved
	for _, name := range slices.Sorted(maps.Keys(is)) {
		o, ok := was[name]
		if !ok {
			continue
		}
		m, differs := move(name, acceptance.Measurement{Value: o}, acceptance.Measurement{Value: is[name]}, absolute)
		if differs {
			out = append(out, m)
		}
	}
	return out
}

// between returns how long the visits are apart, or false if a clock was not to
// be trusted.
func (c comparison) between() (time.Duration, bool) {
	if c.Old.Clock == "none" || c.New.Clock == "none" {
		return 0, false
	}
	o, errOld := time.Parse(time.RFC3339, c.Old.Closed)
	n, errNew := time.Parse(time.RFC3339, c.New.Closed)
	return n.Sub(o), errOld == nil && errNew == nil && n.After(o)
}
