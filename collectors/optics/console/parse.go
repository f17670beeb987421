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

// valueLine reads "<label><number> <unit>", and the line in dBm that continues
// one.
func (s *scan) valueLine(line string, ended bool) bool {
	continues := s.continues
	s.continues = nil
	if rest, ok := strings.CutPrefix(line, "="); ok && continues != nil {
		s.crossCheck(continues.field, rest, ended)
		return true
	}
	for i := range s.d.values {
		rule := &s.d.values[i]
		rest, ok := after(line, rule.label, false)
		if !ok {
			continue
		}
		if !s.may(rule.field) {
			return true
		}
		value, status, raw, ok := rule.read(rest, ended)
		if !ok {
			return true // cut off: no reading yet
		}
		s.set(rule.field, status, value, raw)
		if rule.field == fieldRx {
			s.noValue = status == collectors.StatusError && isNoValue(raw)
		}
		if rule.tail == nextDBmTail {
			s.continues = rule
		}
		s.told(rule.field)
		return true
	}
	return false
}

// apart is how far two prints of the same power may lie apart: one is rounded,
// or calibrated.
const apart = 0.5

// crossCheck compares a power with what the next line says in dBm; two that
// contradict each other are not to be trusted.
func (s *scan) crossCheck(f field, text string, ended bool) {
	r, _ := s.reading(f)
	rule := valueRule{field: f, units: dBm, least: leastPowerDBm, most: mostPowerDBm}
	v, status, _, ok := rule.read(text, ended)
	if !ok || status == collectors.StatusError || r.Status == collectors.StatusError {
		return
	}
	switch {
	case status != r.Status, r.OK() && math.Abs(v-r.Value) > apart:
		s.set(f, collectors.StatusUntrusted, 0, bounded(r.Raw+" "+strings.TrimSpace(text)))
	case r.OK():
		r.Value = v
	}
}

// read reads what follows a label. ok is false for text that was cut off
// before it made sense.
func (rule *valueRule) read(text string, ended bool) (value float64, status collectors.Status, raw string, ok bool) {
	raw = bounded(strings.TrimSpace(text))
	bad := func() (float64, collectors.Status, string, bool) {
		return 0, collectors.StatusError, raw, ended
	}
	if !rule.gap.fits(text) {
		return bad()
	}
	power := rule.field&(fieldRx|fieldTx) != 0
	if power && strings.EqualFold(raw, "no signal") {
		return 0, collectors.StatusNoLight, raw, ended
	}
	v, u, rest, found := rule.measure(raw)
	if !found {
		return bad() // no unit, or another
	}
	if u.name == "" && !ended {
		return bad() // only the line's end ends it
	}
	switch {
	case rule.tail == pairTail && u.milliwatts != 0 && (rest != "" || !ended):
		second, unit, behind, found := rule.measure(rest)
		if !found || unit.milliwatts != 0 || behind != "" {
			return bad()
		}
		if math.Abs(second-v) > apart && max(second, v) > floorDBm {
			return 0, collectors.StatusUntrusted, raw, true
		}
		v = second
	case rest == "", rule.tail == slashTail && rest[0] == '/', rule.tail == columnTail:
	default:
		return bad() // something behind it
	}
	if math.IsInf(v, -1) {
		if power {
			return 0, collectors.StatusNoLight, raw, true
		}
		return bad()
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return bad()
	}
	if rule.wrap != 0 && v > rule.wrapAbove {
		v += rule.wrap
	}
	switch {
	case v < rule.least || v > rule.most:
		return 0, collectors.StatusUntrusted, raw, true
	case power && v <= floorDBm+1e-9:
		return 0, collectors.StatusNoLight, raw, true
	}
	return v, collectors.StatusOK, raw, true
}

// fits reports whether text begins with such a gap.
func (g gap) fits(text string) bool {
	blanks := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
	if g == oneGap && blanks != "" && strings.HasPrefix(text[len(blanks):], "-") {
		return true // no digit stands before a minus
	}
	switch g {
	case oneGap:
		return blanks == " " || blanks != "" && strings.Trim(blanks, "\t") == ""
	case noGap:
		return blanks == ""
	case anyGap:
	}
	return true
}

// measure reads "<number> <unit>" with one of the rule's units, converts it,
// and returns what follows. No light is minus infinity.
func (rule *valueRule) measure(text string) (v float64, u unit, rest string, ok bool) {
	number, rest := splitNumber(text)
	if number == "" {
		return 0, unit{}, "", false
	}
	rest = strings.TrimLeft(rest, " \t")
	for _, u := range rule.units {
		behind, is := strings.CutPrefix(rest, u.name)
		broken := strings.ContainsAny(number, ".,")
		if !is || u.name == "" && rest != "" || u.form == whole && broken || u.form == fraction && !broken {
			continue
		}
		v, err := strconv.ParseFloat(strings.Replace(number, ",", ".", 1), 64)
		if err != nil && number != "-inf" {
			return 0, unit{}, "", false
		}
		switch {
		case u.milliwatts == 0:
			v = v*u.factor + u.offset
		case v < 0:
			return 0, unit{}, "", false // no power is less than none
		default:
			v = 10 * math.Log10(v*u.milliwatts)
		}
		return v, u, strings.TrimSpace(behind), true
	}
	return 0, unit{}, "", false
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
	for _, u := range []string{"(dBm)", "dBm", "mW", "uW"} {
		raw = strings.TrimSpace(strings.TrimSuffix(raw, u))
	}
	switch strings.ToLower(raw) {
	case "", "--", "-", "n/a", "not valid", "no signal":
		return true
	}
	return false
}

