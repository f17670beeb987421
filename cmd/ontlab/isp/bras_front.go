package isp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"ontagent/cmd/ontlab/netbox"
)

// Bounds of what a front does.
const (
	// sessionOpens is how long a pppd may take until its session is open in
	// the kernel; then the client is told of the session all the same.
	sessionOpens = 8 * time.Second
	// frontHolds is how many frames it keeps for later; more are dropped.
	frontHolds = 256
)

// brasFront stands between subscribers and a pppoe-server. That works on an
// interface of its own, a veth whose other end is the front's, and which has
// the address of the real one; so frames are passed on as they are.
//
// Without faults it changes one thing: it holds a PADS until the server's pppd
// has opened the session. Debian's pppoe-server tells the client first, starts
// pppd then, and what the client sends within the second or so that this takes
// on an emulated processor is lost; the client repeats it three seconds later.
// A BRAS made for its work is ready when it says so.
type brasFront struct {
	host   *netbox.Host
	acName string
	wire   *packet.Conn // subscribers' side
	server *packet.Conn // pppoe-server's side
	mac    net.HardwareAddr
	device string // the wire's interface

	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	faults  frontFaults
	held    int
	opening map[[6]byte]bool // clients whose session is being opened
	muted   map[uint16]bool  // sessions of whose end nobody is told
}

// frontFaults are what a front does wrong.
type frontFaults struct {
	silent     bool            // nobody is there
	padoDelay  time.Duration   // offers come late
	padoError  *DiscoveryError // offers are refusals
	ignorePADR bool            // after an offer nobody is there
	padsError  *DiscoveryError // no session, but this
	lcpSilent  bool            // sessions, but nobody who speaks PPP
	blocked    [6]byte         // a client whom nobody answers; zero: none
}

