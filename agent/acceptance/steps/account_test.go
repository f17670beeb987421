package steps_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/pppoe"
	"ontagent/collectors"
)

var accountNow = time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)

// accountCase is a line, an order and an extract that fit; tests spoil them.
type accountCase struct {
	o    steps.AccountOptions
	line steps.AccountLine
	err  error
	age  time.Duration
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func inStep() *accountCase {
	return &accountCase{
		age: time.Minute,
		line: steps.AccountLine{
			WAN:       wanWith("46", "203.0.113.7/32", "2001:db8:1::7/64", "fe80::7/64"),
			Sessions:  []steps.Session{{ID: 7, Peer: "02:00:00:00:00:aa", Device: "wan0.41"}},
			Delegated: prefixes("2001:db8:f00::/56"), DNS: addrs("192.0.2.53", "192.0.2.54", "2001:db8::53"),
			MTU: 1492, MACs: []string{"02:00:00:00:00:01", "02-00-00-00-00-02"},
		},
		o: steps.AccountOptions{
			Port:     "wan0",
			Contract: steps.Contract{Access: steps.AccessPPPoE, Account: "05*****@isp", VLAN: 41, DownMbps: 500, UpMbps: 50},
			Extract: &steps.Extract{
				Account: "05*****@isp", State: steps.AccountActive, DownMbps: 500, UpMbps: 50, Template: "p500",
				Pools: prefixes("203.0.113.0/24", "2001:db8:f00::/40"), DNS: addrs("192.0.2.54", "192.0.2.53"),
				MTU: 1492, VLAN: 41, MaxSessions: 1,
				Session: &steps.ExtractSession{
					Online: true, Since: accountNow.Add(-time.Hour), V4: netip.MustParseAddr("203.0.113.7"),
					V6: netip.MustParsePrefix("2001:db8:1::/64"), PD: netip.MustParsePrefix("2001:db8:f00::/56"),
					MAC: "0200.0000.0002", NAS: "bras-1", NASPort: "eth 1/2:41", VLAN: 41,
				},
			},
			Clock: func() (time.Time, bool) { return accountNow, true },
		},
	}
}

func (c *accountCase) climb(t *testing.T) acceptance.Result {
	t.Helper()
	if c.o.Line == nil {
		c.o.Line = func(context.Context) (steps.AccountLine, error) { return c.line, c.err }
	}
	if c.o.Extract != nil && c.o.Extract.Taken.IsZero() {
		c.o.Extract.Taken = accountNow.Add(-c.age)
	}
	return run(t, steps.NewAccount(c.o))
}

func TestAccountAgainstTheAAA(t *testing.T) {
	e := func(c *accountCase) *steps.Extract { return c.o.Extract }
	offline := func(c *accountCase) {
		c.line.WAN, c.line.Sessions = steps.WAN{Interface: "wan", Source: "netlink"}, nil
	}
	for _, tt := range []struct {
		name    string
		spoil   func(*accountCase)
		verdict acceptance.Verdict
		causes  []code
	}{
		{"in step", func(*accountCase) {}, pass, nil},

		// The state.
		{"suspended", func(c *accountCase) { e(c).State = steps.AccountSuspended }, fail, []code{diagnosis.AccountState}},
		{"closed", func(c *accountCase) { e(c).State = steps.AccountClosed }, fail, []code{diagnosis.AccountState}},
		{"not in the AAA", func(c *accountCase) { e(c).State = steps.AccountMissing }, fail, []code{diagnosis.AccountNoSuchUser}},
		{"no state", func(c *accountCase) { e(c).State = "" }, unclear, []code{diagnosis.AccountNoExtract}},
		{"a state of tomorrow", func(c *accountCase) { e(c).State = "paused" }, unclear, []code{diagnosis.AccountNoExtract}},

		// The account.
		{"another account", func(c *accountCase) { e(c).Account = "07*****@isp" }, fail, []code{diagnosis.AccountNotSynced}},
		{"another realm", func(c *accountCase) { e(c).Account = "05*****@other" }, fail, []code{diagnosis.AccountNotSynced}},
		{"masked otherwise", func(c *accountCase) { e(c).Account = "0512***7@isp" }, pass, nil},
		{"no account in the extract", func(c *accountCase) { e(c).Account = "" }, unclear, []code{diagnosis.AccountNoExtract}},
		{"no account in the order", func(c *accountCase) { c.o.Contract.Account = "" }, unclear, []code{diagnosis.AccountNoExtract}},
		{"no account on either side", func(c *accountCase) { e(c).Account, c.o.Contract.Account = "", "" }, unclear, []code{diagnosis.AccountNoExtract}},
		{"IPoE has none", func(c *accountCase) {
			e(c).Account, c.o.Contract.Account, c.o.Contract.Access = "", "", steps.AccessIPoE
			c.line.Interface, c.line.Sessions = "wan0.41", nil
		}, pass, nil},

		// The rates.
		{"rate of a lower plan", func(c *accountCase) { e(c).DownMbps = 300 }, fail, []code{diagnosis.AccountBandwidthTemplate}},
		{"upload of a lower plan", func(c *accountCase) { e(c).UpMbps = 20 }, fail, []code{diagnosis.AccountBandwidthTemplate}},
		{"rate of a higher plan", func(c *accountCase) { e(c).DownMbps = 1000 }, fail, []code{diagnosis.AccountBandwidthTemplate}},
		{"headroom for headers", func(c *accountCase) { e(c).DownMbps = 550 }, pass, nil},
		{"just beyond headroom", func(c *accountCase) { e(c).DownMbps = 550.6 }, fail, []code{diagnosis.AccountBandwidthTemplate}},
		{"rounded", func(c *accountCase) { e(c).UpMbps = 49.96 }, pass, nil},
		{"just below", func(c *accountCase) { e(c).UpMbps = 49.9 }, fail, []code{diagnosis.AccountBandwidthTemplate}},
		{"no rate in the AAA", func(c *accountCase) { e(c).DownMbps = 0 }, unclear, []code{diagnosis.AccountNoExtract}},
		{"no rate in the order", func(c *accountCase) { c.o.Contract.UpMbps = 0 }, unclear, []code{diagnosis.AgentCannotMeasure}},
		{"no rate on either side", func(c *accountCase) { e(c).UpMbps, c.o.Contract.UpMbps = 0, 0 }, unclear, []code{diagnosis.AccountNoExtract}},

		// VLAN, pools, resolvers, MTU.
		{"bound to another VLAN", func(c *accountCase) { e(c).VLAN = 42 }, fail, []code{diagnosis.AccountBinding}},
		{"session in another VLAN", func(c *accountCase) { e(c).Session.VLAN = 42 }, fail, []code{diagnosis.AccountBinding}},
		{"another VLAN answers", func(c *accountCase) { c.line.Sessions[0].Device = "wan0.43" }, fail, []code{diagnosis.AccountBinding}},
		{"untagged answers", func(c *accountCase) { c.line.Sessions[0].Device = "wan0" }, fail, []code{diagnosis.AccountBinding}},
		{"VLAN not stated, another answers", func(c *accountCase) { c.o.Contract.VLAN, c.line.Sessions[0].Device = 0, "wan0.43" }, fail, []code{diagnosis.AccountBinding}},
		{"a VLAN that nobody else tells", func(c *accountCase) { c.o.Contract.VLAN, c.line.Sessions[0].Device = 0, "internet" }, unclear, []code{diagnosis.AgentCannotMeasure}},
		{"VLAN of the order alone", func(c *accountCase) { c.line.Sessions[0].Device = "internet" }, pass, nil},
		{"no VLAN in the extract", func(c *accountCase) { e(c).VLAN, e(c).Session.VLAN = 0, 0 }, pass, nil},
		{"the other of two sessions", func(c *accountCase) {
			c.line.Sessions = append([]steps.Session{{ID: 8, Device: "wan0.46"}}, c.line.Sessions...)
		}, pass, nil},
		{"address of another pool", func(c *accountCase) { e(c).Pools = prefixes("198.51.100.0/24") }, fail, []code{diagnosis.AccountNotSynced}},
		{"prefix of another pool", func(c *accountCase) { e(c).Pools = prefixes("203.0.113.0/24", "2001:db8:a00::/40") }, fail, []code{diagnosis.AccountNotSynced}},
		{"pools of a family that is not there", func(c *accountCase) {
			c.line.WAN, c.line.Delegated = wanWith("4", "203.0.113.7/32"), nil
			e(c).Pools = prefixes("2001:db8:f00::/40")
		}, unclear, []code{diagnosis.AgentCannotMeasure}},
		{"no pools", func(c *accountCase) { e(c).Pools = nil }, pass, nil},
		{"another resolver", func(c *accountCase) { e(c).DNS = addrs("192.0.2.53", "198.51.100.53") }, fail, []code{diagnosis.AccountNotSynced}},
		{"resolvers not known", func(c *accountCase) { c.line.DNS = addrs("127.0.0.1") }, unclear, []code{diagnosis.AgentCannotMeasure}},
		{"resolvers of a family not asked for", func(c *accountCase) {
			c.line.DNS = addrs("192.0.2.53")
			e(c).DNS = addrs("192.0.2.53", "2001:db8::53")
		}, pass, nil},
		{"no resolvers in the extract", func(c *accountCase) { e(c).DNS, c.line.DNS = nil, nil }, pass, nil},
		{"another MTU", func(c *accountCase) { e(c).MTU = 1480 }, fail, []code{diagnosis.AccountNotSynced}},
		{"MTU not known", func(c *accountCase) { c.line.MTU = 0 }, unclear, []code{diagnosis.AgentCannotMeasure}},
		{"no MTU in the extract", func(c *accountCase) { e(c).MTU = 0 }, pass, nil},

		// The session.
		{"no session extracted", func(c *accountCase) { e(c).Session = nil }, unclear, []code{diagnosis.AccountNoExtract}},
		{"no session extracted of a static line", func(c *accountCase) {
			e(c).Session, c.o.Contract.Access, c.line.Sessions = nil, steps.AccessStatic, nil
			c.line.Interface = "wan0.41"
		}, pass, nil},
		{"offline in accounting", func(c *accountCase) { e(c).Session = &steps.ExtractSession{} }, fail, []code{diagnosis.AccountNotSynced}},
		{"another's session", func(c *accountCase) {
			*e(c).Session = steps.ExtractSession{Online: true, V4: netip.MustParseAddr("203.0.113.99"), MAC: "020000000099"}
		}, fail, []code{diagnosis.AccountTooManySessions}},
		{"our MAC, another address", func(c *accountCase) { e(c).Session.V4 = netip.MustParseAddr("203.0.113.99") }, fail, []code{diagnosis.AccountNotSynced}},
		{"our address, another MAC", func(c *accountCase) { e(c).Session.MAC = "020000000099" }, fail, []code{diagnosis.AccountNotSynced}},
		{"another prefix", func(c *accountCase) { e(c).Session.PD = netip.MustParsePrefix("2001:db8:f01::/56") }, fail, []code{diagnosis.AccountNotSynced}},
		{"another's session, when the extract was taken", func(c *accountCase) {
			c.age = 16 * time.Minute
			*e(c).Session = steps.ExtractSession{Online: true, V4: netip.MustParseAddr("203.0.113.99"), MAC: "020000000099"}
		}, unclear, []code{diagnosis.AccountTooManySessions}},
		{"whose session is not said", func(c *accountCase) { *e(c).Session = steps.ExtractSession{Online: true, MAC: "eth 1/2"} }, unclear, []code{diagnosis.AccountNoExtract}},
		{"session known by its MAC alone", func(c *accountCase) {
			*e(c).Session = steps.ExtractSession{Online: true, MAC: "02:00:00:00:00:01"}
		}, pass, nil},

		// How old the extract is.
		{"at the limit", func(c *accountCase) { c.age = 24 * time.Hour }, pass, nil},
		{"stale", func(c *accountCase) { c.age = 24*time.Hour + time.Second }, unclear, []code{diagnosis.AccountNoExtract}},
		{"stale, and wrong", func(c *accountCase) { c.age, e(c).State = 48*time.Hour, steps.AccountSuspended }, unclear, []code{diagnosis.AccountNoExtract}},
		{"from the future", func(c *accountCase) { c.age, e(c).State = -6*time.Minute, steps.AccountSuspended }, unclear, []code{diagnosis.AccountNoExtract}},
		{"a clock a little ahead", func(c *accountCase) { c.age = -4 * time.Minute }, pass, nil},
		{"no clock", func(c *accountCase) { c.o.Clock, e(c).State = nil, steps.AccountSuspended }, unclear, []code{diagnosis.ClockUntrusted}},
		{"a clock of 1970", func(c *accountCase) { c.o.Clock = func() (time.Time, bool) { return time.Unix(60, 0), false } }, unclear, []code{diagnosis.ClockUntrusted}},

		// What the gateway sees alone.
		{"no extract", func(c *accountCase) { c.o.Extract = nil }, unclear, []code{diagnosis.AccountNoExtract}},
		{"no extract, another VLAN answers", func(c *accountCase) { c.o.Extract, c.line.Sessions[0].Device = nil, "wan0.43" }, fail, []code{diagnosis.AccountBinding}},
		{"sessions not readable", func(c *accountCase) { c.line.Sessions, c.line.SessionsErr = nil, errBroken }, unclear, []code{diagnosis.AddrUnreadable}},
		{"sessions not readable, another's may be there beside", func(c *accountCase) {
			c.line.Sessions, c.line.SessionsErr, e(c).Session.MAC = nil, errBroken, "020000000099"
		}, unclear, []code{diagnosis.AddrUnreadable}},
		{"sessions not readable, IPoE needs none", func(c *accountCase) {
			e(c).Account, c.o.Contract.Account, c.o.Contract.Access = "", "", steps.AccessIPoE
			c.line.Interface, c.line.Sessions, c.line.SessionsErr = "wan0.41", nil, errBroken
		}, pass, nil},
		{"line not readable", func(c *accountCase) { c.err = errBroken }, unclear, []code{diagnosis.AddrUnreadable}},
		{"line says nothing", func(c *accountCase) { c.line = steps.AccountLine{} }, unclear, []code{diagnosis.AddrUnreadable}},
		{"line not readable, suspended", func(c *accountCase) { c.err, e(c).State = errBroken, steps.AccountSuspended }, fail, []code{diagnosis.AccountState}},
		{"offline", offline, unclear, []code{diagnosis.AgentCannotMeasure}},
		{"offline, suspended", func(c *accountCase) { offline(c); e(c).State = steps.AccountSuspended }, fail, []code{diagnosis.AccountState}},
		{"offline, the only session is another's", func(c *accountCase) { offline(c); e(c).Session.MAC = "020000000099" }, fail, []code{diagnosis.AccountTooManySessions}},
		{"offline, one of two sessions is another's", func(c *accountCase) {
			offline(c)
			e(c).Session.MAC, e(c).MaxSessions = "020000000099", 2
		}, unclear, []code{diagnosis.AgentCannotMeasure}},
		{"online by another way than PPPoE", func(c *accountCase) { c.line.Sessions = nil }, unclear, []code{diagnosis.AgentCannotMeasure}},

		// A bridged line: whoever dials is behind the gateway.
		{"bridged", func(c *accountCase) { offline(c); c.o.Contract.Access = steps.AccessBridge }, pass, nil},
		{"bridged, nobody is online", func(c *accountCase) {
			offline(c)
			c.o.Contract.Access, e(c).Session = steps.AccessBridge, &steps.ExtractSession{}
		}, unclear, []code{diagnosis.AgentCannotMeasure}},
		{"bridged, wrong rate", func(c *accountCase) {
			offline(c)
			c.o.Contract.Access, e(c).UpMbps = steps.AccessBridge, 20
		}, fail, []code{diagnosis.AccountBandwidthTemplate}},

		// Several at once.
		{"rate, state and VLAN", func(c *accountCase) {
			e(c).State, e(c).VLAN, e(c).Session.VLAN, e(c).UpMbps = steps.AccountSuspended, 42, 42, 10
		}, fail, []code{diagnosis.AccountState, diagnosis.AccountBinding, diagnosis.AccountBandwidthTemplate}},
		{"a difference beside what is lacking", func(c *accountCase) { e(c).Session, e(c).MTU = nil, 1400 }, fail, []code{diagnosis.AccountNotSynced}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := inStep()
			tt.spoil(c)
			res := c.climb(t)
			check(t, res, tt.verdict, tt.causes, nil)
			if tt.verdict != pass && res.Reason == "" {
				t.Error("it does not say why")
			}
		})
	}
}

