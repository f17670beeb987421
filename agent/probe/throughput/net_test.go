package throughput_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// unable skips a test, but not in CI.
func unable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" && !testing.Short() && !emulated(t) {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// emulated reports whether this runs on another processor than it was built for.
func emulated(t *testing.T) bool {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	machine := unix.ByteSliceToString(uts.Machine[:])
	want := map[string]string{"amd64": "x86_64", "386": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	return want != machine && machine != "i686"
}

const apart = "THROUGHPUT_TEST_APART"

// alone runs the test that calls it again, in a process and a network namespace
// of its own, and reports whether this is that process. Goroutines may then run
// on whatever thread they like.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(apart) == t.Name() {
		run(t, "ip", "link", "set", "lo", "up")
		return true
	}
	if testing.Short() {
		t.Skip("makes network namespaces")
	}
	if emulated(t) {
		t.Skip("needs a kernel of its own kind")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s", "-test.paniconexit0")
	cmd.Env = append(os.Environ(), apart+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, unix.EPERM):
		unable(t, "cannot make a network namespace: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		unable(t, "%s", out)
	case !bytes.Contains(out, []byte("--- PASS: "+t.Name())):
		t.Fatalf("it did not run:\n%s", out)
	}
	t.Logf("%s", out)
	return false
}

// run runs a program.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t, name), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		path := filepath.Join(dir, name)
		if s, err := os.Stat(path); err == nil && !s.IsDir() {
			return path
		}
	}
	unable(t, "needs %s", name)
	return ""
}

// far is another network namespace, at the other end of a cable.
type far struct {
	t   *testing.T
	pid int
}

// newFar makes one: here is 192.0.2.1 and 2001:db8::1 on wan, there 192.0.2.2
// and 2001:db8::2 on lan. Packets are of 1500 bytes: nothing is offloaded.
func newFar(t *testing.T) *far {
	t.Helper()
	keep := exec.Command(program(t, "sleep"), "1000")
	keep.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := keep.Start(); err != nil {
		unable(t, "cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		_ = keep.Process.Kill()
		_ = keep.Wait()
	})
	f := &far{t: t, pid: keep.Process.Pid}
	run(t, "ip", "link", "add", "wan", "type", "veth", "peer", "name", "lan", "netns", strconv.Itoa(f.pid))
	run(t, "ethtool", "-K", "wan", "tso", "off", "gso", "off", "gro", "off")
	f.run("ethtool", "-K", "lan", "tso", "off", "gso", "off", "gro", "off")
	for _, a := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		run(t, "ip", "addr", "add", a, "dev", "wan", "nodad")
	}
	for _, a := range []string{"192.0.2.2/24", "2001:db8::2/64"} {
		f.run("ip", "addr", "add", a, "dev", "lan", "nodad")
	}
	f.run("ip", "link", "set", "lo", "up")
	f.run("ip", "link", "set", "lan", "up")
	run(t, "ip", "link", "set", "wan", "up")
	return f
}

// args makes a command run there.
func (f *far) args(name string, args ...string) []string {
	f.t.Helper()
	return append([]string{"-t", strconv.Itoa(f.pid), "-n", program(f.t, name)}, args...)
}

func (f *far) run(name string, args ...string) {
	f.t.Helper()
	run(f.t, "nsenter", f.args(name, args...)...)
}

// shape lets no more than so many Mbit/s out of either end, as tbf counts: with
// the Ethernet header.
func (f *far) shape(mbps int) {
	f.t.Helper()
	tbf := func(dev string) []string {
		return []string{
			"qdisc", "replace", "dev", dev, "root", "tbf", "rate", strconv.Itoa(mbps) + "mbit",
			"burst", strconv.Itoa(max(mbps*1250, 5000)), "latency", "40ms", // 10 ms: less is lost on a busy machine
		}
	}
	f.run("tc", tbf("lan")...)
	run(f.t, "tc", tbf("wan")...)
}

// start starts a program there, or here if f is nil, until the test ends.
func (f *far) start(t *testing.T, name string, args ...string) {
	t.Helper()
	if f != nil {
		args = f.args(name, args...)
		name = "nsenter"
	}
	var out bytes.Buffer
	cmd := exec.Command(program(t, name), args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, out.Bytes())
		}
	})
}

// nginx serves a large file, and what a server block says, on port 80.
func (f *far) nginx(t *testing.T, host, block string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "nginx.conf")
	text := "daemon off; master_process off; pid " + dir + "/pid; error_log stderr crit;\nevents {}\n" +
		"http { access_log off; sendfile on; client_body_temp_path " + dir + "/b; proxy_temp_path " + dir + "/p; fastcgi_temp_path " + dir +
		"/f; uwsgi_temp_path " + dir + "/u; scgi_temp_path " + dir + "/s;\n" +
		"server { listen 80; listen [::]:80; root " + dir + ";\n" + block + "\n} }\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{"large": 16 << 30, "small": 3 << 20} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Truncate(size); err != nil { // takes no room
			t.Fatal(err)
		}
		file.Close()
		if err := os.Chmod(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f.start(t, "nginx", "-c", config)
	f.await(t, host+":80")
}

// await waits until a port answers.
func (f *far) await(t *testing.T, addr string) {
	t.Helper()
	for range 500 {
		if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			conn.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s does not come up", addr)
}

// nothingLeft returns what fails the test if descriptors or goroutines are then
// more than at its call.
func nothingLeft(t *testing.T) func() {
	t.Helper()
	files, routines := descriptors(t), runtime.NumGoroutine()
	return func() {
		t.Helper()
		var f []string
		var r int
		for range 100 {
			f, r = descriptors(t), runtime.NumGoroutine()
			if len(f) <= len(files) && r <= routines {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		stacks := make([]byte, 64<<10)
		t.Errorf("descriptors %v, then %v; goroutines %d, then %d:\n%s", files, f, routines, r, stacks[:runtime.Stack(stacks, true)])
	}
}

func descriptors(t *testing.T) []string {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	var open []string
	for _, n := range names {
		to, err := os.Readlink("/proc/self/fd/" + n.Name())
		if err == nil && (strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "/memfd:") || strings.HasPrefix(to, "/proc/")) {
			open = append(open, to)
		}
	}
	return open
}

// awaitListener waits until something listens there, without connecting to it.
func (f *far) awaitListener(port int) {
	f.t.Helper()
	want := ":" + strings.ToUpper(strconv.FormatInt(int64(port), 16)) + " 0"
	for range 500 {
		for _, file := range []string{"tcp", "tcp6"} {
			b, err := os.ReadFile("/proc/" + strconv.Itoa(f.pid) + "/net/" + file)
			if err == nil && strings.Contains(string(b), want) {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.t.Fatalf("nothing listens on port %d", port)
}
