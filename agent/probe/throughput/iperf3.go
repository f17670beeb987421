package throughput

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// iperf3Wait bounds the wait for each of a server's answers.
	iperf3Wait = 5 * time.Second
	// A server that has just ended a test is away for a moment: it listens
	// anew. It is asked so many times, 0.1, 0.2 and 0.4 s after one another.
	iperf3Tries = 4
	iperf3Pause = 100 * time.Millisecond
	// iperf3Margin is how much longer than warm-up and window a server is asked
	// to serve. It ends the test by itself some seconds after that time.
	iperf3Margin = 5 * time.Second
	// iperf3Parting bounds the wait for a server to close the control
	// connection, after which it is free for another test.
	iperf3Parting = time.Second
)

// iperf3 is a test with an iperf3 server, in its public protocol: a control
// connection on which states and JSON go back and forth, and a connection for
// each stream, to the same port, which begins with the cookie of the control
// connection. In a download (reverse) the server sends.
//
// A server has one test at a time, and until it runs waits for the cookie of
// whoever connects. A connection that is opened only to see how long that takes
// holds up other clients, and ends a server that was started for one test. A
// server that runs a test refuses it, and the test goes on.
type iperf3 struct {
	down    bool
	count   int // of streams
	seconds int // that the server is asked to serve
	// dial opens the control connection, via the streams, to where that led.
	dial func(context.Context) (*stream, error)
	via  dialer

	wait, pause, parting time.Duration

	cookie  [iperf3CookieBytes]byte
	control *stream // nil: not open
	streams []*stream
	began   time.Time
	drains  sync.WaitGroup
	// A test that was opened under a context is ended by it.
	cancelled <-chan struct{}
	release   func()
	watched   chan struct{} // closed when watch has returned
	// lost says that the server ended the test: by a state or an error, if it is
	// watch that saw it.
	lost     bool
	lastWord iperf3State
	lastErr  error
	problem  error // what there was with the test's end
}

var _ session = (*iperf3)(nil)

// newIperf3 returns a session for one run in one direction. dial connects to
// the server; errors.Is finds the errno in its errors. Of o it takes
// Connections, Interface, WarmUp and Window, with no default.
func newIperf3(o *Options, dir Direction, dial func(context.Context) (*stream, error)) *iperf3 {
	asked := o.WarmUp + o.Window + iperf3Margin
	return &iperf3{
		down: dir == Down, count: o.Connections, cookie: newIperf3Cookie(),
		dial: dial, via: dialer{iface: o.Interface},
		seconds: int((asked + time.Second - 1) / time.Second),
		wait:    iperf3Wait, pause: iperf3Pause, parting: iperf3Parting,
	}
}

// open begins a test.
func (s *iperf3) open(ctx context.Context) ([]*stream, error) {
	err := s.greet(ctx)
	if err == nil {
		err = s.start(ctx)
	}
	if err != nil {
		s.shut()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("cannot begin a test with iperf3: %w", err)
	}
	s.began = time.Now()
	s.watched = make(chan struct{})
	_ = s.control.conn.SetDeadline(time.Time{}) // of an open connection
	go s.watch()
	s.cancelled, s.release = ctx.Done(), endWith(ctx, s.control.conn)
	return s.streams, nil
}

// greet opens the control connection, and says which test this is.
func (s *iperf3) greet(ctx context.Context) error {
	pause := s.pause
	for try := 1; ; try++ {
		err := s.greetOnce(ctx)
		if err == nil || try == iperf3Tries || !iperf3MayPass(err) {
			return err
		}
		again := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-again.C:
		}
		pause *= 2
	}
}

func (s *iperf3) greetOnce(ctx context.Context) error {
	st, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer endWith(ctx, st.conn)()
	s.control = st
	if err = s.say(ctx, s.cookie[:], iperf3ParamExchange); err != nil {
		s.control = nil
		st.abort()
	}
	return err
}

// iperf3MayPass reports whether an error may be that of a server that has not
// quite finished with the test before. Where several addresses refused, there is
// only a text.
func iperf3MayPass(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || strings.HasSuffix(err.Error(), syscall.ECONNREFUSED.Error()) || errors.Is(err, errIperf3Busy) ||
		errors.Is(err, errIperf3Closed) || errors.Is(err, errIperf3Reset)
}

// start agrees on the test, and connects its streams.
func (s *iperf3) start(ctx context.Context) error {
	defer endWith(ctx, s.control.conn)()
	if err := s.say(ctx, iperf3Parameters(s.down, s.count, s.seconds), iperf3CreateStreams); err != nil {
		return err
	}
	to := addrPort(s.control.conn.RemoteAddr())
	for i := range s.count {
		if err := s.connect(ctx, to); err != nil {
			return fmt.Errorf("stream %d of %d: %w", i+1, s.count, err)
		}
	}
	if err := s.say(ctx, nil, iperf3TestStart); err != nil {
		return s.routed(err)
	}
	return s.say(ctx, nil, iperf3TestRunning)
}

