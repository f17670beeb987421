package main

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"ontagent/agent"
	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/order"
	"ontagent/agent/platform/linux"
	"ontagent/config"
)

// accountOptions are what the rung of the account compares.
func (s *sources) accountOptions(c config.Config, v agent.Visit, dial *steps.Dial) steps.AccountOptions {
	svc, _ := service(v.Order, "internet")
	o := steps.AccountOptions{
		Line: s.accountLine, Port: c.WAN.Device, Dial: dial, Thresholds: v.Limits,
		Contract: steps.Contract{Access: svc.Access, Account: svc.Account, VLAN: svc.VLAN, DownMbps: svc.DownMbps, UpMbps: svc.UpMbps},
	}
	if e := v.Extract; e != nil {
		o.Extract = &steps.Extract{
			Taken: e.Taken, Account: e.Account, State: string(e.State), DownMbps: e.DownMbps, UpMbps: e.UpMbps, Template: e.Template,
			Pools: e.Pools, DNS: e.DNS, MTU: e.MTU, VLAN: e.VLAN, MaxSessions: e.MaxSessions,
			Session: (*steps.ExtractSession)(e.Session),
		}
	}
	return o
}

// accountLine reads what the line has given the gateway.
func (s *sources) accountLine(ctx context.Context) (steps.AccountLine, error) {
	line, err := wanAdapter{s}.ReadWAN(ctx)
	if err != nil {
		return steps.AccountLine{}, err
	}
	out := steps.AccountLine{WAN: line}
	if facts, err := s.wan.Read(ctx); err == nil {
		out.Delegated, out.DNS, out.MTU = facts.DelegatedPrefixes, facts.Resolvers, facts.MTU
	}
	out.Sessions, out.SessionsErr = pppoeSessions(ctx)
	links, _ := s.links.Links(ctx) // without them the MAC is not compared
	for _, l := range links {
		out.MACs = append(out.MACs, l.MAC)
	}
	return out, nil
}

// pppoeSessions are those that the gateway itself has.
func pppoeSessions(context.Context) ([]steps.Session, error) {
	sessions, err := linux.PPPoESessions("/")
	var own []steps.Session
	for _, s := range sessions {
		own = append(own, steps.Session(s))
	}
	return own, err
}

// must reports whether a rung decides: by the order, or by its type.
func must(o order.Order, rung acceptance.Rung) bool {
	if len(o.Require) > 0 {
		return slices.Contains(o.Require, string(rung))
	}
	var kinds []string
	for _, s := range o.Services {
		kinds = append(kinds, s.Kind)
	}
	return slices.Contains(acceptance.DefaultRequire(string(o.Type), kinds), rung)
}

// refusalBook remembers failed authentications of orders, while the daemon runs.
type refusalBook struct {
	mu    sync.Mutex
	books map[string]*steps.Refusals
}

// maxRefusalOrders is more orders than a gateway sees between two starts; who
// has more starts anew.
const maxRefusalOrders = 256

func (b *refusalBook) of(order string) *steps.Refusals {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.books[order]
	if r == nil {
		if len(b.books) == 0 || len(b.books) == maxRefusalOrders {
			b.books = map[string]*steps.Refusals{}
		}
		r = &steps.Refusals{}
		b.books[order] = r
	}
	return r
}

// firstPrefixes keeps a list to what a record can carry.
func firstPrefixes(all []netip.Prefix) []netip.Prefix { return all[:min(len(all), 16)] }
