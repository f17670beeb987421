package throughput

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// device watches what this device, and this process on it, have left while a
// window lasts. Everything it reads may be missing; what is, stays unknown. It
// is not for concurrent use.
//
// In a container /proc/stat may be the whole machine's and the groups' files
// hidden. So a process that is held back must not show in one place only: there
// are the quota's own counters, the scheduler's (time spent ready but not
// running), this process's time against the quota, how often it could not run
// when it meant to, and what the engine adds: samples that come late, and
// sockets that are not emptied or filled.
type device struct {
	proc, cgroup string
	now          func() time.Time

	stat        *os.File
	buf         []byte
	began, last time.Time
	first       [maxCores]coreReading // at begin
	seen        [maxCores]coreReading // when the second in progress began
	peak        float64               // -1: no second was long enough yet

	softnet map[int]softnet
	counted bool // softnet's lines name their cores
	cpu     time.Duration
	haveCPU bool
	waited  map[int]uint64 // by thread
	groups  []group
	pulse   *pulse // from begin to end
}

// coreReading is a core's times at a sample.
type coreReading struct {
	coreTimes
	at    time.Time
	known bool
}

// group is a level of cgroups above this process, and what it had at begin.
type group struct {
	dir       string
	throttled uint64
}

// peakTime is the shortest time that is looked at for a busiest second: the
// kernel counts in ticks of 10 ms, and a sample may come soon after a late one.
const peakTime = 700 * time.Millisecond

// statBytes is what is read of /proc/stat: the lines of 64 cores of 64-bit
// counters. Long lines about interrupts follow.
const statBytes = 8 << 10

// newDevice returns a device that reads below the roots of proc and of the
// cgroups; /proc and /sys/fs/cgroup if empty.
func newDevice(procRoot, cgroupRoot string) *device {
	if procRoot == "" {
		procRoot = "/proc"
	}
	if cgroupRoot == "" {
		cgroupRoot = "/sys/fs/cgroup"
	}
	return &device{proc: procRoot, cgroup: filepath.Clean(cgroupRoot), now: time.Now, buf: make([]byte, statBytes), peak: -1}
}

// begin starts a window. What it starts ends with end, which must follow.
func (d *device) begin() {
	d.close()
	d.stat, _ = os.Open(filepath.Join(d.proc, "stat"))
	d.peak = -1
	d.groups = d.findGroups()
	d.softnet, d.counted = d.readSoftnet()
	d.waited = d.readWaited()
	d.cpu, d.haveCPU = ownTime()
	d.began = d.now()
	d.last = d.began
	d.first, d.seen = [maxCores]coreReading{}, [maxCores]coreReading{}
	d.readCores(func(core int, t coreTimes) {
		d.first[core] = coreReading{coreTimes: t, at: d.began, known: true}
	})
	d.seen = d.first
	d.pulse = startPulse()
}

// sample looks at the cores: called about once a second, it finds the busiest
// one in its busiest second.
func (d *device) sample() {
	now := d.now()
	if now.Sub(d.last) < peakTime {
		return
	}
	d.last = now
	d.readCores(func(core int, t coreTimes) { d.compare(core, t, now) })
}

// compare takes a core's times at a sample.
func (d *device) compare(core int, t coreTimes, now time.Time) {
	was := d.seen[core]
	d.seen[core] = coreReading{coreTimes: t, at: now, known: true}
	if !d.first[core].known {
		d.first[core] = d.seen[core] // it came only now
	}
	if busy, _, ok := busyRatio(was, d.seen[core]); ok && busy > d.peak {
		d.peak = busy
	}
}

// busyRatio is how busy a core was between two samples, and what software
// interrupts had of it; !ok if that cannot be told.
//
// Time that the counters lack has been used, too: an interrupt may keep a tick
// from being counted, and short work between ticks never meets one, while a core
// without ticks (NO_HZ) measures its idle time by the clock.
func busyRatio(a, b coreReading) (busy, soft float64, ok bool) {
	if !a.known || !b.known || b.busy < a.busy || b.idle < a.idle {
		return 0, 0, false // iowait may run backwards; so may a core that was away
	}
	wall := b.at.Sub(a.at).Seconds() * 100
	used, idle := float64(b.busy-a.busy), float64(b.idle-a.idle)
	if wall < 1 || used+idle < wall/2 {
		return 0, 0, false // it was not there
	}
	busy = used / (used + idle)
	if missing := 1 - idle/wall; missing > busy && used+idle < wall*1.1 {
		busy = missing
	}
	if b.softirq >= a.softirq {
		soft = min(float64(b.softirq-a.softirq)/(used+idle), busy)
	}
	return busy, soft, true
}

