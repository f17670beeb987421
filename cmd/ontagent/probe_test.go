package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/probe/cable"
	"ontagent/agent/probe/dhcp"
	"ontagent/agent/probe/dns"
	"ontagent/agent/probe/http"
	"ontagent/agent/probe/mtu"
	"ontagent/agent/probe/multicast"
	"ontagent/agent/probe/ntp"
	"ontagent/agent/probe/ping"
	"ontagent/agent/probe/pppoe"
	"ontagent/agent/probe/sip"
	"ontagent/agent/probe/tcp"
	"ontagent/cmd/cli"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden holds what was printed against a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "probe", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// newProbing is a run of a probe whose flags are declared.
func newProbing(t *testing.T, name string, out *bytes.Buffer) *probing {
	t.Helper()
	p := &probing{app: &app{out: out, err: out}, name: name}
	prepare := p.prepare()
	if prepare == nil {
		t.Fatalf("no probe %s", name)
	}
	prepare(p)
	p.head.Probe = name
	return p
}

func TestProbeHelp(t *testing.T) {
	code, out, errs := ontagent(t, "probe")
	if code != cli.OK || errs != "" {
		t.Errorf("exit code %d: %s", code, errs)
	}
	golden(t, "list.txt", out)
	for _, k := range probes {
		code, out, errs := ontagent(t, "probe", k.name, "--help")
		if code != cli.OK || errs != "" {
			t.Errorf("%s: exit code %d: %s", k.name, code, errs)
		}
		golden(t, k.name+".help.txt", out)
	}
}

// What --help says of a flag must be what the flag is.
func TestProbeFlagsAreAsDescribed(t *testing.T) {
	for _, k := range probes {
		p := newProbing(t, k.name, &bytes.Buffer{})
		if n := strings.Count(p.spec, "  --"); n != len(p.flags) {
			t.Errorf("%s: %d flags are described, %d are there", k.name, n, len(p.flags))
		}
		seen := map[string]bool{}
		for _, f := range p.flags {
			if f.name == "" || seen[f.name] {
				t.Errorf("%s: flag %q is there twice or has no name", k.name, f.name)
			}
			seen[f.name] = true
			want := ""
			switch f.to.(type) {
			case *bool:
				want = ""
			case *int, *uint8, *uint16:
				want = ".."
			case *time.Duration:
				want = "SECONDS"
			case *netip.Addr:
				want = "ADDRESS"
			case *[]string:
				want = ",…"
			case *string:
				if f.takes == "" {
					t.Errorf("%s --%s takes a value that is not described", k.name, f.name)
				}
			default:
				t.Errorf("%s --%s sets a %T", k.name, f.name, f.to)
			}
			if _, isBool := f.to.(*bool); isBool != (f.takes == "") || !strings.Contains(f.takes, want) {
				t.Errorf("%s --%s takes %q and sets a %T", k.name, f.name, f.takes, f.to)
			}
		}
	}
}

