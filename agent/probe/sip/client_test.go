package sip_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ontagent/agent/probe/sip"
)

const secret = "pass-Word-7"

// request is what a server got.
type request string

func (r request) method() string { return strings.SplitN(string(r), " ", 2)[0] }

// header returns the lines of a header, whole.
func (r request) header(name string) string {
	return strings.Join(regexp.MustCompile(`(?mi)^`+name+`:.*\r\n`).FindAllString(string(r), -1), "")
}

// reply answers r, with extra header lines.
func (r request) reply(status string, extra ...string) string {
	s := "SIP/2.0 " + status + "\r\n"
	for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq"} {
		s += r.header(name)
	}
	for _, e := range extra {
		s += e + "\r\n"
	}
	return s + "Content-Length: 0\r\n\r\n"
}

// server answers the n-th request, from 1, with messages; "" is a second of
// silence.
type server func(r request, n int) []string

// play runs the client against a server in a bubble, and returns what the
// server got.
func play(t *testing.T, o sip.Options, s server) (res sip.Result, got []request, took time.Duration, err error) {
	t.Helper()
	if !o.Server.IsValid() {
		o.Server = netip.MustParseAddrPort("192.0.2.1:5060")
	}
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		var wg sync.WaitGroup
		done := make(chan struct{})
		wg.Go(func() {
			b := make([]byte, 65536)
			for {
				n, err := far.Read(b)
				if err != nil {
					return
				}
				got = append(got, request(b[:n]))
				answers := s(got[len(got)-1], len(got))
				wg.Go(func() {
					for _, a := range answers {
						if a == "" {
							select {
							case <-time.After(time.Second):
							case <-done:
							}
							continue
						}
						if _, err := io.WriteString(far, a); err != nil {
							return
						}
					}
				})
			}
		})
		begin := time.Now()
		res, err = sip.RunOn(t.Context(), near, o)
		took = time.Since(begin)
		close(done)
		far.Close()
		wg.Wait()
		if took > o.Duration() {
			t.Errorf("took %v, more than %v", took, o.Duration())
		}
	})
	return res, got, took, err
}

const challengeMD5 = `WWW-Authenticate: Digest realm="ims", nonce="n1", qop="auth", algorithm=MD5, opaque="o"`

func account(method sip.Method) sip.Options {
	return sip.Options{Domain: "ims.example", User: "+861000000000", AuthUser: "+861000000000@ims.example", Password: secret, Method: method}
}

func TestOutcomes(t *testing.T) {
	for _, tt := range []struct {
		status string
		extra  []string
		want   sip.Outcome
	}{
		{"200 OK", nil, sip.OK},
		{"302 Moved Temporarily", []string{"Contact: <sip:other.example>"}, sip.Redirected},
		{"403 Account suspended (欠费)", []string{`Warning: 399 as1 "unpaid"`, `Reason: Q.850;cause=21;text="call rejected"`}, sip.Rejected},
		{"404 Not Found", nil, sip.Rejected},
		{"603 Decline", nil, sip.Rejected},
		{"500 Server Internal Error", nil, sip.ServerError},
		{"503 Service Unavailable", []string{"Retry-After: 120 (maintenance)"}, sip.ServerError},
		{"401 Unauthorized", []string{challengeMD5}, sip.Challenged},
		{"407 Proxy Authentication Required", nil, sip.Challenged},
	} {
		res, got, took, err := play(t, sip.Options{}, func(r request, _ int) []string { return []string{r.reply(tt.status, tt.extra...)} })
		code, _ := strconv.Atoi(tt.status[:3])
		if err != nil || res.Outcome != tt.want || res.Code != code || res.ReasonText != tt.status[4:] || len(got) != 1 || took != 0 || res.Removal != "" {
			t.Errorf("%s: %+v, %v", tt.status, res, err)
		}
		for _, e := range tt.extra {
			name, v, _ := strings.Cut(e, ": ")
			if have := map[string]string{"Warning": res.Warning, "Reason": res.Reason, "Retry-After": res.RetryAfter, "Contact": res.Contact}[name]; have != v && name != "WWW-Authenticate" {
				t.Errorf("%s: %q, want %q", name, have, v)
			}
		}
		if res.RTTMs == nil || res.AnswerMs == nil || got[0].method() != "OPTIONS" || strings.Contains(string(got[0]), "Contact") {
			t.Errorf("%+v\n%s", res, got[0])
		}
	}
}

