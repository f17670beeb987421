package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func quiet() *Supervisor { return &Supervisor{Log: slog.New(slog.DiscardHandler)} }

func TestSupervisorStartsAgainWithGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Duration
		begin := time.Now()
		s := quiet()
		s.Add("flaky", Func(func(context.Context) error {
			starts = append(starts, time.Since(begin))
			if len(starts)%2 == 0 {
				panic("boom")
			}
			return errors.New("failed")
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := s.Serve(ctx); err != nil {
			t.Fatal(err)
		}
		if len(starts) < 8 || len(starts) > 40 {
			t.Fatalf("%d starts in 5 minutes", len(starts))
		}
		if first := starts[1] - starts[0]; first < restartFirst/2 || first > restartFirst {
			t.Errorf("first pause %v", first)
		}
		for i := 1; i < len(starts); i++ {
			if pause := starts[i] - starts[i-1]; pause > restartLongest {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
	})
}

func TestSupervisorStopsInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var stopped []string
		s := quiet()
		for _, name := range []string{"queue", "collectors", "jobs"} {
			s.Add(name, Func(func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(100 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				stopped = append(stopped, name)
				return ctx.Err()
			}))
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := s.Serve(ctx); err != nil {
			t.Fatal(err)
		}
		if want := []string{"jobs", "collectors", "queue"}; !slices.Equal(stopped, want) {
			t.Errorf("stopped %v, want %v", stopped, want)
		}
	})
}

func TestSupervisorNamesWhatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := quiet()
		s.Add("good", Func(func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}))
		s.Add("stubborn", Func(func(context.Context) error {
			<-release
			return nil
		}))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		err := s.Serve(ctx)
		if err == nil || !strings.Contains(err.Error(), "stubborn") || strings.Contains(err.Error(), "good") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took > 7*time.Second {
			t.Errorf("took %v", took)
		}
		close(release)
		synctest.Wait()
	})
}
