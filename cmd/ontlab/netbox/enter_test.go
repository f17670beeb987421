package netbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"ontagent/agent/command"
	"ontagent/cmd/ontlab/netbox"
)

// Environment of the role "lab".
const (
	labDirEnv  = "NETBOX_DIR"
	labMarkEnv = "NETBOX_MARK"
)

// playLab is a lab of two hosts that lives until it is told to end, and then
// exits with 7.
func playLab(ctx context.Context, out io.Writer) (code int, err error) {
	if !netbox.Inside() {
		return netbox.Enter(ctx, strings.NewReader("hello"), os.Stdout, os.Stderr)
	}
	in, err := io.ReadAll(os.Stdin)
	if err != nil || string(in) != "hello" {
		return 0, fmt.Errorf("standard input %q: %w", in, err)
	}
	mark := os.Getenv(labMarkEnv)
	b, err := netbox.Open(netbox.Options{Dir: os.Getenv(labDirEnv), Name: mark})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	var hosts []*netbox.Host
	for _, name := range []string{"a", "z"} {
		h, err := b.Host(name)
		if err != nil {
			return 0, err
		}
		hosts = append(hosts, h)
		if _, err := h.Start(ctx, netbox.Service{Path: "sh", Args: []string{"-c", ": " + mark + "; trap '' TERM; sleep 600; sleep 600"}}); err != nil {
			return 0, err
		}
		if _, err := h.Run(ctx, "sh", "-c", "setsid sh -c ': "+mark+"; sleep 600; sleep 600' >/dev/null 2>&1 </dev/null & sleep 0.1"); err != nil {
			return 0, err
		}
	}
	if err := b.Cable(hosts[0], "eth0", hosts[1], "eth0", netbox.CableOptions{}); err != nil {
		return 0, err
	}
	fmt.Fprintln(out, "ready")
	<-ctx.Done()
	return 7, nil
}

// outsideEnv is our environment without what says that we are inside.
func outsideEnv(more ...string) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "ONTLAB_BOX=") {
			env = append(env, e)
		}
	}
	return append(env, more...)
}

// startLab starts a lab, in namespaces of its own, as from outside; from then
// on this process is outside too.
func startLab(t *testing.T, mark string) *command.Process {
	t.Helper()
	t.Setenv("ONTLAB_BOX", "")
	self, err := os.Executable()
	must(t, err)
	p, err := command.New(command.Options{Grace: patience}).Start(t.Context(), command.Spec{
		Path: self, Env: outsideEnv(roleEnv+"=lab", labDirEnv+"="+filepath.Join(t.TempDir(), "lab"), labMarkEnv+"="+mark),
		SysProcAttr: func(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL },
	})
	must(t, err)
	t.Cleanup(func() { must(t, p.Stop()) })
	eventually(t, "a lab", func() error {
		out, errOut := p.Output()
		if string(out) != "ready\n" {
			return fmt.Errorf("output %q %q", out, errOut)
		}
		return nil
	})
	return p
}

// child returns the one child of a process.
func child(t *testing.T, pid int) int {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			n, _ := strconv.Atoi(strings.Split(file, "/")[2])
			return n
		}
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}

// networksAre counts the network namespaces that any thread is in.
func networksAre(want int) error {
	all := map[string]bool{}
	files, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net")
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil {
			all[to] = true
		}
	}
	if len(all) != want {
		return fmt.Errorf("%d networks, want %d", len(all), want)
	}
	return nil
}

func TestNothingOutlivesTheLab(t *testing.T) {
	needBox(t)
	for _, test := range []struct {
		name  string
		below int // whose child's child: Enter's process is 0, the first process 1, the program 2
		sig   syscall.Signal
	}{
		{"first process killed", 1, syscall.SIGKILL},
		{"parent killed", 0, syscall.SIGKILL},
		{"program killed", 2, syscall.SIGKILL},
		{"told to end", 0, syscall.SIGTERM},
		{"interrupted", 0, syscall.SIGINT},
	} {
		t.Run(test.name, func(t *testing.T) {
			// Hosts of earlier tests end with their threads, a while after Close.
			eventually(t, "one network", func() error { return networksAre(1) })
			mark := "mark" + strconv.Itoa(os.Getpid()) + strings.ReplaceAll(test.name, " ", "")
			p := startLab(t, mark)
			if n := len(processes(mark)); n < 4 {
				t.Fatalf("%d processes run in the lab", n)
			}
			// The lab's own network, and its hosts'.
			must(t, networksAre(1+3))
			pid := p.PID()
			for range test.below {
				pid = child(t, pid)
			}
			must(t, syscall.Kill(pid, test.sig))
			<-p.Done()
			if test.sig != syscall.SIGKILL {
				if code := p.Result().ExitCode; code != 7 {
					_, errOut := p.Output()
					t.Errorf("exit code %d: %s", code, errOut)
				}
			}
			eventually(t, "no process", gone(mark))
			eventually(t, "no network", func() error { return networksAre(1) })
			eventually(t, "not listed", func() error {
				entries, err := netbox.List()
				for _, e := range entries {
					if e.Name == mark {
						return fmt.Errorf("listed: %+v", e)
					}
				}
				return err
			})
		})
	}
}

func TestListShellDown(t *testing.T) {
	needBox(t)
	one, two := "one"+strconv.Itoa(os.Getpid()), "two"+strconv.Itoa(os.Getpid())
	startLab(t, one)
	p := startLab(t, two)
	entries, err := netbox.List()
	must(t, err)
	found := map[string]netbox.Entry{}
	for _, e := range entries {
		found[e.Name] = e
	}
	if e := found[two]; len(e.Hosts) != 2 || e.Hosts[1].Name != "z" || e.PID != child(t, p.PID()) || found[one].PID == 0 {
		t.Fatalf("entries %+v", entries)
	}
	if _, err := os.Stat("/usr/bin/nsenter"); err == nil {
		// Shell becomes another program; so it is tried in a child.
		self, err := os.Executable()
		must(t, err)
		result, err := command.New(command.Options{}).Run(t.Context(), command.Spec{
			Path: self, Args: []string{two, "z", "sh", "-c", "hostname; ls /sys/class/net"}, Env: outsideEnv(roleEnv + "=shell"),
		})
		if want := "z\neth0\nlo\n"; err != nil || string(result.Stdout) != want {
			t.Errorf("in the shell: %q, want %q: %v", result.Stdout, want, err)
		}
	}
	if err := netbox.Shell(two, "nobody", nil); !errors.Is(err, netbox.ErrNoLab) {
		t.Errorf("a shell on no host: %v", err)
	}
	if err := netbox.Down(t.Context(), "no-such-lab"); !errors.Is(err, netbox.ErrNoLab) {
		t.Errorf("no lab went down: %v", err)
	}
	must(t, netbox.Down(t.Context(), two))
	eventually(t, "no process", gone(two))
	entries, err = netbox.List()
	must(t, err)
	for _, e := range entries {
		if e.Name == two {
			t.Errorf("still listed: %+v", e)
		}
	}
}

func TestNameIsTaken(t *testing.T) {
	needBox(t)
	name := "taken" + strconv.Itoa(os.Getpid())
	open := func() (*netbox.Box, error) { return netbox.Open(netbox.Options{Dir: t.TempDir(), Name: name}) }
	b, err := open()
	must(t, err)
	if _, err := open(); err == nil {
		t.Error("two labs of a name")
	}
	must(t, b.Close())
	b, err = open()
	must(t, err, b.Close())
}
