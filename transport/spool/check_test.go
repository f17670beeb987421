package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ontagent/transport"
	"ontagent/transport/durable"
)

// TestCheckFindsWhatIsMissingOrMisplaced: whole files that are gone, or lie
// under another's name, are no torn tails.
func TestCheckFindsWhatIsMissingOrMisplaced(t *testing.T) {
	s := newSpooler(t)
	q := s.open()
	for i := range 40 {
		put(t, q, transport.ClassRecord, fmt.Sprintf(`{"n":%d,"pad":%q}`, i, strings.Repeat("x", 9000)))
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	check := func() Report {
		t.Helper()
		r, err := Check(durable.OS{}, s.o.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := check(); r.Damaged > 0 || !r.Spool() {
		t.Fatalf("as it is: %s", r)
	}
	files, err := filepath.Glob(filepath.Join(s.o.Dir, "record", "*.seg"))
	if err != nil || len(files) < 4 {
		t.Fatalf("segments %q, %v", files, err)
	}
	data, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}

	copied := filepath.Join(s.o.Dir, "record", segID{epoch: 7, first: 1}.name())
	if err := os.WriteFile(copied, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := check(); r.Damaged != 1 {
		t.Errorf("a copy under another name: %s", r)
	}
	if err := os.Remove(copied); err != nil {
		t.Fatal(err)
	}

	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if r := check(); r.Damaged > 0 { // as if it had been signed for
		t.Errorf("without the first: %s", r)
	}
	if err := os.Remove(files[2]); err != nil {
		t.Fatal(err)
	}
	if r := check(); r.Damaged != 1 || !strings.Contains(r.String(), "missing") {
		t.Errorf("without one in the middle: %s", r)
	}

	if r, err := Check(durable.OS{}, t.TempDir()); err != nil || !r.Spool() || r.Damaged > 0 {
		t.Errorf("empty: %+v, %v", r, err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "passwd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(durable.OS{}, other); err != nil || r.Spool() {
		t.Errorf("another directory: %+v, %v", r, err)
	}
}
