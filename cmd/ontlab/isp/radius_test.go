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

// radiusAsk asks the AAA for an authentication, once, and returns the answer's
// packet; nil if there is none.
func radiusAsk(ctx context.Context, t *testing.T, h *netbox.Host, user, password string, chap bool) []byte {
	t.Helper()
	packet := append([]byte{radiusAccessRequest, 7, 0, 0}, "0123456789abcdef"...) // the authenticator, which is CHAP's challenge too
	add := func(kind byte, value []byte) {
		packet = append(append(packet, kind, byte(len(value)+2)), value...)
	}
	add(radiusUserName, []byte(user))
	if chap { // RFC 1994 section 4.1
		digest := md5.Sum([]byte("\x07" + password + "0123456789abcdef"))
		add(3, append([]byte{7}, digest[:]...))
	} else { // RFC 2865 section 5.2
		padded := append([]byte(password), make([]byte, 16-len(password)%16)...)
		before := "0123456789abcdef"
		for i := 0; i < len(padded); i += 16 {
			key := md5.Sum([]byte("secret" + before))
			for k := range key {
				padded[i+k] ^= key[k]
			}
			before = string(padded[i : i+16])
		}
		add(2, padded)
	}
	packet[3] = byte(len(packet))
	c, err := h.Dial(ctx, "udp", fmt.Sprint("127.0.0.1:", radiusAuthPort))
	must(t, err)
	defer c.Close()
	_, err = c.Write(packet)
	must(t, err, c.SetReadDeadline(time.Now().Add(2*time.Second)))
	answer := make([]byte, radiusMaxPacket)
	n, err := c.Read(answer)
	if err != nil {
		return nil
	}
	return answer[:n]
}

