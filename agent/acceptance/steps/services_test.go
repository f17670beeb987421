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
	"ontagent/agent/probe/multicast"
	"ontagent/agent/probe/sip"
	"ontagent/agent/probe/tcp"
)

func TestIPTV(t *testing.T) {
	ratio := func(v float64) *float64 { return &v }
	streaming := func(change func(*multicast.Result)) multicast.Result {
		r := multicast.Result{Outcome: multicast.Streaming, Packets: 900, RateMbps: 8, ListenedS: 3, JoinMs: ratio(40), LossRatio: ratio(0), Leave: multicast.LeaveStopped}
		change(&r)
		return r
	}
	same := func(*multicast.Result) {}
	broken := []code{diagnosis.IPTVStreamBroken}
	for _, tt := range []struct {
		name    string
		r       multicast.Result
		verdict acceptance.Verdict
		causes  []code
	}{
		{"it comes", streaming(same), pass, nil},
		{"as much is lost as may be", streaming(func(r *multicast.Result) { r.LossRatio = ratio(0.001) }), pass, nil},
		{"a little more is lost", streaming(func(r *multicast.Result) { r.LossRatio = ratio(0.00101) }), fail, broken},
		{"it stalls", streaming(func(r *multicast.Result) { r.Outcome, r.Stalls = multicast.Intermittent, 1 }), fail, broken},
		{"it numbers nothing", streaming(func(r *multicast.Result) { r.LossRatio = nil }), pass, nil},
		{"too fast to count", streaming(func(r *multicast.Result) { r.LossRatio, r.Dropped = nil, 3 }), unclear, []code{diagnosis.AgentCannotMeasure}},
		{"somebody watches it", streaming(func(r *multicast.Result) { r.AlreadyFlowing, r.JoinMs, r.Leave = true, nil, multicast.LeaveNotSent }), pass, nil},
		{"it does not come", multicast.Result{Outcome: multicast.NoStream, Leave: multicast.LeaveNothing}, fail, []code{diagnosis.IPTVNoStream}},
		{"nobody asks, not even after a leave", multicast.Result{Outcome: multicast.NoQuerier, Leave: multicast.LeaveNothing}, fail, []code{diagnosis.IPTVVLAN, diagnosis.IPTVNoStream}},
		{"nobody asks, and nothing was left", multicast.Result{Outcome: multicast.NoQuerier, Leave: multicast.LeaveNotSent}, fail, []code{diagnosis.IPTVNoStream}},
		{"an outcome from the future", multicast.Result{Outcome: "purple"}, unclear, []code{diagnosis.AgentCannotMeasure}},
		{"no outcome", multicast.Result{}, unclear, []code{diagnosis.AgentCannotMeasure}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			probe := multicast.Options{Interface: "wan0", VLAN: 45, Group: netip.MustParseAddr("239.1.1.1")}
			res := run(t, steps.NewIPTV(steps.IPTVOptions{Probe: probe, Join: func(_ context.Context, o multicast.Options) (multicast.Result, error) {
				if o != probe {
					t.Errorf("joined %+v", o)
				}
				return tt.r, nil
			}}))
			check(t, res, tt.verdict, tt.causes, nil)
			if m := measurement(t, res, "iptv_outcome"); m.Value != string(tt.r.Outcome) || m.Source != "multicast:wan0" {
				t.Errorf("%+v", m)
			}
			if tt.r.Packets > 0 {
				measurement(t, res, "iptv_loss_ratio")
			}
		})
	}
	t.Run("evidence", func(t *testing.T) {
		r := streaming(func(r *multicast.Result) {
			r.ForeignPackets, r.Foreign = 12, make([]multicast.Foreign, 2)
			r.Queriers = []multicast.Querier{{Address: netip.MustParseAddr("192.0.2.1"), Protocol: "igmpv2"}}
			r.AlreadyFlowing = true
		})
		res := run(t, steps.NewIPTV(steps.IPTVOptions{
			Probe: multicast.Options{Interface: "wan0", Group: netip.MustParseAddr("239.1.1.1")},
			Join:  func(context.Context, multicast.Options) (multicast.Result, error) { return r, nil },
		}))
		for name, want := range map[string]any{
			"iptv_foreign_packets": uint64(12), "multicast_queriers": "192.0.2.1 igmpv2", "iptv_already_flowing": true, "iptv_join_ms": 40.0, "iptv_rate_mbps": 8.0,
		} {
			if m := measurement(t, res, name); m.Value != want {
				t.Errorf("%+v", m)
			}
		}
	})
	t.Run("an order's limit", func(t *testing.T) {
		limits, err := acceptance.Norms().With(acceptance.OriginOrder, map[string]float64{acceptance.IPTVLossMaxRatio: 0.01})
		if err != nil {
			t.Fatal(err)
		}
		res := run(t, steps.NewIPTV(steps.IPTVOptions{
			Thresholds: limits, Probe: multicast.Options{Interface: "wan0", Group: netip.MustParseAddr("239.1.1.1")},
			Join: func(context.Context, multicast.Options) (multicast.Result, error) {
				return streaming(func(r *multicast.Result) { r.LossRatio = ratio(0.005) }), nil
			},
		}))
		check(t, res, pass, nil, nil)
		if len(res.Limits) != 1 || res.Limits[0].Origin != acceptance.OriginOrder {
			t.Errorf("limits %+v", res.Limits)
		}
	})
}

