package steps_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/dhcp"
	"ontagent/agent/probe/pppoe"
)

type code = diagnosis.Code

const (
	testAccount  = "05121234567@isp.example"
	testPassword = "s3cret-pass"
)

// gateway is a gateway on a line that is played: what it has of its own, and
// what was asked in its name.
type gateway struct {
	o        steps.DialOptions
	wan      func(at time.Duration) (steps.WAN, error)
	sessions func(at time.Duration) ([]steps.Session, error)
	dial     func(pppoe.Options) (pppoe.Result, error)
	ask      func(dhcp.Options) (dhcp.Result, error)
	takes    time.Duration // a dial

	dials []pppoe.Options
	asks  []dhcp.Options
}

func offline(time.Duration) (steps.WAN, error) {
	return steps.WAN{Interface: "wan", Source: "netlink"}, nil
}

// wanWith is a WAN with addresses, and default routes in "4", "6" or "46".
func wanWith(routes string, addrs ...string) steps.WAN {
	w := steps.WAN{Interface: "wan", Source: "netlink", DefaultV4: strings.Contains(routes, "4"), DefaultV6: strings.Contains(routes, "6")}
	for _, a := range addrs {
		w.Addresses = append(w.Addresses, netip.MustParsePrefix(a))
	}
	return w
}

func always(w steps.WAN) func(time.Duration) (steps.WAN, error) {
	return func(time.Duration) (steps.WAN, error) { return w, nil }
}

// from is a WAN that is online from a moment on.
func from(when time.Duration) func(time.Duration) (steps.WAN, error) {
	return func(at time.Duration) (steps.WAN, error) {
		if at < when {
			return offline(at)
		}
		return wanWith("4", "203.0.113.7/32"), nil
	}
}

func own(device string) func(time.Duration) ([]steps.Session, error) {
	return func(time.Duration) ([]steps.Session, error) {
		return []steps.Session{{ID: 7, Peer: "02:00:00:00:00:aa", Device: device}}, nil
	}
}

// between is a session of the gateway's own that is there for a while.
func between(begin, end time.Duration) func(time.Duration) ([]steps.Session, error) {
	return func(at time.Duration) ([]steps.Session, error) {
		if at < begin || at >= end {
			return nil, nil
		}
		return own("wan0.41")(at)
	}
}

func dialled(r pppoe.Result) func(pppoe.Options) (pppoe.Result, error) {
	return func(o pppoe.Options) (pppoe.Result, error) {
		r := r
		if o.DiscoveryOnly && (r.Auth.Attempts > 0 || r.Outcome == pppoe.OK) {
			r = pppoe.Result{Outcome: pppoe.Offered, Stage: pppoe.StageDiscovery, Offers: r.Offers}
		}
		return r, nil
	}
}

func rejectedWith(text string, ms float64) pppoe.Result {
	return pppoe.Result{
		Outcome: pppoe.AuthRejected, Stage: pppoe.StageAuth, AuthMs: ms,
		Auth: pppoe.Auth{Protocol: "pap", Result: "rejected", ServerMessage: text, Attempts: 1, Sends: 1},
	}
}

func okDial() pppoe.Result {
	return pppoe.Result{
		Outcome: pppoe.OK, Stage: pppoe.StageUp, Address: netip.MustParseAddr("203.0.113.9"), MTU: 1492, Echo: pppoe.Echo{Sent: 3, Received: 3},
		Offers: []pppoe.Offer{{MAC: "02:00:00:00:00:aa", ACName: "bras-1"}}, Auth: pppoe.Auth{Protocol: "chap_md5", Result: "accepted", Attempts: 1, Sends: 1},
		IPv6: pppoe.IPv6{Result: "up"},
	}
}

// climb runs the rung; options that are not set are those of a PPPoE line.
func (g *gateway) climb(t *testing.T) acceptance.Result {
	t.Helper()
	began := time.Now()
	o := g.o
	if g.wan == nil {
		g.wan = offline
	}
	o.WAN = wanFunc(func(context.Context) (steps.WAN, error) { return g.wan(time.Since(began)) })
	if g.sessions != nil {
		o.Sessions = func(context.Context) ([]steps.Session, error) { return g.sessions(time.Since(began)) }
	}
	o.PPPoE = func(ctx context.Context, po pppoe.Options) (pppoe.Result, error) {
		g.dials = append(g.dials, po)
		select {
		case <-time.After(g.takes):
		case <-ctx.Done():
			return pppoe.Result{Stage: pppoe.StageAuth}, ctx.Err()
		}
		if g.dial == nil {
			t.Error("it dialled")
			return pppoe.Result{}, errBroken
		}
		return g.dial(po)
	}
	o.DHCP = func(_ context.Context, do dhcp.Options) (dhcp.Result, error) {
		g.asks = append(g.asks, do)
		if g.ask == nil {
			t.Error("it asked by DHCP")
			return dhcp.Result{}, errBroken
		}
		return g.ask(do)
	}
	res := run(t, steps.NewDial(o))
	if o.Device != "" {
		for _, d := range g.dials {
			if d.Interface != o.Device || d.VLAN != o.VLAN || d.Attempts > 1 {
				t.Errorf("dialled with %+v", d)
			}
		}
		for _, d := range g.asks {
			if d.Interface != o.Device || d.VLAN != o.VLAN {
				t.Errorf("asked with %+v", d)
			}
		}
	}
	if n := g.authentications(); n > 1 {
		t.Errorf("%d dials with credentials", n)
	}
	text, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{testAccount, "05121234567", testPassword, fmt.Sprintf("%x", testPassword)} {
		if strings.Contains(string(text), secret) {
			t.Error("a secret is in the result")
		}
	}
	if len(text) > 16<<10 {
		t.Errorf("%d bytes", len(text))
	}
	return res
}

func (g *gateway) authentications() int {
	n := 0
	for _, d := range g.dials {
		if !d.DiscoveryOnly {
			n++
		}
	}
	return n
}

func pppoeLine() steps.DialOptions {
	return steps.DialOptions{Access: steps.AccessPPPoE, VLAN: 41, Device: "wan0", Username: testAccount, Password: testPassword}
}

