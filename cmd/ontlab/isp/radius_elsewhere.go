package isp

import (
	"context"
	"crypto/md5" //nolint:gosec // RFC 2866 has nothing else
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"
)

// SetBook replaces the accounts, as SetAccounts does, and the Reply-Message of
// one session too many; if that is empty it is rejected without a word.
func (r *RADIUS) SetBook(ctx context.Context, accounts []Account, sessionLimitReply string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.options.SessionLimitReply, r.options.SessionLimitSilent = sessionLimitReply, sessionLimitReply == ""
	if err := r.replace(ctx, accounts); err != nil {
		return fmt.Errorf("cannot start radius server %s: %w", r.options.Name, err)
	}
	return nil
}

// Of RFC 2866.
const (
	radiusAcctRequest  = 4
	radiusAcctResponse = 5
	radiusNASAddress   = 4
	radiusNASPort      = 5
	radiusAcctStatus   = 40
	radiusAcctSession  = 44
	radiusAcctStart    = 1
	radiusAcctStop     = 2
)

// Occupy makes the accounting know n sessions of an account at another access
// server, up to 1000, instead of those that an earlier call has told. They
// count for the account's limit; nobody is behind them.
func (r *RADIUS) Occupy(ctx context.Context, user string, n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n < 0 || n > 1000 || len(user) > radiusTextMax {
		return fmt.Errorf("cannot occupy %d sessions of %q: not from 0 to 1000, or no name", n, user)
	}
	if r.elsewhere == nil {
		r.elsewhere = make(map[string]*radiusElsewhere)
	}
	e := r.elsewhere[user]
	if e == nil {
		e = &radiusElsewhere{number: len(r.elsewhere)}
		r.elsewhere[user] = e
	}
	for e.open != n {
		status, which := radiusAcctStart, e.open
		if e.open > n {
			status, which = radiusAcctStop, e.open-1
		}
		if err := r.account(ctx, status, user, e.number*1000+which); err != nil {
			return fmt.Errorf("cannot tell %s of sessions elsewhere: %w", r.options.Name, err)
		}
		e.open += 3 - 2*status // start is 1, stop is 2
	}
	return nil
}

// radiusElsewhere are an account's sessions that Occupy has told of.
type radiusElsewhere struct{ number, open int }

// account tells the server, not the relay before it, of a session. The caller
// holds mu.
func (r *RADIUS) account(ctx context.Context, status int, user string, port int) error {
	conn, err := r.host.Dial(ctx, "udp", fmt.Sprint("127.0.0.1:", r.relay.accounting()))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer is there, or an error
	var attributes []byte
	add := func(kind byte, value []byte) {
		attributes = append(append(attributes, kind, byte(2+len(value))), value...)
	}
	number := func(kind byte, v int) { add(kind, binary.BigEndian.AppendUint32(nil, uint32(v))) }
	number(radiusAcctStatus, status)
	add(radiusUserName, []byte(user))
	add(radiusNASAddress, net.IPv4(10, 255, 0, 1).To4())
	number(radiusNASPort, port)
	add(radiusAcctSession, fmt.Appendf(nil, "e%07d", port))
	request := radiusAccounting(byte(port), attributes, r.options.Secret)
	answer := make([]byte, radiusMaxPacket)
	for range 5 {
		if _, err = conn.Write(request); err != nil {
			return err
		}
		deadline := time.Now().Add(2 * time.Second)
		if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
			deadline = d
		}
		if err = conn.SetReadDeadline(deadline); err != nil {
			return err
		}
		var n int
		if n, err = conn.Read(answer); err == nil && n >= radiusHeader && answer[0] == radiusAcctResponse && answer[1] == request[1] {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(errors.New("it does not answer"), err)
}

// radiusAccounting is an Accounting-Request (RFC 2866, section 3).
func radiusAccounting(id byte, attributes []byte, secret string) []byte {
	p := make([]byte, radiusHeader, radiusHeader+len(attributes))
	p[0], p[1] = radiusAcctRequest, id
	binary.BigEndian.PutUint16(p[2:], uint16(radiusHeader+len(attributes)))
	p = append(p, attributes...)
	sum := md5.Sum(append(slices.Clip(p), secret...)) //nolint:gosec // see above
	copy(p[4:], sum[:])
	return p
}

// accounting is the port on which the server takes accounting now.
func (r *radiusRelay) accounting() uint16 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.upstream[1]
}
