package vm

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ontagent/agent/command"
)

// metaPackage is the package whose dependency is Debian's current kernel.
const metaPackage = "linux-image-amd64"

// kernelAge is how long a cached kernel is used before Debian is asked for a
// newer one.
const kernelAge = 7 * 24 * time.Hour

// kernel is an unpacked kernel package. Its directory in the cache is named
// after package and version, and complete: it gets its name last.
type kernel struct {
	root    string // the unpacked package
	release string // as uname -r
	image   string
}

// tool finds a program, or says which package has it.
func tool(name, pkg string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin", "/usr/bin", "/bin") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 { //nolint:gosec // PATH is the user's own
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: %s is missing: install the Debian package %s", ErrUnavailable, name, pkg)
}

// cachedKernel returns a kernel from the cache, fetching it where there is
// none, or looking for a newer one where it is older than kernelAge. Without a
// network an older one will do.
func cachedKernel(ctx context.Context, cache string, log *slog.Logger) (kernel, error) {
	if strings.HasPrefix(cache+"/", "/run/") {
		return kernel{}, fmt.Errorf("the guest would not see its modules in %s: choose a cache that isn't below /run", cache)
	}
	unlock, err := lock(ctx, cache)
	if err != nil {
		return kernel{}, err
	}
	defer unlock()
	have, newest := newestKernel(cache)
	if have && time.Since(newest.checked) < kernelAge {
		return newest.kernel, nil
	}
	fetched, err := fetchKernel(ctx, cache, log)
	switch {
	case err == nil:
		removeOthers(cache, fetched)
		return fetched, nil
	case have && ctx.Err() == nil:
		log.Warn("using an older kernel", "kernel", filepath.Base(newest.root), "error", err)
		return newest.kernel, nil
	}
	return kernel{}, err
}

