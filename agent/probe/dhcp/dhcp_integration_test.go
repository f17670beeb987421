package dhcp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/dhcpv6/nclient6"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"ontagent/agent/probe/dhcp"
)

// host is a network namespace, held by one thread.
type host struct {
	t    *testing.T
	work chan func()
	tid  int
}

// able skips a test that can't run here, unless it must.
func able(t *testing.T, tools ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts servers")
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	machine := unix.ByteSliceToString(uts.Machine[:])
	native := map[string]string{"amd64": "x86_64", "386": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if native != machine && machine != "i686" {
		t.Skipf("needs a kernel of its own kind: %s on %s", runtime.GOARCH, machine)
	}
	unable := t.Skipf
	if os.Getenv("CI") == "true" {
		unable = t.Fatalf
	}
	if os.Getuid() != 0 {
		unable("needs root for network namespaces")
	}
	for _, tool := range append(tools, "ip") {
		if _, err := exec.LookPath(tool); err != nil {
			unable("needs %s: %v", tool, err)
		}
	}
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, work: make(chan func())}
	ready := make(chan error)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		h.tid = unix.Gettid()
		ready <- err
		for f := range h.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() { close(h.work); <-ended })
	h.do(func() {
		for _, key := range []string{"accept_dad", "router_solicitations"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/"+key, []byte("0"), 0o644); err != nil {
				t.Errorf("cannot set %s: %v", key, err)
			}
		}
	})
	h.ip("link", "set", "lo", "up")
	return h
}

// do runs f in the namespace and waits for it.
func (h *host) do(f func()) {
	done := make(chan struct{})
	h.work <- func() { defer close(done); f() }
	<-done
}

func (h *host) ip(args ...string) {
	h.t.Helper()
	h.do(func() {
		h.t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			h.t.Errorf("ip %v: %v: %s", args, err, out)
		}
	})
}

// cable connects two hosts.
func (h *host) cable(name string, z *host, zName string) {
	h.t.Helper()
	h.ip("link", "add", name, "type", "veth", "peer", "name", zName, "netns", strconv.Itoa(z.tid))
	h.ip("link", "set", name, "up")
	z.ip("link", "set", zName, "up")
	h.carrier(name)
}

// carrier waits until the interface has one.
func (h *host) carrier(name string) {
	h.t.Helper()
	await(h.t, "carrier on "+name, func() (up bool) {
		h.do(func() {
			ifi, err := net.InterfaceByName(name)
			up = err == nil && ifi.Flags&net.FlagRunning != 0
		})
		return up
	})
}

// start runs a program until the test ends; what it said is shown if the test
// failed.
func (h *host) start(env []string, args ...string) *exec.Cmd {
	h.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	h.do(func() {
		if err := cmd.Start(); err != nil {
			h.t.Errorf("cannot start %s: %v", args[0], err)
		}
	})
	if h.t.Failed() {
		h.t.FailNow()
	}
	h.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if h.t.Failed() {
			h.t.Logf("%s: %s", args[0], out.Bytes()[max(0, out.Len()-2000):])
		}
	})
	return cmd
}

func (h *host) run(ctx context.Context, o dhcp.Options) (res dhcp.Result, took time.Duration, err error) {
	h.do(func() {
		begin := time.Now()
		res, err = dhcp.Run(ctx, o)
		took = time.Since(begin)
	})
	return res, took, err
}

// await calls f until it says yes.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 800 {
		if f() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("no %s", what)
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// dnsmasq starts a server and returns its file of leases.
func (h *host) dnsmasq(ifname string, network int, args ...string) string {
	h.t.Helper()
	leases := filepath.Join(h.t.TempDir(), "leases")
	h.start(nil, append([]string{
		"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=" + ifname, "--bind-dynamic",
		"--no-ping", "--user=root", "--pid-file=", "--log-facility=-", "--log-dhcp", "--dhcp-leasefile=" + leases,
		fmt.Sprintf("--dhcp-range=10.41.0.%d,10.41.0.%d,255.255.255.0,1h", network, network+50),
	}, args...)...)
	// It is ready when it holds the port: no address answers before.
	await(h.t, "dnsmasq", func() bool {
		ready := false
		h.do(func() {
			b, err := os.ReadFile("/proc/thread-self/net/udp")
			ready = err == nil && bytes.Contains(b, []byte(":0043 "))
		})
		return ready
	})
	return leases
}

