package sip_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	gosip "github.com/emiago/sipgo/sip"
	"golang.org/x/sys/unix"

	"ontagent/agent/probe/sip"
)

// registrar is an independent implementation of the other end.
type registrar struct {
	mu       sync.Mutex
	bindings []string
	requests int
}

// newRegistrar starts one on loopback, by UDP and TCP on the same port. Its
// account is +861000000000 in ims.example.
func newRegistrar(t *testing.T) (*registrar, netip.AddrPort) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	agent, err := sipgo.NewUA(
		sipgo.WithUserAgent("registrar"), sipgo.WithUserAgentHostname("ims.example"),
		sipgo.WithUserAgentTransportLayerOptions(gosip.WithTransportLayerLogger(quiet)),
		sipgo.WithUserAgentTransactionLayerOptions(gosip.WithTransactionLayerLogger(quiet)),
	)
	if err != nil {
		t.Fatal(err)
	}
	server, err := sipgo.NewServer(agent, sipgo.WithServerLogger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	r := &registrar{bindings: []string{"<sip:phone@192.0.2.50>"}}
	server.OnOptions(func(req *gosip.Request, tx gosip.ServerTransaction) {
		res := gosip.NewResponseFromRequest(req, 200, "OK", nil)
		res.AppendHeader(gosip.NewHeader("Allow", "OPTIONS, REGISTER"))
		_ = tx.Respond(res)
	})
	server.OnRegister(func(req *gosip.Request, tx gosip.ServerTransaction) { _ = tx.Respond(r.register(req)) })

	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp4", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.ServeUDP(udp) })
	wg.Go(func() { _ = server.ServeTCP(tcp) })
	t.Cleanup(func() {
		udp.Close()
		tcp.Close()
		agent.Close()
		wg.Wait()
	})
	return r, netip.MustParseAddrPort(udp.LocalAddr().String())
}

func (r *registrar) register(req *gosip.Request) *gosip.Response {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests++
	h := req.GetHeader("Authorization")
	if h == nil {
		res := gosip.NewResponseFromRequest(req, 401, "Unauthorized", nil)
		res.AppendHeader(gosip.NewHeader("WWW-Authenticate", `Digest realm="ims.example", nonce="abc", qop="auth", algorithm=SHA-256`))
		return res
	}
	part := func(name string) string {
		if m := regexp.MustCompile(name + `="?([^",]*)`).FindStringSubmatch(h.Value()); m != nil {
			return m[1]
		}
		return ""
	}
	hash := func(parts ...string) string {
		b := sha256.Sum256([]byte(strings.Join(parts, ":")))
		return hex.EncodeToString(b[:])
	}
	want := hash(hash(part("username"), "ims.example", secret), "abc", part("nc"), part("cnonce"), "auth", hash("REGISTER", part("uri")))
	if part("response") != want || part("nonce") != "abc" {
		res := gosip.NewResponseFromRequest(req, 403, "Forbidden", nil)
		res.AppendHeader(gosip.NewHeader("Warning", `399 ims.example "wrong credentials"`))
		return res
	}
	if c := req.GetHeader("Contact"); c != nil {
		uri, _, _ := strings.Cut(c.Value(), ";expires")
		r.bindings = without(r.bindings, uri)
		if !strings.Contains(c.Value(), "expires=0") {
			r.bindings = append(r.bindings, uri)
		}
	}
	res := gosip.NewResponseFromRequest(req, 200, "OK", nil)
	for _, b := range r.bindings {
		res.AppendHeader(gosip.NewHeader("Contact", b+";expires=60"))
	}
	return res
}

// state returns how many requests came, and what is registered.
func (r *registrar) state() (requests int, bindings string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests, strings.Join(r.bindings, ",")
}

func without(all []string, s string) []string {
	var kept []string
	for _, a := range all {
		if !strings.HasPrefix(a, s) {
			kept = append(kept, a)
		}
	}
	return kept
}

