package mtu

import "net/netip"

// Search is search.
type Search = search

// NewSearch is newSearch.
func NewSearch(smallest, largest int) *Search { return newSearch(smallest, largest) }

// Next, Answered, TooBig, Silent and Explained are the methods.
func (s *Search) Next(also ...int) []int { return s.next(also...) }

// Answered is answered.
func (s *Search) Answered(n int) { s.answered(n) }

// TooBig is tooBig.
func (s *Search) TooBig(n, mtu int) { s.tooBig(n, mtu, netip.Addr{}) }

// Silent is silent.
func (s *Search) Silent(n int) { s.silent(n) }

// Explained is explained.
func (s *Search) Explained() bool { return s.explained() }

// Good is what was found.
func (s *Search) Good() int { return s.good }

// Request is request.
func Request(n int, v6 bool, id, seq uint16, tok [8]byte) []byte { return request(n, v6, id, seq, tok) }

// ParseEcho is parseEcho.
func ParseEcho(b []byte, kind byte, header bool) (id, seq uint16, rest []byte, ok bool) {
	return parseEcho(b, kind, header)
}

// ParseExtended is parseExtended.
func ParseExtended(b []byte) (kind, code byte, info uint32, from netip.Addr, ok bool) {
	e, ok := parseExtended(b)
	return e.kind, e.code, e.info, e.from, ok
}
