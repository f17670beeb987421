package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Packet is a message as it came from the broker. It belongs to the receiver.
type Packet struct {
	Topic    string
	Payload  []byte
	Retained bool

	ack func() // nil: done
}

// Ack tells the broker that a message is taken care of. Until then a persistent
// session keeps it and brings it again with the next connection; without a
// persistent session Ack does nothing, as the broker was told before. It may
// block for Options.WriteTimeout.
func (p Packet) Ack() {
	if p.ack != nil {
		p.ack()
	}
}

// Conn is one connection to a broker. It is safe for concurrent use. Whoever
// dialled it calls Close, also after it was lost.
type Conn struct {
	client  paho.Client
	guard   *guard
	dial    Options
	own     *pair // shown to the broker; nil: none
	acks    ackStore
	ackTime time.Duration
	inbound chan Packet
	dropped atomic.Uint64
	owed    atomic.Bool // one of those comes again in the next connection
	stuck   bool        // nobody takes from inbound; only for receive
	closing atomic.Bool
	lost    chan struct{}

	mu     sync.Mutex
	err    error          // why it was lost; guarded by mu
	closed bool           // no more calls into the library; guarded by mu
	calls  sync.WaitGroup // into the library; Add guarded by mu
}

// Dial connects to a broker. It returns when the broker accepted the session,
// when ctx ended or after Options.ConnectTimeout. What errors.Is finds in the
// error is listed at the top of this package.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	o = o.withDefaults()
	if err := o.form(); err != nil {
		return nil, fmt.Errorf("cannot use broker options: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.ConnectTimeout, ErrTimeout)
	defer cancel()
	own, err := o.TLS.pair()
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", o.Broker, err)
	}
	c, err := dial(ctx, o, own)
	if err != nil {
		if ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		now, trusted := o.Clock()
		err = classify(err, now, trusted)
		if problem := own.problem(o.TLS.device, now, trusted); problem != nil && refusedForGood(err) {
			err = fmt.Errorf("%w: %w", problem, err)
		}
		return nil, fmt.Errorf("cannot connect to %s: %w", o.Broker, err)
	}
	return c, nil
}

func dial(ctx context.Context, o Options, own *pair) (*Conn, error) {
	conn, err := open(ctx, o, own)
	if err != nil {
		return nil, err
	}
	c := &Conn{
		dial: o, own: own,
		ackTime: o.AckTimeout,
		inbound: make(chan Packet, o.InboundDepth),
		lost:    make(chan struct{}),
		acks:    ackStore{acked: make(map[string]bool)},
	}
	c.guard = newGuard(conn, o, c.lose)
	c.client = paho.NewClient(c.options(o))

	token := c.client.Connect()
	select {
	case <-token.Done():
	case <-ctx.Done():
		c.lose(context.Cause(ctx))
		<-token.Done() // soon: its connection is closed
	}
	tokenErr := token.Error()
	if !c.isLost() && tokenErr == nil {
		return c, nil
	}
	c.lose(tokenErr)
	if tokenErr == nil { // connected, and lost at once
		_ = c.Close(ctx)
	}
	return nil, c.Err()
}

// options set the library up as a pipe for one connection.
func (c *Conn) options(o Options) *paho.ClientOptions {
	p := paho.NewClientOptions()
	p.Servers = []*url.URL{{Scheme: "tcp", Host: "guarded"}} // never dialled: see CustomOpenConnectionFn
	p.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return c.guard, nil })
	p.SetProtocolVersion(4) // without it a refusal is tried again as 3.1
	p.SetClientID(o.ClientID)
	p.SetUsername(o.Username)
	p.SetPassword(o.Password)
	p.SetAutoReconnect(false) // with it, lost messages are reported as published
	p.SetConnectRetry(false)
	// With a persistent session, tokens of a lost connection never end: who
	// waits for one waits for the loss as well.
	p.SetCleanSession(!o.PersistentSession)
	p.SetAutoAckDisabled(true) // receive decides
	p.SetResumeSubs(false)
	p.SetStore(&c.acks)
	p.SetConnectTimeout(o.ConnectTimeout)
	p.SetWriteTimeout(o.WriteTimeout)
	p.SetKeepAlive(o.KeepAlive)
	// Its own timing is coarse: the guard finds a silent broker before it does.
	p.SetPingTimeout(o.PingTimeout + 2*o.pingTick())
	// In order, the handler runs in the library's reading goroutine: ours never
	// blocks nor publishes, so that is safe, and a flood of messages is slowed
	// down by their acknowledgements. Out of order, each message would get a
	// goroutine, without bound.
	p.SetOrderMatters(true)
	p.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { c.receive(m) })
	p.SetConnectionLostHandler(func(_ paho.Client, err error) { c.lose(err) })
	if w := o.Will; w != nil {
		p.SetBinaryWill(w.Topic, w.Payload, 1, w.Retain)
	}
	return p
}

// roomWait is how long a message of a persistent session waits for room in
// Inbound. Meanwhile nothing else is read, so it has to be short.
const roomWait = 3 * time.Second

