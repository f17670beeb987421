package main

import (
	"errors"
	"fmt"
	"time"

	"ontagent/agent/order"
	"ontagent/collectors"
	"ontagent/transport"
	"ontagent/transport/mqtt"
	"ontagent/transport/spool"
)

// openQueue opens what messages wait in. Where nothing is ever sent, nothing is
// kept on flash.
func (d *daemon) openQueue() error {
	s := d.c.Spool
	o := spool.Options{
		Stamper: d.stamper, Dir: s.Dir, Now: time.Now, Log: d.log.With("part", "spool"),
		BackfillBytesPerSecond: s.BackfillBytesPerS,
		Limits: map[transport.Class]spool.Limits{
			transport.ClassRecord:    {FlashBytes: int64(s.RecordKiB) << 10},
			transport.ClassEvent:     {FlashBytes: int64(s.EventKiB) << 10},
			transport.ClassTelemetry: {FlashBytes: int64(s.TelemetryKiB) << 10},
		},
	}
	if d.onFlash() {
		o.FS = d.fs
	}
	if s.Confirm == "broker" {
		o.Confirm = spool.ByBroker
	}
	var err error
	d.queue, err = spool.Open(o)
	return err
}

// onFlash reports whether what waits is kept on flash.
func (d *daemon) onFlash() bool { return d.c.Spool.Enabled && d.c.MQTT.Enabled }

func (d *daemon) openMQTT() error {
	m := d.c.MQTT
	if !m.Enabled {
		return nil
	}
	var err error
	d.mqtt, err = mqtt.New(mqtt.DeviceOptions{
		Dial: mqtt.Options{
			Broker: m.Broker, Username: m.Username, Password: string(m.Password),
			Interface: m.BindInterface, SourceAddress: m.SourceAddress,
			TLS:               mqtt.TLSOptions{CAFile: m.CAFile, CertFile: m.CertFile, KeyFile: m.KeyFile, ServerName: m.ServerName},
			PersistentSession: m.Session == "persistent",
			KeepAlive:         m.Keepalive,
			Clock:             d.tlsClock,
		},
		Tenant: d.c.Main.Tenant, Stamper: d.stamper, Queue: d.queue, Birth: d.birth, Inbound: d.inbound,
		Backoff:     mqtt.Backoff{Spread: m.Spread, Cap: m.BackoffCap},
		Urgent:      func() bool { return d.authority != nil && d.authority.OrderOpen() },
		Online:      d.queue.Online,
		Certificate: d.certificateChanged,
		Log:         d.log.With("part", "mqtt"),
	})
	if err != nil {
		return fmt.Errorf("%s: %w", d.c.Path, err)
	}
	d.applySettings()
	return nil
}

// tlsClock is the time certificates are judged by. Where the clock is not
// trusted, it may be ahead as well as behind: only the floor has certainly
// passed.
func (d *daemon) tlsClock() (t time.Time, trusted bool) {
	if t, trusted = d.clock.Now(); trusted {
		return t, true
	}
	return d.clock.Floor(), false
}

// certificateChanged tells the NOC what became of the client certificate.
func (d *daemon) certificateChanged(e mqtt.CertificateEvent) {
	event := collectors.Event{Type: "certificate", Subject: e.Subject, What: e.State}
	if !e.NotAfter.IsZero() {
		event.Fields = []collectors.Field{
			collectors.F("not_before", e.NotBefore.Unix()), collectors.F("not_after", e.NotAfter.Unix()),
			collectors.F("days_left", e.DaysLeft),
		}
	}
	d.reporter.Event(event)
}

// inbound takes a message from the broker. Whoever sent it proves nothing by
// having reached us; the envelopes inside do.
func (d *daemon) inbound(in transport.Inbound) {
	var err error
	switch in.Kind {
	case transport.KindCommand:
		d.submit(in.Name, in.Payload)
	case transport.KindConfig:
		err = d.adopt(in.Payload)
	case transport.KindAck:
		err = d.acknowledge(in.Payload)
	default:
		d.log.Debug("ignored message", "kind", in.Kind)
	}
	if err != nil {
		d.log.Warn("refused message", "kind", in.Kind, "error", err)
	}
}

// adopt takes a trust list or settings, and puts them into force.
func (d *daemon) adopt(payload []byte) error {
	env, err := order.ParseEnvelope(payload)
	switch {
	case err != nil:
		return err
	case d.authority == nil:
		return d.refusing
	}
	err = d.authority.AdoptMessage(env)
	d.applySettings() // also after a refusal: a trust list it brought may have revoked a key
	return err
}

// acknowledge lets go what the collector has signed for.
func (d *daemon) acknowledge(payload []byte) error {
	env, err := order.ParseEnvelope(payload)
	switch {
	case err != nil:
		return err
	case d.authority == nil:
		return d.refusing
	}
	ack, err := d.authority.OpenAck(env)
	if err != nil {
		return err
	}
	err = d.queue.Acknowledge(ack.Version, ack.Points)
	if errors.Is(err, spool.ErrStale) {
		return err
	}
	// Also where a point was refused: whoever forges events must not keep
	// records from being confirmed.
	return errors.Join(err, d.queue.Confirm(ack.Version, ack.Stored))
}

// applySettings puts what is set remotely in the place of what the file says.
func (d *daemon) applySettings() {
	if d.authority == nil || d.mqtt == nil {
		return
	}
	s, version, ok := d.authority.Config()
	if !ok {
		s = order.Settings{} // nothing is set, or whoever set it is trusted no more
	}
	in := settings{
		Version: version, Remote: ok,
		SpreadS:           s.Spread(d.c.MQTT.Spread).Seconds(),
		BackoffCapS:       s.BackoffCap(d.c.MQTT.BackoffCap).Seconds(),
		KeepaliveS:        s.Keepalive(d.c.MQTT.Keepalive).Seconds(),
		BackfillBytesPerS: s.BackfillBytesPerSecond(d.c.Spool.BackfillBytesPerS),
	}
	d.settingsMu.Lock()
	defer d.settingsMu.Unlock()
	if in == d.settings {
		return
	}
	d.settings = in
	d.log.Info("transport settings", "remote", ok, "version", version, "spread_s", in.SpreadS,
		"backoff_cap_s", in.BackoffCapS, "keepalive_s", in.KeepaliveS, "backfill_bytes_per_s", in.BackfillBytesPerS)
	d.queue.SetBackfill(in.BackfillBytesPerS)
	err := errors.Join(
		d.mqtt.SetBackoff(mqtt.Backoff{Spread: s.Spread(d.c.MQTT.Spread), Cap: s.BackoffCap(d.c.MQTT.BackoffCap)}),
		d.mqtt.SetKeepAlive(s.Keepalive(d.c.MQTT.Keepalive)),
	)
	if err != nil {
		d.log.Warn("cannot use settings", "version", version, "error", err)
	}
}

// settings are those of the transport that are in force.
type settings struct {
	Version           uint64  `json:"version"` // of the newest cfg taken, 0 if none
	Remote            bool    `json:"remote"`  // that cfg is in force
	SpreadS           float64 `json:"spread_s"`
	BackoffCapS       float64 `json:"backoff_cap_s"`
	KeepaliveS        float64 `json:"keepalive_s"`
	BackfillBytesPerS int     `json:"backfill_bytes_per_s"`
}
