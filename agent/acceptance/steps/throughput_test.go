package steps_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/throughput"
	"ontagent/collectors"
)

// speedTest is a test of a line of 100/20 Mbit/s.
func speedTest() throughput.Options {
	return throughput.Options{URL: "http://speed.example/1g", ContractDownMbps: 100, ContractUpMbps: 20, MaxBytes: 1 << 30}
}

// rate is a direction that ended with a rate of TCP.
func rate(mbps, contract float64, v throughput.Verdict, limit throughput.Limit) *throughput.Rate {
	ratio := mbps / contract
	ip, ethernet := mbps*1.036, mbps*1.046
	return &throughput.Rate{
		Measurement: throughput.Measurement{
			TCPMbps: &mbps, IPMbps: &ip, EthernetMbps: &ethernet, Bytes: uint64(mbps * 1.25e6), DurationS: 10, WarmUpS: 2,
			Stable: true, CountedBy: "tcp_info", Mbps: slices.Repeat([]float64{mbps}, 10),
		},
		ContractMbps: contract, ContractRatio: &ratio, Verdict: v, LimitedBy: limit,
	}
}

// unclearRate is a direction that could not be judged.
func unclearRate(mbps, contract float64, limit throughput.Limit, reason string) *throughput.Rate {
	r := rate(mbps, contract, throughput.Inconclusive, limit)
	r.Reason = reason
	return r
}

