package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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

	"ontagent/cmd/cli"
)

// TestProbeProcess is not a test: it is the program, for tests that run it as a
// process of its own.
func TestProbeProcess(*testing.T) {
	if os.Getenv("ONTAGENT_PROCESS") != "" {
		for i, arg := range os.Args {
			if arg == "--" {
				a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
				os.Args = os.Args[i:]
				os.Exit(cli.Main(a.run)) //nolint:forbidigo // it is main here
			}
		}
	}
}

// netHost is a network namespace, held by one thread.
type netHost struct {
	t    *testing.T
	work chan func()
	tid  int
}

// inNetwork skips a test that can't run here, unless it must.
func inNetwork(t *testing.T, tools ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts servers")
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
		unable("needs root for network namespaces")
	}
	for _, tool := range append(tools, "ip") {
		if _, err := exec.LookPath(tool); err != nil {
			unable("needs %s: %v", tool, err)
		}
	}
}

func newHost(t *testing.T) *netHost {
	t.Helper()
	h := &netHost{t: t, work: make(chan func())}
	ready, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		h.tid = unix.Gettid()
		ready <- err
		for f := range h.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() { close(h.work); <-ended })
	h.ip("link", "set", "lo", "up")
	return h
}

// do runs f in the namespace and waits for it.
func (h *netHost) do(f func()) {
	done := make(chan struct{})
	h.work <- func() { defer close(done); f() }
	<-done
}

func (h *netHost) ip(args ...string) {
	h.t.Helper()
	h.do(func() {
		h.t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			h.t.Errorf("ip %v: %v: %s", args, err, out)
		}
	})
}

// start runs a server until the test ends.
func (h *netHost) start(args ...string) {
	h.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	var err error
	h.do(func() { err = cmd.Start() })
	if err != nil {
		h.t.Fatalf("cannot start %s: %v", args[0], err)
	}
	h.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if h.t.Failed() {
			h.t.Logf("%s: %s", args[0], out.Bytes()[max(0, out.Len()-2000):])
		}
	})
}

// await waits until the host has a socket of the protocol (udp, tcp) on a port.
func (h *netHost) await(protocol string, port int) {
	h.t.Helper()
	want := fmt.Appendf(nil, ":%04X ", port)
	for range 400 {
		found := false
		h.do(func() {
			b, err := os.ReadFile("/proc/thread-self/net/" + protocol)
			found = err == nil && bytes.Contains(b, want)
		})
		if found {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	h.t.Fatalf("nobody listens on %s port %d", protocol, port)
}

// process starts `ontagent probe ARGS` on the host.
func (h *netHost) process(stdin string, uid uint32, args ...string) (cmd *exec.Cmd, out, errs *bytes.Buffer) {
	h.t.Helper()
	program, err := os.Executable()
	if err != nil {
		h.t.Fatal(err)
	}
	if uid != 0 { // who may not look where the test was built
		b, err := os.ReadFile(program)
		if err != nil {
			h.t.Fatal(err)
		}
		// The directory for tests is only root's.
		dir, err := os.MkdirTemp("", "ontagent")
		if err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(func() { _ = os.RemoveAll(dir) })
		program = filepath.Join(dir, "ontagent")
		if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, b, 0o755), os.Chmod(program, 0o755)); err != nil {
			h.t.Fatal(err)
		}
	}
	cmd = exec.Command(program, append([]string{"-test.run=^TestProbeProcess$", "--", "probe"}, args...)...)
	cmd.Env = append(os.Environ(), "ONTAGENT_PROCESS=1")
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(stdin)
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, errs
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	h.do(func() { err = cmd.Start() })
	if err != nil {
		h.t.Fatal(err)
	}
	return cmd, out, errs
}

// probe runs it to its end, as JSON.
func (h *netHost) probe(args ...string) (code int, result map[string]any, errs string) {
	h.t.Helper()
	cmd, out, stderr := h.process("", 0, append(args, "--json")...)
	_ = cmd.Wait() // the code says it
	result = map[string]any{}
	if err := json.Unmarshal(out.Bytes(), &result); err != nil {
		h.t.Errorf("probe %v prints no JSON: %v: %s%s", args, err, out, stderr)
	}
	return cmd.ProcessState.ExitCode(), result, stderr.String()
}

