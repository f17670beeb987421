package play

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ontagent/cmd/ontlab/scenario"
)

// oneService is a scenario with one service that is not tagged: kernels without
// VLANs can have no more.
func oneService(name, service string) string {
	return "scenario: " + name + "\nservices:\n  - " + service + "\nexpect: {verdict: pass}\n"
}

func TestFaultsOfManagement(t *testing.T) {
	t.Parallel()
	l := buildLab(t, oneService("plain-management", "{kind: management, vlan: 0}"))
	acs := func(want string) func(context.Context, *Lab) error {
		return outcome(want, "acs", "--timeout", "0.5", "--answer", "1")
	}
	walkThrough(t, l, []walk{
		{fault: "acs_down", there: acs("no_answer"), gone: acs("open")},
		{fault: "acs_refuses", there: acs("refused"), gone: acs("open")},
		{
			fault: "dhcp_silent",
			there: outcome("silent", "dhcp", "--force", "--tries", "1"), gone: outcome("offered", "dhcp", "--force"),
		},
		{fault: "broker_down", there: func(ctx context.Context, l *Lab) error { return brokerAnswers(ctx, l, false) }, gone: func(ctx context.Context, l *Lab) error { return brokerAnswers(ctx, l, true) }},
	})
}

func TestFaultsOfVoice(t *testing.T) {
	t.Parallel()
	l := buildLab(t, oneService("plain-voice", `{kind: voice, vlan: 0, access: static, user: "2001", password: s3cret, domain: ims.lab.test}`))
	must(t, l.gateway.WriteFile("sip-password", []byte("s3cret\n"), 0o600))
	registers := func(want, reason string) func(context.Context, *Lab) error {
		return func(ctx context.Context, l *Lab) error {
			var r struct {
				Outcome string
				Reason  string `json:"reason_phrase"`
			}
			if err := l.probe(ctx, &r, "sip", "--method", "fetch", "--user", "2001", "--password-file", "sip-password", "--wait", "1"); err != nil {
				return err
			}
			if r.Outcome != want || r.Reason != reason {
				return fmt.Errorf("%+v", r)
			}
			return nil
		}
	}
	walkThrough(t, l, []walk{
		{fault: "sip_reject", params: []string{"code=404", "reason=Nobody"}, there: registers("rejected", "Nobody"), gone: registers("ok", "OK")},
		{fault: "sip_silent", there: registers("no_answer", ""), gone: registers("ok", "OK")},
	})
}

func TestFaultsOfTV(t *testing.T) {
	t.Parallel()
	l := buildLab(t, oneService("plain-tv", "{kind: iptv, vlan: 0, rate_mbps: 2, igmp: 2}"))
	type channel struct {
		Outcome  string
		Loss     *float64 `json:"loss_ratio"`
		Queriers []struct{ Protocol string }
	}
	watch := func(listen string, ok func(channel) bool) func(context.Context, *Lab) error {
		return func(ctx context.Context, l *Lab) error {
			var c channel
			if err := l.probe(ctx, &c, "multicast", "--listen", listen, "--wait", "1", "--leave-wait", "0.1"); err != nil {
				return err
			}
			if !ok(c) {
				return fmt.Errorf("%s, loss %t, %v", c.Outcome, c.Loss != nil && *c.Loss > 0, c.Queriers)
			}
			return nil
		}
	}
	healthy := watch("1", func(c channel) bool { return c.Outcome == "streaming" && c.Loss != nil && *c.Loss == 0 })
	asked := watch("3.2", func(c channel) bool { // the querier asks every three seconds
		return len(c.Queriers) == 1 && strings.Contains(strings.ToLower(c.Queriers[0].Protocol), "2")
	})
	walkThrough(t, l, []walk{
		{fault: "multicast_missing", there: watch("1", func(c channel) bool { return c.Outcome == "no_stream" }), gone: healthy},
		{fault: "multicast_lossy", params: []string{"loss_ratio=0.3"}, there: watch("1", func(c channel) bool { return c.Loss != nil && *c.Loss > 0.1 && *c.Loss < 0.5 }), gone: healthy},
		{fault: "no_querier", there: watch("3.2", func(c channel) bool { return len(c.Queriers) == 0 }), gone: asked},
	})
}

