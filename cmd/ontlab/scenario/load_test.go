package scenario

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"ontagent/cmd/ontlab/ontsim"
)

// TestBadFilesAreRefused holds every mistake's words and place: testdata/bad has
// a file for each rule and beside it what is said of it.
func TestBadFilesAreRefused(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "bad", "*.yaml"))
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files (%v)", len(files), err)
	}
	for _, file := range files {
		_, err := Load(file)
		if err == nil {
			t.Errorf("%s loads", file)
			continue
		}
		mistakes, ok := errors.AsType[FileError](err)
		if !ok {
			t.Errorf("%s: %v is no FileError", file, err)
			continue
		}
		lines := bytes.Count(read(t, file), []byte("\n"))
		for _, m := range mistakes {
			if m.File != file || m.Line < 1 || m.Line > lines+1 || m.Column < 1 || m.Text == "" || strings.ContainsAny(m.Text, "\n\x00") {
				t.Errorf("%s: %+v", file, m)
			}
		}
		said := strings.ReplaceAll(err.Error(), filepath.Dir(file)+string(filepath.Separator), "") + "\n"
		compare(t, strings.TrimSuffix(file, ".yaml")+".txt", []byte(said))
	}
}

func TestLoadOfWhatIsNoFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("a directory loads")
	}
}

func TestSizesAreBounded(t *testing.T) {
	head := "scenario: x\nexpect: {verdict: pass}\n"
	refused := map[string]string{
		"a byte too long":  head + strings.Repeat("#", MaxBytes+1-len(head)),
		"deep":             head + "title: " + strings.Repeat("[", 100_000),
		"deep, in blocks":  head + "title:\n" + strings.Repeat(" ", 300) + strings.Repeat("- ", 100_000) + "x",
		"not UTF-8":        head + "title: \xff\xfe",
		"a control":        head + "title: \x01",
		"UTF-16, cut off":  "\xff\xfes\x00c",
		"NUL":              "\x00",
		"many mistakes":    head + strings.Repeat("- x\n", 1000),
		"many keys":        head + "order: {" + strings.Repeat("a: 1, ", 40_000) + "}",
		"a long key":       head + strings.Repeat("k", 100_000) + ": 1",
		"a long word":      head + "order: {type: " + strings.Repeat("w", 200_000) + "}",
		"a long number":    head + "measure: {limit_s: " + strings.Repeat("9", 200_000) + "}",
		"a great exponent": head + "measure: {limit_s: 1e400}",
	}
	for name, data := range refused {
		_, err := Parse("x.yaml", []byte(data))
		if err == nil {
			t.Errorf("%s: loads", name)
			continue
		}
		if len(err.Error()) > 20_000 {
			t.Errorf("%s: %d bytes of error", name, len(err.Error()))
		}
	}
	for name, data := range map[string]string{
		"as long as can be": head + strings.Repeat("#", MaxBytes-len(head)),
		"with a mark":       "\ufeff" + head,
		"CR LF":             strings.ReplaceAll(head, "\n", "\r\n"),
		"with a head":       "%YAML 1.1\n---\n" + head + "...\n",
	} {
		if _, err := Parse("x.yaml", []byte(data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMistakesBeyondFiftyAreCounted(t *testing.T) {
	var text strings.Builder
	text.WriteString("scenario: x\n")
	for i := range 60 {
		text.WriteString("k" + strings.Repeat("x", i) + ": 1\n")
	}
	_, err := Parse("x.yaml", []byte(text.String()))
	all, _ := errors.AsType[FileError](err)
	if len(all) != maxMistakes+1 || !strings.HasSuffix(all[maxMistakes].Text, "and 11 more mistakes") {
		t.Errorf("%d: %v", len(all), err)
	}
	if !slices.IsSortedFunc(all, func(a, b Mistake) int { return a.Line - b.Line }) {
		t.Error(err)
	}
}

func TestNamesAreThoseOfTheSimulator(t *testing.T) {
	if got := ontsim.Dialects(); !slices.Equal(got, consoles()) {
		t.Errorf("consoles are %v, those of the simulator %v", consoles(), got)
	}
	// A mode for each habit, and a habit for each mode.
	source := string(read(t, filepath.Join("..", "ontsim", "ontsim.go")))
	_, source, _ = strings.Cut(source, "// The modes.")
	source, _, _ = strings.Cut(source, "\n)")
	var modes []string
	for line := range strings.Lines(source) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word != "" && word != "const" && word != "//" && word != "(" {
			modes = append(modes, strings.ToLower(word))
		}
	}
	var want []string
	for _, h := range habits() {
		want = append(want, strings.ReplaceAll(h, "_", ""))
	}
	if !slices.Equal(modes, want) {
		t.Errorf("habits %v, modes %v", want, modes)
	}
}

func FuzzParse(f *testing.F) {
	for _, glob := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml", "../scenarios/*.yaml"} {
		files, err := filepath.Glob(glob)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %v", glob, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse("x.yaml", data)
		if err != nil {
			all, ok := errors.AsType[FileError](err)
			if !ok || len(all) == 0 || len(all) > maxMistakes+1 {
				t.Fatalf("%v", err)
			}
			for _, m := range all {
				if m.Line < 1 || m.Column < 1 || m.Text == "" || strings.Contains(m.Text, "cannot be understood") {
					t.Fatalf("%+v", m)
				}
			}
			return
		}
		// What loads can be built: nothing that a default should have filled is empty.
		if s.Name != "x" || s.Expect.Verdict == "" || s.Gateway.Serial == "" || s.Network.Pool == "" || s.Measure.LimitS < 5 || s.Network.BRAS.MTU < 576 {
			t.Fatalf("%+v", s)
		}
		for _, service := range s.Services {
			if service.Kind == "" || service.Access == "" || service.VLAN > 4094 || service.DownMbps > MaxMbps || service.dials() && service.Account == "" {
				t.Fatalf("%+v", service)
			}
			if _, ok := s.Network.VLANs[service.Kind]; !ok {
				t.Fatalf("no VLAN for %s", service.Kind)
			}
		}
		for _, m := range s.Timeline {
			if (m.Fault == "") == (m.Clear == "") || m.Line < 1 {
				t.Fatalf("%+v", m)
			}
		}
	})
}

func TestParseAllocatesInProportion(t *testing.T) {
	data := []byte("scenario: x\nexpect: {verdict: pass}\norder: {" + strings.Repeat("a: 1, ", 40_000) + "}")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Parse("x.yaml", data)
	runtime.ReadMemStats(&after)
	if err == nil || after.TotalAlloc-before.TotalAlloc > 512<<20 {
		t.Errorf("%d MiB for %d KiB (%v)", (after.TotalAlloc-before.TotalAlloc)>>20, len(data)>>10, err)
	}
}
