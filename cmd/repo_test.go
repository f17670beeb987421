package cmd_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ontagent/agent/acceptance"
	"ontagent/collectors/optics/console"
	"ontagent/config"
)

// The tests here look at the repository itself: what a linter can't hold, and
// what must hold even for who doesn't run one.

const (
	root   = ".."
	module = "ontagent"
)

// source is a Go file.
type source struct {
	path string // from the root, with slashes
	dir  string
	test bool
	fset *token.FileSet
	file *ast.File
}

func (s source) pkg() string { return path.Join(module, s.dir) }

func (s source) at(p token.Pos) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(p).Line)
}

// files returns the paths, from the root, of everything that is kept.
func files(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			switch rel {
			case ".git", "bin", "dist", ".cache":
				return fs.SkipDir
			}
			return nil
		}
		if d.Type().IsRegular() && !strings.HasSuffix(rel, ".out") && !strings.HasSuffix(rel, ".test") {
			all = append(all, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("found only %d files", len(all))
	}
	return all
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	for _, p := range files(t) {
		if path.Ext(p) != ".go" || strings.Contains(p, "/testdata/") {
			continue
		}
		s := source{path: p, dir: path.Dir(p), test: strings.HasSuffix(p, "_test.go"), fset: token.NewFileSet()}
		file, err := parser.ParseFile(s.fset, filepath.Join(root, p), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		s.file = file
		all = append(all, s)
	}
	return all
}

func TestEveryPackageHasOneComment(t *testing.T) {
	comments := map[string][]string{}
	for _, s := range sources(t) {
		if s.test {
			// A directive alone (//nolint) is no comment.
			if text := s.file.Doc.Text(); text != "" && !strings.HasPrefix(text, "go:") {
				t.Errorf("%s: a test file has a package comment", s.path)
			}
			continue
		}
		if _, ok := comments[s.dir]; !ok {
			comments[s.dir] = nil
		}
		if s.file.Doc == nil || strings.TrimSpace(s.file.Doc.Text()) == "" {
			continue
		}
		comments[s.dir] = append(comments[s.dir], s.path)
		want := "Package " + s.file.Name.Name + " "
		if s.file.Name.Name == "main" {
			name := path.Base(s.dir)
			want = strings.ToUpper(name[:1]) + name[1:] + " "
			if strings.HasPrefix(s.file.Doc.Text(), "Command ") {
				want = "Command " + name + " "
			}
		}
		if !strings.HasPrefix(s.file.Doc.Text(), want) {
			t.Errorf("%s: the package comment doesn't begin with %q", s.path, want)
		}
	}
	for dir, in := range comments {
		if len(in) != 1 {
			t.Errorf("package %s: %d package comments %v, want 1", dir, len(in), in)
		}
	}
}

// within says whether a package is, or is below, another.
func within(pkg, parent string) bool {
	return pkg == parent || strings.HasPrefix(pkg, parent+"/")
}

func TestOutsideThingsHaveOneImporter(t *testing.T) {
	for _, rule := range []struct {
		what string
		in   []string // packages below which it may be imported
		test bool     // and in any test
		why  string
	}{
		{"os/exec", []string{"agent/command", "cmd/ontctl", "cmd/ontlab", ".ci"}, true, "process groups, time-outs and bounded output are decided once"},
		{"github.com/eclipse/paho.mqtt.golang", []string{"transport/mqtt", "cmd/ontctl", "cmd/ontlab"}, false, "its traps are handled once"},
		{"github.com/vishvananda/netlink", []string{"collectors/rtnl", "collectors/link", "collectors/wan", "cmd/ontlab"}, false, "they adapt rtnetlink"},
		{"github.com/mdlayher/packet", []string{"agent/probe/pppoe", "agent/probe/dhcp", "agent/probe/multicast", "cmd/ontlab"}, false, "they speak in frames of their own"},
		{"github.com/mdlayher/genetlink", []string{"collectors/link", "collectors/optics", "agent/probe/cable", "cmd/ontlab"}, false, "only ethtool over generic netlink needs it"},
		{"github.com/mdlayher/netlink", []string{"collectors/link", "collectors/optics", "agent/probe/cable", "cmd/ontlab"}, false, "only ethtool over generic netlink needs it"},
		{"github.com/insomniacslk/dhcp", []string{"agent/probe/dhcp"}, false, "it costs; one probe speaks DHCP"},
		{"github.com/emiago/sipgo", []string{"cmd/ontlab"}, true, "a registrar is for the lab; the gateway's messages are its own"},
		{"github.com/shirou/gopsutil", []string{"collectors/host"}, false, "its next major version will differ in one place"},
		{"go.bug.st/serial", []string{"collectors/optics/console"}, false, "its time-outs are wrapped once"},
		{"github.com/gorilla/websocket", []string{"transport/mqtt"}, false, "it is a way to the broker"},
		{"github.com/miekg/dns", []string{"cmd/ontlab"}, true, "it is half a megabyte; the gateway reads answers with x/net/dns/dnsmessage"},
		{"go.etcd.io/bbolt", nil, true, "it is a peer to measure against"},
		{"github.com/mochi-mqtt", []string{"cmd/ontlab"}, true, "a broker is for the lab and for tests"},
		{"github.com/santhosh-tekuri/jsonschema", nil, true, "schemas are checked by tests"},
		{"github.com/google/go-cmp", nil, true, "it panics where it is unsure, which suits tests only"},
		{"testing", []string{"cmd/ontlab"}, true, "it adds flags to a program; fakes live in test files"},
		{"log", nil, false, "log/slog, handed in, is the only log"},
		{"github.com/stretchr/testify", nil, false, "std testing and go-cmp do"},
		{"text/template", []string{"cmd/ontctl", "cmd/ontlab"}, true, "finding methods by name defeats dead-code removal"},
		{"html/template", []string{"cmd/ontctl", "cmd/ontlab"}, true, "finding methods by name defeats dead-code removal"},
		{"ontagent/config", []string{"cmd"}, false, "only the commands read the configuration"},
		{"ontagent/cmd", []string{"cmd"}, true, "nothing depends on a command; tests may use the lab's simulators"},
	} {
		for _, s := range sources(t) {
			if s.test && rule.test || slices.ContainsFunc(rule.in, func(in string) bool { return within(s.dir, in) }) {
				continue
			}
			for _, imp := range imports(s) {
				exact := rule.what == "log" || rule.what == "testing"
				own := within(s.pkg(), rule.what)
				if !own && (imp.path == rule.what || !exact && within(imp.path, rule.what)) {
					t.Errorf("%s imports %s: %s", s.at(imp.pos), imp.path, rule.why)
				}
			}
		}
	}
}

type imported struct {
	path string
	pos  token.Pos
}

func imports(s source) []imported {
	var all []imported
	for _, spec := range s.file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			all = append(all, imported{p, spec.Pos()})
		}
	}
	return all
}

