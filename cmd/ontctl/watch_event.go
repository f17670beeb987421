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
	label := func(key string) string { return watchWord(key).In(lang) }
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

// watchWord is a word of eventText.
func watchWord(key string) diagnosis.Words {
	switch key {
	case "fault_opened":
		return diagnosis.Words{ZH: "产生", EN: "opened"}
	case "fault_cleared":
		return diagnosis.Words{ZH: "恢复", EN: "cleared"}
	case "due":
		return diagnosis.Words{ZH: "修复时限", EN: "due"}
	case "recurrence":
		return diagnosis.Words{ZH: "30 天内第 %d 次重复", EN: "recurred %d times within 30 days"}
	case "lasted_s":
		return diagnosis.Words{ZH: "历时 %.0f 分钟", EN: "lasted %.0f min"}
	case "lasted_min_s":
		return diagnosis.Words{ZH: "历时至少 %.0f 分钟", EN: "lasted at least %.0f min"}
	case "inspection":
		return diagnosis.Words{ZH: "巡检", EN: "inspection"}
	case "not_in_order":
		return diagnosis.Words{ZH: "不正常", EN: "not in order"}
	case "inventory":
		return diagnosis.Words{ZH: "资源变更", EN: "inventory changed"}
	case "inventory_sn":
		return diagnosis.Words{ZH: "序列号", EN: "serial number"}
	case "inventory_wan_mac":
		return diagnosis.Words{ZH: "WAN MAC 地址", EN: "WAN MAC address"}
	case "inventory_wan_port":
		return diagnosis.Words{ZH: "上联口", EN: "WAN port"}
	case "inventory_lan_port":
		return diagnosis.Words{ZH: "用户口", EN: "LAN port"}
	case "inventory_module":
		return diagnosis.Words{ZH: "光模块", EN: "optical module"}
	}
	return diagnosis.Words{ZH: key, EN: key}
}
