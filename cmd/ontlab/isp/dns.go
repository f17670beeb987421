package isp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"ontagent/cmd/ontlab/netbox"
)

// DNSOptions describe an operator's resolvers. Listen has to be given.
type DNSOptions struct {
	// Listen are the resolvers' addresses: port 53, by UDP and TCP. The host
	// has them already.
	Listen []netip.Addr
	// Names are the names there are, with their addresses of both families.
	// Every other name does not exist.
	Names map[string][]netip.Addr
	// TTL is how long an answer may be kept. 0 means a minute.
	TTL time.Duration
}

// DNS is an operator's resolvers: one dnsmasq for each address, so that one
// can fail alone. It is safe for concurrent use.
//
// Each address has one fault at most; another replaces it, Healthy ends it.
// Between two a query may be refused for some milliseconds. A fault's address
// that is the zero Addr means every resolver.
type DNS struct {
	host *netbox.Host
	opts DNSOptions

	mu        sync.Mutex
	stopped   bool
	resolvers []*resolver // in the order of DNSOptions.Listen
}

// resolver is what answers at one address: a program, or one of ours in its
// place for what the program can't play.
type resolver struct {
	addr      netip.Addr
	program   program
	responder *dnsResponder
}

// StartDNS starts the resolvers, which answer when StartDNS returns. ctx
// bounds the start only.
func StartDNS(ctx context.Context, host *netbox.Host, o DNSOptions) (*DNS, error) {
	fail := func(err error) (*DNS, error) {
		return nil, fmt.Errorf("cannot start DNS on %s: %w", host.Name(), err)
	}
	if err := o.check(); err != nil {
		return fail(err)
	}
	if o.TTL == 0 {
		o.TTL = time.Minute
	}
	d := &DNS{host: host, opts: o}
	for _, addr := range o.Listen {
		d.resolvers = append(d.resolvers, &resolver{addr: addr, program: program{host: host}})
	}
	if err := host.WriteFile(d.namesFile(), dnsNames(o.Names), 0o644); err != nil {
		return fail(err)
	}
	if err := d.Healthy(ctx, netip.Addr{}); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

func (o DNSOptions) check() error {
	if len(o.Listen) == 0 {
		return errors.New("it has no address")
	}
	for name := range o.Names {
		// What is written to its files must not be more than a name.
		_, ok := dns.IsDomainName(name)
		if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`#,/\"`, r) }) {
			return fmt.Errorf("%q is no name", name)
		}
	}
	return nil
}

// dnsNames is a file of names in the format of /etc/hosts.
func dnsNames(names map[string][]netip.Addr) []byte {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(names)) {
		for _, addr := range names[name] {
			b.WriteString(addr.String() + " " + strings.TrimSuffix(name, ".") + "\n")
		}
	}
	return []byte(b.String())
}

func (d *DNS) namesFile() string { return filepath.Join(d.host.Dir(), "dns-names") }

