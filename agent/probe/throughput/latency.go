package throughput

import (
	"context"
	"errors"
	"io"
	"math"
	"net/netip"
	"slices"
	"time"
)

const (
	idleProbes    = 5
	idleInterval  = 120 * time.Millisecond
	idleTimeout   = 3 * time.Second
	loadInterval  = 200 * time.Millisecond
	probeTimeout  = 2 * time.Second
	minRPMAnswers = 5
)

// prober measures the time to the server and back, beside the test.
type prober struct {
	dialer
	to      netip.AddrPort
	request string // asked on the new connection; "": nothing
}

// probes are what a prober found, in milliseconds.
type probes struct {
	tcp, http []float64
	lost      int
}

// run probes until ctx ends, or n times if n is not 0, each time as long after
// the time before as every says, if that one has ended.
func (p *prober) run(ctx context.Context, n int, every time.Duration) probes {
	var found probes
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; n == 0 || i < n; i++ {
		if i > 0 {
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
		if ctx.Err() != nil {
			break
		}
		p.once(ctx, &found)
	}
	return found
}

func (p *prober) once(ctx context.Context, found *probes) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	s, err := p.dial(ctx, p.to)
	if err != nil {
		// What the end of the load interrupts is not lost.
		if !errors.Is(ctx.Err(), context.Canceled) {
			found.lost++
		}
		return
	}
	defer s.abort()
	var t tcpInfo
	_ = s.raw.Control(func(fd uintptr) { readInfo(fd, &t) })
	if t.or(infoRetrans, 0) > 0 { // the handshake waited for a timer
		found.lost++
		return
	}
	found.tcp = append(found.tcp, milliseconds(s.connected.Sub(s.dialed)))
	if p.request == "" {
		return
	}
	defer context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(past()) })()
	begin := time.Now()
	var b [1]byte
	_, err = io.WriteString(s.conn, p.request)
	if err == nil {
		_, err = io.ReadFull(s.conn, b[:])
	}
	if err == nil {
		found.http = append(found.http, milliseconds(time.Since(begin)))
	}
}

// idle and loaded put what was found into a result.
func (l *Latency) idle(p probes) {
	l.IdleP50Ms, l.IdleP95Ms = percentile(p.tcp, 0.5), percentile(p.tcp, 0.95)
	l.IdleProbes = len(p.tcp)
	l.LostProbes += p.lost
}

func (l *Latency) loaded(p probes) {
	l.LoadedP50Ms, l.LoadedP95Ms = percentile(p.tcp, 0.5), percentile(p.tcp, 0.95)
	l.LoadedProbes = len(p.tcp)
	l.LostProbes += p.lost
	l.RPM, l.RPMConfidence = responsiveness(p)
}

// responsiveness is the foreign part of draft-ietf-ippm-responsiveness without
// TLS: a minute over the mean of handshake and request, the slowest twentieth of
// each left out. How sure it is depends on how many there were, and on how far
// the halves of the window agree.
func responsiveness(p probes) (rpm *float64, confidence string) {
	n := min(len(p.tcp), len(p.http))
	if n < minRPMAnswers {
		return nil, ""
	}
	of := func(tcp, http []float64) float64 { return 60000 / ((trimmedMean(tcp) + trimmedMean(http)) / 2) }
	whole := of(p.tcp, p.http)
	first, second := of(p.tcp[:n/2], p.http[:n/2]), of(p.tcp[n/2:], p.http[n/2:])
	apart := math.Abs(first-second) / whole
	switch {
	case n >= 40 && apart <= 0.1:
		confidence = "high"
	case n >= 15 && apart <= 0.3:
		confidence = "medium"
	default:
		confidence = "low"
	}
	return &whole, confidence
}

func trimmedMean(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	v = v[:len(v)-len(v)/20]
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// percentile is the nearest rank; nil of nothing.
func percentile(v []float64, part float64) *float64 {
	if len(v) == 0 {
		return nil
	}
	v = slices.Sorted(slices.Values(v))
	at := v[max(int(math.Ceil(part*float64(len(v)))), 1)-1]
	return &at
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
