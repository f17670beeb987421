package console_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"ontagent/collectors/optics/console"
)

// BenchmarkParse is what the captures of a family cost to parse.
func BenchmarkParse(b *testing.B) {
	for _, driver := range console.Drivers() {
		b.Run(driver, func(b *testing.B) {
			var texts [][]byte
			size := 0
			for _, s := range samples(b) {
				if s.want.Driver == driver {
					texts = append(texts, s.text)
					size += len(s.text)
				}
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				for _, text := range texts {
					if _, err := console.Parse(driver, text); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkParseRegexp is the baseline: the same captures, each line tried by
// a regular expression for each fact that the family can tell, the way most
// scripts read consoles. It strips nothing and knows neither echo nor prompt.
func BenchmarkParseRegexp(b *testing.B) {
	const number = `[-+]?\d+(?:[.,]\d+)?|[-+]?inf|--|N/A`
	compile := func(patterns ...string) (out []*regexp.Regexp) {
		for _, p := range patterns {
			out = append(out, regexp.MustCompile(strings.ReplaceAll(p, "NUM", "("+number+")")))
		}
		return out
	}
	rules := map[string][]*regexp.Regexp{
		"rtl960x": compile(
			`Rx Power:\s+NUM\s+dBm`, `Tx Power:\s+NUM\s+dBm`, `Bias Current:\s+NUM\s+mA`, `Temperature:\s+NUM\s+C`, `Voltage:\s+NUM\s+V`,
			`ONU state:\s+.*\((O\d)\)`, `(?:Alarm|Warning) (.+), status: (\w+)`, `BIP Error bits\s*:\s*(\d+)`, `FEC Correct codewords\s*:\s*(\d+)`,
			`FEC codewords Uncor\s*:\s*(\d+)`, `SD (?:too long|mismatch) count: (\d+)`, `-s ([A-Z]{4}[0-9A-F]{8})`,
		),
		"falcon": compile(
			`RSSI 1490 power:?\s+NUMuW(?:\s+NUMdBm)?`, `tx power .*\s+NUMmW(?:\s+NUMdBm)?`, `actual bias .*\s+NUMmA /`, `laser temperature.*\s+NUMK`,
			`DDMI voltage:?\s+NUMmV`, `\bcurr_state=(\d)`, `RX POWER\s*:NUMuW NUMdBm`, `PON STATUS\s*:(O\d)`, `Signal detect\s+(\w+)`,
		),
		"prx126": compile(
			`Rx Power:\s+NUM dBm`, `Tx (?:Laser )?Power:\s+NUM dBm`, `Bias Current:\s+NUM uA`, `Voltage:\s+NUM mV`, `Temperature:\s+NUM C`,
			`\bcurrent=(\d+)`, `PON_ALARM_STATIC_(\w+)`, `BIP errors\s*: (\d+)`, `orrected FEC codewords\s*: (\d+)`, `bip_errors=(\d+)`, `lods_events=(\d+)`,
		),
		"cig": compile(`Operation State Machine: .*\((O[\d.]+)\)`, `S/W FSM current state\s*: (O[\d.]+)`),
		"huawei": compile(
			`^RxPower\s*: NUM \(dBm\)`, `RX power\(dBm\)\s*:NUM`, `TX power\(dBm\)\s*:NUM`, `TX bias current\(mA\)\s*:NUM`, `Temperature\(C\)\s*:NUM`,
			`Supply votage\(V\)\s*:NUM`, `reg status:(O\d)`, `Bip err\s*: (\d+)`, `LinkStatus\s*: (\w+)`,
		),
		"zte":      compile(`optical (\w+)=(\d+)`, `gpon state is \[(O\d)\]`),
		"broadcom": compile(`(?:Rx|Tx) Laser Power\s*= NUM uW`, `^\s*= NUM dBm`, `\((O\d)\)`, `\[\[(\d),\d+\]\]`),
		"econet":   compile(`rxPower is (\d+)`, `(?:Rx|Tx) power = NUM dBm`, `LOS = (\d)`, `ONU State: (O\d)`),
	}
	for _, driver := range console.Drivers() {
		b.Run(driver, func(b *testing.B) {
			var texts []string
			size := 0
			for _, s := range samples(b) {
				if s.want.Driver == driver {
					texts = append(texts, string(s.text))
					size += len(s.text)
				}
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				found := 0
				for _, text := range texts {
					for line := range strings.Lines(text) {
						for _, rule := range rules[driver] {
							if m := rule.FindStringSubmatch(line); m != nil {
								_, _ = strconv.ParseFloat(m[1], 64)
								found++
							}
						}
					}
				}
				if found == 0 {
					b.Fatal("found nothing")
				}
			}
		})
	}
}
