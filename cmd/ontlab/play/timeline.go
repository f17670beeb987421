package play

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	errs []error                           // guarded by mu
	seen map[acceptance.Rung]chan struct{} // closed when the ladder reaches it; guarded by mu
}

// startTimeline begins with the visit.
func (l *Lab) startTimeline(ctx context.Context) *timeline {
	ctx, cancel := context.WithCancel(ctx)
	t := &timeline{lab: l, cancel: cancel, began: time.Now(), seen: map[acceptance.Rung]chan struct{}{}}
	// What counts from the same moment is played one after the other, so that
	// it happens in the order of the file.
	moments := map[acceptance.Rung][]scenario.Moment{}
	for i, m := range l.sc.Timeline {
		switch rung := acceptance.Rung(m.Rung); {
		case !m.Before:
			moments[rung] = append(moments[rung], m)
		case m.ForS > 0:
			t.goesLater(ctx, m, l.settingsBefore[i], t.began)
		}
	}
	for rung := range moments {
		if rung != "" {
			t.seen[rung] = make(chan struct{})
		}
	}
	for rung, ms := range moments {
		slices.SortStableFunc(ms, func(a, b scenario.Moment) int {
			return cmp.Compare(a.AtS, b.AtS)
		})
		reached := t.seen[rung]
		t.done.Go(func() { t.play(ctx, ms, reached) })
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

// play plays moments, in order, that count from when reached is closed, or, if
// that is nil, from the start of the visit.
func (t *timeline) play(ctx context.Context, moments []scenario.Moment, reached <-chan struct{}) {
	from := t.began
	if reached != nil {
		select {
		case <-reached:
			from = time.Now()
		case <-ctx.Done():
			return
		}
	}
	for _, m := range moments {
		if !sleepUntil(ctx, from.Add(seconds(m.AtS))) {
			return
		}
		s, err := t.lab.change(ctx, m)
		t.note(m, err)
		if err == nil && m.ForS > 0 {
			t.goesLater(ctx, m, s, time.Now())
		}
	}
}

// goesLater takes a fault back when its time is over.
func (t *timeline) goesLater(ctx context.Context, m scenario.Moment, s *setting, since time.Time) {
	t.done.Go(func() {
		if sleepUntil(ctx, since.Add(seconds(m.ForS))) {
			t.note(m, t.lab.end(ctx, s))
		}
	})
}

// change makes a fault come, which it returns, or go.
func (l *Lab) change(ctx context.Context, m scenario.Moment) (*setting, error) {
	if m.Clear != "" {
		return nil, l.Clear(ctx, m.Clear)
	}
	return l.come(ctx, m.Fault, m.Params)
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

// sleepUntil reports whether the time came, before ctx ended.
func sleepUntil(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// before sets the faults that are there before the gateway is started.
func (l *Lab) before(ctx context.Context) error {
	l.settingsBefore = map[int]*setting{}
	for i, m := range l.sc.Timeline {
		if !m.Before {
			continue
		}
		s, err := l.change(ctx, m)
		if err != nil {
			return fmt.Errorf("timeline, line %d: %w", m.Line, err)
		}
		l.settingsBefore[i] = s
	}
	return nil
}
