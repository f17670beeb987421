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
	internet := []acceptance.Rung{acceptance.Addressing, acceptance.DNS, acceptance.Reachability}
	for _, test := range []struct {
		name     string
		services []string
		require  []string
		access   string
		dial     bool
		internet bool
		others   []acceptance.Rung
	}{
		{name: "nothing is known", dial: true, internet: true},
		{name: "internet", services: []string{"internet"}, dial: true, internet: true},
		{name: "a bridged line", services: []string{"internet"}, access: "bridge", dial: true},
		{name: "addresses required of a bridged line", services: []string{"internet"}, access: "bridge", require: []string{"addressing", "dns", "reachability"}, dial: true, internet: true},
		{name: "television alone", services: []string{"iptv"}, others: []acceptance.Rung{acceptance.IPTV}},
		{name: "all", services: []string{"internet", "iptv", "voice", "management"}, dial: true, internet: true, others: []acceptance.Rung{acceptance.IPTV, acceptance.Voice, acceptance.Management}},
		{name: "voice required, not ordered", services: []string{"internet"}, require: []string{"voice"}, dial: true, internet: true, others: []acceptance.Rung{acceptance.Voice}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := order.Order{Require: test.require}
			for _, kind := range test.services {
				o.Services = append(o.Services, order.Service{Kind: kind, Access: test.access})
			}
			var built []acceptance.Rung
			for _, step := range s.ladder(c)(o, order.Secrets{}, acceptance.Norms()) {
				built = append(built, step.Rung())
			}
			if slices.Contains(built, acceptance.Dial) != test.dial {
				t.Errorf("dial: built %v", built)
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
