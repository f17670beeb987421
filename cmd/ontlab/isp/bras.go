package isp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// BRASOptions describe a PPPoE access server.
type BRASOptions struct {
	// Name tells servers on one host apart; empty means "bras".
	Name string
	// Interface is where subscribers are: an Ethernet or VLAN interface of the
	// host, which is up.
	Interface string
	// ACName is what it calls itself; empty means "BRAS".
	ACName string
	// ServiceNames are those that it offers besides the empty one, which
	// stands for the first of them.
	ServiceNames []string
	// Auth are the ways in which subscribers prove who they are, "pap" and
	// "chap". Of both, CHAP is tried first. Empty means both.
	Auth []string
	// MTU is the largest that a session may have: 1492, which 0 means, or up
	// to 1500, which clients get that ask for it (RFC 4638). The interface's
	// own must be 8 more.
	MTU int
	// LocalAddr is the server's end of each session; the zero Addr means
	// 10.64.0.1. Pool is the first of the addresses that subscribers get, one
	// behind the other; the zero Addr means 100.64.0.10.
	LocalAddr, Pool netip.Addr
	// DNS are told to subscribers: the first two of IPv4, and all of IPv6.
	DNS []netip.Addr
	// MaxSessions is the size of the pool, 0 means 16; one session more is
	// refused by a PADS with a Generic-Error. SessionsPerMAC bounds those of
	// one client, whose further requests are not answered; 0 means any number.
	MaxSessions, SessionsPerMAC int
	// EchoInterval is how often the server asks whether the client is there;
	// after EchoFailures without an answer the session ends. 0 means 20 s and 3;
	// a negative interval means that it doesn't ask.
	EchoInterval time.Duration
	EchoFailures int
	// RADIUS is the AAA; nil means that Secrets are all it knows.
	RADIUS  *RADIUSClient
	Secrets []Account
	// IPv6 is for subscribers who ask for it; nil means that there is none.
	IPv6 *BRASIPv6
}

// RADIUSClient is how an AAA is asked.
type RADIUSClient struct {
	// Server is where authentications are asked for; accounting is the next
	// port.
	Server netip.AddrPort
	Secret string
	// Timeout is for one request, in whole seconds, 0 means 3 s; Retries is how
	// often it is repeated, 0 means once.
	Timeout time.Duration
	Retries int
}

// Client is how a BRAS on the same host asks this server.
func (r *RADIUS) Client() *RADIUSClient { return &RADIUSClient{Server: r.Addr(), Secret: r.Secret()} }

// BRASIPv6 is what subscribers get of IPv6.
type BRASIPv6 struct {
	// Links is divided into a /64 for each session, which is advertised there.
	Links netip.Prefix
	// Delegated is divided into the prefixes that are delegated, each of
	// DelegatedBits; 0 means 60.
	Delegated     netip.Prefix
	DelegatedBits int
}

// BRAS is a running PPPoE server: Debian's pppoe-server for discovery, and its
// pppd, in the kernel's PPPoE, for sessions.
type BRAS struct {
	host     *netbox.Host
	options  BRASOptions
	dir      string
	events   *os.File
	cancel   context.CancelFunc
	running  sync.WaitGroup
	ac       *accessConcentrator
	dhcp6    *DHCP6               // nil without IPv6
	adverts  *netbox.Process      // nil without IPv6
	mu       sync.Mutex           // guards what follows
	sessions map[int]*BRASSession // by process
	second   *accessConcentrator  // nil if there is none
	frozen   bool                 // pppds are stopped as soon as they are up
	problem  error                // the first, of those that nobody waited for
}

// accessConcentrator is a pppoe-server with its front.
type accessConcentrator struct {
	front  *brasFront
	server *netbox.Process
	remove func() error
}

// StartBRAS starts an access server on host.
func StartBRAS(ctx context.Context, host *netbox.Host, o BRASOptions) (*BRAS, error) {
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("cannot start access server: %w", err)
	}
	b := &BRAS{host: host, options: o, dir: filepath.Join(host.Dir(), o.Name), sessions: make(map[int]*BRASSession)}
	if err := b.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start access server %s: %w", o.Name, err), b.Stop())
	}
	return b, nil
}

