package throughput_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/probe/throughput"
)

// held is how a process that measures is held to a part of a core.
type held struct {
	part   float64       // of a core; 0: not at all
	period time.Duration // in which it gets it at once
	// stopped says by stopping and continuing it, from outside, instead of by a
	// quota.
	stopped bool
	// hidden says that neither cgroups nor the scheduler's counters can be seen,
	// and that the cores are told to idle: as in a container on a larger machine.
	hidden bool
}

func (h held) String() string {
	s := fmt.Sprintf("%g of a core each %v", h.part, h.period)
	if h.stopped {
		s += ", stopped and continued"
	}
	if h.hidden {
		s += ", nothing seen of it"
	}
	return s
}

// order is what a process that is held is to measure.
type order struct {
	Direction throughput.Direction
	Contract  float64
	Window    time.Duration
	Hidden    bool
	Into      string
}

const heldOrder = "THROUGHPUT_TEST_HELD"

// obey measures, if this process is one that is held.
func obey(t *testing.T) bool {
	t.Helper()
	text := os.Getenv(heldOrder)
	if text == "" {
		return false
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is held
	opt := throughput.Options{
		URL: "http://192.0.2.2/large", UploadURL: "http://192.0.2.2/up", Direction: o.Direction, Window: o.Window,
		ContractDownMbps: o.Contract, ContractUpMbps: o.Contract, Patience: time.Second, Line: lineOfWan,
	}
	if o.Hidden {
		opt.ProcRoot, opt.CgroupRoot = t.TempDir(), t.TempDir()
		defer idleCores(t, opt.ProcRoot)()
	}
	res, err := throughput.Run(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Into, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return true
}

// idleCores keeps a file of cores that have nothing to do.
func idleCores(t *testing.T, dir string) (end func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	write := func() {
		ticks := int(time.Since(began) / (10 * time.Millisecond))
		_, _ = fmt.Fprintf(io.NewOffsetWriter(f, 0), "cpu0 %020[1]d 0 0 %020[2]d 0 0 0 0 0 0\ncpu1 %020[1]d 0 0 %020[2]d 0 0 0 0 0 0\n", ticks/10, ticks-ticks/10)
	}
	write()
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer f.Close()
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				write()
			}
		}
	}()
	return func() { close(stop); <-ended }
}

// lineOfWan reads the interface that newFar makes. Its port has no speed.
func lineOfWan(context.Context, netip.Addr) (throughput.Line, error) {
	text, err := os.ReadFile("/proc/self/net/dev")
	if err != nil {
		return throughput.Line{}, err
	}
	_, after, ok := strings.Cut(string(text), "wan:")
	f := strings.Fields(after)
	if !ok || len(f) < 10 {
		return throughput.Line{}, fmt.Errorf("no wan in %q", text)
	}
	l := throughput.Line{Interface: "wan", HeaderBytes: 14, Carrier: true}
	for i, into := range map[int]*uint64{0: &l.RxBytes, 1: &l.RxPackets, 8: &l.TxBytes, 9: &l.TxPackets} {
		if *into, err = strconv.ParseUint(f[i], 10, 64); err != nil {
			return l, err
		}
	}
	return l, nil
}

// measureHeld lets a process of its own measure while it is held.
func measureHeld(t *testing.T, h held, o order) *throughput.Rate {
	t.Helper()
	o.Into, o.Hidden = filepath.Join(t.TempDir(), "result"), h.hidden
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), heldOrder+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	free := func() {}
	switch {
	case h.part == 0:
	case h.stopped:
		free = stopAndGo(cmd.Process, h)
	default:
		var err error
		if free, err = quota(t, cmd.Process.Pid, h); err != nil {
			t.Logf("%v: stopped and continued instead", err)
			free = stopAndGo(cmd.Process, h)
		}
	}
	begin.Close()
	err = cmd.Wait()
	free()
	if err != nil {
		t.Fatalf("%s: %v\n%s", h, err, out.Bytes())
	}
	text, err = os.ReadFile(o.Into)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
	var res throughput.Result
	if err := json.Unmarshal(text, &res); err != nil {
		t.Fatal(err)
	}
	if o.Direction == throughput.Up {
		return res.Up
	}
	return res.Down
}

