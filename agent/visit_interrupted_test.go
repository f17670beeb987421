package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"ontagent/agent/acceptance"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/transport/durable"
	"ontagent/transport/durable/faultfs"
)

const openPath = "/jobs/visit.open"

// on puts a site's records and its open visit on a disk, as a daemon does that
// starts there.
func (s *site) on(disk *faultfs.FS) *site {
	s.t.Helper()
	if err := durable.MkdirAll(disk, "test.dir", "/jobs", 0o700); err != nil {
		s.t.Fatal(err)
	}
	log, err := record.OpenLog(record.LogOptions{FS: disk, Dir: "/records", Key: s.gateway})
	if err != nil {
		s.t.Fatal(err)
	}
	s.visits.Records, s.visits.Open = log, &OpenVisit{FS: disk, Path: openPath}
	return s
}

// opened verifies the only record of a job on a disk; nil: it has none.
func (s *site) opened(disk *faultfs.FS, jobID string) (*record.Verification, acceptance.Report) {
	s.t.Helper()
	var all []string
	for _, name := range disk.Files() {
		if strings.HasSuffix(name, "-"+jobID+".record") {
			all = append(all, name)
		}
	}
	if len(all) == 0 {
		return nil, acceptance.Report{}
	}
	if len(all) > 1 {
		s.t.Fatalf("two records of one job: %v", all)
	}
	data, _ := disk.Get(all[0])
	v := record.Verify(data, record.VerifyOptions{Root: ed25519.PublicKey(publicOf(s.root))})
	var report acceptance.Report
	if err := json.Unmarshal(v.Record.Ladder, &report); err != nil {
		s.t.Fatal(err)
	}
	return &v, report
}

// TestPowerCutAnywhereLeavesOneRecord cuts the power in every single call of a
// visit to the disk.
func TestPowerCutAnywhereLeavesOneRecord(t *testing.T) {
	interrupted, whole, none, step := 0, 0, 0, 1
	if testing.Short() {
		step = 3 // an emulated processor takes seconds for more
	}
	for cut := 0; ; cut += step {
		disk := faultfs.New(faultfs.Like(cut%2), uint64(cut))
		climbed := []acceptance.Rung{}
		step := func(rung acceptance.Rung) acceptance.Step {
			f := passing(rung)
			f.out.Measurements = []acceptance.Measurement{{Name: "m", Value: 1.5, Status: "ok", Raw: strings.Repeat("r", 300)}}
			f.run = func(context.Context, func(string)) {
				if !disk.IsCut() {
					climbed = append(climbed, rung)
				}
			}
			return f
		}
		s := newSite(t, step(acceptance.Optical), step(acceptance.Registration), step(acceptance.DNS), step(acceptance.Host)).on(disk)
		disk.CutIn(cut)
		out := s.visits.Accept(t.Context(), s.grant(nil), ignore)
		told := !disk.IsCut()
		disk.Cut()
		disk.PowerOn()

		s.on(disk)
		s.filed = nil
		c, closed := s.visits.Recover()
		if again, ok := s.visits.Recover(); ok {
			t.Fatalf("cut %d: closed twice: %+v", cut, again)
		}
		if slices.Contains(disk.Files(), openPath) {
			t.Fatalf("cut %d: the visit is still open", cut)
		}
		v, report := s.opened(disk, "job-1")
		switch {
		case v == nil && len(climbed) > 0:
			t.Fatalf("cut %d: no record, after %v", cut, climbed)
		case v == nil:
			none++
			continue
		case v.Status != record.Valid:
			t.Fatalf("cut %d: %s %s", cut, v.Status, v.Problem)
		case closed && (c.Job != "job-1" || c.Order != "WO-1" || order.Digest(c.Record) != v.Digest || !report.Interrupted):
			t.Fatalf("cut %d: recovered %+v, interrupted %t", cut, c, report.Interrupted)
		case !closed && report.Interrupted:
			t.Fatalf("cut %d: interrupted, but not recovered", cut)
		case told && (out.Err != nil || out.RecordSHA != v.Digest || closed):
			t.Fatalf("cut %d: the outcome was %+v, the record %s", cut, out, v.Digest)
		}
		if len(report.Results) != 4 || report.Verdict != acceptance.Overall(report.Results) {
			t.Fatalf("cut %d: %+v", cut, report)
		}
		if told {
			if whole++; whole > 2 {
				break
			}
			continue
		}
		if !report.Interrupted {
			continue // the record was closed, its visit not yet forgotten
		}
		interrupted++
		for i, res := range report.Results {
			known := i < len(climbed)
			if !known && (res.Verdict != acceptance.Inconclusive || res.Causes[0] != "agent.interrupted") {
				t.Errorf("cut %d: %s was not measured and is %s", cut, res.Rung, res.Verdict)
			}
			// What came before the rung that was under way is kept.
			if i < len(climbed)-1 && (res.Verdict != acceptance.Pass || len(res.Measurements) != 1 || len(res.Measurements[0].Raw) != 300) {
				t.Errorf("cut %d: %s was measured and is %s: %+v", cut, res.Rung, res.Verdict, res.Measurements)
			}
		}
	}
	t.Logf("%d power cuts left a record of an interrupted visit, %d none because nothing had begun", interrupted, none)
	if interrupted < 8/step || none == 0 {
		t.Errorf("the cuts missed the visit: %d interrupted, %d none", interrupted, none)
	}
}

