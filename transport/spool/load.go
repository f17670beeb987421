package spool

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"ontagent/transport"
	"ontagent/transport/durable"
)

// readAgain bounds how often a file that gives errors is tried, retryInterval
// apart, before its content counts as corrupt.
const readAgain = 6

// open reads what is in the directory and tells of restarts. io is held.
func (q *Queue) open() {
	if err := durable.Clean(q.fs, "spool.clean", q.dir); err != nil {
		q.log.Warn("cannot clean spool", "error", err)
	}
	q.adopt()
	for i := range durableRanks {
		q.loadClass(&q.classes[i])
	}
	q.loaded()
}

// loadClass reads those segments of c that are not known yet. What cannot be
// read now is left for later. io is held.
func (q *Queue) loadClass(c *class) {
	dir := filepath.Join(q.dir, string(c.name))
	names, err := q.fs.ReadDir("spool.open", dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = durable.MkdirAll(q.fs, "spool.open", dir, 0o700)
	}
	if err != nil {
		q.degrade(c, err)
		return
	}
	c.loadTries++
	unread := 0
	for _, name := range names {
		id, ok := parseName(name)
		if !ok || c.knows(id) {
			continue // not ours: Check tells of it
		}
		// What the last life left in the system's memory must not vanish after
		// the restart gaps were made to begin behind it.
		from := q.cursor.from
		b, err := q.load(c, id, id.epoch > from.told && id.epoch != from.clean)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil && c.loadTries < readAgain:
			q.log.Warn("cannot read segment of spool", "class", string(c.name), "file", name, "error", err)
			unread++
			continue
		}
		s, found := q.index(c, id, b)
		if found.header.version > version {
			continue // of a newer program: not ours either
		}
		q.mu.Lock()
		c.insertSegment(s)
		q.mu.Unlock()
	}
	q.mu.Lock()
	c.unread = unread
	c.retryAt = q.now().Add(retryInterval)
	c.loaded = true
	c.single()
	q.mu.Unlock()
}

// knows reports whether a segment is in memory.
func (c *class) knows(id segID) bool {
	is := func(s *segment) bool { return s.segID == id }
	return slices.ContainsFunc(c.segs, is) || slices.ContainsFunc(c.dead, is)
}

// load reads a segment file, up to maxFile bytes of it, and makes it durable
// if sync is set. An error in reading is tried again twice.
func (q *Queue) load(c *class, id segID, sync bool) (b []byte, err error) {
	for range 3 {
		b, err = readSegment(q.fs, "spool.read", q.path(c, id), sync)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return b, err
}

func readSegment(fsys durable.FS, op, path string, sync bool) ([]byte, error) {
	f, err := fsys.OpenFile(op, path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	if sync {
		_ = f.Sync() // what can't be synced may be read all the same
	}
	size, err := f.Size()
	b := make([]byte, min(max(0, size), maxFile))
	if err == nil {
		var n int
		n, err = io.ReadFull(f, b)
		b = b[:n]
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil // shorter than it was
		}
	}
	return b, errors.Join(err, f.Close())
}

// index makes a segment of the bytes of a file.
func (q *Queue) index(c *class, id segID, b []byte) (*segment, contents) {
	s := &segment{segID: id, size: int64(len(b))}
	q.mu.Lock()
	upTo := c.goneUpTo(id.epoch)
	q.mu.Unlock()
	found := scan(b, id, c.rank, func(off int, r record) {
		if len(s.entries) == 0 {
			s.uptimeMS = r.uptimeMS
		}
		st := waiting
		if r.seq <= upTo {
			st = gone
		}
		s.add(off, recExtra+len(r.name)+len(r.body), r.seq, st, 0)
	})
	s.entries = slices.Clip(s.entries)
	s.level, s.damage, s.before = found.header.level, found.damage, found.header.before
	return s, found
}

// single makes each number of c wait once: where it is in two files, in the
// one that holds it as it came, and of two such in the later one, because it
// was written anew after a write that may not be durable. mu is held.
func (c *class) single() {
	for i, a := range c.segs {
		for _, b := range c.segs[i+1:] {
			if a.epoch != b.epoch || a.last() < b.first || b.last() < a.first {
				continue
			}
			keep, other := a, b
			if b.level <= a.level {
				keep, other = b, a
			}
			for k := range other.entries {
				seq := other.seq(k)
				at := keep.search(seq)
				if other.entries[k].state() == waiting && at < len(keep.entries) && keep.seq(at) == seq {
					other.set(k, gone, 0)
				}
			}
		}
	}
}

// loaded does what has to wait until all that is on flash is known. io is
// held.
func (q *Queue) loaded() {
	ready := true
	for i := range durableRanks {
		c := &q.classes[i]
		whole := c.loaded && c.unread == 0
		ready = ready && whole
		if whole && !c.checked {
			c.checked = true
			q.holes(c)
		}
	}
	if ready && !q.restarted {
		q.restarted = true
		q.restarts()
	}
	q.mu.Lock()
	q.makeGaps(true)
	if q.restart != 0 {
		q.restart = q.classes[rankEvent].last
	}
	q.mu.Unlock()
	if events := &q.classes[rankEvent]; q.healthy(events) {
		_ = q.commit(events) // it says itself what becomes of it
	}
	for i := range durableRanks {
		q.sweep(&q.classes[i])
	}
	if q.tellRestarts() {
		_ = q.writeCursor(false) // tried again by Maintain
	}
}

// tellRestarts notes that restart gaps are durable, once they are, and reports
// whether they have just become so.
func (q *Queue) tellRestarts() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := &q.classes[rankEvent]
	if q.restart == 0 || q.owing() || len(events.ram) > 0 && events.ram[0].entry.Header.Seq <= q.restart {
		return false
	}
	q.restart, q.told = 0, q.epoch-1
	q.touch()
	return true
}

