package throughput

import (
	"math"
	"strconv"
)

// evidence is what a measurement says of causes other than the line.
type evidence struct {
	m     *Measurement
	q     question
	rate  float64 // at the contract's layer
	tcp   float64
	below bool // the contract is not reached
	// need and needTCP are the rate that had to be possible: what is asked for,
	// or, where that is reached, the rate itself.
	need, needTCP float64
	// longer says that the way to the server and back took longer under load,
	// flat that it is known not to have. queue says that it did, and that the
	// queue was drained at a steady rate: as before a line that is full.
	longer, flat, queue bool
}

func newEvidence(m *Measurement, q question) *evidence {
	e := &evidence{m: m, q: q, rate: *m.mbps(q.layer), tcp: *m.TCPMbps}
	e.need = e.rate
	if c := q.contractMbps; c > 0 && !(e.rate >= c*q.ratio() || e.rate/c >= q.ratio()) {
		e.below = true
		e.need = c * q.ratio()
	}
	e.needTCP = e.need * e.tcp / e.rate
	idle, loaded := m.Latency.IdleP50Ms, m.Latency.LoadedP50Ms
	e.longer = longer(idle, loaded) || q.dir == Up && e.sendersWait()
	e.flat = idle != nil && loaded != nil && !e.longer
	e.queue = e.longer && m.Stable && m.Spread.CV < steady
	return e
}

// longer says that the way takes longer under load than without, by more than
// measurements of it differ anyway.
func longer(idle, loaded *float64) bool {
	return idle != nil && loaded != nil && *idle >= 0 && *loaded-*idle >= max(queueMs, queuePart**idle)
}

// sendersWait says that most connections that send see a queue: their own
// acknowledgements take longer than the fastest did.
func (e *evidence) sendersWait() bool {
	n := 0
	for i := range e.m.PerConnection {
		if c := &e.m.PerConnection[i]; c.MinRTTMs > 0 && longer(&c.MinRTTMs, &c.RTTMs) {
			n++
		}
	}
	return 2*n > len(e.m.PerConnection)
}

// strength is how much a finding explains.
type strength int

const (
	nothing  strength = iota
	unknown           // the cause can be neither seen nor excluded
	possible          // it may have kept the rate below what is asked for
	clear             // it did bound the rate, or nearly so
)

// causes are looked at in this order: a cause before what it brings about.
func (e *evidence) causes(f func(Limit, strength, string)) {
	s, why := e.port()
	f(LimitDeviceCeiling, s, why)
	s, why = e.processor()
	f(LimitDeviceCPU, s, why)
	s, why = e.process()
	f(LimitDeviceCPU, s, why)
	s, why = e.sockets()
	f(LimitDeviceCPU, s, why)
	s, why = e.cross()
	f(LimitCrossTraffic, s, why)
	limit, s, why := e.window()
	f(limit, s, why)
	s, why = e.server()
	f(LimitServer, s, why)
	s, why = e.loss()
	f(LimitLoss, s, why)
	s, why = e.unstable()
	f(LimitUnstable, s, why)
}

// disturbed is the first cause that may explain a rate below what is asked for,
// or else the first that cannot be excluded; "" if all can.
func (e *evidence) disturbed() (limit Limit, why string) {
	found := nothing
	e.causes(func(l Limit, s strength, w string) {
		s = min(s, possible)
		if s > found {
			found, limit, why = s, l, w
		}
	})
	return limit, why
}

// bound is what clearly kept a rate from being higher, or else the line.
func (e *evidence) bound() (limit Limit, why string) {
	limit = LimitLine
	e.causes(func(l Limit, s strength, w string) {
		if s == clear && why == "" {
			limit, why = l, w
		}
	})
	return limit, why
}

// port is whether it could carry what is asked for.
func (e *evidence) port() (strength, string) {
	c := e.m.CeilingMbps
	switch {
	case c == nil:
		return nothing, ""
	case e.below && *c < e.needTCP:
		return clear, "the port carries no more than " + mbit(*c) + " of payload, and " + mbit(e.needTCP) + " are needed"
	case e.tcp >= *c*portFull:
		return clear, "the port carries no more than " + mbit(*c) + " of payload"
	}
	return nothing, ""
}

// processor is whether a core was used up, by whomever.
func (e *evidence) processor() (strength, string) {
	c := &e.m.Conditions
	for i, busy := range c.Cores {
		if !(busy < busyCore) {
			soft := ""
			if i < len(c.SoftIRQ) {
				soft = ", " + percent(c.SoftIRQ[i]) + " of it in software interrupts"
			}
			return clear, "core " + strconv.Itoa(i) + " was " + percent(busy) + " busy" + soft
		}
	}
	switch {
	case c.PeakCore == nil:
		return unknown, "how busy the cores were is not known"
	case !(*c.PeakCore < busyCore):
		return possible, "a core was " + percent(*c.PeakCore) + " busy in its busiest second"
	case c.SoftnetDropped > 0:
		return possible, "the system had no time for packets, and dropped " + strconv.FormatUint(c.SoftnetDropped, 10)
	}
	return nothing, ""
}

