package command_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ontagent/agent/command"
)

// patience bounds what must happen soon; reached only by a test that fails.
const patience = 20 * time.Second

func sh(script string) command.Spec {
	return command.Spec{Path: "/bin/sh", Args: []string{"-c", script}}
}

func quick() *command.Runner {
	return command.New(command.Options{Grace: 200 * time.Millisecond, WaitDelay: 200 * time.Millisecond})
}

// waitFor waits until a started script has printed want.
func waitFor(t *testing.T, p *command.Process, want string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		out, _ := p.Output()
		if strings.Contains(string(out), want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q within %s; output %q", want, patience, out)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// waitGone waits until a process has ended: it is no more, or a zombie that
// nobody has reaped yet.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			return
		}
		if _, rest, ok := strings.Cut(string(stat), ") "); ok && (rest[0] == 'Z' || rest[0] == 'X') {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there: %s", pid, stat)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// number reads a process id that a script wrote.
func number(t *testing.T, text []byte) int {
	t.Helper()
	n, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil {
		t.Fatalf("no process id in %q: %v", text, err)
	}
	return n
}

func TestRunReturnsOutputOfBothStreams(t *testing.T) {
	var seen bytes.Buffer
	spec := sh(`read line; echo "out $line $COLOUR $PWD"; echo err >&2`)
	spec.Stdin = strings.NewReader("in\n")
	spec.Env = []string{"COLOUR=green"}
	spec.Dir = "/"
	spec.Stdout = &seen
	res, err := quick().Run(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(res.Stdout), "out in green /\n"; got != want || seen.String() != want {
		t.Errorf("stdout %q, streamed %q, want %q", got, seen.String(), want)
	}
	if got, want := string(res.Stderr), "err\n"; got != want {
		t.Errorf("stderr %q, want %q", got, want)
	}
	if res.ExitCode != 0 || res.Dropped != 0 || res.Duration <= 0 {
		t.Errorf("exit code %d, %d bytes dropped, took %s", res.ExitCode, res.Dropped, res.Duration)
	}
}

func TestRunNeverMeetsAShell(t *testing.T) {
	arg := `$(echo hello); echo 'x' "y" | cat > /dev/null`
	res, err := quick().Run(t.Context(), command.Spec{Path: "echo", Args: []string{arg}})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(res.Stdout); got != arg+"\n" {
		t.Errorf("argument arrived as %q", got)
	}
}

func TestRunFailureCarriesOutput(t *testing.T) {
	for _, test := range []struct{ name, script, want string }{
		{"stderr", "echo noise; echo no such section >&2; exit 3", "cannot run sh: exit status 3: no such section"},
		{"stdout if there is no stderr", "echo no such option; exit 3", "cannot run sh: exit status 3: no such option"},
		{"nothing said", "exit 3", "cannot run sh: exit status 3"},
		{"several lines and control characters", `printf 'one\ntwo\007\n' >&2; exit 3`, "cannot run sh: exit status 3: one|two "},
	} {
		t.Run(test.name, func(t *testing.T) {
			res, err := quick().Run(t.Context(), sh(test.script))
			var failure *command.Error
			if !errors.As(err, &failure) {
				t.Fatalf("error %v is not a *command.Error", err)
			}
			if failure.ExitCode != 3 || res.ExitCode != 3 {
				t.Errorf("exit code %d in the error, %d in the result, want 3", failure.ExitCode, res.ExitCode)
			}
			if got := err.Error(); got != test.want {
				t.Errorf("error %q, want %q", got, test.want)
			}
		})
	}
}

func TestErrorDoesNotShowArguments(t *testing.T) {
	spec := sh("exit 1")
	spec.Args = append(spec.Args, "argument-with-something-private")
	if _, err := quick().Run(t.Context(), spec); err == nil || strings.Contains(err.Error(), "private") {
		t.Errorf("error %v", err)
	}
}

func TestProgramNotFound(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path string
		want bool
	}{
		{"no-such-program-anywhere", true},
		{"/no/such/program", true},
		{script, false}, // it is there, what it needs isn't
		{"/", false},
	} {
		_, err := quick().Run(t.Context(), command.Spec{Path: test.path})
		if err == nil || errors.Is(err, command.ErrNotFound) != test.want {
			t.Errorf("%s: error %v; is ErrNotFound: want %v", test.path, err, test.want)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	for _, test := range []struct{ name, script string }{
		{"obeys TERM", "echo ready; exec sleep 600"},
		{"ignores TERM", `trap "" TERM; echo ready; while :; do sleep 600; done`},
		{"exits with 0 on TERM", `trap "exit 0" TERM; echo ready; while :; do sleep 0.05; done`},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p, err := quick().Start(ctx, sh(test.script))
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, p, "ready")
			began := time.Now()
			cancel()
			err = p.Wait()
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want context.Canceled", err)
			}
			if strings.Contains(err.Error(), "signal") {
				t.Errorf("error %q tells of the signal instead of the reason", err)
			}
			if took := time.Since(began); took > patience {
				t.Errorf("took %s", took)
			}
			waitGone(t, p.PID())
		})
	}
}

