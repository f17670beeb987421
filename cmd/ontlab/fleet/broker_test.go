package fleet_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// broker is a real mosquitto on one port of 127.0.0.1, started and killed at
// will. It tells of each connection that it accepts.
type broker struct {
	t        *testing.T
	path     string
	conf     string
	addr     string
	accepted func(at time.Time) // called in order; nil: nobody wants to know

	cmd    *exec.Cmd
	logged sync.WaitGroup
	tail   []string // the last lines it logged; owned by the reader
}

// newBroker starts mosquitto. It skips the test where there is none; in CI
// there has to be one.
func newBroker(t *testing.T, accepted func(time.Time)) *broker {
	t.Helper()
	b := &broker{t: t, accepted: accepted}
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} { // Debian's users don't have sbin on their PATH
		if path, err := exec.LookPath(name); err == nil {
			b.path = path
			break
		}
	}
	if b.path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("no mosquitto (Debian package mosquitto)")
		}
		t.Skip("no mosquitto (Debian package mosquitto)")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = listener.Addr().String()
	_ = listener.Close()
	_, port, _ := net.SplitHostPort(b.addr)
	b.conf = filepath.Join(t.TempDir(), "mosquitto.conf")
	lines := []string{
		"listener " + port + " 127.0.0.1", "allow_anonymous true", "persistence false", "log_dest stderr", "user root",
		// Small packets at once, and no limits to a subscriber that is slow.
		"set_tcp_nodelay true", "max_queued_messages 0", "max_inflight_messages 0",
	}
	if err := os.WriteFile(b.conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(b.kill)
	return b
}

func (b *broker) start() {
	b.t.Helper()
	b.cmd = exec.CommandContext(context.WithoutCancel(b.t.Context()), b.path, "-c", b.conf)
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := b.cmd.StderrPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.logged.Go(func() { b.read(stderr) })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", b.addr, time.Second)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			b.kill()
			b.t.Fatalf("cannot reach mosquitto: %v: %s", err, strings.Join(b.tail, "\n"))
		}
	}
}

func (b *broker) read(log io.Reader) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if strings.Contains(lines.Text(), ": New connection from ") {
			if b.accepted != nil {
				b.accepted(time.Now())
			}
			continue
		}
		if b.tail = append(b.tail, lines.Text()); len(b.tail) > 20 {
			b.tail = b.tail[1:]
		}
	}
}

// kill ends the broker as a crash does.
func (b *broker) kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill()
	b.logged.Wait() // it reads to the end before Wait closes the pipe
	_ = b.cmd.Wait()
	b.cmd = nil
}