func TestVoice(t *testing.T) {
	server := netip.MustParseAddrPort("192.0.2.60:5060")
	probe := sip.Options{Server: server, User: "+86512555", Password: testPassword}
	bare := sip.Options{Server: server, User: "+86512555"}
	said := func(o sip.Outcome, n int, text string) sip.Result {
		return sip.Result{Outcome: o, Code: n, ReasonText: text, Server: server}
	}
	refused, cannot := []code{diagnosis.VoiceNotRegistered}, []code{diagnosis.AgentCannotMeasure}
	for _, tt := range []struct {
		name    string
		o       sip.Options
		r       sip.Result
		verdict acceptance.Verdict
		causes  []code
	}{
		{"the account is right", probe, said(sip.OK, 200, "OK"), pass, nil},
		{"the account is right, by another way", probe, said(sip.Registered, 200, "OK"), pass, nil},
		{"no account", bare, said(sip.OK, 200, "OK"), unclear, cannot},
		{"no account, challenged", bare, said(sip.Challenged, 401, "Unauthorized"), unclear, cannot},
		{"no account, the question is refused", bare, said(sip.Rejected, 403, "Forbidden"), unclear, cannot},
		{"no account, the server is not well", bare, said(sip.ServerError, 503, "Busy"), unclear, cannot},
		{"no account, no answer", bare, said(sip.NoAnswer, 0, ""), fail, []code{diagnosis.VoiceNoAnswer}},
		{"challenged for ever", probe, said(sip.Challenged, 401, "Unauthorized"), unclear, cannot},
		{"wrong password", probe, said(sip.Unauthorized, 401, "Unauthorized"), fail, refused},
		{"forbidden", probe, said(sip.Rejected, 403, "Forbidden"), fail, refused},
		{"not found", probe, said(sip.Rejected, 404, "Not Found"), fail, refused},
		{"unpaid", probe, said(sip.Rejected, 402, "Payment Required"), fail, refused},
		{"gone", probe, said(sip.Rejected, 410, "Gone"), fail, refused},
		{"declined", probe, said(sip.Rejected, 603, "Decline"), fail, refused},
		{"the server is not well", probe, said(sip.ServerError, 503, "Service Unavailable"), fail, refused},
		{"it does not do this", probe, said(sip.ServerError, 501, "Not Implemented"), unclear, cannot},
		{"it does not take the question", probe, said(sip.Rejected, 400, "Bad Request"), unclear, cannot},
		{"not allowed", probe, said(sip.Rejected, 405, "Method Not Allowed"), unclear, cannot},
		{"sent elsewhere", probe, said(sip.Redirected, 302, "Moved"), unclear, cannot},
		{"an authentication nobody knows", probe, said(sip.Unsupported, 401, "Unauthorized"), unclear, cannot},
		{"silence", probe, said(sip.NoAnswer, 0, ""), fail, []code{diagnosis.VoiceNoAnswer}},
		{"unreachable", probe, said(sip.Unreachable, 0, ""), fail, []code{diagnosis.VoiceNoAnswer}},
		{"garbage", probe, said(sip.Malformed, 0, ""), fail, []code{diagnosis.VoiceNoAnswer}},
		{"an outcome from the future", probe, said("purple", 0, ""), unclear, cannot},
		{"no outcome", probe, sip.Result{}, unclear, cannot},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := run(t, steps.NewVoice(steps.VoiceOptions{Probe: tt.o, Ask: func(_ context.Context, o sip.Options) (sip.Result, error) {
				want := sip.MethodOptions
				if tt.o.Password != "" {
					want = sip.MethodFetch
				}
				if o.Method != want || o.Interface != "" {
					t.Errorf("asked by %s on %q", o.Method, o.Interface)
				}
				tt.r.Method = o.Method
				return tt.r, nil
			}}))
			check(t, res, tt.verdict, tt.causes, nil)
			if tt.r.Code != 0 {
				if m := measurement(t, res, "sip_answer"); !strings.Contains(fmt.Sprint(m.Value), tt.r.ReasonText) || m.Source != "sip:"+server.String() {
					t.Errorf("%+v", m)
				}
			}
		})
	}
	t.Run("what servers say", func(t *testing.T) {
		contacts := 1
		r := said(sip.Rejected, 403, "\x1b no +86512555 with "+testPassword+" \xc3\xdc")
		r.Method, r.OtherContacts, r.Warning, r.Reason = sip.MethodFetch, &contacts, "399 +86512555", "Q.850;text="+testPassword
		res := run(t, steps.NewVoice(steps.VoiceOptions{Probe: probe, Ask: func(context.Context, sip.Options) (sip.Result, error) { return r, nil }}))
		check(t, res, fail, refused, nil)
		text, err := json.Marshal(res)
		if err != nil || strings.Contains(string(text), testPassword) || strings.Contains(string(text), "86512555") {
			t.Errorf("a secret is in the result (%v)", err)
		}
		if strings.Contains(res.Reason+strings.Join(res.Log, ""), "\x1b") {
			t.Errorf("%q, %q", res.Reason, res.Log)
		}
		if m := measurement(t, res, "sip_contacts"); m.Value != 1 {
			t.Errorf("%+v", m)
		}
		if m := measurement(t, res, "sip_answer"); !strings.HasSuffix(m.Raw, "c3dc") {
			t.Errorf("%+v", m)
		}
	})
}

