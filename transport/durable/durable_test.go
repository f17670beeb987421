package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/transport/durable"
	"ontagent/transport/durable/faultfs"
)

// newDisk returns a simulated disk with the directory /d.
func newDisk(seed uint64) *faultfs.FS {
	s := faultfs.New(faultfs.Like(seed/8%2), seed)
	s.Put("/d/x", []byte{})
	s.Put("/d/x", nil)
	return s
}

// faults are what a file system answers when it is in trouble.
func faults() []error {
	return []error{syscall.ENOSPC, syscall.EROFS, syscall.EIO, syscall.EMFILE}
}

// content returns what is at path, "-" if nothing.
func content(s *faultfs.FS, path string) string {
	data, ok := s.Get(path)
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%q", data)
}

func TestWriteFileSteps(t *testing.T) {
	s := newDisk(1)
	s.SetTrace(true)
	if err := durable.WriteFile(s, "job", "/d/f", []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"job open f" + durable.TempSuffix, "job write f" + durable.TempSuffix, "job sync f" + durable.TempSuffix, "job close f" + durable.TempSuffix,
		"job rename f", "job syncdir d",
	}
	if diff := cmp.Diff(want, s.Trace()); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// TestWriteFileOldOrNew fails and cuts at every step, with luck of many kinds.
func TestWriteFileOldOrNew(t *testing.T) {
	const path = "/d/f"
	for _, first := range []bool{true, false} {
		for seed := range uint64(200) {
			for k := range 8 {
				for _, cut := range []bool{true, false} {
					s := newDisk(seed)
					old := `-`
					if !first {
						if err := durable.WriteFile(s, "x", path, []byte("old content"), 0o600); err != nil {
							t.Fatal(err)
						}
						old = `"old content"`
					}
					s.ResetCounts()
					if cut {
						s.CutIn(k)
					} else {
						s.Inject(faultfs.Fault{N: k, Err: faults()[seed%4], Bytes: -1})
					}
					err := durable.WriteFile(s, "x", path, []byte("new"), 0o600)
					if s.Calls() > k && k < 6 && err == nil {
						t.Fatalf("step %d failed and durable.WriteFile did not tell", k)
					}
					if got := content(s, path); got != old && got != `"new"` {
						t.Fatalf("seed %d, step %d, before the cut: %s", seed, k, got)
					}
					s.PowerOn()
					got := content(s, path)
					if got != old && got != `"new"` || err == nil && got != `"new"` {
						t.Fatalf("seed %d, step %d, err %v: content %s", seed, k, err, got)
					}
					if err := durable.Clean(s, "x", "/d"); err != nil {
						t.Fatal(err)
					}
					if content(s, path+durable.TempSuffix) != "-" {
						t.Fatal("temporary file left over")
					}
					if err := durable.WriteFile(s, "x", path, []byte("again"), 0o600); err != nil || content(s, path) != `"again"` {
						t.Fatalf("second try: %v, %s", err, content(s, path))
					}
				}
			}
		}
	}
}

func TestRemove(t *testing.T) {
	for seed := range uint64(50) {
		for k := range 3 {
			s := newDisk(seed)
			if err := durable.WriteFile(s, "x", "/d/f", []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.CutIn(k)
			err := durable.Remove(s, "x", "/d/f")
			s.PowerOn()
			got := content(s, "/d/f")
			if got != "-" && got != `"old"` || err == nil && got != "-" {
				t.Fatalf("step %d, err %v: content %s", k, err, got)
			}
			if err := durable.Remove(s, "x", "/d/f"); err != nil {
				t.Fatal(err)
			}
			if err := durable.Remove(s, "x", "/d/f"); err != nil {
				t.Fatalf("of what is gone: %v", err)
			}
		}
	}
}

// TestLogKeepsWhatItAcknowledged cuts during appends: the file begins with all
// that was acknowledged.
// TestMkdirAllAgain: a directory whose making failed half-way, or was killed, is
// durable after the next call.
func TestMkdirAllAgain(t *testing.T) {
	for seed := range uint64(64) {
		for k := range 8 {
			s := newDisk(seed)
			s.Inject(faultfs.Fault{N: k, Err: faults()[seed%4]})
			if seed/4%2 == 0 {
				s.Inject(faultfs.Fault{N: k, Err: faults()[seed%4], Forever: true}) // from then on, that is killed
			}
			_ = durable.MkdirAll(s, "x", "/d/a/b/c", 0o700)
			s.Heal()
			s.Kill()
			if err := durable.MkdirAll(s, "x", "/d/a/b/c", 0o700); err != nil {
				t.Fatal(err)
			}
			if err := durable.WriteFile(s, "x", "/d/a/b/c/f", []byte("there"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.PowerOn()
			if got := content(s, "/d/a/b/c/f"); got != `"there"` {
				t.Fatalf("seed %d, failed in call %d: %s", seed, k, got)
			}
		}
	}
}

func TestLogKeepsWhatItAcknowledged(t *testing.T) {
	for seed := range uint64(100) {
		for k := range 14 {
			s := newDisk(seed)
			if seed%2 == 0 {
				s.Inject(faultfs.Fault{N: k, Err: faults()[seed/2%4], Bytes: -1})
			} else {
				s.CutIn(k)
			}
			acknowledged := ""
			l, err := durable.OpenLog(s, "log", "/d/l", 0o600)
			for i := 0; i < 4 && err == nil; i++ {
				line := fmt.Sprintf("line %d\n", i)
				if err = l.Append([]byte(line)); err == nil {
					acknowledged += line
				} else if again := l.Append([]byte("x")); !errors.Is(again, durable.ErrBroken) {
					t.Fatalf("append after an error: %v", again)
				}
			}
			s.PowerOn()
			data, _ := s.Get("/d/l")
			got := string(data)
			if !strings.HasPrefix(got, acknowledged) {
				t.Fatalf("seed %d, step %d: acknowledged %q, found %q", seed, k, acknowledged, got)
			}
			l, err = durable.OpenLog(s, "log", "/d/l", 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if l.Size() != int64(len(got)) {
				t.Fatalf("size %d, want %d", l.Size(), len(got))
			}
			if err := l.Truncate(int64(len(acknowledged))); err != nil {
				t.Fatal(err)
			}
			if err := l.Append([]byte("more")); err != nil {
				t.Fatal(err)
			}
			s.PowerOn()
			if got := content(s, "/d/l"); got != fmt.Sprintf("%q", acknowledged+"more") {
				t.Fatalf("after recovery %s", got)
			}
			if err := l.Truncate(1 << 20); err == nil {
				t.Fatal("truncated to more than there is")
			}
		}
	}
}

// TestNextEpochNeverRepeats starts again and again, with cuts and faults at
// any step. What it returns only rises.
func TestNextEpochNeverRepeats(t *testing.T) {
	for seed := range uint64(300) {
		s := newDisk(seed)
		rnd := rand.New(rand.NewPCG(seed, 2))
		last := uint64(0)
		for start := range 30 {
			switch rnd.IntN(3) {
			case 0:
				s.CutIn(rnd.IntN(30))
			case 1:
				s.Inject(faultfs.Fault{N: rnd.IntN(30), Err: faults()[start%4], Bytes: -1})
			}
			v, err := durable.NextEpoch(s, "/d/epoch")
			if err == nil && v == 0 || errors.Is(err, durable.ErrCorrupt) {
				t.Fatalf("seed %d: %d, %v", seed, v, err)
			}
			if v != 0 {
				if v <= last {
					t.Fatalf("seed %d: %d after %d", seed, v, last)
				}
				last = v
			}
			s.PowerOn()
		}
	}
}

func TestNextEpochFromDamagedSlots(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state", "epoch")
	next := func() (uint64, error) { return durable.NextEpoch(durable.OS{}, path) }
	for want := uint64(1); want <= 4; want++ {
		if v, err := next(); v != want || err != nil {
			t.Fatalf("durable.NextEpoch = %d, %v, want %d", v, err, want)
		}
	}
	good, err := os.ReadFile(path + ".0") // slots are 4 and 3, or the other way round
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(4)
	for _, damage := range []string{
		"", "epoch 9 00000000\n", "\x00\x00\x00\x00", string(good[:len(good)-1]), string(good) + "x",
		strings.Replace(string(good), "epoch", "Epoch", 1), strings.Repeat("9", 1000),
	} {
		for _, slot := range []string{".0", ".1"} {
			if err := os.WriteFile(path+slot, []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
			v, err := next()
			if v <= last || !errors.Is(err, durable.ErrCorrupt) {
				t.Fatalf("slot %s holding %.20q: %d, %v, last was %d", slot, damage, v, err, last)
			}
			last = v
			if v, err = next(); v != last+1 || err != nil {
				t.Fatalf("after the repair: %d, %v", v, err)
			}
			last = v
		}
	}
	if err := os.Remove(path + ".1"); err != nil {
		t.Fatal(err)
	}
	if v, err := next(); v <= last || err != nil {
		t.Errorf("one slot missing: %d, %v, last was %d", v, err, last)
	}
	for _, slot := range []string{".0", ".1"} {
		if err := os.WriteFile(path+slot, []byte("junk"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := next(); v != 0 || !errors.Is(err, durable.ErrCorrupt) {
		t.Errorf("both slots corrupt: %d, %v", v, err)
	}
	if err := os.Remove(path + ".1"); err != nil {
		t.Fatal(err)
	}
	if v, err := next(); v != 0 || !errors.Is(err, durable.ErrCorrupt) {
		t.Errorf("one corrupt, one missing: %d, %v", v, err)
	}
	if err := os.WriteFile(path+".1", durable.FormatSlot(1<<64-1), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := next(); v != 0 || !errors.Is(err, durable.ErrCorrupt) {
		t.Errorf("at the end of numbers: %d, %v", v, err)
	}
}

func TestOS(t *testing.T) {
	fsys := durable.OS{}
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	if err := durable.MkdirAll(fsys, "x", dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.MkdirAll(fsys, "x", dir, 0o700); err != nil {
		t.Fatalf("again: %v", err)
	}
	file := filepath.Join(dir, "f")
	for _, content := range []string{"one", "", "three"} {
		if err := durable.WriteFile(fsys, "x", file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := durable.ReadFile(fsys, "x", file, 5); err != nil || string(got) != content {
			t.Errorf("read %q, %v, want %q", got, err, content)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := durable.ReadFile(fsys, "x", file, 4); !errors.Is(err, durable.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, err := durable.ReadFile(fsys, "x", file+"x", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := durable.MkdirAll(fsys, "x", filepath.Join(file, "d"), 0o700); err == nil {
		t.Error("made a directory below a file")
	}
	if err := durable.MkdirAll(fsys, "x", file, 0o700); err == nil {
		t.Error("made a directory where a file is")
	}

	l, err := durable.OpenLog(fsys, "x", filepath.Join(dir, "log"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Append([]byte("line\n")); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Truncate(5); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = durable.OpenLog(fsys, "x", filepath.Join(dir, "log"), 0o600); err != nil || l.Size() != 5 {
		t.Fatalf("opened again: %v", err)
	}
	if err := errors.Join(l.Append([]byte("more")), l.Close()); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "log")); !bytes.Equal(got, []byte("line\nmore")) {
		t.Errorf("log holds %q", got)
	}

	if err := os.WriteFile(file+durable.TempSuffix, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.Clean(fsys, "x", dir); err != nil {
		t.Fatal(err)
	}
	if err := durable.Clean(fsys, "x", filepath.Join(dir, "nowhere")); err != nil {
		t.Error(err)
	}
	if err := durable.Remove(fsys, "x", file); err != nil {
		t.Fatal(err)
	}
	names, err := fsys.ReadDir("x", dir)
	if err != nil || fmt.Sprint(names) != "[log]" {
		t.Errorf("left: %v, %v", names, err)
	}
}

func FuzzReadSlot(f *testing.F) {
	f.Add([]byte("epoch 4 3f3a4b5c\n"))
	f.Add(durable.FormatSlot(17))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newDisk(1)
		s.Put("/d/e", append([]byte{}, data...))
		v, err := durable.ReadSlot(s, "/d/e")
		if err == nil && !bytes.Equal(durable.FormatSlot(v), data) {
			t.Errorf("%q read as %d", data, v)
		}
		if err != nil && !errors.Is(err, durable.ErrCorrupt) {
			t.Errorf("error %v", err)
		}
	})
}

// TestOSOpensRegularFilesOnly: a pipe that somebody left there holds nobody up.
func TestOSOpensRegularFilesOnly(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skip("cannot make a pipe here:", err)
	}
	for _, flag := range []int{os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR} {
		if f, err := (durable.OS{}).OpenFile("test", pipe, flag, 0); err == nil {
			t.Errorf("opened a pipe with flags %#x", flag)
			_ = f.Close()
		}
	}
	if _, err := durable.ReadFile(durable.OS{}, "test", filepath.Dir(pipe), 10); err == nil {
		t.Error("read a directory")
	}
}
