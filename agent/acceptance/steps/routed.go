package steps

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/ping"
	"ontagent/agent/probe/tcp"
	"ontagent/collectors"
)

// Routed is what a gateway forwards with.
type Routed struct {
	// LAN is the interface that hosts are behind, or names it was guessed from;
	// Named says that the configuration names it.
	LAN   string
	Named bool
	// Addresses of the LAN, without link-local ones.
	Addresses []netip.Prefix
	// ForwardV4 says whether packets from the LAN are forwarded, and from the
	// WAN; ForwardV6 whether any are. nil: not known.
	ForwardV4, ForwardV6 *bool
	// Flows counts connections of hosts on the LAN with the world that were
	// answered; -1: not known.
	Flows int
	// Untracked says that the kernel tracks not one connection: who translates
	// addresses tracks them all.
	Untracked bool
	Source    string // never empty: without it nothing was read
}

// RoutedOptions configure the rung of the routed internet.
type RoutedOptions struct {
	Access string                                    // as ordered; "": not known
	Reader func(ctx context.Context) (Routed, error) // nil: nothing to read
	// Servers are tried one after the other until one gives a sign of life: to
	// be let down by one of them is no fault of the line's.
	Servers []tcp.Options
	Reach   func(ctx context.Context, o tcp.Options) (tcp.Result, error) // tcp.Run if nil
	// Targets are pinged where no server answers.
	Targets  []netip.Addr
	Pinger   Pinger        // ping.Ping if nil
	Deadline time.Duration // 45 s if zero
}

// RoutedInternet judges whether a device behind the gateway gets on through it
// (路由上网), which business lines order.
//
// It sends from the gateway's address on the LAN, which nobody answers unless
// the address is translated, or routed here by the operator. That packets are
// forwarded is read from the kernel; rules of a firewall that forbid it are not
// seen, but for connections of hosts that were tracked.
type RoutedInternet struct{ o RoutedOptions }

var _ acceptance.Step = (*RoutedInternet)(nil)

// NewRoutedInternet returns the rung of the routed internet.
func NewRoutedInternet(o RoutedOptions) *RoutedInternet {
	if o.Reach == nil {
		o.Reach = tcp.Run
	}
	if o.Pinger == nil {
		o.Pinger = PingFunc(ping.Ping)
	}
	o.Deadline = orDefault(o.Deadline, 45*time.Second)
	return &RoutedInternet{o: o}
}

// Rung implements acceptance.Step.
func (*RoutedInternet) Rung() acceptance.Rung { return acceptance.RoutedInternet }

// Needs implements acceptance.Step.
func (*RoutedInternet) Needs() []acceptance.Rung { return []acceptance.Rung{acceptance.Addressing} }

// Deadline implements acceptance.Step.
func (s *RoutedInternet) Deadline() time.Duration { return s.o.Deadline }

// Estimate implements acceptance.Estimator.
func (*RoutedInternet) Estimate() time.Duration { return 500 * time.Millisecond }

