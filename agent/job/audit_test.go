package job

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ontagent/agent/order"
	"ontagent/transport/durable"
	"ontagent/transport/durable/faultfs"
)

// trail is an audit trail as the manager sees it: lines in a file.
type trail struct {
	t    *testing.T
	disk durable.FS
	log  *durable.Log
}

const trailPath = "/trail"

func (a *trail) Audit(e AuditEvent) error {
	var err error
	if a.log == nil {
		if a.log, err = durable.OpenLog(a.disk, "trail", trailPath, 0o600); err != nil {
			return err
		}
		data, err := durable.ReadFile(a.disk, "trail.read", trailPath, 1<<20)
		if err == nil { // what a power cut left of a line
			err = a.log.Truncate(int64(bytes.LastIndexByte(data, '\n') + 1))
		}
		if err != nil {
			a.log = nil
			return err
		}
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err = a.log.Append(append(line, '\n')); err != nil {
		a.log = nil
	}
	return err
}

func (a *trail) events() []AuditEvent {
	data, err := durable.ReadFile(a.disk, "trail.read", trailPath, 1<<20)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.t.Fatal(err)
	}
	var all []AuditEvent
	for line := range bytes.Lines(data) {
		var e AuditEvent
		if json.Unmarshal(line, &e) == nil { // a torn one is none
			all = append(all, e)
		}
	}
	return all
}

// of returns the states told of a job.
func (a *trail) of(id string) []State {
	var states []State
	for _, e := range a.events() {
		if e.Status.ID == id {
			states = append(states, e.Status.State)
		}
	}
	return states
}

func (a *trail) Unended(id string) bool {
	states := a.of(id)
	return len(states) > 0 && states[len(states)-1] == Accepted
}

// audited is a life on a simulated disk with a trail.
func (m *machine) audited(handler Handler) (*Manager, *trail, error) {
	authority, err := order.OpenAuthority(order.Options{
		Root: testPublic, Tenant: "lab", Device: device, Store: diskFile{m.disk},
		Clock: goodClock{}, X25519: m.box, Monotonic: time.Now,
	})
	if err != nil {
		return nil, nil, err
	}
	store, err := OpenDir(m.disk, "/state/jobs")
	if err != nil {
		return nil, nil, err
	}
	a := &trail{t: m.t, disk: m.disk}
	man, err := New(Options{
		Authority: authority, Store: store, Timeout: time.Minute, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Publish: func(Status) {}, Answer: func(Status) {}, Audit: a.Audit, Unended: a.Unended,
		Handlers: map[order.CommandType]Handler{order.Accept: handler},
	})
	return man, a, err
}

