package ping

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoInterface is found by errors.Is if the interface to send from does not
// exist, or went away during the run.
var ErrNoInterface = errors.New("no such interface")

// errListen marks the error of opening the socket, as against using it.
var errListen = errors.New("cannot open socket")

// address returns target as the kernel wants it.
func address(target netip.Addr, port int, ifname string) (unix.Sockaddr, error) {
	if target.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: target.As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: port, Addr: target.As16()}
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

// bind makes everything that fd sends leave through ifname, if that is not "".
func bind(fd int, ifname string) error {
	if ifname == "" {
		return nil
	}
	err := unix.BindToDevice(fd, ifname)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: %s", ErrNoInterface, ifname)
	}
	return os.NewSyscallError("bind to device", err)
}

// route asks the kernel for a route to target, without sending anything.
func route(target netip.Addr, ifname string) error {
	const discard = 9
	to, err := address(target, discard, ifname)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(family(target), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is lost
	if err := bind(fd, ifname); err != nil {
		return err
	}
	return os.NewSyscallError("connect", unix.Connect(fd, to))
}

func family(target netip.Addr) int {
	if target.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// socket sends echo requests to one address and receives replies.
type socket struct {
	file *os.File
	conn syscall.RawConn
	to   unix.Sockaddr
	v6   bool
	raw  bool
}

// open opens one. An error that errListen matches is about the kind of socket,
// and the other kind may do.
func open(target netip.Addr, ifname string, raw bool) (*socket, error) {
	s := &socket{v6: !target.Is4(), raw: raw}
	var err error
	if s.to, err = address(target, 0, ifname); err != nil {
		return nil, err
	}
	kind, proto := unix.SOCK_DGRAM, unix.IPPROTO_ICMP
	if raw {
		kind = unix.SOCK_RAW
	}
	if s.v6 {
		proto = unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family(target), kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errListen, os.NewSyscallError("socket", err))
	}
	if err := s.prepare(fd, ifname); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s.file = os.NewFile(uintptr(fd), "icmp")
	if s.conn, err = s.file.SyscallConn(); err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("%w: %w", errListen, err)
	}
	return s, nil
}

func (s *socket) prepare(fd int, ifname string) error {
	if s.raw {
		// A raw socket would be given every ICMP message of the host.
		if err := onlyReplies(fd, s.v6); err != nil {
			return fmt.Errorf("%w: %w", errListen, os.NewSyscallError("filter", err))
		}
	}
	err := bind(fd, ifname)
	if err != nil && !errors.Is(err, ErrNoInterface) {
		err = fmt.Errorf("%w: %w", errListen, err)
	}
	return err
}

// onlyReplies makes the kernel drop everything but echo replies.
func onlyReplies(fd int, v6 bool) error {
	if !v6 {
		// Bits that are set are dropped.
		return unix.SetsockoptInt(fd, unix.SOL_RAW, unix.ICMP_FILTER, ^(1 << echoReply4))
	}
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[echoReply6/32] &^= 1 << (echoReply6 % 32)
	return unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &f)
}

// send sends b as one message.
func (s *socket) send(b []byte) error {
	var sent error
	err := s.conn.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), b, 0, s.to)
		return !errors.Is(sent, unix.EAGAIN) && !errors.Is(sent, unix.EINTR)
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("send", sent)
}

// receive waits for a message until the file's deadline.
func (s *socket) receive(b []byte) (n int, err error) {
	var received error
	err = s.conn.Read(func(fd uintptr) bool {
		n, received = unix.Read(int(fd), b)
		return !errors.Is(received, unix.EAGAIN) && !errors.Is(received, unix.EINTR)
	})
	if err != nil {
		return 0, err
	}
	return max(n, 0), os.NewSyscallError("receive", received)
}

func (s *socket) close() { _ = s.file.Close() }
