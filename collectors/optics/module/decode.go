// Package module reads optical modules: it decodes SFF-8472 images and fetches
// them through the kernel, by ethtool netlink or, on old kernels, by ioctl.
//
// The decoder is pure and follows the standard where public decoders do not:
// the received power of an externally calibrated module is the fifth-order
// polynomial with all of its constants, offsets are signed, and the constants
// are left alone where calibration is internal.
package module

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
	"strings"

	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// Sizes of the parts of an image that are needed.
const (
	baseLength = 96  // of A0h
	diagLength = 120 // of A2h
	halfPage   = 128
	// The live values, flags and status of A2h lie side by side.
	liveOffset = 96
	liveLength = 24
)

// ErrNotSFF8472 is in the error of Decode for an image of another kind.
var ErrNotSFF8472 = errors.New("not an SFF-8472 module")

// Calibration says how raw counts become values.
type Calibration string

// The kinds of calibration.
const (
	CalibrationNone     Calibration = ""
	CalibrationInternal Calibration = "internal" // counts are values
	CalibrationExternal Calibration = "external" // constants of A2h are applied
)

// Info is what a module says of itself, from A0h.
type Info struct {
	Identifier                             byte // 2 soldered, 3 SFP
	Vendor, PartNumber, Revision, SerialNo string
	OUI                                    [3]byte
	DateCode                               string // yymmdd and a lot code
	WavelengthNM                           int    // 0 means none: copper
	NominalMegabaud                        int
	DDM                                    bool // diagnostics are promised
	Calibration                            Calibration
	// AddressChange: A2h must be asked for by an address change; the kernel's
	// ioctl does not offer it.
	AddressChange bool
	// Flags: alarm and warning flags are implemented.
	Flags bool
	// OMA: received power is modulation amplitude, not the average.
	OMA bool
	// LOSUsable: the loss-of-signal pin has one sense and not both or none.
	LOSUsable bool
	// BaseOK and ExtendedOK are the two checksums of A0h.
	BaseOK, ExtendedOK bool
}

// Decode decodes the image of a module: a0 is A0h, a2 is A2h, of which nil
// means that it could not be read. source goes into the readings.
//
// The status of the readings is unsupported where the module has no
// diagnostics, error where it promises some and a2 is missing or short, and
// untrusted where the image contradicts itself: a wrong checksum, a supply of
// zero volts, data said not to be ready. The error is compatible with
// ErrNotSFF8472 for another kind of image.
func Decode(a0, a2 []byte, source string) (Info, optics.Reading, error) {
	m, err := decodeStatic(a0, a2)
	if err != nil {
		return Info{}, optics.Unread(source, collectors.StatusError), err
	}
	if len(a2) < diagLength {
		return m.info, m.reading(nil, source), nil
	}
	return m.info, m.reading(a2[liveOffset:liveOffset+liveLength], source), nil
}

// static is what does not change while a module stays in its cage.
type static struct {
	info       Info
	cal        calibration
	thresholds *optics.Thresholds
	diagOK     bool // A2h was read and its checksum holds
	diagRead   bool // A2h was read
}

