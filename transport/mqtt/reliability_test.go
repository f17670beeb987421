package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"ontagent/transport"
)

// tell prints the line by which `make reliability` collects what was shown.
func tell(t *testing.T, property, variant string, trials int, ok bool, format string, args ...any) {
	t.Helper()
	verdict := "ok"
	if !ok {
		verdict = "FAIL"
		t.Errorf("%s, %s: failed", property, variant)
	}
	t.Logf("reliability: %s | %s | %d | %s | %s", property, variant, trials, fmt.Sprintf(format, args...), verdict)
}

// tellPeer prints the same test's result for somebody else's code.
func tellPeer(t *testing.T, property, variant string, trials int, format string, args ...any) {
	t.Helper()
	t.Logf("reliability: %s | %s | %d | %s | peer", property, variant, trials, fmt.Sprintf(format, args...))
}

func long() bool { return os.Getenv("LONG") == "1" }

// hole is a broker that works until it freezes: from then on it reads nothing
// and says nothing, and its TCP goes on.
type hole struct {
	*stub
	freeze  chan struct{}
	trickle bool // frozen, it sends a byte now and then, of a packet that never ends
}

func newHole(t *testing.T, scheme string) *hole {
	t.Helper()
	h := &hole{freeze: make(chan struct{})}
	h.stub = newStub(t, func(l *link) {
		if tcp, ok := l.Conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4096)
		}
		if scheme == "ws" {
			if l = l.upgrade(); l == nil {
				return
			}
		}
		go func() {
			<-h.freeze
			_ = l.SetReadDeadline(time.Unix(1, 0))
		}()
		l.accept()
		l.behave(nil)
		<-h.freeze
		if h.trickle {
			l.raw(header(0x30, 60000)...)
			for range 600 {
				l.raw('x')
				select {
				case <-time.After(250 * time.Millisecond):
				case <-t.Context().Done():
				}
			}
		}
		<-t.Context().Done()
	})
	h.url = scheme + h.url[len("tcp"):]
	return h
}

