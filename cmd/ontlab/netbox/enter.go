package netbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/command"
)

// stageEnv tells a process which of Enter's it is: stageInit with the registry's
// directory, or stageInside with the process id of the first process and its
// start time, as they are outside, and that directory.
const (
	stageEnv    = "ONTLAB_BOX"
	stageInit   = "init"
	stageInside = "inside"
)

// enterGrace is how long the program inside may take to clear up after SIGTERM.
const enterGrace = 20 * time.Second

// ErrNoNamespaces means that this user may not make the namespaces here.
var ErrNoNamespaces = errors.New("this kernel does not let this user make namespaces")

// Inside reports whether this process runs in namespaces that Enter made.
func Inside() bool { return strings.HasPrefix(os.Getenv(stageEnv), stageInside) }

// Enter runs this same program again, with args, in new process, mount,
// network, IPC and host name namespaces (for a user who is not root also in a
// user namespace in which it is), and returns its exit code: 128 and the
// signal's number where a signal ended it. The program must come to the same
// call again: there, as the first process of the new namespaces, Enter gives
// them /proc and lo, starts the program a last time, and reaps whatever its
// services leave behind. In that third process Inside is true:
//
//	if !netbox.Inside() {
//		return netbox.Enter(ctx, os.Stdin, os.Stdout, os.Stderr, os.Args[1:]...)
//	}
//
// When the first process ends, of whatever cause, the kernel kills every
// process of the lab and frees the namespaces; and it ends with this process.
// If ctx ends, the program inside gets SIGTERM, and SIGKILL after 20 s.
//
// The program has no terminal to read from: stdin is passed on through a pipe,
// nil is nothing. An error is compatible with ErrNoNamespaces where the kernel
// forbids what is needed.
func Enter(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, args ...string) (int, error) {
	if stage, registry, _ := strings.Cut(os.Getenv(stageEnv), " "); stage == stageInit {
		return serveInit(ctx, registry)
	}
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("cannot find this program: %w", err)
	}
	if stdin != nil {
		// Its type is hidden: a terminal itself would stop a process that is
		// not in the foreground.
		stdin = struct{ io.Reader }{stdin}
	}
	// The death of the parent, of which the child is told, is that of the
	// thread that made it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runner := command.New(command.Options{Grace: enterGrace, WaitDelay: 200 * time.Millisecond})
	result, err := runner.Run(ctx, command.Spec{
		Path: self, Args: args, Env: append(environ(), stageEnv+"="+stageInit+" "+registryDir()),
		Stdin: stdin, Stdout: stdout, Stderr: stderr, SysProcAttr: boxNamespaces,
	})
	var failed *command.Error
	switch {
	case errors.As(err, &failed) && failed.ExitCode < 0 && forbidden(err):
		return 0, fmt.Errorf("%w: %w (run as root, or allow user namespaces)", ErrNoNamespaces, err)
	case errors.As(err, &failed) && failed.ExitCode >= 0:
		return failed.ExitCode, nil
	}
	return result.ExitCode, err
}

// environ is our environment without what is ours only.
func environ() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, stageEnv+"=") {
			env = append(env, e)
		}
	}
	return env
}

// forbidden tells the errors of clone(2) and mount(2) by which a kernel says
// that it makes no namespaces, for this user or at all: not allowed, a limit of
// none, not built in, or not known to an emulator.
func forbidden(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.ENOSPC, syscall.EUSERS, syscall.EINVAL, syscall.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func boxNamespaces(attr *syscall.SysProcAttr) {
	attr.Pdeathsig = syscall.SIGKILL
	attr.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	if uid := os.Getuid(); uid != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
}

// serveInit is the first process of the namespaces. Reaping is all it does
// once the program runs: in the program itself, a reaper of orphans would take
// the exit codes that others wait for.
func serveInit(ctx context.Context, registry string) (int, error) {
	if os.Getpid() != 1 {
		return 0, fmt.Errorf("%s is set, but this is not the first process", stageEnv)
	}
	outside, err := outsideProcess()
	if err != nil {
		return 0, err
	}
	if err := settle(); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("cannot find this program: %w", err)
	}
	pid, err := syscall.ForkExec(self, os.Args, &syscall.ProcAttr{ //nolint:gosec // this program itself
		Env:   append(environ(), stageEnv+"="+stageInside+" "+outside+" "+registry),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("cannot run this program again: %w", err)
	}
	ended := make(chan syscall.WaitStatus, 1)
	go func() { ended <- reapUntil(pid) }()
	select {
	case status := <-ended:
		return exitCode(status), nil
	case <-ctx.Done():
	}
	// Who told us will kill us if this takes too long.
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return 0, fmt.Errorf("cannot end the lab: %w", err)
	}
	return exitCode(<-ended), nil
}

// reapUntil reaps every child until the one with that process id ends.
func reapUntil(pid int) syscall.WaitStatus {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1 << 8 // exited with 1; that there is no child can't be
		case got == pid:
			return status
		}
	}
}

func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// settle makes the new namespaces fit to live in.
func settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("cannot mount /proc: %w", err)
	}
	nl, err := openNetlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	return setUp(nl, "lo")
}

// outsideProcess returns this process's id and start time as the /proc that
// was mounted outside has them.
func outsideProcess() (string, error) {
	pid, err := os.Readlink("/proc/self")
	if err != nil {
		return "", fmt.Errorf("cannot tell our process id outside: %w", err)
	}
	n, err := strconv.Atoi(pid)
	if err != nil {
		return "", fmt.Errorf("cannot tell our process id outside: %w", err)
	}
	start, err := startTime(n)
	if err != nil {
		return "", err
	}
	return pid + " " + start, nil
}

// startTime returns the field of /proc/PID/stat that tells a process from a
// later one with the same id.
func startTime(pid int) (string, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", fmt.Errorf("cannot tell when process %d started: %w", pid, err)
	}
	// The name, in parentheses, may hold anything; 20 fields come after it.
	_, rest, _ := cutLast(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", fmt.Errorf("cannot tell when process %d started: short stat", pid)
	}
	return fields[19], nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
