package mqtt

import (
	"errors"
	"time"
)

// Backoff spreads the gateways of a fleet over time. The first attempt after
// the loss of a good connection waits rand(0, Spread); the following
// rand(v/2, v) with v doubling from Spread (from Base, if that is more) to Cap.
// A cold start waits rand(0, min(Spread, 30 s)).
type Backoff struct {
	// Spread is the size of the fleet divided by the connections per second
	// that its broker takes. 0 means no wait before the first attempt.
	Spread time.Duration
	// Base is the least first v. 0 means 1 s.
	Base time.Duration
	// Cap is the greatest v. 0 means 120 s.
	Cap time.Duration
}

// DefaultBackoff suits a fleet of 100 000 on a broker that takes some
// thousands of connections per second.
func DefaultBackoff() Backoff {
	return Backoff{Spread: 30 * time.Second, Base: time.Second, Cap: 120 * time.Second}
}

const (
	coldSpread = 30 * time.Second
	// A connection that lived this long ends the escalation.
	goodConnection = 60 * time.Second
	// While an order is open somebody stands there and waits.
	urgentBase = 2 * time.Second
	urgentCap  = 60 * time.Second
	// Refused for good: first rand(5, 10) min, then up to rand(30, 60) min.
	slowBase = 10 * time.Minute
	slowCap  = time.Hour
)

// backoff is where a gateway stands in its Backoff.
type backoff struct {
	Backoff
	rand func() float64 // in [0, 1)

	v      time.Duration // next v; 0: no failure since the last good connection
	slow   time.Duration // next v of the slow lane; 0: not in it
	urgent bool          // v is counted in the urgent scale
}

// cold returns the wait before the first attempt of all.
func (b *backoff) cold() time.Duration {
	return b.upTo(min(b.Spread, coldSpread))
}

// afterLoss returns the wait after a connection that lived for up.
func (b *backoff) afterLoss(up time.Duration, urgent bool) time.Duration {
	b.slow = 0
	if up > goodConnection {
		b.v = 0
	}
	first, base, _ := b.scale(urgent)
	if b.v > 0 {
		return b.step(urgent)
	}
	b.v = base
	return b.upTo(first)
}

// afterFailure returns the wait after an attempt that failed with err.
func (b *backoff) afterFailure(err error, urgent bool) time.Duration {
	if refusedForGood(err) {
		if b.slow == 0 {
			b.slow = slowBase
		}
		d := b.half(b.slow)
		b.slow = min(2*b.slow, slowCap)
		return d
	}
	b.slow = 0
	d := b.step(urgent)
	if errors.Is(err, ErrServerUnavailable) {
		d *= 2
	}
	return d
}

// step returns rand(v/2, v) and doubles v.
func (b *backoff) step(urgent bool) time.Duration {
	_, base, top := b.scale(urgent)
	b.v = min(max(b.v, base), top)
	d := b.half(b.v)
	b.v = min(2*b.v, top)
	return d
}

// scale returns the first wait's spread, the first v and the greatest v.
func (b *backoff) scale(urgent bool) (first, base, top time.Duration) {
	first = b.Spread
	base = b.Base
	if base <= 0 {
		base = time.Second
	}
	base = max(base, b.Spread)
	top = b.Cap
	if top <= 0 {
		top = 120 * time.Second
	}
	if urgent {
		first, base, top = min(first, urgentBase), min(base, urgentBase), min(top, urgentCap)
	}
	if urgent != b.urgent { // another scale: start anew
		b.urgent, b.v = urgent, 0
	}
	return first, base, max(base, top)
}

func (b *backoff) upTo(d time.Duration) time.Duration {
	return time.Duration(b.rand() * float64(d))
}

func (b *backoff) half(d time.Duration) time.Duration {
	return d/2 + b.upTo(d/2)
}

// refusedForGood reports whether the broker knows us and does not want us:
// trying again soon changes nothing, and a fleet doing so is an attack.
func refusedForGood(err error) bool {
	return errors.Is(err, ErrRefusedCredentials) || errors.Is(err, ErrNotAuthorized) ||
		errors.Is(err, ErrRefusedClientID) || errors.Is(err, ErrRefusedProtocol)
}