func TestGrantAndEndAreAudited(t *testing.T) {
	m := newMachine(t, faultfs.Ext4, 1)
	var a *trail
	man, a, err := m.audited(func(context.Context, order.Grant, func(Progress)) Outcome {
		if got := a.of("a"); !slices.Equal(got, []State{Accepted}) {
			t.Errorf("it runs, and the trail says %v", got)
		}
		return Outcome{Verdict: "fail", RecordSHA: "abc"}
	})
	if err != nil {
		t.Fatal(err)
	}
	req := signed(t, "a", 1, order.Accept)
	submit(man, "a", req)
	submit(man, "a", req)                                      // answered from the table
	submit(man, "x", signed(t, "x", 1, order.Accept))          // replayed
	submit(man, "", []byte("{}"))                              // nothing
	closed := submit(man, "c", signed(t, "c", 2, order.Close)) // inline
	if closed.State != Succeeded {
		t.Fatalf("close: %+v", closed)
	}
	events := a.events()
	if len(events) != 4 {
		t.Fatalf("%d events: %+v", len(events), events)
	}
	parsed, err := order.ParseRequest(req)
	if err != nil {
		t.Fatal(err)
	}
	want := Origin{
		KeyID: order.KeyID(testPublic), Technician: "T-7", Rev: 1, CommandSHA256: order.Digest(*parsed.Command),
	}
	for i, e := range events[:2] {
		if e.By != want || e.Status.ID != "a" || e.Status.Order != "WO-1" || e.Status.CommandType != order.Accept {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if end := events[1].Status; end.State != Succeeded || end.Verdict != "fail" || end.RecordSHA != "abc" {
		t.Errorf("end: %+v", end)
	}
	if got := a.of("c"); !slices.Equal(got, []State{Accepted, Succeeded}) {
		t.Errorf("close: %v", got)
	}
}

func TestWhatTheTrailDoesNotTakeIsNotDone(t *testing.T) {
	m := newMachine(t, faultfs.Ext4, 1)
	ran := 0
	work := func(context.Context, order.Grant, func(Progress)) Outcome {
		ran++
		return Outcome{Verdict: "pass"}
	}
	man, _, err := m.audited(work)
	if err != nil {
		t.Fatal(err)
	}
	m.disk.Inject(faultfs.Fault{Op: "trail", Forever: true, Err: syscall.ENOSPC})
	st := submit(man, "a", signed(t, "a", 1, order.Accept))
	if st.State != Rejected || st.Reason != order.ReasonInternal || ran != 0 {
		t.Errorf("grant that could not be written: %+v, ran %d times", st, ran)
	}
	m.disk.Heal()
	if st := submit(man, "a", signed(t, "a", 1, order.Accept)); st.State != Rejected {
		t.Errorf("the same again: %+v", st)
	}

	// The grant is written, the end is not: neither in this life nor by the next
	// grant is anything done before it is.
	b := signed(t, "b", 2, order.Accept)
	man, a, err := m.audited(func(ctx context.Context, g order.Grant, tell func(Progress)) Outcome {
		if g.Command.ID == "b" {
			m.disk.Inject(faultfs.Fault{Op: "trail", Forever: true, Err: syscall.ENOSPC})
		}
		return work(ctx, g, tell)
	})
	if err != nil {
		t.Fatal(err)
	}
	if st := submit(man, "b", b); st.State != Succeeded || !a.Unended("b") {
		t.Fatalf("b: %+v, trail %v", st, a.of("b"))
	}
	if st := submit(man, "c", signed(t, "c", 3, order.Accept)); st.State != Rejected || ran != 1 {
		t.Errorf("grant after an unwritten end: %+v", st)
	}
	m.disk.Heal()
	if st := submit(man, "d", signed(t, "d", 4, order.Accept)); st.State != Succeeded || ran != 2 {
		t.Errorf("grant after the trouble: %+v", st)
	}
	if got := a.of("b"); !slices.Equal(got, []State{Accepted, Succeeded}) {
		t.Errorf("b: %v", got)
	}
	var order []string
	for _, e := range a.events() {
		order = append(order, fmt.Sprintf("%s %s", e.Status.ID, e.Status.State))
	}
	if want := []string{"b ACCEPTED", "b SUCCEEDED", "d ACCEPTED", "d SUCCEEDED"}; !slices.Equal(order, want) {
		t.Errorf("trail %v, want %v", order, want)
	}
}

// TestUnwrittenEndsAreTriedAgain: by the minute, without another command.
func TestUnwrittenEndsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, faultfs.Ext4, 1)
		man, a, err := m.audited(func(context.Context, order.Grant, func(Progress)) Outcome {
			m.disk.Inject(faultfs.Fault{Forever: true, Err: syscall.ENOSPC})
			return Outcome{Verdict: "pass"}
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = man.Serve(ctx)
		}()
		submit(man, "a", signed(t, "a", 1, order.Accept))
		time.Sleep(2 * retryEvery) // full all the while
		m.disk.Heal()
		if !a.Unended("a") {
			t.Fatal("the end is on a full disk")
		}
		time.Sleep(2 * retryEvery)
		if got := a.of("a"); !slices.Equal(got, []State{Accepted, Succeeded}) {
			t.Errorf("trail %v", got)
		}
		cancel()
		<-served
		m.disk.Cut()
		m.disk.PowerOn()
		again, _, err := m.audited(nil)
		if err != nil {
			t.Fatal(err)
		}
		if st, _ := again.Get("a"); st.State != Succeeded || st.Verdict != "pass" {
			t.Errorf("after a power cut: %+v", st)
		}
	})
}

