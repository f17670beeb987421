package mqtt

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"ontagent/transport"
)

const (
	maxInFlight = 16
	maxInbound  = 64 << 10 // of a payload, in bytes
	maxTopic    = 256      // what a packet holds beside its payload, rounded up
	stopTime    = 3 * time.Second
)

// errNoGoodbye ends a connection so that the broker tells of it.
var errNoGoodbye = errors.New("ended without goodbye")

// DeviceOptions configure a Device.
type DeviceOptions struct {
	// Dial says how to reach the broker. ClientID and Will are set by the
	// Device.
	Dial   Options
	Tenant string
	// Stamper numbers the messages that are not queued (state, info, pending).
	// It is the queue's, and names the device.
	Stamper *transport.Stamper
	// Queue is pumped to the broker.
	Queue transport.Queue
	// Birth returns the body of the retained info message, asked at every
	// connection. nil means an empty one.
	Birth func() json.RawMessage
	// Inbound takes messages for this device, one at a time. It must not
	// block for long: meanwhile up to Dial.InboundDepth messages wait, then
	// they are dropped and counted. nil means that they are ignored.
	Inbound func(transport.Inbound)
	Backoff Backoff
	// Urgent says that an order is open: somebody waits, so attempts come
	// sooner. nil means never.
	Urgent func() bool
	// Session numbers the connections, rising; state messages carry it, so
	// that a will that comes late is told from a newer birth. nil means 1, 2, …
	// since the start of the Device; with the epoch of the header that is
	// enough.
	Session func() uint64

	Log  *slog.Logger     // nil means silence
	Now  func() time.Time // monotonic; nil means time.Now
	Rand func() float64   // in [0, 1), for the backoff; nil means math/rand
}

// Device keeps a gateway connected to its broker.
type Device struct {
	o        DeviceOptions
	device   string
	dial     func(context.Context, Options) (*Conn, error)
	hurry    chan struct{} // holds one token: stop waiting
	filters  []string      // of what comes down
	sessions tls.ClientSessionCache
	topics   struct{ state, info, pending string }

	mu     sync.Mutex
	status Status // guarded by mu; counters of conn not included
	conn   *Conn  // nil while not connected; guarded by mu
	count  uint64 // sessions numbered here; guarded by mu
}

