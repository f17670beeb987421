// Package sip asks a SIP server (RFC 3261) whether it is there, and whether it
// knows an account, by UDP or TCP: OPTIONS, or REGISTER with digest
// authentication (RFC 2617, 7616, 8760: MD5 and SHA-256).
//
// OPTIONS changes nothing, and is what is done unless the caller chooses. Fetch
// is a REGISTER without a contact: it shows whether the account and its password
// are right, and how many phones are registered, and changes nothing either.
// Register adds a contact of the probe's own for a minute and takes exactly that
// one away again, never "*". A registrar that keeps one contact for an account –
// many operators' do – throws the customer's phone out for it: the phone can't
// be called until it registers again by itself, which may take an hour. Choose
// it only where no phone is registered yet, or on a technician's order.
//
// A wrong password is tried once: an account may be locked after a few. It
// places no calls, resolves no SRV records and answers no requests.
package sip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Errors that callers may want to tell apart with errors.Is.
var (
	ErrNoInterface   = errors.New("no such interface")
	ErrInterfaceDown = errors.New("interface is down")
	ErrNotPermitted  = errors.New("not permitted")
	ErrNotResolved   = errors.New("the server's name is not resolved")
)

// Outcome is what the server made of the request.
type Outcome string

// The outcomes. Result.Code has the code where there is one.
const (
	OK           Outcome = "ok"           // it answered OPTIONS or Fetch with success
	Registered   Outcome = "registered"   // it took the contact
	Rejected     Outcome = "rejected"     // 4xx or 6xx
	Challenged   Outcome = "challenged"   // it asks for credentials, and there are none to give
	Unauthorized Outcome = "unauthorized" // it refused the credentials
	// Unsupported: it asks for an authentication that the probe doesn't know.
	Unsupported Outcome = "unsupported"
	Redirected  Outcome = "redirected"   // 3xx
	ServerError Outcome = "server_error" // 5xx
	NoAnswer    Outcome = "no_answer"    // nothing, or nothing final
	Unreachable Outcome = "unreachable"  // the network said so (ICMP), or refused the connection
	Malformed   Outcome = "malformed"    // it sent only what is no answer to the request
)

// Method is what to ask.
type Method string

// The methods; see the package comment for the harm that MethodRegister may do.
const (
	MethodOptions  Method = "OPTIONS"
	MethodFetch    Method = "FETCH"
	MethodRegister Method = "REGISTER"
)

// Removal is what became of the probe's own contact.
type Removal string

// The removals.
const (
	Removed    Removal = "removed"
	NotRemoved Removal = "not_removed" // it expires after Result.ExpiresS
	// MayRemain: it was asked to be removed, but no answer was waited for, or
	// none came.
	MayRemain Removal = "may_remain"
)

// Resolver resolves names; *net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options say whom to ask and what. Server or Host is required.
type Options struct {
	_ [0]func() // not comparable: the code for that is large

	Server netip.AddrPort // port 5060 if it is 0
	// Host is resolved, to its first address of Source's kind, if Server has no
	// address; the port is Server's.
	Host     string
	Resolver Resolver // net.DefaultResolver if nil

	Domain string // of the account; Host, or else the server's address, if ""
	User   string // the name of the account, as in sip:User@Domain
	// AuthUser and Password are the credentials; AuthUser is User if "".
	// Without a password a challenge is not answered.
	AuthUser string
	Password string `json:"-"`

	Method    Method        // MethodOptions if ""
	Expires   time.Duration // of the probe's own contact, 10 s to 5 min; 60 s if zero
	Transport string        // "udp" or "tcp"; "udp" if ""
	Interface string        // to go out by; "" for the route's
	Source    netip.Addr    // to send from; the zero Addr for the route's
	Wait      time.Duration // for the final answer to each request; 8 s if zero
	UserAgent string        // "ontagent" if ""
}

// String implements fmt.Stringer, without the password.
func (o Options) String() string {
	o.normalise()
	return string(o.Method) + " " + o.User + "@" + o.domain() + " at " + o.Host + " " + o.Server.String()
}

