package steps

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/probe/tcp"
	"ontagent/collectors"
)

// ManagementOptions configure the management rung.
type ManagementOptions struct {
	Channel ChannelReader                                                // nil: as the routes say
	ACS     tcp.Options                                                  // without a Host nothing can be tried
	Reach   func(ctx context.Context, o tcp.Options) (tcp.Result, error) // tcp.Run if nil
}

// Management judges whether the operator's management platform (ITMS, RMS) can
// be reached. Whether the platform knows this gateway is its business to say.
type Management struct{ o ManagementOptions }

var _ acceptance.Step = (*Management)(nil)

// NewManagement returns the management rung.
func NewManagement(o ManagementOptions) *Management {
	if o.Reach == nil {
		o.Reach = tcp.Run
	}
	return &Management{o: o}
}

// Rung implements acceptance.Step.
func (*Management) Rung() acceptance.Rung { return acceptance.Management }

// Needs implements acceptance.Step.
func (*Management) Needs() []acceptance.Rung { return []acceptance.Rung{acceptance.Registration} }

// Deadline implements acceptance.Step.
func (s *Management) Deadline() time.Duration { return s.o.ACS.Duration() + slack }

// Estimate implements acceptance.Estimator.
func (*Management) Estimate() time.Duration { return 500 * time.Millisecond }

// Run connects to the ACS.
func (s *Management) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	out := acceptance.Outcome{}
	if s.o.ACS.Host == "" {
		decide(&out, acceptance.Inconclusive, "no ACS is configured", diagnosis.AgentCannotMeasure)
		return out
	}
	channel, ok := readChannel(ctx, s.o.Channel, &out, diagnosis.ManagementUnreachable)
	if !ok {
		return out
	}
	acs := s.o.ACS
	acs.Interface = channel.Interface
	r, err := s.o.Reach(ctx, acs)
	source := fmt.Sprintf("tcp:%s:%d", acs.Host, acs.Port)
	switch {
	case ctx.Err() != nil:
		stopped(ctx, &out)
	case err != nil:
		note(err.Error())
		put(&out, missing("acs_outcome", collectors.StatusError, source, err.Error()))
		decide(&out, acceptance.Inconclusive, fmt.Sprintf("cannot try the ACS: %v", err), diagnosis.AgentCannotMeasure)
	default:
		note(fmt.Sprintf("%s: %s %q %s", source, r.Outcome, r.StatusLine, r.Reason))
		s.judge(&out, r, source)
	}
	return out
}

func (*Management) judge(out *acceptance.Outcome, r tcp.Result, source string) {
	m := value("acs_outcome", string(r.Outcome), source, r.Reason)
	if r.Address.IsValid() {
		m.Note = strings.TrimSpace(r.Address.String() + " " + r.Reason)
	}
	put(out, m)
	if r.HTTPStatus != 0 {
		// A challenge to authenticate is a sign of life as well.
		measured(out, "acs_http_status", r.HTTPStatus, source, r.StatusLine)
	}
	switch r.Outcome {
	case tcp.Open:
		decide(out, acceptance.Pass, "")
	case tcp.Refused, tcp.NoAnswer, tcp.Unreachable, tcp.Reset, tcp.Closed, tcp.Mute, tcp.NotHTTP:
		decide(out, acceptance.Fail, "the ACS cannot be reached: "+string(r.Outcome), diagnosis.ManagementUnreachable)
	case tcp.Unresolved:
		// Many a name is known inside the management network only.
		decide(out, acceptance.Inconclusive, "the ACS's name has no address: "+r.Reason, diagnosis.AgentCannotMeasure)
	default:
		decide(out, acceptance.Inconclusive, fmt.Sprintf("the probe ended as %q", r.Outcome), diagnosis.AgentCannotMeasure)
	}
}
