package console

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// Bounds of what the quantities can be. Beyond them something was garbled.
const (
	floorDBm          = -40.0 // one count of 0.1 uW: no light
	leastPowerDBm     = -41.0 // below the floor nothing is counted
	mostPowerDBm      = 10.0  // 65535 counts are 8.2 dBm
	mostBiasMilliamps = 132.0 // 65535 counts of 2 uA
	leastVolts        = 1.5   // no module works below
	mostVolts         = 6.6   // 65535 counts of 100 uV
	leastCelsius      = -60.0
	mostCelsius       = 128.0
)

// Session says where in getting in a captured text ends.
type Session string

// The sessions. The zero value says nothing of getting in.
const (
	SessionLogin      Session = "login_prompt" // waits for a name or password
	SessionPrompt     Session = "prompt"       // ready for a command
	SessionBootLoader Session = "bootloader"   // type nothing
	SessionError      Session = "error"        // the answer is an error
)

// PON is the registration state as a console tells it. Its fields are those
// of pon.Status, to which it converts; this package leaves State empty for
// the collector to derive from Raw.
type PON struct {
	State            string
	Raw              string
	Serial           string
	OMCIProvisioned  string
	OMCIEvidence     string
	GEMPorts, TConts int
	FlowsKnown       bool
	LOIDStatus       string
	Alarms           []string
	AlarmsKnown      []string
	Counters         map[string]uint64
	Source           string
	At               time.Time
}

// The words of PON.OMCIProvisioned.
const (
	yes     = "yes"
	no      = "no"
	unknown = "unknown"
)

// Facts are what a text of a console tells.
type Facts struct {
	Driver  string
	Optics  optics.Reading
	PON     PON
	Session Session
}

// Parse reads what a console of the named driver's family has printed:
// a captured text, with or without echo and prompts, cut off anywhere. The
// error is only about the driver; a text that tells nothing yields Facts that
// say nothing.
func Parse(driverName string, text []byte) (Facts, error) {
	d, ok := lookup(driverName)
	if !ok {
		return Facts{}, fmt.Errorf("cannot parse console text: no driver %q (there is %s)", driverName, strings.Join(Drivers(), ", "))
	}
	c := cleaner{keepKernel: d.keepKernel}
	_, _ = c.Write(text)
	s := newScan(d)
	last := ""
	for _, line := range c.lines {
		s.line(line, true)
		if strings.TrimSpace(line) != "" {
			last = line
		}
	}
	if tail := c.tail(); strings.TrimSpace(tail) != "" {
		s.line(tail, false)
		last = tail
	}
	facts := s.facts()
	facts.Session = d.session(last, c.boot, s)
	return facts, nil
}

// session says where the text ends, by its last line that is not blank.
func (d *driver) session(last string, boot func() bool, s *scan) Session {
	switch d.classify(last) {
	case kindLogin, kindPassword:
		return SessionLogin
	case kindShell, kindCLI, kindIdle:
		return SessionPrompt
	case kindBoot:
		return SessionBootLoader
	case kindNone, kindOther:
	}
	if _, ok := d.cutPrompt(last); ok {
		return SessionPrompt // a prompt with a command behind it
	}
	switch {
	case boot():
		return SessionBootLoader
	case s.errors > 0 && s.understood == 0:
		return SessionError
	}
	return ""
}

// scan gathers facts line by line.
type scan struct {
	d *driver
	f Facts

	// asked is the query whose answer the lines are; nil if that is not
	// known: then they may tell anything.
	asked *query
	// live says that asked was set by who typed the command: prompts and
	// echoes in the text do not change it.
	live bool
	// deaf says that the lines answer a command we did not ask just now.
	deaf bool
	// answered are the fields that the current answer has told.
	answered field

	understood int // lines that told something
	errors     int // lines that were refusals

	opticSeen map[string]bool             // optical flags read, with their prefix
	noValue   bool                        // the received power is "--", "N/A" or the like
	dark      bool                        // the text says that there is no light
	linkDown  bool                        // what is printed next is old
	odd       bool                        // the text tells of an odd model
	continues *valueRule                  // the rule of the line before, if this one may continue it
	by        [len(fieldsOfOptics)]*query // which query told a quantity

	table    *tableRule // the one whose rows are being read
	tableBad bool
	gemPorts map[string]bool
	tconts   map[string]bool
}

