package play

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"ontagent/cmd/ontlab/isp"
	"ontagent/cmd/ontlab/netbox"
)

const plainInternet = `scenario: plain-internet
services:
  - {kind: internet, access: ipoe, vlan: 0, down_mbps: 40, up_mbps: 15}
expect:
  verdict: pass
`

// lease asks for a lease with the gateway's MAC, which gets the one that it has,
// and says what comes with it.
func lease(ctx context.Context, l *Lab) (string, time.Duration, error) {
	script := filepath.Join(l.gateway.Dir(), "print.script")
	text := "#!/bin/sh\n[ \"$1\" != bound ] || echo \"lease $ip router=$router server=$serverid\"\n"
	if err := l.gateway.WriteFile(script, []byte(text), 0o755); err != nil {
		return "", 0, err
	}
	began := time.Now()
	out, err := l.gateway.Run(ctx, "busybox", "udhcpc", "-f", "-q", "-n", "-t", "1", "-T", "2", "-i", wanPort, "-s", script)
	return string(out), time.Since(began), err
}

// leased expects something of a lease.
func leased(wanted func(text string, took time.Duration, err error) error) func(context.Context, *Lab) error {
	return func(ctx context.Context, l *Lab) error { return wanted(lease(ctx, l)) }
}

func noLease(text string, _ time.Duration, err error) error {
	if err == nil {
		return fmt.Errorf("there is one: %s", text)
	}
	return nil
}

func goodLease(text string, took time.Duration, err error) error {
	if err == nil && (!strings.Contains(text, "lease 203.0.113.") || !strings.Contains(text, "router=203.0.113.1 ") || took > time.Second) {
		err = fmt.Errorf("after %v: %s", took, text)
	}
	return err
}

// TestFaultsOfInternet lets every fault of an internet line without PPP come
// and go.
func TestFaultsOfInternet(t *testing.T) {
	t.Parallel()
	walkThrough(t, buildLab(t, plainInternet), slices.Concat(dhcpWalks(), dnsWalks(), pathWalks(), lineWalks(), loadWalks()))
}

func dhcpWalks() []walk {
	const asked = "--tries"
	offers := func(want string, args ...string) func(context.Context, *Lab) error {
		return outcome(want, "dhcp", append([]string{"--force", asked, "1"}, args...)...)
	}
	return []walk{
		{fault: "dhcp_silent", there: leased(noLease), gone: leased(goodLease)},
		{fault: "dhcp_slow", params: []string{"delay_ms=1200"}, gone: leased(goodLease), there: leased(func(text string, took time.Duration, err error) error {
			if err == nil && took < 2400*time.Millisecond { // the offer, and the confirmation
				err = fmt.Errorf("after %v: %s", took, text)
			}
			return err
		})},
		{fault: "dhcp_no_address", there: leased(noLease), gone: leased(goodLease)},
		{fault: "dhcp_no_router", gone: leased(goodLease), there: leased(func(text string, _ time.Duration, err error) error {
			if err == nil && !strings.Contains(text, "router= ") {
				err = errors.New(text)
			}
			return err
		})},
		{fault: "second_dhcp", there: func(ctx context.Context, l *Lab) error { return dhcpServers(ctx, l, "203.0.113.", "192.168.250.100") }, gone: func(ctx context.Context, l *Lab) error {
			return dhcpServers(ctx, l, "203.0.113.")
		}},
		{fault: "dhcp6_silent", there: offers("silent", "--prefix"), gone: offers("offered", "--prefix")},
		{fault: "no_prefix", there: func(ctx context.Context, l *Lab) error {
			if offers("no_prefix", "--prefix")(ctx, l) == nil {
				return nil
			}
			return offers("no_addresses", "--prefix")(ctx, l)
		}, gone: offers("offered", "--prefix")},
	}
}

// dhcpServers expects offers of addresses with these beginnings.
func dhcpServers(ctx context.Context, l *Lab, wanted ...string) error {
	var r struct {
		V4 []struct {
			Address netip.Addr `json:"address"`
		} `json:"v4"`
	}
	if err := l.probe(ctx, &r, "dhcp", "--force", "--tries", "1"); err != nil {
		return err
	}
	var got []string
	for _, o := range r.V4 {
		got = append(got, o.Address.String())
	}
	if len(got) != len(wanted) {
		return fmt.Errorf("offers of %v", got)
	}
	for i := range got {
		if !strings.HasPrefix(got[i], wanted[i]) {
			return fmt.Errorf("offers of %v", got)
		}
	}
	return nil
}

