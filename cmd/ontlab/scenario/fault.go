package scenario

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Fault returns a fault to be played at once on a lab that is up, as if the
// timeline had it. params are "key=value", values written as in a file; what is
// not given has its default. The error says what is allowed.
func (s Scenario) Fault(name string, params []string) (Moment, error) {
	fail := func(err error) (Moment, error) {
		return Moment{}, fmt.Errorf("cannot play fault %s: %w", quote(name), err)
	}
	if !slices.Contains(Faults(), name) {
		return fail(errors.New("it is not known" + choice(name, Faults())))
	}
	entry := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{scalar("fault"), scalar(name)}}
	for _, p := range params {
		key, value, ok := strings.Cut(p, "=")
		if !ok {
			return fail(fmt.Errorf("%s is not key=value", quote(p)))
		}
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(value), &doc); err != nil {
			return fail(fmt.Errorf("%s: %w", quote(p), err))
		}
		v := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str"} // the empty text
		if len(doc.Content) > 0 {
			v = doc.Content[0]
		}
		entry.Content = append(entry.Content, scalar(key), v)
	}
	ms := &mistakes{}
	if ms.plain(entry); len(ms.list) > 0 {
		return fail(ms.list.plain())
	}
	whole := momentSpec()
	whole.keys = slices.DeleteFunc(whole.keys, func(k key) bool { return k.name != "fault" })
	if !ms.check(entry, whole, "") || len(ms.list) > 0 {
		return fail(ms.list.plain())
	}
	filled := clone(entry)
	if err := fill(filled, whole); err != nil {
		return fail(err)
	}
	var m Moment
	if err := filled.Decode(&m); err != nil {
		return fail(err)
	}
	s.deriveMoment(&m, entry)
	j := &judge{mistakes: ms, root: entry, s: s}
	j.fault(m, "", func(key string) bool { return lookup(entry, key) != nil })
	if len(ms.list) > 0 {
		return fail(ms.list.plain())
	}
	return m, nil
}

// plain tells mistakes without their places.
func (e FileError) plain() error {
	var all []error
	for _, m := range e {
		text := m.Text
		if m.Field != "" {
			text = strings.TrimPrefix(m.Field, ".") + ": " + text
		}
		all = append(all, errors.New(text))
	}
	return errors.Join(all...)
}
