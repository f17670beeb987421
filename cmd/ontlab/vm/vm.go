// Package vm runs a command inside a QEMU guest with Debian's own kernel, for
// what the running kernel cannot do: PPP, VLANs, delay on links, raw flash.
//
// The guest sees the host's files as they are, read-only, under a layer in
// memory that takes its writes; so it runs any program of the host, and leaves
// nothing behind. It has two processors, no network but its own loopback, and
// is root. The kernel comes from a Debian package that is unpacked into a
// cache, never installed. The processor is emulated: a boot takes some ten
// seconds, and a command many times what it takes outside.
package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ontagent/agent/command"
	"ontagent/cmd/ontlab/scratch"
)

// Names of the guest's own. ResultsDir is a directory in the guest whose files
// the host gets: see Job.Results.
const (
	jobDir     = "/run/ontlab"
	ResultsDir = jobDir + "/results"
)

// Defaults of Options and Job.
const (
	DefaultMemoryMiB = 512
	DefaultTimeout   = 10 * time.Minute
)

// ErrUnavailable is found by errors.Is where this machine lacks something that
// a guest needs; the text says what, and the package that has it.
var ErrUnavailable = errors.New("no guest can be run here")

// ErrTimeout is found by errors.Is where a guest did not power off in time.
var ErrTimeout = errors.New("guest did not end in time")

// Options describe a guest. The zero value will do.
type Options struct {
	// Modules are loaded before the job runs, in this order, with what they
	// depend on. An entry is a name, and parameters behind it:
	// "nandsim id_bytes=0x20,0xaa,0x00,0x15". The job may load more itself:
	// modprobe works in the guest.
	Modules []string
	// MemoryMiB is the guest's memory; what it writes to files is in it too.
	// 0 means DefaultMemoryMiB.
	MemoryMiB int
	// Cache is the directory that keeps kernels between runs, some 300 MiB
	// each. Empty means ontagent/guest in the user's cache directory. It must
	// not be below /run, which the guest does not see.
	Cache string
	// Log is told what takes long. nil means silence.
	Log *slog.Logger
}

// Job is what a guest runs.
type Job struct {
	// Args are the program and its arguments. The program is a path on the
	// host, or a name to be found on the usual PATH.
	Args []string
	// Env is added to the guest's environment, "KEY=value".
	Env []string
	// Dir is the working directory, a path on the host. Empty means ours.
	Dir string
	// Timeout bounds the guest's life, boot included. 0 means DefaultTimeout.
	Timeout time.Duration
	// Stdout and Stderr get the job's output while it runs; nil drops it.
	// They are not written to concurrently.
	Stdout, Stderr io.Writer
	// Results is a directory on the host that gets the files which the job
	// writes to ResultsDir. Empty means that they are dropped.
	Results string
}

// Result is how a job ended.
type Result struct {
	// ExitCode is the program's; 127 where the guest did not find it, and 128
	// and the signal's number where one ended it.
	ExitCode int
	// Took is the guest's life, boot included.
	Took time.Duration
	// Console is the end of what the guest's kernel said, for people.
	Console string
}

// Run boots a guest, runs job in it and waits for its end. An exit code other
// than 0 is no error. Errors are compatible with errors.Is for ErrUnavailable,
// ErrTimeout, and with ctx's own. Everything that Run made is gone when it
// returns, but the cached kernel. Runs may be concurrent, also in several
// processes.
func Run(ctx context.Context, o Options, job Job) (Result, error) {
	if o.MemoryMiB == 0 {
		o.MemoryMiB = DefaultMemoryMiB
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if job.Timeout <= 0 {
		job.Timeout = DefaultTimeout
	}
	g, err := newGuest(ctx, o)
	if err != nil {
		return Result{}, fmt.Errorf("cannot make guest: %w", err)
	}
	return g.run(ctx, o, job)
}

// guest is what is the same for all runs on a machine.
type guest struct {
	qemu   string
	kernel kernel
	initrd string
}

func newGuest(ctx context.Context, o Options) (guest, error) {
	if runtime.GOARCH != "amd64" {
		return guest{}, fmt.Errorf("%w: its kernel is for amd64, and it runs the host's programs, which are for %s", ErrUnavailable, runtime.GOARCH)
	}
	if o.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			dir = filepath.Join(os.TempDir(), "cache-"+strconv.Itoa(os.Getuid()))
		}
		o.Cache = filepath.Join(dir, "ontagent", "guest")
	}
	qemu, err := tool("qemu-system-x86_64", "qemu-system-x86")
	if err != nil {
		return guest{}, err
	}
	modprobe, err := tool("modprobe", "kmod")
	if err != nil {
		return guest{}, err
	}
	k, err := cachedKernel(ctx, o.Cache, o.Log)
	if err != nil {
		return guest{}, err
	}
	for _, m := range o.Modules {
		name, _, _ := strings.Cut(strings.TrimSpace(m), " ")
		if _, err := k.closure(ctx, modprobe, name); err != nil {
			return guest{}, err
		}
	}
	initrd, err := cachedInitrd(ctx, o.Cache, modprobe, k)
	if err != nil {
		return guest{}, err
	}
	return guest{qemu: qemu, kernel: k, initrd: initrd}, nil
}

