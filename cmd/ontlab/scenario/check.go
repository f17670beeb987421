package scenario

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// The tags that YAML resolves scalars to.
const (
	tagNull  = "!!null"
	tagBool  = "!!bool"
	tagInt   = "!!int"
	tagFloat = "!!float"
)

// check compares a value with what it may be and tells every difference. It
// takes what is wrong out of the tree, so that what is left can be looked at
// further, and reports whether the value itself may stay.
func (ms *mistakes) check(n *yaml.Node, s *spec, field string) bool {
	wrong := ""
	switch s.kind {
	case mapping:
		if n.Kind == yaml.MappingNode {
			ms.checkMapping(n, s, field)
			return true
		}
		wrong = "must be a mapping of keys to values, not " + describe(n)
	case list:
		if n.Kind == yaml.SequenceNode {
			return ms.checkList(n, s, field)
		}
		wrong = "must be a list, not " + describe(n) + listHint(n)
	case text, number, whole, yesNo:
		switch {
		case n.Kind != yaml.ScalarNode:
			wrong = "must be " + s.describe() + ", not " + describe(n)
		case n.Tag == tagNull:
			wrong = "has no value; leave the key out, or give " + s.describe()
		default:
			wrong = s.checkScalar(n)
		}
	}
	if wrong != "" {
		ms.add(n.Line, n.Column, field, wrong)
	}
	return wrong == ""
}

func (ms *mistakes) checkMapping(n *yaml.Node, s *spec, field string) {
	value := ""
	if s.by != "" {
		value = ms.checkBy(n, s, field)
	}
	// With an unknown value of by, every key that some value has is let pass:
	// the one mistake is told already.
	keys := s.allowed(value)
	if value == unknown {
		for _, v := range s.variants {
			keys = append(slices.Clip(keys), v.keys...)
		}
	}
	seen := map[string]int{}
	content := n.Content
	n.Content = nil
	for i := 0; i+1 < len(content); i += 2 {
		k, v := content[i], content[i+1]
		if k.Kind != yaml.ScalarNode {
			ms.add(k.Line, k.Column, field, "a key must be a word, not "+describe(k))
			continue
		}
		if at, twice := seen[k.Value]; twice {
			ms.add(k.Line, k.Column, join(field, cut(k.Value)), fmt.Sprintf("stands twice, also in line %d", at))
			continue
		}
		seen[k.Value] = k.Line
		if k.Value == s.by {
			if value != unknown {
				n.Content = append(n.Content, k, v)
			}
			continue
		}
		at := indexKey(keys, k.Value)
		if at < 0 {
			ms.add(k.Line, k.Column, join(field, cut(k.Value)), unknownKey(s, keys, value, k.Value))
			continue
		}
		if ms.check(v, &keys[at].spec, join(field, k.Value)) {
			n.Content = append(n.Content, k, v)
		}
	}
	if value == unknown {
		return
	}
	for _, k := range keys {
		if _, ok := seen[k.name]; k.required && !ok && k.name != s.by {
			text := "is missing; it must be " + k.describe()
			if len(k.oneOf) > 0 && len(k.oneOf) < 10 {
				text += " (allowed: " + strings.Join(k.oneOf, ", ") + ")"
			}
			ms.add(n.Line, n.Column, join(field, k.name), text)
		}
	}
}

// unknown is the value of a by that is missing or wrong.
const unknown = "?"

// checkBy checks the key that decides which others there may be, and returns
// its value: unknown if it is wrong, "" if it may be missing and is.
func (ms *mistakes) checkBy(n *yaml.Node, s *spec, field string) string {
	v := lookup(n, s.by)
	k, _ := s.key(s.by, "")
	switch {
	case v == nil && k.required:
		ms.add(n.Line, n.Column, join(field, s.by), "is missing; it must be one of "+strings.Join(s.values(), ", "))
		return unknown
	case v == nil:
		return ""
	case !ms.check(v, &spec{kind: text, oneOf: s.values()}, join(field, s.by)):
		return unknown
	}
	return v.Value
}

func unknownKey(s *spec, keys []key, value, name string) string {
	if word, _, ok := strings.Cut(name, ":"); ok && indexKey(keys, word) >= 0 {
		return "unknown field; a blank is missing behind " + word + ":"
	}
	var all []string
	for _, k := range keys {
		all = append(all, k.name)
	}
	for _, v := range s.variants {
		if indexKey(v.keys, name) >= 0 {
			what := s.by + " " + value
			if value == "" {
				what = "an entry without " + s.by
			}
			return fmt.Sprintf("does not belong to %s (allowed: %s)", what, strings.Join(all, ", "))
		}
	}
	return "unknown field" + choice(name, all)
}

