package agent

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/transport/durable"
)

// OpenVisit keeps on flash the visit that is under way: what its record will be
// made of. A daemon that is killed, or a gateway that loses power, finds it at
// the next start, and closes the record of what was found until then.
//
// The file grows by one line for the plan, which comes before anything is
// measured, and one for each rung. Secrets are in it only as they are sealed
// into the order.
type OpenVisit struct {
	FS   durable.FS
	Path string
}

// maxOpenVisit bounds the file, in bytes. Rungs that find no room in it are
// missing from the record of a visit that is cut short.
const maxOpenVisit = 256 << 10

// openLine is a line of the file: a plan, or a result.
type openLine struct {
	V      int                `json:"v,omitempty"`
	Record *record.Record     `json:"record,omitempty"`
	Limits []acceptance.Limit `json:"limits,omitempty"`
	Plan   []plannedRung      `json:"plan,omitempty"`

	Result *acceptance.Result `json:"result,omitempty"`
}

type plannedRung struct {
	Rung     acceptance.Rung `json:"rung"`
	Required bool            `json:"required,omitempty"`
}

// journal writes an OpenVisit. A nil *journal keeps nothing. What flash does not
// take is logged, and costs no visit: the record itself makes room for itself.
type journal struct {
	open   *OpenVisit
	record record.Record
	log    *slog.Logger
	file   *durable.Log // nil: not begun, or broken
}

// journal returns the journal of a visit whose record begins as r. What an
// earlier visit left, because its record could not be closed, comes first.
func (v *Visits) journal(r record.Record) *journal {
	if v.Open == nil {
		return nil
	}
	if c, ok := v.Recover(); ok {
		v.Filed(c.Order, c.Record)
	}
	return &journal{open: v.Open, record: r, log: v.Log}
}

// begin keeps the plan. A second plan of the same visit replaces the first.
func (j *journal) begin(plan acceptance.Plan, limits acceptance.Thresholds) {
	if j == nil {
		return
	}
	line := openLine{V: 1, Record: &j.record, Limits: limits.All()}
	required := plan.Required()
	for _, rung := range plan.Rungs() {
		must := len(required) > 0 && required[0] == rung // both are in climbing order
		if must {
			required = required[1:]
		}
		line.Plan = append(line.Plan, plannedRung{rung, must})
	}
	if j.file == nil {
		file, err := durable.OpenLog(j.open.FS, "visit.open", j.open.Path, 0o600)
		if err == nil && file.Size() > 0 {
			err = errors.Join(errors.New("an earlier visit is in the way"), file.Close())
		}
		if err != nil {
			j.log.Warn("cannot keep the visit: it leaves no record if it is cut short", "job", j.record.Job, "error", err)
			return
		}
		j.file = file
	}
	j.append(line)
}

// add keeps a result.
func (j *journal) add(res acceptance.Result) {
	if j != nil && j.file != nil {
		j.append(openLine{Result: &res})
	}
}

func (j *journal) append(line openLine) {
	data, err := json.Marshal(line)
	switch {
	case err != nil:
	case j.file.Size()+int64(len(data)) >= maxOpenVisit:
		err = order.ErrTooLarge
	default:
		err = j.file.Append(append(data, '\n'))
	}
	if err == nil || errors.Is(err, durable.ErrBroken) { // that was told
		return
	}
	j.log.Warn("cannot keep what was found so far", "job", j.record.Job, "error", err)
}

// end forgets the visit: its record is closed, or will never be.
func (j *journal) end() {
	if j == nil || j.file == nil {
		return
	}
	err := errors.Join(j.file.Close(), j.open.forget())
	if err != nil {
		j.log.Warn("cannot forget the visit that is over", "job", j.record.Job, "error", err)
	}
}

func (o *OpenVisit) forget() error { return durable.Remove(o.FS, "visit.end", o.Path) }

