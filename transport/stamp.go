package transport

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// The qualities of a wall clock, in Header.Clock.
const (
	ClockNTP   = "ntp"   // set by a time source
	ClockFloor = "floor" // at least this late: raised to a time known to have passed
	ClockNone  = "none"  // whatever the machine came up with
)

// Clock tells both times that a header carries.
type Clock interface {
	// Wall is the time of day in milliseconds since 1970, and how good it is:
	// ClockNTP, ClockFloor or ClockNone.
	Wall() (unixMS int64, quality string)
	// Uptime is the time since boot, suspend included. It never goes back.
	Uptime() time.Duration
}

// Stamper makes headers: it counts the messages of each class. One Stamper
// serves everything that a daemon sends between its start and its end.
type Stamper struct {
	device string
	epoch  uint64
	clock  Clock

	mu  sync.Mutex
	seq map[Class]uint64 // last number given, by class; guarded by mu
}

// NewStamper returns a Stamper for a device and the epoch of this start. The
// error is compatible with errors.Is(err, ErrTopic) if device is not one.
func NewStamper(device string, epoch uint64, clock Clock) (*Stamper, error) {
	if !ValidDevice(device) {
		return nil, fmt.Errorf("cannot stamp messages: %w: device %.40q is not %d–%d letters and digits",
			ErrTopic, device, minDevice, maxDevice)
	}
	return &Stamper{device: device, epoch: epoch, clock: clock, seq: make(map[Class]uint64, 5)}, nil
}

// Device returns the device in every header.
func (s *Stamper) Device() string { return s.device }

// Epoch returns the epoch in every header.
func (s *Stamper) Epoch() uint64 { return s.epoch }

// Stamp returns the next header of class, starting at sequence number 1. A
// clock that tells nonsense is reported as ClockNone, not passed on.
func (s *Stamper) Stamp(class Class) Header {
	wall, quality := s.clock.Wall()
	if quality != ClockNTP && quality != ClockFloor {
		quality = ClockNone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq[class]++
	return Header{
		V:       Version,
		Device:  s.device,
		Epoch:   s.epoch,
		Class:   class,
		Seq:     s.seq[class],
		UptimeS: math.Round(max(0, s.clock.Uptime().Seconds())*1000) / 1000,
		TimeMS:  wall,
		Clock:   quality,
	}
}
