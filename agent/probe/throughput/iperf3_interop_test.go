package throughput

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// iperf3Process is Debian's server.
type iperf3Process struct {
	t    *testing.T
	addr netip.AddrPort
	cmd  *exec.Cmd
	// said is all that it has written.
	mu   sync.Mutex
	said strings.Builder
	// ready has an element for each time that it began to listen.
	ready chan struct{}
	// ended is closed when it has ended, with err.
	ended chan struct{}
	err   error
}

func startIperf3(t *testing.T, host string, args ...string) *iperf3Process {
	t.Helper()
	if testing.Short() {
		t.Skip("starts an iperf3 server")
	}
	program, err := exec.LookPath("iperf3")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs iperf3: %v", err)
		}
		t.Skipf("needs iperf3: %v", err)
	}
	p := &iperf3Process{t: t, addr: freePort(t, host), ready: make(chan struct{}, 64), ended: make(chan struct{})}
	args = append([]string{"-s", "--forceflush", "-B", host, "-p", strconv.Itoa(int(p.addr.Port()))}, args...)
	p.cmd = exec.Command(program, args...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.mu.Lock()
			p.said.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
			if strings.HasPrefix(lines.Text(), "Server listening on") {
				p.ready <- struct{}{}
			}
		}
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("iperf3:\n%s", p.text())
		}
	})
	p.wait(p.ready)
	return p
}

