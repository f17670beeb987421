package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Service is a part that runs until ctx ends. Serve runs in the caller's
// goroutine and returns when the part has really stopped.
type Service interface {
	Serve(ctx context.Context) error
}

// Supervisor keeps services running: one that returns or panics early is
// started again after a growing pause. At the end services are stopped in
// reverse order of Add, each within a bound.
type Supervisor struct {
	Log *slog.Logger
	// StopTimeout bounds the stop of one service; 0 means 5 s.
	StopTimeout time.Duration

	services []supervised
}

type supervised struct {
	name string
	s    Service
}

const (
	restartFirst   = 500 * time.Millisecond
	restartLongest = 30 * time.Second
	steadyFor      = time.Minute // a service that ran this long failed anew, not again
)

// Add registers a service before Serve is called.
func (v *Supervisor) Add(name string, s Service) {
	v.services = append(v.services, supervised{name, s})
}

// Serve runs all services until ctx ends. The error names what did not stop in
// time, if anything.
func (v *Supervisor) Serve(ctx context.Context) error {
	timeout := v.StopTimeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	type unit struct {
		name   string
		cancel context.CancelFunc
		done   chan struct{}
	}
	units := make([]unit, 0, len(v.services))
	for _, s := range v.services {
		// Not derived from ctx: parts are stopped one by one, in order.
		unitCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		u := unit{s.name, cancel, make(chan struct{})}
		go func() {
			defer close(u.done)
			v.keep(unitCtx, s)
		}()
		units = append(units, u)
	}
	<-ctx.Done()
	var stuck []string
	for _, u := range slices.Backward(units) {
		u.cancel()
		select {
		case <-u.done:
		case <-time.After(timeout):
			stuck = append(stuck, u.name)
		}
	}
	if len(stuck) > 0 {
		return fmt.Errorf("cannot stop %s within %v", strings.Join(stuck, ", "), timeout)
	}
	return nil
}

// keep runs one service again and again until its context ends.
func (v *Supervisor) keep(ctx context.Context, s supervised) {
	pause, failures := restartFirst, 0
	for {
		started := time.Now()
		err := v.once(ctx, s)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > steadyFor {
			pause, failures = restartFirst, 0
		}
		level := slog.LevelWarn
		if failures > 0 {
			level = slog.LevelDebug
		}
		failures++
		wait := pause/2 + rand.N(pause/2) //nolint:gosec // spreads restarts, guards nothing
		v.Log.Log(ctx, level, "service ended and will be started again", "service", s.name, "in", wait, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		pause = min(2*pause, restartLongest)
	}
}

func (v *Supervisor) once(ctx context.Context, s supervised) (err error) {
	defer func() {
		if p := recover(); p != nil {
			v.Log.Error("service panicked", "service", s.name, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return s.s.Serve(ctx)
}

// Func makes a function a Service.
type Func func(ctx context.Context) error

// Serve implements Service.
func (f Func) Serve(ctx context.Context) error { return f(ctx) }
