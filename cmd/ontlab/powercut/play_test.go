package powercut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// noLoop begins the error of a machine without loop devices.
const noLoop = "no loop devices"

// playExt4 cuts the power of gateways, and of peers, on ext4 images.
func playExt4(ctx context.Context, work string, out io.Writer) error {
	m, err := newMachine(ctx, work)
	if err != nil {
		return err
	}
	d, err := m.fresh()
	if err != nil {
		return fmt.Errorf("%s: %w", noLoop, err)
	}
	if err := d.unmount(); err != nil {
		return err
	}
	t, within, err := ext4Cuts(m, size(200, 2000), false, 1)
	if err != nil {
		return err
	}
	errs := report(out, "ext4 image, snapshots of the device at random moments", t, fmt.Sprintf("; %d cuts in the middle of a file operation", within))
	control, _, err := ext4Cuts(m, 10, true, 1000)
	if err != nil {
		return errors.Join(errs, err)
	}
	errs = errors.Join(errs, reportControl(out, "control: ext4 image, syncs that do nothing", control))
	return errors.Join(errs, playPeers(m, out), playWrites(m, out))
}

// playUBIFS cuts the power of a gateway on simulated NAND. It runs in a guest,
// as root, with the modules loaded.
func playUBIFS(work string, out io.Writer) error {
	// UBI and UBIFS say much about a power cut, and a serial line is slow.
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte("1"), 0); err != nil {
		return err
	}
	f := &flash{dir: filepath.Join(work, "flash"), size: 48 << 20} // the rest is for bad blocks and wear levelling
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		return err
	}
	var errs error
	for _, part := range []struct {
		kind    kindOfCut
		n       int
		patient time.Duration
		variant string
	}{
		{byUBI, size(50, 300), time.Hour, "ubifs on nandsim, UBI power-cut emulation"},
		{byUBIFS, size(12, 120), time.Duration(size(20, 600)) * time.Second, "ubifs on nandsim, torn writes of UBIFS's own emulation"},
	} {
		began := time.Now()
		t, again, err := ubifsCuts(f, part.kind, part.n, false, uint64(part.kind)+1, began.Add(part.patient))
		if err != nil {
			return errors.Join(errs, fmt.Errorf("%s: %w", part.variant, err))
		}
		fmt.Fprintf(out, "%s: %v\n", part.variant, time.Since(began).Round(time.Second))
		errs = errors.Join(errs, report(out, part.variant, t, fmt.Sprintf("; %d cuts in the recovery from another", again)))
	}
	control, _, err := ubifsCuts(f, byUBI, 5, true, 1000, time.Now().Add(time.Minute))
	if err != nil {
		return errors.Join(errs, err)
	}
	return errors.Join(errs, reportControl(out, "control: ubifs on nandsim, syncs that do nothing", control))
}