func TestThroughput(t *testing.T) {
	good, goodUp := rate(95, 100, throughput.Pass, throughput.LimitLine), rate(19.5, 20, throughput.Pass, throughput.LimitLine)
	slow, slowUp := rate(60, 100, throughput.Fail, throughput.LimitLine), rate(8, 20, throughput.Fail, throughput.LimitLine)
	with := func(r *throughput.Rate, change func(*throughput.Rate)) *throughput.Rate {
		c := *r
		change(&c)
		return &c
	}
	bloated := with(good, func(r *throughput.Rate) {
		idle, loaded := 8.0, 208.1
		r.Latency.IdleP50Ms, r.Latency.LoadedP50Ms = &idle, &loaded
	})
	nearly := with(good, func(r *throughput.Rate) {
		idle, loaded := 8.0, 208.0
		r.Latency.IdleP50Ms, r.Latency.LoadedP50Ms = &idle, &loaded
	})
	for _, tt := range []struct {
		name     string
		r        throughput.Result
		verdict  acceptance.Verdict
		causes   []code
		warnings []code
		reason   string
	}{
		{name: "both", r: throughput.Result{Down: good, Up: goodUp}, verdict: pass},
		{name: "exactly enough", r: throughput.Result{Down: rate(90, 100, throughput.Pass, throughput.LimitLine), Up: goodUp}, verdict: pass},
		{name: "down is slow", r: throughput.Result{Down: slow, Up: goodUp}, verdict: fail, causes: []code{diagnosis.ThroughputBelow}, reason: "down: 60 of 100 Mbit/s (tcp)"},
		{name: "both are slow", r: throughput.Result{Down: slow, Up: slowUp}, verdict: fail, causes: []code{diagnosis.ThroughputBelow}, reason: "down: 60 of 100 Mbit/s (tcp); up: 8 of 20 Mbit/s (tcp)"},
		{
			name: "slow, and it says why", r: throughput.Result{Down: with(slow, func(r *throughput.Rate) { r.Reason = "a second run agrees" }), Up: goodUp},
			verdict: fail, causes: []code{diagnosis.ThroughputBelow}, reason: "down: a second run agrees",
		},
		{name: "only up is slow", r: throughput.Result{Down: good, Up: slowUp}, verdict: fail, causes: []code{diagnosis.ThroughputUploadOnly}},
		{
			name: "up is slow, and down is not known", r: throughput.Result{Down: unclearRate(50, 100, throughput.LimitServer, "the server is slow"), Up: slowUp},
			verdict: fail, causes: []code{diagnosis.ThroughputBelow}, warnings: []code{diagnosis.ThroughputServer}, reason: "up: 8 of 20 Mbit/s (tcp); down: the server is slow",
		},
		{name: "down is not known", r: throughput.Result{Down: unclearRate(50, 100, throughput.LimitDeviceCPU, "a core is full"), Up: goodUp}, verdict: unclear, causes: []code{diagnosis.ThroughputDeviceCPU}, reason: "down: a core is full"},
		{
			name: "neither is known", r: throughput.Result{Down: unclearRate(50, 100, throughput.LimitWindow, "a"), Up: unclearRate(5, 20, throughput.LimitShort, "b")},
			verdict: unclear, causes: []code{diagnosis.ThroughputWindow, diagnosis.ThroughputShort}, reason: "down: a; up: b",
		},
		{
			name: "neither for the same reason", r: throughput.Result{Down: unclearRate(50, 100, throughput.LimitCrossTraffic, "busy"), Up: unclearRate(5, 20, throughput.LimitCrossTraffic, "busy")},
			verdict: unclear, causes: []code{diagnosis.ThroughputCrossTraffic}, reason: "busy",
		},
		{name: "loss", r: throughput.Result{Down: unclearRate(50, 100, throughput.LimitLoss, "lost"), Up: goodUp}, verdict: unclear, causes: []code{diagnosis.ReachLoss}},
		{name: "the port", r: throughput.Result{Down: unclearRate(50, 100, throughput.LimitDeviceCeiling, "slow port"), Up: goodUp}, verdict: unclear, causes: []code{diagnosis.ThroughputDeviceCeiling}},
		{name: "unsteady", r: throughput.Result{Down: good, Up: unclearRate(5, 20, throughput.LimitUnstable, "to and fro")}, verdict: unclear, causes: []code{diagnosis.ThroughputUnstable}},
		{name: "the link", r: throughput.Result{Down: good, Up: unclearRate(5, 20, throughput.LimitLinkChanged, "gone")}, verdict: unclear, causes: []code{diagnosis.ThroughputLinkChanged}},
		{name: "nobody can tell why", r: throughput.Result{Down: unclearRate(50, 100, throughput.LimitLine, "no interface to watch"), Up: goodUp}, verdict: unclear, causes: []code{diagnosis.AgentCannotMeasure}},
		{name: "a limit from the future", r: throughput.Result{Down: unclearRate(50, 100, "purple", "no reason at all"), Up: goodUp}, verdict: unclear, causes: []code{diagnosis.AgentCannotMeasure}},
		{
			name: "it broke off", r: throughput.Result{Down: &throughput.Rate{Measurement: throughput.Measurement{Error: "status 403"}, Verdict: throughput.Inconclusive}, Up: goodUp},
			verdict: unclear, causes: []code{diagnosis.AgentCannotMeasure}, reason: "down: status 403",
		},
		{name: "nothing was begun", r: throughput.Result{Verdict: throughput.Inconclusive, Reason: "no such host"}, verdict: unclear, causes: []code{diagnosis.AgentCannotMeasure}, reason: "no such host"},
		{name: "nothing at all", verdict: unclear, causes: []code{diagnosis.AgentCannotMeasure}},
		{name: "no verdict", r: throughput.Result{Down: with(good, func(r *throughput.Rate) { r.Verdict = "" }), Up: goodUp}, verdict: unclear, causes: []code{diagnosis.AgentCannotMeasure}},
		{name: "measured and not judged", r: throughput.Result{Down: with(good, func(r *throughput.Rate) { r.Verdict = throughput.Measured }), Up: goodUp}, verdict: unclear, causes: []code{diagnosis.AgentCannotMeasure}},
		{name: "a pass below the limit", r: throughput.Result{Down: rate(89.99, 100, throughput.Pass, throughput.LimitLine), Up: goodUp}, verdict: unclear, causes: []code{diagnosis.AgentInternal}},
		{name: "a fail above the limit", r: throughput.Result{Down: rate(90.01, 100, throughput.Fail, throughput.LimitLine), Up: goodUp}, verdict: unclear, causes: []code{diagnosis.AgentInternal}},
		{name: "a pass without a rate", r: throughput.Result{Down: with(good, func(r *throughput.Rate) { r.TCPMbps = nil }), Up: goodUp}, verdict: unclear, causes: []code{diagnosis.AgentInternal}},
		{name: "a fail without a contract", r: throughput.Result{Down: with(slow, func(r *throughput.Rate) { r.ContractRatio = nil }), Up: goodUp}, verdict: unclear, causes: []code{diagnosis.AgentInternal}},
		{name: "round trips grow long", r: throughput.Result{Down: bloated, Up: goodUp}, verdict: pass, warnings: []code{diagnosis.ThroughputBufferbloat}},
		{name: "round trips grow", r: throughput.Result{Down: nearly, Up: goodUp}, verdict: pass},
		{name: "slow, and round trips grow long", r: throughput.Result{Down: bloated, Up: slowUp}, verdict: fail, causes: []code{diagnosis.ThroughputUploadOnly}, warnings: []code{diagnosis.ThroughputBufferbloat}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := run(t, steps.NewThroughput(steps.ThroughputOptions{Test: speedTest(), Run: func(_ context.Context, o throughput.Options) (throughput.Result, error) {
				if o.Direction != throughput.Both || o.MinRatio != 0.9 || o.Layer != throughput.LayerTCP || o.MaxBytes != 1<<30 || o.Note == nil {
					t.Errorf("measured with %+v", o)
				}
				return tt.r, nil
			}}))
			check(t, res, tt.verdict, tt.causes, tt.warnings)
			if tt.reason != "" && res.Reason != tt.reason {
				t.Errorf("reason %q", res.Reason)
			}
			if len(res.Limits) != 1 || res.Limits[0].Name != acceptance.ThroughputMinRatio {
				t.Errorf("limits %+v", res.Limits)
			}
		})
	}
}