func TestRetransmits(t *testing.T) {
	var at []time.Duration
	var begin time.Time
	res, _, took, err := play(t, sip.Options{}, func(request, int) []string {
		if begin.IsZero() {
			begin = time.Now()
		}
		at = append(at, time.Since(begin))
		return nil
	})
	if err != nil || res.Outcome != sip.NoAnswer || took != 8*time.Second || res.Sent != 5 || res.Retransmissions != 4 || res.RTTMs != nil {
		t.Errorf("%+v after %v, %v", res, took, err)
	}
	if fmt.Sprint(at) != "[0s 500ms 1.5s 3.5s 7.5s]" {
		t.Errorf("sent at %v", at)
	}
	// The third reaches it.
	res, _, took, err = play(t, sip.Options{}, func(r request, n int) []string {
		if n < 3 {
			return nil
		}
		return []string{r.reply("200 OK")}
	})
	if err != nil || res.Outcome != sip.OK || took != 1500*time.Millisecond || res.RTTMs != nil || res.Retransmissions != 2 {
		t.Errorf("%+v after %v, %v", res, took, err)
	}
	// It is on it, for ever.
	res, got, took, err := play(t, sip.Options{}, func(r request, n int) []string {
		return []string{r.reply("100 Trying"), "", r.reply("183 Wait"), "", r.reply("100 Trying"), "", r.reply("100 Trying")}
	})
	if err != nil || res.Outcome != sip.NoAnswer || res.Provisional != 100 || took != 8*time.Second || len(got) != 2 || res.RTTMs == nil {
		t.Errorf("%+v after %v, %v", res, took, err)
	}
	// It takes its time, but not for ever.
	res, _, took, err = play(t, sip.Options{}, func(r request, n int) []string {
		return []string{r.reply("100 Trying"), "", "", "", r.reply("200 OK")}
	})
	if err != nil || res.Outcome != sip.OK || res.Provisional != 100 || took != 3*time.Second {
		t.Errorf("%+v after %v, %v", res, took, err)
	}
}

func TestRegistersAndRemovesItself(t *testing.T) {
	others := "Contact: <sip:phone@192.0.2.50:5060>;expires=3000, \"Door, back\" <sip:door@192.0.2.51>;expires=100"
	res, got, _, err := play(t, account(sip.MethodRegister), func(r request, n int) []string {
		switch n {
		case 1:
			return []string{r.reply("401 Unauthorized", challengeMD5)}
		case 2:
			return []string{r.reply("200 OK", others, strings.TrimSpace(strings.Replace(r.header("Contact"), "expires=60", "expires=45", 1)))}
		}
		return []string{r.reply("200 OK", others)}
	})
	if err != nil || res.Outcome != sip.Registered || res.Removal != sip.Removed || res.ExpiresS != 45 || res.OtherContacts == nil || *res.OtherContacts != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
	if len(got) != 3 || res.Authentications != 1 || res.Realm != "ims" || res.Algorithm != "MD5" {
		t.Errorf("%+v", res)
	}
	contact := regexp.MustCompile(`<sip:probe-[0-9a-f]{16}@192.0.2.9:5062>`).FindString(got[1].header("Contact"))
	if contact == "" || !strings.Contains(got[2].header("Contact"), contact+";expires=0\r\n") || got[2].header("Expires") != "Expires: 0\r\n" || got[1].header("Expires") != "Expires: 60\r\n" {
		t.Errorf("%s%s", got[1], got[2])
	}
	for i, r := range got {
		if r.method() != "REGISTER" || strings.Contains(r.header("Contact"), "*") || r.header("CSeq") != fmt.Sprintf("CSeq: %d REGISTER\r\n", i+1) || r.header("Call-ID") != got[0].header("Call-ID") {
			t.Errorf("%s", r)
		}
		if strings.Contains(string(r), secret) {
			t.Error("a request has the password in it")
		}
	}
	if a := got[1].header("Authorization"); !strings.Contains(a, `username="+861000000000@ims.example"`) || !strings.Contains(a, "nc=00000001") || !strings.Contains(got[2].header("Authorization"), "nc=00000002") {
		t.Errorf("%s%s", a, got[2].header("Authorization"))
	}
}

