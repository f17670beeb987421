package clock

import (
	"context"
	"time"
)

// Sync says that wall time and uptime have to be put beside each other anew:
// from a message sent now, whoever keeps this start's messages dates them all.
type Sync struct {
	Why SyncReason
	// Step is by how much the wall clock moved against the uptime since the
	// last Sync; 0 for the first.
	Step time.Duration
}

// SyncReason is why there is a Sync.
type SyncReason string

// The reasons.
const (
	ClockSet     SyncReason = "set"     // it came under NTP discipline for the first time
	ClockStepped SyncReason = "stepped" // by more than SyncStep, under NTP discipline
)

// SyncStep is how far wall time and uptime may drift apart, or be stepped, before
// it is told: dates are good to about that.
const SyncStep = time.Second

// SyncDetector finds out from readings of the clock when there is a Sync. The
// zero value has seen nothing.
type SyncDetector struct {
	told   bool
	offset time.Duration // of the last Sync: Unix time minus uptime
}

// Observe takes a reading: wall time and its quality, and the uptime at the same
// moment. Only readings under NTP discipline count. Discipline that is lost and
// comes back is news only if the clock moved meanwhile.
func (d *SyncDetector) Observe(wall time.Time, quality Quality, uptime time.Duration) (Sync, bool) {
	if quality != NTP {
		return Sync{}, false
	}
	offset := time.Duration(wall.UnixNano()) - uptime // good until 2262
	step := offset - d.offset
	switch {
	case !d.told:
		d.told, d.offset = true, offset
		return Sync{Why: ClockSet}, true
	case step > SyncStep || step < -SyncStep:
		d.offset = offset
		return Sync{Why: ClockStepped, Step: step}, true
	}
	return Sync{}, false
}

// Watch looks at the clock at once and then every interval, and calls tell, from
// its own goroutine, where there is a Sync. It returns ctx.Err() when ctx ends.
func (c *Clock) Watch(ctx context.Context, interval time.Duration, tell func(Sync)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var d SyncDetector
	for ctx.Err() == nil {
		if wall, quality, uptime, ok := c.together(); ok {
			if s, is := d.Observe(wall, quality, uptime); is {
				tell(s)
			}
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	return ctx.Err()
}

// together reads wall time and uptime of one moment. A process that waits for
// the processor between the two would see a step where there is none.
func (c *Clock) together() (wall time.Time, quality Quality, uptime time.Duration, ok bool) {
	for range 5 {
		before := c.o.System.Uptime()
		wall, quality = c.Reading()
		uptime = c.o.System.Uptime()
		if uptime-before < SyncStep/20 {
			return wall, quality, uptime, true
		}
	}
	return time.Time{}, None, 0, false
}
