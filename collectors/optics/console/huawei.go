package console

// huawei describes the gateways of Huawei: the command line WAP, and SU_WAP
// behind su, without which some firmware keeps the state to itself. There is
// one session for everybody, so it is always left with quit.
//
// Three layouts of "display optic" are read. RfRxPower beside RxPower is the
// receiver for cable television.
//
// Never to be added here: "clear pon statistics".
func huawei() *driver {
	volts := []unit{{name: "(mV)", factor: 1e-3, form: whole}, {name: "(V)", factor: 1}, {name: "mV", factor: 1e-3, form: whole}, {name: "V", factor: 1}}
	mA := []unit{{name: "(mA)", factor: 1}, {name: "mA", factor: 1}}
	celsius := []unit{{name: "(C)", factor: 1}, {name: "C", factor: 1}}
	power := []unit{{name: "(dBm)", factor: 1}, {name: "dBm", factor: 1}}
	return &driver{
		name:   "huawei",
		logins: 2,
		prompts: []prompt{
			{kind: kindCLI, pattern: "SU_WAP>", anywhere: true},
			{kind: kindShell, pattern: "WAP>", anywhere: true},
		},
		enter: []step{{from: kindShell, command: "su", to: kindCLI, optional: true}},
		leave: []step{
			{from: kindCLI, command: "quit", to: kindShell},
			{from: kindShell, command: "quit", to: kindLogin},
		},
		queries: []query{
			{command: "display optic", at: kindCLI, or: kindShell, fields: fieldOptics},
			{command: "display onu info", at: kindCLI, or: kindShell, fields: fieldState},
			{command: "display pon statistics", at: kindCLI, or: kindShell, fields: fieldCounters},
		},
		errorPrefixes: []string{"ERROR::"},
		values: []valueRule{
			{field: fieldRx, label: "RxPower^:^", units: power, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "TxPower^:^", units: power, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldBias, label: "Bias^:^", units: mA, most: mostBiasMilliamps},
			{field: fieldTemperature, label: "Temperature^:^", units: celsius, least: leastCelsius, most: mostCelsius},
			{field: fieldVoltage, label: "Voltage^:^", units: volts, most: mostVolts},

			{field: fieldRx, label: "RX power(dBm)^:^", units: bare, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "TX power(dBm)^:^", units: bare, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldBias, label: "TX bias current(mA)^:^", units: bare, most: mostBiasMilliamps},
			{field: fieldTemperature, label: "Temperature(C)^:^", units: bare, least: leastCelsius, most: mostCelsius},
			{field: fieldVoltage, label: "Supply votage(V)^:^", units: bare, most: mostVolts},
			{field: fieldVoltage, label: "Supply voltage(V)^:^", units: bare, most: mostVolts},

			{field: fieldRx, label: "Rx optical power^:^", units: power, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "Tx optical power^:^", units: power, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldBias, label: "Bias current^:^", units: mA, most: mostBiasMilliamps},
			{field: fieldVoltage, label: "Supply voltage^:^", units: volts, most: mostVolts},
			{field: fieldRx, label: "Rx optical power(dBm)^:^", units: bare, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "Tx optical power(dBm)^:^", units: bare, least: leastPowerDBm, most: mostPowerDBm},
		},
		states:   []stateRule{{label: "reg status:^", anywhere: true}},
		signs:    []signRule{{label: "LinkStatus^:^", light: "ok up", dark: "down linkdown los fail failed break broken nok"}},
		counters: []counterRule{{label: "Bip err^: ", name: "bip"}},
	}
}
