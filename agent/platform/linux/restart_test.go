package linux

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the programs that the tests start: those that are
// killed, and those that are signalled.
func TestMain(m *testing.M) {
	var code int
	switch os.Getenv("ONTAGENT_TEST_PROGRAM") {
	case "restart":
		code = restartProgram()
	case "finish":
		code = finishProgram()
	case "signals":
		code = signalsProgram()
	default:
		code = m.Run()
	}
	os.Exit(code) //nolint:forbidigo // this is a main
}

// inNamespace runs f in a network of its own, in which veth0 is up with a peer
// that is up, has an address, a default route, one that needs it, and IPv6.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	if emulated() {
		t.Skip("user-mode emulation garbles netlink")
	}
	failed := make(chan error)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("sysfs", "/sys", "sysfs", 0, "")
		}
		failed <- err
		if err != nil {
			return
		}
		for _, line := range []string{
			"link set lo up",
			"link add wan0 type veth peer name far0",
			"link set far0 up",
			"link set wan0 up",
			"addr add 192.0.2.2/24 dev wan0",
			"addr add 2001:db8::2/64 dev wan0 nodad",
			"addr add 2001:db8::3/128 dev wan0 nodad valid_lft 7000 preferred_lft 6000",
			"route add 198.51.100.1/32 dev wan0",
			"route add default via 192.0.2.1 dev wan0 metric 7",
			"route add 203.0.113.0/24 via 198.51.100.1 dev wan0",
			"-6 route add default via 2001:db8::1 dev wan0",
		} {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", line, err, out)
				return
			}
		}
		f()
	}()
	if err := <-failed; err != nil {
		<-ended
		if os.Getenv("CI") == "true" {
			t.Fatalf("cannot make a network namespace: %v", err)
		}
		t.Skipf("needs root: cannot make a network namespace: %v", err)
	}
	<-ended
}

func emulated() bool {
	switch runtime.GOARCH {
	case "amd64", "386":
		return false
	}
	b, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && bytes.Contains(b, []byte("GenuineIntel")) || bytes.Contains(b, []byte("AuthenticAMD"))
}

// shown is what the interface has, as ip shows it, without what differs from
// one time to the next.
func shown(t *testing.T) string {
	t.Helper()
	var all []string
	lifetime := regexp.MustCompile(`[5-7]\d{3}sec`)
	for _, line := range []string{"-4 route show table main", "-6 route show table main dev wan0", "-o -6 addr show dev wan0 scope global"} {
		out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
		if err != nil {
			t.Errorf("ip %s: %v: %s", line, err, out)
		}
		for l := range strings.SplitSeq(string(out), "\n") {
			if strings.Contains(l, "fe80::") || strings.Contains(l, "ff00::") {
				continue
			}
			l = lifetime.ReplaceAllString(l, "some time")
			all = append(all, strings.Join(strings.Fields(strings.NewReplacer("tentative", "", "linkdown", "").Replace(l)), " "))
		}
	}
	slices.Sort(all) // addresses of IPv6 come back the other way round
	return strings.Join(all, "\n")
}

func isUp(t *testing.T) bool {
	t.Helper()
	ifi, err := net.InterfaceByName("wan0")
	if err != nil {
		t.Error(err)
		return false
	}
	return ifi.Flags&net.FlagUp != 0
}

func TestRestartPutsBackAllThatWasLost(t *testing.T) {
	inNamespace(t, func() {
		before := shown(t)
		for _, want := range []string{"default via 192.0.2.1", "203.0.113.0/24 via 198.51.100.1", "default via 2001:db8::1", "2001:db8::2/64", "2001:db8::3/128"} {
			if !strings.Contains(before, want) {
				t.Errorf("the namespace lacks %q:\n%s", want, before)
			}
		}
		r, err := PrepareRestart("/", "wan0")
		if err != nil {
			t.Error(err)
			return
		}
		data, err := json.Marshal(r)
		if err != nil || len(data) > 8<<10 {
			t.Errorf("%d bytes, %v", len(data), err)
		}
		// What undoes it must be able to come from flash.
		if r, err = ParseRestart("/", data); err != nil {
			t.Error(err)
			return
		}
		start := time.Now()
		if err := r.Run(t.Context(), 300*time.Millisecond); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 300*time.Millisecond {
			t.Errorf("was down for %v", took)
		}
		if after := shown(t); !isUp(t) || after != before {
			t.Errorf("up = %v; before:\n%s\nafter:\n%s", isUp(t), before, after)
		}
		// Again, where there is nothing to undo.
		if err := r.Restore(t.Context()); err != nil || shown(t) != before {
			t.Errorf("the second time: %v\n%s", err, shown(t))
		}
	})
}

func TestRestartWithoutACarrierPutsBackTheRoutes(t *testing.T) {
	inNamespace(t, func() {
		before := shown(t)
		if out, err := exec.Command("ip", "link", "set", "far0", "down").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		r, err := PrepareRestart("/", "wan0")
		if err != nil {
			t.Error(err)
			return
		}
		if err := r.Run(t.Context(), 0); err != nil {
			t.Error(err)
		}
		if after := shown(t); !isUp(t) || after != before {
			t.Errorf("up = %v; before:\n%s\nafter:\n%s", isUp(t), before, after)
		}
	})
}

