package netbox

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PHY is what the driver of a port says of its link.
type PHY struct {
	SpeedMbps  int // negotiated: 10, 100, 1000, 2500
	HalfDuplex bool
	// MaxMbps is the best that the port offers to the other end, PeerMaxMbps
	// the best that the other end has offered; 0: nothing is said.
	MaxMbps, PeerMaxMbps int
}

// Wire is a cable with a port at either end that says of its link what it is
// told to: of a Cable's end the kernel always says that it has 10 Gbit/s. It is
// for a LAN, not for measuring speeds: each frame goes through this program.
type Wire struct {
	a     *Host
	aName string
	ends  [2]*os.File
	pumps sync.WaitGroup
}

// Wire connects two hosts as Cable does. Close it, or what it carries stays
// with this process.
func (b *Box) Wire(a *Host, aName string, z *Host, zName string) (*Wire, error) {
	w := &Wire{a: a, aName: aName}
	for i, end := range []struct {
		host *Host
		name string
	}{{a, aName}, {z, zName}} {
		err := end.host.Do(func() (err error) {
			w.ends[i], err = openTAP(end.name)
			return err
		})
		if err == nil {
			err = end.host.Up(end.name)
		}
		if err != nil {
			err = fmt.Errorf("cannot connect %s on %s to %s on %s: %w", aName, a.name, zName, z.name, kernelError(err))
			return nil, errors.Join(err, w.closeEnds())
		}
	}
	w.pumps.Go(func() { pump(w.ends[1], w.ends[0]) })
	w.pumps.Go(func() { pump(w.ends[0], w.ends[1]) })
	return w, nil
}

// Set changes what the port of the first end says of its link.
func (w *Wire) Set(p PHY) error {
	if err := w.a.Do(func() error { return setPHY(w.aName, p) }); err != nil {
		return fmt.Errorf("cannot set what %s on %s says of its link: %w", w.aName, w.a.name, err)
	}
	return nil
}

// Plug gives the port of the first end its link, or takes it.
func (w *Wire) Plug(in bool) error {
	carrier := int32(0)
	if in {
		carrier = 1
	}
	conn, err := w.ends[0].SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot plug %s on %s: %w", w.aName, w.a.name, err)
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.TUNSETCARRIER, uintptr(unsafe.Pointer(&carrier))) //nolint:gosec // the kernel's interface
	})
	if err == nil && errno != 0 {
		err = errno
	}
	if err != nil {
		return fmt.Errorf("cannot plug %s on %s: %w", w.aName, w.a.name, err)
	}
	return nil
}

// Close takes the cable away, with both ports.
func (w *Wire) Close() error {
	err := w.closeEnds()
	w.pumps.Wait()
	return err
}

func (w *Wire) closeEnds() error {
	var problems []error
	for _, end := range w.ends {
		if end != nil {
			problems = append(problems, end.Close())
		}
	}
	return errors.Join(problems...)
}

// pump carries frames one way until an end is closed. One that the other side
// does not take, because that port is down, is lost.
func pump(to, from *os.File) {
	frame := make([]byte, 64<<10)
	for {
		n, err := from.Read(frame)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			if errors.Is(err, unix.EBADFD) || n < 0 {
				return // the interface is gone
			}
			continue
		}
		if _, err := to.Write(frame[:n]); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// openTAP makes a port whose frames come and go through a file.
func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd) //nolint:errcheck // it was not used
		return nil, fmt.Errorf("cannot make port %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// linkSettings is struct ethtool_link_settings of linux/ethtool.h, with bit
// maps of four words, as kernels have them today.
type linkSettings struct {
	cmd, speed                                         uint32
	duplex, port, phyAddress, autoneg, mdio, tpX, tpXC uint8
	words                                              int8
	_                                                  [32]uint8
	supported, advertised, peer                        [linkWords]uint32
}

const linkWords = 4

// setPHY sets the link settings of a port of the running thread's network.
func setPHY(name string, p PHY) error {
	s := linkSettings{cmd: unix.ETHTOOL_GLINKSETTINGS}
	if err := ethtool(name, &s); err != nil {
		return err
	}
	if s.words != -linkWords {
		return fmt.Errorf("%w: bit maps of %d words", ErrNoKernel, -s.words)
	}
	s = linkSettings{cmd: unix.ETHTOOL_SLINKSETTINGS, speed: uint32(p.SpeedMbps), duplex: 1, autoneg: 1, words: linkWords}
	if p.HalfDuplex {
		s.duplex = 0
	}
	modes(&s.supported, p.MaxMbps)
	modes(&s.advertised, p.MaxMbps)
	modes(&s.peer, p.PeerMaxMbps)
	return ethtool(name, &s)
}

// modes sets the modes of twisted pair, in full duplex, up to a speed.
func modes(bits *[linkWords]uint32, most int) {
	for _, mode := range [...]struct{ bit, mbps int }{{1, 10}, {3, 100}, {5, 1000}, {47, 2500}, {48, 5000}, {12, 10_000}} {
		if mode.mbps <= most {
			bits[mode.bit/32] |= 1 << (mode.bit % 32)
		}
	}
}

func ethtool(name string, s *linkSettings) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open socket: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written to it
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}{data: unsafe.Pointer(s)} //nolint:gosec // the kernel's interface
	copy(req.name[:len(req.name)-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 { //nolint:gosec // as above
		return &net.OpError{Op: "ethtool", Net: name, Err: errno}
	}
	return nil
}
