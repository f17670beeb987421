package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"ontagent/transport"
	"ontagent/transport/mqtt"
)

// Message is what a gateway said, as a subscriber got it.
type Message struct {
	transport.Address
	Header   transport.Header
	Body     []byte // JSON object without the header
	Retained bool
	At       time.Time // of arrival, with a monotonic reading
}

// Subscriber follows everything that gateways say at a broker. It connects
// again whenever the broker comes back, without delay, and keeps what it heard.
type Subscriber struct {
	broker string
	id     string
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	conn     *mqtt.Conn    // nil while not connected; guarded by mu
	times    int           // connected; guarded by mu
	messages []Message     // guarded by mu
	problems []string      // messages that are against the contract; guarded by mu
	changed  chan struct{} // closed and renewed with every change; guarded by mu
}

// Subscribe begins to follow the broker at a URL, until ctx ends or Close.
func Subscribe(ctx context.Context, broker string) *Subscriber {
	ctx, cancel := context.WithCancel(ctx)
	// Of two with one name a broker drops the first.
	id := fmt.Sprintf("lab%016x", rand.Uint64()) //nolint:gosec // tells apart, guards nothing
	s := &Subscriber{broker: broker, id: id, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	go func() {
		defer close(s.done)
		for ctx.Err() == nil {
			s.follow(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return s
}

// Close ends the subscription.
func (s *Subscriber) Close() {
	s.cancel()
	<-s.done
}

// follow holds one connection to its end.
func (s *Subscriber) follow(ctx context.Context) {
	conn, err := mqtt.Dial(ctx, mqtt.Options{
		Broker: s.broker, ClientID: s.id, ConnectTimeout: 2 * time.Second,
		MaxPacket: transport.MaxPayload + 1024, InboundDepth: 4096,
	})
	if err != nil {
		return
	}
	defer func() {
		s.change(func() { s.conn = nil })
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closeCtx)
	}()
	var filters []string
	for _, kind := range []transport.Kind{
		transport.KindState, transport.KindInfo, transport.KindPending, transport.KindTelemetry, transport.KindEvent,
		transport.KindBackfill, transport.KindRecord, transport.KindStatus,
	} {
		filter, err := transport.Filter("+", "+", kind, "+")
		if err != nil {
			return
		}
		filters = append(filters, filter)
	}
	if err := conn.Subscribe(ctx, filters...); err != nil {
		return
	}
	s.change(func() {
		s.conn = conn
		s.times++
	})
	for {
		select {
		case p := <-conn.Inbound():
			s.take(p, time.Now())
		case <-conn.Lost():
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *Subscriber) take(p mqtt.Packet, at time.Time) {
	address, err := transport.ParseTopic(p.Topic)
	var m Message
	if err == nil {
		m = Message{Address: address, Retained: p.Retained, At: at}
		m.Header, m.Body, err = transport.Decode(p.Payload)
	}
	if err == nil && m.Header.Device != address.Device {
		err = fmt.Errorf("says it is from %s", m.Header.Device)
	}
	s.change(func() {
		if err != nil {
			s.problems = append(s.problems, fmt.Sprintf("%s: %v", p.Topic, err))
			return
		}
		s.messages = append(s.messages, m)
	})
}

func (s *Subscriber) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// Heard counts the messages so far: where Wait may begin.
func (s *Subscriber) Heard() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.messages)
}

// Messages returns those from the given one on.
func (s *Subscriber) Messages(from int) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.messages[from:]...)
}

// Connections counts how often it connected. What came between two of them was
// not heard.
func (s *Subscriber) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times
}

// Problems returns what was against the contract of topics and payloads.
func (s *Subscriber) Problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.problems...)
}

// Wait returns the first message from the given one on that match accepts, and
// the number of the one behind it. It waits until ctx ends.
func (s *Subscriber) Wait(ctx context.Context, from int, match func(Message) bool) (Message, int, error) {
	for {
		s.mu.Lock()
		for ; from < len(s.messages); from++ {
			if m := s.messages[from]; match(m) {
				s.mu.Unlock()
				return m, from + 1, nil
			}
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return Message{}, from, fmt.Errorf("no such message: %w", ctx.Err())
		}
	}
}

// Connected waits until the subscriptions stand.
func (s *Subscriber) Connected(ctx context.Context) error {
	for {
		s.mu.Lock()
		conn, changed := s.conn, s.changed
		s.mu.Unlock()
		if conn != nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("cannot subscribe at %s: %w", s.broker, ctx.Err())
		}
	}
}

// Publish sends a message down to a gateway and returns when the broker has it.
func (s *Subscriber) Publish(ctx context.Context, a transport.Address, payload []byte) error {
	topic, err := transport.Topic(a.Tenant, a.Device, a.Kind, a.Name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		return errors.New("cannot publish: not connected")
	}
	return conn.Publish(ctx, topic, 1, false, payload)
}
