package acceptance

import (
	"strconv"

	"ontagent/agent/diagnosis"
)

// The conditions that say when a rung was measured; any rung may state them for
// all.
const (
	ConditionClock = "clock"      // how far the wall clock can be believed: ntp, floor, none
	ConditionHour  = "local_hour" // of the day at the line, from 0 to 23
)

// Evidence returns what the ladder has shown, for diagnosis.Diagnose. Of
// measurements with the same name the first that has a value counts; yes and no
// are 1 and 0.
func (r Report) Evidence() diagnosis.Evidence {
	e := diagnosis.Evidence{Rungs: make([]diagnosis.Rung, 0, len(r.Results))}
	for _, res := range r.Results {
		rung := diagnosis.Rung{
			Name: string(res.Rung), Verdict: string(res.Verdict), Required: res.Required, SkippedFor: string(res.SkippedFor),
			Codes: res.Causes, Warnings: res.Warnings, Conditions: res.Conditions,
			Numbers: map[string]float64{}, Texts: map[string]string{}, Statuses: map[string]string{}, Limits: map[string]float64{},
		}
		for _, m := range res.Measurements {
			if _, ok := rung.Numbers[m.Name]; ok {
				continue
			}
			if _, ok := rung.Texts[m.Name]; ok {
				continue
			}
			switch v := m.Value.(type) {
			case nil:
				if _, ok := rung.Statuses[m.Name]; !ok {
					rung.Statuses[m.Name] = m.Status
				}
				continue
			case string:
				rung.Texts[m.Name] = v
			default:
				n, ok := number(v)
				if !ok {
					continue
				}
				rung.Numbers[m.Name] = n
			}
			delete(rung.Statuses, m.Name)
		}
		for _, l := range res.Limits {
			rung.Limits[l.Name] = l.Value
		}
		if clock := res.Conditions[ConditionClock]; clock != "" && e.Clock == "" {
			e.Clock = clock
		}
		if hour, err := strconv.Atoi(res.Conditions[ConditionHour]); err == nil && hour >= 0 && hour < 24 && e.Hour == 0 {
			e.Hour = hour + 1
		}
		e.Rungs = append(e.Rungs, rung)
	}
	return e
}

// number turns the kinds of numbers that steps measure, those that JSON is read
// into, and yes and no, into one.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case uint32:
		return float64(v), true
	case uint16:
		return float64(v), true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}
