package dhcp_test

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"

	"ontagent/agent/probe/dhcp"
)

var (
	serverMAC = dhcp.MAC{0x02, 0, 0, 0, 0, 0x01}
	clientMAC = dhcp.MAC{0x02, 0, 0, 0, 0, 0x41}
	server4   = netip.MustParseAddr("10.41.0.1")
	all4      = netip.MustParseAddr("255.255.255.255")
	server6   = netip.MustParseAddr("fe80::1")
	client6   = dhcp.LinkLocal(clientMAC)
)

func toClient4(t dhcp.Tag, payload []byte) *dhcp.Datagram {
	return dhcp.Packet(serverMAC, dhcp.MAC{255, 255, 255, 255, 255, 255}, t, server4, all4, 64, 67, 68, payload)
}

func toClient6(t dhcp.Tag, payload []byte) *dhcp.Datagram {
	return dhcp.Packet(serverMAC, clientMAC, t, server6, client6, 64, 547, 546, payload)
}

func icmp(t dhcp.Tag, payload []byte) *dhcp.Datagram {
	return dhcp.Packet(serverMAC, clientMAC, t, server6, client6, 255, 0, 0, payload)
}

func TestLinkLocal(t *testing.T) {
	if got, want := client6, netip.MustParseAddr("fe80::ff:fe00:41"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFrameThereAndBack(t *testing.T) {
	filter := newFilter(t)
	for name, p := range map[string]*dhcp.Datagram{
		"v4": toClient4(0, []byte("some words")), "v4 odd, tagged": toClient4(dhcp.NewTag(41, 5), []byte("odd")),
		"v6": toClient6(0, []byte("some words")), "v6 odd, tagged": toClient6(dhcp.NewTag(4094, 7), []byte("odd")),
		"icmp": icmp(0, []byte{134, 0, 0, 0, 9}), "icmp tagged": icmp(dhcp.NewTag(1, 0), []byte{135, 0, 0, 0}),
		"empty": toClient4(0, nil),
	} {
		frame := p.Marshal()
		got, err := dhcp.Parse(frame, 0, false)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again := got.Marshal(); !bytes.Equal(again, frame) {
			t.Errorf("%s: %x became %x", name, frame, again)
		}
		if !filter(frame) {
			t.Errorf("%s: does not pass the filter", name)
		}
		// Cut anywhere, it is refused and harms nothing.
		for n := range frame {
			if _, err := dhcp.Parse(frame[:n:n], 0, false); err == nil {
				t.Errorf("%s: %d of %d bytes are taken", name, n, len(frame))
			}
		}
		// As is any flipped bit, above Ethernet and outside what no sum covers.
		flips := 14
		if _, _, tag := p.Ethernet(); tag != 0 {
			flips += 4
		}
		for i := flips; i < len(frame); i++ {
			if frame[flips]>>4 == 6 && i < flips+8 { // IPv6 has no sum of its own header
				continue
			}
			broken := bytes.Clone(frame)
			broken[i] ^= 0x10
			if _, err := dhcp.Parse(broken, 0, false); err == nil {
				t.Errorf("%s: taken with byte %d changed", name, i)
			}
		}
	}
}

func TestFrameTags(t *testing.T) {
	tag := dhcp.NewTag(41, 5)
	plain := toClient4(0, []byte("words")).Marshal()
	got, err := dhcp.Parse(plain, tag, false)
	if _, _, is := got.Ethernet(); err != nil || is.VLAN() != 41 {
		t.Errorf("tag in the auxiliary data: %v, %v", is, err)
	}
	tagged := toClient4(tag, []byte("words")).Marshal()
	if _, err := dhcp.Parse(tagged, dhcp.NewTag(7, 0), false); !errors.Is(err, dhcp.ErrOther) {
		t.Errorf("a tag in a tag: %v", err)
	}
}

func TestFrameUnsummed(t *testing.T) {
	for _, p := range []*dhcp.Datagram{toClient4(0, []byte("words")), toClient6(0, []byte("words")), icmp(0, []byte{134, 0, 0, 0})} {
		frame := p.Marshal()
		frame[len(frame)-1] ^= 1
		if _, err := dhcp.Parse(frame, 0, false); !errors.Is(err, dhcp.ErrFrame) {
			t.Errorf("a wrong sum: %v", err)
		}
		if _, err := dhcp.Parse(frame, 0, true); err != nil {
			t.Errorf("a sum left to hardware: %v", err)
		}
	}
	// No sum at all is allowed in UDP over IPv4 only.
	frame := toClient4(0, []byte("words")).Marshal()
	frame[14+20+6], frame[14+20+7] = 0, 0
	if _, err := dhcp.Parse(frame, 0, false); err != nil {
		t.Errorf("v4 without a sum: %v", err)
	}
	frame = toClient6(0, []byte("words")).Marshal()
	frame[14+40+6], frame[14+40+7] = 0, 0
	if _, err := dhcp.Parse(frame, 0, false); !errors.Is(err, dhcp.ErrFrame) {
		t.Errorf("v6 without a sum: %v", err)
	}
}

// newFilter runs the socket's filter without a kernel.
func newFilter(tb testing.TB) func(frame []byte) bool {
	tb.Helper()
	ins, ok := bpf.Disassemble(dhcp.Filter())
	if !ok {
		tb.Fatal("the filter has unknown instructions")
	}
	vm, err := bpf.NewVM(ins)
	if err != nil {
		tb.Fatal(err)
	}
	return func(frame []byte) bool {
		n, err := vm.Run(frame)
		return err == nil && n > 0
	}
}

func TestFilterKeepsOut(t *testing.T) {
	filter := newFilter(t)
	for _, tag := range []dhcp.Tag{0, dhcp.NewTag(41, 0)} {
		udp4 := dhcp.Packet(serverMAC, clientMAC, tag, server4, all4, 64, 67, 53, []byte("words")).Marshal()
		udp6 := dhcp.Packet(serverMAC, clientMAC, tag, server6, client6, 64, 547, 443, []byte("words")).Marshal()
		echo := icmp(tag, []byte{128, 0, 0, 0}).Marshal()
		tcp := toClient4(tag, []byte("words")).Marshal()
		tcp[len(tcp)-5-8-20+9] = 6
		arp := toClient4(tag, []byte("words")).Marshal()
		arp[len(arp)-5-8-20-1] = 6
		for name, frame := range map[string][]byte{"udp4": udp4, "udp6": udp6, "echo": echo, "tcp": tcp, "arp": arp, "short": {1, 2, 3}, "empty": nil} {
			if filter(frame) {
				t.Errorf("%s passes the filter (tag %d)", name, tag)
			}
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, tag := range []dhcp.Tag{0, dhcp.NewTag(41, 5)} {
		f.Add(toClient4(tag, []byte("some words")).Marshal(), uint16(0), false)
		f.Add(toClient6(tag, []byte("words")).Marshal(), uint16(tag), true)
		f.Add(icmp(tag, []byte{134, 0, 0, 0}).Marshal(), uint16(0), false)
	}
	filter := newFilter(f)
	f.Fuzz(func(t *testing.T, frame []byte, stripped uint16, unsummed bool) {
		p, err := dhcp.Parse(frame, dhcp.Tag(stripped), unsummed)
		if err != nil {
			return
		}
		src, dst, _, to, payload := p.Parts()
		if src.Is4() != dst.Is4() || len(payload) > len(frame) {
			t.Fatalf("%x: %+v", frame, p)
		}
		// What is for us passes the filter. A datagram with a header of more
		// than 20 bytes may, as the filter reads the length.
		if (src.Is4() && to == 68 || !src.Is4() && to == 546) && !filter(frame) {
			t.Fatalf("%x does not pass the filter", frame)
		}
		// Written again (without IP options and padding) it says the same.
		again, err := dhcp.Parse(p.Marshal(), 0, false)
		if err != nil {
			t.Fatalf("%x: %+v: %v", frame, p, err)
		}
		src2, dst2, _, to2, payload2 := again.Parts()
		// The sum of ICMPv6 is in the payload, and may have been left out.
		if p.Marshal(); src2 != src || dst2 != dst || to2 != to || len(payload2) != len(payload) {
			t.Fatalf("%+v became %+v", p, again)
		}
	})
}
