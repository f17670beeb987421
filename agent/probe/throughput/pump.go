package throughput

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// past is a deadline that ends what waits.
func past() time.Time { return time.Unix(1, 0) }

// pump moves the bytes of a test, a goroutine for each stream and direction,
// until it is stopped, or something ends it.
type pump struct {
	flows  []*flow
	budget *budget
	// failed has the first thing that went wrong.
	failed   chan error
	stopping atomic.Bool
	stopped  chan struct{} // closed when stopping
	wg       sync.WaitGroup
	scratch  []byte // download
}

// flow is a stream that is pumped.
type flow struct {
	*stream
	pump *pump
	down bool
	// byInfo says that the kernel counts the bytes of a connection.
	byInfo bool
	source source

	// turn is held by who moves bytes: see work.
	turn sync.Mutex
	// over is why no more are moved; head and left are what stands before the
	// next part of an upload, and how much of this one is left. Guarded by turn.
	over error
	head []byte
	left uint64

	mu sync.Mutex
	// moved is what was read, early bytes included, or written. It is guarded by
	// mu, also while the kernel moves bytes that it does not have yet.
	moved uint64
	begun time.Time // of the first byte; guarded by mu

	lowat int // of the sampler
}

// startPump begins to move bytes; it must be stopped. s is nil for a download.
func startPump(streams []*stream, s *supply, b *budget) (*pump, error) {
	p := &pump{budget: b, failed: make(chan error, 1), stopped: make(chan struct{})}
	if s == nil {
		var err error
		p.scratch, err = unix.Mmap(-1, 0, discardSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return nil, err
		}
	}
	for _, st := range streams {
		f := &flow{stream: st, pump: p, down: s == nil, begun: st.first}
		if err := f.prepare(s); err != nil {
			p.stop()
			return nil, err
		}
		p.flows = append(p.flows, f)
	}
	for _, f := range p.flows {
		if f.down {
			p.wg.Go(func() { p.report(f.work(f.raw.Read)) })
			continue
		}
		p.wg.Go(func() { p.report(f.upload()) })
	}
	return p, nil
}

// upload sends and listens until either ends, and returns what ended it.
func (f *flow) upload() error {
	// What the server said before it hung up tells most; and that it reset the
	// connection only one of two hears, the other that it is closed.
	const grace = 50 * time.Millisecond
	said, sent := make(chan error, 1), make(chan error, 1)
	go func() { said <- f.listen() }()
	go func() { sent <- f.work(f.raw.Write) }()
	var heard, other error
	select {
	case heard = <-said:
		_ = f.conn.SetWriteDeadline(time.Now().Add(grace))
		other = <-sent
	case other = <-sent:
		if !f.pump.stopping.Load() {
			_ = f.conn.SetReadDeadline(time.Now().Add(grace))
		}
		heard = <-said
	}
	_, closed := errors.AsType[closedError](heard)
	if errors.Is(heard, os.ErrDeadlineExceeded) || closed && other != nil && !errors.Is(other, os.ErrDeadlineExceeded) {
		return other
	}
	return heard
}

// ample is how much of a budget each flow and direction must have left for the
// flows to be served together.
const ample = 4 << 20

// work moves the bytes of a flow until it is over, and says why. wait is the
// connection's Read or Write.
//
// Who is awake serves the other flows, too: waking costs the processor more
// than moving, and four connections would wake it four times as often.
func (f *flow) work(wait func(func(fd uintptr) bool) error) error {
	err := wait(func(fd uintptr) bool {
		f.turn.Lock()
		over := f.step(fd)
		f.turn.Unlock()
		if over {
			return true
		}
		if f.pump.budget.share(ample, len(f.pump.flows)) < ample {
			return false // what is left to send would all be in buffers
		}
		for _, o := range f.pump.flows {
			if o != f && o.turn.TryLock() {
				o.serve()
			}
		}
		return false
	})
	f.turn.Lock()
	over := f.over
	f.turn.Unlock()
	switch {
	case over == nil:
		return err
	case !f.down && errors.Is(over, errBudget):
		f.pump.drained()
	}
	return over
}