func TestFetchChangesNothing(t *testing.T) {
	res, got, _, err := play(t, account(sip.MethodFetch), func(r request, n int) []string {
		if n == 1 {
			return []string{r.reply("401 Unauthorized", challengeMD5)}
		}
		return []string{r.reply("200 OK", "m: <sip:phone@192.0.2.50>")}
	})
	if err != nil || res.Outcome != sip.OK || res.Removal != "" || *res.OtherContacts != 1 || len(got) != 2 {
		t.Errorf("%+v, %v", res, err)
	}
	for _, r := range got {
		if r.method() != "REGISTER" || r.header("Contact") != "" || r.header("Expires") != "" {
			t.Errorf("%s", r)
		}
	}
}

func TestAuthentication(t *testing.T) {
	stale := strings.Replace(challengeMD5, "nonce=\"n1\"", "nonce=\"n2\", stale=true", 1)
	sha := `WWW-Authenticate: Digest realm="ims", nonce="n3", qop="auth", algorithm=SHA-256`
	unknown := `WWW-Authenticate: Digest realm="ims", nonce="n4", algorithm=AKAv1-MD5`
	basic := `WWW-Authenticate: Basic realm="ims"`
	proxy := `Proxy-Authenticate: Digest realm="edge", nonce="n5"`
	for _, tt := range []struct {
		name    string
		answers []string // the header of each 401; "" for 200
		want    sip.Outcome
		auths   int
		algo    string
	}{
		{"right", []string{challengeMD5, ""}, sip.OK, 1, "MD5"},
		{"right, SHA-256", []string{sha, ""}, sip.OK, 1, "SHA-256"},
		{"the server's first choice that is known", []string{unknown + "\r\n" + sha + "\r\n" + challengeMD5, ""}, sip.OK, 1, "SHA-256"},
		{"by the proxy", []string{proxy, ""}, sip.OK, 1, "MD5"},
		{"wrong password", []string{challengeMD5, challengeMD5}, sip.Unauthorized, 1, "MD5"},
		{"wrong password, new nonce", []string{challengeMD5, strings.Replace(challengeMD5, "n1", "n9", 1)}, sip.Unauthorized, 1, "MD5"},
		{"stale once", []string{challengeMD5, stale, ""}, sip.OK, 2, "MD5"},
		{"stale for ever", []string{challengeMD5, stale, stale, stale, stale}, sip.Unauthorized, 2, "MD5"},
		{"unknown", []string{unknown}, sip.Unsupported, 0, ""},
		{"basic", []string{basic}, sip.Unsupported, 0, ""},
		{"none", []string{"X: y"}, sip.Unsupported, 0, ""},
		{"none the second time", []string{challengeMD5, "X: y"}, sip.Unauthorized, 1, "MD5"},
	} {
		for _, method := range []sip.Method{sip.MethodOptions, sip.MethodFetch} {
			res, got, _, err := play(t, account(method), func(r request, n int) []string {
				if n > len(tt.answers) {
					t.Errorf("%s: a request too many", tt.name)
					return nil
				}
				switch h := tt.answers[n-1]; {
				case h == "":
					return []string{r.reply("200 OK")}
				case strings.HasPrefix(h, "Proxy"):
					return []string{r.reply("407 Proxy Authentication Required", h)}
				default:
					return []string{r.reply("401 Unauthorized", h)}
				}
			})
			if err != nil || res.Outcome != tt.want || res.Authentications != tt.auths || res.Algorithm != tt.algo || len(got) != tt.auths+1 {
				t.Errorf("%s: %+v, %d requests, %v", tt.name, res, len(got), err)
			}
			if tt.name == "by the proxy" && (got[1].header("Proxy-Authorization") == "" || strings.Contains(string(got[1]), "\r\nAuthorization")) {
				t.Errorf("%s", got[1])
			}
			if b, _ := json.Marshal(res); strings.Contains(string(b)+fmt.Sprintf("%+v %#v", res, res), secret) {
				t.Error("the result has the password in it")
			}
		}
	}
}

