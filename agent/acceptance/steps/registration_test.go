package steps_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/diagnosis"
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
