package steps

import (
	"context"
	"fmt"
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

// Session is a PPPoE session that the gateway itself has open.
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
	// Username and Password are those of the order. Without them nothing is
	// authenticated.
	Username string
	Password pppoe.Password
	// MayDisturb says that the customer agreed to an interruption. A bridged
	// line is dialled only then: whether somebody behind the gateway is online
	// cannot be seen from here.
	MayDisturb bool

	WAN      WANReader // the gateway's own connection; nil: not known
	Sessions func(ctx context.Context) ([]Session, error)
	PPPoE    func(ctx context.Context, o pppoe.Options) (pppoe.Result, error)
	DHCP     func(ctx context.Context, o dhcp.Options) (dhcp.Result, error)

	Grace    time.Duration // for the gateway's own connection to follow a test that succeeded; 6 s if zero
	Deadline time.Duration // 60 s if zero
}

// Dial judges whether the line lets the subscriber in.
//
// Where the gateway is online it asks nobody to let it in again: the session is
// the proof, and one PADI or DISCOVER, whose answer is dropped, shows who is at
// the other end. Where it is offline it dials once in user space with the
// order's account, or asks for an address without taking it.
type Dial struct{ o DialOptions }

var _ acceptance.Step = (*Dial)(nil)

// NewDial returns the dial rung.
func NewDial(o DialOptions) *Dial {
	o.Grace = orDefault(o.Grace, 6*time.Second)
	o.Deadline = orDefault(o.Deadline, time.Minute)
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

// Run looks whether the gateway is online and tries what does no harm.
func (s *Dial) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{}
	if s.o.Access == AccessStatic {
		s.static(ctx, &out)
		return out
	}
	online := s.online(ctx, &out, note)
	switch {
	case ctx.Err() != nil:
		stopped(ctx, &out)
	case s.o.Device == "" && online:
		decide(&out, acceptance.Pass, "")
	case s.o.Device == "":
		decide(&out, acceptance.Inconclusive, "the gateway is offline, and no port is configured to dial on", diagnosis.AgentCannotMeasure)
	default:
		s.try(ctx, &out, online, note)
		if ctx.Err() != nil {
			stopped(ctx, &out)
		}
	}
	return out
}

// static has nothing to dial: what was set by hand is in use, or nothing tells.
func (s *Dial) static(ctx context.Context, out *acceptance.Outcome) {
	online := s.o.WAN != nil && s.wanUp(ctx)
	out.Measurements = append(out.Measurements, value("gateway_online", online, "platform", "static addresses"))
	if online {
		decide(out, acceptance.Pass, "")
		return
	}
	decide(out, acceptance.Inconclusive, "static addresses: there is nothing to dial, and the gateway is offline", diagnosis.AgentCannotMeasure)
}

// online reports whether the gateway has a connection of its own.
func (s *Dial) online(ctx context.Context, out *acceptance.Outcome, note func(string)) bool {
	if s.o.Sessions != nil {
		sessions, err := s.o.Sessions(ctx)
		if err != nil {
			note(err.Error())
			out.Measurements = append(out.Measurements, missing("pppoe_sessions", collectors.StatusError, "platform", err.Error()))
		}
		for _, session := range sessions {
			out.Measurements = append(out.Measurements, value("pppoe_session", fmt.Sprintf("0x%04x", session.ID), "platform", session.Peer+" on "+session.Device))
		}
	}
	up := s.wanUp(ctx)
	out.Measurements = append(out.Measurements, value("gateway_online", up, "platform", "the WAN has an address that works beyond the link, and a default route"))
	return up
}

func (s *Dial) wanUp(ctx context.Context) bool {
	if s.o.WAN == nil {
		return false
	}
	wan, err := s.o.WAN.ReadWAN(ctx)
	if err != nil {
		return false
	}
	a := sortAddresses(wan.Addresses)
	return a.usableV4 && wan.DefaultV4 || a.usableV6 && wan.DefaultV6
}

// try asks the other end: for nothing but an offer if online, else to be let
// in.
func (s *Dial) try(ctx context.Context, out *acceptance.Outcome, online bool, note func(string)) {
	switch s.o.Access {
	case AccessIPoE:
		s.ask(ctx, out, online, note)
	case AccessPPPoE:
		s.dial(ctx, out, online, note)
	case AccessBridge:
		if s.o.Username != "" || !s.discovered(ctx, out, note) {
			s.dial(ctx, out, online, note)
		}
	default:
		if !s.discovered(ctx, out, note) {
			s.dial(ctx, out, online, note)
			return
		}
		if !online {
			decide(out, acceptance.Inconclusive, "the network offers addresses; the gateway has none, and what was ordered is not known", diagnosis.DialNoCredentials)
		}
	}
}

// discovered asks for an address where the kind of access is not certain, and
// reports whether one was offered.
func (s *Dial) discovered(ctx context.Context, out *acceptance.Outcome, note func(string)) bool {
	r, err := s.o.DHCP(ctx, dhcp.Options{Interface: s.o.Device, VLAN: s.o.VLAN, Tries: 2})
	if err != nil || r.Outcome != dhcp.Offered {
		return false
	}
	s.dhcpMeasurements(out, r)
	note("DHCP: " + string(r.Outcome))
	decide(out, acceptance.Pass, "")
	return true
}

// follow gives the gateway's own connection, which may be about to be made, a
// little time after the line has proved good.
func (s *Dial) follow(ctx context.Context, out *acceptance.Outcome, note func(string), reason string) {
	const poll = 500 * time.Millisecond
	for waited := time.Duration(0); ; waited += poll {
		if s.wanUp(ctx) {
			note(fmt.Sprintf("the gateway came online by itself after %v", waited))
			decide(out, acceptance.Pass, "")
			return
		}
		if waited >= s.o.Grace || pause(ctx, poll) != nil {
			break
		}
	}
	decide(out, acceptance.Fail, reason, diagnosis.DialGatewaySettings)
}
