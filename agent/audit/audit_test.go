package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"ontagent/transport/durable"
	"ontagent/transport/durable/faultfs"
)

// reliability prints the line of one measured property.
func reliability(t *testing.T, property, variant string, trials int, format string, args ...any) {
	t.Helper()
	verdict := "ok"
	if t.Failed() || trials == 0 {
		verdict = "FAIL"
		t.Fail()
	}
	t.Logf("reliability: %s | %s | %d | %s | %s", property, variant, trials, fmt.Sprintf(format, args...), verdict)
}

// entry is the i-th of a visit after another: grant, end, grant, end.
func entry(i int) Entry {
	e := Entry{
		Epoch: 7, UptimeS: 12.5, UTC: "1970-01-01T00:02:00Z", Clock: "none", Event: Granted, KeyID: strings.Repeat("ab", 16),
		Technician: "T-7", Order: "WO-1", Rev: 1, Command: fmt.Sprintf("cmd-%d", i/2), CommandType: "accept", CommandSHA256: strings.Repeat("cd", 32),
	}
	if i%2 == 1 {
		e.Event, e.State, e.Verdict, e.RecordSHA256 = Ended, "SUCCEEDED", "pass", strings.Repeat("ef", 32)
	}
	return e
}

// chain makes n entries.
func chain(t *testing.T, n int) (lines [][]byte, head Head) {
	t.Helper()
	for i := range n {
		line, err := entry(i).encode(head)
		if err != nil {
			t.Fatal(err)
		}
		lines, head = append(lines, line), head.after(line)
	}
	return lines, head
}

// bench is a gateway's trail and all that was told of it.
type bench struct {
	t    *testing.T
	disk *faultfs.FS
	told map[uint64]string // announced, by number
	max  int
}

func newBench(t *testing.T, like faultfs.Like, seed uint64) *bench {
	t.Helper()
	disk := faultfs.New(like, seed)
	if err := durable.MkdirAll(disk, "test", "/state", 0o700); err != nil {
		t.Fatal(err)
	}
	return &bench{t: t, disk: disk, told: map[uint64]string{}, max: 2000}
}

func (b *bench) open() (*Log, error) {
	return Open(Options{
		FS: b.disk, Dir: "/state/audit", MaxFile: b.max, Log: slog.New(slog.DiscardHandler),
		Stamp: func(e *Entry) { e.Epoch, e.UTC, e.Clock = 7, "1970-01-01T00:02:00Z", "none" },
		Announce: func(n uint64, line []byte) {
			if was, ok := b.told[n]; ok && was != string(line) {
				b.t.Errorf("entry %d was announced as %s, now as %s", n, was, line)
			}
			b.told[n] = string(line)
		},
	})
}

