package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestUCISyntax(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"comments and blank lines", "# a\n\n \t# b\r\n", ""},
		{"unquoted", "config a\noption b c", "[c]"},
		{"windows line ends", "config a\r\noption b c\r\n", "[c]"},
		{"single quotes take all", `config a` + "\n" + `option b 'x "y" \z # ;'`, `[x "y" \z # ;]`},
		{"escaped single quote", `config a` + "\n" + `option b 'it'\''s'`, `[it's]`},
		{"double quotes undo escapes", `config a` + "\n" + `option b "x 'y' \"z\" \\ # ;"`, `[x 'y' "z" \ # ;]`},
		{"parts that touch are one", `config a` + "\n" + `option b x'y'"z"\ w`, `[xyz w]`},
		{"newline in single quotes", "config a\noption b 'x\ny'\noption c z", "[x\ny][z]"},
		{"newline in double quotes", "config a\noption b \"x\ny\"", "[x\ny]"},
		{"line goes on", "config a\noption b x\\\ny", "[xy]"},
		{"line goes on between words", "config a\noption b \\\n x", "[x]"},
		{"semicolon ends a statement", "config a; option b x; option c y", "[x][y]"},
		{"comment ends a word", "config a\noption b x#y\n", "[x]"},
		{"empty value", "config a\noption b ''\noption c \"\"", "[][]"},
		{"package", "package net-work\nconfig a\noption b x", "[x]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			blocks, err := parseUCI("f", []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, b := range blocks {
				for _, e := range b.entries {
					got.WriteString("[" + e.value + "]")
				}
			}
			if got.String() != test.want {
				t.Errorf("values %q, want %q", got.String(), test.want)
			}
		})
	}
}

func TestUCILinesAreThoseOfTheFile(t *testing.T) {
	blocks, err := parseUCI("f", []byte("package p\n\nconfig a 'n'\n\toption b 'x\n\ny'\n\tlist c \\\n\t  z\n\n# no\nconfig d\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []block{
		{typ: "a", name: "n", line: 3, entries: []entry{
			{name: "b", value: "x\n\ny", line: 4},
			{name: "c", value: "z", list: true, line: 7},
		}},
		{typ: "d", line: 11},
	}
	if diff := cmp.Diff(want, blocks, cmp.AllowUnexported(block{}, entry{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A file cut short is refused or means less; it never means something else.
func TestUCITruncated(t *testing.T) {
	whole, err := os.ReadFile("testdata/full.conf")
	if err != nil {
		t.Fatal(err)
	}
	all, err := parseUCI("f", whole)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		blocks, err := parseUCI("f", whole[:n])
		if err != nil {
			continue
		}
		if len(blocks) > len(all) {
			t.Fatalf("cut at %d: %d sections of %d", n, len(blocks), len(all))
		}
		for i, b := range blocks {
			// The last line may have lost part of a word.
			if i < len(blocks)-1 && (b.typ != all[i].typ || len(b.entries) != len(all[i].entries)) {
				t.Fatalf("cut at %d: section %d is another", n, i)
			}
		}
	}
}

// FuzzUCI: no panic; what is accepted, and written again, means the same; an
// error names a line of the file.
func FuzzUCI(f *testing.F) {
	for _, pattern := range []string{"testdata/*.conf", "testdata/bad/*.conf", "../cmd/ontagent/openwrt/*.config"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no seeds in %s: %v", pattern, err)
		}
		for _, path := range files {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		blocks, err := parseUCI("f", data)
		if err != nil {
			e, ok := err.(*Error) //nolint:errorlint // the parser's own, never wrapped
			if !ok || e.Line < 1 || e.Line > strings.Count(string(data), "\n")+1 || !utf8.ValidString(e.Text) {
				t.Fatalf("error %#v", err)
			}
			return
		}
		again, err := parseUCI("f", []byte(write(blocks)))
		if err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
		if write(again) != write(blocks) {
			t.Fatalf("written again it means something else: %q, %q", write(blocks), write(again))
		}
		// The decoder takes whatever the parser accepts.
		if c, _, err := Parse("f", data); err == nil {
			var out strings.Builder
			if err := c.Print(&out); err != nil {
				t.Fatal(err)
			}
			if _, _, err := Parse("f", []byte(out.String())); err != nil {
				t.Fatalf("cannot read what was printed: %v\n%s", err, out.String())
			}
		}
	})
}

func write(blocks []block) string {
	var out strings.Builder
	for _, b := range blocks {
		out.WriteString("config " + quote(b.typ))
		if b.name != "" {
			out.WriteString(" " + quote(b.name))
		}
		out.WriteString("\n")
		for _, e := range b.entries {
			out.WriteString("\t" + e.keyword() + " " + e.name + " " + quote(e.value) + "\n")
		}
	}
	return out.String()
}