func TestProbeFlagValues(t *testing.T) {
	for _, tc := range []struct {
		args string
		says string // of the error
	}{
		{"pppoe --interface x0 --vlan 4095", "-vlan: must be 0..4094"},
		{"pppoe --interface x0 --vlan -1", "-vlan: must be 0..4094"},
		{"pppoe --interface x0 --vlan 1e2", "-vlan"},
		{"pppoe --interface x0 --attempts 3", "-attempts: must be 1..2"},
		{"pppoe --interface x0 --timeout NaN", "-timeout: must be SECONDS"},
		{"pppoe --interface x0 --timeout -1", "-timeout: must be SECONDS"},
		{"pppoe --interface x0 --timeout 1e9", "-timeout: must be SECONDS"},
		{"pppoe", "--interface is needed"},
		{"pppoe --interface x0 --user u", "--password-file is needed"},
		{"pppoe --interface x0 --force=maybe", "-force"},
		{"dhcp --interface x0 --mac 02:00:00:00:00", "-mac: must be six bytes"},
		{"dhcp --interface x0 --mac hello", "-mac"},
		{"dns --resolver 192.0.2.1,example", "-resolver: must be ADDRESS"},
		{"dns --resolver 192.0.2.1,", "-resolver"},
		{"dns --attempts 0", "-attempts: must be 1..10"},
		{"ping --target", "-target"},
		{"ping --count 1001", "-count: must be 1..1000"},
		{"mtu --expected 67", "-expected: must be 68..65535"},
		{"mtu --port 65536", "-port: must be 1..65535"},
		{"http --url https://example.net/", "-url: must be an http:// URL"},
		{"http", "--url is needed"},
		{"multicast --interface x0", "--group is needed"},
		{"multicast --interface x0 --group 192.0.2.1", "-group: must be a multicast address"},
		{"multicast --interface x0 --group nobody", "-group: must be ADDRESS"},
		{"multicast --interface x0 --group 239.1.1.1 --mode both", "-mode: must be kernel|frame"},
		{"sip", "--server is needed"},
		{"sip --server 192.0.2.1 --method invite", "-method: must be options|fetch|register"},
		{"sip --server 192.0.2.1 --method kernel|frame", "-method"},
		{"sip --server 192.0.2.1 --method fetch", "--user is needed"},
		{"sip --server 192.0.2.1 --transport tls", "-transport: must be udp|tcp"},
		{"ntp", "--server is needed"},
		{"tcp --port 80", "--host is needed"},
		{"tcp --host 192.0.2.1", "--port is needed"},
		{"acs", "--url is needed"},
		{"acs --url ftp://192.0.2.1/", "-url: must be"},
		{"acs --url http://", "-url: must be"},
		{"cable", "--interface is needed"},
		{"cable --interface x0 stray", "beside the flags"},
		{"cable --bogus", "not defined: -bogus"},
		{"cable --config /nope --interface x0", "cannot read configuration /nope"},
		{"bogus", `unknown probe "bogus"`},
		{"--json ping", "name of a probe comes first"},
	} {
		code, out, errs := ontagent(t, append([]string{"probe"}, strings.Fields(tc.args)...)...)
		if code != cli.Usage || !strings.Contains(errs, tc.says) || out != "" {
			t.Errorf("probe %s: exit code %d, says %q %q, want %q", tc.args, code, out, errs, tc.says)
		}
	}
}

// setTo gives flags values, and returns what they set.
func setTo(t *testing.T, probe string, args ...string) map[string]any {
	t.Helper()
	p := newProbing(t, probe, &bytes.Buffer{})
	if err := p.parse(args); err != nil {
		t.Fatal(err)
	}
	set := map[string]any{}
	for _, f := range p.flags {
		switch to := f.to.(type) {
		case *string:
			set[f.name] = *to
		case *bool:
			set[f.name] = *to
		case *int:
			set[f.name] = *to
		case *uint16:
			set[f.name] = int(*to)
		case *uint8:
			set[f.name] = int(*to)
		case *time.Duration:
			set[f.name] = *to
		case *netip.Addr:
			set[f.name] = to.String()
		case *[]string:
			set[f.name] = strings.Join(*to, " ")
		}
	}
	return set
}

func TestProbeFlagsSetWhatTheySay(t *testing.T) {
	for _, tc := range []struct {
		probe, flag, value string
		want               any
	}{
		{"pppoe", "vlan", "4094", 4094},
		{"pppoe", "priority", "7", 7},
		{"pppoe", "echoes", "1000", 1000},
		{"pppoe", "echo-interval", "0.05", 50 * time.Millisecond},
		{"pppoe", "timeout", "300", 5 * time.Minute},
		{"pppoe", "user", "u 1@isp", "u 1@isp"},
		{"pppoe", "discovery", "true", true},
		{"pppoe", "ipv6", "false", false},
		{"dhcp", "prefix", "true", true},
		{"dns", "resolver", "192.0.2.1,[2001:db8::1]:5353", "192.0.2.1 [2001:db8::1]:5353"},
		{"dns", "name", "a.example,b.example", "a.example b.example"},
		{"mtu", "port", "65535", 65535},
		{"multicast", "group", "ff3e::1", "ff3e::1"},
		{"multicast", "mode", "frame", "frame"},
		{"sip", "method", "options", "options"},
		{"sip", "method", "fetch", "fetch"},
		{"sip", "method", "register", "register"},
		{"sip", "transport", "tcp", "tcp"},
	} {
		if got := setTo(t, tc.probe, "--"+tc.flag+"="+tc.value)[tc.flag]; got != tc.want {
			t.Errorf("%s --%s %s sets %v, want %v", tc.probe, tc.flag, tc.value, got, tc.want)
		}
	}
	if got := setTo(t, "dns", "--name", "a.example", "--name", "b.example")["name"]; got != "a.example b.example" {
		t.Errorf("given twice, --name is %v", got)
	}
}

