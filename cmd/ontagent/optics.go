package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"ontagent/agent/control"
	"ontagent/cmd/cli"
	"ontagent/collectors"
	"ontagent/collectors/optics"
	"ontagent/collectors/optics/console"
	"ontagent/collectors/optics/module"
	"ontagent/collectors/pon"
	"ontagent/config"
	"ontagent/transport/durable"
)

// opticsOptions judge light by what the configuration says of the line.
func opticsOptions(c config.Config, readers []optics.Reader, log *slog.Logger) optics.Options {
	o := optics.Options{
		Readers: readers, Log: log.With("collector", "optics"), Now: time.Now,
		RxMinDBm: optics.DefaultRxMinDBm, RxMaxDBm: optics.DefaultRxMaxDBm,
	}
	if v, ok := c.Thresholds["optical.rx_min_dbm"]; ok {
		o.RxMinDBm = v
	}
	if v, ok := c.Thresholds["optical.rx_max_dbm"]; ok {
		o.RxMaxDBm = v
	}
	if v, ok := c.Thresholds["optical.source_spread_max_db"]; ok {
		o.DisagreementDB = v
	}
	if class, ok := optics.ClassByName(c.WAN.OpticsClass); ok {
		o.Class = &class
	}
	return o
}

// baselineFile keeps the line's optical baseline on flash.
type baselineFile struct {
	fs   durable.FS
	path string
}

const maxBaseline = 16 << 10

func (f baselineFile) Load() ([]byte, error) {
	data, err := durable.ReadFile(f.fs, "baseline.read", f.path, maxBaseline)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func (f baselineFile) Save(data []byte) error {
	return durable.WriteFile(f.fs, "baseline.write", f.path, data, 0o600)
}

// opticsView is what one source says about the light.
type opticsView struct {
	Source        string  `json:"source"`
	Best          bool    `json:"best"` // the one that telemetry and acceptance go by
	RxPowerDBm    any     `json:"rx_power_dbm,omitempty"`
	RxPowerStatus string  `json:"rx_power_status"`
	RxPowerRaw    string  `json:"rx_power_raw,omitempty"`
	TxPowerDBm    any     `json:"tx_power_dbm,omitempty"`
	BiasMA        any     `json:"bias_ma,omitempty"`
	TemperatureC  any     `json:"temperature_celsius,omitempty"`
	VoltageV      any     `json:"voltage_v,omitempty"`
	Alarms        *string `json:"alarms,omitempty"` // absent: not known
	// Of modules with several lanes; LanesStatus is absent where some are lit.
	LanesStatus string           `json:"lanes_status,omitempty"`
	Lanes       []map[string]any `json:"lanes,omitempty"`
}

type opticsAnswer struct {
	Sources []opticsView `json:"sources"`
	Error   string       `json:"error,omitempty"`
	NoData  bool         `json:"no_data,omitempty"`
}

func (s *sources) readOptics(ctx context.Context) opticsAnswer {
	best, others, err := s.optics.Read(ctx)
	var out opticsAnswer
	if err != nil {
		out.Error, out.NoData = resultError(err), errors.Is(err, collectors.ErrNoData)
	}
	for i, r := range append([]optics.Reading{best}, others...) {
		if r.Source != "" {
			out.Sources = append(out.Sources, viewOf(r, i == 0))
		}
	}
	return out
}

func viewOf(r optics.Reading, best bool) opticsView {
	v := opticsView{Source: r.Source, Best: best, RxPowerStatus: string(r.RxPower.Status), RxPowerRaw: r.RxPower.Raw}
	for _, f := range []struct {
		to *any
		r  collectors.Reading
	}{{&v.RxPowerDBm, r.RxPower}, {&v.TxPowerDBm, r.TxPower}, {&v.BiasMA, r.Bias}, {&v.TemperatureC, r.Temperature}, {&v.VoltageV, r.Voltage}} {
		if f.r.OK() {
			*f.to = f.r.Value
		}
	}
	if r.AlarmsKnown {
		alarms := strings.Join(r.Alarms, ",")
		v.Alarms = &alarms
	}
	if v.Lanes = lanesOf(r); v.Lanes != nil {
		v.LanesStatus = string(r.LanesStatus())
	}
	return v
}

func (a *app) optics(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "decode":
			return a.opticsDecode(args[1:])
		case "parse":
			return a.opticsParse(args[1:])
		}
	}
	if _, err := a.parse("optics", args, 0); err != nil {
		return err
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	data, err := a.withSources(ctx, c, control.OpOptics, func(s *sources) any { return s.readOptics(ctx) })
	if err != nil {
		return err
	}
	var answer opticsAnswer
	if err := json.Unmarshal(data, &answer); err != nil {
		return fmt.Errorf("cannot read answer: %w", err)
	}
	if a.json {
		fmt.Fprintf(a.out, "%s\n", data)
	} else {
		printOptics(a, answer)
	}
	for _, s := range answer.Sources {
		if len(s.Lanes) > 0 && s.RxPowerStatus == string(collectors.StatusUnsupported) {
			return nil
		}
		if s.RxPowerStatus == string(collectors.StatusOK) || s.RxPowerStatus == string(collectors.StatusNoLight) {
			return nil
		}
	}
	return cli.Exit(cli.Inconclusive, "no source gave a reading")
}

