package isp

import (
	"encoding/binary"
	"math/bits"
	"time"
)

// Of MPEG-2 systems (ISO/IEC 13818-1).
const (
	tsPacketSize = 188
	tsSync       = 0x47
	tsPATPID     = 0x0000
	tsPMTPID     = 0x1000
	tsVideoPID   = 0x0100
	tsNullPID    = 0x1fff
	tsProgramme  = 1
	tsStreamAVC  = 0x1b // H.264 in PES, as most operators' channels are

	tsSystemClock = 27_000_000 // Hz
	tsClockWrap   = 300 << 33  // a programme clock reference has 33 + 9 bits
)

// How often what comes. A decoder that has just joined needs the tables first.
const (
	tsTables = 100 * time.Millisecond
	tsFrame  = 40 * time.Millisecond // 25 pictures a second, each with a clock reference
)

// tsMux makes a transport stream of one programme with one video stream, at a
// constant rate. Its clock is the number of packets it has made, so that the
// same stream comes out whenever it is asked.
type tsMux struct {
	rate     uint64 // bit/s of the whole stream
	made     uint64 // packets
	tables   uint64 // packets between two tables
	frame    uint64 // packets between two pictures
	pmtDue   bool
	frameDue bool
	counters [3]byte // of the tables' and the video's PIDs
	frozen   bool    // the coder is dead, and null packets fill its place
	stuffing [tsPacketSize]byte
}

func newTSMux(rate uint64) *tsMux {
	every := func(d time.Duration) uint64 { return max(rate*uint64(d/time.Millisecond)/1000/(tsPacketSize*8), 3) }
	m := &tsMux{rate: rate, tables: every(tsTables), frame: every(tsFrame)}
	for i := range m.stuffing {
		m.stuffing[i] = 0xff
	}
	return m
}

// clock returns when the next packet goes, in units of 1/27 µs since the first.
func (m *tsMux) clock() uint64 {
	hi, lo := bits.Mul64(m.made, tsPacketSize*8*tsSystemClock)
	ticks, _ := bits.Div64(hi%m.rate, lo, m.rate)
	return ticks
}

// next writes the next packet to p, which has tsPacketSize bytes.
func (m *tsMux) next(p []byte) {
	copy(p, m.stuffing[:])
	if m.made%m.frame == 0 {
		m.frameDue = true
	}
	switch {
	case m.made%m.tables == 0:
		m.head(p, tsPATPID, true, &m.counters[0])
		tsSection(p[4:], 0x00, tsProgramme, []byte{0, tsProgramme, 0xe0 | tsPMTPID>>8, tsPMTPID & 0xff})
		m.pmtDue = true
	case m.pmtDue:
		m.head(p, tsPMTPID, true, &m.counters[1])
		tsSection(p[4:], 0x02, tsProgramme, []byte{
			0xe0 | tsVideoPID>>8, tsVideoPID & 0xff, 0xf0, 0, // where the clock is, and no descriptors
			tsStreamAVC, 0xe0 | tsVideoPID>>8, tsVideoPID & 0xff, 0xf0, 0,
		})
		m.pmtDue = false
	case m.frozen || m.made%8 == 7: // a constant rate is never full
		m.head(p, tsNullPID, false, nil)
	case m.frameDue:
		m.head(p, tsVideoPID, true, &m.counters[2])
		m.picture(p)
		m.frameDue = false
	default:
		m.head(p, tsVideoPID, false, &m.counters[2])
	}
	m.made++
}

// head writes a packet's four bytes. Null packets don't count.
func (*tsMux) head(p []byte, pid uint16, start bool, counter *byte) {
	p[0] = tsSync
	binary.BigEndian.PutUint16(p[1:], pid)
	if start {
		p[1] |= 0x40
	}
	p[3] = 0x10 // payload only
	if counter != nil {
		p[3] |= *counter
		*counter = (*counter + 1) & 0x0f
	}
}

// picture begins a picture: a clock reference, and a PES header with a time
// stamp.
func (m *tsMux) picture(p []byte) {
	clock := m.clock()
	p[3] |= 0x20 // an adaptation field comes first
	p[4] = 7
	p[5] = 0x10 // with a clock reference
	pcr := clock % tsClockWrap
	base, extension := pcr/300, pcr%300
	binary.BigEndian.PutUint32(p[6:], uint32(base>>1))
	binary.BigEndian.PutUint16(p[10:], uint16(base&1)<<15|0x7e00|uint16(extension))
	// The picture is shown half a second after it comes.
	pts := (clock + tsSystemClock/2) / 300 % (1 << 33)
	copy(p[12:], []byte{
		0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5,
		0x21 | byte(pts>>29)&0x0e, byte(pts >> 22), byte(pts>>14) | 1, byte(pts >> 7), byte(pts<<1) | 1,
	})
}

// tsSection writes a table of one section, behind its pointer.
func tsSection(p []byte, table byte, id uint16, body []byte) {
	length := 5 + len(body) + 4
	p[0] = 0 // begins here
	p[1] = table
	binary.BigEndian.PutUint16(p[2:], 0xb000|uint16(length))
	binary.BigEndian.PutUint16(p[4:], id)
	p[6], p[7], p[8] = 0xc1, 0, 0 // version 0, in force; section 0 of 0
	n := 9 + copy(p[9:], body)
	binary.BigEndian.PutUint32(p[n:], tsCRC(p[1:n]))
}

// tsCRC is the CRC-32 of MPEG-2: not the reflected one of hash/crc32.
func tsCRC(data []byte) uint32 {
	crc := ^uint32(0)
	for _, b := range data {
		crc ^= uint32(b) << 24
		for range 8 {
			carry := crc >> 31
			crc = crc<<1 ^ carry*0x04c11db7
		}
	}
	return crc
}
