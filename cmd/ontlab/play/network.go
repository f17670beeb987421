package play

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"ontagent/cmd/ontlab/isp"
	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/scenario"
)

// Interfaces of the gateway.
const (
	wanPort  = "wan0"
	homePort = "lan1"
	pcPort   = "lan2" // bridged to the internet service, where that is ordered
	stbPort  = "lan3" // bridged to iptv
	pppName  = "pppoe-wan"
	corePort = "core0" // of the BRAS, to the internet
)

// Addresses of the lab.
const (
	gatewayLAN = "192.168.1.1"
	homeLAN    = "192.168.1.2"
	brasCore   = "10.64.0.1"
	brasCore6  = "2001:db8:64::1"
	iptvAddr   = "10.65.0.1"
	voiceAddr  = "10.66.0.1"
	mgmtAddr   = "10.67.0.1"
)

// core returns the nth address of core's network, in both families.
func core(n int) [2]netip.Addr {
	v6 := netip.MustParseAddr("2001:db8:64::").As16()
	v6[15] = byte(n)
	return [2]netip.Addr{netip.AddrFrom4([4]byte{10, 64, 0, byte(n)}), netip.AddrFrom16(v6)}
}

// What is where on core, by the last byte of the address.
const (
	coreBroker  = 18
	coreDNS     = 53 // and the next
	corePortal  = 88
	coreWeb     = 80
	coreTargets = 9 // and the next ones
	coreNTP     = 123
)

// cableMTU lets through what a line's own MTU does not forbid: a PPPoE session
// of 1500 bytes in two tags, and more.
const cableMTU = 1600

// quickQuerier makes a bridge ask soon, so that a visit of seconds sees it ask.
func quickQuerier() isp.QuerierOptions {
	return isp.QuerierOptions{Interval: 3 * time.Second, Startup: time.Second, Response: time.Second, LastMember: 500 * time.Millisecond}
}

// bridgeOf is the name of olt's bridge for a VLAN.
func bridgeOf(vlan uint16) string { return fmt.Sprintf("br%d", vlan) }

// uplinkOf is the name of olt's end of the cable to a service's host.
func uplinkOf(kind string) string {
	switch kind {
	case scenario.Internet:
		return "up-inet"
	case scenario.Management:
		return "up-mgmt"
	}
	return "up-" + kind
}

