// Package clock says what time it is and how far that can be believed.
//
// A gateway starts in 1970 and may never reach a time server. So the clock
// knows three things: the system's wall clock, whether the kernel says it is
// disciplined by NTP, and a floor – a moment that has certainly passed, kept
// across restarts and raised by signed time statements.
package clock

import (
	"fmt"
	"sync"
	"time"
)

// Quality is how far a wall time can be believed; it travels with messages.
type Quality string

// The qualities.
const (
	NTP   Quality = "ntp"   // the kernel says the clock is synchronised
	Floor Quality = "floor" // not before a time that has certainly passed
	None  Quality = "none"  // nothing is known
)

// System is what the clock reads; tests replace it.
type System interface {
	// Wall returns the system's wall clock.
	Wall() time.Time
	// Uptime is the time since boot, suspend included.
	Uptime() time.Duration
	// Synchronised reports whether the kernel's clock is under NTP discipline.
	Synchronised() bool
}

// Store keeps the floor. Save returns when it is durable; Load returns the zero
// time if there is none.
type Store interface {
	Load() (time.Time, error)
	Save(time.Time) error
}

// Options configure a Clock.
type Options struct {
	System System
	Store  Store
	// Build is when this program was built: the lowest floor there is. Zero if
	// not known.
	Build time.Time
	// NeverTrustSystem makes every command without a clock-independent proof
	// of freshness be challenged, whatever the kernel says.
	NeverTrustSystem bool
}

// Clock implements the time contracts of order and transport. It is safe for
// concurrent use.
type Clock struct {
	o Options

	mu    sync.Mutex
	floor time.Time
	// Since this start a signed time is known: signedAt held at uptime base.
	signed   bool
	signedAt time.Time
	base     time.Duration
}

// New reads the kept floor.
func New(o Options) (*Clock, error) {
	kept, err := o.Store.Load()
	if err != nil {
		return nil, fmt.Errorf("cannot read clock floor: %w", err)
	}
	c := &Clock{o: o, floor: kept}
	if o.Build.After(c.floor) {
		c.floor = o.Build
	}
	return c, nil
}

// Now implements order.Clock: the time, and whether validity may be judged by
// it. It may if NTP disciplines a clock that is not below the floor, or if a
// time key signed the time since this start.
func (c *Clock) Now() (utc time.Time, trusted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, disciplined := c.look()
	if disciplined {
		return wall, true
	}
	if c.signed {
		return c.signedAt.Add(c.o.System.Uptime() - c.base), true
	}
	return wall, false
}

// look reads the wall clock and whether it may be relied on. It asks for the
// discipline first: a clock that is set in between was not read before it was.
func (c *Clock) look() (wall time.Time, disciplined bool) {
	synchronised := c.o.System.Synchronised()
	wall = c.o.System.Wall().UTC()
	return wall, synchronised && c.plausible(wall)
}

// plausible reports whether what NTP says may be relied on: where it does not
// contradict what a time key signed. NTP is not authenticated; without this
// condition it could make valid again what has expired.
func (c *Clock) plausible(wall time.Time) bool {
	least := c.floor
	if c.signed {
		passed := c.o.System.Uptime() - c.base
		// The uptime runs on a cheap crystal; the signed time was a little old.
		if sure := c.signedAt.Add(passed - passed/1000 - time.Minute); sure.After(least) {
			least = sure
		}
	}
	return !c.o.NeverTrustSystem && !wall.Before(least)
}

// Floor returns a time that has certainly passed.
func (c *Clock) Floor() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.signed {
		return c.signedAt.Add(c.o.System.Uptime() - c.base)
	}
	return c.floor
}

// Raise takes a time a time key signed for this gateway just now.
func (c *Clock) Raise(utc time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if utc.After(c.floor) {
		if err := c.o.Store.Save(utc); err != nil {
			return fmt.Errorf("cannot keep clock floor: %w", err)
		}
		c.floor = utc
	}
	c.signed, c.signedAt, c.base = true, utc.UTC(), c.o.System.Uptime()
	return nil
}

// Wall implements the clock of transport: Unix milliseconds and their quality.
// Where the system's clock is below the floor, the floor is the better guess.
func (c *Clock) Wall() (unixMS int64, quality string) {
	t, q := c.Reading()
	return t.UnixMilli(), string(q)
}

// Reading returns the best guess at the time, and its quality.
func (c *Clock) Reading() (time.Time, Quality) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, disciplined := c.look()
	switch {
	case disciplined:
		return wall, NTP
	case c.signed:
		return c.signedAt.Add(c.o.System.Uptime() - c.base), Floor
	case c.floor.IsZero():
		return wall, None
	case wall.Before(c.floor):
		return c.floor, Floor
	}
	return wall, Floor
}

// Uptime is the time since boot.
func (c *Clock) Uptime() time.Duration { return c.o.System.Uptime() }
