package link

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ontagent/collectors/rtnl"
)

// What is known about forwarding that passes the counters by. It concerns what
// is forwarded only: traffic that ends on this machine is always counted.
const (
	// OffloadUnknown: nothing readable says so. A vendor's accelerator may
	// still be at work.
	OffloadUnknown = "unknown"
	// OffloadTC: the driver's hw-tc-offload feature is on, so flows may be
	// forwarded without being counted.
	OffloadTC = "hw_tc"
	// OffloadFlowtableHW: the interface is in an nftables flowtable that hands
	// flows to the hardware.
	OffloadFlowtableHW = "flowtable_hw"
	// OffloadFlowtable: there is an nftables flowtable. The ports still count
	// its flows; PPP, VLAN and bridge interfaces above them don't.
	OffloadFlowtable = "flowtable"
	// OffloadVendor: an accelerator of the chip's maker is loaded.
	OffloadVendor = "vendor"
)

// accelerator reports whether a kernel module is loaded that forwards past the
// kernel: of MediaTek and EcoNet, Qualcomm, Broadcom, Realtek, and the free
// shortcut-fe.
func (c *Collector) accelerator() bool {
	for _, module := range []string{
		"hw_nat", "mtkhnat", "qca_nss_ecm", "ecm", "pktflow", "rtk_fc", "shortcut_fe", "fast_classifier",
	} {
		if _, err := os.Stat(filepath.Join(c.sysRoot, "module", module)); err == nil {
			return true
		}
	}
	return false
}

// flowtable is one of nftables: which ports it takes flows from.
type flowtable struct {
	hardware bool
	devices  []string
}

// offloads is what the kernel is set to do with what it forwards.
type offloads struct {
	vendor     bool
	flowtables []flowtable
}

// offloads reads what concerns all interfaces. What can't be read is taken for
// absent: the field has a way to be unknown.
func (c *Collector) offloads() offloads {
	o := offloads{vendor: c.accelerator()}
	// Asking a kernel that has none would make it look for a module, each time.
	if _, err := os.Stat(filepath.Join(c.sysRoot, "module/nf_flow_table")); err != nil {
		return o
	}
	var err error
	if o.flowtables, err = c.flowtables(); err != nil {
		c.log.Debug("cannot list flowtables", "error", err)
	}
	return o
}

// set says of l what concerns it. tc is whether its driver has OffloadTC.
func (o offloads) set(l *Link, tc bool) {
	stacked := l.Kind == "vlan" || l.Kind == "bridge" || l.Type == "ppp"
	hardware := slices.ContainsFunc(o.flowtables, func(f flowtable) bool {
		return f.hardware && (stacked || slices.Contains(f.devices, l.Name))
	})
	l.Offload = OffloadUnknown
	switch {
	case l.Type == "loopback":
	case o.vendor:
		l.Offload = OffloadVendor
	case hardware:
		l.Offload = OffloadFlowtableHW
	case tc:
		l.Offload = OffloadTC
	case stacked && len(o.flowtables) > 0:
		l.Offload = OffloadFlowtable
	}
	l.Blind = l.Offload != OffloadUnknown
}

// Numbers of linux/netfilter/nf_tables.h.
const (
	msgGetFlowtable   = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETFLOWTABLE
	msgNewFlowtable   = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWFLOWTABLE
	flowtableHook     = 3 // NFTA_FLOWTABLE_HOOK
	flowtableFlags    = 7 // NFTA_FLOWTABLE_FLAGS
	flowtableHookDevs = 3 // NFTA_FLOWTABLE_HOOK_DEVS
	flowtableHardware = 1 // NFT_FLOWTABLE_HW_OFFLOAD
	nfgenmsgSize      = 4
)

// flowtables lists those of the network namespace. It takes CAP_NET_ADMIN.
func (c *Collector) flowtables() ([]flowtable, error) {
	s, err := c.netfilter()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	pid, err := s.GetPid()
	if err != nil {
		return nil, fmt.Errorf("cannot read address of netlink socket: %w", err)
	}
	request := nl.NewNetlinkRequest(msgGetFlowtable, unix.NLM_F_DUMP)
	request.AddRawData(make([]byte, nfgenmsgSize)) // all families
	var list []flowtable
	_, err = rtnl.Dump(s, pid, request, func(m syscall.NetlinkMessage, listed bool) {
		if listed && m.Header.Type == msgNewFlowtable && len(list) < maxFlowtables {
			list = append(list, parseFlowtable(m.Data))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list flowtables: %w", err)
	}
	return list, nil
}

const (
	maxFlowtables       = 64
	maxFlowtableDevices = 256
)

// parseFlowtable reads the body of NFT_MSG_NEWFLOWTABLE; what is cut off or
// malformed is left out.
func parseFlowtable(body []byte) (f flowtable) {
	if len(body) < nfgenmsgSize {
		return f
	}
	for a, err := range attributes(binary.NativeEndian, body[nfgenmsgSize:]) {
		switch {
		case err != nil:
			return f
		case a.kind == flowtableFlags && len(a.value) >= 4:
			f.hardware = binary.BigEndian.Uint32(a.value)&flowtableHardware != 0
		case a.kind == flowtableHook:
			f.devices = hookDevices(a.value)
		}
	}
	return f
}

func hookDevices(hook []byte) (names []string) {
	for a, err := range attributes(binary.NativeEndian, hook) {
		if err != nil || a.kind != flowtableHookDevs {
			continue
		}
		for d, err := range attributes(binary.NativeEndian, a.value) {
			if err != nil || len(names) == maxFlowtableDevices {
				break
			}
			names = append(names, cString(d.value))
		}
	}
	return names
}
