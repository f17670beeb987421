package netbox_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/cmd/ontlab/netbox"
)

// echo answers UDP on a host until stop is called.
func echo(ctx context.Context, h *netbox.Host, addr string) (stop func(), err error) {
	c, err := h.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, err
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
	return func() { c.Close(); <-done }, nil
}

func startEcho(t *testing.T, h *netbox.Host, addr string) {
	t.Helper()
	stop, err := echo(t.Context(), h, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
}

// ask sends one datagram and waits for its echo. The answer may need one more:
// while an address is being resolved, little is kept.
func ask(h *netbox.Host, addr string, wait time.Duration) error {
	c, err := h.Dial(context.Background(), "udp", addr)
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

func TestTwoHostsReachEachOther(t *testing.T) {
	b := newBox(t)
	a, z := newHost(t, b, "a"), newHost(t, b, "z")
	must(t,
		b.Cable(a, "eth0", z, "wan0", netbox.CableOptions{MTU: 1508, MACA: "02:00:00:00:00:0a"}),
		a.Address("eth0", "10.0.0.1/24"), z.Address("wan0", "10.0.0.2/24"),
		a.Address("eth0", "10.0.0.1/24"), // again
		a.Address("eth0", "fd00::1/64"), z.Address("wan0", "fd00::2/64"),
	)
	startEcho(t, z, ":7")
	must(t, ask(a, "10.0.0.2:7", patience), ask(a, "[fd00::2]:7", patience))
	var own *net.Interface
	must(t, a.Do(func() (err error) {
		own, err = net.InterfaceByName("eth0")
		return err
	}))
	if own.MTU != 1508 || own.HardwareAddr.String() != "02:00:00:00:00:0a" {
		t.Errorf("eth0 is %+v", own)
	}
	must(t, a.MTU("eth0", 1400), a.MAC("eth0", "02:00:00:00:00:0b"), z.Down("wan0"))
	out, err := a.Run(t.Context(), "cat", "/sys/class/net/eth0/mtu", "/sys/class/net/eth0/address", "/sys/class/net/eth0/carrier")
	if want := "1400\n02:00:00:00:00:0b\n0\n"; err != nil || string(out) != want {
		t.Errorf("got %q, want %q: %v", out, want, err)
	}
	must(t, z.Up("wan0"), ask(a, "10.0.0.2:7", patience), z.Remove("wan0"))
	if err := a.Up("eth0"); err == nil {
		t.Error("one end of the cable is left")
	}
}

// A cable carries what a wire does: frames that fit, with their checksums.
func TestCableIsAWire(t *testing.T) {
	b := newBox(t)
	a, z := newHost(t, b, "a"), newHost(t, b, "z")
	must(t,
		b.Cable(a, "eth0", z, "eth0", netbox.CableOptions{}),
		a.Address("eth0", "10.0.0.1/24"), z.Address("eth0", "10.0.0.2/24"),
	)
	var tap int
	must(t, z.Do(func() (err error) {
		tap, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_IP)))
		return err
	}))
	defer unix.Close(tap)

	l, err := z.Listen(t.Context(), "tcp", "10.0.0.2:80")
	must(t, err)
	defer l.Close()
	const total = 60_000 // no more than the tap keeps
	received := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			received <- -1
			return
		}
		defer c.Close()
		n, _ := io.Copy(io.Discard, c)
		received <- n
	}()
	c, err := a.Dial(t.Context(), "tcp", "10.0.0.2:80")
	must(t, err)
	_, err = c.Write(make([]byte, total))
	must(t, err, c.Close())
	if n := <-received; n != total {
		t.Fatalf("%d bytes of %d came", n, total)
	}
	frames, buf := 0, make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(tap, buf, 0)
		if err != nil {
			break
		}
		if sent, ok := from.(*unix.SockaddrLinklayer); !ok || sent.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		frames++
		if n > 14+1500 {
			t.Fatalf("a frame of %d bytes", n)
		}
		if ip := buf[14:n]; !validTCP(ip[:int(ip[2])<<8|int(ip[3])]) {
			t.Fatalf("a bad checksum in % x", ip)
		}
	}
	if frames < total/1460 {
		t.Errorf("%d frames", frames)
	}
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

