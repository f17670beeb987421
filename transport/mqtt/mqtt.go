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
//
// The promises: a broker that is gone is found within keepalive and 20 s; a
// message counts as sent by its PUBACK alone; nothing the broker does makes
// memory or goroutines grow without bound; Serve ends within 3 s.
package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
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
	// ErrCertificateTime says that the broker's certificate is not valid yet
	// by a clock that is trusted: far more often that is wrong than the
	// certificate.
	ErrCertificateTime = errors.New("broker certificate not valid yet, or clock wrong")
	// ErrOwnCertificate says that the broker refused us while our own
	// certificate is expired, not valid yet or for another device.
	ErrOwnCertificate = errors.New("own certificate")

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
	DefaultPingTimeout    = 14 * time.Second
	DefaultConnectTimeout = 20 * time.Second
	DefaultWriteTimeout   = 10 * time.Second
	DefaultAckTimeout     = 30 * time.Second
	DefaultMaxPacket      = 64 << 10
	DefaultInboundDepth   = 64
)

// Options say how to reach a broker. Zero values stand for the defaults above.
type Options struct {
	// Broker is a URL: tcp://host[:1883] (also mqtt), ssl://host[:8883] (also
	// tls, mqtts), ws://host[:80][/path] or wss://host[:443][/path]. A
	// WebSocket without a path goes to /mqtt. The URL holds no user.
	Broker   string
	ClientID string
	Username string // empty: none
	Password string // never printed
	TLS      TLSOptions
	// Interface binds the connection to a network device (SO_BINDTODEVICE);
	// empty means by routing. Linux only. Names are resolved by the system's
	// own resolver, which is not bound.
	Interface string
	// SourceAddress is the IP address to connect from; empty means the
	// kernel's choice. With Interface both hold. Only addresses of the broker
	// that are of the same family are tried.
	SourceAddress string
	Will          *Will
	// PersistentSession asks the broker to keep subscriptions and unacknowledged
	// QoS 1 messages while we are away. Whoever takes a message from Inbound
	// then says Packet.Ack.
	PersistentSession bool

	KeepAlive time.Duration // whole seconds, 1 s to 18 h
	// PingTimeout is how long the broker may take to answer a ping, 14 s at
	// most: a silent broker is found within KeepAlive and 20 s.
	PingTimeout    time.Duration
	ConnectTimeout time.Duration // for name, TCP, TLS, WebSocket and CONNACK together
	WriteTimeout   time.Duration // for every 16 KiB written
	AckTimeout     time.Duration // from handing a message over to its PUBACK
	MaxPacket      int           // of inbound packets, in bytes
	InboundDepth   int           // messages that wait to be taken from Inbound

	// Clock tells the time by which certificates are judged, and whether it
	// can be trusted. If not, it is a time that has certainly passed: what had
	// expired by then is refused, and "not valid yet" is not judged. nil means
	// the system's time, trusted.
	Clock func() (t time.Time, trusted bool)
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

	own    func() (*pair, error) // instead of reading CertFile and KeyFile
	device string                // expected as the common name of CertFile; empty: any
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
	if o.Clock == nil {
		o.Clock = func() (time.Time, bool) { return time.Now(), true }
	}
	return o
}

// Check reports what makes o unusable, without reaching for the network: the
// broker's URL, the bounds of the durations, files that cannot be read.
func (o Options) Check() error {
	o = o.withDefaults()
	err := o.form()
	if err == nil {
		err = o.files()
	}
	if err != nil {
		return fmt.Errorf("cannot use broker options: %w", err)
	}
	return nil
}

// form reports what makes o unusable whatever the files hold.
func (o Options) form() error {
	_, err := o.target()
	_, addrErr := o.source()
	switch {
	case err != nil:
		return err
	case addrErr != nil:
		return addrErr
	case o.ClientID == "" || len(o.ClientID) > 128:
		return fmt.Errorf("client id %.40q is not 1–128 bytes", o.ClientID)
	case o.KeepAlive < time.Second || o.KeepAlive > 65535*time.Second || o.KeepAlive%time.Second != 0:
		return fmt.Errorf("keepalive %v is not whole seconds from 1 to 65535", o.KeepAlive)
	case o.PingTimeout < 0 || o.PingTimeout > DefaultPingTimeout:
		return fmt.Errorf("ping timeout %v is not up to %v", o.PingTimeout, DefaultPingTimeout)
	case o.ConnectTimeout < 0 || o.WriteTimeout < 0 || o.AckTimeout < 0:
		return errors.New("a timeout is negative")
	case o.MaxPacket < 128 || o.InboundDepth < 1:
		return fmt.Errorf("inbound limits %d bytes, %d messages are too small", o.MaxPacket, o.InboundDepth)
	}
	return nil
}

// files reports whether the files of TLS are unusable.
func (o Options) files() error {
	to, err := o.target()
	if err != nil || !to.secure {
		return err
	}
	if _, _, err := o.TLS.roots(); err != nil {
		return err
	}
	_, err = o.TLS.pair()
	return err
}

// silence is how long the broker may send nothing before it counts as dead: by
// then it has had PingTimeout to answer a ping.
func (o Options) silence() time.Duration { return o.KeepAlive + o.pingTick() + o.PingTimeout }

// pingTick is how often the library looks whether a ping is due.
func (o Options) pingTick() time.Duration {
	if o.KeepAlive > 10*time.Second {
		return 5 * time.Second
	}
	return o.KeepAlive / 4
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
func classify(err error, now time.Time, trusted bool) error {
	var invalid x509.CertificateInvalidError
	if trusted && errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil && now.Before(invalid.Cert.NotBefore) {
		return fmt.Errorf("%w: it is %s here: %w", ErrCertificateTime, now.UTC().Format(time.DateOnly), err)
	}
	if timedOut(err) && !errors.Is(err, ErrTimeout) {
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
