package mtu

import (
	"net/netip"
	"slices"
)

const (
	parallel  = 8  // sizes tried at once: each round leaves a ninth
	maxRounds = 10 // 9^5 > 65535; more only if the path changes meanwhile
)

// search finds the largest size that a path carries there and back.
type search struct {
	smallest, largest int // sizes that can be tried

	good   int // the largest that was answered; 0: none
	bad    int // the smallest that is known not to pass
	rounds int

	// The word of the router with the least MTU; refused is the smallest size
	// that any refused, 0 if none did.
	told, refused int
	toldBy        netip.Addr
}

func newSearch(smallest, largest int) *search {
	return &search{smallest: smallest, largest: largest, bad: largest + 1}
}

// next returns the sizes to try now, the largest first; none when the search is
// over. also are sizes of interest.
func (s *search) next(also ...int) []int {
	s.rounds++
	low := max(s.good+1, s.smallest)
	// Where nothing is answered, only a router's word gives another chance.
	silent := s.rounds > 1 && s.good == 0 && (s.refused == 0 || s.rounds > 2)
	if low >= s.bad || silent || s.rounds > maxRounds {
		return nil
	}
	if s.rounds == 1 {
		// What tunnels and lines leave of 1500: most often the answer.
		also = append(also, s.smallest, 576, 1280, 1400, 1420, 1452, 1460, 1480, 1492, 1500, s.largest)
	} else {
		also = append(also, s.told, s.told+1) // a word to be checked, not believed
		left := s.bad - low
		for i := range min(parallel, left) {
			// From low to bad-1 if so few are left, else evenly between them.
			at := low + i
			if left > parallel {
				at = low + (i+1)*left/(parallel+1)
			}
			also = append(also, at)
		}
	}
	slices.Sort(also)
	slices.Reverse(also)
	return slices.DeleteFunc(slices.Compact(also), func(n int) bool { return n < low || n >= s.bad })
}

// answered notes that a size came back.
func (s *search) answered(n int) {
	s.good = max(s.good, n)
	if s.good >= s.bad { // the path is another one now, or a router lied
		s.bad = s.largest + 1
	}
}

// tooBig notes that a router refused a size, and the MTU it told, 0 if none.
func (s *search) tooBig(n, mtu int, by netip.Addr) {
	if s.refused == 0 || n < s.refused {
		s.refused = n
	}
	if !s.toldBy.IsValid() || mtu < s.told {
		s.told, s.toldBy = mtu, by
	}
	s.silent(n)
}

// silent notes that a size was not answered.
func (s *search) silent(n int) {
	if n > s.good {
		s.bad = min(s.bad, n)
	}
}

// explained reports whether a router's word explains why what is larger does
// not pass. One that tells of a larger MTU, and nothing of what vanishes below
// that, explains nothing.
func (s *search) explained() bool {
	return s.refused != 0 && (s.told <= s.good || s.refused <= s.good+1)
}
