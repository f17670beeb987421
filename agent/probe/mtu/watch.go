package mtu

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watch returns a context that ends when ifname goes away, with ErrNoInterface
// as its cause: a socket bound to it would only fall silent. It must be stopped.
func watch(ctx context.Context, ifname string) (watched context.Context, stop func(), err error) {
	watched, cancel := context.WithCancelCause(ctx)
	if ifname == "" {
		return watched, func() { cancel(nil) }, nil
	}
	// The socket stays in the network namespace of the caller's thread.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		cancel(nil)
		return nil, nil, os.NewSyscallError("socket", err)
	}
	index := func() uint32 {
		r, err := unix.NewIfreq(ifname)
		if err != nil || unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r) != nil {
			return 0
		}
		return r.Uint32()
	}
	first := index()
	if first == 0 {
		cancel(nil)
		_ = unix.Close(fd)
		return nil, nil, fmt.Errorf("%w: %s", ErrNoInterface, ifname)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		const pause = 300 * time.Millisecond
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-watched.Done():
				return
			case <-tick.C:
			}
			if index() != first {
				cancel(fmt.Errorf("%w any more: %s", ErrNoInterface, ifname))
				return
			}
		}
	})
	return watched, func() {
		cancel(nil)
		wg.Wait()
		_ = unix.Close(fd)
	}, nil
}
