package throughput

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// answerTimeout bounds the wait for a server's answer.
	answerTimeout = 5 * time.Second
	// partSize is what one request of an upload announces: more than a test
	// needs. A server that takes no such request is sent many small ones, of
	// what nginx takes if nobody told it anything else.
	partSize      = 1 << 30
	smallPartSize = 1 << 20
)

// httpTest is a test with a server of HTTP/1.1: as many requests at once as
// there are connections, each of its own.
type httpTest struct {
	dialer
	place   place
	to      netip.AddrPort
	count   int
	down    bool
	method  string // of an upload
	part    uint64
	streams []*stream
}

var _ session = (*httpTest)(nil)

// open connects and asks, with all connections at once.
func (t *httpTest) open(ctx context.Context) ([]*stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.streams = make([]*stream, t.count)
	var wg sync.WaitGroup
	for i := range t.streams {
		wg.Go(func() {
			s, err := t.openOne(ctx)
			if err != nil {
				cancel(err) // the first one counts
				return
			}
			t.streams[i] = s
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		abortAll(t.streams)
		t.streams = nil
		return nil, context.Cause(ctx)
	}
	return t.streams, nil
}

func (t *httpTest) openOne(ctx context.Context) (*stream, error) {
	s, err := t.dial(ctx, t.to)
	if err != nil {
		return nil, err
	}
	if err := t.ask(ctx, s); err != nil {
		s.abort()
		return nil, err
	}
	return s, nil
}

// ask sends the request, and reads the head of a download's answer.
func (t *httpTest) ask(ctx context.Context, s *stream) error {
	defer context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(past()) })()
	if err := s.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	s.requested = time.Now()
	if !t.down {
		return t.askUpload(s)
	}
	if _, err := io.WriteString(s.conn, t.place.request("GET")+"Accept-Encoding: identity\r\nConnection: close\r\n\r\n"); err != nil {
		return noAnswer(err)
	}
	b := make([]byte, 0, 4<<10)
	for {
		if len(b) == cap(b) {
			b = append(b, make([]byte, len(b))...)[:len(b)]
		}
		n, err := s.conn.Read(b[len(b):cap(b)])
		if n > 0 && s.first.IsZero() {
			s.first = time.Now()
		}
		b = b[:len(b)+n]
		h, size, malformed := parseHead(b)
		switch {
		case len(b) == 0:
			return noAnswer(err)
		case malformed != nil:
			return malformed
		case size > 0 && h.status >= 100 && h.status < 200: // an interim one
			b = b[:copy(b, b[size:])]
			continue
		case size > 0:
			return t.begin(s, h, b[size:])
		case err != nil:
			return noAnswer(err)
		}
	}
}

// begin judges the answer of a download.
func (t *httpTest) begin(s *stream, h head, body []byte) error {
	switch err := h.refusal(body); {
	case err != nil:
		return err
	case h.status != 200:
		return fmt.Errorf("the server answers %s", h.said())
	case h.coding != "":
		return fmt.Errorf("the server sends the file in pieces (Transfer-Encoding: %.40s), not as it is", h.coding)
	case h.length == 0:
		return shortError("the file is empty")
	}
	s.early, s.limit, s.server = uint64(len(body)), uint64(max(h.length, 0)), h.server
	if s.limit > 0 && s.early >= s.limit {
		return shortError(fmt.Sprintf("the file ended after %d bytes, before the measurement was over", s.limit))
	}
	return nil
}

func (t *httpTest) askUpload(s *stream) error {
	part := []byte(t.place.request(t.method) + "Content-Type: application/octet-stream\r\nContent-Length: " +
		strconv.FormatUint(t.part, 10) + "\r\n\r\n")
	if _, err := s.conn.Write(part); err != nil {
		return noAnswer(err)
	}
	s.limit = t.part
	s.next = func() ([]byte, uint64) { return part, t.part }
	s.answer = (&answers{large: t.part > smallPartSize}).take
	return nil
}

// noAnswer names why there is no answer.
func noAnswer(err error) error {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return errors.New("the server closed the connection without an answer")
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return errors.New("the server reset the connection without an answer")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the server does not answer within %v", answerTimeout)
	}
	return fmt.Errorf("the server does not answer: %w", err)
}

// close resets what is open. HTTP has no word for it.
func (t *httpTest) close(context.Context) *serverCount {
	abortAll(t.streams)
	t.streams = nil
	return nil
}

// answers reads what a server answers to an upload's requests, which it may do
// before it has read them.
type answers struct {
	large bool
	buf   []byte
	skip  uint64 // of a body
}

// take takes the next bytes. An error ends the upload.
func (a *answers) take(b []byte) error {
	for len(b) > 0 {
		n := min(uint64(len(b)), a.skip)
		b, a.skip = b[n:], a.skip-n
		if a.skip > 0 || len(b) == 0 {
			return nil
		}
		known := len(a.buf)
		a.buf = append(a.buf, b[:min(len(b), maxHead-known)]...)
		h, size, err := parseHead(a.buf)
		if err != nil || size == 0 {
			return err
		}
		if err := a.judge(h, a.buf[size:]); err != nil {
			return err
		}
		b, a.buf = b[size-known:], a.buf[:0]
		switch {
		case h.status < 200 || h.status == 204:
		case h.length < 0: // the rest of the stream
			a.skip = math.MaxUint64
		default:
			a.skip = uint64(h.length)
		}
	}
	return nil
}

func (a *answers) judge(h head, body []byte) error {
	switch err := h.refusal(body); {
	case h.status == 100 || h.status == 102 || h.status == 103:
		return nil
	case h.status == 413 && a.large:
		return errTooLarge
	case err != nil:
		return err
	case h.coding != "":
		return fmt.Errorf("the server answers in pieces (Transfer-Encoding: %.40s)", h.coding)
	}
	return nil
}

// place is where a URL leads.
type place struct {
	iperf3 bool
	host   string
	port   uint16
	target string // path and query
}

// request is the beginning of a request's head.
func (p *place) request(method string) string {
	host := p.host
	if p.port != 80 {
		host = net.JoinHostPort(p.host, strconv.Itoa(int(p.port)))
	} else if a, err := netip.ParseAddr(p.host); err == nil && a.Is6() {
		host = "[" + p.host + "]"
	}
	return method + " " + p.target + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: ontagent\r\nAccept: */*\r\n"
}
