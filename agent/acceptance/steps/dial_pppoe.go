package steps

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/pppoe"
	"ontagent/collectors"
)

const (
	// dialTime leaves of the step's deadline what the waits before and after
	// may take, and is enough for an AAA that takes 25 s.
	dialTime = 40 * time.Second
	// deadAAAMs is how long no AAA takes to refuse somebody without a word, in
	// milliseconds: FreeRADIUS delays a refusal by 5 s at most. A BRAS that
	// gave up on its AAA refuses as well, after 10 s and more.
	deadAAAMs = 5500
)

// pppoe dials once, or only looks for offers, and keeps what came of it.
func (s *Dial) pppoe(ctx context.Context, out *acceptance.Outcome, discovery bool, note func(string)) (pppoe.Result, error) {
	o := pppoe.Options{Interface: s.o.Device, VLAN: s.o.VLAN, MaxPayload: 1500, DiscoveryOnly: discovery, MaxDuration: dialTime}
	if !discovery {
		o.Username, o.Password, o.IPv6 = s.o.Username, s.o.Password, true
	}
	r, err := s.o.PPPoE(ctx, o)
	if err != nil {
		note(err.Error())
		put(out, missing("dial_outcome", collectors.StatusError, "pppoe:"+s.o.Device, fmt.Sprintf("at %s: %v", r.Stage, err)))
		return r, err
	}
	s.pppoeMeasurements(out, r)
	if !discovery {
		s.tested.Store(&r)
	}
	note(fmt.Sprintf("PPPoE on %s, VLAN %d: %s at %s after %.0f ms", s.o.Device, s.o.VLAN, r.Outcome, r.Stage, r.TotalMs))
	for _, offer := range r.Offers {
		// One that offers several services is still one.
		if offer.MAC != r.Offers[0].MAC {
			warn(out, diagnosis.DialSeveralServers)
		}
	}
	return r, nil
}

// dial dials, or only looks for offers: without credentials, and on a bridged
// line without consent. The gateway is offline.
func (s *Dial) dial(ctx context.Context, out *acceptance.Outcome, note func(string)) {
	bridge := s.o.Access == AccessBridge
	forbidden := bridge && !s.o.MayDisturb
	refused, locked := s.o.Refusals.spent()
	r, err := s.pppoe(ctx, out, forbidden || s.o.Username == "" || locked, note)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		decide(out, acceptance.Inconclusive, fmt.Sprintf("cannot dial: %v", err), diagnosis.AgentCannotMeasure)
	case forbidden && s.o.Username == "" && r.Outcome == pppoe.NoPADO:
		decide(out, acceptance.Inconclusive, "no access concentrator answers; a bridged line is not asked for an address without the customer's consent", diagnosis.AgentCannotMeasure)
	case r.Outcome == pppoe.Offered && locked && !forbidden && s.o.Username != "":
		if bridge || !s.came(ctx, out, 0, note) {
			decide(out, acceptance.Inconclusive, fmt.Sprintf("the BRAS answers; %d authentications under this order have failed, and another could lock the line out", maxRefusals), refused)
		}
	case r.Outcome == pppoe.Offered && bridge && s.o.Username != "":
		decide(out, acceptance.Inconclusive, "the BRAS answers; a bridged line is not dialled without the customer's consent", diagnosis.AgentCannotMeasure)
	case r.Outcome == pppoe.Offered:
		if bridge || !s.came(ctx, out, 0, note) {
			decide(out, acceptance.Inconclusive, "the BRAS answers; without the order's account nothing more can be tried", diagnosis.DialNoCredentials)
		}
	case r.Outcome == pppoe.OK && bridge:
		decide(out, acceptance.Pass, "")
	case s.letIn(r):
		s.follow(ctx, out, note, "a test dial with the order's account succeeds, the gateway itself stays offline")
	default:
		s.refused(ctx, out, r, note)
	}
}