// startFront passes discovery frames between two interfaces of host.
func startFront(ctx context.Context, host *netbox.Host, device, server, acName string) (*brasFront, error) {
	f := &brasFront{host: host, acName: acName, device: device, opening: make(map[[6]byte]bool), muted: make(map[uint16]bool)}
	err := host.Do(func() error {
		var err error
		if f.wire, f.mac, err = listenDiscovery(device); err != nil {
			return err
		}
		if f.server, _, err = listenDiscovery(server); err != nil {
			_ = f.wire.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.cancel = cancel
	f.running.Go(func() { f.fromWire(life) })
	f.running.Go(func() { f.fromServer(life) })
	return f, nil
}

// listenDiscovery opens a socket for the discovery frames that come in at an
// interface, whomever they are for. It must be called inside the host.
func listenDiscovery(ifname string) (*packet.Conn, net.HardwareAddr, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot find interface %s: %w", ifname, err)
	}
	c, err := packet.Listen(ifi, packet.Raw, etherTypeDiscovery, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot listen on %s: %w", ifname, err)
	}
	raw, err := c.SyscallConn()
	if err == nil {
		var optErr error
		err = raw.Control(func(fd uintptr) {
			optErr = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		})
		if err == nil {
			err = optErr
		}
	}
	if err != nil {
		_ = c.Close()
		return nil, nil, fmt.Errorf("cannot listen on %s: %w", ifname, err)
	}
	return c, ifi.HardwareAddr, nil
}

// askForOffer succeeds if somebody at the other end of an interface of host
// answers a PADI.
func askForOffer(ctx context.Context, host *netbox.Host, ifname string) error {
	var c *packet.Conn
	var mac net.HardwareAddr
	err := host.Do(func() error {
		var err error
		c, mac, err = listenDiscovery(ifname)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing is lost
	send(c, discovery{dst: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, src: mac, code: codePADI, tags: appendTag(nil, tagServiceName, nil)})
	deadline := time.Now().Add(100 * time.Millisecond)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	err = errors.New("no offer")
	receive(c, func(d discovery) {
		if d.code == codePADO {
			err = nil
			_ = c.SetReadDeadline(time.Unix(1, 0)) // that will do
		}
	})
	return err
}

func (f *brasFront) stop() {
	f.cancel()
	_ = f.wire.Close()
	_ = f.server.Close()
	f.running.Wait()
}

// set changes the faults.
func (f *brasFront) set(change func(*frontFaults)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.faults)
}

// mute makes the ends of sessions unknown to their clients.
func (f *brasFront) mute(sessions []uint16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range sessions {
		f.muted[s] = true
	}
}

// send sends a frame to where it is addressed.
func send(c *packet.Conn, d discovery) {
	// A frame that can't be sent is lost, as on any wire.
	_, _ = c.WriteTo(d.bytes(), &packet.Addr{HardwareAddr: d.dst})
}

// later calls f after d in a goroutine of the front's, unless that ends first.
func (f *brasFront) later(ctx context.Context, d time.Duration, then func()) {
	f.mu.Lock()
	full := f.held == frontHolds
	if !full {
		f.held++
	}
	f.mu.Unlock()
	if full {
		return
	}
	f.running.Go(func() {
		select {
		case <-ctx.Done():
		case <-time.After(d):
			then()
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.held--
	})
}

// receive calls handle with what comes in, until the socket is closed.
func receive(c *packet.Conn, handle func(discovery)) {
	for buffer := make([]byte, 2048); ; {
		n, _, err := c.ReadFrom(buffer)
		if err != nil {
			if isTemporary(err) {
				continue
			}
			return
		}
		if d, err := parseDiscovery(bytes.Clone(buffer[:n])); err == nil {
			handle(d)
		}
	}
}

func (f *brasFront) fromWire(ctx context.Context) {
	receive(f.wire, func(d discovery) {
		f.mu.Lock()
		faults := f.faults
		var client [6]byte
		copy(client[:], d.src)
		opening := f.opening[client]
		f.mu.Unlock()
		switch {
		case faults.silent:
		case client == faults.blocked && d.code != codePADT:
		case d.code == codePADI && faults.padoError != nil:
			f.offer(ctx, d.refusal(f.mac, f.acName, *faults.padoError), faults.padoDelay)
		case d.code == codePADR && (faults.ignorePADR || opening):
		case d.code == codePADR && !bytes.Equal(d.dst, f.mac):
		case d.code == codePADR && faults.padsError != nil:
			send(f.wire, d.refusal(f.mac, f.acName, *faults.padsError))
		default:
			send(f.server, d)
		}
	})
}

func (f *brasFront) fromServer(ctx context.Context) {
	receive(f.server, func(d discovery) {
		f.mu.Lock()
		faults := f.faults
		muted := f.muted[d.session]
		f.mu.Unlock()
		switch {
		case faults.silent:
		case d.code == codePADO:
			f.offer(ctx, d, faults.padoDelay)
		case d.code == codePADS && d.session != 0:
			f.mu.Lock()
			delete(f.muted, d.session)
			f.mu.Unlock()
			if faults.lcpSilent {
				send(f.wire, d)
				return
			}
			f.confirm(ctx, d)
		case d.code == codePADT && muted:
		default:
			send(f.wire, d)
		}
	})
}

// offer sends a PADO, at once or late.
func (f *brasFront) offer(ctx context.Context, d discovery, delay time.Duration) {
	if delay <= 0 {
		send(f.wire, d)
		return
	}
	f.later(ctx, delay, func() { send(f.wire, d) })
}

// confirm sends a PADS when its session is open. Until then the client's
// repeated requests are not passed on: each would be a session.
func (f *brasFront) confirm(ctx context.Context, d discovery) {
	var client [6]byte
	copy(client[:], d.dst)
	f.mu.Lock()
	f.opening[client] = true
	f.mu.Unlock()
	f.running.Go(func() {
		defer func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.opening, client)
		}()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for began := time.Now(); time.Since(began) < sessionOpens && !f.isOpen(d.session, client[:]); {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		// pppd connects the session's socket to its interface just after.
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
		send(f.wire, d)
	})
}

// isOpen says whether the kernel knows a session.
func (f *brasFront) isOpen(session uint16, client net.HardwareAddr) bool {
	open := false
	_ = f.host.Do(func() error { // no such file: no such session
		text, err := os.ReadFile("/proc/thread-self/net/pppoe")
		for _, s := range parsePPPoESessions(string(text)) {
			open = open || s.id == session && bytes.Equal(s.peer, client) && s.device == f.device
		}
		return err
	})
	return open
}

// kernelSession is a PPPoE session that the kernel knows.
type kernelSession struct {
	id     uint16
	peer   net.HardwareAddr
	device string
}

// parsePPPoESessions reads /proc/net/pppoe:
//
//	Id       Address              Device
//	00000100 02:00:00:00:00:01         w0.41
//
// The number is in network byte order, shown as one of the machine's.
func parsePPPoESessions(text string) []kernelSession {
	var all []kernelSession
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		var raw uint32
		peer, err := net.ParseMAC(fields[1])
		if _, scanErr := fmt.Sscanf(fields[0], "%x", &raw); err != nil || scanErr != nil || raw > 0xffff {
			continue
		}
		all = append(all, kernelSession{id: networkOrder(uint16(raw)), peer: peer, device: fields[2]})
	}
	return all
}

// networkOrder is a number whose bytes are those of n as this machine has it.
func networkOrder(n uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, n))
}

// isTemporary says whether a socket goes on after err: its interface was down.
func isTemporary(err error) bool { return errors.Is(err, unix.ENETDOWN) }