// TestThroughputCannotBeMeasured: what stands in the way is told, and no byte
// is moved.
func TestThroughputCannotBeMeasured(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*steps.ThroughputOptions)
		code   code
		reason string
	}{
		{"no server", func(o *steps.ThroughputOptions) { o.Test.URL = "" }, diagnosis.AgentCannotMeasure, "no speed-test server is configured"},
		{"no traffic", func(o *steps.ThroughputOptions) { o.Test.MaxBytes = 0 }, diagnosis.ThroughputShort, "the order allows no test traffic: its max_bytes is 0"},
		{"no contract", func(o *steps.ThroughputOptions) { o.Test.ContractDownMbps, o.Test.ContractUpMbps = 0, 0 }, diagnosis.AgentCannotMeasure, "the order states no contracted rate"},
		{"a bridge", func(o *steps.ThroughputOptions) { o.Access = steps.AccessBridge }, diagnosis.AgentCannotMeasure, "the gateway only bridges: whoever dials behind it has to test"},
		{"a radio", func(o *steps.ThroughputOptions) { o.Wireless = func(context.Context) string { return "wlan1" } }, diagnosis.AgentCannotMeasure, "the line goes over the air by wlan1: only a wired line is measured"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := steps.ThroughputOptions{Test: speedTest(), Run: func(context.Context, throughput.Options) (throughput.Result, error) {
				t.Error("it was measured")
				return throughput.Result{}, nil
			}}
			tt.change(&o)
			step := steps.NewThroughput(o)
			res := run(t, step)
			check(t, res, unclear, []code{tt.code}, nil)
			if res.Reason != tt.reason || o.Wireless == nil && step.Estimate() != 0 {
				t.Errorf("reason %q, estimate %v", res.Reason, step.Estimate())
			}
		})
	}
	t.Run("the test refuses", func(t *testing.T) {
		res := run(t, steps.NewThroughput(steps.ThroughputOptions{Test: speedTest(), Run: func(context.Context, throughput.Options) (throughput.Result, error) {
			return throughput.Result{}, fmt.Errorf("cannot measure: %w", throughput.ErrOptions)
		}}))
		check(t, res, unclear, []code{diagnosis.AgentCannotMeasure}, nil)
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		out := steps.NewThroughput(steps.ThroughputOptions{Test: speedTest(), Run: func(ctx context.Context, _ throughput.Options) (throughput.Result, error) {
			cancel()
			return throughput.Result{Down: rate(95, 100, throughput.Pass, throughput.LimitLine)}, ctx.Err()
		}}).Run(ctx, func(string) {})
		if out.Verdict != unclear || !slices.Equal(out.Causes, []string{string(diagnosis.AgentTimeout)}) {
			t.Errorf("%+v", out)
		}
	})
}

