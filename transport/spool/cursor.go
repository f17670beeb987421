package spool

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"ontagent/transport/durable"
)

// The format of a cursor slot, little endian:
//
//	"ONTC", version 4, generation 8, ack version 8, told 8, clean 8, count 4,
//	then each {class 1, live 1, epoch 8, gone 8, last 8}, crc 4
const (
	cursorMagic = "ONTC"
	cursorHead  = 4 + 4 + 4*8 + 4
	cursorPoint = 26
	cursorMost  = 512 // points
	cursorLimit = cursorHead + cursorMost*cursorPoint + 4
	cursorSeed  = 0xC0 // of the checksum

	cursorAge   = 60 * time.Second
	cursorBytes = 64 << 10
)

// cursor is what is kept beside the segments. All of it may be lost: then
// messages go twice and restarts are told again.
type cursor struct {
	generation uint64
	ack        uint64 // version of the latest acknowledgement
	told       uint64 // the restart gaps of epochs up to it are durable
	clean      uint64 // the epoch that ended cleanly, 0 if the last one did not
	points     []cursorEntry
}

// cursorEntry says of a class and epoch that all up to seq is gone, and
// whether anything above it was on flash.
type cursorEntry struct {
	rank uint8
	live bool
	point
	last uint64 // highest number on flash, or known to have been
}

func (c cursor) encode() []byte {
	b := binary.LittleEndian.AppendUint32([]byte(cursorMagic), version)
	for _, v := range [...]uint64{c.generation, c.ack, c.told, c.clean} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	points := c.points[:min(len(c.points), cursorMost)]
	b = binary.LittleEndian.AppendUint32(b, uint32(len(points)))
	for _, p := range points {
		live := byte(0)
		if p.live {
			live = 1
		}
		b = append(b, p.rank, live)
		b = binary.LittleEndian.AppendUint64(b, p.epoch)
		b = binary.LittleEndian.AppendUint64(b, p.seq)
		b = binary.LittleEndian.AppendUint64(b, p.last)
	}
	return binary.LittleEndian.AppendUint32(b, sum(cursorSeed, b))
}

func decodeCursor(b []byte) (c cursor, ok bool) {
	if len(b) < cursorHead+4 || string(b[:4]) != cursorMagic || binary.LittleEndian.Uint32(b[4:]) != version ||
		binary.LittleEndian.Uint32(b[len(b)-4:]) != sum(cursorSeed, b[:len(b)-4]) {
		return cursor{}, false
	}
	n := int64(binary.LittleEndian.Uint32(b[cursorHead-4:]))
	if int64(len(b)) != cursorHead+n*cursorPoint+4 {
		return cursor{}, false
	}
	at := 8
	for _, to := range [...]*uint64{&c.generation, &c.ack, &c.told, &c.clean} {
		*to = binary.LittleEndian.Uint64(b[at:])
		at += 8
	}
	for p := b[cursorHead : len(b)-4]; len(p) > 0; p = p[cursorPoint:] {
		if p[0] >= durableRanks || p[1] > 1 {
			return cursor{}, false
		}
		c.points = append(c.points, cursorEntry{
			rank: p[0], live: p[1] == 1,
			point: point{binary.LittleEndian.Uint64(p[2:]), binary.LittleEndian.Uint64(p[10:])},
			last:  binary.LittleEndian.Uint64(p[18:]),
		})
	}
	return c, true
}

// cursorFile is where the cursor goes next.
type cursorFile struct {
	generation uint64
	slot       int // to be written next
	from       cursor
}

func cursorPath(dir string, slot int) string {
	return filepath.Join(dir, "cursor."+strconv.Itoa(slot))
}

// readCursor returns the newer of the two slots, the zero cursor if neither
// holds.
func readCursor(fsys durable.FS, op, dir string) (newest cursor, slot int, errs [2]error) {
	slot = 1
	for i := range errs {
		b, err := durable.ReadFile(fsys, op, cursorPath(dir, i), cursorLimit)
		if err != nil {
			errs[i] = err
			continue
		}
		c, ok := decodeCursor(b)
		if !ok {
			errs[i] = durable.ErrCorrupt
		} else if c.generation >= newest.generation {
			newest, slot = c, i
		}
	}
	return newest, slot, errs
}

// writeCursor writes the cursor; clean says that everything is durable and
// nothing more will come. io is held.
func (q *Queue) writeCursor(clean bool) error {
	q.mu.Lock()
	f := &q.cursor
	f.generation++
	c := cursor{generation: f.generation, ack: q.ack, told: q.told}
	if clean {
		c.clean = q.epoch
	}
	for i := range durableRanks {
		class := &q.classes[i]
		if !class.loaded || class.unread > 0 {
			// Nothing new is known of it.
			for _, p := range f.from.points {
				if int(p.rank) == i {
					c.points = append(c.points, p)
				}
			}
			continue
		}
		for _, p := range class.points(q.owing()) {
			p.rank = uint8(i)
			c.points = append(c.points, p)
		}
	}
	drained := q.drained
	q.mu.Unlock()

	b := c.encode()
	err := durable.WriteFile(q.fs, "spool.cursor", cursorPath(q.dir, f.slot), b, 0o600)
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	q.flashed += int64(len(b))
	q.dirtyAt = now
	if err != nil {
		q.dirty = true
		q.log.Warn("cannot write cursor of spool", "error", err)
		return err
	}
	q.syncs += 2
	f.slot = 1 - f.slot
	q.drained -= drained
	q.dirty = false
	return nil
}

// points returns up to where each epoch is gone. While gaps wait to be durable
// what they report is not. mu is held.
func (c *class) points(owing bool) []cursorEntry {
	var points []cursorEntry
	for _, p := range c.gone {
		points = append(points, cursorEntry{point: p, last: p.seq})
	}
	of := func(epoch uint64) *cursorEntry {
		i := slices.IndexFunc(points, func(p cursorEntry) bool { return p.epoch == epoch })
		if i < 0 {
			i = len(points)
			points = append(points, cursorEntry{point: point{epoch: epoch}})
		}
		return &points[i]
	}
	if !owing {
		c.secret = nil
	}
	for _, s := range c.secret {
		p := of(s.epoch)
		p.seq, p.live, p.last = min(p.seq, s.seq), true, max(p.last, s.last)
	}
	for _, s := range c.segs {
		p := of(s.epoch)
		p.last = max(p.last, s.last())
		if upTo, live := c.goneIn(s.epoch, owing); !p.live {
			p.seq, p.live = max(p.seq, upTo), live
		}
	}
	return points
}

// adopt takes over what the cursor file says. io is held.
func (q *Queue) adopt() {
	c, slot, errs := readCursor(q.fs, "spool.cursor", q.dir)
	for _, err := range errs {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			q.log.Warn("cannot read cursor of spool", "error", err)
		}
	}
	// One more, lest the slot that could not be read holds the next.
	q.cursor = cursorFile{generation: c.generation + 1, slot: 1 - slot, from: c}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ack = max(q.ack, c.ack)
	q.told = c.told
	for _, p := range c.points {
		q.classes[p.rank].setGone(p.epoch, p.seq)
	}
}