// step moves what can be moved now, and reports whether that was the last. The
// turn is held.
func (f *flow) step(fd uintptr) (over bool) {
	switch {
	case f.over != nil:
	case f.down:
		f.over = f.drain(fd)
	default:
		f.over = f.fill(fd)
	}
	return f.over != nil
}

// serve is a step for the flow's own goroutine, which is woken only if it was
// the last. It gives the turn back.
func (f *flow) serve() {
	over := false
	_ = f.raw.Control(func(fd uintptr) { over = f.step(fd) })
	f.turn.Unlock()
	switch {
	case !over:
	case f.down:
		_ = f.conn.SetReadDeadline(past())
	default:
		_ = f.conn.SetWriteDeadline(past())
	}
}

func (f *flow) prepare(s *supply) error {
	var t tcpInfo
	var written uint64
	err := f.raw.Control(func(fd uintptr) {
		readInfo(fd, &t)
		written, _ = queued(fd, unix.TIOCOUTQ)
	})
	if err != nil {
		return err
	}
	if err := f.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if f.down {
		_, f.byInfo = t.u64(infoReceived)
		f.moved = f.early
		f.setLowat(newLowat)
		return nil
	}
	_, f.byInfo = t.u64(infoAcked)
	f.moved = written // the request, as far as it still waits
	f.left = f.limit
	f.source, err = s.source()
	return err
}

// report tells the first error that is not the consequence of a stop.
func (p *pump) report(err error) {
	if err == nil || p.stopping.Load() || errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	select {
	case p.failed <- err:
	default:
	}
}

// stop ends all that moves bytes, and returns when it has ended. The connections
// stay open.
func (p *pump) stop() {
	if p.stopping.Swap(true) {
		return
	}
	close(p.stopped)
	for _, f := range p.flows {
		_ = f.conn.SetDeadline(past())
	}
	p.wg.Wait()
	if p.scratch != nil {
		_ = unix.Munmap(p.scratch)
	}
}

// reading is what is known of a flow at a moment.
type reading struct {
	at     time.Time
	bytes  uint64 // received in order, or acknowledged
	queued uint64 // received and not read (download)
	info   tcpInfo
}

// read reads a flow. A reading that took long is taken again: its moment would
// not be known.
func (f *flow) read() (r reading, err error) {
	const prompt = 500 * time.Microsecond
	for range 3 {
		var begin, end time.Time
		ctl := f.raw.Control(func(fd uintptr) {
			begin = time.Now()
			err = f.readFrom(fd, &r)
			end = time.Now()
		})
		if ctl != nil {
			return r, ctl
		}
		took := end.Sub(begin)
		r.at = begin.Add(took / 2)
		if err != nil || took < prompt {
			break
		}
	}
	return r, err
}

var errNoCount = errors.New("the kernel counts neither a connection's bytes nor what its queues hold")

func (f *flow) readFrom(fd uintptr, r *reading) error {
	if !f.byInfo { // both belong to one moment
		f.mu.Lock()
		defer f.mu.Unlock()
	}
	readInfo(fd, &r.info)
	var ok bool
	switch {
	case f.byInfo && f.down:
		r.bytes, ok = r.info.u64(infoReceived)
		r.queued, _ = queued(fd, unix.TIOCINQ)
	case f.byInfo:
		r.bytes, ok = r.info.u64(infoAcked)
	case f.down:
		r.queued, ok = queued(fd, unix.TIOCINQ)
		r.bytes = f.moved + r.queued
	default:
		var waits uint64
		waits, ok = queued(fd, unix.TIOCOUTQ)
		r.bytes = f.moved - min(waits, f.moved)
	}
	if !ok {
		return errNoCount
	}
	return nil
}

// count returns what was moved, and when the first byte was.
func (f *flow) count() (moved uint64, begun time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.moved, f.begun
}
