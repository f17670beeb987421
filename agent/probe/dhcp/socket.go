package dhcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// link is the wire of a real interface.
type link struct {
	conn *packet.Conn
	raw  syscall.RawConn
	to   packet.Addr
	oob  [64]byte
}

// openWire opens a packet socket, on the thread (and so in the network
// namespace) of its caller.
func openWire(ifi *net.Interface, o *Options) (*link, error) {
	conn, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter()})
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%w: %w", ErrNotPermitted, err)
	case err != nil:
		return nil, failure(err)
	}
	l := &link{conn: conn}
	if err := l.prepare(ifi, o); err != nil {
		l.close()
		return nil, failure(err)
	}
	return l, nil
}

func (l *link) prepare(ifi *net.Interface, o *Options) error {
	var err error
	if l.raw, err = l.conn.SyscallConn(); err != nil {
		return err
	}
	var set error
	if err := l.raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
		// Before Linux 4.20 our own frames are told by their address.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	}); err != nil {
		return err
	}
	if set != nil {
		return set
	}
	// A card that drops what is for other hosts, or for VLANs without a device,
	// must not.
	if o.VLAN != 0 || !bytes.Equal(o.MAC, ifi.HardwareAddr) {
		if err := l.conn.SetPromiscuous(true); err != nil {
			return err
		}
	}
	if o.Families&(V6|Routers) == 0 {
		return nil
	}
	// All nodes, and those whose address ends like ours (RFC 4291 §2.7.1).
	if err := l.conn.JoinGroup(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}); err != nil {
		return err
	}
	return l.conn.JoinGroup(net.HardwareAddr{0x33, 0x33, 0xff, o.MAC[3], o.MAC[4], o.MAC[5]})
}

func (l *link) send(frame []byte) error {
	l.to.HardwareAddr = frame[:6]
	if err := l.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		return err
	}
	_, err := l.conn.WriteTo(frame, &l.to)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errBusy
	}
	return failure(err)
}

func (l *link) receive(b []byte) (received, error) {
	var r received
	var n, oobn, flags int
	var from unix.Sockaddr
	var err error
	if waited := l.raw.Read(func(fd uintptr) bool {
		n, oobn, flags, from, err = unix.Recvmsg(int(fd), b, l.oob[:], unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	}); waited != nil {
		return r, waited
	}
	if err != nil {
		return r, failure(err)
	}
	r.n = n
	sender, ok := from.(*unix.SockaddrLinklayer)
	r.skip = !ok || sender.Pkttype == unix.PACKET_OUTGOING || flags&unix.MSG_TRUNC != 0
	r.auxiliary(l.oob[:oobn])
	return r, nil
}

// auxiliary reads the control message with what the kernel did to the frame:
// struct tpacket_auxdata of linux/if_packet.h.
func (r *received) auxiliary(oob []byte) {
	const tciAt, tpidAt, size = 16, 18, 20
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return
		}
		if oob = rest; h.Level != unix.SOL_PACKET || h.Type != unix.PACKET_AUXDATA || len(data) < size {
			continue
		}
		status := binary.NativeEndian.Uint32(data)
		r.unsummed = status&unix.TP_STATUS_CSUMNOTREADY != 0
		if status&unix.TP_STATUS_VLAN_VALID != 0 {
			r.tag = tag(binary.NativeEndian.Uint16(data[tciAt:]))
			if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 && binary.NativeEndian.Uint16(data[tpidAt:]) != etherVLAN {
				r.skip = true
			}
		}
	}
}

func (l *link) setDeadline(t time.Time) error { return l.conn.SetReadDeadline(t) }

// wake makes receive return; a failure means that it has no need to.
func (l *link) wake() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) }

// close ends the socket and with it its groups and promiscuity.
func (l *link) close() { _ = l.conn.Close() }

// filter lets through, with a tag in the frame or without, what is sent from
// and to the ports of DHCP, router advertisements and neighbour solicitations:
// the customer's traffic need not pass by us. It selects and checks nothing.
func filter() []bpf.RawInstruction {
	ins := filterAt(0)
	// What comes after the test for IPv6: is it a tag, then the same again.
	ins = append(ins, equal(etherVLAN, 0, 19))
	second := filterAt(vlanTag)
	second[8].Jf = 10 // neither: drop
	return append(ins, second...)
}

func filterAt(shift uint32) []bpf.RawInstruction {
	const accept = 0xffff
	return []bpf.RawInstruction{
		load(unix.BPF_H|unix.BPF_ABS, 12+shift),
		equal(etherIPv4, 0, 6),
		load(unix.BPF_B|unix.BPF_ABS, 23+shift),
		equal(protoUDP, 0, 15),
		{Op: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 14 + shift},
		load(unix.BPF_H|unix.BPF_IND, 16+shift),
		equal(serverPort4, 11, 0),
		equal(clientPort4, 10, 11),
		equal(etherIPv6, 0, 11), // else what follows all this
		load(unix.BPF_B|unix.BPF_ABS, 20+shift),
		equal(protoUDP, 0, 3),
		load(unix.BPF_H|unix.BPF_ABS, 56+shift),
		equal(clientPort6, 5, 0),
		equal(serverPort6, 4, 5),
		equal(protoICMPv6, 0, 4),
		load(unix.BPF_B|unix.BPF_ABS, 54+shift),
		equal(ndRouterAdvert, 1, 0),
		equal(ndNeighbourAsk, 0, 1),
		{Op: unix.BPF_RET | unix.BPF_K, K: accept},
		{Op: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

func load(mode uint16, at uint32) bpf.RawInstruction {
	return bpf.RawInstruction{Op: unix.BPF_LD | mode, K: at}
}

func equal(k uint32, yes, no uint8) bpf.RawInstruction {
	return bpf.RawInstruction{Op: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
}
