package throughput_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ontagent/agent/probe/throughput"
)

// server accepts connections on the loopback and hands each to serve, with its
// request's head read. It ends with the test.
func server(t *testing.T, serve func(conn *net.TCPConn, head string)) (addr string) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				var head strings.Builder
				r := bufio.NewReaderSize(conn, 16)
				for !strings.HasSuffix(head.String(), "\r\n\r\n") {
					b, err := r.ReadByte()
					if err != nil {
						return
					}
					head.WriteByte(b)
				}
				serve(conn, head.String())
			}()
		}
	}()
	t.Cleanup(func() {
		cancel()
		ln.Close()
		<-ended
	})
	return ln.Addr().String()
}

// pour writes zeros until n are written or an error comes.
func pour(w io.Writer, n int64) {
	_, _ = io.CopyN(w, zeros{}, n)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// reset ends a connection rudely.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}

// silence waits until the other side goes.
func silence(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// TestRunAgainstHostileServers has a server for each way not to be measured by.
func TestRunAgainstHostileServers(t *testing.T) {
	say := func(text string) func(*net.TCPConn, string) {
		return func(conn *net.TCPConn, _ string) { _, _ = io.WriteString(conn, text); silence(conn) }
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	type hostile struct {
		name  string
		dir   throughput.Direction // Down if empty
		serve func(conn *net.TCPConn, head string)
		limit throughput.Limit
		want  string // with N for a number
		slow  bool
	}
	all := []hostile{
		{name: "redirect", serve: say("HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\nContent-Length: 0\r\n\r\n"), want: `the server redirects to "http://portal.example/login"`},
		{name: "to HTTPS", serve: say("HTTP/1.1 301 Moved Permanently\r\nlocation: HTTPS://speed.example/\r\n\r\n"), want: `the server wants HTTPS: it redirects to "HTTPS://speed.example/"`},
		{name: "redirect to nowhere", serve: say("HTTP/1.1 304 Not Modified\r\n\r\n"), want: `the server answers 304 Not Modified`},
		{name: "TLS alert", serve: say("\x15\x03\x01\x00\x02\x02\x46"), want: "the server wants HTTPS: it does not answer plain HTTP"},
		{name: "HTTPS port of nginx", serve: say("HTTP/1.1 400 Bad Request\r\nContent-Length: 57\r\n\r\n<title>The plain HTTP request was sent to HTTPS port</title>"), want: "the server wants HTTPS: it does not answer plain HTTP"},
		{name: "HTTPS port of Go", serve: say("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"), want: "the server wants HTTPS: it does not answer plain HTTP"},
		{name: "chunked", serve: say(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\n"), want: "the server sends the file in pieces (Transfer-Encoding: chunked), not as it is"},
		{name: "403", serve: say("HTTP/1.1 403 Forbidden\r\n\r\n"), want: "the server answers 403 Forbidden"},
		{name: "503", serve: say("HTTP/1.1 503 Service Temporarily Unavailable\r\n\r\n"), want: "the server answers 503 Service Temporarily Unavailable"},
		{name: "206", serve: say("HTTP/1.1 206 Partial Content\r\nContent-Length: 7\r\n\r\n"), want: "the server answers 206 Partial Content"},
		{name: "204", serve: say("HTTP/1.1 204\r\n\r\n"), want: "the server answers 204"},
		{name: "proxy asks", serve: say("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), want: "a proxy is in the way: it answers 407 Proxy Authentication Required"},
		{name: "proxy shows", serve: say(ok + "Via: 1.1 cache-7 (squid/5.7)\r\n\r\n"), want: `a proxy is in the way: the answer has "Via: 1.1 cache-7 (squid/5.7)"`},
		{name: "cache", serve: say(ok + "X-Cache: HIT from box\r\n\r\n"), want: `a proxy is in the way: the answer has "X-Cache: HIT from box"`},
		{name: "proxy fails", serve: say("HTTP/1.1 504 Gateway Timeout\r\nVia: 1.1 x\r\n\r\n"), want: `a proxy is in the way ("Via: 1.1 x"): it answers 504 Gateway Timeout`},
		{name: "HTTP/1.0", serve: say("HTTP/1.0 200 OK\r\n\r\n"), want: `the server does not speak HTTP/1.1: it answers "HTTP/1.0 200 OK"`},
		{name: "garbage", serve: say("220 mail.example ESMTP\r\n"), want: `the server does not speak HTTP: it answers "220 mail.example ESMTP\r\n"`},
		{name: "no status", serve: say("HTTP/1.1 OK\r\n\r\n"), want: `the server does not speak HTTP/1.1: it answers "HTTP/1.1 OK"`},
		{name: "bad line", serve: say(ok + "Con tent: 1\r\n\r\n"), want: `the server's head has a malformed line: "Con tent: 1"`},
		{name: "two lengths", serve: say(ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"), want: `the server announces a length that is none: "6"`},
		{name: "negative length", serve: say(ok + "Content-Length: -1\r\n\r\n"), want: `the server announces a length that is none: "-1"`},
		{name: "endless head", serve: func(conn *net.TCPConn, _ string) {
			_, _ = io.WriteString(conn, ok)
			for {
				if _, err := io.WriteString(conn, "X: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}, want: "the server's head is longer than 16384 bytes"},
		{name: "empty", serve: say(ok + "Content-Length: 0\r\n\r\n"), limit: throughput.LimitShort, want: "the file is empty"},
		{name: "tiny", serve: say(ok + "Content-Length: 3\r\n\r\nabc"), limit: throughput.LimitShort, want: "the file ended after 3 bytes, before the measurement was over"},
		{name: "short", serve: func(conn *net.TCPConn, _ string) {
			_, _ = io.WriteString(conn, ok+"Content-Length: 300000\r\n\r\n")
			pour(conn, 300000)
			silence(conn)
		}, limit: throughput.LimitShort, want: "the file ended after 300000 bytes, before the measurement was over"},
		{name: "short, no length", serve: func(conn *net.TCPConn, _ string) {
			_, _ = io.WriteString(conn, ok+"\r\n")
			pour(conn, 300000)
		}, limit: throughput.LimitShort, want: "the transfer ended after 300000 bytes, before the measurement was over"},
		{name: "less than announced", serve: func(conn *net.TCPConn, _ string) {
			_, _ = io.WriteString(conn, ok+"Content-Length: 300001\r\n\r\n")
			pour(conn, 300000)
		}, want: "the server closed the connection after 300000 of the 300001 bytes that it announced"},
		{name: "more than announced", serve: func(conn *net.TCPConn, _ string) {
			_, _ = io.WriteString(conn, ok+"Content-Length: 300000\r\n\r\n")
			pour(conn, 10000000)
			silence(conn)
		}, want: "the server sent more than the 300000 bytes that it announced"},
		{name: "closes", serve: func(*net.TCPConn, string) {}, want: "the server closed the connection without an answer"},
		{name: "closes in the head", serve: func(conn *net.TCPConn, _ string) { _, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n") }, want: "the server closed the connection without an answer"},
		{name: "resets", serve: func(conn *net.TCPConn, _ string) { reset(conn) }, want: "the server reset the connection without an answer"},
		{name: "resets later", serve: func(conn *net.TCPConn, _ string) {
			_, _ = io.WriteString(conn, ok+"\r\n")
			pour(conn, 300000)
			time.Sleep(50 * time.Millisecond)
			reset(conn)
		}, want: "the server reset the connection after N bytes"},
		{name: "mute", serve: func(conn *net.TCPConn, _ string) { silence(conn) }, want: "the server does not answer within 5s", slow: true},
		{name: "stalls", serve: func(conn *net.TCPConn, _ string) {
			_, _ = io.WriteString(conn, ok+"Content-Length: 1000000000\r\n\r\n")
			pour(conn, 300000)
			silence(conn)
		}, want: "the server stalled: no byte in 3s, after N bytes", slow: true},
		{name: "stalls at once", serve: say(ok + "Content-Length: 1000000000\r\n\r\n"), want: "the server stalled: no byte in 3s, after N bytes", slow: true},

		{name: "upload forbidden", dir: throughput.Up, serve: say("HTTP/1.1 405 Not Allowed\r\nContent-Length: 0\r\n\r\n"), want: "the server answers 405 Not Allowed"},
		{name: "upload redirected", dir: throughput.Up, serve: say("HTTP/1.1 307 Temporary Redirect\r\nLocation: https://x/\r\n\r\n"), want: `the server wants HTTPS: it redirects to "https://x/"`},
		{name: "upload too large", dir: throughput.Up, serve: say("HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 0\r\n\r\n"), want: "the server answers 413 Request Entity Too Large"},
		{name: "upload answered by garbage", dir: throughput.Up, serve: say("hello?"), want: `the server does not speak HTTP: it answers "hello?"`},
		{name: "upload answered in pieces", dir: throughput.Up, serve: say(ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), want: "the server answers in pieces (Transfer-Encoding: chunked)"},
		{name: "upload reset", dir: throughput.Up, serve: func(conn *net.TCPConn, _ string) { time.Sleep(20 * time.Millisecond); reset(conn) }, want: "the server reset the connection after N bytes"},
		{name: "upload refused and reset", dir: throughput.Up, serve: func(conn *net.TCPConn, _ string) {
			_, _ = io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\n\r\n")
			time.Sleep(20 * time.Millisecond)
			reset(conn)
		}, want: "the server answers 403 Forbidden"},
		{name: "upload never read", dir: throughput.Up, serve: func(*net.TCPConn, string) { time.Sleep(5 * time.Second) }, want: "the server stalled: no byte in 3s, after N bytes", slow: true},
		{name: "upload by a proxy", dir: throughput.Up, serve: say(ok + "Content-Length: 0\r\nAge: 7\r\n\r\n"), want: `a proxy is in the way: the answer has "Age: 7"`},
	}
	if testing.Short() {
		all = slices.DeleteFunc(all, func(h hostile) bool { return h.slow })
	}
	addrs := make([]string, len(all))
	for i, tt := range all {
		addrs[i] = server(t, func(conn *net.TCPConn, head string) {
			if !strings.HasPrefix(head, "HEAD") {
				tt.serve(conn, head)
			}
		})
		if tt.dir == "" {
			all[i].dir = throughput.Down
		}
	}
	left := nothingLeft(t)
	results, errs := make([]throughput.Result, len(all)), make([]error, len(all))
	var wg sync.WaitGroup
	for i, tt := range all {
		wg.Go(func() {
			results[i], errs[i] = throughput.Run(t.Context(), throughput.Options{
				URL: "http://" + addrs[i] + "/x", Direction: tt.dir, Connections: 2, Window: time.Second,
				ContractDownMbps: 1, ContractUpMbps: 1,
			})
		})
	}
	wg.Wait()
	left()
	for i, tt := range all {
		res, err := results[i], errs[i]
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		r := res.Down
		if tt.dir == throughput.Up {
			r = res.Up
		}
		if res.Verdict != throughput.Inconclusive || r.Verdict != throughput.Inconclusive || r.LimitedBy != tt.limit || r.TCPMbps != nil {
			t.Errorf("%s: %s, %s by %q, %v", tt.name, res.Verdict, r.Verdict, r.LimitedBy, r.TCPMbps)
		}
		if got := numberless(r.Error, tt.want); got != tt.want || r.Reason != r.Error || res.Reason != r.Error {
			t.Errorf("%s:\nerror  %s\nreason %s\nwant   %s", tt.name, r.Error, r.Reason, tt.want)
		}
	}
}

// numberless puts N for the number that stands where want has it.
func numberless(got, want string) string {
	before, after, ok := strings.Cut(want, "N")
	if !ok || !strings.HasPrefix(got, before) || !strings.HasSuffix(got, after) || len(got) <= len(before)+len(after) {
		return got
	}
	if strings.Trim(got[len(before):len(got)-len(after)], "0123456789") != "" {
		return got
	}
	return want
}

func TestRunWithoutAServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	_, port, _ := net.SplitHostPort(addr)
	for _, tt := range []struct {
		url, want string
		addrs     []netip.Addr
		err       error
	}{
		{url: "http://" + addr + "/", want: "cannot connect to " + addr + ": connect: connection refused"},
		{url: "http://no.example/", err: &net.DNSError{Err: "no such host", Name: "no.example", IsNotFound: true}, want: "cannot resolve no.example: there is no such name"},
		{url: "http://no.example/", err: errors.New("server misbehaving"), want: "cannot resolve no.example: server misbehaving"},
		{url: "http://no.example/", want: "cannot resolve no.example: it has no address"},
		{
			url: "http://two.example:" + port + "/", addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")},
			want: fmt.Sprintf("cannot connect to 127.0.0.1:%s: connect: connection refused; cannot connect to 127.0.0.2:%s: connect: connection refused", port, port),
		},
	} {
		done := nothingLeft(t)
		res, err := throughput.Run(t.Context(), throughput.Options{
			URL: tt.url, Resolve: func(context.Context, string) ([]netip.Addr, error) { return tt.addrs, tt.err },
		})
		done()
		if err != nil {
			t.Fatal(err)
		}
		if emulated(t) { // errno by its number on another processor
			tt.want = res.Down.Error
		}
		if res.Verdict != throughput.Inconclusive || res.Down.Error != tt.want || res.Up.Error != tt.want {
			t.Errorf("%s: %s, %s\nwant %s", res.Verdict, res.Down.Error, res.Up.Error, tt.want)
		}
	}
}
