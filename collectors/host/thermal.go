package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ontagent/collectors"
)

// What a thermal zone may say to be believed, in thousandths of a degree. Below
// one degree either way it is no value: drivers say 0 for none, and some vendor
// kernels whole degrees where the interface asks for thousandths.
const (
	coldest      = -40_000
	hottest      = 150_000
	nearestToNil = 1_000
)

// maxZones bounds how many zones are looked at.
const maxZones = 64

// temperature returns the hottest thermal zone. Its source is the directory and
// the type, its raw value what the kernel said. No zone at all is no error but
// StatusUnsupported; zones of which none gives a value that can be believed are
// StatusError, or StatusUntrusted if they gave any.
func (c *Collector) temperature() (collectors.Reading, error) {
	r := collectors.Reading{Unit: "Cel", Status: collectors.StatusUnsupported, Source: "sysfs:thermal"}
	dir := filepath.Join(c.sys, "class/thermal")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		r.Status = collectors.StatusError
		return r, err
	}
	var errs []error
	best := 0
	zones := 0
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "thermal_zone") || zones == maxZones {
			continue
		}
		zones++
		zone := filepath.Join(dir, e.Name())
		raw, err := readSmall(filepath.Join(zone, "temp"))
		if err != nil { // a zone that is switched off, a sensor that is busy
			errs = append(errs, err)
			continue
		}
		milli, err := strconv.Atoi(raw)
		if err == nil && (milli < coldest || milli > hottest || milli > -nearestToNil && milli < nearestToNil) {
			err = errors.New("no temperature")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %q: %w", e.Name(), raw, err))
			if r.Status != collectors.StatusOK {
				r.Status, r.Raw = collectors.StatusUntrusted, raw
			}
			continue
		}
		if r.Status == collectors.StatusOK && milli <= best {
			continue
		}
		best = milli
		source := e.Name()
		if kind, err := readSmall(filepath.Join(zone, "type")); err == nil && kind != "" {
			source += ":" + kind
		}
		r = collectors.Reading{
			Value: float64(milli) / 1000, Unit: "Cel", Status: collectors.StatusOK, Source: source, Raw: raw,
		}
	}
	switch {
	case zones == 0 || r.Status == collectors.StatusOK:
		// One zone is enough; others are switched off on many boards.
		for _, err := range errs {
			c.log.Debug("cannot use thermal zone", "error", err)
		}
		return r, nil
	case r.Status != collectors.StatusUntrusted:
		r.Status = collectors.StatusError
	}
	return r, errors.Join(errs...)
}
