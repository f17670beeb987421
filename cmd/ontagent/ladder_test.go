package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ontagent/agent"
	"ontagent/agent/acceptance"
	"ontagent/agent/order"
	"ontagent/agent/probe/throughput"
	"ontagent/config"
)

// untold is a clock that cannot be relied on.
func untold() (time.Time, bool) { return time.Time{}, false }

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
			for _, step := range s.ladder(c, untold)(agent.Visit{Order: o, Limits: acceptance.Norms()}) {
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

// TestLadderTestsTheSpeedWhereItIsRequired: a speed test costs traffic, and
// slows the customer down.
func TestLadderTestsTheSpeedWhereItIsRequired(t *testing.T) {
	c := config.Default()
	s, err := openSources(c, newLogger(t.Output(), "error"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		require []acceptance.Rung
		access  string
		want    bool
	}{
		{name: "nothing", want: false},
		{name: "an inspection", require: acceptance.DefaultRequire("inspect", []string{"internet"})},
		{name: "a repair", require: acceptance.DefaultRequire("repair", []string{"internet"})},
		{name: "an installation", require: acceptance.DefaultRequire("install", []string{"internet"}), want: true},
		{name: "an installation of a bridged line", require: acceptance.DefaultRequire("install", []string{"internet"}), access: "bridge", want: true},
		{name: "by name", require: []acceptance.Rung{acceptance.Throughput}, want: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := order.Order{Services: []order.Service{{Kind: "internet", Access: test.access}}}
			for _, rung := range test.require {
				o.Require = append(o.Require, string(rung))
			}
			built := s.ladder(c, untold)(agent.Visit{Order: o, Limits: acceptance.Norms()})
			plan, err := acceptance.NewPlan(test.require, built)
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Contains(plan.Rungs(), acceptance.Throughput); got != test.want {
				t.Errorf("planned %v", plan.Rungs())
			}
			if !slices.ContainsFunc(built, func(s acceptance.Step) bool { return s.Rung() == acceptance.Throughput }) {
				t.Error("it would be said not to be supported")
			}
		})
	}
}

func TestSpeedTestIsTheOrders(t *testing.T) {
	c, _, err := config.Parse("test.conf", []byte(`config main
	option device 'ONT0123456789'
config wan
	option interface 'pppoe-wan'
config throughput
	option url 'http://speed.example.net/1g'
	option upload_url 'http://speed.example.net/upload'
	option upload_method 'PUT'
	option second_url 'http://other.example.net/1g'
	option connections '8'
	option window '5'
`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := openSources(c, newLogger(t.Output(), "error"))
	if err != nil {
		t.Fatal(err)
	}
	same := cmpopts.IgnoreFields(throughput.Options{}, "Resolve", "Line", "Note")
	base := throughput.Options{
		URL: "http://speed.example.net/1g", UploadURL: "http://speed.example.net/upload", UploadMethod: "PUT",
		SecondURL: "http://other.example.net/1g", Connections: 8, Window: 5 * time.Second, Interface: "pppoe-wan",
	}
	for _, test := range []struct {
		name   string
		o      order.Order
		change func(*throughput.Options)
	}{
		{"an order without services", order.Order{MaxBytes: 7}, func(o *throughput.Options) { o.MaxBytes = 7 }},
		{"television alone", order.Order{Services: []order.Service{{Kind: "iptv", Access: "ipoe", VLAN: 45}}}, func(*throughput.Options) {}},
		{"the internet", order.Order{
			MaxBytes: 1 << 40, Consents: []string{order.ConsentCustomerSettings, order.ConsentDisturb},
			Services: []order.Service{{Kind: "voice"}, {Kind: "internet", Access: "pppoe", VLAN: 41, DownMbps: 500, UpMbps: 50.5, RateLayer: "ethernet"}},
		}, func(o *throughput.Options) {
			o.MaxBytes, o.MayDisturb, o.Layer = 1<<40, true, throughput.LayerEthernet
			o.ContractDownMbps, o.ContractUpMbps = 500, 50.5
			o.Encapsulation = throughput.Encapsulation{PPPoE: true, VLANTags: 1}
		}},
		{"without consent", order.Order{
			Consents: []string{order.ConsentCustomerSettings}, Services: []order.Service{{Kind: "internet", Access: "ipoe", DownMbps: 100}},
		}, func(o *throughput.Options) { o.ContractDownMbps = 100 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := base
			test.change(&want)
			got := s.speedTest(c, test.o)
			if diff := cmp.Diff(want, got, same); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Resolve == nil || got.Line == nil {
				t.Error("it can look nothing up, or watch nothing")
			}
		})
	}
}

func TestIsRadio(t *testing.T) {
	sys := t.TempDir()
	for _, dir := range []string{"wlan0/phy80211", "eth0"} {
		if err := os.MkdirAll(filepath.Join(sys, "class/net", dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"wlan0": true, "eth0": false, "gone0": false, "": false} {
		if isRadio(sys, name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}