// setDefaults makes what is left open explicit.
func (o *BRASOptions) setDefaults() error {
	if o.Interface == "" {
		return errors.New("no interface is given")
	}
	setDefault(&o.Name, "bras")
	setDefault(&o.ACName, "BRAS")
	setDefault(&o.MTU, 1492)
	setDefault(&o.LocalAddr, netip.AddrFrom4([4]byte{10, 64, 0, 1}))
	setDefault(&o.Pool, netip.AddrFrom4([4]byte{100, 64, 0, 10}))
	setDefault(&o.MaxSessions, 16)
	setDefault(&o.EchoInterval, 20*time.Second)
	setDefault(&o.EchoFailures, 3)
	if len(o.Auth) == 0 {
		o.Auth = []string{"pap", "chap"}
	}
	for _, a := range o.Auth {
		if a != "pap" && a != "chap" {
			return fmt.Errorf("unknown authentication %q", a)
		}
	}
	if o.MTU < 576 || o.MTU > 1500 {
		return fmt.Errorf("mtu of %d: not from 576 to 1500", o.MTU)
	}
	if o.RADIUS != nil {
		r := *o.RADIUS
		setDefault(&r.Timeout, 3*time.Second)
		setDefault(&r.Retries, 1)
		o.RADIUS = &r
	}
	if o.IPv6 != nil {
		v6 := *o.IPv6
		setDefault(&v6.DelegatedBits, 60)
		if v6.Links.Bits() > 64 || !v6.Links.Addr().Is6() {
			return fmt.Errorf("prefix for links %v: there is no /64 in it", v6.Links)
		}
		if !v6.Delegated.Addr().Is6() || v6.Delegated.Bits() > v6.DelegatedBits {
			return fmt.Errorf("prefix to delegate %v: there is no /%d in it", v6.Delegated, v6.DelegatedBits)
		}
		o.IPv6 = &v6
	}
	return nil
}

// setDefault sets a field that has its zero value.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (b *BRAS) start(ctx context.Context) error {
	files, err := b.options.files(b.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := b.host.WriteFile(f.path, []byte(f.text), f.perm); err != nil {
			return err
		}
	}
	fifo := filepath.Join(b.dir, "events")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("cannot make pipe: %w", err)
	}
	if b.events, err = os.OpenFile(fifo, os.O_RDWR, 0); err != nil { // both ways: opening must not wait for a writer
		return err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.cancel = cancel
	events := b.events
	b.running.Go(func() { b.follow(life, events) })
	b.running.Go(func() { b.reap(life) })
	// At the same time: Kea alone takes seconds on an emulated processor.
	var starts sync.WaitGroup
	var errs [3]error
	starts.Go(func() {
		var ac *accessConcentrator
		ac, errs[0] = b.startAC(ctx, 0, b.options.Interface, b.options.ACName)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.ac = ac
	})
	if b.options.IPv6 != nil {
		starts.Go(func() { b.adverts, errs[1] = b.startAdvertising(ctx) })
		starts.Go(func() { b.dhcp6, errs[2] = b.startDelegating(ctx) })
	}
	starts.Wait()
	return errors.Join(errs[:]...)
}

