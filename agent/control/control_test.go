package control

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func serve(t *testing.T, l net.Listener, s *Server) {
	t.Helper()
	if s.MaxConns == 0 {
		s.MaxConns = 4
	}
	s.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("server ended with %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("server did not stop")
		}
	})
}

func echo(_ context.Context, args json.RawMessage, send Send) error {
	for range 3 {
		if err := send("echo", args); err != nil {
			return err
		}
	}
	return nil
}

func TestCallStreamsMessagesAndErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, &Server{Ops: map[string]Op{
		"echo": echo,
		"fail": func(context.Context, json.RawMessage, Send) error { return errors.New("cannot do it") },
	}})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("socket mode %v, %v; want 0600", info.Mode(), err)
	}
	c, err := DialUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got []string
	collect := func(kind string, data json.RawMessage) error {
		got = append(got, kind+" "+string(data))
		return nil
	}
	if err := c.Call(t.Context(), "echo", map[string]int{"n": 7}, collect); err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat(`echo {"n":7};`, 3); strings.Join(got, ";")+";" != want {
		t.Errorf("got %q", got)
	}
	var remote *RemoteError
	if err := c.Call(t.Context(), "fail", nil, collect); !errors.As(err, &remote) || remote.Text != "cannot do it" {
		t.Errorf("fail: %v", err)
	}
	if err := c.Call(t.Context(), "shell", nil, collect); !errors.As(err, &remote) {
		t.Errorf("unknown operation: %v", err)
	}
}

func TestListenUnixReplacesStaleSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(t.Context(), path); !errors.Is(err, ErrRunning) {
		t.Errorf("second agent: %v, want ErrRunning", err)
	}
	unix, ok := l.(*net.UnixListener)
	if !ok {
		t.Fatal("not a unix listener")
	}
	unix.SetUnlinkOnClose(false) // as after kill -9
	_ = l.Close()
	l, err = ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatalf("stale socket: %v", err)
	}
	_ = l.Close()

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(t.Context(), file); err == nil {
		t.Error("replaced a regular file")
	}
}

func TestServerSurvivesGarbage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, &Server{Ops: map[string]Op{"echo": echo}})
	for name, garbage := range map[string][]byte{
		"not json":  []byte("hello\n"),
		"binary":    {0, 1, 2, 255, '\n'},
		"oversized": append(bytes.Repeat([]byte("x"), maxLine+10), '\n'),
		"cut off":   []byte(`{"op":"ec`),
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = conn.Write(garbage)
		if unix, ok := conn.(*net.UnixConn); ok {
			_ = unix.CloseWrite()
		}
		if _, err := io.ReadAll(conn); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: server neither answered nor hung up", name)
		}
		_ = conn.Close()
	}
	c, err := DialUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Call(t.Context(), "echo", 1, func(string, json.RawMessage) error { return nil }); err != nil {
		t.Errorf("after garbage: %v", err)
	}
}

func TestClientEndsWithItsContextAndWithTheServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, &Server{Ops: map[string]Op{"hang": func(ctx context.Context, _ json.RawMessage, _ Send) error {
		<-ctx.Done()
		return ctx.Err()
	}}})
	c, err := DialUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "hang", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want deadline", err)
	}
	if _, err := DialUnix(t.Context(), path+".none"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

func TestTLSClientLearnsTheKey(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	l, err := ListenTLS(t.Context(), "127.0.0.1:0", cert)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, &Server{Ops: map[string]Op{"echo": echo}})
	c, err := DialTLS(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if c.SPKI() != SPKI(parsed.RawSubjectPublicKeyInfo) {
		t.Error("client saw another key")
	}
	if err := c.Call(t.Context(), "echo", 1, func(string, json.RawMessage) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestLimiterRefillsToItsBurst(t *testing.T) {
	now := time.Unix(0, 0)
	l := NewLimiter(2, time.Second, func() time.Time { return now })
	admitted := func() (n int) {
		for range 10 {
			if l.Admit(nil) {
				n++
			}
		}
		return n
	}
	if n := admitted(); n != 2 {
		t.Errorf("burst admitted %d, want 2", n)
	}
	now = now.Add(time.Second)
	if n := admitted(); n != 1 {
		t.Errorf("after a refill admitted %d, want 1", n)
	}
	now = now.Add(time.Hour)
	if n := admitted(); n != 2 {
		t.Errorf("after a rest admitted %d, want 2", n)
	}
}

// TestOneClientCannotStayForEver: neither by saying nothing, nor a byte now and
// then, nor by asking again and again.
func TestOneClientCannotStayForEver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, &Server{MaxRequests: 3, Patience: 200 * time.Millisecond, Ops: map[string]Op{"echo": echo}})
	dial := func() net.Conn {
		t.Helper()
		conn, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		return conn
	}
	silent, dripping, busy := dial(), dial(), dial()
	stop := make(chan struct{})
	dripped := make(chan struct{})
	go func() {
		defer close(dripped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				_, _ = dripping.Write([]byte(" "))
			}
		}
	}()
	for range 10 {
		_, _ = busy.Write([]byte("{\"op\":\"echo\"}\n"))
	}
	for name, conn := range map[string]net.Conn{"silent": silent, "dripping": dripping} {
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s client is still served: %d, %v", name, n, err)
		}
	}
	close(stop)
	<-dripped
	answers, _ := io.ReadAll(busy)
	if got := bytes.Count(answers, []byte(`"end":true`)); got != 3 {
		t.Errorf("%d requests of one connection were answered, want 3", got)
	}
}

// TestSocketIsNeverForOthers: not even before its mode is set.
func TestSocketIsNeverForOthers(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "c.sock")
	l, err := ListenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if mask := syscall.Umask(0); mask != 0 {
		t.Errorf("the process's mask was left at %o", mask)
	}
}
