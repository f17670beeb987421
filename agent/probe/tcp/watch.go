package tcp

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// watchInterval is how long at most it takes to see that an interface is gone.
const watchInterval = 250 * time.Millisecond

// watch calls cancel with ErrNoInterface when the interface goes away or down: a
// connect that waits for an answer through it would wait on. It looks through a
// socket, so that it sees the network namespace of its caller whatever thread it
// runs on. stop ends it.
func watch(ctx context.Context, name string, cancel context.CancelCauseFunc) (stop func(), err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open socket: %w", err)
	}
	if err := up(fd, name); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	ctx, end := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(watchInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if err := up(fd, name); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return func() { end(); <-ended; _ = unix.Close(fd) }, nil
}

func up(fd int, name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoInterface, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("%w: %w", ErrNoInterface, err)
	}
	if req.Uint16()&unix.IFF_UP == 0 {
		return fmt.Errorf("%w: %w", ErrNoInterface, unix.ENETDOWN)
	}
	return nil
}