func (s *iperf3) connect(ctx context.Context, to netip.AddrPort) error {
	st, err := s.via.dial(ctx, to)
	if err != nil {
		return err
	}
	s.streams = append(s.streams, st)
	st.requested = time.Now()
	_ = st.conn.SetWriteDeadline(st.requested.Add(s.wait)) // of an open connection
	if _, err = st.conn.Write(s.cookie[:]); err != nil {
		return iperf3Failure(err, s.wait)
	}
	return st.conn.SetWriteDeadline(time.Time{})
}

// routed looks why a test did not start. Behind one address there may be
// several servers, and a stream may have come to one that does not know of it:
// it answers.
func (s *iperf3) routed(err error) error {
	if !errors.Is(err, errIperf3Silent) {
		return err
	}
	var b [1]byte
	for _, st := range s.streams {
		_ = st.conn.SetReadDeadline(time.Now().Add(time.Millisecond)) // only what is there already
		n, _ := st.conn.Read(b[:])
		if said := iperf3State(b[0]); n == 1 && (said == iperf3ParamExchange || said == iperf3AccessDenied) {
			return fmt.Errorf("%w: it says %v", errIperf3Routed, said)
		}
	}
	return err
}

// say sends something, if there is anything, and waits for the state that is
// to follow.
func (s *iperf3) say(ctx context.Context, b []byte, due iperf3State) error {
	if err := s.send(ctx, b); err != nil {
		return fmt.Errorf("%w, where %v was due", err, due)
	}
	got, err := s.readState()
	switch {
	case err != nil:
		return fmt.Errorf("%w, where %v was due", iperf3Failure(err, s.wait), due)
	case got == iperf3ServerError:
		return s.serverError()
	case got != due:
		return iperf3Unexpected(got, due)
	}
	return nil
}

// send sends on the control connection, and sets the time for the answer.
func (s *iperf3) send(ctx context.Context, b []byte) error {
	_ = s.control.conn.SetDeadline(time.Now().Add(s.wait)) // of an open connection
	if err := s.over(ctx); err != nil {                    // its deadline may have just been overwritten
		return err
	}
	if len(b) == 0 {
		return nil
	}
	_, err := s.control.conn.Write(b)
	return iperf3Failure(err, s.wait)
}

// over is an error as soon as ctx has ended, or the context of open.
func (s *iperf3) over(ctx context.Context) error {
	select {
	case <-s.cancelled: // nil before
		return context.Canceled
	default:
		return ctx.Err()
	}
}

func (s *iperf3) readState() (iperf3State, error) {
	var b [1]byte
	_, err := io.ReadFull(s.control.conn, b[:])
	return iperf3State(b[0]), err
}

// serverError reads what follows SERVER_ERROR. Where a server wants a user,
// some send the first number only.
func (s *iperf3) serverError() error {
	var b [8]byte
	n, err := io.ReadFull(s.control.conn, b[:4])
	if err == nil && binary.BigEndian.Uint32(b[:]) != iperf3AuthFailed {
		_, err = io.ReadFull(s.control.conn, b[4:])
	}
	if n < 4 {
		return errors.New("the server reports an error, and not which")
	}
	_ = err // the second number is of use, not needed
	return iperf3ServerFailure(binary.BigEndian.Uint32(b[:]), binary.BigEndian.Uint32(b[4:]), s.seconds)
}

// watch ends the streams when the server ends the test: what pumps them sees
// that there is no more. Till close, nothing else reads what the server says.
func (s *iperf3) watch() {
	defer close(s.watched)
	s.lastWord, s.lastErr = s.readState()
	if errors.Is(s.lastErr, os.ErrDeadlineExceeded) {
		return // close wants it to
	}
	s.lost = true
	for _, st := range s.streams {
		_ = st.conn.CloseRead() // at worst the pump's own end
		_ = st.conn.CloseWrite()
	}
}

// close ends the test. Of an upload the server's count is what it had received
// when it heard of the end; of a download, what it had sent, whether it arrived
// or not. The congestion control is the sender's.
func (s *iperf3) close(ctx context.Context) *serverCount {
	if s.control == nil {
		return nil
	}
	defer s.shut()
	_ = s.control.conn.SetReadDeadline(time.Unix(1, 0)) // of an open connection
	<-s.watched
	defer endWith(ctx, s.control.conn)()
	if s.lost {
		s.problem = s.whyLost(ctx)
		return nil
	}
	if s.over(ctx) == nil {
		var count *serverCount
		if count, s.problem = s.finish(ctx); s.over(ctx) == nil {
			return count
		}
	}
	_ = s.control.conn.SetDeadline(time.Now().Add(10 * time.Millisecond))
	_, _ = s.control.conn.Write([]byte{byte(iperf3ClientTerminate)}) // it will notice anyway
	return nil
}

