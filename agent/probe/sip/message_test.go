package sip_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/probe/sip"
)

const whole = "SIP/2.0 401 Unauthorized, \"really\"\r\n" +
	"v : SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bK1;received=192.0.2.9 ;rport=5062,\r\n" +
	"\t SIP/2.0/UDP \"a,b\";branch=x\r\n" +
	"Via: SIP/2.0/UDP last\r\n" +
	"To: <sip:a@b>;tag=1\r\n" +
	"CSEQ: 1 OPTIONS\r\n" +
	"Warning: 399 host \"a\r\n  folded text\"\r\n" +
	"X-Empty:\r\n" +
	"l: 4\r\n" +
	"\r\n" +
	"bodymore"

func TestParse(t *testing.T) {
	got, err := sip.Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	want := sip.Message{Code: 401, Reason: "Unauthorized, \"really\"", Length: len(whole) - len("more"), Headers: [][2]string{
		{"via", `SIP/2.0/UDP 192.0.2.9:5062;branch=z9hG4bK1;received=192.0.2.9 ;rport=5062, SIP/2.0/UDP "a,b";branch=x`},
		{"via", "SIP/2.0/UDP last"},
		{"to", "<sip:a@b>;tag=1"},
		{"cseq", "1 OPTIONS"},
		{"warning", `399 host "a folded text"`},
		{"x-empty", ""},
		{"content-length", "4"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	vias := sip.Values([]byte(whole), "via")
	if len(vias) != 3 || sip.Param(vias[0], "branch") != "z9hG4bK1" || sip.Param(vias[0], "RPORT") != "5062" || sip.Param(vias[0], "received") != "192.0.2.9" || sip.Param(vias[2], "branch") != "" {
		t.Errorf("vias %q", vias)
	}
	// Cut anywhere it isn't whole; nor does one with bare line feeds differ.
	for n := range len(whole) - len("more") {
		if _, err := sip.Parse([]byte(whole[:n])); err == nil {
			t.Errorf("cut to %d it is whole", n)
		}
	}
	bare, err := sip.Parse([]byte(strings.ReplaceAll(whole, "\r", "")))
	if err != nil || len(bare.Headers) != len(want.Headers) {
		t.Errorf("%+v, %v", bare, err)
	}
	if got, err := sip.Parse([]byte("NOTIFY sip:a@b SIP/2.0\r\n\r\n")); err != nil || got.Method != "NOTIFY" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := sip.Parse([]byte("sip/2.0 200\r\n\r\n")); err != nil || got.Code != 200 || got.Reason != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	const start = "SIP/2.0 200 OK\r\n"
	for name, s := range map[string]string{
		"nothing":             "",
		"empty lines":         "\r\n\r\n",
		"HTTP":                "HTTP/1.1 200 OK\r\n\r\n",
		"code of two digits":  "SIP/2.0 20 OK\r\n\r\n",
		"code of four digits": "SIP/2.0 2000 OK\r\n\r\n",
		"code with a sign":    "SIP/2.0 +20 OK\r\n\r\n",
		"code 700":            "SIP/2.0 700 OK\r\n\r\n",
		"code 099":            "SIP/2.0 099 OK\r\n\r\n",
		"request of HTTP":     "GET / HTTP/1.1\r\n\r\n",
		"folding at first":    start + " folded: x\r\n\r\n",
		"no colon":            start + "via\r\n\r\n",
		"no name":             start + ": x\r\n\r\n",
		"name with blanks":    start + "a b: x\r\n\r\n",
		"length of no number": start + "Content-Length: x\r\n\r\n",
		"negative length":     start + "Content-Length: -1\r\n\r\n",
		"length beyond":       start + "Content-Length: 4000000000\r\n\r\n",
		"length too long":     start + "Content-Length: 17000\r\n\r\n",
		"endless head":        start + strings.Repeat("a: b\r\n", 4000),
		"too many headers":    start + strings.Repeat("a: b\r\n", 129) + "\r\n",
	} {
		if m, err := sip.Parse([]byte(s)); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("OPTIONS sip:a SIP/2.0\nvia: x\n\n"))
	f.Add([]byte("SIP/2.0 200 OK\r\nm: <sip:a@b;x=y>;expires=3, \"q\\\"\" <sip:c>\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := sip.Parse(b)
		if err != nil {
			return
		}
		if m.Length > len(b) || m.Length < 10 || len(m.Headers) > 128 || m.Method == "" && (m.Code < 100 || m.Code > 699) {
			t.Errorf("%+v of %d bytes", m, len(b))
		}
		// What follows it changes nothing.
		again, err := sip.Parse(append(append([]byte(nil), b[:m.Length]...), "more"...))
		if err != nil || cmp.Diff(m, again) != "" {
			t.Errorf("%+v, %v", again, err)
		}
		for _, name := range []string{"via", "contact"} {
			for _, v := range sip.Values(b, name) {
				if len(sip.Param(v, "expires")) > len(v) {
					t.Error(v)
				}
			}
		}
	})
}

// The examples of RFC 2617, section 3.5, RFC 7616, section 3.9.1, and RFC 2069
// (with the erratum's response).
func TestDigest(t *testing.T) {
	for _, tt := range []struct{ header, user, password, uri, cnonce, response string }{
		{
			`Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"`,
			"Mufasa", "Circle Of Life", "/dir/index.html", "0a4f113b", "6629fae49393a05397450978507c4ef1",
		},
		{
			`Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`,
			"Mufasa", "Circle of Life", "/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", "8ca523f5e9506fed4657c9700eebdbec",
		},
		{
			`Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`,
			"Mufasa", "Circle of Life", "/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
		},
		{
			`Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"`,
			"Mufasa", "CircleOfLife", "/dir/index.html", "", "1949323746fe6a43ef61f9606e7febea",
		},
	} {
		got, ok := sip.Answer(tt.header, tt.user, tt.password, "GET", tt.uri, tt.cnonce)
		if !ok || !strings.Contains(got, `response="`+tt.response+`"`) {
			t.Errorf("%s:\n%s", tt.header, got)
		}
		if strings.Contains(tt.header, "qop") != strings.Contains(got, "qop=auth, nc=00000001, cnonce=") || strings.Contains(tt.header, "algorithm") != strings.Contains(got, "algorithm=") {
			t.Errorf("%s:\n%s", tt.header, got)
		}
	}
	for _, header := range []string{
		"", "Digest", `Basic realm="x"`, `Digest realm="x"`, `Digest realm="x", nonce="y", algorithm=SHA-512-256`,
		`Digest realm="x", nonce="y", qop="auth-int"`, `Digest realm="x", nonce="` + strings.Repeat("y", 5000) + `"`,
	} {
		if got, ok := sip.Answer(header, "u", "p", "GET", "/", "c"); ok {
			t.Errorf("%.60q is answered by %q", header, got)
		}
	}
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Digest realm="a\"b", nonce="y", qop="auth,auth-int", algorithm=md5, stale=TRUE, opaque=""`)
	f.Add(`digest nonce=x`)
	f.Fuzz(func(t *testing.T, header string) {
		if strings.ContainsAny(header, "\r\n") {
			return // a header has none
		}
		got, ok := sip.Answer(header, "u", "geheim", "GET", "/", "c")
		if ok && (strings.ContainsAny(got, "\r\n") || strings.Contains(got, "geheim") && !strings.Contains(header, "geheim")) {
			t.Errorf("%q", got)
		}
	})
}
