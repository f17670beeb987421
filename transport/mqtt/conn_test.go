package mqtt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestConnPublishAndReceive(t *testing.T) {
	noLeaks(t)
	var got *packets.ConnectPacket
	var topics []string
	done := make(chan struct{})
	s := newStub(t, func(l *link) {
		defer close(done)
		got = l.accept()
		l.behave(func(p *packets.PublishPacket) (bool, bool) {
			topics = append(topics, fmt.Sprintf("%s %d %v %s", p.TopicName, p.Qos, p.Retain, p.Payload))
			l.publish("down", []byte("hello"))
			return true, true
		})
	})
	o := testOptions(s.url)
	o.Username, o.Password = "u", "p"
	o.Will = &Will{Topic: "w", Payload: []byte("gone"), Retain: true}
	c := mustDial(t, o)
	ctx := testContext(t)
	if err := c.Subscribe(ctx, "a/+", "b"); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(ctx, "up", 1, true, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if p := <-c.Inbound(); p.Topic != "down" || string(p.Payload) != "hello" || p.Retained {
		t.Errorf("received %+v", p)
	}
	if err := c.Publish(ctx, "up0", 0, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Err(); err != nil {
		t.Errorf("Err of a living connection: %v", err)
	}
	shut(t, c)
	<-done
	if want := []string{"up 1 true x", "up0 0 false "}; fmt.Sprint(topics) != fmt.Sprint(want) {
		t.Errorf("broker got %q, want %q", topics, want)
	}
	if got.ClientIdentifier != o.ClientID || got.ProtocolVersion != 4 || !got.CleanSession || got.Keepalive != 120 ||
		got.WillTopic != "w" || got.WillQos != 1 || !got.WillRetain || string(got.WillMessage) != "gone" ||
		got.Username != "u" || string(got.Password) != "p" {
		t.Errorf("CONNECT is %v", got)
	}
	if in, out := c.Bytes(); in == 0 || out == 0 {
		t.Errorf("bytes %d, %d", in, out)
	}
	if !errors.Is(c.Err(), net.ErrClosed) {
		t.Errorf("Err after Close: %v", c.Err())
	}
	if err := c.Publish(ctx, "up", 1, false, nil); !errors.Is(err, ErrLost) {
		t.Errorf("Publish after Close: %v", err)
	}
}

func TestDialRefusals(t *testing.T) {
	for code, want := range map[byte]error{
		1: ErrRefusedProtocol, 2: ErrRefusedClientID, 3: ErrServerUnavailable,
		4: ErrRefusedCredentials, 5: ErrNotAuthorized, 6: ErrProtocol, 77: ErrProtocol,
		0xfe: ErrProtocol, 0xff: ErrProtocol,
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			noLeaks(t)
			attempts := make(chan int, 9)
			s := newStub(t, func(l *link) {
				attempts <- l.n
				l.read()
				l.raw(0x20, 2, 0, code)
				l.swallow()
			})
			_, err := Dial(testContext(t), testOptions(s.url))
			if !errors.Is(err, want) {
				t.Errorf("Dial = %v, want %v", err, want)
			}
			if n := len(attempts); n != 1 {
				t.Errorf("%d attempts for one Dial", n)
			}
		})
	}
}

