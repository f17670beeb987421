// Package http asks one web server for one page, the way a browser's first
// request goes, and says what came instead if something else came: the redirect
// or the page of a walled garden, a refusal, silence. It speaks plain HTTP/1.1
// (a walled garden cannot forge the answer of an HTTPS server, only break it),
// follows no redirect unless told to, and judges nothing.
package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What errors.Is finds in the error of a Run, beside ctx.Err().
var (
	// ErrNotMeasured: the URL is one that this probe does not ask for (https).
	ErrNotMeasured = errors.New("not measured: only http:// is")
	// ErrNoInterface: there is no interface of that name.
	ErrNoInterface = errors.New("no such interface")
	// ErrNotPermitted: the process may not bind to an interface, or a local
	// packet filter forbids the connection.
	ErrNotPermitted = errors.New("not permitted")
)

// Options say what to ask for, and what should come.
type Options struct {
	URL string // http://host[:port]/path
	// Status is the one expected: if zero, 204, or 200 if there is a Marker.
	Status int
	// Marker is a text that the first 64 KiB of the body must hold; "": none.
	Marker string
	// Resolve yields the addresses of a name; the system's resolver if nil.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Interface is the one to connect through; "": as the routes say.
	Interface string
	// MaxRedirects is how many redirects are followed, to 5; none if zero.
	MaxRedirects int
	// Timeout bounds the whole run, to 1 min; 5 s if zero.
	Timeout time.Duration
}

func (o Options) timeout() time.Duration {
	if o.Timeout <= 0 {
		return 5 * time.Second
	}
	return min(o.Timeout, time.Minute)
}

func (o Options) status() int {
	switch {
	case o.Status != 0:
		return o.Status
	case o.Marker != "":
		return 200
	}
	return 204
}

// Duration returns the longest time that a run takes.
func (o Options) Duration() time.Duration { return o.timeout() }

// Outcome is what a run shows, in a word.
type Outcome string

// The outcomes.
const (
	OK          Outcome = "ok"           // the status and marker expected
	Redirected  Outcome = "redirected"   // sent elsewhere: Location
	Altered     Outcome = "altered"      // an answer, but not the server's: another status below 400, 511, or no marker
	ErrorStatus Outcome = "error_status" // 400 or above, but not 511
	NameFailed  Outcome = "name_failed"  // the host's name has no address
	Refused     Outcome = "refused"      // connection refused
	Unreachable Outcome = "unreachable"  // no route, or a router says so
	Reset       Outcome = "reset"        // the connection was reset
	Closed      Outcome = "closed"       // it was closed before the answer was whole
	Timeout     Outcome = "timeout"      // no whole answer in time
	Malformed   Outcome = "malformed"    // what came is no HTTP, or contradicts itself
)

// Bounds of what a Result keeps.
const (
	maxText     = 512 // of a body, in bytes
	maxField    = 2048
	maxFollowed = 5
	maxTried    = 4 // addresses of one host
)

// Redirect is one that was followed.
type Redirect struct {
	Status   int    `json:"status"`
	Location string `json:"location"`
}

// Result is what a run saw. Texts are the server's, verbatim, but bounded.
type Result struct {
	Outcome Outcome `json:"outcome"`
	URL     string  `json:"url"` // the last one asked for
	// Address is the server's, once connected.
	Address netip.AddrPort `json:"address,omitzero"`
	Status  int            `json:"status,omitempty"`
	Reason  string         `json:"reason,omitempty"` // the text beside the status
	// Location is where a redirect leads, LocationHost the host in it: that of
	// URL if it names none.
	Location     string `json:"location,omitempty"`
	LocationHost string `json:"location_host,omitempty"`
	Server       string `json:"server,omitempty"`
	ContentType  string `json:"content_type,omitempty"`
	// BodyBytes is how much of the body came, decoded: to 65536.
	BodyBytes int `json:"body_bytes"`
	// Text is the beginning of the body, or of what is no HTTP; to 512 bytes.
	Text string `json:"text,omitempty"`
	// Redirects are those that were followed.
	Redirects []Redirect `json:"redirects,omitempty"`
	// Error is the text of what went wrong.
	Error string `json:"error,omitempty"`
	// ConnectMs and FirstByteMs are of the last connection: to its being open,
	// and from there to the answer's first byte.
	ConnectMs   float64 `json:"connect_ms,omitempty"`
	FirstByteMs float64 `json:"first_byte_ms,omitempty"`
	DurationS   float64 `json:"duration_s"`
}

