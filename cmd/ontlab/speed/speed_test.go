package speed

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/probe/throughput"
)

func TestTruth(t *testing.T) {
	// docs: 0.9564 of what tbf counts.
	if got := truth(1000); got < 956.40 || got > 956.41 {
		t.Errorf("truth(1000) is %v", got)
	}
}

func TestParseCurl(t *testing.T) {
	bytes, took, err := parseCurl("100 0 10.001\n200 0 10.002\n0 300 10.0\n0 0 1.5\n")
	if err != nil || bytes != 600 || took != 10.002 {
		t.Errorf("%v bytes in %v s, %v", bytes, took, err)
	}
	for _, bad := range []string{"", "100 0 10.0\n", "1 2 3\n1 2 3\n1 2 3\n1 2\n", "0 0 0\n0 0 0\n0 0 0\n0 0 0\n"} {
		if _, _, err := parseCurl(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParseStatus(t *testing.T) {
	const text = "Name:\tontagent\nVmHWM:\t    8292 kB\nVmRSS:\t    8000 kB\nRssAnon:\t    1136 kB\nThreads:\t7\n"
	if diff := cmp.Diff(memory{PeakKiB: 8292, AnonKiB: 1136}, parseStatus(text)); diff != "" {
		t.Error(diff)
	}
	if m := parseStatus("Name:\tontagent\nState:\tZ (zombie)\n"); m != (memory{}) {
		t.Errorf("one that has ended has %+v", m)
	}
}

func TestFindCgroup(t *testing.T) {
	const (
		root    = "25 1 8:1 / / rw - ext4 /dev/sda rw\n"
		v2      = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 none rw,nsdelegate\n"
		unified = "30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n"
		v1      = "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup none rw,cpu,cpuacct\n"
		cpuset  = "32 25 0:28 / /sys/fs/cgroup/cpuset rw - cgroup none rw,cpuset\n"
	)
	for _, test := range []struct {
		name, mounts, dir, fs, opts string
	}{
		{"version 2", root + v2, "/sys/fs/cgroup", "cgroup2", ""},
		{"version 1", root + cpuset + v1, "/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"},
		{"both: the processor is version 1's", root + unified + v1, "/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"},
		{"others only", root + cpuset, "", "", ""},
		{"cut short", "31 25\n - \n" + v2[:30], "", "", ""},
	} {
		got := findCgroup(test.mounts)
		if got == nil {
			got = &quota{}
		}
		if got.dir != test.dir || got.fs != test.fs || got.opts != test.opts {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

func costs(d direction, ours, iperf []float64) []cost {
	all := []cost{{Direction: d, Client: oursOneName}, {Direction: d, Client: iperfName}}
	for i, values := range [][]float64{ours, iperf} {
		for _, v := range values {
			all[i].Samples = append(all[i].Samples, sample{Gbit: 1, CPUPerGbit: v})
		}
	}
	return all
}

func TestRatioBarTakesTheMedianOfRounds(t *testing.T) {
	for _, test := range []struct {
		name        string
		ours, iperf []float64
		met         bool
		value       string
	}{
		{"met", []float64{1, 1, 3}, []float64{4, 2, 3}, true, "0.50 (0.25 to 1.00)"},
		{"not met", []float64{2, 2, 1}, []float64{3, 2, 3}, false, "0.67 (0.33 to 1.00)"},
		{"a round is missing", []float64{1, 1}, []float64{4, 4, 4}, false, unmeasured},
		{"nothing", nil, nil, false, unmeasured},
	} {
		b := ratioBar(costs(throughput.Down, test.ours, test.iperf), throughput.Down, iperfName, 0.5)
		if b.met != test.met || b.value != test.value {
			t.Errorf("%s: %+v", test.name, b)
		}
	}
	moved := costs(throughput.Down, []float64{1}, []float64{4})
	moved[0].Samples[0] = sample{} // nothing was moved, and that cost nothing
	if b := ratioBar(moved, throughput.Down, iperfName, 0.5); b.met {
		t.Errorf("nothing moved: %+v", b)
	}
}

func TestAccuracyBarTakesTheWorst(t *testing.T) {
	run := func(guest bool, mbps float64) accuracy {
		return accuracy{Guest: guest, Direction: throughput.Down, RateMbps: 100, TruthMbps: 100, Mbps: mbps, TookS: 14}
	}
	for _, test := range []struct {
		name  string
		runs  []accuracy
		met   bool
		value string
	}{
		{"met", []accuracy{run(false, 100.4), run(false, 99.6), run(true, 50)}, true, "2 of 2 runs; worst: +0.40 % (down, 100 Mbit/s)"},
		{"below", []accuracy{run(false, 100), run(false, 99.4)}, false, "1 of 2 runs; worst: -0.60 % (down, 100 Mbit/s)"},
		{"above", []accuracy{run(false, 100.6), run(false, 100)}, false, "1 of 2 runs; worst: +0.60 % (down, 100 Mbit/s)"},
		{"nothing measured", []accuracy{run(false, 100), run(false, 0)}, false, "1 of 2 runs; worst: -100.00 % (down, 100 Mbit/s)"},
		{"too few", []accuracy{run(false, 100)}, false, unmeasured},
	} {
		if b := accuracyBar("", test.runs, false, 2, accuracy.offPercent); b.met != test.met || b.value != test.value {
			t.Errorf("%s: %+v", test.name, b)
		}
	}
}

func TestBarsOfVerdicts(t *testing.T) {
	quota := func(verdicts ...throughput.Verdict) (all []held) {
		for _, v := range verdicts {
			all = append(all, held{Verdict: v})
		}
		return all
	}
	loss := func(v throughput.Verdict) []lossy { return []lossy{{Verdict: throughput.Inconclusive}, {Verdict: v}} }
	mips := func(rate float64, v throughput.Verdict) []emulated {
		e := emulated{Native: 100, MIPS: 100, NativeSays: throughput.Pass, MIPSSays: throughput.Pass}
		other := e
		other.MIPS, other.MIPSSays = rate, v
		return []emulated{e, other}
	}
	memory := func(down, up int64) *memoryCost {
		return &memoryCost{Idle: memory{PeakKiB: 8000}, Down: memory{PeakKiB: down}, Up: memory{PeakKiB: up}}
	}
	for _, test := range []struct {
		name string
		b    bar
		met  bool
	}{
		{"no false fail", quotaBar(quota(throughput.Pass, throughput.Inconclusive)), true},
		{"a false fail", quotaBar(quota(throughput.Pass, throughput.Fail)), false},
		{"no verdict", quotaBar(quota(throughput.Pass, throughput.Measured)), false},
		{"no runs", quotaBar(nil), false},
		{"the slow line fails", controlBar(&held{Verdict: throughput.Fail}), true},
		{"the slow line passes", controlBar(&held{Verdict: throughput.Pass}), false},
		{"the slow line is not judged", controlBar(&held{Verdict: throughput.Inconclusive}), false},
		{"no slow line", controlBar(nil), false},
		{"loss is seen", lossBar(loss(throughput.Inconclusive)), true},
		{"loss is the line's fault", lossBar(loss(throughput.Fail)), false},
		{"mipsle agrees", mipsBar(mips(100.3, throughput.Pass)), true},
		{"mipsle measures something else", mipsBar(mips(98, throughput.Pass)), false},
		{"mipsle says something else", mipsBar(mips(100, throughput.Inconclusive)), false},
		{"neither measured", mipsBar([]emulated{{}, {}}), false},
		{"little memory", memoryBar(memory(12096, 9000)), true},
		{"much memory", memoryBar(memory(9000, 12097)), false},
		{"memory unknown", memoryBar(memory(9000, 0)), false},
	} {
		if test.b.met != test.met {
			t.Errorf("%s: %+v", test.name, test.b)
		}
	}
}

func TestReportWithoutAnythingIsNotMet(t *testing.T) {
	r := newReport(Options{Parts: allParts()}, findings{}, 0)
	if r.met() {
		t.Error("nothing was measured, and all is met")
	}
	var out bytes.Buffer
	r.write(&out)
	if n := strings.Count(out.String(), "**not met**"); n != len(r.bars) {
		t.Errorf("%d of %d bars are not met:\n%s", n, len(r.bars), out.String())
	}
}

func TestAccuracyBarTakesNoGuess(t *testing.T) {
	// What passed was not seen.
	runs := []accuracy{{TruthMbps: 100, Mbps: 100}, {TruthMbps: 100, Mbps: 100, PassedMbps: 100}}
	for range 2 {
		if b := accuracyBar("", runs, false, 2, accuracy.offPassedPercent); b.met {
			t.Errorf("%+v", b)
		}
		runs[0], runs[1] = runs[1], runs[0]
	}
}

func TestPayloadMbps(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }
	// A full packet each millisecond, then twice as many.
	all := []passed{{at(0), 0}, {at(20), 20 * frameBytes}, {at(40), 40 * frameBytes}, {at(60), 80 * frameBytes}}
	const one = payloadBytes * 8 / 1e3 // Mbit/s
	for _, test := range []struct {
		begin, end int
		want       float64
	}{
		{0, 40, one},
		{5, 35, one},
		{20, 59, one * (20 + 38) / 39},
		{40, 50, 2 * one},
		{-1, 40, 0},
		{0, 60, 0},
		{30, 30, 0},
		{40, 20, 0}, // nobody looked, or there is no time
	} {
		if got := payloadMbps(all, at(test.begin), at(test.end)); math.Abs(got-test.want) > 1e-6 {
			t.Errorf("from %d to %d ms: %v, want %v", test.begin, test.end, got, test.want)
		}
	}
}
