package netbox

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Stand shows a file or directory of the lab in the place of one that the
// host's kernel has, such as /proc/meminfo: to this host alone, and until it is
// closed. What source is written to later is seen there.
func (h *Host) Stand(source, target string) error {
	err := h.Do(func() error { return unix.Mount(source, target, "", unix.MS_BIND, "") })
	if err != nil {
		return fmt.Errorf("cannot show %s as %s on %s: %w", source, target, h.name, err)
	}
	return nil
}

// StandClass shows directories as classes of devices in sysfs, by the name of
// the class, beside the network's, which stays the host's own; other classes
// are gone. The kernel need not know the classes.
func (h *Host) StandClass(classes map[string]string) error {
	root := filepath.Join(h.dir, "root", "sys", "class")
	err := h.Do(func() error {
		all := map[string]string{"net": "/sys/class/net"}
		maps.Copy(all, classes)
		for name, dir := range all {
			at := filepath.Join(root, name)
			if err := os.MkdirAll(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // as sysfs has it
				return err
			}
			if err := unix.Mount(dir, at, "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("cannot show %s: %w", name, err)
			}
		}
		return unix.Mount(root, "/sys/class", "", unix.MS_BIND|unix.MS_REC, "")
	})
	if err != nil {
		return fmt.Errorf("cannot show classes of devices on %s: %w", h.name, err)
	}
	return nil
}
