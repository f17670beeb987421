// Package optics reads the optical transceiver of the gateway: received and
// transmitted power, laser bias, temperature and supply voltage.
//
// What a reading is, where the best one comes from and which changes are worth
// an event is decided here; how a source is asked is the business of the
// packages below: module (SFP EEPROM), hwmon (sysfs) and console (serial
// command lines). What a level is worth – the norm's limits, the optical class,
// the module's own thresholds, the line's baseline – is judged here too, for
// telemetry and events; the verdict of an acceptance is the acceptance's.
package optics

import (
	"context"
	"strings"

	"ontagent/collectors"
)

// Units of the quantities of a Reading.
const (
	UnitPower       = "dBm"
	UnitBias        = "mA"
	UnitTemperature = "Cel"
	UnitVoltage     = "V"
)

// A Reader is one source of optical readings.
type Reader interface {
	// Name is the source as it appears in readings: "console:rtl960x",
	// "module:eth1", "hwmon:sfp1".
	Name() string
	// ReadOptics reads once; a source may serve a reading that is a few
	// seconds old. An error compatible with errors.Is(err,
	// collectors.ErrNoData) means that there is nothing to read here. With
	// any other error the reading holds what could be read all the same:
	// each quantity says by its status whether it has a value.
	ReadOptics(ctx context.Context) (Reading, error)
}

// A FreshReader is a Reader that may serve a remembered reading, and can be
// told not to.
type FreshReader interface {
	Reader
	// ReadOpticsFresh is ReadOptics with everything read after the call
	// began.
	ReadOpticsFresh(ctx context.Context) (Reading, error)
}

// Reading is what one source said at one moment. The zero Reading says
// nothing: each quantity has no status.
type Reading struct {
	RxPower     collectors.Reading // received power, dBm
	TxPower     collectors.Reading // transmitted power, dBm; StatusNoLight means that the laser is off
	Bias        collectors.Reading // laser bias current, mA
	Temperature collectors.Reading // degrees Celsius
	Voltage     collectors.Reading // supply voltage, V

	// Alarms are the active alarm flags of the transceiver, sorted: rx_low,
	// temperature_high, optical_los. They mean something only if AlarmsKnown:
	// then an empty list says that none is active.
	Alarms      []string
	AlarmsKnown bool
	// Warnings are the active warning flags, as Alarms.
	Warnings      []string
	WarningsKnown bool

	// RxLOS is the receiver's own loss-of-signal output, where RxLOSKnown. It is
	// carried beside the power and never replaces it: there are sticks whose
	// output is stuck, or wired to something else.
	RxLOS, RxLOSKnown bool

	// Thresholds are the transceiver's own limits; nil if unknown.
	Thresholds *Thresholds

	// Lanes are the lanes of a transceiver that has several, the first first;
	// nil for one that has a single fibre to look at. With lanes RxPower,
	// TxPower and Bias hold no value – there is no single one – and LanesStatus
	// says how the lanes are.
	Lanes []Lane

	// Module says which transceiver it is; nil if the source cannot tell or
	// what it tells has a wrong checksum.
	Module *Identity

	// ResolutionMicrowatts is the smallest step of the powers, in uW; 0 means
	// unknown. It is what makes a weak reading coarse: one step of 1 uW is
	// 1.8 dB at -27 dBm.
	ResolutionMicrowatts float64

	// Source is the Name of the Reader.
	Source string
}

// Lane is one lane of a transceiver that has several.
type Lane struct {
	RxPower, TxPower, Bias collectors.Reading
}

// Identity names a transceiver.
type Identity struct {
	Vendor, PartNumber, SerialNo string
}

// String is the three, blank-separated; what is empty is left out.
func (id Identity) String() string {
	return strings.Join(strings.Fields(id.Vendor+" "+id.PartNumber+" "+id.SerialNo), " ")
}

// LanesStatus is the status of the received power as a whole: that of RxPower
// or, with several lanes, ok if every lane has light, no_light if all are
// dark, and empty for anything in between.
func (r *Reading) LanesStatus() collectors.Status {
	if len(r.Lanes) == 0 || r.RxPower.Status != collectors.StatusUnsupported {
		return r.RxPower.Status
	}
	for _, l := range r.Lanes {
		if l.RxPower.Status != r.Lanes[0].RxPower.Status {
			return ""
		}
	}
	return r.Lanes[0].RxPower.Status
}

// Thresholds are the limits stored in a transceiver, in the units of the
// Reading.
type Thresholds struct {
	RxPower, TxPower, Bias, Temperature, Voltage Limits
}

// Limits are the four thresholds of one quantity.
type Limits struct {
	AlarmHigh, AlarmLow, WarnHigh, WarnLow Limit
}

// Limit is one threshold. Without Known there is none: a power of minus
// infinity, a calibrated current below zero.
type Limit struct {
	Value float64
	Known bool
}

// Unread is the Reading of a source that could not be asked: every quantity
// carries the status and no value.
func Unread(source string, status collectors.Status) Reading {
	q := func(unit string) collectors.Reading {
		return collectors.Reading{Unit: unit, Status: status, Source: source}
	}
	return Reading{
		RxPower: q(UnitPower), TxPower: q(UnitPower), Bias: q(UnitBias),
		Temperature: q(UnitTemperature), Voltage: q(UnitVoltage),
		Source: source,
	}
}

// Distrust turns every value of r into StatusUntrusted, keeping the raw text.
// Flags go too: they came by the same broken way.
func (r *Reading) Distrust() {
	all := []*collectors.Reading{&r.RxPower, &r.TxPower, &r.Bias, &r.Temperature, &r.Voltage}
	for i := range r.Lanes {
		all = append(all, &r.Lanes[i].RxPower, &r.Lanes[i].TxPower, &r.Lanes[i].Bias)
	}
	if len(r.Lanes) > 0 {
		r.RxPower.Status = collectors.StatusUntrusted
	}
	for _, q := range all {
		if q.Status == collectors.StatusOK || q.Status == collectors.StatusNoLight {
			q.Status, q.Value = collectors.StatusUntrusted, 0
		}
	}
	r.Alarms, r.AlarmsKnown = nil, false
	r.Warnings, r.WarningsKnown = nil, false
	r.RxLOS, r.RxLOSKnown = false, false
}