// TestReliabilityBlackHole: a broker that stops reading and answering while its
// TCP stays open is found within keepalive and 20 s, whatever is under way.
func TestReliabilityBlackHole(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as a keepalive and a ping")
	}
	const promise = 20 * time.Second
	keepAlives, trials := []time.Duration{time.Second}, 4
	if long() {
		keepAlives, trials = []time.Duration{time.Second, 5 * time.Second, 12 * time.Second, 30 * time.Second}, 12
	}
	big := make([]byte, 1<<20)
	publish := func(ctx context.Context, c *Conn, size int) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for c.Publish(ctx, "t", 1, false, big[:size]) == nil {
				}
			})
		}
		wg.Wait()
	}
	type look func(t *testing.T, h *hole, keepAlive time.Duration) (lost <-chan struct{})
	ours := func(work func(context.Context, *Conn)) look {
		return func(t *testing.T, h *hole, keepAlive time.Duration) <-chan struct{} {
			t.Helper()
			c := mustDial(t, Options{Broker: h.url, ClientID: "HWTC12345678", KeepAlive: keepAlive})
			var wg sync.WaitGroup
			t.Cleanup(wg.Wait)
			if work != nil {
				wg.Go(func() { work(context.Background(), c) })
			}
			return c.Lost()
		}
	}
	device := func(entries int) look {
		return func(t *testing.T, h *hole, keepAlive time.Duration) <-chan struct{} {
			t.Helper()
			gone := make(chan struct{})
			up := make(chan struct{})
			var first, last sync.Once
			d, q := testDevice(t, func(o *DeviceOptions) {
				o.Dial = Options{Broker: h.url, KeepAlive: keepAlive}
				o.Backoff = Backoff{Base: time.Hour, Cap: time.Hour}
				o.Online = func(on bool) {
					first.Do(func() { close(up) })
					if !on {
						last.Do(func() { close(gone) })
					}
				}
			})
			serve(t, d)
			<-up
			for range entries {
				m := transport.Message{
					Class: transport.ClassRecord, Kind: transport.KindRecord, Name: "x",
					Body: fmt.Appendf(nil, `{"x":"%s"}`, bytes.Repeat([]byte("x"), 90<<10)),
				}
				if err := q.Put(context.Background(), m); err != nil {
					t.Error(err)
				}
			}
			return gone
		}
	}
	peer := func(size int) look {
		return func(t *testing.T, h *hole, keepAlive time.Duration) <-chan struct{} {
			t.Helper()
			gone := make(chan struct{})
			var once sync.Once
			o := paho.NewClientOptions().AddBroker(h.url).SetKeepAlive(keepAlive).
				SetConnectionLostHandler(func(paho.Client, error) { once.Do(func() { close(gone) }) })
			c := paho.NewClient(o)
			if token := c.Connect(); token.Wait() && token.Error() != nil {
				t.Fatal(token.Error())
			}
			t.Cleanup(func() { c.Disconnect(0) })
			if size > 0 {
				for range 16 {
					go c.Publish("t", 1, false, big[:size])
				}
			}
			return gone
		}
	}
	var results []*result
	var wg sync.WaitGroup
	for _, v := range []struct {
		name    string
		scheme  string
		trickle bool
		look    look
		peer    bool
	}{
		{"idle", "tcp", false, ours(nil), false},
		{"full send buffer", "tcp", false, ours(func(ctx context.Context, c *Conn) { publish(ctx, c, len(big)) }), false},
		{"small messages", "tcp", false, ours(func(ctx context.Context, c *Conn) { publish(ctx, c, 10) }), false},
		{"WebSocket, full send buffer", "ws", false, ours(func(ctx context.Context, c *Conn) { publish(ctx, c, len(big)) }), false},
		{"packet that never ends", "tcp", true, ours(nil), false},
		{"device, idle", "tcp", false, device(0), false},
		{"device, records of 90 KiB", "tcp", false, device(64), false},
		{"paho with its defaults, idle", "tcp", false, peer(0), true},
		{"paho with its defaults, full send buffer", "tcp", false, peer(len(big)), true},
	} {
		n := trials
		if v.peer {
			n = 2
		}
		r := &result{name: v.name, peer: v.peer, total: n * len(keepAlives), slack: promise}
		results = append(results, r)
		for i := range r.total {
			keepAlive := keepAlives[i%len(keepAlives)]
			h := newHole(t, v.scheme)
			h.trickle = v.trickle
			lost := v.look(t, h, keepAlive)
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 130 * time.Millisecond) // at different times of the library's ticks
				start := time.Now()
				close(h.freeze)
				limit := time.NewTimer(keepAlive + promise)
				defer limit.Stop()
				select {
				case <-lost:
				case <-limit.C:
					r.add(0, false)
					return
				}
				r.add(keepAlive+promise-time.Since(start), true)
			})
		}
	}
	wg.Wait()
	for _, r := range results {
		late := (promise - r.slack).Seconds()
		switch {
		case r.peer && r.unseen > 0:
			tellPeer(t, "black-hole", r.name, r.total, "not found within keepalive + %v in %d of %d", promise, r.unseen, r.total)
		case r.peer:
			tellPeer(t, "black-hole", r.name, r.total, "found %.1f s after keepalive at worst", late)
		default:
			tell(t, "black-hole", r.name, r.total, r.unseen == 0 && r.slack >= 0,
				"found %.1f s after keepalive at worst (promise 20 s), %d not found", late, r.unseen)
		}
	}
}

// result is what the trials of a variant showed.
type result struct {
	name  string
	peer  bool
	total int

	mu     sync.Mutex
	slack  time.Duration // least time left to the promise; guarded by mu
	unseen int           // guarded by mu
}

func (r *result) add(slack time.Duration, seen bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !seen {
		r.unseen++
		return
	}
	r.slack = min(r.slack, slack)
}

// flood is a broker that sends the packet so many times, then "end".
func flood(t *testing.T, packet []byte, total int, sent chan<- struct{}) *stub {
	t.Helper()
	burst := max(1, min(total, 32<<10/len(packet)))
	many := bytes.Repeat(packet, burst)
	return newStub(t, func(l *link) {
		l.accept()
		go l.behave(nil)
		for left := total; left > 0; left -= burst {
			l.raw(many[:min(left, burst)*len(packet)]...)
		}
		l.publish("end", nil)
		sent <- struct{}{}
		<-t.Context().Done()
	})
}

// memory is what the heap and the stacks take.
func memory() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// growth runs f and returns by how much memory grew at most.
func growth(f func()) float64 {
	runtime.GC()
	debug.FreeOSMemory()
	before, most := memory(), uint64(0)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			most = max(most, memory())
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	f()
	close(done)
	wg.Wait()
	return (float64(most) - float64(before)) / (1 << 20)
}

