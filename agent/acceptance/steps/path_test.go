package steps_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/http"
	"ontagent/agent/probe/mtu"
	"ontagent/agent/probe/ping"
)

// TestPath: what large packets and a page show beside pings.
func TestPath(t *testing.T) {
	const page = "http://check.example/generate_204"
	near, far := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	good := mtu.Result{Outcome: mtu.OK, Target: far, PathMTU: 1492, ExpectedMTU: 1492, InterfaceMTU: 1492}
	hole := mtu.Result{Outcome: mtu.BlackHole, Target: far, PathMTU: 1400, ExpectedMTU: 1492}
	redirect := func(location, host string) http.Result {
		return http.Result{Outcome: http.Redirected, Status: 302, Location: location, LocationHost: host}
	}
	portal := redirect("http://portal.example/pay?user=05121234567#x", "portal.example")
	fine := http.Result{Outcome: http.OK, Status: 204, Address: netip.MustParseAddrPort("198.51.100.80:80")}
	all, none := 1.0, 0.0
	black, garden := diagnosis.ReachMTUBlackHole, diagnosis.DialWalledGarden
	silent, nothing := diagnosis.ReachTargetSilent, diagnosis.ReachNoReply
	list := func(cs ...code) []code { return cs }
	for _, tt := range []struct {
		name      string
		near, far float64 // part of the pings that is answered
		mtu       mtu.Result
		mtuErr    error
		page      http.Result
		pageErr   error
		verdict   acceptance.Verdict
		causes    []code
	}{
		{"all well", all, all, good, nil, fine, nil, pass, nil},
		{"told of less", all, all, mtu.Result{Outcome: mtu.Reduced, PathMTU: 1400, ExpectedMTU: 1492, ToldMTU: 1400, ToldBy: near}, nil, fine, nil, pass, nil},
		{"a black hole", all, all, hole, nil, fine, nil, fail, list(black)},
		{"a black hole of full segments", all, all, mtu.Result{Outcome: mtu.MSSBlackHole, PathMTU: 1492, ExpectedMTU: 1492}, nil, fine, nil, fail, list(black)},
		{"a black hole and a portal", all, all, hole, nil, portal, nil, fail, list(black, garden)},
		{"a black hole, with a little loss", all, 0.95, hole, nil, fine, nil, fail, list(diagnosis.ReachLoss, black)},
		{"what may be loss and no black hole", all, 0.5, hole, nil, fine, nil, fail, list(diagnosis.ReachLoss)},
		{"the target is silent when large packets go", all, all, mtu.Result{Outcome: mtu.NoReply}, nil, fine, nil, pass, nil},
		{"unreachable for large packets", all, all, mtu.Result{Outcome: mtu.Unreachable, Error: "no route"}, nil, fine, nil, pass, nil},
		{"an MTU from the future", all, all, mtu.Result{Outcome: "purple", PathMTU: 1}, nil, fine, nil, pass, nil},
		{"MTU not measured", all, all, mtu.Result{}, mtu.ErrNotPermitted, fine, nil, pass, nil},
		{"a portal", all, all, good, nil, portal, nil, fail, list(garden)},
		{"a portal by relative redirect", all, all, good, nil, redirect("/login", "check.example"), nil, fail, list(garden)},
		{"a portal by https", all, all, good, nil, redirect("https://portal.example/", "portal.example"), nil, fail, list(garden)},
		{"the same page by https", all, all, good, nil, redirect("HTTPS://Check.example/generate_204", "Check.example"), nil, pass, nil},
		{"a redirect to nowhere", all, all, good, nil, redirect("://", ""), nil, fail, list(garden)},
		{"another page", all, all, good, nil, http.Result{Outcome: http.Altered, Status: 200, Text: "pay!"}, nil, fail, list(garden)},
		{"the page is not measured", all, all, good, nil, http.Result{}, http.ErrNotMeasured, pass, nil},
		{"the server fails", all, all, good, nil, http.Result{Outcome: http.ErrorStatus, Status: 503}, nil, pass, nil},
		{"the name fails", all, all, good, nil, http.Result{Outcome: http.NameFailed, Error: "no address"}, nil, pass, nil},
		{"refused", all, all, good, nil, http.Result{Outcome: http.Refused}, nil, pass, nil},
		{"unreachable", all, all, good, nil, http.Result{Outcome: http.Unreachable}, nil, pass, nil},
		{"reset", all, all, good, nil, http.Result{Outcome: http.Reset}, nil, pass, nil},
		{"closed", all, all, good, nil, http.Result{Outcome: http.Closed}, nil, pass, nil},
		{"late", all, all, good, nil, http.Result{Outcome: http.Timeout}, nil, pass, nil},
		{"garbage", all, all, good, nil, http.Result{Outcome: http.Malformed}, nil, pass, nil},
		{"a page from the future", all, all, good, nil, http.Result{Outcome: "purple"}, nil, pass, nil},

		{"nothing answers pings, but the page comes", none, none, good, nil, fine, nil, unclear, list(silent)},
		{"no target answers pings, but the page comes", all, none, good, nil, fine, nil, unclear, list(silent)},
		{"nothing answers pings, and a portal comes", none, none, good, nil, portal, nil, fail, list(silent, garden)},
		{"nothing answers pings, and the server fails", none, none, good, nil, http.Result{Outcome: http.ErrorStatus, Status: 500}, nil, fail, list(silent)},
		{"nothing answers at all", none, none, good, nil, http.Result{Outcome: http.Timeout}, nil, fail, list(nothing)},
		{"nothing answers, the name fails", none, none, good, nil, http.Result{Outcome: http.NameFailed}, nil, fail, list(nothing)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				measured := 0
				res := run(t, steps.NewReachability(steps.ReachabilityOptions{
					WAN: wanFunc(func(context.Context) (steps.WAN, error) {
						return steps.WAN{Source: "test", Gateways: []netip.Addr{near}}, nil
					}),
					Targets: []netip.Addr{far},
					Pinger: steps.PingFunc(func(_ context.Context, target netip.Addr, o ping.Options) (ping.Result, error) {
						part := tt.near
						if target == far {
							part = tt.far
						}
						got := int(part*float64(o.Count) + 0.5)
						return ping.Result{Target: target, Sent: o.Count, Received: got, P50Ms: 5, LossRatio: 1 - part}, nil
					}),
					Path: steps.PathOptions{
						MTU: func(_ context.Context, o mtu.Options) (mtu.Result, error) {
							measured++
							if o.Target != far {
								t.Errorf("measured the MTU to %s", o.Target)
							}
							return tt.mtu, tt.mtuErr
						},
						Check: func(_ context.Context, o http.Options) (http.Result, error) {
							if o.URL != page {
								t.Errorf("asked for %s", o.URL)
							}
							return tt.page, tt.pageErr
						},
						Page: http.Options{URL: page},
					},
				}))
				var warnings []code
				if tt.near < all && tt.far > none {
					warnings = list(diagnosis.ReachGatewaySilent)
				}
				check(t, res, tt.verdict, tt.causes, warnings)
				if tt.far > none != (measured == 1) {
					t.Errorf("measured %d times", measured)
				}
				m := measurement(t, res, "path_mtu_bytes")
				if ok := tt.far > none && tt.mtuErr == nil && tt.mtu.PathMTU > 0; ok != (m.Status == "ok") || ok && (m.Value != tt.mtu.PathMTU || m.Source != "mtu:"+far.String()) {
					t.Errorf("%+v", m)
				}
				if tt.mtu.ToldMTU != 0 && !strings.Contains(m.Note, "told 1400 by 192.0.2.1") {
					t.Errorf("%+v", m)
				}
				if m := measurement(t, res, "page_outcome"); tt.pageErr == nil && m.Value != string(tt.page.Outcome) || m.Source != "http:"+page {
					t.Errorf("%+v", m)
				}
				text, err := json.Marshal(res)
				if err != nil || strings.Contains(string(text), "05121234567") {
					t.Errorf("the customer is in the result (%v)", err)
				}
				if tt.page.Outcome == http.Altered && measurement(t, res, "page_status").Raw != tt.page.Text {
					t.Error("the other page is not kept")
				}
			})
		})
	}
}

