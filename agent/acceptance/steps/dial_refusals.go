package steps

import (
	"sync"

	"ontagent/agent/diagnosis"
)

// maxRefusals is how many authentications may fail under one order: many a BRAS
// shuts a line out, mostly for an hour, after the fifth, and the gateway's own
// attempts count as well.
const maxRefusals = 2

// Refusals remembers the authentications of one order that failed. It is safe
// for concurrent use; the zero value remembers none.
type Refusals struct {
	mu    sync.Mutex
	count int
	last  diagnosis.Code
}

func (r *Refusals) add(code diagnosis.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.last = code
}

// spent reports whether there may be no further authentication, and what the
// last one came to.
func (r *Refusals) spent() (diagnosis.Code, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.count >= maxRefusals
}

func (r *Refusals) any() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count > 0
}