// process is whether this one got the time that it wanted.
func (e *evidence) process() (strength, string) {
	c := &e.m.Conditions
	switch {
	case reaches(c.Throttled, heldBack):
		return atLeast(*c.Throttled, 0.2), "a quota held this process back for " + percent(*c.Throttled) + " of the time"
	case c.QuotaCores != nil && c.ProcessBusy != nil && !(*c.ProcessBusy < quotaUsed**c.QuotaCores):
		return clear, "this process used " + percent(*c.ProcessBusy) + " of a core, and its quota is " + percent(*c.QuotaCores)
	case reaches(c.ProcessBusy, quotaUsed):
		return possible, "this process used " + percent(*c.ProcessBusy) + " of a core"
	case reaches(c.ProcessWaited, waitedLong):
		return atLeast(*c.ProcessWaited, 0.5), "this process was ready to run and waited for a core for " + percent(*c.ProcessWaited) + " of the time"
	case reaches(c.LateRatio, lateOften):
		return atLeast(*c.LateRatio, 0.75), "this process could not run at " + percent(*c.LateRatio) + " of the moments it meant to"
	case !(c.SampleLateMs < lateSample):
		return possible, "this process was late by up to " + fixed(c.SampleLateMs, 0) + " ms"
	}
	return nothing, ""
}

// sockets is whether they were emptied, or filled, in time.
func (e *evidence) sockets() (strength, string) {
	var worst, busy float64
	told := 0
	for i := range e.m.PerConnection {
		c := &e.m.PerConnection[i]
		if !(c.BacklogRatio <= worst) {
			worst = c.BacklogRatio
		}
		if c.BusyRatio != nil {
			busy += *c.BusyRatio
			told++
		}
	}
	if e.q.dir != Up {
		if !(worst < backlog) {
			return atLeast(worst, 0.5), "this process left bytes waiting to be read at " + percent(worst) + " of the looks"
		}
		return nothing, ""
	}
	if busy /= float64(told); told > 0 && !(busy >= supplied) {
		return atLeast(1-busy, 0.2), "this process kept the connections supplied for only " + percent(busy) + " of the time"
	}
	return nothing, ""
}

// cross is whether others used the line.
func (e *evidence) cross() (strength, string) {
	part := e.q.contractMbps
	if !(part > 0) {
		part = e.rate
	}
	x := e.m.CrossMbps
	switch {
	case x == nil:
		return unknown, "what others moved through the interface is not known"
	case !(*x < crossPart*part):
		return clear, "others moved " + mbit(*x) + " meanwhile"
	case e.below && *x > 0 && e.rate+*x >= e.need:
		return possible, "others moved " + mbit(*x) + " meanwhile, which make up what is missing"
	case reaches(e.m.CrossPeakMbps, crossPeak*part):
		return possible, "others moved " + mbit(*e.m.CrossPeakMbps) + " for a second"
	case e.m.CountersBlind:
		return unknown, "the counters of the interface do not see all that passes, so others may have used the line"
	case !(*x > -unseen*e.rate):
		return unknown, "the counters of the interface have not seen all of the test, so others may have used the line"
	}
	return nothing, ""
}

// window is whether TCP's windows have room for what is asked for. A queue that
// makes the way longer fills any window in the end: so the way without it
// counts, and a window that is full before a line that is full does not.
func (e *evidence) window() (Limit, strength, string) {
	var room, rwnd, sndbuf float64
	rwnds, sndbufs := 0, 0
	known := len(e.m.PerConnection) > 0
	for i := range e.m.PerConnection {
		c := &e.m.PerConnection[i]
		if rtt := e.emptyRTT(c); c.WindowBytes > 0 && rtt > 0 {
			room += float64(c.WindowBytes) * 8 / rtt / 1e3 // bytes per ms
		} else {
			known = false
		}
		if c.RWndLimitedRatio != nil {
			rwnd += *c.RWndLimitedRatio
			rwnds++
		}
		if c.SndBufLimitedRatio != nil {
			sndbuf += *c.SndBufLimitedRatio
			sndbufs++
		}
	}
	if known && !(room >= windowRoom*e.needTCP) {
		s := possible
		if room < 1.1*e.tcp {
			s = clear
		}
		return LimitWindow, s, "the windows of TCP have room for no more than " + mbit(room) + " at this distance"
	}
	if e.q.dir == Up {
		rwnd, sndbuf = rwnd/float64(rwnds), sndbuf/float64(sndbufs)
		switch {
		case rwnds > 0 && !(rwnd < peerClosed) && !e.queue:
			limit, whose := LimitServer, "the server took no more for "
			if !known {
				limit, whose = LimitWindow, "the server's window was full for "
			}
			return limit, atLeast(rwnd, 0.5), whose + percent(rwnd) + " of the time"
		case sndbufs > 0 && !(sndbuf < bufferFull):
			return LimitWindow, atLeast(sndbuf, 0.5), "the buffers for sending were full for " + percent(sndbuf) + " of the time"
		}
		known = known || rwnds > 0
	}
	if !known && !e.queue {
		return LimitWindow, unknown, "how large the windows of TCP were is not known"
	}
	return LimitWindow, nothing, ""
}

