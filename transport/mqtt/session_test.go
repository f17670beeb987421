//go:build linux

package mqtt

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"ontagent/transport"
)

// TestSessionPresent: a session that we asked for is welcome, another is not.
func TestSessionPresent(t *testing.T) {
	for _, tt := range []struct {
		persistent  bool
		flags, code byte
		want        error
	}{
		{false, 0, 0, nil},
		{false, 1, 0, ErrProtocol},
		{true, 0, 0, nil},
		{true, 1, 0, nil},
		{true, 2, 0, ErrProtocol},
		{true, 3, 0, ErrProtocol},
		{true, 0, 5, ErrNotAuthorized},
	} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			noLeaks(t)
			s := newStub(t, func(l *link) {
				if c, ok := l.read().(*packets.ConnectPacket); ok && c.CleanSession == tt.persistent {
					t.Errorf("clean session: %v", c.CleanSession)
				}
				l.raw(0x20, 2, tt.flags, tt.code)
				l.behave(nil)
			})
			o := testOptions(s.url)
			o.PersistentSession = tt.persistent
			c, err := Dial(testContext(t), o)
			if err == nil {
				shut(t, c)
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("Dial = %v, want %v", err, tt.want)
			}
		})
	}
}

// TestPersistentPublishesEnd: nobody waits for the token of a lost connection,
// and nothing is reported delivered that was not, though the session goes on.
func TestPersistentPublishesEnd(t *testing.T) {
	noLeaks(t)
	s := newStub(t, func(l *link) {
		l.read()
		l.raw(0x20, 2, byte(min(l.n, 1)), 0)
		n := 0
		l.behave(func(*packets.PublishPacket) (bool, bool) {
			n++
			return n%2 == 0, n < 9
		})
	})
	o := testOptions(s.url)
	o.PersistentSession = true
	for range 3 {
		c := mustDial(t, o)
		var wg sync.WaitGroup
		var mu sync.Mutex
		good := 0
		start := time.Now()
		for range 9 {
			wg.Go(func() {
				err := c.Publish(testContext(t), "t", 1, false, nil)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					good++
				case !errors.Is(err, ErrLost):
					t.Errorf("Publish = %v", err)
				}
			})
		}
		wg.Wait()
		if good > 4 {
			t.Errorf("%d delivered, 4 were acknowledged", good)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("took %v", took)
		}
		shut(t, c)
	}
}

// TestPersistentAcksAreTheReceivers: the broker hears of a message when who
// took it says so, and in a session that ends with the connection at once.
func TestPersistentAcksAreTheReceivers(t *testing.T) {
	for _, persistent := range []bool{false, true} {
		if persistent && testing.Short() {
			continue // waits for roomWait
		}
		noLeaks(t)
		acks := make(chan uint16, 10)
		s := newStub(t, func(l *link) {
			l.accept()
			for id := range uint16(4) {
				l.raw(0x32, 5, 0, 1, 't', 0, byte(id+1))
			}
			for {
				switch p := l.read().(type) {
				case nil:
					return
				case *packets.PubackPacket:
					acks <- p.MessageID
				}
			}
		})
		o := testOptions(s.url)
		o.PersistentSession, o.InboundDepth = persistent, 2
		c := mustDial(t, o)
		eventually(t, "two dropped", func() bool { return c.Dropped() == 2 })
		if !persistent {
			for want := range uint16(4) {
				if got := <-acks; got != want+1 {
					t.Errorf("acknowledged %d, want %d", got, want+1)
				}
			}
			continue
		}
		first, second := <-c.Inbound(), <-c.Inbound()
		time.Sleep(20 * time.Millisecond)
		if len(acks) != 0 {
			t.Errorf("acknowledged %d, and nobody said so", <-acks)
		}
		second.Ack()
		if got := <-acks; got != 2 {
			t.Errorf("acknowledged %d, want 2", got)
		}
		shut(t, c)
		first.Ack() // too late, and harmless
	}
}

