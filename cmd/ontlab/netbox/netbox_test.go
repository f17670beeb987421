package netbox_test

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// echo answers UDP on a host until the test ends.
func echo(t *testing.T, h *netbox.Host, addr string) {
	t.Helper()
	c, err := h.ListenPacket(t.Context(), "udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
}

// ask sends one datagram and waits for its echo.
func ask(h *netbox.Host, addr string, wait time.Duration) error {
	c, err := h.Dial(ctxOf(), "udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 10))
	return err
}

func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	t.Fatalf("not within %v: %s: %v", patience, what, err)
}

func TestTwoHostsReachEachOther(t *testing.T) {
	b := newBox(t)
	a, z := newHost(t, b, "a"), newHost(t, b, "z")
	must(t,
		b.Cable(a, "eth0", z, "wan0", netbox.CableOptions{MTU: 1508, MACA: "02:00:00:00:00:0a"}),
		a.Address("eth0", "10.0.0.1/24"), z.Address("wan0", "10.0.0.2/24"),
		a.Address("eth0", "fd00::1/64"), z.Address("wan0", "fd00::2/64"),
	)
	echo(t, z, ":7")
	must(t, ask(a, "10.0.0.2:7", patience), ask(a, "[fd00::2]:7", patience))
	var own *net.Interface
	must(t, a.Do(func() (err error) {
		own, err = net.InterfaceByName("eth0")
		return err
	}))
	if own.MTU != 1508 || own.HardwareAddr.String() != "02:00:00:00:00:0a" {
		t.Errorf("eth0 is %+v", own)
	}
	must(t, z.Down("wan0"))
	eventually(t, "no carrier", func() error {
		out, err := a.Run(t.Context(), "cat", "/sys/class/net/eth0/carrier")
		if err != nil || string(out) != "0\n" {
			return err
		}
		return nil
	})
}

func TestHostsHaveTheirOwnFiles(t *testing.T) {
	b := newBox(t)
	a := newHost(t, b, "a")
	out, err := a.Run(t.Context(), "sh", "-c", "ls /sys/class/net; hostname; cat /etc/hosts; ls /run; pwd; echo nameserver 1.2.3.4 > /etc/resolv.conf; echo x > /run/mine; echo y > /var/log/mine")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", out)
	if !strings.HasPrefix(string(out), "lo\na\n") {
		t.Errorf("got %q", out)
	}
	for _, path := range []string{"/run/mine", "/var/log/mine"} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is seen outside", path)
		}
		if _, err := os.Stat(a.Dir() + "/root" + path); err != nil {
			t.Error(err)
		}
	}
}

func ctxOf() context.Context { return context.Background() }
