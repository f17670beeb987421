package main

import (
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"

	"ontagent/agent/order"
	"ontagent/agent/probe/cable"
	"ontagent/agent/probe/dhcp"
	"ontagent/agent/probe/dns"
	"ontagent/agent/probe/http"
	"ontagent/agent/probe/mtu"
	"ontagent/agent/probe/multicast"
	"ontagent/agent/probe/ntp"
	"ontagent/agent/probe/ping"
	"ontagent/agent/probe/pppoe"
	"ontagent/agent/probe/sip"
	"ontagent/agent/probe/tcp"
)

// measuring is a probe whose flags are read by the time it is called. An error
// that is a *cli.Error says that nothing was tried.
type measuring func(ctx context.Context) (any, error)

// probes are all there are.
var probes = [...]struct {
	name    string
	prepare func(p *probing) measuring // declares the flags
}{
	{"pppoe", (*probing).pppoe},
	{"dhcp", (*probing).dhcp},
	{"dns", (*probing).dns},
	{"ping", (*probing).ping},
	{"mtu", (*probing).mtu},
	{"http", (*probing).http},
	{"multicast", (*probing).multicast},
	{"sip", (*probing).sip},
	{"ntp", (*probing).ntp},
	{"tcp", (*probing).tcp},
	{"acs", (*probing).acs},
	{"cable", (*probing).cable},
}

// prepare returns what declares the flags of the probe; nil if there is none of
// its name.
func (p *probing) prepare() func(p *probing) measuring {
	for i := range probes {
		if probes[i].name == p.name {
			return probes[i].prepare
		}
	}
	return nil
}

func (p *probing) pppoe() measuring {
	o := &pppoe.Options{Interface: p.conf.WAN.Device, VLAN: uint16(p.conf.WAN.VLAN)}
	p.bind(pppoeFlags, pppoeOutcomes, &o.Interface, &o.VLAN, &o.Priority, &o.Username, &p.secret,
		&o.DiscoveryOnly, &o.ServiceName, &o.ACName, &o.MaxPayload, &o.MRU, &o.IPv6,
		&o.Attempts, &o.Echoes, &o.EchoInterval, &o.MaxDuration, &p.force)
	return func(ctx context.Context) (any, error) {
		if err := p.need("interface", o.Interface != ""); err != nil {
			return nil, err
		}
		if o.Username != "" && !o.DiscoveryOnly {
			password, err := p.password(ctx)
			if err != nil {
				return nil, err
			}
			o.Password = pppoe.Password(password)
		}
		line := p.line(ctx)
		p.head.SessionUp = &line.up
		switch {
		case line.up && p.force:
			p.warn(line.why + "; a second session may end the customer's")
		case line.up:
			o.DiscoveryOnly, p.held = true, true
			p.head.Note = "discovery only: " + line.why
		case o.Username == "":
			o.DiscoveryOnly = true
			p.head.Note = "discovery only: no --user"
		}
		return pppoe.Dial(ctx, *o)
	}
}

func (p *probing) dhcp() measuring {
	o := &dhcp.Options{Interface: p.conf.WAN.Device, VLAN: uint16(p.conf.WAN.VLAN)}
	var v4, v6, routers bool
	var mac string
	p.bind(dhcpFlags, dhcpOutcomes, &o.Interface, &o.VLAN, &o.Priority, &v4, &v6, &o.PrefixDelegation, &routers,
		&mac, &o.VendorClass, &o.Tries, &o.Wait, &p.force)
	return func(ctx context.Context) (any, error) {
		if err := p.need("interface", o.Interface != ""); err != nil {
			return nil, err
		}
		if mac != "" {
			var err error
			if o.MAC, err = hex.DecodeString(strings.ReplaceAll(mac, ":", "")); err != nil || len(o.MAC) != 6 {
				return nil, p.wrong("mac", "six bytes in hexadecimal")
			}
		}
		if v6 || o.PrefixDelegation {
			o.Families |= dhcp.V6
		}
		if routers {
			o.Families |= dhcp.Routers
		}
		if v4 || o.Families == 0 {
			o.Families |= dhcp.V4
		}
		if err := p.inform(ctx, o); err != nil {
			return nil, err
		}
		return dhcp.Run(ctx, *o)
	}
}

