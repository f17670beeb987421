package play

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"ontagent/cmd/ontlab/netbox"
	"ontagent/cmd/ontlab/scenario"
)

// walk is a fault that comes and goes in a lab that stays.
type walk struct {
	fault  string
	params []string // as `ontlab fault` takes them
	// there says why the fault cannot be seen, from the gateway, the home or
	// the ONT; gone why it can still, nil: the opposite of there will do.
	there, gone func(ctx context.Context, l *Lab) error
}

// buildLab builds the lab of a scenario's text, which is closed with the test.
func buildLab(t *testing.T, text string) *Lab {
	t.Helper()
	switch {
	case testing.Short():
		t.Skip("not with -short: it builds a lab")
	case !netbox.Inside():
		unavailable(t, noBox)
	}
	for _, program := range []string{"nft", "busybox", "dnsmasq", "nginx", "mosquitto", "ping"} {
		if !installed(program) {
			unavailable(t, program+" is not installed")
		}
	}
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755))
	name, _, _ := strings.Cut(strings.TrimPrefix(text, "scenario: "), "\n")
	file := filepath.Join(dir, name+".yaml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	s, err := scenario.Load(file)
	must(t, err)
	missing := netbox.Missing(t.Context())
	for _, need := range Needs(s) {
		if slices.Contains(missing, need) {
			unavailable(t, "the kernel has no "+need)
		}
	}
	began := time.Now()
	l, err := Build(t.Context(), s, Options{Dir: filepath.Join(dir, "lab"), BinDir: os.Getenv(binEnv), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	must(t, err)
	t.Logf("built in %v", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func installed(program string) bool {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
			return true
		}
	}
	return false
}

// patience bounds how long an effect is waited for.
func patience() time.Duration {
	if os.Getenv(guestEnv) != "" {
		return 60 * time.Second
	}
	return 20 * time.Second
}

// moment is how long an answer takes at the most, in a lab without faults.
func moment() time.Duration {
	if os.Getenv(guestEnv) != "" {
		return 2 * time.Second
	}
	return 300 * time.Millisecond
}

// walkThrough lets faults come and go, one after the other. Before each one,
// and in the end, nothing is to be seen of it.
func walkThrough(t *testing.T, l *Lab, walks []walk) {
	t.Helper()
	for _, w := range walks {
		t.Run(w.fault, func(t *testing.T) {
			gone := w.gone
			if gone == nil {
				gone = func(ctx context.Context, l *Lab) error {
					if w.there(ctx, l) == nil {
						return errors.New("it is there")
					}
					return nil
				}
			}
			began := time.Now()
			eventually(t, l, "is not there at first", gone)
			m, err := l.sc.Fault(w.fault, w.params)
			must(t, err, l.Fault(t.Context(), m.Fault, m.Params))
			set := time.Now()
			eventually(t, l, "is there", w.there)
			seen := time.Now()
			must(t, l.Fault(t.Context(), m.Fault, m.Params)) // once more changes nothing
			if active := l.Active(); w.fault != "session_drop" && !slices.Equal(active, []string{w.fault}) {
				t.Errorf("active are %q", active)
			}
			if w.fault != "session_drop" && os.Getenv(guestEnv) == "" { // there it would take minutes
				eventually(t, l, "is still there", w.there)
			}
			must(t, l.Clear(t.Context(), w.fault))
			cleared := time.Now()
			eventually(t, l, "is gone", gone)
			if active := l.Active(); len(active) > 0 {
				t.Errorf("active are %q", active)
			}
			t.Logf("set after %v, seen after %v, cleared after %v, gone after %v", set.Sub(began).Round(time.Millisecond),
				seen.Sub(set).Round(time.Millisecond), cleared.Sub(seen).Round(time.Millisecond), time.Since(cleared).Round(time.Millisecond))
		})
	}
}

func eventually(t *testing.T, l *Lab, what string, ok func(context.Context, *Lab) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience())
	defer cancel()
	for {
		err := ok(ctx, l)
		if err == nil {
			return
		}
		if !sleepUntil(ctx, time.Now().Add(50*time.Millisecond)) {
			t.Fatalf("not so: %s: %v", what, err)
		}
	}
}

// probe runs one of the agent's probes on the gateway.
func (l *Lab) probe(ctx context.Context, result any, name string, args ...string) error {
	args = append([]string{"probe", name, "--json", "--config", l.configPath()}, args...)
	// Its exit code is that of the outcome.
	out, err := l.gateway.Run(ctx, l.office.Agent, args...)
	if jsonErr := json.Unmarshal(out, result); jsonErr != nil {
		return fmt.Errorf("%w: %s", errors.Join(jsonErr, err), out)
	}
	return nil
}

// outcome expects an outcome of a probe.
func outcome(want, name string, args ...string) func(context.Context, *Lab) error {
	return func(ctx context.Context, l *Lab) error {
		var r struct{ Outcome string }
		if err := l.probe(ctx, &r, name, args...); err != nil {
			return err
		}
		if r.Outcome != want {
			return fmt.Errorf("%s is %s, not %s", name, r.Outcome, want)
		}
		return nil
	}
}

// pings expects answers, or none, to pings of the gateway's.
func pings(answered bool, args ...string) func(context.Context, *Lab) error {
	return func(ctx context.Context, l *Lab) error {
		_, err := l.gateway.Run(ctx, "ping", append([]string{"-n", "-c", "1", "-W", fmt.Sprint(moment().Seconds())}, args...)...)
		if answered {
			return err
		}
		if err == nil {
			return errors.New("it answers")
		}
		return nil
	}
}

// both expects two things.
func both(all ...func(context.Context, *Lab) error) func(context.Context, *Lab) error {
	return func(ctx context.Context, l *Lab) error {
		for _, one := range all {
			if err := one(ctx, l); err != nil {
				return err
			}
		}
		return nil
	}
}

// reply is what a resolver says.
type reply struct {
	code      dnsmessage.RCode
	addresses []netip.Addr
	took      time.Duration
}

var errNoReply = errors.New("no reply")

// ask asks a resolver from the gateway for an IPv4 address.
func (l *Lab) lookUp(ctx context.Context, resolver netip.Addr, name string, patience time.Duration) (reply, error) {
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	packed, err := query.Pack()
	if err != nil {
		return reply{}, err
	}
	began := time.Now()
	conn, err := l.gateway.Dial(ctx, "udp", netip.AddrPortFrom(resolver, 53).String())
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	if _, err := conn.Write(packed); err != nil {
		return reply{}, err
	}
	if err := conn.SetReadDeadline(began.Add(patience)); err != nil {
		return reply{}, err
	}
	buffer := make([]byte, 1500)
	n, err := conn.Read(buffer)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return reply{}, errNoReply
	}
	if err != nil {
		return reply{}, err
	}
	r := reply{took: time.Since(began)}
	var answer dnsmessage.Message
	if err := answer.Unpack(buffer[:n]); err != nil {
		return r, err
	}
	r.code = answer.RCode
	for _, a := range answer.Answers {
		if a, ok := a.Body.(*dnsmessage.AResource); ok {
			r.addresses = append(r.addresses, netip.AddrFrom4(a.A))
		}
	}
	return r, nil
}