// radclient tells the AAA of a session, by a client that is not ours.
func radclient(ctx context.Context, t *testing.T, h *netbox.Host, attributes ...string) {
	t.Helper()
	must(t, h.WriteFile("request", []byte(strings.Join(attributes, "\n")+"\n"), 0o600))
	out, err := h.Run(ctx, "/usr/bin/radclient", "-x", "-r", "1", "-t", "2", "-f", "request", fmt.Sprint("127.0.0.1:", radiusAcctPort), "acct", "secret")
	if err != nil || !strings.Contains(string(out), "Received Accounting-Response") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestRADIUSAnswers(t *testing.T) {
	ctx := bounded(t)
	h, r := startTestRADIUS(ctx, t, RADIUSOptions{
		UnknownReply: "691 无此用户", WrongPasswordReply: `691 密码错 it's "wrong" \ %{User-Name}`, SessionLimitReply: "691 超出限制的用户数",
		Accounts: []Account{
			{Name: "u1@isp", Password: "p1", DownMbps: 20, UpMbps: 0.5, FramedIP: netip.MustParseAddr("100.64.7.7"), SessionTimeout: 90 * time.Second},
			{Name: `o'b"r\ien %{1}`, Password: `pa'ss"wo\rd \\ \' %{2} #x`},
			{Name: "suspended", Password: "p2", Reject: `691 状态错 'suspended' \ %{User-Name}`},
			{Name: "one", Password: "p3", SessionLimit: 1},
		},
	})
	for _, test := range []struct {
		name, user, password string
		code                 byte
		reply                string
	}{
		{"accepted", "u1@isp", "p1", radiusAccessAccept, ""},
		{"strange characters", `o'b"r\ien %{1}`, `pa'ss"wo\rd \\ \' %{2} #x`, radiusAccessAccept, ""},
		{"wrong password", "u1@isp", "p2", radiusAccessReject, `691 密码错 it's "wrong" \ %{User-Name}`},
		{"empty password", "u1@isp", "", radiusAccessReject, `691 密码错 it's "wrong" \ %{User-Name}`},
		{"unknown", "nobody", "p1", radiusAccessReject, "691 无此用户"},
		{"suspended", "suspended", "p2", radiusAccessReject, `691 状态错 'suspended' \ %{User-Name}`},
	} {
		for _, chap := range []bool{false, true} {
			t.Run(fmt.Sprint(test.name, " CHAP ", chap), func(t *testing.T) {
				answer := radiusAsk(ctx, t, h, test.user, test.password, chap)
				if len(answer) == 0 || answer[0] != test.code {
					t.Fatalf("answer: %x", answer)
				}
				if reply := string(radiusAttribute(answer, radiusReplyMessage)); reply != test.reply {
					t.Errorf("reply %q, want %q", reply, test.reply)
				}
				if test.name == "accepted" {
					for kind, want := range map[byte]string{
						8:  "\x64\x40\x07\x07",
						26: "\x00\x00\x37\x2a\x08\x06\x01\x31\x2d\x00\x00\x00\x37\x2a\x07\x06\x00\x07\xa1\x20", // WISPr's
						27: "\x00\x00\x00\x5a",
					} {
						if got := string(radiusAttribute(answer, kind)); got != want {
							t.Errorf("attribute %d is %x, want %x", kind, got, want)
						}
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
	ask := func(code byte, reply string) {
		t.Helper()
		answer := radiusAsk(ctx, t, h, "one", "p", false)
		if len(answer) == 0 || answer[0] != code || string(radiusAttribute(answer, radiusReplyMessage)) != reply {
			t.Errorf("answer %q, want code %d and %q", answer, code, reply)
		}
	}
	account := func(status string) {
		t.Helper()
		radclient(ctx, t, h, `User-Name = "one"`, "Acct-Status-Type = "+status, `Acct-Session-Id = "a1"`, "NAS-Port = 1",
			"NAS-IP-Address = 127.0.0.1", "Framed-IP-Address = 100.64.0.9", `Calling-Station-Id = "02:00:00:00:00:01"`)
	}
	sessions := func(want ...RADIUSSession) {
		t.Helper()
		got, err := r.Sessions()
		must(t, err)
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("sessions (-want +got)\n%s", diff)
		}
	}
	ask(radiusAccessAccept, "")
	sessions()
	account("Start")
	sessions(RADIUSSession{ID: "a1", User: "one", IP: netip.MustParseAddr("100.64.0.9"), MAC: "02:00:00:00:00:01"})
	ask(radiusAccessReject, "691 超出限制的用户数")
	must(t, r.SetAccounts(ctx, limited)) // sessions outlive that
	ask(radiusAccessReject, "691 超出限制的用户数")
	account("Stop")
	sessions()
	ask(radiusAccessAccept, "")
}

func TestRADIUSFaults(t *testing.T) {
	ctx := bounded(t)
	h, r := startTestRADIUS(ctx, t, RADIUSOptions{Accounts: []Account{{Name: "u", Password: "p"}}})
	ask := func() byte {
		if answer := radiusAsk(ctx, t, h, "u", "p", false); len(answer) > 0 {
			return answer[0]
		}
		return 0
	}
	r.Silence(true)
	if got := ask(); got != 0 {
		t.Errorf("an AAA that is down answers %d", got)
	}
	if all := r.Asked(); len(all) != 1 || all[0].Result != RADIUSUnanswered {
		t.Errorf("asked: %+v", all)
	}
	r.Silence(false)
	r.Delay(500 * time.Millisecond)
	began := time.Now()
	if got := ask(); got != radiusAccessAccept || time.Since(began) < 500*time.Millisecond {
		t.Errorf("a slow AAA answers %d after %v", got, time.Since(began))
	}
	r.Delay(0)
	must(t, r.SetAccounts(ctx, []Account{{Name: "u", Password: "p", Reject: "no"}}))
	if got := ask(); got != radiusAccessReject {
		t.Errorf("accounts are not replaced: %d", got)
	}
	must(t, r.Stop())
	if got := ask(); got != 0 {
		t.Errorf("a stopped AAA answers %d", got)
	}
}

func TestRADIUSRefusesWhatCannotBeWritten(t *testing.T) {
	long := strings.Repeat("x", 201)
	for name, o := range map[string]RADIUSOptions{
		"no name":              {Accounts: []Account{{Password: "p"}}},
		"no password":          {Accounts: []Account{{Name: "u"}}},
		"long name":            {Accounts: []Account{{Name: long, Password: "p"}}},
		"backslash at the end": {Accounts: []Account{{Name: `u\`, Password: "p"}}},
		"backslash and quote":  {Accounts: []Account{{Name: `u\'x`, Password: "p"}}},
		"line end":             {Accounts: []Account{{Name: "u\nDEFAULT", Password: "p"}}},
		"line end in no":       {Accounts: []Account{{Name: "u", Reject: "a\nb"}}},
		"not UTF-8":            {Accounts: []Account{{Name: "u\xff", Password: "p"}}},
		"negative rate":        {Accounts: []Account{{Name: "u", Password: "p", DownMbps: -1}}},
		"too high a rate":      {Accounts: []Account{{Name: "u", Password: "p", UpMbps: 4001}}},
		"address":              {Accounts: []Account{{Name: "u", Password: "p", FramedIP: netip.IPv6Loopback()}}},
		"unknown reply":        {UnknownReply: "a\x00"},
		"wrong reply":          {WrongPasswordReply: long},
		"limit reply":          {SessionLimitReply: "\r\n"},
		"secret":               {Secret: "a\tb"},
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
