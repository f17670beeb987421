package inspect

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

const (
	day = 24 * time.Hour

	lookEvery = 30 * time.Second
	// A gateway that has just started has better things to do.
	settle = 15 * time.Minute
	// spread is how far the fleet's inspections of a day lie apart, window how
	// late one may begin on its day.
	spread = 4 * time.Hour
	window = time.Hour
	// late is after how long one that could not be made at its hour is made at
	// any: a gateway may be off every night.
	late = 3 * day
	// maxAttempts is how often one that was cut short is begun.
	maxAttempts = 3
	retry       = time.Hour
	putOff      = 30 * time.Minute // for a job, or flash that takes nothing
	// followUp is how soon one follows that found something; it doubles up to a
	// day.
	followUp = 6 * time.Hour
	// A day of which the clock says nothing counts after so long, so that a
	// gateway that restarts every night gets on all the same.
	dayOpen = 20 * time.Hour
)

// ErrBusy is what an inspection returns that could not be made, or go on, for
// something else that is being done.
var ErrBusy = errors.New("something else is being done")

// Store keeps the log and the schedule.
type Store interface {
	// Load decodes what was saved last into v and has check look at it. It
	// returns false if nothing was saved, or nothing that can be used: that it
	// puts aside, and tells of.
	Load(v any, check func() error) bool
	// Save replaces it, for good.
	Save(v any) error
}

// Options configure a Scheduler. All but FollowUp are needed.
type Options struct {
	Store Store
	// Inspect makes one inspection: verdict, rungs, comparison. It returns soon
	// after ctx ends; an error compatible with ErrBusy if it had to give way.
	Inspect func(ctx context.Context) (Entry, error)
	// Publish tells of an inspection. It returns when that can't be lost.
	Publish func(Entry)
	// Busy reports that a job is running.
	Busy func() bool
	// FollowUp reports that something waits for another inspection; nil: never.
	FollowUp func() bool
	Moment   func() Moment
	// Device spreads the fleet. Days is the time between two inspections, Hour
	// the hour of the day, in UTC, from which they are made.
	Device     string
	Days, Hour int
	// Scheduled: false leaves only those that are commanded.
	Scheduled bool
	Timeout   time.Duration // of one inspection
	Epoch     uint64        // of this start; with a number it makes an id
	Log       *slog.Logger
}

// Scheduler makes inspections in time. It is safe for concurrent use.
type Scheduler struct {
	o Options
	// phase is where in the fleet's schedule this gateway's inspections begin,
	// own where in the fleet it stands otherwise.
	phase time.Duration
	own   uint64

	mu      sync.Mutex // guards what follows
	s       state
	n       int
	notYet  time.Duration // uptime before which nothing is begun
	last    time.Duration // uptime of the last one; since the start if there was none
	counted time.Duration // uptime up to which days without a clock are counted
	follows int
	stop    context.CancelCauseFunc // of the one that runs; nil: none does
	unsaved bool
}

// Open returns a Scheduler that goes on with what is kept, and tells what a
// power cut kept from being told.
func Open(o Options) *Scheduler {
	sum := sha256.Sum256([]byte(o.Device))
	a, b := binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])
	s := &Scheduler{
		o: o, own: binary.BigEndian.Uint64(sum[16:]),
		phase: time.Duration(a%uint64(o.Days))*day + time.Duration(o.Hour)*time.Hour + time.Duration(b%uint64(spread/time.Minute))*time.Minute,
	}
	now := o.Moment().Uptime
	if !o.Store.Load(&s.s, s.s.check) {
		s.s = state{Version: stateVersion}
	}
	s.last, s.counted = now, now
	s.notYet = settle
	if s.s.Attempts > 0 { // cut short: not at once again, for it may be why
		s.notYet = max(settle, now+retry)
	}
	if s.s.Untold > 0 {
		s.tell()
	}
	return s
}

// Serve makes inspections until ctx ends.
func (s *Scheduler) Serve(ctx context.Context) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			s.Look(ctx)
		}
	}
}

