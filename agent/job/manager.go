package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"time"

	"ontagent/agent/order"
)

// Options configure a Manager.
type Options struct {
	Authority Authority
	Store     Store
	// Handlers by command type; close and cancel are the manager's own. A
	// type without a handler is rejected as not supported.
	Handlers map[order.CommandType]Handler
	// Publish is told every change of every granted job, in order. It must not
	// block.
	Publish func(Status)
	// Answer is told what is no change: refusals, challenges, and the stored
	// status of a command that came again. Anybody who has seen a command can
	// cause those, at any rate; whoever needs one lost asks again. It must not
	// block.
	Answer func(Status)
	// Audit returns once an event is on flash; nil keeps no trail. A command
	// whose grant it does not take is refused. An end that it does not take is
	// told again before the next grant, once a minute, and after a restart.
	Audit func(AuditEvent) error
	// Unended reports whether the trail knows that a command was granted, and
	// not that it ended: asked at the start of jobs that have. May be nil.
	Unended func(id string) bool
	// Recorded returns the digest of the record of a job that was cut short, if
	// it has one, or gets one of what it had found; whoever keeps records then
	// sends it. Asked at the start of jobs that are found interrupted. May be
	// nil.
	Recorded func(Status) (sha256 string, ok bool)
	Timeout  time.Duration // of one job
	Now      func() time.Time
	Log      *slog.Logger
}

// Manager runs jobs. Use New.
type Manager struct {
	o Options

	mu       sync.Mutex
	jobs     map[string]Stored
	n        uint64
	running  *run
	stopping bool
	watchers map[string][]chan Status
	owed     []AuditEvent    // ends that the trail has not taken yet, oldest first
	unkept   map[string]bool // ended jobs whose end is not on flash yet
	done     sync.WaitGroup
}

type run struct {
	id, order string
	cancel    context.CancelCauseFunc
}

// keepJobs bounds the table of answers by id.
const keepJobs = 256

var (
	errCancelled = errors.New("cancelled by command")
	errStopping  = errors.New("daemon is stopping")
)

// New loads what was kept and marks what was cut short as interrupted.
func New(o Options) (*Manager, error) {
	stored, err := o.Store.Load()
	if err != nil {
		return nil, fmt.Errorf("cannot load jobs: %w", err)
	}
	m := &Manager{o: o, jobs: map[string]Stored{}, watchers: map[string][]chan Status{}, unkept: map[string]bool{}}
	for _, s := range stored {
		m.n = max(m.n, s.N)
		switch {
		case !s.Status.State.Terminal():
			s.Status.State, s.Status.EtaS = Interrupted, 0
			s.Status.Detail = "the daemon stopped or lost power while the job was under way"
			if o.Recorded != nil {
				if sha, ok := o.Recorded(s.Status); ok {
					s.Status.RecordSHA = sha
					s.Status.Detail += "; its record is closed"
				}
			}
			if err := o.Store.Put(s); err != nil {
				// It would be found so again. Until flash takes writes, nothing
				// is granted anyway.
				o.Log.Warn("cannot mark job as interrupted yet", "job", s.Status.ID, "error", err)
				m.unkept[s.Status.ID] = true
			}
			o.Publish(s.Status)
			m.owe(s)
		case o.Unended != nil && o.Unended(s.Status.ID):
			m.owe(s)
		}
		m.jobs[s.Status.ID] = s
	}
	m.payAudit()
	return m, nil
}

// retryEvery is how long an end that flash did not take waits for the next try.
const retryEvery = time.Minute

// Serve waits for ctx to end, then stops the running job and waits for it.
// Meanwhile it tries again to keep what could not be kept.
func (m *Manager) Serve(ctx context.Context) error {
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-retry.C:
			m.mu.Lock()
			m.keepEnds()
			m.payAudit()
			m.mu.Unlock()
		}
	}
	m.mu.Lock()
	m.stopping = true
	if m.running != nil {
		m.running.cancel(errStopping)
	}
	m.mu.Unlock()
	m.done.Wait()
	return ctx.Err()
}

