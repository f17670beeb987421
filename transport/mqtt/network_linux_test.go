package mqtt

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSourceAddress(t *testing.T) {
	noLeaks(t)
	from := make(chan string, 10)
	s := newStub(t, func(l *link) {
		from <- l.RemoteAddr().String()
		l.accept()
		l.behave(nil)
	})
	for _, device := range []string{"", "lo"} {
		o := testOptions(s.url)
		o.SourceAddress, o.Interface = "127.0.0.9", device
		c := mustDial(t, o)
		if host, _, _ := net.SplitHostPort(<-from); host != "127.0.0.9" {
			t.Errorf("came from %s", host)
		}
		if err := c.moved(); err != nil {
			t.Errorf("nothing changed, and yet: %v", err)
		}
	}
	o := testOptions(s.url)
	o.SourceAddress = "192.0.2.77"
	if _, err := Dial(testContext(t), o); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("from an address that we do not have: %v", err)
	}
	o.SourceAddress = "::1"
	if _, err := Dial(testContext(t), o); err == nil {
		t.Error("connected to IPv4 from IPv6")
	}
	o.SourceAddress, o.Interface = "127.0.0.9", "nosuch0"
	if _, err := Dial(testContext(t), o); err == nil {
		t.Error("connected through an interface that is not there")
	}
}

// inNamespace runs the test again in a network namespace of its own and
// reports whether this is that run.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const key = "MQTT_TEST_NAMESPACE"
	if os.Getenv(key) == t.Name() {
		return true
	}
	skip := func(why string, err error) {
		t.Helper()
		if os.Getenv("CI") == "true" && !testing.Short() {
			t.Fatal(why, err)
		}
		t.Skip(why, err)
	}
	if testing.Short() {
		skip("slow where it is emulated", nil)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		skip("no ip (Debian package iproute2)", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), key+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		t.Errorf("%s", out)
	default:
		skip("no network namespace", err)
	}
	return false
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// TestNetworkChanged moves the way to the broker under a living session.
func TestNetworkChanged(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	noLeaks(t)
	ip(t, "link set lo up")
	for _, a := range []string{"10.0.0.1/32", "10.0.0.2/32", "10.9.9.9/32"} {
		ip(t, "addr add "+a+" dev lo")
	}
	const route = " local 10.9.9.9 dev lo table local src "
	ip(t, "route replace"+route+"10.0.0.1")

	from := make(chan string, 10)
	s := newStubAt(t, "10.9.9.9:0", func(l *link) {
		host, _, _ := net.SplitHostPort(l.RemoteAddr().String())
		from <- host
		l.accept()
		l.behave(nil)
	})
	urgent := false
	d, _ := testDevice(t, func(o *DeviceOptions) {
		o.Dial.Broker = s.url
		o.Backoff = Backoff{Spread: time.Hour}
		o.Rand = func() float64 { return 0.5 }
		o.Urgent = func() bool { return urgent }
	})
	d.hurry <- struct{}{} // the first connection at once
	stop := serve(t, d)
	want := func(address string) {
		t.Helper()
		select {
		case got := <-from:
			if got != address {
				t.Fatalf("connected from %s, want %s", got, address)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no connection from %s: %+v", address, d.Status())
		}
		eventually(t, "connected", func() bool { return d.Status().Connected })
	}
	want("10.0.0.1")
	for range 50 {
		d.NetworkChanged() // nothing has
	}
	ip(t, "route replace"+route+"10.0.0.1 metric 0")
	d.NetworkChanged()
	if s := d.Status(); !s.Connected || s.Connections != 1 {
		t.Fatalf("same address, and yet: %+v", s)
	}

	// Another address, while an order is open: again at once.
	urgent = true
	ip(t, "route replace"+route+"10.0.0.2")
	for range 5 {
		d.NetworkChanged()
	}
	want("10.0.0.2")

	// No way at all: the end; then it waits, and tries when there is one.
	ip(t, "route del local 10.9.9.9 dev lo table local")
	ip(t, "route add unreachable 10.9.9.9")
	d.NetworkChanged()
	eventually(t, "attempt failed", func() bool { s := d.Status(); return !s.Connected && s.Attempts > 2 })
	ip(t, "route del unreachable 10.9.9.9")
	ip(t, "route add"+route+"10.0.0.1")
	d.NetworkChanged()
	want("10.0.0.1")

	// Nobody waits: after the first wait of the backoff, half an hour here.
	urgent = false
	ip(t, "route replace"+route+"10.0.0.2")
	d.NetworkChanged()
	eventually(t, "waiting", func() bool { return d.Status().NextS > 1700 })
	d.NetworkChanged()
	time.Sleep(50 * time.Millisecond)
	if s := d.Status(); s.NextS < 1700 {
		t.Errorf("hurried for nobody: %+v", s)
	}
	stop()
}