// line is a gateway and what is at the other end of its line.
func line(t *testing.T) (gateway, operator *netHost) {
	t.Helper()
	gateway, operator = newHost(t), newHost(t)
	operator.ip("link", "add", "srv0", "type", "veth", "peer", "name", "wan0", "netns", strconv.Itoa(gateway.tid))
	operator.ip("link", "set", "srv0", "up")
	gateway.ip("link", "set", "wan0", "up")
	operator.ip("addr", "add", "10.41.0.1/24", "dev", "srv0")
	for range 400 {
		running := false
		gateway.do(func() {
			ifi, err := net.InterfaceByName("wan0")
			running = err == nil && ifi.Flags&net.FlagRunning != 0
		})
		if running {
			return gateway, operator
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatal("the line has no carrier")
	return nil, nil
}

// servers starts dnsmasq and returns its file of leases.
func (h *netHost) servers() (leases string) {
	h.t.Helper()
	leases = filepath.Join(h.t.TempDir(), "leases")
	h.start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--interface=srv0", "--bind-dynamic",
		"--no-ping", "--user=root", "--pid-file=", "--log-facility=-", "--log-dhcp", "--dhcp-leasefile="+leases,
		"--address=/www.lab.test/10.41.0.1", "--dhcp-range=10.41.0.100,10.41.0.150,255.255.255.0,1h")
	h.await("udp", 67)
	h.await("udp", 53)
	return leases
}

// The line is down: an address is asked for and not taken. The line is in use:
// less is asked for, unless somebody insists.
func TestProbeDHCPOnALineInUse(t *testing.T) {
	inNetwork(t, "dnsmasq")
	gateway, operator := line(t)
	leases := operator.servers()
	code, r, errs := gateway.probe("dhcp", "--interface", "wan0")
	if code != cli.OK || r["outcome"] != "offered" || r["line_up"] != false || r["note"] != nil || errs != "" {
		t.Errorf("unused line: exit code %d, %v, %s", code, r, errs)
	}

	gateway.ip("addr", "add", "10.41.0.77/24", "dev", "wan0")
	code, r, errs = gateway.probe("dhcp", "--interface", "wan0")
	if code != cli.OK || r["outcome"] != "informed" || r["line_up"] != true || r["note"] != "INFORM instead of DISCOVER: wan0 has 10.41.0.77" || errs != "" {
		t.Errorf("line in use: exit code %d, %v, %s", code, r, errs)
	}
	code, r, errs = gateway.probe("dhcp", "--interface", "wan0", "--force")
	if code != cli.OK || r["outcome"] != "offered" || !strings.Contains(errs, "warning: --force") {
		t.Errorf("forced: exit code %d, %v, %s", code, r, errs)
	}
	if b, err := os.ReadFile(leases); err != nil && !os.IsNotExist(err) || len(b) > 0 {
		t.Errorf("a lease was taken: %s%v", b, err)
	}
}

// A gateway that is online by whatever interface is not dialled a second time.
func TestProbePPPoEWhileOnline(t *testing.T) {
	inNetwork(t)
	gateway, operator := line(t)
	secret := secretFile(t, testSecret)
	code, r, errs := gateway.probe("pppoe", "--interface", "wan0", "--user", "u", "--password-file", secret, "--timeout", "0.2")
	if r["session_up"] != false || r["note"] != nil || errs != "" && code == cli.OK {
		t.Errorf("offline: exit code %d, %v, %s", code, r, errs)
	}

	operator.ip("link", "add", "srv1", "type", "veth", "peer", "name", "wan1", "netns", strconv.Itoa(gateway.tid))
	operator.ip("link", "set", "srv1", "up")
	gateway.ip("link", "set", "wan1", "up")
	gateway.ip("addr", "add", "203.0.113.9/24", "dev", "wan1")
	gateway.ip("route", "add", "default", "via", "203.0.113.1", "dev", "wan1")
	code, r, errs = gateway.probe("pppoe", "--interface", "wan0", "--user", "u", "--password-file", secret)
	if code != cli.Inconclusive || r["outcome"] != "no_pado" || r["stage"] != "discovery" || r["session_up"] != true || r["note"] != "discovery only: wan1 has 203.0.113.9" {
		t.Errorf("online: exit code %d, %v, %s", code, r, errs)
	}
	_, r, errs = gateway.probe("pppoe", "--interface", "wan0", "--user", "u", "--password-file", secret, "--force", "--timeout", "0.2")
	if r["note"] != nil || !strings.Contains(errs, "warning: --force, although wan1 has 203.0.113.9") {
		t.Errorf("forced: %v, %s", r, errs)
	}
}

func TestProbesAgainstServers(t *testing.T) {
	inNetwork(t, "dnsmasq", "nginx")
	gateway, operator := line(t)
	operator.servers()
	dir := t.TempDir()
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, `daemon off; master_process off; user root; pid %[1]s/pid; error_log stderr;
events {}
http {
	access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server {
		listen 10.41.0.1:80;
		location /generate_204 { return 204; }
		location /portal { return 302 http://portal.example.net/pay; }
		location / { return 401; }
	}
}
`, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	operator.start("nginx", "-c", conf, "-p", dir, "-e", "stderr")
	operator.await("tcp", 80)
	gateway.ip("addr", "add", "10.41.0.77/24", "dev", "wan0")
	gateway.ip("route", "add", "default", "via", "10.41.0.1")
	resolver := []string{"--resolver", "10.41.0.1"}
	for _, tc := range []struct {
		args    string
		code    int
		outcome string
	}{
		{"ping --target 10.41.0.1 --count 2 --interval 0.02", cli.OK, "ok"},
		{"ping --target www.lab.test --count 2 --interval 0.02", cli.OK, "ok"},
		{"ping --target nowhere.lab.test", cli.Inconclusive, ""},
		{"ping --target 10.41.0.99 --count 2 --interval 0.02 --wait 0.1", cli.Fail, "no_reply"},
		{"mtu --target www.lab.test", cli.OK, "ok"},
		{"http --url http://www.lab.test/generate_204", cli.OK, "ok"},
		{"http --url http://www.lab.test/portal", cli.Fail, "redirected"},
		{"http --url http://nowhere.lab.test/", cli.Fail, "name_failed"},
		{"tcp --host www.lab.test --port 80", cli.OK, "open"},
		{"tcp --host www.lab.test --port 81", cli.Fail, "refused"},
		{"acs --url http://www.lab.test/acs", cli.OK, "open"},
		{"acs --url https://www.lab.test/acs", cli.Fail, "refused"},
		{"ntp --server www.lab.test --wait 0.2 --tries 1", cli.Fail, "unreachable"},
		{"sip --server www.lab.test --wait 2", cli.Fail, "unreachable"},
		{"multicast --interface wan0 --group 239.41.0.1 --wait 0.2 --leave-wait 0.1", cli.Fail, "no_querier"},
	} {
		args := strings.Fields(tc.args)
		if args[0] != "multicast" {
			args = append(args, resolver...)
		}
		code, r, errs := gateway.probe(args...)
		outcome, _ := r["outcome"].(string)
		if code != tc.code || outcome != tc.outcome || (code == cli.Inconclusive) == (errs == "") {
			t.Errorf("%s: exit code %d, %v, %s", tc.args, code, r, errs)
		}
	}
	// dnsmasq knows one name, and says that it refuses all others.
	code, r, errs := gateway.probe("dns", "--name", "www.lab.test", "--resolver", "10.41.0.1")
	if outcome, _ := r["outcome"].(string); outcome == "" || (outcome == "ok") != (code == cli.OK) {
		t.Errorf("dns: exit code %d, %v, %s", code, r, errs)
	}
}

// Who may not is told so, at once.
func TestProbeUnprivileged(t *testing.T) {
	inNetwork(t)
	gateway, _ := line(t)
	const nobody = 65534
	for _, args := range []string{
		"pppoe --interface wan0",
		"dhcp --interface wan0",
		"multicast --interface wan0 --group 239.1.1.1",
	} {
		cmd, out, errs := gateway.process("", nobody, strings.Fields(args)...)
		_ = cmd.Wait() // the code says it
		if code := cmd.ProcessState.ExitCode(); code != cli.Inconclusive || !strings.Contains(errs.String(), "permi") || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%s: exit code %d, %s%s", args, code, out, errs)
		}
	}
}

