package isp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// DHCP6Options describe a server that delegates prefixes on an Ethernet.
type DHCP6Options struct {
	// Name tells servers on one host apart; empty means "dhcp6".
	Name string
	// Interface is where clients are. Router advertisements are another
	// server's: DHCPOptions.Advertise.
	Interface string
	// Link is the Ethernet's own prefix. Addresses of it are given to clients
	// that ask, if Addresses says so.
	Link      netip.Prefix
	Addresses bool
	// Delegated is divided into the prefixes that are delegated, each of
	// DelegatedBits; 0 means 60.
	Delegated     netip.Prefix
	DelegatedBits int
	// DNS are told to clients: those of IPv6.
	DNS []netip.Addr
	// Lifetime is the valid lifetime of all, at least a minute; 0 means an
	// hour. The preferred one is half of that, renewal is due after a quarter.
	Lifetime time.Duration
}

// DHCP6 is a running Kea. The host gets a route to each prefix that it delegates,
// by way of whom it was delegated to.
type DHCP6 struct {
	host    *netbox.Host
	config  dhcp6Config
	dir     string
	hook    string // Kea's library that runs scripts
	process *netbox.Process

	mu      sync.Mutex // held while Kea is configured
	links   []dhcp6Link
	silent  bool
	without bool // prefixes and addresses
}

// dhcp6Config is what is the same for all links.
type dhcp6Config struct {
	name     string
	dns      []netip.Addr
	lifetime time.Duration
}

// dhcp6Link is an interface with clients.
type dhcp6Link struct {
	id            int // from 1, the same as long as the link means the same
	iface         string
	link          netip.Prefix
	addresses     bool
	delegated     netip.Prefix
	delegatedBits int
}

// StartDHCP6 starts a DHCPv6 server on host.
func StartDHCP6(ctx context.Context, host *netbox.Host, o DHCP6Options) (*DHCP6, error) {
	setDefault(&o.Name, "dhcp6")
	setDefault(&o.DelegatedBits, 60)
	switch {
	case o.Interface == "":
		return nil, errors.New("cannot start dhcpv6 server: no interface is given")
	case !o.Link.Addr().Is6() || o.Link.Bits() > 112:
		return nil, fmt.Errorf("cannot start dhcpv6 server: bad prefix of the link %v", o.Link)
	case !o.Delegated.Addr().Is6() || o.Delegated.Bits() > o.DelegatedBits || o.DelegatedBits > 64:
		return nil, fmt.Errorf("cannot start dhcpv6 server: prefix to delegate %v: there is no /%d in it", o.Delegated, o.DelegatedBits)
	}
	return startDHCP6(ctx, host, dhcp6Config{name: o.Name, dns: o.DNS, lifetime: o.Lifetime}, dhcp6Link{
		id: 1, iface: o.Interface, link: o.Link, addresses: o.Addresses, delegated: o.Delegated, delegatedBits: o.DelegatedBits,
	})
}

// dhcp6Routes is the script which Kea calls for each lease. PATH: Kea's own
// environment is all it has.
const dhcp6Routes = `#!/bin/sh
[ "$1" = leases6_committed ] || exit 0
PATH=/usr/sbin:/usr/bin:/sbin:/bin
n=0
while [ "$n" -lt "${LEASES6_SIZE:-0}" ]; do
	eval "kind=\$LEASES6_AT${n}_TYPE prefix=\$LEASES6_AT${n}_ADDRESS bits=\$LEASES6_AT${n}_PREFIX_LEN"
	n=$((n + 1))
	[ "$kind" = IA_PD ] || continue
	ip -6 route replace "$prefix/$bits" via "$QUERY6_REMOTE_ADDR" dev "$QUERY6_IFACE_NAME" &&
		echo "$prefix/$bits $QUERY6_REMOTE_ADDR $QUERY6_IFACE_NAME" >>"${0%/*}/delegations"
done
`

func startDHCP6(ctx context.Context, host *netbox.Host, c dhcp6Config, links ...dhcp6Link) (*DHCP6, error) {
	setDefault(&c.lifetime, time.Hour)
	d := &DHCP6{host: host, config: c, dir: filepath.Join(host.Dir(), c.name), links: links}
	if err := d.start(ctx); err != nil {
		return nil, fmt.Errorf("cannot start dhcpv6 server %s: %w", c.name, err)
	}
	return d, nil
}

func (d *DHCP6) start(ctx context.Context) error {
	hooks, err := filepath.Glob("/usr/lib/*/kea/hooks/libdhcp_run_script.so")
	if err != nil || len(hooks) == 0 {
		return errors.New("kea's libdhcp_run_script.so is not installed")
	}
	d.hook = hooks[0]
	config, err := json.MarshalIndent(map[string]any{"Dhcp6": d.kea()}, "", "  ")
	if err != nil {
		return err
	}
	if err := d.host.WriteFile(filepath.Join(d.dir, "routes"), []byte(dhcp6Routes), 0o700); err != nil {
		return err
	}
	if err := d.host.WriteFile(d.file("kea.json"), config, 0o600); err != nil {
		return err
	}
	// A copy: Debian's AppArmor profile for the original wants its files where
	// the machine's are.
	program, err := os.ReadFile("/usr/sbin/kea-dhcp6")
	if err != nil {
		return err
	}
	if err := d.host.WriteFile(d.file("kea-dhcp6"), program, 0o700); err != nil {
		return err
	}
	d.process, err = d.host.Start(ctx, netbox.Service{
		Name: d.config.name, Path: d.file("kea-dhcp6"), Args: []string{"-c", d.file("kea.json")},
		Env:   []string{"KEA_PIDFILE_DIR=" + d.dir, "KEA_LOCKFILE_DIR=none"},
		Ready: logGets(d.host, d.config.name, "DHCP6_STARTED"),
	})
	return err
}

