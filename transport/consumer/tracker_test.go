package consumer

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/transport"
)

const device = "HWTC12345678"

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func header(class transport.Class, epoch, seq uint64) transport.Header {
	return transport.Header{V: 1, Device: device, Epoch: epoch, Class: class, Seq: seq, Clock: transport.ClockNone}
}

// script observes numbers of class event, and gaps told in them.
type script struct {
	t *testing.T
	*Tracker
	at time.Time
}

func newScript(t *testing.T, o Options) *script {
	t.Helper()
	return &script{t, NewTracker(device, o), start}
}

// warm gets over the time in which every epoch counts as older than us, with
// an epoch of its own.
func (s *script) warm() *script {
	for i := range 4 {
		s.at = s.at.Add(heardWithin - time.Second)
		s.Observe(s.at, header(transport.ClassSession, 0, uint64(i)+1), transport.KindState, "", nil)
	}
	return s
}

func (s *script) see(class transport.Class, epoch uint64, seqs ...uint64) (last Outcome) {
	for _, seq := range seqs {
		last = s.Observe(s.at, header(class, epoch, seq), transport.KindStatus, "x", nil)
	}
	return last
}

func (s *script) gap(epoch, seq uint64, g transport.Gap) Outcome {
	s.t.Helper()
	body, err := json.Marshal(g)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.Observe(s.at, header(transport.ClassEvent, epoch, seq), transport.KindEvent, transport.EventGap, body)
}

// points is up to where records and events are accounted for, in short. Of the
// events it is the checkpoint.
func (s *script) points() map[string]uint64 {
	s.t.Helper()
	m := map[string]uint64{}
	for _, p := range s.Checkpoint() {
		m[fmt.Sprintf("%s %d", p.Class, p.Epoch)] = p.Seq
	}
	for _, e := range s.epochs {
		for _, class := range []transport.Class{transport.ClassRecord, transport.ClassEvent} {
			seq := e.sets[index(class)].accounted()
			key := fmt.Sprintf("%s %d", class, e.number)
			switch {
			case class == transport.ClassRecord && seq > 0:
				m[key] = seq
			case class == transport.ClassEvent && seq > 0:
				if m[key] != seq {
					s.t.Errorf("%s: acknowledged up to %d, accounted for up to %d", key, m[key], seq)
				}
			}
		}
	}
	return m
}

