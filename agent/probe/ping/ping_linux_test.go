package ping_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/probe/ping"
)

// inNamespace runs f in a network namespace of its own, on a thread that is
// thrown away afterwards. f gets a function that runs the ip tool.
func inNamespace(t *testing.T, f func(ip func(args ...string))) {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	machine := unix.ByteSliceToString(uts.Machine[:])
	native := map[string]string{"amd64": "x86_64", "386": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if native != machine && machine != "i686" {
		t.Skipf("needs a kernel of its own kind: %s on %s", runtime.GOARCH, machine)
	}
	unable := t.Skipf
	if os.Getenv("CI") == "true" {
		unable = t.Fatalf
	}
	if os.Getuid() != 0 {
		unable("needs root for a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		unable("needs the ip tool: %v", err)
	}
	problem := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			problem <- err
			return
		}
		defer close(problem)
		f(func(args ...string) {
			t.Helper()
			var stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), "ip", args...)
			cmd.Stderr = &stderr
			if err := cmd.Run(); err != nil {
				t.Errorf("ip %v: %v: %s", args, err, stderr.Bytes())
			}
		})
	}()
	if err := <-problem; err != nil {
		unable("cannot make a network namespace: %v", err)
	}
}

func setGroupRange(t *testing.T, groups string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0o644); err != nil {
		t.Errorf("cannot set ping_group_range: %v", err)
	}
}

func TestPingLoopback(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		ip("link", "set", "lo", "up")
		setGroupRange(t, "0 2147483647")
		for _, target := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
			for _, mode := range []string{"", ping.ModeRaw, ping.ModeDatagram} {
				addr, o := netip.MustParseAddr(target), ping.Options{Count: 5, Interval: 10 * time.Millisecond}
				begin := time.Now()
				var res ping.Result
				var err error
				if mode == "" {
					res, err = ping.Ping(t.Context(), addr, o)
				} else {
					res, err = ping.Run(t.Context(), addr.Unmap(), o, mode)
				}
				if err != nil || res.Sent != 5 || res.Received != 5 || res.LossRatio != 0 || len(res.Replies) != 5 {
					t.Errorf("%s %s: %+v, %v", target, mode, res, err)
					continue
				}
				if want := mode; want != "" && res.Mode != want || want == "" && res.Mode != ping.ModeRaw {
					t.Errorf("%s: mode %s, want %s", target, res.Mode, want)
				}
				if res.MinMs <= 0 || res.P50Ms < res.MinMs || res.P95Ms > res.MaxMs || res.MaxMs > 1000 {
					t.Errorf("%s %s: %+v", target, mode, res)
				}
				if took := time.Since(begin); took > o.Duration() {
					t.Errorf("%s %s took %v although all replies came", target, mode, took)
				}
			}
		}
	})
}

func TestPingSilence(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		ip("link", "set", "lo", "up")
		ip("link", "add", "near", "type", "veth", "peer", "name", "far")
		ip("link", "set", "near", "up")
		ip("link", "set", "far", "up")
		ip("addr", "add", "192.0.2.1/24", "dev", "near")
		ip("neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "near")
		o := ping.Options{Count: 3, Interval: 20 * time.Millisecond, Wait: 100 * time.Millisecond}
		begin := time.Now()
		res, err := ping.Ping(t.Context(), netip.MustParseAddr("192.0.2.2"), o)
		if err != nil || res.Sent != 3 || res.Received != 0 || res.LossRatio != 1 {
			t.Errorf("got %+v, %v", res, err)
		}
		if took := time.Since(begin); took < o.Duration() || took > o.Duration()+time.Second {
			t.Errorf("took %v, want %v", took, o.Duration())
		}

		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		res, err = ping.Ping(ctx, netip.MustParseAddr("192.0.2.2"), ping.Options{Count: 1000, Interval: 10 * time.Millisecond})
		if !errors.Is(err, context.DeadlineExceeded) || res.Sent == 0 || res.Sent > 50 {
			t.Errorf("cut short: %+v, %v", res, err)
		}
	})
}

