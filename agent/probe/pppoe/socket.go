package pppoe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// socket is an AF_PACKET socket that sees the PPPoE frames of one VLAN.
type socket struct {
	conn *packet.Conn
	raw  syscall.RawConn
	ifi  *net.Interface
	own  mac
	vlan uint16
}

var _ link = (*socket)(nil)

// openSocket opens the socket. The interface stays as it is; for an alias it
// takes what is sent to others, until the socket is closed.
func openSocket(name string, vlan uint16, alias bool) (*socket, error) {
	ifi, err := net.InterfaceByName(name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrNoInterface, err)
	case len(ifi.HardwareAddr) != 6 || ifi.Flags&net.FlagLoopback != 0:
		return nil, ErrNotEthernet
	case ifi.Flags&net.FlagUp == 0:
		return nil, ErrInterfaceDown
	}
	s := &socket{ifi: ifi, own: mac(ifi.HardwareAddr), vlan: vlan}
	if alias {
		s.own = s.own.alias()
	}
	// All protocols: frames of a VLAN that has a device pass by the sockets
	// for one protocol. The filter is there before the first frame is.
	s.conn, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: s.filter(nil)})
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("%w: %w", ErrNotPermitted, err)
		}
		return nil, fmt.Errorf("cannot open packet socket: %w", s.translate(err))
	}
	if s.raw, err = s.conn.SyscallConn(); err == nil {
		err = s.withTags()
	}
	if err == nil && alias {
		err = s.conn.SetPromiscuous(true)
	}
	if err != nil {
		s.conn.Close() //nolint:errcheck // the first error counts
		return nil, fmt.Errorf("cannot set up packet socket: %w", s.translate(err))
	}
	return s, nil
}

// withTags asks for the VLAN tags, which the kernel takes out of the frames.
func (s *socket) withTags() error {
	var optErr error
	err := s.raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
	})
	return errors.Join(err, optErr)
}

func (s *socket) hardware() (address mac, mtu int) { return s.own, s.ifi.MTU }

func (s *socket) admit(ac mac) error {
	if err := s.conn.SetBPF(s.filter(&ac)); err != nil {
		return fmt.Errorf("cannot set filter: %w", s.translate(err))
	}
	return nil
}

func (s *socket) close() error { return s.conn.Close() }

func (s *socket) send(frame []byte) error {
	to := unix.SockaddrLinklayer{Ifindex: s.ifi.Index, Protocol: networkOrder(binary.BigEndian.Uint16(frame[12:])), Halen: 6}
	copy(to.Addr[:], frame[:6])
	var sendErr error
	err := s.raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendto(int(fd), frame, 0, &to)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	switch {
	case err != nil:
		return fmt.Errorf("cannot send: %w", s.translate(err))
	case errors.Is(sendErr, unix.ENOBUFS):
		return nil // as good as lost on the line
	case sendErr != nil:
		return fmt.Errorf("cannot send: %w", s.translate(sendErr))
	}
	return nil
}

func (s *socket) receive(b []byte) (n int, tag uint16, tagged bool, err error) {
	oob := make([]byte, 64)
	var recvErr error
	var oobn int
	err = s.raw.Read(func(fd uintptr) bool {
		n, oobn, _, _, recvErr = unix.Recvmsg(int(fd), b, oob, 0)
		return !errors.Is(recvErr, unix.EAGAIN) && !errors.Is(recvErr, unix.EINTR)
	})
	if err = errors.Join(err, recvErr); err != nil {
		return 0, 0, false, fmt.Errorf("cannot receive: %w", s.translate(err))
	}
	tag, tagged = vlanTag(oob[:oobn])
	return n, tag, tagged, nil
}

// struct tpacket_auxdata of linux/if_packet.h: its size, and where in it the
// tag's TCI is; the status is the first word.
const (
	auxdataLen = 20
	auxdataTCI = 16
)

// vlanTag finds the VLAN tag in control messages.
func vlanTag(oob []byte) (tci uint16, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < auxdataLen {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		tci = binary.NativeEndian.Uint16(m.Data[auxdataTCI:])
		return tci, status&unix.TP_STATUS_VLAN_VALID != 0
	}
	return 0, false
}

