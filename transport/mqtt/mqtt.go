// Package mqtt carries a transport.Queue to an MQTT 3.1.1 broker and brings
// back what the broker has for this device.
//
// Conn is one connection that tells the truth: it is made once, a publish on
// it succeeds only when the broker acknowledged it while the connection lived,
// and it ends once. Device is the gateway's session on top: it connects again
// and again, spread out so that a million gateways do not arrive together,
// announces the device and pumps the queue.
//
// The MQTT library underneath serves as a packet pipe for one connection and
// is thrown away with it; its own reconnecting, storing and resuming are off,
// because they report messages as delivered that were not. It also trusts the
// broker with its memory and its index bounds: nothing reaches it that has not
// passed guard.
package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// Errors that errors.Is finds in what this package returns.
var (
	// ErrLost says that the connection ended before the act was confirmed: a
	// message may have arrived or not.
	ErrLost = errors.New("connection lost")
	// ErrTimeout says that the broker did not answer in time on a connection
	// that looked alive.
	ErrTimeout = errors.New("no answer from the broker in time")
	// ErrProtocol says that the broker sent what a broker may not send.
	ErrProtocol = errors.New("broker broke the protocol")
	// ErrPacketTooLarge says that the broker announced a packet above the
	// limit.
	ErrPacketTooLarge = errors.New("inbound packet too large")
	// ErrSubscribeRefused says that the broker refused a subscription.
	ErrSubscribeRefused = errors.New("subscription refused")
	// ErrCertificateTime says that the broker's certificate is not valid yet:
	// far more often our clock is wrong than the certificate.
	ErrCertificateTime = errors.New("broker certificate not valid yet, or clock wrong")

	// The refusals of CONNACK, by return code.
	ErrRefusedProtocol    = errors.New("broker refused the protocol version") // 1
	ErrRefusedClientID    = errors.New("broker refused the client id")        // 2
	ErrServerUnavailable  = errors.New("broker is not available")             // 3
	ErrRefusedCredentials = errors.New("broker refused the credentials")      // 4, or a TLS alert about our certificate
	ErrNotAuthorized      = errors.New("broker did not authorize us")         // 5
)

// Defaults of Options.
const (
	DefaultKeepAlive      = 120 * time.Second
	DefaultPingTimeout    = 15 * time.Second
	DefaultConnectTimeout = 20 * time.Second
	DefaultWriteTimeout   = 10 * time.Second
	DefaultAckTimeout     = 30 * time.Second
	DefaultMaxPacket      = 64 << 10
	DefaultInboundDepth   = 64
)

// Options say how to reach a broker. Zero values stand for the defaults above.
type Options struct {
	// Broker is a URL: tcp://host[:1883] (also mqtt) or ssl://host[:8883] (also
	// tls, mqtts). It holds no user and no path.
	Broker   string
	ClientID string
	Username string // empty: none
	Password string // never printed
	TLS      TLSOptions
	// Interface binds the connection to a network device (SO_BINDTODEVICE);
	// empty means by routing. Linux only.
	Interface string
	Will      *Will

	KeepAlive      time.Duration // whole seconds, 1 s to 18 h
	PingTimeout    time.Duration
	ConnectTimeout time.Duration // for name, TCP, TLS and CONNACK together
	WriteTimeout   time.Duration // for every single write
	AckTimeout     time.Duration // from handing a message over to its PUBACK
	MaxPacket      int           // of inbound packets, in bytes
	InboundDepth   int           // messages that wait to be taken from Inbound

	// Time tells the time by which certificates are judged. nil means
	// time.Now.
	Time func() time.Time
}

// TLSOptions name the files of a TLS connection. They are read at every
// connection, so that renewed ones take effect.
type TLSOptions struct {
	CAFile     string // PEM; the only roots trusted. Empty: those of the system.
	CertFile   string // PEM; empty: no client certificate
	KeyFile    string // PEM
	ServerName string // expected in the certificate; empty: the host dialled
	// Sessions keeps session tickets between connections; nil means none.
	Sessions tls.ClientSessionCache
}

// Will is what the broker publishes when the connection ends without a
// DISCONNECT. Its QoS is 1.
type Will struct {
	Topic   string
	Payload []byte
	Retain  bool
}

// LogValue leaves out the secrets.
func (o Options) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("broker", o.Broker),
		slog.String("client_id", o.ClientID),
		slog.String("interface", o.Interface),
	)
}

// String leaves out the secrets.
func (o Options) String() string {
	return fmt.Sprintf("{broker %s, client id %s}", o.Broker, o.ClientID)
}

// GoString leaves out the secrets.
func (o Options) GoString() string { return o.String() }

