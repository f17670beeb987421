package diagnosis

import (
	"strings"
	"testing"
	"unicode"
)

func TestOfficeTextFallsBackToWhatFollowsTheDot(t *testing.T) {
	for key, want := range map[string]string{
		"m.some_new_figure_dbm":          "some_new_figure_dbm",
		"threshold.optical.newer_db":     "optical.newer_db",
		"nodot":                          "nodot",
		"threshold.optical.rx_min_dbm":   "received power, lower limit",
		"show.on_behalf":                 "代 (on behalf)", // the mark itself is the norm's, in any language
		"m.throughput.tr143_bytes_full_": "throughput.tr143_bytes_full_",
	} {
		if got := OfficeText(English, key); got != want {
			t.Errorf("%s is %q, not %q", key, got, want)
		}
	}
	if OfficeKnows("m.some_new_figure_dbm") || !OfficeKnows("m.rx_power_dbm") {
		t.Error("OfficeKnows does not tell what is known")
	}
}

func TestOfficeWordsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range officeWords {
		family, _, ok := strings.Cut(w.key, ".")
		if !ok || family == "" || seen[w.key] {
			t.Errorf("key %q has no family, or stands twice", w.key)
		}
		seen[w.key] = true
		for lang, text := range map[Lang]string{Chinese: w.text.ZH, English: w.text.EN} {
			if strings.TrimSpace(text) != text || text == "" {
				t.Errorf("%s: %s is empty, or has space around it: %q", w.key, lang, text)
			}
		}
		if strings.Count(w.text.ZH, "%") != strings.Count(w.text.EN, "%") {
			t.Errorf("%s: the languages do not take the same arguments: %q, %q", w.key, w.text.ZH, w.text.EN)
		}
		if strings.ContainsFunc(w.text.EN, func(r rune) bool { return unicode.Is(unicode.Han, r) }) && w.key != "show.on_behalf" {
			t.Errorf("%s: the English text is Chinese: %q", w.key, w.text.EN)
		}
		sentence := len(w.text.EN) > 15
		if sentence && !strings.ContainsFunc(w.text.ZH, func(r rune) bool { return unicode.Is(unicode.Han, r) }) {
			t.Errorf("%s: the Chinese text is not Chinese: %q", w.key, w.text.ZH)
		}
	}
}
