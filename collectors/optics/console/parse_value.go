package console

import (
	"math"
	"strconv"
	"strings"

	"ontagent/collectors"
)

// valueLine reads "<label><number> <unit>", and the line in dBm that continues
// one.
func (s *scan) valueLine(line string, ended bool) bool {
	continues := s.continues
	s.continues = nil
	if rest, ok := strings.CutPrefix(line, "="); ok && continues != nil {
		s.crossCheck(continues.field, rest, ended)
		return true
	}
	for i := range s.d.values {
		rule := &s.d.values[i]
		rest, ok := after(line, rule.label, false)
		if !ok {
			continue
		}
		if !s.may(rule.field) {
			return true
		}
		value, status, raw, ok := rule.read(rest, ended)
		if !ok {
			return true // cut off: no reading yet
		}
		s.set(rule.field, status, value, raw)
		if rule.field == fieldRx {
			s.noValue = status == collectors.StatusError && isNoValue(raw)
		}
		if rule.tail == nextDBmTail {
			s.continues = rule
		}
		s.told(rule.field)
		return true
	}
	return false
}

// apart is how far two prints of the same power may lie apart: one is rounded,
// or calibrated.
const apart = 0.5

// crossCheck compares a power with what the next line says in dBm; two that
// contradict each other are not to be trusted.
func (s *scan) crossCheck(f field, text string, ended bool) {
	r, _ := s.reading(f)
	rule := valueRule{field: f, units: dBm, least: leastPowerDBm, most: mostPowerDBm}
	v, status, _, ok := rule.read(text, ended)
	if !ok || status == collectors.StatusError || r.Status == collectors.StatusError {
		return
	}
	switch {
	case status != r.Status, r.OK() && math.Abs(v-r.Value) > apart:
		s.set(f, collectors.StatusUntrusted, 0, bounded(r.Raw+" "+strings.TrimSpace(text)))
	case r.OK():
		r.Value = v
	}
}

// read reads what follows a label. ok is false for text that was cut off
// before it made sense.
func (rule *valueRule) read(text string, ended bool) (value float64, status collectors.Status, raw string, ok bool) {
	raw = bounded(strings.TrimSpace(text))
	bad := func() (float64, collectors.Status, string, bool) {
		return 0, collectors.StatusError, raw, ended
	}
	if !rule.gap.fits(text) {
		return bad()
	}
	power := rule.field&(fieldRx|fieldTx) != 0
	if power && strings.EqualFold(raw, "no signal") {
		return 0, collectors.StatusNoLight, raw, ended
	}
	v, u, rest, found := rule.measure(raw)
	if !found {
		return bad() // no unit, or another
	}
	if u.name == "" && !ended {
		return bad() // only the line's end ends it
	}
	switch {
	case rule.tail == pairTail && u.milliwatts != 0 && (rest != "" || !ended):
		second, unit, behind, found := rule.measure(rest)
		if !found || unit.milliwatts != 0 || behind != "" {
			return bad()
		}
		if math.Abs(second-v) > apart && max(second, v) > floorDBm {
			return 0, collectors.StatusUntrusted, raw, true
		}
		v = second
	case rest == "", rule.tail == slashTail && rest[0] == '/', rule.tail == columnTail:
	default:
		return bad() // something behind it
	}
	if math.IsInf(v, -1) {
		if power {
			return 0, collectors.StatusNoLight, raw, true
		}
		return bad()
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return bad()
	}
	if rule.wrap != 0 && v > rule.wrapAbove {
		v += rule.wrap
	}
	switch {
	case v < rule.least || v > rule.most:
		return 0, collectors.StatusUntrusted, raw, true
	case power && v <= floorDBm+1e-9:
		return 0, collectors.StatusNoLight, raw, true
	}
	return v, collectors.StatusOK, raw, true
}

// fits reports whether text begins with such a gap.
func (g gap) fits(text string) bool {
	blanks := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
	if g == oneGap && blanks != "" && strings.HasPrefix(text[len(blanks):], "-") {
		return true // no digit stands before a minus
	}
	switch g {
	case oneGap:
		return blanks == " " || blanks != "" && strings.Trim(blanks, "\t") == ""
	case noGap:
		return blanks == ""
	case anyGap:
	}
	return true
}

// measure reads "<number> <unit>" with one of the rule's units, converts it,
// and returns what follows. No light is minus infinity.
func (rule *valueRule) measure(text string) (v float64, u unit, rest string, ok bool) {
	number, rest := splitNumber(text)
	if number == "" {
		return 0, unit{}, "", false
	}
	rest = strings.TrimLeft(rest, " \t")
	for _, u := range rule.units {
		behind, is := strings.CutPrefix(rest, u.name)
		broken := strings.ContainsAny(number, ".,")
		if !is || u.name == "" && rest != "" || u.form == whole && broken || u.form == fraction && !broken {
			continue
		}
		v, err := strconv.ParseFloat(strings.Replace(number, ",", ".", 1), 64)
		if err != nil && number != "-inf" {
			return 0, unit{}, "", false
		}
		switch {
		case u.milliwatts == 0:
			v = v*u.factor + u.offset
		case v < 0:
			return 0, unit{}, "", false // no power is less than none
		default:
			v = 10 * math.Log10(v*u.milliwatts)
		}
		return v, u, strings.TrimSpace(behind), true
	}
	return 0, unit{}, "", false
}

// splitNumber splits a leading number off: [-]?digits([.,]digits)? or -inf. No
// tool prints a plus.
func splitNumber(s string) (number, rest string) {
	if strings.HasPrefix(s, "-inf") {
		return "-inf", s[len("-inf"):]
	}
	i := 0
	if i < len(s) && s[i] == '-' {
		i++
	}
	start := i
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	if i == start {
		return "", s
	}
	if i+1 < len(s) && (s[i] == '.' || s[i] == ',') && isDigit(s[i+1]) {
		for i++; i < len(s) && isDigit(s[i]); i++ {
		}
	}
	return s[:i], s[i:]
}

// isNoValue recognises how a device says that it has no value.
func isNoValue(raw string) bool {
	for _, u := range []string{"(dBm)", "dBm", "mW", "uW"} {
		raw = strings.TrimSpace(strings.TrimSuffix(raw, u))
	}
	switch strings.ToLower(raw) {
	case "", "--", "-", "n/a", "not valid", "no signal":
		return true
	}
	return false
}
