package mqtt

import (
	"errors"
	"fmt"
	"time"
)

// Backoff spreads the gateways of a fleet over time. The first attempt after
// the loss of a good connection waits rand(0, Spread); the following
// rand(v/2, v) with v doubling from twice Spread (from Base, if that is more) to
// Cap: never sooner than Spread, or the second round would meet the first.
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

// check reports what is out of bounds.
func (b Backoff) check() error {
	if b.Spread < 0 || b.Spread > MaxSpread || b.Base < 0 || b.Base > MaxSpread || b.Cap < 0 || b.Cap > MaxCap {
		return fmt.Errorf("spread %v, base %v, cap %v are not from 0 to %v, %v, %v", b.Spread, b.Base, b.Cap, MaxSpread, MaxSpread, MaxCap)
	}
	return nil
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

// Pacer says how long a gateway waits before its next attempt: where it stands
// in its Backoff. A Device has one of its own; a model of a fleet uses many. It
// is not safe for concurrent use.
type Pacer struct {
	Backoff
	rand func() float64 // in [0, 1)

	v      time.Duration // next v; 0: no failure since the last good connection
	slow   time.Duration // next v of the slow lane; 0: not in it
	urgent bool          // v is counted in the urgent scale
}

// NewPacer returns a Pacer at its start. rand returns numbers in [0, 1).
func NewPacer(b Backoff, rand func() float64) *Pacer { return &Pacer{Backoff: b, rand: rand} }

// Cold returns the wait before the first attempt of all.
func (p *Pacer) Cold() time.Duration {
	return p.upTo(min(p.Spread, coldSpread))
}

// AfterLoss returns the wait after a connection that was up for the time given.
// urgent says that an order is open.
func (p *Pacer) AfterLoss(up time.Duration, urgent bool) time.Duration {
	p.slow = 0
	if up > goodConnection {
		p.v = 0
	}
	first, base, _ := p.scale(urgent)
	if p.v > 0 {
		return p.step(urgent)
	}
	p.v = base
	return p.upTo(first)
}

// AfterFailure returns the wait after an attempt that failed with err. It looks
// for the refusals that CONNACK knows; any other error, nil included, is a
// failure like another. urgent says that an order is open.
func (p *Pacer) AfterFailure(err error, urgent bool) time.Duration {
	if refusedForGood(err) {
		if p.slow == 0 {
			p.slow = slowBase
		}
		d := p.half(p.slow)
		p.slow = min(2*p.slow, slowCap)
		return d
	}
	p.slow = 0
	d := p.step(urgent)
	if errors.Is(err, ErrServerUnavailable) {
		d *= 2
	}
	return d
}

// step returns rand(v/2, v) and doubles v.
func (p *Pacer) step(urgent bool) time.Duration {
	_, base, top := p.scale(urgent)
	p.v = min(max(p.v, base), top)
	d := p.half(p.v)
	p.v = min(2*p.v, top)
	return d
}

// scale returns the first wait's spread, the first v and the greatest v.
func (p *Pacer) scale(urgent bool) (first, base, top time.Duration) {
	first = p.Spread
	base = p.Base
	if base <= 0 {
		base = time.Second
	}
	base = max(base, 2*p.Spread)
	top = p.Cap
	if top <= 0 {
		top = 120 * time.Second
	}
	if urgent {
		first, base, top = min(first, urgentBase), min(base, urgentBase), min(top, urgentCap)
	}
	if urgent != p.urgent { // another scale: start anew
		p.urgent, p.v = urgent, 0
	}
	return first, base, max(base, top)
}

func (p *Pacer) upTo(d time.Duration) time.Duration {
	return time.Duration(p.rand() * float64(d))
}

func (p *Pacer) half(d time.Duration) time.Duration {
	return d/2 + p.upTo(d/2)
}

// refusedForGood reports whether the broker knows us and does not want us:
// trying again soon changes nothing, and a fleet doing so is an attack.
func refusedForGood(err error) bool {
	return errors.Is(err, ErrRefusedCredentials) || errors.Is(err, ErrNotAuthorized) ||
		errors.Is(err, ErrRefusedClientID) || errors.Is(err, ErrRefusedProtocol)
}
