package agent

import (
	"context"
	"fmt"
	"math"
	"slices"
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
		var err error
		e, r, err = i.climb(ctx, visit, tell)
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
func (i *Inspector) Look(ctx context.Context) (inspect.Entry, Result, error) {
	visit := Visit{Order: order.Order{Type: order.Inspect}}
	if i.Visits.Records != nil {
		visit.Line = i.Visits.Records.Line()
	}
	return i.climb(ctx, visit, func(job.Progress) {})
}

func (i *Inspector) climb(ctx context.Context, visit Visit, tell func(job.Progress)) (inspect.Entry, Result, error) {
	began := i.Visits.Now()
	r, err := i.Visits.Climb(ctx, visit, tell)
	if err != nil {
		return inspect.Entry{}, Result{}, err
	}
	limits, err := i.Visits.Limits.With(acceptance.OriginOrder, visit.Order.Thresholds)
	if err != nil {
		return inspect.Entry{}, Result{}, fmt.Errorf("cannot use the order's thresholds: %w", err)
	}
	down, up := contracted(visit.Order)
	if down == 0 && up == 0 && i.Contract != nil {
		down, up = i.Contract()
	}
	c := comparison{report: &r.Report, limits: limits, line: visit.Line, use: i.Use(), downMbps: down, upMbps: up}
	c.compare()
	r.Report.Verdict = acceptance.Overall(r.Report.Results)
	r.Diagnosis = diagnosis.Diagnose(r.Report.Evidence())

	e := inspect.Entry{Verdict: string(r.Report.Verdict), Compared: c.out, DurationS: float64(i.Visits.Now().Sub(began).Milliseconds()) / 1000}
	out := r.outcome()
	e.FirstCause = out.FirstCause
	for _, s := range out.Summary {
		e.Rungs = append(e.Rungs, inspect.Rung{Rung: s.Rung, Verdict: s.Verdict, Cause: s.Cause})
	}
	return e, r, nil
}

// contracted returns the highest ordered rates.
func contracted(o order.Order) (down, up float64) {
	for _, s := range o.Services {
		down, up = max(down, s.DownMbps), max(up, s.UpMbps)
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
	use              inspect.Use
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
		if now, ok := c.read(acceptance.Host, q.name); ok {
			c.against(inspect.Compared{Name: q.name, Now: &now}, q.limit)
		}
	}
	host := c.rung(acceptance.Host)
	if host == nil || host.Verdict == acceptance.Skipped {
		return
	}
	over := c.use.Over.Round(time.Minute).String()
	// What the mean of an hour says beside a reading of this second: it is told,
	// and decides nothing.
	for _, q := range [...]struct {
		name, limit string
		peak        inspect.Peak
	}{
		{"cpu_busy_hour_ratio", acceptance.CPUMax, c.use.CPU},
		{"memory_used_hour_ratio", acceptance.MemoryMax, c.use.Memory},
	} {
		if q.peak.Known {
			now := sixth(q.peak.Value)
			c.against(inspect.Compared{Name: q.name, Now: &now, Source: "busiest hour of " + over}, q.limit)
			c.measured(host, q.name, now, "telemetry", "busiest hour of "+over)
		}
	}
	full := c.utilised(host, "utilisation_down_ratio", c.use.Down, c.downMbps, over)
	if c.utilised(host, "utilisation_up_ratio", c.use.Up, c.upMbps, over) || full {
		host.Verdict = acceptance.Fail
		host.Causes = append(host.Causes, string(diagnosis.HostTraffic))
		host.Reason = strings.TrimPrefix(host.Reason+"; the line is nearly full", "; ")
	}
}

// light compares the optical rung with the baseline.
func (c *comparison) light() {
	optical := c.rung(acceptance.Optical)
	for _, name := range [...]string{"rx_power_dbm", "tx_power_dbm", "bias_ma", "module_temperature_celsius"} {
		x := inspect.Compared{Name: name}
		now, known := c.read(acceptance.Optical, name)
		if known {
			x.Now = &now
		}
		var base float64
		var has bool
		if c.line != nil {
			if base, has = c.line.Readings[name]; has {
				x.Baseline, x.Source = &base, "record:"+strconv.FormatUint(c.line.N, 10)
			}
		}
		if b := c.use.RxBaselineDBm; !has && name == "rx_power_dbm" && b != nil {
			base, has = *b, true
			x.Baseline, x.Source = &base, "telemetry"
		}
		if !known && !has {
			continue
		}
		ok, judged := true, false
		if known && has {
			judged = name != "module_temperature_celsius"
			switch name {
			case "bias_ma":
				ok = base <= 0 || now < ageingBias*base
				judged = base > 0
			case "rx_power_dbm", "tx_power_dbm":
				ok = now > base-fallDB
			}
		}
		if known && name == "rx_power_dbm" {
			limit, most := c.limits.Limit(acceptance.OpticalRxMinDBm), c.limits.Limit(acceptance.OpticalRxMaxDBm)
			x.Limit, x.Op = &limit.Value, limit.Op
			ok, judged = ok && limit.Holds(now) && most.Holds(now), true
		}
		if judged {
			x.OK = &ok
		}
		c.out = append(c.out, x)
		if known && has && optical != nil {
			// The diagnosis knows what a fall from it means.
			if name = baselineName(name); !c.has(optical, name) {
				c.measured(optical, name, base, x.Source, "")
			}
		}
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
		v := sixth(peak.Value / (rate * 1e6))
		ok := limit.Holds(v)
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
func (c *comparison) against(x inspect.Compared, name string) {
	limit := c.limits.Limit(name)
	ok := limit.Holds(*x.Now)
	x.Limit, x.Op, x.OK = &limit.Value, limit.Op, &ok
	c.out = append(c.out, x)
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
	return slices.ContainsFunc(r.Measurements, func(m acceptance.Measurement) bool { return m.Name == name })
}

// read returns a number that a rung measured.
func (c *comparison) read(rung acceptance.Rung, name string) (float64, bool) {
	r := c.rung(rung)
	if r == nil {
		return 0, false
	}
	for _, m := range r.Measurements {
		if v, ok := m.Value.(float64); ok && m.Name == name && m.Status == "ok" {
			return v, true
		}
	}
	return 0, false
}

func (c *comparison) measured(r *acceptance.Result, name string, v float64, source, note string) {
	r.Measurements = append(r.Measurements, acceptance.Measurement{Name: name, Value: v, Status: "ok", Source: source, Note: note})
}

// sixth rounds to six decimals: what is below is noise.
func sixth(v float64) float64 { return math.Round(v*1e6) / 1e6 }
