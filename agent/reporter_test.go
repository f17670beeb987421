package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"ontagent/agent/job"
	"ontagent/collectors"
	"ontagent/transport"
)

type stillClock struct{}

func (stillClock) Wall() (int64, string) { return 1_700_000_000_000, "ntp" }
func (stillClock) Uptime() time.Duration { return time.Hour }

func newReporter(t *testing.T) (*Reporter, *transport.RAMQueue) {
	t.Helper()
	stamper, err := transport.NewStamper("HWTC12345678", 1, stillClock{})
	if err != nil {
		t.Fatal(err)
	}
	q := transport.NewRAMQueue(transport.RAMOptions{Stamper: stamper})
	return &Reporter{Queue: q, Log: slog.New(slog.DiscardHandler)}, q
}

// next returns what the queue would send, as a consumer decodes it.
func next(t *testing.T, q transport.Queue) (transport.Entry, map[string]any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	e, err := q.Next(ctx)
	if err != nil {
		t.Fatalf("nothing was queued: %v", err)
	}
	payload, err := transport.Encode(e.Header, e.Message.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, body, err := transport.Decode(payload)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil {
		t.Fatal(err)
	}
	return e, fields
}

func TestEventCarriesBeforeAndAfter(t *testing.T) {
	r, q := newReporter(t)
	r.Event(collectors.Event{
		Type: "link", Subject: "lan0", What: "carrier", Before: "up", After: "down",
		Fields: []collectors.Field{collectors.F("ifindex", int64(3))},
	})
	e, fields := next(t, q)
	if e.Message.Class != transport.ClassEvent || e.Message.Name != "link" || fields["subject"] != "lan0" ||
		fields["what"] != "carrier" || fields["before"] != "up" || fields["after"] != "down" || fields["ifindex"] != 3.0 {
		t.Errorf("%+v %v", e.Message, fields)
	}
}

func TestStatusWithoutAUsableIDGoesNowhere(t *testing.T) {
	r, q := newReporter(t)
	r.Answer(job.Status{ID: "a/b", State: job.Rejected})
	r.Answer(job.Status{ID: "abc", State: job.Rejected, Reason: "malformed"})
	if e, fields := next(t, q); e.Message.Class != transport.ClassDebug || e.Message.Name != "abc" || fields["state"] != "REJECTED" || fields["reason"] != "malformed" {
		t.Errorf("%+v %v", e.Message, fields)
	}
}

func TestAnswersNeverPushOutWhatHappened(t *testing.T) {
	r, q := newReporter(t)
	r.Status(job.Status{ID: "abc", State: job.Succeeded, CommandType: "accept"})
	for range 2000 { // a captured command sent again and again, while the line is down
		r.Answer(job.Status{ID: "abc", State: job.Succeeded, CommandType: "accept", Detail: "again"})
	}
	if e, fields := next(t, q); e.Message.Class != transport.ClassRecord || fields["detail"] != nil {
		t.Errorf("class %s, %v", e.Message.Class, fields)
	}
}

// volatile is a queue that takes everything and makes nothing durable.
type volatile struct{ transport.Queue }

func (q volatile) Put(ctx context.Context, m transport.Message) error {
	if err := q.Queue.Put(ctx, m); err != nil {
		return err
	}
	return transport.ErrNotDurable
}

func TestWhatIsNotDurableIsToldAllTheSame(t *testing.T) {
	r, q := newReporter(t)
	var log bytes.Buffer
	r.Log = slog.New(slog.NewTextHandler(&log, nil))
	r.Queue = volatile{q}
	r.Audit(7, []byte(`{"n":7,"prev":"ab"}`))
	e, fields := next(t, q)
	if e.Message.Class != transport.ClassRecord || e.Message.Kind != transport.KindEvent || e.Message.Name != "audit" ||
		fields["audit_n"] != 7.0 || fields["audit_line"] != `{"n":7,"prev":"ab"}` {
		t.Errorf("%+v %v", e.Message, fields)
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", log.String())
	}
}
