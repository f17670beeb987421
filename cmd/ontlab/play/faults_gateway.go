package play

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"ontagent/cmd/ontlab/netbox"
)

// The buffers of TCP as the kernel has them: least, at first, most.
const (
	usualRead  = "4096 131072 6291456"
	usualWrite = "4096 16384 4194304"
)

// applyWindows makes TCP's buffers on the gateway, and on the server that sends
// to it, what the settings say.
func (l *Lab) applyWindows() error {
	read, write := usualRead, usualWrite
	if p, on := l.latest("small_windows"); on {
		size := strconv.Itoa(p.KiB << 10)
		read = "4096 " + size + " " + size
		write = read
	}
	hosts := []*netbox.Host{l.gateway, l.core}
	if l.speed != nil {
		hosts = append(hosts, l.speed)
	}
	var problems []error
	for _, host := range hosts {
		problems = append(problems, host.Sysctl("net.ipv4.tcp_rmem", read), host.Sysctl("net.ipv4.tcp_wmem", write))
	}
	return errors.Join(problems...)
}

// lowest is the niceness of a process that everybody else comes before.
const lowest = 19

// slow lets every processor be busy, and the agent come last, until the fault
// goes.
func (l *Lab) slow(ctx context.Context, fault string) error {
	var all []*netbox.Process
	end := func() error {
		var problems []error
		for _, p := range all {
			problems = append(problems, p.Kill())
		}
		return errors.Join(problems...)
	}
	for i := range 2 * runtime.NumCPU() {
		p, err := l.gateway.Start(ctx, netbox.Service{Name: fmt.Sprint(fault, i), Path: "busybox", Args: []string{"sh", "-c", "while :; do :; done"}})
		if err != nil {
			return errors.Join(err, end())
		}
		all = append(all, p)
	}
	if err := renice(l.agent.PID(), lowest); err != nil {
		return errors.Join(err, end())
	}
	l.noise.start(ctx, fault, func(ctx context.Context) {
		<-ctx.Done()
		_ = end()                    // what doesn't end goes with the lab
		_ = renice(l.agent.PID(), 0) // it may have ended
	})
	return nil
}

// renice sets the niceness of each thread of a process: that of a process is
// its first thread's alone.
func renice(pid, nice int) error {
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	if err != nil {
		return fmt.Errorf("cannot list threads: %w", err)
	}
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			continue
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, nice); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("cannot set niceness: %w", err)
		}
	}
	return nil
}
