package steps_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/diagnosis"
	"ontagent/collectors"
	"ontagent/collectors/optics"
	"ontagent/collectors/pon"
)

// states is a source that gives these one after the other, the last for ever.
func states(ss ...any) *ponFunc {
	return &ponFunc{read: func(n int) (pon.Status, error) {
		switch v := ss[min(n, len(ss)-1)].(type) {
		case pon.Status:
			return v, nil
		case string:
			return pon.Status{Raw: v, OMCIProvisioned: pon.Yes}, nil
		case error:
			return pon.Status{}, v
		}
		return pon.Status{}, errors.New("unexpected")
	}}
}

func TestRegistration(t *testing.T) {
	const pass, fail, unclear = acceptance.Pass, acceptance.Fail, acceptance.Inconclusive
	omci := func(answer string) pon.Status { return pon.Status{Raw: "O5", OMCIProvisioned: answer} }
	loid := func(status string) pon.Status {
		return pon.Status{Raw: "O5", OMCIProvisioned: pon.Yes, LOIDStatus: status}
	}
	alarms := func(state string, known []string, active ...string) pon.Status {
		return pon.Status{Raw: state, OMCIProvisioned: pon.Unknown, Alarms: active, AlarmsKnown: known}
	}
	repeat := func(v any, n int) []any {
		var out []any
		for range n {
			out = append(out, v)
		}
		return out
	}
	for _, tt := range []struct {
		name     string
		reads    []any
		verdict  acceptance.Verdict
		causes   []diagnosis.Code
		warnings []diagnosis.Code
		passable bool
		count    int // reads that were made; 0: not looked at
	}{
		{name: "registered", reads: []any{"O5"}, verdict: pass, passable: true, count: 2},
		{name: "XGS-PON", reads: []any{"O5.1"}, verdict: pass, passable: true},
		{name: "EPON", reads: []any{"3"}, verdict: pass, passable: true},
		{name: "comes up meanwhile", reads: []any{"O1", "O3", "O4", "O5"}, verdict: pass, warnings: []diagnosis.Code{diagnosis.PONPopup}, passable: true, count: 5},
		{name: "one failed read between", reads: []any{"O5", errBroken, "O5", "O5"}, verdict: pass, passable: true, count: 4},

		{name: "fake O5", reads: []any{omci(pon.No)}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONFakeO5}, passable: true, count: 6},
		{name: "provisioned after some seconds", reads: append(repeat(omci(pon.No), 4), omci(pon.Yes)), verdict: pass, passable: true, count: 6},
		{name: "nothing tells of OMCI", reads: []any{omci(pon.Unknown)}, verdict: unclear, causes: []diagnosis.Code{diagnosis.PONOMCIUnknown}, passable: true},
		{name: "OMCI now so, now so", reads: []any{omci(pon.No), omci(pon.Yes), omci(pon.No), omci(pon.Yes), omci(pon.No), omci(pon.Yes), omci(pon.No), omci(pon.Yes), omci(pon.No), omci(pon.Yes), omci(pon.No), omci(pon.Yes)}, verdict: unclear, causes: []diagnosis.Code{diagnosis.PONOMCIUnknown}, passable: true},
		{name: "reached O5 too late to tell", reads: append(repeat("O4", 10), omci(pon.No)), verdict: unclear, causes: []diagnosis.Code{diagnosis.PONPopup}, passable: true},

		{name: "LOID accepted", reads: []any{loid("1")}, verdict: pass, passable: true},
		{name: "LOID not tried", reads: []any{loid("0")}, verdict: pass, passable: true},
		{name: "LOID unknown", reads: []any{loid("2")}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONLOIDUnknown}, passable: true, count: 2},
		{name: "LOID password", reads: []any{loid("PASSWORD ERROR")}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONLOIDPassword}, passable: true},
		{name: "LOID duplicate", reads: []any{loid("4")}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONLOIDDuplicate}, passable: true},
		{name: "LOID inexistence", reads: []any{loid("LOID INEXISTENCE")}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONLOIDUnknown}, passable: true},
		{name: "LOID fails", reads: []any{loid("FAIL")}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONAuthRejected}, passable: true},
		{name: "LOID success in words", reads: []any{loid("SUCCESS")}, verdict: pass, passable: true},
		{name: "LOID in words nobody knows is not a rejection", reads: []any{loid("banana")}, verdict: pass, passable: true},
		{name: "one LOID rejection is none", reads: []any{loid("3"), loid("1")}, verdict: pass, passable: true},
		{name: "rejected LOID before O5", reads: []any{pon.Status{Raw: "O4", LOIDStatus: "2"}}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONLOIDUnknown}},

		{name: "no signal", reads: []any{alarms("O1", []string{"los"}, "los")}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONLOS}, count: 12},
		{name: "no signal, alarms unknown", reads: []any{"O1"}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONLOS}},
		{name: "light but no sync", reads: []any{alarms("O1", []string{"lof", "los"}, "lof")}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONNoSync}},
		{name: "waits to be found", reads: []any{"O2"}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONNotProvisionedSN}},
		{name: "loops in O2 and O3", reads: []any{"O2", "O3", "O2", "O3", "O2", "O3", "O2", "O3", "O2", "O3", "O2", "O1"}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONNotProvisionedSN}},
		{name: "loops in O4", reads: []any{"O3", "O4", "O3", "O4", "O3", "O4", "O3", "O4", "O3", "O4", "O3", "O2"}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONRangingFailed}},
		{name: "stopped", reads: []any{"O7"}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONStoppedByOLT}, count: 2},
		{name: "falls out", reads: append(repeat("O1", 1), "O5", "O6", "O1"), verdict: fail, causes: []diagnosis.Code{diagnosis.PONPopup}},
		{name: "popup", reads: []any{"O6"}, verdict: fail, causes: []diagnosis.Code{diagnosis.PONPopup}},

		{name: "most reads fail", reads: append(repeat(errBroken, 7), "O1"), verdict: unclear, causes: []diagnosis.Code{diagnosis.PONUnreadable}},
		{name: "stops telling", reads: append(repeat("O1", 9), "??"), verdict: unclear, causes: []diagnosis.Code{diagnosis.PONUnreadable}},
		{name: "a single word is no proof", reads: append([]any{"O7"}, "??"), verdict: unclear, causes: []diagnosis.Code{diagnosis.PONUnreadable}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := states(tt.reads...)
				out := steps.NewRegistration(steps.RegistrationOptions{Reader: source}).Run(t.Context(), func(string) {})
				if out.Passable != tt.passable {
					t.Errorf("passable %t", out.Passable)
				}
				if tt.count > 0 && source.n != tt.count {
					t.Errorf("%d reads, want %d", source.n, tt.count)
				}
				source.n = 0
				check(t, run(t, steps.NewRegistration(steps.RegistrationOptions{Reader: source})), tt.verdict, tt.causes, tt.warnings)
			})
		})
	}
}

func TestRegistrationKeepsWhatItRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		res := run(t, steps.NewRegistration(steps.RegistrationOptions{Reader: states(pon.Status{
			Raw: "O5", OMCIProvisioned: pon.Yes, OMCIEvidence: "OLT vendor set", GEMPorts: 4, TConts: 2, FlowsKnown: true, LOIDStatus: "1",
			Alarms: []string{"sd"}, AlarmsKnown: []string{"los", "sd"},
		})}))
		for name, want := range map[string]any{
			"onu_state": pon.StateOperational, "omci_provisioned": "yes", "gem_ports": 4, "t_conts": 2, "loid_status": "1", "pon_alarms": "sd",
		} {
			if m := measurement(t, res, name); m.Value != want || m.Source != "console:test" {
				t.Errorf("%s: %+v, want %v", name, m, want)
			}
		}
		if m := measurement(t, res, "onu_state"); m.Raw != "O5" {
			t.Errorf("raw state %q", m.Raw)
		}
	})
}

// TestRegistrationLooksAtTheLight is for ONUs that are not registered: with
// light, without, and with a laser that gives none.
func TestRegistrationLooksAtTheLight(t *testing.T) {
	const ok, none = collectors.StatusOK, collectors.StatusNoLight
	look := func(rx, tx collectors.Status) steps.OpticsReader {
		return &opticsFunc{name: "console:test", read: func(int) (optics.Reading, error) {
			r := optics.Unread("console:test", collectors.StatusUnsupported)
			r.RxPower.Status, r.TxPower.Status = rx, tx
			return r, nil
		}}
	}
	burst := &opticsFunc{name: "console:test", read: func(n int) (optics.Reading, error) {
		r := optics.Unread("console:test", collectors.StatusUnsupported)
		r.RxPower.Status, r.TxPower.Status = ok, none
		if n == 1 {
			r.TxPower.Status = ok
		}
		return r, nil
	}}
	for _, tt := range []struct {
		name  string
		state pon.Status
		light steps.OpticsReader
		want  diagnosis.Code
	}{
		{"light, no lock", pon.Status{Raw: "O1"}, look(ok, none), diagnosis.PONNoSync},
		{"light, and the MAC says loss of signal", pon.Status{Raw: "O1", Alarms: []string{"los"}, AlarmsKnown: []string{"los"}}, look(ok, none), diagnosis.PONLOS},
		{"dark", pon.Status{Raw: "O1"}, look(none, none), diagnosis.PONLOS},
		{"light that cannot be read", pon.Status{Raw: "O1"}, look(collectors.StatusError, none), diagnosis.PONLOS},
		{"not asked to transmit", pon.Status{Raw: "O2"}, look(ok, none), diagnosis.PONNotProvisionedSN},
		{"asked, and dumb", pon.Status{Raw: "O3"}, look(ok, none), diagnosis.OpticalTxFault},
		{"dumb in ranging", pon.Status{Raw: "O4"}, look(ok, none), diagnosis.OpticalTxFault},
		{"asked, and seen once", pon.Status{Raw: "O4"}, burst, diagnosis.PONRangingFailed},
		{"asked, and nothing tells", pon.Status{Raw: "O4"}, look(ok, collectors.StatusUnsupported), diagnosis.PONRangingFailed},
		{"stopped", pon.Status{Raw: "O7"}, look(ok, none), diagnosis.PONStoppedByOLT},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				step := steps.NewRegistration(steps.RegistrationOptions{Reader: states(tt.state), Light: []steps.OpticsReader{tt.light}})
				check(t, run(t, step), acceptance.Fail, []diagnosis.Code{tt.want}, nil)
			})
		})
	}
}

