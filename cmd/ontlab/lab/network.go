package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

// Addresses of the lab. They exist in its namespaces only.
const (
	OperatorAddr = "10.64.0.1" // gateway of last resort, broker, DNS
	InternetAddr = "10.64.9.9" // something beyond
	WANAddr      = "10.64.0.2"
	LANAddr      = "192.168.1.1"
	HomeAddr     = "192.168.1.2" // the technician's notebook
	WANMAC       = "02:00:00:64:00:02"
)

// Interfaces of the gateway, and their other ends.
const (
	WANInterface = "wan0"
	LANInterface = "lan0"
	operatorEnd  = "isp0"
	HomeEnd      = "pc0"
)

// prepareOperator gives the operator's side its addresses. It may be called
// more than once.
func prepareOperator() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("cannot find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		if errors.Is(err, syscall.EPERM) {
			// A namespace without rights in it: some systems give no more.
			return noNamespaces(err)
		}
		return fmt.Errorf("cannot set lo up: %w", err)
	}
	// OperatorAddr is here too, so that services outlive the cable.
	for _, addr := range []string{OperatorAddr, InternetAddr} {
		if err := addAddress(lo, addr+"/32"); err != nil && !errors.Is(err, syscall.EEXIST) {
			return err
		}
	}
	return nil
}

// plugIn connects the gateway whose process is pid: a WAN and a LAN cable.
func plugIn(pid int) error {
	for _, cable := range []struct{ inside, outside, mac, address string }{
		{WANInterface, operatorEnd, WANMAC, OperatorAddr + "/24"},
		{LANInterface, HomeEnd, "02:00:00:64:01:01", HomeAddr + "/24"},
	} {
		mac, err := net.ParseMAC(cable.mac)
		if err != nil {
			return fmt.Errorf("cannot parse %s: %w", cable.mac, err)
		}
		// The cables of a gateway that is gone go with its namespace, a while
		// after it.
		if old, err := netlink.LinkByName(cable.outside); err == nil {
			_ = netlink.LinkDel(old)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = cable.outside
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: cable.inside, PeerHardwareAddr: mac}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("cannot lay cable %s: %w", cable.outside, err)
		}
		inside, err := netlink.LinkByName(cable.inside)
		if err != nil {
			return fmt.Errorf("cannot find %s: %w", cable.inside, err)
		}
		if err := netlink.LinkSetNsPid(inside, pid); err != nil {
			return fmt.Errorf("cannot hand %s to the gateway: %w", cable.inside, err)
		}
		outside, err := netlink.LinkByName(cable.outside)
		if err != nil {
			return fmt.Errorf("cannot find %s: %w", cable.outside, err)
		}
		if cable.address != "" {
			if err := addAddress(outside, cable.address); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(outside); err != nil {
			return fmt.Errorf("cannot set %s up: %w", cable.outside, err)
		}
	}
	return nil
}

// SetHomeCable plugs the LAN cable in or out.
func SetHomeCable(plugged bool) error {
	pc, err := netlink.LinkByName(HomeEnd)
	if err != nil {
		return fmt.Errorf("cannot find %s: %w", HomeEnd, err)
	}
	if plugged {
		err = netlink.LinkSetUp(pc)
	} else {
		err = netlink.LinkSetDown(pc)
	}
	if err != nil {
		return fmt.Errorf("cannot switch %s: %w", HomeEnd, err)
	}
	return nil
}

// GatewayInit runs in the gateway's namespace: it waits for the cables, sets
// addresses and routes, and becomes the program in args.
func GatewayInit(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("gateway: no program given")
	}
	for _, port := range []struct{ name, address string }{
		{"lo", ""}, {WANInterface, WANAddr + "/24"}, {LANInterface, LANAddr + "/24"},
	} {
		link, err := waitForLink(ctx, port.name)
		if err != nil {
			return err
		}
		if port.address != "" {
			if err := addAddress(link, port.address); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("cannot set %s up: %w", port.name, err)
		}
		if port.name == WANInterface {
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(OperatorAddr)}
			if err := netlink.RouteAdd(route); err != nil {
				return fmt.Errorf("cannot set default route: %w", err)
			}
		}
	}
	if err := syscall.Exec(args[0], args, os.Environ()); err != nil { //nolint:gosec // the lab's own program
		return fmt.Errorf("cannot run %s: %w", args[0], err)
	}
	return nil
}

func waitForLink(ctx context.Context, name string) (netlink.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		link, err := netlink.LinkByName(name)
		if err == nil {
			return link, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("cannot find %s: %w", name, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func addAddress(link netlink.Link, cidr string) error {
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return fmt.Errorf("cannot parse %s: %w", cidr, err)
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("cannot give %s the address %s: %w", link.Attrs().Name, cidr, err)
	}
	return nil
}
