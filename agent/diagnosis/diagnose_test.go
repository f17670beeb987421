package diagnosis_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/diagnosis"
)

// ladder builds evidence: every rung passes but those given.
func ladder(rungs ...diagnosis.Rung) diagnosis.Evidence {
	var e diagnosis.Evidence
	for _, name := range []string{"identity", "optical", "registration", "lan_cabling", "addressing", "dns", "reachability", "host"} {
		r := diagnosis.Rung{Name: name, Verdict: "pass", Required: true}
		for _, other := range rungs {
			if other.Name == name {
				r = other
			}
		}
		e.Rungs = append(e.Rungs, r)
	}
	return e
}

// tested is a ladder with a speed test in it.
func tested(speed diagnosis.Rung, rungs ...diagnosis.Rung) diagnosis.Evidence {
	e := ladder(rungs...)
	e.Rungs = append(e.Rungs, speed)
	return e
}

func failed(name string, codes ...diagnosis.Code) diagnosis.Rung {
	return rung(name, "fail", codes...)
}

func unclear(name string, codes ...diagnosis.Code) diagnosis.Rung {
	return rung(name, "inconclusive", codes...)
}

func skipped(name string) diagnosis.Rung { return rung(name, "skipped") }

func rung(name, verdict string, codes ...diagnosis.Code) diagnosis.Rung {
	r := diagnosis.Rung{Name: name, Verdict: verdict, Required: true}
	for _, c := range codes {
		r.Codes = append(r.Codes, string(c))
	}
	return r
}

func warned(r diagnosis.Rung, codes ...diagnosis.Code) diagnosis.Rung {
	for _, c := range codes {
		r.Warnings = append(r.Warnings, string(c))
	}
	return r
}

func passing(name string) diagnosis.Rung { return rung(name, "pass") }

