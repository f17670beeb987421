package ntp

import "time"

// Request is request.
func Request(nonce uint64) []byte { return request(nonce) }

// Time is what a timestamp means.
func Time(s uint64) time.Time { return stamp(s).time() }

// Measured is what an answer says, read with that nonce.
func Measured(b []byte, nonce uint64, wall time.Time, elapsed time.Duration) (r Result, err error) {
	a, err := parse(b, nonce)
	if err == nil {
		r.take(&a, wall, elapsed)
	}
	return r, err
}

// What parse says.
var (
	ErrForeign   = errForeign
	ErrMalformed = errMalformed
)