func printOptics(a *app, answer opticsAnswer) {
	show := func(v any, unit string) string {
		if f, ok := v.(float64); ok {
			return fmt.Sprintf("%.2f %s", f, unit)
		}
		return "-"
	}
	for _, s := range answer.Sources {
		rx := s.RxPowerStatus
		if s.RxPowerDBm != nil {
			rx = show(s.RxPowerDBm, "dBm")
		}
		mark := " "
		if s.Best {
			mark = "*"
		}
		fmt.Fprintf(a.out, "%s %-18s rx %-12s tx %-10s bias %-9s temp %-9s vcc %s\n", mark, s.Source, rx,
			show(s.TxPowerDBm, "dBm"), show(s.BiasMA, "mA"), show(s.TemperatureC, "°C"), show(s.VoltageV, "V"))
		if s.RxPowerRaw != "" {
			fmt.Fprintf(a.out, "    raw %q\n", s.RxPowerRaw)
		}
		for i, lane := range s.Lanes {
			rx := fmt.Sprint(lane["rx_power_status"])
			if lane["rx_power_dbm"] != nil {
				rx = show(lane["rx_power_dbm"], "dBm")
			}
			fmt.Fprintf(a.out, "    lane %-2d rx %-12s tx %-10s bias %s\n", i+1, rx, show(lane["tx_power_dbm"], "dBm"), show(lane["bias_ma"], "mA"))
		}
		if s.Alarms != nil && *s.Alarms != "" {
			fmt.Fprintf(a.out, "    alarms %s\n", *s.Alarms)
		}
	}
	if answer.Error != "" {
		fmt.Fprintln(a.out, answer.Error)
	}
}

// Bounds of what decode and parse read: an image is 640 bytes, a capture of a
// whole evening less than this.
const (
	maxImage   = 64 << 10
	maxCapture = 4 << 20
)

// opticsDecode decodes the image of a module in a file.
func (a *app) opticsDecode(args []string) error {
	image, err := a.offline("optics decode", args, nil, maxImage)
	if err != nil {
		return err
	}
	info, r, err := module.DecodeImage(image, "file")
	if err != nil {
		return cli.Exit(cli.Usage, "%w", err)
	}
	var f facts
	f.text("vendor", info.Vendor)
	f.text("part_number", info.PartNumber)
	f.text("serial", info.SerialNo)
	if info.WavelengthNM != 0 {
		f.add("wavelength_nm", info.WavelengthNM)
	}
	f.add("ddm", info.DDM)
	f.text("calibration", string(info.Calibration))
	f.optics(r)
	f.flags("alarms", r.Alarms, r.AlarmsKnown)
	f.flags("warnings", r.Warnings, r.WarningsKnown)
	f.thresholds(r.Thresholds)
	// A module that says that it measures nothing was understood.
	usable := f.usable || r.RxPower.Status == collectors.StatusUnsupported && !info.DDM
	return a.printFacts(f, usable)
}

