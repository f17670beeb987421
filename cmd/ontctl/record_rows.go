package main

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/cmd/ontctl/render"
)

// column is a field of an export. Its name never changes, and its place only
// in that new ones come last. docs/records-export.md has them all.
type column struct{ name, kind string }

// The kinds of columns. An empty cell, null in JSON, is "not known".
const (
	kindText   = "text"
	kindNumber = "number"
	kindWhole  = "integer"
	kindFlag   = "boolean"
)

// fields are the values of columns by name: string, float64, uint64, bool, or nil.
type fields map[string]any

func recordColumns() []column {
	columns := []column{
		{"schema", kindText},
		{"sha256", kindText},
		{"status", kindText},
		{"altered", kindText},
		{"device", kindText},
		{"tenant", kindText},
		{"n", kindWhole},
		{"prev_sha256", kindText},
		{"job", kindText},
		{"closed_utc", kindText},
		{"clock", kindText},
		{"uptime_s", kindNumber},
		{"agent_version", kindText},
		{"epoch", kindWhole},
		{"technician", kindText},
		{"order", kindText},
		{"order_rev", kindWhole},
		{"order_type", kindText},
		{"verdict", kindText},
		{"interrupted", kindFlag},
		{"duration_s", kindNumber},
		{"first_cause", kindText},
		{"first_cause_side", kindText},
		{"first_cause_or_side", kindText},
		{"first_cause_severity", kindText},
		{"first_cause_confidence", kindNumber},
		{"causes", kindText},
	}
	for _, r := range acceptance.Ladder() {
		columns = append(columns, column{"verdict_" + string(r), kindText})
	}
	columns = append(columns, []column{
		{"sn", kindText},
		{"mac", kindText},
		{"pon_port", kindText},
		{"splitter_port", kindText},
		{"lan_port", kindText},
		{"services", kindText},
		{"internet_access", kindText},
		{"internet_vlan", kindWhole},
		{"contract_down_mbps", kindNumber},
		{"contract_up_mbps", kindNumber},
		{"account", kindText},
	}...)
	for _, n := range exportedNumbers() {
		columns = append(columns, column{n.column, kindNumber})
	}
	return append(columns, []column{
		{"rx_status", kindText},
		{"rx_limit_min_dbm", kindNumber},
		{"rx_before_dbm", kindNumber},
		{"onu_state", kindText},
		{"down_limited_by", kindText},
		{"up_limited_by", kindText},
		{"receipt_sha256", kindText},
		{"receipt_status", kindText},
		{"splitter_rx_power_dbm", kindNumber},
		{"splitter_verdict", kindText},
		{"signed", kindText},
		{"rating_overall", kindText},
		{"attachments", kindWhole},
		{"file", kindText},
	}...)
}

// exportedNumber is a measurement that a record's row has a column for.
type exportedNumber struct {
	column string
	rung   acceptance.Rung
	name   string
}

func exportedNumbers() []exportedNumber {
	return []exportedNumber{
		{"rx_power_dbm", acceptance.Optical, "rx_power_dbm"},
		{"tx_power_dbm", acceptance.Optical, "tx_power_dbm"},
		{"margin_db", acceptance.Optical, "margin_db"},
		{"bias_ma", acceptance.Optical, "bias_ma"},
		{"module_temperature_celsius", acceptance.Optical, "module_temperature_celsius"},
		{"supply_voltage_v", acceptance.Optical, "supply_voltage_v"},
		{"lan_speed_mbps", acceptance.LANCabling, "lan_speed_mbps"},
		{"loss_ratio", acceptance.Reachability, "loss_ratio"},
		{"rtt_ms", acceptance.Reachability, "rtt_ms"},
		{"path_mtu_bytes", acceptance.Reachability, "path_mtu_bytes"},
		{"down_mbps", acceptance.Throughput, "throughput_down_mbps"},
		{"down_ratio", acceptance.Throughput, "throughput_down_ratio"},
		{"down_loaded_ms", acceptance.Throughput, "throughput_down_loaded_ms"},
		{"up_mbps", acceptance.Throughput, "throughput_up_mbps"},
		{"up_ratio", acceptance.Throughput, "throughput_up_ratio"},
		{"up_loaded_ms", acceptance.Throughput, "throughput_up_loaded_ms"},
		{"cpu_busy_ratio", acceptance.Host, "cpu_busy_ratio"},
		{"memory_used_ratio", acceptance.Host, "memory_used_ratio"},
		{"temperature_celsius", acceptance.Host, "temperature_celsius"},
	}
}

