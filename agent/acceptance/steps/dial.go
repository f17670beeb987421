package steps

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/dhcp"
	"ontagent/agent/probe/pppoe"
	"ontagent/collectors"
)

// The ways of access, as orders name them. The empty one is not known.
const (
	AccessPPPoE  = "pppoe"
	AccessIPoE   = "ipoe"
	AccessStatic = "static"
	AccessBridge = "bridge"
)

// Session is a PPPoE session that the gateway itself has open. It may still be
// on its way up.
type Session struct {
	ID     uint16
	Peer   string // MAC of the access concentrator
	Device string // interface under it
}

// DialOptions configure the dial rung.
type DialOptions struct {
	Access string // as ordered; "": not known
	VLAN   uint16 // of the internet service; 0: untagged
	Device string // port that carries the VLAN; "": nothing can be tried
	// NeedV4 and NeedV6 say which families the ordered service needs; if
	// neither is set, one of the two is enough.
	NeedV4, NeedV6 bool
	// Username and Password are those of the order. Without them nothing is
	// authenticated.
	Username string
	Password pppoe.Password
	// MayDisturb says that the customer agreed to an interruption. A bridged
	// line is dialled, or asked for an address, only then: whether somebody
	// behind the gateway is online cannot be seen from here.
	MayDisturb bool

	// WAN is the gateway's own connection. Where it can't be read, nothing is
	// tried that could interrupt it.
	WAN      WANReader
	Sessions func(ctx context.Context) ([]Session, error)                     // nil: not known
	PPPoE    func(ctx context.Context, o pppoe.Options) (pppoe.Result, error) // pppoe.Dial if nil
	DHCP     func(ctx context.Context, o dhcp.Options) (dhcp.Result, error)   // dhcp.Run if nil

	// Refusals remembers the refused authentications of an order, over visits;
	// nil: of this visit alone.
	Refusals *Refusals

	// Grace is how long the gateway may take to log in while it is at it, and
	// to follow a test that succeeded; twice as long while it is at it. 6 s if
	// zero.
	Grace    time.Duration
	Deadline time.Duration // 60 s if zero
}

// Dial judges whether the line lets the subscriber in.
//
// Where the gateway is in, it asks nobody to let it in again: the session is
// the proof, and one PADI or INFORM shows who is at the other end. Where it is
// not, it dials once in user space with the order's account, or asks for an
// address without taking it.
type Dial struct {
	o DialOptions
	// What the last run came to, and its test dial if there was one: for the
	// rung of the account. A run that was given up may still end.
	last   atomic.Pointer[acceptance.Outcome]
	tested atomic.Pointer[pppoe.Result]
}

var _ acceptance.Step = (*Dial)(nil)

// NewDial returns the dial rung.
func NewDial(o DialOptions) *Dial {
	o.Grace = orDefault(o.Grace, 6*time.Second)
	o.Deadline = orDefault(o.Deadline, time.Minute)
	if o.PPPoE == nil {
		o.PPPoE = pppoe.Dial
	}
	if o.DHCP == nil {
		o.DHCP = dhcp.Run
	}
	if o.Refusals == nil {
		o.Refusals = &Refusals{}
	}
	return &Dial{o: o}
}

// Rung implements acceptance.Step.
func (*Dial) Rung() acceptance.Rung { return acceptance.Dial }

// Needs implements acceptance.Step.
func (*Dial) Needs() []acceptance.Rung { return []acceptance.Rung{acceptance.Registration} }

// Deadline implements acceptance.Step.
func (s *Dial) Deadline() time.Duration { return s.o.Deadline }

// Estimate implements acceptance.Estimator.
func (*Dial) Estimate() time.Duration { return 2 * time.Second }

// Run looks whether the gateway is in, and tries what does no harm.
//
//   - In: pass, whatever a look at the other end shows beside.
//   - Not readable: only a look at the other end, and inconclusive.
//   - Out: what the test shows. Before a refusal counts, the gateway is looked
//     at again: it may have come in meanwhile, or be what took the last place.
func (s *Dial) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{}
	now := s.wait(ctx, 0, func(l line) bool { return !l.dialling })
	s.lineMeasurements(&out, now)
	switch {
	case ctx.Err() != nil:
	case now.in:
		decide(&out, acceptance.Pass, "")
		s.look(ctx, &out, now, note)
	case now.err != nil && s.o.Access != AccessBridge:
		s.look(ctx, &out, now, note)
		decide(&out, acceptance.Inconclusive, fmt.Sprintf("cannot tell whether the gateway is online: %v", now.err), diagnosis.AddrUnreadable)
	case s.o.Access == AccessStatic:
		decide(&out, acceptance.Inconclusive, "static addresses: there is nothing to dial, and the gateway is offline", diagnosis.AgentCannotMeasure)
	case s.o.Device == "":
		decide(&out, acceptance.Inconclusive, "the gateway is offline, and no port is configured to dial on", diagnosis.AgentCannotMeasure)
	default:
		s.try(ctx, &out, note)
	}
	if ctx.Err() != nil {
		stopped(ctx, &out)
	}
	kept := out
	s.last.Store(&kept)
	return out
}

// line is the gateway's own connection as it is now.
type line struct {
	err error // not known
	// in says that the line has let the gateway in: it has a way to the
	// internet, or an address or session that a second one could cost it.
	in bool
	// dialling says that a session is open which came to no address yet.
	dialling bool
	v4       netip.Addr // that it has
	sessions []Session
	unread   error // why the sessions are not known
	source   string
}

var errNoWayOut = errors.New("it has an address, no default route, and nothing tells where the address is from")

