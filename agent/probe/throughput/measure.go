package throughput

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// stallTime is how long nothing may come.
	stallTime = 3 * time.Second
	// partTime is the least of a window that is worth a rate.
	partTime = 900 * time.Millisecond
	// closeTimeout bounds what a session says at its end.
	closeTimeout = 3 * time.Second
)

// task is one measurement in one direction.
type task struct {
	session        session
	down           bool
	window, warmUp time.Duration
	encapsulation  Encapsulation
	budget         *budget
	supply         *supply // of an upload
	lines          lines
	device         *device
	dialer         dialer
	prober         *prober // beside the window; nil: one that only shakes hands
	// What it learns of the server and the interface.
	serverName, line string
}

// course is what a task collects.
type course struct {
	*task
	streams []*stream
	pump    *pump
	before  *moment // the interface, at the beginning
	// The last look, and the one that the window began with, of each flow.
	last, begin []reading
	warm, in    []sample // before the window, and in it
	edges       []moment // the interface, at the window's samples
	progress    sample   // when bytes moved last
	backlog     []int    // samples at which too much waited, by flow
	rcvWnd      []uint64 // the widest receive window, by flow
	opened      time.Time
	v6          bool
	late        time.Duration
	latency     func() probes
}

// run measures. What went wrong is in the measurement; an error is ctx's.
func (t *task) run(ctx context.Context, m *Measurement) error {
	c := &course{task: t}
	var err error
	if c.streams, err = t.session.open(ctx); err == nil {
		err = c.flow(ctx, m)
	}
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if said := t.session.close(bye); said != nil {
		m.CongestionControl = said.congestionControl
		if !t.down {
			m.ServerBytes = &said.bytes
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s, ok := t.session.(interface{ trouble() error }); ok && err != nil && m.link == "" && s.trouble() != nil {
		err = s.trouble() // the server's own word for what the pump saw
	}
	if err != nil {
		m.Error = err.Error()
		if _, ok := errors.AsType[shortError](err); ok || errors.Is(err, errBudget) {
			m.cut = LimitShort
		}
		if errors.Is(err, errTooBusy) {
			m.cut = LimitDeviceCPU
		}
	}
	if m.link != "" {
		m.cut = LimitLinkChanged
	}
	return err
}

// flow pumps, and looks on.
func (c *course) flow(ctx context.Context, m *Measurement) error {
	var err error
	c.opened = time.Now()
	if c.pump, err = startPump(c.streams, c.supply, c.budget); err != nil {
		return err
	}
	m.Server, c.serverName = addrPort(c.streams[0].conn.RemoteAddr()), c.streams[0].server
	c.v6 = m.Server.Addr().Is6()
	c.handshakes(m)
	defer c.settle(m)
	defer c.pump.stop()
	n := len(c.streams)
	c.last, c.backlog, c.rcvWnd = make([]reading, n), make([]int, n), make([]uint64, n)
	if c.lines.known() {
		line, err := c.lines.now(ctx)
		if err != nil {
			return fmt.Errorf("cannot read the interface: %w", err)
		}
		c.before, c.line = &line, line.Interface
	}
	err = c.watch(ctx, m)
	if len(c.in) > 0 {
		c.figures(m)
	}
	return err
}

// handshakes are the latency before the test where nothing else measured it, and
// what measures it in the test: a server of iperf3 takes one test at a time, and
// denies other connections only while it has one.
func (c *course) handshakes(m *Measurement) {
	if c.prober != nil {
		return
	}
	var idle probes
	for _, s := range c.streams {
		idle.tcp = append(idle.tcp, milliseconds(s.connected.Sub(s.dialed)))
	}
	m.Latency.idle(idle)
	c.prober = &prober{dialer: c.dialer, to: m.Server}
}

// watch takes samples until the window is over.
func (c *course) watch(ctx context.Context, m *Measurement) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := time.Now()
	c.progress.at = next
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-c.pump.failed:
			if len(c.in) > 0 { // as far as it came
				_ = c.look()
			}
			return err
		case <-timer.C:
		}
		if late := time.Since(next); len(c.in) > 0 {
			c.late = max(c.late, late)
		}
		if err := c.look(); err != nil {
			return err
		}
		if err := c.lookAtLine(ctx, m); err != nil {
			return err
		}
		if len(c.in) > 0 && n%4 == 0 {
			c.device.sample()
		}
		if over, err := c.advance(ctx, m); over || err != nil {
			return err
		}
		now := time.Now()
		for next = next.Add(sampleInterval); !next.After(now); {
			next = next.Add(sampleInterval)
		}
		if len(c.in) > 0 {
			if end := c.in[0].at.Add(c.window); next.After(end) {
				next = end
			}
		}
		timer.Reset(time.Until(next))
	}
}