// end returns what was found since begin.
func (d *device) end() Conditions {
	var c Conditions
	now := d.now()
	wall := now.Sub(d.began)
	d.readCores(func(core int, t coreTimes) {
		if now.Sub(d.last) >= peakTime {
			d.compare(core, t, now)
		} else if d.first[core].known {
			d.seen[core] = coreReading{coreTimes: t, at: now, known: true}
		}
	})
	if d.pulse != nil {
		c.LateRatio = d.pulse.end()
		d.pulse = nil
	}
	d.close()
	for core := range d.first {
		busy, soft, ok := busyRatio(d.first[core], d.seen[core])
		if !ok {
			continue
		}
		c.Cores = append(c.Cores, busy)
		c.SoftIRQ = append(c.SoftIRQ, soft)
		d.peak = max(d.peak, busy)
	}
	if d.peak >= 0 {
		peak := d.peak
		c.PeakCore = &peak
	}
	if lines, counted := d.readSoftnet(); counted == d.counted && (counted || len(lines) == len(d.softnet)) {
		for core, s := range lines {
			was, ok := d.softnet[core]
			if !ok {
				continue
			}
			c.SoftnetDropped += uint64(s.dropped - was.dropped) // they wrap
			c.SoftnetSqueezed += uint64(s.squeezed - was.squeezed)
		}
	}
	if wall <= 0 {
		return c
	}
	if cpu, ok := ownTime(); ok && d.haveCPU {
		c.ProcessBusy = partOf(cpu-d.cpu, wall)
	}
	if waited := d.readWaited(); waited != nil && d.waited != nil {
		var ns uint64
		for tid, n := range waited {
			if was := d.waited[tid]; n > was {
				ns += n - was
			}
		}
		c.ProcessWaited = partOf(time.Duration(min(ns, 1<<62)), wall)
	}
	for _, g := range d.groups {
		if ns, ok := parseThrottled(readSmall(filepath.Join(g.dir, "cpu.stat"))); ok && ns >= g.throttled {
			// Time of all cores: where several were held back it counts twice.
			r := partOf(time.Duration(min(ns-g.throttled, uint64(wall))), wall)
			if c.Throttled == nil || *r > *c.Throttled {
				c.Throttled = r
			}
		}
		if cores, ok := readQuota(g.dir); ok && (c.QuotaCores == nil || cores < *c.QuotaCores) {
			c.QuotaCores = &cores
		}
	}
	return c
}

// close gives back what begin took, if end has not.
func (d *device) close() {
	if d.pulse != nil {
		_ = d.pulse.end()
		d.pulse = nil
	}
	if d.stat != nil {
		_ = d.stat.Close() // it was only read
		d.stat = nil
	}
}

func (d *device) readCores(f func(core int, t coreTimes)) {
	if d.stat == nil {
		return
	}
	n, _ := d.stat.ReadAt(d.buf, 0) // of what is cut off only whole lines count
	parseStat(d.buf[:n], f)
}

func (d *device) readSoftnet() (lines map[int]softnet, counted bool) {
	lines = make(map[int]softnet)
	parseSoftnet(readSmall(filepath.Join(d.proc, "net", "softnet_stat")), func(core int, sure bool, s softnet) {
		lines[core] = s
		counted = sure
	})
	return lines, counted
}

// readWaited returns how long each thread of this process has waited for a core
// so far, in nanoseconds; nil if the kernel does not count it.
func (d *device) readWaited() map[int]uint64 {
	dir, err := os.Open(filepath.Join(d.proc, "self", "task"))
	if err != nil {
		return nil
	}
	names, _ := dir.Readdirnames(1024) // what comes so far
	_ = dir.Close()
	waited := make(map[int]uint64, len(names))
	counts := false
	for _, name := range names {
		tid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if ns, turns, ok := parseSchedstat(readSmall(filepath.Join(d.proc, "self", "task", name, "schedstat"))); ok {
			waited[tid] = ns
			counts = counts || turns > 0 // all is 0 where only the file exists
		}
	}
	if !counts {
		return nil
	}
	return waited
}

// findGroups returns this process's own group and all above it that can be
// seen: a quota of any of them binds.
func (d *device) findGroups() []group {
	unified, v1, controllers := ownGroups(readSmall(filepath.Join(d.proc, "self", "cgroup")))
	var groups []group
	for _, name := range controllers {
		groups = addGroups(groups, filepath.Join(d.cgroup, name), v1)
	}
	groups = addGroups(groups, filepath.Join(d.cgroup, "unified"), unified)
	return addGroups(groups, d.cgroup, unified)
}

// maxGroups bounds how many levels are looked at.
const maxGroups = 32

func addGroups(groups []group, root, path string) []group {
	for path != "" && len(groups) < maxGroups {
		dir := filepath.Join(root, path)
		if ns, ok := parseThrottled(readSmall(filepath.Join(dir, "cpu.stat"))); ok {
			groups = append(groups, group{dir: dir, throttled: ns})
		}
		path = path[:strings.LastIndexByte(path, '/')]
		if path == "" && dir != root {
			path = "/"
		}
	}
	return groups
}

// readQuota is how many cores' time a group allows; !ok: no limit that shows.
func readQuota(dir string) (cores float64, ok bool) {
	if cores, ok = parseQuota(readSmall(filepath.Join(dir, "cpu.max"))); ok {
		return cores, true
	}
	quota := readSmall(filepath.Join(dir, "cpu.cfs_quota_us")) // -1: none
	if len(quota) == 0 {
		return 0, false
	}
	quota[len(quota)-1] = ' '
	return parseQuota(append(quota, readSmall(filepath.Join(dir, "cpu.cfs_period_us"))...))
}

// readSmall is what the first read of a file gives, of at most 16 KiB; nil if
// there is none.
func readSmall(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	b := make([]byte, 16<<10)
	n, _ := f.Read(b)
	_ = f.Close() // it was only read
	return b[:n]
}

// ownTime is the time of processors that this process has used.
func ownTime() (time.Duration, bool) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0, false
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano()), true
}

// partOf is a part of a time.
func partOf(part, whole time.Duration) *float64 {
	r := max(part.Seconds()/whole.Seconds(), 0)
	return &r
}
