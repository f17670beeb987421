package isp

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// digestAnswer is a client's answer to a challenge.
func digestAnswer(t *testing.T, challenge, method, uri, user, password string, count uint64) string {
	t.Helper()
	c := digestCredentials{user: user, uri: uri, cnonce: "0a4f113b", qop: "auth", nc: fmt.Sprintf("%08x", count)}
	for field, value := range map[string]*string{"realm": &c.realm, "nonce": &c.nonce} {
		_, rest, ok := strings.Cut(challenge, field+`="`)
		if *value, _, _ = strings.Cut(rest, `"`); !ok {
			t.Fatalf("no %s in challenge %s", field, challenge)
		}
	}
	return fmt.Sprintf(`Digest username="%s", realm="%s", nonce="%s", uri="%s", response="%s", algorithm=MD5, cnonce="%s", qop=%s, nc=%s`,
		c.user, c.realm, c.nonce, c.uri, c.answer(method, password), c.cnonce, c.qop, c.nc)
}

// The example of RFC 2617 §3.5.
const digestRFC = `Digest username="Mufasa", realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", uri="/dir/index.html", ` +
	`qop=auth, nc=00000001, cnonce="0a4f113b", response="6629fae49393a05397450978507c4ef1", opaque="5ccc069c403ebaf9f0171e9517f40e41"`

func TestDigestOfRFC2617(t *testing.T) {
	c, err := parseDigestCredentials(digestRFC)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.answer("GET", "Circle Of Life"); got != c.response {
		t.Errorf("answer is %s, want %s", got, c.response)
	}
	for i := range len(digestRFC) {
		_, _ = parseDigestCredentials(digestRFC[:i]) // no panic
	}
}

func TestDigestGate(t *testing.T) {
	now := time.Unix(1e9, 0)
	g := newDigestGate("lab.example")
	g.now = func() time.Time { return now }
	password := func(user string) (string, bool) { return "s3cret", user == "anna" }
	answer := func(challenge, user, password string, count uint64) string {
		t.Helper()
		return digestAnswer(t, challenge, "REGISTER", "sip:lab.example", user, password, count)
	}
	check := func(what, header string, want digestOutcome) {
		t.Helper()
		if _, got := g.check("REGISTER", header, password); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	first := g.challenge(false)
	check("right", answer(first, "anna", "s3cret", 1), digestGood)
	check("again with the same count", answer(first, "anna", "s3cret", 1), digestStale)
	check("again with the next count", answer(first, "anna", "s3cret", 2), digestGood)
	check("wrong password", answer(first, "anna", "secret", 3), digestWrong)
	check("unknown user", answer(first, "otto", "s3cret", 3), digestUnknown)
	check("another realm", strings.Replace(answer(first, "anna", "s3cret", 3), `realm="lab`, `realm="box`, 1), digestMalformed)
	check("nothing", "", digestMalformed)
	check("basic", "Basic YW5uYTpzM2NyZXQ=", digestMalformed)
	check("somebody else's nonce", answer(strings.Replace(first, `nonce="`, `nonce="x`, 1), "anna", "s3cret", 3), digestStale)
	now = now.Add(digestNonceLife + time.Second)
	check("an old nonce", answer(first, "anna", "s3cret", 3), digestStale)
	if again := g.challenge(true); !strings.Contains(again, "stale=true") {
		t.Errorf("challenge %s does not say that the nonce was stale", again)
	}
	for range 2 * digestNonces {
		g.challenge(false)
	}
	if len(g.nonces) > digestNonces {
		t.Errorf("%d nonces are kept", len(g.nonces))
	}
}

func FuzzDigestCredentials(f *testing.F) {
	f.Add(digestRFC)
	f.Add(`Digest username="a\"b", nonce=x , uri=y,response=z,,`)
	f.Add("Digest =")
	f.Add(`Digest a="\`)
	f.Fuzz(func(t *testing.T, header string) {
		c, err := parseDigestCredentials(header)
		if err == nil && (c.user == "" || c.nonce == "" || c.response == "") {
			t.Errorf("%q was taken", header)
		}
	})
}
