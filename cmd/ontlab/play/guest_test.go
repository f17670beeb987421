package play

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/vm"
)

// guestModules are what these labs need of a kernel, besides what is built in.
func guestModules() []string {
	return []string{
		"veth", "bridge", "8021q", "pppoe", "ppp_async", "sch_netem", "sch_tbf", "macvlan", "ifb numifbs=0", "sch_ingress", "cls_u32", "act_mirred",
		"nf_tables", "nft_chain_nat", "nft_masq", "nft_nat", "nft_ct", "nft_fib_ipv4", "nft_fib_ipv6", "nft_fwd_netdev",
	}
}

// TestFaultsOfPPPoE lets every fault of a line with PPP and VLANs come and go,
// in a guest, as few kernels that run tests have PPP.
func TestFaultsOfPPPoE(t *testing.T) {
	if os.Getenv(guestEnv) != "" {
		walkPPPoE(t)
		return
	}
	switch {
	case os.Getenv("LONG") != "1":
		t.Skip("only with LONG=1: all faults of PPPoE take a guest many minutes; TestScenarios plays the usual ones")
	case !netbox.Inside():
		unavailable(t, noBox)
	}
	for _, program := range []string{"pppd", "pppoe-server", "pppoe-discovery", "freeradius", "kea-dhcp6"} {
		if !installed(program) {
			unavailable(t, program+" is not installed")
		}
	}
	self, err := os.Executable()
	must(t, err)
	var stdout, stderr bytes.Buffer
	result, err := vm.Run(t.Context(), vm.Options{Modules: guestModules(), MemoryMiB: 1024}, vm.Job{
		Args: []string{self, "-test.run=^TestFaultsOfPPPoE$/" + os.Getenv("ONTLAB_PLAY_ONLY"), "-test.v", "-test.timeout=18m"}, Dir: "/",
		Env:     []string{guestEnv + "=1", binEnv + "=" + os.Getenv(binEnv)},
		Timeout: 20 * time.Minute, Stdout: io.MultiWriter(&stdout, t.Output()), Stderr: &stderr,
	})
	if errors.Is(err, vm.ErrUnavailable) {
		unavailable(t, err)
	}
	t.Logf("the guest took %v\n%s", result.Took.Round(100*time.Millisecond), stderr.Bytes())
	if err != nil || result.ExitCode != 0 || !bytes.Contains(stdout.Bytes(), []byte("--- PASS: TestFaultsOfPPPoE")) {
		t.Errorf("exit code %d, %v\nconsole:\n%s", result.ExitCode, err, result.Console)
	}
}

const pppoeInternet = `scenario: pppoe-internet
services:
  - {kind: internet, access: pppoe, down_mbps: 10, up_mbps: 5}
  - {kind: management}
network:
  accounts:
    - {account: u1@isp, password: p1, sessions: 4}
    - {account: full@isp, password: p2, sessions: 1, in_use: 1}
    - {account: silent@isp, password: p3, state: suspended, reply: ""}
expect: {verdict: pass}
`

// dialled is what a test dial came to.
type dialled struct {
	Outcome string
	Offers  []struct {
		ACName  string  `json:"ac_name"`
		OfferMs float64 `json:"offer_ms"`
	}
	Errors []struct {
		Name, Text string
	}
	Auth struct {
		Protocol      string
		ServerMessage string `json:"server_message"`
	}
	AuthMs  float64 `json:"auth_ms"`
	Address string
}

// dial dials with an account, whose password is in a file of that name.
func (l *Lab) dial(ctx context.Context, account string, args ...string) (dialled, error) {
	var d dialled
	return d, l.probe(ctx, &d, "pppoe", append([]string{"--force", "--vlan", "41", "--user", account, "--password-file", account, "--echoes", "1"}, args...)...)
}

