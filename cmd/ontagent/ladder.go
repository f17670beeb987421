package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/order"
	"ontagent/agent/probe/ping"
	"ontagent/collectors"
	"ontagent/collectors/link"
	"ontagent/collectors/pon"
	"ontagent/collectors/wan"
	"ontagent/config"
)

// ladder builds the rungs this agent can measure.
func (s *sources) ladder(c config.Config) func(order.Order, order.Secrets, acceptance.Thresholds) []acceptance.Step {
	return func(o order.Order, _ order.Secrets, limits acceptance.Thresholds) []acceptance.Step {
		var readers []steps.OpticsReader
		for _, r := range s.opticsReaders {
			readers = append(readers, r)
		}
		ports := []string{}
		if c.WAN.LANPort != "" {
			ports = append(ports, c.WAN.LANPort)
		}
		line := wanAdapter{s}
		// A visit has a minute, and the speed test takes half of it: these
		// windows are as long as they must be, not as long as they could be.
		const pause = 500 * time.Millisecond
		return []acceptance.Step{
			steps.NewIdentity(steps.IdentityOptions{Reader: inventory{s}, Ordered: steps.Resources(o.Resources)}),
			steps.NewOptical(steps.OpticalOptions{Readers: readers, Thresholds: limits, Pause: pause}),
			steps.NewRegistration(steps.RegistrationOptions{Reader: freshPON{s.pon}, Poll: pause}),
			steps.NewLANCabling(steps.LANCablingOptions{
				Reader: lanPorts{s}, Ordered: o.Resources.LANPort, Ports: ports,
				ContractMbps: contract(o), Thresholds: limits, Watch: 3 * time.Second,
			}),
			steps.NewAddressing(steps.AddressingOptions{Reader: line}),
			steps.NewDNS(steps.DNSOptions{Resolvers: resolvers{s, c.WAN.Resolvers}, Names: c.WAN.DNSNames, Thresholds: limits}),
			steps.NewReachability(steps.ReachabilityOptions{
				WAN: line, Targets: targets(c), Thresholds: limits,
				Ping: ping.Options{Count: 20, Interval: 50 * time.Millisecond, Wait: time.Second},
			}),
			steps.NewHost(steps.HostOptions{Reader: hostAdapter{s}, Thresholds: limits, Reads: 3, Pause: pause}),
		}
	}
}

// contract is the higher ordered rate, in Mbit/s.
func contract(o order.Order) (mbps float64) {
	for _, svc := range o.Services {
		mbps = max(mbps, svc.DownMbps, svc.UpMbps)
	}
	return mbps
}

// targets are the probe targets that are addresses; names would test DNS again.
func targets(c config.Config) []netip.Addr {
	var out []netip.Addr
	for _, t := range c.WAN.ProbeTargets {
		if a, err := netip.ParseAddr(t); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// freshPON makes a step read the registration as it is now, from whichever
// source knows it.
type freshPON struct{ c *pon.Collector }

func (f freshPON) Name() string { return f.c.Name() }

func (f freshPON) ReadPON(ctx context.Context) (pon.Status, error) { return f.c.Read(ctx) }

// inventory is what this gateway can say about itself.
type inventory struct{ s *sources }

func (i inventory) ReadInventory(ctx context.Context) (steps.Inventory, error) {
	var inv steps.Inventory
	st, ponErr := i.s.pon.Read(ctx)
	inv.SN, inv.SNSource = st.Serial, st.Source
	switch {
	case st.Serial != "":
		inv.SNStatus = collectors.StatusOK
	case errors.Is(ponErr, collectors.ErrNoData):
		inv.SNStatus, ponErr = collectors.StatusUnsupported, nil
	case ponErr != nil:
		inv.SNStatus = collectors.StatusError
	default:
		inv.SNStatus = collectors.StatusUnsupported
	}
	links, err := i.s.links.Links(ctx)
	inv.InterfacesErr = err
	for _, l := range links {
		inv.Interfaces = append(inv.Interfaces, steps.Interface{Name: l.Name, MAC: l.MAC})
	}
	return inv, ponErr
}

type lanPorts struct{ s *sources }

func (p lanPorts) ReadLANPort(ctx context.Context, name string) (steps.LANPort, error) {
	links, err := p.s.links.Links(ctx)
	if err != nil {
		return steps.LANPort{}, err
	}
	i := slices.IndexFunc(links, func(l link.Link) bool { return l.Name == name })
	if i < 0 {
		return steps.LANPort{}, fmt.Errorf("cannot read LAN port %s: there is no such interface", name)
	}
	l := links[i]
	return steps.LANPort{
		Carrier: l.Carrier, CarrierKnown: true, SpeedMbps: l.SpeedMegabits, Duplex: l.Duplex,
		MaxMbps: l.MaxMegabits, PeerMaxMbps: l.PeerMaxMegabits,
		CRCErrors: l.Counters.RxCRCErrors, CRCKnown: l.Counters.Bits != 0,
		CarrierChanges: uint64(l.CarrierChanges), Source: "netlink:" + name,
	}, nil
}

type hostAdapter struct{ s *sources }

func (h hostAdapter) ReadHost(ctx context.Context) (steps.HostLoad, error) {
	f, err := h.s.host.Read(ctx)
	return steps.HostLoad{CPUBusy: f.CPUBusy, MemoryUsed: f.MemUsed, Temperature: f.Temperature}, err
}

// resolvers are the configured ones, or those the system uses.
type resolvers struct {
	s          *sources
	configured []string
}

const dnsPort = 53

func (r resolvers) ReadResolvers(ctx context.Context) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, s := range r.configured {
		if ap, err := netip.ParseAddrPort(s); err == nil {
			out = append(out, ap)
		} else if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.AddrPortFrom(a, dnsPort))
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	facts, err := r.s.wan.Read(ctx)
	for _, a := range facts.Resolvers {
		out = append(out, netip.AddrPortFrom(a, dnsPort))
	}
	if len(out) > 0 {
		return out, nil // what else could not be read is not this rung's business
	}
	return nil, err
}

// wanAdapter shows the addresses that can be used.
type wanAdapter struct{ s *sources }

func (w wanAdapter) ReadWAN(ctx context.Context) (steps.WAN, error) {
	f, err := w.s.wan.Read(ctx)
	out := steps.WAN{Interface: f.Interface, Source: "netlink"}
	for _, a := range f.Addresses {
		if (!a.Tentative || a.Optimistic) && !a.DADFailed && !a.Deprecated {
			out.Addresses = append(out.Addresses, a.Prefix)
		}
	}
	for _, r := range []*wan.Route{f.DefaultV4, f.DefaultV6} {
		if r != nil && r.Interface == f.Interface && r.Gateway.IsValid() {
			out.Gateways = append(out.Gateways, r.Gateway)
		}
	}
	out.DefaultV4 = f.DefaultV4 != nil && f.DefaultV4.Interface == f.Interface
	out.DefaultV6 = f.DefaultV6 != nil && f.DefaultV6.Interface == f.Interface
	return out, err
}
