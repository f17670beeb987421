package acceptance_test

import (
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/acceptance"
)

func TestNormsAreThoseOfTheField(t *testing.T) {
	type limit struct {
		op     string
		value  float64
		unit   string
		origin string
	}
	want := map[string]limit{
		"optical.rx_min_dbm":           {">", -25, "dBm", "norm"},
		"optical.rx_max_dbm":           {"<=", -8, "dBm", "norm"},
		"splitter.rx_min_dbm":          {">", -20, "dBm", "norm"},
		"throughput.min_ratio":         {">=", 0.90, "ratio", "norm"},
		"utilisation.max":              {"<", 0.70, "ratio", "norm"},
		"cpu.max":                      {"<", 0.50, "ratio", "norm"},
		"memory.max":                   {"<", 0.60, "ratio", "norm"},
		"fault.line_due":               {"<=", 24 * 3600, "s", "norm"},
		"fault.network_due":            {"<=", 36 * 3600, "s", "norm"},
		"fault.respond":                {"<=", 15 * 60, "s", "norm"},
		"record.retention":             {">=", 183 * 24 * 3600, "s", "norm"},
		"optical.margin_warn_db":       {">=", 2, "dB", "agent"},
		"optical.source_spread_max_db": {"<=", 3, "dB", "agent"},
		"lan.speed_min_mbps":           {">=", 1000, "Mbit/s", "agent"},
		"dns.latency_warn_ms":          {"<=", 500, "ms", "agent"},
		"reachability.loss_max_ratio":  {"<=", 0.02, "ratio", "agent"},
		"reachability.rtt_max_ms":      {"<=", 100, "ms", "agent"},
		"temperature.max_celsius":      {"<", 95, "Cel", "agent"},
		"iptv.loss_max_ratio":          {"<=", 0.001, "ratio", "agent"},
		"account.extract_max_age":      {"<=", 24 * 3600, "s", "agent"},
	}
	got := map[string]limit{}
	for _, l := range acceptance.Norms().All() {
		got[l.Name] = limit{l.Op, l.Value, acceptance.Unit(l.Name), l.Origin}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(limit{})); diff != "" {
		t.Errorf("norms (-want +got):\n%s", diff)
	}
	if acceptance.Unit("nothing") != "" {
		t.Error("there is a unit of nothing")
	}
}

func TestLimitHoldsAtItsBoundary(t *testing.T) {
	norms := acceptance.Norms()
	below := func(v float64) float64 { return math.Nextafter(v, math.Inf(-1)) }
	above := func(v float64) float64 { return math.Nextafter(v, math.Inf(1)) }
	for _, tt := range []struct {
		name  string
		value float64
		holds bool
	}{
		{"optical.rx_min_dbm", -25.00, false},
		{"optical.rx_min_dbm", above(-25), true},
		{"optical.rx_min_dbm", -24.999, true},
		{"optical.rx_min_dbm", -25.001, false},
		{"optical.rx_min_dbm", math.Inf(-1), false},
		{"optical.rx_max_dbm", -8.00, true},
		{"optical.rx_max_dbm", above(-8), false},
		{"optical.rx_max_dbm", below(-8), true},
		{"splitter.rx_min_dbm", -20.00, false},
		{"throughput.min_ratio", 0.90, true},
		{"throughput.min_ratio", below(0.90), false},
		{"utilisation.max", 0.70, false},
		{"cpu.max", 0.50, false},
		{"cpu.max", below(0.50), true},
		{"memory.max", 0.60, false},
		{"reachability.loss_max_ratio", 2.0 / 100, true},
		{"reachability.loss_max_ratio", 3.0 / 100, false},
		{"lan.speed_min_mbps", 1000, true},
		{"lan.speed_min_mbps", 999, false},
		{"cpu.max", math.NaN(), false},
		{"throughput.min_ratio", math.NaN(), false},
	} {
		if got := norms.Limit(tt.name).Holds(tt.value); got != tt.holds {
			t.Errorf("%s holds for %v: %t, want %t", tt.name, tt.value, got, tt.holds)
		}
	}
	if norms.Limit("nothing").Holds(0) {
		t.Error("a limit that does not exist holds")
	}
}

