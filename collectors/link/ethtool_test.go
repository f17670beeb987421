package link_test

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"ontagent/collectors/link"
)

// driver answers ethtool ioctls.
type driver struct {
	linkSettings func(buf []byte) error // nil: not supported
	cmd          func(buf []byte) error // nil: not supported
	features     []string               // nil: no string sets
	active       map[int]bool
	calls        map[uint32]int
}

func (d *driver) ioctl(_ string, buf []byte) error {
	o := binary.NativeEndian
	command := o.Uint32(buf)
	if d.calls == nil {
		d.calls = map[uint32]int{}
	}
	d.calls[command]++
	call := func(f func([]byte) error) error {
		if f == nil {
			return unix.EOPNOTSUPP
		}
		return f(buf)
	}
	switch command {
	case unix.ETHTOOL_GLINKSETTINGS:
		return call(d.linkSettings)
	case unix.ETHTOOL_GSET:
		return call(d.cmd)
	case unix.ETHTOOL_GSSET_INFO:
		if d.features == nil {
			return unix.EOPNOTSUPP
		}
		o.PutUint32(buf[16:], uint32(len(d.features)))
	case unix.ETHTOOL_GSTRINGS:
		for i, s := range d.features {
			copy(buf[12+32*i:], s)
		}
	case unix.ETHTOOL_GFEATURES:
		blocks := (len(d.features) + 31) / 32
		o.PutUint32(buf[4:], uint32(blocks))
		for i := range d.active {
			at := buf[8+i/32*16+8:]
			o.PutUint32(at, o.Uint32(at)|1<<(i%32))
		}
	default:
		return unix.EOPNOTSUPP
	}
	return nil
}

// linkSettings answers like a kernel whose bit maps have four words.
func linkSettings(speed uint32, duplex byte) func([]byte) error {
	return func(buf []byte) error {
		words := int8(buf[15])
		clear(buf[4:])
		if words != 4 {
			buf[15] = 0xfc // -4
			return nil
		}
		binary.NativeEndian.PutUint32(buf[4:], speed)
		buf[8] = duplex
		buf[15] = 4
		return nil
	}
}

// cmd answers the way of old kernels.
func cmd(speed uint32, duplex byte) func([]byte) error {
	return func(buf []byte) error {
		binary.NativeEndian.PutUint16(buf[12:], uint16(speed))
		binary.NativeEndian.PutUint16(buf[28:], uint16(speed>>16))
		buf[14] = duplex
		return nil
	}
}

func fails(errno unix.Errno) func([]byte) error { return func([]byte) error { return errno } }

func TestSettings(t *testing.T) {
	tests := []struct {
		name   string
		driver driver
		speed  int
		duplex string
	}{
		{name: "Gigabit", driver: driver{linkSettings: linkSettings(1000, 1)}, speed: 1000, duplex: "full"},
		{name: "FourWires", driver: driver{linkSettings: linkSettings(100, 1)}, speed: 100, duplex: "full"},
		{name: "Half", driver: driver{linkSettings: linkSettings(10, 0)}, speed: 10, duplex: "half"},
		{name: "Fast", driver: driver{linkSettings: linkSettings(100_000, 1)}, speed: 100_000, duplex: "full"},
		{name: "Down", driver: driver{linkSettings: linkSettings(0xffffffff, 0xff)}},
		{name: "DuplexLeftOver", driver: driver{linkSettings: linkSettings(0xffffffff, 1)}},
		{name: "SixteenBitUnknown", driver: driver{linkSettings: linkSettings(0xffff, 0xff)}},
		{name: "Absurd", driver: driver{linkSettings: linkSettings(0x7fffffff, 1)}},
		{name: "NoHandshake", driver: driver{linkSettings: func([]byte) error { return nil }}},
		{name: "OldKernel", driver: driver{cmd: cmd(1000, 1)}, speed: 1000, duplex: "full"},
		{name: "OldKernelFast", driver: driver{cmd: cmd(100_000, 1)}, speed: 100_000, duplex: "full"},
		{name: "OldKernelDown", driver: driver{cmd: cmd(0xffffffff, 0xff)}},
		{name: "OldKernelDown16", driver: driver{cmd: cmd(0xffff, 0xff)}},
		{name: "OldKernelInvalid", driver: driver{linkSettings: fails(unix.EINVAL), cmd: cmd(100, 0)}, speed: 100, duplex: "half"},
		{name: "Unsupported", driver: driver{}},
		{name: "Gone", driver: driver{linkSettings: fails(unix.ENODEV), cmd: cmd(1000, 1)}},
		{name: "NotPermitted", driver: driver{linkSettings: fails(unix.EPERM), cmd: fails(unix.EPERM)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			speed, duplex := link.NewEthtool(tt.driver.ioctl).Settings("eth0")
			if speed != tt.speed || duplex != tt.duplex {
				t.Errorf("%d Mbit/s %q, want %d %q", speed, duplex, tt.speed, tt.duplex)
			}
		})
	}
}

