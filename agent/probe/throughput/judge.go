package throughput

import (
	"math"
	"strconv"
)

// question is what a measurement is asked.
type question struct {
	contractMbps float64 // at layer; 0: there is no contract
	minRatio     float64 // the part of it that passes
	layer        Layer
	dir          Direction // Down or Up
	windowS      float64   // how long it was to be measured; 0: not checked
	// second is another run in this direction, of another server or of the same,
	// that may confirm this one; nil: there is none.
	second *Measurement
}

// What makes a rate below the contract inconclusive. A wrong fail costs a
// technician's visit to a line that is good, a wrong inconclusive a repetition:
// so these are where an effect begins to be possible, not where it is certain.
const (
	// busyCore: counted in ticks of 10 ms, a core that is used up shows 95 to
	// 100 % of a second.
	busyCore = 0.95
	// heldBack is the part of the window in which a quota stopped the process,
	// waitedLong that in which its threads were ready and got no core. The
	// latter adds up over threads, and each wake-up costs some of it.
	heldBack   = 0.02
	waitedLong = 0.10
	// quotaUsed is the part of a quota, or of one core, that a process has used
	// up: near it, single periods are over it.
	quotaUsed = 0.9
	// lateSample is in ms. A quota of less than half a core with the usual period
	// of 100 ms holds back for longer; a loaded but sufficient core does not.
	lateSample = 50
	// lateOften is the part of moments at which the process could not run. It is
	// 1 % where there is time enough.
	lateOften = 0.20
	backlog   = 0.10 // of the samples
	supplied  = 0.95 // of the window an upload has something to send
	// portFull: so near to the ceiling what is unknown of the frames decides.
	portFull = 0.98
	// counted: further above the ceiling, or below what a server received, is no
	// error of measurement.
	counted = 0.01
	// crossPart of the contract is traffic of others that is too much, whatever
	// it adds up to: TCP shares by connections, not by need.
	// crossPeak is that for a single second.
	crossPart = 0.05
	// unseen is what counters may lack of the test itself: where packets are
	// counted while several are one (receive and segmentation offload), the
	// headers of all but one, up to 4.9 % (IPv6 in a VLAN).
	unseen    = 0.08
	crossPeak = 0.30
	// windowRoom is how much more than the rate the windows must have room for.
	windowRoom = 1.25
	peerClosed = 0.10 // of the window the peer's window, or this side's buffer,
	bufferFull = 0.20 // stood in the way
	// lossHigh is where loss explains whatever rate; below it the bound of
	// Mathis et al. (1997) does if it is within lossRoom of what is needed.
	lossHigh = 0.01
	lossRoom = 2.0
	// uneven and steady are coefficients of variation of the seconds.
	uneven = 0.15
	steady = 0.05
	risen  = 1.03 // the second half of a window over the first
	// sameRate is how much two runs may differ that agree.
	sameRate = 1.1
	// fairShare is the part of the mean that a connection carries at least.
	fairShare = 0.02
	// queueMs and queuePart are how much longer the way takes, in ms and as a
	// part, if a queue stands on it.
	queueMs   = 3
	queuePart = 0.2
)

// judge says what a measurement means for the contract, what kept the rate from
// being higher, and, if it is not a pass, why.
//
// A rate that reaches the contract passes whatever else was going on. Below it,
// a fail needs every other cause excluded by evidence, in this run and in a
// second one that agrees: what is not known is not excluded. With no second run
// a rate that only the line explains is inconclusive, and its limit LimitLine.
func judge(m Measurement, q question) (Verdict, Limit, string) {
	if v, limit, why := valid(&m, q); !v {
		return Inconclusive, limit, why
	}
	e := newEvidence(&m, q)
	if !e.below {
		limit, why := e.bound()
		if q.contractMbps > 0 {
			return Pass, limit, ""
		}
		return Measured, limit, why
	}
	if limit, why := e.disturbed(); why != "" {
		return Inconclusive, limit, e.sentence(why)
	}
	if q.second == nil {
		return Inconclusive, LimitLine, e.sentence("nothing but the line explains it, and no second run has confirmed it")
	}
	return confirm(e, q)
}

// confirm judges by a second run what only the line explains in the first.
func confirm(e *evidence, q question) (Verdict, Limit, string) {
	second := q.second
	if ok, limit, why := valid(second, q); !ok {
		if limit == LimitNone || limit == LimitShort {
			limit = LimitLine // of the run that is judged
		}
		return Inconclusive, limit, e.sentence("a second run could not confirm it: " + why)
	}
	same := second.Server.Addr() == e.m.Server.Addr()
	e2 := newEvidence(second, q)
	if !e2.below || e2.rate > e.rate*sameRate {
		limit, why := LimitServer, "another server gave "+mbit(e2.rate)
		if same {
			limit, why = LimitUnstable, "a second run gave "+mbit(e2.rate)
		}
		return Inconclusive, limit, e.sentence(why)
	}
	if limit, why := e2.disturbed(); why != "" {
		return Inconclusive, limit, e.sentence("a second run gave " + mbit(e2.rate) + ", but " + why)
	}
	if e2.rate*sameRate < e.rate {
		if same {
			return Inconclusive, LimitUnstable, e.sentence("a second run gave only " + mbit(e2.rate))
		}
		return Inconclusive, LimitServer, e.sentence("another server gave only " + mbit(e2.rate))
	}
	// Before a line that is full stands a queue. Where there is none, something
	// else kept TCP from filling it; and a server that gives no more twice is no
	// better known than once.
	const notFull = "the way to the server took no longer under load, so the line was not full"
	switch {
	case e.flat && (same || e2.flat), same && e2.flat:
		return Inconclusive, LimitServer, e.sentence(notFull)
	case same && (!e.longer || !e2.longer):
		return Inconclusive, LimitServer, e.sentence("how long the way to the server took under load is not known, and no other server was asked")
	}
	which := "another server"
	if same {
		which = "a second run"
	}
	return Fail, LimitLine, e.sentence(which + " gave " + mbit(e2.rate) + ", and nothing but the line explains it")
}

