package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ontagent/transport"
	"ontagent/transport/durable"
	"ontagent/transport/durable/faultfs"
)

func newSim(t *testing.T) (*spooler, *faultfs.FS) {
	t.Helper()
	s := newSpooler(t)
	disk := faultfs.New(faultfs.Ext4, 1)
	s.o.FS, s.o.Dir = disk, "/spool"
	return s, disk
}

func stats(q *Queue, class transport.Class) transport.ClassStats {
	for _, s := range q.Stats() {
		if s.Class == class {
			return s
		}
	}
	return transport.ClassStats{}
}

func TestOpenRefusesUnusableOptions(t *testing.T) {
	if _, err := Open(Options{}); err == nil {
		t.Error("no stamper, no error")
	}
	st, err := transport.NewStamper(testDevice, 1, newClock())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Stamper: st, FS: durable.OS{}}); err == nil {
		t.Error("no directory, no error")
	}
}

func TestPutRefusesUnfit(t *testing.T) {
	ok := message(transport.ClassEvent, `{}`)
	tests := []struct {
		name string
		edit func(*transport.Message)
		want error
	}{
		{"class", func(m *transport.Message) { m.Class = "gold" }, transport.ErrMalformed},
		{"session class", func(m *transport.Message) { m.Class = transport.ClassSession }, transport.ErrMalformed},
		{"kind", func(m *transport.Message) { m.Kind = "sing" }, transport.ErrTopic},
		{"kind from above", func(m *transport.Message) { m.Kind = transport.KindCommand }, transport.ErrTopic},
		{"no name", func(m *transport.Message) { m.Name = "" }, transport.ErrTopic},
		{"array", func(m *transport.Message) { m.Body = json.RawMessage(`[]`) }, transport.ErrMalformed},
		{"header key", func(m *transport.Message) { m.Body = json.RawMessage(`{"seq":1}`) }, transport.ErrMalformed},
		{"size", func(m *transport.Message) { m.Body = bigBody(transport.MaxPayload) }, transport.ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := newSpooler(t).open()
			m := ok
			tt.edit(&m)
			if err := q.Put(context.Background(), m); !errors.Is(err, tt.want) || errors.Is(err, transport.ErrNotDurable) {
				t.Errorf("Put = %v, want %v", err, tt.want)
			}
			if _, found := tryNext(q); found {
				t.Error("refused message was queued")
			}
		})
	}
}

func bigBody(n int) json.RawMessage {
	return json.RawMessage(`{"a":"` + strings.Repeat("x", n) + `"}`)
}

func TestReturnGoesAgainFirstUnchanged(t *testing.T) {
	q := newSpooler(t).open()
	for range 3 {
		put(t, q, transport.ClassTelemetry, `{"a":1}`)
	}
	first, second := next(t, q), next(t, q)
	q.Return(second)
	if err := q.Flush(); err != nil { // the lease goes along
		t.Fatal(err)
	}
	q.Return(first)
	q.Return(first)
	again := next(t, q)
	if id(again) != id(first) || again.Header != first.Header || !again.Queued.IsZero() {
		t.Errorf("returned %+v, again %+v", first, again)
	}
	q.Done(again)
	q.Done(again)
	wantIDs(t, drain(q), "telemetry/1/2", "telemetry/1/3")
	q.Done(transport.Entry{Header: transport.Header{Class: "odd", Seq: 1}})
}

func TestLiveFirstThenStoredInTurns(t *testing.T) {
	s := newSpooler(t)
	q := s.open()
	for range 3 {
		put(t, q, transport.ClassRecord, `{}`)
		put(t, q, transport.ClassTelemetry, `{}`)
	}
	q.Online(true)
	for range 12 {
		put(t, q, transport.ClassTelemetry, `{}`)
	}
	put(t, q, transport.ClassEvent, `{}`)
	want := []string{"event/1/1"}
	for i := 4; i <= 10; i++ {
		want = append(want, fmt.Sprintf("telemetry/1/%d", i))
	}
	want = append(want, "record/1/1")
	for i := 11; i <= 15; i++ {
		want = append(want, fmt.Sprintf("telemetry/1/%d", i))
	}
	want = append(want, "record/1/2", "record/1/3", "telemetry/1/1", "telemetry/1/2", "telemetry/1/3")
	wantIDs(t, drain(q), want...)
}

func TestBackfillIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSpooler(t)
		s.o.Now, s.o.BackfillBytesPerSecond = time.Now, 1000
		q := s.open()
		for range 50 {
			put(t, q, transport.ClassTelemetry, string(bigBody(92))) // 100 bytes
		}
		q.Online(true)
		began := time.Now()
		for range 50 {
			e, err := q.Next(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			q.Done(e)
		}
		if d := time.Since(began); d < 3500*time.Millisecond || d > 4500*time.Millisecond {
			t.Errorf("5000 bytes at 1000 a second, 1000 at once, took %v", d)
		}
		q.SetBackfill(0)
		for range 50 {
			put(t, q, transport.ClassTelemetry, string(bigBody(92)))
		}
		began = time.Now()
		for range 50 { // live
			e, err := q.Next(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			q.Done(e)
		}
		if d := time.Since(began); d > 0 {
			t.Errorf("live ones took %v", d)
		}
	})
}

func TestOnlineTelemetryWritesNothing(t *testing.T) {
	s, disk := newSim(t)
	q := s.open()
	put(t, q, transport.ClassEvent, `{}`)
	q.Done(next(t, q))
	if err := q.Acknowledge(1, []transport.Point{{Class: transport.ClassEvent, Epoch: 1, Seq: 1}}); err != nil {
		t.Fatal(err)
	}
	q.Online(true)
	disk.ResetCounts()
	n := 8640
	if testing.Short() {
		n = 500
	}
	for range n {
		put(t, q, transport.ClassTelemetry, string(bigBody(300)))
		q.Done(next(t, q))
		s.clock.pass(10 * time.Second)
		q.Maintain()
	}
	if c := disk.Count(""); c.Writes+c.Syncs+c.Creates+c.Removes+c.Renames > 0 {
		t.Errorf("a day online: %+v", c)
	}
}

func TestSpillInBatches(t *testing.T) {
	s, disk := newSim(t)
	q := s.open()
	for range 360 { // an hour, offline from the start
		put(t, q, transport.ClassTelemetry, string(bigBody(200)))
		s.clock.pass(10 * time.Second)
		q.Maintain()
	}
	c := disk.Count("spool.append")
	c2 := disk.Count("spool.create")
	payload := 360 * len(bigBody(200))
	if n := c.Writes + c2.Writes; n > 61 || c.Bytes+c2.Bytes > int64(payload)*13/10 {
		t.Errorf("%d writes, %d bytes for %d", n, c.Bytes+c2.Bytes, payload)
	}
	if st := stats(q, transport.ClassTelemetry); st.Depth != 360 || st.FlashBytes == 0 || st.Oldest < 59*time.Minute {
		t.Errorf("%+v", st)
	}
}

func TestSpillLeavesRoom(t *testing.T) {
	s, _ := newSim(t)
	free := int64(9)
	s.o.Free = func() (int64, int64, error) { return free, 100, nil }
	q := s.open()
	put(t, q, transport.ClassTelemetry, `{}`)
	s.clock.pass(5 * time.Minute)
	q.Maintain()
	if st, h := stats(q, transport.ClassTelemetry), q.Health(); st.FlashBytes != 0 || !h.Degraded || h.Classes[0] != "telemetry" {
		t.Errorf("%+v, %+v", st, h)
	}
	put(t, q, transport.ClassRecord, `{}`) // still writes
	free = 50
	q.Maintain()
	if st, h := stats(q, transport.ClassTelemetry), q.Health(); st.FlashBytes == 0 || h.Degraded {
		t.Errorf("%+v, %+v", st, h)
	}
}

