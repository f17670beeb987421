package diagnosis

import (
	"slices"
	"strconv"
	"strings"
)

// What measurements must show, where no rung judges it by itself.
const (
	flatSpread     = 0.05 // standard deviation over mean of a rate that a shaper sets
	planLeast      = 0.92 // of a plan's rate: what is left of it above a shaper that counts all headers
	planMost       = 1.06 // of it: templates give a little more
	busyFrom       = 20   // the hours in which everybody is online, both included: 19:00 to 22:59
	busyTo         = 23
	coreBusy       = 0.95 // a core that does nothing else
	baselineFallDB = 3.0
	splitterMinDBm = -20.0
	staleS         = 900.0
	lossless       = 0.005
)

// plans are the rates that are sold, Mbit/s.
var plans = [...]float64{2, 4, 6, 8, 10, 20, 30, 50, 100, 200, 300, 500, 600, 1000, 2000}

// infer adds what the rungs don't see: it shows in their measurements, or only
// where they are held against each other.
func (l *look) infer(recent []Happening) {
	l.contradictions()
	l.since(recent)
	l.alarms()
	l.light()
	l.speed()
	l.promote()
	l.sides()
}

// at returns the place of a rung, or -1.
func (l *look) at(name string) int {
	return slices.IndexFunc(l.rungs, func(r Rung) bool { return r.Name == name })
}

func (l *look) passes(name string) bool {
	i := l.at(name)
	return i >= 0 && l.rungs[i].Verdict == pass
}

// number returns a measurement of a rung, or of the first that has it if the
// rung is "", with a reference to it. NaN is none.
func (l *look) number(rung, name string) (v float64, ref Ref, ok bool) {
	for i := range l.rungs {
		r := &l.rungs[i]
		if rung != "" && r.Name != rung {
			continue
		}
		if v, ok := r.Numbers[name]; ok && v-v == 0 {
			return v, shown(r, []string{name})[0], true
		}
	}
	return 0, Ref{}, false
}

// since adds what telemetry saw go wrong below the address after the rungs had
// looked.
func (l *look) since(recent []Happening) {
	if len(recent) == 0 {
		return
	}
	seen := FromHappenings(recent)
	for i := range seen.Causes {
		r := &seen.Causes[i]
		at := -1
		switch r.rung { // its layer
		case layerLight:
			at = l.at("optical")
		case layerPower, layerPON:
			at = l.at("registration")
		}
		if at < 0 || r.Severity == Info {
			continue
		}
		known := l.index(r.Code) >= 0
		if c := l.put(r.entry, at, r.Kind, r.For); !known {
			c.Confidence, c.Severity, c.late = r.Confidence, r.Severity, true
		}
	}
}

// alarms reads what the ONU reports beside its state.
func (l *look) alarms() {
	i := l.at("registration")
	if i < 0 {
		return
	}
	r := &l.rungs[i]
	for word := range strings.FieldsSeq(r.Texts["pon_alarms"]) {
		if word == "dying_gasp" || word == "dg" || word == "dgi" {
			l.put(find(PONDyingGasp), i, kindOf(r.Verdict), []Ref{{Rung: r.Name, What: "pon_alarms", Value: word}})
		}
	}
}

// light looks at readings of the fibre that no limit is for.
func (l *look) light() {
	i := l.at("optical")
	rx, rxRef, lit := l.number("optical", "rx_power_dbm")
	if base, ref, ok := l.number("optical", "rx_baseline_dbm"); ok && lit && rx <= base-baselineFallDB {
		l.put(find(OpticalBaselineDrop), i, KindWarning, []Ref{rxRef, ref})
	}
	if v, ref, ok := l.number("", "splitter_rx_power_dbm"); ok && !(v > l.limit("splitter.rx_min_dbm", splitterMinDBm)) {
		kind := KindWarning
		if i >= 0 {
			kind = kindOf(l.rungs[i].Verdict)
		}
		l.put(find(OpticalSplitterWeak), max(i, 0), kind, []Ref{ref})
	}
}

// limit returns a threshold that a rung was held against.
func (l *look) limit(name string, otherwise float64) float64 {
	for i := range l.rungs {
		if v, ok := l.rungs[i].Limits[name]; ok {
			return v
		}
	}
	return otherwise
}