func with(o steps.DialOptions, change func(*steps.DialOptions)) steps.DialOptions {
	change(&o)
	return o
}

// TestDialHarmsNobody: whatever is up is neither dialled beside nor asked for
// an address by a DISCOVER.
func TestDialHarmsNobody(t *testing.T) {
	ppp := pppoeLine()
	ipoe := with(ppp, func(o *steps.DialOptions) { o.Access, o.Username = steps.AccessIPoE, "" })
	any := with(ppp, func(o *steps.DialOptions) { o.Access = "" })
	bridge := with(ppp, func(o *steps.DialOptions) { o.Access = steps.AccessBridge })
	unread := func(time.Duration) (steps.WAN, error) { return steps.WAN{}, errBroken }
	empty := func(time.Duration) (steps.WAN, error) { return steps.WAN{}, nil }
	none := func(time.Duration) ([]steps.Session, error) { return nil, nil }
	for _, tt := range []struct {
		name     string
		o        steps.DialOptions
		wan      func(time.Duration) (steps.WAN, error)
		sessions func(time.Duration) ([]steps.Session, error)
		verdict  acceptance.Verdict
		causes   []code
		dials    int // PADI only
		informs  int
	}{
		{"online", ppp, always(wanWith("4", "203.0.113.7/32")), own("wan0.41"), pass, nil, 1, 0},
		{"online, sessions not readable", ppp, always(wanWith("4", "203.0.113.7/32")), func(time.Duration) ([]steps.Session, error) { return nil, errBroken }, pass, nil, 1, 0},
		{"online, no port to look from", with(ppp, func(o *steps.DialOptions) { o.Device = "" }), always(wanWith("4", "203.0.113.7/32")), nil, pass, nil, 0, 0},
		{"a session with an address and no default route yet", ppp, always(wanWith("", "203.0.113.7/32")), own("wan0.41"), pass, nil, 1, 0},
		{"IPv6 only, with nothing but a prefix", ppp, always(wanWith("6", "fe80::7/10")), own("wan0.41"), pass, nil, 1, 0},
		{"an address without a route, sessions unknown", ppp, always(wanWith("", "203.0.113.7/32")), nil, unclear, []code{diagnosis.AddrUnreadable}, 1, 0},
		{"WAN not readable", ppp, unread, none, unclear, []code{diagnosis.AddrUnreadable}, 1, 0},
		{"WAN says nothing", ppp, empty, none, unclear, []code{diagnosis.AddrUnreadable}, 1, 0},
		{"WAN not readable, no port", with(ppp, func(o *steps.DialOptions) { o.Device = "" }), unread, none, unclear, []code{diagnosis.AddrUnreadable}, 0, 0},
		{"IPoE online", ipoe, always(wanWith("4", "203.0.113.7/24")), none, pass, nil, 0, 1},
		{"IPoE online by IPv6", ipoe, always(wanWith("6", "2001:db8::7/64")), none, pass, nil, 0, 1},
		{"IPoE, an address and no route", ipoe, always(wanWith("", "203.0.113.7/24")), none, pass, nil, 0, 1},
		{"IPoE not readable", ipoe, unread, none, unclear, []code{diagnosis.AddrUnreadable}, 0, 1},
		{"unknown access online", any, always(wanWith("4", "203.0.113.7/24")), none, pass, nil, 0, 1},
		{"unknown access online by a session", any, always(wanWith("4", "203.0.113.7/32")), own("wan0.41"), pass, nil, 1, 0},
		{"unknown access, an address and no route", any, always(wanWith("", "203.0.113.7/24")), none, unclear, []code{diagnosis.AddrUnreadable}, 1, 0},
		{"bridged, no consent", bridge, always(wanWith("4", "10.0.0.2/24")), none, unclear, []code{diagnosis.AgentCannotMeasure}, 1, 0},
		{"bridged, no consent, no account", with(bridge, func(o *steps.DialOptions) { o.Username = "" }), offline, none, unclear, []code{diagnosis.DialNoCredentials}, 1, 0},
		{"bridged by order, but the gateway dials", with(bridge, func(o *steps.DialOptions) { o.MayDisturb = true }), always(wanWith("4", "203.0.113.7/32")), own("wan0.41"), pass, nil, 1, 0},
		{"static", with(ppp, func(o *steps.DialOptions) { o.Access = steps.AccessStatic }), always(wanWith("4", "203.0.113.7/24")), none, pass, nil, 0, 0},
		{"static, no way out", with(ppp, func(o *steps.DialOptions) { o.Access = steps.AccessStatic }), always(wanWith("", "203.0.113.7/24")), none, unclear, []code{diagnosis.AgentCannotMeasure}, 0, 0},
		{"static, not readable", with(ppp, func(o *steps.DialOptions) { o.Access = steps.AccessStatic }), unread, none, unclear, []code{diagnosis.AddrUnreadable}, 0, 0},
		{"offline, no port to dial on", with(ppp, func(o *steps.DialOptions) { o.Device = "" }), offline, none, unclear, []code{diagnosis.AgentCannotMeasure}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gateway{
					o: tt.o, wan: tt.wan, sessions: tt.sessions, dial: dialled(okDial()),
					ask: func(dhcp.Options) (dhcp.Result, error) { return dhcp.Result{Outcome: dhcp.Silent}, nil },
				}
				check(t, g.climb(t), tt.verdict, tt.causes, nil)
				if len(g.dials) != tt.dials || g.authentications() > 0 || len(g.asks) != tt.informs {
					t.Errorf("%d dials, %d with credentials, %d times DHCP", len(g.dials), g.authentications(), len(g.asks))
				}
				for _, d := range g.dials {
					if d.Username != "" || d.Password != "" {
						t.Error("credentials for a PADI")
					}
				}
				for _, a := range g.asks {
					if !a.Inform || a.PrefixDelegation || a.Families&dhcp.V4 != 0 != a.Address.IsValid() {
						t.Errorf("asked with %+v", a)
					}
				}
			})
		})
	}
	t.Run("zero options", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			check(t, run(t, steps.NewDial(steps.DialOptions{})), unclear, []code{diagnosis.AddrUnreadable}, nil)
		})
	})
	t.Run("discovery fails while online", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, r := range []pppoe.Result{{Outcome: pppoe.NoPADO}, {Outcome: pppoe.PADOError}, {Outcome: "from_the_future"}} {
				g := &gateway{o: ppp, wan: always(wanWith("4", "203.0.113.7/32")), dial: dialled(r)}
				check(t, g.climb(t), pass, nil, nil)
			}
			g := &gateway{o: ppp, wan: always(wanWith("4", "203.0.113.7/32")), dial: func(pppoe.Options) (pppoe.Result, error) { return pppoe.Result{}, errBroken }}
			res := g.climb(t)
			check(t, res, pass, nil, nil)
			if m := measurement(t, res, "dial_outcome"); m.Status != "error" {
				t.Errorf("%+v", m)
			}
		})
	})
}

