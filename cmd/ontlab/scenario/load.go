package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// MaxBytes bounds a file.
const MaxBytes = 256 << 10

// Load reads a scenario file, strictly, and fills in what it leaves out. What
// is wrong with the file is told all at once: errors.As finds FileError.
func Load(file string) (Scenario, error) {
	f, err := os.Open(file)
	if err != nil {
		return Scenario{}, fmt.Errorf("cannot read scenario: %w", err)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
		return Scenario{}, fmt.Errorf("cannot read scenario: %s is not a regular file", file)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return Scenario{}, fmt.Errorf("cannot read scenario %s: %w", file, err)
	}
	return Parse(file, data)
}

// Parse is Load for what is in a file; file is its name.
func Parse(file string, data []byte) (Scenario, error) {
	ms := &mistakes{file: file}
	root := ms.tree(data)
	if root == nil {
		return Scenario{}, ms.err()
	}
	whole := format()
	if !ms.check(root, &whole, "") {
		return Scenario{}, ms.err()
	}
	s, err := decode(root, &whole)
	if err != nil {
		// The tree was checked: this is a hole in the checks.
		ms.add(1, 1, "", "cannot be understood: "+strings.TrimPrefix(err.Error(), "yaml: "))
		return Scenario{}, ms.err()
	}
	s.File = file
	s.derive(root)
	ms.judge(s, root)
	if err := ms.err(); err != nil {
		return Scenario{}, err
	}
	return s, nil
}

// tree parses one YAML document without the features that a scenario does not
// need and that make files hard to read or large to expand.
func (ms *mistakes) tree(data []byte) *yaml.Node {
	if len(data) > MaxBytes {
		ms.add(1, 1, "", fmt.Sprintf("is longer than %d KiB", MaxBytes>>10))
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		ms.add(1, 1, "", "is empty")
		return nil
	case err != nil:
		ms.syntax(data, err)
		return nil
	}
	if len(doc.Content) != 1 {
		ms.add(1, 1, "", "is empty")
		return nil
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == tagNull {
		ms.add(1, 1, "", "is empty")
		return nil
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case err == nil:
		ms.add(second.Line, second.Column, "", "a second document begins here; a file holds one scenario")
	case !errors.Is(err, io.EOF):
		ms.syntax(data, err)
	}
	ms.plain(root)
	if len(ms.list) > 0 {
		return nil
	}
	return root
}

// plain tells anchors, aliases and tags, which a scenario must not have.
func (ms *mistakes) plain(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		ms.add(n.Line, n.Column, "", "aliases (*name) are not allowed; write the value out")
	case n.Anchor != "":
		ms.add(n.Line, n.Column, "", "anchors (&name) are not allowed")
	case n.Style&yaml.TaggedStyle != 0:
		ms.add(n.Line, n.Column, "", "tags ("+n.Tag+") are not allowed")
	case n.Kind == yaml.ScalarNode && n.Tag == "!!merge":
		ms.add(n.Line, n.Column, "", "merge keys (<<) are not allowed; write the keys out")
	}
	for _, child := range n.Content {
		ms.plain(child)
	}
}

// syntax tells what the YAML parser could not read.
func (ms *mistakes) syntax(data []byte, err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line, column := 1, 1
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		line, _ = strconv.Atoi(m[1])
		if strings.HasPrefix(text, "did not find") {
			line++ // of these the parser counts lines from 0
		}
	}
	// A tab for indentation is the usual reason, and the parser's own words and
	// line do not say so.
	for i, l := range bytes.Split(data, []byte("\n")) {
		blanks := len(l) - len(bytes.TrimLeft(l, " "))
		if blanks < len(l) && l[blanks] == '\t' && i+1 >= line-1 {
			ms.add(i+1, blanks+1, "", "a tab; YAML is indented with blanks")
			return
		}
	}
	ms.add(line, column, "", "is not YAML: "+text)
}

// decode fills the defaults into a checked tree and turns it into a Scenario.
// The tree stays as it is.
func decode(root *yaml.Node, s *spec) (Scenario, error) {
	whole := clone(root)
	if lookup(whole, "services") == nil {
		whole.Content = append(whole.Content, scalar("services"), &yaml.Node{
			Kind: yaml.SequenceNode,
			Content: []*yaml.Node{{
				Kind: yaml.MappingNode, Content: []*yaml.Node{scalar("kind"), scalar(Internet)},
			}},
		})
	}
	if err := fill(whole, s); err != nil {
		return Scenario{}, err
	}
	var out Scenario
	if err := whole.Decode(&out); err != nil {
		return Scenario{}, err
	}
	for i, n := range lookupList(whole, "timeline") {
		out.Timeline[i].Line = n.Line
	}
	return out, nil
}

// fill adds the keys that are missing and have a default.
func fill(n *yaml.Node, s *spec) error {
	switch {
	case s.kind == list && n.Kind == yaml.SequenceNode:
		for _, item := range n.Content {
			if err := fill(item, s.items); err != nil {
				return err
			}
		}
	case s.kind == mapping && n.Kind == yaml.MappingNode:
		value := ""
		if v := lookup(n, s.by); s.by != "" && v != nil {
			value = v.Value
		}
		for _, k := range s.allowed(value) {
			v := lookup(n, k.name)
			if v == nil {
				var err error
				if v, err = k.preset(); err != nil {
					return err
				}
				if v == nil {
					continue
				}
				v.Line, v.Column = n.Line, n.Column
				n.Content = append(n.Content, scalar(k.name), v)
			}
			if err := fill(v, &k.spec); err != nil {
				return err
			}
		}
	}
	return nil
}

// preset returns the default of a key, nil if it has none.
func (k *key) preset() (*yaml.Node, error) {
	switch {
	case k.def != "":
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(k.def), &doc); err != nil {
			return nil, fmt.Errorf("default of %s: %w", k.name, err)
		}
		return doc.Content[0], nil
	case k.kind == mapping:
		return &yaml.Node{Kind: yaml.MappingNode}, nil
	}
	return nil, nil
}

func scalar(value string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: value} }

func clone(n *yaml.Node) *yaml.Node {
	c := *n
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		c.Content[i] = clone(child)
	}
	return &c
}

// UnmarshalYAML reads a number, or none.
func (p *DBm) UnmarshalYAML(n *yaml.Node) error {
	if n.Value == "none" {
		*p = NoLight()
		return nil
	}
	return n.Decode((*float64)(p))
}

// base is the name of a scenario by its file's.
func base(file string) string {
	name := filepath.Base(file)
	return strings.TrimSuffix(strings.TrimSuffix(name, ".yaml"), ".yml")
}
