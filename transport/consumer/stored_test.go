package consumer

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/transport"
)

// record makes a message of class record.
func record(epoch, seq uint64, content string) message {
	h := header(transport.ClassRecord, epoch, seq)
	return message{h: h, kind: transport.KindStatus, name: "x", body: encode(h, map[string]string{"what": content})}
}

func (s *script) take(m message) Verdict {
	return s.Observe(s.at, m.h, m.kind, m.name, m.body).Verdict
}

// stored are what is to be acknowledged, for comparison with messages.
func (s *script) wantStored(messages ...message) {
	s.t.Helper()
	var want []transport.Stored
	for _, m := range messages {
		want = append(want, digestOf(m))
	}
	if diff := cmp.Diff(want, s.Stored()); diff != "" {
		s.t.Errorf("to be acknowledged (-want +got):\n%s", diff)
	}
}

// again returns the Tracker as after a restart.
func (s *script) again() *script {
	s.t.Helper()
	data, err := json.Marshal(s.Tracker)
	if err != nil {
		s.t.Fatal(err)
	}
	tr, err := Restore(data, s.o)
	if err != nil {
		s.t.Fatal(err)
	}
	return &script{s.t, tr, s.at}
}

// TestForgedGapAcknowledgesNoRecord: a gap of class record closes a hole in the
// account, and acknowledges nothing.
func TestForgedGapAcknowledgesNoRecord(t *testing.T) {
	s := newScript(t, Options{}).warm()
	first, third := record(7, 1, "a"), record(7, 3, "c")
	s.take(first)
	s.take(third)
	o := s.gap(7, 1, transport.Gap{Class: transport.ClassRecord, Epoch: 7, FromSeq: 2, ToSeq: 2, Count: 1, Reason: transport.GapDiskFull})
	if o.Gap == nil || s.Totals().Dropped != 1 || s.Totals().Missing != 0 {
		t.Errorf("%+v, %+v", o, s.Totals())
	}
	s.wantStored(first, third)
	if got := s.Checkpoint(); len(got) != 1 || got[0] != (transport.Point{Class: transport.ClassEvent, Epoch: 7, Seq: 1}) {
		t.Errorf("%+v", got)
	}
	s.Acknowledged(s.Stored())
	s.wantStored()
	// The real one was never dropped.
	second := record(7, 2, "b")
	if v := s.take(second); v != New {
		t.Errorf("%v", v)
	}
	s.wantStored(second)
}

