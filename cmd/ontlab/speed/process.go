package speed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// usage is what a program took, and what it said.
type usage struct {
	CPU      time.Duration // user and system, as wait4 tells
	Took     time.Duration
	ExitCode int
	Memory   memory
	Stdout   []byte
	Stderr   []byte
}

// memory of a process, in KiB, at its highest.
type memory struct {
	// PeakKiB is VmHWM; AnonKiB the highest RssAnon seen, every memoryInterval.
	// wait4's ru_maxrss would not do: it begins with the parent's.
	PeakKiB, AnonKiB int64
}

const memoryInterval = 50 * time.Millisecond

// runOn runs a program on a host to its end. That it fails is no error: see
// ExitCode. started, if not nil, is called with its process id at once.
func runOn(ctx context.Context, h *netbox.Host, started func(pid int) error, path string, args ...string) (usage, error) {
	var u usage
	err := h.Do(func() error {
		// On this thread to its end: a child belongs where its parent's thread
		// is, and is killed with it.
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // the programs that are measured
		cmd.Dir, cmd.Stdout, cmd.Stderr = h.Dir(), &stdout, &stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		began := time.Now()
		if err := cmd.Start(); err != nil {
			return err
		}
		stop := watchMemory(cmd.Process.Pid)
		var startErr error
		if started != nil {
			startErr = started(cmd.Process.Pid)
		}
		err := cmd.Wait()
		u.Took, u.Memory = time.Since(began), stop()
		u.Stdout, u.Stderr = stdout.Bytes(), stderr.Bytes()
		u.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		u.ExitCode = cmd.ProcessState.ExitCode()
		if exit := new(exec.ExitError); errors.As(err, &exit) && ctx.Err() == nil {
			err = nil
		}
		return errors.Join(startErr, err)
	})
	if err != nil {
		return u, fmt.Errorf("cannot run %s on %s: %w", filepath.Base(path), h.Name(), err)
	}
	return u, nil
}

// failed is the error of a program that should have exited with one of those
// codes.
func (u usage) failed(name string, codes ...int) error {
	if slices.Contains(codes, u.ExitCode) {
		return nil
	}
	text := strings.TrimSpace(string(u.Stderr) + " " + string(u.Stdout))
	return fmt.Errorf("%s: exit code %d: %.500s", name, u.ExitCode, text)
}

// watchMemory looks at a process until it is stopped.
func watchMemory(pid int) (stop func() memory) {
	quit, done := make(chan struct{}), make(chan memory)
	go func() {
		var m memory
		tick := time.NewTicker(memoryInterval)
		defer tick.Stop()
		for {
			if now, err := memoryOf(pid); err == nil {
				m.PeakKiB, m.AnonKiB = max(m.PeakKiB, now.PeakKiB), max(m.AnonKiB, now.AnonKiB)
			}
			select {
			case <-tick.C:
			case <-quit:
				done <- m
				return
			}
		}
	}()
	return func() memory {
		close(quit)
		return <-done
	}
}

func memoryOf(pid int) (memory, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return memory{}, err
	}
	return parseStatus(string(text)), nil
}

// parseStatus reads /proc/PID/status. A process that has ended has no memory.
func parseStatus(text string) memory {
	var m memory
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "VmHWM:":
			m.PeakKiB = n
		case "RssAnon:":
			m.AnonKiB = n
		}
	}
	return m
}
