package isp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// HTTPOptions describe a web server. Listen has to be given.
type HTTPOptions struct {
	// Name tells servers on one host apart; empty means "http".
	Name string
	// Listen are its addresses. Port 0 means 80.
	Listen []netip.AddrPort
	// SpeedFiles are the names and sizes, in bytes, of what is below /speed/.
	// nil means DefaultSpeedFiles.
	SpeedFiles map[string]int64
	// RateMbps bounds each download, in Mbit/s. 0 means no bound.
	RateMbps float64
}

// DefaultSpeedFiles are files for measuring throughput, of round sizes.
func DefaultSpeedFiles() map[string]int64 {
	return map[string]int64{"1m": 1e6, "10m": 10e6, "100m": 100e6, "1g": 1e9}
}

// What pages of the server hold, for whoever wants to know where he is.
const (
	HTTPMarker   = "this is the lab's internet"
	PortalMarker = "this line is suspended: please pay"
)

// HTTP is nginx as a speed server:
//
//	/                a page with HTTPMarker
//	/generate_204    204, by which devices tell whether they are online
//	/speed/NAME      a file of zeros; sent to, it takes any number of bytes
//	/upload          the same without a file: POST or PUT, answered by their number
//	/portal          a page with PortalMarker
//
// It is safe for concurrent use. Its faults replace one another, and Healthy
// ends them all. Each change but to Stall cuts the connections there are, and
// connections are refused for some milliseconds.
type HTTP struct {
	host *netbox.Host
	opts HTTPOptions
	sink *httpSink

	mu      sync.Mutex
	stopped bool
	program program
}

// StartHTTP starts nginx, which answers when StartHTTP returns. ctx bounds the
// start only.
func StartHTTP(ctx context.Context, host *netbox.Host, o HTTPOptions) (*HTTP, error) {
	fail := func(err error) (*HTTP, error) {
		return nil, fmt.Errorf("cannot start HTTP server on %s: %w", host.Name(), err)
	}
	if len(o.Listen) == 0 {
		return fail(errors.New("it has no address"))
	}
	setDefault(&o.Name, "http")
	if o.SpeedFiles == nil {
		o.SpeedFiles = DefaultSpeedFiles()
	}
	h := &HTTP{host: host, opts: o, program: program{host: host}}
	if err := h.makeFiles(); err != nil {
		return fail(err)
	}
	listener, err := host.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fail(err)
	}
	h.sink = newHTTPSink(listener)
	if err := h.Healthy(ctx); err != nil {
		return nil, errors.Join(err, h.Stop())
	}
	return h, nil
}

func (h *HTTP) dir() string { return filepath.Join(h.host.Dir(), h.opts.Name) }

// makeFiles makes the files, which take no room: they are holes.
func (h *HTTP) makeFiles() error {
	speed := filepath.Join(h.dir(), "www", "speed")
	for _, dir := range []string{speed, filepath.Join(h.dir(), "temp")} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // nothing secret
			return fmt.Errorf("cannot make directory: %w", err)
		}
	}
	for name, size := range h.opts.SpeedFiles {
		if !filepath.IsLocal(name) || strings.ContainsAny(name, "/%?#") || size < 0 {
			return fmt.Errorf("%q with %d bytes is no file", name, size)
		}
		file, err := os.Create(filepath.Join(speed, name))
		if err != nil {
			return fmt.Errorf("cannot make file: %w", err)
		}
		if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
			return fmt.Errorf("cannot make file: %w", err)
		}
	}
	return nil
}

// conf is nginx's configuration; fault, if not empty, is what it does with
// every request.
func (h *HTTP) conf(fault string) []byte {
	var b strings.Builder
	temp := filepath.Join(h.dir(), "temp")
	fmt.Fprintf(&b, `daemon off;
master_process off; # one process, one to stop the clock of
user root;
pid %[1]s/nginx.pid;
error_log stderr notice;
events { worker_connections 512; }
http {
	access_log %[1]s/access.log;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	scgi_temp_path %[2]s/scgi;
	uwsgi_temp_path %[2]s/uwsgi;
	default_type application/octet-stream;
	sendfile on;
	tcp_nopush on;
	client_max_body_size 0;
	client_body_buffer_size 256k;
	server_tokens off;
	reset_timedout_connection on; # also those closed by 444
	server {
`, h.dir(), temp)
	for _, at := range h.opts.Listen {
		if at.Port() == 0 {
			at = netip.AddrPortFrom(at.Addr(), 80)
		}
		fmt.Fprintf(&b, "\t\tlisten %s;\n", at)
	}
	fmt.Fprintf(&b, "\t\troot %s/www;\n", h.dir())
	if h.opts.RateMbps > 0 {
		fmt.Fprintf(&b, "\t\tlimit_rate %d;\n", max(1, int64(h.opts.RateMbps*1e6/8)))
	}
	const page = "\t\tlocation %s { default_type text/html; return 200 \"<!DOCTYPE html><title>%[2]s</title><p>%[2]s</p>\\n\"; }\n"
	if fault == "" {
		fmt.Fprintf(&b, page, "= /", HTTPMarker)
		fmt.Fprintf(&b, `		location = /generate_204 { return 204; }
		location /speed/ {
			if ($request_method !~ ^(GET|HEAD)$) { rewrite ^ /upload last; }
		}
		location = /upload {
			# nginx itself can't read a body to its end without keeping it.
			proxy_pass http://%s;
			proxy_http_version 1.1;
			proxy_request_buffering off;
		}
`, h.sink.addr())
	} else {
		fmt.Fprintf(&b, "\t\tlocation / { %s }\n", fault)
	}
	fmt.Fprintf(&b, page, "= /portal", PortalMarker)
	b.WriteString("\t}\n}\n")
	return []byte(b.String())
}