// trouble is how the server ended the test before its time, or nil: better than
// what can be told from the streams, which it closed. It is known after close.
func (s *iperf3) trouble() error {
	if s.lost {
		return s.problem
	}
	return nil
}

// whyLost is why the server ended a test.
func (s *iperf3) whyLost(ctx context.Context) error {
	if s.lastErr != nil {
		return iperf3Failure(s.lastErr, s.wait)
	}
	if s.lastWord != iperf3ServerError {
		return iperf3Unexpected(s.lastWord, iperf3TestEnd)
	}
	if err := s.send(ctx, nil); err != nil {
		return err
	}
	return s.serverError()
}

// finish ends a test, and exchanges what was counted.
func (s *iperf3) finish(ctx context.Context) (*serverCount, error) {
	took := time.Since(s.began)
	bytes := make([]uint64, len(s.streams))
	for i, st := range s.streams {
		bytes[i] = st.moved(s.down)
		if s.down { // else a server that is in the middle of sending does not hear
			s.drains.Go(st.drain)
		}
	}
	if err := s.say(ctx, []byte{byte(iperf3TestEnd)}, iperf3ExchangeResults); err != nil {
		// It may have ended the test before this side did.
		s.lost = !errors.Is(err, errIperf3Silent)
		for _, known := range [...]error{errIperf3Closed, errIperf3Reset} {
			if errors.Is(err, known) {
				err = known
			}
		}
		return nil, err
	}
	if err := s.send(ctx, iperf3Count(s.down, bytes, took)); err != nil {
		return nil, err
	}
	b, err := readIperf3JSON(s.control.conn)
	if err != nil {
		return nil, fmt.Errorf("%w, where its results were due", iperf3Failure(err, s.wait))
	}
	count, err := parseIperf3Results(b, s.count)
	if err != nil {
		return nil, err
	}
	if !s.down {
		count.congestionControl = congestionControl(s.streams[0])
	}
	if err = s.say(ctx, nil, iperf3DisplayResults); err != nil {
		return count, err
	}
	if err = s.send(ctx, []byte{byte(iperf3Done)}); err != nil {
		return count, err
	}
	_ = s.control.conn.SetReadDeadline(time.Now().Add(s.parting)) // of an open connection
	if s.over(ctx) == nil {
		_, _ = s.readState() // its end
	}
	return count, nil
}

// shut closes everything.
func (s *iperf3) shut() {
	abortAll(s.streams)
	s.drains.Wait()
	s.streams = nil
	if s.release != nil {
		s.release()
		s.release, s.cancelled = nil, nil
	}
	if s.control != nil {
		_ = s.control.conn.Close() // what it said is on its way
		s.control = nil
	}
}

// moved is how many test bytes the kernel has counted, or 0 where it doesn't.
func (s *stream) moved(down bool) uint64 {
	var t tcpInfo
	_ = s.raw.Control(func(fd uintptr) { readInfo(fd, &t) }) // none if it is closed
	if down {
		n, _ := t.u64(infoReceived)
		return n
	}
	const before = 1 + iperf3CookieBytes // the SYN counts as one
	n, _ := t.u64(infoAcked)
	return max(n, before) - before
}

// drain drops what comes, until the connection is closed by either side.
func (s *stream) drain() {
	_ = s.raw.Control(func(fd uintptr) { // it may have been raised
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1)
	})
	_ = s.conn.SetReadDeadline(time.Time{}) // it may have been used to end the pump
	b := make([]byte, 16<<10)
	for {
		if _, err := s.conn.Read(b); err != nil {
			return
		}
	}
}

// iperf3Failure names what went wrong with a connection.
func iperf3Failure(err error, wait time.Duration) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w for %v", errIperf3Silent, wait)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errIperf3Closed
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errIperf3Reset
	}
	return err
}

// newIperf3Cookie returns a cookie: 36 random characters and a NUL.
func newIperf3Cookie() (c [iperf3CookieBytes]byte) {
	copy(c[:], rand.Text()+rand.Text())
	c[iperf3CookieBytes-1] = 0
	return c
}

// endWith lets conn's reads and writes fail when ctx ends, until what it
// returns is called.
func endWith(ctx context.Context, conn net.Conn) (stop func()) {
	ended := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(time.Unix(1, 0)) // of an open connection
		close(ended)
	})
	return func() {
		if !cancel() {
			<-ended
		}
	}
}