// Status is the state of a Device, for people.
type Status struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"-"` // on the monotonic clock: connected or not since then
	// ForS is the time since Since, in seconds.
	ForS     float64 `json:"for_s"`
	Session  uint64  `json:"session"` // number of the latest connection or attempt
	Attempts uint64  `json:"attempts"`
	// Connections counts the attempts that succeeded.
	Connections uint64 `json:"connections"`
	LastError   string `json:"last_error,omitempty"`
	// NextS is the time until the next attempt, in seconds; 0 if none is due.
	NextS          float64   `json:"next_s,omitempty"`
	Next           time.Time `json:"-"`
	InFlight       int       `json:"in_flight"`
	Published      uint64    `json:"published"` // acknowledged by the broker
	Unfit          uint64    `json:"unfit"`     // queued messages that could not be encoded
	BytesIn        int64     `json:"bytes_in"`
	BytesOut       int64     `json:"bytes_out"`
	InboundDropped uint64    `json:"inbound_dropped"` // found no room
	InboundRefused uint64    `json:"inbound_refused"` // not for us, too large, retained commands
}

// New returns a Device that has not begun to connect. The error says what is
// unusable in o.
func New(o DeviceOptions) (*Device, error) {
	if o.Stamper == nil || o.Queue == nil {
		return nil, errors.New("cannot make device session: no stamper or no queue")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.Urgent == nil {
		o.Urgent = func() bool { return false }
	}
	if o.Backoff == (Backoff{}) {
		o.Backoff = DefaultBackoff()
	}
	d := &Device{
		o: o, device: o.Stamper.Device(), dial: Dial,
		hurry:    make(chan struct{}, 1),
		sessions: tls.NewLRUClientSessionCache(1),
	}
	d.status.Since = o.Now()
	if err := d.name(); err != nil {
		return nil, fmt.Errorf("cannot make device session: %w", err)
	}
	if err := d.options(nil).Check(); err != nil {
		return nil, fmt.Errorf("cannot make device session: %w", err)
	}
	return d, nil
}

// name makes the topics and filters of the device.
func (d *Device) name() error {
	for kind, topic := range map[transport.Kind]*string{
		transport.KindState: &d.topics.state, transport.KindInfo: &d.topics.info, transport.KindPending: &d.topics.pending,
	} {
		var err error
		if *topic, err = transport.Topic(d.o.Tenant, d.device, kind, ""); err != nil {
			return err
		}
	}
	for _, kind := range []transport.Kind{transport.KindCommand, transport.KindConfig, transport.KindAck} {
		filter, err := transport.Filter(d.o.Tenant, d.device, kind, "+")
		if err != nil {
			return err
		}
		d.filters = append(d.filters, filter)
	}
	return nil
}

// options returns those of a connection with the given will.
func (d *Device) options(will []byte) Options {
	o := d.o.Dial
	o.ClientID = d.device
	o.Will = &Will{Topic: d.topics.state, Payload: will, Retain: true}
	if o.TLS.Sessions == nil {
		o.TLS.Sessions = d.sessions
	}
	if o.MaxPacket == 0 {
		o.MaxPacket = maxInbound + maxTopic
	}
	return o
}

// Serve keeps the gateway connected until ctx ends, then sends what is queued
// and says goodbye, for 3 s at most. It returns ctx.Err().
func (d *Device) Serve(ctx context.Context) error {
	b := NewPacer(d.o.Backoff, d.o.Rand)
	delay := b.Cold()
	for {
		if err := d.sleep(ctx, delay); err != nil {
			return err
		}
		up, err := d.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		urgent := d.o.Urgent()
		if up > 0 {
			delay = b.AfterLoss(up, urgent)
		} else {
			delay = b.AfterFailure(err, urgent)
		}
		d.o.Log.Warn("not connected to broker", "error", err, "up_s", up.Seconds(), "retry_in_s", delay.Seconds())
	}
}

// Hurry tells that the network has just come up: if an order is open, the
// next attempt is made now. It never blocks.
func (d *Device) Hurry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.status.Connected || !d.o.Urgent() {
		return
	}
	select {
	case d.hurry <- struct{}{}:
	default:
	}
}

// sleep waits for delay, for Hurry or for the end of ctx.
func (d *Device) sleep(ctx context.Context, delay time.Duration) error {
	d.mu.Lock()
	d.status.Next = d.o.Now().Add(delay)
	d.mu.Unlock()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.hurry:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// Status returns the present state.
func (d *Device) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.status
	now := d.o.Now()
	s.ForS = now.Sub(s.Since).Seconds()
	if !s.Connected {
		s.NextS = max(0, s.Next.Sub(now).Seconds())
	}
	if d.conn != nil {
		in, out := d.conn.Bytes()
		s.BytesIn += in
		s.BytesOut += out
		s.InboundDropped += d.conn.Dropped()
	}
	return s
}

// session makes one connection and serves it to its end. It returns how long
// the session was up, 0 if it never was, and why it ended.
func (d *Device) session(ctx context.Context) (up time.Duration, err error) {
	number := d.begin()
	var conn *Conn
	will, err := d.state("offline", number)
	if err == nil {
		conn, err = d.dial(ctx, d.options(will))
	}
	if err != nil {
		d.failed(err)
		return 0, err
	}
	s := &session{Device: d, conn: conn, number: number, born: d.o.Now()}
	d.mu.Lock()
	d.conn = conn
	d.mu.Unlock()

	upSince, err := s.serve(ctx)
	d.mu.Lock()
	in, out := conn.Bytes()
	d.conn = nil
	d.status.BytesIn += in
	d.status.BytesOut += out
	d.status.InboundDropped += conn.Dropped()
	if d.status.Connected {
		d.status.Connected, d.status.Since = false, d.o.Now()
	}
	d.mu.Unlock()
	d.failed(err)
	if upSince.IsZero() {
		return 0, err
	}
	return max(1, d.o.Now().Sub(upSince)), err
}

// begin numbers an attempt.
func (d *Device) begin() uint64 {
	var number uint64
	if d.o.Session != nil {
		number = d.o.Session()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count++
	if d.o.Session == nil {
		number = d.count
	}
	d.status.Attempts++
	d.status.Session = number
	d.status.Next = time.Time{}
	return number
}

func (d *Device) failed(err error) {
	if err == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status.LastError = err.Error()
}

// stamped makes a message that is not queued.
func (d *Device) stamped(body json.RawMessage) ([]byte, error) {
	return transport.Encode(d.o.Stamper.Stamp(transport.ClassSession), body)
}

// state makes a state message: "online" or "offline". The times in an offline
// will are those of its making, not of the loss.
func (d *Device) state(state string, number uint64) ([]byte, error) {
	body, err := transport.EncodeFields([]transport.Field{{Key: "state", Value: state}, {Key: "session", Value: number}})
	if err != nil {
		return nil, err
	}
	return d.stamped(body)
}

// session is one connection of a Device.
type session struct {
	*Device
	conn   *Conn
	number uint64
	born   time.Time // when the connection was made: what was queued before had to wait
	left   bool      // the broker has the goodbye
}

// serve greets the broker and pumps until the connection or ctx ends. It
// returns since when the session was up, zero if it never was. Everything it
// started has ended when it returns, the connection included.
func (s *session) serve(ctx context.Context) (upSince time.Time, err error) {
	var wg sync.WaitGroup
	defer wg.Wait()
	closeCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer func() {
		if !s.left {
			// No DISCONNECT: the broker shall publish the will, or "online"
			// would stay.
			s.conn.lose(errNoGoodbye)
		}
		closeCtx, cancel := context.WithTimeout(closeCtx, stopTime/6)
		defer cancel()
		closeErr := s.conn.Close(closeCtx)
		if err == nil {
			err = closeErr
		}
	}()
	wg.Go(s.dispatch)

	if err := s.greet(ctx); err != nil {
		return time.Time{}, err
	}
	upSince = s.o.Now()
	s.mu.Lock()
	s.status.Connected, s.status.Since, s.status.LastError = true, upSince, ""
	s.status.Connections++
	select {
	case <-s.hurry: // arrived
	default:
	}
	s.mu.Unlock()
	s.o.Log.Info("connected to broker", "session", s.number)

	s.pump(ctx)
	if ctx.Err() == nil {
		return upSince, s.conn.Err()
	}
	return upSince, nil
}

// greet subscribes and tells that the device is there.
func (s *session) greet(ctx context.Context) error {
	if err := s.conn.Subscribe(ctx, s.filters...); err != nil {
		return err
	}
	online, err := s.state("online", s.number)
	if err != nil {
		return err
	}
	var birth json.RawMessage
	if s.o.Birth != nil {
		birth = s.o.Birth()
	}
	info, err := s.stamped(birth)
	if err != nil {
		return fmt.Errorf("cannot make birth: %w", err)
	}
	body, err := transport.EncodeFields([]transport.Field{{Key: "session", Value: s.number}})
	if err != nil {
		return err
	}
	pending, err := s.stamped(body)
	if err != nil {
		return err
	}
	for _, m := range []struct {
		topic   string
		retain  bool
		payload []byte
	}{
		{s.topics.state, true, online},
		{s.topics.info, true, info},
		{s.topics.pending, false, pending},
	} {
		if err := s.conn.Publish(ctx, m.topic, 1, m.retain, m.payload); err != nil {
			return err
		}
	}
	return nil
}

// dispatch hands inbound messages over until the connection ends.
func (s *session) dispatch() {
	for {
		select {
		case p := <-s.conn.Inbound():
			if in, ok := s.accept(p); ok {
				if s.o.Inbound != nil {
					s.o.Inbound(in)
				}
				continue
			}
			s.mu.Lock()
			s.status.InboundRefused++
			s.mu.Unlock()
		case <-s.conn.Lost():
			return
		}
	}
}

// accept judges an inbound packet by topic and size; whether it is to be
// believed is for others.
func (s *session) accept(p Packet) (transport.Inbound, bool) {
	a, err := transport.ParseTopic(p.Topic)
	var why string
	switch {
	case err != nil:
		why = err.Error()
	case a.Tenant != s.o.Tenant || a.Device != s.device:
		why = "for another device"
	case a.Kind != transport.KindCommand && a.Kind != transport.KindConfig && a.Kind != transport.KindAck:
		why = "of a kind that devices send"
	case len(p.Payload) > maxInbound:
		why = "too large"
	case p.Retained && a.Kind == transport.KindCommand:
		// It would come again with every connection; commands that wait are
		// repeated on "pending".
		why = "retained command"
	default:
		return transport.Inbound{Kind: a.Kind, Name: a.Name, Payload: p.Payload}, true
	}
	s.o.Log.Warn("refused inbound message", "topic", fmt.Sprintf("%.120q", p.Topic), "bytes", len(p.Payload), "reason", why)
	return transport.Inbound{}, false
}

// pump sends the queue until the connection ends. When ctx ends it sends what
// is left, for stopTime less what the goodbye needs, and the goodbye.
func (s *session) pump(ctx context.Context) {
	// Ends with the connection or with ctx: no more leases for this session.
	leaseCtx, stopLeasing := context.WithCancel(ctx)
	defer stopLeasing()
	// Ends what waits for PUBACKs, when patience with a goodbye is over.
	ackCtx, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()

	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		select {
		case <-s.conn.Lost():
		case <-leaseCtx.Done():
		}
		stopLeasing()
	})

	window := make(chan struct{}, maxInFlight)
	for leaseCtx.Err() == nil {
		select {
		case window <- struct{}{}:
		case <-leaseCtx.Done():
			continue
		}
		e, err := s.o.Queue.Next(leaseCtx)
		if err != nil {
			<-window
			break
		}
		s.send(ackCtx, &wg, window, e)
	}
	if ctx.Err() != nil {
		s.goodbye(ackCtx, giveUp, &wg, window)
	}
}

// goodbye sends what is queued, then that the device is going.
func (s *session) goodbye(ackCtx context.Context, giveUp func(), wg *sync.WaitGroup, window chan struct{}) {
	limit := time.NewTimer(stopTime * 3 / 6)
	defer limit.Stop()
	s.flush(ackCtx, limit.C, wg, window)
	if payload, err := s.state("offline", s.number); err == nil {
		// Whatever was sent before is acknowledged before, or never.
		ctx, cancel := context.WithTimeout(ackCtx, stopTime/6)
		defer cancel()
		err = s.conn.Publish(ctx, s.topics.state, 1, true, payload)
		if s.left = err == nil; !s.left {
			s.o.Log.Warn("cannot say goodbye", "error", err)
		}
	}
	giveUp()
}

// flush sends the queue until it is empty, the connection ends or limit fires,
// and waits for the acknowledgements as long.
func (s *session) flush(ackCtx context.Context, limit <-chan time.Time, wg *sync.WaitGroup, window chan struct{}) {
	for {
		select {
		case window <- struct{}{}:
		case <-s.conn.Lost():
			return
		case <-limit:
			return
		}
		ctx, cancel := context.WithTimeout(ackCtx, 10*time.Millisecond)
		e, err := s.o.Queue.Next(ctx)
		cancel()
		if err != nil {
			<-window
			break
		}
		s.send(ackCtx, wg, window, e)
	}
	for range cap(window) { // every slot is free when all are ours
		select {
		case window <- struct{}{}:
		case <-s.conn.Lost():
			return
		case <-limit:
			return
		}
	}
}

// send sends a leased entry and sees to its end of lease. It holds a slot of
// window. It returns when the next entry may follow.
func (s *session) send(ctx context.Context, wg *sync.WaitGroup, window chan struct{}, e transport.Entry) {
	topic, payload, err := s.encode(e)
	if err != nil {
		s.o.Log.Error("dropped unfit message", "class", string(e.Header.Class), "seq", e.Header.Seq, "error", err)
		s.o.Queue.Done(e)
		s.mu.Lock()
		s.status.Unfit++
		s.mu.Unlock()
		<-window
		return
	}
	d, err := s.conn.begin(topic, 1, e.Message.Retain, payload)
	if err != nil {
		s.o.Queue.Return(e)
		<-window
		return
	}
	s.inFlight(1)
	wg.Go(func() {
		err := d.wait(ctx)
		s.inFlight(-1)
		if err == nil {
			s.o.Queue.Done(e)
			s.mu.Lock()
			s.status.Published++
			s.mu.Unlock()
		} else {
			s.o.Queue.Return(e)
		}
		if errors.Is(err, ErrTimeout) {
			s.conn.lose(err) // it answers pings perhaps, but takes no messages
		}
		<-window
	})
	select { // keep the order on the wire
	case <-d.sent:
	case <-s.conn.Lost():
	}
}

func (s *session) inFlight(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.InFlight += n
}

// encode makes topic and payload of an entry. Telemetry that was queued before
// the connection was made is backfill.
func (s *session) encode(e transport.Entry) (topic string, payload []byte, err error) {
	kind := e.Message.Kind
	if kind == transport.KindTelemetry && e.Queued.Before(s.born) {
		kind = transport.KindBackfill
	}
	topic, err = transport.Topic(s.o.Tenant, s.device, kind, e.Message.Name)
	if err == nil {
		payload, err = transport.Encode(e.Header, e.Message.Body)
	}
	return topic, payload, err
}
