package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"ontagent/cmd/ontctl/render"
)

// rowWriter writes rows. Errors come back from end.
type rowWriter interface {
	row(r fields)
	end() error
}

func rowWriters() map[string]func(io.Writer, []column) rowWriter {
	return map[string]func(io.Writer, []column) rowWriter{
		"json":  func(w io.Writer, cs []column) rowWriter { return &jsonRows{w: w, columns: cs, array: true} },
		"jsonl": func(w io.Writer, cs []column) rowWriter { return &jsonRows{w: w, columns: cs} },
		"csv":   newCSVRows,
	}
}

// jsonRows writes objects that have every member, in the order of the columns.
type jsonRows struct {
	w       io.Writer
	columns []column
	array   bool
	n       int
	err     error
}

func (j *jsonRows) write(s string) {
	if j.err == nil {
		_, j.err = io.WriteString(j.w, s)
	}
}

func (j *jsonRows) row(r fields) {
	switch {
	case j.array && j.n == 0:
		j.write("[\n")
	case j.array:
		j.write(",\n")
	}
	j.n++
	var b bytes.Buffer
	b.WriteByte('{')
	for i, c := range j.columns {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(c.name)) // plain ASCII
		b.WriteByte(':')
		b.Write(jsonValue(c, r[c.name]))
	}
	b.WriteByte('}')
	if !j.array {
		b.WriteByte('\n')
	}
	j.write(b.String())
}

// jsonValue encodes a value; what is not known is null.
func jsonValue(c column, v any) []byte {
	switch x := v.(type) {
	case string:
		if x == "" && c.kind == kindText {
			return []byte("null")
		}
	case float64:
		if !finite(x) {
			return []byte("null")
		}
	}
	data, err := json.Marshal(v)
	if err != nil { // nothing of ours
		return []byte("null")
	}
	return data
}

func (j *jsonRows) end() error {
	switch {
	case j.array && j.n == 0:
		j.write("[]\n")
	case j.array:
		j.write("\n]\n")
	}
	return j.err
}

// csvRows writes comma-separated values as RFC 4180 has them.
type csvRows struct {
	w       *csv.Writer
	columns []column
}

func newCSVRows(w io.Writer, columns []column) rowWriter {
	out := &csvRows{csv.NewWriter(w), columns}
	out.w.UseCRLF = true
	header := make([]string, len(columns))
	for i, c := range columns {
		header[i] = c.name
	}
	_ = out.w.Write(header) // csv.Writer keeps its error
	return out
}

func (c *csvRows) row(r fields) {
	cells := make([]string, len(c.columns))
	for i, col := range c.columns {
		switch v := r[col.name].(type) {
		case string:
			cells[i] = cell(v)
		case float64:
			if finite(v) {
				cells[i] = strconv.FormatFloat(v, 'f', -1, 64)
			}
		case uint64:
			cells[i] = strconv.FormatUint(v, 10)
		case bool:
			cells[i] = strconv.FormatBool(v)
		}
	}
	_ = c.w.Write(cells)
}

func (c *csvRows) end() error {
	c.w.Flush()
	return c.w.Error()
}

// cell makes a text fit for a spreadsheet: on one line, nothing that cannot be
// seen, and nothing that would be taken for a formula. What begins like one
// gets an apostrophe before it, unless it is a number.
func cell(s string) string {
	s = render.Clean(s)
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(s, " \u3000"))
	if strings.ContainsRune("=+-@＝＋－＠", first) && !isNumber(s) {
		return "'" + s
	}
	return s
}

// isNumber reports whether s is a plain decimal number.
func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil && strings.Trim(s, "0123456789+-.eE") == ""
}
