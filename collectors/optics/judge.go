package optics

import (
	"slices"
	"strings"
)

// AccuracyDB is how far digital diagnostics may be off and still keep to
// SFF-8472. An absolute level is worth no more than that; changes of one
// module's own readings are worth much more, which is why a line is compared
// with its own baseline.
const AccuracyDB = 3.0

// Class is what an optical class promises on the side of the ONU, in dBm.
type Class struct {
	Name string
	// RxLowDBm is the sensitivity, RxHighDBm the overload of the receiver.
	RxLowDBm, RxHighDBm float64
	// TxLowDBm and TxHighDBm bound the mean launch power; both 0 mean that
	// the table at hand does not say.
	TxLowDBm, TxHighDBm float64
}

// Classes are the classes that are known, GPON first (G.984.2 and its
// amendments), then XGS-PON (G.9807.1), EPON and 10G-EPON (IEEE 802.3). The
// EPON rows are from data sheets, which differ on the overload of PX20+: the
// stricter value is here.
func Classes() []Class {
	return []Class{
		{"A", -21, -1, 0, 0},
		{"B", -21, -1, 0, 0},
		{"C", -28, -8, 0, 0},
		{"B+", -27, -8, 0.5, 5},
		{"C+", -30, -8, 0.5, 5}, // with FEC
		{"N1", -28, -9, 4, 9},
		{"N2", -28, -9, 4, 9},
		{"E1", -28, -9, 4, 9},
		{"PX20", -24, -3, -1, 4},
		{"PX20+", -27, -8, 0, 5},
		{"PX30", -27, -8, 0.6, 5.6},
		{"PR30", -28.5, -10, 4, 9},
		{"PRX30", -28.5, -10, 0.6, 5.6},
	}
}

// ClassByName finds a class; upper and lower case are the same.
func ClassByName(name string) (Class, bool) {
	for _, c := range Classes() {
		if strings.EqualFold(c.Name, name) {
			return c, true
		}
	}
	return Class{}, false
}

// Budget is what a received power is judged by.
type Budget struct {
	// MinDBm and MaxDBm are the norm's: at or below the first and above the
	// second the light is bad.
	MinDBm, MaxDBm float64
	// Class is the optical class of the line; nil means unknown.
	Class *Class
	// Module are the transceiver's own limits; nil means unknown.
	Module *Thresholds
}

// Judgement is what a level is worth.
type Judgement struct {
	// Level is low, normal or high, by the norm alone.
	Level string
	// MarginDB is how far the level is above the norm's lower limit, HeadroomDB
	// how far it is below the upper one.
	MarginDB, HeadroomDB float64
	// ReceiverMarginDB is how far the level is above the point where the
	// receiver is expected to fail: the class's sensitivity or the module's low
	// alarm, whichever is lower. It means something only with ReceiverKnown.
	ReceiverMarginDB float64
	ReceiverKnown    bool
	// Beyond names the other limits that the reading is beyond, sorted. They
	// warn; they do not fail: class_low, class_high, class_tx_low,
	// class_tx_high, module_warn_low, module_alarm_low, module_warn_high,
	// module_alarm_high.
	Beyond []string
}

// Judge judges a reading whose received power is ok.
func (b *Budget) Judge(r Reading) Judgement { return b.judge(r, func(string) bool { return false }) }

// judge is Judge for a reading that follows others: a limit that was exceeded
// is so until the level is hysteresisDB inside it again.
func (b *Budget) judge(r Reading, was func(limit string) bool) Judgement {
	rx := r.RxPower.Value
	j := Judgement{Level: normal, MarginDB: rx - b.MinDBm, HeadroomDB: b.MaxDBm - rx}
	ease := func(name string) float64 {
		if was(name) {
			return hysteresisDB
		}
		return 0
	}
	switch {
	case rx <= b.MinDBm+ease(low):
		j.Level = low
	case rx > b.MaxDBm-ease(high):
		j.Level = high
	}
	below := func(name string, dBm, limit float64) {
		if dBm < limit+ease(name) {
			j.Beyond = append(j.Beyond, name)
		}
	}
	above := func(name string, dBm, limit float64) {
		if dBm > limit-ease(name) {
			j.Beyond = append(j.Beyond, name)
		}
	}
	fails := func(limit float64) {
		if margin := rx - limit; !j.ReceiverKnown || margin > j.ReceiverMarginDB {
			j.ReceiverMarginDB, j.ReceiverKnown = margin, true
		}
	}
	if c := b.Class; c != nil {
		below("class_low", rx, c.RxLowDBm)
		above("class_high", rx, c.RxHighDBm)
		fails(c.RxLowDBm)
		if r.TxPower.OK() && (c.TxLowDBm != 0 || c.TxHighDBm != 0) {
			// The range of a class is hardly wider than what diagnostics are
			// off by: only what is beyond doubt counts.
			below("class_tx_low", r.TxPower.Value, c.TxLowDBm-AccuracyDB)
			above("class_tx_high", r.TxPower.Value, c.TxHighDBm+AccuracyDB)
		}
	}
	if m := b.Module; m != nil {
		for _, l := range []struct {
			name  string
			limit Limit
			judge func(string, float64, float64)
		}{
			{"module_alarm_low", m.RxPower.AlarmLow, below},
			{"module_warn_low", m.RxPower.WarnLow, below},
			{"module_warn_high", m.RxPower.WarnHigh, above},
			{"module_alarm_high", m.RxPower.AlarmHigh, above},
		} {
			if l.limit.Known {
				l.judge(l.name, rx, l.limit.Value)
			}
		}
		if m.RxPower.AlarmLow.Known {
			fails(m.RxPower.AlarmLow.Value)
		}
	}
	slices.Sort(j.Beyond)
	return j
}
