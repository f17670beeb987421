package netbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const netlinkFamily = unix.NETLINK_ROUTE

// Host is one host of a Box. It is safe for concurrent use.
type Host struct {
	name, dir string
	log       *slog.Logger
	nl        *netlink.Handle
	ns        namespaces
	calls     chan func()   // to the host's thread
	ended     chan struct{} // closed when that thread takes no more

	mu        sync.Mutex
	shut      bool                // guarded by mu
	processes map[string]*Process // guarded by mu; those that run, by name
	waits     sync.WaitGroup      // what waits for them
}

// namespaces are descriptors of what a host consists of.
type namespaces struct {
	net, mnt, uts, root                 *os.File
	netPath, mntPath, utsPath, rootPath string
}

// open opens those of this thread.
func (n *namespaces) open() error {
	task := fmt.Sprintf("/proc/%d/task/%d/", os.Getpid(), unix.Gettid())
	n.netPath, n.mntPath, n.utsPath, n.rootPath = task+"ns/net", task+"ns/mnt", task+"ns/uts", task+"root"
	for _, one := range []struct {
		file **os.File
		path string
	}{{&n.net, n.netPath}, {&n.mnt, n.mntPath}, {&n.uts, n.utsPath}, {&n.root, n.rootPath}} {
		f, err := os.Open(one.path)
		if err != nil {
			return fmt.Errorf("cannot open namespace: %w", err)
		}
		*one.file = f
	}
	return nil
}

// join puts this thread, which must be one of onThread, into the namespaces.
func (n *namespaces) join() error {
	// What threads share by default - root and working directory - a thread
	// that changes mounts must have alone.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("cannot leave the other threads: %w", err)
	}
	for _, one := range []struct {
		file *os.File
		kind int
	}{{n.net, unix.CLONE_NEWNET}, {n.uts, unix.CLONE_NEWUTS}, {n.mnt, unix.CLONE_NEWNS}} {
		if err := unix.Setns(int(one.file.Fd()), one.kind); err != nil {
			return fmt.Errorf("cannot join namespace: %w", err)
		}
	}
	// That was to the namespace's own root, which is another one where the
	// lab was started below a chroot: in a guest whose first file system is
	// the kernel's.
	if err := unix.Fchdir(int(n.root.Fd())); err != nil {
		return fmt.Errorf("cannot go to the root directory: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("cannot go to the root directory: %w", err)
	}
	return nil
}

func (n *namespaces) close() {
	for _, f := range []*os.File{n.net, n.mnt, n.uts, n.root} {
		if f != nil {
			f.Close() //nolint:errcheck // only read
		}
	}
}

// onThread runs f on a thread of its own that ends with it, so that whatever f
// does to the thread meets nobody else.
func onThread(f func()) {
	go func() {
		// Never unlocked: the runtime ends a thread whose goroutine ended so.
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		// The process's first thread can't end, and is what /proc shows as
		// the process. While it is held here, another one takes f.
		started := make(chan struct{})
		onThread(func() {
			close(started)
			f()
		})
		<-started
		runtime.UnlockOSThread()
	}()
}

// newHost makes a host whose files are below dir.
func newHost(name, dir string, keep []string, log *slog.Logger) (*Host, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // servers that give up root read there
		return nil, fmt.Errorf("cannot make its directory: %w", err)
	}
	h := &Host{
		name: name, dir: dir, log: log,
		calls: make(chan func()), ended: make(chan struct{}),
		processes: map[string]*Process{},
	}
	ready := make(chan error, 1)
	onThread(func() {
		err := h.settle(keep)
		ready <- err
		if err != nil {
			return
		}
		for {
			select {
			case f := <-h.calls:
				f()
			case <-h.ended:
				return
			}
		}
	})
	if err := <-ready; err != nil {
		h.release()
		return nil, err
	}
	return h, nil
}

