package console

import "strings"

// broadcom describes the gateways with a Broadcom chip: the command line of
// the vendor's SDK for GPON, and that of the BCM55030 for EPON ("2000/>",
// usually at 57600 baud).
//
// "laser power" alone prints the count of 0.1 uW and calls it uW; it is read
// as what it is, but not asked: --rxread prints a fraction, and dBm.
func broadcom() *driver {
	uW := []unit{{name: "uW", milliwatts: 1e-3, form: fraction}, {name: "uW", milliwatts: 1e-4, form: whole}}
	return &driver{
		name:   "broadcom",
		logins: 1,
		prompts: []prompt{
			{kind: kindCLI, pattern: ">"},
			{kind: kindCLI, pattern: " >"},
			{kind: kindShell, pattern: "%d/>"},
		},
		leave: []step{{from: kindCLI, command: "exit", to: kindLogin}},
		queries: []query{
			{command: "laser power --rxread", at: kindCLI, fields: fieldRx},
			{command: "laser power --txread", at: kindCLI, fields: fieldTx},
			{command: "gponctl getState", at: kindCLI, fields: fieldState},
			{command: mpcpInfo, at: kindShell, fields: fieldState},
			{command: "laser power", at: kindCLI, fields: fieldRx | fieldTx, heard: true},
			{command: "mpcp/oltmac", at: kindShell, heard: true},
			{command: "sftver", at: kindShell, heard: true},
		},
		values: []valueRule{
			{field: fieldRx, label: "Rx Laser Power^=^", units: uW, tail: nextDBmTail, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "Tx Laser Power^=^", units: uW, tail: nextDBmTail, least: leastPowerDBm, most: mostPowerDBm},
		},
		extra: broadcomLine,
	}
}

// mpcpInfo prints [[state,slots]], a pair for each logical link.
const mpcpInfo = "mpcp/info"

// broadcomLine reads the refusal of a power, the state of GPON, a name in
// brackets somewhere in the line, and that of EPON.
func broadcomLine(s *scan, line string, ended bool) bool {
	if strings.Contains(line, "Power not read") {
		s.errors++
		fields := fieldRx
		if s.asked != nil {
			fields = s.asked.fields
		}
		fields &^= s.answered
		s.refused(fields, line)
		s.answered |= fields
		return true
	}
	if !s.may(fieldState) {
		return false
	}
	if list, ok := strings.CutPrefix(line, "[["); ok {
		if state, ok := mpcpState(list); ok && (s.asked == nil || s.asked.command == mpcpInfo) {
			s.f.PON.Raw = state
			s.told(fieldState)
		}
		return true
	}
	text := strings.ToLower(line)
	if !ended || strings.Contains(text, "prev") || strings.Contains(text, "last") {
		return false
	}
	_, name, ok := strings.Cut(line, "(")
	name, rest, closed := strings.Cut(name, ")")
	if !ok || !closed || !isOName(name) || strings.Contains(rest, "(") {
		return false
	}
	s.f.PON.Raw = name
	s.told(fieldState)
	return true
}

// mpcpState returns the highest state in "1,32],[3,32]]": one link that is
// registered will do.
func mpcpState(list string) (state string, ok bool) {
	list, ok = strings.CutSuffix(list, "]]")
	if !ok {
		return "", false
	}
	for pair := range strings.SplitSeq(list, "],[") {
		n, slots, both := strings.Cut(pair, ",")
		if !both || len(n) != 1 || !isNumber(n) || !isNumber(strings.TrimSpace(slots)) {
			return "", false
		}
		state = max(state, n)
	}
	return state, true
}
