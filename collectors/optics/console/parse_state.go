package console

import (
	"slices"
	"strconv"
	"strings"
)

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
