package netbox

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ontagent/agent/command"
)

// What Missing may name.
const (
	NeedNamespaces = "namespaces" // of networks, mounts and processes, with /sys
	NeedVeth       = "veth"       // cables
	NeedBridge     = "bridge"
	NeedVLAN       = "8021q"
	NeedPPP        = "ppp"   // /dev/ppp and its interfaces
	NeedPPPoE      = "pppoe" // in the kernel
	NeedTBF        = "tbf"   // shaping
	NeedNetem      = "netem" // delay, loss
)

// MissingVerb is the hidden verb by which Missing runs this same program for
// a user who is not root: it has to call ReportMissing.
const MissingVerb = "box-missing"

// Missing returns which of the Need names the running kernel does not give
// this user, in their order. It tries each of them, in namespaces that are
// thrown away, which may make the kernel load modules.
func Missing(ctx context.Context) []string {
	if os.Geteuid() == 0 {
		return missingHere()
	}
	self, err := os.Executable()
	if err != nil {
		return allNeeds()
	}
	result, err := command.New(command.Options{}).Run(ctx, command.Spec{
		Path: self, Args: []string{MissingVerb}, Env: environ(), SysProcAttr: boxNamespaces,
	})
	if err != nil {
		return allNeeds()
	}
	var missing []string
	for lines := bufio.NewScanner(bytes.NewReader(result.Stdout)); lines.Scan(); {
		missing = append(missing, lines.Text())
	}
	return missing
}

// ReportMissing writes what is missing here, one name a line.
func ReportMissing(w io.Writer) error {
	for _, name := range missingHere() {
		if _, err := fmt.Fprintln(w, name); err != nil {
			return fmt.Errorf("cannot write what is missing: %w", err)
		}
	}
	return nil
}

func allNeeds() []string {
	return []string{NeedNamespaces, NeedVeth, NeedBridge, NeedVLAN, NeedPPP, NeedPPPoE, NeedTBF, NeedNetem}
}

func missingHere() []string {
	result := make(chan []string, 1)
	onThread(func() { result <- tryAll() })
	return <-result
}

// tryAll changes the namespaces of its thread.
func tryAll() []string {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
		return allNeeds()
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return allNeeds()
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return allNeeds()
	}
	nl, err := openNetlink()
	if err != nil {
		return allNeeds()
	}
	defer nl.Close()
	// A bridge is what VLANs and queues are tried on: there is one or there
	// is no lab.
	bridge := &netlink.Bridge{LinkAttrs: linkAttrs("br0")}
	bridgeErr := nl.LinkAdd(bridge)
	var missing []string
	for _, need := range []struct {
		name string
		try  func() error
	}{
		{NeedVeth, func() error {
			veth := netlink.NewVeth(linkAttrs("a"))
			veth.PeerName = "z"
			return nl.LinkAdd(veth)
		}},
		{NeedBridge, func() error { return bridgeErr }},
		{NeedVLAN, func() error {
			a := linkAttrs("br0.7")
			a.ParentIndex = bridge.Index
			return nl.LinkAdd(&netlink.Vlan{LinkAttrs: a, VlanId: 7})
		}},
		{NeedPPP, tryPPP},
		{NeedPPPoE, tryPPPoE},
		{NeedTBF, func() error {
			return nl.QdiscReplace(Impairment{RateMbps: 1}.tbf(bridge.Index, netlink.HANDLE_ROOT))
		}},
		{NeedNetem, func() error {
			return nl.QdiscReplace(Impairment{Delay: time.Second}.netem(bridge.Index, netlink.HANDLE_ROOT))
		}},
	} {
		if need.try() != nil {
			missing = append(missing, need.name)
		}
	}
	return missing
}

// tryPPP makes a PPP interface, which goes with the descriptor.
func tryPPP() error {
	fd, err := unix.Open("/dev/ppp", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	return unix.IoctlSetPointerInt(fd, unix.PPPIOCNEWUNIT, -1)
}

func tryPPPoE() error {
	fd, err := unix.Socket(unix.AF_PPPOX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return syscall.Close(fd)
}