// valid says whether there is a rate to judge, whichever, and else why not.
func valid(m *Measurement, q question) (ok bool, limit Limit, why string) {
	rate, tcp := m.mbps(q.layer), m.TCPMbps
	switch {
	case m.link != "":
		return false, LimitLinkChanged, orElse(m.Error, "the interface did not stay as it was: "+string(m.link))
	case m.Error != "" || m.cut != LimitNone:
		return false, m.cut, orElse(m.Error, "it ended before its time")
	case rate == nil || tcp == nil || !(*rate > 0) || !(*tcp > 0) || math.IsInf(*rate, 0) || math.IsInf(*tcp, 0):
		return false, LimitNone, "nothing was measured"
	case q.windowS > 0 && !(m.DurationS >= q.windowS*0.95):
		return false, LimitShort, "only " + fixed(m.DurationS, 1) + " of " + fixed(q.windowS, 1) + " s could be measured"
	case m.CeilingMbps != nil && !(*tcp <= *m.CeilingMbps*(1+counted)):
		return false, LimitNone, "the bytes were counted wrong: " + mbit(*tcp) + " is more than the port carries, " + mbit(*m.CeilingMbps)
	case m.ServerBytes != nil && m.SentBytes != nil && lacks(*m.ServerBytes, *m.SentBytes):
		return false, LimitServer, "the server received " + megabytes(*m.ServerBytes) + " of " + megabytes(*m.SentBytes) + " that were acknowledged to this side"
	}
	return true, "", ""
}

// lacks says that a server has received less than was acknowledged: by more
// than its application may have left unread at the end.
func lacks(received, acknowledged uint64) bool {
	const unread = 1 << 20
	return received < acknowledged && float64(acknowledged-received) > max(unread, 2*counted*float64(acknowledged))
}

// borderline says that a rate is so near to what is asked for that a repetition
// may decide otherwise: disturbance takes some percents, an error of measurement
// adds less than one.
func borderline(rate, threshold float64) bool {
	return rate >= threshold*0.97 && rate < threshold*1.01
}

// medianRun returns the index of the run with the median of the valid runs'
// rates, the lower one of two; -1 if none is valid.
func medianRun(runs []Measurement, q question) int {
	for i := range runs {
		rank, n := rankOf(runs, i, q)
		if n > 0 && rank == (n-1)/2 {
			return i
		}
	}
	return -1
}

// lowestRun returns the lowest valid run beside one: what confirms that the
// median of runs is below the contract. nil if there is none.
func lowestRun(runs []Measurement, but int, q question) *Measurement {
	var lowest *Measurement
	for i := range runs {
		if ok, _, _ := valid(&runs[i], q); !ok || i == but {
			continue
		}
		if lowest == nil || *runs[i].mbps(q.layer) < *lowest.mbps(q.layer) {
			lowest = &runs[i]
		}
	}
	return lowest
}

// rankOf is how many of the n valid runs come before one, ordered by rate; n is
// 0 if that one is not valid.
func rankOf(runs []Measurement, i int, q question) (rank, n int) {
	if ok, _, _ := valid(&runs[i], q); !ok {
		return 0, 0
	}
	rate := *runs[i].mbps(q.layer)
	for j := range runs {
		if ok, _, _ := valid(&runs[j], q); !ok {
			continue
		}
		n++
		if other := *runs[j].mbps(q.layer); other < rate || other == rate && j < i {
			rank++
		}
	}
	return rank, n
}

// worst is the verdict for both directions: a direction without a contract adds
// nothing to one with.
func worst(a, b Verdict) Verdict {
	for _, v := range [...]Verdict{Fail, Inconclusive, Pass} {
		if a == v || b == v {
			return v
		}
	}
	return Measured
}

// sentence is a reason why a rate below the contract is what it is.
func (e *evidence) sentence(why string) string {
	return mbit(e.rate) + " (" + e.q.layerName() + ") is " + percentBelow(e.rate/e.q.contractMbps, e.q.ratio()) + " of the contracted " + mbit(e.q.contractMbps) +
		", less than " + percent(e.q.ratio()) + ": " + why
}

func (q question) layerName() string {
	switch q.layer {
	case LayerIP:
		return "IP"
	case LayerEthernet:
		return "Ethernet"
	case LayerTCP:
	}
	return "TCP payload"
}

func (q question) ratio() float64 {
	if q.minRatio > 0 && q.minRatio <= 1 {
		return q.minRatio
	}
	return 0.9
}

func mbit(x float64) string { return fixed(x, 1) + " Mbit/s" }

func megabytes(n uint64) string { return fixed(float64(n)/1e6, 1) + " MB" }

func percent(x float64) string { return hundredths(math.Round(x * 1e4)) }

// percentBelow is rounded down: what is less than 90 % must not read so.
func percentBelow(x, limit float64) string {
	return hundredths(min(math.Floor(x*1e4), math.Ceil(limit*1e4)-1))
}

func hundredths(x float64) string { return strconv.FormatFloat(x/100, 'f', -1, 64) + " %" }

func fixed(x float64, digits int) string { return strconv.FormatFloat(x, 'f', digits, 64) }

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
