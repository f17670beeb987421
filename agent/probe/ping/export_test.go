package ping

import (
	"context"
	"net/netip"
	"time"
)

// Run is run, for one kind of socket and without asking for a route first.
func Run(ctx context.Context, target netip.Addr, o Options, mode string) (Result, error) {
	return run(ctx, target, o.normalise(), mode)
}

// Summarise is Result.summarise.
func (r *Result) Summarise() { r.summarise() }

// RTT is rtt.
func RTT(wall, monotonic time.Duration) time.Duration { return rtt(wall, monotonic) }
