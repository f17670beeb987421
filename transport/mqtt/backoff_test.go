package mqtt

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/transport"
)

var errRefused = errors.New("refused")

// waits runs f at both ends of the random range and returns each wait as
// "least-most".
func waits(b Backoff, f func(*Pacer) []time.Duration) []string {
	low := f(NewPacer(b, func() float64 { return 0 }))
	high := f(NewPacer(b, func() float64 { return 1 }))
	out := make([]string, len(low))
	for i := range low {
		out[i] = fmt.Sprintf("%v-%v", low[i], high[i])
	}
	return out
}

func TestBackoff(t *testing.T) {
	fleet := Backoff{Spread: 30 * time.Second, Cap: 300 * time.Second}
	tests := []struct {
		name string
		b    Backoff
		f    func(*Pacer) []time.Duration
		want []string
	}{
		{"cold start, then failures", fleet, func(b *Pacer) []time.Duration {
			out := []time.Duration{b.Cold()}
			for range 6 {
				out = append(out, b.AfterFailure(errRefused, false))
			}
			return out
		}, []string{"0s-30s", "30s-1m0s", "1m0s-2m0s", "2m0s-4m0s", "2m30s-5m0s", "2m30s-5m0s", "2m30s-5m0s"}},
		{"cold start of a great fleet", Backoff{Spread: 200 * time.Second}, func(b *Pacer) []time.Duration {
			return []time.Duration{b.Cold()}
		}, []string{"0s-30s"}},
		{"good connection lost, then failures", fleet, func(b *Pacer) []time.Duration {
			return []time.Duration{
				b.AfterLoss(time.Hour, false), b.AfterFailure(errRefused, false), b.AfterFailure(errRefused, false),
				b.AfterLoss(61*time.Second, false), b.AfterFailure(errRefused, false),
			}
		}, []string{"0s-30s", "30s-1m0s", "1m0s-2m0s", "0s-30s", "30s-1m0s"}},
		{"flapping escalates", fleet, func(b *Pacer) []time.Duration {
			return []time.Duration{
				b.AfterLoss(time.Second, false), b.AfterLoss(time.Second, false), b.AfterLoss(time.Minute, false),
				b.AfterLoss(2*time.Minute, false),
			}
		}, []string{"0s-30s", "30s-1m0s", "1m0s-2m0s", "0s-30s"}},
		{"unavailable doubles", fleet, func(b *Pacer) []time.Duration {
			return []time.Duration{
				b.AfterFailure(fmt.Errorf("x: %w", ErrServerUnavailable), false),
				b.AfterFailure(ErrServerUnavailable, false), b.AfterFailure(errRefused, false),
			}
		}, []string{"1m0s-2m0s", "2m0s-4m0s", "2m0s-4m0s"}},
		{"slow lane", fleet, func(b *Pacer) []time.Duration {
			return []time.Duration{
				b.AfterFailure(fmt.Errorf("x: %w", ErrNotAuthorized), true), b.AfterFailure(ErrRefusedCredentials, false),
				b.AfterFailure(ErrNotAuthorized, false), b.AfterFailure(ErrNotAuthorized, false),
				b.AfterFailure(ErrNotAuthorized, false),
				b.AfterFailure(errRefused, false), b.AfterFailure(ErrNotAuthorized, false),
			}
		}, []string{"5m0s-10m0s", "10m0s-20m0s", "20m0s-40m0s", "30m0s-1h0m0s", "30m0s-1h0m0s", "30s-1m0s", "5m0s-10m0s"}},
		{"urgent", fleet, func(b *Pacer) []time.Duration {
			out := []time.Duration{b.AfterFailure(errRefused, false), b.AfterLoss(time.Second, true)}
			for range 7 {
				out = append(out, b.AfterFailure(errRefused, true))
			}
			return append(out, b.AfterFailure(errRefused, false))
		}, []string{
			"30s-1m0s", "0s-2s", "1s-2s", "2s-4s", "4s-8s", "8s-16s", "16s-32s", "30s-1m0s", "30s-1m0s", "30s-1m0s",
		}},
		{"demo", Backoff{Base: 100 * time.Millisecond, Cap: time.Second}, func(b *Pacer) []time.Duration {
			out := []time.Duration{b.Cold(), b.AfterLoss(time.Hour, false)}
			for range 5 {
				out = append(out, b.AfterFailure(errRefused, false))
			}
			return append(out, b.AfterFailure(errRefused, true))
		}, []string{
			"0s-0s", "0s-0s", "50ms-100ms", "100ms-200ms", "200ms-400ms", "400ms-800ms", "500ms-1s", "50ms-100ms",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, waits(tt.b, tt.f)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

type bootClock struct{ start time.Time }

func (c bootClock) Wall() (int64, string) { return 1700000000000, transport.ClockNTP }
func (c bootClock) Uptime() time.Duration { return time.Since(c.start) }

func testDevice(t *testing.T, edit func(*DeviceOptions)) (*Device, *transport.RAMQueue) {
	t.Helper()
	stamper, err := transport.NewStamper("HWTC12345678", 3, bootClock{time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	q := transport.NewRAMQueue(transport.RAMOptions{Stamper: stamper})
	o := DeviceOptions{
		Dial: testOptions("tcp://127.0.0.1:1"), Tenant: "isp", Stamper: stamper, Queue: q,
		Backoff: Backoff{Base: 10 * time.Millisecond, Cap: 50 * time.Millisecond},
	}
	if edit != nil {
		edit(&o)
	}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d, q
}

func TestDeviceAttemptsFollowBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		urgent := false
		d, _ := testDevice(t, func(o *DeviceOptions) {
			o.Backoff = Backoff{Spread: 30 * time.Second, Cap: 120 * time.Second}
			o.Rand = func() float64 { return 0.5 }
			o.Urgent = func() bool { return urgent }
		})
		start := time.Now()
		var at []time.Duration
		answers := []error{errRefused, errRefused, ErrServerUnavailable, ErrNotAuthorized, errRefused}
		d.dial = func(context.Context, Options) (*Conn, error) {
			at = append(at, time.Since(start))
			return nil, answers[min(len(at), len(answers))-1]
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Serve(ctx) }()
		time.Sleep(20 * time.Minute)

		s := d.Status()
		if s.Connected || s.Attempts != uint64(len(at)) || s.LastError != errRefused.Error() || s.NextS <= 0 {
			t.Errorf("status %+v", s)
		}
		want := []time.Duration{15 * time.Second} // rand(0, 30)
		for _, wait := range []time.Duration{
			45 * time.Second,               // rand(30, 60)
			90 * time.Second,               // rand(60, 120)
			180 * time.Second,              // rand(60, 120), doubled
			7*time.Minute + 30*time.Second, // the slow lane
		} {
			want = append(want, want[len(want)-1]+wait)
		}
		if diff := cmp.Diff(want, at[:5]); diff != "" {
			t.Errorf("attempts (-want +got):\n%s", diff)
		}

		before := len(at)
		d.Hurry() // nobody waits
		synctest.Wait()
		if len(at) != before {
			t.Error("hurried without an order")
		}
		urgent = true
		d.Hurry()
		synctest.Wait()
		if len(at) != before+1 {
			t.Error("did not hurry for an order")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve = %v", err)
		}
	})
}