// TestDialGarbage holds Dial to an error, in time, whatever comes.
func TestDialGarbage(t *testing.T) {
	tests := []struct {
		name string
		send []byte
		want error
	}{
		{"nothing and end", nil, nil},
		{"http", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), ErrProtocol},
		{"tls alert", []byte{0x15, 3, 1, 0, 2, 2, 40}, ErrProtocol},
		{"publish first", []byte{0x30, 3, 0, 1, 'a'}, ErrProtocol},
		{"puback first", []byte{0x40, 2, 0, 1}, ErrProtocol},
		{"long connack", []byte{0x20, 3, 0, 0, 0}, ErrProtocol},
		{"short connack", []byte{0x20, 1, 0}, ErrProtocol},
		{"connack with flags", []byte{0x21, 2, 0, 0}, ErrProtocol},
		{"connack with session", []byte{0x20, 2, 1, 0}, ErrProtocol},
		{"length of five bytes", []byte{0x20, 0x80, 0x80, 0x80, 0x80, 1}, ErrProtocol},
		{"256 MB connack", []byte{0x20, 0xff, 0xff, 0xff, 0x7f}, ErrPacketTooLarge},
		{"zeros", make([]byte, 100), ErrProtocol},
		{"cut connack", []byte{0x20, 2, 0}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			s := newStub(t, func(l *link) {
				l.read()
				l.raw(tt.send...)
			})
			c, err := Dial(testContext(t), testOptions(s.url))
			if err == nil {
				t.Fatalf("Dial succeeded: %v", c.Err())
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Dial = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestDialBlackHole(t *testing.T) {
	noLeaks(t)
	s := newStub(t, (*link).swallow)
	o := testOptions(s.url)
	o.ConnectTimeout = 200 * time.Millisecond
	if _, err := Dial(testContext(t), o); !errors.Is(err, ErrTimeout) {
		t.Errorf("Dial = %v, want ErrTimeout", err)
	}
	o.ConnectTimeout = 0
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := Dial(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial = %v, want context.Canceled", err)
	}
}

// TestConnHostilePackets sends what no broker may send on a living connection.
// It must end, without a panic and without the memory announced.
func TestConnHostilePackets(t *testing.T) {
	tests := []struct {
		name string
		send []byte
		want error
	}{
		{"256 MB", []byte{0x30, 0xff, 0xff, 0xff, 0x7f}, ErrPacketTooLarge},
		{"above the limit", header(0x30, DefaultMaxPacket+1), ErrPacketTooLarge},
		{"suback with two codes", []byte{0x90, 4, 0, 1, 0, 0}, ErrProtocol},
		{"suback with 300 codes", append(header(0x90, 302), make([]byte, 302)...), ErrProtocol},
		{"suback twice", []byte{0x90, 3, 0, 1, 1, 0x90, 3, 0, 1, 1}, ErrProtocol},
		{"suback for another", []byte{0x90, 3, 0, 2, 1}, ErrProtocol},
		{"second connack", []byte{0x20, 2, 0, 0}, ErrProtocol},
		{"connect", []byte{0x10, 2, 0, 0}, ErrProtocol},
		{"type 0", []byte{0, 0}, ErrProtocol},
		{"type 15", []byte{0xf0, 0}, ErrProtocol},
		{"disconnect", []byte{0xe0, 0}, ErrProtocol},
		{"pubrec", []byte{0x50, 2, 0, 1}, ErrProtocol},
		{"pubrel", []byte{0x62, 2, 0, 1}, ErrProtocol},
		{"QoS 2", []byte{0x34, 5, 0, 1, 'a', 0, 1}, ErrProtocol},
		{"QoS 3", []byte{0x36, 5, 0, 1, 'a', 0, 1}, ErrProtocol},
		{"unsuback", []byte{0xb0, 2, 0, 1}, ErrProtocol},
		{"pubcomp", []byte{0x70, 2, 0, 1}, ErrProtocol},
		{"puback with flags", []byte{0x42, 2, 0, 1}, ErrProtocol},
		{"pingresp with a body", []byte{0xd0, 1, 0}, ErrProtocol},
		{"flood of subacks", bytes.Repeat([]byte{0x90, 3, 0, 2, 1}, 10000), ErrProtocol},
		{"empty publish", []byte{0x30, 0}, ErrProtocol},
		{"length of five bytes", []byte{0x30, 0x80, 0x80, 0x80, 0x80, 1}, ErrProtocol},
		{"puback of one byte", []byte{0x40, 1, 0}, ErrProtocol},
		{"topic beyond the packet", []byte{0x30, 3, 0xff, 0xff, 'a'}, nil},
		{"no message id", []byte{0x32, 3, 0, 1, 'a'}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			s := newStub(t, func(l *link) {
				l.accept()
				if p, ok := l.read().(*packets.SubscribePacket); !ok || p.MessageID != 1 {
					return
				}
				l.raw(tt.send...)
				l.swallow()
			})
			c := mustDial(t, testOptions(s.url))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := c.Subscribe(testContext(t), "a"); tt.name != "suback twice" && !errors.Is(err, ErrLost) {
				t.Errorf("Subscribe = %v, want ErrLost", err)
			}
			wantLost(t, c)
			runtime.ReadMemStats(&after)
			if tt.want != nil && !errors.Is(c.Err(), tt.want) {
				t.Errorf("lost by %v, want %v", c.Err(), tt.want)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
				t.Errorf("%d bytes allocated", n)
			}
		})
	}
}

func TestConnPublishIsOnlyTrueWithPuback(t *testing.T) {
	tests := []struct {
		name string
		// serve is called after CONNACK.
		serve func(*link)
		want  error // nil: must succeed
	}{
		{"acknowledged", func(l *link) { l.behave(nil) }, nil},
		{"dropped after PUBLISH", func(l *link) { l.read() }, ErrLost},
		{"late", func(l *link) {
			p, _ := l.read().(*packets.PublishPacket)
			time.Sleep(300 * time.Millisecond)
			l.puback(p.MessageID)
			l.swallow()
		}, ErrTimeout},
		{"never", (*link).swallow, ErrTimeout},
		{"another id", func(l *link) {
			p, _ := l.read().(*packets.PublishPacket)
			l.puback(p.MessageID + 1)
			l.puback(60000)
			l.puback(0)
			l.swallow()
		}, ErrTimeout},
		{"before it was sent", func(l *link) {
			l.puback(1)
			l.swallow()
		}, ErrTimeout},
		{"by SUBACK", func(l *link) {
			p, _ := l.read().(*packets.PublishPacket)
			l.raw(0x90, 3, byte(p.MessageID>>8), byte(p.MessageID), 1)
			l.swallow()
		}, ErrProtocol},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			s := newStub(t, func(l *link) {
				l.accept()
				tt.serve(l)
			})
			o := testOptions(s.url)
			if errors.Is(tt.want, ErrTimeout) {
				o.AckTimeout = 100 * time.Millisecond
			}
			c := mustDial(t, o)
			if tt.name == "before it was sent" {
				time.Sleep(50 * time.Millisecond) // the early PUBACK has passed
			}
			err := c.Publish(testContext(t), "t", 1, false, []byte("x"))
			if tt.want == nil && err != nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Publish = %v, want %v", err, tt.want)
			}
		})
	}
}

