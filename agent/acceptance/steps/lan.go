package steps

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/collectors"
)

// LANPort is the state of one LAN port at one moment.
type LANPort struct {
	// Carrier says whether there is a link; CarrierKnown whether that could be
	// read.
	Carrier, CarrierKnown bool
	SpeedMbps             int    // negotiated; 0 if unknown
	Duplex                string // "full", "half", "" if unknown
	// MaxMbps is the best that the port itself can do, PeerMaxMbps the best
	// that the other end has announced; 0 if unknown.
	MaxMbps, PeerMaxMbps int
	// CRCErrors counts received frames with errors on the wire, as a running
	// total; only with CRCKnown.
	CRCErrors uint64
	CRCKnown  bool
	// CarrierChanges counts how often the link came or went, as a running
	// total; 0 if unknown.
	CarrierChanges uint64
	Source         string
}

// LANPortReader reads LAN ports by interface name. Of an interface that does not
// exist it returns an error.
type LANPortReader interface {
	ReadLANPort(ctx context.Context, name string) (LANPort, error)
}

// LANCablingOptions configure the rung of the cabling in the house.
type LANCablingOptions struct {
	Reader LANPortReader // nil: nothing to read
	// Ordered is the port that the order names, if it does: then this one
	// decides alone. Otherwise those of Ports decide that have a link.
	Ordered string
	Ports   []string
	// DeviceAttached says that the order vouches for something being plugged
	// in, so that a missing link is a fault of the cable.
	DeviceAttached bool
	// ContractMbps is the higher contracted rate; above 100 the port must do
	// a gigabit. 0 if unknown.
	ContractMbps float64
	Thresholds   acceptance.Thresholds // Norms if zero
	Watch        time.Duration         // how long errors are counted; 5 s if zero
	Deadline     time.Duration         // Watch + 10 s if zero
}

// LANCabling judges the cable from the gateway to what is plugged in: 568B on
// eight wires shows as gigabit, full duplex, no errors.
type LANCabling struct{ o LANCablingOptions }

var _ acceptance.Step = (*LANCabling)(nil)

// NewLANCabling returns the cabling rung.
func NewLANCabling(o LANCablingOptions) *LANCabling {
	o.Thresholds = orNorms(o.Thresholds)
	o.Watch = orDefault(o.Watch, 5*time.Second)
	o.Deadline = orDefault(o.Deadline, o.Watch+10*time.Second)
	return &LANCabling{o: o}
}

// Rung implements acceptance.Step.
func (*LANCabling) Rung() acceptance.Rung { return acceptance.LANCabling }

// Needs implements acceptance.Step.
func (*LANCabling) Needs() []acceptance.Rung { return nil }

// Deadline implements acceptance.Step.
func (s *LANCabling) Deadline() time.Duration { return s.o.Deadline }

// Estimate implements acceptance.Estimator.
func (s *LANCabling) Estimate() time.Duration { return s.o.Watch + 500*time.Millisecond }

// finding is the judgement of one port, or of nothing.
type finding struct {
	verdict acceptance.Verdict
	reason  string
	cause   diagnosis.Code
	warning diagnosis.Code // "" if none
}

// Run reads each port twice, Watch apart, and judges:
//
//   - no link: proves nothing, inconclusive; with DeviceAttached a fail.
//   - less than lan.speed_min_mbps on a port that can do it, or that must by
//     the contract: fail – unless the other end has announced that it cannot do
//     more, then inconclusive.
//   - less on a port that can do no more, with a contract up to 100: pass, with
//     a warning that four of the wires are not proven.
//   - half duplex, or receive errors that grew meanwhile: fail.
//   - speed unknown, the link lost or come meanwhile: inconclusive.
//
// With several ports the worst finding is the rung's: fail, then inconclusive.
func (s *LANCabling) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{Limits: []acceptance.Limit{s.o.Thresholds.Limit(acceptance.LANSpeedMinMbps)}}
	ports := s.o.Ports
	if s.o.Ordered != "" {
		ports = []string{s.o.Ordered}
	}
	if s.o.Reader == nil || len(ports) == 0 {
		decide(&out, acceptance.Inconclusive, "no LAN port to read", diagnosis.LANUnreadable)
		return out
	}

	before, errBefore := s.readAll(ctx, ports, note)
	if err := pause(ctx, s.o.Watch); err != nil {
		stopped(ctx, &out)
		return out
	}
	after, errAfter := s.readAll(ctx, ports, note)
	if ctx.Err() != nil {
		stopped(ctx, &out)
		return out
	}

	worst := finding{verdict: acceptance.Pass}
	linked := 0
	var unlinked finding
	for i, name := range ports {
		if err := errors.Join(errBefore[i], errAfter[i]); err != nil {
			put(&out, missing("lan_speed_mbps", collectors.StatusError, "interface:"+name, err.Error()))
			worst = worse(worst, finding{verdict: acceptance.Inconclusive, reason: err.Error(), cause: diagnosis.LANUnreadable})
			continue
		}
		s.measurements(&out, name, before[i], after[i])
		f := s.judge(name, before[i], after[i])
		if f.cause == diagnosis.LANNoLink && s.o.Ordered == "" {
			unlinked = f // one of several that nothing need be plugged into
			continue
		}
		linked++
		worst = worse(worst, f)
		if f.warning != "" {
			warn(&out, f.warning)
		}
	}
	if linked == 0 && worst.verdict == acceptance.Pass {
		worst = unlinked
	}
	if worst.verdict == acceptance.Pass {
		decide(&out, acceptance.Pass, "")
	} else {
		decide(&out, worst.verdict, worst.reason, worst.cause)
	}
	return out
}

