package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"ontagent/transport"
	"ontagent/transport/durable"
)

// Confirmation says what it takes to forget a record or an event.
type Confirmation int

// The confirmations.
const (
	// BySignature keeps records and events until Acknowledge covers them: a
	// broker's PUBACK does not mean that anybody stored them.
	BySignature Confirmation = iota
	// ByBroker forgets them with Done.
	ByBroker
)

// Limits bound one class. A zero field stands for its default.
type Limits struct {
	FlashBytes int64
	Files      int
	// RAMBytes and RAMEntries bound what is not on flash; a message costs its
	// body and 512 bytes.
	RAMBytes   int
	RAMEntries int
}

// Options configure a Queue. The zero value of each but Stamper stands for its
// default.
type Options struct {
	Stamper *transport.Stamper
	// FS is where Dir is. nil means memory only: nothing survives the process,
	// and every Put of a record or event says ErrNotDurable.
	FS  durable.FS
	Dir string
	// Free tells the room of the file system that Dir is on, in bytes. nil
	// means to ask FS, if it is a durable.Space.
	Free    func() (free, total int64, err error)
	Limits  map[transport.Class]Limits
	Confirm Confirmation
	// BackfillBytesPerSecond paces telemetry that had to wait; 0 means 16384.
	BackfillBytesPerSecond int
	// Now tells monotonic time. nil means time.Now.
	Now func() time.Time
	// Log is told of troubles. nil means silence.
	Log *slog.Logger
}

// ErrStale is what errors.Is finds where an acknowledgement is older than one
// taken before.
var ErrStale = errors.New("stale acknowledgement")

const (
	segmentSize     = 64 << 10
	overhead        = 512 // what an entry in memory costs beside its body, in bytes, rounded up
	defaultBackfill = 16 << 10
	offlineGrace    = 30 * time.Second // offline for longer, telemetry goes to flash
	spillBytes      = 8 << 10
	spillAge        = 60 * time.Second
	retryInterval   = 10 * time.Minute
	spaceInterval   = time.Minute // a flash that was full is looked at again
	resendFirst     = 10 * time.Minute
	resendMost      = 24 * time.Hour
	liveRun         = 8  // so many live entries, then a stored one
	eventBurst      = 32 // syncs for events at once,
	eventRate       = 2  // and so many more a second
)

// The classes, most valuable first; the rank of a class is its index. The
// first three have a directory each.
const (
	rankRecord = iota
	rankEvent
	rankTelemetry
	rankDebug
	ranks
	durableRanks = rankDebug
)

// Queue is a transport.Queue on flash. It is safe for concurrent use.
type Queue struct {
	stamper *transport.Stamper
	epoch   uint64
	fs      durable.FS // nil: memory only
	dir     string
	free    func() (free, total int64, err error)
	confirm Confirmation
	now     func() time.Time
	log     *slog.Logger
	start   time.Time     // what the seconds in indexes count from
	kick    chan struct{} // asks Serve for a round; holds one

	// io is held for everything that writes files or removes them, rd for
	// reading bodies, mu for what is in memory. Who holds mu takes neither of
	// the others and waits for nothing; who holds rd does not take io.
	io        sync.Mutex
	cursor    cursorFile // guarded by io
	trying    bool       // events are being written, whatever their trouble was; guarded by io
	restarted bool       // restart gaps of earlier epochs were made; guarded by io

	rd    sync.Mutex
	files [durableRanks]readFile // guarded by rd

	mu       sync.Mutex
	changed  chan struct{} // closed and renewed when Next may find more
	classes  [ranks]class
	online   bool
	since    time.Time // online or not since then
	asked    time.Time // when Next was last called
	run      int       // live entries given in a row
	backfill bucket
	events   bucket // of syncs
	ack      uint64 // version of the latest acknowledgement
	told     uint64 // restart gaps of epochs up to it are told for good
	restart  uint64 // number of the last restart gap of this start while it may be lost; 0 if there is none
	dirty    bool   // the cursor file is behind,
	dirtyAt  time.Time
	drained  int64 // by so many bytes
	damaged  int64 // bytes of segments in which nothing validated
	closed   bool
	flashed  int64 // bytes written
	syncs    int64
	lowSpace bool // telemetry is kept off the flash,
	lowSince time.Time
}

var _ transport.Queue = (*Queue)(nil)

// bucket is a token bucket that may be overdrawn.
type bucket struct {
	rate, burst, tokens float64
	at                  time.Time
}

