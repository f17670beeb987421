package mqtt

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// webStub is a stub behind a WebSocket.
func webStub(t *testing.T, serve func(*link, *websocket.Conn)) *stub {
	t.Helper()
	s := newStub(t, func(l *link) {
		if l = l.upgrade(); l == nil {
			return
		}
		if c, ok := l.Conn.(*webConn); ok {
			serve(l, c.Conn)
		}
	})
	s.url = "ws" + strings.TrimPrefix(s.url, "tcp")
	return s
}

// TestWebSocketFrames: packets and frames need not fit one another, in either
// direction.
func TestWebSocketFrames(t *testing.T) {
	noLeaks(t)
	large := bytes.Repeat([]byte("x"), 50<<10)
	s := webStub(t, func(l *link, ws *websocket.Conn) {
		l.accept()
		l.behave(func(p *packets.PublishPacket) (bool, bool) {
			var b bytes.Buffer
			down, _ := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
			down.TopicName, down.Payload = "down", p.Payload
			for range 3 {
				_ = down.Write(&b)
			}
			_ = ws.WriteControl(websocket.PingMessage, []byte("there?"), time.Now().Add(time.Second))
			_, _ = l.Write(nil) // an empty message
			for _, n := range []int{1, 1, 2, 5, 1000, b.Len()} {
				_, _ = l.Write(b.Next(n))
			}
			return true, true
		})
	})
	c := mustDial(t, testOptions(s.url))
	for _, payload := range [][]byte{nil, []byte("a"), large} {
		if err := c.Publish(testContext(t), "up", 1, false, payload); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if p := <-c.Inbound(); !bytes.Equal(p.Payload, payload) {
				t.Errorf("%d bytes came back, want %d", len(p.Payload), len(payload))
			}
		}
	}
	if local := c.guard.LocalAddr().String(); !strings.HasPrefix(local, "127.0.0.1:") {
		t.Errorf("local address %s", local)
	}
}

// TestWebSocketHostile: whatever a server does with the frames, the connection
// ends.
func TestWebSocketHostile(t *testing.T) {
	for name, tt := range map[string]struct {
		do   func(*link, *websocket.Conn)
		want error
	}{
		"text":  {func(_ *link, ws *websocket.Conn) { _ = ws.WriteMessage(websocket.TextMessage, []byte("hello")) }, ErrProtocol},
		"close": {func(_ *link, ws *websocket.Conn) { _ = ws.WriteMessage(websocket.CloseMessage, nil) }, nil},
		"message too long": {func(_ *link, ws *websocket.Conn) {
			_, _ = ws.NetConn().Write([]byte{0x82, 0x7f, 0, 0, 0, 0, 0x40, 0, 0, 0, 0x30})
		}, nil},
		"reserved bits": {func(_ *link, ws *websocket.Conn) { _, _ = ws.NetConn().Write([]byte{0xf2, 1, 0}) }, nil},
		"masked":        {func(_ *link, ws *websocket.Conn) { _, _ = ws.NetConn().Write([]byte{0x82, 0x81, 0, 0, 0, 0, 0xd0}) }, nil},
		"cut frame":     {func(_ *link, ws *websocket.Conn) { _, _ = ws.NetConn().Write([]byte{0x82, 9, 0xd0}); _ = ws.Close() }, nil},
		"256 MB packet": {func(l *link, _ *websocket.Conn) { l.raw(0x30, 0xff, 0xff, 0xff, 0x7f) }, ErrPacketTooLarge},
		"QoS 2":         {func(l *link, _ *websocket.Conn) { l.raw(0x34, 5, 0, 1, 'a', 0, 1) }, ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			s := webStub(t, func(l *link, ws *websocket.Conn) {
				l.accept()
				l.read()
				tt.do(l, ws)
				l.swallow()
			})
			c := mustDial(t, testOptions(s.url))
			if err := c.Publish(testContext(t), "t", 1, false, nil); !errors.Is(err, ErrLost) {
				t.Errorf("Publish = %v", err)
			}
			wantLost(t, c)
			if tt.want != nil && !errors.Is(c.Err(), tt.want) {
				t.Errorf("lost by %v, want %v", c.Err(), tt.want)
			}
		})
	}
}

