package http

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// What a response may be at most; more ends it.
const (
	maxHead  = 16 << 10 // of all heads, interim responses included
	maxBody  = 64 << 10
	maxChunk = 4 << 10 // of a chunk's size line, and of the trailers
)

// errMalformed is what errors.Is finds if the bytes are no HTTP/1 response.
var errMalformed = errors.New("malformed response")

// head is what counts of a response's head.
type head struct {
	status      int
	reason      string
	location    string
	server      string
	contentType string
	chunked     bool
	length      int64 // -1 if not announced
}

// bodiless reports whether a response of this status has no body, whatever its
// head says (RFC 9112 section 6.3).
func (h head) bodiless() bool { return h.status == 204 || h.status == 304 || h.status < 200 }

// headLength returns the length of the head that b begins with, its empty line
// included, or -1 if that has not come yet. What lies before from was looked
// at before, without success.
func headLength(b []byte, from int) int {
	for i := max(from, 0); ; {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return -1
		}
		i += n + 1
		if rest := b[i:]; len(rest) > 0 && rest[0] == '\n' {
			return i + 1
		} else if len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n' {
			return i + 2
		}
	}
}

// parseHead reads a whole head: lines ended by CRLF or LF, the last one empty.
func parseHead(b []byte) (head, error) {
	h := head{length: -1}
	line, rest := cutLine(b)
	if err := h.statusLine(line); err != nil {
		return head{}, err
	}
	for {
		line, rest = cutLine(rest)
		if line == "" {
			return h, nil
		}
		name, value, ok := strings.Cut(line, ":")
		// No space before the colon, no folded lines: what two readers take
		// for different things (RFC 9112 section 5).
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return head{}, fmt.Errorf("%w: header line %.60q", errMalformed, line)
		}
		if err := h.field(name, strings.Trim(value, " \t")); err != nil {
			return head{}, err
		}
	}
}

func cutLine(b []byte) (line string, rest []byte) {
	l, rest, _ := bytes.Cut(b, []byte{'\n'})
	return string(bytes.TrimSuffix(l, []byte{'\r'})), rest
}

func (h *head) statusLine(line string) error {
	version, rest, _ := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(code, 10, 16)
	if version != "HTTP/1.1" && version != "HTTP/1.0" || len(code) != 3 || err != nil || n < 100 {
		return fmt.Errorf("%w: status line %.60q", errMalformed, line)
	}
	h.status, h.reason = int(n), reason
	return nil
}

func (h *head) field(name, value string) error {
	switch {
	case strings.EqualFold(name, "Location"):
		keepFirst(&h.location, value)
	case strings.EqualFold(name, "Server"):
		keepFirst(&h.server, value)
	case strings.EqualFold(name, "Content-Type"):
		keepFirst(&h.contentType, value)
	case strings.EqualFold(name, "Transfer-Encoding"):
		if h.chunked || !strings.EqualFold(value, "chunked") {
			return fmt.Errorf("%w: transfer encoding %.60q", errMalformed, value)
		}
		h.chunked = true
	case strings.EqualFold(name, "Content-Length"):
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || value[0] == '+' || h.length >= 0 && h.length != int64(n) {
			return fmt.Errorf("%w: content length %.60q", errMalformed, value)
		}
		h.length = int64(n)
	}
	return nil
}

func keepFirst(into *string, value string) {
	if *into == "" {
		*into = value
	}
}

// body takes a response's body as it comes, and keeps at most maxBody of it.
type body struct {
	chunked bool
	left    int64 // of the length announced, or of this chunk; -1: until the end of the stream
	state   byte  // of a chunked body
	line    []byte
	lines   int // bytes of trailers

	content []byte
	done    bool // the end came, or what is kept is full
	full    bool
	excess  int // bytes that came after the end
}

// The states of a chunked body.
const (
	inSize    = iota
	inData    // left bytes of it are to come
	inDataEnd // the line break after them
	inTrailer
)

func newBody(h head) *body {
	b := &body{chunked: h.chunked, left: h.length}
	switch {
	case h.bodiless():
		b.chunked, b.left, b.done = false, 0, true
	case h.chunked:
		b.left = 0
	case h.length == 0:
		b.done = true
	}
	return b
}

// take takes the next bytes of the stream.
func (b *body) take(p []byte) error {
	for len(p) > 0 {
		if b.done {
			if !b.full {
				b.excess += len(p)
			}
			return nil
		}
		if !b.chunked || b.state == inData {
			p = p[b.data(p):]
			continue
		}
		n := bytes.IndexByte(p, '\n') + 1
		if n == 0 {
			n = len(p)
		}
		b.line = append(b.line, p[:n]...)
		ended := p[n-1] == '\n'
		p = p[n:]
		if b.lines += n; b.lines > maxChunk {
			return fmt.Errorf("%w: a chunk's size or trailers beyond %d bytes", errMalformed, maxChunk)
		}
		if !ended {
			continue
		}
		line, _ := cutLine(b.line)
		b.line = b.line[:0]
		if err := b.ended(line); err != nil {
			return err
		}
	}
	return nil
}

// data takes bytes of the content, and returns how many of p are.
func (b *body) data(p []byte) int {
	if b.left >= 0 {
		p = p[:min(int64(len(p)), b.left)]
		b.left -= int64(len(p))
	}
	keep := min(len(p), maxBody-len(b.content))
	b.content = append(b.content, p[:keep]...)
	switch {
	case keep < len(p):
		b.done, b.full = true, true
	case b.left == 0 && b.chunked:
		b.state = inDataEnd
	case b.left == 0:
		b.done = true
	}
	return len(p)
}

// ended handles a line of the chunked coding (RFC 9112 section 7.1).
func (b *body) ended(line string) error {
	switch b.state {
	case inSize:
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.Trim(size, " \t"), 16, 63)
		if err != nil || size[0] == '+' {
			return fmt.Errorf("%w: chunk size %.60q", errMalformed, line)
		}
		b.left, b.lines, b.state = int64(n), 0, inData
		if n == 0 {
			b.state = inTrailer
		}
	case inDataEnd:
		if line != "" {
			return fmt.Errorf("%w: %.60q after a chunk", errMalformed, line)
		}
		b.lines, b.state = 0, inSize
	default:
		b.done = line == ""
	}
	return nil
}

// whole reports whether the end of the stream, now, is the end of the body.
func (b *body) whole() bool { return b.done || !b.chunked && b.left < 0 }
