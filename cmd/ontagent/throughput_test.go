package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/probe/throughput"
	"ontagent/cmd/cli"
)

// speedTestOf runs the verb with a test of its own, and returns what it was
// asked to do.
func speedTestOf(t *testing.T, r throughput.Result, failure error, args ...string) (o throughput.Options, code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{out: &stdout, err: &stderr}
	s := &speedTest{probing: probing{app: a, name: "throughput"}}
	s.measure = func(_ context.Context, asked throughput.Options) (throughput.Result, error) {
		o = asked
		return r, failure
	}
	err := s.run(t.Context(), args)
	if exit, ok := errors.AsType[*cli.Error](err); ok {
		code = exit.Code
		if exit.Err != nil {
			stderr.WriteString(exit.Error())
		}
	} else if err != nil {
		t.Errorf("an error without a code: %v", err)
	}
	return o, code, stdout.String(), stderr.String()
}

func TestThroughputHelp(t *testing.T) {
	code, out, errs := ontagent(t, "throughput", "--help")
	if code != cli.OK || errs != "" {
		t.Errorf("exit code %d: %s", code, errs)
	}
	s := &speedTest{probing: probing{app: &app{}}}
	_ = s.parse(nil)
	if n := strings.Count(throughputFlags, "  --"); n != len(s.flags) {
		t.Errorf("%d flags are described, %d are there", n, len(s.flags))
	}
	for _, f := range s.flags {
		_, isBool := f.to.(*bool)
		if isBool != (f.takes == "") || !strings.Contains(out, "  --"+f.name+" ") {
			t.Errorf("--%s takes %q and sets a %T", f.name, f.takes, f.to)
		}
		if _, seconds := f.to.(*time.Duration); seconds != (f.takes == "SECONDS") {
			t.Errorf("--%s takes %q and sets a %T", f.name, f.takes, f.to)
		}
	}
}

func TestThroughputUsage(t *testing.T) {
	for _, tc := range []struct{ args, says string }{
		{"", "--url is needed"},
		{"--direction up", "--url is needed"},
		{"--direction up --second-url http://a/", "--url is needed"},
		{"--url http://a/ stray", "beside the flags"},
		{"--bogus", "-bogus"},
		{"--url http://a/ --direction sideways", "-direction: must be down|up|both"},
		{"--url http://a/ --contract x", `invalid value "x" for flag -contract`},
		{"--url http://a/ --contract -5", "-contract"},
		{"--url http://a/ --contract 0", "-contract"},
		{"--url http://a/ --contract 0/0", "-contract"},
		{"--url http://a/ --contract 500/", "-contract"},
		{"--url http://a/ --contract /500", "-contract"},
		{"--url http://a/ --contract 5/5/5", "-contract"},
		{"--url http://a/ --contract NaN", "-contract"},
		{"--url http://a/ --contract inf", "-contract"},
		{"--url http://a/ --contract 1e9", "-contract"},
		{"--url http://a/ --ratio 0", "-ratio: must be above 0 to 1"},
		{"--url http://a/ --ratio 1.1", "-ratio"},
		{"--url http://a/ --ratio NaN", "-ratio"},
		{"--url http://a/ --ratio 90%", "-ratio"},
		{"--url http://a/ --connections 0", "-connections: must be 1..16"},
		{"--url http://a/ --connections 17", "-connections: must be 1..16"},
		{"--url http://a/ --window 0.5", "-window: must be 1 to 60 seconds"},
		{"--url http://a/ --window 61", "-window: must be 1 to 60 seconds"},
		{"--url http://a/ --window ten", "-window: must be SECONDS"},
		{"--url http://a/ --layer l2", "-layer: must be tcp|ip|ethernet"},
		{"--url http://a/ --max-bytes -1", "-max-bytes"},
		{"--url http://a/ --max-bytes 1e16", "-max-bytes"},
		{"--url http://a/ --upload-method GET", "-upload-method: must be POST|PUT"},
		{"--url http://a/ --encapsulation atm", "-encapsulation"},
		{"--url http://a/ --encapsulation pppoe,,vlan", "-encapsulation"},
		{"--url http://a/ --resolver nobody", "-resolver: must be ADDRESS,…"},
		{"--url http://a/ --lang fr", "-lang: must be zh-CN or en"},
		{"--url http://a/ --config /does/not/exist", "/does/not/exist"},
		// What the engine says of it.
		{"--url https://a/", "HTTPS"},
		{"--url ftp://a/", "http://"},
		{"--url http:///x", "has no host"},
		{"--url http://a:99999/", "port"},
		{"--url http://u:p@a/", "password"},
		{"--url http://a/ --upload-url https://b/", "HTTPS"},
		{"--url http://a/ --second-url nonsense", "second URL"},
		{"--url http://a/ --interface ../../x", "no name"},
	} {
		code, out, errs := ontagent(t, append([]string{"throughput"}, strings.Fields(tc.args)...)...)
		if code != cli.Usage || !strings.Contains(errs, tc.says) || out != "" {
			t.Errorf("%s: exit code %d: %s%s", tc.args, code, errs, out)
		}
	}
}

