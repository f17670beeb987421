package play

import (
	"context"
	"errors"
	"fmt"

	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/scenario"
)

// applyLine makes line and cables what the settings say.
func (l *Lab) applyLine(ctx context.Context, fault string) error {
	p, on := l.latest(fault)
	switch fault {
	case "vlan_wrong":
		return l.applyVLANs()
	case "line":
		if on {
			return l.setLine(ctx, p.Line())
		}
		return l.setLine(ctx, l.sc.Network.Line)
	case "line_loop":
		chain := ""
		if on {
			chain = "chain loop {\ntype filter hook ingress device \"eth0\" priority -10;\nfwd to eth0\n}\n"
		}
		return rules(ctx, l.ont, "netdev loop", chain)
	case "wan_unplugged":
		if on {
			return l.ont.Down("eth0")
		}
		return l.ont.Up("eth0")
	}
	return l.unplugLAN(ctx, on)
}

// unplugLAN takes the link from the gateway's LAN port, or gives it back.
func (l *Lab) unplugLAN(ctx context.Context, on bool) error {
	if on == l.lanUnplugged {
		return nil
	}
	if on {
		if err := errors.Join(l.wifi(ctx), l.plugLAN(false), l.home.Down("eth0")); err != nil {
			return errors.Join(err, l.home.Remove(wifiPort))
		}
	} else if err := errors.Join(l.home.Up("eth0"), l.plugLAN(true), l.home.Route("default", gatewayLAN), l.home.Remove(wifiPort)); err != nil {
		return err
	}
	l.lanUnplugged = on
	return nil
}

// applyVLANs puts each service where it is served now.
func (l *Lab) applyVLANs() error {
	want := map[string]uint16{}
	for kind := range l.hosts {
		want[kind] = l.sc.Network.VLANs[kind]
	}
	for _, p := range l.all("vlan_wrong") {
		if _, ordered := l.sc.Service(p.Service); !ordered {
			return errNotHere(p.Service + " service")
		}
		want[p.Service] = p.VLAN
	}
	var problems []error
	for kind, vlan := range want {
		if l.vlans[kind] != vlan {
			problems = append(problems, l.serve(kind, vlan))
		}
	}
	return errors.Join(problems...)
}

// join connects a port of olt to the VLAN in which a service is served now.
func (l *Lab) join(port, kind string) error {
	tv := kind == scenario.IPTV
	return l.olt.Bridge(bridgeOf(l.vlans[kind]), netbox.BridgeOptions{Snooping: tv, Querier: tv && !l.on("no_querier")}, port)
}

// Of the wireless LAN, which is there while the gateway's LAN port has no link:
// the technician has to work somehow.
const (
	wifiPort    = "wlan0"
	wifiGateway = "192.168.2.1"
	wifiHome    = "192.168.2.2"
)

// wifi connects home and gateway by another way, which is used for the LAN's
// addresses while the LAN port is down.
func (l *Lab) wifi(ctx context.Context) error {
	if err := l.cable(l.gateway, wifiPort, l.home, wifiPort, ""); err != nil {
		return err
	}
	if err := errors.Join(
		l.gateway.Address(wifiPort, wifiGateway+"/24"), l.home.Address(wifiPort, wifiHome+"/24"),
		l.gateway.Sysctl("net.ipv4.conf.all.ignore_routes_with_linkdown", "1"),
	); err != nil {
		return err
	}
	_, gatewayErr := l.gateway.Run(ctx, "ip", "route", "add", "192.168.1.0/24", "via", wifiHome, "metric", "600")
	_, homeErr := l.home.Run(ctx, "ip", "route", "add", "192.168.1.0/24", "via", wifiGateway, "metric", "600")
	if err := errors.Join(gatewayErr, homeErr); err != nil {
		return fmt.Errorf("cannot set routes of the wireless LAN: %w", err)
	}
	return nil
}