func (b *bucket) fill(now time.Time) {
	b.tokens = min(b.burst, b.tokens+now.Sub(b.at).Seconds()*b.rate)
	b.at = now
}

// wait returns how long the bucket needs to have something.
func (b *bucket) wait() time.Duration {
	if b.tokens > 0 {
		return 0
	}
	return time.Duration((-b.tokens/b.rate)*float64(time.Second)) + time.Millisecond
}

// Open opens the queue in o.Dir, making the directory if need be. Trouble with
// the flash is no error: the queue then begins in memory, says so in Health,
// and tries again later. An error says what is unusable in o.
func Open(o Options) (*Queue, error) {
	if o.Stamper == nil {
		return nil, errors.New("cannot open spool: no stamper")
	}
	if o.FS != nil && o.Dir == "" {
		return nil, errors.New("cannot open spool: no directory")
	}
	q := &Queue{
		stamper: o.Stamper, epoch: o.Stamper.Epoch(), fs: o.FS, dir: o.Dir, free: o.Free,
		confirm: o.Confirm, now: o.Now, log: o.Log,
		kick: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	if space, ok := o.FS.(durable.Space); ok && q.free == nil {
		q.free = func() (int64, int64, error) { return space.Free(q.dir) }
	}
	if q.now == nil {
		q.now = time.Now
	}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	q.start = q.now()
	q.since = q.start
	q.events = bucket{rate: eventRate, burst: eventBurst, tokens: eventBurst, at: q.start}
	q.SetBackfill(o.BackfillBytesPerSecond)
	q.backfill.tokens = q.backfill.burst
	for i := range q.classes {
		q.classes[i].init(i, o.Limits)
		if q.fs == nil && i < durableRanks {
			q.classes[i].trouble, q.classes[i].since = errMemory, q.start
		}
	}
	if q.fs != nil {
		q.io.Lock()
		defer q.io.Unlock()
		q.open()
	}
	return q, nil
}

// SetBackfill sets the pace of telemetry that had to wait, in bytes a second;
// 0 or less means the default, 16384.
func (q *Queue) SetBackfill(bytesPerSecond int) {
	if bytesPerSecond <= 0 {
		bytesPerSecond = defaultBackfill
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	q.backfill.fill(now)
	q.backfill.rate = float64(bytesPerSecond)
	q.backfill.burst = float64(bytesPerSecond)
	q.backfill.at = now
	q.wake()
}

// Online tells that a session with the broker has begun or ended. What is
// numbered from the beginning on is live and goes before what waited.
func (q *Queue) Online(online bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if online == q.online {
		return
	}
	q.online, q.since = online, q.now()
	if online {
		for i := range q.classes {
			c := &q.classes[i]
			c.mark, c.resend = c.last, resendFirst
			if !c.resendAt.IsZero() {
				c.resendAt = minTime(c.resendAt, q.since.Add(c.resend))
			}
		}
	}
	q.wake()
}

// Put accepts m and numbers it. After nil a record or event is on flash for
// good; an error compatible with errors.Is(err, transport.ErrNotDurable) means
// that it is accepted, but in memory only: the flash is in trouble, or events
// come faster than 2 a second for long, and then they are written within a
// second. Telemetry and debug are accepted in memory.
//
// Any other error says what makes m itself unfit: it is compatible with
// errors.Is for transport.ErrMalformed, ErrTooLarge or ErrTopic.
func (q *Queue) Put(_ context.Context, m transport.Message) error {
	c, err := q.check(m)
	if err != nil {
		return fmt.Errorf("cannot queue message: %w", err)
	}
	m.Body = append(json.RawMessage(nil), m.Body...)

	q.mu.Lock()
	it := q.insert(c, m)
	q.evict(c)
	switch {
	case c.rank >= rankTelemetry:
		if c.ramBytes > c.limits.RAMBytes*3/4 {
			q.hurry()
		}
		q.wake()
		q.mu.Unlock()
		return nil
	case c.trouble != nil:
		err := c.trouble
		q.wake()
		q.mu.Unlock()
		return notDurable(err)
	case c.rank == rankEvent && c.ramBytes < c.limits.RAMBytes/2:
		q.events.fill(q.now())
		if q.events.tokens < 1 {
			it.late = true
			q.wake()
			q.mu.Unlock()
			return notDurable(errBusy)
		}
		q.events.tokens--
	}
	q.mu.Unlock()

	q.io.Lock()
	defer q.io.Unlock()
	q.mu.Lock()
	written := it.durable
	q.mu.Unlock()
	if written { // together with an earlier one
		return nil
	}
	if err := q.commit(c); err != nil {
		return notDurable(err)
	}
	return nil
}

var (
	errBusy   = errors.New("too many events at once")
	errMemory = errors.New("no flash to write to")
	errClosed = errors.New("spool is closed")
	errSpace  = errors.New("less than 10 % of the flash is free")
)

func notDurable(err error) error {
	return fmt.Errorf("cannot make message durable: %w: %w", transport.ErrNotDurable, err)
}

// check reports what makes m unfit, and its class.
func (q *Queue) check(m transport.Message) (*class, error) {
	var c *class
	for i := range q.classes {
		if q.classes[i].name == m.Class {
			c = &q.classes[i]
		}
	}
	if c == nil {
		return nil, fmt.Errorf("%w: class %.40q is not queued", transport.ErrMalformed, string(m.Class))
	}
	if _, err := transport.Topic("t", q.stamper.Device(), m.Kind, m.Name); err != nil {
		return nil, err
	}
	if m.Kind == transport.KindCommand || m.Kind == transport.KindConfig || m.Kind == transport.KindAck {
		return nil, fmt.Errorf("%w: kind %q comes down", transport.ErrTopic, string(m.Kind))
	}
	// As long as headers get.
	h := transport.Header{
		V: transport.Version, Device: q.stamper.Device(), Epoch: 1<<64 - 1, Class: m.Class, Seq: 1<<64 - 1,
		UptimeS: 1e10 + 1./3, TimeMS: -1 << 63, Clock: transport.ClockFloor,
	}
	if _, err := transport.Encode(h, m.Body); err != nil {
		return nil, err
	}
	if overhead+len(m.Body) > c.limits.RAMBytes || len(m.Body) > transport.MaxPayload {
		return nil, fmt.Errorf("%w: %d bytes in class %s", transport.ErrTooLarge, len(m.Body), m.Class)
	}
	return c, nil
}

// insert numbers m and appends it to what c holds in memory. mu is held.
func (q *Queue) insert(c *class, m transport.Message) *item {
	it := &item{
		entry: transport.Entry{Header: q.stamper.Stamp(c.name), Message: m, Queued: q.now()},
		size:  overhead + len(m.Body),
	}
	c.last = it.entry.Header.Seq
	c.ram = append(c.ram, it)
	c.ramBytes += it.size
	return it
}

// wake tells waiting Nexts to look again. mu is held.
func (q *Queue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// hurry asks Serve for a round now.
func (q *Queue) hurry() {
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// seconds is now as indexes keep it.
func (q *Queue) seconds(now time.Time) uint32 {
	return uint32(min(max(0, now.Sub(q.start)/time.Second), stampMask))
}

// Stats returns the state of each class, most valuable first. Gaps that wait
// to be told count into the depth of the events. The age of what an earlier
// start left is at least what it says.
func (q *Queue) Stats() []transport.ClassStats {
	h := q.stamper.Stamp(transport.ClassSession) // what gaps in its numbers mean: nothing
	q.mu.Lock()
	defer q.mu.Unlock()
	stats := make([]transport.ClassStats, ranks)
	waiting := 0
	for i := range q.classes {
		c := &q.classes[i]
		waiting += len(c.gaps)
		s := transport.ClassStats{
			Class: c.name, Depth: len(c.ram), Bytes: int64(c.ramBytes), Dropped: c.dropped, Gaps: c.told,
			Files: len(c.segs) + len(c.dead), FlashBytes: c.flashBytes,
		}
		oldest := -1.0
		for _, seg := range c.segs {
			s.Depth += seg.live
			s.Bytes += seg.liveBytes
			s.Unconfirmed += seg.count(published)
			if seg.live == 0 {
				continue
			}
			if oldest < 0 {
				oldest = h.UptimeS
				if up := float64(seg.uptimeMS) / 1000; up <= oldest {
					oldest -= up
				}
			}
		}
		for _, it := range c.ram {
			if it.state == published {
				s.Unconfirmed++
			}
		}
		if oldest < 0 && len(c.ram) > 0 {
			oldest = h.UptimeS - c.ram[0].entry.Header.UptimeS
		}
		s.Oldest = time.Duration(max(0, oldest) * float64(time.Second))
		stats[i] = s
	}
	stats[rankEvent].Depth += waiting
	return stats
}
