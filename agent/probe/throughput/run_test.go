package throughput_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ontagent/agent/probe/throughput"
)

// procLine reads an interface of Ethernet as the process's namespace has it.
func procLine(name string) func(context.Context, netip.Addr) (throughput.Line, error) {
	return func(context.Context, netip.Addr) (throughput.Line, error) {
		l := throughput.Line{Interface: name, HeaderBytes: 14, Carrier: true}
		b, err := os.ReadFile("/proc/self/net/dev")
		if err != nil {
			return l, err
		}
		for line := range strings.Lines(string(b)) {
			dev, counters, ok := strings.Cut(strings.TrimSpace(line), ":")
			if !ok || dev != name {
				continue
			}
			_, err := fmt.Sscan(counters, &l.RxBytes, &l.RxPackets, new(int), new(int), new(int), new(int), new(int), new(int), &l.TxBytes, &l.TxPackets)
			return l, err
		}
		return l, errors.New("no such interface")
	}
}

// endless serves a download without end, paced to about so many bytes a second,
// and takes an upload without end as slowly.
func endless(t *testing.T, pace int) string {
	t.Helper()
	return server(t, func(conn *net.TCPConn, head string) {
		b := make([]byte, max(pace/100, 1))
		move := conn.Read
		if strings.HasPrefix(head, "GET") {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			move = conn.Write
		}
		for {
			if _, err := move(b); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func TestRunStopsAtOnceWhenCancelled(t *testing.T) {
	addr := endless(t, 1<<20)
	for _, dir := range []throughput.Direction{throughput.Down, throughput.Up} {
		for _, after := range []time.Duration{0, 200 * time.Millisecond, time.Second} {
			left := nothingLeft(t)
			took := time.Hour
			for range 3 { // on a busy machine, not each time
				ctx, cancel := context.WithCancel(t.Context())
				var at atomic.Int64
				time.AfterFunc(after, func() { at.Store(time.Now().UnixNano()); cancel() })
				_, err := throughput.Run(ctx, throughput.Options{URL: "http://" + addr + "/", Direction: dir})
				took = min(took, time.Since(time.Unix(0, at.Load())))
				cancel()
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%s, ended after %v: %v", dir, after, err)
				}
				if took <= 100*time.Millisecond {
					break
				}
			}
			if took > 100*time.Millisecond {
				t.Errorf("%s, ended after %v: returned %v later", dir, after, took)
			}
			left()
		}
	}
}

func TestRunKeepsItsBudget(t *testing.T) {
	addr := endless(t, 4<<20)
	for _, dir := range []throughput.Direction{throughput.Down, throughput.Up} {
		left := nothingLeft(t)
		const budget = 2 << 20
		res, err := throughput.Run(t.Context(), throughput.Options{
			URL: "http://" + addr + "/", Direction: dir, Connections: 2, MaxBytes: budget, ContractDownMbps: 1, ContractUpMbps: 1,
		})
		left()
		if err != nil {
			t.Fatal(err)
		}
		r := res.Down
		if dir == throughput.Up {
			r = res.Up
		}
		if r.Verdict != throughput.Inconclusive || r.LimitedBy != throughput.LimitShort || r.Error != "the bytes that a test may move are used up" {
			t.Errorf("%s: %s by %s: %s", dir, r.Verdict, r.LimitedBy, r.Error)
		}
		if res.TestBytes < budget*3/4 || res.TestBytes > budget+256<<10 {
			t.Errorf("%s: moved %d of %d", dir, res.TestBytes, budget)
		}
	}
}

func TestRunLeavesABusyLineAlone(t *testing.T) {
	addr := endless(t, 1<<20)
	begin := time.Now()
	busy := func(context.Context, netip.Addr) (throughput.Line, error) {
		n := uint64(time.Since(begin).Seconds() * 3e6 / 8) // 3 Mbit/s
		return throughput.Line{Interface: "wan", Carrier: true, RxBytes: n, RxPackets: 0}, nil
	}
	var notes []string
	o := throughput.Options{
		URL: "http://" + addr + "/", Direction: throughput.Down, Patience: time.Second, Line: busy, WarmUp: time.Second, Window: time.Second,
		ContractDownMbps: 100, Note: func(s string) { notes = append(notes, s) },
	}
	res, err := throughput.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	const want = "others use the line (3.0 Mbit/s down, 0.0 up), and nobody agreed to a test meanwhile"
	if r := res.Down; r.Verdict != throughput.Inconclusive || r.LimitedBy != throughput.LimitCrossTraffic || r.Error != want || res.TestBytes != 0 {
		t.Errorf("%s by %s: %s", r.Verdict, r.LimitedBy, r.Error)
	}
	if text := strings.Join(notes, "\n"); !strings.Contains(text, "waiting up to 1s") {
		t.Errorf("notes: %s", text)
	}
	if testing.Short() {
		return
	}
	o.MayDisturb = true
	if res, err = throughput.Run(t.Context(), o); err != nil || res.Down.TCPMbps == nil {
		t.Errorf("with consent: %+v, %v", res.Down, err)
	}
	o.MayDisturb, o.ContractDownMbps = false, 1000 // of which it is little
	if res, err = throughput.Run(t.Context(), o); err != nil || res.Down.TCPMbps == nil {
		t.Errorf("on a fast line: %+v, %v", res.Down, err)
	}
	o.Line = func(context.Context, netip.Addr) (throughput.Line, error) {
		return throughput.Line{}, errors.New("no netlink")
	}
	if res, err = throughput.Run(t.Context(), o); err != nil || res.Down.Error != "cannot read the interface: no netlink" || res.TestBytes != 0 {
		t.Errorf("with no counters: %+v, %v", res.Down, err)
	}
}

// TestRunOnAGatewayThatIsTooBusy has looks at the interface that take too long:
// that is the gateway's doing, and no change of the link.
func TestRunOnAGatewayThatIsTooBusy(t *testing.T) {
	addr := endless(t, 1<<20)
	for name, from := range map[string]time.Duration{"from the start": 0, "later": 1500 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			res, err := throughput.Run(t.Context(), throughput.Options{
				URL: "http://" + addr + "/", Direction: throughput.Down, ContractDownMbps: 1,
				Line: func(ctx context.Context, _ netip.Addr) (throughput.Line, error) {
					if time.Since(began) >= from {
						<-ctx.Done()
						return throughput.Line{}, ctx.Err()
					}
					return throughput.Line{Interface: "wan", Carrier: true, SpeedMbps: 1000}, nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if r := res.Down; r.Verdict != throughput.Inconclusive || r.LimitedBy != throughput.LimitDeviceCPU {
				t.Errorf("%s by %s: %s", r.Verdict, r.LimitedBy, r.Error)
			}
		})
	}
}

func TestRunStopsWhenTheLinkChanges(t *testing.T) {
	addr := endless(t, 1<<20)
	left := nothingLeft(t)
	var wg sync.WaitGroup
	for _, tt := range []struct {
		want   string
		change func(*throughput.Line)
		err    error
	}{
		{want: "wan has no carrier any more", change: func(l *throughput.Line) { l.Carrier = false }},
		{want: "wan lost its carrier for a moment", change: func(l *throughput.Line) { l.CarrierChanges += 2 }},
		{want: "wan2 took the place of wan", change: func(l *throughput.Line) { l.Interface = "wan2" }},
		{want: "wan changed its speed from 1000 to 100 Mbit/s", change: func(l *throughput.Line) { l.SpeedMbps = 100 }},
		{want: "wan is gone: no such device", err: errors.New("no such device")},
	} {
		wg.Go(func() {
			began := time.Now()
			var changed time.Time
			res, err := throughput.Run(t.Context(), throughput.Options{
				URL: "http://" + addr + "/", Direction: throughput.Down, ContractDownMbps: 1,
				Line: func(context.Context, netip.Addr) (throughput.Line, error) {
					l := throughput.Line{Interface: "wan", Carrier: true, SpeedMbps: 1000}
					if time.Since(began) > 2*time.Second {
						if changed.IsZero() {
							changed = time.Now()
						}
						if tt.err != nil {
							return l, tt.err
						}
						tt.change(&l)
					}
					return l, nil
				},
			})
			if err != nil {
				t.Errorf("%s: %v", tt.want, err)
				return
			}
			if r := res.Down; r.Verdict != throughput.Inconclusive || r.LimitedBy != throughput.LimitLinkChanged || r.Error != tt.want || r.Reason != tt.want {
				t.Errorf("%s by %s: %s\nwant %s", r.Verdict, r.LimitedBy, r.Error, tt.want)
			}
			if late := time.Since(changed); late > time.Second {
				t.Errorf("%s: ended %v later", tt.want, late)
			}
		})
	}
	wg.Wait()
	left()
}

func TestRunWithOptionsThatCannotBeMeant(t *testing.T) {
	for want, o := range map[string]throughput.Options{
		`wrong options: direction "sideways": down, up or both`:                                                           {URL: "http://a/", Direction: "sideways"},
		`wrong options: layer "7": tcp, ip or ethernet`:                                                                   {URL: "http://a/", Layer: "7"},
		`wrong options: URL "": begins with neither http:// nor iperf3://`:                                                {},
		`wrong options: URL "https://a/": is HTTPS: a test is not encrypted, it would measure this device's cryptography`: {URL: "https://a/"},
		`wrong options: URL "http:///x": has no host`:                                                                     {URL: "http:///x"},
		`wrong options: URL "http://u:p@a/": has a password: there is no way to use one`:                                  {URL: "http://u:p@a/"},
		`wrong options: URL "http://a:99999/": has no such port: 1 to 65535`:                                              {URL: "http://a:99999/"},
		`wrong options: URL "http://a:/": has an empty port`:                                                              {URL: "http://a:/"},
		`wrong options: URL "http://a b/": not a URL`:                                                                     {URL: "http://a b/"},
		`wrong options: URL of the upload "ftp://a/": begins with neither http:// nor iperf3://`:                          {URL: "http://a/", UploadURL: "ftp://a/"},
		`wrong options: second URL "x": begins with neither http:// nor iperf3://`:                                        {URL: "http://a/", SecondURL: "x"},
		`wrong options: upload method "GET": POST or PUT`:                                                                 {URL: "http://a/", UploadMethod: "GET"},
		`wrong options: connections 17: 1 to 16`:                                                                          {URL: "http://a/", Connections: 17},
		`wrong options: window 10ms: 1s to 1m`:                                                                            {URL: "http://a/", Window: 10 * time.Millisecond},
		`wrong options: warm-up 1m0s: to 10s`:                                                                             {URL: "http://a/", WarmUp: time.Minute},
		`wrong options: patience -1s is negative`:                                                                         {URL: "http://a/", Patience: -time.Second},
		`wrong options: ratio 1.1: above 0, to 1`:                                                                         {URL: "http://a/", MinRatio: 1.1},
		`wrong options: contracted rate -1 Mbit/s (down)`:                                                                 {URL: "http://a/", ContractDownMbps: -1},
		`wrong options: contracted rate -2 Mbit/s (up)`:                                                                   {URL: "http://a/", ContractUpMbps: -2},
		`wrong options: VLAN tags 3: 0 to 2`:                                                                              {URL: "http://a/", Encapsulation: throughput.Encapsulation{VLANTags: 3}},
		`wrong options: tunnel of -1 bytes: 0 to 200`:                                                                     {URL: "http://a/", Encapsulation: throughput.Encapsulation{TunnelBytes: -1}},
		`wrong options: interface "a/b" is no name`:                                                                       {URL: "http://a/", Interface: "a/b"},
	} {
		if _, err := throughput.Run(t.Context(), o); !errors.Is(err, throughput.ErrOptions) || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestDuration(t *testing.T) {
	one := throughput.Options{Direction: throughput.Down}.Duration()
	both := throughput.Options{}.Duration()
	judged := throughput.Options{ContractDownMbps: 100}.Duration()
	if one < 20*time.Second || both != 2*one || judged < 3*both || judged > 12*time.Minute {
		t.Errorf("%v, %v, %v", one, both, judged)
	}
}
