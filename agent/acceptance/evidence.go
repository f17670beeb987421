package acceptance

import "ontagent/agent/diagnosis"

// Evidence returns what the ladder has shown, for diagnosis.Diagnose. Of
// measurements with the same name the first that has a value counts; yes and no
// are 1 and 0.
func (r Report) Evidence() diagnosis.Evidence {
	var e diagnosis.Evidence
	for _, res := range r.Results {
		rung := diagnosis.Rung{
			Name: string(res.Rung), Verdict: string(res.Verdict), Required: res.Required,
			Codes: res.Causes, Warnings: res.Warnings,
			Numbers: map[string]float64{}, Texts: map[string]string{},
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
			case string:
				rung.Texts[m.Name] = v
			default:
				if n, ok := number(v); ok {
					rung.Numbers[m.Name] = n
				}
			}
		}
		e.Rungs = append(e.Rungs, rung)
	}
	return e
}

// number turns the kinds of numbers that steps measure, and yes and no, into
// one.
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
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}
