package console

// econet describes the gateways with an EcoNet (MediaTek) chip: a shell with
// the tool ponmgr, and a driver that answers through the kernel log, which a
// serial console shows by itself. tcapi is read but not asked: its answer may
// not end its line.
//
// Never to be added here: anything else written to /proc/pon_phy/debug
// (Phy_Rogue_PRBS keeps the laser on), and "cat /proc/kmsg", which takes the
// kernel log away from everybody else.
func econet() *driver {
	return &driver{
		name:       "econet",
		keepKernel: true,
		logins:     1,
		prompts: []prompt{
			{kind: kindCLI, pattern: "#"},
			{kind: kindCLI, pattern: "~ #"},
			{kind: kindCLI, pattern: "/%p #"},
			{kind: kindCLI, pattern: "%w@%p#"},
			{kind: kindCLI, pattern: "%w@%p #"},
		},
		leave:         []step{{from: kindCLI, command: "exit", to: kindLogin}},
		errorPrefixes: []string{"no attribute"},
		queries: []query{
			{command: "ponmgr gpon get info", at: kindCLI, fields: fieldState},
			{command: "ponmgr gpon get phyTransParams", at: kindCLI, fields: fieldRx | fieldTx},
			{command: "echo show_BoB_information >/proc/pon_phy/debug", at: kindCLI, fields: fieldRx | fieldTx | fieldPONAlarms, spare: true},
			{command: tcapiLink, at: kindCLI, heard: true},
			{command: tcapiPower, at: kindCLI, fields: fieldRx, heard: true},
		},
		values: []valueRule{
			{field: fieldRx, label: "rxPower is ", gap: noGap, units: lightCount, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "txPower is ", gap: noGap, units: lightCount, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldRx, label: "Rx power^=^", units: dBm, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "Tx power^=^", units: dBm, least: leastPowerDBm, most: mostPowerDBm},
		},
		states: []stateRule{{label: "ONU State^:^"}},
		signs:  []signRule{{label: "LOS^=^", light: "0", dark: "1", alarm: "los"}},
		extra:  tcapiLine,
	}
}

// The two questions that tcapi answers by a number alone.
const (
	tcapiLink  = "tcapi get XPON_LinkCfg LinkSta"
	tcapiPower = "tcapi get Info_PonPhy RxPower"
)

// tcapiLine reads a number alone; the power counts only while the link is up.
func tcapiLine(s *scan, line string, ended bool) bool {
	if !ended || s.asked == nil || !isNumber(line) {
		return false
	}
	switch s.asked.command {
	case tcapiLink:
		s.dark = line == "0"
		s.linkDown = s.dark
	case tcapiPower:
		rule := valueRule{field: fieldRx, units: lightCount, least: leastPowerDBm, most: mostPowerDBm}
		if v, status, raw, ok := rule.read(line, ended); ok && !s.linkDown {
			s.set(fieldRx, status, v, raw)
			s.told(fieldRx)
		}
	default:
		return false
	}
	return true
}
