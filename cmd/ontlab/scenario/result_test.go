package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
)

// fault is a cause of a fault that a rung came to.
func fault(code diagnosis.Code, rung acceptance.Rung) diagnosis.Ranked {
	return diagnosis.Ranked{Code: code, Kind: diagnosis.KindFault, For: []diagnosis.Ref{{Rung: string(rung)}}}
}

func played() (Scenario, Observed) {
	s := Scenario{Name: "x", Expect: Expect{
		Verdict:    acceptance.Fail,
		Rungs:      map[acceptance.Rung]acceptance.Verdict{acceptance.Addressing: acceptance.Skipped, acceptance.Dial: acceptance.Fail},
		FirstCause: diagnosis.DialNoPADO,
		Causes:     []diagnosis.Code{diagnosis.DialNoPADO},
		NotCauses:  []diagnosis.Code{diagnosis.DNSNoAnswer},
		Events:     []string{"gap", "link", "link.carrier", "link.carrier=down"},
		WithinS:    20,
	}}
	o := Observed{
		Verdict: acceptance.Fail,
		Rungs: Rungs{
			{acceptance.Optical, acceptance.Pass}, {acceptance.Dial, acceptance.Fail}, {acceptance.Addressing, acceptance.Skipped},
		},
		Causes:   []diagnosis.Ranked{fault(diagnosis.DialNoPADO, acceptance.Dial), fault(diagnosis.HostCPU, acceptance.Host)},
		Events:   []string{"link.carrier=down", "gap", "gap"},
		Duration: 12_345_678 * time.Microsecond,
		Where:    WhereGuest,
	}
	return s, o
}

