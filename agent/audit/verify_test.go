package audit

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func breakOf(t *testing.T, err error) BreakError {
	t.Helper()
	b, ok := errors.AsType[*BreakError](err)
	if !ok {
		t.Fatalf("%v is no *BreakError", err)
	}
	return *b
}

func TestVerifyHolds(t *testing.T) {
	lines, head := chain(t, 6)
	mid := Head{N: 3, SHA256: ""}
	e, err := Parse(lines[3])
	if err != nil {
		t.Fatal(err)
	}
	mid.SHA256 = e.Prev
	for name, err := range map[string]error{
		"all":              Verify(lines, Head{}, head),
		"the rest":         Verify(lines[3:], mid, head),
		"nothing new":      Verify(nil, head, head),
		"nothing at all":   Verify(nil, Head{}, Head{}),
		"newer than known": Verify(lines, Head{}, mid),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := func(n uint64) Head { return Head{n, strings.Repeat("0", 64)} }
	for name, tc := range map[string]struct {
		err  error
		kind Kind
		n    uint64
	}{
		"no head":               {Verify(lines, Head{}, Head{}), KindUnproven, 6},
		"nothing of it":         {Verify(nil, Head{}, head), KindCutOff, 1},
		"nothing of the rest":   {Verify(nil, mid, head), KindCutOff, 4},
		"another beginning":     {Verify(lines[3:], other(3), head), KindAltered, 4},
		"another known in it":   {Verify(lines, Head{}, other(3)), KindAltered, 4},
		"a beginning too early": {Verify(lines[3:], Head{}, head), KindMissing, 3},
		"a beginning too late":  {Verify(lines, mid, head), KindAltered, 4},
		"another head":          {Verify(lines, Head{}, other(6)), KindAltered, 6},
	} {
		if got := breakOf(t, tc.err); got.Kind != tc.kind || got.N != tc.n {
			t.Errorf("%s: %v, want %s %d", name, tc.err, tc.kind, tc.n)
		}
	}
	// A chain that was taken up again without knowing what came before.
	line, err := Entry{Event: Damaged, Detail: "all gone"}.encode(Head{N: 6})
	if err != nil {
		t.Fatal(err)
	}
	if got := breakOf(t, Verify(append(lines, line), Head{}, Head{N: 6}.after(line))); got.Kind != KindUnknown || got.N != 7 {
		t.Errorf("new beginning: %+v", got)
	}
}

// TestReliabilityAuditEdits: every bit, every line removed, every two swapped,
// every line doubled, every truncation of the text.
func TestReliabilityAuditEdits(t *testing.T) {
	const n = 6
	trials, step := 0, 1
	if testing.Short() {
		step = 61
	}
	lines, head := chain(t, n)
	want := func(what string, lines [][]byte, kind Kind, number uint64) {
		t.Helper()
		trials++
		err := Verify(lines, Head{}, head)
		if err == nil {
			t.Fatalf("%s: not found", what)
		}
		if got := breakOf(t, err); got.Kind != kind || got.N != number {
			t.Fatalf("%s: %v, want entry %d %s", what, err, number, kind)
		}
	}
	for i := range lines {
		for bit := 0; bit < len(lines[i])*8; bit += step {
			bad := slices.Clone(lines)
			bad[i] = bytes.Clone(lines[i])
			bad[i][bit/8] ^= 1 << (bit % 8)
			want("bit", bad, KindAltered, uint64(i+1))
		}
		kind := KindMissing
		if i == n-1 {
			kind = KindCutOff
		}
		want("removed", slices.Delete(slices.Clone(lines), i, i+1), kind, uint64(i+1))
		for j := range i {
			bad := slices.Clone(lines)
			bad[i], bad[j] = bad[j], bad[i]
			want("swapped", bad, KindOrder, uint64(i+1))
		}
		if err := Verify(slices.Insert(slices.Clone(lines), i, lines[i]), Head{}, head); err == nil {
			t.Fatalf("line %d doubled: not found", i+1)
		}
		// All that follow gone as well.
		want("cut off", lines[:i], KindCutOff, uint64(i+1))
	}
	text := bytes.Join(lines, []byte("\n"))
	for size := 0; size < len(text); size += step {
		cut := bytes.Split(text[:size], []byte("\n"))
		if size == 0 {
			cut = nil
		}
		if Verify(cut, Head{}, head) == nil {
			t.Fatalf("cut to %d bytes: not found", size)
		}
		trials++
	}
	reliability(t, "corruption", "audit trail as collected: every bit, every line removed, every two swapped, every truncation", trials,
		"all found, the entry named")
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("{}\n{}"), uint64(0), uint64(2))
	f.Add([]byte(`{"n":1,"prev":"","event":"x"}`), uint64(0), uint64(1))
	f.Fuzz(func(t *testing.T, text []byte, after, head uint64) {
		lines := bytes.Split(text, []byte("\n"))
		if err := Verify(lines, Head{N: after}, Head{N: head, SHA256: "00"}); err == nil && head != after {
			t.Fatal("a chain with a hash that nothing has")
		}
	})
}
