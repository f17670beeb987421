package scenario

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

var update = flag.Bool("update", false, "write docs/scenario.schema.json, the tables of docs/scenarios.md and the goldens anew")

const (
	schemaFile = "../../../docs/scenario.schema.json"
	pageFile   = "../../../docs/scenarios.md"
	shipped    = "../scenarios"
)

// schemaWriter turns specs into JSON Schema, draft 2020-12.
type schemaWriter struct {
	t    *testing.T
	defs map[string]any // what stands once
}

func (w *schemaWriter) document() []byte {
	w.t.Helper()
	file := format()
	doc := w.schema(&file)
	doc["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	doc["title"] = "ontlab scenario"
	doc["description"] = "What a lab plays: both sides of a line, the work order, what goes wrong when, and what is expected. docs/scenarios.md explains it. " +
		"Written from cmd/ontlab/scenario by go test -update; don't edit. Rules that a schema cannot say (a fault needs its service, VLANs differ) are checked when a file is loaded."
	doc["$defs"] = w.defs
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		w.t.Fatal(err)
	}
	return out.Bytes()
}

func (w *schemaWriter) schema(s *spec) map[string]any {
	w.t.Helper()
	switch s.kind {
	case yesNo:
		return map[string]any{"type": "boolean"}
	case number, whole:
		m := map[string]any{"type": "number", "minimum": s.min, "maximum": s.max}
		if s.kind == whole {
			m["type"] = "integer"
		}
		if s.orNone {
			return map[string]any{"anyOf": []any{m, map[string]any{"const": "none"}}}
		}
		return m
	case text:
		if s.oneOf == nil {
			// Digits need no quotes.
			m := map[string]any{"type": []string{"string", "number"}}
			if s.like != nil && !s.like.pattern.MatchString("12") {
				m["type"] = "string"
			}
			if s.maxLen > 0 {
				m["maxLength"] = s.maxLen
			}
			if s.like != nil {
				m["pattern"] = s.like.pattern.String()
			}
			return m
		}
		enum := map[string]any{"enum": s.oneOf}
		if s.shared == "" {
			return enum
		}
		w.defs[s.shared] = enum
		return map[string]any{"$ref": "#/$defs/" + s.shared}
	case list:
		m := map[string]any{"type": "array", "maxItems": s.maxItems, "items": w.schema(s.items)}
		if s.unique {
			m["uniqueItems"] = true
		}
		return m
	case mapping:
	}
	m := w.keys(s.keys, map[string]any{"type": "object"})
	if s.by == "" {
		m["additionalProperties"] = false
		return m
	}
	properties, _ := m["properties"].(map[string]any)
	by, _ := properties[s.by].(map[string]any)
	by["enum"] = s.values()
	delete(by, "type")
	if clear, ok := properties["clear"].(map[string]any); ok {
		clear["enum"] = append(s.values(), "all")
		delete(clear, "type")
		m["oneOf"] = []any{map[string]any{"required": []string{"fault"}}, map[string]any{"required": []string{"clear"}}}
	}
	var cases []any
	for _, v := range s.variants {
		cases = append(cases, map[string]any{
			"if":   map[string]any{"properties": map[string]any{s.by: map[string]any{"const": v.value}}, "required": []string{s.by}},
			"then": w.keys(v.keys, map[string]any{"description": v.doc}),
		})
	}
	m["allOf"] = cases
	m["unevaluatedProperties"] = false
	return m
}

// keys adds what a mapping may have in it.
func (w *schemaWriter) keys(keys []key, m map[string]any) map[string]any {
	w.t.Helper()
	properties := map[string]any{}
	var required []string
	for _, k := range keys {
		p := w.schema(&k.spec)
		doc := k.doc
		if k.unit != "" {
			doc += " In " + k.unit + "."
		}
		if k.derived != "" {
			doc += " Default: " + k.derived + "."
		}
		p["description"] = doc
		if k.def != "" {
			p["default"] = fromYAML(w.t, k.def)
		}
		if k.example != "" {
			p["examples"] = []any{fromYAML(w.t, k.example)}
		}
		properties[k.name] = p
		if k.required {
			required = append(required, k.name)
		}
	}
	if len(properties) > 0 {
		m["properties"] = properties
	}
	if len(required) > 0 {
		m["required"] = required
	}
	return m
}

// fromYAML is a value as JSON Schema sees it.
func fromYAML(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	v, err = jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// compare holds a generated file against the one in the tree.
func compare(t *testing.T, file string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not what the tables say; go test -update writes it (-want +got):\n%s", file, diff)
	}
}