// Run asks for a page. What goes wrong on the way to it is an Outcome. The
// error is compatible with ErrNotMeasured, ErrNoInterface, ErrNotPermitted or
// ctx.Err(), or says what is wrong with the options.
func Run(ctx context.Context, o Options) (Result, error) {
	res := Result{URL: o.URL}
	u, err := parseURL(o.URL)
	if err != nil {
		return res, fmt.Errorf("cannot ask for %q: %w", o.URL, err)
	}
	begin := time.Now()
	watched, stop, err := watch(ctx, o.Interface)
	if err != nil {
		return res, fmt.Errorf("cannot ask for %q: %w", o.URL, err)
	}
	defer stop()
	limited, cancel := context.WithTimeout(watched, o.timeout())
	defer cancel()
	for err == nil {
		p := page{o: o, url: u, res: &res}
		if err = p.get(limited); err != nil {
			err = res.classify(err)
		}
		if err != nil || res.Outcome != Redirected || len(res.Redirects) >= min(o.MaxRedirects, maxFollowed) {
			break
		}
		next, bad := u.Parse(res.Location)
		if bad == nil {
			next, bad = parseURL(next.String())
		}
		if bad != nil {
			res.Error = bad.Error() // a redirect that can't be followed
			break
		}
		u = next
		res = Result{URL: u.String(), Redirects: append(res.Redirects, Redirect{res.Status, res.Location})}
	}
	res.DurationS = time.Since(begin).Seconds()
	if watched.Err() != nil {
		err = context.Cause(watched)
	}
	if err != nil {
		return res, fmt.Errorf("cannot ask for %q: %w", res.URL, err)
	}
	return res, nil
}

// classify turns what went wrong into an outcome, or returns an error if that
// says nothing about the server or the way to it.
func (r *Result) classify(err error) error {
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
	switch {
	case is(errMalformed):
		r.Outcome = Malformed
	case is(errName):
		r.Outcome = NameFailed
	case is(syscall.ENODEV):
		return fmt.Errorf("%w: %w", ErrNoInterface, err)
	case is(syscall.EPERM, syscall.EACCES):
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	case is(os.ErrDeadlineExceeded, context.DeadlineExceeded, syscall.ETIMEDOUT):
		r.Outcome = Timeout
	case is(syscall.ECONNREFUSED):
		r.Outcome = Refused
	case is(syscall.ECONNRESET, syscall.EPIPE):
		r.Outcome = Reset
	case is(io.EOF):
		r.Outcome = Closed
	case is(syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL):
		r.Outcome = Unreachable
	default:
		return err
	}
	r.Error = bounded(err.Error(), maxText)
	return nil
}

// parseURL accepts what can be put into a request as it is.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Scheme == "https":
		return nil, ErrNotMeasured
	case u.Scheme != "http" || u.Hostname() == "" || u.Opaque != "" || len(s) > maxField || strings.Contains(u.RawQuery, " "):
		return nil, errors.New("not the URL of a web server")
	case u.User != nil:
		return nil, errors.New("a URL with a user in it")
	}
	for _, c := range []byte(u.Host) {
		if c <= ' ' || c >= 0x7f {
			return nil, errors.New("not the name of a host")
		}
	}
	return u, nil
}

// page is one request and what comes of it.
type page struct {
	o   Options
	url *url.URL
	res *Result
}

// errName marks a host without an address.
var errName = errors.New("cannot resolve")

func (p page) get(ctx context.Context) error {
	addrs, err := p.addresses(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	conn, err := p.connect(ctx, addrs)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p.res.ConnectMs = millis(time.Since(begin))
	if _, err := conn.Write(request(p.url)); err != nil {
		return err
	}
	return p.read(conn)
}

func (p page) addresses(ctx context.Context) ([]netip.AddrPort, error) {
	port := uint64(80)
	if s := p.url.Port(); s != "" {
		var err error
		if port, err = strconv.ParseUint(s, 10, 16); err != nil || port == 0 {
			return nil, fmt.Errorf("%w: no port %s", errName, s)
		}
	}
	host := p.url.Hostname()
	var found []netip.Addr
	if a, err := netip.ParseAddr(host); err == nil {
		found = []netip.Addr{a}
	} else {
		resolve := p.o.Resolve
		if resolve == nil {
			resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
				return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
			}
		}
		if found, err = resolve(ctx, host); err != nil {
			return nil, fmt.Errorf("%w: %w", errName, err)
		}
	}
	var out []netip.AddrPort
	for _, a := range found[:min(len(found), maxTried)] {
		out = append(out, netip.AddrPortFrom(a.Unmap(), uint16(port)))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no address", errName)
	}
	return out, nil
}

