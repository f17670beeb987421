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
	"sort"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// What errors.Is finds in the error of a Lookup. An error that is none of them
// and not ctx.Err() is local: nothing was asked, and nothing is said about the
// resolver.
var (
	ErrTimeout     = errors.New("no answer in time")
	ErrUnreachable = errors.New("resolver unreachable")
	ErrMalformed   = errors.New("malformed answer")
)

// ErrNoInterface is found by errors.Is if the interface to ask through does not
// exist: a local error.
var ErrNoInterface = errors.New("no such interface")

// Type is the kind of address asked for.
type Type uint16

// The types.
const (
	A    Type = Type(dnsmessage.TypeA)
	AAAA Type = Type(dnsmessage.TypeAAAA)
)

func (t Type) String() string {
	if t == AAAA {
		return "AAAA"
	}
	return "A"
}

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
	// Interface is the one to ask through, whatever the routes say; "": as
	// they say.
	Interface string
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
	return p.lookup(ctx, resolver, Answer{Name: name, Type: t}, p.attempts())
}

// lookup asks what a holds: over TCP at once if it says so.
func (p Prober) lookup(ctx context.Context, resolver netip.AddrPort, a Answer, attempts int) (Answer, error) {
	name, t := a.Name, a.Type
	_, err := newQuestion(0, name, t)
	if err == nil {
		err = ErrTimeout
		for errors.Is(err, ErrTimeout) && a.Attempts < attempts && ctx.Err() == nil {
			a.Attempts++
			err = p.ask(ctx, resolver, &a)
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
	id, err := p.random(2)
	if err != nil {
		return err
	}
	q, err := newQuestion(binary.BigEndian.Uint16(id), a.Name, a.Type)
	if err != nil {
		return err
	}
	begin := time.Now()
	network := "udp"
	if a.TCP {
		network = "tcp"
	}
	m, err := p.exchange(ctx, network, resolver, q)
	if err != nil {
		return classify(ctx, err)
	}
	if m.truncated && !a.TCP {
		a.TCP = true
		if m, err = p.exchange(ctx, "tcp", resolver, q); err != nil {
			return fmt.Errorf("over TCP, after a truncated answer: %w", classify(ctx, err))
		}
	}
	a.Latency = time.Since(begin)
	a.Rcode, a.Addresses = m.rcodeName(), m.addresses
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

// exchange sends q and returns the first message that answers it. It ends with
// ctx.
func (p Prober) exchange(ctx context.Context, network string, resolver netip.AddrPort, q question) (reply, error) {
	d := net.Dialer{Control: p.bind}
	conn, err := d.DialContext(ctx, network, resolver.String())
	if err != nil {
		return reply{}, err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	if network == "tcp" {
		return exchangeTCP(conn, q)
	}
	if _, err := conn.Write(q.wire); err != nil {
		return reply{}, err
	}
	buf := make([]byte, 4096)
	for ignored := 0; ; ignored++ {
		n, err := conn.Read(buf)
		switch {
		case err != nil && ignored > 0 && errors.Is(err, os.ErrDeadlineExceeded):
			return reply{}, fmt.Errorf("%w: %d datagrams that answer no question of ours", ErrMalformed, ignored)
		case err != nil:
			return reply{}, err
		}
		if !isReply(buf[:n], q.id) {
			continue
		}
		m, err := parse(buf[:n], q.typ)
		if err != nil {
			return reply{}, err
		}
		if m.answers(q) {
			return m, nil
		}
	}
}

// bind makes a socket use the interface.
func (p Prober) bind(_, _ string, c syscall.RawConn) error {
	if p.Interface == "" {
		return nil
	}
	var bound error
	if err := c.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), p.Interface) }); err != nil {
		return err
	}
	if errors.Is(bound, unix.ENODEV) {
		return fmt.Errorf("%w: %s", ErrNoInterface, p.Interface)
	}
	return os.NewSyscallError("bind to device", bound)
}

func exchangeTCP(conn net.Conn, q question) (reply, error) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(q.wire)), uint16(len(q.wire)))
	if _, err := conn.Write(append(framed, q.wire...)); err != nil {
		return reply{}, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return reply{}, short(err)
	}
	buf := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return reply{}, short(err)
	}
	if !isReply(buf, q.id) {
		return reply{}, fmt.Errorf("%w: not an answer to our question", ErrMalformed)
	}
	m, err := parse(buf, q.typ)
	if err != nil {
		return reply{}, err
	}
	if !m.answers(q) {
		return reply{}, fmt.Errorf("%w: answers another question", ErrMalformed)
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

// Captures reports whether the resolver gives one and the same answer for
// everything, even for a name that cannot exist: it leads to a page of the
// operator's, whatever is asked for.
func (r Result) Captures() bool {
	if !r.Invents() {
		return false
	}
	for _, reply := range r.Replies {
		if reply.Type != A {
			continue
		}
		if reply.Err != nil || !reply.Found() || !sameAddresses(reply.Addresses, r.Bogus.Addresses) {
			return false
		}
	}
	return len(r.Replies) > 0
}

func sameAddresses(a, b []netip.Addr) bool {
	return slices.Equal(sorted(a), sorted(b))
}

func sorted(addrs []netip.Addr) []netip.Addr {
	s := slices.Clone(addrs)
	sort.Slice(s, func(i, j int) bool { return s[i].Less(s[j]) })
	return s
}

// Probe asks every resolver for the A and AAAA of every name and for one name
// that cannot exist. It returns one Result for each resolver, in order, when all
// questions are answered or given up, at the latest soon after ctx ends.
func (p Prober) Probe(ctx context.Context, resolvers []netip.AddrPort, names []string) []Result {
	bogus, err := p.nonexistent("com")
	questions := both(names)
	if err == nil {
		questions = append(questions, Answer{Name: bogus, Type: A})
	}
	results := make([]Result, len(resolvers))
	for i, replies := range p.askAll(ctx, resolvers, questions) {
		r := &results[i]
		r.Resolver, r.Replies = resolvers[i], replies[:2*len(names)]
		r.Bogus.Err = err
		if err == nil {
			r.Bogus = replies[2*len(names)]
		}
	}
	return results
}

// both are the questions for the A and AAAA of every name.
func both(names []string) []Answer {
	var questions []Answer
	for _, name := range names {
		questions = append(questions, Answer{Name: name, Type: A}, Answer{Name: name, Type: AAAA})
	}
	return questions
}

// maxParallel bounds the sockets open at once.
const maxParallel = 8

// askAll asks every resolver every question; one over TCP is asked once.
func (p Prober) askAll(ctx context.Context, resolvers []netip.AddrPort, questions []Answer) [][]Reply {
	all := make([][]Reply, len(resolvers))
	slots := make(chan struct{}, maxParallel)
	var wg sync.WaitGroup
	for i, resolver := range resolvers {
		all[i] = make([]Reply, len(questions))
		for j, q := range questions {
			attempts := p.attempts()
			if q.TCP {
				attempts = 1
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				all[i][j].Answer, all[i][j].Err = p.lookup(ctx, resolver, q, attempts)
			})
		}
	}
	wg.Wait()
	return all
}

// nonexistent returns a name nobody has registered: 20 random hexadecimal
// digits in a top-level domain. A real one shows what a customer who mistypes
// is given; resolvers treat .invalid and its like in their own ways.
func (p Prober) nonexistent(top string) (string, error) {
	b, err := p.random(10)
	if err != nil {
		return "", err
	}
	return "x" + hex.EncodeToString(b) + "." + top, nil
}
