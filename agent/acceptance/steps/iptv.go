package steps

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/multicast"
	"ontagent/collectors"
)

// IPTVOptions configure the iptv rung.
type IPTVOptions struct {
	Probe multicast.Options                                                        // without an Interface or a Group nothing can be tried
	Join  func(ctx context.Context, o multicast.Options) (multicast.Result, error) // multicast.Run if nil
	// Thresholds has the part of a stream that may be lost.
	Thresholds acceptance.Thresholds
}

// IPTV judges whether television comes: it joins a channel as a set-top box
// does, watches for some seconds, and leaves it, unless somebody in the house
// watches the same.
type IPTV struct{ o IPTVOptions }

var _ acceptance.Step = (*IPTV)(nil)

// NewIPTV returns the iptv rung.
func NewIPTV(o IPTVOptions) *IPTV {
	o.Thresholds = orNorms(o.Thresholds)
	if o.Join == nil {
		o.Join = multicast.Run
	}
	return &IPTV{o: o}
}

// Rung implements acceptance.Step.
func (*IPTV) Rung() acceptance.Rung { return acceptance.IPTV }

// Needs implements acceptance.Step.
func (*IPTV) Needs() []acceptance.Rung { return []acceptance.Rung{acceptance.Registration} }

// Deadline implements acceptance.Step.
func (s *IPTV) Deadline() time.Duration { return s.o.Probe.Duration() + slack }

// Estimate implements acceptance.Estimator.
func (*IPTV) Estimate() time.Duration { return 4 * time.Second }

// Run joins, watches and leaves.
func (s *IPTV) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{}
	switch {
	case s.o.Probe.Interface == "":
		decide(&out, acceptance.Inconclusive, "no port is configured to join on", diagnosis.AgentCannotMeasure)
		return out
	case !s.o.Probe.Group.IsValid():
		decide(&out, acceptance.Inconclusive, "no channel is configured to join", diagnosis.AgentCannotMeasure)
		return out
	}
	r, err := s.o.Join(ctx, s.o.Probe)
	switch {
	case ctx.Err() != nil:
		stopped(ctx, &out)
	case err != nil:
		note(err.Error())
		put(&out, missing("iptv_outcome", collectors.StatusError, s.source(), err.Error()))
		decide(&out, acceptance.Inconclusive, fmt.Sprintf("cannot join: %v", err), diagnosis.AgentCannotMeasure)
	default:
		note(fmt.Sprintf("%s on %s, VLAN %d: %s, %d packets", r.Group, r.Interface, r.VLAN, r.Outcome, r.Packets))
		s.measurements(&out, r)
		s.judge(&out, r)
	}
	return out
}

func (s *IPTV) source() string { return "multicast:" + s.o.Probe.Interface }

func (s *IPTV) judge(out *acceptance.Outcome, r multicast.Result) {
	limit := s.o.Thresholds.Limit(acceptance.IPTVLossMaxRatio)
	switch r.Outcome {
	case multicast.NoStream:
		decide(out, acceptance.Fail, "the network asks for members, the stream does not come", diagnosis.IPTVNoStream)
	case multicast.NoQuerier:
		if r.Leave != multicast.LeaveNothing {
			// Queries are minutes apart. That nobody asks proves something only
			// after a leave, at which a querier asks at once.
			decide(out, acceptance.Fail, "the stream does not come", diagnosis.IPTVNoStream)
			break
		}
		decide(out, acceptance.Fail, "the stream does not come, and nobody on the VLAN asks for members", diagnosis.IPTVVLAN, diagnosis.IPTVNoStream)
	case multicast.Intermittent:
		decide(out, acceptance.Fail, fmt.Sprintf("the stream stopped %d times, %.0f ms at the longest", r.Stalls, r.LongestGapMs), diagnosis.IPTVStreamBroken)
	case multicast.Streaming:
		out.Limits = []acceptance.Limit{limit}
		switch {
		case r.LossRatio == nil && r.Dropped > 0:
			decide(out, acceptance.Inconclusive, "the stream comes faster than this gateway counts it", diagnosis.AgentCannotMeasure)
		case r.LossRatio == nil || limit.Holds(*r.LossRatio):
			// A stream that numbers nothing is judged by its flow alone.
			decide(out, acceptance.Pass, "")
		default:
			decide(out, acceptance.Fail, fmt.Sprintf("%.2f %% of the stream is lost", 100**r.LossRatio), diagnosis.IPTVStreamBroken)
		}
	default:
		decide(out, acceptance.Inconclusive, fmt.Sprintf("the probe ended as %q", r.Outcome), diagnosis.AgentCannotMeasure)
	}
}

func (s *IPTV) measurements(out *acceptance.Outcome, r multicast.Result) {
	add := func(name string, v any, note string) {
		measured(out, name, v, s.source(), note)
	}
	add("iptv_outcome", string(r.Outcome), fmt.Sprintf("%s, VLAN %d, %s %s, leave %s", r.Group, r.VLAN, r.Mode, r.Protocol, r.Leave))
	add("iptv_rate_mbps", r.RateMbps, fmt.Sprintf("%d packets in %.1f s, gap of %.0f ms at most", r.Packets, r.ListenedS, r.LongestGapMs))
	if r.JoinMs != nil {
		add("iptv_join_ms", *r.JoinMs, "from the join to the first packet")
	}
	if r.AlreadyFlowing {
		add("iptv_already_flowing", true, "somebody behind this port watches it: nothing was joined")
	}
	if r.LossRatio != nil {
		add("iptv_loss_ratio", *r.LossRatio, "")
	} else if r.Packets > 0 {
		put(out, missing("iptv_loss_ratio", collectors.StatusUnsupported, s.source(), fmt.Sprintf("neither RTP nor MPEG-TS, or %d dropped here", r.Dropped)))
	}
	if r.ForeignPackets > 0 {
		add("iptv_foreign_packets", r.ForeignPackets, fmt.Sprintf("of %d groups that nobody here asked for", len(r.Foreign)))
	}
	var queriers []string
	for _, q := range r.Queriers {
		queriers = append(queriers, q.Address.String()+" "+q.Protocol)
	}
	add("multicast_queriers", strings.Join(queriers, ", "), "")
}
