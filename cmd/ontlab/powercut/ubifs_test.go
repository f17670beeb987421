package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ioctls of include/uapi/mtd/ubi-user.h.
const (
	ubiAttach       = 1<<30 | 24<<16 | 'o'<<8 | 64 // UBI_IOCATT, on /dev/ubi_ctrl
	ubiDetach       = 1<<30 | 4<<16 | 'o'<<8 | 65  // UBI_IOCDET
	ubiMakeVolume   = 1<<30 | 152<<16 | 'o'<<8     // UBI_IOCMKVOL, number 0, on /dev/ubi0
	ubiRemoveVolume = 1<<30 | 4<<16 | 'o'<<8 | 1   // UBI_IOCRMVOL
)

const volume = "spool"

// Which writes of UBI's own the emulated power cut falls into: enum of
// drivers/mtd/ubi/debug.h.
const (
	cutEraseCounter = 1
	cutVolumeID     = 2
)

// flash is UBI on the simulated NAND, as device 0, with UBIFS in a volume.
type flash struct {
	dir  string
	size int64 // of the volume, in bytes
}

// attach attaches UBI, which reads the headers of all blocks.
func (f *flash) attach() error {
	var req struct {
		ubi, mtd, vidOffset int32
		maxBad              int16
		padding             [10]int8
	}
	return ioctl("/dev/ubi_ctrl", ubiAttach, unsafe.Pointer(&req))
}

func (f *flash) detach() error {
	var ubi int32
	return ioctl("/dev/ubi_ctrl", ubiDetach, unsafe.Pointer(&ubi))
}

func (f *flash) makeVolume(bytes int64) error {
	var req struct { // packed in C, without holes here either
		id, alignment int32
		bytes         int64
		kind          int8
		flags         uint8
		nameLen       int16
		padding       [4]int8
		name          [128]byte
	}
	req.id, req.alignment, req.bytes, req.kind = 0, 1, bytes, 3 // UBI_DYNAMIC_VOLUME
	req.nameLen = int16(copy(req.name[:], volume))
	return ioctl("/dev/ubi0", ubiMakeVolume, unsafe.Pointer(&req))
}

func ioctl(path string, request uintptr, arg unsafe.Pointer) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return &os.PathError{Op: "ioctl", Path: path, Err: errno}
	}
	return nil
}

func (f *flash) mount() error {
	if err := unix.Mount("ubi0:"+volume, f.dir, "ubifs", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("cannot mount ubifs: %w", err)
	}
	return nil
}