// read reads the gateway's connection. A bridging gateway's own addresses say
// nothing about the line.
func (s *Dial) read(ctx context.Context) line {
	l := line{source: "platform"}
	if s.o.Sessions != nil {
		var all []Session
		all, l.unread = s.o.Sessions(ctx)
		for _, session := range all {
			if s.mine(session) && len(l.sessions) < 4 {
				l.sessions = append(l.sessions, session)
			}
		}
	}
	session := len(l.sessions) > 0
	if s.o.WAN == nil {
		l.err = errNothingRead
		return l
	}
	wan, err := s.o.WAN.ReadWAN(ctx)
	if err == nil && wan.Source == "" {
		err = errNothingRead
	}
	if l.err = err; err != nil {
		return l
	}
	l.source = wan.Source
	if s.o.Access == AccessBridge && !session {
		return l
	}
	a := sortAddresses(wan.Addresses)
	usable := a.usableV4 || a.usableV6 && !s.o.NeedV4
	for _, p := range wan.Addresses {
		if addr := p.Addr().Unmap(); addr.Is4() && !addr.IsLinkLocalUnicast() && !l.v4.IsValid() {
			l.v4 = addr
		}
	}
	switch {
	case a.usableV4 && wan.DefaultV4, a.usableV6 && wan.DefaultV6 && !s.o.NeedV4, session && (usable || a.usableV6 || wan.DefaultV6):
		l.in = true
	case s.o.Access == AccessStatic, s.o.Access == AccessPPPoE && s.o.Sessions != nil && l.unread == nil:
		// An address set by hand, or of what is under the session, proves nothing.
	case usable && s.o.Access == AccessIPoE:
		l.in = true
	case usable:
		l.err = errNoWayOut
	}
	l.dialling = session && !l.in
	return l
}

// mine reports whether a session may be the internet service's: it is not if
// its device is named after another VLAN.
func (s *Dial) mine(session Session) bool {
	id, named := tagOf(session.Device)
	return !named || s.o.VLAN == 0 || id == int(s.o.VLAN)
}

// wait reads the connection until it is as wanted: for a grace, and for up to
// Grace longer while the gateway is logging in.
func (s *Dial) wait(ctx context.Context, grace time.Duration, wanted func(line) bool) line {
	const poll = 500 * time.Millisecond
	for began := time.Now(); ; {
		l := s.read(ctx)
		spent := time.Since(began)
		if wanted(l) || spent >= grace && !l.dialling || spent >= grace+s.o.Grace || pause(ctx, poll) != nil {
			return l
		}
	}
}

// came reports whether the gateway has come in by itself, within a grace, and
// then passes.
func (s *Dial) came(ctx context.Context, out *acceptance.Outcome, grace time.Duration, note func(string)) bool {
	if !s.wait(ctx, grace, func(l line) bool { return l.in }).in {
		return false
	}
	note("the gateway has come online by itself")
	measured(out, "gateway_came_online", true, "platform", "during the test")
	decide(out, acceptance.Pass, "")
	return true
}

// follow gives the gateway's own connection, which may be about to be made, a
// little time after the line has proved good.
func (s *Dial) follow(ctx context.Context, out *acceptance.Outcome, note func(string), reason string, causes ...diagnosis.Code) {
	if !s.came(ctx, out, s.o.Grace, note) {
		decide(out, acceptance.Fail, reason, append(causes, diagnosis.DialGatewaySettings)...)
	}
}

// look asks who is at the other end, in a way that costs nobody a session.
func (s *Dial) look(ctx context.Context, out *acceptance.Outcome, l line, note func(string)) {
	switch {
	case s.o.Device == "" || s.o.Access == AccessStatic:
	case s.o.Access == AccessIPoE || s.o.Access == "" && l.in && len(l.sessions) == 0:
		s.inform(ctx, out, l, note)
	default:
		// No answer is no fault: some networks answer no second PADI from the
		// same address.
		_, _ = s.pppoe(ctx, out, true, note)
	}
}

// try asks the other end to let the gateway in, which is offline.
func (s *Dial) try(ctx context.Context, out *acceptance.Outcome, note func(string)) {
	bridge := s.o.Access == AccessBridge
	switch {
	case s.o.Access == AccessIPoE:
		s.ask(ctx, out, note)
	case s.o.Access == AccessPPPoE, s.o.Username != "", bridge && !s.o.MayDisturb:
		s.dial(ctx, out, note)
	default:
		// What is ordered is not said: an address, or else a session.
		r, err := s.dhcp(ctx, out, dhcp.Options{Tries: 2, Families: s.families()}, note)
		v4, v6 := offered(r)
		switch {
		case ctx.Err() != nil:
		case err != nil || !v4 && !v6:
			if s.dial(ctx, out, note); err != nil && out.Verdict == acceptance.Fail {
				decide(out, acceptance.Inconclusive, fmt.Sprintf("%s; %v", out.Reason, err), diagnosis.AgentCannotMeasure)
			}
		case bridge:
			decide(out, acceptance.Pass, "")
		case !s.came(ctx, out, s.o.Grace, note):
			decide(out, acceptance.Inconclusive, "the network offers addresses; the gateway has none, and the order does not say what it needs", diagnosis.AgentCannotMeasure)
		}
	}
}

func (s *Dial) lineMeasurements(out *acceptance.Outcome, l line) {
	for _, session := range l.sessions {
		measured(out, "pppoe_session", fmt.Sprintf("0x%04x", session.ID), "platform", session.Peer+" on "+session.Device)
	}
	if l.unread != nil {
		put(out, missing("pppoe_session", collectors.StatusError, "platform", l.unread.Error()))
	}
	if l.err != nil {
		put(out, missing("gateway_online", collectors.StatusError, l.source, l.err.Error()))
		return
	}
	measured(out, "gateway_online", l.in, l.source, "it has an address that works beyond the link")
}