// TestArrows holds the arrows of the architecture: cmd → everything; agent →
// its parts, and collectors and transport by their interfaces; steps →
// acceptance, probe, collectors; backends → their parent; siblings don't know
// one another.
func TestArrows(t *testing.T) {
	// What packages may import of ours, beside their own parents. A rule for
	// "x" is for x alone, one for "x/" for what is below; the longest counts.
	// What may be imported reads the same way.
	parts := []string{"transport/durable", "agent/command", "agent/diagnosis"}
	signed := append([]string{"agent/order"}, parts...)
	rules := map[string][]string{
		"config":      {},
		"collectors":  {},
		"collectors/": {},
		// The rtnetlink socket, which these two share.
		"collectors/link": {"collectors/rtnl"},
		"collectors/wan":  {"collectors/rtnl"},
		"transport":       {},
		"transport/":      {"transport/durable"},
		// The whole: supervision, and the course of a visit.
		"agent":  {"agent/", "collectors", "transport", "transport/durable"},
		"agent/": append([]string{"collectors", "transport"}, parts...),
		// What is signed: a command is run, kept in a record, and handed in.
		"agent/job":     append([]string{"transport"}, signed...),
		"agent/record":  signed,
		"agent/control": append([]string{"transport"}, signed...),
		// What an order allows: consents, actions, standing orders.
		"agent/repair": signed,
		// The concrete rungs.
		"agent/acceptance/steps": {"agent/probe/", "agent/command", "agent/diagnosis", "collectors", "collectors/"},
		"cmd":                    {"agent/", "agent", "collectors/", "collectors", "transport/", "transport", "config"},
		"cmd/":                   {"agent/", "agent", "collectors/", "collectors", "transport/", "transport", "config", "cmd/"},
		".ci/":                   {},
	}
	// What a test imports beyond that, to show that the parts fit.
	fitting := map[string][]string{
		"collectors/optics/console": {"collectors/pon", "cmd/ontlab/ontsim"},
	}
	grants := func(rule []string, to string) bool {
		return slices.ContainsFunc(rule, func(r string) bool {
			return to == r || strings.HasSuffix(r, "/") && strings.HasPrefix(to, r)
		})
	}
	for _, s := range sources(t) {
		rule, ok := rules[s.dir]
		for d := path.Dir(s.dir); !ok && d != "."; d = path.Dir(d) {
			rule, ok = rules[d+"/"]
		}
		if !ok {
			t.Errorf("%s: no rule says what this package may import", s.path)
			continue
		}
		for _, imp := range imports(s) {
			to, ours := strings.CutPrefix(imp.path, module+"/")
			switch {
			case !ours, to == s.dir: // a test from outside imports its own package
			case strings.HasPrefix(s.dir, to+"/") && to != "agent":
			case grants(rule, to):
			case s.test && grants(fitting[s.dir], to):
			case s.test && to == "transport/durable/faultfs": // a file system that fails is for whoever writes files
			default:
				t.Errorf("%s imports %s, which isn't among %v: siblings don't know one another; the commands wire them", s.at(imp.pos), to, rule)
			}
		}
	}
}

