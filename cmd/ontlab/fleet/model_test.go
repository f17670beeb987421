package fleet_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"ontagent/cmd/ontlab/fleet"
	"ontagent/transport/mqtt"
)

const (
	modelCapacity = 5000 // connections per second
	modelOutage   = 30 * time.Second
	// tooMany is how much more than fleet / spread a peak may be.
	tooMany = 1.2
)

// newStorm is an outage of a fleet that is spread as its broker's capacity
// asks for.
func newStorm(gateways int) fleet.Storm {
	return fleet.Storm{
		Gateways: gateways, Within: time.Second, Outage: modelOutage, Capacity: modelCapacity,
		Rand: rand.New(rand.NewPCG(1, 2)).Float64,
	}
}

// TestReliabilityStormModel plays an outage for fleets that no machine can
// play, with the code that paces a gateway's attempts.
func TestReliabilityStormModel(t *testing.T) {
	fleets := []int{100_000, 1_000_000}
	if testing.Short() {
		fleets = []int{10_000}
	}
	for _, gateways := range fleets {
		for _, limit := range []time.Duration{120 * time.Second, 300 * time.Second} {
			backoff := mqtt.DefaultBackoff()
			backoff.Spread, backoff.Cap = time.Duration(gateways)*time.Second/modelCapacity, limit
			if testing.Short() {
				backoff.Spread = 2 * modelOutage // enough in a second to see a peak, few enough to be quick
			}
			storm := newStorm(gateways)
			storm.Limit = 2 * time.Hour
			storm.Policy = func() fleet.Policy { return mqtt.NewPacer(backoff, storm.Rand) }
			out := storm.Run()
			flat := float64(gateways) / backoff.Spread.Seconds()
			verdict := "ok"
			if out.Back99 == 0 || out.BackAll == 0 || !testing.Short() && float64(out.Peak) > tooMany*flat {
				verdict = "FAIL"
				t.Errorf("%d gateways, spread %v, cap %v: peak %d/s is %.2f × fleet / spread; 99 %% back after %v, all after %v",
					gateways, backoff.Spread, limit, out.Peak, float64(out.Peak)/flat, out.Back99, out.BackAll)
			}
			t.Logf("reliability: storm | model of %d, cap %.0f s | %d | peak %d/s, %.2f × fleet/spread of %.0f s; 99 %% back after %.0f s, all after %.0f s | %s",
				gateways, limit.Seconds(), gateways, out.Peak, float64(out.Peak)/flat, backoff.Spread.Seconds(), out.Back99.Seconds(), out.BackAll.Seconds(), verdict)
		}
	}
}

// TestReliabilityStormModelPeer plays the same outage for clients that double
// their wait without any chance in it, as paho does by default.
func TestReliabilityStormModelPeer(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: this measures another policy")
	}
	for _, c := range []struct {
		gateways int
		limit    time.Duration
	}{{100_000, 4 * time.Hour}, {1_000_000, time.Hour}} {
		storm := newStorm(c.gateways)
		storm.Limit = c.limit
		storm.Policy = func() fleet.Policy { return &fleet.Doubling{Cap: 10 * time.Minute} }
		out := storm.Run()
		back := fmt.Sprintf("99 %% back after %.0f s", out.Back99.Seconds())
		if out.Back99 == 0 {
			back = fmt.Sprintf("not 99 %% back after %.0f s", c.limit.Seconds())
		}
		t.Logf("reliability: storm | paho's default waits, model of %d | %d | peak %d/s; %s | peer", c.gateways, c.gateways, out.Peak, back)
	}
}

// constant waits the same each time.
type constant time.Duration

func (c constant) AfterLoss(time.Duration, bool) time.Duration { return time.Duration(c) }
func (c constant) AfterFailure(error, bool) time.Duration      { return time.Duration(c) }

func TestStormByHand(t *testing.T) {
	storm := fleet.Storm{
		Gateways: 100, Outage: 1500 * time.Millisecond, Capacity: 10, Limit: time.Minute,
		Policy: func() fleet.Policy { return constant(time.Second) }, Rand: func() float64 { return 0 },
	}
	// All try at 1 s, in vain, then at 2, 3, … s: ten get in each time.
	want := fleet.Outcome{
		Peak: 100, PeakUp: 100, Attempts: 100 + 100 + 90 + 80 + 70 + 60 + 50 + 40 + 30 + 20 + 10,
		Back99: 11 * time.Second, BackAll: 11 * time.Second,
	}
	if got := storm.Run(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	storm.Limit = 11 * time.Second // ends before the last ten try
	want.Attempts, want.Back99, want.BackAll = want.Attempts-10, 0, 0
	if got := storm.Run(); got != want {
		t.Errorf("cut short: got %+v, want %+v", got, want)
	}
}
