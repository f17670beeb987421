package console_test

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/collectors"
	"ontagent/collectors/optics"
	"ontagent/collectors/optics/console"
	"ontagent/collectors/pon"
)

// PON converts: that is how a console becomes a pon.Reader.
var _ = pon.Status(console.PON{})

// sample is a captured text with what must be found in it.
type sample struct {
	name string
	text []byte
	want expected
}

// expected are the fields of the JSON beside a capture.
type expected struct {
	Driver        string            `json:"driver"`
	RxPowerDBm    *float64          `json:"rx_power_dbm"`
	RxPowerStatus collectors.Status `json:"rx_power_status"`
	TxPowerDBm    *float64          `json:"tx_power_dbm"`
	BiasMA        *float64          `json:"bias_ma"`
	TemperatureC  *float64          `json:"temperature_c"`
	VoltageV      *float64          `json:"voltage_v"`
	PONState      string            `json:"pon_state"`
	PONStateRaw   string            `json:"pon_state_raw"`
	Alarms        *[]string         `json:"alarms"`
	Warnings      *[]string         `json:"warnings"`
	Session       console.Session   `json:"session"`
	Counters      map[string]uint64 `json:"counters"`
	Note          string            `json:"note"`
}

func samples(tb testing.TB) []sample {
	tb.Helper()
	files, err := filepath.Glob("testdata/*/*.txt")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no captures: %v", err)
	}
	var out []sample
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		b, err := os.ReadFile(strings.TrimSuffix(f, ".txt") + ".json")
		if err != nil {
			tb.Fatal(err)
		}
		s := sample{name: strings.TrimSuffix(filepath.Base(f), ".txt"), text: text}
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&s.want); err != nil {
			tb.Fatalf("%s: %v", f, err)
		}
		out = append(out, s)
	}
	return out
}

// differences compares facts with what was expected, exactly as to what is
// there and with the tolerances of the readings.
func differences(want expected, f console.Facts) string {
	var out strings.Builder
	diff := func(what string, want, got any) {
		if d := cmp.Diff(want, got); d != "" {
			out.WriteString(what + " (-want +got):\n" + d)
		}
	}
	value := func(what string, want *float64, got collectors.Reading, tolerance float64) {
		switch {
		case want == nil && got.OK():
			diff(what, "no value", got)
		case want != nil && !got.OK():
			diff(what, *want, got)
		case want != nil && math.Abs(*want-got.Value) > tolerance:
			diff(what, *want, got.Value)
		}
	}
	value("rx power", want.RxPowerDBm, f.Optics.RxPower, 0.06)
	value("tx power", want.TxPowerDBm, f.Optics.TxPower, 0.06)
	value("bias", want.BiasMA, f.Optics.Bias, 0.06)
	value("temperature", want.TemperatureC, f.Optics.Temperature, 0.6)
	value("voltage", want.VoltageV, f.Optics.Voltage, 0.01)
	diff("rx status", want.RxPowerStatus, f.Optics.RxPower.Status)
	diff("state", want.PONStateRaw, f.PON.Raw)
	if want.PONStateRaw != "" {
		diff("normalised state", want.PONState, pon.Normalise(f.PON.Raw))
	}
	if known := f.Optics.AlarmsKnown || len(f.PON.AlarmsKnown) > 0; known || want.Alarms != nil {
		all := append(append([]string{}, f.PON.Alarms...), f.Optics.Alarms...)
		slices.Sort(all)
		if want.Alarms == nil {
			diff("alarms", "unknown", all)
		} else {
			expect := append([]string{}, *want.Alarms...)
			slices.Sort(expect)
			diff("alarms", expect, all)
		}
	}
	if want.Warnings != nil || f.Optics.WarningsKnown {
		if want.Warnings == nil {
			diff("warnings", "unknown", f.Optics.Warnings)
		} else {
			diff("warnings", *want.Warnings, f.Optics.Warnings)
		}
	}
	diff("counters", want.Counters, f.PON.Counters)
	if want.Session != "" {
		diff("session", want.Session, f.Session)
	}
	return out.String()
}

