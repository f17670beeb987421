package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

type fakeClock struct {
	wall    int64
	quality string
	uptime  time.Duration
}

func (c fakeClock) Wall() (int64, string) { return c.wall, c.quality }
func (c fakeClock) Uptime() time.Duration { return c.uptime }

const testDevice = "HWTC12345678"

func newStamper(t *testing.T) *Stamper {
	t.Helper()
	s, err := NewStamper(testDevice, 7, fakeClock{1700000000123, ClockNTP, 90 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, q Queue, class Class, body string) {
	t.Helper()
	m := Message{Class: class, Body: json.RawMessage(body)}
	m.Kind, m.Name = map[Class]Kind{ClassRecord: KindRecord, ClassEvent: KindEvent}[class], "link"
	if m.Kind == "" {
		m.Kind = KindTelemetry
	}
	if err := q.Put(context.Background(), m); err != nil {
		t.Fatal(err)
	}
}

// next leases what is there and fails if nothing is.
func next(t *testing.T, q Queue) Entry {
	t.Helper()
	e, ok := tryNext(q)
	if !ok {
		t.Fatal("queue is empty")
	}
	return e
}

func tryNext(q Queue) (Entry, bool) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	e, err := q.Next(ctx)
	return e, err == nil
}

func id(e Entry) string {
	return fmt.Sprintf("%s/%d", e.Header.Class, e.Header.Seq)
}

func TestRAMQueueOrder(t *testing.T) {
	q := NewRAMQueue(RAMOptions{Stamper: newStamper(t)})
	for _, class := range []Class{ClassDebug, ClassTelemetry, ClassTelemetry, ClassEvent, ClassRecord, ClassRecord} {
		put(t, q, class, `{}`)
	}
	var got []string
	for range 6 {
		got = append(got, id(next(t, q)))
	}
	want := []string{"record/1", "record/2", "event/1", "telemetry/1", "telemetry/2", "debug/1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if e, ok := tryNext(q); ok {
		t.Errorf("leased twice: %s", id(e))
	}
}

func TestRAMQueueReturnGoesAgainFirstUnchanged(t *testing.T) {
	q := NewRAMQueue(RAMOptions{Stamper: newStamper(t)})
	for range 3 {
		put(t, q, ClassEvent, `{"a":1}`)
	}
	first, second := next(t, q), next(t, q)
	q.Return(second)
	q.Return(first)
	q.Return(first) // no lease any more: nothing happens
	again := next(t, q)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("returned entry changed (-want +got):\n%s", diff)
	}
	q.Done(again)
	q.Done(again)
	if got := id(next(t, q)); got != "event/2" {
		t.Errorf("after Done got %s, want event/2", got)
	}
	q.Done(Entry{Header: Header{Class: "odd", Seq: 1}})
	if got := q.Stats()[1]; got.Depth != 2 {
		t.Errorf("depth %d, want 2", got.Depth)
	}
}

func TestRAMQueueNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewRAMQueue(RAMOptions{Stamper: newStamper(t)})
		ctx, cancel := context.WithCancel(context.Background())
		got := make(chan error, 2)
		go func() {
			for {
				_, err := q.Next(ctx)
				got <- err
				if err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if len(got) != 0 {
			t.Error("Next returned from an empty queue")
		}
		put(t, q, ClassDebug, `{}`)
		synctest.Wait()
		if err := <-got; err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("after cancel: %v", err)
		}
	})
}

func TestRAMQueueRefusesUnfit(t *testing.T) {
	ok := Message{Class: ClassEvent, Kind: KindEvent, Name: "link", Body: json.RawMessage(`{}`)}
	tests := []struct {
		name string
		edit func(*Message)
		want error
	}{
		{"class", func(m *Message) { m.Class = "gold" }, ErrMalformed},
		{"session class", func(m *Message) { m.Class = ClassSession }, ErrMalformed},
		{"kind", func(m *Message) { m.Kind = "sing" }, ErrTopic},
		{"kind from above", func(m *Message) { m.Kind = KindCommand }, ErrTopic},
		{"no name", func(m *Message) { m.Name = "" }, ErrTopic},
		{"name", func(m *Message) { m.Name = "a/b" }, ErrTopic},
		{"name too many", func(m *Message) { m.Kind = KindPending }, ErrTopic},
		{"array", func(m *Message) { m.Body = json.RawMessage(`[]`) }, ErrMalformed},
		{"header key", func(m *Message) { m.Body = json.RawMessage(`{"seq":1}`) }, ErrMalformed},
		{"header key in disguise", func(m *Message) { m.Body = json.RawMessage(`{"\u0053eq":1}`) }, ErrMalformed},
		{"not UTF-8", func(m *Message) { m.Body = json.RawMessage("{\"a\":\"\xff\"}") }, ErrMalformed},
		{"size", func(m *Message) { m.Body = bigBody(MaxPayload) }, ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := NewRAMQueue(RAMOptions{Stamper: newStamper(t)})
			m := ok
			tt.edit(&m)
			if err := q.Put(context.Background(), m); !errors.Is(err, tt.want) {
				t.Errorf("Put = %v, want %v", err, tt.want)
			}
			if _, found := tryNext(q); found {
				t.Error("refused message was queued")
			}
		})
	}
}

