// Package netbox makes isolated hosts on this machine, and cables between
// them. It knows nothing of what runs on them.
//
// A host is a network, a mount and a host name namespace, held by one thread of
// this process: its own interfaces, addresses and routes, its own /sys, and
// directories of its own where daemons insist on writing (/run, /var/log,
// /var/lib, /var/spool, /etc/ppp, /etc/resolv.conf). All else of the file
// system is the machine's. A host's processes are started from that thread, so
// they are where it is without any program between.
//
// Enter puts the whole lab into namespaces of its own first, so that nothing
// is left of it when it dies, however it dies, and labs don't see one another.
package netbox

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
)

// ErrClosed is found by errors.Is in errors of a Box that was closed.
var ErrClosed = errors.New("lab is closed")

// Options describe a Box.
type Options struct {
	// Dir holds the lab's own files: hosts/NAME is what host NAME writes. It
	// is made where it is missing; removing it is the caller's. Servers that
	// give up root must be able to reach it.
	Dir string
	// Name is by which List, Down and Shell find the lab, one of a kind per
	// user. Empty means that they don't. It needs Enter.
	Name string
	// Keep are directories that hosts see as the machine has them, though
	// they are below one that a host has its own of. Dir, and where this
	// program is, always are.
	Keep []string
	// Log is told of hosts and processes at debug level. nil means no log.
	Log *slog.Logger
}

// Box is one lab's hosts. The process that opens it should have been put into
// namespaces of its own by Enter. It is safe for concurrent use.
type Box struct {
	dir  string
	keep []string
	log  *slog.Logger

	closing sync.Once
	closed  error // of closing

	mu    sync.Mutex
	hosts []*Host  // guarded by mu
	shut  bool     // guarded by mu
	entry *listing // guarded by mu; nil: not listed
}

// Open makes a lab without hosts.
func Open(o Options) (*Box, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil || o.Dir == "" {
		return nil, fmt.Errorf("cannot open lab: no directory: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "hosts"), 0o755); err != nil { //nolint:gosec // servers that give up root read there
		return nil, fmt.Errorf("cannot open lab: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot open lab: %w", err)
	}
	b := &Box{dir: dir, keep: append([]string{dir, filepath.Dir(self)}, o.Keep...), log: o.Log}
	if o.Name != "" {
		if b.entry, err = register(o.Name, dir); err != nil {
			return nil, fmt.Errorf("cannot open lab: %w", err)
		}
	}
	return b, nil
}

// Dir is Options.Dir as an absolute path.
func (b *Box) Dir() string { return b.dir }

// Host makes a host. Names are those of hosts in general: letters, digits and
// hyphens, at most 63. It has no interface but lo, which is up; it forwards
// nothing, and its IPv6 addresses are usable at once (no duplicate address
// detection).
func (b *Box) Host(name string) (*Host, error) {
	if !validName(name) {
		return nil, fmt.Errorf("cannot make host: bad name %q", name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		return nil, fmt.Errorf("cannot make host %s: %w", name, ErrClosed)
	}
	if slices.ContainsFunc(b.hosts, func(h *Host) bool { return h.name == name }) {
		return nil, fmt.Errorf("cannot make host %s: there is one", name)
	}
	h, err := newHost(name, filepath.Join(b.dir, "hosts", name), b.keep, b.log)
	if err != nil {
		return nil, fmt.Errorf("cannot make host %s: %w", name, err)
	}
	b.hosts = append(b.hosts, h)
	if b.entry != nil {
		if err := b.entry.add(h); err != nil {
			return nil, fmt.Errorf("cannot list host %s: %w", name, err)
		}
	}
	b.log.Debug("host made", "host", name)
	return h, nil
}

// Hosts returns the hosts in the order they were made.
func (b *Box) Hosts() []*Host {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.hosts)
}

// Close stops all processes of all hosts and lets the hosts go, with their
// interfaces. It takes as long as the slowest process takes to stop, at most
// some seconds more than its grace. Files in Dir stay.
func (b *Box) Close() error {
	b.closing.Do(func() {
		b.mu.Lock()
		b.shut = true
		hosts, entry := b.hosts, b.entry
		b.mu.Unlock()
		failed := make([]error, len(hosts)+1)
		var wg sync.WaitGroup
		for i, h := range hosts {
			wg.Go(func() { failed[i] = h.close() })
		}
		wg.Wait()
		if entry != nil {
			failed[len(hosts)] = entry.remove()
		}
		b.closed = errors.Join(failed...)
	})
	return b.closed
}

func validName(name string) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return name != "" && len(name) <= 63 && name[0] != '-'
}

// openNetlink opens rtnetlink in the network namespace of this thread.
func openNetlink() (*netlink.Handle, error) {
	nl, err := netlink.NewHandle(netlinkFamily)
	if err != nil {
		return nil, fmt.Errorf("cannot open rtnetlink: %w", err)
	}
	return nl, nil
}

func setUp(nl *netlink.Handle, ifname string) error {
	link, err := nl.LinkByName(ifname)
	if err != nil {
		return fmt.Errorf("cannot find %s: %w", ifname, err)
	}
	if err := nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot set %s up: %w", ifname, err)
	}
	return nil
}
