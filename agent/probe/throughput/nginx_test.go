package throughput_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"ontagent/agent/probe/throughput"
)

// goodput is the payload in what tbf lets through.
const goodput = 1448.0 / 1514

// rateOf is a direction's rate, which must be there.
func rateOf(t *testing.T, res *throughput.Result, dir throughput.Direction) *throughput.Rate {
	t.Helper()
	r := res.Down
	if dir == throughput.Up {
		r = res.Up
	}
	if r == nil || r.TCPMbps == nil {
		text, _ := json.MarshalIndent(res, "", " ")
		t.Fatalf("%s was not measured: %s", dir, text)
	}
	return r
}

// within says that a figure is as near to what it should be as a part says.
func within(t *testing.T, what string, got, want, part float64) {
	t.Helper()
	if off := got/want - 1; !(math.Abs(off) <= part) {
		t.Errorf("%s: %.3f, want %.3f: %+.2f %% off", what, got, want, off*100)
	}
}

// shaped says that a rate is what a shaper lets through. A busy machine may keep
// it from doing so; more than that comes only from counting wrong.
func shaped(t *testing.T, what string, got, want float64) {
	t.Helper()
	if off := got/want - 1; off > 0.005 || !(off > -0.2) {
		t.Errorf("%s: %.3f, want %.3f: %+.2f %% off", what, got, want, off*100)
	}
}

func TestShapedNginx(t *testing.T) {
	if !alone(t) {
		return
	}
	f := newFar(t)
	const mbps = 200
	f.shape(mbps)
	f.nginx(t, "192.0.2.2", `
location = /up { client_max_body_size 0; return 200; }
location = /default { return 200; }
location = /forbidden { deny all; }
`)
	left := nothingLeft(t)
	for _, tt := range []struct {
		name string
		o    throughput.Options
		// goodput and headers of an IP packet; 0: v4's
		goodput, headers float64
		want             string // the error
	}{
		{name: "down", o: throughput.Options{URL: "http://192.0.2.2/large", Direction: throughput.Down}},
		{name: "up", o: throughput.Options{URL: "http://192.0.2.2/up", Direction: throughput.Up}},
		{name: "put", o: throughput.Options{URL: "http://192.0.2.2/up", Direction: throughput.Up, UploadMethod: "PUT"}},
		{name: "up to a server with limits", o: throughput.Options{URL: "http://192.0.2.2/default", Direction: throughput.Up}},
		{name: "down with v6", o: throughput.Options{URL: "http://[2001:db8::2]/large", Direction: throughput.Down, Interface: "wan"}, goodput: 1428.0 / 1514, headers: 72},
		{name: "up with v6", o: throughput.Options{URL: "http://[2001:db8::2]/up", Direction: throughput.Up}, goodput: 1428.0 / 1514, headers: 72},
		{name: "small", o: throughput.Options{URL: "http://192.0.2.2/small", Direction: throughput.Down}, want: "the file ended after 3145728 bytes, before the measurement was over"},
		{name: "not there", o: throughput.Options{URL: "http://192.0.2.2/nothing", Direction: throughput.Down}, want: "the server answers 404 Not Found"},
		{name: "up to a file", o: throughput.Options{URL: "http://192.0.2.2/large", Direction: throughput.Up}, want: "the server answers 405 Not Allowed"},
		{name: "forbidden", o: throughput.Options{URL: "http://192.0.2.2/forbidden", Direction: throughput.Up}, want: "the server answers 403 Forbidden"},
	} {
		tt.o.Window, tt.o.Line = 2*time.Second, procLine("wan")
		tt.o.Note = func(s string) { t.Log(s) }
		res, err := throughput.Run(t.Context(), tt.o)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if tt.want != "" {
			r := res.Down
			if r == nil {
				r = res.Up
			}
			if r.Error != tt.want || res.Verdict != throughput.Inconclusive {
				t.Errorf("%s: %s, %s\nwant %s", tt.name, res.Verdict, r.Error, tt.want)
			}
			continue
		}
		if tt.goodput == 0 {
			tt.goodput, tt.headers = goodput, 52
		}
		r := rateOf(t, &res, tt.o.Direction)
		shaped(t, tt.name, *r.TCPMbps, mbps*tt.goodput)
		shaped(t, tt.name+", IP", *r.IPMbps, mbps*1500/1514.0)
		shaped(t, tt.name+", Ethernet", *r.EthernetMbps, mbps)
		within(t, tt.name+", IP of TCP", *r.IPMbps / *r.TCPMbps, 1500/(1500-tt.headers), 0.002)
		within(t, tt.name+", counted", *r.TCPMbps, float64(r.Bytes)*8e-6/r.DurationS, 0.0001)
		within(t, tt.name+", full loading", float64(r.TR143.TestBytesUnderFullLoading)*8/float64(r.TR143.PeriodOfFullLoading), *r.TCPMbps, 0.0001)
		// The interface counted the same, and there were no others. On a busy
		// machine it is not looked at when the connections are.
		if r.CrossMbps == nil || *r.CrossMbps > max(0.01*mbps, 4*mbps*r.Conditions.SampleLateMs/2000) {
			t.Errorf("%s: others moved %v", tt.name, r.CrossMbps)
		}
		if len(r.Mbps) != 2 || len(r.PerConnection) != 4 || r.CountedBy != "tcp_info" || res.Interface != "wan" {
			t.Errorf("%s: %v, %+v, %s", tt.name, r.Mbps, r.PerConnection, r.CountedBy)
		}
		if l := r.Latency; l.IdleProbes != 5 || l.LoadedProbes < 5 || l.LoadedP50Ms == nil || l.RPM == nil {
			t.Errorf("%s: latency %+v", tt.name, l)
		}
		ordered(t, tt.name, r.TR143.TCPOpenRequestTime, r.TR143.TCPOpenResponseTime)
		ordered(t, tt.name, r.TR143.ROMTime, r.TR143.BOMTime, r.TR143.EOMTime)
	}
	left()
}