// TestAccountKeepsBothSides: of what differs, both values are among the
// measurements, with who says so.
func TestAccountKeepsBothSides(t *testing.T) {
	c := inStep()
	c.o.Extract.DownMbps = 300
	c.o.Extract.Pools = prefixes("198.51.100.0/24")
	res := c.climb(t)
	for name, want := range map[string]any{
		"contract_down_mbps": 500.0, "aaa_down_mbps": 300.0,
		"line_addresses": "203.0.113.7 2001:db8:1::7", "aaa_pools": "198.51.100.0/24",
		"line_vlan": 41, "order_vlan": 41, "aaa_vlan": 41, "line_accepted": true, "aaa_extract_age_s": 60.0,
		"aaa_session_address": "203.0.113.7", "line_mtu_bytes": 1492, "aaa_mtu_bytes": 1492,
	} {
		m := measurement(t, res, name)
		if m.Value != want || m.Status != string(collectors.StatusOK) || m.Source == "" {
			t.Errorf("%+v, want %v", m, want)
		}
	}
	if len(res.Limits) != 1 || res.Limits[0].Name != acceptance.AccountExtractMaxAge {
		t.Errorf("%+v", res.Limits)
	}
	c = inStep()
	c.line.Sessions, c.line.SessionsErr = nil, errBroken
	res = c.climb(t)
	if m := measurement(t, res, "line_accepted"); m.Value != nil || m.Status != string(collectors.StatusError) || !strings.Contains(res.Reason, errBroken.Error()) {
		t.Errorf("what is not known is %+v; %s", m, res.Reason)
	}
	c = inStep()
	c.o.Extract.Template = ""
	if m := measurement(t, c.climb(t), "aaa_template"); m.Value != nil || m.Status != string(collectors.StatusUnsupported) {
		t.Errorf("what was not extracted is %+v", m)
	}
}