func TestRegisterWrongPasswordLeavesNothing(t *testing.T) {
	res, got, _, err := play(t, account(sip.MethodRegister), func(r request, n int) []string {
		return []string{r.reply("401 Unauthorized", challengeMD5)}
	})
	if err != nil || res.Outcome != sip.Unauthorized || res.Removal != "" || len(got) != 2 {
		t.Errorf("%+v, %d requests, %v", res, len(got), err)
	}
}

func TestRegisterForLonger(t *testing.T) {
	var expiries []string
	answer := func(least string) server {
		expiries = nil
		return func(r request, n int) []string {
			if e := r.header("Expires"); e != "" {
				expiries = append(expiries, strings.TrimSpace(e[9:]))
			}
			switch n {
			case 1:
				return []string{r.reply("401 Unauthorized", challengeMD5)}
			case 2:
				return []string{r.reply("423 Interval Too Brief", "Min-Expires: "+least)}
			}
			return []string{r.reply("200 OK")}
		}
	}
	res, _, _, err := play(t, account(sip.MethodRegister), answer("300"))
	if err != nil || res.Outcome != sip.Registered || fmt.Sprint(expiries) != "[60 60 300 0]" || res.Removal != sip.Removed || res.Authentications != 2 {
		t.Errorf("%+v, %v, %v", res, expiries, err)
	}
	for _, least := range []string{"86400", "x", "-1"} {
		res, got, _, err := play(t, account(sip.MethodRegister), answer(least))
		if err != nil || res.Outcome != sip.Rejected || res.Code != 423 || len(got) != 2 || res.Removal != "" {
			t.Errorf("%s: %+v, %v", least, res, err)
		}
	}
}

func TestRemoval(t *testing.T) {
	fresh := strings.Replace(challengeMD5, "n1", "n2", 1)
	for _, tt := range []struct {
		name    string
		removal []string // status of each answer to a removal; "" for none
		want    sip.Removal
		outcome sip.Outcome
		silent  bool // the registration isn't answered either
	}{
		{"done", []string{"200 OK"}, sip.Removed, sip.Registered, false},
		{"fresh nonce", []string{"401 Unauthorized", "200 OK"}, sip.Removed, sip.Registered, false},
		{"fresh nonces for ever", []string{"401 Unauthorized", "401 Unauthorized"}, sip.NotRemoved, sip.Registered, false},
		{"refused", []string{"500 No"}, sip.NotRemoved, sip.Registered, false},
		{"silence", []string{""}, sip.MayRemain, sip.Registered, false},
		{"answer to the registration lost", []string{"200 OK"}, sip.Removed, sip.NoAnswer, true},
	} {
		removals := map[string]bool{}
		n := 0
		res, _, _, err := play(t, account(sip.MethodRegister), func(r request, _ int) []string {
			switch {
			case r.header("Authorization") == "":
				return []string{r.reply("401 Unauthorized", challengeMD5)}
			case r.header("Expires") != "Expires: 0\r\n" && tt.silent:
				return nil
			case r.header("Expires") != "Expires: 0\r\n":
				return []string{r.reply("200 OK", r.header("Contact")[:len(r.header("Contact"))-2])}
			}
			if !removals[r.header("Via")] {
				removals[r.header("Via")] = true
				n++
			}
			if n > len(tt.removal) {
				t.Errorf("%s: a removal too many", tt.name)
				return nil
			}
			status := tt.removal[n-1]
			if status == "" {
				return nil
			}
			return []string{r.reply(status, fresh)}
		})
		if err != nil || res.Outcome != tt.outcome || res.Removal != tt.want || n != len(tt.removal) || res.Authentications != 1 || !tt.silent && res.Code != 200 {
			t.Errorf("%s: %+v, %d removals, %v", tt.name, res, n, err)
		}
	}
}

