package steps

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/ping"
	"ontagent/collectors"
)

// Pinger pings one address; ping.Ping's contract holds for its errors.
type Pinger interface {
	Ping(ctx context.Context, target netip.Addr, o ping.Options) (ping.Result, error)
}

// PingFunc makes a Pinger of a function such as ping.Ping.
type PingFunc func(ctx context.Context, target netip.Addr, o ping.Options) (ping.Result, error)

// Ping implements Pinger.
func (f PingFunc) Ping(ctx context.Context, target netip.Addr, o ping.Options) (ping.Result, error) {
	return f(ctx, target, o)
}

// ReachabilityOptions configure the reachability rung.
type ReachabilityOptions struct {
	WAN        WANReader    // for the gateways; may be nil
	Targets    []netip.Addr // beyond the gateway, of the operator's choice
	Pinger     Pinger       // ping.Ping if nil
	Thresholds acceptance.Thresholds
	// Ping is the first run to each address: 20 requests, 100 ms apart, if
	// zero. Loss in it is confirmed by a second run of Confirm: 80 if zero.
	Ping, Confirm ping.Options
	Path          PathOptions
	Deadline      time.Duration // 60 s if zero
}

// Reachability judges loss and latency to addresses beyond the WAN.
type Reachability struct{ o ReachabilityOptions }

var _ acceptance.Step = (*Reachability)(nil)

// NewReachability returns the reachability rung.
func NewReachability(o ReachabilityOptions) *Reachability {
	o.Thresholds = orNorms(o.Thresholds)
	if o.Pinger == nil {
		o.Pinger = PingFunc(ping.Ping)
	}
	if o.Ping.Count == 0 {
		o.Ping = ping.Options{Count: 20, Interval: 100 * time.Millisecond, Wait: time.Second}
	}
	if o.Confirm.Count == 0 {
		o.Confirm = ping.Options{Count: 80, Interval: 100 * time.Millisecond, Wait: time.Second}
	}
	o.Deadline = orDefault(o.Deadline, time.Minute)
	return &Reachability{o: o}
}

// Rung implements acceptance.Step.
func (*Reachability) Rung() acceptance.Rung { return acceptance.Reachability }

// Needs implements acceptance.Step.
func (*Reachability) Needs() []acceptance.Rung { return []acceptance.Rung{acceptance.Addressing} }

// Deadline implements acceptance.Step.
func (s *Reachability) Deadline() time.Duration { return s.o.Deadline }

// Estimate implements acceptance.Estimator.
func (s *Reachability) Estimate() time.Duration {
	return time.Duration(len(s.o.Targets)+1) * (s.o.Ping.Duration() - 500*time.Millisecond)
}

// hop is what pinging one address showed.
type hop struct {
	addr    netip.Addr
	gateway bool
	sent    int
	got     int
	rtt     float64 // median of the first run with replies, ms
	err     error   // could not be measured
}

func (h hop) measured() bool { return h.err == nil && h.sent > 0 }
func (h hop) answers() bool  { return h.measured() && h.got > 0 }
func (h hop) loss() float64  { return float64(h.sent-h.got) / float64(h.sent) }

// Run pings the targets and the gateway, and judges the best target: if one
// address far away is reached without loss, the line is good, and what is wrong
// with another is not the line's. Loss in a first short run is confirmed by a
// longer one, and both are counted together.
//
// If no target answers, but the gateway does: fail. If nothing answers: fail if
// there were targets; a gateway alone may be told not to answer, which proves
// nothing: inconclusive. A silent gateway with targets that answer is no fault.
func (s *Reachability) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{}
	var hops []hop
	for _, addr := range s.gateways(ctx, note) {
		hops = append(hops, hop{addr: addr, gateway: true})
	}
	for _, addr := range s.o.Targets {
		hops = append(hops, hop{addr: addr})
	}
	for i := range hops {
		s.measure(ctx, &hops[i], &out, note)
	}
	if ctx.Err() != nil {
		stopped(ctx, &out)
		return out
	}
	s.verdict(&out, hops)
	best, answers := bestHop(hops, len(s.o.Targets) > 0)
	if s.path(ctx, &out, best, answers, note); ctx.Err() != nil {
		stopped(ctx, &out)
	}
	return out
}

// bestHop returns the address that shows the line at its best: of the targets,
// or of all if there are no targets.
func bestHop(hops []hop, targets bool) (best hop, ok bool) {
	for _, h := range hops {
		if h.answers() && (!targets || !h.gateway) && (!ok || better(h, best)) {
			best, ok = h, true
		}
	}
	return best, ok
}

func (s *Reachability) gateways(ctx context.Context, note func(string)) []netip.Addr {
	if s.o.WAN == nil {
		return nil
	}
	wan, err := s.o.WAN.ReadWAN(ctx)
	if err != nil {
		note(fmt.Sprintf("cannot read the gateways: %v", err))
		return nil
	}
	const most = 2 // one of each family
	return wan.Gateways[:min(len(wan.Gateways), most)]
}

func (s *Reachability) measure(ctx context.Context, h *hop, out *acceptance.Outcome, note func(string)) {
	name := "target"
	if h.gateway {
		name = "gateway"
	}
	for _, o := range []ping.Options{s.o.Ping, s.o.Confirm} {
		res, err := s.o.Pinger.Ping(ctx, h.addr, o)
		if ctx.Err() != nil {
			h.err = ctx.Err()
			return
		}
		if unreachable(err) && res.Sent == 0 {
			// The kernel has no way there: as if nothing had come back.
			note(fmt.Sprintf("%s %s: %v", name, h.addr, err))
			res = ping.Result{Target: h.addr, Refused: o.Count, LossRatio: 1}
			err = nil
		}
		s.measurements(out, name, h.addr, res, err)
		if err != nil {
			note(fmt.Sprintf("%s %s: %v", name, h.addr, err))
			if h.sent == 0 {
				h.err = err
			}
			return
		}
		if h.got == 0 {
			h.rtt = res.P50Ms
		}
		h.sent += res.Sent + res.Refused
		h.got += res.Received
		if h.got == 0 || h.got == h.sent {
			return // nothing to confirm
		}
	}
}

