package module

import (
	"encoding/binary"
	"slices"

	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// Layout of SFF-8636; offsets are those of the standard, 0..127 in the lower
// half, 128..255 in the upper half of a page.
const (
	qsfpLanes      = 4
	qsfpFlatMemory = 0x04 // of byte 2: there is no page but 00h
	qsfpNotReady   = 0x01 // of byte 2

	// What a poll reads: status, flags, temperature, supply, rx, bias, tx.
	qsfpLiveOffset  = 2
	qsfpLiveLength  = 56
	qsfpTemperature = 22
	qsfpVoltage     = 26
	qsfpRx          = 34
	qsfpBias        = 42
	qsfpTx          = 50

	// Page 00h.
	qsfpDevice     = 147 // high half: technology of the transmitter
	qsfpVendor     = 148
	qsfpOUI        = 165
	qsfpPart       = 168
	qsfpRevision   = 184
	qsfpWavelength = 186 // 1/20 nm
	qsfpSerial     = 196
	qsfpDate       = 212
	qsfpDiagnostic = 220
)

// qsfp is a module after SFF-8636 or its forerunner SFF-8436.
type qsfp struct {
	info       Info
	thresholds *optics.Thresholds
	revision   byte // byte 1: from 8 on byte 220 tells which monitors there are
	diagnostic byte // byte 220
}

var _ device = (*qsfp)(nil)

// decodeQSFP decodes the static part: the lower half and the upper halves of
// page 00h and 03h, of which the latter may be nil: the module has none, or it
// could not be read.
func decodeQSFP(lower, page00, page03 []byte) *qsfp {
	at := func(offset, length int) []byte { return page00[offset-halfPage:][:length] }
	m := &qsfp{revision: lower[1], diagnostic: page00[qsfpDiagnostic-halfPage], info: Info{
		Identifier: lower[0],
		Vendor:     text(at(qsfpVendor, 16)), PartNumber: text(at(qsfpPart, 16)), Revision: text(at(qsfpRevision, 2)),
		SerialNo: text(at(qsfpSerial, 16)), DateCode: text(at(qsfpDate, 8)),
		OUI:             [3]byte(at(qsfpOUI, 3)),
		NominalMegabaud: int(page00[140-halfPage]) * 100,
		OMA:             page00[qsfpDiagnostic-halfPage]&0x08 == 0,
		Flags:           true,
		BaseOK:          checksum(at(128, 63)) == page00[191-halfPage] && lower[0] == page00[0],
		ExtendedOK:      checksum(at(192, 31)) == page00[223-halfPage],
	}}
	// Technologies from 1010b on are copper: no light, and 186 is attenuation.
	if page00[qsfpDevice-halfPage]>>4 < 0x0a {
		m.info.DDM, m.info.Calibration = true, CalibrationInternal
		m.info.WavelengthNM = float64(binary.BigEndian.Uint16(at(qsfpWavelength, 2))) / 20
	}
	if m.info.DDM && plausiblePage03(page03) {
		m.thresholds = pageThresholds(page03, pageLayout{
			temperature: 128, voltage: 144, rx: 176, bias: 184, tx: 192, biasScale: 1,
		})
	}
	return m
}

// plausiblePage03 says whether the limits of temperature and supply are in
// order. Page 03h has no checksum, and some modules answer with zeros or with
// another page.
func plausiblePage03(page []byte) bool {
	if len(page) < halfPage {
		return false
	}
	u16 := func(offset int) int { return int(binary.BigEndian.Uint16(page[offset-halfPage:])) }
	s16 := func(offset int) int { return int(int16(binary.BigEndian.Uint16(page[offset-halfPage:]))) }
	ordered := func(v func(int) int, offset int) bool {
		highAlarm, lowAlarm, highWarn, lowWarn := v(offset), v(offset+2), v(offset+4), v(offset+6)
		return highAlarm > lowAlarm && highAlarm >= highWarn && highWarn >= lowWarn && lowWarn >= lowAlarm
	}
	// A supply of 3.3 V lies between its limits.
	return ordered(s16, 128) && ordered(u16, 144) && u16(144) > 33000 && u16(146) < 33000
}

// pageLayout says where a page of thresholds has them.
type pageLayout struct {
	temperature, voltage, rx, bias, tx int
	biasScale                          float64 // 0 means unknown: no thresholds of bias
}

// pageThresholds decodes a page of thresholds: high alarm, low alarm, high
// warning, low warning of each quantity; nil if all are zero.
func pageThresholds(page []byte, at pageLayout) *optics.Thresholds {
	blank := true
	limits := func(offset int, convert func(raw uint16) (float64, bool)) optics.Limits {
		one := func(i int) optics.Limit {
			raw := binary.BigEndian.Uint16(page[offset-halfPage+2*i:])
			blank = blank && raw == 0
			v, ok := convert(raw)
			if !ok {
				return optics.Limit{}
			}
			return optics.Limit{Value: v, Known: true}
		}
		return optics.Limits{AlarmHigh: one(0), AlarmLow: one(1), WarnHigh: one(2), WarnLow: one(3)}
	}
	c := unity()
	power := func(raw uint16) (float64, bool) { return countsToDBm(float64(raw)) }
	t := &optics.Thresholds{
		Temperature: limits(at.temperature, func(raw uint16) (float64, bool) { return c.celsius(raw), true }),
		Voltage:     limits(at.voltage, func(raw uint16) (float64, bool) { return c.volts(raw), true }),
		Bias: limits(at.bias, func(raw uint16) (float64, bool) {
			return c.milliamps(raw) * at.biasScale, at.biasScale > 0
		}),
		TxPower: limits(at.tx, power),
		RxPower: limits(at.rx, power),
	}
	if blank {
		return nil
	}
	return t
}

func (m *qsfp) about() *Info { return &m.info }

func (m *qsfp) sound() bool { return m.info.trusted() }

func (m *qsfp) live() []place {
	if !m.info.DDM || !m.info.trusted() {
		return nil
	}
	return []place{{address: addressA0, offset: qsfpLiveOffset, length: qsfpLiveLength}}
}

func (*qsfp) serialAt() place {
	return place{address: addressA0, offset: qsfpSerial, length: serialLength}
}

// reading decodes the bytes 2..57 of the lower half.
func (m *qsfp) reading(parts [][]byte, source string) optics.Reading {
	status := collectors.Status("")
	switch {
	case !m.info.trusted():
		status = collectors.StatusUntrusted
	case !m.info.DDM:
		status = collectors.StatusUnsupported
	case len(parts) == 0 || len(parts[0]) < qsfpLiveLength:
		status = collectors.StatusError
	}
	if status != "" {
		r := optics.Unread(source, status)
		r.Module = m.info.identity()
		return r
	}
	live := parts[0]
	u16 := func(offset int) uint16 { return binary.BigEndian.Uint16(live[offset-qsfpLiveOffset:]) }
	of := quantities(source)
	out := optics.Unread(source, collectors.StatusUnsupported) // a single value there is not
	out.Thresholds, out.Module, out.ResolutionMicrowatts = m.thresholds, m.info.identity(), resolutionMicrowatts
	c := unity()
	tells := func(bit byte) bool { return m.revision < 8 || m.diagnostic&bit != 0 }
	temperature, vcc := u16(qsfpTemperature), u16(qsfpVoltage)
	if tells(0x20) {
		out.Temperature = of.quantity(optics.UnitTemperature, temperature, c.celsius(temperature))
	}
	if tells(0x10) {
		out.Voltage = of.quantity(optics.UnitVoltage, vcc, c.volts(vcc))
	}
	for i := range qsfpLanes {
		rx, bias, tx := u16(qsfpRx+2*i), u16(qsfpBias+2*i), u16(qsfpTx+2*i)
		lane := optics.Lane{
			RxPower: of.power(rx, float64(rx)),
			TxPower: of.absent(optics.UnitPower),
			Bias:    of.quantity(optics.UnitBias, bias, c.milliamps(bias)),
		}
		if m.diagnostic&0x04 != 0 {
			lane.TxPower = of.power(tx, float64(tx))
		}
		out.Lanes = append(out.Lanes, lane)
	}
	out.Alarms, out.Warnings = qsfpFlags(live)
	out.AlarmsKnown, out.WarningsKnown = true, true
	notReady := live[0]&qsfpNotReady != 0
	if notReady || tells(0x10) && vcc == 0 {
		out.Distrust()
	}
	return out
}

// qsfpFlags names the flags of the bytes 6..14. A flag of any lane counts.
func qsfpFlags(live []byte) (alarms, warnings []string) {
	b := func(offset int) byte { return live[offset-qsfpLiveOffset] }
	// Each nibble is high alarm, low alarm, high warning, low warning.
	add := func(name string, nibble byte) {
		for i, to := range []*[]string{&alarms, &alarms, &warnings, &warnings} {
			if nibble&(8>>i) != 0 {
				*to = append(*to, name+[]string{"_high", "_low"}[i%2])
			}
		}
	}
	add("temperature", b(6)>>4)
	add("voltage", b(7)>>4)
	for _, q := range []struct {
		name   string
		offset int
	}{{"rx", 9}, {"bias", 11}, {"tx", 13}} {
		first, second := b(q.offset), b(q.offset+1)
		add(q.name, first>>4|first&0x0f|second>>4|second&0x0f)
	}
	slices.Sort(alarms)
	slices.Sort(warnings)
	return alarms, warnings
}
