package link_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ontagent/collectors/link"
)

// flowtable encodes one as the kernel lists it (nf_tables_fill_flowtable_info).
func flowtable(flags uint32, devices ...string) []byte {
	o := binary.NativeEndian
	var devs []byte
	for _, d := range devices {
		devs = append(devs, link.Attr(o, 1, []byte(d+"\x00"))...)
	}
	const nested = 1 << 15
	hook := slices.Concat(
		link.Attr(o, 1, []byte{0, 0, 0, 0}),
		link.Attr(o, 2, []byte{0, 0, 0, 0}),
		link.Attr(o, 3|nested, devs))
	return slices.Concat(
		[]byte{unix.NFPROTO_INET, 0, 0, 1},
		link.Attr(o, 1, []byte("fw4\x00")),
		link.Attr(o, 2, []byte("ft\x00")),
		link.Attr(o, 7, binary.BigEndian.AppendUint32(nil, flags)),
		link.Attr(o, 3|nested, hook))
}

// nftables answers as a kernel with these flowtables.
func nftables(bodies ...[]byte) func() (link.Socket, error) {
	return func() (link.Socket, error) {
		var messages []syscall.NetlinkMessage
		for _, b := range bodies {
			messages = append(messages, syscall.NetlinkMessage{
				Header: syscall.NlMsghdr{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWFLOWTABLE, Pid: ourPid, Flags: unix.NLM_F_MULTI},
				Data:   b,
			})
		}
		messages = append(messages, syscall.NetlinkMessage{
			Header: syscall.NlMsghdr{Type: unix.NLMSG_DONE, Pid: ourPid, Flags: unix.NLM_F_MULTI}, Data: make([]byte, 4),
		})
		return newKernel(step{messages: messages}), nil
	}
}

func TestOffloadOfTheWholeSystem(t *testing.T) {
	for _, tt := range []struct {
		name       string
		modules    []string
		flowtables [][]byte
		want       map[string]string // by interface; unknown if it is not in it
	}{
		{name: "Nothing"},
		{
			name: "Software", modules: []string{"nf_flow_table"}, flowtables: [][]byte{flowtable(0, "eth0", "lan1")},
			want: map[string]string{"ppp0": link.OffloadFlowtable, "eth0.41": link.OffloadFlowtable, "br-lan": link.OffloadFlowtable},
		},
		{
			name: "Hardware", modules: []string{"nf_flow_table"}, flowtables: [][]byte{flowtable(0, "lan1"), flowtable(1|2, "eth0")},
			want: map[string]string{"ppp0": link.OffloadFlowtableHW, "eth0.41": link.OffloadFlowtableHW, "br-lan": link.OffloadFlowtableHW, "eth0": link.OffloadFlowtableHW},
		},
		{name: "ModuleWithoutTable", modules: []string{"nf_flow_table"}},
		{name: "TableUnasked", flowtables: [][]byte{flowtable(1, "eth0")}},
		{
			name: "Vendor", modules: []string{"hw_nat", "nf_flow_table"}, flowtables: [][]byte{flowtable(0, "eth0")},
			want: map[string]string{
				"eth0": link.OffloadVendor, "lan1": link.OffloadVendor, "eth0.41": link.OffloadVendor, "br-lan": link.OffloadVendor, "ppp0": link.OffloadVendor,
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for _, m := range tt.modules {
				if err := os.MkdirAll(filepath.Join(root, "module", m), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			c := link.New(link.Options{SysRoot: root})
			c.SetNetfilter(nftables(tt.flowtables...))
			links := []*link.Link{
				{Name: "lo", Type: "loopback"},
				{Name: "eth0", Type: "ether"},
				{Name: "lan1", Type: "ether"},
				{Name: "eth0.41", Type: "ether", Kind: "vlan"},
				{Name: "br-lan", Type: "ether", Kind: "bridge"},
				{Name: "ppp0", Type: "ppp", Kind: "ppp"},
			}
			c.SetOffload(links...)
			for _, l := range links {
				want := tt.want[l.Name]
				if want == "" {
					want = link.OffloadUnknown
				}
				if l.Offload != want || l.Blind != (want != link.OffloadUnknown) {
					t.Errorf("%s: %q, blind %v, want %q", l.Name, l.Offload, l.Blind, want)
				}
			}
		})
	}
}

func TestOffloadWhereNftablesFails(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "module/nf_flow_table"), 0o755); err != nil {
		t.Fatal(err)
	}
	refused := binary.NativeEndian.AppendUint32(nil, uint32(0x100000000-uint64(unix.EPERM)))
	for name, dial := range map[string]func() (link.Socket, error){
		"no socket": func() (link.Socket, error) { return nil, unix.EPROTONOSUPPORT },
		"refused": func() (link.Socket, error) {
			return newKernel(step{messages: []syscall.NetlinkMessage{
				{Header: syscall.NlMsghdr{Type: unix.NLMSG_ERROR, Pid: ourPid}, Data: refused},
			}}), nil
		},
		"silent": func() (link.Socket, error) { return newKernel(step{err: unix.EAGAIN}), nil },
	} {
		c := link.New(link.Options{SysRoot: root})
		c.SetNetfilter(dial)
		l := link.Link{Name: "ppp0", Type: "ppp"}
		if c.SetOffload(&l); l.Offload != link.OffloadUnknown || l.Blind {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

func TestParseFlowtableTruncated(t *testing.T) {
	whole := flowtable(1, "eth0", "lan1")
	if hw, devices := link.ParseFlowtable(whole); !hw || !slices.Equal(devices, []string{"eth0", "lan1"}) {
		t.Fatalf("%v %q", hw, devices)
	}
	for n := range whole {
		if _, devices := link.ParseFlowtable(whole[:n]); len(devices) > 0 && devices[0] != "eth0" {
			t.Errorf("%d bytes: %q", n, devices)
		}
	}
}

func FuzzParseFlowtable(f *testing.F) {
	f.Add(flowtable(1, "eth0"))
	f.Add(flowtable(0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, devices := link.ParseFlowtable(b); len(devices) > 256 {
			t.Errorf("%d devices", len(devices))
		}
	})
}
