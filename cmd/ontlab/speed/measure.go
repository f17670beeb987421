package speed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ontagent/agent/probe/throughput"
	"ontagent/cmd/ontlab/scratch"
)

// findings are all that was measured, as one program tells another.
type findings struct {
	Accuracy []accuracy
	Rates    []rated
	Cost     []cost
	Memory   *memoryCost
	Quota    []held
	QuotaBy  string
	Control  *held // a line that is too slow, and nothing holds the process back
	MIPS     []emulated
	Lossy    []lossy
	// Missing says what could not be measured, and why.
	Missing []string
}

func (f *findings) add(g findings) {
	f.Accuracy = append(f.Accuracy, g.Accuracy...)
	f.Rates = append(f.Rates, g.Rates...)
	f.Lossy = append(f.Lossy, g.Lossy...)
	f.Missing = append(f.Missing, g.Missing...)
}

// accuracy is one run of ours on a line whose truth is known.
type accuracy struct {
	Guest      bool
	Direction  direction
	RateMbps   float64
	DelayMS    float64
	Congestion string // as configured
	Told       string // the sender's, as our result has it
	TruthMbps  float64
	// PassedMbps is what the shaper let through in our window, as payload.
	PassedMbps float64
	Mbps       float64
	TookS      float64
	CountedBy  string
	Stable     bool
	Verdict    throughput.Verdict
	LimitedBy  throughput.Limit
	Reason     string
}

// offPercent is how far it is off the truth.
func (a accuracy) offPercent() float64 { return 100 * (a.Mbps/a.TruthMbps - 1) }

// offPassedPercent is how far it is off what the shaper let through.
func (a accuracy) offPassedPercent() float64 { return 100 * (a.Mbps/a.PassedMbps - 1) }

// rated is what another client says of a line.
type rated struct {
	Guest     bool
	Direction direction
	RateMbps  float64
	DelayMS   float64
	Client    string
	Mbps      float64
}

// cost are the runs of one client, in alternation with the others'.
type cost struct {
	Direction direction
	Client    string
	Samples   []sample
}

// memoryCost is memory at its highest: of a run, and of the same program idle.
type memoryCost struct {
	Idle memory
	Down memory
	Up   memory
}

// held is a run of a process that may use a part of a core only.
type held struct {
	Percent      float64 // of a core; 0: all of it
	Visible      bool    // the process can see its cgroup
	Direction    direction
	RateMbps     float64
	ContractMbps float64
	Mbps         float64
	TookS        float64
	Verdict      throughput.Verdict
	LimitedBy    throughput.Limit
	Reason       string
}

// emulated is the same measurement by the native program and by the one for
// mipsle.
type emulated struct {
	Direction    direction
	RateMbps     float64
	ContractMbps float64
	Native, MIPS float64
	CountedBy    string // of the one for mipsle
	NativeSays   throughput.Verdict
	MIPSSays     throughput.Verdict
	MIPSReason   string
	TookS        float64
}

// lossy is a run on a line that loses packets, and could carry the contract.
type lossy struct {
	Direction    direction
	RateMbps     float64
	DelayMS      float64
	LossPercent  float64
	ContractMbps float64
	Mbps         float64
	Verdict      throughput.Verdict
	LimitedBy    throughput.Limit
	Reason       string
}

// lab is a measurement under way.
type lab struct {
	runner
	o     Options
	log   io.Writer
	guest bool
	found findings
}

const (
	hostFileBytes = 4 << 30 // of holes: 30 s at 1 Gbit/s for one connection
	// guestFileBytes is less because a guest's files are in its memory, though
	// holes need not be.
	guestFileBytes = 1 << 30
)

// measure plays the parts of o, inside netbox.Enter's namespaces.
func measure(ctx context.Context, o Options, self []string, log io.Writer) (found findings, err error) {
	dir, err := scratch.New("speed")
	if err != nil {
		return findings{}, err
	}
	defer func() { err = errors.Join(err, dir.Remove()) }()
	m := &lab{o: o, log: log, guest: os.Getenv(guestEnv) != ""}
	fileBytes := int64(hostFileBytes)
	if m.guest {
		fileBytes = guestFileBytes
	}
	keep := []string{filepath.Dir(o.Agent)}
	if o.MIPS != "" {
		keep = append(keep, filepath.Dir(o.MIPS))
	}
	l, err := newLink(ctx, dir.Path, o.Congestion, fileBytes, keep...)
	if err != nil {
		return findings{}, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	m.runner = runner{link: l, self: self}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{partAccuracy, m.accuracy}, {partCost, m.cost}, {partMemory, m.memory}, {partQuota, m.quota}, {partMIPS, m.mips}, {partGuest, m.delayed},
	} {
		if !slices.Contains(o.Parts, part.name) || (part.name == partGuest) != m.guest {
			continue
		}
		if err := part.run(ctx); err != nil {
			if ctx.Err() != nil {
				return findings{}, err
			}
			// The others are worth it all the same.
			m.missing("%s: %v", part.name, err)
		}
	}
	return m.found, nil
}

