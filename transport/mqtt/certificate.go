package mqtt

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"
)

// The states of a client certificate. They travel: their values are fixed.
const (
	CertificateValid       = "valid"
	CertificateRenewed     = "renewed" // in events only: the files hold another one
	CertificateExpiring    = "expiring"
	CertificateExpired     = "expired"
	CertificateNotYetValid = "not_yet_valid"
	CertificateWrongDevice = "wrong_device" // its common name is not the device's id
	CertificateUnusable    = "unusable"     // the files hold no pair of certificate and key
)

// expiryDays are the days before the end at which it is told.
var expiryDays = [...]int{30, 14, 7, 3, 1}

// CertificateStatus is the state of the client certificate.
type CertificateStatus struct {
	State     string    `json:"state"`
	Subject   string    `json:"subject,omitempty"` // common name
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	// DaysLeft is the whole days to NotAfter, negative if there are days since.
	// By a clock that is only a lower bound it is an upper bound.
	DaysLeft int `json:"days_left"`
	// Error says why the files as they are now are unusable. With a State other
	// than CertificateUnusable, the pair they held before is in use.
	Error string `json:"error,omitempty"`
}

// CertificateEvent tells that a client certificate came to a state. Each is
// told once per certificate, CertificateExpiring once for each threshold, and
// again after a restart.
type CertificateEvent struct {
	CertificateStatus
	// WithinDays is the threshold crossed, of CertificateExpiring.
	WithinDays int `json:"within_days,omitempty"`
}

// judge returns the state of a certificate by a clock.
func judge(c *x509.Certificate, device string, now time.Time, trusted bool) CertificateStatus {
	s := CertificateStatus{
		State: CertificateValid, Subject: c.Subject.CommonName, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		DaysLeft: int(c.NotAfter.Sub(now) / (24 * time.Hour)),
	}
	switch {
	case now.After(c.NotAfter):
		s.State = CertificateExpired
	case trusted && now.Before(c.NotBefore):
		s.State = CertificateNotYetValid
	case device != "" && s.Subject != device:
		s.State = CertificateWrongDevice
	case within(s.DaysLeft) > 0:
		s.State = CertificateExpiring
	}
	return s
}

// within returns the narrowest of expiryDays that left days have crossed, 0 if
// none.
func within(left int) int {
	crossed := 0
	for _, days := range expiryDays {
		if left < days {
			crossed = days
		}
	}
	return crossed
}

// problem says what is wrong with the certificate that we show, nil if nothing.
func (p *pair) problem(device string, now time.Time, trusted bool) error {
	if p == nil || p.Leaf == nil {
		return nil
	}
	switch s := judge(p.Leaf, device, now, trusted); s.State {
	case CertificateExpired:
		return fmt.Errorf("%w of %.64q expired on %s", ErrOwnCertificate, s.Subject, day(s.NotAfter))
	case CertificateNotYetValid:
		return fmt.Errorf("%w of %.64q is not valid before %s, and it is %s here", ErrOwnCertificate, s.Subject, day(s.NotBefore), day(now))
	case CertificateWrongDevice:
		return fmt.Errorf("%w is for %.64q, and this is %s", ErrOwnCertificate, s.Subject, device)
	}
	return nil
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// wallet holds the client certificate of a Device: the pair that its files held
// when they last held a good one.
type wallet struct {
	files TLSOptions

	mu   sync.Mutex
	good *pair             // nil: never seen one; guarded by mu
	seen [sha256.Size]byte // of the content last read; guarded by mu
	err  error             // why that is unusable; guarded by mu
}

// load reads the files. It returns the last good pair, nil if there never was
// one, and why the files as they are now are unusable.
func (w *wallet) load() (*pair, error) {
	cert, key, err := w.files.readPair()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.err, w.seen = err, [sha256.Size]byte{}
		return w.good, w.err
	}
	// A key on slow hardware takes a while to parse: only what is new.
	if now := fingerprint(cert, key); now != w.seen {
		w.seen = now
		var p *pair
		if p, w.err = w.files.parsePair(cert, key); w.err == nil {
			w.good = p
		}
	}
	return w.good, w.err
}

