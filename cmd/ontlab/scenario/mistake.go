package scenario

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Mistake is one thing that is wrong with a file.
type Mistake struct {
	File         string
	Line, Column int    // from 1
	Field        string // "services[0].vlan"; "" if none is to blame
	Text         string // what is wrong and what is allowed
}

// String returns FILE:LINE:COLUMN: FIELD: TEXT.
func (m Mistake) String() string {
	at := fmt.Sprintf("%s:%d:%d: ", m.File, m.Line, m.Column)
	if m.Field != "" {
		at += m.Field + ": "
	}
	return at + m.Text
}

// FileError is all that is wrong with a file, in the order of its lines.
// errors.As finds it in what Load and Parse return.
type FileError []Mistake

// Error implements error: a line for each.
func (e FileError) Error() string {
	lines := make([]string, len(e))
	for i, m := range e {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// maxMistakes bounds what is told of one file.
const maxMistakes = 50

// mistakes collects what is wrong with a file.
type mistakes struct {
	file string
	list FileError
	more int // that were not kept
}

func (ms *mistakes) add(line, column int, field, text string) {
	if len(ms.list) == maxMistakes {
		ms.more++
		return
	}
	ms.list = append(ms.list, Mistake{File: ms.file, Line: max(line, 1), Column: max(column, 1), Field: field, Text: text})
}

// err returns what was collected, or nil.
func (ms *mistakes) err() error {
	if len(ms.list) == 0 {
		return nil
	}
	slices.SortStableFunc(ms.list, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if ms.more > 0 {
		last := ms.list[len(ms.list)-1]
		ms.list = append(ms.list, Mistake{File: ms.file, Line: last.Line, Column: last.Column, Text: fmt.Sprintf("and %d more mistakes", ms.more)})
	}
	return ms.list
}

// quote shows a word of the file.
func quote(s string) string { return strconv.Quote(cut(s)) }

// cut bounds a word of the file.
func cut(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// choice says what a word may be instead: the one that was probably meant, and
// all of them if they are few.
func choice(word string, known []string) string {
	const few = 24
	text := ""
	if meant := didYouMean(word, known); meant != "" {
		text = "; did you mean " + meant + "?"
	}
	if len(known) == 0 || len(known) > few {
		return text
	}
	return text + " (allowed: " + strings.Join(known, ", ") + ")"
}
