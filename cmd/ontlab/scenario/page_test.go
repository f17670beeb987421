package scenario

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ontagent/agent/acceptance"
)

// onPage says for the page what a value may be.
func (s *spec) onPage() string {
	switch s.kind {
	case yesNo:
		return "true or false"
	case number, whole:
		words := "number, "
		if s.kind == whole {
			words = "whole number, "
		}
		if s.max >= 1e9 {
			words += s.unit
		} else {
			words += figure(s.min) + " to " + figure(s.max)
			if s.unit != "" {
				words += " " + s.unit
			}
		}
		if s.orNone {
			words += ", or `none`"
		}
		return strings.TrimSuffix(words, ", ")
	case list:
		words := fmt.Sprintf("list, ≤ %d", s.maxItems)
		if s.unique {
			words += ", each once"
		}
		if s.items.kind == mapping {
			return words + ", of mappings, see below"
		}
		return words + ", of: " + s.items.onPage()
	case mapping:
		return "mapping, see below"
	case text:
	}
	switch {
	case s.shared != "" || len(s.oneOf) > 30:
		return "a code of [causes](causes.md)"
	case s.oneOf != nil:
		return "`" + strings.Join(s.oneOf, "` `") + "`"
	case s.like != nil && s.maxLen > 0:
		return fmt.Sprintf("%s; ≤ %d bytes", s.like.words, s.maxLen)
	case s.like != nil:
		return s.like.words
	}
	return fmt.Sprintf("text, ≤ %d bytes", s.maxLen)
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// otherwise says for the page what holds if the key is not there.
func (k key) otherwise() string {
	switch {
	case k.required:
		return "**required**"
	case k.def != "":
		return code(k.def)
	case k.derived != "":
		return k.derived
	}
	return "as its keys"
}

func keyTable(keys []key) string {
	var b strings.Builder
	b.WriteString("| key | what | value | default | example |\n|---|---|---|---|---|\n")
	for _, k := range keys {
		example := strings.ReplaceAll(k.example, "|\n  ", "")
		value := k.onPage()
		if k.name == "kind" && k.oneOf == nil {
			value = code(strings.Join(serviceSpec().values(), "` `"))
		}
		if k.name == "fault" {
			value = "see [faults](#faults)"
		}
		if k.name == "clear" {
			value = "see [faults](#faults), or `all`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", k.name, cell(k.doc), cell(value), cell(k.otherwise()), code(cell(example)))
	}
	return b.String()
}

// tables returns the generated parts of the page by name.
func tables() map[string]string {
	file := format()
	at := func(path ...string) spec {
		s := file
		for _, name := range path {
			k, ok := s.key(name, "")
			if !ok {
				panic(path)
			}
			s = k.spec
			if s.kind == list {
				s = *s.items
			}
		}
		return s
	}
	out := map[string]string{
		"file": keyTable(file.keys), "services": keyTable(serviceSpec().keys), "timeline": keyTable(momentSpec().keys),
		"faults": faultTable(), "states": stateTable(), "events": eventTable(), "thresholds": thresholdTable(),
	}
	for _, path := range []string{
		"order", "gateway", "gateway.internet", "network", "network.accounts", "network.aaa", "network.bras", "network.vlans",
		"network.line", "network.dns", "network.dhcp", "network.speed_server", "measure", "expect",
	} {
		out[path] = keyTable(at(strings.Split(path, ".")...).keys)
	}
	for _, v := range serviceSpec().variants {
		out["services."+v.value] = v.doc + "\n\n" + keyTable(v.keys)
	}
	return out
}

func faultTable() string {
	var b strings.Builder
	b.WriteString("| fault | what happens | parameters | needs |\n|---|---|---|---|\n")
	for _, v := range faults() {
		var params []string
		for _, k := range v.keys {
			otherwise := "default " + k.otherwise()
			if k.required {
				otherwise = "required"
			}
			params = append(params, fmt.Sprintf("`%s`: %s %s; %s", k.name, k.doc, k.onPage(), otherwise))
		}
		needs := ""
		if v.needs != needNothing {
			needs = v.needs.String()
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", v.value, cell(v.doc), cell(strings.Join(params, "<br>")), needs)
	}
	return b.String()
}

func stateTable() string {
	var b strings.Builder
	b.WriteString("| state | Reply-Message |\n|---|---|\n")
	for _, state := range accountStates() {
		reply := StateReply(state)
		if reply == "" {
			reply = "no reject"
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", state, reply)
	}
	return b.String()
}

func eventTable() string {
	var b strings.Builder
	b.WriteString("| TYPE | WHAT |\n|---|---|\n")
	for _, t := range eventTypes() {
		var whats []string
		for _, what := range t.whats {
			if prefix, open := strings.CutSuffix(what, "-"); open {
				what = prefix + "NAME"
			}
			whats = append(whats, what)
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", t.name, code(strings.Join(whats, "` `")))
	}
	return b.String()
}

func thresholdTable() string {
	var b strings.Builder
	b.WriteString("| name | unit |\n|---|---|\n")
	for _, name := range thresholdNames() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, acceptance.Unit(name))
	}
	return b.String()
}

func TestPageHasTheTables(t *testing.T) {
	page, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	parts := tables()
	var used []string
	block := regexp.MustCompile(`(?s)(<!-- table ([a-z_.]+) -->\n).*?(<!-- end -->\n)`)
	want := block.ReplaceAllStringFunc(string(page), func(whole string) string {
		m := block.FindStringSubmatch(whole)
		text, ok := parts[m[2]]
		if !ok {
			t.Errorf("there is no table %s", m[2])
			return whole
		}
		used = append(used, m[2])
		return m[1] + "\n" + text + "\n" + m[3]
	})
	for name := range parts {
		if !slices.Contains(used, name) {
			t.Errorf("the page lacks table %s", name)
		}
	}
	compare(t, pageFile, []byte(want))
}

// TestExamplesOfThePageLoad plays reader: what the page shows as a whole file
// must load.
func TestExamplesOfThePageLoad(t *testing.T) {
	page, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`(?m)^scenario: (\S+)`)
	examples := 0
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1) {
		n := name.FindSubmatch(m[1])
		if n == nil {
			continue
		}
		examples++
		if _, err := Parse(string(n[1])+".yaml", m[1]); err != nil {
			t.Errorf("%v\n%s", err, m[1])
		}
	}
	if examples < 2 {
		t.Errorf("%d whole files", examples)
	}
}

func TestThresholdsAreThoseOfTheNorms(t *testing.T) {
	source, err := os.ReadFile("../../../agent/acceptance/norms.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\t[A-Z]\w+ += "([a-z]+\.[a-z_]+)"`).FindAllSubmatch(source, -1) {
		if !slices.Contains(thresholdNames(), string(m[1])) {
			t.Errorf("%s cannot be overridden", m[1])
		}
	}
	for _, name := range thresholdNames() {
		if acceptance.Unit(name) == "" {
			t.Errorf("there is no threshold %s", name)
		}
	}
}
