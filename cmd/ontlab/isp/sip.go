package isp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"

	"ontagent/cmd/ontlab/netbox"
)

// SIPOptions describe a registrar. Listen and Domain have to be given.
type SIPOptions struct {
	// Listen is where it answers, by UDP and by TCP. Port 0 means 5060.
	Listen netip.AddrPort
	// Domain is the part of an address of record behind the @, and the realm.
	// Its own address is taken for it as well.
	Domain string
	// Accounts are whom it knows.
	Accounts []SIPAccount
	// MinExpires and MaxExpires bound how long a binding lasts. 0 means 60 s
	// and one hour, which is also what a client gets that asks for nothing.
	MinExpires, MaxExpires time.Duration
}

// SIPAccount is a subscriber's line.
type SIPAccount struct {
	User, Password string
	// Code, if not 0, refuses the account with Reason once it has
	// authenticated, as an operator does with a line that is barred.
	Code   int
	Reason string
}

// SIPBinding is where an account can be reached.
type SIPBinding struct {
	User    string
	Contact string // the address's text
	Expires time.Time
}

// SIP is a registrar: it answers OPTIONS and REGISTER, and has no calls. It is
// safe for concurrent use.
//
// An unknown account gets 404, a wrong password 403, an account with a Code
// just that. Its faults replace one another, and Healthy ends them all.
type SIP struct {
	opts   SIPOptions
	gate   *digestGate
	log    *responderLog
	agent  *sipgo.UserAgent
	packet net.PacketConn
	stream *sipListener
	served sync.WaitGroup // the two listeners
	held   chan struct{}  // closed by Stop: whoever is kept waiting goes

	mu       sync.Mutex
	stopped  bool
	fault    sipFault
	bindings []SIPBinding
}

type sipFault struct {
	silent bool
	slow   time.Duration
	code   int
	reason string
}

// StartSIP starts a registrar, which answers when StartSIP returns. ctx
// bounds the start only.
func StartSIP(ctx context.Context, host *netbox.Host, o SIPOptions) (*SIP, error) {
	fail := func(err error) (*SIP, error) {
		return nil, fmt.Errorf("cannot start SIP registrar on %s: %w", host.Name(), err)
	}
	if o.Domain == "" {
		return fail(errors.New("it has no domain"))
	}
	if o.Listen.Port() == 0 {
		o.Listen = netip.AddrPortFrom(o.Listen.Addr(), 5060)
	}
	if o.MinExpires == 0 {
		o.MinExpires = time.Minute
	}
	if o.MaxExpires == 0 {
		o.MaxExpires = time.Hour
	}
	log, err := openResponderLog(host, "sip")
	if err != nil {
		return fail(err)
	}
	packet, err := host.ListenPacket(ctx, "udp", o.Listen.String())
	if err != nil {
		return fail(errors.Join(err, log.Close()))
	}
	stream, err := host.Listen(ctx, "tcp", o.Listen.String())
	if err != nil {
		return fail(errors.Join(err, packet.Close(), log.Close()))
	}
	s, err := newSIP(o, packet, stream, log)
	if err != nil {
		return fail(errors.Join(err, stream.Close(), packet.Close(), log.Close()))
	}
	return s, nil
}

// newSIP serves on sockets that it owns once it has succeeded.
func newSIP(o SIPOptions, packet net.PacketConn, stream net.Listener, log *responderLog) (*SIP, error) {
	s := &SIP{opts: o, gate: newDigestGate(o.Domain), log: log, packet: packet, stream: &sipListener{Listener: stream}, held: make(chan struct{})}
	var err error
	s.agent, err = sipgo.NewUA(
		sipgo.WithUserAgent("registrar"), sipgo.WithUserAgentHostname(o.Domain),
		sipgo.WithUserAgentTransportLayerOptions(sip.WithTransportLayerLogger(log.Logger), sip.WithTransportLayerReadFilter(s.hear)),
		sipgo.WithUserAgentTransactionLayerOptions(sip.WithTransactionLayerLogger(log.Logger), sip.WithTransactionLayerTerminateOnConnClose()),
	)
	if err != nil {
		return nil, err
	}
	server, err := sipgo.NewServer(s.agent, sipgo.WithServerLogger(log.Logger))
	if err != nil {
		return nil, errors.Join(err, s.agent.Close())
	}
	server.OnOptions(s.answer(s.options))
	server.OnRegister(s.answer(s.register))
	server.OnAck(func(*sip.Request, sip.ServerTransaction) {})
	server.OnNoRoute(s.answer(func(req *sip.Request) *sip.Response {
		res := sip.NewResponseFromRequest(req, sip.StatusMethodNotAllowed, "Method Not Allowed", nil)
		res.AppendHeader(sip.NewHeader("Allow", sipAllow))
		return res
	}))
	// Both return when their sockets are closed.
	s.served.Go(func() { _ = server.ServeUDP(packet) })
	s.served.Go(func() { _ = server.ServeTCP(s.stream) })
	return s, nil
}

