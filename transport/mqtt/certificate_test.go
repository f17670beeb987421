package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const deviceID = "HWTC12345678"

// events collects what becomes of a certificate.
type events struct {
	mu  sync.Mutex
	got []string
}

func (e *events) add(c CertificateEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := fmt.Sprintf("%s %s, %d days", c.State, c.Subject, c.DaysLeft)
	if c.WithinDays > 0 {
		text += fmt.Sprintf(", within %d", c.WithinDays)
	}
	if c.Error != "" {
		text += ", error"
	}
	e.got = append(e.got, text)
}

func (e *events) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	got := e.got
	e.got = nil
	return got
}

// place puts a pair where the options of o look for theirs.
func place(t *testing.T, o *Options, i issued) {
	t.Helper()
	copyFile(t, i.cert, o.TLS.CertFile)
	copyFile(t, i.key, o.TLS.KeyFile)
}

func certificateOptions(t *testing.T, url string, ca *authority) Options {
	t.Helper()
	dir := t.TempDir()
	o := testOptions(url)
	o.TLS.CAFile, o.TLS.CertFile, o.TLS.KeyFile = ca.CA, filepath.Join(dir, "c"), filepath.Join(dir, "k")
	return o
}

// TestCertificateEvents looks at the files at one time after the other.
func TestCertificateEvents(t *testing.T) {
	ca := newAuthority(t, "ca")
	now := time.Now()
	trusted := true
	var e events
	d, _ := testDevice(t, func(o *DeviceOptions) {
		o.Dial = certificateOptions(t, "ssl://127.0.0.1:1", ca)
		o.Dial.Clock = func() (time.Time, bool) { return now, trusted }
		o.Certificate = e.add
	})
	w := &watcher{Device: d}
	look := func(what string, want ...string) {
		t.Helper()
		w.look()
		if diff := cmp.Diff(want, e.take()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	issue := func(from, to int) issued {
		return ca.issue(deviceID, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = now.Add(days(from)-time.Minute), now.Add(days(to)+time.Hour)
		})
	}
	look("no files", "unusable , 0 days, error")
	look("still none")
	if s := d.Status().Certificate; s == nil || s.State != CertificateUnusable || s.Error == "" {
		t.Errorf("status %+v", s)
	}
	place(t, &d.o.Dial, issue(-1, 100))
	look("good")
	if s := d.Status().Certificate; s == nil || s.State != CertificateValid || s.DaysLeft != 100 || s.Subject != deviceID || s.Error != "" {
		t.Errorf("status %+v", s)
	}
	start := now
	for _, tt := range []struct {
		day  int
		want []string
	}{
		{70, nil},
		{71, []string{"expiring HWTC12345678, 29 days, within 30"}},
		{72, nil},
		{86, nil},
		{87, []string{"expiring HWTC12345678, 13 days, within 14"}},
		{94, []string{"expiring HWTC12345678, 6 days, within 7"}},
		{95, nil},
		{98, []string{"expiring HWTC12345678, 2 days, within 3"}},
		{100, []string{"expiring HWTC12345678, 0 days, within 1"}},
		{101, []string{"expired HWTC12345678, 0 days"}},
		{110, nil},
	} {
		now = start.Add(days(tt.day))
		look(fmt.Sprint("day ", tt.day), tt.want...)
	}
	now = start
	place(t, &d.o.Dial, issue(-1, 5))
	look("renewed for a short time", "renewed HWTC12345678, 5 days", "expiring HWTC12345678, 5 days, within 7")
	place(t, &d.o.Dial, issue(3, 100))
	trusted = false
	look("not yet valid by a clock that is behind", "renewed HWTC12345678, 100 days")
	trusted = true
	look("not yet valid", "not_yet_valid HWTC12345678, 100 days")
	place(t, &d.o.Dial, ca.issue("HWTC87654321", func(c *x509.Certificate) { c.NotAfter = now.Add(days(50) + time.Hour) }))
	look("wrong device", "renewed HWTC87654321, 50 days", "wrong_device HWTC87654321, 50 days")

	// A renewal that is half-way: told when it stays so, and the old pair goes on.
	good, _ := d.wallet.latest()
	fresh := issue(-1, 100)
	copyFile(t, fresh.cert, d.o.Dial.TLS.CertFile)
	look("half-written")
	look("half-written for longer", "unusable HWTC87654321, 50 days, error")
	look("half-written for long")
	if p, err := d.showCertificate(); p != good || err != nil {
		t.Errorf("%v, %v shown, want the old pair", p, err)
	}
	if s := d.Status().Certificate; s.State != CertificateWrongDevice || s.Error == "" {
		t.Errorf("status %+v", s)
	}
	copyFile(t, fresh.key, d.o.Dial.TLS.KeyFile)
	look("whole", "renewed HWTC12345678, 100 days")
	for _, broken := range []string{"", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := os.WriteFile(d.o.Dial.TLS.CertFile, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		look("broken once")
		place(t, &d.o.Dial, fresh)
		look("good again")
	}
}

// TestCertificateRenewedInPlace: the connection is made anew with the renewed
// certificate, not with a session of the old one; a broken pair changes nothing.
func TestCertificateRenewedInPlace(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			noLeaks(t)
			ca := newAuthority(t, "ca")
			shown := make(chan string, 20)
			s := newTLSStub(t, ca.issue("broker", nil), version, ca, func(l *link) {
				if c, ok := l.Conn.(*tls.Conn); ok {
					state := c.ConnectionState()
					shown <- fmt.Sprint(state.PeerCertificates[0].SerialNumber)
				}
				l.accept()
				l.behave(nil)
			})
			first, second := ca.issue(deviceID, nil), ca.issue(deviceID, nil)
			var e events
			d, _ := testDevice(t, func(o *DeviceOptions) {
				o.Dial = certificateOptions(t, s.url, ca)
				o.CertificatePoll = 5 * time.Millisecond
				o.Certificate = e.add
				place(t, &o.Dial, first)
			})
			stop := serve(t, d)
			want := func(i issued) {
				t.Helper()
				select {
				case got := <-shown:
					if got != i.leaf.SerialNumber.String() {
						t.Fatal("the other certificate was shown")
					}
				case <-time.After(10 * time.Second):
					t.Fatal("no connection")
				}
				eventually(t, "connected", func() bool { return d.Status().Connected })
			}
			want(first)
			copyFile(t, second.cert, d.o.Dial.TLS.CertFile) // with the old key
			eventually(t, "told", func() bool { return d.Status().Certificate.Error != "" })
			d.mu.Lock()
			conn := d.conn
			d.mu.Unlock()
			conn.lose(errRenewed) // even a new connection still works
			want(first)
			copyFile(t, second.key, d.o.Dial.TLS.KeyFile)
			want(second)
			time.Sleep(50 * time.Millisecond)
			if n := d.Status().Connections; n != 3 {
				t.Errorf("%d connections, want 3", n)
			}
			stop()
			if got := strings.Join(e.take(), "\n"); !strings.Contains(got, "renewed HWTC12345678") {
				t.Errorf("events:\n%s", got)
			}
		})
	}
}

