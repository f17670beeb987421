package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ontagent/agent/identity"
	"ontagent/config"
	"ontagent/transport/durable"
)

// errInUse means that another process uses a state directory.
var errInUse = errors.New("in use by another agent")

// lockState keeps a state directory for this process until the file is closed.
// Two daemons on one state would both grant what may be granted once.
func lockState(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock state: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errInUse
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot lock state in %s: %w", dir, err)
	}
	return f, nil
}

// openKeys reads the gateway's keys, or makes them where no daemon is about to.
func openKeys(c config.Config) (identity.Keys, error) {
	keys, err := identity.Read(durable.OS{}, c.Main.StateDir, c.Main.Device)
	if !errors.Is(err, fs.ErrNotExist) {
		return keys, err
	}
	if err := durable.MkdirAll(durable.OS{}, "state.dir", c.Main.StateDir, 0o700); err != nil {
		return identity.Keys{}, err
	}
	lock, err := lockState(c.Main.StateDir)
	if err != nil {
		return identity.Keys{}, err
	}
	defer lock.Close() //nolint:errcheck // nothing was written to it
	return identity.Open(durable.OS{}, c.Main.StateDir, c.Main.Device)
}

// noCoreDumps keeps secrets in memory from being left on flash.
func noCoreDumps() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("cannot switch core dumps off: %w", err)
	}
	return nil
}
