package diagnosis_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/diagnosis"
)

var update = flag.Bool("update", false, "write the generated pages anew")

func TestCatalogueEntryIsWhole(t *testing.T) {
	form := regexp.MustCompile(`^[a-z0-9_]+(\.[a-z0-9_]+)?$`)
	sides := []diagnosis.Side{
		diagnosis.SideCustomer, diagnosis.SideDrop, diagnosis.SideODN, diagnosis.SideOLT, diagnosis.SideBRAS,
		diagnosis.SidePlatform, diagnosis.SideDevice, diagnosis.SideUnknown,
	}
	severities := []diagnosis.Severity{diagnosis.Critical, diagnosis.Major, diagnosis.Minor, diagnosis.Info}
	seen := map[diagnosis.Code]bool{}
	for _, c := range diagnosis.Catalogue() {
		t.Run(string(c.Code), func(t *testing.T) {
			if !form.MatchString(string(c.Code)) {
				t.Errorf("code %q is not dotted lower case", c.Code)
			}
			if seen[c.Code] {
				t.Errorf("there are two entries")
			}
			seen[c.Code] = true
			if !slices.Contains(sides, c.Side) || c.OrSide != "" && (!slices.Contains(sides, c.OrSide) || c.OrSide == c.Side) {
				t.Errorf("side %q, or %q", c.Side, c.OrSide)
			}
			if !slices.Contains(severities, c.Severity) {
				t.Errorf("severity %q", c.Severity)
			}
			if c.Certainty < 0 || c.Certainty >= 1 || c.Certainty == 0 && c.Code != diagnosis.Unknown {
				t.Errorf("certainty %v", c.Certainty)
			}
			for what, w := range map[string]diagnosis.Words{"title": c.Title, "means": c.Means, "action": c.Action} {
				if w.EN == "" || strings.ContainsFunc(w.EN, isHan) {
					t.Errorf("%s in English: %q", what, w.EN)
				}
				if !strings.ContainsFunc(w.ZH, isHan) {
					t.Errorf("%s in Chinese: %q", what, w.ZH)
				}
			}
			if c.Title.ZH == c.Means.ZH || len([]rune(c.Title.ZH)) > 24 {
				t.Errorf("the Chinese title is no title: %q", c.Title.ZH)
			}
		})
	}
}

func isHan(r rune) bool { return unicode.Is(unicode.Han, r) }

func TestCatalogueRefersOnlyToWhatExists(t *testing.T) {
	all := diagnosis.Catalogue()
	rungs := constants(t, "../acceptance/acceptance.go", "Rung")
	for _, c := range all {
		for _, e := range slices.Concat(c.Explains, c.With) {
			known := slices.ContainsFunc(all, func(o diagnosis.Cause) bool {
				return o.Code == e || strings.HasSuffix(string(e), ".") && strings.HasPrefix(string(o.Code), string(e))
			})
			if !known || e == c.Code {
				t.Errorf("%s refers to %q", c.Code, e)
			}
		}
		for _, r := range c.NotIf {
			if !slices.Contains(rungs, r) {
				t.Errorf("%s refers to rung %q", c.Code, r)
			}
		}
	}
}

func TestCatalogueExplainsInNoCircle(t *testing.T) {
	all := diagnosis.Catalogue()
	follows := map[diagnosis.Code][]diagnosis.Code{}
	for _, c := range all {
		for _, o := range all {
			for _, e := range c.Explains {
				family := strings.HasSuffix(string(e), ".") && strings.HasPrefix(string(o.Code), string(e)) && o.Severity != diagnosis.Info
				if e == o.Code || family {
					follows[c.Code] = append(follows[c.Code], o.Code)
				}
			}
		}
	}
	var visit func(path []diagnosis.Code, code diagnosis.Code)
	visit = func(path []diagnosis.Code, code diagnosis.Code) {
		if slices.Contains(path, code) {
			t.Fatalf("circle: %v", append(path, code))
		}
		for _, next := range follows[code] {
			visit(append(slices.Clone(path), code), next)
		}
	}
	for code := range follows {
		visit(nil, code)
	}
}