// What the flags leave open is as the configuration says.
func TestProbeDefaults(t *testing.T) {
	_, path := home(t)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "config wan\n\toption device 'pon9'\n\toption vlan '41'\n\toption lan_port 'lan9'\n\tlist dns_name 'a.example'\n\tlist resolver '127.0.0.1'\n\tlist probe_target '127.0.0.9'\n"+
		"config iptv\n\toption group '239.9.9.9'\n\toption source '192.0.2.9'\n\toption port '5009'\n")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"pppoe --discovery":      `"interface":"pon9","vlan":41`,
		"pppoe --vlan 0":         `"interface":"pon9","outcome":""`,
		"pppoe --interface pon8": `"interface":"pon8","vlan":41`,
		"cable":                  `"interface":"lan9"`,
		"multicast":              `"group":"239.9.9.9"`,
	} {
		words := append([]string{"probe"}, strings.Fields(args)...)
		code, out, errs := ontagent(t, append(words, "--json", "--config", path)...)
		if code != cli.Inconclusive || !strings.Contains(out, want) || !strings.Contains(out, "no such interface") {
			t.Errorf("probe %s: exit code %d, %s %s; want %s", args, code, out, errs, want)
		}
	}
	if code, out, _ := ontagent(t, "probe", "ping", "--count", "1", "--config="+path, "--json"); code == cli.OK && !strings.Contains(out, `"target":"127.0.0.9"`) {
		t.Errorf("pings another target: %s", out)
	}
}

// A configuration that is not good is only in the way if it was asked for.
func TestProbeWithoutConfiguration(t *testing.T) {
	var out bytes.Buffer
	p := newProbing(t, "cable", &out)
	if err := p.load(); err != nil || strings.Contains(out.String(), "warning") {
		if _, err := os.Stat("/etc/config/ontagent"); errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: %s", err, out.String())
		}
	}
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("config main\n\toption fool '1'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := ontagent(t, "probe", "cable", "--config", bad); code != cli.Usage || !strings.Contains(errs, "bad:2") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// Every outcome that a package can have is described once, and nothing else.
func TestProbeOutcomesAreComplete(t *testing.T) {
	for _, k := range probes {
		dir := k.name
		if dir == "acs" {
			dir = "tcp"
		}
		want := map[string]bool{}
		for _, name := range outcomeConstants(t, filepath.Join("..", "..", "agent", "probe", dir)) {
			want[name] = true
		}
		if len(want) < 3 {
			t.Fatalf("%s: found only %d outcomes", k.name, len(want))
		}
		p := newProbing(t, k.name, &bytes.Buffer{})
		for line := range strings.Lines(p.outcomes) {
			fields := strings.Fields(line)
			if len(fields) < 3 || !strings.Contains("013", fields[0]) || !want[fields[1]] {
				t.Errorf("%s: %q describes no outcome", k.name, line)
				continue
			}
			delete(want, fields[1])
			code, meaning := outcomeIn(p.outcomes, fields[1])
			if strconv.Itoa(code) != fields[0] || meaning != strings.Join(fields[2:], " ") {
				t.Errorf("%s: %s is found as %d, %q", k.name, fields[1], code, meaning)
			}
		}
		for name := range want {
			t.Errorf("%s: outcome %s is not described", k.name, name)
		}
	}
	for _, name := range []string{"", "bogus", "a", "peer"} {
		if code, meaning := outcomeIn(pppoeOutcomes, name); code == cli.OK || code == cli.Fail && meaning != "" {
			t.Errorf("outcome %q is found as %d, %q", name, code, meaning)
		}
	}
}

// outcomeConstants reads the values of a package's constants of type Outcome.
func outcomeConstants(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v, isValue := s.(*ast.ValueSpec)
				if kind, ok := v.Type.(*ast.Ident); !isValue || !ok || kind.Name != "Outcome" {
					continue
				}
				literal, ok := v.Values[0].(*ast.BasicLit)
				if !ok {
					t.Fatalf("%s: an outcome is no literal", path)
				}
				name, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, name)
			}
		}
	}
	return names
}

