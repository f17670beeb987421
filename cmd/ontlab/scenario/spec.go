package scenario

import (
	"regexp"
	"slices"
)

// kind is what a value is.
type kind int

const (
	text    kind = iota // a scalar; digits need no quotes
	number              // with or without a point
	whole               // without
	yesNo               // true or false
	list                // of items
	mapping             // of keys
)

// spec says what a value may be. From it come what Parse checks, the JSON
// Schema and the tables of the page.
type spec struct {
	kind kind

	oneOf    []string // text: what it may be; nil: anything
	shared   string   // name in the schema's $defs, where it stands once; "": inline
	like     *form    // text: its shape
	lines    bool     // text: of several lines
	maxLen   int      // text: in bytes
	min, max float64  // number and whole; both included
	unit     string   // number and whole
	orNone   bool     // number: or the word none
	maxItems int      // list
	unique   bool     // list
	items    *spec    // list
	keys     []key    // mapping
	by       string   // mapping: the key that decides which of variants has further keys
	variants []variant
}

// key is a key of a mapping.
type key struct {
	name     string
	doc      string // what it is; whole sentences
	def      string // default, as YAML; filled in by Parse
	derived  string // default in words, where it depends on other fields
	example  string // as YAML
	required bool
	spec
}

// variant are the keys that a mapping has besides if its by has this value.
type variant struct {
	value string
	doc   string
	keys  []key
	needs need // of a fault
}

// form is a shape of texts.
type form struct {
	pattern *regexp.Regexp
	words   string // "letters and digits"
}

func shape(pattern, words string) *form { return &form{regexp.MustCompile(pattern), words} }

// key returns the key of a name that a mapping with this value of by may have.
func (s *spec) key(name, value string) (key, bool) {
	for _, k := range s.allowed(value) {
		if k.name == name {
			return k, true
		}
	}
	return key{}, false
}

// allowed returns the keys that a mapping with this value of by may have.
func (s *spec) allowed(value string) []key {
	for _, v := range s.variants {
		if v.value == value {
			return append(slices.Clip(s.keys), v.keys...)
		}
	}
	return s.keys
}

// values returns the values that by may have.
func (s *spec) values() []string {
	var names []string
	for _, v := range s.variants {
		names = append(names, v.value)
	}
	return names
}