func TestDiagnoseRanks(t *testing.T) {
	for _, tt := range []struct {
		name         string
		evidence     diagnosis.Evidence
		causes       []diagnosis.Code
		consequences []string // code or rung, and what it is put down to
	}{
		{name: "healthy line", evidence: ladder()},
		{
			name: "no light explains everything above",
			evidence: ladder(
				failed("optical", diagnosis.OpticalNoLight), skipped("registration"), skipped("addressing"), skipped("dns"), skipped("reachability"),
			),
			causes: []diagnosis.Code{diagnosis.OpticalNoLight},
			consequences: []string{
				"registration by optical.no_light", "addressing by optical.no_light", "dns by optical.no_light", "reachability by optical.no_light",
			},
		},
		{
			name: "no light in evidence without a ladder's skips",
			evidence: ladder(
				failed("optical", diagnosis.OpticalNoLight), failed("registration", diagnosis.PONLOS), failed("addressing", diagnosis.AddrNone),
				failed("dns", diagnosis.DNSNoAnswer), failed("reachability", diagnosis.ReachNoReply),
			),
			causes: []diagnosis.Code{diagnosis.OpticalNoLight},
			consequences: []string{
				"pon.los by optical.no_light", "addr.none by optical.no_light", "dns.no_answer by optical.no_light", "reach.no_reply by optical.no_light",
			},
		},
		{
			name:     "weak light, all else works",
			evidence: ladder(failed("optical", diagnosis.OpticalRxTooWeak)),
			causes:   []diagnosis.Code{diagnosis.OpticalRxTooWeak},
		},
		{
			name:         "weak light explains loss",
			evidence:     ladder(failed("optical", diagnosis.OpticalRxTooWeak), failed("reachability", diagnosis.ReachLoss)),
			causes:       []diagnosis.Code{diagnosis.OpticalRxTooWeak},
			consequences: []string{"reach.loss by optical.rx_too_weak"},
		},
		{
			name:         "weak light explains a slow line",
			evidence:     tested(failed("throughput", diagnosis.ThroughputBelow), failed("optical", diagnosis.OpticalRxTooWeak)),
			causes:       []diagnosis.Code{diagnosis.OpticalRxTooWeak},
			consequences: []string{"throughput.below by optical.rx_too_weak"},
		},
		{
			name:         "weak light explains a slow upload",
			evidence:     tested(failed("throughput", diagnosis.ThroughputUploadOnly), failed("optical", diagnosis.OpticalRxTooWeak)),
			causes:       []diagnosis.Code{diagnosis.OpticalRxTooWeak},
			consequences: []string{"throughput.upload_only by optical.rx_too_weak"},
		},
		{
			name:     "a slow line",
			evidence: tested(warned(failed("throughput", diagnosis.ThroughputBelow), diagnosis.ThroughputBufferbloat, diagnosis.ThroughputServer)),
			causes:   []diagnosis.Code{diagnosis.ThroughputBelow, diagnosis.ThroughputBufferbloat, diagnosis.ThroughputServer},
		},
		{
			name:         "loss explains a slow line",
			evidence:     tested(failed("throughput", diagnosis.ThroughputBelow), failed("reachability", diagnosis.ReachLoss)),
			causes:       []diagnosis.Code{diagnosis.ReachLoss},
			consequences: []string{"throughput.below by reach.loss"},
		},
		{
			name:     "loss that only a speed test sees",
			evidence: tested(unclear("throughput", diagnosis.ReachLoss)),
			causes:   []diagnosis.Code{diagnosis.ReachLoss},
		},
		{
			name:     "the speed is measured from the gateway, and the cable in the house explains none of it",
			evidence: tested(failed("throughput", diagnosis.ThroughputBelow), failed("lan_cabling", diagnosis.LANPortSlow)),
			causes:   []diagnosis.Code{diagnosis.LANPortSlow, diagnosis.ThroughputBelow},
		},
		{
			name:     "a test that was in its own way, or in others'",
			evidence: tested(unclear("throughput", diagnosis.ThroughputDeviceCPU, diagnosis.ThroughputCrossTraffic)),
			causes:   []diagnosis.Code{diagnosis.ThroughputDeviceCPU, diagnosis.ThroughputCrossTraffic},
		},
		{
			name:     "weak light does not explain a rejected LOID",
			evidence: ladder(failed("optical", diagnosis.OpticalRxTooWeak), failed("registration", diagnosis.PONLOIDPassword), skipped("addressing"), skipped("dns"), skipped("reachability")),
			causes:   []diagnosis.Code{diagnosis.PONLOIDPassword, diagnosis.OpticalRxTooWeak},
			consequences: []string{
				"addressing by pon.loid_password", "dns by pon.loid_password", "reachability by pon.loid_password",
			},
		},
		{
			name:     "two independent causes stay two",
			evidence: ladder(failed("optical", diagnosis.OpticalRxTooWeak), failed("lan_cabling", diagnosis.LANPortSlow)),
			causes:   []diagnosis.Code{diagnosis.OpticalRxTooWeak, diagnosis.LANPortSlow},
		},
		{
			name:         "wrong ONT explains that the OLT does not know it",
			evidence:     ladder(failed("identity", diagnosis.IdentitySNMismatch), failed("registration", diagnosis.PONNotProvisionedSN), skipped("addressing"), skipped("dns"), skipped("reachability")),
			causes:       []diagnosis.Code{diagnosis.IdentitySNMismatch},
			consequences: []string{"pon.not_provisioned_sn by identity.sn_mismatch", "addressing by identity.sn_mismatch", "dns by identity.sn_mismatch", "reachability by identity.sn_mismatch"},
		},
		{
			name:     "fake O5 explains no address",
			evidence: ladder(failed("registration", diagnosis.PONFakeO5), failed("addressing", diagnosis.AddrNone), skipped("dns"), skipped("reachability")),
			causes:   []diagnosis.Code{diagnosis.PONFakeO5},
			consequences: []string{
				"addr.none by pon.fake_o5", "dns by pon.fake_o5", "reachability by pon.fake_o5",
			},
		},
		{
			name:     "traffic speaks against fake O5",
			evidence: ladder(failed("registration", diagnosis.PONFakeO5)),
			causes:   []diagnosis.Code{diagnosis.PONOMCIUnknown, diagnosis.PONFakeO5},
		},
		{
			name:     "registered in the dark: the reading is broken",
			evidence: ladder(failed("optical", diagnosis.OpticalNoLight)),
			causes:   []diagnosis.Code{diagnosis.OpticalReadBroken, diagnosis.OpticalNoLight},
		},
		{
			name:         "nothing answers explains DNS",
			evidence:     ladder(failed("dns", diagnosis.DNSNoAnswer), failed("reachability", diagnosis.ReachNoReply)),
			causes:       []diagnosis.Code{diagnosis.ReachNoReply},
			consequences: []string{"dns.no_answer by reach.no_reply"},
		},
		{
			name:     "DNS alone",
			evidence: ladder(failed("dns", diagnosis.DNSServfail)),
			causes:   []diagnosis.Code{diagnosis.DNSServfail},
		},
		{
			name:         "a walled garden explains silent targets",
			evidence:     ladder(failed("dns", diagnosis.DNSHijack), failed("reachability", diagnosis.ReachTargetSilent)),
			causes:       []diagnosis.Code{diagnosis.DNSHijack},
			consequences: []string{"reach.target_silent by dns.hijack"},
		},
		{
			name:     "a fault comes before what could not be told, before a warning",
			evidence: ladder(warned(passing("optical"), diagnosis.OpticalRxWeakMargin), unclear("registration", diagnosis.PONUnreadable), failed("host", diagnosis.HostCPU)),
			causes:   []diagnosis.Code{diagnosis.HostCPU, diagnosis.PONUnreadable, diagnosis.OpticalRxWeakMargin},
		},
		{
			name:     "what could not be told is not explained away by a fault",
			evidence: ladder(failed("optical", diagnosis.OpticalNoLight), unclear("registration", diagnosis.PONUnreadable), skipped("addressing"), skipped("dns"), skipped("reachability")),
			causes:   []diagnosis.Code{diagnosis.OpticalNoLight, diagnosis.PONUnreadable},
			consequences: []string{
				"addressing by optical.no_light", "dns by optical.no_light", "reachability by optical.no_light",
			},
		},
		{
			name:     "graver first: no registration before a host that is busy",
			evidence: ladder(failed("host", diagnosis.HostCPU, diagnosis.HostMemory), failed("registration", diagnosis.PONStoppedByOLT), skipped("addressing"), skipped("dns"), skipped("reachability")),
			causes:   []diagnosis.Code{diagnosis.PONStoppedByOLT, diagnosis.HostCPU, diagnosis.HostMemory},
			consequences: []string{
				"addressing by pon.stopped_by_olt", "dns by pon.stopped_by_olt", "reachability by pon.stopped_by_olt",
			},
		},
		{
			name:     "a fail without a cause is unknown",
			evidence: ladder(failed("reachability")),
			causes:   []diagnosis.Code{diagnosis.Unknown},
		},
		{
			name:     "a code of a newer agent is unknown here",
			evidence: ladder(failed("reachability", "reach.teleported")),
			causes:   []diagnosis.Code{diagnosis.Unknown},
		},
		{
			name:     "unclear without a cause is unknown",
			evidence: diagnosis.Evidence{Rungs: []diagnosis.Rung{unclear("optical")}},
			causes:   []diagnosis.Code{diagnosis.Unknown},
		},
		{
			name:     "nothing measured says nothing",
			evidence: diagnosis.Evidence{},
			causes:   []diagnosis.Code{diagnosis.Unknown},
		},
		{
			name:     "nothing but skipped says nothing",
			evidence: diagnosis.Evidence{Rungs: []diagnosis.Rung{skipped("dns")}},
			causes:   []diagnosis.Code{diagnosis.Unknown},
		},
		{
			name: "causes of a skipped rung are not heard",
			evidence: diagnosis.Evidence{Rungs: []diagnosis.Rung{
				passing("optical"), rung("dns", "skipped", diagnosis.DNSServfail),
			}},
		},
		{
			name: "the first of a rung given twice counts",
			evidence: diagnosis.Evidence{Rungs: []diagnosis.Rung{
				passing("optical"), failed("optical", diagnosis.OpticalNoLight),
			}},
		},
		{
			name:     "ordered rungs that are not built are one cause",
			evidence: ladder(unclear("dns", diagnosis.AgentNotSupported), unclear("host", diagnosis.AgentNotSupported)),
			causes:   []diagnosis.Code{diagnosis.AgentNotSupported},
		},
		{
			name:     "a cause that is a warning here and a fault there is a fault",
			evidence: ladder(warned(passing("optical"), diagnosis.PONPopup), failed("registration", diagnosis.PONPopup), failed("host", diagnosis.HostCPU)),
			causes:   []diagnosis.Code{diagnosis.PONPopup, diagnosis.HostCPU},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := diagnosis.Diagnose(tt.evidence)
			var causes []diagnosis.Code
			for _, c := range d.Causes {
				causes = append(causes, c.Code)
				if math.IsNaN(c.Confidence) || c.Confidence < 0 || c.Confidence >= 1 {
					t.Errorf("confidence of %s is %v", c.Code, c.Confidence)
				}
			}
			if diff := cmp.Diff(tt.causes, causes); diff != "" {
				t.Errorf("causes (-want +got):\n%s", diff)
			}
			var consequences []string
			for _, c := range d.Consequences {
				what := string(c.Code)
				if what == "" {
					what = c.Rung
				}
				consequences = append(consequences, fmt.Sprintf("%s by %s", what, c.By))
			}
			if diff := cmp.Diff(tt.consequences, consequences); diff != "" {
				t.Errorf("consequences (-want +got):\n%s", diff)
			}
		})
	}
}