// inform asks for less where the line is in use.
func (p *probing) inform(ctx context.Context, o *dhcp.Options) error {
	line := p.line(ctx, vlanDevice(o.Interface, o.VLAN))
	p.head.LineUp = &line.up
	switch {
	case !line.up || o.Families == dhcp.Routers: // to ask for routers is harmless
	case p.force:
		p.warn(line.why + "; some access routers end a session for a DISCOVER")
	case o.Families&dhcp.V4 != 0 && !line.v4.IsValid():
		return errors.New("the line is in use, and there is no IPv4 address to send an INFORM from: " + line.why)
	default:
		p.head.Note = "INFORM instead of DISCOVER: " + line.why
		if o.PrefixDelegation {
			p.head.Note = "no prefix asked for, " + p.head.Note
		}
		o.Inform, o.Address, o.PrefixDelegation, p.held = true, line.v4, false, true
	}
	return nil
}

func (p *probing) dns() measuring {
	o := &dns.SurveyOptions{Names: p.conf.WAN.DNSNames}
	p.bind(dnsFlags, dnsOutcomes, &p.conf.WAN.Resolvers, &o.Names, &o.Prober.Interface, &o.Prober.Timeout, &o.Prober.Attempts)
	return func(ctx context.Context) (any, error) {
		var err error
		o.Resolvers, err = resolvers{p.sources(""), p.conf.WAN.Resolvers}.ReadResolvers(ctx)
		if err == nil && len(o.Resolvers) == 0 {
			err = errors.New("there is no resolver to ask; see --resolver")
		}
		if err != nil {
			return nil, err
		}
		return dns.Survey(ctx, *o)
	}
}

// target is what is pinged unless told otherwise.
func (p *probing) target() string {
	if len(p.conf.WAN.ProbeTargets) == 0 {
		return ""
	}
	return p.conf.WAN.ProbeTargets[0]
}

func (p *probing) ping() measuring {
	o, target := &ping.Options{}, p.target()
	p.bind(pingFlags, pingOutcomes, &target, &o.Count, &o.Interval, &o.Wait, &o.Interface, &p.conf.WAN.Resolvers)
	return func(ctx context.Context) (any, error) {
		a, err := p.address(ctx, "target", target)
		if err != nil {
			return nil, err
		}
		return ping.Ping(ctx, a, *o)
	}
}

func (p *probing) mtu() measuring {
	o := &mtu.Options{Host: p.target()}
	p.bind(mtuFlags, mtuOutcomes, &o.Host, &o.Expected, &o.Port, &o.Path, &o.Wait, &o.Timeout, &o.Interface, &p.conf.WAN.Resolvers)
	return func(ctx context.Context) (any, error) {
		var err error
		if o.Target, err = p.address(ctx, "target", o.Host); err != nil {
			return nil, err
		}
		return mtu.Run(ctx, *o)
	}
}

func (p *probing) http() measuring {
	o := &http.Options{URL: p.conf.WAN.CheckURL}
	p.bind(httpFlags, httpOutcomes, &o.URL, &o.Status, &o.Marker, &o.MaxRedirects, &o.Timeout, &o.Interface, &p.conf.WAN.Resolvers)
	return func(ctx context.Context) (any, error) {
		if err := p.need("url", o.URL != ""); err != nil {
			return nil, err
		}
		if !strings.HasPrefix(o.URL, "http://") {
			return nil, p.wrong("url", "an http:// URL")
		}
		o.Resolve = p.lookup()
		return http.Run(ctx, *o)
	}
}

