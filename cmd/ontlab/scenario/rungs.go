package scenario

import (
	"slices"

	"ontagent/agent/acceptance"
)

// BuiltRungs are the rungs that this agent measures, in climbing order.
func BuiltRungs() []acceptance.Rung {
	return []acceptance.Rung{
		acceptance.Identity, acceptance.Optical, acceptance.Registration, acceptance.LANCabling, acceptance.Dial,
		acceptance.Addressing, acceptance.DNS, acceptance.Reachability, acceptance.Account, acceptance.Throughput,
		acceptance.IPTV, acceptance.Voice, acceptance.Management, acceptance.RoutedInternet, acceptance.Host,
	}
}

// DefaultRequire returns the rungs that decide if a file does not name any: of
// the built ones those that the services call for, in climbing order. identity,
// optical and registration always decide; the internet calls for dial and, where
// the gateway itself is the one that gets on, for addressing, dns and
// reachability; iptv, voice and management each for the rung of its name.
//
// lan_cabling, account, throughput, routed_internet and host never decide by
// default; throughput and routed_internet are measured only where they do, and
// account only where it does or an extract is given.
func DefaultRequire(services []Service) []acceptance.Rung {
	kind := func(k string) (Service, bool) { return Scenario{Services: services}.Service(k) }
	internet, online := kind(Internet)
	var require []acceptance.Rung
	for _, rung := range BuiltRungs() {
		must := false
		switch rung {
		case acceptance.Identity, acceptance.Optical, acceptance.Registration:
			must = true
		case acceptance.Dial:
			must = online
		case acceptance.Addressing, acceptance.DNS, acceptance.Reachability:
			must = online && internet.Access != Bridge
		case acceptance.IPTV, acceptance.Voice, acceptance.Management:
			_, must = kind(string(rung))
		default:
		}
		if must && !slices.Contains(require, rung) {
			require = append(require, rung)
		}
	}
	return require
}

// unreliable are the rungs that a lab says nothing about unless gateway.lan and
// gateway.load do: its LAN port is a virtual cable without wires, and the load of
// an emulated machine is no gateway's.
func unreliable() []acceptance.Rung { return []acceptance.Rung{acceptance.LANCabling, acceptance.Host} }