// TestRecoveredRecordGoesOnWithTheChain: the next record follows it.
func TestRecoveredRecordGoesOnWithTheChain(t *testing.T) {
	disk := faultfs.New(faultfs.Ext4, 1)
	s := newSite(t, passing(acceptance.Optical), passing(acceptance.Host)).on(disk)
	s.cutShort(disk)
	if _, ok := s.visits.Recover(); !ok {
		t.Fatal("nothing recovered")
	}
	s.filed = nil
	g := s.grant(nil)
	c := g.Command
	c.ID, c.Counter = "job-2", 2
	env, err := c.Sign(s.technician)
	if err != nil {
		t.Fatal(err)
	}
	g.Command, g.Request.Command = c, &env
	if out := s.visits.Accept(t.Context(), g, ignore); out.Err != nil {
		t.Fatal(out.Err)
	}
	first, _ := s.opened(disk, "job-1")
	second, _ := s.opened(disk, "job-2")
	if err := record.VerifyChain([]record.Verification{*first, *second}); err != nil {
		t.Error(err)
	}
}

// cutShort has the gateway lose power in the last moment of a visit, and brings
// it back.
func (s *site) cutShort(disk *faultfs.FS) {
	s.t.Helper()
	s.visits.Records = dying{s.visits.Records, disk}
	s.visits.Accept(s.t.Context(), s.grant(nil), ignore)
	disk.PowerOn()
	s.on(disk)
}

// TestFullFlashClosesTheRecordLater: no room at the start, room later.
func TestFullFlashClosesTheRecordLater(t *testing.T) {
	disk := faultfs.New(faultfs.Ext4, 1)
	s := newSite(t, passing(acceptance.Optical), passing(acceptance.Host)).on(disk)
	s.cutShort(disk)
	disk.SetCapacity(disk.Used())
	if c, ok := s.visits.Recover(); ok {
		t.Fatalf("recovered on a full disk: %+v", c)
	}
	// The next visit takes place all the same, and does not take its place.
	g := s.grant(nil)
	disk.SetCapacity(0)
	c := g.Command
	c.ID = "job-2"
	env, err := c.Sign(s.technician)
	if err != nil {
		t.Fatal(err)
	}
	g.Command, g.Request.Command = c, &env
	s.filed = nil
	if out := s.visits.Accept(t.Context(), g, ignore); out.Err != nil {
		t.Fatal(out.Err)
	}
	if len(s.filed) != 2 {
		t.Fatalf("%d records were filed, of the visit that was cut short and of the next", len(s.filed))
	}
	if v, report := s.opened(disk, "job-1"); v == nil || v.Status != record.Valid || !report.Interrupted {
		t.Errorf("%+v", v)
	}
}

// dying is a record log whose gateway loses power when it closes one.
type dying struct {
	RecordLog
	disk *faultfs.FS
}

func (d dying) Close(r record.Record) (order.Envelope, []byte, error) {
	d.disk.Cut()
	return d.RecordLog.Close(r)
}

// TestDamagedOpenVisitsDoNoHarm: whatever is in the file, the daemon starts, and
// no record says what was not measured.
func TestDamagedOpenVisitsDoNoHarm(t *testing.T) {
	disk := faultfs.New(faultfs.Ext4, 1)
	s := newSite(t, weak(), passing(acceptance.Host)).on(disk)
	s.cutShort(disk)
	good, ok := disk.Get(openPath)
	if !ok {
		t.Fatal("no visit is open")
	}
	lines := strings.SplitAfter(string(good), "\n")
	for name, data := range map[string]string{
		"empty": "", "zeros": strings.Repeat("\x00", 4096), "half a head": lines[0][:200], "no head": lines[1],
		"not JSON": "what\n", "null": "null\n", "a version to come": strings.Replace(string(good), `{"v":1,`, `{"v":2,`, 1),
		"too large": strings.Repeat("x", maxOpenVisit+1), "no order": strings.Replace(string(good), `"payload":"`, `"payload":"!`, 9),
	} {
		disk := disk.Clone(2)
		disk.Put(openPath, []byte(data))
		s.on(disk)
		if c, ok := s.visits.Recover(); ok {
			t.Errorf("%s: closed %+v", name, c)
		}
		if slices.Contains(disk.Files(), openPath) {
			t.Errorf("%s: it is tried again for ever", name)
		}
	}
	for cut := 0; cut < len(good); cut += 1 + len(good)/97 {
		disk := disk.Clone(3)
		disk.Put(openPath, good[:cut])
		s.on(disk)
		_, closed := s.visits.Recover()
		v, report := s.opened(disk, "job-1")
		if closed != (cut >= len(lines[0])) || closed != (v != nil) {
			t.Fatalf("cut off at %d: closed %t", cut, closed)
		}
		if v != nil && (v.Status != record.Valid || !report.Interrupted || len(report.Results) != 2) {
			t.Errorf("cut off at %d: %s, %+v", cut, v.Status, report)
		}
	}
}

