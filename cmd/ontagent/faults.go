package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"time"

	"ontagent/agent"
	"ontagent/agent/acceptance"
	"ontagent/agent/clock"
	"ontagent/agent/diagnosis"
	"ontagent/agent/fault"
	"ontagent/agent/history"
	"ontagent/agent/inspect"
	stock "ontagent/agent/inventory"
	"ontagent/agent/order"
	"ontagent/collectors"
)

// watching is what looks at the line between the visits.
type watching struct {
	history     *history.History
	faults      *fault.Tracker
	inventory   *stock.Keeper
	meter       *inspect.Meter
	inspector   *agent.Inspector
	inspections *inspect.Scheduler
	// changed wakes who reads the inventory: something of it may be another.
	changed chan struct{}
	boot    string
}

const (
	historyWindow = history.DefaultWindow
	observeEvery  = 5 * time.Second
	// A start reads the inventory when its sources have had time to come up; what
	// changed is read again soon, to be sure.
	inventoryFirst  = time.Minute
	inventoryEvery  = time.Hour
	inventorySettle = 15 * time.Second
)

// openWatching makes it. It needs what climbs ladders.
func (d *daemon) openWatching() {
	w := &watching{changed: make(chan struct{}, 1), boot: bootID()}
	d.watching = w
	since := func() time.Duration { return time.Since(d.started) }
	w.history = history.New(history.Options{Now: since, Window: historyWindow})
	w.meter = inspect.NewMeter(since)
	limit := func(name string) time.Duration {
		return time.Duration(d.visits.Limits.Limit(name).Value * float64(time.Second))
	}
	w.faults = fault.Open(fault.Options{
		Store: d.kept("faults", fault.MaxState), Publish: func(e fault.Event) { d.reporter.Document("fault", e) }, Opened: d.faultOpened, Moment: d.faultMoment,
		Limits: fault.Limits{
			Respond: limit(acceptance.FaultRespond), Line: limit(acceptance.FaultLineDue), Network: limit(acceptance.FaultNetworkDue),
		},
		Standing: w.history.Standing, Epoch: d.epoch, Log: d.log.With("part", "fault"),
	})
	w.history.Remember(w.faults.Standing())
	w.inventory = stock.Open(stock.Options{
		Store: d.kept("inventory", stock.MaxState), Publish: d.reporter.Event, Log: d.log.With("part", "inventory"),
	})
	d.openInspections()
}

// bootID tells this boot from others; empty where the kernel does not say.
func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it every start is another boot
	return strings.TrimSpace(string(data))
}

// faultMoment is now, dated only by a clock that can be relied on.
func (d *daemon) faultMoment() fault.Moment {
	m := fault.Moment{Uptime: d.clock.Uptime(), Boot: d.watching.boot, Clock: fault.ClockNone}
	if utc, trusted := d.clock.Now(); trusted {
		m.UTC, m.Clock = utc, fault.ClockSigned
		if _, quality := d.clock.Reading(); quality == clock.NTP {
			m.Clock = fault.ClockNTP
		}
	}
	return m
}

// observe shows the last minutes to who keeps track of faults. A line on which
// nothing changes costs nothing.
func (d *daemon) observe(ctx context.Context) error {
	ticker := time.NewTicker(observeEvery)
	defer ticker.Stop()
	var seen uint64
	look := diagnosis.FromHappenings(d.watching.history.Recent())
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if v := d.watching.history.Version(); v != seen {
			seen, look = v, diagnosis.FromHappenings(d.watching.history.Recent())
		}
		d.watching.faults.Observe(look)
	}
}

// takeStock reads the inventory: at the start, now and then, and when something
// says that it may be another.
func (d *daemon) takeStock(ctx context.Context) error {
	timer := time.NewTimer(inventoryFirst)
	defer timer.Stop()
	again := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.watching.changed:
			again = true
		case <-timer.C:
		}
		d.watching.inventory.Observe(d.readInventory(ctx))
		if again {
			timer.Reset(inventorySettle)
		} else {
			timer.Reset(inventoryEvery)
		}
		again = false
	}
}

// readInventory reads what is installed. What can't be read is empty.
func (d *daemon) readInventory(ctx context.Context) []stock.Item {
	ctx, cancel := context.WithTimeout(ctx, inventoryFirst)
	defer cancel()
	var items []stock.Item
	add := func(what, value string) { items = append(items, stock.Item{What: what, Value: value}) }
	add(stock.WANPort, d.c.WAN.Device)
	add(stock.LANPort, d.c.WAN.LANPort)
	read, err := inventory{d.sources}.ReadInventory(ctx)
	if err != nil {
		d.log.Debug("cannot read all of the inventory", "error", err)
	}
	add(stock.SN, read.SN)
	port := d.c.WAN.Device
	if port == "" {
		facts, _ := d.sources.wan.Read(ctx) // without a WAN there is no address of it
		port = facts.Interface
	}
	for i := range read.Interfaces {
		if read.Interfaces[i].Name == port {
			add(stock.WANMAC, read.Interfaces[i].MAC)
		}
	}
	best, others, _ := d.sources.optics.Read(ctx) // a source without a module has none
	module := best.Module
	for i := range others {
		if module == nil {
			module = others[i].Module
		}
	}
	if module != nil {
		add(stock.Module, module.String())
	}
	return items
}

// heard takes what a collector told of.
func (w *watching) heard(e collectors.Event) {
	w.history.Event(e)
	switch e.What {
	case "serial", "module", "mac":
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// filed sends a closed record. One of an installation or a move begins another
// line: what was normal before, and how often it failed, says nothing of it.
func (d *daemon) filed(orderID string, env order.Envelope) {
	d.reporter.Record(orderID, env)
	line, begins := beginsLine(env)
	if !begins || d.watching.inventory.Line().Record >= line.Record {
		return // or told again, of a job that was cut short after it
	}
	if err := d.sources.optics.Forget(); err != nil {
		d.log.Warn("cannot begin the line anew", "error", err)
	}
	d.watching.history.Reset()
	d.watching.meter.Reset()
	d.watching.faults.NewLine()
	// Last: a power cut before does all of it again.
	d.watching.inventory.NewLine(line)
	d.log.Info("another line begins", "order", orderID, "record", line.Record)
}

// beginsLine reports whether a record is of an installation or a move, and what
// line begins with it.
func beginsLine(env order.Envelope) (line stock.Line, begins bool) {
	var r struct {
		N              uint64
		Order, Command order.Envelope
	}
	var o order.Order
	var c order.Command
	// This gateway has just written it.
	if json.Unmarshal(content(env), &r) != nil || json.Unmarshal(content(r.Order), &o) != nil || json.Unmarshal(content(r.Command), &c) != nil {
		return line, false
	}
	line.Record = r.N
	for _, s := range o.Services {
		line.DownMbps, line.UpMbps = max(line.DownMbps, s.DownMbps), max(line.UpMbps, s.UpMbps)
	}
	return line, c.Type == order.Accept && (o.Type == order.Install || o.Type == order.Move)
}

// content returns the payload of an envelope that this gateway has verified, or
// made; nothing for any other.
func content(env order.Envelope) []byte {
	data, err := base64.StdEncoding.DecodeString(env.Payload)
	if err != nil {
		return nil
	}
	return data
}
