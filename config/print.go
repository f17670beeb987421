package config

import (
	"bufio"
	"fmt"
	"io"
	"slices"
)

// Print writes the configuration, defaults included, in UCI syntax. Secrets
// are written as "***".
func (c *Config) Print(w io.Writer) error {
	own, empty := *c, Default()
	defaults := empty.sections()
	out := bufio.NewWriter(w)
	for i, s := range own.sections() {
		separator := "\n"
		if i == 0 {
			separator = ""
		}
		name := s.name
		if name == "" {
			name = s.typ
		}
		fmt.Fprintf(out, "%sconfig %s %s\n", separator, s.typ, quote(name))
		for j, o := range s.options {
			keyword := "option"
			if o.list {
				keyword = "list"
			}
			values := o.get()
			// What is empty, and would be without being written.
			if slices.Equal(values, []string{""}) && slices.Equal(defaults[i].options[j].get(), values) {
				continue
			}
			for _, v := range values {
				fmt.Fprintf(out, "\t%s %s %s\n", keyword, o.name, quote(v))
			}
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("cannot print configuration: %w", err)
	}
	return nil
}
