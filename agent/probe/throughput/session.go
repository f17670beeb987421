package throughput

import (
	"context"
	"net"
	"syscall"
	"time"
)

// A session is a test that a server takes part in. What it opens is for the
// pump: a session moves no test bytes itself.
type session interface {
	// open connects, and returns when bytes flow or may flow: a download's
	// first bytes are on their way, an upload's request is out. Connections
	// that are returned are open; with an error none is.
	open(ctx context.Context) ([]*stream, error)
	// close says goodbye, if the protocol has a word for it, and returns what
	// the server counted, or nil. It closes everything that open opened, in any
	// state, also after ctx has ended, and may be called twice.
	close(ctx context.Context) *serverCount
}

// serverCount is a server's own account of a transfer.
type serverCount struct {
	bytes             uint64
	congestionControl string
}

// stream is a connection that carries test bytes.
type stream struct {
	conn *net.TCPConn
	raw  syscall.RawConn
	// Times of the stages (TR-143), with monotonic readings.
	dialed, connected, requested, first time.Time
	// early is how many test bytes came with what was read before the pump
	// took over (download).
	early uint64
	// limit is how many test bytes there are in all, early ones included
	// (download), or may be sent (upload); 0: no end.
	limit uint64
	// next returns what stands between the part of an upload that limit ends
	// and another one, and that one's limit. nil: there is no other.
	next func() (head []byte, limit uint64)
	// answer judges what a server sends while it is being sent to: nil if the
	// upload may go on. nil func: nothing is expected, and anything is an error.
	answer func([]byte) error
	// server is what the server calls itself, if it does.
	server string
}
