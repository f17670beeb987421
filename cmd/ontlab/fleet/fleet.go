// Package fleet plays many gateways: real sessions of transport/mqtt, in one
// process, against a real broker. It measures how a fleet comes back after an
// outage, has a model of the same for fleets that no machine can play, and a
// relay that cuts connections at chosen packets.
//
// Load generators of other kinds speak MQTT; this one speaks it exactly as
// ontagent does, because it is the same code.
package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"ontagent/transport"
	"ontagent/transport/mqtt"
)

// MaxGateways is the most that Options take: the device ids have seven digits.
const MaxGateways = 1_000_000

// PerSource is how many gateways connect from one address: a little less than
// Linux has ports for it by default.
const PerSource = 25_000

// Options configure a Fleet.
type Options struct {
	// Dial says how to reach the broker. ClientID is set by each gateway,
	// SourceAddress where there are Sources.
	Dial     mqtt.Options
	Tenant   string
	Gateways int // 1 to MaxGateways
	// Sources are the addresses to connect from, used by PerSource gateways
	// each. nil means as the kernel chooses, or for a broker on 127.0.0.0/8
	// as many addresses of it as are needed.
	Sources []string
	Backoff mqtt.Backoff
	// Telemetry is how often each gateway sends a message, of some 100 bytes.
	// 0 means never.
	Telemetry time.Duration
}

// Fleet is many gateways. It is made by New and runs once.
type Fleet struct {
	o       Options
	began   time.Time
	members []*member
}

// member is one gateway.
type member struct {
	device *mqtt.Device
	queue  *transport.RAMQueue
	due    time.Time // next telemetry; owned by feed
}

// Sample is the state of a fleet. Counters are those since its start.
type Sample struct {
	AtS         float64 `json:"at_s"` // since the start
	Gateways    int     `json:"gateways"`
	Connected   int     `json:"connected"`
	Attempts    uint64  `json:"attempts"`
	Connections uint64  `json:"connections"` // attempts that succeeded
	Published   uint64  `json:"published"`   // acknowledged by the broker, births not included
	// Errors are the attempts that failed and the connections that were lost;
	// an attempt under way counts as well.
	Errors    uint64 `json:"errors"`
	BytesIn   int64  `json:"bytes_in"`  // above TLS
	BytesOut  int64  `json:"bytes_out"` // above TLS
	LastError string `json:"last_error,omitempty"`
}

// clock is the machine's.
type clock struct{ start time.Time }

// Wall implements transport.Clock.
func (clock) Wall() (int64, string) { return time.Now().UnixMilli(), transport.ClockNTP }

// Uptime implements transport.Clock.
func (c clock) Uptime() time.Duration { return time.Since(c.start) }

// New makes a fleet that has not begun to connect. Its gateways are called
// FLEET0000000, FLEET0000001 and so on, and their epoch is the time in seconds.
func New(o Options) (*Fleet, error) {
	if o.Gateways < 1 || o.Gateways > MaxGateways {
		return nil, fmt.Errorf("cannot make fleet of %d gateways: not 1–%d", o.Gateways, MaxGateways)
	}
	if o.Sources == nil {
		o.Sources = loopbackSources(o)
	}
	if n := max(1, len(o.Sources)) * PerSource; o.Gateways > n {
		return nil, fmt.Errorf("cannot make fleet of %d gateways: %d source addresses are enough for %d", o.Gateways, max(1, len(o.Sources)), n)
	}
	f := &Fleet{o: o, began: time.Now(), members: make([]*member, o.Gateways)}
	epoch := uint64(f.began.Unix())
	for i := range f.members {
		m, err := f.newMember(i, epoch)
		if err != nil {
			return nil, fmt.Errorf("cannot make gateway %d of fleet: %w", i, err)
		}
		f.members[i] = m
	}
	return f, nil
}

// loopbackSources returns the addresses that a fleet needs on this machine, nil
// if one is enough or the broker is elsewhere.
func loopbackSources(o Options) []string {
	u, err := url.Parse(o.Dial.Broker)
	if err != nil || o.Gateways <= PerSource {
		return nil
	}
	host, err := netip.ParseAddr(u.Hostname())
	if err != nil || !host.Is4() || !host.IsLoopback() {
		return nil
	}
	var all []string
	for i := range (o.Gateways + PerSource - 1) / PerSource {
		all = append(all, netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + i)}).String())
	}
	return all
}

func (f *Fleet) newMember(i int, epoch uint64) (*member, error) {
	stamper, err := transport.NewStamper(fmt.Sprintf("FLEET%07d", i), epoch, clock{f.began})
	if err != nil {
		return nil, err
	}
	m := &member{queue: transport.NewRAMQueue(transport.RAMOptions{Stamper: stamper, MaxTotal: 8 << 10})}
	o := mqtt.DeviceOptions{
		Dial: f.o.Dial, Tenant: f.o.Tenant, Stamper: stamper, Queue: m.queue, Backoff: f.o.Backoff,
	}
	o.Dial.InboundDepth = 4
	if len(f.o.Sources) > 0 {
		o.Dial.SourceAddress = f.o.Sources[i/PerSource]
	}
	m.device, err = mqtt.New(o)
	return m, err
}

// Serve runs the fleet until ctx ends; then all gateways say goodbye. It
// returns ctx.Err() when all have ended.
func (f *Fleet) Serve(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, m := range f.members {
		wg.Go(func() { _ = m.device.Serve(ctx) })
	}
	if f.o.Telemetry > 0 {
		wg.Go(func() { f.feed(ctx) })
	}
	wg.Wait()
	return ctx.Err()
}

// feed puts telemetry into all queues, evenly spread over the interval.
func (f *Fleet) feed(ctx context.Context) {
	const step = 50 * time.Millisecond
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	now := time.Now()
	for _, m := range f.members {
		m.due = now.Add(time.Duration(rand.Int64N(int64(f.o.Telemetry)))) //nolint:gosec // no secret
	}
	for n := 1; ; n++ {
		select {
		case now = <-ticker.C:
		case <-ctx.Done():
			return
		}
		for _, m := range f.members {
			if now.Before(m.due) {
				continue
			}
			m.due = m.due.Add(f.o.Telemetry)
			body, err := transport.EncodeFields([]transport.Field{{Key: "cpu_load", Value: float64(n%100) / 100}, {Key: "mem_available_kb", Value: n}})
			if err != nil {
				continue // cannot be: two numbers
			}
			_ = m.queue.Put(ctx, transport.Message{Class: transport.ClassTelemetry, Kind: transport.KindTelemetry, Name: "host", Body: body})
		}
	}
}

// Sample asks all gateways. It takes about a microsecond for each.
func (f *Fleet) Sample() Sample {
	s := Sample{AtS: time.Since(f.began).Seconds(), Gateways: len(f.members)}
	for _, m := range f.members {
		d := m.device.Status()
		s.Attempts += d.Attempts
		s.Connections += d.Connections
		s.Published += d.Published
		s.BytesIn += d.BytesIn
		s.BytesOut += d.BytesOut
		if d.Connected {
			s.Connected++
		} else if d.LastError != "" {
			s.LastError = d.LastError
		}
	}
	s.Errors = s.Attempts - uint64(s.Connected)
	return s
}