// buildNetwork makes hosts and cables. Nothing runs on them yet.
func (l *Lab) buildNetwork(ctx context.Context) error {
	var problems []error
	host := func(name string) *netbox.Host {
		h, err := l.box.Host(name)
		problems = append(problems, err)
		return h
	}
	l.gateway, l.home, l.ont, l.olt = host("gateway"), host("home"), host("ont"), host("olt")
	l.bras, l.core = host("bras"), host("core")
	l.hosts = map[string]*netbox.Host{scenario.Internet: l.bras}
	for kind, name := range map[string]string{scenario.IPTV: "iptv", scenario.Voice: "voice", scenario.Management: "mgmt"} {
		if _, ordered := l.sc.Service(kind); ordered {
			l.hosts[kind] = host(name)
		}
	}
	if inet, ok := l.sc.Service(scenario.Internet); ok && inet.Access == scenario.Bridge || l.sc.Gateway.Internet.Access == scenario.Bridge {
		l.pc = host("pc")
	}
	if _, ok := l.sc.Service(scenario.IPTV); ok {
		l.stb = host("stb")
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return errors.Join(l.layHome(), l.layLine(ctx), l.layServices(), l.layCore(), l.laySpeed())
}

// cable lays a cable of the lab's usual MTU.
func (l *Lab) cable(a *netbox.Host, aName string, z *netbox.Host, zName, macA string) error {
	return l.box.Cable(a, aName, z, zName, netbox.CableOptions{MTU: cableMTU, MACA: macA})
}

func (l *Lab) layHome() error {
	if err := l.layLAN(); err != nil {
		return err
	}
	return errors.Join(
		l.gateway.Address(homePort, gatewayLAN+"/24"),
		l.home.Address("eth0", homeLAN+"/24"),
		l.home.Route("default", gatewayLAN),
		l.gateway.Forward(l.sc.Gateway.Forwarding),
	)
}

// layLine connects gateway and olt, and shapes what goes between them.
func (l *Lab) layLine(ctx context.Context) error {
	return errors.Join(
		l.cable(l.gateway, wanPort, l.ont, "eth0", l.sc.Gateway.MAC),
		l.cable(l.ont, "pon0", l.olt, "pon0", ""),
		l.ont.Bridge("br0", netbox.BridgeOptions{}, "eth0", "pon0"),
		l.setLine(ctx, l.sc.Network.Line),
	)
}

// setLine makes the line between gateway and olt what it is to be.
func (l *Lab) setLine(ctx context.Context, line scenario.Line) error {
	ms := func(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }
	one := netbox.Impairment{
		Delay: ms(line.DelayMS), Jitter: ms(line.JitterMS), LossRatio: line.LossRatio,
		DuplicateRatio: line.DuplicateRatio, ReorderRatio: line.ReorderRatio, QueueMs: line.QueueMS,
	}
	down, up := one, one
	down.RateMbps, up.RateMbps = line.DownMbps, line.UpMbps
	// Interfaces, and the bridges between them, let four bytes more pass than
	// their MTU, for a tag that there may not be.
	var long strings.Builder
	for _, port := range []string{"eth0", "pon0"} {
		fmt.Fprintf(&long, "chain %[1]s {\ntype filter hook ingress device %[1]q priority 0;\nmeta length > %[2]d drop\n}\n", port, line.MTU)
	}
	return errors.Join(
		l.olt.Impair("pon0", down), l.ont.Impair("pon0", up),
		rules(ctx, l.ont, "netdev line", long.String()),
	)
}

// layServices gives each service its VLAN on the line and its host behind it.
func (l *Lab) layServices() error {
	for kind, host := range l.hosts {
		if err := l.cable(l.olt, uplinkOf(kind), host, "access0", ""); err != nil {
			return err
		}
		if err := l.serve(kind, l.sc.Network.VLANs[kind]); err != nil {
			return err
		}
	}
	return nil
}

// serve puts a service's host into a VLAN of the line, out of any other.
func (l *Lab) serve(kind string, vlan uint16) error {
	port := "pon0"
	if vlan != 0 {
		port = fmt.Sprintf("pon0.%d", vlan)
		if !l.served[vlan] {
			if err := l.olt.VLAN("pon0", vlan, port); err != nil {
				return err
			}
		}
	}
	if old, moves := l.vlans[kind]; moves && kind == scenario.IPTV && old != vlan {
		if err := isp.StopQuerier(l.olt, bridgeOf(old)); err != nil {
			return err
		}
	}
	l.served[vlan], l.vlans[kind] = true, vlan
	// Without a querier yet: it asks in a version from its start on.
	bridging := netbox.BridgeOptions{Snooping: kind == scenario.IPTV}
	if err := l.olt.Bridge(bridgeOf(vlan), bridging, port, uplinkOf(kind)); err != nil {
		return err
	}
	if l.rogueIn[kind] {
		if err := l.join(rogueUplink(kind), kind); err != nil {
			return err
		}
	}
	if kind == scenario.IPTV {
		return l.ask(vlan)
	}
	return nil
}

// speedAt is where the speed-test server is that has a host of its own.
func speedAt() [2]netip.Addr {
	return [2]netip.Addr{netip.MustParseAddr("10.68.0.80"), netip.MustParseAddr("2001:db8:68::80")}
}

// laySpeed connects bras and the host of a speed-test server that cannot send
// as fast as others, if there is one.
func (l *Lab) laySpeed() (err error) {
	mbps := l.sc.Network.Speed.UplinkMbps
	if mbps == 0 {
		return nil
	}
	if l.speed, err = l.box.Host("speed"); err != nil {
		return err
	}
	at := speedAt()
	return errors.Join(
		l.box.Cable(l.bras, "speed0", l.speed, "eth0", netbox.CableOptions{}),
		l.bras.Address("speed0", "10.68.0.1/24"), l.bras.Address("speed0", "2001:db8:68::1/64"),
		l.speed.Address("eth0", at[0].String()+"/24"), l.speed.Address("eth0", at[1].String()+"/64"),
		l.speed.Route("default", "10.68.0.1"), l.speed.Route("::/0", "2001:db8:68::1"),
		l.speed.Impair("eth0", netbox.Impairment{RateMbps: mbps}),
	)
}

// layCore connects bras and core, the internet of the lab.
func (l *Lab) layCore() error {
	problems := []error{
		l.box.Cable(l.bras, corePort, l.core, "eth0", netbox.CableOptions{}),
		l.bras.Address(corePort, brasCore+"/24"), l.bras.Address(corePort, brasCore6+"/64"),
		l.bras.Forward(true),
	}
	numbers := []int{coreTraffic, coreBroker, coreDNS, coreDNS + 1, coreWeb, corePortal, coreNTP}
	for i := range l.sc.Network.Targets {
		numbers = append(numbers, coreTargets+i)
	}
	for _, n := range numbers {
		at := core(n)
		problems = append(problems, l.core.Address("eth0", at[0].String()+"/24"), l.core.Address("eth0", at[1].String()+"/64"))
	}
	problems = append(problems, l.core.Route("default", brasCore), l.core.Route("::/0", brasCore6))
	return errors.Join(problems...)
}