// freePort returns an address that nobody listens at.
func freePort(t *testing.T, host string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		if strings.Contains(host, ":") && os.Getenv("CI") != "true" {
			t.Skipf("needs IPv6: %v", err)
		}
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

func (p *iperf3Process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

func (p *iperf3Process) wait(c chan struct{}) {
	p.t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		p.t.Fatalf("iperf3 is not ready:\n%s", p.text())
	}
}

// iperf3Dial returns what connects to an address.
func iperf3Dial(to netip.AddrPort) func(context.Context) (*stream, error) {
	return func(ctx context.Context) (*stream, error) {
		s := &stream{dialed: time.Now()}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", to.String())
		if err != nil {
			return nil, err
		}
		s.connected = time.Now()
		var ok bool
		if s.conn, ok = conn.(*net.TCPConn); !ok {
			return nil, errors.ErrUnsupported
		}
		s.raw, err = s.conn.SyscallConn()
		return s, err
	}
}

// iperf3Pump moves bytes for a while, and returns how many.
func iperf3Pump(t *testing.T, streams []*stream, dir Direction, while time.Duration) uint64 {
	t.Helper()
	var wg sync.WaitGroup
	var n atomic.Uint64
	end := time.Now().Add(while)
	for _, s := range streams {
		_ = s.conn.SetDeadline(end)
		wg.Go(func() {
			b := make([]byte, 64<<10)
			for {
				var moved int
				var err error
				if dir == Down {
					moved, err = s.conn.Read(b)
				} else {
					moved, err = s.conn.Write(b)
				}
				n.Add(uint64(moved))
				if err != nil {
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("pump: %v", err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
	return n.Load()
}

// iperf3Total is how many bytes a server says to have received or sent in all,
// in its text for people.
func iperf3Total(t *testing.T, text string, streams int, role string) float64 {
	t.Helper()
	id := `\[ *\d+\]`
	if streams > 1 {
		id = `\[SUM\]`
	}
	m := regexp.MustCompile(id+` +0\.00-[\d.]+ +sec +([\d.]+) ([KMG]?)Bytes .* `+role).FindAllStringSubmatch(text, -1)
	if len(m) == 0 {
		t.Fatalf("no total of the %s in\n%s", role, text)
	}
	last := m[len(m)-1]
	n, err := strconv.ParseFloat(last[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * map[string]float64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[last[2]]
}

func TestIperf3Debian(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			before := iperf3Open(t)
			p := startIperf3(t, host)
			// One server, run after run without a pause.
			for _, streams := range []int{1, 4, 16} {
				for _, dir := range []Direction{Down, Up} {
					what := fmt.Sprintf("%s, %d streams", dir, streams)
					s := newIperf3(&Options{Connections: streams, WarmUp: time.Second, Window: time.Second}, dir, iperf3Dial(p.addr))
					all, err := s.open(t.Context())
					if err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					if len(all) != streams {
						t.Fatalf("%s: %d", what, len(all))
					}
					s.parting = time.Minute // never waited for
					moved := iperf3Pump(t, all, dir, 100*time.Millisecond)
					start := time.Now()
					count := s.close(t.Context())
					took := time.Since(start)
					if count == nil || s.problem != nil {
						t.Fatalf("%s: %+v, %v", what, count, s.problem)
					}
					if took > iperf3Wait {
						t.Errorf("%s: the end took %v", what, took)
					}
					if again := s.close(t.Context()); again != nil {
						t.Errorf("%s: closed twice: %+v", what, again)
					}
					p.wait(p.ready) // it has said all of this test
					role := "receiver"
					if dir == Down {
						role = "sender"
					}
					// The text has three digits.
					if total := iperf3Total(t, p.text(), streams, role); float64(count.bytes) < total*0.99 || float64(count.bytes) > total*1.01 {
						t.Errorf("%s: %d bytes, the server wrote %.0f", what, count.bytes, total)
					}
					// What is in buffers on both sides is counted by one only.
					if dir == Up && (count.bytes > moved || count.bytes == 0) || dir == Down && count.bytes < moved {
						t.Errorf("%s: the server counted %d, this side %d", what, count.bytes, moved)
					}
					if !regexp.MustCompile(`^[a-z]+`).MatchString(count.congestionControl) {
						t.Errorf("%s: congestion control %q", what, count.congestionControl)
					}
				}
			}
			if strings.Contains(p.text(), "error") || strings.Contains(p.text(), "unexpectedly") {
				t.Errorf("the server complains:\n%s", p.text())
			}
			_ = p.cmd.Process.Kill()
			<-p.ended
			iperf3NothingLeft(t, before)
		})
	}
}

func TestIperf3DebianOneOff(t *testing.T) {
	for _, dir := range []Direction{Down, Up} {
		p := startIperf3(t, "127.0.0.1", "-1")
		s := newIperf3(&Options{Connections: 2, WarmUp: time.Second, Window: time.Second}, dir, iperf3Dial(p.addr))
		all, err := s.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		iperf3Pump(t, all, dir, 100*time.Millisecond)
		if count := s.close(t.Context()); count == nil || count.bytes == 0 || s.problem != nil {
			t.Errorf("%s: %+v, %v", dir, count, s.problem)
		}
		select {
		case <-p.ended:
			if p.err != nil {
				t.Errorf("%s: the server ended with %v:\n%s", dir, p.err, p.text())
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: the server still runs", dir)
		}
	}
}

func TestIperf3DebianBusy(t *testing.T) {
	p := startIperf3(t, "127.0.0.1")
	o := &Options{Connections: 1, WarmUp: time.Second, Window: time.Second}
	first := newIperf3(o, Up, iperf3Dial(p.addr))
	all, err := first.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second := newIperf3(o, Up, iperf3Dial(p.addr))
	if _, err = second.open(t.Context()); !errors.Is(err, errIperf3Busy) {
		t.Errorf("beside another: %v", err)
	}
	iperf3Pump(t, all, Up, 100*time.Millisecond)
	if count := first.close(t.Context()); count == nil || first.problem != nil {
		t.Errorf("the first one was disturbed: %+v, %v", count, first.problem)
	}
	// And it is free at once.
	if _, err = second.open(t.Context()); err != nil {
		t.Error(err)
	}
	second.close(t.Context())
}

func TestIperf3DebianCancelled(t *testing.T) {
	p := startIperf3(t, "127.0.0.1")
	o := &Options{Connections: 4, WarmUp: time.Second, Window: time.Second}
	for _, dir := range []Direction{Down, Up} {
		ctx, cancel := context.WithCancel(t.Context())
		s := newIperf3(o, dir, iperf3Dial(p.addr))
		all, err := s.open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		iperf3Pump(t, all, dir, 50*time.Millisecond)
		cancel()
		start := time.Now()
		if count := s.close(ctx); count != nil {
			t.Errorf("%s: %+v", dir, count)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s: took %v", dir, took)
		}
		p.wait(p.ready) // free at once
	}
}

func TestIperf3DebianKilled(t *testing.T) {
	for _, dir := range []Direction{Down, Up} {
		p := startIperf3(t, "127.0.0.1")
		s := newIperf3(&Options{Connections: 2, WarmUp: time.Second, Window: time.Second}, dir, iperf3Dial(p.addr))
		all, err := s.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err = p.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		<-p.ended
		for _, st := range all {
			_ = st.conn.SetDeadline(time.Now().Add(5 * time.Second))
			if dir == Down {
				_, err = io.Copy(io.Discard, st.conn)
			} else {
				for err == nil {
					_, err = st.conn.Write(make([]byte, 4096))
				}
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the streams go on", dir)
			}
		}
		if count := s.close(t.Context()); count != nil || !errors.Is(s.problem, errIperf3Ended) {
			t.Errorf("%s: %+v, %v", dir, count, s.problem)
		}
		if _, err = s.open(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestIperf3DebianWantsUser(t *testing.T) {
	dir := t.TempDir()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	for name, text := range map[string]string{"key.pem": string(block), "users.csv": "someone,2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := startIperf3(t, "127.0.0.1", "--rsa-private-key-path", filepath.Join(dir, "key.pem"), "--authorized-users-path", filepath.Join(dir, "users.csv"))
	s := newIperf3(&Options{Connections: 1, WarmUp: time.Second, Window: time.Second}, Down, iperf3Dial(p.addr))
	if _, err := s.open(t.Context()); !errors.Is(err, errIperf3Auth) {
		t.Error(err)
	}
}

func TestIperf3DebianLimitsRate(t *testing.T) {
	for _, dir := range []Direction{Down, Up} {
		p := startIperf3(t, "127.0.0.1", "--server-bitrate-limit", "1M/1")
		res, err := Run(t.Context(), Options{
			URL: "iperf3://" + p.addr.String(), Direction: dir, Connections: 1, Window: 3 * time.Second, WarmUp: time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		r := res.Down
		if dir == Up {
			r = res.Up
		}
		// Old servers hang up without a word, which is a reset if they have not read all.
		words := []string{"the server closed the control connection", "the control connection was reset", "the server limits the rate, and a test without a limit is above it"}
		if r == nil || !slices.Contains(words, r.Error) || res.Verdict != Inconclusive {
			t.Errorf("%s: %s, %+v", dir, res.Verdict, r)
		}
	}
}
