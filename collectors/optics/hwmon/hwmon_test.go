package hwmon_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ontagent/collectors"
	"ontagent/collectors/optics"
	"ontagent/collectors/optics/hwmon"
)

// sfp is what the kernel's sfp driver shows for a module with thresholds and
// flags: integers in milli-degrees, mV, mA and uW. The values are invented.
func sfp(name string) map[string]string {
	m := map[string]string{
		"name":       name,
		"in0_label":  "VCC",
		"in0_input":  "3300",
		"in0_min":    "3100",
		"in0_max":    "3500",
		"in0_lcrit":  "3000",
		"in0_crit":   "3600",
		"temp1_crit": "95000", "temp1_lcrit": "-50000", "temp1_max": "90000", "temp1_min": "-45000",
		"temp1_input":  "-5250",
		"temp1_label":  "temperature",
		"curr1_input":  "12",
		"curr1_label":  "bias",
		"curr1_crit":   "90",
		"power1_input": "1700",
		"power1_label": "TX_power",
		"power2_input": "17",
		"power2_label": "RX_power",
		"power2_lcrit": "1",
		"power2_crit":  "251",
		"power2_min":   "0",
	}
	for _, q := range []string{"in0", "temp1", "curr1", "power1", "power2"} {
		for _, a := range []string{"_min_alarm", "_max_alarm", "_lcrit_alarm", "_crit_alarm"} {
			m[q+a] = "0"
		}
	}
	return m
}

// tree writes a sysfs with the given chips.
func tree(t *testing.T, chips ...map[string]string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "class", "hwmon"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, chip := range chips {
		dir := filepath.Join(root, "class", "hwmon", "hwmon"+string(rune('0'+i)))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range chip {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestReader(t *testing.T) {
	root := tree(t, map[string]string{"name": "cpu_thermal", "temp1_input": "50000"}, sfp("sfp1"))
	for _, chip := range []string{"", "sfp1"} {
		r, err := hwmon.New(hwmon.Options{Root: root, Chip: chip}).ReadOptics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for what, tt := range map[string]struct {
			got  collectors.Reading
			want float64
			unit string
			raw  string
		}{
			"rx":          {r.RxPower, -17.6955, optics.UnitPower, "17 uW"},
			"tx":          {r.TxPower, 2.3045, optics.UnitPower, "1700 uW"},
			"bias":        {r.Bias, 12, optics.UnitBias, "12 mA"},
			"temperature": {r.Temperature, -5.25, optics.UnitTemperature, "-5250 m°C"},
			"voltage":     {r.Voltage, 3.3, optics.UnitVoltage, "3300 mV"},
		} {
			if !tt.got.OK() || math.Abs(tt.got.Value-tt.want) > 1e-4 || tt.got.Unit != tt.unit || tt.got.Raw != tt.raw || tt.got.Source != "hwmon:sfp1" {
				t.Errorf("%s: %+v, want %v %s", what, tt.got, tt.want, tt.unit)
			}
		}
		if r.ResolutionMicrowatts != 1 {
			t.Errorf("resolution %v uW", r.ResolutionMicrowatts)
		}
		if !r.AlarmsKnown || len(r.Alarms) != 0 || !r.WarningsKnown {
			t.Errorf("alarms %v (%v)", r.Alarms, r.AlarmsKnown)
		}
		th := r.Thresholds
		if th == nil || math.Abs(th.RxPower.AlarmLow.Value+30) > 1e-9 || th.RxPower.WarnLow.Known || th.Temperature.AlarmLow.Value != -50 {
			t.Errorf("thresholds %+v", th)
		}
	}
}

func TestReaderConditions(t *testing.T) {
	tests := []struct {
		name   string
		change func(map[string]string)
		want   collectors.Status
		alarms []string
		known  bool
		err    bool
	}{
		{"dark", func(m map[string]string) { m["power2_input"] = "0"; m["power2_lcrit_alarm"] = "1" }, collectors.StatusNoLight, []string{"rx_low"}, true, false},
		{"external calibration", func(m map[string]string) { delete(m, "power2_input") }, collectors.StatusUnsupported, nil, true, false},
		{"no flags", func(m map[string]string) { delete(m, "temp1_crit_alarm") }, collectors.StatusOK, nil, false, false},
		{"no supply", func(m map[string]string) { m["in0_input"] = "0" }, collectors.StatusUntrusted, nil, false, false},
		{"garbage", func(m map[string]string) { m["power2_input"] = "seventeen" }, collectors.StatusError, nil, true, true},
		{"empty", func(m map[string]string) { m["power2_input"] = "" }, collectors.StatusError, nil, true, true},
		{"negative", func(m map[string]string) { m["power2_input"] = "-3" }, collectors.StatusUntrusted, nil, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			chip := sfp("sfp1")
			tt.change(chip)
			r, err := hwmon.New(hwmon.Options{Root: tree(t, chip)}).ReadOptics(t.Context())
			if (err != nil) != tt.err {
				t.Errorf("error %v", err)
			}
			if r.RxPower.Status != tt.want || !r.RxPower.OK() && r.RxPower.Value != 0 {
				t.Errorf("rx %+v, want %q", r.RxPower, tt.want)
			}
			if r.AlarmsKnown != tt.known || !slices.Equal(r.Alarms, tt.alarms) {
				t.Errorf("alarms %v (%v)", r.Alarms, r.AlarmsKnown)
			}
		})
	}
}

func TestReaderNoData(t *testing.T) {
	for name, opts := range map[string]hwmon.Options{
		"no sysfs":   {Root: filepath.Join(t.TempDir(), "sys")},
		"no chip":    {Root: tree(t, map[string]string{"name": "cpu_thermal"})},
		"other chip": {Root: tree(t, sfp("sfp1")), Chip: "sfp2"},
	} {
		if _, err := hwmon.New(opts).ReadOptics(t.Context()); !errors.Is(err, collectors.ErrNoData) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The number of the directory changes when a module is plugged in again.
func TestReaderFindsChipAnew(t *testing.T) {
	root := tree(t, sfp("sfp1"))
	r := hwmon.New(hwmon.Options{Root: root, Chip: "sfp1"})
	if _, err := r.ReadOptics(t.Context()); err != nil {
		t.Fatal(err)
	}
	class := filepath.Join(root, "class", "hwmon")
	if err := os.Rename(filepath.Join(class, "hwmon0"), filepath.Join(class, "hwmon7")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadOptics(t.Context()); err != nil {
		t.Error(err)
	}
}