// TestDialPPPoE is what a dial of an offline gateway's line shows.
func TestDialPPPoE(t *testing.T) {
	line := pppoeLine()
	up := func(stage pppoe.Stage, text string) pppoe.Result {
		return pppoe.Result{Outcome: pppoe.Terminated, Stage: stage, TerminateReason: text, Auth: pppoe.Auth{Attempts: 1}}
	}
	tagged := func(o pppoe.Outcome, text string) pppoe.Result {
		return pppoe.Result{Outcome: o, Stage: pppoe.StageSessionSetup, Errors: []pppoe.ErrorTag{{Packet: "PADS", Tag: 0x0202, Name: "AC-System-Error", Text: text}}}
	}
	plain := func(o pppoe.Outcome) pppoe.Result { return pppoe.Result{Outcome: o, Stage: pppoe.StageLCP} }
	slow := up(pppoe.StageAuth, "")
	slow.AuthMs = 20_000
	early := up(pppoe.StageAuth, "bye")
	early.Auth.Attempts = 0
	v6 := pppoe.Result{Outcome: pppoe.IPCPFailed, Stage: pppoe.StageIPCP, IPv6: pppoe.IPv6{Result: "up"}}
	needV6 := with(line, func(o *steps.DialOptions) { o.NeedV6 = true })
	bare := with(line, func(o *steps.DialOptions) { o.Username, o.Password = "", "" })
	unsaid := with(line, func(o *steps.DialOptions) { o.Access = "" })
	for _, tt := range []struct {
		name    string
		o       steps.DialOptions
		r       pppoe.Result
		verdict acceptance.Verdict
		cause   code
	}{
		{"the gateway's settings", line, okDial(), fail, diagnosis.DialGatewaySettings},
		{"the gateway's settings, access not said", unsaid, okDial(), fail, diagnosis.DialGatewaySettings},
		{"no account", bare, okDial(), unclear, diagnosis.DialNoCredentials},
		{"no account, no PADO", bare, plain(pppoe.NoPADO), fail, diagnosis.DialNoPADO},
		{"no PADO", line, plain(pppoe.NoPADO), fail, diagnosis.DialNoPADO},
		{"PADO with an error", line, tagged(pppoe.PADOError, "no resources"), fail, diagnosis.DialPADSError},
		{"no PADO fits", line, plain(pppoe.NoMatch), fail, diagnosis.DialPADSError},
		{"no PADS", line, plain(pppoe.NoPADS), fail, diagnosis.DialPADSError},
		{"PADS with an error", line, tagged(pppoe.PADSError, "wrong password"), fail, diagnosis.DialPADSError},
		{"PADS: too many sessions", line, tagged(pppoe.PADSError, "Session limit reached"), fail, diagnosis.AccountTooManySessions},
		{"LCP unanswered", line, plain(pppoe.LCPNoAnswer), fail, diagnosis.DialLCPFailed},
		{"LCP rejected", line, plain(pppoe.LCPRejected), fail, diagnosis.DialLCPFailed},
		{"LCP without agreement", line, plain(pppoe.LCPNoAgreement), fail, diagnosis.DialLCPFailed},
		{"an unknown authentication", line, plain(pppoe.AuthUnsupported), fail, diagnosis.DialLCPFailed},
		{"rejected", line, rejectedWith("Login incorrect", 80), fail, diagnosis.DialAuthFailed},
		{"rejected without a word", line, rejectedWith("", 80), fail, diagnosis.DialAuthFailed},
		{"rejected without a word, as late as a delay", line, rejectedWith("", 5100), fail, diagnosis.DialAuthFailed},
		{"rejected without a word, late", line, rejectedWith("", 10_000), fail, diagnosis.DialAuthNoAnswer},
		{"rejected with blanks, late", line, rejectedWith("\r\n\x00", 10_000), fail, diagnosis.DialAuthNoAnswer},
		{"rejected late, with a word", line, rejectedWith("Login incorrect", 10_000), fail, diagnosis.DialAuthFailed},
		{"rejected late, with a cause", line, rejectedWith("密码错", 10_000), fail, diagnosis.AccountWrongPassword},
		{"rejected in GBK", line, rejectedWith("\xce\xde\xb4\xcb\xd3\xc3\xbb\xa7", 80), fail, diagnosis.AccountNoSuchUser},
		{"rejected by CHAP, told when hung up on", line, pppoe.Result{
			Outcome: pppoe.AuthRejected, Stage: pppoe.StageAuth, TerminateReason: "account suspended", Auth: pppoe.Auth{Attempts: 1},
		}, fail, diagnosis.AccountState},
		{"too many sessions", line, rejectedWith("You are already logged in - access denied", 80), fail, diagnosis.AccountTooManySessions},
		{"no answer to the authentication", line, plain(pppoe.AuthNoAnswer), fail, diagnosis.DialAuthNoAnswer},
		{"IPCP unanswered", line, plain(pppoe.IPCPNoAnswer), fail, diagnosis.DialIPCPFailed},
		{"IPCP fails", line, plain(pppoe.IPCPFailed), fail, diagnosis.DialIPCPFailed},
		{"no address", line, plain(pppoe.NoAddress), fail, diagnosis.DialIPCPFailed},
		{"no IPv4, and none is needed", needV6, v6, fail, diagnosis.DialGatewaySettings},
		{"no IPv4, which is needed", line, v6, fail, diagnosis.DialIPCPFailed},
		{"neither, and IPv6 is needed", needV6, plain(pppoe.IPCPFailed), fail, diagnosis.DialIPCPFailed},
		{"hung up in LCP", line, up(pppoe.StageLCP, "account suspended"), fail, diagnosis.DialLCPFailed},
		{"hung up before the account was told", line, early, fail, diagnosis.DialLCPFailed},
		{"hung up at the account", line, up(pppoe.StageAuth, "bye"), fail, diagnosis.DialAuthFailed},
		{"hung up at the account, for a cause", line, up(pppoe.StageAuth, "用户欠费"), fail, diagnosis.AccountState},
		{"hung up at the account without a word, late", line, slow, fail, diagnosis.DialAuthNoAnswer},
		{"hung up at the account by PADT", line, pppoe.Result{
			Outcome: pppoe.Terminated, Stage: pppoe.StageAuth, PADTReceived: true, Auth: pppoe.Auth{Attempts: 1},
			Errors: []pppoe.ErrorTag{{Packet: "PADT", Name: "Generic-Error", Text: "binding check failed"}},
		}, fail, diagnosis.AccountBinding},
		{"hung up in IPCP", line, up(pppoe.StageIPCP, "No network protocols running"), fail, diagnosis.DialIPCPFailed},
		{"hung up in IPv6CP", line, up(pppoe.StageIPv6CP, ""), fail, diagnosis.DialIPCPFailed},
		{"hung up in IPCP, told why", line, up(pppoe.StageIPCP, "address pool exhausted"), fail, diagnosis.AccountPoolExhausted},
		{"hung up later", line, up(pppoe.StageUp, "idle timeout"), fail, diagnosis.DialDropped},
		{"hung up later, told why", line, up(pppoe.StageUp, "too many sessions"), fail, diagnosis.AccountTooManySessions},
		{"echoes lost", line, plain(pppoe.EchoLost), fail, diagnosis.DialDropped},
		{"loop", line, plain(pppoe.Loop), fail, diagnosis.DialLoop},
		{"an outcome from the future", line, plain("purple"), unclear, diagnosis.AgentCannotMeasure},
		{"no outcome", line, pppoe.Result{}, unclear, diagnosis.AgentCannotMeasure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gateway{o: tt.o, dial: dialled(tt.r), sessions: between(0, 0)}
				res := g.climb(t)
				check(t, res, tt.verdict, []code{tt.cause}, nil)
				if m := measurement(t, res, "dial_outcome"); m.Source != "pppoe:wan0" || !strings.Contains(m.Note, "VLAN") {
					t.Errorf("%+v", m)
				}
				if len(g.asks) != 0 || len(g.dials) != 1 || g.dials[0].DiscoveryOnly != (tt.o.Username == "") {
					t.Errorf("dialled %d times, asked %d", len(g.dials), len(g.asks))
				}
				if d := g.dials[0]; d.MaxDuration > 45*time.Second || !d.DiscoveryOnly && (d.Username != testAccount || d.Password != testPassword) {
					t.Error("dialled otherwise than ordered")
				}
				// Whatever it was, a gateway that came in meanwhile was let in.
				g = &gateway{o: tt.o, dial: dialled(tt.r), wan: from(time.Second), takes: 2 * time.Second, sessions: between(0, 0)}
				if tt.verdict == fail || tt.cause == diagnosis.DialNoCredentials {
					check(t, g.climb(t), pass, nil, nil)
				}
			})
		})
	}
	t.Run("cannot dial", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := &gateway{o: line, dial: func(pppoe.Options) (pppoe.Result, error) {
				return pppoe.Result{Stage: pppoe.StageLCP}, pppoe.ErrInterfaceDown
			}}
			res := g.climb(t)
			check(t, res, unclear, []code{diagnosis.AgentCannotMeasure}, nil)
			if m := measurement(t, res, "dial_outcome"); !strings.Contains(m.Note, "lcp") {
				t.Errorf("%+v", m)
			}
		})
	})
}

