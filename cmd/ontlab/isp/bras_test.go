package isp

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ontagent/cmd/ontlab/netbox"
)

// discoverySeeds are frames: an offer by Debian's pppoe-server as it was seen,
// and variations.
func discoverySeeds() [][]byte {
	offer := discovery{
		dst: net.HardwareAddr{0x0a, 0x42, 0xd2, 0x2a, 0x88, 0x6e}, src: net.HardwareAddr{0xce, 0xd7, 0x7d, 0x42, 0x47, 0x33}, code: codePADO,
		tags: appendTag(appendTag(appendTag(nil, tagACName, []byte("FX")), tagServiceName, nil), tagHostUniq, []byte{0xae, 0, 0, 0}),
	}.bytes()
	padded := append(bytes.Clone(offer), make([]byte, 30)...) // to Ethernet's least length
	longer := bytes.Clone(offer)
	longer[19]++
	return [][]byte{offer, padded, longer, offer[:discoveryHeader], nil}
}

func TestBRASDiscoveryFrames(t *testing.T) {
	seeds := discoverySeeds()
	for _, frame := range seeds[:2] {
		d, err := parseDiscovery(frame)
		if err != nil || d.code != codePADO || !bytes.Equal(d.bytes(), seeds[0]) {
			t.Errorf("%x: %+v, %v", frame, d, err)
		}
		if name, ok := d.tag(tagACName); !ok || string(name) != "FX" {
			t.Errorf("name %q, %v", name, ok)
		}
		if name, ok := d.tag(tagServiceName); !ok || len(name) != 0 {
			t.Errorf("service %q, %v", name, ok)
		}
		if _, ok := d.tag(0x0104); ok {
			t.Error("a cookie that is not there")
		}
	}
	for n := range len(seeds[0]) {
		if d, err := parseDiscovery(seeds[0][:n]); err == nil {
			t.Errorf("cut after %d bytes: %+v", n, d)
		}
	}
	for what, at := range map[string]int{"ethertype": 13, "version": 14, "length": 19} {
		broken := bytes.Clone(seeds[0])
		broken[at]++
		if d, err := parseDiscovery(broken); err == nil {
			t.Errorf("wrong %s: %+v", what, d)
		}
	}
}

func TestBRASRefusals(t *testing.T) {
	client, ac := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	asked := discovery{
		dst: net.HardwareAddr{255, 255, 255, 255, 255, 255}, src: client, code: codePADI,
		tags: appendTag(appendTag(nil, tagServiceName, []byte("tv")), tagHostUniq, []byte{1, 2}),
	}
	for code, want := range map[byte]byte{codePADI: codePADO, codePADR: codePADS} {
		asked.code = code
		d := asked.refusal(ac, "FX", DiscoveryError{Tag: GenericError, Text: "full"})
		if d.code != want || d.session != 0 || !bytes.Equal(d.dst, client) || !bytes.Equal(d.src, ac) {
			t.Errorf("%+v", d)
		}
		for kind, value := range map[uint16]string{tagServiceName: "tv", tagHostUniq: "\x01\x02", uint16(GenericError): "full"} {
			if got, _ := d.tag(kind); string(got) != value {
				t.Errorf("tag %#x is %q, want %q", kind, got, value)
			}
		}
		if _, named := d.tag(tagACName); named != (want == codePADO) {
			t.Errorf("code %#x: named %v", want, named)
		}
	}
	long := &DiscoveryError{Tag: GenericError, Text: strings.Repeat("x", 2000)}
	if d := asked.refusal(ac, "FX", *long.clone()); len(d.bytes()) > 1514 {
		t.Errorf("a frame of %d bytes", len(d.bytes()))
	}
}

func FuzzBRASDiscovery(f *testing.F) {
	for _, s := range discoverySeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		d, err := parseDiscovery(frame)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(frame, d.bytes()) {
			t.Errorf("%x became %x", frame, d.bytes())
		}
		for _, kind := range []uint16{tagServiceName, tagACName, tagHostUniq, uint16(GenericError)} {
			if value, _ := d.tag(kind); len(value) > len(d.tags) {
				t.Errorf("tag %#x has %d bytes of %d", kind, len(value), len(d.tags))
			}
		}
	})
}

func TestBRASKernelSessions(t *testing.T) {
	id := func(n uint16) string { return fmt.Sprintf("%08X", networkOrder(n)) }
	got := parsePPPoESessions("Id       Address              Device\n" +
		id(1) + " 02:00:00:00:00:01    w0.41\n" + id(0x1234) + " 02:00:00:00:00:02    ac2\nnonsense\n00012345 02:00:00:00:00:02 x\nzz 02:00:00:00:00:02 x\n")
	if len(got) != 2 || got[0].id != 1 || got[1].id != 0x1234 || got[0].device != "w0.41" || got[1].peer.String() != "02:00:00:00:00:02" {
		t.Errorf("%+v", got)
	}
}

