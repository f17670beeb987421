package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// Defaults of Options.
const (
	DefaultBaud   = 115200
	DefaultMaxAge = 5 * time.Second
	DefaultLinger = 3 * time.Second
)

// maxSession bounds how long one session is kept, however often it is used.
const maxSession = 2 * time.Minute

// leaveTimeout bounds going back to the prompt the session began at.
const leaveTimeout = 2 * time.Second

// Timeouts bound the conversation. A zero value means the default.
type Timeouts struct {
	// Listen bounds how long the console may talk before it falls silent.
	// Default 20 s.
	Listen time.Duration
	// Quiet is how long the line must be silent before anything is typed.
	// Default 1.5 s, more than the one second between the numbers of a boot
	// loader's countdown.
	Quiet time.Duration
	// Settle is how long a prompt must stand before it is believed. Default
	// 40 ms, more than the pauses of a USB adapter.
	Settle time.Duration
	// Answer bounds the answer to one command. Default 3 s.
	Answer time.Duration
	// Login bounds the answer to a name or a password; a refusal is often
	// delayed on purpose. Default 8 s.
	Login time.Duration
}

func (t *Timeouts) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&t.Listen, 20*time.Second)
	set(&t.Quiet, 1500*time.Millisecond)
	set(&t.Settle, 40*time.Millisecond)
	set(&t.Answer, 3*time.Second)
	set(&t.Login, 8*time.Second)
}

// Options configure a Console.
type Options struct {
	// Port is the path of the serial device.
	Port string
	// Baud is its speed; 0 means DefaultBaud.
	Baud int
	// Driver names the family: one of Drivers.
	Driver string
	// Username and Password answer a login prompt. Without a name the console
	// must not ask. They are never logged and are in no error.
	Username, Password string
	// Log may be nil.
	Log *slog.Logger
	// Timeouts bound the conversation.
	Timeouts Timeouts
	// MaxAge is how old a poll may be that ReadOptics and ReadPON share. 0
	// means DefaultMaxAge, below 0 nothing is shared.
	MaxAge time.Duration
	// Linger is how long a session is kept open after a poll, for the next
	// one to use. 0 means DefaultLinger, below 0 none.
	Linger time.Duration
	// NoWake forbids the carriage return that makes a silent console show its
	// prompt.
	NoWake bool
	// Open opens the port; nil means the serial port at the path, locked.
	Open func(path string, baud int) (Port, error)
}

// Console reads one console. It is safe for concurrent use; conversations are
// held one at a time. Close it when done.
type Console struct {
	opts Options
	d    *driver
	log  *slog.Logger

	closing chan struct{} // closed when Close begins
	close   sync.Once
	workers sync.WaitGroup

	// turn is held by whoever talks to the console; it guards what follows.
	turn   chan struct{}
	closed bool
	sess   *session
	port   Port
	idle   *time.Timer
	last   poll
	serial string // last seen in this session
	// noStep: an optional step was refused once.
	noStep bool
	// After a failure nothing is tried before retryAt, unless asked afresh.
	failures int
	retryAt  time.Time
}

// poll is the result of one conversation.
type poll struct {
	began, ended time.Time
	facts        Facts
	err          error
}

var _ optics.FreshReader = (*Console)(nil)

// New checks the options and returns a Console. It does not touch the port.
func New(opts Options) (*Console, error) {
	d, ok := lookup(opts.Driver)
	if !ok {
		return nil, fmt.Errorf("cannot use console driver %q: there is %s", opts.Driver, strings.Join(Drivers(), ", "))
	}
	if opts.Port == "" {
		return nil, errors.New("cannot use console: no port given")
	}
	for what, secret := range map[string]string{"user name": opts.Username, "password": opts.Password} {
		if len(secret) > 128 || strings.ContainsFunc(secret, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return nil, fmt.Errorf("cannot use console: the %s has control characters or is longer than 128 bytes", what)
		}
	}
	if opts.Baud < 0 {
		return nil, fmt.Errorf("cannot use console: baud rate %d", opts.Baud)
	}
	if opts.Baud == 0 {
		opts.Baud = DefaultBaud
	}
	if opts.MaxAge == 0 {
		opts.MaxAge = DefaultMaxAge
	}
	if opts.Linger == 0 {
		opts.Linger = DefaultLinger
	}
	if opts.Open == nil {
		opts.Open = openSerial
	}
	opts.Timeouts.defaults()
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Console{
		opts: opts, d: d, log: log,
		closing: make(chan struct{}),
		turn:    make(chan struct{}, 1),
	}, nil
}

