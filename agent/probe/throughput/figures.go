package throughput

import "time"

// own is what a connection moved in a window.
type own struct {
	bytes    uint64 // payload
	segments uint64 // with data, once each
	packets  uint64 // bytes of IP of all that carried data, also of those sent again
}

// figures are drawn from a window, or from what there was of it.
func (c *course) figures(m *Measurement) {
	m.Conditions = c.device.end()
	for _, f := range c.pump.flows {
		m.CountedBy = "queue"
		if f.byInfo {
			m.CountedBy = "tcp_info"
		}
	}
	if !c.down {
		m.CongestionControl = congestionControl(c.streams[0])
	}
	if c.last[0].at.Sub(c.begin[0].at) < partTime {
		return
	}
	var tcp, ip, ethernet, seconds float64
	var packets uint64
	n := len(c.pump.flows)
	for i := range c.pump.flows {
		con, o := c.connection(i)
		d := c.last[i].at.Sub(c.begin[i].at)
		ipBytes, ethernetBytes := layerBytes(o.bytes, o.segments, con.HeaderBytes, c.encapsulation)
		tcp += con.Mbps
		ip += ipBytes * 8 / 1e6 / d.Seconds()
		ethernet += ethernetBytes * 8 / 1e6 / d.Seconds()
		seconds += d.Seconds()
		packets += o.packets
		m.Bytes += o.bytes
		m.PerConnection = append(m.PerConnection, con)
	}
	m.DurationS = seconds / float64(n)
	m.TCPMbps, m.IPMbps, m.EthernetMbps = &tcp, &ip, &ethernet

	cuts := perSecond(c.in)
	for i := 1; i < len(cuts); i++ {
		m.Mbps = append(m.Mbps, between(cuts[i-1], cuts[i]))
		m.TR143.IncrementalResult = append(m.TR143.IncrementalResult, IncrementalResult{
			TestBytes: cuts[i].bytes - cuts[i-1].bytes, StartTime: stamp(cuts[i-1].at), EndTime: stamp(cuts[i].at),
		})
	}
	m.Spread = spread(m.Mbps)
	m.TR143.TestBytesUnderFullLoading = m.Bytes
	m.TR143.PeriodOfFullLoading = uint64(m.DurationS * 1e6)
	c.cross(m, packets)
	if c.before != nil && c.before.SpeedMbps > 0 {
		con := &m.PerConnection[0]
		if top := ceilingMbps(c.before.SpeedMbps, c.encapsulation, c.v6, con.MSS, con.HeaderBytes); top > 0 {
			m.CeilingMbps = &top
		}
	}
}

// connection is one of them in the window.
func (c *course) connection(i int) (Connection, own) {
	a, b := &c.begin[i], &c.last[i]
	d := b.at.Sub(a.at)
	con := Connection{Bytes: b.bytes - a.bytes, HeaderBytes: 40, WindowBytes: c.rcvWnd[i]}
	if c.v6 {
		con.HeaderBytes = 60
	}
	if b.info.timestamps() {
		con.HeaderBytes += 12
	}
	con.Mbps = rateMbps(con.Bytes, d)
	con.RTTMs = float64(b.info.or(infoRTT, 0)) / 1000
	con.MinRTTMs = float64(b.info.or(infoMinRTT, 0)) / 1000
	o := own{bytes: con.Bytes}
	header := uint64(con.HeaderBytes)
	if c.down {
		con.MSS = b.info.or(infoRcvMSS, 0)
		con.OutOfOrder = grew(a, b, infoOOO)
		con.RTTMs = float64(b.info.or(infoRcvRTT, b.info.or(infoRTT, 0))) / 1000
		if n := len(c.in) - 1; n > 0 {
			con.BacklogRatio = float64(c.backlog[i]) / float64(n)
		}
		o.segments = c.segments(a, b, infoSegsIn, con)
		o.packets = o.bytes + o.segments*header
		// What came twice is counted in segments only, all of which are full.
		if full := o.segments * (uint64(con.MSS) + header); full > o.packets && full-o.packets < o.packets/10 {
			o.packets = full
		}
	} else {
		con.MSS = b.info.or(infoSndMSS, 0)
		con.WindowBytes = uint64(b.info.or(infoSndWnd, 0))
		con.Retransmits = grew(a, b, infoRetrans)
		con.BusyRatio = ratio(a, b, infoBusy, d)
		con.RWndLimitedRatio = ratio(a, b, infoRWndLim, d)
		con.SndBufLimitedRatio = ratio(a, b, infoSndBufLim, d)
		// What was acknowledged has left, what was sent may still wait in a queue
		// of this device: the size of the segments is that of those sent.
		o.segments = c.segments(a, b, infoSegsOut, con)
		if sent, ok := grew64(a, b, infoSent); ok && sent > 0 {
			o.segments = uint64(float64(o.segments) * float64(o.bytes) / float64(sent))
		}
		o.packets = o.bytes + o.segments*header + con.Retransmits*(uint64(con.MSS)+header)
	}
	con.Segments = o.segments
	return con, o
}

// segments are counted by the kernel, or follow from their size.
func (c *course) segments(a, b *reading, field int, con Connection) uint64 {
	if _, ok := b.info.u32(field); ok {
		return grew(a, b, field)
	}
	mss := uint64(con.MSS)
	if mss == 0 {
		payload, _ := c.encapsulation.fullSegment(c.v6)
		mss = uint64(max(payload, 1))
	}
	return (con.Bytes + mss - 1) / mss
}

// grew is how much a 32-bit counter did, wraps included.
func grew(a, b *reading, field int) uint64 {
	was, _ := a.info.u32(field)
	now, _ := b.info.u32(field)
	return uint64(now - was)
}

// grew64 is that of a 64-bit counter, if there is one.
func grew64(a, b *reading, field int) (uint64, bool) {
	was, ok := a.info.u64(field)
	now, has := b.info.u64(field)
	return now - was, ok && has
}

// ratio is the part of a time that a counter of microseconds grew by.
func ratio(a, b *reading, field int, d time.Duration) *float64 {
	grown, ok := grew64(a, b, field)
	if !ok || d <= 0 {
		return nil
	}
	r := min(float64(grown)/float64(d.Microseconds()), 1)
	return &r
}

// cross is what passed the interface in the window beside the test.
func (c *course) cross(m *Measurement, packets uint64) {
	if len(c.edges) < 2 {
		return
	}
	m.CountersBlind = c.before.Blind
	first, last := &c.edges[0], &c.edges[len(c.edges)-1]
	mine := float64(packets) * 8 / 1e6 / m.DurationS
	others := max(rateMbps(traffic(first, last, c.down), last.at.Sub(first.at))-mine, 0)
	m.CrossMbps = &others

	// Its seconds, from samples of the interface and of the connections that are
	// some microseconds apart.
	perByte := float64(packets) / float64(max(m.Bytes, 1))
	peak := others
	for i := 4; i < min(len(c.edges), len(c.in)); i++ {
		all := rateMbps(traffic(&c.edges[i-4], &c.edges[i], c.down), c.edges[i].at.Sub(c.edges[i-4].at))
		peak = max(peak, all-between(c.in[i-4], c.in[i])*perByte)
	}
	m.CrossPeakMbps = &peak
}
