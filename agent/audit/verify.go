package audit

import (
	"fmt"
	"slices"
)

// Kind says how a chain is broken.
type Kind string

// The kinds.
const (
	KindAltered  Kind = "altered"      // the entry is not what was chained
	KindMissing  Kind = "missing"      // the entry is not there
	KindCutOff   Kind = "cut_off"      // the entry and all after it are not there
	KindOrder    Kind = "out_of_order" // the entry is there, in the wrong place
	KindUnknown  Kind = "unlinked"     // the entry itself says that nobody knows what came before
	KindUnproven Kind = "unproven"     // there is no head to prove the last entry by
)

// BreakError is the error for a chain that does not hold.
type BreakError struct {
	Kind   Kind
	N      uint64 // the entry that it is about
	Detail string
}

func (b *BreakError) Error() string {
	return fmt.Sprintf("audit entry %d is %s: %s", b.N, b.Kind, b.Detail)
}

func broken(kind Kind, n uint64, format string, args ...any) error {
	return &BreakError{Kind: kind, N: n, Detail: fmt.Sprintf(format, args...)}
}

// Verify checks that lines, oldest first and without line ends, are all entries
// after the one that after names up to the one that head names, and exactly as
// they were chained. after is zero for a chain from its beginning, else a head
// proven earlier; head comes from elsewhere, such as a heartbeat. The error is a
// *BreakError that names one entry, the newest that does not hold.
//
// Lines newer than head are checked against one another; what the last of them
// says then is not proven, and a zero head proves nothing: KindUnproven.
func Verify(lines [][]byte, after, head Head) error {
	if head.N == 0 {
		if len(lines) == 0 {
			return nil
		}
		return broken(KindUnproven, after.N+uint64(len(lines)), "no head is known")
	}
	if len(lines) == 0 {
		if head != after {
			return broken(KindCutOff, after.N+1, "the head is entry %d", head.N)
		}
		return nil
	}
	// Backwards: what is proven says what the entry before it must be.
	want, err := lastWanted(lines, after, head)
	if err != nil {
		return err
	}
	for i, line := range slices.Backward(lines) {
		if want.N == head.N {
			if want.SHA256 != "" && want != head {
				return broken(KindAltered, want.N+1, "it does not follow the known entry %d", want.N)
			}
			want = head
		}
		if want.N <= after.N {
			return broken(KindAltered, want.N+1, "%d lines stand before it", i+1)
		}
		if want.SHA256 != "" && !isEntry(line, want) {
			return blame(lines, i, after, want)
		}
		e, err := Parse(line)
		switch {
		case err != nil:
			return broken(KindAltered, want.N, "%v", err)
		case e.N != want.N:
			return blame(lines, i, after, want)
		case e.Prev == "" && e.N > 1:
			return broken(KindUnknown, e.N, "%s", e.Detail)
		}
		want = Head{N: e.N - 1, SHA256: e.Prev}
	}
	switch {
	case want == after:
		return nil
	case want.N == after.N:
		return broken(KindAltered, want.N+1, "it does not follow the known entry %d", want.N)
	}
	return broken(KindMissing, want.N, "entry %d follows it", want.N+1)
}

// lastWanted says what the last line should be: the head, or a newer entry, which
// may have any hash.
func lastWanted(lines [][]byte, after, head Head) (Head, error) {
	last := lines[len(lines)-1]
	count := after.N + uint64(len(lines))
	switch {
	case isEntry(last, head), count == head.N:
		return head, nil
	case count > head.N:
		return Head{N: count}, nil
	}
	for _, line := range lines {
		if isEntry(line, head) {
			return Head{}, broken(KindOrder, head.N, "it is not the last")
		}
	}
	if e, err := Parse(last); err == nil && e.N > after.N && e.N < head.N {
		return Head{}, broken(KindCutOff, e.N+1, "the head is entry %d", head.N)
	}
	return Head{}, broken(KindCutOff, count, "the head is entry %d", head.N)
}

// blame names what is wrong where line i is not the entry that is wanted.
func blame(lines [][]byte, i int, after, want Head) error {
	for j, line := range lines {
		if j != i && want.SHA256 != "" && isEntry(line, want) {
			return broken(KindOrder, want.N, "it stands at line %d instead of %d", j+1, i+1)
		}
	}
	if e, err := Parse(lines[i]); err == nil && e.N < want.N && uint64(i+1) < want.N-after.N {
		return broken(KindMissing, want.N, "entry %d stands in its place", e.N)
	}
	return broken(KindAltered, want.N, "its bytes are not those that were chained")
}

// isEntry reports whether line is exactly the entry that h names.
func isEntry(line []byte, h Head) bool { return Head{N: h.N - 1}.after(line) == h }
