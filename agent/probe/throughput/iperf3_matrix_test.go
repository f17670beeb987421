package throughput_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"ontagent/agent/probe/throughput"
)

// All that an iperf3 server may be asked for, by one server, run after run.
func TestShapedIperf3Matrix(t *testing.T) {
	if !alone(t) {
		return
	}
	f := newFar(t)
	const mbps = 100
	f.shape(mbps)
	f.start(t, "iperf3", "-s")
	f.awaitListener(5201)
	left := nothingLeft(t)
	for i, host := range []string{"192.0.2.2", "[2001:db8::2]:5201"} {
		for j, connections := range []int{4, 1} {
			if (i == 0 || i != j) && os.Getenv("LONG") == "" {
				continue // TestShapedIperf3 has IPv4
			}
			what := fmt.Sprintf("%s, %d", host, connections)
			began := time.Now()
			res, err := throughput.Run(t.Context(), throughput.Options{
				URL: "iperf3://" + host, Connections: connections, WarmUp: 2 * time.Second, Window: 1500 * time.Millisecond, Line: procLine("wan"),
			})
			if err != nil {
				t.Fatal(err)
			}
			left()
			want := mbps * 1448.0 / 1514
			if host[0] == '[' {
				want = mbps * 1428.0 / 1514
			}
			for _, dir := range []throughput.Direction{throughput.Down, throughput.Up} {
				r := rateOf(t, &res, dir)
				t.Logf("%s, %s: %.2f Mbit/s, sender %s", what, dir, *r.TCPMbps, r.CongestionControl)
				within(t, what+", "+string(dir), *r.TCPMbps, want, 0.02)
				if r.CongestionControl == "" || r.Error != "" || r.Verdict != throughput.Measured || len(r.PerConnection) != connections {
					t.Errorf("%s, %s: %+v", what, dir, r)
				}
			}
			up := res.Up
			if up.ServerBytes == nil || up.SentBytes == nil {
				t.Errorf("%s: the server counted nothing: %+v", what, up)
			} else if s, a := float64(*up.ServerBytes), float64(*up.SentBytes); s < a*0.98 || s > a*1.1 { // the rest was under way
				t.Errorf("%s: the server counted %.0f bytes, %.0f were acknowledged", what, s, a)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("%s: took %v", what, took)
			}
		}
	}
}
