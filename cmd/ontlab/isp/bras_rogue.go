package isp

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/mdlayher/packet"

	"ontagent/cmd/ontlab/netbox"
)

// RogueAC is an access concentrator that leads nowhere: it makes offers, and
// confirms sessions, and speaks no PPP in them.
type RogueAC struct {
	conn    *packet.Conn
	mac     net.HardwareAddr
	acName  string
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	silent  bool
	session uint16 // the last that was confirmed
}

// rogueIsLate is how late the offers of a rogue come: a client that takes the
// first one takes that of the real server.
const rogueIsLate = 60 * time.Millisecond

// StartRogueAC starts one on an interface of a host that is up.
func StartRogueAC(ctx context.Context, host *netbox.Host, ifname, acName string) (*RogueAC, error) {
	r := &RogueAC{acName: acName}
	err := host.Do(func() error {
		var err error
		r.conn, r.mac, err = listenDiscovery(ifname)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot start access concentrator %s: %w", acName, err)
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	r.running.Go(func() { receive(r.conn, func(d discovery) { r.answer(life, d) }) })
	return r, nil
}

// Silence makes it deaf, or ends that.
func (r *RogueAC) Silence(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = on
}

func (r *RogueAC) answer(ctx context.Context, d discovery) {
	r.mu.Lock()
	silent := r.silent
	r.mu.Unlock()
	answer := discovery{dst: d.src, src: r.mac, code: codePADO, tags: appendTag(nil, tagACName, []byte(r.acName))}
	late := rogueIsLate
	switch {
	case silent:
		return
	case d.code == codePADI:
	case d.code == codePADR && bytes.Equal(d.dst, r.mac):
		r.mu.Lock()
		r.session++
		answer.code, answer.session, late = codePADS, r.session, 0
		r.mu.Unlock()
	default:
		return
	}
	for _, kind := range []uint16{tagServiceName, tagHostUniq} {
		if value, ok := d.tag(kind); ok {
			answer.tags = appendTag(answer.tags, kind, value)
		}
	}
	r.running.Go(func() {
		select {
		case <-ctx.Done():
		case <-time.After(late):
			send(r.conn, answer)
		}
	})
}

// Stop ends it.
func (r *RogueAC) Stop() error {
	r.cancel()
	err := r.conn.Close()
	r.running.Wait()
	if err != nil {
		return fmt.Errorf("cannot stop access concentrator %s: %w", r.acName, err)
	}
	return nil
}