func bigBody(n int) json.RawMessage {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'x'
	}
	return json.RawMessage(`{"a":"` + string(b) + `"}`)
}

func TestRAMQueueDropsOldestOfLowestClass(t *testing.T) {
	// Room for 4 entries of 600 bytes.
	q := NewRAMQueue(RAMOptions{Stamper: newStamper(t), MaxTotal: 4 * 600})
	body := string(bigBody(600 - overhead - len(`{"a":""}`)))
	put(t, q, ClassRecord, body)
	put(t, q, ClassDebug, body)
	put(t, q, ClassTelemetry, body)
	put(t, q, ClassTelemetry, body)
	put(t, q, ClassRecord, body)    // costs the debug
	put(t, q, ClassEvent, body)     // costs telemetry 1
	put(t, q, ClassTelemetry, body) // costs telemetry 2
	put(t, q, ClassDebug, body)     // finds no room below the rest: goes itself

	var got []string
	for {
		e, ok := tryNext(q)
		if !ok {
			break
		}
		s := id(e)
		if e.Message.Name == EventGap {
			s += " " + string(e.Message.Body)
		}
		got = append(got, s)
		q.Done(e)
	}
	want := []string{
		"record/1", "record/2",
		`event/2 {"gap_class":"telemetry","gap_epoch":7,"from_seq":1,"to_seq":2,"count":2,"reason":"queue_full"}`,
		`event/3 {"gap_class":"debug","gap_epoch":7,"from_seq":1,"to_seq":2,"count":2,"reason":"queue_full"}`,
		"event/1", "telemetry/3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, s := range q.Stats() {
		if s.Depth != 0 || s.Bytes != 0 {
			t.Errorf("left over: %+v", s)
		}
	}
}

func TestRAMQueueRecordsFullDropOldestRecord(t *testing.T) {
	q := NewRAMQueue(RAMOptions{Stamper: newStamper(t), MaxEntries: map[Class]int{ClassRecord: 2}})
	for range 3 {
		put(t, q, ClassRecord, `{}`)
	}
	if got := id(next(t, q)); got != "record/2" {
		t.Errorf("first is %s, want record/2", got)
	}
	next(t, q)
	gap := next(t, q)
	want := `{"gap_class":"record","gap_epoch":7,"from_seq":1,"to_seq":1,"count":1,"reason":"class_full"}`
	if got := string(gap.Message.Body); got != want {
		t.Errorf("gap %s, want %s", got, want)
	}
	if s := q.Stats()[0]; s.Dropped != 1 || s.Class != ClassRecord {
		t.Errorf("stats %+v", s)
	}
}

func TestRAMQueueLeasedIsNotDropped(t *testing.T) {
	q := NewRAMQueue(RAMOptions{Stamper: newStamper(t), MaxEntries: map[Class]int{ClassTelemetry: 1}})
	put(t, q, ClassTelemetry, `{}`)
	held := next(t, q)
	put(t, q, ClassTelemetry, `{}`) // no room beside the leased one
	q.Return(held)
	if again := next(t, q); again.Message.Name != EventGap {
		t.Errorf("want the gap first, got %s", id(again))
	}
	if again := next(t, q); id(again) != "telemetry/1" {
		t.Errorf("got %s, want telemetry/1", id(again))
	}
}

func TestRAMQueueMergesGapsAndBoundsThem(t *testing.T) {
	now := time.Unix(0, 0)
	q := NewRAMQueue(RAMOptions{
		Stamper: newStamper(t), Now: func() time.Time { return now },
		MaxEntries: map[Class]int{ClassTelemetry: 3},
	})
	told := 0
	for range 1000 {
		put(t, q, ClassTelemetry, `{}`)
		put(t, q, ClassTelemetry, `{}`)
		e := next(t, q)
		if e.Message.Name == EventGap {
			told++
		}
		q.Done(e)
		now = now.Add(10 * time.Millisecond)
	}
	if told == 0 || told > 4 {
		t.Errorf("%d gaps told in 10 s of overflow, want 1–4", told)
	}
	if n := len(q.byClass(ClassTelemetry).gaps); n > maxRanges {
		t.Errorf("%d ranges wait, bound %d", n, maxRanges)
	}
}