// Submit judges an encoded request and starts what it asks for. id is the
// command id the request was addressed by (the topic's), or empty. It returns
// the first answer: REJECTED, CHALLENGE, ACCEPTED or, for an id seen before,
// the stored status.
func (m *Manager) Submit(id string, raw []byte) Status {
	m.mu.Lock()
	defer m.mu.Unlock()

	req, err := order.ParseRequest(raw)
	if err != nil {
		return m.refuseUnsigned(id, parseRefusal(err))
	}
	v, err := m.o.Authority.Verify(req)
	if err != nil {
		return m.refuseUnsigned(id, err)
	}
	cmd := v.Command
	if id != "" && id != cmd.ID {
		return m.refuseUnsigned(id, &order.RefusalError{Reason: order.ReasonMalformed, Detail: "the topic names another command id"})
	}
	st := Status{ID: cmd.ID, Order: cmd.Order, CommandType: cmd.Type}
	if old, seen := m.jobs[cmd.ID]; seen {
		if t := old.Status.CommandType; t != "" && (t != cmd.Type || old.Status.Order != cmd.Order) {
			return m.refuseUnsigned(id, &order.RefusalError{Reason: order.ReasonMalformed, Detail: "another command had this id"})
		}
		return m.answer(old.Status)
	}
	handler := m.o.Handlers[cmd.Type]
	inline := cmd.Type == order.Cancel || cmd.Type == order.Close
	switch {
	case m.stopping:
		return m.answer(rejected(st, &order.RefusalError{Reason: order.ReasonBusy, Detail: "the daemon is stopping"}))
	case !inline && handler == nil:
		return m.answer(rejected(st, &order.RefusalError{
			Reason: order.ReasonNotSupported, Detail: fmt.Sprintf("this agent cannot %s yet", cmd.Type),
		}))
	case !inline && m.running != nil:
		return m.answer(rejected(st, &order.RefusalError{Reason: order.ReasonBusy, Detail: "job " + m.running.id + " is running"}))
	}
	job := Stored{N: m.n + 1, Status: st, By: origin(v)}
	job.Status.State = Received
	begun := false
	grant, err := m.o.Authority.Admit(v, func() error {
		// From here on a power cut leaves a job that is found interrupted,
		// whether or not anything was used up.
		err := m.keep(&job)
		begun = err == nil
		return err
	})
	if challenge := (*order.ChallengeError)(nil); errors.As(err, &challenge) {
		st.State, st.Nonce = Challenge, challenge.Nonce
		return m.answer(st)
	}
	switch {
	case err != nil && !begun:
		return m.answer(rejected(st, err))
	case err != nil:
		m.conclude(&job, rejected(job.Status, err))
		return job.Status
	}
	job.Status.State = Accepted
	if err := m.auditGrant(job); err != nil {
		m.conclude(&job, rejected(job.Status, err))
		return job.Status
	}
	if err := m.keep(&job); err != nil {
		return m.end(&job, rejected(job.Status, err))
	}
	if inline {
		return m.runInline(&job, grant)
	}
	accepted := job.Status
	m.start(job, grant, handler)
	return accepted
}

// refuseUnsigned answers what nobody is known to have sent. Where id is a job's,
// whoever follows that job must not take this for its end.
func (m *Manager) refuseUnsigned(id string, err error) Status {
	st := rejected(Status{ID: id}, err)
	if _, known := m.jobs[id]; known {
		return st
	}
	return m.answer(st)
}

func (m *Manager) answer(st Status) Status {
	m.o.Answer(st)
	return st
}