// look reads every flow, and keeps the sum.
func (c *course) look() error {
	var sum sample
	var off time.Duration
	now := make([]reading, len(c.pump.flows))
	for i, f := range c.pump.flows {
		r, err := f.read()
		if err != nil {
			return fmt.Errorf("cannot count the bytes of a connection: %w", err)
		}
		now[i] = r
		sum.bytes += r.bytes
		off += r.at.Sub(now[0].at)
	}
	sum.at = now[0].at.Add(off / time.Duration(len(now)))
	if len(c.in) > 0 {
		for i, f := range c.pump.flows {
			if now[i].queued > uint64(2*f.lowat+lowatSlack) {
				c.backlog[i]++
			}
			c.rcvWnd[i] = max(c.rcvWnd[i], uint64(now[i].info.or(infoRcvWnd, 0)))
		}
	}
	if c.down && !c.last[0].at.IsZero() {
		for i, f := range c.pump.flows {
			if d := now[i].at.Sub(c.last[i].at).Seconds(); d > 0 {
				f.tune(float64(now[i].bytes-c.last[i].bytes) / d)
			}
		}
	}
	c.last = now
	if sum.bytes != c.progress.bytes {
		c.progress = sum
	}
	if len(c.in) > 0 {
		c.in = append(c.in, sum)
	} else {
		c.warm = append(c.warm, sum)
	}
	return nil
}

// lookAtLine sees whether the interface is as it was.
func (c *course) lookAtLine(ctx context.Context, m *Measurement) error {
	if c.before == nil {
		return nil
	}
	now, err := c.lines.now(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errTooBusy):
		return err // which says nothing of the interface
	case err != nil:
		m.link = linkChange(c.before.Interface + " is gone: " + err.Error())
	default:
		m.link = became(&c.before.Line, &now.Line)
	}
	if m.link != "" {
		return errors.New(string(m.link))
	}
	c.edges = append(c.edges, now)
	if len(c.in) == 0 {
		c.edges = c.edges[len(c.edges)-1:]
	}
	return nil
}

// advance goes from warm-up to window to end.
func (c *course) advance(ctx context.Context, m *Measurement) (over bool, err error) {
	now := time.Now()
	if idle := now.Sub(c.progress.at); idle >= stallTime {
		return false, fmt.Errorf("the server stalled: no byte in %v, after %d bytes", stallTime, c.progress.bytes)
	}
	if len(c.in) > 0 {
		return c.in[len(c.in)-1].at.Sub(c.in[0].at) >= c.window-time.Millisecond, nil
	}
	latest := time.Time{}
	for i, f := range c.pump.flows {
		_, begun := f.count()
		if begun.IsZero() {
			if c.down && now.Sub(c.opened) >= stallTime {
				return false, fmt.Errorf("the server sends nothing on connection %d of %d", i+1, len(c.pump.flows))
			}
			c.warm = c.warm[:0]
			return false, nil
		}
		if begun.After(latest) {
			latest = begun
		}
	}
	settled := stable(c.warm)
	if !settled && now.Sub(latest) < c.warmUp {
		return false, nil
	}
	m.Stable = settled
	c.begin = c.last
	c.in = append(c.in, c.warm[len(c.warm)-1])
	m.WarmUpS = c.in[0].at.Sub(latest).Seconds()
	c.device.begin()
	c.probe(ctx)
	return false, nil
}

// probe measures latency until its result is asked for.
func (c *course) probe(ctx context.Context) {
	if c.prober == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	found := make(chan probes, 1)
	go func() { found <- c.prober.run(ctx, 0, loadInterval) }()
	c.latency = func() probes { cancel(); return <-found }
}

// settle ends what runs beside, and keeps what the whole transfer was.
func (c *course) settle(m *Measurement) {
	if c.latency != nil {
		m.Latency.loaded(c.latency())
	}
	c.account(m)
}

// account counts the whole transfer, and takes it from the budget.
func (c *course) account(m *Measurement) {
	tr := &m.TR143
	tr.EOMTime = stamp(time.Now())
	var total uint64
	for i, f := range c.pump.flows {
		r, err := f.read()
		if err != nil || r.bytes < c.last[i].bytes { // it was closed
			r = c.last[i]
		}
		total += r.bytes
		moved, begun := f.count()
		if c.down && r.bytes > moved {
			c.budget.spend(r.bytes - moved) // came, and was not read
		} else if !c.down && moved > r.bytes {
			c.budget.refund(moved - r.bytes)
		}
		earliest(&tr.ROMTime, f.requested)
		earliest(&tr.BOMTime, begun)
		latest(&tr.TCPOpenRequestTime, f.dialed)
		latest(&tr.TCPOpenResponseTime, f.connected)
	}
	tr.TestBytes = total
	if !c.down && m.SentBytes == nil {
		m.SentBytes = &total
	}
	if c.before != nil && len(c.edges) > 0 {
		end := c.edges[len(c.edges)-1]
		bytes := traffic(c.before, &end, c.down)
		if c.down {
			tr.TotalBytesReceived = &bytes
		} else {
			tr.TotalBytesSent = &bytes
		}
	}
	if c.device != nil && len(c.in) > 0 {
		m.Conditions.SampleLateMs = milliseconds(c.late)
	}
}

func earliest(into *time.Time, t time.Time) {
	if !t.IsZero() && (into.IsZero() || t.Before(*into)) {
		*into = stamp(t)
	}
}

func latest(into *time.Time, t time.Time) {
	if t.After(*into) {
		*into = stamp(t)
	}
}

// stamp is a time as TR-181 has it: UTC, microseconds.
func stamp(t time.Time) time.Time { return t.UTC().Round(0).Truncate(time.Microsecond) }

// congestionControl is that of a socket.
func congestionControl(s *stream) (name string) {
	_ = s.raw.Control(func(fd uintptr) {
		name, _ = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	})
	return name
}