func confidence(t *testing.T, d diagnosis.Diagnosis, code diagnosis.Code) diagnosis.Ranked {
	t.Helper()
	i := slices.IndexFunc(d.Causes, func(r diagnosis.Ranked) bool { return r.Code == code })
	if i < 0 {
		t.Fatalf("%s is not among the causes %v", code, d.Causes)
	}
	return d.Causes[i]
}

func TestDiagnoseShowsItsEvidence(t *testing.T) {
	optical := failed("optical", diagnosis.OpticalRxTooWeak)
	optical.Numbers = map[string]float64{"rx_power_dbm": -27.4, "margin_db": -2.4, "bias_ma": 14}
	d := diagnosis.Diagnose(ladder(optical))
	first, ok := d.First()
	if !ok {
		t.Fatal("no cause")
	}
	want := []diagnosis.Ref{
		{Rung: "optical", What: "cause", Value: "optical.rx_too_weak"},
		{Rung: "optical", What: "rx_power_dbm", Value: "-27.4"},
		{Rung: "optical", What: "margin_db", Value: "-2.4"},
	}
	if diff := cmp.Diff(want, first.For); diff != "" {
		t.Errorf("evidence for (-want +got):\n%s", diff)
	}
	if first.Side != diagnosis.SideDrop || first.OrSide != diagnosis.SideODN || first.Kind != diagnosis.KindFault {
		t.Errorf("got %+v", first)
	}
}

