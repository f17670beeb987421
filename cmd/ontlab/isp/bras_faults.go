package isp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Silence makes the server deaf to discovery, or ends that: no PADO, no PADS.
// Sessions go on.
func (b *BRAS) Silence(on bool) {
	for _, f := range b.fronts() {
		f.set(func(x *frontFaults) { x.silent = on })
	}
}

// DelayPADO makes offers come late by d; 0 ends it.
func (b *BRAS) DelayPADO(d time.Duration) {
	for _, f := range b.fronts() {
		f.set(func(x *frontFaults) { x.padoDelay = d })
	}
}

// PADOError makes each offer a refusal; nil ends it.
func (b *BRAS) PADOError(e *DiscoveryError) {
	e = e.clone()
	for _, f := range b.fronts() {
		f.set(func(x *frontFaults) { x.padoError = e })
	}
}

// PADSError makes each request for a session be refused; nil ends it.
func (b *BRAS) PADSError(e *DiscoveryError) {
	e = e.clone()
	for _, f := range b.fronts() {
		f.set(func(x *frontFaults) { x.padsError = e })
	}
}

func (e *DiscoveryError) clone() *DiscoveryError {
	if e == nil {
		return nil
	}
	c := *e
	c.Text = c.Text[:min(len(c.Text), 1000)]
	return &c
}

// IgnorePADR makes the server deaf to those who accept its offer, or ends that.
func (b *BRAS) IgnorePADR(on bool) {
	for _, f := range b.fronts() {
		f.set(func(x *frontFaults) { x.ignorePADR = on })
	}
}

// LCPSilent lets sessions begin in which nobody speaks PPP, or ends that; those
// that there are stay as they are.
func (b *BRAS) LCPSilent(on bool) error {
	flag := b.lcpSilentFlag()
	var err error
	if on {
		err = os.WriteFile(flag, nil, 0o600)
	} else if err = os.Remove(flag); errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("cannot change access server %s: %w", b.options.Name, err)
	}
	for _, f := range b.fronts() {
		f.set(func(x *frontFaults) { x.lcpSilent = on })
	}
	return nil
}

// lcpSilentFlag is a file which the wrapper of pppd looks for.
func (b *BRAS) lcpSilentFlag() string { return filepath.Join(b.dir, "lcp-silent") }

// SecondAC adds another access concentrator with a name, and a MAC address, of
// its own, or ends that, and its sessions, if name is empty. It is a whole one:
// sessions come up. Faults that are on already don't concern it.
func (b *BRAS) SecondAC(ctx context.Context, name string) error {
	b.mu.Lock()
	old := b.second
	b.second = nil
	b.mu.Unlock()
	const device = "ac2"
	if old != nil {
		if err := old.stop(); err != nil {
			return fmt.Errorf("cannot end second access concentrator: %w", err)
		}
	}
	if name == "" {
		return nil
	}
	if _, err := b.sh(ctx, `ip link add link "$1" name "$2" type macvlan mode bridge
ip link set dev "$2" addrgenmode none up`, b.options.Interface, device); err != nil {
		return fmt.Errorf("cannot add second access concentrator: %w", err)
	}
	ac, err := b.startAC(ctx, 1, device, name)
	if err != nil {
		return errors.Join(fmt.Errorf("cannot add second access concentrator: %w", err), b.host.Remove(device))
	}
	inner := ac.remove
	ac.remove = func() error { return errors.Join(inner(), b.host.Remove(device)) }
	b.mu.Lock()
	defer b.mu.Unlock()
	b.second = ac
	return nil
}

// DropSessions ends all sessions as an operator does: LCP Terminate-Request,
// then PADT.
func (b *BRAS) DropSessions() {
	for _, s := range b.Sessions() {
		signalPPPD(s.PID, syscall.SIGTERM)
		signalPPPD(s.PID, syscall.SIGCONT)
	}
}

// ForgetSessions ends all sessions as a power cut does: nobody is told, neither
// clients nor the AAA, which believes that they go on.
func (b *BRAS) ForgetSessions() error {
	var open []kernelSession
	err := b.host.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/pppoe")
		open = parsePPPoESessions(string(text))
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot list sessions of %s: %w", b.options.Name, err)
	}
	for _, f := range b.fronts() {
		var ids []uint16
		for _, s := range open {
			if s.device == f.device {
				ids = append(ids, s.id)
			}
		}
		f.mute(ids)
	}
	for _, s := range b.Sessions() {
		signalPPPD(s.PID, syscall.SIGKILL)
	}
	return nil
}

// EchoLoss makes sessions deaf, or ends that: their pppds are stopped, so that
// nobody answers LCP echoes, while the kernel goes on passing packets. Sessions
// that come up meanwhile are made so too.
func (b *BRAS) EchoLoss(on bool) {
	b.mu.Lock()
	b.frozen = on
	b.mu.Unlock()
	signal := syscall.SIGCONT
	if on {
		signal = syscall.SIGSTOP
	}
	for _, s := range b.Sessions() {
		signalPPPD(s.PID, signal)
	}
}