func TestUnconfirmedGoAgainUntilSigned(t *testing.T) {
	s := newSpooler(t)
	q := s.open()
	put(t, q, transport.ClassRecord, `{}`)
	put(t, q, transport.ClassRecord, `{}`)
	again := func(after time.Duration) []string {
		s.clock.pass(after)
		q.Maintain()
		return drain(q)
	}
	wantIDs(t, again(0), "record/1/1", "record/1/2")
	if st := stats(q, transport.ClassRecord); st.Unconfirmed != 2 || st.Depth != 2 {
		t.Errorf("%+v", st)
	}
	wantIDs(t, again(9*time.Minute))
	wantIDs(t, again(time.Minute), "record/1/1", "record/1/2")
	wantIDs(t, again(19*time.Minute))
	wantIDs(t, again(time.Minute), "record/1/1", "record/1/2")
	point := func(seq uint64) []transport.Point {
		return []transport.Point{{Class: transport.ClassRecord, Epoch: 1, Seq: seq}}
	}
	if err := q.Acknowledge(5, point(1)); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, again(10*time.Minute), "record/1/2")
	for _, tt := range []struct {
		version uint64
		points  []transport.Point
		want    error
	}{
		{4, point(2), ErrStale},
		{6, point(3), transport.ErrMalformed},
		{6, []transport.Point{{Class: transport.ClassRecord, Epoch: 2, Seq: 1}}, transport.ErrMalformed},
		{6, []transport.Point{{Class: "odd", Epoch: 1, Seq: 1}}, transport.ErrMalformed},
		{5, point(1), nil},
		{6, point(2), nil},
	} {
		if err := q.Acknowledge(tt.version, tt.points); !errors.Is(err, tt.want) {
			t.Errorf("%d %v: %v, want %v", tt.version, tt.points, err, tt.want)
		}
	}
	if st := stats(q, transport.ClassRecord); st.Depth != 0 || st.Bytes != 0 {
		t.Errorf("%+v", st)
	}
	q = s.open()
	if err := q.Acknowledge(5, nil); !errors.Is(err, ErrStale) {
		t.Errorf("after a restart: %v", err)
	}
	wantIDs(t, drain(q)[:1], `event/2/1 {"gap_class":"record","gap_epoch":1,"from_seq":3,"reason":"restart"}`)
}

func TestByBrokerDoneIsEnough(t *testing.T) {
	s := newSpooler(t)
	s.o.Confirm = ByBroker
	q := s.open()
	put(t, q, transport.ClassRecord, `{}`)
	drain(q)
	if st := stats(q, transport.ClassRecord); st.Depth != 0 || st.Unconfirmed != 0 {
		t.Errorf("%+v", st)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, drain(s.open()))
}

func TestEventsAreCappedToBatches(t *testing.T) {
	s, disk := newSim(t)
	q := s.open()
	durable := 0
	for range 100 {
		switch err := q.Put(context.Background(), message(transport.ClassEvent, `{}`)); {
		case err == nil:
			durable++
		case !errors.Is(err, transport.ErrNotDurable):
			t.Fatal(err)
		}
	}
	if durable != eventBurst {
		t.Errorf("%d at once, want %d", durable, eventBurst)
	}
	if got := drain(q); len(got) != 100 {
		t.Errorf("%d given, whether or not they are on flash yet", len(got))
	}
	before := disk.Count("").Syncs
	q.Maintain()
	if n := disk.Count("").Syncs - before; n != 1 {
		t.Errorf("%d syncs for the rest", n)
	}
	if st := q.Stats()[rankEvent]; st.Depth != 100 || st.Unconfirmed != 100 {
		t.Errorf("after: %+v", st)
	}
	disk.Kill()
	if got := drain(s.open()); len(got) < 100 {
		t.Errorf("%d of 100 after a restart", len(got))
	}
}

