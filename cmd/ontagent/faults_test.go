package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ontagent/agent"
	"ontagent/agent/acceptance"
	"ontagent/agent/control"
	"ontagent/agent/diagnosis"
	"ontagent/agent/inspect"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/collectors"
	"ontagent/transport"
	"ontagent/transport/durable/faultfs"
)

// sent returns the next event of a name that the daemon queued, as it travels.
func sent(t *testing.T, d *daemon, name string) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		e, err := d.queue.Next(ctx)
		if err != nil {
			t.Fatalf("no event/%s was queued: %v", name, err)
		}
		payload, err := transport.Encode(e.Header, e.Message.Body)
		if err != nil {
			t.Fatal(err)
		}
		if e.Message.Kind != transport.KindEvent || e.Message.Name != name {
			continue
		}
		schema := "event"
		if _, err := os.Stat("../../docs/mqtt-api/schema/event-" + name + ".json"); err == nil {
			schema += "-" + name
		}
		conforms(t, schema, payload)
		var body map[string]any
		if err := json.Unmarshal(payload, &body); err != nil {
			t.Fatal(err)
		}
		return body
	}
}

func TestFaultsAreSentByTheirSchema(t *testing.T) {
	_, c := gateway(t)
	d := start(t, c)
	var told []diagnosis.Code
	s := sink{d.reporter, nil, d.watching}
	s.Event(collectors.Event{Type: "pon", What: "state", Before: "operational", After: "los"})
	look := diagnosis.FromHappenings(d.watching.history.Recent())
	for _, cause := range look.Causes {
		told = append(told, cause.Code)
	}
	if !slices.Equal(told, []diagnosis.Code{diagnosis.PONLOS}) {
		t.Fatalf("causes %q", told)
	}
	d.watching.faults.Inspected(look, nil) // no debounce: nobody waits here
	e := sent(t, d, "fault")
	if e["code"] != "pon.los" || e["fault_class"] != "line" || e["state"] != "opened" || e["opened_boot"] == "" {
		t.Errorf("%v", e)
	}
	d.watching.faults.NewLine()
	if e := sent(t, d, "fault"); e["state"] != "cleared" || e["reason"] != "new_line" {
		t.Errorf("%v", e)
	}
}

