package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"ontagent/transport"
	"ontagent/transport/mqtt"
)

// clock is the machine's, in which nothing is out of order.
type clock struct{ start time.Time }

func (clock) Wall() (int64, string)   { return time.Now().UnixMilli(), transport.ClockNTP }
func (c clock) Uptime() time.Duration { return time.Since(c.start) }

// gateway is the transport of an ontagent: queue and session, as the daemon
// wires them.
type gateway struct {
	t      *testing.T
	queue  *transport.RAMQueue
	device *mqtt.Device

	mu      sync.Mutex
	inbound []transport.Inbound // guarded by mu
}

// startGateway connects a gateway until the test ends, or stop is called.
// answer, unless nil, is called for what comes.
func startGateway(t *testing.T, dialled mqtt.Options, answer func(*gateway, transport.Inbound)) (g *gateway, stop func()) {
	t.Helper()
	stamper, err := transport.NewStamper(ours, 7, clock{time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	g = &gateway{t: t}
	limits := map[transport.Class]int{transport.ClassEvent: 1 << 16, transport.ClassTelemetry: 1 << 16, transport.ClassRecord: 1 << 16}
	bytes := map[transport.Class]int{transport.ClassEvent: 64 << 20, transport.ClassTelemetry: 64 << 20, transport.ClassRecord: 64 << 20}
	g.queue = transport.NewRAMQueue(transport.RAMOptions{Stamper: stamper, MaxEntries: limits, MaxBytes: bytes, MaxTotal: 256 << 20})
	g.device, err = mqtt.New(mqtt.DeviceOptions{
		Dial: dialled, Tenant: tenant, Stamper: stamper, Queue: g.queue,
		Birth: func() json.RawMessage { return json.RawMessage(`{"model":"X"}`) },
		Inbound: func(in transport.Inbound) {
			g.mu.Lock()
			g.inbound = append(g.inbound, in)
			g.mu.Unlock()
			if answer != nil {
				answer(g, in)
			}
		},
		Backoff: mqtt.Backoff{Base: 100 * time.Millisecond, Cap: time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.device.Serve(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return g, stop
}

func (g *gateway) put(class transport.Class, kind transport.Kind, name string, body any) {
	g.t.Helper()
	raw, err := json.Marshal(body)
	if err == nil {
		err = g.queue.Put(context.Background(), transport.Message{Class: class, Kind: kind, Name: name, Body: raw})
	}
	if err != nil {
		g.t.Error(err) // may be another goroutine
	}
}

// depth returns how many messages wait.
func (g *gateway) depth() int {
	n := 0
	for _, s := range g.queue.Stats() {
		n += s.Depth
	}
	return n
}

func (g *gateway) heard(kind transport.Kind, name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, in := range g.inbound {
		if in.Kind == kind && in.Name == name {
			return true
		}
	}
	return false
}

// count returns how many messages came for the gateway.
func (g *gateway) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.inbound)
}

// number is what tells one message from another.
type number struct {
	epoch uint64
	class transport.Class
	seq   uint64
}

// missing returns which of the first n messages of a class did not come, and
// how many came more than once.
func missing(all map[number]int, class transport.Class, n int) (gone []uint64, again int) {
	for seq := uint64(1); seq <= uint64(n); seq++ {
		switch all[number{7, class, seq}] {
		case 0:
			gone = append(gone, seq)
		case 1:
		default:
			again++
		}
	}
	return gone, again
}

// body is something to send.
func body(i int) map[string]any {
	return map[string]any{"subject": "eth0", "what": fmt.Sprint("change ", i)}
}
