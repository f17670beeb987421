// Package hwmon reads the optical values that the kernel's sfp driver offers
// in sysfs.
//
// It is a second choice beside the module's EEPROM: power comes in whole
// microwatts. At -27 dBm the true 2.0 uW may read as 2 or, rounded, be off by
// a decibel, and below about 0.5 uW (-33 dBm) it reads 0: darkness here means
// "less than 0.5 uW". Received power is missing altogether for modules with
// external calibration.
package hwmon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ontagent/collectors"
	"ontagent/collectors/optics"
)

// resolutionMicrowatts is that of the kernel's power attributes: counts of
// 0.1 uW, rounded to whole ones.
const resolutionMicrowatts = 1

// Options configure a Reader.
type Options struct {
	// Chip is the name of the hwmon chip as sysfs shows it: "sfp1", "sfp_2".
	// Empty means the first that has the labels of the sfp driver.
	Chip string
	// Root is where sysfs is; empty means /sys.
	Root string
}

// Reader reads one chip. It holds nothing open and is safe for concurrent
// use.
type Reader struct {
	opts Options
}

var _ optics.Reader = (*Reader)(nil)

// New returns a Reader. It does not touch sysfs.
func New(opts Options) *Reader {
	if opts.Root == "" {
		opts.Root = "/sys"
	}
	return &Reader{opts: opts}
}

// Name is "hwmon:" and the chip.
func (r *Reader) Name() string {
	if r.opts.Chip == "" {
		return "hwmon"
	}
	return "hwmon:" + r.opts.Chip
}

// ReadOptics reads once. The chip is looked for anew each time, because the
// number of its directory changes when a module is plugged in. The error is
// compatible with collectors.ErrNoData if there is no such chip.
func (r *Reader) ReadOptics(ctx context.Context) (optics.Reading, error) {
	if err := ctx.Err(); err != nil {
		return optics.Reading{}, fmt.Errorf("cannot read hwmon: %w", err)
	}
	dir, chip, err := r.find()
	if err != nil {
		return optics.Reading{}, err
	}
	d := device{dir: dir, source: "hwmon:" + chip}
	out := optics.Unread(d.source, collectors.StatusUnsupported)
	out.Temperature = d.quantity("temp1", optics.UnitTemperature, 1e-3, " m°C")
	out.Voltage = d.quantity("in0", optics.UnitVoltage, 1e-3, " mV")
	out.Bias = d.quantity("curr1", optics.UnitBias, 1, " mA")
	out.TxPower = d.power("power1")
	out.RxPower = d.power("power2")
	out.Alarms, out.AlarmsKnown = d.flags("lcrit_alarm", "crit_alarm")
	out.Warnings, out.WarningsKnown = d.flags("min_alarm", "max_alarm")
	out.Thresholds = d.thresholds()
	out.ResolutionMicrowatts = resolutionMicrowatts
	if out.Voltage.OK() && out.Voltage.Value == 0 {
		out.Distrust() // a module that answers has a supply: a broken read
	}
	if d.err != nil {
		return out, fmt.Errorf("cannot read hwmon chip %s: %w", chip, d.err)
	}
	return out, nil
}

// find looks for the chip.
func (r *Reader) find() (dir, chip string, err error) {
	class := filepath.Join(r.opts.Root, "class", "hwmon")
	entries, err := os.ReadDir(class)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", "", fmt.Errorf("no hwmon in sysfs: %w", collectors.ErrNoData)
	case err != nil:
		return "", "", fmt.Errorf("cannot list hwmon chips: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		name := readText(filepath.Join(dir, "name"))
		switch {
		case name == "":
		case r.opts.Chip != "":
			if name == r.opts.Chip {
				return dir, name, nil
			}
		case readText(filepath.Join(dir, "power1_label")) == "TX_power" && readText(filepath.Join(dir, "in0_label")) == "VCC":
			return dir, name, nil
		}
	}
	if r.opts.Chip != "" {
		return "", "", fmt.Errorf("no hwmon chip %q: %w", r.opts.Chip, collectors.ErrNoData)
	}
	return "", "", fmt.Errorf("no hwmon chip of an optical module: %w", collectors.ErrNoData)
}