// receive takes a message from the library.
func (c *Conn) receive(m paho.Message) {
	p := Packet{Topic: m.Topic(), Payload: m.Payload(), Retained: m.Retained()}
	if c.dial.PersistentSession {
		p.ack = m.Ack
	} else {
		// Dropped or not: what is not acknowledged takes a place in the
		// broker's window until the connection ends.
		defer m.Ack()
	}
	select {
	case c.inbound <- p:
		c.stuck = false
		return
	default:
	}
	if c.dial.PersistentSession && m.Qos() > 0 {
		// What has gathered while we were away comes at once, from some brokers
		// without regard to their window.
		if c.waitForRoom(p) {
			return
		}
		c.owed.Store(true)
	}
	c.dropped.Add(1)
}

// waitForRoom reports whether p found room in Inbound. If nobody takes at all
// it waits once, not for every message.
func (c *Conn) waitForRoom(p Packet) bool {
	if c.stuck {
		return false
	}
	timer := time.NewTimer(roomWait)
	defer timer.Stop()
	select {
	case c.inbound <- p:
		return true
	case <-timer.C:
		c.stuck = true
	case <-c.lost:
	}
	return false
}

// lose ends the connection, for the first reason given.
func (c *Conn) lose(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isLost() {
		return
	}
	if c.closing.Load() {
		err = net.ErrClosed
	}
	c.err = err
	close(c.lost)
	if c.guard != nil {
		_ = c.guard.Close()
	}
}

func (c *Conn) isLost() bool {
	select {
	case <-c.lost:
		return true
	default:
		return false
	}
}

// Lost is closed when the connection has ended, for whatever reason.
func (c *Conn) Lost() <-chan struct{} { return c.lost }

// Err says why the connection ended: nil while it lives, an error compatible
// with errors.Is(err, net.ErrClosed) after Close.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Inbound gives the messages received. It is never closed: select on Lost too.
func (c *Conn) Inbound() <-chan Packet { return c.inbound }

// Dropped counts the inbound messages that found Inbound full. In a persistent
// session those of QoS 1 first wait a while for room; dropped, they come again
// with the next connection.
func (c *Conn) Dropped() uint64 { return c.dropped.Load() }

// Bytes counts what was received and sent, above TLS.
func (c *Conn) Bytes() (in, out int64) { return c.guard.in.Load(), c.guard.out.Load() }

// Publish sends a message and, for QoS 1, waits for its PUBACK. It returns nil
// only if that came while the connection lived; else the message may have
// arrived or not. The error is compatible with errors.Is for ErrLost,
// ErrTimeout or ctx.Err(). QoS 0 returns when the message is written.
func (c *Conn) Publish(ctx context.Context, topic string, qos byte, retain bool, payload []byte) error {
	d, err := c.begin(topic, qos, retain, payload)
	if err != nil {
		return err
	}
	return d.wait(ctx)
}

// delivery is a publish under way.
type delivery struct {
	conn  *Conn
	topic string
	qos   byte
	sent  chan struct{} // closed when the library has taken the message in its order
	token paho.Token    // valid once sent is closed
	start time.Time
}

// begin hands a message to the library. Messages go out in the order of begin
// calls if each waits for sent before the next.
func (c *Conn) begin(topic string, qos byte, retain bool, payload []byte) (*delivery, error) {
	switch {
	case topic == "" || len(topic) > 65535 || strings.ContainsAny(topic, "+#\x00") || !utf8.ValidString(topic):
		return nil, fmt.Errorf("cannot publish: topic %.80q is malformed", topic)
	case qos > 1:
		return nil, fmt.Errorf("cannot publish to %s: QoS %d is not 0 or 1", topic, qos)
	}
	d := &delivery{conn: c, topic: topic, qos: qos, sent: make(chan struct{}), start: time.Now()}
	ok := c.call(func() {
		// May block for the write timeout if the connection is just dying.
		d.token = c.client.Publish(topic, qos, retain, payload)
		close(d.sent)
	})
	if !ok {
		return nil, c.lostError("publish to " + topic)
	}
	return d, nil
}

// call runs f, which calls into the library, in a goroutine that Close waits
// for. It reports whether the connection was alive.
func (c *Conn) call(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.isLost() {
		return false
	}
	c.calls.Go(f)
	return true
}

func (c *Conn) lostError(act string) error {
	err := c.Err()
	if err == nil {
		return fmt.Errorf("cannot %s: %w", act, ErrLost)
	}
	return fmt.Errorf("cannot %s: %w: %w", act, ErrLost, err)
}

