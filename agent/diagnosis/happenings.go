package diagnosis

import (
	"math"
	"sort"
	"strconv"
	"strings"
	"time"
)

// slack is how long after a layer went wrong telemetry may come to see it: it
// reads light and registration once a minute, and believes light when two of
// three readings agree. Links and addresses are told at once.
func slack(layer uint8) time.Duration {
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
	// nearDB is how near a level must come to where it fell from.
	nearDB = 1.5
)

// spell is a time in which something was wrong.
type spell struct {
	from, to time.Duration // from: the least there is if not begun; to: the last happening if open
	open     bool          // it is not over
	begun    bool          // its beginning was seen
}

// sign is one thing that telemetry watches, and how it has been.
type sign struct {
	property, group, subject string
	saying                   // what was said where it is wrong, now or last
	level                    float64
	spells                   []spell // the last ones
	times                    int
	total                    time.Duration
	first, last              *Happening // that made it wrong, and that came last
}

func (s *sign) open() bool { return s.spells[len(s.spells)-1].open }

// signs are those that a list has shown, bounded.
type signs []*sign

// FromHappenings says what the last minutes of telemetry came from. Before and
// After are those of the events of groups optics, pon, link and wan; what else
// there is says nothing.
//
// What changed first is the likely cause, and what it explains above it are
// consequences – where "first" allows for how late telemetry sees a layer. A
// cause whose reading is good again by the end is a warning, as are errors that
// were counted, and its evidence says how long it lasted ("lasted_s") and how often it came ("times"). Nothing
// wrong is no cause. Of happenings at the same moment the order given counts;
// else the order does not matter. The same happenings always get the same
// answer.
func FromHappenings(h []Happening) Diagnosis {
	if len(h) == 0 {
		return Diagnosis{Causes: []Ranked{}}
	}
	h = append([]Happening(nil), h...)
	sort.SliceStable(h, func(i, j int) bool { return h[i].At < h[j].At })
	var all signs
	for i := range h {
		all.take(&h[i])
	}
	end := h[len(h)-1].At
	wrong := all[:0]
	for _, s := range all {
		n := len(s.spells)
		if n == 0 {
			continue
		}
		if last := &s.spells[n-1]; last.open {
			// Errors that are counted have happened; nothing tells that they go on.
			last.to, last.open = end, s.value != rising
		} else if s.layer == layerWAN && s.total < blink {
			continue
		}
		wrong = append(wrong, s)
	}
	return wrong.steady(h).conclude(end)
}

// take adds what one happening says.
func (all *signs) take(h *Happening) {
	name := property(h)
	said := means(h, name, h.After)
	if said == nil {
		return
	}
	step := said.name == "rx_power"
	var s *sign
	for _, o := range *all {
		if o.property == name && o.subject == h.Subject && o.group == h.Group {
			s = o
			break
		}
	}
	if s == nil {
		if len(*all) == maxSigns {
			return
		}
		s = &sign{property: name, group: h.Group, subject: h.Subject, saying: *said}
		if before := means(h, name, h.Before); before != nil && before.code != "" && !step && said.value != rising {
			// It was wrong when the list begins.
			s.saying, s.first, s.times = *before, h, 1
			s.spells = []spell{{from: math.MinInt64, open: true}}
		}
		*all = append(*all, s)
	}
	s.last = h
	n := len(s.spells)
	open := n > 0 && s.spells[n-1].open
	bad := said.code != ""
	if step {
		bad = s.fell(open)
	}
	switch {
	case !bad && open:
		last := &s.spells[n-1]
		last.to, last.open = h.At, false
		if last.begun {
			s.total += last.to - last.from
		}
	case !bad:
	case open:
		s.saying = *said
	default:
		s.saying = *said
		if s.times == 0 {
			s.first = h
		}
		s.times++
		if n == maxSpells {
			copy(s.spells, s.spells[1:])
			s.spells = s.spells[:n-1]
		}
		s.spells = append(s.spells, spell{from: h.At, open: true, begun: true})
	}
}

// fell judges a step of the level, which means something only beside the one
// before: a fall is wrong until the level is back near where it fell from.
func (s *sign) fell(open bool) bool {
	before, err1 := decibels(s.last.Before)
	after, err2 := decibels(s.last.After)
	switch {
	case err1 != nil || err2 != nil:
		return open
	case open:
		return after < s.level-nearDB
	}
	s.level = before
	return after < before
}

func decibels(s string) (float64, error) {
	number, _, _ := strings.Cut(s, " ")
	return strconv.ParseFloat(number, 64)
}

// steady tells links to the network from those in the house – by name, by what
// the addresses are on, and by what was lost with them – and drops of the latter
// what is no fault: a computer that was switched off.
func (all signs) steady(h []Happening) signs {
	out := all[:0]
	for _, s := range all {
		switch {
		case strings.HasPrefix(s.subject, "ppp") && (s.layer == layerLink || s.code == AddrNone):
			s.layer, s.code = layerWAN, DialDropped
		case s.code == LANCRCErrors && s.upstream(all, h):
			continue // of the port to the network, which the light tells better
		case s.layer == layerLink && !s.upstream(all, h):
			if s.times < flaps {
				continue
			}
			s.layer, s.code = layerHouse, LANUnsteady
		}
		out = append(out, s)
	}
	return out
}

