// Package ntp asks a time server what time it is (SNTP: RFC 4330, RFC 5905),
// and says how far this host's clock is from it. It sets no clock, resolves no
// names and judges nothing: it shows that a server can be reached and keeps time.
package ntp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What errors.Is finds in the error of a Run: why nothing could be measured.
var (
	// ErrNoInterface: there is none of that name, or it vanished or is down.
	ErrNoInterface  = errors.New("no such interface, or it is down")
	ErrNotPermitted = errors.New("not permitted")
	ErrOptions      = errors.New("bad options")
)

// Options say what to ask, and how. Only Server is necessary.
type Options struct {
	// Server is asked; port 0 is 123.
	Server netip.AddrPort
	// Interface, if not empty, is the one to ask through (SO_BINDTODEVICE).
	Interface string
	// Source, if valid, is the address to ask from.
	Source netip.Addr
	Wait   time.Duration // for an answer to one try; 1 s if zero
	Tries  int           // 3 if zero, 10 at most
}

func (o Options) normalise() Options {
	if o.Server.Port() == 0 {
		o.Server = netip.AddrPortFrom(o.Server.Addr(), 123)
	}
	if o.Wait <= 0 {
		o.Wait = time.Second
	}
	if o.Tries <= 0 {
		o.Tries = 3
	}
	o.Tries = min(o.Tries, 10)
	return o
}

// Duration returns the longest time that a run with these options takes.
func (o Options) Duration() time.Duration {
	o = o.normalise()
	return time.Duration(o.Tries) * o.Wait
}

// Outcome is how asking ended.
type Outcome string

// The outcomes.
const (
	// OK: the server told the time.
	OK Outcome = "ok"
	// Silent: no answer.
	Silent Outcome = "silent"
	// Unsynchronised: the server itself says that it doesn't know the time.
	Unsynchronised Outcome = "unsynchronised"
	// KoD: a kiss-o'-death: the server does not want to be asked, and
	// Result.KissCode says why.
	KoD Outcome = "kod"
	// Malformed: what came could not be an answer.
	Malformed Outcome = "malformed"
	// Unreachable: the network said that there is no way to the server, or
	// its host that no time server is there; Result.Reason has the words.
	Unreachable Outcome = "unreachable"
)

// Result is what a run found.
type Result struct {
	Outcome Outcome        `json:"outcome"`
	Server  netip.AddrPort `json:"server"`
	// OffsetMs is by how much this host's clock is behind the server's, and
	// RTTMs the round trip without the time in the server; both if OK.
	OffsetMs float64 `json:"offset_ms"`
	RTTMs    float64 `json:"rtt_ms"`
	// Stratum, Leap (0 to 3), Version and ReferenceID are the server's, if it
	// answered.
	Stratum     uint8  `json:"stratum"`
	Leap        uint8  `json:"leap"`
	Version     uint8  `json:"version"`
	ReferenceID string `json:"reference_id,omitempty"`
	// KissCode is the four letters of a KoD: DENY, RSTR, RATE and others.
	KissCode string `json:"kiss_code,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Tries counts the questions sent, Foreign datagrams that answered none.
	Tries   int `json:"tries"`
	Foreign int `json:"foreign"`
}

// Run asks until there is an answer or the tries are used up. That there is none
// is a result, not an error. The error is compatible with ErrNoInterface,
// ErrNotPermitted, ErrOptions (also: no such source address), or ctx.Err().
func Run(ctx context.Context, o Options) (Result, error) {
	o = o.normalise()
	res := Result{Outcome: Silent, Server: o.Server}
	err := run(ctx, &o, &res)
	if err == nil && res.Outcome == Unreachable && o.Interface != "" {
		// The kernel says the same of a network that is not to be reached and
		// of an interface that is gone.
		if ifi, gone := net.InterfaceByName(o.Interface); gone != nil || ifi.Flags&net.FlagUp == 0 {
			err = ErrNoInterface
		}
	}
	if err != nil {
		return res, fmt.Errorf("cannot ask %s for the time: %w", o.Server, err)
	}
	return res, nil
}

func run(ctx context.Context, o *Options, res *Result) error {
	if a := o.Server.Addr(); !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
		return fmt.Errorf("%w: not the address of a server", ErrOptions)
	}
	if o.Source.IsValid() && o.Source.Unmap().Is4() != o.Server.Addr().Unmap().Is4() {
		return fmt.Errorf("%w: source and server are of different families", ErrOptions)
	}
	conn, err := dial(ctx, o)
	if err != nil {
		return res.settle(ctx, err)
	}
	defer func() { _ = conn.Close() }()
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)); close(woken) })
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	for res.Tries < o.Tries {
		if err := conn.SetDeadline(time.Now().Add(o.Wait)); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		answered, err := ask(conn, res)
		if err != nil {
			return res.settle(ctx, err)
		}
		if answered {
			return nil
		}
	}
	return ctx.Err()
}

// ask sends one question and waits for its answer, until the deadline of conn.
func ask(conn net.Conn, res *Result) (answered bool, err error) {
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails
	want := binary.BigEndian.Uint64(nonce[:])
	begin := time.Now()
	if _, err := conn.Write(request(want)); err != nil {
		return false, err
	}
	res.Tries++
	b := make([]byte, 512)
	for {
		n, err := conn.Read(b)
		elapsed := time.Since(begin)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return false, nil
		case err != nil:
			return false, err
		}
		a, err := parse(b[:n], want)
		switch {
		case errors.Is(err, errForeign):
			res.Foreign++
		case err != nil:
			// Anyone may have sent it: the answer may still come.
			res.Outcome = Malformed
		default:
			res.take(&a, begin, elapsed)
			return true, nil
		}
	}
}

// take keeps an answer.
func (r *Result) take(a *answer, begin time.Time, elapsed time.Duration) {
	r.Stratum, r.Leap, r.Version = a.stratum, a.leap, a.version
	r.ReferenceID, r.KissCode = a.reference(), a.kiss()
	switch {
	case r.KissCode != "":
		r.Outcome = KoD
	case !a.synchronised():
		r.Outcome = Unsynchronised
	default:
		r.Outcome = OK
		offset, rtt := a.measure(begin, elapsed)
		r.OffsetMs, r.RTTMs = millis(offset), millis(rtt)
	}
}

// settle says whether an error is a result, or that nothing could be measured.
func (r *Result) settle(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.ECONNREFUSED, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.ENETDOWN, unix.EHOSTDOWN, unix.ENOPROTOOPT, unix.EPROTO:
		r.Outcome, r.Reason = Unreachable, errno.Error()
		return nil
	case unix.ENODEV, unix.ENXIO:
		return fmt.Errorf("%w: %w", ErrNoInterface, err)
	case unix.EPERM:
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	case unix.EADDRNOTAVAIL, unix.EINVAL, unix.EAFNOSUPPORT:
		return fmt.Errorf("%w: %w", ErrOptions, err)
	default:
		return err
	}
}

// dial opens the socket on the thread of its caller. Connected, it hears the
// server alone, and of errors too.
func dial(ctx context.Context, o *Options) (net.Conn, error) {
	d := net.Dialer{}
	if o.Source.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(o.Source, 0))
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
	return d.DialContext(ctx, "udp", o.Server.String())
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
