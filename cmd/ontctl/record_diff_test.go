package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/cmd/cli"
	"ontagent/cmd/ontctl/render"
	"ontagent/transport/durable"
)

// seen is what a visit of these tests found.
type seen struct {
	device   string
	verdict  acceptance.Verdict
	causes   []diagnosis.Code
	optical  []acceptance.Measurement
	limits   []acceptance.Limit
	sn       string
	order    order.Order
	version  string
	closed   string
	baseline map[string]float64
}

func rx(dbm float64, source string) []acceptance.Measurement {
	return []acceptance.Measurement{{Name: "rx_power_dbm", Value: dbm, Status: "ok", Source: source}}
}

// document makes a document as Open would.
func (s seen) document(n uint64) *render.Document {
	d := &render.Document{Digest: s.closed + s.device, Order: &s.order}
	d.Verification.Status = record.Valid
	d.Record = record.Record{
		N: n, Device: s.device, Verdict: string(s.verdict), Agent: record.Agent{Version: s.version},
		Time: record.Moment{UTC: s.closed, Clock: "ntp"}, Baseline: s.baseline, Renews: s.baseline != nil,
	}
	d.Report.Results = []acceptance.Result{
		{Rung: acceptance.Identity, Verdict: acceptance.Pass, Measurements: []acceptance.Measurement{{Name: "sn", Value: s.sn, Status: "ok"}}},
		{Rung: acceptance.Optical, Verdict: s.verdict, Measurements: s.optical, Limits: s.limits},
	}
	for _, c := range s.causes {
		d.Diagnosis.Causes = append(d.Diagnosis.Causes, diagnosis.Ranked{Code: c, Kind: diagnosis.KindFault})
	}
	return d
}

// TestOnlyBaselinesAreCompared: a record that renews no health record leaves
// the line's as it was, whatever it read.
func TestOnlyBaselinesAreCompared(t *testing.T) {
	older := seen{baseline: map[string]float64{"rx_power_dbm": -20}}.document(1)
	for name, tc := range map[string]struct {
		renews bool
		line   *record.Line
		want   int
	}{
		"renewed":          {true, &record.Line{Readings: map[string]float64{"rx_power_dbm": -20}}, 1},
		"not renewed":      {false, &record.Line{Readings: map[string]float64{"rx_power_dbm": -20}}, 0},
		"of another":       {false, &record.Line{Readings: map[string]float64{"rx_power_dbm": -25}}, 1},
		"nothing to renew": {false, nil, 0},
	} {
		newer := seen{baseline: map[string]float64{"rx_power_dbm": -28}}.document(2)
		newer.Record.Renews, newer.Record.Line = tc.renews, tc.line
		if c := compare(older, newer); len(c.Baseline) != tc.want {
			t.Errorf("%s: %+v", name, c.Baseline)
		}
	}
}

