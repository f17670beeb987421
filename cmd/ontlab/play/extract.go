package play

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"ontagent/agent/order"
	"ontagent/cmd/ontlab/scenario"
)

// writeExtract has the operator sign what its AAA says of the order's account.
// The gateway had its time to get on: the session is what it is now.
func (l *Lab) writeExtract(ctx context.Context) error {
	x := l.sc.Order.Extract
	if !x.Given {
		return nil
	}
	omit := func(part string) bool { return slices.Contains(x.Omit, part) }
	e := order.Extract{
		V: 1, Order: orderName, Device: l.sc.Gateway.Serial, Taken: time.Now().UTC().Add(-seconds(x.AgeS)),
		Template: x.Template, MaxSessions: uint32(x.MaxSessions),
	}
	if !omit(scenario.OmitAccount) {
		e.Account = order.MaskAccount(x.Account)
	}
	if !omit(scenario.OmitState) {
		e.State = order.AccountState(x.State)
	}
	if !omit(scenario.OmitRates) {
		e.DownMbps, e.UpMbps = x.DownMbps, x.UpMbps
	}
	if !omit(scenario.OmitPools) {
		for _, text := range x.Pools {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return fmt.Errorf("cannot read order.extract.pools: %w", err)
			}
			e.Pools = append(e.Pools, p)
		}
	}
	if !omit(scenario.OmitDNS) {
		e.DNS = l.resolvers()
		if x.DNS != nil {
			e.DNS = nil
		}
		for _, text := range x.DNS {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return fmt.Errorf("cannot read order.extract.dns: %w", err)
			}
			e.DNS = append(e.DNS, a)
		}
	}
	if !omit(scenario.OmitMTU) {
		e.MTU = uint32(x.MTU)
	}
	if !omit(scenario.OmitVLAN) {
		e.VLAN = x.VLAN
	}
	if !omit(scenario.OmitSession) {
		e.Session = l.accounted(ctx, x)
	}
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("cannot encode the extract: %w", err)
	}
	file := l.office.Path(orderName + ".extract.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return fmt.Errorf("cannot write the extract: %w", err)
	}
	return l.office.ctl(ctx, "extract", "sign", "--key", l.office.Path("operator.key"), "--out", l.extractPath(), file)
}

func (l *Lab) extractPath() string { return l.office.Path(orderName + ".extract") }

// accounted is the session that accounting is to show.
func (l *Lab) accounted(ctx context.Context, x scenario.Extract) *order.ExtractSession {
	address, mac := l.subscriberAddress(ctx), l.sc.Gateway.MAC
	online := address.IsValid()
	switch x.Session {
	case scenario.SessionOnline:
		online = true
	case scenario.SessionNone:
		online = false
	}
	if !online {
		return &order.ExtractSession{}
	}
	if x.Address != "" {
		address, _ = netip.ParseAddr(x.Address) // it was checked
	}
	if l.pc != nil && l.sc.Gateway.Internet.Access == scenario.Bridge {
		mac = ""
	}
	if x.MAC != "" {
		mac = x.MAC
	}
	return &order.ExtractSession{Online: true, Since: time.Now().UTC().Add(-time.Minute), V4: address, MAC: mac, NAS: l.sc.Network.BRAS.ACName}
}

// subscriberAddress is the IPv4 address of whoever gets on; invalid if nobody
// does.
func (l *Lab) subscriberAddress(ctx context.Context) netip.Addr {
	host, ifname := l.gateway, l.wanInterface()
	if l.sc.Gateway.Internet.Access == scenario.Bridge {
		host, ifname = l.pc, "eth0"
		if inet, _ := l.sc.Service(scenario.Internet); inet.Behind == scenario.PPPoE {
			ifname = "ppp0"
		}
	}
	if host == nil {
		return netip.Addr{}
	}
	out, err := host.Run(ctx, "ip", "-o", "-4", "addr", "show", "dev", ifname)
	if err != nil {
		return netip.Addr{} // there is no such interface yet
	}
	fields := strings.Fields(string(out))
	for i, word := range fields {
		if word != "inet" || i+1 == len(fields) {
			continue
		}
		own, _, _ := strings.Cut(fields[i+1], "/")
		if a, err := netip.ParseAddr(own); err == nil && !a.IsLinkLocalUnicast() {
			return a
		}
	}
	return netip.Addr{}
}
