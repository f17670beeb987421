package mqtt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// authority makes certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	priv *ecdsa.PrivateKey
	CA   string // file
	n    int
}

// issued is a certificate and its key in files.
type issued struct {
	cert, key string
	leaf      *x509.Certificate
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	return newAuthorityAt(t, name, time.Now().Add(-days(400)), time.Now().Add(1000*time.Hour))
}

func newAuthorityAt(t *testing.T, name string, from, to time.Time) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	i := a.issue(name, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to })
	a.cert, a.CA = i.leaf, i.cert
	return a
}

// issue makes a certificate for 127.0.0.1 and name that is valid for days from
// an hour ago.
func (a *authority) issue(name string, edit func(*x509.Certificate)) issued {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.n++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(239 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.priv
	if parent == nil {
		parent, signer, a.priv = template, key, key
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageCertSign, nil
		template.IPAddresses, template.DNSNames = nil, nil
	}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	i := issued{filepath.Join(a.dir, fmt.Sprint(name, a.n, ".pem")), filepath.Join(a.dir, fmt.Sprint(name, a.n, ".key")), leaf}
	for file, block := range map[string]*pem.Block{
		i.cert: {Type: "CERTIFICATE", Bytes: der}, i.key: {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return i
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

func between(from, to time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
}

// newTLSStub is a stub that speaks TLS of one version as server.
func newTLSStub(t *testing.T, server issued, version uint16, clients *authority, serve func(*link)) *stub {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(server.cert, server.key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: version, MaxVersion: version}
	if clients != nil {
		config.ClientCAs = x509.NewCertPool()
		config.ClientCAs.AddCert(clients.cert)
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	s := newStub(t, func(l *link) {
		c := tls.Server(l.Conn, config)
		if c.HandshakeContext(t.Context()) != nil {
			return
		}
		serve(newLink(c, l.n))
	})
	s.url = "ssl" + strings.TrimPrefix(s.url, "tcp")
	return s
}

func clockAt(at time.Time, trusted bool) func() (time.Time, bool) {
	return func() (time.Time, bool) { return at, trusted }
}

// TestReliabilityClockTLS: what a broker's certificate is held to by clocks that
// are trusted and by clocks that are a lower bound.
func TestReliabilityClockTLS(t *testing.T) {
	epoch, now := time.Unix(0, 0), time.Now()
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	youngCA := newAuthorityAt(t, "young", now.Add(-days(2)), now.Add(days(100)))
	lateCA := newAuthorityAt(t, "late", now.Add(days(20)), now.Add(days(100)))
	yesterday := ca.issue("broker", between(-days(1), days(10)))
	expired := ca.issue("broker", between(-days(10), -days(1)))
	future := ca.issue("broker", between(days(5), days(10)))
	wrongName := ca.issue("other", func(c *x509.Certificate) { c.IPAddresses = nil })
	olderThanCA := youngCA.issue("broker", between(-days(9), days(10)))
	overBeforeCA := lateCA.issue("broker", between(-days(9), days(10)))
	clientOnly := ca.issue("broker", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })

	type kind int
	const (
		ok kind = iota
		expiredErr
		notYetErr
		hostErr
		authorityErr
		otherErr
	)
	tests := []struct {
		name    string
		server  issued
		ca      *authority
		clock   time.Time
		trusted bool
		want    kind
	}{
		{"now", yesterday, ca, now, true, ok},
		{"1970, a lower bound", yesterday, ca, epoch, false, ok},
		{"no time at all", yesterday, ca, time.Time{}, false, ok},
		{"1970, trusted", yesterday, ca, epoch, true, notYetErr},
		{"lower bound inside", yesterday, ca, now, false, ok},
		{"lower bound after the end", yesterday, ca, now.Add(days(11)), false, expiredErr},
		{"expired", expired, ca, now, true, expiredErr},
		{"expired, lower bound now", expired, ca, now, false, expiredErr},
		{"expired, but perhaps not yet", expired, ca, epoch, false, ok},
		{"future", future, ca, now, true, notYetErr},
		{"future, lower bound now", future, ca, now, false, ok},
		{"wrong name", wrongName, ca, now, true, hostErr},
		{"wrong name at 1970", wrongName, ca, epoch, false, hostErr},
		{"wrong CA", yesterday, stranger, now, true, authorityErr},
		{"wrong CA at 1970", yesterday, stranger, epoch, false, authorityErr},
		{"older than its CA at 1970", olderThanCA, youngCA, epoch, false, ok},
		{"over before its CA begins, at 1970", overBeforeCA, lateCA, epoch, false, otherErr},
		{"for clients only, at 1970", clientOnly, ca, epoch, false, otherErr},
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, tt := range tests {
			t.Run(tls.VersionName(version)+"/"+tt.name, func(t *testing.T) {
				noLeaks(t)
				s := newTLSStub(t, tt.server, version, nil, func(l *link) {
					l.accept()
					l.behave(nil)
				})
				o := testOptions(s.url)
				o.TLS.CAFile = tt.ca.CA
				o.Clock = clockAt(tt.clock, tt.trusted)
				c, err := Dial(testContext(t), o)
				if err == nil {
					shut(t, c)
				}
				var invalid x509.CertificateInvalidError
				var host x509.HostnameError
				var unknown x509.UnknownAuthorityError
				good := map[kind]bool{
					ok:           err == nil,
					expiredErr:   errors.As(err, &invalid) && invalid.Reason == x509.Expired && !errors.Is(err, ErrCertificateTime),
					notYetErr:    errors.Is(err, ErrCertificateTime),
					hostErr:      errors.As(err, &host),
					authorityErr: errors.As(err, &unknown),
					otherErr:     err != nil && !errors.Is(err, ErrCertificateTime),
				}
				if !good[tt.want] {
					t.Errorf("Dial = %v", err)
				}
			})
		}
	}
	verdict := "ok"
	if t.Failed() {
		verdict = "FAIL"
	}
	t.Logf("reliability: clock | TLS 1.2 and 1.3 by clocks from 1970 on | %d | boot at 1970 connects; "+
		"expired, wrong name and wrong CA are refused as far as the clock can tell | %s", 2*len(tests), verdict)
}

// TestResumedSessionIsVerified: a ticket does not outlive the certificate, the
// name or the CA that it was given under.
func TestResumedSessionIsVerified(t *testing.T) {
	noLeaks(t)
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	server := ca.issue("broker", nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var resumed atomic.Int32
		s := newTLSStub(t, server, version, nil, func(l *link) {
			if c, ok := l.Conn.(*tls.Conn); ok && c.ConnectionState().DidResume {
				resumed.Add(1)
			}
			l.accept()
			l.behave(nil)
		})
		o := testOptions(s.url)
		o.TLS.CAFile, o.TLS.Sessions = ca.CA, tls.NewLRUClientSessionCache(4)
		o.Clock = clockAt(time.Unix(0, 0), false)
		for range 2 {
			c := mustDial(t, o)
			if err := c.Publish(testContext(t), "t", 1, false, nil); err != nil { // the ticket has come by then
				t.Fatal(err)
			}
			shut(t, c)
		}
		if resumed.Load() != 1 {
			t.Fatalf("%s: %d sessions resumed, want 1", tls.VersionName(version), resumed.Load())
		}
		for name, edit := range map[string]func(*Options){
			"expired":   func(o *Options) { o.Clock = clockAt(time.Now().Add(days(50)), false) },
			"not yet":   func(o *Options) { o.Clock = clockAt(time.Now().Add(-days(50)), true) },
			"CA gone":   func(o *Options) { o.TLS.CAFile = stranger.CA },
			"name gone": func(o *Options) { o.TLS.ServerName = "other.example" },
		} {
			bad := o
			edit(&bad)
			if _, err := Dial(testContext(t), bad); err == nil {
				t.Errorf("%s, %s: connected", tls.VersionName(version), name)
			}
		}
	}
}

// TestDialRefusesLongChain: each certificate may cost a signature check.
func TestDialRefusesLongChain(t *testing.T) {
	ca := newAuthority(t, "ca")
	leaf := ca.issue("broker", nil).leaf
	v := &verifier{name: "broker", clock: clockAt(time.Now(), true)}
	for n, want := range map[int]bool{0: false, maxChain + 1: false} {
		certs := make([]*x509.Certificate, n)
		for i := range certs {
			certs[i] = leaf
		}
		if err := v.verify(tls.ConnectionState{PeerCertificates: certs}); (err == nil) != want {
			t.Errorf("%d certificates: %v", n, err)
		}
	}
	v.name = ""
	if v.verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}) == nil {
		t.Error("verified without a name")
	}
}

// TestDialOwnCertificate: an unfit certificate of our own is tried, and named as
// the reason when the broker refuses it.
func TestDialOwnCertificate(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	server := ca.issue("broker", nil)
	const device = "HWTC12345678"
	for name, tt := range map[string]struct {
		own     issued
		clock   func() (time.Time, bool)
		trusted *authority
		refused bool
		reason  string // part of the error
	}{
		"good":                        {ca.issue(device, nil), nil, ca, false, ""},
		"expired":                     {ca.issue(device, between(-days(10), -days(1))), nil, ca, true, "own certificate of \"HWTC12345678\" expired on "},
		"not yet valid":               {ca.issue(device, between(days(2), days(9))), nil, ca, true, "is not valid before "},
		"not yet valid, lower bound":  {ca.issue(device, between(days(2), days(9))), clockAt(time.Unix(0, 0), false), ca, true, ""},
		"another device, not minded":  {ca.issue("HWTC87654321", nil), nil, ca, false, ""},
		"another device, and refused": {other.issue("HWTC87654321", nil), nil, ca, true, "own certificate is for \"HWTC87654321\", and this is HWTC12345678"},
		"of another CA":               {other.issue(device, nil), nil, ca, true, ""},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+"/"+tls.VersionName(version), func(t *testing.T) {
				noLeaks(t)
				s := newTLSStub(t, server, version, tt.trusted, func(l *link) {
					l.accept()
					l.behave(nil)
				})
				o := testOptions(s.url)
				o.TLS.CAFile, o.TLS.CertFile, o.TLS.KeyFile, o.TLS.device = ca.CA, tt.own.cert, tt.own.key, device
				o.Clock = tt.clock
				c, err := Dial(testContext(t), o)
				if err == nil {
					shut(t, c)
				}
				if (err != nil) != tt.refused || tt.refused && !errors.Is(err, ErrRefusedCredentials) {
					t.Fatalf("Dial = %v", err)
				}
				if tt.refused && !refusedForGood(err) {
					t.Error("not in the slow lane")
				}
				if named := errors.Is(err, ErrOwnCertificate); named != (tt.reason != "") ||
					err != nil && !strings.Contains(err.Error(), tt.reason) {
					t.Errorf("Dial = %v, want %q", err, tt.reason)
				}
			})
		}
	}
}
