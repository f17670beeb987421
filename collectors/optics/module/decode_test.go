package module_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/collectors"
	"ontagent/collectors/optics"
	"ontagent/collectors/optics/module"
)

// expected are the fields of the JSON beside an image.
type expected struct {
	Vendor        string                         `json:"vendor"`
	PartNumber    string                         `json:"part_number"`
	Serial        string                         `json:"serial"`
	WavelengthNM  float64                        `json:"wavelength_nm"`
	DDM           bool                           `json:"ddm"`
	Calibration   module.Calibration             `json:"calibration"`
	TemperatureC  *float64                       `json:"temperature_c"`
	VoltageV      *float64                       `json:"voltage_v"`
	BiasMA        *float64                       `json:"bias_ma"`
	TxPowerDBm    *float64                       `json:"tx_power_dbm"`
	RxPowerDBm    *float64                       `json:"rx_power_dbm"`
	RxPowerStatus collectors.Status              `json:"rx_power_status"`
	Alarms        *[]string                      `json:"alarms"`
	Warnings      *[]string                      `json:"warnings"`
	Thresholds    map[string]map[string]*float64 `json:"thresholds"`
	Note          string                         `json:"note"`
	ExpectedFrom  string                         `json:"expected_from"`
}

type image struct {
	name   string
	a0, a2 []byte // the first 256 bytes and what follows
	want   expected
}

func (im *image) whole() []byte { return append(bytes.Clone(im.a0), im.a2...) }

func images(tb testing.TB, pattern string) []image {
	tb.Helper()
	files, err := filepath.Glob("testdata/" + pattern + ".bin")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no images: %v", err)
	}
	var out []image
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		im := image{name: strings.TrimSuffix(filepath.Base(f), ".bin"), a0: b[:256]}
		if len(b) > 256 {
			im.a2 = b[256:]
		}
		j, err := os.ReadFile(strings.TrimSuffix(f, ".bin") + ".json")
		if err != nil {
			tb.Fatal(err)
		}
		dec := json.NewDecoder(bytes.NewReader(j))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&im.want); err != nil {
			tb.Fatalf("%s: %v", f, err)
		}
		out = append(out, im)
	}
	return out
}

func sff8472(tb testing.TB) []image {
	tb.Helper()
	return append(images(tb, "gpon-*"), append(images(tb, "sff8472-*"), images(tb, "sff8079-*")...)...)
}

const tolerance = 2e-6

func TestDecodeImages(t *testing.T) {
	for _, im := range images(t, "*") {
		t.Run(im.name, func(t *testing.T) {
			info, r, err := module.DecodeImage(im.whole(), "module:eth1")
			if err != nil {
				t.Fatal(err)
			}
			w := im.want
			if info.Vendor != w.Vendor || info.PartNumber != w.PartNumber || info.SerialNo != w.Serial || info.DDM != w.DDM || info.Calibration != w.Calibration {
				t.Errorf("info %+v", info)
			}
			if info.WavelengthNM != w.WavelengthNM {
				t.Errorf("wavelength %v, want %v", info.WavelengthNM, w.WavelengthNM)
			}
			if !info.BaseOK || !info.ExtendedOK {
				t.Errorf("checksums: base %v, extended %v", info.BaseOK, info.ExtendedOK)
			}
			if r.Module == nil || *r.Module != (optics.Identity{Vendor: w.Vendor, PartNumber: w.PartNumber, SerialNo: w.Serial}) {
				t.Errorf("identity %+v", r.Module)
			}
			value := func(what string, want *float64, got collectors.Reading, unit string) {
				switch {
				case want == nil && got.OK():
					t.Errorf("%s: %+v, want no value", what, got)
				case want != nil && (!got.OK() || math.Abs(*want-got.Value) > tolerance):
					t.Errorf("%s: %+v, want %v", what, got, *want)
				case got.Unit != unit || got.Source != "module:eth1":
					t.Errorf("%s: %+v", what, got)
				case got.OK() && !strings.HasPrefix(got.Raw, "0x"):
					t.Errorf("%s: raw %q", what, got.Raw)
				}
			}
			value("rx power", w.RxPowerDBm, r.RxPower, optics.UnitPower)
			value("tx power", w.TxPowerDBm, r.TxPower, optics.UnitPower)
			value("bias", w.BiasMA, r.Bias, optics.UnitBias)
			value("temperature", w.TemperatureC, r.Temperature, optics.UnitTemperature)
			value("voltage", w.VoltageV, r.Voltage, optics.UnitVoltage)
			if got := r.LanesStatus(); got != w.RxPowerStatus {
				t.Errorf("rx status %q, want %q", got, w.RxPowerStatus)
			}
			list := func(what string, want *[]string, got []string, known bool) {
				if known != (want != nil) {
					t.Errorf("%s known: %v", what, known)
				}
				if want != nil {
					sorted := slices.Sorted(slices.Values(*want))
					if !slices.Equal(sorted, got) {
						t.Errorf("%s %v, want %v", what, got, sorted)
					}
				}
			}
			list("alarms", w.Alarms, r.Alarms, r.AlarmsKnown)
			list("warnings", w.Warnings, r.Warnings, r.WarningsKnown)
			checkThresholds(t, w.Thresholds, r.Thresholds)
		})
	}
}