// TestCodesAndCatalogueAgree reads the source: every constant has an entry,
// and Produced is true of exactly those that steps and runner use.
func TestCodesAndCatalogueAgree(t *testing.T) {
	named := namedConstants(t, "code.go", "Code") // constant → code
	var constant, entries []string
	for _, code := range named {
		constant = append(constant, code)
	}
	for _, c := range diagnosis.Catalogue() {
		entries = append(entries, string(c.Code))
	}
	slices.Sort(constant)
	slices.Sort(entries)
	if diff := cmp.Diff(constant, entries); diff != "" {
		t.Errorf("constants and catalogue differ (-constants +catalogue):\n%s", diff)
	}

	used := map[string]bool{string(diagnosis.Unknown): true}
	files, err := filepath.Glob("../acceptance/steps/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no steps", err)
	}
	for _, file := range append(files, "../acceptance/runner.go") {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		ast.Inspect(parse(t, file), func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "diagnosis" {
				if code, ok := named[sel.Sel.Name]; ok {
					used[code] = true
				}
			}
			return true
		})
	}
	var produced []string
	for _, c := range diagnosis.Catalogue() {
		if c.Produced {
			produced = append(produced, string(c.Code))
		}
	}
	slices.Sort(produced)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(used)), produced); diff != "" {
		t.Errorf("what is emitted and what is marked produced differ (-emitted +marked):\n%s", diff)
	}
}

