package cable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// port is a look at a port.
type port struct {
	settings
	carrier      bool
	crc, changes uint64 // running totals
	crcKnown     bool
	changesKnown bool
}

// settings are what a driver says about a port; zero for unknown. Speeds are in
// Mbit/s.
type settings struct {
	megabits          int
	duplex            string
	autoneg           bool
	localMax, peerMax int // offered
}

func (h host) read(name string) (port, error) {
	if name == "" || len(name) >= unix.IFNAMSIZ || strings.ContainsAny(name, "/") || name[0] == '.' {
		return port{}, ErrNoInterface
	}
	dir := filepath.Join(h.sys, "class/net", name)
	b, err := os.ReadFile(filepath.Join(dir, "carrier"))
	switch {
	case errors.Is(err, syscall.EINVAL):
		return port{}, ErrInterfaceDown
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENODEV):
		return port{}, ErrNoInterface
	case err != nil:
		return port{}, fmt.Errorf("cannot read its state: %w", err)
	}
	p := port{carrier: string(bytes.TrimSpace(b)) == "1"}
	p.crc, p.crcKnown = number(filepath.Join(dir, "statistics/rx_crc_errors"))
	p.changes, p.changesKnown = number(filepath.Join(dir, "carrier_changes"))
	// What drivers say of a link that is down is left over.
	if p.settings, err = h.settings(name); err != nil || !p.carrier {
		p.megabits, p.duplex, p.peerMax = 0, "", 0
	}
	if errors.Is(err, syscall.ENODEV) {
		return port{}, ErrNoInterface
	}
	return p, nil
}

func number(file string) (uint64, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	return n, err == nil
}

// ifreq is struct ifreq of linux/if.h with ifr_data.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [24 - unsafe.Sizeof(uintptr(0))]byte
}

const (
	// struct ethtool_link_settings: 48 bytes, then three bit maps of as many
	// 32-bit words as the kernel says, at most 127.
	settingsSize  = 48
	settingsMax   = settingsSize + 3*127*4
	settingsWords = 15 // offset of link_mode_masks_nwords
)

// readSettings asks the driver by ETHTOOL_GLINKSETTINGS, which is in all kernels
// since 4.6, those without ethtool netlink included.
func readSettings(name string) (settings, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return settings{}, err
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, settingsMax)
	var words int8
	for range 2 { // the first answer is how many words there are, negated
		clear(buf)
		binary.NativeEndian.PutUint32(buf, unix.ETHTOOL_GLINKSETTINGS)
		buf[settingsWords] = byte(-words)
		req := ifreq{data: unsafe.Pointer(unsafe.SliceData(buf))} //nolint:gosec // the kernel's interface
		copy(req.name[:unix.IFNAMSIZ-1], name)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))) //nolint:gosec // as above
		runtime.KeepAlive(buf)
		if errno != 0 {
			return settings{}, errno
		}
		words = int8(buf[settingsWords])
	}
	return parseSettings(buf), nil
}

// parseSettings reads struct ethtool_link_settings of linux/ethtool.h; what it
// can't make sense of is unknown.
func parseSettings(b []byte) settings {
	if len(b) < settingsSize {
		return settings{}
	}
	var s settings
	const fastest = 1_600_000 // beyond it, it is no speed; drivers say 2^16-1 and 2^32-1 for unknown
	if speed := binary.NativeEndian.Uint32(b[4:]); speed != 0xffff && speed <= fastest {
		s.megabits = int(speed)
	}
	if s.megabits > 0 && b[8] == 0 {
		s.duplex = "half"
	}
	if s.megabits > 0 && b[8] == 1 {
		s.duplex = "full"
	}
	s.autoneg = b[11] == 1
	size := 4 * int(int8(b[settingsWords]))
	if size <= 0 || settingsSize+3*size > len(b) {
		return s
	}
	maps := b[settingsSize:]
	if s.localMax = fastestMode(maps[size : 2*size]); s.localMax == 0 {
		s.localMax = fastestMode(maps[:size]) // offers nothing: fixed to something it supports
	}
	s.peerMax = fastestMode(maps[2*size : 3*size])
	return s
}

// fastestMode returns the greatest speed in a bit map of link modes (enum
// ethtool_link_mode_bit_indices of linux/ethtool.h) that ports with eight wires
// have. 0 if there is none.
func fastestMode(bits []byte) (megabits int) {
	for _, mode := range [...]struct{ bit, megabits int }{
		{0, 10}, {1, 10}, // 10baseT half, full
		{2, 100}, {3, 100}, // 100baseT
		{4, 1000}, {5, 1000}, // 1000baseT
		{47, 2500}, {48, 5000}, {12, 10_000}, // 2500, 5000, 10000baseT
	} {
		word := mode.bit / 32 * 4
		if word+4 <= len(bits) && binary.NativeEndian.Uint32(bits[word:])&(1<<(mode.bit%32)) != 0 {
			megabits = max(megabits, mode.megabits)
		}
	}
	return megabits
}
