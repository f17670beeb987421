package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"ontagent/agent"
	"ontagent/agent/acceptance"
	"ontagent/agent/control"
	"ontagent/agent/diagnosis"
	"ontagent/agent/job"
)

// diagnose climbs the read-only rungs in the daemon. Without a daemon there is
// nobody to ask: two readers of one console would get into each other's way.
func (a *app) diagnose(ctx context.Context, args []string) error {
	if _, err := a.parse("diagnose", args, 0); err != nil {
		return err
	}
	if a.recent {
		return a.diagnoseRecent(ctx)
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	lang, _ := diagnosis.ParseLang(a.lang)
	var result looked
	err = ask(ctx, c, control.OpDiagnose, nil, func(kind string, data json.RawMessage) error {
		switch kind {
		case control.KindProgress:
			var p job.Progress
			if err := json.Unmarshal(data, &p); err != nil {
				return fmt.Errorf("cannot read progress: %w", err)
			}
			if p.StepVerdict != "" && !a.json {
				fmt.Fprintf(a.out, "[%3.0f %%] %s: %s\n", 100*p.Fraction,
					diagnosis.Text(lang, diagnosis.KeyRung+p.Step), diagnosis.Text(lang, diagnosis.KeyVerdict+p.StepVerdict))
			}
			return nil
		case control.KindResult:
			if a.json {
				fmt.Fprintf(a.out, "%s\n", data)
			}
			return json.Unmarshal(data, &result)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !a.json {
		a.printResult(result.Result, lang)
		if len(result.Recent.Diagnosis.Causes) > 0 || len(result.Recent.Faults) > 0 {
			fmt.Fprintln(a.out)
			a.printRecent(result.Recent, lang)
		}
	}
	return verdictExit(result.Report.Verdict)
}

func (a *app) printResult(r agent.Result, lang diagnosis.Lang) {
	label := func(key string) string { return diagnosis.Text(lang, diagnosis.KeyLabel+key) }
	fmt.Fprintf(a.out, "\n%s: %s\n", label("verdict"), diagnosis.Text(lang, diagnosis.KeyVerdict+string(r.Report.Verdict)))
	for _, res := range r.Report.Results {
		if res.Verdict == acceptance.Pass {
			continue
		}
		fmt.Fprintf(a.out, "  %s: %s (%s)\n", diagnosis.Text(lang, diagnosis.KeyRung+string(res.Rung)),
			diagnosis.Text(lang, diagnosis.KeyVerdict+string(res.Verdict)), res.Reason)
	}
	a.printCauses(r.Diagnosis, lang)
}

func (a *app) printCauses(d diagnosis.Diagnosis, lang diagnosis.Lang) {
	label := func(key string) string { return diagnosis.Text(lang, diagnosis.KeyLabel+key) }
	for i, cause := range d.Causes {
		fmt.Fprintf(a.out, "%d. %s [%s] %s, %s %.0f %%\n   %s: %s\n", i+1, diagnosis.Title(lang, cause.Code), cause.Code,
			diagnosis.Text(lang, diagnosis.KeyKind+string(cause.Kind)), label("confidence"), 100*cause.Confidence,
			label("side"), sides(lang, cause))
		if action := diagnosis.Action(lang, cause.Code); action != "" {
			fmt.Fprintf(a.out, "   %s: %s\n", label("action"), action)
		}
	}
}

func sides(lang diagnosis.Lang, c diagnosis.Ranked) string {
	names := []string{diagnosis.Text(lang, diagnosis.KeySide+string(c.Side))}
	if c.OrSide != "" {
		names = append(names, diagnosis.Text(lang, diagnosis.KeySide+string(c.OrSide)))
	}
	return strings.Join(names, " / ")
}
