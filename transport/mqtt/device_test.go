package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"ontagent/transport"
)

// serve runs d until the returned function is called, which waits for its end.
func serve(t *testing.T, d *Device) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Serve = %v", err)
				}
			case <-time.After(15 * time.Second):
				t.Error("Serve did not end")
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func queueTelemetry(t *testing.T, q transport.Queue, n int) {
	t.Helper()
	for i := range n {
		m := transport.Message{
			Class: transport.ClassTelemetry, Kind: transport.KindTelemetry, Name: "link",
			Body: fmt.Appendf(nil, `{"n":%d}`, i),
		}
		if err := q.Put(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func depth(q transport.Queue) int {
	n := 0
	for _, s := range q.Stats() {
		n += s.Depth
	}
	return n
}

// heard collects what a broker was sent.
type heard struct {
	mu   sync.Mutex
	got  []string       // topic, retain, payload less the times
	seqs map[string]int // how often each class/seq came
	acks map[string]int // how often each was acknowledged
}

func (h *heard) add(t *testing.T, p *packets.PublishPacket, ack bool) {
	t.Helper()
	head, body, err := transport.Decode(p.Payload)
	if err != nil {
		t.Errorf("malformed message on %s: %v", p.TopicName, err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seqs == nil {
		h.seqs, h.acks = map[string]int{}, map[string]int{}
	}
	key := fmt.Sprintf("%s/%d", head.Class, head.Seq)
	h.got = append(h.got, fmt.Sprintf("%s %v %s %s", strings.TrimPrefix(p.TopicName, "ont/1/isp/HWTC12345678/"), p.Retain, key, body))
	h.seqs[key]++
	if ack {
		h.acks[key]++
	}
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.got...)
}

func TestDeviceGreetsPumpsAndSaysGoodbye(t *testing.T) {
	noLeaks(t)
	var h heard
	var will *packets.ConnectPacket
	var filters []string
	ended := make(chan struct{})
	s := newStub(t, func(l *link) {
		defer close(ended)
		will = l.accept()
		for {
			switch p := l.read().(type) {
			case *packets.SubscribePacket:
				h.mu.Lock()
				filters = append(filters, p.Topics...)
				h.mu.Unlock()
				l.raw(0x90, 3, byte(p.MessageID>>8), byte(p.MessageID), 1)
			case *packets.PublishPacket:
				h.add(t, p, true)
				l.puback(p.MessageID)
			default:
				return
			}
		}
	})
	d, q := testDevice(t, func(o *DeviceOptions) {
		o.Dial.Broker = s.url
		o.Birth = func() json.RawMessage { return json.RawMessage(`{"model":"X"}`) }
		o.Session = func() uint64 { return 41 }
	})
	queueTelemetry(t, q, 1)
	stop := serve(t, d)
	eventually(t, "backlog sent", func() bool { return depth(q) == 0 })
	queueTelemetry(t, q, 1)
	eventually(t, "live sent", func() bool { return depth(q) == 0 })
	status := d.Status()
	if !status.Connected || status.Session != 41 || status.Published != 2 || status.InFlight != 0 ||
		status.Attempts != 1 || status.BytesOut == 0 || status.BytesIn == 0 || status.LastError != "" {
		t.Errorf("status %+v", status)
	}
	stop()
	<-ended
	want := []string{
		`state true session/2 {"state":"online","session":41}`,
		`info true session/3 {"model":"X"}`,
		`pending false session/4 {"session":41}`,
		`backfill/link false telemetry/1 {"n":0}`,
		`telemetry/link false telemetry/2 {"n":0}`,
		`state true session/5 {"state":"offline","session":41}`,
	}
	if diff := cmp.Diff(want, h.all()); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	if len(filters) != 3 {
		t.Errorf("subscribed to %q", filters)
	}
	head, body, err := transport.Decode(will.WillMessage)
	if err != nil || string(body) != `{"state":"offline","session":41}` || head.Seq != 1 ||
		will.WillTopic != "ont/1/isp/HWTC12345678/state" || !will.WillRetain || will.WillQos != 1 {
		t.Errorf("will %s %s %v", will.WillTopic, will.WillMessage, err)
	}
	if s := d.Status(); s.Connected {
		t.Errorf("status after the end %+v", s)
	}
}

func TestDeviceInboundOnlyItsOwn(t *testing.T) {
	noLeaks(t)
	s := newStub(t, func(l *link) {
		l.accept()
		l.behave(func(p *packets.PublishPacket) (bool, bool) {
			if !strings.HasSuffix(p.TopicName, "/pending") {
				return true, true
			}
			const me = "ont/1/isp/HWTC12345678/"
			for _, topic := range []string{
				"ont/1/isp/HWTC87654321/cmd/a", "ont/1/other/HWTC12345678/cmd/a", me + "state", me + "record/x",
				me + "cmd", me + "cmd/a/b", me + "cmd/$x", "x", me + "cfg/x",
			} {
				l.publish(topic, []byte("bad"))
			}
			retained, _ := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
			retained.TopicName, retained.Retain = me+"cmd/old", true
			_ = retained.Write(l)
			l.publish(me+"cmd/c-1", []byte("do"))
			l.publish(me+"cfg", []byte("\xff"))
			l.publish(me+"ack", nil)
			return true, true
		})
	})
	got := make(chan string, 20)
	d, _ := testDevice(t, func(o *DeviceOptions) {
		o.Dial.Broker = s.url
		o.Inbound = func(in transport.Inbound) { got <- fmt.Sprintf("%s %s %q", in.Kind, in.Name, in.Payload) }
	})
	serve(t, d)
	for _, want := range []string{`cmd c-1 "do"`, `cfg  "\xff"`, `ack  ""`} {
		select {
		case g := <-got:
			if g != want {
				t.Errorf("got %s, want %s", g, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s never came", want)
		}
	}
	if s := d.Status(); s.InboundRefused != 10 {
		t.Errorf("%d refused, want 10", s.InboundRefused)
	}
}

// TestDeviceConservesOnBadLine: a broker that dies after a random packet, again
// and again. Everything queued is acknowledged in the end, and nothing that
// was acknowledged on a connection is sent on a later one.
func TestDeviceConservesOnBadLine(t *testing.T) {
	noLeaks(t)
	const total = 400
	var h heard
	s := newStub(t, func(l *link) {
		l.accept()
		left := 4 + l.n%23
		l.behave(func(p *packets.PublishPacket) (bool, bool) {
			left--
			ack := left > 0 && (l.n+left)%7 != 0 || l.n > 30 // some PUBACKs get lost with the line
			h.add(t, p, ack)
			return ack, left > 0 || l.n > 30
		})
	})
	d, q := testDevice(t, func(o *DeviceOptions) {
		o.Dial.Broker = s.url
		o.Dial.AckTimeout = 100 * time.Millisecond
		o.Backoff = Backoff{Base: time.Millisecond, Cap: time.Millisecond}
	})
	stop := serve(t, d)
	queueTelemetry(t, q, total)
	eventually(t, "all acknowledged", func() bool { return depth(q) == 0 })
	stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	for seq := 1; seq <= total; seq++ {
		key := fmt.Sprintf("telemetry/%d", seq)
		if h.acks[key] == 0 {
			t.Errorf("%s was released, but never acknowledged", key)
		}
	}
	if n := d.Status().Connections; n < 10 {
		t.Errorf("only %d connections: the line was too good", n)
	}
}

// TestDeviceWindowIsBounded: a broker that acknowledges only when everything in
// flight has come. The window grows one by one, never beyond its end.
func TestDeviceWindowIsBounded(t *testing.T) {
	noLeaks(t)
	var mu sync.Mutex
	most := 0
	s := newStub(t, func(l *link) {
		l.accept()
		var ids []uint16
		var last []string
		due := startWindow
		l.behave(func(p *packets.PublishPacket) (bool, bool) {
			if p.TopicName != "ont/1/isp/HWTC12345678/backfill/link" {
				return true, true
			}
			last = append(last, string(p.Payload))
			ids = append(ids, p.MessageID)
			mu.Lock()
			most = max(most, len(ids))
			mu.Unlock()
			if len(ids) < due {
				return false, true
			}
			_ = l.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // one more would come now
			if _, err := l.r.Peek(1); err == nil {
				_ = l.SetReadDeadline(time.Time{})
				due++
				return false, true
			}
			_ = l.SetReadDeadline(time.Time{})
			for _, id := range ids {
				l.puback(id)
			}
			ids = nil
			return false, true
		})
	})
	d, q := testDevice(t, func(o *DeviceOptions) { o.Dial.Broker = s.url })
	queueTelemetry(t, q, 760)
	serve(t, d)
	end := maxWindow
	if testing.Short() {
		end = startWindow + 4
	}
	eventually(t, "window at its end", func() bool { return d.Status().Window >= end })
	mu.Lock()
	defer mu.Unlock()
	if most < startWindow || most > maxWindow {
		t.Errorf("%d in flight, want %d to %d", most, startWindow, maxWindow)
	}
}

func TestDeviceStopIsBounded(t *testing.T) {
	noLeaks(t)
	s := newStub(t, func(l *link) {
		l.accept()
		l.behave(func(p *packets.PublishPacket) (bool, bool) {
			return strings.Contains(p.TopicName, "state") || strings.Contains(p.TopicName, "info") || strings.Contains(p.TopicName, "pending"), true
		})
	})
	d, q := testDevice(t, func(o *DeviceOptions) { o.Dial.Broker = s.url })
	queueTelemetry(t, q, 40)
	stop := serve(t, d)
	eventually(t, "window full", func() bool { return d.Status().InFlight == startWindow })
	start := time.Now()
	stop()
	if took := time.Since(start); took > stopTime+500*time.Millisecond {
		t.Errorf("stop took %v", took)
	}
	if n := depth(q); n != 40 {
		t.Errorf("%d left in the queue, want 40: nothing was acknowledged", n)
	}
	// Nothing is leased any more.
	for range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := q.Next(ctx); err != nil {
			t.Fatal("an entry stayed leased")
		}
		cancel()
	}
}

// TestDeviceStoppedWhileGreeting: "online" is out already, so the broker must
// be left to publish the will.
func TestDeviceStoppedWhileGreeting(t *testing.T) {
	noLeaks(t)
	greeting, ended := make(chan struct{}), make(chan bool, 1)
	s := newStub(t, func(l *link) {
		l.accept()
		for {
			switch p := l.read().(type) {
			case *packets.SubscribePacket:
				l.raw(0x90, 3, byte(p.MessageID>>8), byte(p.MessageID), 1)
			case *packets.PublishPacket:
				if strings.HasSuffix(p.TopicName, "/info") {
					close(greeting)
					continue
				}
				l.puback(p.MessageID)
			case *packets.DisconnectPacket:
				ended <- true
				return
			case nil:
				ended <- false
				return
			}
		}
	})
	d, _ := testDevice(t, func(o *DeviceOptions) { o.Dial.Broker = s.url })
	stop := serve(t, d)
	<-greeting
	stop()
	if <-ended {
		t.Error("said DISCONNECT: the retained state stays online")
	}
}

func TestDeviceFlushesWhenStopped(t *testing.T) {
	noLeaks(t)
	var h heard
	s := newStub(t, func(l *link) {
		l.accept()
		l.behave(func(p *packets.PublishPacket) (bool, bool) {
			time.Sleep(time.Millisecond)
			h.add(t, p, true)
			return true, true
		})
	})
	d, q := testDevice(t, func(o *DeviceOptions) { o.Dial.Broker = s.url })
	stop := serve(t, d)
	eventually(t, "connected", func() bool { return d.Status().Connected })
	queueTelemetry(t, q, 100)
	stop()
	if n := depth(q); n != 0 {
		t.Errorf("%d left in the queue", n)
	}
	got := h.all()
	if last := got[len(got)-1]; !strings.Contains(last, "offline") {
		t.Errorf("last message %s", last)
	}
}

func TestDeviceUnfitEntryDoesNotBlock(t *testing.T) {
	noLeaks(t)
	s := newStub(t, func(l *link) {
		l.accept()
		l.behave(nil)
	})
	d, q := testDevice(t, func(o *DeviceOptions) {
		o.Dial.Broker = s.url
		o.Queue = &poisoned{Queue: o.Queue}
	})
	queueTelemetry(t, q, 2)
	serve(t, d)
	eventually(t, "sent", func() bool { return depth(q) == 0 })
	if s := d.Status(); s.Unfit != 1 || s.Published != 1 {
		t.Errorf("status %+v", s)
	}
}

// poisoned spoils the first entry.
type poisoned struct {
	transport.Queue
	once sync.Once
}

func (p *poisoned) Next(ctx context.Context) (transport.Entry, error) {
	e, err := p.Queue.Next(ctx)
	if err == nil {
		p.once.Do(func() { e.Message.Body = json.RawMessage(`{`) })
	}
	return e, err
}

func TestNewRefusesUnusable(t *testing.T) {
	stamper, err := transport.NewStamper("HWTC12345678", 3, bootClock{time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	q := transport.NewRAMQueue(transport.RAMOptions{Stamper: stamper})
	ok := DeviceOptions{Dial: Options{Broker: "tcp://localhost"}, Tenant: "isp", Stamper: stamper, Queue: q}
	if _, err := New(ok); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*DeviceOptions){
		"broker":  func(o *DeviceOptions) { o.Dial.Broker = "x" },
		"tenant":  func(o *DeviceOptions) { o.Tenant = "a/b" },
		"stamper": func(o *DeviceOptions) { o.Stamper = nil },
		"queue":   func(o *DeviceOptions) { o.Queue = nil },
	} {
		o := ok
		edit(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
