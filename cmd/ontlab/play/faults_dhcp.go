package play

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"ontagent/cmd/ontlab/isp"
	"ontagent/cmd/ontlab/scenario"
)

// dhcpState is what DHCP servers do wrong.
type dhcpState struct {
	silent, empty, noRouter bool
	late                    time.Duration
}

// applyDHCP makes the DHCP servers, those of all services, what the settings
// say.
func (l *Lab) applyDHCP(ctx context.Context) error {
	want := dhcpState{
		silent: l.on("dhcp_silent"), empty: l.on("dhcp_no_address"), noRouter: l.on("dhcp_no_router"),
		late: millis(l.sc.Network.DHCP.OfferDelayMS),
	}
	if p, on := l.latest("dhcp_slow"); on {
		want.late = millis(p.DelayMS)
	}
	if len(l.dhcp) == 0 && (want.empty || want.noRouter || l.on("dhcp_slow")) {
		return errNotHere("DHCP server")
	}
	var problems []error
	for _, server := range l.dhcp {
		// Each change but to the delay starts the server anew.
		is := l.dhcpNow[server]
		if is.silent != want.silent {
			problems = append(problems, server.Silence(ctx, want.silent))
		}
		if is.empty != want.empty {
			problems = append(problems, server.NoAddress(ctx, want.empty))
		}
		if is.noRouter != want.noRouter {
			problems = append(problems, server.NoRouter(ctx, want.noRouter))
		}
		if is.late != want.late {
			problems = append(problems, server.Delay(ctx, want.late))
		}
		l.dhcpNow[server] = want
	}
	return errors.Join(problems...)
}

// secondIsLate is how late a second server answers: a client that takes the
// first offer takes that of the operator.
const secondIsLate = 100 * time.Millisecond

// applySecondDHCP lets another server answer where the operator has one: with
// the internet service, or, if that has none, with the first service that has.
func (l *Lab) applySecondDHCP(ctx context.Context) error {
	if l.rogueDHCP != nil {
		if err := l.rogueDHCP.Stop(); err != nil { //nolint:contextcheck // an end is bounded by itself
			return err
		}
		l.rogueDHCP = nil
	}
	p, on := l.latest("second_dhcp")
	if !on {
		return nil
	}
	kind := ""
	for _, k := range []string{scenario.Internet, scenario.IPTV, scenario.Voice, scenario.Management} {
		if kind == "" && l.dhcp[k] != nil {
			kind = k
		}
	}
	if kind == "" {
		kind = scenario.Internet // it is the only one
	}
	address, err := netip.ParseAddr(p.Address)
	if err != nil || !address.Is4() {
		return fmt.Errorf("%q is no IPv4 address", p.Address)
	}
	if err := l.rogueJoins(kind); err != nil {
		return err
	}
	network := netip.PrefixFrom(address, 24).Masked()
	own := network.Addr().Next()
	if own == address {
		own = own.Next()
	}
	port := roguePort(kind)
	if _, err := l.rogue.Run(ctx, "ip", "-4", "address", "flush", "dev", port); err != nil {
		return err
	}
	if err := l.rogue.Address(port, netip.PrefixFrom(own, 24).String()); err != nil {
		return err
	}
	server, err := isp.StartDHCP(ctx, l.rogue, isp.DHCPOptions{
		Interface: port, First: address, Last: address, Router: own, DNS: []netip.Addr{own},
	})
	if err != nil {
		return err
	}
	l.rogueDHCP = server
	return server.Delay(ctx, secondIsLate)
}

// applyDHCP6 makes the server that delegates prefixes what the settings say.
func (l *Lab) applyDHCP6(ctx context.Context, fault string) error {
	server := l.dhcp6
	if l.brasd != nil {
		server = l.brasd.DHCP6()
	}
	switch {
	case server == nil && fault == "dhcp6_silent":
		return nil // there is none that could answer
	case server == nil:
		return errNotHere("DHCPv6 server")
	case fault == "no_prefix":
		return server.NoPrefix(ctx, l.on(fault))
	}
	return server.Silence(ctx, l.on(fault))
}