func TestThroughputOptions(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config")
	text := `config main
	option device 'HWTC12345678'
	option language 'en'
config throughput
	option url 'http://speed.example/1g'
	option upload_url 'http://speed.example/up'
	option upload_method 'PUT'
	option second_url 'iperf3://other.example'
	option connections '8'
	option window '5'
config thresholds
	option throughput_min_ratio '0.8'
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	defaults := throughput.Options{
		URL: "http://a/", UploadMethod: "POST", Direction: throughput.Both, Layer: throughput.LayerTCP,
		Connections: 4, Window: 10 * time.Second, MinRatio: 0.9,
	}
	for _, tc := range []struct {
		args string
		want func(o *throughput.Options)
	}{
		{"--url http://a/", func(*throughput.Options) {}},
		{"--url http://a/ --contract 500", func(o *throughput.Options) { o.ContractDownMbps, o.ContractUpMbps = 500, 500 }},
		{"--url http://a/ --contract 500/50.5", func(o *throughput.Options) { o.ContractDownMbps, o.ContractUpMbps = 500, 50.5 }},
		{"--url http://a/ --contract 500/0", func(o *throughput.Options) { o.ContractDownMbps = 500 }},
		{"--url http://a/ --direction up --layer ethernet --ratio 1", func(o *throughput.Options) {
			o.Direction, o.Layer, o.MinRatio = throughput.Up, throughput.LayerEthernet, 1
		}},
		{"--direction up --upload-url http://b/", func(o *throughput.Options) {
			o.URL, o.UploadURL, o.Direction = "", "http://b/", throughput.Up
		}},
		{"--url http://a/ --connections 16 --window 1.5 --max-bytes 4e9 --upload-method PUT --interface wan0 --consent", func(o *throughput.Options) {
			o.Connections, o.Window, o.MaxBytes, o.UploadMethod, o.Interface, o.MayDisturb = 16, 1500*time.Millisecond, 4e9, "PUT", "wan0", true
		}},
		{"--url http://a/ --encapsulation pppoe,qinq", func(o *throughput.Options) {
			o.Encapsulation = throughput.Encapsulation{PPPoE: true, VLANTags: 2}
		}},
		{"--url http://a/ --encapsulation ipoe,vlan,ds-lite", func(o *throughput.Options) {
			o.Encapsulation = throughput.Encapsulation{VLANTags: 1, TunnelBytes: 40}
		}},
		{"--config " + file, func(o *throughput.Options) {
			*o = throughput.Options{
				URL: "http://speed.example/1g", UploadURL: "http://speed.example/up", UploadMethod: "PUT", SecondURL: "iperf3://other.example",
				Direction: throughput.Both, Layer: throughput.LayerTCP, Connections: 8, Window: 5 * time.Second, MinRatio: 0.8,
			}
		}},
		{"--config " + file + " --url http://a/ --ratio 0.95 --window 2", func(o *throughput.Options) {
			*o = throughput.Options{
				URL: "http://a/", UploadURL: "http://speed.example/up", UploadMethod: "PUT", SecondURL: "iperf3://other.example",
				Direction: throughput.Both, Layer: throughput.LayerTCP, Connections: 8, Window: 2 * time.Second, MinRatio: 0.95,
			}
		}},
	} {
		args := strings.Fields(tc.args)
		if !strings.Contains(tc.args, "--encapsulation") {
			args = append(args, "--encapsulation", "ipoe") // not as it happens to be here
		}
		got, code, _, errs := speedTestOf(t, throughput.Result{Verdict: throughput.Measured}, nil, args...)
		if code != cli.OK || got.Line == nil || got.Resolve == nil || got.Note != nil {
			t.Errorf("%s: exit code %d: %s, %+v", tc.args, code, errs, got)
		}
		got.Line, got.Resolve = nil, nil
		want := defaults
		tc.want(&want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.args, diff)
		}
	}
	o, _, _, errs := speedTestOf(t, throughput.Result{}, nil, "--url", "http://a/", "--verbose")
	if o.Note == nil {
		t.Fatalf("--verbose has nobody to tell: %s", errs)
	}
}

// result is one for tests: fictitious, and of all that can be said.
func result(down, up throughput.Verdict) throughput.Result {
	f := func(v float64) *float64 { return &v }
	one := func(mbps, contract float64, v throughput.Verdict) *throughput.Rate {
		r := &throughput.Rate{
			Measurement: throughput.Measurement{
				TCPMbps: f(mbps), IPMbps: f(mbps * 1.03), EthernetMbps: f(mbps * 1.04), Bytes: uint64(mbps * 1.25e6), DurationS: 10, WarmUpS: 2.25,
				CrossMbps: f(0.3), CeilingMbps: f(941.48),
			},
			ContractMbps: contract, ContractRatio: f(mbps / contract), Verdict: v, LimitedBy: throughput.LimitLine,
		}
		r.Spread = throughput.Spread{MinMbps: mbps * 0.98, MaxMbps: mbps * 1.01}
		r.Latency = throughput.Latency{IdleP50Ms: f(4.12), IdleP95Ms: f(5), LoadedP50Ms: f(23.46), LoadedP95Ms: f(41), RPM: f(1830.4), RPMConfidence: "medium"}
		r.Conditions.PeakCore, r.Conditions.Throttled = f(0.634), f(0)
		if v == throughput.Inconclusive {
			r.LimitedBy, r.Reason = throughput.LimitDeviceCPU, "core 1 was 100 % busy"
			r.Runs = make([]throughput.Measurement, 3)
			r.Runs[0].TCPMbps, r.Runs[1].TCPMbps = f(mbps-1), f(mbps)
		}
		if v == throughput.Fail {
			r.Reason = "60.0 of 100 Mbit/s, and a second run agrees"
		}
		return r
	}
	r := throughput.Result{
		URL: "http://speed.example/1g", Protocol: "http", ServerName: "nginx\x1b[31m", Interface: "pppoe-wan", Connections: 4,
		Layer: throughput.LayerTCP, MinRatio: 0.9, Verdict: down,
	}
	if down != "" {
		r.Down = one(472.3061, 500, down)
	}
	if up != "" {
		r.Up = one(30, 50, up)
		if up != throughput.Pass {
			r.Verdict = up
		}
	}
	return r
}

func TestThroughputReport(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    throughput.Result
		code int
	}{
		{"pass", result(throughput.Pass, throughput.Pass), cli.OK},
		{"fail", result(throughput.Pass, throughput.Fail), cli.Fail},
		{"inconclusive", result(throughput.Inconclusive, ""), cli.Inconclusive},
		{"measured", func() throughput.Result {
			r := result(throughput.Measured, "")
			r.Down.ContractMbps, r.Down.ContractRatio = 0, nil
			return r
		}(), cli.OK},
		{"unreachable", throughput.Result{
			URL: "http://speed.example/1g", Connections: 4, Layer: throughput.LayerTCP, MinRatio: 0.9,
			Down: &throughput.Rate{
				Measurement: throughput.Measurement{Error: "connection refused"}, ContractMbps: 500,
				Verdict: throughput.Inconclusive, Reason: "connection refused",
			},
			Verdict: throughput.Inconclusive, Reason: "connection refused",
		}, cli.Inconclusive},
	} {
		for _, lang := range []string{"en", "zh-CN"} {
			_, code, out, errs := speedTestOf(t, tc.r, nil, "--url", "http://speed.example/1g", "--lang", lang)
			if code != tc.code || errs != "" {
				t.Errorf("%s: exit code %d, want %d: %s", tc.name, code, tc.code, errs)
			}
			golden(t, "../throughput/"+tc.name+"."+lang+".txt", out)
			if strings.ContainsAny(out, "\x1b\x00") {
				t.Errorf("%s: what a terminal takes for a command: %q", tc.name, out)
			}
		}
		_, code, out, errs := speedTestOf(t, tc.r, nil, "--url", "http://speed.example/1g", "--json")
		if code != tc.code || errs != "" {
			t.Errorf("%s: exit code %d, want %d: %s", tc.name, code, tc.code, errs)
		}
		var back map[string]any
		if err := json.Unmarshal([]byte(out), &back); err != nil || strings.Count(out, "\n") != 1 {
			t.Fatalf("%s: %v: %s", tc.name, err, out)
		}
		if back["verdict"] != string(tc.r.Verdict) || (back["down"] == nil) != (tc.r.Down == nil) {
			t.Errorf("%s: %s", tc.name, out)
		}
	}
}

func TestThroughputThatDidNotRun(t *testing.T) {
	_, code, out, errs := speedTestOf(t, throughput.Result{}, fmt.Errorf("%w: no", throughput.ErrOptions), "--url", "http://a/", "--json")
	if code != cli.Usage || out != "" || !strings.Contains(errs, "wrong options: no") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	_, code, out, errs = speedTestOf(t, throughput.Result{}, errors.New("something else"), "--url", "http://a/", "--json")
	if code != cli.Inconclusive || !strings.Contains(out, `"verdict":"inconclusive","reason":"something else"`) || errs != "" {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

// speedPage is a server that has a file without an end, and takes anything; at a
// pace that leaves something of the processor.
func speedPage(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		zeros := make([]byte, 64<<10)
		switch {
		case r.Method == http.MethodPost:
			for {
				if _, err := io.ReadFull(r.Body, zeros); err != nil {
					return
				}
				time.Sleep(2 * time.Millisecond)
			}
		case r.URL.Path == "/file":
			w.Header().Set("Content-Length", "1000000000000")
			for r.Method == http.MethodGet {
				if _, err := w.Write(zeros); err != nil {
					return
				}
				time.Sleep(2 * time.Millisecond)
			}
		case r.URL.Path == "/chunks":
			for {
				if _, err := w.Write(zeros); err != nil {
					return
				}
			}
		default:
			http.Redirect(w, r, "https://portal.example/", http.StatusFound)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// What the issue asks of the verb, against a server that is there.
func TestThroughputAgainstAServer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	s := speedPage(t)
	code, out, errs := ontagent(t, "throughput", "--url", s.URL+"/file", "--contract", "1", "--window", "2", "--consent", "--json")
	type rate struct {
		TCP      float64  `json:"tcp_mbps"`
		IP       float64  `json:"ip_mbps"`
		Ethernet float64  `json:"ethernet_mbps"`
		Bytes    uint64   `json:"bytes"`
		Duration float64  `json:"duration_s"`
		Limited  *string  `json:"limited_by"`
		Ratio    *float64 `json:"contract_ratio"`
	}
	var r struct {
		Down, Up  *rate
		Verdict   string
		Interface string
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != cli.OK || errs != "" {
		t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
	}
	if r.Verdict != "pass" || r.Interface != "lo" {
		t.Errorf("%s", out)
	}
	for name, d := range map[string]*rate{"down": r.Down, "up": r.Up} {
		if d == nil || d.TCP < 1 || d.IP <= d.TCP || d.Ethernet <= d.IP || d.Bytes == 0 || d.Duration < 1.9 || d.Limited == nil || d.Ratio == nil {
			t.Errorf("%s: %s", name, out)
			continue
		}
		if got := float64(d.Bytes) * 8 / d.Duration / 1e6; got < d.TCP*0.999 || got > d.TCP*1.001 {
			t.Errorf("%s: %v Mbit/s, and %d bytes in %v s", name, d.TCP, d.Bytes, d.Duration)
		}
	}
	// Without a contract there is nothing to judge.
	code, out, errs = ontagent(t, "throughput", "--url", s.URL+"/file", "--direction", "down", "--window", "2", "--consent", "--lang", "en", "--verbose")
	if code != cli.OK || !strings.Contains(out, "verdict: measured; there is no contract") || !strings.Contains(out, "Mbit/s TCP") || strings.Contains(out, "up:") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if !strings.Contains(errs, "ontagent: down: ") {
		t.Errorf("--verbose says %q", errs)
	}
}

func TestThroughputInconclusive(t *testing.T) {
	readsNetlink(t)
	s := speedPage(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	_ = l.Close()
	for _, tc := range []struct{ url, says string }{
		{s.URL + "/elsewhere", "HTTPS"},
		{s.URL + "/chunks", "chunked"},
		{"http://" + closed + "/", "cannot connect"}, // user-mode emulation has another word for why
	} {
		for _, contract := range []string{"--contract=100", "--direction=down"} {
			code, out, errs := ontagent(t, "throughput", "--url", tc.url, "--direction=down", contract, "--consent", "--lang", "en")
			if code != cli.Inconclusive || !strings.Contains(out, "verdict: inconclusive\n") || !strings.Contains(out, tc.says) || errs != "" {
				t.Errorf("%s: exit code %d: %s%s", tc.url, code, out, errs)
			}
		}
	}
	code, out, _ := ontagent(t, "throughput", "--url", s.URL+"/elsewhere", "--direction=down", "--consent", "--lang", "zh-CN")
	if code != cli.Inconclusive || !strings.Contains(out, "结论: 无法判定\n") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// TestThroughputProcess is not a test: it is the verb, for tests that run it as
// a process of its own. The processors that it sees have nothing to do: what
// else this machine does is not what they are about.
func TestThroughputProcess(t *testing.T) {
	if os.Getenv("ONTAGENT_THROUGHPUT") == "" {
		return
	}
	for i, arg := range os.Args {
		if arg != "--" {
			continue
		}
		os.Args = os.Args[i:]
		os.Exit(cli.Main(func(ctx context.Context, args []string) int { //nolint:forbidigo // it is main here
			a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
			s := &speedTest{probing: probing{app: a, name: "throughput"}}
			s.measure = func(ctx context.Context, o throughput.Options) (throughput.Result, error) {
				o.ProcRoot, o.CgroupRoot = t.TempDir(), t.TempDir()
				stop := idleCores(t, filepath.Join(o.ProcRoot, "stat"))
				defer stop()
				return throughput.Run(ctx, o)
			}
			if exit, ok := errors.AsType[*cli.Error](s.run(ctx, args)); ok {
				return exit.Code
			}
			return cli.OK
		}))
	}
}

// idleCores keeps a file of two cores that are a tenth busy.
func idleCores(t *testing.T, path string) (stop func()) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	write := func() {
		ticks := int(time.Since(began) / (10 * time.Millisecond))
		line := fmt.Sprintf(" %020d 0 0 %020d 0 0 0 0 0 0\n", ticks/10, ticks-ticks/10)
		_, _ = f.WriteAt([]byte("cpu0"+line+"cpu1"+line), 0)
	}
	write()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
				write()
			}
		}
	}()
	return func() { close(end); <-ended; _ = f.Close() }
}

// throughputProcess starts the verb as a process of its own.
func throughputProcess(t *testing.T, args ...string) (cmd *exec.Cmd, out, errs *bytes.Buffer) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(program, append([]string{"-test.run=^TestThroughputProcess$", "--"}, args...)...)
	cmd.Env = append(os.Environ(), "ONTAGENT_THROUGHPUT=1", "TMPDIR="+t.TempDir())
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, errs
	return cmd, out, errs
}

func TestThroughputInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	s := speedPage(t)
	cmd, out, errs := throughputProcess(t, "--url", s.URL+"/file", "--direction", "down", "--consent", "--json")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond)
	begin := time.Now()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the code says it
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("it took %v to end", took)
	}
	var r throughput.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || cmd.ProcessState.ExitCode() != cli.Inconclusive || r.Verdict != throughput.Inconclusive || r.Reason != "interrupted" {
		t.Errorf("exit code %d, %v: %s%s", cmd.ProcessState.ExitCode(), err, out, errs)
	}
}

// A line that is slower than its contract, and one that is not, by our own
// server.
func TestShapedThroughput(t *testing.T) {
	inNetwork(t, "tc", "go")
	gateway, operator := line(t)
	gateway.ip("addr", "add", "10.41.0.2/24", "dev", "wan0")
	shape := func(h *netHost, dev string) {
		h.do(func() {
			args := strings.Fields("qdisc add dev " + dev + " root tbf rate 50mbit burst 16kb latency 40ms")
			if out, err := exec.Command("tc", args...).CombinedOutput(); err != nil {
				t.Errorf("tc %v: %v: %s", args, err, out)
			}
		})
	}
	shape(operator, "srv0")
	shape(gateway, "wan0")
	url := operator.speedServer("10.41.0.1")
	for _, tc := range []struct {
		contract, direction string
		code                int
		verdict             throughput.Verdict
	}{
		{"100", "down", cli.Fail, throughput.Fail},
		{"50/50", "both", cli.OK, throughput.Pass},
	} {
		var r throughput.Result
		var code int
		var out, errs *bytes.Buffer
		for range 4 {
			var cmd *exec.Cmd
			cmd, out, errs = throughputProcess(t, "--url", url, "--contract", tc.contract, "--direction", tc.direction, "--window", "2", "--json")
			var err error
			gateway.do(func() { err = cmd.Start() })
			if err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the code says it
			r, code = throughput.Result{}, cmd.ProcessState.ExitCode()
			if err := json.Unmarshal(out.Bytes(), &r); err != nil {
				t.Fatalf("%v: %s%s", err, out, errs)
			}
			// A machine that is late shows, whatever it says of its processors. The
			// opposite verdict must not come even then.
			if code != cli.Inconclusive {
				break
			}
			t.Logf("again: %s", r.Reason)
		}
		if code != tc.code || r.Verdict != tc.verdict || r.Interface != "wan0" || !strings.HasPrefix(r.ServerName, "ontctl/") {
			t.Errorf("contract %s: exit code %d, %s, want %s: %s%s", tc.contract, code, r.Verdict, tc.verdict, out, errs)
		}
		for name, d := range map[string]*throughput.Rate{"down": r.Down, "up": r.Up} {
			const truth = 50 * 1448. / 1514
			if d == nil && tc.direction == "down" && name == "up" {
				continue
			}
			if d == nil || d.TCPMbps == nil || *d.TCPMbps < truth*0.97 || *d.TCPMbps > truth*1.03 {
				t.Errorf("contract %s, %s: %s", tc.contract, name, out)
			}
		}
	}
}
