package steps_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/ping"
	"ontagent/agent/probe/tcp"
)

// routedCase is a gateway that routes, on a line that answers.
type routedCase struct {
	o      steps.RoutedOptions
	routed steps.Routed
	err    error
	// answers says what comes back to a source; the zero address is the WAN's.
	answers map[netip.Addr]tcp.Outcome
	tryErr  error
	pings   int
	tried   []tcp.Options
	// untracked: even after connections none is tracked.
	untracked bool
}

func routing() *routedCase {
	on := true
	return &routedCase{
		o: steps.RoutedOptions{
			Access:  steps.AccessPPPoE,
			Servers: []tcp.Options{{Host: "check.example.net", Port: 80, Resolve: bothFamilies}, {Host: "192.0.2.80", Port: 443}},
			Targets: addrs("192.0.2.1"),
		},
		routed: steps.Routed{
			LAN: "br-lan", Named: true, Addresses: prefixes("192.168.1.1/24", "fd00::1/64"),
			ForwardV4: &on, ForwardV6: &on, Flows: 3, Source: "platform",
		},
		answers: map[netip.Addr]tcp.Outcome{netip.MustParseAddr("192.168.1.1"): tcp.Open, {}: tcp.Open},
		pings:   5,
	}
}

func bothFamilies(context.Context, string) ([]netip.Addr, error) {
	return addrs("192.0.2.80", "2001:db8::80"), nil
}

func (c *routedCase) climb(t *testing.T) acceptance.Result {
	t.Helper()
	c.o.Reader = func(context.Context) (steps.Routed, error) {
		r := c.routed
		if len(c.tried) > 0 {
			r.Untracked = c.untracked
		}
		return r, c.err
	}
	c.o.Reach = func(ctx context.Context, o tcp.Options) (tcp.Result, error) {
		c.tried = append(c.tried, o)
		if c.tryErr != nil {
			return tcp.Result{}, c.tryErr
		}
		if o.Resolve != nil {
			all, err := o.Resolve(ctx, o.Host)
			if err != nil || len(all) != 1 || o.Source.IsValid() && all[0].Is4() != o.Source.Is4() {
				t.Errorf("%v from %s, %v", all, o.Source, err)
			}
		}
		outcome, ok := c.answers[o.Source]
		if !ok {
			outcome = tcp.NoAnswer
		}
		return tcp.Result{Attempt: tcp.Attempt{Outcome: outcome}}, nil
	}
	c.o.Pinger = steps.PingFunc(func(context.Context, netip.Addr, ping.Options) (ping.Result, error) {
		return ping.Result{Sent: 5, Received: c.pings}, nil
	})
	return run(t, steps.NewRoutedInternet(c.o))
}