// Run reads what is forwarded, and tries the servers from the LAN's address.
//
//   - Not forwarded, or no address on the LAN that the configuration names:
//     fail.
//   - A server answers the LAN's address: pass.
//   - It answers the WAN's address only: fail if the kernel translates no
//     address at all, or if a public one is not routed here.
//   - Nothing answers, not even pings: fail.
//   - All else is inconclusive.
//
// IPv4 decides where the LAN has both; what is wrong with IPv6 is a warning.
func (s *RoutedInternet) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{}
	switch {
	case s.o.Access == AccessBridge:
		decide(&out, acceptance.Inconclusive, "the gateway bridges this line: it routes nothing", diagnosis.AgentCannotMeasure)
		return out
	case s.o.Reader == nil:
		decide(&out, acceptance.Inconclusive, "nothing tells what is forwarded", diagnosis.AgentCannotMeasure)
		return out
	}
	r, err := s.o.Reader(ctx)
	if err == nil && r.Source == "" {
		err = errNothingRead
	}
	if err != nil {
		note(err.Error())
		put(&out, missing("lan_addresses", collectors.StatusError, "platform", err.Error()))
		decide(&out, acceptance.Inconclusive, fmt.Sprintf("cannot read the LAN: %v", err), diagnosis.AgentCannotMeasure)
		return out
	}
	s.measurements(&out, r)
	v4, v6 := lanAddress(r.Addresses, true), lanAddress(r.Addresses, false)
	switch {
	case !v4.IsValid() && !v6.IsValid() && r.Named:
		decide(&out, acceptance.Fail, r.LAN+" has no address for hosts to send to", diagnosis.RoutedNoLANAddress)
		return out
	case !v4.IsValid() && !v6.IsValid():
		decide(&out, acceptance.Inconclusive, "no LAN interface is configured, and none with an address was found", diagnosis.AgentCannotMeasure)
		return out
	}
	first, forward := v4, r.ForwardV4
	if !v4.IsValid() {
		first, forward = v6, r.ForwardV6
	}
	s.family(ctx, &out, first, forward, r.Flows, note)
	if v4.IsValid() && v6.IsValid() && ctx.Err() == nil {
		second := acceptance.Outcome{}
		s.family(ctx, &second, v6, r.ForwardV6, 0, note)
		out.Measurements = append(out.Measurements, second.Measurements...)
		if second.Verdict == acceptance.Fail {
			note("IPv6: " + second.Reason)
			for _, code := range second.Causes {
				warn(&out, diagnosis.Code(code))
			}
		}
	}
	if ctx.Err() != nil {
		stopped(ctx, &out)
	}
	return out
}

// lanAddress is the address of a family that the LAN sends from: a public one
// rather than a private one. Unique local IPv6 addresses lead nowhere.
func lanAddress(all []netip.Prefix, v4 bool) (found netip.Addr) {
	for _, p := range all {
		a := p.Addr().Unmap()
		switch {
		case !a.IsGlobalUnicast(), a.Is4() != v4, !v4 && a.IsPrivate():
		case !found.IsValid(), internal(found) && !internal(a):
			found = a
		}
	}
	return found
}

// internal reports whether an address needs translation on its way out.
func internal(a netip.Addr) bool { return a.Is4() && (a.IsPrivate() || shared(a)) }

// family judges one family. flows are connections that were answered for hosts
// behind the gateway.
func (s *RoutedInternet) family(ctx context.Context, out *acceptance.Outcome, source netip.Addr, forward *bool, flows int, note func(string)) {
	if forward != nil && !*forward {
		decide(out, acceptance.Fail, "forwarding is switched off in the gateway", diagnosis.RoutedForwardingOff)
		return
	}
	tried, lan := s.try(ctx, out, "lan_probe", source, source.Is4(), note)
	switch {
	case ctx.Err() != nil:
		return
	case !tried:
		decide(out, acceptance.Inconclusive, "no server to try from the LAN", diagnosis.AgentCannotMeasure)
		return
	case lan && forward == nil:
		decide(out, acceptance.Inconclusive, "the LAN's address is answered; whether packets are forwarded cannot be read", diagnosis.AgentCannotMeasure)
		return
	case lan:
		decide(out, acceptance.Pass, "")
		return
	}
	_, wan := s.try(ctx, out, "wan_probe", netip.Addr{}, source.Is4(), note)
	switch {
	case ctx.Err() != nil:
	case wan && internal(source):
		s.unanswered(ctx, out, fmt.Sprintf(onlyWAN, source), flows)
	case wan:
		decide(out, acceptance.Fail, fmt.Sprintf(onlyWAN, source)+": the operator does not route it here", diagnosis.RoutedInternetDown)
	case s.silent(ctx, out, source.Is4(), note):
		decide(out, acceptance.Fail, "nothing answers, neither the LAN nor the gateway itself", diagnosis.RoutedInternetDown)
	default:
		decide(out, acceptance.Inconclusive, "no server answers, neither the LAN nor the gateway itself", diagnosis.ReachTargetSilent)
	}
}

const onlyWAN = "servers answer the gateway, but not %s on its LAN"

