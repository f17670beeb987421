package command

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestRingKeepsTheEnd(t *testing.T) {
	// Every way to cut the same text into two or three writes must keep the
	// same end.
	const text = "0123456789abcdefghij"
	for limit := 1; limit <= len(text)+1; limit++ {
		want := text[max(0, len(text)-limit):]
		for i := range len(text) + 1 {
			for j := i; j <= len(text); j++ {
				r := ring{limit: limit}
				for _, part := range []string{text[:i], text[i:j], text[j:]} {
					if n, err := r.Write([]byte(part)); n != len(part) || err != nil {
						t.Fatalf("Write = %d, %v", n, err)
					}
				}
				if got := string(r.bytes()); got != want {
					t.Fatalf("limit %d, cut at %d and %d: kept %q, want %q", limit, i, j, got, want)
				}
				if got := r.dropped(); got != int64(len(text)-len(want)) {
					t.Fatalf("limit %d, cut at %d and %d: dropped %d", limit, i, j, got)
				}
			}
		}
	}
}

func TestDetailIsShortAndPrintable(t *testing.T) {
	got := detail(strings.Repeat("é", 400) + "\x1b[0m\xff the end\n")
	if len(got) > detailLimit+10 || !strings.HasPrefix(got, "…") || !strings.HasSuffix(got, " the end") || strings.ContainsAny(got, "\x1b\n") || !utf8.ValidString(got) {
		t.Errorf("detail %q", got)
	}
}