func TestProbeExitCodes(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		probe   string
		outcome any
		err     error
		held    bool
		want    int
	}{
		{"pppoe", pppoe.OK, nil, false, cli.OK},
		{"pppoe", pppoe.Offered, nil, true, cli.OK},
		{"pppoe", pppoe.NoPADO, nil, false, cli.Fail},
		{"pppoe", pppoe.NoPADO, nil, true, cli.Inconclusive}, // some answer no second PADI
		{"pppoe", pppoe.AuthRejected, nil, false, cli.Fail},
		{"pppoe", pppoe.OK, broken, false, cli.Inconclusive},
		{"pppoe", pppoe.NoPADO, fmt.Errorf("cannot: %w", pppoe.ErrOptions), false, cli.Usage},
		{"dhcp", dhcp.Offered, nil, false, cli.OK},
		{"dhcp", dhcp.Informed, nil, true, cli.OK},
		{"dhcp", dhcp.Silent, nil, true, cli.Inconclusive}, // nobody needs to answer an INFORM
		{"dhcp", dhcp.Partial, nil, false, cli.Fail},
		{"dns", dns.NotAsked, nil, false, cli.Inconclusive},
		{"dns", dns.Degraded, nil, false, cli.Fail},
		{"ping", ping.Complete, nil, false, cli.OK},
		{"ping", ping.Loss, nil, false, cli.Fail},
		{"mtu", mtu.Reduced, nil, false, cli.Fail},
		{"http", http.OK, nil, false, cli.OK},
		{"http", http.Redirected, nil, false, cli.Fail},
		{"multicast", multicast.Streaming, nil, false, cli.OK},
		{"multicast", multicast.NoQuerier, nil, false, cli.Fail},
		{"sip", sip.OK, nil, false, cli.OK},
		{"sip", sip.Registered, nil, false, cli.OK},
		{"sip", sip.Challenged, nil, false, cli.Inconclusive},
		{"sip", sip.Unauthorized, nil, false, cli.Fail},
		{"ntp", ntp.OK, nil, false, cli.OK},
		{"ntp", ntp.KoD, nil, false, cli.Fail},
		{"tcp", tcp.Open, nil, false, cli.OK},
		{"tcp", tcp.Mute, nil, false, cli.Fail},
		{"acs", tcp.Open, nil, false, cli.OK},
		{"acs", tcp.Unresolved, nil, false, cli.Fail},
		{"cable", cable.OK, nil, false, cli.OK},
		{"cable", cable.Downgraded, nil, false, cli.Fail},
		{"cable", cable.Open, nil, false, cli.Fail},
		{"cable", cable.Unsupported, nil, false, cli.Inconclusive},
		{"ping", "", nil, false, cli.Inconclusive},
		{"ping", "new", nil, false, cli.Inconclusive},
	} {
		p := newProbing(t, tc.probe, &bytes.Buffer{})
		p.held = tc.held
		err := p.exit(fmt.Sprint(tc.outcome), tc.err)
		code := cli.OK
		if exit, ok := errors.AsType[*cli.Error](err); ok {
			code = exit.Code
		}
		if code != tc.want {
			t.Errorf("%s %v %v: exit code %d, want %d", tc.probe, tc.outcome, tc.err, code, tc.want)
		}
	}
}

// nasty is a text as a server might send it to write on a technician's terminal.
const nasty = "hi\x1b[2J\r\nok\x00\u009b31m\u202eabc\xff"

