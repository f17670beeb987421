package mqtt

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// stub is a broker that misbehaves as told. Each accepted connection is given
// to serve, which runs in a goroutine of its own.
type stub struct {
	t    *testing.T
	ln   net.Listener
	url  string
	wg   sync.WaitGroup
	mu   sync.Mutex
	open map[net.Conn]bool
	seen int
}

// link is one connection as the broker sees it.
type link struct {
	net.Conn
	r *bufio.Reader
	n int // number of the connection, from 0
}

func newLink(c net.Conn, n int) *link { return &link{Conn: c, r: bufio.NewReader(c), n: n} }

func newStub(t *testing.T, serve func(*link)) *stub {
	t.Helper()
	return newStubAt(t, "127.0.0.1:0", serve)
}

func newStubAt(t *testing.T, address string, serve func(*link)) *stub {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &stub{t: t, ln: ln, url: "tcp://" + ln.Addr().String(), open: map[net.Conn]bool{}}
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			n := s.seen
			s.seen++
			s.open[c] = true
			s.mu.Unlock()
			s.wg.Go(func() {
				serve(newLink(c, n))
				_ = c.Close()
			})
		}
	})
	t.Cleanup(s.close)
	return s
}

func (s *stub) close() {
	_ = s.ln.Close()
	s.mu.Lock()
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// read returns the next packet, nil when the connection has ended.
func (l *link) read() packets.ControlPacket {
	p, err := packets.ReadPacket(l.r)
	if err != nil {
		return nil
	}
	return p
}

func (l *link) raw(b ...byte) { _, _ = l.Write(b) }

// accept answers CONNECT.
func (l *link) accept() *packets.ConnectPacket {
	c, _ := l.read().(*packets.ConnectPacket)
	l.raw(0x20, 2, 0, 0)
	return c
}

func (l *link) puback(id uint16) { l.raw(0x40, 2, byte(id>>8), byte(id)) }

func (l *link) publish(topic string, payload []byte) {
	p, _ := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload = topic, payload
	_ = p.Write(l)
}

// behave answers like a broker until told otherwise: f is shown every PUBLISH
// and says whether to acknowledge it and whether to go on.
func (l *link) behave(f func(*packets.PublishPacket) (ack, goOn bool)) {
	for {
		switch p := l.read().(type) {
		case nil:
			return
		case *packets.SubscribePacket:
			l.raw(0x90, 3, byte(p.MessageID>>8), byte(p.MessageID), 1)
		case *packets.PublishPacket:
			ack, goOn := true, true
			if f != nil {
				ack, goOn = f(p)
			}
			if ack && p.Qos > 0 {
				l.puback(p.MessageID)
			}
			if !goOn {
				return
			}
		case *packets.PingreqPacket:
			l.raw(0xd0, 0)
		case *packets.DisconnectPacket:
			return
		}
	}
}

// swallow reads until the connection ends.
func (l *link) swallow() { _, _ = io.Copy(io.Discard, l.r) }

func header(first byte, length int) []byte {
	var b [binary.MaxVarintLen32]byte
	return append([]byte{first}, b[:binary.PutUvarint(b[:], uint64(length))]...)
}

func testOptions(url string) Options {
	return Options{
		Broker: url, ClientID: "HWTC12345678",
		ConnectTimeout: 5 * time.Second, AckTimeout: 5 * time.Second,
		WriteTimeout: 2 * time.Second,
	}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func mustDial(t *testing.T, o Options) *Conn {
	t.Helper()
	c, err := Dial(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, c) })
	return c
}

func shut(t *testing.T, c *Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Error(err)
	}
}

// noLeaks fails the test if, when everything registered after it has been
// cleaned up, goroutines of this package or of the MQTT library stay that were
// not there before.
func noLeaks(t *testing.T) {
	t.Helper()
	before := goroutines()
	t.Cleanup(func() {
		var left string
		for range 200 {
			left = ""
			for id, stack := range goroutines() {
				if _, old := before[id]; !old {
					left += stack + "\n\n"
				}
			}
			if left == "" {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("goroutines left over:\n%s", left)
	})
}

// goroutines returns the stacks of this package's and the library's goroutines
// by id.
func goroutines() map[string]string {
	stacks := map[string]string{}
	buf := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "paho") || strings.Contains(stack, "transport/mqtt.(*") {
			id, _, _ := strings.Cut(stack, " [")
			stacks[id] = stack
		}
	}
	return stacks
}

func wantLost(t *testing.T, c *Conn) {
	t.Helper()
	select {
	case <-c.Lost():
	case <-time.After(10 * time.Second):
		t.Fatal("connection not lost")
	}
}

// upgrade makes a WebSocket of l, as a server; nil if there is none asked for.
func (l *link) upgrade() *link {
	req, err := http.ReadRequest(l.r)
	if err != nil {
		return nil
	}
	w := &hijacked{header: http.Header{}, Conn: l.Conn, r: l.r}
	u := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	ws, err := u.Upgrade(w, req, nil)
	if err != nil {
		return nil
	}
	return newLink(&webConn{Conn: ws}, l.n)
}

// hijacked is a response writer that is only good for an upgrade.
type hijacked struct {
	net.Conn
	header http.Header
	r      *bufio.Reader
}

func (h *hijacked) Header() http.Header { return h.header }
func (h *hijacked) WriteHeader(int)     {}
func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.Conn, bufio.NewReadWriter(h.r, bufio.NewWriter(h.Conn)), nil
}

// websocketAccept answers a client's key by RFC 6455, section 4.2.2.
func websocketAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// cutAfter relays l to address and ends both after n bytes came from there.
func cutAfter(t *testing.T, l *link, address string, n int) {
	t.Helper()
	var dialer net.Dialer
	up, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(up, l.r)
		_ = up.Close()
	})
	_, _ = io.CopyN(l, up, int64(n))
	_ = l.Close()
	_ = up.Close()
	wg.Wait()
}