func TestSchemaIsThatOfTheTables(t *testing.T) {
	w := &schemaWriter{t: t, defs: map[string]any{}}
	compare(t, schemaFile, w.document())
}

// compiled is the schema as it is shipped.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	f, err := os.Open(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	doc, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("scenario.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("scenario.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func shippedFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(shipped, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no scenarios (%v)", err)
	}
	return files
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestShippedScenariosFitTheSchemaAndLoad(t *testing.T) {
	schema := compiled(t)
	for _, file := range append(shippedFiles(t), filepath.Join("testdata", "good", "everything.yaml"), filepath.Join("testdata", "good", "least.yaml")) {
		data := read(t, file)
		if err := schema.Validate(fromYAML(t, string(data))); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if _, err := Load(file); err != nil {
			t.Error(err)
		}
	}
	if len(shippedFiles(t)) < 18 {
		t.Errorf("there are %d scenarios only", len(shippedFiles(t)))
	}
}

// TestSchemaSeesTheSameMistakes holds the two checks together: where a file is
// refused for what a single field is, the schema refuses it too.
func TestSchemaSeesTheSameMistakes(t *testing.T) {
	schema := compiled(t)
	const valid = "scenario: x\nexpect: {verdict: pass}\n"
	for _, more := range []string{
		"titel: x", "order: {type: instal}", "order: {require: [dail]}", "order: {thresholds: {optical.rx: 1}}", "order: {consents: [disturb, disturb]}",
		"order: {max_mib: -1}", "order: {max_mib: 1.5}", "order: []", "services: {}", "services: [{}]", "services: [{kind: tv}]",
		"services: [{kind: internet, group: 239.1.1.1}]", "services: [{kind: iptv, access: pppoe}]", "services: [{kind: iptv, account: x}]",
		"services: [{kind: internet, down_mbps: 51}]", "services: [{kind: internet, vlan: 4095}]", "services: [{kind: internet, ipv6: yes please}]",
		"services: [{kind: iptv, igmp: 1}]", "gateway: {serial: 12}", "gateway: {serial: HWTC1234}", "gateway: {mac: '01:00:00:00:00:00'}", "gateway: {console: cisco}",
		"gateway: {rx_power_dbm: dark}", "gateway: {rx_power_dbm: -41}", "gateway: {state: O8}", "gateway: {alarms: [LOST]}", "gateway: {internet: {dial: often}}",
		"gateway: {internet: {mtu: 1501}}", "network: {accounts: [{password: x}]}", "network: {accounts: [{account: x, state: dead}]}",
		"network: {bras: {auth: [eap]}}", "network: {line: {loss_ratio: 1.5}}", "network: {prefix: 56}", "network: {targets: 0}", "network: {vlans: {tv: 3}}",
		"timeline: [{fault: no_padi}]", "timeline: [{}]", "timeline: [{fault: no_pado, delay_ms: 3}]", "timeline: [{fault: no_pado, clear: no_pado}]",
		"timeline: [{clear: everything}]", "timeline: [{fault: rx_power}]", "timeline: [{fault: rx_power, rx_power_dbm: bright}]", "timeline: [{fault: sip_reject, code: 200}]",
		"timeline: [{clear: all, delay_ms: 3}]", "measure: {throughput_window_s: 0}", "measure: {limit_s: 601}",
	} {
		if _, err := Parse("x.yaml", []byte(valid+more)); err == nil {
			t.Errorf("%s loads", more)
		}
		if err := schema.Validate(fromYAML(t, valid+more)); err == nil {
			t.Errorf("%s fits the schema", more)
		}
	}
	for _, file := range []string{
		"scenario: x", "expect: {verdict: pass}", "scenario: x y\nexpect: {verdict: pass}", "scenario: x\nexpect: {}", "scenario: x\nexpect: {verdict: skipped}",
		"scenario: x\nexpect: {verdict: pass, first_cause: dns.dead}", "scenario: x\nexpect: {verdict: pass, causes: [none]}",
		"scenario: x\nexpect: {verdict: pass, rungs: {dial: ok}}", "scenario: x\nexpect: {verdict: pass, within_s: 0}", "[]", "x",
	} {
		if _, err := Parse("x.yaml", []byte(file)); err == nil {
			t.Errorf("%s loads", file)
		}
		if err := schema.Validate(fromYAML(t, file)); err == nil {
			t.Errorf("%s fits the schema", file)
		}
	}
}

