package faultfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/transport/durable"
)

func open(t *testing.T, f *FS, path string, flag int) durable.File {
	t.Helper()
	file, err := f.OpenFile("x", path, flag, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func write(t *testing.T, w io.Writer, data string) {
	t.Helper()
	if n, err := io.WriteString(w, data); n != len(data) || err != nil {
		t.Fatal(n, err)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestCutLosesOnlyWhatWasNotSynced holds every sector that is found after a cut
// against what may be there, and asks that all that may happen does.
func TestCutLosesOnlyWhatWasNotSynced(t *testing.T) {
	for _, like := range []Like{Ext4, UBIFS} {
		sector := like.sector()
		synced, tail := 5*sector+17, 6*sector
		old := strings.Repeat("o", synced)
		seen := map[string]int{}
		for seed := range uint64(3000) {
			f := New(like, seed)
			file := open(t, f, "/a", os.O_CREATE|os.O_WRONLY|os.O_APPEND)
			write(t, file, old)
			ok(t, file.Datasync())
			ok(t, f.SyncDir("x", "/"))
			write(t, file, strings.Repeat("n", tail))
			f.Cut()
			if _, err := file.Write([]byte("late")); !errors.Is(err, ErrCut) {
				t.Fatalf("a write without power: %v", err)
			}
			f.PowerOn()
			if _, err := file.Write([]byte("late")); !errors.Is(err, ErrStale) {
				t.Fatalf("a file of an earlier life: %v", err)
			}
			got, found := f.Get("/a")
			if !found || !bytes.HasPrefix(got, []byte(old)) || len(got) > synced+tail {
				t.Fatalf("%v: %d bytes found, %v", like, len(got), found)
			}
			for at := synced; at < len(got); {
				end := min((at/sector+1)*sector, len(got))
				part := string(got[at:end])
				switch part {
				case strings.Repeat("n", end-at):
					seen["new"]++
				case strings.Repeat("\x00", end-at):
					seen["zero"]++
				default:
					t.Fatalf("%v: sector holds %.40q", like, part)
				}
				at = end
			}
			switch len(got) {
			case synced:
				seen["short"]++
			case synced + tail:
				seen["long"]++
			default:
				seen["between"]++
			}
		}
		for _, what := range []string{"new", "zero", "short", "long", "between"} {
			if seen[what] < 100 {
				t.Errorf("%v: %s was seen %d times", like, what, seen[what])
			}
		}
	}
}

// TestCutInTruncateAndRewrite: old or new, never shorter than it ever was.
func TestCutInTruncateAndRewrite(t *testing.T) {
	for seed := range uint64(2000) {
		f := New(Ext4, seed)
		f.Put("/a", bytes.Repeat([]byte("o"), 2000))
		file := open(t, f, "/a", os.O_RDWR|os.O_APPEND)
		ok(t, file.Truncate(700))
		write(t, file, strings.Repeat("n", 500))
		f.PowerOn()
		got, _ := f.Get("/a")
		if len(got) < 700 || !bytes.Equal(got[:700], bytes.Repeat([]byte("o"), 700)) {
			t.Fatalf("seed %d: %d bytes, %.40q", seed, len(got), got)
		}
		for i, b := range got[700:] {
			if b != 'n' && b != 'o' && b != 0 {
				t.Fatalf("byte %d is %q", 700+i, b)
			}
		}
	}
}

func TestCutAndEntries(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(1000) {
		f := New(Ext4, seed)
		f.Put("/d/gone", []byte("1"))
		f.Put("/d/old", []byte("2"))
		file := open(t, f, "/d/new", os.O_CREATE|os.O_WRONLY)
		write(t, file, "3")
		ok(t, errors.Join(f.Remove("x", "/d/gone"), f.Rename("x", "/d/new", "/d/old"), f.Mkdir("x", "/d/e", 0o700)))
		f.Put("/d/e/inside", []byte("4"))
		f.PowerOn()
		for _, name := range []string{"/d/gone", "/d/new", "/d/old"} {
			data, found := f.Get(name)
			seen[fmt.Sprintf("%s %q %v", name, data, found)]++
		}
		if data, _ := f.Get("/d/e/inside"); string(data) != "4" {
			t.Fatalf("what was durable is %q", data)
		}
		if n := f.OpenFiles(); n != 0 {
			t.Fatalf("%d files open", n)
		}
	}
	for _, want := range []string{
		`/d/gone "1" true`, `/d/gone "" false`, `/d/new "" false`, `/d/new "3" true`, `/d/new "" true`,
		`/d/old "2" true`, `/d/old "3" true`, `/d/old "" true`,
	} {
		if seen[want] < 20 {
			t.Errorf("%s was seen %d times", want, seen[want])
		}
	}

	for seed := range uint64(200) {
		f := New(UBIFS, seed)
		ok(t, f.Mkdir("x", "/d", 0o700))
		file := open(t, f, "/d/a", os.O_CREATE|os.O_WRONLY)
		write(t, file, "3")
		ok(t, f.Rename("x", "/d/a", "/d/b"))
		f.PowerOn()
		if data, found := f.Get("/d/b"); !found || len(data) > 1 {
			t.Fatalf("entries are synced there: %q %v", data, found)
		}
	}
}

func TestSyncedSurvives(t *testing.T) {
	for _, like := range []Like{Ext4, UBIFS} {
		for seed := range uint64(300) {
			f := New(like, seed)
			ok(t, durable.MkdirAll(f, "x", "/a/b", 0o700))
			ok(t, durable.WriteFile(f, "x", "/a/b/c", []byte("whole"), 0o600))
			if data, found := f.Durable("/a/b/c"); !found || string(data) != "whole" {
				t.Fatalf("durable: %q %v", data, found)
			}
			ok(t, f.Remove("x", "/a/b/c"))
			if _, found := f.Durable("/a/b/c"); found {
				t.Fatal("durable, but on its way out")
			}
			ok(t, durable.WriteFile(f, "x", "/a/b/c", []byte("again"), 0o600))
			f.PowerOn()
			if data, _ := f.Get("/a/b/c"); string(data) != "again" {
				t.Fatalf("%v, seed %d: %q", like, seed, data)
			}
		}
	}
}

// TestFailedSyncIsNotMadeGoodByTheNext as on Linux.
func TestFailedSyncIsNotMadeGoodByTheNext(t *testing.T) {
	lost := 0
	for seed := range uint64(200) {
		f := New(Ext4, seed)
		f.Put("/a", nil)
		file := open(t, f, "/a", os.O_CREATE|os.O_WRONLY)
		ok(t, f.SyncDir("x", "/"))
		f.Inject(Fault{Call: CallSync, Err: syscall.EIO})
		write(t, file, "data")
		if err := file.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		ok(t, file.Sync())
		if data, _ := f.Get("/a"); string(data) != "data" {
			t.Fatalf("read back before the cut: %q", data)
		}
		f.PowerOn()
		if data, _ := f.Get("/a"); string(data) != "data" {
			lost++
		}
	}
	if lost < 50 || lost > 150 {
		t.Errorf("lost in %d of 200", lost)
	}
}

func TestFaults(t *testing.T) {
	f := New(Ext4, 1)
	f.SetTrace(true)
	f.Inject(Fault{Op: "x", Call: CallWrite, Path: "a", N: 1, Err: syscall.ENOSPC, Bytes: 2})
	f.Inject(Fault{Call: CallWrite, N: 2, Bytes: 1})
	f.Inject(Fault{Call: CallRemove, Forever: true, Err: syscall.EROFS})
	file := open(t, f, "/a", os.O_CREATE|os.O_RDWR)
	write(t, file, "one")
	if n, err := file.Write([]byte("two")); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := file.Write([]byte("three")); n != 1 || err != nil {
		t.Errorf("a short write: %d, %v", n, err)
	}
	for range 2 {
		if err := f.Remove("y", "/a"); !errors.Is(err, syscall.EROFS) {
			t.Error(err)
		}
	}
	if n := f.Heal(); n != 4 {
		t.Errorf("%d calls failed", n)
	}
	ok(t, errors.Join(file.Close(), f.Remove("y", "/a")))
	want := Counters{Calls: 5, Opens: 1, Creates: 1, Writes: 3, Bytes: 6}
	if diff := cmp.Diff(want, f.Count("x")); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("x open a,x write a,x write a,x write a,y remove a,y remove a,x close a,y remove a",
		strings.Join(f.Trace(), ",")); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
	if f.Calls() != 8 || fmt.Sprint(f.Ops()) != "[x y]" || f.Count("").Removes != 1 {
		t.Errorf("%d calls, %v, %+v", f.Calls(), f.Ops(), f.Count(""))
	}
}

func TestCapacity(t *testing.T) {
	f := New(Ext4, 1)
	f.SetCapacity(2048)
	a := open(t, f, "/a", os.O_CREATE|os.O_RDWR|os.O_APPEND)
	write(t, a, strings.Repeat("a", 1000))
	b := open(t, f, "/b", os.O_CREATE|os.O_RDWR)
	if n, err := b.Write(make([]byte, 3000)); n != 1024 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%d, %v", n, err)
	}
	if n, err := a.Write(make([]byte, 100)); n != 24 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the rest of a sector: %d, %v", n, err)
	}
	if free, total, err := f.Free("/"); free != 0 || total != 2048 || err != nil {
		t.Fatal(free, total, err)
	}
	if _, err := f.OpenFile("x", "/c", os.O_CREATE|os.O_WRONLY, 0); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	ok(t, f.Remove("x", "/b"))
	if f.Used() != 2048 {
		t.Error("removed, but still open: the room is not free yet")
	}
	ok(t, b.Close())
	if f.Used() != 1024 {
		t.Errorf("%d bytes used", f.Used())
	}
	ok(t, a.Truncate(0))
	if f.Used() != 0 {
		t.Errorf("%d bytes used", f.Used())
	}
	write(t, a, strings.Repeat("a", 2048))
	f.Kill()
	if _, err := a.Size(); !errors.Is(err, ErrStale) || f.Used() != 2048 {
		t.Error(err, f.Used())
	}
}

func TestOpenFlags(t *testing.T) {
	f := New(Ext4, 1)
	f.Put("/d/a", []byte("0123456789"))
	for _, c := range []struct {
		path string
		flag int
		want error
	}{
		{"/d/none", os.O_RDWR, fs.ErrNotExist},
		{"/e/a", os.O_RDWR | os.O_CREATE, fs.ErrNotExist},
		{"/d/a/b", os.O_RDWR | os.O_CREATE, syscall.ENOTDIR},
		{"/d", os.O_RDONLY, syscall.EISDIR},
		{"/d/a", os.O_RDWR | os.O_CREATE | os.O_EXCL, fs.ErrExist},
	} {
		if _, err := f.OpenFile("x", c.path, c.flag, 0); !errors.Is(err, c.want) {
			t.Errorf("%s %x: %v, want %v", c.path, c.flag, err, c.want)
		}
	}
	r := open(t, f, "/d/a", os.O_RDONLY)
	if _, err := r.Write([]byte("x")); !errors.Is(err, syscall.EBADF) {
		t.Error(err)
	}
	buf := make([]byte, 4)
	if n, err := r.ReadAt(buf, 8); n != 2 || !errors.Is(err, io.EOF) {
		t.Error(n, err)
	}
	if data, err := io.ReadAll(r); string(data) != "0123456789" || err != nil {
		t.Errorf("%q %v", data, err)
	}
	w := open(t, f, "/d/a", os.O_WRONLY|os.O_TRUNC)
	if _, err := w.Read(buf); !errors.Is(err, syscall.EBADF) {
		t.Error(err)
	}
	if n, err := w.Size(); n != 0 || err != nil {
		t.Error(n, err)
	}
	ok(t, w.Close())
	if err := w.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	if err := f.Remove("x", "/d"); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Error(err)
	}
	if names, err := f.ReadDir("x", "/d"); fmt.Sprint(names) != "[a]" || err != nil {
		t.Error(names, err)
	}
}

// TestSameSeedSameAccidents and a clone goes its own way.
func TestSameSeedSameAccidents(t *testing.T) {
	run := func(seed, twin uint64) string {
		f := New(Ext4, seed)
		for i := range 20 {
			file, err := f.OpenFile("x", fmt.Sprint("/", i%7), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0)
			if err == nil {
				_, err = file.Write(bytes.Repeat([]byte{byte(i)}, 700))
			}
			if err == nil && i%3 == 0 {
				err = file.Sync()
			}
			ok(t, err)
		}
		if twin != 0 {
			f = f.Clone(twin)
		}
		f.PowerOn()
		var b strings.Builder
		for _, name := range f.Files() {
			data, _ := f.Get(name)
			fmt.Fprintf(&b, "%s %x\n", name, data)
		}
		return b.String()
	}
	first, twin := run(4, 0), run(4, 1)
	if run(4, 0) != first || run(5, 0) == first || run(4, 1) != twin || run(4, 2) == twin {
		t.Error("accidents do not follow from the seed")
	}
}

func BenchmarkCut(b *testing.B) {
	data := make([]byte, 600)
	f := New(Ext4, 1)
	put := func(w io.Writer, p []byte) error { _, err := w.Write(p); return err }
	for i := 0; b.Loop(); i++ {
		file, err := f.OpenFile("x", fmt.Sprint("/", i%8), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(put(file, data), file.Sync(), f.SyncDir("x", "/"), file.Truncate(int64(i%600)), put(file, data)); err != nil {
			b.Fatal(err)
		}
		f.PowerOn()
	}
}