func TestNoInitAndNoMutableGlobals(t *testing.T) {
	all := sources(t)
	for _, s := range all {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: func init: say it where it is needed", s.at(d.Pos()))
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR {
					continue
				}
				for _, spec := range d.Specs {
					v, ok := spec.(*ast.ValueSpec)
					if !ok || isConstant(s, d, v) || isTable(all, s, v) {
						continue
					}
					t.Errorf("%s: package variable %s: hand it in", s.at(v.Pos()), v.Names[0].Name)
				}
			}
		}
	}
}

// isConstant says whether a package variable is one only because Go has no
// such constants: an error, a table (an array, which can't grow), an assertion
// (var _ I = T{}), an embedded file, or what the linker writes.
func isConstant(s source, d *ast.GenDecl, v *ast.ValueSpec) bool {
	if v.Names[0].Name == "_" {
		return true
	}
	if d.Doc != nil && slices.ContainsFunc(d.Doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") }) ||
		v.Doc != nil && slices.ContainsFunc(v.Doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") }) {
		return true
	}
	if name := v.Names[0].Name; (name == "version" || name == "built") && s.file.Name.Name == "main" {
		return true
	}
	for _, value := range v.Values {
		switch value := value.(type) {
		case *ast.CallExpr:
			sel, ok := value.Fun.(*ast.SelectorExpr)
			if !ok {
				return false
			}
			name := fmt.Sprintf("%s.%s", sel.X, sel.Sel.Name)
			if name != "errors.New" && name != "fmt.Errorf" && name != "regexp.MustCompile" {
				return false
			}
		case *ast.CompositeLit:
			array, ok := value.Type.(*ast.ArrayType)
			if !ok || array.Len == nil {
				return false
			}
		default:
			return false
		}
	}
	return len(v.Values) > 0
}

// isTable says whether a package variable is an unexported slice that nobody
// in its package writes to.
func isTable(all []source, s source, v *ast.ValueSpec) bool {
	for i, name := range v.Names {
		if name.IsExported() || i >= len(v.Values) {
			return false
		}
		switch value := v.Values[i].(type) {
		case *ast.SliceExpr:
		case *ast.CompositeLit:
			if _, ok := value.Type.(*ast.ArrayType); !ok {
				return false
			}
		default:
			return false
		}
		for _, other := range all {
			if other.dir == s.dir && writes(other.file, name.Name) {
				return false
			}
		}
	}
	return true
}

// writes says whether something of that name is assigned to, appended to or
// has its address taken. Where another thing has the same name it errs on the
// safe side.
func writes(file *ast.File, name string) bool {
	found := false
	is := func(e ast.Expr) bool {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.Ident:
				return x.Name == name
			default:
				return false
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			found = found || slices.ContainsFunc(n.Lhs, is)
		case *ast.IncDecStmt:
			found = found || is(n.X)
		case *ast.UnaryExpr:
			found = found || n.Op == token.AND && is(n.X)
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && (f.Name == "append" || f.Name == "clear" || f.Name == "copy") && len(n.Args) > 0 {
				found = found || is(n.Args[0])
			}
		}
		return true
	})
	return found
}

