package play

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"ontagent/cmd/ontlab/isp"
	"ontagent/cmd/ontlab/scenario"
)

// startServers starts what the operator has, as much at once as can be: each
// takes seconds on an emulated processor.
func (l *Lab) startServers(ctx context.Context) error {
	l.dhcp, l.dhcpNow = map[string]*isp.DHCP{}, map[*isp.DHCP]dhcpState{}
	var starting sync.WaitGroup
	var mu sync.Mutex
	var problems []error
	start := func(f func(context.Context) error) {
		starting.Go(func() {
			if err := f(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				problems = append(problems, err)
			}
		})
	}
	start(l.startCore)
	if _, ok := l.sc.Service(scenario.Internet); ok {
		start(l.startAccess)
	}
	for kind, f := range map[string]func(context.Context, scenario.Service) error{
		scenario.IPTV: l.startIPTV, scenario.Voice: l.startVoice, scenario.Management: l.startManagement,
	} {
		if s, ok := l.sc.Service(kind); ok {
			start(func(ctx context.Context) error { return f(ctx, s) })
		}
	}
	starting.Wait()
	if err := errors.Join(problems...); err != nil {
		return err
	}
	return errors.Join(l.applyDNS(ctx), l.applyDHCP(ctx))
}

func (l *Lab) resolvers() []netip.Addr {
	var all []netip.Addr
	for i := range l.sc.Network.DNS.Resolvers {
		all = append(all, core(coreDNS + i)[0])
	}
	return all
}

// startCore starts what is on the internet.
func (l *Lab) startCore(ctx context.Context) (err error) {
	web, portal := core(coreWeb), core(corePortal)
	speed := web
	if l.speed != nil {
		speed = speedAt()
		if l.speedWeb, err = isp.StartHTTP(ctx, l.speed, isp.HTTPOptions{Listen: onPort80(speed)}); err != nil {
			return err
		}
	}
	if listen := l.allResolvers(); len(listen) > 0 {
		if l.dns, err = isp.StartDNS(ctx, l.core, isp.DNSOptions{Listen: listen, Names: map[string][]netip.Addr{
			siteName: web[:], checkName: web[:], speedName: speed[:],
			sipName: {netip.MustParseAddr(voiceAddr)}, "acs.lab.test": {netip.MustParseAddr(mgmtAddr)},
			portalName: portal[:],
		}}); err != nil {
			return err
		}
	}
	if l.ntp, err = isp.StartNTP(ctx, l.core, isp.NTPOptions{Listen: []netip.AddrPort{netip.AddrPortFrom(core(coreNTP)[0], 123)}}); err != nil {
		return err
	}
	if l.web, err = isp.StartHTTP(ctx, l.core, isp.HTTPOptions{Listen: onPort80(web)}); err != nil {
		return err
	}
	address, host := l.brokerAddr()
	if host != l.core {
		return nil // startManagement has it
	}
	l.broker, err = isp.StartBroker(ctx, host, isp.BrokerOptions{Listen: address})
	return err
}

// onPort80 is where a web server listens.
func onPort80(at [2]netip.Addr) []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(at[0], 80), netip.AddrPortFrom(at[1], 80)}
}

