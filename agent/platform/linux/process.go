package linux

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoClient is found by errors.Is in the error of a search for a program that
// does not run, or of which nobody can say which one it is.
var ErrNoClient = errors.New("no such program runs")

// Client is a running program that keeps a connection up: pppd or udhcpc.
type Client struct {
	PID  int
	Name string // as the kernel calls it
	// Interface is the one it keeps up, as far as it says.
	Interface string
	args      []string
}

// String returns "NAME[PID]".
func (c Client) String() string { return c.Name + "[" + strconv.Itoa(c.PID) + "]" }

const (
	maxProcesses = 4096
	maxArgs      = 16 << 10
	maxOptions   = 64 << 10
)

// FindPPPD returns the pppd of an interface: the one that a pid file of
// pppd's names, or that its arguments do; else the only one there is, unless
// that is another interface's, or ifname is none of PPP's. Only
// those in this process's network count, and whoever is not pppd does not,
// whatever a pid file says. The error is compatible with
// errors.Is(err, ErrNoClient).
func FindPPPD(root, ifname string) (Client, error) {
	all, err := clients(root, "pppd")
	if err != nil {
		return Client{}, err
	}
	if ifname != "" {
		for _, pid := range pppPIDs(root, ifname) {
			for _, c := range all {
				if c.PID == pid {
					c.Interface = ifname
					return c, nil
				}
			}
		}
		for _, c := range all {
			if follows(c.args, "ifname") == ifname {
				c.Interface = ifname
				return c, nil
			}
		}
	}
	switch len(all) {
	case 0:
		return Client{}, fmt.Errorf("no pppd runs: %w", ErrNoClient)
	case 1:
		c := all[0]
		c.Interface = follows(c.args, "ifname")
		for _, other := range namesIn(filepath.Join(root, "sys/class/net")) {
			if c.Interface == "" && slices.Contains(pppPIDs(root, other), c.PID) {
				c.Interface = other
			}
		}
		kind, _ := readSome(filepath.Join(root, "sys/class/net", ifname, "type"), 16) // nothing: there is no such interface
		switch {
		case ifname == "":
			return c, nil
		case c.dialsOver(ifname), c.Interface == "" && (len(kind) == 0 || strings.TrimSpace(string(kind)) == "512"): // ARPHRD_PPP
			c.Interface = ifname
			return c, nil
		}
		return Client{}, fmt.Errorf("%s is not the pppd of %s: %w", c, ifname, ErrNoClient)
	}
	return Client{}, fmt.Errorf("%d pppd run, and none says that it is for %q: %w", len(all), ifname, ErrNoClient)
}

// dialsOver reports whether a pppd's arguments name the interface that carries
// its session: as the plugins for PPPoE take it, or the program that it runs.
func (c Client) dialsOver(ifname string) bool {
	for _, a := range c.args {
		for word := range strings.FieldsSeq(a) {
			if word == ifname || word == "nic-"+ifname {
				return true
			}
		}
	}
	return false
}

