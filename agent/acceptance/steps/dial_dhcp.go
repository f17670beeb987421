package steps

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/dhcp"
	"ontagent/collectors"
)

const v6Families = dhcp.V6 | dhcp.Routers

// families are those that the service may need.
func (s *Dial) families() dhcp.Families {
	switch {
	case s.o.NeedV4 && !s.o.NeedV6:
		return dhcp.V4
	case s.o.NeedV6 && !s.o.NeedV4:
		return v6Families
	}
	return dhcp.V4 | v6Families
}

// dhcp asks, and keeps what was answered.
func (s *Dial) dhcp(ctx context.Context, out *acceptance.Outcome, o dhcp.Options, note func(string)) (dhcp.Result, error) {
	o.Interface, o.VLAN = s.o.Device, s.o.VLAN
	// Some servers have nothing but prefixes to give.
	o.PrefixDelegation = !o.Inform && o.Families&dhcp.V6 != 0
	r, err := s.o.DHCP(ctx, o)
	if err != nil {
		note(err.Error())
		put(out, missing("dhcp_outcome", collectors.StatusError, "dhcp:"+s.o.Device, err.Error()))
		return r, err
	}
	note(fmt.Sprintf("DHCP on %s, VLAN %d: %s", s.o.Device, s.o.VLAN, r.Outcome))
	s.dhcpMeasurements(out, r)
	return r, nil
}

// inform asks for options only, from the address that the gateway has: some
// access routers end a session whose client sends a DISCOVER. A server need not
// answer.
func (s *Dial) inform(ctx context.Context, out *acceptance.Outcome, l line, note func(string)) {
	o := dhcp.Options{Inform: true, Tries: 1, Address: l.v4, Families: dhcp.V4}
	if !l.v4.IsValid() {
		o.Families = v6Families
	}
	_, _ = s.dhcp(ctx, out, o, note)
}

// ask asks for an address and takes none.
func (s *Dial) ask(ctx context.Context, out *acceptance.Outcome, note func(string)) {
	r, err := s.dhcp(ctx, out, dhcp.Options{Families: s.families()}, note)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		decide(out, acceptance.Inconclusive, fmt.Sprintf("cannot ask for an address: %v", err), diagnosis.AgentCannotMeasure)
	default:
		s.judgeDHCP(ctx, out, r, note)
	}
}

// offered reports by which family a gateway could get on. DHCPv6 names no
// router: what it offers leads nowhere without an advertisement.
func offered(r dhcp.Result) (v4, v6 bool) {
	v4 = r.V4Outcome == dhcp.Offered
	address := r.V6Outcome == dhcp.Offered || r.V6Outcome == dhcp.NoPrefix
	router := r.RAOutcome == "" // nobody asked for one
	for _, ra := range r.Routers {
		if ra.LifetimeS > 0 {
			router = true
			address = address || slices.ContainsFunc(ra.Prefixes, func(p dhcp.RAPrefix) bool { return p.Autonomous && p.ValidS > 0 })
		}
	}
	return v4, address && router
}

func (s *Dial) judgeDHCP(ctx context.Context, out *acceptance.Outcome, r dhcp.Result, note func(string)) {
	const unused = "the network offers an address, the gateway itself has none"
	v4, v6 := offered(r)
	// The family whose silence is the fault, and what it came to.
	outcome := r.V4Outcome
	if s.families() == v6Families {
		outcome = r.V6Outcome
	}
	verdict, code := acceptance.Fail, diagnosis.DialNoDHCPOffer
	switch {
	case v4, v6 && !s.o.NeedV4 && s.o.NeedV6:
		s.follow(ctx, out, note, unused)
		return
	case v6:
		s.follow(ctx, out, note, unused+"; for IPv4 there is no offer", code)
		return
	case outcome == dhcp.Nak:
		if told := rejectCause(serverWords(r)); account(told) {
			code = told
		}
	case outcome == dhcp.NoAddresses:
		code = diagnosis.AccountPoolExhausted
	case outcome == dhcp.Silent || outcome == dhcp.Malformed:
		if r.Looped {
			code = diagnosis.DialLoop
		}
	default:
		verdict, code = acceptance.Inconclusive, diagnosis.AgentCannotMeasure
	}
	if verdict == acceptance.Fail && s.came(ctx, out, 0, note) {
		return
	}
	reason := fmt.Sprintf("no offer to %d requests: %s", r.Sent, outcome)
	if words := serverWords(r); words != "" {
		reason += fmt.Sprintf(" %q", words)
	}
	if len(r.OtherVLANs) > 0 {
		reason += fmt.Sprintf("; answers came on VLAN %v", r.OtherVLANs)
	}
	decide(out, verdict, reason, code)
}

// serverWords are what servers said beside their answers.
func serverWords(r dhcp.Result) string {
	var words []string
	for _, o := range r.V4 {
		words = append(words, o.Message)
	}
	for _, a := range r.V6 {
		for _, status := range a.Statuses {
			words = append(words, status.Text)
		}
	}
	return strings.TrimSpace(strings.Join(words, " "))
}

func (s *Dial) dhcpMeasurements(out *acceptance.Outcome, r dhcp.Result) {
	source := "dhcp:" + s.o.Device
	add := func(name string, v any, note string) {
		measured(out, name, v, source, note)
	}
	add("dhcp_outcome", string(r.Outcome), fmt.Sprintf("VLAN %d, %d requests; v4 %s, v6 %s, routers %s", r.VLAN, r.Sent, r.V4Outcome, r.V6Outcome, r.RAOutcome))
	var servers []string
	for _, o := range r.V4 {
		id := o.ServerID
		if !id.IsValid() {
			id = o.From
		}
		servers = append(servers, id.String()+" "+o.FromMAC)
		if o.Type == "offer" {
			add("offered_address", o.Address.String(), fmt.Sprintf("by %s, lease %d s, %.0f ms", id, o.LeaseS, o.LatencyMs))
		}
	}
	if len(servers) > 1 {
		warn(out, diagnosis.DialSeveralServers)
	}
	for _, a := range r.V6 {
		servers = append(servers, a.From.String()+" "+a.FromMAC)
		for _, lease := range a.Addresses {
			add("offered_address_v6", lease.Address.String(), "")
		}
		for _, p := range a.Prefixes {
			add("offered_prefix", p.Prefix.String(), "")
		}
	}
	for _, ra := range r.Routers {
		add("router_advertised", ra.From.String()+" "+ra.FromMAC, fmt.Sprintf("managed %t, lifetime %d s", ra.Managed, ra.LifetimeS))
	}
	add("dhcp_servers", strings.Join(servers, ", "), "")
	if words := serverWords(r); words != "" {
		put(out, saying("dhcp_message", words, source, ""))
	}
	if len(r.OtherVLANs) > 0 {
		add("answers_on_other_vlans", fmt.Sprint(r.OtherVLANs), "0 is untagged")
	}
	if r.Looped {
		add("looped", true, "our own frames came back")
	}
}