// TestDialBesideTheGatewaysOwn: the gateway dials at the same time.
func TestDialBesideTheGatewaysOwn(t *testing.T) {
	const never = time.Hour
	busy := rejectedWith("Too many sessions", 80)
	for _, tt := range []struct {
		name     string
		wan      func(time.Duration) (steps.WAN, error)
		sessions func(time.Duration) ([]steps.Session, error)
		r        pppoe.Result
		verdict  acceptance.Verdict
		causes   []code
		auths    int
	}{
		{"it comes in before anything is tried", from(3 * time.Second), between(0, never), okDial(), pass, nil, 0},
		{"it gives up, and the line is bad", offline, between(0, 2*time.Second), rejectedWith("密码错", 80), fail, []code{diagnosis.AccountWrongPassword}, 1},
		{"it hangs for ever, and AAA is dead", offline, between(0, never), pppoe.Result{Outcome: pppoe.AuthNoAnswer, Stage: pppoe.StageAuth}, fail, []code{diagnosis.DialAuthNoAnswer}, 1},
		{"it hangs for ever, and the line is good", offline, between(0, never), okDial(), fail, []code{diagnosis.DialGatewaySettings}, 1},
		{"it took the only session", from(4 * time.Second), nil, busy, pass, nil, 1},
		{"somebody else has the only session", offline, nil, busy, fail, []code{diagnosis.AccountTooManySessions}, 1},
		{"it follows", from(4 * time.Second), nil, okDial(), pass, nil, 1},
		{"it is at it when the grace ends", from(9 * time.Second), between(4*time.Second, never), okDial(), pass, nil, 1},
		{"it is too late", from(30 * time.Second), between(4*time.Second, never), okDial(), fail, []code{diagnosis.DialGatewaySettings}, 1},
		{"it gets an address without a route", func(at time.Duration) (steps.WAN, error) {
			if at < 2*time.Second {
				return offline(at)
			}
			return wanWith("", "203.0.113.7/32"), nil
		}, between(time.Second, never), okDial(), pass, nil, 1},
		{"a session of another service", offline, own("wan0.46"), okDial(), fail, []code{diagnosis.DialGatewaySettings}, 1},
		{"a session on a device that tells no VLAN", offline, own("ppp-port"), okDial(), fail, []code{diagnosis.DialGatewaySettings}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				g := &gateway{o: pppoeLine(), wan: tt.wan, sessions: tt.sessions, dial: dialled(tt.r)}
				check(t, g.climb(t), tt.verdict, tt.causes, nil)
				if g.authentications() != tt.auths {
					t.Errorf("%d dials with credentials", g.authentications())
				}
				if d := time.Since(began); d > 19*time.Second {
					t.Errorf("took %v", d)
				}
			})
		})
	}
	t.Run("the slowest fits its deadline", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := &gateway{o: pppoeLine(), sessions: between(0, never), dial: dialled(busy), takes: 40600 * time.Millisecond}
			check(t, g.climb(t), fail, []code{diagnosis.AccountTooManySessions}, nil)
		})
	})
	t.Run("a healthy one is quick", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			g := &gateway{o: pppoeLine(), wan: from(0), sessions: between(0, never), dial: dialled(okDial()), takes: 300 * time.Millisecond}
			check(t, g.climb(t), pass, nil, nil)
			if d := time.Since(began); d > time.Second {
				t.Errorf("took %v", d)
			}
		})
	})
}