func (m *Manager) runInline(job *Stored, g order.Grant) Status {
	st := job.Status
	st.State, st.Progress = Succeeded, 1
	switch g.Command.Type {
	case order.Close:
		if err := m.o.Authority.CloseOrder(g.Order.Order); err != nil {
			st.State, st.Detail = Failed, err.Error()
		}
	case order.Cancel:
		target := g.Command.Args.Target
		if m.running == nil || m.running.id != target || m.running.order != g.Order.Order {
			st.State, st.Detail = Failed, fmt.Sprintf("no job %s of order %s is running", target, g.Order.Order)
			break
		}
		m.running.cancel(errCancelled)
	default:
		st.State, st.Detail = Failed, "not an inline command"
	}
	return m.end(job, st)
}

// start runs handler in its own goroutine; Serve waits for it.
func (m *Manager) start(job Stored, g order.Grant, handler Handler) {
	ctx, cancel := context.WithCancelCause(context.Background())
	m.running = &run{id: job.Status.ID, order: job.Status.Order, cancel: cancel}
	m.done.Go(func() {
		defer cancel(nil)
		ctx, stop := context.WithTimeout(ctx, m.o.Timeout)
		defer stop()
		m.execute(ctx, &job, g, handler)
	})
}

func (m *Manager) execute(ctx context.Context, job *Stored, g order.Grant, handler Handler) {
	m.mu.Lock()
	job.Status.State = Running
	err := m.keep(job)
	m.mu.Unlock()

	var out Outcome
	if err != nil {
		out.Err = err
	} else {
		out = m.guard(ctx, g, handler, func(p Progress) {
			m.mu.Lock()
			defer m.mu.Unlock()
			job.Status.Step, job.Status.StepVerdict = p.Step, p.StepVerdict
			job.Status.StepReason, job.Status.StepCause = p.StepReason, p.StepCause
			job.Status.Progress, job.Status.EtaS = p.Fraction, p.EtaS
			if p.StepVerdict != "" {
				// How a step ended is told; on flash the beginning of the next
				// says as much.
				m.jobs[job.Status.ID] = *job
				m.tell(job.Status)
				return
			}
			if err := m.keep(job); err != nil {
				m.o.Log.Warn("cannot keep job progress", "job", job.Status.ID, "error", err)
			}
		})
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = nil
	st := job.Status
	st.Step, st.StepVerdict, st.StepReason, st.StepCause, st.EtaS = "", "", "", "", 0
	st.Verdict, st.FirstCause, st.RecordSHA, st.Summary = out.Verdict, out.FirstCause, out.RecordSHA, out.Summary
	st.Recent = out.Recent
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errCancelled):
		st.State = Cancelled
	case errors.Is(cause, errStopping):
		st.State = Interrupted
	case errors.Is(cause, context.DeadlineExceeded):
		st.State = TimedOut
	case out.Err != nil:
		st.State, st.Detail = Failed, out.Err.Error()
	default:
		st.State, st.Progress = Succeeded, 1
	}
	m.end(job, st)
}

// guard turns a handler's panic into a failed job.
func (m *Manager) guard(ctx context.Context, g order.Grant, handler Handler, tell func(Progress)) (out Outcome) {
	defer func() {
		if p := recover(); p != nil {
			m.o.Log.Error("job panicked", "job", g.Command.ID, "panic", p)
			out = Outcome{Err: fmt.Errorf("internal error: %v", p)}
		}
	}()
	return handler(ctx, g, tell)
}

// end keeps, tells and audits how a job ended.
func (m *Manager) end(job *Stored, st Status) Status {
	m.conclude(job, st)
	m.owe(*job)
	m.payAudit()
	return st
}

// conclude keeps and tells a job's last status. The job has happened, so a store
// that fails now is logged and tried again, not reported as the job's end.
func (m *Manager) conclude(job *Stored, st Status) {
	job.Status = st
	if err := m.keep(job); err != nil {
		m.o.Log.Error("cannot keep end of job", "job", st.ID, "state", st.State, "error", err)
		m.jobs[st.ID] = *job
		m.unkept[st.ID] = true
		m.forgetOldest()
		m.tell(st)
	}
}

