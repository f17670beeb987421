package optics

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"ontagent/collectors"
)

// A Store keeps a line's baseline across restarts.
type Store interface {
	// Load returns what was saved last, nil if nothing was.
	Load() ([]byte, error)
	// Save replaces it, for good.
	Save(data []byte) error
}

// What a baseline is made of.
const (
	// A day ends after dayOpen, so that a gateway that restarts every night
	// gets on all the same; the next begins dayLength after its start. It is
	// also when the history is saved: once a day.
	dayOpen   = 20 * time.Hour
	dayLength = 24 * time.Hour

	firstDays  = 7  // the baseline is the median of so many good days
	usableDays = 3  // from so many on it is used
	keptDays   = 30 // of the days after
	recentDays = 7  // what drift is judged by
	ageingDays = 3  // what ageing is judged by
	changeDays = 3  // in a row by another source or transceiver: a new baseline

	// A day is good that has so many readings, light in so many of them, and a
	// level within the norm.
	leastReadings = 20
	litShare      = 0.9
)

// Changes that matter. They are below AccuracyDB, and can be: they compare
// medians of one module's own readings.
const (
	driftDB = 1.5 // of the recent days against the first
	// A laser that ages needs more current for the same power; this much more
	// is early, +50 % is the usual end of life. The power counts as unchanged up
	// to ageingTxDB, and laser currents of different heat are not comparable.
	ageingRatio   = 1.25
	ageingTxDB    = 0.5
	ageingCelsius = 10
)

// Words for trends.
const (
	steady  = "steady"
	falling = "falling"
	rising  = "rising"
	ageing  = "ageing"
	near    = "near"
	fallen  = "fallen"
	risen   = "risen"
)

// day is what is kept of a good day. What was not read is nil.
type day struct {
	Rx          float64  `json:"rx"` // median, dBm
	Tx          *float64 `json:"tx,omitempty"`
	Bias        *float64 `json:"bias,omitempty"`
	Temperature *float64 `json:"temp,omitempty"`
}

// history is a line's memory, as it is stored.
type history struct {
	Version int `json:"v"`
	// Key says what read the line: source and transceiver. Another one has
	// another error, and starts another baseline.
	Key   string `json:"key"`
	First []day  `json:"first"` // up to firstDays, the baseline
	Last  []day  `json:"last"`  // up to keptDays since
	// Trend and Laser are what was reported last.
	Trend string `json:"trend"`
	Laser string `json:"laser"`
	// Other is a key that days came with instead, OtherDays how many in a row.
	Other     string `json:"other,omitempty"`
	OtherDays int    `json:"other_days,omitempty"`
}

const historyVersion = 1

// maxHistory bounds a stored history, in bytes.
const maxHistory = 16 << 10

// parseHistory refuses whatever could not have been saved.
func parseHistory(data []byte) (history, error) {
	var h history
	if len(data) > maxHistory {
		return history{}, fmt.Errorf("cannot read optical history: %d bytes", len(data))
	}
	if err := json.Unmarshal(data, &h); err != nil {
		return history{}, fmt.Errorf("cannot read optical history: %w", err)
	}
	if h.Version != historyVersion || len(h.First) > firstDays || len(h.Last) > keptDays || len(h.Last) > 0 && len(h.First) < firstDays {
		return history{}, fmt.Errorf("cannot read optical history: version %d, %d and %d days", h.Version, len(h.First), len(h.Last))
	}
	if !slices.Contains([]string{steady, falling, rising}, h.Trend) || h.Laser != steady && h.Laser != ageing {
		return history{}, fmt.Errorf("cannot read optical history: trend %q, laser %q", h.Trend, h.Laser)
	}
	for _, d := range slices.Concat(h.First, h.Last) {
		if d.Rx < leastDBm || d.Rx > mostDBm {
			return history{}, fmt.Errorf("cannot read optical history: a day of %v dBm", d.Rx)
		}
	}
	return h, nil
}

