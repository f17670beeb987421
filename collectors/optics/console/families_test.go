package console_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"ontagent/collectors"
	"ontagent/collectors/optics/console"
)

// What the families print beyond the captures: layouts as documented.
func TestParseFamilies(t *testing.T) {
	const (
		ok      = collectors.StatusOK
		dark    = collectors.StatusNoLight
		bad     = collectors.StatusError
		strange = collectors.StatusUntrusted
	)
	otop := func(rows ...string) string { return "status overview \n \n" + strings.Join(rows, "\n") + "\n" }
	row := func(label, value string) string { return fmt.Sprintf("%-50s %s", label, value) }
	tests := []struct {
		driver, text string
		status       collectors.Status
		rx           float64
		state        string
		alarms       string // "-": not known
		session      console.Session
	}{
		// falcon: old otop with colons and uW only.
		{"falcon", otop(row("Signal detect, Lock on Signal:", "true   false"), row("RSSI 1490 power:", "3.16uW   ")), ok, -25.003, "", "-", ""},
		{"falcon", otop(row("RSSI 1490 power:", "0.00uW   "), row("RSSI 1550 power:", "9.99uW   ")), dark, 0, "", "-", ""},
		{"falcon", otop(row("RF 1550 power:", "9.99uW   "), row("RSSI 1550 power:", "9.99uW   ")), "", 0, "", "-", ""},
		{"falcon", otop(row("Signal detect", "false"), row("RSSI 1490 power", "not valid")), dark, 0, "", "-", ""},
		{"falcon", otop(row("Signal detect", "true"), row("RSSI 1490 power", "not valid")), bad, 0, "", "-", ""},
		{"falcon", otop(row("RSSI 1490 power", "17.01uW -27.57dBm")), strange, 0, "", "-", ""},
		{"falcon", otop(row("RSSI 1490 power", "17.01")), bad, 0, "", "-", ""},
		{"falcon", row("RSSI 1490 power", "17.01uW -17.5"), "", 0, "", "-", ""},
		{"falcon", "# show gpon\n\nPON STATUS      :O5\nLOS Times       :0\nTX POWER        :2.97mW 4.73dBm\nRX POWER        :35.29uW -14.46dBm\n# ", ok, -14.46, "O5", "-", console.SessionPrompt},
		{"falcon", "errorcode=0 curr_state=7 previous_state=5 elapsed_msec=1\n", "", 0, "O7", "-", ""},
		{"falcon", "errorcode=0 curr_state=1 previous_state=0\n", "", 0, "O1", "-", ""},
		{"falcon", "ZYXEL# linuxshell\nadmin@SFP:~# onu ploamsg\nerrorcode=0 curr_state=1\nadmin@SFP:~#", "", 0, "", "-", console.SessionPrompt},
		{"falcon", "ZYXEL# linuxshell\nadmin@SFP:~# onu ploamsg\nerrorcode=0 curr_state=5\nadmin@SFP:~#", "", 0, "O5", "-", console.SessionPrompt},
		{"falcon", "errorcode=0 curr_state=8 previous_state=1\n", "", 0, "8", "-", ""},
		{"rtl960x", "Alarm LOS, status: 1\nAlarm LOF, status:not clear\nAlarm SF, status: Clear\n", "", 0, "", "lof,los", ""},
		{"prx126", "Alarm type  Alarm  Description\nMINOR  PON_ALARM_STATIC_TX_TOO_LONG  x\n", "", 0, "", "tx_too_long", ""},
		{"cig", "Operation State Machine: SERIAL_NUMBER (O2-3)\n", "", 0, "O2-3", "-", ""},
		{"cig", "Operation State Machine: INIT (O1.2)\n", "", 0, "O1.2", "-", ""},
		{"zte", "[gpontest] gpon state is [unknown]\n", "", 0, "unknown", "-", ""},
		{"econet", "ONU State: O5(Operation)\n", "", 0, "O5", "-", ""},
		{"prx126", "Rx Power:      -18.50 dBm\n", ok, -18.5, "", "-", ""},
		{"prx126", "Rx Power:       18.50 dBm\n", bad, 0, "", "-", ""},
		{"cig", "Operation State Machine: INIT (O5)\n", "", 0, "", "-", ""},
		{"huawei", "LinkStatus : link down\nRxPower : -- (dBm)\n", dark, 0, "", "-", ""},
		{"zte", "/ # opticaltst -getpara\nsh: opticaltst: not found\n/ # ", bad, 0, "", "-", console.SessionPrompt},
		{"zte", "/ # opticaltst -getpara\n  optical RXPower=56/ # ", ok, -22.518, "", "-", ""},
		{"econet", "# tcapi get Info_PonPhy RxPower\n56# ", ok, -22.518, "", "-", ""},
		{"econet", "# tcapi get Info_PonPhy RxPower\nno attribute information\n# ", bad, 0, "", "-", console.SessionPrompt},
		{"broadcom", " > laser power\nRx Laser Power = 123 uW\nPower not read\n > ", ok, -19.101, "", "-", console.SessionPrompt},
		{"broadcom", " > gponctl getState\nGPON Link: INITIAL (O1)\n > ", "", 0, "O1", "-", console.SessionPrompt},
		{"falcon", "errorcode=-1 curr_state=5\n", "", 0, "", "-", console.SessionError},
		{"falcon", "Hal#", "", 0, "", "-", console.SessionPrompt},
		{"falcon", "FALCON => ", "", 0, "", "-", console.SessionBootLoader},
		{"falcon", "SFP login: ", "", 0, "", "-", console.SessionLogin},

		{"prx126", "Rx Power:\t-15.33 dBm\nTx Laser Power:\t5.60 dBm\n", ok, -15.33, "", "-", ""},
		{"prx126", "Rx Power:\t-40dBm\n", dark, 0, "", "-", ""},
		{"prx126", "Rx Power:\t-inf dBm\n", dark, 0, "", "-", ""},
		{"prx126", "Rx Power:\tNo signal\n", dark, 0, "", "-", ""},
		{"prx126", "Rx Power:\t-15.33\n", bad, 0, "", "-", ""},
		{"prx126", "errorcode=0 current=10 previous=0 time_curr=100\n", "", 0, "O1", "-", ""},
		{"prx126", "errorcode=0 current=12 previous=0 time_curr=100\n", "", 0, "O1.2", "-", ""},
		{"prx126", "errorcode=0 current=23 previous=0 time_curr=100\n", "", 0, "O2.3", "-", ""},
		{"prx126", "errorcode=0 current=72 previous=0 time_curr=100\n", "", 0, "O7", "-", ""},
		{"prx126", "errorcode=0 current=99 previous=0 time_curr=100\n", "", 0, "99", "-", ""},
		{"prx126", "errorcode=0 current=5", "", 0, "", "-", ""},
		{"prx126", "errorcode=0 time_curr=50 previous=50\n", "", 0, "", "-", ""},
		{"prx126", "root@prx126-sfp-pon:~# pon alarm_status_get 0\nerrorcode=0 alarm_status=1\nroot@prx126-sfp-pon:~# ", "", 0, "", "los", console.SessionPrompt},
		{"prx126", "errorcode=0 alarm_status=1\n", "", 0, "", "-", ""},
		{
			"prx126", "Page: Active alarms\nAlarm type       Alarm                     Description\n" +
				"LEVEL            PON_ALARM_STATIC_LOS      Loss of signal\nLEVEL            PON_ALARM_STATIC_LODS     Loss of downstream synchronization\n",
			"", 0, "", "lods,los", "",
		},

		{"cig", "#ONT>traffic/pon/show link\n Operation State Machine: OPERATION (O5)\n#ONT>", "", 0, "O5", "-", console.SessionPrompt},
		{"cig", " Operation State Machine: OPERATION (O5.1)\n", "", 0, "O5.1", "-", ""},
		{"cig", " Operation State Machine: INIT (O5)\n", "", 0, "", "-", ""},
		{"cig", "Onu id 65535\n", "", 0, "", "-", ""},
		{"cig", "[   12.345678] S/W FSM previous state   : O4^M\n[   12.345679] H/W FSM current state    : O2^M\n", "", 0, "", "-", ""},
		{"cig", "#ONT/system/misc>", "", 0, "", "-", console.SessionPrompt},

		{
			"huawei", "WAP>display optic\nLinkStatus  : ok \nVoltage      : 3322 (mV)\nBias         : 13 (mA)\nTemperature  : 36 (C)\n" +
				"RxPower      : -17.26 (dBm)\nTxPower      :  2.34 (dBm)\nRfRxPower    : -- (dBm)\nsuccess!\nWAP>", ok, -17.26, "", "-", console.SessionPrompt,
		},
		{"huawei", "LinkStatus  : down\nRxPower      : -- (dBm)\nRfRxPower    : -3.00 (dBm)\n", dark, 0, "", "-", ""},
		{"huawei", "LinkStatus  : ok\nRxPower      : -- (dBm)\nRfRxPower    : -3.00 (dBm)\n", bad, 0, "", "-", ""},
		{"huawei", "RfRxPower    : -3.00 (dBm)\nsuccess!\n", "", 0, "", "-", ""},
		{"huawei", "Rx optical power : -18,50 dBm\n", ok, -18.5, "", "-", ""},
		{"huawei", "Rx optical power : -18.50 dBm\n", ok, -18.5, "", "-", ""},
		{"huawei", "Rx optical power : -18,50\n", bad, 0, "", "-", ""},
		{"huawei", "RX power(dBm)                     :-20.18", "", 0, "", "-", ""},
		{"huawei", "RX power(dBm)                     :--\n", bad, 0, "", "-", ""},
		{"huawei", "onuid:4 reg status:O5AUTH xpon module:1\n", "", 0, "O5", "-", ""},
		{"huawei", "onuid:4 reg status:O5", "", 0, "", "-", ""},
		{"huawei", "ERROR::input para is not in the range\n", "", 0, "", "-", console.SessionError},

		{"zte", "/ # opticaltst -getpara\n  optical RXPower=0\n/ # ", dark, 0, "", "-", console.SessionPrompt},
		{"zte", "  optical RXPower=1\n", dark, 0, "", "-", ""},
		{"zte", "  optical RXPower=56", "", 0, "", "-", ""},
		{"zte", "  optical RXPower=5.6\n", bad, 0, "", "-", ""},
		{"zte", "/ # gpontest -gstate\n[gpontest] gpon state is [O4]\n/ # ", "", 0, "O4", "-", console.SessionPrompt},
		{"zte", "[gpontest] gpon state is [O4\n", "", 0, "", "-", ""},

		{"broadcom", "\nRx Laser Power           = 123 uW\nTx Laser Power           = 20000 uW\n", ok, -19.100949, "", "-", ""},
		{"broadcom", "\nRx Laser Power           = 0.000000 uW\n                         = -inf dBm\n", dark, 0, "", "-", ""},
		{"broadcom", "\nRx Laser Power           = 12.300000 uW\n                         = -9.100949 dBm\n", strange, 0, "", "-", ""},
		{"broadcom", "                         = -9.100949 dBm\n", "", 0, "", "-", ""},
		{"broadcom", "Rx Laser Power           = 12.3\n", bad, 0, "", "-", ""},
		{"broadcom", " > laser power --rxread\nlaser:error:1.2:cmdLaserPowerRead:1:Power not read\n > ", bad, 0, "", "-", console.SessionPrompt},
		{"broadcom", " > laser power --txread\nPower not read\n > ", "", 0, "", "-", console.SessionPrompt},
		{"broadcom", "2000/> mpcp/info\n[[3,32]]\n2000/> ", "", 0, "3", "-", console.SessionPrompt},
		{"broadcom", "2000/> mpcp/info\n[[1,32],[3,8]]\n", "", 0, "3", "-", ""},
		{"broadcom", "[[3,32]", "", 0, "", "-", ""},
		{"broadcom", " > gponctl getState\nLink State: OPERATION (O5)\nPrevious State: RANGING (O4)\n > ", "", 0, "O5", "-", console.SessionPrompt},
		{"broadcom", "Login: ", "", 0, "", "-", console.SessionLogin},
		{"broadcom", "CFE> ", "", 0, "", "-", console.SessionBootLoader},

		{"econet", "[  100.123456] Tx power = -40 dBm\n[  100.123457] Rx power = -21.5 dBm\n[  100.123458] LOS = 0\n", ok, -21.5, "", "", ""},
		{"econet", "[  100.123456] Tx power = -40 dBm\n[  100.123457] Rx power = -40 dBm\n[  100.123458] LOS = 1\n", dark, 0, "", "los", ""},
		{"econet", "rxPower is 56", "", 0, "", "-", ""},
		{"econet", "rxPower is 0\n", dark, 0, "", "-", ""},
		{"econet", "# tcapi get XPON_LinkCfg LinkSta\n1\n# tcapi get Info_PonPhy RxPower\n56\n# ", ok, -22.5181, "", "-", console.SessionPrompt},
		{"econet", "# tcapi get XPON_LinkCfg LinkSta\n0\n# tcapi get Info_PonPhy RxPower\n56\n# ", "", 0, "", "-", console.SessionPrompt},
		{"econet", "56\n", "", 0, "", "-", ""},
		{"econet", " ONU Info:\n ONU ID:    255\n ONU State: O2\n SN:        XXXX00000000\n", "", 0, "O2", "-", ""},

		{"rtl960x", "Laser status:force-on\n", "", 0, "", "laser_forced_on", ""},
	}
	for _, tt := range tests {
		f, err := console.Parse(tt.driver, []byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		r := f.Optics.RxPower
		if r.Status != tt.status || math.Abs(r.Value-tt.rx) > 0.06 {
			t.Errorf("%s %q: rx %+v, want %v %q", tt.driver, tt.text, r, tt.rx, tt.status)
		}
		alarms := strings.Join(f.PON.Alarms, ",")
		if len(f.PON.AlarmsKnown) == 0 {
			alarms = "-"
		}
		if f.PON.Raw != tt.state || alarms != tt.alarms || f.Session != tt.session {
			t.Errorf("%s %q: state %q, alarms %q, session %q; want %q, %q, %q", tt.driver, tt.text, f.PON.Raw, alarms, f.Session, tt.state, tt.alarms, tt.session)
		}
	}
}

// The loss of light may be all that an older tool knows of the transceiver.
func TestParseOpticalLOSAlone(t *testing.T) {
	for word, want := range map[string]string{"occur": "optical_los", "clear": ""} {
		f, err := console.Parse("rtl960x", []byte("Optical LOS, status: "+word+"\n"))
		if got := strings.Join(f.Optics.Alarms, ","); err != nil || got != want || !f.Optics.AlarmsKnown {
			t.Errorf("%s: alarms %q, known %t, error %v", word, got, f.Optics.AlarmsKnown, err)
		}
	}
}

func TestParseQuantities(t *testing.T) {
	tests := []struct {
		driver, text    string
		tx, bias, c, vv float64
	}{
		{"huawei", "Voltage      : 3322 (mV)\nBias         : 13 (mA)\nTemperature  : 36 (C)\nTxPower      :  2.34 (dBm)\n", 2.34, 13, 36, 3.322},
		{"huawei", "Supply voltage : 3,30 V\nBias current : 12,5 mA\nTemperature : 44,0 C\nTx optical power : 2,10 dBm\n", 2.1, 12.5, 44, 3.3},
		{"zte", "  optical TXPower=16982\n  optical TXBiasCurrent=6000\n  optical SupplyVoltage=32768\n  optical temp=64256\n", 2.3, 12, -5, 3.2768},
		{"zte", "  optical TXPower=16982\n  optical TXBiasCurrent=6000\n  optical SupplyVoltage=32768\n  optical temp=-1280\n", 2.3, 12, -5, 3.2768},
		{"prx126", "Tx Laser Power:\t2.30 dBm\nVoltage:\t3211 mV\nBias Current:\t12500 uA\nTemperature:\t40.50 C\n", 2.3, 12.5, 40.5, 3.211},
		{"falcon", "tx power (se*(bias+mod/2-ith)):   1.80mW   \nactual bias / modulation current:  8.72mA / 34.18mA   \nlaser temperature (ext corr):    319K     \nDDMI voltage:     3206.79mV   \n", 2.55, 8.72, 45.85, 3.20679},
	}
	for _, tt := range tests {
		f, err := console.Parse(tt.driver, []byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		o := f.Optics
		for what, q := range map[string]struct {
			r    collectors.Reading
			want float64
		}{"tx": {o.TxPower, tt.tx}, "bias": {o.Bias, tt.bias}, "temperature": {o.Temperature, tt.c}, "voltage": {o.Voltage, tt.vv}} {
			if !q.r.OK() || math.Abs(q.r.Value-q.want) > 0.01 {
				t.Errorf("%s %s: got %+v, want %v", tt.driver, what, q.r, q.want)
			}
		}
	}
}

// The text of one family, given to the driver of another, is no reading of a
// power but where both print the same line.
func TestParseAnotherFamily(t *testing.T) {
	for _, s := range samples(t) {
		for _, driver := range console.Drivers() {
			if driver == s.want.Driver {
				continue
			}
			f, err := console.Parse(driver, s.text)
			if err != nil {
				t.Fatal(err)
			}
			if r := f.Optics.RxPower; r.OK() && (s.want.RxPowerDBm == nil || math.Abs(r.Value-*s.want.RxPowerDBm) > 0.06) {
				t.Errorf("%s read by %s: %+v", s.name, driver, r)
			}
		}
	}
}

// A megabyte of what a broken line may carry costs no crash and no reading.
func TestParseBabble(t *testing.T) {
	for _, driver := range console.Drivers() {
		for _, unit := range []string{"x", "\n", "\x00", "\x1b[", "# ", "> ", "WAP>", "#ONT>", "-22.5 dBm ", "[[1,", "(", "((((:", "[   12.345678] "} {
			f, err := console.Parse(driver, []byte(strings.Repeat(unit, 1<<20/len(unit))))
			if err != nil {
				t.Fatal(err)
			}
			if f.Optics.RxPower.Status != "" || f.PON.Raw != "" || len(f.PON.Counters) > 0 {
				t.Errorf("%s, %q: %+v", driver, unit, f)
			}
		}
	}
}

func TestDriversAreNamed(t *testing.T) {
	want := []string{"rtl960x", "falcon", "prx126", "cig", "huawei", "zte", "broadcom", "econet"}
	if got := console.Drivers(); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
