package agent

import (
	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
)

// evidence hands a report to the diagnosis, which does not know ladders.
func evidence(report acceptance.Report) diagnosis.Evidence {
	var e diagnosis.Evidence
	for _, res := range report.Results {
		r := diagnosis.Rung{
			Name: string(res.Rung), Verdict: string(res.Verdict), Required: res.Required,
			Codes: res.Causes, Warnings: res.Warnings,
			Numbers: map[string]float64{}, Texts: map[string]string{},
		}
		for _, m := range res.Measurements {
			switch v := m.Value.(type) {
			case float64:
				r.Numbers[m.Name] = v
			case int:
				r.Numbers[m.Name] = float64(v)
			case bool:
				r.Texts[m.Name] = "no"
				if v {
					r.Texts[m.Name] = "yes"
				}
			case string:
				r.Texts[m.Name] = v
			}
		}
		e.Rungs = append(e.Rungs, r)
	}
	return e
}
