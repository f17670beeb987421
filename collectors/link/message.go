package link

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// operState names a value of IFLA_OPERSTATE.
func operState(n byte) OperState {
	switch n {
	case 1:
		return OperNotPresent
	case 2:
		return OperDown
	case 3:
		return OperLowerLayerDown
	case 4:
		return OperTesting
	case 5:
		return OperDormant
	case 6:
		return OperUp
	default:
		return OperUnknown
	}
}

// sizeofAttr is the size of the header of an attribute.
const sizeofAttr = 4

// typeMask takes the flags off the type of an attribute.
const typeMask = 0x3fff

// attr is one attribute of a netlink message.
type attr struct {
	kind  uint16
	value []byte
}

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
			if !yield(attr{kind: order.Uint16(b[2:]) & typeMask, value: b[sizeofAttr:n]}, nil) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// decode returns before, changed by the body of an RTM_NEWLINK or RTM_DELLINK
// message: attributes that are not in the message keep their value, for some
// messages (those of wireless drivers) carry just a few. For a new interface
// before is the zero Link. An error comes with an unchanged Link;
// errors.Is(err, errNotLink) finds a message of another family, like a
// bridge's about its ports, whose RTM_DELLINK does not mean that an interface
// went away.
func decode(order binary.ByteOrder, before Link, body []byte) (Link, error) {
	if len(body) < unix.SizeofIfInfomsg {
		return before, fmt.Errorf("cannot decode interface: %d bytes", len(body))
	}
	if body[0] != unix.AF_UNSPEC {
		return before, errNotLink
	}
	l := before
	l.Type = linkType(order.Uint16(body[2:]))
	l.Index = int(int32(order.Uint32(body[4:])))
	if l.Index <= 0 {
		return before, errNotLink
	}
	flags := order.Uint32(body[8:])
	l.AdminUp = flags&unix.IFF_UP != 0
	l.Carrier = flags&unix.IFF_LOWER_UP != 0
	if l.OperState == "" {
		l.OperState = OperUnknown
	}
	for a, err := range attributes(order, body[unix.SizeofIfInfomsg:]) {
		if err == nil {
			err = l.set(order, a)
		}
		if err != nil {
			return before, fmt.Errorf("cannot decode interface %d: %w", l.Index, err)
		}
	}
	if l.Name == "" {
		return before, fmt.Errorf("cannot decode interface %d: no name", l.Index)
	}
	return l, nil
}

// set takes over one attribute.
func (l *Link) set(order binary.ByteOrder, a attr) error {
	v := a.value
	short := func(n int) error {
		if len(v) < n {
			return fmt.Errorf("attribute %d has %d bytes, not %d", a.kind, len(v), n)
		}
		return nil
	}
	switch a.kind {
	case unix.IFLA_IFNAME:
		l.Name = cString(v)
	case unix.IFLA_ADDRESS:
		l.MAC = macString(v)
	case unix.IFLA_MTU:
		if err := short(4); err != nil {
			return err
		}
		l.MTU = int(min(order.Uint32(v), math.MaxInt32))
	case unix.IFLA_LINK:
		if err := short(4); err != nil {
			return err
		}
		l.ParentIndex = int(int32(order.Uint32(v)))
	case unix.IFLA_MASTER:
		if err := short(4); err != nil {
			return err
		}
		l.MasterIndex = int(int32(order.Uint32(v)))
	case unix.IFLA_OPERSTATE:
		if err := short(1); err != nil {
			return err
		}
		l.OperState = operState(v[0])
	case unix.IFLA_CARRIER_CHANGES:
		if err := short(4); err != nil {
			return err
		}
		l.CarrierChanges = order.Uint32(v)
	case unix.IFLA_LINKINFO:
		for sub, err := range attributes(order, v) {
			if err != nil {
				return err
			}
			if sub.kind == unix.IFLA_INFO_KIND {
				l.Kind = cString(sub.value)
			}
		}
	case unix.IFLA_STATS64:
		const width = 8
		if err := short(13 * width); err != nil {
			return err
		}
		l.Counters = counters(64, func(i int) uint64 { return order.Uint64(v[i*width:]) })
	case unix.IFLA_STATS: // comes beside IFLA_STATS64, in any order
		const width = 4
		if err := short(13 * width); err != nil {
			return err
		}
		if l.Counters.Bits != 64 {
			l.Counters = counters(32, func(i int) uint64 { return uint64(order.Uint32(v[i*width:])) })
		}
	}
	return nil
}

// counters picks from struct rtnl_link_stats or rtnl_link_stats64, which have
// the same fields in the same order.
func counters(bits int, at func(i int) uint64) Counters {
	return Counters{
		RxPackets: at(0), TxPackets: at(1), RxBytes: at(2), TxBytes: at(3),
		RxErrors: at(4), TxErrors: at(5), RxDropped: at(6), TxDropped: at(7),
		Multicast: at(8), Collisions: at(9), RxCRCErrors: at(12),
		Bits: bits,
	}
}

// macString returns the address in lower case with colons, and nothing for no
// address, an all-zero one, and the tunnels' addresses that are no MAC.
func macString(b []byte) string {
	if len(b) != 6 {
		return ""
	}
	for _, x := range b {
		if x != 0 {
			return net.HardwareAddr(b).String()
		}
	}
	return ""
}

// linkType names an ARPHRD number.
func linkType(n uint16) string {
	switch n {
	case unix.ARPHRD_ETHER:
		return "ether"
	case unix.ARPHRD_LOOPBACK:
		return "loopback"
	case unix.ARPHRD_PPP:
		return "ppp"
	default:
		return strconv.Itoa(int(n))
	}
}
