package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/cmd/cli"
)

const (
	// speedBody is how much is kept to be sent again and again: more than any
	// compression on the way looks back.
	speedBody = 4 << 20
	// speedHeader bounds a request's head, in bytes.
	speedHeader = 8 << 10
	// speedIdle is how long a connection may wait for its next request,
	// speedLife how long it may ask for more at all.
	speedIdle = 10 * time.Second
	speedLife = 5 * time.Minute
)

// speedLimits bound what one client, or all of them, may have of a server.
type speedLimits struct {
	connections int           // at once
	perAddress  int           // of these from one IPv4 address, or one /64 of IPv6
	time        time.Duration // of one request
	bytes       int64         // of one request
	// stall is how long a client may take for the next speedChunk of a
	// download, or for any byte of an upload.
	stall   time.Duration
	head    time.Duration  // that a request's head may take to come
	goodbye time.Duration  // that tests may go on after the server was told to end
	allow   []netip.Prefix // who may connect; empty: everybody
}

// speedServer is a server for speed tests: GET sends, POST and PUT take, and
// what is sent means nothing.
type speedServer struct {
	limits     speedLimits
	body       *os.File // in memory
	congestion string
	log        *slog.Logger
	now        func() time.Time
	buffers    sync.Pool // of uploads
}

func (a *app) speedServer(ctx context.Context, args []string) error {
	f := a.flags("speed-server")
	var listen, allow list
	f.Var(&listen, "listen", "`ADDRESS` to listen on; may be repeated (default: :8080, of IPv4 and IPv6)")
	f.Var(&allow, "allow", "serve only clients in these networks, `CIDR`,… (default: everybody)")
	connections := f.Int("max-connections", 1024, "`N` connections at once; more are answered 503")
	perAddress := f.Int("max-per-address", 128, "`N` of these from one IPv4 address or one /64 of IPv6")
	longest := f.Duration("max-time", time.Minute, "`TIME` after which a request is cut")
	most := f.Int64("max-bytes", 64<<30, "`BYTES` that a request may move; what is downloaded is that long unless less is asked for")
	stall := f.Duration("stall", 15*time.Second, "`TIME` without progress after which a request is cut")
	congestion := f.String("congestion", "", "congestion control `NAME`, like bbr or cubic (default: the system's)")
	if err := a.parse(f, args, 0, 0); err != nil {
		return err
	}
	limits := speedLimits{connections: *connections, perAddress: *perAddress, time: *longest, bytes: *most, stall: *stall, head: 5 * time.Second, goodbye: 3 * time.Second}
	if limits.connections < 1 || limits.perAddress < 1 || limits.bytes < 1 || limits.time < time.Second || limits.stall < time.Second {
		return cli.Exit(cli.Usage, "speed-server: limits must be at least 1, times at least 1s")
	}
	for _, s := range allow {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return cli.Exit(cli.Usage, "speed-server: --allow %q is not a network like 192.0.2.0/24", s)
		}
		limits.allow = append(limits.allow, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()).Masked())
	}
	if len(listen) == 0 {
		listen = list{":8080"}
	}
	log := slog.New(slog.NewTextHandler(a.err, nil))
	s, err := newSpeedServer(limits, log)
	if err != nil {
		return cli.Exit(cli.Fail, "speed-server: %w", err)
	}
	defer s.body.Close() //nolint:errcheck // it is memory
	listeners, err := s.listen(ctx, listen, *congestion)
	if err != nil {
		return cli.Exit(cli.Fail, "speed-server: %w", err)
	}
	if err := s.serve(ctx, listeners); err != nil {
		return cli.Exit(cli.Fail, "speed-server: %w", err)
	}
	return nil
}

func newSpeedServer(limits speedLimits, log *slog.Logger) (*speedServer, error) {
	fd, err := unix.MemfdCreate("speed", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot get memory for what is sent: %w", err)
	}
	s := &speedServer{limits: limits, body: os.NewFile(uintptr(fd), "speed"), log: log, now: time.Now}
	s.buffers.New = func() any { return new([64 << 10]byte) }
	b := make([]byte, speedBody)
	_, _ = rand.Read(b) // it never fails
	if _, err := s.body.Write(b); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make what is sent: %w", err), s.body.Close())
	}
	f, err := s.openBody()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read what is sent: %w", err), s.body.Close())
	}
	return s, f.Close()
}

// openBody opens what is sent, with a position of its own.
func (s *speedServer) openBody() (*os.File, error) {
	return os.Open("/proc/self/fd/" + strconv.Itoa(int(s.body.Fd())))
}

// listen opens all addresses or none.
func (s *speedServer) listen(ctx context.Context, addresses []string, congestion string) (all []net.Listener, err error) {
	var c net.ListenConfig
	// Of multipath TCP connections neither the congestion control nor the path
	// is what was asked for.
	c.SetMultipathTCP(false)
	c.Control = func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			if congestion != "" { // connections get it from the listener
				failed = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
			}
			if failed == nil {
				s.congestion, failed = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
			}
		})
		if failed != nil {
			return fmt.Errorf("cannot use congestion control %q: %w", congestion, failed)
		}
		return err
	}
	gate := newSpeedGate(s.limits)
	for _, address := range addresses {
		l, err := c.Listen(ctx, "tcp", address)
		if err != nil {
			for _, open := range all {
				err = errors.Join(err, open.Close())
			}
			return nil, fmt.Errorf("cannot listen: %w", err)
		}
		all = append(all, &speedListener{Listener: l, gate: gate, now: s.now})
	}
	return all, nil
}

// serve serves until ctx ends, and closes the listeners.
func (s *speedServer) serve(ctx context.Context, listeners []net.Listener) error {
	server := http.Server{
		Handler: s, MaxHeaderBytes: speedHeader, ReadHeaderTimeout: s.limits.head, IdleTimeout: speedIdle,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, speedConnKey{}, c)
		},
	}
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		s.log.Info("listening", "address", l.Addr().String(), "congestion_control", s.congestion)
		go func() { ended <- server.Serve(l) }()
	}
	var failed error
	running := len(listeners)
	select {
	case <-ctx.Done():
	case failed = <-ended:
		running--
	}
	goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.goodbye)
	defer cancel()
	if server.Shutdown(goodbye) != nil { // tests still run
		_ = server.Close()
	}
	for range running {
		<-ended //nolint:errcheck // it was closed
	}
	if failed != nil {
		return fmt.Errorf("cannot serve: %w", failed)
	}
	s.log.Info("stopped")
	return nil
}
