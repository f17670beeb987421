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
	maxInbound   = 64 << 10 // of a payload, in bytes
	maxTopic     = 256      // what a packet holds beside its payload, rounded up
	inboundDepth = 32       // so at most 2 MiB wait
	stopTime     = 3 * time.Second
)

// Bounds of what can be set from afar.
const (
	MaxSpread    = time.Hour
	MaxCap       = 6 * time.Hour
	MinKeepAlive = 5 * time.Second
	MaxKeepAlive = 65535 * time.Second
)

// errStuck says that a handler did not return.
var errStuck = errors.New("a handler of inbound messages or certificate events does not return")

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
	// block for long: meanwhile up to Dial.InboundDepth messages (32 by
	// default) wait, then they are dropped and counted. Nothing else waits for
	// it. nil means that they are ignored.
	Inbound func(transport.Inbound)
	// Online is told true once a session is up and false when it has ended,
	// before the next attempt, one call at a time. It must not block. nil means
	// that nobody asks.
	Online func(bool)
	// Certificate is told what becomes of the client certificate, one event at
	// a time. nil means that nobody asks.
	Certificate func(CertificateEvent)
	// CertificatePoll is how often the files of the client certificate are
	// looked at; 0 means once a minute.
	CertificatePoll time.Duration
	Backoff         Backoff
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
	wallet   *wallet // nil: no client certificate
	inbox    chan inbound
	topics   struct{ state, info, pending string }

	mu        sync.Mutex
	status    Status        // guarded by mu; counters of conn not included
	conn      *Conn         // nil while not connected; guarded by mu
	window    *window       // that of conn; guarded by mu
	count     uint64        // sessions numbered here; guarded by mu
	pace      Backoff       // guarded by mu
	keepAlive time.Duration // of the next connection; guarded by mu
	shown     *pair         // with the last attempt to connect; guarded by mu
}

// inbound is a message on its way to DeviceOptions.Inbound.
type inbound struct {
	transport.Inbound
	ack func()
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
	Window         int       `json:"window"`    // most in flight that the line is thought to bear, 1–32
	Published      uint64    `json:"published"` // acknowledged by the broker
	Unfit          uint64    `json:"unfit"`     // queued messages that could not be encoded
	BytesIn        int64     `json:"bytes_in"`
	BytesOut       int64     `json:"bytes_out"`
	InboundDropped uint64    `json:"inbound_dropped"` // found no room
	InboundRefused uint64    `json:"inbound_refused"` // not for us, too large, retained commands
	KeepAliveS     float64   `json:"keepalive_s"`     // of the next connection
	// Certificate is the client certificate's; nil if there is to be none.
	Certificate *CertificateStatus `json:"certificate,omitempty"`
}

// New returns a Device that has not begun to connect. The error says what is
// unusable in o. Files are not looked at: they may yet come, or be made whole.
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
	if o.CertificatePoll <= 0 {
		o.CertificatePoll = time.Minute
	}
	if o.Dial.InboundDepth == 0 {
		o.Dial.InboundDepth = inboundDepth
	}
	d := &Device{
		o: o, device: o.Stamper.Device(), dial: Dial,
		hurry:    make(chan struct{}, 1),
		sessions: tls.NewLRUClientSessionCache(1),
		inbox:    make(chan inbound),
		pace:     o.Backoff, keepAlive: o.Dial.withDefaults().KeepAlive,
	}
	d.status.Since = o.Now()
	d.status.Window = startWindow
	err := d.name()
	if err == nil {
		err = o.Backoff.check()
	}
	if err == nil {
		err = d.options(nil).withDefaults().form()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make device session: %w", err)
	}
	if d.holdsCertificate() {
		d.wallet = &wallet{files: o.Dial.TLS}
		_, _ = d.wallet.load() // for Status; Serve tells what is wrong
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
	d.mu.Lock()
	o.KeepAlive = d.keepAlive
	d.mu.Unlock()
	o.ClientID = d.device
	o.Will = &Will{Topic: d.topics.state, Payload: will, Retain: true}
	if o.TLS.Sessions == nil {
		o.TLS.Sessions = d.sessions
	}
	o.TLS.device = d.device
	if d.wallet != nil {
		o.TLS.own = d.showCertificate
	}
	if o.MaxPacket == 0 {
		o.MaxPacket = maxInbound + maxTopic
	}
	return o
}