// TestAccountHearsTheDial: a refusal that the dial rung was told is this rung's
// as well, and the AAA may say why.
func TestAccountHearsTheDial(t *testing.T) {
	suspended := func(c *accountCase) { c.o.Extract.State = steps.AccountSuspended }
	for _, tt := range []struct {
		name    string
		r       pppoe.Result
		spoil   func(*accountCase)
		verdict acceptance.Verdict
		causes  []code
	}{
		{"refused for its state", rejectedWith("状态错", 80), nil, fail, []code{diagnosis.AccountState}},
		{"refused without a word", rejectedWith("", 80), nil, fail, []code{diagnosis.DialAuthFailed}},
		{"refused without a word, the AAA says why", rejectedWith("", 80), suspended, fail, []code{diagnosis.DialAuthFailed, diagnosis.AccountState}},
		{"refused without an extract", rejectedWith("无此用户", 80), func(c *accountCase) { c.o.Extract = nil }, fail, []code{diagnosis.AccountNoSuchUser}},
		{"nobody answers", pppoe.Result{Outcome: pppoe.NoPADO}, nil, unclear, []code{diagnosis.DialNoPADO}},
		{"nobody answers, suspended", pppoe.Result{Outcome: pppoe.NoPADO}, suspended, fail, []code{diagnosis.AccountState}},
		{"the AAA is dead", rejectedWith("", 20_000), nil, unclear, []code{diagnosis.DialAuthNoAnswer}},
		{"locked out", rejectedWith("认证失败次数过多", 80), nil, unclear, []code{diagnosis.DialMACBlocked}},
		{"the gateway's settings", okDial(), func(c *accountCase) {
			c.o.Extract.DNS, c.o.Extract.Session = nil, &steps.ExtractSession{}
		}, unclear, []code{diagnosis.DialGatewaySettings}},
		{"the gateway's settings, another pool", okDial(), func(c *accountCase) {
			c.o.Extract.DNS, c.o.Extract.Pools = nil, prefixes("198.51.100.0/24")
		}, fail, []code{diagnosis.AccountNotSynced}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := pppoeLine()
				o.WAN = wanFunc(func(context.Context) (steps.WAN, error) { return offline(0) })
				o.PPPoE = func(context.Context, pppoe.Options) (pppoe.Result, error) { return tt.r, nil }
				dial := steps.NewDial(o)
				run(t, dial)
				c := inStep()
				c.line.WAN, c.line.Sessions = steps.WAN{Interface: "wan", Source: "netlink"}, nil
				c.o.Dial = dial
				if tt.spoil != nil {
					tt.spoil(c)
				}
				check(t, c.climb(t), tt.verdict, tt.causes, nil)
			})
		})
	}
}