// Of a process that dials, neither arguments nor environment show the password,
// and an interrupt ends it with what is known.
func TestProbePasswordOfAProcess(t *testing.T) {
	inNetwork(t)
	gateway, _ := line(t)
	cmd, out, errs := gateway.process(testSecret+"\n", 0, "pppoe", "--interface", "wan0", "--user", "u@isp", "--password-file", "-", "--json")
	path := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	dialling := func() bool { // its packet socket is open
		b, err := os.ReadFile(path + "net/packet")
		return err == nil && bytes.Count(b, []byte("\n")) > 1
	}
	for i := 0; !dialling(); i++ {
		if i == 400 {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatalf("it does not dial: %s%s", out, errs)
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, name := range []string{"cmdline", "environ"} {
		if b, err := os.ReadFile(path + name); err != nil || len(b) == 0 || bytes.Contains(b, []byte(testSecret)) {
			t.Errorf("%s holds the password, or nothing: %v", name, err)
		}
	}
	begin := time.Now()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the code says it
	took := time.Since(begin)
	if code := cmd.ProcessState.ExitCode(); code != cli.Inconclusive || took > 2*time.Second {
		t.Errorf("exit code %d, %v after the interrupt", code, took)
	}
	if !strings.Contains(out.String(), `"interface":"wan0"`) || !strings.Contains(errs.String(), "interrupted") || strings.Contains(out.String()+errs.String(), testSecret) {
		t.Errorf("prints %s%s", out, errs)
	}
	t.Logf("ended %v after the interrupt", took)
}
