package spool

import (
	"math"
	"sort"
	"time"
)

// stampMask covers the seconds in entry.st: 34 years since the start.
const stampMask = 1<<30 - 1

// entry is what memory keeps of a record on flash.
type entry struct {
	off   uint32
	delta uint32 // number, from that of the segment
	st    uint32 // state in the top two bits, below it when it was published
}

func (e entry) state() state  { return state(e.st >> 30) }
func (e entry) stamp() uint32 { return e.st & stampMask }

// segment is a file of records in order. Its identity never changes; mu guards
// the rest.
type segment struct {
	segID
	level    uint8 // 0 as it came, 1 to 3 thinned
	size     int64 // of the file, in bytes
	end      int64 // of the last record
	uptimeMS uint64
	entries  []entry // by number and offset
	hint     int     // none before it waits

	waiting, leased, live int // counts of entries: live are all but gone
	liveBytes             int64

	frozen bool      // being thinned: nothing is leased
	paused time.Time // not to be read before
	fails  int       // to read, in a row
	owed   bool      // its file stays while gaps wait to be durable
	// damage is what recovery found, until it has told of it.
	damage []damage
	before span // as in the header
}

func (s *segment) seq(i int) uint64 { return s.first + uint64(s.entries[i].delta) }

// last returns the highest number, that before the first if there is none.
func (s *segment) last() uint64 {
	if n := len(s.entries); n > 0 {
		return s.seq(n - 1)
	}
	return s.first - 1
}

// search returns the index of the first entry with number seq or above.
func (s *segment) search(seq uint64) int {
	return sort.Search(len(s.entries), func(i int) bool { return s.seq(i) >= seq })
}

// length returns the bytes of entry i, those of damage behind it included.
func (s *segment) length(i int) int64 {
	if i+1 < len(s.entries) {
		return int64(s.entries[i+1].off) - int64(s.entries[i].off)
	}
	return s.end - int64(s.entries[i].off)
}

// add appends an entry and its length.
func (s *segment) add(off int, length int, seq uint64, st state, at uint32) {
	if n := len(s.entries); n > 0 && s.entries[n-1].state() != gone {
		s.liveBytes += int64(off) - s.end // damage between the two, if any
	}
	s.entries = append(s.entries, entry{uint32(off), uint32(seq - s.first), uint32(gone) << 30})
	s.end = int64(off + length)
	s.set(len(s.entries)-1, st, at)
}

// set changes the state of entry i.
func (s *segment) set(i int, st state, at uint32) {
	old := s.entries[i].state()
	s.entries[i].st = uint32(st)<<30 | at&stampMask
	s.tally(old, -1, i)
	s.tally(st, 1, i)
	if st == waiting {
		s.hint = min(s.hint, i)
	}
}

func (s *segment) tally(st state, n, i int) {
	switch st {
	case waiting:
		s.waiting += n
	case leased:
		s.leased += n
	case published:
	case gone:
		return
	}
	s.live += n
	s.liveBytes += int64(n) * s.length(i)
}

func (s *segment) count(st state) int {
	switch st {
	case waiting:
		return s.waiting
	case leased:
		return s.leased
	case published:
		return s.live - s.waiting - s.leased
	case gone:
	}
	return len(s.entries) - s.live
}

// next returns the first waiting entry with a number above after and up to
// upTo, -1 if there is none.
func (s *segment) next(after, upTo uint64) int {
	if s.waiting == 0 || s.last() <= after || s.first > upTo {
		return -1
	}
	for s.hint < len(s.entries) && s.entries[s.hint].state() != waiting {
		s.hint++
	}
	i := s.hint
	if after >= s.first {
		i = max(i, s.search(after+1))
	}
	for ; i < len(s.entries) && s.seq(i) <= upTo; i++ {
		if s.entries[i].state() == waiting {
			return i
		}
	}
	return -1
}

// firstLive returns the first number that is not gone, the highest possible if
// there is none.
func (s *segment) firstLive() uint64 {
	for i := range s.entries {
		if s.entries[i].state() != gone {
			return s.seq(i)
		}
	}
	return math.MaxUint64
}
