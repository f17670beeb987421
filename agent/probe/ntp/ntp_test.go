package ntp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"ontagent/agent/probe/ntp"
)

// stamp is t as an NTP timestamp of its era.
func stamp(t time.Time) uint64 {
	s := uint64(t.Unix()+2208988800) & 0xffffffff
	return s<<32 | uint64(t.Nanosecond())<<32/1e9
}

// reply answers a request as a server of stratum 2 whose clock says t2 and t3.
func reply(request []byte, t2, t3 time.Time) []byte {
	b := make([]byte, 48)
	b[0] = 4<<3 | 4
	b[1] = 2
	copy(b[12:], []byte{10, 64, 0, 1})
	copy(b[24:], request[40:48])
	binary.BigEndian.PutUint64(b[32:], stamp(t2))
	binary.BigEndian.PutUint64(b[40:], stamp(t3))
	return b
}

func TestTimestamps(t *testing.T) {
	for _, want := range []string{
		"1970-01-01T00:00:00Z", "2000-02-29T12:00:00.5Z", "2036-02-07T06:28:15.75Z", "2036-02-07T06:28:16Z", "2036-02-07T06:28:17Z", "2100-01-01T00:00:00.25Z",
	} {
		at, err := time.Parse(time.RFC3339Nano, want)
		if err != nil {
			t.Fatal(err)
		}
		if got := ntp.Time(stamp(at)); !got.Equal(at) {
			t.Errorf("%s became %s", want, got.UTC())
		}
	}
}

func TestOffsetAndRoundTrip(t *testing.T) {
	request := ntp.Request(7)
	if len(request) != 48 || request[0] != 4<<3|3 || !bytes.Equal(request[1:40], make([]byte, 39)) {
		t.Errorf("request %x", request)
	}
	truth := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	// 10 ms there, 2 ms in the server, 30 ms back: RFC 5905 sees half the
	// asymmetry as offset.
	for name, wall := range map[string]time.Time{"right": truth, "1970": time.Unix(60, 0), "2080": time.Date(2080, 1, 1, 0, 0, 0, 0, time.UTC)} {
		b := reply(request, truth.Add(10*time.Millisecond), truth.Add(12*time.Millisecond))
		r, err := ntp.Measured(b, 7, wall, 42*time.Millisecond)
		want := float64(truth.Sub(wall))/1e6 - 10
		if err != nil || r.Outcome != ntp.OK || math.Abs(r.OffsetMs-want) > 0.001 || math.Abs(r.RTTMs-40) > 0.001 || r.ReferenceID != "10.64.0.1" || r.Stratum != 2 || r.Version != 4 {
			t.Errorf("%s: %+v, %v, want offset %g", name, r, err, want)
		}
	}
}

