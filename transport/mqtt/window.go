package mqtt

import (
	"context"
	"sync"
	"time"
)

const (
	maxWindow   = 32
	startWindow = 8
	// An acknowledgement is slow if it takes longer than this and slowTimes
	// the least there was.
	slowAck   = 2 * time.Second
	slowTimes = 4
)

// window bounds the messages in flight on one connection. It grows by one each
// time as many as fill it were acknowledged in time while more waited, and
// halves when an acknowledgement is slow or does not come: so it settles where
// the line is full and nothing waits in it for long.
type window struct {
	patience time.Duration // after which a missing acknowledgement ends the connection
	free     chan struct{} // holds a token if a slot may have become free

	mu     sync.Mutex
	limit  int           // guarded by mu
	used   int           // guarded by mu
	short  bool          // a message had to wait since limit last changed; guarded by mu
	inTime int           // acknowledged since limit last changed; guarded by mu
	least  time.Duration // smoothed least time to an acknowledgement; guarded by mu
	cut    time.Time     // when limit was last halved: what was sent before proves nothing new; guarded by mu
}

func newWindow(limit int, patience time.Duration) *window {
	return &window{patience: patience, free: make(chan struct{}, 1), limit: limit}
}

// take waits for a slot and takes it. One goroutine calls take and drain.
func (w *window) take(ctx context.Context) error {
	return w.wait(ctx, func() bool {
		if w.used >= w.limit {
			w.short = true
			return false
		}
		w.used++
		return true
	})
}

// drain waits until all slots are free.
func (w *window) drain(ctx context.Context) error {
	return w.wait(ctx, func() bool { return w.used == 0 })
}

// wait waits until ready holds; ready is called with mu held.
func (w *window) wait(ctx context.Context, ready func() bool) error {
	for {
		w.mu.Lock()
		ok := ready()
		w.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-w.free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// release gives a slot back that taught nothing.
func (w *window) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leave()
}

// acked gives back the slot of a message that was sent at the time given and
// acknowledged after took.
func (w *window) acked(sent time.Time, took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.leave()
	slow := took > slowAck && w.least > 0 && took > slowTimes*w.least || took > w.patience/2
	if w.least == 0 || took < w.least {
		w.least = took
	} else {
		w.least += (took - w.least) / 64 // the line itself may have changed
	}
	switch {
	case slow:
		w.halve(sent)
	case took > w.patience/4: // a larger one could miss the time-out
		w.inTime = 0
	default:
		w.inTime++
		if w.inTime >= w.limit && w.short && w.limit < maxWindow {
			w.limit++
			w.inTime, w.short = 0, false
		}
	}
}

// missed gives back the slot of a message that was not acknowledged in time.
func (w *window) missed(sent time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.halve(sent)
	w.leave()
}

// halve is called with mu held.
func (w *window) halve(sent time.Time) {
	if sent.Before(w.cut) {
		return
	}
	w.limit = max(1, w.limit/2)
	w.cut = time.Now()
	w.inTime, w.short = 0, false
}

// leave is called with mu held.
func (w *window) leave() {
	w.used--
	select {
	case w.free <- struct{}{}:
	default:
	}
}

// size returns how many messages may be in flight.
func (w *window) size() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.limit
}