func TestWrongAnswers(t *testing.T) {
	change := func(from, to string) func(r request) string {
		return func(r request) string {
			return regexp.MustCompile(from).ReplaceAllString(r.reply("200 OK"), to)
		}
	}
	for name, wrong := range map[string]func(r request) string{
		"truncated":       func(r request) string { s := r.reply("200 OK"); return s[:len(s)-3] },
		"body missing":    change(`Content-Length: 0`, "Content-Length: 10"),
		"oversized":       func(r request) string { return r.reply("200 OK", "X: "+strings.Repeat("x", 17000)) },
		"two Via":         change(`(Via: .*\r\n)`, "${1}Via: SIP/2.0/UDP other;branch=z9hG4bKx\r\n"),
		"two Via, folded": change(`(Via: .*)\r\n`, "${1},\r\n SIP/2.0/UDP other;branch=z9hG4bKx\r\n"),
		"no Via":          change(`Via: .*\r\n`, ""),
		"wrong branch":    change(`branch=\w+`, "branch=z9hG4bKother"),
		"wrong CSeq":      change(`CSeq: 1`, "CSeq: 2"),
		"wrong method":    change(`CSeq: 1 OPTIONS`, "CSeq: 1 INVITE"),
		"wrong Call-ID":   change(`Call-ID: .*`, "Call-ID: other"),
		"no SIP":          func(request) string { return "HTTP/1.1 200 OK\r\n\r\n" },
		"noise":           func(request) string { return "\x00\x01\x02\xff" },
	} {
		res, _, took, err := play(t, sip.Options{}, func(r request, _ int) []string { return []string{wrong(r)} })
		if err != nil || res.Outcome != sip.Malformed || res.Detail == "" || res.Evidence == "" || len(res.Evidence) > 256 || took != 8*time.Second {
			t.Errorf("%s: %+v after %v, %v", name, res, took, err)
		}
		// Beside a right one it only counts.
		res, _, _, err = play(t, sip.Options{}, func(r request, _ int) []string { return []string{wrong(r), r.reply("200 OK")} })
		if err != nil || res.Outcome != sip.OK {
			t.Errorf("%s and a right one: %+v, %v", name, res, err)
		}
	}
	// What is no answer at all isn't malformed.
	res, _, _, err := play(t, sip.Options{}, func(r request, _ int) []string {
		return []string{"\r\n\r\n", "NOTIFY sip:probe@192.0.2.9 SIP/2.0\r\nVia: SIP/2.0/UDP x;branch=1\r\n\r\n"}
	})
	if err != nil || res.Outcome != sip.NoAnswer || res.Unexpected == 0 {
		t.Errorf("%+v, %v", res, err)
	}
	// Folding and compact names are as good as any.
	res, _, _, err = play(t, sip.Options{}, func(r request, _ int) []string {
		s := strings.Replace(r.reply("200 OK", "Warning: 399 a\r\n\t\"b\""), "Via: SIP", "v:\r\n SIP", 1)
		return []string{strings.Replace(strings.Replace(s, "Call-ID", "i", 1), ";rport", ";rport=4444;received=203.0.113.7", 1)}
	})
	if err != nil || res.Outcome != sip.OK || res.Warning != `399 a "b"` || res.Mapped != "203.0.113.7:4444" {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestFloodEnds(t *testing.T) {
	for _, flood := range []string{"garbage", "SIP/2.0 100 Trying\r\n\r\n", "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP x;branch=y\r\n\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					if _, err := io.WriteString(far, flood); err != nil {
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
			wg.Go(func() { _, _ = io.Copy(io.Discard, far) })
			o := sip.Options{Server: netip.MustParseAddrPort("192.0.2.1:5060")}
			begin := time.Now()
			res, err := sip.RunOn(t.Context(), near, o)
			if took := time.Since(begin); err != nil || res.Outcome != sip.Malformed || took > 8*time.Second+time.Millisecond {
				t.Errorf("%+v after %v, %v", res, took, err)
			}
			far.Close()
			wg.Wait()
		})
	}
}

