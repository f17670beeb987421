// Package module reads optical modules: it decodes the images of SFF-8079,
// SFF-8472 (SFP), SFF-8636 (QSFP) and, as far as monitoring goes, CMIS, and
// fetches them through the kernel, by ethtool netlink or, on old kernels, by
// ioctl.
//
// The decoders are pure and follow the standards where public ones do not: the
// received power of an externally calibrated module is the fourth-order
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

// ErrUnknownKind is in the error for an image of a kind that is not decoded.
var ErrUnknownKind = errors.New("unknown kind of module")

// resolutionMicrowatts is what one count of power is in every standard here.
const resolutionMicrowatts = 0.1

// Calibration says how raw counts become values.
type Calibration string

// The kinds of calibration.
const (
	CalibrationNone     Calibration = ""
	CalibrationInternal Calibration = "internal" // counts are values
	CalibrationExternal Calibration = "external" // constants of A2h are applied
)

// Info is what a module says of itself.
type Info struct {
	Identifier                             byte // 2 soldered, 3 SFP, 0x0d QSFP+, 0x11 QSFP28, 0x18 QSFP-DD …
	Vendor, PartNumber, Revision, SerialNo string
	OUI                                    [3]byte
	DateCode                               string  // yymmdd and a lot code
	WavelengthNM                           float64 // 0 means none: copper
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
	// BaseOK and ExtendedOK are the two checksums over the identity; CMIS has
	// one, which counts for both.
	BaseOK, ExtendedOK bool
}

// trusted: what the module says of itself has the right checksums.
func (i *Info) trusted() bool { return i.BaseOK && i.ExtendedOK }

// identity is nil where the checksums are wrong.
func (i *Info) identity() *optics.Identity {
	if !i.trusted() {
		return nil
	}
	return &optics.Identity{Vendor: i.Vendor, PartNumber: i.PartNumber, SerialNo: i.SerialNo}
}

// Decode decodes the image of an SFP: a0 is A0h, a2 is A2h, of which nil means
// that it could not be read. source goes into the readings.
//
// The status of the readings is unsupported where the module has no
// diagnostics, error where it promises some and a2 is missing or short, and
// untrusted where the image contradicts itself: a wrong checksum, a supply of
// zero volts, data said not to be ready. The error is compatible with
// ErrUnknownKind for another kind of image.
func Decode(a0, a2 []byte, source string) (Info, optics.Reading, error) {
	m, err := decodeStatic(a0, a2)
	if err != nil {
		return Info{}, optics.Unread(source, collectors.StatusError), err
	}
	if len(a2) < diagLength {
		return m.info, m.reading(nil, source), nil
	}
	return m.info, m.reading([][]byte{a2[liveOffset : liveOffset+liveLength]}, source), nil
}

// device is a module whose static pages are known.
type device interface {
	about() *Info
	// sound: the checksums of the static pages hold. Pages that are not are
	// read again at the next poll: the bus may have been disturbed.
	sound() bool
	// live are the places that a poll reads; none if there is nothing to poll.
	live() []place
	// serialAt is where the serial number is, and with it what follows: a
	// module that was changed differs there.
	serialAt() place
	// reading decodes what was read at live, in that order. What is missing or
	// short could not be read.
	reading(live [][]byte, source string) optics.Reading
}

// place is some bytes of a module, within one half of a page.
type place struct {
	address byte // of I2C: 0x50, 0x51
	page    byte // for the upper half
	offset  int
	length  int
}

// serialLength is how much is compared to notice another module: the serial
// number and the date.
const serialLength = 28

var _ device = (*static)(nil)

func (m *static) about() *Info { return &m.info }

func (m *static) sound() bool { return m.info.trusted() && (!m.diagRead || m.diagOK) }

func (m *static) live() []place {
	if !m.info.DDM || !m.info.trusted() {
		return nil
	}
	return []place{{address: addressA2, offset: liveOffset, length: liveLength}}
}