// TestRegistrationCountsErrors gives counters that grow, stand still and are
// reset.
func TestRegistrationCountsErrors(t *testing.T) {
	up := func(at time.Duration, alarm string, counters map[string]uint64) pon.Status {
		st := pon.Status{Raw: "O5", OMCIProvisioned: pon.Yes, Counters: counters, At: time.Unix(1000, 0).Add(at)}
		if alarm != "" {
			st.Alarms, st.AlarmsKnown = []string{alarm}, []string{alarm}
		}
		return st
	}
	type counts = map[string]uint64
	const bad, stuck = diagnosis.OpticalBitErrors, diagnosis.OpticalLaserStuckOn
	for _, tt := range []struct {
		name          string
		first, second pon.Status
		verdict       acceptance.Verdict
		cause, warn   diagnosis.Code
	}{
		{"they stand still", up(0, "", counts{pon.BIP: 70, pon.FECUncorrected: 9}), up(time.Second, "", counts{pon.BIP: 70, pon.FECUncorrected: 9}), acceptance.Pass, "", ""},
		{"a codeword is lost", up(0, "", counts{pon.FECUncorrected: 9}), up(time.Second, "", counts{pon.FECUncorrected: 10}), acceptance.Pass, "", bad},
		{"a few bits", up(0, "", counts{pon.BIP: 70}), up(time.Second, "", counts{pon.BIP: 79}), acceptance.Pass, "", ""},
		{"many bits", up(0, "", counts{pon.BIP: 70}), up(time.Second, "", counts{pon.BIP: 80}), acceptance.Pass, "", bad},
		{"reset", up(0, "", counts{pon.BIP: 7000}), up(time.Second, "", counts{pon.BIP: 80}), acceptance.Pass, "", ""},
		{"read once", up(0, "", nil), up(time.Second, "", counts{pon.BIP: 8000}), acceptance.Pass, "", ""},
		{"degraded", up(0, "sd", nil), up(time.Second, "sd", nil), acceptance.Pass, "", bad},
		{"the laser overran", up(0, "", counts{pon.SDTooLong: 1}), up(time.Second, "", counts{pon.SDTooLong: 3}), acceptance.Fail, stuck, ""},
		{"it overran once, long ago", up(0, "", counts{pon.SDTooLong: 1}), up(time.Second, "", counts{pon.SDTooLong: 1}), acceptance.Pass, "", ""},
		{"forced on", up(0, "laser_forced_on", nil), up(time.Second, "laser_forced_on", nil), acceptance.Fail, stuck, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				list := func(c diagnosis.Code) []diagnosis.Code {
					return slices.DeleteFunc([]diagnosis.Code{c}, func(c diagnosis.Code) bool { return c == "" })
				}
				out := run(t, steps.NewRegistration(steps.RegistrationOptions{Reader: states(tt.first, tt.second)}))
				check(t, out, tt.verdict, list(tt.cause), list(tt.warn))
			})
		})
	}
}

// TestRegistrationOfADeadConsole ends before the rung's time does: that nothing
// could be read is a verdict.
func TestRegistrationOfADeadConsole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		res := run(t, steps.NewRegistration(steps.RegistrationOptions{Reader: slowPON{}}))
		check(t, res, acceptance.Inconclusive, []diagnosis.Code{diagnosis.PONUnreadable}, nil)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// slowPON is a console that never answers, which it takes five seconds to find.
type slowPON struct{}

func (slowPON) Name() string { return "console:test" }

func (slowPON) ReadPON(ctx context.Context) (pon.Status, error) {
	select {
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
	}
	return pon.Status{}, errBroken
}
