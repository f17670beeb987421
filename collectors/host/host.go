// Package host reads the gateway itself: processor, load, memory, flash,
// temperature, and what this process takes of them.
//
// Processor, memory and file system come through gopsutil, of which only those
// packages are used: host and process would add 0.4 MB to the binary for what
// three small files of /proc say as well, and load answers for another machine
// where the file it was pointed at is broken. gopsutil reads thermal zones only
// where there is no hwmon device, and an SFP cage is one, so temperatures are
// read here from sysfs. The temperature of optics is not this package's.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/disk"
	"github.com/shirou/gopsutil/v3/mem"
	"golang.org/x/sys/unix"

	"ontagent/collectors"
)

// Name is the collector's name.
const Name = "host"

// sampleTime is how long Read watches the processor, minSample the shortest
// time that gives a figure: the kernel counts in ticks of 10 ms.
const (
	sampleTime = 500 * time.Millisecond
	minSample  = 100 * time.Millisecond
)

// Options configure a Collector. The zero value works.
type Options struct {
	// ProcRoot and SysRoot are where proc and sysfs are mounted; empty means
	// /proc and /sys.
	ProcRoot, SysRoot string
	// DiskPath is a path on the file system to report; empty means /, which on
	// OpenWrt is the overlay.
	DiskPath string
	// Log takes what is worth knowing beside errors; nil discards it.
	Log *slog.Logger
}

// Collector reads the machine it runs on.
type Collector struct {
	proc, sys, disk string
	log             *slog.Logger
	// wait is how Read passes time; tests pass it otherwise.
	wait func(ctx context.Context, d time.Duration) error

	mu       sync.Mutex // guards previous
	previous []cpu.TimesStat
}

var _ collectors.Collector = (*Collector)(nil)

// Facts are what Read finds. Ratios are between 0 and 1 and have the unit "1".
type Facts struct {
	// CPUBusy is the share of all cores that was busy while Read watched,
	// CPUMaxCoreBusy that of the busiest core, which its Source names. Work in
	// interrupts counts as busy, waiting for a disk does not.
	CPUBusy, CPUMaxCoreBusy collectors.Reading
	// Cores that are running; 0 if unknown.
	Cores int
	// Load averages over 1, 5 and 15 minutes, in tasks.
	Load1, Load5, Load15 collectors.Reading
	// MemUsed is what is neither free nor can be freed, over the total.
	MemUsed                          collectors.Reading
	MemTotalBytes, MemAvailableBytes uint64 // 0 unless MemUsed is OK
	// DiskUsed is of the file system at DiskPath.
	DiskUsed                      collectors.Reading
	DiskPath                      string
	DiskTotalBytes, DiskFreeBytes uint64 // 0 unless DiskUsed is OK
	// Temperature is that of the hottest thermal zone, in degrees Celsius
	// ("Cel"); StatusUnsupported if there is no zone.
	Temperature collectors.Reading
}

