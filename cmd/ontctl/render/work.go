package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/repair"
)

// maxWork bounds the rows about work of a kind that this program does not know.
const maxWork = 60

// work is what was done beside measuring.
func (x Labels) work(d *Document) Group {
	g := Group{Title: x.T("show.work")}
	raw := d.Record.Work
	if len(raw) == 0 {
		return g
	}
	var r repair.Result
	if d.Command != nil && d.Command.Type == order.RepairCmd && json.Unmarshal(raw, &r) == nil && r.Outcome != "" {
		g.Rows = x.repair(r)
		return g
	}
	var v any
	if dec := json.NewDecoder(bytes.NewReader(raw)); dec.Decode(&v) == nil {
		g.Rows = flat(nil, "", v)
	}
	if len(g.Rows) > maxWork {
		more := len(g.Rows) - maxWork
		g.Rows = append(g.Rows[:maxWork], Row{"…", fmt.Sprintf("(+%d)", more)})
	}
	return g
}

func (x Labels) repair(r repair.Result) []Row {
	did := x.w(diagnosis.KeyAction + string(r.Action))
	if r.Action == "" {
		did = x.T("show.none")
	}
	if r.Subject != "" {
		did += " (" + Clean(r.Subject) + ")"
	}
	rows := []Row{{x.w(diagnosis.KeyLabel + "repair"), did}, {x.T("show.outcome"), x.w(diagnosis.KeyRepaired + r.Outcome)}}
	if r.Cause != "" {
		rows = append(rows, Row{x.w(diagnosis.KeyLabel + "cause"), Clean(diagnosis.Title(x.lang, r.Cause)) + " [" + Clean(string(r.Cause)) + "]"})
	}
	seen := x.Verdict(acceptance.Verdict(r.Before.Verdict))
	if r.After != nil {
		seen += " → " + x.Verdict(acceptance.Verdict(r.After.Verdict))
	}
	rows = append(rows, Row{x.w(diagnosis.KeyLabel + "verdict"), seen})
	for _, row := range []Row{{x.T("show.reason"), r.Reason}, {x.T("show.undone"), r.Undone}} {
		if row.Value != "" {
			rows = append(rows, Row{row.Name, Clean(row.Value)})
		}
	}
	return append(rows, Row{x.w(diagnosis.KeyLabel + "duration"), x.Seconds(r.TookS)})
}

// flat lists what a JSON value consists of, by its path.
func flat(rows []Row, path string, v any) []Row {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			at := k
			if path != "" {
				at = path + "." + k
			}
			rows = flat(rows, at, v[k])
		}
	case []any:
		for i, e := range v {
			rows = flat(rows, fmt.Sprintf("%s[%d]", path, i), e)
		}
	case nil:
	default:
		rows = append(rows, Row{Clean(path), Clean(fmt.Sprint(v))})
	}
	return rows
}
