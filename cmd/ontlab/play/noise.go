package play

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/ontsim"
	"ontagent/cmd/ontlab/scenario"
)

// noise is what faults keep running, by their names.
type noise struct {
	mu      sync.Mutex
	running map[string]func() // ends it and waits; guarded by mu
}

// start runs f in place of what ran under a name, until it is ended: longer
// than ctx.
func (n *noise) start(ctx context.Context, name string, f func(ctx context.Context)) {
	n.end(name)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var done sync.WaitGroup
	done.Go(func() { f(ctx) })
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running == nil {
		n.running = map[string]func(){}
	}
	n.running[name] = func() { cancel(); done.Wait() }
}

// end ends what runs under a name, if anything does.
func (n *noise) end(name string) {
	n.mu.Lock()
	end := n.running[name]
	delete(n.running, name)
	n.mu.Unlock()
	if end != nil {
		end()
	}
}

// stop ends everything.
func (n *noise) stop() {
	n.mu.Lock()
	all := n.running
	n.running = nil
	n.mu.Unlock()
	for _, end := range all {
		end()
	}
}

// bitErrors lets an ONT count errors at a steady rate.
func bitErrors(ctx context.Context, sim *ontsim.Sim, p scenario.Params) {
	const step = 200 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	var bip, fec float64 // that are not counted yet
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			bip += p.BIPPerS * now.Sub(last).Seconds()
			fec += p.FECPerS * now.Sub(last).Seconds()
			last = now
		}
		sim.AddErrors(uint64(bip), 0, uint64(fec))
		bip -= float64(uint64(bip))
		fec -= float64(uint64(fec))
	}
}

// overrun lets an ONT count overrun time slots at a steady rate.
func overrun(ctx context.Context, sim *ontsim.Sim, perSecond float64) {
	const step = 200 * time.Millisecond
	var due float64
	for last := time.Now(); sleepUntil(ctx, last.Add(step)); {
		now := time.Now()
		due += perSecond * now.Sub(last).Seconds()
		last = now
		sim.Overrun(uint64(due))
		due -= float64(uint64(due))
	}
}

// Of what cross traffic is exchanged with, on the core.
const (
	coreTraffic  = 2
	downloadPort = "19"
	uploadPort   = "9"
)

func (l *Lab) applyNoise(ctx context.Context, fault string) error {
	l.noise.end(fault)
	p, on := l.latest(fault)
	if !on {
		return nil
	}
	if fault == "cross_traffic" {
		return l.startTraffic(ctx, fault, p)
	}
	if fault == "gateway_slow" {
		return l.slow(ctx, fault)
	}
	busy, err := l.gateway.Start(ctx, netbox.Service{Name: "busy", Path: "busybox", Args: []string{"sh", "-c", "while :; do :; done"}})
	if err != nil {
		return err
	}
	l.noise.start(ctx, fault, func(ctx context.Context) { keepBusy(ctx, busy, p.BusyRatio) })
	return nil
}

// keepBusy lets a process that takes all that it can get run for a share of the
// time.
func keepBusy(ctx context.Context, p *netbox.Process, ratio float64) {
	const period = 100 * time.Millisecond
	defer p.Kill() //nolint:errcheck // what doesn't end goes with the lab
	pause := func(d time.Duration) bool {
		if d <= 0 {
			return ctx.Err() == nil
		}
		return sleepUntil(ctx, time.Now().Add(d))
	}
	run := time.Duration(ratio * float64(period))
	for p.Signal(syscall.SIGCONT) == nil && pause(run) {
		if ratio < 1 && (p.Signal(syscall.SIGSTOP) != nil || !pause(period-run)) {
			return
		}
	}
}

// startTraffic lets the PC at home load the line.
func (l *Lab) startTraffic(ctx context.Context, fault string, p scenario.Params) error {
	from := l.home
	if l.sc.Gateway.Internet.Access == scenario.Bridge {
		from = l.pc
	}
	at := core(coreTraffic)[0].String()
	downloads, err := l.core.Listen(ctx, "tcp", net.JoinHostPort(at, downloadPort))
	if err != nil {
		return err
	}
	uploads, err := l.core.Listen(ctx, "tcp", net.JoinHostPort(at, uploadPort))
	if err != nil {
		return errors.Join(err, downloads.Close())
	}
	l.noise.start(ctx, fault, func(ctx context.Context) {
		var all sync.WaitGroup
		defer all.Wait()
		all.Go(func() { serveTraffic(ctx, downloads, p.DownMbps) })
		all.Go(func() { serveTraffic(ctx, uploads, 0) })
		for port, mbps := range map[string]float64{downloadPort: p.DownMbps, uploadPort: p.UpMbps} {
			if mbps == 0 {
				continue
			}
			all.Go(func() { useTraffic(ctx, from, net.JoinHostPort(at, port), port == uploadPort, mbps) })
		}
	})
	return nil
}

// serveTraffic serves what the PC uses: it sends at a rate, or, where that is
// 0, takes what comes.
func serveTraffic(ctx context.Context, listener net.Listener, mbps float64) {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		serving.Go(func() {
			if mbps > 0 {
				sendTraffic(ctx, conn, mbps)
			} else {
				discardTraffic(ctx, conn)
			}
		})
	}
}

// useTraffic connects again and again, and sends or takes.
func useTraffic(ctx context.Context, from *netbox.Host, to string, sends bool, mbps float64) {
	for ctx.Err() == nil {
		dialing, cancel := context.WithTimeout(ctx, 3*time.Second)
		conn, err := from.Dial(dialing, "tcp", to)
		cancel()
		if err == nil {
			if sends {
				sendTraffic(ctx, conn, mbps)
			} else {
				discardTraffic(ctx, conn)
			}
		}
		sleepUntil(ctx, time.Now().Add(500*time.Millisecond))
	}
}

// trafficPatience is how long a connection may rest before it is taken for
// dead.
const trafficPatience = 5 * time.Second

// sendTraffic sends at a rate until the connection or ctx ends. What a slow
// line does not take is not made up for.
func sendTraffic(ctx context.Context, conn net.Conn, mbps float64) {
	defer conn.Close() //nolint:errcheck // nothing is lost that anybody wants
	const step = 10 * time.Millisecond
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	perSecond := mbps * 1e6 / 8
	buffer := make([]byte, int(perSecond*step.Seconds()*5)+1)
	tick := time.NewTicker(step)
	defer tick.Stop()
	due := 0.0
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		due = min(due+perSecond*now.Sub(last).Seconds(), float64(len(buffer)))
		last = now
		_ = conn.SetWriteDeadline(now.Add(trafficPatience))
		n, err := conn.Write(buffer[:int(due)])
		if err != nil || ctx.Err() != nil {
			return
		}
		due -= float64(n)
	}
}

// discardTraffic takes what comes until the connection or ctx ends.
func discardTraffic(ctx context.Context, conn net.Conn) {
	defer conn.Close() //nolint:errcheck // nothing is lost that anybody wants
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	for buffer := make([]byte, 64<<10); ctx.Err() == nil; {
		_ = conn.SetReadDeadline(time.Now().Add(trafficPatience))
		if _, err := conn.Read(buffer); err != nil {
			return
		}
	}
}