// New returns a Collector.
func New(o Options) *Collector {
	c := &Collector{proc: o.ProcRoot, sys: o.SysRoot, disk: o.DiskPath, log: o.Log, wait: wait}
	if c.proc == "" {
		c.proc = "/proc"
	}
	if c.sys == "" {
		c.sys = "/sys"
	}
	if c.disk == "" {
		c.disk = "/"
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Name implements collectors.Collector.
func (c *Collector) Name() string { return Name }

// Collect implements collectors.Collector: one sample of the gateway. The
// processor's figures are of the time since the Collect before; the first has
// none. What cannot be read is left out and named in the error.
func (c *Collector) Collect(ctx context.Context) ([]collectors.Sample, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now, cpuErr := c.times(ctx)
	c.mu.Lock()
	use, ok := usageBetween(c.previous, now)
	if cpuErr == nil && (ok || c.previous == nil) {
		c.previous = now
	}
	c.mu.Unlock()

	var fields []collectors.Field
	add := func(key string, value any) { fields = append(fields, collectors.F(key, value)) }
	addReading := func(key string, r collectors.Reading) {
		if r.OK() {
			add(key, r.Value)
		}
	}
	if ok {
		add("cpu_busy_ratio", round(use.all, 1e4))
		add("cpu_max_core_busy_ratio", round(use.core, 1e4))
	}
	f, err := c.rest(ctx)
	addReading("load1", f.Load1)
	addReading("load5", f.Load5)
	addReading("load15", f.Load15)
	if f.MemUsed.OK() {
		add("mem_total_bytes", f.MemTotalBytes)
		add("mem_available_bytes", f.MemAvailableBytes)
		add("mem_used_ratio", round(f.MemUsed.Value, 1e4))
	}
	if f.DiskUsed.OK() {
		add("disk_total_bytes", f.DiskTotalBytes)
		add("disk_free_bytes", f.DiskFreeBytes)
		add("disk_used_ratio", round(f.DiskUsed.Value, 1e4))
	}
	if f.Temperature.OK() {
		add("temperature_celsius", f.Temperature.Value)
		add("temperature_zone", f.Temperature.Source)
	}
	own, ownErr := c.self()
	fields = append(fields, own...)
	return []collectors.Sample{{Fields: fields}}, errors.Join(cpuErr, err, ownErr)
}

// Read reads everything at once, for a judgement now: it watches the processor
// for half a second. What cannot be read has StatusError and is named in the
// error; if ctx ends before the half second has, that is the processor.
func (c *Collector) Read(ctx context.Context) (Facts, error) {
	before, cpuErr := c.times(ctx)
	if cpuErr == nil {
		if err := c.wait(ctx, sampleTime); err != nil {
			cpuErr = fmt.Errorf("cannot watch the processor: %w", err)
		}
	}
	var use usage
	var cores int
	if cpuErr == nil {
		var after []cpu.TimesStat
		if after, cpuErr = c.times(ctx); cpuErr == nil {
			cores = len(after)
			var ok bool
			if use, ok = usageBetween(before, after); !ok {
				cpuErr = errors.New("cannot watch the processor: its counters stand still")
			}
		}
	}
	f, err := c.rest(ctx)
	const source = "proc:stat"
	f.CPUBusy = reading(use.all, source, cpuErr)
	f.CPUMaxCoreBusy = reading(use.core, source, cpuErr)
	if cpuErr == nil {
		f.Cores = cores
		f.CPUMaxCoreBusy.Source = source + ":" + use.name
	}
	return f, errors.Join(cpuErr, err)
}

// rest reads everything but the processor.
func (c *Collector) rest(ctx context.Context) (Facts, error) {
	ctx = c.env(ctx)
	f := Facts{DiskPath: c.disk}
	var errs []error
	fail := func(what string, err error) error {
		if err != nil {
			err = fmt.Errorf("cannot read %s: %w", what, err)
			errs = append(errs, err)
		}
		return err
	}

	avg, err := c.load()
	err = fail("load", err)
	f.Load1 = reading(avg[0], "proc:loadavg", err)
	f.Load5 = reading(avg[1], "proc:loadavg", err)
	f.Load15 = reading(avg[2], "proc:loadavg", err)

	vm, err := mem.VirtualMemoryWithContext(ctx)
	if err == nil && (vm.Total == 0 || vm.Available > vm.Total) {
		err = errors.New("no total in meminfo") // gopsutil takes a missing file for an empty machine
	}
	err = fail("memory", err)
	var used float64
	if err == nil {
		f.MemTotalBytes, f.MemAvailableBytes = vm.Total, vm.Available
		used = 1 - float64(vm.Available)/float64(vm.Total)
	}
	f.MemUsed = reading(used, "proc:meminfo", err)

	du, err := disk.UsageWithContext(ctx, c.disk)
	if err == nil && du.Total == 0 {
		err = errors.New("a file system without size")
	}
	err = fail("file system at "+c.disk, err)
	used = 0
	if err == nil {
		f.DiskTotalBytes, f.DiskFreeBytes = du.Total, du.Free
		used = du.UsedPercent / 100
	}
	f.DiskUsed = reading(used, "statfs:"+c.disk, err)

	f.Temperature, err = c.temperature()
	_ = fail("temperature", err)
	return f, errors.Join(errs...)
}

// env leads gopsutil to the collector's roots.
func (c *Collector) env(ctx context.Context) context.Context {
	return context.WithValue(ctx, common.EnvKey, common.EnvMap{
		common.HostProcEnvKey: c.proc,
		common.HostSysEnvKey:  c.sys,
	})
}

// reading makes a Reading of a dimensionless value, or of the error.
func reading(v float64, source string, err error) collectors.Reading {
	r := collectors.Reading{Value: v, Unit: "1", Status: collectors.StatusOK, Source: source}
	if err != nil {
		r.Value, r.Status = 0, collectors.StatusError
	}
	return r
}

// times returns what each running core did since boot.
func (c *Collector) times(ctx context.Context) ([]cpu.TimesStat, error) {
	t, err := cpu.TimesWithContext(c.env(ctx), true)
	if err == nil && len(t) == 0 {
		err = errors.New("no core in stat") // gopsutil's answer to a missing file
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read processor times: %w", err)
	}
	return t, nil
}

// usage is how busy the processor was.
type usage struct {
	all  float64 // share of all cores
	core float64 // share of the busiest
	name string  // of the busiest
}

// usageBetween compares two readings core by core: cores that came or went in
// between don't count. It returns false if less than minSample passed.
func usageBetween(before, after []cpu.TimesStat) (usage, bool) {
	was := make(map[string]cpu.TimesStat, len(before))
	for _, t := range before {
		was[t.CPU] = t
	}
	var u usage
	var allBusy, all, longest float64
	for _, t := range after {
		b, ok := was[t.CPU]
		if !ok {
			continue
		}
		// Idle and waiting times may step back a little when a core wakes.
		// Guest time is in user time already.
		busy := max(t.User-b.User, 0) + max(t.Nice-b.Nice, 0) + max(t.System-b.System, 0) +
			max(t.Irq-b.Irq, 0) + max(t.Softirq-b.Softirq, 0) + max(t.Steal-b.Steal, 0)
		total := busy + max(t.Idle-b.Idle, 0) + max(t.Iowait-b.Iowait, 0)
		if total <= 0 {
			continue
		}
		allBusy, all, longest = allBusy+busy, all+total, max(longest, total)
		if r := busy / total; r >= u.core {
			u.core, u.name = r, t.CPU
		}
	}
	// The ticks come as floating point seconds: half a tick of tolerance.
	if longest < minSample.Seconds()-0.005 {
		return usage{}, false
	}
	u.all = allBusy / all
	return u, true
}

// load returns the averages over 1, 5 and 15 minutes.
func (c *Collector) load() (averages [3]float64, err error) {
	b, err := readSmall(filepath.Join(c.proc, "loadavg"))
	if err != nil {
		return averages, err
	}
	f := strings.Fields(b)
	for i := range averages {
		if i >= len(f) {
			return [3]float64{}, fmt.Errorf("loadavg is %q", b)
		}
		v, err := strconv.ParseFloat(f[i], 64)
		if err != nil || !(v >= 0 && v < 1e6) {
			return [3]float64{}, fmt.Errorf("loadavg is %q", b)
		}
		averages[i] = v
	}
	return averages, nil
}

// self returns what this process takes.
func (c *Collector) self() ([]collectors.Field, error) {
	var fields []collectors.Field
	var errs []error
	b, err := readSmall(filepath.Join(c.proc, "self/statm"))
	if err == nil {
		var pages uint64
		if f := strings.Fields(b); len(f) > 1 {
			pages, err = strconv.ParseUint(f[1], 10, 48)
		} else {
			err = fmt.Errorf("statm is %q", b)
		}
		if err == nil {
			fields = append(fields, collectors.F("rss_bytes", pages*uint64(os.Getpagesize())))
		}
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("cannot read own memory: %w", err))
	}
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		errs = append(errs, fmt.Errorf("cannot read own processor time: %w", err))
	} else {
		spent := time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
		fields = append(fields, collectors.F("cpu_seconds_total", round(spent.Seconds(), 1e3)))
	}
	fields = append(fields, collectors.F("goroutines", int64(runtime.NumGoroutine())))
	if n, err := countEntries(filepath.Join(c.proc, "self/fd")); err != nil {
		errs = append(errs, fmt.Errorf("cannot count own files: %w", err))
	} else {
		fields = append(fields, collectors.F("open_fds", n))
	}
	return fields, errors.Join(errs...)
}

// countEntries counts the entries of a directory of descriptors, without the
// one that it takes to read it.
func countEntries(dir string) (int64, error) {
	d, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close() //nolint:errcheck // only read
	names, err := d.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	return max(int64(len(names))-1, 0), nil
}

// round cuts what is only noise.
func round(v, steps float64) float64 {
	return float64(int64(v*steps+0.5)) / steps
}

// readSmall returns a small file of proc or sysfs without the white space
// around it.
func readSmall(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read
	b := make([]byte, 256)
	n, err := f.Read(b)
	if n == 0 && err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return strings.TrimSpace(string(b[:n])), nil
}
