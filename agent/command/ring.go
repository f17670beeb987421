package command

import "sync"

// ring keeps the last limit bytes written to it. It is safe for concurrent use.
type ring struct {
	limit int

	mu   sync.Mutex
	buf  []byte // guarded by mu; grows to limit, then is overwritten in a circle
	next int    // guarded by mu; where the oldest byte is once buf is full
	lost int64  // guarded by mu
}

// Write keeps the end of b and never fails.
func (r *ring) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	written := len(b)
	if over := len(b) - r.limit; over > 0 {
		// All that was kept, and the start of b, is older than what fits.
		r.lost += int64(len(r.buf)) + int64(over)
		r.buf, r.next = append(r.buf[:0], b[over:]...), 0
		return written, nil
	}
	grow := min(r.limit-len(r.buf), len(b))
	r.buf = append(r.buf, b[:grow]...)
	b = b[grow:]
	r.lost += int64(len(b))
	for len(b) > 0 {
		n := copy(r.buf[r.next:], b)
		b = b[n:]
		r.next = (r.next + n) % r.limit
	}
	return written, nil
}

// bytes returns a copy of what is kept, oldest first.
func (r *ring) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]byte, 0, len(r.buf))
	out = append(out, r.buf[r.next:]...)
	return append(out, r.buf[:r.next]...)
}

// dropped counts the bytes that are no longer kept.
func (r *ring) dropped() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}
