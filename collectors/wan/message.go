package wan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errOther is returned for a message that is well formed and none of ours.
var errOther = errors.New("message of another kind")

const (
	sizeofAttr = 4
	// typeMask takes the flags off the type of an attribute.
	typeMask = 0x3fff
	// forever is the kernel's lifetime without end, in seconds.
	forever     = 1<<32 - 1
	scopeGlobal = "global"
	scopeLink   = "link"
	scopeHost   = "host"
)

// attributes yields the attributes in b and ends with an error where one
// reaches beyond b. Padding behind the last is ignored.
func attributes(order binary.ByteOrder, b []byte) iter.Seq2[attr, error] {
	return func(yield func(attr, error) bool) {
		for len(b) >= sizeofAttr {
			n := int(order.Uint16(b))
			if n < sizeofAttr || n > len(b) {
				yield(attr{}, fmt.Errorf("attribute of %d bytes in %d", n, len(b)))
				return
			}
			if !yield(attr{order: order, kind: order.Uint16(b[2:]) & typeMask, value: b[sizeofAttr:n]}, nil) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// attr is one attribute of a netlink message.
type attr struct {
	order binary.ByteOrder
	kind  uint16
	value []byte
}

func (a attr) uint32() (uint32, error) {
	if len(a.value) < 4 {
		return 0, fmt.Errorf("attribute %d has %d bytes, not 4", a.kind, len(a.value))
	}
	return a.order.Uint32(a.value), nil
}

// addr returns an address of the message's family.
func (a attr) addr(family string) (netip.Addr, error) {
	x, ok := netip.AddrFromSlice(a.value)
	if !ok || x.Is4() != (family == IPv4) {
		return netip.Addr{}, fmt.Errorf("attribute %d has %d bytes, no %s address", a.kind, len(a.value), family)
	}
	return x, nil
}

// familyOf names an address family.
func familyOf(n byte) (string, bool) {
	switch n {
	case unix.AF_INET:
		return IPv4, true
	case unix.AF_INET6:
		return IPv6, true
	}
	return "", false
}

// iface is what matters of an interface.
type iface struct {
	name string
	up   bool
	mtu  int
}

// decodeLink decodes the body of RTM_NEWLINK.
func decodeLink(order binary.ByteOrder, b []byte) (index int, l iface, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return 0, l, fmt.Errorf("cannot decode interface: %d bytes", len(b))
	}
	if b[0] != unix.AF_UNSPEC {
		return 0, l, errOther
	}
	index = int(int32(order.Uint32(b[4:])))
	l.up = order.Uint32(b[8:])&unix.IFF_UP != 0
	for a, err := range attributes(order, b[unix.SizeofIfInfomsg:]) {
		if err != nil {
			return 0, iface{}, fmt.Errorf("cannot decode interface %d: %w", index, err)
		}
		switch a.kind {
		case unix.IFLA_IFNAME:
			l.name, _, _ = strings.Cut(string(a.value), "\x00")
		case unix.IFLA_MTU:
			n, err := a.uint32()
			if err != nil {
				return 0, iface{}, fmt.Errorf("cannot decode interface %d: %w", index, err)
			}
			l.mtu = int(min(n, math.MaxInt32))
		}
	}
	if index <= 0 || l.name == "" {
		return 0, iface{}, fmt.Errorf("cannot decode interface %d: no name", index)
	}
	return index, l, nil
}

// address is an Address and the interface it is on.
type address struct {
	index int
	Address
}

// decodeAddress decodes the body of RTM_NEWADDR.
func decodeAddress(order binary.ByteOrder, b []byte) (address, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return address{}, fmt.Errorf("cannot decode address: %d bytes", len(b))
	}
	family, ok := familyOf(b[0])
	if !ok {
		return address{}, errOther
	}
	a := address{index: int(int32(order.Uint32(b[4:]))), Address: Address{
		Family: family, Scope: scopeName(b[3]), ValidLft: Forever, PreferredLft: Forever,
	}}
	bits := int(b[1])
	flags := uint32(b[2]) // the lower eight; all are in an attribute since Linux 3.14
	var local, other netip.Addr
	for at, err := range attributes(order, b[unix.SizeofIfAddrmsg:]) {
		if err == nil {
			switch at.kind {
			case unix.IFA_ADDRESS:
				other, err = at.addr(family)
			case unix.IFA_LOCAL:
				local, err = at.addr(family)
			case unix.IFA_FLAGS:
				flags, err = at.uint32()
			case unix.IFA_CACHEINFO:
				if len(at.value) < 8 {
					err = fmt.Errorf("lifetimes have %d bytes", len(at.value))
					break
				}
				a.PreferredLft = lifetime(order.Uint32(at.value))
				a.ValidLft = lifetime(order.Uint32(at.value[4:]))
			}
		}
		if err != nil {
			return address{}, fmt.Errorf("cannot decode address on interface %d: %w", a.index, err)
		}
	}
	// IPv4 gives both, the same twice unless there is a peer; IPv6 gives just
	// IFA_ADDRESS unless there is a peer.
	own := local
	if !own.IsValid() {
		own = other
	} else if other.IsValid() && other != own {
		// The length is that of the peer's network; the address has its own.
		a.Peer, bits = other, own.BitLen()
	}
	if !own.IsValid() || bits > own.BitLen() || a.index <= 0 {
		return address{}, fmt.Errorf("cannot decode address on interface %d: %s/%d", a.index, own, bits)
	}
	a.Prefix = netip.PrefixFrom(own, bits)
	a.Tentative = flags&unix.IFA_F_TENTATIVE != 0
	a.Optimistic = flags&unix.IFA_F_OPTIMISTIC != 0
	a.DADFailed = flags&unix.IFA_F_DADFAILED != 0
	a.Deprecated = flags&unix.IFA_F_DEPRECATED != 0
	a.Temporary = family == IPv6 && flags&unix.IFA_F_TEMPORARY != 0 // for IPv4 the bit says "secondary"
	a.Permanent = flags&unix.IFA_F_PERMANENT != 0
	return a, nil
}

func lifetime(seconds uint32) time.Duration {
	if seconds == forever {
		return Forever
	}
	return time.Duration(seconds) * time.Second
}

func scopeName(n byte) string {
	switch n {
	case unix.RT_SCOPE_UNIVERSE:
		return scopeGlobal
	case unix.RT_SCOPE_SITE:
		return "site"
	case unix.RT_SCOPE_LINK:
		return scopeLink
	case unix.RT_SCOPE_HOST:
		return scopeHost
	}
	return strconv.Itoa(int(n))
}

// route is a Route and what decides whether it counts.
type route struct {
	Route
	family     string
	index      int // of the interface
	kind       byte
	table      uint32
	dst        netip.Prefix
	preference int // of an IPv6 router: -1, 0, 1
	dead       bool
}

// isDefault reports whether r is a way out for everything.
func (r route) isDefault() bool {
	return r.kind == unix.RTN_UNICAST && r.table == unix.RT_TABLE_MAIN && r.dst.Bits() == 0 && !r.dead
}

// delegated reports whether r looks like what OpenWrt sets for a prefix that
// was delegated to it, so that what is not used of it goes nowhere. It does so
// for its own local (ULA) prefix as well, which doesn't count.
func (r route) delegated() bool {
	a := r.dst.Addr()
	return r.kind == unix.RTN_UNREACHABLE && r.table == unix.RT_TABLE_MAIN && r.family == IPv6 &&
		r.dst.Bits() > 0 && r.dst.Bits() <= 64 && a.IsGlobalUnicast() && !a.IsPrivate()
}

// decodeRoute decodes the body of RTM_NEWROUTE. Of several next hops the first
// that is alive counts.
func decodeRoute(order binary.ByteOrder, b []byte) (route, error) {
	if len(b) < unix.SizeofRtMsg {
		return route{}, fmt.Errorf("cannot decode route: %d bytes", len(b))
	}
	family, ok := familyOf(b[0])
	flags := order.Uint32(b[8:])
	if !ok || flags&unix.RTM_F_CLONED != 0 {
		return route{}, errOther
	}
	r := route{
		Route: Route{Protocol: protocolName(b[5])}, family: family, kind: b[7], table: uint32(b[4]),
		dead: flags&unix.RTNH_F_DEAD != 0,
	}
	dstBits, srcBits := int(b[1]), int(b[2])
	dst, src := netip.IPv4Unspecified(), netip.Addr{}
	if family == IPv6 {
		dst = netip.IPv6Unspecified()
	}
	for a, err := range attributes(order, b[unix.SizeofRtMsg:]) {
		if err == nil {
			switch a.kind {
			case unix.RTA_DST:
				dst, err = a.addr(family)
			case unix.RTA_SRC:
				src, err = a.addr(family)
			case unix.RTA_TABLE:
				r.table, err = a.uint32()
			case unix.RTA_PRIORITY:
				r.Metric, err = a.uint32()
			case unix.RTA_PREFSRC:
				r.PreferredSource, err = a.addr(family)
			case unix.RTA_PREF:
				if len(a.value) > 0 {
					r.preference = preferenceOf(a.value[0])
				}
			case unix.RTA_MULTIPATH:
				err = r.setHops(order, a.value)
			default:
				err = r.setHop(a)
			}
		}
		if err != nil {
			return route{}, fmt.Errorf("cannot decode route: %w", err)
		}
	}
	if dstBits > dst.BitLen() || srcBits > dst.BitLen() {
		return route{}, fmt.Errorf("cannot decode route: prefix of %d and %d bits", dstBits, srcBits)
	}
	r.dst = netip.PrefixFrom(dst, dstBits)
	if srcBits > 0 && src.IsValid() {
		r.Source = netip.PrefixFrom(src, srcBits)
	}
	return r, nil
}

// setHop takes over an attribute that describes a next hop.
func (r *route) setHop(a attr) (err error) {
	switch a.kind {
	case unix.RTA_OIF:
		var n uint32
		n, err = a.uint32()
		r.index = int(int32(n))
	case unix.RTA_GATEWAY:
		r.Gateway, err = a.addr(r.family)
	case unix.RTA_VIA: // a gateway of the other family
		if len(a.value) < 2 {
			return fmt.Errorf("gateway of %d bytes", len(a.value))
		}
		via, ok := netip.AddrFromSlice(a.value[2:])
		if !ok {
			return fmt.Errorf("gateway of %d bytes", len(a.value))
		}
		r.Gateway = via
	}
	return err
}

// setHops takes over the first next hop that is alive.
func (r *route) setHops(order binary.ByteOrder, b []byte) error {
	for len(b) > 0 {
		if len(b) < unix.SizeofRtNexthop {
			return fmt.Errorf("next hop of %d bytes", len(b))
		}
		n := int(order.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			return fmt.Errorf("next hop of %d bytes in %d", n, len(b))
		}
		r.dead = b[2]&unix.RTNH_F_DEAD != 0
		r.index = int(int32(order.Uint32(b[4:])))
		r.Gateway = netip.Addr{}
		for a, err := range attributes(order, b[unix.SizeofRtNexthop:n]) {
			if err == nil {
				err = r.setHop(a)
			}
			if err != nil {
				return err
			}
		}
		if !r.dead {
			return nil
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// preferenceOf ranks a router by RFC 4191.
func preferenceOf(n byte) int {
	switch n {
	case 1:
		return 1
	case 3:
		return -1
	}
	return 0
}

func protocolName(n byte) string {
	switch n {
	case unix.RTPROT_KERNEL:
		return "kernel"
	case unix.RTPROT_BOOT:
		return "boot"
	case unix.RTPROT_STATIC:
		return "static"
	case unix.RTPROT_RA:
		return "ra"
	case unix.RTPROT_DHCP:
		return "dhcp"
	}
	return strconv.Itoa(int(n))
}
