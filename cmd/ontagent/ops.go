package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"ontagent/agent"
	"ontagent/agent/control"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/collectors"
	"ontagent/transport"
	"ontagent/transport/mqtt"
	"ontagent/transport/spool"
)

// localServer answers the verbs of whoever may open the socket: root.
func (d *daemon) localServer() *control.Server {
	return &control.Server{MaxConns: 4, Log: d.log, Ops: map[string]control.Op{
		control.OpStatus:   d.opStatus,
		control.OpCollect:  d.opCollect,
		control.OpOptics:   d.opOptics,
		control.OpQueue:    d.opQueue,
		control.OpDiagnose: d.opDiagnose,
		control.OpRecent:   d.opRecent,

		control.OpInspections: d.opInspections,
		control.OpSubmit:      d.opSubmit,
	}}
}

// lanServer answers a technician in the house: nothing but signed envelopes.
func (d *daemon) lanServer() *control.Server {
	limiter := control.NewLimiter(10, 3*time.Second, time.Now)
	return &control.Server{
		MaxConns: 3, MaxRequests: 16, Patience: 10 * time.Second, Admit: limiter.Admit, Log: d.log,
		Ops: map[string]control.Op{
			control.OpHello:  d.opHello,
			control.OpSubmit: d.opSubmit,
		},
	}
}

func (d *daemon) opHello(_ context.Context, _ json.RawMessage, send control.Send) error {
	h := control.Hello{Device: d.c.Main.Device, Tenant: d.c.Main.Tenant, Version: version}
	if d.authority != nil {
		if _, env, ok := d.authority.Trust(); ok {
			h.Trust = &env
		}
	}
	if env, err := d.statement(); err == nil {
		h.Statement = &env
	}
	return send(control.KindHello, h)
}

// opSubmit takes a request and tells what becomes of it until its end.
func (d *daemon) opSubmit(ctx context.Context, args json.RawMessage, send control.Send) error {
	id, ok := order.CommandID(args)
	if !ok || d.jobs == nil {
		return send(control.KindStatus, d.submit("", args))
	}
	changes, stop := d.jobs.Watch(id)
	defer stop()
	answer := d.submit("", args)
	last := answer
	if answer.State == job.Rejected || answer.State == job.Challenge || answer.State.Terminal() {
		if err := send(control.KindStatus, answer); err != nil {
			return err
		}
		return d.sendRecord(answer, send)
	}
	// A change that found no room in the channel is caught by looking.
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for !last.State.Terminal() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case last = <-changes:
		case <-look.C:
			st, ok := d.jobs.Get(id)
			if !ok || !st.State.Terminal() || len(changes) > 0 {
				continue
			}
			last = st
		}
		if err := send(control.KindStatus, last); err != nil {
			return err
		}
	}
	return d.sendRecord(last, send)
}

func (d *daemon) sendRecord(st job.Status, send control.Send) error {
	if st.RecordSHA == "" {
		return nil
	}
	data, err := d.records.Find(st.ID)
	if err != nil {
		return err
	}
	env, err := order.ParseEnvelope(data)
	if err != nil {
		return fmt.Errorf("cannot read record: %w", err)
	}
	return send(control.KindRecord, env)
}

// agentStatus is what `ontagent status` shows.
type agentStatus struct {
	Version      string                 `json:"version"`
	Device       string                 `json:"device"`
	Tenant       string                 `json:"tenant"`
	Epoch        uint64                 `json:"epoch"`
	RunningS     float64                `json:"running_s"`
	Clock        string                 `json:"clock"`
	Time         string                 `json:"time"`
	TrustVersion uint64                 `json:"trust_version"`      // 0: no trust list
	Statement    bool                   `json:"statement"`          // the operator vouches for our keys
	Refusing     string                 `json:"refusing,omitempty"` // why every command is refused
	Records      uint64                 `json:"records"`            // closed so far
	Job          *job.Status            `json:"job,omitempty"`
	MQTT         *mqtt.Status           `json:"mqtt,omitempty"`
	Queue        []transport.ClassStats `json:"queue"`
	Spool        spool.Health           `json:"spool"`
	Settings     settings               `json:"settings"`
	Collectors   []collectorStatus      `json:"collectors"`
}

