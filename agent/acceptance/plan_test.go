package acceptance_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/acceptance"
)

// step is a Step of function fields.
type step struct {
	rung     acceptance.Rung
	needs    []acceptance.Rung
	deadline time.Duration
	disturbs bool
	run      func(ctx context.Context, note func(string)) acceptance.Outcome
}

func (s step) Rung() acceptance.Rung    { return s.rung }
func (s step) Needs() []acceptance.Rung { return s.needs }
func (s step) Disturbs() bool           { return s.disturbs }

func (s step) Deadline() time.Duration {
	if s.deadline == 0 {
		return time.Minute
	}
	return s.deadline
}

func (s step) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	if s.run == nil {
		return acceptance.Outcome{Verdict: acceptance.Pass}
	}
	return s.run(ctx, note)
}

func TestPlanOrdersRungs(t *testing.T) {
	plan, err := acceptance.NewPlan(
		[]acceptance.Rung{acceptance.Throughput, acceptance.Optical, acceptance.DNS, acceptance.Optical},
		[]acceptance.Step{
			step{rung: acceptance.Host},
			step{rung: acceptance.DNS, needs: []acceptance.Rung{acceptance.Addressing}},
			step{rung: acceptance.Voice, disturbs: true}, // disturbs and is not required
			step{rung: acceptance.Dial, disturbs: true},
			step{rung: acceptance.Optical},
		})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]acceptance.Rung{acceptance.Optical, acceptance.DNS, acceptance.Throughput, acceptance.Host}, plan.Rungs()); diff != "" {
		t.Errorf("rungs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]acceptance.Rung{acceptance.Optical, acceptance.DNS, acceptance.Throughput}, plan.Required()); diff != "" {
		t.Errorf("required (-want +got):\n%s", diff)
	}

	plan, err = acceptance.NewPlan([]acceptance.Rung{acceptance.Dial}, []acceptance.Step{step{rung: acceptance.Dial, disturbs: true}})
	if err != nil || len(plan.Rungs()) != 1 {
		t.Errorf("a disturbing step that is required: %v, %v", plan.Rungs(), err)
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, tt := range []struct {
		name     string
		required []acceptance.Rung
		steps    []acceptance.Step
		unknown  bool
	}{
		{"unknown required rung", []acceptance.Rung{"wifi"}, nil, true},
		{"empty rung", []acceptance.Rung{""}, nil, true},
		{"step for an unknown rung", nil, []acceptance.Step{step{rung: "wifi"}}, true},
		{"two steps for a rung", nil, []acceptance.Step{step{rung: acceptance.DNS}, step{rung: acceptance.DNS}}, false},
		{"a need above", nil, []acceptance.Step{step{rung: acceptance.Optical, needs: []acceptance.Rung{acceptance.DNS}}}, false},
		{"a need of itself", nil, []acceptance.Step{step{rung: acceptance.DNS, needs: []acceptance.Rung{acceptance.DNS}}}, false},
		{"an unknown need", nil, []acceptance.Step{step{rung: acceptance.DNS, needs: []acceptance.Rung{"wifi"}}}, false},
	} {
		_, err := acceptance.NewPlan(tt.required, tt.steps)
		if err == nil || errors.Is(err, acceptance.ErrUnknownRung) != tt.unknown {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestDefaultRequire(t *testing.T) {
	for _, tt := range []struct {
		typ   string
		kinds []string
		want  []acceptance.Rung
	}{
		{"install", []string{"internet", "iptv", "voice", "management"}, []acceptance.Rung{
			"identity", "optical", "registration", "lan_cabling", "dial", "addressing", "dns", "reachability", "account", "throughput",
			"iptv", "voice", "management", "host",
		}},
		{"move", nil, []acceptance.Rung{
			"identity", "optical", "registration", "lan_cabling", "dial", "addressing", "dns", "reachability", "account", "throughput", "host",
		}},
		{"install", []string{"iptv"}, []acceptance.Rung{"identity", "optical", "registration", "lan_cabling", "iptv", "host"}},
		{"repair", []string{"internet", "voice", "management"}, []acceptance.Rung{
			"identity", "optical", "registration", "lan_cabling", "addressing", "dns", "reachability", "voice", "host",
		}},
		{"inspect", []string{"internet", "iptv"}, []acceptance.Rung{"optical", "registration", "addressing", "dns", "reachability", "host"}},
		{"other", nil, []acceptance.Rung{"optical", "registration", "addressing", "dns", "reachability", "host"}},
		{"", []string{"hologram"}, []acceptance.Rung{"optical", "registration", "host"}},
	} {
		if diff := cmp.Diff(tt.want, acceptance.DefaultRequire(tt.typ, tt.kinds)); diff != "" {
			t.Errorf("%s %v (-want +got):\n%s", tt.typ, tt.kinds, diff)
		}
	}
}