func (b *bench) mustOpen() *Log {
	b.t.Helper()
	l, err := b.open()
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

// verify checks what was told, as a collector has it, against the log's head:
// all of it, and no more.
func (b *bench) verify(l *Log) error {
	if got := l.Head().N; got != uint64(len(b.told)) {
		return fmt.Errorf("head %d after %d entries told", got, len(b.told))
	}
	var lines [][]byte
	for n := uint64(1); n <= uint64(len(b.told)); n++ {
		lines = append(lines, []byte(b.told[n]))
	}
	return Verify(lines, Head{}, l.Head())
}

func TestTrailGoesOnOverFilesAndRestarts(t *testing.T) {
	b := newBench(t, faultfs.Ext4, 1)
	for i := range 40 {
		l := b.mustOpen()
		line, err := l.Append(entry(i))
		if err != nil {
			t.Fatal(err)
		}
		e, err := Parse(line)
		if err != nil || e.N != uint64(i+1) || l.Head() != (Head{N: e.N - 1}).after(line) || b.told[e.N] != string(line) {
			t.Fatalf("entry %d is %s (%v), head %+v", i+1, line, err, l.Head())
		}
		if l.Unended(e.Command) != (i%2 == 0) || l.Unended("other") {
			t.Fatalf("after entry %d the command is unended: %v", i+1, l.Unended(e.Command))
		}
		if i%3 == 0 {
			b.disk.Kill()
			l = b.mustOpen()
			if l.Unended(e.Command) != (i%2 == 0) {
				t.Fatalf("after entry %d and a restart the command is unended: %v", i+1, l.Unended(e.Command))
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := b.mustOpen()
	if err := b.verify(l); err != nil {
		t.Error(err)
	}
	lines, err := l.Lines()
	if err != nil || len(lines) < 3 || len(lines) > 10 {
		t.Fatalf("%d lines are kept (%v)", len(lines), err)
	}
	first, err := Parse(lines[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(lines, Head{first.N - 1, first.Prev}, l.Head()); err != nil {
		t.Errorf("what is kept: %v", err)
	}
	var bytes int64
	for _, name := range b.disk.Files() {
		if strings.HasSuffix(name, suffix) {
			data, _ := b.disk.Get(name)
			bytes += int64(len(data))
		}
	}
	if bytes > int64(2*b.max) {
		t.Errorf("%d bytes are kept in %v", bytes, b.disk.Files())
	}
}

func TestEntryBounds(t *testing.T) {
	b := newBench(t, faultfs.Ext4, 1)
	l := b.mustOpen()
	e := entry(0)
	e.Detail = strings.Repeat("x", MaxLine)
	if _, err := l.Append(e); err == nil {
		t.Error("took an entry of any length")
	}
	if _, err := l.Append(entry(0)); err != nil || l.Head().N != 1 {
		t.Errorf("after it: %v, head %+v", err, l.Head())
	}
}

// TestEntryTravelsAs is the contract with those who verify.
func TestEntryTravelsAs(t *testing.T) {
	line, err := entry(1).encode(Head{41, strings.Repeat("00", 32)})
	want := `{"n":42,"prev":"` + strings.Repeat("00", 32) + `","epoch":7,"uptime_s":12.5,"utc":"1970-01-01T00:02:00Z","clock":"none","event":"ended",` +
		`"key_id":"` + strings.Repeat("ab", 16) + `","technician":"T-7","order":"WO-1","rev":1,"command":"cmd-0","command_type":"accept","command_sha256":"` +
		strings.Repeat("cd", 32) + `","state":"SUCCEEDED","verdict":"pass","record_sha256":"` + strings.Repeat("ef", 32) + `"}`
	if err != nil || string(line) != want {
		t.Errorf("%s (%v), want %s", line, err, want)
	}
	if data, err := json.Marshal(Head{1, "ab"}); err != nil || string(data) != `{"n":1,"sha256":"ab"}` {
		t.Errorf("head %s (%v)", data, err)
	}
}

// TestReliabilityPowerCutInAudit cuts the power at every operation: whatever was announced is still there afterwards, and
// nothing that was not damaged is called so.
func TestReliabilityPowerCutInAudit(t *testing.T) {
	for _, like := range []faultfs.Like{faultfs.Ext4, faultfs.UBIFS} {
		seeds := uint64(20)
		switch {
		case os.Getenv("LONG") != "":
			seeds = 500
		case testing.Short():
			seeds = 1
		}
		cuts, kept := 0, 0
		for seed := range seeds {
			for at := 0; ; at++ {
				b := newBench(t, like, seed<<16+uint64(at))
				b.disk.CutIn(at)
				n, done := 0, false
				if l, err := b.open(); err == nil {
					for n < 9 {
						if _, err := l.Append(entry(n)); err != nil {
							break
						}
						n++
					}
					done = n == 9
				}
				b.disk.Cut()
				b.disk.PowerOn()
				l := b.mustOpen()
				cuts++
				kept += n
				if err := b.verify(l); err != nil {
					t.Fatalf("cut at call %d (seed %d) after %d entries: %v", at, seed, n, err)
				}
				if h := l.Head().N; h < uint64(n) || h > uint64(n+1) {
					t.Fatalf("cut at call %d (seed %d): head %d after %d entries", at, seed, h, n)
				}
				if _, err := l.Append(entry(n)); err != nil {
					t.Fatal(err)
				}
				if err := b.verify(l); err != nil {
					t.Fatalf("cut at call %d (seed %d), one more: %v", at, seed, err)
				}
				b.noDamage()
				if done {
					break
				}
			}
		}
		reliability(t, "power-cut", fmt.Sprintf("audit trail, at each file operation, %s", like), cuts,
			"entries lost 0 of %d; the chain verified, nothing called damaged", kept)
	}
}

func (b *bench) noDamage() {
	b.t.Helper()
	for n, line := range b.told {
		if e, err := Parse([]byte(line)); err != nil || e.Event == Damaged {
			b.t.Fatalf("entry %d (%v) says %s", n, err, line)
		}
	}
}

// TestReliabilityFaultInAudit: each file operation fails in turn, once and from then on;
// then it goes on, in the same life or in another, until the power is cut. What
// Append took is there, and nothing is called damaged.
func TestReliabilityFaultInAudit(t *testing.T) {
	trials := 0
	faults := []error{syscall.ENOSPC, syscall.EROFS, syscall.EIO, syscall.EMFILE, nil}
	if testing.Short() {
		faults = faults[:1]
	}
	for _, fault := range faults {
		for variant := range 4 {
			forever, restart := variant&1 != 0, variant&2 != 0
			for at := 0; ; at++ {
				b := newBench(t, faultfs.Ext4, uint64(at))
				b.disk.Inject(faultfs.Fault{N: at, Forever: forever, Err: fault, Bytes: -1})
				if b.failing(restart) == 0 {
					break
				}
				if trials++; t.Failed() {
					t.Fatalf("%v at call %d (forever %v, restart %v)", fault, at, forever, restart)
				}
			}
		}
	}
	reliability(t, "file-faults", "audit trail: ENOSPC, EROFS, EIO, EMFILE, short write at each file operation, once and for good", trials,
		"no panic; entries acknowledged and lost 0; goes on once the disk is well, in the same life or the next")
}

// failing appends while calls fail, and returns how many did.
func (b *bench) failing(restart bool) int {
	b.t.Helper()
	var taken []string
	l, err := b.open()
	if err == nil {
		for i := range 8 {
			if line, err := l.Append(entry(i)); err == nil {
				taken = append(taken, string(line))
			}
		}
	}
	failed := b.disk.Heal()
	if l == nil || restart {
		b.disk.Kill()
		l = b.mustOpen()
	}
	line, err := l.Append(entry(8))
	if err != nil {
		b.t.Errorf("the trouble is over, and Append still fails: %v", err)
	}
	taken = append(taken, string(line))
	b.disk.Cut()
	b.disk.PowerOn()
	if err := b.verify(b.mustOpen()); err != nil {
		b.t.Error(err)
	}
	b.noDamage()
	for _, line := range taken {
		if e, err := Parse([]byte(line)); err != nil || b.told[e.N] != line {
			b.t.Errorf("lost %s", line)
		}
	}
	return failed
}

// TestReliabilityDamageOfAudit: every byte of every file altered, every truncation, each
// file gone.
func TestReliabilityDamageOfAudit(t *testing.T) {
	step, trials := 3, 0 // bits; all eight come up in turn, and every byte
	switch {
	case os.Getenv("LONG") != "":
		step = 1
	case testing.Short():
		step = 401
	}
	prepare := func() (*bench, Head, []string) {
		b := newBench(t, faultfs.Ext4, 1)
		l := b.mustOpen()
		for i := range 6 {
			if _, err := l.Append(entry(i)); err != nil {
				t.Fatal(err)
			}
		}
		head := l.Head()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return b, head, b.disk.Files()
	}
	// check opens after damage and wants it said, once.
	check := func(what string, b *bench, head Head) {
		t.Helper()
		trials++
		l := b.mustOpen()
		note, err := Parse([]byte(b.told[l.Head().N]))
		if err != nil || note.Event != Damaged || note.Detail == "" {
			t.Fatalf("%s: not said; the head is %+v, after %+v", what, l.Head(), head)
		}
		if note.N <= head.N {
			t.Fatalf("%s: number %d was given again", what, note.N)
		}
		if note.N == head.N+1 && note.Prev == head.SHA256 { // what the collector has still holds
			if err := b.verify(l); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		after := l.Head()
		if l = b.mustOpen(); l.Head() != after {
			t.Fatalf("%s: said again", what)
		}
		if _, err := l.Append(entry(0)); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	_, _, files := prepare()
	for _, name := range files {
		b, head, _ := prepare()
		data, _ := b.disk.Get(name)
		for i := 0; i < len(data)*8; i += step {
			b, head, _ := prepare()
			bad := bytes.Clone(data)
			bad[i/8] ^= 1 << (i % 8)
			b.disk.Put(name, bad)
			if strings.HasSuffix(name, headFile) && sameHead(data, bad) {
				continue // a letter's case in a name of JSON's
			}
			check(fmt.Sprintf("bit %d of byte %d of %s", i%8, i/8, name), b, head)
		}
		for size := 0; size < len(data); size += max(1, step/3) {
			b, head, _ := prepare()
			b.disk.Put(name, data[:size])
			check(fmt.Sprintf("%s cut to %d bytes", name, size), b, head)
		}
		if err := b.disk.Remove("test", name); err != nil {
			t.Fatal(err)
		}
		check(name+" removed", b, head)
	}
	b, head, files := prepare()
	for _, name := range files {
		if strings.HasSuffix(name, suffix) {
			b.disk.Put(name, make([]byte, 1000))
		}
	}
	check("all zeros", b, head)
	reliability(t, "corruption", "audit trail on flash: bits flipped in every byte, every truncation, each file gone", trials,
		"all found at the next start and said by an entry of the chain, no number given twice, no panic")
}

func sameHead(a, b []byte) bool {
	var x, y Head
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && x == y
}

func TestUnwritableDirectory(t *testing.T) {
	b := newBench(t, faultfs.Ext4, 1)
	b.disk.Inject(faultfs.Fault{Op: "audit.dir", Forever: true, Err: syscall.EROFS})
	if _, err := b.open(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("opened on a read-only disk: %v", err)
	}
}

func TestRealDisk(t *testing.T) {
	dir := t.TempDir()
	o := Options{FS: durable.OS{}, Dir: dir + "/audit", Log: slog.New(slog.DiscardHandler)}
	for i := range 2 {
		l, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(entry(i)); err != nil || l.Head().N != uint64(i+1) {
			t.Fatalf("%v, head %+v", err, l.Head())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if entries, err := os.ReadDir(o.Dir); err != nil || len(entries) != 2 {
		t.Errorf("%v (%v)", entries, err)
	}
}

func FuzzOpen(f *testing.F) {
	lines, head := [][]byte{}, Head{}
	for i := range 3 {
		line, err := entry(i).encode(head)
		if err != nil {
			f.Fatal(err)
		}
		lines, head = append(lines, line), head.after(line)
	}
	kept, err := json.Marshal(head)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(bytes.Join(lines, []byte("\n")), '\n'), []byte{}, kept)
	f.Add([]byte("{}"), []byte{0}, []byte(`{"n":18446744073709551615,"sha256":"`+strings.Repeat("0", 64)+`"}`))
	f.Add([]byte(`{"n":18446744073709551615,"prev":"","event":"x"}`+"\n"), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, a, z, head []byte) {
		b := newBench(t, faultfs.Ext4, 1)
		if err := durable.MkdirAll(b.disk, "test", "/state/audit", 0o700); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{"0000000000000001.audit": a, "0000000000000002.audit": z, headFile: head} {
			if len(data) > 0 {
				b.disk.Put("/state/audit/"+name, data)
			}
		}
		b.told = map[uint64]string{}
		for range 2 {
			l, err := b.open()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Append(entry(0)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