// stopAndGo lets a process run for a part of each period.
func stopAndGo(p *os.Process, h held) (free func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		run := time.Duration(h.part * float64(h.period))
		for stop := true; ; stop = !stop {
			signal, d := syscall.SIGCONT, run
			if stop {
				signal, d = syscall.SIGSTOP, h.period-run
			}
			if p.Signal(signal) != nil {
				return // it has ended
			}
			select {
			case <-end:
				return
			case <-time.After(d):
			}
		}
	}()
	return func() { close(end); <-ended }
}

// quota puts a process into a cgroup of its own with a part of a core.
func quota(t *testing.T, pid int, h held) (free func(), err error) {
	t.Helper()
	period := strconv.FormatInt(h.period.Microseconds(), 10)
	limit := strconv.FormatInt(int64(h.part*float64(h.period.Microseconds())+0.5), 10)
	name := "ontagent-throughput-test-" + strconv.Itoa(pid)
	var dir string
	var write [][2]string
	if exists("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") {
		dir = "/sys/fs/cgroup/cpu/" + name
		write = [][2]string{{"cpu.cfs_period_us", period}, {"cpu.cfs_quota_us", limit}}
	} else {
		// Where it is not delegated, what follows says so.
		_ = os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu"), 0)
		dir = "/sys/fs/cgroup/" + name
		write = [][2]string{{"cpu.max", limit + " " + period}}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	free = func() {
		for range 100 {
			if err := unix.Rmdir(dir); err == nil || !exists(dir) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s stays", dir)
	}
	for _, w := range append(write, [2]string{"cgroup.procs", strconv.Itoa(pid)}) {
		if err := os.WriteFile(filepath.Join(dir, w[0]), []byte(w[1]), 0); err != nil {
			free()
			return nil, err
		}
	}
	return free, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A line that carries what is contracted, and a process that gets a fraction of
// a core: whatever it measures, that is no fail.
func TestShapedNoFalseFail(t *testing.T) {
	if obey(t) {
		return
	}
	runs := 5
	if os.Getenv("LONG") != "" {
		runs = 100
	}
	const batch = 5 // in namespaces of their own
	for first := 0; first < runs; first += batch {
		t.Run("from"+strconv.Itoa(first), func(t *testing.T) {
			if !alone(t) {
				return
			}
			f := newFar(t)
			f.nginx(t, "192.0.2.2", "location = /up { client_max_body_size 0; return 200; }")
			for i := first; i < first+batch; i++ {
				heldRun(t, f, i)
			}
		})
	}
}

// heldRun is one of the runs of TestShapedNoFalseFail, of which each is another case.
func heldRun(t *testing.T, f *far, i int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(6, uint64(i)))
	h := held{
		part:    []float64{0.002, 0.01, 0.02, 0.05, 0.1, 0.3}[rng.IntN(6)],
		period:  []time.Duration{500 * time.Millisecond, 100 * time.Millisecond, 20 * time.Millisecond}[rng.IntN(3)],
		stopped: rng.IntN(4) == 0, hidden: rng.IntN(2) == 0,
	}
	h.part = max(h.part, float64(time.Millisecond)/float64(h.period)) // a quota is 1 ms at least
	o := order{Direction: []throughput.Direction{throughput.Down, throughput.Up}[rng.IntN(2)], Window: 2 * time.Second}
	mbps := []int{1000, 500, 300, 1000}[rng.IntN(4)]
	// A gateway has little memory for TCP: what is read or written too late is
	// missed at once.
	memory := []string{"4096 131072 6291456", "4096 131072 1048576", "4096 65536 262144", "4096 32768 131072"}[rng.IntN(4)]
	for _, name := range []string{"tcp_rmem", "tcp_wmem"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(memory), 0); err != nil {
			t.Fatal(err)
		}
	}
	f.shape(mbps)
	o.Contract = float64(mbps) * goodput // which the line carries
	rate := measureHeld(t, h, o)
	text, _ := json.Marshal(rate)
	ratio := -1.0
	if rate.ContractRatio != nil {
		ratio = *rate.ContractRatio
	}
	t.Logf("%s, %s at %d: %.3f, %s, %s: %s", h, o.Direction, mbps, ratio, rate.Verdict, rate.LimitedBy, rate.Reason)
	switch {
	case rate.Verdict == throughput.Fail:
		t.Errorf("%s, %s at %d: a false fail: %s", h, o.Direction, mbps, text)
	case rate.Verdict == throughput.Pass && !(ratio >= 0.9 && ratio < 1.01):
		t.Errorf("%s, %s at %d: a false pass: %s", h, o.Direction, mbps, text)
	case i == 0 && rate.Verdict == throughput.Pass:
		t.Errorf("%s, %s at %d: nothing was held: %s", h, o.Direction, mbps, text)
	case rate.Verdict == throughput.Inconclusive && rate.TCPMbps != nil && rate.LimitedBy != throughput.LimitDeviceCPU:
		t.Logf("not seen where it was: %s", text)
	}
}

// A line that is slow, and nothing that disturbs: that is what a fail is for.
func TestShapedSlowLineFails(t *testing.T) {
	if obey(t) || !alone(t) {
		return
	}
	f := newFar(t)
	f.shape(50)
	f.nginx(t, "192.0.2.2", "location = /up { client_max_body_size 0; return 200; }")
	for _, dir := range []throughput.Direction{throughput.Down, throughput.Up} {
		// The cores may have other things to do here: they are not looked at.
		o := order{Direction: dir, Window: 2 * time.Second, Contract: 50 * goodput / 0.8}
		rate := measureHeld(t, held{hidden: true}, o)
		for try := 0; rate.LimitedBy == throughput.LimitDeviceCPU && try < 4; try++ {
			rate = measureHeld(t, held{hidden: true}, o)
		}
		text, _ := json.Marshal(rate)
		switch {
		case rate.LimitedBy == throughput.LimitDeviceCPU:
			unable(t, "this machine is too busy: %s", rate.Reason)
		case rate.Verdict != throughput.Fail || rate.LimitedBy != throughput.LimitLine:
			t.Errorf("%s: %s", dir, text)
		}
		t.Log(rate.Reason)
	}
}

// A line that loses packets, and has room: TCP is slow on it, the line is not.
func TestShapedLossIsNoFail(t *testing.T) {
	if obey(t) || !alone(t) {
		return
	}
	f := newFar(t)
	f.nginx(t, "192.0.2.2", "location = /up { client_max_body_size 0; return 200; }")
	const rules = "add table inet t; add chain inet t i { type filter hook input priority 0; }; add rule inet t i tcp dport 1024-65535 tcp flags & syn == 0 numgen random mod 100 < 20 drop; " +
		"add rule inet t i tcp dport 80 tcp flags & syn == 0 numgen random mod 100 < 20 drop"
	run(t, "nft", rules)
	f.run("nft", rules)
	for _, dir := range []throughput.Direction{throughput.Down, throughput.Up} {
		rate := measureHeld(t, held{hidden: true}, order{Direction: dir, Window: 2 * time.Second, Contract: 5000})
		text, _ := json.Marshal(rate)
		if rate.Verdict != throughput.Inconclusive || rate.TCPMbps == nil {
			t.Errorf("%s: %s", dir, text)
		}
		t.Logf("%s: %s: %s", dir, rate.LimitedBy, rate.Reason)
	}
}
