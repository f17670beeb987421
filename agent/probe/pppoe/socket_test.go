package pppoe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// inNamespace runs f in a network namespace of its own, with a cable between
// the interfaces near and far, on a thread that is thrown away afterwards.
func inNamespace(t *testing.T, f func(ip func(args ...string))) {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	machine := unix.ByteSliceToString(uts.Machine[:])
	native := map[string]string{"amd64": "x86_64", "386": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if native != machine && machine != "i686" {
		t.Skipf("needs a kernel of its own kind: %s on %s", runtime.GOARCH, machine)
	}
	if testing.Short() {
		t.Skip("not with -short: network namespaces, and what they take to come up")
	}
	unable := t.Skipf
	if os.Getenv("CI") == "true" {
		unable = t.Fatalf
	}
	if os.Getuid() != 0 {
		unable("needs root for a network namespace")
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
		ip := func(args ...string) {
			t.Helper()
			var stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), "ip", args...)
			cmd.Stderr = &stderr
			if err := cmd.Run(); err != nil {
				t.Errorf("ip %v: %v: %s", args, err, stderr.Bytes())
			}
		}
		ip("link", "add", "near", "mtu", "1508", "type", "veth", "peer", "name", "far")
		ip("link", "set", "far", "up")
		ip("link", "set", "near", "up")
		// The kernel drops what is sent before it has noticed the carrier.
		for range 200 {
			if ifi, err := net.InterfaceByName("near"); err == nil && ifi.Flags&net.FlagRunning != 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		f(ip)
	}()
	if err := <-problem; err != nil {
		unable("cannot make a network namespace: %v", err)
	}
}

// wire puts b at the far end of the cable, until the test ends.
func wire(t *testing.T, b *bras) *packet.Conn {
	t.Helper()
	ifi, err := net.InterfaceByName("far")
	if err != nil {
		t.Error(err)
		return nil
	}
	b.addr, b.wired = mac(ifi.HardwareAddr), true
	conn, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
	if err != nil {
		t.Error(err)
		return nil
	}
	s := &socket{conn: conn, ifi: ifi}
	if s.raw, err = conn.SyscallConn(); err == nil {
		err = s.withTags()
	}
	if err != nil {
		t.Error(err)
	}
	ended := make(chan struct{}, 2)
	t.Cleanup(func() {
		conn.Close()
		_ = b.close()
		<-ended
		<-ended
	})
	go func() {
		defer func() { ended <- struct{}{} }()
		p := make([]byte, 2048)
		for {
			n, tag, tagged, err := s.receive(p)
			if err != nil {
				return
			}
			f, ok := parseFrame(p[:n], tag, tagged)
			if !ok || f.src == b.addr {
				continue
			}
			f.payload = bytes.Clone(f.payload)
			b.priority.Store(int32(tag >> 13))
			_ = b.send(f.appendTo(nil, 0))
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		for {
			select {
			case p := <-b.out:
				_ = s.send(p)
			case <-b.done:
				return
			}
		}
	}()
	return conn
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Error(err)
	}
	return len(all)
}

func onCable() Options {
	return Options{Interface: "near", Username: "u1@isp", Password: "p1", Echoes: 2, EchoInterval: 20 * time.Millisecond}
}

