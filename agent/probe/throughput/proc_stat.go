package throughput

// coreTimes are a core's running totals from /proc/stat, in ticks of 1/100 s.
type coreTimes struct {
	busy    uint64 // all but idle and iowait; guests are part of user
	softirq uint64
	idle    uint64 // with iowait
}

// maxCores bounds what is kept of a machine's cores.
const maxCores = 64

// parseStat reads the cores' lines, which come first in /proc/stat, and tells f
// each. What is cut off at the end or cannot be read is left out: a core that is
// not there is not a core that was idle.
func parseStat(b []byte, f func(core int, t coreTimes)) {
	for {
		line, rest, whole := procLine(b)
		if !whole || len(line) < 4 || string(line[:3]) != "cpu" {
			return
		}
		b = rest
		if line[3] == ' ' {
			continue // all cores together
		}
		core, line, ok := procNumber(line[3:], 10)
		if !ok || core >= maxCores {
			continue
		}
		// user nice system idle iowait irq softirq steal guest guest_nice; kernels
		// before 2.6.11 end with softirq.
		var v [8]uint64
		n := 0
		for n < len(v) {
			if v[n], line, ok = procNumber(line, 10); !ok {
				break
			}
			n++
		}
		if n < 7 {
			continue
		}
		f(int(core), coreTimes{busy: v[0] + v[1] + v[2] + v[5] + v[6] + v[7], softirq: v[6], idle: v[3] + v[4]})
	}
}

// softnet are a core's running totals from /proc/net/softnet_stat.
type softnet struct{ dropped, squeezed uint32 }

// parseSoftnet tells f each line of /proc/net/softnet_stat and which core's it
// is. Kernels before 5.10 do not say: their lines stand in the order of the
// cores that are up, and sure is false.
func parseSoftnet(b []byte, f func(core int, sure bool, s softnet)) {
	for i := 0; ; i++ {
		line, rest, whole := procLine(b)
		if !whole {
			return
		}
		b = rest
		// processed dropped time_squeeze, 7 zeros and old counters, received_rps
		// flow_limit_count, backlog_len, cpu, and more.
		var v [13]uint64
		n := 0
		for n < len(v) {
			var ok bool
			if v[n], line, ok = procNumber(line, 16); !ok {
				break
			}
			n++
		}
		core, sure := i, n == len(v)
		if sure {
			core = int(v[12] & 0x7fffffff)
		}
		if n < 3 || core >= maxCores {
			continue
		}
		f(core, sure, softnet{dropped: uint32(v[1] & 0xffffffff), squeezed: uint32(v[2] & 0xffffffff)})
	}
}

// parseSchedstat reads a thread's schedstat: the time it ran and the time it
// was ready and did not, in nanoseconds, and how often it ran.
func parseSchedstat(b []byte) (waited, turns uint64, ok bool) {
	_, b, ok = procNumber(b, 10)
	if ok {
		waited, b, ok = procNumber(b, 10)
	}
	if ok {
		turns, _, ok = procNumber(b, 10)
	}
	return waited, turns, ok
}

// procLine splits b after its first line. whole says that the line had an end.
func procLine(b []byte) (line, rest []byte, whole bool) {
	for i, c := range b {
		if c == '\n' {
			return b[:i], b[i+1:], true
		}
	}
	return nil, nil, false
}

// procNumber reads an unsigned number, after blanks and up to the next, from b. A
// number that does not fit, or that something else is part of, is none.
func procNumber(b []byte, base uint64) (n uint64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && b[i] == ' ' {
		i++
	}
	start := i
	for ; i < len(b) && b[i] != ' ' && b[i] != '\n'; i++ {
		d := uint64(16)
		switch c := b[i]; {
		case '0' <= c && c <= '9':
			d = uint64(c - '0')
		case 'a' <= c && c <= 'f':
			d = uint64(c-'a') + 10
		}
		if d >= base || n > (1<<64-1-d)/base {
			return 0, b, false
		}
		n = n*base + d
	}
	return n, b[i:], i > start
}
