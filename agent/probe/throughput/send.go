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

// fill sends until the socket takes no more, or nothing more goes: then it says
// why. f.turn is held.
func (f *flow) fill(fd uintptr) error {
	for {
		if f.limit > 0 && f.left == 0 && len(f.head) == 0 {
			if f.next == nil {
				return shortError("the transfer ended before the measurement was over")
			}
			f.head, f.left = f.next()
		}
		want := uint64(len(f.head))
		if want == 0 {
			want = maxSend
			if f.limit > 0 {
				want = min(want, f.left)
			}
		}
		may := f.pump.budget.take(want)
		if may == 0 {
			return errBudget
		}
		n, err := f.push(fd, f.head, may)
		f.pump.budget.refund(may - uint64(n))
		if len(f.head) > 0 {
			f.head = f.head[n:]
		} else if f.limit > 0 {
			f.left -= uint64(n)
		}
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			total, _ := f.count()
			return ended(err, total)
		case n == 0:
			return fmt.Errorf("cannot send: %w", io.ErrNoProgress)
		}
	}
}

// drained returns when everything that was handed over on any connection has
// been acknowledged: it is of the budget, and may not have left yet.
func (p *pump) drained() {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for waits := uint64(1); waits > 0; {
		select {
		case <-p.stopped:
			return
		case <-look.C:
		}
		waits = 0
		for _, f := range p.flows {
			_ = f.raw.Control(func(fd uintptr) {
				n, _ := queued(fd, unix.TIOCOUTQ)
				waits += n
			})
		}
	}
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