func TestResultOfWhatWasExpected(t *testing.T) {
	s, o := played()
	r := Compare(s, o)
	var line bytes.Buffer
	if err := WriteJSON(&line, r); err != nil {
		t.Fatal(err)
	}
	const want = `{"scenario":"x","ok":true,"expected_verdict":"fail","verdict":"fail","expected_cause":"dial.no_pado","first_cause":"dial.no_pado",` +
		`"expected_rungs":{"dial":"fail","addressing":"skipped"},"rungs":{"optical":"pass","dial":"fail","addressing":"skipped"},"duration_s":12.346,` +
		`"where":"guest","causes":["dial.no_pado","host.cpu"],"events":["link.carrier=down","gap"],"mismatches":[]}` + "\n"
	if diff := cmp.Diff(want, line.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var back Result
	if err := json.Unmarshal(line.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, back); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

func TestEachExpectationCanFail(t *testing.T) {
	for want, change := range map[string]func(*Scenario, *Observed){
		"the verdict is pass, expected was fail":                func(_ *Scenario, o *Observed) { o.Verdict = acceptance.Pass },
		"the visit has no verdict":                              func(_ *Scenario, o *Observed) { o.Verdict = "" },
		"rung dial is pass, expected was fail":                  func(_ *Scenario, o *Observed) { o.Rungs[1].Verdict = acceptance.Pass },
		"rung addressing was not climbed, expected was skipped": func(_ *Scenario, o *Observed) { o.Rungs = o.Rungs[:2] },
		"the first cause is host.cpu, expected was dial.no_pado": func(s *Scenario, o *Observed) {
			s.Order.Require = []acceptance.Rung{acceptance.Host}
			slices.Reverse(o.Causes)
		},
		"dns.servfail is not among the causes":                     func(s *Scenario, _ *Observed) { s.Expect.Causes = []diagnosis.Code{diagnosis.DNSServfail} },
		"host.cpu is among the causes":                             func(s *Scenario, _ *Observed) { s.Expect.NotCauses = []diagnosis.Code{diagnosis.HostCPU} },
		"event link.carrier=up did not come":                       func(s *Scenario, _ *Observed) { s.Expect.Events = []string{"link.carrier=up"} },
		"event link.carrie did not come":                           func(s *Scenario, _ *Observed) { s.Expect.Events = []string{"link.carrie"} },
		"event lin did not come":                                   func(s *Scenario, _ *Observed) { s.Expect.Events = []string{"lin"} },
		"event wan did not come":                                   func(s *Scenario, _ *Observed) { s.Expect.Events = []string{"wan"} },
		"the visit took 20.1 s, expected was at most 20 s":         func(_ *Scenario, o *Observed) { o.Duration = 20_100 * time.Millisecond },
		"the first cause is dial.no_pado, expected was none":       func(s *Scenario, _ *Observed) { s.Expect.FirstCause = NoCause },
		"the first cause is none, expected was dial.no_pado":       func(s *Scenario, o *Observed) { o.Causes = o.Causes[1:]; s.Expect.Causes = nil },
		"the first cause is dns.slow, expected was dial.no_pado":   func(s *Scenario, o *Observed) { o.Causes = warnings(); s.Expect.Causes = nil },
		"the first cause is dial.no_pado, expected was dns.hijack": func(s *Scenario, _ *Observed) { s.Expect.FirstCause = diagnosis.DNSHijack },
	} {
		s, o := played()
		change(&s, &o)
		r := Compare(s, o)
		if r.OK || !slices.Equal(r.Mismatches, []string{want}) {
			t.Errorf("ok %v, %q, want %q", r.OK, r.Mismatches, want)
		}
	}
}

// warnings are causes of which none is a fault's.
func warnings() []diagnosis.Ranked {
	return []diagnosis.Ranked{
		{Code: diagnosis.LANWiresUnproven, Kind: diagnosis.KindUnknown, For: []diagnosis.Ref{{Rung: "lan_cabling"}}},
		{Code: diagnosis.DNSSlow, Kind: diagnosis.KindWarning, For: []diagnosis.Ref{{Rung: "dns"}}},
	}
}

func TestNoCauseHoldsBesideWarnings(t *testing.T) {
	s, o := played()
	s.Expect = Expect{Verdict: acceptance.Fail, FirstCause: NoCause}
	o.Causes = append(warnings(), fault(diagnosis.HostMemory, acceptance.Host))
	if r := Compare(s, o); !r.OK || r.FirstCause != "none" || len(r.Causes) != 3 {
		t.Errorf("%+v", r)
	}
	s.Order.Require = []acceptance.Rung{acceptance.Host}
	if r := Compare(s, o); r.OK || r.FirstCause != "host.memory" {
		t.Errorf("%+v", r)
	}
	s.Expect.FirstCause = ""
	s.Order.Require = nil
	if r := Compare(s, o); !r.OK || r.FirstCause != "dns.slow" || r.ExpectedCause != "" {
		t.Errorf("%+v", r)
	}
}

func TestUnplayedIsNeverOK(t *testing.T) {
	s, o := played()
	o.Err = errors.New("no pppd")
	r := Compare(s, o)
	if r.OK || r.Verdict != "" || r.FirstCause != "" || r.Error != "no pppd" || r.ExpectedVerdict != "fail" || len(r.Rungs)+len(r.Mismatches) != 0 {
		t.Errorf("%+v", r)
	}
	var line bytes.Buffer
	if err := WriteJSON(&line, Unplayed("dir/bad.yaml", o.Err)); err != nil {
		t.Fatal(err)
	}
	const want = `{"scenario":"bad","ok":false,"expected_verdict":"","verdict":"","expected_cause":"","first_cause":"","expected_rungs":{},"rungs":{},` +
		`"duration_s":0,"causes":[],"events":[],"mismatches":[],"error":"no pppd"}` + "\n"
	if line.String() != want {
		t.Errorf("got %s", line.String())
	}
}

func TestTableForPeople(t *testing.T) {
	s, o := played()
	bad := o
	bad.Verdict, bad.Causes = acceptance.Pass, nil
	_, err := Parse("broken.yaml", []byte("scenario: broken\ntitel: x\n"))
	var b bytes.Buffer
	if err := WriteTable(&b, []Result{Compare(s, o), Compare(s, bad), Unplayed("broken.yaml", err), Unplayed("a-long-name-of-a-file.yaml", errors.New("said \x1b[2J"))}); err != nil {
		t.Fatal(err)
	}
	compare(t, filepath.Join("testdata", "table.golden"), b.Bytes())
	if strings.Contains(b.String(), "\x1b") {
		t.Error("a terminal is steered")
	}
	if err := WriteTable(failing{}, nil); err == nil {
		t.Error("a full disk is no error")
	}
	if err := WriteJSON(failing{}, Result{}); err == nil {
		t.Error("a full disk is no error")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestRungsFromJSON(t *testing.T) {
	for _, bad := range []string{`[]`, `{"dial":1}`, `{"dial"`, `3`, ``, `{"a":"b"`} {
		var rs Rungs
		if err := rs.UnmarshalJSON([]byte(bad)); err == nil && bad != `{"a":"b"` {
			t.Errorf("%s: %v", bad, rs)
		}
	}
}

func TestDefaultRequire(t *testing.T) {
	for _, tt := range []struct{ services, want string }{
		{"[]", "identity optical registration"},
		{"[{kind: internet}]", "identity optical registration dial addressing dns reachability"},
		{"[{kind: internet, access: ipoe}]", "identity optical registration dial addressing dns reachability"},
		{"[{kind: internet, access: bridge}]", "identity optical registration dial"},
		{"[{kind: management}, {kind: iptv}]", "identity optical registration iptv management"},
		{"[{kind: voice}, {kind: internet}, {kind: iptv}, {kind: management}]", "identity optical registration dial addressing dns reachability iptv voice management"},
	} {
		s, err := Parse("x.yaml", []byte("scenario: x\nexpect: {verdict: pass}\nservices: "+tt.services))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(names(s.Order.Require), " "); got != tt.want {
			t.Errorf("%s: %s", tt.services, got)
		}
	}
	ladder := acceptance.Ladder()
	for _, rung := range BuiltRungs() {
		if !slices.Contains(ladder, rung) {
			t.Errorf("%s is not on the ladder", rung)
		}
	}
}

func TestDerivedDefaults(t *testing.T) {
	s, err := Parse("x.yaml", []byte(`
scenario: x
order: {sn: "", thresholds: {cpu.max: 0.5}}
services:
  - {kind: internet, access: bridge, down_mbps: 30, up_mbps: 10, account: a@b, password: c}
  - {kind: iptv, vlan: 60, rate_mbps: 5}
network:
  accounts: [{account: a@b, state: suspended}, {account: d, password: e, state: binding, reply: mine}]
  line: {delay_ms: 20}
  aaa: {session_limit: full}
timeline:
  - {fault: line, loss_ratio: 0.1}
  - {fault: session_limit}
  - {fault: account_reject}
  - {fault: pon_state, state: O5}
  - {fault: pon_state, state: O2}
  - {fault: rx_power, rx_power_dbm: none}
expect: {verdict: pass}
`))
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]bool{
		"the serial number is not stated":    s.Order.SN == "",
		"the MAC is the gateway's":           s.Order.MAC == s.Gateway.MAC,
		"what the order says counts":         s.Order.Thresholds["cpu.max"] == 0.5 && s.Order.Thresholds["memory.max"] == 2,
		"a PC dials behind a bridge":         s.Services[0].Behind == PPPoE && s.Gateway.Internet.MTU == 1492 && s.Gateway.Internet.Account == "a@b",
		"the line has headroom":              s.Network.Line.DownMbps == 37.8 && s.Network.Line.UpMbps == 10.8,
		"the ordered password":               s.Network.Accounts[0].Password == "c" && s.Network.Accounts[0].Reply == "状态错",
		"a reply of its own":                 s.Network.Accounts[1].Reply == "mine",
		"VLANs are those of the order":       s.Network.VLANs[IPTV] == 60 && s.Network.VLANs[Internet] == 41 && len(s.Network.VLANs) == 2,
		"a line changes in what is said":     s.Timeline[0].Params.Line() == Line{37.8, 10.8, 20, 0, 0.1, 0, 0, 100, 1508},
		"the reply of the AAA":               s.Timeline[1].Params.Reply == "full",
		"the ordered account is rejected":    s.Timeline[2].Params.Account == "a@b" && s.Timeline[2].Params.Reply == "状态错",
		"OMCI follows the state":             s.Timeline[3].Params.OMCI && !s.Timeline[4].Params.OMCI,
		"darkness":                           s.Timeline[5].Params.RxPowerDBm == NoLight(),
		"entries know where they stand":      s.Timeline[0].Line == 12 && s.Timeline[5].Line == 17,
		"a title":                            s.Title == "x",
		"parameters of others are not there": s.Timeline[5].Params.VLAN == 0 && s.Timeline[5].Params.Resolver == 0,
	} {
		if !got {
			t.Errorf("not so: %s", what)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"no_pado", "slow_pado", "dns_dead", "dns_slow", "line", "account.wrong_password", "O5"}
	for word, want := range map[string]string{
		"no_padi": "no_pado", "nopado": "no_pado", "NO_PADO": "no_pado", "dns_deda": "dns_dead", "lnie": "line", "password": "account.wrong_password",
		"dns": "", "zzz": "", "": "", "o5": "O5", "x": "", strings.Repeat("line", 100): "",
	} {
		if got := didYouMean(word, known); got != want {
			t.Errorf("%.20s: %q, want %q", word, got, want)
		}
	}
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"abc", "abc", 0}, {"a", "bcd", 3}, {"abcd", "badc", 2}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
