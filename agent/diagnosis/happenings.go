package diagnosis

import (
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// The layers of a line, from below. What is wrong with one shows in those
// above it.
const (
	layerPower = iota
	layerLight
	layerPON
	layerLink
	layerWAN
	layerHouse // the cable in the house: stands by itself
)

// slack is how long after a layer went wrong telemetry may come to see it: it
// reads light and registration once a minute, and believes light when two of
// three readings agree. Links and addresses are told at once.
func slack(layer int) time.Duration {
	switch layer {
	case layerPower, layerLight:
		return 150 * time.Second
	case layerPON:
		return 75 * time.Second
	}
	return 2 * time.Second
}

const (
	// settling is how long what is above may take to come back after what it
	// stands on.
	settling = 2 * time.Minute
	// blink is how short an absence is no fault: a lease that changes.
	blink = 2 * time.Second
	// flaps is how often a thing must have gone to be called unsteady.
	flaps = 3
	// maxSigns and maxSpells bound the work for any list.
	maxSigns  = 48
	maxSpells = 8
)

// spell is a time in which something was wrong.
type spell struct {
	from, to time.Duration // to: the last happening if open
	open     bool          // it is not over
	begun    bool          // its beginning was seen
}

// sign is one thing that telemetry watches, and how it has been.
type sign struct {
	group, name, subject string
	layer                int
	code                 Code // what it means where it is wrong, now or last
	worst                int  // place of the code in its layer, the gravest first
	level                float64
	spells               []spell // the last ones
	times                int
	total                time.Duration
	first, last          Happening // that made it wrong, and that came last
}

// FromHappenings says what the last minutes of telemetry came from. Before and
// After are those of the events of groups optics, pon, link and wan; what else
// there is says nothing.
//
// What changed first is the likely cause, and what it explains above it are
// consequences – where "first" allows for how late telemetry sees a layer. A
// cause whose reading is good again by the end is a warning, and its evidence
// says how long it lasted ("lasted_s") and how often it came ("times"). Nothing
// wrong is no cause. Of happenings at the same moment the order given counts;
// else the order does not matter. The same happenings always get the same
// answer.
func FromHappenings(h []Happening) Diagnosis {
	h = slices.Clone(h)
	slices.SortStableFunc(h, func(a, b Happening) int {
		switch {
		case a.At < b.At:
			return -1
		case a.At > b.At:
			return 1
		}
		return 0
	})
	var signs []sign
	for i := range h {
		signs = take(signs, h[i])
	}
	if len(h) > 0 {
		end := h[len(h)-1].At
		for i := range signs {
			if s := signs[i].spells; len(s) > 0 && s[len(s)-1].open {
				s[len(s)-1].to = end
			}
		}
		signs = wrong(signs)
		roles(signs, h)
		signs = steady(signs)
		return conclude(signs, end)
	}
	return Diagnosis{Causes: []Ranked{}}
}

// take adds what one happening says.
func take(signs []sign, h Happening) []sign {
	code, layer, worst, known := meaning(h, h.After)
	if !known {
		return signs
	}
	name := slot(h)
	i := slices.IndexFunc(signs, func(s sign) bool { return s.name == name && s.subject == h.Subject && s.group == h.Group })
	if i < 0 {
		if len(signs) == maxSigns {
			return signs
		}
		s := sign{group: h.Group, name: name, subject: h.Subject, layer: layer}
		if before, _, w, ok := meaning(h, h.Before); ok && before != "" && !relative(h) {
			// It was wrong when the list begins.
			s.code, s.worst, s.first, s.times = before, w, h, 1
			s.spells = []spell{{from: h.At, open: true}}
		}
		signs = append(signs, s)
		i = len(signs) - 1
	}
	s := &signs[i]
	n := len(s.spells)
	open := n > 0 && s.spells[n-1].open
	if relative(h) {
		code = s.fell(h, code, open)
	}
	s.last = h
	switch {
	case code == "" && open:
		sp := &s.spells[n-1]
		sp.to, sp.open = h.At, false
		s.total += sp.to - sp.from
	case code == "":
	case open:
		s.code, s.worst = code, worst
	default:
		s.code, s.worst, s.layer = code, worst, layer
		if s.times == 0 {
			s.first = h
		}
		s.times++
		if n == maxSpells {
			s.spells = slices.Delete(s.spells, 0, 1)
		}
		s.spells = append(s.spells, spell{from: h.At, open: true, begun: true})
	}
	return signs
}

// slot is what a happening's property is kept under.
func slot(h Happening) string {
	switch {
	case h.Group == "wan" && v6(h):
		return h.Name + "_v6"
	case h.Group == "link" && (h.Name == "presence" || h.Name == "admin_state"):
		return "carrier" // a link that is not there has none
	}
	return h.Name
}

// v6 reports whether an address or a route is one of IPv6.
func v6(h Happening) bool { return strings.Contains(h.Before, ":") || strings.Contains(h.After, ":") }

// relative reports whether a happening tells a step of the level, which means
// something only beside the one before.
func relative(h Happening) bool { return h.Group == "optics" && h.Name == "rx_power" }

// fell judges a step of the level: a fall is wrong until the level is back near
// where it fell from.
func (s *sign) fell(h Happening, code Code, open bool) Code {
	before, ok1 := decibels(h.Before)
	after, ok2 := decibels(h.After)
	const near = 1.5
	switch {
	case !ok1 || !ok2:
		if open {
			return code
		}
		return ""
	case !open && after < before:
		s.level = before
		return code
	case open && after < s.level-near:
		return code
	}
	return ""
}

func decibels(s string) (float64, bool) {
	number, _, _ := strings.Cut(s, " ")
	v, err := strconv.ParseFloat(number, 64)
	return v, err == nil
}

// meaning says what a value of a property means: a cause, or "" where all is
// well, and how grave it is among those of its layer. Of values that say
// nothing it is not known.
func meaning(h Happening, value string) (code Code, layer, worst int, known bool) {
	switch h.Group {
	case "optics":
		code, worst, known = ofLight(h.Name, value)
		return code, layerLight, worst, known
	case "pon":
		return ofPON(h.Name, value)
	case "link":
		switch {
		case h.Name != "carrier" && h.Name != "presence" && h.Name != "admin_state":
			return "", 0, 0, false
		case value == "up" || value == "present":
			return "", layerLink, 0, h.Name != "presence" // back, but with no carrier yet
		case value == "down" || value == "absent":
			return Unknown, layerLink, 0, true
		}
	case "wan":
		v6 := v6(h)
		switch {
		case h.Name == "address" && !v6: // those of IPv6 come and go by design
			if code = AddrNone; strings.HasPrefix(h.Subject, "ppp") {
				code = DialDropped
			}
		case h.Name == "default_route" && v6:
			code, worst = AddrNoIPv6, 2
		case h.Name == "default_route":
			code, worst = AddrNoDefaultRoute, 1
		default:
			return "", 0, 0, false
		}
		if value != "" {
			code = ""
		}
		return code, layerWAN, worst, true
	}
	return "", 0, 0, false
}

func ofLight(name, value string) (Code, int, bool) {
	switch name {
	case "rx_power_status":
		switch value {
		case "ok":
			return "", 0, true
		case "no_light":
			return OpticalNoLight, 0, true
		case "untrusted":
			return OpticalReadBroken, 8, true
		case "error", "unsupported":
			return OpticalUnreadable, 8, true
		}
	case "rx_level":
		switch value {
		case "normal":
			return "", 0, true
		case "low":
			return OpticalRxTooWeak, 1, true
		case "high":
			return OpticalRxOverload, 1, true
		}
	case "rx_power":
		return OpticalBaselineDrop, 3, true
	case "rx_baseline":
		return when(value == "fallen", OpticalBaselineDrop, 3)
	case "rx_trend":
		return when(value == "falling", OpticalBaselineDrop, 3)
	case "laser":
		return when(value == "ageing", OpticalLaserAgeing, 7)
	case "cross_check":
		return when(value == "disagree", OpticalSourcesDisagree, 8)
	case "alarm_tx_fault":
		return when(value == "active", OpticalTxFault, 0)
	}
	switch {
	case strings.HasSuffix(name, "_low") && (strings.HasPrefix(name, "limit_") || strings.Contains(name, "_rx_power")) && !strings.Contains(name, "_tx"):
		return when(value == "active", OpticalRxWeakMargin, 4)
	case strings.HasSuffix(name, "_high") && (strings.HasPrefix(name, "limit_") || strings.Contains(name, "_rx_power")) && !strings.Contains(name, "_tx"):
		return when(value == "active", OpticalRxNearOverload, 4)
	}
	return "", 0, false
}

func when(is bool, code Code, worst int) (Code, int, bool) {
	if !is {
		code = ""
	}
	return code, worst, true
}

func ofPON(name, value string) (code Code, layer, worst int, known bool) {
	active := func(code Code, worst int) (Code, int, int, bool) {
		code, worst, _ = when(value == "active", code, worst)
		return code, layerPON, worst, true
	}
	switch name {
	case "state":
		switch value {
		case "operational":
			return "", layerPON, 0, true
		case "los":
			return PONLOS, layerPON, 0, true
		case "searching", "serial":
			return PONNotProvisionedSN, layerPON, 1, true
		case "ranging":
			return PONRangingFailed, layerPON, 1, true
		case "popup":
			return PONPopup, layerPON, 1, true
		case "stopped":
			return PONStoppedByOLT, layerPON, 0, true
		}
	case "omci_provisioned":
		code, worst, _ = when(value == "no", PONFakeO5, 3)
		return code, layerPON, worst, value == "yes" || value == "no"
	case "loid_status":
		code = loidRejected(value)
		return code, layerPON, 0, true
	case "alarm_los":
		return active(PONLOS, 0)
	case "alarm_lof":
		return active(PONNoSync, 2)
	case "alarm_sf", "alarm_sd":
		return active(OpticalBitErrors, 4)
	case "alarm_dying_gasp", "alarm_dg", "alarm_dgi":
		code, worst, _ = when(value == "active", PONDyingGasp, 0)
		return code, layerPower, worst, true
	case "alarm_rogue", "alarm_tx_too_long", "alarm_tx_mismatch":
		return active(OpticalLaserStuckOn, 0)
	}
	return "", 0, 0, false
}

// loidRejected reads what chips say of a LOID, as the registration rung does.
func loidRejected(status string) Code {
	word := strings.ToLower(strings.TrimSpace(status))
	switch {
	case word == "2", strings.Contains(word, "exist"):
		return PONLOIDUnknown
	case word == "3", strings.Contains(word, "password"):
		return PONLOIDPassword
	case word == "4", strings.Contains(word, "duplicat"):
		return PONLOIDDuplicate
	case word == "fail", strings.Contains(word, "reject"):
		return PONAuthRejected
	}
	return ""
}

// wrong keeps the signs of what was wrong at some time.
func wrong(signs []sign) []sign {
	return slices.DeleteFunc(signs, func(s sign) bool {
		return len(s.spells) == 0 || s.layer == layerWAN && !s.open() && s.total < blink
	})
}

func (s *sign) open() bool { return s.spells[len(s.spells)-1].open }

// roles tells links to the network from those in the house: by name, by what
// the addresses are on, and by what was lost with them.
func roles(signs []sign, h []Happening) {
	for i := range signs {
		s := &signs[i]
		if s.layer != layerLink {
			continue
		}
		n := len(s.subject)
		wan := upstream(s.subject)
		for k := range h {
			if wan {
				break
			}
			// "eth1" carries "eth1" and "eth1.100".
			o := h[k].Subject
			wan = h[k].Group == "wan" && strings.HasPrefix(o, s.subject) && (len(o) == n || o[n] == '.')
		}
		if !wan && !strings.HasPrefix(s.subject, "lan") {
			wan = slices.ContainsFunc(signs, func(o sign) bool { return o.layer == layerWAN && o.follows(s) })
		}
		switch {
		case strings.HasPrefix(s.subject, "ppp"):
			s.layer, s.code = layerWAN, DialDropped
		case !wan:
			s.layer, s.code = layerHouse, LANUnsteady
		}
	}
}

func upstream(name string) bool {
	for _, p := range [...]string{"ppp", "wan", "pon", "gpon", "epon", "nas", "veip"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// steady drops what is no fault: a computer that was switched off.
func steady(signs []sign) []sign {
	return slices.DeleteFunc(signs, func(s sign) bool { return s.layer == layerHouse && s.times < flaps })
}

// follows reports whether all that was wrong with s began when o was wrong, as
// far as telemetry can see.
func (s *sign) follows(o *sign) bool {
	for _, a := range s.spells {
		if !slices.ContainsFunc(o.spells, func(b spell) bool {
			late := slack(o.layer)
			if !b.begun {
				late = 0 // it was there before
			}
			return b.from <= a.from+late && (b.open || b.to >= a.from)
		}) {
			return false
		}
	}
	return true
}

// explainedBy reports whether o is why s was, or is, wrong.
func (s *sign) explainedBy(o *sign, end time.Duration) bool {
	switch {
	case o.layer >= layerHouse || s.layer >= layerHouse || o.layer > s.layer:
		return false
	case o.layer == s.layer && o.worst >= s.worst:
		return false
	case o.layer == layerLight && o.worst > 3: // light that is still good enough, or can't be read, explains nothing
		return false
	}
	last := o.spells[len(o.spells)-1]
	return s.follows(o) && (!s.open() || last.open || end-last.to <= settling)
}

// conclude makes causes of the signs, and consequences.
func conclude(signs []sign, end time.Duration) Diagnosis {
	sort.SliceStable(signs, func(i, j int) bool {
		a, b := &signs[i], &signs[j]
		if a.layer != b.layer {
			return a.layer < b.layer
		}
		if a.worst != b.worst {
			return a.worst < b.worst
		}
		if a.name != b.name {
			return a.name < b.name
		}
		return a.subject < b.subject
	})
	d := Diagnosis{Causes: []Ranked{}}
	root := make([]int, len(signs))
	causes := make([]int, len(signs)) // sign → cause
	light, registration := false, false
	for i := range signs {
		s := &signs[i]
		root[i], causes[i] = -1, -1
		light, registration = light || s.layer <= layerLight, registration || s.layer == layerPON
		for j := range i {
			if root[j] < 0 && s.explainedBy(&signs[j], end) {
				root[i] = j
				break
			}
		}
		if root[i] < 0 {
			causes[i] = d.add(s, i)
		}
	}
	for i := range signs {
		if root[i] < 0 {
			continue
		}
		by := &d.Causes[causes[root[i]]]
		by.likelier()
		if c := find(signs[i].named()); signs[i].open() && c.Severity != Info {
			// What brought the line down is a fault, however small by itself.
			by.Kind = KindFault
			if c.Severity.rank() < by.Severity.rank() {
				by.Severity = c.Severity
			}
		}
		c := Consequence{Code: signs[i].named(), Rung: signs[i].group, By: by.Code}
		switch told := slices.ContainsFunc(d.Consequences, func(o Consequence) bool { return o.Code == c.Code }); {
		case c.Code == c.By:
			by.For = append(by.For, signs[i].refs()...)
		case !told:
			d.Consequences = append(d.Consequences, c)
		}
	}
	for i := range d.Causes {
		r := &d.Causes[i]
		// Where nothing below has a sign, it is more likely the other side.
		if r.Code == PONPopup && !light {
			r.Side, r.OrSide = SideOLT, SideDrop
		}
		if r.Code == DialDropped && !light && !registration {
			r.Side, r.OrSide = SideBRAS, SideDrop
		}
		r.Confidence = round(r.Confidence)
	}
	rank(d.Causes)
	return d
}

// named is the cause that a sign means, by how it went on.
func (s *sign) named() Code {
	switch {
	case s.layer == layerLight && s.worst <= 3 && s.times >= flaps:
		return OpticalUnsteady
	case s.name == "state" && !s.open() && s.code != PONStoppedByOLT:
		return PONPopup // whatever it went through, it came back
	}
	return s.code
}

// add adds the cause that a sign means and returns its place.
func (d *Diagnosis) add(s *sign, index int) int {
	code := s.named()
	kind := KindWarning
	c := find(code)
	switch {
	case !s.open():
	case c.Severity == Info:
		kind = KindUnknown
	case c.Severity != Minor:
		kind = KindFault
	}
	for i := range d.Causes {
		if r := &d.Causes[i]; r.Code == code {
			r.For = append(r.For, s.refs()...)
			r.likelier()
			if kind.rank() < r.Kind.rank() {
				r.Kind = kind
			}
			return i
		}
	}
	r := c.ranked(kind)
	r.For, r.rung, r.index = s.refs(), s.layer, index
	if !s.spells[0].begun {
		r.Confidence *= 0.8 // what came before it is not in the list
	}
	d.Causes = append(d.Causes, r)
	return len(d.Causes) - 1
}

// refs shows what a sign was read from.
func (s *sign) refs() []Ref {
	show := func(h Happening) Ref {
		subject := h.Subject
		if subject != "" {
			subject += " "
		}
		return Ref{Rung: h.Group, What: h.Name, Value: subject + h.Before + " → " + h.After}
	}
	refs := []Ref{show(s.first)}
	if s.last != s.first {
		refs = append(refs, show(s.last))
	}
	if s.times > 1 {
		refs = append(refs, Ref{Rung: s.group, What: "times", Value: strconv.Itoa(s.times)})
	}
	if !s.open() && s.spells[0].begun {
		refs = append(refs, Ref{Rung: s.group, What: "lasted_s", Value: strconv.FormatFloat(s.total.Seconds(), 'f', 1, 64)})
	}
	return refs
}