// gateway and servers behind one bridge.
func access(t *testing.T, servers int) (gateway *host, behind []*host) {
	t.Helper()
	gateway = newHost(t)
	olt := newHost(t)
	olt.ip("link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	olt.ip("link", "set", "br0", "up")
	gateway.cable("wan0", olt, "pon0")
	olt.ip("link", "set", "pon0", "master", "br0")
	for i := range servers {
		s := newHost(t)
		port := fmt.Sprintf("port%d", i+1)
		s.cable("srv0", olt, port)
		olt.ip("link", "set", port, "master", "br0")
		s.ip("addr", "add", fmt.Sprintf("10.41.0.%d/24", i+1), "dev", "srv0")
		s.ip("addr", "add", fmt.Sprintf("2001:db8:41::%d/64", i+1), "dev", "srv0", "nodad")
		behind = append(behind, s)
	}
	return gateway, behind
}

// leaks says what a test left open.
func leaks(t *testing.T) func() {
	t.Helper()
	count := func() (files, goroutines int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries), runtime.NumGoroutine()
	}
	files, goroutines := count()
	return func() {
		t.Helper()
		f, g := count()
		for range 50 { // what the runtime itself ends late
			if f, g = count(); f <= files && g <= goroutines {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%d descriptors and %d goroutines became %d and %d", files, goroutines, f, g)
	}
}

func TestTwoDnsmasq(t *testing.T) {
	able(t, "dnsmasq", "busybox")
	gateway, servers := access(t, 2)
	first := servers[0].dnsmasq("srv0", 100, "--dhcp-option=26,1492", "--dhcp-option=option:dns-server,10.64.0.53", "--domain=isp.example", "--dhcp-option=43,01:02:03")
	second := servers[1].dnsmasq("srv0", 200)
	// Warm: the first namespace's netlink socket and the like are no leak.
	if _, _, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0"}); err != nil {
		t.Fatal(err)
	}
	check := leaks(t)
	res, _, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0", Collect: time.Second})
	check()
	if err != nil || res.Outcome != dhcp.Offered || len(res.V4) != 2 || res.Sent != 1 || res.Damaged != 0 || res.Looped {
		t.Fatalf("%+v, %v", res, err)
	}
	// An offer is reported at most half a second after it was on the wire. (A
	// busy machine may need more than one try to show it.)
	fastest := time.Hour
	for range 5 {
		if _, took, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0"}); err == nil {
			fastest = min(fastest, took)
		}
	}
	if fastest > 500*time.Millisecond {
		t.Errorf("reported after %v", fastest)
	}
	seen := map[netip.Addr]dhcp.Offer{}
	for _, o := range res.V4 {
		seen[o.ServerID] = o
	}
	o := seen[server4]
	if o.MTU != 1492 || o.LeaseS != 3600 || o.PrefixLength != 24 || len(o.DNS) != 1 || o.Domain != "isp.example" || !o.HasVendorInfo || o.LatencyMs <= 0 {
		t.Errorf("%+v", o)
	}
	if _, ok := seen[netip.MustParseAddr("10.41.0.2")]; !ok {
		t.Errorf("%+v", res.V4)
	}
	if got := content(t, first) + content(t, second); got != "" {
		t.Errorf("a lease was taken: %s", got)
	}

	// A customer has a lease, by the same MAC. Asking changes nothing about it.
	bound := filepath.Join(t.TempDir(), "bound")
	script := filepath.Join(t.TempDir(), "script")
	text := "#!/bin/sh\necho $1 $ip >>" + bound + "\n[ -n \"$ip\" ] && ip addr replace $ip/24 dev $interface\nexit 0\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	customer := gateway.start(nil, "busybox", "udhcpc", "-f", "-i", "wan0", "-s", script, "-t", "5", "-T", "1")
	await(t, "customer's lease", func() bool { return strings.Contains(content(t, bound), "bound ") })
	before := content(t, first) + content(t, second)
	address := strings.Fields(content(t, bound)[strings.Index(content(t, bound), "bound "):])[1]
	if strings.Count(before, "\n") != 1 || !strings.Contains(before, address) {
		t.Fatalf("leases %q, bound to %s", before, address)
	}
	for _, o := range []dhcp.Options{{Interface: "wan0"}, {Interface: "wan0", Inform: true}} {
		res, _, err := gateway.run(t.Context(), o)
		if want := map[bool]dhcp.Outcome{false: dhcp.Offered, true: dhcp.Informed}[o.Inform]; err != nil || res.Outcome != want {
			t.Errorf("beside a customer: %+v, %v, want %s", res, err, want)
		}
		for _, o := range res.V4 {
			if o.Type == "ack" && (o.Address.IsValid() || o.LeaseS != 0) {
				t.Errorf("INFORM was answered with a lease: %+v", o)
			}
		}
	}
	if after := content(t, first) + content(t, second); after != before {
		t.Errorf("leases were %q, are %q", before, after)
	}
	if err := customer.Process.Signal(syscall.SIGUSR1); err != nil { // renew
		t.Fatal(err)
	}
	await(t, "renewal", func() bool { return strings.Contains(content(t, bound), "renew "+address) })
	if got := content(t, bound); strings.Contains(got, "nak") || strings.Count(got, "deconfig") != 1 {
		t.Errorf("the customer's lease was disturbed: %s", got)
	}
}

