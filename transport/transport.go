// Package transport is the contract between the agent and whatever carries its
// messages: what a message is, how it is addressed and encoded, and what a
// queue promises.
//
// It knows no protocol. transport/mqtt sends what a Queue holds; the queue here
// lives in memory, and a durable one takes its place behind the same interface.
package transport

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Class orders messages by worth. Sequence numbers run per class.
type Class string

// The classes, most valuable first.
const (
	ClassRecord    Class = "record"    // records and job states
	ClassEvent     Class = "event"     // changes, births, gaps
	ClassTelemetry Class = "telemetry" // periodic samples
	ClassDebug     Class = "debug"
	// ClassSession is on what is made anew for every connection – state, info,
	// pending – and so is never queued: a gap in its numbers means nothing.
	ClassSession Class = "session"
)

// Kind is the topic level behind the device.
type Kind string

// The kinds a device sends.
const (
	KindState     Kind = "state"     // retained; last will
	KindInfo      Kind = "info"      // retained birth
	KindTelemetry Kind = "telemetry" // name: group
	KindEvent     Kind = "event"     // name: type
	KindBackfill  Kind = "backfill"  // name: group; telemetry that had to wait
	KindRecord    Kind = "record"    // name: order
	KindPending   Kind = "pending"   // "send me what waits"
	KindStatus    Kind = "status"    // name: command id
)

// The kinds a device receives.
const (
	KindCommand Kind = "cmd" // name: command id
	KindConfig  Kind = "cfg"
	KindAck     Kind = "ack"
)

// Message is what the agent wants told.
type Message struct {
	Class  Class
	Kind   Kind
	Name   string // last topic level, empty where the kind has none
	Retain bool
	// Body is a JSON object whose keys do not collide with Header's.
	Body json.RawMessage
}

// Header is on every message a device sends. Order is (epoch, class, seq),
// never wall time.
type Header struct {
	V       int     `json:"v"`      // payload version, 1
	Device  string  `json:"device"` // 8–23 letters and digits
	Epoch   uint64  `json:"epoch"`  // raised at every daemon start
	Class   Class   `json:"class"`
	Seq     uint64  `json:"seq"`          // from 1, per epoch and class
	UptimeS float64 `json:"uptime_s"`     // since boot, suspend included
	TimeMS  int64   `json:"time_unix_ms"` // wall clock, as good as Clock says
	Clock   string  `json:"clock"`        // "ntp", "floor", "none"
}

// Entry is a message that a queue has accepted and numbered.
type Entry struct {
	Header  Header
	Message Message
	// Queued is when the queue took it, on the monotonic clock.
	Queued time.Time
}

// ErrNotDurable is what errors.Is finds where a queue accepted a message that
// should be on flash, but holds it in memory only: it will be sent, but a power
// cut loses it.
var ErrNotDurable = errors.New("accepted, but not durable")

// Queue holds messages until they are known to have arrived.
//
// An entry is leased by Next, then either Done (acknowledged by the peer) or
// Return (goes again, with the same header). A queue is bounded: what it drops
// it counts, and reports as a gap event.
type Queue interface {
	// Put accepts m and numbers it. It does not wait for room: what does not
	// fit is dropped by class and age. An error compatible with
	// errors.Is(err, ErrNotDurable) means that m is accepted all the same; any
	// other means that m itself is unfit.
	Put(ctx context.Context, m Message) error
	// Next leases the entry that should go first, waiting until there is one.
	// It returns ctx.Err() when ctx ends.
	Next(ctx context.Context) (Entry, error)
	// Done says that the broker has e. Whether that is enough to forget it is
	// the queue's to know.
	Done(e Entry)
	Return(e Entry)
	Stats() []ClassStats
}

// ClassStats is the state of one class of a queue.
type ClassStats struct {
	Class   Class         `json:"class"`
	Depth   int           `json:"depth"` // entries held, leased and unconfirmed ones included
	Bytes   int64         `json:"bytes"` // of those, in memory and on flash
	Oldest  time.Duration `json:"-"`     // age of the oldest entry, 0 if none or not known
	Dropped uint64        `json:"dropped"`
	// Unconfirmed counts the entries that the broker has and the collector has
	// not yet signed for.
	Unconfirmed int    `json:"unconfirmed"`
	Gaps        uint64 `json:"gaps"` // gap records told since the start
	// Files and FlashBytes are what the class takes on flash.
	Files      int   `json:"files"`
	FlashBytes int64 `json:"flash_bytes"`
}

// Point says that all numbers of a class and epoch up to Seq are accounted for:
// stored by the collector, or reported by the device as dropped.
type Point struct {
	Class Class  `json:"class"`
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// Stored says that the collector keeps a message with this number whose payload
// has this digest: nothing is said of any other message that claims the number.
type Stored struct {
	Class Class  `json:"class"`
	Epoch uint64 `json:"epoch"`
	Seq   uint64 `json:"seq"`
	// SHA256 is of the payload, byte for byte as it was published: 64 hex
	// digits in lower case.
	SHA256 string `json:"sha256"`
}

// Inbound is a message for this device.
type Inbound struct {
	Kind    Kind // KindCommand, KindConfig, KindAck
	Name    string
	Payload []byte
}
