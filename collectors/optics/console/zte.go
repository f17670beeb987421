package console

// zte describes the gateways and sticks of ZTE with a zxic chip: a shell, open
// in factory mode only, with the tools gpontest and opticaltst. The counts of
// opticaltst are those of the transceiver; the web page, and what the OLT
// sees, may have been moved by half a decibel or more.
//
// "redir printf" lets the tools print to this terminal.
//
// Never to be added here: sendcmd, setmac and whatever changes a configuration.
func zte() *driver {
	return &driver{
		name:   "zte",
		logins: 1,
		prompts: []prompt{
			{kind: kindCLI, pattern: "~ #"},
			{kind: kindCLI, pattern: "/%p #"},
		},
		leave: []step{{from: kindCLI, command: "exit", to: kindLogin}},
		queries: []query{
			{command: "redir printf", at: kindCLI, once: true},
			{command: "opticaltst -getpara", at: kindCLI, fields: fieldOptics},
			{command: "gpontest -gstate", at: kindCLI, fields: fieldState},
		},
		values: []valueRule{
			{field: fieldRx, label: "optical RXPower=", gap: noGap, units: lightCount, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "optical TXPower=", gap: noGap, units: lightCount, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldBias, label: "optical TXBiasCurrent=", gap: noGap, units: []unit{{factor: 2e-3, form: whole}}, most: mostBiasMilliamps},
			{field: fieldVoltage, label: "optical SupplyVoltage=", gap: noGap, units: []unit{{factor: 1e-4, form: whole}}, most: mostVolts},
			{
				field: fieldTemperature, label: "optical temp=", gap: noGap, units: []unit{{factor: 1.0 / 256, form: whole}},
				wrapAbove: 127.999, wrap: -256, least: leastCelsius, most: mostCelsius,
			},
		},
		states: []stateRule{{label: "[gpontest] gpon state is^"}},
	}
}
