package fleet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Where says on which side of a packet a link is cut.
type Where int

// The places of a Cut.
const (
	Before Where = iota // none of the packet gets through
	Inside              // half of it does
	After               // all of it does, and nothing more
)

// String names the place.
func (w Where) String() string {
	switch w {
	case Before:
		return "before"
	case Inside:
		return "inside"
	case After:
		return "after"
	}
	return fmt.Sprintf("Where(%d)", int(w))
}

// Cut says when a relayed connection ends.
type Cut struct {
	// Packet counts the MQTT packets of one direction from 1. 0 means that the
	// connection is left alone.
	Packet int
	Down   bool // counts those of the broker rather than those of the client
	Where  Where
	Reset  bool // ends both sides by RST rather than by FIN
}

// RelayOptions configure a Relay.
type RelayOptions struct {
	Broker string // host:port
	// Plan says how a connection shall end; the first is number 1. It is
	// called by one goroutine at a time. nil means that nothing is cut.
	Plan func(connection int) Cut
	// Accepted is told of each connection from a client, before the broker is
	// dialled, Made of each cut, by the goroutine that made it. nil means that
	// nobody wants to know.
	Accepted func(at time.Time)
	Made     func(c Cut, at time.Time)
}

// Relay stands between MQTT clients and a broker, passes on whole packets both
// ways, and cuts connections at planned boundaries of packets.
type Relay struct {
	o        RelayOptions
	listener net.Listener
}

// NewRelay returns a Relay that listens on a port of 127.0.0.1 of its own, but
// accepts nobody before Serve.
func NewRelay(ctx context.Context, o RelayOptions) (*Relay, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot make relay to %s: %w", o.Broker, err)
	}
	if o.Plan == nil {
		o.Plan = func(int) Cut { return Cut{} }
	}
	if o.Accepted == nil {
		o.Accepted = func(time.Time) {}
	}
	if o.Made == nil {
		o.Made = func(Cut, time.Time) {}
	}
	return &Relay{o: o, listener: listener}, nil
}

// Addr is where clients connect to, host:port.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Serve relays until ctx ends, then ends all connections and waits for them. It
// returns ctx.Err(), or what went wrong with the listener.
func (r *Relay) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		<-ctx.Done()
		_ = r.listener.Close()
	})
	for n := 1; ; n++ {
		conn, err := r.listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			cancel()
			return fmt.Errorf("cannot accept in relay to %s: %w", r.o.Broker, err)
		}
		r.o.Accepted(time.Now())
		cut := r.o.Plan(n)
		wg.Go(func() { r.relay(ctx, conn, cut) })
	}
}

// relay serves one connection to its end.
func (r *Relay) relay(ctx context.Context, client net.Conn, cut Cut) {
	var dialer net.Dialer
	broker, err := dialer.DialContext(ctx, "tcp", r.o.Broker)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{client: client, broker: broker}
	stop := context.AfterFunc(ctx, func() { l.end(false) })
	defer stop()
	defer l.end(false)
	pass := func(to, from net.Conn, cut Cut) {
		if l.pass(to, from, cut) {
			at := time.Now()
			l.end(cut.Reset)
			r.o.Made(cut, at)
		} else {
			l.end(false)
		}
	}
	up, down := cut, Cut{}
	if cut.Down {
		up, down = down, up
	}
	var wg sync.WaitGroup
	wg.Go(func() { pass(client, broker, down) })
	pass(broker, client, up)
	wg.Wait()
}

// link is the two halves of a relayed connection.
type link struct {
	client, broker net.Conn
	once           sync.Once
}

// end closes both halves, once.
func (l *link) end(reset bool) {
	l.once.Do(func() {
		for _, conn := range []net.Conn{l.client, l.broker} {
			if tcp, ok := conn.(*net.TCPConn); ok && reset {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
	})
}

// pass carries packets one way until either side ends, and reports whether it
// has come to where the link is to be cut.
func (l *link) pass(to io.Writer, from io.Reader, cut Cut) bool {
	in := bufio.NewReader(from)
	var packet []byte
	for n := 1; ; n++ {
		var err error
		if packet, err = readPacket(in, packet[:0]); err != nil {
			return false
		}
		part := packet
		if n == cut.Packet {
			switch cut.Where {
			case Before:
				part = nil
			case Inside:
				part = packet[:len(packet)/2]
			case After:
			}
		}
		if len(part) > 0 {
			if _, err := to.Write(part); err != nil {
				return false
			}
		}
		if n == cut.Packet {
			return true
		}
	}
}

// maxRelayed bounds a relayed packet, in bytes: what a gateway sends has 128
// KiB of payload at most.
const maxRelayed = 256 << 10

var errNotMQTT = errors.New("not an MQTT packet")

// readPacket appends the next MQTT packet, header included, to buf.
func readPacket(in *bufio.Reader, buf []byte) ([]byte, error) {
	kind, err := in.ReadByte()
	if err != nil {
		return nil, err
	}
	buf = append(buf, kind)
	length := 0
	for shift := 0; ; shift += 7 {
		b, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		buf = append(buf, b)
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift == 21 {
			return nil, errNotMQTT
		}
	}
	if length > maxRelayed {
		return nil, errNotMQTT
	}
	at := len(buf)
	buf = append(buf, make([]byte, length)...)
	_, err = io.ReadFull(in, buf[at:])
	return buf, err
}
