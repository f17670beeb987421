// Package tcp shows whether a port of a host can be reached, and if asked
// whether something there speaks HTTP: of an auto-configuration server (ACS) any
// status is a sign of life. It speaks no TLS, follows no redirect, reads no more
// than the status line, and judges nothing.
package tcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What errors.Is finds in the error of a Run: why nothing could be measured.
var (
	// ErrNoInterface: there is none of that name, or it vanished or went down.
	ErrNoInterface  = errors.New("no such interface, or it is down")
	ErrNotPermitted = errors.New("not permitted")
	ErrOptions      = errors.New("bad options")
)

// Options say what to reach, and how. Only Host and Port are necessary.
type Options struct {
	// Host is an address or a name; a name needs Resolve.
	Host string
	Port uint16
	// Resolve finds the addresses of Host. The first four are tried, one after
	// the other, until one is open.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	// ResolveTimeout bounds Resolve; 5 s if zero.
	ResolveTimeout time.Duration
	// Interface, if not empty, is the one to connect through
	// (SO_BINDTODEVICE).
	Interface string
	// Source, if valid, is the address to connect from.
	Source  netip.Addr
	Connect time.Duration // the longest wait for each address; 5 s if zero
	// Settle is how long a reset is waited for after connecting: some
	// middleboxes accept everything first. 200 ms if zero. With HTTP, the
	// exchange shows it.
	Settle time.Duration
	// HTTP asks for Path by GET and reads the status line.
	HTTP   bool
	Path   string        // "/" if empty
	Answer time.Duration // the longest wait for the whole line; 5 s if zero
}

const maxAddresses = 4

func (o Options) normalise() Options {
	for _, d := range []struct {
		of *time.Duration
		is time.Duration
	}{
		{&o.ResolveTimeout, 5 * time.Second},
		{&o.Connect, 5 * time.Second},
		{&o.Settle, 200 * time.Millisecond},
		{&o.Answer, 5 * time.Second},
	} {
		if *d.of <= 0 {
			*d.of = d.is
		}
	}
	if o.Path == "" {
		o.Path = "/"
	}
	return o
}

func (o *Options) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrOptions, what) }
	switch {
	case o.Host == "" || len(o.Host) > 255 || !visible(o.Host):
		return bad("host is no name and no address")
	case o.Port == 0:
		return bad("no port")
	case o.Path[0] != '/' || len(o.Path) > 1024 || !visible(o.Path):
		return bad("path is not one")
	case o.Resolve == nil && !o.literal().IsValid():
		return bad("a name and nobody to resolve it")
	case o.Source.IsValid() && o.literal().IsValid() && o.Source.Unmap().Is4() != o.literal().Is4():
		return bad("source and host are of different families")
	}
	return nil
}