// lock takes the cache for this process, waiting until ctx ends.
func lock(ctx context.Context, cache string) (unlock func(), err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // nothing secret
		return nil, fmt.Errorf("cannot make cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_RDWR|os.O_CREATE, 0o644) //nolint:gosec // nothing secret
	if err != nil {
		return nil, fmt.Errorf("cannot lock cache: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("cannot lock cache: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("cannot lock cache: %w", ctx.Err()), f.Close())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

type cached struct {
	kernel
	checked time.Time
}

func newestKernel(cache string) (bool, cached) {
	var newest cached
	dirs, _ := filepath.Glob(filepath.Join(cache, "linux-image-*_*"))
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || !info.ModTime().After(newest.checked) {
			continue
		}
		if k, err := openKernel(dir); err == nil {
			newest = cached{k, info.ModTime()}
		}
	}
	return newest.root != "", newest
}

func openKernel(root string) (kernel, error) {
	images, _ := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if len(images) != 1 {
		return kernel{}, fmt.Errorf("no kernel in %s", root)
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	if _, err := os.Stat(filepath.Join(root, "lib/modules", release, "modules.dep")); err != nil {
		return kernel{}, fmt.Errorf("no modules in %s: %w", root, err)
	}
	k := kernel{root: root, release: release, image: images[0]}
	if plain := filepath.Join(root, "boot/vmlinux-"+release); isELF(plain) {
		k.image = plain
	}
	return k, nil
}

func isELF(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// removeOthers removes what is no longer used: kernels but k, and what was
// interrupted.
func removeOthers(cache string, k kernel) {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(cache, e.Name())
		if e.IsDir() && path != k.root {
			_ = os.RemoveAll(path)
		}
	}
}

// fetchKernel asks Debian for its current kernel and unpacks it, unless the
// cache has that version. The cache is locked.
func fetchKernel(ctx context.Context, cache string, log *slog.Logger) (kernel, error) {
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return kernel{}, fmt.Errorf("cannot fetch kernel: %w", err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // removed with the next fetch
	// The user that apt changes to must see its own download.
	_ = os.Chmod(work, 0o755) //nolint:gosec // nothing secret

	a := &apt{work: work}
	name, version, err := a.currentKernel(ctx)
	if err != nil {
		// No lists of packages, or none that knows a kernel: get our own, which
		// needs no root.
		log.Info("fetching lists of packages")
		if updateErr := a.update(ctx); updateErr != nil {
			return kernel{}, fmt.Errorf("%w: %w; %w", ErrUnavailable, err, updateErr)
		}
		if name, version, err = a.currentKernel(ctx); err != nil {
			return kernel{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	root := filepath.Join(cache, name+"_"+version)
	if k, err := checkedNow(root); err == nil {
		return k, nil
	}

	log.Info("fetching the guest's kernel", "package", name, "version", version)
	if err := a.run(ctx, "apt-get", "download", name); err != nil {
		if a.own {
			return kernel{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		// Lists that are too old name versions that are gone.
		updateErr := a.update(ctx)
		if updateErr == nil {
			name, version, updateErr = a.currentKernel(ctx)
		}
		if updateErr == nil {
			updateErr = a.run(ctx, "apt-get", "download", name)
		}
		if updateErr != nil {
			return kernel{}, fmt.Errorf("%w: %w; %w", ErrUnavailable, err, updateErr)
		}
		root = filepath.Join(cache, name+"_"+version)
	}
	debs, _ := filepath.Glob(filepath.Join(work, name+"_*.deb"))
	if len(debs) != 1 {
		return kernel{}, fmt.Errorf("apt-get download left %d files, not one, of %s", len(debs), name)
	}
	unpacked := filepath.Join(work, "root")
	if err := unpack(ctx, debs[0], unpacked); err != nil {
		return kernel{}, err
	}
	if err := os.RemoveAll(root); err != nil {
		return kernel{}, fmt.Errorf("cannot keep kernel: %w", err)
	}
	if err := os.Rename(unpacked, root); err != nil {
		return kernel{}, fmt.Errorf("cannot keep kernel: %w", err)
	}
	return checkedNow(root)
}

// checkedNow opens a kernel that is Debian's newest as of now, and notes that.
func checkedNow(root string) (kernel, error) {
	k, err := openKernel(root)
	if err == nil {
		now := time.Now()
		err = os.Chtimes(root, now, now)
	}
	return k, err
}

// unpack unpacks a kernel package and finds out what its modules depend on: an
// unpacked package has no modules.dep.
func unpack(ctx context.Context, deb, root string) error {
	dpkg, err := tool("dpkg-deb", "dpkg")
	if err != nil {
		return err
	}
	depmod, err := tool("depmod", "kmod")
	if err != nil {
		return err
	}
	runner := command.New(command.Options{})
	if _, err := runner.Run(ctx, command.Spec{Path: dpkg, Args: []string{"-x", deb, root}}); err != nil {
		return fmt.Errorf("cannot unpack kernel: %w", err)
	}
	releases, _ := filepath.Glob(filepath.Join(root, "lib/modules/*"))
	if len(releases) != 1 {
		return fmt.Errorf("cannot unpack kernel: modules of %d releases, not one, in %s", len(releases), filepath.Base(deb))
	}
	// Half of the megabytes, and of no use to a guest without devices.
	for _, useless := range []string{"sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/scsi", "drivers/net/ethernet", "drivers/net/wireless"} {
		if err := os.RemoveAll(filepath.Join(releases[0], "kernel", useless)); err != nil {
			return fmt.Errorf("cannot unpack kernel: %w", err)
		}
	}
	if _, err := runner.Run(ctx, command.Spec{Path: depmod, Args: []string{"-b", root, filepath.Base(releases[0])}}); err != nil {
		return fmt.Errorf("cannot unpack kernel: %w", err)
	}
	return decompress(ctx, root, filepath.Base(releases[0]))
}

// decompress unpacks the kernel's image, which spares each boot 4 s of
// decompressing in an emulator: QEMU loads the ELF file as well (CONFIG_PVH).
// An image packed otherwise than by xz stays as it is.
func decompress(ctx context.Context, root, release string) error {
	xz, err := tool("xz", "xz-utils")
	if err != nil {
		return err
	}
	image, err := os.ReadFile(filepath.Join(root, "boot/vmlinuz-"+release))
	if err != nil {
		return fmt.Errorf("cannot unpack kernel: %w", err)
	}
	at := bytes.Index(image, []byte("\xfd7zXZ\x00"))
	if at < 0 {
		return nil
	}
	out, err := os.Create(filepath.Join(root, "boot/vmlinux-"+release))
	if err != nil {
		return fmt.Errorf("cannot unpack kernel: %w", err)
	}
	_, err = command.New(command.Options{}).Run(ctx, command.Spec{
		Path: xz, Args: []string{"--decompress", "--stdout", "--single-stream"}, Stdin: bytes.NewReader(image[at:]), Stdout: out,
	})
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("cannot unpack kernel: %w", err)
	}
	return nil
}

// apt asks Debian's package manager, with the system's lists of packages or
// with lists of our own.
type apt struct {
	work string
	own  bool
}

func (a *apt) run(ctx context.Context, name string, args ...string) error {
	_, err := a.output(ctx, name, args...)
	return err
}

func (a *apt) output(ctx context.Context, name string, args ...string) ([]byte, error) {
	path, err := tool(name, "apt")
	if err != nil {
		return nil, err
	}
	if a.own {
		args = append([]string{
			"-o", "Dir::State::Lists=" + filepath.Join(a.work, "lists"),
			"-o", "Dir::Cache=" + filepath.Join(a.work, "cache"),
		}, args...)
	}
	result, err := command.New(command.Options{OutputLimit: 1 << 20}).Run(ctx, command.Spec{
		Path: path, Args: args, Dir: a.work, Env: append(os.Environ(), "LC_ALL=C"),
	})
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, strings.Join(args, " "))
	}
	return result.Stdout, nil
}

func (a *apt) update(ctx context.Context) error {
	a.own = true
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.work, dir), 0o755); err != nil { //nolint:gosec // nothing secret
			return fmt.Errorf("cannot fetch lists of packages: %w", err)
		}
	}
	return a.run(ctx, "apt-get", "update")
}

// currentKernel returns name and version of the package of Debian's current
// kernel.
func (a *apt) currentKernel(ctx context.Context) (name, version string, err error) {
	out, err := a.output(ctx, "apt-cache", "depends", metaPackage)
	if err != nil {
		return "", "", err
	}
	if name = field(out, "Depends:", "linux-image-"); name == "" {
		return "", "", fmt.Errorf("no list of packages knows %s (is this Debian?)", metaPackage)
	}
	out, err = a.output(ctx, "apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return "", "", err
	}
	if version = field(out, "Version:", ""); version == "" {
		return "", "", fmt.Errorf("no list of packages has a version of %s", name)
	}
	return name, strings.ReplaceAll(version, ":", "%3a"), nil
}

// field returns the first word behind key whose line begins with key, spaces
// aside, and which begins with prefix.
func field(text []byte, key, prefix string) string {
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) >= 2 && words[0] == key && strings.HasPrefix(words[1], prefix) {
			return words[1]
		}
	}
	return ""
}

// closure returns the files of a module and of what it needs, in the order of
// loading: none where it is built in.
func (k kernel) closure(ctx context.Context, modprobe, name string) ([]string, error) {
	result, err := command.New(command.Options{}).Run(ctx, command.Spec{
		Path: modprobe,
		Args: []string{"-d", k.root, "-S", k.release, "--show-depends", "--ignore-install", name},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s has no module %q: %w", ErrUnavailable, filepath.Base(k.root), name, err)
	}
	var files []string
	for line := range strings.Lines(string(result.Stdout)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "insmod "); ok {
			path, _, _ = strings.Cut(path, " ")
			files = append(files, path)
		}
	}
	return slices.Clip(files), nil
}
