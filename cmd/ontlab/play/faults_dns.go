package play

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"ontagent/cmd/ontlab/isp"
)

// applyDNS makes the operator's resolvers what the settings say.
func (l *Lab) applyDNS(ctx context.Context) error {
	n := l.sc.Network.DNS.Resolvers
	want := make([]isp.DNSFault, n)
	for i := range want {
		want[i].Late = millis(l.sc.Network.DNS.DelayMS)
	}
	for _, s := range l.settings {
		p := s.params
		var spoil func(*isp.DNSFault)
		switch s.fault {
		case "dns_dead":
			spoil = func(f *isp.DNSFault) { f.Silent = true }
		case "dns_servfail":
			spoil = func(f *isp.DNSFault) { f.Servfail = true }
		case "dns_slow":
			spoil = func(f *isp.DNSFault) { f.Late = millis(p.DelayMS) }
		case "dns_no_names":
			spoil = func(f *isp.DNSFault) { f.NoNames = true }
		case "dns_wrong_answer", "dns_wildcard":
			to, err := parseIPv4(p.Address)
			if err != nil {
				return err
			}
			spoil = func(f *isp.DNSFault) { f.Every = to }
			if s.fault == "dns_wildcard" {
				spoil = func(f *isp.DNSFault) { f.Missing = to }
			}
		default:
			continue
		}
		if n == 0 {
			return errNotHere("resolver")
		}
		if p.Resolver > n {
			return errNotHere(fmt.Sprint("resolver ", p.Resolver))
		}
		for i := range want {
			if p.Resolver == 0 || p.Resolver == i+1 {
				spoil(&want[i])
			}
		}
	}
	var problems []error
	for i, fault := range want {
		if l.dnsNow[i] == fault {
			continue
		}
		for _, addr := range core(coreDNS + i) {
			problems = append(problems, l.dns.Play(ctx, addr, fault))
		}
		l.dnsNow[i] = fault
	}
	return errors.Join(problems...)
}

func parseIPv4(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Is4() {
		return netip.Addr{}, fmt.Errorf("%q is no IPv4 address", text)
	}
	return addr, nil
}

// applyHijack answers queries on the way, at the BRAS, or lets them pass.
func (l *Lab) applyHijack(ctx context.Context) error {
	if l.hijack != nil {
		if err := l.hijack.Stop(ctx); err != nil {
			return err
		}
		l.hijack = nil
	}
	p, on := l.latest("dns_hijack")
	if !on {
		return nil
	}
	to, err := parseIPv4(p.Address)
	if err != nil {
		return err
	}
	at := []netip.Addr{netip.MustParseAddr(brasCore), netip.MustParseAddr(brasCore6)}
	l.hijack, err = isp.HijackDNS(ctx, l.bras, corePort, at, to)
	return err
}