// visible says whether s can stand in a line of a request as it is.
func visible(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

func (o *Options) literal() netip.Addr {
	a, err := netip.ParseAddr(o.Host)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

// Duration returns the longest time that a run with these options takes.
func (o Options) Duration() time.Duration {
	o = o.normalise()
	all, each := o.ResolveTimeout, o.Connect+o.Settle
	if o.HTTP {
		each = o.Connect + o.Answer
	}
	if o.literal().IsValid() {
		return each
	}
	return all + maxAddresses*each
}

// Outcome is how an attempt ended.
type Outcome string

// The outcomes.
const (
	// Open: connected, and with HTTP answered.
	Open Outcome = "open"
	// Refused: the host answered that nothing listens.
	Refused Outcome = "refused"
	// NoAnswer: nothing came back.
	NoAnswer Outcome = "no_answer"
	// Unreachable: the network said that there is no way.
	Unreachable Outcome = "unreachable"
	// Reset: connected, then cut off; if at once, ConnectMs is 0.
	Reset Outcome = "reset"
	// Closed: with HTTP, connected, and closed without an answer.
	Closed Outcome = "closed"
	// Mute: with HTTP, connected, and no whole answer in time.
	Mute Outcome = "mute"
	// NotHTTP: with HTTP, something else answered; StatusLine has it.
	NotHTTP Outcome = "not_http"
	// Unresolved: the name has no address.
	Unresolved Outcome = "unresolved"
)

// Attempt is what came of one address.
type Attempt struct {
	Outcome Outcome    `json:"outcome"`
	Address netip.Addr `json:"address,omitzero"`
	// ConnectMs is from the first packet to the connection; 0 if there is none.
	ConnectMs float64 `json:"connect_ms"`
	// Reason has the words of the system or of the resolver.
	Reason string `json:"reason,omitempty"`
	// Of HTTP: the code, the line as it came, up to 512 bytes, and the time
	// from asking to having it.
	HTTPStatus int     `json:"http_status,omitempty"`
	StatusLine string  `json:"status_line,omitempty"`
	AnswerMs   float64 `json:"answer_ms,omitempty"`
}

// Result is what a run found: the attempt that went furthest, first by being
// open, then by being connected.
type Result struct {
	Host string `json:"host"`
	Port uint16 `json:"port"`
	Attempt
	// Attempts are all, if there was more than one.
	Attempts []Attempt `json:"attempts,omitempty"`
}

// Run resolves, connects and, if asked, speaks. That a host can't be reached is
// a result, not an error. The error is compatible with ErrNoInterface,
// ErrNotPermitted, ErrOptions (also: no such source address), or ctx.Err().
func Run(ctx context.Context, o Options) (Result, error) {
	o = o.normalise()
	res := Result{Host: o.Host, Port: o.Port}
	if err := run(ctx, &o, &res); err != nil {
		return res, fmt.Errorf("cannot try port %d of %q: %w", o.Port, o.Host, err)
	}
	return res, nil
}

func run(ctx context.Context, o *Options, res *Result) error {
	if err := o.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.Interface != "" {
		stop, err := watch(ctx, o.Interface, cancel)
		if err != nil {
			return err
		}
		defer stop()
	}
	addresses, err := resolve(ctx, o)
	switch {
	case ctx.Err() != nil:
		return why(ctx)
	case err != nil || len(addresses) == 0:
		res.Outcome, res.Reason = Unresolved, "no address"
		if err != nil {
			res.Reason = bounded(err.Error())
		}
		return nil
	}
	var tried []Attempt
	best := 0
	for i, a := range addresses[:min(len(addresses), maxAddresses)] {
		t, err := attempt(ctx, o, a.Unmap())
		if ctx.Err() != nil {
			return why(ctx)
		}
		if err != nil {
			return err
		}
		if tried = append(tried, t); t.rank() > tried[best].rank() {
			best = i
		}
		if t.Outcome == Open {
			break
		}
	}
	res.Attempt = tried[best]
	if len(tried) > 1 {
		res.Attempts = tried
	}
	return nil
}

// why is ErrNoInterface if that ended ctx, else ctx.Err().
func why(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, ErrNoInterface) {
		return cause
	}
	return ctx.Err()
}

func (t *Attempt) rank() int {
	switch {
	case t.Outcome == Open:
		return 2
	case t.ConnectMs > 0:
		return 1
	}
	return 0
}

func resolve(ctx context.Context, o *Options) ([]netip.Addr, error) {
	if a := o.literal(); a.IsValid() {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.ResolveTimeout)
	defer cancel()
	all, err := o.Resolve(ctx, o.Host)
	if o.Source.IsValid() { // which can reach only its own kind
		all = slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return a.Unmap().Is4() != o.Source.Unmap().Is4() })
	}
	return all, err
}

