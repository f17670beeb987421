package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/transport"
	"ontagent/transport/durable"
)

const testDevice = "HWTC12345678"

// testClock is a clock that tests move.
type testClock struct{ now time.Time }

func newClock() *testClock { return &testClock{time.Unix(1700000000, 0)} }

func (c *testClock) Wall() (int64, string) { return c.now.UnixMilli(), transport.ClockNTP }
func (c *testClock) Uptime() time.Duration { return c.now.Sub(time.Unix(1700000000, 0)) + time.Hour }
func (c *testClock) Now() time.Time        { return c.now }
func (c *testClock) pass(d time.Duration)  { c.now = c.now.Add(d) }

// spooler opens queues in one directory, each time in the next epoch.
type spooler struct {
	*testing.T
	clock *testClock
	o     Options
	epoch uint64
}

func newSpooler(t *testing.T) *spooler {
	t.Helper()
	clock := newClock()
	return &spooler{T: t, clock: clock, o: Options{FS: durable.OS{}, Dir: filepath.Join(t.TempDir(), "spool"), Now: clock.Now}}
}

func (s *spooler) open() *Queue {
	s.Helper()
	s.epoch++
	st, err := transport.NewStamper(testDevice, s.epoch, s.clock)
	if err != nil {
		s.Fatal(err)
	}
	o := s.o
	o.Stamper = st
	q, err := Open(o)
	if err != nil {
		s.Fatal(err)
	}
	return q
}

func message(class transport.Class, body string) transport.Message {
	m := transport.Message{Class: class, Body: json.RawMessage(body)}
	m.Kind, m.Name = map[transport.Class]transport.Kind{
		transport.ClassRecord: transport.KindRecord, transport.ClassEvent: transport.KindEvent,
	}[class], "link"
	if m.Kind == "" {
		m.Kind = transport.KindTelemetry
	}
	return m
}

func put(t *testing.T, q *Queue, class transport.Class, body string) {
	t.Helper()
	if err := q.Put(context.Background(), message(class, body)); err != nil {
		t.Fatal(err)
	}
}

func tryNext(q *Queue) (transport.Entry, bool) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	e, err := q.Next(ctx)
	return e, err == nil
}

func next(t *testing.T, q *Queue) transport.Entry {
	t.Helper()
	e, ok := tryNext(q)
	if !ok {
		t.Fatal("queue is empty")
	}
	return e
}

func id(e transport.Entry) string {
	s := fmt.Sprintf("%s/%d/%d", e.Header.Class, e.Header.Epoch, e.Header.Seq)
	if e.Message.Name == transport.EventGap {
		s += " " + string(e.Message.Body)
	}
	return s
}

// drain takes everything that is there.
func drain(q *Queue) []string {
	var got []string
	for {
		e, ok := tryNext(q)
		if !ok {
			return got
		}
		got = append(got, id(e))
		q.Done(e)
	}
}

func wantIDs(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOrder(t *testing.T) {
	s := newSpooler(t)
	q := s.open()
	for _, class := range []transport.Class{
		transport.ClassDebug, transport.ClassTelemetry, transport.ClassTelemetry, transport.ClassEvent,
		transport.ClassRecord, transport.ClassRecord,
	} {
		put(t, q, class, `{}`)
	}
	wantIDs(t, drain(q), "record/1/1", "record/1/2", "event/1/1", "telemetry/1/1", "telemetry/1/2", "debug/1/1")
}

func TestSurvivesRestart(t *testing.T) {
	s := newSpooler(t)
	q := s.open()
	put(t, q, transport.ClassRecord, `{"a":1}`)
	put(t, q, transport.ClassEvent, `{"b":2}`)
	want := []transport.Entry{next(t, q), next(t, q)}
	put(t, q, transport.ClassTelemetry, `{}`) // in memory

	q = s.open()
	for i := range want {
		want[i].Queued = time.Time{}
	}
	got := []transport.Entry{next(t, q), next(t, q)}
	// The restart gaps are live, what was stored waits behind them.
	var gaps []string
	for len(got) > 0 && got[0].Header.Epoch == 2 {
		gaps = append(gaps, id(got[0]))
		q.Done(got[0])
		got = got[1:]
		if e, ok := tryNext(q); ok {
			got = append(got, e)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	wantIDs(t, gaps,
		`event/2/1 {"gap_class":"record","gap_epoch":1,"from_seq":2,"reason":"restart"}`,
		`event/2/2 {"gap_class":"event","gap_epoch":1,"from_seq":2,"reason":"restart"}`,
		`event/2/3 {"gap_class":"telemetry","gap_epoch":1,"from_seq":1,"reason":"restart"}`)
}

func TestCleanEndTellsNothing(t *testing.T) {
	s := newSpooler(t)
	q := s.open()
	put(t, q, transport.ClassRecord, `{"a":1}`)
	put(t, q, transport.ClassTelemetry, `{"b":2}`)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if err := q.Put(context.Background(), message(transport.ClassRecord, `{}`)); !errors.Is(err, transport.ErrNotDurable) {
		t.Errorf("Put after Close: %v", err)
	}
	q = s.open()
	wantIDs(t, drain(q), "record/1/1", "telemetry/1/1")
}
