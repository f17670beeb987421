package console

// cig describes the XGS-PON sticks of CIG, and those of FS, Nokia and Hisense
// that are built on the Cortina CA8271: a menu whose path is in the prompt.
// Hisense's answers go through the kernel log; they are read, but not asked
// for, as the way there leads through the configuration mode.
//
// Never to be added here: anything with "set" in it.
func cig() *driver {
	return &driver{
		name:       "cig",
		keepKernel: true,
		logins:     1,
		prompts: []prompt{
			{kind: kindCLI, pattern: "#ONT>", anywhere: true},
			{kind: kindIdle, pattern: "#ONT/%p>", anywhere: true},
			{kind: kindIdle, pattern: "ONT/%p>"},
			{kind: kindShell, pattern: "ONT>"},
			{kind: kindIdle, pattern: "Cortina>"},
			{kind: kindIdle, pattern: "Cortina#"},
			{kind: kindIdle, pattern: "Cortina(%w)#"},
		},
		enter: []step{{from: kindShell, command: "enable", to: kindCLI}},
		leave: []step{
			{from: kindCLI, command: "exit", to: kindShell},
			{from: kindShell, command: "exit", to: kindLogin},
		},
		queries: []query{
			{command: "traffic/pon/show link", at: kindCLI, fields: fieldState},
			{command: "show activation_state 0", at: kindIdle, fields: fieldState, heard: true},
		},
		errorPrefixes: []string{"%", "Error", "Unknown command", "Invalid"},
		states: []stateRule{
			{label: "Operation State Machine^:^", names: map[string]string{
				"init": "O1", "standby": "O2", "serial number": "O3", "ranging": "O4",
				"popup": "O6", "emergency stop": "O7",
			}},
			{label: "S/W FSM current state^:^"},
		},
	}
}
