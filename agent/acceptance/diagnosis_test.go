package acceptance_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
)

// wholeReport is as much as a ladder can have: every rung failed, with
// many causes and as many measurements as a speed test has.
func wholeReport() acceptance.Report {
	codes := []diagnosis.Code{
		diagnosis.OpticalRxTooWeak, diagnosis.PONPopup, diagnosis.LANCRCErrors, diagnosis.AccountBinding, diagnosis.AddrNoIPv6, diagnosis.DNSServfail,
		diagnosis.ReachLoss, diagnosis.ReachLatency, diagnosis.ThroughputBelow, diagnosis.IPTVStreamBroken, diagnosis.VoiceNotRegistered, diagnosis.HostCPU,
	}
	var r acceptance.Report
	for i, rung := range acceptance.Ladder() {
		res := acceptance.Result{Rung: rung, Required: true, Verdict: acceptance.Fail, Conditions: map[string]string{"clock": "ntp", "local_hour": "20"}}
		for j := range 3 {
			res.Causes = append(res.Causes, string(codes[(i+4*j)%len(codes)]))
		}
		res.Warnings = []string{string(diagnosis.OpticalBitErrors), string(diagnosis.ThroughputBufferbloat)}
		for j := range 60 {
			res.Measurements = append(res.Measurements, acceptance.Measurement{Name: fmt.Sprintf("%s_measurement_%d_ms", rung, j), Value: float64(j), Status: "ok"})
		}
		res.Measurements = append(res.Measurements,
			acceptance.Measurement{Name: "throughput_down_mbps", Value: 47.8}, acceptance.Measurement{Name: "throughput_down_ratio", Value: 0.0956},
			acceptance.Measurement{Name: "throughput_down_spread", Value: 0.01}, acceptance.Measurement{Name: "rx_power_dbm", Value: -26.0})
		res.Limits = acceptance.Norms().All()
		r.Results = append(r.Results, res)
	}
	return r
}

// bar is what the diagnosis of a whole ladder may take on a gateway's
// processor.
const bar = 50 * time.Millisecond

func BenchmarkLadderDiagnosis(b *testing.B) {
	r := wholeReport()
	for b.Loop() {
		diagnosis.Diagnose(r.Evidence())
	}
}

// TestLadderDiagnosisIsFast fails at five times the bar only: machines that
// test are busy, and the best of some runs counts.
func TestLadderDiagnosisIsFast(t *testing.T) {
	r := wholeReport()
	best := time.Hour
	for range 10 {
		runtime.GC()
		began := time.Now()
		d := diagnosis.Diagnose(r.Evidence())
		best = min(best, time.Since(began))
		if len(d.Causes) < 3 {
			t.Fatalf("causes: %v", d.Causes)
		}
	}
	t.Logf("%v, the bar is %v", best, bar)
	if best > 5*bar {
		t.Errorf("the diagnosis of a ladder takes %v, the bar is %v", best, bar)
	}
}