func TestDiagnoseWeighsSupport(t *testing.T) {
	alone := confidence(t, diagnosis.Diagnose(ladder(failed("reachability", diagnosis.ReachLoss))), diagnosis.ReachLoss)
	supported := confidence(t, diagnosis.Diagnose(ladder(
		warned(passing("optical"), diagnosis.OpticalRxWeakMargin), failed("reachability", diagnosis.ReachLoss))), diagnosis.ReachLoss)
	if supported.Confidence <= alone.Confidence {
		t.Errorf("weak light leaves loss at %v, alone %v", supported.Confidence, alone.Confidence)
	}
	want := diagnosis.Ref{Rung: "optical", What: "cause", Value: "optical.rx_weak_margin"}
	if !slices.Contains(supported.For, want) {
		t.Errorf("evidence for loss: %v", supported.For)
	}
}

func TestDiagnoseWeighsContradiction(t *testing.T) {
	dark := diagnosis.Diagnose(ladder(failed("optical", diagnosis.OpticalNoLight)))
	noLight, broken := confidence(t, dark, diagnosis.OpticalNoLight), confidence(t, dark, diagnosis.OpticalReadBroken)
	if noLight.Confidence >= broken.Confidence {
		t.Errorf("no light %v, broken reading %v, although the line works", noLight.Confidence, broken.Confidence)
	}
	if !slices.Contains(noLight.Against, diagnosis.Ref{Rung: "registration", What: "verdict", Value: "pass"}) {
		t.Errorf("evidence against: %v", noLight.Against)
	}
}

// TestDiagnoseIsDeterministic gives the same evidence in maps filled in any
// order.
func TestDiagnoseIsDeterministic(t *testing.T) {
	numbers := map[string]float64{}
	for i := range 50 {
		numbers[fmt.Sprintf("m%d", i)] = float64(i)
	}
	numbers["rx_power_dbm"] = -27
	build := func() diagnosis.Evidence {
		optical := failed("optical", diagnosis.OpticalRxTooWeak, diagnosis.OpticalBitErrors)
		optical.Numbers = maps.Clone(numbers)
		return ladder(optical, failed("lan_cabling", diagnosis.LANPortSlow, diagnosis.LANCRCErrors),
			failed("dns", diagnosis.DNSServfail, diagnosis.DNSNoAnswer), failed("reachability", diagnosis.ReachLoss, diagnosis.ReachLatency))
	}
	want := diagnosis.Diagnose(build())
	for range 50 {
		if diff := cmp.Diff(want, diagnosis.Diagnose(build()), cmp.AllowUnexported(diagnosis.Ranked{})); diff != "" {
			t.Fatalf("another answer (-first +now):\n%s", diff)
		}
	}
}

