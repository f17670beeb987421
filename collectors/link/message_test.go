package link_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ontagent/collectors/link"
)

func capture(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "linux-6.18-amd64-"+name+".bin"))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestDecodeCaptures(t *testing.T) {
	tests := []struct {
		file string
		want link.Link
		err  error
	}{
		{file: "lo", want: link.Link{
			Index: 1, Name: "lo", Type: "loopback", OperState: link.OperDown, MTU: 65536,
			Counters: link.Counters{Bits: 64},
		}},
		{file: "veth-lowerlayerdown", want: link.Link{
			Index: 3, Name: "lan0", MAC: "02:00:00:00:00:01", Kind: "veth", Type: "ether", AdminUp: true,
			OperState: link.OperLowerLayerDown, MTU: 1500, ParentIndex: 2, MasterIndex: 4,
			Counters: link.Counters{Bits: 64}, CarrierChanges: 1,
		}},
		{file: "veth-up-in-bridge", want: link.Link{
			Index: 3, Name: "lan0", MAC: "02:00:00:00:00:01", Kind: "veth", Type: "ether", AdminUp: true, Carrier: true,
			OperState: link.OperUp, MTU: 1500, ParentIndex: 2, MasterIndex: 4,
			Counters: link.Counters{Bits: 64}, CarrierChanges: 2,
		}},
		{file: "bridge-deleted", want: link.Link{
			Index: 4, Name: "br-lan", MAC: "02:00:00:00:00:03", Kind: "bridge", Type: "ether",
			OperState: link.OperDown, MTU: 1500, Counters: link.Counters{Bits: 64}, CarrierChanges: 1,
		}},
		{file: "bridge-port", err: link.ErrNotLink},
		{file: "bridge-port-removed", err: link.ErrNotLink},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			got, err := link.Decode(binary.LittleEndian, link.Link{}, capture(t, tt.file))
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// orders are the byte orders there are, by their name.
func orders() map[string]order {
	return map[string]order{"LittleEndian": binary.LittleEndian, "BigEndian": binary.BigEndian}
}

// stats encodes struct rtnl_link_stats or rtnl_link_stats64 with its fields
// counting up from first.
func stats(o order, width int, first uint64) []byte {
	var b []byte
	for i := range uint64(23) {
		if width == 8 {
			b = o.AppendUint64(b, first+i)
		} else {
			b = o.AppendUint32(b, uint32(first+i))
		}
	}
	return b
}

func countersFrom(first uint64, bits int) link.Counters {
	return link.Counters{
		RxPackets: first, TxPackets: first + 1, RxBytes: first + 2, TxBytes: first + 3, RxErrors: first + 4,
		TxErrors: first + 5, RxDropped: first + 6, TxDropped: first + 7, Multicast: first + 8,
		Collisions: first + 9, RxCRCErrors: first + 12, Bits: bits,
	}
}

func TestDecodeInBothByteOrders(t *testing.T) {
	for name, o := range orders() {
		t.Run(name, func(t *testing.T) {
			body := link.Body(o, unix.AF_UNSPEC, unix.ARPHRD_PPP, 300, link.FlagsUp,
				link.Attr(o, unix.IFLA_IFNAME, []byte("pppoe-wan\x00")),
				link.Attr(o, unix.IFLA_MTU, o.AppendUint32(nil, 1492)),
				link.Attr(o, unix.IFLA_OPERSTATE, []byte{0}),
				link.Attr(o, unix.IFLA_STATS64, stats(o, 8, 1<<40)),
				link.Attr(o, unix.IFLA_STATS, stats(o, 4, 7)),
				link.Attr(o, unix.IFLA_LINKINFO|unix.NLA_F_NESTED, link.Attr(o, unix.IFLA_INFO_KIND, []byte("ppp\x00"))),
				link.Attr(o, unix.IFLA_CARRIER_CHANGES, o.AppendUint32(nil, 5)))
			want := link.Link{
				Index: 300, Name: "pppoe-wan", Kind: "ppp", Type: "ppp", AdminUp: true, Carrier: true,
				OperState: link.OperUnknown, MTU: 1492, CarrierChanges: 5, Counters: countersFrom(1<<40, 64),
			}
			got, err := link.Decode(o, link.Link{}, body)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestDecode32BitCountersOfAnOldKernel(t *testing.T) {
	for name, o := range orders() {
		t.Run(name, func(t *testing.T) {
			got, err := link.Decode(o, link.Link{}, link.Body(o, unix.AF_UNSPEC, unix.ARPHRD_ETHER, 2, 0,
				link.Attr(o, unix.IFLA_IFNAME, []byte("eth0\x00")), link.Attr(o, unix.IFLA_STATS, stats(o, 4, 100))))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(countersFrom(100, 32), got.Counters); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// Wireless drivers announce their own events in messages with a name and
// little else.
func TestDecodePartialMessageKeepsTheRest(t *testing.T) {
	o := binary.LittleEndian
	before, err := link.Decode(o, link.Link{}, capture(t, "veth-up-in-bridge"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := link.Decode(o, before, link.Body(o, unix.AF_UNSPEC, unix.ARPHRD_ETHER, 3, link.FlagsUp,
		link.Attr(o, unix.IFLA_IFNAME, []byte("lan0\x00")), link.Attr(o, unix.IFLA_WIRELESS, make([]byte, 20))))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("changed (-before +after):\n%s", d)
	}
}

func TestDecodeRefusesAndLeavesUnchanged(t *testing.T) {
	o := binary.LittleEndian
	name := link.Attr(o, unix.IFLA_IFNAME, []byte("eth0\x00"))
	body := func(attrs ...[]byte) []byte {
		return link.Body(o, unix.AF_UNSPEC, unix.ARPHRD_ETHER, 2, link.FlagsUp, append([][]byte{name}, attrs...)...)
	}
	tests := map[string][]byte{
		"Empty":           nil,
		"ShortHeader":     make([]byte, unix.SizeofIfInfomsg-1),
		"IndexZero":       link.Body(o, unix.AF_UNSPEC, 1, 0, 0, name),
		"IndexNegative":   link.Body(o, unix.AF_UNSPEC, 1, -1, 0, name),
		"NoName":          link.Body(o, unix.AF_UNSPEC, 1, 2, 0),
		"EmptyName":       link.Body(o, unix.AF_UNSPEC, 1, 2, 0, link.Attr(o, unix.IFLA_IFNAME, nil)),
		"AttrLengthZero":  body([]byte{0, 0, 1, 0}),
		"AttrBeyondEnd":   body([]byte{9, 0, 1, 0, 0, 0, 0, 0}),
		"ShortMTU":        body(link.Attr(o, unix.IFLA_MTU, []byte{1, 2, 3})),
		"ShortLink":       body(link.Attr(o, unix.IFLA_LINK, nil)),
		"ShortMaster":     body(link.Attr(o, unix.IFLA_MASTER, nil)),
		"EmptyOperState":  body(link.Attr(o, unix.IFLA_OPERSTATE, nil)),
		"ShortCarrier":    body(link.Attr(o, unix.IFLA_CARRIER_CHANGES, nil)),
		"ShortStats":      body(link.Attr(o, unix.IFLA_STATS, make([]byte, 51))),
		"ShortStats64":    body(link.Attr(o, unix.IFLA_STATS64, make([]byte, 103))),
		"BrokenInfo":      body(link.Attr(o, unix.IFLA_LINKINFO, []byte{200, 0, 1, 0})),
		"OfTheBridgeOnly": link.Body(o, unix.AF_BRIDGE, 1, 2, 0, name),
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			before := link.Link{Index: 2, MTU: 1500}
			got, err := link.Decode(o, before, b)
			if err == nil {
				t.Fatalf("accepted: %+v", got)
			}
			if d := cmp.Diff(before, got); d != "" {
				t.Errorf("changed (-before +after):\n%s", d)
			}
		})
	}
}

func TestDecodeTruncatedAnywhere(t *testing.T) {
	for _, name := range []string{"lo", "veth-up-in-bridge", "bridge-deleted"} {
		whole := capture(t, name)
		want, err := link.Decode(binary.LittleEndian, link.Link{}, whole)
		if err != nil {
			t.Fatal(err)
		}
		for n := range whole {
			got, err := link.Decode(binary.LittleEndian, link.Link{}, bytes.Clone(whole[:n]))
			if err == nil && (got.Index != want.Index || got.Name != want.Name) {
				t.Errorf("%s cut at %d: %+v", name, n, got)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{
		"lo", "veth-lowerlayerdown", "veth-up-in-bridge", "bridge-port", "bridge-port-removed", "bridge-deleted",
	} {
		f.Add(capture(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, o := range orders() {
			l, err := link.Decode(o, link.Link{}, b)
			if err != nil {
				if l != (link.Link{}) {
					t.Errorf("an error and %+v", l)
				}
				continue
			}
			if l.Index <= 0 || l.Name == "" || l.OperState == "" || l.Type == "" {
				t.Errorf("no error and %+v", l)
			}
			// What a message says once it says again.
			again, err := link.Decode(o, l, b)
			if err != nil || again != l {
				t.Errorf("twice: %v, %+v, then %+v", err, l, again)
			}
		}
	})
}
