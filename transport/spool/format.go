package spool

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"strconv"
	"strings"

	"ontagent/transport"
)

// The format of a segment file. All numbers are little endian.
//
//	header: "ONTQ", version 1, class 1, level 1, part 1, epoch 8, first seq 8,
//	        first and last seq of the segment written before 8+8, crc 4
//	record: magic 1, flags 1, name length 1, body length 3, seq - first 4,
//	        uptime ms 6, wall ms 8, name, body, crc 4
//
// Each crc is CRC-32C over what precedes it in its header or record, begun at
// a seed made of the file's class, epoch, first number and part, so that
// neither zeros nor records of other files validate.
const (
	segMagic   = "ONTQ"
	version    = 1
	headerSize = 44
	// recMagic is a byte that UTF-8 never contains, so that names and bodies
	// hold none.
	recMagic = 0xF7
	recHead  = 24
	recExtra = recHead + 4 // what a record takes beside name and body
	// maxFile bounds what is read of a file: the largest segment is one record
	// of transport.MaxPayload.
	maxFile = 256 << 10
)

var kinds = [...]transport.Kind{
	1: transport.KindState, 2: transport.KindInfo, 3: transport.KindTelemetry, 4: transport.KindEvent,
	5: transport.KindBackfill, 6: transport.KindRecord, 7: transport.KindPending, 8: transport.KindStatus,
}

var clocks = [...]string{transport.ClockNone, transport.ClockFloor, transport.ClockNTP}

// segID names a segment file within the directory of its class. part is 0
// unless a file of that epoch and number was there before: after a failed
// write, and for rollups.
type segID struct {
	epoch, first uint64
	part         uint8
}

func (id segID) less(other segID) bool {
	if id.epoch != other.epoch {
		return id.epoch < other.epoch
	}
	if id.first != other.first {
		return id.first < other.first
	}
	return id.part < other.part
}

// name returns EEEEEEEEEEEEEEEE-SSSSSSSSSSSSSSSS.seg, and for parts other than
// 0 with -PP before the dot.
func (id segID) name() string {
	b := append(appendHex(make([]byte, 0, 40), id.epoch, 16), '-')
	b = appendHex(b, id.first, 16)
	if id.part != 0 {
		b = appendHex(append(b, '-'), uint64(id.part), 2)
	}
	return string(append(b, ".seg"...))
}

func appendHex(b []byte, v uint64, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[v>>shift&15])
	}
	return b
}

// parseName accepts exactly what name makes.
func parseName(name string) (segID, bool) {
	parts := strings.Split(strings.TrimSuffix(name, ".seg"), "-")
	if len(parts) < 2 || len(parts) > 3 {
		return segID{}, false
	}
	var id segID
	var part uint64
	var errs [3]error
	id.epoch, errs[0] = strconv.ParseUint(parts[0], 16, 64)
	id.first, errs[1] = strconv.ParseUint(parts[1], 16, 64)
	if len(parts) == 3 {
		part, errs[2] = strconv.ParseUint(parts[2], 16, 8)
	}
	id.part = uint8(part)
	ok := errs == [3]error{} && id.first > 0 && id.first < 1<<62 && id.name() == name
	return id, ok
}

func sum(seed uint32, b []byte) uint32 {
	return crc32.Update(seed, crc32.MakeTable(crc32.Castagnoli), b)
}

// seed returns where the checksums of a file of class number rank begin, never
// 0.
func (id segID) seed(rank int) uint32 {
	b := binary.LittleEndian.AppendUint64([]byte{byte(rank), id.part}, id.epoch)
	return sum(0x5EED, binary.LittleEndian.AppendUint64(b, id.first)) | 1
}

// span is a range of numbers.
type span struct{ lo, hi uint64 }

// appendHeader appends the header of a segment; before is the segment of the
// epoch that was written before it, zero if there is none: so a missing end of
// that one is noticed even where the cut is clean.
func appendHeader(b []byte, id segID, rank int, level uint8, before span) []byte {
	at := len(b)
	b = append(b, segMagic...)
	b = append(b, version, byte(rank), level, id.part)
	b = binary.LittleEndian.AppendUint64(b, id.epoch)
	b = binary.LittleEndian.AppendUint64(b, id.first)
	b = binary.LittleEndian.AppendUint64(b, before.lo)
	b = binary.LittleEndian.AppendUint64(b, before.hi)
	return binary.LittleEndian.AppendUint32(b, sum(id.seed(rank), b[at:]))
}

// header is what is read of one.
type header struct {
	ok      bool  // whole, and that of this file
	version uint8 // 0 if it is not ok
	level   uint8
	before  span
}

func parseHeader(b []byte, id segID, rank int) header {
	const at = headerSize - 4
	if len(b) < headerSize || string(b[:4]) != segMagic || binary.LittleEndian.Uint32(b[at:]) != sum(id.seed(rank), b[:at]) {
		return header{}
	}
	return header{
		ok: b[4] == version && int(b[5]) == rank && b[7] == id.part && b[6] < uint8(len(windows)) &&
			binary.LittleEndian.Uint64(b[8:]) == id.epoch && binary.LittleEndian.Uint64(b[16:]) == id.first,
		version: b[4], level: b[6],
		before: span{binary.LittleEndian.Uint64(b[24:]), binary.LittleEndian.Uint64(b[32:])},
	}
}

// recordSize is what a message takes in a segment.
func recordSize(m transport.Message) int { return recExtra + len(m.Name) + len(m.Body) }

