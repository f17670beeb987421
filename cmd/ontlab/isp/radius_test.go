package isp

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ontagent/cmd/ontlab/netbox"
)

// needPrograms skips a test where a program is missing; in CI it must be there.
func needPrograms(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

// startTestRADIUS starts an AAA on a host of its own.
func startTestRADIUS(ctx context.Context, t *testing.T, o RADIUSOptions) (*netbox.Host, *RADIUS) {
	t.Helper()
	needPrograms(t, "/usr/sbin/freeradius", "/usr/bin/radclient")
	h := newHost(t, newBox(t), "bras")
	r, err := StartRADIUS(ctx, h, o)
	must(t, err)
	t.Cleanup(func() { must(t, r.Stop()) })
	return h, r
}

// radclient asks the AAA something by a client that is not ours.
func radclient(ctx context.Context, t *testing.T, h *netbox.Host, what string, attributes ...string) string {
	t.Helper()
	port := radiusAuthPort
	if what == "acct" {
		port = radiusAcctPort
	}
	must(t, h.WriteFile("request", []byte(strings.Join(attributes, "\n")+"\n"), 0o600))
	out, err := h.Run(ctx, "/usr/bin/radclient", "-x", "-r", "1", "-t", "2", "-f", "request", fmt.Sprint("127.0.0.1:", port), what, "secret")
	if err != nil && !strings.Contains(string(out), "Received") && !strings.Contains(err.Error(), "No reply") {
		t.Fatalf("%v\n%s", err, out)
	}
	_, answer, _ := strings.Cut(string(out), "Received ")
	return answer
}

// radiusWord quotes for radclient's input.
func radiusWord(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func TestRADIUSAnswers(t *testing.T) {
	ctx := bounded(t)
	h, r := startTestRADIUS(ctx, t, RADIUSOptions{
		UnknownReply: "691 无此用户", WrongPasswordReply: `691 密码错 it's "wrong" \ %{User-Name}`, SessionLimitReply: "691 超出限制的用户数",
		Accounts: []Account{
			{Name: "u1@isp", Password: "p1", DownMbps: 20, UpMbps: 0.5, FramedIP: netip.MustParseAddr("100.64.7.7"), SessionTimeout: 90 * time.Second},
			{Name: `o'b"r\ien %{1}`, Password: `pa'ss"wo\rd %{2} #x`},
			{Name: "suspended", Password: "p2", Reject: `691 状态错 'suspended' \ %{User-Name}`},
			{Name: "one", Password: "p3", SessionLimit: 1},
		},
	})
	for _, test := range []struct {
		name, user, password string
		wants                []string
	}{
		{"accepted", "u1@isp", "p1", []string{
			"Access-Accept", "Framed-IP-Address = 100.64.7.7", "WISPr-Bandwidth-Max-Down = 20000000", "WISPr-Bandwidth-Max-Up = 500000", "Session-Timeout = 90",
		}},
		{"strange characters", `o'b"r\ien %{1}`, `pa'ss"wo\rd %{2} #x`, []string{"Access-Accept"}},
		{"wrong password", "u1@isp", "p2", []string{"Access-Reject", `Reply-Message = "691 密码错 it's \"wrong\" \\ %{User-Name}"`}},
		{"empty password", "u1@isp", "", []string{"Access-Reject", "691 密码错"}},
		{"unknown", "nobody", "p1", []string{"Access-Reject", `Reply-Message = "691 无此用户"`}},
		{"suspended", "suspended", "p2", []string{"Access-Reject", `Reply-Message = "691 状态错 'suspended' \\ %{User-Name}"`}},
	} {
		for _, how := range []string{"User", "CHAP"} {
			t.Run(test.name+" by "+how, func(t *testing.T) {
				password := "User-Password = " + radiusWord(test.password)
				if how == "CHAP" { // RFC 1994 section 4.1; radclient's own quoting is not for all passwords
					digest := md5.Sum([]byte("\x07" + test.password + "0123456789abcdef"))
					password = fmt.Sprintf("CHAP-Challenge = 0x%x\nCHAP-Password = 0x07%x", "0123456789abcdef", digest)
				}
				answer := radclient(ctx, t, h, "auth", "User-Name = "+radiusWord(test.user), password)
				for _, want := range test.wants {
					if !strings.Contains(answer, want) {
						t.Errorf("no %s in answer %s", want, answer)
					}
				}
			})
		}
	}
	var asked []RADIUSExchange
	for _, e := range r.Asked() {
		if e.User == "nobody" || e.User == "u1@isp" && e.Result == RADIUSAccepted {
			e.At = time.Time{}
			asked = append(asked, e)
		}
	}
	accepted, unknown := RADIUSExchange{User: "u1@isp", Result: RADIUSAccepted}, RADIUSExchange{User: "nobody", Result: RADIUSRejected, Message: "691 无此用户"}
	if diff := cmp.Diff([]RADIUSExchange{accepted, accepted, unknown, unknown}, asked); diff != "" {
		t.Errorf("asked (-want +got)\n%s", diff)
	}
}

func TestRADIUSLimitsSessions(t *testing.T) {
	ctx := bounded(t)
	limited := []Account{{Name: "one", Password: "p", SessionLimit: 1}}
	h, r := startTestRADIUS(ctx, t, RADIUSOptions{SessionLimitReply: "691 超出限制的用户数", Accounts: limited})
	ask := func(want string) {
		t.Helper()
		if got := radclient(ctx, t, h, "auth", `User-Name = "one"`, `User-Password = "p"`); !strings.Contains(got, want) {
			t.Errorf("no %s in answer %s", want, got)
		}
	}
	account := func(status string) {
		t.Helper()
		got := radclient(ctx, t, h, "acct", `User-Name = "one"`, "Acct-Status-Type = "+status, `Acct-Session-Id = "a1"`, "NAS-Port = 1",
			"NAS-IP-Address = 127.0.0.1", "Framed-IP-Address = 100.64.0.9", `Calling-Station-Id = "02:00:00:00:00:01"`)
		if !strings.Contains(got, "Accounting-Response") {
			t.Fatalf("answer to accounting %s: %q", status, got)
		}
	}
	sessions := func(want ...RADIUSSession) {
		t.Helper()
		got, err := r.Sessions()
		must(t, err)
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("sessions (-want +got)\n%s", diff)
		}
	}
	ask("Access-Accept")
	sessions()
	account("Start")
	sessions(RADIUSSession{ID: "a1", User: "one", IP: netip.MustParseAddr("100.64.0.9"), MAC: "02:00:00:00:00:01"})
	ask(`Reply-Message = "691 超出限制的用户数"`)
	must(t, r.SetAccounts(ctx, limited)) // sessions outlive that
	ask("Access-Reject")
	account("Stop")
	sessions()
	ask("Access-Accept")
}

func TestRADIUSFaults(t *testing.T) {
	ctx := bounded(t)
	h, r := startTestRADIUS(ctx, t, RADIUSOptions{Accounts: []Account{{Name: "u", Password: "p"}}})
	ask := func() string { return radclient(ctx, t, h, "auth", `User-Name = "u"`, `User-Password = "p"`) }
	r.Silence(true)
	if got := ask(); got != "" {
		t.Errorf("an AAA that is down answers %s", got)
	}
	if all := r.Asked(); len(all) != 1 || all[0].Result != RADIUSUnanswered {
		t.Errorf("asked: %+v", all)
	}
	r.Silence(false)
	r.Delay(500 * time.Millisecond)
	began := time.Now()
	if got := ask(); !strings.Contains(got, "Access-Accept") || time.Since(began) < 500*time.Millisecond {
		t.Errorf("a slow AAA answers %q after %v", got, time.Since(began))
	}
	r.Delay(0)
	must(t, r.SetAccounts(ctx, []Account{{Name: "u", Password: "p", Reject: "no"}}))
	if got := ask(); !strings.Contains(got, "Access-Reject") {
		t.Errorf("accounts are not replaced: %s", got)
	}
	must(t, r.Stop())
	if got := ask(); got != "" {
		t.Errorf("a stopped AAA answers %s", got)
	}
}

func TestRADIUSRefusesWhatCannotBeWritten(t *testing.T) {
	long := strings.Repeat("x", 201)
	for name, o := range map[string]RADIUSOptions{
		"no name":         {Accounts: []Account{{Password: "p"}}},
		"no password":     {Accounts: []Account{{Name: "u"}}},
		"long name":       {Accounts: []Account{{Name: long, Password: "p"}}},
		"line end":        {Accounts: []Account{{Name: "u\nDEFAULT", Password: "p"}}},
		"line end in no":  {Accounts: []Account{{Name: "u", Reject: "a\nb"}}},
		"not UTF-8":       {Accounts: []Account{{Name: "u\xff", Password: "p"}}},
		"negative rate":   {Accounts: []Account{{Name: "u", Password: "p", DownMbps: -1}}},
		"too high a rate": {Accounts: []Account{{Name: "u", Password: "p", UpMbps: 4001}}},
		"address":         {Accounts: []Account{{Name: "u", Password: "p", FramedIP: netip.IPv6Loopback()}}},
		"unknown reply":   {UnknownReply: "a\x00"},
		"wrong reply":     {WrongPasswordReply: long},
		"limit reply":     {SessionLimitReply: "\r\n"},
		"secret":          {Secret: "a\tb"},
	} {
		if o.Secret == "" {
			o.Secret = "secret"
		}
		if _, err := (radiusConfig{options: o, accounts: o.Accounts}).files(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRADIUSAttribute(t *testing.T) {
	packet := append(make([]byte, radiusHeader), 1, 3, 'u', 18, 4, 'a', 'b', 18, 3, 'c')
	packet[3] = byte(len(packet))
	for _, test := range []struct {
		packet []byte
		kind   byte
		want   string
	}{
		{packet, 1, "u"},
		{packet, 18, "abc"},
		{packet, 2, ""},
		{packet[:len(packet)-1], 18, "ab"},
		{packet[:radiusHeader], 1, ""},
		{packet[:3], 1, ""},
		{nil, 1, ""},
		{append(append([]byte{}, packet...), 1, 3, 'x'), 1, "u"}, // behind the packet's own end
		{append(make([]byte, radiusHeader), 1, 0, 1, 1), 1, ""},
	} {
		if got := string(radiusAttribute(test.packet, test.kind)); got != test.want {
			t.Errorf("attribute %d of %x: %q, want %q", test.kind, test.packet, got, test.want)
		}
	}
}

func FuzzRADIUSAttribute(f *testing.F) {
	f.Add(append(make([]byte, radiusHeader), 1, 3, 'u', 18, 4, 'a', 'b'), byte(18))
	f.Fuzz(func(t *testing.T, packet []byte, kind byte) {
		if got := radiusAttribute(packet, kind); len(got) > len(packet) {
			t.Errorf("%d bytes of %d", len(got), len(packet))
		}
	})
}

func TestRADIUSSessionsOfRecords(t *testing.T) {
	for records, want := range map[string]string{
		"": "", "Start|a": "", "Start|a|1.2.3.4|m|u\n": "[a u]",
		"Start|a|1.2.3.4|m|u\nInterim-Update|a|1.2.3.4|m|u\n": "[a u]",
		"Start|a||m|u\nStart|b||m|v|w\n":                      "[a u][b v|w]",
		"Start|a||m|u\nStop|a||m|u\n":                         "",
		"Stop|a||m|u\n":                                       "",
	} {
		var got strings.Builder
		for _, s := range radiusSessions(records) {
			fmt.Fprintf(&got, "[%s %s]", s.ID, s.User)
		}
		if got.String() != want {
			t.Errorf("%q: %s, want %s", records, got.String(), want)
		}
	}
}

func TestRADIUSThatDoesNotStart(t *testing.T) {
	needPrograms(t, "/usr/sbin/freeradius")
	ctx := bounded(t)
	h := newHost(t, newBox(t), "bras")
	blocker, err := h.ListenPacket(ctx, "udp", "127.0.0.1:21812")
	must(t, err)
	defer blocker.Close()
	if r, err := StartRADIUS(ctx, h, RADIUSOptions{}); err == nil {
		t.Error("started on a taken port", r.Stop())
	}
	must(t, blocker.Close())
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := StartRADIUS(gone, h, RADIUSOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("start of somebody who left: %v", err)
	}
	r, err := StartRADIUS(ctx, h, RADIUSOptions{}) // nothing is left of both
	must(t, err)
	must(t, r.Stop())
}
