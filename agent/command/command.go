// Package command runs other programs: uci, pppd, a lab's broker. It is the
// only importer of os/exec, so that what every child needs is decided once.
//
// A command is an argument vector, never a line for a shell. Each child leads
// a process group of its own, and the whole group ends with it. Output is kept
// in bounded rings and hangs on errors as their detail. Secrets go in by
// standard input or the environment: arguments can be read by every user of
// the machine.
//
// Runner.Run is for commands that end by themselves, Runner.Start for children
// that live on. The package knows nothing of what it runs.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotFound is found by errors.Is in the error of a program that isn't
// installed.
var ErrNotFound = errors.New("program not found")

// ErrStuck is found by errors.Is in the error of a process that SIGKILL didn't
// end in time: the kernel holds it, and nothing more can be done.
var ErrStuck = errors.New("process did not die")

// Defaults of Options.
const (
	DefaultGrace       = 2 * time.Second
	DefaultWaitDelay   = time.Second
	DefaultOutputLimit = 64 << 10
)

// killWait bounds the wait for a process that was sent SIGKILL.
const killWait = 5 * time.Second

// detailLimit bounds the output shown in the text of an error, in bytes.
const detailLimit = 400

// Options are what all commands of a Runner share. The zero value will do.
type Options struct {
	// Grace is how long a process group may take to obey SIGTERM before it
	// gets SIGKILL. 0 means DefaultGrace.
	Grace time.Duration
	// WaitDelay is how long output may still be held open by a process that
	// left the group after the program itself is gone. 0 means
	// DefaultWaitDelay.
	WaitDelay time.Duration
	// OutputLimit bounds, in bytes, what is kept of standard output and of
	// standard error: the last OutputLimit bytes of each. 0 means
	// DefaultOutputLimit.
	OutputLimit int
	// Log is told of starts and ends at debug level, without arguments. nil
	// means no log.
	Log *slog.Logger
}

// Runner starts programs. It is safe for concurrent use.
type Runner struct{ opts Options }

// New returns a Runner.
func New(opts Options) *Runner {
	if opts.Grace <= 0 {
		opts.Grace = DefaultGrace
	}
	if opts.WaitDelay <= 0 {
		opts.WaitDelay = DefaultWaitDelay
	}
	if opts.OutputLimit <= 0 {
		opts.OutputLimit = DefaultOutputLimit
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Runner{opts: opts}
}

// Spec says what to run.
type Spec struct {
	// Path is the program: a path, or a name to be found on PATH.
	Path string
	// Args are the arguments, without the program's own name. No secrets.
	Args []string
	// Env is the whole environment, "KEY=value"; nil means ours.
	Env []string
	// Dir is the working directory; empty means ours.
	Dir string
	// Stdin is what the program reads; nil means nothing (/dev/null).
	Stdin io.Reader
	// Stdout and Stderr get the output as it comes, beside the ring that is
	// always kept; nil means only the ring. Each is written by one goroutine
	// at a time, but the two are written concurrently. A writer that fails
	// closes the program's output.
	Stdout, Stderr io.Writer
	// SysProcAttr, if not nil, may change how the child is made: namespaces,
	// identity maps. That the child leads its process group isn't negotiable.
	SysProcAttr func(*syscall.SysProcAttr)
}

// name is how errors and logs call the program.
func (s Spec) name() string { return filepath.Base(s.Path) }

// Result is what an ended command left.
type Result struct {
	// Stdout and Stderr are the last bytes of each, at most
	// Options.OutputLimit.
	Stdout, Stderr []byte
	// Dropped counts the bytes of both that came before those.
	Dropped int64
	// ExitCode is the program's, or -1 where a signal ended it.
	ExitCode int
	// Duration is from start to end.
	Duration time.Duration
}

// Error says how a command failed.
type Error struct {
	// Name is the program's, without directory and arguments.
	Name string
	// ExitCode is the program's, or -1 if it didn't start or a signal ended it.
	ExitCode int
	// Output is the end of standard error or, where that is empty, of
	// standard output.
	Output string
	// Err is the cause: an error of the context if that ended the command,
	// ErrNotFound, ErrStuck, or what the operating system said.
	Err error
}

// Error returns "cannot run NAME: CAUSE: LAST OUTPUT".
func (e *Error) Error() string {
	text := fmt.Sprintf("cannot run %s: %v", e.Name, e.Err)
	if d := detail(e.Output); d != "" {
		text += ": " + d
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// detail makes the end of an output fit for one line of an error's text.
func detail(output string) string {
	output = strings.TrimSpace(output)
	if len(output) > detailLimit {
		output = "…" + output[len(output)-detailLimit:]
	}
	output = strings.ToValidUTF8(output, "?")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return '|'
		case r < ' ' || r == 0x7f:
			return ' '
		}
		return r
	}, output)
}

