// Package ping measures round-trip time and loss to one address with ICMP echo
// requests. It resolves no names and judges nothing.
//
// It opens a raw socket where the process may, and an unprivileged datagram
// socket (net.ipv4.ping_group_range) where it may not.
package ping

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	probing "github.com/prometheus-community/pro-bing"
)

// ErrNoSocket is found by errors.Is if neither kind of ICMP socket can be
// opened: nothing was measured, and nothing is said about the line.
var ErrNoSocket = errors.New("no ICMP socket")

// Options say how to ping. The zero Options are usable.
type Options struct {
	Count    int           // echo requests; 5 if zero
	Interval time.Duration // between requests, at least 10 ms; 200 ms if zero
	// Wait is how long after the last request replies still count; 1 s if
	// zero. A run takes at most (Count-1)·Interval + Wait.
	Wait time.Duration
}

// The bounds of Options.
const (
	maxCount    = 1000
	minInterval = 10 * time.Millisecond
)

func (o Options) normalise() Options {
	if o.Count <= 0 {
		o.Count = 5
	}
	o.Count = min(o.Count, maxCount)
	if o.Interval <= 0 {
		o.Interval = 200 * time.Millisecond
	}
	o.Interval = max(o.Interval, minInterval)
	if o.Wait <= 0 {
		o.Wait = time.Second
	}
	return o
}

// Duration returns the longest time that a run with these options takes.
func (o Options) Duration() time.Duration {
	o = o.normalise()
	return time.Duration(o.Count-1)*o.Interval + o.Wait
}

// The kinds of socket.
const (
	ModeRaw      = "raw"
	ModeDatagram = "datagram"
)

// Reply is one echo reply.
type Reply struct {
	Seq   int     // of the request, from 0
	RTTMs float64 // on the monotonic clock
}

// Result is what a run measured.
type Result struct {
	Target netip.Addr
	Mode   string // ModeRaw or ModeDatagram
	// Sent counts the requests the kernel took, Refused those it did not (the
	// route was gone); both count as attempts.
	Sent, Refused int
	Received      int // each request once
	Duplicates    int
	// LossRatio is 1 - Received/(Sent+Refused), from 0 to 1.
	LossRatio float64
	// Of the replies; all zero if there is none. The percentiles are nearest
	// ranks.
	MinMs, AvgMs, MaxMs, P50Ms, P95Ms float64
	// JitterMs is the mean absolute difference between the round-trip times of
	// one reply and the next by sequence number (lost ones left out); it is not
	// the smoothed jitter of RFC 3550.
	JitterMs float64
	Replies  []Reply // by sequence number
}

// Ping sends echo requests to target and waits for the replies. It returns when
// all have been answered, when time is up, or when ctx ends.
//
// No reply at all is a result, not an error. The error is compatible with
// ErrNoSocket if the process may not ping; with syscall.ENETUNREACH,
// EHOSTUNREACH or EACCES if the kernel has no route to target, in which case
// nothing was sent; with ctx.Err() if ctx ended early, and then the result holds
// what was measured until then.
func Ping(ctx context.Context, target netip.Addr, o Options) (Result, error) {
	o = o.normalise()
	target = target.Unmap()
	if !target.IsValid() || target.IsUnspecified() || target.IsMulticast() {
		return Result{Target: target}, fmt.Errorf("cannot ping %q: not the address of a host", target)
	}
	if err := route(ctx, target); err != nil {
		return Result{Target: target}, fmt.Errorf("cannot ping %s: %w", target, err)
	}
	res, rawErr := run(ctx, target, o, ModeRaw)
	if !errors.Is(rawErr, errListen) {
		return res, rawErr
	}
	res, err := run(ctx, target, o, ModeDatagram)
	if errors.Is(err, errListen) {
		return Result{Target: target}, fmt.Errorf("cannot ping %s: %w: %w; %w (net.ipv4.ping_group_range)", target, ErrNoSocket, rawErr, err)
	}
	return res, err
}

// route asks the kernel for a route to target, without sending anything. Apart
// from the clearer error this keeps the library from retrying for ever where a
// route says "prohibit" (EACCES).
func route(ctx context.Context, target netip.Addr) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(target, 9).String())
	if err != nil {
		return err
	}
	return conn.Close()
}

// errListen marks the error of opening the socket, as against using it.
var errListen = errors.New("cannot open socket")