func TestThresholdsOverride(t *testing.T) {
	base := acceptance.Norms()
	local, err := base.With(acceptance.OriginConfig, map[string]float64{"optical.rx_min_dbm": -24, "cpu.max": 0.4})
	if err != nil {
		t.Fatal(err)
	}
	ordered, err := local.With(acceptance.OriginOrder, map[string]float64{"optical.rx_min_dbm": -26})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		set  acceptance.Thresholds
		name string
		want acceptance.Limit
	}{
		{base, "optical.rx_min_dbm", acceptance.Limit{Name: "optical.rx_min_dbm", Value: -25, Op: ">", Origin: "norm"}},
		{local, "optical.rx_min_dbm", acceptance.Limit{Name: "optical.rx_min_dbm", Value: -24, Op: ">", Origin: "config"}},
		{ordered, "optical.rx_min_dbm", acceptance.Limit{Name: "optical.rx_min_dbm", Value: -26, Op: ">", Origin: "order"}},
		{ordered, "cpu.max", acceptance.Limit{Name: "cpu.max", Value: 0.4, Op: "<", Origin: "config"}},
		{ordered, "memory.max", acceptance.Limit{Name: "memory.max", Value: 0.6, Op: "<", Origin: "norm"}},
	} {
		if diff := cmp.Diff(tt.want, tt.set.Limit(tt.name)); diff != "" {
			t.Errorf("limit (-want +got):\n%s", diff)
		}
	}
}

func TestThresholdsRefuse(t *testing.T) {
	for _, tt := range []struct {
		name     string
		override map[string]float64
		unknown  bool
	}{
		{"unknown name", map[string]float64{"optical.rx_min": -25}, true},
		{"empty name", map[string]float64{"": 0}, true},
		{"unknown beside known", map[string]float64{"cpu.max": 0.5, "gpu.max": 0.5}, true},
		{"not a number", map[string]float64{"cpu.max": math.NaN()}, false},
		{"infinite", map[string]float64{"optical.rx_min_dbm": math.Inf(-1)}, false},
		{"a typing error", map[string]float64{"optical.rx_min_dbm": -250}, false},
		{"percent for a ratio", map[string]float64{"throughput.min_ratio": 90}, false},
		{"minimum above maximum", map[string]float64{"optical.rx_min_dbm": -7}, false},
		{"minimum is the maximum", map[string]float64{"optical.rx_max_dbm": -25}, false},
	} {
		_, err := acceptance.Norms().With(acceptance.OriginOrder, tt.override)
		if err == nil || errors.Is(err, acceptance.ErrUnknownThreshold) != tt.unknown {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := (acceptance.Thresholds{}).With(acceptance.OriginOrder, map[string]float64{"cpu.max": 0.5}); err == nil {
		t.Error("an empty set is overridden")
	}
	if got, err := acceptance.Norms().With(acceptance.OriginOrder, nil); err != nil || got.IsZero() {
		t.Errorf("no override: %v", err)
	}
}

// TestNormsPageNamesEveryLimit keeps docs/norms.md from falling behind.
func TestNormsPageNamesEveryLimit(t *testing.T) {
	page, err := os.ReadFile("../../docs/norms.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range acceptance.Norms().All() {
		if !strings.Contains(string(page), "`"+l.Name+"`") {
			t.Errorf("docs/norms.md does not name %s", l.Name)
		}
	}
	for _, r := range acceptance.Ladder() {
		if !strings.Contains(string(page), "`"+string(r)+"`") {
			t.Errorf("docs/norms.md does not name rung %s", r)
		}
	}
}