func (s *LANCabling) readAll(ctx context.Context, ports []string, note func(string)) ([]LANPort, []error) {
	states, errs := make([]LANPort, len(ports)), make([]error, len(ports))
	for i, name := range ports {
		if states[i], errs[i] = s.o.Reader.ReadLANPort(ctx, name); errs[i] != nil {
			errs[i] = fmt.Errorf("cannot read LAN port %s: %w", name, errs[i])
			note(errs[i].Error())
			continue
		}
		note(fmt.Sprintf("%s: %+v", name, states[i]))
	}
	return states, errs
}

func (s *LANCabling) judge(name string, before, after LANPort) finding {
	give := func(v acceptance.Verdict, cause diagnosis.Code, format string, args ...any) finding {
		return finding{verdict: v, cause: cause, reason: name + ": " + fmt.Sprintf(format, args...)}
	}
	speedMin := s.o.Thresholds.Limit(acceptance.LANSpeedMinMbps)
	fast := speedMin.Holds(float64(after.SpeedMbps))
	mustBeFast := speedMin.Holds(float64(after.MaxMbps)) || s.o.ContractMbps > 100
	peerSlow := after.PeerMaxMbps > 0 && !speedMin.Holds(float64(after.PeerMaxMbps))

	switch {
	case !before.CarrierKnown || !after.CarrierKnown:
		return give(acceptance.Inconclusive, diagnosis.LANUnreadable, "nothing tells whether there is a link")
	case before.Carrier != after.Carrier, before.CarrierChanges != after.CarrierChanges:
		return give(acceptance.Inconclusive, diagnosis.LANUnsteady, "the link came or went while it was watched")
	case !after.Carrier && s.o.DeviceAttached:
		return give(acceptance.Fail, diagnosis.LANNoLink, "no link, although a device is attached")
	case !after.Carrier:
		return give(acceptance.Inconclusive, diagnosis.LANNoLink, "no link: a cable with nothing at its end proves nothing")
	case after.Duplex == "half":
		return give(acceptance.Fail, diagnosis.LANHalfDuplex, "half duplex")
	case before.CRCKnown && after.CRCKnown && after.CRCErrors > before.CRCErrors:
		return give(acceptance.Fail, diagnosis.LANCRCErrors, "%d receive errors in %v", after.CRCErrors-before.CRCErrors, s.o.Watch)
	case after.SpeedMbps <= 0:
		return give(acceptance.Inconclusive, diagnosis.LANUnreadable, "the speed is not known")
	case before.SpeedMbps != after.SpeedMbps:
		return give(acceptance.Inconclusive, diagnosis.LANUnsteady, "the speed changed while it was watched")
	case fast:
		return finding{verdict: acceptance.Pass}
	case peerSlow:
		return give(acceptance.Inconclusive, diagnosis.LANPeerSlow, "%d Mbit/s, but the other end can do no more", after.SpeedMbps)
	case mustBeFast:
		return give(acceptance.Fail, diagnosis.LANPortSlow, "%d Mbit/s is not %s %g", after.SpeedMbps, speedMin.Op, speedMin.Value)
	case after.MaxMbps <= 0:
		return give(acceptance.Inconclusive, diagnosis.LANUnreadable, "%d Mbit/s, and nothing tells what the port can do", after.SpeedMbps)
	case after.SpeedMbps < after.MaxMbps:
		return give(acceptance.Fail, diagnosis.LANPortSlow, "%d Mbit/s on a port that can do %d", after.SpeedMbps, after.MaxMbps)
	case after.Duplex == "":
		return give(acceptance.Inconclusive, diagnosis.LANUnreadable, "the duplex mode is not known")
	}
	return finding{verdict: acceptance.Pass, warning: diagnosis.LANWiresUnproven}
}

// worse returns the graver finding; of equals the first.
func worse(a, b finding) finding {
	rank := func(v acceptance.Verdict) int {
		switch v {
		case acceptance.Fail:
			return 2
		case acceptance.Inconclusive:
			return 1
		case acceptance.Pass, acceptance.Skipped:
		}
		return 0
	}
	if rank(b.verdict) > rank(a.verdict) {
		return b
	}
	return a
}

func (s *LANCabling) measurements(out *acceptance.Outcome, name string, before, after LANPort) {
	source := after.Source
	if source == "" {
		source = "interface:" + name
	}
	add := func(m acceptance.Measurement) { put(out, m) }
	if after.CarrierKnown {
		add(value("lan_carrier", after.Carrier, source, name))
	} else {
		add(missing("lan_carrier", collectors.StatusUnsupported, source, name))
	}
	number := func(metric string, v int) {
		if v > 0 {
			add(value(metric, v, source, name))
		} else {
			add(missing(metric, collectors.StatusUnsupported, source, name))
		}
	}
	number("lan_speed_mbps", after.SpeedMbps)
	number("lan_port_max_mbps", after.MaxMbps)
	if after.PeerMaxMbps > 0 {
		number("lan_peer_max_mbps", after.PeerMaxMbps)
	}
	if after.Duplex != "" {
		add(value("lan_duplex", after.Duplex, source, name))
	} else {
		add(missing("lan_duplex", collectors.StatusUnsupported, source, name))
	}
	switch {
	case !before.CRCKnown || !after.CRCKnown:
		add(missing("lan_crc_errors", collectors.StatusUnsupported, source, name))
	case after.CRCErrors < before.CRCErrors:
		add(missing("lan_crc_errors", collectors.StatusUntrusted, source, name+": the counter was reset"))
	default:
		add(value("lan_crc_errors", after.CRCErrors-before.CRCErrors, source, fmt.Sprintf("%s: in %v, of %d in all", name, s.o.Watch, after.CRCErrors)))
	}
}
