package control

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// Client talks to a Server. It is not safe for concurrent use.
type Client struct {
	conn net.Conn
	in   *bufio.Reader
	spki string
}

// ErrUnreachable means that no agent answers.
var ErrUnreachable = errors.New("agent does not answer")

// RemoteError is what the server said went wrong.
type RemoteError struct{ Text string }

func (e *RemoteError) Error() string { return e.Text }

// DialUnix connects to a local agent.
func DialUnix(ctx context.Context, path string) (*Client, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot reach agent at %s: %w: %w", path, ErrUnreachable, err)
	}
	return newClient(conn, ""), nil
}

// DialTLS connects to a gateway on the LAN. No authority vouches for its
// certificate here: the caller must hold SPKI against the device statement
// before it sends anything.
func DialTLS(ctx context.Context, address string) (*Client, error) {
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 10 * time.Second},
		Config: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true, //nolint:gosec // the caller pins the key, see SPKI
		},
	}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot reach gateway at %s: %w: %w", address, ErrUnreachable, err)
	}
	tlsConn, ok := conn.(*tls.Conn)
	if !ok || len(tlsConn.ConnectionState().PeerCertificates) == 0 {
		_ = conn.Close()
		return nil, fmt.Errorf("cannot reach gateway at %s: no certificate", address)
	}
	return newClient(conn, SPKI(tlsConn.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)), nil
}

// SPKI is the form in which a device statement names a TLS key: the SHA-256 of
// its DER SubjectPublicKeyInfo, in hex.
func SPKI(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

func newClient(conn net.Conn, spki string) *Client {
	return &Client{conn: conn, in: bufio.NewReaderSize(conn, 4096), spki: spki}
}

// SPKI returns the key of the gateway reached by DialTLS.
func (c *Client) SPKI() string { return c.spki }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Call runs one operation and passes every message of its answer to on. The
// error is a *RemoteError if the server reports one, on's error if it returns
// one, or compatible with errors.Is(err, ErrUnreachable) if the agent went away.
func (c *Client) Call(ctx context.Context, op string, args any, on func(kind string, data json.RawMessage) error) error {
	req := request{Op: op}
	if args != nil {
		raw, err := json.Marshal(args)
		if err != nil {
			return fmt.Errorf("cannot encode request: %w", err)
		}
		req.Args = raw
	}
	line, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("cannot encode request: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Now()) })
	defer stop()
	if _, err := c.conn.Write(append(line, '\n')); err != nil {
		return c.gone(ctx, err)
	}
	for {
		line, err := readLine(c.in)
		if err != nil {
			return c.gone(ctx, err)
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			return fmt.Errorf("cannot read answer: %w", err)
		}
		if m.End {
			if m.Error != "" {
				return &RemoteError{Text: m.Error}
			}
			return nil
		}
		if err := on(m.Kind, m.Data); err != nil {
			return err
		}
	}
}

func (c *Client) gone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}
