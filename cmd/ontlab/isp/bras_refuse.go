package isp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// BlockMAC makes the server deaf to one client's PADI and PADR, as after too
// many failures; nil ends it. Its sessions go on, other clients are served.
func (b *BRAS) BlockMAC(mac net.HardwareAddr) {
	var blocked [6]byte
	copy(blocked[:], mac)
	for _, f := range b.fronts() {
		f.set(func(x *frontFaults) { x.blocked = blocked })
	}
}

// Negotiation is what the server insists on in sessions that begin from now on.
type Negotiation struct {
	// Auth are the ways in which subscribers prove who they are; nil means
	// those of the BRASOptions.
	Auth []string
	// NoIP rejects IPCP. IPv6CP, without which the session would just be
	// closed, opens, but nobody advertises a router.
	NoIP bool
}

// Negotiate changes what the server insists on; the zero Negotiation is as it
// was started. Sessions that there are go on, but those end that NoIP, if it
// was on, left without an address.
func (b *BRAS) Negotiate(n Negotiation) error {
	o := b.options
	if n.Auth != nil {
		o.Auth = n.Auth
	}
	for _, a := range o.Auth {
		if a != "pap" && a != "chap" {
			return fmt.Errorf("cannot change access server %s: unknown authentication %q", o.Name, a)
		}
	}
	text := o.pppdOptions(b.dir)
	var err error
	if n.NoIP {
		text += "+ipv6\nnoip\n"
		err = os.WriteFile(b.noIPFlag(), nil, 0o600)
	} else if err = os.Remove(b.noIPFlag()); err == nil {
		for _, s := range b.Sessions() {
			if !s.Up() {
				signalPPPD(s.PID, syscall.SIGTERM)
			}
		}
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = b.host.WriteFile(filepath.Join(b.dir, "options"), []byte(text), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot change access server %s: %w", o.Name, err)
	}
	return nil
}

// noIPFlag is a file that is there while NoIP is on.
func (b *BRAS) noIPFlag() string { return filepath.Join(b.dir, "no-ip") }

func (b *BRAS) rejectsIP() bool {
	_, err := os.Stat(b.noIPFlag())
	return err == nil
}