// TestCertificateRenewedWhileRefused: who is in the slow lane for an old
// certificate need not wait there with a new one.
func TestCertificateRenewedWhileRefused(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "ca")
	s := newTLSStub(t, ca.issue("broker", nil), tls.VersionTLS13, ca, func(l *link) {
		l.accept()
		l.behave(nil)
	})
	d, _ := testDevice(t, func(o *DeviceOptions) {
		o.Dial = certificateOptions(t, s.url, ca)
		o.CertificatePoll = 5 * time.Millisecond
		place(t, &o.Dial, ca.issue(deviceID, between(-days(9), -days(1))))
	})
	serve(t, d)
	eventually(t, "in the slow lane", func() bool { return d.Status().NextS > 200 })
	if e := d.Status().LastError; !strings.Contains(e, "own certificate of \"HWTC12345678\" expired on ") {
		t.Errorf("last error %q", e)
	}
	if s := d.Status().Certificate; s.State != CertificateExpired {
		t.Errorf("status %+v", s)
	}
	place(t, &d.o.Dial, ca.issue(deviceID, nil))
	eventually(t, "connected", func() bool { return d.Status().Connected })
}

// TestCertificateMissingAtStart: the gateway starts all the same, says what is
// wrong, and connects when the files come.
func TestCertificateMissingAtStart(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "ca")
	s := newTLSStub(t, ca.issue("broker", nil), tls.VersionTLS13, ca, func(l *link) {
		l.accept()
		l.behave(nil)
	})
	d, _ := testDevice(t, func(o *DeviceOptions) { o.Dial = certificateOptions(t, s.url, ca) })
	serve(t, d)
	eventually(t, "attempts", func() bool {
		s := d.Status()
		return s.Attempts > 1 && strings.Contains(s.LastError, "client certificate")
	})
	place(t, &d.o.Dial, ca.issue(deviceID, nil))
	eventually(t, "connected", func() bool { return d.Status().Connected })
}