// holes tells which numbers were on flash and are no more: those in damaged
// stretches, and of records and events, which are all written, those missing
// between others. io is held.
func (q *Queue) holes(c *class) {
	q.mu.Lock()
	lost := q.lost(c)
	q.mu.Unlock()
	if len(lost) == 0 {
		return
	}
	var told []transport.Gap
	events := &q.classes[rankEvent]
	for _, s := range slices.Clone(events.segs) { // io is held: none comes or goes
		gaps, err := q.gapsIn(events, s)
		if err != nil {
			continue // then some are told again
		}
		told = append(told, gaps...)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, g := range lost {
		covered := slices.ContainsFunc(told, func(t transport.Gap) bool {
			return t.Class == g.Class && t.Epoch == g.Epoch && t.FromSeq <= g.FromSeq && g.ToSeq <= t.ToSeq
		})
		if !covered {
			q.log.Error("spool is damaged", "class", string(c.name), "epoch", g.Epoch, "from_seq", g.FromSeq, "to_seq", g.ToSeq)
			c.dropped += g.Count
			q.addGap(g)
		}
	}
}

// lost returns the numbers of c that are missing, and takes the damage off the
// segments. mu is held.
func (q *Queue) lost(c *class) []transport.Gap {
	known := map[uint64]cursorEntry{}
	for _, p := range q.cursor.from.points {
		if int(p.rank) == c.rank {
			known[p.epoch] = p
		}
	}
	// All that is written stays until it is signed for, and the cursor knows
	// of that at once.
	whole := c.exact && q.confirm == BySignature
	var gaps []transport.Gap
	epochs := map[uint64][]*segment{}
	for _, s := range c.segs {
		epochs[s.epoch] = append(epochs[s.epoch], s)
	}
	if whole {
		for e := range known {
			epochs[e] = slices.Clip(epochs[e])
		}
	}
	for _, epoch := range slices.Sorted(maps.Keys(epochs)) {
		if epoch == q.epoch {
			continue
		}
		k := known[epoch]
		end := uint64(0) // the last number that was on flash, if that is known
		if whole || epoch == q.cursor.from.clean && epoch+1 == q.epoch {
			end = k.last
		}
		there, spans := q.missing(epochs[epoch], end)
		last := uint64(0)
		if n := len(there); n > 0 {
			last = there[n-1]
		}
		if whole {
			spans = append(spans, span{k.seq + 1, max(last, end)})
		} else if last > 0 && end > 0 {
			spans = append(spans, span{last + 1, end})
		}
		for _, m := range subtract(spans, there, max(k.seq, c.goneUpTo(epoch))) {
			gaps = append(gaps, transport.Gap{
				Class: c.name, Epoch: epoch, FromSeq: m.lo, ToSeq: m.hi, Count: m.hi - m.lo + 1, Reason: transport.GapCorrupt,
			})
		}
	}
	return gaps
}

// missing returns the numbers that are in segs, those of one epoch, and the
// ranges that may have been in what is damaged or cut off. It takes the damage
// off the segments. mu is held.
func (q *Queue) missing(segs []*segment, end uint64) (there []uint64, spans []span) {
	for _, s := range segs {
		for k := range s.entries {
			there = append(there, s.seq(k))
		}
	}
	slices.Sort(there)
	for _, s := range segs {
		for _, d := range s.damage {
			q.damaged += int64(d.to - d.from)
			if d.hi == 0 {
				d.hi = end
				if at, _ := slices.BinarySearch(there, d.lo); at < len(there) {
					d.hi = there[at] - 1
				}
			}
			s.owed = s.owed || d.lo <= d.hi
			spans = append(spans, span{d.lo, d.hi})
		}
		s.damage = nil
		for _, other := range segs {
			if other.first == s.before.lo && other.last() < s.before.hi {
				spans = append(spans, span{other.last() + 1, s.before.hi})
				other.owed = true
			}
		}
	}
	return there, spans
}

// subtract returns spans without what is in there, which is sorted, and
// without what is up to gone; in order and without overlaps.
func subtract(spans []span, there []uint64, gone uint64) []span {
	sort.Slice(spans, func(a, b int) bool { return spans[a].lo < spans[b].lo })
	var rest []span
	note := func(lo, hi uint64) {
		if lo = max(lo, gone+1); lo <= hi {
			rest = append(rest, span{lo, hi})
			gone = hi
		}
	}
	for _, s := range spans {
		at, _ := slices.BinarySearch(there, s.lo)
		for ; at < len(there) && there[at] <= s.hi; at++ {
			if there[at] > s.lo {
				note(s.lo, there[at]-1)
			}
			s.lo = there[at] + 1
		}
		note(s.lo, s.hi)
	}
	return rest
}

// restarts tells of the epochs since the last one told that did not end
// cleanly: what they had in memory only is lost. io is held.
func (q *Queue) restarts() {
	q.mu.Lock()
	defer q.mu.Unlock()
	from := q.cursor.from
	if from.told >= q.epoch || from.told+1 == q.epoch {
		return
	}
	some := false
	for i := range durableRanks {
		c := &q.classes[i]
		for _, g := range c.restartGaps(from.told, from.clean, q.epoch, q.confirm == BySignature) {
			q.addGap(g)
			some = true
		}
	}
	if !some {
		q.told = q.epoch - 1
		return
	}
	// A full flash may have cost telemetry of epochs that ended cleanly,
	// without room to tell of it.
	c := &q.classes[rankTelemetry]
	for _, p := range from.points {
		if int(p.rank) != rankTelemetry || !p.live || p.epoch > from.told && p.epoch != from.clean {
			continue
		}
		if c.incomplete(p) {
			c.secret = append(c.secret, p)
			q.addGap(transport.Gap{Class: c.name, Epoch: p.epoch, FromSeq: p.seq + 1, Reason: transport.GapRestart})
		}
	}
	q.restart = 1 // loaded makes it the number of the last of them
}

// incomplete reports whether files may be missing of an epoch that the cursor
// tells of: before the first one left, behind the last, or before one that
// says it followed another.
func (c *class) incomplete(p cursorEntry) bool {
	first, last := uint64(math.MaxUint64), uint64(0)
	starts, before := map[uint64]bool{0: true}, []uint64{}
	for _, s := range c.segs {
		if s.epoch == p.epoch && len(s.entries) > 0 {
			first, last = min(first, s.seq(0)), max(last, s.last())
			starts[s.first] = true
			if s.before.lo > p.seq {
				before = append(before, s.before.lo)
			}
		}
	}
	return first > p.seq+1 || last < p.last || slices.ContainsFunc(before, func(lo uint64) bool { return !starts[lo] })
}

// restartGaps returns gaps that cover what may have been lost of c in the
// epochs above told and below epoch, except clean. Of records and events they
// begin behind the last number known – with whole, where what is missing below
// is told as such; else behind the first ones that are all here – and so begin
// anew after each epoch of which there is one.
func (c *class) restartGaps(told, clean, epoch uint64, whole bool) []transport.Gap {
	ends := map[uint64]uint64{epoch - 1: 0} // last known number by epoch
	if clean > told && clean < epoch {
		ends[clean] = 0
	}
	if c.exact {
		know := func(e, seq uint64) {
			if told < e && e < epoch {
				ends[e] = max(ends[e], seq)
			}
		}
		for _, p := range c.gone {
			know(p.epoch, p.seq)
		}
		for _, s := range c.segs { // by number
			for i := range s.entries {
				// Without signatures nobody else asks for what is missing between.
				if seq := s.seq(i); whole || seq <= ends[s.epoch]+1 {
					know(s.epoch, seq)
				}
			}
		}
	}
	order := make([]uint64, 0, len(ends))
	for e := range ends {
		order = append(order, e)
	}
	slices.Sort(order)
	var gaps []transport.Gap
	from := told + 1
	emit := func(e, seq uint64) {
		if from > e {
			return
		}
		g := transport.Gap{Class: c.name, Epoch: e, FromSeq: seq, Reason: transport.GapRestart}
		if from < e {
			g.FromEpoch = from
		}
		gaps = append(gaps, g)
	}
	for _, e := range order {
		if e == clean {
			emit(e-1, 1)
		} else {
			emit(e, ends[e]+1)
		}
		from = e + 1
	}
	return gaps
}
