package isp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// DHCPOptions describe a server of addresses for an Ethernet.
type DHCPOptions struct {
	// Name tells servers on one host apart; empty means "dhcp".
	Name string
	// Interface is where clients are; it has an address of the range's network.
	Interface string
	// First and Last are the addresses that clients get.
	First, Last netip.Addr
	// Router is told to clients; the zero Addr means the interface's address.
	Router netip.Addr
	// DNS are told to clients: those of IPv4 by DHCP, those of IPv6 in
	// advertisements.
	DNS []netip.Addr
	// Lease is how long an address may be used, at least two minutes; 0 means
	// an hour.
	Lease time.Duration
	// MTU is told to clients; 0 means nothing.
	MTU int
	// Domain is told to clients; empty means none.
	Domain string
	// Advertise makes the host the Ethernet's IPv6 router, with the prefixes of
	// the interface's addresses.
	Advertise bool
}

// DHCP is a running dnsmasq that serves DHCPv4, and advertises an IPv6 router if
// asked to. A second one is played by another host on the same Ethernet.
type DHCP struct {
	host    *netbox.Host
	options DHCPOptions

	mu       sync.Mutex
	silent   bool
	empty    bool            // has no address to give
	noRouter bool            // tells of none
	process  *netbox.Process // nil while it is silent
	hold     *dhcpHold       // nil unless it is slow
}

// StartDHCP starts a DHCP server on host.
func StartDHCP(ctx context.Context, host *netbox.Host, o DHCPOptions) (*DHCP, error) {
	setDefault(&o.Name, "dhcp")
	setDefault(&o.Lease, time.Hour)
	if !o.First.Is4() || !o.Last.Is4() || o.Last.Less(o.First) {
		return nil, fmt.Errorf("cannot start dhcp server: bad range from %v to %v", o.First, o.Last)
	}
	d := &DHCP{host: host, options: o}
	if err := d.set(ctx, nil); err != nil {
		return nil, err
	}
	return d, nil
}

// Silence makes the server stop, router advertisements included, or start
// again. Leases stay known.
func (d *DHCP) Silence(ctx context.Context, on bool) error {
	return d.set(ctx, func() { d.silent = on })
}

// NoAddress leaves the server without an address to give, or ends that. It does
// then what dnsmasq does: it does not answer who asks for any, and refuses who
// asks for one.
func (d *DHCP) NoAddress(ctx context.Context, on bool) error {
	return d.set(ctx, func() { d.empty = on })
}

// set changes what the server does: it starts anew.
func (d *DHCP) set(ctx context.Context, change func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if change != nil {
		change()
	}
	if err := d.restart(ctx); err != nil {
		return fmt.Errorf("cannot start dhcp server %s: %w", d.options.Name, err)
	}
	return nil
}

func (d *DHCP) restart(ctx context.Context) error {
	if d.process != nil {
		if err := d.process.Stop(); err != nil {
			return err
		}
		d.process = nil
	}
	if d.silent {
		return nil
	}
	o := d.options
	c := dnsmasqConfig{
		iface: o.Interface, advertise: o.Advertise, dns: o.DNS, leases: d.leaseFile(),
		first: o.First, last: o.Last, lease: o.Lease, router: o.Router, mtu: o.MTU, domain: o.Domain, empty: d.empty,
		noRouter: d.noRouter,
	}
	var err error
	d.process, err = startDnsmasq(ctx, d.host, o.Name, c)
	return err
}

func (d *DHCP) leaseFile() string { return filepath.Join(d.host.Dir(), d.options.Name+".leases") }

// Lease is an address that a client has.
type Lease struct {
	MAC     net.HardwareAddr
	IP      netip.Addr
	Name    string // the client's own; empty if it told none
	Expires time.Time
}

// Leases are those that the server has given.
func (d *DHCP) Leases() ([]Lease, error) {
	text, err := os.ReadFile(d.leaseFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read leases of %s: %w", d.options.Name, err)
	}
	return parseLeases(string(text)), nil
}

