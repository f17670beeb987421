package throughput

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// repeats is of how many runs a borderline rate is the median.
const repeats = 3

// Run measures, and judges what it found. Whatever kept it from measuring is in
// the result, with the verdict Inconclusive. The error is compatible with
// ErrOptions, or is ctx.Err(); with that the result holds what was found until
// then.
func Run(ctx context.Context, o Options) (Result, error) {
	began := time.Now()
	o = o.normalised()
	if err := o.check(); err != nil {
		return Result{}, err
	}
	r := &runner{o: &o, budget: newBudget(o.MaxBytes), device: newDevice(o.ProcRoot, o.CgroupRoot)}
	r.once = r.measure
	r.res = Result{
		URL: o.URL, Protocol: "http", Interface: o.Interface, Encapsulation: o.Encapsulation,
		Connections: o.Connections, Layer: o.Layer, MinRatio: o.MinRatio,
	}
	if o.up() && o.UploadURL != o.URL {
		r.res.UploadURL = o.UploadURL
	}
	var err error
	if o.down() {
		r.res.Down, err = r.rate(ctx, Down)
	}
	if o.up() && err == nil {
		r.res.Up, err = r.rate(ctx, Up)
	}
	r.conclude()
	if err != nil {
		r.res.Verdict, r.res.Reason = Inconclusive, err.Error()
	}
	r.res.DurationS = time.Since(began).Seconds()
	return r.res, err
}

// runner is a Run in progress.
type runner struct {
	o      *Options
	res    Result
	budget *budget
	device *device
	// once measures once; its error is ctx's.
	once func(ctx context.Context, from string, dir Direction, window time.Duration) (Measurement, error)
}

// conclude draws the verdict from both directions.
func (r *runner) conclude() {
	r.res.Verdict = Measured
	for _, rate := range []*Rate{r.res.Down, r.res.Up} {
		if rate != nil {
			r.res.Verdict = worst(r.res.Verdict, rate.Verdict)
		}
	}
	for _, rate := range []*Rate{r.res.Up, r.res.Down} {
		if rate != nil && rate.Verdict == r.res.Verdict && rate.Reason != "" {
			r.res.Reason = rate.Reason
		}
	}
}

// rate measures one direction, as often as it takes. The error is ctx's.
func (r *runner) rate(ctx context.Context, dir Direction) (*Rate, error) {
	from, contract := r.o.URL, r.o.ContractDownMbps
	if dir == Up {
		from, contract = r.o.UploadURL, r.o.ContractUpMbps
	}
	m, err := r.once(ctx, from, dir, r.o.Window)
	if err != nil {
		return nil, err
	}
	rate := &Rate{Measurement: m, ContractMbps: contract}
	if err := r.settle(ctx, rate, from, dir); err != nil {
		return nil, err
	}
	if got := rate.mbps(r.o.Layer); got != nil && contract > 0 {
		part := *got / contract
		rate.ContractRatio = &part
	}
	return rate, nil
}

// measure measures once. The error is ctx's.
func (r *runner) measure(ctx context.Context, from string, dir Direction, window time.Duration) (Measurement, error) {
	m := Measurement{URL: from}
	err := r.tryMeasure(ctx, &m, from, dir, window)
	r.res.TestBytes += m.TR143.TestBytes
	r.res.Server = or(r.res.Server, m.Server)
	if ctx.Err() != nil {
		return m, ctx.Err()
	}
	if err != nil && m.Error == "" {
		m.Error = err.Error()
		if _, ok := errors.AsType[busyError](err); ok {
			m.cut = LimitCrossTraffic
		}
		if errors.Is(err, errTooBusy) {
			m.cut = LimitDeviceCPU
		}
	}
	r.tell(&m, dir)
	return m, nil
}

func (r *runner) tell(m *Measurement, dir Direction) {
	switch {
	case m.Error != "":
		r.o.Note(string(dir) + ": " + m.Error)
	case m.TCPMbps != nil:
		r.o.Note(fmt.Sprintf("%s: %.1f Mbit/s in %.1f s", dir, *m.TCPMbps, m.DurationS))
	}
}

func (r *runner) tryMeasure(ctx context.Context, m *Measurement, from string, dir Direction, window time.Duration) error {
	p, err := parsePlace(from)
	if err != nil {
		return err
	}
	r.o.Note(fmt.Sprintf("%s: connecting to %s", dir, p.String()))
	to, err := r.o.addresses(ctx, &p)
	if err != nil {
		return err
	}
	t := &task{
		down: dir == Down, window: window, warmUp: r.o.WarmUp, encapsulation: r.o.Encapsulation,
		budget: r.budget, device: r.device, lines: lines{look: r.o.Line}, dialer: dialer{iface: r.o.Interface},
	}
	d := t.dialer
	if p.iperf3 {
		r.res.Protocol = "iperf3"
		t.lines.local = d.local(ctx, to)
		err = r.o.quiet(ctx, t.lines)
	} else {
		t.prober, err = r.approach(ctx, d, to, &p, t, m)
	}
	if err != nil {
		return err
	}
	if !t.down {
		if t.supply, err = newSupply(); err != nil {
			return err
		}
		defer t.supply.close()
	}
	r.o.Note(fmt.Sprintf("%s: measuring for %v", dir, window))
	if p.iperf3 {
		o := *r.o
		o.Window = window
		t.session = newIperf3(&o, dir, func(ctx context.Context) (*stream, error) { return d.dialFirst(ctx, to) })
		return r.run(ctx, t, m)
	}
	h := &httpTest{
		dialer: d, place: p, to: t.prober.to, count: r.o.Connections, down: t.down,
		method: r.o.UploadMethod, part: partSize,
	}
	t.session = h
	if err = r.run(ctx, t, m); errors.Is(err, errTooLarge) {
		r.o.Note(fmt.Sprintf("%s: %v; again with small ones", dir, err))
		h.part = smallPartSize
		*m = Measurement{URL: m.URL, Server: m.Server, Latency: m.Latency}
		err = r.run(ctx, t, m)
	}
	return err
}

// approach finds the address of a server that answers, sees whether the line is
// quiet, and what the latency is meanwhile.
func (r *runner) approach(ctx context.Context, d dialer, to []netip.AddrPort, p *place, t *task, m *Measurement) (*prober, error) {
	s, err := d.dialFirst(ctx, to)
	if err != nil {
		return nil, err
	}
	m.Server = addrPort(s.conn.RemoteAddr())
	t.lines.local = addrPort(s.conn.LocalAddr()).Addr()
	s.abort()
	prober := &prober{dialer: d, to: m.Server, request: p.request("HEAD") + "Connection: close\r\n\r\n"}
	idle, cancel := context.WithTimeout(ctx, idleTimeout)
	defer cancel()
	found := make(chan probes, 1)
	go func() {
		p := *prober
		p.request = ""
		found <- p.run(idle, idleProbes, idleInterval)
	}()
	err = r.o.quiet(ctx, t.lines)
	m.Latency.idle(<-found)
	return prober, err
}

// run runs a task, and keeps what it says about the server.
func (r *runner) run(ctx context.Context, t *task, m *Measurement) error {
	err := t.run(ctx, m)
	r.res.ServerName = or(r.res.ServerName, t.serverName)
	if t.line != "" && r.res.Interface == "" {
		r.res.Interface = t.line
	}
	return err
}

// addrPort is a TCP address as netip has it.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
