package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ontagent/cmd/cli"
	"ontagent/collectors/optics"
	"ontagent/collectors/optics/console"
	"ontagent/collectors/optics/module"
	"ontagent/transport/durable"
)

// offline runs a verb with something on standard input and returns what it
// printed.
func offline(t *testing.T, stdin []byte, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{in: bytes.NewReader(stdin), out: &out, err: &errs}
	code = a.run(t.Context(), args)
	return code, out.String(), errs.String()
}

// samples are the captures of a package, with what must be printed of them.
func samples(t *testing.T, pattern, ext string) map[string]map[string]any {
	t.Helper()
	files, err := filepath.Glob(pattern + ext)
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	out := map[string]map[string]any{}
	for _, f := range files {
		b, err := os.ReadFile(strings.TrimSuffix(f, ext) + ".json")
		if err != nil {
			t.Fatal(err)
		}
		out[f] = object(t, b)
		delete(out[f], "note")
		delete(out[f], "expected_from")
	}
	return out
}

func object(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return v
}

// same compares numbers with a tolerance and lists without order.
func same(want, got any, tolerance float64) bool {
	switch w := want.(type) {
	case float64:
		g, ok := got.(float64)
		return ok && math.Abs(w-g) <= tolerance
	case []any:
		g, ok := got.([]any)
		if !ok || len(w) != len(g) {
			return false
		}
		text := func(l []any) (out []string) {
			for _, v := range l {
				out = append(out, fmt.Sprint(v))
			}
			slices.Sort(out)
			return out
		}
		return slices.Equal(text(w), text(g))
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(w) != len(g) {
			return false
		}
		for k := range w {
			if !same(w[k], g[k], tolerance) {
				return false
			}
		}
		return true
	}
	return want == got
}

func TestOpticsDecodePrintsEverySample(t *testing.T) {
	for file, want := range samples(t, "../../collectors/optics/module/testdata/*", ".bin") {
		image, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, run := range map[string]func() (int, string, string){
			"file":  func() (int, string, string) { return offline(t, nil, "optics", "decode", file, "--json") },
			"stdin": func() (int, string, string) { return offline(t, image, "optics", "decode", "--json", "-") },
		} {
			code, out, errs := run()
			if code != cli.OK || errs != "" {
				t.Errorf("%s, %s: exit code %d: %s", file, name, code, errs)
			}
			got := object(t, []byte(out))
			delete(got, "lanes")
			for key := range want {
				if !same(want[key], got[key], 1.5e-6) {
					t.Errorf("%s, %s: %s is %v, want %v", file, name, key, got[key], want[key])
				}
			}
			for key := range got {
				if _, ok := want[key]; !ok {
					t.Errorf("%s, %s: invented %s: %v", file, name, key, got[key])
				}
			}
		}
		if code, out, _ := offline(t, nil, "optics", "decode", file); code != cli.OK || !strings.Contains(out, "vendor ") {
			t.Errorf("%s as text: exit code %d: %s", file, code, out)
		}
	}
}

func TestOpticsDecodePrintsLanes(t *testing.T) {
	_, out, _ := offline(t, nil, "optics", "decode", "--json", "../../collectors/optics/module/testdata/sff8636-finisar-ftl410qe3c-qsfp.bin")
	lanes, ok := object(t, []byte(out))["lanes"].([]any)
	if !ok || len(lanes) != 4 {
		t.Fatalf("printed %s", out)
	}
	want := map[string]any{"rx_power_dbm": -0.8868, "rx_power_status": "ok", "tx_power_dbm": -1.1850, "bias_ma": 6.308}
	if !same(want, lanes[0], 1e-4) {
		t.Errorf("lane 1 %v, want %v", lanes[0], want)
	}
}

// understood says whether a console sample tells anything.
func understood(want map[string]any) bool {
	return len(want) > 1 || want["rx_power_status"] == "no_light"
}

