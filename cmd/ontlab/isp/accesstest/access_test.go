package accesstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ontagent/agent/command"
	"ontagent/cmd/ontlab/isp"
	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/vm"
)

// inGuestEnv says to TestAccess that it is in the guest.
const inGuestEnv = "ONTLAB_ISP_ACCESS"

// accessModules are what the access side needs of a kernel.
var accessModules = []string{"pppoe", "8021q", "veth", "macvlan", "sch_tbf", "sch_ingress", "cls_u32", "act_mirred", "ifb numifbs=0"} //nolint:gochecknoglobals // a constant

// TestAccess plays the access side with real clients: in a guest, as few kernels
// that run tests have PPP.
func TestAccess(t *testing.T) {
	if os.Getenv(inGuestEnv) != "" {
		playAccess(t)
		return
	}
	if os.Getenv("LONG") != "1" {
		t.Skip("only with LONG=1: all faults of the access side take a guest minutes; cmd/ontlab/play has the usual ones")
	}
	for _, program := range []string{"/usr/sbin/pppoe-server", "/usr/sbin/pppd", "/usr/sbin/freeradius", "/usr/sbin/dnsmasq", "/usr/sbin/kea-dhcp6", "/usr/sbin/dhcpcd", "/bin/busybox"} {
		if _, err := os.Stat(program); err != nil {
			accessUnavailable(t, err)
		}
	}
	program := filepath.Join(t.TempDir(), "accesstest.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-buildvcs=false", "-ldflags=-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTOOLCHAIN=local")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the guest's program: %v\n%s", err, out)
	}
	var stdout, stderr bytes.Buffer
	args := []string{program, "-test.run=^TestAccess$", "-test.v", "-test.timeout=8m"}
	if only := os.Getenv("ONTLAB_ISP_ONLY"); only != "" {
		args[1] = "-test.run=^TestAccess$/" + only
	}
	result, err := vm.Run(t.Context(), vm.Options{Modules: accessModules, MemoryMiB: 768}, vm.Job{
		Args: args, Dir: "/", Env: []string{inGuestEnv + "=1"}, Timeout: 9 * time.Minute, Stdout: &stdout, Stderr: &stderr,
	})
	if errors.Is(err, vm.ErrUnavailable) {
		accessUnavailable(t, err)
	}
	t.Logf("the guest took %v\n%s%s", result.Took.Round(100*time.Millisecond), stdout.Bytes(), stderr.Bytes())
	if err != nil || result.ExitCode != 0 || !bytes.Contains(stdout.Bytes(), []byte("--- PASS: TestAccess")) {
		t.Errorf("exit code %d, %v\nconsole:\n%s", result.ExitCode, err, result.Console)
	}
}

