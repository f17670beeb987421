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

// openSocket opens the socket. The interface stays as it is.
func openSocket(name string, vlan uint16) (*socket, error) {
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
	if ifi, gone := net.InterfaceByIndex(s.ifi.Index); gone != nil || ifi.Name != s.ifi.Name {
		return fmt.Errorf("%w: it went away: %w", ErrNoInterface, err)
	}
	return fmt.Errorf("%w: %w", ErrInterfaceDown, err)
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
		next = iota
		drop
		pass
		source    // looks whether it is from us
		address   // looks whether it is to us
		discovery // no more to be looked at
	)
	var prog []bpf.RawInstruction
	var jumps [][2]uint8
	at := map[uint8]int{}
	add := func(op uint16, k uint32, yes, no uint8) {
		prog = append(prog, bpf.RawInstruction{Op: op, K: k})
		jumps = append(jumps, [2]uint8{yes, no})
	}
	load := func(size uint16, k uint32) { add(unix.BPF_LD|unix.BPF_ABS|size, k, next, next) }
	equal := func(k uint32, yes, no uint8) { add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, k, yes, no) }
	is := func(m mac, offset uint32, yes, no uint8) {
		load(unix.BPF_W, offset)
		equal(binary.BigEndian.Uint32(m[:]), next, no)
		load(unix.BPF_H, offset+4)
		equal(uint32(binary.BigEndian.Uint16(m[4:])), yes, no)
	}

	load(unix.BPF_H, adPacketType)
	equal(packetOut, drop, next)
	load(unix.BPF_H, 12)
	if ac == nil {
		equal(typeDiscovery, address, drop)
	} else {
		equal(typeDiscovery, address, next)
		equal(typeSession, next, drop)
		load(unix.BPF_H, 20)
		add(unix.BPF_JMP|unix.BPF_JGE|unix.BPF_K, protoControl, next, drop)
		is(*ac, 6, address, source)
	}
	at[address] = len(prog)
	is(s.own, 0, discovery, source)
	at[source] = len(prog)
	is(s.own, 6, discovery, drop)
	at[discovery] = len(prog)
	load(unix.BPF_H, adVLANPresent)
	if s.vlan == 0 {
		equal(0, pass, next)
	} else {
		equal(0, drop, next)
	}
	load(unix.BPF_H, adVLANTag)
	add(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0xfff, next, next)
	equal(uint32(s.vlan), pass, drop)
	at[pass] = len(prog)
	add(unix.BPF_RET|unix.BPF_K, 0xffff, next, next)
	at[drop] = len(prog)
	add(unix.BPF_RET|unix.BPF_K, 0, next, next)

	for i, targets := range jumps {
		offset := func(target uint8) uint8 {
			if target == next {
				return 0
			}
			return uint8(at[target] - i - 1)
		}
		prog[i].Jt, prog[i].Jf = offset(targets[0]), offset(targets[1])
	}
	return prog
}
