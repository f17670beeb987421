package diagnosis_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/diagnosis"
)

// whole is the whole ladder, of which every rung passes but those given.
func whole(rungs ...diagnosis.Rung) diagnosis.Evidence {
	var e diagnosis.Evidence
	for name := range strings.FieldsSeq("identity optical registration lan_cabling dial addressing dns reachability account throughput iptv voice management routed_internet host") {
		r := passing(name)
		for _, other := range rungs {
			if other.Name == name {
				r = other
			}
		}
		e.Rungs = append(e.Rungs, r)
	}
	return e
}

// dead skips what needs the rung with the given name.
func dead(by string, rungs ...diagnosis.Rung) diagnosis.Evidence {
	names := "dial addressing dns reachability account throughput iptv voice management"
	switch by {
	case "optical":
		names += " registration"
	case "dial":
		names = "addressing dns reachability throughput"
	case "addressing":
		names = "dns reachability throughput"
	}
	for name := range strings.FieldsSeq(names) {
		if !slices.ContainsFunc(rungs, func(r diagnosis.Rung) bool { return r.Name == name }) {
			r := skipped(name)
			r.SkippedFor = by
			rungs = append(rungs, r)
		}
	}
	return whole(rungs...)
}

// with adds measurements to a rung: numbers and texts by turns of name and
// value.
func with(r diagnosis.Rung, pairs ...any) diagnosis.Rung {
	numbers, texts := map[string]float64{}, map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		name, _ := pairs[i].(string)
		switch v := pairs[i+1].(type) {
		case float64:
			numbers[name] = v
		case string:
			texts[name] = v
		}
	}
	r.Numbers, r.Texts = numbers, texts
	return r
}

// speed is what a speed test measured downstream.
func speed(r diagnosis.Rung, contract, mbps, spread float64) diagnosis.Rung {
	return with(r, "throughput_down_mbps", mbps, "throughput_down_ratio", mbps/contract, "throughput_down_spread", spread,
		"throughput_down_cpu_peak_ratio", 0.2, "throughput_down_idle_ms", 8.0)
}

func at(e diagnosis.Evidence, clock string, hour int) diagnosis.Evidence {
	e.Clock, e.Hour = clock, hour
	return e
}