func TestDnsmasqRouter(t *testing.T) {
	able(t, "dnsmasq")
	gateway, servers := access(t, 1)
	leases := servers[0].dnsmasq("srv0", 100, "--enable-ra", "--dhcp-range=::100,::1ff,constructor:srv0,64,1h", "--dhcp-option=option6:dns-server,[2001:db8::53]")
	for _, mac := range []net.HardwareAddr{nil, {2, 0, 0, 0, 0, 0x99}} {
		res, took, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0", Families: dhcp.V4 | dhcp.V6 | dhcp.Routers, MAC: mac})
		if err != nil || res.Outcome != dhcp.Offered || len(res.V4) != 1 || len(res.V6) != 1 || len(res.Routers) != 1 {
			t.Fatalf("%v: %+v, %v", mac, res, err)
		}
		t.Logf("took %v; %+v", took, res)
		ra, a := res.Routers[0], res.V6[0]
		if !ra.Managed || len(ra.Prefixes) != 1 || ra.Prefixes[0].Prefix != netip.MustParsePrefix("2001:db8:41::/64") || ra.LifetimeS == 0 ||
			len(ra.RDNSS) != 1 || ra.From != a.From {
			t.Errorf("%+v", ra)
		}
		if len(a.Addresses) != 1 || !netip.MustParsePrefix("2001:db8:41::/64").Contains(a.Addresses[0].Address) || len(a.DNS) != 1 || len(a.Prefixes) != 0 {
			t.Errorf("%+v", a)
		}
	}
	// dnsmasq writes its own DUID and nothing else.
	if got := content(t, leases); strings.Count(got, "\n") > 1 || got != "" && !strings.HasPrefix(got, "duid ") {
		t.Errorf("a lease was taken: %q", got)
	}
}

