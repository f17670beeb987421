package throughput

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pulseInterval is no multiple or part of the periods that quotas have.
	pulseInterval = 23 * time.Millisecond
	// pulseLate is beyond what timers are off on a processor with time left.
	pulseLate = 3 * time.Millisecond
	// pulseTicks is the coarsest clock that this can be told by.
	pulseTicks = time.Millisecond
	minPulses  = 20
)

// pulse looks at the clock at fixed times to find how much of a time this
// process cannot run in, for whatever reason: no file has to tell it. It costs
// 43 wake-ups a second.
type pulse struct {
	stop, ended chan struct{}
	looks, late int // a moment that was missed altogether is a late one
}

func startPulse() *pulse {
	p := &pulse{stop: make(chan struct{}), ended: make(chan struct{})}
	go p.beat()
	return p
}

func (p *pulse) beat() {
	defer close(p.ended)
	timer := time.NewTimer(pulseInterval)
	defer timer.Stop()
	for next := time.Now().Add(pulseInterval); ; {
		select {
		case <-p.stop:
			return
		case <-timer.C:
		}
		late := time.Since(next)
		n := 1 + int(max(late, 0)/pulseInterval)
		p.looks += n
		if late > pulseLate {
			p.late += n
		}
		next = next.Add(time.Duration(n) * pulseInterval)
		timer.Reset(time.Until(next))
	}
}

// end stops the looks, and returns which part of them was late; nil if they were
// too few, or the clock is too coarse to tell.
func (p *pulse) end() *float64 {
	close(p.stop)
	<-p.ended
	var tick unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC, &tick); err != nil || time.Duration(tick.Nano()) > pulseTicks || p.looks < minPulses {
		return nil
	}
	r := float64(p.late) / float64(p.looks)
	return &r
}
