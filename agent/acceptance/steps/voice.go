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
	Ask   func(ctx context.Context, o sip.Options) (sip.Result, error)
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
	return &Voice{o: o}
}

// Rung implements acceptance.Step.
func (*Voice) Rung() acceptance.Rung { return acceptance.Voice }

// Needs implements acceptance.Step.
func (*Voice) Needs() []acceptance.Rung { return []acceptance.Rung{acceptance.Registration} }

// Deadline implements acceptance.Step.
func (s *Voice) Deadline() time.Duration { return s.o.Probe.Duration() + time.Second }

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
		out.Measurements = append(out.Measurements, missing("sip_outcome", collectors.StatusError, "sip", err.Error()))
		decide(&out, acceptance.Inconclusive, fmt.Sprintf("cannot ask the registrar: %v", err), diagnosis.AgentCannotMeasure)
	default:
		answer := strings.TrimSpace(fmt.Sprintf("%d %s", r.Code, r.ReasonText))
		if r.Code == 0 {
			answer = ""
		}
		note(fmt.Sprintf("%s to %s: %s %s", r.Method, r.Server, r.Outcome, answer))
		s.judge(&out, r, answer)
	}
	return out
}

func (s *Voice) judge(out *acceptance.Outcome, r sip.Result, answer string) {
	source := "sip:" + r.Server.String()
	out.Measurements = append(out.Measurements, value("sip_outcome", string(r.Outcome), source, string(r.Method)))
	if answer != "" {
		out.Measurements = append(out.Measurements, value("sip_answer", answer, source, strings.TrimSpace(r.Warning+" "+r.Reason)))
	}
	switch r.Outcome {
	case sip.OK, sip.Registered:
		if r.Method == sip.MethodOptions {
			decide(out, acceptance.Inconclusive, "the registrar answers; without the order's account no registration can be tried", diagnosis.AgentCannotMeasure)
			return
		}
		decide(out, acceptance.Pass, "")
	case sip.Challenged:
		decide(out, acceptance.Inconclusive, "the registrar answers; without the order's account no registration can be tried", diagnosis.AgentCannotMeasure)
	case sip.Rejected, sip.Unauthorized, sip.Redirected, sip.ServerError:
		decide(out, acceptance.Fail, fmt.Sprintf("the registrar says %q", answer), diagnosis.VoiceNotRegistered)
	case sip.NoAnswer, sip.Unreachable, sip.Malformed:
		decide(out, acceptance.Fail, "no answer from the registrar: "+string(r.Outcome), diagnosis.VoiceNoAnswer)
	case sip.Unsupported:
		decide(out, acceptance.Inconclusive, "the registrar wants an authentication that this agent does not know", diagnosis.AgentCannotMeasure)
	default:
		decide(out, acceptance.Inconclusive, fmt.Sprintf("the probe ended as %q", r.Outcome), diagnosis.AgentCannotMeasure)
	}
}
