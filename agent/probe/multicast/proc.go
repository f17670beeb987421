package multicast

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
)

// hostGroups returns the groups of which this host is a member, on whatever
// interface: which of them lead to the same network can't be told in general.
func hostGroups(v4 bool) []netip.Addr {
	// Of the thread, since others may be in other network namespaces.
	name, parse := "igmp6", parseIGMP6Groups
	if v4 {
		name, parse = "igmp", parseIGMPGroups
	}
	b, err := os.ReadFile("/proc/thread-self/net/" + name)
	if err != nil {
		b, err = os.ReadFile("/proc/net/" + name)
	}
	if err != nil {
		return nil // no such protocol in this kernel, so no member either
	}
	return parse(b)
}

// parseIGMPGroups reads /proc/net/igmp. Lines of groups are indented; the
// address is the hexadecimal number that its four bytes make on this machine.
func parseIGMPGroups(b []byte) []netip.Addr {
	var all []netip.Addr
	for line := range bytes.Lines(b) {
		if len(line) == 0 || line[0] != '\t' && line[0] != ' ' {
			continue
		}
		fields := bytes.Fields(line)
		var be, native [4]byte
		if len(fields) == 0 || len(fields[0]) != 8 {
			continue
		}
		if _, err := hex.Decode(be[:], fields[0]); err != nil {
			continue
		}
		binary.NativeEndian.PutUint32(native[:], binary.BigEndian.Uint32(be[:]))
		all = append(all, netip.AddrFrom4(native))
	}
	return all
}

// parseIGMP6Groups reads /proc/net/igmp6: index, interface, address, users, …
func parseIGMP6Groups(b []byte) []netip.Addr {
	var all []netip.Addr
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		var addr [16]byte
		if len(fields) < 4 || len(fields[2]) != 32 {
			continue
		}
		if _, err := hex.Decode(addr[:], fields[2]); err == nil {
			all = append(all, netip.AddrFrom16(addr))
		}
	}
	return all
}
