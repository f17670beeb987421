package main

import (
	"context"
	"fmt"
	"net/netip"

	"ontagent/agent/platform/linux"
)

// lineState is whether the gateway is online by itself, so that asking to be let
// in once more could do harm.
type lineState struct {
	up  bool
	why string
	v4  netip.Addr // an IPv4 address in use
}

// line reads the gateway's state: its PPPoE sessions, its WAN interface, and
// before it the other interfaces named. Where that can't be read, the gateway
// counts as online.
func (p *probing) line(ctx context.Context, names ...string) lineState {
	var s lineState
	say := func(why string) {
		if !s.up {
			s.up, s.why = true, why
		}
	}
	sessions, failure := linux.PPPoESessions("/")
	if len(sessions) > 0 {
		say("a session is up with " + sessions[0].Peer + " on " + sessions[0].Device)
	}
	for _, name := range append(names, p.conf.WAN.Interface) {
		w, err := wanAdapter{p.sources(name)}.ReadWAN(ctx)
		if err != nil {
			failure = err
		}
		for _, prefix := range w.Addresses {
			a := prefix.Addr().Unmap()
			if a.IsLinkLocalUnicast() || a.IsLoopback() {
				continue
			}
			say(w.Interface + " has " + a.String())
			if a.Is4() && !s.v4.IsValid() {
				s.v4 = a
			}
		}
	}
	if failure != nil {
		say("the gateway's state is not known: " + failure.Error())
	}
	return s
}

// vlanDevice is the usual name of the device of a VLAN.
func vlanDevice(name string, vlan uint16) string {
	if vlan == 0 {
		return name
	}
	return fmt.Sprintf("%s.%d", name, vlan)
}

func (p *probing) warn(text string) {
	fmt.Fprintln(p.err, "ontagent: warning: --force, although", text)
}
