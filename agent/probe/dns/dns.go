// Package dns asks recursive resolvers for names, one by one and by address,
// and says exactly what each answered. It never uses the system's resolver and
// judges nothing.
package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// What errors.Is finds in the error of a Lookup. An error that is none of them
// and not ctx.Err() is local: nothing was asked, and nothing is said about the
// resolver.
var (
	ErrTimeout     = errors.New("no answer in time")
	ErrUnreachable = errors.New("resolver unreachable")
	ErrMalformed   = errors.New("malformed answer")
)

// Type is the kind of address asked for.
type Type uint16

// The types.
const (
	A    Type = Type(dns.TypeA)
	AAAA Type = Type(dns.TypeAAAA)
)

func (t Type) String() string { return dns.TypeToString[uint16(t)] }

// maxAddresses bounds what is kept of one answer.
const maxAddresses = 16

// Answer is what a resolver said to one question.
type Answer struct {
	Name  string
	Type  Type
	Rcode string // "NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED"
	// Addresses of the type asked for, in the order given; at most 16.
	Addresses []netip.Addr
	// TCP says that the answer came over TCP, after a truncated one.
	TCP bool
	// Attempts counts the queries sent, from 1.
	Attempts int
	// Latency is from sending the last attempt to its answer, including the
	// repetition over TCP.
	Latency time.Duration
}

// Found reports whether the answer is positive and holds an address.
func (a Answer) Found() bool { return a.Rcode == "NOERROR" && len(a.Addresses) > 0 }

// Prober asks resolvers. The zero Prober is usable.
type Prober struct {
	// Timeout bounds one attempt, TCP included; 1.5 s if zero.
	Timeout time.Duration
	// Attempts is how often a question is asked before ErrTimeout; 2 if zero,
	// because one datagram may be lost on a good line.
	Attempts int
	// Random yields query ids and the names that cannot exist; crypto/rand if
	// nil.
	Random io.Reader
}

func (p Prober) timeout() time.Duration {
	if p.Timeout <= 0 {
		return 1500 * time.Millisecond
	}
	return p.Timeout
}

func (p Prober) attempts() int {
	if p.Attempts <= 0 {
		return 2
	}
	return p.Attempts
}

// Duration returns the longest time that one Lookup takes.
func (p Prober) Duration() time.Duration { return time.Duration(p.attempts()) * p.timeout() }

// Lookup asks resolver for the addresses of name. A negative answer (NXDOMAIN,
// SERVFAIL, no address of this type) is an answer, not an error. Datagrams that
// belong to no question of ours are ignored. The error names resolver and name,
// and is compatible with ErrTimeout, ErrUnreachable, ErrMalformed or ctx.Err();
// the Answer then holds the question and the attempts.
func (p Prober) Lookup(ctx context.Context, resolver netip.AddrPort, name string, t Type) (Answer, error) {
	a := Answer{Name: name, Type: t}
	err := errors.New("not a domain name")
	if _, ok := dns.IsDomainName(name); ok {
		for a.Attempts < p.attempts() && ctx.Err() == nil {
			a.Attempts++
			if err = p.ask(ctx, resolver, &a); !errors.Is(err, ErrTimeout) {
				break
			}
		}
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	if err != nil {
		return a, fmt.Errorf("cannot look up %s %s at %s: %w", name, t, resolver, err)
	}
	return a, nil
}

// ask makes one attempt: over UDP, and over TCP if the answer was cut.
func (p Prober) ask(ctx context.Context, resolver netip.AddrPort, a *Answer) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout())
	defer cancel()
	q, err := p.question(a.Name, a.Type)
	if err != nil {
		return err
	}
	begin := time.Now()
	m, err := exchange(ctx, "udp", resolver, q)
	if err != nil {
		return classify(ctx, err)
	}
	if m.Truncated {
		a.TCP = true
		if m, err = exchange(ctx, "tcp", resolver, q); err != nil {
			return fmt.Errorf("over TCP, after a truncated answer: %w", classify(ctx, err))
		}
	}
	a.Latency = time.Since(begin)
	a.Rcode = dns.RcodeToString[m.Rcode]
	if a.Rcode == "" {
		a.Rcode = fmt.Sprintf("RCODE%d", m.Rcode)
	}
	a.Addresses = addresses(m, a.Type)
	return nil
}

func (p Prober) random(n int) ([]byte, error) {
	r := p.Random
	if r == nil {
		r = rand.Reader
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("cannot get random bytes: %w", err)
	}
	return b, nil
}

func (p Prober) question(name string, t Type) (*dns.Msg, error) {
	id, err := p.random(2)
	if err != nil {
		return nil, err
	}
	// No EDNS: old forwarders choke on it, and the answers looked for fit.
	return &dns.Msg{
		MsgHdr:   dns.MsgHdr{Id: binary.BigEndian.Uint16(id), RecursionDesired: true},
		Question: []dns.Question{{Name: dns.Fqdn(name), Qtype: uint16(t), Qclass: dns.ClassINET}},
	}, nil
}

