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

// TestCatalogueShowsWhatIsMeasured reads the steps for the names of their
// measurements.
func TestCatalogueShowsWhatIsMeasured(t *testing.T) {
	files, err := filepath.Glob("../acceptance/steps/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no steps", err)
	}
	var names []string
	for _, file := range files {
		ast.Inspect(parse(t, file), func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				names = append(names, strings.Trim(lit.Value, "`\""))
			}
			return true
		})
	}
	// Measured by hand, or remembered.
	names = append(names, "rx_baseline_dbm", "splitter_rx_power_dbm")
	for _, c := range diagnosis.Catalogue() {
		for _, name := range c.Shows {
			short := name
			for _, prefix := range []string{"throughput_down_", "throughput_up_"} {
				short = strings.TrimPrefix(short, prefix)
			}
			for _, prefix := range []string{"gateway_", "target_"} {
				if rest, ok := strings.CutPrefix(name, prefix); ok && !slices.Contains(names, name) {
					short = "_" + rest
				}
			}
			if !slices.Contains(names, short) {
				t.Errorf("%s shows %s, which no step measures", c.Code, name)
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
	done := map[diagnosis.Code]bool{}
	var visit func(path []diagnosis.Code, code diagnosis.Code)
	visit = func(path []diagnosis.Code, code diagnosis.Code) {
		if slices.Contains(path, code) {
			t.Fatalf("circle: %v", append(path, code))
		}
		if done[code] {
			return
		}
		for _, next := range follows[code] {
			visit(append(slices.Clone(path), code), next)
		}
		done[code] = true
	}
	for code := range follows {
		visit(nil, code)
	}
}

// TestCodesAndCatalogueAgree reads the source: every constant has an entry.
func TestCodesAndCatalogueAgree(t *testing.T) {
	var constant, entries []string
	for _, code := range namedConstants(t, "code.go", "Code") {
		constant = append(constant, code)
	}
	for _, c := range diagnosis.Catalogue() {
		entries = append(entries, string(c.Code))
	}
	if last := entries[len(entries)-1]; last != string(diagnosis.Unknown) {
		t.Errorf("the last entry is %s: what is not known has to be", last)
	}
	slices.Sort(constant)
	slices.Sort(entries)
	if diff := cmp.Diff(constant, entries); diff != "" {
		t.Errorf("constants and catalogue differ (-constants +catalogue):\n%s", diff)
	}
}

// origins reads the source for which rungs, or what else, come to each code.
func origins(t *testing.T) map[string][]string {
	t.Helper()
	named := namedConstants(t, "code.go", "Code") // constant → code
	out := map[string][]string{}
	add := func(file, from string) {
		ast.Inspect(parse(t, file), func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			if sel, isSel := n.(*ast.SelectorExpr); isSel {
				if x, isIdent := sel.X.(*ast.Ident); isIdent && x.Name == "diagnosis" {
					id, ok = sel.Sel, true
				}
			}
			if !ok {
				return true
			}
			if code, known := named[id.Name]; known && !slices.Contains(out[code], from) {
				out[code] = append(out[code], from)
			}
			return true
		})
	}
	rungs := constants(t, "../acceptance/acceptance.go", "Rung")
	files, err := filepath.Glob("../acceptance/steps/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no steps", err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		name := strings.TrimSuffix(filepath.Base(file), ".go")
		var from []string
		switch first, _, _ := strings.Cut(name, "_"); first {
		case "reject":
			from = []string{"dial"}
		case "path":
			from = []string{"reachability"}
		case "channel":
			from = []string{"voice", "management"}
		case "lan":
			from = []string{"lan_cabling"}
		case "routed":
			from = []string{"routed_internet"}
		default:
			if from = []string{first}; !slices.Contains(rungs, first) {
				from = []string{"*"}
			}
		}
		for _, f := range from {
			add(file, f)
		}
	}
	add("../acceptance/runner.go", "*")
	add("happenings.go", "telemetry")
	add("sayings.go", "telemetry")
	// Inference names many codes; it comes to those that it looks up or chooses.
	note := func(n ast.Node) {
		if id, ok := n.(*ast.Ident); ok && named[id.Name] != "" && !slices.Contains(out[named[id.Name]], "inference") {
			out[named[id.Name]] = append(out[named[id.Name]], "inference")
		}
	}
	ast.Inspect(parse(t, "infer.go"), func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if fun, ok := n.Fun.(*ast.SelectorExpr); ok && fun.Sel.Name == "put" {
				note(n.Args[0])
			}
		case *ast.AssignStmt:
			if left, ok := n.Lhs[0].(*ast.Ident); ok && (left.Name == "then" || left.Name == "code") {
				note(n.Rhs[0])
			}
		}
		return true
	})
	return out
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
	want := page(t)
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
func page(t *testing.T) []byte {
	t.Helper()
	from := origins(t)
	var b bytes.Buffer
	fmt.Fprint(&b, `# Causes · 原因目录

Generated from agent/diagnosis by `+"`go test ./agent/diagnosis -update`"+`; don't edit. A code is never renamed.

"Sure" is the confidence if nothing else speaks for or against it. *By* says what comes to a cause: a rung of the
ladder (any: \*), *inference* from several rungs' measurements, *telemetry* of the last minutes; a code that nothing
comes to yet (○) is reserved. *Evidence* are the measurements shown with it, *likelier with* causes that raise it,
*not if* rungs that could not have passed: if they did, it is doubted. What it *explains* needs no cause of its own.

本页由目录自动生成，编码不会改名。“把握”是没有其他旁证时的可信度；“来源”是能得出该原因的步骤（* 为任意步骤）、
综合推断（inference）或最近几分钟的遥测（telemetry），○ 表示编码已保留、还没有来源；“依据”是随附的测量值；
“旁证”使其更可信；这些步骤若已通过，则构成“反证”；“连带”现象不再单独算作原因。

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
		mark := "●"
		if len(from[string(c.Code)]) == 0 {
			mark = "○"
		}
		fmt.Fprintf(&b, "\n### %s `%s` – %s · %s\n", mark, c.Code, c.Title.ZH, c.Title.EN)
		fmt.Fprintf(&b, "%s · %s · 把握 %s\\\n", diagnosis.Text(diagnosis.Chinese, diagnosis.KeySeverity+string(c.Severity)), side(c, diagnosis.Chinese), sure(c))
		fmt.Fprintf(&b, "%s · %s · sure %s\n\n", c.Severity, side(c, diagnosis.English), sure(c))
		fmt.Fprintf(&b, "- %s\n  **下一步：**%s\n", c.Means.ZH, c.Action.ZH)
		fmt.Fprintf(&b, "- %s\n  **Next:** %s\n", c.Means.EN, c.Action.EN)
		list(&b, "来源 · by", from[string(c.Code)])
		list(&b, "依据 · evidence", c.Shows)
		list(&b, "旁证 · likelier with", c.With)
		list(&b, "反证 · not if", c.NotIf)
		list(&b, "连带 · explains", c.Explains)
	}
	return b.Bytes()
}

func list[T ~string](b *bytes.Buffer, title string, items []T) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(b, "- %s:", title)
	for _, e := range items {
		if strings.HasSuffix(string(e), ".") {
			e += "*"
		}
		fmt.Fprintf(b, " `%s`", e)
	}
	fmt.Fprintln(b)
}

func sure(c diagnosis.Cause) string { return strconv.FormatFloat(c.Certainty, 'f', -1, 64) }

func side(c diagnosis.Cause, lang diagnosis.Lang) string {
	s := diagnosis.Text(lang, diagnosis.KeySide+string(c.Side))
	if c.OrSide != "" {
		s += " / " + diagnosis.Text(lang, diagnosis.KeySide+string(c.OrSide))
	}
	return s
}

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
