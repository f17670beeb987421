package main

import (
	"bytes"
	"testing"

	"ontagent/agent/order"
)

func TestRepairTold(t *testing.T) {
	for _, tc := range []struct{ lang, work, want string }{
		{
			"en", `{"action":"renew","subject":"udhcpc[7]","outcome":"helped","reason":"the line is fine now"}`,
			"repair (renewing the lease, udhcpc[7]): it helped (the line is fine now)\n",
		},
		{
			"zh-CN", `{"action":"restart_interface","subject":"eth1","outcome":"useless","undone":"eth1 is down again, as it was"}`,
			"修复 (重启接口, eth1): 无效，故障依旧\n已还原: eth1 is down again, as it was\n",
		},
		{"zh-CN", `{"outcome":"not_needed"}`, "修复: 线路正常，无需修复\n"},
		{"en", `{"outcome":"something new"}`, "repair: something new\n"},
		{"en", `{"outcome":"hel\u001b[31mped"}`, "repair: hel·[31mped\n"},
		{"en", `{`, ""},
		{"en", ``, ""},
	} {
		var out bytes.Buffer
		(&textPrinter{out: &out, lang: tc.lang}).repaired([]byte(tc.work), order.RepairCmd)
		if out.String() != tc.want {
			t.Errorf("%s: told %q, want %q", tc.work, out.String(), tc.want)
		}
	}
	var out bytes.Buffer
	(&textPrinter{out: &out, lang: "en"}).repaired([]byte(`{"outcome":"helped"}`), order.Accept)
	if out.Len() != 0 {
		t.Errorf("an acceptance told of a repair: %q", out.String())
	}
}

func TestRefusedRepair(t *testing.T) {
	for detail, want := range map[string]string{
		"repair refused (no_consent): the line carries traffic (wan0: 1 packet), and": "no_consent",
		"repair refused (limited)": "limited",
		"repair refused":           "", "cannot look at the line": "", "": "",
	} {
		if why, ok := refusedRepair(detail); why != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", detail, why, ok)
		}
	}
}