// walk visits every key of the format.
func walk(s *spec, at string, visit func(at string, k key)) {
	each := func(keys []key, at string) {
		for _, k := range keys {
			visit(join(at, k.name), k)
			walk(&k.spec, join(at, k.name), visit)
		}
	}
	each(s.keys, at)
	for _, v := range s.variants {
		each(v.keys, at+"("+v.value+")")
	}
	if s.items != nil {
		walk(s.items, at+"[]", visit)
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	file := format()
	fields := 0
	walk(&file, "", func(at string, k key) {
		fields++
		if k.doc == "" || !strings.HasSuffix(k.doc, ".") {
			t.Errorf("%s: %q is no sentence", at, k.doc)
		}
		parent := k.kind == mapping || k.kind == list && k.items.kind == mapping
		oneOfMany := strings.Contains(at, "thresholds.") || strings.Contains(at, "rungs.") || strings.HasSuffix(at, ".port")
		if k.example == "" && !parent && !oneOfMany {
			t.Errorf("%s: no example", at)
		}
		if k.required == (k.def != "" || k.derived != "") && k.kind != mapping {
			t.Errorf("%s: required %v, default %q, derived %q", at, k.required, k.def, k.derived)
		}
		if (k.kind == number || k.kind == whole) && k.min >= k.max {
			t.Errorf("%s: from %g to %g", at, k.min, k.max)
		}
		if k.kind == text && k.oneOf == nil && k.maxLen == 0 && k.like == nil && !slices.Contains([]string{"kind", "fault", "clear"}, k.name) {
			t.Errorf("%s: a text without a bound", at)
		}
		for _, value := range []string{k.def, k.example} {
			if value == "" {
				continue
			}
			var doc yaml.Node
			if err := yaml.Unmarshal([]byte(value), &doc); err != nil {
				t.Errorf("%s: %v", at, err)
				continue
			}
			ms := &mistakes{file: at}
			ms.check(doc.Content[0], &k.spec, k.name)
			if err := ms.err(); err != nil {
				t.Errorf("%s: %q: %v", at, value, err)
			}
		}
	})
	if fields < 150 {
		t.Errorf("%d fields were visited", fields)
	}
}

// TestEverythingIsReadIntoTheTypes loads a file that has each key, and one that
// has none, and looks that the types of Go lose nothing.
func TestEverythingIsReadIntoTheTypes(t *testing.T) {
	for _, name := range []string{"everything", "least"} {
		s, err := Load(filepath.Join("testdata", "good", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		s.File = ""
		var out bytes.Buffer
		enc := yaml.NewEncoder(&out)
		enc.SetIndent(2)
		if err := enc.Encode(s); err != nil {
			t.Fatal(err)
		}
		compare(t, filepath.Join("testdata", "good", name+".golden"), out.Bytes())
	}

	// Each key of the format is in the file.
	var doc yaml.Node
	if err := yaml.Unmarshal(read(t, filepath.Join("testdata", "good", "everything.yaml")), &doc); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	file := format()
	var mark func(n *yaml.Node, s *spec, at string)
	mark = func(n *yaml.Node, s *spec, at string) {
		for _, item := range n.Content {
			if n.Kind == yaml.SequenceNode && s.items != nil {
				mark(item, s.items, at+"[]")
			}
		}
		if n.Kind != yaml.MappingNode {
			return
		}
		value := ""
		if v := lookup(n, s.by); v != nil {
			value = v.Value
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, ok := s.key(n.Content[i].Value, value)
			if !ok {
				continue
			}
			where := join(at, k.name)
			if indexKey(s.keys, k.name) < 0 {
				where = join(at+"("+value+")", k.name)
			}
			used[where] = true
			mark(n.Content[i+1], &k.spec, where)
		}
		if value != "" {
			used[at+"="+value] = true
		}
	}
	mark(doc.Content[0], &file, "")
	walk(&file, "", func(at string, k key) {
		// The internet is bridged here, so that it has no address of its own.
		if !used[at] && !strings.HasPrefix(at, "order.thresholds.") && !strings.HasPrefix(at, "expect.rungs.") && at != "services[](internet).address" {
			t.Errorf("everything.yaml has no %s", at)
		}
	})
	for _, fault := range Faults() {
		if !used["timeline[]="+fault] {
			t.Errorf("everything.yaml has no fault %s", fault)
		}
	}
}
