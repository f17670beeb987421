package mtu_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/probe/mtu"
)

// host is a network namespace of its own, and a thread in it.
type host struct {
	t     *testing.T
	tid   int
	calls chan func()
}

func newHost(t *testing.T) *host {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	machine := unix.ByteSliceToString(uts.Machine[:])
	if want := map[string]string{"amd64": "x86_64", "386": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]; want != machine && machine != "i686" {
		t.Skipf("needs a kernel of its own kind: %s on %s", runtime.GOARCH, machine)
	}
	if testing.Short() {
		t.Skip("makes network namespaces")
	}
	h := &host{t: t, calls: make(chan func())}
	ready := make(chan error)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		h.tid = unix.Gettid()
		err := unix.Unshare(unix.CLONE_NEWNET)
		ready <- err
		if err != nil {
			return
		}
		for f := range h.calls {
			f()
		}
	}()
	if err := <-ready; err != nil {
		unable(t, "cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		close(h.calls)
		<-ended
	})
	h.ip("link", "set", "lo", "up")
	h.sysctl("ipv6/conf/default/accept_dad", "0") // a router with tentative addresses finds no neighbours
	h.sysctl("ipv4/icmp_ratelimit", "0")
	return h
}

// unable skips a test, but not in CI.
func unable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// do runs f on the host's thread: sockets and programs begun there stay there.
func (h *host) do(f func()) {
	done := make(chan struct{})
	h.calls <- func() {
		defer close(done)
		f()
	}
	<-done
}

func (h *host) ip(args ...string) { h.t.Helper(); h.run("ip", args...) }

func (h *host) run(name string, args ...string) {
	h.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		unable(h.t, "needs %s: %v", name, err)
	}
	h.do(func() {
		var out bytes.Buffer
		cmd := exec.CommandContext(h.t.Context(), path, args...)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			h.t.Errorf("%s %v: %v: %s", name, args, err, out.Bytes())
		}
	})
}

// cable connects two hosts.
func cable(a *host, aName string, z *host, zName string) {
	a.t.Helper()
	a.ip("link", "add", aName, "type", "veth", "peer", "name", zName, "netns", strconv.Itoa(z.tid))
	a.ip("link", "set", aName, "up")
	z.ip("link", "set", zName, "up")
}

