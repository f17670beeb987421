package scratch_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"ontagent/cmd/ontlab/scratch"
)

// aged makes a directory look as if it had been made long ago.
func aged(t *testing.T, dir string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(dir, old, old); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestSweepTakesWhatNobodyHas(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	held, err := scratch.New("run")
	if err != nil {
		t.Fatal(err)
	}
	left, err := scratch.New("up")
	if err != nil {
		t.Fatal(err)
	}
	shared, err := scratch.Hold(left.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Release(); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(temp, "ontlab-something-else")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{held.Path, left.Path, foreign} {
		aged(t, dir)
	}
	scratch.Sweep()
	for _, dir := range []string{held.Path, left.Path, foreign} {
		if !exists(dir) {
			t.Errorf("%s is gone", dir)
		}
	}

	// As the kernel does for a process that was killed.
	if err := shared.Release(); err != nil {
		t.Fatal(err)
	}
	scratch.Sweep()
	if exists(left.Path) || !exists(held.Path) {
		t.Errorf("swept: %t, held: %t", !exists(left.Path), exists(held.Path))
	}
	if err := held.Remove(); err != nil || exists(held.Path) {
		t.Errorf("not removed: %v", err)
	}
}

func TestSweepLeavesWhatIsYoung(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	d, err := scratch.New("run")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Release(); err != nil {
		t.Fatal(err)
	}
	scratch.Sweep()
	if !exists(d.Path) {
		t.Error("a directory was taken that may be about to be held")
	}
}
