package consumer

import (
	"math"
	"time"

	"ontagent/transport"
)

// Quality says how a date was come by.
type Quality string

// The qualities, best first.
const (
	QualityNTP     Quality = "ntp"     // by the gateway's own clock, which was set
	QualityDerived Quality = "derived" // from the uptime, by other messages of the epoch
	QualityNone    Quality = "none"    // not known: nothing of the epoch came with a set clock
)

// Dated is when something happened.
type Dated struct {
	Time    time.Time // UTC, whole milliseconds; zero with QualityNone
	Quality Quality
	// Error bounds how far Time may be off, provided that the gateway's set
	// clock was right: its resolution, how far its readings disagree, and the
	// drift of an unset clock, 100 ppm, since the nearest reading.
	Error time.Duration
}

const (
	// step is how far readings of a clock may disagree before it counts as set
	// anew, and all readings before as wrong.
	step = time.Second
	// resolution is of a reading: the header's milliseconds, and the time
	// between looking at one clock and at the other.
	resolution = 5 * time.Millisecond
	drift      = 100e-6
	// maxReadings bounds the readings kept of an epoch, minApart is the time
	// between them.
	maxReadings = 16
	minApart    = 10 * time.Minute
	// maxUptimeS bounds what is believed of an uptime: 300 years.
	maxUptimeS = 1e10
)

// The years in which gateways live, in milliseconds since 1970.
const (
	earliestMS = 1262304000000 // 2010
	latestMS   = 7258118400000 // 2200
)

// reading says that at an uptime the wall clock was offset ahead of it.
type reading struct {
	UptimeMS int64 `json:"uptime_ms"`
	OffsetMS int64 `json:"offset_ms"` // wall minus uptime
}

// clock is what is known of the wall clock during an epoch: readings by
// uptime, all since the clock was set last.
type clock struct {
	readings []reading
}

// learn takes note of a header, and reports whether dates are to be had now
// that were not, or are others.
func (c *clock) learn(h transport.Header) bool {
	if h.Clock != transport.ClockNTP || h.TimeMS < earliestMS || h.TimeMS >= latestMS || h.UptimeS > maxUptimeS {
		return false
	}
	up := int64(math.Round(h.UptimeS * 1000))
	r := reading{up, h.TimeMS - up}
	n := len(c.readings)
	if n == 0 {
		c.readings = []reading{r}
		return true
	}
	last := &c.readings[n-1]
	apart := r.OffsetMS - last.OffsetMS
	if max(apart, -apart) > step.Milliseconds() {
		if r.UptimeMS < last.UptimeMS {
			return false // from before the clock was set anew
		}
		c.readings = []reading{r}
		return true
	}
	switch {
	case r.UptimeMS <= last.UptimeMS:
		if r.UptimeMS < c.readings[0].UptimeMS {
			c.readings[0] = r // nearer to what came before
		}
	case n == 1 || r.UptimeMS-c.readings[n-2].UptimeMS >= minApart.Milliseconds():
		c.readings = append(c.readings, r)
	default:
		*last = r
	}
	if len(c.readings) > maxReadings {
		// The first and the last tell of what is outside, the rest less and
		// less the older it is.
		c.readings = append(c.readings[:1], c.readings[2:]...)
	}
	return false
}

// Date says when something was, by the epoch and the uptime in seconds in its
// header. Later messages of the epoch make it known, better or, where the
// gateway's clock was set anew, another.
func (t *Tracker) Date(epoch uint64, uptimeS float64) Dated {
	e := t.find(epoch)
	if e == nil || len(e.clock.readings) == 0 || !(uptimeS >= 0) || uptimeS > maxUptimeS {
		return Dated{Quality: QualityNone}
	}
	up := int64(math.Round(uptimeS * 1000))
	near, spread := e.clock.near(up)
	away := up - near.UptimeMS
	off := time.Duration(float64(max(away, -away))*drift*float64(time.Millisecond)) + time.Duration(spread)*time.Millisecond
	return Dated{
		Time:    time.UnixMilli(up + near.OffsetMS).UTC(),
		Quality: QualityDerived,
		Error:   off + resolution,
	}
}

// near returns the reading nearest to an uptime, and by how many milliseconds
// the ones on both sides of it disagree.
func (c *clock) near(up int64) (r reading, spread int64) {
	for i, b := range c.readings {
		if b.UptimeMS < up {
			r = b
			continue
		}
		if i == 0 {
			return b, 0
		}
		a := c.readings[i-1]
		if spread = max(a.OffsetMS-b.OffsetMS, b.OffsetMS-a.OffsetMS); b.UptimeMS-up < up-a.UptimeMS {
			return b, spread
		}
		return a, spread
	}
	return r, 0
}

// DateOf says when a message was made: by its own clock if that was set, else
// as Date.
func (t *Tracker) DateOf(h transport.Header) Dated {
	if h.Clock == transport.ClockNTP && h.TimeMS >= earliestMS && h.TimeMS < latestMS {
		return Dated{Time: time.UnixMilli(h.TimeMS).UTC(), Quality: QualityNTP, Error: resolution}
	}
	return t.Date(h.Epoch, h.UptimeS)
}
