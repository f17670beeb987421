package throughput

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// maxSend is the most that is handed over at once.
const maxSend = supplySize

// send sends until the end.
func (f *flow) send() error {
	var cause error
	left := f.limit
	var head []byte
	err := f.raw.Write(func(fd uintptr) bool {
		for {
			if f.limit > 0 && left == 0 && len(head) == 0 {
				if f.next == nil {
					cause = shortError("the transfer ended before the measurement was over")
					return true
				}
				head, left = f.next()
			}
			want := uint64(len(head))
			if want == 0 {
				want = maxSend
				if f.limit > 0 {
					want = min(want, left)
				}
			}
			may := f.pump.budget.take(want)
			if may == 0 {
				cause = errBudget
				return true
			}
			n, err := f.push(fd, head, may)
			f.pump.budget.refund(may - uint64(n))
			if len(head) > 0 {
				head = head[n:]
			} else if f.limit > 0 {
				left -= uint64(n)
			}
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return false
			case err != nil:
				total, _ := f.count()
				cause = ended(err, total)
				return true
			case n == 0:
				cause = fmt.Errorf("cannot send: %w", io.ErrNoProgress)
				return true
			}
		}
	})
	if cause == nil {
		cause = err
	}
	return cause
}

// push sends up to n bytes, of head if there is one.
func (f *flow) push(fd uintptr, head []byte, n uint64) (sent int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.begun.IsZero() {
		f.begun = time.Now()
	}
	if len(head) > 0 {
		sent, err = unix.Write(int(fd), head[:n])
	} else {
		sent, err = f.source.send(fd, n)
	}
	sent = max(sent, 0)
	f.moved += uint64(sent)
	return sent, err
}

// listen hears what the server says to what it is sent.
func (f *flow) listen() error {
	var b [2 << 10]byte
	for {
		n, err := f.conn.Read(b[:])
		if n > 0 {
			if f.answer == nil {
				return fmt.Errorf("the server sent %d bytes to what it should receive", n)
			}
			if err := f.answer(b[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			total, _ := f.count()
			return closedError{total}
		case err != nil:
			total, _ := f.count()
			if errors.Is(err, unix.ECONNRESET) {
				return ended(err, total)
			}
			return err
		}
	}
}