// Name is the source in readings: "console:" and the driver.
func (c *Console) Name() string { return "console:" + c.d.name }

// ReadOptics returns the optical readings of a poll that is at most MaxAge
// old, or of a new one. After a failure the console is left alone for a while;
// until then the failure is returned again.
func (c *Console) ReadOptics(ctx context.Context) (optics.Reading, error) {
	p := c.poll(ctx, false)
	return p.optics(c.Name())
}

// ReadOpticsFresh is ReadOptics with a poll that began after the call.
func (c *Console) ReadOpticsFresh(ctx context.Context) (optics.Reading, error) {
	p := c.poll(ctx, true)
	return p.optics(c.Name())
}

// ReadPON returns the registration state, as ReadOptics does.
func (c *Console) ReadPON(ctx context.Context) (PON, error) {
	p := c.poll(ctx, false)
	return p.pon(c.Name())
}

// ReadPONFresh is ReadPON with a poll that began after the call.
func (c *Console) ReadPONFresh(ctx context.Context) (PON, error) {
	p := c.poll(ctx, true)
	return p.pon(c.Name())
}

func (p poll) optics(source string) (optics.Reading, error) {
	if p.err != nil {
		return optics.Unread(source, collectors.StatusError), p.err
	}
	return p.facts.Optics, nil
}

func (p poll) pon(source string) (PON, error) {
	if p.err != nil {
		return PON{OMCIProvisioned: unknown, Source: source, At: p.ended}, p.err
	}
	return p.facts.PON, nil
}

// Close ends a conversation that is being held, leaves the console and
// releases the port. Reads that follow return ErrClosed.
func (c *Console) Close() error {
	c.close.Do(func() { close(c.closing) })
	c.turn <- struct{}{}
	c.closed = true
	c.release(context.Background())
	<-c.turn
	c.workers.Wait()
	return nil
}

// poll holds one conversation, or returns the result of an earlier one.
func (c *Console) poll(ctx context.Context, fresh bool) poll {
	called := time.Now()
	fail := func(err error) poll {
		return poll{began: called, ended: time.Now(), err: fmt.Errorf("cannot read console of %s: %w", c.opts.Port, err)}
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return fail(ctx.Err())
	case <-c.closing:
		return fail(ErrClosed)
	}
	held := true
	defer func() {
		if held {
			<-c.turn
		}
	}()
	if c.closed {
		return fail(ErrClosed)
	}
	now := time.Now()
	if !c.last.ended.IsZero() {
		switch {
		case c.last.began.After(called): // another's, begun while we waited
			return c.last
		case !fresh && now.Sub(c.last.ended) <= c.opts.MaxAge:
			return c.last
		}
		wait := c.retryAt.Sub(now)
		refused := errors.Is(c.last.err, ErrLoginRefused) // one more could lock the account
		if wait > 0 && c.last.err != nil && (!fresh || refused) {
			return fail(fmt.Errorf("left alone for another %v: %w", wait.Round(time.Second), c.last.err))
		}
	}
	p := poll{began: now}
	talk, cancel := context.WithCancel(ctx)
	c.workers.Go(func() {
		select {
		case <-c.closing:
			cancel()
		case <-talk.Done():
		}
	})
	p.facts, p.err = c.talk(talk, fresh)
	cancel()
	p.ended = time.Now()
	p.facts.PON.At = p.ended
	if p.err != nil {
		if c.isClosing() && errors.Is(p.err, context.Canceled) {
			p.err = ErrClosed
		}
		p.err = fmt.Errorf("cannot read console of %s: %w", c.opts.Port, p.err)
		if ctx.Err() != nil || c.isClosing() {
			// It says nothing of the console and is not remembered. The caller
			// need not wait until the console was left in order.
			held = false
			c.workers.Go(func() {
				c.release(ctx)
				<-c.turn
			})
			return p
		}
		c.release(ctx)
		c.failures++
		c.retryAt = p.ended.Add(retryAfter(p.err, c.failures))
	} else {
		c.failures, c.retryAt = 0, time.Time{}
		c.linger(ctx)
	}
	c.last = p
	return p
}