func TestIndependentServer(t *testing.T) {
	r, addr := newRegistrar(t)
	for _, transport := range []string{"udp", "tcp"} {
		o := account(sip.MethodOptions)
		o.Server, o.Transport = addr, transport
		res, err := sip.Run(t.Context(), o)
		if err != nil || res.Outcome != sip.OK || res.Allow != "OPTIONS, REGISTER" || res.RTTMs == nil || res.Local.Addr() != addr.Addr() {
			t.Fatalf("%s: %+v, %v", transport, res, err)
		}
		o.Method = sip.MethodFetch
		res, err = sip.Run(t.Context(), o)
		if err != nil || res.Outcome != sip.OK || res.Algorithm != "SHA-256" || *res.OtherContacts != 1 {
			t.Fatalf("%s: %+v, %v", transport, res, err)
		}
		o.Method = sip.MethodRegister
		res, err = sip.Run(t.Context(), o)
		if err != nil || res.Outcome != sip.Registered || res.Removal != sip.Removed || *res.OtherContacts != 1 || res.ExpiresS != 60 {
			t.Fatalf("%s: %+v, %v", transport, res, err)
		}
		n, left := r.state()
		if left != "<sip:phone@192.0.2.50>" {
			t.Errorf("%s: left %s", transport, left)
		}
		o.Password = "wrong"
		res, err = sip.Run(t.Context(), o)
		if err != nil || res.Outcome != sip.Rejected || res.Code != 403 || res.Warning != `399 ims.example "wrong credentials"` || res.Removal != "" {
			t.Fatalf("%s: %+v, %v", transport, res, err)
		}
		if now, _ := r.state(); now != n+2 {
			t.Errorf("%s: %d requests with a wrong password", transport, now-n)
		}
	}
}

type resolver map[string][]netip.Addr

func (r resolver) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	if a, ok := r[network+" "+host]; ok {
		return a, nil
	}
	return nil, errors.New("no such host")
}

func TestServerByName(t *testing.T) {
	_, addr := newRegistrar(t)
	o := sip.Options{Host: "sip.ims.example", Server: netip.AddrPortFrom(netip.Addr{}, addr.Port()), Resolver: resolver{
		"ip sip.ims.example": {addr.Addr()}, "ip4 sip.ims.example": {addr.Addr()}, "ip empty": {},
	}}
	res, err := sip.Run(t.Context(), o)
	if err != nil || res.Outcome != sip.OK || res.Server != addr {
		t.Errorf("%+v, %v", res, err)
	}
	o.Source = netip.MustParseAddr("127.0.0.2")
	if res, err = sip.Run(t.Context(), o); err != nil || res.Local.Addr() != o.Source {
		t.Errorf("%+v, %v", res, err)
	}
	o.Source = netip.Addr{}
	for _, name := range []string{"nobody", "empty"} {
		o.Host = name
		if _, err = sip.Run(t.Context(), o); !errors.Is(err, sip.ErrNotResolved) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(c.LocalAddr().String())
	c.Close()
	for _, transport := range []string{"udp", "tcp"} {
		if transport == "tcp" && emulated() {
			continue // user-mode emulation doesn't translate SO_ERROR
		}
		begin := time.Now()
		res, err := sip.Run(t.Context(), sip.Options{Server: addr, Transport: transport})
		if err != nil || res.Outcome != sip.Unreachable || res.Detail != "connection refused" || time.Since(begin) > 2*time.Second {
			t.Errorf("%s: %+v after %v, %v", transport, res, time.Since(begin), err)
		}
	}
}

// What another address sends isn't even seen.
func TestAnswerFromElsewhere(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 4096)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = io.WriteString(writerTo{other, from}, request(b[:n]).reply("200 OK"))
		}
	})
	res, err := sip.Run(t.Context(), sip.Options{Server: netip.MustParseAddrPort(c.LocalAddr().String()), Wait: 600 * time.Millisecond})
	if err != nil || res.Outcome != sip.NoAnswer || res.Unexpected != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	c.Close()
	other.Close()
	wg.Wait()
}

type writerTo struct {
	net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.WriteTo(b, w.to) }