// TestConnWrongAcks: acknowledgements for everything but what was sent deliver
// nothing, end nothing and take no memory.
func TestConnWrongAcks(t *testing.T) {
	noLeaks(t)
	s := newStub(t, func(l *link) {
		l.accept()
		l.behave(func(p *packets.PublishPacket) (bool, bool) {
			var acks []byte
			for id := range uint16(3000) {
				if id != p.MessageID {
					acks = append(acks, 0x40, 2, byte(id>>8), byte(id))
				}
			}
			l.raw(acks...)
			l.publish("done", nil)
			return string(p.Payload) == "ack", true
		})
	})
	c := mustDial(t, testOptions(s.url))
	for _, payload := range []string{"ack", "nothing", "ack", "nothing"} {
		ctx, cancel := context.WithCancel(testContext(t))
		result := make(chan error, 1)
		go func() { result <- c.Publish(ctx, "t", 1, false, []byte(payload)) }()
		<-c.Inbound() // all wrong ones are behind us
		if payload == "nothing" {
			cancel()
		}
		if err := <-result; (err == nil) != (payload == "ack") {
			t.Errorf("%s: Publish = %v", payload, err)
		}
		cancel()
	}
	if c.Err() != nil {
		t.Errorf("lost: %v", c.Err())
	}
	c.acks.mu.Lock()
	defer c.acks.mu.Unlock()
	if n := len(c.acks.acked); n > 2 {
		t.Errorf("%d acknowledgements kept", n)
	}
}

