package job

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"ontagent/agent/order"
	"ontagent/transport/durable"
)

const device = "HWTC12345678"

// fakeAuthority grants what is signed by anyone, once per counter.
type fakeAuthority struct {
	verify error
	admit  error
	used   map[uint64]bool
	closed []string
}

func (f *fakeAuthority) Verify(req order.Request) (order.Verified, error) {
	if f.verify != nil {
		return order.Verified{}, f.verify
	}
	var c order.Command
	payload, _, err := order.Open(*req.Command, order.TypeCommand, testPublic)
	if err != nil {
		return order.Verified{}, &order.RefusalError{Reason: order.ReasonBadSignature, Detail: err.Error()}
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return order.Verified{}, err
	}
	return order.Verified{Command: c, Order: order.Order{Order: c.Order}, Request: req}, nil
}

func (f *fakeAuthority) Admit(v order.Verified, begin func() error) (order.Grant, error) {
	if f.admit != nil {
		return order.Grant{}, f.admit
	}
	if f.used[v.Command.Counter] {
		return order.Grant{}, &order.RefusalError{Reason: order.ReasonReplayed, Detail: "counter"}
	}
	if err := begin(); err != nil {
		return order.Grant{}, err
	}
	f.used[v.Command.Counter] = true
	return order.Grant{Verified: v}, nil
}

func (f *fakeAuthority) CloseOrder(o string) error {
	f.closed = append(f.closed, o)
	return nil
}

var (
	testKey       = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	testPublic, _ = testKey.Public().(ed25519.PublicKey)
)

type bench struct {
	t         *testing.T
	dir       string
	authority *fakeAuthority
	handlers  map[order.CommandType]Handler
	counter   uint64

	mu       sync.Mutex
	told     []Status
	answered []Status
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return &bench{
		t: t, dir: filepath.Join(t.TempDir(), "jobs"), authority: &fakeAuthority{used: map[uint64]bool{}},
		handlers: map[order.CommandType]Handler{},
	}
}