// recordSchema names the form of the rows of records.
const recordSchema = "ontagent.record-export/1"

func recordRow(e exported) fields {
	d, r, o := e.doc, e.doc.Record, e.orderOf()
	out := fields{
		"schema": recordSchema, "sha256": d.Digest, "status": string(d.Verification.Status),
		"altered": strings.Join(d.Verification.Altered, "; "), "device": r.Device, "tenant": r.Tenant, "n": r.N, "prev_sha256": r.Prev,
		"job": r.Job, "closed_utc": r.Time.UTC, "clock": r.Time.Clock, "uptime_s": r.Time.UptimeS, "agent_version": r.Agent.Version,
		"epoch": r.Agent.Epoch, "technician": r.Technician, "order": o.Order, "order_type": string(o.Type),
		"verdict": r.Verdict, "interrupted": d.Report.Interrupted, "duration_s": d.Report.DurationS,
		"sn": o.Resources.SN, "mac": o.Resources.MAC, "pon_port": o.Resources.PONPort, "splitter_port": o.Resources.SplitterPort,
		"lan_port": o.Resources.LANPort, "file": e.path,
	}
	if o.Rev != 0 {
		out["order_rev"] = o.Rev
	}
	if first, ok := d.Diagnosis.First(); ok {
		out["first_cause"], out["first_cause_side"] = string(first.Code), string(first.Side)
		if first.OrSide != first.Side {
			out["first_cause_or_side"] = string(first.OrSide)
		}
		out["first_cause_severity"], out["first_cause_confidence"] = string(first.Severity), first.Confidence
	}
	out["causes"] = codeList(d.Diagnosis)
	for _, res := range d.Report.Results {
		if name := "verdict_" + string(res.Rung); out[name] == nil {
			out[name] = string(res.Verdict)
		}
	}
	var kinds []string
	for _, s := range o.Services {
		kinds = append(kinds, s.Kind)
		if s.Kind == "internet" && out["internet_access"] == nil {
			out["internet_access"], out["account"] = s.Access, render.Masked(s.Account)
			if s.VLAN != 0 {
				out["internet_vlan"] = uint64(s.VLAN)
			}
			if s.DownMbps != 0 || s.UpMbps != 0 {
				out["contract_down_mbps"], out["contract_up_mbps"] = s.DownMbps, s.UpMbps
			}
		}
	}
	out["services"] = strings.Join(kinds, " ")
	for _, n := range exportedNumbers() {
		if v, ok := measurementOf(d, n.rung, n.name).Value.(float64); ok {
			out[n.column] = v
		}
	}
	out.evidence(d)
	out.receipt(e)
	return out
}

// evidence adds what is no plain number.
func (r fields) evidence(d *render.Document) {
	r["rx_status"] = measurementOf(d, acceptance.Optical, "rx_power_dbm").Status
	if res, ok := d.Report.Result(acceptance.Optical); ok {
		for _, l := range res.Limits {
			if l.Name == acceptance.OpticalRxMinDBm {
				r["rx_limit_min_dbm"] = l.Value
			}
		}
	}
	if l := d.Record.Line; l != nil {
		if v, ok := l.Readings["rx_power_dbm"]; ok {
			r["rx_before_dbm"] = v
		}
	}
	for name, m := range map[string]acceptance.Measurement{
		"onu_state":       measurementOf(d, acceptance.Registration, "onu_state"),
		"down_limited_by": measurementOf(d, acceptance.Throughput, "throughput_down_limited_by"),
		"up_limited_by":   measurementOf(d, acceptance.Throughput, "throughput_up_limited_by"),
	} {
		if v, ok := m.Value.(string); ok {
			r[name] = v
		}
	}
}

