package throughput

import "sync/atomic"

// budget is how many bytes may still move. Its zero value is none; nil is no
// bound.
type budget struct{ left atomic.Int64 }

func newBudget(n uint64) *budget {
	if n == 0 {
		return nil
	}
	b := &budget{}
	b.left.Store(int64(min(n, 1<<62)))
	return b
}

// spend takes n, and reports whether there was as much.
func (b *budget) spend(n uint64) bool {
	return b == nil || b.left.Add(-int64(n)) >= 0
}

// take takes up to n, and returns how much.
func (b *budget) take(n uint64) uint64 {
	if b == nil {
		return n
	}
	for {
		left := b.left.Load()
		got := min(int64(n), max(left, 0))
		if b.left.CompareAndSwap(left, left-got) {
			return uint64(got)
		}
	}
}

// refund gives back what was not used after all.
func (b *budget) refund(n uint64) {
	if b != nil {
		b.left.Add(int64(n))
	}
}

// share returns n, or less when little is left for so many.
func (b *budget) share(n, among int) int {
	if b == nil {
		return n
	}
	return int(min(int64(n), max(b.left.Load(), 0)/int64(2*among)))
}