func TestSocketDial(t *testing.T) {
	for _, o := range []Options{{}, {VLAN: 41, Priority: 5}, {MaxPayload: 1500}} {
		inNamespace(t, func(func(...string)) {
			b := newBRAS(t)
			b.vlan, b.maxPayload, b.mru = o.VLAN, 1500, 1500
			wire(t, b)
			full := onCable()
			full.VLAN, full.Priority, full.MaxPayload = o.VLAN, o.Priority, o.MaxPayload
			before, err := net.InterfaceByName("near")
			if err != nil {
				t.Error(err)
				return
			}
			open, running := descriptors(t), runtime.NumGoroutine()
			r, err := Dial(t.Context(), full)
			if err != nil || r.Outcome != OK || *r.VLANAnswered != o.VLAN || r.TotalMs > 3000 {
				t.Errorf("%+v: %+v, %v", o, r, err)
			}
			if got := b.priority.Load(); got != int32(o.Priority) {
				t.Errorf("priority %d, want %d", got, o.Priority)
			}
			if want := max(o.MaxPayload, 1492); r.MTU != want {
				t.Errorf("MTU %d, want %d", r.MTU, want)
			}
			after, err := net.InterfaceByName("near")
			if err != nil || after.Flags != before.Flags || after.MTU != before.MTU {
				t.Errorf("the interface is %+v, was %+v", after, before)
			}
			if n := descriptors(t); n != open {
				t.Errorf("%d descriptors, %d before", n, open)
			}
			// The double has some of its own, for a moment.
			for range 100 {
				if runtime.NumGoroutine() <= running {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if n := runtime.NumGoroutine(); n > running {
				t.Errorf("%d goroutines, %d before", n, running)
			}
		})
	}
}

// Frames of other VLANs, with and without a tag, are not seen.
func TestSocketTakesItsVLANOnly(t *testing.T) {
	for _, c := range []struct {
		ask, answer uint16
		ok          bool
	}{{0, 0, true}, {41, 41, true}, {0, 41, false}, {41, 0, false}, {41, 42, false}} {
		inNamespace(t, func(func(...string)) {
			b := newBRAS(t)
			b.vlan = c.answer
			b.anyVLAN = true
			wire(t, b)
			o := onCable()
			o.VLAN, o.DiscoveryOnly, o.MaxDuration = c.ask, true, 600*time.Millisecond
			r, err := Dial(t.Context(), o)
			if err != nil || (r.Outcome == Offered) != c.ok || r.Malformed != 0 {
				t.Errorf("%+v: %+v, %v", c, r, err)
			}
			if c.ok && (r.Offers[0].OfferMs > 500 || r.TotalMs > 500) {
				t.Errorf("%+v", r)
			}
		})
	}
}

// What isn't ours stays in the kernel's filter: session frames of a customer's
// own session with the same addresses, and everything else.
func TestSocketBusyLine(t *testing.T) {
	inNamespace(t, func(func(...string)) {
		b := newBRAS(t)
		conn := wire(t, b)
		near, err := net.InterfaceByName("near")
		if err != nil {
			t.Error(err)
			return
		}
		stop, ended := make(chan struct{}), make(chan int)
		go func() {
			n := 0
			to := &packet.Addr{HardwareAddr: near.HardwareAddr}
			datagram := (&frame{dst: mac(near.HardwareAddr), src: b.addr, session: 1, payload: append([]byte{0, 0x21}, make([]byte, 1400)...)}).appendTo(nil, 0)
			other := (&frame{dst: mac{2, 1, 1, 1, 1, 1}, src: b.addr, discovery: true, code: codePADO}).appendTo(nil, 0)
			for {
				select {
				case <-stop:
					ended <- n
					return
				default:
				}
				for _, p := range [][]byte{datagram, other} {
					if _, err := conn.WriteTo(p, to); err == nil {
						n++
					}
				}
			}
		}()
		r, err := Dial(t.Context(), onCable())
		close(stop)
		n := <-ended
		if err != nil || r.Outcome != OK || r.Malformed != 0 || r.Looped != 0 {
			t.Errorf("beside %d frames: %+v, %v", n, r, err)
		}
		if n < 1000 {
			t.Errorf("only %d frames beside", n)
		}
	})
}

// A loop in the line brings our own frames back.
func TestSocketLoop(t *testing.T) {
	inNamespace(t, func(func(...string)) {
		b := newBRAS(t)
		b.hook = func(f *frame) bool { b.out <- f.appendTo(nil, 0); return true }
		wire(t, b)
		o := onCable()
		o.MaxDuration = 300 * time.Millisecond
		if r, err := Dial(t.Context(), o); err != nil || r.Outcome != Loop || r.Looped != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestSocketInterfaceGone(t *testing.T) {
	for _, c := range []struct {
		how  string
		want error
	}{{"link delete near", ErrNoInterface}, {"link set near down", ErrInterfaceDown}} {
		inNamespace(t, func(ip func(...string)) {
			// The tool must be started from this thread, so the dial is moved.
			s, err := openSocket("near", 0, false)
			if err != nil {
				t.Error(err)
				return
			}
			o, err := onCable().normalise()
			if err != nil {
				t.Error(err)
				return
			}
			result := make(chan error, 1)
			go func() {
				_, err := dial(t.Context(), o, s)
				result <- err
			}()
			time.Sleep(50 * time.Millisecond)
			began := time.Now()
			ip(strings.Fields(c.how)...)
			if err := <-result; !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.how, err, c.want)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("%s: took %v", c.how, took)
			}
		})
	}
}

func TestSocketErrors(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		ip("link", "set", "lo", "up")
		ip("link", "add", "idle", "type", "veth", "peer", "name", "idler")
		for name, want := range map[string]error{
			"missing": ErrNoInterface, "lo": ErrNotEthernet, "idle": ErrInterfaceDown, "": ErrOptions,
		} {
			o := onCable()
			o.Interface = name
			if _, err := Dial(t.Context(), o); !errors.Is(err, want) {
				t.Errorf("%q: %v, want %v", name, err, want)
			}
		}
	})
}

func TestVLANTag(t *testing.T) {
	aux := make([]byte, 20)
	binary.NativeEndian.PutUint32(aux, unix.TP_STATUS_VLAN_VALID)
	binary.NativeEndian.PutUint16(aux[16:], 5<<13|41)
	message := make([]byte, syscall.CmsgSpace(len(aux)))
	// The header's length is as long as a word.
	if syscall.CmsgLen(0) == 16 {
		binary.NativeEndian.PutUint64(message, uint64(syscall.CmsgLen(len(aux))))
	} else {
		binary.NativeEndian.PutUint32(message, uint32(syscall.CmsgLen(len(aux))))
	}
	header := syscall.CmsgLen(0)
	binary.NativeEndian.PutUint32(message[header-8:], unix.SOL_PACKET)
	binary.NativeEndian.PutUint32(message[header-4:], unix.PACKET_AUXDATA)
	copy(message[header:], aux)
	if tci, ok := vlanTag(message); !ok || tci != 5<<13|41 {
		t.Errorf("tag %x, %t", tci, ok)
	}
	binary.NativeEndian.PutUint32(message[header:], 0)
	if _, ok := vlanTag(message); ok {
		t.Error("a tag where there is none")
	}
	for n := range message {
		vlanTag(message[:n])
	}
}

// TestSocketAlias asks from another address, which is answered like any.
func TestSocketAlias(t *testing.T) {
	inNamespace(t, func(func(...string)) {
		b := newBRAS(t)
		wire(t, b)
		o := Options{Interface: "near", DiscoveryOnly: true, Alias: true}
		r, err := Dial(t.Context(), o)
		if err != nil || r.Outcome != Offered {
			t.Errorf("%+v, %v", r, err)
		}
		ifi, err := net.InterfaceByName("near")
		if err != nil {
			t.Error(err)
			return
		}
		own := mac(ifi.HardwareAddr)
		if alias := own.alias(); alias == own || alias[0]&3 != 2 || alias == alias.alias() {
			t.Errorf("%s is the alias of %s", alias, own)
		}
		if _, err := Dial(t.Context(), Options{Interface: "near", Alias: true}); !errors.Is(err, ErrOptions) {
			t.Errorf("a session from another address: %v", err)
		}
	})
}