// TestThroughputOneContract: only what has a contract is measured, and a pass
// needs both.
func TestThroughputOneContract(t *testing.T) {
	for _, tt := range []struct {
		down, up  float64
		direction throughput.Direction
		r         throughput.Result
		verdict   acceptance.Verdict
		reason    string
	}{
		{100, 0, throughput.Down, throughput.Result{Down: rate(95, 100, throughput.Pass, throughput.LimitLine)}, unclear, "up: the order states no rate"},
		{100, 0, throughput.Down, throughput.Result{Down: rate(60, 100, throughput.Fail, throughput.LimitLine)}, fail, "down: 60 of 100 Mbit/s (tcp); up: the order states no rate"},
		{0, 20, throughput.Up, throughput.Result{Up: rate(19, 20, throughput.Pass, throughput.LimitLine)}, unclear, "down: the order states no rate"},
		{0, 20, throughput.Up, throughput.Result{Up: rate(9, 20, throughput.Fail, throughput.LimitLine)}, fail, "up: 9 of 20 Mbit/s (tcp); down: the order states no rate"},
	} {
		test := speedTest()
		test.ContractDownMbps, test.ContractUpMbps = tt.down, tt.up
		step := steps.NewThroughput(steps.ThroughputOptions{Test: test, Run: func(_ context.Context, o throughput.Options) (throughput.Result, error) {
			if o.Direction != tt.direction {
				t.Errorf("measured %s", o.Direction)
			}
			return tt.r, nil
		}})
		res := run(t, step)
		if res.Verdict != tt.verdict || res.Reason != tt.reason {
			t.Errorf("%s: %s", res.Verdict, res.Reason)
		}
		if tt.verdict == fail && res.Causes[0] != string(diagnosis.ThroughputBelow) {
			t.Errorf("causes %v", res.Causes)
		}
		if step.Estimate() > 15*time.Second {
			t.Errorf("one direction takes %v", step.Estimate())
		}
	}
}

func TestThroughputTakesTheOrdersLimit(t *testing.T) {
	for _, ratio := range []float64{0.5, 0, 1} {
		limits, err := acceptance.Norms().With(acceptance.OriginOrder, map[string]float64{acceptance.ThroughputMinRatio: ratio})
		if err != nil {
			t.Fatal(err)
		}
		verdict := throughput.Pass
		if ratio > 0.6 {
			verdict = throughput.Fail
		}
		test := speedTest()
		test.Layer = throughput.LayerEthernet
		res := run(t, steps.NewThroughput(steps.ThroughputOptions{Test: test, Thresholds: limits, Run: func(_ context.Context, o throughput.Options) (throughput.Result, error) {
			if o.MinRatio <= 0 || o.MinRatio > 1 || o.Layer != throughput.LayerEthernet {
				t.Errorf("measured with %+v", o)
			}
			return throughput.Result{Down: rate(60, 100, verdict, throughput.LimitLine), Up: rate(12, 20, verdict, throughput.LimitLine)}, nil
		}}))
		if want := map[throughput.Verdict]acceptance.Verdict{throughput.Pass: pass, throughput.Fail: fail}[verdict]; res.Verdict != want {
			t.Errorf("%g: %s (%s)", ratio, res.Verdict, res.Reason)
		}
		if len(res.Limits) != 1 || res.Limits[0].Origin != acceptance.OriginOrder || res.Limits[0].Value != ratio {
			t.Errorf("limits %+v", res.Limits)
		}
		if m := measurement(t, res, "throughput_down_mbps"); m.Value != *rate(60, 100, verdict, "").EthernetMbps || m.Source != "throughput:http://speed.example/1g" {
			t.Errorf("%+v", m)
		}
	}
}

