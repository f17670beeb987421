package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"ontagent/transport"
)

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
	s.flight = newWindow(min(startWindow, d.status.Window), conn.ackTime)
	d.conn, d.window = conn, s.flight
	d.mu.Unlock()

	upSince, err := s.serve(ctx)
	d.mu.Lock()
	in, out := conn.Bytes()
	d.status.Window = s.flight.size()
	d.conn, d.window = nil, nil
	d.status.BytesIn += in
	d.status.BytesOut += out
	d.status.InboundDropped += conn.Dropped()
	if d.status.Connected {
		d.status.Connected, d.status.Since = false, d.o.Now()
	}
	d.mu.Unlock()
	if d.o.Online != nil && !upSince.IsZero() {
		d.o.Online(false)
	}
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
	flight *window
}

// errDropped ends a connection so that the broker repeats what was dropped.
var errDropped = errors.New("inbound messages dropped that the session still has")

// errNoGoodbye ends a connection so that the broker tells of it.
var errNoGoodbye = errors.New("ended without goodbye")

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
	wg.Go(s.forward)
	wg.Go(func() { s.expire(ctx, closeCtx) })

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
	if s.o.Online != nil {
		s.o.Online(true)
	}

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

// forward passes inbound messages on to handle until the connection ends.
// While handle is busy they wait in the connection.
func (s *session) forward() {
	for {
		select {
		case p := <-s.conn.Inbound():
			in, ok := s.accept(p)
			if !ok {
				p.Ack() // it will not be better next time
				s.mu.Lock()
				s.status.InboundRefused++
				s.mu.Unlock()
				continue
			}
			select {
			case s.inbox <- inbound{in, p.Ack}:
			case <-s.conn.Lost():
				return
			}
			if s.conn.owed.Load() && len(s.conn.Inbound()) == 0 {
				// There is room now for what was dropped.
				s.conn.lose(errDropped)
			}
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

	for s.flight.take(leaseCtx) == nil {
		e, err := s.o.Queue.Next(leaseCtx)
		if err != nil {
			s.flight.release()
			break
		}
		if !s.send(ackCtx, &wg, e) {
			break
		}
	}
	if ctx.Err() != nil {
		s.goodbye(ackCtx, giveUp, &wg)
	}
}

// goodbye sends what is queued, then that the device is going.
func (s *session) goodbye(ackCtx context.Context, giveUp func(), wg *sync.WaitGroup) {
	s.flush(ackCtx, wg)
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

// flush sends the queue until it is empty, the connection ends or half of
// stopTime is over, and waits for the acknowledgements as long.
func (s *session) flush(ackCtx context.Context, wg *sync.WaitGroup) {
	limit, cancel := context.WithTimeout(ackCtx, stopTime*3/6)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	wg.Go(func() {
		select {
		case <-s.conn.Lost():
			cancel()
		case <-stop:
		}
	})
	for s.flight.take(limit) == nil {
		ctx, cancel := context.WithTimeout(limit, 10*time.Millisecond)
		e, err := s.o.Queue.Next(ctx)
		cancel()
		if err != nil {
			s.flight.release()
			break
		}
		if !s.send(ackCtx, wg, e) {
			break
		}
	}
	_ = s.flight.drain(limit)
}

// expire ends the connection when the time for a goodbye after the end of ctx is
// over: whatever hangs waits for it. closed ends with the session.
func (s *session) expire(ctx, closed context.Context) {
	select {
	case <-ctx.Done():
	case <-closed.Done():
		return
	}
	timer := time.NewTimer(stopTime * 4 / 6)
	defer timer.Stop()
	select {
	case <-timer.C:
		s.conn.lose(errNoGoodbye)
	case <-closed.Done():
	}
}

// send sends a leased entry and sees to its end of lease. It has a slot of the
// window. It returns when the next entry may follow, false if none can.
func (s *session) send(ctx context.Context, wg *sync.WaitGroup, e transport.Entry) bool {
	topic, payload, err := s.encode(e)
	if err != nil {
		s.o.Log.Error("dropped unfit message", "class", string(e.Header.Class), "seq", e.Header.Seq, "error", err)
		s.o.Queue.Done(e)
		s.mu.Lock()
		s.status.Unfit++
		s.mu.Unlock()
		s.flight.release()
		return true
	}
	d, err := s.conn.begin(topic, 1, e.Message.Retain, payload)
	if err != nil {
		s.o.Queue.Return(e)
		s.flight.release()
		return false
	}
	s.inFlight(1)
	wg.Go(func() { s.finish(ctx, d, e) })
	select { // keep the order on the wire
	case <-d.sent:
		return true
	case <-s.conn.Lost():
		return false
	}
}

// finish waits for the acknowledgement of an entry and ends its lease.
func (s *session) finish(ctx context.Context, d *delivery, e transport.Entry) {
	err := d.wait(ctx)
	s.inFlight(-1)
	switch {
	case err == nil:
		s.o.Queue.Done(e)
		s.mu.Lock()
		s.status.Published++
		s.mu.Unlock()
		s.flight.acked(d.start, time.Since(d.start))
	case errors.Is(err, ErrTimeout) && !s.conn.isLost():
		s.o.Queue.Return(e)
		s.flight.missed(d.start)
		s.conn.lose(err) // it answers pings perhaps, but takes no messages
	default:
		s.o.Queue.Return(e)
		s.flight.release()
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
