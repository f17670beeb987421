package netbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/command"
)

// DefaultReadyTimeout is how long a service may take to be ready: long enough
// for an emulated processor.
const DefaultReadyTimeout = 90 * time.Second

// logTail bounds what Process.Log returns, in bytes.
const logTail = 64 << 10

// Service is a program that lives on. It must stay in the foreground.
type Service struct {
	// Name is for messages and the log file, Dir/NAME.log: one of a kind
	// among those that run on the host. Empty means the program's.
	Name string
	// Path is the program: a path, or a name to be found on PATH or in the
	// directories of system programs.
	Path string
	Args []string
	// Env is added to our environment, "KEY=value".
	Env []string
	// Dir is the working directory. Empty means Host.Dir.
	Dir string
	// Stdin is what the program reads; nil means nothing.
	Stdin []byte
	// Ready says whether the service does its work, by nil. It is asked every
	// 20 ms until then. nil means that nobody asks.
	Ready func(ctx context.Context) error
	// ReadyTimeout is how long that may take. 0 means DefaultReadyTimeout.
	ReadyTimeout time.Duration
	// Grace is how long it may take to obey SIGTERM before it gets SIGKILL. 0
	// means command.DefaultGrace.
	Grace time.Duration
}

// Process is a service that was started. It is safe for concurrent use.
type Process struct {
	host *Host
	name string
	p    *command.Process
	log  string
	from int64 // where its part of the log begins
	done chan struct{}
}

// Start starts a service on the host and waits until it is ready. ctx bounds
// the start only; the service lives until it is stopped or the Box is closed.
// Where it ends before it is ready, or doesn't get ready, the error has the end
// of its output, and nothing is left of it. Both of its outputs go to
// Dir/NAME.log, which is appended to.
func (h *Host) Start(ctx context.Context, s Service) (*Process, error) {
	if s.Name == "" {
		s.Name = filepath.Base(s.Path)
	}
	if !filepath.IsLocal(s.Name) || strings.Contains(s.Name, "/") {
		return nil, fmt.Errorf("cannot start service on %s: bad name %q", h.name, s.Name)
	}
	p, err := h.launch(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("cannot start %s on %s: %w", s.Name, h.name, err)
	}
	if err := p.waitReady(ctx, s); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start %s on %s: %w%s", s.Name, h.name, err, p.lastWords()), p.Kill())
	}
	return p, nil
}

