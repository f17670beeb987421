package play

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ontagent/agent/command"
	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/scenario"
)

// dialler keeps the connection of a gateway or of a PC up by a program that
// runs until it ends, as netifd does with pppd and udhcpc: it starts it again
// after a while.
type dialler struct {
	host *netbox.Host
	spec netbox.Service
	// pause is how long to wait after an end with this error.
	pause  func(error) time.Duration
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func keepUp(ctx context.Context, host *netbox.Host, spec netbox.Service, pause func(error) time.Duration) *dialler {
	ctx, cancel := context.WithCancel(ctx)
	d := &dialler{host: host, spec: spec, pause: pause, cancel: cancel}
	d.done.Go(func() {
		for ctx.Err() == nil {
			var err error
			p, err := host.Start(ctx, spec)
			if err == nil {
				select {
				case <-p.Done():
					err = p.Err()
				case <-ctx.Done():
					_ = p.Stop() // what doesn't stop goes with the lab
					return
				}
			}
			select {
			case <-time.After(pause(err)):
			case <-ctx.Done():
			}
		}
	})
	return d
}

func (d *dialler) stop() {
	d.cancel()
	d.done.Wait()
}

// pppdAuthFailed is pppd's exit code after a refusal.
const pppdAuthFailed = 19

// redial is how netifd dials again: soon, but not after a refusal, which a BRAS
// that counts them would answer by shutting the line.
func redial(err error) time.Duration {
	if failed, ok := errors.AsType[*command.Error](err); ok && failed.ExitCode == pppdAuthFailed {
		return 30 * time.Second
	}
	return 2 * time.Second
}

func always(d time.Duration) func(error) time.Duration { return func(error) time.Duration { return d } }

// vlanDevice makes, where there is a VLAN, the interface on the port, and
// returns its name.
func vlanDevice(host *netbox.Host, port string, vlan uint16, mtu int) (string, error) {
	name := port
	if vlan != 0 {
		name = fmt.Sprintf("%s.%d", port, vlan)
		if err := host.VLAN(port, vlan, name); err != nil {
			return "", err
		}
	}
	return name, host.MTU(name, mtu)
}

const (
	pppoeOverhead = 8
	etherMTU      = 1500
)

// connect brings the gateway's connections up as they are configured: that to
// the internet, and a lease on each other service that has addresses.
func (l *Lab) connect(ctx context.Context) error {
	if err := l.connectInternet(ctx); err != nil {
		return err
	}
	for _, s := range l.sc.Services {
		if s.Kind == scenario.Internet {
			continue
		}
		ifname, err := vlanDevice(l.gateway, wanPort, s.VLAN, etherMTU)
		if err != nil {
			return err
		}
		switch s.Access {
		case scenario.Bridge:
			err = l.bridgeBox(s.Kind, ifname)
		case scenario.IPoE:
			err = l.lease(ctx, l.gateway, ifname, leaseOf{})
		case scenario.Static:
			_, err = l.static(s.Kind, ifname, s.Address)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) connectInternet(ctx context.Context) error {
	inet, ordered := l.sc.Service(scenario.Internet)
	c := l.sc.Gateway.Internet
	if !ordered {
		return nil
	}
	mtu := etherMTU
	if c.Access == scenario.PPPoE || c.Access == scenario.Bridge {
		mtu = max(etherMTU, c.MTU+pppoeOverhead)
	}
	ifname, err := vlanDevice(l.gateway, wanPort, c.VLAN, mtu)
	if err != nil {
		return err
	}
	if c.Access == scenario.Bridge {
		// The PC behind gets on, not the gateway.
		if err := errors.Join(
			l.cable(l.gateway, pcPort, l.pc, "eth0", ""),
			l.gateway.Bridge("br-inet", netbox.BridgeOptions{}, ifname, pcPort),
		); err != nil {
			return err
		}
		if c.Dial == scenario.DialNever {
			return nil
		}
		if inet.Behind == scenario.IPoE || inet.Access == scenario.IPoE {
			return l.lease(ctx, l.pc, "eth0", leaseOf{route: true, v6: c.IPv6})
		}
		return l.pppd(ctx, l.pc, "eth0", "ppp0", c)
	}
	if l.sc.Gateway.NAT {
		if err := l.masquerade(ctx); err != nil {
			return err
		}
	}
	if c.Dial == scenario.DialNever {
		return nil
	}
	switch c.Access {
	case scenario.PPPoE:
		return l.pppd(ctx, l.gateway, ifname, pppName, c)
	case scenario.IPoE:
		return errors.Join(l.gateway.MTU(ifname, c.MTU), l.lease(ctx, l.gateway, ifname, leaseOf{route: true, v6: c.IPv6}))
	case scenario.Static:
		router, err := l.static(scenario.Internet, ifname, inet.Address)
		if err != nil {
			return err
		}
		if c.IPv6 {
			if err := l.gateway.Sysctl("net/ipv6/conf/"+ifname+"/accept_ra", "2"); err != nil {
				return err
			}
		}
		return errors.Join(
			l.gateway.MTU(ifname, c.MTU), l.gateway.Route("default", router.String()), l.resolvConf(l.gateway),
		)
	}
	return nil
}

// bridgeBox connects the box that uses a service behind the gateway.
func (l *Lab) bridgeBox(kind, ifname string) error {
	host, port, bridge := l.stb, stbPort, "br-"+kind[:min(len(kind), 9)]
	if kind != scenario.IPTV {
		port = map[string]string{scenario.Voice: "lan4", scenario.Management: "lan5"}[kind]
		var err error
		if host, err = l.box.Host(kind + "-box"); err != nil {
			return err
		}
	}
	return errors.Join(
		l.cable(l.gateway, port, host, "eth0", ""),
		l.gateway.Bridge(bridge, netbox.BridgeOptions{Snooping: kind == scenario.IPTV}, ifname, port),
	)
}

// static gives the gateway an address by hand, the first free one of the
// service's network if none is given, and returns the operator's in the same
// network. Where that is another than the service's own, the operator has one
// there as well.
func (l *Lab) static(kind, ifname, address string) (netip.Addr, error) {
	own, err := l.serviceNetwork(kind)
	if err != nil {
		return netip.Addr{}, err
	}
	if address == "" {
		return own.Addr(), l.gateway.Address(ifname, netip.PrefixFrom(own.Addr().Next(), own.Bits()).String())
	}
	network, err := netip.ParsePrefix(address)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("cannot read the static address of %s: %w", kind, err)
	}
	if err := l.gateway.Address(ifname, address); err != nil || network.Contains(own.Addr()) {
		return own.Addr(), err
	}
	router := network.Masked().Addr().Next()
	if router == network.Addr() {
		router = router.Next()
	}
	return router, errors.Join(
		l.hosts[kind].Address("access0", netip.PrefixFrom(router, network.Bits()).String()),
		l.gateway.Route(own.Addr().String()+"/32", router.String()),
	)
}

// serviceNetwork is the operator's address where a service is served, in its
// network.
func (l *Lab) serviceNetwork(kind string) (netip.Prefix, error) {
	switch kind {
	case scenario.IPTV:
		return netip.ParsePrefix(iptvAddr + "/24")
	case scenario.Voice:
		return netip.ParsePrefix(voiceAddr + "/24")
	case scenario.Management:
		return netip.ParsePrefix(mgmtAddr + "/24")
	}
	pool, err := netip.ParsePrefix(l.sc.Network.Pool)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("cannot read network.pool: %w", err)
	}
	return netip.PrefixFrom(pool.Masked().Addr().Next(), pool.Bits()), nil
}

// resolvConf names the operator's resolvers where no protocol does.
func (l *Lab) resolvConf(host *netbox.Host) error {
	var text strings.Builder
	for i := range l.sc.Network.DNS.Resolvers {
		fmt.Fprintf(&text, "nameserver %s\n", core(coreDNS + i)[0])
	}
	return host.WriteFile("/etc/resolv.conf", []byte(text.String()), 0o644)
}

// pppd keeps a PPPoE session up on a device.
func (l *Lab) pppd(ctx context.Context, host *netbox.Host, device, ifname string, c scenario.GatewayInternet) error {
	var o strings.Builder
	// What pppoe.so is to do stands before the name of the device, or is
	// ignored.
	fmt.Fprintf(&o, "plugin pppoe.so\n")
	if c.ServiceName != "" {
		fmt.Fprintf(&o, "rp_pppoe_service %s\n", pppQuote(c.ServiceName))
	}
	fmt.Fprintf(&o, "nic-%s\nuser %s\npassword %s\n", device, pppQuote(c.Account), pppQuote(c.Password))
	fmt.Fprintf(&o, "ifname %s\nmtu %d\nmru %d\n", ifname, c.MTU, c.MTU)
	switch c.Auth {
	case "pap":
		o.WriteString("refuse-chap\nrefuse-mschap\nrefuse-mschap-v2\nrefuse-eap\n")
	case "chap":
		o.WriteString("refuse-pap\n")
	}
	if c.IPv6 {
		o.WriteString("+ipv6\n")
	} else {
		o.WriteString("noipv6\n")
	}
	o.WriteString("noauth\nnodetach\nnoipdefault\ndefaultroute\nusepeerdns\nhide-password\nmaxfail 1\nlcp-echo-interval 5\nlcp-echo-failure 2\n")
	options := filepath.Join(host.Dir(), "pppd.options")
	for path, file := range map[string]struct {
		text string
		mode os.FileMode
	}{
		options:                {o.String(), 0o600},
		"/etc/ppp/options":     {"", 0o600},
		"/etc/ppp/pap-secrets": {"", 0o600}, "/etc/ppp/chap-secrets": {"", 0o600},
		"/etc/ppp/ip-up": {"#!/bin/sh\ncat /etc/ppp/resolv.conf >/etc/resolv.conf\n", 0o755},
	} {
		if err := host.WriteFile(path, []byte(file.text), file.mode); err != nil {
			return err
		}
	}
	if c.IPv6 {
		// A router takes advertisements only if told to.
		if err := host.Sysctl("net.ipv6.conf.default.accept_ra", "2"); err != nil {
			return err
		}
	}
	l.diallers = append(l.diallers, keepUp(ctx, host, netbox.Service{Name: "pppd", Path: "pppd", Args: []string{"file", options}}, redial))
	return nil
}

// pppQuote writes a word of pppd's options.
func pppQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// leaseOf says what a lease is used for.
type leaseOf struct{ route, v6 bool }

// leaseScript is what udhcpc runs: netifd's part of it.
const leaseScript = `#!/bin/sh
case $1 in
bound|renew)
	ip -4 addr flush dev "$interface"
	ip addr add "$ip/$mask" dev "$interface"
	if [ -n "$ROUTE" ]; then
		for r in $router; do ip route replace default via "$r" dev "$interface"; break; done
		: >/etc/resolv.conf
		for d in $dns; do echo "nameserver $d" >>/etc/resolv.conf; done
	fi ;;
deconfig|leasefail|nak)
	ip -4 addr flush dev "$interface"
	ip link set "$interface" up ;;
esac
`

// lease keeps a lease up on a device.
func (l *Lab) lease(ctx context.Context, host *netbox.Host, ifname string, use leaseOf) error {
	script := filepath.Join(host.Dir(), "udhcpc-"+ifname+".script") // one that runs cannot be written
	if err := host.WriteFile(script, []byte(leaseScript), 0o755); err != nil {
		return err
	}
	var env []string
	if use.route {
		env = []string{"ROUTE=1"}
	}
	if use.v6 {
		key := "net/ipv6/conf/" + ifname + "/accept_ra" // slashes: the name may have dots
		if err := host.Sysctl(key, "2"); err != nil {
			return err
		}
	}
	l.diallers = append(l.diallers, keepUp(ctx, host, netbox.Service{
		Name: "udhcpc-" + ifname, Path: "busybox", Env: env,
		Args: []string{"udhcpc", "-f", "-i", ifname, "-s", script, "-t", "0", "-T", "2"}, // as netifd has it: it asks until it is answered
	}, always(2*time.Second)))
	return nil
}

// masquerade lets the home use the gateway's address.
func (l *Lab) masquerade(ctx context.Context) error {
	if l.on("no_nat") {
		return nil
	}
	_, err := l.gateway.Run(ctx, "nft", "add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; "+
		"add rule ip nat post ip saddr 192.168.1.0/24 oifname != \""+homePort+"\" masquerade")
	if err != nil && l.o.Log != nil {
		// Only the home's own traffic needs it.
		l.o.Log.Warn("the home cannot be hidden behind the gateway", "error", err)
	}
	return nil
}

// online waits until the gateway's internet connection has an address and a
// route, at most for d, and reports whether it has.
func (l *Lab) online(ctx context.Context, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	host := l.gateway
	if l.sc.Gateway.Internet.Access == scenario.Bridge {
		host = l.pc
	}
	for {
		if out, err := host.Run(ctx, "ip", "-4", "route", "show", "default"); err == nil && len(out) > 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
}
