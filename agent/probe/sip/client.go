package sip

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Timers of RFC 3261, section 17.1.2, for requests other than INVITE; timer F is
// Options.Wait.
const (
	t1 = 500 * time.Millisecond
	t2 = 4 * time.Second
)

const (
	// maxAuthentications is how many requests carry credentials, removals
	// apart: one, and one more if the server says the first came too late
	// (stale), or wants a longer expiry.
	maxAuthentications = 2
	maxContacts        = 100
	maxExpires         = 3600 // s; longer than that the probe's contact may not stay
	// pulse is how often the interface is looked at.
	pulse = 500 * time.Millisecond
)

// How an exchange ends without an answer.
const (
	errNoAnswer    = fault("no answer")
	errUnreachable = fault("unreachable")
)

// client asks one server.
type client struct {
	o     *Options
	conn  net.Conn
	local netip.AddrPort
	res   Result

	callID, tag string
	contact     string // the URI of the probe's own
	cseq        int
	begin       time.Time // of the asking; times are counted from it

	auth   *challenge // the last
	header string     // that answers it
	count  int        // of answers to it

	buf    []byte
	filled int    // bytes of buf from a stream, not yet used
	raw    string // the begin of the message last received
	bad    error  // the first thing that was wrong with one
	// bound says that the server may have the probe's contact.
	bound bool
}

func newClient(o *Options) *client {
	o.normalise()
	return &client{o: o, res: Result{Method: o.Method, Transport: o.Transport, Server: o.Server, Outcome: NoAnswer}}
}

func (c *client) now() time.Duration { return time.Since(c.begin) }

// random returns 64 bits in token characters.
func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (c *client) run(ctx context.Context) error {
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		_ = c.conn.SetDeadline(time.Unix(1, 0))
	})
	c.buf = make([]byte, maxMessage)
	c.callID, c.tag, c.begin = random(), random(), time.Now()
	c.contact = "sip:probe-" + random() + "@" + c.local.String()
	if c.o.Transport == "tcp" {
		c.contact += ";transport=tcp"
	}
	err := c.ask(ctx)
	if c.bound {
		err = errors.Join(err, c.remove(ctx))
	}
	if !stop() {
		<-over
		if c.bound && c.res.Removal != Removed {
			c.farewell()
		}
	}
	_ = c.conn.Close()
	return err
}

// ask puts the question, with credentials if it takes them.
func (c *client) ask(ctx context.Context) error {
	method, expires := string(c.o.Method), int(c.o.Expires/time.Second)
	if c.o.Method == MethodFetch {
		method, expires = string(MethodRegister), -1
	}
	if c.o.Method == MethodOptions {
		expires = -1
	}
	longer := false
	for {
		m, err := c.exchange(ctx, method, expires, c.o.Wait)
		switch {
		case errors.Is(err, errNoAnswer), errors.Is(err, errUnreachable):
			c.silence(err)
			return nil
		case err != nil:
			return err
		}
		c.final(m)
		switch {
		case m.code == 401 || m.code == 407:
			again, out := c.credentials(m)
			if !again {
				c.res.Outcome = out
				return nil
			}
		case m.code == 423 && c.o.Method == MethodRegister && !longer && c.res.Authentications < maxAuthentications:
			if expires = number(m.text("min-expires")); expires < 0 || expires > maxExpires {
				return nil
			}
			longer = true
		default:
			return nil
		}
	}
}

// silence says what it means that nothing final came.
func (c *client) silence(err error) {
	switch {
	case errors.Is(err, errUnreachable):
		c.res.Outcome = Unreachable
	case c.bad != nil && c.res.Provisional == 0:
		c.res.Outcome, c.res.Detail = Malformed, c.bad.Error()
	default:
		c.res.Outcome = NoAnswer
	}
}