// TestFaultTable goes through the fault table of field guides row by row: the
// symptom, the evidence that the ladder has of it, and whose it is.
func TestFaultTable(t *testing.T) {
	const anySide = diagnosis.Side("")
	for _, tt := range []struct {
		symptom  string
		evidence diagnosis.Evidence
		first    diagnosis.Code
		side, or diagnosis.Side
		others   []diagnosis.Code // further causes, in their order
	}{
		{
			"no light, LOS, O1",
			dead("optical", with(failed("optical", diagnosis.OpticalNoLight))), diagnosis.OpticalNoLight, diagnosis.SideDrop, diagnosis.SideODN, nil,
		},
		{
			"no light, and light at the splitter box: the drop cable",
			dead("optical", with(failed("optical", diagnosis.OpticalNoLight), "splitter_rx_power_dbm", -18.2)), diagnosis.OpticalNoLight, diagnosis.SideDrop, "", nil,
		},
		{
			"no light, nor enough at the splitter box: the ODN",
			dead("optical", with(failed("optical", diagnosis.OpticalNoLight), "splitter_rx_power_dbm", -31.0)), diagnosis.OpticalSplitterWeak, diagnosis.SideODN, "", nil,
		},
		{
			"rx below -25, errors rising",
			whole(with(failed("optical", diagnosis.OpticalRxTooWeak), "rx_power_dbm", -26.4), warned(passing("registration"), diagnosis.OpticalBitErrors), failed("reachability", diagnosis.ReachLoss)),
			diagnosis.OpticalRxTooWeak, diagnosis.SideDrop, diagnosis.SideODN, nil,
		},
		{
			"rx between warning and limit, registration flaps, errors rise: the light",
			whole(with(warned(passing("optical"), diagnosis.OpticalRxWeakMargin), "rx_power_dbm", -24.4), failed("registration", diagnosis.PONPopup),
				warned(failed("reachability", diagnosis.ReachLoss), diagnosis.OpticalBitErrors)),
			diagnosis.OpticalRxWeakMargin, diagnosis.SideDrop, diagnosis.SideODN, nil,
		},
		{
			"good light, errors rise, packets are lost",
			whole(with(passing("optical"), "rx_power_dbm", -18.4), warned(passing("registration"), diagnosis.OpticalBitErrors), failed("reachability", diagnosis.ReachLoss)),
			diagnosis.OpticalBitErrors, diagnosis.SideDrop, diagnosis.SideOLT, nil,
		},
		{
			"rx above -8",
			whole(with(failed("optical", diagnosis.OpticalRxOverload), "rx_power_dbm", -6.0)), diagnosis.OpticalRxOverload, diagnosis.SideODN, "", nil,
		},
		{"light, loops O2-O3", dead("registration", failed("registration", diagnosis.PONNotProvisionedSN)), diagnosis.PONNotProvisionedSN, diagnosis.SideOLT, diagnosis.SidePlatform, nil},
		{"the password in hex where text is meant: stuck in O3", dead("registration", with(failed("registration", diagnosis.PONNotProvisionedSN), "onu_state", "serial")), diagnosis.PONNotProvisionedSN, diagnosis.SideOLT, diagnosis.SidePlatform, nil},
		{"light, loops O4", dead("registration", failed("registration", diagnosis.PONRangingFailed)), diagnosis.PONRangingFailed, diagnosis.SideOLT, diagnosis.SideDrop, nil},
		{"light, loops O4, and the wrong ONT", dead("registration", failed("identity", diagnosis.IdentitySNMismatch), failed("registration", diagnosis.PONNotProvisionedSN)), diagnosis.IdentitySNMismatch, diagnosis.SidePlatform, diagnosis.SideCustomer, nil},
		{"light, no lock", dead("registration", failed("registration", diagnosis.PONNoSync)), diagnosis.PONNoSync, diagnosis.SideOLT, diagnosis.SideODN, nil},
		{"PLOAM rejected", dead("registration", failed("registration", diagnosis.PONAuthRejected)), diagnosis.PONAuthRejected, diagnosis.SideOLT, diagnosis.SidePlatform, nil},
		{"LOID status 2", dead("registration", failed("registration", diagnosis.PONLOIDUnknown)), diagnosis.PONLOIDUnknown, diagnosis.SideOLT, diagnosis.SidePlatform, nil},
		{"LOID status 3", dead("registration", failed("registration", diagnosis.PONLOIDPassword)), diagnosis.PONLOIDPassword, diagnosis.SideOLT, diagnosis.SidePlatform, nil},
		{"LOID status 4", dead("registration", failed("registration", diagnosis.PONLOIDDuplicate)), diagnosis.PONLOIDDuplicate, diagnosis.SidePlatform, diagnosis.SideOLT, nil},
		{"O7", dead("registration", failed("registration", diagnosis.PONStoppedByOLT)), diagnosis.PONStoppedByOLT, diagnosis.SideOLT, "", nil},
		{"O5, nothing provisioned", whole(failed("registration", diagnosis.PONFakeO5), failed("dial", diagnosis.DialNoPADO), skipped("addressing"), skipped("dns"), skipped("reachability"), skipped("throughput"), failed("iptv", diagnosis.IPTVVLAN, diagnosis.IPTVNoStream)), diagnosis.PONFakeO5, diagnosis.SideOLT, "", nil},
		{"O5, nothing provisioned, says the console, and traffic flows", whole(failed("registration", diagnosis.PONFakeO5)), diagnosis.PONOMCIUnknown, diagnosis.SideDevice, "", []diagnosis.Code{diagnosis.PONFakeO5}},
		{"O5, no PADO", dead("dial", failed("dial", diagnosis.DialNoPADO), failed("iptv", diagnosis.IPTVVLAN), unclear("voice", diagnosis.AgentCannotMeasure), failed("management", diagnosis.ManagementUnreachable)), diagnosis.DialNoPADO, diagnosis.SideOLT, diagnosis.SideBRAS, []diagnosis.Code{diagnosis.IPTVVLAN, diagnosis.ManagementUnreachable, diagnosis.AgentCannotMeasure}},
		{"O5, no PADO, television comes", dead("dial", failed("dial", diagnosis.DialNoPADO)), diagnosis.DialNoPADO, diagnosis.SideBRAS, diagnosis.SideOLT, nil},
		{"no offer, an answer on another VLAN", dead("dial", with(failed("dial", diagnosis.DialNoDHCPOffer), "answers_on_other_vlans", "[46]")), diagnosis.DialNoDHCPOffer, anySide, anySide, nil},
		{"PADS error tag", dead("dial", with(failed("dial", diagnosis.DialPADSError), "pppoe_errors", "AC-System-Error")), diagnosis.DialPADSError, diagnosis.SideBRAS, "", nil},
		{"LCP fails", dead("dial", failed("dial", diagnosis.DialLCPFailed)), diagnosis.DialLCPFailed, diagnosis.SideBRAS, diagnosis.SideDrop, nil},
		{"LCP fails over bad light: the light first", dead("dial", failed("optical", diagnosis.OpticalRxTooWeak), failed("dial", diagnosis.DialLCPFailed)), diagnosis.OpticalRxTooWeak, diagnosis.SideDrop, diagnosis.SideODN, nil},
		{"691, no word why", dead("dial", failed("dial", diagnosis.DialAuthFailed)), diagnosis.DialAuthFailed, diagnosis.SideBRAS, "", nil},
		{"691, no such user", dead("dial", failed("dial", diagnosis.AccountNoSuchUser)), diagnosis.AccountNoSuchUser, diagnosis.SideBRAS, "", nil},
		{"691, wrong password, and the AAA says so too", dead("dial", failed("dial", diagnosis.AccountWrongPassword), failed("account", diagnosis.AccountWrongPassword)), diagnosis.AccountWrongPassword, diagnosis.SideBRAS, diagnosis.SideCustomer, nil},
		{"691 at the dial, a suspended account in the AAA", dead("dial", failed("dial", diagnosis.DialAuthFailed), failed("account", diagnosis.AccountState)), diagnosis.AccountState, diagnosis.SideBRAS, "", nil},
		{"691, too many sessions", dead("dial", failed("dial", diagnosis.AccountTooManySessions)), diagnosis.AccountTooManySessions, diagnosis.SideBRAS, diagnosis.SideCustomer, nil},
		{"691, binding, on a line with the wrong ONT", dead("dial", failed("identity", diagnosis.IdentityMACMismatch), failed("dial", diagnosis.AccountBinding)), diagnosis.IdentityMACMismatch, diagnosis.SidePlatform, diagnosis.SideCustomer, nil},
		{"691, pool exhausted", dead("dial", failed("dial", diagnosis.AccountPoolExhausted)), diagnosis.AccountPoolExhausted, diagnosis.SideBRAS, "", nil},
		{"suspended in the AAA, and the line still works: the AAA knows", whole(failed("account", diagnosis.AccountState)), diagnosis.AccountState, diagnosis.SideBRAS, "", nil},
		{"dial up, HTTP redirected, names captured", whole(failed("dns", diagnosis.DNSHijack), failed("reachability", diagnosis.ReachTargetSilent, diagnosis.DialWalledGarden), unclear("throughput", diagnosis.ThroughputServer)), diagnosis.DialWalledGarden, diagnosis.SideBRAS, "", []diagnosis.Code{diagnosis.ThroughputServer}},
		{"address up, names fail", whole(failed("dns", diagnosis.DNSNoAnswer)), diagnosis.DNSNoAnswer, diagnosis.SidePlatform, diagnosis.SideBRAS, nil},
		{"address up, nothing answers", whole(failed("dns", diagnosis.DNSNoAnswer), failed("reachability", diagnosis.ReachNoReply), failed("throughput", diagnosis.ThroughputBelow)), diagnosis.ReachNoReply, diagnosis.SideBRAS, diagnosis.SideOLT, nil},
		{"pings are dropped, names are answered", whole(failed("reachability", diagnosis.ReachNoReply)), diagnosis.ReachTargetSilent, diagnosis.SideBRAS, diagnosis.SidePlatform, []diagnosis.Code{diagnosis.ReachNoReply}},
		{"the line went after names were answered", whole(with(failed("reachability", diagnosis.ReachNoReply), "page_outcome", "name_failed")), diagnosis.ReachNoReply, diagnosis.SideBRAS, diagnosis.SideOLT, nil},
		{"the gateway answers, nothing beyond", whole(failed("dns", diagnosis.DNSNoAnswer), with(failed("reachability", diagnosis.ReachTargetSilent), "gateway_loss_ratio", 0.0, "target_loss_ratio", 1.0)), diagnosis.ReachTargetSilent, diagnosis.SideBRAS, diagnosis.SidePlatform, nil},
		{"the gateway alone is silent", whole(warned(passing("reachability"), diagnosis.ReachGatewaySilent)), diagnosis.ReachGatewaySilent, diagnosis.SideBRAS, "", nil},
		{"small pages work, large stall", whole(with(failed("reachability", diagnosis.ReachMTUBlackHole), "path_mtu_bytes", 1400.0), failed("throughput", diagnosis.ThroughputBelow)), diagnosis.ReachMTUBlackHole, diagnosis.SideCustomer, diagnosis.SideBRAS, nil},
		{"LAN port at 100 M on a gigabit contract", whole(with(failed("lan_cabling", diagnosis.LANPortSlow), "lan_speed_mbps", 100.0)), diagnosis.LANPortSlow, diagnosis.SideCustomer, "", nil},
		{"LAN no link", whole(failed("lan_cabling", diagnosis.LANNoLink)), diagnosis.LANNoLink, diagnosis.SideCustomer, "", nil},
		{"LAN half duplex and errors", whole(failed("lan_cabling", diagnosis.LANHalfDuplex, diagnosis.LANCRCErrors)), diagnosis.LANHalfDuplex, diagnosis.SideCustomer, "", nil},
		{"LAN CRC, a bad pair", whole(failed("lan_cabling", diagnosis.LANCRCErrors)), diagnosis.LANCRCErrors, diagnosis.SideCustomer, "", nil},
		{"rate below, core saturated", whole(unclear("throughput", diagnosis.ThroughputDeviceCPU)), diagnosis.ThroughputDeviceCPU, diagnosis.SideDevice, "", nil},
		{"rate below, core saturated, and always so", whole(unclear("throughput", diagnosis.ThroughputDeviceCPU), failed("host", diagnosis.HostCPU)), diagnosis.HostCPU, diagnosis.SideDevice, "", nil},
		{"rate flat at 50 of 500", whole(speed(failed("throughput", diagnosis.ThroughputBelow), 500, 47.8, 0.01)), diagnosis.AccountBandwidthTemplate, diagnosis.SideBRAS, "", nil},
		{"rate flat at 100 of 500", whole(speed(failed("throughput", diagnosis.ThroughputBelow), 500, 95.6, 0.01)), diagnosis.AccountBandwidthTemplate, diagnosis.SideBRAS, "", nil},
		{"rate flat at 200 of 500", whole(speed(failed("throughput", diagnosis.ThroughputBelow), 500, 203, 0.02)), diagnosis.AccountBandwidthTemplate, diagnosis.SideBRAS, "", nil},
		{"rate flat at 10 of 20, which is no plan of today's", whole(speed(failed("throughput", diagnosis.ThroughputBelow), 20, 9.6, 0.01)), diagnosis.ThroughputBelow, anySide, anySide, nil},
		{"rate flat at 20 of 30, which is no plan", whole(speed(failed("throughput", diagnosis.ThroughputBelow), 30, 19.2, 0.01)), diagnosis.ThroughputBelow, anySide, anySide, nil},
		{"rate flat at 20 of 50", whole(speed(failed("throughput", diagnosis.ThroughputBelow), 50, 19.2, 0.01)), diagnosis.AccountBandwidthTemplate, anySide, anySide, nil},
		{"rate flat at 300 of 500", whole(speed(failed("throughput", diagnosis.ThroughputBelow), 500, 287, 0.004)), diagnosis.AccountBandwidthTemplate, diagnosis.SideBRAS, "", nil},
		{"rate at 300 of 500, and uneven: no template", whole(speed(failed("throughput", diagnosis.ThroughputBelow), 500, 287, 0.12)), diagnosis.ThroughputBelow, diagnosis.SideBRAS, diagnosis.SideOLT, nil},
		{"rate flat at no plan's value", whole(speed(failed("throughput", diagnosis.ThroughputBelow), 500, 246, 0.01)), diagnosis.ThroughputBelow, diagnosis.SideBRAS, diagnosis.SideOLT, nil},
		{"rate flat at a plan's value, over bad light: the light", whole(failed("optical", diagnosis.OpticalRxTooWeak), speed(failed("throughput", diagnosis.ThroughputBelow), 500, 246, 0.01)), diagnosis.OpticalRxTooWeak, anySide, anySide, nil},
		{"rates differ in the AAA, and the rate is flat there", whole(failed("account", diagnosis.AccountBandwidthTemplate), speed(failed("throughput", diagnosis.ThroughputBelow), 500, 95.6, 0.01)), diagnosis.AccountBandwidthTemplate, diagnosis.SideBRAS, "", nil},
		{"rate low in the evening, optics fine", at(whole(with(passing("optical"), "rx_power_dbm", -18.0), speed(failed("throughput", diagnosis.ThroughputBelow), 500, 246, 0.12)), "ntp", 21), diagnosis.ThroughputCongestion, diagnosis.SideOLT, diagnosis.SidePlatform, nil},
		{"the same at noon", at(whole(speed(failed("throughput", diagnosis.ThroughputBelow), 500, 246, 0.12)), "ntp", 13), diagnosis.ThroughputBelow, anySide, anySide, nil},
		{"the same at an hour that the clock can't tell", at(whole(speed(failed("throughput", diagnosis.ThroughputBelow), 500, 246, 0.12)), "none", 21), diagnosis.ThroughputBelow, anySide, anySide, nil},
		{"RTT high only under load", whole(warned(speed(passing("throughput"), 500, 480, 0.01), diagnosis.ThroughputBufferbloat)), diagnosis.ThroughputBufferbloat, diagnosis.SideBRAS, diagnosis.SideDevice, nil},
		{"RTT high when idle", whole(failed("reachability", diagnosis.ReachLatency)), diagnosis.ReachLatency, diagnosis.SideBRAS, "", nil},
		{"RTT high while the customer downloads", whole(failed("reachability", diagnosis.ReachLatency), unclear("throughput", diagnosis.ThroughputCrossTraffic)), diagnosis.ReachLatency, diagnosis.SideCustomer, diagnosis.SideBRAS, []diagnosis.Code{diagnosis.ThroughputCrossTraffic}},
		{"loss with good light: not the drop cable", whole(with(passing("optical"), "rx_power_dbm", -18.0), failed("reachability", diagnosis.ReachLoss)), diagnosis.ReachLoss, diagnosis.SideBRAS, diagnosis.SideOLT, nil},
		{"loss beyond the gateway only", whole(with(failed("reachability", diagnosis.ReachLoss), "gateway_loss_ratio", 0.0, "target_loss_ratio", 0.1)), diagnosis.ReachLoss, diagnosis.SideBRAS, "", nil},
		{"Wi-Fi slow, wired good", whole(speed(with(passing("throughput")), 500, 480, 0.01), with(passing("host"), "wifi_down_mbps", 60.0)), diagnosis.WiFiSlow, diagnosis.SideCustomer, "", nil},
		{"IPTV dead, internet fine: the VLAN", whole(failed("iptv", diagnosis.IPTVVLAN, diagnosis.IPTVNoStream)), diagnosis.IPTVVLAN, diagnosis.SidePlatform, diagnosis.SideOLT, nil},
		{"IPTV dead, internet fine: no stream", whole(failed("iptv", diagnosis.IPTVNoStream)), diagnosis.IPTVNoStream, diagnosis.SidePlatform, diagnosis.SideOLT, nil},
		{"IPTV breaks up over bad light", whole(failed("optical", diagnosis.OpticalRxTooWeak), failed("iptv", diagnosis.IPTVStreamBroken)), diagnosis.OpticalRxTooWeak, anySide, anySide, nil},
		{"voice not registered", whole(failed("voice", diagnosis.VoiceNotRegistered)), diagnosis.VoiceNotRegistered, diagnosis.SidePlatform, "", nil},
		{"voice has no address", whole(failed("voice", diagnosis.VoiceVLAN)), diagnosis.VoiceVLAN, diagnosis.SidePlatform, diagnosis.SideOLT, nil},
		{"drops with dying gasp", dead("registration", with(failed("registration", diagnosis.PONPopup), "pon_alarms", "dying_gasp los")), diagnosis.PONDyingGasp, diagnosis.SideCustomer, "", nil},
		{"PPPoE up with a crawling upload", whole(failed("throughput", diagnosis.ThroughputUploadOnly)), diagnosis.ThroughputUploadOnly, diagnosis.SideDrop, diagnosis.SideOLT, nil},
		{"upload slow, errors rise: the fibre", whole(warned(passing("registration"), diagnosis.OpticalBitErrors), failed("throughput", diagnosis.ThroughputUploadOnly)), diagnosis.OpticalBitErrors, diagnosis.SideDrop, diagnosis.SideOLT, nil},
		{"registered, and no light", whole(failed("optical", diagnosis.OpticalNoLight)), diagnosis.OpticalReadBroken, diagnosis.SideDevice, "", []diagnosis.Code{diagnosis.OpticalNoLight}},
		{"not registered, and traffic flows", whole(failed("registration", diagnosis.PONLOS)), diagnosis.PONUnreadable, diagnosis.SideDevice, "", []diagnosis.Code{diagnosis.PONLOS}},
		{"no address, and traffic flows", whole(failed("addressing", diagnosis.AddrNone)), diagnosis.AddrUnreadable, diagnosis.SideDevice, "", []diagnosis.Code{diagnosis.AddrNone}},
		{"refused, and traffic flows: nobody knows", whole(failed("dial", diagnosis.DialNoPADO)), diagnosis.Unknown, diagnosis.SideUnknown, "", []diagnosis.Code{diagnosis.DialNoPADO}},
		{"two independent faults", whole(failed("optical", diagnosis.OpticalRxTooWeak), failed("lan_cabling", diagnosis.LANCRCErrors), failed("voice", diagnosis.VoiceNotRegistered)), diagnosis.OpticalRxTooWeak, anySide, anySide, []diagnosis.Code{diagnosis.LANCRCErrors, diagnosis.VoiceNotRegistered}},
		{"registration flaps, and the session with it", whole(warned(passing("registration"), diagnosis.PONPopup), failed("reachability", diagnosis.ReachNoReply), failed("dns", diagnosis.DNSNoAnswer)), diagnosis.PONPopup, diagnosis.SideDrop, diagnosis.SideODN, nil},
		{"a ladder cut short", whole(unclear("dns", diagnosis.AgentInterrupted), unclear("reachability", diagnosis.AgentInterrupted)), diagnosis.AgentInterrupted, diagnosis.SideDevice, "", nil},
		{"the fibre is pulled in the middle", middle(t), diagnosis.OpticalNoLight, diagnosis.SideDrop, diagnosis.SideODN, nil},
	} {
		t.Run(tt.symptom, func(t *testing.T) {
			d := diagnosis.Diagnose(tt.evidence)
			sane(t, d)
			first, _ := d.First()
			if first.Code != tt.first {
				t.Fatalf("first cause is %q, want %q; all: %+v", first.Code, tt.first, d)
			}
			if tt.side != anySide && (first.Side != tt.side || first.OrSide != tt.or) {
				t.Errorf("side %q or %q, want %q or %q", first.Side, first.OrSide, tt.side, tt.or)
			}
			if len(first.For) == 0 {
				t.Error("nothing speaks for it")
			}
			for _, lang := range []diagnosis.Lang{diagnosis.Chinese, diagnosis.English} {
				if diagnosis.Action(lang, first.Code) == "" {
					t.Errorf("no action in %s", lang)
				}
			}
			var others []diagnosis.Code
			for _, c := range d.Causes[1:] {
				others = append(others, c.Code)
			}
			if diff := cmp.Diff(tt.others, others); diff != "" {
				t.Errorf("other causes (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEveryCauseComesFirst fails each rung with each cause that it can come to,
// on a line that is well below it and skipped above it.
func TestEveryCauseComesFirst(t *testing.T) {
	n := 0
	for code, from := range origins(t) {
		for _, rung := range from {
			if rung == "*" || rung == "inference" || rung == "telemetry" {
				continue
			}
			n++
			e := dead(rung, failed(rung, diagnosis.Code(code)))
			after := false
			e.Rungs = slices.DeleteFunc(e.Rungs, func(r diagnosis.Rung) bool { // what comes after tells nothing
				is := after && r.Verdict == "pass"
				after = after || r.Name == rung
				return is
			})
			if first, _ := diagnosis.Diagnose(e).First(); first.Code != diagnosis.Code(code) && code != "reach.no_reply" {
				t.Errorf("%s of rung %s: first is %s", code, rung, first.Code)
			}
		}
	}
	if n < 100 {
		t.Errorf("%d causes of rungs", n)
	}
}

// middle is a ladder in which the light goes after its rung has looked.
func middle(t *testing.T) diagnosis.Evidence {
	t.Helper()
	e := whole(failed("dns", diagnosis.DNSNoAnswer), failed("reachability", diagnosis.ReachNoReply), unclear("throughput", diagnosis.AgentCannotMeasure))
	e.Rungs = slices.DeleteFunc(e.Rungs, func(r diagnosis.Rung) bool {
		return r.Name == "throughput" || r.Name == "iptv" || r.Name == "voice" || r.Name == "management"
	})
	e.Recent = happenings(t, "20 pon state operational > los", "40 optics rx_power_status ok > no_light")
	return e
}

// TestDiagnoseBelievesTheLadder has telemetry that sees light below its own
// limit, of which nothing comes, or only what such light explains.
func TestDiagnoseBelievesTheLadder(t *testing.T) {
	weak := happenings(t, "1 optics rx_level unknown > low")
	e := whole(warned(passing("reachability"), diagnosis.ReachGatewaySilent))
	e.Recent = weak
	if c := confidence(t, diagnosis.Diagnose(e), diagnosis.OpticalRxTooWeak); c.Kind != diagnosis.KindWarning {
		t.Errorf("kind %s", c.Kind)
	}
	e = whole(failed("reachability", diagnosis.ReachLoss))
	e.Recent = weak
	if first, _ := diagnosis.Diagnose(e).First(); first.Code != diagnosis.OpticalRxTooWeak || first.Kind != diagnosis.KindFault {
		t.Errorf("first is %s, a %s", first.Code, first.Kind)
	}
	e = whole()
	e.Recent = happenings(t, "40 optics rx_power_status ok > no_light")
	if c := confidence(t, diagnosis.Diagnose(e), diagnosis.OpticalNoLight); c.Kind != diagnosis.KindWarning {
		t.Errorf("kind %s", c.Kind)
	}
}

// TestDiagnoseInAnyOrder shuffles ladders of random faults.
func TestDiagnoseInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	all := diagnosis.Catalogue()
	names := strings.Fields("identity optical registration lan_cabling dial addressing dns reachability account throughput iptv voice management routed_internet host later other")
	for range rounds(300) {
		var e diagnosis.Evidence
		for _, name := range names {
			rung := diagnosis.Rung{Name: name, Verdict: []string{"pass", "pass", "fail", "inconclusive", "skipped"}[r.IntN(5)], Required: r.IntN(2) == 0}
			for range r.IntN(3) {
				rung.Codes = append(rung.Codes, string(all[r.IntN(len(all))].Code))
			}
			if r.IntN(3) == 0 {
				rung.Warnings = append(rung.Warnings, string(all[r.IntN(len(all))].Code))
			}
			if name == "throughput" {
				rung = speed(rung, 500, 95.6, 0.01)
			}
			e.Rungs = append(e.Rungs, rung)
		}
		want := diagnosis.Diagnose(e)
		sane(t, want)
		for range 3 {
			r.Shuffle(len(e.Rungs), func(i, j int) { e.Rungs[i], e.Rungs[j] = e.Rungs[j], e.Rungs[i] })
			if diff := cmp.Diff(wire(t, want), wire(t, diagnosis.Diagnose(e))); diff != "" {
				t.Fatalf("another order, another answer:\n%s", diff)
			}
		}
	}
}

// rounds is n, or a tenth of it for -short.
func rounds(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}

// wire is a diagnosis as records hold it.
func wire(t *testing.T, d diagnosis.Diagnosis) string {
	t.Helper()
	b, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDiagnoseDoubtsWhatItDoesNotKnow(t *testing.T) {
	find := func(e diagnosis.Evidence, code diagnosis.Code) diagnosis.Ranked {
		return confidence(t, diagnosis.Diagnose(e), code)
	}
	for _, tt := range []struct {
		name           string
		sure, doubtful diagnosis.Evidence
		code           diagnosis.Code
		against        diagnosis.Ref
	}{
		{
			"registration could not be read", dead("dial", failed("dial", diagnosis.DialNoPADO)),
			dead("dial", unclear("registration", diagnosis.PONUnreadable), failed("dial", diagnosis.DialNoPADO)), diagnosis.DialNoPADO,
			diagnosis.Ref{Rung: "registration", What: "verdict", Value: "inconclusive"},
		},
		{
			"the clock is not set", whole(failed("throughput", diagnosis.ThroughputBelow)),
			at(whole(failed("throughput", diagnosis.ThroughputBelow)), "none", 0), diagnosis.ThroughputBelow,
			diagnosis.Ref{Rung: "throughput", What: "clock", Value: "none"},
		},
		{
			"the reading is old", whole(failed("optical", diagnosis.OpticalRxTooWeak)),
			whole(old(failed("optical", diagnosis.OpticalRxTooWeak))), diagnosis.OpticalRxTooWeak,
			diagnosis.Ref{Rung: "optical", What: "age_s", Value: "7200"},
		},
		{
			"the reading is not to be trusted", whole(failed("optical", diagnosis.OpticalRxTooWeak)),
			whole(untrusted(failed("optical", diagnosis.OpticalRxTooWeak), "margin_db")), diagnosis.OpticalRxTooWeak,
			diagnosis.Ref{Rung: "optical", What: "margin_db", Value: "untrusted"},
		},
		{
			"latency that was short a minute later", whole(failed("reachability", diagnosis.ReachLatency)),
			whole(limited(failed("reachability", diagnosis.ReachLatency), "reachability.rtt_max_ms", 100), speed(passing("throughput"), 100, 99, 0.01)), diagnosis.ReachLatency,
			diagnosis.Ref{Rung: "throughput", What: "throughput_down_idle_ms", Value: "8"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sure, doubtful := find(tt.sure, tt.code), find(tt.doubtful, tt.code)
			if doubtful.Confidence >= sure.Confidence {
				t.Errorf("confidence %v, was %v", doubtful.Confidence, sure.Confidence)
			}
			if !slices.Contains(doubtful.Against, tt.against) {
				t.Errorf("%v is not in %v", tt.against, doubtful.Against)
			}
		})
	}
}

func old(r diagnosis.Rung) diagnosis.Rung {
	r.Conditions = map[string]string{"age_s": "7200"}
	return r
}

func untrusted(r diagnosis.Rung, name string) diagnosis.Rung {
	r.Statuses = map[string]string{name: "untrusted"}
	return r
}

func limited(r diagnosis.Rung, name string, v float64) diagnosis.Rung {
	r.Limits = map[string]float64{name: v}
	return r
}

// TestDiagnoseBlamesTheRungInTheWay has two dead rungs, each with what needs it.
func TestDiagnoseBlamesTheRungInTheWay(t *testing.T) {
	voice := skipped("voice")
	voice.SkippedFor = "registration"
	dns := skipped("dns")
	dns.SkippedFor = "addressing"
	d := diagnosis.Diagnose(diagnosis.Evidence{Rungs: []diagnosis.Rung{
		failed("registration", diagnosis.PONStoppedByOLT), failed("addressing", diagnosis.AddrUnreadable), voice, dns,
	}})
	var got []string
	for _, c := range d.Consequences {
		got = append(got, fmt.Sprintf("%s by %s", c.Rung, c.By))
	}
	want := []string{"dns by addr.unreadable", "voice by pon.stopped_by_olt"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDiagnoseBoundsItsWork(t *testing.T) {
	var e diagnosis.Evidence
	for i := range 1000 {
		r := failed(fmt.Sprintf("rung%d", i), diagnosis.ReachLoss)
		for range 40 {
			r.Codes = append(r.Codes, fmt.Sprintf("code%d", i), "pon.los")
		}
		e.Rungs = append(e.Rungs, r)
	}
	sane(t, diagnosis.Diagnose(e))
}

func FuzzDiagnoseEvidence(f *testing.F) {
	f.Add([]byte(`{"Rungs":[{"Name":"throughput","Verdict":"fail","Codes":["throughput.below"],"Numbers":{"throughput_down_mbps":95.6,"throughput_down_ratio":0.19,"throughput_down_spread":0.01}}],"Hour":21,"Clock":"ntp"}`), math.NaN())
	f.Add([]byte(`{"Rungs":[{"Name":"optical","Verdict":"fail","Codes":["optical.no_light"],"Numbers":{"splitter_rx_power_dbm":-30}},{"Name":"registration","Verdict":"pass","Texts":{"pon_alarms":"dying_gasp"}}]}`), 1.0)
	f.Add([]byte(`{"Rungs":[{"Name":"dns","Verdict":"skipped","SkippedFor":"x"},{"Name":"","Verdict":"fail"}],"Recent":[{"At":1,"Group":"pon","Name":"state","After":"los"}]}`), math.Inf(1))
	f.Fuzz(func(t *testing.T, data []byte, v float64) {
		var e diagnosis.Evidence
		if json.Unmarshal(data, &e) != nil {
			return
		}
		for i := range e.Rungs {
			for name := range e.Rungs[i].Numbers { // JSON has no NaN
				if len(name)%2 == 0 {
					e.Rungs[i].Numbers[name] = v
				}
			}
		}
		d := diagnosis.Diagnose(e)
		sane(t, d)
		if diff := cmp.Diff(wire(t, d), wire(t, diagnosis.Diagnose(e))); diff != "" {
			t.Error(diff)
		}
	})
}