// attempt tries one address. Its error says that nothing could be measured.
func attempt(ctx context.Context, o *Options, a netip.Addr) (Attempt, error) {
	t := Attempt{Address: a}
	begin := time.Now()
	conn, err := dial(ctx, o, a)
	if err != nil {
		return t, t.settle(err)
	}
	defer func() { _ = conn.Close() }()
	t.ConnectMs = millis(time.Since(begin))
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)); close(woken) })
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	wait := o.Settle
	if o.HTTP {
		wait = o.Answer
	}
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return t, err
	}
	if ctx.Err() != nil {
		return t, ctx.Err()
	}
	if o.HTTP {
		t.speak(conn, o)
	} else {
		t.linger(conn)
	}
	return t, nil
}

// linger sees whether the connection holds. That the far end closes it, or says
// something first, is its right.
func (t *Attempt) linger(conn io.Reader) {
	var one [1]byte
	t.Outcome = Open
	if _, err := conn.Read(one[:]); errors.Is(err, unix.ECONNRESET) {
		t.Outcome, t.Reason = Reset, unix.ECONNRESET.Error()
	}
}

// speak asks for the path and reads the status line.
func (t *Attempt) speak(conn io.ReadWriter, o *Options) {
	begin := time.Now()
	host := o.Host
	if o.literal().Is6() {
		host = "[" + o.literal().WithZone("").String() + "]"
	}
	if o.Port != 80 {
		host += ":" + strconv.Itoa(int(o.Port))
	}
	_, err := io.WriteString(conn, "GET "+o.Path+" HTTP/1.1\r\nHost: "+host+"\r\nUser-Agent: ontagent\r\nAccept: */*\r\nConnection: close\r\n\r\n")
	var b [maxLine + 1]byte
	n, more := 0, true
	for err == nil && more {
		var got int
		got, err = conn.Read(b[n:])
		n += got
		var line []byte
		line, t.HTTPStatus, more = statusLine(b[:n])
		t.StatusLine = string(line)
	}
	switch {
	case t.HTTPStatus != 0:
		t.Outcome, t.AnswerMs = Open, millis(time.Since(begin))
	case !more:
		t.Outcome = NotHTTP
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		t.Outcome, t.Reason = Reset, unix.ECONNRESET.Error()
	case errors.Is(err, io.EOF) && n > 0:
		t.Outcome = NotHTTP
	case errors.Is(err, io.EOF):
		t.Outcome = Closed
	default:
		t.Outcome = Mute
	}
}

// settle says what a failed connect means.
func (t *Attempt) settle(err error) error {
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case errors.As(err, &errno):
	case errors.As(err, &timeout) && timeout.Timeout():
		t.Outcome = NoAnswer
		return nil
	default:
		return err
	}
	t.Reason = errno.Error()
	switch errno {
	case unix.ECONNREFUSED:
		t.Outcome = Refused
	case unix.ETIMEDOUT:
		t.Outcome = NoAnswer
	case unix.ECONNRESET, unix.ECONNABORTED:
		t.Outcome = Reset
	case unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.ENETDOWN, unix.EHOSTDOWN, unix.ENOPROTOOPT, unix.EPROTO:
		t.Outcome = Unreachable
	case unix.ENODEV, unix.ENXIO:
		return fmt.Errorf("%w: %w", ErrNoInterface, err)
	case unix.EPERM:
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	case unix.EADDRNOTAVAIL, unix.EINVAL, unix.EAFNOSUPPORT:
		return fmt.Errorf("%w: %w", ErrOptions, err)
	default:
		return err
	}
	return nil
}

// dial connects from the thread of its caller.
func dial(ctx context.Context, o *Options, a netip.Addr) (net.Conn, error) {
	d := net.Dialer{Timeout: o.Connect, KeepAlive: -1}
	if o.Source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Source, 0))
	}
	if o.Interface != "" {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var bound error
			if err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), o.Interface) }); err != nil {
				return err
			}
			return bound
		}
	}
	return d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, o.Port).String())
}

// bounded keeps a text small.
func bounded(s string) string { return s[:min(len(s), 255)] }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
