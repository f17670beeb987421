package isp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// Account is a subscriber as the operator knows it.
type Account struct {
	// Name and Password are what the subscriber's gateway presents. Both are
	// 1 to 128 bytes without control characters.
	Name, Password string
	// Reject, if not empty, is the Reply-Message with which this account is
	// rejected whatever its password: "suspended", for example. It is up to
	// 200 bytes long. Only an AAA can: a BRAS with secrets of its own can't.
	Reject string
	// Rejected rejects the account as Reject does, without a word if that is
	// empty.
	Rejected bool
	// SessionLimit is how many sessions the account may have at once; 0 means
	// any number. Only an AAA can.
	SessionLimit int
	// DownMbps and UpMbps are the rates of a session as the subscriber sees
	// them, which the BRAS enforces; 0 means unlimited. Only an AAA can.
	DownMbps, UpMbps float64
	// FramedIP is the subscriber's address; the zero Addr means one of the
	// BRAS's pool.
	FramedIP netip.Addr
	// SessionTimeout ends a session, in whole seconds; 0 means never.
	SessionTimeout time.Duration
}

// RADIUSOptions describe an AAA server.
type RADIUSOptions struct {
	// Name tells servers on one host apart; empty means "radius".
	Name string
	// Address is where it listens: port 1812 for authentication and 1813 for
	// accounting. The zero Addr means 127.0.0.1. It needs no address of the
	// host's, any of 127.0.0.0/8 will do.
	Address netip.Addr
	// Secret is shared with its clients, which may be anywhere in the host;
	// empty means "secret".
	Secret string
	// Accounts are those that it knows.
	Accounts []Account
	// UnknownReply and WrongPasswordReply are the Reply-Messages of the usual
	// rejections, up to 200 bytes; empty means none. SessionLimitReply is that
	// of one session too many; empty means FreeRADIUS's own words.
	UnknownReply, WrongPasswordReply, SessionLimitReply string
	// SessionLimitSilent rejects one session too many without a word.
	SessionLimitSilent bool
}

// RADIUS is a running FreeRADIUS, behind a relay that can delay and lose its
// answers.
type RADIUS struct {
	host    *netbox.Host
	options RADIUSOptions
	dir     string
	relay   *radiusRelay

	mu        sync.Mutex // held while a server is started or stopped
	server    *netbox.Process
	started   int                         // how many servers were started; the next one's number
	elsewhere map[string]*radiusElsewhere // by account
}

// The ports of the relay; the servers behind it take turns on others.
const (
	radiusAuthPort = 1812
	radiusAcctPort = 1813
)

// StartRADIUS starts an AAA server on host.
func StartRADIUS(ctx context.Context, host *netbox.Host, o RADIUSOptions) (*RADIUS, error) {
	if o.Name == "" {
		o.Name = "radius"
	}
	if !o.Address.IsValid() {
		o.Address = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if o.Secret == "" {
		o.Secret = "secret"
	}
	r := &RADIUS{host: host, options: o, dir: filepath.Join(host.Dir(), o.Name)}
	relay, err := startRADIUSRelay(ctx, host, o.Address)
	if err != nil {
		return nil, fmt.Errorf("cannot start radius server %s: %w", o.Name, err)
	}
	r.relay = relay
	if err := r.SetAccounts(ctx, o.Accounts); err != nil {
		relay.stop()
		return nil, err
	}
	return r, nil
}

// Addr is where the server is asked for authentication; accounting is the next
// port.
func (r *RADIUS) Addr() netip.AddrPort {
	return netip.AddrPortFrom(r.options.Address, radiusAuthPort)
}

// Secret is what is shared with clients.
func (r *RADIUS) Secret() string { return r.options.Secret }

// SetAccounts replaces the accounts. It starts a second server, and lets it
// take over when it is ready: a FreeRADIUS that is told to read its files again
// ignores that for seconds. Sessions stay known.
func (r *RADIUS) SetAccounts(ctx context.Context, accounts []Account) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.replace(ctx, accounts); err != nil {
		return fmt.Errorf("cannot start radius server %s: %w", r.options.Name, err)
	}
	return nil
}

// replace starts a server with accounts and stops the one before.
func (r *RADIUS) replace(ctx context.Context, accounts []Account) error {
	number := r.started
	r.started++
	c := radiusConfig{
		options:    r.options,
		accounts:   accounts,
		dir:        filepath.Join(r.dir, fmt.Sprint("server-", number)),
		state:      r.dir,
		authPort:   uint16(21812 + number%2*1000),
		acctPort:   uint16(21813 + number%2*1000),
		accounting: r.accountingFile(),
	}
	files, err := c.files()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	name := fmt.Sprint(r.options.Name, "-", number)
	server, err := r.host.Start(ctx, netbox.Service{
		Name:  name,
		Path:  "/usr/sbin/freeradius",
		Args:  []string{"-f", "-l", "stdout", "-d", c.dir, "-D", c.dir},
		Ready: logGets(r.host, name, "Ready to process requests"),
	})
	if err != nil {
		return err
	}
	r.relay.to(c.authPort, c.acctPort)
	old := r.server
	r.server = server
	if old != nil {
		return old.Stop()
	}
	return nil
}

// Delay makes the answers to authentications late by d; 0 ends it. Accounting is
// not concerned, nor is it by Silence: an access server keeps what it has to
// tell until it can, but pppd would wait for that, and do nothing else.
func (r *RADIUS) Delay(d time.Duration) { r.relay.setDelay(d) }

// Silence makes the server deaf to authentications, or ends that: the AAA is
// down, as those who ask it see it.
func (r *RADIUS) Silence(on bool) { r.relay.setSilent(on) }

// Asked are the authentications that clients asked for, oldest first, without
// their retransmissions; of many, only the latest.
func (r *RADIUS) Asked() []RADIUSExchange { return r.relay.asked() }

// Sessions are those that have begun and not ended as the accounting has it,
// in the order in which they began.
func (r *RADIUS) Sessions() ([]RADIUSSession, error) {
	text, err := os.ReadFile(r.accountingFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read accounting of %s: %w", r.options.Name, err)
	}
	return radiusSessions(string(text)), nil
}

func (r *RADIUS) accountingFile() string { return filepath.Join(r.dir, "accounting") }

// Stop ends the server.
func (r *RADIUS) Stop() error {
	r.relay.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == nil {
		return nil
	}
	server := r.server
	r.server = nil
	if err := server.Stop(); err != nil {
		return fmt.Errorf("cannot stop radius server %s: %w", r.options.Name, err)
	}
	return nil
}