func TestOpticsMoveBeyondNoise(t *testing.T) {
	for name, tc := range map[string]struct {
		old, new         seen
		beyond, absolute bool
	}{
		"half a decibel":              {seen{optical: rx(-20, "console")}, seen{optical: rx(-20.5, "console")}, false, false},
		"more":                        {seen{optical: rx(-20, "console")}, seen{optical: rx(-20.51, "console")}, true, false},
		"better":                      {seen{optical: rx(-20, "console")}, seen{optical: rx(-19, "console")}, true, false},
		"by another source, 3 dB":     {seen{optical: rx(-20, "console")}, seen{optical: rx(-23, "module")}, false, true},
		"by another source, more":     {seen{optical: rx(-20, "console")}, seen{optical: rx(-23.1, "module")}, true, true},
		"of another module":           {seen{sn: "A", optical: rx(-20, "console")}, seen{sn: "B", optical: rx(-22, "console")}, false, true},
		"of another module, far more": {seen{sn: "A", optical: rx(-20, "console")}, seen{sn: "B", optical: rx(-26, "console")}, true, true},
	} {
		c := compare(tc.old.document(1), tc.new.document(2))
		i := 0
		for i < len(c.Measurements) && c.Measurements[i].Name != "rx_power_dbm" {
			i++
		}
		if i == len(c.Measurements) {
			t.Errorf("%s: no difference at all", name)
			continue
		}
		if m := c.Measurements[i]; m.Beyond != tc.beyond || m.Absolute != tc.absolute {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestDarkIsAMove(t *testing.T) {
	dark := []acceptance.Measurement{{Name: "rx_power_dbm", Status: "no_light", Source: "console"}}
	c := compare(seen{optical: rx(-20, "console")}.document(1), seen{optical: dark}.document(2))
	if len(c.Measurements) != 1 || !c.Measurements[0].Beyond || c.Measurements[0].New != "no_light" {
		t.Errorf("%+v", c.Measurements)
	}
	// What was not looked at has not moved.
	c = compare(seen{optical: rx(-20, "console")}.document(1), seen{}.document(2))
	if len(c.Measurements) != 0 {
		t.Errorf("%+v", c.Measurements)
	}
}

func TestCompareTellsWhatChanged(t *testing.T) {
	min25 := acceptance.Norms().Limit(acceptance.OpticalRxMinDBm)
	min24 := min25
	min24.Value, min24.Origin = -24, acceptance.OriginOrder
	older := seen{
		device: device, verdict: acceptance.Pass, optical: rx(-20, "console"), limits: []acceptance.Limit{min25}, sn: "HWTC00000001",
		causes: []diagnosis.Code{"lan.port_slow", "addr.private"}, version: "v1", closed: "2026-09-22T06:00:00Z",
		order:    order.Order{Resources: order.Resources{SN: "HWTC00000001", PONPort: "0/1"}, Services: []order.Service{{Kind: "internet", DownMbps: 200, UpMbps: 20}}},
		baseline: map[string]float64{"rx_power_dbm": -20},
	}
	newer := seen{
		device: device, verdict: acceptance.Fail, optical: rx(-28, "console"), limits: []acceptance.Limit{min24}, sn: "HWTC00000002",
		causes: []diagnosis.Code{"optical.rx_too_weak", "addr.private"}, version: "v2", closed: "2026-11-22T06:00:00Z",
		order:    order.Order{Type: order.Move, Resources: order.Resources{SN: "HWTC00000002", PONPort: "0/1", MAC: "02:00:00:00:00:01"}, Services: []order.Service{{Kind: "internet", DownMbps: 500, UpMbps: 50}}},
		baseline: map[string]float64{"rx_power_dbm": -28},
	}
	c := compare(older.document(1), newer.document(2))
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"verdicts":[{"old":"pass","new":"fail"},{"name":"optical","old":"pass","new":"fail"}]`,
		`"causes_new":["optical.rx_too_weak"],"causes_gone":["lan.port_slow"],"causes_still":["addr.private"]`,
		`"limits":[{"name":"optical.rx_min_dbm","old":{"name":"optical.rx_min_dbm","value":-25,"op":"\u003e","origin":"norm"},"new":{"name":"optical.rx_min_dbm","value":-24,"op":"\u003e","origin":"order"}}]`,
		`"resources":[{"name":"mac","old":"","new":"02:00:00:00:00:01"},{"name":"measured_sn","old":"HWTC00000001","new":"HWTC00000002"},{"name":"sn","old":"HWTC00000001","new":"HWTC00000002"}]`,
		`"contract":[{"name":"internet","old":"200/20 Mbit/s","new":"500/50 Mbit/s"}]`,
		`"software":{"old":"v1","new":"v2"}`,
		`"baseline":[{"name":"rx_power_dbm","unit":"dBm","old":-20,"new":-28,"delta":-8,"noise":3,"beyond_noise":true,"absolute":true}]`,
	} {
		if !strings.Contains(string(data), part) {
			t.Errorf("%s is missing:\n%s", part, data)
		}
	}
	c.Old, c.New = headOf("a", older.document(1)), headOf("b", newer.document(2))
	if d, ok := c.between(); !ok || d != 61*24*time.Hour {
		t.Errorf("%v apart, %t", d, ok)
	}
	// The same against itself is nothing.
	if data, err = json.Marshal(compare(older.document(1), older.document(1))); err != nil || strings.Contains(string(data), "verdicts") ||
		strings.Contains(string(data), "measurements") || strings.Contains(string(data), "limits") {
		t.Errorf("a record differs from itself: %s, %v", data, err)
	}
}

func TestRecordDiff(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.furnish()
	d.visitRecords(acceptance.Pass, acceptance.Fail)
	whole := d.read("record2")
	d.write("same", d.read("record1"))
	d.write("cut", whole[:len(whole)/2])
	sig := strings.Index(whole, `"sig":"`) + len(`"sig":"`)
	d.write("altered", whole[:sig]+"QQQQ"+whole[sig+4:])
	d.write("other", d.otherDevice("record1"))
	for name, tc := range map[string]struct {
		args     string
		code     int
		out, err string
	}{
		"two visits":      {"--root @root.pub @record1 @record2", cli.OK, "optical power · received optical power: -19.2 dBm → -27.4 dBm  (-8.2 dB, noise ±0.5 dB)", ""},
		"verified":        {"--root @root.pub @record1 @record2", cli.OK, "· pass  verified\n", ""},
		"backwards":       {"--root @root.pub @record2 @record1", cli.OK, "the first record is the newer one", ""},
		"not verified":    {"@record1 @record2", cli.OK, "! not verified", ""},
		"altered":         {"--root @root.pub @record1 @altered", cli.Fail, "!!! ALTERED", ""},
		"another root":    {"--root @stranger.pub @record1 @record2", cli.Inconclusive, "not verified", ""},
		"the same twice":  {"@record1 @record1", cli.Usage, "", "are the same record"},
		"a copy":          {"@record1 @same", cli.Usage, "", "are the same record"},
		"cut":             {"@record1 @cut", cli.Usage, "", "unexpected EOF"},
		"one":             {"@record1", cli.Usage, "", "takes two files, got 1"},
		"another device":  {"@record1 @other", cli.Usage, "", "--anyway"},
		"nevertheless":    {"--anyway @record1 @other", cli.OK, "the records are of different devices", ""},
		"json":            {"--json @record1 @record2", cli.OK, `"delta":-8.2`, ""},
		"a language":      {"--lang zh-CN @record1 @record2", cli.OK, "超出误差的数值变化", ""},
		"another languag": {"--lang de @record1 @record2", cli.Usage, "", "neither zh-CN nor en"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := d.ontctl(append([]string{"record", "diff", "--lang", "en"}, strings.Fields(tc.args)...)...)
			if code != tc.code || !strings.Contains(out, tc.out) || !strings.Contains(errs, tc.err) {
				t.Errorf("ended with %d, not %d: %s%s", code, tc.code, errs, out)
			}
		})
	}
}

// otherDevice is a record that says that it is of another gateway.
func (d *desk) otherDevice(name string) string {
	d.t.Helper()
	v := record.Verify([]byte(d.read(name)), record.VerifyOptions{})
	r := *v.Record
	r.Device = "HWTC87654321"
	log, err := record.OpenLog(record.LogOptions{FS: durable.OS{}, Dir: d.path("elsewhere"), Key: d.key("gateway.key")})
	if err != nil {
		d.t.Fatal(err)
	}
	_, data, err := log.Close(r)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(data)
}
