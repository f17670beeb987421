package mqtt

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// carry takes n slots and has them acknowledged after took.
func carry(t *testing.T, w *window, n int, took time.Duration) {
	t.Helper()
	start := time.Now()
	for range n {
		if err := w.take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(took)
	for range n {
		w.acked(start, took)
	}
}

// full does what carry does while one more wants to be sent.
func full(t *testing.T, w *window, took time.Duration) {
	t.Helper()
	n := w.size()
	start := time.Now()
	for range n {
		if err := w.take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), took)
	defer cancel()
	if err := w.take(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("slot %d of %d: %v", n+1, n, err)
	}
	for range n {
		w.acked(start, took)
	}
}

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const quick = 50 * time.Millisecond
		w := newWindow(startWindow, 30*time.Second)
		want := func(n int, why string) {
			t.Helper()
			if got := w.size(); got != n {
				t.Fatalf("window %d, want %d: %s", got, n, why)
			}
		}
		for range 10 {
			carry(t, w, startWindow, quick)
		}
		want(startWindow, "nobody had to wait")
		full(t, w, quick)
		want(startWindow+1, "one full window")
		for range 100 {
			full(t, w, quick)
		}
		want(maxWindow, "many full windows")
		carry(t, w, 3, 5*time.Second)
		want(maxWindow/2, "slow ones, sent together")
		carry(t, w, 1, 3*time.Second)
		want(maxWindow/4, "slow again")
		carry(t, w, 1, 1900*time.Millisecond)
		want(maxWindow/4, "not slow yet")
		for range 20 {
			carry(t, w, 1, 10*time.Second)
		}
		want(1, "slower and slower")
		for range 400 {
			carry(t, w, 1, 5*time.Second)
		}
		full(t, w, 5*time.Second)
		want(2, "the line is slow, but bears it")
		for range 20 {
			full(t, w, 8*time.Second)
		}
		want(2, "larger could run into the time-out")
		_ = w.take(t.Context())
		w.missed(time.Now())
		want(1, "missed")
		if err := w.drain(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestWindowStartsSmallAfterTimeout(t *testing.T) {
	noLeaks(t)
	s := newStub(t, func(l *link) {
		l.accept()
		l.behave(nil)
	})
	d, _ := testDevice(t, func(o *DeviceOptions) { o.Dial.Broker = s.url })
	d.status.Window = 3
	serve(t, d)
	eventually(t, "connected", func() bool { return d.Status().Connected })
	if n := d.Status().Window; n != 3 {
		t.Errorf("window %d, want 3: the last connection learned that", n)
	}
}