// baseline is the received power the line began with; ok is false while too
// little is known.
func (h *history) baseline() (dBm float64, ok bool) {
	if len(h.First) < usableDays {
		return 0, false
	}
	return medianOf(h.First, func(d day) *float64 { return &d.Rx })
}

// medianOf is the median of what the days know; ok is false if they know
// nothing.
func medianOf(days []day, of func(day) *float64) (float64, bool) {
	var values []float64
	for _, d := range days {
		if v := of(d); v != nil {
			values = append(values, *v)
		}
	}
	if len(values) == 0 {
		return 0, false
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, true
}

// trend compares the recent days with the first, with hysteresis.
func (h *history) trend() (word string, driftedDB float64) {
	base, ok := h.baseline()
	if !ok || len(h.Last) < usableDays {
		return steady, 0
	}
	recent, _ := medianOf(h.Last[max(0, len(h.Last)-recentDays):], func(d day) *float64 { return &d.Rx })
	driftedDB = recent - base
	limit := driftDB
	if h.Trend != steady {
		limit -= hysteresisDB
	}
	switch {
	case driftedDB <= -limit:
		return falling, driftedDB
	case driftedDB >= limit:
		return rising, driftedDB
	}
	return steady, driftedDB
}

// laser says whether the laser needs more current than at first for the same
// power or less, at about the same temperature.
func (h *history) laser() (word string, ratio float64) {
	word = h.Laser // where nothing can be said nothing changes
	if len(h.Last) < ageingDays {
		return word, 0
	}
	last := h.Last[len(h.Last)-ageingDays:]
	bias := func(d day) *float64 { return d.Bias }
	tx := func(d day) *float64 { return d.Tx }
	temperature := func(d day) *float64 { return d.Temperature }
	biasThen, ok1 := medianOf(h.First, bias)
	biasNow, ok2 := medianOf(last, bias)
	txThen, ok3 := medianOf(h.First, tx)
	txNow, ok4 := medianOf(last, tx)
	if !ok1 || !ok2 || !ok3 || !ok4 || biasThen <= 0 {
		return word, 0
	}
	then, ok1 := medianOf(h.First, temperature)
	now, ok2 := medianOf(last, temperature)
	if ok1 && ok2 && math.Abs(now-then) > ageingCelsius {
		return word, 0
	}
	ratio = biasNow / biasThen
	limit := ageingRatio
	if h.Laser == ageing {
		limit -= 0.05
	}
	if ratio >= limit && txNow-txThen <= ageingTxDB {
		return ageing, ratio
	}
	return steady, ratio
}

// Range of the levels of a window: all that a count of 16 bits can be.
const (
	leastDBm = -40.0
	mostDBm  = 10.0
	perDB    = 10 // bins
)

// window gathers one day.
type window struct {
	began  time.Time // zero: no day has begun
	closed bool
	key    string
	told   int // readings that know light from darkness
	lit    int
	levels [(mostDBm-leastDBm)*perDB + 1]uint32

	tx, bias, temperature mean
}

type mean struct {
	sum float64
	n   int
}

func (m *mean) add(r collectors.Reading) {
	if r.OK() {
		m.sum += r.Value
		m.n++
	}
}

func (m *mean) value() *float64 {
	if m.n == 0 {
		return nil
	}
	v := m.sum / float64(m.n)
	return &v
}

func (w *window) add(r Reading) {
	switch r.RxPower.Status {
	case collectors.StatusOK:
		v := min(max(r.RxPower.Value, leastDBm), mostDBm)
		w.levels[int(math.Round((v-leastDBm)*perDB))]++
		w.lit++
	case collectors.StatusNoLight:
	case collectors.StatusError, collectors.StatusUnsupported, collectors.StatusUntrusted:
		return
	default:
		return
	}
	w.told++
	w.tx.add(r.TxPower)
	w.bias.add(r.Bias)
	w.temperature.add(r.Temperature)
}

// day is the window's day; ok is false if it was not good.
func (w *window) day(opts Options) (d day, ok bool) {
	if w.told < leastReadings || float64(w.lit) < litShare*float64(w.told) {
		return day{}, false
	}
	// The lower median: a reading that was made.
	rank, seen := (w.lit+1)/2, 0
	for i, n := range w.levels {
		if seen += int(n); seen >= rank {
			d.Rx = leastDBm + float64(i)/perDB
			break
		}
	}
	if d.Rx <= opts.RxMinDBm || d.Rx > opts.RxMaxDBm {
		return day{}, false
	}
	d.Tx, d.Bias, d.Temperature = w.tx.value(), w.bias.value(), w.temperature.value()
	return d, true
}

// memory learns a line's baseline and compares with it. The zero memory has
// learned nothing.
type memory struct {
	history history
	window  window
}

// lineKey names what read the line.
func lineKey(r Reading) string {
	key := r.RxPower.Source
	if r.Module != nil {
		key += " " + r.Module.String()
	}
	return key
}

// take takes one reading. At the end of a day it returns what changed, and
// save says that the history did.
func (m *memory) take(opts Options, now time.Time, r Reading) (events []collectors.Event, save bool) {
	w := &m.window
	if w.began.IsZero() || w.closed && now.Sub(w.began) >= dayLength {
		m.window = window{began: now}
	}
	told := r.RxPower.Status == collectors.StatusOK || r.RxPower.Status == collectors.StatusNoLight
	if !w.closed && told {
		if w.key == "" {
			w.key = lineKey(r)
		}
		if w.key == lineKey(r) {
			w.add(r)
		}
	}
	if w.closed || now.Sub(w.began) < dayOpen {
		return nil, false
	}
	w.closed = true
	d, ok := w.day(opts)
	if !ok {
		return nil, false
	}
	return m.learn(d, w.key, r.Source), true
}

// learn adds a good day.
func (m *memory) learn(d day, key, source string) []collectors.Event {
	h := &m.history
	var events []collectors.Event
	event := func(what, before, after string, fields ...collectors.Field) {
		fields = append(fields, collectors.F("source", source))
		events = append(events, collectors.Event{Type: "optics", What: what, Before: before, After: after, Fields: fields})
	}
	switch {
	case h.Key == key:
		h.Other, h.OtherDays = "", 0
	case h.Key == "":
		*h = history{Version: historyVersion, Key: key, Trend: steady, Laser: steady}
	case h.Other != key:
		// A source may fail for a day; its baseline is not given up for that.
		h.Other, h.OtherDays = key, 1
		return nil
	default:
		if h.OtherDays++; h.OtherDays < changeDays {
			return nil
		}
		event("baseline", h.Key, key)
		*h = history{Version: historyVersion, Key: key, Trend: steady, Laser: steady}
	}
	if len(h.First) < firstDays {
		h.First = append(h.First, d)
		if base, _ := h.baseline(); len(h.First) == firstDays {
			event("baseline", unknown, formatDBm(base), collectors.F("rx_baseline_dbm", base))
		}
		return events
	}
	h.Last = append(h.Last, d)
	h.Last = slices.Delete(h.Last, 0, max(0, len(h.Last)-keptDays))
	base, _ := h.baseline()
	if word, by := h.trend(); word != h.Trend {
		event("rx_trend", h.Trend, word, collectors.F("rx_baseline_dbm", base), collectors.F("change_db", by))
		h.Trend = word
	}
	if word, ratio := h.laser(); word != h.Laser {
		event("laser", h.Laser, word, collectors.F("bias_ratio", ratio))
		h.Laser = word
	}
	return events
}

// against says how a level stands to the baseline; ok is false while there is
// none, or another source was read.
func (m *memory) against(r Reading) (base, differDB float64, ok bool) {
	base, ok = m.history.baseline()
	if !ok || !r.RxPower.OK() || m.history.Key != lineKey(r) {
		return 0, 0, false
	}
	return base, r.RxPower.Value - base, true
}