// GoString implements fmt.GoStringer, without the password.
func (o Options) GoString() string { return "sip.Options{" + o.String() + "}" }

func (o *Options) normalise() {
	if o.Method == "" {
		o.Method = MethodOptions
	}
	if o.Transport == "" {
		o.Transport = "udp"
	}
	if o.AuthUser == "" {
		o.AuthUser = o.User
	}
	if o.UserAgent == "" {
		o.UserAgent = "ontagent"
	}
	if o.Expires <= 0 {
		o.Expires = time.Minute
	}
	o.Expires = min(max(o.Expires, 10*time.Second), 5*time.Minute)
	if o.Wait <= 0 {
		o.Wait = 8 * time.Second
	}
	o.Wait = min(o.Wait, time.Minute)
	port := o.Server.Port()
	if port == 0 {
		port = 5060
	}
	o.Server = netip.AddrPortFrom(o.Server.Addr().Unmap(), port)
	o.Source = o.Source.Unmap()
}

// domain is Domain, or what stands in for it.
func (o *Options) domain() string {
	switch {
	case o.Domain != "":
		return o.Domain
	case o.Host != "":
		return o.Host
	case o.Server.Addr().Is6():
		return "[" + o.Server.Addr().WithZone("").String() + "]"
	}
	return o.Server.Addr().String()
}

