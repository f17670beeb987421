package steps

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/pppoe"
	"ontagent/collectors"
)

// AccountLine is what the line has given the gateway.
type AccountLine struct {
	WAN
	// Sessions are the PPPoE sessions of the gateway's own, whatever their
	// VLAN; SessionsErr says why they are not known.
	Sessions    []Session
	SessionsErr error
	Delegated   []netip.Prefix
	DNS         []netip.Addr // resolvers, as they were given
	MTU         int          // of the connection, bytes; 0: not known
	MACs        []string     // of all interfaces
}

// Contract is what the order says of the internet service.
type Contract struct {
	Access           string
	Account          string // masked; "": not stated
	VLAN             uint16 // 0: untagged, or not stated
	DownMbps, UpMbps float64
}

// Extract is what the AAA says of the account, signed by the operator; see
// order.Extract. What is empty or zero was not extracted.
type Extract struct {
	Taken       time.Time
	Account     string
	State       string // one of the states below
	DownMbps    float64
	UpMbps      float64
	Template    string
	Pools       []netip.Prefix
	DNS         []netip.Addr
	MTU         uint32
	VLAN        uint16
	MaxSessions uint32
	Session     *ExtractSession // nil: not extracted
}

// ExtractSession is a session as accounting shows it.
type ExtractSession struct {
	Online  bool
	Since   time.Time
	V4      netip.Addr
	V6      netip.Prefix
	PD      netip.Prefix
	MAC     string
	NAS     string
	NASPort string
	VLAN    uint16
}

// The states of an account in the AAA.
const (
	AccountActive    = "active"
	AccountSuspended = "suspended"
	AccountClosed    = "closed"
	AccountMissing   = "missing"
)

// AccountOptions configure the rung of the account.
type AccountOptions struct {
	// Line reads what the line has given the gateway; nil: not known.
	Line func(ctx context.Context) (AccountLine, error)
	// Port is the interface that carries the service VLANs, by whose name the
	// VLAN of a connection is told; "": not known.
	Port string
	// Dial is the dial rung of the same ladder; nil: there is none.
	Dial     *Dial
	Contract Contract
	Extract  *Extract // nil: none came with the order
	// Clock tells the time, and whether it can be relied on; nil: not known.
	Clock      func() (now time.Time, trusted bool)
	Thresholds acceptance.Thresholds // Norms if zero
	Deadline   time.Duration         // 10 s if zero
}

// Account judges whether the AAA, the order and the line say the same of the
// account (3A 信息同步).
//
// A gateway sees that the line lets it in, and what it is given. Rates, state
// and session are the AAA's, which only an extract shows.
type Account struct{ o AccountOptions }

var _ acceptance.Step = (*Account)(nil)

// NewAccount returns the rung of the account.
func NewAccount(o AccountOptions) *Account {
	o.Thresholds = orNorms(o.Thresholds)
	o.Deadline = orDefault(o.Deadline, 10*time.Second)
	return &Account{o: o}
}

// Rung implements acceptance.Step.
func (*Account) Rung() acceptance.Rung { return acceptance.Account }

// Needs implements acceptance.Step. It does not need dial: that the AAA has
// suspended the account says why the line lets nobody in.
func (*Account) Needs() []acceptance.Rung { return []acceptance.Rung{acceptance.Registration} }

// Deadline implements acceptance.Step.
func (s *Account) Deadline() time.Duration { return s.o.Deadline }

// Estimate implements acceptance.Estimator.
func (*Account) Estimate() time.Duration { return 300 * time.Millisecond }

// Run compares. Every difference fails, with both values among the
// measurements. Without one the rung passes if the line accepted the account
// and the extract says enough: state, rates in both directions, and whose
// session is online. All else in an extract is compared where it is there.
func (s *Account) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	c := comparison{out: &acceptance.Outcome{}, contract: s.o.Contract, port: s.o.Port}
	s.see(ctx, &c, note)
	if ctx.Err() != nil {
		stopped(ctx, c.out)
		return *c.out
	}
	c.entry(s.o.Dial)
	c.shown()
	switch why, code := s.unusable(&c); {
	case code != "":
		c.lack(code, why)
	default:
		c.extract(s.o.Extract)
	}
	switch {
	case len(c.fails) > 0:
		decide(c.out, acceptance.Fail, strings.Join(c.reasons, "; "), c.fails...)
	case len(c.open) > 0:
		decide(c.out, acceptance.Inconclusive, strings.Join(c.lacking, "; "), c.open...)
	default:
		decide(c.out, acceptance.Pass, "")
	}
	return *c.out
}

