package isp

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"
)

// tsReader is a receiver's view of a stream: it knows nothing of the mux.
type tsReader struct {
	t        *testing.T
	counters map[uint16]int
	packets  map[uint16]int
	lost     int
	pcr      []uint64
	pcrAt    []int
	n        int
}

func newTSReader(t *testing.T) *tsReader {
	t.Helper()
	return &tsReader{t: t, counters: map[uint16]int{}, packets: map[uint16]int{}}
}

func (r *tsReader) read(p []byte) {
	r.t.Helper()
	if len(p) != 188 || p[0] != 0x47 {
		r.t.Fatalf("packet %d begins with % x and has %d bytes", r.n, p[:4], len(p))
	}
	pid := uint16(p[1]&0x1f)<<8 | uint16(p[2])
	r.packets[pid]++
	if pid != 0x1fff {
		counter := int(p[3] & 0x0f)
		if last, ok := r.counters[pid]; ok && counter != (last+1)&0x0f {
			r.lost++
		}
		r.counters[pid] = counter
	}
	payload := p[4:]
	if p[3]&0x20 != 0 {
		field := p[5 : 5+int(p[4])]
		payload = p[5+int(p[4]):]
		if len(field) > 0 && field[0]&0x10 != 0 {
			base := uint64(field[1])<<25 | uint64(field[2])<<17 | uint64(field[3])<<9 | uint64(field[4])<<1 | uint64(field[5])>>7
			r.pcr = append(r.pcr, base*300+(uint64(field[5]&1)<<8|uint64(field[6])))
			r.pcrAt = append(r.pcrAt, r.n)
		}
	}
	if start := p[1]&0x40 != 0; start && (pid == 0 || pid == 0x1000) {
		section := payload[1+int(payload[0]):]
		section = section[:3+(int(section[1]&0x0f)<<8|int(section[2]))]
		// Over data and its CRC together the CRC is 0.
		if crc := tsCRC(section); crc != 0 {
			r.t.Errorf("table of PID %#x has a wrong CRC: % x", pid, section)
		}
		switch {
		case pid == 0 && (section[0] != 0 || uint16(section[10]&0x1f)<<8|uint16(section[11]) != 0x1000):
			r.t.Errorf("PAT % x does not lead to the PMT", section)
		case pid == 0x1000 && (section[0] != 2 || section[12] != 0x1b || uint16(section[13]&0x1f)<<8|uint16(section[14]) != 0x100):
			r.t.Errorf("PMT % x does not lead to the video", section)
		}
	} else if start && !bytes.Equal(payload[:4], []byte{0, 0, 1, 0xe0}) {
		r.t.Errorf("picture begins with % x", payload[:4])
	}
	r.n++
}

// The CRC of ISO/IEC 13818-1, annex A, by its well-known check value.
func TestTransportStreamCRC(t *testing.T) {
	if got := tsCRC([]byte("123456789")); got != 0x0376e6e7 {
		t.Errorf("CRC-32/MPEG-2 is %#08x", got)
	}
}

func TestTransportStreamIsWhole(t *testing.T) {
	const rate = 8_000_000
	m, r := newTSMux(rate), newTSReader(t)
	var p [tsPacketSize]byte
	for range rate / 8 / tsPacketSize * 10 { // ten seconds
		m.next(p[:])
		r.read(p[:])
	}
	if r.lost != 0 {
		t.Errorf("%d steps of counters are wrong", r.lost)
	}
	for pid, between := range map[uint16][2]int{0: {95, 105}, 0x1000: {95, 105}, 0x100: {45000, 47000}, 0x1fff: {6500, 6800}} {
		if n := r.packets[pid]; n < between[0] || n > between[1] {
			t.Errorf("PID %#x has %d packets, want %v", pid, n, between)
		}
	}
	if len(r.pcr) < 245 {
		t.Fatalf("%d clock references in ten seconds", len(r.pcr))
	}
	for i, pcr := range r.pcr {
		if want := uint64(r.pcrAt[i]) * 188 * 8 * 27 / 8; pcr != want {
			t.Fatalf("clock reference %d is %d, want %d", i, pcr, want)
		}
	}
}

// Long after its first day a stream's clock wraps and goes on.
func TestTransportStreamClockWraps(t *testing.T) {
	m := newTSMux(8_000_000)
	day := uint64(27*time.Hour/time.Second) * m.rate / (tsPacketSize * 8)
	m.made = day
	before := m.clock()
	m.made += m.rate / (tsPacketSize * 8)
	if second := m.clock() - before; second < tsSystemClock*99/100 || second > tsSystemClock {
		t.Errorf("a second takes %d ticks of the clock", second)
	}
	if before < tsClockWrap {
		t.Errorf("the clock is at %d: nothing would have wrapped", before)
	}
	m.frameDue, m.made = true, m.made-m.made%8
	for m.frameDue {
		var p [tsPacketSize]byte
		m.next(p[:])
		newTSReader(t).read(p[:])
	}
}

func TestTransportStreamFrozenHasTablesOnly(t *testing.T) {
	m, r := newTSMux(1_000_000), newTSReader(t)
	m.frozen = true
	var p [tsPacketSize]byte
	for range 1000 {
		m.next(p[:])
		r.read(p[:])
	}
	if r.packets[0x100] != 0 || r.packets[0] == 0 || r.packets[0x1000] == 0 || r.packets[0x1fff] < 900 || r.lost != 0 {
		t.Errorf("packets by PID %v, %d lost", r.packets, r.lost)
	}
	m.frozen = false
	m.next(p[:])
	m.next(p[:])
	if r.read(p[:]); r.packets[0x100] == 0 {
		t.Errorf("no picture after it: %s", hex.EncodeToString(p[:16]))
	}
}