func TestPingWithoutARoute(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		ip("link", "set", "lo", "up")
		ip("route", "add", "unreachable", "198.51.100.0/24")
		ip("route", "add", "prohibit", "203.0.113.0/24")
		for target, want := range map[string]error{
			"192.0.2.1": syscall.ENETUNREACH, "2001:db8::1": syscall.ENETUNREACH,
			"198.51.100.1": syscall.EHOSTUNREACH, "203.0.113.1": syscall.EACCES,
		} {
			res, err := ping.Ping(t.Context(), netip.MustParseAddr(target), ping.Options{})
			if !errors.Is(err, want) || res.Sent != 0 {
				t.Errorf("%s: %+v, %v, want %v", target, res, err, want)
			}
		}
		// Without asking for the route first.
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				t.Errorf("cannot make a network namespace: %v", err)
				return
			}
			for _, args := range [][]string{{"link", "set", "lo", "up"}, {"route", "add", "prohibit", "203.0.113.0/24"}} {
				if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
					t.Errorf("ip %v: %v: %s", args, err, out)
				}
			}
			res, err := ping.Run(t.Context(), netip.MustParseAddr("203.0.113.1"), ping.Options{Count: 2}, ping.ModeRaw)
			if !errors.Is(err, syscall.EACCES) || res.Received != 0 || res.Sent != 0 {
				t.Errorf("got %+v, %v", res, err)
			}
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("sends for ever where the route says prohibit")
		}
	})
}

func TestPingWithoutTheRight(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		ip("link", "set", "lo", "up")
		dropNetRaw(t)
		setGroupRange(t, "1 0")
		_, err := ping.Ping(t.Context(), netip.MustParseAddr("127.0.0.1"), ping.Options{Count: 1})
		if !errors.Is(err, ping.ErrNoSocket) || !errors.Is(err, syscall.EPERM) || !errors.Is(err, syscall.EACCES) {
			t.Errorf("with neither right: %v", err)
		}
		setGroupRange(t, "0 2147483647")
		res, err := ping.Ping(t.Context(), netip.MustParseAddr("127.0.0.1"), ping.Options{Count: 2, Interval: 10 * time.Millisecond})
		if err != nil || res.Mode != ping.ModeDatagram || res.Received != 2 {
			t.Errorf("unprivileged: %+v, %v", res, err)
		}
	})
}

// dropNetRaw takes CAP_NET_RAW from the calling thread.
func dropNetRaw(t *testing.T) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Errorf("cannot read capabilities: %v", err)
		return
	}
	data[0].Effective &^= 1 << unix.CAP_NET_RAW
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Errorf("cannot drop CAP_NET_RAW: %v", err)
	}
}

// counters are what a run must not leave behind.
func counters(t *testing.T) (goroutines, files int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return runtime.NumGoroutine(), len(entries)
}