// unanswered judges a private address that nobody answers, where the WAN's was
// answered a moment ago. A firewall may drop what the gateway itself sends from
// it, or translate only what comes in by the LAN; but if not even the WAN's
// connection is tracked, none is translated.
func (s *RoutedInternet) unanswered(ctx context.Context, out *acceptance.Outcome, reason string, flows int) {
	r, err := s.o.Reader(ctx)
	switch {
	case flows > 0:
		decide(out, acceptance.Inconclusive, reason+"; yet hosts behind it were answered", diagnosis.AgentCannotMeasure)
	case err == nil && r.Untracked:
		decide(out, acceptance.Fail, reason+": no address is translated, as no connection is tracked", diagnosis.RoutedNoNAT)
	case flows < 0:
		decide(out, acceptance.Inconclusive, reason+"; whether it is translated cannot be read", diagnosis.AgentCannotMeasure)
	default:
		decide(out, acceptance.Inconclusive, reason+": it is not translated, or a firewall is in the way", diagnosis.RoutedNoNAT)
	}
}

// try asks the servers for a sign of life, from an address; the zero one is
// that of the WAN.
func (s *RoutedInternet) try(ctx context.Context, out *acceptance.Outcome, name string, source netip.Addr, v4 bool, note func(string)) (tried, answered bool) {
	for _, server := range s.o.Servers {
		server.Source = source
		if a, err := netip.ParseAddr(server.Host); err == nil && a.Unmap().Is4() != v4 {
			continue
		}
		if resolve := server.Resolve; resolve != nil {
			server.Resolve = func(ctx context.Context, name string) ([]netip.Addr, error) {
				all, err := resolve(ctx, name)
				var own []netip.Addr
				for _, a := range all {
					if a.Unmap().Is4() == v4 {
						own = append(own, a)
					}
				}
				return own, err
			}
		}
		r, err := s.o.Reach(ctx, server)
		label := fmt.Sprintf("tcp:%s:%d", server.Host, server.Port)
		from := "from the WAN"
		if source.IsValid() {
			from = "from " + source.String()
		}
		switch {
		case ctx.Err() != nil:
			return tried, false
		case err != nil:
			note(err.Error())
			put(out, missing(name, collectors.StatusError, label, err.Error()))
			continue
		case r.Outcome == tcp.Unresolved:
			put(out, missing(name, collectors.StatusUnsupported, label, from+": "+r.Reason))
			continue
		}
		tried = true
		note(fmt.Sprintf("%s %s: %s", label, from, r.Outcome))
		measured(out, name, string(r.Outcome), label, from)
		switch r.Outcome {
		case tcp.NoAnswer, tcp.Unreachable:
		default: // whatever it says, it came back
			return true, true
		}
	}
	return tried, false
}

// silent reports whether pings were sent and none was answered.
func (s *RoutedInternet) silent(ctx context.Context, out *acceptance.Outcome, v4 bool, note func(string)) bool {
	sent := false
	for _, target := range s.o.Targets {
		if target.Unmap().Is4() != v4 {
			continue
		}
		r, err := s.o.Pinger.Ping(ctx, target, ping.Options{Count: 5, Interval: 100 * time.Millisecond, Wait: time.Second})
		if err != nil {
			note(err.Error())
			continue
		}
		measured(out, "ping_replies", r.Received, "ping:"+target.String(), fmt.Sprintf("of %d", r.Sent))
		if r.Received > 0 {
			return false
		}
		sent = sent || r.Sent > 0
	}
	return sent
}

func (s *RoutedInternet) measurements(out *acceptance.Outcome, r Routed) {
	measured(out, "lan_addresses", joined(r.Addresses), r.Source, r.LAN)
	scope := "none"
	switch v4 := lanAddress(r.Addresses, true); {
	case v4.IsValid() && internal(v4):
		scope = "private"
	case v4.IsValid():
		scope = "public"
	}
	measured(out, "lan_ipv4_scope", scope, r.Source, r.LAN)
	state := func(name string, on *bool) {
		if on == nil {
			put(out, missing(name, collectors.StatusUnsupported, r.Source, ""))
			return
		}
		measured(out, name, *on, r.Source, "")
	}
	state("forwarding_v4", r.ForwardV4)
	state("forwarding_v6", r.ForwardV6)
	if r.Flows < 0 {
		put(out, missing("lan_flows_answered", collectors.StatusUnsupported, "conntrack", "not readable: rules of the firewall between LAN and WAN are not proven"))
		return
	}
	measured(out, "lan_flows_answered", r.Flows, "conntrack", "connections of hosts behind the gateway; none proves nothing")
}