func TestRestartStoppedInTheMiddleComesUp(t *testing.T) {
	inNamespace(t, func() {
		before := shown(t)
		r, err := PrepareRestart("/", "wan0")
		if err != nil {
			t.Error(err)
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		if err := r.Run(ctx, time.Hour); err != nil || time.Since(start) > 10*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if after := shown(t); !isUp(t) || after != before {
			t.Errorf("up = %v; before:\n%s\nafter:\n%s", isUp(t), before, after)
		}
	})
}

func TestRestartOfAnInterfaceThatWasDown(t *testing.T) {
	inNamespace(t, func() {
		if out, err := exec.Command("ip", "link", "set", "wan0", "down").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		r, err := PrepareRestart("/", "wan0")
		if err != nil {
			t.Error(err)
			return
		}
		if err := r.Run(t.Context(), time.Hour); err != nil || !isUp(t) {
			t.Errorf("up = %v, %v", isUp(t), err)
		}
		if err := r.Restore(t.Context()); err != nil || isUp(t) {
			t.Errorf("undone: up = %v, %v", isUp(t), err)
		}
	})
}

func TestRestartKilledInTheMiddleIsUndoneAtTheStart(t *testing.T) {
	inNamespace(t, func() {
		before := shown(t)
		intent := filepath.Join(t.TempDir(), "intent")
		program := func(name string) *exec.Cmd {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), "ONTAGENT_TEST_PROGRAM="+name, "INTENT="+intent)

			return cmd
		}
		doomed := program("restart")
		if err := doomed.Start(); err != nil {
			t.Error(err)
			return
		}
		for deadline := time.Now().Add(20 * time.Second); isUp(t); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Error("it was never taken down")
				break
			}
		}
		if err := errors.Join(doomed.Process.Kill(), ignoreKilled(doomed.Wait())); err != nil {
			t.Error(err)
		}
		if isUp(t) {
			t.Error("it is up although what took it down was killed")
		}
		if out, err := program("finish").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if after := shown(t); !isUp(t) || after != before {
			t.Errorf("up = %v; before:\n%s\nafter:\n%s", isUp(t), before, after)
		}
	})
}

func ignoreKilled(err error) error {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signal() == syscall.SIGKILL {
			return nil
		}
	}
	return err
}

func restartProgram() int {
	r, err := PrepareRestart("/", "wan0")
	if err != nil {
		return 2
	}
	data, err := json.Marshal(r)
	if err != nil || os.WriteFile(os.Getenv("INTENT"), data, 0o600) != nil {
		return 3
	}
	_ = r.Run(context.Background(), time.Hour)
	return 4 // it was to be killed
}

func finishProgram() int {
	data, err := os.ReadFile(os.Getenv("INTENT"))
	if err != nil {
		return 2
	}
	r, err := ParseRestart("/", data)
	if err != nil {
		return 3
	}
	if r.Restore(context.Background()) != nil {
		return 4
	}
	return 0
}

func TestRestartRefusesWhatCarriesNoLine(t *testing.T) {
	inNamespace(t, func() {
		for _, line := range []string{"link add br-lan type bridge", "link add lan1 type veth peer name lan2", "link set lan1 master br-lan"} {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", line, err, out)
			}
		}
		for name, why := range map[string]string{"lo": "loopback", "lan1": "bridge", "nothing": "no such"} {
			if _, err := PrepareRestart("/", name); err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: %v", name, err)
			}
		}
		stacked := tree(t, map[string]string{"sys/class/net/wan0/upper_wan0.35/type": "1\n"})
		if _, err := PrepareRestart(stacked, "wan0"); err == nil || !strings.Contains(err.Error(), "wan0.35 is stacked") {
			t.Errorf("with a VLAN: %v", err)
		}
		r, err := PrepareRestart("/", "wan0")
		if err != nil {
			t.Error(err)
			return
		}
		r.Index += 1000
		if err := r.Restore(t.Context()); !errors.Is(err, ErrGone) {
			t.Errorf("another interface of that name: %v", err)
		}
	})
}

func TestParseRestart(t *testing.T) {
	root := tree(t, map[string]string{"proc/sys/kernel/random/boot_id": "b-1\n"})
	good := `{"boot":"b-1","interface":"wan0","index":3,"was_up":true,"lost":[{"type":24,"body":"AAAA"}]}`
	if _, err := ParseRestart(root, []byte(good)); err != nil {
		t.Error(err)
	}
	if _, err := ParseRestart(root, []byte(strings.Replace(good, "b-1", "b-0", 1))); !errors.Is(err, ErrGone) {
		t.Errorf("of an earlier boot: %v", err)
	}
	for name, text := range map[string]string{
		"nothing": "", "no interface": `{"boot":"b-1","index":1}`, "no index": `{"boot":"b-1","interface":"wan0"}`,
		"a long name":     `{"boot":"b-1","interface":"0123456789abcdef","index":1}`,
		"another message": `{"boot":"b-1","interface":"wan0","index":1,"lost":[{"type":17,"body":"AAAA"}]}`,
		"too much":        `{"boot":"b-1","interface":"wan0","index":1,"lost":[{"type":24,"body":"` + strings.Repeat("AAAA", 4<<10) + `"}]}`,
	} {
		if _, err := ParseRestart(root, []byte(text)); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzLoses(f *testing.F) {
	f.Add(uint16(24), []byte("\x02\x18\x00\x00\xfe\x04\x00\x01\x00\x00\x00\x00\x08\x00\x04\x00\x03\x00\x00\x00"))
	f.Add(uint16(20), []byte("\x0a\x40\x80\x00\x03\x00\x00\x00\x14\x00\x01\x00"))
	f.Fuzz(func(_ *testing.T, typ uint16, body []byte) {
		r := Restart{Index: 3}
		r.loses(LostPart{Type: typ, Body: body})
	})
}
