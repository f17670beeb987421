// Package collectors is the contract between what reads the gateway and what
// carries the readings away.
//
// A collector reads one kind of thing – links, optics, the host – cheaply,
// stops when its context ends, and knows no other collector. Packages below
// this one adapt one source each; the agent schedules them through a Registry,
// which keeps one that hangs, panics or fails from delaying the others.
package collectors

import (
	"context"
	"errors"
)

// ErrNoData is returned by a Collector that has nothing to read on this
// gateway (no module cage, no console). It is not a failure.
var ErrNoData = errors.New("no data here")

// A Collector reads one group of facts.
type Collector interface {
	// Name is the telemetry group: a lower-case word, a topic level.
	Name() string
	// Collect reads once. It returns what it could read and, beside it, an
	// error that says what it could not; an error compatible with
	// errors.Is(err, ErrNoData) means there is nothing to read here.
	Collect(ctx context.Context) ([]Sample, error)
}

// A Watcher is a Collector that is also told of changes by its source.
type Watcher interface {
	Collector
	// Watch calls emit for every change until ctx ends or the source fails.
	// It returns ctx.Err() in the first case. emit never blocks for long.
	Watch(ctx context.Context, emit func(Event)) error
}

// Sample is what one collector read about one subject at one moment.
type Sample struct {
	// Subject names what was read: an interface, a PON port. Empty means the
	// gateway itself.
	Subject string
	// Fields in the order they are published, keys unique.
	Fields []Field
}

// Event is a change, with what was before and what is now.
type Event struct {
	// Type is a lower-case word, a topic level: "link", "optics", "pon".
	Type string
	// Subject names what changed; empty means the gateway itself.
	Subject string
	// What names the property that changed: "oper_state", "rx_power".
	What          string
	Before, After string
	// Fields carry further facts, keys unique.
	Fields []Field
}

// Field is one published value. The key is in snake_case and ends in its unit
// where it has one (rx_power_dbm, uptime_s).
type Field struct {
	Key string
	// Value is a bool, int64, uint64, float64 or string; never NaN or Inf.
	Value any
}

// F is shorthand for a Field.
func F(key string, value any) Field { return Field{Key: key, Value: value} }

// Status says whether a Reading holds a value, and if not, why.
type Status string

// The statuses of a reading. Only StatusOK comes with a value.
const (
	StatusOK          Status = "ok"
	StatusNoLight     Status = "no_light"    // the receiver reports darkness
	StatusUnsupported Status = "unsupported" // the source cannot tell
	StatusUntrusted   Status = "untrusted"   // the source answers, but wrongly
	StatusError       Status = "error"       // could not be read
)

// Reading is one measured quantity: never a bare number. The zero Reading has
// no status and means "not asked".
type Reading struct {
	Value  float64 // meaningful only if Status is StatusOK
	Unit   string  // "dBm", "mA", "Cel", "V"
	Status Status
	Source string // backend and place: "console:rtl960x", "module:eth1"
	Raw    string // as the source gave it: "-22.924298  dBm", "0x0024"
}

// OK reports whether r holds a value.
func (r Reading) OK() bool { return r.Status == StatusOK }