// manager starts one life of the daemon; stop ends it.
func (b *bench) manager() (m *Manager, stop func()) {
	b.t.Helper()
	store, err := OpenDir(durable.OS{}, b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	m, err = New(Options{
		Authority: b.authority, Store: store, Handlers: b.handlers, Timeout: 5 * time.Second, Now: time.Now,
		Log: slog.New(slog.DiscardHandler),
		Publish: func(st Status) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.told = append(b.told, st)
		},
		Answer: func(st Status) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.answered = append(b.answered, st)
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.Serve(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	b.t.Cleanup(stop)
	return m, stop
}

func (b *bench) request(c order.Command) []byte {
	b.t.Helper()
	b.counter++
	c.V, c.Device, c.Counter = 1, device, b.counter
	if c.Order == "" {
		c.Order = "WO-1"
	}
	env, err := c.Sign(testKey)
	if err != nil {
		b.t.Fatal(err)
	}
	data, err := json.Marshal(order.Request{V: 1, Command: &env})
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

func (b *bench) states(id string) []State {
	b.mu.Lock()
	defer b.mu.Unlock()
	var states []State
	for _, st := range b.told {
		if st.ID == id && (len(states) == 0 || states[len(states)-1] != st.State) {
			states = append(states, st.State)
		}
	}
	return states
}

func (b *bench) waitFor(m *Manager, id string, want State) Status {
	b.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if st, ok := m.Get(id); ok && st.State == want {
			return st
		}
		time.Sleep(time.Millisecond)
	}
	st, _ := m.Get(id)
	b.t.Fatalf("job %s is %s, want %s", id, st.State, want)
	return Status{}
}

func TestJobRunsToItsEnd(t *testing.T) {
	b := newBench(t)
	b.handlers[order.Accept] = func(_ context.Context, _ order.Grant, tell func(Progress)) Outcome {
		tell(Progress{Step: "optical", StepVerdict: "fail", Fraction: 0.5})
		return Outcome{Verdict: "fail", FirstCause: "optical.rx_weak", RecordSHA: "abc"}
	}
	m, _ := b.manager()
	if st := m.Submit("a", b.request(order.Command{ID: "a", Type: order.Accept})); st.State != Accepted {
		t.Fatalf("first answer %+v", st)
	}
	st := b.waitFor(m, "a", Succeeded)
	if st.Verdict != "fail" || st.FirstCause != "optical.rx_weak" || st.RecordSHA != "abc" || st.Progress != 1 {
		t.Errorf("end %+v", st)
	}
	want := []State{Received, Accepted, Running, Succeeded}
	if got := b.states("a"); !slices.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
}

func TestHundredDuplicatesRunOnce(t *testing.T) {
	b := newBench(t)
	runs := 0
	b.handlers[order.Accept] = func(context.Context, order.Grant, func(Progress)) Outcome {
		runs++
		return Outcome{Verdict: "pass"}
	}
	m, stop := b.manager()
	req := b.request(order.Command{ID: "a", Type: order.Accept})
	for range 50 {
		m.Submit("a", req)
	}
	b.waitFor(m, "a", Succeeded)
	stop()
	m, stop = b.manager() // a restart does not forget
	for range 50 {
		if st := m.Submit("a", req); st.State != Succeeded || st.Verdict != "pass" {
			t.Fatalf("duplicate after restart answered %+v", st)
		}
	}
	stop()
	if runs != 1 {
		t.Errorf("ran %d times", runs)
	}
}

func TestRefusalsCarryTheirReason(t *testing.T) {
	b := newBench(t)
	b.handlers[order.Accept] = func(context.Context, order.Grant, func(Progress)) Outcome {
		t.Error("ran")
		return Outcome{}
	}
	m, _ := b.manager()
	check := func(name string, st Status, want order.Reason) {
		t.Helper()
		if st.State != Rejected || st.Reason != want {
			t.Errorf("%s: %s %s (%s), want %s", name, st.State, st.Reason, st.Detail, want)
		}
	}
	check("garbage", m.Submit("x", []byte("\xff\xfe")), order.ReasonMalformed)
	check("oversized", m.Submit("x", make([]byte, order.MaxRequest+1)), order.ReasonTooLarge)
	check("unsigned", m.Submit("x", []byte(`{"v":1,"command":{"payloadType":"t","payload":"e30=","signatures":[]}}`)), order.ReasonUnsigned)
	check("other topic", m.Submit("x", b.request(order.Command{ID: "a", Type: order.Accept})), order.ReasonMalformed)
	check("no handler", m.Submit("p", b.request(order.Command{ID: "p", Type: order.Provision})), order.ReasonNotSupported)
	b.authority.admit = &order.RefusalError{Reason: order.ReasonExpired}
	check("expired", m.Submit("e", b.request(order.Command{ID: "e", Type: order.Accept})), order.ReasonExpired)
	b.authority.verify = &order.RefusalError{Reason: order.ReasonWrongDevice}
	check("verify", m.Submit("w", b.request(order.Command{ID: "w", Type: order.Accept})), order.ReasonWrongDevice)
	entries, err := os.ReadDir(b.dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("%d jobs on disk (%v), want none: refusals must not wear the flash", len(entries), err)
	}
}

func TestRefusalDoesNotQuoteWithoutBound(t *testing.T) {
	b := newBench(t)
	m, stop := b.manager()
	defer stop()
	for _, request := range []string{
		`{"` + strings.Repeat(`\u0001`, 10000) + `":1}`,
		`{"` + strings.Repeat("ü", 30000) + `":1}`,
		`{"` + strings.Repeat("z", 60000) + `":1}`,
	} {
		if st := m.Submit("c", []byte(request)); st.Reason != order.ReasonMalformed || len(st.Detail) > maxDetail+len("…") || !utf8.ValidString(st.Detail) {
			t.Errorf("%s with a detail of %d bytes: %.80q", st.Reason, len(st.Detail), st.Detail)
		}
	}
	b.authority.verify = &order.RefusalError{Reason: order.ReasonMalformed, Detail: strings.Repeat("ü", 30000)}
	if st := m.Submit("c", b.request(order.Command{ID: "c", Type: order.Accept})); len(st.Detail) > maxDetail+len("…") || !utf8.ValidString(st.Detail) {
		t.Errorf("detail of %d bytes", len(st.Detail))
	}
}

func TestChallengeIsAnsweredUnderTheSameID(t *testing.T) {
	b := newBench(t)
	b.handlers[order.Accept] = func(context.Context, order.Grant, func(Progress)) Outcome { return Outcome{Verdict: "pass"} }
	m, _ := b.manager()
	b.authority.admit = &order.ChallengeError{Nonce: "n1"}
	st := m.Submit("a", b.request(order.Command{ID: "a", Type: order.Accept}))
	if st.State != Challenge || st.Nonce != "n1" {
		t.Fatalf("answer %+v", st)
	}
	b.authority.admit = nil
	if st := m.Submit("a", b.request(order.Command{ID: "a", Type: order.Accept, Nonce: "n1"})); st.State != Accepted {
		t.Fatalf("second answer %+v", st)
	}
	b.waitFor(m, "a", Succeeded)
}

func TestOneJobAtATimeAndCancel(t *testing.T) {
	b := newBench(t)
	started := make(chan struct{})
	b.handlers[order.Accept] = func(ctx context.Context, _ order.Grant, _ func(Progress)) Outcome {
		close(started)
		<-ctx.Done()
		return Outcome{Verdict: "inconclusive"}
	}
	m, _ := b.manager()
	m.Submit("a", b.request(order.Command{ID: "a", Type: order.Accept}))
	<-started
	second := b.request(order.Command{ID: "b", Type: order.Accept})
	if st := m.Submit("b", second); st.Reason != order.ReasonBusy {
		t.Errorf("second job: %+v, want busy", st)
	}
	if st := m.Submit("c", b.request(order.Command{ID: "c", Type: order.Cancel, Order: "WO-2", Args: order.Args{Target: "a"}})); st.State != Failed {
		t.Errorf("cancel under another order: %+v", st)
	}
	if st := m.Submit("d", b.request(order.Command{ID: "d", Type: order.Cancel, Args: order.Args{Target: "a"}})); st.State != Succeeded {
		t.Errorf("cancel: %+v", st)
	}
	b.waitFor(m, "a", Cancelled)
	if _, running := m.Running(); running {
		t.Error("still running")
	}
	b.handlers[order.Accept] = func(context.Context, order.Grant, func(Progress)) Outcome { return Outcome{Verdict: "pass"} }
	if st := m.Submit("b", second); st.State != Accepted {
		t.Errorf("the busy one again: %+v", st)
	}
	b.waitFor(m, "b", Succeeded)
}

func TestStopAndPanicAndTimeoutEndJobs(t *testing.T) {
	b := newBench(t)
	b.handlers[order.Accept] = func(context.Context, order.Grant, func(Progress)) Outcome { panic("boom") }
	b.handlers[order.Diagnose] = func(ctx context.Context, _ order.Grant, _ func(Progress)) Outcome {
		<-ctx.Done()
		return Outcome{}
	}
	m, stop := b.manager()
	m.Submit("p", b.request(order.Command{ID: "p", Type: order.Accept}))
	if st := b.waitFor(m, "p", Failed); !strings.Contains(st.Detail, "boom") {
		t.Errorf("panic: %+v", st)
	}
	m.Submit("s", b.request(order.Command{ID: "s", Type: order.Diagnose}))
	b.waitFor(m, "s", Running)
	stop()
	b.waitFor(m, "s", Interrupted)
	if st := m.Submit("late", b.request(order.Command{ID: "late", Type: order.Accept})); st.Reason != order.ReasonBusy {
		t.Errorf("while stopping: %+v", st)
	}
}

// cutFS fails every operation from the n-th on, as a power cut does.
type cutFS struct {
	durable.FS
	left int
}

var errCut = errors.New("power cut")

func (c *cutFS) spend() error {
	if c.left--; c.left < 0 {
		return errCut
	}
	return nil
}

func (c *cutFS) OpenFile(op, path string, flag int, perm os.FileMode) (durable.File, error) {
	if err := c.spend(); err != nil {
		return nil, err
	}
	return c.FS.OpenFile(op, path, flag, perm)
}

func (c *cutFS) Rename(op, from, to string) error {
	if err := c.spend(); err != nil {
		return err
	}
	return c.FS.Rename(op, from, to)
}

func TestCutAtEveryWriteNeverRunsTwice(t *testing.T) {
	for cut := range 14 {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			b := newBench(t)
			runs := 0
			b.handlers[order.Accept] = func(_ context.Context, _ order.Grant, tell func(Progress)) Outcome {
				runs++
				tell(Progress{Step: "optical", Fraction: 0.5})
				return Outcome{Verdict: "pass"}
			}
			cutting := &cutFS{FS: durable.OS{}, left: 1 << 30}
			store, err := OpenDir(cutting, b.dir)
			if err != nil {
				t.Fatal(err)
			}
			m, err := New(Options{
				Authority: b.authority, Store: store, Handlers: b.handlers, Timeout: time.Second, Now: time.Now,
				Log: slog.New(slog.DiscardHandler), Publish: func(Status) {}, Answer: func(Status) {},
			})
			if err != nil {
				t.Fatal(err)
			}
			cutting.left = cut
			req := b.request(order.Command{ID: "a", Type: order.Accept})
			m.Submit("a", req)
			m.done.Wait()

			again, _ := b.manager()
			st := again.Submit("a", req)
			if st.State == Accepted {
				b.waitFor(again, "a", Succeeded)
			}
			if runs > 1 {
				t.Errorf("ran %d times; last answer %+v", runs, st)
			}
			if got, ok := again.Get("a"); ok && !got.State.Terminal() {
				t.Errorf("left at %s", got.State)
			}
		})
	}
}

func TestDamagedJobFileIsNotRunAgain(t *testing.T) {
	b := newBench(t)
	b.handlers[order.Accept] = func(context.Context, order.Grant, func(Progress)) Outcome {
		t.Error("ran")
		return Outcome{}
	}
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "a.job"), []byte(`{"n":1,"status":{"id":"a"`), 0o600); err != nil {
		t.Fatal(err)
	}
	m, _ := b.manager()
	if st := m.Submit("a", b.request(order.Command{ID: "a", Type: order.Accept})); st.State != Interrupted {
		t.Errorf("answer %+v, want INTERRUPTED", st)
	}
}

func FuzzParseStored(f *testing.F) {
	f.Add([]byte(`{"n":1,"status":{"id":"a","state":"RUNNING","progress":0.5},"at":"2026-03-01T12:00:00Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s := parseStored("a", data); s.Status.ID != "a" {
			t.Fatalf("answers for %q", s.Status.ID)
		}
	})
}
