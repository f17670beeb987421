package multicast_test

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/probe/multicast"
)

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// igmp is an IP packet with a message of IGMP, its checksum put in.
func igmp(src, dst string, b ...byte) []byte {
	b[2], b[3] = 0, 0
	binary.BigEndian.PutUint16(b[2:], ^multicast.Sum(0, b))
	return ipPacket(netip.MustParseAddr(src), netip.MustParseAddr(dst), 2, 1, b)
}

// mld is the same of MLD.
func mld(src, dst string, b ...byte) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	b[2], b[3] = 0, 0
	binary.BigEndian.PutUint16(b[2:], ^multicast.Sum(multicast.Pseudo(s, d, len(b)), b))
	return ipPacket(s, d, 58, 1, b)
}

func bytes16(addr string, before, after []byte) []byte {
	return append(append(before, netip.MustParseAddr(addr).AsSlice()...), after...)
}

func TestMessages(t *testing.T) {
	group4, group6 := netip.MustParseAddr("239.1.2.3"), netip.MustParseAddr("ff1e::5")
	type want struct {
		kind    string
		version int
		group   netip.Addr
		delay   time.Duration
		members []netip.Addr
	}
	for _, tt := range []struct {
		name   string
		packet []byte
		want   want
	}{
		{"IGMPv1 query", igmp("192.0.2.1", "224.0.0.1", 0x11, 0, 0, 0, 0, 0, 0, 0), want{"query", 1, netip.Addr{}, 10 * time.Second, nil}},
		{"IGMPv2 query", igmp("192.0.2.1", "224.0.0.1", 0x11, 100, 0, 0, 0, 0, 0, 0), want{"query", 2, netip.Addr{}, 10 * time.Second, nil}},
		{"IGMPv2 query of a group", igmp("192.0.2.1", "239.1.2.3", 0x11, 10, 0, 0, 239, 1, 2, 3), want{"query", 2, group4, time.Second, nil}},
		{"IGMPv3 query", igmp("192.0.2.1", "224.0.0.1", 0x11, 20, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0), want{"query", 3, netip.Addr{}, 2 * time.Second, nil}},
		{"IGMPv3 query, long", igmp("192.0.2.1", "224.0.0.1", 0x11, 0x80, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0), want{"query", 3, netip.Addr{}, 12800 * time.Millisecond, nil}},
		{"IGMPv3 query, longest", igmp("192.0.2.1", "224.0.0.1", 0x11, 0xff, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0), want{"query", 3, netip.Addr{}, 3174400 * time.Millisecond, nil}},
		{"query of no version", igmp("192.0.2.1", "224.0.0.1", 0x11, 100, 0, 0, 0, 0, 0, 0, 0), want{}},
		{"IGMPv1 report", igmp("192.0.2.1", "239.1.2.3", 0x12, 0, 0, 0, 239, 1, 2, 3), want{"report", 1, netip.Addr{}, 0, []netip.Addr{group4}}},
		{"IGMPv2 report", igmp("192.0.2.1", "239.1.2.3", 0x16, 0, 0, 0, 239, 1, 2, 3), want{"report", 2, netip.Addr{}, 0, []netip.Addr{group4}}},
		{"IGMPv2 leave", igmp("192.0.2.1", "224.0.0.2", 0x17, 0, 0, 0, 239, 1, 2, 3), want{"leave", 2, group4, 0, nil}},
		{
			"IGMPv3 report", igmp("192.0.2.1", "224.0.0.22", 0x22, 0, 0, 0, 0, 0, 0, 4,
				2, 0, 0, 0, 239, 1, 2, 3, // exclude nothing
				3, 0, 0, 0, 239, 1, 2, 4, // include nothing: left
				6, 0, 0, 1, 239, 1, 2, 5, 10, 0, 0, 1, // block
				5, 1, 0, 1, 239, 1, 2, 6, 10, 0, 0, 1, 9, 9, 9, 9), // allow, auxiliary data
			want{"report", 3, netip.Addr{}, 0, []netip.Addr{group4, netip.MustParseAddr("239.1.2.6")}},
		},
		{"IGMPv3 report, cut", igmp("192.0.2.1", "224.0.0.22", 0x22, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 239, 1, 2, 3), want{}},
		{"IGMPv3 report, too many sources", igmp("192.0.2.1", "224.0.0.22", 0x22, 0, 0, 0, 0, 0, 0, 1, 2, 0, 255, 255, 239, 1, 2, 3), want{}},
		{"DVMRP", igmp("192.0.2.1", "224.0.0.4", 0x13, 0, 0, 0, 0, 0, 0, 0), want{}},
		{
			"MLDv1 query", mld("fe80::1", "ff02::1", bytes16("::", []byte{130, 0, 0, 0, 0x27, 0x10, 0, 0}, nil)...),
			want{"query", 2, netip.Addr{}, 10 * time.Second, nil},
		},
		{
			"MLDv2 query of a group", mld("fe80::1", "ff1e::5", bytes16("ff1e::5", []byte{130, 0, 0, 0, 0x03, 0xe8, 0, 0}, []byte{2, 125, 0, 0})...),
			want{"query", 3, group6, time.Second, nil},
		},
		{
			"MLDv2 query, long", mld("fe80::1", "ff02::1", bytes16("::", []byte{130, 0, 0, 0, 0x80, 0, 0, 0}, []byte{2, 125, 0, 0})...),
			want{"query", 3, netip.Addr{}, 32768 * time.Millisecond, nil},
		},
		{"MLD query of no version", mld("fe80::1", "ff02::1", bytes16("::", []byte{130, 0, 0, 0, 0, 1, 0, 0}, []byte{2})...), want{}},
		{"MLD query from afar", mld("2001:db8::1", "ff02::1", bytes16("::", []byte{130, 0, 0, 0, 0, 1, 0, 0}, nil)...), want{}},
		{"MLD query from nobody", mld("::", "ff02::1", bytes16("::", []byte{130, 0, 0, 0, 0, 1, 0, 0}, nil)...), want{}},
		{"MLDv1 report", mld("fe80::2", "ff1e::5", bytes16("ff1e::5", []byte{131, 0, 0, 0, 0, 0, 0, 0}, nil)...), want{"report", 2, netip.Addr{}, 0, []netip.Addr{group6}}},
		{"MLDv1 done", mld("fe80::2", "ff02::2", bytes16("ff1e::5", []byte{132, 0, 0, 0, 0, 0, 0, 0}, nil)...), want{"leave", 2, group6, 0, nil}},
		{
			"MLDv2 report", mld("::", "ff02::16", bytes16("ff1e::5", []byte{143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0}, nil)...),
			want{"report", 3, netip.Addr{}, 0, []netip.Addr{group6}},
		},
		{"echo", mld("fe80::2", "ff02::1", 128, 0, 0, 0, 0, 0, 0, 0), want{}},
		{"UDP", udpPacket(netip.MustParseAddr("10.0.0.1"), group4, 9, []byte{1}), want{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got want
			got.kind, got.version, got.group, got.delay, got.members = multicast.Control(tt.packet)
			if diff := cmp.Diff(tt.want, got, cmpAddr, cmp.AllowUnexported(want{})); diff != "" {
				t.Error(diff)
			}
			// Cut short, it is nothing: the IP header says how long it is.
			for n := range tt.packet {
				if kind, _, _, _, _ := multicast.Control(tt.packet[:n]); kind != "" {
					t.Fatalf("cut to %d of %d it is a %s", n, len(tt.packet), kind)
				}
			}
			// Each bit of the message itself is under a checksum.
			for i := 20; i < len(tt.packet) && tt.want.kind != ""; i++ {
				b := append([]byte(nil), tt.packet...)
				b[i] ^= 0x40
				if kind, _, _, _, _ := multicast.Control(b); kind != "" && b[0]>>4 == 4 {
					t.Fatalf("damaged at %d it is a %s", i, kind)
				}
			}
		})
	}
}