// TestThroughputEvidence: everything that bears on the verdict is in the
// result, and the result stays small.
func TestThroughputEvidence(t *testing.T) {
	f := func(v float64) *float64 { return &v }
	server := netip.MustParseAddrPort("192.0.2.80:80")
	at := time.Date(2026, 3, 1, 2, 3, 4, 567_890_000, time.UTC)
	full := func(r *throughput.Rate) *throughput.Rate {
		counted := uint64(1_000_000)
		r.CrossMbps, r.CeilingMbps, r.ServerBytes, r.CongestionControl = f(1.25), f(941.5), &counted, "cubic"
		r.Spread = throughput.Spread{MinMbps: 90, MedianMbps: 95, MaxMbps: 99, CV: 0.02}
		r.Latency = throughput.Latency{
			IdleP50Ms: f(8), IdleP95Ms: f(9), LoadedP50Ms: f(20), LoadedP95Ms: f(30), RPM: f(2000), RPMConfidence: "high", LoadedProbes: 40, LostProbes: 1,
		}
		r.Conditions = throughput.Conditions{
			Cores: []float64{0.5, 0.25, 0, 0}, SoftIRQ: []float64{0.1, 0, 0, 0}, PeakCore: f(0.75), ProcessBusy: f(0.2), Throttled: f(0), SoftnetDropped: 3,
		}
		for range 16 {
			r.PerConnection = append(r.PerConnection, throughput.Connection{Mbps: 123.45, RTTMs: 12.3, Retransmits: 4, OutOfOrder: 5})
		}
		r.TR143 = throughput.TR143{ROMTime: at, BOMTime: at, EOMTime: at.Add(time.Second), TestBytes: 7, TestBytesUnderFullLoading: 6, PeriodOfFullLoading: 10_000_000}
		r.Runs = []throughput.Measurement{{TCPMbps: f(94)}, {}, {TCPMbps: f(96)}}
		return r
	}
	r := throughput.Result{
		Protocol: "http", Server: server, ServerName: "nginx", Interface: "pppoe-wan",
		Encapsulation: throughput.Encapsulation{PPPoE: true, VLANTags: 1}, Connections: 16, TestBytes: 42,
		Down: full(rate(95, 100, throughput.Pass, throughput.LimitLine)), Up: full(rate(19, 20, throughput.Pass, throughput.LimitServer)),
	}
	test := speedTest()
	test.UploadURL = "http://speed.example/upload"
	res := run(t, steps.NewThroughput(steps.ThroughputOptions{Test: test, Run: func(_ context.Context, o throughput.Options) (throughput.Result, error) {
		o.Note("it goes well")
		return r, nil
	}}))
	check(t, res, pass, nil, nil)
	for name, want := range map[string]any{
		"throughput_down_mbps": 95.0, "throughput_down_tcp_mbps": 95.0, "throughput_down_ip_mbps": *r.Down.IPMbps, "throughput_down_ethernet_mbps": *r.Down.EthernetMbps,
		"throughput_down_ratio": 0.95, "throughput_down_bytes": uint64(118_750_000), "throughput_down_spread": 0.02, "throughput_down_limited_by": "line",
		"throughput_down_runs": 3, "throughput_down_cross_mbps": 1.25, "throughput_down_ceiling_mbps": 941.5, "throughput_down_idle_ms": 8.0,
		"throughput_down_loaded_ms": 20.0, "throughput_down_loaded_p95_ms": 30.0, "throughput_down_rpm": 2000.0, "throughput_down_cpu_peak_ratio": 0.75,
		"throughput_down_cpu_process_ratio": 0.2, "throughput_down_cpu_throttled_ratio": 0.0, "throughput_down_softnet_dropped": uint64(3),
		"throughput_down_server_bytes": uint64(1_000_000), "throughput_down_connections": 16, "throughput_down_tr143_bytes_full_loading": uint64(6),
		"throughput_up_mbps": 19.0, "throughput_up_limited_by": "server",
	} {
		m := measurement(t, res, name)
		if m.Value != want {
			t.Errorf("%s is %v, want %v", name, m.Value, want)
		}
		source := "throughput:http://speed.example/1g"
		if strings.HasPrefix(name, "throughput_up_") {
			source = "throughput:http://speed.example/upload"
		}
		if m.Source != source {
			t.Errorf("%s is from %s", name, m.Source)
		}
	}
	for name, raw := range map[string]string{
		"throughput_down_mbps": "95.00 95.00 95.00 95.00 95.00 95.00 95.00 95.00 95.00 95.00", "throughput_down_runs": "94.00 96.00",
		"throughput_down_tr143_bytes_full_loading": "2026-03-01T02:03:04.567890Z 2026-03-01T02:03:04.567890Z 2026-03-01T02:03:05.567890Z - -",
		"throughput_down_connections":              strings.TrimSuffix(strings.Repeat("123.45 12.3 4 5; ", 16), "; "),
	} {
		if m := measurement(t, res, name); m.Raw != raw {
			t.Errorf("%s has raw %q, want %q", name, m.Raw, raw)
		}
	}
	want := map[string]string{
		"layer": "tcp", "protocol": "http", "connections": "16", "interface": "pppoe-wan", "encapsulation": "pppoe true, 1 tags, tunnel 0 bytes",
		"test_bytes": "42", "server": "192.0.2.80:80 nginx",
	}
	if diff := cmp.Diff(want, res.Conditions); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	if !slices.Equal(res.Log, []string{"it goes well"}) {
		t.Errorf("log %q", res.Log)
	}
	data, err := json.Marshal(res)
	if err != nil || len(data) > 16<<10 {
		t.Errorf("%d bytes, %v", len(data), err)
	}

	t.Run("what is missing", func(t *testing.T) {
		res := run(t, steps.NewThroughput(steps.ThroughputOptions{Test: speedTest(), Run: func(context.Context, throughput.Options) (throughput.Result, error) {
			return throughput.Result{
				Down: &throughput.Rate{Verdict: throughput.Inconclusive, Reason: "status 503", LimitedBy: throughput.LimitServer},
				Up:   rate(19, 20, throughput.Pass, throughput.LimitLine),
			}, nil
		}}))
		for _, name := range []string{"throughput_down_mbps", "throughput_up_cross_mbps"} {
			if m := measurement(t, res, name); m.Value != nil || m.Status == string(collectors.StatusOK) {
				t.Errorf("%+v", m)
			}
		}
		if m := measurement(t, res, "throughput_down_mbps"); m.Note != "status 503" {
			t.Errorf("%+v", m)
		}
	})
}

// TestThroughputTakesItsTime: a visit has five minutes in all, and a direction
// of a healthy line fifteen seconds.
func TestThroughputTakesItsTime(t *testing.T) {
	test := speedTest()
	test.Window = 10 * time.Second
	step := steps.NewThroughput(steps.ThroughputOptions{Test: test})
	if step.Estimate() > 30*time.Second || step.Estimate() < 20*time.Second || step.Deadline() < 2*step.Estimate() {
		t.Errorf("estimate %v, deadline %v", step.Estimate(), step.Deadline())
	}
	test.Window = 15 * time.Second // the longest that can be configured
	if d := steps.NewThroughput(steps.ThroughputOptions{Test: test}).Deadline(); d > 4*time.Minute {
		t.Errorf("deadline %v", d)
	}
	// It loads the line: without an order for it there is no test.
	plan, err := acceptance.NewPlan(nil, []acceptance.Step{step})
	if err != nil || len(plan.Rungs()) != 0 {
		t.Errorf("planned %v, %v", plan.Rungs(), err)
	}
}