// final keeps what a final answer says.
func (c *client) final(m *message) {
	r := &c.res
	r.AnswerMs = millis(c.now())
	r.Code, r.ReasonText = m.code, cut(m.reason)
	r.Warning, r.Reason, r.RetryAfter, r.Allow = m.text("warning"), m.text("reason"), m.text("retry-after"), m.text("allow")
	if r.ServerName = m.text("server"); r.ServerName == "" {
		r.ServerName = m.text("user-agent")
	}
	switch m.code / 100 {
	case 2:
		r.Outcome = OK
		if c.o.Method == MethodOptions {
			return
		}
		if c.o.Method == MethodRegister {
			r.Outcome = Registered
		}
		c.contacts(m)
	case 3:
		r.Outcome, r.Contact = Redirected, m.text("contact")
	case 5:
		r.Outcome = ServerError
	default:
		r.Outcome = Rejected
	}
}

// contacts counts what the registrar has, and finds the probe's own.
func (c *client) contacts(m *message) {
	others := 0
	for _, v := range m.values("contact", maxContacts) {
		if !strings.Contains(v, c.contact) {
			others++
			continue
		}
		s := param(v, "expires")
		if s == "" {
			s = m.text("expires")
		}
		c.res.ExpiresS = max(number(s), 0)
	}
	c.res.OtherContacts = &others
}

// credentials prepares the answer to a challenge, or says what it means that
// there can be none.
func (c *client) credentials(m *message) (again bool, out Outcome) {
	name, answer := "www-authenticate", "Authorization"
	if m.code == 407 {
		name, answer = "proxy-authenticate", "Proxy-Authorization"
	}
	var found *challenge
	for _, h := range m.headers {
		// The first that can be answered: the server's preference (RFC 8760).
		if ch, ok := parseChallenge(h.value); h.name == name && ok {
			found = &ch
			break
		}
	}
	if found != nil {
		c.res.Realm, c.res.Algorithm = cut(found.realm), "MD5"
		if found.algorithm != "" {
			c.res.Algorithm = strings.ToUpper(found.algorithm)
		}
	}
	switch {
	case c.o.Password == "":
		return false, Challenged
	case found == nil && c.res.Authentications == 0:
		return false, Unsupported
	case found == nil || c.res.Authentications > 0 && !found.stale || c.res.Authentications == maxAuthentications:
		return false, Unauthorized
	}
	c.auth, c.header, c.count = found, answer, 0
	return true, ""
}

// remove takes the probe's contact away.
func (c *client) remove(ctx context.Context) error {
	c.res.Removal = MayRemain
	for range 2 {
		m, err := c.exchange(ctx, string(MethodRegister), 0, min(removalWait, c.o.Wait))
		switch {
		case errors.Is(err, errNoAnswer), errors.Is(err, errUnreachable):
			return nil
		case err != nil:
			return err
		case m.code/100 == 2:
			c.res.Removal = Removed
			return nil
		}
		c.res.Removal = NotRemoved
		// A fresh nonce, perhaps; the password has been accepted.
		again := false
		if m.code == 401 || m.code == 407 {
			realm, tries := c.res.Realm, c.res.Authentications
			c.res.Authentications = 0
			again, _ = c.credentials(m)
			c.res.Realm, c.res.Authentications = realm, tries
		}
		if !again {
			return nil
		}
	}
	return nil
}

// farewell asks for the removal when there is no time to wait for an answer.
func (c *client) farewell() {
	c.res.Removal = MayRemain
	_ = c.conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	_, b := c.request(string(MethodRegister), 0)
	for range 2 { // the first may be answered by an error left over
		if _, err := c.conn.Write(b); err == nil {
			c.res.Sent++
			return
		}
	}
}

