package console

// falcon describes the sticks with a Lantiq Falcon: a shell of OpenWrt on
// which the tools onu and otop answer, behind a command line of the vendor's
// on the PMG3000. The Sercomm FGS202 has a command line instead, which is
// read but, as it is only reached from the OLT, never asked.
//
// Not asked either: "optic bosa_rx_status_get" (makers disagree on the sense
// of its loss_of_signal, and on the scale of its powers).
//
// Never to be added here: anything of omci_pipe.sh, sfp_i2c or fw_setenv.
func falcon() *driver {
	return &driver{
		name:   "falcon",
		logins: 2,
		prompts: []prompt{
			{kind: kindShell, pattern: "ZYXEL#"},
			{kind: kindIdle, pattern: "Hal#"},
			{kind: kindCLI, pattern: "#"},
			{kind: kindCLI, pattern: "~ #"},
			{kind: kindCLI, pattern: "/%p #"},
			{kind: kindCLI, pattern: "%w@%p#"},
			{kind: kindCLI, pattern: "%w@%p #"},
		},
		enter: []step{{from: kindShell, command: "linuxshell", to: kindCLI}},
		leave: []step{
			{from: kindCLI, command: "exit", to: kindShell},
			{from: kindShell, command: "exit", to: kindLogin},
		},
		queries: []query{
			{command: "otop -b -g s", at: kindCLI, fields: fieldOptics},
			{command: "onu ploamsg", at: kindCLI, fields: fieldState},
			{command: "onu ploam_state_get", at: kindCLI, fields: fieldState, spare: true},
			{command: "show gpon", at: kindCLI, fields: fieldOptics | fieldState, heard: true},
			{command: "optic --version", at: kindCLI, heard: true},
			{command: "optic bosa_rx_status_get", at: kindCLI, heard: true},
		},
		values: []valueRule{
			{field: fieldRx, label: "RSSI 1490 power~", units: lightUnits, tail: pairTail, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "tx power^*~", units: lightUnits, tail: pairTail, least: leastPowerDBm, most: mostPowerDBm},
			{
				field: fieldBias, label: "actual bias / modulation current~",
				units: []unit{{name: "mA", factor: 1}}, tail: slashTail, most: mostBiasMilliamps,
			},
			{
				field: fieldTemperature, label: "laser temperature^*~",
				units: []unit{{name: "K", factor: 1, offset: kelvin}}, least: leastCelsius, most: mostCelsius,
			},
			{field: fieldVoltage, label: "DDMI voltage~", units: []unit{{name: "mV", factor: 1e-3}}, most: mostVolts},
			{field: fieldRx, label: "RX POWER^:^", units: lightUnits, tail: pairTail, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "TX POWER^:^", units: lightUnits, tail: pairTail, least: leastPowerDBm, most: mostPowerDBm},
		},
		states: []stateRule{
			{label: "curr_state=", anywhere: true, doubtful: "1", codes: map[string]string{
				"0": "O0", "1": "O1", "2": "O2", "3": "O3", "4": "O4", "5": "O5", "6": "O6", "7": "O7",
			}},
			{label: "PON STATUS^:^"},
		},
		signs: []signRule{
			{label: "Signal detect~", light: "true", dark: "false"},
			{label: "Signal detect, Lock on Signal~", light: "true", dark: "false"},
		},
		// The PMG3000 prints 1 for every state but O5.
		oddities: []string{"PMG3000", "ZYXEL#", "Hal#", "admin@SFP:"},
	}
}
