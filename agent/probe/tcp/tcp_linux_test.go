package tcp_test

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/probe/tcp"
)

// inNamespace runs f in a network namespace of its own, on a thread that is
// thrown away afterwards. f gets a function that runs the ip tool.
func inNamespace(t *testing.T, f func(ip func(args ...string))) {
	t.Helper()
	if testing.Short() {
		t.Skip("makes network namespaces")
	}
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
		defer close(problem)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			problem <- err
			return
		}
		f(func(args ...string) {
			t.Helper()
			if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
				t.Errorf("ip %v: %v: %s", args, err, out)
			}
		})
	}()
	if err := <-problem; err != nil {
		unable("cannot make a network namespace: %v", err)
	}
}

func TestNetworkSaysNo(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		ip("link", "set", "lo", "up")
		ip("route", "add", "unreachable", "198.51.100.0/24")
		ip("route", "add", "prohibit", "203.0.113.0/24")
		for host, want := range map[string]string{
			"192.0.2.1": "network is unreachable", "2001:db8::1": "network is unreachable",
			"198.51.100.1": "no route to host", "203.0.113.1": "permission denied",
		} {
			r, err := tcp.Run(t.Context(), tcp.Options{Host: host, Port: 7547})
			if err != nil || r.Outcome != tcp.Unreachable || r.Reason != want {
				t.Errorf("%s: %+v, %v", host, r, err)
			}
		}
		if _, err := tcp.Run(t.Context(), tcp.Options{Host: "127.0.0.1", Port: 80, Interface: "wan7"}); !errors.Is(err, tcp.ErrNoInterface) {
			t.Errorf("no such interface: %v", err)
		}
		if _, err := tcp.Run(t.Context(), tcp.Options{Host: "127.0.0.1", Port: 80, Interface: "a name longer than fifteen"}); !errors.Is(err, tcp.ErrNoInterface) {
			t.Errorf("no such interface: %v", err)
		}
		if r, err := tcp.Run(t.Context(), tcp.Options{Host: "127.0.0.1", Port: 80, Interface: "lo"}); err != nil || r.Outcome != tcp.Refused {
			t.Errorf("on the loopback: %+v, %v", r, err)
		}

		ip("link", "add", "near", "type", "veth", "peer", "name", "far")
		ip("link", "set", "near", "up")
		ip("link", "set", "far", "up")
		ip("addr", "add", "192.0.2.1/24", "dev", "near")
		ip("neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "near")
		o := tcp.Options{Host: "192.0.2.2", Port: 80, Interface: "near", Connect: 300 * time.Millisecond}
		leaks(t, func() {
			begin := time.Now()
			r, err := tcp.Run(t.Context(), o)
			if took := time.Since(begin); err != nil || r.Outcome != tcp.NoAnswer || took > 1300*time.Millisecond {
				t.Errorf("no answer: %+v, %v after %v", r, err, took)
			}
		})
		o.Connect = 10 * time.Second
		for _, how := range []string{"ip link set near down", "ip link set near up; sleep 0.2; ip link del near"} {
			if how[len("ip link set near ")] == 'u' {
				ip("link", "set", "near", "up")
			}
			gone := exec.CommandContext(t.Context(), "sh", "-c", "sleep 0.2; "+how)
			if err := gone.Start(); err != nil {
				t.Error(err)
				return
			}
			begin := time.Now()
			r, err := tcp.Run(t.Context(), o)
			took := time.Since(begin)
			if err := gone.Wait(); err != nil {
				t.Error(err)
			}
			if !errors.Is(err, tcp.ErrNoInterface) || took > 1200*time.Millisecond {
				t.Errorf("%s: %+v, %v after %v", how, r, err, took)
			}
		}
	})
}