// keepEnds tries again to keep the ends that the store did not take.
func (m *Manager) keepEnds() {
	for id := range m.unkept {
		if job, ok := m.jobs[id]; ok && m.o.Store.Put(job) != nil {
			continue
		}
		delete(m.unkept, id)
	}
}

// keep makes a job durable, then tells it.
func (m *Manager) keep(job *Stored) error {
	job.At = m.o.Now()
	err := m.o.Store.Put(*job)
	if errors.Is(err, syscall.ENOSPC) && m.forget(roomFor) > 0 {
		// Old answers are worth less than what happens now.
		err = m.o.Store.Put(*job)
	}
	if err != nil {
		return &order.RefusalError{Reason: order.ReasonInternal, Detail: fmt.Sprintf("cannot keep job state: %v", err)}
	}
	m.n = max(m.n, job.N)
	m.jobs[job.Status.ID] = *job
	m.forgetOldest()
	m.tell(job.Status)
	return nil
}

// roomFor is how many old answers make room for one job on a full disk.
const roomFor = 8

func (m *Manager) forgetOldest() {
	if over := len(m.jobs) - keepJobs; over > 0 {
		m.forget(over)
	}
}

// forget forgets up to n ended jobs, the oldest first, and returns how many.
func (m *Manager) forget(n int) int {
	for done := range n {
		oldest, found := "", false
		for id, s := range m.jobs {
			if s.Status.State.Terminal() && (!found || s.N < m.jobs[oldest].N) {
				oldest, found = id, true
			}
		}
		if !found {
			return done
		}
		if err := m.o.Store.Forget(oldest); err != nil {
			m.o.Log.Warn("cannot forget old job", "job", oldest, "error", err)
			return done
		}
		delete(m.jobs, oldest)
		delete(m.unkept, oldest)
	}
	return n
}

func (m *Manager) tell(st Status) {
	m.o.Publish(st)
	for _, ch := range m.watchers[st.ID] {
		select {
		case ch <- st:
		default: // a watcher that lags misses progress, never the end: see Watch
		}
	}
}

// Watch returns the changes of a job from now on. The channel is never closed;
// stop ends it. A slow reader misses progress and reads the end by Get.
func (m *Manager) Watch(id string) (changes <-chan Status, stop func()) {
	ch := make(chan Status, 64)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchers[id] = append(m.watchers[id], ch)
	return ch, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		rest := m.watchers[id][:0]
		for _, c := range m.watchers[id] {
			if c != ch {
				rest = append(rest, c)
			}
		}
		if len(rest) == 0 {
			delete(m.watchers, id)
			return
		}
		m.watchers[id] = rest
	}
}

// Get returns the status of a job by id.
func (m *Manager) Get(id string) (Status, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.jobs[id]
	return s.Status, ok
}

// Running returns the job under way.
func (m *Manager) Running() (Status, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running == nil {
		return Status{}, false
	}
	return m.jobs[m.running.id].Status, true
}

func rejected(st Status, err error) Status {
	st.State = Rejected
	st.Reason, st.Detail = order.ReasonInternal, err.Error()
	if refusal := (*order.RefusalError)(nil); errors.As(err, &refusal) {
		st.Reason, st.Detail = refusal.Reason, refusal.Detail
	}
	if len(st.Detail) > maxDetail {
		st.Detail = strings.ToValidUTF8(st.Detail[:maxDetail], "") + "…"
	}
	return st
}

// maxDetail bounds what a refusal quotes of the request, in bytes: whoever may
// only send must not choose how much is answered.
const maxDetail = 512

func parseRefusal(err error) error {
	reason := order.ReasonMalformed
	switch {
	case errors.Is(err, order.ErrUnsigned):
		reason = order.ReasonUnsigned
	case errors.Is(err, order.ErrTooLarge):
		reason = order.ReasonTooLarge
	}
	return &order.RefusalError{Reason: reason, Detail: err.Error()}
}