// decodeStatic decodes A0h and the constant part of A2h.
func decodeStatic(a0, a2 []byte) (static, error) {
	if len(a0) < baseLength {
		return static{}, fmt.Errorf("cannot decode module: %d bytes of A0h, %d needed", len(a0), baseLength)
	}
	if a0[0] != 0x02 && a0[0] != 0x03 {
		return static{}, fmt.Errorf("cannot decode module: %w: identifier %#02x", ErrNotSFF8472, a0[0])
	}
	diagnostic := a0[92]
	m := static{info: Info{
		Identifier: a0[0],
		Vendor:     text(a0[20:36]), PartNumber: text(a0[40:56]), Revision: text(a0[56:60]), SerialNo: text(a0[68:84]),
		OUI:             [3]byte(a0[37:40]),
		DateCode:        text(a0[84:92]),
		WavelengthNM:    int(binary.BigEndian.Uint16(a0[60:62])),
		NominalMegabaud: int(a0[12]) * 100,
		DDM:             diagnostic&0x40 != 0,
		AddressChange:   diagnostic&0x04 != 0,
		OMA:             diagnostic&0x08 == 0,
		Flags:           a0[93]&0x80 != 0,
		LOSUsable:       a0[65]&0x06 == 0x02 || a0[65]&0x06 == 0x04,
		BaseOK:          checksum(a0[0:63]) == a0[63],
		ExtendedOK:      checksum(a0[64:95]) == a0[95],
	}}
	if m.info.DDM {
		switch {
		case diagnostic&0x20 != 0:
			m.info.Calibration = CalibrationInternal
		case diagnostic&0x10 != 0:
			m.info.Calibration = CalibrationExternal
		}
	}
	if !m.info.DDM || len(a2) < liveOffset {
		return m, nil
	}
	m.diagRead = true
	m.diagOK = checksum(a2[0:95]) == a2[95]
	m.cal = unity()
	if m.info.Calibration == CalibrationExternal {
		m.cal = decodeCalibration(a2)
	}
	if m.diagOK {
		m.thresholds = m.cal.thresholds(a2)
	}
	return m, nil
}

// text is a field padded with blanks; what is not printable ASCII is dropped.
func text(b []byte) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, string(b)))
}

// checksum is the low byte of the sum.
func checksum(b []byte) byte {
	var sum byte
	for _, v := range b {
		sum += v
	}
	return sum
}

// calibration are the constants that turn counts into calibrated counts.
type calibration struct {
	rx                             [5]float64 // by power of the raw count
	bias, tx, temperature, voltage linear
	external                       bool
}

// linear is slope*raw + offset, in raw units.
type linear struct{ slope, offset float64 }

func (l linear) at(raw float64) float64 { return l.slope*raw + l.offset }

// unity leaves counts as they are.
func unity() calibration {
	one := linear{slope: 1}
	return calibration{rx: [5]float64{0, 1}, bias: one, tx: one, temperature: one, voltage: one}
}

// decodeCalibration reads the constants of A2h 56..91: RX_PWR from the fourth
// power down to the zeroth, then slope (u8.8) and offset (signed) of each
// other quantity.
func decodeCalibration(a2 []byte) calibration {
	c := calibration{external: true}
	for i := range c.rx {
		bits := binary.BigEndian.Uint32(a2[56+4*i:])
		c.rx[len(c.rx)-1-i] = float64(math.Float32frombits(bits))
	}
	at := func(offset int) linear {
		return linear{
			slope:  float64(binary.BigEndian.Uint16(a2[offset:])) / 256,
			offset: float64(int16(binary.BigEndian.Uint16(a2[offset+2:]))),
		}
	}
	c.bias, c.tx, c.temperature, c.voltage = at(76), at(80), at(84), at(88)
	return c
}

// rxCounts is the received power in 0.1 uW.
func (c *calibration) rxCounts(raw uint16) float64 {
	if !c.external {
		return float64(raw)
	}
	x, sum := float64(raw), 0.0
	for i := len(c.rx) - 1; i >= 0; i-- {
		sum = sum*x + c.rx[i]
	}
	return sum
}

// countsToDBm converts 0.1 uW; ok is false for nothing at all and less.
func countsToDBm(counts float64) (dBm float64, ok bool) {
	if !(counts > 0) || math.IsInf(counts, 0) {
		return 0, false
	}
	return 10 * math.Log10(counts/10000), true
}

