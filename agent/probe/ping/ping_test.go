package ping_test

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ontagent/agent/probe/ping"
)

func TestSummarise(t *testing.T) {
	replies := func(ms ...float64) []ping.Reply {
		var out []ping.Reply
		for i, v := range ms {
			out = append(out, ping.Reply{Seq: i, RTTMs: v})
		}
		return out
	}
	for _, tt := range []struct {
		name string
		in   ping.Result
		want ping.Result
	}{
		{"nothing sent", ping.Result{}, ping.Result{}},
		{"nothing back", ping.Result{Sent: 4}, ping.Result{LossRatio: 1}},
		{"one", ping.Result{Sent: 1, Replies: replies(7)}, ping.Result{Received: 1, MinMs: 7, AvgMs: 7, MaxMs: 7, P50Ms: 7, P95Ms: 7}},
		{
			"two, one refused",
			ping.Result{Sent: 2, Refused: 2, Replies: replies(10, 4)},
			ping.Result{Received: 2, LossRatio: 0.5, MinMs: 4, AvgMs: 7, MaxMs: 10, P50Ms: 4, P95Ms: 10, JitterMs: 6},
		},
		{
			"out of order",
			ping.Result{Sent: 4, Replies: []ping.Reply{{Seq: 3, RTTMs: 1}, {Seq: 0, RTTMs: 2}, {Seq: 1, RTTMs: 6}}},
			// In order 2, 6, 1: differences 4 and 5.
			ping.Result{Received: 3, LossRatio: 0.25, MinMs: 1, AvgMs: 3, MaxMs: 6, P50Ms: 2, P95Ms: 6, JitterMs: 4.5},
		},
		{
			"twenty",
			ping.Result{Sent: 20, Replies: replies(20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1)},
			ping.Result{Received: 20, MinMs: 1, AvgMs: 10.5, MaxMs: 20, P50Ms: 10, P95Ms: 19, JitterMs: 1},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.in
			got.Summarise()
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(ping.Result{}, "Target", "Sent", "Refused", "Replies"), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for i := 1; i < len(got.Replies); i++ {
				if got.Replies[i].Seq < got.Replies[i-1].Seq {
					t.Errorf("replies are not in order: %v", got.Replies)
				}
			}
		})
	}
}

// TestRTTSurvivesAClockThatIsSet: the library's round-trip time is taken on the
// wall clock.
func TestRTTSurvivesAClockThatIsSet(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct{ wall, monotonic, want time.Duration }{
		{10 * ms, 9 * ms, 10 * ms},
		{9 * ms, 9 * ms, 9 * ms},
		{50 * 365 * 24 * time.Hour, 9 * ms, 9 * ms}, // 1970 → now
		{-time.Hour, 9 * ms, 9 * ms},
		{8 * ms, 9 * ms, 9 * ms},
		{math.MinInt64, 9 * ms, 9 * ms},
	} {
		if got := ping.RTT(tt.wall, tt.monotonic); got != tt.want {
			t.Errorf("RTT(%v, %v) = %v, want %v", tt.wall, tt.monotonic, got, tt.want)
		}
	}
}

func TestDurationBoundsARun(t *testing.T) {
	for _, tt := range []struct {
		o    ping.Options
		want time.Duration
	}{
		{ping.Options{}, 4*200*time.Millisecond + time.Second},
		{ping.Options{Count: 1, Wait: time.Second}, time.Second},
		{ping.Options{Count: 11, Interval: time.Nanosecond, Wait: time.Second}, 1100 * time.Millisecond},
		{ping.Options{Count: -3, Interval: -1, Wait: -1}, 1800 * time.Millisecond},
	} {
		if got := tt.o.Duration(); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt.o, got, tt.want)
		}
	}
}

func TestPingRefusesWhatIsNoHost(t *testing.T) {
	for _, a := range []string{"0.0.0.0", "::", "224.0.0.1", "ff02::1"} {
		if _, err := ping.Ping(t.Context(), netip.MustParseAddr(a), ping.Options{}); err == nil {
			t.Errorf("%s is pinged", a)
		}
	}
	if _, err := ping.Ping(t.Context(), netip.Addr{}, ping.Options{}); err == nil {
		t.Error("no address is pinged")
	}
}

func TestPingEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ping.Ping(ctx, netip.MustParseAddr("127.0.0.1"), ping.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
