package console

import "strings"

// prx126 describes the XGS-PON sticks with a MaxLinear PRX126: a shell of
// OpenWrt with the tools i2c_cmd, pon and pontop.
//
// Two pontop at once hang the stick: questions are put one after the other,
// and after one that was not answered nothing more is sent.
//
// Never to be added here: fwenv_set, omci_pipe.sh, and i2c_cmd other than show.
func prx126() *driver {
	mA := []unit{{name: "uA", factor: 1e-3, form: whole}, {name: "mA", factor: 1}}
	volts := []unit{{name: "mV", factor: 1e-3, form: whole}, {name: "V", factor: 1}}
	d := &driver{
		name:   "prx126",
		logins: 1,
		prompts: []prompt{
			{kind: kindCLI, pattern: "%w@%p#"},
			{kind: kindCLI, pattern: "~ #"},
			{kind: kindCLI, pattern: "/%p #"},
		},
		leave: []step{{from: kindCLI, command: "exit", to: kindLogin}},
		queries: []query{
			{command: "i2c_cmd show optical", at: kindCLI, fields: fieldOptics},
			{command: "pon psg", at: kindCLI, fields: fieldState},
			{command: "pon alarm_status_get 0", at: kindCLI, fields: fieldPONAlarms, alarm: "los"},
			{command: "pon alarm_status_get 1", at: kindCLI, fields: fieldPONAlarms, alarm: "lof"},
			{command: "pon alarm_status_get 2", at: kindCLI, fields: fieldPONAlarms, alarm: "lods"},
			{command: "pon alarm_status_get 3", at: kindCLI, fields: fieldPONAlarms, alarm: "sf"},
			{command: "pon alarm_status_get 4", at: kindCLI, fields: fieldPONAlarms, alarm: "sd"},
			{command: `pontop -b -g "FEC Status & Counters"`, at: kindCLI, fields: fieldCounters},
			{command: `pontop -b -g "Active alarms"`, at: kindCLI, fields: fieldPONAlarms, heard: true},
		},
		values: []valueRule{
			{field: fieldRx, label: "Rx Power^:", gap: oneGap, units: dBm, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "Tx Power^:", gap: oneGap, units: dBm, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldTx, label: "Tx Laser Power^:", gap: oneGap, units: dBm, least: leastPowerDBm, most: mostPowerDBm},
			{field: fieldBias, label: "Bias Current^:", gap: oneGap, units: mA, most: mostBiasMilliamps},
			{field: fieldVoltage, label: "Voltage^:", gap: oneGap, units: volts, most: mostVolts},
			{field: fieldTemperature, label: "Temperature^:", gap: oneGap, units: []unit{{name: "C", factor: 1}}, least: leastCelsius, most: mostCelsius},
		},
		states: []stateRule{{label: "current=", anywhere: true, codes: map[string]string{
			"0": "O0", "10": "O1", "11": "O1.1", "12": "O1.2", "20": "O2", "23": "O2.3", "30": "O3", "40": "O4",
			"50": "O5", "51": "O5.1", "52": "O5.2", "60": "O6", "70": "O7", "71": "O7", "72": "O7",
			"81": "O8", "82": "O8", "90": "O9",
		}}},
		counters: []counterRule{
			{label: "bip_errors=", name: "bip", anywhere: true},
			{label: "fec_codewords_corr=", name: "fec_corrected", anywhere: true},
			{label: "fec_codewords_uncorr=", name: "fec_uncorrected", anywhere: true},
			{label: "lods_events=", name: "lods_events", anywhere: true},
			{label: "BIP errors^: ", name: "bip"},
			{label: "Corrected FEC codewords^: ", name: "fec_corrected"},
			{label: "Uncorrected FEC codewords^: ", name: "fec_uncorrected"},
		},
	}
	d.extra = prxAlarms
	return d
}

// prxAlarms reads the answer about one alarm, and the page of active alarms:
// a header, which says that all are known, and a row for each.
func prxAlarms(s *scan, line string, ended bool) bool {
	const prefix = "PON_ALARM_STATIC_"
	names := [...]string{"LOS", "LOF", "LODS", "SF", "SD", "LCDG", "TF", "SUF", "MIS"}
	if !ended || !s.may(fieldPONAlarms) {
		return false
	}
	words := strings.Fields(line)
	if strings.Join(words, " ") == "Alarm type Alarm Description" {
		for _, name := range names {
			s.alarm(strings.ToLower(name), false)
		}
		return true
	}
	for i, word := range words {
		if status, ok := strings.CutPrefix(word, "alarm_status="); ok {
			if s.asked != nil && s.asked.alarm != "" && (status == "0" || status == "1") {
				s.alarm(s.asked.alarm, status == "1")
			}
			return true
		}
		row, ok := strings.CutPrefix(word, prefix)
		if !ok || i != 1 {
			continue
		}
		if row != "" && isWords(row) {
			s.alarm(strings.ToLower(row), true)
		}
		return true
	}
	return false
}
