package isp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"ontagent/cmd/ontlab/netbox"
)

// NoRouter leaves the router out of what clients are told, or ends that.
func (d *DHCP) NoRouter(ctx context.Context, on bool) error {
	return d.set(ctx, func() { d.noRouter = on })
}

// Delay makes all answers late by d, also to those who renew; 0 ends it. What
// is on its way then gets lost. It needs nft, and a kernel with an egress hook
// and fwd in nf_tables (module nft_fwd_netdev).
func (d *DHCP) Delay(ctx context.Context, by time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fail := func(err error) error { return fmt.Errorf("cannot delay dhcp server %s: %w", d.options.Name, err) }
	if d.hold != nil {
		err := d.hold.stop(ctx)
		d.hold = nil
		if err != nil {
			return fail(err)
		}
	}
	if by <= 0 {
		return nil
	}
	hold, err := startDHCPHold(ctx, d.host, d.options, by)
	if err != nil {
		return fail(err)
	}
	d.hold = hold
	return nil
}

// dhcpHold keeps what a DHCP server sends for a while. The kernel diverts it to
// a link whose other end is read here; from here it goes out with a mark that
// lets it pass.
type dhcpHold struct {
	host    *netbox.Host
	name    string
	by      time.Duration
	taken   *packet.Conn // what was diverted
	out     *packet.Conn // the server's interface
	cancel  context.CancelFunc
	running sync.WaitGroup
}

const (
	dhcpHoldMark = 0x6c617465
	// etherTypeLocal is for experiments: a socket for sending gets nothing.
	etherTypeLocal = 0x88b5
	etherTypeIPv4  = 0x0800
)

func startDHCPHold(ctx context.Context, host *netbox.Host, o DHCPOptions, by time.Duration) (*dhcpHold, error) {
	h := &dhcpHold{host: host, name: fmt.Sprintf("%.10s-h", o.Name), by: by}
	in, out := h.name+"0", h.name+"1"
	if _, err := host.Run(ctx, "ip", "link", "add", in, "type", "veth", "peer", "name", out); err != nil {
		return nil, err
	}
	err := errors.Join(host.Up(in), host.Up(out), host.Do(func() error {
		var err error
		if h.taken, err = listenPackets(out, etherTypeIPv4, 0); err != nil {
			return err
		}
		h.out, err = listenPackets(o.Interface, etherTypeLocal, dhcpHoldMark)
		return err
	}))
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h.cancel = cancel
	if err == nil {
		h.running.Go(func() { h.run(life) })
		err = setRules(ctx, host, h.name, h.nothing()+fmt.Sprintf(`table netdev %s {
	chain answers {
		type filter hook egress device %q priority 0;
		meta mark %#x accept
		udp sport 67 fwd to %q
	}
}
`, h.table(), o.Interface, dhcpHoldMark, in))
	}
	if err != nil {
		return nil, errors.Join(err, h.stop(ctx))
	}
	return h, nil
}

// table is the name of the firewall's table, which is none with a dash.
func (h *dhcpHold) table() string { return fmt.Sprintf("hold_%x", h.name) }

// nothing removes the table, whether it is there or not.
func (h *dhcpHold) nothing() string {
	return fmt.Sprintf("add table netdev %[1]s\ndelete table netdev %[1]s\n", h.table())
}

// listenPackets opens a socket for frames of a kind at an interface; what is
// sent by it has the mark. It must be called inside the host.
func listenPackets(ifname string, kind, mark int) (*packet.Conn, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("cannot find interface %s: %w", ifname, err)
	}
	c, err := packet.Listen(ifi, packet.Raw, kind, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", ifname, err)
	}
	raw, err := c.SyscallConn()
	if err == nil && mark != 0 {
		var optErr error
		err = raw.Control(func(fd uintptr) {
			optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark)
		})
		err = errors.Join(err, optErr)
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("cannot mark what is sent on %s: %w", ifname, err)
	}
	return c, nil
}

func (h *dhcpHold) run(ctx context.Context) {
	for buffer := make([]byte, 2048); ; {
		n, _, err := h.taken.ReadFrom(buffer)
		if err != nil {
			if isTemporary(err) {
				continue
			}
			return
		}
		frame := append([]byte(nil), buffer[:n]...)
		if !withoutChecksum(frame) {
			continue
		}
		h.running.Go(func() {
			select {
			case <-ctx.Done():
			case <-time.After(h.by):
				_, _ = h.out.WriteTo(frame, &packet.Addr{HardwareAddr: frame[:6]}) // lost, as on any wire
			}
		})
	}
}

// withoutChecksum takes the checksum out of a UDP datagram of IPv4, which the
// kernel may have left to hardware, and says whether it is one.
func withoutChecksum(frame []byte) bool {
	const header = 14
	if len(frame) < header+20 || binary.BigEndian.Uint16(frame[12:]) != etherTypeIPv4 || frame[header]>>4 != 4 || frame[header+9] != unix.IPPROTO_UDP {
		return false
	}
	udp := header + int(frame[header]&15)*4
	if len(frame) < udp+8 {
		return false
	}
	frame[udp+6], frame[udp+7] = 0, 0
	return true
}

func (h *dhcpHold) stop(ctx context.Context) error {
	err := setRules(ctx, h.host, h.name, h.nothing())
	h.cancel()
	for _, c := range []*packet.Conn{h.taken, h.out} {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	h.running.Wait()
	return errors.Join(err, h.host.Remove(h.name+"0"))
}
