package job

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ontagent/agent/order"
	"ontagent/transport/durable"
	"ontagent/transport/durable/faultfs"
)

// reliability prints the line of one measured property and fails the test where
// it does not hold.
func reliability(t *testing.T, variant string, trials int, ok bool, format string, args ...any) {
	t.Helper()
	verdict := "ok"
	if !ok || t.Failed() {
		verdict = "FAIL"
		t.Fail()
	}
	t.Logf("reliability: duplicates | %s | %d | %s | %s", variant, trials, fmt.Sprintf(format, args...), verdict)
}

// rounds picks the number of rounds of a property.
func rounds(tiny, short, long int) int {
	switch {
	case os.Getenv("LONG") != "":
		return long
	case testing.Short():
		return tiny
	}
	return short
}

// machine is a gateway whose disk is simulated: what its jobs did to the world
// outlives its lives.
type machine struct {
	t       *testing.T
	disk    *faultfs.FS
	box     order.X25519Key
	effects atomic.Int64 // of commands, by whatever life
	mu      sync.Mutex
	told    map[string][]State // while there was power
}

func newMachine(t *testing.T, like faultfs.Like, seed uint64) *machine {
	t.Helper()
	box, err := ecdh.X25519().NewPrivateKey(slices.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return &machine{
		t: t, disk: faultfs.New(like, seed), box: order.X25519Key(box.PublicKey().Bytes()), told: map[string][]State{},
	}
}

// diskFile is the authority's store as the daemon has it.
type diskFile struct{ fs durable.FS }

const authorityPath = "/state/authority.json"

func (f diskFile) Load() ([]byte, error) {
	data, err := durable.ReadFile(f.fs, "authority.read", authorityPath, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func (f diskFile) Save(data []byte) error {
	if err := durable.MkdirAll(f.fs, "authority.dir", "/state", 0o700); err != nil {
		return err
	}
	return durable.WriteFile(f.fs, "authority.write", authorityPath, data, 0o600)
}

// start begins a life.
func (m *machine) start() (*Manager, error) {
	authority, err := order.OpenAuthority(order.Options{
		Root: testPublic, Tenant: "lab", Device: device, Store: diskFile{m.disk},
		Clock: goodClock{}, X25519: m.box, Monotonic: time.Now,
	})
	if err != nil {
		return nil, err
	}
	store, err := OpenDir(m.disk, "/state/jobs")
	if err != nil {
		return nil, err
	}
	work := func(_ context.Context, _ order.Grant, tell func(Progress)) Outcome {
		if m.disk.IsCut() {
			return Outcome{} // nobody is alive
		}
		m.effects.Add(1)
		tell(Progress{Step: "optical", Fraction: 0.3})
		tell(Progress{Step: "optical", StepVerdict: "pass", Fraction: 0.3})
		tell(Progress{Step: "dial", Fraction: 0.6})
		return Outcome{Verdict: "pass"}
	}
	return New(Options{
		Authority: authority, Store: store, Timeout: time.Minute, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Publish: func(st Status) {
			if !m.disk.IsCut() {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.told[st.ID] = append(m.told[st.ID], st.State)
			}
		},
		Answer:   func(Status) {},
		Handlers: map[order.CommandType]Handler{order.Accept: work},
	})
}

// must is start on a disk that works.
func (m *machine) must() *Manager {
	m.t.Helper()
	man, err := m.start()
	if err != nil {
		m.t.Fatalf("cannot start on a disk that works: %v", err)
	}
	return man
}

// submit sends a command and waits until nothing runs.
func submit(man *Manager, id string, req []byte) Status {
	st := man.Submit(id, req)
	man.done.Wait()
	if got, known := man.Get(id); known {
		return got
	}
	return st
}

// settled checks what must hold at last: one run at most, an end that stays the
// same after another restart, and a gateway that takes the next command.
func (m *machine) settled(what string, req, next []byte, restart func()) (ran bool) {
	m.t.Helper()
	before := m.effects.Load()
	last := submit(m.must(), "a", req)
	ran = m.effects.Load() == 1
	switch {
	case m.effects.Load() > 1:
		m.t.Errorf("%s: ran %d times", what, m.effects.Load())
	case !last.State.Terminal():
		m.t.Errorf("%s: left at %s", what, last.State)
	case before == 1 && last.State != Succeeded && last.State != Interrupted && last.State != Failed:
		m.t.Errorf("%s: it ran, and is answered %s %s", what, last.State, last.Detail)
	case before == 0 && last.State == Succeeded && !ran:
		m.t.Errorf("%s: it never ran, and is answered %s", what, last.State)
	}
	restart()
	man := m.must()
	if again := submit(man, "a", req); last.State != Rejected && again.State != last.State {
		m.t.Errorf("%s: answered %s, then %s", what, last.State, again.State)
	}
	now := m.effects.Load()
	if st := submit(man, "b", next); st.State != Succeeded || m.effects.Load() != now+1 {
		m.t.Errorf("%s: the next command ends as %s %s", what, st.State, st.Detail)
	}
	return ran
}

// TestReliabilityPowerCutInJob cuts the power at every operation on the disk
// between the start of the daemon and the end of a job – the authority's state,
// RECEIVED, ACCEPTED, RUNNING, its steps, its end – and again in the start that
// follows: it ran once or never, what is answered is its end or INTERRUPTED.
func TestReliabilityPowerCutInJob(t *testing.T) {
	req, next := signed(t, "a", 1, order.Accept), signed(t, "b", 2, order.Accept)
	for _, like := range []faultfs.Like{faultfs.Ext4, faultfs.UBIFS} {
		cuts, ran, interrupted, operations := 0, 0, 0, 0
		for seed := range uint64(rounds(1, 6, 100)) {
			for cut := 0; ; cut += rounds(7, 1, 1) {
				m := newMachine(t, like, seed<<16|uint64(cut))
				m.disk.CutIn(cut)
				end := State("")
				if man, err := m.start(); err == nil {
					submit(man, "a", req)
					if told := m.told["a"]; len(told) > 0 && told[len(told)-1].Terminal() {
						end = told[len(told)-1]
					}
				}
				if !m.disk.IsCut() {
					operations = max(operations, cut)
					break
				}
				cuts++
				m.disk.PowerOn()
				m.disk.CutIn(cut % 23) // in what the next start has to mend
				if _, err := m.start(); err != nil && !m.disk.IsCut() {
					t.Fatalf("cut %d: cannot start again: %v", cut, err)
				}
				m.disk.PowerOn()
				begun := m.effects.Load() > 0
				what := fmt.Sprintf("%v, seed %d, cut %d", like, seed, cut)
				if begun && end != "" {
					if st, _ := m.must().Get("a"); st.State != end {
						t.Errorf("%s: told %s, then %s", what, end, st.State)
					}
				}
				if st, _ := m.must().Get("a"); st.State == Interrupted {
					interrupted++
				}
				if m.settled(what, req, next, m.disk.PowerOn) {
					ran++
				}
			}
		}
		reliability(t, fmt.Sprintf("power cut at each of %d file operations of a job, and in the start after it, %v", operations, like),
			cuts, operations > 40 && ran > 0 && interrupted > 0,
			"ran twice 0; ran once %d, found interrupted %d; the same command again got the stored answer", ran, interrupted)
	}
}

// TestReliabilityFaultInJob fails each operation on the disk, once and for good:
// the command is refused or FAILED, or ran and counts as run.
func TestReliabilityFaultInJob(t *testing.T) {
	req, next := signed(t, "a", 1, order.Accept), signed(t, "b", 2, order.Accept)
	faults := []error{syscall.ENOSPC, syscall.EIO, syscall.EROFS, syscall.EMFILE}
	if testing.Short() {
		faults = faults[:1]
	}
	trials, ran, refused, dead := 0, 0, 0, 0
	for _, fault := range faults {
		for _, forever := range []bool{false, true} {
			for _, cut := range []bool{false, true} {
				for n := 0; ; n += rounds(7, 1, 1) {
					m := newMachine(t, faultfs.Ext4, uint64(n))
					m.disk.Inject(faultfs.Fault{N: n, Forever: forever, Err: fault, Bytes: -1})
					what := fmt.Sprintf("%v at call %d, forever %v, cut %v", fault, n, forever, cut)
					man, err := m.start()
					if err != nil {
						dead++ // the daemon does not start: nothing can run
					} else {
						st := submit(man, "a", req)
						if again := submit(man, "a", req); m.effects.Load() > 1 ||
							again.State != st.State && st.State != Rejected {
							t.Errorf("%s: %d runs, %s, then %s", what, m.effects.Load(), st.State, again.State)
						}
						if st.State == Rejected || st.State == Failed {
							refused++
						}
					}
					if m.disk.Heal() == 0 {
						break
					}
					trials++
					restart := m.disk.Kill
					if cut {
						restart = m.disk.PowerOn
					}
					restart()
					if m.settled(what, req, next, restart) {
						ran++
					}
				}
			}
		}
	}
	reliability(t, "ENOSPC, EIO, EROFS, EMFILE at each file operation of a job, once and for good", trials,
		ran > 0 && refused > 0, "no panic; ran twice 0, ran uncounted 0; refused or failed %d, daemon not started %d; with the disk well again the gateway works", refused, dead)
}

// TestReliabilityHundredDuplicates: however often and in however many lives a
// command comes, it runs once.
func TestReliabilityHundredDuplicates(t *testing.T) {
	req, other := signed(t, "a", 1, order.Accept), signed(t, "b", 2, order.Accept)
	const duplicates = 100
	for _, mode := range []string{"one after the other", "at the same time", "in ten lives", "in ten lives that end by a power cut"} {
		trials, answers := rounds(1, 20, 200), map[State]int{}
		for i := range trials {
			m := newMachine(t, faultfs.Like(i%2), uint64(i))
			rnd := rand.New(rand.NewPCG(uint64(i), 3))
			man := m.must()
			var wg sync.WaitGroup
			for d := range duplicates {
				id := []string{"a", ""}[d%2]
				switch mode {
				case "one after the other":
					man.Submit(id, req)
				case "at the same time":
					wg.Go(func() { man.Submit(id, req) })
				default:
					if d > 0 && d%10 == 0 {
						man.done.Wait()
						m.disk.Kill()
						if mode != "in ten lives" {
							m.disk.PowerOn()
						}
						man = m.must()
						if mode != "in ten lives" {
							m.disk.CutIn(rnd.IntN(80))
						}
					}
					man.Submit(id, req)
				}
			}
			wg.Wait()
			man.done.Wait()
			m.disk.PowerOn()
			man = m.must()
			st := submit(man, "a", req)
			answers[st.State]++
			if n := m.effects.Load(); n != 1 || st.State != Succeeded && st.State != Interrupted {
				t.Errorf("%s, trial %d: %d runs, %s", mode, i, n, st.State)
			}
			if again := submit(man, "b", other); again.State != Succeeded {
				t.Errorf("the next command: %s", again.State)
			}
		}
		reliability(t, fmt.Sprintf("%d duplicates of a command %s", duplicates, mode), trials*duplicates, true,
			"%d commands, %d runs", trials, trials)
	}
}