func newScan(d *driver) *scan {
	source := "console:" + d.name
	s := &scan{d: d, opticSeen: map[string]bool{}}
	s.f.Driver = d.name
	s.f.Optics.Source = source
	s.f.PON.Source = source
	s.f.PON.OMCIProvisioned = unknown
	return s
}

// begin starts the answer to a query that was sent.
func (s *scan) begin(q *query) {
	s.asked, s.answered, s.table, s.continues = q, 0, nil, nil
	s.live, s.deaf = true, false
}

// echo notes a prompt (nil) or the echo of a query in the text.
func (s *scan) echo(q *query) {
	switch {
	case !s.live:
		s.asked, s.answered, s.table, s.continues = q, 0, nil, nil
	case q != nil:
		s.deaf = q != s.asked
	}
}

// end ends an answer: a value that was asked for and not told could not be
// read.
func (s *scan) end() {
	if s.asked == nil {
		return
	}
	s.refused(s.asked.fields&^s.answered, "")
	s.asked, s.table = nil, nil
	s.live, s.deaf = false, false
}

// may reports whether the current answer may tell f.
func (s *scan) may(f field) bool { return s.asked == nil || s.asked.fields&f != 0 }

// told notes that a line told f.
func (s *scan) told(f field) {
	s.answered |= f
	s.understood++
}

// line takes one line. ended says that a line end or a prompt follows.
func (s *scan) line(text string, ended bool) {
	trimmed := strings.TrimSpace(text)
	s.odd = s.odd || s.d.odd(trimmed)
	// A prompt at the end of a line ends what stands before it.
	if p, before := s.d.promptAt(trimmed); p != nil && before != "" {
		s.line(before, true)
		s.echo(nil)
		return
	}
	if at := strings.LastIndexAny(trimmed, "0123456789") + 1; at > 0 && at < len(trimmed) && !ended {
		if p, before := s.d.promptAt(trimmed[at:]); p != nil && before == "" && s.d.classify(trimmed) == kindOther {
			s.line(trimmed[:at], true)
			s.echo(nil)
			return
		}
	}
	if rest, ok := s.d.cutPrompt(trimmed); ok {
		s.echo(nil)
		trimmed = strings.TrimSpace(rest)
	}
	if trimmed == "" {
		return
	}
	if q := s.d.query(trimmed); q != nil {
		s.echo(q)
		return
	}
	if s.deaf {
		return
	}
	code, coded := strings.CutPrefix(trimmed, "errorcode=")
	failed := coded && ended && code != "0" && !strings.HasPrefix(code, "0 ")
	for i := 0; i < len(s.d.errorPrefixes) || failed; i++ {
		if failed || strings.HasPrefix(trimmed, s.d.errorPrefixes[i]) {
			s.errors++
			if s.asked != nil && ended {
				s.refused(s.asked.fields&^s.answered, trimmed)
				s.answered |= s.asked.fields
			}
			return
		}
	}
	if isShellError(trimmed) {
		s.errors++
		if s.asked != nil && ended {
			s.refused(s.asked.fields&^s.answered, trimmed)
			s.answered |= s.asked.fields
		}
		return
	}
	if s.tableLine(trimmed, ended) {
		return
	}
	if s.d.serial != nil && ended && s.may(fieldSerial) {
		if sn, ok := s.d.serial(trimmed); ok {
			switch s.f.PON.Serial {
			case "", sn:
				s.f.PON.Serial = sn
			default:
				s.f.PON.Serial = "" // two that differ are none
			}
			s.told(fieldSerial)
			return
		}
	}
	if s.valueLine(trimmed, ended) || s.stateLine(trimmed, ended) || s.signLine(trimmed, ended) {
		return
	}
	if s.counterLine(trimmed, ended) || s.d.extra != nil && s.d.extra(s, trimmed, ended) {
		return
	}
	if ended {
		s.flagLine(trimmed)
	}
}

// odd reports whether the line tells of an odd model.
func (d *driver) odd(line string) bool {
	for _, text := range d.oddities {
		if strings.Contains(line, text) {
			return true
		}
	}
	return false
}

// isShellError recognises the shell's own complaints.
func isShellError(line string) bool {
	return strings.HasSuffix(line, ": not found") || strings.HasSuffix(line, "No such file or directory") ||
		strings.HasSuffix(line, "Permission denied")
}