func (f *flash) unmount() error {
	var err error
	for range 200 {
		if err = unix.Unmount(f.dir, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("cannot unmount ubifs: %w", err)
	}
	return nil
}

// setDebug writes to a file of the kernel's debugging file system.
func setDebug(path, value string) error {
	return os.WriteFile(filepath.Join("/sys/kernel/debug", path), []byte(value), 0)
}

// kindOfCut says who cuts the power.
type kindOfCut int

const (
	// byUBI makes UBI fail for good at one of its next header writes: there
	// are some whenever a block was erased or is taken into use. From then on
	// all that would change the flash fails with EROFS, and what UBIFS had in
	// memory is lost.
	byUBI kindOfCut = iota
	// byUBIFS makes UBIFS fail for good in one of its own next writes, of which
	// a random part is garbage. When is up to it: at the next commit, after up
	// to 10 000 writes, or after up to a minute.
	byUBIFS
)

// arm sets the cut; UBI is attached.
func (k kindOfCut) arm(rnd *rand.Rand) error {
	if k == byUBIFS {
		return setDebug("ubifs/tst_recovery", "1")
	}
	kinds := [...]int{cutEraseCounter, cutVolumeID, cutEraseCounter | cutVolumeID}
	// The counter is drawn at the first header write, which is not failed.
	after := strconv.Itoa(1 + rnd.IntN(4))
	return errors.Join(
		setDebug("ubi/ubi0/tst_emulate_power_cut_min", after),
		setDebug("ubi/ubi0/tst_emulate_power_cut_max", after),
		setDebug("ubi/ubi0/tst_emulate_power_cut", strconv.Itoa(kinds[rnd.IntN(len(kinds))])),
	)
}

// disarm is for a life that ended without a cut. UBI's goes with the device.
func (k kindOfCut) disarm() error {
	if k == byUBIFS {
		return setDebug("ubifs/tst_recovery", "0")
	}
	return setDebug("ubi/ubi0/tst_emulate_power_cut", "0")
}

// ubifsCuts plays one gateway on one flash until n power cuts were survived,
// or the time is over. Cuts that fell into the mounting after a cut, that is
// into UBIFS's own recovery, are in the second result.
func ubifsCuts(f *flash, kind kindOfCut, n int, forgetful bool, seed uint64, until time.Time) (t tally, again int, err error) {
	if err := f.renew(); err != nil {
		return t, 0, err
	}
	defer func() { err = errors.Join(err, f.detach()) }()
	g := newGateway(f.dir, nil, seed)
	rnd := rand.New(rand.NewPCG(seed, 31))
	cut := false // and not yet looked at
	for t.cuts < n && len(t.problems) < 10 && time.Now().Before(until) {
		when := rnd.IntN(5) // 0: while mounting, 1: while opening
		if when == 0 {
			if err := kind.arm(rnd); err != nil {
				return t, again, err
			}
		}
		err := f.mount()
		if err != nil && when != 0 {
			return t, again, err
		}
		if err != nil {
			again++
			cut = true
			if err := errors.Join(kind.disarm(), f.reattach()); err != nil {
				return t, again, err
			}
			continue
		}
		if when == 1 {
			if err := kind.arm(rnd); err != nil {
				return t, again, err
			}
		}
		g.fs = newFiles(forgetful)
		if err := g.start(); err != nil {
			if !g.fs.dead.Load() {
				t.problem("after %d cuts: %v", t.cuts, err)
				return t, again, errors.Join(err, f.unmount())
			}
			again++
		} else {
			if cut {
				cut = false
				var r recovered
				g.quietly(func() { r = recoverAll(g.q, g.clock, g.hist.epoch) })
				f := check(g.hist, g.hist, r)
				g.forget(f.lost) // found once
				g.forget(f.uncovered)
				f.problems = append(f.problems, g.problems...)
				g.problems = nil
				t.add(f, fmt.Sprintf("seed %d, cut %d", seed, t.cuts))
				if rnd.IntN(3) > 0 {
					g.drain()
				}
			}
			at, steps := rnd.IntN(100), 3000
			if kind == byUBIFS {
				steps = 250 // it may not come for long: try again
			}
			for i := 0; i < steps && !g.fs.dead.Load(); i++ {
				if i == at && when > 1 {
					if err := kind.arm(rnd); err != nil {
						return t, again, err
					}
				}
				g.step()
				if rnd.IntN(10) == 0 {
					ballast(f.dir, rnd)
				}
				if kind == byUBIFS && rnd.IntN(6) == 0 {
					commit(f.dir)
				}
			}
		}
		if g.fs.dead.Load() {
			cut = true
			g.fs.abandon()
		} else {
			g.end()
		}
		if err := errors.Join(kind.disarm(), f.unmount(), f.reattach()); err != nil {
			return t, again, err
		}
	}
	return t, again, nil
}

// forget takes messages out of what is checked.
func (g *gateway) forget(keys []key) {
	for _, k := range keys {
		delete(g.hist.puts, k)
	}
}

// ballast is another program writing, which takes blocks into use.
func ballast(dir string, rnd *rand.Rand) {
	f, err := os.Create(filepath.Join(dir, "ballast-"+strconv.Itoa(rnd.IntN(4))))
	if err != nil {
		return
	}
	defer f.Close()
	data := make([]byte, rnd.IntN(64<<10))
	for i := 0; i+8 <= len(data); i += 8 { // nothing that UBIFS could compress
		binary.LittleEndian.PutUint64(data[i:], rnd.Uint64())
	}
	_, _ = f.Write(data)
	_ = f.Sync()
}

// commit makes UBIFS write its index and the tables of free space.
func commit(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.Syncfs(int(f.Fd()))
}

// renew attaches UBI and makes an empty volume, in which UBIFS makes itself at
// the first mount.
func (f *flash) renew() error {
	if err := f.attach(); err != nil {
		return fmt.Errorf("cannot attach UBI: %w", err)
	}
	if _, err := os.Stat("/dev/ubi0_0"); err == nil {
		var id int32
		if err := ioctl("/dev/ubi0", ubiRemoveVolume, unsafe.Pointer(&id)); err != nil {
			return fmt.Errorf("cannot remove volume: %w", err)
		}
	}
	if err := f.makeVolume(f.size); err != nil {
		return fmt.Errorf("cannot make volume: %w", err)
	}
	return nil
}

// reattach is the power coming back.
func (f *flash) reattach() error {
	if err := f.detach(); err != nil {
		return fmt.Errorf("cannot detach UBI: %w", err)
	}
	if err := f.attach(); err != nil {
		return fmt.Errorf("cannot attach UBI again: %w", err)
	}
	return nil
}
