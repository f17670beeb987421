package mqtt

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// maxChain bounds the certificates a broker may show: each may cost a
// signature check or more, and a stranger chooses their number.
const maxChain = 8

// tlsConfig builds the TLS configuration for one connection to host, at which
// we show own, if that is not nil.
func (o Options) tlsConfig(host string, own *pair) (*tls.Config, error) {
	v := &verifier{name: o.TLS.ServerName, clock: o.Clock}
	if v.name == "" {
		v.name = host
	}
	var err error
	if v.roots, v.anchors, err = o.TLS.roots(); err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: v.name,
		// The library knows one time, and ours may be a lower bound only:
		// VerifyConnection checks chain, name and time itself, with full and
		// resumed handshakes alike.
		InsecureSkipVerify: true, //nolint:gosec // not skipped: see VerifyConnection
		VerifyConnection:   v.verify,
		ClientSessionCache: o.TLS.Sessions,
	}
	if own == nil {
		return c, nil
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own.Certificate, nil }
	if o.TLS.Sessions != nil {
		// A resumed session stands for the certificate that was shown when it
		// was made.
		c.ClientSessionCache = &sessions{o.TLS.Sessions, "#" + string(own.sum[:])}
	}
	return c, nil
}

// sessions is a session cache whose keys end in suffix.
type sessions struct {
	tls.ClientSessionCache
	suffix string
}

// Get implements tls.ClientSessionCache.
func (s *sessions) Get(key string) (*tls.ClientSessionState, bool) {
	return s.ClientSessionCache.Get(key + s.suffix)
}

// Put implements tls.ClientSessionCache.
func (s *sessions) Put(key string, state *tls.ClientSessionState) {
	s.ClientSessionCache.Put(key+s.suffix, state)
}

// verifier judges a broker's certificates.
type verifier struct {
	name    string
	roots   *x509.CertPool      // nil: those of the system
	anchors []*x509.Certificate // what is in roots, nil if that is
	clock   func() (t time.Time, trusted bool)
}

// verify does what crypto/tls does by itself, except that by a clock that
// cannot be trusted, "not valid yet" does not count.
func (v *verifier) verify(cs tls.ConnectionState) error {
	certs := cs.PeerCertificates
	switch {
	case v.name == "":
		return errors.New("cannot verify broker: no name to expect")
	case len(certs) == 0 || len(certs) > maxChain:
		return fmt.Errorf("cannot verify broker: it shows %d certificates", len(certs))
	}
	o := x509.VerifyOptions{Roots: v.roots, DNSName: v.name, Intermediates: x509.NewCertPool()}
	for _, c := range certs[1:] {
		o.Intermediates.AddCert(c)
	}
	var firstErr error
	for _, o.CurrentTime = range v.times(certs) {
		_, err := certs[0].Verify(o)
		if err == nil {
			return nil
		}
		if firstErr == nil {
			firstErr = err
		}
	}
	return &tls.CertificateVerificationError{UnverifiedCertificates: certs, Err: firstErr}
}

// times returns the times at which the chain may be valid. If the clock t is
// only a lower bound, there is a time from t on at which all of a chain is
// valid if and only if it is so at the latest NotBefore of the chain, or at t
// if that is later. Which certificates form the chain is not known before, so
// each of these is a candidate; the one of the broker's own comes first, as its
// error says most.
func (v *verifier) times(certs []*x509.Certificate) []time.Time {
	t, trusted := v.clock()
	if trusted {
		return []time.Time{t}
	}
	var all []time.Time
	for _, c := range slices.Concat(certs, v.anchors) {
		from := c.NotBefore
		if from.Before(t) {
			from = t
		}
		if !slices.Contains(all, from) {
			all = append(all, from)
		}
	}
	return all
}

// roots returns the pool of CAFile and what is in it; nil for the system's.
func (t TLSOptions) roots() (*x509.CertPool, []*x509.Certificate, error) {
	if t.CAFile == "" {
		return nil, nil, nil
	}
	data, err := os.ReadFile(t.CAFile)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot load CA certificates: %w", err)
	}
	pool := x509.NewCertPool()
	var anchors []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			pool.AddCert(c)
			anchors = append(anchors, c)
		}
	}
	if len(anchors) == 0 {
		return nil, nil, fmt.Errorf("cannot load CA certificates: none in %s", t.CAFile)
	}
	return pool, anchors, nil
}

// pair is a client certificate with its key.
type pair struct {
	tls.Certificate
	sum [sha256.Size]byte // of the content of both files
}

// pair returns the client certificate, nil if there is to be none.
func (t TLSOptions) pair() (*pair, error) {
	if t.own != nil {
		return t.own()
	}
	if t.CertFile == "" {
		return nil, nil //nolint:nilnil // no certificate is no error
	}
	cert, key, err := t.readPair()
	if err != nil {
		return nil, err
	}
	return t.parsePair(cert, key)
}

func (t TLSOptions) readPair() (cert, key []byte, err error) {
	if cert, err = os.ReadFile(t.CertFile); err == nil {
		key, err = os.ReadFile(t.KeyFile)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot load client certificate: %w", err)
	}
	return cert, key, nil
}

func (t TLSOptions) parsePair(cert, key []byte) (*pair, error) {
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("cannot load client certificate of %s and %s: %w", t.CertFile, t.KeyFile, err)
	}
	return &pair{Certificate: c, sum: fingerprint(cert, key)}, nil
}

func fingerprint(cert, key []byte) [sha256.Size]byte {
	a, b := sha256.Sum256(cert), sha256.Sum256(key)
	return sha256.Sum256(append(a[:], b[:]...))
}