func TestPingFromAnInterface(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		ip("link", "set", "lo", "up")
		ip("link", "add", "near", "type", "veth", "peer", "name", "far")
		ip("link", "add", "other", "type", "veth", "peer", "name", "end")
		for _, dev := range []string{"near", "far", "other", "end"} {
			ip("link", "set", dev, "addrgenmode", "eui64")
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+dev+"/accept_dad", []byte("0"), 0o644); err != nil {
				t.Errorf("cannot switch DAD off: %v", err)
			}
		}
		ip("link", "set", "far", "address", "02:00:00:00:00:02")
		ip("link", "set", "end", "address", "02:00:00:00:00:02") // the same link-local address on two links
		for _, dev := range []string{"near", "far", "other", "end"} {
			ip("link", "set", dev, "up")
		}
		ip("addr", "add", "192.0.2.1/24", "dev", "near")
		setGroupRange(t, "0 2147483647")
		o := ping.Options{Count: 3, Interval: 10 * time.Millisecond, Wait: 200 * time.Millisecond}
		linkLocal := netip.MustParseAddr("fe80::ff:fe00:2")
		for range 200 { // the addresses come a moment after the carrier
			res, err := ping.Ping(t.Context(), linkLocal.WithZone("near"), ping.Options{Count: 1, Wait: 50 * time.Millisecond})
			if err == nil && res.Received == 1 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		for _, mode := range []string{ping.ModeRaw, ping.ModeDatagram} {
			for _, tt := range []struct {
				name   string
				target netip.Addr
				dev    string
				fails  bool
			}{
				{"zone by name", linkLocal.WithZone("near"), "", false},
				{"interface as zone", linkLocal, "near", false},
				{"zone and interface", linkLocal.WithZone("near"), "near", false},
				{"neither", linkLocal, "", true},
				{"two different", linkLocal.WithZone("near"), "other", true},
				{"no such zone", linkLocal.WithZone("gone"), "", true},
				{"no such interface", netip.MustParseAddr("192.0.2.1"), "gone", true},
				{"not through that interface", netip.MustParseAddr("127.0.0.1"), "other", true},
			} {
				o := o
				o.Interface = tt.dev
				res, err := ping.Run(t.Context(), tt.target, o, mode)
				if err == nil && res.Outcome == ping.NoReply {
					err = errors.New("no reply")
				}
				if (err != nil) != tt.fails || !tt.fails && res.Received != 3 {
					t.Errorf("%s, %s: %+v, %v", mode, tt.name, res, err)
				}
			}
		}
		for _, tt := range []struct {
			target netip.Addr
			dev    string
		}{{linkLocal.WithZone("gone"), ""}, {linkLocal, "gone"}, {netip.MustParseAddr("192.0.2.7"), "gone"}} {
			o := o
			o.Interface = tt.dev
			if _, err := ping.Ping(t.Context(), tt.target, o); !errors.Is(err, ping.ErrNoInterface) {
				t.Errorf("%s from %q: %v", tt.target, tt.dev, err)
			}
		}
	})
}

func TestPingWhenTheInterfaceGoesAway(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		ip("link", "add", "near", "type", "veth", "peer", "name", "far")
		ip("link", "set", "near", "up")
		ip("link", "set", "far", "up")
		ip("addr", "add", "192.0.2.1/24", "dev", "near")
		ip("neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "near")
		gone := make(chan time.Time, 1)
		handle, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
			return
		}
		defer handle.Close()
		go func() {
			defer close(gone)
			runtime.LockOSThread()
			if err := unix.Setns(int(handle.Fd()), unix.CLONE_NEWNET); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(100 * time.Millisecond)
			if out, err := exec.CommandContext(t.Context(), "ip", "link", "del", "near").CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			gone <- time.Now()
		}()
		res, err := ping.Ping(t.Context(), netip.MustParseAddr("192.0.2.2"), ping.Options{Count: 100, Interval: 20 * time.Millisecond, Interface: "near"})
		ended := time.Now()
		if !errors.Is(err, ping.ErrNoInterface) || res.Sent == 0 || res.Outcome != "" {
			t.Errorf("%+v, %v", res, err)
		}
		if late := ended.Sub(<-gone); late > time.Second {
			t.Errorf("noticed after %v", late)
		}
	})
}

func TestPingLeavesNothingBehind(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		ip("link", "set", "lo", "up")
		ip("route", "add", "blackhole", "198.51.100.0/24")
		ip("link", "add", "near", "type", "veth", "peer", "name", "far")
		ip("link", "set", "near", "up")
		ip("link", "set", "far", "up")
		ip("addr", "add", "192.0.2.1/24", "dev", "near")
		ip("neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "near")
		goroutines, files := counters(t)
		for range 5 {
			prompt(t, 30*time.Millisecond, func(ctx context.Context) error {
				_, err := ping.Ping(ctx, netip.MustParseAddr("192.0.2.2"), ping.Options{Wait: 10 * time.Second})
				return err
			})
			if _, err := ping.Ping(t.Context(), netip.MustParseAddr("198.51.100.1"), ping.Options{}); err == nil {
				t.Error("a black hole is pinged")
			}
		}
		if g, f := counters(t); g > goroutines || f > files {
			t.Errorf("%d goroutines and %d files, before %d and %d", g, f, goroutines, files)
		}
	})
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