// Look makes an inspection if one is due, and returns when it has ended. Serve
// calls it often.
func (s *Scheduler) Look(ctx context.Context) {
	// Never under mu: whoever begins a job holds what Busy takes when it calls
	// Interrupt.
	busy := s.o.Busy()
	s.mu.Lock()
	m := s.o.Moment()
	why := s.due(m)
	if why == "" || m.Uptime < s.notYet || busy {
		s.mu.Unlock()
		return
	}
	if why == WhySchedule && !s.begin(m) {
		s.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s.stop = cancel
	s.mu.Unlock()
	if s.o.Busy() { // a job that began meanwhile found nothing to interrupt
		cancel(ErrBusy)
	}

	limited, stop := context.WithTimeout(ctx, s.o.Timeout)
	e, err := s.o.Inspect(limited)
	stop()

	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop = nil
	cut := context.Cause(ctx)
	cancel(nil)
	switch {
	case errors.Is(err, ErrBusy), cut != nil: // a job, or the daemon stops
		s.o.Log.Info("inspection put off", "why", why)
		s.notYet = s.o.Moment().Uptime + putOff
		if why == WhySchedule {
			s.s.Attempts-- // it had to give way, and is not to blame
			s.save()
		}
		return
	case err != nil:
		e.Verdict, e.Problem = inconclusive, err.Error()
	}
	e.Why, e.Started = why, m.stamp()
	s.end(why, m, e)
}

// inconclusive is the verdict of what came to nothing.
const inconclusive = "inconclusive"

// Interrupt has an inspection give way that the schedule began: a job is about
// to run. It does not wait for it.
func (s *Scheduler) Interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop(ErrBusy)
	}
}

// period returns the begin of the period that t is in.
func (s *Scheduler) period(t time.Time) time.Time {
	length := time.Duration(s.o.Days) * day
	since := t.Sub(time.Unix(0, 0).Add(s.phase)) % length
	if since < 0 {
		since += length
	}
	return t.Add(-since)
}

// due says why an inspection is to be made now, "" if none is. It is where time
// is counted.
func (s *Scheduler) due(m Moment) string {
	if s.o.Scheduled && s.scheduled(m) {
		return WhySchedule
	}
	if s.o.Scheduled && s.o.FollowUp != nil && m.Uptime-s.last >= min(followUp<<min(s.follows, 4), day) && s.o.FollowUp() {
		return WhyFollowUp
	}
	return ""
}

func (s *Scheduler) scheduled(m Moment) bool {
	if m.UTC.IsZero() {
		return s.byDays(m)
	}
	s.counted = m.Uptime
	begin := s.period(m.UTC)
	switch at := begin.Unix(); {
	case !s.s.Dated || at < s.s.Last:
		// The first time a clock is known; or one that was ahead is right now.
		s.s.Last, s.s.Dated = at, true
		s.save()
		return false
	case at == s.s.Last:
		return false
	}
	if s.recently(m) {
		s.s.Last = begin.Unix() // made already, while the clock said otherwise
		s.save()
		return false
	}
	since := m.UTC.Sub(begin)
	return since%day < window || since >= late && m.Uptime >= s.jitter()
}

// recently reports whether the last one of the schedule is not half a period
// old.
func (s *Scheduler) recently(m Moment) bool {
	half := time.Duration(s.o.Days) * day / 2
	for i := len(s.s.Log) - 1; i >= 0; i-- { //nolint:modernize // an iterator costs flash
		e := s.s.Log[i]
		if e.Why != WhySchedule {
			continue
		}
		at := e.Started.time()
		return !at.IsZero() && !at.After(m.UTC) && m.UTC.Sub(at) < half
	}
	return false
}

// byDays counts the days that the gateway has run without a clock.
func (s *Scheduler) byDays(m Moment) bool {
	if !s.s.Begun {
		// Where in the period the fleet's gateways begin differs.
		s.s.Begun, s.s.Days = true, int(s.phase/day)%s.o.Days
		s.save()
	}
	if m.Uptime-s.counted >= dayOpen {
		s.counted = max(s.counted+day, m.Uptime-dayOpen)
		s.s.Days++
		s.save()
	}
	return s.s.Days >= s.o.Days && m.Uptime >= s.jitter()
}

