package scenario

import (
	"slices"
	"strings"

	"ontagent/agent/diagnosis"
)

// names returns what typed constants are written as.
func names[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

// causes returns every code of the catalogue.
func causes() []string {
	var codes []string
	for _, c := range diagnosis.Catalogue() {
		codes = append(codes, string(c.Code))
	}
	return codes
}

// didYouMean returns the known word that is most like a mistyped one, or "".
func didYouMean(word string, known []string) string {
	best, least := "", 1+max(1, min(len(word)/3, 4))
	folded := strings.ToLower(word)
	for _, k := range known {
		if d := distance(folded, strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	if best != "" || len(word) < 3 {
		return best
	}
	// A part of it: password for account.wrong_password, if nothing else has it.
	i := slices.IndexFunc(known, func(k string) bool { return strings.Contains(strings.ToLower(k), folded) })
	if i < 0 || slices.ContainsFunc(known[i+1:], func(k string) bool { return strings.Contains(strings.ToLower(k), folded) }) {
		return ""
	}
	return known[i]
}

// distance is how many letters have to be put in, taken out, changed or swapped
// with their neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	var rows [3][65]int
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row := &rows[(i+1)%3], &rows[(i-1)%3], &rows[i%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return rows[len(a)%3][len(b)]
}