// readText returns the first line of a file, "" if there is none.
func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	text, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(text)
}

// device reads the attributes of one chip and keeps its first error.
type device struct {
	dir, source string
	err         error
}

// read returns an integer attribute; ok is false if it does not exist, or if
// it could not be read, which is kept in d.err.
func (d *device) read(attr string) (v int64, status collectors.Status) {
	b, err := os.ReadFile(filepath.Join(d.dir, attr))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		return 0, collectors.StatusUnsupported
	case err != nil:
		d.fail(err)
		return 0, collectors.StatusError
	}
	v, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		d.fail(fmt.Errorf("%s is not a number: %w", attr, err))
		return 0, collectors.StatusError
	}
	return v, collectors.StatusOK
}

func (d *device) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// quantity reads <name>_input times scale.
func (d *device) quantity(name, unit string, scale float64, rawUnit string) collectors.Reading {
	v, status := d.read(name + "_input")
	r := collectors.Reading{Unit: unit, Status: status, Source: d.source}
	if status == collectors.StatusOK {
		r.Value = float64(v) * scale
		r.Raw = strconv.FormatInt(v, 10) + rawUnit
	}
	return r
}

// power reads a power in microwatts.
func (d *device) power(name string) collectors.Reading {
	v, status := d.read(name + "_input")
	r := collectors.Reading{Unit: optics.UnitPower, Status: status, Source: d.source}
	if status != collectors.StatusOK {
		return r
	}
	r.Raw = strconv.FormatInt(v, 10) + " uW"
	switch {
	case v < 0:
		r.Status = collectors.StatusUntrusted
	case v == 0:
		r.Status = collectors.StatusNoLight
	default:
		r.Value = dBm(v)
	}
	return r
}

// dBm converts microwatts.
func dBm(microwatts int64) float64 { return 10 * math.Log10(float64(microwatts)/1000) }

// flags reads the low and high flags of all quantities; known is false if one
// of them is missing.
func (d *device) flags(low, high string) (active []string, known bool) {
	known = true
	for _, q := range []struct{ attr, name string }{
		{"temp1", "temperature"}, {"in0", "voltage"}, {"curr1", "bias"}, {"power1", "tx"}, {"power2", "rx"},
	} {
		for _, side := range []struct{ attr, name string }{{low, "low"}, {high, "high"}} {
			v, status := d.read(q.attr + "_" + side.attr)
			if status != collectors.StatusOK {
				known = false
				continue
			}
			if v != 0 {
				active = append(active, q.name+"_"+side.name)
			}
		}
	}
	if !known {
		return nil, false
	}
	sort.Strings(active)
	return active, true
}

// thresholds reads the limits; nil if there is none at all.
func (d *device) thresholds() *optics.Thresholds {
	any := false
	limit := func(attr string, scale float64, power bool) optics.Limit {
		v, status := d.read(attr)
		if status != collectors.StatusOK {
			return optics.Limit{}
		}
		any = any || v != 0
		if power {
			if v <= 0 {
				return optics.Limit{}
			}
			return optics.Limit{Value: dBm(v), Known: true}
		}
		return optics.Limit{Value: float64(v) * scale, Known: true}
	}
	limits := func(name string, scale float64, power bool) optics.Limits {
		return optics.Limits{
			AlarmHigh: limit(name+"_crit", scale, power), AlarmLow: limit(name+"_lcrit", scale, power),
			WarnHigh: limit(name+"_max", scale, power), WarnLow: limit(name+"_min", scale, power),
		}
	}
	t := &optics.Thresholds{
		Temperature: limits("temp1", 1e-3, false),
		Voltage:     limits("in0", 1e-3, false),
		Bias:        limits("curr1", 1, false),
		TxPower:     limits("power1", 0, true),
		RxPower:     limits("power2", 0, true),
	}
	if !any {
		return nil
	}
	return t
}