// resolves expects a reply of each resolver, by both families, that is as wanted.
func resolves(name string, wanted func(i int, r reply, err error) error) func(context.Context, *Lab) error {
	return func(ctx context.Context, l *Lab) error {
		for i := range l.sc.Network.DNS.Resolvers {
			for _, at := range core(coreDNS + i) {
				r, err := l.lookUp(ctx, at, name, max(moment(), time.Second/2))
				if err := wanted(i, r, err); err != nil {
					return fmt.Errorf("%s: %w", at, err)
				}
			}
		}
		return nil
	}
}

// silent expects no answer of the resolvers with these numbers, and those of the
// others.
func silent(which ...int) func(context.Context, *Lab) error {
	return resolves(siteName, func(i int, r reply, err error) error {
		if slices.Contains(which, i) {
			if !errors.Is(err, errNoReply) {
				return fmt.Errorf("it says %+v, %w", r, err)
			}
			return nil
		}
		return healthyReply(r, err)
	})
}

func healthyReply(r reply, err error) error {
	if err == nil && (r.code != 0 || !slices.Equal(r.addresses, []netip.Addr{core(coreWeb)[0]})) {
		err = fmt.Errorf("%s, %v", r.code, r.addresses)
	}
	return err
}

// page is what a web server says to a host, without following.
func page(ctx context.Context, from *netbox.Host, url string) (status int, location, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*moment())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", "", err
	}
	transport := &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	return response.StatusCode, response.Header.Get("Location"), string(text), err
}

// countLines counts the lines with a text in what a program on a host prints.
func countLines(ctx context.Context, h *netbox.Host, text, program string, args ...string) (int, error) {
	out, err := h.Run(ctx, program, args...)
	return strings.Count(string(out), text), err
}