// run lets nginx play a fault. h.mu is not held.
func (h *HTTP) run(ctx context.Context, fault string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	fail := func(err error) error { return fmt.Errorf("cannot run HTTP server on %s: %w", h.host.Name(), err) }
	if h.stopped {
		return fail(net.ErrClosed)
	}
	if err := h.program.stop(); err != nil {
		return fail(err)
	}
	conf := filepath.Join(h.dir(), "nginx.conf")
	if err := h.host.WriteFile(conf, h.conf(fault), 0o644); err != nil {
		return fail(err)
	}
	err := h.program.start(ctx, netbox.Service{
		Name: h.opts.Name, Path: "nginx", Args: []string{"-p", h.dir(), "-c", conf},
		Ready: func(ctx context.Context) error { return h.listens(ctx) },
	})
	if err != nil {
		return fail(err)
	}
	return nil
}

// listens says whether all addresses take connections. Nobody else has them.
func (h *HTTP) listens(ctx context.Context) error {
	for _, at := range h.opts.Listen {
		if at.Port() == 0 {
			at = netip.AddrPortFrom(at.Addr(), 80)
		}
		conn, err := h.host.Dial(ctx, "tcp", at.String())
		if err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}

// Healthy ends the fault, whichever it is.
func (h *HTTP) Healthy(ctx context.Context) error { return h.run(ctx, "") }

// Status answers every request with this status, 400 to 599.
func (h *HTTP) Status(ctx context.Context, code int) error {
	if code < 400 || code > 599 || code == 444 || code == 499 { // nginx means something else by those
		return fmt.Errorf("cannot answer with status %d: it is no error", code)
	}
	return h.run(ctx, "return "+strconv.Itoa(code)+";")
}

// WalledGarden sends every request to location by 302, as an operator does
// with a line that is not paid for; all but those for location itself and for
// /portal, which get that page.
// For the same at other addresses see Intercept.
func (h *HTTP) WalledGarden(ctx context.Context, location string) error {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" || strings.ContainsAny(location, "\"\\${};") || strings.ContainsFunc(location, func(r rune) bool { return r <= ' ' }) {
		return fmt.Errorf("cannot send requests to %q: it is no URL", location)
	}
	return h.run(ctx, fmt.Sprintf(`default_type text/html;
			if ($http_host$request_uri = "%s%s") { return 200 "<!DOCTYPE html><p>%s</p>\n"; }
			return 302 "%s";`, u.Host, u.RequestURI(), PortalMarker, location))
}

// Reset resets each connection once it has made a request.
func (h *HTTP) Reset(ctx context.Context) error { return h.run(ctx, "return 444;") }

// Down closes its ports: connections are refused.
func (h *HTTP) Down() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.program.stop()
}

// Stall holds it: downloads stop where they are, and new connections are taken
// and get no answer. What the kernel has in its buffers still goes out.
func (h *HTTP) Stall(ctx context.Context) error {
	h.mu.Lock()
	runs := h.program.process != nil && running(h.program.process)
	h.mu.Unlock()
	if !runs {
		if err := h.Healthy(ctx); err != nil {
			return err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.program.hold()
}

// Stop ends it for good. Stopping it again does nothing.
func (h *HTTP) Stop() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return nil
	}
	h.stopped = true
	if err := errors.Join(h.program.stop(), h.sink.stop()); err != nil {
		return fmt.Errorf("cannot stop HTTP server on %s: %w", h.host.Name(), err)
	}
	return nil
}

// httpSink reads what is sent to nginx, to its end.
type httpSink struct {
	listener net.Listener
	server   http.Server
	served   sync.WaitGroup
}

func newHTTPSink(listener net.Listener) *httpSink {
	s := &httpSink{listener: listener}
	s.server = http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			buf := make([]byte, 256<<10) // a stream at full rate on a slow processor
			var n int64
			for {
				m, err := r.Body.Read(buf)
				n += int64(m)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return // whoever sent it is gone
				}
			}
			_, _ = fmt.Fprintln(w, n) //nolint:gosec // a number
		}),
	}
	s.served.Go(func() { _ = s.server.Serve(listener) }) // it ends with the listener
	return s
}

func (s *httpSink) addr() string { return s.listener.Addr().String() }

func (s *httpSink) stop() error {
	err := s.server.Close()
	s.served.Wait()
	return err
}