func TestParseCaptures(t *testing.T) {
	for _, s := range samples(t) {
		variants := map[string][]byte{
			"as it is":  s.text,
			"CR LF":     bytes.ReplaceAll(bytes.ReplaceAll(s.text, []byte("\r"), nil), []byte("\n"), []byte("\r\n")),
			"LF CR":     bytes.ReplaceAll(bytes.ReplaceAll(s.text, []byte("\r"), nil), []byte("\n"), []byte("\n\r")),
			"two CR LF": bytes.ReplaceAll(bytes.ReplaceAll(s.text, []byte("\r"), nil), []byte("\n"), []byte("\r\r\n")),
			"^M":        bytes.ReplaceAll(bytes.ReplaceAll(s.text, []byte("\r"), nil), []byte("\n"), []byte("^M\r\n")),
			"NULs":      bytes.ReplaceAll(s.text, []byte("\n"), []byte("\n\x00\x00")),
			"coloured":  bytes.ReplaceAll(s.text, []byte("\n"), []byte("\x1b[0m\n\x1b[1;32m\x1b[K")),
			"kernel":    bytes.ReplaceAll(s.text, []byte("\n"), []byte("\n[   12.345678] eth0: Rx Power: -3.000000  dBm\n")),
		}
		for variant, text := range variants {
			t.Run(s.name+"/"+variant, func(t *testing.T) {
				f, err := console.Parse(s.want.Driver, text)
				if err != nil {
					t.Fatal(err)
				}
				if d := differences(s.want, f); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// A kernel message that cuts a line in two, at any place, changes nothing.
func TestParseKernelMessageWithinLine(t *testing.T) {
	const (
		text   = "RTK.0> pon get transceiver rx-power\r\nRx Power: -22.924298  dBm\r\nRTK.0> "
		kernel = "[   12.345678] eth0.2: 7 dBm\r\n"
	)
	for at := range len(text) + 1 {
		f, err := console.Parse("rtl960x", []byte(text[:at]+kernel+text[at:]))
		if err != nil {
			t.Fatal(err)
		}
		if r := f.Optics.RxPower; !r.OK() || r.Value != -22.924298 {
			t.Errorf("cut at %d (%q): %+v", at, text[max(0, at-10):at], r)
		}
	}
}

// Cut off anywhere, a capture yields a subset of what it told whole.
func TestParseTruncated(t *testing.T) {
	for _, s := range samples(t) {
		for _, text := range [][]byte{s.text, bytes.ReplaceAll(s.text, []byte("\n"), []byte("\r\n"))} {
			step := 1
			if len(text) > 1500 {
				step = 13 // long tables of nothing
			}
			for n := 0; n <= len(text); n += step {
				f, err := console.Parse(s.want.Driver, text[:n])
				if err != nil {
					t.Fatal(err)
				}
				if d := invented(s.want, f); d != "" {
					t.Errorf("%s cut at %d (…%q): %s", s.name, n, text[max(0, n-20):n], d)
				}
			}
		}
	}
}

// invented returns what f tells that want does not.
func invented(want expected, f console.Facts) string {
	var out strings.Builder
	value := func(what string, want *float64, got collectors.Reading, tolerance float64) {
		if got.OK() && (want == nil || math.Abs(*want-got.Value) > tolerance) {
			out.WriteString(what + ": " + got.Raw + "\n")
		}
	}
	value("rx power", want.RxPowerDBm, f.Optics.RxPower, 0.06)
	value("tx power", want.TxPowerDBm, f.Optics.TxPower, 0.06)
	value("bias", want.BiasMA, f.Optics.Bias, 0.06)
	value("temperature", want.TemperatureC, f.Optics.Temperature, 0.6)
	value("voltage", want.VoltageV, f.Optics.Voltage, 0.01)
	if f.Optics.RxPower.Status == collectors.StatusNoLight && want.RxPowerStatus != collectors.StatusNoLight {
		out.WriteString("no light\n")
	}
	if f.PON.Raw != "" && f.PON.Raw != want.PONStateRaw {
		out.WriteString("state " + f.PON.Raw + "\n")
	}
	for name, n := range f.PON.Counters {
		if want.Counters[name] != n {
			out.WriteString("counter " + name + "\n")
		}
	}
	for _, name := range append(append([]string{}, f.PON.Alarms...), f.Optics.Alarms...) {
		if want.Alarms == nil || !slices.Contains(*want.Alarms, name) {
			out.WriteString("alarm " + name + "\n")
		}
	}
	if f.Optics.AlarmsKnown && want.Alarms != nil {
		for _, name := range *want.Alarms {
			if (strings.HasPrefix(name, "rx_") || strings.HasPrefix(name, "tx_")) && !slices.Contains(f.Optics.Alarms, name) {
				out.WriteString("alarm " + name + " missing from a list said to be complete\n")
			}
		}
	}
	return out.String()
}

// One byte changed to something that is no digit never makes a wrong value.
// (A digit that became another digit cannot be told from a reading.)
func TestParseFlippedByte(t *testing.T) {
	for _, s := range samples(t) {
		if len(s.text) > 600 || testing.Short() && len(s.text) > 100 {
			continue
		}
		for at := range s.text {
			for _, b := range flips(s.text[at]) {
				if undetectable(s.want.Driver, s.text, at, b) {
					continue
				}
				text := bytes.Clone(s.text)
				text[at] = b
				f, err := console.Parse(s.want.Driver, text)
				if err != nil {
					t.Fatal(err)
				}
				// An alarm word that is not clear is active, whatever it is:
				// debouncing takes care of that.
				f.PON.Alarms, f.Optics.Alarms = nil, nil
				f.Optics.AlarmsKnown = false
				if d := invented(s.want, f); d != "" {
					t.Errorf("%s, byte %d %q made %q: %s", s.name, at, s.text[at], b, d)
				}
			}
		}
	}
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// flips returns what a byte may become: with one bit wrong, or something that
// means something to the parser.
func flips(old byte) []byte {
	out := []byte("\x00\a\b\t\n\r\x1b\x1a\x7f\x80\xff -.,09O)]^%#>=|mC")
	for bit := range 8 {
		out = append(out, old^1<<bit)
	}
	return out
}

// loose reports whether the byte is the first of a number in a column, or in a
// number that only the line's end ends.
func loose(text []byte, at int) bool {
	line := text[at:]
	if end := bytes.IndexByte(line, '\n'); end >= 0 {
		line = line[:end]
	}
	return len(bytes.Trim(line, "0123456789.")) == 0 || at > 0 && bytes.IndexByte([]byte(" \t:"), text[at-1]) >= 0
}

// undetectable: what another reading could have printed as well.
func undetectable(driver string, text []byte, at int, b byte) bool {
	old := text[at]
	nextIsDigit := at+1 < len(text) && isDigit(text[at+1])
	switch {
	case isDigit(old) && isDigit(b), old == '-' && isDigit(b) && nextIsDigit:
		return true
	case driver != "rtl960x" && (isDigit(old) || old == '.') && bytes.IndexByte([]byte(" \t\r\n"), b) >= 0 && loose(text, at):
		return true // padded columns, or a number with nothing behind it
	case isDigit(old) && b == '-' && nextIsDigit && at > 0 && bytes.IndexByte([]byte(" \t:="), text[at-1]) >= 0:
		return true // a sign in place of the first digit
	case old == ' ' && isDigit(b) && nextIsDigit:
		return true // one digit more, where a counter is padded
	case isDigit(old) && (b == '\n' || b == '\r') && at > 0 && isDigit(text[at-1]):
		return true // a counter has no unit: a line end ends it
	}
	return false
}

func TestParseRefusesWhatIsNoReading(t *testing.T) {
	const (
		ok      = collectors.StatusOK
		dark    = collectors.StatusNoLight
		bad     = collectors.StatusError
		strange = collectors.StatusUntrusted
	)
	tests := []struct {
		text string
		want collectors.Status
	}{
		{"Rx Power: -22.924298  dBm\n", ok},
		{"Rx Power: -22.924298  dBm", ok},
		{"Rx Power: -22,924298  dBm\n", ok},
		{"Rx Power: 0.000000  dBm\n", ok}, // 1 mW, not "none"
		{"Rx Power: -22.9dBm\n", ok},
		{"RTK.0> Rx Power: -22.9  dBm\n", ok}, // no echo
		{"Rx Power: -22.9  dBmRTK.0> ", ok},   // no line end
		{"Rx Power: -inf  dBm\n", dark},
		{"Rx Power: -40.000000  dBm\n", dark},
		{"Rx Power: -92.924298  dBm\n", strange},
		{"Rx Power: 22.924298  dBm\n", strange},
		{"Rx Power: -22.924298\n", bad},
		{"Rx Power: -22.924298", ""},
		{"Rx Power: -22.924298  dB", ""},
		{"Rx Power: -22.924298  mW\n", bad},
		{"Rx Power: -22.924298  dBm low\n", bad},
		{"Rx Power: -22.9 -23.0 dBm\n", bad},
		{"Rx Power: -22.9\x004298  dBm\n", bad},
		{"Rx Power: -22.9\x1b4298  dBm\n", bad},
		{"Rx Power: -22.92\b4298  dBm\n", bad},
		{"Rx Power: -22.9\a  dBm\n", bad},
		{"Rx Power: -22.\n924298  dBm\n", bad},
		{"Rx Power: \x1b[32m-22.9\x1b[0m  dBm\n", ok},
		{"Rx Power: -22.9\x1b[0m4  dBm\n", bad},
		{"Rx Power: 1e1  dBm\n", bad},
		{"Rx Power: inf  dBm\n", bad},
		{"Rx Power: nan  dBm\n", bad},
		{"Rx Power: --\n", bad},
		{"Rx Power: N/A\nAlarm LOS, status: occur\n", dark},
		{"Rx Power: N/A\nAlarm LOS, status: clear\n", bad},
		{"Rx Power:-22.9  dBm\n", bad},
		{"Rx Power: -22.9  dBm\nVoltage: 0.000000 V\n", strange},
		{"Rx Power: -inf  dBm\nVoltage: 0.000000 V\n", strange},
		{"RTK.0> pon get transceiver rx-power\n% transceiver read failed\n", bad},
		{"RTK.0> pon get transceiver rx-power\nTx Power: -22.9  dBm\n", ""},
		{"RTK.0> pon get transceiver tx-power\nRx Power: -22.9  dBm\n", ""},
		{"% transceiver read failed\n", ""},
		{"pon get transceiver rx-power\n", ""},
		{"xRx Power: -22.9  dBm\n", ""},
	}
	for _, tt := range tests {
		f, err := console.Parse("rtl960x", []byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		r := f.Optics.RxPower
		if r.Status != tt.want || r.Status != ok && r.Value != 0 {
			t.Errorf("%q: got %+v, want status %q", tt.text, r, tt.want)
		}
	}
}

func TestParseTemperatureBelowZero(t *testing.T) {
	for text, want := range map[string]float64{
		"Temperature: 250.750000 C\n": -5.25,
		"Temperature: 255.996094 C\n": -0.003906,
		"Temperature: 127.500000 C\n": 127.5,
		"Temperature: 0.000000 C\n":   0,
	} {
		f, err := console.Parse("rtl960x", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if r := f.Optics.Temperature; !r.OK() || math.Abs(r.Value-want) > 1e-6 || r.Unit != optics.UnitTemperature {
			t.Errorf("%q: got %+v, want %v", text, r, want)
		}
	}
}

func TestParseState(t *testing.T) {
	for text, want := range map[string]string{
		"ONU state: Operation State(O5) \n\r":         "O5",
		"ONU state: Emergency Stop State(O7) \n\r":    "O7",
		"ONU state: Ranging State(O4)":                "O4",
		"ONU state: Operation State(O5":               "",
		"ONU state: Operation State\n":                "",
		"ONU state: Operation State(O7) \n":           "", // words and name disagree
		"ONU state: Unknown\n":                        "Unknown",
		"ONU state: Unkno":                            "",
		"ONU state: Some New State(O5.1) \n":          "O5.1",
		"ONU state: Operation State(O5) RTK.0> \n":    "O5",
		"ONU state: Operation State(O5) previously\n": "",
	} {
		f, err := console.Parse("rtl960x", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if f.PON.Raw != want {
			t.Errorf("%q: got %q, want %q", text, f.PON.Raw, want)
		}
	}
}

func TestParseFlows(t *testing.T) {
	const (
		head = "============\n GPON ONU MAC U/S Flow Status\nFlow ID | GEM Port | Type | TCont\n"
		eth  = "      0 |      263 |  ETH |     0\n      1 |      264 |  ETH |     1\n      2 |      267 |  ETH |     1\n"
		omci = "     64 |        2 | OMCI |    16\n"
		foot = "============\n"
	)
	tests := []struct {
		name, text  string
		provisioned string
		gem, tconts int
	}{
		{"provisioned", head + eth + omci + foot, pon.Yes, 3, 2},
		{"OMCI alone", head + omci + foot, pon.No, 0, 0},
		{"empty", head + foot, pon.No, 0, 0},
		{"cut off", head + eth, pon.Unknown, 0, 0},
		{"garbled row", head + "      0 |      2x3 |  ETH |     0\n" + foot, pon.Unknown, 0, 0},
		{"text within", head + eth + "eth0 link up\n" + foot, pon.Unknown, 0, 0},
		{"downstream table", "Flow ID | GEM Port | Type | Multicast | AES\n      1 |      263 |  ETH |           |   *\n" + foot, pon.Unknown, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := console.Parse("rtl960x", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			p := f.PON
			if p.OMCIProvisioned != tt.provisioned || p.GEMPorts != tt.gem || p.TConts != tt.tconts {
				t.Errorf("got %q, %d GEM ports, %d T-CONTs (%s)", p.OMCIProvisioned, p.GEMPorts, p.TConts, p.OMCIEvidence)
			}
		})
	}
}

func TestParseSerial(t *testing.T) {
	for text, want := range map[string]string{
		"  321 admin    22616 S    omci_app -s DSNW00000001 -f off 0\n":                                              "DSNW00000001",
		"  321 admin    22616 S    /bin/omci_app -d err -s DSNW00000001\n":                                           "DSNW00000001",
		"  321 admin    22616 S    omci_app -s DSNW0000":                                                             "",
		"  321 admin    22616 S    omci_app -s DSNW000000zz -f\n":                                                    "",
		"  321 admin    22616 S    other_app -s DSNW00000001\n":                                                      "",
		"  321 admin S omci_app -s DSNW00000001 -f\n  477 admin S omci_app -s DSNW00000002 -f\n":                     "",
		"# ps\n  321 admin S omci_app -s DSNW00000001 -f\n  477 admin S omci_app -s DSNW00000001 -f\n# diag\nRTK.0>": "DSNW00000001",
	} {
		f, err := console.Parse("rtl960x", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if f.PON.Serial != want {
			t.Errorf("%q: got %q, want %q", text, f.PON.Serial, want)
		}
	}
}

func TestParseSession(t *testing.T) {
	for text, want := range map[string]console.Session{
		"login: ":                  console.SessionLogin,
		"RTL login:":               console.SessionLogin,
		"Username:":                console.SessionLogin,
		"login: admin\nPassword: ": console.SessionLogin,
		"Last login: Thu Nov 21\n": "",
		"# ":                       console.SessionPrompt,
		"RTK.0> command:":          console.SessionPrompt,
		"U-Boot 2011.12\nHit any key to stop autoboot:  3 ": console.SessionBootLoader,
		"FALCON => ": console.SessionBootLoader,
		"CFE> ":      console.SessionBootLoader,
		"9602C# ":    "",
		"U-Boot 2011.12\nLinux version 2.6.30.9\nlogin: ": console.SessionLogin,
		"": "",
	} {
		f, err := console.Parse("rtl960x", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if f.Session != want {
			t.Errorf("%q: got %q, want %q", text, f.Session, want)
		}
	}
}

func TestParseUnknownDriver(t *testing.T) {
	if _, err := console.Parse("toaster", nil); err == nil || !strings.Contains(err.Error(), "rtl960x") {
		t.Errorf("got %v, want an error that lists the drivers", err)
	}
}

func FuzzParse(f *testing.F) {
	names := console.Drivers()
	for _, s := range samples(f) {
		f.Add(uint8(slices.Index(names, s.want.Driver)), s.text)
	}
	f.Fuzz(func(t *testing.T, driver uint8, text []byte) {
		facts, err := console.Parse(names[int(driver)%len(names)], text)
		if err != nil {
			t.Fatal(err)
		}
		o := facts.Optics
		for _, r := range []collectors.Reading{o.RxPower, o.TxPower, o.Bias, o.Temperature, o.Voltage} {
			if math.IsNaN(r.Value) || math.IsInf(r.Value, 0) || !r.OK() && r.Value != 0 {
				t.Errorf("impossible reading %+v", r)
			}
			if len(r.Raw) > 80 {
				t.Errorf("raw text of %d bytes", len(r.Raw))
			}
		}
		if r := o.RxPower; r.OK() && (r.Value <= -40 || r.Value > 10) {
			t.Errorf("impossible power %+v", r)
		}
	})
}
