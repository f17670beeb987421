package transport

import (
	"container/list"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// queued lists the classes a queue takes, most valuable first.
var queued = [...]Class{ClassRecord, ClassEvent, ClassTelemetry, ClassDebug}

const (
	// overhead is what an entry costs beside its body, in bytes: headers,
	// strings, list and map cells, rounded up.
	overhead = 512
	// maxRanges bounds the gaps that wait for one class; beyond it the two
	// newest become one, which covers more than it need.
	maxRanges = 8
	// gapInterval is how long drops of one class gather before the next gap
	// is told while other messages wait.
	gapInterval = 5 * time.Second
)

// RAMOptions configure a RAMQueue. The zero value of each but Stamper stands
// for its default.
type RAMOptions struct {
	Stamper *Stamper
	// MaxBytes and MaxEntries bound each class. A class not named keeps its
	// default; a message costs its body and 512 bytes.
	MaxBytes   map[Class]int
	MaxEntries map[Class]int
	// MaxTotal bounds the bytes of all classes. 0 means 1 MiB.
	MaxTotal int
	// Now tells monotonic time. nil means time.Now.
	Now func() time.Time
	// Log is told when dropping begins. nil means silence.
	Log *slog.Logger
}

// RAMQueue is a Queue in memory: nothing survives the process. It is safe for
// concurrent use.
//
// Records go before events, events before telemetry, telemetry before debug,
// and within a class the oldest first. Where there is no room, the oldest of
// the class goes, and under pressure of the whole the oldest of the least
// valuable class: never one of a class above the newcomer's. What is leased is
// not dropped.
type RAMQueue struct {
	stamper *Stamper
	total   int // bound of bytes
	now     func() time.Time
	log     *slog.Logger

	mu      sync.Mutex
	changed chan struct{} // closed and renewed when Next may find more; guarded by mu
	bytes   int           // of all classes; guarded by mu
	classes [len(queued)]ramClass
}

// ramClass is one class of a RAMQueue. All fields are guarded by its mu.
type ramClass struct {
	class      Class
	maxBytes   int
	maxEntries int

	entries list.List // of *ramItem, by sequence number
	bySeq   map[uint64]*list.Element
	bytes   int
	leased  int
	dropped uint64
	gaps    []Gap     // not yet told, oldest first
	lastGap time.Time // when one was last made into a message
}

type ramItem struct {
	entry  Entry
	size   int
	leased bool
	gap    *Gap // set on gap messages, so that their content outlives them
}

var _ Queue = (*RAMQueue)(nil)

// NewRAMQueue returns an empty queue. It panics if o.Stamper is nil.
func NewRAMQueue(o RAMOptions) *RAMQueue {
	if o.Stamper == nil {
		panic("transport: RAMOptions without a Stamper")
	}
	q := &RAMQueue{
		stamper: o.Stamper,
		total:   o.MaxTotal,
		now:     o.Now,
		log:     o.Log,
		changed: make(chan struct{}),
	}
	if q.total <= 0 {
		q.total = 1 << 20
	}
	if q.now == nil {
		q.now = time.Now
	}
	if q.log == nil {
		q.log = slog.New(slog.DiscardHandler)
	}
	defaults := [len(queued)]struct{ bytes, entries int }{
		{768 << 10, 256}, {192 << 10, 384}, {512 << 10, 768}, {64 << 10, 128},
	}
	for i, class := range queued {
		c := &q.classes[i]
		c.class, c.maxBytes, c.maxEntries = class, defaults[i].bytes, defaults[i].entries
		if n := o.MaxBytes[class]; n > 0 {
			c.maxBytes = n
		}
		if n := o.MaxEntries[class]; n > 0 {
			c.maxEntries = n
		}
		c.bySeq = make(map[uint64]*list.Element)
	}
	return q
}

// Put accepts m and numbers it. The error says what makes m itself unfit: it
// is compatible with errors.Is for ErrMalformed, ErrTooLarge or ErrTopic. A nil
// error does not mean that there was room: see Stats and EventGap.
func (q *RAMQueue) Put(_ context.Context, m Message) error {
	rank, err := checkMessage(m)
	if err != nil {
		return fmt.Errorf("cannot queue message: %w", err)
	}
	c := &q.classes[rank]
	size := overhead + len(m.Body)
	if size > min(c.maxBytes, q.total) || len(m.Body) > MaxPayload-overhead {
		return fmt.Errorf("cannot queue message: %w: %d bytes in class %s", ErrTooLarge, len(m.Body), m.Class)
	}
	m.Body = append(json.RawMessage(nil), m.Body...)

	q.mu.Lock()
	defer q.mu.Unlock()
	q.insert(c, m, size)
	q.evict(rank)
	q.wake()
	return nil
}

// checkMessage reports what makes m unfit, and the rank of its class.
func checkMessage(m Message) (rank int, err error) {
	rank = -1
	for i, class := range queued {
		if m.Class == class {
			rank = i
		}
	}
	if rank < 0 {
		return 0, fmt.Errorf("%w: class %.40q is not queued", ErrMalformed, string(m.Class))
	}
	named, known := m.Kind.named()
	if !known || m.Kind.down() || named != (m.Name != "") || named && !ValidName(m.Name) {
		return 0, fmt.Errorf("%w: no message of kind %.40q named %.80q", ErrTopic, string(m.Kind), m.Name)
	}
	return rank, checkBody(m.Body)
}

// insert numbers m and appends it to c. q.mu is held.
func (q *RAMQueue) insert(c *ramClass, m Message, size int) *ramItem {
	item := &ramItem{
		entry: Entry{Header: q.stamper.Stamp(c.class), Message: m, Queued: q.now()},
		size:  size,
	}
	c.bySeq[item.entry.Header.Seq] = c.entries.PushBack(item)
	c.bytes += size
	q.bytes += size
	return item
}

// evict makes room after something was appended to the class of rank. q.mu is
// held.
func (q *RAMQueue) evict(rank int) {
	c := &q.classes[rank]
	for c.bytes > c.maxBytes || c.entries.Len() > c.maxEntries {
		if !q.drop(c, GapClassFull) {
			break
		}
	}
	for low := len(q.classes) - 1; q.bytes > q.total && low >= rank; {
		if !q.drop(&q.classes[low], GapQueueFull) {
			low--
		}
	}
}

// drop drops the oldest entry of c that is not leased, and reports whether
// there was one. q.mu is held.
func (q *RAMQueue) drop(c *ramClass, reason string) bool {
	for e := c.entries.Front(); e != nil; e = e.Next() {
		item, _ := e.Value.(*ramItem)
		if item.leased {
			continue
		}
		q.remove(c, e, item)
		seq := item.entry.Header.Seq
		if len(c.gaps) == 0 {
			q.log.Warn("dropping messages", "class", string(c.class), "reason", reason, "from_seq", seq)
		}
		c.dropped++
		c.addGap(Gap{Class: c.class, Epoch: item.entry.Header.Epoch, FromSeq: seq, ToSeq: seq, Count: 1, Reason: reason})
		if item.gap != nil { // it never told what it had to tell
			q.byClass(item.gap.Class).addGap(*item.gap)
		}
		return true
	}
	return false
}

// remove forgets an entry. q.mu is held.
func (q *RAMQueue) remove(c *ramClass, e *list.Element, item *ramItem) {
	c.entries.Remove(e)
	delete(c.bySeq, item.entry.Header.Seq)
	c.bytes -= item.size
	q.bytes -= item.size
	if item.leased {
		c.leased--
	}
}

func (q *RAMQueue) byClass(class Class) *ramClass {
	for i := range q.classes {
		if q.classes[i].class == class {
			return &q.classes[i]
		}
	}
	return nil
}

// addGap notes a dropped range, joined to one that waits if it touches it.
func (c *ramClass) addGap(g Gap) {
	for i := range c.gaps {
		have := &c.gaps[i]
		if have.Reason == g.Reason && g.FromSeq <= have.ToSeq+1 && have.FromSeq <= g.ToSeq+1 {
			have.join(g)
			return
		}
	}
	c.gaps = append(c.gaps, g)
	if n := len(c.gaps); n > maxRanges {
		c.gaps[n-2].join(c.gaps[n-1])
		c.gaps = c.gaps[:n-1]
	}
}

func (g *Gap) join(other Gap) {
	g.FromSeq = min(g.FromSeq, other.FromSeq)
	g.ToSeq = max(g.ToSeq, other.ToSeq)
	g.Count += other.Count
}

// wake tells waiting Nexts to look again. q.mu is held.
func (q *RAMQueue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// Next leases the entry that should go first, waiting until there is one. It
// returns ctx.Err() when ctx ends, but what is there is leased even then.
func (q *RAMQueue) Next(ctx context.Context) (Entry, error) {
	for {
		q.mu.Lock()
		item := q.first()
		if item != nil {
			entry := item.entry
			q.mu.Unlock()
			return entry, nil
		}
		changed := q.changed
		q.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return Entry{}, ctx.Err()
		}
	}
}

// first leases the entry that should go first, or returns nil. q.mu is held.
func (q *RAMQueue) first() *ramItem {
	for i := range q.classes {
		c := &q.classes[i]
		if c.class == ClassEvent {
			if item := q.tellGap(); item != nil {
				return item
			}
		}
		if c.entries.Len() == c.leased {
			continue
		}
		for e := c.entries.Front(); e != nil; e = e.Next() {
			if item, _ := e.Value.(*ramItem); !item.leased {
				item.leased = true
				c.leased++
				return item
			}
		}
	}
	return nil
}

// tellGap makes the oldest gap that is due into a leased event. While other
// messages wait, drops of a class gather for gapInterval, so that a queue in
// overflow does not spend itself on telling of it. q.mu is held.
func (q *RAMQueue) tellGap() *ramItem {
	now := q.now()
	waiting := false
	for i := range q.classes {
		if c := &q.classes[i]; c.entries.Len() > c.leased {
			waiting = true
		}
	}
	for i := range q.classes {
		c := &q.classes[i]
		if len(c.gaps) == 0 || waiting && !c.lastGap.IsZero() && now.Sub(c.lastGap) < gapInterval {
			continue
		}
		gap := c.gaps[0]
		body, err := json.Marshal(gap)
		if err != nil {
			return nil // cannot be: a Gap is numbers and words
		}
		c.gaps = c.gaps[1:]
		c.lastGap = now
		events := q.byClass(ClassEvent)
		m := Message{Class: ClassEvent, Kind: KindEvent, Name: EventGap, Body: body}
		item := q.insert(events, m, overhead+len(body))
		item.gap = &gap
		item.leased = true
		events.leased++
		return item
	}
	return nil
}

// Done forgets a leased entry that has arrived. An entry that is not leased is
// left alone.
func (q *RAMQueue) Done(e Entry) {
	q.settle(e, func(c *ramClass, at *list.Element, item *ramItem) { q.remove(c, at, item) })
}

// Return ends the lease of an entry that may not have arrived: it goes again,
// before what is younger, with the same header.
func (q *RAMQueue) Return(e Entry) {
	q.settle(e, func(c *ramClass, _ *list.Element, item *ramItem) {
		item.leased = false
		c.leased--
		for rank := range q.classes {
			if &q.classes[rank] == c {
				q.evict(rank)
			}
		}
		q.wake()
	})
}

func (q *RAMQueue) settle(e Entry, f func(*ramClass, *list.Element, *ramItem)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.byClass(e.Header.Class)
	if c == nil || e.Header.Epoch != q.stamper.Epoch() {
		return
	}
	at := c.bySeq[e.Header.Seq]
	if at == nil {
		return
	}
	if item, _ := at.Value.(*ramItem); item.leased {
		f(c, at, item)
	}
}

// Stats returns the state of each class, most valuable first. Gaps that wait
// to be told count into the depth of the events.
func (q *RAMQueue) Stats() []ClassStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	stats := make([]ClassStats, len(q.classes))
	gaps := 0
	for i := range q.classes {
		c := &q.classes[i]
		gaps += len(c.gaps)
		stats[i] = ClassStats{Class: c.class, Depth: c.entries.Len(), Bytes: int64(c.bytes), Dropped: c.dropped}
		if front := c.entries.Front(); front != nil {
			if item, _ := front.Value.(*ramItem); item != nil {
				stats[i].Oldest = now.Sub(item.entry.Queued)
			}
		}
	}
	for i := range stats {
		if stats[i].Class == ClassEvent {
			stats[i].Depth += gaps
		}
	}
	return stats
}