func TestGoMod(t *testing.T) {
	out, err := goTool(nil, "mod", "edit", "-json")
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`"Replace": \[`).Match(out) {
		t.Error("go.mod has a replace directive: others can't build that")
	}
	if !bytes.Contains(out, []byte(`"Path": "ontagent"`)) {
		t.Error("the module isn't called ontagent")
	}
	// The customer's four, at the newest version of the named major.
	for _, m := range []string{
		"github.com/eclipse/paho.mqtt.golang", "github.com/vishvananda/netlink", "go.bug.st/serial", "github.com/shirou/gopsutil/v3",
	} {
		if !bytes.Contains(out, []byte(`"`+m+`"`)) {
			t.Errorf("go.mod doesn't require %s", m)
		}
	}
}

func goTool(env []string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), append([]string{"GOFLAGS=-mod=readonly -buildvcs=false"}, env...)...)
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, problem.String())
	}
	return out, nil
}

// TestProgramsLinkNothingBanned looks at everything that a program links,
// foreign packages' imports included.
func TestProgramsLinkNothingBanned(t *testing.T) {
	type ban struct{ pkg, why string }
	everywhere := []ban{
		{"testing", "adds flags; fakes live in test files"},
		{"github.com/stretchr/testify", "belongs in nobody's program"},
		{"net/http/pprof", "opens a debug page on the default mux"},
		{"expvar", "opens a debug page on the default mux"},
		{"plugin", "defeats dead-code removal and needs cgo"},
		{"runtime/cgo", "programs are static"},
	}
	onGateway := []ban{
		{"text/template", "finds methods by name, which defeats dead-code removal"},
		{"html/template", "finds methods by name, which defeats dead-code removal"},
		{"go/ast", "no gateway reads Go"},
		{"go/parser", "no gateway reads Go"},
		{"go/token", "no gateway reads Go"},
		{"encoding/xml", "large, and nothing speaks XML"},
		{"encoding/gob", "large, and keeps reflection of every type"},
		{"encoding/csv", "nothing speaks CSV"},
		{"database/sql", "there is no database"},
		{"image", "there is nothing to see"},
		{"archive/zip", "nothing is packed"},
		{"net/rpc", "uses text/template, and MQTT is the only remote call"},
		{"net/smtp", "nothing is mailed"},
		{"os/user", "the daemon is root; names of users aren't its business"},
		{"gopkg.in/yaml.v3", "scenarios are the lab's; the configuration is UCI"},
		{"github.com/mochi-mqtt/server/v2", "a broker is for the lab and for tests"},
		{"github.com/santhosh-tekuri/jsonschema/v6", "schemas are checked by tests"},
		{"github.com/google/go-cmp/cmp", "it panics where it is unsure"},
	}
	targets := map[string][]string{
		"ontagent/cmd/ontagent": {"mipsle", "mips", "arm", "arm64", "386", "amd64"},
	}
	out, err := goTool(nil, "list", "-f", "{{if eq .Name \"main\"}}{{.ImportPath}}{{end}}", "./cmd/...")
	if err != nil {
		t.Fatal(err)
	}
	programs := strings.Fields(string(out))
	if len(programs) == 0 {
		t.Fatal("there are no programs")
	}
	for _, program := range programs {
		banned, archs := everywhere, targets[program]
		if archs != nil {
			banned = slices.Concat(everywhere, onGateway)
		} else {
			archs = []string{"amd64"}
		}
		for _, arch := range archs {
			t.Run(path.Base(program)+"/"+arch, func(t *testing.T) {
				out, err := goTool([]string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch}, "list", "-deps", program)
				if err != nil {
					t.Fatal(err)
				}
				linked := strings.Fields(string(out))
				for _, b := range banned {
					if slices.Contains(linked, b.pkg) {
						t.Errorf("links %s: %s", b.pkg, b.why)
					}
				}
			})
		}
	}
}

func TestSampleConfigurationLoads(t *testing.T) {
	const sample = "ontagent/openwrt/ontagent.config"
	data, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	c, warnings, err := config.Parse(sample, data)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, w := range warnings {
		told = append(told, w.Text)
	}
	if diff := cmp.Diff([]string{"no root key is given: every order will be refused"}, told); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if c.MQTT.Enabled || c.Console.Enabled || c.Control.LANListen != "" {
		t.Error("the sample switches on what has to be set up first")
	}
	if c.Authority.RootKey != "" {
		t.Error("the sample trusts somebody")
	}
	if err := c.Check(); err != nil {
		t.Errorf("the sample needs files: %v", err)
	}
	// What is commented out is an example, and must be right as well.
	uncommented := regexp.MustCompile(`(?m)^(\s*)#((?:option|list) )`).ReplaceAll(data, []byte("$1$2"))
	if bytes.Equal(uncommented, data) {
		t.Fatal("no examples found in the sample")
	}
	if _, _, err := config.Parse(sample, uncommented); err != nil {
		t.Errorf("with the examples in it: %v", err)
	}
}