func (r fields) receipt(e exported) {
	v := e.receipt
	if v == nil {
		return
	}
	r["receipt_sha256"], r["receipt_status"] = v.Digest, string(v.Status)
	if e.several {
		r["receipt_status"] = "several"
	}
	if v.Receipt == nil {
		return
	}
	if s := v.Receipt.Splitter; s != nil {
		r["splitter_rx_power_dbm"], r["splitter_verdict"] = s.RxPowerDBm, s.Verdict
	}
	switch s := v.Receipt.Customer.Signature; {
	case s == nil:
		r["signed"] = "no"
	case s.OnBehalf:
		r["signed"] = "on_behalf"
	default:
		r["signed"] = "customer"
	}
	r["rating_overall"] = string(v.Receipt.Customer.Ratings["overall"])
	r["attachments"] = uint64(len(v.Receipt.Attachments))
}

func codeList(d diagnosis.Diagnosis) string {
	codes := make([]string, 0, len(d.Causes))
	for _, c := range d.Causes {
		codes = append(codes, string(c.Code))
	}
	return strings.Join(codes, " ")
}

// measurementOf returns the first measurement of a name that a rung has.
func measurementOf(d *render.Document, rung acceptance.Rung, name string) acceptance.Measurement {
	res, _ := d.Report.Result(rung)
	i := slices.IndexFunc(res.Measurements, func(m acceptance.Measurement) bool { return m.Name == name })
	if i < 0 {
		return acceptance.Measurement{}
	}
	return res.Measurements[i]
}

func rungColumns() []column {
	return []column{
		{"schema", kindText},
		{"sha256", kindText},
		{"status", kindText},
		{"device", kindText},
		{"n", kindWhole},
		{"order", kindText},
		{"closed_utc", kindText},
		{"rung", kindText},
		{"required", kindFlag},
		{"verdict", kindText},
		{"kind", kindText},
		{"name", kindText},
		{"number", kindNumber},
		{"text", kindText},
		{"unit", kindText},
		{"value_status", kindText},
		{"op", kindText},
		{"origin", kindText},
		{"source", kindText},
		{"raw", kindText},
		{"note", kindText},
	}
}

// rungSchema names the form of the rows of rungs.
const rungSchema = "ontagent.rung-export/1"

// rungRows are a row for each rung, then one for each of its measurements and
// limits.
func rungRows(e exported) []fields {
	d := e.doc
	var rows []fields
	for _, res := range d.Report.Results {
		add := func(kind, name string, more fields) {
			r := fields{
				"schema": rungSchema, "sha256": d.Digest, "status": string(d.Verification.Status), "device": d.Record.Device,
				"n": d.Record.N, "order": e.orderOf().Order, "closed_utc": d.Record.Time.UTC, "rung": string(res.Rung),
				"required": res.Required, "verdict": string(res.Verdict), "kind": kind, "name": name,
			}
			maps.Copy(r, more)
			rows = append(rows, r)
		}
		add("rung", "duration_s", fields{
			"number": res.DurationS, "unit": "s", "text": strings.Join(slices.Concat(res.Causes, res.Warnings), " "),
			"note": cmp.Or(res.Reason, skippedFor(res)),
		})
		for _, m := range res.Measurements {
			more := fields{"unit": machineUnit(m.Name), "value_status": m.Status, "source": m.Source, "raw": m.Raw, "note": m.Note}
			switch v := m.Value.(type) {
			case nil:
			case float64:
				more["number"] = v
			case string:
				more["text"] = v
			case bool:
				more["text"] = map[bool]string{true: "true", false: "false"}[v]
			}
			add("measurement", m.Name, more)
		}
		for _, l := range res.Limits {
			add("limit", l.Name, fields{"number": l.Value, "unit": machineUnit(l.Name), "op": l.Op, "origin": l.Origin})
		}
	}
	return rows
}

func skippedFor(res acceptance.Result) string {
	if res.SkippedFor == "" {
		return ""
	}
	return "skipped for " + string(res.SkippedFor)
}

// machineUnit is the unit of a value as it stands in a record: a ratio is not
// yet per cent.
func machineUnit(name string) string {
	switch u := render.Unit(name); u {
	case "%":
		return "ratio"
	case "°C":
		return "Cel"
	case "B":
		return "bytes"
	default:
		return u
	}
}

// finite reports whether v can be written in JSON.
func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