// ordered fails the test where times are missing or out of order.
func ordered(t *testing.T, what string, times ...time.Time) {
	t.Helper()
	for i, at := range times {
		if at.IsZero() || i > 0 && !at.After(times[i-1]) {
			t.Errorf("%s: %v", what, times)
		}
	}
}

func TestShapedIperf3(t *testing.T) {
	if !alone(t) {
		return
	}
	f := newFar(t)
	const mbps = 200
	f.shape(mbps)
	f.start(t, "iperf3", "-s")
	f.awaitListener(5201)
	left := nothingLeft(t)
	res, err := throughput.Run(t.Context(), throughput.Options{
		URL: "iperf3://192.0.2.2", Window: 2 * time.Second, Line: procLine("wan"), Note: func(s string) { t.Log(s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	left()
	for _, dir := range []throughput.Direction{throughput.Down, throughput.Up} {
		r := rateOf(t, &res, dir)
		shaped(t, string(dir), *r.TCPMbps, mbps*goodput)
		if (r.ServerBytes != nil) != (dir == throughput.Up) || r.CongestionControl == "" || r.Error != "" ||
			r.Latency.IdleProbes != 4 || r.Latency.LoadedProbes < 5 || r.Latency.RPM != nil {
			t.Errorf("%s: %+v", dir, r.Measurement)
		}
	}
	if up := res.Up; up.ServerBytes != nil && up.SentBytes != nil {
		within(t, "received of what was acknowledged", float64(*up.ServerBytes), float64(*up.SentBytes), 0.01)
	}
	if res.Protocol != "iperf3" || res.Server.String() != "192.0.2.2:5201" || res.Interface != "wan" {
		t.Errorf("%s at %v through %s", res.Protocol, res.Server, res.Interface)
	}
}
