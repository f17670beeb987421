package job

import (
	"context"
	"crypto/ecdh"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ontagent/agent/order"
	"ontagent/transport/durable"
)

// authorityFile keeps the state of a real authority beside the jobs.
type authorityFile struct {
	fs   durable.FS
	path string
}

func (f authorityFile) Load() ([]byte, error) {
	data, err := os.ReadFile(f.path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	return data, err
}

func (f authorityFile) Save(data []byte) error {
	return durable.WriteFile(f.fs, "authority.write", f.path, data, 0o600)
}

type goodClock struct{}

func (goodClock) Now() (time.Time, bool) { return time.Now(), true }
func (goodClock) Floor() time.Time       { return time.Time{} }
func (goodClock) Raise(time.Time) error  { return nil }

// life is one start of everything that decides whether a command runs, with
// the real authority on a file system that may fail.
func life(t *testing.T, fsys durable.FS, dir string, handler Handler) (*Manager, error) {
	t.Helper()
	box, err := ecdh.X25519().NewPrivateKey(slices.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := order.OpenAuthority(order.Options{
		Root: testPublic, Tenant: "lab", Device: device, Store: authorityFile{fsys, filepath.Join(dir, "authority.json")},
		Clock: goodClock{}, X25519: order.X25519Key(box.PublicKey().Bytes()), Monotonic: time.Now,
	})
	if err != nil {
		return nil, err
	}
	store, err := OpenDir(fsys, filepath.Join(dir, "jobs"))
	if err != nil {
		return nil, err
	}
	return New(Options{
		Authority: authority, Store: store, Timeout: time.Second, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Publish: func(Status) {}, Answer: func(Status) {},
		Handlers: map[order.CommandType]Handler{order.Accept: handler, order.Diagnose: handler},
	})
}

// signed is a whole request of a real order; one key plays all parts.
func signed(t *testing.T, id string, counter uint64, typ order.CommandType) []byte {
	t.Helper()
	pub := order.PublicKey(testPublic)
	sign := func(env order.Envelope, err error) *order.Envelope {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return &env
	}
	o := order.Order{
		V: 1, Order: "WO-1", Rev: 1, Type: order.Repair, Tenant: "lab", Device: device,
		Technicians: []order.Technician{{ID: "T-7", Key: pub}}, Allow: []order.CommandType{order.Accept, order.Close},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), MaxRuns: 99,
	}
	c := order.Command{V: 1, ID: id, Order: "WO-1", Rev: 1, Device: device, Type: typ, Counter: counter}
	list := order.TrustList{V: 1, Version: 1, Tenant: "lab", Keys: []order.TrustKey{{ID: "op", Role: order.RoleOperator, Key: pub}}}
	data, err := json.Marshal(order.Request{
		V: 1, Trust: sign(list.Sign(testKey)), Order: sign(o.Sign(testKey)), Command: sign(c.Sign(testKey)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// countingFS is cutFS for every operation, and counts writes.
type countingFS struct {
	cutFS
	writes int
}

func (c *countingFS) Rename(op, from, to string) error {
	c.writes++
	return c.cutFS.Rename(op, from, to)
}

func (c *countingFS) SyncDir(op, path string) error {
	if err := c.spend(); err != nil {
		return err
	}
	return c.cutFS.SyncDir(op, path)
}

func (c *countingFS) Remove(op, path string) error {
	if err := c.spend(); err != nil {
		return err
	}
	return c.cutFS.Remove(op, path)
}

// TestCutBetweenAnyTwoWrites cuts the power at every operation on the disk
// between the receipt of a command and its end, those of the authority
// included, starts again and sends the command again: it ran once or never, and
// what is left is an end.
func TestCutBetweenAnyTwoWrites(t *testing.T) {
	ranAtAll := 0
	for cut := 0; ; cut++ {
		dir := t.TempDir()
		runs := 0
		handler := func(_ context.Context, _ order.Grant, tell func(Progress)) Outcome {
			runs++
			tell(Progress{Step: "optical", Fraction: 0.5})
			return Outcome{Verdict: "pass"}
		}
		req := signed(t, "a", 1, order.Accept)
		cutting := &countingFS{cutFS: cutFS{FS: durable.OS{}, left: 1 << 30}}
		m, err := life(t, cutting, dir, handler)
		if err != nil {
			t.Fatal(err)
		}
		cutting.left = cut
		m.Submit("a", req)
		m.done.Wait()
		done := cutting.left >= 0 // nothing was cut any more

		before := runs
		again, err := life(t, durable.OS{}, dir, handler)
		if err != nil {
			t.Fatalf("cut %d: cannot start again: %v", cut, err)
		}
		st := again.Submit("a", req)
		again.done.Wait()
		if runs > 1 {
			t.Errorf("cut %d: ran %d times", cut, runs)
		}
		if before == 1 && !st.State.Terminal() {
			t.Errorf("cut %d: it ran, then the answer was %+v", cut, st)
		}
		if got, ok := again.Get("a"); ok && !got.State.Terminal() {
			t.Errorf("cut %d: left at %s", cut, got.State)
		}
		ranAtAll += before
		if done {
			if cut < 20 {
				t.Errorf("only %d operations were cut", cut)
			}
			break
		}
	}
	if ranAtAll < 2 {
		t.Error("it hardly ever ran: the test tests nothing")
	}
}

// TestOneOfTwoStatesIsEnough: either the authority's state or the jobs are lost
// or come back from a backup; nothing runs twice.
func TestOneOfTwoStatesIsEnough(t *testing.T) {
	for name, lose := range map[string]string{"authority": "authority.json", "jobs": "jobs"} {
		t.Run(name, func(t *testing.T) {
			dir, runs := t.TempDir(), 0
			handler := func(context.Context, order.Grant, func(Progress)) Outcome { runs++; return Outcome{} }
			req := signed(t, "a", 1, order.Accept)
			for range 2 {
				m, err := life(t, durable.OS{}, dir, handler)
				if err != nil {
					t.Fatal(err)
				}
				m.Submit("a", req)
				m.done.Wait()
				if err := os.RemoveAll(filepath.Join(dir, lose)); err != nil {
					t.Fatal(err)
				}
			}
			if runs != 1 {
				t.Errorf("ran %d times", runs)
			}
		})
	}
}

// TestForgottenIDDoesNotRunAgain: the answer is forgotten after 256 others, the
// counter is not.
func TestForgottenIDDoesNotRunAgain(t *testing.T) {
	dir, runs := t.TempDir(), 0
	m, err := life(t, durable.OS{}, dir, func(context.Context, order.Grant, func(Progress)) Outcome { runs++; return Outcome{} })
	if err != nil {
		t.Fatal(err)
	}
	first := signed(t, "a", 1, order.Accept)
	m.Submit("a", first)
	m.done.Wait()
	for i := range keepJobs {
		m.keep(&Stored{N: uint64(i + 2), Status: Status{ID: fmt.Sprint("x", i), State: Succeeded}}) //nolint:errcheck // fills the table
	}
	if _, known := m.Get("a"); known {
		t.Fatal("still known: the test tests nothing")
	}
	if st := m.Submit("a", first); st.Reason != order.ReasonReplayed {
		t.Errorf("answered %+v, want replayed", st)
	}
	if runs != 1 {
		t.Errorf("ran %d times", runs)
	}
}

// TestOthersCannotWearTheFlash: whatever somebody sends who has no key, but has
// seen what others sent, nothing is written.
func TestOthersCannotWearTheFlash(t *testing.T) {
	dir := t.TempDir()
	counting := &countingFS{cutFS: cutFS{FS: durable.OS{}, left: 1 << 30}}
	m, err := life(t, counting, dir, func(context.Context, order.Grant, func(Progress)) Outcome { return Outcome{Verdict: "pass"} })
	if err != nil {
		t.Fatal(err)
	}
	ran := signed(t, "ran", 2, order.Accept)
	m.Submit("ran", ran)
	m.done.Wait()
	if st, _ := m.Get("ran"); st.State != Succeeded {
		t.Fatalf("%+v", st)
	}
	counting.writes = 0
	late := signed(t, "late", 1, order.Accept)         // seen, but overtaken by another
	refused := signed(t, "refused", 3, order.Diagnose) // not allowed by the order
	for range 100 {
		for _, req := range [][]byte{ran, late, refused, []byte("{}"), nil} {
			m.Submit("ran", req)
			m.Submit("", req)
		}
	}
	if counting.writes != 0 {
		t.Errorf("%d writes", counting.writes)
	}
}

// TestChallengesAreNotKept: see TestOthersCannotWearTheFlash.
func TestChallengesAreNotKept(t *testing.T) {
	b := newBench(t)
	b.handlers[order.Accept] = func(context.Context, order.Grant, func(Progress)) Outcome { return Outcome{Verdict: "pass"} }
	m, _ := b.manager()
	b.authority.admit = &order.ChallengeError{Nonce: "n1"}
	for i := range 2 * keepJobs {
		id := fmt.Sprint("c", i)
		if st := m.Submit(id, b.request(order.Command{ID: id, Type: order.Accept})); st.State != Challenge {
			t.Fatalf("%+v", st)
		}
	}
	if entries, err := os.ReadDir(b.dir); err != nil || len(entries) != 0 || len(m.jobs) != 0 {
		t.Errorf("%d files, %d jobs, %v", len(entries), len(m.jobs), err)
	}
}

// TestGarbageUnderAJobsIDIsNotItsEnd: whoever follows the job must not be told
// that it was rejected.
func TestGarbageUnderAJobsIDIsNotItsEnd(t *testing.T) {
	b := newBench(t)
	release := make(chan struct{})
	b.handlers[order.Accept] = func(context.Context, order.Grant, func(Progress)) Outcome { <-release; return Outcome{Verdict: "pass"} }
	m, _ := b.manager()
	m.Submit("a", b.request(order.Command{ID: "a", Type: order.Accept}))
	changes, stop := m.Watch("a")
	defer stop()
	for _, garbage := range [][]byte{nil, []byte("{}"), b.request(order.Command{ID: "other", Type: order.Accept})} {
		if st := m.Submit("a", garbage); st.State != Rejected {
			t.Errorf("garbage: %+v", st)
		}
	}
	if st := m.Submit("", b.request(order.Command{ID: "a", Type: order.Diagnose})); st.State != Rejected {
		t.Errorf("another command of the same id: %+v", st)
	}
	close(release)
	b.waitFor(m, "a", Succeeded)
	for range len(changes) {
		if st := <-changes; st.State == Rejected {
			t.Errorf("who follows the job was told %+v", st)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, st := range slices.Concat(b.told, b.answered) {
		if st.ID == "a" && st.State == Rejected {
			t.Errorf("told %+v", st)
		}
	}
}

// TestWritesOfOneJob bounds the wear of the flash by one visit.
func TestWritesOfOneJob(t *testing.T) {
	const rungs = 16
	counting := &countingFS{cutFS: cutFS{FS: durable.OS{}, left: 1 << 30}}
	m, err := life(t, counting, t.TempDir(), func(_ context.Context, _ order.Grant, tell func(Progress)) Outcome {
		for i := range rungs {
			tell(Progress{Step: fmt.Sprint(i)})
			tell(Progress{Step: fmt.Sprint(i), StepVerdict: "pass"})
		}
		return Outcome{Verdict: "pass"}
	})
	if err != nil {
		t.Fatal(err)
	}
	counting.writes = 0
	m.Submit("a", signed(t, "a", 1, order.Accept))
	m.done.Wait()
	// RECEIVED, trust list, authority, ACCEPTED, RUNNING, each rung's begin, the end.
	if counting.writes > rungs+6 {
		t.Errorf("%d files were written for %d rungs", counting.writes, rungs)
	}
}

// TestFullDiskIsSurvived: nothing runs on a disk that takes no state, memory
// stays bounded, and the same command runs when there is room again.
func TestFullDiskIsSurvived(t *testing.T) {
	b := newBench(t)
	runs := 0
	b.handlers[order.Accept] = func(context.Context, order.Grant, func(Progress)) Outcome { runs++; return Outcome{Verdict: "pass"} }
	m, _ := b.manager()
	working := m.o.Store
	m.o.Store = fullStore{}
	req := b.request(order.Command{ID: "a", Type: order.Accept})
	for range 10 {
		if st := m.Submit("a", req); st.State != Rejected || st.Reason != order.ReasonInternal {
			t.Fatalf("on a full disk: %+v", st)
		}
	}
	if runs != 0 || len(m.jobs) != 0 {
		t.Errorf("%d runs, %d jobs", runs, len(m.jobs))
	}
	m.o.Store = working
	if st := m.Submit("a", req); st.State != Accepted {
		t.Errorf("with room again: %+v", st)
	}
	b.waitFor(m, "a", Succeeded)
}

type fullStore struct{}

func (fullStore) Load() ([]Stored, error) { return nil, nil }
func (fullStore) Put(Stored) error        { return fs.ErrInvalid }
func (fullStore) Forget(string) error     { return nil }