// wait returns nil if the broker acknowledged the message, see Publish.
func (d *delivery) wait(ctx context.Context) error {
	c := d.conn
	timer := time.NewTimer(time.Until(d.start.Add(c.ackTime)))
	defer timer.Stop()
	sent, done := d.sent, (<-chan struct{})(nil)
	for {
		select {
		case <-sent:
			sent, done = nil, d.token.Done()
			continue
		case <-done:
		case <-c.lost:
			return c.lostError("publish to " + d.topic)
		case <-timer.C:
			return fmt.Errorf("cannot publish to %s: %w", d.topic, ErrTimeout)
		case <-ctx.Done():
			return fmt.Errorf("cannot publish to %s: %w", d.topic, ctx.Err())
		}
		break
	}
	acked := true
	if t, ok := d.token.(*paho.PublishToken); ok && d.qos > 0 {
		acked = c.acks.take(t.MessageID())
	}
	switch err := d.token.Error(); {
	case c.isLost():
		return c.lostError("publish to " + d.topic)
	case err != nil:
		return fmt.Errorf("cannot publish to %s: %w: %w", d.topic, ErrLost, err)
	case !acked:
		// The token lies: no PUBACK came for it.
		return fmt.Errorf("cannot publish to %s: %w", d.topic, ErrLost)
	}
	return nil
}

// Subscribe subscribes to filters with QoS 1, in no certain order, and waits for
// the broker's answers. The error is compatible with errors.Is for
// ErrSubscribeRefused, ErrLost, ErrTimeout or ctx.Err().
func (c *Conn) Subscribe(ctx context.Context, filters ...string) error {
	tokens := make([]chan paho.Token, len(filters))
	for i, filter := range filters {
		// One SUBSCRIBE each: the library does not check the number of
		// answers in a SUBACK.
		got := make(chan paho.Token, 1)
		tokens[i] = got
		if !c.call(func() { got <- c.client.Subscribe(filter, 1, nil) }) {
			return c.lostError("subscribe to " + filter)
		}
	}
	timer := time.NewTimer(c.ackTime)
	defer timer.Stop()
	for i, filter := range filters {
		var token paho.Token
		got, done := tokens[i], (<-chan struct{})(nil)
		for waiting := true; waiting; {
			select {
			case token = <-got:
				got, done = nil, token.Done()
			case <-done:
				waiting = false
			case <-c.lost:
				return c.lostError("subscribe to " + filter)
			case <-timer.C:
				return fmt.Errorf("cannot subscribe to %s: %w", filter, ErrTimeout)
			case <-ctx.Done():
				return fmt.Errorf("cannot subscribe to %s: %w", filter, ctx.Err())
			}
		}
		if err := token.Error(); err != nil {
			return fmt.Errorf("cannot subscribe to %s: %w: %w", filter, ErrLost, err)
		}
		sub, _ := token.(*paho.SubscribeToken)
		code, answered := sub.Result()[filter]
		if !answered || code > 1 {
			return fmt.Errorf("cannot subscribe to %s: %w: code %#x", filter, ErrSubscribeRefused, code)
		}
	}
	return nil
}

// Close says DISCONNECT, so that the broker keeps the will to itself, and ends
// the connection. It returns when everything has stopped or ctx has ended;
// the error says what did not go cleanly. After a loss it only waits.
func (c *Conn) Close(ctx context.Context) error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	alive := !c.isLost()
	if alive {
		c.closing.Store(true)
	}
	c.mu.Unlock()

	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if first {
			c.client.Disconnect(uint(quiesce(ctx).Milliseconds()))
		}
		c.lose(net.ErrClosed)
		c.calls.Wait()
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		c.lose(net.ErrClosed)
		if !alive {
			return nil
		}
		return fmt.Errorf("cannot close connection in time: %w", ctx.Err())
	}
	return nil
}

// quiesce is how long the library may take to say DISCONNECT.
func quiesce(ctx context.Context) time.Duration {
	const most = 2 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Millisecond, min(most, time.Until(deadline)))
	}
	return most
}

// ackStore is the library's store. It stores nothing – nothing is ever resumed
// – but learns of it when an outbound message is acknowledged, which is the
// one moment the library asks its store to forget it.
type ackStore struct {
	mu    sync.Mutex
	acked map[string]bool // by the library's key; guarded by mu
}

var _ paho.Store = (*ackStore)(nil)

const outbound = "o."

// Put implements paho.Store: an outbound message waits for its PUBACK.
func (s *ackStore) Put(key string, m packets.ControlPacket) {
	if _, ok := m.(*packets.PublishPacket); !ok || !strings.HasPrefix(key, outbound) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked[key] = false
}

// Del implements paho.Store: the PUBACK came.
func (s *ackStore) Del(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, waits := s.acked[key]; waits {
		s.acked[key] = true
	}
}

// take reports whether message id was acknowledged, and forgets it.
func (s *ackStore) take(id uint16) bool {
	key := outbound + strconv.Itoa(int(id))
	s.mu.Lock()
	defer s.mu.Unlock()
	acked := s.acked[key]
	delete(s.acked, key)
	return acked
}

// Get implements paho.Store.
func (*ackStore) Get(string) packets.ControlPacket { return nil }

// All implements paho.Store.
func (*ackStore) All() []string { return nil }

// Open implements paho.Store.
func (*ackStore) Open() {}

// Close implements paho.Store.
func (*ackStore) Close() {}

// Reset implements paho.Store.
func (*ackStore) Reset() {}
