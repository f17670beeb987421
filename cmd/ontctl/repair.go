package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/repair"
)

// refusedRepair tells from what a gateway says of a job that failed whether it
// is a repair that it must not do, and why.
func refusedRepair(detail string) (why string, ok bool) {
	rest, ok := strings.CutPrefix(detail, "repair refused (")
	if !ok {
		return "", false
	}
	why, _, ok = strings.Cut(rest, ")")
	return why, ok
}

// repaired shows what the record of a repair says was done: of which only its
// codes are in the technician's language.
func (p *textPrinter) repaired(work json.RawMessage, t order.CommandType) {
	if t != order.RepairCmd {
		return
	}
	var r repair.Result
	if err := json.Unmarshal(work, &r); err != nil || r.Outcome == "" {
		return // an older agent's; the verdict stands
	}
	w := words(p.lang)
	line := w.label("repair")
	if r.Action != "" {
		line += " (" + diagnosis.Text(w.lang, diagnosis.KeyAction+clean(string(r.Action)))
		if r.Subject != "" {
			line += ", " + clean(r.Subject)
		}
		line += ")"
	}
	line += ": " + diagnosis.Text(w.lang, diagnosis.KeyRepaired+clean(r.Outcome))
	if r.Reason != "" && w.lang == diagnosis.English {
		line += " (" + clean(r.Reason) + ")"
	}
	fmt.Fprintln(p.out, line)
	if r.Undone != "" {
		fmt.Fprintf(p.out, "%s: %s\n", w.label("undone"), clean(r.Undone))
	}
}

func (p *textPrinter) refused(why string) {
	w := words(p.lang)
	fmt.Fprintf(p.out, "%s: %s\n", w.label("repair"), diagnosis.Text(w.lang, diagnosis.KeyRepaired+clean(why)))
}
