package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	referencePath  = "../docs/configuration.md"
	referenceBegin = "<!-- From here on written by `make golden` from the decoder's own table. -->\n"
)

// The reference is written from the table that the decoder uses, so that it
// can't lack an option or tell another default.
func TestReferenceIsComplete(t *testing.T) {
	data, err := os.ReadFile(referencePath)
	if err != nil {
		t.Fatal(err)
	}
	preface, _, found := strings.Cut(string(data), referenceBegin)
	if !found {
		t.Fatalf("%s has no line %q", referencePath, referenceBegin)
	}
	want := preface + referenceBegin + reference()
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(referencePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Errorf("%s (-want +got), make golden:\n%s", referencePath, diff)
	}
}

func reference() string {
	c := Default()
	var out strings.Builder
	last := ""
	for _, s := range c.sections() {
		if s.typ == last {
			continue
		}
		last = s.typ
		if s.typ == "collector" {
			referenceCollectors(&out, &c, s)
			continue
		}
		fmt.Fprintf(&out, "\n## %s\n\n%s\n\n", s.typ, s.help)
		referenceTable(&out, s.options)
	}
	return out.String()
}

func referenceCollectors(out *strings.Builder, c *Config, s section) {
	out.WriteString("\n## collector\n\nWhat is read, and how often. The section's name says which collector it is:\n\n")
	out.WriteString("| name | reads | interval | timeout |\n|---|---|---|---|\n")
	for _, n := range c.Collectors.all() {
		fmt.Fprintf(out, "| `%s` | %s | `%v` | `%v` |\n", n.name, n.what, n.c.Interval.Seconds(), n.c.Timeout.Seconds())
	}
	out.WriteString("\n")
	options := append([]*option(nil), s.options...)
	for i := range options {
		if options[i].name == "interval" || options[i].name == "timeout" {
			options[i].fallback = "see above"
		}
	}
	referenceTable(out, options)
}

func referenceTable(out *strings.Builder, options []*option) {
	out.WriteString("| option | value | default | meaning |\n|---|---|---|---|\n")
	for _, o := range options {
		name := "`" + o.name + "`"
		if o.list {
			name = "list " + name
		}
		fallback := o.fallback
		if fallback == "" {
			var values []string
			for _, v := range o.get() {
				if v != "" {
					values = append(values, "`"+v+"`")
				}
			}
			fallback = strings.Join(values, ", ")
		}
		if fallback == "" {
			fallback = "none"
		}
		help := o.help
		if o.secret {
			help += " Never printed."
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", name, strings.ReplaceAll(o.kind, "|", "\\|"), fallback, help)
	}
}

// Every option can be given what it prints, and is then printed again: the
// bindings of the table meet their own values and nobody else's.
func TestOptionsAreBoundToTheirOwnValue(t *testing.T) {
	for i, s := range func() []section { c := Default(); return c.sections() }() {
		for j, o := range s.options {
			if o.name == "driver" {
				continue // there is one; it can't be given another
			}
			c, untouched := Default(), Default()
			value := sampleValue(t, o)
			if err := c.sections()[i].options[j].set(value, true); err != nil {
				t.Errorf("%s.%s doesn't take %q: %v", s.key(), o.name, value, err)
				continue
			}
			for k, s2 := range c.sections() {
				for l, o2 := range s2.options {
					before, after := untouched.sections()[k].options[l].get(), o2.get()
					changed := !cmp.Equal(before, after)
					if own := k == i && l == j; changed != own {
						t.Errorf("setting %s.%s to %q: %s.%s changed from %q to %q", s.key(), o.name, value, s2.key(), o2.name, before, after)
					}
				}
			}
		}
	}
}

// sampleValue returns a valid value that isn't the default.
func sampleValue(t *testing.T, o *option) string {
	t.Helper()
	now := strings.Join(o.get(), " ")
	for _, v := range []string{
		"0", "1", "7", "99", "9600", "persistent", "broker", "en", "never", "debug", "rtl960x", "B+", "other", "SAMPLE0123", "/sample",
		"192.0.2.1:99", "192.0.2.1", "sample.example.net", "tcp://sample", "http://sample", "PUT", "233.252.0.1", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
	} {
		c := Default()
		for _, s := range c.sections() {
			for _, fresh := range s.options {
				if fresh.name == o.name && fresh.kind == o.kind && fresh.set(v, true) == nil && strings.Join(fresh.get(), " ") != now {
					return v
				}
			}
		}
	}
	t.Fatalf("no sample for option %s", o.name)
	return ""
}
