package spool

import (
	"math"
	"slices"
	"sort"
	"time"

	"ontagent/transport"
	"ontagent/transport/durable"
)

// state is where an entry is on its way.
type state uint8

const (
	waiting   state = iota // to be given by Next
	leased                 // given
	published              // the broker has it, nobody has signed for it
	gone                   // to be forgotten
)

// class is one class of a Queue. Unless said otherwise, mu guards its fields.
type class struct {
	rank   int
	name   transport.Class
	limits Limits // none is zero
	full   int    // bytes of a full segment
	// exact is set where gaps must not cover what is still here, because an
	// acknowledgement would release it: records and events.
	exact bool

	segs       []*segment // by epoch and number
	dead       []*segment // all gone, their files to be removed
	flashBytes int64      // of segs and dead
	ram        []*item    // by number: what is not on flash
	ramBytes   int
	last       uint64 // number given last
	mark       uint64 // number given last when the session began
	gone       []point
	secret     []cursorEntry // what was there before a drop that no durable gap tells of
	resend     time.Duration // what is published for longer goes again
	resendAt   time.Time     // when to look; zero if nothing is published

	dropped uint64
	told    uint64          // gaps told
	gaps    []transport.Gap // not yet told, oldest first
	gapSeen time.Time       // when the first of them came
	lastGap time.Time       // when one was told last

	trouble   error // why it is in memory only; nil if it is not
	since     time.Time
	retryAt   time.Time
	unread    int  // files that could not be read, and may be read later
	loaded    bool // the directory was read; guarded by io
	checked   bool // what is missing was told; guarded by io
	loadTries int  // guarded by io

	active *segment     // takes appends, also in segs; guarded by io
	file   durable.File // of active; guarded by io
	made   segID        // made last; guarded by io
	rooted bool         // its directory is durable; guarded by io
	before span         // of the segment made last, guarded by io
}

// point says that in an epoch all numbers up to seq are gone.
type point struct{ epoch, seq uint64 }

// item is an entry in memory.
type item struct {
	entry   transport.Entry
	size    int
	state   state
	at      uint32 // seconds: when it was published
	writing bool   // a write of it is under way: it must stay
	durable bool
	late    bool           // goes before it is durable: events come too fast
	gap     *transport.Gap // set on gap messages, so that their content outlives them
}

func (c *class) init(rank int, limits map[transport.Class]Limits) {
	c.rank = rank
	c.name = [...]transport.Class{
		transport.ClassRecord, transport.ClassEvent, transport.ClassTelemetry, transport.ClassDebug,
	}[rank]
	c.exact = rank <= rankEvent
	c.limits = [...]Limits{
		{1 << 20, 128, 256 << 10, 512},
		{512 << 10, 128, 128 << 10, 512},
		{2 << 20, 64, 192 << 10, 768},
		{0, 0, 64 << 10, 128},
	}[rank]
	l := limits[c.name]
	if l.FlashBytes > 0 {
		c.limits.FlashBytes = l.FlashBytes
	}
	if l.Files > 0 {
		c.limits.Files = max(4, l.Files)
	}
	if l.RAMBytes > 0 {
		c.limits.RAMBytes = l.RAMBytes
	}
	if l.RAMEntries > 0 {
		c.limits.RAMEntries = l.RAMEntries
	}
	c.full = int(min(segmentSize, max(4<<10, c.limits.FlashBytes/8)))
	c.resend = resendFirst
}

// holds reports whether the class still has an entry of epoch in [from, to].
func (c *class) holds(epoch, from, to uint64) bool {
	for _, s := range c.segs {
		if s.epoch != epoch || s.live == 0 || s.first > to {
			continue
		}
		for i := s.search(from); i < len(s.entries) && s.seq(i) <= to; i++ {
			if s.entries[i].state() != gone {
				return true
			}
		}
	}
	for _, it := range c.ram {
		if h := it.entry.Header; h.Epoch == epoch && from <= h.Seq && h.Seq <= to {
			return true
		}
	}
	return false
}

// find returns the segment that holds an entry that is not gone, and its index.
func (c *class) find(epoch, seq uint64) (*segment, int) {
	for _, s := range c.segs {
		if s.epoch != epoch || s.live == 0 || s.first > seq {
			continue
		}
		if i := s.search(seq); i < len(s.entries) && s.seq(i) == seq && s.entries[i].state() != gone {
			return s, i
		}
	}
	return nil, 0
}

// findRAM returns the index in c.ram of a number, -1 if it is not there.
func (c *class) findRAM(seq uint64) int {
	i := sort.Search(len(c.ram), func(i int) bool { return c.ram[i].entry.Header.Seq >= seq })
	if i < len(c.ram) && c.ram[i].entry.Header.Seq == seq {
		return i
	}
	return -1
}

