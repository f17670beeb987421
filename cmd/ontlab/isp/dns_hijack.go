package isp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"ontagent/agent/command"
	"ontagent/cmd/ontlab/netbox"
)

// DNSHijack answers the queries that a host forwards, to whomever they are
// sent, with one address.
type DNSHijack struct {
	host       *netbox.Host
	responders []*dnsResponder
}

// dnsHijackTable is the table of the host's firewall that is ours.
const dnsHijackTable = "ontlab_dns"

// HijackDNS lets a host that forwards, such as the BRAS, answer every query to
// port 53, by UDP and TCP, that does not come in at the interface upstream:
// each name has the address to. at are addresses of the host, whose port 53 is
// free; queries of their families are caught. It needs what Intercept needs.
func HijackDNS(ctx context.Context, host *netbox.Host, upstream string, at []netip.Addr, to netip.Addr) (*DNSHijack, error) {
	h := &DNSHijack{host: host}
	var rules strings.Builder
	rules.WriteString(dnsHijackNothing)
	for _, addr := range at {
		port := net.JoinHostPort(addr.String(), "53")
		packet, err := host.ListenPacket(ctx, "udp", port)
		if err != nil {
			return nil, errors.Join(err, h.Stop(ctx))
		}
		stream, err := host.Listen(ctx, "tcp", port)
		if err != nil {
			return nil, errors.Join(err, packet.Close(), h.Stop(ctx))
		}
		h.responders = append(h.responders, newDNSResponder(packet, stream, dnsEvery(to, time.Minute)))
		family := "ip"
		if addr.Is6() {
			family = "ip6"
		}
		fmt.Fprintf(&rules, `table %s %s {
	chain queries {
		type nat hook prerouting priority dstnat;
		iifname != %q meta l4proto { tcp, udp } th dport 53 dnat to %s
	}
}
`, family, dnsHijackTable, upstream, port)
	}
	if err := setRules(ctx, host, "dns-hijack", rules.String()); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot hijack DNS: %w", err), h.Stop(ctx))
	}
	return h, nil
}

// dnsHijackNothing removes the tables: to add one that is there does nothing,
// so it can be deleted always.
const dnsHijackNothing = "add table ip " + dnsHijackTable + "\ndelete table ip " + dnsHijackTable + "\n" +
	"add table ip6 " + dnsHijackTable + "\ndelete table ip6 " + dnsHijackTable + "\n"

// Stop lets queries pass again.
func (h *DNSHijack) Stop(ctx context.Context) error {
	err := setRules(ctx, h.host, "dns-hijack", dnsHijackNothing)
	for _, r := range h.responders {
		err = errors.Join(err, r.stop())
	}
	h.responders = nil
	if err != nil {
		return fmt.Errorf("cannot stop hijacking DNS: %w", err)
	}
	return nil
}

// setRules loads a file of nft's on a host. The error is compatible with
// netbox.ErrNoKernel where the kernel can't.
func setRules(ctx context.Context, host *netbox.Host, name, text string) error {
	file := name + ".nft"
	if err := host.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	_, err := host.Run(ctx, "nft", "-f", file)
	var failed *command.Error
	if errors.As(err, &failed) && (strings.Contains(failed.Output, "not supported") || strings.Contains(failed.Output, "No such file")) {
		err = fmt.Errorf("%w: %w", netbox.ErrNoKernel, err)
	}
	if err != nil {
		return fmt.Errorf("cannot set rules of %s: %w", host.Name(), err)
	}
	return nil
}