func (s *sign) upstream(all signs, h []Happening) bool {
	for _, p := range [...]string{"wan", "pon", "gpon", "epon", "nas", "veip"} {
		if strings.HasPrefix(s.subject, p) {
			return true
		}
	}
	n := len(s.subject)
	for i := range h {
		// "eth1" carries "eth1" and "eth1.100".
		o := h[i].Subject
		if h[i].Group == "wan" && strings.HasPrefix(o, s.subject) && (len(o) == n || o[n] == '.') {
			return true
		}
	}
	if strings.HasPrefix(s.subject, "lan") {
		return false
	}
	for _, o := range all {
		if o.group == "wan" && o.follows(s) {
			return true
		}
	}
	return false
}

// follows reports whether all that was wrong with s began when o was wrong, as
// far as telemetry can see.
func (s *sign) follows(o *sign) bool {
	for i := range s.spells {
		a, found := &s.spells[i], false
		for j := range o.spells {
			b := &o.spells[j]
			late := slack(o.layer)
			if !b.begun {
				late = 0 // it was there before
			}
			found = found || b.from <= a.from+late && (b.open || b.to >= a.from)
		}
		if !found {
			return false
		}
	}
	return true
}

// explainedBy reports whether o is why s was, or is, wrong.
func (s *sign) explainedBy(o *sign, end time.Duration) bool {
	switch {
	case o.layer >= layerHouse || s.layer >= layerHouse || o.layer > s.layer,
		o.layer == s.layer && o.worst >= s.worst,
		o.layer == layerLight && o.worst >= fairLight:
		return false
	}
	last := &o.spells[len(o.spells)-1]
	return s.follows(o) && (!s.open() || last.open || end-last.to <= settling)
}

// conclude makes causes of the signs, and consequences.
func (all signs) conclude(end time.Duration) Diagnosis {
	sort.SliceStable(all, func(i, j int) bool {
		a, b := all[i], all[j]
		if a.layer != b.layer {
			return a.layer < b.layer
		}
		if a.worst != b.worst {
			return a.worst < b.worst
		}
		if a.property != b.property {
			return a.property < b.property
		}
		return a.subject < b.subject
	})
	d := Diagnosis{Causes: []Ranked{}}
	causes := make([]int, len(all)) // sign → its cause, or -1
	for i, s := range all {
		var root *Ranked
		for j := 0; j < i && root == nil; j++ {
			if causes[j] >= 0 && s.explainedBy(all[j], end) {
				root = &d.Causes[causes[j]]
			}
		}
		if causes[i] = -1; root == nil {
			causes[i] = d.add(s, all)
			continue
		}
		root.likelier()
		c := find(s.named())
		if s.open() && c.Severity != Info {
			// What brought the line down is a fault, however small by itself.
			root.Kind = KindFault
			if c.Severity.rank() < root.Severity.rank() {
				root.Severity = c.Severity
			}
		}
		if c.Code == root.Code {
			s.show(root)
		} else if !d.told(c.Code) {
			d.Consequences = append(d.Consequences, Consequence{Code: c.Code, Rung: s.group, By: root.Code})
		}
	}
	for i := range d.Causes {
		d.Causes[i].Confidence = round(d.Causes[i].Confidence)
	}
	rank(d.Causes)
	return d
}

func (d *Diagnosis) told(code Code) bool {
	for i := range d.Consequences {
		if d.Consequences[i].Code == code {
			return true
		}
	}
	return false
}

// named is the cause that a sign means, by how it went on.
func (s *sign) named() Code {
	switch {
	case s.group == "optics" && s.worst < fairLight && s.times >= flaps:
		return OpticalUnsteady
	case s.property == "state" && !s.open() && s.code != PONStoppedByOLT:
		return PONPopup // whatever it went through, it came back
	}
	return s.code
}

// add adds the cause that a sign means and returns its place.
func (d *Diagnosis) add(s *sign, all signs) int {
	c := find(s.named())
	kind := KindWarning
	switch {
	case !s.open():
	case c.Severity == Info:
		kind = KindUnknown
	case c.Severity != Minor:
		kind = KindFault
	}
	for i := range d.Causes {
		if r := &d.Causes[i]; r.Code == c.Code {
			s.show(r)
			r.likelier()
			if kind.rank() < r.Kind.rank() {
				r.Kind = kind
			}
			return i
		}
	}
	r := c.ranked(kind)
	r.rung, r.index = int(s.layer), len(d.Causes)
	if !s.spells[0].begun {
		r.Confidence *= unsure // what came before it is not in the list
	}
	if below := all[0].layer; c.Code == PONPopup && below > layerLight {
		// Where nothing below has a sign, it is more likely the other side.
		r.Side, r.OrSide = SideOLT, SideDrop
	} else if c.Code == DialDropped && below > layerPON {
		r.Side, r.OrSide = SideBRAS, SideDrop
	}
	s.show(&r)
	d.Causes = append(d.Causes, r)
	return r.index
}

// show adds what a sign was read from to what speaks for a cause.
func (s *sign) show(r *Ranked) {
	for _, h := range [...]*Happening{s.first, s.last} {
		subject := h.Subject
		if subject != "" {
			subject += " "
		}
		r.cite(s.group, h.Name, subject+h.Before+" → "+h.After)
		if s.first == s.last {
			break
		}
	}
	if s.times > 1 {
		r.cite(s.group, "times", strconv.Itoa(s.times))
	}
	if !s.open() && s.spells[0].begun && s.value != rising {
		r.cite(s.group, "lasted_s", strconv.FormatFloat(s.total.Seconds(), 'f', 1, 64))
	}
}

// cite adds a piece of evidence.
func (r *Ranked) cite(rung, what, value string) {
	r.For = append(r.For, Ref{Rung: rung, What: what, Value: value})
}