// appendRecord appends e, whose number is first or up to 2^32-1 above it.
func appendRecord(b []byte, seed uint32, first uint64, e transport.Entry) []byte {
	flags := byte(0)
	for i, c := range clocks {
		if c == e.Header.Clock {
			flags = byte(i)
		}
	}
	if e.Message.Retain {
		flags |= 1 << 2
	}
	for i, k := range kinds {
		if k == e.Message.Kind {
			flags |= byte(i) << 3
		}
	}
	at, n := len(b), len(e.Message.Body)
	b = append(b, recMagic, flags, byte(len(e.Message.Name)), byte(n), byte(n>>8), byte(n>>16))
	b = binary.LittleEndian.AppendUint32(b, uint32(e.Header.Seq-first))
	up := uint64(math.Round(e.Header.UptimeS * 1000))
	b = binary.LittleEndian.AppendUint32(b, uint32(up))
	b = binary.LittleEndian.AppendUint16(b, uint16(up>>32))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Header.TimeMS))
	b = append(b, e.Message.Name...)
	b = append(b, e.Message.Body...)
	return binary.LittleEndian.AppendUint32(b, sum(seed, b[at:]))
}

// record is one parsed record; name and body point into what was parsed.
type record struct {
	seq      uint64
	uptimeMS uint64
	wallMS   int64
	flags    byte
	name     []byte
	body     []byte
}

// recordLength returns the length that the record at the start of b claims, 0
// if b cannot begin with one.
func recordLength(b []byte) int {
	if len(b) < recExtra || b[0] != recMagic || b[1]&3 >= byte(len(clocks)) || b[1]>>3 == 0 || int(b[1]>>3) >= len(kinds) ||
		b[2] > transport.MaxName {
		return 0
	}
	body := int(b[3]) | int(b[4])<<8 | int(b[5])<<16
	if body > transport.MaxPayload {
		return 0
	}
	return recExtra + int(b[2]) + body
}

// parseRecord reads the record at the start of b, of a file with the given
// seed and first number. n is its length, 0 if b does not begin with a whole
// and valid one.
func parseRecord(b []byte, seed uint32, first uint64) (r record, n int) {
	n = recordLength(b)
	if n == 0 || n > len(b) || binary.LittleEndian.Uint32(b[n-4:]) != sum(seed, b[:n-4]) {
		return record{}, 0
	}
	r = record{
		seq:      first + uint64(binary.LittleEndian.Uint32(b[6:])),
		uptimeMS: uint64(binary.LittleEndian.Uint32(b[10:])) | uint64(binary.LittleEndian.Uint16(b[14:]))<<32,
		wallMS:   int64(binary.LittleEndian.Uint64(b[16:])),
		flags:    b[1],
		name:     b[recHead : recHead+int(b[2])],
		body:     b[recHead+int(b[2]) : n-4],
	}
	if r.seq < first {
		return record{}, 0
	}
	return r, n
}

// entry makes of a record what was queued; its Queued is zero.
func (r record) entry(device string, epoch uint64, class transport.Class) transport.Entry {
	return transport.Entry{
		Header: transport.Header{
			V: transport.Version, Device: device, Epoch: epoch, Class: class, Seq: r.seq,
			UptimeS: float64(r.uptimeMS) / 1000, TimeMS: r.wallMS, Clock: clocks[r.flags&3],
		},
		Message: transport.Message{
			Class: class, Kind: kinds[r.flags>>3], Name: string(r.name), Retain: r.flags>>2&1 != 0, Body: r.body,
		},
	}
}

// damage is a stretch of a file in which no record validates.
type damage struct {
	from, to int    // offsets, to excluded
	lo, hi   uint64 // the numbers that may have been there; hi 0: all up to what follows the file
}

// contents is what scan finds in a segment.
type contents struct {
	header  header
	records int
	last    uint64 // highest number, 0 if none
	damage  []damage
}

// scan goes through b, the bytes of a segment, and calls visit for each valid
// record whose number is above those before it, with its offset. After bytes
// that are not one it looks for the next. It reads each byte a bounded number
// of times, whatever b holds.
func scan(b []byte, id segID, rank int, visit func(off int, r record)) contents {
	c := contents{header: parseHeader(b, id, rank)}
	seed := id.seed(rank)
	budget := 16*len(b) + 1<<16 // bytes to checksum in vain
	at := 0                     // where no header is, records may be anywhere
	if c.header.ok {
		at = headerSize
	}
	bad := -1 // where the present damage begins
	for at < len(b) {
		r, n := parseRecord(b[at:], seed, id.first)
		if n == 0 || r.seq <= c.last {
			if bad < 0 {
				bad = at
			}
			if claimed := recordLength(b[at:]); claimed > 0 && claimed <= len(b)-at {
				if budget -= claimed; budget < 0 {
					break
				}
			}
			at++
			continue
		}
		if bad >= 0 {
			c.note(bad, at, id.first, r.seq-1)
			bad = -1
		}
		visit(at, r)
		c.records++
		c.last = r.seq
		at += n
	}
	if bad < 0 && len(b) == 0 {
		bad = 0
	}
	if bad >= 0 {
		c.note(bad, len(b), id.first, 0)
	}
	return c
}

func (c *contents) note(from, to int, first, hi uint64) {
	lo := first
	if c.records > 0 {
		lo = c.last + 1
	}
	c.damage = append(c.damage, damage{from: from, to: to, lo: lo, hi: hi})
}