// run does one run with one kind of socket.
func run(ctx context.Context, target netip.Addr, o Options, mode string) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	p := probing.New("")
	p.SetIPAddr(&net.IPAddr{IP: target.AsSlice(), Zone: target.Zone()})
	p.SetPrivileged(mode == ModeRaw)
	log := &logger{ctx: ctx}
	p.SetLogger(log)
	p.Count, p.Interval, p.Timeout = o.Count, o.Interval, o.Duration()
	p.RecordRtts, p.RecordTTLs = false, false

	res := Result{Target: target, Mode: mode}
	var listening atomic.Bool
	sent := make(map[int]time.Time, o.Count)
	p.OnSetup = func() { listening.Store(true) }
	// These three are called from one goroutine of the library, which has
	// ended when RunWithContext returns.
	p.OnSend = func(pkt *probing.Packet) { sent[pkt.Seq] = time.Now() }
	p.OnSendError = func(*probing.Packet, error) {
		if res.Refused++; res.Refused >= o.Count {
			p.Stop()
		}
	}
	p.OnRecv = func(pkt *probing.Packet) {
		at, ok := sent[pkt.Seq]
		if !ok {
			return
		}
		res.Replies = append(res.Replies, Reply{Seq: pkt.Seq, RTTMs: millis(rtt(pkt.Rtt, time.Since(at)))})
	}
	err := p.RunWithContext(ctx)

	stats := p.Statistics()
	res.Sent, res.Duplicates = stats.PacketsSent, stats.PacketsRecvDuplicates
	res.summarise()
	switch {
	case ctx.Err() != nil:
		return res, ctx.Err()
	case err == nil && log.loops.Load() > 0:
		return res, fmt.Errorf("cannot ping %s: %w", target, syscall.EACCES)
	case err == nil:
		return res, nil
	case !listening.Load():
		return res, fmt.Errorf("%w (%s): %w", errListen, mode, err)
	}
	return res, fmt.Errorf("cannot ping %s: %w", target, err)
}

// rtt picks the round-trip time. The library's own starts just before the
// request is written, which is right, but is taken on the wall clock, which may
// be set at any moment; the monotonic one starts after the write and so is a
// little short. Unless they differ by more than a write can take, the first.
func rtt(wall, monotonic time.Duration) time.Duration {
	const write = 20 * time.Millisecond
	if d := wall - monotonic; d >= 0 && d <= write {
		return wall
	}
	return monotonic
}

// summarise computes everything that follows from the replies and the counts.
func (r *Result) summarise() {
	slices.SortFunc(r.Replies, func(a, b Reply) int { return a.Seq - b.Seq })
	r.Received = len(r.Replies)
	if attempts := r.Sent + r.Refused; attempts > 0 {
		r.LossRatio = float64(attempts-r.Received) / float64(attempts)
	}
	if r.Received == 0 {
		return
	}
	ms := make([]float64, 0, r.Received)
	var sum, jitter float64
	for i, reply := range r.Replies {
		ms = append(ms, reply.RTTMs)
		sum += reply.RTTMs
		if i > 0 {
			jitter += max(reply.RTTMs, ms[i-1]) - min(reply.RTTMs, ms[i-1])
		}
	}
	if r.Received > 1 {
		r.JitterMs = jitter / float64(r.Received-1)
	}
	slices.Sort(ms)
	r.MinMs, r.MaxMs, r.AvgMs = ms[0], ms[len(ms)-1], sum/float64(len(ms))
	r.P50Ms, r.P95Ms = nearestRank(ms, 50), nearestRank(ms, 95)
}

// nearestRank returns the given percentile (1 to 100) of sorted, which is not
// empty.
func nearestRank(sorted []float64, percent int) float64 {
	rank := (percent*len(sorted) + 99) / 100 // rounded up
	return sorted[max(rank, 1)-1]
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// logger silences the library and ends its one endless loop: on EACCES it sets
// the broadcast flag and sends again at once, for ever if a packet filter or a
// route is what refuses. It says so through Infof each time round; ending the
// sending goroutine there makes RunWithContext return.
type logger struct {
	probing.NoopLogger
	ctx   context.Context //nolint:containedctx // of the run that owns this logger, and ends with it
	loops atomic.Int32
}

func (l *logger) Infof(string, ...any) {
	if l.loops.Add(1) > 3 || l.ctx.Err() != nil {
		runtime.Goexit()
	}
}
