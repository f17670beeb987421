package main

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ontagent/agent/job"
	"ontagent/agent/order"
)

func TestTimeIsNotSignedForEver(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	c := &conversation{
		key: key, timeKey: key, order: order.Order{Device: "HWTC12345678"},
		cmd: order.Command{V: 1, ID: "a", Order: "WO-1", Device: "HWTC12345678", Type: order.Accept, Counter: 1},
	}
	for n := range 2 * maxProofs {
		if _, err := c.answer(job.Status{State: job.Challenge, Nonce: "n"}); (err == nil) != (n < maxProofs) {
			t.Errorf("answer %d: %v", n+1, err)
		}
	}
}

func TestHugeFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Skipf("no sparse files: %v", err)
	}
	if data, err := (&app{}).readFile(path); err == nil {
		t.Errorf("read %d bytes", len(data))
	}
}

func TestCounterRisesAlsoWhereTheClockGoesBack(t *testing.T) {
	key := filepath.Join(t.TempDir(), "technician.key")
	now := time.UnixMilli(1_700_000_000_000)
	last := uint64(0)
	for _, at := range []time.Time{now, now, now.AddDate(-56, 0, 0), now.Add(time.Hour), now} {
		n, err := nextCounter(key, at)
		if err != nil || n <= last {
			t.Errorf("%v: %d after %d, %v", at, n, last, err)
		}
		last = n
	}
	if entries, err := os.ReadDir(filepath.Dir(key)); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
