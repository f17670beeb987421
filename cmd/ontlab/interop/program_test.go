package interop

import (
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

// docs is where the configurations under test are.
const docs = "../../../docs/brokers"

// program is somebody else's server.
type program struct {
	t    *testing.T
	name string
	args []string
	env  []string // beside ours
	cmd  *exec.Cmd
	log  output
}

// output collects what a program prints. It is safe for concurrent use.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

var _ io.Writer = (*output)(nil)

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs the program until the test ends.
func (p *program) start() {
	p.t.Helper()
	p.cmd = exec.CommandContext(context.Background(), p.name, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.Env = append(os.Environ(), p.env...)
	// Nothing is left running if the test is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	cmd := p.cmd
	p.t.Cleanup(func() {
		if p.cmd == cmd {
			p.stop(syscall.SIGKILL)
		}
		if p.t.Failed() {
			p.t.Logf("%s said:\n%s", filepath.Base(p.name), tail(p.log.String(), 6000))
		}
	})
}

// stop ends the program with a signal and waits for it.
func (p *program) stop(sig syscall.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	_ = p.cmd.Wait()
	p.cmd = nil
}

func (p *program) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// configure copies a file of docs with some words replaced; each must be
// there, so that the test and the file stay together.
func configure(t *testing.T, file, to string, replace ...string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(docs, file))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(data), replace[i]) {
			t.Fatalf("%s has no %q", file, replace[i])
		}
	}
	text := strings.NewReplacer(replace...).Replace(string(data))
	if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// ports returns free ones of the loopback interface.
func ports(t *testing.T, n int) []string {
	t.Helper()
	var all []string
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() // all at once, so that none is given twice
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		all = append(all, port)
	}
	return all
}

// reachable reports whether something listens on a port.
func reachable(port string) bool {
	c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// eventually waits for what takes real servers a moment.
func eventually(t *testing.T, what string, within time.Duration, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}