// startAC starts a pppoe-server for the subscribers at device. number is one of
// a kind in this BRAS.
func (b *BRAS) startAC(ctx context.Context, number int, device, name string) (*accessConcentrator, error) {
	inner := fmt.Sprintf("%.9s-ac%d", b.options.Name, number)
	if _, err := b.sh(ctx, `
mac=$(cat "/sys/class/net/$1/address")
mtu=$(cat "/sys/class/net/$1/mtu")
[ "$mtu" -ge "$4" ] || { echo "$1 has an MTU of $mtu, which must be $4" >&2; exit 1; }
ip link add "$2" type veth peer name "$3"
for i in "$2" "$3"; do
	ip link set dev "$i" addrgenmode none mtu "$4" up
done
# The first of the pair is pppoe-server's: it is who subscribers speak to.
ip link set dev "$2" address "$mac"`, device, inner+"s", inner+"f", fmt.Sprint(b.options.MTU+8)); err != nil {
		return nil, fmt.Errorf("cannot make link to pppoe-server: %w", err)
	}
	remove := func() error { return b.host.Remove(inner + "s") }
	wrapper := filepath.Join(b.dir, fmt.Sprint("pppd-", number))
	args := []string{
		"-F", "-I", inner + "s", "-C", name, "-L", b.options.LocalAddr.String(), "-R", b.options.Pool.String(),
		"-N", fmt.Sprint(b.options.MaxSessions), "-O", filepath.Join(b.dir, "options"), "-q", wrapper,
	}
	if n := b.options.SessionsPerMAC; n > 0 {
		args = append(args, "-x", fmt.Sprint(n))
	}
	for _, s := range b.options.ServiceNames {
		args = append(args, "-S", s)
	}
	if err := b.host.WriteFile(wrapper, []byte(b.options.pppdWrapper(b.dir, device)), 0o700); err != nil {
		return nil, errors.Join(err, remove())
	}
	server, err := b.host.Start(ctx, netbox.Service{
		Name: fmt.Sprint(b.options.Name, "-pppoe-server-", number), Path: "/usr/sbin/pppoe-server", Args: args,
		// It does not say when it is ready.
		Ready: func(ctx context.Context) error { return askForOffer(ctx, b.host, inner+"f") },
	})
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	front, err := startFront(ctx, b.host, device, inner+"f", name)
	if err != nil {
		return nil, errors.Join(err, server.Stop(), remove())
	}
	return &accessConcentrator{front: front, server: server, remove: remove}, nil
}

func (ac *accessConcentrator) stop() error {
	err := ac.server.Stop()
	ac.front.stop()
	return errors.Join(err, ac.remove())
}

// fronts are those of all access concentrators.
func (b *BRAS) fronts() []*brasFront {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []*brasFront
	for _, ac := range []*accessConcentrator{b.ac, b.second} {
		if ac != nil {
			all = append(all, ac.front)
		}
	}
	return all
}

// sh runs a script on the host.
func (b *BRAS) sh(ctx context.Context, script string, args ...string) ([]byte, error) {
	return b.host.Run(ctx, "/bin/sh", append([]string{"-ec", script, "sh"}, args...)...)
}

// DHCP6 is the server that delegates prefixes in sessions; nil without IPv6.
func (b *BRAS) DHCP6() *DHCP6 { return b.dhcp6 }

// Err is the first problem that came up while nobody waited for it: a rate
// could not be set, a prefix not be offered. A lab that has one doesn't play
// what it should.
func (b *BRAS) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.problem
}

func (b *BRAS) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.problem == nil {
		b.problem = err
	}
}

// Stop ends the server and its sessions.
func (b *BRAS) Stop() error {
	b.mu.Lock()
	ac, second, events, cancel := b.ac, b.second, b.events, b.cancel
	b.ac, b.second, b.events = nil, nil, nil
	b.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	var errs []error
	for _, s := range b.Sessions() {
		signalPPPD(s.PID, syscall.SIGCONT) // a stopped one hears nothing else
	}
	for _, one := range []*accessConcentrator{second, ac} {
		if one != nil {
			errs = append(errs, one.stop())
		}
	}
	for _, s := range b.Sessions() {
		signalPPPD(s.PID, syscall.SIGKILL)
	}
	if ac != nil {
		errs = append(errs, b.removeRates())
	}
	if events != nil {
		errs = append(errs, events.Close())
	}
	b.running.Wait()
	if b.adverts != nil {
		errs = append(errs, b.adverts.Stop())
	}
	if b.dhcp6 != nil {
		errs = append(errs, b.dhcp6.Stop())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot stop access server %s: %w", b.options.Name, err)
	}
	return nil
}

// removeRates removes what sessions have left that ended by force.
func (b *BRAS) removeRates() error {
	var entries []os.DirEntry
	errs := []error{b.host.Do(func() (err error) {
		entries, err = os.ReadDir("/sys/class/net")
		return err
	})}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "ppp") && strings.HasSuffix(e.Name(), "-up") {
			errs = append(errs, b.host.Remove(e.Name()))
		}
	}
	return errors.Join(errs...)
}
