package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtool asks drivers through ioctls on a socket of its own. Every answer may
// be missing; missing means unknown.
type ethtool struct {
	// ioctl does SIOCETHTOOL: buf starts with the command and takes the answer.
	ioctl func(name string, buf []byte) error
	// wireless reports whether SIOCGIWNAME is understood.
	wireless func(name string) bool
	close    func()
}

// dialEthtool opens the socket for the ioctls.
func dialEthtool() (*ethtool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) { // no IPv4 in this kernel
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open socket for ethtool: %w", err)
	}
	return &ethtool{
		ioctl: func(name string, buf []byte) error {
			defer runtime.KeepAlive(buf)
			return ioctl(fd, unix.SIOCETHTOOL, name, unsafe.Pointer(unsafe.SliceData(buf))) //nolint:gosec // the kernel's interface
		},
		wireless: func(name string) bool { return ioctl(fd, siocgiwname, name, nil) == nil },
		close:    func() { _ = unix.Close(fd) },
	}, nil
}

// siocgiwname asks for the name of the wireless protocol; the answer is written
// where ifreq has its data.
const siocgiwname = 0x8b01

// ifreq is struct ifreq of the kernel's linux/if.h with ifr_data, and no
// shorter than struct iwreq of linux/wireless.h.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

// ioctl does one ioctl about the interface name. data must stay alive and be as
// long as the command asks for.
func ioctl(fd int, command uintptr, name string, data unsafe.Pointer) error {
	req := ifreq{data: data}
	if len(name) >= len(req.name) {
		return unix.ENODEV
	}
	copy(req.name[:], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), command, uintptr(unsafe.Pointer(&req))) //nolint:gosec // the kernel's interface
	if errno != 0 {
		return errno
	}
	return nil
}

// detail fills in what the drivers say about l.
func (c *Collector) detail(e *ethtool, o offloads, l *Link) {
	p := e.settings(l.Name)
	l.SpeedMegabits, l.Duplex, l.MaxMegabits, l.PeerMaxMegabits = p.megabits, p.duplex, p.max, p.peerMax
	l.Wireless = l.Type == "ether" && l.Kind == "" && (e.wireless(l.Name) || c.wirelessInSysfs(l.Name))
	o.set(l, l.Kind == "" && e.feature(l.Name, c.tcFeature(e, l.Name)))
}

// wirelessInSysfs finds wireless interfaces of kernels without the old wireless
// ioctls.
func (c *Collector) wirelessInSysfs(name string) bool {
	for _, entry := range []string{"phy80211", "wireless"} {
		if _, err := os.Stat(filepath.Join(c.sysRoot, "class/net", name, entry)); err == nil {
			return true
		}
	}
	return false
}

const (
	// struct ethtool_link_settings: 48 bytes, then three bit maps of as many
	// 32-bit words as the kernel says, at most 127.
	linkSettingsSize  = 48
	linkSettingsMax   = linkSettingsSize + 3*127*4
	linkSettingsWords = 15 // offset of link_mode_masks_nwords
	// struct ethtool_cmd.
	cmdSize = 44
)

// portSettings are what a driver says about a port; zero values for unknown: a
// link that is down, a virtual interface. Speeds are in Mbit/s.
type portSettings struct {
	megabits int
	duplex   string
	// max is the best the port offers to its peer, peerMax the best the peer
	// has offered.
	max, peerMax int
}

func (e *ethtool) settings(name string) portSettings {
	order := binary.NativeEndian
	buf := make([]byte, linkSettingsMax)
	order.PutUint32(buf, unix.ETHTOOL_GLINKSETTINGS)
	err := e.ioctl(name, buf)
	if err == nil {
		// The first answer is how many words the bit maps have, negated.
		words := int8(buf[linkSettingsWords])
		if words >= 0 {
			return portSettings{}
		}
		clear(buf)
		order.PutUint32(buf, unix.ETHTOOL_GLINKSETTINGS)
		buf[linkSettingsWords] = byte(-words)
		if e.ioctl(name, buf) != nil {
			return portSettings{}
		}
		var p portSettings
		p.megabits, p.duplex = parseSettings(order.Uint32(buf[4:]), buf[8])
		mapSize := 4 * int(-words)
		supported := buf[linkSettingsSize:][:mapSize]
		advertised := buf[linkSettingsSize+mapSize:][:mapSize]
		p.max = fastestMode(advertised)
		if p.max == 0 {
			p.max = fastestMode(supported)
		}
		p.peerMax = fastestMode(buf[linkSettingsSize+2*mapSize:][:mapSize])
		return p
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
		return portSettings{}
	}
	// Kernels before 4.6.
	buf = buf[:cmdSize]
	clear(buf)
	order.PutUint32(buf, unix.ETHTOOL_GSET)
	if e.ioctl(name, buf) != nil {
		return portSettings{}
	}
	var p portSettings
	p.megabits, p.duplex = parseSettings(uint32(order.Uint16(buf[12:]))|uint32(order.Uint16(buf[28:]))<<16, buf[14])
	p.max = fastestMode(buf[8:12])
	if p.max == 0 {
		p.max = fastestMode(buf[4:8])
	}
	p.peerMax = fastestMode(buf[32:36])
	return p
}

