package isp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"

	"ontagent/cmd/ontlab/netbox"
)

// BrokerOptions describe a broker. Listen has to be given.
type BrokerOptions struct {
	// Listen is where it takes connections. Port 0 means 1883.
	Listen netip.AddrPort
}

// Broker is mosquitto: everyone may do everything, and it keeps nothing on
// disk. It is safe for concurrent use.
type Broker struct {
	service netbox.Service

	mu      sync.Mutex
	stopped bool
	program program
}

// StartBroker starts mosquitto, which takes connections when StartBroker
// returns. ctx bounds the start only.
func StartBroker(ctx context.Context, host *netbox.Host, o BrokerOptions) (*Broker, error) {
	if o.Listen.Port() == 0 {
		o.Listen = netip.AddrPortFrom(o.Listen.Addr(), 1883)
	}
	fail := func(err error) (*Broker, error) {
		return nil, fmt.Errorf("cannot start broker on %s: %w", host.Name(), err)
	}
	conf := filepath.Join(host.Dir(), "broker.conf")
	if err := host.WriteFile(conf, brokerConf(o.Listen), 0o644); err != nil {
		return fail(err)
	}
	b := &Broker{
		service: netbox.Service{Name: "broker", Path: "mosquitto", Args: []string{"-c", conf}, Ready: func(ctx context.Context) error {
			conn, err := host.Dial(ctx, "tcp", o.Listen.String())
			if err != nil {
				return err
			}
			return conn.Close()
		}},
		program: program{host: host},
	}
	if err := b.Healthy(ctx); err != nil {
		return fail(err)
	}
	return b, nil
}

func brokerConf(listen netip.AddrPort) []byte {
	return []byte("listener " + strconv.Itoa(int(listen.Port())) + " " + listen.Addr().String() + "\n" +
		"allow_anonymous true\npersistence false\nlog_dest stderr\n" +
		// Run by root it would change to a user that a host may not have.
		"user root\n" +
		// By default it drops what a slow subscriber has not taken of 1000 messages.
		"max_queued_messages 0\n")
}

// Healthy starts it again, or lets it go on, whichever it needs.
func (b *Broker) Healthy(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.stopped:
		return net.ErrClosed
	case b.program.held:
		return b.program.resume()
	case b.program.process != nil && running(b.program.process):
		return nil
	}
	return b.program.start(ctx, b.service)
}

// running says whether a process has not ended.
func running(p *netbox.Process) bool {
	select {
	case <-p.Done():
		return false
	default:
		return true
	}
}

// Down ends it in order: its connections are closed, its port refuses.
func (b *Broker) Down() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.program.stop()
}

// Silent holds it: connections stay and are taken, and nothing is answered.
func (b *Broker) Silent() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.program.process == nil {
		return errors.New("cannot hold broker: it does not run")
	}
	return b.program.hold()
}

// Stop ends it for good. Stopping it again does nothing.
func (b *Broker) Stop() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	return b.program.stop()
}
