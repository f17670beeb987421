package multicast

import (
	"net/netip"
	"time"
)

// meter measures one stream: what one sender sends to one port of the group.
// Which, the first packet says unless Options do.
type meter struct {
	o      *Options
	sender netip.Addr
	port   uint16

	first, last    time.Duration // since the begin of the run
	packets, bytes uint64
	firstBytes     uint64
	gap            time.Duration // the longest
	stalls         int
	rtp            *RTP
	ts             *TS
	others         uint64
	malformed      uint64
}

func newMeter(o *Options) *meter { return &meter{o: o, sender: o.Source, port: o.Port} }

// anew returns a meter for the same stream that has counted nothing.
func (m *meter) anew() *meter { return &meter{o: m.o, sender: m.sender, port: m.port} }

// take counts a UDP packet to the group.
func (m *meter) take(now time.Duration, src netip.Addr, udp []byte) {
	port, b, ok := parseUDP(udp)
	if !ok {
		m.malformed++
		return
	}
	if m.sender.IsValid() && m.sender != src || m.port != 0 && m.port != port {
		m.others++
		return
	}
	m.sender, m.port = src, port
	if m.packets == 0 {
		m.first, m.firstBytes = now, uint64(len(b))
	} else {
		m.pause(now)
	}
	m.last = now
	m.packets++
	m.bytes += uint64(len(b))
	m.content(b)
}

// pause accounts for the time without a packet until now.
func (m *meter) pause(now time.Duration) {
	d := now - m.last
	m.gap = max(m.gap, d)
	if d >= m.o.Stall {
		m.stalls++
	}
}

func (m *meter) content(b []byte) {
	if seq, ssrc, payload, ok := parseRTP(b); ok && m.ts == nil || ok && m.rtp != nil {
		if m.rtp == nil {
			m.rtp = &RTP{}
		}
		if !m.rtp.take(seq, ssrc) {
			return
		}
		b = payload
	}
	if isTS(b) {
		if m.ts == nil {
			m.ts = &TS{}
		}
		m.ts.take(b)
	}
}

// fill writes what was measured until end.
func (m *meter) fill(r *Result, end time.Duration) {
	r.OtherPackets, r.Malformed = m.others, m.malformed
	if m.packets == 0 {
		return
	}
	r.Source, r.Port, r.Packets, r.Bytes = m.sender, m.port, m.packets, m.bytes
	// Between the first packet and the last, the first belongs to the time
	// before.
	if between := m.last - m.first; between > 0 {
		r.RateMbps = float64(m.bytes-m.firstBytes) * 8 / between.Seconds() / 1e6
	}
	m.pause(end)
	r.ListenedS, r.LongestGapMs, r.Stalls = (end - m.first).Seconds(), millis(m.gap), m.stalls
	r.RTP, r.TS = m.rtp, m.ts
	if r.Dropped > 0 {
		return
	}
	var loss float64
	switch {
	case m.rtp != nil:
		loss = m.rtp.loss()
	case m.ts != nil:
		loss = m.ts.loss()
	default:
		return
	}
	r.LossRatio = &loss
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
