package netbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoKernel is found by errors.Is where the running kernel lacks what was
// asked for: VLANs, tbf, netem. The guest's kernel has them.
var ErrNoKernel = errors.New("the running kernel lacks this")

// CableOptions are how a cable differs from the usual.
type CableOptions struct {
	// MTU of both ends. 0 means 1500.
	MTU int
	// MACA and MACZ are the addresses of the ends. Empty means random.
	MACA, MACZ string
	// Offload leaves it to the cable to cut and to sum, as a network card
	// does: faster, but then packets of up to 64 KiB are on it, and their
	// checksums are not.
	Offload bool
}

// Cable connects two hosts: aName on a and zName on z are its ends, and both
// are up. Setting an end down takes the carrier from the other one.
func (b *Box) Cable(a *Host, aName string, z *Host, zName string, o CableOptions) error {
	fail := func(err error) error {
		return fmt.Errorf("cannot connect %s on %s to %s on %s: %w", aName, a.name, zName, z.name, err)
	}
	macA, err := parseMAC(o.MACA)
	if err != nil {
		return fail(err)
	}
	macZ, err := parseMAC(o.MACZ)
	if err != nil {
		return fail(err)
	}
	attrs := linkAttrs(aName)
	attrs.MTU, attrs.HardwareAddr = o.MTU, macA
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU, veth.PeerHardwareAddr = zName, uint32(max(0, o.MTU)), macZ
	veth.PeerNamespace = netlink.NsFd(int(z.ns.net.Fd()))
	if err := a.nl.LinkAdd(veth); err != nil {
		return fail(kernelError(err))
	}
	for _, end := range []struct {
		h    *Host
		name string
	}{{a, aName}, {z, zName}} {
		if !o.Offload {
			if err := end.h.Do(func() error { return plainWire(end.name) }); err != nil {
				return fail(err)
			}
		}
		if err := end.h.Do(func() error { return keepOrder(end.name) }); err != nil {
			return fail(err)
		}
		if err := end.h.Up(end.name); err != nil {
			return fail(err)
		}
	}
	return nil
}

func linkAttrs(name string) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return attrs
}

func parseMAC(text string) (net.HardwareAddr, error) {
	if text == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("bad MAC address %q", text)
	}
	return mac, nil
}

// kernelError marks the errors by which rtnetlink says that it doesn't know a
// kind of link or queue.
func kernelError(err error) error {
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("%w: %w", ErrNoKernel, err)
	}
	return err
}

func (h *Host) link(ifname string) (netlink.Link, error) {
	link, err := h.nl.LinkByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("cannot find %s on %s: %w", ifname, h.name, err)
	}
	return link, nil
}

// change does something to an interface; what completes "cannot ... IFNAME".
func (h *Host) change(ifname, what string, f func(netlink.Link) error) error {
	link, err := h.link(ifname)
	if err != nil {
		return err
	}
	if err := f(link); err != nil {
		return fmt.Errorf("cannot %s %s on %s: %w", what, ifname, h.name, err)
	}
	return nil
}

// Up sets an interface up.
func (h *Host) Up(ifname string) error { return h.change(ifname, "set up", h.nl.LinkSetUp) }

// Down sets an interface down: at the other end of a cable, the carrier is
// gone.
func (h *Host) Down(ifname string) error { return h.change(ifname, "set down", h.nl.LinkSetDown) }

// Remove takes an interface away; of a cable, both ends.
func (h *Host) Remove(ifname string) error { return h.change(ifname, "remove", h.nl.LinkDel) }

// MTU sets an interface's MTU in bytes.
func (h *Host) MTU(ifname string, mtu int) error {
	return h.change(ifname, "set MTU of", func(l netlink.Link) error { return h.nl.LinkSetMTU(l, mtu) })
}

// MAC sets an interface's address.
func (h *Host) MAC(ifname, mac string) error {
	return h.change(ifname, "set address of", func(l netlink.Link) error {
		addr, err := parseMAC(mac)
		if err != nil {
			return err
		}
		return h.nl.LinkSetHardwareAddr(l, addr)
	})
}

