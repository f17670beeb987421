//go:build linux

package mqtt

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ontagent/transport"
)

// mosquitto is the real broker, started and stopped at will on one port.
type mosquitto struct {
	t    *testing.T
	conf string
	addr string
	cmd  *exec.Cmd
	out  *strings.Builder
}

// needMosquitto skips the test where there is no broker; in CI there has to be
// one. Under qemu-user the broker is the machine's own and works as well.
func needMosquitto(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("no mosquitto (Debian package mosquitto)")
	}
	t.Skip("no mosquitto (Debian package mosquitto)")
	return ""
}

// startMosquitto starts a broker with more lines of configuration.
func startMosquitto(t *testing.T, more ...string) *mosquitto {
	t.Helper()
	path := needMosquitto(t)
	for range 5 { // another may take the port between here and there
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().String()
		_ = ln.Close()
		_, port, _ := net.SplitHostPort(addr)
		conf := filepath.Join(t.TempDir(), "mosquitto.conf")
		lines := append([]string{
			"listener " + port + " 127.0.0.1", "allow_anonymous true", "persistence false", "log_dest stderr",
			// Run by root, it would change to a user who cannot read our files.
			"user root",
		}, more...)
		if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		m := &mosquitto{t: t, conf: conf, addr: addr}
		if m.start(path) {
			t.Cleanup(m.stop)
			return m
		}
	}
	t.Fatal("mosquitto did not start")
	return nil
}