// TestWebSocketAnswers: what a server may answer instead of a WebSocket.
func TestWebSocketAnswers(t *testing.T) {
	upgraded := "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\n"
	for name, tt := range map[string]struct {
		answer string
		want   error
	}{
		"401":                {"HTTP/1.1 401 x\r\n\r\n", ErrRefusedCredentials},
		"403":                {"HTTP/1.1 403 x\r\n\r\n", ErrNotAuthorized},
		"503":                {"HTTP/1.1 503 x\r\nContent-Length: 3\r\n\r\nabc", ErrServerUnavailable},
		"429":                {"HTTP/1.1 429 x\r\n\r\n", ErrServerUnavailable},
		"redirect":           {"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1/\r\n\r\n", ErrProtocol},
		"200":                {"HTTP/1.1 200 x\r\n\r\n" + strings.Repeat("x", 1<<20), ErrProtocol},
		"wrong key":          {strings.Replace(upgraded, "KEY", "AAAA", 1) + "\r\n", ErrProtocol},
		"no subprotocol":     {upgraded + "\r\n", ErrProtocol},
		"other subprotocol":  {upgraded + "Sec-WebSocket-Protocol: chat\r\n\r\n", ErrProtocol},
		"compression":        {upgraded + "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n", ErrProtocol},
		"endless header":     {"HTTP/1.1 101 x\r\n" + strings.Repeat("A: "+strings.Repeat("a", 1000)+"\r\n", 1000), ErrProtocol},
		"endless line":       {"HTTP/1.1 101 " + strings.Repeat("x", 1<<20), ErrProtocol},
		"MQTT":               {"\x20\x02\x00\x00", nil},
		"nothing":            {"", nil},
		"half of the header": {upgraded, nil},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			s := newStub(t, func(l *link) {
				req, err := http.ReadRequest(l.r)
				if err != nil {
					return
				}
				if req.URL.Path != defaultPath || req.Header.Get("Sec-WebSocket-Protocol") != "mqtt" {
					t.Errorf("asked for %s, %v", req.URL, req.Header)
				}
				key := websocketAccept(req.Header.Get("Sec-WebSocket-Key"))
				_, _ = l.Write([]byte(strings.Replace(tt.answer, "KEY", key, 1)))
			})
			o := testOptions("ws" + strings.TrimPrefix(s.url, "tcp"))
			start := time.Now()
			if _, err := Dial(testContext(t), o); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Dial = %v, want %v", err, tt.want)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestDialCutAnywhere: the line is cut after every byte of what the broker says
// until the session is up. Dial says so, in time, and leaves nothing behind.
func TestDialCutAnywhere(t *testing.T) {
	ca := newAuthority(t, "ca")
	server := ca.issue("127.0.0.1", nil)
	for _, scheme := range []string{"tcp", "ws", "ssl", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			noLeaks(t)
			serve := func(l *link) {
				if strings.HasPrefix(scheme, "ws") {
					if l = l.upgrade(); l == nil {
						return
					}
				}
				l.accept()
				l.behave(nil)
			}
			var inner *stub
			if scheme == "ssl" || scheme == "wss" {
				inner = newTLSStub(t, server, 0x0304, nil, serve)
			} else {
				inner = newStub(t, serve)
			}
			address := inner.ln.Addr().String()
			step, limit := 1, 4
			switch {
			case scheme == "ws":
				limit = 100
			case scheme != "tcp":
				limit = 700
			}
			if testing.Short() || scheme == "wss" || scheme == "ssl" && !long() {
				step = 1 + limit/20
			}
			for n := 0; n < limit; n += step {
				relay := newStub(t, func(l *link) { cutAfter(t, l, address, n) })
				o := testOptions(scheme + strings.TrimPrefix(relay.url, "tcp"))
				o.TLS.CAFile = ca.CA
				c, err := Dial(testContext(t), o)
				if err == nil {
					shut(t, c)
					t.Fatalf("connected with %d bytes of the broker's", n)
				}
				if errors.Is(err, ErrTimeout) || errors.Is(err, ErrRefusedCredentials) {
					t.Errorf("cut after %d bytes: %v", n, err)
				}
				relay.close()
			}
		})
	}
}
