package console

import (
	"fmt"
	"math"
	"slices"
	"strconv"
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
	var (
		boot bootText
		last string
	)
	for _, line := range c.lines {
		s.line(line, true)
		boot.line(line)
		if strings.TrimSpace(line) != "" {
			last = line
		}
	}
	if tail := c.tail(); strings.TrimSpace(tail) != "" {
		s.line(tail, false)
		boot.line(tail)
		last = tail
	}
	facts := s.facts()
	facts.Session = d.session(last, bool(boot), s)
	return facts, nil
}

// session says where the text ends, by its last line that is not blank.
func (d *driver) session(last string, boot bool, s *scan) Session {
	switch d.classify(last) {
	case kindLogin, kindPassword:
		return SessionLogin
	case kindShell, kindCLI:
		return SessionPrompt
	case kindBoot:
		return SessionBootLoader
	case kindNone, kindOther:
	}
	if _, ok := d.cutPrompt(last); ok {
		return SessionPrompt // a prompt with a command behind it
	}
	switch {
	case boot:
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

	opticSeen map[string]bool // optical flags read, with their prefix
	noValue   bool            // the received power is "--", "N/A" or the like

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
	s.asked, s.answered, s.table = q, 0, nil
	s.live, s.deaf = true, false
}

// echo notes a prompt (nil) or the echo of a query in the text.
func (s *scan) echo(q *query) {
	switch {
	case !s.live:
		s.asked, s.answered, s.table = q, 0, nil
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
	// A prompt at the end of a line ends what stands before it.
	for _, p := range s.d.prompts {
		if !p.anywhere {
			continue
		}
		if before, ok := p.suffix(trimmed); ok && before != "" {
			s.line(before, true)
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
	for _, prefix := range s.d.errorPrefixes {
		if strings.HasPrefix(trimmed, prefix) {
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
	label, value, ok := strings.Cut(trimmed, ":")
	if !ok {
		return
	}
	label = strings.TrimSpace(label)
	if s.valueLine(label, value, ended) || s.stateLine(label, value, ended) || s.counterLine(label, value, ended) {
		return
	}
	if ended {
		s.flagLine(trimmed)
	}
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

// set stores a reading.
func (s *scan) set(f field, status collectors.Status, value float64, raw string) {
	r, unit := s.reading(f)
	if r == nil {
		return
	}
	if status != collectors.StatusOK {
		value = 0
	}
	*r = collectors.Reading{Value: value, Unit: unit, Status: status, Source: s.f.Optics.Source, Raw: raw}
}

// refused marks every quantity in fields as not readable.
func (s *scan) refused(fields field, raw string) {
	for f := fieldRx; f <= fieldVoltage; f <<= 1 {
		if fields&f != 0 {
			s.set(f, collectors.StatusError, 0, bounded(raw))
		}
	}
}

// valueLine reads "<label>: <number> <unit>".
func (s *scan) valueLine(label, value string, ended bool) bool {
	for i := range s.d.values {
		rule := &s.d.values[i]
		if rule.label != label {
			continue
		}
		if !s.may(rule.field) {
			return true
		}
		value, status, raw, ok := rule.read(value, ended)
		if !ok {
			return true // cut off: no reading yet
		}
		s.set(rule.field, status, value, raw)
		if rule.field == fieldRx {
			s.noValue = status == collectors.StatusError && isNoValue(raw)
		}
		s.told(rule.field)
		return true
	}
	return false
}

// read reads what follows a label. ok is false for text that was cut off
// before it made sense.
func (rule *valueRule) read(text string, ended bool) (value float64, status collectors.Status, raw string, ok bool) {
	raw = bounded(strings.TrimSpace(text))
	bad := func() (float64, collectors.Status, string, bool) {
		return 0, collectors.StatusError, raw, ended
	}
	if len(text) < 2 || text[0] != ' ' || text[1] == ' ' || text[1] == '\t' {
		return bad() // the tool prints one blank: a second one was a digit
	}
	number, rest := splitNumber(raw)
	if number == "" {
		return bad()
	}
	rest = strings.TrimSpace(rest)
	at := slices.IndexFunc(rule.units, func(u unit) bool { return u.name == rest })
	if at < 0 {
		return bad() // no unit, another unit, or something behind it
	}
	power := rule.field&(fieldRx|fieldTx) != 0
	if number == "-inf" {
		if power {
			return 0, collectors.StatusNoLight, raw, true
		}
		return bad()
	}
	v, err := strconv.ParseFloat(strings.Replace(number, ",", ".", 1), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return bad()
	}
	v = v*rule.units[at].factor + rule.units[at].offset
	if rule.wrap != 0 && v > rule.wrapAbove {
		v += rule.wrap
	}
	switch {
	case v < rule.least || v > rule.most:
		return 0, collectors.StatusUntrusted, raw, true
	case power && v <= floorDBm:
		return 0, collectors.StatusNoLight, raw, true
	}
	return v, collectors.StatusOK, raw, true
}

// splitNumber splits a leading number off: [-]?digits([.,]digits)? or -inf. No
// tool prints a plus.
func splitNumber(s string) (number, rest string) {
	if strings.HasPrefix(s, "-inf") {
		return "-inf", s[len("-inf"):]
	}
	i := 0
	if i < len(s) && s[i] == '-' {
		i++
	}
	start := i
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	if i == start {
		return "", s
	}
	if i+1 < len(s) && (s[i] == '.' || s[i] == ',') && isDigit(s[i+1]) {
		for i++; i < len(s) && isDigit(s[i]); i++ {
		}
	}
	return s[:i], s[i:]
}

// isNoValue recognises how a device says that it has no value.
func isNoValue(raw string) bool {
	for _, u := range []string{"dBm", "mW", "uW"} {
		raw = strings.TrimSpace(strings.TrimSuffix(raw, u))
	}
	switch strings.ToLower(raw) {
	case "", "--", "-", "n/a", "not valid", "no signal":
		return true
	}
	return false
}

// stateLine reads "<label>: <words>(<O name>)".
func (s *scan) stateLine(label, value string, ended bool) bool {
	for _, rule := range s.d.states {
		if rule.label != label {
			continue
		}
		if !s.may(fieldState) {
			return true
		}
		if raw, ok := rule.read(strings.TrimSpace(value), ended); ok {
			s.f.PON.Raw = raw
			s.told(fieldState)
		}
		return true
	}
	return false
}

// read returns the O name in text, or the word that stands in its place. The
// words and the name in brackets must belong together: one vouches for the
// other.
func (rule stateRule) read(text string, ended bool) (string, bool) {
	words, name, bracket := strings.Cut(text, "(")
	words = strings.TrimSpace(words)
	if !bracket {
		if !ended || words == "" || !isWords(words) {
			return "", false
		}
		for known := range rule.names {
			if strings.HasPrefix(known, strings.ToLower(words)) {
				return "", false // the rest of the words, or the name, is missing
			}
		}
		return bounded(words), true
	}
	name, rest, closed := strings.Cut(name, ")")
	if !closed || strings.TrimSpace(rest) != "" || !isOName(name) || !isWords(words) {
		return "", false
	}
	want, known := rule.names[strings.ToLower(words)]
	if known && want != name {
		return "", false
	}
	return name, true
}

// isOName recognises O1, O5.1, O2-3.
func isOName(s string) bool {
	if len(s) < 2 || len(s) > 5 || s[0] != 'O' || !isDigit(s[1]) {
		return false
	}
	switch rest := s[2:]; {
	case rest == "":
		return true
	case rest[0] == '.' || rest[0] == '-':
		return len(rest) == 2 && isDigit(rest[1])
	}
	return false
}

// isWords reports whether s is letters and blanks.
func isWords(s string) bool {
	for i := range len(s) {
		b := s[i]
		if b != ' ' && b != '-' && (b < 'a' || b > 'z') && (b < 'A' || b > 'Z') {
			return false
		}
	}
	return true
}

// counterLine reads "<label>: <number>".
func (s *scan) counterLine(label, value string, ended bool) bool {
	for _, rule := range s.d.counters {
		if rule.label != label {
			continue
		}
		if !s.may(fieldCounters) || !ended || value == "" || value[0] != ' ' {
			return true
		}
		digits := strings.TrimSpace(value)
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || !isDigit(digits[0]) {
			return true
		}
		if s.f.PON.Counters == nil {
			s.f.PON.Counters = map[string]uint64{}
		}
		s.f.PON.Counters[rule.name] = n
		s.told(fieldCounters)
		return true
	}
	return false
}

// flagLine reads "<prefix><name>, status: <word>".
func (s *scan) flagLine(line string) {
	name, word, ok := strings.Cut(line, ", status: ")
	if !ok || word == "" || !isWords(word) || strings.Contains(word, " ") {
		return
	}
	on := word != "clear"
	for _, rule := range s.d.flags {
		rest, ok := strings.CutPrefix(name, rule.prefix)
		if !ok {
			continue
		}
		flag, ok := rule.names[rest]
		if !ok || !s.may(rule.field) {
			continue
		}
		switch rule.set {
		case opticAlarms:
			s.opticSeen["alarm "+flag] = true
			s.f.Optics.Alarms = mark(s.f.Optics.Alarms, flag, on)
		case opticExtra:
			s.opticSeen["extra "+flag] = true
			s.f.Optics.Alarms = mark(s.f.Optics.Alarms, flag, on)
		case opticWarnings:
			s.opticSeen["warning "+flag] = true
			s.f.Optics.Warnings = mark(s.f.Optics.Warnings, flag, on)
		case ponAlarms:
			s.f.PON.AlarmsKnown = mark(s.f.PON.AlarmsKnown, flag, true)
			s.f.PON.Alarms = mark(s.f.PON.Alarms, flag, on)
		}
		s.told(rule.field)
		return
	}
}

// mark puts name into, or takes it out of, a sorted list.
func mark(list []string, name string, on bool) []string {
	at, found := slices.BinarySearch(list, name)
	switch {
	case on && !found:
		return slices.Insert(list, at, name)
	case !on && found:
		return slices.Delete(list, at, at+1)
	}
	return list
}

// tableLine reads the table of upstream flows.
func (s *scan) tableLine(line string, ended bool) bool {
	if s.table == nil {
		for i := range s.d.tables {
			if columns(line, s.d.tables[i].header) && s.may(fieldFlows) {
				s.table, s.tableBad = &s.d.tables[i], false
				s.gemPorts, s.tconts = map[string]bool{}, map[string]bool{}
				return true
			}
		}
		return false
	}
	if !ended {
		return true
	}
	if strings.HasPrefix(line, s.table.closing) {
		if !s.tableBad {
			p := &s.f.PON
			p.GEMPorts, p.TConts, p.FlowsKnown = len(s.gemPorts), len(s.tconts), true
			s.told(fieldFlows)
		}
		s.table = nil
		return true
	}
	cells := strings.Split(line, "|")
	if len(cells) != len(s.table.header) {
		s.tableBad = true
		return false
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	typ, port, tcont := cells[2], cells[1], cells[3]
	if !isNumber(cells[0]) || !isNumber(port) || !isNumber(tcont) || typ == "" || !isWords(typ) {
		s.tableBad = true
		return true
	}
	if typ == s.table.user {
		s.gemPorts[port] = true
		s.tconts[tcont] = true
	}
	return true
}

// columns reports whether line is a row of exactly the given cells.
func columns(line string, cells []string) bool {
	got := strings.Split(line, "|")
	if len(got) != len(cells) {
		return false
	}
	for i := range got {
		if strings.TrimSpace(got[i]) != cells[i] {
			return false
		}
	}
	return true
}

func isNumber(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
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
	dark := slices.Contains(o.Alarms, "optical_los") || slices.Contains(f.PON.Alarms, "los")
	if !o.AlarmsKnown {
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
