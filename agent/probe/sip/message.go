package sip

import (
	"bytes"
	"strconv"
	"strings"
)

// The bounds of a message, and of what is kept of its texts.
const (
	maxMessage = 16 << 10
	maxHeaders = 128
	maxText    = 256
)

// header is a line of a message: its name in long form and lower case, and its
// value without folding.
type header struct{ name, value string }

// message is a message from the server.
type message struct {
	method  string // of a request; "" in a response
	code    int    // of a response, 100 to 699
	reason  string
	headers []header
	length  int // of head and body
}

// fault is what is wrong with a message.
type fault string

func (f fault) Error() string { return string(f) }

const (
	errCut       = fault("the message is cut short")
	errTooLong   = fault("the message is too long")
	errStartLine = fault("the first line is neither a status nor a request")
	errHeader    = fault("a line is no header")
	errLength    = fault("the content length is no number")
	errVia       = fault("it came with other Via headers than one")
	errBranch    = fault("it answers another request by its branch")
	errOther     = fault("it answers another request by its CSeq or Call-ID")
)

// headEnd returns the length of a message's head, with the empty line that ends
// it; 0 if it doesn't end.
func headEnd(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		line := b[at : at+i]
		at += i + 1
		if len(bytes.TrimSuffix(line, []byte{'\r'})) == 0 {
			return at
		}
	}
}

// parse reads the message that b begins with. Lines may end without a carriage
// return. It is a fault, or nil; errCut if more bytes could make it whole.
func parse(b []byte) (*message, error) {
	end := headEnd(b)
	if end > maxMessage || end == 0 && len(b) > maxMessage {
		return nil, errTooLong
	}
	if end == 0 {
		return nil, errCut
	}
	m := &message{length: end}
	for i, line := range strings.Split(strings.TrimRight(string(b[:end]), "\r\n"), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if i == 0 {
			if !m.start(line) {
				return nil, errStartLine
			}
		} else if !m.line(line) {
			return nil, errHeader
		}
	}
	if s, ok := m.get("content-length"); ok {
		n := number(s)
		if n < 0 {
			return nil, errLength
		}
		if n > maxMessage-end {
			return nil, errTooLong
		}
		m.length += n
	}
	if m.length > len(b) {
		return nil, errCut
	}
	return m, nil
}

// line reads a line of the head, which is not empty.
func (m *message) line(s string) bool {
	if s[0] == ' ' || s[0] == '\t' { // folded
		if len(m.headers) == 0 {
			return false
		}
		h := &m.headers[len(m.headers)-1]
		h.value = strings.TrimSpace(h.value + " " + strings.TrimSpace(s))
		return true
	}
	name, value, ok := strings.Cut(s, ":")
	name = strings.TrimRight(name, " \t")
	if !ok || !isToken(name) || len(m.headers) == maxHeaders {
		return false
	}
	m.headers = append(m.headers, header{longName(strings.ToLower(name)), strings.TrimSpace(value)})
	return true
}

// number reads a number from 0 to below 2^31; -1 if s is none.
func number(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}

// start reads the first line.
func (m *message) start(line string) bool {
	first, rest, _ := strings.Cut(line, " ")
	if !strings.EqualFold(first, "SIP/2.0") {
		_, version, ok := strings.Cut(rest, " ")
		m.method = first
		return ok && isToken(first) && strings.EqualFold(version, "SIP/2.0")
	}
	code, reason, _ := strings.Cut(rest, " ")
	m.code, m.reason = number(code), reason
	return len(code) == 3 && m.code >= 100 && m.code <= 699
}

// isToken reports whether s is a token (RFC 3261, section 25.1).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("-.!%*_+`'~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// longName returns the long form of a compact name, as far as it matters here.
func longName(name string) string {
	switch name {
	case "v":
		return "via"
	case "l":
		return "content-length"
	case "m":
		return "contact"
	case "i":
		return "call-id"
	}
	return name
}

// get returns the first header of that name.
func (m *message) get(name string) (string, bool) {
	for _, h := range m.headers {
		if h.name == name {
			return h.value, true
		}
	}
	return "", false
}

// text returns the first header of that name, for a person to read.
func (m *message) text(name string) string {
	s, _ := m.get(name)
	return cut(s)
}

// values returns what the headers of a name list, at most limit.
func (m *message) values(name string, limit int) []string {
	var all []string
	for _, h := range m.headers {
		if h.name != name {
			continue
		}
		for rest := h.value; rest != "" && len(all) < limit; {
			var v string
			v, rest = split(rest, ',')
			all = append(all, v)
		}
	}
	return all
}

// split cuts s at the first separator that is neither quoted nor in angle
// brackets.
func split(s string, separator byte) (before, after string) {
	quoted, angle := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case c == separator && !angle:
			return strings.TrimSpace(s[:i]), strings.TrimSpace(s[i+1:])
		}
	}
	return strings.TrimSpace(s), ""
}

// param returns the parameter of that name of a value: what follows it after
// semicolons; "" if there is none. Quotes are kept.
func param(value, name string) string {
	_, rest := split(value, ';')
	for rest != "" {
		var p string
		p, rest = split(rest, ';')
		key, v, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(key), name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// cut bounds a text of the server.
func cut(s string) string { return s[:min(len(s), maxText)] }
