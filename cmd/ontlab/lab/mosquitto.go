package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"ontagent/agent/command"
)

// ErrNoMosquitto means that the broker's program is not installed.
var ErrNoMosquitto = errors.New("no mosquitto (Debian package mosquitto)")

// Mosquitto is the real broker, started and stopped at will on one address. It
// keeps nothing on disk and lets everyone do everything.
type Mosquitto struct {
	path, conf, address string
	runner              *command.Runner
	process             *command.Process
}

// NewMosquitto writes a configuration in dir for a broker on address. The error
// is compatible with errors.Is(err, ErrNoMosquitto) where there is none.
func NewMosquitto(dir, address string) (*Mosquitto, error) {
	m := &Mosquitto{address: address, conf: filepath.Join(dir, "mosquitto.conf"), runner: command.New(command.Options{})}
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} { // Debian's users don't have sbin on their PATH
		if path, err := exec.LookPath(name); err == nil {
			m.path = path
			break
		}
	}
	if m.path == "" {
		return nil, ErrNoMosquitto
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("cannot configure mosquitto: %w", err)
	}
	// Run by root it would change to a user that a lab does not have.
	text := fmt.Sprintf("listener %s %s\nallow_anonymous true\npersistence false\nuser root\nlog_dest stderr\n"+
		// By default it drops what a slow subscriber has not taken of 1000 messages.
		"max_queued_messages 0\n", port, host)
	if err := os.WriteFile(m.conf, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("cannot configure mosquitto: %w", err)
	}
	return m, nil
}

// Start starts the broker and returns when it takes connections.
func (m *Mosquitto) Start(ctx context.Context) error {
	var err error
	m.process, err = m.runner.Start(ctx, command.Spec{Path: m.path, Args: []string{"-c", m.conf}, SysProcAttr: dieWithLab})
	if err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: time.Second}
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := dialer.DialContext(ctx, "tcp", m.address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-m.process.Done():
			_, stderr := m.process.Output()
			return fmt.Errorf("cannot start mosquitto: %w: %s", m.process.Wait(), stderr)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("cannot reach mosquitto: %w", err), m.Stop())
		}
	}
}

// Stop stops the broker in order: it says goodbye to nobody in MQTT 3.1.1, but
// it closes its connections. Stopping what does not run does nothing.
func (m *Mosquitto) Stop() error {
	if m.process == nil {
		return nil
	}
	return m.process.Stop()
}

// Kill ends the broker as a crash does.
func (m *Mosquitto) Kill() error {
	if err := m.process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-m.process.Done()
	return nil
}

// dieWithLab ends a child with the lab that started it, however that ends.
func dieWithLab(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