// TestPathTakesNoVerdictAway: a page or a search that takes too long doesn't
// cost what was found before, unless the ladder itself is stopped.
func TestPathTakesNoVerdictAway(t *testing.T) {
	far := netip.MustParseAddr("198.51.100.1")
	slowMTU := func(ctx context.Context, _ mtu.Options) (mtu.Result, error) { return hang[mtu.Result](ctx) }
	slowPage := func(ctx context.Context, _ http.Options) (http.Result, error) { return hang[http.Result](ctx) }
	step := func(loss float64, p steps.PathOptions) acceptance.Step {
		p.Page.URL = "http://check.example/"
		return steps.NewReachability(steps.ReachabilityOptions{
			Targets: []netip.Addr{far}, Path: p,
			Pinger: steps.PingFunc(func(_ context.Context, target netip.Addr, o ping.Options) (ping.Result, error) {
				return ping.Result{Target: target, Sent: o.Count, Received: int((1-loss)*float64(o.Count) + 0.5), P50Ms: 5, LossRatio: loss}, nil
			}),
		})
	}
	for name, p := range map[string]steps.PathOptions{"mtu": {MTU: slowMTU}, "page": {Check: slowPage}, "both": {MTU: slowMTU, Check: slowPage}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check(t, run(t, step(0, p)), pass, nil, nil)
				check(t, run(t, step(0.5, p)), fail, []code{diagnosis.ReachLoss}, nil)
				ctx, end := context.WithCancel(t.Context())
				time.AfterFunc(3*time.Second, end)
				if out := step(0, p).Run(ctx, func(string) {}); out.Verdict != unclear || out.Causes[0] != string(diagnosis.AgentTimeout) {
					t.Errorf("stopped: %s", out.Verdict)
				}
			})
		})
	}
	t.Run("nothing to look at", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			check(t, run(t, step(0, steps.PathOptions{})), pass, nil, nil)
		})
	})
}
