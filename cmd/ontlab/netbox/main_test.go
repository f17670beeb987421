package netbox_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/cmd/ontlab/netbox"
)

// roleEnv makes this test program play a role instead of running tests.
const roleEnv = "NETBOX_ROLE"

// TestMain runs the tests of this package again inside namespaces.
func TestMain(m *testing.M) {
	os.Exit(testMain(m)) //nolint:forbidigo // this is the main function of a program
}

// noBox says why there can be no lab here; empty: there can.
var noBox string //nolint:gochecknoglobals // TestMain can hand nothing to tests otherwise

func testMain(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if role := os.Getenv(roleEnv); role != "" {
		code, err := play(ctx, role, os.Stdout)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}
	if len(os.Args) > 1 && os.Args[1] == netbox.MissingVerb {
		if err := netbox.ReportMissing(os.Stdout); err != nil {
			return 1
		}
		return 0
	}
	flag.Parse()
	if netbox.Inside() || testing.Short() {
		return m.Run()
	}
	code, err := netbox.Enter(ctx, nil, os.Stdout, os.Stderr, os.Args[1:]...)
	if err != nil {
		noBox = err.Error()
		return m.Run()
	}
	return code
}

// play does what a role is there for.
func play(ctx context.Context, role string, out io.Writer) (int, error) {
	switch role {
	case "lab":
		return playLab(ctx, out)
	case "shell":
		return 0, netbox.Shell(os.Args[1], os.Args[2], os.Args[3:])
	}
	return 0, fmt.Errorf("no role %q", role)
}

// patience bounds every wait for what must happen.
const patience = 30 * time.Second

// needBox skips a test where there can be no lab. In CI there must be one,
// except under qemu-user, which can't make namespaces.
func needBox(t *testing.T) {
	t.Helper()
	switch {
	case testing.Short():
		t.Skip("not with -short: it needs namespaces")
	case netbox.Inside():
	case os.Getenv("CI") == "true" && !emulated():
		t.Fatal(noBox)
	default:
		t.Skip(noBox)
	}
}

func newBox(t *testing.T) *netbox.Box {
	t.Helper()
	needBox(t)
	b, err := netbox.Open(netbox.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func newHost(t *testing.T, b *netbox.Box, name string) *netbox.Host {
	t.Helper()
	h, err := b.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	t.Fatalf("not within %v: %s: %v", patience, what, err)
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