// dnsConf is a resolver's configuration. Where to is an address, names that
// do not exist have it; where names is empty no name exists.
func (d *DNS) dnsConf(r *resolver, names string, to netip.Addr) []byte {
	lines := []string{
		"keep-in-foreground",
		"no-resolv", // there is nobody to ask,
		"no-hosts",  // and what the host calls itself is nobody's business
		"bind-interfaces",
		"listen-address=" + r.addr.String(),
		"local-ttl=" + strconv.FormatInt(int64(d.opts.TTL/time.Second), 10),
		"pid-file=" + filepath.Join(d.host.Dir(), d.name(r)+".pid"),
		"user=root", "group=", // as it is: in a user namespace there may be no others
		"log-facility=-",
		"log-queries",
		"address=/#/", // nobody is asked: no other name exists, and of no other kind
	}
	if names != "" {
		lines = append(lines, "addn-hosts="+names)
	}
	if to.IsValid() {
		lines = append(lines, "address=/#/"+to.String())
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

func (d *DNS) name(r *resolver) string {
	return "dns-" + strings.ReplaceAll(r.addr.String(), ":", "-")
}

// run lets dnsmasq answer at an address, in place of whatever did.
func (d *DNS) run(ctx context.Context, r *resolver, names string, to netip.Addr) error {
	if err := r.stop(); err != nil {
		return err
	}
	conf := filepath.Join(d.host.Dir(), d.name(r)+".conf")
	if err := d.host.WriteFile(conf, d.dnsConf(r, names, to), 0o644); err != nil {
		return err
	}
	return r.program.start(ctx, netbox.Service{
		Name: d.name(r), Path: "dnsmasq", Args: []string{"--conf-file=" + conf},
		Ready: func(ctx context.Context) error { return d.answers(ctx, r) },
	})
}

// answers says whether there is any answer at an address.
func (d *DNS) answers(ctx context.Context, r *resolver) error {
	conn, err := d.host.Dial(ctx, "udp", net.JoinHostPort(r.addr.String(), "53"))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it was only tried
	client := dns.Client{Timeout: time.Second}
	_, _, err = client.ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion("ready.invalid.", dns.TypeA), &dns.Conn{Conn: conn})
	return err
}

// respond lets one of ours answer at an address, in place of whatever did.
func (d *DNS) respond(ctx context.Context, r *resolver, answer dnsHandler) error {
	if err := r.stop(); err != nil {
		return err
	}
	at := net.JoinHostPort(r.addr.String(), "53")
	packet, err := d.host.ListenPacket(ctx, "udp", at)
	if err != nil {
		return err
	}
	stream, err := d.host.Listen(ctx, "tcp", at)
	if err != nil {
		return errors.Join(err, packet.Close())
	}
	r.responder = newDNSResponder(packet, stream, answer)
	return nil
}

func (r *resolver) stop() error {
	err := r.program.stop()
	if r.responder != nil {
		err = errors.Join(err, r.responder.stop())
		r.responder = nil
	}
	return err
}

// each changes the resolver at an address, or every one.
func (d *DNS) each(addr netip.Addr, what string, change func(*resolver) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return fmt.Errorf("cannot %s DNS: %w", what, net.ErrClosed)
	}
	found := false
	failed := make([]error, len(d.resolvers))
	var wg sync.WaitGroup
	for i, r := range d.resolvers {
		if addr.IsValid() && r.addr != addr {
			continue
		}
		found = true
		wg.Go(func() { // at once: on an emulated processor a start takes a second
			if err := change(r); err != nil {
				failed[i] = fmt.Errorf("cannot %s DNS at %s: %w", what, r.addr, err)
			}
		})
	}
	wg.Wait()
	if !found {
		return fmt.Errorf("cannot %s DNS: there is none at %s", what, addr)
	}
	return errors.Join(failed...)
}

// Healthy ends the fault, whichever it is.
func (d *DNS) Healthy(ctx context.Context, addr netip.Addr) error {
	return d.each(addr, "heal", func(r *resolver) error { return d.run(ctx, r, d.namesFile(), netip.Addr{}) })
}

// Dead lets it be silent: queries are not refused, and not answered. By TCP it
// can be connected to.
func (d *DNS) Dead(ctx context.Context, addr netip.Addr) error {
	return d.each(addr, "silence", func(r *resolver) error {
		if r.program.process == nil || !running(r.program.process) {
			if err := d.run(ctx, r, d.namesFile(), netip.Addr{}); err != nil {
				return err
			}
		}
		return r.program.hold()
	})
}

// Down closes its ports: queries are refused by ICMP.
func (d *DNS) Down(addr netip.Addr) error {
	return d.each(addr, "stop", func(r *resolver) error { return r.stop() })
}

// Servfail lets it answer every query with SERVFAIL.
func (d *DNS) Servfail(ctx context.Context, addr netip.Addr) error {
	return d.each(addr, "break", func(r *resolver) error { return d.respond(ctx, r, dnsServfail) })
}

// Slow lets it answer each query this much later.
func (d *DNS) Slow(ctx context.Context, addr netip.Addr, by time.Duration) error {
	return d.each(addr, "slow", func(r *resolver) error {
		return d.respond(ctx, r, dnsSlow(by, dnsAnswers(d.opts.Names, d.opts.TTL)))
	})
}

// Hijack lets every name have this address, those that exist as well. Of the
// other family names have none.
func (d *DNS) Hijack(ctx context.Context, addr, to netip.Addr) error {
	return d.each(addr, "hijack", func(r *resolver) error { return d.run(ctx, r, "", to) })
}

// Wildcard lets names that do not exist have this address, as an operator does
// who shows advertisements in place of NXDOMAIN.
func (d *DNS) Wildcard(ctx context.Context, addr, to netip.Addr) error {
	return d.each(addr, "rewrite", func(r *resolver) error { return d.run(ctx, r, d.namesFile(), to) })
}

// Stop ends all resolvers for good. Stopping them again does nothing.
func (d *DNS) Stop() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	var err error
	for _, r := range d.resolvers {
		err = errors.Join(err, r.stop())
	}
	if err != nil {
		return fmt.Errorf("cannot stop DNS on %s: %w", d.host.Name(), err)
	}
	return nil
}
