package play

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/cmd/ontlab/scenario"
)

// timeline lets the faults of a visit come and go.
type timeline struct {
	lab    *Lab
	cancel context.CancelFunc
	done   sync.WaitGroup
	began  time.Time

	mu   sync.Mutex
	errs []error                          // guarded by mu
	seen map[acceptance.Rung]chan struct{} // closed when the ladder reaches it; guarded by mu
}

// startTimeline begins with the visit.
func (l *Lab) startTimeline(ctx context.Context) *timeline {
	ctx, cancel := context.WithCancel(ctx)
	t := &timeline{lab: l, cancel: cancel, began: time.Now(), seen: map[acceptance.Rung]chan struct{}{}}
	for _, m := range l.sc.Timeline {
		if m.Rung != "" && t.seen[acceptance.Rung(m.Rung)] == nil {
			t.seen[acceptance.Rung(m.Rung)] = make(chan struct{})
		}
	}
	for _, m := range l.sc.Timeline {
		if m.Before && m.ForS == 0 {
			continue // it came before the gateway was started, and stays
		}
		reached := t.seen[acceptance.Rung(m.Rung)]
		t.done.Go(func() { t.play(ctx, m, reached) })
	}
	return t
}

// reached is told of each rung that the ladder comes to.
func (t *timeline) reached(rung acceptance.Rung) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.seen[rung]; c != nil {
		select {
		case <-c:
		default:
			close(c)
		}
	}
}

func (t *timeline) play(ctx context.Context, m scenario.Moment, reached <-chan struct{}) {
	from := t.began
	if m.Rung != "" {
		select {
		case <-reached:
			from = time.Now()
		case <-ctx.Done():
			return
		}
	}
	if !m.Before && (!sleepUntil(ctx, from.Add(seconds(m.AtS))) || !t.change(ctx, m)) {
		return
	}
	if m.ForS > 0 && sleepUntil(ctx, time.Now().Add(seconds(m.ForS))) {
		t.note(m, t.lab.Clear(ctx, m.Fault))
	}
}

// change makes a fault come or go, and reports whether it did.
func (t *timeline) change(ctx context.Context, m scenario.Moment) bool {
	var err error
	if m.Clear != "" {
		err = t.lab.Clear(ctx, m.Clear)
	} else {
		err = t.lab.Fault(ctx, m.Fault, m.Params)
	}
	t.note(m, err)
	return err == nil
}

func (t *timeline) note(m scenario.Moment, err error) {
	if err == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errs = append(t.errs, fmt.Errorf("timeline, line %d: %w", m.Line, err))
}

// stop ends the timeline; what has not come by then does not come.
func (t *timeline) stop() error {
	t.cancel()
	t.done.Wait()
	return errors.Join(t.errs...)
}

func sleepUntil(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// before sets the faults that are there before the gateway is started.
func (l *Lab) before(ctx context.Context) error {
	for _, m := range l.sc.Timeline {
		if !m.Before {
			continue
		}
		err := l.Fault(ctx, m.Fault, m.Params)
		if m.Clear != "" {
			err = l.Clear(ctx, m.Clear)
		}
		if err != nil {
			return fmt.Errorf("timeline, line %d: %w", m.Line, err)
		}
	}
	return nil
}
