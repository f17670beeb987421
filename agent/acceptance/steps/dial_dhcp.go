package steps

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/dhcp"
	"ontagent/collectors"
)

// ask asks for an address and takes none. While the gateway is online it asks
// for options only, by an INFORM from the address it has: some access routers
// end a session whose client sends a DISCOVER.
func (s *Dial) ask(ctx context.Context, out *acceptance.Outcome, online bool, note func(string)) {
	o := dhcp.Options{Interface: s.o.Device, VLAN: s.o.VLAN}
	if online {
		o.Inform, o.Address, o.Tries = true, s.wanV4(ctx), 1
		if !o.Address.IsValid() {
			decide(out, acceptance.Pass, "")
			return
		}
	}
	r, err := s.o.DHCP(ctx, o)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		note(err.Error())
		out.Measurements = append(out.Measurements, missing("dhcp_outcome", collectors.StatusError, "dhcp:"+s.o.Device, err.Error()))
	} else {
		s.dhcpMeasurements(out, r)
		note(fmt.Sprintf("DHCP on %s, VLAN %d: %s", s.o.Device, s.o.VLAN, r.Outcome))
	}
	switch {
	case online:
		// The address in use is the proof; a server need not answer an INFORM.
		decide(out, acceptance.Pass, "")
	case err != nil:
		decide(out, acceptance.Inconclusive, fmt.Sprintf("cannot ask for an address: %v", err), diagnosis.AgentCannotMeasure)
	default:
		s.judgeDHCP(ctx, out, r, note)
	}
}

func (s *Dial) wanV4(ctx context.Context) netip.Addr {
	if wan, err := s.o.WAN.ReadWAN(ctx); err == nil {
		for _, p := range wan.Addresses {
			if a := p.Addr().Unmap(); a.Is4() && !a.IsLinkLocalUnicast() {
				return a
			}
		}
	}
	return netip.Addr{}
}

func (s *Dial) judgeDHCP(ctx context.Context, out *acceptance.Outcome, r dhcp.Result, note func(string)) {
	switch r.Outcome {
	case dhcp.Offered, dhcp.Partial, dhcp.Informed, dhcp.NoPrefix:
		s.follow(ctx, out, note, "the network offers an address, the gateway itself has none")
	case dhcp.NoAddresses, dhcp.Nak:
		decide(out, acceptance.Fail, "the server has no address to give: "+serverWords(r), diagnosis.AccountPoolExhausted)
	case dhcp.Silent, dhcp.Malformed:
		code := diagnosis.DialNoDHCPOffer
		if r.Looped {
			code = diagnosis.DialLoop
		}
		decide(out, acceptance.Fail, fmt.Sprintf("no offer to %d requests (%s)", r.Sent, r.Outcome), code)
	default:
		decide(out, acceptance.Inconclusive, fmt.Sprintf("DHCP ended as %q", r.Outcome), diagnosis.AgentCannotMeasure)
	}
	if len(r.V4) > 1 {
		warn(out, diagnosis.DialSeveralServers)
	}
}

func serverWords(r dhcp.Result) string {
	var words []string
	for _, o := range r.V4 {
		words = append(words, fmt.Sprintf("%s %q", o.Type, o.Message))
	}
	return strings.Join(words, ", ")
}

func (s *Dial) dhcpMeasurements(out *acceptance.Outcome, r dhcp.Result) {
	source := "dhcp:" + s.o.Device
	add := func(name string, v any, note string) {
		out.Measurements = append(out.Measurements, value(name, v, source, note))
	}
	add("dhcp_outcome", string(r.Outcome), fmt.Sprintf("%d requests", r.Sent))
	var servers []string
	for _, o := range r.V4 {
		id := o.ServerID
		if !id.IsValid() {
			id = o.From
		}
		servers = append(servers, id.String()+" "+o.FromMAC)
	}
	add("dhcp_servers", strings.Join(servers, ", "), "")
	for _, o := range r.V4 {
		if o.Type == "offer" {
			add("offered_address", o.Address.String(), fmt.Sprintf("lease %d s, %v ms", o.LeaseS, o.LatencyMs))
		}
	}
	if len(r.OtherVLANs) > 0 {
		add("answers_on_other_vlans", fmt.Sprint(r.OtherVLANs), "0 is untagged")
	}
}
