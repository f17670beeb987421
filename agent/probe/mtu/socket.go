package mtu

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// socket sends echo requests that nobody may fragment to one address, and
// receives the replies, and the errors that routers send. It is used on one
// thread and waits in poll, not in the runtime's poller: that takes an error
// queue for a broken file.
type socket struct {
	fd  int
	to  unix.Sockaddr
	v6  bool
	raw bool
}

// open opens a raw socket, or a datagram socket where the process may not.
func open(target netip.Addr, ifname string) (*socket, error) {
	s := &socket{v6: !target.Is4(), raw: true}
	var err error
	if s.to, err = address(target, ifname); err != nil {
		return nil, err
	}
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if s.v6 {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	const flags = unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	if s.fd, err = unix.Socket(family, unix.SOCK_RAW|flags, proto); err != nil {
		s.raw = false
		if s.fd, err = unix.Socket(family, unix.SOCK_DGRAM|flags, proto); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotPermitted, os.NewSyscallError("socket", err))
		}
	}
	if err := s.prepare(ifname); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *socket) prepare(ifname string) error {
	if ifname != "" {
		switch err := unix.BindToDevice(s.fd, ifname); {
		case errors.Is(err, unix.ENODEV):
			return fmt.Errorf("%w: %s", ErrNoInterface, ifname)
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("%w: %w", ErrNotPermitted, os.NewSyscallError("bind to device", err))
		case err != nil:
			return os.NewSyscallError("bind to device", err)
		}
	}
	// PROBE: never fragmented, and whatever the kernel remembers of the path
	// does not count.
	options := [...]struct{ level, name, value int }{
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE},
		{unix.IPPROTO_IP, unix.IP_RECVERR, 1},
		{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE},
		{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1},
		{unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1},
	}
	for _, o := range options {
		if (o.level == unix.IPPROTO_IPV6) != s.v6 {
			continue
		}
		if err := unix.SetsockoptInt(s.fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if !s.raw {
		return nil // is given what is its own
	}
	return os.NewSyscallError("filter", s.filter())
}

// filter makes the kernel drop everything but echo replies; a raw socket would
// be given every ICMP message of the host.
func (s *socket) filter() error {
	if !s.v6 {
		return unix.SetsockoptInt(s.fd, unix.SOL_RAW, unix.ICMP_FILTER, ^(1 << echoReply4))
	}
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[echoReply6/32] &^= 1 << (echoReply6 % 32)
	return unix.SetsockoptICMPv6Filter(s.fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &f)
}

// address returns target as the kernel wants it.
func address(target netip.Addr, ifname string) (unix.Sockaddr, error) {
	if target.Is4() {
		return &unix.SockaddrInet4{Addr: target.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Addr: target.As16()}
	zone := target.Zone()
	if zone == "" && target.IsLinkLocalUnicast() {
		zone = ifname
	}
	switch {
	case zone == "" && target.IsLinkLocalUnicast():
		return nil, errors.New("a link-local address needs a zone or an interface")
	case zone == "":
		return sa, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		sa.ZoneId = uint32(n)
		return sa, nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrNoInterface, zone)
	}
	sa.ZoneId = uint32(i.Index)
	return sa, nil
}

// send sends b as one message. The error is the kernel's own: EMSGSIZE if b is
// larger than the interface's MTU.
func (s *socket) send(b []byte) (err error) {
	// The error of an earlier message waits on the socket and is reported
	// instead of sending; it is in the queue as well. The kernel's own stays.
	for range 3 {
		if err = unix.Sendto(s.fd, b, 0, s.to); err == nil {
			return nil
		}
	}
	return os.NewSyscallError("send", err)
}

// wait waits until something has come, or for d.
func (s *socket) wait(d time.Duration) {
	p := [1]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
	ms := max(0, (d+time.Millisecond-1)/time.Millisecond)
	_, _ = unix.Poll(p[:], int(ms)) // interrupted, it just ends early
}

// reply returns the beginning of a message that has come; nil if none has.
func (s *socket) reply(b []byte) []byte {
	n, err := unix.Read(s.fd, b)
	if err != nil || n < 0 {
		return nil
	}
	return b[:n]
}

// failure returns an error that has come, and the beginning of what it is about.
func (s *socket) failure(b []byte) (e icmpError, about []byte, ok bool) {
	var oob [256]byte
	n, oobn, _, _, err := unix.Recvmsg(s.fd, b, oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil {
		return e, nil, false
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return e, nil, true
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR ||
			m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR {
			e, _ = parseExtended(m.Data)
		}
	}
	return e, b[:max(n, 0)], true
}

func (s *socket) close() { _ = unix.Close(s.fd) }
