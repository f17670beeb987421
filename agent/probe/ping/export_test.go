package ping

import (
	"context"
	"net/netip"
)

// Run is run, for one kind of socket and without asking for a route first.
func Run(ctx context.Context, target netip.Addr, o Options, mode string) (Result, error) {
	return run(ctx, target, o.normalise(), mode)
}

// Summarise is Result.summarise.
func (r *Result) Summarise() { r.summarise() }

// AppendRequest is appendRequest.
func AppendRequest(b []byte, v6 bool, id, seq uint16, tok [8]byte) []byte {
	return appendRequest(b, v6, id, seq, tok)
}

// ParseReply is parseReply.
func ParseReply(b []byte, v6, header bool) (id, seq uint16, tok [8]byte, ok bool) {
	return parseReply(b, v6, header)
}

// Checksum is checksum.
func Checksum(b []byte) uint16 { return checksum(b) }
