package isp

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// RADIUSExchange is one authentication that was asked for.
type RADIUSExchange struct {
	At   time.Time // of the request
	User string
	// Result is how it was answered.
	Result RADIUSResult
	// Message are the answer's Reply-Messages, in one.
	Message string
}

// RADIUSResult is how an authentication ended.
type RADIUSResult string

// Results of an authentication.
const (
	RADIUSUnanswered RADIUSResult = "unanswered" // so far
	RADIUSAccepted   RADIUSResult = "accepted"
	RADIUSRejected   RADIUSResult = "rejected"
)

// Of RFC 2865 section 3 and 5.
const (
	radiusAccessRequest  = 1
	radiusAccessAccept   = 2
	radiusAccessReject   = 3
	radiusHeader         = 20
	radiusMaxPacket      = 4096
	radiusUserName       = 1
	radiusReplyMessage   = 18
	radiusExchangesKept  = 1000
	radiusRequestMatters = 15 * time.Second // then nobody waits for its answer
)

// radiusRelay stands between clients and a FreeRADIUS.
type radiusRelay struct {
	host    *netbox.Host
	sockets []net.PacketConn // clients'; the last to be closed
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	upstream  [2]uint16 // the server's ports, by socket
	silent    bool
	delay     time.Duration
	flows     map[radiusKey]*radiusFlow
	exchanges []RADIUSExchange // all but the last radiusExchangesKept are dropped
	dropped   int              // of exchanges
}

// radiusKey tells requests from their retransmissions.
type radiusKey struct {
	socket        int
	client        string
	authenticator [17]byte // with the identifier in front
}

// radiusFlow is a request on its way.
type radiusFlow struct {
	conn     net.Conn // to the server
	exchange int      // among all that ever were; -1 if it is accounting
	passed   bool     // guarded by the relay's mu; false while the server saw nothing of it
}

func startRADIUSRelay(ctx context.Context, host *netbox.Host, at netip.Addr) (*radiusRelay, error) {
	r := &radiusRelay{host: host, flows: make(map[radiusKey]*radiusFlow)}
	for _, port := range []uint16{radiusAuthPort, radiusAcctPort} {
		s, err := host.ListenPacket(ctx, "udp", netip.AddrPortFrom(at, port).String())
		if err != nil {
			for _, s := range r.sockets {
				_ = s.Close()
			}
			return nil, err
		}
		r.sockets = append(r.sockets, s)
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	for i, s := range r.sockets {
		r.running.Go(func() { r.listen(life, i, s) })
	}
	return r, nil
}

func (r *radiusRelay) stop() {
	r.cancel()
	for _, s := range r.sockets {
		_ = s.Close()
	}
	r.running.Wait()
}

func (r *radiusRelay) to(auth, acct uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.upstream = [2]uint16{auth, acct}
}

func (r *radiusRelay) setDelay(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

func (r *radiusRelay) setSilent(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = on
}

func (r *radiusRelay) asked() []RADIUSExchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]RADIUSExchange(nil), r.exchanges...)
}

// listen passes on what comes to a socket until that is closed.
func (r *radiusRelay) listen(ctx context.Context, socket int, s net.PacketConn) {
	for buffer := make([]byte, radiusMaxPacket); ; {
		n, client, err := s.ReadFrom(buffer)
		if err != nil {
			return
		}
		packet := bytes.Clone(buffer[:n])
		flow, first, err := r.flow(ctx, socket, client, packet)
		if err != nil || flow == nil {
			continue // a client asks again
		}
		if first {
			r.running.Go(func() { r.answer(ctx, s, client, flow) })
		}
		_, _ = flow.conn.Write(packet) // likewise
	}
}

// flow finds or makes a request's flow; nil if the request is not to be passed
// on. first says that none was before.
func (r *radiusRelay) flow(ctx context.Context, socket int, client net.Addr, packet []byte) (flow *radiusFlow, first bool, err error) {
	if len(packet) < radiusHeader {
		return nil, false, nil
	}
	key := radiusKey{socket: socket, client: client.String()}
	key.authenticator[0] = packet[1]
	copy(key.authenticator[1:], packet[4:radiusHeader])

	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	f := r.flows[key]
	if f == nil {
		if f, err = r.newFlow(ctx, socket, key, packet); err != nil {
			return nil, false, err
		}
	}
	if r.silent && f.exchange >= 0 {
		return nil, false, nil
	}
	first, f.passed = !f.passed, true
	return f, first, nil
}

// newFlow makes a flow, which lasts as long as anybody waits for an answer. The
// caller holds mu.
func (r *radiusRelay) newFlow(ctx context.Context, socket int, key radiusKey, packet []byte) (*radiusFlow, error) {
	conn, err := r.host.Dial(ctx, "udp", fmt.Sprint("127.0.0.1:", r.upstream[socket]))
	if err != nil {
		return nil, err
	}
	f := &radiusFlow{conn: conn, exchange: -1}
	if packet[0] == radiusAccessRequest {
		if len(r.exchanges) == radiusExchangesKept {
			r.exchanges = r.exchanges[1:]
			r.dropped++
		}
		f.exchange = r.dropped + len(r.exchanges)
		r.exchanges = append(r.exchanges, RADIUSExchange{
			At: time.Now(), User: string(radiusAttribute(packet, radiusUserName)), Result: RADIUSUnanswered,
		})
	}
	r.flows[key] = f
	r.running.Go(func() {
		select {
		case <-ctx.Done():
		case <-time.After(radiusRequestMatters):
		}
		_ = conn.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.flows, key)
	})
	return f, nil
}

// answer passes a server's answers on to a client until the flow is closed.
func (r *radiusRelay) answer(ctx context.Context, s net.PacketConn, client net.Addr, f *radiusFlow) {
	for buffer := make([]byte, radiusMaxPacket); ; {
		n, err := f.conn.Read(buffer)
		if err != nil {
			return
		}
		packet := bytes.Clone(buffer[:n])
		r.mu.Lock()
		delay, silent := r.delay, r.silent
		r.mu.Unlock()
		if silent && f.exchange >= 0 {
			continue
		}
		if delay > 0 && f.exchange >= 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(delay):
			}
		}
		if _, err := s.WriteTo(packet, client); err == nil {
			r.note(f.exchange, packet)
		}
	}
}

// note keeps what an answer said.
func (r *radiusRelay) note(exchange int, packet []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if exchange < r.dropped || len(packet) < radiusHeader {
		return
	}
	e := &r.exchanges[exchange-r.dropped]
	switch packet[0] {
	case radiusAccessAccept:
		e.Result = RADIUSAccepted
	case radiusAccessReject:
		e.Result = RADIUSRejected
	default:
		return
	}
	e.Message = string(radiusAttribute(packet, radiusReplyMessage))
}

// radiusAttribute is the value of all attributes of a kind in a packet, one
// behind the other; nil if there is none.
func radiusAttribute(packet []byte, kind byte) []byte {
	if len(packet) < radiusHeader {
		return nil
	}
	if length := int(packet[2])<<8 | int(packet[3]); length >= radiusHeader && length < len(packet) {
		packet = packet[:length]
	}
	var value []byte
	for rest := packet[radiusHeader:]; len(rest) >= 2; {
		length := int(rest[1])
		if length < 2 || length > len(rest) {
			break
		}
		if rest[0] == kind {
			value = append(value, rest[2:length]...)
		}
		rest = rest[length:]
	}
	return value
}
