package pppd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ontagent/cmd/ontlab/vm"
)

// roleEnv makes this test program play the cases instead of running tests: in
// the guest.
const roleEnv = "ONTLAB_PPPD"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "" {
		os.Exit(m.Run()) //nolint:forbidigo // this is the main function of a program
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := play(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // this is the main function of a program
	}
}

// unavailable skips a test that this machine can't run; in CI it must.
func unavailable(t *testing.T, reason any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// TestDialAgreesWithPPPD boots one guest for all cases.
func TestDialAgreesWithPPPD(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: a guest, and a minute of dialling")
	}
	for _, program := range []string{"pppd", "pppoe-server", "ip"} {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		if _, err := os.Stat("/usr/sbin/" + program); err != nil {
			unavailable(t, "needs "+program)
		}
	}
	program := filepath.Join(t.TempDir(), "pppd.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-buildvcs=false", "-ldflags=-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTOOLCHAIN=local")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the guest's program: %v\n%s", err, out)
	}
	var stdout, stderr bytes.Buffer
	result, err := vm.Run(t.Context(), vm.Options{Modules: []string{"pppoe", "ppp_async", "8021q", "veth"}}, vm.Job{
		Args: []string{program}, Dir: "/", Env: []string{roleEnv + "=1"},
		Timeout: 6 * time.Minute, Stdout: &stdout, Stderr: &stderr,
	})
	if errors.Is(err, vm.ErrUnavailable) {
		unavailable(t, err)
	}
	lines := 0
	for text := range strings.Lines(stdout.String()) {
		if strings.HasPrefix(text, "pppd: ") {
			lines++
		}
		t.Log(strings.TrimSpace(text))
	}
	if err != nil || result.ExitCode != 0 {
		t.Errorf("exit code %d, %v\n%s\nconsole:\n%s", result.ExitCode, err, stderr.Bytes(), result.Console)
	}
	if lines < leastCases {
		t.Errorf("only %d cases were played", lines)
	}
	t.Logf("the guest took %v", result.Took.Round(100*time.Millisecond))
}