func (g guest) run(ctx context.Context, o Options, job Job) (Result, error) {
	own, err := scratch.New("guest")
	if err != nil {
		return Result{}, fmt.Errorf("cannot make guest: %w", err)
	}
	defer own.Remove() //nolint:errcheck // a temporary directory
	dir := own.Path
	if err := prepare(dir, g.kernel, o, job); err != nil {
		return Result{}, fmt.Errorf("cannot prepare job: %w", err)
	}

	bounded, cancel := context.WithTimeoutCause(ctx, job.Timeout, ErrTimeout)
	defer cancel()
	stopTail := tail(dir, job)
	result, runErr := command.New(command.Options{Grace: time.Millisecond}).Run(bounded, command.Spec{
		Path:        g.qemu,
		Args:        g.args(dir, o.MemoryMiB),
		SysProcAttr: func(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL },
	})
	tailErr := stopTail()
	r := Result{Took: result.Duration, Console: console(result.Stdout)}
	if err := verdict(dir, &r, runErr); err != nil {
		if bounded.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("%w: killed after %v", ErrTimeout, job.Timeout)
		}
		return r, fmt.Errorf("cannot run job in guest: %w%s", err, lastWords(r.Console))
	}
	if tailErr != nil {
		return r, fmt.Errorf("cannot pass on the job's output: %w", tailErr)
	}
	if job.Results != "" {
		if err := os.CopyFS(job.Results, os.DirFS(filepath.Join(dir, "results"))); err != nil {
			return r, fmt.Errorf("cannot copy the job's results: %w", err)
		}
	}
	return r, nil
}

// prepare fills the directory that host and guest share.
func prepare(dir string, k kernel, o Options, job Job) error {
	if len(job.Args) == 0 {
		return errors.New("no command is given")
	}
	if job.Dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return fmt.Errorf("cannot tell the working directory: %w", err)
		}
		job.Dir = wd
	}
	if strings.HasPrefix(job.Dir+"/", "/run/") || strings.HasPrefix(job.Args[0], "/run/") {
		return errors.New("the guest does not see what is below /run on the host")
	}
	if err := os.Mkdir(filepath.Join(dir, "results"), 0o755); err != nil { //nolint:gosec // a temporary directory, 0700 itself
		return err
	}
	for name, content := range map[string]string{
		"start":       startScript,
		"command":     commandScript(job),
		"modules":     strings.Join(append(o.Modules, ""), "\n"),
		"modules-dir": filepath.Join(k.root, "lib/modules") + "\n",
		"stdout":      "",
		"stderr":      "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// commandScript is the job as a shell script that becomes its program.
func commandScript(job Job) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cd %s || exit 127\nexec env HOME=/root LANG=C.UTF-8 TMPDIR=/tmp", quote(job.Dir))
	for _, e := range job.Env {
		b.WriteString(" " + quote(e))
	}
	for _, a := range job.Args {
		b.WriteString(" " + quote(a))
	}
	b.WriteByte('\n')
	return b.String()
}

// quote makes s one word of a shell, whatever is in it.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (g guest) args(dir string, memoryMiB int) []string {
	return []string{
		"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", strconv.Itoa(memoryMiB),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none", "-nic", "none", "-serial", "stdio",
		"-kernel", g.kernel.image, "-initrd", g.initrd,
		// mitigations, tsc, timer: none of it is worth its time in an emulator.
		"-append", "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check mitigations=off",
		"-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
		"-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
		"-fsdev", "local,id=job,path=" + strings.ReplaceAll(dir, ",", ",,") + ",security_model=none",
		"-device", "virtio-9p-pci,fsdev=job,mount_tag=job",
	}
}

// verdict finds out how the job ended from what the guest left in dir.
func verdict(dir string, r *Result, runErr error) error {
	if text, err := os.ReadFile(filepath.Join(dir, "failed")); err == nil {
		return errors.New(strings.TrimSpace(string(text)))
	}
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if code, convErr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && convErr == nil {
		r.ExitCode = code
		return nil
	}
	if runErr != nil {
		return runErr
	}
	return errors.New("the guest ended before its job")
}
