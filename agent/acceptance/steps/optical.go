package steps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// OpticsReader is one source of optical readings. If it also has a method
// ReadOpticsFresh of the same kind, that one is used.
type OpticsReader interface {
	Name() string
	ReadOptics(ctx context.Context) (optics.Reading, error)
}

// OpticalOptions configure the optical rung.
type OpticalOptions struct {
	// Readers, most trusted first. The first that gives a clear answer decides;
	// the others are compared with it.
	Readers    []OpticsReader
	Thresholds acceptance.Thresholds // Norms if zero
	Reads      int                   // of every source; 3 if zero
	Pause      time.Duration         // between reads; 1 s if zero
	Deadline   time.Duration         // 20 s if zero
}

// Optical judges the received optical power (光衰).
type Optical struct{ o OpticalOptions }

var _ acceptance.Step = (*Optical)(nil)

// NewOptical returns the optical rung.
func NewOptical(o OpticalOptions) *Optical {
	o.Thresholds = orNorms(o.Thresholds)
	o.Reads = orDefault(o.Reads, 3)
	o.Pause = orDefault(o.Pause, time.Second)
	o.Deadline = orDefault(o.Deadline, 20*time.Second)
	return &Optical{o: o}
}

// Rung implements acceptance.Step.
func (*Optical) Rung() acceptance.Rung { return acceptance.Optical }

// Needs implements acceptance.Step.
func (*Optical) Needs() []acceptance.Rung { return nil }

// Deadline implements acceptance.Step.
func (s *Optical) Deadline() time.Duration { return s.o.Deadline }

// Estimate implements acceptance.Estimator.
func (s *Optical) Estimate() time.Duration {
	return time.Duration(s.o.Reads) * (s.o.Pause + 500*time.Millisecond)
}

// Run reads every source several times and judges the median of the most
// trusted one that gives a clear answer.
//
// Light outside the limits fails, and what is above can still be measured. No
// light at all fails and blocks. Sources that contradict each other by more
// than optical.source_spread_max_db, or a source that cannot be read or
// believed, make the rung inconclusive.
func (s *Optical) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{Conditions: map[string]string{
		"reads":       strconv.Itoa(s.o.Reads),
		"accuracy_db": "+-3 (SFF-8472); typical receivers are better",
	}}
	all := s.sample(ctx, note)
	if ctx.Err() != nil {
		for _, sr := range all {
			sr.measurements(&out)
		}
		stopped(ctx, &out)
		return out
	}

	var judged []*series
	for _, sr := range all {
		if !sr.absent {
			sr.judge(s.o.Reads)
			judged = append(judged, sr)
		}
	}
	if len(judged) == 0 {
		decide(&out, acceptance.Inconclusive, "no source of optical readings here", diagnosis.OpticalUnreadable)
		return out
	}
	chosen := judged[0]
	for _, sr := range judged {
		if sr.kind.clear() {
			chosen = sr
			break
		}
	}
	chosen.headline(&out)
	s.moduleLimits(&out, judged)
	for _, sr := range judged {
		if sr != chosen {
			sr.beside(&out)
		}
		sr.measurements(&out)
	}
	s.verdict(&out, chosen, judged)
	return out
}

func (s *Optical) verdict(out *acceptance.Outcome, chosen *series, judged []*series) {
	t := s.o.Thresholds
	rxMin, rxMax, spread := t.Limit(acceptance.OpticalRxMinDBm), t.Limit(acceptance.OpticalRxMaxDBm), t.Limit(acceptance.OpticalSpreadMaxDB)
	out.Limits = append([]acceptance.Limit{rxMin, rxMax}, out.Limits...)

	if !chosen.kind.clear() {
		decide(out, acceptance.Inconclusive, chosen.why, chosen.code())
		return
	}
	for _, sr := range judged {
		if sr == chosen || !sr.kind.clear() {
			continue
		}
		if apart := chosen.apart(sr); apart != "" || chosen.kind == lit && !spread.Holds(distance(chosen.rx, sr.rx)) {
			out.Limits = append(out.Limits, spread)
			if apart == "" {
				apart = fmt.Sprintf("%s reads %.2f dBm, %s %.2f dBm", chosen.source, chosen.rx, sr.source, sr.rx)
			}
			decide(out, acceptance.Inconclusive, "the sources contradict each other: "+apart, diagnosis.OpticalSourcesDisagree)
			return
		}
	}
	if chosen.kind == dark {
		decide(out, acceptance.Fail, "the receiver sees no light", diagnosis.OpticalNoLight)
		return
	}
	if chosen.spread > spread.Value {
		warn(out, diagnosis.OpticalUnsteady)
	}
	if slices.ContainsFunc(judged, (*series).ageing) {
		warn(out, diagnosis.OpticalLaserAgeing)
	}
	margin := chosen.rx - rxMin.Value
	measured(out, "margin_db", margin, chosen.source, "received power above the lower limit")
	switch {
	case !rxMin.Holds(chosen.rx):
		out.Passable = true
		decide(out, acceptance.Fail, fmt.Sprintf("received power %.2f dBm is not %s %g dBm", chosen.rx, rxMin.Op, rxMin.Value), diagnosis.OpticalRxTooWeak)
	case !rxMax.Holds(chosen.rx):
		out.Passable = true
		decide(out, acceptance.Fail, fmt.Sprintf("received power %.2f dBm is not %s %g dBm", chosen.rx, rxMax.Op, rxMax.Value), diagnosis.OpticalRxOverload)
	default:
		decide(out, acceptance.Pass, "")
		if narrow := t.Limit(acceptance.OpticalMarginWarnDB); !narrow.Holds(margin) {
			out.Limits = append(out.Limits, narrow)
			warn(out, diagnosis.OpticalRxWeakMargin)
		}
		for _, l := range out.Limits {
			if l.Origin != acceptance.OriginModule || l.Holds(chosen.rx) {
				continue
			}
			if l.Op == ">=" {
				warn(out, diagnosis.OpticalRxWeakMargin)
			} else {
				warn(out, diagnosis.OpticalRxNearOverload)
			}
		}
	}
}

