package netbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ontagent/agent/command"
	"ontagent/cmd/ontlab/netbox"
)

// processes returns the ids of the processes whose command line holds part,
// but for zombies.
func processes(part string) []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil && strings.Contains(string(data), part) {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

func gone(part string) func() error {
	return func() error {
		if pids := processes(part); len(pids) > 0 {
			return fmt.Errorf("processes %v of %s", pids, part)
		}
		return nil
	}
}

// saidAll says whether the server has said its three lines, once each; those of
// two outputs may come in any order.
func saidAll(p *netbox.Process) error {
	lines := strings.Fields(string(p.Log()))
	slices.Sort(lines)
	if !slices.Equal(lines, []string{"a", "green", "in"}) {
		return fmt.Errorf("log has %q", lines)
	}
	return nil
}

func TestProcessRunsInsideAndIsStopped(t *testing.T) {
	b := newBox(t)
	a := newHost(t, b, "a")
	start := func() *netbox.Process {
		p, err := a.Start(t.Context(), netbox.Service{
			Name: "server", Path: "sh", Args: []string{"-c", `cat; hostname; echo $COLOUR >&2; : > ready; exec sleep 600`},
			Env: []string{"COLOUR=green"}, Stdin: []byte("in\n"),
			Ready: func(context.Context) error { _, err := os.Stat(a.Dir() + "/ready"); return err },
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := start()
	eventually(t, "its output", func() error {
		return saidAll(p)
	})
	if _, err := a.Start(t.Context(), netbox.Service{Name: "server", Path: "true"}); err == nil {
		t.Error("two of a name run")
	}
	if p.Err() != nil || p.PID() <= 0 || p.Name() != "server" {
		t.Errorf("process %d %s: %v", p.PID(), p.Name(), p.Err())
	}
	must(t, p.Stop(), p.Err(), p.Stop())
	must(t, os.Remove(a.Dir()+"/ready"))
	q := start()
	if text, err := os.ReadFile(a.Dir() + "/server.log"); err != nil || strings.Count(string(text), "green") < 1 {
		t.Errorf("log %q: %v", text, err)
	}
	eventually(t, "the output of the second alone", func() error {
		return saidAll(q)
	})
	must(t, q.Kill())
	if q.Err() == nil && q.Signal(syscall.SIGTERM) != nil {
		t.Error("signal to a process that ended")
	}
}

func TestStopIsBounded(t *testing.T) {
	b := newBox(t)
	a := newHost(t, b, "a")
	p, err := a.Start(t.Context(), netbox.Service{
		Path: "sh", Args: []string{"-c", `trap "" TERM; echo deaf; while :; do sleep 0.1; done`}, Grace: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "output", func() error {
		if string(p.Log()) != "deaf\n" {
			return errors.New("none")
		}
		return nil
	})
	began := time.Now()
	must(t, p.Stop())
	if took := time.Since(began); took < 200*time.Millisecond || took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestServiceThatDoesNotGetReady(t *testing.T) {
	b := newBox(t)
	a := newHost(t, b, "a")
	never := func(context.Context) error { return errors.New("nobody answers") }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name, script string
		ctx          context.Context
		want         []string
	}{
		{"ends", "echo cannot bind >&2; exit 3", t.Context(), []string{"exit status 3", "cannot bind"}},
		{"ends well", "echo done", t.Context(), []string{"ended before it was ready", "done"}},
		{"late", "echo working; sleep 600", t.Context(), []string{"nobody answers", "working"}},
		{"cancelled", "sleep 600", ended, []string{"context canceled"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := a.Start(test.ctx, netbox.Service{Path: "sh", Args: []string{"-c", test.script}, Ready: never, ReadyTimeout: time.Second})
			if err == nil {
				t.Fatal(p)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			// Its name is free again.
			p, err = a.Start(t.Context(), netbox.Service{Path: "sh", Args: []string{"-c", "exec sleep 600"}})
			if err != nil {
				t.Fatal(err)
			}
			must(t, p.Stop())
		})
	}
	if _, err := a.Start(t.Context(), netbox.Service{Path: "no-such-program"}); !errors.Is(err, command.ErrNotFound) {
		t.Errorf("error %v", err)
	}
}

func TestRunFails(t *testing.T) {
	b := newBox(t)
	a := newHost(t, b, "a")
	_, err := a.Run(t.Context(), "sh", "-c", "echo no such zone >&2; exit 4")
	if failed, ok := errors.AsType[*command.Error](err); !ok || failed.ExitCode != 4 || failed.Output != "no such zone" {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Run(ctx, "sleep", "600"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// Daemons leave their process group and their parent; the host's end is
// theirs.
func TestCloseEndsDaemonsToo(t *testing.T) {
	b := newBox(t)
	a := newHost(t, b, "a")
	mark := "600.0" + strconv.Itoa(os.Getpid())
	if _, err := a.Run(t.Context(), "sh", "-c", "setsid sleep "+mark+" >/dev/null 2>&1 & sleep 0.1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a daemon", func() error {
		if len(processes(mark)) != 1 {
			return errors.New("none")
		}
		return nil
	})
	must(t, b.Close(), gone(mark)())
}

// Orphans are reaped by nobody in this process.
func TestNoZombiesStay(t *testing.T) {
	b := newBox(t)
	a := newHost(t, b, "a")
	for range 5 {
		if _, err := a.Run(t.Context(), "sh", "-c", "for i in 1 2 3 4; do setsid sh -c 'exit 7' & done; setsid sleep 0.05 &"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "no zombies", func() error {
		files, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), ") Z ") {
				return fmt.Errorf("%s", text)
			}
		}
		return nil
	})
}

// A file that is written while others fork can be run at once.
func TestWhatIsWrittenCanBeRun(t *testing.T) {
	b := newBox(t)
	h := newHost(t, b, "a")
	program, err := os.ReadFile("/bin/bash") // of some size
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var forking sync.WaitGroup
	defer forking.Wait()
	defer cancel()
	for i := range 4 {
		other := newHost(t, b, "forks"+strconv.Itoa(i))
		forking.Go(func() {
			for ctx.Err() == nil {
				_, _ = other.Run(ctx, "true") // only the fork counts
			}
		})
	}
	for i := range 100 {
		path := filepath.Join(h.Dir(), "copy-"+strconv.Itoa(i))
		must(t, h.WriteFile(path, program, 0o700))
		if _, err := h.Run(t.Context(), path, "-c", "exit"); err != nil {
			t.Fatalf("copy %d: %v", i, err)
		}
	}
}