// checkList reports whether the list may stay: a list of mappings with
// something else in it may not, because its entries would be counted wrong.
func (ms *mistakes) checkList(n *yaml.Node, s *spec, field string) bool {
	if len(n.Content) > s.maxItems {
		ms.add(n.Line, n.Column, field, fmt.Sprintf("has %d entries; at most %d are allowed", len(n.Content), s.maxItems))
		return false
	}
	stays := true
	seen := map[string]int{}
	content := n.Content
	n.Content = nil
	for i, item := range content {
		at := fmt.Sprintf("%s[%d]", field, i)
		if !ms.check(item, s.items, at) {
			stays = stays && s.items.kind != mapping
			continue
		}
		n.Content = append(n.Content, item)
		if !s.unique || item.Kind != yaml.ScalarNode {
			continue
		}
		if line, twice := seen[item.Value]; twice {
			ms.add(item.Line, item.Column, at, fmt.Sprintf("%s stands twice, also in line %d", quote(item.Value), line))
		}
		seen[item.Value] = item.Line
	}
	return stays
}

// checkScalar says what is wrong with a scalar, or "".
func (s *spec) checkScalar(n *yaml.Node) string {
	switch s.kind {
	case yesNo:
		if n.Tag == tagBool {
			return ""
		}
		switch strings.ToLower(n.Value) {
		case "yes", "on", "y", "true", "1":
			return "must be true or false, not " + describe(n) + "; did you mean true?"
		case "no", "off", "n", "false", "0":
			return "must be true or false, not " + describe(n) + "; did you mean false?"
		}
		return "must be true or false, not " + describe(n)
	case number, whole:
		return s.checkNumber(n)
	case text:
		return s.checkText(n)
	case list, mapping:
	}
	return ""
}

func (s *spec) checkNumber(n *yaml.Node) string {
	if s.orNone && n.Value == "none" {
		return ""
	}
	if n.Tag != tagInt && n.Tag != tagFloat {
		hint := ""
		if _, err := strconv.ParseFloat(n.Value, 64); err == nil {
			hint = "; write it without quotes"
		} else if digits := strings.TrimRight(n.Value, " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ%/"); digits != n.Value {
			if _, err := strconv.ParseFloat(digits, 64); err == nil {
				hint = "; write the number alone"
			}
		}
		return "must be " + s.describe() + ", not " + describe(n) + hint
	}
	var v float64
	if err := n.Decode(&v); err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return "must be " + s.describe() + ", not " + describe(n)
	}
	if s.kind == whole && n.Tag != tagInt {
		return "must be " + s.describe() + ", without a point, not " + describe(n)
	}
	if v < s.min || v > s.max {
		return fmt.Sprintf("%s is out of range; it must be %s", n.Value, s.describe())
	}
	return ""
}

func (s *spec) checkText(n *yaml.Node) string {
	switch {
	case n.Tag == tagBool:
		return "must be " + s.describe() + ", not " + describe(n) + "; quote it if it is meant as a word"
	case s.oneOf != nil:
		if slices.Contains(s.oneOf, n.Value) {
			return ""
		}
		return quote(n.Value) + " is not known" + choice(n.Value, s.oneOf)
	case s.maxLen > 0 && len(n.Value) > s.maxLen:
		return fmt.Sprintf("is %d bytes long; at most %d are allowed", len(n.Value), s.maxLen)
	case !s.lines && strings.ContainsFunc(n.Value, unicode.IsControl):
		return "must not have control characters or line breaks in it"
	case s.like != nil && !s.like.pattern.MatchString(n.Value):
		return "must be " + s.like.words + ", not " + quote(n.Value)
	}
	return ""
}

// describe says in words what a value must be.
func (s *spec) describe() string {
	switch s.kind {
	case yesNo:
		return "true or false"
	case number, whole:
		words := "a number"
		if s.kind == whole {
			words = "a whole number"
		}
		if s.unit != "" && s.unit != "ratio" {
			words += " of " + s.unit
		}
		words += " from " + figure(s.min) + " to " + figure(s.max)
		if s.orNone {
			words += ", or none"
		}
		return words
	case list:
		return "a list"
	case mapping:
		return "a mapping"
	case text:
	}
	switch {
	case s.like != nil:
		return s.like.words
	case s.oneOf != nil:
		return "a word"
	}
	return "a text"
}

func figure(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// describe says what a value is.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch n.Tag {
		case tagNull:
			return "nothing"
		case tagBool, tagInt, tagFloat:
			return n.Value
		}
		return "the text " + quote(n.Value)
	case yaml.DocumentNode, yaml.AliasNode:
	}
	return "something else"
}

func listHint(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.Tag != tagNull && len(n.Value) <= 40 && n.Value != "" {
		return "; did you mean [" + n.Value + "]?"
	}
	return ""
}

func indexKey(keys []key, name string) int {
	for i := range keys {
		if keys[i].name == name {
			return i
		}
	}
	return -1
}

// lookup returns the value at a path of keys, or nil.
func lookup(n *yaml.Node, path ...string) *yaml.Node {
	for _, name := range path {
		if n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		var next *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				next = n.Content[i+1]
				break
			}
		}
		n = next
	}
	return n
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}