// opticsParse parses what a console printed, from a file.
func (a *app) opticsParse(args []string) error {
	driver := ""
	text, err := a.offline("optics parse", args, func(f *flag.FlagSet) {
		f.StringVar(&driver, "driver", "", "`NAME` of the console's family: "+strings.Join(console.Drivers(), ", "))
	}, maxCapture)
	if err != nil {
		return err
	}
	if driver == "" {
		return cli.Exit(cli.Usage, "optics parse: --driver is missing; one of %s", strings.Join(console.Drivers(), ", "))
	}
	c, err := console.Parse(driver, text)
	if err != nil {
		return cli.Exit(cli.Usage, "%w", err)
	}
	f := facts{list: []fact{{"driver", c.Driver}}}
	f.optics(c.Optics)
	if c.PON.Raw != "" {
		state := c.PON.State
		if state == "" {
			state = pon.Normalise(c.PON.Raw)
		}
		f.add("pon_state", state)
		f.add("pon_state_raw", c.PON.Raw)
		f.usable = true
	}
	alarms := append(slices.Clone(c.PON.Alarms), c.Optics.Alarms...)
	slices.Sort(alarms)
	f.flags("alarms", slices.Compact(alarms), c.Optics.AlarmsKnown || len(c.PON.AlarmsKnown) > 0)
	f.flags("warnings", c.Optics.Warnings, c.Optics.WarningsKnown)
	f.thresholds(c.Optics.Thresholds)
	if len(c.PON.Counters) > 0 {
		f.add("counters", c.PON.Counters)
		f.usable = true
	}
	if c.Session != "" {
		f.add("session", c.Session)
		f.usable = true
	}
	return a.printFacts(f, f.usable)
}

// offline parses the flags of a verb that needs neither daemon nor
// configuration, and reads the one file it takes; "-" is standard input. Flags
// may stand before and behind the file.
func (a *app) offline(name string, args []string, more func(*flag.FlagSet), limit int64) ([]byte, error) {
	set := flag.NewFlagSet("ontagent "+name, flag.ContinueOnError)
	set.SetOutput(io.Discard) // an error is told once, by run; help goes to out
	set.BoolVar(&a.json, "json", false, "print JSON")
	if more != nil {
		more(set)
	}
	var files []string
	for {
		if err := set.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				a.help(set)
				return nil, err
			}
			return nil, cli.Exit(cli.Usage, "%s: %w; `%s --help` lists the flags", name, err, set.Name())
		}
		if set.NArg() == 0 {
			break
		}
		files, args = append(files, set.Arg(0)), set.Args()[1:]
	}
	if len(files) != 1 {
		return nil, cli.Exit(cli.Usage, "%s takes one file, or - for standard input; got %d", name, len(files))
	}
	in := a.in
	if files[0] != "-" {
		file, err := os.Open(files[0])
		if err != nil {
			return nil, cli.Exit(cli.Usage, "cannot read input: %w", err)
		}
		defer file.Close() //nolint:errcheck // it was only read
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, cli.Exit(cli.Usage, "cannot read %s: %w", files[0], err)
	}
	if int64(len(data)) > limit {
		return nil, cli.Exit(cli.Usage, "%s is longer than %d bytes", files[0], limit)
	}
	return data, nil
}

// fact is one thing that decode or parse found. What was not found is no fact.
type fact struct {
	key   string
	value any
}

type facts struct {
	list   []fact
	usable bool // there is a reading or a state among them
}

func (f *facts) add(key string, value any) { f.list = append(f.list, fact{key, value}) }

func (f *facts) text(key, value string) {
	if value != "" {
		f.add(key, value)
	}
}