// Serve keeps the gateway connected until ctx ends, then sends what is queued
// and says goodbye, for 3 s at most. It returns ctx.Err(), joined with another
// error if a handler was stuck and had to be left behind.
func (d *Device) Serve(ctx context.Context) error {
	aside, stopAside := context.WithCancel(ctx)
	var handlers sync.WaitGroup
	handlers.Go(func() { d.handle(aside) })
	if d.wallet != nil {
		handlers.Go(func() { d.watch(aside) })
	}
	err := d.connect(ctx)
	stopAside()
	if !waited(&handlers, stopTime/10) {
		err = errors.Join(err, fmt.Errorf("cannot stop device session: %w", errStuck))
	}
	return err
}

// waited reports whether wg was done within limit.
func waited(wg *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// connect makes one session after the other until ctx ends.
func (d *Device) connect(ctx context.Context) error {
	p := NewPacer(d.backoff(), d.o.Rand)
	delay := p.Cold()
	for {
		if err := d.sleep(ctx, delay); err != nil {
			return err
		}
		up, err := d.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.Backoff = d.backoff()
		delay = pause(p, up, err, d.o.Urgent())
		d.o.Log.Warn("not connected to broker", "error", err, "up_s", up.Seconds(), "retry_in_s", delay.Seconds())
	}
}

// pause returns how long to wait after a session that was up for the time given
// and ended with err.
func pause(p *Pacer, up time.Duration, err error, urgent bool) time.Duration {
	if up == 0 {
		return p.AfterFailure(err, urgent)
	}
	delay := p.AfterLoss(up, urgent)
	if errors.Is(err, errRenewed) || urgent && errors.Is(err, errNetworkChanged) {
		return 0 // the wait is over already, or somebody stands there
	}
	return delay
}

// handle hands inbound messages over until ctx ends.
func (d *Device) handle(ctx context.Context) {
	for {
		select {
		case in := <-d.inbox:
			if d.o.Inbound != nil {
				d.o.Inbound(in.Inbound)
			}
			in.ack()
		case <-ctx.Done():
			return
		}
	}
}

// SetBackoff changes how attempts are spread, from the next wait on. Spread may
// be up to MaxSpread, Cap up to MaxCap.
func (d *Device) SetBackoff(b Backoff) error {
	if err := b.check(); err != nil {
		return fmt.Errorf("cannot set backoff: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pace = b
	return nil
}

func (d *Device) backoff() Backoff {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pace
}

// SetKeepAlive changes the keepalive of the next connection: whole seconds from
// MinKeepAlive to MaxKeepAlive.
func (d *Device) SetKeepAlive(k time.Duration) error {
	if k < MinKeepAlive || k > MaxKeepAlive || k%time.Second != 0 {
		return fmt.Errorf("cannot set keepalive: %v is not whole seconds from %v to %v", k, MinKeepAlive, MaxKeepAlive)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keepAlive = k
	return nil
}

// clock tells the time by which certificates are judged.
func (d *Device) clock() (time.Time, bool) { return d.o.Dial.withDefaults().Clock() }

// Hurry tells that the network has just come up: if an order is open, the
// next attempt is made now. It never blocks.
func (d *Device) Hurry() {
	d.mu.Lock()
	alive := d.status.Connected && d.conn != nil && !d.conn.isLost()
	d.mu.Unlock()
	if !alive && d.o.Urgent() {
		d.wake()
	}
}

// wake ends the wait before the next attempt.
func (d *Device) wake() {
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
	certificate := d.certificateStatus()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.status
	now := d.o.Now()
	s.ForS = now.Sub(s.Since).Seconds()
	s.KeepAliveS = d.keepAlive.Seconds()
	s.Certificate = certificate
	if !s.Connected {
		s.NextS = max(0, s.Next.Sub(now).Seconds())
	}
	if d.window != nil {
		s.Window = d.window.size()
	}
	if d.conn != nil {
		in, out := d.conn.Bytes()
		s.BytesIn += in
		s.BytesOut += out
		s.InboundDropped += d.conn.Dropped()
	}
	return s
}