// Run runs a command to its end. Whatever of its process group is left then is
// killed. If ctx ends first the group gets SIGTERM and, after Options.Grace,
// SIGKILL, and the error is compatible with ctx's own. Any other exit than 0
// is an *Error too; the Result is there in either case.
func (r *Runner) Run(ctx context.Context, spec Spec) (Result, error) {
	p, err := r.Start(ctx, spec)
	if err != nil {
		return Result{ExitCode: -1}, err
	}
	err = p.Wait()
	return p.Result(), err
}

// Start starts a command that lives on. If ctx ends it is stopped as by Stop,
// and Wait returns an error compatible with ctx's own. The caller must call
// Wait or Stop, or end ctx, to have the process's resources released.
func (r *Runner) Start(ctx context.Context, spec Spec) (*Process, error) {
	fail := func(err error) error { return &Error{Name: spec.name(), ExitCode: -1, Err: err} }
	if err := ctx.Err(); err != nil {
		return nil, fail(err)
	}
	p := &Process{
		name:   spec.name(),
		opts:   r.opts,
		stdout: ring{limit: r.opts.OutputLimit},
		stderr: ring{limit: r.opts.OutputLimit},
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	// The context is obeyed below, for the whole group; os/exec would kill the
	// leader only.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), spec.Path, spec.Args...) //nolint:gosec // running what it is told is what this package is for; the vector never meets a shell
	cmd.Env = spec.Env
	cmd.Dir = spec.Dir
	cmd.Stdin = spec.Stdin
	cmd.Stdout = output(&p.stdout, spec.Stdout)
	cmd.Stderr = output(&p.stderr, spec.Stderr)
	cmd.WaitDelay = r.opts.WaitDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if spec.SysProcAttr != nil {
		spec.SysProcAttr(cmd.SysProcAttr)
	}
	// A session leader leads its group already.
	cmd.SysProcAttr.Setpgid = !cmd.SysProcAttr.Setsid
	cmd.SysProcAttr.Pgid = 0
	p.cmd = cmd
	p.began = time.Now()
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || cmd.Path == spec.Path && errors.Is(err, fs.ErrNotExist) && isMissing(spec.Path) {
			err = ErrNotFound
		}
		return nil, fail(err)
	}
	p.opts.Log.Debug("process started", "program", p.name, "pid", cmd.Process.Pid)
	go p.supervise(ctx)
	return p, nil
}

// isMissing tells a missing program from one whose interpreter or directory is
// missing: both say ENOENT.
func isMissing(path string) bool {
	return errors.Is(unix.Access(path, unix.F_OK), fs.ErrNotExist)
}

// output writes to the ring and, where there is one, to the caller's writer.
func output(to *ring, also io.Writer) io.Writer {
	if also == nil {
		return to
	}
	return io.MultiWriter(to, also)
}

// Process is a started command. It is safe for concurrent use.
type Process struct {
	name           string
	opts           Options
	cmd            *exec.Cmd
	began          time.Time
	stdout, stderr ring

	stop     chan struct{} // closed by the first Stop
	stopOnce sync.Once
	done     chan struct{} // closed when all of it has ended

	mu     sync.Mutex
	reaped bool // guarded by mu; from then on the process id may be another's

	// Set before done is closed, read only afterwards.
	took  time.Duration
	code  int
	err   error
	stuck bool
}