func checkThresholds(t *testing.T, want map[string]map[string]*float64, got *optics.Thresholds) {
	t.Helper()
	if (want == nil) != (got == nil) {
		t.Errorf("thresholds %+v, want %v", got, want)
		return
	}
	if want == nil {
		return
	}
	for quantity, limits := range map[string]optics.Limits{
		"rx_power_dbm": got.RxPower, "tx_power_dbm": got.TxPower, "bias_ma": got.Bias,
		"temperature_c": got.Temperature, "voltage_v": got.Voltage,
	} {
		for side, limit := range map[string]optics.Limit{
			"alarm_high": limits.AlarmHigh, "alarm_low": limits.AlarmLow, "warn_high": limits.WarnHigh, "warn_low": limits.WarnLow,
		} {
			w := want[quantity][side]
			if limit.Known != (w != nil) || w != nil && math.Abs(*w-limit.Value) > tolerance {
				t.Errorf("threshold %s %s: %+v, want %v", quantity, side, limit, w)
			}
		}
	}
}

// fix makes the checksums right after a change.
func fix(a0, a2 []byte) {
	sum := func(b []byte) (s byte) {
		for _, v := range b {
			s += v
		}
		return s
	}
	a0[63], a0[95] = sum(a0[0:63]), sum(a0[64:95])
	if a2 != nil {
		a2[95] = sum(a2[0:95])
	}
}