// connect tries one address after the other. The error is the last one's.
func (p page) connect(ctx context.Context, addrs []netip.AddrPort) (conn net.Conn, err error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		if p.o.Interface == "" {
			return nil
		}
		var bound error
		if err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), p.o.Interface) }); err != nil {
			return err
		}
		return os.NewSyscallError("bind to device", bound)
	}}
	for i, addr := range addrs {
		// What is left of the time is shared by the addresses that are left.
		one, cancel := ctx, context.CancelFunc(func() {})
		if end, ok := ctx.Deadline(); ok {
			one, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(len(addrs)-i))
		}
		conn, err = d.DialContext(one, "tcp", addr.String())
		cancel()
		if err == nil {
			p.res.Address = addr
			return conn, nil
		}
	}
	return nil, err
}

// request encodes the request for u, which parseURL accepted: neither host nor
// path can hold a line break.
func request(u *url.URL) []byte {
	return []byte("GET " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host +
		"\r\nUser-Agent: ontagent\r\nAccept: */*\r\nConnection: close\r\n\r\n")
}

// read takes the answer. It sets the outcome unless there is an error that says
// more.
func (p page) read(conn net.Conn) error {
	sent := time.Now()
	var buf [4096]byte
	var raw []byte // until the head is whole
	var h head
	var b *body
	total := 0
	for b == nil || !b.done {
		n, err := conn.Read(buf[:])
		if n > 0 && total == 0 {
			p.res.FirstByteMs = millis(time.Since(sent))
		}
		total += n
		in := buf[:n]
		if b == nil {
			from := len(raw) - 3 // the end of a head may lie across two reads
			raw = append(raw, in...)
			var bad error
			if h, in, bad = heads(&raw, from, total); bad != nil {
				p.res.Text = bounded(string(raw), maxText)
				return bad
			}
			if h.status != 0 {
				b = newBody(h)
			}
		}
		if b != nil {
			if bad := b.take(in); bad != nil {
				return p.keep(h, b, bad)
			}
		}
		if err == nil || b != nil && b.done {
			continue
		}
		if errors.Is(err, io.EOF) && b != nil && b.whole() {
			break
		}
		if b == nil {
			p.res.Text = bounded(string(raw), maxText)
			return err
		}
		return p.keep(h, b, err)
	}
	if b.excess > 0 {
		return p.keep(h, b, fmt.Errorf("%w: %d bytes after the end of the body", errMalformed, b.excess))
	}
	return p.keep(h, b, nil)
}

// heads takes a whole head off raw, past interim responses, and returns what
// comes after it. The status is zero if no head is whole yet; total is how many
// bytes have come.
func heads(raw *[]byte, from, total int) (head, []byte, error) {
	for {
		n := headLength(*raw, from)
		switch {
		case n < 0 && len(*raw) >= 5 && !bytes.HasPrefix(*raw, []byte("HTTP/")):
			return head{}, nil, fmt.Errorf("%w: not HTTP", errMalformed)
		case n < 0 && total > maxHead:
			return head{}, nil, fmt.Errorf("%w: a head beyond %d bytes", errMalformed, maxHead)
		case n < 0:
			return head{}, nil, nil
		}
		h, err := parseHead((*raw)[:n])
		const switching = 101
		if err != nil || h.status >= 200 || h.status == switching {
			return h, (*raw)[n:], err
		}
		*raw, from = (*raw)[n:], 0
	}
}

// keep puts an answer into the result, and its outcome, unless err says more:
// a redirect or an alteration is one however its body ends.
func (p page) keep(h head, b *body, err error) error {
	r := p.res
	r.Status, r.Reason = h.status, bounded(h.reason, maxText)
	r.Server, r.ContentType = bounded(h.server, maxText), bounded(h.contentType, maxText)
	r.BodyBytes = len(b.content)
	r.Text = bounded(string(b.content[:min(len(b.content), maxText)]), maxText)
	marked := strings.Contains(string(b.content), p.o.Marker)
	switch {
	case h.status == p.o.status() && err != nil:
		return err
	case h.status == p.o.status() && marked:
		r.Outcome = OK
	case h.status >= 300 && h.status < 400 && h.location != "":
		r.Outcome = Redirected
		r.Location = bounded(h.location, maxField)
		r.LocationHost = p.url.Hostname()
		if u, bad := p.url.Parse(h.location); bad != nil {
			r.LocationHost = ""
		} else {
			r.LocationHost = bounded(u.Hostname(), maxText)
		}
	case h.status >= 400 && h.status != 511: // 511: network authentication required (RFC 6585)
		r.Outcome = ErrorStatus
	default:
		r.Outcome = Altered
	}
	if err != nil {
		r.Error = bounded(err.Error(), maxText)
	}
	return nil
}

func bounded(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "\uFFFD") }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
