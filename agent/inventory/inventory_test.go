package inventory_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/inventory"
	"ontagent/collectors"
	"ontagent/transport/durable"
	"ontagent/transport/durable/faultfs"
)

const file = "/inventory.json"

// gateway is a disk, and what was told.
type gateway struct {
	fs    *faultfs.FS
	told  []string
	aside int
	saves int
}

func (g *gateway) Load(v any, check func() error) bool {
	data, err := g.bytes()
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err == nil {
		err = check()
	}
	if err != nil {
		g.aside++
	}
	return err == nil
}

func (g *gateway) bytes() ([]byte, error) {
	return durable.ReadFile(g.fs, "inventory.read", file, inventory.MaxState)
}

func (g *gateway) Save(v any) error {
	g.saves++
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(g.fs, "inventory.write", file, data, 0o600)
}

func (g *gateway) publish(e collectors.Event) {
	if !g.fs.IsCut() { // the queue is on the same flash
		g.told = append(g.told, e.Type+" "+e.What+": "+e.Before+" → "+e.After)
	}
}

func (g *gateway) start() *inventory.Keeper {
	return inventory.Open(inventory.Options{Store: g, Publish: g.publish, Log: slog.New(slog.DiscardHandler)})
}

func newGateway() *gateway { return &gateway{fs: faultfs.New(faultfs.Ext4, 7)} }

func read(kv ...string) []inventory.Item {
	var items []inventory.Item
	for i := 0; i+1 < len(kv); i += 2 {
		items = append(items, inventory.Item{What: kv[i], Value: kv[i+1]})
	}
	return items
}

func TestAChangeIsToldOnceAcrossRestarts(t *testing.T) {
	g := newGateway()
	k := g.start()
	before := read(inventory.SN, "HWTC12345678", inventory.WANMAC, "02:00:00:00:00:01", inventory.Module, "HUAWEI HPSP 1")
	after := read(inventory.SN, "HWTC87654321", inventory.WANMAC, "02:00:00:00:00:01", inventory.Module, "SOURCE SPS 2")
	for range 5 {
		k.Observe(before)
		k = g.start()
	}
	if len(g.told) != 0 || g.saves != 1 {
		t.Errorf("told %q, written %d times, by what did not change", g.told, g.saves)
	}
	for range 3 {
		k.Observe(after)
	}
	k = g.start()
	k.Observe(after)
	k.Observe(after)
	want := []string{"inventory sn: HWTC12345678 → HWTC87654321", "inventory module: HUAWEI HPSP 1 → SOURCE SPS 2"}
	if diff := cmp.Diff(want, g.told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if g.saves != 3 {
		t.Errorf("written %d times", g.saves)
	}
	// Changed while nobody ran is changed as well.
	k = g.start()
	k.Observe(before[:1])
	k.Observe(before[:1])
	if last := g.told[len(g.told)-1]; last != "inventory sn: HWTC87654321 → HWTC12345678" {
		t.Error(last)
	}
}

func TestUnreadableIsNotChanged(t *testing.T) {
	g := newGateway()
	k := g.start()
	k.Observe(read(inventory.SN, "HWTC12345678"))
	for _, v := range []string{"", "", "HWTC00000000", "", "HWTC12345678", "HWTC00000000", "HWTC12345678", strings.Repeat("x", 200), strings.Repeat("x", 200)} {
		k.Observe(read(inventory.SN, v))
		k.Observe(nil)
	}
	// Twice in a row, whatever could not be read in between, is believed.
	k.Observe(read(inventory.SN, "HWTC00000001"))
	k.Observe(read(inventory.SN, ""))
	k.Observe(read(inventory.SN, "HWTC00000001"))
	if diff := cmp.Diff([]string{"inventory sn: HWTC12345678 → HWTC00000001"}, g.told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAPowerCutAtEveryFileOperation(t *testing.T) {
	before := read(inventory.SN, "HWTC12345678", inventory.Module, "A")
	after := read(inventory.SN, "HWTC12345678", inventory.Module, "B")
	for n := 1; n < 40; n++ {
		for seed := range uint64(4) {
			g := newGateway()
			g.start().Observe(before)
			g.fs = g.fs.Clone(seed)
			k := g.start()
			g.fs.CutIn(n)
			k.Observe(after)
			k.Observe(after)
			g.fs.PowerOn()
			k = g.start()
			k.Observe(after)
			k.Observe(after)
			k = g.start()
			k.Observe(after)
			k.Observe(after)
			// Told, and only by a cut between telling and keeping told twice.
			if len(g.told) < 1 || len(g.told) > 2 || g.told[0] != "inventory module: A → B" || g.told[len(g.told)-1] != g.told[0] {
				t.Fatalf("cut at %d: told %q", n, g.told)
			}
			if g.aside != 0 {
				t.Fatalf("cut at %d: the file was damaged", n)
			}
		}
	}
}

func TestADamagedFileIsPutAside(t *testing.T) {
	for _, bad := range []string{"{", "null", "7", `{"v":1,"items":[null]}`, `{"v":2,"items":[]}`, `{"v":1,"items":[{"what":"sn"}]}`, strings.Repeat(" ", inventory.MaxState+1), "\x00\x00"} {
		g := newGateway()
		g.fs.Put(file, []byte(bad))
		k := g.start()
		k.Observe(read(inventory.SN, "HWTC12345678"))
		k.Observe(read(inventory.SN, "HWTC12345678"))
		if g.aside != 1 || len(g.told) != 0 || g.saves != 1 {
			t.Errorf("%q: put aside %d times, told %q", bad, g.aside, g.told)
		}
	}
}

func TestFlashThatTakesNothing(t *testing.T) {
	g := newGateway()
	k := g.start()
	k.Observe(read(inventory.SN, "A"))
	g.fs.Inject(faultfs.Fault{Op: "inventory.write", Forever: true, Err: syscall.ENOSPC})
	for range 5 {
		k.Observe(read(inventory.SN, "B"))
	}
	g.fs.Heal()
	k.Observe(read(inventory.SN, "B"))
	k = g.start()
	k.Observe(read(inventory.SN, "B"))
	k.Observe(read(inventory.SN, "B"))
	if diff := cmp.Diff([]string{"inventory sn: A → B"}, g.told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestALineBeginsWithARecord(t *testing.T) {
	g := newGateway()
	k := g.start()
	if l := k.Line(); l != (inventory.Line{}) {
		t.Errorf("line %+v", l)
	}
	want := inventory.Line{Record: 7, DownMbps: 300, UpMbps: 50}
	k.NewLine(want)
	k = g.start()
	k.Observe(read(inventory.SN, "A"))
	if l := g.start().Line(); l != want {
		t.Errorf("line %+v", l)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"v":1,"items":[{"what":"sn","value":"A"}],"untold":[{"what":"sn","before":"A","after":"B"}],"line":{"record":3}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		g := newGateway()
		g.fs.Put(file, data)
		k := g.start()
		k.Observe(read(inventory.SN, "B", inventory.Module, "C"))
		k.NewLine(inventory.Line{Record: 1})
		if l := k.Line(); l.Record != 1 {
			t.Errorf("line %+v", l)
		}
	})
}