// settle makes the namespaces of the host; on the host's thread.
func (h *Host) settle(keep []string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		if forbidden(err) {
			return fmt.Errorf("%w: %w", ErrNoNamespaces, err)
		}
		return fmt.Errorf("cannot make namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte(h.name)); err != nil {
		return fmt.Errorf("cannot set host name: %w", err)
	}
	if err := mountPrivate(h.name, filepath.Join(h.dir, "root"), keep); err != nil {
		return err
	}
	if err := h.ns.open(); err != nil {
		return err
	}
	var err error
	if h.nl, err = openNetlink(); err != nil {
		return err
	}
	// A new namespace may inherit what the machine has set.
	for _, s := range [...]struct{ key, value string }{
		{"net.ipv4.ip_forward", "0"},
		{"net.ipv4.conf.all.rp_filter", "0"},
		{"net.ipv4.conf.default.rp_filter", "0"},
		{"net.ipv6.conf.all.forwarding", "0"},
		{"net.ipv6.conf.all.disable_ipv6", "0"},
		{"net.ipv6.conf.default.disable_ipv6", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"},
	} {
		if err := writeSysctl(s.key, s.value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return setUp(h.nl, "lo")
}

// Name is the host's name.
func (h *Host) Name() string { return h.name }

// Dir is the host's own directory: the same path inside and outside.
func (h *Host) Dir() string { return h.dir }

// NSPath returns the paths of the host's network and mount namespaces, as the
// processes of the lab see them.
func (h *Host) NSPath() (netPath, mntPath string) { return h.ns.netPath, h.ns.mntPath }

// Do runs f on a thread inside the host, and returns its error: sockets that f
// makes stay in the host, and paths are the host's. Goroutines that f starts
// are not inside; /proc/net and /proc/self are not the host's either, but
// /proc/thread-self is. Calls may be concurrent and nested.
func (h *Host) Do(f func() error) error {
	if h.isShut() {
		return fmt.Errorf("%s: %w", h.name, ErrClosed)
	}
	result := make(chan error, 1)
	onThread(func() {
		err := errors.New("the function ended its goroutine")
		defer func() { result <- err }()
		if err = h.ns.join(); err == nil {
			err = errors.New("the function ended its goroutine")
			err = f()
		}
	})
	return <-result
}

func (h *Host) isShut() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.shut
}

// onOwnThread runs f on the thread that holds the host.
func (h *Host) onOwnThread(f func()) error {
	done := make(chan struct{})
	select {
	case h.calls <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-h.ended:
		return fmt.Errorf("%s: %w", h.name, ErrClosed)
	}
}

// Listen listens inside the host. The address is a literal: names are not
// looked up.
func (h *Host) Listen(ctx context.Context, network, addr string) (l net.Listener, err error) {
	if err := literal(network, addr); err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", h.name, err)
	}
	err = h.Do(func() error {
		l, err = new(net.ListenConfig).Listen(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", h.name, err)
	}
	return l, nil
}

// ListenPacket listens for packets inside the host, as Listen does.
func (h *Host) ListenPacket(ctx context.Context, network, addr string) (c net.PacketConn, err error) {
	if err := literal(network, addr); err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", h.name, err)
	}
	err = h.Do(func() error {
		c, err = new(net.ListenConfig).ListenPacket(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", h.name, err)
	}
	return c, nil
}

// Dial connects from inside the host. The address is a literal: names are not
// looked up. It fits http.Transport.DialContext.
func (h *Host) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	if err := literal(network, addr); err != nil {
		return nil, fmt.Errorf("cannot connect from %s: %w", h.name, err)
	}
	err = h.Do(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot connect from %s: %w", h.name, err)
	}
	return c, nil
}

// literal refuses names: package net looks them up in other goroutines, which
// are not inside.
func literal(network, addr string) error {
	if strings.HasPrefix(network, "unix") {
		return nil
	}
	host := addr
	if !strings.HasPrefix(network, "ip") {
		var err error
		if host, _, err = net.SplitHostPort(addr); err != nil {
			return err
		}
	}
	if host == "" {
		return nil
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return fmt.Errorf("%s is not an IP address", host)
	}
	return nil
}

// WriteFile writes a file of the host, and makes the directories that are
// missing; a relative path is below Dir.
func (h *Host) WriteFile(path string, data []byte, perm fs.FileMode) error {
	if !filepath.IsAbs(path) {
		path = filepath.Join(h.dir, path)
	}
	err := h.Do(func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // servers that give up root read there
			return err
		}
		// Nobody forks meanwhile: the child would have the file open for
		// writing until it becomes its program, and what is open for writing
		// cannot be run (ETXTBSY).
		syscall.ForkLock.RLock()
		err := os.WriteFile(path, data, perm)
		syscall.ForkLock.RUnlock()
		if err != nil {
			return err
		}
		// Of a file that is there, or in spite of the umask.
		return os.Chmod(path, perm)
	})
	if err != nil {
		return fmt.Errorf("cannot write file on %s: %w", h.name, err)
	}
	return nil
}

// Sysctl sets a kernel parameter of the host's network: "net.ipv4.ip_forward".
// Where an interface's name has dots, slashes separate.
func (h *Host) Sysctl(key, value string) error {
	if err := h.Do(func() error { return writeSysctl(key, value) }); err != nil {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	return nil
}

// Forward makes the host a router, or not, for IPv4 and IPv6. A router takes no
// IPv6 router advertisements.
func (h *Host) Forward(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	if err := h.Sysctl("net.ipv4.ip_forward", value); err != nil {
		return err
	}
	if err := h.Sysctl("net.ipv6.conf.all.forwarding", value); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func writeSysctl(key, value string) error {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	if err := writeKernel(filepath.Join("/proc/sys", key), value); err != nil {
		return fmt.Errorf("cannot set kernel parameter: %w", err)
	}
	return nil
}

// writeKernel writes a file of /proc or /sys. os.WriteFile would ask for it to
// be made, which some kernels answer before they look for it.
func writeKernel(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// close stops the host's processes and lets it go.
func (h *Host) close() error {
	h.mu.Lock()
	h.shut = true
	running := make([]*Process, 0, len(h.processes))
	for _, p := range h.processes {
		running = append(running, p)
	}
	h.mu.Unlock()
	failed := make([]error, len(running)+1)
	var wg sync.WaitGroup
	for i, p := range running {
		wg.Go(func() { failed[i] = p.Stop() })
	}
	wg.Wait()
	failed[len(running)] = h.killRest()
	h.waits.Wait()
	close(h.ended)
	h.release()
	return errors.Join(failed...)
}

func (h *Host) release() {
	if h.nl != nil {
		h.nl.Close()
	}
	h.ns.close()
}
