package fleet

import (
	"errors"
	"time"
)

// Policy says how long a gateway waits before it tries again. *mqtt.Pacer is
// one.
type Policy interface {
	// AfterLoss is the wait after a connection that was up for the time given.
	AfterLoss(up time.Duration, urgent bool) time.Duration
	// AfterFailure is the wait after an attempt that failed.
	AfterFailure(err error, urgent bool) time.Duration
}

// Storm is an outage and what is left of it: all gateways lose their
// connections, the broker is down for a while, and then takes so many
// connections per second and refuses the others. An attempt takes no time,
// which is the worst case: nothing slows a crowd down.
type Storm struct {
	Gateways int
	// Within is how long the loss takes to reach everybody, evenly spread.
	Within time.Duration
	// Outage is how long the broker is down, from the first loss.
	Outage time.Duration
	// Capacity is how many connections per second the broker takes.
	Capacity int
	// Limit ends the storm, if not everybody is back before.
	Limit time.Duration
	// Policy makes the policy of one gateway.
	Policy func() Policy
	// Rand returns numbers in [0, 1).
	Rand func() float64
}

// Outcome is how a storm went.
type Outcome struct {
	// Peak is the most attempts in any second, from the first loss on, those
	// while the broker was down included; PeakUp counts from its return on.
	Peak, PeakUp int
	Attempts     int // in all
	// Back99 is the time from the first loss until 99 % were back, BackAll
	// until everybody was. 0 means not within the limit.
	Back99, BackAll time.Duration
}

// tick is the resolution of a Storm.
const tick = 10 * time.Millisecond

var errNoBroker = errors.New("broker is down, or has no room")

// Run plays the storm.
func (s Storm) Run() Outcome {
	const perSecond = int(time.Second / tick)
	end := int(s.Limit / tick)
	attempts := make([][]int32, end) // by tick
	policies := make([]Policy, s.Gateways)
	at := func(now time.Duration, gateway int32, wait time.Duration) {
		// Not in the same tick: what was decided in it comes after it.
		if slot := max(int(now/tick)+1, int((now+wait)/tick)); slot < end {
			attempts[slot] = append(attempts[slot], gateway)
		}
	}
	for i := range policies {
		policies[i] = s.Policy()
		lost := time.Duration(s.Rand() * float64(s.Within))
		at(lost, int32(i), policies[i].AfterLoss(time.Hour, false))
	}
	var out Outcome
	back, second, taken := 0, 0, 0
	for slot := range attempts {
		if slot%perSecond == 0 {
			second, taken = 0, 0
		}
		now := time.Duration(slot) * tick
		up := now >= s.Outage
		second += len(attempts[slot])
		out.Attempts += len(attempts[slot])
		out.Peak = max(out.Peak, second)
		if up {
			out.PeakUp = max(out.PeakUp, second)
		}
		for _, gateway := range attempts[slot] {
			if !up || taken >= s.Capacity {
				at(now, gateway, policies[gateway].AfterFailure(errNoBroker, false))
				continue
			}
			taken++
			back++
			if out.Back99 == 0 && back*100 >= s.Gateways*99 {
				out.Back99 = now
			}
		}
		attempts[slot] = nil
		if back == s.Gateways {
			out.BackAll = now
			break
		}
	}
	return out
}

// Doubling is the usual way to reconnect, that of many MQTT clients: at once,
// then after 1, 2, 4 … s up to Cap, without any chance in it. All gateways that
// lost their broker in the same second come back in the same second.
type Doubling struct {
	Cap  time.Duration
	next time.Duration
}

// AfterLoss implements Policy.
func (d *Doubling) AfterLoss(time.Duration, bool) time.Duration {
	d.next = time.Second
	return 0
}

// AfterFailure implements Policy.
func (d *Doubling) AfterFailure(error, bool) time.Duration {
	wait := d.next
	d.next = min(2*d.next, d.Cap)
	return wait
}
