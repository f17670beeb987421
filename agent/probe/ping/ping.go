// Package ping measures round-trip time and loss to one address with ICMP echo
// requests. It resolves no names and judges nothing.
//
// It opens a raw socket where the process may, and an unprivileged datagram
// socket (net.ipv4.ping_group_range) where it may not.
package ping

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sort"
	"syscall"
	"time"
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
	// Interface is the one to send from, whatever the routes say; "": as they
	// say. It is also the zone of a link-local target that has none.
	Interface string
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

// Outcome is what a run shows, in a word.
type Outcome string

// The outcomes.
const (
	Complete Outcome = "ok"       // every request was answered
	Loss     Outcome = "loss"     // some were
	NoReply  Outcome = "no_reply" // none was
)

// Reply is one echo reply.
type Reply struct {
	Seq   int     `json:"seq"`    // of the request, from 0
	RTTMs float64 `json:"rtt_ms"` // on the monotonic clock
}

// Result is what a run measured.
type Result struct {
	Outcome Outcome    `json:"outcome,omitempty"` // "" if the run did not come to its end
	Target  netip.Addr `json:"target"`
	Mode    string     `json:"mode,omitempty"` // ModeRaw or ModeDatagram
	// Sent counts the requests the kernel took, Refused those it did not (the
	// route was gone); both count as attempts.
	Sent       int `json:"sent"`
	Refused    int `json:"refused"`
	Received   int `json:"received"` // each request once
	Duplicates int `json:"duplicates"`
	// LossRatio is 1 - Received/(Sent+Refused), from 0 to 1.
	LossRatio float64 `json:"loss_ratio"`
	// Of the replies; all zero if there is none. The percentiles are nearest
	// ranks.
	MinMs float64 `json:"rtt_min_ms"`
	AvgMs float64 `json:"rtt_avg_ms"`
	MaxMs float64 `json:"rtt_max_ms"`
	P50Ms float64 `json:"rtt_p50_ms"`
	P95Ms float64 `json:"rtt_p95_ms"`
	// JitterMs is the mean absolute difference between the round-trip times of
	// one reply and the next by sequence number (lost ones left out); it is not
	// the smoothed jitter of RFC 3550.
	JitterMs float64 `json:"jitter_ms"`
	Replies  []Reply `json:"replies,omitempty"` // by sequence number
}

// Ping sends echo requests to target and waits for the replies. It returns when
// all have been answered, when time is up, or when ctx ends.
//
// No reply at all is a result, not an error. The error is compatible with
// ErrNoSocket if the process may not ping; with ErrNoInterface if there is none
// of the name in o, or it goes away; with syscall.ENETUNREACH, EHOSTUNREACH or
// EACCES if the kernel has no route to target, in which case nothing was sent;
// with ctx.Err() if ctx ended early. After the last and a lost interface the
// result holds what was measured until then.
func Ping(ctx context.Context, target netip.Addr, o Options) (Result, error) {
	o = o.normalise()
	target = target.Unmap()
	if !target.IsValid() || target.IsUnspecified() || target.IsMulticast() {
		return Result{Target: target}, fmt.Errorf("cannot ping %q: not the address of a host", target)
	}
	if ctx.Err() != nil {
		return Result{Target: target}, fmt.Errorf("cannot ping %s: %w", target, ctx.Err())
	}
	// Apart from the clearer error, this counts nothing as lost that had
	// nowhere to go.
	if err := route(target, o.Interface); err != nil {
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

// run does one run with one kind of socket.
func run(ctx context.Context, target netip.Addr, o Options, mode string) (Result, error) {
	res := Result{Target: target, Mode: mode}
	s, err := open(target, o.Interface, mode == ModeRaw)
	if err != nil {
		return res, fmt.Errorf("cannot ping %s (%s): %w", target, mode, err)
	}
	defer s.close()
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	var random [10]byte
	_, _ = rand.Read(random[:]) // never fails
	r := runner{socket: s, id: binary.BigEndian.Uint16(random[:]), tok: token(random[2:]), res: &res}
	err = r.run(ctx, o)
	res.summarise()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return res, fmt.Errorf("cannot ping %s: %w", target, err)
	}
	switch res.Received {
	case res.Sent + res.Refused:
		res.Outcome = Complete
	case 0:
		res.Outcome = NoReply
	default:
		res.Outcome = Loss
	}
	return res, nil
}

// runner is the state of a run.
type runner struct {
	socket   *socket
	id       uint16
	tok      token
	sent     []time.Time // by sequence number
	answered []bool
	res      *Result
}

func (r *runner) run(ctx context.Context, o Options) error {
	next := time.Now()
	end := next.Add(o.Duration())
	if err := r.socket.file.SetWriteDeadline(end); err != nil {
		return err
	}
	for {
		attempts := r.res.Sent + r.res.Refused
		due := end
		if attempts < o.Count {
			due = next
		}
		switch now := time.Now(); {
		case ctx.Err() != nil:
			return ctx.Err()
		case attempts == o.Count && len(r.res.Replies) == r.res.Sent, !now.Before(end):
			return nil
		case attempts < o.Count && !now.Before(next):
			if err := r.send(); err != nil {
				return err
			}
			next = next.Add(o.Interval)
			continue
		}
		if err := r.receive(ctx, due); err != nil {
			return err
		}
	}
}

// send makes one attempt. An error ends the run.
func (r *runner) send() error {
	seq := r.res.Sent
	b := appendRequest(make([]byte, 0, echoHeader+dataLength), r.socket.v6, r.id, uint16(seq), r.tok)
	at := time.Now()
	err := r.socket.send(b)
	switch {
	case err == nil:
		r.sent, r.answered = append(r.sent, at), append(r.answered, false)
		r.res.Sent++
		return nil
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return fmt.Errorf("%w: %w", ErrNoInterface, err)
	case r.res.Sent == 0 && r.res.Refused == 0, errors.Is(err, os.ErrDeadlineExceeded):
		return err // nothing has ever left, or ctx has ended
	}
	r.res.Refused++
	return nil
}

// receive waits for a reply until the time given.
func (r *runner) receive(ctx context.Context, until time.Time) error {
	if err := r.socket.file.SetReadDeadline(until); err != nil {
		return err
	}
	if ctx.Err() != nil { // its end may have come before the deadline was set
		return ctx.Err()
	}
	var buf [256]byte // what is longer is none of ours
	n, err := r.socket.receive(buf[:])
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case err != nil:
		return err
	}
	now := time.Now()
	id, seq, tok, ok := parseReply(buf[:n], r.socket.v6, r.socket.raw && !r.socket.v6)
	// The kernel gives a datagram socket an identifier of its own choice.
	if !ok || tok != r.tok || r.socket.raw && id != r.id || int(seq) >= len(r.sent) {
		return nil
	}
	if r.answered[seq] {
		r.res.Duplicates++
		return nil
	}
	r.answered[seq] = true
	r.res.Replies = append(r.res.Replies, Reply{Seq: int(seq), RTTMs: millis(now.Sub(r.sent[seq]))})
	return nil
}

// summarise computes everything that follows from the replies and the counts.
func (r *Result) summarise() {
	sort.Slice(r.Replies, func(i, j int) bool { return r.Replies[i].Seq < r.Replies[j].Seq })
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
