package throughput

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// machine is a proc and a tree of cgroups in files, and a clock.
type machine struct {
	t   *testing.T
	dir string
	now time.Time
}

func newMachine(t *testing.T) (*machine, *device) {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir(), now: time.Unix(1e9, 0)}
	d := newDevice(filepath.Join(m.dir, "proc"), filepath.Join(m.dir, "cgroup")+"/")
	d.now = func() time.Time { return m.now }
	t.Cleanup(d.close)
	return m, d
}

// write puts a file where it belongs, without a new inode: it may be open.
func (m *machine) write(path, text string) {
	m.t.Helper()
	path = filepath.Join(m.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// core is one of the lines of /proc/stat. Its times are in ticks.
type core struct{ id, user, softirq, steal, idle, iowait uint64 }

func (m *machine) cores(cores ...core) {
	var b strings.Builder
	b.WriteString("cpu  1 2 3 4 5 6 7 8 0 0\n")
	for _, c := range cores {
		b.WriteString("cpu" + strconv.FormatUint(c.id, 10))
		for _, v := range []uint64{c.user, 0, 0, c.idle, c.iowait, 0, c.softirq, c.steal, c.user / 2, 0} {
			b.WriteString(" " + strconv.FormatUint(v, 10))
		}
		b.WriteByte('\n')
	}
	m.write("proc/stat", b.String()+"intr 138439384 0 0 5\nctxt 1\n")
}

func (m *machine) pass(d time.Duration) { m.now = m.now.Add(d) }

var nearly = cmpopts.EquateApprox(0, 1e-6)

func TestDeviceCores(t *testing.T) {
	m, d := newMachine(t)
	m.cores(core{id: 0, user: 1000, softirq: 500, idle: 9000}, core{id: 1, user: 10, idle: 10000})
	d.begin()
	m.pass(time.Second) // 20 of user, 40 of interrupts; the other idles, waiting for a disk
	m.cores(core{id: 0, user: 1020, softirq: 540, idle: 9040}, core{id: 1, user: 10, idle: 10040, iowait: 60})
	d.sample()
	m.pass(time.Second) // stolen by the machine below
	m.cores(core{id: 0, user: 1020, softirq: 540, idle: 9140}, core{id: 1, user: 30, steal: 60, idle: 10060, iowait: 60})
	d.sample()
	m.pass(500 * time.Millisecond) // too short to be a busiest second
	m.cores(core{id: 0, user: 1070, softirq: 540, idle: 9140}, core{id: 1, user: 30, steal: 60, idle: 10110, iowait: 60})
	c := d.end()
	want := Conditions{Cores: []float64{110.0 / 250, 80.0 / 250}, SoftIRQ: []float64{40.0 / 250, 0}, PeakCore: new(0.8)}
	if diff := cmp.Diff(want, c, nearly, cmpopts.IgnoreFields(Conditions{}, "ProcessBusy", "LateRatio")); diff != "" {
		t.Error(diff)
	}
	if c.ProcessBusy == nil || *c.ProcessBusy < 0 {
		t.Errorf("own time: %v", c.ProcessBusy)
	}
	if d.stat != nil {
		t.Error("a file is left open")
	}
}

// What the counters lack of a second has been used: a core that no tick has met
// while it worked measures at least the time that it idled.
func TestDeviceCoreThatTicksMiss(t *testing.T) {
	m, d := newMachine(t)
	m.cores(core{idle: 1000})
	d.begin()
	m.pass(time.Second)
	m.cores(core{user: 5, idle: 1060})
	d.sample()
	c := d.end()
	if c.PeakCore == nil || math.Abs(*c.PeakCore-0.4) > 1e-6 {
		t.Errorf("%v", *c.PeakCore)
	}
}

func TestDeviceCoresThatComeAndGo(t *testing.T) {
	m, d := newMachine(t)
	m.cores(core{id: 0, idle: 1000}, core{id: 1, idle: 1000}, core{id: 2, idle: 1000}, core{id: 3, user: 500, idle: 1000})
	d.begin()
	m.pass(time.Second) // core 1 goes, core 2 stands still, core 3 was restarted
	m.cores(core{id: 0, user: 50, idle: 1050}, core{id: 2, idle: 1000}, core{id: 3, user: 1, idle: 3}, core{id: 4, user: 900, idle: 900})
	d.sample()
	m.pass(time.Second) // core 1 comes back; 4 is new
	m.cores(core{id: 0, user: 50, idle: 1150}, core{id: 1, idle: 1100}, core{id: 2, idle: 1000}, core{id: 3, user: 1, idle: 103}, core{id: 4, user: 970, idle: 930})
	d.sample()
	c := d.end()
	// 0 half of one second; 1 idle for one of two, of which the other is not
	// known to be used; 4 for 70 % of its second.
	if diff := cmp.Diff([]float64{0.25, 0.5, 0.7}, c.Cores, nearly); diff != "" {
		t.Error(diff)
	}
	if c.PeakCore == nil || math.Abs(*c.PeakCore-0.7) > 1e-6 {
		t.Errorf("%v", *c.PeakCore)
	}
}

func TestDeviceSamplesThatComeTooOften(t *testing.T) {
	m, d := newMachine(t)
	m.cores(core{idle: 1000})
	d.begin()
	for i := range uint64(100) { // busy for 100 ms in each second
		m.pass(100 * time.Millisecond)
		busy := (i + 10) / 10 * 10
		m.cores(core{user: busy, idle: 1000 + (i+1)*10 - busy})
		d.sample()
	}
	c := d.end()
	if c.PeakCore == nil || *c.PeakCore > 0.15 {
		t.Errorf("%v", *c.PeakCore)
	}
}

func TestDeviceThatSaysNothing(t *testing.T) {
	for name, stat := range map[string]string{
		"no file":     "",
		"no cores":    "cpu  1 2 3 4 5 6 7 8 0 0\nintr 0\n",
		"no counters": "cpu0 0 0 0 0 0 0 0 0 0 0\n",
		"no end":      "cpu0 1 2 3 4 5 6 7 8 9 10",
		"no numbers":  "cpu0 a b c d e f g\n",
		"too few":     "cpu0 1 2 3 4 5 6\n",
		"too many":    "cpu64 1 2 3 4 5 6 7 8 9 10\ncpu18446744073709551616 1 2 3 4 5 6 7 8\n",
	} {
		m, d := newMachine(t)
		if stat != "" {
			m.write("proc/stat", stat)
		}
		d.begin()
		m.pass(time.Second)
		d.sample()
		m.pass(time.Second)
		c := d.end()
		c.ProcessBusy, c.LateRatio = nil, nil
		if diff := cmp.Diff(Conditions{}, c); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// Neither before its beginning, nor in no time.
	_, d := newMachine(t)
	d.sample()
	if c := d.end(); c.PeakCore != nil {
		t.Errorf("%+v", c)
	}
	d.begin()
	if diff := cmp.Diff(Conditions{}, d.end()); diff != "" {
		t.Error(diff)
	}
}

// A device is used for one window after another.
func TestDeviceTwice(t *testing.T) {
	m, d := newMachine(t)
	m.cores(core{idle: 1000})
	d.begin()
	m.pass(time.Second)
	m.cores(core{user: 100, idle: 1000})
	d.sample()
	first := d.end()
	d.begin()
	m.pass(time.Second)
	m.cores(core{user: 100, idle: 1100})
	d.sample()
	second := d.end()
	if *first.PeakCore != 1 || *second.PeakCore != 0 {
		t.Errorf("%v, %v", *first.PeakCore, *second.PeakCore)
	}
}

func TestDeviceSoftnet(t *testing.T) {
	line := func(dropped, squeezed, cpu string) string {
		return "00000000 " + dropped + " " + squeezed + strings.Repeat(" 00000000", 9) + " " + cpu + " 00000000 00000000\n"
	}
	const rest = " 00000000 00000000 00000000 00000000 00000000 00000000 00000000\n"
	for _, tt := range []struct {
		name, before, after string
		dropped, squeezed   uint64
	}{
		{"two cores", line("00000001", "0000000a", "00000000") + line("00000000", "00000000", "00000001"), line("00000003", "0000001a", "00000000") + line("00000005", "00000000", "00000001"), 7, 16},
		{"wrapped", line("ffffffff", "fffffff0", "00000000"), line("00000001", "00000010", "00000000"), 2, 32},
		{"one went", line("00000001", "00000000", "00000000") + line("00000009", "00000000", "00000001"), line("0000000a", "00000000", "00000001"), 1, 0},
		{"one came", line("00000001", "00000000", "00000000"), line("00000002", "00000000", "00000000") + line("00000009", "00000000", "00000001"), 1, 0},
		{"an old kernel", "00000000 00000001 00000002" + rest, "00000000 00000004 00000004" + rest, 3, 2},
		{"an old kernel, one came", "00000000 00000001 00000002" + rest, "00000000 00000004 00000004" + rest + "00000000 00000004 00000004" + rest, 0, 0},
		{"nothing", "", "", 0, 0},
		{"nothing after", line("00000001", "00000000", "00000000"), "", 0, 0},
		{"no numbers", "x y z\n", "x y z\n", 0, 0},
	} {
		m, d := newMachine(t)
		m.write("proc/net/softnet_stat", tt.before)
		d.begin()
		m.pass(time.Second)
		m.write("proc/net/softnet_stat", tt.after)
		if c := d.end(); c.SoftnetDropped != tt.dropped || c.SoftnetSqueezed != tt.squeezed {
			t.Errorf("%s: %d, %d", tt.name, c.SoftnetDropped, c.SoftnetSqueezed)
		}
	}
}

func TestDeviceTimeWaited(t *testing.T) {
	m, d := newMachine(t)
	thread := func(tid, stat string) { m.write("proc/self/task/"+tid+"/schedstat", stat) }
	thread("10", "5000000000 1000000000 77\n")
	thread("11", "0 18446744073709551615 3\n")
	thread("12", "0 500 3\n")
	d.begin()
	m.pass(2 * time.Second)
	thread("10", "5000000000 1300000000 99\n") // 0.3 s
	thread("11", "0 5 3\n")                    // another with its number
	thread("13", "0 200000000 1\n")            // new: 0.2 s
	if err := os.RemoveAll(filepath.Join(m.dir, "proc/self/task/12")); err != nil {
		t.Fatal(err)
	}
	c := d.end()
	if c.ProcessWaited == nil || math.Abs(*c.ProcessWaited-0.25) > 1e-6 {
		t.Errorf("%v", c.ProcessWaited)
	}
	for _, stat := range []string{"0 0 0\n", "", "1 2\n", "a b c\n"} {
		m, d := newMachine(t)
		m.write("proc/self/task/1/schedstat", stat)
		d.begin()
		m.pass(time.Second)
		if c := d.end(); c.ProcessWaited != nil {
			t.Errorf("%q: %v", stat, *c.ProcessWaited)
		}
	}
}

func TestDeviceQuota(t *testing.T) {
	for _, tt := range []struct {
		name, cgroup     string
		before, after    map[string]string
		throttled, quota *float64
	}{
		{"none", "", nil, nil, nil, nil},
		{
			"of v2", "0::/system.slice/agent.service\n",
			map[string]string{
				"system.slice/agent.service/cpu.stat": "usage_usec 5\nnr_periods 3\nnr_throttled 1\nthrottled_usec 1000000\nnr_bursts 0\n",
				"system.slice/agent.service/cpu.max":  "20000 100000\n",
			},
			map[string]string{"system.slice/agent.service/cpu.stat": "usage_usec 6\nthrottled_usec 1600000\n"},
			new(0.3), new(0.2),
		},
		{
			"of v2, and none", "0::/a\n",
			map[string]string{"a/cpu.stat": "throttled_usec 7\n", "a/cpu.max": "max 100000\n"},
			nil,
			new(0.0), nil,
		},
		{
			"of the group above", "0::/a/b/c\n",
			map[string]string{
				"a/b/cpu.stat": "throttled_usec 0\n", "a/b/cpu.max": "150000 100000\n",
				"a/cpu.stat": "throttled_usec 0\n", "a/cpu.max": "50000 100000\n",
			},
			map[string]string{"a/b/cpu.stat": "throttled_usec 100000\n", "a/cpu.stat": "throttled_usec 200000\n"},
			new(0.1), new(0.5),
		},
		{
			"in a namespace", "0::/\n",
			map[string]string{"cpu.stat": "throttled_usec 0\n", "cpu.max": "50000 100000\n"},
			map[string]string{"cpu.stat": "throttled_usec 1000000\n"},
			new(0.5), new(0.5),
		},
		{
			"whose path is another's", "0::/docker/0123\n",
			map[string]string{"cpu.stat": "throttled_usec 0\n", "cpu.max": "50000 100000\n"},
			map[string]string{"cpu.stat": "throttled_usec 1000000\n"},
			new(0.5), new(0.5),
		},
		{
			"outside", "0::/../../etc\n",
			map[string]string{"cpu.stat": "throttled_usec 0\n"},
			map[string]string{"cpu.stat": "throttled_usec 20000\n"},
			new(0.01), nil,
		},
		{
			"of v1", "9:name=systemd:/\n4:cpu,cpuacct:/agent\n0::/\n",
			map[string]string{
				"cpu,cpuacct/agent/cpu.stat":          "nr_periods 1\nnr_throttled 1\nthrottled_time 5\n",
				"cpu,cpuacct/agent/cpu.cfs_quota_us":  "10000\n",
				"cpu,cpuacct/agent/cpu.cfs_period_us": "50000\n",
			},
			map[string]string{"cpu,cpuacct/agent/cpu.stat": "throttled_time 1000000005\n"},
			new(0.5), new(0.2),
		},
		{
			"of v1, and none", "1:cpu:/\n0::/\n",
			map[string]string{"cpu/cpu.stat": "throttled_time 5\n", "cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "50000\n"},
			nil,
			new(0.0), nil,
		},
		{
			"of several cores", "0::/a\n",
			map[string]string{"a/cpu.stat": "throttled_usec 0\n"},
			map[string]string{"a/cpu.stat": "throttled_usec 7000000\n"},
			new(1.0), nil,
		},
		{
			"that began again", "0::/a\n",
			map[string]string{"a/cpu.stat": "throttled_usec 7\n"},
			map[string]string{"a/cpu.stat": "throttled_usec 5\n"},
			nil, nil,
		},
		{
			"that says nothing", "0::/a\n",
			map[string]string{"a/cpu.stat": "usage_usec 7\n", "a/cpu.max": "5 100\n"},
			nil, nil, nil,
		},
		{
			"that is none", "0:/a\nx\n::\n0::a\n",
			map[string]string{"a/cpu.stat": "throttled_usec 7\n"},
			nil, nil, nil,
		},
		{
			"too large", "0::/a\n",
			map[string]string{"a/cpu.stat": "throttled_usec 18446744073709551615\n", "a/cpu.max": "0 0\n"},
			nil, nil, nil,
		},
	} {
		m, d := newMachine(t)
		m.write("proc/self/cgroup", tt.cgroup)
		for name, text := range tt.before {
			m.write("cgroup/"+name, text)
		}
		d.begin()
		m.pass(2 * time.Second)
		for name, text := range tt.after {
			m.write("cgroup/"+name, text)
		}
		c := d.end()
		want := Conditions{Throttled: tt.throttled, QuotaCores: tt.quota}
		if diff := cmp.Diff(want, c, nearly, cmpopts.IgnoreFields(Conditions{}, "ProcessBusy", "LateRatio")); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
	// However deep, it ends.
	m, d := newMachine(t)
	m.write("proc/self/cgroup", "0::"+strings.Repeat("/a", 2000)+"\n")
	d.begin()
	m.pass(time.Second)
	d.end()
}

// On the machine that this runs on everything is there, or said to be missing.
func TestDeviceHere(t *testing.T) {
	d := newDevice("", "")
	d.begin()
	deadline := time.Now().Add(600 * time.Millisecond)
	for n := 0; time.Now().Before(deadline); n++ { // use a core
		_ = strconv.Itoa(n)
	}
	c := d.end()
	t.Logf("%+v", c)
	if len(c.Cores) == 0 && !testing.Short() {
		t.Error("no cores")
	}
	if c.PeakCore != nil && !(*c.PeakCore > 0 && *c.PeakCore <= 1) {
		t.Errorf("the busiest core: %v", *c.PeakCore)
	}
	if c.ProcessBusy == nil || *c.ProcessBusy < 0.05 || *c.ProcessBusy > 8 {
		t.Errorf("own time: %v", c.ProcessBusy)
	}
}

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := startPulse()
		time.Sleep(23*100*time.Millisecond + time.Millisecond)
		if r := p.end(); r == nil || *r != 0 || p.looks != 100 {
			t.Errorf("in time: %v of %d", r, p.looks)
		}
		p = startPulse()
		time.Sleep(23*19*time.Millisecond + time.Millisecond)
		if r := p.end(); r != nil || p.looks != 19 {
			t.Errorf("too few: %v of %d", r, p.looks)
		}
	})
}

func TestDeviceSampleIsCheap(t *testing.T) {
	if _, err := os.Stat("/proc/stat"); err != nil {
		t.Skip(err)
	}
	d := newDevice("", "")
	d.begin()
	defer d.close()
	now := time.Now()
	d.now = func() time.Time { now = now.Add(time.Second); return now }
	if n := testing.AllocsPerRun(10, d.sample); n > 2 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseStat(f *testing.F) {
	stat, _ := os.ReadFile("/proc/stat")
	f.Add(stat)
	f.Add([]byte("cpu  3557241 219413 425318 2964458 11174 0 24637 70634 0 0\ncpu0 1799600 104214 211041 1469757 6061 0 10758 34904 0 0\nintr 5\n"))
	f.Add([]byte("cpu0 18446744073709551615 18446744073709551615 1 2 3 4 5 6 7 8\n"))
	f.Add([]byte("cpu0 18446744073709551616 1 1 2 3 4 5 6 7 8\ncpu\ncpu5"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		parseStat(b, func(core int, _ coreTimes) {
			if n++; core < 0 || core >= maxCores || n > len(b)/18 {
				t.Fatalf("core %d, number %d", core, n)
			}
		})
	})
}

func FuzzParseSoftnet(f *testing.F) {
	here, _ := os.ReadFile("/proc/net/softnet_stat")
	f.Add(here)
	f.Add([]byte("00a50542 00000327 00000003 00000000 00000000 00000000 00000000 00000000 00000000 00009813 00000000 00000000 00000001 00000000 00000000\n"))
	f.Add([]byte("ffffffff fffffffe fffffffd\nff\n\n" + strings.Repeat("0 ", 12) + "ffffffff\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseSoftnet(b, func(core int, _ bool, _ softnet) {
			if core < 0 || core >= maxCores {
				t.Fatalf("core %d", core)
			}
		})
	})
}

func FuzzParseSmall(f *testing.F) {
	for _, s := range []string{
		"5000000000 1000000000 77\n", "max 100000\n", "20000 100000\n", "nr_periods 3\nnr_throttled 1\nthrottled_usec 1000000\n",
		"throttled_time 18446744073709551615\n", "4:cpu,cpuacct:/agent\n0::/system.slice/agent.service\n", "0::/../..\n", "18446744073709551615 1\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		parseSchedstat(b)
		parseThrottled(b)
		if cores, ok := parseQuota(b); ok && !(cores > 0 && !math.IsInf(cores, 0)) {
			t.Fatalf("quota %v", cores)
		}
		unified, v1, names := ownGroups(b)
		for _, path := range []string{unified, v1} {
			if path != "" && !strings.HasPrefix(path, "/") || strings.Contains(path, "/..") {
				t.Fatalf("group %q", path)
			}
		}
		for _, name := range names {
			if strings.ContainsAny(name, "/\x00") {
				t.Fatalf("mounted under %q", name)
			}
		}
	})
}