// TestStaticAddresses is for addresses that are set by hand: that of the default,
// and one beyond the operator's network.
func TestStaticAddresses(t *testing.T) {
	t.Parallel()
	l := buildLab(t, strings.Replace(plainInternet, "plain-internet\nservices:\n  - {kind: internet, access: ipoe,", "plain-static\nservices:\n  - {kind: internet, access: static,", 1)+
		"network: {pool: 100.65.3.0/29}\n")
	out, err := l.gateway.Run(t.Context(), "ip", "-4", "-o", "address", "show", "dev", wanPort)
	must(t, err)
	if !strings.Contains(string(out), "inet 100.65.3.2/29 ") {
		t.Errorf("%s", out)
	}
	eventually(t, l, "is online", both(pings(true, core(coreTargets)[0].String()), silent()))
	out, err = l.gateway.Run(t.Context(), "ip", "-4", "address", "flush", "dev", wanPort)
	must(t, err)
	router, err := l.static(scenario.Internet, wanPort, "198.51.100.77/26")
	must(t, err, l.gateway.Route("default", router.String()))
	if router != netip.MustParseAddr("198.51.100.65") {
		t.Errorf("router %v, %s", router, out)
	}
	eventually(t, l, "is online with another address", pings(true, core(coreTargets)[0].String()))
}

// TestLeaseRange is for small and large networks.
func TestLeaseRange(t *testing.T) {
	for own, want := range map[string][2]string{
		"203.0.113.1/24": {"203.0.113.10", "203.0.113.50"},
		"203.0.113.1/29": {"203.0.113.2", "203.0.113.6"},
		"203.0.113.1/28": {"203.0.113.10", "203.0.113.14"},
		"10.0.0.1/8":     {"10.0.0.10", "10.0.0.50"},
	} {
		first, last := leaseRange(netip.MustParsePrefix(own))
		if first.String() != want[0] || last.String() != want[1] {
			t.Errorf("%s: %v to %v", own, first, last)
		}
	}
}

// TestTimeline lets faults come and go by the clock: those of one moment in the
// order of the file, those with a time of their own without touching others.
func TestTimeline(t *testing.T) {
	t.Parallel()
	l := buildLab(t, strings.Replace(plainInternet, "plain-internet", "plain-timeline", 1)+`timeline:
  - {before: true, fault: ntp_dead, for_s: 0.5}
  - {before: true, fault: dns_dead, resolver: 2}
  - {at_s: 0.3, fault: target_silent, target: 1, for_s: 0.5}
  - {at_s: 0.3, fault: target_silent, target: 2}
  - {rung: dns, at_s: 0.2, fault: gateway_silent}
  - {rung: dns, at_s: 0.2, clear: gateway_silent}
  - {rung: voice, fault: http_down}
`)
	is := func(want ...string) func(context.Context, *Lab) error {
		return func(_ context.Context, l *Lab) error {
			if got := strings.Join(l.Active(), " "); got != strings.Join(want, " ") {
				return errors.New(got)
			}
			return nil
		}
	}
	eventually(t, l, "the first are there before", is("ntp_dead", "dns_dead"))
	timeline := l.startTimeline(t.Context())
	timeline.reached("dns")
	timeline.reached("dns")
	sleepUntil(t.Context(), time.Now().Add(100*time.Millisecond))
	eventually(t, l, "what was for a time has gone", is("dns_dead", "target_silent"))
	eventually(t, l, "one target is back", both(pings(true, core(coreTargets)[0].String()), pings(false, core(coreTargets + 1)[0].String())))
	eventually(t, l, "the BRAS answers", pings(true, "203.0.113.1"))
	must(t, timeline.stop())
	eventually(t, l, "nothing more came", is("dns_dead", "target_silent"))
}

// TestFaultsThatCannotBe are refused by name.
func TestFaultsThatCannotBe(t *testing.T) {
	t.Parallel()
	l := buildLab(t, strings.Replace(plainInternet, "plain-internet", "plain-refusals", 1))
	for fault, p := range map[string]scenario.Params{
		"slow_pado": {}, "aaa_down": {}, "session_limit": {}, "multicast_missing": {}, "sip_silent": {}, "acs_down": {}, "no_querier": {},
		"dns_dead": {Resolver: 3}, "target_silent": {Target: 4}, "vlan_wrong": {Service: scenario.Voice, VLAN: 9}, "dns_hijack": {Address: "x"},
		"second_dhcp": {Address: "::1"}, "console_habit": {Habits: []string{"x"}}, "flood": {},
	} {
		err := l.Fault(t.Context(), fault, p)
		if err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v", fault, err)
		}
	}
	if active := l.Active(); len(active) > 0 {
		t.Errorf("active are %q", active)
	}
	for _, fault := range scenario.Faults() {
		if err := l.apply(t.Context(), fault); err != nil && strings.Contains(err.Error(), "has no fault") {
			t.Errorf("nobody plays %s", fault)
		}
	}
	eventually(t, l, "all is well", both(silent(), pings(true, core(coreTargets)[0].String())))
}