// TestRAMQueueConservation holds the queue to its promise under random load:
// every number of every class is delivered or covered by a delivered gap, once
// all has been drained, and the bound of memory holds throughout.
func TestRAMQueueConservation(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { conserve(t, seed) })
	}
}

func conserve(t *testing.T, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	now := time.Unix(0, 0)
	const total = 24 << 10
	stamper := newStamper(t)
	q := NewRAMQueue(RAMOptions{
		Stamper: stamper, MaxTotal: total, Now: func() time.Time { return now },
		MaxEntries: map[Class]int{ClassRecord: 10, ClassEvent: 8, ClassTelemetry: 20, ClassDebug: 3},
	})
	delivered := map[Class]map[uint64]bool{}
	var gaps []Gap
	var leased []Entry
	deliver := func(e Entry) {
		class := e.Header.Class
		if delivered[class] == nil {
			delivered[class] = map[uint64]bool{}
		}
		if delivered[class][e.Header.Seq] {
			t.Fatalf("%s delivered after it was done", id(e))
		}
		delivered[class][e.Header.Seq] = true
		if e.Message.Name == EventGap {
			var g Gap
			if err := json.Unmarshal(e.Message.Body, &g); err != nil {
				t.Fatal(err)
			}
			gaps = append(gaps, g)
		}
		q.Done(e)
	}
	for range 1500 {
		now = now.Add(time.Duration(rnd.IntN(2000)) * time.Millisecond)
		switch n := rnd.IntN(10); {
		case n < 6:
			put(t, q, queued[rnd.IntN(len(queued))], string(bigBody(rnd.IntN(900))))
		case n < 8:
			if e, ok := tryNext(q); ok && len(leased) < 6 {
				leased = append(leased, e)
			} else if ok {
				q.Return(e)
			}
		case len(leased) > 0:
			i := rnd.IntN(len(leased))
			e := leased[i]
			leased = append(leased[:i], leased[i+1:]...)
			if rnd.IntN(3) == 0 {
				q.Return(e)
			} else {
				deliver(e)
			}
		}
		bytes := int64(0)
		for _, s := range q.Stats() {
			bytes += s.Bytes
		}
		if bytes > int64(total+maxRanges*len(queued)*(overhead+128)) {
			t.Fatalf("%d bytes held, bound %d", bytes, total)
		}
	}
	for _, e := range leased {
		q.Return(e)
	}
	for {
		e, ok := tryNext(q)
		if !ok {
			break
		}
		deliver(e)
	}
	for _, class := range queued {
		last := stamper.Stamp(class).Seq - 1
		missing := uint64(0)
		for seq := uint64(1); seq <= last; seq++ {
			if delivered[class][seq] {
				continue
			}
			missing++
			covered := false
			for _, g := range gaps {
				covered = covered || g.Class == class && g.FromSeq <= seq && seq <= g.ToSeq
			}
			if !covered {
				t.Errorf("%s %d of %d neither delivered nor in a gap", class, seq, last)
			}
		}
		counted := uint64(0)
		for _, g := range gaps {
			if g.Class == class {
				counted += g.Count
			}
		}
		if counted != missing {
			t.Errorf("%s: gaps count %d, %d are missing", class, counted, missing)
		}
	}
	if missing := q.byClass(ClassTelemetry).dropped; missing == 0 {
		t.Error("the load dropped nothing: the test tests nothing")
	}
}

func TestRAMQueueConcurrent(t *testing.T) {
	q := NewRAMQueue(RAMOptions{Stamper: newStamper(t), MaxEntries: map[Class]int{ClassTelemetry: 50}})
	ctx, cancel := context.WithCancel(context.Background())
	var puts, takes sync.WaitGroup
	for range 3 {
		puts.Go(func() {
			for range 500 {
				put(t, q, ClassTelemetry, `{"a":1}`)
				q.Stats()
			}
		})
		takes.Go(func() {
			for {
				e, err := q.Next(ctx)
				if err != nil {
					return
				}
				if e.Header.Seq%5 == 0 && e.Message.Kind == KindTelemetry && time.Now().UnixNano()%2 == 0 {
					q.Return(e)
				} else {
					q.Done(e)
				}
			}
		})
	}
	puts.Wait()
	cancel()
	takes.Wait()
}