// validTCP says whether the TCP checksum of an IPv4 packet is right, as RFC
// 9293, section 3.1 has it.
func validTCP(ip []byte) bool {
	segment := ip[int(ip[0]&15)*4:]
	sum := uint32(unix.IPPROTO_TCP + len(segment))
	for _, part := range [][]byte{ip[12:20], segment} {
		for i, octet := range part {
			sum += uint32(octet) << (8 * (1 - i%2))
		}
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return sum == 0xffff
}

func TestBridgeConnectsItsPorts(t *testing.T) {
	b := newBox(t)
	olt, a, z := newHost(t, b, "olt"), newHost(t, b, "a"), newHost(t, b, "z")
	must(t,
		b.Cable(olt, "p1", a, "eth0", netbox.CableOptions{}), b.Cable(olt, "p2", z, "eth0", netbox.CableOptions{}),
		a.Address("eth0", "10.0.0.1/24"), z.Address("eth0", "10.0.0.2/24"),
		olt.Bridge("br0", netbox.BridgeOptions{Snooping: true, Querier: true}, "p1"),
		olt.Bridge("br0", netbox.BridgeOptions{Snooping: true, Querier: true}, "p2"),
	)
	startEcho(t, z, ":7")
	must(t, ask(a, "10.0.0.2:7", patience))
	out, err := olt.Run(t.Context(), "sh", "-c", "cd /sys/class/net/br0; cat bridge/multicast_snooping bridge/multicast_querier; ls brif")
	if want := "1\n1\np1\np2\n"; err != nil || string(out) != want {
		t.Errorf("got %q, want %q: %v", out, want, err)
	}
	must(t, olt.Bridge("br0", netbox.BridgeOptions{}))
	if out, err := olt.Run(t.Context(), "cat", "/sys/class/net/br0/bridge/multicast_snooping"); err != nil || string(out) != "0\n" {
		t.Errorf("snooping is %q: %v", out, err)
	}
}

func TestHostForwardsOnlyIfTold(t *testing.T) {
	b := newBox(t)
	a, r, z := newHost(t, b, "a"), newHost(t, b, "r"), newHost(t, b, "z")
	must(t,
		b.Cable(a, "eth0", r, "left", netbox.CableOptions{}), b.Cable(r, "right", z, "eth0", netbox.CableOptions{}),
		a.Address("eth0", "10.0.1.1/24"), r.Address("left", "10.0.1.2/24"),
		r.Address("right", "10.0.2.2/24"), z.Address("eth0", "10.0.2.1/24"),
		a.Address("eth0", "fd00:1::1/64"), r.Address("left", "fd00:1::2/64"),
		r.Address("right", "fd00:2::2/64"), z.Address("eth0", "fd00:2::1/64"),
		a.Route("default", "10.0.1.2"), z.Route("10.0.1.0/24", "10.0.2.2"),
		a.Route("default", "fd00:1::2"), z.Route("default", "fd00:2::2"),
	)
	startEcho(t, z, ":7")
	if err := ask(a, "10.0.2.1:7", 200*time.Millisecond); err == nil {
		t.Error("a host that is no router forwards IPv4")
	}
	if err := ask(a, "[fd00:2::1]:7", 200*time.Millisecond); err == nil {
		t.Error("a host that is no router forwards IPv6")
	}
	must(t, r.Forward(true), ask(a, "10.0.2.1:7", patience), ask(a, "[fd00:2::1]:7", patience))
	must(t, r.Forward(false))
	if err := ask(a, "10.0.2.1:7", 200*time.Millisecond); err == nil {
		t.Error("it still forwards")
	}
}

func TestRouteForms(t *testing.T) {
	b := newBox(t)
	a, z := newHost(t, b, "a"), newHost(t, b, "z")
	must(t,
		b.Cable(a, "wan0", z, "eth0", netbox.CableOptions{}), a.Address("wan0", "10.0.0.1/24"),
		a.Route("default", "10.0.0.2"), a.Route("default", "10.0.0.3"), // instead
		a.Route("192.0.2.0/24", "wan0"), a.Route("default", "fe80::1%wan0"), a.Route("2001:db8::/32", "wan0"),
	)
	out, err := a.Run(t.Context(), "ip", "-4", "route")
	if want := "default via 10.0.0.3 dev wan0 \n10.0.0.0/24 dev wan0 proto kernel scope link src 10.0.0.1 \n192.0.2.0/24 dev wan0 scope link \n"; err != nil || string(out) != want {
		t.Errorf("got %q, want %q: %v", out, want, err)
	}
	out, err = a.Run(t.Context(), "ip", "-6", "route")
	for _, want := range []string{"default via fe80::1 dev wan0", "2001:db8::/32 dev wan0"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("got %q, want %q: %v", out, want, err)
		}
	}
	for _, bad := range [][2]string{{"default", "nowhere"}, {"10.0.0.0", "wan0x"}, {"10.0.0.0/33", "wan0"}} {
		if err := a.Route(bad[0], bad[1]); err == nil {
			t.Errorf("route to %s by %s was set", bad[0], bad[1])
		}
	}
}