func dnsWalks() []walk {
	healthy := both(
		resolves(siteName, func(_ int, r reply, err error) error { return healthyReply(r, err) }),
		resolves("nothing.lab.test", func(_ int, r reply, err error) error {
			if err == nil && r.code != dnsmessage.RCodeNameError {
				err = fmt.Errorf("%s, %v", r.code, r.addresses)
			}
			return err
		}),
	)
	every := func(name, address string) func(context.Context, *Lab) error {
		return resolves(name, func(_ int, r reply, err error) error {
			if err == nil && !slices.Equal(r.addresses, []netip.Addr{netip.MustParseAddr(address)}) {
				err = fmt.Errorf("%s, %v", r.code, r.addresses)
			}
			return err
		})
	}
	beyond := netip.MustParseAddr("198.51.100.53") // where nobody is
	return []walk{
		{fault: "dns_dead", there: silent(0, 1), gone: healthy},
		{fault: "dns_dead", params: []string{"resolver=2"}, there: silent(1), gone: healthy},
		{fault: "dns_servfail", params: []string{"resolver=1"}, gone: healthy, there: resolves(siteName, func(i int, r reply, err error) error {
			if i == 1 {
				return healthyReply(r, err)
			}
			if err == nil && r.code != dnsmessage.RCodeServerFailure {
				err = errors.New(r.code.String())
			}
			return err
		})},
		{fault: "dns_slow", params: []string{"delay_ms=400", "resolver=2"}, gone: healthy, there: resolves(siteName, func(i int, r reply, err error) error {
			if slow := r.took > 400*time.Millisecond; err == nil && slow != (i == 1) {
				return fmt.Errorf("after %v", r.took)
			}
			return healthyReply(r, err)
		})},
		{fault: "dns_wrong_answer", params: []string{"address=192.0.2.1"}, there: every(siteName, "192.0.2.1"), gone: healthy},
		{fault: "dns_wildcard", there: both(every("nothing.lab.test", "192.0.2.67"), every(siteName, core(coreWeb)[0].String())), gone: healthy},
		{fault: "dns_hijack", there: both(every(siteName, "192.0.2.66"), func(ctx context.Context, l *Lab) error {
			r, err := l.lookUp(ctx, beyond, siteName, time.Second)
			if err == nil && !slices.Equal(r.addresses, []netip.Addr{netip.MustParseAddr("192.0.2.66")}) {
				err = fmt.Errorf("%v", r.addresses)
			}
			return err
		}), gone: both(healthy, func(ctx context.Context, l *Lab) error {
			if _, err := l.lookUp(ctx, beyond, siteName, 300*time.Millisecond); err == nil {
				return errors.New("somebody answers")
			}
			return nil
		})},
	}
}

// TestFaultsOfOneResolverAddUp sets faults of one kind for one resolver after
// the other, and several of one resolver.
func TestFaultsOfOneResolverAddUp(t *testing.T) {
	t.Parallel()
	l := buildLab(t, plainInternet)
	set := func(fault string, params ...string) {
		t.Helper()
		m, err := l.sc.Fault(fault, params)
		must(t, err, l.Fault(t.Context(), m.Fault, m.Params))
	}
	set("dns_dead", "resolver=2")
	eventually(t, l, "the second is dead", silent(1))
	set("dns_dead", "resolver=1")
	eventually(t, l, "both are dead", silent(0, 1))
	must(t, l.Clear(t.Context(), "dns_dead"))
	set("dns_slow", "resolver=1", "delay_ms=300")
	set("dns_servfail", "resolver=1")
	eventually(t, l, "the first is late to fail", resolves(siteName, func(i int, r reply, err error) error {
		if err == nil && i == 0 && (r.code != dnsmessage.RCodeServerFailure || r.took < 300*time.Millisecond) {
			err = fmt.Errorf("%s after %v", r.code, r.took)
		}
		return err
	}))
	must(t, l.Clear(t.Context(), "all"))
	eventually(t, l, "both are well", silent())
}

