package agent

import (
	"encoding/json"
	"errors"
	"fmt"

	"ontagent/agent/acceptance"
	"ontagent/agent/order"
	"ontagent/agent/record"
)

// frame is the record of a granted command, as far as it is known beforehand.
func (v *Visits) frame(g order.Grant, statement order.Envelope) record.Record {
	r := v.Frame
	r.Job, r.Technician = g.Command.ID, g.Technician.ID
	r.Trust, r.Statement, r.Order, r.Command = g.Trust, statement, *g.Request.Order, *g.Request.Command
	if g.ClockProof == "signed_time" {
		r.SignedTime = g.Request.Time
	}
	r.Extract = g.Request.Extract
	return r
}

// beginsLine reports whether an order makes the line another one: what it was
// like before is no measure of it.
func beginsLine(o order.Order) bool { return o.Type == order.Install || o.Type == order.Move }

// renewsLine reports whether a record is the line's health record from now on:
// it passed, and its technician was there to put the line in order, or there is
// none yet.
func renewsLine(r record.Record, o order.Order, t order.CommandType) bool {
	if r.Verdict != string(acceptance.Pass) || len(r.Baseline) == 0 {
		return false
	}
	return r.Line == nil || t == order.Accept && o.Type == order.Repair
}

// close completes the record and closes it. One that is too large leaves out
// evidence, the least telling first, and says so.
func (v *Visits) close(r record.Record, o order.Order, t order.CommandType, result Result) (order.Envelope, error) {
	r.Time = v.Moment()
	r.Verdict = string(result.Report.Verdict)
	r.Baseline = baseline(result.Report)
	r.Renews = renewsLine(r, o, t)
	r.Work = result.Work
	var err error
	if r.Diagnosis, err = json.Marshal(result.Diagnosis); err != nil {
		return order.Envelope{}, fmt.Errorf("cannot encode diagnosis: %w", err)
	}
	if len(result.limits) > 0 {
		if r.Limits, err = json.Marshal(result.limits); err != nil {
			return order.Envelope{}, fmt.Errorf("cannot encode limits: %w", err)
		}
	}
	for _, reduce := range reductions() {
		if reduce != nil {
			v.Log.Warn("record is too large, leaving evidence out", "job", r.Job)
			for i := range result.Report.Results {
				reduce(&result.Report.Results[i])
			}
		}
		if atLeast(result.Report) > record.MaxSize {
			continue // to encode it would take a slow processor minutes
		}
		if r.Ladder, err = json.Marshal(result.Report); err != nil {
			return order.Envelope{}, fmt.Errorf("cannot encode ladder: %w", err)
		}
		env, _, err := v.Records.Close(r)
		if !errors.Is(err, order.ErrTooLarge) {
			return env, err
		}
	}
	return order.Envelope{}, fmt.Errorf("cannot close record of job %s: %w", r.Job, order.ErrTooLarge)
}

// atLeast is what a report takes in a record at least, in bytes.
func atLeast(report acceptance.Report) (n int) {
	for _, r := range report.Results {
		n += len(r.Reason)
		for _, line := range r.Log {
			n += len(line)
		}
		for k, v := range r.Conditions {
			n += len(k) + len(v)
		}
		for _, m := range r.Measurements {
			n += len(m.Name) + len(m.Raw) + len(m.Note)
			if s, ok := m.Value.(string); ok {
				n += len(s)
			}
		}
	}
	return n
}

// reductions are what is left out of a record that is too large, one after the
// other until it fits. docs/records.md tells it to readers.
func reductions() []func(*acceptance.Result) {
	return []func(*acceptance.Result){nil, dropLog, dropMinorRaw, dropRaw, dropMost}
}

const leftOut = "left out: the record would have been too large"

func dropLog(r *acceptance.Result) {
	if len(r.Log) > 0 {
		r.Log = []string{"log " + leftOut}
	}
}

// dropMinorRaw keeps what plots are made of, and the raw values of the light.
func dropMinorRaw(r *acceptance.Result) {
	if r.Rung != acceptance.Optical && r.Rung != acceptance.Throughput {
		dropRaw(r)
	}
}

func dropRaw(r *acceptance.Result) {
	for i := range r.Measurements {
		r.Measurements[i].Raw = ""
	}
}

// dropMost leaves the verdicts and what decided them: a gateway whose sources
// are made to talk without end still has to close a record.
func dropMost(r *acceptance.Result) {
	const keep = 8
	r.Log = []string{"most of the evidence " + leftOut}
	r.Conditions = nil
	r.Measurements = r.Measurements[:min(len(r.Measurements), keep)]
	for i := range r.Measurements {
		m := &r.Measurements[i]
		m.Note = ""
		if s, ok := m.Value.(string); ok && len(s) > 64 {
			m.Value, m.Note = nil, leftOut
		}
	}
	r.Limits = r.Limits[:min(len(r.Limits), keep)]
}

// baseline takes from a report what later readings of the line are compared
// with: measured numbers of the optical rung.
func baseline(report acceptance.Report) map[string]float64 {
	res, ok := report.Result(acceptance.Optical)
	if !ok {
		return nil
	}
	base := map[string]float64{}
	for _, m := range res.Measurements {
		if v, ok := m.Value.(float64); ok && m.Status == "ok" {
			switch m.Name {
			case "rx_power_dbm", "tx_power_dbm", "bias_ma", "module_temperature_celsius", "supply_voltage_v":
				base[m.Name] = v
			}
		}
	}
	return base
}
