package mqtt

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// MQTT packet types, the upper half of a packet's first byte.
const (
	typeConnack   = 2
	typePublish   = 3
	typePuback    = 4
	typeSubscribe = 8
	typeSuback    = 9
	typePingresp  = 13
)

// guard stands between the network and the MQTT library. Inbound it reads the
// packets as they pass and ends the connection at the first that a broker may
// not send to this client, before the library sees enough of it to act:
// the library allocates any length that is announced (up to 256 MiB), indexes
// by what a SUBACK holds, takes an unknown CONNACK code for success and keeps
// QoS 2 messages without bound. It also ends a connection on which no packet
// was completed for silence: the broker has been asked by then. Outbound it
// puts a deadline on every write. It counts bytes both ways.
type guard struct {
	net.Conn
	timeout time.Duration // of writing up to chunk bytes
	silence time.Duration // most time between two inbound packets, once connected
	session bool          // CONNACK may tell of a session
	failed  func(error)   // told of the first error on either way

	in, out  atomic.Int64 // bytes above TLS
	greeting atomic.Bool  // no CONNACK yet: one goroutine writes, then reads

	writing sync.Mutex // so that no one clears or moves another's deadline

	mu         sync.Mutex
	subscribed map[uint16]bool // SUBSCRIBEs without answer, by packet id; guarded by mu

	// Only the library's one reading goroutine touches these.
	reader    *bufio.Reader
	maxPacket int
	whole     uint64 // packets completed
	state     scanState
	head      byte   // first byte of the current packet
	length    int    // its remaining length, as far as read
	shift     uint   // bits of length read so far
	pos       int    // bytes of the rest read so far
	id        uint16 // of a SUBACK, as far as read
	connected bool   // a CONNACK with return code 0 has passed
}

type scanState byte

const (
	scanHead scanState = iota
	scanLength
	scanRest
)

// chunk is how much is written under one deadline, in bytes: a slow line is no
// dead one.
const chunk = 16 << 10

func newGuard(conn net.Conn, o Options, failed func(error)) *guard {
	g := &guard{
		Conn: conn, timeout: o.WriteTimeout, silence: o.silence(), session: o.PersistentSession, failed: failed,
		reader: bufio.NewReaderSize(conn, 1024), maxPacket: o.MaxPacket,
	}
	g.greeting.Store(true)
	return g
}

// Read passes inbound bytes on, as far as they are fit.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.reader.Read(p)
	g.in.Add(int64(n))
	if timedOut(err) {
		err = fmt.Errorf("%w: no packet for %v", ErrTimeout, g.silence)
	}
	before := g.whole
	if scanErr := g.scan(p[:n]); scanErr != nil {
		n, err = 0, scanErr
	}
	if err == nil && g.whole != before {
		err = g.SetReadDeadline(time.Now().Add(g.silence))
	}
	return n, g.end(err)
}

// end ends the connection for err, if that is one.
func (g *guard) end(err error) error {
	if err == nil {
		return nil
	}
	g.failed(err)
	_ = g.Close()
	if errors.Is(err, net.ErrClosed) {
		return ErrLost // the library would take a closed connection for its own doing, and stay
	}
	return err
}

// scan follows the packets in b and returns an error compatible with
// ErrProtocol, ErrPacketTooLarge or one of the refusals.
func (g *guard) scan(b []byte) error {
	for len(b) > 0 {
		switch g.state {
		case scanHead:
			g.head, b = b[0], b[1:]
			g.state, g.length, g.shift, g.pos = scanLength, 0, 0, 0
			if err := g.checkHead(); err != nil {
				return err
			}
		case scanLength:
			c := b[0]
			b = b[1:]
			g.length |= int(c&0x7f) << g.shift
			g.shift += 7
			// Also while more of it is to come: the rest only adds.
			if g.length > g.maxPacket {
				return fmt.Errorf("%w: at least %d bytes announced, limit %d", ErrPacketTooLarge, g.length, g.maxPacket)
			}
			if c&0x80 != 0 {
				if g.shift > 21 {
					return fmt.Errorf("%w: packet length of more than four bytes", ErrProtocol)
				}
				continue
			}
			if err := g.checkLength(); err != nil {
				return err
			}
			if g.state = scanRest; g.length == 0 {
				g.state = scanHead
				g.whole++
			}
		case scanRest:
			n := min(len(b), g.length-g.pos)
			var err error
			switch g.head >> 4 {
			case typeConnack:
				err = g.checkConnack(b[:n])
			case typeSuback:
				err = g.checkSuback(b[:n])
			}
			if err != nil {
				return err
			}
			g.pos += n
			b = b[n:]
			if g.pos == g.length {
				g.state = scanHead
				g.whole++
			}
		}
	}
	return nil
}

