package inguest_test

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

	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/vm"
)

// roleEnv makes this test program the one that runs inside the guest.
const roleEnv = "NETBOX_GUEST"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "" {
		os.Exit(m.Run()) //nolint:forbidigo // this is the main function of a program
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := play(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code) //nolint:forbidigo // this is the main function of a program
}

// play measures everything, and prints a line for each.
func play(ctx context.Context, out io.Writer) (int, error) {
	if !netbox.Inside() {
		return netbox.Enter(ctx, nil, os.Stdout, os.Stderr)
	}
	if missing := netbox.Missing(ctx); len(missing) > 0 {
		return 0, fmt.Errorf("the guest lacks %v", missing)
	}
	b, err := netbox.Open(netbox.Options{Dir: "/tmp/lab", Keep: []string{"/run/ontlab"}})
	if err != nil {
		return 0, err
	}
	var failed []error
	for _, test := range []struct {
		name string
		run  func(context.Context, *netbox.Box, io.Writer) error
	}{
		{"files", playFiles}, {"vlan", playVLAN}, {"impair", playImpair}, {"flowtable", playFlowtable},
	} {
		if err := test.run(ctx, b, out); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", test.name, err))
		}
	}
	return 0, errors.Join(append(failed, b.Close())...)
}

func TestInGuest(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: a guest takes ten seconds to boot")
	}
	program := filepath.Join(t.TempDir(), "inguest.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-buildvcs=false", "-ldflags=-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTOOLCHAIN=local")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the guest's program: %v\n%s", err, out)
	}
	var stdout, stderr bytes.Buffer
	result, err := vm.Run(t.Context(), vm.Options{Modules: []string{"veth", "bridge", "8021q", "ppp_generic", "pppoe", "sch_tbf", "sch_netem", "nft_flow_offload", "nf_flow_table_inet"}}, vm.Job{
		Args: []string{program}, Dir: "/", Env: []string{roleEnv + "=1"}, Timeout: 5 * time.Minute, Stdout: &stdout, Stderr: &stderr,
	})
	if errors.Is(err, vm.ErrUnavailable) {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Logf("the guest took %v\n%s", result.Took.Round(100*time.Millisecond), stdout.String())
	if err != nil || result.ExitCode != 0 {
		t.Errorf("exit code %d, %v\n%s\n%s", result.ExitCode, err, stderr.String(), result.Console)
	}
	if strings.Contains(stdout.String(), busy) && !t.Failed() {
		if os.Getenv("CI") == "true" {
			t.Fatal(busy)
		}
		t.Skip(busy)
	}
	// Else nothing was tried.
	for _, want := range []string{"files:", "vlan:", "rate:", "delay:", "loss:", "duplicates:", "reordering:", "jitter:", "removed:", "flowtable:"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no line %s", want)
		}
	}
}