func TestOffload(t *testing.T) {
	names := make([]string, 40)
	for i := range names {
		names[i] = "rx-something"
	}
	names[36] = "hw-tc-offload"
	hw, virtual := link.Link{Name: "eth0", Type: "ether"}, link.Link{Name: "v", Type: "ether", Kind: "veth"}
	tests := []struct {
		name   string
		driver driver
		link   link.Link
		want   string
	}{
		{name: "On", driver: driver{features: names, active: map[int]bool{36: true}}, link: hw, want: link.OffloadTC},
		{name: "Off", driver: driver{features: names, active: map[int]bool{35: true, 4: true}}, link: hw, want: link.OffloadUnknown},
		{name: "NoSuchFeature", driver: driver{features: names[:36], active: map[int]bool{4: true}}, link: hw, want: link.OffloadUnknown},
		{name: "PrefixIsNotIt", driver: driver{features: []string{"hw-tc-offload-x"}, active: map[int]bool{0: true}}, link: hw, want: link.OffloadUnknown},
		{name: "NoStringSets", driver: driver{}, link: hw, want: link.OffloadUnknown},
		{name: "Virtual", driver: driver{features: names, active: map[int]bool{36: true}}, link: virtual, want: link.OffloadUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := link.New(link.Options{SysRoot: t.TempDir()})
			e := link.NewEthtool(tt.driver.ioctl)
			for range 3 {
				if got := c.OffloadOf(e, tt.link); got != tt.want {
					t.Errorf("%q, want %q", got, tt.want)
				}
			}
			if n := tt.driver.calls[unix.ETHTOOL_GSSET_INFO]; n > 1 {
				t.Errorf("the number of the feature was looked up %d times", n)
			}
		})
	}
}

func TestOffloadWithAnAbsurdNumberOfFeatures(t *testing.T) {
	c := link.New(link.Options{SysRoot: t.TempDir()})
	e := link.NewEthtool(func(_ string, buf []byte) error {
		for i := 4; i < len(buf); i++ {
			buf[i] = 0xff
		}
		return nil
	})
	if got := c.OffloadOf(e, link.Link{Name: "eth0", Type: "ether"}); got != link.OffloadUnknown {
		t.Errorf("%q", got)
	}
}

// offering answers with link modes set beside a gigabit link.
func offering(supported, advertised, peer []int) func([]byte) error {
	answer := linkSettings(100, 1)
	return func(buf []byte) error {
		err := answer(buf)
		if buf[15] != 4 {
			return err
		}
		for i, modes := range [][]int{supported, advertised, peer} {
			for _, bit := range modes {
				at := buf[48+16*i+bit/32*4:]
				binary.NativeEndian.PutUint32(at, binary.NativeEndian.Uint32(at)|1<<(bit%32))
			}
		}
		return err
	}
}

func TestOffers(t *testing.T) {
	tests := []struct {
		name      string
		driver    driver
		own, peer int
	}{
		{name: "FourWires", driver: driver{linkSettings: offering([]int{1, 3, 5}, []int{1, 3, 5}, []int{3, 5})}, own: 1000, peer: 1000},
		{name: "OldPC", driver: driver{linkSettings: offering([]int{3, 5}, []int{3, 5}, []int{1, 3})}, own: 1000, peer: 100},
		{name: "PortHeldTo100", driver: driver{linkSettings: offering([]int{3, 5}, []int{3}, []int{3, 5})}, own: 100, peer: 1000},
		{name: "NotAdvertised", driver: driver{linkSettings: offering([]int{5, 47}, nil, nil)}, own: 2500},
		{name: "UnknownModes", driver: driver{linkSettings: offering([]int{100}, []int{101}, []int{102})}},
		{name: "NothingSaid", driver: driver{linkSettings: linkSettings(100, 1)}},
		{name: "OldKernel", driver: driver{cmd: func(buf []byte) error {
			binary.NativeEndian.PutUint32(buf[4:], 1<<5)
			binary.NativeEndian.PutUint32(buf[32:], 1<<3)
			return cmd(100, 1)(buf)
		}}, own: 1000, peer: 100},
		{name: "Unsupported", driver: driver{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			own, peer := link.NewEthtool(tt.driver.ioctl).Offers("eth0")
			if own != tt.own || peer != tt.peer {
				t.Errorf("own %d, peer %d, want %d and %d", own, peer, tt.own, tt.peer)
			}
		})
	}
}
