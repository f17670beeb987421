package tcp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"ontagent/agent/probe/tcp"
)

func TestStatusLine(t *testing.T) {
	for text, want := range map[string]struct {
		line string
		code int
		more bool
	}{
		"HTTP/1.1 200 OK\r\nServer: x\r\n":       {"HTTP/1.1 200 OK", 200, false},
		"HTTP/1.1 401 Unauthorized\n":            {"HTTP/1.1 401 Unauthorized", 401, false},
		"HTTP/1.0 405\r\n":                       {"HTTP/1.0 405", 405, false},
		"HTTP/1.1 204 \r\n":                      {"HTTP/1.1 204 ", 204, false},
		"HTTP/1.1 503 维护\r\n":                    {"HTTP/1.1 503 维护", 503, false},
		"":                                       {"", 0, true},
		"HTT":                                    {"HTT", 0, true},
		"HTTP/1.1 200 O":                         {"HTTP/1.1 200 O", 0, true},
		"HTTP/1.1 200 OK\r":                      {"HTTP/1.1 200 OK\r", 0, true},
		"SSH-2.0-dropbear\r\n":                   {"SSH-2.0-dropbear", 0, false},
		"HTTQ":                                   {"HTTQ", 0, false},
		"\x15\x03\x01":                           {"\x15\x03\x01", 0, false},
		"HTTP/2 200\r\n":                         {"HTTP/2 200", 0, false},
		"HTTP/1.1 20\r\n":                        {"HTTP/1.1 20", 0, false},
		"HTTP/1.1 2000 OK\r\n":                   {"HTTP/1.1 2000 OK", 0, false},
		"HTTP/1.1 099 OK\r\n":                    {"HTTP/1.1 099 OK", 0, false},
		"HTTP/1.x 200 OK\r\n":                    {"HTTP/1.x 200 OK", 0, false},
		"\r\nHTTP/1.1 200 OK\r\n":                {"", 0, false},
		"HTTP/1.1 200 " + strings.Repeat("x", 9): {"HTTP/1.1 200 " + strings.Repeat("x", 9), 0, true},
	} {
		line, code, more := tcp.StatusLine([]byte(text))
		if string(line) != want.line || code != want.code || more != want.more {
			t.Errorf("%q: %q, %d, %v, want %+v", text, line, code, more, want)
		}
	}
	long := "HTTP/1.1 200 " + strings.Repeat("x", 600)
	if line, code, more := tcp.StatusLine([]byte(long)); len(line) != 512 || code != 0 || more {
		t.Errorf("too long: %d bytes, %d, %v", len(line), code, more)
	}
}

func FuzzStatusLine(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nServer: x\r\n"), 5)
	f.Add([]byte("HTTP/1.1 40"), 3)
	f.Add([]byte("SSH-2.0-dropbear\r\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		line, code, more := tcp.StatusLine(b)
		if len(line) > 512 || code != 0 && (code < 100 || code > 999 || more) || bytes.IndexByte(line, '\n') >= 0 && len(line) < 512 {
			t.Fatalf("%q: %q, %d, %v", b, line, code, more)
		}
		// What is right cut short was right, and what was wrong stays wrong.
		if cut = min(max(cut, 0), len(b)); code != 0 {
			if _, part, more := tcp.StatusLine(b[:cut]); part != code && !more {
				t.Fatalf("%q is right, %q is not", b, b[:cut])
			}
		}
	})
}