// Address gives an interface an address with its prefix length:
// "10.64.0.1/24". Giving it again changes nothing.
func (h *Host) Address(ifname, cidr string) error {
	return h.change(ifname, "give address to", func(l netlink.Link) error {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		return h.nl.AddrReplace(l, addr)
	})
}

// Route sets a route to dst, a prefix or "default", by way of via: a router's
// address ("fe80::1%wan0" for one that is link-local), or an interface.
func (h *Host) Route(dst, via string) error {
	fail := func(err error) error {
		return fmt.Errorf("cannot set route to %s by %s on %s: %w", dst, via, h.name, err)
	}
	route := &netlink.Route{}
	gateway, err := netip.ParseAddr(via)
	if err == nil {
		route.Gw = gateway.WithZone("").AsSlice()
		via = gateway.Zone()
	}
	if via != "" {
		link, err := h.link(via)
		if err != nil {
			return fail(err)
		}
		route.LinkIndex = link.Attrs().Index
		if route.Gw == nil {
			route.Scope = netlink.SCOPE_LINK
		}
	}
	switch {
	case dst != "default":
	case route.Gw.To4() == nil && route.Gw != nil:
		dst = "::/0"
	default:
		dst = "0.0.0.0/0"
	}
	if route.Dst, err = netlink.ParseIPNet(dst); err != nil {
		return fail(err)
	}
	if err := h.nl.RouteReplace(route); err != nil {
		return fail(err)
	}
	return nil
}

// VLAN makes the interface name out of what comes on parent tagged with id, 1
// to 4094, and sets it up.
func (h *Host) VLAN(parent string, id uint16, name string) error {
	if id == 0 || id > 4094 {
		return fmt.Errorf("cannot make VLAN %d on %s: no such number", id, h.name)
	}
	return h.change(parent, fmt.Sprintf("make VLAN %d of", id), func(l netlink.Link) error {
		attrs := linkAttrs(name)
		attrs.ParentIndex = l.Attrs().Index
		if err := h.nl.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: int(id)}); err != nil {
			return kernelError(err)
		}
		return h.Up(name)
	})
}

// BridgeOptions are what a bridge does with multicast.
type BridgeOptions struct {
	// Snooping sends multicast only where it was asked for.
	Snooping bool
	// Querier asks who wants multicast. Without one somewhere, a bridge that
	// snoops doesn't know.
	Querier bool
}

// Bridge makes a bridge named name, if there is none, connects ports to it and
// sets all up. It forwards at once: there is no spanning tree.
func (h *Host) Bridge(name string, o BridgeOptions, ports ...string) error {
	if _, err := h.nl.LinkByName(name); errors.As(err, new(netlink.LinkNotFoundError)) {
		if err := h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: linkAttrs(name)}); err != nil {
			return fmt.Errorf("cannot make bridge %s on %s: %w", name, h.name, kernelError(err))
		}
	}
	bridge, err := h.link(name)
	if err != nil {
		return err
	}
	for _, port := range ports {
		err := h.change(port, "connect to "+name, func(l netlink.Link) error { return h.nl.LinkSetMaster(l, bridge) })
		if err != nil {
			return err
		}
		if err := h.Up(port); err != nil {
			return err
		}
	}
	if err := h.Up(name); err != nil {
		return err
	}
	err = h.Do(func() error {
		for _, s := range [...]struct {
			name string
			on   bool
		}{{"multicast_snooping", o.Snooping}, {"multicast_querier", o.Querier}} {
			value := "0"
			if s.on {
				value = "1"
			}
			if err := writeKernel("/sys/class/net/"+name+"/bridge/"+s.name, value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && (o.Snooping || o.Querier) {
		return fmt.Errorf("cannot set multicast of %s on %s: %w: %w", name, h.name, ErrNoKernel, err)
	}
	return nil
}