func TestDialBridged(t *testing.T) {
	line := with(pppoeLine(), func(o *steps.DialOptions) { o.Access, o.MayDisturb = steps.AccessBridge, true })
	bare := with(line, func(o *steps.DialOptions) { o.Username = "" })
	alone := with(bare, func(o *steps.DialOptions) { o.MayDisturb = false })
	silent := dhcp.Result{Outcome: dhcp.Silent, V4Outcome: dhcp.Silent, V6Outcome: dhcp.Silent, RAOutcome: dhcp.Silent}
	for _, tt := range []struct {
		name    string
		o       steps.DialOptions
		wan     func(time.Duration) (steps.WAN, error)
		r       pppoe.Result
		offer   dhcp.Result
		verdict acceptance.Verdict
		causes  []code
		asks    int
	}{
		{"dialled", line, offline, okDial(), silent, pass, nil, 0},
		{"dialled, WAN not readable", line, func(time.Duration) (steps.WAN, error) { return steps.WAN{}, errBroken }, okDial(), silent, pass, nil, 0},
		{"the customer's session is in the way", line, offline, rejectedWith("超出限制的用户数", 80), silent, unclear, []code{diagnosis.AccountTooManySessions}, 0},
		{"a gateway that is online by other means proves nothing", line, from(0), rejectedWith("密码错", 80), silent, fail, []code{diagnosis.AccountWrongPassword}, 0},
		{"no account, but addresses", bare, offline, okDial(), dhcp.Result{Outcome: dhcp.Partial, V4Outcome: dhcp.Offered}, pass, nil, 1},
		{"no account, an access concentrator", bare, offline, okDial(), silent, unclear, []code{diagnosis.DialNoCredentials}, 1},
		{"no account, nobody there", bare, offline, pppoe.Result{Outcome: pppoe.NoPADO}, silent, fail, []code{diagnosis.DialNoPADO}, 1},
		{"no consent, nobody there", with(line, func(o *steps.DialOptions) { o.MayDisturb = false }), offline, pppoe.Result{Outcome: pppoe.NoPADO}, silent, fail, []code{diagnosis.DialNoPADO}, 0},
		{"no consent and no account, nobody there", alone, offline, pppoe.Result{Outcome: pppoe.NoPADO}, silent, unclear, []code{diagnosis.AgentCannotMeasure}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gateway{o: tt.o, wan: tt.wan, dial: dialled(tt.r), ask: func(dhcp.Options) (dhcp.Result, error) { return tt.offer, nil }}
				check(t, g.climb(t), tt.verdict, tt.causes, nil)
				if len(g.asks) != tt.asks || !tt.o.MayDisturb && g.authentications() > 0 {
					t.Errorf("asked %d times, authenticated %d", len(g.asks), g.authentications())
				}
			})
		})
	}
}

func offer4(from string) dhcp.Offer {
	return dhcp.Offer{Type: "offer", ServerID: netip.MustParseAddr(from), FromMAC: "02:00:00:00:00:bb", Address: netip.MustParseAddr("203.0.113.50"), LeaseS: 3600}
}