// optics adds the quantities that have a value, the status of the received
// power, and the lanes.
func (f *facts) optics(r optics.Reading) {
	quantity := func(key string, q collectors.Reading) {
		if q.OK() {
			f.add(key, sixDecimals(q.Value))
			f.usable = true
		}
	}
	quantity("rx_power_dbm", r.RxPower)
	status := r.LanesStatus()
	f.text("rx_power_status", string(status))
	f.usable = f.usable || status == collectors.StatusNoLight
	quantity("tx_power_dbm", r.TxPower)
	quantity("bias_ma", r.Bias)
	quantity("temperature_c", r.Temperature)
	quantity("voltage_v", r.Voltage)
	if lanes := lanesOf(r); lanes != nil {
		f.add("lanes", lanes)
		for _, l := range r.Lanes {
			f.usable = f.usable || l.RxPower.OK() || l.RxPower.Status == collectors.StatusNoLight
		}
	}
}

// lanesOf are the lanes of a module that has several, else nil.
func lanesOf(r optics.Reading) []map[string]any {
	var lanes []map[string]any
	for _, l := range r.Lanes {
		lane := map[string]any{"rx_power_status": l.RxPower.Status}
		for key, q := range map[string]collectors.Reading{"rx_power_dbm": l.RxPower, "tx_power_dbm": l.TxPower, "bias_ma": l.Bias} {
			if q.OK() {
				lane[key] = sixDecimals(q.Value)
			}
		}
		lanes = append(lanes, lane)
	}
	return lanes
}

func (f *facts) flags(key string, active []string, known bool) {
	if known {
		f.add(key, append([]string{}, active...))
		f.usable = true
	}
}

func (f *facts) thresholds(t *optics.Thresholds) {
	if t == nil {
		return
	}
	limits := func(l optics.Limits) map[string]any {
		one := func(l optics.Limit) any {
			if !l.Known {
				return nil
			}
			return sixDecimals(l.Value)
		}
		return map[string]any{
			"alarm_high": one(l.AlarmHigh), "alarm_low": one(l.AlarmLow), "warn_high": one(l.WarnHigh), "warn_low": one(l.WarnLow),
		}
	}
	f.add("thresholds", map[string]map[string]any{
		"rx_power_dbm": limits(t.RxPower), "tx_power_dbm": limits(t.TxPower), "temperature_c": limits(t.Temperature),
		"voltage_v": limits(t.Voltage), "bias_ma": limits(t.Bias),
	})
}

// sixDecimals is more than any source resolves, and free of the noise of
// binary fractions.
func sixDecimals(v float64) float64 { return math.Round(v*1e6) / 1e6 }

// printFacts prints what was found, and says by the exit code whether there is
// anything to go by.
func (a *app) printFacts(f facts, usable bool) error {
	if a.json {
		object := make(map[string]any, len(f.list))
		for _, x := range f.list {
			object[x.key] = x.value
		}
		data, err := json.MarshalIndent(object, "", "  ")
		if err != nil {
			return fmt.Errorf("cannot encode: %w", err)
		}
		fmt.Fprintf(a.out, "%s\n", data)
	} else {
		for _, x := range f.list {
			a.printFact(x)
		}
	}
	if !usable {
		return cli.Exit(cli.Usage, "neither a reading nor a state in it that could be used")
	}
	return nil
}

func (a *app) printFact(x fact) {
	line := func(key string, value any) { fmt.Fprintf(a.out, "%-36s %v\n", key, value) }
	switch v := x.value.(type) {
	case []string:
		line(x.key, cmp.Or(strings.Join(v, ", "), "none"))
	case []map[string]any:
		for i, m := range v {
			for _, key := range slices.Sorted(maps.Keys(m)) {
				line(fmt.Sprintf("lane %d %s", i+1, key), m[key])
			}
		}
	case map[string]uint64:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			line("counter "+key, v[key])
		}
	case map[string]map[string]any:
		for _, quantity := range slices.Sorted(maps.Keys(v)) {
			for _, side := range slices.Sorted(maps.Keys(v[quantity])) {
				if limit := v[quantity][side]; limit != nil {
					line("threshold "+quantity+" "+side, limit)
				}
			}
		}
	default:
		line(x.key, v)
	}
}