func (c *Console) isClosing() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

// talk opens a session if there is none and asks everything.
func (c *Console) talk(ctx context.Context, fresh bool) (Facts, error) {
	c.stopIdle()
	if c.sess != nil && time.Since(c.sess.began) > maxSession {
		c.release(ctx)
	}
	if c.sess != nil {
		facts, err := c.ask(ctx)
		if err == nil || ctx.Err() != nil {
			return facts, err
		}
		// The session was left alone for a while; it may be stale.
		c.release(ctx)
		if errors.Is(err, ErrBootLoader) || errors.Is(err, ErrBabble) {
			return Facts{}, err
		}
		c.log.Debug("console session was lost", "port", c.opts.Port, "error", err)
	}
	port, err := c.opts.Open(c.opts.Port, c.opts.Baud)
	if err != nil {
		return Facts{}, fmt.Errorf("cannot open port: %w", err)
	}
	c.port = port
	c.sess = newSession(port, c.d, &c.opts)
	c.sess.refused = c.noStep
	once := newScan(c.d)
	err = c.sess.start(ctx, once)
	c.noStep = c.sess.refused
	if err != nil {
		return Facts{}, err
	}
	if c.sess.asked || fresh {
		c.serial = once.f.PON.Serial
	}
	return c.ask(ctx)
}

// ask asks everything in the open session.
func (c *Console) ask(ctx context.Context) (Facts, error) {
	s := newScan(c.d)
	if err := c.sess.askAll(ctx, s, false); err != nil {
		return Facts{}, err
	}
	facts := s.facts()
	if facts.PON.Serial == "" {
		facts.PON.Serial = c.serial
	}
	return facts, nil
}

// linger keeps the session for the next poll, and leaves it when none comes.
func (c *Console) linger(ctx context.Context) {
	if c.opts.Linger < 0 {
		c.release(ctx)
		return
	}
	sess := c.sess
	c.workers.Add(1)
	var timer *time.Timer
	timer = time.AfterFunc(c.opts.Linger, func() {
		defer c.workers.Done()
		select {
		case c.turn <- struct{}{}:
			defer func() { <-c.turn }()
		case <-c.closing:
			return // Close leaves it
		}
		if c.sess == sess && c.idle == timer {
			c.release(ctx)
		}
	})
	c.idle = timer
}

// stopIdle makes sure that the session is not left by the timer.
func (c *Console) stopIdle() {
	if c.idle == nil {
		return
	}
	if c.idle.Stop() {
		c.workers.Done()
	}
	c.idle = nil
}

// release leaves the console as it was found and closes the port.
func (c *Console) release(ctx context.Context) {
	c.stopIdle()
	if c.sess != nil {
		// Also when the caller has gone: half a session is worse than a late one.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
		if !c.sess.leave(ctx) {
			c.log.Debug("console was not left in order", "port", c.opts.Port)
		}
		cancel()
		c.sess = nil
	}
	if c.port != nil {
		if err := c.port.Close(); err != nil {
			c.log.Debug("port was not closed in order", "port", c.opts.Port, "error", err)
		}
		c.port = nil
	}
}

// retryAfter says how long to leave a console alone after the nth failure in
// a row: long where another attempt could do harm, short where it only costs
// time.
func retryAfter(err error, n int) time.Duration {
	double := func(first, most time.Duration) time.Duration {
		d := first
		for i := 1; i < n && d < most; i++ {
			d *= 2
		}
		return min(d, most)
	}
	switch {
	case errors.Is(err, ErrLoginRefused), errors.Is(err, ErrLoginLoop), errors.Is(err, ErrNoCredentials):
		return double(10*time.Minute, time.Hour)
	case errors.Is(err, ErrBootLoader):
		return time.Minute
	case errors.Is(err, ErrUnknownPrompt), errors.Is(err, ErrWrongFamily), errors.Is(err, ErrBabble):
		return double(15*time.Second, 5*time.Minute)
	}
	return double(2*time.Second, time.Minute)
}
