package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"ontagent/agent"
	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/order"
	"ontagent/agent/probe/dhcp"
	"ontagent/agent/probe/dns"
	"ontagent/agent/probe/http"
	"ontagent/agent/probe/mtu"
	"ontagent/agent/probe/multicast"
	"ontagent/agent/probe/ping"
	"ontagent/agent/probe/pppoe"
	"ontagent/agent/probe/sip"
	"ontagent/agent/probe/tcp"
	"ontagent/agent/probe/throughput"
	"ontagent/collectors"
	"ontagent/collectors/link"
	"ontagent/collectors/pon"
	"ontagent/collectors/wan"
	"ontagent/config"
)

// ladder builds the rungs this agent can measure. now tells the time, and
// whether it can be relied on.
func (s *sources) ladder(c config.Config, now func() (time.Time, bool)) func(agent.Visit) []acceptance.Step {
	refusals := &refusalBook{}
	return func(v agent.Visit) []acceptance.Step {
		o, secrets, limits := v.Order, v.Secrets, v.Limits
		var readers []steps.OpticsReader
		for _, r := range s.opticsReaders {
			readers = append(readers, r)
		}
		ports := []string{}
		if c.WAN.LANPort != "" {
			ports = append(ports, c.WAN.LANPort)
		}
		line := wanAdapter{s}
		dialing := dialOptions(c, line, o, secrets)
		dialing.Refusals = refusals.of(fmt.Sprintf("%s/%d", o.Order, o.Rev)) // a corrected order is another
		dial := steps.NewDial(dialing)
		// A visit has a minute, and the speed test takes half of it: these
		// windows are as long as they must be, not as long as they could be.
		const pause = 500 * time.Millisecond
		ladder := []acceptance.Step{
			steps.NewIdentity(steps.IdentityOptions{Reader: inventory{s}, Ordered: steps.Resources(o.Resources)}),
			steps.NewOptical(steps.OpticalOptions{Readers: readers, Thresholds: limits, Pause: pause}),
			steps.NewRegistration(steps.RegistrationOptions{Reader: freshPON{s.pon}, Light: readers, Poll: pause}),
			steps.NewLANCabling(steps.LANCablingOptions{
				Reader: lanPorts{s}, Ordered: o.Resources.LANPort, Ports: ports,
				ContractMbps: contract(o), Thresholds: limits, Watch: 3 * time.Second,
			}),
			dial,
			steps.NewAddressing(steps.AddressingOptions{Reader: line, NeedV4: true}),
			steps.NewDNS(steps.DNSOptions{Resolvers: resolvers{s, c.WAN.Resolvers}, Names: c.WAN.DNSNames, Thresholds: limits}),
			steps.NewReachability(steps.ReachabilityOptions{
				WAN: line, Targets: targets(c), Thresholds: limits,
				Ping: ping.Options{Count: 20, Interval: 50 * time.Millisecond, Wait: time.Second},
				Path: steps.PathOptions{MTU: mtu.Run, Check: http.Run, Page: http.Options{URL: c.WAN.CheckURL, Resolve: s.resolve(c)}},
			}),
			// It loads the line: it is in a plan only where the order requires it.
			steps.NewThroughput(steps.ThroughputOptions{
				Test: s.speedTest(c, o), Access: access(o), Wireless: s.wireless, Thresholds: limits, Run: runSpeedTest,
			}),
			steps.NewHost(steps.HostOptions{Reader: hostAdapter{s}, Thresholds: limits, Reads: 3, Pause: pause}),
		}
		// What was not ordered is not tried: what nobody pays for need not come.
		ladder = slices.DeleteFunc(ladder, func(s acceptance.Step) bool { return pointless(o, s.Rung()) })
		// Without an extract it is inconclusive: evidence of nothing where
		// nobody asks.
		if v.Extract != nil || must(o, acceptance.Account) {
			account := s.accountOptions(c, v, dial)
			account.Clock = now
			ladder = append(ladder, steps.NewAccount(account))
		}
		if must(o, acceptance.RoutedInternet) {
			ladder = append(ladder, steps.NewRoutedInternet(s.routedOptions(c, o)))
		}
		if wanted(o, acceptance.IPTV) {
			ladder = append(ladder, steps.NewIPTV(steps.IPTVOptions{Probe: channel(c, o), Join: multicast.Run, Thresholds: limits}))
		}
		if wanted(o, acceptance.Voice) {
			ladder = append(ladder, steps.NewVoice(steps.VoiceOptions{
				Channel: s.channel(c, o, acceptance.Voice), Probe: registrar(c, secrets, s.resolve(c)), Ask: sip.Run,
			}))
		}
		if wanted(o, acceptance.Management) {
			ladder = append(ladder, steps.NewManagement(steps.ManagementOptions{
				Channel: s.channel(c, o, acceptance.Management), ACS: acs(c, s.resolve(c)), Reach: tcp.Run,
			}))
		}
		return ladder
	}
}

