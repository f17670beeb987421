package netbox_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ontagent/cmd/ontlab/netbox"
	"ontagent/collectors/link"
)

// TestWire reads what a port says of its link as a gateway does, and sends
// something through it.
func TestWire(t *testing.T) {
	box := newBox(t)
	a, z := newHost(t, box, "wire-a"), newHost(t, box, "wire-z")
	w, err := box.Wire(a, "lan1", z, "eth0")
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	must(t, a.Address("lan1", "10.9.9.1/24"))
	must(t, z.Address("eth0", "10.9.9.2/24"))
	startEcho(t, z, "10.9.9.2:7")
	must(t, ask(a, "10.9.9.2:7", 2*time.Second))

	read := func() (l link.Link) {
		t.Helper()
		must(t, a.Do(func() error {
			links, err := link.New(link.Options{Include: []string{"lan1"}}).Links(t.Context())
			if err == nil && len(links) == 1 {
				l = links[0]
			}
			return err
		}))
		return l
	}
	for _, p := range []netbox.PHY{
		{SpeedMbps: 1000, MaxMbps: 1000, PeerMaxMbps: 1000},
		{SpeedMbps: 100, MaxMbps: 2500},
		{SpeedMbps: 10, HalfDuplex: true, MaxMbps: 100, PeerMaxMbps: 10},
	} {
		must(t, w.Set(p))
		l := read()
		got := netbox.PHY{SpeedMbps: l.SpeedMegabits, HalfDuplex: l.Duplex == link.DuplexHalf, MaxMbps: l.MaxMegabits, PeerMaxMbps: l.PeerMaxMegabits}
		if got != p || l.Duplex == "" {
			t.Errorf("it says %+v (%s), not %+v", got, l.Duplex, p)
		}
	}
	must(t, w.Plug(false))
	if l := read(); l.Carrier {
		t.Error("unplugged, it has a link still")
	}
	must(t, w.Plug(true))
	if l := read(); !l.Carrier {
		t.Error("plugged in, it has no link")
	}
	must(t, ask(a, "10.9.9.2:7", 2*time.Second))
}

// TestStandIns shows a host files in the place of its kernel's; nobody else
// sees them, and the host's network is its own still.
func TestStandIns(t *testing.T) {
	box := newBox(t)
	a, z := newHost(t, box, "stand-a"), newHost(t, box, "stand-z")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "meminfo"), []byte("MemTotal: 7 kB\n"), 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "hwmon", "hwmon0"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "hwmon", "hwmon0", "name"), []byte("sfp\n"), 0o600))
	must(t, a.Stand(filepath.Join(dir, "meminfo"), "/proc/meminfo"))
	must(t, a.StandClass(map[string]string{"hwmon": filepath.Join(dir, "hwmon")}))
	text := func(h *netbox.Host, path string) string {
		var data []byte
		_ = h.Do(func() (err error) { // what is not there is empty
			data, err = os.ReadFile(path)
			return err
		})
		return string(data)
	}
	if got := text(a, "/proc/meminfo"); got != "MemTotal: 7 kB\n" {
		t.Errorf("its memory is %q", got)
	}
	must(t, os.WriteFile(filepath.Join(dir, "meminfo"), []byte("MemTotal: 8 kB\n"), 0o600))
	if got := text(a, "/proc/meminfo"); got != "MemTotal: 8 kB\n" {
		t.Errorf("its memory is still %q", got)
	}
	if got := text(a, "/sys/class/hwmon/hwmon0/name"); got != "sfp\n" {
		t.Errorf("its module is %q", got)
	}
	if got := text(a, "/sys/class/net/lo/address"); got != "00:00:00:00:00:00\n" {
		t.Errorf("its loopback has %q", got)
	}
	if got := text(z, "/proc/meminfo"); !strings.Contains(got, "MemAvailable") {
		t.Errorf("another host's memory is %q", got)
	}
	if err := a.Stand(filepath.Join(dir, "nothing"), "/proc/meminfo"); err == nil {
		t.Error("it shows what is not there")
	}
}