// launch starts a service, without a wait.
func (h *Host) launch(ctx context.Context, s Service) (*Process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shut {
		return nil, ErrClosed
	}
	if h.processes[s.Name] != nil {
		return nil, errors.New("there is one that runs")
	}
	p := &Process{host: h, name: s.Name, log: filepath.Join(h.dir, s.Name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write log: %w", err)
	}
	if p.from, err = log.Seek(0, io.SeekEnd); err == nil {
		spec := command.Spec{Path: s.Path, Args: s.Args, Env: append(environ(), s.Env...), Dir: s.Dir, Stdout: log, Stderr: log}
		if s.Stdin != nil {
			spec.Stdin = strings.NewReader(string(s.Stdin))
		}
		p.p, err = h.fork(context.WithoutCancel(ctx), command.Options{Grace: s.Grace, Log: h.log}, spec)
	}
	if err != nil {
		log.Close() //nolint:errcheck // nothing was written
		return nil, err
	}
	h.processes[s.Name] = p
	h.waits.Go(func() {
		<-p.p.Done()
		log.Close() //nolint:errcheck // a log
		h.mu.Lock()
		delete(h.processes, s.Name)
		h.mu.Unlock()
		close(p.done)
	})
	return p, nil
}

// fork starts a program from the host's thread. Whose namespaces a child gets
// is decided by the thread that forks: command.Runner does that in the calling
// goroutine.
func (h *Host) fork(ctx context.Context, o command.Options, spec command.Spec) (p *command.Process, err error) {
	if spec.Dir == "" {
		spec.Dir = h.dir
	}
	outer := h.onOwnThread(func() {
		spec.Path = findProgram(spec.Path)
		spec.SysProcAttr = func(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
		p, err = command.New(o).Start(ctx, spec)
	})
	return p, errors.Join(outer, err)
}

// findProgram finds also what only root's PATH has. What is nowhere to be
// found stays as it is, for the error.
func findProgram(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range [...]string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	return name
}

func (p *Process) waitReady(ctx context.Context, s Service) error {
	if s.Ready == nil {
		return nil
	}
	if s.ReadyTimeout <= 0 {
		s.ReadyTimeout = DefaultReadyTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, s.ReadyTimeout)
	defer cancel()
	ended := make(chan struct{})
	defer func() { <-ended }()
	defer cancel()
	go func() {
		defer close(ended)
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.Ready(ctx)
		if err == nil && ctx.Err() == nil {
			return nil
		}
		select {
		case <-tick.C:
			if ctx.Err() == nil {
				continue
			}
		case <-ctx.Done():
		}
		select {
		case <-p.done:
			if p.Err() == nil {
				return errors.New("it ended before it was ready")
			}
			return p.Err()
		default:
		}
		return fmt.Errorf("not ready: %w: %w", ctx.Err(), err)
	}
}

// Run runs a program on the host to its end, with Host.Dir as its working
// directory, and returns its output: the last 64 KiB. The error of a program
// that failed is a *command.Error: exit code and end of its error output.
func (h *Host) Run(ctx context.Context, path string, args ...string) ([]byte, error) {
	p, err := h.runner(ctx, path, args)
	if err != nil {
		return nil, err
	}
	err = p.Wait()
	return p.Result().Stdout, err
}

func (h *Host) runner(ctx context.Context, path string, args []string) (*command.Process, error) {
	// Held so that Close, which sets shut, sees the process.
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shut {
		return nil, fmt.Errorf("cannot run %s on %s: %w", filepath.Base(path), h.name, ErrClosed)
	}
	return h.fork(ctx, command.Options{Log: h.log}, command.Spec{Path: path, Args: args, Env: environ()})
}

// Name is the service's name.
func (p *Process) Name() string { return p.name }

// PID is the process's id, in the process namespace of the lab; also its
// group's.
func (p *Process) PID() int { return p.p.PID() }

// Done is closed when the process has ended and its output was read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns nil while the process runs, and where it exited with 0 or was
// ended by Stop; else how it ended.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.p.Wait()
	default:
		return nil
	}
}

// Signal sends a signal to the process and its group.
func (p *Process) Signal(sig syscall.Signal) error { return p.p.Signal(sig) }

// Stop ends the process and its group: SIGTERM, and SIGKILL after
// Service.Grace. It returns when it is gone, or in some seconds more with
// command.ErrStuck.
func (p *Process) Stop() error {
	err := p.p.Stop()
	<-p.done
	return err
}

// Kill ends the process and its group at once, as a power cut does.
func (p *Process) Kill() error {
	if err := p.p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	return p.Stop()
}

// Log returns the end of what the process has written to both outputs, at most
// 64 KiB.
func (p *Process) Log() []byte {
	f, err := os.Open(p.log)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // only read
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	from := max(p.from, end-logTail)
	text, _ := io.ReadAll(io.NewSectionReader(f, from, end-from))
	return text
}

// lastWords is the end of the log for the text of an error.
func (p *Process) lastWords() string {
	lines := strings.Split(strings.TrimSpace(string(p.Log())), "\n")
	text := strings.Join(lines[max(0, len(lines)-5):], " | ")
	if text == "" {
		return ""
	}
	return ": its last words: " + strings.ToValidUTF8(text, "?")
}

// killRest kills what runs in the host's network still: daemons that left the
// group of the process which started them.
func (h *Host) killRest() error {
	var own unix.Stat_t
	if err := unix.Fstat(int(h.ns.net.Fd()), &own); err != nil {
		return fmt.Errorf("cannot look at namespace of %s: %w", h.name, err)
	}
	deadline := time.Now().Add(5 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := processesIn(own)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cannot end processes %v of %s: %w", pids, h.name, command.ErrStuck)
		}
		<-tick.C
	}
}

// processesIn returns the processes, other than this, in a network namespace.
func processesIn(ns unix.Stat_t) ([]int, error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	var pids []int
	for _, dir := range dirs {
		var pid int
		if _, err := fmt.Sscan(dir.Name(), &pid); err != nil || pid == os.Getpid() {
			continue
		}
		var stat unix.Stat_t
		// Of one that has ended there is nothing to see.
		if err := unix.Stat("/proc/"+dir.Name()+"/ns/net", &stat); err == nil && stat.Ino == ns.Ino && stat.Dev == ns.Dev {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