// The names of the limits that a module brings along.
const (
	moduleRxAlarmLow  = "optical.module_rx_alarm_low_dbm"
	moduleRxWarnLow   = "optical.module_rx_warn_low_dbm"
	moduleRxWarnHigh  = "optical.module_rx_warn_high_dbm"
	moduleRxAlarmHigh = "optical.module_rx_alarm_high_dbm"
)

// moduleLimits shows the module's own thresholds of received power, of the
// first source that knows them. They only warn.
func (*Optical) moduleLimits(out *acceptance.Outcome, judged []*series) {
	for _, sr := range judged {
		for _, r := range slices.Backward(sr.readings) {
			t := r.Thresholds
			if t == nil {
				continue
			}
			add := func(name string, l optics.Limit, op string) {
				if l.Known {
					out.Limits = append(out.Limits, acceptance.Limit{Name: name, Value: l.Value, Op: op, Origin: acceptance.OriginModule})
				}
			}
			add(moduleRxAlarmLow, t.RxPower.AlarmLow, ">=")
			add(moduleRxWarnLow, t.RxPower.WarnLow, ">=")
			add(moduleRxWarnHigh, t.RxPower.WarnHigh, "<=")
			add(moduleRxAlarmHigh, t.RxPower.AlarmHigh, "<=")
			return
		}
	}
}

// sample reads every source Reads times, the sources side by side.
func (s *Optical) sample(ctx context.Context, note func(string)) []*series {
	// What one source does not say in time must not cost the others' answers.
	ctx, cancel := context.WithTimeout(ctx, s.o.Deadline*4/5)
	defer cancel()
	all := make([]*series, len(s.o.Readers))
	var wg sync.WaitGroup
	for i, reader := range s.o.Readers {
		sr := &series{source: reader.Name()}
		all[i] = sr
		wg.Go(func() { sr.read(ctx, reader, s.o, note) })
	}
	wg.Wait()
	return all
}

// series is what one source said, several times.
type series struct {
	source   string
	readings []optics.Reading
	at       []time.Duration // when each was read, since the first was begun
	absent   bool            // there is nothing to read here
	lastErr  error

	kind   kind
	rx     float64 // the median; meaningful if lit
	raw    string  // as the source gave the median
	spread float64 // largest less smallest value, dB
	why    string  // not clear: why not
	broken bool    // not clear: the source answers, but wrongly
	mixed  bool    // not clear: now light, now none
}

// kind is what a series says about the light.
type kind int

const (
	unclear kind = iota
	lit
	dark
)

func (k kind) clear() bool { return k != unclear }

// fresh is how a source is read that may serve what it remembers.
func fresh(reader OpticsReader) func(ctx context.Context) (optics.Reading, error) {
	if f, ok := reader.(interface {
		ReadOpticsFresh(ctx context.Context) (optics.Reading, error)
	}); ok {
		return f.ReadOpticsFresh
	}
	return reader.ReadOptics
}

func (sr *series) read(ctx context.Context, reader OpticsReader, o OpticalOptions, note func(string)) {
	defer func() {
		if p := recover(); p != nil { // of this goroutine; the runner guards only its own
			sr.lastErr = fmt.Errorf("the source panicked: %v", p)
		}
	}()
	read := fresh(reader)
	began := time.Now()
	for i := range o.Reads {
		if i > 0 && pause(ctx, o.Pause) != nil {
			return
		}
		r, err := read(ctx)
		switch {
		case errors.Is(err, collectors.ErrNoData):
			sr.absent = len(sr.readings) == 0
			return
		case err != nil:
			sr.lastErr = err
			note(fmt.Sprintf("%s: %v", sr.source, err))
			if r.RxPower.Status == "" {
				r.RxPower.Status = collectors.StatusError
			}
		}
		note(fmt.Sprintf("%s: rx %s %q", sr.source, r.RxPower.Status, r.RxPower.Raw))
		sr.readings, sr.at = append(sr.readings, r), append(sr.at, time.Since(began))
	}
}