// serve hands each connection to f.
func serve(t *testing.T, f func(c *net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			f(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return netip.MustParseAddrPort(l.Addr().String())
}

func to(a netip.AddrPort) tcp.Options {
	return tcp.Options{Host: a.Addr().String(), Port: a.Port(), Answer: 300 * time.Millisecond, Settle: 50 * time.Millisecond}
}

// leaks says what f left open.
func leaks(t *testing.T, f func()) {
	t.Helper()
	count := func() (files, goroutines int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries), runtime.NumGoroutine()
	}
	files, goroutines := count()
	f()
	g, n := count()
	for range 100 { // the server's side ends a little later
		if g, n = count(); g <= files && n <= goroutines {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d descriptors and %d goroutines became %d and %d", files, goroutines, g, n)
}

// hold waits until the far end has closed.
func hold(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }

// reset cuts the connection off, after it has been noticed.
func reset(c *net.TCPConn) {
	time.Sleep(20 * time.Millisecond)
	_ = c.SetLinger(0)
	c.Close()
}

func TestRun(t *testing.T) {
	quiet := serve(t, hold)
	closing := serve(t, func(*net.TCPConn) {})
	cutting := serve(t, reset)
	talking := serve(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "220 hello\r\n"); hold(c) })
	for name, test := range map[string]struct {
		at   netip.AddrPort
		want tcp.Outcome
	}{
		"quiet": {quiet, tcp.Open}, "closing": {closing, tcp.Open}, "cutting": {cutting, tcp.Reset}, "talking": {talking, tcp.Open},
	} {
		leaks(t, func() {
			r, err := tcp.Run(t.Context(), to(test.at))
			if err != nil || r.Outcome != test.want || r.ConnectMs <= 0 || r.ConnectMs > 1000 || r.Address != test.at.Addr() || r.Attempts != nil {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		})
	}
}

// emulated skips what user-mode emulation of another machine gets wrong: it
// hands the host's number of a connection's error through, and MIPS has others.
func emulated(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile("/proc/cpuinfo")
	if strings.HasPrefix(runtime.GOARCH, "mips") && err == nil && bytes.Contains(b, []byte("vendor_id")) {
		t.Skip("the emulator does not translate the error of a TCP connect")
	}
}

func TestRefused(t *testing.T) {
	emulated(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	if r, err := tcp.Run(t.Context(), to(at)); err != nil || r.Outcome != tcp.Refused || r.Reason != "connection refused" || r.ConnectMs != 0 {
		t.Errorf("refused: %+v, %v", r, err)
	}
}

func TestHTTP(t *testing.T) {
	heard := make(chan string, 16)
	say := func(text string) func(c *net.TCPConn) {
		return func(c *net.TCPConn) {
			r := bufio.NewReader(c)
			var request strings.Builder
			for {
				line, err := r.ReadString('\n')
				request.WriteString(line)
				if err != nil || line == "\r\n" {
					break
				}
			}
			heard <- request.String()
			_, _ = io.WriteString(c, text)
		}
	}
	slowly := func(c *net.TCPConn) {
		for _, b := range []byte("HTTP/1.1 200 a line that never ends") {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(40 * time.Millisecond)
		}
	}
	for name, test := range map[string]struct {
		f      func(c *net.TCPConn)
		want   tcp.Outcome
		status int
		line   string
	}{
		"an ACS":         {say("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest\r\n\r\n"), tcp.Open, 401, "HTTP/1.1 401 Unauthorized"},
		"with a body":    {say("HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 1<<20)), tcp.Open, 200, "HTTP/1.1 200 OK"},
		"not allowed":    {say("HTTP/1.0 405 Method Not Allowed\n"), tcp.Open, 405, "HTTP/1.0 405 Method Not Allowed"},
		"ssh":            {say("SSH-2.0-dropbear\r\n"), tcp.NotHTTP, 0, "SSH-2.0-dropbear"},
		"tls":            {say("\x15\x03\x01\x00\x02\x02\x46"), tcp.NotHTTP, 0, "\x15\x03\x01\x00\x02\x02\x46"},
		"garbage":        {say(strings.Repeat("\x00", 4096)), tcp.NotHTTP, 0, strings.Repeat("\x00", 512)},
		"a line too big": {say("HTTP/1.1 200 " + strings.Repeat("y", 4096)), tcp.NotHTTP, 0, "HTTP/1.1 200 " + strings.Repeat("y", 512-13)},
		"broken off":     {say("HTTP/1.1 2"), tcp.NotHTTP, 0, "HTTP/1.1 2"},
		"closes":         {say(""), tcp.Closed, 0, ""},
		"mute":           {hold, tcp.Mute, 0, ""},
		"resets":         {func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 512)); reset(c) }, tcp.Reset, 0, ""},
	} {
		at := serve(t, test.f)
		leaks(t, func() {
			o := to(at)
			o.HTTP, o.Path = true, "/acs?x=1"
			r, err := tcp.Run(t.Context(), o)
			if err != nil || r.Outcome != test.want || r.HTTPStatus != test.status || r.StatusLine != test.line || (r.AnswerMs > 0) != (test.want == tcp.Open) {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		})
		if len(heard) > 0 {
			want := "GET /acs?x=1 HTTP/1.1\r\nHost: " + at.String() + "\r\nUser-Agent: ontagent\r\nAccept: */*\r\nConnection: close\r\n\r\n"
			if got := <-heard; got != want {
				t.Errorf("asked %q, want %q", got, want)
			}
		}
	}
	o := to(serve(t, slowly))
	o.HTTP = true
	begin := time.Now()
	r, err := tcp.Run(t.Context(), o)
	if took := time.Since(begin); err != nil || r.Outcome != tcp.Mute || took > o.Answer+time.Second || !strings.HasPrefix(r.StatusLine, "HTTP/1") {
		t.Errorf("slowly: %+v, %v after %v", r, err, took)
	}
}

func TestNames(t *testing.T) {
	emulated(t)
	at := serve(t, hold)
	o := to(at)
	o.Host = "acs.example"
	for name, test := range map[string]struct {
		addresses []string
		err       error
		want      tcp.Outcome
		attempts  int
		at        string
	}{
		"one":           {[]string{"127.0.0.1"}, nil, tcp.Open, 0, "127.0.0.1"},
		"the second":    {[]string{"127.0.0.2", "127.0.0.1", "127.0.0.3"}, nil, tcp.Open, 2, "127.0.0.1"},
		"four, no more": {[]string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.1"}, nil, tcp.Refused, 4, "127.0.0.2"},
		"none":          {nil, nil, tcp.Unresolved, 0, ""},
		"an error":      {nil, errors.New("NXDOMAIN"), tcp.Unresolved, 0, ""},
	} {
		o.Resolve = func(_ context.Context, host string) (all []netip.Addr, err error) {
			if host != "acs.example" {
				t.Errorf("resolves %q", host)
			}
			for _, a := range test.addresses {
				all = append(all, netip.MustParseAddr(a))
			}
			return all, test.err
		}
		r, err := tcp.Run(t.Context(), o)
		if err != nil || r.Outcome != test.want || len(r.Attempts) != test.attempts || test.at != "" && r.Address.String() != test.at {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if test.err != nil && r.Reason != "NXDOMAIN" {
			t.Errorf("%s: %q", name, r.Reason)
		}
	}
	// A resolver that hangs is given up.
	o.ResolveTimeout = 50 * time.Millisecond
	o.Resolve = func(ctx context.Context, _ string) ([]netip.Addr, error) { <-ctx.Done(); return nil, ctx.Err() }
	if r, err := tcp.Run(t.Context(), o); err != nil || r.Outcome != tcp.Unresolved {
		t.Errorf("hangs: %+v, %v", r, err)
	}
	if got, want := o.Duration(), 50*time.Millisecond+4*(5*time.Second+50*time.Millisecond); got != want {
		t.Errorf("takes %v, want %v", got, want)
	}
}

func TestRunEnds(t *testing.T) {
	at := serve(t, hold)
	for _, http := range []bool{false, true} {
		leaks(t, func() {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			o := to(at)
			o.HTTP, o.Settle, o.Answer = http, time.Minute, time.Minute
			begin := time.Now()
			_, err := tcp.Run(ctx, o)
			if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 550*time.Millisecond {
				t.Errorf("%v after %v", err, took)
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	for name, o := range map[string]tcp.Options{
		"nothing":    {},
		"no port":    {Host: "127.0.0.1"},
		"a name":     {Host: "acs.example", Port: 80},
		"injection":  {Host: "a\r\nX: y", Port: 80, HTTP: true},
		"path":       {Host: "127.0.0.1", Port: 80, Path: "/ HTTP/1.1\r\nX: y"},
		"no path":    {Host: "127.0.0.1", Port: 80, Path: "acs"},
		"family":     {Host: "127.0.0.1", Port: 80, Source: netip.IPv6Loopback()},
		"not our ip": {Host: "127.0.0.1", Port: 80, Source: netip.MustParseAddr("192.0.2.1")},
	} {
		if r, err := tcp.Run(t.Context(), o); !errors.Is(err, tcp.ErrOptions) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}