// TestPowerCutLeavesNoGrantOpen: at every operation; what ran was on the trail
// before, and after the next start every grant has one end.
func TestPowerCutLeavesNoGrantOpen(t *testing.T) {
	req := signed(t, "a", 1, order.Accept)
	step, lateEnds := 1, 0
	if testing.Short() {
		step = 5
	}
	for cut := 0; ; cut += step {
		m := newMachine(t, faultfs.Ext4, uint64(cut))
		if err := durable.MkdirAll(m.disk, "test", "/state", 0o700); err != nil {
			t.Fatal(err)
		}
		m.disk.CutIn(cut)
		ran := false
		man, _, err := m.audited(func(context.Context, order.Grant, func(Progress)) Outcome {
			ran = !m.disk.IsCut()
			return Outcome{Verdict: "pass"}
		})
		if err == nil {
			submit(man, "a", req)
		}
		done := !m.disk.IsCut()
		m.disk.PowerOn()
		if before := (&trail{t: t, disk: m.disk}).of("a"); ran && !slices.Contains(before, Accepted) {
			t.Fatalf("cut %d: it ran, and the trail says %v", cut, before)
		}
		if (&trail{t: t, disk: m.disk}).Unended("a") {
			lateEnds++
		}
		for range 2 {
			_, a, err := m.audited(nil)
			if err != nil {
				t.Fatal(err)
			}
			states := a.of("a")
			ends := slices.DeleteFunc(slices.Clone(states), func(s State) bool { return !s.Terminal() })
			if granted := slices.Contains(states, Accepted); granted && len(ends) != 1 || len(ends) > 1 {
				t.Fatalf("cut %d: the trail says %v", cut, states)
			}
		}
		if done {
			break
		}
	}
	if lateEnds == 0 {
		t.Error("no cut came between a grant and its end: the test tests nothing")
	}
}

// TestRecordOfAnInterruptedJobIsFound: it was closed, then the power went.
func TestRecordOfAnInterruptedJobIsFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "jobs")
	store, err := OpenDir(durable.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"with", "without"} {
		if err := store.Put(Stored{N: 1, Status: Status{ID: id, Order: "WO-1", State: Running}}); err != nil {
			t.Fatal(err)
		}
	}
	m, err := New(Options{
		Store: store, Publish: func(Status) {}, Log: slog.New(slog.DiscardHandler),
		Recorded: func(st Status) (string, bool) { return "abc", st.ID == "with" && st.Order == "WO-1" },
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"with": "abc", "without": ""} {
		if st, _ := m.Get(id); st.State != Interrupted || st.RecordSHA != want {
			t.Errorf("%s: %+v", id, st)
		}
	}
}

// TestOldAnswersMakeRoomOnAFullDisk: for a command that was granted, not for one
// that is refused.
func TestOldAnswersMakeRoomOnAFullDisk(t *testing.T) {
	m := newMachine(t, faultfs.Ext4, 1)
	man, err := m.start()
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(20) {
		id := fmt.Sprintf("old-%d", i)
		if st := submit(man, id, signed(t, id, i+1, order.Accept)); st.State != Succeeded {
			t.Fatalf("%s: %+v", id, st)
		}
	}
	m.disk.SetCapacity(m.disk.Used())
	if st := submit(man, "new", signed(t, "new", 21, order.Accept)); st.State != Succeeded {
		t.Errorf("on a full disk: %+v", st)
	}
	if _, known := man.Get("old-0"); known {
		t.Error("the oldest answer is still kept")
	}
	if _, known := man.Get("old-19"); !known {
		t.Error("the newest old answer is gone")
	}
	m.disk.Cut()
	m.disk.PowerOn()
	if st, _ := m.must().Get("new"); st.State != Succeeded {
		t.Errorf("after a power cut: %+v", st)
	}
}
