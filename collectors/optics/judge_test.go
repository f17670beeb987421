package optics_test

import (
	"math"
	"slices"
	"testing"

	"ontagent/collectors"
	"ontagent/collectors/optics"
)

func TestClasses(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range optics.Classes() {
		if seen[c.Name] || c.RxLowDBm >= c.RxHighDBm || c.TxLowDBm > c.TxHighDBm {
			t.Errorf("class %+v", c)
		}
		seen[c.Name] = true
		if got, ok := optics.ClassByName(c.Name); !ok || got != c {
			t.Errorf("%s: %+v, %v", c.Name, got, ok)
		}
	}
	if c, ok := optics.ClassByName("px20+"); !ok || c.Name != "PX20+" {
		t.Errorf("px20+: %+v, %v", c, ok)
	}
	if _, ok := optics.ClassByName(""); ok {
		t.Error("a class without a name")
	}
}

func TestJudge(t *testing.T) {
	class := func(name string) *optics.Class {
		c, ok := optics.ClassByName(name)
		if !ok {
			t.Fatalf("no class %s", name)
		}
		return &c
	}
	known := func(v float64) optics.Limit { return optics.Limit{Value: v, Known: true} }
	// MA5671A: low alarm 0x000D, low warning 0x0010, high alarm 0x09CF.
	stick := &optics.Thresholds{RxPower: optics.Limits{
		AlarmLow: known(-28.860566), WarnLow: known(-27.9588), AlarmHigh: known(-6.001533), WarnHigh: known(-7.000571),
	}}
	tests := []struct {
		name     string
		rx, tx   float64
		class    *optics.Class
		module   *optics.Thresholds
		level    string
		margin   float64
		receiver float64 // NaN: unknown
		beyond   []string
	}{
		{"comfortable", -20, 2, class("B+"), stick, "normal", 5, 8.860566, nil},
		{"nothing known", -20, 2, nil, nil, "normal", 5, math.NaN(), nil},
		{"at the norm's limit", -25, 2, nil, nil, "low", 0, math.NaN(), nil},
		{"just above", -24.99, 2, nil, nil, "normal", 0.01, math.NaN(), nil},
		{"below the class", -27.5, 2, class("B+"), stick, "low", -2.5, 1.360566, []string{"class_low"}},
		{"below the module's warning", -28.5, 2, class("B+"), stick, "low", -3.5, 0.360566, []string{"class_low", "module_warn_low"}},
		{"below everything", -30, 2, class("B+"), stick, "low", -5, -1.139434, []string{"class_low", "module_alarm_low", "module_warn_low"}},
		{"C+ hears more", -29.5, 2, class("C+"), nil, "low", -4.5, 0.5, nil},
		{"at the overload", -8, 2, class("B+"), stick, "normal", 17, 20.860566, nil},
		{"overload", -7.5, 2, class("B+"), stick, "high", 17.5, 21.360566, []string{"class_high"}},
		{"XGS is overloaded sooner", -8.5, 6, class("N1"), nil, "normal", 16.5, 19.5, []string{"class_high"}},
		{"strong", -5.85, 2, nil, stick, "high", 19.15, 23.010566, []string{"module_alarm_high", "module_warn_high"}},
		{"tx within the doubt", -20, -2, class("B+"), nil, "normal", 5, 7, nil},
		{"tx too weak", -20, -2.6, class("B+"), nil, "normal", 5, 7, []string{"class_tx_low"}},
		{"tx too strong", -20, 8.1, class("B+"), nil, "normal", 5, 7, []string{"class_tx_high"}},
		{"tx of a class without limits", -20, -9, class("C"), nil, "normal", 5, 8, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := reading("a", tt.rx)
			r.TxPower = collectors.Reading{Value: tt.tx, Unit: "dBm", Status: collectors.StatusOK}
			b := optics.Budget{MinDBm: -25, MaxDBm: -8, Class: tt.class, Module: tt.module}
			j := b.Judge(r)
			if j.Level != tt.level || math.Abs(j.MarginDB-tt.margin) > 1e-9 || math.Abs(j.MarginDB+j.HeadroomDB-17) > 1e-9 {
				t.Errorf("got %+v, want %s with %v dB", j, tt.level, tt.margin)
			}
			if j.ReceiverKnown != !math.IsNaN(tt.receiver) || j.ReceiverKnown && math.Abs(j.ReceiverMarginDB-tt.receiver) > 1e-6 {
				t.Errorf("receiver margin %v (%v), want %v", j.ReceiverMarginDB, j.ReceiverKnown, tt.receiver)
			}
			if !slices.Equal(j.Beyond, tt.beyond) {
				t.Errorf("beyond %v, want %v", j.Beyond, tt.beyond)
			}
		})
	}
}
