package render

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
)

// maxShown bounds what is shown of one text out of a record, in runes.
const maxShown = 2000

// Clean makes a text out of a record fit to be shown: one line, without
// characters that control a terminal or turn the direction of writing, and not
// endless.
func Clean(s string) string {
	n := 0
	for i := range s {
		if n++; n > maxShown {
			return strings.Map(visible, s[:i]) + fmt.Sprintf("… (+%d)", len(s)-i)
		}
	}
	return strings.Map(visible, s)
}

// visible replaces what can't be seen but does something.
func visible(r rune) rune {
	switch {
	case r == '\n' || r == '\t' || r == '\u00a0':
		return ' '
	case unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r), unicode.Is(unicode.Zp, r),
		r >= 0xfe00 && r <= 0xfe0f, r >= 0xe0000 && r <= 0xe0fff: // selectors and tags
		return '·'
	}
	return r
}

// Labels has the words of one language.
type Labels struct{ lang diagnosis.Lang }

// In returns the words of a language.
func In(lang diagnosis.Lang) Labels { return Labels{lang} }

// T returns a text of the office's table, as a format if there are arguments.
func (x Labels) T(key string, args ...any) string {
	s := diagnosis.OfficeText(x.lang, key)
	if len(args) > 0 {
		return fmt.Sprintf(s, args...)
	}
	return s
}

// w returns a text of the gateway's table.
func (x Labels) w(key string) string { return Clean(diagnosis.Text(x.lang, key)) }

// Rung names a rung.
func (x Labels) Rung(r acceptance.Rung) string { return x.w(diagnosis.KeyRung + string(r)) }

// Verdict names a verdict.
func (x Labels) Verdict(v acceptance.Verdict) string {
	if v == "" {
		return x.T("show.not_tested")
	}
	return x.w(diagnosis.KeyVerdict + string(v))
}

// colon is how a language writes one.
func (x Labels) colon() string {
	if x.lang == diagnosis.Chinese {
		return "："
	}
	return ": "
}

func (x Labels) comma() string {
	if x.lang == diagnosis.Chinese {
		return "、"
	}
	return ", "
}

// Measurement returns what a measurement is called. One that has no name in the
// table keeps that of the record.
func (x Labels) Measurement(name string) string {
	if rest, ok := strings.CutPrefix(name, "throughput_"); ok {
		for _, way := range []string{"down", "up"} {
			if rest, ok := strings.CutPrefix(rest, way+"_"); ok && diagnosis.OfficeKnows(diagnosis.KeyMeasurement+"throughput."+rest) {
				return x.w(diagnosis.KeyLabel+way) + " " + x.T(diagnosis.KeyMeasurement+"throughput."+rest)
			}
		}
	}
	return Clean(x.T(diagnosis.KeyMeasurement + name))
}

// Threshold names a limit.
func (x Labels) Threshold(name string) string { return Clean(x.T(diagnosis.KeyThreshold + name)) }

// section names a part of a record that was altered: "ladder.results[1]
// optical: rx_power_dbm" is the received power of the optical rung.
func (x Labels) section(name string) string {
	rest, ok := strings.CutPrefix(name, "ladder.results[")
	if !ok {
		return Clean(x.T(diagnosis.KeySection + strings.TrimPrefix(name, "ladder.")))
	}
	if _, rest, ok = strings.Cut(rest, "]"); !ok {
		return Clean(name)
	}
	rung, part, ok := strings.Cut(strings.TrimSpace(rest), ": ")
	if !ok {
		return x.Rung(acceptance.Rung(rung))
	}
	part, _, _ = strings.Cut(part, "#")
	return x.Rung(acceptance.Rung(rung)) + x.colon() + cmp.Or(x.partOfResult(part), x.Measurement(part))
}

// partOfResult names the members of a result.
func (x Labels) partOfResult(part string) string {
	switch part {
	case "verdict", "reason", "duration", "conditions", "required":
		return x.w(diagnosis.KeyLabel + part)
	case "limits":
		return x.T("show.limits")
	case "log":
		return x.T("show.log")
	case "causes", "warnings":
		return x.w(diagnosis.KeyLabel + "cause")
	case "duration_s", "start_s":
		return x.w(diagnosis.KeyLabel + "duration")
	}
	return ""
}

// Unit returns the unit that a name ends in, as Number shows it: "rx_power_dbm"
// is in "dBm", what ends in _ratio in "%". It is empty for what has none.
func Unit(name string) string {
	if u := acceptance.Unit(name); u != "" {
		switch u {
		case "ratio":
			return "%"
		case "Cel":
			return "°C"
		}
		return u
	}
	for _, u := range []struct{ suffix, unit string }{
		{"_dbm", "dBm"},
		{"_db", "dB"},
		{"_mbps", "Mbit/s"},
		{"_ms", "ms"},
		{"_ratio", "%"},
		{"_celsius", "°C"},
		{"_ma", "mA"},
		{"_v", "V"},
		{"_bytes", "B"},
		{"_s", "s"},
	} {
		if strings.HasSuffix(name, u.suffix) {
			return u.unit
		}
	}
	return ""
}