// ntpAnswers expects an answer of the time server, or none.
func ntpAnswers(answers bool) func(context.Context, *Lab) error {
	return func(ctx context.Context, l *Lab) error {
		conn, err := l.gateway.Dial(ctx, "udp", netip.AddrPortFrom(core(coreNTP)[0], 123).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		query := make([]byte, 48)
		query[0] = 4<<3 | 3
		if _, err := conn.Write(query); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := conn.Read(query); (err == nil) != answers {
			return fmt.Errorf("answers: %t, %w", err == nil, err)
		}
		return nil
	}
}

func pathWalks() []walk {
	target := func(i int) string { return core(coreTargets + i)[0].String() }
	target6 := func(i int) string { return core(coreTargets + i)[1].String() }
	web := "http://" + core(coreWeb)[0].String() + "/"
	web6 := "http://[" + core(coreWeb)[1].String() + "]/"
	opens := func(status int, location string, urls ...string) func(context.Context, *Lab) error {
		return func(ctx context.Context, l *Lab) error {
			for _, url := range urls {
				for _, h := range []*netbox.Host{l.gateway, l.home} {
					if h == l.home && strings.Contains(url, "[") {
						continue // the home has no IPv6
					}
					got, to, _, err := page(ctx, h, url)
					if err != nil || got != status || to != location {
						return fmt.Errorf("%s at %s: %d %q, %w", url, h.Name(), got, to, err)
					}
				}
			}
			return nil
		}
	}
	refused := func(ctx context.Context, l *Lab) error {
		_, _, _, err := page(ctx, l.gateway, web)
		if err == nil || !strings.Contains(err.Error(), "refused") {
			return fmt.Errorf("not refused: %w", err)
		}
		return nil
	}
	silence := func(url string) func(context.Context, *Lab) error {
		return func(ctx context.Context, l *Lab) error {
			if _, _, _, err := page(ctx, l.gateway, url); !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("no silence: %w", err)
			}
			return nil
		}
	}
	long, short := []string{"-M", "do", "-s", "1373"}, []string{"-M", "do", "-s", "1372"} // and 28 of headers
	long6, short6 := []string{"-M", "do", "-s", "1353"}, []string{"-M", "do", "-s", "1352"}
	to := func(args []string, at string) []string { return append(slices.Clone(args), at) }
	online := both(pings(true, target(0)), pings(true, target6(0)), ntpAnswers(true), opens(200, "", web, web6))
	return []walk{
		{fault: "ntp_dead", there: ntpAnswers(false), gone: ntpAnswers(true)},
		{
			fault: "mtu_black_hole", params: []string{"mtu=1400"},
			there: both(pings(true, to(short, target(0))...), pings(false, to(long, target(0))...), pings(true, to(short6, target6(0))...), pings(false, to(long6, target6(0))...),
				outcome("black_hole", "mtu")),
			gone: both(pings(true, to(long, target(0))...), pings(true, to(long6, target6(0))...), outcome("ok", "mtu")),
		},
		{
			fault: "walled_garden",
			there: both(opens(302, "http://portal.isp.example/pay", web, web6), pings(true, target(0)), pings(true, target6(0)), silent(), ntpAnswers(false),
				silence("http://"+core(coreWeb)[0].String()+":8080/"), outcome("redirected", "http"), func(ctx context.Context, l *Lab) error {
					_, _, body, err := page(ctx, l.gateway, "http://"+core(corePortal)[0].String()+"/portal")
					if err == nil && !strings.Contains(body, isp.PortalMarker) {
						err = errors.New(body)
					}
					return err
				}),
			gone: both(online, outcome("ok", "http")),
		},
		{fault: "http_down", there: both(refused, outcome("refused", "http")), gone: both(online, outcome("ok", "http"))},
		{fault: "internet_down", there: both(pings(false, target(0)), pings(false, target6(1)), silent(), silence(web), ntpAnswers(false)), gone: online},
		{fault: "target_silent", params: []string{"target=2"}, there: both(pings(true, target(0)), pings(false, target(1)), pings(false, target6(1))), gone: both(pings(true, target(1)), pings(true, target6(1)))},
		{fault: "gateway_silent", there: both(pings(false, "203.0.113.1"), pings(true, target(0))), gone: pings(true, "203.0.113.1")},
		{fault: "broker_down", there: func(ctx context.Context, l *Lab) error { return brokerAnswers(ctx, l, false) }, gone: func(ctx context.Context, l *Lab) error { return brokerAnswers(ctx, l, true) }},
	}
}

// brokerAnswers expects an answer to a CONNECT, or none.
func brokerAnswers(ctx context.Context, l *Lab, answers bool) error {
	at, _ := l.brokerAddr()
	conn, err := l.gateway.Dial(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("\x10\x0e\x00\x04MQTT\x04\x02\x00\x0a\x00\x02ab")); err != nil {
		return err
	}
	n, err := conn.Read(make([]byte, 4))
	if (n == 4) != answers {
		return fmt.Errorf("answers: %d bytes, %w", n, err)
	}
	return nil
}

// carrier expects an interface of the gateway's to have a link, or none.
func carrier(ifname, want string) func(context.Context, *Lab) error {
	return func(ctx context.Context, l *Lab) error {
		out, err := l.gateway.Run(ctx, "cat", "/sys/class/net/"+ifname+"/carrier")
		if err == nil && strings.TrimSpace(string(out)) != want {
			err = fmt.Errorf("carrier %s", out)
		}
		return err
	}
}

