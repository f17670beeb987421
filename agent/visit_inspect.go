package agent

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/inspect"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/record"
)

// Inspector inspects lines (巡检): it climbs the ladder of an inspection and
// compares what it read with what the line was like when it was accepted, and
// with the limits of the field norms for what is in operation.
type Inspector struct {
	Visits *Visits
	// Use returns how much was used since the last inspection.
	Use func() inspect.Use
	// Contract returns the rates that the line was ordered with, in Mbit/s, for
	// where the order of the inspection names none; 0: not known.
	Contract func() (down, up float64)
	// Ended is told of each inspection under a command that came to its end; nil:
	// nobody cares.
	Ended func(inspect.Entry, Result)
}

// Inspect is the job.Handler of inspect: the ladder, the comparison as a part of
// it, a signed record.
func (i *Inspector) Inspect(ctx context.Context, g order.Grant, tell func(job.Progress)) job.Outcome {
	var e inspect.Entry
	var r Result
	out := i.Visits.Recorded(ctx, g, tell, func(ctx context.Context, visit Visit, tell func(job.Progress)) (Result, error) {
		err := i.climb(ctx, &visit, tell, &r, &e)
		return r, err
	})
	if out.Err == nil && ctx.Err() == nil && i.Ended != nil {
		e.Job = g.Command.ID
		i.Ended(e, r)
	}
	return out
}

// Look inspects without an order and without a record: what reads, and disturbs
// nobody.
func (i *Inspector) Look(ctx context.Context) (e inspect.Entry, r Result, err error) {
	visit := &Visit{Order: order.Order{Type: order.Inspect}}
	if i.Visits.Records != nil {
		visit.Line = i.Visits.Records.Line()
	}
	err = i.climb(ctx, visit, func(job.Progress) {}, &r, &e)
	return e, r, err
}

func (i *Inspector) climb(ctx context.Context, visit *Visit, tell func(job.Progress), r *Result, e *inspect.Entry) error {
	began := i.Visits.Now()
	var err error
	if *r, err = i.Visits.Climb(ctx, *visit, tell); err != nil {
		return err
	}
	limits, err := i.Visits.Limits.With(acceptance.OriginOrder, visit.Order.Thresholds)
	if err != nil {
		return fmt.Errorf("cannot use the order's thresholds: %w", err)
	}
	use := i.Use()
	c := &comparison{report: &r.Report, limits: limits, line: visit.Line, use: &use}
	if c.downMbps, c.upMbps = contracted(visit.Order.Services); c.downMbps == 0 && c.upMbps == 0 && i.Contract != nil {
		c.downMbps, c.upMbps = i.Contract()
	}
	c.compare()
	r.Report.Verdict = acceptance.Overall(r.Report.Results)
	evidence := r.Report.Evidence()
	evidence.Recent = r.recent
	r.Diagnosis = diagnosis.Diagnose(evidence)

	e.Verdict, e.Compared = string(r.Report.Verdict), c.out
	e.DurationS = float64(i.Visits.Now().Sub(began).Milliseconds()) / 1000
	if first, ok := r.Diagnosis.First(); ok && first.Kind != diagnosis.KindWarning {
		e.FirstCause = string(first.Code)
	}
	for k := range r.Report.Results {
		res := &r.Report.Results[k]
		rung := inspect.Rung{Rung: string(res.Rung), Verdict: string(res.Verdict)}
		if len(res.Causes) > 0 {
			rung.Cause = res.Causes[0]
		}
		e.Rungs = append(e.Rungs, rung)
	}
	return nil
}

// contracted returns the highest ordered rates.
func contracted(services []order.Service) (down, up float64) {
	for i := range services {
		down, up = max(down, services[i].DownMbps), max(up, services[i].UpMbps)
	}
	return down, up
}

// Changes from the baseline that are not in order, where a limit says nothing.
const (
	fallDB     = 3.0 // of received or sent power: design, an event even when the level is fine
	ageingBias = 1.5 // of the laser's current: the usual end of its life
)

// comparison compares a climbed ladder with what the line was like, and adds
// what it finds to the rungs.
type comparison struct {
	report           *acceptance.Report
	limits           acceptance.Thresholds
	line             *record.Line
	use              *inspect.Use
	downMbps, upMbps float64
	out              []inspect.Compared
}

func (c *comparison) compare() {
	c.light()
	for _, q := range [...]struct{ name, limit string }{
		{"cpu_busy_ratio", acceptance.CPUMax},
		{"memory_used_ratio", acceptance.MemoryMax},
		{"temperature_celsius", acceptance.TemperatureMax},
	} {
		if now := c.read(acceptance.Host, q.name); now != nil {
			c.against(q.name, *now, "", q.limit)
		}
	}
	host := c.rung(acceptance.Host)
	if host == nil || host.Verdict == acceptance.Skipped {
		return
	}
	over := c.use.Over.Round(time.Minute).String()
	// What the mean of an hour says beside a reading of this second: it is told,
	// and decides nothing.
	c.peak(host, "cpu_busy_hour_ratio", c.use.CPU, acceptance.CPUMax, over)
	c.peak(host, "memory_used_hour_ratio", c.use.Memory, acceptance.MemoryMax, over)
	full := c.utilised(host, "utilisation_down_ratio", c.use.Down, c.downMbps, over)
	if c.utilised(host, "utilisation_up_ratio", c.use.Up, c.upMbps, over) || full {
		host.Verdict = acceptance.Fail
		host.Causes = append(host.Causes, string(diagnosis.HostTraffic))
		host.Reason = strings.TrimPrefix(host.Reason+"; the line is nearly full", "; ")
	}
}

