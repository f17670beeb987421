package speed

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"ontagent/agent/probe/throughput"
	"ontagent/cmd/ontlab/netbox"
)

// meterInterval is how often a meter looks; between two looks the rate is taken
// to be even.
const meterInterval = 20 * time.Millisecond

// passed is what an interface had sent, behind its shaper, at a moment.
type passed struct {
	at    time.Time
	bytes uint64
}

// sender is the host that sends the test's bytes.
func (l *link) sender(d direction) *netbox.Host {
	if d == throughput.Up {
		return l.client
	}
	return l.server
}

// meter watches what the shaper of a host lets through, until it is stopped:
// where the machine is too busy, that is less than its rate.
func meter(h *netbox.Host) (stop func() ([]passed, error)) {
	quit, done := make(chan struct{}), make(chan error, 1)
	var all []passed
	go func() {
		done <- h.Do(func() error {
			counter, err := os.Open("/sys/class/net/" + ifname + "/statistics/tx_bytes")
			if err != nil {
				return err
			}
			defer counter.Close() //nolint:errcheck // only read
			tick := time.NewTicker(meterInterval)
			defer tick.Stop()
			var text [32]byte
			for last := false; ; {
				began := time.Now()
				n, _ := counter.ReadAt(text[:], 0) // it ends there
				took := time.Since(began)
				bytes, err := strconv.ParseUint(strings.TrimSpace(string(text[:n])), 10, 64)
				if err != nil {
					return err
				}
				// One that was interrupted is of no known moment.
				prompt := took < meterInterval/20
				if prompt {
					all = append(all, passed{began.Add(took / 2), bytes})
				}
				if last && prompt {
					return nil
				}
				if last {
					continue
				}
				select {
				case <-tick.C:
				case <-quit:
					last = true // a look after all that is asked about
				}
			}
		})
	}()
	return func() ([]passed, error) {
		close(quit)
		if err := <-done; err != nil {
			return nil, fmt.Errorf("cannot watch the shaper of %s: %w", h.Name(), err)
		}
		return all, nil
	}
}

// payloadMbps is the payload in what passed between two moments, had all of it
// been full packets; 0 if nobody looked then.
func payloadMbps(all []passed, begin, end time.Time) float64 {
	from, ok := passedAt(all, begin)
	to, has := passedAt(all, end)
	if !ok || !has || !end.After(begin) {
		return 0
	}
	return (to - from) * 8 / 1e6 / end.Sub(begin).Seconds() * payloadBytes / frameBytes
}

// passedAt is what had passed at a moment, by the looks before and after it.
func passedAt(all []passed, at time.Time) (bytes float64, ok bool) {
	i := sort.Search(len(all), func(i int) bool { return all[i].at.After(at) })
	if i == 0 || i == len(all) {
		return 0, false
	}
	a, b := all[i-1], all[i]
	part := at.Sub(a.at).Seconds() / b.at.Sub(a.at).Seconds()
	return float64(a.bytes) + part*float64(b.bytes-a.bytes), true
}