// unreachable reports whether the error of a ping is the kernel's word that
// there is no way to the target.
func unreachable(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
}

// goneRatio is the loss above which a gateway that has answered no longer does:
// the line broke off while it was asked.
const goneRatio = 0.5

func (s *Reachability) verdict(out *acceptance.Outcome, hops []hop) {
	lossMax, rttMax := s.o.Thresholds.Limit(acceptance.ReachLossMaxRatio), s.o.Thresholds.Limit(acceptance.ReachRTTMaxMs)
	out.Limits = []acceptance.Limit{lossMax, rttMax}

	best, answered := bestHop(hops, len(s.o.Targets) > 0)
	var failed error
	targets, measured, gatewayAnswers, gatewaySilent := 0, 0, false, false
	for i := range hops {
		h := &hops[i]
		if !h.measured() {
			failed = h.err
			continue
		}
		if h.gateway {
			gatewayAnswers = gatewayAnswers || h.answers() && h.loss() <= goneRatio
			gatewaySilent = gatewaySilent || !h.answers()
			continue
		}
		targets++
		measured++
	}
	switch {
	case answered:
		s.judge(out, best, lossMax, rttMax)
		if len(s.o.Targets) > 0 {
			for _, h := range hops {
				switch {
				case !h.measured(), h.answers():
				case h.gateway:
					warn(out, diagnosis.ReachGatewaySilent)
				default:
					warn(out, diagnosis.ReachTargetSilent)
				}
			}
		}
	case targets > 0 && measured == len(s.o.Targets) && gatewayAnswers:
		decide(out, acceptance.Fail, "the gateway answers, nothing beyond it does", diagnosis.ReachTargetSilent)
	case targets > 0 && measured == len(s.o.Targets):
		decide(out, acceptance.Fail, "nothing answers", diagnosis.ReachNoReply)
	case failed != nil:
		decide(out, acceptance.Inconclusive, fmt.Sprintf("cannot ping: %v", failed), diagnosis.AgentCannotMeasure)
	case gatewaySilent:
		decide(out, acceptance.Inconclusive, "the gateway does not answer, which it need not, and there is no other target", diagnosis.ReachGatewaySilent)
	default:
		decide(out, acceptance.Inconclusive, "nothing to ping: no gateway and no target", diagnosis.AgentCannotMeasure)
	}
}

// better says which of two addresses that answer shows the line at its best.
func better(a, b hop) bool {
	if a.loss() < b.loss() || a.loss() > b.loss() {
		return a.loss() < b.loss()
	}
	return a.rtt < b.rtt
}

func (s *Reachability) judge(out *acceptance.Outcome, h hop, lossMax, rttMax acceptance.Limit) {
	measured(out, "loss_ratio", h.loss(), "ping:"+h.addr.String(), fmt.Sprintf("of %d, the best address", h.sent))
	measured(out, "rtt_ms", h.rtt, "ping:"+h.addr.String(), "median, the best address")
	var causes []diagnosis.Code
	reason := ""
	if !lossMax.Holds(h.loss()) {
		causes = append(causes, diagnosis.ReachLoss)
		reason = fmt.Sprintf("%.1f %% of %d lost to %s", 100*h.loss(), h.sent, h.addr)
	}
	if !rttMax.Holds(h.rtt) {
		causes = append(causes, diagnosis.ReachLatency)
		if reason != "" {
			reason += ", "
		}
		reason += fmt.Sprintf("%.1f ms to %s", h.rtt, h.addr)
	}
	if len(causes) > 0 {
		decide(out, acceptance.Fail, reason, causes...)
		return
	}
	decide(out, acceptance.Pass, "")
}

func (s *Reachability) measurements(out *acceptance.Outcome, name string, addr netip.Addr, r ping.Result, err error) {
	source := "ping:" + addr.String()
	if err != nil {
		put(out, missing(name+"_loss_ratio", collectors.StatusError, source, err.Error()))
		return
	}
	m := value(name+"_loss_ratio", r.LossRatio, source, fmt.Sprintf("%d sent, %d refused, %d received", r.Sent, r.Refused, r.Received))
	m.Raw = raw(r)
	put(out, m)
	if r.Received > 0 {
		measured(out, name+"_rtt_p50_ms", r.P50Ms, source, "")
		measured(out, name+"_rtt_p95_ms", r.P95Ms, source, "")
		measured(out, name+"_jitter_ms", r.JitterMs, source, "mean difference of neighbouring round-trip times")
	}
}

// raw lists the round-trip times in ms, with "-" for what was lost.
func raw(r ping.Result) string {
	b := make([]byte, 0, 6*len(r.Replies))
	next := 0
	for _, reply := range r.Replies {
		for ; next < reply.Seq; next++ {
			b = append(b, "- "...)
		}
		b = fmt.Appendf(b, "%.1f ", reply.RTTMs)
		next = reply.Seq + 1
	}
	for ; next < r.Sent; next++ {
		b = append(b, "- "...)
	}
	return string(b[:max(0, len(b)-1)])
}
