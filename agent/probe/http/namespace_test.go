package http_test

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

	"ontagent/agent/probe/http"
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

func TestRunAgainstNginx(t *testing.T) {
	client, server := newHost(t), newHost(t)
	cable(client, "wan", server, "lan")
	for _, a := range []struct {
		h         *host
		dev, addr string
	}{{client, "wan", "192.0.2.1/24"}, {server, "lan", "192.0.2.2/24"}, {client, "wan", "2001:db8::1/64"}, {server, "lan", "2001:db8::2/64"}} {
		if strings.Contains(a.addr, ":") {
			a.h.ip("addr", "add", a.addr, "dev", a.dev, "nodad")
			continue
		}
		a.h.ip("addr", "add", a.addr, "dev", a.dev)
	}
	server.nginx(80, `
location = /generate_204 { return 204; }
location = /garden { return 302 "http://portal.example/login?from=$host"; }
location = /closed { return 444; }
`)
	server.run("nft", "add table inet t; add chain inet t i { type filter hook input priority 0; }; "+
		"add rule inet t i tcp dport 81 drop; add rule inet t i tcp dport 82 reject with icmpx type admin-prohibited")
	resolve := func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.2")}, nil
	}
	for _, tt := range []struct {
		url    string
		o      http.Options
		want   http.Outcome
		status int
	}{
		{"http://192.0.2.2/generate_204", http.Options{}, http.OK, 204},
		{"http://[2001:db8::2]/generate_204", http.Options{Interface: "wan"}, http.OK, 204},
		{"http://check.example/generate_204", http.Options{Resolve: resolve}, http.OK, 204},
		{"http://192.0.2.2/page", http.Options{}, http.Altered, 200},
		{"http://192.0.2.2/page", http.Options{Marker: "some length"}, http.OK, 200},
		{"http://192.0.2.2/garden", http.Options{}, http.Redirected, 302},
		{"http://192.0.2.2/nothing", http.Options{}, http.ErrorStatus, 404},
		{"http://192.0.2.2/closed", http.Options{}, http.Closed, 0},
		{"http://192.0.2.2:81/", http.Options{Timeout: 500 * time.Millisecond}, http.Timeout, 0},
		{"http://192.0.2.2:82/", http.Options{}, http.Unreachable, 0},
		{"http://192.0.2.2:83/", http.Options{}, http.Refused, 0},
		{"http://198.51.100.1/", http.Options{}, http.Unreachable, 0},
		{"http://192.0.2.77/", http.Options{Timeout: 4 * time.Second}, http.Unreachable, 0},
	} {
		tt.o.URL = tt.url
		var res http.Result
		var err error
		client.do(func() { res, err = http.Run(t.Context(), tt.o) })
		if err != nil || res.Outcome != tt.want || res.Status != tt.status {
			t.Errorf("%s: %+v, %v", tt.url, res, err)
		}
		if tt.want == http.Redirected && (res.Location != "http://portal.example/login?from=192.0.2.2" || res.LocationHost != "portal.example") {
			t.Errorf("leads to %q on %q", res.Location, res.LocationHost)
		}
		if tt.status != 0 && !strings.HasPrefix(res.Server, "nginx") {
			t.Errorf("%s: server %q", tt.url, res.Server)
		}
	}
	var err error
	client.do(func() {
		_, err = http.Run(t.Context(), http.Options{URL: "http://192.0.2.2/", Interface: "gone"})
	})
	if !errors.Is(err, http.ErrNoInterface) {
		t.Errorf("from no interface: %v", err)
	}
}

func TestRunWhenTheInterfaceGoesAway(t *testing.T) {
	client, server := newHost(t), newHost(t)
	cable(client, "wan", server, "lan")
	client.ip("addr", "add", "192.0.2.1/24", "dev", "wan")
	server.ip("addr", "add", "192.0.2.2/24", "dev", "lan")
	var ln net.Listener
	var err error
	server.do(func() { ln, err = net.Listen("tcp", "192.0.2.2:80") }) // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	gone := make(chan time.Time, 1)
	time.AfterFunc(200*time.Millisecond, func() {
		server.ip("link", "del", "lan")
		gone <- time.Now()
	})
	client.do(func() {
		_, err = http.Run(t.Context(), http.Options{URL: "http://192.0.2.2/", Interface: "wan", Timeout: 20 * time.Second})
	})
	if late := time.Since(<-gone); !errors.Is(err, http.ErrNoInterface) || late > time.Second {
		t.Errorf("%v, %v after it went away", err, late)
	}
}
