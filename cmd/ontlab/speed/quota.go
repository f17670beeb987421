package speed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/cmd/ontlab/netbox"
)

// quotaPeriod is the kernel's default: a process that has used its part waits
// for the next period.
const quotaPeriod = 100 * time.Millisecond

// errNoQuota is found by errors.Is where this machine can't hold a process to a
// part of a core.
var errNoQuota = errors.New("no cgroup controls the processor here")

// quota is a cgroup that holds whom it is given to a part of a core.
type quota struct {
	dir  string // its directory, as this process sees it
	fs   string // cgroup or cgroup2
	opts string // of the mount: the controllers of version 1
}

// newQuota makes one of no limit, at the top of the hierarchy.
func newQuota() (*quota, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoQuota, err)
	}
	q := findCgroup(string(mounts))
	if q == nil {
		return nil, errNoQuota
	}
	if q.fs == "cgroup2" {
		// Given on to what is below the top only if that is said.
		if err := os.WriteFile(filepath.Join(q.dir, "cgroup.subtree_control"), []byte("+cpu"), 0); err != nil {
			return nil, fmt.Errorf("%w: %w", errNoQuota, err)
		}
	}
	q.dir = filepath.Join(q.dir, "ontlab-speed-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(q.dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // a cgroup
		return nil, fmt.Errorf("%w: %w", errNoQuota, err)
	}
	return q, nil
}

// findCgroup looks through /proc/self/mountinfo for the controller: in version
// 1, or else version 2.
func findCgroup(mountinfo string) *quota {
	var found *quota
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		fields, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(super) < 3 {
			continue
		}
		switch super[0] {
		case "cgroup":
			var controllers []string
			isCPU := false
			for word := range strings.SplitSeq(super[2], ",") {
				isCPU = isCPU || word == "cpu"
				if word != "rw" && word != "ro" {
					controllers = append(controllers, word)
				}
			}
			if isCPU {
				return &quota{dir: fields[4], fs: "cgroup", opts: strings.Join(controllers, ",")}
			}
		case "cgroup2":
			found = &quota{dir: fields[4], fs: "cgroup2"}
		}
	}
	return found
}

// String says by what it works.
func (q *quota) String() string {
	if q.fs == "cgroup2" {
		return "cgroup v2, cpu.max"
	}
	return "cgroup v1, cpu.cfs_quota_us"
}

// set allows a part of one core, in percent.
func (q *quota) set(percent float64) error {
	period := quotaPeriod.Microseconds()
	part := int64(float64(period) * percent / 100)
	if part < 1000 { // the kernel takes no less than a millisecond
		part, period = 1000, int64(1000*100/percent)
	}
	var err error
	if q.fs == "cgroup2" {
		err = q.write("cpu.max", fmt.Sprintf("%d %d", part, period))
	} else {
		// Neither may stand in the other's way meanwhile.
		err = errors.Join(q.write("cpu.cfs_quota_us", "-1"), q.write("cpu.cfs_period_us", strconv.FormatInt(period, 10)),
			q.write("cpu.cfs_quota_us", strconv.FormatInt(part, 10)))
	}
	if err != nil {
		return fmt.Errorf("cannot limit processor: %w", err)
	}
	return nil
}

// take puts a process in.
func (q *quota) take(pid int) error {
	if err := q.write("cgroup.procs", strconv.Itoa(pid)); err != nil {
		return fmt.Errorf("cannot limit processor: %w", err)
	}
	return nil
}

func (q *quota) write(name, value string) error {
	f, err := os.OpenFile(filepath.Join(q.dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// remove takes it away; nobody may be in it.
func (q *quota) remove() error {
	if err := os.Remove(q.dir); err != nil {
		return fmt.Errorf("cannot remove cgroup: %w", err)
	}
	return nil
}

// show mounts the hierarchy on a host, which has a /sys of its own, where a
// gateway has it. hide takes it away.
func (q *quota) show(h *netbox.Host) error {
	err := h.Do(func() error {
		if q.fs == "cgroup2" {
			return unix.Mount("cgroup2", cgroupRoot, "cgroup2", 0, "")
		}
		if err := unix.Mount("cgroup", cgroupRoot, "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
		dir := filepath.Join(cgroupRoot, q.opts)
		if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // a mount point
			return err
		}
		return unix.Mount("cgroup", dir, "cgroup", 0, q.opts)
	})
	if err != nil {
		return fmt.Errorf("cannot mount cgroups on %s: %w", h.Name(), err)
	}
	return nil
}

func (q *quota) hide(h *netbox.Host) error {
	err := h.Do(func() error { return unix.Unmount(cgroupRoot, unix.MNT_DETACH) })
	if err != nil {
		return fmt.Errorf("cannot unmount cgroups on %s: %w", h.Name(), err)
	}
	return nil
}

const cgroupRoot = "/sys/fs/cgroup"
