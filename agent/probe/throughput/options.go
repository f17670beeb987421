package throughput

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The defaults, and what one run of several may take.
const (
	defaultConnections = 4
	maxConnections     = 16
	defaultWindow      = 10 * time.Second
	defaultWarmUp      = 3500 * time.Millisecond
	defaultMinRatio    = 0.9
	defaultPatience    = 5 * time.Second
	secondWindow       = 5 * time.Second // of a run that is to confirm another
	iperf3Port         = 5201
	maxAddresses       = 6 // of a name that are tried
)

// normalised fills in the defaults.
func (o Options) normalised() Options {
	o.Direction = or(o.Direction, Both)
	o.Layer = or(o.Layer, LayerTCP)
	o.UploadURL = or(o.UploadURL, o.URL)
	o.UploadMethod = or(o.UploadMethod, "POST")
	o.Connections = or(o.Connections, defaultConnections)
	o.Window = or(o.Window, defaultWindow)
	o.WarmUp = or(o.WarmUp, defaultWarmUp)
	o.MinRatio = or(o.MinRatio, defaultMinRatio)
	o.Patience = or(o.Patience, defaultPatience)
	if o.Resolve == nil {
		o.Resolve = lookUp
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	return o
}

// or is cmp.Or of two.
func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Duration is the longest that Run takes with these options.
func (o Options) Duration() time.Duration {
	o = o.normalised()
	beside := resolveTimeout + maxAddresses*dialTimeout + o.Patience + 2*quietTime + lineTimeout +
		dialTimeout + 2*answerTimeout + stallTime + o.WarmUp + closeTimeout
	all := beside + o.Window
	if o.ContractDownMbps > 0 || o.ContractUpMbps > 0 {
		all = repeats*all + beside + min(o.Window, secondWindow)
	}
	if o.Direction == Both {
		all *= 2
	}
	return all
}

func (o *Options) down() bool { return o.Direction != Up }
func (o *Options) up() bool   { return o.Direction != Down }

func (o *Options) check() error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrOptions}, args...)...)
	}
	if o.Direction != Down && o.Direction != Up && o.Direction != Both {
		return wrong("direction %q: down, up or both", o.Direction)
	}
	if o.Layer != LayerTCP && o.Layer != LayerIP && o.Layer != LayerEthernet {
		return wrong("layer %q: tcp, ip or ethernet", o.Layer)
	}
	for _, u := range []struct {
		name, url string
		wanted    bool
	}{{"URL", o.URL, o.down()}, {"URL of the upload", o.UploadURL, o.up()}, {"second URL", o.SecondURL, o.SecondURL != ""}} {
		if !u.wanted {
			continue
		}
		if _, err := parsePlace(u.url); err != nil {
			return wrong("%s %.200q: %w", u.name, u.url, err)
		}
	}
	switch {
	case o.UploadMethod != "POST" && o.UploadMethod != "PUT":
		return wrong("upload method %.20q: POST or PUT", o.UploadMethod)
	case o.Connections < 1 || o.Connections > maxConnections:
		return wrong("connections %d: 1 to %d", o.Connections, maxConnections)
	case o.Window < time.Second || o.Window > time.Minute:
		return wrong("window %v: 1s to 1m", o.Window)
	case o.WarmUp < 0 || o.WarmUp > 10*time.Second:
		return wrong("warm-up %v: to 10s", o.WarmUp)
	case o.Patience < 0:
		return wrong("patience %v is negative", o.Patience)
	case !(o.MinRatio > 0 && o.MinRatio <= 1):
		return wrong("ratio %v: above 0, to 1", o.MinRatio)
	case !rateMeant(o.ContractDownMbps):
		return wrong("contracted rate %v Mbit/s (down)", o.ContractDownMbps)
	case !rateMeant(o.ContractUpMbps):
		return wrong("contracted rate %v Mbit/s (up)", o.ContractUpMbps)
	case o.Encapsulation.VLANTags < 0 || o.Encapsulation.VLANTags > 2:
		return wrong("VLAN tags %d: 0 to 2", o.Encapsulation.VLANTags)
	case o.Encapsulation.TunnelBytes < 0 || o.Encapsulation.TunnelBytes > 200:
		return wrong("tunnel of %d bytes: 0 to 200", o.Encapsulation.TunnelBytes)
	case len(o.Interface) >= 16 || strings.ContainsAny(o.Interface, "/ \x00"):
		return wrong("interface %.40q is no name", o.Interface)
	}
	return nil
}

func rateMeant(mbps float64) bool { return mbps >= 0 && !math.IsInf(mbps, 0) }

// parsePlace reads a URL.
func parsePlace(text string) (place, error) {
	u, err := url.Parse(text)
	if err != nil {
		return place{}, fmt.Errorf("not a URL") // with the text, which the caller has
	}
	p := place{host: u.Hostname(), port: 80, target: u.RequestURI()}
	switch {
	case u.Scheme == "https":
		return place{}, fmt.Errorf("is HTTPS: a test is not encrypted, it would measure this device's cryptography")
	case u.Scheme != "http" && u.Scheme != "iperf3":
		return place{}, fmt.Errorf("begins with neither http:// nor iperf3://")
	case p.host == "":
		return place{}, fmt.Errorf("has no host")
	case u.User != nil:
		return place{}, fmt.Errorf("has a password: there is no way to use one")
	}
	if u.Scheme == "iperf3" {
		p.iperf3, p.port = true, iperf3Port
	}
	if u.Port() != "" {
		n, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || n == 0 {
			return place{}, fmt.Errorf("has no such port: 1 to 65535")
		}
		p.port = uint16(n)
	} else if strings.HasSuffix(u.Host, ":") {
		return place{}, fmt.Errorf("has an empty port")
	}
	return p, nil
}

// literal is the address that a place names itself, if it does.
func (p *place) literal() netip.Addr {
	a, err := netip.ParseAddr(p.host)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

// String is the place's host and port.
func (p *place) String() string { return net.JoinHostPort(p.host, strconv.Itoa(int(p.port))) }