// thresholds decodes A2h 0..39; nil if all are zero.
func (c *calibration) thresholds(a2 []byte) *optics.Thresholds {
	blank := true
	for _, b := range a2[0:40] {
		blank = blank && b == 0
	}
	if blank {
		return nil
	}
	limits := func(offset int, convert func(raw uint16) (float64, bool)) optics.Limits {
		at := func(i int) optics.Limit {
			v, ok := convert(binary.BigEndian.Uint16(a2[offset+2*i:]))
			if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
				return optics.Limit{}
			}
			return optics.Limit{Value: v, Known: true}
		}
		return optics.Limits{AlarmHigh: at(0), AlarmLow: at(1), WarnHigh: at(2), WarnLow: at(3)}
	}
	return &optics.Thresholds{
		Temperature: limits(0, func(raw uint16) (float64, bool) { return c.celsius(raw), true }),
		Voltage:     limits(8, func(raw uint16) (float64, bool) { v := c.volts(raw); return v, v >= 0 }),
		Bias:        limits(16, func(raw uint16) (float64, bool) { v := c.milliamps(raw); return v, v >= 0 }),
		TxPower:     limits(24, func(raw uint16) (float64, bool) { return countsToDBm(c.tx.at(float64(raw))) }),
		RxPower:     limits(32, func(raw uint16) (float64, bool) { return countsToDBm(c.rxCounts(raw)) }),
	}
}

func (c *calibration) celsius(raw uint16) float64 {
	return c.temperature.at(float64(int16(raw))) / 256
}

func (c *calibration) volts(raw uint16) float64 { return c.voltage.at(float64(raw)) * 1e-4 }

func (c *calibration) milliamps(raw uint16) float64 { return c.bias.at(float64(raw)) * 2e-3 }

// floorCounts is the least power a count stands for, -40 dBm: no light.
const floorCounts = 1.0

// reading decodes live, the bytes 96..119 of A2h; nil means that they could
// not be read.
func (m *static) reading(live []byte, source string) optics.Reading {
	switch {
	case !m.info.BaseOK || !m.info.ExtendedOK:
		// Not even whether there are diagnostics can be believed.
		return optics.Unread(source, collectors.StatusUntrusted)
	case !m.info.DDM || m.info.Calibration == CalibrationNone:
		return optics.Unread(source, collectors.StatusUnsupported)
	case !m.diagRead || len(live) < liveLength:
		return optics.Unread(source, collectors.StatusError)
	}
	u16 := func(offset int) uint16 { return binary.BigEndian.Uint16(live[offset-liveOffset:]) }
	out := optics.Reading{Source: source, Thresholds: m.thresholds}
	quantity := func(unit string, raw uint16, v float64) collectors.Reading {
		r := collectors.Reading{Value: v, Unit: unit, Status: collectors.StatusOK, Source: source, Raw: fmt.Sprintf("%#04x", raw)}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			r.Value, r.Status = 0, collectors.StatusUntrusted
		}
		return r
	}
	power := func(raw uint16, counts float64) collectors.Reading {
		r := quantity(optics.UnitPower, raw, counts)
		if r.Status != collectors.StatusOK {
			return r
		}
		// A calibrated power below zero is none.
		r.Value, _ = countsToDBm(counts)
		if counts <= floorCounts {
			r.Value, r.Status = 0, collectors.StatusNoLight
		}
		return r
	}
	temperature, vcc, bias, tx, rx := u16(96), u16(98), u16(100), u16(102), u16(104)
	out.Temperature = quantity(optics.UnitTemperature, temperature, m.cal.celsius(temperature))
	out.Voltage = quantity(optics.UnitVoltage, vcc, m.cal.volts(vcc))
	out.Bias = quantity(optics.UnitBias, bias, max(0, m.cal.milliamps(bias)))
	out.TxPower = power(tx, m.cal.tx.at(float64(tx)))
	out.RxPower = power(rx, m.cal.rxCounts(rx))
	if m.info.Flags {
		out.Alarms, out.AlarmsKnown = flags(u16(112)), true
		out.Warnings, out.WarningsKnown = flags(u16(116)), true
	}
	notReady := live[110-liveOffset]&0x01 != 0
	if vcc == 0 || notReady || !m.diagOK {
		out.Distrust()
	}
	return out
}

// flags names the bits of A2h 112..113 or 116..117, sorted.
func flags(bits uint16) []string {
	var out []string
	for i, name := range [...]string{
		"temperature_high", "temperature_low", "voltage_high", "voltage_low", "bias_high", "bias_low",
		"tx_high", "tx_low", "rx_high", "rx_low",
	} {
		if bits&(0x8000>>i) != 0 {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out
}