// checkHead judges type and flags of a packet.
func (g *guard) checkHead() error {
	kind, flags := g.head>>4, g.head&0x0f
	ok := false
	switch kind {
	case typeConnack:
		ok = !g.connected && flags == 0
	case typePublish:
		ok = g.connected && flags>>1&3 <= 1 // we never ask for QoS 2
	case typePuback, typeSuback, typePingresp:
		ok = g.connected && flags == 0
	}
	if !ok {
		return fmt.Errorf("%w: packet type %d with flags %#x, connected: %v", ErrProtocol, kind, flags, g.connected)
	}
	return nil
}

// checkLength judges the remaining length of a packet by its type.
func (g *guard) checkLength() error {
	ok := true
	switch g.head >> 4 {
	case typeConnack, typePuback:
		ok = g.length == 2
	case typeSuback:
		ok = g.length == 3 // we subscribe to one filter at a time
	case typePingresp:
		ok = g.length == 0
	case typePublish:
		ok = g.length >= 3 // a topic of one byte
	}
	if !ok {
		return fmt.Errorf("%w: packet type %d with %d bytes", ErrProtocol, g.head>>4, g.length)
	}
	return nil
}

// checkConnack judges the bytes of a CONNACK: session flag, return code.
func (g *guard) checkConnack(b []byte) error {
	for i, c := range b {
		switch g.pos + i {
		case 0:
			if c != 0 && (c != 1 || !g.session) { // a session, although we asked for a clean one
				return fmt.Errorf("%w: CONNACK flags %#x", ErrProtocol, c)
			}
		case 1:
			if err := refusal(c); err != nil {
				return err
			}
			g.connected = true
			g.greeting.Store(false)
		}
	}
	return nil
}

// checkSuback holds a SUBACK to a SUBSCRIBE: the library would let it answer
// a PUBLISH.
func (g *guard) checkSuback(b []byte) error {
	for i, c := range b {
		switch g.pos + i {
		case 0:
			g.id = uint16(c) << 8
		case 1:
			g.id |= uint16(c)
			g.mu.Lock()
			asked := g.subscribed[g.id]
			delete(g.subscribed, g.id)
			g.mu.Unlock()
			if !asked {
				return fmt.Errorf("%w: SUBACK for id %d, which subscribes to nothing", ErrProtocol, g.id)
			}
		}
	}
	return nil
}

// note remembers an outbound SUBSCRIBE. The library writes each packet at once.
func (g *guard) note(p []byte) {
	if len(p) == 0 || p[0]>>4 != typeSubscribe {
		return
	}
	i := 1
	for i < len(p) && p[i]&0x80 != 0 {
		i++
	}
	if i+2 >= len(p) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.subscribed == nil {
		g.subscribed = make(map[uint16]bool)
	}
	g.subscribed[uint16(p[i+1])<<8|uint16(p[i+2])] = true
}

// Write writes p whole or ends the connection.
func (g *guard) Write(p []byte) (int, error) {
	g.note(p)
	g.writing.Lock()
	defer g.writing.Unlock()
	n, err := 0, error(nil)
	for n < len(p) && err == nil {
		if err = g.Conn.SetWriteDeadline(time.Now().Add(g.timeout)); err != nil {
			break
		}
		var m int
		m, err = g.Conn.Write(p[n:min(len(p), n+chunk)])
		n += m
	}
	g.out.Add(int64(n))
	if err != nil && g.greeting.Load() {
		// A broker that refuses our certificate may have said so and gone
		// before CONNECT was written. No one else reads yet.
		_ = g.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		var op *net.OpError
		if _, readErr := g.reader.Peek(1); errors.As(readErr, &op) && op.Op == tlsAlert {
			err = readErr
		}
	}
	if timedOut(err) {
		err = fmt.Errorf("%w: nothing could be written for %v", ErrTimeout, g.timeout)
	}
	return n, g.end(err)
}

// SetDeadline does nothing. Up to CONNACK whoever dials minds the time; from
// then on the guard does, whose deadlines the library would clear.
func (*guard) SetDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: each write has its own deadline.
func (*guard) SetWriteDeadline(time.Time) error { return nil }

// timedOut reports whether a deadline has passed. Not every layer wraps
// os.ErrDeadlineExceeded.
func timedOut(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