// downloads expects the home to get a file at a rate between two, in Mbit/s.
func downloads(low, high float64) func(context.Context, *Lab) error {
	return func(ctx context.Context, l *Lab) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		began := time.Now()
		out, err := l.home.Run(ctx, "busybox", "wget", "-q", "-O", "/dev/null", "http://"+core(coreWeb)[0].String()+"/speed/1m")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if rate := 8 / time.Since(began).Seconds(); rate < low || rate > high {
			return fmt.Errorf("%.1f Mbit/s", rate)
		}
		return nil
	}
}

// technician expects the gateway's own address to be reached from the home.
func technician(ctx context.Context, l *Lab) error {
	_, err := l.home.Run(ctx, "ping", "-n", "-c", "1", "-W", "1", "-I", homeLAN, gatewayLAN)
	return err
}

func lineWalks() []walk {
	online := pings(true, core(coreTargets)[0].String())
	return []walk{
		{fault: "line", params: []string{"down_mbps=4"}, there: downloads(2, 4.5), gone: downloads(8, 100)},
		{fault: "line", params: []string{"mtu=1300"}, there: both(pings(true, "-s", "1272", "-M", "do", "203.0.113.1"), pings(false, "-s", "1273", "-M", "do", "203.0.113.1")), gone: pings(true, "-s", "1472", "203.0.113.1")},
		{fault: "line_loop", there: func(ctx context.Context, l *Lab) error {
			frames := func() (int, error) {
				out, err := l.gateway.Run(ctx, "cat", "/sys/class/net/"+wanPort+"/statistics/rx_packets")
				if err != nil {
					return 0, err
				}
				return strconv.Atoi(strings.TrimSpace(string(out)))
			}
			before, err := frames()
			if err != nil {
				return err
			}
			_ = pings(false, "203.0.113.1")(ctx, l) // whatever is sent, at least the question for its MAC
			after, err := frames()
			if err == nil && after == before {
				err = errors.New("nothing comes back")
			}
			return errors.Join(err, pings(false, "203.0.113.1")(ctx, l))
		}, gone: online},
		{fault: "wan_unplugged", there: both(carrier(wanPort, "0"), pings(false, "203.0.113.1")), gone: both(carrier(wanPort, "1"), online)},
		{fault: "lan_unplugged", there: both(carrier(homePort, "0"), technician), gone: both(carrier(homePort, "1"), technician, downloads(4, 100))},
	}
}

// busyShare is the share of a processor that the fault's process uses.
func busyShare(ctx context.Context, l *Lab) (float64, error) {
	out, err := l.gateway.Run(ctx, "busybox", "sh", "-c", "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' <$p/cmdline) in *'while :; do :; done'*) cat $p/stat;; esac; done | head -n 1")
	if err != nil {
		return 0, err
	}
	read := func() (float64, error) {
		_, rest, ok := strings.Cut(string(out), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 13 {
			return 0, errors.New("nobody is busy")
		}
		user, err := strconv.ParseFloat(fields[11], 64)
		return user / 100, err
	}
	before, err := read()
	if err != nil {
		return 0, err
	}
	pid, _, _ := strings.Cut(string(out), " ")
	began := time.Now()
	sleepUntil(ctx, began.Add(time.Second))
	if out, err = os.ReadFile("/proc/" + pid + "/stat"); err != nil {
		return 0, err
	}
	after, err := read()
	return (after - before) / time.Since(began).Seconds(), err
}

// received is what came in at the home, in bytes.
func received(ctx context.Context, l *Lab, file string) (float64, error) {
	out, err := l.home.Run(ctx, "cat", "/sys/class/net/eth0/statistics/"+file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// traffic expects traffic of the home's at a rate between two, in Mbit/s.
func traffic(file string, low, high float64) func(context.Context, *Lab) error {
	return func(ctx context.Context, l *Lab) error {
		before, err := received(ctx, l, file)
		if err != nil {
			return err
		}
		began := time.Now()
		sleepUntil(ctx, began.Add(time.Second))
		after, err := received(ctx, l, file)
		if rate := (after - before) * 8 / 1e6 / time.Since(began).Seconds(); err == nil && (rate < low || rate > high) {
			err = fmt.Errorf("%s: %.1f Mbit/s", file, rate)
		}
		return err
	}
}

func loadWalks() []walk {
	return []walk{
		{fault: "cross_traffic", params: []string{"down_mbps=8", "up_mbps=3"}, there: both(traffic("rx_bytes", 6, 11), traffic("tx_bytes", 2, 5)), gone: traffic("rx_bytes", 0, 0.5)},
		{fault: "cpu_busy", params: []string{"busy_ratio=0.3"}, there: func(ctx context.Context, l *Lab) error {
			share, err := busyShare(ctx, l)
			if err == nil && (share < 0.1 || share > 0.4) { // of a processor that others use as well
				err = fmt.Errorf("%.2f of a processor", share)
			}
			return err
		}},
	}
}
