package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// maxAnswer bounds what a server may say before the first frame: the
	// library takes headers of any size.
	maxAnswer = 16 << 10
	// maxMessage bounds a message of the WebSocket, which may hold many
	// packets. It is passed on as it comes, never held.
	maxMessage = 1 << 20
	// subprotocol is that of MQTT 3.1.1, section 6.
	subprotocol = "mqtt"
)

// upgrade makes a WebSocket of conn, which it owns from then on if there is no
// error. No proxy, cookie or redirect is obeyed.
func upgrade(ctx context.Context, conn net.Conn, u *url.URL) (net.Conn, error) {
	// The library minds the deadline of ctx only.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	answer := &limited{Conn: conn, left: maxAnswer}
	dialer := websocket.Dialer{
		NetDialContext:  func(context.Context, string, string) (net.Conn, error) { return answer, nil },
		Subprotocols:    []string{subprotocol},
		ReadBufferSize:  1024,
		WriteBufferSize: 4096,
	}
	// TLS is below already.
	bare := url.URL{Scheme: "ws", Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	ws, resp, err := dialer.DialContext(ctx, bare.String(), nil)
	if resp != nil {
		_ = resp.Body.Close()
	}
	switch {
	case errors.Is(err, websocket.ErrBadHandshake) && resp != nil:
		return nil, fmt.Errorf("cannot open WebSocket at %s: %w", u.Path, answered(resp.StatusCode))
	case err != nil:
		return nil, fmt.Errorf("cannot open WebSocket at %s: %w", u.Path, err)
	}
	answer.left = -1
	if got, more := ws.Subprotocol(), resp.Header.Get("Sec-Websocket-Extensions"); got != subprotocol || more != "" {
		_ = ws.Close()
		return nil, fmt.Errorf("cannot open WebSocket at %s: %w: subprotocol %.20q, extensions %.40q", u.Path, ErrProtocol, got, more)
	}
	ws.SetReadLimit(maxMessage)
	return &webConn{Conn: ws}, nil
}

// answered returns the error for an HTTP status that is no upgrade.
func answered(status int) error {
	var err error
	switch status {
	case http.StatusUnauthorized:
		err = ErrRefusedCredentials
	case http.StatusForbidden:
		err = ErrNotAuthorized
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		err = ErrServerUnavailable
	default:
		err = ErrProtocol
	}
	return fmt.Errorf("%w: HTTP status %d", err, status)
}

// limited is a connection that ends after left bytes were read; below 0 means
// never.
type limited struct {
	net.Conn
	left int
}

// Read implements net.Conn.
func (l *limited) Read(p []byte) (int, error) {
	if l.left < 0 {
		return l.Conn.Read(p)
	}
	if l.left == 0 {
		return 0, fmt.Errorf("%w: answer of more than %d bytes", ErrProtocol, maxAnswer)
	}
	n, err := l.Conn.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}

// webConn is the stream that the binary messages of a WebSocket make. One
// goroutine may read and one write at a time.
type webConn struct {
	*websocket.Conn
	r io.Reader // of the current message, nil between two
}

var _ net.Conn = (*webConn)(nil)

// Read implements net.Conn.
func (c *webConn) Read(p []byte) (int, error) {
	for {
		if c.r == nil {
			kind, r, err := c.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, fmt.Errorf("%w: WebSocket message of type %d", ErrProtocol, kind)
			}
			c.r = r
		}
		n, err := c.r.Read(p)
		if errors.Is(err, io.EOF) {
			c.r, err = nil, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// Write implements net.Conn: p is one message.
func (c *webConn) Write(p []byte) (int, error) {
	if err := c.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetDeadline implements net.Conn.
func (c *webConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