func (s *script) want(points map[string]uint64, missing ...Hole) {
	s.t.Helper()
	if diff := cmp.Diff(points, s.points()); diff != "" {
		s.t.Errorf("checkpoint (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(missing, s.Missing(100)); diff != "" {
		s.t.Errorf("missing (-want +got):\n%s", diff)
	}
}

func TestNumbersAreAccountedFor(t *testing.T) {
	s := newScript(t, Options{}).warm()
	if o := s.see(transport.ClassRecord, 7, 1, 2, 3); o.Verdict != New || o.Opened != nil {
		t.Errorf("%+v", o)
	}
	if o := s.see(transport.ClassRecord, 7, 2); o.Verdict != Duplicate {
		t.Errorf("%+v", o)
	}
	o := s.see(transport.ClassRecord, 7, 8)
	if o.Opened == nil || *o.Opened != (Hole{transport.ClassRecord, 7, 4, 7}) {
		t.Errorf("%+v", o)
	}
	s.want(map[string]uint64{"record 7": 3}, Hole{transport.ClassRecord, 7, 4, 7})
	if o := s.see(transport.ClassRecord, 7, 5); !o.Filled || o.Verdict != New {
		t.Errorf("%+v", o)
	}
	s.want(map[string]uint64{"record 7": 3}, Hole{transport.ClassRecord, 7, 4, 4}, Hole{transport.ClassRecord, 7, 6, 7})

	// A new epoch closes nothing; a gap event does, and counts itself.
	s.see(transport.ClassRecord, 8, 1)
	if o := s.gap(8, 1, transport.Gap{Class: transport.ClassRecord, Epoch: 7, FromSeq: 4, ToSeq: 7, Count: 3, Reason: transport.GapDiskFull}); o.Gap == nil {
		t.Errorf("%+v", o)
	}
	s.want(map[string]uint64{"record 7": 8, "record 8": 1, "event 8": 1})
	// What was told and comes all the same is no duplicate.
	if o := s.see(transport.ClassRecord, 7, 6); o.Verdict != New || o.Filled {
		t.Errorf("%+v", o)
	}
	if o := s.see(transport.ClassRecord, 7, 6); o.Verdict != Duplicate {
		t.Errorf("%+v", o)
	}
	got := s.Accounts()
	want := []Account{
		{Class: transport.ClassRecord, Epoch: 7, Highest: 8, Received: 6, Duplicates: 2, Dropped: 2},
		{Class: transport.ClassRecord, Epoch: 8, Highest: 1, Received: 1},
		{Class: transport.ClassEvent, Epoch: 8, Highest: 1, Received: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRestartGapsAreOpen(t *testing.T) {
	s := newScript(t, Options{}).warm()
	s.see(transport.ClassTelemetry, 3, 1, 2, 5)
	s.see(transport.ClassRecord, 3, 1, 2, 5)
	restart := transport.Gap{Class: transport.ClassTelemetry, Epoch: 3, FromSeq: 3, Reason: transport.GapRestart}
	s.gap(4, 1, restart)
	restart.Class, restart.FromSeq = transport.ClassRecord, 6
	s.gap(4, 2, restart)
	s.want(map[string]uint64{"record 3": 2, "event 4": 2}, Hole{transport.ClassRecord, 3, 3, 4})
	s.see(transport.ClassRecord, 3, 3, 4)
	s.want(map[string]uint64{"record 3": 5, "event 4": 2})

	// Epochs that nobody has heard of yet are told as well.
	s.gap(9, 1, transport.Gap{Class: transport.ClassRecord, FromEpoch: 5, Epoch: 8, FromSeq: 3, Reason: transport.GapRestart})
	if o := s.see(transport.ClassRecord, 6, 4); o.Verdict != New || o.Opened != nil {
		t.Errorf("%+v", o)
	}
	s.see(transport.ClassRecord, 8, 2)
	s.want(map[string]uint64{"record 3": 5, "event 4": 2, "record 6": 4, "event 9": 1}, Hole{transport.ClassRecord, 8, 1, 1})
	s.see(transport.ClassRecord, 8, 1)
	s.want(map[string]uint64{"record 3": 5, "event 4": 2, "record 6": 4, "record 8": 2, "event 9": 1})
}

func TestGapsThatMakeNoSenseAreIgnored(t *testing.T) {
	for name, g := range map[string]transport.Gap{
		"class":         {Class: "session", Epoch: 1, FromSeq: 1, ToSeq: 2, Reason: transport.GapClassFull},
		"epoch":         {Class: "record", FromSeq: 1, ToSeq: 2, Reason: transport.GapClassFull},
		"future":        {Class: "record", Epoch: 3, FromSeq: 1, ToSeq: 2, Reason: transport.GapClassFull},
		"from":          {Class: "record", Epoch: 2, ToSeq: 2, Reason: transport.GapClassFull},
		"backwards":     {Class: "record", Epoch: 2, FromSeq: 3, ToSeq: 2, Reason: transport.GapClassFull},
		"open":          {Class: "record", Epoch: 1, FromSeq: 3, Reason: transport.GapClassFull},
		"open and now":  {Class: "record", Epoch: 2, FromSeq: 3, Reason: transport.GapRestart},
		"epochs":        {Class: "record", FromEpoch: 2, Epoch: 1, FromSeq: 3, ToSeq: 3, Reason: transport.GapRestart},
		"leap":          {Class: "record", Epoch: 2, FromSeq: 3, ToSeq: 1 << 40, Reason: transport.GapClassFull},
		"everything":    {Class: "record", Epoch: 2, FromSeq: 1, ToSeq: math.MaxUint64, Reason: transport.GapClassFull},
		"open and leap": {Class: "record", Epoch: 1, FromSeq: 1 << 50, Reason: transport.GapRestart},
	} {
		s := newScript(t, Options{}).warm()
		s.see(transport.ClassRecord, 1, 1, 5)
		s.see(transport.ClassRecord, 2, 1, 5)
		o := s.gap(2, 1, g)
		if o.Verdict != New || o.Ignored == "" || o.Gap != nil {
			t.Errorf("%s: %+v", name, o)
		}
		s.want(map[string]uint64{"record 1": 1, "record 2": 1, "event 2": 1},
			Hole{transport.ClassRecord, 1, 2, 4}, Hole{transport.ClassRecord, 2, 2, 4})
	}
}

// TestForgedGapReleasesNothingUnseen: a gap cannot push a checkpoint above what
// was received.
func TestForgedGapReleasesNothingUnseen(t *testing.T) {
	s := newScript(t, Options{}).warm()
	s.see(transport.ClassRecord, 2, 1, 2)
	s.gap(2, 1, transport.Gap{Class: transport.ClassRecord, Epoch: 2, FromSeq: 3, ToSeq: 1000, Count: 998, Reason: transport.GapClassFull})
	s.want(map[string]uint64{"record 2": 2, "event 2": 1})
}

func TestColdStartWaitsForWhatIsOlder(t *testing.T) {
	grace := 2 * time.Hour
	s := newScript(t, Options{Grace: grace})
	live := func(for_ time.Duration) {
		for end := s.at.Add(for_); s.at.Before(end); {
			s.at = s.at.Add(5 * time.Minute)
			s.see(transport.ClassSession, 20, 1)
		}
	}
	s.see(transport.ClassEvent, 20, 812, 813, 815)
	s.see(transport.ClassEvent, 19, 40)
	s.want(map[string]uint64{}, Hole{transport.ClassEvent, 20, 814, 814})
	live(time.Hour)
	// The gateway sends again what nobody has acknowledged.
	if o := s.see(transport.ClassEvent, 20, 700); o.Verdict != New {
		t.Errorf("%+v", o)
	}
	if got := s.Totals(); got.Before != 811-1+39 || got.Missing != 1 {
		t.Errorf("%+v", got)
	}
	// While it is away, no time passes.
	s.at = s.at.Add(100 * time.Hour)
	live(grace - 10*time.Minute)
	s.want(map[string]uint64{"event 19": 40}, Hole{transport.ClassEvent, 20, 814, 814})
	live(15 * time.Minute)
	s.want(map[string]uint64{"event 19": 40, "event 20": 813}, Hole{transport.ClassEvent, 20, 814, 814})
	// After that nobody knows.
	if o := s.see(transport.ClassEvent, 20, 600); o.Verdict != Late {
		t.Errorf("%+v", o)
	}
	if o := s.see(transport.ClassEvent, 20, 812); o.Verdict != Duplicate {
		t.Errorf("%+v", o)
	}

	// An epoch that begins later is expected from its first number on.
	s.see(transport.ClassEvent, 21, 3)
	s.want(map[string]uint64{"event 19": 40, "event 20": 813}, Hole{transport.ClassEvent, 20, 814, 814}, Hole{transport.ClassEvent, 21, 1, 2})
}

func TestColdStartIsOverWhereTheBeginningIsKnown(t *testing.T) {
	s := newScript(t, Options{Grace: -1})
	s.see(transport.ClassEvent, 20, 3)
	s.want(map[string]uint64{})
	s.see(transport.ClassEvent, 20, 1)
	s.want(map[string]uint64{"event 20": 1})
	s.gap(20, 4, transport.Gap{Class: transport.ClassEvent, Epoch: 20, FromSeq: 2, ToSeq: 2, Count: 1, Reason: transport.GapClassFull})
	s.want(map[string]uint64{"event 20": 4})
	s.see(transport.ClassRecord, 20, 1)
	s.want(map[string]uint64{"event 20": 4, "record 20": 1})
	if got := s.Totals(); got.Before != 0 {
		t.Errorf("%+v", got)
	}
}

func TestLeapsAreBounded(t *testing.T) {
	s := newScript(t, Options{}).warm()
	s.see(transport.ClassRecord, 5, 1, 2)
	for _, h := range []transport.Header{
		header(transport.ClassRecord, 5, math.MaxUint64),
		header(transport.ClassRecord, 5, 1<<40),
		header(transport.ClassRecord, 5+1<<17, 1),
		header(transport.ClassRecord, math.MaxUint64, 1),
		{V: 1, Device: "OTHER12345678", Epoch: 5, Class: transport.ClassRecord, Seq: 3},
	} {
		if o := s.Observe(s.at, h, transport.KindStatus, "x", nil); o.Verdict != Implausible {
			t.Errorf("%+v: %+v", h, o)
		}
	}
	s.want(map[string]uint64{"record 5": 2})
	if o := s.see(transport.ClassRecord, 6, 3); o.Verdict != New {
		t.Errorf("%+v", o)
	}
}

func TestSessionIsNotTracked(t *testing.T) {
	s := newScript(t, Options{}).warm()
	if o := s.see(transport.ClassSession, 5, 1, 9, 1<<60, 1); o.Verdict != Untracked || o.Opened != nil {
		t.Errorf("%+v", o)
	}
	s.see(transport.ClassDebug, 5, 1, 9)
	s.want(map[string]uint64{}, Hole{transport.ClassDebug, 5, 2, 8})
	if got := s.Totals(); got != (Totals{}) {
		t.Errorf("%+v", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const ranges, epochs = 64, 8
	s := newScript(t, Options{Ranges: ranges, Epochs: epochs, Digests: 8, Waiting: 16}).warm()
	random := rand.New(rand.NewPCG(1, 2))
	all := classes()
	given := uint64(0)
	for i := range 20000 {
		var o Outcome
		if i%7 == 0 {
			from := random.Uint64N(1 << 20)
			o = s.gap(random.Uint64N(30), random.Uint64N(1<<22), transport.Gap{
				Class: all[random.IntN(4)], FromEpoch: random.Uint64N(3) * random.Uint64N(20), Epoch: random.Uint64N(30),
				FromSeq: from, ToSeq: (from + random.Uint64N(9)) * random.Uint64N(2), Reason: transport.GapRestart,
			})
		} else {
			o = s.see(all[random.IntN(4)], random.Uint64N(30), random.Uint64N(1<<22))
		}
		for _, h := range o.GaveUp {
			given += h.To - h.From + 1
		}
		if len(o.GaveUp) > maxReported+1 {
			t.Fatalf("%d holes in one outcome", len(o.GaveUp))
		}
		// A list of a prefix, a hole and an open end cannot be shorter.
		if n := s.ranges(); n > ranges+4*epochs*3 || len(s.epochs) > epochs {
			t.Fatalf("after %d: %d ranges, %d epochs", i, n, len(s.epochs))
		}
		for _, told := range s.told {
			if len(told) > maxTold {
				t.Fatalf("%d ranges of epochs", len(told))
			}
		}
	}
	if given == 0 {
		t.Error("nothing was given up, or nobody was told")
	}
	data, err := json.Marshal(s.Tracker)
	if err != nil || len(data) > 18<<10 {
		t.Errorf("snapshot of %d bytes, %v", len(data), err)
	}
}

// TestGivenUpIsNotAcknowledged: with too many holes the oldest are given up; the
// checkpoint stays below them, and does not go back.
func TestGivenUpIsNotAcknowledged(t *testing.T) {
	s := newScript(t, Options{Ranges: 8}).warm()
	s.see(transport.ClassRecord, 5, 1, 2, 3)
	gaveUp := 0
	for seq := uint64(5); seq < 100; seq += 2 {
		gaveUp += len(s.see(transport.ClassRecord, 5, seq).GaveUp)
	}
	if got := s.points()["record 5"]; got != 3 || gaveUp == 0 {
		t.Errorf("acknowledged %d, gave up %d", got, gaveUp)
	}
	if o := s.see(transport.ClassRecord, 5, 10); o.Verdict != Late {
		t.Errorf("%+v", o)
	}
	// The gateway may still say that all of it is gone.
	s.gap(5, 1, transport.Gap{Class: transport.ClassRecord, Epoch: 5, FromSeq: 4, ToSeq: 99, Count: 90, Reason: transport.GapClassFull})
	if got := s.points()["record 5"]; got != 99 {
		t.Errorf("acknowledged %d", got)
	}
}

// TestCheckpointCarriesTheEpochsHeardLast: a gateway with more epochs than one
// acknowledgement can name.
func TestCheckpointCarriesTheEpochsHeardLast(t *testing.T) {
	s := newScript(t, Options{}).warm()
	for epoch := uint64(1); epoch <= 100; epoch++ {
		s.see(transport.ClassRecord, epoch, 1)
		s.see(transport.ClassEvent, epoch, 1)
	}
	s.see(transport.ClassEvent, 3, 1) // again: it did not get that one's
	points := s.Checkpoint()
	if len(points) != MaxPoints || points[0].Epoch != 3 || points[1].Epoch != 38 || points[63].Epoch != 100 {
		t.Errorf("%d points from %+v", len(points), points[0])
	}
}

func TestRestoreRefuses(t *testing.T) {
	s := newScript(t, Options{}).warm()
	s.see(transport.ClassRecord, 5, 1, 2, 9)
	data, err := json.Marshal(s.Tracker)
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	if _, err := Restore([]byte(good), Options{}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "{}", good[:len(good)-1],
		replace(t, good, `"v":1`, `"v":2`), replace(t, good, device, "x"), replace(t, good, `[1,2,1]`, `[2,1,1]`),
		replace(t, good, `[1,2,1]`, `[1,9,1]`), replace(t, good, `[1,2,1]`, `[1,2,0]`), replace(t, good, `[1,2,1]`, `[1,2,77]`),
		replace(t, good, `"high":9`, `"high":90`), replace(t, good, `"class":"record"`, `"class":"recor"`), replace(t, good, `"epoch":0`, `"epoch":6`),
	} {
		if _, err := Restore([]byte(bad), Options{}); err == nil {
			t.Errorf("restored %s", bad)
		}
	}
}