func TestCancelLeavesNothingOpen(t *testing.T) {
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	deaf, err := net.Listen("tcp4", silent.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	for _, transport := range []string{"udp", "tcp"} {
		best := time.Hour // a busy machine may hold up any one of them
		run := func() {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			begin := time.Now()
			o := account(sip.MethodRegister)
			o.Server, o.Transport = netip.MustParseAddrPort(silent.LocalAddr().String()), transport
			res, err := sip.Run(ctx, o)
			best = min(best, time.Since(begin))
			if !errors.Is(err, context.DeadlineExceeded) || res.Removal != sip.MayRemain {
				t.Errorf("%+v, %v", res, err)
			}
		}
		run()
		goroutines, open := runtime.NumGoroutine(), descriptors(t)
		for range 5 {
			run()
		}
		if best > 150*time.Millisecond {
			t.Errorf("%s: ended %v after the context", transport, best-50*time.Millisecond)
		}
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		if n := runtime.NumGoroutine(); n > goroutines {
			t.Errorf("%s: %d goroutines, %d before", transport, n, goroutines)
		}
		if n := descriptors(t); n > open {
			t.Errorf("%s: %d descriptors, %d before", transport, n, open)
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// emulated reports whether this binary runs on a machine of another kind.
func emulated() bool {
	switch runtime.GOARCH {
	case "amd64", "386":
		return false
	}
	b, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && strings.Contains(string(b), "vendor_id")
}

// inNamespace runs f in a network namespace of its own, on a thread that is
// thrown away afterwards. ip runs the ip tool in it, from any goroutine.
func inNamespace(t *testing.T, f func(ip func(args string))) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds: namespaces are left out with -short")
	}
	if emulated() {
		t.Skip("needs a kernel of its own kind")
	}
	unable := t.Skipf
	if os.Getenv("CI") == "true" {
		unable = t.Fatalf
	}
	if _, err := exec.LookPath("ip"); err != nil {
		unable("needs the ip tool: %v", err)
	}
	problem := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			problem <- err
			return
		}
		defer close(problem)
		ns, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		f(func(args string) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread() // as above
				if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
					t.Error(err)
					return
				}
				if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
					t.Errorf("ip %s: %v: %s", args, err, out)
				}
			}()
			<-done
		})
	}()
	if err := <-problem; err != nil {
		unable("needs root: cannot make a network namespace: %v", err)
	}
}

func TestNetworkSaysUnreachable(t *testing.T) {
	inNamespace(t, func(ip func(string)) {
		ip("link set lo up")
		ip("link add near type veth peer name far")
		ip("link set near up")
		ip("link set far up")
		ip("addr add 192.0.2.1/24 dev near")
		ip("route add unreachable 198.51.100.0/24")
		for server, want := range map[string]string{
			"203.0.113.1:5060":   "network is unreachable",
			"198.51.100.1:5060":  "no route to host",
			"192.0.2.77:5060":    "no route to host", // nobody answers ARP: told after three seconds
			"[2001:db8::1]:5060": "network is unreachable",
		} {
			begin := time.Now()
			res, err := sip.Run(t.Context(), sip.Options{Server: netip.MustParseAddrPort(server)})
			if err != nil || res.Outcome != sip.Unreachable || res.Detail != want || time.Since(begin) > 7*time.Second {
				t.Errorf("%s: %+v after %v, %v", server, res, time.Since(begin), err)
			}
		}
	})
}

func TestInterface(t *testing.T) {
	inNamespace(t, func(ip func(string)) {
		o := sip.Options{Server: netip.MustParseAddrPort("192.0.2.2:5060"), Interface: "near"}
		if _, err := sip.Run(t.Context(), o); !errors.Is(err, sip.ErrNoInterface) {
			t.Errorf("none: %v", err)
		}
		for _, how := range []string{"link set near down", "link del near"} {
			ip("link add near type veth peer name far")
			if _, err := sip.Run(t.Context(), o); !errors.Is(err, sip.ErrInterfaceDown) {
				t.Errorf("down: %v", err)
			}
			ip("link set far up")
			ip("link set near up")
			ip("addr add 192.0.2.1/24 dev near")
			ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev near")
			var gone time.Time
			var wg sync.WaitGroup
			wg.Go(func() {
				time.Sleep(1700 * time.Millisecond) // the next request goes at 3.5 s
				gone = time.Now()
				ip(how)
			})
			res, err := sip.Run(t.Context(), o)
			ended := time.Now()
			wg.Wait()
			if !errors.Is(err, sip.ErrInterfaceDown) && !errors.Is(err, sip.ErrNoInterface) || ended.Sub(gone) > time.Second || res.Sent == 0 {
				t.Errorf("%s: %+v, %v after %v", how, res, err, ended.Sub(gone))
			}
			if how == "link set near down" {
				ip("link del near")
			}
		}
	})
}