// request writes the next request. expires below 0 leaves the contact out.
func (c *client) request(method string, expires int) (branch string, b []byte) {
	c.cseq++
	branch = "z9hG4bK" + random()
	uri, account := "sip:"+c.o.domain(), "sip:"+c.o.domain()
	if c.o.User != "" {
		account = "sip:" + escape(c.o.User) + "@" + c.o.domain()
	}
	to := account
	if method == string(MethodOptions) {
		to = uri
	}
	var s strings.Builder
	line := func(parts ...string) {
		for _, p := range parts {
			s.WriteString(p)
		}
		s.WriteString("\r\n")
	}
	line(method, " ", uri, " SIP/2.0")
	line("Via: SIP/2.0/", strings.ToUpper(c.o.Transport), " ", c.local.String(), ";branch=", branch, ";rport")
	line("Max-Forwards: 70")
	line("From: <", account, ">;tag=", c.tag)
	line("To: <", to, ">")
	line("Call-ID: ", c.callID)
	line("CSeq: ", strconv.Itoa(c.cseq), " ", method)
	if expires >= 0 {
		line("Contact: <", c.contact, ">;expires=", strconv.Itoa(expires))
		line("Expires: ", strconv.Itoa(expires))
	}
	if method == string(MethodOptions) {
		line("Accept: application/sdp")
	}
	if c.auth != nil {
		c.count++
		line(c.header, ": ", c.auth.answer(c.o.AuthUser, c.o.Password, method, uri, random(), c.count))
	}
	line("User-Agent: ", c.o.UserAgent)
	line("Content-Length: 0")
	line()
	return branch, []byte(s.String())
}

// escape writes a user as a URI does (RFC 3261, section 25.1).
func escape(user string) string {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(user))
	for i := range len(user) {
		switch ch := user[i]; {
		case ch >= 'a' && ch <= 'z', ch >= 'A' && ch <= 'Z', ch >= '0' && ch <= '9', strings.IndexByte("-_.!~*'()&=+$,;?/", ch) >= 0:
			b = append(b, ch)
		default:
			b = append(b, '%', digits[ch>>4], digits[ch&15])
		}
	}
	return string(b)
}

// exchange sends a request and waits for its final answer. The error is
// errNoAnswer or errUnreachable, or says why nothing could be measured.
func (c *client) exchange(ctx context.Context, method string, expires int, wait time.Duration) (*message, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if expires > 0 {
		c.bound = true // until it is known not to be
	}
	if c.auth != nil && expires != 0 {
		c.res.Authentications++
	}
	branch, b := c.request(method, expires)
	udp := c.o.Transport == "udp"
	end := c.now() + wait
	again, interval := end, t1
	if udp {
		again = c.now() + interval
	}
	repeated, refusals, proceeding := 0, 0, false
	for send := true; ; {
		now := c.now()
		if now >= end {
			return nil, errNoAnswer
		}
		if now >= again {
			send = true
			repeated++
			c.res.Retransmissions++
			if interval = min(2*interval, t2); proceeding {
				interval = t2
			}
			again = now + interval
		}
		if send {
			// A refusal is of the datagram before; this one was not sent.
			if err := c.send(ctx, b); refused(err) && udp && refusals == 0 {
				refusals++
				continue
			} else if err != nil {
				return nil, c.failed(ctx, err)
			}
			send = false
		}
		m, err := c.receive(ctx, min(end, again, now+pulse))
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := c.present(); err != nil {
				return nil, err
			}
			continue
		case refused(err) && udp && refusals == 0: // the second counts
			refusals++
			continue
		default:
			return nil, c.failed(ctx, err)
		}
		if !c.answers(m, branch, method) {
			continue
		}
		if c.res.RTTMs == nil && c.cseq == 1 && repeated == 0 {
			c.res.RTTMs = millis(c.now())
		}
		if m.code < 200 {
			c.res.Provisional = m.code
			if !proceeding && udp {
				proceeding, again = true, c.now()+t2
			}
			continue
		}
		if expires > 0 && m.code >= 300 {
			c.bound = false
		}
		return m, nil
	}
}