// letIn reports whether a dial came to what the service needs.
func (s *Dial) letIn(r pppoe.Result) bool {
	switch r.Outcome {
	case pppoe.OK:
		return true
	case pppoe.IPCPNoAnswer, pppoe.IPCPFailed, pppoe.NoAddress:
		return s.o.NeedV6 && !s.o.NeedV4 && r.IPv6.Result == "up"
	default:
		return false
	}
}

// refused says which cause an unsuccessful dial has.
func (s *Dial) refused(ctx context.Context, out *acceptance.Outcome, r pppoe.Result, note func(string)) {
	message := r.Auth.ServerMessage
	if silent(message) {
		message = r.TerminateReason
	}
	code, verdict := diagnosis.DialLCPFailed, acceptance.Fail
	switch r.Outcome {
	case pppoe.NoPADO:
		code = diagnosis.DialNoPADO
		// It answered before it refused; or it answers everybody else.
		if s.o.Refusals.any() || s.ignored(ctx, out, note) {
			code = diagnosis.DialMACBlocked
		}
	case pppoe.PADOError, pppoe.NoMatch, pppoe.NoPADS, pppoe.PADSError:
		code = diagnosis.DialPADSError
		message = errorTexts(r.Errors)
		// Some count sessions before they ask for the account.
		if told := rejectCause(message); told == diagnosis.AccountTooManySessions || told == diagnosis.DialMACBlocked {
			code = told
		}
	case pppoe.LCPNoAnswer, pppoe.LCPRejected, pppoe.LCPNoAgreement, pppoe.AuthUnsupported:
	case pppoe.AuthRejected:
		code = refusal(r, message)
	case pppoe.AuthNoAnswer:
		code = diagnosis.DialAuthNoAnswer
	case pppoe.IPCPNoAnswer, pppoe.IPCPFailed, pppoe.NoAddress:
		code = diagnosis.DialIPCPFailed
	case pppoe.Terminated:
		if silent(message) {
			message = errorTexts(r.Errors)
		}
		code = terminated(r, message)
	case pppoe.EchoLost:
		code = diagnosis.DialDropped
	case pppoe.Loop:
		code = diagnosis.DialLoop
	case pppoe.OK, pppoe.Offered: // not here
		fallthrough
	default:
		code, verdict = diagnosis.AgentCannotMeasure, acceptance.Inconclusive
	}
	if r.Auth.Attempts > 0 && r.Auth.Result != "accepted" {
		s.o.Refusals.add(code)
	}
	grace := time.Duration(0)
	if code == diagnosis.AccountTooManySessions {
		if s.o.Access == AccessBridge {
			// Very likely the customer's own session behind the gateway.
			verdict = acceptance.Inconclusive
		}
		// Or the gateway's, which was dialling too.
		grace = s.o.Grace
	}
	if verdict == acceptance.Fail && s.o.Access != AccessBridge && s.came(ctx, out, grace, note) {
		return
	}
	reason := fmt.Sprintf("%s at %s", r.Outcome, r.Stage)
	if !silent(message) {
		reason += fmt.Sprintf(": %q", s.redact(strings.TrimSpace(message)))
	}
	decide(out, verdict, reason, code)
}

// ignored reports whether somebody answers another address than the gateway's,
// where nobody answers the gateway. It disturbs nobody, but an access network
// may count addresses: the customer must have agreed.
func (s *Dial) ignored(ctx context.Context, out *acceptance.Outcome, note func(string)) bool {
	if !s.o.MayDisturb {
		return false
	}
	r, err := s.o.PPPoE(ctx, pppoe.Options{Interface: s.o.Device, VLAN: s.o.VLAN, DiscoveryOnly: true, Alias: true})
	if err != nil {
		note(err.Error())
		return false
	}
	note(fmt.Sprintf("PADI from another address: %s", r.Outcome))
	answered := r.Outcome == pppoe.Offered
	if answered {
		measured(out, "answers_another_mac", true, "pppoe:"+s.o.Device, "asked from a locally administered address")
	}
	return answered
}