// contradictions adds what must be wrong instead where rungs contradict one
// another: most often a reading.
func (l *look) contradictions() {
	for i := range l.found {
		r := &l.found[i]
		against := l.contradiction(r)
		if len(against) == 0 {
			continue
		}
		then := Unknown
		switch family, _, _ := strings.Cut(string(r.Code), "."); {
		case r.Code == PONFakeO5:
			then = PONOMCIUnknown // traffic without provisioning
		case r.Code == ReachNoReply:
			then = ReachTargetSilent // names are answered, if not pings
		case family == "optical":
			then = OpticalReadBroken // registered without light
		case family == "pon":
			then = PONUnreadable
		case family == "addr":
			then = AddrUnreadable
		}
		if l.index(then) >= 0 {
			continue
		}
		c, at := find(then), r.rung
		r = l.put(c, at, KindFault, against)
		if then != Unknown {
			r.Confidence = derived
		}
	}
}

// speed says what a rate below the contract is like.
func (l *look) speed() {
	below := l.index(ThroughputBelow)
	if below >= 0 && l.found[below].Kind == KindFault {
		at := l.found[below].rung
		if refs := l.template(); refs != nil {
			l.put(find(AccountBandwidthTemplate), at, KindFault, refs)
		} else if refs := l.congested(); refs != nil {
			l.put(find(ThroughputCongestion), at, KindFault, refs)
		}
	}
	wired, wiredRef, ok := l.number("throughput", "throughput_down_mbps")
	if radio, ref, ok2 := l.number("", "wifi_down_mbps"); ok && ok2 && l.passes("throughput") && radio < wired/2 {
		l.put(find(WiFiSlow), l.at(ref.Rung), KindWarning, []Ref{ref, wiredRef})
	}
}

// template returns what shows that the download is held at the rate of another
// plan: it is flat there, and neither the gateway nor loss is what holds it.
func (l *look) template() []Ref {
	mbps, ref, ok1 := l.number("throughput", "throughput_down_mbps")
	ratio, ratioRef, ok2 := l.number("throughput", "throughput_down_ratio")
	spread, spreadRef, ok3 := l.number("throughput", "throughput_down_spread")
	if !ok1 || !ok2 || !ok3 || !(ratio > 0) || !(spread >= 0 && spread <= flatSpread) || l.index(ReachLoss) >= 0 {
		return nil
	}
	if core, _, ok := l.number("throughput", "throughput_down_cpu_peak_ratio"); ok && core >= coreBusy {
		return nil
	}
	for _, plan := range plans {
		if plan < 0.9*mbps/ratio && mbps >= planLeast*plan && mbps <= planMost*plan {
			return []Ref{ref, ratioRef, spreadRef, {Rung: ref.Rung, What: "plan_mbps", Value: strconv.FormatFloat(plan, 'g', -1, 64)}}
		}
	}
	return nil
}

// congested returns what shows that the line is slow because everybody is
// online: the hour, a rate that is not flat, and light that is fine.
func (l *look) congested() []Ref {
	spread, ref, ok := l.number("throughput", "throughput_down_spread")
	if !ok || spread <= flatSpread || l.clock != "ntp" || l.hour < busyFrom || l.hour > busyTo || l.darkened() {
		return nil
	}
	return []Ref{ref, {Rung: ref.Rung, What: "hour", Value: strconv.Itoa(l.hour)}}
}

// darkened reports whether anything is known to be wrong with the light.
func (l *look) darkened() bool {
	return slices.ContainsFunc(l.found, func(r Ranked) bool {
		return strings.HasPrefix(string(r.Code), "optical.") && r.Severity != Info
	})
}