const sipAllow = "OPTIONS, REGISTER"

// hear is what every datagram and every read of a stream passes: a silent
// registrar does not hear.
func (s *SIP) hear(_ sip.TransportReadProps, data []byte) ([]byte, error) {
	if s.now().silent {
		return nil, nil
	}
	return data, nil
}

func (s *SIP) now() sipFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// answer makes a handler that plays the faults which still give an answer.
func (s *SIP) answer(healthy func(*sip.Request) *sip.Response) sipgo.RequestHandler {
	return func(req *sip.Request, tx sip.ServerTransaction) {
		fault := s.now()
		if fault.slow > 0 {
			wait := time.NewTimer(fault.slow)
			defer wait.Stop()
			select {
			case <-wait.C:
			case <-s.held:
				return
			}
		}
		var res *sip.Response
		if fault.code != 0 {
			res = sip.NewResponseFromRequest(req, fault.code, fault.reason, nil)
		} else {
			res = healthy(req)
		}
		s.log.Info("request", "method", string(req.Method), "source", req.Source(), "status", res.StatusCode, "reason", res.Reason)
		if err := tx.Respond(res); err != nil {
			s.log.Warn("request is not answered", "source", req.Source(), "error", err)
		}
	}
}

func (*SIP) options(req *sip.Request) *sip.Response {
	res := sip.NewResponseFromRequest(req, sip.StatusOK, "OK", nil)
	res.AppendHeader(sip.NewHeader("Allow", sipAllow))
	res.AppendHeader(sip.NewHeader("Accept", "application/sdp"))
	return res
}

// register is RFC 3261 §10.3, for clients that register themselves.
func (s *SIP) register(req *sip.Request) *sip.Response {
	respond := func(code int, reason string) *sip.Response { return sip.NewResponseFromRequest(req, code, reason, nil) }
	to := req.To()
	if to == nil {
		return respond(sip.StatusBadRequest, "No To")
	}
	account, known := s.account(to.Address.User)
	if !known || !strings.EqualFold(to.Address.Host, s.opts.Domain) && to.Address.Host != s.opts.Listen.Addr().String() {
		return respond(sip.StatusNotFound, "Not Found")
	}
	challenge := func(stale bool) *sip.Response {
		res := respond(sip.StatusUnauthorized, "Unauthorized")
		res.AppendHeader(sip.NewHeader("WWW-Authenticate", s.gate.challenge(stale)))
		return res
	}
	header := req.GetHeader("Authorization")
	if header == nil {
		return challenge(false)
	}
	user, outcome := s.gate.check(string(req.Method), header.Value(), func(user string) (string, bool) {
		a, ok := s.account(user)
		return a.Password, ok
	})
	switch outcome {
	case digestGood:
	case digestStale:
		return challenge(true)
	case digestMalformed:
		return respond(sip.StatusBadRequest, "Bad Authorization")
	case digestUnknown, digestWrong:
		return respond(sip.StatusForbidden, "Forbidden")
	}
	switch {
	case user != account.User: // with another's name and password
		return respond(sip.StatusForbidden, "Forbidden")
	case account.Code != 0:
		return respond(account.Code, account.Reason)
	}
	return s.bind(req, account.User, respond)
}

func (s *SIP) account(user string) (SIPAccount, bool) {
	i := slices.IndexFunc(s.opts.Accounts, func(a SIPAccount) bool { return a.User == user })
	if i < 0 || user == "" {
		return SIPAccount{}, false
	}
	return s.opts.Accounts[i], true
}