// TestEachEndOfAVisitLeavesARecord: cancelled, out of time, stopped.
func TestEachEndOfAVisitLeavesARecord(t *testing.T) {
	for name, limit := range map[string]func(context.Context) (context.Context, context.CancelFunc){
		"cancelled":   context.WithCancel,
		"out of time": func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			disk := faultfs.New(faultfs.Ext4, 1)
			ctx, cancel := limit(t.Context())
			defer cancel()
			s := newSite(t, fakeStep{rung: acceptance.Optical, run: func(ctx context.Context, _ func(string)) {
				cancel()
				<-ctx.Done()
			}}, passing(acceptance.Host)).on(disk)
			out := s.visits.Accept(ctx, s.grant(nil), func(job.Progress) {})
			v, report := s.opened(disk, "job-1")
			if out.Err != nil || v == nil || v.Status != record.Valid || !report.Interrupted || out.RecordSHA != v.Digest {
				t.Errorf("outcome %+v, record %+v", out, v)
			}
			if slices.Contains(disk.Files(), openPath) {
				t.Error("the visit is still open")
			}
		})
	}
}

// TestLineFollowsTheRecords: what is installed or moved begins a new health
// record, a repair that passes renews it, an inspection compares.
func TestLineFollowsTheRecords(t *testing.T) {
	disk := faultfs.New(faultfs.Ext4, 1)
	light := func(dbm float64, v acceptance.Verdict) fakeStep {
		f := weak()
		f.out.Verdict, f.out.Measurements[0].Value = v, dbm
		return f
	}
	n := 0
	for _, tc := range []struct {
		typ     order.Type
		command order.CommandType
		dbm     float64
		verdict acceptance.Verdict
		before  float64 // the line's; 0: none
		renews  bool
	}{
		{order.Repair, order.Accept, -27, "fail", 0, false},
		{order.Install, order.Accept, -19, "pass", 0, true},
		{order.Inspect, order.Inspection, -20, "pass", -19, false},
		{order.Repair, order.Accept, -27, "fail", -19, false},
		{order.Repair, order.Accept, -21, "pass", -19, true},
		{order.Repair, order.RepairCmd, -22, "pass", -21, false},
		{order.Move, order.Accept, -26, "fail", 0, false},
		{order.Inspect, order.Inspection, -24, "pass", 0, true},
		{order.Move, order.Accept, -18, "pass", 0, true},
		{order.Inspect, order.Inspection, -18, "pass", -18, false},
	} {
		n++
		s := newSite(t, light(tc.dbm, tc.verdict), passing(acceptance.Host)).on(disk)
		g := s.grant(func(o *order.Order) { o.Type, o.Allow = tc.typ, []order.CommandType{tc.command} })
		c := g.Command
		c.ID, c.Type = fmt.Sprintf("job-%d", n), tc.command
		env, err := c.Sign(s.technician)
		if err != nil {
			t.Fatal(err)
		}
		g.Command, g.Request.Command = c, &env
		if out := s.visits.Accept(t.Context(), g, ignore); out.Err != nil {
			t.Fatal(out.Err)
		}
		v, _ := s.opened(disk, c.ID)
		if v.Status != record.Valid {
			t.Fatalf("%d: %s %s", n, v.Status, v.Problem)
		}
		before := 0.0
		if v.Record.Line != nil {
			before = v.Record.Line.Readings["rx_power_dbm"]
		}
		if before != tc.before || v.Record.Renews != tc.renews {
			t.Errorf("%d: compared with %g, want %g; renews %t, want %t", n, before, tc.before, v.Record.Renews, tc.renews)
		}
	}
}

func FuzzOpenVisit(f *testing.F) {
	f.Add([]byte(`{"v":1,"record":{"v":0,"n":0},"plan":[{"rung":"optical","required":true},{"rung":"host"}]}` + "\n" + `{"result":{"rung":"optical","verdict":"pass"}}` + "\n"))
	f.Add([]byte("{\"v\":1,\"record\":{}}\n{\"result\":{}}\n{\"v\":1,\"record\":{},\"plan\":[{}]}\n\x00\x00"))
	disk := faultfs.New(faultfs.Ext4, 1)
	if err := durable.MkdirAll(disk, "test.dir", "/jobs", 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		disk.Put(openPath, data)
		head, results, err := (&OpenVisit{FS: disk, Path: openPath}).load()
		if err != nil {
			return
		}
		report := interrupted(head.Plan, results)
		if len(report.Results) != len(head.Plan) || !report.Interrupted {
			t.Fatalf("%q: %+v", data, report)
		}
		for i, res := range report.Results {
			measured := i < len(results) && res.Verdict == results[i].Verdict
			if !measured && res.Verdict != acceptance.Inconclusive {
				t.Fatalf("%q: %s was not measured and is %s", data, res.Rung, res.Verdict)
			}
		}
	})
}