// resolve asks the resolvers that the dns rung asks, one after the other.
func (s *sources) resolve(c config.Config) func(ctx context.Context, name string) ([]netip.Addr, error) {
	return func(ctx context.Context, name string) ([]netip.Addr, error) {
		servers, err := resolvers{s, c.WAN.Resolvers}.ReadResolvers(ctx)
		if err != nil || len(servers) == 0 {
			return nil, errors.Join(fmt.Errorf("cannot look up %s: there is no resolver", name), err)
		}
		var problems []error
		for _, server := range servers {
			for _, t := range []dns.Type{dns.A, dns.AAAA} {
				a, err := dns.Prober{Attempts: 1}.Lookup(ctx, server, name, t)
				if a.Found() {
					return a.Addresses, nil
				}
				problems = append(problems, err)
			}
		}
		return nil, errors.Join(append(problems, fmt.Errorf("%s has no address", name))...)
	}
}

// lookup is a resolver of names as net.Resolver is one.
type lookup func(ctx context.Context, name string) ([]netip.Addr, error)

func (l lookup) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	return l(ctx, host)
}

// channel finds the gateway's interface for a service: the VLAN device on the
// port of the service VLANs, by its usual name.
func (s *sources) channel(c config.Config, o order.Order, rung acceptance.Rung) steps.ChannelReader {
	svc, _ := service(o, string(rung))
	if svc.VLAN == 0 || c.WAN.Device == "" {
		return nil
	}
	name := fmt.Sprintf("%s.%d", c.WAN.Device, svc.VLAN)
	return func(context.Context) (steps.Channel, error) {
		ifi, err := net.InterfaceByName(name)
		if err != nil {
			return steps.Channel{}, fmt.Errorf("%w: cannot find %s", steps.ErrNoChannel, name)
		}
		all, err := ifi.Addrs()
		if err != nil {
			return steps.Channel{}, fmt.Errorf("cannot read addresses of %s: %w", name, err)
		}
		usable := slices.ContainsFunc(all, func(a net.Addr) bool {
			p, err := netip.ParsePrefix(a.String())
			return err == nil && !p.Addr().IsLinkLocalUnicast()
		})
		return steps.Channel{Interface: name, HasAddress: usable}, nil
	}
}

// registrar is what telephony is tried by.
func registrar(c config.Config, secrets order.Secrets, resolve lookup) sip.Options {
	o := sip.Options{Domain: c.Voice.Domain, User: secrets.VoiceUser, Password: secrets.VoicePassword, Resolver: resolve}
	host, port := hostPort(c.Voice.Registrar, 5060)
	if a, err := netip.ParseAddr(host); err == nil {
		o.Server = netip.AddrPortFrom(a, port)
		return o
	}
	o.Host, o.Server = host, netip.AddrPortFrom(netip.Addr{}, port)
	return o
}

// acs is what management is tried by. An https server is only connected to.
func acs(c config.Config, resolve lookup) tcp.Options {
	u, err := url.Parse(c.Management.ACS)
	if err != nil || u.Hostname() == "" {
		return tcp.Options{}
	}
	plain := u.Scheme == "http"
	port := uint16(443)
	if plain {
		port = 80
	}
	_, port = hostPort(u.Host, port)
	return tcp.Options{Host: u.Hostname(), Port: port, HTTP: plain, Path: u.RequestURI(), Resolve: resolve}
}