func (*static) serialAt() place {
	return place{address: addressA0, offset: 68, length: serialLength}
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
func decodeStatic(a0, a2 []byte) (*static, error) {
	if len(a0) < baseLength {
		return nil, fmt.Errorf("cannot decode module: %d bytes of A0h, %d needed", len(a0), baseLength)
	}
	if a0[0] != 0x02 && a0[0] != 0x03 {
		return nil, fmt.Errorf("cannot decode module: %w: identifier %#02x", ErrUnknownKind, a0[0])
	}
	diagnostic := a0[92]
	m := &static{info: Info{
		Identifier: a0[0],
		Vendor:     text(a0[20:36]), PartNumber: text(a0[40:56]), Revision: text(a0[56:60]), SerialNo: text(a0[68:84]),
		OUI:             [3]byte(a0[37:40]),
		DateCode:        text(a0[84:92]),
		WavelengthNM:    float64(binary.BigEndian.Uint16(a0[60:62])),
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
	if blank(a2[0:40]) {
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

// reading decodes the bytes 96..119 of A2h.
func (m *static) reading(parts [][]byte, source string) optics.Reading {
	var live []byte
	if len(parts) > 0 {
		live = parts[0]
	}
	unread := func(status collectors.Status) optics.Reading {
		r := optics.Unread(source, status)
		r.Module = m.info.identity()
		return r
	}
	switch {
	case !m.info.trusted():
		// Not even whether there are diagnostics can be believed.
		return unread(collectors.StatusUntrusted)
	case !m.info.DDM || m.info.Calibration == CalibrationNone:
		return unread(collectors.StatusUnsupported)
	case !m.diagRead || len(live) < liveLength:
		return unread(collectors.StatusError)
	}
	u16 := func(offset int) uint16 { return binary.BigEndian.Uint16(live[offset-liveOffset:]) }
	out := optics.Reading{
		Source: source, Thresholds: m.thresholds, Module: m.info.identity(), ResolutionMicrowatts: resolutionMicrowatts,
	}
	of := quantities(source)
	temperature, vcc, bias, tx, rx := u16(96), u16(98), u16(100), u16(102), u16(104)
	out.Temperature = of.quantity(optics.UnitTemperature, temperature, m.cal.celsius(temperature))
	out.Voltage = of.quantity(optics.UnitVoltage, vcc, m.cal.volts(vcc))
	out.Bias = of.quantity(optics.UnitBias, bias, max(0, m.cal.milliamps(bias)))
	out.TxPower = of.power(tx, m.cal.tx.at(float64(tx)))
	out.RxPower = of.power(rx, m.cal.rxCounts(rx))
	if m.info.Flags {
		out.Alarms, out.AlarmsKnown = flags(u16(112)), true
		out.Warnings, out.WarningsKnown = flags(u16(116)), true
	}
	status := live[110-liveOffset]
	out.RxLOS, out.RxLOSKnown = status&0x02 != 0, m.info.LOSUsable
	out.RxLOS = out.RxLOS && out.RxLOSKnown
	notReady := status&0x01 != 0
	if vcc == 0 || m.cal.volts(vcc) <= 0 || notReady || !m.diagOK {
		out.Distrust()
	}
	return out
}

// quantities makes readings of one source.
type quantities string

func (source quantities) quantity(unit string, raw uint16, v float64) collectors.Reading {
	r := collectors.Reading{Value: v, Unit: unit, Status: collectors.StatusOK, Source: string(source), Raw: fmt.Sprintf("0x%04x", raw)}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		r.Value, r.Status = 0, collectors.StatusUntrusted
	}
	return r
}

// power is in counts of 0.1 uW.
func (source quantities) power(raw uint16, counts float64) collectors.Reading {
	r := source.quantity(optics.UnitPower, raw, counts)
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

// absent is a quantity that the module does not measure.
func (source quantities) absent(unit string) collectors.Reading {
	return collectors.Reading{Unit: unit, Status: collectors.StatusUnsupported, Source: string(source)}
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
