package isp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/google/go-cmp/cmp"

	"ontagent/cmd/ontlab/netbox"
)

// phone is a client on a host, over UDP.
type phone struct {
	t        *testing.T
	conn     net.Conn
	sequence int
}

func newPhone(t *testing.T, from *netbox.Host, at string) *phone {
	t.Helper()
	conn, err := from.Dial(t.Context(), "udp", at)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return &phone{t: t, conn: conn}
}

// request returns a request of the phone's, with these headers.
func (p *phone) request(method, uri, to string, headers ...string) string {
	p.sequence++
	return fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%d-%d;rport\r\nFrom: <%s>;tag=1\r\nTo: <%s>\r\nCall-ID: call@phone\r\nCSeq: %d %s\r\nMax-Forwards: 70\r\n%sContent-Length: 0\r\n\r\n",
		method, uri, p.conn.LocalAddr(), p.sequence, time.Now().UnixNano(), to, to, p.sequence, method, strings.Join(append(headers, ""), "\r\n"))
}

// say sends a request and returns the answer.
func (p *phone) say(request string, wait time.Duration) (*sip.Response, error) {
	p.t.Helper()
	must(p.t, p.conn.SetDeadline(time.Now().Add(wait)))
	if _, err := p.conn.Write([]byte(request)); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	n, err := p.conn.Read(buf)
	if err != nil {
		return nil, err
	}
	m, err := sip.NewParser().ParseSIP(buf[:n])
	must(p.t, err)
	res, ok := m.(*sip.Response)
	if !ok || res.CSeq().SeqNo != uint32(p.sequence) {
		p.t.Fatalf("this is no answer: %q", buf[:n])
	}
	return res, nil
}

// register registers as a phone does: once without credentials, and with them
// if it is asked.
func (p *phone) register(user, password string, headers ...string) (string, *sip.Response) {
	p.t.Helper()
	const uri = "sip:voice.example"
	aor := "sip:" + user + "@voice.example"
	res, err := p.say(p.request("REGISTER", uri, aor, headers...), patience)
	must(p.t, err)
	if res.StatusCode == sip.StatusUnauthorized {
		credentials := digestAnswer(p.t, res.GetHeader("WWW-Authenticate").Value(), "REGISTER", uri, user, password, 1)
		res, err = p.say(p.request("REGISTER", uri, aor, append(headers, "Authorization: "+credentials)...), patience)
		must(p.t, err)
	}
	return fmt.Sprintf("%d %s", res.StatusCode, res.Reason), res
}

