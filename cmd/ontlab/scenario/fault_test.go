package scenario

import (
	"strings"
	"testing"
)

func TestFaultOfACommandLine(t *testing.T) {
	s, err := Parse("x.yaml", []byte("scenario: x\nexpect: {verdict: pass}\nnetwork: {line: {delay_ms: 7}}"))
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]Params{
		"no_pado":                             {},
		"slow_pado delay_ms=800":              {DelayMS: 800},
		"slow_pado":                           {DelayMS: 3000},
		"rx_power rx_power_dbm=none":          {RxPowerDBm: NoLight()},
		"rx_power rx_power_dbm=-28.5":         {RxPowerDBm: -28.5},
		"account_reject reply=":               {Account: "u1@isp"},
		"account_reject reply=不行":             {Account: "u1@isp", Reply: "不行"},
		"line loss_ratio=0.1 mtu=1400":        {DownMbps: 54, UpMbps: 21.6, DelayMS: 7, LossRatio: 0.1, MTU: 1400, QueueMS: 100},
		"vlan_wrong vlan=50":                  {Service: Internet, VLAN: 50},
		"walled_garden location=https://p/?a": {Location: "https://p/?a"},
	} {
		words := strings.Fields(line)
		m, err := s.Fault(words[0], words[1:])
		if err != nil || m.Fault != words[0] {
			t.Errorf("%s: %q, %v", line, m.Fault, err)
			continue
		}
		if m.Params.Alarms != nil || m.Params.Habits != nil {
			t.Errorf("%s: %+v", line, m.Params)
		}
		if got := m.Params; got.Service != want.Service || got.Line() != want.Line() || got.VLAN != want.VLAN || got.Reply != want.Reply ||
			got.Account != want.Account || got.RxPowerDBm != want.RxPowerDBm || got.Location != want.Location {
			t.Errorf("%s: %+v", line, got)
		}
	}
	if m, err := s.Fault("console_habit", []string{"habits=[hang, nuls]"}); err != nil || len(m.Params.Habits) != 2 {
		t.Errorf("%+v, %v", m, err)
	}
	for line, want := range map[string]string{
		"no_padi":                        "did you mean no_pado?",
		"no_pado delay_ms=3":             "delay_ms: does not belong to fault no_pado",
		"slow_pado delay=3":              "delay: unknown field; did you mean delay_ms?",
		"slow_pado delay_ms":             "is not key=value",
		"slow_pado delay_ms=soon":        "must be a number of ms",
		"slow_pado delay_ms=1 at_s=3":    "at_s: unknown field",
		"rx_power":                       "rx_power_dbm: is missing",
		"sip_silent":                     "needs a voice service",
		"dns_dead resolver=2 resolver=1": "stands twice",
		"second_ac ac_name=[":            "did not find",
		"second_ac ac_name=&a":           "anchors",
		"second_ac ac_name=[a]":          "must be a text",
		"vlan_wrong vlan=41":             "vlan: internet is in VLAN 41 already",
	} {
		words := strings.Fields(line)
		if _, err := s.Fault(words[0], words[1:]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
}