// fastestMode returns the greatest speed in Mbit/s in a bit map of link modes
// (enum ethtool_link_mode_bit_indices of linux/ethtool.h): those a gateway's
// ports have. 0 if none of them is set.
func fastestMode(bits []byte) (megabits int) {
	for _, mode := range []struct{ bit, megabits int }{
		{0, 10}, {1, 10}, // 10baseT half, full
		{2, 100}, {3, 100}, // 100baseT
		{4, 1000}, {5, 1000}, // 1000baseT
		{41, 1000},             // 1000baseX
		{15, 2500}, {47, 2500}, // 2500baseX, 2500baseT
		{48, 5000},                               // 5000baseT
		{12, 10_000}, {43, 10_000}, {44, 10_000}, // 10000baseT, SR, LR
	} {
		word := mode.bit / 32 * 4
		if word+4 <= len(bits) && binary.NativeEndian.Uint32(bits[word:])&(1<<(mode.bit%32)) != 0 {
			megabits = max(megabits, mode.megabits)
		}
	}
	return megabits
}

// parseSettings turns the kernel's numbers into ours. Drivers say "unknown" as
// 65535, 2^32-1 or 0.
func parseSettings(speed uint32, duplex byte) (megabits int, word string) {
	const fastest = 1_600_000 // Mbit/s; beyond it, it is no speed
	if speed != 0xffff && speed <= fastest {
		megabits = int(speed)
	}
	switch duplex {
	case 0:
		word = DuplexHalf
	case 1:
		word = DuplexFull
	}
	if megabits == 0 {
		word = "" // a duplex without a speed is what was left over
	}
	return megabits, word
}

// Values of Collector.tcBit that are no bit.
const (
	tcUnknown = -1 // not looked up yet
	tcAbsent  = -2 // the kernel has no such feature, or doesn't say
)

const (
	stringLength = 32 // ETH_GSTRING_LEN
	featureSet   = 4  // ETH_SS_FEATURES
	maxFeatures  = 1024
)

// tcFeature returns the bit of hw-tc-offload, which is the same for all
// interfaces of a kernel, and looks it up the first time.
func (c *Collector) tcFeature(e *ethtool, name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tcBit == tcUnknown {
		c.tcBit = e.featureBit(name, "hw-tc-offload")
	}
	return c.tcBit
}

// featureBit finds a feature by its name.
func (e *ethtool) featureBit(name, feature string) int {
	order := binary.NativeEndian
	info := make([]byte, 20) // struct ethtool_sset_info and one word
	order.PutUint32(info, unix.ETHTOOL_GSSET_INFO)
	order.PutUint64(info[8:], 1<<featureSet)
	if err := e.ioctl(name, info); errors.Is(err, unix.ENODEV) {
		return tcUnknown // gone; ask another
	} else if err != nil {
		return tcAbsent
	}
	n := order.Uint32(info[16:])
	if n == 0 || n > maxFeatures || order.Uint64(info[8:]) == 0 {
		return tcAbsent
	}
	names := make([]byte, 12+n*stringLength) // struct ethtool_gstrings
	order.PutUint32(names, unix.ETHTOOL_GSTRINGS)
	order.PutUint32(names[4:], featureSet)
	order.PutUint32(names[8:], n)
	if e.ioctl(name, names) != nil {
		return tcAbsent
	}
	for i := range int(n) {
		s := names[12+i*stringLength:][:stringLength]
		if bytes.HasPrefix(s, []byte(feature+"\x00")) {
			return i
		}
	}
	return tcAbsent
}

// feature reports whether a feature is on.
func (e *ethtool) feature(name string, bit int) bool {
	if bit < 0 {
		return false
	}
	const block = 16 // struct ethtool_get_features_block: four words
	order := binary.NativeEndian
	blocks := bit/32 + 1
	buf := make([]byte, 8+maxFeatures/32*block) // struct ethtool_gfeatures
	order.PutUint32(buf, unix.ETHTOOL_GFEATURES)
	order.PutUint32(buf[4:], maxFeatures/32)
	if e.ioctl(name, buf) != nil || int(order.Uint32(buf[4:])) < blocks {
		return false
	}
	active := order.Uint32(buf[8+bit/32*block+8:])
	return active&(1<<(bit%32)) != 0
}