func TestOpticsParsePrintsEverySample(t *testing.T) {
	for file, want := range samples(t, "../../collectors/optics/console/testdata/*/*", ".txt") {
		driver, _ := want["driver"].(string)
		if !slices.Contains(console.Drivers(), driver) {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, run := range map[string]func() (int, string, string){
			"file": func() (int, string, string) {
				return offline(t, nil, "optics", "parse", "--driver", driver, file, "--json")
			},
			"stdin": func() (int, string, string) {
				return offline(t, text, "optics", "parse", "-", "--json", "--driver", driver)
			},
		} {
			code, out, errs := run()
			if understood(want) != (code == cli.OK) || code != cli.OK && code != cli.Usage || (errs == "") != (code == cli.OK) {
				t.Errorf("%s, %s: exit code %d: %s", file, name, code, errs)
			}
			got := object(t, []byte(out))
			for key := range want {
				tolerance := map[string]float64{"temperature_c": 0.6, "voltage_v": 0.01}[key] + 0.06
				if !same(want[key], got[key], tolerance) {
					t.Errorf("%s, %s: %s is %v, want %v", file, name, key, got[key], want[key])
				}
			}
			for key := range got {
				if _, ok := want[key]; !ok && key != "session" {
					t.Errorf("%s, %s: invented %s: %v", file, name, key, got[key])
				}
			}
		}
	}
}

func TestOpticsOfflineUsage(t *testing.T) {
	huge := bytes.Repeat([]byte("x"), maxImage+1)
	for args, says := range map[string]string{
		"optics decode":                       "takes one file",
		"optics decode a b":                   "takes one file",
		"optics decode /nope":                 "cannot read input",
		"optics decode --driver x -":          "flag provided but not defined",
		"optics decode -":                     "longer than",
		"optics parse -":                      "--driver is missing",
		"optics parse --driver nope -":        `no driver "nope"`,
		"optics parse --driver rtl960x /nope": "cannot read input",
		"optics parse --driver rtl960x -":     "neither a reading nor a state",
	} {
		code, _, errs := offline(t, huge, strings.Fields(args)...)
		if code != cli.Usage || !strings.Contains(errs, says) {
			t.Errorf("%s: exit code %d: %s", args, code, errs)
		}
	}
	for _, empty := range []string{"optics decode -", "optics parse --driver rtl960x -"} {
		if code, _, errs := offline(t, nil, strings.Fields(empty)...); code != cli.Usage || errs == "" {
			t.Errorf("nothing for %s: exit code %d: %s", empty, code, errs)
		}
	}
	for _, help := range []string{"optics decode --help", "optics parse -h"} {
		if code, out, _ := offline(t, nil, strings.Fields(help)...); code != cli.OK || !strings.Contains(out, "--json") {
			t.Errorf("%s: exit code %d: %s", help, code, out)
		}
	}
}

// A broken image is told apart from a dark one, and is no success.
func TestOpticsDecodeBroken(t *testing.T) {
	whole, err := os.ReadFile("../../collectors/optics/module/testdata/gpon-ma5671a-normal.bin")
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, b []byte, status string) {
		t.Helper()
		code, out, errs := offline(t, b, "optics", "decode", "--json", "-")
		got := object(t, []byte(out))
		if code != cli.Usage || errs == "" || got["rx_power_status"] != status || got["rx_power_dbm"] != nil || got["vendor"] != "HUAWEI" {
			t.Errorf("%s: exit code %d: %s %s", name, code, out, errs)
		}
	}
	bad := bytes.Clone(whole)
	bad[256] ^= 1
	check("checksum", bad, "untrusted")
	bad = bytes.Clone(whole)
	bad[256+98], bad[256+99] = 0, 0
	check("no supply", bad, "untrusted")
	check("A2h is missing", whole[:256], "error")
	check("A2h is cut", whole[:300], "error")
}

// Whatever comes in, one JSON object or nothing comes out, and nobody panics.
func TestOpticsOfflineGarbage(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		b := make([]byte, random.IntN(700))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		if len(b) > 0 {
			b[0] = []byte{2, 3, 0x0d, 0x11, 0x18, 0x1e, 0xff}[random.IntN(7)]
		}
		for _, args := range [][]string{{"optics", "decode", "-", "--json"}, {"optics", "parse", "--driver", "rtl960x", "--json", "-"}} {
			code, out, _ := offline(t, b, args...)
			if code != cli.OK && code != cli.Usage {
				t.Errorf("%v: exit code %d", args, code)
			}
			if out != "" {
				object(t, []byte(out))
			}
		}
	}
}

// Every class that may be configured is one that is known, and the limits of
// the configuration are those that events go by.
func TestOpticsOptions(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, class := range optics.Classes() {
		o := opticsOptions(parseConfig(t, "config wan\n\toption optics_class '"+class.Name+"'\n"), nil, log)
		if o.Class == nil || *o.Class != class {
			t.Errorf("%s: %+v", class.Name, o.Class)
		}
	}
	o := opticsOptions(parseConfig(t, "config thresholds\n\toption optical_rx_min_dbm '-27'\n"), nil, log)
	if o.Class != nil || o.RxMinDBm != -27 || o.RxMaxDBm != -8 {
		t.Errorf("options %+v", o)
	}
}

func TestBaselineFile(t *testing.T) {
	f := baselineFile{durable.OS{}, filepath.Join(t.TempDir(), "optics.json")}
	if data, err := f.Load(); data != nil || err != nil {
		t.Errorf("nothing was saved: %q, %v", data, err)
	}
	if err := f.Save([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	if data, err := f.Load(); string(data) != "{}" || err != nil {
		t.Errorf("saved: %q, %v", data, err)
	}
	if err := f.Save(make([]byte, maxBaseline+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); err == nil {
		t.Error("too much was read")
	}
}

func TestPrintOpticsLanes(t *testing.T) {
	image, err := os.ReadFile("../../collectors/optics/module/testdata/cmis-synthetic-lower-p00-p11.bin")
	if err != nil {
		t.Fatal(err)
	}
	_, r, err := module.DecodeImage(image, "module:eth1")
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(opticsAnswer{Sources: []opticsView{viewOf(r, true)}})
	if err != nil {
		t.Fatal(err)
	}
	var answer opticsAnswer // as it comes from the daemon
	if err := json.Unmarshal(data, &answer); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	printOptics(&app{out: &out}, answer)
	if text := out.String(); !strings.Contains(text, "lane 1  rx -0.97 dBm") || !strings.Contains(text, "lane 8  rx no_light") || strings.Contains(text, "rx 0.00") {
		t.Errorf("printed %s", text)
	}
}
