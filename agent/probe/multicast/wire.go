package multicast

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// wire is an interface as the probe sees it.
type wire interface {
	// receive reads an IP packet to some group, and says whether it comes from
	// the interface's own hardware address.
	receive(b []byte) (n int, own bool, err error)
	// send sends a frame.
	send(b []byte) error
	// setDeadline bounds receive, also one that is waiting.
	setDeadline(t time.Time) error
	// drops says how many packets did not fit into the socket.
	drops() uint32
	close()
}

const (
	bufferSize    = 16 << 10 // of a packet; no Ethernet has longer ones
	receiveBuffer = 1 << 20  // of the socket
)

// packetWire is an interface by packet sockets.
type packetWire struct {
	mac net.HardwareAddr
	// in takes packets without their Ethernet header, whatever the link; out
	// sends whole frames, nil if nothing is to be sent.
	in, out *packet.Conn
}

var _ wire = (*packetWire)(nil)

const protoAll = 3 // ETH_P_ALL: what bridges and VLANs take, too

func openWire(ifi *net.Interface, o *Options, mode Mode) (*packetWire, error) {
	filter, err := bpf.Assemble(receiveFilter(o.VLAN, o.Group.Is4()))
	if err != nil {
		return nil, fmt.Errorf("cannot make filter: %w", err)
	}
	w := &packetWire{mac: ifi.HardwareAddr}
	if w.in, err = packet.Listen(ifi, packet.Datagram, protoAll, &packet.Config{Filter: filter}); err != nil {
		return nil, translate(err)
	}
	if mode == ModeFrame {
		if w.out, err = packet.Listen(ifi, packet.Raw, 0, nil); err != nil {
			w.close()
			return nil, translate(err)
		}
	}
	if err := w.widen(ifi, o.VLAN); err != nil {
		w.close()
		return nil, translate(err)
	}
	return w, nil
}

// widen makes the port take all groups, and frames of VLANs that the kernel
// doesn't know. It ends with the socket.
func (w *packetWire) widen(ifi *net.Interface, vlan uint16) error {
	if vlan != 0 {
		if err := w.in.SetPromiscuous(true); err != nil {
			return err
		}
	}
	rc, err := w.in.SyscallConn()
	if err != nil {
		return err
	}
	var opt error
	err = rc.Control(func(fd uintptr) {
		all := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_ALLMULTI}
		opt = unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &all)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) // better, not needed
	})
	return errors.Join(err, opt)
}

// receiveFilter passes IP packets to groups, of one VLAN, and of what this host
// sends only what isn't UDP: it sees other hosts' reports through a bridge, but
// takes no stream that goes out for one that comes.
func receiveFilter(vlan uint16, v4 bool) []bpf.Instruction {
	ethertype, to, mask, group, proto := uint32(0x86dd), uint32(24), uint32(0xff), uint32(0xff), uint32(6)
	if v4 {
		ethertype, to, mask, group, proto = 0x0800, 16, 0xf0, 0xe0, 9
	}
	const outgoing = 4 // PACKET_OUTGOING
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ethertype, SkipTrue: 12},
		// Without a tag it reads 0, which is also the tag that only tells
		// priority.
		bpf.LoadExtension{Num: bpf.ExtVLANTag},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xfff},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(vlan), SkipTrue: 9},
		bpf.LoadAbsolute{Off: to, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: group, SkipTrue: 6},
		bpf.LoadAbsolute{Off: proto, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protoUDP, SkipTrue: 3},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: outgoing, SkipTrue: 2},
		bpf.Jump{Skip: 0},
		bpf.RetConstant{Val: bufferSize},
		bpf.RetConstant{Val: 0},
	}
}

func (w *packetWire) receive(b []byte) (int, bool, error) {
	n, from, err := w.in.ReadFrom(b)
	if err != nil {
		return 0, false, translate(err)
	}
	a, ok := from.(*packet.Addr)
	return n, ok && a != nil && bytes.Equal(a.HardwareAddr, w.mac), nil
}

func (w *packetWire) send(b []byte) error {
	_, err := w.out.WriteTo(b, &packet.Addr{HardwareAddr: b[:6]})
	return translate(err)
}

func (w *packetWire) setDeadline(t time.Time) error { return w.in.SetReadDeadline(t) }

func (w *packetWire) drops() uint32 {
	s, err := w.in.Stats()
	if err != nil {
		return 0
	}
	return s.Drops
}

func (w *packetWire) close() {
	_ = w.in.Close()
	if w.out != nil {
		_ = w.out.Close()
	}
}

// translate names the errors that are promised.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrNotPermitted, err)
	case errors.Is(err, syscall.ENETDOWN), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("%w: %w", ErrInterfaceDown, err)
	}
	return err
}