// nginx serves what a server block says.
func (h *host) nginx(port int, block string) {
	h.t.Helper()
	dir := h.t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	text := "daemon off; master_process off; pid " + dir + "/pid; error_log stderr;\nevents {}\nhttp { access_log off; client_body_temp_path " +
		dir + "/b; proxy_temp_path " + dir + "/p; fastcgi_temp_path " + dir + "/f; uwsgi_temp_path " + dir + "/u; scgi_temp_path " + dir + "/s;\n" +
		"server { listen " + strconv.Itoa(port) + "; listen [::]:" + strconv.Itoa(port) + "; root " + dir + ";\n" + block + "\n} }\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "page"), []byte(strings.Repeat("a page of some length\n", 10000)), 0o644); err != nil {
		h.t.Fatal(err)
	}
	path, err := exec.LookPath("nginx")
	if err != nil {
		if path = "/usr/sbin/nginx"; !exists(path) {
			unable(h.t, "needs nginx")
		}
	}
	var out bytes.Buffer
	cmd := exec.Command(path, "-c", config)
	cmd.Stdout, cmd.Stderr = &out, &out
	h.do(func() { err = cmd.Start() })
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if h.t.Failed() {
			h.t.Logf("nginx: %s", out.Bytes())
		}
	})
	for range 200 {
		var conn net.Conn
		h.do(func() { conn, err = net.DialTimeout("tcp", "127.0.0.1:"+strconv.Itoa(port), time.Second) })
		if err == nil {
			conn.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatalf("nginx does not come up: %s", out.Bytes())
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// sysctl sets what the path names below /proc/sys/net.
func (h *host) sysctl(path, value string) {
	h.t.Helper()
	h.do(func() {
		if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0o644); err != nil {
			h.t.Errorf("%s: %v", path, err)
		}
	})
}

// address gives an interface addresses that can be used at once.
func (h *host) address(dev string, addrs ...string) {
	h.t.Helper()
	for _, a := range addrs {
		if strings.Contains(a, ":") {
			h.ip("addr", "add", a, "dev", dev, "nodad")
		} else {
			h.ip("addr", "add", a, "dev", dev)
		}
	}
}

// network is client (wan) – (lan) router (core) – (eth0) server.
type network struct{ client, router, server *host }

func newNetwork(t *testing.T) network {
	t.Helper()
	n := network{newHost(t), newHost(t), newHost(t)}
	cable(n.client, "wan", n.router, "lan")
	cable(n.router, "core", n.server, "eth0")
	n.client.address("wan", "192.0.2.1/24", "2001:db8:1::1/64")
	n.router.address("lan", "192.0.2.254/24", "2001:db8:1::fe/64")
	n.router.address("core", "198.51.100.254/24", "2001:db8:2::fe/64")
	n.server.address("eth0", "198.51.100.1/24", "2001:db8:2::1/64")
	n.router.sysctl("ipv4/ip_forward", "1")
	n.router.sysctl("ipv6/conf/all/forwarding", "1")
	n.client.ip("route", "add", "default", "via", "192.0.2.254")
	n.client.ip("-6", "route", "add", "default", "via", "2001:db8:1::fe")
	n.server.ip("route", "add", "default", "via", "198.51.100.254")
	n.server.ip("-6", "route", "add", "default", "via", "2001:db8:2::fe")
	n.router.run("nft", "add table inet t; add chain inet t o { type filter hook output priority 0; }; add chain inet t f { type filter hook forward priority 0; }")
	return n
}

// mtu sets that of the cable between router and server.
func (n network) mtu(mtu string) {
	n.router.ip("link", "set", "core", "mtu", mtu)
	n.server.ip("link", "set", "eth0", "mtu", mtu)
}

// mute stops the router from telling that a packet is too big.
func (n network) mute() {
	n.router.run("nft", "add rule inet t o icmp type destination-unreachable drop; add rule inet t o icmpv6 type packet-too-big drop")
}

var targets = [...]netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:2::1")}

// measure runs on the client.
func (n network) measure(o mtu.Options) (res mtu.Result, err error) {
	n.client.do(func() { res, err = mtu.Run(n.client.t.Context(), o) })
	return res, err
}

func TestRunOnAPathThatIsWhole(t *testing.T) {
	n := newNetwork(t)
	n.server.nginx(80, "")
	for _, target := range targets {
		res, err := n.measure(mtu.Options{Target: target, Port: 80, Path: "/page", Interface: "wan"})
		if err != nil || res.Outcome != mtu.OK || res.PathMTU != 1500 || res.InterfaceMTU != 1500 || res.ExpectedMTU != 1500 || res.ToldMTU != 0 {
			t.Errorf("%s: %+v, %v", target, res, err)
		}
		header := 40
		if !target.Is4() {
			header = 60
		}
		if tcp := res.TCP; tcp == nil || tcp.Outcome != mtu.TransferOK || tcp.Bytes < 60000 || tcp.AnnouncedMSS != 1500-header || tcp.SentMSS != 1500-header {
			t.Errorf("%s: %+v", target, tcp)
		}
		if res.DurationS > 1 || res.RTTMs <= 0 {
			t.Errorf("%s took %v s at %v ms", target, res.DurationS, res.RTTMs)
		}
		if res, err := n.measure(mtu.Options{Target: target, Expected: 1540}); err != nil || res.Outcome != mtu.Reduced || res.PathMTU != 1500 {
			t.Errorf("%s, more expected than the interface has: %+v, %v", target, res, err)
		}
	}
	// The loopback's is as large as packets get.
	if res, err := n.measure(mtu.Options{Target: netip.MustParseAddr("127.0.0.1"), Expected: 1500}); err != nil || res.Outcome != mtu.OK || res.PathMTU != 65535 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestRunWhereARouterTells(t *testing.T) {
	n := newNetwork(t)
	n.server.nginx(80, "")
	n.mtu("1417")
	for _, target := range targets {
		for _, o := range []mtu.Options{{Target: target, Port: 80, Path: "/page"}, {Target: target, Expected: 1417}} {
			res, err := n.measure(o)
			want := mtu.Reduced
			if o.Expected != 0 {
				want = mtu.OK
			}
			if err != nil || res.Outcome != want || res.PathMTU != 1417 || res.ToldMTU != 1417 || res.InterfaceMTU != 1500 || res.TCP != nil && res.TCP.Outcome != mtu.TransferOK {
				t.Errorf("%s: %+v %+v, %v", target, res, res.TCP, err)
			}
			by := netip.MustParseAddr("192.0.2.254")
			if !target.Is4() {
				by = netip.MustParseAddr("2001:db8:1::fe")
			}
			if res.ToldBy != by {
				t.Errorf("%s: %s tells", target, res.ToldBy)
			}
		}
	}
}

func TestRunIntoABlackHole(t *testing.T) {
	n := newNetwork(t)
	n.server.nginx(80, "")
	n.mtu("1433")
	n.mute()
	for _, target := range targets {
		res, err := n.measure(mtu.Options{Target: target, Port: 80, Path: "/page", Expected: 1492})
		// The server's own interface is small enough for its segments.
		if err != nil || res.Outcome != mtu.BlackHole || res.PathMTU != 1433 || res.ToldMTU != 0 || res.TCP.Outcome != mtu.TransferOK {
			t.Errorf("%s: %+v %+v, %v", target, res, res.TCP, err)
		}
		if res.DurationS > 4 {
			t.Errorf("%s took %v s", target, res.DurationS)
		}
	}
}

func TestRunIntoAnMSSBlackHole(t *testing.T) {
	n := newNetwork(t)
	n.server.nginx(80, "")
	// What comes to the client is cut to size by the router, in silence.
	n.router.ip("route", "add", "192.0.2.1", "dev", "lan", "mtu", "lock", "1400")
	n.router.ip("-6", "route", "add", "2001:db8:1::1", "dev", "lan", "mtu", "lock", "1400")
	n.mute()
	for _, target := range targets {
		res, err := n.measure(mtu.Options{Target: target, Port: 80, Path: "/page"})
		if err != nil || res.Outcome != mtu.MSSBlackHole || res.TCP == nil || res.TCP.Bytes > 1400 || res.TCP.SmallBytes < 60000 {
			t.Errorf("%s: %+v %+v, %v", target, res, res.TCP, err)
		}
		want := 1500 // the router may fragment the replies of IPv4
		if !target.Is4() {
			want = 1400
		}
		if res.PathMTU != want {
			t.Errorf("%s: path MTU %d", target, res.PathMTU)
		}
		if res.DurationS > 6 {
			t.Errorf("%s took %v s", target, res.DurationS)
		}
	}
	// The usual remedy.
	n.router.run("nft", "add rule inet t f tcp flags syn tcp option maxseg size set 1220")
	for _, target := range targets {
		res, err := n.measure(mtu.Options{Target: target, Port: 80, Path: "/page"})
		if err != nil || res.TCP == nil || res.TCP.Outcome != mtu.TransferOK || res.TCP.SentMSS > 1220 || res.Outcome == mtu.MSSBlackHole {
			t.Errorf("%s: %+v %+v, %v", target, res, res.TCP, err)
		}
	}
}

func TestRunWithoutATransfer(t *testing.T) {
	n := newNetwork(t)
	n.server.nginx(80, "location = /short { return 200 short; }")
	var silent net.Listener
	var err error
	n.server.do(func() { silent, err = net.Listen("tcp", ":81") })
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, tt := range []struct {
		port uint16
		path string
		want mtu.TransferOutcome
	}{
		{80, "/short", mtu.TransferShort},
		{81, "/", mtu.TransferStalled},
		{82, "/", mtu.TransferFailed},
	} {
		res, err := n.measure(mtu.Options{Target: targets[0], Port: tt.port, Path: tt.path, Stall: 300 * time.Millisecond})
		if err != nil || res.Outcome != mtu.OK || res.TCP == nil || res.TCP.Outcome != tt.want {
			t.Errorf("%d%s: %+v %+v, %v", tt.port, tt.path, res, res.TCP, err)
		}
	}
	if _, err := n.measure(mtu.Options{Target: targets[0], Port: 80, Path: "/x\r\nX: y"}); err == nil {
		t.Error("a path with a line break is asked for")
	}
}

func TestRunWithoutAWay(t *testing.T) {
	n := newNetwork(t)
	n.client.ip("route", "add", "prohibit", "203.0.113.0/24")
	n.router.run("nft", "add rule inet t f ip daddr 198.51.100.7 drop; add rule inet t f ip daddr 198.51.100.8 reject with icmp type admin-prohibited")
	for _, tt := range []struct {
		target string
		want   mtu.Outcome
	}{
		{"203.0.113.1", mtu.Unreachable},
		{"192.0.3.1", mtu.Unreachable}, // the router has no route; it says so only if it had said nothing else lately
		{"198.51.100.7", mtu.NoReply},
		{"198.51.100.8", mtu.Unreachable},
	} {
		res, err := n.measure(mtu.Options{Target: netip.MustParseAddr(tt.target), Wait: 200 * time.Millisecond})
		if err != nil || res.Outcome != tt.want || res.PathMTU != 0 || (res.Error != "") != (tt.want == mtu.Unreachable) {
			t.Errorf("%s: %+v, %v", tt.target, res, err)
		}
	}
	n.client.ip("route", "del", "default")
	if res, err := n.measure(mtu.Options{Target: targets[0]}); err != nil || res.Outcome != mtu.Unreachable || res.DurationS > 0.5 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestRunOnALossyPath(t *testing.T) {
	n := newNetwork(t)
	n.mtu("1450")
	n.router.run("nft", "add rule inet t f numgen random mod 100 < 10 drop")
	for _, target := range targets {
		if res, err := n.measure(mtu.Options{Target: target}); err != nil || res.Outcome != mtu.Reduced || res.PathMTU != 1450 {
			t.Errorf("%s: %+v, %v", target, res, err)
		}
	}
}

func TestRunFromALinkLocalAddress(t *testing.T) {
	n := newNetwork(t)
	n.router.ip("link", "set", "lan", "down")
	n.router.ip("link", "set", "lan", "address", "02:00:00:00:00:02", "addrgenmode", "eui64")
	n.router.ip("link", "set", "lan", "up")
	target := netip.MustParseAddr("fe80::ff:fe00:2")
	for range 100 { // the addresses come a moment after the carrier
		if res, err := n.measure(mtu.Options{Target: target.WithZone("wan"), Wait: 50 * time.Millisecond}); err == nil && res.Outcome == mtu.OK {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, o := range []mtu.Options{{Target: target.WithZone("wan")}, {Target: target, Interface: "wan"}} {
		if res, err := n.measure(o); err != nil || res.Outcome != mtu.OK || res.PathMTU != 1500 {
			t.Errorf("%s: %+v, %v", o.Target, res, err)
		}
	}
	if res, err := n.measure(mtu.Options{Target: target}); err == nil {
		t.Errorf("without a zone: %+v", res)
	}
}

func TestRunWithoutTheRight(t *testing.T) {
	n := newNetwork(t)
	n.mtu("1450")
	n.client.do(func() {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&header, &data[0])
		data[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err = errors.Join(err, unix.Capset(&header, &data[0])); err != nil {
			t.Errorf("cannot drop CAP_NET_RAW: %v", err)
		}
	})
	n.client.sysctl("ipv4/ping_group_range", "1 0")
	if _, err := n.measure(mtu.Options{Target: targets[0]}); !errors.Is(err, mtu.ErrNotPermitted) {
		t.Errorf("with neither right: %v", err)
	}
	n.client.sysctl("ipv4/ping_group_range", "0 2147483647")
	for _, target := range targets {
		if res, err := n.measure(mtu.Options{Target: target}); err != nil || res.Outcome != mtu.Reduced || res.PathMTU != 1450 || res.Mode != "datagram" {
			t.Errorf("%s: %+v, %v", target, res, err)
		}
	}
}

func TestRunEnds(t *testing.T) {
	n := newNetwork(t)
	n.router.run("nft", "add rule inet t f icmp type echo-request drop")
	var silent net.Listener
	var err error
	n.server.do(func() { silent, err = net.Listen("tcp", ":80") })
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	goroutines, files := counters(t)
	// In the echo, and in the transfer after it.
	for _, after := range []time.Duration{100 * time.Millisecond, 600 * time.Millisecond} {
		prompt(t, after, func(ctx context.Context) error {
			n.client.do(func() {
				_, err = mtu.Run(ctx, mtu.Options{Target: targets[0], Port: 80, Interface: "wan", Wait: 200 * time.Millisecond})
			})
			return err
		})
	}
	if _, err := n.measure(mtu.Options{Target: targets[0], Timeout: 100 * time.Millisecond}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without the time it takes: %v", err)
	}
	if g, f := counters(t); g > goroutines || f > files {
		t.Errorf("%d goroutines and %d files, before %d and %d", g, f, goroutines, files)
	}
	for _, after := range []time.Duration{100 * time.Millisecond, 700 * time.Millisecond} {
		n := newNetwork(t)
		n.router.run("nft", "add rule inet t f drop")
		gone := make(chan time.Time, 1)
		time.AfterFunc(after, func() {
			n.router.ip("link", "del", "lan")
			gone <- time.Now()
		})
		_, err := n.measure(mtu.Options{Target: targets[0], Port: 80, Interface: "wan", Wait: 200 * time.Millisecond})
		if late := time.Since(<-gone); !errors.Is(err, mtu.ErrNoInterface) || late > time.Second {
			t.Errorf("%v, %v after the interface went away", err, late)
		}
	}
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

func counters(t *testing.T) (goroutines, files int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return runtime.NumGoroutine(), len(entries)
}
