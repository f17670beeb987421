package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"ontagent/agent/acceptance/steps"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/throughput"
)

// speedReport is a result for people. JSON has all of it.
type speedReport struct {
	out  *bytes.Buffer
	lang diagnosis.Lang
	r    throughput.Result
}

func (p speedReport) label(name string) string {
	return diagnosis.Text(p.lang, diagnosis.KeyLabel+name)
}

func (p speedReport) verdict(v throughput.Verdict) string {
	return diagnosis.Text(p.lang, diagnosis.KeyVerdict+string(v))
}

// line prints what there is to say under a label, if anything.
func (p speedReport) line(label string, parts ...string) {
	text := ""
	for _, part := range parts {
		if part == "" {
			continue
		}
		if text != "" {
			text += ", "
		}
		text += part
	}
	if text != "" {
		fmt.Fprintf(p.out, "  %s: %s\n", p.label(label), printable(text))
	}
}

func (p speedReport) write() {
	r := p.r
	where := []string{r.URL}
	if r.Server.IsValid() {
		where = append(where, r.Server.String())
	}
	where = append(where, r.ServerName, r.Interface)
	if r.Connections > 0 {
		where = append(where, fmt.Sprintf("%d × TCP", r.Connections))
	}
	p.line("conditions", where...)
	for _, d := range []struct {
		name string
		rate *throughput.Rate
	}{{"down", r.Down}, {"up", r.Up}} {
		if d.rate != nil {
			p.direction(d.name, d.rate)
		}
	}
	fmt.Fprintf(p.out, "%s: %s\n", p.label("verdict"), p.verdict(r.Verdict))
	if r.Reason != "" && (r.Down == nil || r.Reason != r.Down.Reason) && (r.Up == nil || r.Reason != r.Up.Reason) {
		p.line("reason", r.Reason)
	}
}

// direction prints what was found for one of them.
func (p speedReport) direction(name string, rate *throughput.Rate) {
	fmt.Fprintf(p.out, "%s: %s\n", p.label(name), p.verdict(rate.Verdict))
	if rate.TCPMbps != nil {
		text := mbps(rate.TCPMbps) + " Mbit/s TCP"
		if rate.IPMbps != nil && rate.EthernetMbps != nil {
			text += " (IP " + mbps(rate.IPMbps) + ", Ethernet " + mbps(rate.EthernetMbps) + ")"
		}
		if rate.ContractRatio != nil {
			text += ": " + round1(100**rate.ContractRatio) + " %"
		}
		p.line("measured", text)
	}
	if rate.ContractMbps > 0 {
		p.line("limit", round1(100*p.r.MinRatio)+" % × "+round1(rate.ContractMbps)+" Mbit/s ("+string(p.r.Layer)+")")
	}
	if n := len(rate.Runs); n > 1 {
		var all []string
		for i := range rate.Runs {
			all = append(all, mbps(rate.Runs[i].TCPMbps))
		}
		p.line("runs", strings.Join(all, " / ")+" Mbit/s")
	}
	p.cause(rate)
	if rate.Error != rate.Reason {
		p.line("error", rate.Error)
	}
	l := rate.Latency
	p.line("latency", latency(p.label("idle"), l.IdleP50Ms, l.IdleP95Ms), latency(p.label("loaded"), l.LoadedP50Ms, l.LoadedP95Ms), rpm(l))
	p.conditions(rate)
	if rate.DurationS > 0 {
		p.line("duration", round1(rate.DurationS)+" s (+ "+round1(rate.WarmUpS)+" s)", round1(float64(rate.Bytes)/1e6)+" MB",
			fmt.Sprintf("%s … %s Mbit/s", round1(rate.Spread.MinMbps), round1(rate.Spread.MaxMbps)))
	}
}

// cause prints what kept the rate from being higher: as a cause, with what to
// do, where that matters.
func (p speedReport) cause(rate *throughput.Rate) {
	code := steps.ThroughputCause(rate.LimitedBy)
	if rate.Verdict == throughput.Pass || rate.Verdict == throughput.Measured {
		by := p.label("the_line")
		if code != "" {
			by = diagnosis.Title(p.lang, code)
		}
		p.line("limited_by", by, rate.Reason)
		return
	}
	if rate.Verdict == throughput.Fail {
		code = diagnosis.ThroughputBelow
		if down := p.r.Down; rate == p.r.Up && down != nil && down.Verdict == throughput.Pass {
			code = diagnosis.ThroughputUploadOnly
		}
	}
	if code != "" {
		p.line("cause", diagnosis.Title(p.lang, code)+" ["+string(code)+"]")
	}
	p.line("reason", rate.Reason)
	p.line("action", diagnosis.Action(p.lang, code))
}

// conditions prints what may have been in the way.
func (p speedReport) conditions(rate *throughput.Rate) {
	var parts []string
	if rate.CrossMbps != nil {
		parts = append(parts, p.label("cross_traffic")+" "+mbps(rate.CrossMbps)+" Mbit/s")
	}
	c := rate.Conditions
	if c.PeakCore != nil {
		parts = append(parts, "CPU ≤ "+round1(100**c.PeakCore)+" %")
	}
	if c.Throttled != nil && *c.Throttled > 0 {
		parts = append(parts, "cgroup "+round1(100**c.Throttled)+" %")
	}
	if c.SoftnetDropped > 0 {
		parts = append(parts, "softnet "+strconv.FormatUint(c.SoftnetDropped, 10))
	}
	if rate.CeilingMbps != nil {
		parts = append(parts, p.label("port")+" ≤ "+mbps(rate.CeilingMbps)+" Mbit/s")
	}
	p.line("conditions", parts...)
}

func latency(name string, p50, p95 *float64) string {
	if p50 == nil || p95 == nil {
		return ""
	}
	return name + " " + round1(*p50) + " ms (P95 " + round1(*p95) + ")"
}

func rpm(l throughput.Latency) string {
	if l.RPM == nil {
		return ""
	}
	return "RPM " + strconv.FormatFloat(*l.RPM, 'f', 0, 64) + " (" + l.RPMConfidence + ")"
}

func mbps(f *float64) string {
	if f == nil {
		return "–"
	}
	return strconv.FormatFloat(*f, 'f', 2, 64)
}
