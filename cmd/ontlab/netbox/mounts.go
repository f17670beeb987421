package netbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// privateDirs are what each host has its own of, empty, where the machine has
// them at all: daemons write there whatever their configuration says.
var privateDirs = [...]string{"/run", "/var/run", "/var/log", "/var/lib", "/var/spool", "/etc/ppp"} //nolint:gochecknoglobals // a constant

// mountPrivate changes the mounts of this thread, which must have a mount
// namespace of its own: /sys shows the thread's network, and privateDirs and
// some files of /etc are those below root. What keep names stays visible.
func mountPrivate(hostname, root string, keep []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("cannot mount /sys: %w", err)
	}
	var dirs []string
	for _, dir := range privateDirs {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	kept, err := openKept(dirs, keep)
	if err != nil {
		return err
	}
	defer kept.close()
	for _, dir := range dirs {
		if err := bindDir(filepath.Join(root, dir), dir); err != nil {
			return err
		}
	}
	if err := kept.mount(); err != nil {
		return err
	}
	if err := bindFile(filepath.Join(root, "etc/resolv.conf"), "/etc/resolv.conf", ""); err != nil {
		return err
	}
	return bindFile(filepath.Join(root, "etc/hosts"), "/etc/hosts",
		"127.0.0.1 localhost\n127.0.1.1 "+hostname+"\n::1 localhost ip6-localhost ip6-loopback\n")
}

// bindDir shows source, made to be like target, as target.
func bindDir(source, target string) error {
	info, err := os.Stat(target)
	if err != nil {
		return fmt.Errorf("cannot look at directory: %w", err)
	}
	if err := os.MkdirAll(source, 0o755); err != nil { //nolint:gosec // as the machine has it, below
		return fmt.Errorf("cannot make directory: %w", err)
	}
	if err := os.Chmod(source, info.Mode()); err != nil {
		return fmt.Errorf("cannot make directory: %w", err)
	}
	// Groups such as dip own some. In a user namespace there may be no such
	// group, and then no program that needs it.
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = os.Chown(source, int(stat.Uid), int(stat.Gid))
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount over %s: %w", target, err)
	}
	return nil
}

// bindFile shows source, with that text, as target, if there is a target.
// Programs can write it, but not put another in its place.
func bindFile(source, target, text string) error {
	if err := os.MkdirAll(filepath.Dir(source), 0o755); err != nil { //nolint:gosec // nothing secret
		return fmt.Errorf("cannot make directory: %w", err)
	}
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil { //nolint:gosec // nothing secret
		return fmt.Errorf("cannot make file: %w", err)
	}
	if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
		// A link into a directory that is private now, and empty, is
		// followed there; elsewhere nothing is made.
		to, err := os.Readlink(target)
		if err != nil {
			return nil //nolint:nilerr // not a link: no such file
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(target), to)
		}
		if !below(to, privateDirs[:]) {
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // nothing secret
			return fmt.Errorf("cannot make directory: %w", err)
		}
		if err := os.WriteFile(to, nil, 0o644); err != nil { //nolint:gosec // nothing secret
			return fmt.Errorf("cannot make file: %w", err)
		}
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount over %s: %w", target, err)
	}
	return nil
}

// kept are trees of mounts that are taken before they are hidden.
type kept []keptTree

type keptTree struct {
	path string
	fd   int
}

func openKept(dirs, keep []string) (kept, error) {
	var k kept
	for _, path := range keep {
		if !below(path, dirs) {
			continue
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			k.close()
			return nil, fmt.Errorf("cannot keep %s: %w", path, err)
		}
		k = append(k, keptTree{path, fd})
	}
	return k, nil
}

// mount puts the trees where they were.
func (k kept) mount() error {
	for _, tree := range k {
		if err := os.MkdirAll(tree.path, 0o755); err != nil { //nolint:gosec // covered at once
			return fmt.Errorf("cannot keep %s: %w", tree.path, err)
		}
		if err := unix.MoveMount(tree.fd, "", unix.AT_FDCWD, tree.path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("cannot keep %s: %w", tree.path, err)
		}
	}
	return nil
}

func (k kept) close() {
	for _, tree := range k {
		_ = unix.Close(tree.fd)
	}
}

// below says whether path is one of dirs or below one.
func below(path string, dirs []string) bool {
	for _, dir := range dirs {
		if strings.HasPrefix(path+"/", dir+"/") {
			return true
		}
	}
	return false
}