func TestDialIPoE(t *testing.T) {
	line := with(pppoeLine(), func(o *steps.DialOptions) { o.Access = steps.AccessIPoE })
	needV4 := with(line, func(o *steps.DialOptions) { o.NeedV4 = true })
	needV6 := with(line, func(o *steps.DialOptions) { o.NeedV6 = true })
	both := with(needV4, func(o *steps.DialOptions) { o.NeedV6 = true })
	result := func(v4, v6 dhcp.Outcome) dhcp.Result {
		return dhcp.Result{Outcome: v4, V4Outcome: v4, V6Outcome: v6, Sent: 3}
	}
	slaac := result(dhcp.Silent, dhcp.Silent)
	slaac.Routers = []dhcp.RA{{LifetimeS: 1800, Prefixes: []dhcp.RAPrefix{{Prefix6: dhcp.Prefix6{ValidS: 3600}, Autonomous: true}}}}
	router := result(dhcp.Silent, dhcp.Silent)
	router.Routers = []dhcp.RA{{LifetimeS: 0, Prefixes: []dhcp.RAPrefix{{Prefix6: dhcp.Prefix6{ValidS: 3600}, Autonomous: true}}}, {LifetimeS: 1800}}
	nak := func(text string) dhcp.Result {
		r := result(dhcp.Nak, dhcp.Silent)
		r.V4 = []dhcp.Offer{{Type: "nak", From: netip.MustParseAddr("192.0.2.1"), Message: text}}
		return r
	}
	looped := result(dhcp.Silent, dhcp.Silent)
	looped.Looped = true
	other := result(dhcp.Silent, dhcp.Silent)
	other.OtherVLANs = []uint16{42, 0}
	two := result(dhcp.Offered, dhcp.Silent)
	two.V4 = []dhcp.Offer{offer4("192.0.2.1"), offer4("192.168.1.1")}
	settings := []code{diagnosis.DialGatewaySettings}
	none := []code{diagnosis.DialNoDHCPOffer}
	for _, tt := range []struct {
		name     string
		o        steps.DialOptions
		r        dhcp.Result
		verdict  acceptance.Verdict
		causes   []code
		warnings []code
		families dhcp.Families
	}{
		{"an offer", line, result(dhcp.Offered, dhcp.Silent), fail, settings, nil, dhcp.V4 | dhcp.V6 | dhcp.Routers},
		{"an offer of what is needed", needV4, result(dhcp.Offered, ""), fail, settings, nil, dhcp.V4},
		{"an offer of IPv6, which is all that is needed", needV6, result("", dhcp.Offered), fail, settings, nil, dhcp.V6 | dhcp.Routers},
		{"an address without a prefix", needV6, result("", dhcp.NoPrefix), fail, settings, nil, dhcp.V6 | dhcp.Routers},
		{"addresses by advertisement", needV6, slaac, fail, settings, nil, dhcp.V6 | dhcp.Routers},
		{"advertisements that give none", needV6, router, fail, none, nil, dhcp.V6 | dhcp.Routers},
		{"IPv6 has no addresses", needV6, result("", dhcp.NoAddresses), fail, []code{diagnosis.AccountPoolExhausted}, nil, dhcp.V6 | dhcp.Routers},
		{"a prefix without a router, and no IPv4", line, dhcp.Result{Outcome: dhcp.Partial, V4Outcome: dhcp.Silent, V6Outcome: dhcp.Offered, RAOutcome: dhcp.Silent, Sent: 3}, fail, []code{diagnosis.DialNoDHCPOffer}, nil, 7},
		{"IPv6 alone where either will do", line, result(dhcp.Silent, dhcp.Offered), fail, []code{diagnosis.DialNoDHCPOffer, diagnosis.DialGatewaySettings}, nil, 7},
		{"IPv6 alone where both are needed", both, slaac, fail, []code{diagnosis.DialNoDHCPOffer, diagnosis.DialGatewaySettings}, nil, 7},
		{"silence", line, result(dhcp.Silent, dhcp.Silent), fail, none, nil, 7},
		{"silence, and IPv6 has nothing either", line, result(dhcp.Silent, dhcp.NoAddresses), fail, none, nil, 7},
		{"damaged answers", line, result(dhcp.Malformed, dhcp.Silent), fail, none, nil, 7},
		{"a loop", line, looped, fail, []code{diagnosis.DialLoop}, nil, 7},
		{"answers on another VLAN", line, other, fail, none, nil, 7},
		{"refused", line, nak("go away"), fail, none, nil, 7},
		{"refused, told why", line, nak("\xb5\xd8\xd6\xb7\xb3\xd8\xc2\xfa"), fail, []code{diagnosis.AccountPoolExhausted}, nil, 7},
		{"two servers", line, two, fail, settings, []code{diagnosis.DialSeveralServers}, 7},
		{"an outcome from the future", line, result("purple", "purple"), unclear, []code{diagnosis.AgentCannotMeasure}, nil, 7},
		{"no outcome", line, dhcp.Result{}, unclear, []code{diagnosis.AgentCannotMeasure}, nil, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gateway{o: tt.o, ask: func(dhcp.Options) (dhcp.Result, error) { return tt.r, nil }}
				res := g.climb(t)
				check(t, res, tt.verdict, tt.causes, tt.warnings)
				if a := g.asks[0]; len(g.asks) != 1 || a.Inform || a.Families != tt.families || a.PrefixDelegation != (tt.families&dhcp.V6 != 0) {
					t.Errorf("asked with %+v", g.asks)
				}
				if len(tt.r.OtherVLANs) > 0 && (measurement(t, res, "answers_on_other_vlans").Value != "[42 0]" || !strings.Contains(res.Reason, "42")) {
					t.Errorf("%s", res.Reason)
				}
				late := from(4 * time.Second)
				if tt.causes[len(tt.causes)-1] != diagnosis.DialGatewaySettings {
					late = from(time.Nanosecond)
				}
				if tt.verdict == fail {
					g = &gateway{o: tt.o, wan: late, ask: func(dhcp.Options) (dhcp.Result, error) { time.Sleep(time.Second); return tt.r, nil }}
					check(t, g.climb(t), pass, nil, tt.warnings)
				}
			})
		})
	}
	t.Run("cannot ask", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := &gateway{o: line, ask: func(dhcp.Options) (dhcp.Result, error) { return dhcp.Result{}, dhcp.ErrDown }}
			check(t, g.climb(t), unclear, []code{diagnosis.AgentCannotMeasure}, nil)
		})
	})
	t.Run("evidence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := result(dhcp.Offered, dhcp.Offered)
			r.V4 = []dhcp.Offer{{Type: "offer", From: netip.MustParseAddr("192.0.2.1"), Message: "hello", Address: netip.MustParseAddr("203.0.113.50")}}
			r.V6 = []dhcp.Advertise{{
				From: netip.MustParseAddr("fe80::1"), Addresses: []dhcp.Lease6{{Address: netip.MustParseAddr("2001:db8::50")}},
				Prefixes: []dhcp.Prefix6{{Prefix: netip.MustParsePrefix("2001:db8:1::/56")}}, Statuses: []dhcp.Status6{{Text: "all well"}},
			}}
			r.Routers = []dhcp.RA{{From: netip.MustParseAddr("fe80::1")}}
			r.Looped = true
			g := &gateway{o: line, ask: func(dhcp.Options) (dhcp.Result, error) { return r, nil }}
			res := g.climb(t)
			for name, want := range map[string]any{
				"offered_address": "203.0.113.50", "offered_address_v6": "2001:db8::50", "offered_prefix": "2001:db8:1::/56",
				"router_advertised": "fe80::1 ", "dhcp_servers": "192.0.2.1 , fe80::1 ", "dhcp_message": "hello all well", "looped": true,
			} {
				if m := measurement(t, res, name); m.Value != want || m.Source != "dhcp:wan0" {
					t.Errorf("%s: %+v", name, m)
				}
			}
		})
	})
}

