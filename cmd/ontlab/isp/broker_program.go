package isp

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// programChildren is how long a program's children may take to end after it:
// they have been killed.
const programChildren = 5 * time.Second

// program is one of an operator's programs on a host, started and stopped
// again as faults come and go. Its owner guards it.
type program struct {
	host    *netbox.Host
	process *netbox.Process // nil: it does not run
	held    bool
}

// start starts the program; whatever ran before is stopped.
func (p *program) start(ctx context.Context, s netbox.Service) error {
	if err := p.stop(); err != nil {
		return err
	}
	process, err := p.host.Start(ctx, s)
	if err != nil {
		return err
	}
	p.process = process
	return nil
}

// hold stops its clock: its sockets stay, the kernel takes connections and
// packets for it, and nobody looks at them.
func (p *program) hold() error {
	if p.process == nil {
		return nil
	}
	p.held = true
	return p.process.Signal(syscall.SIGSTOP)
}

// resume lets a held program go on.
func (p *program) resume() error {
	if p.process == nil || !p.held {
		return nil
	}
	p.held = false
	return p.process.Signal(syscall.SIGCONT)
}

// stop ends the program, if it runs, and waits for its children as well: they
// have its sockets.
func (p *program) stop() error {
	if p.process == nil {
		return nil
	}
	process, held := p.process, p.held
	p.process, p.held = nil, false
	end := process.Stop
	if held {
		// What it still has to answer is for nobody: it must not wake up.
		end = process.Kill
	}
	if err := end(); err != nil {
		return err
	}
	for until := time.Now().Add(programChildren); ; <-time.After(time.Millisecond) {
		if err := syscall.Kill(-process.PID(), 0); errors.Is(err, syscall.ESRCH) {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("cannot stop %s: its children live on", process.Name())
		}
	}
}