// TestForgedMessageStandsInNobodysPlace: whoever is first with a number cannot
// keep the real message out, nor have it acknowledged.
func TestForgedMessageStandsInNobodysPlace(t *testing.T) {
	forged, real := record(7, 1, "nothing happened"), record(7, 1, "failed")
	for name, restart := range map[string]bool{"": false, "restarted": true} {
		s := newScript(t, Options{}).warm()
		next := func() {
			if restart {
				s = s.again()
			}
		}
		if v := s.take(forged); v != New {
			t.Errorf("%s: %v", name, v)
		}
		next()
		s.wantStored(forged)
		if v := s.take(real); v != Conflict {
			t.Errorf("%s: %v", name, v)
		}
		next()
		s.wantStored(forged) // one number, one content at a time
		s.Acknowledged(s.Stored())
		next()
		s.wantStored(real)
		s.Acknowledged(s.Stored())
		for _, m := range []message{forged, real, real} {
			next()
			if v := s.take(m); v != Duplicate {
				t.Errorf("%s: %v", name, v)
			}
		}
		next()
		s.wantStored(forged)
		s.Acknowledged(s.Stored())
		s.wantStored(real)
		if got := s.Totals(); got.Received != 1 || got.Duplicates != 3 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestRecordsComeAgain: what comes again did not hear of its acknowledgement,
// also where its number says nothing any more.
func TestRecordsComeAgain(t *testing.T) {
	s := newScript(t, Options{Epochs: 4, Digests: 8}).warm()
	m := record(7, 1, "a")
	leap, far := record(7, 1<<50, "leap"), record(1<<40, 1, "far")
	for i, want := range []Verdict{New, Duplicate, Duplicate} {
		if v := s.take(m); v != want {
			t.Errorf("%d: %v", i, v)
		}
		s.wantStored(m)
	}
	s.Acknowledged(s.Stored())
	if v := s.take(m); v != Duplicate {
		t.Errorf("%v", v)
	}
	s.wantStored(m)
	for _, m := range []message{leap, far} {
		if a, b := s.take(m), s.take(m); a != Implausible || b != Duplicate {
			t.Errorf("%v, then %v", a, b)
		}
	}
	s.wantStored(m, leap, far)
	for epoch := uint64(20); epoch < 25; epoch++ { // epoch 7 is forgotten, and then the content
		s.see(transport.ClassEvent, epoch, 1)
	}
	if v := s.take(m); v != Duplicate {
		t.Errorf("%v", v)
	}
	s.Acknowledged(s.Stored())
	for seq := uint64(1); seq <= 8; seq++ {
		s.take(record(24, seq, "b"))
	}
	if v := s.take(m); v != Late {
		t.Errorf("%v", v)
	}
	// No acknowledgement can name these.
	for _, m := range []message{{h: header(transport.ClassRecord, 0, 1)}, {h: header(transport.ClassRecord, 0, 1)}} {
		if v := s.take(m); v == Conflict {
			t.Errorf("%v", v)
		}
	}
	for _, x := range s.Stored() {
		if x.Epoch == 0 {
			t.Errorf("%+v", x)
		}
	}
}

func TestForgottenContentIsStoredOnceMore(t *testing.T) {
	s := newScript(t, Options{Digests: 4, Waiting: 2}).warm()
	var all []message
	for seq := uint64(1); seq <= 10; seq++ {
		all = append(all, record(7, seq, "a"))
		s.take(all[seq-1])
	}
	s.wantStored(all[:2]...) // the first come first; the others when they come again
	for i, want := range []Verdict{Duplicate, Duplicate, Late, Duplicate} {
		if v := s.take(all[[]int{0, 9, 4, 4}[i]]); v != want {
			t.Errorf("%d: %v, want %v", i, v, want)
		}
	}
	s.Acknowledged(s.Stored())
	s.take(all[5])
	s.wantStored(all[5])
	if len(s.ledger.kept) != 4 {
		t.Errorf("%d digests", len(s.ledger.kept))
	}
}

func TestStoredFillsAcknowledgements(t *testing.T) {
	s := newScript(t, Options{}).warm()
	const n = 2*MaxStored + 7
	for seq := uint64(1); seq <= n; seq++ {
		s.take(record(7, seq, "a"))
	}
	next := uint64(1)
	for _, want := range []int{MaxStored, MaxStored, 7, 0} {
		got := s.Stored()
		if len(got) != want {
			t.Errorf("%d in one, want %d", len(got), want)
		}
		for _, x := range got {
			if x.Seq != next {
				t.Errorf("%d, want %d", x.Seq, next)
			}
			next++
		}
		s = s.again()
		s.Acknowledged(got)
	}
	if next != n+1 || s.Waiting() != 0 {
		t.Errorf("up to %d, %d wait", next-1, s.Waiting())
	}
	// A restart remembers the last.
	if v := s.take(record(7, n, "a")); v != Duplicate {
		t.Errorf("%v", v)
	}
	if v := s.take(record(7, 1, "a")); v != Late {
		t.Errorf("%v", v)
	}
}

// TestFloodIsBounded: whoever forges messages fills neither the memory nor the
// snapshot.
func TestFloodIsBounded(t *testing.T) {
	s := newScript(t, Options{}).warm()
	random := rand.New(rand.NewPCG(3, 4))
	for i := range 5000 {
		s.take(record(1+random.Uint64N(3), 1+random.Uint64N(100), fmt.Sprint(i)))
		if len(s.ledger.kept) > s.o.Digests || s.Waiting() > s.o.Waiting {
			t.Fatalf("%d digests, %d waiting", len(s.ledger.kept), s.Waiting())
		}
	}
	if s.Waiting() != s.o.Waiting || len(s.ledger.kept) != s.o.Digests {
		t.Errorf("%d digests, %d waiting: not the bounds", len(s.ledger.kept), s.Waiting())
	}
	if data, err := json.Marshal(s.Tracker); err != nil || len(data) > 80<<10 {
		t.Errorf("snapshot of %d bytes, %v", len(data), err)
	}
	if n := len(s.Stored()); n != MaxStored {
		t.Errorf("%d", n)
	}
}

func TestRestoreRefusesDigests(t *testing.T) {
	s := newScript(t, Options{}).warm()
	s.take(record(7, 1, "a"))
	data, err := json.Marshal(s.Tracker)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	good, _ := fields["waiting"].(string)
	for _, bad := range []string{good[4:], strings.Repeat("A", len(good)), "?", good + good[:4]} {
		for _, key := range []string{"waiting", "kept"} {
			if _, err := Restore([]byte(strings.Replace(string(data), `"`+key+`":"`+good, `"`+key+`":"`+bad, 1)), Options{}); err == nil {
				t.Errorf("%s: restored %s", key, bad)
			}
		}
	}
	tight, err := Restore(data, Options{Digests: 1, Waiting: 1})
	if err != nil || tight.Waiting() != 1 {
		t.Errorf("%v", err)
	}
}

// TestReliabilityHostileBroker has a broker do what it likes with what gateways
// and collector send: keep it back, repeat, reorder, forge gaps of records and
// messages with the numbers of real ones, before and after them. Whatever a
// gateway forgets, the collector has stored byte for byte; and once the broker
// lets things through, nothing is left.
func TestReliabilityHostileBroker(t *testing.T) {
	runs := 200
	if testing.Short() {
		runs = 20
	}
	if os.Getenv("LONG") == "1" {
		runs = 5000
	}
	sent, forged, erased := 0, 0, 0
	for seed := range runs {
		a, b, c := betray(t, uint64(seed))
		sent, forged, erased = sent+a, forged+b, erased+c
	}
	verdict := "ok"
	if erased > 0 || t.Failed() {
		verdict = "FAIL"
		t.Errorf("%d records erased", erased)
	}
	t.Logf("reliability: duplicates | hostile broker forges gaps and messages | %d | acknowledged loss %d of %d records; %d forged messages taken | %s",
		runs, erased, sent, forged, verdict)
}

func betray(t *testing.T, seed uint64) (sent, forged, erased int) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 99))
	o := Options{Grace: -1, Digests: 1 + random.IntN(40), Waiting: 1 + random.IntN(100)}
	s := &script{t, NewTracker(device, o), start}
	kept := map[string]bool{}             // payloads on the collector's disk
	held := map[transport.Stored]string{} // payloads on the gateway's
	var known []message                   // to the broker
	take := func(m message) {
		if s.take(m) != Duplicate {
			kept[string(m.body)] = true
		} else if !kept[string(m.body)] {
			t.Errorf("seed %d: a duplicate that is not stored: %s", seed, m.body)
		}
	}
	confirm := func(stored []transport.Stored) {
		for _, x := range stored {
			if payload, ok := held[x]; ok {
				delete(held, x)
				if !kept[payload] {
					erased++
				}
			}
		}
	}
	epoch, seq, events := 1+random.Uint64N(5), uint64(0), uint64(0)
	for range 400 {
		switch n := random.IntN(100); {
		case n < 30:
			seq++
			m := record(epoch, seq, fmt.Sprint("real ", random.Uint32()))
			known = append(known, m)
			held[digestOf(m)] = string(m.body)
			sent++
		case n < 32:
			epoch, seq, events = epoch+1, 0, 0
		case n < 55 && len(known) > 0:
			take(known[random.IntN(len(known))])
		case n < 75:
			at := 1 + random.Uint64N(seq+3)
			if random.IntN(20) == 0 {
				at = random.Uint64N(math.MaxUint64) + 1
			}
			take(record(1+random.Uint64N(epoch+1), at, fmt.Sprint("forged ", random.IntN(5))))
			forged++
		case n < 85:
			events++
			from := 1 + random.Uint64N(seq+2)
			s.gap(epoch, events, transport.Gap{
				Class: transport.ClassRecord, FromEpoch: random.Uint64N(2), Epoch: epoch - random.Uint64N(2), FromSeq: from,
				ToSeq: (from + random.Uint64N(9)) * random.Uint64N(2), Reason: transport.GapRestart,
			})
		case n < 87:
			s = s.again()
		default:
			stored := s.Stored()
			if random.IntN(2) == 0 {
				confirm(stored)
			}
			s.Acknowledged(stored)
		}
	}
	// The broker lets through what the gateway sends again.
	for round := 0; len(held) > 0; round++ {
		if round > 1000 {
			t.Errorf("seed %d: %d records are never confirmed", seed, len(held))
			break
		}
		for _, m := range known {
			if _, ok := held[digestOf(m)]; ok {
				take(m)
			}
		}
		for stored := s.Stored(); len(stored) > 0; stored = s.Stored() {
			confirm(stored)
			s.Acknowledged(stored)
		}
	}
	return sent, forged, erased
}