// see reads what the gateway has of its own.
func (s *Account) see(ctx context.Context, c *comparison, note func(string)) {
	c.lineErr = errNothingRead
	if s.o.Line != nil {
		c.line, c.lineErr = s.o.Line(ctx)
	}
	if c.lineErr == nil && c.line.Source == "" {
		c.lineErr = errNothingRead
	}
	if c.lineErr != nil {
		note(c.lineErr.Error())
		c.line.Source = "platform"
		return
	}
	a := sortAddresses(c.line.Addresses)
	c.online = c.contract.Access != AccessBridge && (a.usableV4 && c.line.DefaultV4 || a.usableV6 && c.line.DefaultV6)
	if c.online && c.contract.Access == AccessPPPoE && len(c.line.Sessions) == 0 {
		c.online = false               // or by another way than the account's
		c.lineErr = c.line.SessionsErr // then nobody knows
	}
	note(fmt.Sprintf("%s: online %t, %v, delegated %v, resolvers %v, MTU %d", c.line.Interface, c.online, c.line.Addresses, c.line.Delegated, c.line.DNS, c.line.MTU))
}

// unusable says why there is nothing to compare with, by reason and cause; no
// cause: there is.
func (s *Account) unusable(c *comparison) (string, diagnosis.Code) {
	e := s.o.Extract
	if e == nil {
		put(c.out, missing("aaa_extract_age_s", collectors.StatusUnsupported, extractSource, "no extract came with the order"))
		return "no AAA extract came with the order: rates, state and session cannot be compared", diagnosis.AccountNoExtract
	}
	limit := s.o.Thresholds.Limit(acceptance.AccountExtractMaxAge)
	c.out.Limits = append(c.out.Limits, limit)
	taken := e.Taken.UTC().Format(time.RFC3339)
	now, trusted := time.Time{}, false
	if s.o.Clock != nil {
		now, trusted = s.o.Clock()
	}
	if !trusted {
		put(c.out, missing("aaa_extract_age_s", collectors.StatusUntrusted, extractSource, "taken "+taken))
		return "the AAA extract was taken " + taken + ", and this gateway's clock cannot tell how long ago that is", diagnosis.ClockUntrusted
	}
	c.age = now.Sub(e.Taken)
	measured(c.out, "aaa_extract_age_s", c.age.Round(time.Second).Seconds(), extractSource, "taken "+taken)
	switch {
	case c.age < -clockSlack:
		return "the AAA extract was taken in the future, at " + taken + ": one of the clocks is wrong", diagnosis.AccountNoExtract
	case !limit.Holds(c.age.Seconds()):
		return fmt.Sprintf("the AAA extract is stale: %.0f s is not %s %g", c.age.Seconds(), limit.Op, limit.Value), diagnosis.AccountNoExtract
	}
	return "", ""
}

const (
	extractSource = "aaa_extract"
	// clockSlack is how far the clocks of AAA and gateway may be apart.
	clockSlack = 5 * time.Minute
	// sessionFresh is how old an extract may be to prove that a session is not
	// this gateway's: a redial since then gets another address.
	sessionFresh = 15 * time.Minute
	// rateHeadroom is by how much an AAA may give more than was contracted:
	// for headers, and where a kilobit has 1024 bits. More is another plan.
	rateHeadroom = 1.10
	// rateSlack forgives rounding.
	rateSlack = 0.999
)

// comparison is what is found out about one account.
type comparison struct {
	out      *acceptance.Outcome
	contract Contract
	port     string
	line     AccountLine
	lineErr  error
	online   bool          // the gateway itself, by its own connection
	age      time.Duration // of the extract

	tested  *pppoe.Result // a test dial with the order's account that came up
	barred  string        // why the line did not let the gateway in
	barring []diagnosis.Code

	fails   []diagnosis.Code
	reasons []string
	open    []diagnosis.Code // what could not be compared
	lacking []string
}

// differ is a fail.
func (c *comparison) differ(code diagnosis.Code, reason string) {
	c.fails, c.reasons = append(c.fails, code), append(c.reasons, reason)
}

// lack is something that could not be compared.
func (c *comparison) lack(code diagnosis.Code, what string) {
	c.open, c.lacking = append(c.open, code), append(c.lacking, what)
}