// pppPIDs returns what pppd's pid files say of an interface: IFNAME.pid, which
// it writes for each, and ppp-LINKNAME.pid, whose second line is the interface.
func pppPIDs(root, ifname string) []int {
	if strings.ContainsAny(ifname, "/\x00") {
		return nil
	}
	var pids []int
	for _, dir := range []string{filepath.Join(root, "run"), filepath.Join(root, "var/run")} {
		if pid, _ := pidFile(filepath.Join(dir, ifname+".pid")); pid > 0 {
			pids = append(pids, pid)
		}
		for _, name := range namesIn(dir) {
			if !strings.HasPrefix(name, "ppp-") || !strings.HasSuffix(name, ".pid") {
				continue
			}
			if pid, second := pidFile(filepath.Join(dir, name)); pid > 0 && second == ifname {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// namesIn returns what is in a directory, of one that is too large a part; of
// one that cannot be read nothing.
func namesIn(path string) []string {
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }() // it was only read
	names, _ := dir.Readdirnames(maxProcesses)
	return names
}

func pidFile(path string) (pid int, second string) {
	data, err := readSome(path, 256)
	if err != nil {
		return 0, ""
	}
	first, rest, _ := strings.Cut(string(data), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return 0, ""
	}
	second, _, _ = strings.Cut(rest, "\n")
	return pid, strings.TrimSpace(second)
}

// Comes reports whether a pppd that is hung up dials again by itself, or is
// started again by whoever keeps it: it has persist, demand or nodetach among
// its arguments or in the files of options that they name. Another would be
// gone for good.
func (c Client) Comes(root string) bool {
	return comesBack(c.args) || optionsComeBack(filepath.Join(root, "etc/ppp/options")) ||
		optionsComeBack(inRoot(root, follows(c.args, "file"), "")) ||
		optionsComeBack(inRoot(root, follows(c.args, "call"), "etc/ppp/peers"))
}

func inRoot(root, name, dir string) string {
	if name == "" || strings.Contains(name, "..") {
		return ""
	}
	return filepath.Join(root, dir, name)
}

func optionsComeBack(path string) bool {
	if path == "" {
		return false
	}
	data, err := readSome(path, maxOptions)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(data) {
		text, _, _ := strings.Cut(string(line), "#")
		if comesBack(strings.Fields(text)) {
			return true
		}
	}
	return false
}

func comesBack(words []string) bool {
	for i, w := range words {
		if i > 0 && (words[i-1] == "password" || words[i-1] == "user") {
			continue // somebody's name may be anything
		}
		if w == "persist" || w == "demand" || w == "nodetach" {
			return true
		}
	}
	return false
}

// FindUDHCPC returns the DHCP client of an interface, if it is BusyBox's
// udhcpc. Of others that run the error says why they can't be asked. The error
// is compatible with errors.Is(err, ErrNoClient).
func FindUDHCPC(root, ifname string) (Client, error) {
	all, err := clients(root, "udhcpc")
	if err != nil {
		return Client{}, err
	}
	for _, c := range all {
		if on := optionValue(c.args, "-i", "--interface", "eth0"); ifname == "" && len(all) == 1 || on == ifname {
			c.Interface = on
			return c, nil
		}
	}
	for _, other := range []struct{ name, why string }{
		{"dhclient", "it renews only by being started anew"},
		{"dhcpcd", "what a signal means to it depends on its version; it is asked by its own program"},
		{"systemd-network", "it is asked over D-Bus"},
	} {
		if found, err := clients(root, other.name); err == nil && len(found) > 0 {
			return Client{}, fmt.Errorf("%s runs, and cannot be asked to renew by a signal (%s): %w", found[0], other.why, ErrNoClient)
		}
	}
	return Client{}, fmt.Errorf("no udhcpc runs for %q: %w", ifname, ErrNoClient)
}

// optionValue returns the value of an option in the ways in which getopt takes
// it: "-i X", "-iX", "--interface X", "--interface=X"; or fallback.
func optionValue(args []string, short, long, fallback string) string {
	for i, a := range args {
		switch {
		case (a == short || a == long) && i+1 < len(args):
			return args[i+1]
		case strings.HasPrefix(a, long+"="):
			return a[len(long)+1:]
		case strings.HasPrefix(a, short) && len(a) > len(short) && !strings.HasPrefix(a, "--"):
			return a[len(short):]
		}
	}
	return fallback
}

func follows(args []string, word string) string {
	for i, a := range args {
		if a == word && i+1 < len(args) {
			return args[i+1]
		}
	}
	return ""
}

// clients returns the programs of a name in this process's network.
func clients(root, name string) ([]Client, error) {
	proc := filepath.Join(root, "proc")
	entries := namesIn(proc)
	if len(entries) == 0 {
		return nil, fmt.Errorf("cannot look for %s: %s cannot be read", name, proc)
	}
	own, _ := os.Readlink(filepath.Join(proc, "self/ns/net")) // a kernel without namespaces has one network
	var found []Client
	for _, e := range entries {
		pid, err := strconv.Atoi(e)
		if err != nil || pid <= 1 {
			continue
		}
		c, ok := client(proc, pid)
		if !ok || c.Name != name {
			continue
		}
		if ns, err := os.Readlink(filepath.Join(proc, e, "ns/net")); own != "" && (err != nil || ns != own) {
			continue
		}
		found = append(found, c)
	}
	return found, nil
}

// client reads what a process is. One program in several guises, as BusyBox is,
// has the name it was called by; where that is busybox itself, the name is its
// first argument.
func client(proc string, pid int) (Client, bool) {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	comm, err := readSome(filepath.Join(dir, "comm"), 64)
	if err != nil {
		return Client{}, false
	}
	c := Client{PID: pid, Name: strings.TrimSpace(string(comm))}
	switch c.Name {
	case "pppd", "udhcpc", "busybox", "dhclient", "dhcpcd", "systemd-network":
	default:
		return c, true // nobody asks for its arguments
	}
	line, err := readSome(filepath.Join(dir, "cmdline"), maxArgs)
	if err != nil {
		return Client{}, false
	}
	c.args = strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")[1:]
	if c.Name == "busybox" && len(c.args) > 0 {
		c.Name, c.args = c.args[0], c.args[1:]
	}
	return c, true
}

// Signal sends a signal to a client, if it still is what it was when it was
// found: its number may have gone to another program.
func (c Client) Signal(root string, s unix.Signal) error {
	fd, err := unix.PidfdOpen(c.PID, 0)
	if err == nil {
		defer func() { _ = unix.Close(fd) }() // nothing was written to it
	} else if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("cannot signal %s: %w", c, err)
	}
	// From here on a number that is given anew is another process's than fd's.
	if now, ok := client(filepath.Join(root, "proc"), c.PID); !ok || now.Name != c.Name {
		return fmt.Errorf("cannot signal %s: it is gone: %w", c, ErrNoClient)
	}
	if err == nil {
		err = unix.PidfdSendSignal(fd, s, nil, 0)
	} else {
		err = unix.Kill(c.PID, s) // before Linux 5.3
	}
	if err != nil {
		return fmt.Errorf("cannot signal %s: %w", c, err)
	}
	return nil
}

func readSome(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return io.ReadAll(io.LimitReader(f, limit))
}

// Runs reports whether a program of that name runs in this process's network.
func Runs(root, name string) bool {
	found, err := clients(root, name)
	return err == nil && len(found) > 0
}
