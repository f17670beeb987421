package consumer

import (
	"math"
	"slices"
	"sort"
)

// kind is what is known of a range of numbers. The values stand in snapshots.
type kind uint8

const (
	hole    kind = iota // missing, or not yet given; never in a list
	seen                // received
	covered             // told as dropped by the gateway, and not received
	unknown             // from before our time, and not received
	settled             // received, told or from before our time: which is forgotten
	lost                // partly given up: which came is forgotten
	kinds               // how many
)

// accounted reports whether nothing of the range is owed any more.
func (k kind) accounted() bool { return k == seen || k == covered || k == settled }

// span is a range of numbers, both ends included.
type span struct {
	from, to uint64
	kind     kind
}

// count is the length, at most the largest number there is.
func (s span) count() uint64 {
	if s.from == 0 && s.to == math.MaxUint64 {
		return math.MaxUint64
	}
	return s.to - s.from + 1
}

// open reports whether the range has no end.
func (s span) open() bool { return s.to == math.MaxUint64 }

// spans are disjoint and in order; neighbours that touch differ in kind.
type spans []span

// at returns what is known of a number.
func (s spans) at(n uint64) kind {
	i := sort.Search(len(s), func(i int) bool { return s[i].to >= n })
	if i < len(s) && s[i].from <= n {
		return s[i].kind
	}
	return hole
}

// paint gives every part of [from, to], holes included, the kind that over
// returns for the present one.
func (s spans) paint(from, to uint64, over func(part span) kind) spans {
	if n := len(s); n > 0 && s[n-1].to < from { // the next number: nearly always
		return s.add(span{from, to, over(span{from, to, hole})})
	}
	out := make(spans, 0, len(s)+2)
	next, done := from, false
	rest := func(upTo uint64) { // the hole from next to upTo
		if !done && next <= upTo {
			out = out.add(span{next, upTo, over(span{next, upTo, hole})})
		}
	}
	for _, x := range s {
		if x.to < from {
			out = out.add(x)
			continue
		}
		if x.from > to {
			rest(to)
			done = true
			out = out.add(x)
			continue
		}
		if x.from < from {
			out = out.add(span{x.from, from - 1, x.kind})
		} else if x.from > 0 {
			rest(x.from - 1)
		}
		part := span{max(x.from, from), min(x.to, to), x.kind}
		out = out.add(span{part.from, part.to, over(part)})
		if x.to > to {
			out = out.add(span{to + 1, x.to, x.kind})
		}
		if done = part.to == to; !done {
			next = part.to + 1
		}
	}
	rest(to)
	return out
}

// add appends x, joined to the last if it continues it.
func (s spans) add(x span) spans {
	if x.kind == hole {
		return s
	}
	if n := len(s); n > 0 && s[n-1].kind == x.kind && s[n-1].to+1 == x.from {
		s[n-1].to = x.to
		return s
	}
	return append(s, x)
}

// prefix returns up to where all numbers from 1 on are accounted for.
func (s spans) prefix() uint64 {
	end := uint64(0)
	for _, x := range s {
		if x.from != end+1 || !x.kind.accounted() {
			break
		}
		if end = x.to; x.open() {
			break
		}
	}
	return end
}

// holes calls fn with every hole up to top, lowest first, until it says false.
func (s spans) holes(top uint64, fn func(from, to uint64) bool) {
	next := uint64(1)
	for _, x := range s {
		if next > top {
			return
		}
		if x.from > next && !fn(next, min(x.from-1, top)) {
			return
		}
		if x.open() {
			return
		}
		next = x.to + 1
	}
	if next <= top {
		fn(next, top)
	}
}

// shorten joins two spans into one, at the low end. What is accounted for from
// number 1 on stays so. It returns the hole that was given up, if there was one
// between the two.
func (s spans) shorten() (out spans, gaveUp span, ok bool) {
	lead := 0
	for end := uint64(0); lead < len(s) && s[lead].from == end+1 && s[lead].kind.accounted() && !s[lead].open(); lead++ {
		end = s[lead].to
	}
	i := 0
	if lead == 1 {
		i = 1
	}
	if i+1 >= len(s) || s[i+1].open() { // numbers still to come are not lost
		return s, span{}, false
	}
	a, b := s[i], s[i+1]
	joined := span{a.from, b.to, lost}
	if a.to+1 < b.from {
		gaveUp = span{a.to + 1, b.from - 1, hole}
	} else if a.kind.accounted() && b.kind.accounted() {
		joined.kind = settled
	}
	out = append(slices.Clone(s[:i]), joined)
	for _, x := range s[i+2:] {
		out = out.add(x)
	}
	return out, gaveUp, true
}
