package steps_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/acceptance"
	"ontagent/agent/acceptance/steps"
	"ontagent/agent/diagnosis"
	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// light is a source that gives these readings one after the other, the last for
// ever: a number is dBm, NaN stands for no light, a Status for itself.
func light(name string, readings ...any) *opticsFunc {
	return &opticsFunc{name: name, read: func(n int) (optics.Reading, error) {
		r := optics.Unread(name, collectors.StatusUnsupported)
		switch v := readings[min(n, len(readings)-1)].(type) {
		case float64:
			r.RxPower = collectors.Reading{Unit: "dBm", Source: name, Raw: fmt.Sprintf("%f  dBm", v)}
			if math.IsNaN(v) {
				r.RxPower.Status, r.RxPower.Raw = collectors.StatusNoLight, "-inf  dBm"
			} else {
				r.RxPower.Status, r.RxPower.Value = collectors.StatusOK, v
			}
		case collectors.Status:
			r.RxPower.Status = v
		case error:
			return r, v
		case optics.Thresholds:
			r.RxPower = collectors.Reading{Status: collectors.StatusOK, Value: -24, Source: name}
			r.Thresholds = &v
		}
		return r, nil
	}}
}

var dark = math.NaN()

func TestOptical(t *testing.T) {
	const (
		pass, fail, unclear = acceptance.Pass, acceptance.Fail, acceptance.Inconclusive
		untrusted           = collectors.StatusUntrusted
		unsupported         = collectors.StatusUnsupported
	)
	one := func(readings ...any) []*opticsFunc { return []*opticsFunc{light("console:test", readings...)} }
	for _, tt := range []struct {
		name     string
		sources  []*opticsFunc
		order    map[string]float64
		verdict  acceptance.Verdict
		causes   []diagnosis.Code
		warnings []diagnosis.Code
	}{
		{name: "healthy", sources: one(-18.2), verdict: pass},
		{name: "-25.00 fails", sources: one(-25.00), verdict: fail, causes: []diagnosis.Code{diagnosis.OpticalRxTooWeak}},
		{name: "just above -25 passes, with a warning", sources: one(math.Nextafter(-25, 0)), verdict: pass, warnings: []diagnosis.Code{diagnosis.OpticalRxWeakMargin}},
		{name: "-24.999 passes", sources: one(-24.999), verdict: pass, warnings: []diagnosis.Code{diagnosis.OpticalRxWeakMargin}},
		{name: "-23.00 has margin", sources: one(-23.0), verdict: pass},
		{name: "-23.01 has too little", sources: one(-23.01), verdict: pass, warnings: []diagnosis.Code{diagnosis.OpticalRxWeakMargin}},
		{name: "-8.00 passes", sources: one(-8.0), verdict: pass},
		{name: "just above -8 fails", sources: one(math.Nextafter(-8, 0)), verdict: fail, causes: []diagnosis.Code{diagnosis.OpticalRxOverload}},
		{name: "0 dBm is light", sources: one(0.0), verdict: fail, causes: []diagnosis.Code{diagnosis.OpticalRxOverload}},
		{name: "no light", sources: one(dark), verdict: fail, causes: []diagnosis.Code{diagnosis.OpticalNoLight}},
		{name: "a lower limit by the order", sources: one(-26.5), order: map[string]float64{"optical.rx_min_dbm": -27}, verdict: pass, warnings: []diagnosis.Code{diagnosis.OpticalRxWeakMargin}},
		{name: "a stricter limit by the order", sources: one(-22.5), order: map[string]float64{"optical.rx_min_dbm": -22}, verdict: fail, causes: []diagnosis.Code{diagnosis.OpticalRxTooWeak}},

		{name: "the median decides over a bad start", sources: one(-30.0, -20.0, -20.1), verdict: pass, warnings: []diagnosis.Code{diagnosis.OpticalUnsteady}},
		{name: "the median decides over a good start", sources: one(-20.0, -26.0, -26.1), verdict: fail, causes: []diagnosis.Code{diagnosis.OpticalRxTooWeak}, warnings: []diagnosis.Code{diagnosis.OpticalUnsteady}},
		{name: "one dark read of three", sources: one(-20.0, dark, -20.0), verdict: pass},
		{name: "one bright read of three", sources: one(dark, -20.0, dark), verdict: fail, causes: []diagnosis.Code{diagnosis.OpticalNoLight}},
		{name: "one failed read of three", sources: one(errBroken, -20.0, -20.0), verdict: pass},
		{name: "two failed reads of three", sources: one(errBroken, -20.0, errBroken), verdict: unclear, causes: []diagnosis.Code{diagnosis.OpticalUnreadable}},
		{name: "light, dark and an error", sources: one(-20.0, dark, errBroken), verdict: unclear, causes: []diagnosis.Code{diagnosis.OpticalUnsteady}},
		{name: "untrusted twice", sources: one(untrusted, -20.0, untrusted), verdict: unclear, causes: []diagnosis.Code{diagnosis.OpticalReadBroken}},

		{
			name: "a second source agrees", sources: []*opticsFunc{light("module", -20.0), light("console", -22.9)},
			verdict: pass,
		},
		{
			name: "3 dB apart is still one reading", sources: []*opticsFunc{light("module", -20.0), light("console", -23.0)},
			verdict: pass,
		},
		{
			name: "more than 3 dB apart", sources: []*opticsFunc{light("module", -20.0), light("console", -23.1)},
			verdict: unclear, causes: []diagnosis.Code{diagnosis.OpticalSourcesDisagree},
		},
		{
			name: "one sees light, one does not", sources: []*opticsFunc{light("module", dark), light("console", -20.0)},
			verdict: unclear, causes: []diagnosis.Code{diagnosis.OpticalSourcesDisagree},
		},
		{
			name: "the other way round", sources: []*opticsFunc{light("module", -20.0), light("console", dark)},
			verdict: unclear, causes: []diagnosis.Code{diagnosis.OpticalSourcesDisagree},
		},
		{
			name: "both dark", sources: []*opticsFunc{light("module", dark), light("console", dark)},
			verdict: fail, causes: []diagnosis.Code{diagnosis.OpticalNoLight},
		},
		{
			name: "a broken first source leaves it to the second", sources: []*opticsFunc{light("module", untrusted), light("console", -27.4)},
			verdict: fail, causes: []diagnosis.Code{diagnosis.OpticalRxTooWeak},
		},
		{
			name: "a source with nothing to read is left out", sources: []*opticsFunc{light("module", collectors.ErrNoData), light("console", -20.0)},
			verdict: pass,
		},
		{
			name: "the first of two unclear ones is named", sources: []*opticsFunc{light("module", untrusted), light("console", unsupported)},
			verdict: unclear, causes: []diagnosis.Code{diagnosis.OpticalReadBroken},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits, err := acceptance.Norms().With(acceptance.OriginOrder, tt.order)
				if err != nil {
					t.Fatal(err)
				}
				var readers []steps.OpticsReader
				for _, s := range tt.sources {
					s.n = 0
					readers = append(readers, s)
				}
				check(t, run(t, steps.NewOptical(steps.OpticalOptions{Readers: readers, Thresholds: limits})), tt.verdict, tt.causes, tt.warnings)
			})
		})
	}
}

func TestOpticalKeepsWhatItRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		res := run(t, steps.NewOptical(steps.OpticalOptions{Readers: []steps.OpticsReader{light("module:eth1", -22.0, -22.5, -22.1), light("console:test", -22.9)}}))
		rx := measurement(t, res, "rx_power_dbm")
		want := acceptance.Measurement{Name: "rx_power_dbm", Value: -22.1, Status: "ok", Source: "module:eth1", Raw: "-22.100000  dBm", Note: "median of 3 reads"}
		if diff := cmp.Diff(want, rx); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if m, ok := measurement(t, res, "margin_db").Value.(float64); !ok || math.Abs(m-2.9) > 1e-9 {
			t.Errorf("margin %v", m)
		}
		if m := measurement(t, res, "rx_power_other_dbm"); m.Value != -22.9 || m.Source != "console:test" {
			t.Errorf("the other source: %+v", m)
		}
		samples := 0
		for _, m := range res.Measurements {
			if m.Name == "rx_power_sample_dbm" && m.Raw != "" {
				samples++
			}
		}
		if samples != 6 {
			t.Errorf("%d raw samples", samples)
		}
		if diff := cmp.Diff([]acceptance.Limit{
			{Name: "optical.rx_min_dbm", Value: -25, Op: ">", Origin: "norm"}, {Name: "optical.rx_max_dbm", Value: -8, Op: "<=", Origin: "norm"},
		}, res.Limits); diff != "" {
			t.Errorf("limits (-want +got):\n%s", diff)
		}
		if res.Conditions["accuracy_db"] == "" || res.Conditions["reads"] != "3" {
			t.Errorf("conditions %v", res.Conditions)
		}
		if len(res.Log) != 6 {
			t.Errorf("log %q", res.Log)
		}
	})
}

