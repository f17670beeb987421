package multicast

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"strings"
)

// hostGroups returns the groups of which this host is a member, on whatever
// interface: which of them lead to the same network can't be told in general.
func hostGroups(v4 bool) []netip.Addr {
	name := "/net/igmp6"
	if v4 {
		name = "/net/igmp"
	}
	// Of the thread, since others may be in other network namespaces.
	b, err := os.ReadFile("/proc/thread-self" + name)
	if err != nil {
		b, _ = os.ReadFile("/proc" + name) // none: no such protocol in this kernel, so no member either
	}
	return parseGroups(string(b), v4)
}

// parseGroups reads /proc/net/igmp or igmp6. In the former, groups have lines of
// their own that are indented, and an address is the hexadecimal number that its
// four bytes make on this machine; in the latter it is the third field.
func parseGroups(text string, v4 bool) []netip.Addr {
	var all []netip.Addr
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		fields := strings.Fields(line)
		field, digits := 2, 32
		if v4 {
			field, digits = 0, 8
			if line == "" || line[0] != '\t' && line[0] != ' ' {
				continue
			}
		}
		if len(fields) < field+2 || len(fields[field]) != digits {
			continue
		}
		b, err := hex.DecodeString(fields[field])
		if err != nil {
			continue
		}
		if v4 {
			binary.NativeEndian.PutUint32(b, binary.BigEndian.Uint32(b))
		}
		addr, _ := netip.AddrFromSlice(b)
		all = append(all, addr)
	}
	return all
}
