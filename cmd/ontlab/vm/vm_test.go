package vm_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ontagent/cmd/ontlab/vm"
)

// need skips a test where no guest can be run. In CI one must.
func need(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, vm.ErrUnavailable) {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

func TestGuestRunsACommandOfTheHost(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: a guest takes ten seconds to boot")
	}
	dir, results := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("from the host\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `
		uname -r
		cat in
		echo "$GREETING|$1|$2"
		echo problem >&2
		echo changed >in && cat in
		ip link add link dummy1 name lan.7 type vlan id 7 && echo vlan
		mkdir $RESULTS/sub && echo kept >$RESULTS/sub/file
		exit 7`
	var stdout, stderr bytes.Buffer
	r, err := vm.Run(t.Context(), vm.Options{Modules: []string{"8021q", "dummy numdummies=2"}}, vm.Job{
		Args: []string{"sh", "-c", script, "sh", "two words", "it's"}, Dir: dir,
		Env: []string{"GREETING=hello 'guest'", "RESULTS=" + vm.ResultsDir}, Results: results,
		Timeout: 2 * time.Minute, Stdout: &stdout, Stderr: &stderr,
	})
	need(t, err)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Console)
	}
	t.Logf("the guest took %v", r.Took.Round(100*time.Millisecond))
	if r.ExitCode != 7 {
		t.Errorf("exit code %d, want 7", r.ExitCode)
	}
	release, out, _ := strings.Cut(stdout.String(), "\n")
	if !strings.HasSuffix(release, "-amd64") {
		t.Errorf("runs on %q, not on Debian's kernel", release)
	}
	if want := "from the host\nhello 'guest'|two words|it's\nchanged\nvlan\n"; out != want {
		t.Errorf("stdout %q, want %q", out, want)
	}
	if stderr.String() != "problem\n" {
		t.Errorf("stderr %q", stderr.String())
	}
	if data, err := os.ReadFile(filepath.Join(results, "sub/file")); string(data) != "kept\n" {
		t.Errorf("result %q, %v", data, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "in")); string(data) != "from the host\n" {
		t.Errorf("the guest wrote to the host: %q, %v", data, err)
	}
}

func TestGuestIsKilledInTime(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: a guest takes ten seconds to boot")
	}
	began := time.Now()
	_, err := vm.Run(t.Context(), vm.Options{}, vm.Job{Args: []string{"sleep", "1000"}, Timeout: time.Second})
	need(t, err)
	if !errors.Is(err, vm.ErrTimeout) {
		t.Errorf("error %v, want ErrTimeout", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := vm.Run(ctx, vm.Options{}, vm.Job{Args: []string{"true"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestMissingModuleIsNamed(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short: the kernel may have to be fetched")
	}
	_, err := vm.Run(t.Context(), vm.Options{}, vm.Job{Args: []string{"true"}, Timeout: time.Second})
	need(t, err)
	_, err = vm.Run(t.Context(), vm.Options{Modules: []string{"no_such_module"}}, vm.Job{Args: []string{"true"}})
	if !errors.Is(err, vm.ErrUnavailable) || !strings.Contains(err.Error(), "no_such_module") {
		t.Errorf("error %v", err)
	}
}
