package powercut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// imageSize is small, so that a copy is quick. mkfs then takes blocks of 1 KiB
// and a journal of 1 MiB.
const imageSize = 8 << 20

// disk is a mounted ext4 image.
type disk struct {
	file *os.File // unlinked
	loop int
	dir  string
}

// machine makes disks.
type machine struct {
	blank []byte // a fresh file system
	work  string // a directory; images are in it, unlinked
	n     int
}

func newMachine(ctx context.Context, work string) (*machine, error) {
	path := filepath.Join(work, "blank")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(path, imageSize); err != nil {
		return nil, err
	}
	// Else the kernel would go on making the file system while it is used.
	cmd := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", path)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Path = lookPath("mkfs.ext4")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot make file system (Debian package e2fsprogs): %w: %s", err, out)
	}
	blank, err := os.ReadFile(path)
	return &machine{blank: blank, work: work}, err
}

func lookPath(name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path := filepath.Join(dir, name); unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	return name
}

// fresh mounts a new file system. Its image is on a real disk where work is:
// flushing it takes a while, and a snapshot can fall into that while.
func (m *machine) fresh() (*disk, error) {
	f, err := os.CreateTemp(m.work, "image-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	return m.mount(f, m.blank)
}

// revived mounts a copy.
func (m *machine) revived(image []byte) (*disk, error) {
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot make file in memory: %w", err)
	}
	return m.mount(os.NewFile(uintptr(fd), "image"), image)
}

func (m *machine) mount(f *os.File, image []byte) (d *disk, err error) {
	m.n++
	d = &disk{file: f, dir: filepath.Join(m.work, "disk-"+strconv.Itoa(m.n))}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("cannot mount image: %w", err), f.Close())
		}
	}()
	if _, err := f.WriteAt(image, 0); err != nil {
		return nil, err
	}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return nil, err
	}
	dev, err := d.attach()
	if err != nil {
		return nil, err
	}
	// Kept until the mount keeps it: it goes with its last user.
	defer dev.Close()
	if err := unix.Mount(dev.Name(), d.dir, "ext4", unix.MS_NOATIME, ""); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	return d, nil
}

func (d *disk) attach() (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 50 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no free loop device: %w", err)
		}
		dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(d.file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			d.loop = n
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, fmt.Errorf("cannot set up loop device: %w", err)
		}
	}
	return nil, errors.New("no loop device stays free")
}

