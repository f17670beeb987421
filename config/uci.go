package config

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// block is a section as it stands in a file.
type block struct {
	typ, name string // name is empty for an unnamed section
	line      int
	entries   []entry
}

// entry is one option line, or one value of a list.
type entry struct {
	name, value string
	list        bool
	line        int
}

func (e entry) keyword() string {
	if e.list {
		return "list"
	}
	return "option"
}

// word is an argument of a line, quotes and escapes undone.
type word struct {
	text string
	line int
}

// parseUCI reads UCI syntax as libuci does: "package NAME", "config TYPE
// [NAME]", "option NAME VALUE", "list NAME VALUE", one a line or separated by
// semicolons; '…' takes everything as it is, newlines included; in "…" and
// outside quotes a backslash takes the next character as it is, and before the
// end of a line joins it with the next; quoted and unquoted parts that touch
// are one word; # begins a comment where a word would begin or go on outside
// quotes. It is stricter in that the text must be UTF-8 without control
// characters.
func parseUCI(file string, data []byte) ([]block, error) {
	s := scanner{file: file, rest: string(data), line: 1}
	if err := s.checkText(); err != nil {
		return nil, err
	}
	var blocks []block
	for {
		words, err := s.statement()
		if err != nil {
			return nil, err
		}
		if words == nil {
			return blocks, nil
		}
		blocks, err = s.apply(blocks, words)
		if err != nil {
			return nil, err
		}
	}
}

type scanner struct {
	file string
	rest string // not yet read
	line int    // of the first character of rest
}

func (s *scanner) fail(line int, format string, args ...any) error {
	return &Error{File: s.file, Line: line, Text: clip(fmt.Sprintf(format, args...))}
}

// checkText refuses what no later step should have to think of.
func (s *scanner) checkText() error {
	line := 1
	for i := 0; i < len(s.rest); {
		r, size := utf8.DecodeRuneInString(s.rest[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return s.fail(line, "is not UTF-8 text")
		case r == '\n':
			line++
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			return s.fail(line, "holds the control character %#02x", r)
		}
		i += size
	}
	return nil
}

// next returns the next byte and steps over it; ok is false at the end.
func (s *scanner) next() (b byte, ok bool) {
	if s.rest == "" {
		return 0, false
	}
	b = s.rest[0]
	s.rest = s.rest[1:]
	if b == '\n' {
		s.line++
	}
	return b, true
}

// statement returns the words of the next line or part of one that has any,
// nil at the end of the text.
func (s *scanner) statement() ([]word, error) {
	var words []word
	for s.rest != "" {
		switch s.rest[0] {
		case ' ', '\t', '\r':
			s.next()
		case '#':
			s.skipComment()
		case '\n', ';':
			s.next()
			if words != nil {
				return words, nil
			}
		case '\\':
			// A line may go on in the next between words, too.
			if strings.HasPrefix(s.rest, "\\\n") {
				s.next()
				s.next()
				continue
			}
			w, err := s.word()
			if err != nil {
				return nil, err
			}
			words = append(words, w)
		default:
			w, err := s.word()
			if err != nil {
				return nil, err
			}
			words = append(words, w)
		}
	}
	return words, nil
}

func (s *scanner) skipComment() {
	if end := strings.IndexByte(s.rest, '\n'); end >= 0 {
		s.rest = s.rest[end:]
		return
	}
	s.rest = ""
}

// word reads one word; there is at least one character of it.
func (s *scanner) word() (word, error) {
	var text strings.Builder
	w := word{line: s.line}
	for s.rest != "" {
		switch s.rest[0] {
		case ' ', '\t', '\r', '\n', ';', '#':
			w.text = text.String()
			return w, nil
		}
		var err error
		switch b, _ := s.next(); b {
		case '\'':
			err = s.singleQuoted(&text)
		case '"':
			err = s.doubleQuoted(&text)
		case '\\':
			err = s.escaped(&text)
		default:
			text.WriteByte(b)
		}
		if err != nil {
			return word{}, err
		}
	}
	w.text = text.String()
	return w, nil
}

func (s *scanner) singleQuoted(text *strings.Builder) error {
	began := s.line
	for {
		b, ok := s.next()
		switch {
		case !ok:
			return s.fail(began, "a quote (') is opened and not closed")
		case b == '\'':
			return nil
		}
		text.WriteByte(b)
	}
}

func (s *scanner) doubleQuoted(text *strings.Builder) error {
	began := s.line
	for {
		b, ok := s.next()
		switch {
		case !ok:
			return s.fail(began, `a quote (") is opened and not closed`)
		case b == '"':
			return nil
		case b == '\\':
			if err := s.escaped(text); err != nil {
				return err
			}
		default:
			text.WriteByte(b)
		}
	}
}

// escaped takes what follows a backslash.
func (s *scanner) escaped(text *strings.Builder) error {
	began := s.line
	b, ok := s.next()
	if !ok {
		return s.fail(began, `ends in a backslash`)
	}
	if b != '\n' {
		text.WriteByte(b)
	}
	return nil
}

// apply adds a statement to the blocks.
func (s *scanner) apply(blocks []block, words []word) ([]block, error) {
	keyword, args := words[0].text, words[1:]
	line := words[0].line
	// Abbreviations ("o" for "option") are libuci's; nobody writes them.
	switch keyword {
	case "package":
		if len(args) != 1 || !isName(strings.ReplaceAll(args[0].text, "-", "_")) {
			return nil, s.fail(line, "package needs one name")
		}
		if len(blocks) > 0 {
			return nil, s.fail(line, "package must come before the first section")
		}
		return blocks, nil
	case "config":
		if len(args) < 1 || len(args) > 2 {
			return nil, s.fail(line, "config needs a type and, if wanted, a name")
		}
		b := block{typ: args[0].text, line: line}
		if !isName(b.typ) {
			return nil, s.fail(line, "%q is no section type: letters, digits and _ only", b.typ)
		}
		if len(args) == 2 {
			b.name = args[1].text
			if !isName(b.name) {
				return nil, s.fail(line, "%q is no section name: letters, digits and _ only", b.name)
			}
		}
		return append(blocks, b), nil
	case "option", "list":
		if len(args) != 2 {
			return nil, s.fail(line, "%s needs a name and one value; quote a value that holds spaces", keyword)
		}
		name := args[0].text
		if !isName(name) {
			return nil, s.fail(line, "%q is no option name: letters, digits and _ only", name)
		}
		if len(blocks) == 0 {
			return nil, s.fail(line, "%s %s stands before the first section", keyword, name)
		}
		last := &blocks[len(blocks)-1]
		last.entries = append(last.entries, entry{name: name, value: args[1].text, list: keyword == "list", line: line})
		return blocks, nil
	}
	return nil, s.fail(line, "%q is none of config, option, list and package", keyword)
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}

// quote writes a value as uci export does: in single quotes, which are closed
// around each single quote of its own, and that escaped.
func quote(value string) string {
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}