// TestDegradesAndRecovers fails each operation for good, in each way.
func TestDegradesAndRecovers(t *testing.T) {
	for _, fault := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EIO, syscall.EMFILE} {
		for _, op := range []string{"spool.append", "spool.create", "spool.cursor", "spool.remove", "spool.read", "spool.open", "spool.clean", ""} {
			t.Run(fmt.Sprintf("%v at %q", fault, op), func(t *testing.T) {
				s, disk := newSim(t)
				q := s.open()
				put(t, q, transport.ClassRecord, `{"n":1}`)
				put(t, q, transport.ClassEvent, `{"n":1}`)
				disk.Inject(faultfs.Fault{Op: op, Forever: true, Err: fault, Bytes: -1})
				if op == "spool.open" || op == "spool.clean" || op == "spool.read" || op == "" {
					disk.Heal()
					disk.Kill()
					disk.Inject(faultfs.Fault{Op: op, Forever: true, Err: fault, Bytes: -1})
					q = s.open()
				}
				accepted := 2
				for i := range 5 {
					for _, class := range []transport.Class{transport.ClassRecord, transport.ClassEvent, transport.ClassTelemetry} {
						err := q.Put(context.Background(), message(class, `{"n":2}`))
						if err != nil && !errors.Is(err, transport.ErrNotDurable) {
							t.Fatal(err)
						}
						accepted++
					}
					s.clock.pass(time.Duration(i) * time.Minute)
					q.Maintain()
				}
				if op == "spool.append" || op == "" {
					if h := q.Health(); !h.Degraded || h.Reason == "" || h.ForS < 0 {
						t.Errorf("health %+v", h)
					}
				}
				put(t, q, transport.ClassTelemetry, `{"n":3}`)
				accepted++
				if _, ok := tryNext(q); !ok {
					t.Error("nothing goes on from memory")
				}
				disk.Heal()
				for range 3 {
					s.clock.pass(11 * time.Minute)
					q.Maintain()
				}
				if h := q.Health(); h.Degraded {
					t.Errorf("with the flash well again: %+v", h)
				}
				if err := q.Close(); err != nil {
					t.Error(err)
				}
				q = s.open()
				ours, events := 0, 0
				for {
					e, ok := tryNext(q)
					if !ok {
						break
					}
					if strings.Contains(string(e.Message.Body), `"n":`) {
						ours++
					}
					if e.Message.Name == eventSpool {
						events++
					}
					var g transport.Gap
					if e.Message.Name == transport.EventGap && json.Unmarshal(e.Message.Body, &g) == nil && g.Reason == transport.GapDiskFull {
						ours += int(g.Count) // telemetry made room
					}
					q.Done(e)
				}
				if ours != accepted {
					t.Errorf("%d of %d came", ours, accepted)
				}
				if op == "spool.append" && (events < 4 || events%2 != 0) {
					t.Errorf("%d events about classes that failed and recovered", events)
				}
			})
		}
	}
}