func (m *lab) missing(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	m.found.Missing = append(m.found.Missing, text)
	m.say("not measured: %s", text)
}

// say tells whoever waits.
func (m *lab) say(format string, args ...any) { fmt.Fprintf(m.log, "speed: "+format+"\n", args...) }

// agent runs ours.
func (m *lab) agent(ctx context.Context, started func(int) error, d direction, contract float64, more ...string) (ours, error) {
	return m.ours(ctx, started, []string{m.o.Agent}, d, contract, more...)
}

// accurate is a run of ours on a line without a contract, held against the
// truth.
func (m *lab) accurate(ctx context.Context, d direction, rate float64, delay time.Duration) (ours, error) {
	stop := meter(m.sender(d))
	o, err := m.agent(ctx, nil, d, contractNone)
	watched, watchErr := stop()
	if err := errors.Join(err, watchErr); err != nil {
		return ours{}, err
	}
	r := o.rate(d)
	a := accuracy{
		Guest: m.guest, Direction: d, RateMbps: rate, DelayMS: ms(delay), Congestion: m.o.Congestion, Told: r.CongestionControl,
		TruthMbps: truth(rate), Mbps: o.tcpMbps(d), TookS: o.TookS, CountedBy: r.CountedBy, Stable: r.Stable,
		Verdict: r.Verdict, LimitedBy: r.LimitedBy, Reason: r.Reason,
	}
	if seconds := r.TR143.IncrementalResult; len(seconds) > 0 {
		begin := seconds[0].StartTime
		a.PassedMbps = payloadMbps(watched, begin, begin.Add(time.Duration(r.DurationS*float64(time.Second))))
	}
	if a.Reason == "" {
		a.Reason = r.Error
	}
	m.say("%s at %.0f Mbit/s, delay %v: %.2f of %.2f, %+.2f %% (%+.2f %% off what passed), in %.1f s %s",
		d, rate, delay, a.Mbps, a.TruthMbps, a.offPercent(), a.offPassedPercent(), a.TookS, a.Reason)
	m.found.Accuracy = append(m.found.Accuracy, a)
	return o, nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// accuracy measures lines without delay; 1000 Mbit/s is among those of cost,
// too.
func (m *lab) accuracy(ctx context.Context) error {
	for _, rate := range []float64{100, 300, 500, 1000} {
		if err := m.shape(rate, 0); err != nil {
			return err
		}
		for _, d := range directions() {
			if _, err := m.accurate(ctx, d, rate, 0); err != nil {
				return err
			}
			if rate == 100 {
				if err := m.others(ctx, d, rate, 0, peers(d)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// others has other clients say what the line carries.
func (m *lab) others(ctx context.Context, d direction, rate float64, delay time.Duration, clients []peer) error {
	for _, p := range clients {
		s, err := p.run(ctx, m.runner)
		if err != nil {
			return err
		}
		m.say("%s at %.0f Mbit/s, delay %v: %s says %.2f", d, rate, delay, p.name, s.Mbps)
		m.found.Rates = append(m.found.Rates, rated{m.guest, d, rate, ms(delay), p.name, s.Mbps})
	}
	return nil
}

// costRate is that of the line where costs are compared.
const costRate = 1000

// cost has every client take its turn, some rounds long: what else goes on
// meanwhile meets all of them.
func (m *lab) cost(ctx context.Context) error {
	if err := m.shape(costRate, 0); err != nil {
		return err
	}
	for _, d := range directions() {
		all := []cost{{Direction: d, Client: oursName}, {Direction: d, Client: oursOneName}}
		for _, p := range peers(d) {
			all = append(all, cost{Direction: d, Client: p.name})
		}
		for round := range m.o.Rounds {
			o, err := m.accurate(ctx, d, costRate, 0)
			if err != nil {
				return err
			}
			all[0].Samples = append(all[0].Samples, o.sample)
			// As iperf3 does by default.
			if o, err = m.agent(ctx, nil, d, contractNone, "--connections", "1"); err != nil {
				return err
			}
			all[1].Samples = append(all[1].Samples, o.sample)
			for i, p := range peers(d) {
				s, err := p.run(ctx, m.runner)
				if err != nil {
					return err
				}
				all[i+2].Samples = append(all[i+2].Samples, s)
			}
			for _, c := range all {
				s := c.Samples[round]
				m.say("%s, round %d: %s: %.1f Mbit/s, %.4f s/Gbit", d, round+1, c.Client, s.Mbps, s.CPUPerGbit)
			}
		}
		m.found.Cost = append(m.found.Cost, all...)
	}
	return nil
}

// quotaPercents are the parts of a core that runs are held to, one after the
// other: from far too little to hardly enough.
func quotaPercents() []float64 { return []float64{2, 1, 4, 3, 6} }

// quotaContract is met by the line, which carries 956 Mbit/s.
const quotaContract = 1000

func (m *lab) quota(ctx context.Context) (err error) {
	// The line itself is too slow: that must be found out, or never to say
	// fail would be easy.
	const slow = 700
	if err := m.shape(slow, 0); err != nil {
		return err
	}
	o, err := m.agent(ctx, nil, throughput.Down, quotaContract)
	if err != nil {
		return err
	}
	control := m.heldRun(held{Direction: throughput.Down, RateMbps: slow}, o)
	m.found.Control = &control

	q, err := newQuota()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.remove()) }()
	m.found.QuotaBy = q.String()
	if err := m.shape(costRate, 0); err != nil {
		return err
	}
	for i := range m.o.QuotaRuns {
		h := held{
			Percent: quotaPercents()[i%len(quotaPercents())], Visible: i%4 < 2, Direction: directions()[i%2], RateMbps: costRate,
		}
		if err := q.set(h.Percent); err != nil {
			return err
		}
		if h.Visible {
			if err := q.show(m.client); err != nil {
				return err
			}
		}
		o, err := m.agent(ctx, q.take, h.Direction, quotaContract)
		if h.Visible {
			err = errors.Join(err, q.hide(m.client))
		}
		if err != nil {
			return err
		}
		m.found.Quota = append(m.found.Quota, m.heldRun(h, o))
	}
	return nil
}

func (m *lab) heldRun(h held, o ours) held {
	r := o.rate(h.Direction)
	h.ContractMbps, h.Mbps, h.TookS = quotaContract, o.tcpMbps(h.Direction), o.TookS
	h.Verdict, h.LimitedBy, h.Reason = r.Verdict, r.LimitedBy, r.Reason
	m.say("%s held to %g %% of a core at %.0f Mbit/s: %.1f Mbit/s, %s (%s) %s", h.Direction, h.Percent, h.RateMbps, h.Mbps, h.Verdict, h.LimitedBy, h.Reason)
	return h
}

// The line that the emulated processor is measured on: it keeps up with it.
const (
	mipsRate     = 50
	mipsContract = 50
	mipsEmulator = "qemu-mipsel-static"
)

func (m *lab) mips(ctx context.Context) error {
	if m.o.MIPS == "" {
		return errors.New("there is no build for mipsle: `make dist/linux-mipsle` makes it")
	}
	if err := m.shape(mipsRate, 0); err != nil {
		return err
	}
	for _, d := range directions() {
		native, err := m.agent(ctx, nil, d, mipsContract)
		if err != nil {
			return err
		}
		foreign, err := m.ours(ctx, nil, []string{mipsEmulator, m.o.MIPS}, d, mipsContract)
		if err != nil {
			return err
		}
		e := emulated{
			Direction: d, RateMbps: mipsRate, ContractMbps: mipsContract, Native: native.tcpMbps(d), MIPS: foreign.tcpMbps(d),
			CountedBy: foreign.rate(d).CountedBy, NativeSays: native.rate(d).Verdict, MIPSSays: foreign.rate(d).Verdict,
			MIPSReason: foreign.rate(d).Reason, TookS: foreign.TookS,
		}
		m.say("%s: native %.2f (%s), mipsle %.2f (%s) %s", d, e.Native, e.NativeSays, e.MIPS, e.MIPSSays, e.MIPSReason)
		m.found.MIPS = append(m.found.MIPS, e)
	}
	return nil
}

// delayed is the guest's part.
func (m *lab) delayed(ctx context.Context) error {
	for _, rate := range []float64{50, 100} {
		for _, delay := range []time.Duration{10 * time.Millisecond, 40 * time.Millisecond} {
			if err := m.shape(rate, delay); err != nil {
				return err
			}
			for _, d := range directions() {
				if _, err := m.accurate(ctx, d, rate, delay); err != nil {
					return err
				}
				if err := m.others(ctx, d, rate, delay, peers(d)[:1]); err != nil {
					return err
				}
			}
		}
	}
	// A line that loses packets without a queue: TCP can't fill it.
	const rate, contract, loss, delay = 100, 100, 0.02, 40 * time.Millisecond
	if err := m.shapeLossy(rate, delay, loss); err != nil {
		return err
	}
	for _, d := range directions() {
		o, err := m.agent(ctx, nil, d, contract)
		if err != nil {
			return err
		}
		r := o.rate(d)
		l := lossy{d, rate, ms(delay), 100 * loss, contract, o.tcpMbps(d), r.Verdict, r.LimitedBy, r.Reason}
		m.say("%s at %d Mbit/s with %g %% loss: %.2f, %s (%s) %s", d, rate, l.LossPercent, l.Mbps, l.Verdict, l.LimitedBy, l.Reason)
		m.found.Lossy = append(m.found.Lossy, l)
	}
	return nil
}
