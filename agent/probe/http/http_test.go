package http_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ontagent/agent/probe/http"
)

// serve answers each connection with f, after the request's empty line, and
// returns the base URL.
func serve(t *testing.T, f func(conn *net.TCPConn, request string)) string {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				var request []byte
				buf := make([]byte, 4096)
				for !bytes.Contains(request, []byte("\r\n\r\n")) {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					request = append(request, buf[:n]...)
				}
				if c, ok := conn.(*net.TCPConn); ok {
					f(c, string(request))
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return "http://" + ln.Addr().String()
}

func says(answer string) func(*net.TCPConn, string) {
	return func(c *net.TCPConn, _ string) { io.WriteString(c, answer) }
}

func TestRunOutcomes(t *testing.T) {
	page := strings.Repeat("portal ", 200)
	big := strings.Repeat("x", 100<<10)
	for _, tt := range []struct {
		name   string
		o      http.Options
		answer string
		want   http.Result
	}{
		{
			"no content, as expected",
			http.Options{},
			"HTTP/1.1 204 No Content\r\nServer: s\r\n\r\n",
			http.Result{Outcome: http.OK, Status: 204, Reason: "No Content", Server: "s"},
		},
		{
			"no content without a reason, lines ended by LF",
			http.Options{},
			"HTTP/1.0 204\n\n",
			http.Result{Outcome: http.OK, Status: 204},
		},
		{
			"a page instead",
			http.Options{},
			"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page,
			http.Result{Outcome: http.Altered, Status: 200, Reason: "OK", ContentType: "text/html", BodyBytes: 1400, Text: page[:512]},
		},
		{
			"the page expected",
			http.Options{Marker: "success"},
			"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsuccess\n",
			http.Result{Outcome: http.OK, Status: 200, Reason: "OK", BodyBytes: 8, Text: "success\n"},
		},
		{
			"another page",
			http.Options{Marker: "success"},
			"HTTP/1.1 200 OK\r\n\r\npay first",
			http.Result{Outcome: http.Altered, Status: 200, Reason: "OK", BodyBytes: 9, Text: "pay first"},
		},
		{
			"no content where a page is expected",
			http.Options{Status: 200},
			"HTTP/1.1 204 No Content\r\n\r\n",
			http.Result{Outcome: http.Altered, Status: 204, Reason: "No Content"},
		},
		{
			"in chunks",
			http.Options{Marker: "Wikipedia"},
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n4;a=b\r\nWiki\r\n05 \r\npedia\r\n0\r\nX: y\r\n\r\n",
			http.Result{Outcome: http.OK, Status: 200, Reason: "OK", BodyBytes: 9, Text: "Wikipedia"},
		},
		{
			"after interim responses",
			http.Options{},
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLocation: http://not.this\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
			http.Result{Outcome: http.OK, Status: 204, Reason: "No Content"},
		},
		{
			"a redirect",
			http.Options{},
			"HTTP/1.1 302 Found\r\nLocation: https://portal.example:8443/login?u=%20&x\r\nContent-Length: 3\r\n\r\ngo!",
			http.Result{
				Outcome: http.Redirected, Status: 302, Reason: "Found", Location: "https://portal.example:8443/login?u=%20&x",
				LocationHost: "portal.example", BodyBytes: 3, Text: "go!",
			},
		},
		{
			"a relative redirect",
			http.Options{},
			"HTTP/1.1 301 Moved\r\nLocation: /login\r\n\r\n",
			http.Result{Outcome: http.Redirected, Status: 301, Reason: "Moved", Location: "/login", LocationHost: "127.0.0.1"},
		},
		{
			"a redirect to nowhere",
			http.Options{},
			"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\n\r\n",
			http.Result{Outcome: http.Redirected, Status: 302, Reason: "Found", Location: "http://[::1/"},
		},
		{
			"a redirect without its end",
			http.Options{},
			"HTTP/1.1 302 Found\r\nLocation: http://portal.example\r\nContent-Length: 500\r\n\r\ngo!",
			http.Result{
				Outcome: http.Redirected, Status: 302, Reason: "Found", Location: "http://portal.example",
				LocationHost: "portal.example", BodyBytes: 3, Text: "go!", Error: "EOF",
			},
		},
		{
			"no location",
			http.Options{},
			"HTTP/1.1 302 Found\r\n\r\n",
			http.Result{Outcome: http.Altered, Status: 302, Reason: "Found"},
		},
		{
			"network authentication required",
			http.Options{},
			"HTTP/1.1 511 Network Authentication Required\r\n\r\n",
			http.Result{Outcome: http.Altered, Status: 511, Reason: "Network Authentication Required"},
		},
		{
			"the server's own trouble",
			http.Options{},
			"HTTP/1.1 503 Unavailable\r\n\r\nlater",
			http.Result{Outcome: http.ErrorStatus, Status: 503, Reason: "Unavailable", BodyBytes: 5, Text: "later"},
		},
		{
			"a body without end",
			http.Options{Status: 200},
			"HTTP/1.1 200 OK\r\n\r\n" + big,
			http.Result{Outcome: http.OK, Status: 200, Reason: "OK", BodyBytes: 64 << 10, Text: big[:512]},
		},
		{
			"less than announced",
			http.Options{Status: 200},
			"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
			http.Result{Outcome: http.Closed, Status: 200, Reason: "OK", BodyBytes: 3, Text: "abc", Error: "EOF"},
		},
		{
			"more than announced",
			http.Options{Status: 200},
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",
			http.Result{
				Outcome: http.Malformed, Status: 200, Reason: "OK", BodyBytes: 2, Text: "ab",
				Error: "malformed response: 1 bytes after the end of the body",
			},
		},
		{
			"no content, and content",
			http.Options{},
			"HTTP/1.1 204 No Content\r\n\r\nabc",
			http.Result{
				Outcome: http.Malformed, Status: 204, Reason: "No Content",
				Error: "malformed response: 3 bytes after the end of the body",
			},
		},
		{
			"chunks cut",
			http.Options{Status: 200},
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
			http.Result{Outcome: http.Closed, Status: 200, Reason: "OK", BodyBytes: 3, Text: "abc", Error: "EOF"},
		},
		{
			"chunks broken",
			http.Options{Status: 200},
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
			http.Result{
				Outcome: http.Malformed, Status: 200, Reason: "OK", BodyBytes: 3, Text: "abc",
				Error: `malformed response: "d" after a chunk`,
			},
		},
		{
			"two lengths",
			http.Options{},
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
			http.Result{
				Outcome: http.Malformed, Text: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
				Error: `malformed response: content length "3"`,
			},
		},
		{
			"no HTTP",
			http.Options{},
			"220 mail.example ESMTP\r\n",
			http.Result{Outcome: http.Malformed, Text: "220 mail.example ESMTP\r\n", Error: "malformed response: not HTTP"},
		},
		{"closed at once", http.Options{}, "", http.Result{Outcome: http.Closed, Error: "EOF"}},
		{
			"closed in the head",
			http.Options{},
			"HTTP/1.1 204 No Con",
			http.Result{Outcome: http.Closed, Text: "HTTP/1.1 204 No Con", Error: "EOF"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base := serve(t, says(tt.answer))
			tt.o.URL = base + "/generate_204"
			got, err := http.Run(t.Context(), tt.o)
			if err != nil {
				t.Fatal(err)
			}
			tt.want.URL = tt.o.URL
			if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(http.Result{}, "Address", "ConnectMs", "FirstByteMs", "DurationS")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Address.String() != strings.TrimPrefix(base, "http://") || got.ConnectMs <= 0 || got.DurationS <= 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestRunAsks(t *testing.T) {
	var request string
	base := serve(t, func(c *net.TCPConn, r string) {
		request = r
		io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	port := base[strings.LastIndexByte(base, ':'):]
	res, err := http.Run(t.Context(), http.Options{
		URL: "http://check.example" + port + "/a%0d%0aX: y?q=1\u00e9#part",
		Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			if host != "check.example" {
				t.Errorf("resolves %q", host)
			}
			// Nothing listens at the first.
			return []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("::ffff:127.0.0.1")}, nil
		},
	})
	if err != nil || res.Outcome != http.OK {
		t.Fatalf("%+v, %v", res, err)
	}
	want := "GET /a%0D%0AX:%20y?q=1\u00e9 HTTP/1.1\r\nHost: check.example" + port + "\r\nUser-Agent: ontagent\r\nAccept: */*\r\nConnection: close\r\n\r\n"
	if diff := cmp.Diff(want, request); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRunRefusesWhatItCannotAsk(t *testing.T) {
	for _, tt := range []struct {
		url  string
		want error
	}{
		{"", nil},
		{"www.example", nil},
		{"ftp://www.example", nil},
		{"https://www.example/", http.ErrNotMeasured},
		{"http://", nil},
		{"http:///x", nil},
		{"http://a:b@www.example/", nil},
		{"http://www.example/\r\nX: y", nil},
		{"http://www.exam\u00eble/", nil},
		{"http://www.example\r\n/", nil},
		{"http:www.example", nil},
		{"http://www.example/?a b", nil},
		{"http://www.example/" + strings.Repeat("x", 3000), nil},
	} {
		res, err := http.Run(t.Context(), http.Options{URL: tt.url})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || res.Outcome != "" {
			t.Errorf("%q: %+v, %v", tt.url, res, err)
		}
	}
}

func TestRunWithoutAnAnswer(t *testing.T) {
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + ln.Addr().String()
	ln.Close()
	nobody := func(context.Context, string) ([]netip.Addr, error) {
		return nil, errors.New("NXDOMAIN from 192.0.2.53")
	}
	resets := serve(t, func(c *net.TCPConn, _ string) { _ = c.SetLinger(0) })
	silent := serve(t, func(c *net.TCPConn, _ string) { _, _ = c.Read(make([]byte, 1)) })
	drips := func(first, drop string) string {
		return serve(t, func(c *net.TCPConn, _ string) {
			_, err := io.WriteString(c, first)
			for err == nil {
				time.Sleep(5 * time.Millisecond)
				_, err = io.WriteString(c, drop)
			}
		})
	}
	endless := func(first, more string) string {
		return serve(t, func(c *net.TCPConn, _ string) {
			_, err := io.WriteString(c, first)
			for err == nil {
				_, err = io.WriteString(c, more)
			}
		})
	}
	for _, tt := range []struct {
		name string
		o    http.Options
		want http.Outcome
		text string
	}{
		{"name", http.Options{URL: "http://check.example", Resolve: nobody}, http.NameFailed, "NXDOMAIN from 192.0.2.53"},
		{"no address", http.Options{URL: "http://check.example", Resolve: func(context.Context, string) ([]netip.Addr, error) { return nil, nil }}, http.NameFailed, "no address"},
		{"no port", http.Options{URL: "http://127.0.0.1:70000"}, http.NameFailed, "70000"},
		{"refused", http.Options{URL: closed}, http.Refused, "refused"},
		{"reset", http.Options{URL: resets}, http.Reset, "reset"},
		{"silence", http.Options{URL: silent}, http.Timeout, ""},
		{"a head that drips", http.Options{URL: drips("HTTP/1.1 204 No Content\r\nX: ", "y")}, http.Timeout, ""},
		{"a body that drips", http.Options{Status: 200, URL: drips("HTTP/1.1 200 OK\r\n\r\n", "y")}, http.Timeout, ""},
		{"a portal that drips", http.Options{URL: drips("HTTP/1.1 200 OK\r\n\r\n", "y")}, http.Altered, ""},
		{"a head without end", http.Options{URL: endless("HTTP/1.1 204 No Content\r\n", "X: yyyyyyyyyyyyyyyyyyyyyyy\r\n")}, http.Malformed, "head beyond"},
		{"one line without end", http.Options{URL: endless("HTTP/1.1 204 ", "yyyyyyyyyyyyyyyyyyyyyyy")}, http.Malformed, "head beyond"},
		{"interim responses for ever", http.Options{URL: endless("", "HTTP/1.1 100 Continue\r\n\r\n")}, http.Malformed, "head beyond"},
		{"a chunk's size without end", http.Options{Status: 200, URL: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", "x=yyyyyyyyyyyyy;")}, http.Malformed, "beyond"},
		{"trailers without end", http.Options{Status: 200, URL: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X: yyyyyyyyyyyyy\r\n")}, http.Malformed, "beyond"},
		{"chunks without end", http.Options{Status: 200, URL: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n")}, http.OK, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if (tt.want == http.Refused || tt.want == http.Reset) && !errorsAreTrue(t, closed) {
				t.Skip("this emulator does not translate the error of a TCP connect")
			}
			tt.o.Timeout = 300 * time.Millisecond
			if tt.want != http.Timeout && tt.want != http.Altered {
				tt.o.Timeout = 5 * time.Second
			}
			begin := time.Now()
			res, err := http.Run(t.Context(), tt.o)
			if err != nil || res.Outcome != tt.want || !strings.Contains(res.Error, tt.text) {
				t.Errorf("%+v, %v", res, err)
			}
			if took := time.Since(begin); took > tt.o.Duration()+200*time.Millisecond {
				t.Errorf("took %v", took)
			}
			if len(res.Text) > 3*512 || res.BodyBytes > 64<<10 {
				t.Errorf("keeps %d bytes of %d", len(res.Text), res.BodyBytes)
			}
		})
	}
}

// errorsAreTrue: qemu-user passes the host's error number on, which is another
// one on MIPS.
func errorsAreTrue(t *testing.T, closed string) bool {
	t.Helper()
	var d net.Dialer
	_, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(closed, "http://"))
	return errors.Is(err, syscall.ECONNREFUSED)
}

func TestRunFollowsRedirects(t *testing.T) {
	var base string
	base = serve(t, func(c *net.TCPConn, request string) {
		switch path := strings.Fields(request)[1]; path {
		case "/end":
			io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		case "/secure":
			io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: https://www.example/\r\n\r\n")
		case "/loop":
			io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: /loop\r\n\r\n")
		default:
			fmt.Fprintf(c, "HTTP/1.1 302 Found\r\nLocation: %s/end\r\n\r\n", base)
		}
	})
	for _, tt := range []struct {
		path string
		most int
		want http.Result
	}{
		{"/", 0, http.Result{Outcome: http.Redirected, URL: base + "/", Location: base + "/end", Status: 302}},
		{"/", 1, http.Result{Outcome: http.OK, URL: base + "/end", Status: 204, Redirects: []http.Redirect{{302, base + "/end"}}}},
		{"/secure", 3, http.Result{Outcome: http.Redirected, URL: base + "/secure", Location: "https://www.example/", Status: 302}},
		{"/loop", 2, http.Result{Outcome: http.Redirected, URL: base + "/loop", Location: "/loop", Status: 302, Redirects: []http.Redirect{{302, "/loop"}, {302, "/loop"}}}},
	} {
		got, err := http.Run(t.Context(), http.Options{URL: base + tt.path, MaxRedirects: tt.most})
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(http.Result{}, "Address", "Reason", "LocationHost", "Error", "ConnectMs", "FirstByteMs", "DurationS")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.path, diff)
		}
	}
	if got, err := http.Run(t.Context(), http.Options{URL: base + "/loop", MaxRedirects: 1000}); err != nil || len(got.Redirects) != 5 {
		t.Errorf("%d redirects are followed, %v", len(got.Redirects), err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	base := serve(t, func(c *net.TCPConn, _ string) { _, _ = c.Read(make([]byte, 1)) })
	slow := func(ctx context.Context, _ string) ([]netip.Addr, error) { <-ctx.Done(); return nil, ctx.Err() }
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for _, o := range []http.Options{
		{URL: base},
		{URL: "http://slow.example", Resolve: slow},
		{URL: base, Interface: "lo"},
	} {
		prompt(t, 50*time.Millisecond, func(ctx context.Context) error {
			_, err := http.Run(ctx, o)
			return err
		})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := http.Run(ended, http.Options{URL: base}); !errors.Is(err, context.Canceled) {
		t.Errorf("begun after the end: %v", err)
	}
	// The server notices a moment later.
	for range 100 {
		if runtime.NumGoroutine() <= goroutines && openFiles(t) <= files {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines and %d files, before %d and %d", runtime.NumGoroutine(), openFiles(t), goroutines, files)
}

// prompt checks that f, which is handed a context, ends with it within 100 ms:
// in the best of some tries, because the machine may be busy.
func prompt(t *testing.T, after time.Duration, f func(ctx context.Context) error) {
	t.Helper()
	var late time.Duration
	for range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan time.Time, 1)
		timer := time.AfterFunc(after, func() { ended <- time.Now(); cancel() })
		err := f(ctx)
		now := time.Now()
		if timer.Stop() {
			cancel()
			t.Errorf("ended by itself: %v", err)
			return
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if late = now.Sub(<-ended); late <= 100*time.Millisecond {
			return
		}
	}
	t.Errorf("ended %v after its context", late)
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestResultAsJSON(t *testing.T) {
	got, err := json.Marshal([]http.Result{{Outcome: http.NameFailed, URL: "http://a"}, {
		Outcome: http.Redirected, URL: "http://a", Address: netip.MustParseAddrPort("192.0.2.1:80"), Status: 302, Location: "/x", LocationHost: "a",
		Redirects: []http.Redirect{{301, "/"}}, Text: "a\x1b[1m", ConnectMs: 1.5, DurationS: 2,
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"outcome":"name_failed","url":"http://a","body_bytes":0,"duration_s":0},` +
		`{"outcome":"redirected","url":"http://a","address":"192.0.2.1:80","status":302,"location":"/x","location_host":"a","body_bytes":0,` +
		`"text":"a\u001b[1m","redirects":[{"status":301,"location":"/"}],"connect_ms":1.5,"duration_s":2}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestParseTruncated: whatever is missing, nothing but the whole is whole, in
// pieces of any size.
func TestParseTruncated(t *testing.T) {
	for _, wire := range []string{
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 302 Found\nLocation: /x\nTransfer-Encoding: chunked\n\n1\r\na\r\n2\r\nbc\r\n0\r\nT: x\r\n\r\n",
	} {
		for _, piece := range []int{1, 2, 3, 7, len(wire)} {
			for n := range len(wire) + 1 {
				status, location, content, whole, err := http.Parse([]byte(wire[:n]), piece)
				if err != nil || whole != (n == len(wire)) {
					t.Errorf("%d bytes in pieces of %d: whole %v, %v", n, piece, whole, err)
				}
				if whole && (status != 302 || location != "/x" || string(content) != "abc") {
					t.Errorf("in pieces of %d: %d %q %q", piece, status, location, content)
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.0 302 Found\nLocation: http://portal.example/\n\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x\r\nWiki\r\n0\r\nT: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\nx",
	} {
		f.Add([]byte(s), 5)
	}
	f.Fuzz(func(t *testing.T, data []byte, piece int) {
		status, location, content, whole, err := http.Parse(data, len(data)+1)
		if err != nil && !errors.Is(err, http.ErrMalformed) {
			t.Errorf("%v is not marked as malformed", err)
		}
		if len(content) > 64<<10 || len(location) > len(data) || status != 0 && (status < 100 || status > 999) {
			t.Errorf("%d, %d bytes, %d of location", status, len(content), len(location))
		}
		if strings.ContainsAny(location, "\n") {
			t.Errorf("location %q", location)
		}
		if err != nil || piece < 1 || len(data) > 8<<10 {
			return
		}
		// In pieces it means the same.
		status2, location2, content2, whole2, err := http.Parse(data, piece)
		if err != nil || status2 != status || location2 != location || !bytes.Equal(content2, content) || whole2 != whole {
			t.Errorf("in pieces of %d: %d %q %q %v %v, else %d %q %q %v", piece, status2, location2, content2, whole2, err, status, location, content, whole)
		}
	})
}