func TestBRASEvents(t *testing.T) {
	e, err := parseBRASEvent("up\t12\tppp0\t10.64.0.1\t100.64.0.10\tu 1@isp")
	if err != nil || e.kind != "up" || e.pid != 12 || e.fields[3] != "u 1@isp" {
		t.Errorf("%+v, %v", e, err)
	}
	for _, line := range []string{"", "up", "up\t12\tppp0\t1\t2", "up\tx\tppp0\t1\t2\tu", "other\t12\tppp0", "start\t12"} {
		if e, err := parseBRASEvent(line); err == nil {
			t.Errorf("%q: %+v", line, e)
		}
	}
}

func FuzzBRASEvent(f *testing.F) {
	f.Add("up\t12\tppp0\t10.64.0.1\t100.64.0.10\tu1@isp")
	f.Add("start\t12\t1:02:00:00:00:00:01")
	f.Add("up6\t12\tppp0\tfe80::1\tfe80::2")
	f.Fuzz(func(_ *testing.T, line string) {
		if e, err := parseBRASEvent(line); err == nil {
			b := &BRAS{sessions: make(map[int]*BRASSession)}
			_ = b.handle(context.Background(), e) // must not panic
		}
	})
}

func TestBRASRefusesBadOptions(t *testing.T) {
	for name, o := range map[string]BRASOptions{
		"no interface":   {},
		"authentication": {Interface: "w0", Auth: []string{"eap"}},
		"mtu":            {Interface: "w0", MTU: 1501},
		"links":          {Interface: "w0", IPv6: &BRASIPv6{Links: netip.MustParsePrefix("2001:db8::/65"), Delegated: netip.MustParsePrefix("2001:db8::/40")}},
		"no links":       {Interface: "w0", IPv6: &BRASIPv6{Delegated: netip.MustParsePrefix("2001:db8::/40")}},
		"delegated":      {Interface: "w0", IPv6: &BRASIPv6{Links: netip.MustParsePrefix("2001:db8::/48"), Delegated: netip.MustParsePrefix("2001:db8::/62")}},
	} {
		if _, err := StartBRAS(t.Context(), nil, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, a := range map[string]Account{
		"line end": {Name: "u\n", Password: "p"}, "rate": {Name: "u", Password: "p", DownMbps: 1}, "limit": {Name: "u", Password: "p", SessionLimit: 1},
		"reject": {Name: "u", Password: "p", Reject: "no"},
	} {
		if _, err := pppSecrets([]Account{a}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// discover asks for offers and returns what pppoe-discovery says.
func discover(ctx context.Context, h *netbox.Host, wait string) string {
	out, err := h.Run(ctx, "/usr/sbin/pppoe-discovery", "-I", "wan0", "-t", wait, "-a", "1", "-U")
	return fmt.Sprintf("%s\n%v", out, err)
}

// TestBRASOffers needs no PPP in the kernel: there are offers, but no sessions.
func TestBRASOffers(t *testing.T) {
	needPrograms(t, "/usr/sbin/pppoe-server", "/usr/sbin/pppoe-discovery")
	ctx := bounded(t)
	server, client := ethernet(t)
	b, err := StartBRAS(ctx, server, BRASOptions{Interface: "w0", ACName: "FX", ServiceNames: []string{"internet", "tv"}})
	must(t, err)
	mac, err := server.Run(ctx, "/bin/cat", "/sys/class/net/w0/address")
	must(t, err)
	offers := func(what string, n int) {
		t.Helper()
		out := discover(ctx, client, "1")
		if strings.Count(out, "Access-Concentrator: FX") != n {
			t.Errorf("%s: not %d offers:\n%s", what, n, out)
		}
		if n > 0 && !strings.Contains(strings.ToLower(out), strings.TrimSpace(string(mac))) {
			t.Errorf("%s: not from the interface's own address %s:\n%s", what, mac, out)
		}
	}
	offers("usual", 1)
	b.Silence(true)
	offers("silent", 0)
	b.Silence(false)
	b.DelayPADO(5 * time.Second)
	offers("later than anybody waits", 0)
	b.DelayPADO(0)
	offers("in time again", 1)
	b.PADOError(&DiscoveryError{Tag: ACSystemError, Text: "out of licences"})
	if out := discover(ctx, client, "1"); !strings.Contains(out, "out of licences") {
		t.Errorf("no error in offer:\n%s", out)
	}
	b.PADOError(nil)
	offers("at the end", 1)

	if other, err := StartBRAS(ctx, server, BRASOptions{Interface: "w0"}); err == nil {
		t.Error("two of a name", other.Stop())
	}
	offers("with a second that did not start", 1)
	must(t, b.Stop(), b.Stop())
	offers("stopped", 0)
	out, err := server.Run(ctx, "/bin/ls", "/sys/class/net")
	must(t, err)
	if strings.Contains(string(out), "-ac") {
		t.Errorf("interfaces are left: %s", out)
	}
}