func TestHostsHaveTheirOwnFiles(t *testing.T) {
	b := newBox(t)
	a := newHost(t, b, "a")
	out, err := a.Run(t.Context(), "sh", "-c", "ls /sys/class/net; hostname; ls /run; pwd; echo nameserver 192.0.2.53 > /etc/resolv.conf; echo x > /run/mine; echo y > /var/log/mine; echo z > /var/lib/mine")
	if want := "lo\na\n" + a.Dir() + "\n"; err != nil || string(out) != want {
		t.Errorf("got %q, want %q: %v", out, want, err)
	}
	for _, path := range []string{"/run/mine", "/var/log/mine", "/var/lib/mine"} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is seen outside", path)
		}
		if _, err := os.Stat(a.Dir() + "/root" + path); err != nil {
			t.Error(err)
		}
	}
	if text, err := os.ReadFile("/etc/resolv.conf"); err == nil && strings.Contains(string(text), "192.0.2.53") {
		t.Error("resolv.conf of the machine was written")
	}
	must(t, a.WriteFile("conf/radius", []byte("secret"), 0o600), a.WriteFile("/etc/ppp/options", []byte("noauth\n"), 0o644))
	out, err = a.Run(t.Context(), "cat", "conf/radius", "/etc/ppp/options")
	if err != nil || string(out) != "secretnoauth\n" {
		t.Errorf("got %q: %v", out, err)
	}
}

// The lab's directory, and what is to be kept, is seen by a host though it is
// below a directory that the host has its own of.
func TestDirectoriesAreKept(t *testing.T) {
	needBox(t)
	for _, base := range []string{"/run", "/var/lib", "/var/log"} {
		dir, err := os.MkdirTemp(base, "netbox-test-") //nolint:usetesting // there, and nowhere else
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
		keep := filepath.Join(dir, "keep")
		must(t, os.Mkdir(keep, 0o755), os.WriteFile(filepath.Join(keep, "f"), []byte("kept"), 0o600))
		b, err := netbox.Open(netbox.Options{Dir: filepath.Join(dir, "lab"), Keep: []string{keep}})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		a := newHost(t, b, "a")
		must(t, a.WriteFile("mine", []byte("mine"), 0o600))
		out, err := a.Run(t.Context(), "cat", a.Dir()+"/mine", keep+"/f")
		if err != nil || string(out) != "minekept" {
			t.Errorf("%s: got %q: %v", base, out, err)
		}
		if text, err := os.ReadFile(a.Dir() + "/mine"); err != nil || string(text) != "mine" {
			t.Errorf("outside: %q: %v", text, err)
		}
		must(t, b.Close())
	}
}