// TestMosquittoPersistentSession: what is sent to a gateway while it is away
// arrives, and what it did not acknowledge comes again.
func TestMosquittoPersistentSession(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t, "max_queued_messages 1000")
	o := testOptions("tcp://" + m.addr)
	commands := make(chan string, 1000)
	device := func() *Device {
		d, _ := testDevice(t, func(do *DeviceOptions) {
			do.Dial = o
			do.Dial.PersistentSession = true
			do.Inbound = func(in transport.Inbound) { commands <- in.Name }
		})
		return d
	}
	d := device()
	stop := serve(t, d)
	eventually(t, "connected", func() bool { return d.Status().Connected })
	stop()

	operator := o
	operator.ClientID = "operator"
	op := mustDial(t, operator)
	const total = 300 // far more than may wait
	for i := range total {
		if err := op.Publish(testContext(t), fmt.Sprint("ont/1/isp/HWTC12345678/cmd/", i), 1, false, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	d = device()
	stop = serve(t, d)
	for i := range total {
		select {
		case got := <-commands:
			if got != fmt.Sprint(i) {
				t.Fatalf("command %s, want %d: %+v", got, i, d.Status())
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d arrived: %+v", i, total, d.Status())
		}
	}
	stop()

	collector := o
	collector.ClientID, collector.PersistentSession = "collector", true
	for round := range 3 {
		c := mustDial(t, collector)
		if err := c.Subscribe(testContext(t), "r/#"); err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			for _, name := range []string{"a", "b"} {
				if err := op.Publish(testContext(t), "r/"+name, 1, false, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		if round < 2 {
			got := []Packet{<-c.Inbound(), <-c.Inbound()}
			if got[0].Topic+got[1].Topic != "r/ar/b" {
				t.Errorf("round %d: %s, %s", round, got[0].Topic, got[1].Topic)
			}
			if round == 1 { // now they are stored
				got[0].Ack()
				got[1].Ack()
				time.Sleep(50 * time.Millisecond)
			}
		} else {
			select {
			case p := <-c.Inbound():
				t.Errorf("%s came again, though acknowledged", p.Topic)
			case <-time.After(100 * time.Millisecond):
			}
		}
		shut(t, c)
	}
}

// TestMosquittoWebSocket runs a session over the real broker's WebSockets, with
// TLS and without.
func TestMosquittoWebSocket(t *testing.T) {
	ca := newAuthority(t, "ca")
	server, own := ca.issue("broker", nil), ca.issue("HWTC12345678", nil)
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			if scheme == "wss" && testing.Short() {
				t.Skip("this broker takes seconds for it")
			}
			noLeaks(t)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := ln.Addr().String()
			_ = ln.Close()
			_, port, _ := net.SplitHostPort(addr)
			// The broker wants a plain listener beside it.
			lines := []string{"listener " + port + " 127.0.0.1", "protocol websockets"}
			if scheme == "wss" {
				lines = append(lines, "cafile "+ca.CA, "certfile "+server.cert, "keyfile "+server.key, "require_certificate true")
			}
			startMosquitto(t, lines...)
			eventually(t, "second listener up", func() bool {
				c, err := net.DialTimeout("tcp", addr, time.Second)
				if err == nil {
					_ = c.Close()
				}
				return err == nil
			})
			o := testOptions(scheme + "://" + addr)
			o.Interface, o.SourceAddress = "lo", "127.0.0.1"
			o.TLS.CAFile, o.TLS.CertFile, o.TLS.KeyFile = ca.CA, own.cert, own.key
			l := listen(t, o, "ont/1/#")
			d, q := testDevice(t, func(do *DeviceOptions) { do.Dial = o })
			stop := serve(t, d)
			l.wait(t, "/state", "online")
			if err := q.Put(t.Context(), transport.Message{
				Class: transport.ClassRecord, Kind: transport.KindRecord, Name: "big",
				Body: fmt.Appendf(nil, `{"x":"%s"}`, strings.Repeat("x", 50<<10)),
			}); err != nil {
				t.Fatal(err)
			}
			queueTelemetry(t, q, 200)
			eventually(t, "all sent", func() bool { return depth(q) == 0 })
			l.wait(t, "/record/big", "xxx")
			l.wait(t, "/link", `"n":199`)
			stop()
			l.wait(t, "/state", "offline")
		})
	}
}