func TestRoutedInternet(t *testing.T) {
	off := false
	lan := netip.MustParseAddr("192.168.1.1")
	silentLAN := func(c *routedCase) { delete(c.answers, lan) }
	silent := func(c *routedCase) { c.answers = nil }
	public := func(c *routedCase) { c.routed.Addresses = prefixes("192.168.1.1/24", "198.51.100.1/29") }
	for _, tt := range []struct {
		name     string
		spoil    func(*routedCase)
		verdict  acceptance.Verdict
		causes   []code
		warnings []code
	}{
		{"routes", func(*routedCase) {}, pass, nil, nil},
		{"an answer that refuses is one", func(c *routedCase) { c.answers[lan] = tcp.Refused }, pass, nil, nil},
		{"so is one that says nothing more", func(c *routedCase) { c.answers[lan] = tcp.Mute }, pass, nil, nil},
		{"a public block, routed", func(c *routedCase) {
			public(c)
			c.answers[netip.MustParseAddr("198.51.100.1")] = tcp.Open
			silentLAN(c)
		}, pass, nil, nil},
		{"a public block, not routed here", public, fail, []code{diagnosis.RoutedInternetDown}, nil},
		{"forwarding off", func(c *routedCase) { c.routed.ForwardV4 = &off }, fail, []code{diagnosis.RoutedForwardingOff}, nil},
		{"forwarding not readable", func(c *routedCase) { c.routed.ForwardV4 = nil }, unclear, []code{diagnosis.AgentCannotMeasure}, nil},
		{"no LAN address", func(c *routedCase) { c.routed.Addresses = prefixes("fe80::1/64") }, fail, []code{diagnosis.RoutedNoLANAddress}, nil},
		{"no LAN address, LAN guessed", func(c *routedCase) { c.routed.Addresses, c.routed.Named = nil, false }, unclear, []code{diagnosis.AgentCannotMeasure}, nil},
		{"no translation, as nothing is tracked", func(c *routedCase) { silentLAN(c); c.routed.Flows, c.untracked = 0, true }, fail, []code{diagnosis.RoutedNoNAT}, nil},
		{"nothing is tracked, the table is not readable", func(c *routedCase) { silentLAN(c); c.routed.Flows, c.untracked = -1, true }, fail, []code{diagnosis.RoutedNoNAT}, nil},
		{"nothing was tracked before there was a connection", func(c *routedCase) { silentLAN(c); c.routed.Flows, c.routed.Untracked = 0, true }, unclear, []code{diagnosis.RoutedNoNAT}, nil},
		{"no translation, or a firewall", func(c *routedCase) { silentLAN(c); c.routed.Flows = 0 }, unclear, []code{diagnosis.RoutedNoNAT}, nil},
		{"no translation, conntrack not readable", func(c *routedCase) { silentLAN(c); c.routed.Flows = -1 }, unclear, []code{diagnosis.AgentCannotMeasure}, nil},
		{"no translation, but hosts were answered", silentLAN, unclear, []code{diagnosis.AgentCannotMeasure}, nil},
		{"nothing answers", func(c *routedCase) { silent(c); c.pings = 0 }, fail, []code{diagnosis.RoutedInternetDown}, nil},
		{"servers do not answer, pings come back", silent, unclear, []code{diagnosis.ReachTargetSilent}, nil},
		{"nothing answers, nothing to ping", func(c *routedCase) { silent(c); c.o.Targets = nil }, unclear, []code{diagnosis.ReachTargetSilent}, nil},
		{"no server is known", func(c *routedCase) { c.o.Servers = nil }, unclear, []code{diagnosis.AgentCannotMeasure}, nil},
		{"no server of this family", func(c *routedCase) { c.o.Servers = []tcp.Options{{Host: "2001:db8::80", Port: 80}} }, unclear, []code{diagnosis.AgentCannotMeasure}, nil},
		{"the name is not known", func(c *routedCase) {
			c.answers = map[netip.Addr]tcp.Outcome{lan: tcp.Unresolved, {}: tcp.Unresolved}
		}, unclear, []code{diagnosis.AgentCannotMeasure}, nil},
		{"nothing can be tried", func(c *routedCase) { c.tryErr = errBroken }, unclear, []code{diagnosis.AgentCannotMeasure}, nil},
		{"not readable", func(c *routedCase) { c.err = errBroken }, unclear, []code{diagnosis.AgentCannotMeasure}, nil},
		{"nothing read", func(c *routedCase) { c.routed = steps.Routed{} }, unclear, []code{diagnosis.AgentCannotMeasure}, nil},
		{"bridged", func(c *routedCase) { c.o.Access = steps.AccessBridge }, unclear, []code{diagnosis.AgentCannotMeasure}, nil},
		{"conntrack not readable", func(c *routedCase) { c.routed.Flows = -1 }, pass, nil, nil},
		{"IPv6 as well", func(c *routedCase) {
			c.routed.Addresses = prefixes("192.168.1.1/24", "2001:db8:f00::1/64")
			c.answers[netip.MustParseAddr("2001:db8:f00::1")] = tcp.Open
		}, pass, nil, nil},
		{"IPv6 forwarding off", func(c *routedCase) {
			c.routed.Addresses, c.routed.ForwardV6 = prefixes("192.168.1.1/24", "2001:db8:f00::1/64"), &off
		}, pass, nil, []code{diagnosis.RoutedForwardingOff}},
		{"the prefix is not routed here", func(c *routedCase) {
			c.routed.Addresses = prefixes("192.168.1.1/24", "2001:db8:f00::1/64")
		}, pass, nil, []code{diagnosis.RoutedInternetDown}},
		{"IPv6 alone", func(c *routedCase) {
			c.routed.Addresses = prefixes("2001:db8:f00::1/64")
			c.answers[netip.MustParseAddr("2001:db8:f00::1")] = tcp.Open
		}, pass, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := routing()
			tt.spoil(c)
			check(t, c.climb(t), tt.verdict, tt.causes, tt.warnings)
		})
	}
}

// TestRoutedInternetSendsFromTheLAN: what proves it is the source address.
func TestRoutedInternetSendsFromTheLAN(t *testing.T) {
	c := routing()
	res := c.climb(t)
	if len(c.tried) != 1 || c.tried[0].Source != netip.MustParseAddr("192.168.1.1") || c.tried[0].Interface != "" {
		t.Errorf("tried %+v", c.tried)
	}
	if m := measurement(t, res, "lan_probe"); m.Value != "open" || m.Note != "from 192.168.1.1" {
		t.Errorf("%+v", m)
	}
	if m := measurement(t, res, "lan_ipv4_scope"); m.Value != "private" {
		t.Errorf("%+v", m)
	}
	// Before the LAN is blamed, another server is asked.
	c = routing()
	delete(c.answers, netip.MustParseAddr("192.168.1.1"))
	c.climb(t)
	if i := slices.IndexFunc(c.tried, func(o tcp.Options) bool { return !o.Source.IsValid() }); i != 2 {
		t.Errorf("tried %+v", c.tried)
	}
}