// withDefaults returns o with the defaults in the place of zeros.
func (o Options) withDefaults() Options {
	for _, d := range []struct {
		have *time.Duration
		want time.Duration
	}{
		{&o.KeepAlive, DefaultKeepAlive},
		{&o.PingTimeout, DefaultPingTimeout},
		{&o.ConnectTimeout, DefaultConnectTimeout},
		{&o.WriteTimeout, DefaultWriteTimeout},
		{&o.AckTimeout, DefaultAckTimeout},
	} {
		if *d.have == 0 {
			*d.have = d.want
		}
	}
	if o.MaxPacket == 0 {
		o.MaxPacket = DefaultMaxPacket
	}
	if o.InboundDepth == 0 {
		o.InboundDepth = DefaultInboundDepth
	}
	if o.Time == nil {
		o.Time = time.Now
	}
	return o
}

// Check reports what makes o unusable, without reaching for the network: the
// broker's URL, the bounds of the durations, files that cannot be read.
func (o Options) Check() error {
	o = o.withDefaults()
	_, secure, err := o.address()
	if err == nil && secure {
		_, err = o.tlsConfig("")
		if err == nil && o.TLS.CertFile != "" {
			_, err = o.clientCertificate()
		}
	}
	switch {
	case err != nil:
	case o.ClientID == "" || len(o.ClientID) > 128:
		err = fmt.Errorf("client id %.40q is not 1–128 bytes", o.ClientID)
	case o.KeepAlive < time.Second || o.KeepAlive > 65535*time.Second || o.KeepAlive%time.Second != 0:
		err = fmt.Errorf("keepalive %v is not whole seconds from 1 to 65535", o.KeepAlive)
	case o.PingTimeout < 0 || o.ConnectTimeout < 0 || o.WriteTimeout < 0 || o.AckTimeout < 0:
		err = errors.New("a timeout is negative")
	case o.MaxPacket < 128 || o.InboundDepth < 1:
		err = fmt.Errorf("inbound limits %d bytes, %d messages are too small", o.MaxPacket, o.InboundDepth)
	}
	if err != nil {
		return fmt.Errorf("cannot use broker options: %w", err)
	}
	return nil
}

// address returns host:port of the broker and whether to speak TLS.
func (o Options) address() (hostport string, secure bool, err error) {
	u, err := url.Parse(o.Broker)
	if err != nil || u.Hostname() == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		// Not echoed: it may hold a password.
		return "", false, errors.New("broker URL is not of the form tcp://host:port or ssl://host:port")
	}
	port := u.Port()
	switch u.Scheme {
	case "tcp", "mqtt":
		if port == "" {
			port = "1883"
		}
	case "ssl", "tls", "mqtts":
		secure = true
		if port == "" {
			port = "8883"
		}
	default:
		return "", false, fmt.Errorf("broker URL has scheme %.20q, want tcp or ssl", u.Scheme)
	}
	return net.JoinHostPort(u.Hostname(), port), secure, nil
}

// tlsConfig builds the TLS configuration for one connection to host.
func (o Options) tlsConfig(host string) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         o.TLS.ServerName,
		Time:               o.Time,
		ClientSessionCache: o.TLS.Sessions,
	}
	if c.ServerName == "" {
		c.ServerName = host
	}
	if o.TLS.CAFile != "" {
		pem, err := os.ReadFile(o.TLS.CAFile)
		if err != nil {
			return nil, fmt.Errorf("cannot load CA certificates: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("cannot load CA certificates: none in %s", o.TLS.CAFile)
		}
	}
	if o.TLS.CertFile != "" {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return o.clientCertificate()
		}
	}
	return c, nil
}

func (o Options) clientCertificate() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(o.TLS.CertFile, o.TLS.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("cannot load client certificate of %s and %s: %w", o.TLS.CertFile, o.TLS.KeyFile, err)
	}
	return &cert, nil
}

// tlsAlert is the Op of the net.OpError that crypto/tls returns for an alert
// from the peer. The type of the alert itself is not exported.
const tlsAlert = "remote error"

// refusal returns the error for a CONNACK return code, nil for 0.
func refusal(code byte) error {
	switch code {
	case 0:
		return nil
	case 1:
		return ErrRefusedProtocol
	case 2:
		return ErrRefusedClientID
	case 3:
		return ErrServerUnavailable
	case 4:
		return ErrRefusedCredentials
	case 5:
		return ErrNotAuthorized
	}
	return fmt.Errorf("%w: CONNACK return code %d", ErrProtocol, code)
}

// classify adds to a network error what it means for whoever connects.
func classify(err error, now time.Time) error {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil && now.Before(invalid.Cert.NotBefore) {
		return fmt.Errorf("%w: it is %s here: %w", ErrCertificateTime, now.UTC().Format(time.DateOnly), err)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() && !errors.Is(err, ErrTimeout) {
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == tlsAlert {
		if text := op.Err.Error(); strings.Contains(text, "certificate") || strings.Contains(text, "access denied") {
			return fmt.Errorf("%w: %w", ErrRefusedCredentials, err)
		}
	}
	return err
}
