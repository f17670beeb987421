package module

import (
	"encoding/binary"
	"slices"

	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// Layout of CMIS; offsets are those of the standard, 0..127 in the lower half,
// 128..255 in the upper half of a page.
const (
	cmisLanes      = 8
	cmisFlatMemory = 0x80 // of byte 2: there is no page but 00h

	// What a poll reads of the lower half: flags, temperature, supply.
	cmisModuleOffset = 9
	cmisModuleLength = 9
	cmisTemperature  = 14
	cmisVoltage      = 16

	// Page 00h.
	cmisVendor   = 129
	cmisOUI      = 145
	cmisPart     = 148
	cmisRevision = 164
	cmisSerial   = 166
	cmisDate     = 182
	cmisNoLane   = 210 // a bit for each lane that does not exist
	cmisChecksum = 222

	// Page 01h: what is implemented.
	cmisWavelength   = 138 // 1/20 nm
	cmisMonitors     = 159
	cmisLaneMonitors = 160

	// What a poll reads of page 11h: flags, tx, bias, rx of eight lanes.
	cmisLanePage   = 0x11
	cmisLaneOffset = 139
	cmisLaneLength = 63
	cmisTx         = 154
	cmisBias       = 170
	cmisRx         = 186
)

// cmis is a module after the Common Management Interface Specification, as far
// as its monitors go. It was made from the specification; no real module was
// at hand.
type cmis struct {
	info       Info
	thresholds *optics.Thresholds
	lanes      []int // that exist, from 0
	page01     []byte
	biasScale  float64 // 0 means unknown
}

var _ device = (*cmis)(nil)

// cmisPageSound says whether the checksum of a page 01h or 02h, which begins
// at first, holds. A page without anything has none.
func cmisPageSound(page []byte, first int) bool {
	if len(page) < halfPage {
		return false
	}
	return !blank(page) && checksum(page[first-halfPage:halfPage-1]) == page[halfPage-1]
}

const (
	cmisSumFrom01 = 130 // the two bytes before are the firmware's version
	cmisSumFrom02 = 128
)

// decodeCMIS decodes the static part: the lower half, page 00h, and page 01h
// and 02h, which may be nil; with a wrong checksum they count for nothing.
func decodeCMIS(lower, page00, page01, page02 []byte) *cmis {
	at := func(offset, length int) []byte { return page00[offset-halfPage:][:length] }
	// A module that never set the checksum of its identity has no reason to be
	// doubted for it; there are such.
	sum := page00[cmisChecksum-halfPage]
	sound := (sum == 0 || checksum(at(128, 94)) == sum) && lower[0] == page00[0]
	m := &cmis{info: Info{
		Identifier: lower[0],
		Vendor:     text(at(cmisVendor, 16)), PartNumber: text(at(cmisPart, 16)), Revision: text(at(cmisRevision, 2)),
		SerialNo: text(at(cmisSerial, 16)), DateCode: text(at(cmisDate, 8)),
		OUI:    [3]byte(at(cmisOUI, 3)),
		BaseOK: sound, ExtendedOK: sound,
	}}
	if lower[2]&cmisFlatMemory == 0 {
		m.info.DDM, m.info.Calibration = true, CalibrationInternal
	}
	for i := range cmisLanes {
		if page00[cmisNoLane-halfPage]&(1<<i) == 0 {
			m.lanes = append(m.lanes, i)
		}
	}
	if cmisPageSound(page01, cmisSumFrom01) {
		m.page01 = page01
		m.info.Flags = true
		m.info.WavelengthNM = float64(binary.BigEndian.Uint16(page01[cmisWavelength-halfPage:])) / 20
		m.biasScale = [...]float64{1, 2, 4, 0}[page01[cmisLaneMonitors-halfPage]>>3&3]
	}
	if m.info.DDM && cmisPageSound(page02, cmisSumFrom02) {
		m.thresholds = pageThresholds(page02, pageLayout{
			temperature: 128, voltage: 136, tx: 176, bias: 184, rx: 192, biasScale: m.biasScale,
		})
	}
	return m
}

func (m *cmis) about() *Info { return &m.info }

func (m *cmis) sound() bool { return m.info.trusted() }

func (m *cmis) live() []place {
	if !m.info.DDM || !m.info.trusted() {
		return nil
	}
	return []place{
		{address: addressA0, offset: cmisModuleOffset, length: cmisModuleLength},
		{address: addressA0, page: cmisLanePage, offset: cmisLaneOffset, length: cmisLaneLength},
	}
}

func (*cmis) serialAt() place {
	return place{address: addressA0, offset: cmisSerial, length: serialLength}
}

// tells says whether page 01h promises a monitor or flag; where the page was
// not read, all monitors are believed to be there.
func (m *cmis) tells(offset int, bit byte) bool {
	return m.page01 == nil || m.page01[offset-halfPage]&bit != 0
}

// reading decodes the module's monitors and those of its lanes.
func (m *cmis) reading(parts [][]byte, source string) optics.Reading {
	var module, lanes []byte
	if len(parts) > 0 && len(parts[0]) >= cmisModuleLength {
		module = parts[0]
	}
	if len(parts) > 1 && len(parts[1]) >= cmisLaneLength {
		lanes = parts[1]
	}
	status := collectors.Status("")
	switch {
	case !m.info.trusted():
		status = collectors.StatusUntrusted
	case !m.info.DDM:
		status = collectors.StatusUnsupported
	case module == nil:
		status = collectors.StatusError
	}
	if status != "" {
		r := optics.Unread(source, status)
		r.Module = m.info.identity()
		return r
	}
	of := quantities(source)
	c := unity()
	out := optics.Unread(source, collectors.StatusUnsupported) // a single value there is not
	out.Thresholds, out.Module, out.ResolutionMicrowatts = m.thresholds, m.info.identity(), resolutionMicrowatts
	temperature := binary.BigEndian.Uint16(module[cmisTemperature-cmisModuleOffset:])
	vcc := binary.BigEndian.Uint16(module[cmisVoltage-cmisModuleOffset:])
	if m.tells(cmisMonitors, 0x01) {
		out.Temperature = of.quantity(optics.UnitTemperature, temperature, c.celsius(temperature))
	}
	if m.tells(cmisMonitors, 0x02) {
		out.Voltage = of.quantity(optics.UnitVoltage, vcc, c.volts(vcc))
	}
	if lanes == nil {
		for _, q := range []*collectors.Reading{&out.RxPower, &out.TxPower, &out.Bias} {
			q.Status = collectors.StatusError
		}
	} else {
		m.decodeLanes(&out, lanes, of)
		if m.page01 != nil {
			out.Alarms, out.Warnings = m.flags(module[0], lanes)
			out.AlarmsKnown, out.WarningsKnown = true, true
		}
	}
	if m.tells(cmisMonitors, 0x02) && vcc == 0 {
		out.Distrust()
	}
	return out
}

// decodeLanes decodes the monitors of page 11h. A module with one lane has
// single values like any other.
func (m *cmis) decodeLanes(out *optics.Reading, page []byte, of quantities) {
	u16 := func(offset, lane int) uint16 { return binary.BigEndian.Uint16(page[offset-cmisLaneOffset+2*lane:]) }
	c := unity()
	for _, i := range m.lanes {
		rx, tx, bias := u16(cmisRx, i), u16(cmisTx, i), u16(cmisBias, i)
		lane := optics.Lane{
			RxPower: of.absent(optics.UnitPower),
			TxPower: of.absent(optics.UnitPower),
			Bias:    of.absent(optics.UnitBias),
		}
		if m.tells(cmisLaneMonitors, 0x04) {
			lane.RxPower = of.power(rx, float64(rx))
		}
		if m.tells(cmisLaneMonitors, 0x02) {
			lane.TxPower = of.power(tx, float64(tx))
		}
		if m.biasScale > 0 && m.tells(cmisLaneMonitors, 0x01) {
			lane.Bias = of.quantity(optics.UnitBias, bias, c.milliamps(bias)*m.biasScale)
		}
		out.Lanes = append(out.Lanes, lane)
	}
	if len(out.Lanes) == 1 {
		out.RxPower, out.TxPower, out.Bias = out.Lanes[0].RxPower, out.Lanes[0].TxPower, out.Lanes[0].Bias
		out.Lanes = nil
	}
}

// flags names the flags of byte 9 and of page 11h 139..152 that page 01h says
// are implemented. A flag of any lane that exists counts.
func (m *cmis) flags(module byte, page []byte) (alarms, warnings []string) {
	var exists byte
	for _, i := range m.lanes {
		exists |= 1 << i
	}
	sides := []string{"_high", "_low", "_high", "_low"}
	to := []*[]string{&alarms, &alarms, &warnings, &warnings}
	for i := range sides {
		if module&(1<<i) != 0 && m.tells(cmisMonitors, 0x01) {
			*to[i] = append(*to[i], "temperature"+sides[i])
		}
		if module&(1<<(4+i)) != 0 && m.tells(cmisMonitors, 0x02) {
			*to[i] = append(*to[i], "voltage"+sides[i])
		}
		for _, q := range []struct {
			name    string
			offset  int
			monitor byte
		}{{"tx", 139, 0x02}, {"bias", 143, 0x01}, {"rx", 149, 0x04}} {
			if page[q.offset-cmisLaneOffset+i]&exists != 0 && m.tells(cmisLaneMonitors, q.monitor) {
				*to[i] = append(*to[i], q.name+sides[i])
			}
		}
	}
	slices.Sort(alarms)
	slices.Sort(warnings)
	return alarms, warnings
}