func TestInspectionsAndInventoryAreSentByTheirSchema(t *testing.T) {
	_, c := gateway(t)
	c.WAN.LANPort = "lan1"
	d := start(t, c)
	d.watching.inspections.Add(inspect.Entry{Job: "c-1", Verdict: "pass"})
	if e := sent(t, d, "inspection"); e["job"] != "c-1" {
		t.Errorf("%v", e)
	}
	d.watching.inventory.Observe(d.readInventory(t.Context()))
	d.c.WAN.LANPort = "lan2"
	for range 2 {
		d.watching.inventory.Observe(d.readInventory(t.Context()))
	}
	if e := sent(t, d, "inventory"); e["what"] != "lan_port" || e["before"] != "lan1" || e["after"] != "lan2" {
		t.Errorf("%v", e)
	}
	var out inspections
	err := d.opInspections(t.Context(), nil, func(_ string, data any) error {
		out, _ = data.(inspections)
		return nil
	})
	if err != nil || len(out.Log) != 1 || !out.Scheduled || out.Next == "" && out.NextDays == 0 {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestTheScheduleInspectsTheLine(t *testing.T) {
	_, c := gateway(t)
	d := start(t, c)
	d.line <- struct{}{}                                          // somebody works on it
	if _, err := d.inspect(t.Context()); err != inspect.ErrBusy { //nolint:errorlint // it is not wrapped
		t.Errorf("beside somebody else: %v", err)
	}
	<-d.line
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := d.inspect(ctx); err == nil {
		t.Error("a ladder that was cut short counts")
	}
	if len(d.line) != 0 {
		t.Error("the line was not given back")
	}
}

func TestDamagedDocumentsArePutAsideAndTold(t *testing.T) {
	for _, name := range []string{"faults", "inventory", "inspections"} {
		t.Run(name, func(t *testing.T) {
			dir, c := gateway(t)
			path := filepath.Join(dir, "state", name+".json")
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, damaged := range []string{"rotten", strings.Repeat(" ", 1<<20)} {
				if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
					t.Fatal(err)
				}
				d := start(t, c)
				if d.refusing != nil {
					t.Errorf("refusing: %v", d.refusing)
				}
				if e := sent(t, d, "state_file"); e["subject"] != name+".json" || e["after"] != "damaged" || e["reason"] == "" {
					t.Errorf("%v", e)
				}
				if got, err := os.ReadFile(path + ".bad"); err != nil || string(got) != damaged {
					t.Errorf("what a person may want to look at is gone: %v", err)
				}
				stop(d)
			}
		})
	}
}

func TestKeptSurvivesAPowerCut(t *testing.T) {
	for n := range 12 {
		disk := faultfs.New(faultfs.Ext4, uint64(n))
		k := kept{fs: disk, op: "x", path: "/x.json", limit: 100, tell: func(collectors.Event) {}, log: slog.New(slog.DiscardHandler)}
		if err := k.Save("old"); err != nil {
			t.Fatal(err)
		}
		disk.CutIn(n + 1)
		_ = k.Save("new")
		disk.PowerOn()
		var got string
		if ok := k.Load(&got, func() error { return nil }); !ok || got != "old" && got != "new" {
			t.Errorf("cut at %d: %q", n, got)
		}
	}
}

// filedRecord is a record as this gateway closes them, of an order's type.
func filedRecord(t *testing.T, n uint64, typ order.Type, c order.CommandType) order.Envelope {
	t.Helper()
	sign := func(payloadType string, v any) order.Envelope {
		payload, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		env, err := order.Sign(payloadType, payload, operatorKey)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	return sign(order.TypeRecord, record.Record{
		N: n, Order: sign(order.TypeOrder, order.Order{Type: typ, Services: []order.Service{{DownMbps: 300, UpMbps: 50}, {DownMbps: 20}}}), Command: sign(order.TypeCommand, order.Command{Type: c}),
	})
}

func TestAMoveBeginsAnotherLine(t *testing.T) {
	dir, c := gateway(t)
	baseline := filepath.Join(dir, "state", "optics.json")
	if err := os.MkdirAll(filepath.Dir(baseline), 0o700); err != nil {
		t.Fatal(err)
	}
	history := `{"v":1,"key":"console:rtl960x","first":[{"rx":-20},{"rx":-20},{"rx":-20}],"last":null,"trend":"steady","laser":"steady"}`
	if err := os.WriteFile(baseline, []byte(history), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, c)
	happened := func() {
		d.watching.heard(collectors.Event{Type: "pon", What: "state", Before: "operational", After: "los"})
		d.watching.faults.Inspected(diagnosis.FromHappenings(d.watching.history.Recent()), nil)
	}
	happened()
	d.filed("WO-1", filedRecord(t, 3, order.Repair, order.Accept))
	d.filed("WO-2", filedRecord(t, 4, order.Move, order.Inspection))
	if len(d.watching.faults.Faults()) != 1 || len(d.watching.history.Recent()) != 1 {
		t.Fatal("a repair is no move")
	}
	if got, err := os.ReadFile(baseline); err != nil || string(got) != history {
		t.Fatalf("%q, %v", got, err)
	}
	move := filedRecord(t, 5, order.Move, order.Accept)
	d.filed("WO-3", move)
	if len(d.watching.faults.Faults()) != 0 || len(d.watching.history.Recent()) != 0 {
		t.Error("the other line's faults stay")
	}
	if got, err := os.ReadFile(baseline); err != nil || len(got) != 0 {
		t.Errorf("the other line's baseline stays: %q, %v", got, err)
	}
	// The same record again, after a restart that sends it once more, changes
	// nothing.
	happened()
	d.filed("WO-3", move)
	if len(d.watching.faults.Faults()) != 1 {
		t.Error("the same move began the line twice")
	}
	d.filed("WO-4", filedRecord(t, 6, order.Install, order.Accept))
	if len(d.watching.faults.Faults()) != 0 {
		t.Error("an installation begins a line as well")
	}
	if down, up := d.contract(); down != 300 || up != 50 {
		t.Errorf("the contract is %v and %v", down, up)
	}
	if line, begins := beginsLine(order.Envelope{Payload: "!"}); begins {
		t.Errorf("garbage begins line %+v", line)
	}
}

func TestRecentIsShown(t *testing.T) {
	_, c := gateway(t)
	d := start(t, c)
	var out bytes.Buffer
	a := &app{out: &out}
	show := func(lang diagnosis.Lang) string {
		out.Reset()
		err := d.opRecent(t.Context(), nil, func(kind string, data any) error {
			r, _ := data.(recent)
			if kind != control.KindResult {
				t.Errorf("kind %s", kind)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
			a.printRecent(r, lang)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if got := show(diagnosis.English); got != "nothing changed lately\n" {
		t.Errorf("%q", got)
	}
	d.watching.heard(collectors.Event{Type: "optics", What: "rx_power_status", Before: "ok", After: "no_light"})
	d.watching.faults.Inspected(diagnosis.FromHappenings(d.watching.history.Recent()), nil)
	for lang, want := range map[diagnosis.Lang][]string{
		diagnosis.English: {"what changed lately:", "optics  rx_power_status: ok → no_light", "1. ", "[optical.no_light]", "line fault"},
		diagnosis.Chinese: {"最近的变化:", "线路故障", "障碍 "},
	} {
		got := show(lang)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in\n%s", lang, w, got)
			}
		}
	}
}

func TestInspectionsAreShown(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	now, base, limit, bad := -23.5, -20.0, -25.0, false
	a.printInspections(inspections{Next: "2026-04-05T19:50:00Z", Scheduled: true, Log: []inspect.Entry{
		{Why: "command", Verdict: "pass", Started: inspect.Stamp{Clock: "none"}, Compared: []inspect.Compared{{Name: "old"}}},
		{
			Why: "schedule", Verdict: "fail", FirstCause: "host.traffic", Started: inspect.Stamp{UTC: "2026-02-04T19:50:00Z"},
			Compared: []inspect.Compared{{Name: "rx_power_dbm", Now: &now, Baseline: &base, Limit: &limit, Op: ">", OK: &bad, Source: "record:7"}, {Name: "bias_ma"}},
		},
	}}, diagnosis.English)
	const want = `undated              command    pass
2026-02-04T19:50:00Z schedule   fail: Line nearly full [host.traffic]
  ! rx_power_dbm                     -23.50  baseline -20.00     > -25.00 record:7
  ? bias_ma                               -  baseline -           - 
next inspection: 2026-04-05T19:50:00Z
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestEveryInspectionMeasuresUseAnew: also one that is commanded.
func TestEveryInspectionMeasuresUseAnew(t *testing.T) {
	_, c := gateway(t)
	d := start(t, c)
	for name, tt := range map[string]struct {
		cut  bool
		anew bool
	}{"commanded": {false, true}, "cut short": {true, false}} {
		d.watching.meter.Reset()
		d.watching.meter.Samples("counters", []collectors.Sample{{Fields: []collectors.Field{{Key: "speed_mbps", Value: 100.0}, {Key: "counters_blind", Value: true}}}})
		d.watching.inspector.Ended(inspect.Entry{Job: "c-1", Verdict: "pass"}, agent.Result{Report: acceptance.Report{Interrupted: tt.cut}})
		if u := d.watching.meter.Use(); u.Blind == tt.anew {
			t.Errorf("%s: blind %t", name, u.Blind)
		}
	}
}
