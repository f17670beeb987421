package throughput

import "strings"

// ownGroups reads /proc/self/cgroup: the paths of this process's groups, of
// cgroup v2 and of v1's controller of processors with the names it is mounted
// under. A path that leads nowhere below the root is "".
func ownGroups(b []byte) (unified, v1 string, controllers []string) {
	for {
		line, rest, whole := procLine(b)
		if !whole {
			return unified, v1, controllers
		}
		b = rest
		// 0::/path or 4:cpu,cpuacct:/path
		_, after, ok := strings.Cut(string(line), ":")
		names, path, ok2 := strings.Cut(after, ":")
		if !ok || !ok2 || !strings.HasPrefix(path, "/") || strings.ContainsAny(names, "/\x00") {
			continue
		}
		switch {
		case names == "":
			unified = withinRoot(path)
		case strings.Contains(","+names+",", ",cpu,"):
			v1 = withinRoot(path)
			controllers = []string{names, "cpu"}
		}
	}
}

// withinRoot is a group's path if it is one below what is mounted. From inside
// a namespace, what lies outside begins with /..: nothing of it can be read.
func withinRoot(path string) string {
	if len(path) > 4096 || strings.Contains(path, "/..") || strings.ContainsRune(path, 0) {
		return "/"
	}
	return path
}

// parseThrottled finds in a cpu.stat for how many nanoseconds a quota has held
// the group back: throttled_usec of v2, throttled_time of v1.
func parseThrottled(b []byte) (ns uint64, ok bool) {
	for {
		line, rest, whole := procLine(b)
		if !whole {
			return 0, false
		}
		b = rest
		for _, key := range [...]struct {
			name string
			ns   uint64
		}{{"throttled_usec ", 1000}, {"throttled_time ", 1}} {
			if len(line) > len(key.name) && string(line[:len(key.name)]) == key.name {
				n, _, ok := procNumber(line[len(key.name):], 10)
				return n * key.ns, ok && n <= 1<<63/key.ns
			}
		}
	}
}

// parseQuota reads a cpu.max, "20000 100000": how many cores' time a group may
// take; !ok if there is no limit ("max 100000").
func parseQuota(b []byte) (cores float64, ok bool) {
	quota, b, ok := procNumber(b, 10)
	if !ok {
		return 0, false
	}
	period, _, ok := procNumber(b, 10)
	if !ok || quota == 0 || period == 0 {
		return 0, false
	}
	return float64(quota) / float64(period), true
}