func (c *comparison) peak(host *acceptance.Result, name string, p inspect.Peak, limit, over string) {
	if p.Known {
		over = "busiest hour of " + over
		c.against(name, p.Value, over, limit)
		c.measured(host, name, sixth(p.Value), "telemetry", over)
	}
}

// light compares the optical rung with the baseline.
func (c *comparison) light() {
	optical := c.rung(acceptance.Optical)
	for _, name := range [...]string{"rx_power_dbm", "tx_power_dbm", "bias_ma", "module_temperature_celsius"} {
		x := inspect.Compared{Name: name, Now: c.read(acceptance.Optical, name)}
		if c.line != nil {
			if base, has := c.line.Readings[name]; has {
				x.Baseline, x.Source = &base, "record:"+strconv.FormatUint(c.line.N, 10)
			}
		}
		rx := name == "rx_power_dbm"
		if rx && x.Baseline == nil && c.use.RxBaselineDBm != nil {
			x.Baseline, x.Source = c.use.RxBaselineDBm, "telemetry"
		}
		if x.Now == nil {
			if x.Baseline != nil {
				c.out = append(c.out, x)
			}
			continue
		}
		ok, judged := true, rx
		if x.Baseline != nil {
			switch name {
			case "bias_ma":
				judged = true
				ok = *x.Baseline <= 0 || *x.Now < ageingBias**x.Baseline
			case "rx_power_dbm", "tx_power_dbm":
				judged = true
				ok = *x.Now > *x.Baseline-fallDB
			}
			// The diagnosis knows what a fall from it means.
			if name = baselineName(name); !c.has(optical, name) {
				c.measured(optical, name, *x.Baseline, x.Source, "")
			}
		}
		if rx {
			limit, most := c.limits.Limit(acceptance.OpticalRxMinDBm), c.limits.Limit(acceptance.OpticalRxMaxDBm)
			x.Limit, x.Op = &limit.Value, limit.Op
			ok = ok && limit.Holds(*x.Now) && most.Holds(*x.Now)
		}
		if judged {
			x.OK = &ok
		}
		c.out = append(c.out, x)
	}
}

// baselineName is what a reading's baseline is measured as: rx_baseline_dbm.
func baselineName(reading string) string {
	i := strings.LastIndexByte(reading, '_')
	return strings.TrimSuffix(reading[:i], "_power") + "_baseline" + reading[i:]
}

// utilised judges how much of a direction was used in the busiest hour, and
// reports whether that was too much. What cannot be known is no fault: the
// comparison says why.
func (c *comparison) utilised(host *acceptance.Result, name string, peak inspect.Peak, mbps float64, over string) bool {
	limit := c.limits.Limit(acceptance.UtilisationMax)
	x := inspect.Compared{Name: name, Limit: &limit.Value, Op: limit.Op}
	rate, source := mbps, "contract"
	if rate <= 0 {
		rate, source = c.use.LinkMbps, "link speed"
	}
	switch {
	case !peak.Known:
		x.Source = "not one hour was watched"
	case rate <= 0:
		x.Source = "neither a contract nor the speed of the link is known"
	default:
		v := peak.Value / (rate * 1e6)
		ok := limit.Holds(v)
		v = sixth(v)
		x.Now, x.Source = &v, "busiest hour of "+over+", against the "+source
		// Counters that miss what hardware forwards show too little: what they
		// show may be too much, never little enough.
		if c.use.Blind {
			x.Source += "; hardware forwards what is not counted"
		}
		if !c.use.Blind || !ok {
			x.OK = &ok
		}
		c.measured(host, name, v, "telemetry", x.Source)
		c.out = append(c.out, x)
		host.Limits = append(host.Limits, limit)
		return !ok
	}
	c.out = append(c.out, x)
	return false
}

// against holds a figure against a limit.
func (c *comparison) against(figure string, now float64, source, name string) {
	limit := c.limits.Limit(name)
	ok := limit.Holds(now)
	now = sixth(now)
	c.out = append(c.out, inspect.Compared{Name: figure, Now: &now, Limit: &limit.Value, Op: limit.Op, OK: &ok, Source: source})
}

func (c *comparison) rung(name acceptance.Rung) *acceptance.Result {
	for i := range c.report.Results {
		if r := &c.report.Results[i]; r.Rung == name {
			return r
		}
	}
	return nil
}

func (c *comparison) has(r *acceptance.Result, name string) bool {
	for i := range r.Measurements {
		if r.Measurements[i].Name == name {
			return true
		}
	}
	return false
}

// read returns a number that a rung measured; nil: it did not.
func (c *comparison) read(rung acceptance.Rung, name string) *float64 {
	r := c.rung(rung)
	if r == nil {
		return nil
	}
	for i := range r.Measurements {
		m := &r.Measurements[i]
		if v, ok := m.Value.(float64); ok && m.Name == name && m.Status == "ok" {
			return &v
		}
	}
	return nil
}

func (c *comparison) measured(r *acceptance.Result, name string, v float64, source, note string) {
	r.Measurements = append(r.Measurements, acceptance.Measurement{Name: name, Value: v, Status: "ok", Source: source, Note: note})
}

// sixth rounds what is shown to six decimals. What is judged is not rounded.
func sixth(v float64) float64 { return math.Round(v*1e6) / 1e6 }