// exchange sends q and returns the first message that answers it. It ends with
// ctx.
func exchange(ctx context.Context, network string, resolver netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	wire, err := q.Pack()
	if err != nil {
		return nil, fmt.Errorf("cannot encode question: %w", err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, resolver.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	if network == "tcp" {
		return exchangeTCP(conn, wire, q)
	}
	if _, err := conn.Write(wire); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for ignored := 0; ; ignored++ {
		n, err := conn.Read(buf)
		switch {
		case err != nil && ignored > 0 && errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("%w: %d datagrams that answer no question of ours", ErrMalformed, ignored)
		case err != nil:
			return nil, err
		}
		if !isReply(buf[:n], q.Id) {
			continue
		}
		m, err := parse(buf[:n])
		if err != nil {
			return nil, err
		}
		if answers(m, q) {
			return m, nil
		}
	}
}

func exchangeTCP(conn net.Conn, wire []byte, q *dns.Msg) (*dns.Msg, error) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(wire)), uint16(len(wire)))
	if _, err := conn.Write(append(framed, wire...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, short(err)
	}
	buf := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, short(err)
	}
	if !isReply(buf, q.Id) {
		return nil, fmt.Errorf("%w: not an answer to our question", ErrMalformed)
	}
	m, err := parse(buf)
	if err != nil {
		return nil, err
	}
	if !answers(m, q) {
		return nil, fmt.Errorf("%w: answers another question", ErrMalformed)
	}
	return m, nil
}

// short turns the end of a stream in mid-message into ErrMalformed.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: closed in mid-message", ErrMalformed)
	}
	return err
}

// isReply reports whether wire begins like a reply with this id.
func isReply(wire []byte, id uint16) bool {
	const header = 12
	return len(wire) >= header && binary.BigEndian.Uint16(wire) == id && wire[2]&0x80 != 0
}

// parse decodes a message. A truncated message need not be whole.
func parse(wire []byte) (*dns.Msg, error) {
	m := new(dns.Msg)
	if err := m.Unpack(wire); err != nil && !m.Truncated {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, err) //nolint:errorlint // the library's errors are not ours to promise
	}
	return m, nil
}

// answers reports whether m answers the question of q. Some resolvers leave the
// question out of an error.
func answers(m, q *dns.Msg) bool {
	if len(m.Question) == 0 {
		return m.Rcode != dns.RcodeSuccess || m.Truncated
	}
	got, want := m.Question[0], q.Question[0]
	return dns.CanonicalName(got.Name) == dns.CanonicalName(want.Name) &&
		got.Qtype == want.Qtype && got.Qclass == want.Qclass
}

// addresses returns the distinct addresses of the type in the answer section,
// whatever the chain of aliases before them.
func addresses(m *dns.Msg, t Type) []netip.Addr {
	var out []netip.Addr
	for _, rr := range m.Answer {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			if t == A {
				ip = rr.A
			}
		case *dns.AAAA:
			if t == AAAA {
				ip = rr.AAAA
			}
		}
		addr, ok := netip.AddrFromSlice(ip)
		if t == A {
			addr = addr.Unmap()
		}
		if ok && len(out) < maxAddresses && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// classify gives an error of the network its sentinel.
func classify(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrMalformed):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded), ctx.Err() != nil:
		return ErrTimeout
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENETUNREACH),
		errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return err
}

// Reply is the answer to a question, or why there is none.
type Reply struct {
	Answer
	Err error
}

// Result is what one resolver said to everything that was asked.
type Result struct {
	Resolver netip.AddrPort
	// Replies in the order of the names, for each A before AAAA.
	Replies []Reply
	// Bogus is the reply for the A of a name that cannot exist: anything but
	// NXDOMAIN shows that the resolver invents answers.
	Bogus Reply
}

// Invents reports whether the resolver gave an address for the name that
// cannot exist.
func (r Result) Invents() bool { return r.Bogus.Err == nil && r.Bogus.Found() }

// maxParallel bounds the sockets open at once.
const maxParallel = 8

// Probe asks every resolver for the A and AAAA of every name and for one name
// that cannot exist. It returns one Result for each resolver, in order, when all
// questions are answered or given up, at the latest soon after ctx ends.
func (p Prober) Probe(ctx context.Context, resolvers []netip.AddrPort, names []string) []Result {
	results := make([]Result, len(resolvers))
	slots := make(chan struct{}, maxParallel)
	var wg sync.WaitGroup
	ask := func(resolver netip.AddrPort, name string, t Type, into *Reply) {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			into.Answer, into.Err = p.Lookup(ctx, resolver, name, t)
		})
	}
	bogus, err := p.nonexistent()
	for i, resolver := range resolvers {
		r := &results[i]
		r.Resolver = resolver
		r.Replies = make([]Reply, 2*len(names))
		for j, name := range names {
			ask(resolver, name, A, &r.Replies[2*j])
			ask(resolver, name, AAAA, &r.Replies[2*j+1])
		}
		if err != nil {
			r.Bogus.Err = err
			continue
		}
		ask(resolver, bogus, A, &r.Bogus)
	}
	wg.Wait()
	return results
}

// nonexistent returns a name nobody has registered: 20 random hexadecimal
// digits in a real top-level domain, because resolvers treat .invalid and its
// like in their own ways.
func (p Prober) nonexistent() (string, error) {
	b, err := p.random(10)
	if err != nil {
		return "", err
	}
	return "x" + hex.EncodeToString(b) + ".com", nil
}