// TestDialUnknownAccess: the order says neither how to get on nor who.
func TestDialUnknownAccess(t *testing.T) {
	line := steps.DialOptions{Device: "wan0", VLAN: 41}
	offers := func(dhcp.Options) (dhcp.Result, error) {
		return dhcp.Result{Outcome: dhcp.Offered, V4Outcome: dhcp.Offered}, nil
	}
	nothing := func(dhcp.Options) (dhcp.Result, error) {
		return dhcp.Result{Outcome: dhcp.Silent, V4Outcome: dhcp.Silent}, nil
	}
	broken := func(dhcp.Options) (dhcp.Result, error) { return dhcp.Result{}, errBroken }
	noPADO := dialled(pppoe.Result{Outcome: pppoe.NoPADO, Stage: pppoe.StageDiscovery})
	for _, tt := range []struct {
		name    string
		wan     func(time.Duration) (steps.WAN, error)
		ask     func(dhcp.Options) (dhcp.Result, error)
		dial    func(pppoe.Options) (pppoe.Result, error)
		verdict acceptance.Verdict
		causes  []code
	}{
		{"addresses on offer", offline, offers, nil, unclear, []code{diagnosis.AgentCannotMeasure}},
		{"addresses on offer, and one is taken", from(3 * time.Second), offers, nil, pass, nil},
		{"an access concentrator", offline, nothing, dialled(okDial()), unclear, []code{diagnosis.DialNoCredentials}},
		{"nobody", offline, nothing, noPADO, fail, []code{diagnosis.DialNoPADO}},
		{"nobody, and DHCP could not be asked", offline, broken, noPADO, unclear, []code{diagnosis.AgentCannotMeasure}},
		{"nothing could be asked", offline, broken, func(pppoe.Options) (pppoe.Result, error) { return pppoe.Result{}, errBroken }, unclear, []code{diagnosis.AgentCannotMeasure}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gateway{o: line, wan: tt.wan, ask: tt.ask, dial: tt.dial}
				check(t, g.climb(t), tt.verdict, tt.causes, nil)
			})
		})
	}
}

func TestDialSeveralServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			macs     string
			warnings []code
		}{
			{"aa", nil}, {"aa,aa", nil}, {"aa,bb", []code{diagnosis.DialSeveralServers}}, {"aa,bb,cc", []code{diagnosis.DialSeveralServers}},
		} {
			r := okDial()
			r.Offers = nil
			for i, mac := range strings.Split(tt.macs, ",") {
				r.Offers = append(r.Offers, pppoe.Offer{MAC: mac, ACName: fmt.Sprint("bras-", i)})
			}
			for _, wan := range []func(time.Duration) (steps.WAN, error){from(0), from(time.Second)} {
				g := &gateway{o: pppoeLine(), wan: wan, dial: dialled(r)}
				res := g.climb(t)
				check(t, res, pass, nil, tt.warnings)
				if m := measurement(t, res, "access_concentrators"); !strings.Contains(fmt.Sprint(m.Value), "bras-0 aa") {
					t.Errorf("%+v", m)
				}
			}
		}
	})
}

// TestDialKeepsWhatServersSay: verbatim where it can be, in hexadecimal beside
// where it is no UTF-8, bounded, and without the account.
func TestDialKeepsWhatServersSay(t *testing.T) {
	for _, tt := range []struct{ name, text, value, raw string }{
		{"plain", "Login incorrect", "Login incorrect", ""},
		{"Chinese", "691 密码错", "691 密码错", ""},
		{"GBK", "\xc3\xdc\xc2\xeb\xb4\xed", "?", "c3dcc2ebb4ed"},
		{"control characters", "no\x1b[2J\r\n", "no\x1b[2J\r\n", ""},
		{"the account", "no such user " + testAccount, "no such user ***", ""},
		{"the account without its realm", "user 05121234567 unknown", "user *** unknown", ""},
		{"the password", "password " + testPassword + " is wrong", "password *** is wrong", ""},
		{"the password in GBK", "\xc3\xdc\xc2\xeb" + testPassword, "?***", "c3dcc2eb2a2a2a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rejectedWith(tt.text, 80)
				r.Auth.ServerMessageHex = fmt.Sprintf("%x", tt.text)
				r.TerminateReason = tt.text
				r.Errors = []pppoe.ErrorTag{{Name: "Generic-Error", Text: tt.text}}
				g := &gateway{o: pppoeLine(), dial: dialled(r)}
				res := g.climb(t)
				for _, name := range []string{"server_message", "terminate_reason"} {
					if m := measurement(t, res, name); m.Value != tt.value || m.Raw != tt.raw {
						t.Errorf("%+v", m)
					}
				}
				if m := measurement(t, res, "pppoe_errors"); !strings.HasSuffix(m.Raw, tt.raw) {
					t.Errorf("%+v", m)
				}
				if strings.ContainsAny(res.Reason+strings.Join(res.Log, ""), "\x1b\r\n") {
					t.Errorf("control characters in %q, %q", res.Reason, res.Log)
				}
			})
		})
	}
	t.Run("long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := rejectedWith(strings.Repeat("\xc3\xdc", 256), 80)
			for range 16 {
				r.Errors = append(r.Errors, pppoe.ErrorTag{Name: "Generic-Error", Text: r.Auth.ServerMessage})
				r.Offers = append(r.Offers, pppoe.Offer{MAC: "02:00:00:00:00:aa", ACName: r.Auth.ServerMessage[:255]})
			}
			res := (&gateway{o: pppoeLine(), dial: dialled(r)}).climb(t) // which looks at the size
			if m := measurement(t, res, "server_message"); len(m.Raw) != 510 || !strings.HasPrefix(m.Raw, "c3dcc3dc") {
				t.Errorf("%d digits", len(m.Raw))
			}
		})
	})
	t.Run("a short account", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := with(pppoeLine(), func(o *steps.DialOptions) { o.Username, o.Password = "u1@isp", "" })
			res := (&gateway{o: o, dial: dialled(rejectedWith("u1@isp u1 wrong", 80))}).climb(t)
			if m := measurement(t, res, "server_message"); m.Value != "*** u1 wrong" {
				t.Errorf("%+v", m)
			}
		})
	})
}

func TestDialEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := okDial()
		r.Looped = 2
		g := &gateway{o: pppoeLine(), dial: dialled(r), sessions: own("wan0.41")}
		res := g.climb(t)
		for name, want := range map[string]any{
			"pppoe_session": "0x0007", "gateway_online": false, "dial_outcome": "ok", "auth_attempts": 1, "dial_address": "203.0.113.9",
			"dial_mtu_bytes": 1492, "dial_ipv6": "up", "lcp_echo_loss_ratio": 0.0, "looped": true, "dial_ms": 0.0, "access_concentrators": "bras-1 02:00:00:00:00:aa",
		} {
			if m := measurement(t, res, name); m.Value != want || m.Source == "" {
				t.Errorf("%s: %+v", name, m)
			}
		}
		g = &gateway{o: pppoeLine(), dial: dialled(r), sessions: func(time.Duration) ([]steps.Session, error) { return nil, errBroken }}
		if m := measurement(t, g.climb(t), "pppoe_session"); m.Status != "error" {
			t.Errorf("%+v", m)
		}
	})
}

// TestDialStops ends the rung at each place where it waits.
func TestDialStops(t *testing.T) {
	silent := func(dhcp.Options) (dhcp.Result, error) { return dhcp.Result{V4Outcome: dhcp.Silent}, nil }
	ipoe := with(pppoeLine(), func(o *steps.DialOptions) { o.Access = steps.AccessIPoE })
	for name, g := range map[string]*gateway{
		"while the gateway logs in": {o: pppoeLine(), sessions: between(0, time.Hour)},
		"while it dials":            {o: pppoeLine(), dial: dialled(okDial()), takes: time.Hour},
		"while it looks":            {o: pppoeLine(), wan: from(0), takes: time.Hour},
		"while it waits to follow":  {o: pppoeLine(), dial: dialled(okDial())},
		"while it asks":             {o: ipoe, ask: silent},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				o := g.o
				began := time.Now()
				o.WAN = wanFunc(func(context.Context) (steps.WAN, error) {
					if g.wan == nil {
						return offline(0)
					}
					return g.wan(time.Since(began))
				})
				if g.sessions != nil {
					o.Sessions = func(context.Context) ([]steps.Session, error) { return g.sessions(time.Since(began)) }
				}
				o.PPPoE = func(ctx context.Context, po pppoe.Options) (pppoe.Result, error) {
					select {
					case <-ctx.Done():
						return pppoe.Result{}, ctx.Err()
					case <-time.After(g.takes):
						return g.dial(po)
					}
				}
				o.DHCP = func(ctx context.Context, _ dhcp.Options) (dhcp.Result, error) { return hang[dhcp.Result](ctx) }
				out := steps.NewDial(o).Run(ctx, func(string) {})
				if took := time.Since(began); took != 2*time.Second {
					t.Errorf("took %v", took)
				}
				if out.Verdict != unclear || !slices.Equal(out.Causes, []string{string(diagnosis.AgentTimeout)}) {
					t.Errorf("%s, %v", out.Verdict, out.Causes)
				}
			})
		})
	}
}

// TestDialWithoutIPv4 is for a line that gives IPv6 alone: where IPv4 is needed
// the gateway is not in, and IPv4 is what is asked for.
func TestDialWithoutIPv4(t *testing.T) {
	line := with(pppoeLine(), func(o *steps.DialOptions) { o.Access, o.Username = steps.AccessIPoE, "" })
	for _, tt := range []struct {
		name    string
		need    bool
		verdict acceptance.Verdict
		causes  []code
	}{
		{"either will do", false, pass, nil},
		{"IPv4 is needed", true, fail, []code{diagnosis.DialNoDHCPOffer}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gateway{
					o: with(line, func(o *steps.DialOptions) { o.NeedV4 = tt.need }), wan: always(wanWith("6", "2001:db8::7/64")),
					ask: func(dhcp.Options) (dhcp.Result, error) {
						return dhcp.Result{Outcome: dhcp.Silent, V4Outcome: dhcp.Silent, Sent: 3}, nil
					},
				}
				check(t, g.climb(t), tt.verdict, tt.causes, nil)
				if tt.need && g.asks[0].Families != dhcp.V4 {
					t.Errorf("asked with %+v", g.asks)
				}
			})
		})
	}
}

// TestDialAsksFromAnotherAddress where nobody answers the gateway's own, and the
// customer has agreed: whoever is answered there is locked out here.
func TestDialAsksFromAnotherAddress(t *testing.T) {
	for _, tt := range []struct {
		name    string
		consent bool
		other   pppoe.Outcome
		want    code
		dials   int
	}{
		{"nobody there either", true, pppoe.NoPADO, diagnosis.DialNoPADO, 2},
		{"answered there", true, pppoe.Offered, diagnosis.DialMACBlocked, 2},
		{"no consent", false, pppoe.Offered, diagnosis.DialNoPADO, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &gateway{
					o: with(pppoeLine(), func(o *steps.DialOptions) { o.MayDisturb = tt.consent }), wan: offline,
					dial: func(o pppoe.Options) (pppoe.Result, error) {
						if o.Alias {
							return pppoe.Result{Outcome: tt.other}, nil
						}
						return pppoe.Result{Outcome: pppoe.NoPADO}, nil
					},
				}
				check(t, g.climb(t), fail, []code{tt.want}, nil)
				if len(g.dials) != tt.dials {
					t.Errorf("%d dials", len(g.dials))
				}
				for _, o := range g.dials {
					if o.Alias && (!o.DiscoveryOnly || o.Username != "" || o.VLAN != 41) {
						t.Errorf("asked with %+v", o)
					}
				}
			})
		})
	}
}