// stateLine reads a state.
func (s *scan) stateLine(line string, ended bool) bool {
	for i := range s.d.states {
		rule := &s.d.states[i]
		rest, ok := after(line, rule.label, rule.anywhere)
		if !ok {
			continue
		}
		if !s.may(fieldState) {
			return true
		}
		if raw, ok := rule.read(rest, ended); ok && (!s.odd || rule.doubtful == "" || raw != rule.codes[rule.doubtful]) {
			raw, s.f.PON.LOIDStatus = splitState(raw)
			s.f.PON.Raw = raw
			s.told(fieldState)
		}
		return true
	}
	return false
}

// splitState splits "O5AUTH" into the O name and what was printed behind it.
func splitState(raw string) (name, rest string) {
	for n := range raw {
		if isOName(raw[:n]) && isWords(raw[n:]) {
			return raw[:n], raw[n:]
		}
	}
	return raw, ""
}

// read returns the O name in text, or the word that stands in its place.
// Where words stand before a name in brackets, one vouches for the other.
func (rule *stateRule) read(text string, ended bool) (string, bool) {
	trimmed := strings.TrimLeft(text, " \t")
	token := trimmed
	if end := strings.IndexAny(trimmed, " \t"); end >= 0 {
		token = trimmed[:end]
	} else if !ended {
		token = "" // there may be more of it
	}
	if rule.codes != nil {
		if name, ok := rule.codes[token]; ok {
			return name, true
		}
		// A number that stands for nothing we know. One digit may be what is
		// left of two.
		return token, (len(token) > 1 || rule.codes["7"] != "" && token > "7") && len(token) < 5 && isNumber(token)
	}
	if inner, ok := strings.CutPrefix(trimmed, "["); ok {
		name, behind, closed := strings.Cut(inner, "]")
		return name, closed && strings.TrimSpace(behind) == "" && (isOName(name) || name != "" && isWords(name))
	}
	if name, words, ok := strings.Cut(token, "("); ok && isOName(name) && strings.HasSuffix(words, ")") {
		return name, true
	}
	if !strings.Contains(trimmed, "(") && len(rule.names) == 0 {
		name, _ := splitState(token)
		return token, isOName(name)
	}
	return rule.bracket(strings.TrimSpace(text), ended)
}

// bracket reads "<words>(<O name>)".
func (rule *stateRule) bracket(text string, ended bool) (string, bool) {
	words, name, bracket := strings.Cut(text, "(")
	words = strings.TrimSpace(words)
	if !bracket {
		if !rule.words || !ended || words == "" || !isWords(words) {
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
	want, known := rule.names[strings.ReplaceAll(strings.ToLower(words), "_", " ")]
	if known && want != name && !strings.HasPrefix(name, want+".") && (want != "O3" || name != "O2-3" && name != "O2.3") {
		return "", false
	}
	return name, true
}

// signLine reads a word that tells light from dark.
func (s *scan) signLine(line string, ended bool) bool {
	for _, rule := range s.d.signs {
		rest, ok := after(line, rule.label, false)
		if !ok {
			continue
		}
		words := strings.Fields(strings.ToLower(rest))
		if len(words) > 1 && words[0] == "link" {
			words = words[1:]
		}
		needs := fieldRx
		if rule.alarm != "" {
			needs |= fieldPONAlarms
		}
		if len(words) == 0 || !ended && len(words) == 1 || !s.may(needs) {
			return true
		}
		dark := slices.Contains(strings.Fields(rule.dark), words[0])
		if !dark && !slices.Contains(strings.Fields(rule.light), words[0]) {
			return true
		}
		s.dark = dark
		if rule.alarm != "" {
			s.alarm(rule.alarm, dark)
		}
		s.understood++
		return true
	}
	return false
}

// alarm notes whether an alarm of the PON MAC is active.
func (s *scan) alarm(name string, on bool) {
	s.f.PON.AlarmsKnown = mark(s.f.PON.AlarmsKnown, name, true)
	s.f.PON.Alarms = mark(s.f.PON.Alarms, name, on)
	s.told(fieldPONAlarms)
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

// isWords reports whether s is letters, blanks, dashes and underscores.
func isWords(s string) bool {
	for i := range len(s) {
		b := s[i]
		if b != ' ' && b != '-' && b != '_' && (b < 'a' || b > 'z') && (b < 'A' || b > 'Z') {
			return false
		}
	}
	return true
}

// counterLine reads the counters of a line.
func (s *scan) counterLine(line string, ended bool) bool {
	found := false
	for _, rule := range s.d.counters {
		rest, ok := after(line, rule.label, rule.anywhere)
		if !ok {
			continue
		}
		found = true
		digits, whole := strings.TrimSpace(rest), ended
		if rule.anywhere {
			var behind bool
			digits, _, behind = strings.Cut(rest, " ")
			whole = whole || behind
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if !s.may(fieldCounters) || !whole || err != nil || !isNumber(digits) {
			continue
		}
		if s.f.PON.Counters == nil {
			s.f.PON.Counters = map[string]uint64{}
		}
		s.f.PON.Counters[rule.name] = n
		s.told(fieldCounters)
	}
	return found
}

// flagLine reads "<prefix><name>, status: <word>".
func (s *scan) flagLine(line string) {
	name, word, ok := strings.Cut(line, ", status:")
	word = strings.TrimSpace(word)
	if !ok || word == "" || strings.ContainsAny(word, ",:"+string(rune(sub))) {
		return
	}
	on := !strings.EqualFold(word, "clear")
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
			s.alarm(flag, on)
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
