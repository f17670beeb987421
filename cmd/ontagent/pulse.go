package main

import (
	"context"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/clock"
	"ontagent/collectors"
	"ontagent/transport"
)

const (
	heartbeatInterval = time.Minute
	clockInterval     = 2 * time.Second
)

// clockSet tells that the time is known: the header of this event has it beside
// the uptime, which dates everything else of this start.
func (d *daemon) clockSet(s clock.Sync) {
	d.log.Info("clock is set", "reason", s.Why, "step_s", s.Step.Seconds())
	d.reporter.Event(collectors.Event{
		Type: "sync", What: string(s.Why), Fields: []collectors.Field{collectors.F("step_s", s.Step.Seconds())},
	})
	d.watching.faults.ClockSet()
}

// pulse tells at the start and once a minute how the gateway itself is: silence
// must not look like health. When the power is about to go, and something says so by SIGPWR,
// it puts what waits on flash.
func (d *daemon) pulse(ctx context.Context) error {
	power := make(chan os.Signal, 1)
	signal.Notify(power, unix.SIGPWR)
	defer signal.Stop(power)
	ticker := time.NewTicker(heartbeatInterval)
	defer ticker.Stop()
	d.reporter.Heartbeat(d.heartbeat())
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-power:
			if err := d.queue.Flush(); err != nil {
				d.log.Error("cannot put what waits on flash", "error", err)
			}
		case now := <-ticker.C:
			d.reporter.Samples("collector", now, d.registry.HealthSamples())
			d.reporter.Heartbeat(d.heartbeat())
		}
	}
}

// heartbeat carries the ends of the chains: who keeps them finds out later
// whether something was cut off.
func (d *daemon) heartbeat() []transport.Field {
	health := d.queue.Health()
	var unconfirmed int
	var dropped, gaps uint64
	var flash int64
	fields := []transport.Field{{Key: "spool_degraded", Value: health.Degraded}}
	for _, s := range d.queue.Stats() {
		fields = append(fields, transport.Field{Key: "queue_" + string(s.Class), Value: s.Depth})
		unconfirmed += s.Unconfirmed
		dropped += s.Dropped
		gaps += s.Gaps
		flash += s.FlashBytes
	}
	fields = append(fields,
		transport.Field{Key: "unconfirmed", Value: unconfirmed},
		transport.Field{Key: "dropped_total", Value: dropped},
		transport.Field{Key: "gaps_total", Value: gaps},
		transport.Field{Key: "spool_flash_bytes", Value: flash},
	)
	if d.trail != nil {
		head := d.trail.Head()
		fields = append(fields, transport.Field{Key: "audit_n", Value: head.N}, transport.Field{Key: "audit_sha256", Value: head.SHA256})
	}
	if d.records != nil {
		n, digest := d.records.Head()
		fields = append(fields, transport.Field{Key: "record_n", Value: n}, transport.Field{Key: "record_sha256", Value: digest})
	}
	if d.mqtt != nil {
		s := d.mqtt.Status()
		fields = append(fields, transport.Field{Key: "mqtt_sessions", Value: s.Connections})
		if c := s.Certificate; c != nil && !c.NotAfter.IsZero() {
			fields = append(fields, transport.Field{Key: "cert_days_left", Value: c.DaysLeft})
		}
	}
	return fields
}
