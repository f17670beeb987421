package tcp

import "bytes"

// maxLine bounds the status line, which RFC 9112 does not.
const maxLine = 512

// statusLine reads the first line of an HTTP/1 answer from what has come so far.
// more says that it is right as far as it goes and not whole; code is 0 if it is
// none.
func statusLine(b []byte) (line []byte, code int, more bool) {
	const form = "HTTP/1.d ddd" // d: a digit
	end := bytes.IndexByte(b, '\n')
	line = b[:min(len(b), maxLine)]
	if end >= 0 && end < maxLine {
		line = bytes.TrimSuffix(b[:end], []byte("\r"))
	}
	for i := range min(len(line), len(form)) {
		if c := line[i]; c != form[i] && (form[i] != 'd' || c < '0' || c > '9') {
			return line, 0, false
		}
	}
	switch {
	case end < 0:
		return line, 0, len(b) < maxLine
	case end >= maxLine || len(line) < len(form):
		return line, 0, false
	case len(line) > len(form) && line[len(form)] != ' ':
		return line, 0, false
	case line[len(form)-3] == '0':
		return line, 0, false
	}
	for _, c := range line[len(form)-3 : len(form)] {
		code = code*10 + int(c-'0')
	}
	return line, code, false
}
