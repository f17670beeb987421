package main

import (
	"fmt"
	"strings"

	"ontagent/agent/diagnosis"
)

// eventText says in a person's words what a fault, an inspection or a change of
// the inventory is; empty for every other event.
func eventText(language, name string, body map[string]any) string {
	lang, _ := diagnosis.ParseLang(language)
	text := func(key string) string {
		v, ok := body[key]
		if !ok {
			return ""
		}
		return fmt.Sprint(v)
	}
	label := func(key string) string { return diagnosis.OfficeText(lang, diagnosis.KeyWatch+key) }
	switch name {
	case "fault":
		var out strings.Builder
		fmt.Fprintf(&out, "%s %s: %s [%s]", diagnosis.Text(lang, diagnosis.KeyFault+text("fault_class")), label("fault_"+text("state")),
			diagnosis.Title(lang, diagnosis.Code(text("code"))), text("code"))
		if due := text("due_utc"); due != "" && text("state") == "opened" {
			fmt.Fprintf(&out, ", %s %s", label("due"), due)
		}
		if n, _ := body["recurrence"].(float64); n > 0 {
			fmt.Fprintf(&out, ", "+label("recurrence"), int(n))
		}
		for _, key := range []string{"lasted_s", "lasted_min_s"} {
			if s, ok := body[key].(float64); ok {
				fmt.Fprintf(&out, ", "+label(key), s/60)
			}
		}
		return out.String()
	case "inspection":
		out := label("inspection") + ": " + diagnosis.Text(lang, diagnosis.KeyVerdict+text("verdict"))
		if code := text("first_cause"); code != "" {
			out += fmt.Sprintf(", %s [%s]", diagnosis.Title(lang, diagnosis.Code(code)), code)
		}
		if bad := notInOrder(body["compared"]); len(bad) > 0 {
			out += "; " + label("not_in_order") + ": " + strings.Join(bad, ", ")
		}
		return out
	case "inventory":
		return fmt.Sprintf("%s %s: %s → %s", label("inventory"), label("inventory_"+text("what")), text("before"), text("after"))
	}
	return ""
}

// notInOrder names the figures of an inspection that are not as they should be.
func notInOrder(compared any) []string {
	var names []string
	list, _ := compared.([]any)
	for _, x := range list {
		one, _ := x.(map[string]any)
		if ok, said := one["ok"].(bool); said && !ok {
			names = append(names, fmt.Sprint(one["name"]))
		}
	}
	return names
}