func TestStream(t *testing.T) {
	o := sip.Options{Transport: "tcp"}
	for name, answers := range map[string]func(r request) []string{
		"whole": func(r request) []string { return []string{r.reply("200 OK")} },
		"in pieces": func(r request) []string {
			s := r.reply("200 OK")
			return []string{s[:1], s[1:40], "", s[40 : len(s)-1], s[len(s)-1:]}
		},
		"kept alive": func(r request) []string { return []string{"\r\n\r\n", "\r\n" + r.reply("200 OK")} },
		"two in one": func(r request) []string { return []string{r.reply("100 Trying") + r.reply("200 OK")} },
		"with a body": func(r request) []string {
			return []string{strings.Replace(r.reply("100 Trying"), "Length: 0", "Length: 2", 1) + "xy" + r.reply("200 OK")}
		},
		"after others": func(r request) []string { return []string{"NOTIFY sip:a SIP/2.0\r\n\r\n" + r.reply("200 OK")} },
	} {
		res, got, _, err := play(t, o, func(r request, _ int) []string { return answers(r) })
		if err != nil || res.Outcome != sip.OK || len(got) != 1 || !strings.Contains(got[0].header("Via"), "SIP/2.0/TCP") {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	for name, answer := range map[string]string{
		"no SIP": "HTTP/1.1 400 Bad Request\r\n\r\n", "endless": strings.Repeat("x", 17000), "long": "SIP/2.0 200 OK\r\nl: 99999\r\n\r\n",
	} {
		res, _, took, err := play(t, o, func(request, int) []string { return []string{answer} })
		if err != nil || res.Outcome != sip.Malformed || took != 0 {
			t.Errorf("%s: %+v after %v, %v", name, res, took, err)
		}
	}
	// Silence: nothing is sent twice.
	res, got, took, err := play(t, o, func(request, int) []string { return nil })
	if err != nil || res.Outcome != sip.NoAnswer || len(got) != 1 || took != 8*time.Second {
		t.Errorf("%+v, %v", res, err)
	}
}

// fakeConn is a connection that fails.
type fakeConn struct {
	net.Conn
	read, write error
}

func (f fakeConn) Read(b []byte) (int, error) {
	if f.read != nil {
		return 0, &net.OpError{Op: "read", Err: f.read}
	}
	return f.Conn.Read(b)
}

func (f fakeConn) Write(b []byte) (int, error) {
	if f.write != nil {
		return 0, &net.OpError{Op: "write", Err: f.write}
	}
	return len(b), nil
}

func TestErrorsOfTheConnection(t *testing.T) {
	for _, tt := range []struct {
		conn      fakeConn
		transport string
		want      sip.Outcome
		err       error
	}{
		{fakeConn{read: syscall.ECONNREFUSED}, "udp", sip.Unreachable, nil},
		{fakeConn{write: syscall.ECONNREFUSED}, "udp", sip.Unreachable, nil},
		{fakeConn{write: syscall.ENETUNREACH}, "udp", sip.Unreachable, nil},
		{fakeConn{read: syscall.EHOSTUNREACH}, "tcp", sip.Unreachable, nil},
		{fakeConn{read: io.EOF}, "tcp", sip.NoAnswer, nil},
		{fakeConn{read: syscall.ECONNRESET}, "tcp", sip.NoAnswer, nil},
		{fakeConn{write: syscall.EPIPE}, "tcp", sip.NoAnswer, nil},
		{fakeConn{write: syscall.EPERM}, "udp", sip.NoAnswer, sip.ErrNotPermitted},
		{fakeConn{write: syscall.ENODEV}, "udp", sip.NoAnswer, sip.ErrNoInterface},
		{fakeConn{read: syscall.ENETDOWN}, "udp", sip.NoAnswer, sip.ErrInterfaceDown},
	} {
		for _, method := range []sip.Method{sip.MethodOptions, sip.MethodRegister} {
			near, far := net.Pipe()
			tt.conn.Conn = near
			o := account(method)
			o.Transport = tt.transport
			res, err := sip.RunOn(t.Context(), tt.conn, o)
			if res.Outcome != tt.want || !errors.Is(err, tt.err) || tt.want == sip.Unreachable && res.Detail == "" {
				t.Errorf("%+v: %+v, %v", tt.conn, res, err)
			}
			far.Close()
		}
	}
}

func TestContextEndsTheRun(t *testing.T) {
	for at := time.Duration(0); at < 6*time.Second; at += 300 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			var wg sync.WaitGroup
			var got []request
			wg.Go(func() {
				b := make([]byte, 65536)
				for {
					n, err := far.Read(b)
					if err != nil {
						return
					}
					r := request(b[:n])
					got = append(got, r)
					time.Sleep(time.Second)
					switch {
					case r.header("Authorization") == "":
						io.WriteString(far, r.reply("401 Unauthorized", challengeMD5))
					default:
						io.WriteString(far, r.reply("200 OK"))
					}
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), at)
			defer cancel()
			begin := time.Now()
			res, err := sip.RunOn(ctx, near, account(sip.MethodRegister))
			if took := time.Since(begin); took > at+100*time.Millisecond {
				t.Errorf("at %v: ended at %v", at, took)
			}
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("at %v: %v", at, err)
			}
			far.Close()
			wg.Wait()
			registered := false
			for _, r := range got {
				registered = registered || r.header("Authorization") != "" && r.header("Expires") == "Expires: 60\r\n"
			}
			if registered && res.Removal == "" {
				t.Errorf("at %v: %+v", at, res)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	good := account(sip.MethodRegister)
	good.Server = netip.MustParseAddrPort("192.0.2.1:5060")
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	if d := (sip.Options{}).Duration(); d < 8*time.Second || d > 14*time.Second {
		t.Errorf("takes %v", d)
	}
	for name, bad := range map[string]func(o *sip.Options){
		"no server":        func(o *sip.Options) { o.Server = netip.AddrPort{} },
		"method":           func(o *sip.Options) { o.Method = "INVITE" },
		"transport":        func(o *sip.Options) { o.Transport = "sctp" },
		"no user":          func(o *sip.Options) { o.User = "" },
		"user of lines":    func(o *sip.Options) { o.User = "a\r\nContact: *" },
		"auth user":        func(o *sip.Options) { o.AuthUser = `a", uri="x` },
		"auth user, slash": func(o *sip.Options) { o.AuthUser = `a\` },
		"domain":           func(o *sip.Options) { o.Domain = "a b" },
		"domain of lines":  func(o *sip.Options) { o.Domain = "a\r\nX: y" },
		"agent":            func(o *sip.Options) { o.UserAgent = "a\nb" },
		"source":           func(o *sip.Options) { o.Source = netip.MustParseAddr("fd00::1") },
	} {
		o := good
		bad(&o)
		if o.Check() == nil {
			t.Errorf("%s is accepted", name)
		}
		if _, err := sip.Run(t.Context(), o); err == nil {
			t.Errorf("%s is run", name)
		}
	}
	all := fmt.Sprintf("%v %+v %#v %s", good, good, good, &good)
	b, err := json.Marshal(good)
	if err != nil || strings.Contains(all+string(b), secret) || !strings.Contains(all, "+861000000000@ims.example") {
		t.Errorf("prints %s %s", all, b)
	}
	// A user with characters that a URI must not have.
	_, got, _, _ := play(t, sip.Options{Domain: "d", User: "a b@c>\"", Method: sip.MethodFetch, AuthUser: "x"}, func(r request, _ int) []string { return []string{r.reply("200 OK")} })
	if want := "From: <sip:a%20b%40c%3E%22@d>;tag="; !strings.HasPrefix(got[0].header("From"), want) {
		t.Errorf("%s", got[0].header("From"))
	}
}