// dials expects something of a test dial with the ordered account.
func dials(ok func(dialled) bool, args ...string) func(context.Context, *Lab) error {
	return func(ctx context.Context, l *Lab) error {
		d, err := l.dial(ctx, "u1@isp", args...)
		if err == nil && !ok(d) {
			err = fmt.Errorf("%+v", d)
		}
		return err
	}
}

func ended(outcome string) func(dialled) bool {
	return func(d dialled) bool { return d.Outcome == outcome }
}

// online expects the gateway to be online by itself.
func online(ctx context.Context, l *Lab) error {
	return pings(true, "-I", pppName, core(coreTargets)[0].String())(ctx, l)
}

func walkPPPoE(t *testing.T) { //nolint:thelper // the body of a test
	l := buildLab(t, pppoeInternet)
	for account, password := range map[string]string{"u1@isp": "p1", "full@isp": "p2", "silent@isp": "p3", "nobody@isp": "p"} {
		must(t, l.gateway.WriteFile(account, []byte(password+"\n"), 0o600))
	}
	t.Run("accounts", func(t *testing.T) {
		for account, want := range map[string]dialled{
			"full@isp": {Outcome: "auth_rejected"}, "silent@isp": {Outcome: "auth_rejected"}, "nobody@isp": {Outcome: "auth_rejected"},
		} {
			d, err := l.dial(t.Context(), account)
			text := map[string]string{"full@isp": "超出限制的用户数", "nobody@isp": "无此用户"}[account]
			if err != nil || d.Outcome != want.Outcome || !strings.Contains(d.Auth.ServerMessage, text) || text == "" && strings.Contains(d.Auth.ServerMessage, "状态错") {
				t.Errorf("%s: %+v, %v", account, d, err)
			}
		}
	})
	ok := dials(ended("ok"))
	slow := func(d dialled) bool {
		return d.Outcome == "ok" && len(d.Offers) > 0 && d.Offers[0].OfferMs > 1500
	}
	others := func(ctx context.Context, l *Lab) error {
		n, err := countLines(ctx, l.olt, "lab-bras", "pppoe-discovery", "-I", bridgeOf(41))
		if err == nil && n == 0 {
			err = errors.New("nobody answers others")
		}
		return err
	}
	protocol := func(want string) func(context.Context, *Lab) error {
		return dials(func(d dialled) bool { return d.Outcome == "ok" && strings.HasPrefix(d.Auth.Protocol, want) })
	}
	rejected := func(text string) func(context.Context, *Lab) error {
		return dials(func(d dialled) bool {
			return d.Outcome == "auth_rejected" && strings.Contains(d.Auth.ServerMessage, text)
		})
	}
	web := "http://" + core(coreWeb)[0].String() + "/"
	redirected := func(status int) func(context.Context, *Lab) error {
		return func(ctx context.Context, l *Lab) error {
			got, _, _, err := page(ctx, l.gateway, web)
			if err != nil || got != status {
				err = fmt.Errorf("%d, %w", got, err)
			}
			return err
		}
	}
	leases := func(ok func(n int, took time.Duration) bool) func(context.Context, *Lab) error {
		return func(ctx context.Context, l *Lab) error {
			began := time.Now()
			var r struct{ V4 []any }
			err := l.probe(ctx, &r, "dhcp", "--force", "--vlan", "47", "--tries", "1", "--wait", "5")
			if took := time.Since(began); err == nil && !ok(len(r.V4), took) {
				err = fmt.Errorf("%d offers after %v", len(r.V4), took)
			}
			return err
		}
	}
	session := ""
	walkThrough(t, l, []walk{
		{fault: "no_pado", there: dials(ended("no_pado")), gone: ok},
		{fault: "slow_pado", params: []string{"delay_ms=1500"}, there: dials(slow), gone: dials(func(d dialled) bool { return d.Outcome == "ok" && !slow(d) })},
		{fault: "second_ac", params: []string{"ac_name=rogue"}, there: dials(func(d dialled) bool { return d.Outcome == "ok" && len(d.Offers) == 2 && d.Offers[1].ACName == "rogue" }), gone: dials(func(d dialled) bool { return len(d.Offers) == 1 })},
		{fault: "mac_blocked", there: both(dials(ended("no_pado")), others), gone: ok},
		{fault: "pads_error", params: []string{"text=资源不足", "tag=generic"}, there: dials(func(d dialled) bool {
			return d.Outcome == "pads_error" && len(d.Errors) == 1 && d.Errors[0].Text == "资源不足"
		}), gone: ok},
		{fault: "lcp_silent", there: dials(ended("lcp_no_answer")), gone: ok},
		{fault: "auth_only_chap", there: protocol("chap"), gone: protocol("pap")},
		{fault: "auth_only_pap", there: protocol("pap"), gone: ok},
		{fault: "ipcp_refused", there: dials(func(d dialled) bool { return slices.Contains([]string{"ipcp_failed", "no_address"}, d.Outcome) }), gone: ok},
		{fault: "aaa_down", there: dials(ended("auth_no_answer")), gone: ok},
		{fault: "aaa_slow", params: []string{"delay_s=4"}, there: dials(func(d dialled) bool { return d.Outcome == "ok" && d.AuthMs > 4000 }), gone: dials(func(d dialled) bool { return d.Outcome == "ok" && d.AuthMs < 4000 })},
		{fault: "account_reject", params: []string{"reply=绑定校验错"}, there: rejected("绑定校验错"), gone: ok},
		{fault: "session_limit", params: []string{"reply=too many"}, there: rejected("too many"), gone: ok},
		{fault: "echo_loss", there: dials(ended("echo_lost"), "--echoes", "3"), gone: dials(ended("ok"), "--echoes", "3")},
		{
			fault: "session_drop",
			there: func(_ context.Context, l *Lab) error {
				if now := sessionOf(l); now == session {
					return errors.New("it is still there")
				}
				return nil
			},
			gone: func(ctx context.Context, l *Lab) error {
				err := online(ctx, l)
				session = sessionOf(l)
				return err
			},
		},
		{fault: "vlan_wrong", there: dials(ended("no_pado")), gone: both(ok, online)},
		{fault: "mtu_black_hole", there: both(pings(true, "-M", "do", "-s", "1372", core(coreTargets)[0].String()), pings(false, "-M", "do", "-s", "1373", core(coreTargets)[0].String())), gone: pings(true, "-M", "do", "-s", "1464", core(coreTargets)[0].String())},
		{fault: "walled_garden", there: redirected(302), gone: redirected(200)},
		{fault: "dns_hijack", there: resolves(siteName, func(_ int, r reply, err error) error {
			if err == nil && (len(r.addresses) != 1 || r.addresses[0].String() != "192.0.2.66") {
				err = fmt.Errorf("%v", r.addresses)
			}
			return err
		}), gone: silent()},
		{fault: "dhcp_slow", params: []string{"delay_ms=2500"}, there: leases(func(n int, took time.Duration) bool { return n == 1 && took > 2500*time.Millisecond }), gone: leases(func(n int, _ time.Duration) bool { return n == 1 })},
		{fault: "second_dhcp", there: leases(func(n int, _ time.Duration) bool { return n == 2 }), gone: leases(func(n int, _ time.Duration) bool { return n == 1 })},
		{fault: "line", params: []string{"delay_ms=150", "jitter_ms=50"}, there: func(ctx context.Context, l *Lab) error {
			began := time.Now()
			if err := pings(true, core(coreTargets)[0].String())(ctx, l); err != nil {
				return err
			}
			if took := time.Since(began); took < 200*time.Millisecond {
				return fmt.Errorf("after %v", took)
			}
			return nil
		}, gone: online},
	})
}

// sessionOf names the session that the gateway has.
func sessionOf(l *Lab) string {
	for _, s := range l.brasd.Sessions() {
		if s.Up() {
			return fmt.Sprint(s.PID, s.Began)
		}
	}
	return ""
}
