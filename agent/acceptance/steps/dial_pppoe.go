package steps

import (
	"context"
	"fmt"
	"strings"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/pppoe"
	"ontagent/collectors"
)

// dial dials, or only looks for offers: while the gateway is online, without
// credentials, and on a bridged line without consent.
func (s *Dial) dial(ctx context.Context, out *acceptance.Outcome, online bool, note func(string)) {
	o := pppoe.Options{
		Interface: s.o.Device, VLAN: s.o.VLAN, Username: s.o.Username, Password: s.o.Password,
		MaxPayload: 1500, IPv6: true,
		DiscoveryOnly: online || s.o.Username == "" || s.o.Access == AccessBridge && !s.o.MayDisturb,
	}
	r, err := s.o.PPPoE(ctx, o)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		note(err.Error())
		out.Measurements = append(out.Measurements, missing("dial_outcome", collectors.StatusError, "pppoe:"+s.o.Device, err.Error()))
		if online {
			decide(out, acceptance.Pass, "")
			return
		}
		decide(out, acceptance.Inconclusive, fmt.Sprintf("cannot dial: %v", err), diagnosis.AgentCannotMeasure)
		return
	}
	s.pppoeMeasurements(out, r)
	note(fmt.Sprintf("PPPoE on %s, VLAN %d: %s at %s after %.0f ms", s.o.Device, s.o.VLAN, r.Outcome, r.Stage, r.TotalMs))
	switch {
	case online:
		// The gateway's own session is the proof; some networks answer no
		// second PADI from the same address.
		decide(out, acceptance.Pass, "")
	case r.Outcome == pppoe.Offered && s.o.Access == AccessBridge && s.o.Username != "":
		decide(out, acceptance.Inconclusive, "the BRAS answers; a bridged line is not dialled without the customer's consent", diagnosis.DialNoCredentials)
	case r.Outcome == pppoe.Offered:
		decide(out, acceptance.Inconclusive, "the BRAS answers; without the order's account nothing more can be tried", diagnosis.DialNoCredentials)
	case r.Outcome == pppoe.OK && s.o.Access == AccessBridge:
		decide(out, acceptance.Pass, "")
	case r.Outcome == pppoe.OK:
		s.follow(ctx, out, note, "a test dial with the order's account succeeds, the gateway itself stays offline")
	default:
		s.refused(out, r)
	}
	if len(r.Offers) > 1 {
		warn(out, diagnosis.DialSeveralServers)
	}
}

// refused says which cause an unsuccessful dial has.
func (s *Dial) refused(out *acceptance.Outcome, r pppoe.Result) {
	message := r.Auth.ServerMessage
	if message == "" {
		message = r.TerminateReason
	}
	code, verdict := diagnosis.DialLCPFailed, acceptance.Fail
	switch r.Outcome {
	case pppoe.OK, pppoe.Offered: // not here
	case pppoe.NoPADO:
		code = diagnosis.DialNoPADO
	case pppoe.PADOError, pppoe.NoMatch, pppoe.NoPADS, pppoe.PADSError:
		code = diagnosis.DialPADSError
		message = errorTexts(r.Errors)
		// Some put what AAA said into the tag.
		if told := rejectCause(message); message != "" && told == diagnosis.AccountTooManySessions {
			code = told
		}
	case pppoe.LCPNoAnswer, pppoe.LCPRejected, pppoe.LCPNoAgreement, pppoe.AuthUnsupported:
	case pppoe.AuthRejected:
		code = rejectCause(message)
	case pppoe.AuthNoAnswer:
		code = diagnosis.DialAuthNoAnswer
	case pppoe.IPCPNoAnswer, pppoe.IPCPFailed, pppoe.NoAddress:
		code = diagnosis.DialIPCPFailed
	case pppoe.Terminated:
		code = terminated(r, message)
	case pppoe.EchoLost:
		code = diagnosis.DialDropped
	case pppoe.Loop:
		code = diagnosis.DialLoop
	default:
		code, verdict = diagnosis.AgentCannotMeasure, acceptance.Inconclusive
	}
	if code == diagnosis.AccountTooManySessions && s.o.Access == AccessBridge {
		// Very likely the customer's own session behind the gateway.
		verdict = acceptance.Inconclusive
	}
	reason := fmt.Sprintf("%s at %s", r.Outcome, r.Stage)
	if message = strings.TrimSpace(message); message != "" {
		reason += fmt.Sprintf(": %q", message)
	}
	decide(out, verdict, reason, code)
}

// terminated reads at which stage the peer hung up: after the credentials it is
// a refusal by other means.
func terminated(r pppoe.Result, message string) diagnosis.Code {
	code := rejectCause(message)
	switch {
	case code != diagnosis.DialAuthFailed:
		return code
	case r.Stage == pppoe.StageAuth:
		return diagnosis.DialAuthFailed
	case r.Stage == pppoe.StageIPCP || r.Stage == pppoe.StageIPv6CP:
		return diagnosis.DialIPCPFailed
	case r.Stage == pppoe.StageUp:
		return diagnosis.DialDropped
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

func (s *Dial) pppoeMeasurements(out *acceptance.Outcome, r pppoe.Result) {
	source := "pppoe:" + s.o.Device
	add := func(name string, v any, note string) {
		out.Measurements = append(out.Measurements, value(name, v, source, note))
	}
	add("dial_outcome", string(r.Outcome), "reached "+string(r.Stage))
	var names []string
	for _, offer := range r.Offers {
		names = append(names, strings.TrimSpace(offer.ACName+" "+offer.MAC))
	}
	add("access_concentrators", strings.Join(names, ", "), "")
	if texts := errorTexts(r.Errors); texts != "" {
		add("pppoe_errors", texts, "")
	}
	if r.Auth.Attempts > 0 {
		add("auth_attempts", r.Auth.Attempts, r.Auth.Protocol)
		m := value("server_message", r.Auth.ServerMessage, source, r.Auth.Result)
		m.Raw = r.Auth.ServerMessageHex
		out.Measurements = append(out.Measurements, m)
	}
	if r.Address.IsValid() {
		add("dial_address", r.Address.String(), "")
		add("dial_mtu_bytes", int(r.MTU), "")
	}
	if r.Echo.Sent > 0 {
		add("lcp_echo_loss_ratio", r.Echo.LossRatio, fmt.Sprintf("of %d", r.Echo.Sent))
	}
	add("dial_ms", r.TotalMs, fmt.Sprintf("discovery %.0f, session %.0f, LCP %.0f, authentication %.0f, IPCP %.0f ms",
		r.DiscoveryMs, r.SessionSetupMs, r.LCPMs, r.AuthMs, r.IPCPMs))
}
