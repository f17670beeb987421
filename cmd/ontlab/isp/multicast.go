package isp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"ontagent/cmd/ontlab/netbox"
)

// MulticastMaxMbps bounds a channel's rate: what an emulated processor sends
// besides everything else that a lab does.
const MulticastMaxMbps = 20

// MulticastOptions describe one channel. Interface, Group and RateMbps have to
// be given.
type MulticastOptions struct {
	// Interface is where the host sends it; it needs an address of the group's
	// family.
	Interface string
	// Group is a multicast address, of either family.
	Group netip.Addr
	// Port is the UDP port. 0 means 5000.
	Port uint16
	// RateMbps is the rate of the transport stream in Mbit/s, without headers
	// of RTP, UDP and IP: above 0, up to MulticastMaxMbps.
	RateMbps float64
	// RTP puts an RTP header (RFC 2250) before the seven packets of a datagram.
	RTP bool
	// TTL is the datagrams' time to live. 0 means 16.
	TTL int
	// Seed makes the same datagrams be lost again.
	Seed uint64
}

// Multicast is a channel on the air. It is safe for concurrent use.
//
// Its faults replace one another, and Healthy ends them all. The channel goes
// on behind a fault: when that ends, its counters and clocks are where they
// would have been.
type Multicast struct {
	conn   net.PacketConn
	send   func(datagram []byte) error
	log    *responderLog
	cancel context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	fault multicastFault
	sent  uint64
	drops uint64
	fails uint64
}

type multicastFault struct {
	missing bool
	frozen  bool
	loss    float64
}

// MulticastCount is what became of a channel's datagrams.
type MulticastCount struct {
	Sent, Dropped uint64 // dropped by a fault
	Failed        uint64 // refused by the host's network, as with an interface that is down
}

// StartMulticast puts a channel on the air: an MPEG transport stream of one
// programme at a constant rate, seven packets to a datagram. ctx bounds the start
// only.
func StartMulticast(ctx context.Context, host *netbox.Host, o MulticastOptions) (*Multicast, error) {
	fail := func(err error) (*Multicast, error) {
		return nil, fmt.Errorf("cannot start channel %s on %s: %w", o.Group, host.Name(), err)
	}
	if o.Port == 0 {
		o.Port = 5000
	}
	if o.TTL == 0 {
		o.TTL = 16
	}
	switch {
	case !o.Group.IsMulticast():
		return fail(errors.New("its group is no multicast address"))
	case o.RateMbps < 0.1 || o.RateMbps > MulticastMaxMbps:
		return fail(fmt.Errorf("rate %v Mbit/s is not within 0.1 and %d", o.RateMbps, MulticastMaxMbps))
	case o.TTL < 1 || o.TTL > 255:
		return fail(fmt.Errorf("time to live %d is not within 1 and 255", o.TTL))
	}
	conn, err := multicastConn(ctx, host, o)
	if err != nil {
		return fail(err)
	}
	log, err := openResponderLog(host, "multicast-"+strings.ReplaceAll(o.Group.String(), ":", "-"))
	if err != nil {
		return fail(errors.Join(err, conn.Close()))
	}
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(o.Group, o.Port))
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m := &Multicast{
		conn: conn, log: log, cancel: cancel, done: make(chan struct{}),
		send: func(datagram []byte) error {
			_, err := conn.WriteTo(datagram, to)
			return err
		},
	}
	go m.run(run, o)
	return m, nil
}

