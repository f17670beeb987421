package ping_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

func TestResultAsJSON(t *testing.T) {
	res := ping.Result{
		Outcome: ping.Loss, Target: netip.MustParseAddr("fe80::1%eth0"), Mode: ping.ModeRaw, Sent: 3, Refused: 1, Duplicates: 1,
		Replies: []ping.Reply{{Seq: 0, RTTMs: 1}, {Seq: 2, RTTMs: 3}},
	}
	res.Summarise()
	got, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"outcome":"loss","target":"fe80::1%eth0","mode":"raw","sent":3,"refused":1,"received":2,"duplicates":1,"loss_ratio":0.5,` +
		`"rtt_min_ms":1,"rtt_avg_ms":2,"rtt_max_ms":3,"rtt_p50_ms":1,"rtt_p95_ms":3,"jitter_ms":2,"replies":[{"seq":0,"rtt_ms":1},{"seq":2,"rtt_ms":3}]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRequest(t *testing.T) {
	tok := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	for _, v6 := range []bool{false, true} {
		b := ping.AppendRequest([]byte("before"), v6, 0xbeef, 0x1234, tok)[len("before"):]
		kind := byte(8)
		if v6 {
			kind = 128
		}
		if len(b) != 32 || b[0] != kind || b[1] != 0 || !bytes.Equal(b[4:16], []byte{0xbe, 0xef, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8}) {
			t.Errorf("%x", b)
		}
		if sum := ping.Checksum(b); sum != 0 {
			t.Errorf("the checksum with itself is %#x", sum)
		}
		b[0] = map[bool]byte{false: 0, true: 129}[v6]
		if id, seq, got, ok := ping.ParseReply(b, v6, false); !ok || id != 0xbeef || seq != 0x1234 || got != tok {
			t.Errorf("reads back as %#x %#x %x %v", id, seq, got, ok)
		}
		for n := range b {
			if _, _, _, ok := ping.ParseReply(b[:n], v6, false); ok {
				t.Errorf("%d of %d bytes are a reply", n, len(b))
			}
		}
		if _, _, _, ok := ping.ParseReply(b, !v6, false); ok {
			t.Error("a reply of the other family is one")
		}
	}
}

// TestChecksum: the example of RFC 1071 section 3, and an odd length.
func TestChecksum(t *testing.T) {
	for _, tt := range []struct {
		in   []byte
		want uint16
	}{
		{nil, 0xffff},
		{[]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, ^uint16(0xddf2)},
		{[]byte{0x12}, ^uint16(0x1200)},
		{bytes.Repeat([]byte{0xff}, 64), 0},
	} {
		if got := ping.Checksum(tt.in); got != tt.want {
			t.Errorf("%x: %#x, want %#x", tt.in, got, tt.want)
		}
	}
}

func FuzzParseReply(f *testing.F) {
	tok := [8]byte{1, 2, 3}
	reply := ping.AppendRequest(nil, false, 1, 2, tok)
	reply[0] = 0
	header := append([]byte{0x45}, make([]byte, 19)...)
	f.Add(reply, false, false)
	f.Add(append(header, reply...), false, true)
	f.Add([]byte{0x4f}, false, true)
	f.Add(ping.AppendRequest(nil, true, 1, 2, tok), true, false)
	f.Fuzz(func(t *testing.T, data []byte, v6, header bool) {
		id, seq, tok, ok := ping.ParseReply(data, v6, header)
		if !ok {
			if id != 0 || seq != 0 || tok != [8]byte{} {
				t.Error("something is left of what is no reply")
			}
			return
		}
		again := ping.AppendRequest(nil, v6, id, seq, tok)
		if !bytes.Contains(data, again[4:16]) {
			t.Errorf("%x does not hold %x", data, again[4:16])
		}
	})
}