// startAccess starts what lets subscribers in: BRAS and AAA, or DHCP.
func (l *Lab) startAccess(ctx context.Context) error {
	inet, _ := l.sc.Service(scenario.Internet)
	pool, err := netip.ParsePrefix(l.sc.Network.Pool)
	if err != nil {
		return fmt.Errorf("cannot read network.pool: %w", err)
	}
	router := pool.Masked().Addr().Next()
	dials := inet.Access == scenario.PPPoE || inet.Behind == scenario.PPPoE
	if dials {
		return l.startPPPoE(ctx, router)
	}
	if err := l.bras.Address("access0", netip.PrefixFrom(router, pool.Bits()).String()); err != nil {
		return err
	}
	if inet.IPv6 {
		link := netip.MustParsePrefix("2001:db8:1000::/64")
		if err := l.bras.Address("access0", "2001:db8:1000::1/64"); err != nil {
			return err
		}
		if l.dhcp6, err = isp.StartDHCP6(ctx, l.bras, isp.DHCP6Options{
			Name: "dhcp6", Interface: "access0", Link: link, DNS: l.allResolvers(),
			Delegated: netip.MustParsePrefix("2001:db8:2000::/40"), DelegatedBits: l.delegated(),
		}); err != nil {
			return err
		}
	}
	if inet.Access == scenario.Static {
		if inet.IPv6 {
			l.adverts, err = isp.StartAdvertiser(ctx, l.bras, "adverts", "access0", l.allResolvers())
		}
		return err
	}
	first, last := leaseRange(netip.PrefixFrom(router, pool.Bits()))
	o := isp.DHCPOptions{
		Interface: "access0", First: first, Last: last, Router: router, DNS: l.allResolvers(), Advertise: inet.IPv6,
		Lease: seconds(float64(l.sc.Network.DHCP.LeaseS)),
	}
	server, err := isp.StartDHCP(ctx, l.bras, o)
	if err != nil {
		return err
	}
	l.setDHCP(scenario.Internet, server)
	return nil
}

// leaseRange is what a server whose own address is the first of its network
// gives out: the tenth and 40 more, or, of a small network, all but the first.
func leaseRange(own netip.Prefix) (first, last netip.Addr) {
	inside := func(a netip.Addr) bool { return own.Contains(a.Next()) } // the last one is for broadcasts
	first = own.Addr().Next()
	if tenth := step(own.Addr(), 9); inside(step(tenth, 4)) {
		first = tenth
	}
	last = first
	for range 40 {
		if !inside(last.Next()) {
			break
		}
		last = last.Next()
	}
	return first, last
}

// step is the nth address behind one.
func step(a netip.Addr, n int) netip.Addr {
	for range n {
		a = a.Next()
	}
	return a
}

// allResolvers are the resolvers by their addresses of both families.
func (l *Lab) allResolvers() []netip.Addr {
	all := l.resolvers()
	for i := range all {
		all = append(all, core(coreDNS + i)[1])
	}
	return all
}

// delegated is the length of prefixes that are delegated.
func (l *Lab) delegated() int {
	bits, _ := strconv.Atoi(strings.TrimPrefix(l.sc.Network.Prefix, "/"))
	return bits
}

// startPPPoE starts the AAA, then the BRAS that asks it.
func (l *Lab) startPPPoE(ctx context.Context, local netip.Addr) (err error) {
	n := l.sc.Network
	book, occupied := l.book()
	if l.radius, err = isp.StartRADIUS(ctx, l.bras, isp.RADIUSOptions{
		Accounts: book.accounts, UnknownReply: n.AAA.UnknownAccount, WrongPasswordReply: n.AAA.WrongPassword, SessionLimitReply: n.AAA.SessionLimit,
		SessionLimitSilent: n.AAA.SessionLimit == "",
	}); err != nil {
		return err
	}
	l.bookNow = fmt.Sprint(book)
	for account, sessions := range occupied {
		if err := l.radius.Occupy(ctx, account, sessions); err != nil {
			return err
		}
	}
	// The BRAS waits for its AAA longer than anybody waits for the BRAS: who is
	// not answered is not rejected.
	aaa := l.radius.Client()
	aaa.Timeout, aaa.Retries = 5*time.Second, 12
	echo := seconds(float64(n.BRAS.EchoIntervalS))
	if echo == 0 {
		echo = -1
	}
	pool, err := l.serviceNetwork(scenario.Internet)
	if err != nil {
		return err
	}
	o := isp.BRASOptions{
		MaxSessions: min(16, 1<<(32-pool.Bits())-3), // what is left of the pool without the first, its own, and the last address
		Interface:   "access0", ACName: n.BRAS.ACName, Auth: l.brasAuth(), MTU: n.BRAS.MTU,
		LocalAddr: local, Pool: local.Next(), DNS: l.allResolvers(), RADIUS: aaa,
		EchoInterval: echo, EchoFailures: n.BRAS.EchoFailures,
	}
	if n.BRAS.ServiceName != "" {
		o.ServiceNames = []string{n.BRAS.ServiceName}
	}
	if inet, _ := l.sc.Service(scenario.Internet); inet.IPv6 {
		o.IPv6 = &isp.BRASIPv6{
			Links: netip.MustParsePrefix("2001:db8:1000::/48"), Delegated: netip.MustParsePrefix("2001:db8:2000::/40"), DelegatedBits: l.delegated(),
		}
	}
	if l.brasd, err = isp.StartBRAS(ctx, l.bras, o); err != nil {
		return err
	}
	if n.BRAS.SecondAC {
		if err := l.brasd.SecondAC(ctx, "second-ac"); err != nil {
			return err
		}
	}
	l.brasd.DelayPADO(l.offersLate())
	return nil
}