// hostPort splits what may have a port.
func hostPort(s string, port uint16) (string, uint16) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return s, port
	}
	if n, err := strconv.ParseUint(text, 10, 16); err == nil {
		port = uint16(n)
	}
	return host, port
}

// pointless reports whether a rung of the internet would find fault with what
// nobody ordered: any internet at all, or addresses on a gateway that only
// bridges.
func pointless(o order.Order, rung acceptance.Rung) bool {
	internet, ordered := service(o, "internet")
	if len(o.Services) == 0 || wanted(o, rung) {
		return false
	}
	switch rung {
	case acceptance.Dial:
		return !ordered
	case acceptance.Addressing, acceptance.DNS, acceptance.Reachability:
		return !ordered || internet.Access == steps.AccessBridge
	default:
		return false
	}
}

// wanted reports whether an order names a service, or requires its rung.
func wanted(o order.Order, rung acceptance.Rung) bool {
	_, ordered := service(o, string(rung))
	return ordered || slices.Contains(o.Require, string(rung))
}

// service returns the ordered service of a kind.
func service(o order.Order, kind string) (order.Service, bool) {
	i := slices.IndexFunc(o.Services, func(s order.Service) bool { return s.Kind == kind })
	if i < 0 {
		return order.Service{}, false
	}
	return o.Services[i], true
}

func dialOptions(c config.Config, line steps.WANReader, o order.Order, secrets order.Secrets) steps.DialOptions {
	d := steps.DialOptions{
		Device: c.WAN.Device, VLAN: uint16(c.WAN.VLAN), WAN: line,
		NeedV4:   true, // no home is served by IPv6 alone, whatever an order leaves unsaid
		Username: secrets.Account, Password: pppoe.Password(secrets.Password),
		MayDisturb: slices.Contains(o.Consents, order.ConsentDisturb),
		PPPoE:      pppoe.Dial, DHCP: dhcp.Run,
		Sessions: pppoeSessions,
	}
	if s, ordered := service(o, "internet"); ordered {
		d.Access, d.VLAN = s.Access, s.VLAN
	}
	return d
}

// access is how the internet was ordered; empty: not known.
func access(o order.Order) string {
	svc, _ := service(o, "internet")
	return svc.Access
}

// speedTest is what the line's speed is measured by, and against.
func (s *sources) speedTest(c config.Config, o order.Order) throughput.Options {
	t := c.Throughput
	svc, _ := service(o, "internet")
	return throughput.Options{
		URL: t.URL, UploadURL: t.UploadURL, SecondURL: t.SecondURL, UploadMethod: t.UploadMethod,
		Connections: t.Connections, Window: t.Window,
		ContractDownMbps: svc.DownMbps, ContractUpMbps: svc.UpMbps, Layer: throughput.Layer(svc.RateLayer),
		MaxBytes: o.MaxBytes, MayDisturb: slices.Contains(o.Consents, order.ConsentDisturb),
		Encapsulation: throughput.Encapsulation{PPPoE: svc.Access == steps.AccessPPPoE, VLANTags: min(int(svc.VLAN), 1)},
		Interface:     c.WAN.Interface, Resolve: s.resolve(c), Line: newLineReader(c).read,
	}
}

// wireless returns the interface of the WAN if it is a radio.
func (s *sources) wireless(ctx context.Context) string {
	f, _ := s.wan.Read(ctx) // what else could not be read is not this rung's business
	if !isRadio("/sys", f.Interface) {
		return ""
	}
	return f.Interface
}

// isRadio reports whether an interface is that of a wireless LAN.
func isRadio(sys, name string) bool {
	if name == "" {
		return false
	}
	_, err := os.Stat(sys + "/class/net/" + name + "/phy80211")
	return err == nil
}

// channel is what television is tried by.
func channel(c config.Config, o order.Order) multicast.Options {
	m := multicast.Options{Interface: c.WAN.Device, Port: uint16(c.IPTV.Port)}
	if s, ordered := service(o, "iptv"); ordered {
		m.VLAN = s.VLAN
	}
	// What does not parse is empty: the configuration was checked.
	m.Group, _ = netip.ParseAddr(c.IPTV.Group)
	m.Source, _ = netip.ParseAddr(c.IPTV.Source)
	return m
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