// latest returns what load last did.
func (w *wallet) latest() (*pair, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.good, w.err
}

// errRenewed ends a connection that was made with an older certificate.
var errRenewed = errors.New("client certificate renewed")

// holdsCertificate reports whether there is a client certificate to mind.
func (d *Device) holdsCertificate() bool {
	to, err := d.o.Dial.target()
	return err == nil && to.secure && d.o.Dial.TLS.CertFile != ""
}

// showCertificate returns the pair for a connection that is about to be made.
func (d *Device) showCertificate() (*pair, error) {
	p, err := d.wallet.load()
	if p == nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shown = p
	return p, nil
}

// certificateStatus returns the state of the certificate held, nil if there is
// to be none.
func (d *Device) certificateStatus() *CertificateStatus {
	if d.wallet == nil {
		return nil
	}
	p, err := d.wallet.latest()
	s := CertificateStatus{State: CertificateUnusable}
	if p != nil {
		now, trusted := d.clock()
		s = judge(p.Leaf, d.device, now, trusted)
	}
	if err != nil {
		s.Error = err.Error()
	}
	return &s
}

// watcher tells of changes of the client certificate.
type watcher struct {
	*Device
	told   map[string]bool // states and thresholds told of the current pair
	pair   *pair           // the current one; nil before the first
	broken int             // looks at which the files were unusable, in a row
	dead   bool            // that was told
}

// watch looks at the certificate until ctx ends.
func (d *Device) watch(ctx context.Context) {
	w := &watcher{Device: d}
	ticker := time.NewTicker(d.o.CertificatePoll)
	defer ticker.Stop()
	for {
		w.look()
		if d.outdated() {
			d.renew(ctx)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// look reads the files and tells what is new.
func (w *watcher) look() {
	p, err := w.wallet.load()
	if err == nil {
		w.broken, w.dead = 0, false
	} else if w.broken++; w.broken == 1 {
		w.o.Log.Warn("client certificate unusable, going on with the old one", "old_one", p != nil, "error", err)
	}
	// Whoever renews writes two files: a first bad look proves nothing, unless
	// there is nothing else to go on with.
	if err != nil && !w.dead && (w.broken > 1 || p == nil) {
		w.dead = true
		w.tell(*w.certificateStatus(), CertificateUnusable, 0)
	}
	if p == nil {
		return
	}
	now, trusted := w.clock()
	s := judge(p.Leaf, w.device, now, trusted)
	if w.pair == nil || w.pair.sum != p.sum {
		renewed := w.pair != nil
		w.pair, w.told = p, make(map[string]bool)
		if renewed {
			w.o.Log.Info("client certificate renewed", "subject", s.Subject, "not_after", s.NotAfter)
			w.tell(s, CertificateRenewed, 0)
		}
	}
	if s.State == CertificateValid {
		return
	}
	days, key := 0, s.State
	if s.State == CertificateExpiring {
		days = within(s.DaysLeft)
		key = fmt.Sprint(key, days)
	}
	if !w.told[key] {
		w.told[key] = true
		w.o.Log.Warn("client certificate", "state", s.State, "subject", s.Subject, "not_after", s.NotAfter)
		w.tell(s, s.State, days)
	}
}

func (w *watcher) tell(s CertificateStatus, state string, days int) {
	s.State = state
	if w.o.Certificate != nil {
		w.o.Certificate(CertificateEvent{CertificateStatus: s, WithinDays: days})
	}
}

// outdated reports whether the last connection, or attempt at one, was made
// with another certificate than the files hold now.
func (d *Device) outdated() bool {
	p, _ := d.wallet.latest()
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shown != nil && p != nil && d.shown.sum != p.sum
}

// renew has a connection made with the renewed certificate: after a while, as
// a fleet may be renewed at once.
func (d *Device) renew(ctx context.Context) {
	spread := min(d.backoff().Spread, coldSpread)
	timer := time.NewTimer(time.Duration(d.o.Rand() * float64(spread)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	if !d.outdated() { // in the meantime it was lost for another reason
		return
	}
	d.mu.Lock()
	conn := d.conn
	d.mu.Unlock()
	if conn != nil {
		conn.lose(errRenewed)
		return
	}
	d.wake()
}