// Byte for byte, as RFC 2236, 3376, 2710 and 3810 draw them.
func TestReportOnTheWire(t *testing.T) {
	mac := [6]byte{2, 0, 0, 0, 0, 1}
	got := multicast.Join(3, mac, netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("239.1.2.3"), 45)
	want := []byte{
		0x01, 0x00, 0x5e, 0, 0, 22, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 45, 8, 0,
		0x46, 0xc0, 0, 40, 0, 0, 0x40, 0, 1, 2, 0x41, 0xf0, 192, 0, 2, 9, 224, 0, 0, 22, 0x94, 4, 0, 0,
		0x22, 0, 0xe8, 0xf9, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3, 0, 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = multicast.Join(2, mac, netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("239.129.2.3"), 0)
	if string(got[:14]) != "\x01\x00\x5e\x01\x02\x03\x02\x00\x00\x00\x00\x01\x08\x00" || len(got) != 60 || string(got[30:34]) != "\xef\x81\x02\x03" {
		t.Errorf("% x", got)
	}
	got = multicast.Join(2, mac, netip.MustParseAddr("fe80::9"), netip.MustParseAddr("ff1e::1:2:3"), 0)
	if string(got[:14]) != "\x33\x33\x00\x02\x00\x03\x02\x00\x00\x00\x00\x01\x86\xdd" || len(got) != 14+40+8+24 ||
		string(got[14:22]) != "\x60\x00\x00\x00\x00\x20\x00\x01" || string(got[54:62]) != "\x3a\x00\x05\x02\x00\x00\x01\x00" || got[62] != 131 {
		t.Errorf("% x", got)
	}
}

func FuzzControl(f *testing.F) {
	for _, group := range []string{"239.1.2.3", "ff1e::5"} {
		src := "fe80::1"
		if group[0] == '2' {
			src = "192.0.2.1"
		}
		for _, version := range []int{2, 3} {
			f.Add(multicast.Join(version, [6]byte{}, netip.MustParseAddr(src), netip.MustParseAddr(group), 0)[14:])
		}
	}
	f.Add(igmp("192.0.2.1", "224.0.0.1", 0x11, 0x80, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0))
	f.Add(mld("fe80::1", "ff1e::5", bytes16("ff1e::5", []byte{130, 0, 0, 0, 0x83, 0xe8, 0, 0}, []byte{2, 125, 0, 0})...))
	f.Add(udpPacket(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("239.1.2.3"), 9, rtpPayload(1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, version, group, delay, members := multicast.Control(b)
		if kind == "" {
			return
		}
		if version < 1 || version > 3 || delay < 0 || delay > 3*time.Hour || len(members) > len(b)/8 {
			t.Errorf("%s, version %d, group %v, %v, %d members", kind, version, group, delay, len(members))
		}
	})
}

func FuzzIGMPAndMLDBodies(f *testing.F) {
	f.Add(true, []byte{0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3})
	f.Add(false, bytes16("ff1e::5", []byte{143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0}, nil))
	f.Fuzz(func(t *testing.T, v4 bool, b []byte) {
		if len(b) < 4 || len(b) > 2000 {
			return
		}
		// With the right checksum, past which chance alone hardly gets.
		p := append([]byte(nil), b...)
		if v4 {
			p = igmp("192.0.2.1", "224.0.0.1", p...)
		} else {
			p = mld("fe80::1", "ff02::1", p...)
		}
		kind, version, _, delay, members := multicast.Control(p)
		if kind != "" && (version < 1 || version > 3 || delay < 0 || delay > 3*time.Hour || len(members) > len(b)/8) {
			t.Errorf("%s, version %d, %v, %d members", kind, version, delay, len(members))
		}
	})
}

func TestGroupsOfTheHost(t *testing.T) {
	b, err := os.ReadFile("testdata/linux-6.18-amd64-igmp6.txt")
	if err != nil {
		t.Fatal(err)
	}
	got := multicast.Groups(false, b)
	if len(got) < 3 || got[0] != netip.MustParseAddr("ff02::1") || got[1] != netip.MustParseAddr("ff01::1") {
		t.Errorf("got %v", got)
	}
	b, err = os.ReadFile("testdata/linux-6.18-amd64-igmp.txt")
	if err != nil {
		t.Fatal(err)
	}
	got = multicast.Groups(true, b)
	want := netip.MustParseAddr("224.0.0.1")
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		want = netip.MustParseAddr("1.0.0.224") // this file, read on another kind of machine
	}
	if len(got) != 2 || got[0] != want {
		t.Errorf("got %v", got)
	}
	for _, b := range []string{"", "\n", "\t", "\tzz0000E0 1", "\t010000E0E0 1", "a b c d", "1 lo ff02 1 2 3"} {
		if got := append(multicast.Groups(true, []byte(b)), multicast.Groups(false, []byte(b))...); len(got) != 0 {
			t.Errorf("%q: %v", b, got)
		}
	}
}