// multicastConn opens a socket that sends where it is told to, whatever routes
// there are.
func multicastConn(ctx context.Context, host *netbox.Host, o MulticastOptions) (net.PacketConn, error) {
	var out *net.Interface
	err := host.Do(func() error {
		var err error
		out, err = net.InterfaceByName(o.Interface)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot find interface %s: %w", o.Interface, err)
	}
	network, address := "udp4", "0.0.0.0:0"
	if o.Group.Is6() {
		network, address = "udp6", "[::]:0"
	}
	conn, err := host.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if o.Group.Is6() {
		p := ipv6.NewPacketConn(conn)
		err = errors.Join(p.SetMulticastInterface(out), p.SetMulticastHopLimit(o.TTL), p.SetMulticastLoopback(false))
	} else {
		p := ipv4.NewPacketConn(conn)
		err = errors.Join(p.SetMulticastInterface(out), p.SetMulticastTTL(o.TTL), p.SetMulticastLoopback(false))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot send on %s: %w", o.Interface, err), conn.Close())
	}
	return conn, nil
}

// A datagram holds seven packets, which is what fits into an Ethernet frame.
const (
	multicastPackets = 7
	multicastPayload = multicastPackets * tsPacketSize
	multicastRTP     = 12
	// multicastTick is how often what is due is sent: at 8 Mbit/s that is
	// bursts of eight datagrams. An emulated processor has enough to do.
	multicastTick = 10 * time.Millisecond
	// multicastLate is how much of what is overdue is still sent, at no more
	// than twice the rate so as not to flood a receiver, whose socket holds
	// some 90 datagrams. A source that was held up for longer begins anew.
	multicastLate = 500 * time.Millisecond
)

// multicastPace tells how many datagrams are due.
type multicastPace struct {
	rate  uint64 // bit/s
	began time.Time
	sent  uint64
}

// due returns how many datagrams have to go at now, and counts them. It is
// asked every multicastTick.
func (p *multicastPace) due(now time.Time) int {
	at := func(d time.Duration) uint64 { // in microseconds, since rate and nanoseconds overflow within hours
		return uint64(d/time.Microsecond) * p.rate / (multicastPayload * 8 * 1_000_000)
	}
	total := at(max(now.Sub(p.began), 0))
	if total > p.sent && total-p.sent > at(multicastLate)+1 {
		p.began, p.sent = now, 0
		total = 1
	}
	n := min(total-min(p.sent, total), 2*at(multicastTick)+2)
	p.sent += n
	return int(n)
}

// run is the channel's only goroutine.
func (m *Multicast) run(ctx context.Context, o MulticastOptions) {
	defer close(m.done)
	rate := uint64(o.RateMbps * 1e6)
	mux := newTSMux(rate)
	random := rand.New(rand.NewPCG(o.Seed, 0x6d70656774730000)) //nolint:gosec // what is lost is no secret
	buf := make([]byte, multicastRTP+multicastPayload)
	header, payload := buf[:multicastRTP], buf[multicastRTP:]
	datagram := payload
	if o.RTP {
		header[0], header[1] = 0x80, 33 // version 2; MPEG-2 transport stream
		binary.BigEndian.PutUint32(header[8:], random.Uint32())
		datagram = buf
	}
	pace := multicastPace{rate: rate, began: time.Now()}
	tick := time.NewTicker(multicastTick)
	defer tick.Stop()
	for sequence, failing := uint16(0), false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range pace.due(time.Now()) {
			m.mu.Lock()
			fault := m.fault
			m.mu.Unlock()
			mux.frozen = fault.frozen
			if o.RTP {
				binary.BigEndian.PutUint16(header[2:], sequence)
				binary.BigEndian.PutUint32(header[4:], uint32(mux.clock()/300)) // 90 kHz
				sequence++
			}
			for i := 0; i < multicastPayload; i += tsPacketSize {
				mux.next(payload[i : i+tsPacketSize])
			}
			var err error
			drop := fault.missing || fault.loss > 0 && random.Float64() < fault.loss
			if !drop {
				err = m.send(datagram)
			}
			m.mu.Lock()
			switch {
			case drop:
				m.drops++
			case err != nil:
				m.fails++
			default:
				m.sent++
			}
			m.mu.Unlock()
			if err != nil && !failing && ctx.Err() == nil {
				m.log.Warn("channel is not sent", "group", o.Group.String(), "error", err)
			}
			failing = err != nil
		}
	}
}

// Healthy ends the fault, whichever it is.
func (m *Multicast) Healthy() { m.set(multicastFault{}) }

// Missing takes the channel off the air: nothing comes at all.
func (m *Multicast) Missing() { m.set(multicastFault{missing: true}) }

// Lossy drops this share of the datagrams, 0 to 1, at random. Counters go on,
// so that a receiver can see the gaps.
func (m *Multicast) Lossy(ratio float64) error {
	if !(ratio >= 0 && ratio <= 1) {
		return fmt.Errorf("cannot lose %v of a channel: it is not within 0 and 1", ratio)
	}
	m.set(multicastFault{loss: ratio})
	return nil
}

// Freeze lets the picture freeze, as when a channel's coder dies: the stream
// comes at its full rate, with its tables, but without its video.
func (m *Multicast) Freeze() { m.set(multicastFault{frozen: true}) }

func (m *Multicast) set(f multicastFault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// Count returns what became of the channel's datagrams so far.
func (m *Multicast) Count() MulticastCount {
	m.mu.Lock()
	defer m.mu.Unlock()
	return MulticastCount{Sent: m.sent, Dropped: m.drops, Failed: m.fails}
}

// Stop ends the channel for good. Stopping it again does nothing.
func (m *Multicast) Stop() error {
	m.cancel()
	<-m.done
	if err := errors.Join(m.conn.Close(), m.log.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("cannot stop channel: %w", err)
	}
	return nil
}