func TestMemoryOnlySaysSo(t *testing.T) {
	s := newSpooler(t)
	s.o.FS = nil
	q := s.open()
	if err := q.Put(context.Background(), message(transport.ClassRecord, `{}`)); !errors.Is(err, transport.ErrNotDurable) {
		t.Errorf("Put = %v", err)
	}
	wantIDs(t, drain(q), "record/1/1")
	if h := q.Health(); !h.Degraded || len(h.Classes) != durableRanks {
		t.Errorf("%+v", h)
	}
	if err := q.Flush(); err == nil {
		t.Error("Flush had nowhere to write to and did not say so")
	}
	q.Maintain()
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// TestFullFlashCostsTelemetryFirst fills the file system.
func TestFullFlashCostsTelemetryFirst(t *testing.T) {
	s, disk := newSim(t)
	s.o.Free = func() (int64, int64, error) { return 1, 1, nil }
	q := s.open()
	for range 200 {
		put(t, q, transport.ClassTelemetry, string(bigBody(1000)))
		if err := q.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	disk.SetCapacity(disk.Used() + 2000)
	for range 50 {
		put(t, q, transport.ClassRecord, string(bigBody(1000)))
	}
	if st := stats(q, transport.ClassRecord); st.Depth != 50 || st.FlashBytes < 50*1000 {
		t.Errorf("%+v", st)
	}
	found := false
	for _, e := range drain(q) {
		found = found || strings.Contains(e, `"reason":"disk_full"`)
	}
	if !found {
		t.Error("nobody was told")
	}
}

func TestThinningKeepsTheShape(t *testing.T) {
	s, _ := newSim(t)
	s.o.Limits = map[transport.Class]Limits{transport.ClassTelemetry: {FlashBytes: 64 << 10}}
	q := s.open()
	const n = 3000
	for i := range n {
		put(t, q, transport.ClassTelemetry, fmt.Sprintf(`{"subject":"x%d","rx_dbm":%d,"state":"%s"}`, i%2, -i, strings.Repeat("s", 100)))
		s.clock.pass(5 * time.Second)
		q.Maintain()
	}
	if st := stats(q, transport.ClassTelemetry); st.FlashBytes > 64<<10 {
		t.Errorf("over its bound: %+v", st)
	}
	low, high, rollups := 0.0, -1e9, 0
	for {
		e, ok := tryNext(q)
		if !ok {
			s.clock.pass(time.Second)
			if e, ok = tryNext(q); !ok {
				break
			}
		}
		q.Done(e)
		var b struct {
			Subject  string
			Rx       *float64 `json:"rx_dbm"`
			Min, Max float64
			RxMin    *float64 `json:"rx_dbm_min"`
			RxMax    *float64 `json:"rx_dbm_max"`
			Samples  int
			Window   int `json:"window_s"`
			State    string
		}
		if e.Header.Class != transport.ClassTelemetry {
			continue
		}
		if err := json.Unmarshal(e.Message.Body, &b); err != nil || b.Rx == nil || b.Subject == "" || len(b.State) != 100 {
			t.Fatalf("%s: %v", e.Message.Body, err)
		}
		least, most := *b.Rx, *b.Rx
		if b.Samples > 0 {
			rollups++
			least, most = *b.RxMin, *b.RxMax
			if least > *b.Rx || most < *b.Rx || b.Samples > b.Window/10+1 || most-least > float64(b.Window)/5 {
				t.Fatalf("%s", e.Message.Body)
			}
		}
		low, high = min(low, least), max(high, most)
	}
	if low != -(n-1) || high != 0 || rollups < 20 {
		t.Errorf("the line went from %g to %g; %d rollups", low, high, rollups)
	}
}

func TestDropsOldestSegmentsAndTellsFirst(t *testing.T) {
	s, disk := newSim(t)
	s.o.Limits = map[transport.Class]Limits{transport.ClassRecord: {FlashBytes: 64 << 10}}
	q := s.open()
	const n = 300
	for range n {
		put(t, q, transport.ClassRecord, string(bigBody(500)))
		if st := stats(q, transport.ClassRecord); st.FlashBytes > 64<<10 {
			t.Fatalf("over its bound: %+v", st)
		}
	}
	disk.Cut() // what was deleted was told before
	disk.PowerOn()
	q = s.open()
	have := map[uint64]bool{}
	for {
		e, ok := tryNext(q)
		if !ok {
			break
		}
		q.Done(e)
		if e.Header.Class == transport.ClassRecord {
			have[e.Header.Seq] = true
		}
		var g transport.Gap
		if e.Message.Name == transport.EventGap && json.Unmarshal(e.Message.Body, &g) == nil && g.Class == transport.ClassRecord {
			for i := g.FromSeq; i <= g.ToSeq; i++ {
				have[i] = true
			}
		}
	}
	if len(have) != n {
		t.Errorf("%d of %d came or were told", len(have), n)
	}
}

func TestUnreadableBodyIsToldAndPassed(t *testing.T) {
	s, disk := newSim(t)
	q := s.open()
	for range 3 {
		put(t, q, transport.ClassRecord, `{"n":1}`)
	}
	path := "/spool/record/" + segID{epoch: 1, first: 1}.name()
	b, _ := disk.Get(path)
	b[headerSize+recHead+8] ^= 1 // after it was opened
	disk.Put(path, b)
	wantIDs(t, drain(q), "record/1/2", "record/1/3")
	q.Maintain()
	wantIDs(t, drain(q), `event/1/1 {"gap_class":"record","gap_epoch":1,"from_seq":1,"to_seq":1,"count":1,"reason":"corrupt"}`)
	if st := stats(q, transport.ClassRecord); st.Dropped != 1 || st.Unconfirmed != 2 {
		t.Errorf("%+v", st)
	}
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	s, disk := newSim(t)
	q := s.open()
	for range 3 {
		put(t, q, transport.ClassRecord, `{"n":1}`)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Check(disk, "/spool")
	if err != nil || r.Damaged != 0 || len(r.Files) != 1 || r.Files[0].Entries != 3 || r.Cursor.CleanEpoch != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	path := "/spool/record/" + segID{epoch: 1, first: 1}.name()
	b, _ := disk.Get(path)
	b[headerSize+recExtra+len("link")+len(`{"n":1}`)+5] ^= 1
	disk.Put(path, append(b, 0, 0, 0))
	disk.Put("/spool/event/x", []byte("x"))
	disk.Put("/spool/cursor.1", []byte("x"))
	r, err = Check(disk, "/spool")
	if err != nil || r.Damaged != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	text := r.String()
	for _, want := range []string{"numbers 2 to 2 may be lost", "tail of zeros", "no file of a spool", "3 files with damage"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if _, err := Check(disk, "/nowhere"); err == nil {
		t.Error("no directory, no error")
	}
}

func TestGapsJoin(t *testing.T) {
	q := newSpooler(t).open()
	q.epoch = 100
	gap := func(epoch, from, to uint64) transport.Gap {
		g := transport.Gap{Class: transport.ClassRecord, Epoch: epoch, FromSeq: from, ToSeq: to, Reason: transport.GapClassFull}
		if to == 0 {
			g.Reason = transport.GapRestart
		} else {
			g.Count = to - from + 1
		}
		return g
	}
	for _, g := range []transport.Gap{gap(1, 1, 5), gap(1, 9, 9), gap(1, 6, 8), gap(2, 1, 0), gap(3, 1, 0)} {
		q.addGap(g)
	}
	got, err := json.Marshal(q.classes[rankRecord].gaps)
	want := `[{"gap_class":"record","gap_epoch":1,"from_seq":1,"to_seq":8,"count":8,"reason":"class_full"},` +
		`{"gap_class":"record","gap_epoch":1,"from_seq":9,"to_seq":9,"count":1,"reason":"class_full"},` +
		`{"gap_class":"record","gap_from_epoch":2,"gap_epoch":3,"from_seq":1,"reason":"restart"}]`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	for e := range uint64(90) {
		q.addGap(gap(5+e, 3, 4))
	}
	if n := len(q.classes[rankRecord].gaps); n > maxExactGaps {
		t.Errorf("%d gaps wait", n)
	}
	covered := func(epoch, seq uint64) bool {
		for _, g := range q.classes[rankRecord].gaps {
			if epoch == g.Epoch && seq >= g.FromSeq && (g.ToSeq == 0 || seq <= g.ToSeq) || g.FromEpoch != 0 && g.FromEpoch <= epoch && epoch < g.Epoch {
				return true
			}
		}
		return false
	}
	for e := uint64(1); e <= 94; e++ {
		if e != 4 && !covered(e, 4) {
			t.Errorf("epoch %d is in no gap", e)
		}
	}
}

// TestConcurrent has many put, take, acknowledge and look, with maintenance
// under way.
func TestConcurrent(t *testing.T) {
	s := newSpooler(t)
	s.o.Now = time.Now
	s.o.BackfillBytesPerSecond = 1 << 30
	s.o.Limits = map[transport.Class]Limits{
		transport.ClassTelemetry: {FlashBytes: 64 << 10, RAMBytes: 32 << 10},
		transport.ClassRecord:    {FlashBytes: 64 << 10},
	}
	q := s.open()
	ctx, cancel := context.WithCancel(context.Background())
	var puts, others sync.WaitGroup
	others.Go(func() { _ = q.Serve(ctx) })
	n := 200
	if testing.Short() {
		n = 40
	}
	for i := range 3 {
		puts.Go(func() {
			for k := range n {
				class := []transport.Class{transport.ClassTelemetry, transport.ClassRecord, transport.ClassEvent, transport.ClassDebug}[(i+k)%4]
				err := q.Put(ctx, message(class, string(bigBody(100+k))))
				if err != nil && !errors.Is(err, transport.ErrNotDurable) {
					t.Error(err)
				}
				switch k % 50 {
				case 1:
					q.Stats()
					q.Health()
				case 7:
					q.Online(k%100 == 7)
				case 20:
					_ = q.Flush()
				case 30:
					q.hurry()
				}
			}
		})
		others.Go(func() {
			seen := uint64(0)
			for {
				e, err := q.Next(ctx)
				if err != nil {
					return
				}
				if e.Header.Seq%5 == 0 && e.Header.Seq > seen {
					seen = e.Header.Seq
					q.Return(e)
					continue
				}
				q.Done(e)
				if e.Header.Class == transport.ClassRecord && e.Header.Seq%10 == 1 {
					_ = q.Acknowledge(uint64(time.Since(s.clock.now)), []transport.Point{{Class: e.Header.Class, Epoch: 1, Seq: e.Header.Seq}})
				}
			}
		})
	}
	puts.Wait()
	cancel()
	others.Wait()
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	r, err := Check(s.o.FS, s.o.Dir)
	if err != nil || r.Damaged > 0 {
		t.Errorf("%v\n%s", err, r)
	}
}

func TestDirectoryRemovedWhileRunning(t *testing.T) {
	s := newSpooler(t)
	q := s.open()
	put(t, q, transport.ClassEvent, `{"n":1}`)
	if err := os.RemoveAll(s.o.Dir); err != nil {
		t.Fatal(err)
	}
	q.io.Lock()
	q.retire(&q.classes[rankEvent]) // as when the segment is full
	q.io.Unlock()
	put(t, q, transport.ClassEvent, `{"n":2}`) // fails if it is not durable
	report, err := Check(durable.OS{}, s.o.Dir)
	if err != nil || len(report.Files) != 1 || report.Files[0].FirstSeq != 2 {
		t.Errorf("on flash: %+v, %v", report, err)
	}
}

func TestRoomAgain(t *testing.T) {
	s, disk := newSim(t)
	q := s.open()
	put(t, q, transport.ClassEvent, `{"n":1}`)
	disk.SetCapacity(disk.Used())
	q.io.Lock()
	q.retire(&q.classes[rankEvent]) // its last page has room
	q.io.Unlock()
	if err := q.Put(context.Background(), message(transport.ClassEvent, `{"n":2}`)); !errors.Is(err, transport.ErrNotDurable) {
		t.Fatalf("Put on a full flash = %v", err)
	}
	s.clock.pass(2 * time.Minute)
	q.Maintain()
	if !q.Health().Degraded {
		t.Error("not degraded on a full flash")
	}
	disk.SetCapacity(disk.Used() + 4<<20)
	s.clock.pass(time.Minute)
	q.Maintain()
	if h := q.Health(); h.Degraded {
		t.Errorf("still degraded when there is room: %+v", h)
	}
}

func TestLowSpaceEnds(t *testing.T) {
	s := newSpooler(t)
	free := int64(1)
	s.o.Free = func() (int64, int64, error) { return free, 100, nil }
	q := s.open()
	put(t, q, transport.ClassTelemetry, `{"n":1}`)
	s.clock.pass(2 * time.Minute)
	q.Maintain()
	if !q.Health().Degraded {
		t.Fatal("not degraded where less than 10 % is free")
	}
	q.Online(true)
	q.Done(next(t, q))
	free = 50
	q.Maintain()
	if h := q.Health(); h.Degraded {
		t.Errorf("still degraded when there is room: %+v", h)
	}
}