func fixedResults() []struct {
	name   string
	probe  string
	head   probeHead
	result any
} {
	yes, no := true, false
	addr, port := netip.MustParseAddr, netip.MustParseAddrPort
	ms := 21.4
	count := uint64(3)
	vlan := uint16(41)
	return []struct {
		name   string
		probe  string
		head   probeHead
		result any
	}{
		{"pppoe-ok", "pppoe", probeHead{SessionUp: &no}, pppoe.Result{
			Interface: "wan0", VLAN: 41, Outcome: pppoe.OK, Stage: pppoe.StageUp,
			Offers: []pppoe.Offer{{MAC: "02:00:00:00:00:01", ACName: "bras-1", ServiceNames: []string{""}, OfferMs: 1.234567}},
			ACMAC:  "02:00:00:00:00:01", ACName: "bras-1", SessionID: 7, VLANAnswered: &vlan,
			LCP:  pppoe.LCP{MRUAsked: 1492, MRU: 1492, AuthAsked: []string{"chap_md5"}, Requests: 1},
			Auth: pppoe.Auth{Protocol: "chap_md5", Result: "accepted", ServerMessage: "Welcome", Attempts: 1, Sends: 1},
			MTU:  1492, Address: addr("203.0.113.2"), Peer: addr("203.0.113.1"), DNS1: addr("10.64.0.53"),
			Echo: pppoe.Echo{Sent: 3, Received: 3, MinMs: 0.5, AvgMs: 0.7, MaxMs: 1}, PADTSent: true, TotalMs: 640.125,
		}},
		{"pppoe-rejected", "pppoe", probeHead{SessionUp: &no}, pppoe.Result{
			Interface: "wan0", Outcome: pppoe.AuthRejected, Stage: pppoe.StageAuth,
			Auth: pppoe.Auth{Protocol: "pap", Result: "rejected", ServerMessage: nasty, Attempts: 1, Sends: 1},
		}},
		{"pppoe-held", "pppoe", probeHead{SessionUp: &yes, Note: "discovery only: wan0 has 203.0.113.2"}, pppoe.Result{Interface: "wan0", Outcome: pppoe.NoPADO, Stage: pppoe.StageDiscovery, DiscoveryMs: 5000.4}},
		{"dhcp-offered", "dhcp", probeHead{LineUp: &no}, dhcp.Result{
			Outcome: dhcp.Offered, V4Outcome: dhcp.Offered, Interface: "wan0", MAC: "02:00:00:00:00:02", Sent: 1, DurationS: 0.312,
			V4: []dhcp.Offer{{
				Type: "offer", ServerID: addr("203.0.113.1"), From: addr("203.0.113.1"), FromMAC: "02:00:00:00:00:01", Address: addr("203.0.113.28"), PrefixLength: 24,
				Routers: []netip.Addr{addr("203.0.113.1")}, DNS: []netip.Addr{addr("10.64.0.53"), addr("10.64.0.54")}, LeaseS: 3600, Message: nasty, LatencyMs: 10.5,
			}},
		}},
		{"dns-hijacks", "dns", probeHead{}, dns.SurveyResult{
			Outcome: dns.Hijacks, DurationS: 0.1,
			Resolvers: []dns.Surveyed{{
				Resolver: port("10.64.0.53:53"), Outcome: dns.Hijacks, A: true, TCP: dns.OK, LatencyMs: 1.5, Hijacked: []string{"www.example.net"}, Invented: []string{"x1.invalid"},
				Questions: []dns.Asked{{Name: "www.example.net", Type: "A", Rcode: "NOERROR", Addresses: []netip.Addr{addr("10.0.0.1")}, LatencyMs: 1.5, Attempts: 1}},
			}},
		}},
		{"ping-no-reply", "ping", probeHead{}, ping.Result{Outcome: ping.NoReply, Target: addr("10.64.0.9"), Mode: ping.ModeRaw, Sent: 5, LossRatio: 1}},
		{"ping-cut", "ping", probeHead{}, ping.Result{Target: addr("10.64.0.9"), Mode: ping.ModeRaw, Sent: 1}},
		{"mtu-black-hole", "mtu", probeHead{}, mtu.Result{
			Outcome: mtu.BlackHole, Target: addr("10.64.0.9"), Mode: "raw", InterfaceMTU: 1500, ExpectedMTU: 1500, PathMTU: 1440, RTTMs: 1.1,
			Probes: []mtu.Probe{{Size: 1500, Sent: 2}, {Size: 1440, Sent: 1, Answered: true}}, TCP: &mtu.Transfer{Outcome: mtu.TransferBlackHole, SmallBytes: 4096, ReceivedMSS: 536}, DurationS: 3.25,
		}},
		{"http-redirected", "http", probeHead{}, http.Result{
			Outcome: http.Redirected, URL: "http://check.example.net/", Address: port("10.64.0.80:80"), Status: 302, Reason: "Found", Location: "http://portal.example.net/pay", LocationHost: "portal.example.net",
			Server: nasty, BodyBytes: 12, Text: "<html>\n</html>", ConnectMs: 1, FirstByteMs: 2, DurationS: 0.003,
		}},
		{"multicast-streaming", "multicast", probeHead{}, multicast.Result{
			Outcome: multicast.Streaming, Interface: "wan0", VLAN: 45, Group: addr("239.1.1.1"), Source: addr("10.65.0.1"), Port: 5000, Mode: multicast.ModeFrame, Protocol: "igmpv3",
			JoinMs: &ms, Leave: multicast.LeaveStopped, LeaveMs: &ms, ListenedS: 3, Packets: 1140, Bytes: 1500240, RateMbps: 4.00064, LongestGapMs: 6,
			RTP: &multicast.RTP{Packets: 1140}, LossRatio: new(float64), Queriers: []multicast.Querier{{Address: addr("10.65.0.1"), Protocol: "igmpv3", Queries: 1}},
		}},
		{"sip-rejected", "sip", probeHead{}, sip.Result{
			Outcome: sip.Rejected, Method: sip.MethodFetch, Transport: "udp", Server: port("10.66.0.2:5060"), Local: port("10.66.0.9:40000"), Code: 403, ReasonText: "Forbidden " + nasty, Sent: 1, RTTMs: &ms, AnswerMs: &ms,
		}},
		{"ntp-kod", "ntp", probeHead{}, ntp.Result{Outcome: ntp.KoD, Server: port("10.64.0.123:123"), KissCode: "RATE", Tries: 1}},
		{"tcp-open", "tcp", probeHead{}, tcp.Result{Host: "acs.example.net", Port: 7547, Attempt: tcp.Attempt{Outcome: tcp.Open, Address: addr("10.64.0.7"), ConnectMs: 0.75, HTTPStatus: 401, StatusLine: "HTTP/1.1 401 Unauthorized", AnswerMs: 1.5}}},
		{"acs-refused", "acs", probeHead{}, tcp.Result{Host: "acs.example.net", Port: 443, Attempt: tcp.Attempt{Outcome: tcp.Refused, Address: addr("10.64.0.7"), Reason: "connection refused"}}},
		{"cable-downgraded", "cable", probeHead{}, cable.Result{
			Outcome: cable.Downgraded, Interface: "lan1", Carrier: true, SpeedMbps: 100, Duplex: "full", Autoneg: true, LocalMaxMbps: 1000, PeerMaxMbps: 1000, WatchedS: 2, CRCErrorsTotal: &count,
			Test: cable.TestDone, Pairs: []cable.Pair{{Name: "A", Code: cable.CodeOK}, {Name: "B", Code: cable.CodeOpen, FaultM: &ms}},
		}},
	}
}

