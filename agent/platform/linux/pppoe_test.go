package linux

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The table as Linux 6.1 prints it on a little-endian machine, session 0x0102.
const pppoeTable = "Id       Address              Device\n00000201 02:00:00:64:00:01   wan0.41\n"

func TestPPPoESessions(t *testing.T) {
	root := t.TempDir()
	if got, err := PPPoESessions(root); err != nil || got != nil {
		t.Errorf("without PPPoE in the kernel: %v, %v", got, err)
	}
	if err := os.MkdirAll(filepath.Join(root, "proc/net"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "proc/net/pppoe")
	if err := os.WriteFile(path, []byte(pppoeTable+"junk\n00000003 short wan0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := PPPoESessions(root)
	if err != nil {
		t.Fatal(err)
	}
	want := []PPPoESession{{ID: 0x0102, Peer: "02:00:00:64:00:01", Device: "wan0.41"}}
	if binary.NativeEndian.Uint16([]byte{1, 2}) == 0x0102 {
		want[0].ID = 0x0201
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPPPoESessionsUnreadable(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "proc/net/pppoe"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := PPPoESessions(root); err == nil {
		t.Error("a directory was read")
	}
}

func FuzzParsePPPoE(f *testing.F) {
	f.Add([]byte(pppoeTable))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := parsePPPoE(data); len(got) > maxSessions {
			t.Errorf("%d sessions", len(got))
		}
	})
}