// TestDiagnoseKeepsEveryCause runs every code as the one fault of a ladder: it
// must come first, unless the ladder itself contradicts it.
func TestDiagnoseKeepsEveryCause(t *testing.T) {
	for _, c := range diagnosis.Catalogue() {
		d := diagnosis.Diagnose(diagnosis.Evidence{Rungs: []diagnosis.Rung{failed("optical", c.Code)}})
		if first, ok := d.First(); !ok || first.Code != c.Code {
			t.Errorf("%s: first cause is %q", c.Code, first.Code)
		}
	}
}

// TestDiagnoseSurvivesAnyPair gives every pair of codes at once: no cause is
// lost, and a consequence is put down to a cause that is there.
func TestDiagnoseSurvivesAnyPair(t *testing.T) {
	all := diagnosis.Catalogue()
	for i, a := range all {
		if testing.Short() && i%10 != 0 {
			continue
		}
		for _, b := range all {
			d := diagnosis.Diagnose(diagnosis.Evidence{Rungs: []diagnosis.Rung{failed("optical", a.Code), failed("dns", b.Code)}})
			for _, c := range d.Consequences {
				if !slices.ContainsFunc(d.Causes, func(r diagnosis.Ranked) bool { return r.Code == c.By }) {
					t.Fatalf("%s and %s: %s is put down to %q, which is no cause", a.Code, b.Code, c.Code, c.By)
				}
			}
			want := 2
			if a.Code == b.Code {
				want = 1
			}
			if n := len(d.Causes) + len(d.Consequences); n != want {
				t.Fatalf("%s and %s: %d causes and consequences", a.Code, b.Code, n)
			}
		}
	}
}

func FuzzDiagnose(f *testing.F) {
	f.Add("optical", "fail", "optical.no_light", "registration", "pass", "")
	f.Add("", "", "", "", "", "")
	f.Add("dns", "inconclusive", "pon.", "dns", "fail", "unknown")
	f.Fuzz(func(t *testing.T, n1, v1, c1, n2, v2, c2 string) {
		e := diagnosis.Evidence{Rungs: []diagnosis.Rung{
			{Name: n1, Verdict: v1, Codes: []string{c1, c2}}, {Name: n2, Verdict: v2, Warnings: []string{c2}, Codes: []string{c1}},
		}}
		first := diagnosis.Diagnose(e)
		sane(t, first)
		if diff := cmp.Diff(first, diagnosis.Diagnose(e), cmp.AllowUnexported(diagnosis.Ranked{})); diff != "" {
			t.Error(diff)
		}
	})
}

func BenchmarkDiagnose(b *testing.B) {
	e := ladder(failed("optical", diagnosis.OpticalRxTooWeak), failed("lan_cabling", diagnosis.LANPortSlow), failed("dns", diagnosis.DNSServfail), failed("reachability", diagnosis.ReachLoss))
	for b.Loop() {
		diagnosis.Diagnose(e)
	}
}

// TestDiagnosisOnTheWire holds the form in which records and results keep a
// diagnosis: keys are only added.
func TestDiagnosisOnTheWire(t *testing.T) {
	optical := failed("optical", diagnosis.OpticalRxTooWeak)
	optical.Numbers = map[string]float64{"rx_power_dbm": -27.4}
	voice := skipped("voice")
	voice.SkippedFor = "optical"
	d := diagnosis.Diagnose(diagnosis.Evidence{Rungs: []diagnosis.Rung{
		optical, unclear("registration", diagnosis.PONUnreadable), failed("reachability", diagnosis.ReachLoss), voice,
	}})
	const want = `{
 "causes": [
  {
   "code": "optical.rx_too_weak",
   "side": "drop",
   "or_side": "odn",
   "severity": "major",
   "kind": "fault",
   "confidence": 0.95,
   "for": [
    {
     "rung": "optical",
     "what": "cause",
     "value": "optical.rx_too_weak"
    },
    {
     "rung": "optical",
     "what": "rx_power_dbm",
     "value": "-27.4"
    }
   ]
  },
  {
   "code": "pon.unreadable",
   "side": "device",
   "severity": "info",
   "kind": "unclear",
   "confidence": 0.9,
   "for": [
    {
     "rung": "registration",
     "what": "cause",
     "value": "pon.unreadable"
    }
   ]
  }
 ],
 "consequences": [
  {
   "code": "reach.loss",
   "rung": "reachability",
   "by": "optical.rx_too_weak"
  },
  {
   "rung": "voice",
   "by": "optical.rx_too_weak"
  }
 ]
}`
	if diff := cmp.Diff(want, wire(t, d)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
