package console

import "strings"

// rtl960x describes the sticks and gateways with a Realtek RTL960x: a shell,
// and within it the interactive tool diag, which answers all we ask.
//
// Never to be added here: "flash all" and "mib show" (secrets), "gpon get
// pps-cnt" and "gpon show counter global ds-eth" (they clear what they read),
// omcicli (within minutes of diag it blocks the OMCI daemon).
func rtl960x() *driver {
	flags := map[string]string{}
	for printed, ours := range map[string]string{
		"Temperature": "temperature", "Voltage": "voltage", "Bias Current": "bias", "Tx Power": "tx", "Rx Power": "rx",
	} {
		flags[printed+" high"] = ours + "_high"
		flags[printed+" low"] = ours + "_low"
	}
	return &driver{
		name:   "rtl960x",
		logins: 1,
		prompts: []prompt{
			{kind: kindCLI, pattern: "RTK.%d> command:", anywhere: true},
			{kind: kindCLI, pattern: "RTK.%d>command:", anywhere: true},
			{kind: kindCLI, pattern: "RTK.%d>", anywhere: true},
			// A word before the # is not a shell of ours: boot loaders of the
			// family ask so ("9602C# ").
			{kind: kindShell, pattern: "#"},
			{kind: kindShell, pattern: "~ #"},
			{kind: kindShell, pattern: "~#"},
			{kind: kindShell, pattern: "/%p #"},
			{kind: kindShell, pattern: "/%p#"},
			{kind: kindShell, pattern: "~/%p #"},
			{kind: kindShell, pattern: "%w@%p#"},
			{kind: kindShell, pattern: "%w@%p #"},
			{kind: kindShell, pattern: "[%w@%w %p]#"},
		},
		enter: []step{{from: kindShell, command: "diag", to: kindCLI}},
		leave: []step{
			{from: kindCLI, command: "exit", to: kindShell, always: true},
			{from: kindShell, command: "exit", to: kindLogin}, // only after a login of our own
		},
		queries: []query{
			{command: "ps", at: kindShell, fields: fieldSerial, once: true},
			{command: "pon get transceiver rx-power", at: kindCLI, fields: fieldRx},
			{command: "pon get transceiver tx-power", at: kindCLI, fields: fieldTx},
			{command: "pon get transceiver bias-current", at: kindCLI, fields: fieldBias},
			{command: "pon get transceiver temperature", at: kindCLI, fields: fieldTemperature},
			{command: "pon get transceiver voltage", at: kindCLI, fields: fieldVoltage},
			{command: "pon get transceiver alarm-status", at: kindCLI, fields: fieldOpticFlags},
			{command: "gpon get onu-state", at: kindCLI, fields: fieldState},
			{command: "gpon get alarm-status", at: kindCLI, fields: fieldPONAlarms},
			{command: "gpon get rogue-sd-cnt", at: kindCLI, fields: fieldCounters},
			{command: "gpon show counter global ds-phy", at: kindCLI, fields: fieldCounters},
			{command: "gpon show us-flow", at: kindCLI, fields: fieldFlows},
			// A build for EPON knows none of those of gpon.
			{command: "epon get llid-table", at: kindCLI, fields: fieldState | fieldPONAlarms, spare: true},
		},
		errorPrefixes: []string{"%", "^"},
		values: []valueRule{
			{field: fieldRx, label: "Rx Power:", gap: oneGap, units: dBm, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "Tx Power:", gap: oneGap, units: dBm, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldBias, label: "Bias Current:", gap: oneGap, units: []unit{{name: "mA", factor: 1}}, least: 0, most: mostBiasMilliamps},
			{
				// The tool reads the high byte of the temperature unsigned.
				field: fieldTemperature, label: "Temperature:", gap: oneGap, units: []unit{{name: "C", factor: 1}},
				wrapAbove: 127.999, wrap: -256, least: -mostCelsius, most: mostCelsius,
			},
			{field: fieldVoltage, label: "Voltage:", gap: oneGap, units: []unit{{name: "V", factor: 1}}, least: 0, most: mostVolts},
		},
		states: []stateRule{{label: "ONU state:", words: true, names: map[string]string{
			"initial state":        "O1",
			"standby state":        "O2",
			"serial number state":  "O3",
			"ranging state":        "O4",
			"operation state":      "O5",
			"popup state":          "O6",
			"emergency stop state": "O7",
		}}},
		flags: []flagRule{
			{field: fieldOpticFlags, prefix: "Alarm ", names: flags, set: opticAlarms},
			{field: fieldOpticFlags, prefix: "Warning ", names: flags, set: opticWarnings},
			{field: fieldOpticFlags, prefix: "", names: map[string]string{"Optical LOS": "optical_los"}, set: opticExtra},
			{field: fieldPONAlarms, prefix: "Alarm ", names: map[string]string{
				"LOS": "los", "LOF": "lof", "LOM": "lom", "SF": "sf", "SD": "sd",
				"TX Too Long": "tx_too_long", "TX Mismatch": "tx_mismatch",
			}, set: ponAlarms},
		},
		counters: []counterRule{
			{label: "BIP Error bits^: ", name: "bip"},
			{label: "FEC Correct codewords^: ", name: "fec_corrected"},
			{label: "FEC codewords Uncor^: ", name: "fec_uncorrected"},
			{label: "SD too long count^: ", name: "sd_too_long"},
			{label: "SD mismatch count^: ", name: "sd_mismatch"},
		},
		tables: []tableRule{{
			header:  []string{"Flow ID", "GEM Port", "Type", "TCont"},
			closing: "====",
			user:    "ETH",
		}},
		serial: omciAppSerial,
		extra:  laserForced,
	}
}

// omciAppSerial finds the serial number in a process list: the argument of -s
// of omci_app. Nothing else of the list is looked at.
func omciAppSerial(line string) (string, bool) {
	words := strings.Fields(line)
	for i, w := range words {
		if w != "omci_app" && !strings.HasSuffix(w, "/omci_app") {
			continue
		}
		for j := i + 1; j+1 < len(words); j++ {
			if words[j] == "-s" && isSerial(words[j+1]) {
				return words[j+1], true
			}
		}
	}
	return "", false
}

// isSerial recognises a GPON serial number: four letters of the vendor and
// eight hexadecimal digits.
func isSerial(s string) bool {
	if len(s) != 12 {
		return false
	}
	for i := range len(s) {
		b := s[i]
		switch {
		case i < 4 && (b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || isDigit(b)):
		case i >= 4 && (isDigit(b) || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F'):
		default:
			return false
		}
	}
	return true
}

// laserForced reads how an EPON build drives its laser: one that is forced on
// disturbs the others on the fibre. The table of its logical links tells no
// state: an entry may be valid before the OLT has registered it.
func laserForced(s *scan, line string, ended bool) bool {
	word, ok := strings.CutPrefix(line, "Laser status:")
	if !ok || !ended || !s.may(fieldPONAlarms) {
		return ok
	}
	switch on := word == "force-on"; {
	case on, s.live && (word == "normal" || word == "force-off"):
		s.alarm("laser_forced_on", on)
	}
	return true
}
