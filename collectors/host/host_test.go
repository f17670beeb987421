package host_test

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/collectors"
	"ontagent/collectors/host"
)

// tree copies a captured tree, so that a test can change it, and adds what this
// process has to have in it.
func tree(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", name))); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "proc/self/statm", "3000 1500 900 700 0 800 0\n")
	for _, fd := range []string{"0", "1", "2", "3"} {
		put(t, dir, "proc/self/fd/"+fd, "")
	}
	return dir
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func collector(dir string) *host.Collector {
	return host.New(host.Options{
		ProcRoot: filepath.Join(dir, "proc"), SysRoot: filepath.Join(dir, "sys"), DiskPath: dir,
	})
}

// fields returns what Collect publishes, by key, and its error.
func fields(t *testing.T, c *host.Collector) (map[string]any, error) {
	t.Helper()
	s, err := c.Collect(t.Context())
	if len(s) != 1 || s[0].Subject != "" {
		t.Fatalf("samples %+v, %v", s, err)
	}
	all := map[string]any{}
	for _, f := range s[0].Fields {
		if _, twice := all[f.Key]; twice {
			t.Errorf("field %s twice", f.Key)
		}
		if v, ok := f.Value.(float64); ok && (math.IsNaN(v) || math.IsInf(v, 0)) {
			t.Errorf("%s is %v", f.Key, v)
		}
		all[f.Key] = f.Value
	}
	return all, err
}

const (
	statBefore = "cpu  0 0 0 0\ncpu0 100 0 100 1000 0 0 0 0 0 0\ncpu1 100 0 100 1000 50 0 0 0 0 0\nintr 1\n"
	// In 10 s cpu0 was busy for 9.5 s, 4 of them in softirq; cpu1 for 1 s, and
	// waited for 2 s.
	statAfter = "cpu  0 0 0 0\ncpu0 500 0 250 1050 0 0 400 0 0 0\ncpu1 200 0 100 1700 250 0 0 0 0 0\nintr 1\n"
)

func TestCollect(t *testing.T) {
	dir := tree(t, "mt7621-invented")
	put(t, dir, "proc/stat", statBefore)
	c := collector(dir)
	first, err := fields(t, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := first["cpu_busy_ratio"]; ok {
		t.Error("processor figures in the first sample")
	}
	put(t, dir, "proc/stat", statAfter)
	got, err := fields(t, c)
	if err != nil {
		t.Fatal(err)
	}
	for _, live := range []string{"disk_total_bytes", "disk_free_bytes", "cpu_seconds_total", "goroutines"} {
		if got[live] == nil {
			t.Errorf("no %s", live)
		}
		delete(got, live)
	}
	if v, ok := got["disk_used_ratio"].(float64); !ok || v < 0 || v > 1 {
		t.Errorf("disk_used_ratio %v", got["disk_used_ratio"])
	}
	delete(got, "disk_used_ratio")
	want := map[string]any{
		"cpu_busy_ratio": 0.525, "cpu_max_core_busy_ratio": 0.95,
		"load1": 0.12, "load5": 0.08, "load15": 0.02,
		"mem_total_bytes": uint64(249684 << 10), "mem_available_bytes": uint64(174780 << 10), "mem_used_ratio": 0.3,
		"temperature_celsius": 61.875, "temperature_zone": "thermal_zone1:phy-thermal",
		"rss_bytes": uint64(1500 * os.Getpagesize()), "open_fds": int64(3),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	// Asked again at once, before a tick has passed: no figure, and the next one
	// spans the whole time.
	if got, _ := fields(t, c); got["cpu_busy_ratio"] != nil {
		t.Errorf("figure of no time: %v", got["cpu_busy_ratio"])
	}
}

func TestCollectOldKernelWithoutMemAvailableAndZones(t *testing.T) {
	got, err := fields(t, collector(tree(t, "xiaomi-r4a")))
	if err != nil {
		t.Fatal(err)
	}
	// Free, buffers, cached and what of the slab can be freed, less or more: the
	// kernel doesn't say better.
	total, ok1 := got["mem_total_bytes"].(uint64)
	available, ok2 := got["mem_available_bytes"].(uint64)
	if !ok1 || !ok2 || total != 124728<<10 || available < 61904<<10 || available > (61904+3736+13116+1820)<<10 {
		t.Errorf("%d bytes of %d available", available, total)
	}
	if got["load1"] != 1.02 {
		t.Errorf("load %v", got["load1"])
	}
	if v, ok := got["temperature_celsius"]; ok {
		t.Errorf("temperature %v without a zone", v)
	}
}

func TestRead(t *testing.T) {
	dir := tree(t, "mt7621-invented")
	put(t, dir, "proc/stat", statBefore)
	c := collector(dir)
	var waited time.Duration
	c.SetWait(func(_ context.Context, d time.Duration) error {
		waited += d
		put(t, dir, "proc/stat", statAfter)
		return nil
	})
	f, err := c.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if waited < 500*time.Millisecond {
		t.Errorf("watched the processor for %s", waited)
	}
	ok := func(v float64, unit, source string) collectors.Reading {
		return collectors.Reading{Value: v, Unit: unit, Status: collectors.StatusOK, Source: source}
	}
	temperature := ok(61.875, "Cel", "thermal_zone1:phy-thermal")
	temperature.Raw = "61875"
	want := host.Facts{
		CPUBusy: ok(0.525, "1", "proc:stat"), CPUMaxCoreBusy: ok(0.95, "1", "proc:stat:cpu0"), Cores: 2,
		Load1: ok(0.12, "1", "proc:loadavg"), Load5: ok(0.08, "1", "proc:loadavg"), Load15: ok(0.02, "1", "proc:loadavg"),
		MemUsed:       ok(1-174780.0/249684, "1", "proc:meminfo"),
		MemTotalBytes: 249684 << 10, MemAvailableBytes: 174780 << 10,
		DiskUsed: f.DiskUsed, DiskPath: dir, DiskTotalBytes: f.DiskTotalBytes, DiskFreeBytes: f.DiskFreeBytes,
		Temperature: temperature,
	}
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })
	if d := cmp.Diff(want, f, near); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if !f.DiskUsed.OK() || f.DiskTotalBytes == 0 {
		t.Errorf("disk: %+v", f.DiskUsed)
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	c := collector(tree(t, "mt7621-invented"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err := c.Read(ctx)
	if !errors.Is(err, context.Canceled) || f.CPUBusy.Status != collectors.StatusError || f.Cores != 0 {
		t.Errorf("%v, %+v", err, f.CPUBusy)
	}
	if !f.MemUsed.OK() || !f.Temperature.OK() {
		t.Errorf("the rest was not read: %+v", f)
	}
	if _, err := c.Collect(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Collect: %v", err)
	}
}

func TestReadWhileTheCountersStandStill(t *testing.T) {
	c := collector(tree(t, "mt7621-invented"))
	c.SetWait(func(context.Context, time.Duration) error { return nil })
	f, err := c.Read(t.Context())
	if err == nil || f.CPUBusy.Status != collectors.StatusError {
		t.Errorf("%v, %+v", err, f.CPUBusy)
	}
}

// Each file gone, empty, cut and full of rubbish: never a panic, never an
// invented value, and the others unharmed.
func TestBrokenFiles(t *testing.T) {
	files := map[string][]string{ // file: what it alone yields
		"proc/loadavg":                         {"load1", "load5", "load15"},
		"proc/meminfo":                         {"mem_total_bytes", "mem_available_bytes", "mem_used_ratio"},
		"proc/self/statm":                      {"rss_bytes"},
		"sys/class/thermal/thermal_zone0/temp": {"temperature_celsius", "temperature_zone"},
	}
	contents := map[string]string{
		"Empty": "", "Blank": " \n", "Rubbish": "\x00\xff garbage: \x80 kB\n", "Words": "a b c d e f g h i\n",
		"Negative": "-1 -1 -1 -1\n", "Huge": strings.Repeat("9", 400) + "\n", "NaN": strings.Repeat("NaN ", 3),
	}
	for file, keys := range files {
		for name, content := range contents {
			t.Run(file+"/"+name, func(t *testing.T) {
				dir := tree(t, "mt7621-invented")
				if err := os.RemoveAll(filepath.Join(dir, "sys/class/thermal/thermal_zone1")); err != nil {
					t.Fatal(err)
				}
				put(t, dir, file, content)
				got, err := fields(t, collector(dir))
				if err == nil {
					t.Error("no error")
				}
				for _, k := range keys {
					if v, ok := got[k]; ok {
						t.Errorf("%s is %v", k, v)
					}
				}
				if len(got) < 9 {
					t.Errorf("others are missing: %v", got)
				}
			})
		}
		t.Run(file+"/Gone", func(t *testing.T) {
			dir := tree(t, "mt7621-invented")
			if err := os.RemoveAll(filepath.Join(dir, "sys/class/thermal/thermal_zone1")); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
			got, err := fields(t, collector(dir))
			if err == nil {
				t.Error("no error")
			}
			for _, k := range keys {
				if v, ok := got[k]; ok {
					t.Errorf("%s is %v", k, v)
				}
			}
		})
	}
}

func TestBrokenStat(t *testing.T) {
	for name, content := range map[string]string{
		"Empty": "", "OneLine": "cpu 1 2 3 4 5 6 7\n", "Short": "cpu  1\ncpu0 1 2 3\n", "Rubbish": "cpu\ncpu0 a b c d e f g h\n",
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, "mt7621-invented")
			put(t, dir, "proc/stat", content)
			c := collector(dir)
			if _, err := fields(t, c); err == nil {
				t.Error("no error")
			}
			f, err := c.Read(t.Context())
			if err == nil || f.CPUBusy.Status != collectors.StatusError || !f.MemUsed.OK() {
				t.Errorf("%v, %+v", err, f)
			}
		})
	}
}

func TestCoresComeAndGo(t *testing.T) {
	dir := tree(t, "mt7621-invented")
	put(t, dir, "proc/stat", "cpu 0\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n")
	c := collector(dir)
	_, _ = fields(t, c)
	// cpu1 went, cpu2 came; cpu0's idle time stepped back by a tick and its
	// waiting time as well.
	put(t, dir, "proc/stat", "cpu 0\ncpu0 100 0 0 300 0 0 0 0 0 0\ncpu2 900 0 0 0 0 0 0 0 0 0\n")
	got, err := fields(t, c)
	if err != nil || got["cpu_busy_ratio"] != 0.25 || got["cpu_max_core_busy_ratio"] != 0.25 {
		t.Errorf("%v, %v", got, err)
	}
	put(t, dir, "proc/stat", "cpu 0\ncpu0 200 0 0 299 0 0 0 0 0 0\ncpu2 900 0 0 0 0 0 0 0 0 0\n")
	got, err = fields(t, c)
	if err != nil || got["cpu_busy_ratio"] != 1.0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestTemperature(t *testing.T) {
	type zones map[string]string
	tests := []struct {
		name  string
		zones zones
		value float64
		raw   string
		want  collectors.Status
		isErr bool
	}{
		{name: "Hottest", zones: zones{"0": "41000", "1": "70500", "2": "55000"}, value: 70.5, raw: "70500", want: collectors.StatusOK},
		{name: "BelowZero", zones: zones{"0": "-12000"}, value: -12, raw: "-12000", want: collectors.StatusOK},
		{name: "NoneAtAll", zones: zones{}, want: collectors.StatusUnsupported},
		{name: "OneIsOff", zones: zones{"0": "", "1": "48000"}, value: 48, raw: "48000", want: collectors.StatusOK},
		{name: "OneIsAbsurd", zones: zones{"0": "48000", "1": "2147483647"}, value: 48, raw: "48000", want: collectors.StatusOK},
		{name: "AbsurdFirst", zones: zones{"0": "-273000", "1": "48000"}, value: 48, raw: "48000", want: collectors.StatusOK},
		{name: "Zero", zones: zones{"0": "0"}, raw: "0", want: collectors.StatusUntrusted, isErr: true},
		{name: "WholeDegrees", zones: zones{"0": "47"}, raw: "47", want: collectors.StatusUntrusted, isErr: true},
		{name: "Text", zones: zones{"0": "hot"}, raw: "hot", want: collectors.StatusUntrusted, isErr: true},
		{name: "AllOff", zones: zones{"0": "", "1": ""}, want: collectors.StatusError, isErr: true},
		{name: "Overflow", zones: zones{"0": "99999999999999999999"}, raw: "99999999999999999999", want: collectors.StatusUntrusted, isErr: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, "xiaomi-r4a")
			for n, content := range tt.zones {
				put(t, dir, "sys/class/thermal/thermal_zone"+n+"/temp", content)
			}
			c := collector(dir)
			c.SetWait(func(context.Context, time.Duration) error {
				put(t, dir, "proc/stat", statAfter)
				return nil
			})
			put(t, dir, "proc/stat", statBefore)
			f, err := c.Read(t.Context())
			if (err != nil) != tt.isErr {
				t.Errorf("error %v", err)
			}
			r := f.Temperature
			if r.Status != tt.want || r.Value != tt.value || r.Raw != tt.raw || r.Unit != "Cel" {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestDiskGone(t *testing.T) {
	dir := tree(t, "mt7621-invented")
	c := host.New(host.Options{
		ProcRoot: filepath.Join(dir, "proc"), SysRoot: filepath.Join(dir, "sys"), DiskPath: filepath.Join(dir, "no/such/place"),
	})
	got, err := fields(t, c)
	if !errors.Is(err, fs.ErrNotExist) || got["disk_free_bytes"] != nil || got["disk_used_ratio"] != nil {
		t.Errorf("%v, %v", err, got)
	}
}

// The machine the test runs on.
func TestThisMachine(t *testing.T) {
	c := host.New(host.Options{})
	if _, err := c.Collect(t.Context()); err != nil && !strings.Contains(err.Error(), "temperature") {
		t.Error(err)
	}
	f, err := c.Read(t.Context())
	if err != nil && f.Temperature.Status == collectors.StatusUnsupported {
		t.Error(err)
	}
	if !f.CPUBusy.OK() || f.CPUBusy.Value < 0 || f.CPUBusy.Value > f.CPUMaxCoreBusy.Value+1e-9 || f.CPUMaxCoreBusy.Value > 1 || f.Cores == 0 {
		t.Errorf("processor: %+v, %+v, %d", f.CPUBusy, f.CPUMaxCoreBusy, f.Cores)
	}
	if !f.MemUsed.OK() || f.MemUsed.Value <= 0 || f.MemUsed.Value >= 1 || !f.DiskUsed.OK() {
		t.Errorf("%+v", f)
	}
}

func BenchmarkCollect(b *testing.B) {
	c := host.New(host.Options{})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.Collect(ctx)
	}
}
