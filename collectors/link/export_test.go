package link

import (
	"encoding/binary"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/collectors/rtnl"
)

// What tests outside the package reach inside for.

// Socket is the seam to the kernel's announcements and lists.
type Socket = rtnl.Socket

// Ethtool is the seam to the drivers.
type Ethtool = ethtool

// NewEthtool returns one that asks f instead of the kernel.
func NewEthtool(f func(name string, buf []byte) error) *Ethtool {
	return &ethtool{ioctl: f, wireless: func(string) bool { return false }, close: func() {}}
}

// Settings asks for speed and duplex.
func (e *ethtool) Settings(name string) (int, string) {
	p := e.settings(name)
	return p.megabits, p.duplex
}

// Offers returns what the two ends offer.
func (e *ethtool) Offers(name string) (own, peer int) {
	p := e.settings(name)
	return p.max, p.peerMax
}

// Feature reports whether the kernel knows a feature, and whether it is on.
func (e *ethtool) Feature(name, feature string) (known, on bool) {
	bit := e.featureBit(name, feature)
	return bit >= 0, e.feature(name, bit)
}

// WrapIoctl calls before ahead of every ioctl, which fails if that does.
func (e *ethtool) WrapIoctl(before func(name string, buf []byte) error) {
	next := e.ioctl
	e.ioctl = func(name string, buf []byte) error {
		if err := before(name, buf); err != nil {
			return err
		}
		return next(name, buf)
	}
}

var (
	Decode      = decode
	ErrNotLink  = errNotLink
	DialKernel  = rtnl.Dial
	DialEthtool = dialEthtool
)

// OffloadOf runs the look-up that Links does for one interface.
func (c *Collector) OffloadOf(e *Ethtool, l Link) string {
	c.detail(e, c.offloads(), &l)
	return l.Offload
}

// SetKernel leads c to other sockets; nil leaves one as it is.
func (c *Collector) SetKernel(dial func(groups ...uint) (Socket, error), ethtool func() (*Ethtool, error)) {
	if dial != nil {
		c.dial = dial
	}
	if ethtool != nil {
		c.ethtool = ethtool
	}
}

// SetSynced has f called whenever Watch has a list.
func (c *Collector) SetSynced(f func()) { c.synced = f }

// Rate is what two readings d apart give.
func Rate(a, b Counters, d time.Duration) (rxBPS, txBPS uint64, rxPPS, txPPS float64, valid, reset bool) {
	t := time.Unix(0, 0)
	r := rate(reading{a, t}, reading{b, t.Add(d)})
	return r.rxBits, r.txBits, r.rxPackets, r.txPackets, r.valid, r.reset
}

// Announced makes a message as a multicast group gets it.
func Announced(kind uint16, body []byte) syscall.NetlinkMessage {
	return syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind}, Data: body}
}

// Attr encodes one attribute.
func Attr(order binary.AppendByteOrder, kind uint16, value []byte) []byte {
	b := order.AppendUint16(nil, uint16(sizeofAttr+len(value)))
	b = append(order.AppendUint16(b, kind), value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

// Body encodes an ifinfomsg and attributes.
func Body(order binary.AppendByteOrder, family byte, arphrd uint16, index int32, flags uint32, attrs ...[]byte) []byte {
	b := []byte{family, 0}
	b = order.AppendUint16(b, arphrd)
	b = order.AppendUint32(b, uint32(index))
	b = order.AppendUint32(b, flags)
	b = order.AppendUint32(b, 0)
	for _, a := range attrs {
		b = append(b, a...)
	}
	return b
}

// FlagsUp are those of an interface that is on and has a carrier.
const FlagsUp = unix.IFF_UP | unix.IFF_LOWER_UP | unix.IFF_RUNNING

// SetNetfilter leads c to another socket of nftables.
func (c *Collector) SetNetfilter(dial func() (Socket, error)) { c.netfilter = dial }

// ParseFlowtable reads one message.
func ParseFlowtable(body []byte) (hardware bool, devices []string) {
	f := parseFlowtable(body)
	return f.hardware, f.devices
}

// SetOffload looks up what concerns links, as a read does.
func (c *Collector) SetOffload(links ...*Link) {
	o := c.offloads()
	for _, l := range links {
		o.set(l, false)
	}
}