func publishPacket(t *testing.T, topic string, size int) []byte {
	t.Helper()
	p, ok := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	if !ok {
		t.Fatal("not a PUBLISH")
	}
	p.TopicName, p.Payload = topic, bytes.Repeat([]byte("x"), size)
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestReliabilityMemoryOfFlood: what a broker sends while nobody takes it is
// dropped and counted, and takes no memory beyond a bound.
func TestReliabilityMemoryOfFlood(t *testing.T) {
	total := 100_000
	if testing.Short() {
		total = 5_000
	}
	// MiB that are in use: 2 that wait, and buffers. Garbage comes on top, as
	// fast as loopback is faster than the collector; it is shown, not judged.
	const bound = 6.0
	const topic = "ont/1/isp/HWTC12345678/cmd/x"
	small, large := publishPacket(t, topic, 100), publishPacket(t, topic, 60<<10)

	for _, v := range []struct {
		name   string
		packet []byte
		n      int
	}{
		{"inbound flood of 100 B", small, total},
		{"inbound flood of 60 KiB", large, total / 50},
	} {
		t.Run(v.name, func(t *testing.T) {
			noLeaks(t)
			// The daemon sets the same.
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(18 << 20))
			defer debug.SetGCPercent(debug.SetGCPercent(40))
			sent := make(chan struct{}, 1)
			s := flood(t, v.packet, v.n, sent)
			release := make(chan struct{})
			d, _ := testDevice(t, func(o *DeviceOptions) {
				o.Dial.Broker = s.url
				o.Inbound = func(transport.Inbound) { <-release }
			})
			goroutines, held := 0, 0.0
			most := growth(func() {
				runtime.GC()
				before := memory()
				serve(t, d)
				<-sent
				eventually(t, "flood dropped", func() bool {
					goroutines = max(goroutines, runtime.NumGoroutine())
					return d.Status().InboundDropped >= uint64(v.n-inboundDepth-4)
				})
				runtime.GC()
				debug.FreeOSMemory()
				held = (float64(memory()) - float64(before)) / (1 << 20)
			})
			close(release)
			tell(t, "memory", v.name, v.n, held <= bound && goroutines < 60,
				"holds %.1f MiB more (bound %.0f), %.1f with garbage at worst, %d goroutines, %d dropped and counted",
				held, bound, most, goroutines, d.Status().InboundDropped)
		})
	}

	t.Run("peer", func(t *testing.T) {
		sent := make(chan struct{}, 1)
		s := flood(t, small, total, sent)
		release := make(chan struct{})
		o := paho.NewClientOptions().AddBroker(s.url).SetOrderMatters(false).SetAutoReconnect(false).
			SetDefaultPublishHandler(func(paho.Client, paho.Message) { <-release })
		c := paho.NewClient(o)
		goroutines := 0
		grown := growth(func() {
			if token := c.Connect(); token.Wait() && token.Error() != nil {
				t.Fatal(token.Error())
			}
			<-sent
			eventually(t, "flood taken", func() bool {
				goroutines = max(goroutines, runtime.NumGoroutine())
				return goroutines > total
			})
		})
		close(release)
		c.Disconnect(100)
		tellPeer(t, "memory", "paho, OrderMatters(false), inbound flood of 100 B", total, "grew by %.1f MiB, %d goroutines", grown, goroutines)
	})
}

// TestReliabilityMemoryOfHeader: a header of five bytes announces 256 MB.
func TestReliabilityMemoryOfHeader(t *testing.T) {
	evil := []byte{0x30, 0xff, 0xff, 0xff, 0x7f}
	allocated := func(f func()) float64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc-before.TotalAlloc) / (1 << 20)
	}
	trials := 100
	if testing.Short() {
		trials = 5
	}
	var worst float64
	good := true
	for range trials {
		s := newStub(t, func(l *link) {
			l.accept()
			l.raw(evil...)
			l.swallow()
		})
		worst = max(worst, allocated(func() {
			c, err := Dial(testContext(t), testOptions(s.url))
			if err == nil { // as a rule: not if the header came with CONNACK
				wantLost(t, c)
				err = c.Err()
				shut(t, c)
			}
			good = good && errors.Is(err, ErrPacketTooLarge)
		}))
	}
	tell(t, "memory", "header announcing 256 MB", trials, good && worst < 1, "at most %.2f MiB allocated, connection ended", worst)
	if testing.Short() {
		return
	}
	took := allocated(func() { _, _ = packets.ReadPacket(bytes.NewReader(slices.Clone(evil))) })
	debug.FreeOSMemory()
	tellPeer(t, "memory", "paho, header announcing 256 MB", 1, "%.0f MiB allocated", took)
}