type collectorStatus struct {
	Name      string  `json:"name"`
	AgeS      float64 `json:"age_s"`
	LastError string  `json:"last_error,omitempty"`
	NoData    bool    `json:"no_data,omitempty"`
	Stuck     bool    `json:"stuck,omitempty"`
	Runs      uint64  `json:"runs"`
	Failures  uint64  `json:"failures"`
}

func (d *daemon) opStatus(_ context.Context, _ json.RawMessage, send control.Send) error {
	now, quality := d.clock.Reading()
	st := agentStatus{
		Version: version, Device: d.c.Main.Device, Tenant: d.c.Main.Tenant, Epoch: d.epoch,
		RunningS: time.Since(d.started).Seconds(), Clock: string(quality), Time: now.Format(time.RFC3339),
		Queue: d.queue.Stats(), Spool: d.queue.Health(),
	}
	if d.authority != nil {
		trust, _, _ := d.authority.Trust()
		st.TrustVersion = trust.Version
		st.Records, _ = d.records.Head()
		if running, ok := d.jobs.Running(); ok {
			st.Job = &running
		}
	}
	if d.refusing != nil {
		st.Refusing = d.refusing.Detail
	}
	_, err := d.statement()
	st.Statement = err == nil
	if d.mqtt != nil {
		s := d.mqtt.Status()
		st.MQTT = &s
		d.settingsMu.Lock()
		st.Settings = d.settings
		d.settingsMu.Unlock()
	}
	for _, h := range d.registry.Health() {
		st.Collectors = append(st.Collectors, collectorStatus{
			Name: h.Name, AgeS: h.Age.Seconds(), LastError: h.LastError, NoData: h.NoData, Stuck: h.Stuck,
			Runs: h.Runs, Failures: h.Failures,
		})
	}
	return send(control.KindAgent, st)
}

// collected is one collector's answer, for the local verbs.
type collected struct {
	Collector string            `json:"collector"`
	Samples   []json.RawMessage `json:"samples,omitempty"`
	Error     string            `json:"error,omitempty"`
	DurationS float64           `json:"duration_s"`
}

func collectedOf(results []collectors.Result) []collected {
	out := make([]collected, 0, len(results))
	for _, r := range results {
		c := collected{Collector: r.Collector, Error: resultError(r.Err), DurationS: r.Duration.Seconds()}
		for _, s := range r.Samples {
			fields := make([]transport.Field, 0, len(s.Fields)+1)
			if s.Subject != "" {
				fields = append(fields, transport.Field{Key: "subject", Value: s.Subject})
			}
			for _, f := range s.Fields {
				fields = append(fields, transport.Field(f))
			}
			body, err := transport.EncodeFields(fields)
			if err != nil {
				c.Error = err.Error()
				continue
			}
			c.Samples = append(c.Samples, body)
		}
		out = append(out, c)
	}
	return out
}

func (d *daemon) opCollect(ctx context.Context, _ json.RawMessage, send control.Send) error {
	return send(control.KindCollect, collectedOf(collectOnce(ctx, d.registry)))
}

func (d *daemon) opOptics(ctx context.Context, _ json.RawMessage, send control.Send) error {
	return send(control.KindOptics, d.sources.readOptics(ctx))
}

// looked is a ladder, and what telemetry saw before it.
type looked struct {
	agent.Result
	Recent recent `json:"recent"`
}

func (d *daemon) opDiagnose(ctx context.Context, _ json.RawMessage, send control.Send) error {
	select {
	case d.looking <- struct{}{}:
		defer func() { <-d.looking }()
	default:
		return errors.New("another local diagnosis is running")
	}
	var lost error
	result, err := d.visits.Look(ctx, func(p job.Progress) {
		if lost == nil {
			lost = send(control.KindProgress, p)
		}
	})
	if err != nil {
		return err
	}
	return send(control.KindResult, looked{result, d.recent()})
}