func TestManagement(t *testing.T) {
	acs := tcp.Options{Host: "acs.example", Port: 7547, HTTP: true}
	for outcome, want := range map[tcp.Outcome]struct {
		verdict acceptance.Verdict
		causes  []code
	}{
		tcp.Open:        {pass, nil},
		tcp.Refused:     {fail, []code{diagnosis.ManagementUnreachable}},
		tcp.NoAnswer:    {fail, []code{diagnosis.ManagementUnreachable}},
		tcp.Unreachable: {fail, []code{diagnosis.ManagementUnreachable}},
		tcp.Reset:       {fail, []code{diagnosis.ManagementUnreachable}},
		tcp.Closed:      {fail, []code{diagnosis.ManagementUnreachable}},
		tcp.Mute:        {fail, []code{diagnosis.ManagementUnreachable}},
		tcp.NotHTTP:     {fail, []code{diagnosis.ManagementUnreachable}},
		tcp.Unresolved:  {unclear, []code{diagnosis.AgentCannotMeasure}},
		"purple":        {unclear, []code{diagnosis.AgentCannotMeasure}},
		"":              {unclear, []code{diagnosis.AgentCannotMeasure}},
	} {
		t.Run(string(outcome), func(t *testing.T) {
			r := tcp.Result{Attempt: tcp.Attempt{Outcome: outcome, Address: netip.MustParseAddr("192.0.2.75"), Reason: "so it was", StatusLine: "HTTP/1.1 401 \x1b"}}
			if outcome == tcp.Open {
				r.HTTPStatus = 401
			}
			res := run(t, steps.NewManagement(steps.ManagementOptions{ACS: acs, Reach: func(_ context.Context, o tcp.Options) (tcp.Result, error) {
				if o.Host != acs.Host || o.Port != acs.Port || o.Interface != "" {
					t.Errorf("tried %+v", o)
				}
				return r, nil
			}}))
			check(t, res, want.verdict, want.causes, nil)
			if m := measurement(t, res, "acs_outcome"); m.Source != "tcp:acs.example:7547" || m.Note != "192.0.2.75 so it was" {
				t.Errorf("%+v", m)
			}
			if outcome == tcp.Open && measurement(t, res, "acs_http_status").Value != 401 {
				t.Error("no status")
			}
			if strings.Contains(res.Reason+strings.Join(res.Log, ""), "\x1b") {
				t.Errorf("%q", res.Log)
			}
		})
	}
}