// emptyRTT is the time to the server and back without a queue, in ms; 0 if
// unknown.
func (e *evidence) emptyRTT(c *Connection) float64 {
	least, idle := c.MinRTTMs, value(e.m.Latency.IdleP50Ms)
	switch {
	case least > 0 && idle > 0:
		return min(least, idle)
	case idle > 0:
		return idle
	case least > 0:
		return least
	}
	return max(c.RTTMs, 0) // that of a way that has one
}

// server is whether it left connections without bytes.
func (e *evidence) server() (strength, string) {
	n := len(e.m.PerConnection)
	if n == 0 {
		return unknown, "what each connection carried is not known"
	}
	var sum, idle float64
	for i := range e.m.PerConnection {
		sum += float64(e.m.PerConnection[i].Bytes)
	}
	for i := range e.m.PerConnection {
		if float64(e.m.PerConnection[i].Bytes) <= fairShare*sum/float64(n) {
			idle++
		}
	}
	if idle > 0 {
		return possible, "only " + fixed(float64(n)-idle, 0) + " of " + strconv.Itoa(n) + " connections carried bytes"
	}
	return nothing, ""
}

// loss is whether packets were lost, and not from a full queue: a line that is
// full drops what exceeds it and is no slower for it.
//
// Download: what came out of order stands for loss; it is several segments for
// each that was lost, so this errs to the side of loss.
func (e *evidence) loss() (strength, string) {
	var lost, segments, bound float64
	for i := range e.m.PerConnection {
		c := &e.m.PerConnection[i]
		segments += float64(c.Segments)
		if e.q.dir == Up {
			lost += float64(c.Retransmits)
		} else {
			lost += float64(c.OutOfOrder)
		}
	}
	if lost == 0 || e.queue {
		return nothing, ""
	}
	p := min(lost/max(segments, 1), 1)
	for i := range e.m.PerConnection {
		// MSS/RTT · 1.22/√p (Mathis, Semke, Mahdavi, Ott 1997)
		if c := &e.m.PerConnection[i]; e.emptyRTT(c) > 0 {
			bound += float64(c.MSS) * 8 / 1e3 / e.emptyRTT(c) * 1.22 / math.Sqrt(p)
		}
	}
	why := percent(p) + " of the packets were lost or came out of order, and no queue was full"
	switch {
	case p >= lossHigh:
		return clear, why
	case bound < lossRoom*e.needTCP:
		return possible, why + ": that lets TCP have about " + mbit(bound)
	}
	return nothing, ""
}

// unstable is whether the rate was one that a mean stands for. One that had not
// settled before the window, and is level all through it, is.
func (e *evidence) unstable() (strength, string) {
	s := &e.m.Spread
	switch {
	case !e.m.Stable && !(s.CV < steady):
		return clear, "the rate had not settled when the window began"
	case !(s.CV < uneven):
		return clear, "the rate varied from " + fixed(s.MinMbps, 1) + " to " + mbit(s.MaxMbps)
	}
	half := len(e.m.Mbps) / 2
	if e.below && half > 0 {
		first, last := mean(e.m.Mbps[:half]), mean(e.m.Mbps[half:])
		if !(last < e.needTCP || last < first*risen) {
			return possible, "the rate was still rising, from " + fixed(first, 1) + " to " + mbit(last)
		}
	}
	return nothing, ""
}

// reaches says that something is known and not below a limit: what is not a
// number is not below.
func reaches(x *float64, limit float64) bool { return x != nil && !(*x < limit) }

// atLeast is clear from a limit on, and else possible.
func atLeast(x, limit float64) strength {
	if x >= limit {
		return clear
	}
	return possible
}

func value(x *float64) float64 {
	if x == nil {
		return 0
	}
	return *x
}

func mean(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}
