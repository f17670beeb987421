package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/job"
	"ontagent/agent/order"
	"ontagent/agent/record"
	"ontagent/transport/durable"
)

// fakeStep returns what it was told to.
type fakeStep struct {
	rung acceptance.Rung
	out  acceptance.Outcome
	run  func(ctx context.Context, note func(string))
}

func (f fakeStep) Rung() acceptance.Rung    { return f.rung }
func (f fakeStep) Needs() []acceptance.Rung { return nil }
func (f fakeStep) Deadline() time.Duration  { return 5 * time.Second }

func (f fakeStep) Run(ctx context.Context, note func(string)) acceptance.Outcome {
	if f.run != nil {
		f.run(ctx, note)
	}
	return f.out
}

// site is a gateway, its operator and its technician.
type site struct {
	t                                   *testing.T
	root, operator, technician, gateway ed25519.PrivateKey
	steps                               []acceptance.Step
	limits                              acceptance.Thresholds
	visits                              *Visits
	filed                               []order.Envelope
}

func keyFrom(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func publicOf(k ed25519.PrivateKey) order.PublicKey {
	p, _ := k.Public().(ed25519.PublicKey)
	return order.PublicKey(p)
}

func newSite(t *testing.T, steps ...acceptance.Step) *site {
	t.Helper()
	s := &site{t: t, root: keyFrom(1), operator: keyFrom(2), technician: keyFrom(3), gateway: keyFrom(4), steps: steps}
	log, err := record.OpenLog(record.LogOptions{FS: durable.OS{}, Dir: t.TempDir(), Key: s.gateway})
	if err != nil {
		t.Fatal(err)
	}
	st := order.Statement{
		V: 1, Device: "HWTC12345678", Ed25519: publicOf(s.gateway), X25519: order.X25519Key{1}, TLSSPKI: strings.Repeat("ab", 32),
	}
	s.visits = &Visits{
		Steps: func(v Visit) []acceptance.Step {
			s.limits = v.Limits
			return s.steps
		},
		Limits: acceptance.Norms(), Records: log,
		Statement: func() (order.Envelope, error) { return st.Sign(s.operator) },
		Frame:     record.Record{Device: "HWTC12345678", Tenant: "lab"},
		Moment:    func() record.Moment { return record.Moment{UTC: "2026-03-01T12:00:00Z", Clock: "ntp"} },
		Filed:     func(_ string, env order.Envelope) { s.filed = append(s.filed, env) },
		Now:       time.Now, Log: slog.New(slog.DiscardHandler),
	}
	return s
}

func (s *site) grant(change func(*order.Order)) order.Grant {
	s.t.Helper()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	o := order.Order{
		V: 1, Order: "WO-1", Rev: 1, Type: order.Repair, Tenant: "lab", Device: "HWTC12345678",
		Technicians: []order.Technician{{ID: "T-7", Key: publicOf(s.technician)}}, Require: []string{"optical", "host"},
		Allow: []order.CommandType{order.Accept}, NotBefore: now, NotAfter: now.Add(time.Hour), MaxRuns: 1,
	}
	if change != nil {
		change(&o)
	}
	c := order.Command{V: 1, ID: "job-1", Order: o.Order, Rev: 1, Device: o.Device, Type: order.Accept, Counter: 1}
	trust := order.TrustList{V: 1, Version: 1, Tenant: "lab", Keys: []order.TrustKey{
		{ID: "op", Role: order.RoleOperator, Key: publicOf(s.operator)},
	}}
	sign := func(env order.Envelope, err error) order.Envelope {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
		return env
	}
	orderEnv, cmdEnv := sign(o.Sign(s.operator)), sign(c.Sign(s.technician))
	return order.Grant{
		Verified: order.Verified{
			Order: o, Command: c, Technician: o.Technicians[0],
			Request: order.Request{V: 1, Order: &orderEnv, Command: &cmdEnv},
		},
		Trust: sign(trust.Sign(s.root)), ClockProof: "clock",
	}
}

func (s *site) verify() (record.Verification, acceptance.Report) {
	s.t.Helper()
	if len(s.filed) != 1 {
		s.t.Fatalf("%d records were filed", len(s.filed))
	}
	data, err := record.Marshal(s.filed[0])
	if err != nil {
		s.t.Fatal(err)
	}
	v := record.Verify(data, record.VerifyOptions{Root: ed25519.PublicKey(publicOf(s.root))})
	var report acceptance.Report
	if err := json.Unmarshal(v.Record.Ladder, &report); err != nil {
		s.t.Fatal(err)
	}
	return v, report
}

func passing(rung acceptance.Rung) fakeStep {
	return fakeStep{rung: rung, out: acceptance.Outcome{Verdict: acceptance.Pass}}
}

func weak() fakeStep {
	return fakeStep{rung: acceptance.Optical, out: acceptance.Outcome{
		Verdict: acceptance.Fail, Causes: []string{"optical.rx_too_weak"}, Passable: true,
		Measurements: []acceptance.Measurement{{Name: "rx_power_dbm", Value: -27.4, Status: "ok", Raw: "-27.4  dBm"}},
	}}
}

func ignore(job.Progress) {}

func TestAcceptClosesAValidRecordWhateverTheVerdict(t *testing.T) {
	for name, tc := range map[string]struct {
		steps   []acceptance.Step
		verdict string
		cause   string
	}{
		"pass":          {[]acceptance.Step{passing(acceptance.Optical), passing(acceptance.Host)}, "pass", ""},
		"fail":          {[]acceptance.Step{weak(), passing(acceptance.Host)}, "fail", "optical.rx_too_weak"},
		"not supported": {[]acceptance.Step{passing(acceptance.Optical)}, "inconclusive", "agent.not_supported"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, tc.steps...)
			var told []job.Progress
			out := s.visits.Accept(t.Context(), s.grant(nil), func(p job.Progress) { told = append(told, p) })
			if out.Err != nil || out.Verdict != tc.verdict || out.FirstCause != tc.cause {
				t.Fatalf("outcome %+v", out)
			}
			v, report := s.verify()
			if v.Status != record.Valid || v.Record.Verdict != tc.verdict || out.RecordSHA != v.Digest || v.Record.Technician != "T-7" {
				t.Errorf("record %+v", v)
			}
			if string(report.Verdict) != tc.verdict || len(told) == 0 || told[len(told)-1].Fraction != 1 {
				t.Errorf("report %s, told %+v", report.Verdict, told)
			}
			if tc.verdict == "fail" && v.Record.Baseline["rx_power_dbm"] != -27.4 {
				t.Errorf("baseline %v", v.Record.Baseline)
			}
		})
	}
}

