package throughput

import (
	"errors"
	"fmt"
)

// What a run may end by.
var (
	errBudget   = errors.New("the bytes that a test may move are used up")
	errTooLarge = errors.New("the server takes no request of that size")
	errTooBusy  = errors.New("this gateway is too busy to look at its own interface")
	errTLS      = errors.New("the server wants HTTPS: it does not answer plain HTTP")
)

// shortError says that there was less to move than the test needed.
type shortError string

func (e shortError) Error() string { return string(e) }

// closedError says that the server hung up on an upload.
type closedError struct{ after uint64 }

func (e closedError) Error() string {
	return fmt.Sprintf("the server closed the connection after %d bytes", e.after)
}
