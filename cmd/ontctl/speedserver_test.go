package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ontagent/cmd/cli"
)

// lines is a log that tests wait for.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits until the log has all of these in one line, and returns it.
func (l *lines) await(t *testing.T, parts ...string) string {
	t.Helper()
	for range 1000 {
		for line := range strings.Lines(l.String()) {
			if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
				return line
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the log never has %q:\n%s", parts, l)
	return ""
}

func roomy() speedLimits {
	return speedLimits{
		connections: 100, perAddress: 100, time: 30 * time.Second, bytes: 1 << 40, stall: 30 * time.Second,
		head: 10 * time.Second, goodbye: 500 * time.Millisecond,
	}
}

// speedServerAt runs a server until the test ends.
func speedServerAt(t *testing.T, limits speedLimits, addresses ...string) (base string, log *lines, stop func() error) {
	t.Helper()
	log = &lines{}
	s, err := newSpeedServer(limits, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if addresses == nil {
		addresses = []string{"127.0.0.1:0"}
	}
	listeners, err := s.listen(t.Context(), addresses, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, listeners) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("the server does not end")
		}
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		if err := s.body.Close(); err != nil {
			t.Error(err)
		}
	})
	return listeners[0].Addr().String(), log, stop
}

// ask makes one request of its own connection.
func ask(t *testing.T, method, url string, body io.Reader) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}, Timeout: 20 * time.Second}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp, data
}

func TestSpeedServerSends(t *testing.T) {
	at, _, _ := speedServerAt(t, roomy())
	for _, n := range []int{0, 1, 511, 512, 513, speedChunk, speedBody - 1, speedBody, speedBody + 1, 2*speedBody + speedChunk + 7} {
		resp, data := ask(t, "GET", fmt.Sprintf("http://%s/some/where?bytes=%d", at, n), nil)
		if resp.StatusCode != http.StatusOK || len(data) != n || resp.ContentLength != int64(n) || len(resp.TransferEncoding) > 0 {
			t.Errorf("%d bytes: %d came, status %d, length %d, %v", n, len(data), resp.StatusCode, resp.ContentLength, resp.TransferEncoding)
		}
		// It must be the same everywhere, and nothing that a line could compress.
		if n > speedBody && !bytes.Equal(data[:n-speedBody], data[speedBody:]) {
			t.Errorf("%d bytes: the second round differs", n)
		}
		if n >= speedChunk {
			var seen [256]int
			for _, b := range data[:speedChunk] {
				seen[b]++
			}
			if most := slices.Max(seen[:]); most > 2*speedChunk/256 {
				t.Errorf("one byte makes up %d of %d", most, speedChunk)
			}
		}
	}
}

func TestSpeedServerHead(t *testing.T) {
	at, log, _ := speedServerAt(t, roomy())
	resp, _ := ask(t, "HEAD", "http://"+at+"/", nil)
	if resp.StatusCode != http.StatusOK || resp.ContentLength != 1<<40 || resp.Header.Get("Congestion-Control") == "" || !strings.HasPrefix(resp.Header.Get("Server"), "ontctl/") {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if strings.Contains(log.String(), "msg=test") {
		t.Errorf("a HEAD is logged as a test: %s", log)
	}
}

// The body of TR-143's time-based download lasts as long as its name says, and
// ends as it should.
func TestSpeedServerTimeBased(t *testing.T) {
	at, log, _ := speedServerAt(t, roomy())
	begin := time.Now()
	resp, data := ask(t, "GET", "http://"+at+"/dntimebasedmode_1.txt", nil)
	took := time.Since(begin)
	if took < 900*time.Millisecond || took > 10*time.Second || len(data) < 1<<20 || resp.ContentLength != -1 || len(resp.TransferEncoding) > 0 {
		t.Errorf("%v, %d bytes, length %d, %v", took, len(data), resp.ContentLength, resp.TransferEncoding)
	}
	log.await(t, "msg=test", "direction=down", "end=complete", "path=/dntimebasedmode_1.txt")
}

func TestSpeedServerTakes(t *testing.T) {
	at, log, _ := speedServerAt(t, roomy())
	const n = 3<<20 + 11
	for _, method := range []string{"POST", "PUT"} {
		for name, body := range map[string]io.Reader{
			"length": bytes.NewReader(make([]byte, n)),
			"chunks": io.MultiReader(bytes.NewReader(make([]byte, n))), // net/http can't know how long this is
		} {
			resp, data := ask(t, method, "http://"+at+"/up/"+name+"?token=secret", body)
			var got speedReceived
			if err := json.Unmarshal(data, &got); err != nil || resp.StatusCode != http.StatusOK || got.ReceivedBytes != n || got.End != "complete" || got.DurationS <= 0 {
				t.Errorf("%s %s: %d %s, %v", method, name, resp.StatusCode, data, err)
			}
			log.await(t, "direction=up", "method="+method, "path=/up/"+name+" ", "bytes="+strconv.Itoa(n), "end=complete")
		}
	}
	if strings.Contains(log.String(), "secret") {
		t.Errorf("the log has queries: %s", log)
	}
	resp, data := ask(t, "POST", "http://"+at+"/", nil)
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(data), `"received_bytes":0`) {
		t.Errorf("nothing: %d %s", resp.StatusCode, data)
	}
}

