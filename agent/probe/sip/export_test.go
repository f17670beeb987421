package sip

import (
	"context"
	"net"
	"net/netip"
)

// RunOn is Run on a connection.
func RunOn(ctx context.Context, conn net.Conn, o Options) (Result, error) {
	c := newClient(&o)
	c.conn, c.local = conn, netip.MustParseAddrPort("192.0.2.9:5062")
	err := c.run(ctx)
	return c.res, err
}

// Message is what Parse reads.
type Message struct {
	Method, Reason string
	Code, Length   int
	Headers        [][2]string
}

// Parse is parse.
func Parse(b []byte) (Message, error) {
	m, err := parse(b)
	if err != nil {
		return Message{}, err
	}
	out := Message{Method: m.method, Code: m.code, Reason: m.reason, Length: m.length}
	for _, h := range m.headers {
		out.Headers = append(out.Headers, [2]string{h.name, h.value})
	}
	return out, nil
}

// Values returns what the headers of a name list.
func Values(b []byte, name string) []string {
	m, err := parse(b)
	if err != nil {
		return nil
	}
	return m.values(name, 100)
}

// Param is param.
func Param(value, name string) string { return param(value, name) }

// Answer answers a challenge, the first time.
func Answer(header, user, password, method, uri, cnonce string) (string, bool) {
	c, ok := parseChallenge(header)
	if !ok {
		return "", false
	}
	return c.answer(user, password, method, uri, cnonce, 1), true
}

// Check is Options.check.
func (o Options) Check() error {
	o.normalise()
	return o.check()
}
