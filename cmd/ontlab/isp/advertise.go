package isp

import (
	"context"
	"fmt"
	"net/netip"

	"ontagent/cmd/ontlab/netbox"
)

// Advertiser is an IPv6 router that advertises itself, and gives out nothing.
type Advertiser struct{ process *netbox.Process }

// StartAdvertiser makes host the IPv6 router of an Ethernet: the prefixes of the
// interface's addresses are advertised, and, of dns, the resolvers of IPv6. name
// tells servers on one host apart.
func StartAdvertiser(ctx context.Context, host *netbox.Host, name, iface string, dns []netip.Addr) (*Advertiser, error) {
	process, err := startDnsmasq(ctx, host, name, dnsmasqConfig{iface: iface, advertise: true, dns: dns})
	if err != nil {
		return nil, fmt.Errorf("cannot start router advertisements of %s: %w", host.Name(), err)
	}
	return &Advertiser{process}, nil
}

// Stop ends it.
func (a *Advertiser) Stop() error { return a.process.Stop() }