// load reads what was kept; fs.ErrNotExist: nothing is open. errNotBegun: the
// ladder had not begun.
func (o *OpenVisit) load() (head openLine, results []acceptance.Result, err error) {
	data, err := durable.ReadFile(o.FS, "visit.read", o.Path, maxOpenVisit)
	if err != nil {
		return openLine{}, nil, err
	}
	for {
		text, rest, whole := bytes.Cut(data, []byte("\n"))
		var line openLine
		// A power cut leaves a part of the last line, or zeros.
		if !whole || json.Unmarshal(text, &line) != nil {
			break
		}
		switch {
		case line.Record != nil:
			head, results = line, nil
		case line.Result != nil:
			results = append(results, *line.Result)
		}
		data = rest
	}
	if head.Record == nil || head.V != 1 {
		return openLine{}, nil, errNotBegun
	}
	return head, results, nil
}

var errNotBegun = errors.New("the ladder had not begun")

// Closed is a record that Recover closed.
type Closed struct {
	Job, Order string
	Record     order.Envelope
}

// Recover closes the record of a visit that was cut short by a kill or a power
// cut, if there is one that has none: with what had been found, and the rest
// inconclusive. Whoever calls it files the record. No visit may be under way.
//
// A record that cannot be closed because flash takes no writes is closed by a
// later call.
func (v *Visits) Recover() (Closed, bool) {
	if v.Open == nil || v.Records == nil {
		return Closed{}, false
	}
	head, results, err := v.Open.load()
	if errors.Is(err, fs.ErrNotExist) {
		return Closed{}, false
	}
	var c Closed
	if err == nil {
		c, err = v.recover(head, results)
	}
	if err != nil {
		v.Log.Warn("a visit that was cut short leaves no record", "job", c.Job, "error", err)
	}
	if lasting(err) {
		if err := v.Open.forget(); err != nil {
			v.Log.Warn("cannot forget the visit that was cut short", "job", c.Job, "error", err)
		}
	}
	return c, err == nil && c.Record.Payload != ""
}

// lasting reports whether trying again comes to the same.
func lasting(err error) bool {
	return err == nil || errors.Is(err, errNotBegun) || errors.Is(err, order.ErrTooLarge) || errors.Is(err, durable.ErrTooLarge)
}

func (v *Visits) recover(head openLine, results []acceptance.Result) (Closed, error) {
	r := *head.Record
	c := Closed{Job: r.Job}
	if _, err := v.Records.Find(r.Job); err == nil {
		return c, nil // it was closed
	} else if !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	o, t, err := peek(r)
	if err != nil {
		return c, fmt.Errorf("%w: %w", errNotBegun, err)
	}
	c.Order = o.Order
	r.Agent = v.Frame.Agent // of whoever closes it
	report := interrupted(head.Plan, results)
	c.Record, err = v.close(r, o, t, Result{
		Report: report, Diagnosis: diagnosis.Diagnose(report.Evidence()), limits: head.Limits,
	})
	return c, err
}

// interrupted is the report of a ladder that was cut short without a word.
func interrupted(plan []plannedRung, results []acceptance.Result) acceptance.Report {
	report := acceptance.Report{Interrupted: true}
	for i, p := range plan {
		if i < len(results) && results[i].Rung == p.Rung {
			report.Results = append(report.Results, results[i])
			report.DurationS = results[i].StartS + results[i].DurationS
			continue
		}
		results = results[:min(i, len(results))] // what does not follow the plan is not believed
		report.Results = append(report.Results, acceptance.Result{
			Rung: p.Rung, Required: p.Required, Verdict: acceptance.Inconclusive, StartS: report.DurationS,
			Reason: "not measured to its end: the gateway stopped or lost power",
			Causes: []string{string(diagnosis.AgentInterrupted)},
		})
	}
	report.Verdict = acceptance.Overall(report.Results)
	return report
}

// peek reads the order and the type of the command of a record that this
// gateway began: both were verified then.
func peek(r record.Record) (o order.Order, t order.CommandType, err error) {
	var c order.Command
	for _, d := range []struct {
		env order.Envelope
		doc any
	}{{r.Order, &o}, {r.Command, &c}} {
		payload, err := base64.StdEncoding.DecodeString(d.env.Payload)
		if err == nil {
			err = json.Unmarshal(payload, d.doc)
		}
		if err != nil {
			return order.Order{}, "", err
		}
	}
	return o, c.Type, nil
}