// The configuration repeats names and ranges that it can't import.
func TestConfigurationKnowsEveryThreshold(t *testing.T) {
	names := map[string]bool{}
	for _, limit := range acceptance.Norms().All() {
		names[limit.Name] = true
		text := fmt.Sprintf("config main\n\toption device 'ONT0123456789'\nconfig thresholds\n\toption %s '%v'\n",
			strings.ReplaceAll(limit.Name, ".", "_"), limit.Value)
		c, _, err := config.Parse("test.conf", []byte(text))
		if err != nil {
			t.Errorf("the default of %s can't be configured: %v", limit.Name, err)
			continue
		}
		if got, ok := c.Thresholds[limit.Name]; !ok || got != limit.Value {
			t.Errorf("%s is configured as %v", limit.Name, c.Thresholds)
		}
	}
	// And no threshold that nobody judges by.
	reference, err := os.ReadFile(filepath.Join(root, "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(reference), "\n## thresholds\n")
	if !ok {
		t.Fatal("no thresholds in the reference")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| ([^|,]+), (-?[0-9]+) to (-?[0-9]+) \\|").FindAllStringSubmatch(table, -1) {
		name := ""
		for n := range names {
			if strings.ReplaceAll(n, ".", "_") == row[1] {
				name = n
			}
		}
		if name == "" {
			t.Errorf("nobody judges by %s", row[1])
			continue
		}
		for _, edge := range row[3:5] {
			v, err := strconv.ParseFloat(edge, 64)
			if err != nil {
				t.Fatal(err)
			}
			// Some pairs of limits must also agree with each other.
			if _, err := acceptance.Norms().With(acceptance.OriginConfig, map[string]float64{name: v}); err != nil && !strings.Contains(err.Error(), "optical.rx_m") {
				t.Errorf("%s may be configured as %v, which is then refused: %v", row[1], v, err)
			}
		}
	}
}

func TestConfigurationKnowsEveryConsoleDriver(t *testing.T) {
	for _, driver := range console.Drivers() {
		text := "config main\n\toption device 'ONT0123456789'\nconfig console\n\toption driver '" + driver + "'\n"
		if _, _, err := config.Parse("test.conf", []byte(text)); err != nil {
			t.Error(err)
		}
	}
}

// isText says whether a file is written by us, for people to read.
func isText(p string) bool {
	if strings.Contains(p, "testdata/") || p == "go.sum" {
		return false
	}
	switch path.Ext(p) {
	case ".go", ".md", ".yml", ".yaml", ".json", ".txt", ".sh", ".config", ".init", ".mk", "":
		return true
	}
	return false
}

func TestTextsAreClean(t *testing.T) {
	// In parts, so as not to be found here.
	rules := []struct{ pattern, why string }{
		{`(?:^|[\s"'(=:` + "`" + `])/(?:home|root|Users|work|workspace)/[A-Za-z]`, "a path of somebody's machine"},
		{`(?i)\bC:\\\\`, "a path of somebody's machine"},
		{`\b(?:TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`, "unfinished: do it, or put it in the docs"},
		{`(?m)^(?:<<<<` + `<<<|>>>>` + `>>>) `, "a conflict"},
	}
	for _, p := range files(t) {
		if !isText(p) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			for _, at := range regexp.MustCompile(r.pattern).FindAllIndex(data, -1) {
				line := 1 + bytes.Count(data[:at[0]], []byte("\n"))
				t.Errorf("%s:%d: %q: %s", p, line, bytes.TrimSpace(data[at[0]:at[1]]), r.why)
			}
		}
	}
}

func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, p := range files(t) {
		if path.Ext(p) != ".md" || strings.Contains(p, "testdata/") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, path.Dir(p), target)); err != nil {
				t.Errorf("%s: link to %s: %v", p, m[1], err)
			}
		}
	}
}

func TestTopLevelIsTheCustomers(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields("agent collectors transport config cmd docs go.mod go.sum Makefile README.md LICENSE bin dist")
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(known, e.Name()) && !strings.HasSuffix(e.Name(), ".out") && !strings.HasSuffix(e.Name(), ".test") {
			t.Errorf("%s has no place at the top level", e.Name())
		}
	}
}
