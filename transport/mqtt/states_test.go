package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"ontagent/transport"
)

// TestDeviceStopsInEveryState: Serve ends within 3 s whatever it is doing.
func TestDeviceStopsInEveryState(t *testing.T) {
	frozen := func(at string) func(*testing.T) string { // a broker that answers up to a point
		return func(t *testing.T) string {
			t.Helper()
			return newStub(t, func(l *link) {
				if tcp, ok := l.Conn.(*net.TCPConn); ok {
					_ = tcp.SetReadBuffer(4096)
				}
				if at == "connect" {
					<-t.Context().Done()
				}
				l.accept()
				for {
					switch p := l.read().(type) {
					case *packets.SubscribePacket:
						if at == "subscribe" {
							<-t.Context().Done()
						}
						l.raw(0x90, 3, byte(p.MessageID>>8), byte(p.MessageID), 1)
					case *packets.PublishPacket:
						if strings.Contains(p.TopicName, at) {
							<-t.Context().Done()
						}
						l.puback(p.MessageID)
					case nil, *packets.DisconnectPacket:
						return
					}
				}
			}).url
		}
	}
	for _, tt := range []struct {
		name  string
		url   func(*testing.T) string
		queue int // entries of 90 KiB
		up    bool
	}{
		{"asleep", func(*testing.T) string { return "tcp://127.0.0.1:1" }, 0, false},
		{"TLS handshake", func(t *testing.T) string {
			t.Helper()
			return "ssl" + strings.TrimPrefix(newStub(t, (*link).swallow).url, "tcp")
		}, 0, false},
		{"WebSocket handshake", func(t *testing.T) string {
			t.Helper()
			return "ws" + strings.TrimPrefix(newStub(t, (*link).swallow).url, "tcp")
		}, 0, false},
		{"connecting", frozen("connect"), 0, false},
		{"subscribing", frozen("subscribe"), 0, false},
		{"greeting", frozen("/info"), 0, false},
		{"idle", frozen("nothing"), 0, true},
		{"waiting for an acknowledgement", frozen("/record"), 2, true},
		{"stuck in a write", frozen("/record"), 60, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			stamper, err := transport.NewStamper("HWTC12345678", 3, bootClock{time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			q := transport.NewRAMQueue(transport.RAMOptions{Stamper: stamper, MaxBytes: map[transport.Class]int{transport.ClassRecord: 64 << 20}, MaxTotal: 64 << 20})
			d, _ := testDevice(t, func(o *DeviceOptions) {
				o.Dial = Options{Broker: tt.url(t)}
				o.Stamper, o.Queue = stamper, q
				if tt.name == "asleep" {
					o.Backoff = Backoff{Spread: time.Hour}
				}
			})
			d.status.Window = maxWindow
			for range tt.queue {
				m := transport.Message{
					Class: transport.ClassRecord, Kind: transport.KindRecord, Name: "x",
					Body: fmt.Appendf(nil, `{"x":"%s"}`, strings.Repeat("x", 90<<10)),
				}
				if err := q.Put(t.Context(), m); err != nil {
					t.Error(err)
				}
			}
			stop := serve(t, d)
			if tt.up {
				eventually(t, "connected", func() bool { return d.Status().Connected })
			}
			time.Sleep(300 * time.Millisecond)
			start := time.Now()
			stop()
			if took := time.Since(start); took > stopTime+300*time.Millisecond {
				t.Errorf("stop took %v", took)
			}
			if n := depth(q); n != tt.queue {
				t.Errorf("%d left in the queue of %d, and nothing was acknowledged", n, tt.queue)
			}
		})
	}
}

// TestDeviceStuckHandler: a handler that does not return stops neither the
// stream nor a new connection, and is named when it has to be left behind.
func TestDeviceStuckHandler(t *testing.T) {
	release := make(chan struct{})
	noLeaks(t)
	t.Cleanup(func() { close(release) })
	s := newStub(t, func(l *link) {
		l.accept()
		n := 0
		l.behave(func(p *packets.PublishPacket) (bool, bool) {
			if strings.HasSuffix(p.TopicName, "/pending") {
				for range 100 {
					l.publish("ont/1/isp/HWTC12345678/cmd/x", []byte("{}"))
				}
			}
			n++
			return true, l.n > 0 || n < 6
		})
	})
	d, q := testDevice(t, func(o *DeviceOptions) {
		o.Dial.Broker = s.url
		o.Inbound = func(transport.Inbound) { <-release }
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx) }()
	queueTelemetry(t, q, 50)
	eventually(t, "all sent, over two connections", func() bool { return depth(q) == 0 && d.Status().Connections > 1 })
	eventually(t, "the rest dropped", func() bool { return d.Status().InboundDropped >= 100-inboundDepth-2 })
	cancel()
	start := time.Now()
	if err := <-done; !errors.Is(err, context.Canceled) || !errors.Is(err, errStuck) {
		t.Errorf("Serve = %v", err)
	}
	if took := time.Since(start); took > stopTime {
		t.Errorf("stop took %v", took)
	}
}

// TestDeviceOnline: true and false take turns, false comes before the next
// attempt, and an attempt that fails is not told.
func TestDeviceOnline(t *testing.T) {
	noLeaks(t)
	var mu sync.Mutex
	var got []string
	add := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, s)
	}
	s := newStub(t, func(l *link) {
		add(fmt.Sprint("attempt ", l.n))
		if l.n == 1 {
			return
		}
		l.accept()
		n := 0
		l.behave(func(*packets.PublishPacket) (bool, bool) {
			n++
			return true, n < 4 || l.n > 1 // the first three greet
		})
	})
	d, q := testDevice(t, func(o *DeviceOptions) {
		o.Dial.Broker = s.url
		o.Online = func(on bool) { add(fmt.Sprint(on)) }
	})
	stop := serve(t, d)
	eventually(t, "connected", func() bool { return d.Status().Connected })
	queueTelemetry(t, q, 1)
	eventually(t, "second connection", func() bool { return d.Status().Connections == 2 })
	stop()
	want := []string{"attempt 0", "true", "false", "attempt 1", "attempt 2", "true", "false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDeviceSetFromAfar(t *testing.T) {
	noLeaks(t)
	keepAlives := make(chan uint16, 100)
	s := newStub(t, func(l *link) {
		if c := l.accept(); c != nil {
			keepAlives <- c.Keepalive
		}
		l.behave(nil)
	})
	d, _ := testDevice(t, func(o *DeviceOptions) { o.Dial.Broker = s.url })
	for _, bad := range []Backoff{
		{Spread: -1}, {Spread: MaxSpread + 1}, {Cap: MaxCap + 1}, {Cap: -1}, {Base: -1}, {Base: MaxSpread + 1},
	} {
		if err := d.SetBackoff(bad); err == nil {
			t.Errorf("%+v accepted", bad)
		}
		o := d.o
		o.Backoff = bad
		if _, err := New(o); err == nil {
			t.Errorf("New accepted %+v", bad)
		}
	}
	for _, bad := range []time.Duration{0, -1, time.Second, MinKeepAlive - 1, MinKeepAlive + 1, MaxKeepAlive + time.Second} {
		if err := d.SetKeepAlive(bad); err == nil {
			t.Errorf("keepalive %v accepted", bad)
		}
	}
	serve(t, d)
	var wg sync.WaitGroup
	for i := range 20 { // while it is running
		wg.Go(func() {
			if err := errors.Join(d.SetBackoff(Backoff{Spread: time.Duration(i)}), d.SetKeepAlive(77*time.Second)); err != nil {
				t.Error(err)
			}
			_ = d.Status()
		})
	}
	wg.Wait()
	<-keepAlives
	eventually(t, "connected", func() bool { return d.Status().Connected })
	d.mu.Lock()
	conn := d.conn
	d.mu.Unlock()
	conn.lose(errors.New("test"))
	if k := <-keepAlives; k != 77 {
		t.Errorf("next connection has keepalive %d", k)
	}
	if k := d.Status().KeepAliveS; k != 77 {
		t.Errorf("status says keepalive %v", k)
	}
}

// TestPause: what follows an ended session.
func TestPause(t *testing.T) {
	b := Backoff{Spread: 30 * time.Second}
	half := func() float64 { return 0.5 }
	for _, tt := range []struct {
		name   string
		up     time.Duration
		err    error
		urgent bool
		want   time.Duration
	}{
		{"loss", time.Hour, ErrLost, false, 15 * time.Second},
		{"loss while an order is open", time.Hour, ErrLost, true, time.Second},
		{"network changed", time.Hour, fmt.Errorf("x: %w", errNetworkChanged), false, 15 * time.Second},
		{"network changed while an order is open", time.Hour, fmt.Errorf("x: %w", errNetworkChanged), true, 0},
		{"renewed", time.Hour, errRenewed, false, 0},
		{"failure", 0, ErrLost, false, 45 * time.Second},
		{"refused", 0, ErrRefusedCredentials, true, 450 * time.Second},
	} {
		if got := pause(NewPacer(b, half), tt.up, tt.err, tt.urgent); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