func TestSpeedServerRefuses(t *testing.T) {
	limits := roomy()
	limits.bytes = 1 << 20
	at, _, _ := speedServerAt(t, limits)
	for _, tc := range []struct {
		method, url string
		status      int
	}{
		{"DELETE", "/", 405},
		{"OPTIONS", "/", 405},
		{"GET", "/?bytes=", 400},
		{"GET", "/?bytes=-1", 400},
		{"GET", "/?bytes=1e3", 400},
		{"GET", "/?bytes=1048577", 400},
		{"GET", "/?bytes=99999999999999999999", 400},
		{"GET", "/dntimebasedmode_0.txt", 400},
		{"GET", "/dntimebasedmode_31.txt", 400},
		{"GET", "/dntimebasedmode_99999999999.txt", 400},
		{"GET", "/dntimebasedmode_-1.txt", 400},
		{"GET", "/dntimebasedmode_5", 400},
		{"GET", "/?bytes=1048576", 200},
	} {
		resp, _ := ask(t, tc.method, "http://"+at+tc.url, nil)
		if resp.StatusCode != tc.status || resp.Header.Get("Transfer-Encoding") != "" {
			t.Errorf("%s %s: %d, want %d", tc.method, tc.url, resp.StatusCode, tc.status)
		}
	}
}

