package main

import (
	"slices"
	"testing"

	"ontagent/agent/acceptance"
	"ontagent/agent/order"
	"ontagent/config"
)

func TestLadderTriesWhatWasOrdered(t *testing.T) {
	c := config.Default()
	s, err := openSources(c, newLogger(t.Output(), "error"))
	if err != nil {
		t.Fatal(err)
	}
	internet := []acceptance.Rung{acceptance.Dial, acceptance.Addressing, acceptance.DNS, acceptance.Reachability}
	for _, test := range []struct {
		name     string
		services []string
		require  []string
		internet bool
		others   []acceptance.Rung
	}{
		{name: "nothing is known", internet: true},
		{name: "internet", services: []string{"internet"}, internet: true},
		{name: "television alone", services: []string{"iptv"}, others: []acceptance.Rung{acceptance.IPTV}},
		{name: "all", services: []string{"internet", "iptv", "voice", "management"}, internet: true, others: []acceptance.Rung{acceptance.IPTV, acceptance.Voice, acceptance.Management}},
		{name: "voice required, not ordered", services: []string{"internet"}, require: []string{"voice"}, internet: true, others: []acceptance.Rung{acceptance.Voice}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := order.Order{Require: test.require}
			for _, kind := range test.services {
				o.Services = append(o.Services, order.Service{Kind: kind})
			}
			var built []acceptance.Rung
			for _, step := range s.ladder(c)(o, order.Secrets{}, acceptance.Norms()) {
				built = append(built, step.Rung())
			}
			for _, rung := range internet {
				if slices.Contains(built, rung) != test.internet {
					t.Errorf("%s: built %v", rung, built)
				}
			}
			for _, rung := range []acceptance.Rung{acceptance.IPTV, acceptance.Voice, acceptance.Management} {
				if slices.Contains(built, rung) != slices.Contains(test.others, rung) {
					t.Errorf("%s: built %v", rung, built)
				}
			}
		})
	}
}