func TestProbeOutput(t *testing.T) {
	for _, f := range fixedResults() {
		for _, form := range []string{"txt", "json"} {
			var out bytes.Buffer
			p := newProbing(t, f.probe, &out)
			f.head.Probe = f.probe
			p.head, p.json = f.head, form == "json"
			var failure error
			if f.name == "ping-cut" {
				failure = errInterrupted
			}
			outcome, err := p.print(f.result, failure)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, f.name+"."+form, out.String())
			data, err := json.Marshal(f.result)
			if err != nil {
				t.Fatal(err)
			}
			if want, _ := object(t, data)["outcome"].(string); outcome != want {
				t.Errorf("%s: outcome %q, want %q", f.name, outcome, want)
			}
			for _, r := range out.String() {
				if r != '\n' && !strconv.IsPrint(r) {
					t.Errorf("%s.%s: prints %q", f.name, form, r)
				}
			}
			if form == "txt" {
				continue
			}
			// It is the result, and what the verb adds.
			if n := bytes.Count(out.Bytes(), []byte("\n")); n != 1 {
				t.Errorf("%s: %d lines", f.name, n)
			}
			got := object(t, out.Bytes())
			for _, name := range []string{"probe", "session_up", "line_up", "note", "not_measured"} {
				delete(got, name)
			}
			if diff := cmp.Diff(object(t, data), got); diff != "" {
				t.Errorf("%s (-result +printed):\n%s", f.name, diff)
			}
		}
	}
}

