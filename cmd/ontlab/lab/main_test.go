package lab_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/cmd/ontlab/lab"
)

// TestMain runs the tests of this package again inside namespaces, where they
// are root of a network of their own.
func TestMain(m *testing.M) {
	os.Exit(testMain(m)) //nolint:forbidigo // this is the main function of a program
}

// fixture is what all tests of one run share.
type fixture struct {
	noLab string // why there is no lab; empty: there is one
	bin   string // directory of the programs under test
}

var shared fixture //nolint:gochecknoglobals // TestMain can hand nothing to tests otherwise

func testMain(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == lab.InitVerb { // the gateway's first process
		err := lab.GatewayInit(ctx, os.Args[2:])
		fmt.Fprintln(os.Stderr, "gateway-init:", err)
		return 1
	}
	flag.Parse()
	if emulated() {
		shared.noLab = "an emulated processor cannot make namespaces"
	}
	switch {
	case testing.Short(), shared.noLab != "":
		return m.Run()
	case !lab.Inside():
		code, err := lab.Enter(ctx, os.Stdout, os.Stderr, os.Args[1:]...)
		if err == nil {
			return code
		}
		shared.noLab = err.Error()
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "ontlab-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	shared.bin = dir
	if err := build(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds the programs under test as they are released, but for the
// version, and for the race detector where the tests have it. There is no
// network here and none is needed: whoever could build this test has all
// modules.
func build(ctx context.Context, dir string) error {
	args, cgo := []string{"build", "-buildvcs=false", "-ldflags=-s -w", "-o", dir + string(filepath.Separator)}, "CGO_ENABLED=0"
	if raceDetector {
		args, cgo = append(args, "-race"), "CGO_ENABLED=1"
		// Else each program would wait for a second before it ends.
		if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
			return fmt.Errorf("cannot set GORACE: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "ontagent/cmd/ontagent", "ontagent/cmd/ontctl")...)
	cmd.Env = append(os.Environ(), cgo, "GOPROXY=off", "GOTOOLCHAIN=local")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the programs under test: %w\n%s", err, out)
	}
	return nil
}

// needLab skips a test where there can be no lab. In CI there must be one,
// except under qemu-user, which cannot make namespaces.
func needLab(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("not with -short: this takes a minute")
	}
	reason := shared.noLab
	if reason == "" {
		_, err := lab.NewMosquitto(t.TempDir(), lab.OperatorAddr+":1883")
		if err == nil {
			_, err = lab.New(t.TempDir(), shared.bin, device)
		}
		if err != nil && !errors.Is(err, lab.ErrNoMosquitto) && !errors.Is(err, lab.ErrNoNamespaces) {
			t.Fatal(err)
		}
		if err != nil {
			reason = err.Error()
		}
	}
	switch {
	case reason == "":
	case os.Getenv("CI") == "true" && !emulated():
		t.Fatal(reason)
	default:
		t.Skip(reason)
	}
}

// emulated reports whether this program runs on a processor that is not the
// machine's own.
func emulated() bool {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return false
	}
	machine, _, _ := bytes.Cut(uts.Machine[:], []byte{0})
	native := map[string][]string{"x86_64": {"amd64", "386"}, "aarch64": {"arm64", "arm"}}[string(machine)]
	return native != nil && !slices.Contains(native, runtime.GOARCH)
}

// patience bounds every wait for something that must happen: generously, since
// machines that run tests are busy.
const patience = 30 * time.Second

func bounded(t *testing.T) context.Context {
	t.Helper()
	return withTimeout(t, patience)
}

func withTimeout(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// processes returns the ids of the processes whose command line holds part.
func processes(part string) []string {
	var pids []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil && bytes.Contains(data, []byte(part)) {
			pids = append(pids, strings.Split(file, "/")[2])
		}
	}
	return pids
}