// refusal is the cause of a refusal. One without a word that took longer than
// any AAA takes to refuse was the BRAS's own: its AAA does not answer.
func refusal(r pppoe.Result, message string) diagnosis.Code {
	if silent(message) && r.Auth.Attempts > 0 && r.AuthMs > deadAAAMs {
		return diagnosis.DialAuthNoAnswer
	}
	return rejectCause(message)
}

// silent reports whether a text says nothing.
func silent(text string) bool {
	return strings.TrimFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) == ""
}

// terminated reads at which stage the peer hung up: after the credentials it is
// a refusal by other means.
func terminated(r pppoe.Result, message string) diagnosis.Code {
	code := rejectCause(message)
	told := account(code)
	switch r.Stage {
	case pppoe.StageAuth:
		if r.Auth.Attempts > 0 {
			return refusal(r, message)
		}
	case pppoe.StageIPCP, pppoe.StageIPv6CP:
		if told {
			return code
		}
		return diagnosis.DialIPCPFailed
	case pppoe.StageUp:
		if told {
			return code
		}
		return diagnosis.DialDropped
	case pppoe.StageDiscovery, pppoe.StageSessionSetup, pppoe.StageLCP:
	}
	return diagnosis.DialLCPFailed
}

func errorTexts(tags []pppoe.ErrorTag) string {
	var texts []string
	for _, tag := range tags {
		texts = append(texts, strings.TrimSpace(tag.Name+" "+tag.Text))
	}
	return strings.Join(texts, "; ")
}

// redact takes the order's secrets out of a text: some servers repeat the
// account.
func (s *Dial) redact(text string) string {
	return redact(text, s.o.Username, string(s.o.Password))
}

func (s *Dial) pppoeMeasurements(out *acceptance.Outcome, r pppoe.Result) {
	source := "pppoe:" + s.o.Device
	add := func(name string, v any, note string) {
		measured(out, name, v, source, note)
	}
	say := func(name, text, note string) {
		put(out, saying(name, s.redact(text), source, note))
	}
	add("dial_outcome", string(r.Outcome), fmt.Sprintf("VLAN %d, reached %s", r.VLAN, r.Stage))
	var names []string
	for _, offer := range r.Offers {
		names = append(names, strings.TrimSpace(offer.ACName+" "+offer.MAC))
	}
	say("access_concentrators", strings.Join(names, ", "), "")
	if texts := errorTexts(r.Errors); texts != "" {
		say("pppoe_errors", texts, "")
	}
	if r.Auth.Attempts > 0 {
		add("auth_attempts", r.Auth.Attempts, fmt.Sprintf("%s, %d messages", r.Auth.Protocol, r.Auth.Sends))
		say("server_message", r.Auth.ServerMessage, r.Auth.Result)
	}
	if r.TerminateReason != "" {
		say("terminate_reason", r.TerminateReason, "")
	}
	if r.Address.IsValid() {
		add("dial_address", r.Address.String(), "")
	}
	if r.MTU != 0 {
		add("dial_mtu_bytes", int(r.MTU), "")
	}
	if r.IPv6.Result != "" {
		add("dial_ipv6", r.IPv6.Result, "")
	}
	if r.Echo.Sent > 0 {
		add("lcp_echo_loss_ratio", r.Echo.LossRatio, fmt.Sprintf("of %d", r.Echo.Sent))
	}
	if r.Looped > 0 {
		add("looped", true, fmt.Sprintf("%d of our own frames came back", r.Looped))
	}
	add("dial_ms", r.TotalMs, fmt.Sprintf("discovery %.0f, session %.0f, LCP %.0f, authentication %.0f, IPCP %.0f ms",
		r.DiscoveryMs, r.SessionSetupMs, r.LCPMs, r.AuthMs, r.IPCPMs))
}