// parseLeases reads dnsmasq's file of leases: time, address of the Ethernet, of
// IPv4, name, identifier. Lines of other kinds are left out.
func parseLeases(text string) []Lease {
	var all []Lease
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		at, err := strconv.ParseInt(f[0], 10, 64)
		mac, macErr := net.ParseMAC(f[1])
		ip, ipErr := netip.ParseAddr(f[2])
		if err != nil || macErr != nil || ipErr != nil || !ip.Is4() {
			continue
		}
		all = append(all, Lease{MAC: mac, IP: ip, Name: strings.TrimPrefix(f[3], "*"), Expires: time.Unix(at, 0)})
	}
	return all
}

// Stop ends the server.
func (d *DHCP) Stop() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if d.hold != nil {
		err = d.hold.stop(context.Background())
		d.hold = nil
	}
	if d.process != nil {
		err = errors.Join(err, d.process.Stop())
		d.process = nil
	}
	if err != nil {
		return fmt.Errorf("cannot stop dhcp server %s: %w", d.options.Name, err)
	}
	return nil
}

// dnsmasqConfig is what a dnsmasq does.
type dnsmasqConfig struct {
	iface     string // may end in *
	advertise bool   // of prefixes that the interface has
	dns       []netip.Addr
	// Addresses to give; first is not valid if there are none.
	first, last netip.Addr
	leases      string
	lease       time.Duration
	router      netip.Addr
	mtu         int
	domain      string
	empty       bool
	noRouter    bool // tells of none, not of itself either
}

// text is dnsmasq.conf. Nothing but DHCP and advertisements: DNS is another
// server's. no-ping: a server that tries whether an address is in use before it
// offers it is three seconds late.
func (c dnsmasqConfig) text() string {
	var b strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	add("port=0\nno-resolv\nno-hosts\nbind-dynamic\nuser=root\ngroup=root\nlog-dhcp\nno-ping")
	add("interface=%s", c.iface)
	if c.first.IsValid() {
		add("dhcp-authoritative\ndhcp-leasefile=%s", c.leases)
		last := c.last
		if c.empty {
			last = c.first
			add("dhcp-host=02:00:5e:ff:ff:fe,%s", c.first) // somebody who isn't there
		}
		add("dhcp-range=%s,%s,%d", c.first, last, int(c.lease/time.Second))
		switch {
		case c.noRouter:
			add("dhcp-option=option:router")
		case c.router.IsValid():
			add("dhcp-option=option:router,%s", c.router)
		}
		if list := addresses(c.dns, netip.Addr.Is4, "%s"); list != "" {
			add("dhcp-option=option:dns-server,%s", list)
		}
		if c.mtu != 0 {
			add("dhcp-option=option:mtu,%d", c.mtu)
		}
		if c.domain != "" {
			add("domain=%s", c.domain)
		}
	} else {
		add("leasefile-ro")
	}
	if c.advertise {
		add("enable-ra\ndhcp-range=::,constructor:%s,ra-only", c.iface)
		if list := addresses(c.dns, netip.Addr.Is6, "[%s]"); list != "" {
			add("dhcp-option=option6:dns-server,%s", list)
		}
	}
	return b.String()
}

// addresses are those of a kind, separated by commas.
func addresses(all []netip.Addr, are func(netip.Addr) bool, format string) string {
	var list []string
	for _, a := range all {
		if are(a) {
			list = append(list, fmt.Sprintf(format, a))
		}
	}
	return strings.Join(list, ",")
}

// startDnsmasq starts a dnsmasq on host.
func startDnsmasq(ctx context.Context, host *netbox.Host, name string, c dnsmasqConfig) (*netbox.Process, error) {
	conf := filepath.Join(host.Dir(), name+".conf")
	if err := os.WriteFile(conf, []byte(c.text()), 0o600); err != nil {
		return nil, err
	}
	return host.Start(ctx, netbox.Service{
		Name: name, Path: "/usr/sbin/dnsmasq", Args: []string{"--keep-in-foreground", "--conf-file=" + conf, "--log-facility=-"},
		Ready: logGets(host, name, "started, version"),
	})
}

// logGets is ready when a service that is not yet started has written a text to
// its log.
func logGets(host *netbox.Host, name, text string) func(context.Context) error {
	path := filepath.Join(host.Dir(), name+".log")
	from := 0
	if info, err := os.Stat(path); err == nil {
		from = int(info.Size()) // an earlier one's
	}
	return func(context.Context) error {
		log, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(log[min(from, len(log)):]), text) {
			err = fmt.Errorf("it has not said %q", text)
		}
		return err
	}
}
