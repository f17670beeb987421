package play

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"ontagent/cmd/ontlab/isp"
	"ontagent/cmd/ontlab/netbox"
)

// rules replaces a table of a host's firewall by chains; without any it goes.
// To add one that is there does nothing, so it can be deleted always.
func rules(ctx context.Context, host *netbox.Host, table, chains string) error {
	text := fmt.Sprintf("add table %[1]s\ndelete table %[1]s\n", table)
	if chains != "" {
		text += fmt.Sprintf("table %s {\n%s}\n", table, chains)
	}
	file := strings.ReplaceAll(table, " ", "-") + ".nft"
	if err := host.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	_, err := host.Run(ctx, "nft", "-f", file)
	return err
}

// applyPath makes what lies behind the BRAS what the settings say.
func (l *Lab) applyPath(ctx context.Context, fault string) error {
	p, on := l.latest(fault)
	host, chains := l.bras, ""
	switch {
	case fault == "target_silent":
		var silent []int
		for _, p := range l.all(fault) {
			if p.Target > l.sc.Network.Targets {
				return errNotHere(fmt.Sprint("target ", p.Target))
			}
			for i := range l.sc.Network.Targets {
				if p.Target == 0 || p.Target == i+1 {
					silent = append(silent, coreTargets+i)
				}
			}
		}
		host = l.core
		if len(silent) > 0 {
			v4, v6 := sets(silent...)
			chains = fmt.Sprintf("chain targets {\ntype filter hook input priority 0;\nip daddr %s drop\nip6 daddr %s drop\n}\n", v4, v6)
		}
	case !on:
	case fault == "mtu_black_hole":
		// Before packets are put together again, or told to be too long.
		chains = fmt.Sprintf("chain down {\ntype filter hook prerouting priority -450;\niifname %[1]q meta length > %[2]d drop\n}\n"+
			"chain up {\ntype filter hook postrouting priority 300;\noifname %[1]q meta length > %[2]d drop\n}\n", corePort, p.MTU)
	case fault == "internet_down":
		chains = "chain beyond {\ntype filter hook forward priority 0;\n"
		var resolvers []int
		for i := range l.sc.Network.DNS.Resolvers {
			resolvers = append(resolvers, coreDNS+i)
		}
		if len(resolvers) > 0 {
			v4, v6 := sets(resolvers...)
			chains += fmt.Sprintf("ip saddr %[1]s accept\nip daddr %[1]s accept\nip6 saddr %[2]s accept\nip6 daddr %[2]s accept\n", v4, v6)
		}
		chains += "drop\n}\n"
	case fault == "gateway_silent":
		chains = "chain pings {\ntype filter hook input priority 0;\nicmp type echo-request drop\nicmpv6 type echo-request drop\n}\n"
	}
	return rules(ctx, host, "inet "+fault, chains)
}

// sets are addresses of core as sets of nft's, of both families.
func sets(numbers ...int) (v4, v6 string) {
	var four, six []string
	for _, n := range numbers {
		at := core(n)
		four, six = append(four, at[0].String()), append(six, at[1].String())
	}
	return "{ " + strings.Join(four, ", ") + " }", "{ " + strings.Join(six, ", ") + " }"
}

// applyWeb makes web servers, and the way to them, what the settings say.
func (l *Lab) applyWeb(ctx context.Context) error {
	p, walled := l.latest("walled_garden")
	down := l.on("http_down")
	if down != l.webDown {
		do := l.web.Healthy
		if down {
			do = func(context.Context) error { return l.web.Down() }
		}
		if err := do(ctx); err != nil {
			return err
		}
		l.webDown = down
	}
	portal := core(corePortal)
	at := onPort80(portal)
	var problems []error
	if walled {
		if err := l.startPortal(ctx, at, p.Location); err != nil {
			return err
		}
		if down {
			problems = append(problems, l.portal.Down())
		}
	}
	chains := ""
	if walled {
		v4, v6 := sets(corePortal)
		chains = fmt.Sprintf("chain customers {\ntype filter hook forward priority 0;\nmeta l4proto { icmp, ipv6-icmp } accept\n"+
			"meta l4proto { tcp, udp } th dport 53 accept\nmeta l4proto { tcp, udp } th sport 53 accept\n"+
			"ip daddr %[1]s tcp dport 80 accept\nip saddr %[1]s tcp sport 80 accept\n"+
			"ip6 daddr %[2]s tcp dport 80 accept\nip6 saddr %[2]s tcp sport 80 accept\ndrop\n}\n", v4, v6)
	}
	problems = append(problems, rules(ctx, l.bras, "inet walled_garden", chains))
	for _, a := range at {
		problems = append(problems, isp.Intercept(ctx, l.bras, walled, a))
	}
	if !walled && l.portal != nil {
		problems = append(problems, l.portal.Stop())
		l.portal = nil
	}
	return errors.Join(problems...)
}

// startPortal lets the portal send everybody to a location.
func (l *Lab) startPortal(ctx context.Context, at []netip.AddrPort, location string) error {
	if l.portal == nil {
		// A host of its own: the web server's files are on core.
		portal, err := isp.StartHTTP(ctx, l.core, isp.HTTPOptions{Listen: at, Name: "portal", SpeedFiles: map[string]int64{}})
		if err != nil {
			return err
		}
		l.portal = portal
	}
	return l.portal.WalledGarden(ctx, location)
}
