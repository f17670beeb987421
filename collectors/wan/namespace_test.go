package wan_test

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ontagent/collectors/wan"
)

// namespace is a network namespace of its own, alive as long as the test.
type namespace struct {
	calls chan func()
	// h configures what is in it.
	h *netlink.Handle
}

// newNamespace makes one. Without the rights it skips the test, in CI it fails
// it; under user-mode emulation of a big-endian machine, which garbles netlink,
// it always skips.
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	if emulated() && runtime.GOARCH == "mips" {
		t.Skip("user-mode emulation garbles netlink of big-endian machines")
	}
	n := &namespace{calls: make(chan func())}
	failed := make(chan error)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Never unlocked: the thread ends with the goroutine, and the namespace
		// with the last socket in it.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			failed <- err
			return
		}
		close(failed)
		for f := range n.calls {
			f()
		}
	}()
	if err := <-failed; err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("cannot make a network namespace: %v", err)
		}
		t.Skipf("needs root: cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		close(n.calls)
		<-ended
	})
	n.do(func() {
		var err error
		if n.h, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			t.Error(err)
		}
	})
	if n.h == nil {
		t.FailNow()
	}
	t.Cleanup(n.h.Close)
	if err := n.h.SetSocketTimeout(5 * time.Second); err != nil {
		t.Fatal(err)
	}
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

// do runs f on a thread in the namespace. Sockets opened there stay there.
func (n *namespace) do(f func()) {
	done := make(chan struct{})
	n.calls <- func() {
		defer close(done)
		f()
	}
	<-done
}

// collector returns one that looks into the namespace.
func (n *namespace) collector(o wan.Options) *wan.Collector {
	c := wan.New(o)
	c.SetKernel(n.dial)
	return c
}

func (n *namespace) dial(groups ...uint) (s wan.Socket, err error) {
	n.do(func() { s, err = wan.DialKernel(groups...) })
	return s, err
}

// veth makes a pair of interfaces, both off.
func (n *namespace) veth(t *testing.T, name, peer string) (a, b netlink.Link) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	n.must(t, n.h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer}))
	return n.byName(t, name), n.byName(t, peer)
}

func (n *namespace) byName(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := n.h.LinkByName(name)
	n.must(t, err)
	return l
}

func (*namespace) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
