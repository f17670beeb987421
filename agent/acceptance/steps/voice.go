package steps

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/sip"
	"ontagent/collectors"
)

// VoiceOptions configure the voice rung.
type VoiceOptions struct {
	Channel ChannelReader // nil: as the routes say
	// Probe says whom to ask; with a User and a Password the account is tried
	// as well, in a way that leaves the telephone's registration alone.
	Probe sip.Options
	Ask   func(ctx context.Context, o sip.Options) (sip.Result, error) // sip.Run if nil
}

// Voice judges whether the telephone account can register.
type Voice struct{ o VoiceOptions }

var _ acceptance.Step = (*Voice)(nil)

// NewVoice returns the voice rung.
func NewVoice(o VoiceOptions) *Voice {
	o.Probe.Method = sip.MethodOptions
	if o.Probe.User != "" && o.Probe.Password != "" {
		o.Probe.Method = sip.MethodFetch
	}
	if o.Ask == nil {
		o.Ask = sip.Run
	}
	return &Voice{o: o}
}

// Rung implements acceptance.Step.
func (*Voice) Rung() acceptance.Rung { return acceptance.Voice }

// Needs implements acceptance.Step.
func (*Voice) Needs() []acceptance.Rung { return []acceptance.Rung{acceptance.Registration} }

// Deadline implements acceptance.Step.
func (s *Voice) Deadline() time.Duration { return s.o.Probe.Duration() + slack }

// Estimate implements acceptance.Estimator.
func (*Voice) Estimate() time.Duration { return 500 * time.Millisecond }

// Run asks the registrar. Without the order's account it can only show that the
// registrar is there, which proves no registration: inconclusive.
func (s *Voice) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{}
	if s.o.Probe.Host == "" && !s.o.Probe.Server.Addr().IsValid() {
		decide(&out, acceptance.Inconclusive, "no registrar is configured", diagnosis.AgentCannotMeasure)
		return out
	}
	channel, ok := readChannel(ctx, s.o.Channel, &out, diagnosis.VoiceVLAN)
	if !ok {
		return out
	}
	probe := s.o.Probe
	probe.Interface = channel.Interface
	r, err := s.o.Ask(ctx, probe)
	switch {
	case ctx.Err() != nil:
		stopped(ctx, &out)
	case err != nil:
		note(err.Error())
		put(&out, missing("sip_outcome", collectors.StatusError, "sip:"+or(probe.Host, probe.Server.String()), err.Error()))
		decide(&out, acceptance.Inconclusive, fmt.Sprintf("cannot ask the registrar: %v", err), diagnosis.AgentCannotMeasure)
	default:
		answer := ""
		if r.Code != 0 {
			answer = s.redact(fmt.Sprintf("%d %s", r.Code, r.ReasonText))
		}
		note(fmt.Sprintf("%s to %s: %s %q", r.Method, r.Server, r.Outcome, answer))
		s.judge(&out, r, answer)
	}
	return out
}

// redact takes the account out of a text: some servers repeat it.
func (s *Voice) redact(text string) string {
	return redact(strings.TrimSpace(text), s.o.Probe.User, s.o.Probe.Password)
}

func (s *Voice) judge(out *acceptance.Outcome, r sip.Result, answer string) {
	source := "sip:" + r.Server.String()
	measured(out, "sip_outcome", string(r.Outcome), source, string(r.Method))
	if answer != "" {
		put(out, saying("sip_answer", answer, source, s.redact(r.Warning+" "+r.Reason)))
	}
	if r.OtherContacts != nil {
		measured(out, "sip_contacts", *r.OtherContacts, source, "telephones that are registered now")
	}
	code, says := r.Code, fmt.Sprintf("the registrar says %q", answer)
	switch r.Outcome {
	case sip.NoAnswer, sip.Unreachable, sip.Malformed:
		decide(out, acceptance.Fail, "no answer from the registrar: "+string(r.Outcome), diagnosis.VoiceNoAnswer)
	case sip.Unsupported:
		decide(out, acceptance.Inconclusive, "the registrar wants an authentication that this agent does not know", diagnosis.AgentCannotMeasure)
	case sip.OK, sip.Registered, sip.Challenged, sip.Rejected, sip.Unauthorized, sip.Redirected, sip.ServerError:
		switch {
		case r.Method == sip.MethodOptions || r.Outcome == sip.Challenged:
			// What it thinks of the question says nothing of an account.
			decide(out, acceptance.Inconclusive, says+"; without the order's account no registration can be tried", diagnosis.AgentCannotMeasure)
		case r.Outcome == sip.OK || r.Outcome == sip.Registered:
			decide(out, acceptance.Pass, "")
		case r.Outcome == sip.Unauthorized, code >= 401 && code <= 404, code == 407, code == 410, code >= 600,
			r.Outcome == sip.ServerError && code != 501:
			decide(out, acceptance.Fail, says, diagnosis.VoiceNotRegistered)
		default:
			// It did not take the question, or sends on to somebody else.
			decide(out, acceptance.Inconclusive, says+", which is no word on the account", diagnosis.AgentCannotMeasure)
		}
	default:
		decide(out, acceptance.Inconclusive, fmt.Sprintf("the probe ended as %q", r.Outcome), diagnosis.AgentCannotMeasure)
	}
}