func TestOpticalModuleThresholdsOnlyWarn(t *testing.T) {
	known := func(v float64) optics.Limit { return optics.Limit{Value: v, Known: true} }
	for _, tt := range []struct {
		name     string
		rx       optics.Limits
		warnings []diagnosis.Code
		limits   int
	}{
		{"all well", optics.Limits{AlarmLow: known(-30), WarnLow: known(-28), WarnHigh: known(-9), AlarmHigh: known(-7)}, nil, 4},
		{"below the warning", optics.Limits{WarnLow: known(-23.5)}, []diagnosis.Code{diagnosis.OpticalRxWeakMargin}, 1},
		{"at the warning", optics.Limits{WarnLow: known(-24)}, nil, 1},
		{"above the high warning", optics.Limits{WarnHigh: known(-25)}, []diagnosis.Code{diagnosis.OpticalRxNearOverload}, 1},
		{"unknown limits are none", optics.Limits{}, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits, err := acceptance.Norms().With(acceptance.OriginOrder, map[string]float64{"optical.margin_warn_db": 0.5})
				if err != nil {
					t.Fatal(err)
				}
				res := run(t, steps.NewOptical(steps.OpticalOptions{Readers: []steps.OpticsReader{light("module", optics.Thresholds{RxPower: tt.rx})}, Thresholds: limits}))
				check(t, res, acceptance.Pass, nil, tt.warnings)
				n := 0
				for _, l := range res.Limits {
					if l.Origin == acceptance.OriginModule {
						n++
					}
				}
				if n != tt.limits {
					t.Errorf("%d limits of the module, want %d: %+v", n, tt.limits, res.Limits)
				}
			})
		})
	}
}

func TestOpticalPassable(t *testing.T) {
	for reading, want := range map[float64]bool{-27.4: true, -3: true} {
		t.Run(fmt.Sprint(reading), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := steps.NewOptical(steps.OpticalOptions{Readers: []steps.OpticsReader{light("console", reading)}}).Run(t.Context(), func(string) {})
				if out.Passable != want || out.Verdict != acceptance.Fail {
					t.Errorf("%+v", out)
				}
			})
		})
	}
	t.Run("no light", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if out := steps.NewOptical(steps.OpticalOptions{Readers: []steps.OpticsReader{light("console", dark)}}).Run(t.Context(), func(string) {}); out.Passable {
				t.Error("no light is passable")
			}
		})
	})
}

// TestOpticalOneSourceHangs: the other one's answer still counts.
func TestOpticalOneSourceHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		readers := []steps.OpticsReader{opticsCtx(hang[optics.Reading]), light("console", -20.0)}
		check(t, run(t, steps.NewOptical(steps.OpticalOptions{Readers: readers})), acceptance.Pass, nil, nil)
	})
}

type freshReader struct{ *opticsFunc }

func (freshReader) ReadOptics(context.Context) (optics.Reading, error) {
	return optics.Reading{}, errors.New("a remembered reading was asked for")
}

func (f freshReader) ReadOpticsFresh(ctx context.Context) (optics.Reading, error) {
	return f.opticsFunc.ReadOptics(ctx)
}

func TestOpticalReadsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		res := run(t, steps.NewOptical(steps.OpticalOptions{Readers: []steps.OpticsReader{freshReader{light("console", -20.0)}}}))
		check(t, res, acceptance.Pass, nil, nil)
		if slices.ContainsFunc(res.Log, func(l string) bool { return l == "a remembered reading was asked for" }) {
			t.Error(res.Log)
		}
	})
}

// TestOpticalLaserAgeing warns of a laser that takes more than the transceiver
// allows, while it gives light.
func TestOpticalLaserAgeing(t *testing.T) {
	source := func(known bool, tx collectors.Status, alarms, warnings []string) *opticsFunc {
		return &opticsFunc{name: "console:test", read: func(int) (optics.Reading, error) {
			r := optics.Unread("console:test", collectors.StatusUnsupported)
			r.RxPower = collectors.Reading{Status: collectors.StatusOK, Value: -20}
			r.TxPower.Status = tx
			r.Alarms, r.Warnings, r.AlarmsKnown, r.WarningsKnown = alarms, warnings, known, known
			return r, nil
		}}
	}
	high := []string{"bias_high"}
	for _, tt := range []struct {
		name   string
		source *opticsFunc
		warns  bool
	}{
		{"alarm", source(true, collectors.StatusOK, high, nil), true},
		{"warning", source(true, collectors.StatusOK, nil, high), true},
		{"another flag", source(true, collectors.StatusOK, []string{"temperature_high"}, []string{"bias_low"}), false},
		{"flags that were not read", source(false, collectors.StatusOK, high, high), false},
		{"no light: that is a dead laser, not an old one", source(true, collectors.StatusNoLight, high, high), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var want []diagnosis.Code
				if tt.warns {
					want = []diagnosis.Code{diagnosis.OpticalLaserAgeing}
				}
				step := steps.NewOptical(steps.OpticalOptions{Readers: []steps.OpticsReader{tt.source}})
				check(t, run(t, step), acceptance.Pass, nil, want)
			})
		})
	}
}
