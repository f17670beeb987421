package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestEventTextOfTheGoldens reads aloud what travels.
func TestEventTextOfTheGoldens(t *testing.T) {
	for _, tt := range []struct{ golden, name, en, zh string }{
		{
			"event-fault", "fault", "line fault opened: Loss of signal [pon.los], due 2023-11-15T22:13:05Z, recurred 2 times within 30 days",
			"线路故障 产生: PON 信号丢失（LOS） [pon.los], 修复时限 2023-11-15T22:13:05Z, 30 天内第 2 次重复",
		},
		{"event-fault-undated", "fault", "[dial.dropped], lasted 60 min", "[dial.dropped], 历时 60 分钟"},
		{"event-inspection", "inspection", "inspection: fail, Line nearly full [host.traffic]; not in order: utilisation_down_ratio", "巡检: 不通过, 带宽利用率过高"},
		{"event-inventory", "inventory", "inventory changed optical module: HUAWEI HPSP-SFP 1234 → SOURCEPHOTONICS SPS-34 5678", "资源变更 光模块: HUAWEI"},
		{"event-link", "link", "", ""},
	} {
		data, err := os.ReadFile("../../transport/testdata/" + tt.golden + ".golden.json")
		if err != nil {
			t.Fatal(err)
		}
		var body map[string]any
		if err := json.Unmarshal(data, &body); err != nil {
			t.Fatal(err)
		}
		for lang, want := range map[string]string{"en": tt.en, "zh-CN": tt.zh} {
			if got := eventText(lang, tt.name, body); !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("%s: %q, want %q in it", tt.golden, got, want)
			}
		}
	}
	// Anyone may publish.
	for _, name := range []string{"fault", "inspection", "inventory"} {
		if got := eventText("en", name, map[string]any{"compared": []any{1, map[string]any{"ok": false}}, "lasted_s": "x", "recurrence": "y"}); got == "" {
			t.Errorf("%s: nothing", name)
		}
	}
}