// dialSpeed opens a connection that ends with the test, and writes to it.
func dialSpeed(t *testing.T, at, text string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// status reads the first line of an answer.
func status(t *testing.T, c net.Conn) string {
	t.Helper()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return strings.TrimSpace(strings.TrimPrefix(line, "HTTP/1.1 "))
}

// Uploads that are too long, announced or not, are told so.
func TestSpeedServerTooLarge(t *testing.T) {
	limits := roomy()
	limits.bytes = 1 << 20
	at, log, _ := speedServerAt(t, limits)
	c := dialSpeed(t, at, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n")
	if got := status(t, c); !strings.HasPrefix(got, "413 ") {
		t.Errorf("announced: %s", got)
	}
	c = dialSpeed(t, at, "POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	go func() {
		part := append([]byte("10000\r\n"), append(make([]byte, 1<<16), "\r\n"...)...)
		for range 64 {
			if _, err := c.Write(part); err != nil {
				return // as it should
			}
		}
	}()
	if got := status(t, c); !strings.HasPrefix(got, "413 ") {
		t.Errorf("in chunks: %s", got)
	}
	log.await(t, "path=/chunks", "end=too_large")
}

// Whoever stops reading, or sending, is cut.
func TestSpeedServerStalledClients(t *testing.T) {
	limits := roomy()
	limits.stall = 300 * time.Millisecond
	at, log, _ := speedServerAt(t, limits)
	dialSpeed(t, at, "GET /deaf HTTP/1.1\r\nHost: x\r\n\r\n")
	c := dialSpeed(t, at, "POST /mute HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"+strings.Repeat("x", 100<<10))
	if got := status(t, c); !strings.HasPrefix(got, "408 ") {
		t.Errorf("mute: %s", got)
	}
	log.await(t, "path=/mute", "bytes=102400", "end=stalled")
	log.await(t, "path=/deaf", "end=stalled")
}

// However slowly it goes on, a request ends.
func TestSpeedServerTimeLimit(t *testing.T) {
	limits := roomy()
	limits.time = time.Second
	at, log, _ := speedServerAt(t, limits)
	dialSpeed(t, at, "GET /deaf HTTP/1.1\r\nHost: x\r\n\r\n")
	fast := dialSpeed(t, at, "GET /fast HTTP/1.1\r\nHost: x\r\n\r\n")
	slow := dialSpeed(t, at, "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for range 1000 {
			if _, err := slow.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	if n, err := io.Copy(io.Discard, fast); err != nil || n < 1<<20 {
		t.Errorf("fast: %d bytes, %v", n, err)
	}
	if got := status(t, slow); !strings.HasPrefix(got, "408 ") {
		t.Errorf("slow: %s", got)
	}
	<-stopped
	for _, path := range []string{"/deaf", "/fast", "/slow"} {
		line := log.await(t, "path="+path+" ", "end=time_limit")
		if !strings.Contains(line, "duration_s=1") {
			t.Errorf("%s", line)
		}
	}
}

func TestSpeedServerClientsThatGo(t *testing.T) {
	at, log, _ := speedServerAt(t, roomy())
	c := dialSpeed(t, at, "GET /gone HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	log.await(t, "path=/gone", "end=closed_by_client")
	c = dialSpeed(t, at, "PUT /cut HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"+strings.Repeat("x", 100<<10))
	_ = c.Close()
	log.await(t, "path=/cut", "bytes=102400", "end=closed_by_client")
}

// Who asks for more than a share of the connections is told so at once, and
// who comes after it has gone is served.
func TestSpeedServerTooManyConnections(t *testing.T) {
	limits := roomy()
	limits.perAddress = 3
	at, _, _ := speedServerAt(t, limits)
	var held []net.Conn
	for range limits.perAddress {
		c := dialSpeed(t, at, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n")
		if got := status(t, c); !strings.HasPrefix(got, "100 ") {
			t.Fatalf("within its share: %s", got)
		}
		held = append(held, c)
	}
	c := dialSpeed(t, at, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if got := status(t, c); got != "503 Service Unavailable" {
		t.Errorf("beyond it: %s", got)
	}
	// Beyond those, nobody is even told.
	var refused atomic.Int64
	var waiting []net.Conn
	var looking sync.WaitGroup
	for range speedTurnedAway + 20 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at)
		if err != nil { // closed before this side knew
			refused.Add(1)
			continue
		}
		waiting = append(waiting, c)
		looking.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
			if _, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
				refused.Add(1)
			}
		})
	}
	looking.Wait()
	if n := refused.Load(); n < 20 || n > 21 { // the one that was told may still be counted
		t.Errorf("%d were closed at once, want 20", n)
	}
	for _, c := range append(waiting, held...) {
		_ = c.Close()
	}
	for range 100 {
		c := dialSpeed(t, at, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
		if strings.HasPrefix(status(t, c), "200 ") {
			return
		}
		_ = c.Close()
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("nobody is served any more")
}

func TestSpeedGate(t *testing.T) {
	l := speedLimits{connections: 3, perAddress: 2, allow: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"),
	}}
	g := newSpeedGate(l)
	type answer struct{ busy, ok bool }
	var leaves []func()
	enter := func(a string) answer {
		busy, ok, leave := g.enter(netip.MustParseAddr(a))
		if ok {
			leaves = append(leaves, leave)
		}
		return answer{busy, ok}
	}
	for i, tc := range []struct {
		address string
		want    answer
	}{
		{"198.51.100.1", answer{false, false}}, // not allowed
		{"192.0.2.1", answer{false, true}},
		{"::ffff:192.0.2.1", answer{false, true}},
		{"192.0.2.1", answer{true, true}}, // its share is used
		{"2001:db8::1", answer{false, true}},
		{"192.0.2.2", answer{true, true}}, // all are used
	} {
		if got := enter(tc.address); got != tc.want {
			t.Errorf("%d %s: %+v, want %+v", i, tc.address, got, tc.want)
		}
	}
	for _, leave := range leaves {
		leave()
		leave() // a connection may be closed twice
	}
	if g.total != 0 || g.turnedAway != 0 || len(g.byAddress) != 0 {
		t.Errorf("left behind: %d, %d, %v", g.total, g.turnedAway, g.byAddress)
	}
	for i, want := range []answer{{false, true}, {false, true}, {true, true}} {
		if got := enter(fmt.Sprintf("2001:db8:0:7::%d", i)); got != want {
			t.Errorf("address %d of a /64: %+v, want %+v", i, got, want)
		}
	}
	if got := enter("2001:db8:0:8::1"); got != (answer{false, true}) {
		t.Errorf("the next /64: %+v", got)
	}
}

// What is no HTTP, or too much of it, ends without a trace.
func TestSpeedServerHostileClients(t *testing.T) {
	before := runtime.NumGoroutine()
	limits := roomy()
	limits.head = time.Second
	at, log, stop := speedServerAt(t, limits)
	for name, text := range map[string]string{
		"TLS":               "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 500),
		"garbage":           strings.Repeat("\x00\xff", 1000) + "\r\n\r\n",
		"HTTP/2":            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"no host":           "GET / HTTP/1.1\r\n\r\n",
		"endless line":      "GET /" + strings.Repeat("a", 20<<10),
		"endless head":      "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 4<<10),
		"two lengths":       "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"a negative length": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
		"strange coding":    "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nhello",
		"smuggling":         "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
		"bad chunks":        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnothex\r\n",
		"huge chunk":        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
	} {
		c := dialSpeed(t, at, text)
		answer, err := io.ReadAll(io.LimitReader(c, 1<<16))
		if line, _, _ := strings.Cut(string(answer), "\r\n"); len(line) < 12 || line[9] != '4' && line[9] != '5' {
			t.Errorf("%s: answered %q, %v", name, line, err)
		}
		_ = c.Close()
	}
	if strings.Contains(log.String(), "msg=test") {
		t.Errorf("logged as tests: %s", log)
	}
	// And it still serves.
	if resp, _ := ask(t, "GET", "http://"+at+"/?bytes=5", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for range 500 {
		if runtime.NumGoroutine() <= before+2 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// A head without an end is cut.
func TestSpeedServerSlowHead(t *testing.T) {
	limits := roomy()
	limits.head = 500 * time.Millisecond
	at, _, _ := speedServerAt(t, limits)
	c := dialSpeed(t, at, "GET / HTTP/1.1\r\nHost: x\r\n")
	begin := time.Now()
	_, _ = io.Copy(io.Discard, c)
	if took := time.Since(begin); took < limits.head/2 || took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Many at once, of all kinds, while it is told to end.
func TestSpeedServerStopsUnderLoad(t *testing.T) {
	at, log, stop := speedServerAt(t, roomy())
	for i := range 10 {
		c := dialSpeed(t, at, "GET /load HTTP/1.1\r\nHost: x\r\n\r\n")
		if i%2 == 0 {
			go io.Copy(io.Discard, io.LimitReader(c, 50<<20)) //nolint:errcheck // it is cut
		}
	}
	for range 5 {
		dialSpeed(t, at, "POST /load HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
	}
	begin := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v to end", took)
	}
	log.await(t, "msg=stopped")
	if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at); err == nil {
		_ = c.Close()
		t.Error("it still listens")
	}
}

func TestSpeedServerBothFamilies(t *testing.T) {
	if l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "[::1]:0"); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	} else {
		_ = l.Close()
	}
	at, log, _ := speedServerAt(t, roomy(), ":0")
	_, port, _ := net.SplitHostPort(at)
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		if resp, data := ask(t, "GET", "http://"+host+":"+port+"/?bytes=100000", nil); resp.StatusCode != http.StatusOK || len(data) != 100000 {
			t.Errorf("%s: %d, %d bytes", host, resp.StatusCode, len(data))
		}
		log.await(t, "client="+strings.Trim(host, "[]")+" ", "bytes=100000")
	}
}

// Who is not allowed gets not a byte.
func TestSpeedServerAllows(t *testing.T) {
	limits := roomy()
	limits.allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	at, _, _ := speedServerAt(t, limits)
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at)
	if err != nil {
		return // closed before this side knew
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n") // it may be closed
	if b, err := io.ReadAll(c); len(b) > 0 || os.IsTimeout(err) {
		t.Errorf("answered %q, %v", b, err)
	}
}

// Reno is in every kernel.
func TestSpeedServerCongestionControl(t *testing.T) {
	s, err := newSpeedServer(roomy(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.body.Close()
	listeners, err := s.listen(t.Context(), []string{"127.0.0.1:0"}, "reno")
	if err != nil {
		t.Fatal(err)
	}
	defer listeners[0].Close()
	dialSpeed(t, listeners[0].Addr().String(), "")
	c, err := listeners[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn, ok := c.(*speedConn)
	if !ok {
		t.Fatalf("it accepts a %T", c)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got string
	if err := raw.Control(func(fd uintptr) { got, _ = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) }); err != nil {
		t.Fatal(err)
	}
	if got != "reno" || s.congestion != "reno" {
		t.Errorf("a connection has %q, the server says %q", got, s.congestion)
	}
}

func TestSpeedServerArguments(t *testing.T) {
	d := newDesk(t)
	for _, tc := range []struct {
		args string
		code int
		says string
	}{
		{"--max-connections 0", cli.Usage, "limits must be"},
		{"--max-time 10ms", cli.Usage, "limits must be"},
		{"--max-bytes 0", cli.Usage, "limits must be"},
		{"--allow 10.0.0.0", cli.Usage, `"10.0.0.0" is not a network`},
		{"--bogus", cli.Usage, "flag provided but not defined"},
		{"stray", cli.Usage, "takes nothing beside its flags"},
		{"--listen nonsense", cli.Fail, "cannot listen"},
		{"--listen 127.0.0.1:0 --congestion nosuchthing", cli.Fail, `cannot use congestion control "nosuchthing"`},
	} {
		code, _, errs := d.ontctl(append([]string{"speed-server"}, strings.Fields(tc.args)...)...)
		if code != tc.code || !strings.Contains(errs, tc.says) {
			t.Errorf("%s: exit code %d: %s", tc.args, code, errs)
		}
	}
	code, out, _ := d.ontctl("speed-server", "--help")
	for _, flag := range []string{"--listen", "--allow", "--max-connections", "--max-per-address", "--max-time", "--max-bytes", "--stall", "--congestion"} {
		if code != cli.OK || !strings.Contains(out, "  "+flag+" ") {
			t.Errorf("help lacks %s:\n%s", flag, out)
		}
	}
}

// The program, told to end as systemd does, ends well; and curl knows how to
// talk to it.
func TestSpeedServerProgram(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	log := &lines{}
	a := &app{out: io.Discard, err: log}
	ended := make(chan int, 1)
	go func() { ended <- a.run(ctx, []string{"speed-server", "--listen", "127.0.0.1:0"}) }()
	line := log.await(t, "msg=listening")
	_, rest, _ := strings.Cut(line, "address=")
	at, _, _ := strings.Cut(rest, " ")
	if curl, err := exec.LookPath("curl"); err == nil {
		file := t.TempDir() + "/f"
		if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"-T", file},
			{"-H", "Transfer-Encoding: chunked", "--data-binary", "@" + file},
		} {
			out, err := exec.CommandContext(t.Context(), curl, append(args, "--noproxy", "*", "-fsS", "http://"+at+"/up")...).Output()
			var got speedReceived
			if err != nil || json.Unmarshal(out, &got) != nil || got.ReceivedBytes != 1<<20 {
				t.Errorf("curl %v: %s, %v", args, out, err)
			}
		}
		out, err := exec.CommandContext(t.Context(), curl, "--noproxy", "*", "-fsS", "-o", "/dev/null", "-w", "%{size_download} %{http_code}", "http://"+at+"/f?bytes=1000000").Output()
		if diff := cmp.Diff("1000000 200", string(out)); diff != "" || err != nil {
			t.Errorf("curl: %v (-want +got):\n%s", err, diff)
		}
	} else {
		t.Log("there is no curl to try")
	}
	cancel()
	select {
	case code := <-ended:
		if code != cli.OK {
			t.Errorf("exit code %d: %s", code, log)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
}
