package scratch_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"ontagent/cmd/ontlab/scratch"
)

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

func TestSweepWhileOthersMakeDirectories(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	stop := make(chan struct{})
	var sweeper sync.WaitGroup
	sweeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				scratch.Sweep()
			}
		}
	})
	for range 200 {
		d, err := scratch.New("run")
		if err != nil || !exists(d.Path) {
			t.Errorf("a directory was taken that is held: %v", err)
			break
		}
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	sweeper.Wait()
}