// What has no result is said once, and as JSON as well where that was asked for.
func TestProbeThatCannotMeasure(t *testing.T) {
	for _, name := range []string{"pppoe", "dhcp", "cable", "multicast"} {
		args := []string{"probe", name, "--interface", "nosuch0"}
		if name == "multicast" {
			args = append(args, "--group", "239.1.1.1")
		}
		code, out, errs := ontagent(t, args...)
		if code != cli.Inconclusive || !strings.Contains(errs, "no such interface") || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit code %d, %q, %q", name, code, out, errs)
		}
		code, out, _ = ontagent(t, append(args, "--json")...)
		if why, _ := object(t, []byte(out))["not_measured"].(string); code != cli.Inconclusive || !strings.Contains(why, "no such interface") {
			t.Errorf("%s: exit code %d, %q", name, code, out)
		}
	}
}

func TestProbeInterrupted(t *testing.T) {
	for _, args := range [][]string{
		{"ping", "--target", "127.0.0.1", "--count", "1000"},
		{"ntp", "--server", "127.0.0.1:9"},
		{"http", "--url", "http://nowhere.invalid/", "--resolver", "192.0.2.1"},
		{"cable", "--interface", "lo", "--watch", "60"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var out, errs bytes.Buffer
		a := &app{out: &out, err: &errs}
		var ended time.Time
		stop := time.AfterFunc(50*time.Millisecond, func() { ended = time.Now(); cancel() })
		code := a.run(ctx, append(append([]string{"probe"}, args...), "--json"))
		if !stop.Stop() {
			if took := time.Since(ended); took > time.Second {
				t.Errorf("%s: ended %v after it was told to", args[0], took)
			}
			if code != cli.Inconclusive || !strings.Contains(errs.String(), "interrupted") || !strings.Contains(out.String(), `"not_measured":"interrupted"`) {
				t.Errorf("%s: exit code %d, %s%s", args[0], code, out.String(), errs.String())
			}
		} else {
			cancel() // this host answers such questions at once
		}
	}
}

func FuzzProbePrint(f *testing.F) {
	f.Add("RATE\x1b", int64(3), 0.5, true)
	f.Fuzz(func(t *testing.T, text string, number int64, ratio float64, yes bool) {
		if ratio != ratio || ratio > 1e300 || ratio < -1e300 {
			t.Skip("no JSON")
		}
		type inner struct {
			Text  string   `json:"text"`
			Ratio float64  `json:"x_ratio"`
			List  []string `json:"list"`
		}
		result := struct {
			Outcome string   `json:"outcome"`
			Number  int64    `json:"number"`
			Yes     bool     `json:"yes"`
			Inner   inner    `json:"inner"`
			Many    []inner  `json:"many"`
			Deep    [][]bool `json:"deep"`
			None    *inner   `json:"none"`
		}{text, number, yes, inner{text, ratio, []string{text, ""}}, []inner{{}, {Text: text + text}}, [][]bool{{yes}, {}, nil}, nil}
		for _, asJSON := range []bool{false, true} {
			var out bytes.Buffer
			p := newProbing(t, "ping", &out)
			p.json = asJSON
			if _, err := p.print(result, nil); err != nil {
				t.Fatal(err)
			}
			for _, r := range out.String() {
				if r != '\n' && r < 0xffff && !strconv.IsPrint(r) {
					t.Errorf("prints %q", r)
				}
			}
			if asJSON && !json.Valid(out.Bytes()) {
				t.Errorf("no JSON: %s", out.Bytes())
			}
		}
	})
}

// The tables of outcomes in docs/probes.md are those of --help.
func TestProbeDocumentation(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "probes.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, k := range probes {
		if k.name == "acs" { // has the outcomes of tcp
			continue
		}
		p := newProbing(t, k.name, &bytes.Buffer{})
		table := "| exit code | outcome | means |\n|---|---|---|\n"
		for line := range strings.Lines(p.outcomes) {
			f := strings.Fields(line)
			table += fmt.Sprintf("| %s | `%s` | %s |\n", f[0], f[1], strings.Join(f[2:], " "))
		}
		before, rest, begins := strings.Cut(text, "<!-- outcomes "+k.name+" -->\n")
		old, after, ends := strings.Cut(rest, "\n<!-- end -->")
		if !begins || !ends {
			t.Errorf("there is no table of %s", k.name)
			continue
		}
		if old != "\n"+table {
			t.Errorf("the table of %s is not up to date: run with -update", k.name)
		}
		text = before + "<!-- outcomes " + k.name + " -->\n\n" + table + "\n<!-- end -->" + after
	}
	if *update && text != string(b) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