func TestOrderThresholdsReachTheSteps(t *testing.T) {
	s := newSite(t, passing(acceptance.Optical), passing(acceptance.Host))
	g := s.grant(func(o *order.Order) { o.Thresholds = map[string]float64{"optical.rx_min_dbm": -24} })
	if out := s.visits.Accept(t.Context(), g, ignore); out.Err != nil {
		t.Fatal(out.Err)
	}
	if l := s.limits.Limit("optical.rx_min_dbm"); l.Value != -24 || l.Origin != acceptance.OriginOrder {
		t.Errorf("limit %+v", l)
	}
	g = s.grant(func(o *order.Order) { o.Thresholds = map[string]float64{"optical.rx_min_dbm": -250} })
	if out := s.visits.Accept(t.Context(), g, ignore); out.Err == nil {
		t.Error("accepted a threshold nobody can mean")
	}
}

func TestWithoutAStatementNothingIsRun(t *testing.T) {
	ran := false
	s := newSite(t, fakeStep{rung: acceptance.Optical, run: func(context.Context, func(string)) { ran = true }})
	s.visits.Statement = func() (order.Envelope, error) { return order.Envelope{}, errors.New("no such file") }
	if out := s.visits.Accept(t.Context(), s.grant(nil), ignore); out.Err == nil || ran || len(s.filed) > 0 {
		t.Errorf("outcome %+v, ran %v", out, ran)
	}
}

func TestCancelledVisitStillLeavesARecord(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newSite(t, fakeStep{rung: acceptance.Optical, run: func(ctx context.Context, _ func(string)) {
		cancel()
		<-ctx.Done()
	}}, passing(acceptance.Host))
	if out := s.visits.Accept(ctx, s.grant(nil), ignore); out.Err != nil || out.Verdict != "inconclusive" {
		t.Fatalf("outcome %+v", out)
	}
	if v, report := s.verify(); v.Status != record.Valid || !report.Interrupted {
		t.Errorf("record %+v, interrupted %v", v, report.Interrupted)
	}
}

func TestRecordTooLargeLeavesEvidenceOut(t *testing.T) {
	noisy := weak()
	noisy.run = func(_ context.Context, note func(string)) {
		for range acceptance.MaxLogLines {
			note(strings.Repeat("x", 100))
		}
	}
	var many []acceptance.Measurement
	for i := range 128 {
		many = append(many, acceptance.Measurement{Name: fmt.Sprintf("m%d", i), Value: 1.0, Status: "ok", Raw: strings.Repeat("r", 500)})
	}
	noisy.out.Measurements = append(noisy.out.Measurements, many...)
	s := newSite(t, noisy, passing(acceptance.Host))
	out := s.visits.Accept(t.Context(), s.grant(nil), ignore)
	if out.Err != nil || out.Verdict != "fail" {
		t.Fatalf("outcome %+v", out)
	}
	v, report := s.verify()
	res, _ := report.Result(acceptance.Optical)
	if v.Status != record.Valid || len(res.Log) != 1 || !strings.Contains(res.Log[0], "left out") {
		t.Errorf("record %s, log %q", v.Status, res.Log)
	}
}

// TestEndlessEvidenceStillLeavesARecord: whatever sources are made to say, the
// visit ends in a record with its verdicts.
func TestEndlessEvidenceStillLeavesARecord(t *testing.T) {
	long := strings.Repeat("<", 500) // six bytes each in JSON
	var steps []acceptance.Step
	for _, rung := range acceptance.Ladder() {
		out := acceptance.Outcome{Verdict: acceptance.Fail, Reason: long, Causes: []string{"unknown"}, Passable: true, Conditions: map[string]string{}}
		for i := range 128 {
			out.Measurements = append(out.Measurements, acceptance.Measurement{Name: fmt.Sprintf("m%d", i), Value: long, Status: "ok", Raw: long, Note: long})
			out.Conditions[fmt.Sprint(i)] = long
		}
		steps = append(steps, fakeStep{rung: rung, out: out, run: func(_ context.Context, note func(string)) {
			for range 100 {
				note(long)
			}
		}})
	}
	s := newSite(t, steps...)
	if out := s.visits.Accept(t.Context(), s.grant(nil), ignore); out.Err != nil {
		t.Fatal(out.Err)
	}
	if v, report := s.verify(); v.Status != record.Valid || len(report.Results) != len(acceptance.Ladder()) || v.Record.Verdict != "fail" {
		t.Errorf("%s, %d results", v.Status, len(report.Results))
	}
}

func TestDiagnoseLeavesNoRecord(t *testing.T) {
	s := newSite(t, weak(), passing(acceptance.Host))
	out := s.visits.Diagnose(t.Context(), s.grant(nil), ignore)
	if out.Verdict != "fail" || out.RecordSHA != "" || len(s.filed) > 0 {
		t.Errorf("outcome %+v", out)
	}
}