func TestSIP(t *testing.T) {
	core, home := coreAndHome(t)
	began := time.Now()
	s, err := StartSIP(bounded(t), core, SIPOptions{
		Listen: netip.MustParseAddrPort("10.64.0.1:0"), Domain: "voice.example",
		Accounts: []SIPAccount{
			{User: "+4912345", Password: "s3cret"},
			{User: "+4967890", Password: "s3cret", Code: 403, Reason: "Account Suspended"},
		},
	})
	must(t, err)
	t.Logf("started in %v", time.Since(began))
	defer func() { must(t, s.Stop(), s.Stop()) }()
	p := newPhone(t, home, "10.64.0.1:5060")
	options := func() string { return p.request("OPTIONS", "sip:voice.example", "sip:voice.example") }
	contact := "Contact: <sip:+4912345@" + p.conn.LocalAddr().String() + ">"

	healthy := func() {
		t.Helper()
		res, err := p.say(options(), patience)
		if err != nil || res.StatusCode != sip.StatusOK || res.GetHeader("Allow") == nil {
			t.Fatalf("OPTIONS: %v, %v", res, err)
		}
		for _, try := range []struct {
			user, password string
			headers        []string
			want           string
		}{
			{"+4912345", "s3cret", []string{contact}, "200 OK"},
			{"+4912345", "wrong", []string{contact}, "403 Forbidden"},
			{"+49000", "s3cret", []string{contact}, "404 Not Found"},
			{"+4967890", "s3cret", []string{contact}, "403 Account Suspended"},
			{"+4967890", "wrong", []string{contact}, "403 Forbidden"},
			{"+4912345", "s3cret", []string{contact + ";expires=10"}, "423 Interval Too Brief"},
			{"+4912345", "s3cret", []string{"Contact: *", "Expires: 10"}, "400 Wildcard Without Expires 0"},
		} {
			if got, _ := p.register(try.user, try.password, try.headers...); got != try.want {
				t.Errorf("REGISTER as %s with %s and %q: %s, want %s", try.user, try.password, try.headers, got, try.want)
			}
		}
	}
	healthy()

	bound := func(want ...string) {
		t.Helper()
		var got []string
		for _, b := range s.Bindings() {
			got = append(got, fmt.Sprintf("%s %s %v", b.User, b.Contact, time.Until(b.Expires).Round(time.Minute)))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("bindings (-want +got):\n%s", diff)
		}
	}
	own := "+4912345 sip:+4912345@" + p.conn.LocalAddr().String()
	bound(own + " 1h0m0s")
	_, res := p.register("+4912345", "s3cret", contact+";expires=120", "Contact: <sip:x@10.64.0.7>", "Expires: 300")
	bound(own+" 2m0s", "+4912345 sip:x@10.64.0.7 5m0s")
	var told []string
	for _, h := range res.GetHeaders("Contact") {
		told = append(told, h.Value())
	}
	if diff := cmp.Diff([]string{"<sip:+4912345@" + p.conn.LocalAddr().String() + ">;expires=120", "<sip:x@10.64.0.7>;expires=300"}, told); diff != "" {
		t.Errorf("contacts of the answer (-want +got):\n%s", diff)
	}
	p.register("+4912345", "s3cret", contact+";expires=0")
	bound("+4912345 sip:x@10.64.0.7 5m0s")
	p.register("+4912345", "s3cret", "Contact: *", "Expires: 0")
	bound()
	if got, _ := p.register("+4912345", "s3cret"); got != "200 OK" { // asks only
		t.Errorf("REGISTER without contact: %s", got)
	}

	for _, strange := range []string{
		p.request("MESSAGE", "sip:voice.example", "sip:voice.example"), "", "\r\n\r\n", "REGISTER", "REGISTER sip: SIP/2.0\r\n\r\n",
		"REGISTER sip:voice.example SIP/2.0\r\nVia: x\r\nCSeq: x\r\n\r\n", strings.Repeat("x", 1400), "SIP/2.0 200 OK\r\n\r\n",
	} {
		_, err := p.conn.Write([]byte(strange))
		must(t, err)
	}
	p = newPhone(t, home, "10.64.0.1:5060") // answers to those may come still
	contact = "Contact: <sip:+4912345@" + p.conn.LocalAddr().String() + ">"
	healthy()

	must(t, s.Reject(503, "Maintenance"))
	if res, err := p.say(options(), patience); err != nil || res.StatusCode != sip.StatusServiceUnavailable || res.Reason != "Maintenance" {
		t.Errorf("reject: %v, %v", res, err)
	}
	if got, _ := p.register("+4912345", "s3cret", contact); got != "503 Maintenance" {
		t.Errorf("reject: %s", got)
	}
	s.Silent()
	if _, err := p.say(options(), 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
	s.Slow(200 * time.Millisecond)
	asked := time.Now()
	if res, err := p.say(options(), patience); err != nil || res.StatusCode != sip.StatusOK || time.Since(asked) < 200*time.Millisecond {
		t.Errorf("slow: %v, %v after %v", res, err, time.Since(asked))
	}
	s.Healthy()
	healthy()
	if s.Reject(200, "OK") == nil || s.Reject(403, "No\r\nWay: out") == nil {
		t.Error("faults that are none are played")
	}
	s.Slow(time.Hour)
	if _, err := p.say(options(), 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) { // and Stop does not wait for it
		t.Errorf("slow by an hour: %v", err)
	}
}

func TestSIPByTCP(t *testing.T) {
	core, home := coreAndHome(t)
	s, err := StartSIP(bounded(t), core, SIPOptions{Listen: netip.MustParseAddrPort("[fd00:64::1]:5060"), Domain: "voice.example"})
	must(t, err)
	defer func() { must(t, s.Stop()) }()
	conn, err := home.Dial(t.Context(), "tcp", "[fd00:64::1]:5060")
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	p := &phone{t: t, conn: conn}
	res, err := p.say(strings.Replace(p.request("OPTIONS", "sip:voice.example", "sip:voice.example"), "/UDP", "/TCP", 1), patience)
	if err != nil || res.StatusCode != sip.StatusOK {
		t.Errorf("OPTIONS: %v, %v", res, err)
	}
	s.Silent()
	if _, err := p.say(strings.Replace(p.request("OPTIONS", "sip:voice.example", "sip:voice.example"), "/UDP", "/TCP", 1), 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silent: %v", err)
	}
}