// translate says what has become of the interface, where that is the reason.
func (s *socket) translate(err error) error {
	if !errors.Is(err, unix.ENETDOWN) && !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENODEV) {
		return err
	}
	if s.gone() {
		return fmt.Errorf("%w: it went away: %w", ErrNoInterface, err)
	}
	return fmt.Errorf("%w: %w", ErrInterfaceDown, err)
}

// gone says whether the interface exists no more. It asks through the socket,
// which stays in the network namespace it was made in.
func (s *socket) gone() bool {
	request, err := unix.NewIfreq(s.ifi.Name)
	if err != nil || s.raw == nil {
		return false
	}
	gone := false
	ctlErr := s.raw.Control(func(fd uintptr) {
		err := unix.IoctlIfreq(int(fd), unix.SIOCGIFINDEX, request)
		gone = err != nil || int(request.Uint32()) != s.ifi.Index
	})
	return ctlErr == nil && gone
}

func networkOrder(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

// Extensions of classic BPF, and a kind of packet (linux/filter.h,
// linux/if_packet.h).
const (
	adPacketType  = 0xfffff000 + 4
	adVLANTag     = 0xfffff000 + 44
	adVLANPresent = 0xfffff000 + 48
	packetOut     = 4
)

// filter lets pass what is sent to us, and what we sent and comes back:
// discovery, and control packets of PPP in sessions of ac unless that is nil.
// A busy line beside costs no more than the filter.
func (s *socket) filter(ac *mac) []bpf.RawInstruction {
	const (
		loadH    = unix.BPF_LD | unix.BPF_ABS | unix.BPF_H
		loadW    = unix.BPF_LD | unix.BPF_ABS | unix.BPF_W
		equal    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		notBelow = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		mask     = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
		pass     = unix.BPF_RET | unix.BPF_K
	)
	ours, theirs := s.own, mac{}
	if ac != nil {
		theirs = *ac
	}
	high := func(m mac) uint32 { return binary.BigEndian.Uint32(m[:]) }
	low := func(m mac) uint32 { return uint32(binary.BigEndian.Uint16(m[4:])) }
	program := [...]bpf.RawInstruction{
		0: {Op: loadW, K: adPacketType},
		1: {Op: equal, K: packetOut, Jt: 23}, // 25
		2: {Op: loadH, K: 12},
		3: {Op: equal, K: typeDiscovery, Jt: 7},       // 11
		4: {Op: equal, K: typeSession, Jt: 0, Jf: 20}, // 5, 25
		// Of a session, what is no datagram, and from ac.
		5:  {Op: loadH, K: 20},
		6:  {Op: notBelow, K: protoControl, Jf: 18}, // 25
		7:  {Op: loadW, K: 6},
		8:  {Op: equal, K: high(theirs), Jf: 6}, // 15
		9:  {Op: loadH, K: 10},
		10: {Op: equal, K: low(theirs), Jf: 4}, // 15
		// To us?
		11: {Op: loadW, K: 0},
		12: {Op: equal, K: high(ours), Jf: 2}, // 15
		13: {Op: loadH, K: 4},
		14: {Op: equal, K: low(ours), Jt: 4}, // 19
		// From us?
		15: {Op: loadW, K: 6},
		16: {Op: equal, K: high(ours), Jf: 8}, // 25
		17: {Op: loadH, K: 10},
		18: {Op: equal, K: low(ours), Jf: 6}, // 25
		// In our VLAN?
		19: {Op: loadW, K: adVLANPresent},
		20: {Op: equal, K: 0, Jt: 4}, // 25
		21: {Op: loadW, K: adVLANTag},
		22: {Op: mask, K: 0xfff},
		23: {Op: equal, K: uint32(s.vlan), Jf: 1}, // 25
		24: {Op: pass, K: 0xffff},
		25: {Op: pass, K: 0},
	}
	if ac == nil {
		program[4].Jt = 20 // no sessions
	}
	if s.vlan == 0 {
		program[20].Jt = 3 // untagged will do
	}
	return program[:]
}