func (p *probing) multicast() measuring {
	o := &multicast.Options{Interface: p.conf.WAN.Device, Port: uint16(p.conf.IPTV.Port)}
	// What does not parse is empty: the configuration was checked.
	o.Group, _ = addressOf(p.conf.IPTV.Group)
	o.Source, _ = addressOf(p.conf.IPTV.Source)
	p.bind(multicastFlags, multicastOutcomes, &o.Interface, &o.VLAN, &o.Group, &o.Source, &o.Port, &o.Version,
		(*string)(&o.Mode), &o.Local, &o.Wait, &o.Listen, &o.LeaveWait)
	return func(ctx context.Context) (any, error) {
		if err := p.need("interface", o.Interface != ""); err != nil {
			return nil, err
		}
		if err := p.need("group", o.Group.IsValid()); err != nil {
			return nil, err
		}
		if !o.Group.IsMulticast() {
			return nil, p.wrong("group", "a multicast address")
		}
		return multicast.Run(ctx, *o)
	}
}

func (p *probing) sip() measuring {
	o := &sip.Options{}
	method := "options"
	p.bind(sipFlags, sipOutcomes, &p.conf.Voice.Registrar, &p.conf.Voice.Domain, &method, &o.User, &o.AuthUser, &p.secret,
		&o.Transport, &o.Source, &o.Wait, &o.Interface, &p.conf.WAN.Resolvers)
	return func(ctx context.Context) (any, error) {
		if err := p.need("server", p.conf.Voice.Registrar != ""); err != nil {
			return nil, err
		}
		to := registrar(p.conf, order.Secrets{}, p.lookup())
		o.Server, o.Host, o.Domain, o.Resolver = to.Server, to.Host, to.Domain, to.Resolver
		if method != "options" {
			if err := p.need("user", o.User != ""); err != nil {
				return nil, err
			}
			o.Method = sip.MethodFetch
			if method == "register" {
				o.Method = sip.MethodRegister
			}
		}
		if p.secret != "" {
			var err error
			if o.Password, err = p.password(ctx); err != nil {
				return nil, err
			}
		}
		return sip.Run(ctx, *o)
	}
}

func (p *probing) ntp() measuring {
	o := &ntp.Options{}
	var server string
	p.bind(ntpFlags, ntpOutcomes, &server, &o.Tries, &o.Wait, &o.Source, &o.Interface, &p.conf.WAN.Resolvers)
	return func(ctx context.Context) (any, error) {
		host, port := hostPort(server, 0)
		a, err := p.address(ctx, "server", host)
		if err != nil {
			return nil, err
		}
		o.Server = netip.AddrPortFrom(a, port)
		return ntp.Run(ctx, *o)
	}
}

func (p *probing) tcp() measuring {
	o := &tcp.Options{}
	p.bind(tcpFlags, tcpOutcomes, &o.Host, &o.Port, &o.HTTP, &o.Path, &o.Connect, &o.Answer, &o.Source, &o.Interface, &p.conf.WAN.Resolvers)
	return func(ctx context.Context) (any, error) {
		if err := p.need("host", o.Host != ""); err != nil {
			return nil, err
		}
		if err := p.need("port", o.Port != 0); err != nil {
			return nil, err
		}
		o.Resolve = p.lookup()
		return tcp.Run(ctx, *o)
	}
}

func (p *probing) acs() measuring {
	o := &tcp.Options{}
	server := &p.conf.Management.ACS
	p.bind(acsFlags, tcpOutcomes, server, &o.Connect, &o.Answer, &o.Source, &o.Interface, &p.conf.WAN.Resolvers)
	return func(ctx context.Context) (any, error) {
		if err := p.need("url", *server != ""); err != nil {
			return nil, err
		}
		to := acs(p.conf, p.lookup())
		if to.Host == "" || !strings.HasPrefix(*server, "http") {
			return nil, p.wrong("url", "an http:// or https:// URL")
		}
		to.Connect, to.Answer, to.Source, to.Interface = o.Connect, o.Answer, o.Source, o.Interface
		return tcp.Run(ctx, to)
	}
}

func (p *probing) cable() measuring {
	o := &cable.Options{Interface: p.conf.WAN.LANPort}
	p.bind(cableFlags, cableOutcomes, &o.Interface, &o.Watch, &o.Disturb)
	return func(ctx context.Context) (any, error) {
		if err := p.need("interface", o.Interface != ""); err != nil {
			return nil, err
		}
		return cable.Run(ctx, *o)
	}
}