func TestDecodeBrokenReads(t *testing.T) {
	normal := images(t, "gpon-ma5671a-normal")[0]
	tests := []struct {
		name   string
		change func(a0, a2 []byte) ([]byte, []byte)
		want   collectors.Status
		flags  bool
	}{
		{"as it is", func(a0, a2 []byte) ([]byte, []byte) { return a0, a2 }, collectors.StatusOK, true},
		{"A0h checksum", func(a0, a2 []byte) ([]byte, []byte) { a0[20] ^= 1; return a0, a2 }, collectors.StatusUntrusted, false},
		{"extended checksum", func(a0, a2 []byte) ([]byte, []byte) { a0[68] ^= 1; return a0, a2 }, collectors.StatusUntrusted, false},
		{"A2h checksum", func(a0, a2 []byte) ([]byte, []byte) { a2[0] ^= 1; return a0, a2 }, collectors.StatusUntrusted, false},
		{"no supply", func(a0, a2 []byte) ([]byte, []byte) { a2[98], a2[99] = 0, 0; return a0, a2 }, collectors.StatusUntrusted, false},
		{"data not ready", func(a0, a2 []byte) ([]byte, []byte) { a2[110] |= 1; return a0, a2 }, collectors.StatusUntrusted, false},
		{"A2h missing", func(a0, _ []byte) ([]byte, []byte) { return a0, nil }, collectors.StatusError, false},
		{"A2h short", func(a0, a2 []byte) ([]byte, []byte) { return a0, a2[:100] }, collectors.StatusError, false},
		{"one good byte in sixteen", func(a0, a2 []byte) ([]byte, []byte) {
			for i := range a2 {
				if i%16 != 0 {
					a2[i] = 0
				}
			}
			return a0, a2
		}, collectors.StatusUntrusted, false},
		{"all zero", func(a0, a2 []byte) ([]byte, []byte) { clear(a2); return a0, a2 }, collectors.StatusUntrusted, false},
		{"all ones", func(a0, a2 []byte) ([]byte, []byte) {
			for i := range a2 {
				a2[i] = 0xff
			}
			return a0, a2
		}, collectors.StatusUntrusted, false},
		{"no flags", func(a0, a2 []byte) ([]byte, []byte) { a0[93] &^= 0x80; fix(a0, nil); return a0, a2 }, collectors.StatusOK, false},
		{"no diagnostics", func(a0, a2 []byte) ([]byte, []byte) { a0[92] &^= 0x40; fix(a0, nil); return a0, a2 }, collectors.StatusUnsupported, false},
		{"neither calibration", func(a0, a2 []byte) ([]byte, []byte) { a0[92] &^= 0x30; fix(a0, nil); return a0, a2 }, collectors.StatusUnsupported, false},
		{"one count", func(a0, a2 []byte) ([]byte, []byte) { a2[104], a2[105] = 0, 1; return a0, a2 }, collectors.StatusNoLight, true},
		{"two counts", func(a0, a2 []byte) ([]byte, []byte) { a2[104], a2[105] = 0, 2; return a0, a2 }, collectors.StatusOK, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a0, a2 := tt.change(bytes.Clone(normal.a0), bytes.Clone(normal.a2))
			_, r, err := module.Decode(a0, a2, "m")
			if err != nil {
				t.Fatal(err)
			}
			if r.RxPower.Status != tt.want || !r.RxPower.OK() && r.RxPower.Value != 0 {
				t.Errorf("rx %+v, want %q", r.RxPower, tt.want)
			}
			if r.AlarmsKnown != tt.flags || r.WarningsKnown != tt.flags {
				t.Errorf("flags known: %v, %v, want %v", r.AlarmsKnown, r.WarningsKnown, tt.flags)
			}
			if tt.want == collectors.StatusUntrusted && r.Temperature.OK() {
				t.Errorf("temperature %+v of a read that is not trusted", r.Temperature)
			}
		})
	}
}

// With external calibration, constants that make no number make no reading.
func TestDecodeCalibrationNotANumber(t *testing.T) {
	im := images(t, "sff8472-extcal-unity")[0]
	for name, bits := range map[string][]byte{"NaN": {0x7f, 0xc0, 0, 0}, "Inf": {0x7f, 0x80, 0, 0}} {
		a0, a2 := bytes.Clone(im.a0), bytes.Clone(im.a2)
		copy(a2[68:72], bits) // RX_PWR(1)
		fix(a0, a2)
		_, r, err := module.Decode(a0, a2, "m")
		if err != nil {
			t.Fatal(err)
		}
		if r.RxPower.Status != collectors.StatusUntrusted || r.RxPower.Value != 0 {
			t.Errorf("%s: %+v", name, r.RxPower)
		}
		if r.Thresholds == nil || r.Thresholds.RxPower.AlarmLow.Known {
			t.Errorf("%s: thresholds %+v", name, r.Thresholds)
		}
	}
}

