package render_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ontagent/agent/acceptance"
	"ontagent/agent/diagnosis"
	"ontagent/agent/record"
)

// sources returns the program's text, tests left out, and its template.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, pattern := range []string{"*.go", "*.gohtml", "../*.go"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(paths), err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(data)
		}
	}
	return all.String()
}

func TestEveryKeyHasATextInBothLanguages(t *testing.T) {
	text := sources(t)
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`"((?:show|diff)\.[a-z_.]*[a-z_])"`).FindAllStringSubmatch(text, -1) {
		used[m[1]] = true
	}
	if len(used) < 80 {
		t.Fatalf("only %d keys were found", len(used))
	}
	for key := range used {
		if !diagnosis.OfficeKnows(key) {
			t.Errorf("%s is shown, and has no text", key)
		}
	}
	for _, m := range regexp.MustCompile(`(?:KeyLabel ?\+ ?|label )"([a-z_]+)"`).FindAllStringSubmatch(text, -1) {
		for _, lang := range []diagnosis.Lang{diagnosis.Chinese, diagnosis.English} {
			if key := diagnosis.KeyLabel + m[1]; diagnosis.Text(lang, key) == m[1] && lang == diagnosis.Chinese {
				t.Errorf("%s is shown, and has no text", key)
			}
		}
	}
	// And nothing is translated that nobody shows.
	words, err := os.ReadFile(filepath.FromSlash("../../../agent/diagnosis/words_office.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\{"((show|diff)\.([a-z_.]+))",`).FindAllStringSubmatch(string(words), -1) {
		if used[m[1]] || strings.Contains(text, `"`+m[3]+`"`) || strings.HasPrefix(m[3], "verdict.") {
			continue
		}
		t.Errorf("nothing shows %s", m[1])
	}
}

func TestWhatTravelsHasAName(t *testing.T) {
	need := func(key string) {
		if !diagnosis.OfficeKnows(key) {
			t.Errorf("%s has no text", key)
		}
	}
	for _, l := range acceptance.Norms().All() {
		need(diagnosis.KeyThreshold + l.Name)
		need(diagnosis.KeyOrigin + l.Origin)
	}
	for _, o := range []string{acceptance.OriginConfig, acceptance.OriginModule, acceptance.OriginOrder, acceptance.OriginAgent} {
		need(diagnosis.KeyOrigin + o)
	}
	for _, k := range record.AttachmentKinds() {
		need(diagnosis.KeyAttachment + string(k))
	}
	for _, k := range record.Relations() {
		need(diagnosis.KeyRelation + string(k))
	}
	for _, k := range record.RatingItems() {
		need(diagnosis.KeyRated + string(k))
	}
	for _, k := range record.Ratings() {
		need(diagnosis.KeyRating + string(k))
	}
	for _, c := range []string{"ntp", "floor", "none"} {
		need(diagnosis.KeyClock + c)
	}
	// What the rungs measure, as far as it stands in their source.
	paths, err := filepath.Glob(filepath.FromSlash("../../../agent/acceptance/steps/*.go"))
	if err != nil || len(paths) < 10 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	call := regexp.MustCompile(`(?:value|missing|reading|measured|saying|answer|say|seen|stated)\((?:&?(?:c\.)?out, )?"([a-z0-9_]+)"`)
	names := 0
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllStringSubmatch(string(data), -1) {
			names++
			need(diagnosis.KeyMeasurement + m[1])
		}
	}
	if names < 40 {
		t.Errorf("only %d measurements were found", names)
	}
}