// PID is the process's id, which is also its group's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and its output was read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end. It returns nil if the program exited with 0 or was
// ended by Stop, else an *Error.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Stop ends the process and its group: SIGTERM, then SIGKILL after
// Options.Grace. It returns when they are gone, at the latest some seconds
// after the grace, and then with an error compatible with ErrStuck. Stopping
// what has ended does nothing.
func (p *Process) Stop() error {
	p.stopOnce.Do(func() { close(p.stop) })
	<-p.done
	if p.stuck {
		return &Error{Name: p.name, ExitCode: -1, Err: ErrStuck}
	}
	return nil
}

// Signal sends a signal to the whole group. It does nothing if the process has
// ended.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	if err := syscall.Kill(-p.PID(), sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cannot signal %s: %w", p.name, err)
	}
	return nil
}

// Output returns the last bytes of standard output and of standard error, also
// while the process runs.
func (p *Process) Output() (stdout, stderr []byte) {
	return p.stdout.bytes(), p.stderr.bytes()
}

// Result waits for the end and returns what is left.
func (p *Process) Result() Result {
	<-p.done
	return Result{
		Stdout:   p.stdout.bytes(),
		Stderr:   p.stderr.bytes(),
		Dropped:  p.stdout.dropped() + p.stderr.dropped(),
		ExitCode: p.code,
		Duration: p.took,
	}
}

// supervise owns the process from start to end. It stops early where ctx ends
// or Stop is called.
func (p *Process) supervise(ctx context.Context) {
	defer close(p.done)
	exited := make(chan error, 1)
	go func() { exited <- p.reap() }()

	var err, cause error
	stopped := false
	select {
	case err = <-exited:
	case <-p.stop:
		stopped = true
		err = p.end(exited)
	case <-ctx.Done():
		cause = ctx.Err()
		err = p.end(exited)
	}
	p.took = time.Since(p.began)
	p.code = -1
	p.stuck = errors.Is(err, ErrStuck)
	if !p.stuck && p.cmd.ProcessState != nil {
		p.code = p.cmd.ProcessState.ExitCode()
	}
	switch {
	case p.stuck && cause != nil:
		p.err = p.failure(errors.Join(cause, err))
	case p.stuck:
		p.err = p.failure(err)
	case cause != nil:
		p.err = p.failure(cause)
	case stopped, err == nil:
	case errors.Is(err, exec.ErrWaitDelay):
		// The program itself exited with 0; somebody it left behind, outside
		// the group, held its output.
	default:
		p.err = p.failure(err)
	}
	p.opts.Log.Debug("process ended", "program", p.name, "exit_code", p.code, "stopped", stopped)
}

// end asks the group to end, then makes it.
func (p *Process) end(exited <-chan error) error {
	// A group that can't be signalled can't be helped; the waits are bounded.
	_ = p.Signal(syscall.SIGTERM)
	grace := time.NewTimer(p.opts.Grace)
	defer grace.Stop()
	select {
	case err := <-exited:
		return err
	case <-grace.C:
	}
	_ = p.Signal(syscall.SIGKILL)
	last := time.NewTimer(killWait + p.opts.WaitDelay)
	defer last.Stop()
	select {
	case err := <-exited:
		return err
	case <-last.C:
		return ErrStuck
	}
}

// reap waits for the program to exit, kills what is left of its group, and
// collects status and output. The kill comes between exit and reaping, while
// the process id can't be another's.
func (p *Process) reap() error {
	for {
		err := unix.Waitid(unix.P_PID, p.PID(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.mu.Lock()
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	p.reaped = true
	p.mu.Unlock()
	return p.cmd.Wait()
}

func (p *Process) failure(cause error) error {
	text := bytes.TrimSpace(p.stderr.bytes())
	if len(text) == 0 {
		text = bytes.TrimSpace(p.stdout.bytes())
	}
	return &Error{Name: p.name, ExitCode: p.code, Output: string(text), Err: cause}
}
