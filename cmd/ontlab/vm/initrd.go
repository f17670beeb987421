package vm

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

//go:embed guest/init.sh
var initScript []byte

//go:embed guest/start.sh
var startScript string

// bootModules are what it takes to see the host's files.
var bootModules = [...]string{"virtio_pci", "9pnet_virtio", "9p", "overlay"}

// cachedInitrd returns the initial RAM file system for k, making it where the
// cache does not have it.
func cachedInitrd(ctx context.Context, cache, modprobe string, k kernel) (string, error) {
	busybox, err := staticBusybox()
	if err != nil {
		return "", err
	}
	var modules []string
	for _, name := range bootModules {
		files, err := k.closure(ctx, modprobe, name)
		if err != nil {
			return "", err
		}
		for _, f := range files {
			if !slices.Contains(modules, f) {
				modules = append(modules, f)
			}
		}
	}
	archive, err := initrd(busybox, modules)
	if err != nil {
		return "", fmt.Errorf("cannot make initrd: %w", err)
	}
	path := filepath.Join(k.root, fmt.Sprintf("boot/initrd-%x.gz", sha256.Sum256(archive)))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	unlock, err := lock(ctx, cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(archive); err != nil {
		return "", fmt.Errorf("cannot make initrd: %w", err)
	}
	if err := z.Close(); err != nil {
		return "", fmt.Errorf("cannot make initrd: %w", err)
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, packed.Bytes(), 0o644); err != nil { //nolint:gosec // nothing secret
		return "", fmt.Errorf("cannot keep initrd: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return "", fmt.Errorf("cannot keep initrd: %w", err)
	}
	return path, nil
}

// staticBusybox returns a busybox that runs where there is nothing else.
func staticBusybox() ([]byte, error) {
	path, err := tool("busybox", "busybox-static")
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read busybox: %w", err)
	}
	program, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("cannot read busybox: %w", err)
	}
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("%w: %s needs libraries: install the Debian package busybox-static", ErrUnavailable, path)
		}
	}
	return data, nil
}

// initrd makes the archive: busybox, /init and the modules, named so that
// their order is that of loading.
func initrd(busybox []byte, modules []string) ([]byte, error) {
	var a cpio
	a.dir("bin")
	a.file("bin/busybox", 0o755, busybox)
	a.file("init", 0o755, initScript)
	a.dir("modules")
	for i, m := range modules {
		data, err := os.ReadFile(m)
		if err != nil {
			return nil, err
		}
		a.file(fmt.Sprintf("modules/%02d-%s", i, filepath.Base(m)), 0o644, data)
	}
	a.end()
	return a.buf.Bytes(), nil
}

// cpio writes an archive as the kernel unpacks it: format "newc" of
// Documentation/driver-api/early-userspace/buffer-format.rst.
type cpio struct {
	buf   bytes.Buffer
	inode int
}

func (c *cpio) dir(name string) { c.entry(name, 0o040755, nil) }

func (c *cpio) file(name string, perm fs.FileMode, data []byte) {
	c.entry(name, 0o100000|uint32(perm), data)
}

func (c *cpio) end() { c.entry("TRAILER!!!", 0, nil) }

func (c *cpio) entry(name string, mode uint32, data []byte) {
	c.inode++
	fmt.Fprintf(&c.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	c.buf.WriteString(name)
	c.buf.WriteByte(0)
	c.pad()
	c.buf.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.buf.Len()%4 != 0 {
		c.buf.WriteByte(0)
	}
}
