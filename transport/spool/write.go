package spool

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"ontagent/transport"
	"ontagent/transport/durable"
)

// commit writes what c holds in memory to flash, in order. What happens when
// it can't: on a full flash the oldest telemetry makes room for records and
// events; anything else, and the class lives in memory until retryInterval has
// passed. io is held.
func (q *Queue) commit(c *class) error { return q.commitIn(c, true) }

// commitIn is commit; room says whether to keep the bounds of c before.
func (q *Queue) commitIn(c *class, room bool) error {
	if !c.loaded { // before, nothing may be written there
		q.mu.Lock()
		defer q.mu.Unlock()
		return cmp.Or(c.trouble, errMemory)
	}
	if c.rank == rankEvent {
		q.trying = true
		defer func() { q.trying = false }()
	}
	err := q.writeAll(c, room)
	for try := 0; try < 8 && c.exact && errors.Is(err, syscall.ENOSPC) && q.sacrifice(); try++ {
		if events := &q.classes[rankEvent]; c != events && q.healthy(events) {
			_ = q.writeAll(events, false) // the gap, if there is room by now; else with what comes next
		}
		err = q.writeAll(c, room)
	}
	if err != nil {
		q.degrade(c, err)
		return err
	}
	q.recovered(c)
	return nil
}

// writeAll writes what c holds in memory, after it made room if room is set.
// io is held.
func (q *Queue) writeAll(c *class, room bool) error {
	q.mu.Lock()
	size := int64(headerSize)
	for _, it := range c.ram {
		size += int64(recordSize(it.entry.Message))
	}
	none := len(c.ram) == 0
	q.mu.Unlock()
	if none {
		return nil
	}
	if room {
		if err := q.room(c, size); err != nil {
			return err
		}
	}
	q.mu.Lock()
	items := slices.Clone(c.ram)
	for _, it := range items {
		it.writing = true
	}
	q.mu.Unlock()
	var err error
	for len(items) > 0 && err == nil {
		var n int
		n, err = q.writeSome(c, items)
		items = items[n:]
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range items {
		it.writing = false
	}
	q.evict(c)
	return err
}

// writeSome writes the first of items with one write, and makes them durable.
// It returns how many they are. After an error none is, and nothing is ever
// appended to that file again. io is held.
func (q *Queue) writeSome(c *class, items []*item) (int, error) {
	first := items[0].entry.Header.Seq
	if s := c.active; s != nil && (s.size+int64(recordSize(items[0].entry.Message)) > int64(c.full) || first-s.first >= 1<<32) {
		q.retire(c)
	}
	s, fresh := c.active, c.active == nil
	var b []byte
	if fresh {
		s = &segment{segID: segID{epoch: q.epoch, first: first}}
		if err := q.create(c, s); err != nil {
			return 0, err
		}
		b = appendHeader(b, s.segID, c.rank, s.level, c.before)
	}
	seed, n := s.seed(c.rank), 0
	ends := make([]int, 0, len(items))
	for _, it := range items {
		size := recordSize(it.entry.Message)
		if n > 0 && (s.size+int64(len(b)+size) > int64(c.full) || it.entry.Header.Seq-s.first >= 1<<32) {
			break
		}
		b = appendRecord(b, seed, s.first, it.entry)
		ends = append(ends, len(b))
		n++
	}
	if err := q.append(c, b, fresh); err != nil {
		q.retire(c)
		if fresh {
			// Best effort: without a durable entry it is nothing but a name.
			_ = q.fs.Remove("spool.create", q.path(c, s.segID))
		}
		return 0, err
	}

	q.mu.Lock()
	defer q.mu.Unlock()
	if fresh {
		s.uptimeMS = uint64(items[0].entry.Header.UptimeS * 1000)
		c.insertSegment(s)
		b = b[headerSize:]
		s.size, c.flashBytes = headerSize, c.flashBytes+headerSize
		for i := range ends {
			ends[i] -= headerSize
		}
	}
	at := 0
	for i, it := range items[:n] {
		s.add(int(s.size)+at, ends[i]-at, it.entry.Header.Seq, it.state, it.at)
		at = ends[i]
		it.durable, it.writing = true, false
		if it.state != gone {
			c.removeRAM(c.findRAM(it.entry.Header.Seq))
		} else {
			q.touch()
		}
	}
	s.size += int64(len(b))
	c.flashBytes += int64(len(b))
	c.before = span{s.first, s.last()}
	q.wake()
	return n, nil
}

// create makes the file of s and makes it the active one. io is held.
func (q *Queue) create(c *class, s *segment) error {
	if !c.rooted {
		// Whoever made the directories may not have come as far as making them
		// durable.
		for _, dir := range [...]string{q.dir, filepath.Dir(filepath.Clean(q.dir))} {
			if err := q.fs.SyncDir("spool.create", dir); err != nil {
				return err
			}
		}
		c.rooted = true
	}
	if c.made.epoch == s.epoch && c.made.first == s.first {
		s.part = c.made.part + 1
	}
	made := false
	for {
		f, err := q.fs.OpenFile("spool.create", q.path(c, s.segID), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		if errors.Is(err, fs.ErrExist) && s.part < 255 {
			s.part++
			continue
		}
		if errors.Is(err, fs.ErrNotExist) && !made { // somebody removed it
			made = true
			if err = durable.MkdirAll(q.fs, "spool.create", filepath.Join(q.dir, string(c.name)), 0o700); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		c.active, c.file, c.made = s, f, s.segID
		return nil
	}
}

// append writes b to the active segment and makes it durable; of a fresh one
// the name as well. io is held.
func (q *Queue) append(c *class, b []byte, fresh bool) error {
	if c.file == nil { // made by an earlier batch
		f, err := q.fs.OpenFile("spool.append", q.path(c, c.active.segID), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		c.file = f
	}
	n, err := c.file.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	syncs := int64(1)
	switch {
	case err != nil:
		syncs = 0
	case fresh:
		// The file is whole before its name is durable.
		if err = c.file.Sync(); err == nil {
			syncs++
			err = q.fs.SyncDir("spool.create", filepath.Join(q.dir, string(c.name)))
		}
	default:
		err = c.file.Datasync()
	}
	q.mu.Lock()
	q.flashed += int64(n)
	q.syncs += syncs
	q.mu.Unlock()
	if fresh { // it belongs to the operation that made it
		_ = c.file.Close() // all that counts was synced
		c.file = nil
	}
	return err
}

// retire ends appending to the active segment. io is held.
func (q *Queue) retire(c *class) {
	if c.file != nil {
		_ = c.file.Close() // all that counts was synced
	}
	c.active, c.file = nil, nil
}

// remove removes the files of what is dead, without syncing the directory: one
// that comes back after a power cut is sent twice, no more. io is held.
func (q *Queue) remove(c *class) {
	q.mu.Lock()
	dead := c.dead
	q.mu.Unlock()
	for _, s := range dead {
		q.rd.Lock()
		q.closeRead(c, s.segID)
		q.rd.Unlock()
		if err := q.fs.Remove("spool.remove", q.path(c, s.segID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return // it stays dead, and is tried again
		}
		q.mu.Lock()
		c.dead = c.dead[1:]
		c.flashBytes -= s.size
		q.mu.Unlock()
	}
}

// sweep buries the segments of c of which nothing is left, and removes them.
// io is held.
func (q *Queue) sweep(c *class) {
	q.mu.Lock()
	owed := q.owing()
	for i := 0; i < len(c.segs); i++ {
		s := c.segs[i]
		if s.live > 0 || s == c.active || len(s.damage) > 0 || s.owed && owed || q.confirm == BySignature && c.between(s) {
			continue
		}
		upTo, _ := c.goneIn(s.epoch, owed)
		if c.exact && q.confirm == BySignature && upTo < s.last() {
			continue // a hole would be taken for damage; see lost
		}
		c.setGone(s.epoch, upTo)
		c.bury(s)
		i--
	}
	q.mu.Unlock()
	q.remove(c)
}

// between reports whether an earlier segment of the epoch still holds
// something, so that the absence of s would look like a loss at the next start.
func (c *class) between(s *segment) bool {
	return c.exact && slices.ContainsFunc(c.segs, func(other *segment) bool {
		return other.epoch == s.epoch && other.live > 0 && other.less(s.segID)
	})
}

// room makes room for size bytes more of c on flash, within its bounds: of
// telemetry the oldest is thinned, then whole segments go, the oldest first,
// but of records and events those that the broker has before the others. A gap
// tells of it, durable before anything is deleted. io is held.
func (q *Queue) room(c *class, size int64) error {
	for tries := 0; tries < 4*c.limits.Files; tries++ {
		q.sweep(c)
		q.mu.Lock()
		bytes, files := c.flashBytes+size, len(c.segs)+len(c.dead)+int((size+int64(c.full)-1)/int64(c.full))
		if c.rank == rankEvent {
			// What is written here, the gap included, is before the victim goes.
			bytes, files = bytes+size+4<<10, files+1
		}
		full := bytes > c.limits.FlashBytes || files > c.limits.Files
		thin := c.rank == rankTelemetry && (bytes+int64(c.full) > c.limits.FlashBytes || files+1 > c.limits.Files)
		q.mu.Unlock()
		if thin && q.thin(c) {
			continue
		}
		if !full {
			return nil
		}
		s := q.victim(c)
		if s == nil {
			if c.active == nil {
				return nil // all of it is leased: over the bound for the moment
			}
			q.retire(c)
			continue
		}
		if err := q.drop(c, s, transport.GapClassFull, true); err != nil {
			return err
		}
	}
	return nil
}

// victim returns the segment of c to drop next, nil if there is none.
func (q *Queue) victim(c *class) *segment {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, sent := range []bool{true, false} {
		for _, s := range c.segs {
			if s != c.active && s.leased == 0 && (!sent || c.exact && s.waiting == 0) {
				return s
			}
		}
	}
	return nil
}

// drop forgets a segment and removes its file. The gap that tells of it is
// durable before if told is set, else it is only in memory. io is held.
func (q *Queue) drop(c *class, s *segment, reason string, told bool) error {
	kept, err := q.gapsIn(c, s)
	if err != nil {
		return err // what it has to tell must not get lost with it
	}
	q.mu.Lock()
	q.log.Warn("dropping messages on flash", "class", string(c.name), "reason", reason,
		"epoch", s.epoch, "from_seq", s.first, "entries", s.live)
	gaps := s.ranges(c, reason)
	s.owed = true
	if !told {
		c.secret = append(c.secret, cursorEntry{point: point{s.epoch, c.goneUpTo(s.epoch)}, last: s.last()})
	}
	for i := range s.entries {
		// From here on it cannot be leased, nor does it stand in the gap's way.
		if s.entries[i].state() != gone {
			c.dropped++
			q.forget(s, i)
		}
	}
	for _, g := range append(gaps, kept...) {
		q.addGap(g)
	}
	q.mu.Unlock()
	if told {
		if err := q.tell(true); err != nil {
			return err // the file stays as long as it owes the gap
		}
	}
	q.mu.Lock()
	if told { // else the cursor keeps what the next start has to tell
		upTo, _ := c.goneIn(s.epoch, false)
		c.setGone(s.epoch, upTo)
	}
	c.bury(s)
	q.mu.Unlock()
	q.remove(c)
	return nil
}

// ranges returns gaps that cover what is left of s, exactly as far as there
// are runs.
func (s *segment) ranges(c *class, reason string) []transport.Gap {
	var gaps []transport.Gap
	for i := range s.entries {
		if s.entries[i].state() == gone {
			continue
		}
		seq := s.seq(i)
		if n := len(gaps); n > 0 && (gaps[n-1].ToSeq+1 == seq || !c.exact || !c.holds(s.epoch, gaps[n-1].ToSeq+1, seq-1)) {
			gaps[n-1].ToSeq = seq
			gaps[n-1].Count++
			continue
		}
		gaps = append(gaps, transport.Gap{Class: c.name, Epoch: s.epoch, FromSeq: seq, ToSeq: seq, Count: 1, Reason: reason})
	}
	return gaps
}

// sacrifice deletes the oldest telemetry on a full flash, and reports whether
// there was any. Its gap cannot be written before – there is no room – so it
// waits in memory and goes with what is written next; until then the numbers
// are covered by the restart gap that follows a power cut, and those of
// earlier epochs by what the cursor knows of them. io is held.
func (q *Queue) sacrifice() bool {
	c := &q.classes[rankTelemetry]
	q.retire(c)
	s := q.victim(c)
	if s == nil {
		return false
	}
	if err := q.drop(c, s, transport.GapDiskFull, false); err != nil {
		return false
	}
	q.mu.Lock()
	q.makeGaps(true)
	q.mu.Unlock()
	return true
}

// degrade keeps c in memory for a while. io is held.
func (q *Queue) degrade(c *class, cause error) {
	q.mu.Lock()
	now := q.now()
	c.retryAt = now.Add(retryInterval)
	known := c.trouble != nil
	c.trouble = cause
	if !known {
		c.since = now
		q.log.Error("spool keeps a class in memory", "class", string(c.name), "error", cause)
		q.event(c, "degraded", "flash", "memory", reason(cause))
	}
	q.wake()
	q.mu.Unlock()
	q.retire(c)
	if events := &q.classes[rankEvent]; !known && c != events && q.healthy(events) {
		_ = q.commit(events) // it says itself what becomes of it
	}
}

// recovered ends what degrade began. io is held.
func (q *Queue) recovered(c *class) {
	q.mu.Lock()
	known := c.trouble != nil
	if known {
		q.log.Info("spool writes a class to flash again", "class", string(c.name))
		q.event(c, "recovered", "memory", "flash", "")
		c.trouble = nil
	}
	q.mu.Unlock()
	if events := &q.classes[rankEvent]; known && q.healthy(events) {
		_ = q.commit(events)
	}
}

func (q *Queue) healthy(c *class) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return c.trouble == nil
}

// reason names an error in an event, without what differs from case to case.
func reason(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return err.Error()
}

// event queues an event of the spool about c. mu is held.
func (q *Queue) event(c *class, what, before, after, why string) {
	fields := []transport.Field{
		{Key: "subject", Value: string(c.name)},
		{Key: "what", Value: what},
		{Key: "before", Value: before},
		{Key: "after", Value: after},
	}
	if why != "" {
		fields = append(fields, transport.Field{Key: "reason", Value: why})
	}
	body, err := transport.EncodeFields(fields)
	if err != nil {
		return // cannot be: words
	}
	events := &q.classes[rankEvent]
	q.insert(events, transport.Message{Class: events.name, Kind: transport.KindEvent, Name: eventSpool, Body: body})
	q.evict(events)
}
