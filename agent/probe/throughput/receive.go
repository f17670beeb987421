package throughput

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// discardSize is the most that is dropped with one call. Nothing is ever
	// written there by a kernel that knows MSG_TRUNC for TCP (2.4).
	discardSize = 2 << 20
	// The kernel wakes the reader when so much waits (SO_RCVLOWAT): what is read
	// in large pieces costs a third. Between minLowat and maxLowat it is what
	// comes in lowatTime, so that a slow connection does not look stuck.
	minLowat  = 16 << 10
	newLowat  = 64 << 10 // before there is a rate
	maxLowat  = 2 << 20
	lowatTime = 100 * time.Millisecond
	// lowatSlack is how much more than twice the mark waits before a reader that
	// keeps up.
	lowatSlack = 128 << 10
)

// drain drops what waits, until nothing does, or nothing more comes: then it
// says why. f.turn is held.
func (f *flow) drain(fd uintptr) error {
	for {
		f.mu.Lock()
		n, _, err := unix.Recvfrom(int(fd), f.pump.scratch, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		if n > 0 {
			if f.begun.IsZero() {
				f.begun = time.Now()
			}
			f.moved += uint64(n)
		}
		total := f.moved
		f.mu.Unlock()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return ended(err, total)
		}
		if err := f.received(uint64(n), total); err != nil {
			return err
		}
	}
}

// received judges a read of n bytes, 0 at the end of the stream.
func (f *flow) received(n, total uint64) error {
	switch {
	case f.limit > 0 && total > f.limit:
		return fmt.Errorf("the server sent more than the %d bytes that it announced", f.limit)
	case f.limit > 0 && total == f.limit:
		return shortError(fmt.Sprintf("the file ended after %d bytes, before the measurement was over", total))
	case n == 0 && f.limit > 0:
		return fmt.Errorf("the server closed the connection after %d of the %d bytes that it announced", total, f.limit)
	case n == 0:
		return shortError(fmt.Sprintf("the transfer ended after %d bytes, before the measurement was over", total))
	case !f.pump.budget.spend(n):
		return errBudget
	}
	return nil
}

// ended names what ended a connection.
func ended(err error, after uint64) error {
	switch {
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return fmt.Errorf("the server reset the connection after %d bytes", after)
	case errors.Is(err, unix.ETIMEDOUT):
		return fmt.Errorf("the server fell silent after %d bytes", after)
	}
	return fmt.Errorf("the connection ended after %d bytes: %w", after, err)
}

// tune fits the low-water mark to the rate, in bytes a second.
func (f *flow) tune(rate float64) {
	want := int(min(max(rate*lowatTime.Seconds(), minLowat), maxLowat))
	want = max(f.pump.budget.share(want, len(f.pump.flows)), 1)
	if want < f.lowat/2 || want > f.lowat*3/2 || want == maxLowat && f.lowat < maxLowat {
		f.setLowat(want)
	}
}

// setLowat sets the low-water mark to a quarter of the receive buffer at most:
// what waits for the mark must not fill the window. Setting it makes the kernel
// enlarge the buffer to twice of it (Linux 4.18), as far as tcp_rmem allows.
func (f *flow) setLowat(n int) {
	_ = f.raw.Control(func(h uintptr) {
		fd := int(h)
		set := func(n int) bool { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) == nil }
		if n > f.lowat && !set(2*n) {
			return
		}
		if room, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil {
			n = min(n, max(room/4, 1))
		}
		if set(n) {
			f.lowat = n
		}
	})
}
