package multicast_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"ontagent/agent/probe/multicast"
)

// network is a network namespace of its own with a snooping bridge between a
// source (src0) and a port to probe (cli0). Frames meet on the bridge only, so
// that one namespace does for all of them.
type network struct {
	t     *testing.T
	calls chan func()
}

// newNetwork makes one, or skips the test.
func newNetwork(t *testing.T) *network {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds: bridges and namespaces are left out with -short")
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
	n := &network{t: t, calls: make(chan func())}
	problem, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			problem <- err
			return
		}
		close(problem)
		for f := range n.calls {
			f()
		}
	}()
	if err := <-problem; err != nil {
		unable("needs root: cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		close(n.calls)
		<-ended
	})
	n.ip("link set lo up")
	return n
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

// do runs f on a thread in the namespace.
func (n *network) do(f func()) {
	done := make(chan struct{})
	n.calls <- func() {
		defer close(done)
		f()
	}
	<-done
}

func (n *network) ip(args string) {
	n.t.Helper()
	if out, err := n.try("ip", args); err != nil {
		n.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func (n *network) try(tool, args string) (out []byte, err error) {
	n.do(func() { out, err = exec.CommandContext(n.t.Context(), tool, strings.Fields(args)...).CombinedOutput() })
	return out, err
}

// bridged makes the bridge. With a querier it waits until the bridge snoops.
func (n *network) bridged(querier bool) {
	n.t.Helper()
	on := "0"
	if querier {
		on = "1"
	}
	// Members are asked every second and have half a second to answer; a leave
	// is believed after two questions 200 ms apart. In hundredths of seconds.
	n.ip("link add br0 type bridge mcast_snooping " + on + " mcast_query_response_interval 50 mcast_query_interval 100 " +
		"mcast_startup_query_interval 25 mcast_startup_query_count 4 mcast_last_member_interval 20 mcast_last_member_count 2 mcast_igmp_version 3 mcast_mld_version 2")
	for _, name := range []string{"src", "cli"} {
		n.ip("link add " + name + "0 type veth peer name " + name + "1")
		n.ip("link set " + name + "1 master br0")
		n.ip("link set " + name + "1 up")
		n.ip("link set " + name + "0 up")
	}
	n.ip("link set br0 up")
	if querier {
		n.ip("link set br0 type bridge mcast_querier 1")
	}
	n.ip("addr add 192.0.2.2/24 dev cli0")
	n.until("link-local address", func() bool {
		out, _ := n.try("ip", "-6 addr show dev cli0 scope link")
		return bytes.Contains(out, []byte("fe80")) && !bytes.Contains(out, []byte("tentative"))
	})
	if !querier {
		return
	}
	n.until("bridge to snoop", func() bool {
		stop := n.source(sourceOptions{group: "239.9.9.9", vlan: 0})
		defer stop()
		c := n.listen("cli0")
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		b := make([]byte, 2048)
		for {
			k, _, err := c.ReadFrom(b)
			if err != nil {
				return true
			}
			if k > 34 && bytes.Equal(b[30:34], []byte{239, 9, 9, 9}) {
				return false
			}
		}
	})
}

// handle is the namespace by its file.
type handle struct{ file *os.File }

func (n *network) handle() handle {
	n.t.Helper()
	var h handle
	var err error
	n.do(func() { h.file, err = os.Open("/proc/thread-self/ns/net") })
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { h.file.Close() })
	return h
}

// ip runs the ip tool from a thread of its own, whatever the namespace's does.
func (h handle) ip(t *testing.T, args string) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if err := unix.Setns(int(h.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).Run()
	}()
	if err := <-done; err != nil {
		t.Errorf("ip %s: %v", args, err)
	}
}

