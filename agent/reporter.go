package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/collectors"
	"ontagent/transport"
)

// Reporter turns what the parts say into queued messages. It implements
// collectors.Sink and is safe for concurrent use. Samples never block; events,
// job states and records take as long as the queue needs to make them durable.
type Reporter struct {
	Queue transport.Queue
	Log   *slog.Logger
}

// Samples queues one telemetry message per sample: flat, with the subject
// beside the fields.
func (r *Reporter) Samples(collector string, _ time.Time, samples []collectors.Sample) {
	for _, s := range samples {
		fields := make([]transport.Field, 0, len(s.Fields)+1)
		if s.Subject != "" {
			fields = append(fields, transport.Field{Key: "subject", Value: s.Subject})
		}
		for _, f := range s.Fields {
			fields = append(fields, transport.Field(f))
		}
		r.put(transport.ClassTelemetry, transport.KindTelemetry, collector, fields)
	}
}

// Event queues one event message.
func (r *Reporter) Event(e collectors.Event) {
	fields := make([]transport.Field, 0, len(e.Fields)+4)
	if e.Subject != "" {
		fields = append(fields, transport.Field{Key: "subject", Value: e.Subject})
	}
	fields = append(fields,
		transport.Field{Key: "what", Value: e.What},
		transport.Field{Key: "before", Value: e.Before},
		transport.Field{Key: "after", Value: e.After},
	)
	for _, f := range e.Fields {
		fields = append(fields, transport.Field(f))
	}
	r.put(transport.ClassEvent, transport.KindEvent, e.Type, fields)
}

func (r *Reporter) put(class transport.Class, kind transport.Kind, name string, fields []transport.Field) {
	body, err := transport.EncodeFields(fields)
	if err != nil {
		r.Log.Error("cannot encode reading", "kind", kind, "name", name, "error", err)
		return
	}
	r.enqueue(transport.Message{Class: class, Kind: kind, Name: name, Body: body})
}

// Status queues a change of a granted job.
func (r *Reporter) Status(st job.Status) { r.status(transport.ClassRecord, st) }

// Answer queues a status that changes nothing: a refusal, a challenge, the
// stored answer to a command that came again. Whoever can reach the gateway can
// cause those: a flood of them must not push a record out of the queue.
func (r *Reporter) Answer(st job.Status) { r.status(transport.ClassDebug, st) }

func (r *Reporter) status(class transport.Class, st job.Status) {
	if !transport.ValidName(st.ID) {
		return // a request that did not even name a usable id
	}
	body, err := json.Marshal(st)
	if err != nil {
		r.Log.Error("cannot encode job status", "job", st.ID, "error", err)
		return
	}
	r.enqueue(transport.Message{Class: class, Kind: transport.KindStatus, Name: st.ID, Body: body})
}

// RecordMessage is the body of record/<order>.
type RecordMessage struct {
	Order  string         `json:"order"`
	Record order.Envelope `json:"record"`
}

// Record queues a closed record.
func (r *Reporter) Record(orderID string, env order.Envelope) {
	body, err := json.Marshal(RecordMessage{Order: orderID, Record: env})
	if err != nil {
		r.Log.Error("cannot encode record", "order", orderID, "error", err)
		return
	}
	r.enqueue(transport.Message{Class: transport.ClassRecord, Kind: transport.KindRecord, Name: orderID, Body: body})
}

// Heartbeat queues the gateway's own state: how long its chains are, what its
// queue holds.
func (r *Reporter) Heartbeat(fields []transport.Field) {
	r.put(transport.ClassTelemetry, transport.KindTelemetry, "heartbeat", fields)
}

// AuditMessage is the body of event/audit: one entry of the audit chain. The
// chain runs over exact bytes, so the line travels as it stands on flash.
type AuditMessage struct {
	N    uint64 `json:"audit_n"`
	Line string `json:"audit_line"`
}

// Audit queues an entry of the audit chain.
func (r *Reporter) Audit(n uint64, line []byte) {
	body, err := json.Marshal(AuditMessage{N: n, Line: string(line)})
	if err != nil {
		r.Log.Error("cannot encode audit entry", "n", n, "error", err)
		return
	}
	r.enqueue(transport.Message{Class: transport.ClassRecord, Kind: transport.KindEvent, Name: "audit", Body: body})
}

func (r *Reporter) enqueue(m transport.Message) {
	err := r.Queue.Put(context.Background(), m)
	switch {
	case err == nil:
	case errors.Is(err, transport.ErrNotDurable):
		// The queue's own health says why, once; this is one of many.
		r.Log.Debug("message is in memory only", "kind", m.Kind, "name", m.Name, "error", err)
	default:
		r.Log.Error("cannot queue message", "kind", m.Kind, "name", m.Name, "error", err)
	}
}