func (d *DHCP6) file(name string) string { return filepath.Join(d.dir, name) }

// kea is Kea's configuration.
func (d *DHCP6) kea() map[string]any {
	valid := int(d.config.lifetime / time.Second)
	interfaces, subnets := []string{}, []map[string]any{}
	for _, l := range d.links {
		if !d.silent {
			interfaces = append(interfaces, l.iface)
		}
		pools, prefixes := []map[string]any{}, []map[string]any{}
		if l.addresses && !d.without {
			pools = append(pools, map[string]any{"pool": subPrefix(l.link, 116, 1).String()})
		}
		if !d.without {
			prefixes = append(prefixes, map[string]any{
				"prefix": l.delegated.Masked().Addr().String(), "prefix-len": l.delegated.Bits(), "delegated-len": l.delegatedBits,
			})
		}
		subnets = append(subnets, map[string]any{
			"id": l.id, "subnet": l.link.Masked().String(), "interface": l.iface, "pools": pools, "pd-pools": prefixes,
		})
	}
	options := []map[string]any{}
	if list := addresses(d.config.dns, netip.Addr.Is6, "%s"); list != "" {
		options = append(options, map[string]any{"name": "dns-servers", "data": list})
	}
	return map[string]any{
		"data-directory":    d.dir,
		"interfaces-config": map[string]any{"interfaces": interfaces},
		"control-socket":    map[string]any{"socket-type": "unix", "socket-name": d.file("control")},
		// Leases must outlive a change of the configuration.
		"lease-database": map[string]any{"type": "memfile", "persist": true, "name": d.file("leases.csv"), "lfc-interval": 0},
		"hooks-libraries": []map[string]any{{
			"library":    d.hook,
			"parameters": map[string]any{"name": d.file("routes"), "sync": false},
		}},
		"valid-lifetime": valid, "preferred-lifetime": valid / 2, "renew-timer": valid / 4, "rebind-timer": valid * 2 / 5,
		"option-data": options,
		"subnet6":     subnets,
		"loggers": []map[string]any{{
			"name": "kea-dhcp6", "severity": "INFO", "output_options": []map[string]any{{"output": "stdout"}},
		}},
	}
}

// Silence makes the server deaf, or ends that. Leases stay known.
func (d *DHCP6) Silence(ctx context.Context, on bool) error {
	return d.set(ctx, func() { d.silent = on })
}

// NoPrefix leaves the server without prefixes and addresses to give, or ends
// that: it answers NoPrefixAvail, NoAddrsAvail.
func (d *DHCP6) NoPrefix(ctx context.Context, on bool) error {
	return d.set(ctx, func() { d.without = on })
}

// setLinks changes where clients are.
func (d *DHCP6) setLinks(ctx context.Context, links []dhcp6Link) error {
	return d.set(ctx, func() { d.links = links })
}

func (d *DHCP6) set(ctx context.Context, change func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
	if err := d.command(ctx, "config-set", map[string]any{"Dhcp6": d.kea()}); err != nil {
		return fmt.Errorf("cannot change dhcpv6 server %s: %w", d.config.name, err)
	}
	return nil
}

// command asks Kea to do something, and waits until it has.
func (d *DHCP6) command(ctx context.Context, name string, arguments any) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", d.file("control"))
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // all was said
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := json.NewEncoder(c).Encode(map[string]any{"command": name, "arguments": arguments}); err != nil {
		return err
	}
	var answer struct {
		Result int    `json:"result"`
		Text   string `json:"text"`
	}
	if err := json.NewDecoder(c).Decode(&answer); err != nil {
		return err
	}
	if answer.Result != 0 {
		return fmt.Errorf("kea says %d: %s", answer.Result, answer.Text)
	}
	return nil
}

// Delegation is a prefix that somebody has.
type Delegation struct {
	Prefix    netip.Prefix
	To        netip.Addr // link-local, whom it is routed to
	Interface string
}

// Delegations are the prefixes that were delegated, each as it was last.
func (d *DHCP6) Delegations() ([]Delegation, error) {
	text, err := os.ReadFile(d.file("delegations"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read delegations of %s: %w", d.config.name, err)
	}
	return parseDelegations(string(text)), nil
}

// parseDelegations reads what the script dhcp6Routes writes.
func parseDelegations(text string) []Delegation {
	var all []Delegation
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		prefix, err := netip.ParsePrefix(f[0])
		to, toErr := netip.ParseAddr(f[1])
		if err != nil || toErr != nil {
			continue
		}
		for i := range all {
			if all[i].Prefix == prefix {
				all = append(all[:i], all[i+1:]...)
				break
			}
		}
		all = append(all, Delegation{Prefix: prefix, To: to, Interface: f[2]})
	}
	return all
}

// Stop ends the server.
func (d *DHCP6) Stop() error {
	if err := d.process.Stop(); err != nil {
		return fmt.Errorf("cannot stop dhcpv6 server %s: %w", d.config.name, err)
	}
	return nil
}