// TestChannels: voice and management go out by the service's interface, and
// what it lacks decides.
func TestChannels(t *testing.T) {
	for _, tt := range []struct {
		name       string
		channel    steps.Channel
		err        error
		verdict    acceptance.Verdict
		voice, acs []code
	}{
		{"fine", steps.Channel{Interface: "wan0.46", HasAddress: true}, nil, pass, nil, nil},
		{"no address", steps.Channel{Interface: "wan0.46"}, nil, fail, []code{diagnosis.VoiceVLAN}, []code{diagnosis.ManagementUnreachable}},
		{"no interface", steps.Channel{}, steps.ErrNoChannel, unclear, []code{diagnosis.AgentCannotMeasure}, []code{diagnosis.AgentCannotMeasure}},
		{"nothing known", steps.Channel{}, nil, unclear, []code{diagnosis.AgentCannotMeasure}, []code{diagnosis.AgentCannotMeasure}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			read := func(context.Context) (steps.Channel, error) { return tt.channel, tt.err }
			asked, tried := "", ""
			voice := run(t, steps.NewVoice(steps.VoiceOptions{
				Channel: read, Probe: sip.Options{Host: "sip.example", User: "u", Password: "p"},
				Ask: func(_ context.Context, o sip.Options) (sip.Result, error) {
					asked = o.Interface
					return sip.Result{Outcome: sip.OK, Method: o.Method, Code: 200}, nil
				},
			}))
			check(t, voice, tt.verdict, tt.voice, nil)
			management := run(t, steps.NewManagement(steps.ManagementOptions{
				Channel: read, ACS: tcp.Options{Host: "acs.example", Port: 80},
				Reach: func(_ context.Context, o tcp.Options) (tcp.Result, error) {
					tried = o.Interface
					return tcp.Result{Attempt: tcp.Attempt{Outcome: tcp.Open}}, nil
				},
			}))
			check(t, management, tt.verdict, tt.acs, nil)
			want := tt.channel.Interface
			if tt.verdict != pass {
				want = ""
			}
			if asked != want || tried != want {
				t.Errorf("went out by %q and %q", asked, tried)
			}
			if tt.channel.Interface != "" && measurement(t, voice, "service_interface").Value != tt.channel.Interface {
				t.Error("the interface is not told")
			}
		})
	}
}