// TestConnSlowLoris: a packet that comes byte by byte is well, one that never
// comes to its end is a dead broker.
func TestConnSlowLoris(t *testing.T) {
	noLeaks(t)
	whole := publishPacket(t, "down", 30)
	s := newStub(t, func(l *link) {
		l.accept()
		go l.swallow()
		for _, b := range whole {
			l.raw(b)
			time.Sleep(time.Millisecond)
		}
		for _, b := range publishPacket(t, "down", 60000) {
			if _, err := l.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	o := testOptions(s.url)
	o.KeepAlive, o.PingTimeout = time.Second, 100*time.Millisecond
	c := mustDial(t, o)
	if p := <-c.Inbound(); len(p.Payload) != 30 {
		t.Errorf("received %d bytes", len(p.Payload))
	}
	start := time.Now()
	wantLost(t, c)
	if took := time.Since(start); !errors.Is(c.Err(), ErrTimeout) || took > 3*time.Second {
		t.Errorf("lost after %v by %v", took, c.Err())
	}
}

func TestConnManyPublishersOneLoss(t *testing.T) {
	noLeaks(t)
	s := newStub(t, func(l *link) {
		l.accept()
		n := 0
		l.behave(func(*packets.PublishPacket) (bool, bool) {
			n++
			return n <= 50, n < 60
		})
	})
	c := mustDial(t, testOptions(s.url))
	var wg sync.WaitGroup
	var mu sync.Mutex
	good := 0
	for range 16 {
		wg.Go(func() {
			for {
				err := c.Publish(context.Background(), "t", 1, false, []byte("x"))
				if err != nil {
					if !errors.Is(err, ErrLost) {
						t.Errorf("Publish = %v, want ErrLost", err)
					}
					return
				}
				mu.Lock()
				good++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if good > 50 {
		t.Errorf("%d publishes succeeded, 50 were acknowledged", good)
	}
}

func TestConnSubscribeRefused(t *testing.T) {
	noLeaks(t)
	s := newStub(t, func(l *link) {
		l.accept()
		for {
			p, ok := l.read().(*packets.SubscribePacket)
			if !ok {
				return
			}
			code := byte(1)
			if p.Topics[0] == "no" {
				code = 0x80
			}
			l.raw(0x90, 3, byte(p.MessageID>>8), byte(p.MessageID), code)
		}
	})
	c := mustDial(t, testOptions(s.url))
	if err := c.Subscribe(testContext(t), "yes", "no"); !errors.Is(err, ErrSubscribeRefused) {
		t.Errorf("Subscribe = %v", err)
	}
	if err := c.Subscribe(testContext(t), "yes"); err != nil {
		t.Errorf("Subscribe = %v", err)
	}
}

// TestConnFlood sends far more than anyone takes: it is dropped and counted,
// and neither goroutines nor memory grow with it.
func TestConnFlood(t *testing.T) {
	for _, first := range []byte{0x30, 0x32} {
		t.Run(fmt.Sprintf("%#x", first), func(t *testing.T) {
			noLeaks(t)
			const total, depth = 20000, 8
			packet := []byte{first, 5, 0, 1, 't', 0, 1}
			s := newStub(t, func(l *link) {
				l.accept()
				go l.swallow()
				l.raw(bytes.Repeat(packet, total)...)
				l.publish("end", nil)
				time.Sleep(50 * time.Millisecond)
				l.publish("end", nil)
				<-t.Context().Done()
			})
			o := testOptions(s.url)
			o.InboundDepth = depth
			c := mustDial(t, o)
			most := 0
			for deadline := time.Now().Add(20 * time.Second); c.Dropped() < total-depth; {
				most = max(most, runtime.NumGoroutine())
				if time.Now().After(deadline) || c.Err() != nil {
					t.Fatalf("%d dropped, connection %v", c.Dropped(), c.Err())
				}
				time.Sleep(time.Millisecond)
			}
			if most > 40 {
				t.Errorf("%d goroutines in the flood", most)
			}
		})
	}
}

// TestConnStuckPeer: a peer that reads nothing is found by the deadline of the
// write, whatever the library thinks of its own deadlines.
func TestConnStuckPeer(t *testing.T) {
	noLeaks(t)
	s := newStub(t, func(l *link) {
		if tcp, ok := l.Conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4096)
		}
		l.accept()
		<-t.Context().Done()
	})
	o := testOptions(s.url)
	o.WriteTimeout = 200 * time.Millisecond
	c := mustDial(t, o)
	payload := make([]byte, 1<<20)
	start := time.Now()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := c.Publish(context.Background(), "t", 1, false, payload); !errors.Is(err, ErrLost) {
				t.Errorf("Publish = %v, want ErrLost", err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("found after %v", d)
	}
}

func TestConnPingFindsSilentPeer(t *testing.T) {
	noLeaks(t)
	s := newStub(t, func(l *link) {
		l.accept()
		l.swallow()
	})
	o := testOptions(s.url)
	o.KeepAlive, o.PingTimeout = time.Second, 500*time.Millisecond
	c := mustDial(t, o)
	start := time.Now()
	wantLost(t, c)
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("found after %v", d)
	}
}

func TestConnCloseOfStuckPeerIsBounded(t *testing.T) {
	noLeaks(t)
	s := newStub(t, func(l *link) {
		l.accept()
		<-t.Context().Done()
	})
	c := mustDial(t, testOptions(s.url))
	for range 4 {
		_, err := c.begin("t", 1, false, make([]byte, 4<<20))
		if err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_ = c.Close(ctx)
	if d := time.Since(start); d > time.Second {
		t.Errorf("Close took %v", d)
	}
	wantLost(t, c)
}

func TestOptionsCheck(t *testing.T) {
	ok := Options{Broker: "tcp://localhost", ClientID: "x"}
	tests := []struct {
		name string
		edit func(*Options)
	}{
		{"scheme", func(o *Options) { o.Broker = "http://localhost" }},
		{"no host", func(o *Options) { o.Broker = "tcp://" }},
		{"user", func(o *Options) { o.Broker = "tcp://me:hunter2@localhost" }},
		{"bad user", func(o *Options) { o.Broker = "tcp://me:hunter2%zz@local host" }},
		{"path", func(o *Options) { o.Broker = "tcp://localhost/a" }},
		{"secret path", func(o *Options) { o.Broker = "ssl://localhost/hunter" }},
		{"query", func(o *Options) { o.Broker = "ws://localhost/mqtt?token=hunter" }},
		{"user of WebSocket", func(o *Options) { o.Broker = "wss://me:hunter2@localhost/mqtt" }},
		{"source address", func(o *Options) { o.SourceAddress = "eth0" }},
		{"no source address", func(o *Options) { o.SourceAddress = "0.0.0.0" }},
		{"multicast source address", func(o *Options) { o.SourceAddress = "ff02::1" }},
		{"ping timeout that breaks the promise", func(o *Options) { o.PingTimeout = 15 * time.Second }},
		{"key without pair", func(o *Options) { o.Broker, o.TLS.CertFile = "wss://localhost", "/dev/null" }},
		{"client id", func(o *Options) { o.ClientID = "" }},
		{"keepalive", func(o *Options) { o.KeepAlive = time.Millisecond }},
		{"timeout", func(o *Options) { o.AckTimeout = -1 }},
		{"ca", func(o *Options) { o.Broker, o.TLS.CAFile = "ssl://localhost", "/nonexistent/ca.pem" }},
		{"cert", func(o *Options) { o.Broker, o.TLS.CertFile = "ssl://localhost", "/nonexistent/cert.pem" }},
	}
	if err := ok.Check(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := ok
			tt.edit(&o)
			err := o.Check()
			if err == nil {
				t.Fatal("accepted")
			}
			if bytes.Contains([]byte(err.Error()), []byte("hunter")) {
				t.Errorf("error shows the password: %v", err)
			}
			if _, dialErr := Dial(t.Context(), o); dialErr == nil {
				t.Error("Dial accepted it")
			}
		})
	}
	o := ok
	o.Password = "hunter2"
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(format, o); bytes.Contains([]byte(s), []byte("hunter2")) {
			t.Errorf("%s prints the password", format)
		}
	}
}

func FuzzGuard(f *testing.F) {
	f.Add([]byte{0x20, 2, 0, 0, 0x30, 3, 0, 1, 'a', 0x40, 2, 0, 1, 0xd0, 0}, byte(1), false)
	f.Add([]byte{0x20, 2, 0, 0, 0x90, 3, 0, 1, 1}, byte(2), false)
	f.Add([]byte{0x20, 2, 0, 0, 0x30, 0xff, 0xff, 0xff, 0x7f}, byte(3), false)
	f.Add([]byte{0x20, 2, 1, 0, 0x32, 5, 0, 1, 'a', 0, 1}, byte(1), true)
	f.Add([]byte{0x20, 2, 1, 5}, byte(1), true)
	f.Fuzz(func(t *testing.T, stream []byte, step byte, session bool) {
		// However the stream is cut, the verdict is the same, and what passes
		// is what the library reads without a length above the limit.
		whole, parts := &guard{maxPacket: 64, session: session}, &guard{maxPacket: 64, session: session}
		for id := range uint16(3) {
			for _, g := range []*guard{whole, parts} {
				g.note([]byte{0x82, 6, 0, byte(id), 0, 1, 'a', 1})
			}
		}
		want := whole.scan(stream)
		var got error
		for rest := stream; len(rest) > 0 && got == nil; {
			n := min(len(rest), int(step)+1)
			got = parts.scan(rest[:n])
			rest = rest[n:]
		}
		if fmt.Sprint(want) != fmt.Sprint(got) {
			t.Fatalf("whole %v, in parts %v", want, got)
		}
		if want != nil {
			for _, known := range []error{ErrProtocol, ErrPacketTooLarge, refusal(1), refusal(2), refusal(3), refusal(4), refusal(5)} {
				if errors.Is(want, known) {
					return
				}
			}
			t.Fatalf("unknown verdict %v", want)
		}
		if whole.whole != parts.whole {
			t.Fatalf("%d packets whole, %d in parts", whole.whole, parts.whole)
		}
		var n uint64
		for r := bytes.NewReader(stream); r.Len() > 0; n++ {
			p, err := packets.ReadPacket(r)
			if err != nil {
				return // cut short, or malformed inside a packet
			}
			switch p := p.(type) {
			case *packets.ConnackPacket:
				if n > 0 || p.ReturnCode != 0 || p.SessionPresent && !session {
					t.Fatalf("passed %v as packet %d", p, n)
				}
			case *packets.SubackPacket:
				if len(p.ReturnCodes) != 1 {
					t.Fatalf("passed %v", p)
				}
			case *packets.PublishPacket:
				if p.Qos > 1 || len(p.Payload) > 64 {
					t.Fatalf("passed %v", p)
				}
			}
		}
		if n != whole.whole {
			t.Fatalf("%d packets, %d counted", n, whole.whole)
		}
	})
}