// unmount ends it; the image goes with it.
func (d *disk) unmount() error {
	var err error
	for range 100 {
		if err = unix.Unmount(d.dir, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.Join(err, d.file.Close(), os.Remove(d.dir))
}

// written returns how many writes the device has completed since it was set
// up, and how many sectors of 512 bytes they were.
func (d *disk) written() (writes, sectors int64, err error) {
	// Documentation/block/stat.rst
	text, err := os.ReadFile("/sys/block/loop" + strconv.Itoa(d.loop) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 7 {
		return 0, 0, fmt.Errorf("statistics of the device are %q", text)
	}
	writes, err1 := strconv.ParseInt(fields[4], 10, 64)
	sectors, err2 := strconv.ParseInt(fields[6], 10, 64)
	return writes, sectors, errors.Join(err1, err2)
}

// snapshot copies what the device has at one moment, without any sync. before
// is called no later than that moment, after no earlier. Whoever writes should
// soon come to a rest.
//
// A copy takes about a millisecond. It stands for a moment if no write was
// completed meanwhile: then all that may be in it, whole or in part, are
// writes that were under way together, of which a power cut may leave any.
func (d *disk) snapshot(before, after func()) ([]byte, error) {
	image := make([]byte, imageSize)
	for range 2000 {
		w0, _, err := d.written()
		if err != nil {
			return nil, err
		}
		before()
		if _, err := d.file.ReadAt(image, 0); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		after()
		w1, _, err := d.written()
		if err != nil {
			return nil, err
		}
		if w0 == w1 {
			return image, nil
		}
		time.Sleep(100 * time.Microsecond)
	}
	return nil, errors.New("cannot copy the image: the kernel doesn't stop writing to it")
}

// ext4Cuts plays gateways on ext4 images until n snapshots are checked, and
// returns what was found and how many of them were taken in the middle of a
// file operation.
func ext4Cuts(m *machine, n int, forgetful bool, seed uint64) (t tally, within int, err error) {
	const perImage = 25
	for t.cuts < n && len(t.problems) < 10 {
		seed++
		k, err := ext4Life(m, min(perImage, n-t.cuts), forgetful, seed, &t)
		within += k
		if err != nil {
			return t, within, fmt.Errorf("seed %d: %w", seed, err)
		}
	}
	return t, within, nil
}

// ext4Life plays one gateway and takes snapshots of its disk.
func ext4Life(m *machine, n int, forgetful bool, seed uint64, t *tally) (within int, err error) {
	d, err := m.fresh()
	if err != nil {
		return 0, err
	}
	g := newGateway(d.dir, newFiles(forgetful), seed)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- g.live(stop) }()
	rnd := rand.New(rand.NewPCG(seed, 23))
	for i := range n {
		// So much the gateway does until the next cut: counted in calls, not in
		// time, lest it depend on how slow this machine is. It may be held in
		// the middle of anything.
		begin, work := g.fs.calls.Load(), rnd.Int64N(60)
		g.fs.allow(int(work) + 1 + rnd.IntN(60))
		for wait := 0; g.fs.calls.Load() < begin+work && wait < 10_000; wait++ {
			time.Sleep(100 * time.Microsecond)
		}
		var h0, h1 history
		var c0 int64
		var in bool
		image, snapErr := d.snapshot(
			func() { h0, c0, in = g.snapshot(), g.fs.calls.Load(), g.fs.inside.Load() > 0 },
			func() { h1, in = g.snapshot(), in && g.fs.inside.Load() > 0 && g.fs.calls.Load() == c0 },
		)
		g.fs.allow(0)
		if snapErr == nil {
			if in {
				within++
			}
			snapErr = m.checkCopy(image, g.style, h0, h1, t, fmt.Sprintf("seed %d, cut %d", seed, i))
		}
		if err = snapErr; err != nil {
			break
		}
	}
	close(stop)
	g.fs.allow(math.MaxInt)
	err = errors.Join(err, <-done)
	for _, p := range g.problems {
		t.problem("seed %d: %s", seed, p)
	}
	return within, errors.Join(err, d.unmount())
}

// live plays the gateway through several lives until stop is closed.
func (g *gateway) live(stop <-chan struct{}) error {
	for {
		if err := g.start(); err != nil {
			return err
		}
		for range 20 + g.rnd.IntN(300) {
			select {
			case <-stop:
				g.fs.abandon()
				return nil
			default:
			}
			g.step()
			if g.rnd.IntN(150) == 0 {
				g.drain()
			}
		}
		g.end()
	}
}

// checkCopy mounts a snapshot, which replays the journal, opens its spool and
// holds it against what was promised.
func (m *machine) checkCopy(image []byte, s style, h0, h1 history, t *tally, where string) error {
	d, err := m.revived(image)
	if err != nil {
		return err
	}
	fsys := newFiles(false)
	g := &gateway{style: s, fs: fsys, dir: d.dir, clock: newClock(), hist: history{epoch: h0.epoch}}
	if err := g.start(); err != nil {
		// An epoch that can't be read stops the daemon: it is lost, too.
		t.problem("%s: %v", where, err)
		g.hist.epoch = h1.epoch + 1
		if g.q, err = openSpool(fsys, d.dir, g.hist.epoch, g.clock, s); err != nil {
			return err
		}
	}
	f := check(h0, h1, recoverAll(g.q, g.clock, g.hist.epoch))
	f.problems = append(f.problems, g.problems...)
	t.add(f, where)
	fsys.abandon()
	return d.unmount()
}
