package ontsim

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// dialect is how a family other than rtl960x speaks. Its tiers stand where the
// shell (outer) and the diag tool (inner) of rtl960x do.
type dialect struct {
	login        string // the prompt for a name
	logins       int    // how many times name and password are asked for
	outer, inner string // the prompts; outer is "" where there is one tier
	boot         string // the prompt of the boot loader
	in           string // leads from the outer tier to the inner one
	out          string // leaves a tier
	banner       string // follows the way in
	unknown      string // the answer to what is not understood; %s is its first word
	// both: the inner tier's questions are understood at the outer one, too,
	// except for inside.
	both   bool
	inside []string
	// ask answers a question, line by line; false if it is not understood.
	ask func(s *Sim, line string) (string, bool)
}

const banner = "BusyBox v1.19.4 (2014-06-30 12:00:02 CST) built-in shell (ash)\nEnter 'help' for a list of built-in commands.\n\n" +
	"  * 1/4 oz Vodka      Pour all ingredients into mixing\n -----------------------------------------------------\n"

// dialects returns every dialect but rtl960x. The names are those of the
// drivers of collectors/optics/console.
func dialects() map[string]*dialect {
	shell := func(prompt, boot string, ask func(*Sim, string) (string, bool)) *dialect {
		return &dialect{login: "login: ", logins: 1, inner: prompt, boot: boot, out: "exit", unknown: "-sh: %s: not found\n", ask: ask}
	}
	falcon := shell("root@SFP:~# ", "FALCON => ", askFalcon)
	zte := shell("/ # ", "=> ", askZTE)
	zte.login = "Login: "
	return map[string]*dialect{
		"falcon": falcon,
		// The PMG3000: the same behind a command line with a login of its own.
		"falcon-pmg3000": {
			login: "Login: ", logins: 2, outer: "ZYXEL# ", inner: "admin@SFP:~# ", boot: "FALCON => ", in: "linuxshell", out: "exit",
			banner: banner, unknown: "-sh: %s: not found\n", ask: askFalcon,
		},
		"prx126": shell("root@prx126-sfp-pon:~# ", "=> ", askPRX),
		"cig": {
			login: "login: ", logins: 1, outer: "ONT>", inner: "#ONT>", boot: "=> ", in: "enable", out: "exit",
			unknown: "Unknown command: %s\n", ask: askCIG,
		},
		"huawei": {
			login: "Login:", logins: 1, outer: "WAP>", inner: "SU_WAP>", boot: "=> ", in: "su", out: "quit",
			unknown: "ERROR::%s: command is not existed\n", both: true, inside: []string{"display onu info"}, ask: askHuawei,
		},
		"zte":      zte,
		"broadcom": {login: "Login: ", logins: 1, inner: " > ", boot: "CFE> ", out: "exit", unknown: "%s: not found\n", ask: askBroadcom},
		// The BCM55030: EPON.
		"broadcom-epon": {login: "Login: ", logins: 1, inner: "2000/> ", boot: "CFE> ", out: "exit", unknown: "%s: unknown command\n", ask: askBroadcomEPON},
		"econet":        shell("# ", "bldr> ", askEcoNet),
	}
}