// accessUnavailable skips a test that this machine can't run; in CI it must.
func accessUnavailable(t *testing.T, reason any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// access is a BRAS host and a client's, with a cable and VLANs between them.
type access struct {
	box        *netbox.Box
	bras, home *netbox.Host
	radius     *isp.RADIUS
	server     *isp.BRAS
	dials      int
}

const (
	replyUnknown = "691 无此用户 no such user"
	replyWrong   = "691 密码错 it's \"wrong\" %{User-Name}"
	replyLimit   = "691 超出限制的用户数"
)

func accounts() []isp.Account {
	return []isp.Account{
		{Name: "u1@isp", Password: "p1", DownMbps: 8, UpMbps: 4},
		{Name: "fixed", Password: "p4", FramedIP: addr("100.64.7.7")},
		{Name: "o'b\"r\\ien %{1}", Password: `pa'ss"wo\rd %{2} #x`},
		{Name: "suspended", Password: "p2", Reject: "691 状态错 'suspended' \\ %{User-Name}"},
		{Name: "one", Password: "p3", SessionLimit: 1},
		{Name: "short", Password: "p5", SessionTimeout: 3 * time.Second},
	}
}

// took logs what a step takes: start-up times on an emulated processor decide
// how long a scenario takes.
func took(t *testing.T, what string) func() {
	t.Helper()
	began := time.Now()
	return func() { t.Helper(); t.Logf("%s: %v", what, time.Since(began).Round(10*time.Millisecond)) }
}

func playAccess(t *testing.T) { //nolint:thelper // the body of a test
	ctx := t.Context()
	box, err := netbox.Open(netbox.Options{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { must(t, box.Close()) })
	a := &access{box: box}
	a.bras, err = box.Host("bras")
	must(t, err)
	a.home, err = box.Host("home")
	must(t, err)
	must(t, box.Cable(a.bras, "w0", a.home, "wan0", netbox.CableOptions{MTU: 1600}))
	for _, id := range []uint16{41, 42} {
		must(t, a.bras.VLAN("w0", id, fmt.Sprint("w0.", id)))
		must(t, a.home.VLAN("wan0", id, fmt.Sprint("wan0.", id)))
		must(t, a.bras.MTU(fmt.Sprint("w0.", id), 1508), a.bras.Up(fmt.Sprint("w0.", id)))
		must(t, a.home.MTU(fmt.Sprint("wan0.", id), 1508), a.home.Up(fmt.Sprint("wan0.", id)))
	}
	must(t, a.bras.Forward(true))

	t.Run("pppoe", func(t *testing.T) { playPPPoE(ctx, t, a) })
}

func playPPPoE(ctx context.Context, t *testing.T, a *access) { //nolint:thelper // the body of a test
	done := took(t, "start of FreeRADIUS")
	var err error
	a.radius, err = isp.StartRADIUS(ctx, a.bras, isp.RADIUSOptions{
		Accounts: accounts(), UnknownReply: replyUnknown, WrongPasswordReply: replyWrong, SessionLimitReply: replyLimit,
	})
	must(t, err)
	done()
	client := a.radius.Client()
	client.Timeout = time.Second
	done = took(t, "start of the BRAS with IPv6")
	a.server, err = isp.StartBRAS(ctx, a.bras, isp.BRASOptions{
		Interface: "w0.41", ACName: "FX-BRAS-1", ServiceNames: []string{"internet"}, MTU: 1500, RADIUS: client, SessionsPerMAC: 4,
		DNS:  addrs("10.64.0.53", "10.64.0.54", "2001:db8:53::53"),
		IPv6: &isp.BRASIPv6{Links: prefix("2001:db8:41::/48"), Delegated: prefix("2001:db8:1000::/40")},
	})
	must(t, err)
	done()
	for _, play := range []struct {
		name string
		f    func(context.Context, *testing.T, *access)
	}{
		{"session", playSession}, {"refused", playRefused}, {"aaa", playAAA}, {"discovery", playDiscovery}, {"sessions", playSessionFaults}, {"second", playSecondAC},
	} {
		t.Run(play.name, func(t *testing.T) {
			done := took(t, "all")
			play.f(ctx, t, a)
			done()
			if err := a.server.Err(); err != nil {
				t.Errorf("the BRAS has a problem: %v", err)
			}
			if t.Failed() {
				a.logs(t)
			}
		})
	}
	done = took(t, "stop of both")
	must(t, a.server.Stop(), a.server.Stop(), a.radius.Stop())
	done()
	out, err := a.bras.Run(ctx, "ip", "-o", "link")
	must(t, err)
	if strings.Contains(string(out), "-ac") || strings.Contains(string(out), "ppp") {
		t.Errorf("interfaces are left:\n%s", out)
	}
	t.Run("secrets", func(t *testing.T) { playSecrets(ctx, t, a) })
}

// logs prints what the operator's side has said.
func (a *access) logs(t *testing.T) {
	t.Helper()
	for _, f := range []string{"radius-0.log", "bras/pppd.log", "bras-dhcp6.log", "bras-ra.log"} {
		text, err := os.ReadFile(filepath.Join(a.bras.Dir(), f))
		t.Logf("%s: %v\n%.20000s", f, err, text)
	}
}

// playSession: one session with all that there is.
func playSession(ctx context.Context, t *testing.T, a *access) { //nolint:thelper // the body of a test
	done := took(t, "dial")
	c := a.dial(ctx, t, "u1@isp", "p1", 1500, "pppoe-service", "internet")
	c.wantUp(t)
	done()
	c.want(t, "CHAP authentication succeeded", "primary   DNS address 10.64.0.53", "secondary DNS address 10.64.0.54", "remote IP address 10.64.0.1", "PPP-max-payload")
	s := a.upSession(t, "u1@isp")
	if s.IP.String() != "100.64.0.10" || s.DownMbps != 8 || s.UpMbps != 4 || s.ID == 0 {
		t.Errorf("session: %+v", s)
	}

	// RFC 4638: whole packets of 1500.
	out, err := a.home.Run(ctx, "ping", "-c", "2", "-i", "0.2", "-W", "2", "-M", "do", "-s", "1472", "10.64.0.1")
	if err != nil {
		t.Errorf("packets of 1500 bytes: %v\n%s", err, out)
	}

	// The rates, as the kernel has them, and as bytes per second.
	for ifname, want := range map[string]string{s.Interface: "rate 8Mbit", s.Interface + "-up": "rate 4Mbit"} {
		out, err := a.bras.Run(ctx, "tc", "qdisc", "show", "dev", ifname)
		must(t, err)
		if !strings.Contains(string(out), want) {
			t.Errorf("%s: no %s:\n%s", ifname, want, out)
		}
	}
	for _, way := range []struct {
		name     string
		from, to *netbox.Host
		mbps     float64
	}{{"down", a.bras, a.home, 8}, {"up", a.home, a.bras, 4}} {
		got := 0.0
		for range 3 { // a busy machine is slower than the rate, never faster
			if got = max(got, throughput(ctx, t, way.from, way.to, "10.64.0.1", way.from == a.bras)); got > way.mbps*0.8 {
				break
			}
		}
		t.Logf("%s: %.1f Mbit/s of %.0f", way.name, got, way.mbps)
		if got > way.mbps*1.1 || got < way.mbps*0.6 {
			t.Errorf("%s: %.1f Mbit/s of %.0f", way.name, got, way.mbps)
		}
	}

	// IPv6: a router, an address, a prefix that is routed.
	done = took(t, "prefix")
	must(t, a.home.WriteFile("dhcpcd.sh", []byte("#!/bin/sh\ncase $reason in BOUND6|REBIND6|RENEW6|REBOOT6) env >'"+a.home.Dir()+"/dhcpcd.env' ;; esac\n"), 0o700))
	must(t, a.home.WriteFile("dhcpcd.conf", fmt.Appendf(nil, "duid\nipv6only\nscript %s/dhcpcd.sh\ninterface pppoe-wan\nipv6rs\niaid 1\nia_pd 2\n", a.home.Dir()), 0o600))
	dhcpcd, err := a.home.Start(ctx, netbox.Service{Name: "dhcpcd", Path: "/usr/sbin/dhcpcd", Args: []string{"-6", "-B", "-d", "-f", a.home.Dir() + "/dhcpcd.conf", "pppoe-wan"}})
	must(t, err)
	var delegated netip.Prefix
	eventually(t, "prefix is delegated", func() error {
		all, err := a.server.DHCP6().Delegations()
		if err == nil && len(all) == 0 {
			err = errors.New(string(dhcpcd.Log()))
		}
		if err == nil {
			delegated = all[0].Prefix
		}
		return err
	})
	done()
	if !prefix("2001:db8:1000::/40").Overlaps(delegated) || delegated.Bits() != 60 {
		t.Errorf("%v was delegated", delegated)
	}
	inside := delegated.Addr().Next().String()
	must(t, a.home.Address("lo", inside+"/128"))
	eventually(t, "the home is reached", func() error {
		out, err := a.bras.Run(ctx, "ping", "-6", "-c", "1", "-W", "1", inside)
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return err
	})
	out, err = a.home.Run(ctx, "ip", "-6", "-o", "address", "show", "dev", "pppoe-wan", "scope", "global")
	must(t, err)
	if !strings.Contains(string(out), "2001:db8:41:") {
		t.Errorf("no address by advertisement: %s\n%s", out, dhcpcd.Log())
	}
	must(t, dhcpcd.Stop())

	// What accounting says, and the end.
	eventually(t, "session is accounted", func() error {
		all, err := a.radius.Sessions()
		if err == nil && (len(all) != 1 || all[0].User != "u1@isp" || all[0].IP.String() != "100.64.0.10") {
			err = fmt.Errorf("%+v", all)
		}
		return err
	})
	c.hangUp(t)
	eventually(t, "session's end is known", func() error {
		all, err := a.radius.Sessions()
		if open := a.server.Sessions(); err == nil && (len(all) != 0 || len(open) != 0) {
			err = fmt.Errorf("%+v, %+v", all, open)
		}
		return err
	})
}

// throughput is what a second and a half of TCP carry, in Mbit/s of payload.
// The operator's end of the session listens in either direction.
func throughput(ctx context.Context, t *testing.T, from, to *netbox.Host, at string, down bool) float64 {
	t.Helper()
	server, client := to, from
	if down {
		server, client = from, to
	}
	l, err := server.Listen(ctx, "tcp", net.JoinHostPort(at, "5001"))
	must(t, err)
	defer l.Close()
	c, err := client.Dial(ctx, "tcp", net.JoinHostPort(at, "5001"))
	must(t, err)
	defer c.Close()
	s, err := l.Accept()
	must(t, err)
	defer s.Close()
	out, in := c, s
	if down {
		out, in = s, c
	}
	const window = 1500 * time.Millisecond
	must(t, out.SetDeadline(time.Now().Add(5*time.Second)), in.SetDeadline(time.Now().Add(5*time.Second)))
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for block := make([]byte, 16<<10); ; {
			if _, err := out.Write(block); err != nil {
				return
			}
		}
	}()
	buffer := make([]byte, 64<<10)
	for warm := time.Now(); time.Since(warm) < 300*time.Millisecond; {
		_, err := in.Read(buffer)
		must(t, err)
	}
	total, began := 0, time.Now()
	for time.Since(began) < window {
		n, err := in.Read(buffer)
		must(t, err)
		total += n
	}
	rate := float64(total) * 8 / 1e6 / time.Since(began).Seconds()
	must(t, out.Close())
	<-stop
	return rate
}

// playRefused: all the ways of an AAA to say no, and PAP's yes.
func playRefused(ctx context.Context, t *testing.T, a *access) { //nolint:thelper // the body of a test
	for _, test := range []struct{ user, password, reply string }{
		{"u1@isp", "bad", replyWrong},
		{"nobody", "p1", replyUnknown},
		{"suspended", "p2", "691 状态错 'suspended' \\ %{User-Name}"},
	} {
		c := a.dial(ctx, t, test.user, test.password, 1492, "refuse-chap")
		if code := c.wait(t); code != 19 {
			t.Errorf("%s: exit code %d\n%s", test.user, code, c.log())
		}
		c.want(t, "rcvd [PAP AuthNak id=0x1 \""+pppdQuote(test.reply))
	}
	c := a.dial(ctx, t, "u1@isp", "bad", 1492)
	if code := c.wait(t); code != 19 {
		t.Errorf("exit code %d\n%s", code, c.log())
	}
	c.want(t, "CHAP Failure", pppdQuote(replyWrong))

	// Only one session, and it is another one's: a strange name by PAP.
	c = a.dial(ctx, t, "o'b\"r\\ien %{1}", `pa'ss"wo\rd %{2} #x`, 1492, "refuse-chap")
	c.wantUp(t)
	c.want(t, "PAP authentication succeeded", "<mru 1492>")
	a.upSession(t, "o'b\"r\\ien %{1}")
	c.hangUp(t)
}

// pppdQuote is a text as pppd prints it.
func pppdQuote(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteString("\\" + string(rune(c)))
		case c < ' ' || c >= 0x7f:
			fmt.Fprintf(&b, "\\%03o", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// playAAA: an AAA that is down, slow, and one that counts sessions.
func playAAA(ctx context.Context, t *testing.T, a *access) { //nolint:thelper // the body of a test
	a.radius.Silence(true)
	c := a.dial(ctx, t, "u1@isp", "p1", 1492, "refuse-chap")
	if code := c.wait(t); code != 19 {
		t.Errorf("AAA down: exit code %d\n%s", code, c.log())
	}
	t.Logf("AAA down: %q", regexp.MustCompile(`rcvd \[PAP AuthNak.*`).FindString(c.log()))
	a.radius.Silence(false)
	last := a.radius.Asked()[len(a.radius.Asked())-1]
	if last.User != "u1@isp" || last.Result != isp.RADIUSUnanswered {
		t.Errorf("asked: %+v", last)
	}

	a.radius.Delay(600 * time.Millisecond)
	c = a.dial(ctx, t, "one", "p3", 1492)
	c.wantUp(t)
	a.radius.Delay(0)
	a.upSession(t, "one")
	eventually(t, "session is accounted", func() error {
		all, err := a.radius.Sessions()
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("%+v", all)
		}
		return err
	})
	// The BRAS dies; the AAA believes that the session goes on.
	must(t, a.server.ForgetSessions())
	must(t, c.p.Kill())
	c = a.dial(ctx, t, "one", "p3", 1492, "refuse-chap")
	if code := c.wait(t); code != 19 {
		t.Errorf("session limit: exit code %d\n%s", code, c.log())
	}
	c.want(t, pppdQuote(replyLimit))
}

// playDiscovery: what an access concentrator can do wrong before a session.
func playDiscovery(ctx context.Context, t *testing.T, a *access) { //nolint:thelper // the body of a test
	fails := func(what string, code int, wants ...string) {
		t.Helper()
		c := a.dialQuick(ctx, t)
		if got := c.wait(t); got != code {
			t.Errorf("%s: exit code %d, want %d\n%s", what, got, code, c.log())
		}
		c.want(t, wants...)
	}
	offered := func(what string) time.Duration {
		t.Helper()
		began := time.Now()
		out, err := a.home.Run(ctx, "pppoe-discovery", "-I", "wan0.41", "-t", "3", "-a", "1")
		if !strings.Contains(string(out), "AC-Ethernet-Address") {
			t.Errorf("%s: no offer: %v\n%s", what, err, out)
		}
		return time.Since(began)
	}
	usual := offered("usual")

	a.server.Silence(true)
	fails("silence", 8, "Timeout waiting for PADO packets")
	a.server.Silence(false)

	a.server.DelayPADO(1500 * time.Millisecond)
	if late := offered("late"); late < 1500*time.Millisecond {
		t.Errorf("late offers come after %v, usually %v", late, usual)
	}
	a.server.DelayPADO(0)

	a.server.PADOError(&isp.DiscoveryError{Tag: isp.ServiceNameError, Text: "no such service"})
	fails("error in PADO", 8, "no such service")
	a.server.PADOError(nil)

	a.server.PADSError(&isp.DiscoveryError{Tag: isp.ACSystemError, Text: "out of licences 许可"})
	fails("error in PADS", 8, "System-Error: out of licences")
	a.server.PADSError(nil)

	a.server.IgnorePADR(true)
	fails("no PADS", 8, "Timeout waiting for PADS packets")
	a.server.IgnorePADR(false)

	// All off again.
	offered("at the end")
}

// playSessionFaults: what can be wrong in a session.
func playSessionFaults(ctx context.Context, t *testing.T, a *access) { //nolint:thelper // the body of a test
	must(t, a.server.LCPSilent(true))
	c := a.dial(ctx, t, "u1@isp", "p1", 1492, "lcp-restart", "1", "lcp-max-configure", "3")
	if code := c.wait(t); code != 10 && code != 16 {
		t.Errorf("LCP silent: exit code %d\n%s", code, c.log())
	}
	c.want(t, "LCP: timeout sending Config-Requests")
	must(t, a.server.LCPSilent(false), a.server.LCPSilent(false))

	c = a.dial(ctx, t, "fixed", "p4", 1492, "lcp-echo-interval", "1", "lcp-echo-failure", "2")
	c.wantUp(t)
	if s := a.upSession(t, "fixed"); s.IP.String() != "100.64.7.7" {
		t.Errorf("session: %+v", s)
	}
	a.server.EchoLoss(true)
	if code := c.wait(t); code != 15 && code != 16 { // the latter if its last words find the line gone
		t.Errorf("echo loss: exit code %d\n%s", code, c.log())
	}
	c.want(t, "No response to 2 echo-requests")
	a.server.EchoLoss(false)

	c = a.dial(ctx, t, "fixed", "p4", 1492)
	c.wantUp(t)
	a.upSession(t, "fixed")
	a.server.DropSessions()
	c.wait(t)
	c.want(t, "LCP terminated by peer")

	c = a.dial(ctx, t, "short", "p5", 1492)
	c.wantUp(t)
	c.wait(t)
	c.want(t, "LCP terminated by peer (Connect time expired)")
	eventually(t, "no session is left", func() error {
		if all := a.server.Sessions(); len(all) != 0 {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
}

// playSecondAC: two access concentrators on one Ethernet.
func playSecondAC(ctx context.Context, t *testing.T, a *access) { //nolint:thelper // the body of a test
	must(t, a.server.SecondAC(ctx, "ROGUE"))
	out, err := a.home.Run(ctx, "pppoe-discovery", "-I", "wan0.41", "-t", "2", "-a", "1")
	if n := strings.Count(string(out), "AC-Ethernet-Address"); n != 2 || !strings.Contains(string(out), "ROGUE") || !strings.Contains(string(out), "FX-BRAS-1") {
		t.Errorf("%d offers: %v\n%s", n, err, out)
	}
	c := a.dial(ctx, t, "u1@isp", "p1", 1492, "pppoe-ac", "ROGUE")
	c.wantUp(t)
	a.upSession(t, "u1@isp")
	must(t, a.server.SecondAC(ctx, ""))
	c.wait(t)
	out, _ = a.home.Run(ctx, "pppoe-discovery", "-I", "wan0.41", "-t", "1", "-a", "1")
	if strings.Contains(string(out), "ROGUE") || !strings.Contains(string(out), "FX-BRAS-1") {
		t.Errorf("after its end:\n%s", out)
	}
}

// playSecrets: a BRAS without AAA and IPv6, for one session of 1492 in all.
func playSecrets(ctx context.Context, t *testing.T, a *access) { //nolint:thelper // the body of a test
	done := took(t, "start of the BRAS without IPv6")
	b, err := isp.StartBRAS(ctx, a.bras, isp.BRASOptions{
		Interface: "w0.41", Auth: []string{"pap"}, MaxSessions: 1, Secrets: []isp.Account{{Name: "plain \"user", Password: `sec\ret`, FramedIP: addr("100.64.9.9")}},
	})
	must(t, err)
	done()
	c := a.dial(ctx, t, "plain \"user", `sec\ret`, 1500)
	c.wantUp(t)
	c.want(t, "<mru 1492>", "PAP authentication succeeded", "local  IP address 100.64.9.9")
	second := a.dialQuick(ctx, t)
	if code := second.wait(t); code != 8 {
		t.Errorf("one session too many: exit code %d\n%s", code, second.log())
	}
	second.want(t, "No client slots available")
	c.hangUp(t)
	eventually(t, "the slot is free", func() error {
		if all := b.Sessions(); len(all) != 0 {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})
	c = a.dial(ctx, t, "plain \"user", "wrong", 1492)
	if code := c.wait(t); code != 19 {
		t.Errorf("wrong secret: exit code %d\n%s", code, c.log())
	}
	must(t, b.Stop())
	_, err = isp.StartBRAS(ctx, a.bras, isp.BRASOptions{Interface: "w0.41", MTU: 1500, Secrets: []isp.Account{{Name: "u", Password: "p", SessionLimit: 1}}})
	if err == nil {
		t.Error("secrets can't limit sessions")
	}
	must(t, a.bras.MTU("w0.41", 1500))
	if b, err := isp.StartBRAS(ctx, a.bras, isp.BRASOptions{Interface: "w0.41", MTU: 1500}); err == nil {
		t.Error("sessions of 1500 on an Ethernet of 1500", b.Stop())
	}
	if b, err := isp.StartBRAS(ctx, a.bras, isp.BRASOptions{Interface: "w9"}); err == nil {
		t.Error("started on an interface that is not there", b.Stop())
	}
}

// upSession waits until the BRAS has a user's session.
func (a *access) upSession(t *testing.T, user string) isp.BRASSession {
	t.Helper()
	var found isp.BRASSession
	eventually(t, "BRAS has session of "+user, func() error {
		all := a.server.Sessions()
		for _, s := range all {
			if s.User == user && s.Up() {
				found = s
				return nil
			}
		}
		return fmt.Errorf("%+v", all)
	})
	return found
}

// dialled is a client's pppd.
type dialled struct {
	p *netbox.Process
}

// dialQuick dials for what fails before a session: it doesn't wait long.
func (a *access) dialQuick(ctx context.Context, t *testing.T) *dialled {
	t.Helper()
	return a.pppd(ctx, t, "u1@isp", "p1", 1492, "1")
}

// dial starts a pppd on the client's host. Its own retries are few, so that what
// fails ends.
func (a *access) dial(ctx context.Context, t *testing.T, user, password string, mtu int, more ...string) *dialled {
	t.Helper()
	return a.pppd(ctx, t, user, password, mtu, "10", more...)
}

func (a *access) pppd(ctx context.Context, t *testing.T, user, password string, mtu int, wait string, more ...string) *dialled {
	t.Helper()
	a.dials++
	ifname := "pppoe-wan"
	if a.dials > 1 { // two may be there at a time
		ifname = fmt.Sprint("pppoe-wan", a.dials)
	}
	args := append([]string{"plugin", "pppoe.so", "lcp-max-configure", "8"}, more...)
	args = append(args, "pppoe-padi-attempts", "2", "pppoe-padi-timeout", wait, "nic-wan0.41",
		"user", user, "password", password, "noauth", "nodetach", "debug", "maxfail", "1",
		"noipdefault", "usepeerdns", "ifname", ifname, "+ipv6", "mtu", fmt.Sprint(mtu), "mru", fmt.Sprint(mtu))
	p, err := a.home.Start(ctx, netbox.Service{Name: fmt.Sprint("pppd-", a.dials), Path: "pppd", Args: args})
	must(t, err)
	return &dialled{p}
}

func (d *dialled) log() string { return string(d.p.Log()) }

// wait returns the exit code of a pppd that fails.
func (d *dialled) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-d.p.Done():
	case <-time.After(time.Minute):
		t.Fatalf("pppd goes on:\n%s", d.log())
	}
	if failed, ok := errors.AsType[*command.Error](d.p.Err()); ok {
		return failed.ExitCode
	}
	return 0
}

func (d *dialled) wantUp(t *testing.T) {
	t.Helper()
	eventually(t, "session comes up", func() error {
		select {
		case <-d.p.Done():
			t.Fatalf("pppd ended: %v\n%s", d.p.Err(), d.log())
		default:
		}
		if !regexp.MustCompile(`(?m)^local  IP address`).MatchString(d.log()) {
			return errors.New(d.log())
		}
		return nil
	})
}

// want says what must be in pppd's log.
func (d *dialled) want(t *testing.T, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(d.log(), want) {
			t.Errorf("no %s in pppd's log:\n%s", want, d.log())
		}
	}
}

func (d *dialled) hangUp(t *testing.T) {
	t.Helper()
	must(t, d.p.Stop())
	if !strings.Contains(d.log(), "Terminat") {
		t.Errorf("pppd did not take its leave:\n%s", d.log())
	}
}