func TestDoIsInsideNestedAndConcurrent(t *testing.T) {
	b := newBox(t)
	hosts := []*netbox.Host{newHost(t, b, "a"), newHost(t, b, "b"), newHost(t, b, "c")}
	name := func() (string, error) {
		text, err := os.ReadFile("/proc/sys/kernel/hostname")
		return strings.TrimSpace(string(text)), err
	}
	before, err := name()
	must(t, err)
	var wg sync.WaitGroup
	for range 20 {
		for i, h := range hosts {
			wg.Go(func() {
				other := hosts[(i+1)%len(hosts)]
				err := h.Do(func() error {
					if got, err := name(); err != nil || got != h.Name() {
						return fmt.Errorf("in %q, not %q: %w", got, h.Name(), err)
					}
					return other.Do(func() error {
						if got, err := name(); err != nil || got != other.Name() {
							return fmt.Errorf("in %q, not %q: %w", got, other.Name(), err)
						}
						return nil
					})
				})
				if err != nil {
					t.Error(err)
				}
				if got, err := name(); err != nil || got != before {
					t.Errorf("a thread of %q came back: %v", got, err)
				}
			})
		}
	}
	wg.Wait()
	if err := hosts[0].Do(func() error { return os.ErrInvalid }); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("error %v", err)
	}
	if _, err := hosts[0].Dial(t.Context(), "tcp", "localhost:1"); err == nil || !strings.Contains(err.Error(), "not an IP address") {
		t.Errorf("a name was looked up: %v", err)
	}
}

func TestBadUse(t *testing.T) {
	b := newBox(t)
	a := newHost(t, b, "a")
	for _, name := range []string{"", "a", "x/y", "..", "-x", strings.Repeat("x", 64)} {
		if _, err := b.Host(name); err == nil {
			t.Errorf("host %q was made", name)
		}
	}
	for what, err := range map[string]error{
		"cable with a bad address":   b.Cable(a, "x", a, "y", netbox.CableOptions{MACA: "zz"}),
		"cable with a long name":     b.Cable(a, "a-name-too-long-for-linux", a, "y", netbox.CableOptions{}),
		"address for nothing":        a.Address("eth9", "10.0.0.1/24"),
		"address without length":     a.Address("lo", "10.0.0.1"),
		"VLAN 0":                     a.VLAN("lo", 0, "v"),
		"VLAN 4095":                  a.VLAN("lo", 4095, "v"),
		"parameter that isn't":       a.Sysctl("net.ipv4.no_such", "1"),
		"loss of more than all":      a.Impair("lo", netbox.Impairment{LossRatio: 1.1}),
		"jitter longer than delay":   a.Impair("lo", netbox.Impairment{Delay: 1, Jitter: 2}),
		"nothing to be overtaken":    a.Impair("lo", netbox.Impairment{ReorderRatio: 0.1}),
		"bridge with a missing port": a.Bridge("br0", netbox.BridgeOptions{}, "p1"),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	must(t, b.Close())
	if _, err := b.Host("z"); !errors.Is(err, netbox.ErrClosed) {
		t.Errorf("host of a closed lab: %v", err)
	}
	if err := a.Do(func() error { return nil }); !errors.Is(err, netbox.ErrClosed) {
		t.Errorf("Do on a closed lab: %v", err)
	}
	if _, err := a.Start(t.Context(), netbox.Service{Path: "true"}); !errors.Is(err, netbox.ErrClosed) {
		t.Errorf("Start on a closed lab: %v", err)
	}
	if _, err := a.Run(t.Context(), "true"); !errors.Is(err, netbox.ErrClosed) {
		t.Errorf("Run on a closed lab: %v", err)
	}
}