// TestServicesThatCannotBeMeasured gives iptv, voice and management every way
// in which nothing can be said, the end of the context included.
func TestServicesThatCannotBeMeasured(t *testing.T) {
	group := netip.MustParseAddr("239.1.1.1")
	stream := multicast.Options{Interface: "wan0", Group: group}
	acs := tcp.Options{Host: "acs.example", Port: 80}
	registrar := sip.Options{Host: "sip.example", User: "u", Password: "p"}
	hanging := func(ctx context.Context) (steps.Channel, error) { return hang[steps.Channel](ctx) }
	for name, tt := range map[string]struct {
		step  acceptance.Step
		cause code
	}{
		"iptv, zero":             {steps.NewIPTV(steps.IPTVOptions{}), diagnosis.AgentCannotMeasure},
		"iptv, no group":         {steps.NewIPTV(steps.IPTVOptions{Probe: multicast.Options{Interface: "wan0"}}), diagnosis.AgentCannotMeasure},
		"iptv, no such port":     {steps.NewIPTV(steps.IPTVOptions{Probe: multicast.Options{Interface: "no-such-port", Group: group}}), diagnosis.AgentCannotMeasure},
		"iptv, not a group":      {steps.NewIPTV(steps.IPTVOptions{Probe: multicast.Options{Interface: "lo", Group: netip.MustParseAddr("192.0.2.1")}}), diagnosis.AgentCannotMeasure},
		"voice, zero":            {steps.NewVoice(steps.VoiceOptions{}), diagnosis.AgentCannotMeasure},
		"management, zero":       {steps.NewManagement(steps.ManagementOptions{}), diagnosis.AgentCannotMeasure},
		"management, no port":    {steps.NewManagement(steps.ManagementOptions{ACS: tcp.Options{Host: "192.0.2.1"}}), diagnosis.AgentCannotMeasure},
		"management, a bad host": {steps.NewManagement(steps.ManagementOptions{ACS: tcp.Options{Host: "a b", Port: 1}}), diagnosis.AgentCannotMeasure},
		"voice, a bad user": {steps.NewVoice(steps.VoiceOptions{Probe: sip.Options{
			Server: netip.MustParseAddrPort("192.0.2.1:5060"), User: "a\nb", Password: "p",
		}}), diagnosis.AgentCannotMeasure},
		"iptv, error": {steps.NewIPTV(steps.IPTVOptions{Probe: stream, Join: func(context.Context, multicast.Options) (multicast.Result, error) {
			return multicast.Result{Outcome: multicast.NoStream}, errBroken
		}}), diagnosis.AgentCannotMeasure},
		"iptv, hangs": {steps.NewIPTV(steps.IPTVOptions{Probe: stream, Join: func(ctx context.Context, _ multicast.Options) (multicast.Result, error) {
			return hang[multicast.Result](ctx)
		}}), diagnosis.AgentTimeout},
		"voice, error": {steps.NewVoice(steps.VoiceOptions{Probe: registrar, Ask: func(context.Context, sip.Options) (sip.Result, error) {
			return sip.Result{Outcome: sip.OK}, sip.ErrNotResolved
		}}), diagnosis.AgentCannotMeasure},
		"voice, hangs": {steps.NewVoice(steps.VoiceOptions{Probe: registrar, Ask: func(ctx context.Context, _ sip.Options) (sip.Result, error) {
			return hang[sip.Result](ctx)
		}}), diagnosis.AgentTimeout},
		"voice, its channel hangs": {steps.NewVoice(steps.VoiceOptions{Probe: registrar, Channel: hanging}), diagnosis.AgentTimeout},
		"management, error": {steps.NewManagement(steps.ManagementOptions{ACS: acs, Reach: func(context.Context, tcp.Options) (tcp.Result, error) {
			return tcp.Result{}, errBroken
		}}), diagnosis.AgentCannotMeasure},
		"management, hangs": {steps.NewManagement(steps.ManagementOptions{ACS: acs, Reach: func(ctx context.Context, _ tcp.Options) (tcp.Result, error) {
			return hang[tcp.Result](ctx)
		}}), diagnosis.AgentTimeout},
		"management, its channel hangs": {steps.NewManagement(steps.ManagementOptions{ACS: acs, Channel: hanging}), diagnosis.AgentTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.cause != diagnosis.AgentTimeout { // real probes look at real interfaces
				check(t, run(t, tt.step), unclear, []code{tt.cause}, nil)
				return
			}
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				out := tt.step.Run(ctx, func(string) {})
				if out.Verdict != unclear || !slices.Equal(out.Causes, []string{string(tt.cause)}) || time.Since(began) != time.Second {
					t.Errorf("%s, %v after %v", out.Verdict, out.Causes, time.Since(began))
				}
			})
		})
	}
}

// TestServicesFitTheirDeadlines: a probe that takes as long as it may is
// measured to its end.
func TestServicesFitTheirDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := func(ctx context.Context, d time.Duration) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(d):
				return nil
			}
		}
		stream := multicast.Options{Interface: "wan0", Group: netip.MustParseAddr("239.1.1.1"), Wait: 20 * time.Second}
		check(t, run(t, steps.NewIPTV(steps.IPTVOptions{Probe: stream, Join: func(ctx context.Context, o multicast.Options) (multicast.Result, error) {
			return multicast.Result{Outcome: multicast.Streaming}, wait(ctx, o.Duration())
		}})), pass, nil, nil)
		registrar := sip.Options{Host: "sip.example", User: "u", Password: "p"}
		check(t, run(t, steps.NewVoice(steps.VoiceOptions{Probe: registrar, Ask: func(ctx context.Context, o sip.Options) (sip.Result, error) {
			return sip.Result{Outcome: sip.OK, Method: o.Method}, wait(ctx, o.Duration())
		}})), pass, nil, nil)
		acs := tcp.Options{Host: "acs.example", Port: 80, HTTP: true}
		check(t, run(t, steps.NewManagement(steps.ManagementOptions{ACS: acs, Reach: func(ctx context.Context, o tcp.Options) (tcp.Result, error) {
			return tcp.Result{Attempt: tcp.Attempt{Outcome: tcp.Open}}, wait(ctx, o.Duration())
		}})), pass, nil, nil)
	})
}