// TestCodesAreNeverRenamed holds every code that was ever released. Lines are
// only added to the file.
func TestCodesAreNeverRenamed(t *testing.T) {
	const file = "testdata/codes.txt"
	var all []string
	for _, c := range diagnosis.Catalogue() {
		all = append(all, string(c.Code))
	}
	slices.Sort(all)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	released := strings.Fields(string(data))
	for _, code := range released {
		if !slices.Contains(all, code) {
			t.Errorf("code %s was released and is gone", code)
		}
	}
	if *update {
		all = append(all, released...)
		slices.Sort(all)
		all = slices.Compact(all)
		if err := os.WriteFile(file, []byte(strings.Join(all, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, code := range all {
		if !slices.Contains(released, code) {
			t.Errorf("run the test with -update: code %s is not in %s", code, file)
		}
	}
}

func TestWordsCoverWhatTravels(t *testing.T) {
	var keys []string
	add := func(family string, values []string) {
		if len(values) == 0 {
			t.Fatalf("no values for %s", family)
		}
		for _, v := range values {
			keys = append(keys, family+v)
		}
	}
	add(diagnosis.KeyRung, constants(t, "../acceptance/acceptance.go", "Rung"))
	add(diagnosis.KeyVerdict, constants(t, "../acceptance/acceptance.go", "Verdict"))
	add(diagnosis.KeyReject, constants(t, "../order/refusal.go", "Reason"))
	add(diagnosis.KeyOrder, constants(t, "../order/order.go", "Type"))
	add(diagnosis.KeyAction, constants(t, "../order/command.go", "CommandType"))
	add(diagnosis.KeyStatus, constants(t, "../../collectors/collectors.go", "Status"))
	add(diagnosis.KeyJob, constants(t, "../job/job.go", "State"))
	add(diagnosis.KeySide, constants(t, "code.go", "Side"))
	add(diagnosis.KeySeverity, constants(t, "code.go", "Severity"))
	add(diagnosis.KeyKind, constants(t, "diagnose.go", "Kind"))
	for _, key := range keys {
		_, plain, _ := strings.Cut(key, ".")
		zh, en := diagnosis.Text(diagnosis.Chinese, key), diagnosis.Text(diagnosis.English, key)
		if zh == plain && plain != "iptv" {
			t.Errorf("%s has no Chinese word", key)
		}
		if en == "" || strings.ContainsFunc(en, isHan) {
			t.Errorf("%s in English: %q", key, en)
		}
	}
}

func TestTextLooksUp(t *testing.T) {
	for _, tt := range []struct {
		lang diagnosis.Lang
		key  string
		want string
	}{
		{diagnosis.Chinese, "verdict.inconclusive", "无法判定"},
		{diagnosis.Chinese, "rung.optical", "光衰"},
		{diagnosis.Chinese, "rung.identity", "资源准确"},
		{diagnosis.English, "verdict.skipped", "skipped"},
		{diagnosis.Chinese, "job.RUNNING", "执行中"},
		{diagnosis.English, "job.TIMED_OUT", "timed out"},
		{diagnosis.Chinese, "cause.optical.no_light", "无光"},
		{diagnosis.English, "cause.optical.no_light", "No light"},
		{diagnosis.English, "cause.unknown", "Unknown"},
		{diagnosis.Chinese, "cause.optical.from_the_future", "optical.from_the_future"},
		{diagnosis.Chinese, "verdict.maybe", "maybe"},
		{diagnosis.Chinese, "job.NEW_STATE", "NEW_STATE"},
		{diagnosis.Chinese, "nothing", "nothing"},
		{diagnosis.Chinese, "", ""},
		{"fr", "verdict.pass", "pass"},
	} {
		if got := diagnosis.Text(tt.lang, tt.key); got != tt.want {
			t.Errorf("Text(%s, %q) = %q, want %q", tt.lang, tt.key, got, tt.want)
		}
	}
	if got := diagnosis.Text(diagnosis.Chinese, "cause.optical.no_light:action"); got != diagnosis.Action(diagnosis.Chinese, diagnosis.OpticalNoLight) {
		t.Errorf("action by key: %q", got)
	}
	if got := diagnosis.Text(diagnosis.English, "cause.optical.no_light:means"); got != diagnosis.Means(diagnosis.English, diagnosis.OpticalNoLight) {
		t.Errorf("meaning by key: %q", got)
	}
	if got := diagnosis.Title(diagnosis.English, "x.y"); got != "x.y" {
		t.Errorf("unknown title: %q", got)
	}
}

func TestParseLang(t *testing.T) {
	for tag, want := range map[string]diagnosis.Lang{
		"zh": diagnosis.Chinese, "zh-CN": diagnosis.Chinese, "zh_CN.UTF-8": diagnosis.Chinese, "ZH-hans": diagnosis.Chinese,
		"en": diagnosis.English, "en_GB.UTF-8": diagnosis.English,
	} {
		if got, ok := diagnosis.ParseLang(tag); got != want || !ok {
			t.Errorf("ParseLang(%q) = %s, %t", tag, got, ok)
		}
	}
	for _, tag := range []string{"", "C", "de"} {
		if got, ok := diagnosis.ParseLang(tag); got != diagnosis.English || ok {
			t.Errorf("ParseLang(%q) = %s, %t", tag, got, ok)
		}
	}
}

func TestCausesPageIsGenerated(t *testing.T) {
	const file = "../../docs/causes.md"
	want := page()
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("run the test with -update: docs/causes.md is out of date (-want +got):\n%s", diff)
	}
}

// page is docs/causes.md.
func page() []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, `# Causes · 原因目录

Generated from agent/diagnosis by `+"`go test ./agent/diagnosis -update`"+`; don't edit. A code is never renamed.
● says that a rung of this release can come to the cause; ○ that the code is reserved for a rung still to be built.
"Sure" is the confidence if nothing else speaks for or against it.

本页由目录自动生成。● 表示本版本已能判出，○ 表示编码已保留、对应步骤还没有实现。

`)
	family := "?"
	for _, c := range diagnosis.Catalogue() {
		name, _, ok := strings.Cut(string(c.Code), ".")
		if !ok {
			name = "agent"
		}
		if name == "clock" || name == "wifi" {
			name = family
		}
		if name != family {
			family = name
			fmt.Fprintf(&b, "\n## %s\n", family)
		}
		mark := "○"
		if c.Produced {
			mark = "●"
		}
		side := side(c, diagnosis.English)
		fmt.Fprintf(&b, "\n### %s `%s` – %s · %s\n", mark, c.Code, c.Title.ZH, c.Title.EN)
		fmt.Fprintf(&b, "%s · %s · %s · sure %s\n\n", c.Severity, side, sideZH(c), strconv.FormatFloat(c.Certainty, 'f', -1, 64))
		fmt.Fprintf(&b, "- %s\n  **下一步：**%s\n", c.Means.ZH, c.Action.ZH)
		fmt.Fprintf(&b, "- %s\n  **Next:** %s\n", c.Means.EN, c.Action.EN)
		if len(c.Explains) > 0 {
			var list []string
			for _, e := range c.Explains {
				if strings.HasSuffix(string(e), ".") {
					e += "*"
				}
				list = append(list, "`"+string(e)+"`")
			}
			fmt.Fprintf(&b, "- explains: %s\n", strings.Join(list, " "))
		}
	}
	return b.Bytes()
}

func side(c diagnosis.Cause, lang diagnosis.Lang) string {
	s := diagnosis.Text(lang, diagnosis.KeySide+string(c.Side))
	if c.OrSide != "" {
		s += " / " + diagnosis.Text(lang, diagnosis.KeySide+string(c.OrSide))
	}
	return s
}

func sideZH(c diagnosis.Cause) string { return side(c, diagnosis.Chinese) }

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// namedConstants returns the string constants of a type that a file declares.
func namedConstants(t *testing.T, file, typ string) map[string]string {
	t.Helper()
	out := map[string]string{}
	ast.Inspect(parse(t, file), func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) == 0 {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != typ {
			return true
		}
		for i, v := range spec.Values {
			if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				out[spec.Names[i].Name] = s
			}
		}
		return true
	})
	return out
}

func constants(t *testing.T, file, typ string) []string {
	t.Helper()
	return slices.Sorted(maps.Values(namedConstants(t, file, typ)))
}