// kea starts a server with prefixes and returns its file of leases.
func (h *host) kea(prefixes bool) string {
	h.t.Helper()
	dir := h.t.TempDir()
	leases := filepath.Join(dir, "leases.csv")
	pd := ""
	if prefixes {
		pd = `, "pd-pools": [ { "prefix": "2001:db8:1000::", "prefix-len": 40, "delegated-len": 56 } ]`
	}
	config := fmt.Sprintf(`{"Dhcp6": {
		"interfaces-config": {"interfaces": ["srv0"]},
		"lease-database": {"type": "memfile", "persist": true, "name": %q, "lfc-interval": 0},
		"server-id": {"type": "LL", "persist": false},
		"option-data": [{"name": "dns-servers", "data": "2001:db8::53"}],
		"subnet6": [{"interface": "srv0", "subnet": "2001:db8:41::/64", "pools": [{"pool": "2001:db8:41::100-2001:db8:41::1ff"}]%s}],
		"loggers": [{"name": "kea-dhcp6", "severity": "INFO", "output_options": [{"output": "stdout"}]}]}}`, leases, pd)
	file := filepath.Join(dir, "kea.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.start([]string{"KEA_LOCKFILE_DIR=" + dir, "KEA_PIDFILE_DIR=" + dir}, "kea-dhcp6", "-c", file)
	await(h.t, "kea", func() bool {
		ready := false
		h.do(func() {
			b, err := os.ReadFile("/proc/thread-self/net/udp6")
			ready = err == nil && bytes.Contains(b, []byte(":0223 "))
		})
		return ready
	})
	return leases
}

func TestKeaPrefix(t *testing.T) {
	able(t, "kea-dhcp6")
	gateway, servers := access(t, 2)
	first, second := servers[0].kea(true), servers[1].kea(false)
	empty := content(t, first) + content(t, second)
	if strings.Count(empty, "\n") != 2 { // two headers
		t.Fatalf("leases %q", empty)
	}
	ask := func() dhcp.Result {
		t.Helper()
		// A second is for a busy machine.
		res, took, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0", Families: dhcp.V6, PrefixDelegation: true, Collect: time.Second})
		if err != nil || res.Outcome != dhcp.Offered || len(res.V6) != 2 {
			t.Fatalf("%+v, %v after %v", res, err, took)
		}
		return res
	}
	res := ask()
	var refused dhcp.Advertise
	for _, a := range res.V6 {
		if len(a.Prefixes) == 0 {
			refused = a
			continue
		}
		if p := a.Prefixes[0]; p.Prefix.Bits() != 56 || !netip.MustParsePrefix("2001:db8:1000::/40").Contains(p.Prefix.Addr()) || p.ValidS == 0 {
			t.Errorf("%+v", a)
		}
		if len(a.Addresses) != 1 || len(a.DNS) != 1 || a.LatencyMs <= 0 {
			t.Errorf("%+v", a)
		}
	}
	if len(refused.Statuses) != 1 || refused.Statuses[0].Of != "ia_pd" || refused.Statuses[0].Code != 6 || refused.Statuses[0].Text == "" {
		t.Errorf("%+v", refused)
	}
	if got := content(t, first) + content(t, second); got != empty {
		t.Errorf("a lease was taken: %q", got)
	}

	// The customer takes address and prefix, under the very same identifiers.
	gateway.do(func() {
		ifi, err := net.InterfaceByName("wan0")
		if err != nil {
			t.Error(err)
			return
		}
		client, err := nclient6.New("wan0", nclient6.WithTimeout(2*time.Second))
		if err != nil {
			t.Error(err)
			return
		}
		defer client.Close()
		duid := duidLL(dhcp.MAC(ifi.HardwareAddr))
		iaid := [4]byte(ifi.HardwareAddr[2:])
		advertised, err := client.Solicit(t.Context(), dhcpv6.WithClientID(duid), dhcpv6.WithIAID(iaid), dhcpv6.WithIAPD(iaid))
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := client.Request(t.Context(), advertised); err != nil {
			t.Error(err)
		}
	})
	taken := content(t, first) + content(t, second)
	if strings.Count(taken, "\n") < 3 {
		t.Fatalf("the customer has no lease: %q", taken)
	}
	ask()
	if got := content(t, first) + content(t, second); got != taken {
		t.Errorf("leases were %q, are %q", taken, got)
	}
}

func TestSilentLine(t *testing.T) {
	able(t)
	gateway, _ := access(t, 1)
	o := dhcp.Options{Interface: "wan0", Families: dhcp.V4 | dhcp.V6 | dhcp.Routers}
	res, took, err := gateway.run(t.Context(), o)
	if err != nil || res.Outcome != dhcp.Silent || took > o.Duration()+time.Second {
		t.Errorf("%+v, %v after %v", res, err, took)
	}
}

// Nothing reaches the wire, so nothing was measured.
func TestWithoutCarrier(t *testing.T) {
	able(t)
	gateway, olt := newHost(t), newHost(t)
	gateway.cable("wan0", olt, "pon0")
	olt.ip("link", "set", "pon0", "down")
	// The kernel notices after a moment; until then, frames are dropped in
	// silence, and what is found in the end counts.
	if res, _, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0"}); !errors.Is(err, dhcp.ErrDown) {
		t.Errorf("lost just now: %+v, %v", res, err)
	}
	if res, took, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0"}); !errors.Is(err, dhcp.ErrDown) || res.Sent != 0 || took > time.Second {
		t.Errorf("lost: %+v, %v after %v", res, err, took)
	}
}