// framedIP reads an account's address; without one it is of the pool.
func framedIP(text string) netip.Addr {
	addr, _ := netip.ParseAddr(text)
	return addr
}

func (l *Lab) startIPTV(ctx context.Context, s scenario.Service) (err error) {
	host := l.hosts[scenario.IPTV]
	if err := host.Address("access0", iptvAddr+"/24"); err != nil {
		return err
	}
	group, err := netip.ParseAddr(s.Group)
	if err != nil {
		return fmt.Errorf("cannot read the group of iptv: %w", err)
	}
	if group.Is6() {
		if err := host.Address("access0", "2001:db8:65::1/64"); err != nil {
			return err
		}
	}
	if l.multicast, err = isp.StartMulticast(ctx, host, isp.MulticastOptions{Interface: "access0", Group: group, Port: s.Port, RateMbps: s.RateMbps}); err != nil {
		return err
	}
	return l.startLeases(ctx, scenario.IPTV, s, netip.MustParseAddr(iptvAddr))
}

func (l *Lab) startVoice(ctx context.Context, s scenario.Service) (err error) {
	host := l.hosts[scenario.Voice]
	address := netip.MustParseAddr(voiceAddr)
	if err := host.Address("access0", voiceAddr+"/24"); err != nil {
		return err
	}
	if l.sip, err = isp.StartSIP(ctx, host, isp.SIPOptions{
		Listen: netip.AddrPortFrom(address, s.Port), Domain: s.Domain,
		Accounts: []isp.SIPAccount{{User: s.User, Password: s.Password}},
	}); err != nil {
		return err
	}
	return l.startLeases(ctx, scenario.Voice, s, address)
}

func (l *Lab) startManagement(ctx context.Context, s scenario.Service) (err error) {
	host := l.hosts[scenario.Management]
	address := netip.MustParseAddr(mgmtAddr)
	if err := host.Address("access0", mgmtAddr+"/24"); err != nil {
		return err
	}
	if l.acs, err = isp.StartACS(ctx, host, isp.ACSOptions{Listen: netip.AddrPortFrom(address, s.Port)}); err != nil {
		return err
	}
	at, _ := l.brokerAddr()
	if l.broker, err = isp.StartBroker(ctx, host, isp.BrokerOptions{Listen: at}); err != nil {
		return err
	}
	return l.startLeases(ctx, scenario.Management, s, address)
}

// startLeases gives a service's addresses out, where they are not set by hand.
func (l *Lab) startLeases(ctx context.Context, kind string, s scenario.Service, router netip.Addr) error {
	if s.Access != scenario.IPoE {
		return nil
	}
	first, last := leaseRange(netip.PrefixFrom(router, 24))
	server, err := isp.StartDHCP(ctx, l.hosts[kind], isp.DHCPOptions{
		Interface: "access0", First: first, Last: last, Router: router, Lease: seconds(float64(l.sc.Network.DHCP.LeaseS)),
	})
	if err != nil {
		return err
	}
	l.setDHCP(kind, server)
	return nil
}

func (l *Lab) setDHCP(kind string, server *isp.DHCP) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dhcp[kind] = server
}