func (n *network) until(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// listen opens a packet socket that sees all of an interface.
func (n *network) listen(name string) *packet.Conn {
	n.t.Helper()
	var c *packet.Conn
	var err error
	n.do(func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName(name); err == nil {
			c, err = packet.Listen(ifi, packet.Raw, 3, nil)
		}
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// run probes inside the namespace.
func (n *network) run(ctx context.Context, o multicast.Options) (res multicast.Result, err error) {
	n.do(func() { res, err = multicast.Run(ctx, o) })
	return res, err
}

type sourceOptions struct {
	group   string
	from    string // 198.51.100.1 or fd00::1 if ""
	vlan    uint16
	every   time.Duration // 5 ms if 0
	drop    int           // every drop-th packet is not sent
	plain   bool          // neither RTP nor TS
	on      string        // interface; src0 if ""
	payload func(i int) []byte
}

// source sends a stream of RTP with MPEG-TS until stopped.
func (n *network) source(o sourceOptions) (stop func()) {
	n.t.Helper()
	if o.on == "" {
		o.on = "src0"
	}
	if o.every == 0 {
		o.every = 5 * time.Millisecond
	}
	group := netip.MustParseAddr(o.group)
	if o.from == "" {
		o.from = "fd00::1"
		if group.Is4() {
			o.from = "198.51.100.1"
		}
	}
	if o.payload == nil {
		o.payload = rtpPayload
		if o.plain {
			o.payload = func(int) []byte { return make([]byte, 1000) }
		}
	}
	from := netip.MustParseAddr(o.from)
	c := n.listen(o.on)
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer c.Close()
		tick := time.NewTicker(o.every)
		defer tick.Stop()
		begin := time.Now()
		for i := 0; ; {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			// By the clock, so that the rate holds on a busy machine as well.
			for due := int(time.Since(begin) / o.every); i < due; {
				i++
				if o.drop > 0 && i%o.drop == 0 {
					continue
				}
				f := frame([6]byte{2, 0, 0, 0, 0, 1}, o.vlan, group, udpPacket(from, group, 5000, o.payload(i)))
				_, _ = c.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]})
			}
		}
	})
	var once sync.Once
	stop = func() {
		once.Do(func() {
			close(quit)
			wg.Wait()
		})
	}
	n.t.Cleanup(stop)
	return stop
}

// udpPacket is an IP packet with UDP to port.
func udpPacket(src, dst netip.Addr, port uint16, payload []byte) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 40000)
	udp = binary.BigEndian.AppendUint16(udp, port)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(payload)))
	udp = append(append(udp, 0, 0), payload...)
	return ipPacket(src, dst, 17, 16, udp)
}

// ipPacket is an IP packet without options.
func ipPacket(src, dst netip.Addr, proto, hops byte, payload []byte) []byte {
	if dst.Is6() {
		b := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(payload)))
		b = append(append(append(b, proto, hops), src.AsSlice()...), dst.AsSlice()...)
		return append(b, payload...)
	}
	b := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(20+len(payload)))
	b = append(append(append(b, 0, 0, 0, 0, hops, proto, 0, 0), src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], ^multicast.Sum(0, b))
	return append(b, payload...)
}

// rtpPayload is the i-th RTP packet of a stream of seven TS packets of one PID
// each.
func rtpPayload(i int) []byte {
	b := []byte{0x80, 33, byte(i >> 8), byte(i), 0, 0, 0, 0, 0, 0, 0, 7}
	for k := range 7 {
		b = append(b, tsPacket(256, byte(i*7+k), 0x10)...)
	}
	return b
}

// tsPacket has flags 0x10 for payload, 0x20 for an adaptation field.
func tsPacket(pid uint16, counter, flags byte) []byte {
	b := make([]byte, 188)
	b[0], b[1], b[2], b[3] = 0x47, byte(pid>>8), byte(pid), flags|counter&15
	return b
}

// messages are the reports and leaves of IGMP and MLD that an interface sends
// or gets, as "22/4 239.1.1.1": type, type of the first record, group. Those of
// the link's own groups are left out.
type messages struct {
	mu   sync.Mutex
	seen []string
}

func (n *network) sniff(name string) *messages {
	c := n.listen(name)
	m := &messages{}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 2048)
		for {
			k, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			at := 14
			if b[12] == 0x81 { // as it is sent; what comes has lost its tag
				at = 18
			}
			if s := multicast.Told(b[at:k]); s != "" {
				m.mu.Lock()
				m.seen = append(m.seen, s)
				m.mu.Unlock()
			}
		}
	})
	n.t.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
	return m
}

// count returns how often what was seen.
func (m *messages) count(what string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.seen {
		if s == what {
			n++
		}
	}
	return n
}

func (m *messages) all() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.seen, " ")
}

// frame puts an IP packet to a group into an Ethernet frame.
func frame(mac [6]byte, vlan uint16, group netip.Addr, b []byte) []byte {
	a := group.As16()
	f := []byte{0x33, 0x33, a[12], a[13], a[14], a[15]}
	ethertype := []byte{0x86, 0xdd}
	if group.Is4() {
		f = []byte{1, 0, 0x5e, a[13] & 0x7f, a[14], a[15]}
		ethertype = []byte{8, 0}
	}
	f = append(f, mac[:]...)
	if vlan != 0 {
		f = append(f, 0x81, 0, byte(vlan>>8), byte(vlan))
	}
	return append(append(f, ethertype...), b...)
}