// jitter keeps gateways apart that got power at the same moment.
func (s *Scheduler) jitter() time.Duration {
	return settle + time.Duration(s.own%uint64(6*60))*time.Minute
}

// begin keeps that an inspection is begun, and reports whether it is to be made:
// one that was cut short again and again is given up.
func (s *Scheduler) begin(m Moment) bool {
	if s.s.Attempts >= maxAttempts {
		s.o.Log.Warn("inspection given up, it was cut short too often", "attempts", s.s.Attempts)
		s.end(WhySchedule, m, Entry{
			Why: WhySchedule, Started: m.stamp(), Verdict: inconclusive,
			Problem: "cut short " + strconv.Itoa(s.s.Attempts) + " times",
		})
		return false
	}
	s.s.Attempts++
	if s.save(); s.unsaved {
		// Whoever cuts the power now would see it begin for ever.
		s.s.Attempts--
		s.notYet = m.Uptime + putOff
		return false
	}
	return true
}

// end keeps and tells an inspection.
func (s *Scheduler) end(why string, m Moment, e Entry) {
	s.last = s.o.Moment().Uptime
	s.follows++
	if why == WhySchedule {
		s.follows, s.s.Attempts, s.s.Days = 0, 0, 0
		// The period of the beginning: it may have run over the end.
		if s.s.Dated = !m.UTC.IsZero(); s.s.Dated {
			s.s.Last = s.period(m.UTC).Unix()
		}
	}
	s.enter(e)
}

// Add enters an inspection that was commanded, and has just ended.
func (s *Scheduler) Add(e Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.o.Moment()
	s.last, s.follows = m.Uptime, 0
	took := time.Duration(e.DurationS * float64(time.Second))
	m.Uptime -= took
	if !m.UTC.IsZero() {
		m.UTC = m.UTC.Add(-took)
	}
	e.Why, e.Started = WhyCommand, m.stamp()
	s.enter(e)
}

func (s *Scheduler) enter(e Entry) {
	s.n++
	e.ID = strconv.FormatUint(s.o.Epoch, 10) + "-" + strconv.Itoa(s.n)
	if e.Rungs == nil {
		e.Rungs = []Rung{}
	}
	if e.Compared == nil {
		e.Compared = []Compared{}
	}
	s.s.add(&e, s.o.Moment().UTC)
	// On flash first: a power cut in between tells it again, and never loses it.
	s.save()
	s.tell()
}

// tell tells the inspections that have not been told.
func (s *Scheduler) tell() {
	for _, e := range s.s.Log[len(s.s.Log)-s.s.Untold:] {
		s.o.Publish(*e)
	}
	s.s.Untold = 0
	s.save()
}

func (s *Scheduler) save() {
	err := s.o.Store.Save(&s.s)
	if err != nil && !s.unsaved {
		s.o.Log.Warn("cannot keep inspections", "error", err)
	}
	s.unsaved = err != nil
}

// Log returns the inspections that are kept, oldest first.
func (s *Scheduler) Log() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Entry, 0, len(s.s.Log))
	for _, e := range s.s.Log {
		all = append(all, *e)
	}
	return all
}

// Next returns when the next inspection of the schedule is due, the zero time
// where no clock can be relied on or none is scheduled; and for how many more
// days the gateway has to run without a clock.
func (s *Scheduler) Next() (at time.Time, days int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.o.Moment()
	switch {
	case !s.o.Scheduled:
		return time.Time{}, 0
	case m.UTC.IsZero():
		return time.Time{}, max(s.o.Days-s.s.Days, 0)
	}
	at = s.period(m.UTC)
	if !s.s.Dated || at.Unix() <= s.s.Last {
		at = at.Add(time.Duration(s.o.Days) * day)
	}
	return at, 0
}