// promote makes a cause of what a rung only warned of, where a fault comes of
// it. Light that is only near its limit must explain two things: that alone is
// no fault.
func (l *look) promote() {
	for i := range l.found {
		r := &l.found[i]
		need := 1
		switch {
		case r.Kind == KindFault:
			continue
		case r.late:
		case r.Code == OpticalRxWeakMargin || r.Code == OpticalBaselineDrop:
			need = 2
		case r.Code == OpticalUnsteady || r.Code == OpticalBitErrors || r.Code == PONPopup:
		default:
			continue
		}
		kind, severity, n := r.Kind, r.Severity, 0
		for j := range l.found {
			o := &l.found[j]
			if j == i || o.Severity == Info || !r.entry.explains(o) {
				continue
			}
			n++
			if o.Kind.rank() < kind.rank() {
				kind = o.Kind
			}
			if o.Severity.rank() < severity.rank() {
				severity = o.Severity
			}
		}
		if n >= need && kind == KindFault {
			r.Kind, r.Severity, r.promoted = kind, severity, true
			r.likelier()
		}
	}
}

// sides says more exactly whose a cause is, where the evidence does.
func (l *look) sides() {
	rx, rxRef, lit := l.number("optical", "rx_power_dbm")
	fine := lit && l.passes("optical") && !l.darkened()
	splitter, splitterRef, split := l.number("", "splitter_rx_power_dbm")
	for i := range l.found {
		switch r := &l.found[i]; r.Code {
		case OpticalNoLight, OpticalRxTooWeak, OpticalRxWeakMargin, OpticalBaselineDrop:
			if split && splitter > l.limit("splitter.rx_min_dbm", splitterMinDBm) && !(lit && rx > splitter) {
				r.Side, r.OrSide = SideDrop, "" // light enough comes to the splitter box
				r.For = append(r.For, splitterRef)
				r.likelier()
			}
		case ReachLoss:
			if fine {
				r.Side, r.OrSide = SideBRAS, SideOLT
				r.For = append(r.For, rxRef)
			}
			if v, ref, ok := l.number("reachability", "gateway_loss_ratio"); ok && v < lossless {
				r.Side, r.OrSide = SideBRAS, "" // as far as the gateway nothing is lost
				r.For = append(r.For, ref)
			}
		case ReachLatency:
			if l.index(ThroughputCrossTraffic) >= 0 {
				r.Side, r.OrSide = SideCustomer, SideBRAS
			}
			idle, ref, ok := l.number("throughput", "throughput_down_idle_ms")
			if ok && idle <= l.limit("reachability.rtt_max_ms", 0) {
				r.Against = append(r.Against, ref) // it was short a minute later
				r.Confidence *= unsure
			}
		case DialNoPADO, DialNoDHCPOffer:
			for _, name := range [...]string{"iptv", "voice", "management"} {
				if l.passes(name) {
					r.Side, r.OrSide = SideBRAS, SideOLT // the OLT carries another service
					r.For = append(r.For, Ref{Rung: name, What: "verdict", Value: pass})
				}
			}
		default:
		}
	}
}

// doubt lowers a confidence for what the evidence lacks.
func (l *look) doubt(r *Ranked) {
	if r.Severity == Info {
		return
	}
	at := &l.rungs[r.rung]
	against := func(ref Ref, factor float64) {
		r.Against = append(r.Against, ref)
		r.Confidence *= factor
	}
	if age, err := strconv.ParseFloat(at.Conditions["age_s"], 64); err == nil && age > staleS {
		against(Ref{Rung: at.Name, What: "age_s", Value: at.Conditions["age_s"]}, unsure)
	}
	for _, name := range r.entry.Shows {
		if s := at.Statuses[name]; s == "untrusted" || s == "stale" {
			against(Ref{Rung: at.Name, What: name, Value: s}, unsure)
		}
	}
	if r.Kind != KindFault {
		return
	}
	if r.Code == ThroughputBelow && (l.clock == "floor" || l.clock == "none") {
		// Whether it is the busy hour can't be told.
		against(Ref{Rung: at.Name, What: "clock", Value: l.clock}, unseen)
	}
	if at.Name == "lan_cabling" || at.Name == "host" || at.Name == "identity" || at.Name == "account" {
		return // they stand beside the line
	}
	for _, name := range [...]string{"optical", "registration"} {
		i := l.at(name)
		if i >= 0 && i < r.rung && l.rungs[i].Verdict == inconclusive {
			against(Ref{Rung: name, What: "verdict", Value: inconclusive}, unseen)
		}
	}
}