// judge finds what most of the reads say. Reads that were not made count
// against every answer.
func (sr *series) judge(reads int) {
	var values []float64
	var nDark, nUntrusted int
	for _, r := range sr.readings {
		switch r.RxPower.Status {
		case collectors.StatusOK:
			values = append(values, r.RxPower.Value)
		case collectors.StatusNoLight:
			nDark++
		case collectors.StatusUntrusted:
			nUntrusted++
		case collectors.StatusUnsupported, collectors.StatusError:
		}
	}
	most := reads/2 + 1
	switch {
	case len(values) >= most:
		sr.kind, sr.rx = lit, median(values)
		lo, hi := values[0], values[0]
		for _, v := range values {
			lo, hi = min(lo, v), max(hi, v)
		}
		sr.spread = hi - lo
		for _, r := range sr.readings {
			if r.RxPower.OK() && r.RxPower.Value == sr.rx {
				sr.raw = r.RxPower.Raw
				break
			}
		}
	case nDark >= most:
		sr.kind = dark
	case len(values) > 0 && nDark > 0 && len(values)+nDark >= most:
		sr.mixed, sr.why = true, fmt.Sprintf("%s reads light and no light in turns", sr.source)
	case nUntrusted > 0:
		sr.broken, sr.why = true, fmt.Sprintf("%s answers, but not plausibly", sr.source)
	case sr.lastErr != nil:
		sr.why = fmt.Sprintf("%s cannot be read: %v", sr.source, sr.lastErr)
	default:
		sr.why = fmt.Sprintf("%s does not tell the received power", sr.source)
	}
}

func (sr *series) code() diagnosis.Code {
	switch {
	case sr.mixed:
		return diagnosis.OpticalUnsteady
	case sr.broken:
		return diagnosis.OpticalReadBroken
	}
	return diagnosis.OpticalUnreadable
}

// ageing reports whether the laser takes more current than the transceiver
// itself allows, and gives light still.
func (sr *series) ageing() bool {
	if len(sr.readings) == 0 {
		return false
	}
	r := sr.readings[len(sr.readings)-1]
	const high = "bias_high"
	return r.TxPower.OK() && (r.AlarmsKnown && slices.Contains(r.Alarms, high) || r.WarningsKnown && slices.Contains(r.Warnings, high))
}

// apart says how two clear series contradict each other in kind, or "".
func (sr *series) apart(other *series) string {
	if sr.kind == other.kind {
		return ""
	}
	light, none := sr, other
	if sr.kind == dark {
		light, none = other, sr
	}
	return fmt.Sprintf("%s reads %.2f dBm, %s no light", light.source, light.rx, none.source)
}

func distance(a, b float64) float64 { return max(a, b) - min(a, b) }

// headline puts the chosen series' answer first.
func (sr *series) headline(out *acceptance.Outcome) {
	put(out, sr.answer("rx_power_dbm"))
	if len(sr.readings) == 0 {
		return
	}
	last := sr.readings[len(sr.readings)-1]
	out.Measurements = append(out.Measurements,
		reading("tx_power_dbm", last.TxPower, ""),
		reading("bias_ma", last.Bias, ""),
		reading("module_temperature_celsius", last.Temperature, ""),
		reading("supply_voltage_v", last.Voltage, ""))
}

// beside shows the answer of a source that did not decide.
func (sr *series) beside(out *acceptance.Outcome) {
	put(out, sr.answer("rx_power_other_dbm"))
}

func (sr *series) answer(name string) acceptance.Measurement {
	switch {
	case sr.kind == lit:
		m := value(name, sr.rx, sr.source, fmt.Sprintf("median of %d reads", len(sr.readings)))
		m.Raw = sr.raw
		return m
	case sr.kind == dark:
		return missing(name, collectors.StatusNoLight, sr.source, "")
	case sr.broken:
		return missing(name, collectors.StatusUntrusted, sr.source, sr.why)
	}
	return missing(name, collectors.StatusError, sr.source, sr.why)
}

// measurements keeps every single read.
func (sr *series) measurements(out *acceptance.Outcome) {
	for i, r := range sr.readings {
		m := reading("rx_power_sample_dbm", r.RxPower, fmt.Sprintf("read %d, after %.2f s", i+1, sr.at[i].Seconds()))
		if m.Source == "" {
			m.Source = sr.source
		}
		put(out, m)
	}
}
