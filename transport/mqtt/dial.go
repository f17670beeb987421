package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// target is where a broker URL leads.
type target struct {
	host     string // without port
	hostport string
	secure   bool
	web      *url.URL // of a WebSocket, with a path; nil: bare MQTT
}

const defaultPath = "/mqtt"

// target takes the broker's URL apart.
func (o Options) target() (target, error) {
	u, err := url.Parse(o.Broker)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		// Not echoed: it may hold a password.
		return target{}, errors.New("broker URL is not of the form tcp://host:port, ssl://host:port, ws://host:port/path or wss://host:port/path")
	}
	t := target{host: u.Hostname()}
	var port string
	switch u.Scheme {
	case "tcp", "mqtt":
		port = "1883"
	case "ssl", "tls", "mqtts":
		port, t.secure = "8883", true
	case "ws":
		port, t.web = "80", u
	case "wss":
		port, t.web, t.secure = "443", u, true
	default:
		return target{}, fmt.Errorf("broker URL has scheme %.20q, want tcp, ssl, ws or wss", u.Scheme)
	}
	switch {
	case t.web == nil && strings.Trim(u.Path, "/") != "":
		return target{}, errors.New("broker URL has a path, which only ws and wss have")
	case t.web != nil && u.Path == "":
		u.Path = defaultPath
	}
	if p := u.Port(); p != "" {
		port = p
	}
	t.hostport = net.JoinHostPort(t.host, port)
	return t, nil
}

// source returns the address to connect from, the zero one if that is the
// kernel's choice.
func (o Options) source() (netip.Addr, error) {
	if o.SourceAddress == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(o.SourceAddress)
	if err != nil || a.IsUnspecified() || a.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("source address %.60q is not an IP address of a host", o.SourceAddress)
	}
	return a.Unmap(), nil
}

// dialer returns what makes sockets for network as o asks.
func (o Options) dialer(network string) (*net.Dialer, error) {
	d := &net.Dialer{
		KeepAlive: -1, // MQTT pings by itself
		Control:   control(o.Interface),
	}
	from, err := o.source()
	if err != nil || !from.IsValid() {
		return d, err
	}
	ip := net.IP(from.AsSlice())
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: ip, Zone: from.Zone()}
	} else {
		d.LocalAddr = &net.TCPAddr{IP: ip, Zone: from.Zone()}
	}
	return d, nil
}

// open makes the network connection, TLS and WebSocket included.
func open(ctx context.Context, o Options, own *pair) (net.Conn, error) {
	to, err := o.target()
	if err != nil {
		return nil, err
	}
	dialer, err := o.dialer("tcp")
	if err != nil {
		return nil, err
	}
	conn, err := dialer.DialContext(ctx, "tcp", to.hostport)
	if err != nil {
		return nil, err
	}
	outer, err := wrap(ctx, conn, o, to, own)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return outer, nil
}

// wrap lays TLS and WebSocket over conn as far as asked.
func wrap(ctx context.Context, conn net.Conn, o Options, to target, own *pair) (net.Conn, error) {
	if to.secure {
		config, err := o.tlsConfig(to.host, own)
		if err != nil {
			return nil, err
		}
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secured
	}
	if to.web != nil {
		return upgrade(ctx, conn, to.web)
	}
	return conn, nil
}