// late is a context whose deadline passes when the test says so.
type late struct {
	context.Context
	passed chan struct{}
}

func (l late) Done() <-chan struct{} { return l.passed }

func (l late) Err() error {
	select {
	case <-l.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func TestDeadlineIsToldWithTheLastOutput(t *testing.T) {
	ctx := late{t.Context(), make(chan struct{})}
	p, err := quick().Start(ctx, sh("echo still waiting for light; exec sleep 600"))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, p, "light")
	close(ctx.passed)
	err = p.Wait()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want context.DeadlineExceeded", err)
	}
	if want := "cannot run sh: context deadline exceeded: still waiting for light"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestRunAfterItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "made")
	_, err := quick().Run(ctx, command.Spec{Path: "touch", Args: []string{file}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the program ran nevertheless")
	}
}

func TestGrandchildHoldingThePipeEndsWithTheProgram(t *testing.T) {
	began := time.Now()
	res, err := quick().Run(t.Context(), sh("sleep 600 & echo $!"))
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("took %s", took)
	}
	waitGone(t, number(t, res.Stdout))
}

func TestGrandchildThatLeftTheGroupCannotHoldUs(t *testing.T) {
	if _, err := os.Stat("/usr/bin/setsid"); err != nil {
		t.Skip("no setsid program here")
	}
	began := time.Now()
	// It runs on, as a daemon may; it only can't keep us waiting.
	spec := sh(`setsid sh -c 'echo $$; : > left; exec sleep 600' & until [ -e left ]; do sleep 0.02; done`)
	spec.Dir = t.TempDir()
	res, err := quick().Run(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("took %s", took)
	}
	pid := number(t, res.Stdout)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("cannot end the escaped process %d: %v", pid, err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	const total = 1 << 20
	r := command.New(command.Options{OutputLimit: 1000})
	res, err := r.Run(t.Context(), sh(`head -c 1048576 /dev/zero | tr '\0' x; printf END; printf E >&2`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(res.Stdout), strings.Repeat("x", 997)+"END"; got != want {
		t.Errorf("kept %d bytes ending in %q, want the last 1000", len(got), got[max(0, len(got)-10):])
	}
	if want := int64(total + 3 - 1000); res.Dropped != want {
		t.Errorf("%d bytes dropped, want %d", res.Dropped, want)
	}
	if got := string(res.Stderr); got != "E" {
		t.Errorf("stderr %q", got)
	}
}

func TestStopEndsTheWholeGroup(t *testing.T) {
	for _, test := range []struct{ name, script string }{
		{"obedient", "sleep 600 & echo $! ready; wait"},
		{"ignores TERM", `trap "" TERM; sleep 600 & echo $! ready; while :; do sleep 600; done`},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := quick().Start(t.Context(), sh(test.script))
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, p, "ready")
			out, _ := p.Output()
			grandchild := number(t, out)
			if err := p.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := p.Wait(); err != nil {
				t.Errorf("Wait after Stop: %v", err)
			}
			waitGone(t, p.PID())
			waitGone(t, grandchild)
			if err := p.Stop(); err != nil {
				t.Errorf("second Stop: %v", err)
			}
			if err := p.Signal(syscall.SIGHUP); err != nil {
				t.Errorf("Signal after the end: %v", err)
			}
		})
	}
}