// removeRAM forgets entry i in memory.
func (c *class) removeRAM(i int) {
	it := c.ram[i]
	it.state = gone
	c.ramBytes -= it.size
	c.ram = slices.Delete(c.ram, i, i+1)
}

// insertSegment puts s in its place among the others.
func (c *class) insertSegment(s *segment) {
	i := sort.Search(len(c.segs), func(i int) bool { return s.less(c.segs[i].segID) })
	c.segs = slices.Insert(c.segs, i, s)
	c.flashBytes += s.size
}

// bury moves s to those whose files are to be removed.
func (c *class) bury(s *segment) {
	if i := slices.Index(c.segs, s); i >= 0 {
		c.segs = slices.Delete(c.segs, i, i+1)
		c.dead = append(c.dead, s)
	}
}

// goneIn returns up to where the segments of an epoch are gone, and whether
// anything above is not. While gaps wait to be durable, what they report is
// not. Of records and events only what stands in a segment is known to be gone.
func (c *class) goneIn(epoch uint64, owing bool) (upTo uint64, live bool) {
	if c.unread > 0 {
		return 0, true // who knows what there is
	}
	first := uint64(math.MaxUint64)
	for _, s := range c.segs {
		if s.epoch == epoch {
			if first = min(first, s.firstLive()); owing && s.owed {
				first = min(first, s.first)
			}
		}
	}
	if live = first < math.MaxUint64; live && !c.exact {
		return first - 1, live
	}
	for _, s := range c.segs {
		if i := s.search(first); s.epoch == epoch && i > 0 {
			upTo = max(upTo, s.seq(i-1))
		}
	}
	return upTo, live
}

// goneUpTo returns up to where all numbers of an epoch are known to be gone.
func (c *class) goneUpTo(epoch uint64) uint64 {
	for _, p := range c.gone {
		if p.epoch == epoch {
			return p.seq
		}
	}
	return 0
}

func (c *class) setGone(epoch, seq uint64) {
	for i := range c.gone {
		if c.gone[i].epoch == epoch {
			c.gone[i].seq = max(c.gone[i].seq, seq)
			return
		}
	}
	c.gone = append(c.gone, point{epoch, seq})
}

// evict drops from memory what is over the bounds of c. mu is held.
func (q *Queue) evict(c *class) {
	for c.ramBytes > c.limits.RAMBytes || len(c.ram) > c.limits.RAMEntries {
		victim := -1
		for i, it := range c.ram {
			if it.state == leased || it.writing {
				continue
			}
			if it.state == published { // one that somebody may have
				victim = i
				break
			}
			if victim < 0 {
				victim = i
			}
		}
		if victim < 0 {
			return
		}
		it := c.ram[victim]
		c.removeRAM(victim)
		h := it.entry.Header
		if len(c.gaps) == 0 {
			q.log.Warn("dropping messages", "class", string(c.name), "reason", transport.GapClassFull, "from_seq", h.Seq)
		}
		c.dropped++
		q.addGap(transport.Gap{
			Class: c.name, Epoch: h.Epoch, FromSeq: h.Seq, ToSeq: h.Seq, Count: 1, Reason: transport.GapClassFull,
		})
		if it.gap != nil { // it never told what it had to tell
			q.addGap(*it.gap)
		}
	}
}

// Health is the state of a Queue as a whole.
type Health struct {
	// Degraded says that something that belongs on flash is in memory only.
	Degraded bool `json:"degraded"`
	// Classes are those concerned, Reason why the first of them is.
	Classes []string  `json:"classes,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Since   time.Time `json:"-"` // on the monotonic clock
	// ForS is the time since Since, in seconds.
	ForS float64 `json:"for_s,omitempty"`
	// FlashWritten and Syncs count what was written and how often the flash
	// was made to keep it, since the start. Creation counts two syncs.
	FlashWritten int64 `json:"flash_written_bytes"`
	Syncs        int64 `json:"syncs"`
	// Damaged counts bytes in segments in which nothing validated.
	Damaged int64 `json:"damaged_bytes"`
	// AckVersion is the version of the latest acknowledgement.
	AckVersion uint64 `json:"ack_version"`
}

// Health returns the present state.
func (q *Queue) Health() Health {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := Health{FlashWritten: q.flashed, Syncs: q.syncs, Damaged: q.damaged, AckVersion: q.ack}
	for i := range durableRanks {
		c := &q.classes[i]
		trouble, since := c.trouble, c.since
		if trouble == nil && c.rank == rankTelemetry && q.lowSpace {
			trouble, since = errSpace, q.lowSince
		}
		if trouble == nil {
			continue
		}
		h.Classes = append(h.Classes, string(c.name))
		if !h.Degraded || since.Before(h.Since) {
			h.Since = since
		}
		if h.Reason == "" {
			h.Reason = trouble.Error()
		}
		h.Degraded = true
	}
	if h.Degraded {
		h.ForS = q.now().Sub(h.Since).Seconds()
	}
	return h
}