// Number shows v, of the measurement name, with its unit in words: 0.9 of a
// ratio is 90 %. Decibels and milliseconds have two decimals, which is more than
// can be measured; what would become a whole number by that – most limits are –
// keeps six digits, so as not to seem to be on a limit that it is beside.
func (x Labels) Number(name string, v float64) string {
	switch Unit(name) {
	case "dBm", "dB", "ms":
		if r := math.Round(v*100) / 100; r != math.Trunc(r) {
			return x.exact(name, r)
		}
	}
	return x.exact(name, v)
}

// exact shows v with six digits, or all before the point, and whole days as
// such.
func (x Labels) exact(name string, v float64) string {
	const day = 24 * 60 * 60
	unit := Unit(name)
	switch {
	case unit == "%":
		v *= 100
	case unit == "s" && v >= 2*day && math.Mod(v, day) == 0:
		v, unit = v/day, "d"
	}
	return x.quantity(digits(v), unit)
}

// digits writes a number with six digits, or all before the point; with an
// exponent only where it would be too long otherwise.
func digits(v float64) string {
	switch m := math.Abs(v); {
	case m >= 1e5 && m < 1e15:
		return strconv.FormatFloat(v, 'f', 0, 64)
	default:
		return strconv.FormatFloat(v, 'g', 6, 64)
	}
}

// short shows v as somebody remembers it; near a limit it shows more, so as not
// to round across it.
func (x Labels) short(name string, v float64, limits ...float64) string {
	unit, digits := Unit(name), 1
	if unit == "%" {
		v *= 100
	}
	switch {
	case unit == "dBm" || unit == "dB":
		digits = 2
	case unit == "Mbit/s" && math.Abs(v) >= 100:
		digits = 0
	}
	rounded := strconv.FormatFloat(v, 'f', digits, 64)
	for _, l := range limits {
		if unit == "%" {
			l *= 100
		}
		if r, err := strconv.ParseFloat(rounded, 64); err == nil && r == l && v != l {
			return x.exact(name, v/scale(unit))
		}
	}
	if strings.Contains(rounded, ".") {
		rounded = strings.TrimRight(strings.TrimRight(rounded, "0"), ".")
	}
	return x.quantity(rounded, unit)
}

func scale(unit string) float64 {
	if unit == "%" {
		return 100
	}
	return 1
}

// quantity puts a unit behind a number.
func (x Labels) quantity(number, unit string) string {
	if unit == "" {
		return number
	}
	if diagnosis.OfficeKnows(diagnosis.KeyUnit + unit) {
		unit = x.T(diagnosis.KeyUnit + unit)
	}
	return number + " " + unit
}

// mbps is a rate as a contract states it.
func (x Labels) mbps(v float64) string {
	return x.quantity(strconv.FormatFloat(v, 'f', -1, 64), "Mbit/s")
}

// Value shows the value of a measurement, or why there is none.
func (x Labels) Value(m acceptance.Measurement) string {
	switch v := m.Value.(type) {
	case nil:
		if m.Status == "" {
			return x.T("show.not_measured")
		}
		return x.w(diagnosis.KeyStatus + m.Status)
	case float64:
		return x.Number(m.Name, v)
	case bool:
		return x.yes(v)
	case string:
		if v == "" {
			return x.T("show.none")
		}
		return Clean(x.T(diagnosis.KeyValue + v))
	default: // a newer agent's
		data, err := json.Marshal(v)
		if err != nil {
			return Clean(fmt.Sprint(v))
		}
		return Clean(string(data))
	}
}

func (x Labels) yes(v bool) string {
	if v {
		return x.T("show.yes")
	}
	return x.T("show.no")
}

// Limit shows what passes: "> -25 dBm".
func (x Labels) Limit(l acceptance.Limit) string {
	return operator(l.Op) + " " + x.exact(l.Name, l.Value)
}

func operator(op string) string {
	switch op {
	case ">=":
		return "≥"
	case "<=":
		return "≤"
	}
	return Clean(op)
}

// beijing is the time of day of whoever reads Chinese.
const beijing = 8 * 60 * 60

// When shows a point in time, RFC 3339, as people of the language tell it.
func (x Labels) When(rfc3339 string) string {
	t, err := time.Parse(time.RFC3339, rfc3339)
	if err != nil {
		return Clean(rfc3339)
	}
	return x.time(t)
}

func (x Labels) time(t time.Time) string {
	if x.lang == diagnosis.Chinese {
		return t.In(time.FixedZone("", beijing)).Format("2006-01-02 15:04:05") + " 北京时间"
	}
	return t.UTC().Format("2006-01-02 15:04:05") + " UTC"
}

// Seconds shows a duration, given in seconds.
func (x Labels) Seconds(s float64) string {
	switch {
	case math.IsNaN(s) || s < 0 || s > 1e10:
		return x.quantity(strconv.FormatFloat(s, 'g', 6, 64), "s")
	case s < 60:
		return x.quantity(strconv.FormatFloat(s, 'f', 1, 64), "s")
	}
	d := time.Duration(s) * time.Second
	switch {
	case d < time.Hour:
		return x.T("show.min_s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return x.T("show.h_min", int(d.Hours()), int(d.Minutes())%60)
	}
	return x.T("show.d_h", int(d.Hours())/24, int(d.Hours())%24)
}
