package play

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"ontagent/cmd/ontlab/netbox"
)

// The tests of this package run again inside namespaces, and those that need
// PPP in a guest first.
const (
	guestEnv = "ONTLAB_PLAY_GUEST" // says that this is the guest
	binEnv   = "ONTLAB_PLAY_BIN"   // where ontagent and ontctl are
)

func TestMain(m *testing.M) {
	os.Exit(testMain(m)) //nolint:forbidigo // this is the main function of a program
}

// noBox says why there can be no lab here; empty: there can.
var noBox string //nolint:gochecknoglobals // TestMain can hand nothing to tests otherwise

func testMain(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	flag.Parse()
	if netbox.Inside() || testing.Short() {
		return m.Run()
	}
	if os.Getenv(binEnv) == "" {
		dir, err := buildPrograms(ctx)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
		if err := os.Setenv(binEnv, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code, err := netbox.Enter(ctx, nil, os.Stdout, os.Stderr, os.Args[1:]...)
	if err != nil {
		noBox = err.Error()
		fmt.Fprintln(os.Stderr, err)
		return m.Run()
	}
	return code
}

// buildPrograms builds what a lab runs, so that a guest can run it too.
func buildPrograms(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "play-bin-")
	if err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", dir+string(filepath.Separator), "ontagent/cmd/ontagent", "ontagent/cmd/ontctl")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTOOLCHAIN=local")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build the lab's programs: %w\n%s", err, out)
	}
	return dir, os.Chmod(dir, 0o755)
}

// unavailable skips a test that this machine can't run; in CI it must.
func unavailable(t *testing.T, reason any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