func TestOutcomesOfAnswers(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		change func(b []byte) []byte
		want   ntp.Outcome
		err    error
		kiss   string
		ref    string
	}{
		"stratum 1":         {func(b []byte) []byte { b[1] = 1; copy(b[12:], "GPS\x00"); return b }, ntp.OK, nil, "", "GPS"},
		"extension":         {func(b []byte) []byte { return append(b, 1, 2, 3, 4) }, ntp.OK, nil, "", "10.64.0.1"},
		"leap second":       {func(b []byte) []byte { b[0] |= 1 << 6; return b }, ntp.OK, nil, "", "10.64.0.1"},
		"old version":       {func(b []byte) []byte { b[0] = 3<<3 | 4; return b }, ntp.OK, nil, "", "10.64.0.1"},
		"alarm":             {func(b []byte) []byte { b[0] |= 3 << 6; return b }, ntp.Unsynchronised, nil, "", "10.64.0.1"},
		"stratum 16":        {func(b []byte) []byte { b[1] = 16; copy(b[12:], "INIT"); return b }, ntp.Unsynchronised, nil, "", "73.78.73.84"},
		"stratum 255":       {func(b []byte) []byte { b[1] = 255; return b }, ntp.Unsynchronised, nil, "", "10.64.0.1"},
		"stratum 0":         {func(b []byte) []byte { b[1] = 0; return b }, ntp.Unsynchronised, nil, "", "10.64.0.1"},
		"kiss":              {func(b []byte) []byte { b[0] |= 3 << 6; b[1] = 0; copy(b[12:], "RATE"); return b }, ntp.KoD, nil, "RATE", "RATE"},
		"kiss, no times":    {func(b []byte) []byte { b[1] = 0; copy(b[12:], "DENY"); clear(b[32:]); return b }, ntp.KoD, nil, "DENY", "DENY"},
		"unsynced, no time": {func(b []byte) []byte { b[0] |= 3 << 6; clear(b[32:]); return b }, ntp.Unsynchronised, nil, "", "10.64.0.1"},
		"no time":           {func(b []byte) []byte { clear(b[40:]); return b }, "", ntp.ErrMalformed, "", ""},
		"time runs back":    {func(b []byte) []byte { b[32]++; return b }, "", ntp.ErrMalformed, "", ""},
		"version 0":         {func(b []byte) []byte { b[0] = 4; return b }, "", ntp.ErrMalformed, "", ""},
		"version 5":         {func(b []byte) []byte { b[0] = 5<<3 | 4; return b }, "", ntp.ErrMalformed, "", ""},
		"a client":          {func(b []byte) []byte { b[0] = 4<<3 | 3; return b }, "", ntp.ErrMalformed, "", ""},
		"another's":         {func(b []byte) []byte { b[31]++; return b }, "", ntp.ErrForeign, "", ""},
	} {
		b := test.change(reply(ntp.Request(7), now, now))
		r, err := ntp.Measured(b, 7, now, time.Millisecond)
		if !errors.Is(err, test.err) || r.Outcome != test.want || r.KissCode != test.kiss || r.ReferenceID != test.ref {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if r.Outcome != ntp.OK && (r.OffsetMs != 0 || r.RTTMs != 0) {
			t.Errorf("%s: an offset: %+v", name, r)
		}
	}
	whole := reply(ntp.Request(7), now, now)
	for n := range whole {
		if _, err := ntp.Measured(whole[:n:n], 7, now, 0); !errors.Is(err, ntp.ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	f.Add(reply(ntp.Request(7), now, now))
	kiss := reply(ntp.Request(7), now, now)
	kiss[1] = 0
	copy(kiss[12:], "RATE")
	f.Add(kiss)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ntp.Measured(b, 7, now, time.Second)
		if err != nil {
			return
		}
		if r.RTTMs < 0 || r.RTTMs > 1000 || math.Abs(r.OffsetMs) > 150*366*86400e3 || r.Outcome == "" {
			t.Fatalf("%x: %+v", b, r)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
	})
}

// serve answers on the loopback with what f makes of a request.
func serve(t *testing.T, f func(request []byte) [][]byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			for _, answer := range f(b[:n]) {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-ended })
	addr, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// leaks says what f left open.
func leaks(t *testing.T, f func()) {
	t.Helper()
	count := func() (files, goroutines int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries), runtime.NumGoroutine()
	}
	files, goroutines := count()
	f()
	g, n := count()
	for range 50 {
		if g, n = count(); g <= files && n <= goroutines {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d descriptors and %d goroutines became %d and %d", files, goroutines, g, n)
}

func TestRun(t *testing.T) {
	skew := 5 * time.Second
	good := func(request []byte) []byte {
		at := time.Now().Add(skew)
		return reply(request, at, at)
	}
	server := serve(t, func(request []byte) [][]byte {
		foreign := good(request)
		foreign[24]++
		return [][]byte{foreign, []byte("garbage"), good(request)}
	})
	leaks(t, func() {
		r, err := ntp.Run(t.Context(), ntp.Options{Server: server})
		if err != nil || r.Outcome != ntp.OK || math.Abs(r.OffsetMs-5000) > 500 || r.RTTMs > 500 || r.Tries != 1 || r.Foreign != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	})
	lost := 0
	server = serve(t, func(request []byte) [][]byte {
		if lost++; lost < 2 {
			return nil
		}
		return [][]byte{good(request)}
	})
	if r, err := ntp.Run(t.Context(), ntp.Options{Server: server, Wait: 50 * time.Millisecond}); err != nil || r.Outcome != ntp.OK || r.Tries != 2 {
		t.Errorf("the first lost: %+v, %v", r, err)
	}
}

func TestRunWithoutATime(t *testing.T) {
	o := ntp.Options{Wait: 30 * time.Millisecond, Tries: 2}
	o.Server = serve(t, func([]byte) [][]byte { return nil })
	begin := time.Now()
	if r, err := ntp.Run(t.Context(), o); err != nil || r.Outcome != ntp.Silent || r.Tries != 2 || time.Since(begin) < o.Duration() {
		t.Errorf("silent: %+v, %v", r, err)
	}
	o.Server = serve(t, func([]byte) [][]byte { return [][]byte{[]byte("garbage")} })
	if r, err := ntp.Run(t.Context(), o); err != nil || r.Outcome != ntp.Malformed {
		t.Errorf("garbage: %+v, %v", r, err)
	}
	// A flood of what isn't ours neither hangs nor counts.
	o.Server = serve(t, func(request []byte) [][]byte {
		flood := make([][]byte, 200)
		for i := range flood {
			flood[i] = reply(request, time.Now(), time.Now())
			flood[i][24]++
		}
		return flood
	})
	begin = time.Now()
	if r, err := ntp.Run(t.Context(), o); err != nil || r.Outcome != ntp.Silent || r.Foreign == 0 || time.Since(begin) > o.Duration()+time.Second {
		t.Errorf("flood: %+v, %v", r, err)
	}
	// Nobody listens.
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	o.Server = netip.MustParseAddrPort(conn.LocalAddr().String())
	conn.Close()
	if r, err := ntp.Run(t.Context(), o); err != nil || r.Outcome != ntp.Unreachable || r.Reason != "connection refused" {
		t.Errorf("nobody listens: %+v, %v", r, err)
	}
}

func TestRunEnds(t *testing.T) {
	server := serve(t, func([]byte) [][]byte { return nil })
	leaks(t, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err := ntp.Run(ctx, ntp.Options{Server: server})
		if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 550*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestBadOptions(t *testing.T) {
	for name, o := range map[string]ntp.Options{
		"none":       {},
		"any":        {Server: netip.MustParseAddrPort("0.0.0.0:123")},
		"group":      {Server: netip.MustParseAddrPort("224.0.1.1:123")},
		"family":     {Server: netip.MustParseAddrPort("127.0.0.1:123"), Source: netip.IPv6Loopback()},
		"not our ip": {Server: netip.MustParseAddrPort("127.0.0.1:123"), Source: netip.MustParseAddr("192.0.2.1")},
	} {
		if r, err := ntp.Run(t.Context(), o); !errors.Is(err, ntp.ErrOptions) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if o := (ntp.Options{Server: netip.MustParseAddrPort("[::1]:0")}); o.Duration() != 3*time.Second {
		t.Errorf("%v", o.Duration())
	}
}