func (m *mosquitto) start(path string) bool {
	m.t.Helper()
	m.out = &strings.Builder{}
	m.cmd = exec.CommandContext(context.Background(), path, "-c", m.conf)
	m.cmd.Stderr = m.out
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	for range 500 {
		if c, err := net.DialTimeout("tcp", m.addr, time.Second); err == nil {
			_ = c.Close()
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.stop()
	m.t.Logf("mosquitto: %s", m.out)
	return false
}

func (m *mosquitto) stop() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	m.cmd = nil
}

// listener is a second client that takes down what it hears.
type listener struct {
	conn *Conn
	mu   sync.Mutex
	got  []Packet
	done chan struct{}
}

func listen(t *testing.T, o Options, filters ...string) *listener {
	t.Helper()
	o.ClientID = fmt.Sprintf("listener%d", time.Now().UnixNano())
	o.InboundDepth = 10000
	l := &listener{conn: mustDial(t, o), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for {
			select {
			case p := <-l.conn.Inbound():
				l.mu.Lock()
				l.got = append(l.got, p)
				l.mu.Unlock()
			case <-l.conn.Lost():
				return
			}
		}
	}()
	t.Cleanup(func() {
		shut(t, l.conn)
		<-l.done
	})
	if err := l.conn.Subscribe(testContext(t), filters...); err != nil {
		t.Fatal(err)
	}
	return l
}

// find returns the last packet on a topic whose payload holds part.
func (l *listener) find(topic, part string) (Packet, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range slices.Backward(l.got) {
		if strings.HasSuffix(p.Topic, topic) && strings.Contains(string(p.Payload), part) {
			return p, true
		}
	}
	return Packet{}, false
}

func (l *listener) wait(t *testing.T, topic, part string) Packet {
	t.Helper()
	eventually(t, topic+" "+part, func() bool { _, ok := l.find(topic, part); return ok })
	p, _ := l.find(topic, part)
	return p
}

func TestMosquittoWillAndRetainedBirth(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	o := testOptions("tcp://" + m.addr)
	early := listen(t, o, "ont/1/#")
	d, q := testDevice(t, func(do *DeviceOptions) {
		do.Dial = o
		do.Birth = func() json.RawMessage { return json.RawMessage(`{"model":"X"}`) }
	})
	stop := serve(t, d)
	early.wait(t, "/state", "online")
	early.wait(t, "/pending", `"session":1`)
	queueTelemetry(t, q, 3)
	early.wait(t, "/telemetry/link", `"n":2`)

	late := listen(t, o, "ont/1/isp/+/state", "ont/1/isp/+/info")
	if p := late.wait(t, "/info", `"model":"X"`); !p.Retained {
		t.Error("birth is not retained")
	}
	if p := late.wait(t, "/state", "online"); !p.Retained {
		t.Error("state is not retained")
	}

	// The line is cut: the will is published, the device comes back.
	d.mu.Lock()
	conn := d.conn
	d.mu.Unlock()
	_ = conn.guard.Close()
	late.wait(t, "/state", `"state":"offline","session":1`)
	late.wait(t, "/state", `"state":"online","session":2`)

	stop()
	late.wait(t, "/state", `"state":"offline","session":2`)
	last := listen(t, o, "ont/1/isp/+/state")
	if p := last.wait(t, "/state", "offline"); !p.Retained {
		t.Error("offline is not retained")
	}
}

func TestMosquittoStoppedAndStarted(t *testing.T) {
	noLeaks(t)
	path := needMosquitto(t)
	m := startMosquitto(t)
	o := testOptions("tcp://" + m.addr)
	d, q := testDevice(t, func(do *DeviceOptions) { do.Dial = o })
	serve(t, d)
	queueTelemetry(t, q, 5)
	eventually(t, "first ones sent", func() bool { return depth(q) == 0 })

	m.stop()
	eventually(t, "loss seen", func() bool { return !d.Status().Connected })
	queueTelemetry(t, q, 200)
	if s := d.Status(); s.LastError == "" {
		t.Error("no error told")
	}
	if !m.start(path) {
		t.Fatal("broker did not start again")
	}
	l := listen(t, o, "ont/1/#")
	eventually(t, "everything sent", func() bool { return depth(q) == 0 })
	// The listener may have come after the device: ask the counters too.
	if s := d.Status(); s.Published != 205 {
		t.Errorf("%d published, want 205", s.Published)
	}
	queueTelemetry(t, q, 1)
	l.wait(t, "/telemetry/link", `"seq":206`)
}

func TestMosquittoOversizeInboundClosesOnlyThatConnection(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	o := testOptions("tcp://" + m.addr)
	commands := make(chan string, 10)
	d, _ := testDevice(t, func(do *DeviceOptions) {
		do.Dial = o
		do.Inbound = func(in transport.Inbound) { commands <- in.Name }
	})
	serve(t, d)
	eventually(t, "connected", func() bool { return d.Status().Connected })
	other := o
	other.ClientID = "operator"
	op := mustDial(t, other)
	ctx := testContext(t)
	const cmd = "ont/1/isp/HWTC12345678/cmd/"
	if err := op.Publish(ctx, cmd+"big", 1, false, make([]byte, 70<<10)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "second connection", func() bool { s := d.Status(); return s.Connected && s.Connections == 2 })
	if op.Err() != nil {
		t.Error("the sender lost its connection too")
	}
	if err := op.Publish(ctx, cmd+"small", 1, false, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if got := <-commands; got != "small" {
		t.Errorf("command %q", got)
	}
}

func TestMosquittoTLS(t *testing.T) {
	noLeaks(t)
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	server := ca.issue("broker", nil)
	m := startMosquitto(t,
		"cafile "+ca.CA, "certfile "+server.cert, "keyfile "+server.key,
		"require_certificate true", "use_identity_as_username true")
	ok := testOptions("ssl://" + m.addr)
	ok.TLS.CAFile = ca.CA
	own := ca.issue("HWTC12345678", nil)
	ok.TLS.CertFile, ok.TLS.KeyFile = own.cert, own.key

	l := listen(t, ok, "ont/1/#")
	d, _ := testDevice(t, func(do *DeviceOptions) { do.Dial = ok })
	stop := serve(t, d)
	l.wait(t, "/state", "online")
	stop()

	dial := func(edit func(*Options)) error {
		o := ok
		edit(&o)
		c, err := Dial(testContext(t), o)
		if err == nil {
			shut(t, c)
		}
		return err
	}
	if err := dial(func(*Options) {}); err != nil {
		t.Errorf("good certificate: %v", err)
	}
	var unknown x509.UnknownAuthorityError
	if err := dial(func(o *Options) { o.TLS.CAFile = stranger.CA }); !errors.As(err, &unknown) {
		t.Errorf("broker of another CA: %v", err)
	}
	if err := dial(func(o *Options) { o.TLS.CertFile, o.TLS.KeyFile = "", "" }); !errors.Is(err, ErrRefusedCredentials) {
		t.Errorf("no client certificate: %v", err)
	}
	foreign := stranger.issue("HWTC12345678", nil)
	if err := dial(func(o *Options) { o.TLS.CertFile, o.TLS.KeyFile = foreign.cert, foreign.key }); !errors.Is(err, ErrRefusedCredentials) {
		t.Errorf("client certificate of another CA: %v", err)
	}
	var host x509.HostnameError
	if err := dial(func(o *Options) { o.TLS.ServerName = "other.example" }); !errors.As(err, &host) {
		t.Errorf("broker by another name: %v", err)
	}
	at := func(clock time.Time, trusted bool) func(*Options) {
		return func(o *Options) { o.Clock = func() (time.Time, bool) { return clock, trusted } }
	}
	if err := dial(at(time.Unix(0, 0), true)); !errors.Is(err, ErrCertificateTime) {
		t.Errorf("clock at 1970: %v", err)
	}
	if err := dial(at(time.Unix(0, 0), false)); err != nil {
		t.Errorf("clock at 1970, not trusted: %v", err)
	}
	for _, trusted := range []bool{true, false} {
		if err := dial(at(time.Now().AddDate(1, 0, 0), trusted)); err == nil || errors.Is(err, ErrCertificateTime) {
			t.Errorf("expired certificate, trusted %v: %v", trusted, err)
		}
	}
	// Renewed in place: the next connection uses it.
	o := ok
	o.TLS.CertFile, o.TLS.KeyFile = filepath.Join(t.TempDir(), "c"), filepath.Join(t.TempDir(), "k")
	copyFile(t, foreign.cert, o.TLS.CertFile)
	copyFile(t, foreign.key, o.TLS.KeyFile)
	if _, err := Dial(testContext(t), o); err == nil {
		t.Fatal("the wrong certificate was accepted")
	}
	copyFile(t, ok.TLS.CertFile, o.TLS.CertFile)
	copyFile(t, ok.TLS.KeyFile, o.TLS.KeyFile)
	shut(t, mustDial(t, o))
}

func TestMosquittoRefusesUser(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t, "allow_anonymous false")
	if _, err := Dial(testContext(t), testOptions("tcp://"+m.addr)); !errors.Is(err, ErrNotAuthorized) {
		t.Errorf("Dial = %v, want ErrNotAuthorized", err)
	}
}

// TestMosquittoNothingLeaks connects and closes, well and badly, and counts
// descriptors.
func TestMosquittoNothingLeaks(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	o := testOptions("tcp://" + m.addr)
	fds := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc")
		}
		return len(entries)
	}
	round := func(i int) {
		c, err := Dial(testContext(t), o)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Publish(testContext(t), "x", 1, false, []byte("x"))
		if i%2 == 0 {
			_ = c.guard.Close()
		}
		shut(t, c)
	}
	round(0)
	before, goroutines := fds(), runtime.NumGoroutine()
	for i := range 50 {
		round(i)
	}
	eventually(t, "descriptors and goroutines as before", func() bool {
		return fds() <= before && runtime.NumGoroutine() <= goroutines
	})
}