// present looks whether the interface is still there.
func (c *client) present() error {
	if c.o.Interface == "" {
		return nil
	}
	return usable(c.o.Interface)
}

func (c *client) send(ctx context.Context, b []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	// After the deadline, lest it outlive the one of ctx's end.
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	if err == nil {
		c.res.Sent++
	}
	return err
}

// failed says what an error of the connection means.
func (c *client) failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case refused(err):
		c.res.Detail = networkText(err)
		return errUnreachable
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), isTimeout(err):
		c.res.Detail = "the server closed the connection"
		if isTimeout(err) {
			c.res.Detail = "the server took nothing"
		}
		return errNoAnswer
	}
	return translate(err)
}

// answers reports whether m answers the request, and counts it if not.
func (c *client) answers(m *message, branch, method string) bool {
	vias := m.values("via", 2)
	seq, _ := m.get("cseq")
	number, what, _ := strings.Cut(seq, " ")
	id, _ := m.get("call-id")
	switch {
	case m.method != "": // a request of the server's
	case len(vias) != 1: // RFC 3261, section 8.1.3.3
		c.unusable(errVia)
	case param(vias[0], "branch") != branch:
		c.unusable(errBranch)
	case number != strconv.Itoa(c.cseq) || strings.TrimSpace(what) != method || id != c.callID:
		c.unusable(errOther)
	default:
		c.mapped(vias[0])
		return true
	}
	c.res.Unexpected++
	return false
}

// unusable keeps the first message that could not be used.
func (c *client) unusable(err error) {
	if c.bad == nil {
		c.bad, c.res.Evidence = err, c.raw
	}
}

// mapped keeps where the server saw the request come from (RFC 3581).
func (c *client) mapped(via string) {
	addr, port := param(via, "received"), param(via, "rport")
	if addr == "" && port == "" {
		return
	}
	if addr == "" {
		addr = c.local.Addr().String()
	}
	if port == "" {
		port = strconv.Itoa(int(c.local.Port()))
	}
	c.res.Mapped = cut(net.JoinHostPort(strings.Trim(addr, "[]"), port))
}

// receive returns the next message that can be read.
func (c *client) receive(ctx context.Context, until time.Duration) (*message, error) {
	if err := c.conn.SetReadDeadline(c.begin.Add(until)); err != nil {
		return nil, err
	}
	// After the deadline, lest it outlive the one of ctx's end.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		if c.o.Transport != "udp" {
			if m, err := c.next(); m != nil || err != nil {
				return m, err
			}
		}
		n, err := c.conn.Read(c.buf[c.filled:])
		if err != nil {
			return nil, err
		}
		if c.o.Transport != "udp" {
			c.filled += n
			continue
		}
		b := c.buf[:n]
		if len(bytes.Trim(b, "\r\n\x00")) == 0 {
			continue // keeps a translator's port open (RFC 5626)
		}
		c.raw = cut(string(b))
		m, err := parse(b)
		if n == len(c.buf) {
			err = errTooLong // or so it may be
		}
		if err != nil {
			c.unusable(err)
			continue
		}
		return m, nil
	}
}

// next takes a message off the stream, nil if it isn't whole yet. An error is the end of it: where the next
// message would begin is lost.
func (c *client) next() (*message, error) {
	b := bytes.TrimLeft(c.buf[:c.filled], "\r\n")
	c.raw = cut(string(b))
	m, err := parse(b)
	switch {
	case len(b) == 0:
		c.filled = 0
		return nil, nil //nolint:nilnil // not yet
	case errors.Is(err, errCut) && len(b) < len(c.buf):
		c.filled = copy(c.buf, b)
		return nil, nil //nolint:nilnil // not yet
	case err != nil:
		c.unusable(err)
		return nil, fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err)
	}
	c.filled = copy(c.buf, b[m.length:])
	return m, nil
}

func millis(d time.Duration) *float64 {
	ms := float64(d) / float64(time.Millisecond)
	return &ms
}
