package powercut

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ontagent/agent/command"
	"ontagent/cmd/ontlab/vm"
)

// roleEnv makes this test program play a role instead of running tests: in a
// mount namespace of its own, or inside a guest.
const roleEnv = "ONTLAB_POWERCUT"

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(m.Run()) //nolint:forbidigo // this is the main function of a program
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := play(ctx, role, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // this is the main function of a program
	}
}

// play does what a role is there for, and prints the lines of properties.
func play(ctx context.Context, role string, out io.Writer) error {
	work, err := os.MkdirTemp("", "powercut-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work) //nolint:errcheck // a temporary directory
	switch role {
	case "ext4":
		return playExt4(ctx, work, out)
	case "ubifs":
		return playUBIFS(work, out)
	}
	return fmt.Errorf("no role %q", role)
}

// long says whether the long forms are wanted.
func long() bool { return os.Getenv("LONG") != "" }

// size picks how much is tried.
func size(short, longer int) int {
	if long() {
		return longer
	}
	return short
}

// line prints the line of one measured property.
func line(out io.Writer, property, variant string, trials int, result, verdict string) {
	fmt.Fprintf(out, "reliability: %s | %s | %d | %s | %s\n", property, variant, trials, result, verdict)
}

// report prints what a tally says and returns an error unless all is well.
func report(out io.Writer, variant string, t tally, more string) error {
	if len(t.problems) == 0 && t.lost == 0 && t.uncovered == 0 && t.acked > 0 {
		line(out, "power-cut", variant, t.cuts, t.String()+more, "ok")
		return nil
	}
	line(out, "power-cut", variant, t.cuts, t.String()+more, "FAIL")
	if t.acked == 0 {
		t.problem("nothing was acknowledged: nothing was tested")
	}
	return errors.New(variant + ":\n" + strings.Join(t.problems, "\n"))
}

// reportControl holds the test itself to what it is for: on a flash that
// ignores every sync it must find losses.
func reportControl(out io.Writer, variant string, t tally) error {
	result := fmt.Sprintf("the same test finds %d of %d acknowledged messages lost", t.lost, t.acked)
	if t.lost == 0 {
		line(out, "power-cut", variant, t.cuts, result, "FAIL")
		return errors.New(variant + ": a spool whose syncs do nothing passes")
	}
	line(out, "power-cut", variant, t.cuts, result, "ok")
	return nil
}

// unavailable skips a test that this machine can't run; in CI it must.
func unavailable(t *testing.T, reason any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// relay passes on what a role printed.
func relay(t *testing.T, stdout, stderr []byte, failed error) {
	t.Helper()
	lines := 0
	for text := range strings.Lines(string(stdout)) {
		if strings.HasPrefix(text, "reliability: ") {
			lines++
		}
		t.Log(strings.TrimSpace(text))
	}
	if failed != nil {
		t.Errorf("%v\n%s", failed, stderr)
	}
	if lines == 0 {
		t.Error("no property was measured")
	}
}

// TestReliabilityPowerCutExt4 needs loop devices: root's, or a guest's.
func TestReliabilityPowerCutExt4(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: this takes half a minute")
	}
	if os.Getuid() != 0 {
		inGuest(t, "ext4", []string{"loop", "ext4"})
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Mounts of a namespace end with it, whatever happens.
	result, err := command.New(command.Options{OutputLimit: 1 << 20}).Run(t.Context(), command.Spec{
		Path: self, Env: append(os.Environ(), roleEnv+"=ext4", "TMPDIR="+t.TempDir()),
		SysProcAttr: func(attr *syscall.SysProcAttr) {
			attr.Unshareflags = syscall.CLONE_NEWNS
			attr.Pdeathsig = syscall.SIGKILL
		},
	})
	var failed *command.Error
	if errors.As(err, &failed) && (errors.Is(err, syscall.EPERM) || bytes.Contains(result.Stderr, []byte(noLoop))) {
		t.Logf("no loop devices here, so in a guest: %v", err)
		inGuest(t, "ext4", []string{"loop", "ext4"})
		return
	}
	relay(t, result.Stdout, result.Stderr, err)
}

// TestReliabilityPowerCutUBIFS needs a guest: nandsim, ubi and ubifs are
// modules that few kernels have.
func TestReliabilityPowerCutUBIFS(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: a guest takes ten seconds to boot")
	}
	// 64 MiB, pages of 2 KiB, blocks of 128 KiB.
	inGuest(t, "ubifs", []string{"nandsim id_bytes=0x20,0xa2,0x00,0x15", "ubi", "ubifs"})
}

// inGuest plays a role in a guest, by a program that is this one without the
// race detector and without libraries: fit for an emulator.
func inGuest(t *testing.T, role string, modules []string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "powercut.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-buildvcs=false", "-ldflags=-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTOOLCHAIN=local")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the guest's program: %v\n%s", err, out)
	}
	var stdout, stderr bytes.Buffer
	result, err := vm.Run(t.Context(), vm.Options{Modules: modules, MemoryMiB: 768}, vm.Job{
		Args: []string{program}, Dir: "/", Env: []string{roleEnv + "=" + role, "LONG=" + os.Getenv("LONG")},
		Timeout: 20 * time.Minute, Stdout: &stdout, Stderr: &stderr,
	})
	if errors.Is(err, vm.ErrUnavailable) {
		unavailable(t, err)
	}
	if err == nil && result.ExitCode != 0 {
		err = fmt.Errorf("exit code %d", result.ExitCode)
	}
	t.Logf("the guest took %v", result.Took.Round(100*time.Millisecond))
	relay(t, stdout.Bytes(), stderr.Bytes(), err)
	if t.Failed() {
		t.Logf("console:\n%s", result.Console)
	}
}