// check refuses what would not be one request, or another than is meant.
func (o *Options) check() error {
	server, domain := o.Server.Addr(), o.domain()
	var s string
	switch {
	case !server.IsValid() && o.Host == "":
		s = "no server is given"
	case o.Method != MethodOptions && o.Method != MethodFetch && o.Method != MethodRegister:
		s = "no such method"
	case o.Transport != "udp" && o.Transport != "tcp":
		s = "no such transport"
	case o.Method != MethodOptions && o.User == "":
		s = "no user is given"
	case strings.Trim(domain, hostCharacters) != "" || len(domain) > 255:
		s = "the domain is not a name or an address"
	case !plain(o.User) || !plain(o.AuthUser) || strings.ContainsAny(o.AuthUser, `"\`):
		s = "the user has characters that no user has"
	case !plain(o.UserAgent):
		s = "the user agent has characters that no program has"
	case o.Source.IsValid() && server.IsValid() && o.Source.Is4() != server.Is4():
		s = "server and source address are of different kinds"
	default:
		return nil
	}
	return errors.New(s)
}

const (
	hostCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._[]:"
	maxName        = 256
)

// plain reports whether s fits into a line, and is no longer than a name.
func plain(s string) bool {
	return len(s) <= maxName && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0
}

// The time for resolving a name, and for each answer to a removal.
const (
	resolveWait = 5 * time.Second
	removalWait = 2 * time.Second
)

// Duration returns the longest time that a run with these options takes.
func (o Options) Duration() time.Duration {
	o.normalise()
	d := o.Wait
	if o.Password != "" {
		d += maxAuthentications * o.Wait
	}
	if o.Method == MethodRegister {
		d += o.Wait + 2*removalWait // once more where the expiry is too short
	}
	if !o.Server.Addr().IsValid() {
		d += resolveWait
	}
	if o.Transport == "tcp" {
		d += o.Wait // to connect
	}
	return d + 200*time.Millisecond
}

// Result is what the server said. Texts of the server are verbatim, cut at 256
// bytes; control characters in them are for whoever prints them to replace.
type Result struct {
	_ [0]func() // as in Options

	Outcome   Outcome        `json:"outcome"`
	Method    Method         `json:"method"`
	Transport string         `json:"transport"`
	Server    netip.AddrPort `json:"server"`
	Local     netip.AddrPort `json:"local"`
	// Mapped is where the server saw the request come from, if it said so.
	Mapped string `json:"mapped,omitempty"`

	// Of the final answer.
	Code       int    `json:"code,omitempty"`
	ReasonText string `json:"reason_phrase,omitempty"`
	Warning    string `json:"warning,omitempty"`
	Reason     string `json:"reason,omitempty"` // the header
	ServerName string `json:"server_name,omitempty"`
	Allow      string `json:"allow,omitempty"`
	RetryAfter string `json:"retry_after,omitempty"`
	Contact    string `json:"contact,omitempty"` // of a redirection

	// RTTMs is from the first request to the first answer, whichever; nil
	// without one, or if the request was repeated before.
	RTTMs *float64 `json:"rtt_ms,omitempty"`
	// AnswerMs is from the first request to the last final answer, before any
	// removal; nil without one.
	AnswerMs        *float64 `json:"answer_ms,omitempty"`
	Provisional     int      `json:"provisional_code,omitempty"` // the last 1xx
	Sent            int      `json:"sent"`
	Retransmissions int      `json:"retransmissions"`
	// Unexpected counts messages that answered no open request.
	Unexpected int `json:"unexpected,omitempty"`
	// Evidence is the begin of the first message that could not be used, and
	// Detail says why, or what the network said.
	Evidence string `json:"evidence,omitempty"`
	Detail   string `json:"detail,omitempty"`

	// Of the authentication.
	Realm           string `json:"realm,omitempty"`
	Algorithm       string `json:"algorithm,omitempty"`
	Authentications int    `json:"authentications,omitempty"` // requests with credentials, removals apart

	// Of Fetch and Register: how many contacts of others are registered.
	OtherContacts *int    `json:"other_contacts,omitempty"`
	ExpiresS      int     `json:"expires_s,omitempty"` // of the probe's contact, as granted
	Removal       Removal `json:"removal,omitempty"`
}

// Run asks. It takes at most o.Duration.
//
// Silence and refusal are results, not errors. The error is compatible with
// ErrNoInterface, ErrInterfaceDown, ErrNotPermitted or ErrNotResolved, or with
// ctx.Err() if ctx ended early; the result then holds what was seen until then.
// A contact that may be registered by then is asked to be removed, without
// waiting for the answer.
func Run(ctx context.Context, o Options) (Result, error) {
	c := newClient(&o)
	err := o.check()
	if err == nil {
		err = c.open(ctx)
	}
	if err == nil && c.conn != nil {
		err = c.run(ctx)
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	} else if err != nil {
		err = fmt.Errorf("cannot ask SIP server: %w", err)
	}
	return c.res, err
}

// open connects. Where the network refuses, that is the result, and there is no
// connection.
func (c *client) open(ctx context.Context) error {
	if err := c.present(); err != nil {
		return err
	}
	if !c.o.Server.Addr().IsValid() {
		addr, err := c.resolve(ctx)
		if err != nil {
			return err
		}
		c.o.Server = netip.AddrPortFrom(addr, c.o.Server.Port())
		c.res.Server = c.o.Server
	}
	conn, err := dial(ctx, c.o)
	switch {
	case err == nil:
		c.conn = conn
		c.local = localAddr(conn)
		c.res.Local = c.local
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case isTimeout(err):
		c.res.Outcome, c.res.Detail = NoAnswer, "no answer to the connection"
		return nil
	case refused(err):
		c.res.Outcome, c.res.Detail = Unreachable, networkText(err)
		return nil
	}
	return translate(err)
}

func (c *client) resolve(ctx context.Context) (netip.Addr, error) {
	var r Resolver = net.DefaultResolver
	if c.o.Resolver != nil {
		r = c.o.Resolver
	}
	ctx, cancel := context.WithTimeout(ctx, resolveWait)
	defer cancel()
	network := "ip"
	if c.o.Source.IsValid() {
		network = "ip6"
		if c.o.Source.Is4() {
			network = "ip4"
		}
	}
	addrs, err := r.LookupNetIP(ctx, network, c.o.Host)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %w", ErrNotResolved, err)
	}
	if len(addrs) == 0 {
		return netip.Addr{}, ErrNotResolved
	}
	return addrs[0].Unmap(), nil
}