// reading returns the reading that a field stands for, nil if none.
func (s *scan) reading(f field) (*collectors.Reading, string) {
	switch f {
	case fieldRx:
		return &s.f.Optics.RxPower, optics.UnitPower
	case fieldTx:
		return &s.f.Optics.TxPower, optics.UnitPower
	case fieldBias:
		return &s.f.Optics.Bias, optics.UnitBias
	case fieldTemperature:
		return &s.f.Optics.Temperature, optics.UnitTemperature
	case fieldVoltage:
		return &s.f.Optics.Voltage, optics.UnitVoltage
	default:
		return nil, ""
	}
}

// set stores a reading. What one answer told, the failure of another does not
// take back.
func (s *scan) set(f field, status collectors.Status, value float64, raw string) {
	r, unit := s.reading(f)
	if r == nil {
		return
	}
	at := slices.Index(fieldsOfOptics[:], f)
	if status == collectors.StatusError && r.Status != "" && r.Status != collectors.StatusError && s.by[at] != s.asked {
		return
	}
	s.by[at] = s.asked
	if status != collectors.StatusOK {
		value = 0
	}
	*r = collectors.Reading{Value: value, Unit: unit, Status: status, Source: s.f.Optics.Source, Raw: raw}
}

var fieldsOfOptics = [...]field{fieldRx, fieldTx, fieldBias, fieldTemperature, fieldVoltage}

// refused marks every quantity in fields as not readable.
func (s *scan) refused(fields field, raw string) {
	for _, f := range fieldsOfOptics {
		if fields&f != 0 {
			s.set(f, collectors.StatusError, 0, bounded(raw))
		}
	}
}

// has reports whether all of fields that matter to a spare query are known.
func (s *scan) has(fields field) bool {
	for _, f := range fieldsOfOptics {
		if r, _ := s.reading(f); fields&f != 0 && (r.Status == "" || r.Status == collectors.StatusError) {
			return false
		}
	}
	return fields&fieldState == 0 || s.f.PON.Raw != ""
}

// facts completes what the lines told.
func (s *scan) facts() Facts {
	f := s.f
	o := &f.Optics
	// All flags of a set or none: a list that was cut off says nothing.
	counts := map[string]int{}
	for name := range s.opticSeen {
		set, _, _ := strings.Cut(name, " ")
		counts[set]++
	}
	complete := func(set flagSet) int {
		n := 0
		for _, rule := range s.d.flags {
			if rule.set == set {
				n += len(rule.names)
			}
		}
		return n
	}
	o.AlarmsKnown = counts["alarm"] > 0 && counts["alarm"] == complete(opticAlarms)
	o.WarningsKnown = counts["warning"] > 0 && counts["warning"] == complete(opticWarnings)
	dark := s.dark || slices.Contains(o.Alarms, "optical_los") || slices.Contains(f.PON.Alarms, "los")
	switch {
	case o.AlarmsKnown:
	case len(s.opticSeen) == 1 && s.opticSeen["extra optical_los"]:
		o.AlarmsKnown = true // asked for alone
	default:
		o.Alarms = nil
	}
	if !o.WarningsKnown {
		o.Warnings = nil
	}
	if s.noValue && dark && o.RxPower.Status == collectors.StatusError {
		o.RxPower.Status = collectors.StatusNoLight
	}
	if o.Voltage.OK() && o.Voltage.Value == 0 {
		o.Distrust() // a module that answers has a supply
	} else if o.Voltage.OK() && o.Voltage.Value < leastVolts {
		o.Voltage.Value, o.Voltage.Status = 0, collectors.StatusUntrusted // a digit was lost
	}
	if p := &f.PON; p.FlowsKnown {
		if p.GEMPorts > 0 {
			p.OMCIProvisioned = yes
			p.OMCIEvidence = fmt.Sprintf("%d GEM ports on %d T-CONTs carry user traffic", p.GEMPorts, p.TConts)
		} else {
			p.OMCIProvisioned = no
			p.OMCIEvidence = "no GEM port carries user traffic"
		}
	}
	return f
}

// bounded keeps a raw text presentable: printable ASCII, 80 bytes.
func bounded(s string) string {
	const most = 80
	b := make([]byte, 0, min(len(s), most))
	for i := 0; i < len(s) && len(b) < most; i++ {
		c := s[i]
		if c < 0x20 || c > 0x7e {
			c = '?'
		}
		b = append(b, c)
	}
	return string(b)
}