// TestAccountFromAHostileExtract: whatever an operator signs, the result is
// bounded and no verdict is a pass by accident.
func TestAccountFromAHostileExtract(t *testing.T) {
	c := inStep()
	long := strings.Repeat("x", 128)
	c.o.Extract = &steps.Extract{
		Account: "*" + long, State: steps.AccountActive, Template: long, VLAN: 65535, MTU: 1<<32 - 1, MaxSessions: 1<<32 - 1,
		Pools: make([]netip.Prefix, 32), DNS: make([]netip.Addr, 32),
		Session: &steps.ExtractSession{Online: true, MAC: long, NAS: long, NASPort: long, VLAN: 65535},
	}
	if res := c.climb(t); res.Verdict == pass {
		t.Errorf("%+v", res)
	}
	c = inStep()
	c.o.Extract = &steps.Extract{Account: "*", State: steps.AccountActive}
	if res := c.climb(t); res.Verdict == pass {
		t.Errorf("an extract that says nothing passes: %+v", res)
	}
}

func TestDialHeedsTheLockOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gateway{o: pppoeLine(), dial: dialled(rejectedWith("密码错", 80))}
		g.o.Refusals = &steps.Refusals{}
		for range 2 {
			g.dials = nil
			check(t, g.climb(t), fail, []code{diagnosis.AccountWrongPassword}, nil)
			if g.authentications() != 1 {
				t.Errorf("%d authentications in a visit", g.authentications())
			}
		}
		g.dials = nil
		check(t, g.climb(t), unclear, []code{diagnosis.AccountWrongPassword}, nil)
		if g.authentications() != 0 || len(g.dials) != 1 {
			t.Errorf("dialled %+v", g.dials)
		}
		for _, d := range g.dials {
			if d.Username != "" || d.Password != "" {
				t.Error("credentials for a PADI")
			}
		}
		// Silence after refusals is a lock-out, not a dead line.
		g.dial = dialled(pppoe.Result{Outcome: pppoe.NoPADO, Stage: pppoe.StageDiscovery})
		check(t, g.climb(t), fail, []code{diagnosis.DialMACBlocked}, nil)
		// Another order begins anew, and success counts for nothing.
		g.dials, g.dial, g.o.Refusals = nil, dialled(okDial()), &steps.Refusals{}
		for range 3 {
			g.dials = nil
			check(t, g.climb(t), fail, []code{diagnosis.DialGatewaySettings}, nil)
		}
		if g.dials == nil || g.dials[len(g.dials)-1].DiscoveryOnly {
			t.Error("a success counts as a refusal")
		}
	})
}