// bind does what an authenticated REGISTER asks for: all of it or nothing.
func (s *SIP) bind(req *sip.Request, user string, respond func(int, string) *sip.Response) *sip.Response {
	asked := s.opts.MaxExpires
	if h := req.GetHeader("Expires"); h != nil {
		seconds, err := strconv.ParseUint(h.Value(), 10, 32)
		if err != nil {
			return respond(sip.StatusBadRequest, "Bad Expires")
		}
		asked = time.Duration(seconds) * time.Second
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	bindings := slices.DeleteFunc(slices.Clone(s.bindings), func(b SIPBinding) bool { return !b.Expires.After(now) })
	for _, h := range req.GetHeaders("Contact") {
		contact, ok := h.(*sip.ContactHeader)
		if !ok {
			return respond(sip.StatusBadRequest, "Bad Contact")
		}
		if contact.Address.Wildcard {
			if asked != 0 {
				return respond(sip.StatusBadRequest, "Wildcard Without Expires 0")
			}
			bindings = slices.DeleteFunc(bindings, func(b SIPBinding) bool { return b.User == user })
			continue
		}
		expires := asked
		if p, ok := contact.Params.Get("expires"); ok {
			seconds, err := strconv.ParseUint(p, 10, 32)
			if err != nil {
				return respond(sip.StatusBadRequest, "Bad Expires")
			}
			expires = time.Duration(seconds) * time.Second
		}
		if expires != 0 && expires < s.opts.MinExpires {
			res := respond(sip.StatusIntervalToBrief, "Interval Too Brief")
			res.AppendHeader(sip.NewHeader("Min-Expires", sipSeconds(s.opts.MinExpires)))
			return res
		}
		text := contact.Address.String()
		bindings = slices.DeleteFunc(bindings, func(b SIPBinding) bool { return b.User == user && b.Contact == text })
		if expires != 0 {
			bindings = append(bindings, SIPBinding{User: user, Contact: text, Expires: now.Add(min(expires, s.opts.MaxExpires))})
		}
	}
	s.bindings = bindings
	res := respond(sip.StatusOK, "OK")
	for _, b := range bindings {
		if b.User == user {
			res.AppendHeader(sip.NewHeader("Contact", "<"+b.Contact+">;expires="+sipSeconds(b.Expires.Sub(now))))
		}
	}
	res.AppendHeader(sip.NewHeader("Date", now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")))
	return res
}

func sipSeconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

// Bindings returns the bindings in force, in the order of their last
// registration.
func (s *SIP) Bindings() []SIPBinding {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return slices.DeleteFunc(slices.Clone(s.bindings), func(b SIPBinding) bool { return !b.Expires.After(now) })
}

// Healthy ends the fault, whichever it is. Bindings stay what they are.
func (s *SIP) Healthy() { s.set(sipFault{}) }

// Reject answers every request with this status, 300 to 699, and this reason
// phrase, before it asks who that is.
func (s *SIP) Reject(code int, reason string) error {
	if code < 300 || code > 699 || strings.ContainsAny(reason, "\r\n") {
		return fmt.Errorf("cannot reject with %d %q: no such final answer", code, reason)
	}
	s.set(sipFault{code: code, reason: reason})
	return nil
}

// Silent answers nothing. Its TCP port takes connections.
func (s *SIP) Silent() { s.set(sipFault{silent: true}) }

// Slow answers each request this much later.
func (s *SIP) Slow(d time.Duration) { s.set(sipFault{slow: d}) }

func (s *SIP) set(f sipFault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Stop ends the registrar for good, with all its connections. Stopping it
// again does nothing.
func (s *SIP) Stop() error {
	s.mu.Lock()
	stopped := s.stopped
	s.stopped = true
	s.mu.Unlock()
	if stopped {
		return nil
	}
	close(s.held)
	err := errors.Join(s.packet.Close(), s.stream.closeAll())
	s.served.Wait()
	// Where the library closes connections itself, its readers complain to the
	// default log that somebody did; so they have to be gone.
	for until := time.Now().Add(time.Second); s.agent.TransportLayer().Pool("tcp").Size() > 0 && time.Now().Before(until); {
		<-time.After(time.Millisecond)
	}
	err = errors.Join(err, s.agent.Close())
	if err = errors.Join(err, s.log.Close()); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("cannot stop SIP registrar: %w", err)
	}
	return nil
}

// sipListener knows the connections that it has taken.
type sipListener struct {
	net.Listener

	mu    sync.Mutex
	conns []net.Conn
	shut  bool
}

// Accept takes a connection.
func (l *sipListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shut {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	l.conns = append(l.conns, conn)
	return conn, nil
}

// closeAll closes the listener and its connections.
func (l *sipListener) closeAll() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shut = true
	for _, conn := range l.conns {
		_ = conn.Close() // most have been closed by the other end
	}
	return l.Close()
}