// The kernel may lack VLAN devices; tags in frames need none.
func TestTagInTheFrame(t *testing.T) {
	able(t)
	gateway, server := newHost(t), newHost(t)
	gateway.cable("wan0", server, "srv0")
	var conn *packet.Conn
	server.do(func() {
		ifi, err := net.InterfaceByName("srv0")
		if err == nil {
			conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if conn == nil {
		t.FailNow()
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			p, err := dhcp.Parse(buf[:n], 0, true)
			_, _, _, to, request := p.Parts()
			if err != nil || to != 67 {
				continue
			}
			for i, tag := range []dhcp.Tag{dhcp.NewTag(42, 0), 0, dhcp.NewTag(41, 3)} {
				mac := dhcp.MAC(request[28:34])
				frame := dhcp.Packet(serverMAC, mac, tag, server4, netip.MustParseAddr("10.41.0.101"), 64, 67, 68, fullOffer(t, request, byte(i+1))).Marshal()
				_, _ = conn.WriteTo(frame, &packet.Addr{HardwareAddr: mac[:]})
			}
		}
	}()
	defer func() { conn.Close(); <-ended }()
	for _, mac := range []net.HardwareAddr{nil, {2, 0, 0, 0, 0, 0x99}} {
		res, _, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0", VLAN: 41, Priority: 6, MAC: mac})
		if err != nil || len(res.V4) != 1 || res.V4[0].ServerID != netip.MustParseAddr("10.41.0.3") || len(res.OtherVLANs) != 2 || res.OtherVLANs[0] != 42 || res.OtherVLANs[1] != 0 {
			t.Errorf("%+v, %v", res, err)
		}
		res, _, err = gateway.run(t.Context(), dhcp.Options{Interface: "wan0", MAC: mac})
		if err != nil || len(res.V4) != 1 || res.V4[0].ServerID != netip.MustParseAddr("10.41.0.2") {
			t.Errorf("untagged: %+v, %v", res, err)
		}
	}
	// And the tag really is in the frame, as the far end sees it.
	var tci uint16
	asked := make(chan struct{})
	server.do(func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))))
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})); err != nil {
			t.Error(err)
			return
		}
		go func() {
			defer close(asked)
			_, _, _ = gateway.run(t.Context(), dhcp.Options{Interface: "wan0", VLAN: 41, Priority: 6, Tries: 1})
		}()
		buf, oob := make([]byte, 2048), make([]byte, 64)
		for {
			n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, 0)
			if err != nil {
				t.Error(err)
				return
			}
			h, data, _, err := unix.ParseOneSocketControlMessage(oob[:oobn])
			if n > 14 && buf[6] == 0 || err != nil || h.Type != unix.PACKET_AUXDATA {
				continue
			}
			if p, err := dhcp.Parse(buf[:n], 0, true); err == nil {
				if _, _, _, to, _ := p.Parts(); to == 67 {
					tci = binary.NativeEndian.Uint16(data[16:])
					return
				}
			}
		}
	})
	<-asked
	if tci != 6<<13|41 {
		t.Errorf("the tag on the wire is %04x", tci)
	}
}

func TestInterfaceGoneAndCancelled(t *testing.T) {
	able(t, "nsenter")
	gateway, _ := access(t, 1)
	if _, _, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan7"}); !errors.Is(err, dhcp.ErrNoInterface) {
		t.Errorf("no such interface: %v", err)
	}
	if _, _, err := gateway.run(t.Context(), dhcp.Options{Interface: "lo"}); !errors.Is(err, dhcp.ErrOptions) {
		t.Errorf("on the loopback: %v", err)
	}
	if _, _, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0", Inform: true}); !errors.Is(err, dhcp.ErrOptions) {
		t.Errorf("Inform without an address: %v", err)
	}

	check := leaks(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, took, err := gateway.run(ctx, dhcp.Options{Interface: "wan0", Families: dhcp.V4 | dhcp.V6})
	if !errors.Is(err, context.DeadlineExceeded) || took > 700*time.Millisecond {
		t.Errorf("cancelled: %v after %v", err, took)
	}
	check()

	for _, how := range []string{"down", "del"} {
		end := []string{"link", "set", "wan0", "down"}
		if how == "del" {
			gateway.ip("link", "set", "wan0", "up")
			gateway.carrier("wan0")
			end = []string{"link", "del", "wan0"}
		}
		ended := make(chan struct{})
		time.AfterFunc(200*time.Millisecond, func() {
			defer close(ended)
			// From beside: the host's own thread is in Run.
			out, err := exec.Command("nsenter", append([]string{"--net=/proc/" + strconv.Itoa(gateway.tid) + "/ns/net", "ip"}, end...)...).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %v: %s", end, err, out)
			}
		})
		_, took, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0"})
		<-ended
		if !errors.Is(err, dhcp.ErrDown) && !errors.Is(err, dhcp.ErrNoInterface) || took > 1200*time.Millisecond {
			t.Errorf("%s: %v after %v", how, err, took)
		}
		if how == "down" {
			if _, _, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0"}); !errors.Is(err, dhcp.ErrDown) {
				t.Errorf("down from the start: %v", err)
			}
		}
	}
	check()
}

func TestWithoutTheRight(t *testing.T) {
	able(t)
	gateway, _ := access(t, 1)
	gateway.do(func() {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		data[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Error(err)
		}
	})
	if _, _, err := gateway.run(t.Context(), dhcp.Options{Interface: "wan0"}); !errors.Is(err, dhcp.ErrNotPermitted) {
		t.Errorf("got %v", err)
	}
}
