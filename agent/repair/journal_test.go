package repair

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ontagent/agent/order"
	"ontagent/transport/durable"
)

func TestJournalThatIsDamagedLetsNothingBeDone(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "cut": `{"v":1,"attempts":[{"n":1`, "not JSON": "\x00\x00", "another version": `{"v":2}`,
		"too many": `{"v":1,"attempts":[` + strings.Repeat(`{},`, 99) + `{}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, journalFile), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				o := JournalOptions{FS: durable.OS{}, Dir: dir, Start: 7, Now: time.Now, Wall: func() (time.Time, bool) { return time.Now(), true }}
				j, err := OpenJournal(o)
				if err == nil {
					t.Fatal("no error")
				}
				if n := j.Since(time.Hour); n < MaxPerDay {
					t.Errorf("%d attempts within an hour", n)
				}
				if _, err := j.Begin(Attempt{}); err == nil {
					t.Error("an attempt was begun")
				}
				time.Sleep(25 * time.Hour)
				if n := j.Since(24 * time.Hour); n != 0 {
					t.Errorf("%d attempts within the last day, a day later", n)
				}
				if _, err := j.Begin(Attempt{}); err != nil {
					t.Errorf("a day later: %v", err)
				}
				if _, err := OpenJournal(o); err != nil {
					t.Errorf("it was not overwritten: %v", err)
				}
			})
		})
	}
}

func TestJournalIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		j := journal(t, dir, 1, nil)
		var largest int64
		for range 400 {
			time.Sleep(30 * time.Minute)
			n, err := j.Begin(Attempt{Action: order.ActionRestart, Cause: "dial.gateway_settings", Auto: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := j.End(n, NotNeeded); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(filepath.Join(dir, journalFile))
			if err != nil {
				t.Fatal(err)
			}
			largest = max(largest, info.Size())
		}
		if largest > maxJournal/2 {
			t.Errorf("grew to %d bytes", largest)
		}
		if n := j.Since(24 * time.Hour); n != 48 {
			t.Errorf("%d attempts within a day", n)
		}
	})
}

// brokenFS fails what writes.
type brokenFS struct{ durable.FS }

var errBroken = errors.New("flash is broken")

func (b brokenFS) Rename(string, string, string) error { return errBroken }

func TestWhatCannotBeKeptIsNotDone(t *testing.T) {
	j, err := OpenJournal(JournalOptions{
		FS: brokenFS{durable.OS{}}, Dir: t.TempDir(), Now: time.Now, Wall: func() (time.Time, bool) { return time.Time{}, false },
	})
	if err != nil {
		t.Fatal(err)
	}
	l := line{views: []View{noAddress()}}
	task := l.task()
	task.Action = order.ActionReread
	_, err = l.repairer(t, j).Repair(t.Context(), task)
	if !errors.Is(err, errBroken) || len(l.acted) != 0 {
		t.Errorf("%v, and %v was done", err, l.acted)
	}
	s, err := OpenStanding(brokenFS{durable.OS{}}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Keep(signedRequest(t)); !errors.Is(err, errBroken) {
		t.Errorf("kept: %v", err)
	}
	if _, ok := s.Request(); ok {
		t.Error("a standing order holds that is not on flash")
	}
}

// signedRequest is a request by keys that nobody trusts.
func signedRequest(t *testing.T) order.Request {
	t.Helper()
	_, key, err := ed25519.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	pub, _ := key.Public().(ed25519.PublicKey)
	o, err := order.Order{
		V: 1, Order: "WO-1", Rev: 1, Type: order.Repair, Tenant: "lab", Device: "ONT0123456789",
		Technicians: []order.Technician{{ID: "T-7", Key: order.PublicKey(pub)}}, Allow: []order.CommandType{order.RepairCmd},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1e9, 0), MaxRuns: 1,
	}.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := order.Command{
		V: 1, ID: "c-1", Order: "WO-1", Rev: 1, Device: "ONT0123456789", Type: order.RepairCmd,
		Args: order.Args{Standing: true}, Counter: 1,
	}.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return order.Request{V: 1, Order: &o, Command: &c, Trust: &o}
}

func TestStandingIsKept(t *testing.T) {
	dir := t.TempDir()
	open := func() *Standing {
		s, err := OpenStanding(durable.OS{}, dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if _, ok := open().Request(); ok {
		t.Error("there is one already")
	}
	req := signedRequest(t)
	if err := open().Keep(req); err != nil {
		t.Fatal(err)
	}
	got, ok := open().Request()
	if !ok || order.Digest(*got.Command) != order.Digest(*req.Command) || order.Digest(*got.Order) != order.Digest(*req.Order) {
		t.Fatalf("kept %+v", got)
	}
	if got.Trust != nil {
		t.Error("a trust list was kept as well: it would come back when it is outdated")
	}
	other := got
	other.Command = got.Order
	if err := open().Drop(other); err != nil {
		t.Fatal(err)
	}
	if _, ok := open().Request(); !ok {
		t.Error("another request's end dropped it")
	}
	if err := open().Drop(got); err != nil {
		t.Fatal(err)
	}
	if _, ok := open().Request(); ok {
		t.Error("it was not dropped")
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"v":1,"n":2,"attempts":[{"n":1,"action":"redial","start":3,"at_s":1.5,"utc":"2026-01-01T00:00:00Z"}],"intent":{"a":1}}`))
	f.Add([]byte(`{"v":1,"attempts":[{"at_s":1e308},{"at_s":-1e308}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, journalFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		now := func() (time.Time, bool) { return time.Unix(1e9, 0), true }
		j, err := OpenJournal(JournalOptions{FS: durable.OS{}, Dir: dir, Start: 3, Now: time.Now, Wall: now})
		if n := j.Since(time.Hour); err != nil && n < MaxPerDay {
			t.Errorf("damaged, and %d within an hour", n)
		}
		j.Failures()
		if _, err := j.Begin(Attempt{}); err == nil && len(j.state.Attempts) > maxAttempts {
			t.Errorf("%d attempts", len(j.state.Attempts))
		}
	})
}