// Dialects returns the dialects there are, sorted: the names of the drivers,
// and behind a dash a model that differs.
func Dialects() []string {
	names := []string{"rtl960x"}
	for name := range dialects() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// greetDialect prints the prompt of where the console is.
func (s *Sim) greetDialect() {
	d := s.dialect
	switch s.where {
	case atLogin:
		s.print(d.login)
		if s.has(DaemonText) && !s.buried {
			s.buried = true
			s.print("service /bin/ftpd port 21 tcp enabled\n")
		}
	case atPassword, atStepPassword:
		s.print("Password: ")
	case atShell:
		s.print(d.outer)
	case atDiag:
		s.print(d.inner)
	case atBoot:
		s.print(d.boot)
	case atUnknown:
		s.print("ZXHN> ")
	}
}

// home is the tier behind the login.
func (d *dialect) home() place {
	if d.outer != "" {
		return atShell
	}
	return atDiag
}

// obeyDialect executes one line at a tier, or takes the password of the way
// in.
func (s *Sim) obeyDialect(line string) {
	d := s.dialect
	switch {
	case s.where == atStepPassword:
		s.where = atShell
		if line == s.opts.StepPassword {
			s.where = atDiag
			s.print("success!\n")
		} else {
			s.print("ERROR::the password is incorrect\n")
		}
		return
	case line == "":
		return
	case line == d.in && s.where == atShell && s.has(NoDiag):
	case line == d.in && s.where == atShell:
		if s.opts.StepPassword != "" {
			s.where = atStepPassword
			return
		}
		s.where = atDiag
		s.print(d.banner)
		return
	case line == d.out && s.where == atDiag && d.outer != "":
		s.where = atShell
		return
	case line == d.out:
		if s.opts.Username != "" {
			s.where, s.tier = atLogin, 0
			s.print("\n")
		}
		return
	case s.where == atDiag, d.both && !slices.Contains(d.inside, line):
		if text, ok := d.ask(s, line); ok {
			s.say(text)
			return
		}
	}
	word, _, _ := strings.Cut(line, " ")
	s.print(fmt.Sprintf(d.unknown, word))
}

// say prints an answer, with what the modes put into its lines.
func (s *Sim) say(text string) {
	for _, line := range strings.SplitAfter(text, "\n") {
		half := len(line) / 2
		if half < 4 || s.opts.Modes&(KernelLines|Colours) == 0 {
			s.print(line)
			continue
		}
		if s.dialect.ask != nil && strings.HasPrefix(line, "[") {
			half = len(line) - 1 // a kernel line is not cut by another
		}
		if s.has(Colours) {
			s.print("\x1b[0m")
		}
		s.print(line[:half])
		if s.has(KernelLines) && half < len(line)-1 {
			s.kernel++
			s.out = append(s.out, fmt.Sprintf("[%5d.%06d] eth0.2: link change %d\r\n", 100+s.kernel, s.kernel, s.kernel)...)
		}
		s.print(line[half:])
	}
}

func (s *Sim) darkNow() bool { return s.opts.RxPowerDBm < -40 }

// lit reports whether the laser is on.
func (s *Sim) lit() bool {
	return !s.darkNow() && slices.Contains([]string{"O3", "O4", "O5"}, s.opts.State)
}

// shines reports whether the laser is on and gives light.
func (s *Sim) shines() bool { return s.lit() && s.opts.TxPowerDBm >= -40 }

func (s *Sim) bias() float64 {
	if s.lit() {
		return s.opts.BiasMA
	}
	return 0
}

// milliwatts of a power in dBm; 0 for none.
func milliwatts(dBm float64, on bool) float64 {
	if !on {
		return 0
	}
	return math.Pow(10, dBm/10)
}

func count(mW float64) int { return int(math.Round(mW * 1e4)) }

func askFalcon(s *Sim, line string) (string, bool) {
	row := func(label, format string, args ...any) string {
		return fmt.Sprintf("%-50s "+format+"\n", append([]any{label}, args...)...)
	}
	power := func(dBm float64, on bool) string {
		if !on {
			return "0.00uW   "
		}
		return fmt.Sprintf("%.2fuW %.2fdBm", milliwatts(dBm, on)*1e3, dBm)
	}
	switch line {
	case "otop -b -g s":
		if s.has(ReadFailed) {
			return row("RSSI 1490 power", "not valid"), true
		}
		return "status overview\n\n" + row("Signal detect", "%v", !s.darkNow()) +
			row("laser temperature (ext corr):", "%dK", int(math.Round(s.opts.TemperatureCelsius+273.15))) +
			row("die temperature (int corr)", "317K") +
			row("maximum bias / modulation current (chip)", "78.00mA / 95.00mA") +
			row("actual bias / modulation current", "%.2fmA / 34.18mA", s.bias()) +
			row("RSSI 1490 voltage, current", "127.75mV   127.75uA") +
			row("DDMI voltage", "%.2fmV", s.opts.SupplyV*1e3) +
			row("RSSI 1490 power", "%s", power(s.opts.RxPowerDBm, !s.darkNow())) +
			row("tx power (se*(bias+mod/2-ith))", "%s", power(s.opts.TxPowerDBm, s.shines())), true
	case "onu ploamsg":
		state := strings.TrimPrefix(s.opts.State, "O")
		if s.dialect.logins == 2 {
			if state != "5" {
				state = "1" // as the PMG3000 does
			}
			return "errorcode=0 curr_state=" + state + "\n", true
		}
		return "errorcode=0 curr_state=" + state + " previous_state=4 elapsed_msec=30428\n", true
	}
	return "", false
}

func askPRX(s *Sim, line string) (string, bool) {
	power := func(dBm float64, on bool) string {
		if !on {
			return "-40.00 dBm\n"
		}
		return fmt.Sprintf("%.2f dBm\n", dBm)
	}
	switch line {
	case "i2c_cmd show optical":
		if s.has(ReadFailed) {
			return "i2c read failed\n", true
		}
		return "Rx Power:\t" + power(s.opts.RxPowerDBm, !s.darkNow()) + "Tx Power:\t" + power(s.opts.TxPowerDBm, s.shines()) +
			fmt.Sprintf("Voltage:\t%.0f mV\nBias Current:\t%d uA\nTemperature:\t%.2f C\nSFP SN:\tAZRS00000000\n", s.opts.SupplyV*1e3, int(s.bias()*1000), s.opts.TemperatureCelsius), true
	case "pon psg":
		code := strings.TrimPrefix(s.opts.State, "O") + "0"
		if s.opts.State == "O5" {
			code = "51"
		}
		return "errorcode=0 current=" + code + " previous=40 time_curr=100\n", true
	case `pontop -b -g "FEC Status & Counters"`:
		c := &s.counters
		return "Page: FEC Status & Counters\nOPTION                                              VALUE\nFEC upstream                                       : ON\n \n" +
			fmt.Sprintf("BIP errors                                         : %d\nTotal FEC codewords                                : 289895929785\n", c.bip) +
			fmt.Sprintf("Corrected FEC codewords                            : %d\nUncorrected FEC codewords                          : %d\n", c.fecCorrected, c.fecUncorrected), true
	}
	if n, ok := strings.CutPrefix(line, "pon alarm_status_get "); ok {
		name := map[string]string{"0": "LOS", "1": "LOF", "2": "LODS", "3": "SF", "4": "SD"}[n]
		on := 0
		if slices.Contains(s.alarms, name) || n == "0" && s.darkNow() {
			on = 1
		}
		return fmt.Sprintf("errorcode=0 alarm_status=%d\n", on), name != ""
	}
	return "", false
}

func askCIG(s *Sim, line string) (string, bool) {
	if line != "traffic/pon/show link" {
		return "", false
	}
	word := map[string]string{"O1": "INIT", "O5": "OPERATION", "O7": "EMERGENCY STOP"}[s.opts.State]
	return "\n ----------------- LINK STATE -----------------\n Operation State Machine: " + word + " (" + s.opts.State + ")\n" +
		" ----------------- STATE  END -----------------\n\n", true
}

func askHuawei(s *Sim, line string) (string, bool) {
	switch line {
	case "display optic":
		link, rx, tx := "ok", fmt.Sprintf("%5.2f", s.opts.RxPowerDBm), fmt.Sprintf("%5.2f", s.opts.TxPowerDBm)
		if s.darkNow() {
			link, rx = "down", "--"
		}
		if !s.shines() {
			tx = "--"
		}
		if s.has(ReadFailed) {
			return "\nsuccess!\n", true
		}
		return fmt.Sprintf("LinkStatus  : %s \nVoltage      : %.0f (mV)\nBias         : %.0f (mA)\nTemperature  : %.0f (C)\nRxPower      : %s (dBm)\n"+
			"TxPower      : %s (dBm)\nRfRxPower    : -3.10 (dBm)\nRfOutputPower: -- (dBmV)\nVendorName   : HUAWEI         \n\nsuccess!\n",
			link, s.opts.SupplyV*1e3, s.bias(), s.opts.TemperatureCelsius, rx, tx), true
	case "display onu info":
		return "onuid:4 reg status:" + s.opts.State + " xpon module:1\n\nsuccess!\n", true
	case "display pon statistics":
		return fmt.Sprintf("Dropped packets       : 0\nBip err               : %d\nRx omci overflow      : 0\n\nsuccess!\n", s.counters.bip), true
	}
	return "", false
}

func askZTE(s *Sim, line string) (string, bool) {
	switch line {
	case "redir printf":
		return "", true
	case "opticaltst -getpara":
		if s.has(ReadFailed) {
			return "opticaltst: read i2c error\n", true
		}
		return fmt.Sprintf("  optical temp=%d\n  optical SupplyVoltage=%d\n  optical TXBiasCurrent=%d\n  optical TXPower=%d\n  optical RXPower=%d\n",
			int(math.Round(s.opts.TemperatureCelsius*256)), int(math.Round(s.opts.SupplyV*1e4)), int(s.bias()*500), count(milliwatts(s.opts.TxPowerDBm, s.shines())),
			count(milliwatts(s.opts.RxPowerDBm, !s.darkNow()))), true
	case "gpontest -gstate":
		return "[gpontest] gpon state is [" + s.opts.State + "]\n", true
	}
	return "", false
}

func askBroadcom(s *Sim, line string) (string, bool) {
	power := func(label string, dBm float64, on bool) string {
		if s.has(ReadFailed) {
			return "laser:error:100.100:cmdLaserPowerRead:501:Power not read\n"
		}
		text := "-inf"
		if on {
			text = fmt.Sprintf("%f", dBm)
		}
		return fmt.Sprintf("\n%s Laser Power           = %f uW\n                         = %s dBm\n\n", label, milliwatts(dBm, on)*1e3, text)
	}
	switch line {
	case "laser power --rxread":
		return power("Rx", s.opts.RxPowerDBm, !s.darkNow()), true
	case "laser power --txread":
		return power("Tx", s.opts.TxPowerDBm, s.shines()), true
	case "gponctl getState":
		return "Link State: (" + s.opts.State + ")\n", true
	}
	return "", false
}

func askBroadcomEPON(s *Sim, line string) (string, bool) {
	if line != "mpcp/info" {
		return "", false
	}
	if s.opts.State == "O5" {
		return "[[3,32]]\n", true
	}
	return "[[1,32]]\n", true
}

func askEcoNet(s *Sim, line string) (string, bool) {
	switch line {
	case "ponmgr gpon get info":
		return " ONU Info:\n ONU ID:    255\n ONU State: " + s.opts.State + "\n SN:        " + s.opts.Serial + "\n OMCC ID:   65535\n", true
	case "ponmgr gpon get phyTransParams":
		if s.has(ReadFailed) {
			return "get phy trans params fail\n", true
		}
		return fmt.Sprintf("rxPower is %d\n", count(milliwatts(s.opts.RxPowerDBm, !s.darkNow()))), true
	case "echo show_BoB_information >/proc/pon_phy/debug":
		text := func(dBm float64, on bool) string {
			if !on {
				return "-40"
			}
			return fmt.Sprintf("%.2f", dBm)
		}
		los := 0
		if s.darkNow() {
			los = 1
		}
		s.kernel++
		stamp := fmt.Sprintf("[%5d.%06d] ", 100+s.kernel, s.kernel)
		rx := stamp + "Rx power = " + text(s.opts.RxPowerDBm, !s.darkNow()) + " dBm^M\n"
		if s.has(ReadFailed) {
			rx = ""
		}
		return stamp + "Tx power = " + text(s.opts.TxPowerDBm, s.shines()) + " dBm^M\n" + rx + stamp + fmt.Sprintf("LOS = %d^M\n", los), true
	}
	return "", false
}
