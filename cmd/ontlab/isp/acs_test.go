package isp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const acsInform = `<soap-env:Envelope xmlns:soap-env="http://schemas.xmlsoap.org/soap/envelope/" xmlns:cwmp="urn:dslforum-org:cwmp-1-0">
<soap-env:Header><cwmp:ID soap-env:mustUnderstand="1">id&amp;1</cwmp:ID></soap-env:Header><soap-env:Body><cwmp:Inform></cwmp:Inform></soap-env:Body></soap-env:Envelope>`

func TestACS(t *testing.T) {
	core, home := coreAndHome(t)
	ctx := t.Context()
	began := time.Now()
	a, err := StartACS(ctx, core, ACSOptions{Listen: netip.MustParseAddrPort("10.64.0.1:0"), Users: map[string]string{"device": "s3cret"}})
	must(t, err)
	t.Logf("started in %v", time.Since(began))
	defer func() { must(t, a.Stop(), a.Stop()) }()

	c := browser(home, patience)
	send := func(body, credentials string) (int, http.Header, string, error) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://10.64.0.1:7547/acs", strings.NewReader(body))
		must(t, err)
		if credentials != "" {
			r.Header.Set("Authorization", credentials)
		}
		answer, err := c.Do(r)
		if err != nil {
			return 0, nil, "", err
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		return answer.StatusCode, answer.Header, string(text), err
	}
	healthy := func() {
		t.Helper()
		status, header, _, err := send(acsInform, "")
		challenge := header.Get("WWW-Authenticate")
		if err != nil || status != 401 || !strings.HasPrefix(challenge, "Digest ") {
			t.Fatalf("without credentials: %d, %q, %v", status, challenge, err)
		}
		if status, _, _, err := send(acsInform, digestAnswer(t, challenge, "POST", "/acs", "device", "wrong", 1)); status != 401 {
			t.Errorf("with a wrong password: %d, %v", status, err)
		}
		if status, _, body, err := send(acsInform, digestAnswer(t, challenge, "POST", "/acs", "device", "s3cret", 1)); status != 200 || !strings.Contains(body, "InformResponse") || !strings.Contains(body, ">id&amp;1<") {
			t.Errorf("Inform: %d %s, %v", status, body, err)
		}
		if status, _, body, err := send("", digestAnswer(t, challenge, "POST", "/acs", "device", "s3cret", 2)); status != 204 || body != "" {
			t.Errorf("nothing: %d %s, %v", status, body, err)
		}
		if status, _, _, err := get(t, c, "http://10.64.0.1:7547/"); status != 405 {
			t.Errorf("GET: %d, %v", status, err)
		}
	}
	healthy()
	for range 2 {
		must(t, a.Down())
		if _, _, _, err := send("", ""); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("down: %v", err)
		}
		must(t, a.Refuse(ctx))
		if _, _, _, err := send("", ""); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("refuse: %v", err)
		}
		must(t, a.Silent(ctx))
		conn, err := home.Dial(ctx, "tcp", "10.64.0.1:7547")
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(100*time.Millisecond)))
		_, _ = io.WriteString(conn, "POST / HTTP/1.0\r\n\r\n")
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("silent: %v", err)
		}
		must(t, a.Drop(ctx))
		soon, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		var late net.Error
		if _, err := home.Dial(soon, "tcp", "10.64.0.1:7547"); !errors.As(err, &late) || !late.Timeout() {
			t.Errorf("drop: %v", err)
		}
		cancel()
		conn.Close()
	}
	must(t, a.Healthy(ctx))
	healthy()
	must(t, a.Stop())
	if a.Healthy(ctx) == nil {
		t.Error("what was stopped for good is there again")
	}
}

// Where nobody's password is known every device is let in that answers.
func TestACSWithoutUsers(t *testing.T) {
	a := &ACS{gate: newDigestGate("acs")}
	challenge := a.gate.challenge(false)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/acs", http.NoBody)
	must(t, err)
	r.Header.Set("Authorization", digestAnswer(t, challenge, "POST", "/acs", "anybody", "whatever", 1))
	if status, _ := a.answer(http.Header{}, r); status != http.StatusNoContent {
		t.Errorf("status %d", status)
	}
	header := http.Header{}
	if status, _ := a.answer(header, r); status != http.StatusUnauthorized || !strings.Contains(header.Get("WWW-Authenticate"), "stale=true") {
		t.Errorf("the same again: %d, %v", status, header)
	}
}

func TestACSID(t *testing.T) {
	for text, want := range map[string]string{acsInform: "id&amp;1", "": "", "<cwmp:ID": "", "<cwmp:ID>1": "", "<cwmp:ID>" + strings.Repeat("1", 65) + "<": ""} {
		if got := acsID(text); got != want {
			t.Errorf("ID of %q is %q", text, got)
		}
	}
}
