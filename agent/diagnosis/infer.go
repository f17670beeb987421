package diagnosis

import (
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

// plans are the rates that are sold, Mbit/s. What is slower is sold no more, and
// a slow line may well have such a rate by chance.
var plans = [...]uint16{20, 50, 100, 200, 300, 500, 600, 1000, 2000}

// infer adds what the rungs don't see: it shows in their measurements, or only
// where they are held against each other.
func (l *look) infer(recent []Happening) {
	l.contradictions()
	l.since(recent)
	l.light()
	l.speed()
	l.promote()
	l.sides()
}

// at returns the place of a rung, or -1.
func (l *look) at(name string) int {
	for i, r := range l.rungs {
		if r.Name == name {
			return i
		}
	}
	return -1
}

func (l *look) passes(name string) bool {
	i := l.at(name)
	return i >= 0 && l.rungs[i].Verdict == pass
}

// number returns a measurement and the place of its rung: the named one, or the
// first that has it if there is no name. The place is -1 if there is none. What
// is no number, or not finite, is none.
func (l *look) number(rung, name string) (float64, int) {
	for i, r := range l.rungs {
		if rung == "" || r.Name == rung {
			if v, ok := r.Numbers[name]; ok && v-v == 0 {
				return v, i
			}
		}
	}
	return 0, -1
}

// limit returns a threshold that a rung was held against.
func (l *look) limit(name string, otherwise float64) float64 {
	for _, r := range l.rungs {
		if v, ok := r.Limits[name]; ok {
			return v
		}
	}
	return otherwise
}

// contradictions adds what must be wrong instead where rungs contradict one
// another: most often a reading.
func (l *look) contradictions() {
	for i, n := 0, len(l.found); i < n; i++ {
		r := &l.found[i]
		against := l.contradiction(r)
		if against == nil {
			continue
		}
		then := Unknown
		switch code := string(r.Code); {
		case r.Code == PONFakeO5:
			then = PONOMCIUnknown // traffic without provisioning
		case r.Code == ReachNoReply:
			then = ReachTargetSilent // names are answered, if not pings
		case strings.HasPrefix(code, "optical."):
			then = OpticalReadBroken // registered without light
		case strings.HasPrefix(code, "pon."):
			then = PONUnreadable
		case strings.HasPrefix(code, "addr."):
			then = AddrUnreadable
		}
		if l.index(then) >= 0 {
			continue
		}
		r = l.put(then, r.rung, KindFault)
		r.For = against
		if then != Unknown {
			r.Confidence = derived
		}
	}
}

// since adds what telemetry saw go wrong below the address after the rungs had
// looked.
func (l *look) since(recent []Happening) {
	if len(recent) == 0 {
		return
	}
	seen := FromHappenings(recent)
	for i := range seen.Causes {
		c := &seen.Causes[i]
		at := -1
		switch uint8(c.rung) { // its layer
		case layerLight:
			at = l.at("optical")
		case layerPower, layerPON:
			at = l.at("registration")
		}
		if at < 0 || c.Severity == Info {
			continue
		}
		// The rung's limits are the order's; telemetry knows only its own. What
		// it saw is a fault if the line was dead, and something suffered.
		kind := c.Kind
		if kind == KindFault && (c.entry.Severity != Critical || !l.suffers(at)) {
			kind = KindWarning
		}
		late := l.index(c.Code) < 0
		r := l.put(c.Code, at, kind)
		r.For = append(r.For, c.For...)
		if late {
			r.Confidence, r.Severity, r.late = c.Confidence, c.Severity, true
		}
	}
}

// suffers reports whether a rung above the one at i did not pass.
func (l *look) suffers(i int) bool {
	for _, r := range l.rungs[i+1:] {
		if r.Verdict != pass {
			return true
		}
	}
	return false
}

// light looks at what else is known of the fibre.
func (l *look) light() {
	if i := l.at("registration"); i >= 0 && strings.Contains(l.rungs[i].Texts["pon_alarms"], "dying_gasp") {
		l.rungs[i].show(l.put(PONDyingGasp, i, kindOf(l.rungs[i].Verdict)), "pon_alarms")
	}
	i := l.at("optical")
	if i < 0 {
		return
	}
	optical := l.rungs[i]
	rx, at := l.number("optical", "rx_power_dbm")
	if base, known := l.number("optical", "rx_baseline_dbm"); at >= 0 && known >= 0 && rx <= base-baselineFallDB {
		r := l.put(OpticalBaselineDrop, i, KindWarning)
		optical.show(r, "rx_power_dbm")
		optical.show(r, "rx_baseline_dbm")
	}
	if v, box := l.number("", splitterRx); box >= 0 && !(v > l.limit("splitter.rx_min_dbm", splitterMinDBm)) {
		l.rungs[box].show(l.put(OpticalSplitterWeak, i, kindOf(optical.Verdict)), splitterRx)
	}
}

const splitterRx = "splitter_rx_power_dbm"

// speed says what a rate below the contract is like.
func (l *look) speed() {
	if i := l.index(ThroughputBelow); i >= 0 && l.found[i].Kind == KindFault {
		l.rate(l.found[i].rung)
	}
	wired, _ := l.number("throughput", "throughput_down_mbps")
	if radio, at := l.number("", "wifi_down_mbps"); at >= 0 && l.passes("throughput") && radio < wired/2 {
		l.rungs[at].show(l.put(WiFiSlow, at, KindWarning), "wifi_down_mbps")
	}
}

// rate says what the download of the rung at i is held at. At the rate of
// another plan, and flat there, it is a template's – unless the gateway or loss
// hold it. Uneven, over light that is fine, at an hour when everybody is online,
// it is everybody.
func (l *look) rate(i int) {
	test := l.rungs[i]
	mbps, ratio, spread := test.Numbers["throughput_down_mbps"], test.Numbers["throughput_down_ratio"], test.Numbers["throughput_down_spread"]
	if !(mbps > 0 && ratio > 0 && spread >= 0) {
		return
	}
	var r *Ranked
	if spread > flatSpread {
		if l.clock != "ntp" || l.hour < busyFrom || l.hour > busyTo || l.darkened() {
			return
		}
		r = l.put(ThroughputCongestion, i, KindFault)
		r.cite(test.Name, "hour", strconv.Itoa(l.hour-1))
	} else {
		plan := planOf(mbps, mbps/ratio)
		if plan == 0 || l.index(ReachLoss) >= 0 || test.Numbers["throughput_down_cpu_peak_ratio"] >= coreBusy {
			return
		}
		r = l.put(AccountBandwidthTemplate, i, KindFault)
		r.cite(test.Name, "plan_mbps", strconv.Itoa(plan))
	}
	test.show(r, "throughput_down_mbps")
	test.show(r, "throughput_down_spread")
}

// planOf returns the plan below the contract, which has to be one as well, that
// a measured rate is that of, or 0.
func planOf(mbps, contract float64) (plan int) {
	sold := false
	for _, p := range plans {
		rate := float64(p)
		sold = sold || contract > 0.99*rate && contract < 1.01*rate
		if rate < 0.9*contract && mbps >= planLeast*rate && mbps <= planMost*rate {
			plan = int(p)
		}
	}
	if !sold {
		return 0
	}
	return plan
}

// darkened reports whether anything is known to be wrong with the light.
func (l *look) darkened() bool {
	for i := range l.found {
		if r := &l.found[i]; r.Severity != Info && strings.HasPrefix(string(r.Code), "optical.") {
			return true
		}
	}
	return false
}

// promote makes a cause of what a rung only warned of, where a fault comes of
// it. Light that is only near its limit must explain two things: that alone is
// no fault.
func (l *look) promote() {
	for i := range l.found {
		r := &l.found[i]
		need := 1
		switch r.Code {
		case OpticalRxWeakMargin, OpticalBaselineDrop:
			need = 2
		case OpticalUnsteady, OpticalBitErrors, PONPopup:
		default:
			if !r.late {
				continue
			}
		}
		if r.Kind == KindFault {
			continue
		}
		if r.late {
			need = 1
		}
		kind, severity := r.Kind, r.Severity
		for j := range l.found {
			o := &l.found[j]
			if j == i || o.Severity == Info || !r.entry.explains(o) {
				continue
			}
			need--
			if o.Kind.rank() < kind.rank() {
				kind = o.Kind
			}
			if o.Severity.rank() < severity.rank() {
				severity = o.Severity
			}
		}
		if need <= 0 && kind == KindFault {
			r.Kind, r.Severity = kind, severity
			r.likelier()
		}
	}
}

// sides says more exactly whose a cause is, where the evidence does.
func (l *look) sides() {
	rx, lit := l.number("optical", "rx_power_dbm")
	for i := range l.found {
		switch r := &l.found[i]; r.Code {
		case OpticalNoLight, OpticalRxTooWeak, OpticalRxWeakMargin, OpticalBaselineDrop:
			v, box := l.number("", splitterRx)
			if box >= 0 && v > l.limit("splitter.rx_min_dbm", splitterMinDBm) && !(lit >= 0 && rx > v) {
				r.Side, r.OrSide = SideDrop, "" // light enough comes to the splitter box
				l.rungs[box].show(r, splitterRx)
				r.likelier()
			}
		case ReachLoss:
			if lit >= 0 && l.rungs[lit].Verdict == pass && !l.darkened() {
				r.Side, r.OrSide = SideBRAS, SideOLT
				l.rungs[lit].show(r, "rx_power_dbm")
			}
			if v, at := l.number("reachability", "gateway_loss_ratio"); at >= 0 && v < lossless {
				r.Side, r.OrSide = SideBRAS, "" // as far as the gateway nothing is lost
			}
		case ReachLatency:
			if l.index(ThroughputCrossTraffic) >= 0 {
				r.Side, r.OrSide = SideCustomer, SideBRAS
			}
		case DialNoPADO, DialNoDHCPOffer:
			for _, name := range [...]string{"iptv", "voice", "management"} {
				if l.passes(name) {
					r.Side, r.OrSide = SideBRAS, SideOLT // the OLT carries another service
					r.cite(name, "verdict", pass)
				}
			}
		default:
		}
	}
}

// doubt lowers a confidence for what the evidence lacks.
func (l *look) doubt(r *Ranked) {
	at := l.rungs[r.rung]
	if r.Severity == Info {
		return
	}
	if said := at.Conditions["age_s"]; said != "" {
		if age, err := strconv.ParseFloat(said, 64); err != nil || !(age <= staleS) {
			r.doubted(at.Name, "age_s", said, unsure)
		}
	}
	for _, name := range r.entry.Shows {
		if s := at.Statuses[name]; s == "untrusted" || s == "stale" {
			r.doubted(at.Name, name, s, unsure)
		}
	}
	if r.Kind != KindFault {
		return
	}
	if r.Code == ThroughputBelow && (l.clock == "floor" || l.clock == "none") {
		// Whether it is the busy hour can't be told.
		r.doubted(at.Name, "clock", l.clock, unseen)
	}
	if idle, i := l.number("throughput", "throughput_down_idle_ms"); r.Code == ReachLatency && i >= 0 && idle <= l.limit("reachability.rtt_max_ms", 0) {
		// It was short a minute later.
		r.doubted("throughput", "throughput_down_idle_ms", strconv.FormatFloat(idle, 'g', 4, 64), unsure)
	}
	switch at.Name {
	case "lan_cabling", "host", "identity", "account":
		return // they stand beside the line
	}
	for _, name := range [...]string{"optical", "registration"} {
		if i := l.at(name); i >= 0 && i < r.rung && l.rungs[i].Verdict == inconclusive {
			r.doubted(name, "verdict", inconclusive, unseen)
		}
	}
}

// doubted adds a piece of evidence against a cause.
func (r *Ranked) doubted(rung, what, value string, factor float64) {
	r.Against = append(r.Against, Ref{Rung: rung, What: what, Value: value})
	r.Confidence *= factor
}