// A negative calibrated power is no light, not an error and no number.
func TestDecodeCalibratedBelowZero(t *testing.T) {
	im := images(t, "sff8472-extcal-linear-signed-offsets")[0]
	a2 := bytes.Clone(im.a2)
	a2[104], a2[105] = 0, 0 // 0*0.25 - 3.5 counts
	_, r, err := module.Decode(im.a0, a2, "m")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(collectors.Reading{Unit: "dBm", Status: collectors.StatusNoLight, Source: "m", Raw: "0x0000"}, r.RxPower); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Constants that make the supply vanish do not calibrate.
func TestDecodeCalibratedSupplyZero(t *testing.T) {
	im := images(t, "sff8472-extcal-unity")[0]
	a0, a2 := bytes.Clone(im.a0), bytes.Clone(im.a2)
	clear(a2[56:92])
	fix(a0, a2)
	_, r, err := module.Decode(a0, a2, "m")
	if err != nil || r.RxPower.Status != collectors.StatusUntrusted || r.Voltage.OK() {
		t.Errorf("rx %+v, voltage %+v, error %v", r.RxPower, r.Voltage, err)
	}
}

func TestDecodeRefusesOtherKinds(t *testing.T) {
	for _, im := range append(images(t, "sff8636-*"), images(t, "cmis-*")...) {
		_, r, err := module.Decode(im.a0, im.a2, "m")
		if !errors.Is(err, module.ErrUnknownKind) {
			t.Errorf("%s: %v", im.name, err)
		}
		if r.RxPower.Status != collectors.StatusError {
			t.Errorf("%s: %+v", im.name, r.RxPower)
		}
	}
	for n := range 96 {
		if _, _, err := module.Decode(make([]byte, n), nil, "m"); err == nil {
			t.Errorf("%d bytes accepted", n)
		}
	}
}

// A truncated image yields the whole reading or none.
func TestDecodeTruncated(t *testing.T) {
	for _, im := range sff8472(t) {
		for n := range len(im.a2) {
			_, r, err := module.Decode(im.a0, im.a2[:n], "m")
			if err != nil {
				t.Fatal(err)
			}
			if r.RxPower.OK() && (im.want.RxPowerDBm == nil || math.Abs(r.RxPower.Value-*im.want.RxPowerDBm) > tolerance) {
				t.Errorf("%s cut at %d: %+v", im.name, n, r.RxPower)
			}
			if n < 120 && (r.RxPower.OK() || r.RxPower.Status == collectors.StatusNoLight) {
				t.Errorf("%s cut at %d: %+v", im.name, n, r.RxPower)
			}
		}
	}
}

// A flipped byte in the parts that have a checksum is always noticed.
func TestDecodeFlippedByte(t *testing.T) {
	for _, im := range sff8472(t) {
		if im.a2 == nil {
			continue
		}
		check := func(a0, a2 []byte, what string, at int) {
			_, r, err := module.Decode(a0, a2, "m")
			if err == nil && (r.RxPower.OK() || r.RxPower.Status == collectors.StatusNoLight) {
				t.Errorf("%s, %s byte %d: %+v", im.name, what, at, r.RxPower)
			}
		}
		for at := range 96 {
			for bit := range 8 {
				a0 := bytes.Clone(im.a0)
				a0[at] ^= 1 << bit
				check(a0, im.a2, "A0h", at)
				a2 := bytes.Clone(im.a2)
				a2[at] ^= 1 << bit
				check(im.a0, a2, "A2h", at)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, im := range append(sff8472(f), append(images(f, "sff8636-*"), images(f, "cmis-*")...)...) {
		f.Add(im.a0, im.a2)
	}
	f.Fuzz(func(t *testing.T, a0, a2 []byte) {
		_, r, err := module.Decode(a0, a2, "m")
		if err != nil {
			return
		}
		for _, q := range []collectors.Reading{r.RxPower, r.TxPower, r.Bias, r.Temperature, r.Voltage} {
			if math.IsNaN(q.Value) || math.IsInf(q.Value, 0) || !q.OK() && q.Value != 0 || q.Status == "" {
				t.Errorf("impossible reading %+v", q)
			}
		}
		if th := r.Thresholds; th != nil {
			for _, l := range []optics.Limits{th.RxPower, th.TxPower, th.Bias, th.Temperature, th.Voltage} {
				for _, v := range []optics.Limit{l.AlarmHigh, l.AlarmLow, l.WarnHigh, l.WarnLow} {
					if math.IsNaN(v.Value) || math.IsInf(v.Value, 0) {
						t.Errorf("impossible threshold %+v", v)
					}
				}
			}
		}
	})
}

// The loss-of-signal output is carried beside the power, and only where the
// options say that there is one.
func TestDecodeLossOfSignal(t *testing.T) {
	im := images(t, "gpon-ma5671a-normal")[0]
	for _, tt := range []struct {
		options, status byte
		known, los      bool
	}{
		{0x02, 0x02, true, true},
		{0x02, 0x00, true, false},
		{0x04, 0x02, true, true},
		{0x06, 0x02, false, false}, // both senses
		{0x00, 0x02, false, false},
	} {
		a0, a2 := bytes.Clone(im.a0), bytes.Clone(im.a2)
		a0[65], a2[110] = a0[65]&^0x06|tt.options, tt.status
		fix(a0, a2)
		_, r, err := module.Decode(a0, a2, "m")
		if err != nil || r.RxLOSKnown != tt.known || r.RxLOS != tt.los || !r.RxPower.OK() {
			t.Errorf("%+v: %+v, %v", tt, r, err)
		}
	}
}