// entry judges whether the line accepted the account, by the gateway's own
// connection or by what the dial rung came to.
func (c *comparison) entry(dial *Dial) {
	var last *acceptance.Outcome
	if dial != nil {
		last = dial.last.Load()
		if r := dial.tested.Load(); r != nil && r.Outcome == pppoe.OK {
			c.tested = r
		}
	}
	accepted := c.online || c.tested != nil
	switch {
	case accepted:
		measured(c.out, "line_accepted", true, "dial", "")
	case c.contract.Access == AccessBridge:
		put(c.out, missing("line_accepted", collectors.StatusUnsupported, "dial", "a bridged line: whoever dials is behind the gateway"))
	case c.lineErr != nil:
		put(c.out, missing("line_accepted", collectors.StatusError, "dial", c.lineErr.Error()))
	default:
		measured(c.out, "line_accepted", false, "dial", "")
	}
	c.barred = "the gateway is offline"
	if c.lineErr != nil {
		c.barred = fmt.Sprintf("cannot tell whether the gateway is online: %v", c.lineErr)
		c.barring = []diagnosis.Code{diagnosis.AddrUnreadable}
	}
	if last != nil && last.Verdict != acceptance.Pass && last.Verdict != "" {
		c.barred, c.barring = last.Reason, nil
		for _, code := range last.Causes {
			c.barring = append(c.barring, diagnosis.Code(code))
		}
	}
	if accepted {
		return
	}
	refused := false
	for _, code := range c.barring {
		if last != nil && last.Verdict == acceptance.Fail && (account(code) || code == diagnosis.DialAuthFailed) {
			c.differ(code, "the line refuses the account: "+last.Reason)
			refused = true
		}
	}
	if !refused && c.contract.Access != AccessBridge {
		c.unproven("the line has not accepted the account: " + c.barred)
	}
}

// unproven is what could not be compared because the gateway is offline.
func (c *comparison) unproven(what string) {
	if len(c.barring) == 0 {
		c.lack(diagnosis.AgentCannotMeasure, what)
		return
	}
	c.lack(c.barring[0], what)
}

// vlan is that of the gateway's connection, or of the test dial; false: not
// known.
func (c *comparison) vlan() (int, bool) {
	if !c.online {
		if c.tested != nil && c.tested.VLANAnswered != nil {
			return int(*c.tested.VLANAnswered), true
		}
		return 0, false
	}
	under := c.line.Interface
	if c.contract.Access == AccessPPPoE || c.contract.Access == "" {
		for i, session := range c.line.Sessions {
			if id, ok := tagOf(session.Device); i == 0 || ok && id == int(c.contract.VLAN) {
				under = session.Device
			}
		}
	}
	if under == c.port && c.port != "" {
		return 0, true
	}
	return tagOf(under)
}

// tagOf is the VLAN that an interface is usually named after; false: it is not.
func tagOf(name string) (int, bool) {
	_, tag, _ := strings.Cut(name, ".")
	id, err := strconv.Atoi(tag)
	return id, err == nil
}

// addresses are those that the connection was given.
func (c *comparison) addresses() []netip.Addr {
	var all []netip.Addr
	if !c.online {
		if c.tested != nil && c.tested.Address.IsValid() {
			all = append(all, c.tested.Address)
		}
		return all
	}
	for _, p := range c.line.Addresses {
		if a := p.Addr().Unmap(); a.IsGlobalUnicast() {
			all = append(all, a)
		}
	}
	return all
}

// resolvers are those that the connection was given.
func (c *comparison) resolvers() []netip.Addr {
	given := c.line.DNS
	if !c.online {
		given = nil
		if c.tested != nil {
			given = []netip.Addr{c.tested.DNS1, c.tested.DNS2}
		}
	}
	var out []netip.Addr
	for _, a := range given {
		if a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() {
			out = append(out, a)
		}
	}
	return out
}

func (c *comparison) mtu() int {
	switch {
	case c.online:
		return c.line.MTU
	case c.tested != nil:
		return int(c.tested.MTU)
	}
	return 0
}

// shown keeps what the gateway sees, and what was ordered.
func (c *comparison) shown() {
	source := c.line.Source
	if !c.online && c.tested != nil {
		source = "pppoe:" + c.port
	}
	seen := func(name string, v any, known bool) {
		if known {
			measured(c.out, name, v, source, c.line.Interface)
			return
		}
		put(c.out, missing(name, collectors.StatusUnsupported, source, ""))
	}
	addresses, dns := c.addresses(), c.resolvers()
	seen("line_addresses", joined(addresses), len(addresses) > 0)
	seen("line_delegated_prefixes", joined(c.line.Delegated), c.online && len(c.line.Delegated) > 0)
	seen("line_dns", joined(dns), len(dns) > 0)
	seen("line_mtu_bytes", c.mtu(), c.mtu() > 0)
	vlan, known := c.vlan()
	seen("line_vlan", vlan, known)
	stated := func(name string, v any, known bool) {
		if known {
			measured(c.out, name, v, "order", "")
		}
	}
	stated("contract_down_mbps", c.contract.DownMbps, c.contract.DownMbps > 0)
	stated("contract_up_mbps", c.contract.UpMbps, c.contract.UpMbps > 0)
	stated("order_account", c.contract.Account, c.contract.Account != "")
	stated("order_vlan", int(c.contract.VLAN), c.contract.VLAN != 0)
	if known && c.contract.VLAN != 0 && vlan != int(c.contract.VLAN) {
		c.differ(diagnosis.AccountBinding, fmt.Sprintf("VLAN %d answers, the order says %d", vlan, c.contract.VLAN))
	}
}