func TestStopWhileManyWait(t *testing.T) {
	p, err := quick().Start(t.Context(), sh("echo ready; exec sleep 600"))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, p, "ready")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { _ = p.Wait() })
		wg.Go(func() { _ = p.Stop() })
		wg.Go(func() { _ = p.Signal(syscall.SIGCONT) })
		wg.Go(func() { p.Output() })
	}
	wg.Wait()
	select {
	case <-p.Done():
	default:
		t.Error("Done is open after Wait and Stop returned")
	}
}

func TestChildThatDiesByItselfIsNoticed(t *testing.T) {
	p, err := quick().Start(t.Context(), sh("echo cannot bind: address in use >&2; exit 98"))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatal("not noticed")
	}
	if err := p.Wait(); err == nil || err.Error() != "cannot run sh: exit status 98: cannot bind: address in use" {
		t.Errorf("error %v", err)
	}
}

func TestKilledFromOutside(t *testing.T) {
	p, err := quick().Start(t.Context(), sh("echo ready; exec sleep 600"))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, p, "ready")
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err == nil || p.Result().ExitCode != -1 || !strings.Contains(err.Error(), "killed") {
		t.Errorf("error %v, exit code %d", err, p.Result().ExitCode)
	}
}

func TestChildLeadsItsGroup(t *testing.T) {
	for name, change := range map[string]func(*syscall.SysProcAttr){
		"by default": nil,
		"new session": func(a *syscall.SysProcAttr) {
			a.Setsid = true
		},
		"told otherwise": func(a *syscall.SysProcAttr) {
			a.Setpgid, a.Pgid = false, 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := sh("echo ready; exec sleep 600")
			spec.SysProcAttr = change
			p, err := quick().Start(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, p, "ready")
			if pgid, err := syscall.Getpgid(p.PID()); err != nil || pgid != p.PID() {
				t.Errorf("process %d is in group %d: %v", p.PID(), pgid, err)
			}
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestChildInNamespacesOfItsOwn(t *testing.T) {
	if foreign() {
		t.Skip("qemu-user can't make namespaces")
	}
	spec := command.Spec{Path: "readlink", Args: []string{"/proc/self/ns/net"}}
	spec.SysProcAttr = func(a *syscall.SysProcAttr) {
		a.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	res, err := quick().Run(t.Context(), spec)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no user namespaces here: %v", err)
		}
		t.Skipf("no user namespaces here: %v", err)
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(res.Stdout)); got == ours || !strings.HasPrefix(got, "net:[") {
		t.Errorf("child's network namespace %q, ours %q", got, ours)
	}
}

// foreign says whether this machine isn't the one we were built for, so that
// qemu-user translates. It pretends in uname; the machine's own programs don't.
func foreign() bool {
	sh, err := elf.Open("/bin/sh")
	if err != nil {
		return false
	}
	defer sh.Close()
	switch runtime.GOARCH {
	case "amd64", "386":
		return sh.Machine != elf.EM_X86_64 && sh.Machine != elf.EM_386
	case "arm64", "arm":
		return sh.Machine != elf.EM_AARCH64 && sh.Machine != elf.EM_ARM
	case "mipsle":
		return sh.Machine != elf.EM_MIPS || sh.ByteOrder != binary.LittleEndian
	case "mips":
		return sh.Machine != elf.EM_MIPS || sh.ByteOrder != binary.BigEndian
	}
	return false
}
